/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many connections a site takes: growth, steps down, both bounds, forgetting. Virtual time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "site_net.h"

static struct site_view home_view(struct net *net, uint32_t home)
{
    struct site_view view = {0};
    uint32_t cursor = 0;

    while (site_next(net->shards[home].sites, &cursor, &view)) {
        if (view.is_home)
            return view;
    }
    fail_msg("the home knows no site");
    return view;
}

/* An attempt that begins and ends a second later. */
static void attempt(struct net *net, uint32_t shard, struct site *site, enum site_outcome outcome)
{
    tick_us began = net->now;

    net_pass(net, TICK_S(1));
    site_outcome(net->shards[shard].sites, site, outcome, began, net->now);
    net_settle(net);
}

static void steps_follow_outcomes(void **state)
{
    static const struct {
        const char *name;
        const char *outcomes; /* + success, - refusal, a turned away, x no host, 0 neutral */
        uint32_t allowed;
        enum site_learn_reason reason;
    } rows[] = {
        {"few at first", "", 2, SITE_LEARN_START},
        {"one more for a success", "+", 3, SITE_LEARN_GROWN},
        {"five short of the limit", "++++++++++++", 14, SITE_LEARN_GROWN},
        {"at the limit", "+++++++++++++++", 16, SITE_LEARN_GROWN},
        {"half", "++++++++++++++-", 8, SITE_LEARN_REFUSED},
        {"a quarter", "++++++++++++++--", 4, SITE_LEARN_REFUSED},
        {"never below one", "++++++++++++++--------", 1, SITE_LEARN_REFUSED},
        {"not yet one more after a refusal", "++++++++++++++-+++++++", 8, SITE_LEARN_REFUSED},
        {"as many successes as are allowed", "++++++++++++++-++++++++", 9, SITE_LEARN_GROWN},
        {"from one to two", "-+", 2, SITE_LEARN_GROWN},
        {"from one to not yet three", "-++", 2, SITE_LEARN_GROWN},
        {"from one to three", "-+++", 3, SITE_LEARN_GROWN},
        {"one when nobody answers", "++++++++++++++x", 1, SITE_LEARN_UNREACHABLE},
        {"fast up to half of what it was", "++++++++++++++x+++++++", 8, SITE_LEARN_GROWN},
        {"slowly above", "++++++++++++++x++++++++", 8, SITE_LEARN_GROWN},
        {"nothing learned", "00+0", 3, SITE_LEARN_GROWN},
        {"half when it turns away", "++++++++++++++a", 8, SITE_LEARN_REFUSED},
        {"down to one", "++++++++++++++aaaa", 1, SITE_LEARN_REFUSED},
        {"the only one turned away", "++++++++++++++aaaaa", 1, SITE_LEARN_UNREACHABLE},
    };
    static const enum site_outcome outcomes[128] = {['+'] = SITE_OUTCOME_OK,
                                                    ['0'] = SITE_OUTCOME_NEUTRAL,
                                                    ['-'] = SITE_OUTCOME_REFUSED,
                                                    ['a'] = SITE_OUTCOME_TURNED_AWAY,
                                                    ['x'] = SITE_OUTCOME_UNREACHABLE};

    (void)state;
    for (uint32_t shards = 1; shards <= 2; shards++) {
        for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
            struct net net;
            net_init_learning(&net, shards, 16, 2);
            struct site *site = net_site(&net, shards - 1, 0, 1);
            (void)net_acquire(&net, shards - 1, site, 5);
            net_settle(&net);
            for (const char *at = rows[i].outcomes; *at != '\0'; at++)
                attempt(&net, shards - 1, site, outcomes[(uint8_t)*at]);
            struct site_view view = home_view(&net, 0);
            if (view.allowed != rows[i].allowed || view.allowed_reason != rows[i].reason)
                fail_msg("%s: %u, reason %d", rows[i].name, view.allowed, view.allowed_reason);
            net_fini(&net);
        }
    }
}

/* Slots are granted up to what is allowed, at once when that rises. */
static void slots_follow_what_is_allowed(void **state)
{
    struct net net;

    (void)state;
    net_init_learning(&net, 2, 10, 2);
    struct site *a = net_site(&net, 0, 0, 1), *b = net_site(&net, 1, 0, 1);
    assert_int_equal(ERR_OK, net_acquire(&net, 0, a, 5));
    assert_int_equal(ERR_OK, net_acquire(&net, 0, a, 5));
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 0, a, 5));
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 1, b, 6));
    net_settle(&net);
    uint32_t wakes = net.shards[0].wakes;
    attempt(&net, 0, a, SITE_OUTCOME_OK);
    assert_int_equal(wakes + 1, net.shards[0].wakes);
    assert_int_equal(ERR_OK, net_acquire(&net, 0, a, 5));
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 0, a, 7));
    attempt(&net, 0, a, SITE_OUTCOME_OK);
    assert_int_equal(ERR_OK, net_acquire(&net, 1, b, 6)); /* the older one */
    net_settle(&net);
    assert_false(site_has_excess(a));
    /* 4 in use, 2 allowed: those of `a` that are idle should be closed. */
    attempt(&net, 1, b, SITE_OUTCOME_REFUSED);
    assert_true(site_has_excess(a));
    net_return(&net, 0, a);
    net_settle(&net);
    assert_int_equal(2, site_get_view(a).slots_held);
    net_return(&net, 0, a);
    net_settle(&net);
    assert_int_equal(1, site_get_view(a).slots_held);
    assert_false(site_has_excess(a));
    net_fini(&net);
}

static void trouble_counts_once(void **state)
{
    struct net net;

    (void)state;
    net_init_learning(&net, 1, 16, 16);
    struct site *site = net_site(&net, 0, 0, 1);
    struct site_set *sites = net.shards[0].sites;
    assert_int_equal(ERR_OK, net_acquire(&net, 0, site, 5));
    tick_us began = net.now;
    net_pass(&net, TICK_S(1));
    site_outcome(sites, site, SITE_OUTCOME_REFUSED, began, net.now);
    site_outcome(sites, site, SITE_OUTCOME_REFUSED, net.now - 1, net.now);
    for (uint32_t i = 0; i < 20; i++)
        site_outcome(sites, site, SITE_OUTCOME_OK, began, net.now);
    assert_int_equal(8, home_view(&net, 0).allowed);
    site_outcome(sites, site, SITE_OUTCOME_REFUSED, net.now, net.now);
    assert_int_equal(4, home_view(&net, 0).allowed);
    net_fini(&net);
}

/* A server that has enough of our connections is no dead one; one that lets nobody in is. */
static void who_is_turned_away_pauses_at_the_last(void **state)
{
    struct net net;

    (void)state;
    net_init_learning(&net, 1, 16, 4);
    struct site *site = net_site(&net, 0, 0, 1);
    struct site_set *sites = net.shards[0].sites;
    assert_int_equal(ERR_OK, net_acquire(&net, 0, site, 5));
    tick_us began = net.now;
    net_pass(&net, TICK_S(1));
    for (uint32_t i = 0; i < 4; i++) /* all at once: a step */
        site_outcome(sites, site, SITE_OUTCOME_TURNED_AWAY, began, net.now);
    assert_int_equal(2, home_view(&net, 0).allowed);
    site_outcome(sites, site, SITE_OUTCOME_TURNED_AWAY, net.now, net.now);
    assert_int_equal(1, home_view(&net, 0).allowed);
    assert_true(site_paused_until(site) <= net.now);
    site_outcome(sites, site, SITE_OUTCOME_TURNED_AWAY, net.now, net.now);
    assert_true(site_paused_until(site) > net.now);
    net_pass(&net, site_paused_until(site) - net.now);
    tick_us paused = net.now;
    site_outcome(sites, site, SITE_OUTCOME_TURNED_AWAY, net.now, net.now);
    assert_true(site_paused_until(site) > paused + 1); /* again */
    net_fini(&net);
}

static void idle_site_is_forgotten(void **state)
{
    struct net net;

    (void)state;
    net_init_learning(&net, 1, 16, 5);
    struct site *site = net_site(&net, 0, 0, 1);
    attempt(&net, 0, site, SITE_OUTCOME_REFUSED);
    assert_int_equal(2, home_view(&net, 0).allowed);
    net_pass(&net, TICK_S(900));
    assert_int_equal(ERR_OK, net_acquire(&net, 0, site, 5));
    assert_int_equal(2, home_view(&net, 0).allowed);
    net_pass(&net, TICK_S(7200)); /* a connection is in use all the time */
    assert_int_equal(2, home_view(&net, 0).allowed);
    net_return(&net, 0, site);
    net_pass(&net, TICK_S(60)); /* the lease ends, in its time */
    net_pass(&net, TICK_S(901));
    site_advance(net.shards[0].sites, net.now);
    assert_int_equal(ERR_OK, net_acquire(&net, 0, site, 5));
    assert_int_equal(5, home_view(&net, 0).allowed);
    assert_int_equal(SITE_LEARN_START, home_view(&net, 0).allowed_reason);
    net_fini(&net);
}

/* What is configured binds, whatever was learned; raised, it is approached step by step. */
static void configuration_binds(void **state)
{
    struct net net;

    (void)state;
    net_init_learning(&net, 2, 4, 2);
    struct site *site = net_site(&net, 1, 0, 1);
    (void)net_acquire(&net, 1, site, 5);
    net_settle(&net);
    assert_int_equal(ERR_OK, net_acquire(&net, 1, site, 5));
    for (uint32_t i = 0; i < 10; i++)
        attempt(&net, 1, site, SITE_OUTCOME_OK);
    assert_int_equal(4, home_view(&net, 0).allowed);
    uint64_t sent = net.sent;
    attempt(&net, 1, site, SITE_OUTCOME_OK); /* nobody wants to hear of it */
    assert_int_equal(sent, net.sent);
    site_limit_set(net.shards[1].sites, site, 8, net.now);
    net_settle(&net);
    assert_int_equal(4, home_view(&net, 0).allowed);
    for (uint32_t i = 0; i < 10; i++)
        attempt(&net, 1, site, SITE_OUTCOME_OK);
    assert_int_equal(8, home_view(&net, 0).allowed);
    site_limit_set(net.shards[1].sites, site, 3, net.now);
    net_settle(&net);
    assert_int_equal(3, home_view(&net, 0).allowed);
    attempt(&net, 1, site, SITE_OUTCOME_REFUSED);
    assert_int_equal(1, home_view(&net, 0).allowed);
    net_fini(&net);
}

/* ---- over a restart ---- */

#define WALL ((wall_us)1700000000000000)

static struct site_learned_kept kept[8];

/* All rows of all shards, one at a time. */
static uint32_t kept_take(struct net *net, wall_us wall)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < net->shard_count; i++) {
        for (uint64_t cursor = 0; cursor != UINT64_MAX;) {
            assert_true(count < COUNT_OF(kept));
            count += site_keep_next_learned(net->shards[i].sites, &cursor,
                                            (struct tick_now){net->now, wall}, kept + count, 1);
        }
    }
    return count;
}

static void kept_restore(struct net *net, bool with_pauses, const struct site_learned_kept *rows,
                         uint32_t count, wall_us wall)
{
    for (uint32_t i = 0; i < net->shard_count; i++)
        site_keep_restore_learned(net->shards[i].sites, with_pauses, rows, count,
                                  (struct tick_now){net->now, wall});
    net_settle(net);
    net_verify(net);
}

/* Goal: a restart changes nothing of what was learned, and it is forgotten when it would have been:
 * LEARN_TIME (900 s) behind the last word. */
static void learned_outlives_the_process(void **state)
{
    static const struct {
        const char *name;
        const char *outcomes; /* as above */
        tick_us later;        /* us on the wall clock */
        int64_t jump;         /* s that it jumps besides */
        uint32_t rows, allowed;
        enum site_learn_reason reason;
        const char *then; /* outcomes over there */
        uint32_t allowed_then;
        tick_us tick; /* over there; 0: long after it began */
    } rows[] = {
        {"nothing", "", 1, 0, 0, 2, SITE_LEARN_START, "+", 3, 0},
        {"grown", "++++", 1, 0, 1, 6, SITE_LEARN_GROWN, "+", 7, 0},
        {"halved, and slow from there", "++++++++++++++-", 1, 0, 1, 8, SITE_LEARN_REFUSED, "+", 8,
         0},
        {"successes count on", "++++++++++++++-+++++++", 1, 0, 1, 8, SITE_LEARN_REFUSED, "+", 9, 0},
        {"halved again", "++++++++++++++-", 1, 0, 1, 8, SITE_LEARN_REFUSED, "-", 4, 0},
        {"the last moment", "++++", TICK_S(899), 0, 1, 6, SITE_LEARN_GROWN, "+", 7, 0},
        {"too old", "++++", TICK_S(901), 0, 1, 2, SITE_LEARN_START, "+", 3, 0},
        {"too old, and the machine has just begun", "++++", TICK_S(901), 0, 1, 2, SITE_LEARN_START,
         "+", 3, TICK_S(50)},
        {"the clock has gone back", "++++", 1, -86400, 1, 6, SITE_LEARN_GROWN, "+", 7, 0},
        {"the clock has gone on", "++++", 1, 86400, 1, 2, SITE_LEARN_START, "+", 3, 0},
    };

    (void)state;
    for (uint32_t i = 0; i < 2 * COUNT_OF(rows); i++) {
        uint32_t row = i / 2, shards = 1 + i % 2;
        struct net net;

        print_message("# case: %s, %u shards\n", rows[row].name, shards);
        net_init_learning(&net, shards, 16, 2);
        struct site *site = net_site(&net, shards - 1, 0, 1);
        (void)net_acquire(&net, shards - 1, site, 5);
        net_settle(&net);
        for (const char *at = rows[row].outcomes; *at != '\0'; at++)
            attempt(&net, shards - 1, site, *at == '+' ? SITE_OUTCOME_OK : SITE_OUTCOME_REFUSED);
        assert_int_equal(rows[row].rows, kept_take(&net, WALL));
        net_fini(&net);

        net_init_learning(&net, 1, 16, 2); /* all are one shard's now */
        net.now = rows[row].tick > 0 ? rows[row].tick : TICK_S(7000);
        kept_restore(&net, true, kept, rows[row].rows,
                     WALL + (wall_us)rows[row].later + rows[row].jump * (wall_us)TICK_S(1));
        site = net_site(&net, 0, 0, shards); /* the same key */
        struct site_view view = {.allowed = 2};
        if (rows[row].rows > 0)
            view = home_view(&net, 0);
        assert_int_equal(rows[row].allowed, view.allowed);
        assert_int_equal(rows[row].reason, view.allowed_reason);
        (void)net_acquire(&net, 0, site, 5);
        attempt(&net, 0, site, rows[row].then[0] == '+' ? SITE_OUTCOME_OK : SITE_OUTCOME_REFUSED);
        assert_int_equal(rows[row].allowed_then, home_view(&net, 0).allowed);
        net_fini(&net);
    }
}

/* Goal: a pause goes on for what is left of it, and the next is twice as long; whatever the clock
 * did, it ends. */
static void pause_outlives_the_process(void **state)
{
    static const struct {
        const char *name;
        wall_us later; /* s */
        bool pauses, is_start;
    } rows[] = {
        {"at once", 0, true, false},
        {"over meanwhile", 40, false, false},
        {"the clock has gone back", -86400, true, false},
        {"the relay was started anew: one try at once", 0, false, true},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct net net;

        print_message("# case: %s\n", rows[i].name);
        net_init_learning(&net, 1, 16, 2);
        struct site *site = net_site(&net, 0, 0, 1);
        (void)net_acquire(&net, 0, site, 5);
        attempt(&net, 0, site, SITE_OUTCOME_UNREACHABLE);
        tick_us left = site_paused_until(site) - net.now;
        assert_int_equal(1, kept_take(&net, WALL));
        net_fini(&net);

        net_init_learning(&net, 1, 16, 2);
        net.now = TICK_S(7000);
        kept_restore(&net, !rows[i].is_start, kept, 1, WALL + rows[i].later * (wall_us)TICK_S(1));
        site = net_site(&net, 0, 0, 1);
        enum err err = net_acquire(&net, 0, site, 5);
        assert_int_equal(rows[i].pauses ? ERR_TIMEOUT : ERR_OK, err);
        tick_us until = site_paused_until(site);
        if (rows[i].later == 0 && rows[i].pauses)
            assert_int_equal(net.now + left, until);
        if (rows[i].pauses)
            assert_true(until <= net.now + BACKOFF_MAX + BACKOFF_MAX / 5);
        net_pass(&net, BACKOFF_MAX + BACKOFF_MAX / 5);
        if (rows[i].pauses)
            assert_int_equal(ERR_OK, net_acquire(&net, 0, site, 5));
        attempt(&net, 0, site, SITE_OUTCOME_UNREACHABLE); /* the second in a row */
        assert_true(site_paused_until(site) - net.now > BACKOFF_MIN * 3 / 2);
        net_fini(&net);
    }
}

/* Goal: a site that was heard of here is left as it is; rows that make no sense, and those of other
 * shards' sites, are passed over; where there is no room for a site nobody goes for it. */
static void senseless_rows_are_passed_over(void **state)
{
    struct net net;

    (void)state;
    net_init_learning(&net, 1, 16, 2);
    struct site *site = net_site(&net, 0, 0, 1);
    (void)net_acquire(&net, 0, site, 5);
    attempt(&net, 0, site, SITE_OUTCOME_OK);
    assert_int_equal(1, kept_take(&net, WALL));
    struct site_learned_kept good = kept[0], bad[9];
    for (uint32_t i = 0; i < COUNT_OF(bad); i++)
        bad[i] = good;
    bad[0].allowed = 0;
    bad[1].allowed = UINT32_MAX;
    bad[2].threshold = 0;
    bad[3].reason = SITE_LEARN_REASON_COUNT;
    bad[4].since = bad[4].used + 1;
    memset(bad[5].label, 'x', sizeof(bad[5].label));
    memset(bad[6].source, 'x', sizeof(bad[6].source));
    bad[7].failures = UINT32_MAX;
    bad[8].back_offs = 33;
    attempt(&net, 0, site, SITE_OUTCOME_OK);
    kept_restore(&net, true, &good, 1, WALL);
    assert_int_equal(4, home_view(&net, 0).allowed);
    net_fini(&net);

    uint32_t cursor = 0;
    struct site_view view;
    net_init_learning(&net, 1, 16, 2);
    kept_restore(&net, true, bad, COUNT_OF(bad), WALL);
    assert_false(site_next(net.shards[0].sites, &cursor, &view));
    kept_restore(&net, true, &good, 1, WALL);
    assert_int_equal(3, home_view(&net, 0).allowed);
    net_fini(&net);

    struct site_learned_kept two[2] = {good, good};
    two[1].key = 2;
    net_init(&net, 1, 16, 2, 1); /* two sites: the row that came last goes for a third */
    kept_restore(&net, true, two, 2, WALL);
    (void)net_site(&net, 0, 0, 3);
    assert_int_equal(1, kept_take(&net, WALL));
    assert_int_equal(1, kept[0].key);
    net_fini(&net);

    net_init(&net, 1, 16, 1, 1); /* one site */
    (void)net_site(&net, 0, 0, 2);
    kept_restore(&net, true, &good, 1, WALL);
    assert_int_equal(0, kept_take(&net, WALL));
    net_fini(&net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_follow_outcomes),
        cmocka_unit_test(trouble_counts_once),
        cmocka_unit_test(slots_follow_what_is_allowed),
        cmocka_unit_test(who_is_turned_away_pauses_at_the_last),
        cmocka_unit_test(idle_site_is_forgotten),
        cmocka_unit_test(configuration_binds),
        cmocka_unit_test(learned_outlives_the_process),
        cmocka_unit_test(pause_outlives_the_process),
        cmocka_unit_test(senseless_rows_are_passed_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

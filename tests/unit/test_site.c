/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sites, rule by rule: connection slots among shards, the pause, the table, keys, dead hosts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "site_net.h"

/* ---- one shard ---- */

static void limit_holds_on_one_shard(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 1, 3, 10, 1);
    struct site *site = net_site(&net, 0, 0, 1);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(ERR_OK, net_acquire(&net, 0, site, 5));
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 0, site, 5));
    assert_int_equal(3, site_get_view(site).slots_used);
    net_settle(&net);
    assert_int_equal(0, net.shards[0].wakes);
    net_return(&net, 0, site);
    assert_int_equal(0, net.shards[0].wakes); /* never inside a call of ours */
    assert_true(site_set_deadline(net.shards[0].sites) <= net.now);
    net_settle(&net);
    assert_int_equal(1, net.shards[0].wakes);
    assert_ptr_equal(site, net.shards[0].woken);
    assert_int_equal(ERR_OK, net_acquire(&net, 0, site, 5));
    net_return(&net, 0, site);
    net_settle(&net);
    assert_int_equal(1, net.shards[0].wakes); /* nobody waited */
    assert_int_equal(0, net.sent);
    assert_false(site_is_scarce(site));
    assert_int_equal(0, site_holder(site));
    net_fini(&net);
}

static void idle_slots_go_back_when_the_lease_ends(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 1, 3, 10, 1);
    struct site *site = net_site(&net, 0, 0, 1);
    assert_int_equal(ERR_OK, net_acquire(&net, 0, site, 5));
    assert_int_equal(ERR_OK, net_acquire(&net, 0, site, 5));
    net_return(&net, 0, site);
    assert_int_equal(2, site_get_view(site).slots_held);
    net_pass(&net, LEASE_TIME - TICK_MS(1));
    assert_int_equal(2, site_get_view(site).slots_held);
    net_pass(&net, TICK_MS(2));
    assert_int_equal(1, site_get_view(site).slots_held); /* the used one stays */
    net_pass(&net, 10 * LEASE_TIME);
    assert_int_equal(1, site_get_view(site).slots_held);
    net_return(&net, 0, site);
    net_pass(&net, LEASE_TIME + TICK_MS(2));
    assert_int_equal(0, site_get_view(site).slots_held);
    assert_int_equal(TICK_NEVER, site_set_deadline(net.shards[0].sites));
    net_fini(&net);
}

static void limit_can_be_changed(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 2, 2, 10, 1);
    struct site *site = net_site(&net, 1, 0, 1), *other = net_site(&net, 0, 0, 1);
    site_limit_set(net.shards[1].sites, site, 3, net.now);
    for (uint32_t i = 0; i < 3; i++) {
        (void)net_acquire(&net, 1, site, 5);
        net_settle(&net);
        assert_int_equal(ERR_OK, net_acquire(&net, 1, site, 5));
    }
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 1, site, 5));
    net_settle(&net);
    site_limit_set(net.shards[1].sites, site, 1, net.now);
    net_settle(&net);
    assert_int_equal(1, site_get_view(site).connection_max);
    net_return(&net, 1, site); /* 2 left */
    net_settle(&net);
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 1, site, 5));
    net_return(&net, 1, site); /* 1 left */
    net_settle(&net);
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 1, site, 5));
    assert_int_equal(1, site_get_view(site).slots_used);
    net_return(&net, 1, site);
    net_settle(&net);
    assert_int_equal(ERR_OK, net_acquire(&net, 1, site, 5));
    (void)other;
    net_fini(&net);
}

/* ---- recall ---- */

static void idle_slots_are_recalled_on_demand(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 3, 1, 10, 1);
    struct site *a = net_site(&net, 1, 0, 1), *b = net_site(&net, 2, 0, 1);
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 1, a, 100));
    net_settle(&net);
    assert_int_equal(1, net.shards[1].wakes);
    assert_int_equal(ERR_OK, net_acquire(&net, 1, a, 100));
    net_return(&net, 1, a);
    net_settle(&net);
    assert_int_equal(1, site_get_view(a).slots_held);
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 2, b, 500)); /* younger, but it is idle */
    net_settle(&net);
    assert_int_equal(0, site_get_view(a).slots_held);
    assert_int_equal(1, net.shards[2].wakes);
    assert_int_equal(ERR_OK, net_acquire(&net, 2, b, 500));
    net_fini(&net);
}

/* Who waits is woken once to hear that the site is scarce: its mail may be handed over. It waits
 * on, and asking again brings no second wake. */
static void acquire_told_scarce(struct net *net, uint32_t shard, struct site *site, int64_t rank)
{
    assert_int_equal(1, net->shards[shard].wakes);
    assert_true(site_is_scarce(site));
    assert_int_equal(ERR_AGAIN, net_acquire(net, shard, site, rank));
    net_settle(net);
    assert_int_equal(1, net->shards[shard].wakes);
}

static void used_slots_come_back_when_returned(void **state)
{
    static const struct {
        const char *name;
        bool is_waiting; /* does the holder have more mail */
        int64_t rank;    /* of that */
        bool is_kept;
    } rows[] = {
        {"holder has nothing more", false, 0, false},
        {"holder has younger mail", true, 501, false},
        {"holder has mail of equal rank", true, 500, true},
        {"holder has older mail", true, 499, true},
    };
    struct net net;

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        net_init(&net, 3, 1, 10, 1);
        struct site *a = net_site(&net, 1, 0, 1), *b = net_site(&net, 2, 0, 1);
        (void)net_acquire(&net, 1, a, 100);
        net_settle(&net);
        assert_int_equal(ERR_OK, net_acquire(&net, 1, a, 100));
        if (rows[i].is_waiting)
            assert_int_equal(ERR_AGAIN, net_acquire(&net, 1, a, rows[i].rank));
        assert_int_equal(ERR_AGAIN, net_acquire(&net, 2, b, 500));
        net_settle(&net);
        acquire_told_scarce(&net, 2, b, 500);
        uint32_t wakes_b = net.shards[2].wakes;
        net_return(&net, 1, a);
        net_settle(&net);
        if ((site_get_view(a).slots_held > 0) != rows[i].is_kept ||
            (net.shards[2].wakes > wakes_b) == rows[i].is_kept)
            fail_msg("%s", rows[i].name);
        if (rows[i].is_kept) { /* woken, and does not come for it: the other one gets it */
            net_pass(&net, TICK_MS(10));
            assert_int_equal(wakes_b + 1, net.shards[2].wakes);
        }
        assert_int_equal(ERR_OK, net_acquire(&net, 2, b, 500));
        net_fini(&net);
    }
}

static void younger_mail_does_not_take_a_recalled_slot(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 3, 1, 10, 1);
    struct site *a = net_site(&net, 1, 0, 1), *b = net_site(&net, 2, 0, 1);
    (void)net_acquire(&net, 1, a, 100);
    net_settle(&net);
    assert_int_equal(ERR_OK, net_acquire(&net, 1, a, 100));
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 1, a, 101));
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 2, b, 500));
    net_settle(&net);
    acquire_told_scarce(&net, 2, b, 500);
    net_return(&net, 1, a);                                    /* kept for 101 */
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 1, a, 900)); /* but now it is for 900 */
    net_settle(&net);
    assert_int_equal(ERR_OK, net_acquire(&net, 2, b, 500));
    net_return(&net, 2, b);
    net_settle(&net);
    assert_int_equal(ERR_OK, net_acquire(&net, 1, a, 900));
    net_fini(&net);
}

static void scarce_site_names_its_holder(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 3, 1, 10, 1);
    struct site *a = net_site(&net, 1, 0, 1), *b = net_site(&net, 2, 0, 1);
    (void)net_acquire(&net, 1, a, 100);
    net_settle(&net);
    assert_int_equal(ERR_OK, net_acquire(&net, 1, a, 100));
    (void)net_acquire(&net, 2, b, 500);
    assert_int_equal(2, site_holder(b));
    net_settle(&net);
    assert_true(site_is_scarce(b));
    assert_int_equal(1, site_holder(b));
    assert_false(site_is_scarce(a));
    net_return(&net, 1, a);
    net_settle(&net);
    assert_false(site_is_scarce(b)); /* it is the holder now */
    assert_int_equal(2, site_holder(b));
    net_fini(&net);
}

/* ---- the pause ---- */

static void report(struct net *net, uint32_t shard, struct site *site, bool is_ok)
{
    site_outcome(net->shards[shard].sites, site, is_ok ? SITE_OUTCOME_OK : SITE_OUTCOME_UNREACHABLE,
                 net->now, net->now);
    net_settle(net);
}

static void pause_doubles_and_success_ends_it(void **state)
{
    static const uint32_t base_s[] = {30, 60, 120, 240, 480, 600, 600};
    struct net net;

    (void)state;
    net_init(&net, 2, 5, 10, 3);
    struct site *a = net_site(&net, 0, 0, 1), *b = net_site(&net, 1, 0, 1);
    (void)net_acquire(&net, 1, b, 7);
    net_settle(&net);
    for (uint32_t i = 0; i < COUNT_OF(base_s); i++) {
        report(&net, i % 2, i % 2 == 0 ? a : b, false);
        tick_us pause = site_paused_until(a) - net.now;
        assert_in_range(pause, TICK_S(base_s[i]) / 10 * 8, TICK_S(base_s[i]) / 10 * 12);
        assert_int_equal(site_paused_until(a), site_paused_until(b));
        report(&net, 0, a, false); /* an attempt begun before */
        report(&net, 1, b, false);
        assert_int_equal(net.now + pause, site_paused_until(b));
        assert_int_equal(i + 1, site_get_view(b).failures);
        uint32_t wakes[2] = {net.shards[0].wakes, net.shards[1].wakes};
        assert_int_equal(ERR_TIMEOUT, net_acquire(&net, 0, a, 7));
        assert_int_equal(ERR_TIMEOUT, net_acquire(&net, 1, b, 7));
        net_pass(&net, pause - TICK_MS(1));
        assert_int_equal(ERR_TIMEOUT, net_acquire(&net, 1, b, 7));
        assert_int_equal(wakes[1], net.shards[1].wakes);
        net_pass(&net, TICK_MS(2));
        assert_int_equal(wakes[0] + 1, net.shards[0].wakes);
        assert_int_equal(wakes[1] + 1, net.shards[1].wakes);
    }
    /* Success on one shard ends it on all, and the doubling. */
    report(&net, 0, a, false);
    assert_int_equal(ERR_TIMEOUT, net_acquire(&net, 1, b, 7));
    uint32_t wakes = net.shards[1].wakes;
    report(&net, 0, a, true);
    assert_int_equal(wakes + 1, net.shards[1].wakes);
    assert_int_equal(0, site_get_view(b).failures);
    report(&net, 1, b, false);
    assert_true(site_paused_until(a) - net.now <= TICK_S(36));
    uint64_t sent = net.sent;
    report(&net, 1, b, true);
    assert_true(net.sent > sent);
    for (uint32_t i = 0; i < 20; i++)
        report(&net, 1, b, true); /* until all connections are allowed again */
    sent = net.sent;
    report(&net, 1, b, true); /* what everybody knows is not told */
    assert_int_equal(sent, net.sent);
    net_fini(&net);
}

static void newcomer_hears_of_the_pause(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 3, 5, 10, 3);
    struct site *a = net_site(&net, 1, 0, 1), *b = net_site(&net, 2, 0, 1);
    report(&net, 1, a, false);
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 2, b, 7));
    net_settle(&net);
    assert_int_equal(site_paused_until(a), site_paused_until(b));
    assert_int_equal(0, net.shards[2].wakes);
    net_pass(&net, TICK_S(40));
    assert_int_equal(1, net.shards[2].wakes);
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 2, b, 7));
    net_settle(&net);
    assert_int_equal(ERR_OK, net_acquire(&net, 2, b, 7));
    net_fini(&net);
}

/* ---- the table ---- */

static void idle_sites_are_forgotten_least_recently_used_first(void **state)
{
    struct net net;
    struct site *sites[4];

    (void)state;
    net_init(&net, 2, 5, 4, 3);
    for (uint64_t i = 0; i < 4; i++)
        sites[i] = net_site(&net, 0, 1, i);
    assert_null(net_site(&net, 0, 1, 9)); /* all busy */
    (void)net_acquire(&net, 0, sites[2], 5);
    net_settle(&net);
    assert_int_equal(1, site_get_view(sites[2]).slots_held);
    for (uint32_t i = 0; i < 4; i++)
        site_release(net.shards[0].sites, sites[i]);
    net_verify(&net);
    site_release(net.shards[0].sites, net_site(&net, 0, 1, 0)); /* used again: 1 is oldest */
    assert_non_null(net_site(&net, 0, 1, 10));
    uint32_t cursor = 0, seen = 0;
    struct site_view view;
    while (site_next(net.shards[0].sites, &cursor, &view)) {
        seen |= 1u << view.key / 2;
        assert_true(span_is_equal(SPAN_LITERAL("site.example"), view.label));
    }
    assert_int_equal(1u << 0 | 1u << 2 | 1u << 3 | 1u << 10, seen);

    /* Forgetting gives slots back: the other shard can have all five. */
    assert_non_null(net_site(&net, 0, 1, 11));
    net_settle(&net);
    struct site *other = net_site(&net, 1, 1, 2);
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(ERR_OK, net_acquire(&net, 1, other, 5));
    net_fini(&net);
}

static void grant_for_a_forgotten_site_goes_back(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 2, 1, 1, 3);
    struct site *site = net_site(&net, 0, 1, 1);
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 0, site, 5));
    site_release(net.shards[0].sites, site);
    assert_non_null(net_site(&net, 0, 1, 2)); /* forgets the first while its WANT is under way */
    net_settle(&net);
    assert_int_equal(0, net.shards[0].wakes);
    struct site *other = net_site(&net, 1, 1, 1);
    assert_int_equal(ERR_OK, net_acquire(&net, 1, other, 5));
    net_fini(&net);
}

/* ---- keys and dead hosts ---- */

static void keys_name_sets_of_hosts(void **state)
{
    const struct span none = {NULL, 0};
    const struct span ab[] = {SPAN_LITERAL("a.example"), SPAN_LITERAL("b.example")};
    const struct span ba[] = {SPAN_LITERAL("B.example"), SPAN_LITERAL("A.EXAMPLE")};
    const struct span aba[] = {SPAN_LITERAL("a.example"), SPAN_LITERAL("b.example"),
                               SPAN_LITERAL("a.example")};
    const struct span ac[] = {SPAN_LITERAL("a.example"), SPAN_LITERAL("c.example")};
    struct span many[SITE_HOST_MAX];

    (void)state;
    uint64_t key = site_key(none, ab, 2);
    assert_int_equal(key, site_key(none, ba, 2));
    assert_int_equal(key, site_key(none, aba, 3));
    assert_int_not_equal(key, site_key(none, ac, 2));
    assert_int_not_equal(key, site_key(none, ab, 1));
    assert_int_not_equal(key, site_key(SPAN_LITERAL("192.0.2.1"), ab, 2));
    for (uint32_t i = 0; i < SITE_HOST_MAX; i++)
        many[i] = ab[i % 2];
    assert_int_equal(key, site_key(none, many, SITE_HOST_MAX));
    assert_int_not_equal(key, site_key(none, NULL, 0));
}

static void dead_hosts_are_remembered_for_a_while(void **state)
{
    struct net net;
    const uint8_t a[SITE_ADDRESS_MAX] = {1}, b[SITE_ADDRESS_MAX] = {2};

    (void)state;
    net_init(&net, 1, 5, 4, 3);
    struct site_set *sites = net.shards[0].sites;
    assert_false(site_host_is_dead(sites, a, sizeof(a), net.now));
    site_host_report(sites, 7, span_of(a, sizeof(a)), false, net.now);
    assert_true(site_host_is_dead(sites, a, sizeof(a), net.now));
    assert_false(site_host_is_dead(sites, b, sizeof(b), net.now));
    assert_false(site_host_is_dead(sites, a, sizeof(a) - 1, net.now));
    assert_true(site_host_is_dead(sites, a, sizeof(a), net.now + TICK_S(60) - 1));
    assert_false(site_host_is_dead(sites, a, sizeof(a), net.now + TICK_S(60)));
    site_host_report(sites, 7, span_of(a, sizeof(a)), false, net.now + TICK_S(30)); /* and longer */
    assert_true(site_host_is_dead(sites, a, sizeof(a), net.now + TICK_S(80)));
    site_host_report(sites, 7, span_of(a, sizeof(a)), true, net.now + TICK_S(31));
    assert_false(site_host_is_dead(sites, a, sizeof(a), net.now + TICK_S(31)));

    /* A scan of the whole Internet does not grow it, and the last ones are known. */
    uint32_t known = 0;
    for (uint32_t i = 0; i < 3 * SITE_DEAD_MAX; i++)
        site_host_report(sites, 7, span_of(&i, sizeof(i)), false, net.now + i);
    for (uint32_t i = 0; i < 3 * SITE_DEAD_MAX; i++)
        known += site_host_is_dead(sites, &i, sizeof(i), net.now + 3 * SITE_DEAD_MAX);
    assert_in_range(known, SITE_DEAD_MAX / 2, SITE_DEAD_MAX);
    uint32_t last = 3 * SITE_DEAD_MAX - 1;
    assert_true(site_host_is_dead(sites, &last, sizeof(last), net.now + last));
    net_fini(&net);
}

static void assert_label(const struct site *site, const char *label)
{
    assert_true(span_is_equal(span_from_text(label), site_get_view(site).label));
}

/* Domains of one site come to different shards: all call it as its home does, by whichever it heard
 * of first, whatever the length. */
static void a_site_has_one_name(void **state)
{
    static const char longest[] = "a-name-of-sixty-three-octets-which-is-as-many-as-are-kept.examp";
    static const char *const names[] = {"a.example", "sixteen.examples", "seventeen.example"};
    struct net net;
    struct site *sites[3];

    (void)state;
    for (uint32_t i = 0; i <= COUNT_OF(names); i++) {
        const char *first = i < COUNT_OF(names) ? names[i] : longest;
        net_init(&net, 3, 4, 100, 7 + i);
        for (uint32_t j = 0; j < 3; j++) { /* 1 is the home, and hears of it from 0 */
            uint32_t shard = j == 0 ? 0 : 3 - j;
            const char *name = j == 0 ? first : j == 1 ? "sixteen.exampleX" : "b.example";
            sites[shard] = site_get(net.shards[shard].sites, 31, span_from_text(name), net.now);
            assert_non_null(sites[shard]);
            site_hold(sites[shard]);
            (void)net_acquire(&net, shard, sites[shard], 1);
            net_settle(&net);
        }
        for (uint32_t shard = 0; shard < 3; shard++)
            assert_label(sites[shard], first);
        net_fini(&net);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_site_has_one_name),
        cmocka_unit_test(limit_holds_on_one_shard),
        cmocka_unit_test(idle_slots_go_back_when_the_lease_ends),
        cmocka_unit_test(limit_can_be_changed),
        cmocka_unit_test(idle_slots_are_recalled_on_demand),
        cmocka_unit_test(used_slots_come_back_when_returned),
        cmocka_unit_test(younger_mail_does_not_take_a_recalled_slot),
        cmocka_unit_test(scarce_site_names_its_holder),
        cmocka_unit_test(pause_doubles_and_success_ends_it),
        cmocka_unit_test(newcomer_hears_of_the_pause),
        cmocka_unit_test(idle_sites_are_forgotten_least_recently_used_first),
        cmocka_unit_test(grant_for_a_forgotten_site_goes_back),
        cmocka_unit_test(keys_name_sets_of_hosts),
        cmocka_unit_test(dead_hosts_are_remembered_for_a_while),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

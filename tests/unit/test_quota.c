/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quotas of users among shards, in one thread: their messages arrive in order, and as late as a
 * seed says. Never more than allowed in any window, wherever the user's connections are; no refusal
 * before there were so many; nobody waits for ever.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/rng.h"
#include "relay/quota.h"

#define SHARDS_MAX   4u
#define FLIGHT_MAX   256u
#define CLIENTS_MAX  16u
#define HISTORY_MAX  20000u
#define VERIFY_TURNS 17u      /* it looks into every bucket */
#define TURN_MAX     3000000u /* us */

struct flight {
    tick_us arrives;
    uint32_t to;
    struct quota_message message;
};

struct client { /* one session, on one shard */
    struct quota_waiter waiter;
    struct quota_question question;
    uint32_t shard;
    bool is_woken;
    enum quota_answer answer;
    bool is_first;
};

static struct {
    uint32_t shard_count;
    struct quota_set *sets[SHARDS_MAX];
    tick_us now, delay_max;
    struct rng rng;
    struct flight flights[FLIGHT_MAX];
    uint32_t flight_count;
    uint64_t sent;
    tick_us last_arrival[SHARDS_MAX][SHARDS_MAX];
    tick_us taken[HISTORY_MAX];
    uint32_t taken_count, turns;
} net;

static struct rate_set rates_of(const char *text)
{
    struct rate_set set;

    assert_int_equal(ERR_OK, rate_set_parse(span_from_text(text), &set));
    return set;
}

/* A user whose home is that shard. */
static struct quota_key user_at(uint32_t home)
{
    char name[16];

    for (uint32_t i = 0;; i++) {
        snprintf(name, sizeof(name), "user%u", i);
        struct quota_key key = quota_key_of(span_from_text(name));
        if (quota_home_of(key, net.shard_count) == home)
            return key;
    }
}

/* ---- the net ---- */

static void on_send(void *context, uint32_t to, const struct quota_message *message)
{
    uint32_t from = (uint32_t)((struct quota_set **)context - net.sets);
    tick_us delay = net.delay_max == 0 ? 0 : rng_below(&net.rng, (uint32_t)net.delay_max);
    tick_us arrives = net.now + delay;

    assert_true(to != from && to < net.shard_count && net.flight_count < FLIGHT_MAX);
    if (arrives < net.last_arrival[from][to])
        arrives = net.last_arrival[from][to];
    net.last_arrival[from][to] = arrives;
    net.flights[net.flight_count++] = (struct flight){arrives, to, *message};
    net.sent++;
}

static void on_wake(void *context, void *owner)
{
    struct client *client = owner;

    assert_ptr_equal(&net.sets[client->shard], context);
    client->is_woken = true;
}

static void net_init_at(tick_us now, uint32_t shard_count, uint32_t place_max)
{
    memset(&net, 0, sizeof(net));
    net.shard_count = shard_count;
    net.now = now;
    rng_init_seed(&net.rng, 1);
    for (uint32_t i = 0; i < shard_count; i++) {
        struct quota_options options = {.shard = i,
                                        .shard_count = shard_count,
                                        .place_max = place_max,
                                        .context = &net.sets[i],
                                        .send = on_send,
                                        .wake = on_wake};
        net.sets[i] = quota_set_new(&options, net.now);
    }
}

static void net_init(uint32_t shard_count, uint32_t place_max)
{
    net_init_at(TICK_S(100000), shard_count, place_max);
}

static void net_fini(void)
{
    for (uint32_t i = 0; i < net.shard_count; i++)
        quota_set_free(net.sets[i]);
}

static void net_verify(void)
{
    for (uint32_t i = 0; i < net.shard_count; i++)
        quota_verify(net.sets[i]);
}

static bool deliver_one(void)
{
    for (uint32_t i = 0; i < net.flight_count; i++) {
        struct flight flight = net.flights[i];
        if (flight.arrives > net.now)
            continue;
        net.flight_count--;
        memmove(&net.flights[i], &net.flights[i + 1],
                (net.flight_count - i) * sizeof(net.flights[0]));
        quota_receive(net.sets[flight.to], &flight.message, net.now);
        return true;
    }
    return false;
}

/* ---- clients ---- */

static void client_ask(struct client *client)
{
    struct quota_set *set = net.sets[client->shard];

    client->waiter.owner = client;
    client->is_woken = false;
    client->answer = quota_ask(set, &client->question, &client->waiter, net.now, &client->is_first);
    if (client->answer == QUOTA_YES) {
        quota_take(set, &client->question, net.now);
        assert_true(net.taken_count < HISTORY_MAX);
        net.taken[net.taken_count++] = net.now;
    }
}

/* A turn of every shard: messages, those that were woken, the rest. */
static void turn(struct client *clients, uint32_t count)
{
    while (deliver_one())
        continue;
    for (uint32_t i = 0; i < count; i++) {
        if (clients[i].is_woken)
            client_ask(&clients[i]);
    }
    for (uint32_t i = 0; i < net.shard_count; i++)
        quota_advance(net.sets[i], net.now);
    if (net.turns++ % VERIFY_TURNS == 0)
        net_verify();
}

/* Ask, and turn until the answer is there. */
static enum quota_answer settle(struct client *client)
{
    client_ask(client);
    for (uint32_t i = 0; client->answer == QUOTA_WAIT; i++) {
        assert_true(i < 20);
        turn(client, 1);
    }
    return client->answer;
}

static struct client client_at(uint32_t shard, struct quota_key user, const struct rate_set *rates)
{
    return (struct client){
        .shard = shard,
        .question = {.user = user, .kind = QUOTA_MESSAGES, .rates = rates, .serial = 1}};
}

/* ---- rule by rule ---- */

/* Goal: a user is known by name whatever its case, also after a restart, and by all of it. */
static void test_keys(void **state)
{
    char a[200], b[200];
    (void)state;

    struct quota_key key = quota_key_of(SPAN_LITERAL("Alice@Example.ORG"));
    struct quota_key same = quota_key_of(SPAN_LITERAL("alice@example.org"));
    assert_memory_equal(&key, &same, sizeof(key));
    assert_true(key.half[0] == 0x6c6332be03398041u); /* as it is in files */
    assert_true(key.half[1] == 0x393c84886d7db002u);
    memset(a, 'a', sizeof(a));
    for (uint32_t size = 1; size < sizeof(a); size++) {
        memcpy(b, a, sizeof(b));
        b[size - 1] = 'b';
        struct quota_key one = quota_key_of(span_of(a, size)), two = quota_key_of(span_of(b, size));
        assert_true(memcmp(&one, &two, sizeof(one)) != 0);
        two = quota_key_of(span_of(a, size + 1));
        assert_true(memcmp(&one, &two, sizeof(one)) != 0);
    }
}

/* Goal: the count is one, whichever shards are asked and wherever the home is; the first refusal is
 * told once on all shards; behind the window there is room again. */
static void test_two_shards_are_one(void **state)
{
    struct rate_set rates = rates_of("10/1m, 20/1h");
    (void)state;

    for (uint32_t home = 0; home < 2; home++) {
        net_init(2, 10);
        struct quota_key user = user_at(home);
        struct client clients[2] = {client_at(0, user, &rates), client_at(1, user, &rates)};
        for (uint32_t i = 0; i < 10; i++)
            assert_int_equal(QUOTA_YES, settle(&clients[i % 2]));
        uint32_t told = 0;
        for (uint32_t i = 0; i < 6; i++) {
            assert_int_equal(QUOTA_NO, settle(&clients[i % 2]));
            told += clients[i % 2].is_first;
        }
        assert_int_equal(1, told);
        net.now += TICK_S(60);
        turn(clients, 2);
        assert_int_equal(QUOTA_NO, settle(&clients[0])); /* both ends of a window count */
        net.now += 1;
        for (uint32_t i = 0; i < 10; i++)
            assert_int_equal(QUOTA_YES, settle(&clients[i % 2]));
        net.now += TICK_S(61);
        turn(clients, 2);
        assert_int_equal(QUOTA_NO, settle(&clients[1])); /* the hour's 21st */
        net_fini();
    }
}

/* Goal: what another shard has at hand comes back before anybody is refused. */
static void test_rights_come_back(void **state)
{
    struct rate_set rates = rates_of("100/1h");
    (void)state;

    net_init(2, 10);
    struct quota_key user = user_at(0);
    struct client near = client_at(0, user, &rates), far = client_at(1, user, &rates);
    struct rate_use uses[RATE_MAX];
    assert_int_equal(QUOTA_YES, settle(&far));
    assert_int_equal(1, quota_uses(net.sets[0], user, QUOTA_MESSAGES, net.now, uses));
    assert_true(uses[0].used > 1); /* it has more at hand */
    for (uint32_t i = 0; i < 99; i++)
        assert_int_equal(QUOTA_YES, settle(&near));
    assert_int_equal(QUOTA_NO, settle(&near));
    assert_int_equal(QUOTA_NO, settle(&far));
    assert_true(quota_get_stats(net.sets[0]).recalls > 0);
    net_fini();
}

/* Goal: a busy user's messages are not a question each. */
static void test_batches(void **state)
{
    struct rate_set rates = rates_of("10000/1h");
    (void)state;

    net_init(2, 10);
    struct client far = client_at(1, user_at(0), &rates);
    for (uint32_t i = 0; i < 160; i++)
        assert_int_equal(QUOTA_YES, settle(&far));
    assert_int_equal(10, quota_get_stats(net.sets[1]).asks);
    net.now += TICK_S(2); /* what is left goes home */
    turn(&far, 1);
    turn(&far, 1);
    for (uint32_t i = 0; i < 20000; i++)
        (void)settle(&far);
    assert_int_equal(10000, net.taken_count);
    assert_true(quota_get_stats(net.sets[1]).asks < 1000); /* nor are the refusals */
    net_fini();
}

/* Goal: rights left with a shard that stops, or has nobody for them, go home. */
static void test_rights_end(void **state)
{
    struct rate_set rates = rates_of("100/1h");
    struct rate_use uses[RATE_MAX];
    (void)state;

    for (uint32_t is_stopped = 0; is_stopped < 2; is_stopped++) {
        net_init(2, 10);
        struct quota_key user = user_at(0);
        struct client far = client_at(1, user, &rates);
        assert_int_equal(QUOTA_YES, settle(&far));
        if (is_stopped)
            quota_return_all(net.sets[1], net.now);
        else
            net.now += TICK_S(1) + TICK_MS(2);
        turn(&far, 1);
        turn(&far, 1);
        assert_int_equal(1, quota_uses(net.sets[0], user, QUOTA_MESSAGES, net.now, uses));
        assert_int_equal(1, uses[0].used);
        net_fini();
    }
}

/* Goal: newer settings count at once, and older ones do not come back with older sessions. */
static void test_reload(void **state)
{
    struct rate_set old = rates_of("5/1h"), new = rates_of("8/1d");
    (void)state;

    net_init(2, 10);
    struct quota_key user = user_at(1);
    struct client before = client_at(0, user, &old), after = client_at(0, user, &new);
    after.question.serial = 2;
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(QUOTA_YES, settle(&before));
    assert_int_equal(QUOTA_NO, settle(&before));
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(QUOTA_YES, settle(&after));
    assert_int_equal(QUOTA_YES, settle(&before)); /* by the new ones: the eighth */
    assert_int_equal(QUOTA_NO, settle(&after));
    assert_int_equal(QUOTA_NO, settle(&before));
    net_fini();
}

/* Goal: rights at hand are from the settings that they were asked with: newer, lower ones count. */
static void test_reload_lowers(void **state)
{
    struct rate_set old = rates_of("1000/1h"), new = rates_of("2/1h");
    (void)state;

    net_init(2, 10);
    struct quota_key user = user_at(1);
    struct client before = client_at(0, user, &old), after = client_at(0, user, &new);
    after.question.serial = 2;
    assert_int_equal(QUOTA_YES, settle(&before)); /* there are more at hand now */
    assert_int_equal(QUOTA_YES, settle(&after));
    assert_int_equal(QUOTA_NO, settle(&after));
    assert_int_equal(QUOTA_NO, settle(&before));
    net_fini();
}

/* Goal: kinds and users do not share. Without a rate all may go, and nothing is counted. */
static void test_counts_are_apart(void **state)
{
    struct rate_set rates = rates_of("1/1h"), none = {0};
    (void)state;

    net_init(2, 10);
    struct client client = client_at(0, user_at(1), &rates);
    assert_int_equal(QUOTA_YES, settle(&client));
    assert_int_equal(QUOTA_NO, settle(&client));
    client.question.kind = QUOTA_RECIPIENTS;
    assert_int_equal(QUOTA_YES, settle(&client));
    client.question.user = user_at(0);
    assert_int_equal(QUOTA_YES, settle(&client));
    uint64_t sent = net.sent;
    client.question.rates = &none;
    client.question.kind = QUOTA_HELD;
    for (uint32_t i = 0; i < 100; i++)
        assert_int_equal(QUOTA_YES, settle(&client));
    assert_int_equal(sent, net.sent);
    net_fini();
}

/* Goal: so many counts are known; those that are over are let go, others are forgotten and said so.
 */
static void test_places(void **state)
{
    struct rate_set rates = rates_of("1/1m");
    char name[16];
    (void)state;

    net_init(1, 3);
    struct client client = client_at(0, user_at(0), &rates);
    for (uint32_t i = 0; i < 4; i++) {
        snprintf(name, sizeof(name), "%u", i);
        client.question.user = quota_key_of(span_from_text(name));
        assert_int_equal(QUOTA_YES, settle(&client));
        assert_int_equal(i < 3 ? i + 1 : 3, quota_get_stats(net.sets[0]).places);
        assert_int_equal(i == 3, quota_get_stats(net.sets[0]).forgotten);
    }
    net.now += TICK_S(61);
    for (uint32_t i = 0; i < 2; i++) {
        client.question.user = quota_key_of(span_from_text(i == 0 ? "x" : "y"));
        assert_int_equal(QUOTA_YES, settle(&client));
    }
    assert_int_equal(1, quota_get_stats(net.sets[0]).forgotten);
    assert_int_equal(2, quota_get_stats(net.sets[0]).places);
    net_fini();
}

/* ---- over a restart ---- */

static const struct quota_keep long_windows = {.window_min = QUOTA_KEEP_WINDOW};

static uint32_t rows_take(struct quota_kept *rows, uint32_t max, wall_us wall)
{
    static struct quota_kept slice[QUOTA_KEPT_MAX];
    uint32_t count = 0;

    for (uint32_t i = 0; i < net.shard_count; i++) {
        for (uint64_t cursor = 0; cursor != UINT64_MAX;) {
            uint32_t found =
                quota_keep_next(net.sets[i], &long_windows, &cursor,
                                (struct tick_now){net.now, wall}, slice, QUOTA_KEPT_MAX);
            assert_true(count + found <= max);
            memcpy(rows + count, slice, found * sizeof(slice[0]));
            count += found;
        }
    }
    return count;
}

/* As a restart of the process, with other shards, at that time of the wall clock. */
static void restart(uint32_t shard_count, const struct quota_kept *rows, uint32_t count,
                    wall_us wall)
{
    net_fini();
    net_init_at(TICK_S(7), shard_count, 10); /* the machine's clock began anew */
    for (uint32_t i = 0; i < shard_count; i++)
        quota_keep_restore(net.sets[i], rows, count, (struct tick_now){net.now, wall});
    net_verify();
}

/* Goal: long windows go on after a restart, with another number of shards, and however long it
 * took; of short ones nothing is kept. */
static void test_restart(void **state)
{
    static struct quota_kept rows[100];
    static const struct {
        const char *name;
        tick_us off;
        uint32_t left;
    } cases[] = {
        {"at once", TICK_S(1), 0},
        {"just before the hour of the first is over", TICK_S(3400), 0},
        {"behind it: half of the day's are left", TICK_S(3601), 50},
        {"just before the day is over", TICK_S(86300), 50},
        {"behind it", TICK_S(86401), 100},
        {"the wall clock went back", 0, 0},
    };
    struct rate_set rates = rates_of("90/1m, 100/1h, 150/1d");
    wall_us wall = 1700000000000000;
    (void)state;

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        print_message("# case: %s\n", cases[i].name);
        net_init(3, 10);
        struct quota_key user = quota_key_of(SPAN_LITERAL("alice"));
        struct client client = client_at(0, user, &rates);
        for (uint32_t j = 0; j < 100; j++) {
            client.shard = j % 3;
            assert_int_equal(QUOTA_YES, settle(&client));
            net.now += TICK_S(1);
            turn(&client, 1);
        }
        uint32_t count = rows_take(rows, COUNT_OF(rows), wall);
        assert_true(count >= 2 && count <= 2 * (QUOTA_KEPT_CELLS + 1));
        struct rate_use uses[RATE_MAX];
        restart(2, rows, count, wall); /* each window has its own rows, once */
        struct quota_set *home = net.sets[quota_home_of(user, 2)];
        assert_int_equal(2, quota_uses(home, user, QUOTA_MESSAGES, net.now, uses));
        assert_int_equal(100, uses[0].used);
        assert_int_equal(100, uses[1].used);
        restart(2, rows, count, cases[i].off > 0 ? wall + (wall_us)cases[i].off : wall - 1);
        client = client_at(0, user, &rates);
        for (uint32_t j = 0; j < 200; j++) {
            client.shard = j % 2;
            (void)settle(&client);
            net.now += j == 90 ? TICK_S(61) : 0;
        }
        assert_int_equal(cases[i].left, net.taken_count);
        net_fini();
    }
}

/* Goal: rights that are out when the process dies count as used. */
static void test_restart_with_rights_out(void **state)
{
    static struct quota_kept rows[100];
    struct rate_set rates = rates_of("1000/1h");
    struct rate_use uses[RATE_MAX];
    (void)state;

    net_init(2, 10);
    struct quota_key user = user_at(0);
    struct client far = client_at(1, user, &rates);
    assert_int_equal(QUOTA_YES, settle(&far));
    uint32_t count = rows_take(rows, COUNT_OF(rows), 5000000);
    assert_int_equal(1, quota_uses(net.sets[0], user, QUOTA_MESSAGES, net.now, uses));
    uint32_t used = uses[0].used;
    assert_true(used > 1);
    restart(2, rows, count, 6000000);
    assert_int_equal(1, quota_uses(net.sets[0], user, QUOTA_MESSAGES, net.now, uses));
    assert_int_equal(used, uses[0].used);
    net_fini();
}

/* Goal: what an upgraded relay has counted reaches the other one once: all of it when that takes
 * over, rights that are out included, and at the end what was used since. */
static void test_two_processes(void **state)
{
    static const struct {
        const char *name;
        uint32_t before, out, since, used; /* out: rights that another shard has at the time */
    } cases[] = {
        {"nothing before, nothing since", 0, 0, 0, 0},
        {"nothing since", 5, 0, 0, 5},
        {"all since", 0, 0, 5, 5},
        {"some of both", 5, 0, 3, 8},
    };
    static const struct quota_keep apart = {.window_min = QUOTA_KEEP_WINDOW, .is_apart = true};
    static struct quota_kept rows[200];
    struct rate_set rates = rates_of("90/1m, 100/1h");
    struct rate_use uses[RATE_MAX];
    (void)state;

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        print_message("# case: %s\n", cases[i].name);
        net_init(1, 10);
        struct quota_key user = user_at(0);
        struct client client = client_at(0, user, &rates);
        uint64_t cursor = 0;
        for (uint32_t j = 0; j < cases[i].before; j++)
            assert_int_equal(QUOTA_YES, settle(&client));
        quota_keep_apart(net.sets[0], true);
        uint32_t count = rows_take(rows, COUNT_OF(rows) / 2, 5000000);
        net.now += TICK_S(1);
        for (uint32_t j = 0; j < cases[i].since; j++)
            assert_int_equal(QUOTA_YES, settle(&client));
        count += quota_keep_next(net.sets[0], &apart, &cursor, (struct tick_now){net.now, 6000000},
                                 rows + count, QUOTA_KEPT_MAX);
        restart(1, rows, count, 7000000);
        uint32_t windows = quota_uses(net.sets[0], user, QUOTA_MESSAGES, net.now, uses);
        assert_int_equal(cases[i].used > 0, windows);
        assert_int_equal(cases[i].used, windows > 0 ? uses[0].used : 0);
        net_fini();
    }
}

/* Goal: rights that are out at that time have gone over as used, and are not used once more; given
 * up, nothing is kept apart any more. */
static void test_two_processes_with_rights_out(void **state)
{
    static const struct quota_keep apart = {.window_min = QUOTA_KEEP_WINDOW, .is_apart = true};
    static struct quota_kept rows[QUOTA_KEPT_MAX];
    struct rate_set rates = rates_of("1000/1h");
    struct rate_use uses[RATE_MAX];
    (void)state;

    net_init(2, 10);
    struct quota_key user = user_at(0);
    struct client far = client_at(1, user, &rates);
    assert_int_equal(QUOTA_YES, settle(&far));
    (void)quota_uses(net.sets[0], user, QUOTA_MESSAGES, net.now, uses);
    uint32_t known = uses[0].used; /* what went out is more than was asked for */
    assert_true(known > 2);
    quota_keep_apart(net.sets[0], true);
    for (uint32_t i = 1; i < known + 3; i++)
        assert_int_equal(QUOTA_YES, settle(&far));
    quota_return_all(net.sets[1], net.now);
    while (deliver_one())
        ;
    for (uint32_t turn = 0; turn < 2; turn++) {
        uint64_t cursor = 0;
        uint32_t count = quota_keep_next(net.sets[0], &apart, &cursor,
                                         (struct tick_now){net.now, 6000000}, rows, QUOTA_KEPT_MAX);
        assert_int_equal(turn == 0, count);
        assert_int_equal(turn == 0 ? 3 : 0, count > 0 ? rows[0].count : 0);
        quota_keep_apart(net.sets[0], false);
    }
    net_fini();
}

/* Goal: rows that make no sense, or are of another's users, do nothing. */
static void test_senseless_rows(void **state)
{
    (void)state;
    net_init(2, 10);
    struct quota_kept good = {
        .user = user_at(0), .window = TICK_S(3600), .first = 1, .last = 2, .count = 1};
    struct quota_kept rows[] = {good, good, good, good, good, good, good, good};
    rows[0].kind = QUOTA_KIND_COUNT;
    rows[1].count = 0;
    rows[2].count = RATE_COUNT_MAX + 1;
    rows[3].window = RATE_WINDOW_MIN - 1;
    rows[4].window = RATE_WINDOW_MAX + 1;
    rows[5].user = user_at(1);
    rows[6].first = INT64_MIN;
    rows[7].last = -1;
    quota_keep_restore(net.sets[0], rows, COUNT_OF(rows), (struct tick_now){net.now, 3});
    assert_int_equal(0, quota_get_stats(net.sets[0]).places);
    quota_keep_restore(net.sets[0], &good, 1, (struct tick_now){net.now, 3});
    assert_int_equal(1, quota_get_stats(net.sets[0]).places);
    net_verify();
    net_fini();
}

/* ---- at random ---- */

static uint32_t taken_since(tick_us since)
{
    uint32_t count = 0;

    while (count < net.taken_count && net.taken[net.taken_count - 1 - count] >= since)
        count++;
    return count;
}

static void windows_check(const struct client *client, const struct rate_set *rates)
{
    bool is_full = false;

    for (uint32_t i = 0; i < rates->count; i++) {
        tick_us window = rates->rates[i].window;
        assert_true(taken_since(net.now - window) <= rates->rates[i].count);
        /* Late are: what another shard used, until it tells, a turn or a right's time later; what
         * shares a cell (rate.c). */
        tick_us late = TICK_S(1) + TURN_MAX + net.delay_max + window / 64;
        is_full = is_full || taken_since(net.now - window - late) >= rates->rates[i].count;
    }
    if (client->answer == QUOTA_NO)
        assert_true(is_full);
}

static void play(uint64_t seed, const char *text)
{
    static struct client clients[CLIENTS_MAX];
    struct rate_set rates = rates_of(text);
    uint32_t stuck = 0;

    net_init(1 + (uint32_t)(seed % SHARDS_MAX), 10);
    rng_init_seed(&net.rng, seed);
    net.delay_max = seed % 3 == 0 ? 0 : TICK_MS(20);
    struct quota_key user = user_at(rng_below(&net.rng, net.shard_count));
    for (uint32_t i = 0; i < CLIENTS_MAX; i++)
        clients[i] = client_at(rng_below(&net.rng, net.shard_count), user, &rates);
    for (uint32_t i = 0; i < 2000; i++) {
        struct client *client = &clients[rng_below(&net.rng, CLIENTS_MAX)];
        if (client->waiter.lease == NULL && !client->is_woken)
            client_ask(client);
        if (client->waiter.lease == NULL)
            windows_check(client, &rates);
        if (client->waiter.lease != NULL && rng_below(&net.rng, 50) == 0)
            quota_leave(&client->waiter); /* its client hung up */
        net.now += rng_below(&net.rng, 10) == 0 ? rng_below(&net.rng, TURN_MAX) : 100;
        turn(clients, CLIENTS_MAX);
    }
    for (uint32_t i = 0; i < 200; i++) {
        net.now += TICK_MS(20);
        turn(clients, CLIENTS_MAX);
    }
    for (uint32_t i = 0; i < CLIENTS_MAX; i++) {
        stuck += clients[i].waiter.lease != NULL;
        quota_leave(&clients[i].waiter);
    }
    net_verify();
    assert_int_equal(0, stuck);
    assert_true(net.taken_count >= rates.rates[0].count);
    net_fini();
}

static void test_random(void **state)
{
    static const char *const rates[] = {"3/1m", "20/1m, 100/1h", "200/1m", "1/1s, 30/1h"};
    (void)state;

    for (uint64_t seed = 1; seed <= 24; seed++) {
        print_message("# seed %u\n", (unsigned)seed);
        play(seed, rates[seed % COUNT_OF(rates)]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_two_shards_are_one),
        cmocka_unit_test(test_rights_come_back),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_rights_end),
        cmocka_unit_test(test_reload),
        cmocka_unit_test(test_reload_lowers),
        cmocka_unit_test(test_counts_are_apart),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_restart),
        cmocka_unit_test(test_restart_with_rights_out),
        cmocka_unit_test(test_two_processes),
        cmocka_unit_test(test_two_processes_with_rights_out),
        cmocka_unit_test(test_senseless_rows),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

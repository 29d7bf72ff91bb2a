/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: what brakes have counted is known to the process that comes next, is forgotten when it
 * would have been, and neither a clock that jumps, nor another number of shards, nor a file of
 * nonsense gives a network more than its share.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "relay/brake.h"

#define MINUTE  TICK_S(60)
#define START   TICK_S(1000)
#define WALL    ((wall_us)1700000000000000)
#define NETWORK "198.51.100.7"

static struct kept_count rows[8192u * BRAKE_KEPT_CELLS];

static struct settings_listener listener_new(void)
{
    struct settings_listener listener = {.brakes = {.ipv4_prefix = 32, .ipv6_prefix = 64}};

    assert_int_equal(ERR_OK, flow_address_parse_ip(span_from_text("192.0.2.1"), &listener.address));
    return listener;
}

static bool connects(struct brake *brake, const struct settings_listener *listener,
                     const char *peer, struct brake_client **ret_client)
{
    struct flow_address address;
    bool is_first;

    assert_int_equal(ERR_OK, flow_address_parse_ip(span_from_text(peer), &address));
    return brake_connect(brake, listener, &address, false, ret_client, &is_first) == ERR_OK;
}

/* So many messages of network `number` at this moment; how many were let through. */
static uint32_t send_from(struct brake *brake, const struct settings_listener *listener,
                          uint32_t number, uint32_t count, tick_us now)
{
    struct brake_client *client;
    uint32_t taken = 0;
    bool is_first;
    char peer[32];

    (void)snprintf(peer, sizeof(peer), "198.51.100.%u", number);
    brake_set_time(brake, now);
    assert_true(connects(brake, listener, peer, &client));
    for (uint32_t i = 0; i < count; i++)
        taken += brake_take(brake, client, listener, BRAKE_MESSAGES, &is_first);
    brake_disconnect(brake, client);
    return taken;
}

static uint32_t send(struct brake *brake, const struct settings_listener *listener, uint32_t count,
                     tick_us now)
{
    return send_from(brake, listener, 7, count, now);
}

/* All rows, asked for in slices of `step`, but those of connections, which every network has. */
static uint32_t take(struct brake *brake, struct kept_wish wish, struct tick_now now, uint32_t step)
{
    uint32_t count = 0;

    for (uint64_t cursor = 0; cursor != UINT64_MAX;) {
        assert_true(count + step <= COUNT_OF(rows));
        uint32_t more = brake_keep_next(brake, &wish, &cursor, now, rows + count, step);
        for (uint32_t i = 0, from = count; i < more; i++) {
            if (rows[from + i].kind != BRAKE_CONNECTION_RATE)
                rows[count++] = rows[from + i];
        }
    }
    return count;
}

static void test_minutes_go_on(void **state)
{
    static const struct {
        const char *name;
        uint32_t limit, sent;
        tick_us later; /* us on the wall clock, from the last message on */
        int64_t jump;  /* s that the wall clock jumps besides */
        uint32_t taken;
        tick_us tick; /* over there; 0: long after it began */
    } cases[] = {
        {"at once", 5, 5, 1, 0, 0, 0},
        {"one is left", 5, 4, 1, 0, 1, 0},
        {"a moment before the first is over", 5, 5, MINUTE - 1 - TICK_S(4), 0, 0, 0},
        {"the first is over", 5, 5, MINUTE - TICK_S(4), 0, 1, 0},
        {"a moment before the last is over", 5, 5, MINUTE - 1, 0, 4, 0},
        {"all are over", 5, 5, MINUTE, 0, 5, 0},
        {"one is not, and the machine has just begun", 5, 5, MINUTE - 1, 0, 4, TICK_S(3)},
        {"all are over, and the machine has just begun", 5, 5, MINUTE + 1, 0, 5, TICK_S(3)},
        {"much is counted together", 300, 300, TICK_S(20), 0, 0, 0},
        {"much is over", 300, 300, MINUTE, 0, 300, 0},
        {"the clock has gone back an hour: as of now", 5, 5, TICK_S(30), -3600, 0, 0},
        {"the clock has gone on an hour", 5, 5, TICK_S(30), 3600, 5, 0},
    };

    struct brake *before = brake_new(1), *behind = brake_new(2), *young = brake_new(3);

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        struct settings_listener listener = listener_new();
        struct brake *brake = cases[i].tick > 0 ? young : behind;
        struct kept_wish all = {.shard_count = 1};
        tick_us begin = START + 3 * i * MINUTE, last = begin;
        tick_us other = cases[i].tick > 0 ? cases[i].tick : TICK_S(5000) + 3 * i * MINUTE;

        print_message("# case: %s\n", cases[i].name);
        listener.brakes.messages_per_minute = cases[i].limit;
        for (uint32_t n = 0; n < cases[i].sent; n++) { /* one a second, or all in four */
            last = begin + (cases[i].limit > 17 ? TICK_MS(10) : TICK_S(1)) * n;
            assert_int_equal(1, send_from(before, &listener, i, 1, last));
        }
        uint32_t count = take(before, all, (struct tick_now){last, WALL}, BRAKE_KEPT_MAX);
        assert_true(count > 0 && count <= BRAKE_KEPT_CELLS);
        wall_us wall = WALL + (wall_us)cases[i].later + (wall_us)cases[i].jump * (wall_us)TICK_S(1);
        brake_keep_restore(brake, 0, 1, rows, count, (struct tick_now){other, wall});
        assert_int_equal(cases[i].taken, send_from(brake, &listener, i, cases[i].limit, other));
        if (cases[i].tick == 0) /* in the end it is over */
            assert_int_equal(cases[i].limit,
                             send_from(brake, &listener, i, cases[i].limit, other + 2 * MINUTE));
    }
    brake_free(before);
    brake_free(behind);
    brake_free(young);
}

/* Goal: who has had its share of errors is not let in by the process that comes; how often it was
 * connected does not matter there. */
static void test_door_stays_closed(void **state)
{
    struct settings_listener listener = listener_new();
    struct brake *before = brake_new(1), *behind = brake_new(2);
    struct brake_client *client, *other;
    bool is_first;

    (void)state;
    listener.brakes.errors_per_minute = 3;
    listener.brakes.connection_max = 1;
    brake_set_time(before, START);
    assert_true(connects(before, &listener, "198.51.100.9", &other)); /* and stays open */
    assert_true(connects(before, &listener, NETWORK, &client));
    for (uint32_t i = 0; i < 3; i++)
        assert_true(brake_take(before, client, &listener, BRAKE_ERRORS, &is_first));
    struct kept_wish all = {.shard_count = 1};
    uint32_t count = take(before, all, (struct tick_now){START, WALL}, BRAKE_KEPT_MAX);
    assert_int_equal(1, count);
    brake_keep_restore(behind, 0, 1, rows, count, (struct tick_now){START, WALL + 1});
    assert_false(connects(behind, &listener, NETWORK, &client));
    assert_true(connects(behind, &listener, "198.51.100.9", &other));
    brake_set_time(behind, START + MINUTE - 2);
    assert_false(connects(behind, &listener, NETWORK, &client));
    brake_set_time(behind, START + MINUTE - 1); /* by the wall clock it is a minute */
    assert_true(connects(behind, &listener, NETWORK, &client));
    brake_free(before);
    brake_free(behind);
}

/* Goal: what is counted behind a parting is a row of its own, and nothing is in both; a parting
 * that is over changes nothing. */
static void test_parting(void **state)
{
    static const uint32_t limits[] = {17, 40};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(limits); i++) {
        struct settings_listener listener = listener_new();
        struct brake *before = brake_new(1), *behind = brake_new(2);
        struct kept_wish all = {.shard_count = 1}, rest = {.shard_count = 1, .is_rest = true};
        struct tick_now now = {START + 1, WALL};

        print_message("# case: %u in a minute\n", limits[i]);
        listener.brakes.messages_per_minute = limits[i];
        (void)send(before, &listener, 7, START);
        assert_int_equal(0, take(before, rest, now, BRAKE_KEPT_MAX));
        brake_keep_part(before, true, now.tick);
        uint32_t count = take(before, all, now, BRAKE_KEPT_MAX);
        brake_keep_restore(behind, 0, 1, rows, count, now);
        assert_int_equal(limits[i] - 7 - 3, send(behind, &listener, limits[i] - 7 - 3, now.tick));
        assert_int_equal(2, send(before, &listener, 2, START + 2));
        assert_int_equal(count, take(before, all, now, BRAKE_KEPT_MAX));
        assert_int_equal(7, rows[0].count);
        assert_int_equal(
            1, take(before, rest, (struct tick_now){START + 3, WALL + 2}, BRAKE_KEPT_MAX));
        assert_int_equal(2, rows[0].count);
        now = (struct tick_now){START + 4, WALL + 3};
        brake_keep_restore(behind, 0, 1, rows, 1, now);
        assert_int_equal(1, send(behind, &listener, 5, now.tick)); /* the last of both together */
        brake_keep_part(before, false, now.tick);
        assert_int_equal(0, take(before, rest, now, BRAKE_KEPT_MAX));
        brake_free(before);
        brake_free(behind);
    }
}

/* Goal: a shard of the process that comes has what its forebears among the old ones counted. */
static void test_shards(void **state)
{
    static const struct {
        uint32_t old_count, new_count;
        uint32_t left[4]; /* of 10, on each new shard, when old shard i has used i + 1 */
    } cases[] = {
        {1, 1, {9}},      {2, 2, {9, 8}},    {4, 2, {10 - 3, 10 - 4}},
        {3, 1, {10 - 3}}, {1, 3, {9, 9, 9}}, {2, 4, {9, 8, 9, 8}},
    };

    struct settings_listener listener = listener_new();
    struct brake *before = brake_new(1), *behind = brake_new(2);
    struct tick_now now = {START + 1, WALL};
    uint32_t number = 0;

    (void)state;
    listener.brakes.messages_per_minute = 10;
    (void)send(before, &listener, 1, START);
    assert_int_equal(
        1, take(before, (struct kept_wish){.shard = 3, .shard_count = 5}, now, BRAKE_KEPT_MAX));
    assert_int_equal(3, rows[0].shard);
    assert_int_equal(5, rows[0].shard_count);
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        print_message("# case: %u shards, then %u\n", cases[i].old_count, cases[i].new_count);
        for (uint32_t shard = 0; shard < cases[i].new_count; shard++) {
            struct kept_count all[4];
            number++; /* a network of its own, in one brake for all shards */
            for (uint32_t old = 0; old < cases[i].old_count; old++) {
                all[old] = rows[0];
                all[old].key[7] = (uint8_t)number;
                all[old].count = old + 1;
                all[old].shard = (uint16_t)old;
                all[old].shard_count = (uint16_t)cases[i].old_count;
            }
            kept_counts_reduce(all, cases[i].old_count, cases[i].new_count);
            brake_keep_restore(behind, shard, cases[i].new_count, all, cases[i].old_count, now);
            assert_int_equal(cases[i].left[shard],
                             send_from(behind, &listener, number, 10, START + 2));
        }
    }
    brake_free(before);
    brake_free(behind);
}

/* Goal: of the shards that are one now the one that counted most holds, all rows of it, for each
 * network, window and kind by itself; a row is touched only where shards are fewer. */
static void test_most_holds(void **state)
{
    static const struct {
        uint8_t network;
        tick_us window;
        uint16_t kind, shard;
        uint32_t count, left;
    } cases[] = {
        {1, 60, 2, 0, 3, 0}, {1, 60, 2, 2, 2, 2}, {2, 60, 2, 0, 9, 9}, {1, 60, 3, 0, 1, 1},
        {1, 90, 2, 0, 1, 1}, {1, 60, 2, 1, 1, 1}, {1, 60, 2, 2, 2, 2}, {2, 60, 2, 2, 8, 0},
        {3, 60, 2, 3, 5, 5}, {3, 60, 2, 1, 5, 0},
    };
    struct kept_count all[COUNT_OF(cases)];
    uint32_t equal = 0;

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++)
        all[i] = (struct kept_count){.key = {cases[i].network},
                                     .window = cases[i].window,
                                     .kind = cases[i].kind,
                                     .shard = cases[i].shard,
                                     .shard_count = 4,
                                     .count = cases[i].count};
    kept_counts_reduce(all, COUNT_OF(all), 4);
    for (uint32_t i = 0; i < COUNT_OF(cases); i++)
        assert_int_equal(cases[i].count, all[i].count);
    kept_counts_reduce(all, COUNT_OF(all), 2);
    for (uint32_t i = 0; i + 2 < COUNT_OF(cases); i++)
        assert_int_equal(cases[i].left, all[i].count);
    for (uint32_t i = COUNT_OF(cases) - 2; i < COUNT_OF(cases); i++) /* as many: either */
        equal += all[i].count;
    assert_int_equal(5, equal);
    kept_counts_reduce(all, 0, 1);
}

/* Goal: what comes out of order, from several shards, is kept whole over one more restart. */
static void test_again_and_again(void **state)
{
    struct settings_listener listener = listener_new();
    struct brake *first = brake_new(1), *second = brake_new(2), *third = brake_new(3);
    struct kept_wish all = {.shard_count = 1};
    struct tick_now now = {START + TICK_S(18), WALL};
    uint32_t count;

    (void)state;
    listener.brakes.messages_per_minute = 17;
    for (uint32_t i = 0; i < 7; i++) {
        assert_int_equal(1, send(first, &listener, 1, START + TICK_S(10 + i)));
        assert_int_equal(1, send(second, &listener, 1, START + TICK_S(i)));
    }
    count = take(second, all, now, BRAKE_KEPT_MAX);
    brake_keep_restore(first, 0, 1, rows, count, now);
    count = take(first, all, now, BRAKE_KEPT_MAX);
    brake_keep_restore(third, 0, 1, rows, count, now);
    assert_int_equal(3, send(third, &listener, 5, now.tick));
    brake_free(first);
    brake_free(second);
    brake_free(third);
}

/* Goal: of many networks those that are braked come first, each once, in slices of any size; those
 * that come first are the last to be forgotten where there are more than places. */
static void test_many_networks(void **state)
{
    enum { PLACES = 8192 };
    struct settings_listener listener = listener_new();
    struct brake *before = brake_new(1), *behind = brake_new(2);
    struct kept_wish all = {.shard_count = 1};
    struct brake_client *client;
    bool is_first;
    char peer[32];

    (void)state;
    listener.brakes.errors_per_minute = 1;
    brake_set_time(before, START);
    for (uint32_t i = 0; i < PLACES; i++) {
        snprintf(peer, sizeof(peer), "10.0.%u.%u", i / 256, i % 256);
        if (i == PLACES - 3)
            brake_set_time(before, START + TICK_S(20));
        assert_true(connects(before, &listener, peer, &client));
        assert_true(brake_take(before, client, &listener, BRAKE_ERRORS, &is_first));
        if (i == 5000)
            assert_false(brake_take(before, client, &listener, BRAKE_ERRORS, &is_first));
        brake_disconnect(before, client);
    }
    struct tick_now now = {START + TICK_S(20), WALL};
    assert_int_equal(PLACES, take(before, all, now, 1000));
    assert_memory_equal(((uint8_t[]){10, 0, 5000 / 256, 5000 % 256}), rows[0].key + 4, 4);
    for (uint32_t i = 0; i < 3; i++) /* then the fresh ones */
        assert_true(WALL - rows[1 + i].last < (wall_us)TICK_S(1));
    assert_true(WALL - rows[4].last > (wall_us)TICK_S(19));

    brake_set_time(behind, now.tick);
    assert_true(connects(behind, &listener, "192.0.2.99", &client)); /* has a place already */
    brake_disconnect(behind, client);
    brake_keep_restore(behind, 0, 1, rows, PLACES, now);
    assert_int_equal(PLACES, brake_get_stats(behind).networks);
    assert_int_equal(0, brake_get_stats(behind).forgotten);
    assert_true(connects(behind, &listener, "192.0.2.98", &client)); /* others go for these */
    assert_true(connects(behind, &listener, "192.0.2.97", &client));
    assert_false(connects(behind, &listener, "10.0.19.136", &client));
    brake_free(before);
    brake_free(behind);
}

/* Goal: rows that make no sense are passed over, whatever is in them. */
static void test_senseless_rows(void **state)
{
    struct settings_listener listener = listener_new();
    struct brake *before = brake_new(1), *behind = brake_new(2);
    struct tick_now now = {START + 1, WALL};
    struct kept_wish all = {.shard_count = 1};

    (void)state;
    listener.brakes.messages_per_minute = 5;
    (void)send(before, &listener, 5, START);
    assert_int_equal(1, take(before, all, now, BRAKE_KEPT_MAX));
    struct kept_count good = rows[0],
                      bad[] = {good, good, good, good, good, good, good, good, good};
    bad[0].kind = BRAKE_KIND_COUNT;
    bad[1].kind = BRAKE_CONNECTIONS;
    bad[2].count = 0;
    bad[3].window = MINUTE + 1;
    bad[4].key_size = sizeof(good.key) - 1;
    bad[5].last = bad[5].first - 1;
    bad[6].shard = 1;
    bad[7].shard_count = 0;
    bad[8].last = bad[8].first = INT64_MIN;
    brake_keep_restore(behind, 0, 1, bad, COUNT_OF(bad), now);
    assert_int_equal(5, send(behind, &listener, 5, START));
    brake_free(behind);

    behind = brake_new(2);
    bad[0] = bad[1] = good;
    bad[0].count = bad[1].count = UINT32_MAX; /* no sum goes over */
    brake_keep_restore(behind, 0, 1, bad, 2, now);
    assert_int_equal(0, send(behind, &listener, 1, START + 2));
    for (uint32_t i = 0; i < 40; i++) /* more cells than there are: the newest takes them */
        brake_keep_restore(behind, 0, 1, &good, 1, now);
    assert_int_equal(5, send(behind, &listener, 5, START + MINUTE + 2));
    brake_free(before);
    brake_free(behind);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_minutes_go_on), cmocka_unit_test(test_door_stays_closed),
        cmocka_unit_test(test_parting),       cmocka_unit_test(test_shards),
        cmocka_unit_test(test_most_holds),    cmocka_unit_test(test_again_and_again),
        cmocka_unit_test(test_many_networks), cmocka_unit_test(test_senseless_rows),
    };
    return cmocka_run_group_tests_name("brake_keep", tests, NULL, NULL);
}

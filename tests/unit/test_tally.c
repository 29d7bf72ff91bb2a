/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts by key: each key has its own, windows end, rates may change, and only so many keys are
 * known.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "relay/tally.h"

static struct rate_set rates_of(const char *text)
{
    struct rate_set set;

    assert_int_equal(ERR_OK, rate_set_parse(span_from_text(text), &set));
    return set;
}

static bool take(struct tally *tally, const char *key, const struct rate_set *rates, tick_us now,
                 bool *ret_is_first)
{
    bool has_room = tally_has_room(tally, span_from_text(key), rates, now, ret_is_first);

    if (has_room)
        tally_add(tally, span_from_text(key), rates, now);
    return has_room;
}

/* Goal: a key has its rate in every window, whatever others do, and the first refusal is told. */
static void test_windows(void **state)
{
    struct tally *tally = tally_new(1, 10);
    struct rate_set rates = rates_of("2/1m, 3/1h");
    tick_us now = TICK_S(100);
    bool is_first;
    (void)state;

    assert_true(take(tally, "a", &rates, now, &is_first));
    assert_true(take(tally, "a", &rates, now, &is_first));
    assert_false(take(tally, "a", &rates, now, &is_first));
    assert_true(is_first);
    assert_false(take(tally, "a", &rates, now + 1, &is_first));
    assert_false(is_first);
    assert_true(take(tally, "b", &rates, now, &is_first));
    assert_false(take(tally, "a", &rates, now + TICK_S(59), &is_first));
    assert_true(take(tally, "a", &rates, now + TICK_S(61), &is_first));
    assert_false(take(tally, "a", &rates, now + TICK_S(200), &is_first)); /* the hour's third */
    assert_true(is_first);
    assert_true(take(tally, "a", &rates, now + TICK_S(3700), &is_first));
    assert_int_equal(2, tally_count(tally));
    tally_free(tally);
}

/* Goal: a reload counts at once, in both directions, and what was counted stays. */
static void test_rates_change(void **state)
{
    struct tally *tally = tally_new(1, 10);
    struct rate_set three = rates_of("3/1h"), one = rates_of("1/1h"), none = {0};
    bool is_first;
    (void)state;

    assert_true(take(tally, "a", &three, TICK_S(1), &is_first));
    assert_true(take(tally, "a", &three, TICK_S(1), &is_first));
    assert_false(take(tally, "a", &one, TICK_S(2), &is_first));
    assert_true(take(tally, "a", &three, TICK_S(3), &is_first));
    assert_false(take(tally, "a", &three, TICK_S(4), &is_first));
    assert_true(take(tally, "a", &none, TICK_S(5), &is_first));
    assert_false(take(tally, "a", &three, TICK_S(6), &is_first));
    tally_free(tally);
}

/* Goal: nothing is kept without a rate; with too many keys the one not heard of goes first. */
static void test_keys_are_bounded(void **state)
{
    struct tally *tally = tally_new(1, 3);
    struct rate_set one = rates_of("1/1h"), none = {0};
    bool is_first;
    char key[16];
    (void)state;

    assert_true(take(tally, "a", &none, 1, &is_first));
    assert_int_equal(0, tally_count(tally));
    for (uint32_t i = 0; i < 3; i++) {
        snprintf(key, sizeof(key), "key%u", i);
        assert_true(take(tally, key, &one, 1, &is_first));
    }
    assert_false(take(tally, "key0", &one, 2, &is_first)); /* heard of: key1 is the oldest */
    assert_true(take(tally, "key3", &one, 3, &is_first));
    assert_int_equal(3, tally_count(tally));
    assert_false(take(tally, "key0", &one, 4, &is_first));
    assert_true(take(tally, "key1", &one, 5, &is_first));
    assert_int_equal(3, tally_count(tally));
    tally_free(tally);
}

/* ---- over a restart ---- */

#define WALL ((wall_us)1700000000000000)

static struct kept_count rows[2 * TALLY_KEPT_MAX];

static uint32_t rows_take(struct tally *tally, struct kept_wish wish, struct tick_now now)
{
    uint32_t count = 0;

    for (uint64_t cursor = 0; cursor != UINT64_MAX;)
        count += tally_keep_next(tally, &wish, &cursor, now, rows + count, TALLY_KEPT_MAX);
    return count;
}

/* Goal: what was counted counts on in the process that comes, for as long as it would have, also
 * when that began with another clock; short windows are taken when they are wanted. */
static void test_kept_over_a_restart(void **state)
{
    static const struct {
        const char *name, *rates;
        tick_us later; /* us on the wall clock, from the second of two on */
        tick_us tick;  /* over there */
        tick_us window_min;
        uint32_t left;
    } cases[] = {
        {"at once", "2/1m, 3/1h", 1, TICK_S(900000), 0, 0},
        {"the short window is over", "2/1m, 3/1h", TICK_S(61), TICK_S(900000), 0, 1},
        {"it was not taken, but the long one knows", "2/1m, 3/1h", 1, TICK_S(900000), TICK_S(600),
         0},
        {"that one alone, a minute later", "2/1m, 3/1h", TICK_S(61), TICK_S(900000), TICK_S(600),
         1},
        {"after a boot", "2/1m, 3/1h", TICK_S(100), TICK_S(3), 0, 1},
        {"a moment before the first is over", "3/1h", TICK_S(3600) - 1, TICK_S(3), 0, 1},
        {"the first is over", "3/1h", TICK_S(3600), TICK_S(3), 0, 2},
        {"both are", "3/1h", TICK_S(3600) + 1, TICK_S(3), 0, 3},
    };
    bool is_first;
    (void)state;

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct tally *before = tally_new(1, 10), *behind = tally_new(2, 10);
        struct kept_wish wish = {.shard_count = 1, .window_min = cases[i].window_min};
        struct rate_set rates = rates_of(cases[i].rates);
        tick_us at = cases[i].tick;

        print_message("# case: %s\n", cases[i].name);
        tally_add(before, SPAN_LITERAL("a"), &rates, TICK_S(100));
        tally_add(before, SPAN_LITERAL("a"), &rates, TICK_S(100) + 1);
        assert_int_equal(2, tally_changes(before));
        uint32_t count = rows_take(before, wish, (struct tick_now){TICK_S(100) + 1, WALL});
        for (uint32_t j = 0; j < count; j++)
            tally_keep_restore(behind, &rows[j],
                               (struct tick_now){at, WALL + (wall_us)cases[i].later});
        for (uint32_t j = 0; j < cases[i].left; j++)
            assert_true(take(behind, "a", &rates, at, &is_first));
        assert_false(take(behind, "a", &rates, at, &is_first));
        assert_true(take(behind, "b", &rates, at, &is_first));
        tally_free(before);
        tally_free(behind);
    }
}

/* Goal: what is counted behind a parting is taken by itself. */
static void test_parting(void **state)
{
    struct tally *before = tally_new(1, 10), *behind = tally_new(2, 10);
    struct kept_wish all = {.shard_count = 1}, rest = {.shard_count = 1, .is_rest = true};
    struct rate_set rates = rates_of("5/1h");
    struct tick_now now = {TICK_S(100), WALL};
    bool is_first;
    (void)state;

    tally_add(before, SPAN_LITERAL("a"), &rates, now.tick);
    tally_keep_part(before, true);
    assert_int_equal(1, rows_take(before, all, now));
    tally_keep_restore(behind, &rows[0], now);
    assert_int_equal(0, rows_take(before, rest, now));
    tally_add(before, SPAN_LITERAL("a"), &rates, now.tick + 1);
    tally_add(before, SPAN_LITERAL("a"), &rates, now.tick + 2);
    tally_add(behind, SPAN_LITERAL("a"), &rates, now.tick + 2);
    now = (struct tick_now){TICK_S(100) + 3, WALL + 3};
    assert_int_equal(1, rows_take(before, rest, now));
    assert_int_equal(2, rows[0].count);
    tally_keep_restore(behind, &rows[0], now);
    assert_true(take(behind, "a", &rates, now.tick, &is_first));
    assert_false(take(behind, "a", &rates, now.tick, &is_first)); /* five in all */
    tally_keep_part(before, false);
    assert_int_equal(0, rows_take(before, rest, now));
    tally_free(before);
    tally_free(behind);
}

/* Goal: keys come once each, those used last first, and are forgotten in the order in which they
 * would have been; nonsense is passed over. */
static void test_many_keys_and_senseless_rows(void **state)
{
    struct tally *before = tally_new(1, 3), *behind = tally_new(2, 3);
    struct rate_set one = rates_of("1/1h");
    struct kept_wish all = {.shard_count = 1};
    struct tick_now now = {TICK_S(100), WALL};
    bool is_first;
    (void)state;

    assert_true(take(before, "a", &one, now.tick, &is_first));
    assert_true(take(before, "b", &one, now.tick, &is_first));
    assert_true(take(before, "c", &one, now.tick, &is_first));
    assert_false(take(before, "a", &one, now.tick, &is_first));
    assert_int_equal(3, rows_take(before, all, now));
    assert_memory_equal(
        "acb", ((char[]){(char)rows[0].key[0], (char)rows[1].key[0], (char)rows[2].key[0]}), 3);
    struct kept_count bad[7] = {rows[0], rows[0], rows[0], rows[0], rows[0], rows[0], rows[0]};
    bad[0].key_size = 0;
    bad[1].key_size = KEPT_KEY_SIZE + 1;
    bad[2].count = 0;
    bad[3].count = RATE_COUNT_MAX + 1;
    bad[4].window = RATE_WINDOW_MAX + 1;
    bad[5].window = 0;
    bad[6].first = bad[6].last + 1;
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        tally_keep_restore(behind, &bad[i], now);
    assert_int_equal(0, tally_count(behind));
    for (uint32_t i = 0; i < 3; i++)
        tally_keep_restore(behind, &rows[i], now);
    rows[0].key[0] = 'd'; /* no place is given up for it */
    tally_keep_restore(behind, &rows[0], now);
    assert_true(take(behind, "e", &one, now.tick, &is_first)); /* takes that of b */
    assert_false(take(behind, "a", &one, now.tick, &is_first));
    assert_false(take(behind, "c", &one, now.tick, &is_first));
    assert_true(take(behind, "b", &one, now.tick, &is_first));
    tally_free(before);
    tally_free(behind);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_rates_change),
        cmocka_unit_test(test_keys_are_bounded),
        cmocka_unit_test(test_kept_over_a_restart),
        cmocka_unit_test(test_parting),
        cmocka_unit_test(test_many_keys_and_senseless_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

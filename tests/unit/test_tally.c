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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_rates_change),
        cmocka_unit_test(test_keys_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The histogram of angarium-load: its error bound at every size, quantiles against a sorted list,
 * and the timetable of an open loop.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "bench/load/histogram.h"
#include "bench/load/pace.h"

static void buckets_keep_the_error_bound(void **state)
{
    uint32_t before = 0;

    (void)state;
    assert_int_equal(0, histogram_bucket(0));
    assert_int_equal(HISTOGRAM_BUCKET_COUNT - 1, histogram_bucket(HISTOGRAM_VALUE_MAX));
    for (uint32_t bucket = 0; bucket < HISTOGRAM_BUCKET_COUNT; bucket++) {
        uint64_t top = histogram_bucket_top(bucket);
        assert_int_equal(bucket, histogram_bucket(top));
        if (top < HISTOGRAM_VALUE_MAX)
            assert_int_equal(bucket + 1, histogram_bucket(top + 1));
        before = bucket;
    }
    assert_int_equal(HISTOGRAM_BUCKET_COUNT - 1, before);
    for (uint64_t value = 1; value <= HISTOGRAM_VALUE_MAX; value += value / 977 + 1) {
        uint64_t top = histogram_bucket_top(histogram_bucket(value));
        assert_true(top >= value && top - value <= value / 128);
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Against the sorted list: never less than the value of that rank, at most 1/128 more. */
static void quantiles_are_those_of_the_sorted_list(void **state)
{
    static const uint32_t parts[] = {0, 1, 500000, 900000, 990000, 999000, 999999, 1000000};
    enum { COUNT = 20011 };
    struct histogram *histogram = calloc(1, sizeof(*histogram));
    uint64_t *values = calloc(COUNT, sizeof(*values));
    struct rng rng;

    (void)state;
    assert_non_null(histogram);
    assert_non_null(values);
    rng_init_seed(&rng, 5);
    for (uint32_t i = 0; i < COUNT; i++) {
        values[i] = rng_u64(&rng) >> (28 + rng_below(&rng, 36));
        histogram_add(histogram, values[i]);
    }
    qsort(values, COUNT, sizeof(*values), compare);
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        uint64_t rank = ((uint64_t)COUNT * parts[i] + 999999) / 1000000;
        uint64_t wanted = values[rank == 0 ? 0 : rank - 1];
        uint64_t got = histogram_quantile(histogram, parts[i]);
        assert_true(got >= wanted && got - wanted <= wanted / 128);
    }
    assert_int_equal(values[0], histogram->min);
    assert_int_equal(values[COUNT - 1], histogram->max);
    assert_int_equal(values[COUNT - 1], histogram_quantile(histogram, 1000000));
    histogram_reset(histogram);
    for (uint32_t i = 0; i < HISTOGRAM_BUCKET_COUNT; i++)
        assert_int_equal(0, histogram->buckets[i]);
    assert_int_equal(0, histogram_quantile(histogram, 500000));
    free(values);
    free(histogram);
}

static void merging_is_adding(void **state)
{
    struct histogram *a = calloc(3, sizeof(*a)), *b = a + 1, *all = a + 2;

    (void)state;
    assert_non_null(a);
    histogram_merge(a, b); /* nothing and nothing */
    assert_int_equal(0, a->count);
    for (uint64_t value = 7; value < HISTOGRAM_VALUE_MAX * 3; value *= 3) {
        histogram_add(value % 2 == 0 || value % 5 == 1 ? a : b, value);
        histogram_add(all, value);
    }
    histogram_merge(a, b);
    assert_memory_equal(all, a, sizeof(*a));
    assert_true(all->clipped > 0); /* beyond the largest value: counted as that */
    assert_int_equal(HISTOGRAM_VALUE_MAX, all->max);
    free(a);
}

static void the_timetable_is_even(void **state)
{
    struct pace pace = {.rate = 1000};

    (void)state;
    assert_int_equal(0, pace_due(&pace, 0));
    assert_int_equal(1000, pace_due(&pace, 1));
    assert_int_equal(TICK_S(1), pace_due(&pace, 1000));
    assert_int_equal(1, pace_count(&pace, 0));
    assert_int_equal(1, pace_count(&pace, 999));
    assert_int_equal(2, pace_count(&pace, 1000));
    assert_int_equal(1001, pace_count(&pace, TICK_S(1)));
}

/* In the ramp half as many as at the full rate; later ones follow at the rate, without a jump. */
static void a_ramp_rises_evenly(void **state)
{
    struct pace pace = {.rate = 1000, .ramp = TICK_S(10)};
    tick_us before = 0;

    (void)state;
    assert_int_equal(TICK_S(10), pace_due(&pace, 5000));
    assert_int_equal(TICK_S(5), pace_due(&pace, 1250));
    assert_int_equal(TICK_S(11), pace_due(&pace, 6000));
    for (uint64_t i = 0; i < 7000; i++) {
        tick_us due = pace_due(&pace, i);
        assert_true(due >= before);
        assert_int_equal(due == pace_due(&pace, i + 1) ? i + 2 : i + 1, pace_count(&pace, due));
        before = due;
    }
}

/* How many begin at this look at the clock. */
static uint32_t begun_by(struct pace_spacing *spacing, const struct pace *pace, uint64_t *next,
                         tick_us now)
{
    uint32_t count = 0;

    while (pace_spacing_begins(spacing, pace_due(pace, *next)) <= now) {
        pace_spacing_note(spacing, pace, now);
        (*next)++;
        count++;
    }
    pace_spacing_look(spacing, now);
    return count;
}

static void who_looks_in_time_keeps_the_timetable(void **state)
{
    static const double rates[] = {1, 1000, 60000, 250000, 3000000};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rates); i++) {
        struct pace pace = {.rate = rates[i]};
        struct pace_spacing spacing = {0};
        uint64_t next = 0;
        for (tick_us now = 0; now < TICK_S(3) && next < 100000; now += PACE_SLACK) {
            begun_by(&spacing, &pace, &next, now);
            assert_int_equal(pace_count(&pace, now), next);
        }
        assert_true(next >= 3);
    }
}

static void a_stall_of_our_own_is_made_up_for_little_by_little(void **state)
{
    struct pace pace = {.rate = 50000}; /* 20 us apart: 16 when late */
    struct pace_spacing spacing = {0};
    uint64_t next = 0;
    tick_us now = 0;

    (void)state;
    for (; now < 10000; now += 2)
        begun_by(&spacing, &pace, &next, now);
    assert_int_equal(pace_count(&pace, now - 2), next);
    now += 1000; /* fifty are due */
    assert_in_range(begun_by(&spacing, &pace, &next, now), 1, 3);
    uint64_t before = next;
    for (tick_us end = now + 1600; now < end; now += 2)
        begun_by(&spacing, &pace, &next, now);
    assert_in_range(next - before, 99, 101);
    for (tick_us end = now + 4000; now < end; now += 2)
        begun_by(&spacing, &pace, &next, now);
    assert_int_equal(pace_count(&pace, now - 2), next);
}

/* However long its turns are: no later than they make it. */
static void who_looks_seldom_keeps_the_rate(void **state)
{
    static const struct {
        double rate;
        tick_us turn;
    } rows[] = {{100000, 50}, {100000, 100}, {50000, 1000}, {10000000, 200}, {1000, 3000}};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct pace pace = {.rate = rows[i].rate};
        struct pace_spacing spacing = {0};
        uint64_t next = 0;
        for (tick_us now = 0; now < TICK_S(1); now += rows[i].turn) {
            begun_by(&spacing, &pace, &next, now);
            if (now > TICK_MS(200))
                assert_int_equal(pace_count(&pace, now), next);
        }
    }
}

/* Nor is anything later than that for our own sake: at once, at the bound, and not before. */
static void what_is_too_late_begins_at_once(void **state)
{
    struct pace pace = {.rate = 50000};
    struct pace_spacing spacing = {.earliest = TICK_S(9) * 1000};

    (void)state;
    assert_int_equal(TICK_S(1) + PACE_LATE, pace_spacing_begins(&spacing, TICK_S(1)));
    assert_int_equal(TICK_S(9), pace_spacing_begins(&spacing, TICK_S(9) - PACE_LATE));
    assert_int_equal(TICK_S(9) + 1, pace_spacing_begins(&spacing, TICK_S(9) + 1));
    uint64_t next = 0;
    spacing.earliest = 0;
    begun_by(&spacing, &pace, &next, TICK_S(1));
    assert_true(next >= pace_count(&pace, TICK_S(1) - PACE_LATE));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_looks_in_time_keeps_the_timetable),
        cmocka_unit_test(a_stall_of_our_own_is_made_up_for_little_by_little),
        cmocka_unit_test(who_looks_seldom_keeps_the_rate),
        cmocka_unit_test(what_is_too_late_begins_at_once),
        cmocka_unit_test(buckets_keep_the_error_bound),
        cmocka_unit_test(quantiles_are_those_of_the_sorted_list),
        cmocka_unit_test(merging_is_adding),
        cmocka_unit_test(the_timetable_is_even),
        cmocka_unit_test(a_ramp_rises_evenly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

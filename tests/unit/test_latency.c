/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/latency.h"

/* Goal: buckets follow one another without gap or overlap, and none is wider than a quarter of what
 * it counts. */
static void test_buckets(void **state)
{
    uint64_t next = 0;

    (void)state;
    for (uint32_t i = 0; i < LATENCY_BUCKET_COUNT; i++) {
        uint64_t top = latency_bucket_top(i);
        assert_true(top >= next);
        assert_int_equal(i, latency_bucket(next));
        assert_int_equal(i, latency_bucket(top));
        assert_true(top - next <= next / 4);
        next = top + 1;
    }
    assert_int_equal(1ull << LATENCY_VALUE_BITS, next);
}

/* Goal: what is beyond both ends counts there. */
static void test_ends(void **state)
{
    static const struct {
        int64_t us;
        uint32_t bucket;
    } rows[] = {
        {INT64_MIN, 0},
        {-1, 0},
        {0, 0},
        {1, 1},
        {(1ll << LATENCY_VALUE_BITS) - 1, LATENCY_BUCKET_COUNT - 1},
        {1ll << LATENCY_VALUE_BITS, LATENCY_BUCKET_COUNT - 1},
        {INT64_MAX, LATENCY_BUCKET_COUNT - 1},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct latency latency = {0};
        latency_add(&latency, rows[i].us);
        assert_int_equal(1, latency.counts[rows[i].bucket]);
        assert_int_equal(rows[i].us < 0 ? 0 : rows[i].us, latency.sum_us);
    }
}

/* Goal: the same of the fine ones: an eighth, and steps of 64 ns where that is more. */
static void test_fine_buckets(void **state)
{
    uint64_t next = 0, step = 1ull << LATENCY_FINE_UNIT_BITS;

    (void)state;
    for (uint32_t i = 0; i < LATENCY_FINE_BUCKET_COUNT; i++) {
        uint64_t top = latency_fine_bucket_top(i);
        assert_true(top >= next);
        assert_int_equal(i, latency_fine_bucket(next));
        assert_int_equal(i, latency_fine_bucket(top));
        assert_true(top - next < step || top - next <= next / 8);
        next = top + 1;
    }
    assert_int_equal(1ull << LATENCY_FINE_VALUE_BITS, next);
    assert_int_equal(LATENCY_FINE_BUCKET_COUNT - 1, latency_fine_bucket(next));
    assert_int_equal(LATENCY_FINE_BUCKET_COUNT - 1, latency_fine_bucket(UINT64_MAX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fine_buckets),
        cmocka_unit_test(test_buckets),
        cmocka_unit_test(test_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

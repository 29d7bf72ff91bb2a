/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Orders give way to the records of mail: they wait for a writer that is behind, a second at most.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "control/shard_query.h"

static bool behind(void *context)
{
    return *(const bool *)context;
}

/* Goal: an order waits while records are behind; anything else, a count, and an order that nobody
 * waits for do not. */
static void test_what_yields(void **state)
{
    static const struct {
        const char *name;
        struct shard_query query;
        bool is_behind, has_question, yields;
    } cases[] = {
        {"an order", {.kind = SHARD_QUERY_QUEUE_ACT}, true, true, true},
        {"records are not behind", {.kind = SHARD_QUERY_QUEUE_ACT}, false, true, false},
        {"a sink that never is", {.kind = SHARD_QUERY_QUEUE_ACT}, true, false, false},
        {"a count", {.kind = SHARD_QUERY_QUEUE_ACT, .is_dry_run = true}, true, true, false},
        {"an end", {.kind = SHARD_QUERY_QUEUE_ACT, .is_end = true}, true, true, false},
        {"a list", {.kind = SHARD_QUERY_QUEUE_LIST}, true, true, false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        bool is_behind = cases[i].is_behind;
        struct record_sink sink = {.context = &is_behind,
                                   .is_behind = cases[i].has_question ? behind : NULL};
        struct shard_query query = cases[i].query;
        query.is_waiting = true; /* for a disk, the look before */
        bool yields = shard_query_yields(&query, &sink, TICK_S(5));
        if (yields != cases[i].yields || query.is_waiting)
            fail_msg("%s", cases[i].name);
    }
}

/* Goal: a writer that stands still stops no order; one that has come up is waited for again. */
static void test_patience(void **state)
{
    bool is_behind = true;
    struct record_sink sink = {.context = &is_behind, .is_behind = behind};
    struct shard_query query = {.kind = SHARD_QUERY_QUEUE_ACT};

    (void)state;
    assert_true(shard_query_yields(&query, &sink, TICK_S(5)));
    assert_true(shard_query_yields(&query, &sink, TICK_S(6) - 1));
    assert_false(shard_query_yields(&query, &sink, TICK_S(6)));
    assert_false(shard_query_yields(&query, &sink, TICK_S(9)));
    is_behind = false;
    assert_false(shard_query_yields(&query, &sink, TICK_S(10)));
    is_behind = true;
    assert_true(shard_query_yields(&query, &sink, TICK_S(11)));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_yields),
        cmocka_unit_test(test_patience),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

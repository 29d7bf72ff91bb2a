/* SPDX-License-Identifier: Apache-2.0 */
/* Which limit binds: each in turn, both sides of its bound, several at once, none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/span.h"
#include "control/explain.h"

#define NONE     EXPLAIN_KIND_COUNT
#define FREE     .configured = 20, .ordered = EXPLAIN_NOT_SET, .learned = 20, .outbound_max = 100
#define RATES(n) .rate_count = (n)
#define MINUTE   TICK_S(60)

static const struct {
    const char *name;
    enum explain_kind binds;
    tick_us left;
    struct explain_facts facts;
} rows[] = {
    {"nothing", NONE, 0, {FREE}},
    {"source suspended", EXPLAIN_SOURCE_SUSPENDED, 5, {FREE, .source_suspended = 5}},
    {"source rests", EXPLAIN_SOURCE_RESTS, 5, {FREE, .source_rests = 5}},
    {"source is cold", EXPLAIN_SOURCE_COLD, 5, {FREE, .source_cold = 5}},
    {"suspended", EXPLAIN_SITE_SUSPENDED, 5, {FREE, .suspended = 5}},
    {"pauses", EXPLAIN_SITE_PAUSED, 5, {FREE, .paused = 5}},
    {"rate", EXPLAIN_RATE, 7, {FREE, RATES(1), .rates = {{{3, MINUTE}, 3, 7}}}},
    {"rate with room", NONE, 0, {FREE, RATES(1), .rates = {{{3, MINUTE}, 2, 0}}}},
    {"rate, by rights that are out",
     EXPLAIN_RATE,
     0,
     {FREE, RATES(1), .mail_out = 1, .rates = {{{3, MINUTE}, 2, 0}}}},
    {"the later of two rates",
     EXPLAIN_RATE,
     9,
     {FREE, RATES(2), .rates = {{{3, MINUTE}, 3, 7}, {{5, TICK_S(3600)}, 5, 9}}}},
    {"configured",
     EXPLAIN_CONFIGURED,
     0,
     {.connections = 20, .configured = 20, .ordered = EXPLAIN_NOT_SET, .learned = 20}},
    {"configured, one below",
     NONE,
     0,
     {.connections = 19, .configured = 20, .ordered = EXPLAIN_NOT_SET, .learned = 20}},
    {"configured, one kept is free",
     NONE,
     0,
     {.connections = 20, .idle = 1, .configured = 20, .ordered = EXPLAIN_NOT_SET, .learned = 20}},
    {"learned",
     EXPLAIN_LEARNED,
     0,
     {.connections = 3, .configured = 20, .ordered = EXPLAIN_NOT_SET, .learned = 3}},
    {"learned, one below",
     NONE,
     0,
     {.connections = 2, .configured = 20, .ordered = EXPLAIN_NOT_SET, .learned = 3}},
    {"ordered",
     EXPLAIN_ORDERED,
     0,
     {.connections = 2, .configured = 20, .ordered = 2, .learned = 3}},
    {"above all since they were lowered",
     EXPLAIN_LEARNED,
     0,
     {.connections = 9, .configured = 8, .ordered = 4, .learned = 3}},
    {"order and configuration tie",
     EXPLAIN_CONFIGURED,
     0,
     {.connections = 4, .configured = 4, .ordered = 4, .learned = 4}},
    {"order and answers tie",
     EXPLAIN_ORDERED,
     0,
     {.connections = 4, .configured = 5, .ordered = 4, .learned = 4}},
    {"no home has told",
     NONE,
     0,
     {.connections = 4, .configured = 5, .ordered = EXPLAIN_NOT_SET, .learned = EXPLAIN_NOT_SET}},
    {"core is crowded", EXPLAIN_OUTBOUND, 0, {FREE, .is_crowded = true, .outbound = 100}},
    {"core is crowded, one kept is free",
     NONE,
     0,
     {FREE, .is_crowded = true, .outbound = 100, .connections = 1, .idle = 1}},
    {"memory", EXPLAIN_MEMORY, 0, {FREE, .unread = 1, .memory = 10, .memory_max = 10}},
    {"memory is used, nobody waits", NONE, 0, {FREE, .memory = 10, .memory_max = 10}},
    {"a time beats what moves as mail ends",
     EXPLAIN_SITE_PAUSED,
     5,
     {.connections = 1, .configured = 1, .ordered = EXPLAIN_NOT_SET, .learned = 1, .paused = 5}},
    {"a rate's time beats connections",
     EXPLAIN_RATE,
     7,
     {.connections = 1,
      .configured = 1,
      .ordered = EXPLAIN_NOT_SET,
      .learned = 1,
      RATES(1),
      .rates = {{{3, MINUTE}, 3, 7}}}},
    {"the later time",
     EXPLAIN_RATE,
     7,
     {FREE, .suspended = 6, RATES(1), .rates = {{{3, MINUTE}, 3, 7}}}},
    {"times tie", EXPLAIN_SOURCE_RESTS, 6, {FREE, .suspended = 6, .source_rests = 6}},
};

static void test_binding(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct explain_limit limits[EXPLAIN_LIMIT_MAX];
        uint32_t count = explain_limits(&rows[i].facts, limits), binding = 0;
        enum explain_kind binds = NONE;
        tick_us left = 0;
        for (uint32_t j = 0; j < count; j++) {
            if (!limits[j].binds)
                continue;
            binding++;
            binds = limits[j].kind;
            left = limits[j].left;
            assert_true(limits[j].bars);
        }
        if (binds != rows[i].binds || left != rows[i].left || binding > 1)
            fail_msg("%s: %s binds for %llu", rows[i].name,
                     binds == NONE ? "nothing" : explain_kind_name(binds),
                     (unsigned long long)left);
    }
}

/* Everything at once fits, and is told in the order of the kinds. */
static void test_all_at_once(void **state)
{
    struct explain_facts facts = {.source_suspended = 1,
                                  .source_rests = 1,
                                  .source_cold = 1,
                                  .suspended = 1,
                                  .paused = 1,
                                  .rate_count = RATE_MAX};
    struct explain_limit limits[EXPLAIN_LIMIT_MAX];

    (void)state;
    assert_int_equal(explain_limits(&facts, limits), EXPLAIN_LIMIT_MAX);
    for (uint32_t i = 1; i < EXPLAIN_LIMIT_MAX; i++)
        assert_true(limits[i - 1].kind <= limits[i].kind);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_binding),
        cmocka_unit_test(test_all_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

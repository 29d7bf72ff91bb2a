/* SPDX-License-Identifier: Apache-2.0 */
/* Turns of sources, and what may not be used. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "relay/source.h"

static const struct settings_source names[] = {
    {.name = "a"}, {.name = "b"}, {.name = "c", .ip4 = {.family = FLOW_FAMILY_IP4}}};
static const struct settings_member members[] = {{0, 3}, {1, 1}};
static const struct settings_pool pools[] = {{"p", members, 2}};
static const struct settings settings = {
    .sources = names, .source_count = 3, .pools = pools, .pool_count = 1};

/* ---- turns ---- */

/* Goal: weights are spread smoothly; whoever is not of the mask is neither taken nor credited. */
static void test_turns(void **state)
{
    static const struct {
        const char *name;
        int64_t weights[4];
        uint32_t count;
        uint64_t mask;
        const char *turns;
    } cases[] = {
        {"one", {7}, 1, 1, "aaa"},
        {"alike", {1, 1}, 2, 3, "ababab"},
        {"three to one", {3, 1}, 2, 3, "aabaaaba"},
        {"five, one, one", {5, 1, 1}, 3, 7, "aabacaaaabacaa"},
        {"bounds of weights", {1000, 1}, 2, 3, "aaaaaaaa"},
        {"second may not", {1, 5, 1}, 3, 5, "acac"},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        struct source_turn turns[4] = {0};
        print_message("# case: %s\n", cases[i].name);
        for (uint32_t j = 0; j < cases[i].count; j++)
            turns[j].weight = cases[i].weights[j];
        for (const char *want = cases[i].turns; *want != '\0'; want++) {
            uint32_t next = source_turn_next(turns, cases[i].count, cases[i].mask);
            assert_int_equal(*want, 'a' + next);
            source_turn_taken(turns, cases[i].count, cases[i].mask, next);
        }
    }
}

/* Goal: over whole rounds everybody has exactly its weight, whatever the weights. */
static void test_shares_are_exact(void **state)
{
    static const int64_t weights[] = {1, 2, 3, 17, 1000};
    struct source_turn turns[COUNT_OF(weights)] = {0};
    uint32_t had[COUNT_OF(weights)] = {0};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(weights); i++)
        turns[i].weight = weights[i];
    for (uint32_t i = 0; i < 1023 * 3; i++) {
        uint32_t next = source_turn_next(turns, COUNT_OF(weights), 31);
        source_turn_taken(turns, COUNT_OF(weights), 31, next);
        had[next]++;
    }
    for (uint32_t i = 0; i < COUNT_OF(weights); i++)
        assert_int_equal(3 * weights[i], had[i]);
}

/* Goal: who was busy catches up, but by no more than two rounds. */
static void test_busy_one_catches_up(void **state)
{
    struct source_turn turns[2] = {{.weight = 1}, {.weight = 1}};
    uint32_t had = 0;

    (void)state;
    for (uint32_t i = 0; i < 100; i++)
        source_turn_taken(turns, 2, 3, 1); /* `a` could have had it, and was busy */
    for (uint32_t i = 0; i < 20; i++) {
        uint32_t next = source_turn_next(turns, 2, 3);
        source_turn_taken(turns, 2, 3, next);
        had += next == 0;
    }
    assert_in_range(had, 12, 14);
}

/* Goal: first turns at new sites go round the pool by weight. */
static void test_first_turns(void **state)
{
    struct source_set *sources = source_set_new(&settings);
    uint32_t had[2] = {0};

    (void)state;
    for (uint32_t i = 0; i < 40; i++)
        had[source_first_turn(sources, &pools[0])]++;
    assert_int_equal(30, had[0]);
    assert_int_equal(10, had[1]);
    source_set_free(sources);
}

/* ---- rests ---- */

/* Goal: a suspension holds for its source alone, until its time or its end, whatever the case of
 * the name. */
static void test_suspension(void **state)
{
    struct source_set *sources = source_set_new(&settings);

    (void)state;
    assert_true(source_deadline(sources) == TICK_NEVER);
    assert_false(source_suspend(sources, SPAN_LITERAL("d"), 1000, "because"));
    assert_true(source_suspend(sources, SPAN_LITERAL("B"), 1000, "because"));
    assert_int_equal(SOURCE_USE_NO, source_may_use(sources, 1, 999));
    assert_int_equal(SOURCE_USE_YES, source_may_use(sources, 1, 1000));
    assert_int_equal(SOURCE_USE_YES, source_may_use(sources, 0, 999));
    struct source_view view = source_get_view(sources, 1, 999);
    assert_true(view.is_suspended && !view.is_broken && view.until == 1000);
    assert_string_equal("because", view.reason);
    assert_false(source_get_view(sources, 1, 1000).is_suspended);
    assert_false(source_advance(sources, 999));
    assert_true(source_advance(sources, 1000));
    assert_true(source_deadline(sources) == TICK_NEVER);
    assert_true(source_suspend(sources, SPAN_LITERAL("b"), 5000, "again"));
    assert_true(source_resume(sources, SPAN_LITERAL("b"), 2000));
    assert_int_equal(SOURCE_USE_YES, source_may_use(sources, 1, 2000));
    assert_true(source_advance(sources, 2000)); /* who waits is woken */
    assert_false(source_resume(sources, SPAN_LITERAL("d"), 2000));
    source_set_free(sources);
}

/* Goal: a broken source rests for a minute, then twice as long, up to an hour; a connection ends
 * the doubling, and attempts begun before a rest do not lengthen it. */
static void test_broken_source(void **state)
{
    static const uint32_t minutes[] = {1, 2, 4, 8, 16, 32, 60, 60};
    struct source_set *sources = source_set_new(&settings);
    tick_us now = TICK_S(1);

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(minutes); i++) {
        tick_us end = now + TICK_S(60 * minutes[i]);
        assert_int_equal(SOURCE_CHANGE_RESTS, source_on_broken(sources, 2, FLOW_FAMILY_IP4, now));
        assert_int_equal(SOURCE_CHANGE_NONE,
                         source_on_broken(sources, 2, FLOW_FAMILY_IP4, now + 1));
        assert_int_equal(end, source_deadline(sources));
        assert_int_equal(SOURCE_USE_NO, source_may_use(sources, 2, end - 1));
        assert_int_equal(SOURCE_USE_YES, source_may_use(sources, 1, end - 1));
        assert_true(source_advance(sources, end));
        assert_int_equal(SOURCE_USE_YES, source_may_use(sources, 2, end));
        now = end;
    }
    assert_int_equal(
        SOURCE_CHANGE_WELL,
        source_on_connected(sources, &(struct source_attempt){.number = 2, .label = "", .now = now},
                            FLOW_FAMILY_IP4));
    assert_int_equal(SOURCE_CHANGE_RESTS, source_on_broken(sources, 2, FLOW_FAMILY_IP4, now));
    assert_true(source_advance(sources, now)); /* who waits was to look when it was well again */
    assert_int_equal(now + TICK_S(60), source_deadline(sources));
    source_set_free(sources);
}

/* Goal: what is known goes with the name when a reload gives other numbers, and is forgotten with
 * a name that is gone. */
static void test_reload(void **state)
{
    static const struct settings_source next_names[] = {
        {.name = "c", .ip4 = {.family = FLOW_FAMILY_IP4}}, {.name = "a"}};
    static const struct settings_pool next_pools[] = {{"p", members, 1}};
    static const struct settings next = {
        .sources = next_names, .source_count = 2, .pools = next_pools, .pool_count = 1};
    struct source_set *sources = source_set_new(&settings);

    (void)state;
    assert_int_equal(SOURCE_CHANGE_RESTS, source_on_broken(sources, 2, FLOW_FAMILY_IP4, TICK_S(1)));
    assert_true(source_suspend(sources, SPAN_LITERAL("a"), TICK_S(30), "because"));
    assert_true(source_suspend(sources, SPAN_LITERAL("b"), TICK_S(30), "because"));
    source_set_settings(sources, &next);
    assert_int_equal(2, source_count(sources));
    assert_int_equal(SOURCE_USE_NO, source_may_use(sources, 0, TICK_S(10)));
    assert_int_equal(SOURCE_USE_NO, source_may_use(sources, 1, TICK_S(10)));
    assert_true(source_advance(sources, TICK_S(62)));
    assert_int_equal(SOURCE_USE_YES, source_may_use(sources, 0, TICK_S(62)));
    source_set_free(sources);
}

/* Goal: each day of a warm-up begins at its midnight, not a microsecond before. */
static void test_warm_up(void **state)
{
    static const uint32_t schedule[] = {50, 100};
    const wall_us start = 20000 * SETTINGS_DAY;
    struct settings_source source = {
        .name = "a", .warmup = {.schedule = schedule, .day_count = 2, .start = start}};
    const struct settings warming = {.sources = &source, .source_count = 1};

    (void)state;
    assert_int_equal(0, settings_warmup_limit(&source, start - 1));
    assert_int_equal(50, settings_warmup_limit(&source, start));
    assert_int_equal(50, settings_warmup_limit(&source, start + SETTINGS_DAY - 1));
    assert_int_equal(100, settings_warmup_limit(&source, start + SETTINGS_DAY));
    assert_int_equal(100, settings_warmup_limit(&source, start + 2 * SETTINGS_DAY - 1));
    assert_int_equal(SETTINGS_WARM, settings_warmup_limit(&source, start + 2 * SETTINGS_DAY));
    assert_true(settings_warmup_next(&warming, start - 1) == start);
    assert_true(settings_warmup_next(&warming, start) == start + SETTINGS_DAY);
    assert_true(settings_warmup_next(&warming, start + 2 * SETTINGS_DAY - 1) ==
                start + 2 * SETTINGS_DAY);
    assert_true(settings_warmup_next(&warming, start + 2 * SETTINGS_DAY) == INT64_MAX);
    source.warmup.day_count = 0;
    assert_int_equal(SETTINGS_WARM, settings_warmup_limit(&source, start - 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_shares_are_exact),
        cmocka_unit_test(test_busy_one_catches_up),
        cmocka_unit_test(test_first_turns),
        cmocka_unit_test(test_suspension),
        cmocka_unit_test(test_warm_up),
        cmocka_unit_test(test_broken_source),
        cmocka_unit_test(test_reload),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

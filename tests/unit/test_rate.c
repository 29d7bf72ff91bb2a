/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rates: what operators may write, and the limiter against a list of all events: never one more
 * than n in any window, and hardly fewer where there is mail enough.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "queue/rate.h"

#define WEEK TICK_S(604800)

/* ---- what is written ---- */

static void rates_are_read(void **state)
{
    static const struct {
        const char *text, *shown; /* shown NULL: refused */
    } cases[] = {
        {"100/10m", "100/10m"},
        {"1,000/hr", "1000/1h"},
        {"1_000/h", "1000/1h"},
        {"50/s,max_burst=5", "5/100ms, 50/1s"},
        {"50/s, 1000/1m, 20000/1h", "50/1s, 1000/1m, 20000/1h"},
        {"20000/1h,50/s", "50/1s, 20000/1h"},
        {"50/s,1,000/hr", "50/1s, 1000/1h"},
        {"local:10/s", "10/1s"},
        {" 5 / 20 minutes ", "5/20m"},
        {"7/hrs", "7/1h"},
        {"1/sec", "1/1s"},
        {"1/90s", "1/90s"},
        {"1/24h", "1/1d"},
        {"1/w", "1/7d"},
        {"1/31d", "1/31d"},
        {"1/32d", NULL},
        {"1,000,000,000/d", "1000000000/1d"},
        {"1000000001/d", NULL},
        {"100/1m, 50/60s", "50/1m"}, /* the smaller one counts */
        {"50/s,max_burst=50", "50/1s"},
        {"1/s,1/2s,1/3s,1/4s,1/5s,1/6s,1/7s,1/8s",
         "1/1s, 1/2s, 1/3s, 1/4s, 1/5s, 1/6s, 1/7s, 1/8s"},
        {"1/s,1/2s,1/3s,1/4s,1/5s,1/6s,1/7s,1/8s,1/9s", NULL},
        {"1000/s,max_burst=1", "1/1ms, 1000/1s"},
        {"1001/s,max_burst=1", NULL}, /* too fine to tell */
        {"50/s,max_burst=0", NULL},
        {"0/s", NULL},
        {"1/0s", NULL},
        {"100/10", NULL},
        {"100", NULL},
        {"/s", NULL},
        {"", NULL},
        {"5/s,", NULL},
        {",5/s", NULL},
        {"5/s 6/m", NULL},
        {"1,00/h", NULL},
        {"1,0000/h", NULL},
        {"1000,000/h", NULL},
        {"1__0/s", NULL},
        {"_1/s", NULL},
        {"1_/s", NULL},
        {"-5/s", NULL},
        {"5.5/s", NULL},
        {"5/S", NULL},
        {"5/fortnight", NULL},
        {"5/ms", NULL},
        {"max_burst=5", NULL},
    };
    char text[RATE_TEXT_SIZE];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct rate_set set = {.count = 77};
        enum err err = rate_set_parse(span_from_text(cases[i].text), &set);
        print_message("# case: %s\n", cases[i].text);
        assert_int_equal(cases[i].shown == NULL ? ERR_PEER_SYNTAX : ERR_OK, err);
        if (cases[i].shown == NULL)
            assert_int_equal(77, set.count);
        else
            assert_string_equal(cases[i].shown, rate_set_format(&set, text));
    }
}

static void counts_are_read(void **state)
{
    static const struct {
        const char *text;
        uint32_t count; /* 0: refused */
    } cases[] = {{"10", 10},
                 {"local:10", 10},
                 {"1,000", 1000},
                 {"1_000", 1000},
                 {"0", 0},
                 {"", 0},
                 {"local:", 0},
                 {"10/s", 0},
                 {"1,00", 0},
                 {" 10", 0},
                 {"1000000000", 1000000000},
                 {"1000000001", 0}};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        uint32_t count = 0;
        print_message("# case: %s\n", cases[i].text);
        assert_int_equal(cases[i].count == 0 ? ERR_PEER_SYNTAX : ERR_OK,
                         rate_count_parse(span_from_text(cases[i].text), &count));
        assert_int_equal(cases[i].count, count);
    }
}

/* ---- the limiter ---- */

static struct rate_set rates_of(const char *text)
{
    struct rate_set set;

    assert_int_equal(ERR_OK, rate_set_parse(span_from_text(text), &set));
    return set;
}

struct history { /* all events, in order */
    tick_us *times;
    uint32_t count, capacity;
};

static void history_add(struct history *history, tick_us time)
{
    if (history->count == history->capacity) {
        history->capacity = history->capacity == 0 ? 1024 : 2 * history->capacity;
        history->times = realloc(history->times, history->capacity * sizeof(*history->times));
        assert_non_null(history->times);
    }
    history->times[history->count++] = time;
}

/* The most events that any closed window of this length holds. */
static uint32_t history_peak(const struct history *history, tick_us window)
{
    uint32_t first = 0, peak = 0;

    for (uint32_t i = 0; i < history->count; i++) {
        while (history->times[i] - history->times[first] > window)
            first++;
        peak = i - first + 1 > peak ? i - first + 1 : peak;
    }
    return peak;
}

/* Events that are still in the way at `now`. */
static uint32_t history_recent(const struct history *history, tick_us window, tick_us now)
{
    uint32_t count = 0;

    while (count < history->count && now - history->times[history->count - 1 - count] <= window)
        count++;
    return count;
}

static void place_is_free_behind_the_window(void **state)
{
    struct rate_limiter limiter = {0};
    struct rate_set set = rates_of("2/10s");
    tick_us start = TICK_S(50);

    (void)state;
    assert_int_equal(UINT32_MAX, rate_limiter_room(&limiter, start)); /* no rate, no limit */
    assert_null(rate_limiter_binding(&limiter, start));
    rate_limiter_set(&limiter, &set, start);
    assert_int_equal(2, rate_limiter_room(&limiter, start));
    rate_limiter_add(&limiter, start, 1);
    rate_limiter_add(&limiter, start + TICK_S(4), 1);
    assert_int_equal(0, rate_limiter_room(&limiter, start + TICK_S(10)));
    assert_int_equal(1, rate_limiter_room(&limiter, start + TICK_S(10) + 1));
    assert_int_equal(1, rate_limiter_room(&limiter, start + TICK_S(14)));
    assert_int_equal(2, rate_limiter_room(&limiter, start + TICK_S(14) + 1));
    rate_limiter_verify(&limiter);
    rate_limiter_fini(&limiter);
}

static void next_says_when(void **state)
{
    struct rate_limiter limiter = {0};
    struct rate_set set = rates_of("2/10s, 3/60s");
    tick_us start = TICK_S(50);

    (void)state;
    rate_limiter_set(&limiter, &set, start);
    assert_int_equal(start, rate_limiter_next(&limiter, 0, start));
    assert_int_equal(start, rate_limiter_next(&limiter, 1, start));
    assert_true(rate_limiter_next(&limiter, 2, start) == TICK_NEVER); /* both are out already */
    rate_limiter_add(&limiter, start, 1);
    rate_limiter_add(&limiter, start + 5, 1);
    assert_int_equal(start + TICK_S(10) + 1, rate_limiter_next(&limiter, 0, start + 5));
    /* One is out: then it is the longer window that has no place for another. */
    assert_int_equal(start + TICK_S(60) + 1, rate_limiter_next(&limiter, 1, start + 5));
    rate_limiter_add(&limiter, start + TICK_S(11), 1);
    assert_int_equal(60,
                     rate_limiter_binding(&limiter, start + TICK_S(11))->rate.window / TICK_S(1));
    assert_int_equal(start + TICK_S(60) + 1, rate_limiter_next(&limiter, 0, start + TICK_S(11)));
    struct rate_use uses[RATE_MAX];
    assert_int_equal(2, rate_limiter_uses(&limiter, 0, start + TICK_S(11), uses));
    assert_int_equal(1, uses[0].used);
    assert_int_equal(start + TICK_S(11), uses[0].next);
    assert_int_equal(3, uses[1].used);
    assert_int_equal(start + TICK_S(60) + 1, uses[1].next);
    rate_limiter_fini(&limiter);
}

/* Goal: against the list of all events, at random times and in random portions. */
static void limiter_agrees_with_the_list(void **state)
{
    static const char *const rates[] = {"1/10s",  "7/3s",     "64/10s",
                                        "65/10s", "1000/10s", "100000/1m"};

    (void)state;
    for (uint32_t r = 0; r < COUNT_OF(rates); r++) {
        struct rate_limiter limiter = {0};
        struct rate_set set = rates_of(rates[r]);
        struct history history = {0};
        struct rng rng;
        tick_us now = TICK_S(1000);
        print_message("# case: %s\n", rates[r]);
        rng_init_seed(&rng, 7 + r);
        rate_limiter_set(&limiter, &set, now);
        for (uint32_t i = 0; i < 3000; i++) {
            uint32_t scale = 1u << rng_below(&rng, 23);
            now += rng_below(&rng, scale);
            uint32_t recent = history_recent(&history, set.rates[0].window, now);
            uint32_t room = rate_limiter_room(&limiter, now);
            assert_true(recent + room <= set.rates[0].count);
            if (set.rates[0].count <= 64)
                assert_int_equal(set.rates[0].count - recent, room); /* not late at all */
            uint32_t portion = rng_below(&rng, set.rates[0].count / 8 + 2);
            portion = portion < room ? portion : room;
            rate_limiter_add(&limiter, now, portion);
            for (uint32_t j = 0; j < portion; j++)
                history_add(&history, now);
            rate_limiter_verify(&limiter);
            tick_us next = rate_limiter_next(&limiter, 0, now);
            assert_true(next > now || rate_limiter_room(&limiter, now) > 0);
        }
        assert_true(history_peak(&history, set.rates[0].window) <= set.rates[0].count);
        rate_limiter_fini(&limiter);
        free(history.times);
    }
}

/*
 * Goal: a week of traffic in virtual time, by day as fast as four windows let it, by night a
 * trickle. No window of any of the four lengths holds more than its number, and what the narrowest
 * allows is used to 95 %.
 */
static void week_of_traffic(void **state)
{
    struct rate_limiter limiter = {0};
    struct rate_set set = rates_of("50/s, 1000/1m, 20000/1h, 120000/1d");
    struct history history = {0};
    struct rng rng;
    tick_us now = 0;

    (void)state;
    rng_init_seed(&rng, 4711);
    rate_limiter_set(&limiter, &set, now);
    while (now < WEEK) {
        bool is_night = now / TICK_S(3600) % 24 < 6;
        uint32_t room = rate_limiter_room(&limiter, now);
        if (room == 0) {
            now = rate_limiter_next(&limiter, 0, now);
            continue;
        }
        uint32_t portion = is_night ? 1 : 1 + rng_below(&rng, room);
        rate_limiter_add(&limiter, now, portion);
        for (uint32_t i = 0; i < portion; i++)
            history_add(&history, now);
        now += is_night ? TICK_S(5) + rng_below(&rng, 10000000) : rng_below(&rng, 200000);
    }
    rate_limiter_verify(&limiter);
    for (uint32_t i = 0; i < set.count; i++)
        assert_true(history_peak(&history, set.rates[i].window) <= set.rates[i].count);
    assert_in_range(history.count, 7 * 120000 / 100 * 95, 7 * 120000);
    assert_int_equal(50, history_peak(&history, TICK_S(1))); /* the limits were reached */
    assert_true(history_peak(&history, TICK_S(86400)) > 119000);
    rate_limiter_fini(&limiter);
    free(history.times);
}

/* Goal: an even flow, the worst case for cells that hold many events, loses 2 % at most. */
static void even_flow_loses_little(void **state)
{
    struct rate_limiter limiter = {0};
    struct rate_set set = rates_of("20000/1h");
    uint32_t sent = 0;

    (void)state;
    rate_limiter_set(&limiter, &set, 0);
    for (tick_us now = 0; now < TICK_S(86400); now += TICK_S(3600) / 20000) {
        if (rate_limiter_room(&limiter, now) > 0) {
            rate_limiter_add(&limiter, now, 1);
            sent++;
        }
    }
    assert_in_range(sent, 24 * 20000 / 100 * 98, 24 * 20000);
    rate_limiter_fini(&limiter);
}

static void new_rates_keep_what_was_counted(void **state)
{
    static const struct {
        const char *name, *before, *after;
        uint32_t events, room;
    } cases[] = {
        {"the same", "10/1m", "10/1m", 6, 4},
        {"raised", "10/1m", "20/1m", 6, 14},
        {"lowered", "10/1m", "8/1m", 6, 2},
        {"lowered below what happened", "10/1m", "4/1m", 6, 0},
        {"a longer window", "10/1m", "10/1h", 6, 4},
        {"a shorter window", "10/1m", "10/30s", 6, 4},
        {"one more window", "10/1m", "10/1m, 8/1h", 6, 2},
        {"cells of other size", "10/1m", "1000/1m", 6, 994},
        {"cells of other size, lowered", "1000/1m", "10/1m", 6, 4},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct rate_limiter limiter = {0};
        struct rate_set before = rates_of(cases[i].before), after = rates_of(cases[i].after);
        print_message("# case: %s\n", cases[i].name);
        rate_limiter_set(&limiter, &before, TICK_S(10));
        for (uint32_t j = 0; j < cases[i].events; j++)
            rate_limiter_add(&limiter, TICK_S(10) + j, 1);
        rate_limiter_set(&limiter, &after, TICK_S(20));
        rate_limiter_verify(&limiter);
        assert_int_equal(cases[i].room, rate_limiter_room(&limiter, TICK_S(20)));
        assert_true(rate_limiter_next(&limiter, 0, TICK_S(20)) != TICK_NEVER);
        rate_limiter_fini(&limiter);
    }
}

/* Goal: windows of an earlier life begin empty, each for itself, in whatever order they come. */
static void remembered_windows_are_apart(void **state)
{
    static const tick_us lengths[] = {TICK_S(3600), TICK_S(86400), TICK_S(600), TICK_S(3600)};
    struct rate_limiter limiter = {0};
    struct rate_use uses[RATE_MAX];
    tick_us now = TICK_S(100000);
    (void)state;

    for (uint32_t i = 0; i < COUNT_OF(lengths); i++) {
        rate_limiter_remember(&limiter, lengths[i]);
        rate_limiter_restore(&limiter, lengths[i], now, now, 10 + i, now);
        rate_limiter_verify(&limiter);
    }
    assert_int_equal(3, rate_limiter_uses(&limiter, 0, now, uses));
    assert_int_equal(12, uses[0].used);
    assert_int_equal(10 + 13, uses[1].used);
    assert_int_equal(11, uses[2].used);
    for (uint32_t i = 0; i < 2 * RATE_MAX; i++)
        rate_limiter_remember(&limiter, TICK_S(100000 + i));
    assert_int_equal(RATE_MAX, limiter.count);
    rate_limiter_verify(&limiter);
    rate_limiter_fini(&limiter);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates_are_read),
        cmocka_unit_test(counts_are_read),
        cmocka_unit_test(place_is_free_behind_the_window),
        cmocka_unit_test(next_says_when),
        cmocka_unit_test(limiter_agrees_with_the_list),
        cmocka_unit_test(week_of_traffic),
        cmocka_unit_test(even_flow_loses_little),
        cmocka_unit_test(new_rates_keep_what_was_counted),
        cmocka_unit_test(remembered_windows_are_apart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The chart of angarium-load: runs of any length and any figures stay inside the picture. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bench/load/load.h"

enum shape { NOTHING, ONE, RISING, STALLED, EXTREME };

static void sample_fill(struct meter *meter, enum shape shape, uint32_t second)
{
    uint64_t latency = shape == EXTREME ? (second % 2 == 0 ? HISTOGRAM_VALUE_MAX : 0)
                       : shape == ONE   ? 1
                                        : 100 + second;
    uint64_t messages = shape == RISING    ? second
                        : shape == STALLED ? 0
                        : shape == ONE     ? 1
                                           : second % 3 * 1000000000ull;

    meter_count(meter, METER_MESSAGES, messages);
    if (shape != STALLED && shape != NOTHING)
        meter_latency(meter, meter->charted, latency);
}

static struct meter *meter_make(const char *what, enum shape shape, uint32_t seconds)
{
    struct meter *meter =
        meter_new(what, what[1] == 'o' ? METER_MESSAGE : METER_END_TO_END, TICK_S(100));

    for (uint32_t i = 1; i <= seconds; i++) {
        sample_fill(meter, shape, i);
        assert_non_null(meter_tick(meter, TICK_S(100 + i)));
        assert_null(meter_tick(meter, TICK_S(100 + i) + 1));
    }
    return meter;
}

/* Every pair of numbers in every line is inside the picture; returns how many pairs there are. */
static uint32_t check_points(const char *text)
{
    uint32_t count = 0;

    for (const char *line = strstr(text, " points=\""); line != NULL;
         line = strstr(line, " points=\"")) {
        line += 9;
        while (*line != '"') {
            char *end;
            double x = strtod(line, &end);
            assert_int_equal(',', *end);
            double y = strtod(end + 1, &end);
            assert_int_equal(' ', *end);
            assert_true(x >= 0 && x <= 960 && y >= 0 && y <= 600);
            line = end + 1;
            count++;
        }
    }
    return count;
}

static char *chart(const struct meter *source, const struct meter *sink)
{
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);

    assert_non_null(file);
    load_chart(file, "a <title> & more\x01", source, sink);
    assert_int_equal(0, fclose(file));
    return text;
}

static void charts_stay_inside(void **state)
{
    static const struct {
        const char *name;
        enum shape shape;
        uint32_t seconds, points; /* of source and sink together */
    } cases[] = {
        {"no second", NOTHING, 0, 0},
        {"one second", ONE, 1, 5 * 2},
        {"nothing happened", STALLED, 10, 2 * 11},
        {"a minute", RISING, 60, 5 * 61},
        {"900 seconds: a point each", RISING, 900, 5 * 901},
        {"901: groups of two", RISING, 901, 5 * 452},
        {"half a day", RISING, 43200, 5 * 901},
        {"extremes", EXTREME, 50, 2 * 51 + 3 * 25},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct meter *source = meter_make("source", cases[i].shape, cases[i].seconds);
        struct meter *sink = meter_make("sink", cases[i].shape, cases[i].seconds);
        char *text = chart(source, sink);
        print_message("# case: %s\n", cases[i].name);
        assert_int_equal(cases[i].points, check_points(text));
        assert_non_null(strstr(text, "a &lt;title&gt; &amp; more?"));
        assert_null(strstr(text, "nan"));
        assert_null(strstr(text, "inf"));
        free(text);
        text = chart(NULL, sink);
        (void)check_points(text);
        free(text);
        meter_free(source);
        meter_free(sink);
    }
}

/* A stalled program prints one line for the gap, not one for each second of it. */
static void a_stall_is_one_sample(void **state)
{
    struct meter *meter = meter_new("sink", METER_END_TO_END, TICK_S(100));

    (void)state;
    assert_null(meter_tick(meter, TICK_S(101) - 1));
    const struct meter_sample *sample = meter_tick(meter, TICK_S(105) + 7);
    assert_non_null(sample);
    assert_true(sample->seconds > 5 && sample->seconds < 5.1);
    assert_null(meter_tick(meter, TICK_S(106)));
    assert_non_null(meter_tick(meter, TICK_S(106) + 7));
    meter_free(meter);
}

static void times_are_short(void **state)
{
    static const struct {
        uint64_t time;
        const char *text;
    } cases[] = {
        {0, "0 us"},          {999, "999 us"},       {1000, "1.00 ms"},   {99999, "100.00 ms"},
        {100000, "100.0 ms"}, {999999, "1000.0 ms"}, {1000000, "1.00 s"}, {3600000000, "3600.0 s"},
    };
    char text[METER_TIME_SIZE];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        assert_string_equal(cases[i].text, meter_time(cases[i].time, text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(charts_stay_inside),
        cmocka_unit_test(a_stall_is_one_sample),
        cmocka_unit_test(times_are_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

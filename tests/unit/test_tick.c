/* SPDX-License-Identifier: Apache-2.0 */
/* The time of a turn: the wall clock is read once in TICK_WALL_AGE, and follows between. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/tick.h"

struct clocks {
    tick_us tick;
    wall_us wall;
    uint32_t wall_reads;
};

static tick_us fake_monotonic(void *context)
{
    return ((struct clocks *)context)->tick;
}

static wall_us fake_wall(void *context)
{
    struct clocks *clocks = context;

    clocks->wall_reads++;
    return clocks->wall;
}

static void test_wall_follows_and_is_read_anew(void **state)
{
    static const struct {
        const char *name;
        tick_us passes;      /* since the row before */
        wall_us wall_passes; /* more than passes: it was set meanwhile */
        uint32_t reads;      /* afterwards, all of them */
        wall_us expected;    /* since the beginning */
    } rows[] = {
        {"the first reading", 0, 0, 1, 0},
        {"at once again", 0, 0, 1, 0},
        {"the last microsecond before it is old", 999, 999, 1, 999},
        {"old: read", 1, 1, 2, 1000},
        {"set forward: not seen yet", 400, 5000400, 2, 1400},
        {"seen when it is old", 600, 600, 3, 5002000},
        {"set back: seen a millisecond later", 1000, -3000000, 4, 2002000},
        {"a long sleep", TICK_S(60), TICK_S(60), 5, 62002000},
    };
    struct clocks clocks = {.tick = TICK_S(1), .wall = 1790000000000000};
    const struct tick_source source = {fake_monotonic, fake_wall, &clocks};
    struct tick_now now = {0};
    tick_us wall_read = 0;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# row: %s\n", rows[i].name);
        clocks.tick += rows[i].passes;
        clocks.wall += rows[i].wall_passes;
        tick_now_renew(&now, &wall_read, &source);
        assert_int_equal(clocks.tick, now.tick);
        assert_int_equal(1790000000000000 + rows[i].expected, now.wall);
        assert_int_equal(rows[i].reads, clocks.wall_reads);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wall_follows_and_is_read_anew),
    };

    return cmocka_run_group_tests_name("tick", tests, NULL, NULL);
}

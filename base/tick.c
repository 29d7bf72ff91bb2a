/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shipped clocks: CLOCK_MONOTONIC for deadlines, CLOCK_REALTIME for what people read.
 * Everything else asks a struct tick_source, so that the simulator can put a variable in their
 * place.
 */
#include "base/tick.h"

#include <time.h>

#include "base/check.h"

static int64_t clock_us(clockid_t clock)
{
    struct timespec time;

    CHECK(clock_gettime(clock, &time) == 0);
    return (int64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

static tick_us tick_system_monotonic(void *context)
{
    (void)context;
    return (tick_us)clock_us(CLOCK_MONOTONIC);
}

static wall_us tick_system_wall(void *context)
{
    (void)context;
    return clock_us(CLOCK_REALTIME);
}

const struct tick_source *tick_source_system(void)
{
    static const struct tick_source source = {
        .monotonic = tick_system_monotonic,
        .wall = tick_system_wall,
    };

    return &source;
}

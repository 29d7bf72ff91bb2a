/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_TICK_H
#define BASE_TICK_H

#include <stdint.h>

/* Monotonic microseconds since an arbitrary start. Deadlines and timers know no other clock. */
typedef uint64_t tick_us;
/* Microseconds since 1970, UTC; may jump. Only for what people read or what outlives the process.
 */
typedef int64_t wall_us;

#define TICK_NEVER  UINT64_MAX
#define TICK_MS(ms) ((tick_us)(ms)*1000u)
#define TICK_S(s)   ((tick_us)(s)*1000000u)

/* The clock seam: the shipped one asks the kernel, the simulator's is a variable. */
struct tick_source {
    tick_us (*monotonic)(void *context);
    wall_us (*wall)(void *context);
    void *context;
};

/** The kernel's clocks (CLOCK_MONOTONIC, CLOCK_REALTIME). Static storage. */
const struct tick_source *tick_source_system(void);

/* What the time is in this turn of the shard: read once, handed down. */
struct tick_now {
    tick_us tick;
    wall_us wall;
};

static inline struct tick_now tick_now_read(const struct tick_source *source)
{
    return (struct tick_now){source->monotonic(source->context), source->wall(source->context)};
}

/* How old the wall clock's reading may be: a turn that finds nothing to do takes less time than
 * reading two clocks. */
#define TICK_WALL_AGE TICK_MS(1)

/** Read anew, in every turn: the wall clock once in TICK_WALL_AGE, and what has passed since is
 * added. `wall_read`: when that was, by `tick`. */
static inline void tick_now_renew(struct tick_now *now, tick_us *wall_read,
                                  const struct tick_source *source)
{
    tick_us tick = source->monotonic(source->context);

    if (tick - *wall_read < TICK_WALL_AGE) {
        now->wall += (wall_us)(tick - now->tick);
    } else {
        now->wall = source->wall(source->context);
        *wall_read = tick;
    }
    now->tick = tick;
}

#endif

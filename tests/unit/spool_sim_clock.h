/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_SPOOL_SIM_CLOCK_H
#define TESTS_UNIT_SPOOL_SIM_CLOCK_H

#include "base/tick.h"
#include "queue/spool.h"

/* The clock of a spool on the simulated disk: both of its hands, moved by who waits. */
static tick_us sim_tick = TICK_S(1);

static tick_us sim_monotonic(void *context)
{
    (void)context;
    return sim_tick;
}

static wall_us sim_wall(void *context)
{
    (void)context;
    return (wall_us)sim_tick;
}

static const struct tick_source sim_clock = {sim_monotonic, sim_wall, NULL};

/** The next event, which is of this kind; a second passes at most. */
static struct spool_event sim_wait(struct spool *spool, enum spool_event_kind kind)
{
    struct spool_event event;
    for (uint32_t i = 0; i < 10000; i++) {
        sim_tick += 100;
        if (spool_poll(spool, tick_now_read(&sim_clock), &event, 1) == 1) {
            assert_int_equal(kind, event.kind);
            return event;
        }
    }
    fail_msg("no event");
    return (struct spool_event){0};
}

#endif

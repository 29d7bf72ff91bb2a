/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_LOAD_PACE_H
#define BENCH_LOAD_PACE_H

#include "base/check.h"
#include "base/tick.h"

/* When things are meant to happen: `rate` a second, reached evenly over `ramp` from nothing. */
struct pace {
    double rate; /* > 0 */
    tick_us ramp;
};

/** How long after the start thing number `index` (from 0) is meant to be. */
tick_us pace_due(const struct pace *pace, uint64_t index);
/** How many are due by then: the lowest index whose pace_due() is later. */
uint64_t pace_count(const struct pace *pace, tick_us elapsed);

/*
 * A source whose own core was another's for a while does not pass that on as a burst: what came due
 * meanwhile is begun a fifth closer together than the rate has it, and at once only what is later
 * than PACE_LATE. `earliest` is when the next may begin (generic cell rate, with `slack` of credit
 * for turns that take a while: what the latest took, but never more than twice as much as before,
 * as one that takes far longer is a stall).
 */
#define PACE_SLACK 32u         /* microseconds: the least of it */
#define PACE_LATE  TICK_MS(10) /* no later for our own sake */

/* Nanoseconds of the ticks' clock: things may be less than a tick apart. */
struct pace_spacing {
    uint64_t earliest;
    tick_us looked, slack; /* 0: PACE_SLACK */
};

/** When what is due at `due` may begin, as far as the source is concerned. */
tick_us pace_spacing_begins(const struct pace_spacing *spacing, tick_us due);
/** Something begins now. */
void pace_spacing_note(struct pace_spacing *spacing, const struct pace *pace, tick_us now);
/** A turn ends that began now: all that may begin in it has. */
void pace_spacing_look(struct pace_spacing *spacing, tick_us now);

#endif

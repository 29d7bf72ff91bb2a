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

#endif

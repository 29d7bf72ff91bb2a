/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The timetable of an open loop. It depends on the start and on the index alone and never on what
 * the peer does: that is what makes the latencies measured from it honest.
 *
 * During the ramp the rate at t is rate * t / ramp, so rate * t^2 / (2 * ramp) things are due, and
 * thing k is at sqrt(2 * ramp * k / rate). After it, k things take k / rate + ramp / 2.
 */
#include "bench/load/pace.h"

#include <math.h>

tick_us pace_due(const struct pace *pace, uint64_t index)
{
    CHECK(pace->rate > 0);
    double ramp = (double)pace->ramp / 1e6, k = (double)index;
    double in_ramp = pace->rate * ramp / 2;
    double at = k < in_ramp ? sqrt(2 * ramp * k / pace->rate) : k / pace->rate + ramp / 2;

    return (tick_us)(at * 1e6);
}

uint64_t pace_count(const struct pace *pace, tick_us elapsed)
{
    CHECK(pace->rate > 0);
    double at = (double)elapsed / 1e6, ramp = (double)pace->ramp / 1e6;
    double due = at < ramp ? pace->rate * at * at / (2 * ramp) : pace->rate * (at - ramp / 2);
    uint64_t count = due < 1 ? 0 : (uint64_t)due - 1;

    /* Both are rounded: settle it by the timetable itself. */
    while (pace_due(pace, count) <= elapsed)
        count++;
    return count;
}

tick_us pace_spacing_begins(const struct pace_spacing *spacing, tick_us due)
{
    tick_us begins = spacing->earliest / 1000, latest = due + PACE_LATE;

    if (begins > latest)
        begins = latest;
    return begins > due ? begins : due;
}

void pace_spacing_note(struct pace_spacing *spacing, const struct pace *pace, tick_us now)
{
    tick_us slack = spacing->slack > PACE_SLACK ? spacing->slack : PACE_SLACK;
    uint64_t from = now > slack ? (now - slack) * 1000 : 0;

    if (spacing->earliest > from)
        from = spacing->earliest;
    spacing->earliest = from + (uint64_t)(0.8e9 / pace->rate);
}

void pace_spacing_look(struct pace_spacing *spacing, tick_us now)
{
    tick_us turn = now - spacing->looked;
    tick_us most = 2 * (spacing->slack > PACE_SLACK ? spacing->slack : PACE_SLACK);

    spacing->slack = turn < most ? turn : most;
    spacing->looked = now;
}

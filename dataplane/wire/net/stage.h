/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_NET_STAGE_H
#define DATAPLANE_WIRE_NET_STAGE_H

#include <stdint.h>

/*
 * Where the cycles go: in a build with `-Dstages=true` every stage of the turn is stamped with the
 * processor's time stamp counter, and `angarium counters` shows the sums. In others the stamps are
 * nothing. A stamp costs some 20 cycles, so the flavour is for shares, not for speed.
 */
#define STACK_STAGES_X(X)                                                                          \
    X(APPLICATION, "between poll and flush: the owner's work")                                     \
    X(RECEIVE, "the driver's receive")                                                             \
    X(INPUT, "frames parsed, connections looked up, segments processed")                           \
    X(VERIFY, "checksums of received segments")                                                    \
    X(TIMERS, "timers")                                                                            \
    X(REPORT, "events put together")                                                               \
    X(OUTPUT, "segments made")                                                                     \
    X(SUM, "checksums of sent segments")                                                           \
    X(SEND, "the driver's send")                                                                   \
    X(SETTLE, "buffers let go at the end of the turn")
enum stack_stage {
#define X(name, text) STACK_STAGE_##name,
    STACK_STAGES_X(X)
#undef X
        STACK_STAGE_COUNT
};

struct stack_stages {
    enum stack_stage now;
    uint64_t since; /* time stamp; 0: never entered */
    uint64_t cycles[STACK_STAGE_COUNT];
};

#ifdef STACK_STAGES
#include <x86intrin.h>

/* Returns the stage that was left, to come back to. */
static inline enum stack_stage stack_stages_enter(struct stack_stages *stages,
                                                  enum stack_stage next)
{
    enum stack_stage left = stages->now;
    uint64_t stamp = __rdtsc();

    if (stages->since != 0)
        stages->cycles[left] += stamp - stages->since;
    stages->since = stamp;
    stages->now = next;
    return left;
}
#else
static inline enum stack_stage stack_stages_enter(const struct stack_stages *stages,
                                                  enum stack_stage next)
{
    (void)stages;
    return next;
}
#endif

#define STACK_STAGE(stack, name)      stack_stages_enter(&(stack)->stages, STACK_STAGE_##name)
#define STACK_STAGE_BACK(stack, left) ((void)stack_stages_enter(&(stack)->stages, (left)))

#endif

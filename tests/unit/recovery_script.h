/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_RECOVERY_SCRIPT_H
#define TESTS_UNIT_RECOVERY_SCRIPT_H

#include "tests/unit/recovery_fixture.h"

/*
 * Loss recovery, told as lists of steps: what is sent, what is acknowledged and SACKed, which timer
 * fires, and what must then be marked, sent again, and allowed. Segments are numbered from 0. At
 * the begin nothing is in flight, the RTT is 100 ms, and the connection is in congestion avoidance.
 */
enum script_kind {
    SCRIPT_END,
    SCRIPT_FLAG,
    SCRIPT_SEND,
    SCRIPT_OWNER,
    SCRIPT_OUTPUT,
    SCRIPT_WAIT,
    SCRIPT_ACK,
    SCRIPT_ECE,
    SCRIPT_ECHO,
    SCRIPT_WINDOW,
    SCRIPT_RTO,
    SCRIPT_REORDER,
    SCRIPT_PROBE,
    SCRIPT_IS_MARKED, /* this and what follows are expectations */
    SCRIPT_HAS_RESENT,
    SCRIPT_HAS_SENT,
    SCRIPT_CWND,
    SCRIPT_SSTHRESH,
    SCRIPT_RTO_IN,
    SCRIPT_NO_TIMER,
    SCRIPT_HAS_FLAG,
    SCRIPT_HAS_NOT_FLAG,
};

struct script_step {
    enum script_kind kind;
    uint32_t value;
    uint32_t blocks[4][2]; /* ends at the first that is empty */
    const char *text;
};

#define STEP(kind, value)                                                                          \
    {                                                                                              \
        SCRIPT_##kind, value, {{0}}, NULL                                                          \
    }
#define FLAG(flags)     STEP(FLAG, flags)     /* the other way round */
#define SEND(segments)  STEP(SEND, segments)  /* whatever the window says */
#define OWNER(segments) STEP(OWNER, segments) /* gives so much more to send */
#define OUTPUT          STEP(OUTPUT, 0)       /* what may go, goes */
#define WAIT(ms)        STEP(WAIT, ms)
#define ACK(segment)    STEP(ACK, segment) /* all before it */
#define SACK(segment, ...)                                                                         \
    {                                                                                              \
        SCRIPT_ACK, segment, {__VA_ARGS__}, NULL                                                   \
    }
#define ECE(segment)     STEP(ECE, segment) /* ACK, with ECE */
#define ECHO(ms)         STEP(ECHO, ms)     /* next ACKs carry our timestamp of so many ms ago */
#define WINDOW(segments) STEP(WINDOW, segments) /* next ACKs offer this */
#define RTO              STEP(RTO, 0)           /* the time it takes passes, and it fires */
#define REORDER(us)      STEP(REORDER, us)      /* the same, and it has to be so long from now */
#define PROBE(us)        STEP(PROBE, us)
/* In flight, a letter each: '.' sent, S acked, L ost, R etransmitted, l ost again. */
#define IS_MARKED(flags)                                                                           \
    {                                                                                              \
        SCRIPT_IS_MARKED, 0, {{0}}, flags                                                          \
    }
#define HAS_RESENT(segments) /* by the last OUTPUT or PROBE: "3 5" */                              \
    {                                                                                              \
        SCRIPT_HAS_RESENT, 0, {{0}}, segments                                                      \
    }
#define HAS_SENT(segments) STEP(HAS_SENT, segments) /* new ones */
#define CWND(segments)     STEP(CWND, segments)
#define SSTHRESH(segments) STEP(SSTHRESH, segments)
#define RTO_IN(us)         STEP(RTO_IN, us)
#define NO_RTO             STEP(NO_TIMER, 0)
#define NO_PROBE           STEP(NO_TIMER, 1)
#define HAS_FLAG(flags)    STEP(HAS_FLAG, flags)
#define HAS_NOT(flags)     STEP(HAS_NOT_FLAG, flags)

struct script {
    const char *name;
    uint32_t cwnd; /* segments */
    bool is_newreno;
    struct script_step steps[64];
};

void script_run(const struct script *script);
void script_run_all(const struct script *scripts, size_t count);

#endif

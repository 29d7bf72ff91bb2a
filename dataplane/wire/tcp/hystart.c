/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HyStart++, RFC 9406: the first slow start ends when the queue at the bottleneck begins to fill
 * and not when it overflows. Without it a flow doubles once too often and loses half a window,
 * thousands of segments on a long path, and makes others lose as many.
 *
 *   Phase                Entered                               Per round trip
 *   slow start                                                 window doubles
 *   conservative         RTT of this round above the last      window grows by a quarter
 *   (rounds > 0)         one's by an eighth (4 to 16 ms)
 *   congestion avoidance HYSTART_ROUNDS conservative rounds
 *
 * A lower RTT while conservative shows that the rise was chance: back to slow start.
 *
 * Only while ssthresh is still TCP_CWND_MAX: later slow starts know where to end. The state lives
 * where CUBIC's will be, which begins when this ends.
 */
#include "dataplane/wire/tcp/scoreboard.h"

#define HYSTART_SAMPLES     8u
#define HYSTART_ROUNDS      5u
#define HYSTART_DIVISOR     4u
#define HYSTART_RISE_MIN_US 4000u
#define HYSTART_RISE_MAX_US 16000u

static void round_begin(struct tcb *tcb)
{
    struct tcp_hystart *hystart = &tcb->congestion.hystart;

    hystart->round_end = tcb->snd_nxt;
    hystart->last_minimum = hystart->minimum;
    hystart->minimum = UINT32_MAX;
    hystart->samples = 0;
}

void tcp_hystart_begin(struct tcb *tcb)
{
    tcb->congestion.hystart = (struct tcp_hystart){.minimum = UINT32_MAX, .baseline = UINT32_MAX};
    round_begin(tcb);
}

static void phase_choose(struct tcp_hystart *hystart)
{
    uint32_t rise = hystart->last_minimum / 8;

    if (hystart->samples < HYSTART_SAMPLES || hystart->last_minimum == UINT32_MAX)
        return;
    if (hystart->rounds > 0) {
        if (hystart->minimum < hystart->baseline)
            hystart->rounds = 0;
        return;
    }
    rise = rise < HYSTART_RISE_MIN_US ? HYSTART_RISE_MIN_US : rise;
    rise = rise > HYSTART_RISE_MAX_US ? HYSTART_RISE_MAX_US : rise;
    if (hystart->minimum < hystart->last_minimum + rise)
        return;
    hystart->baseline = hystart->minimum;
    hystart->rounds = 1;
}

uint32_t tcp_hystart_growth(struct tcb *tcb, uint32_t growth, uint32_t rtt_us)
{
    struct tcp_hystart *hystart = &tcb->congestion.hystart;

    if (rtt_us > 0) {
        hystart->minimum = rtt_us < hystart->minimum ? rtt_us : hystart->minimum;
        if (hystart->samples < HYSTART_SAMPLES)
            hystart->samples++;
        phase_choose(hystart);
    }
    if (seq_ge(tcb->snd_una, hystart->round_end)) {
        if (hystart->rounds > 0 && hystart->rounds++ == HYSTART_ROUNDS)
            return 0;
        round_begin(tcb);
    }
    return hystart->rounds > 0 ? growth / HYSTART_DIVISOR : growth;
}

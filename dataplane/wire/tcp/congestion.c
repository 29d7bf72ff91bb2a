/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The congestion window: RFC 5681 with the initial window of RFC 6928 and byte counting of RFC
 * 3465; congestion avoidance is CUBIC (cubic.c) or NewReno (newreno.c). All in octets.
 *
 *   slow start            cwnd < ssthresh: grows by what was acknowledged, at most SLOW_START_BURST
 *                         segments per ACK, one after an RTO; the first one with an eye on the
 *                         RTT (hystart.c)
 *   congestion avoidance  tcp_cubic_acked() or tcp_newreno_acked()
 *   recovery              cwnd is PRR's (prr.c); here only ssthresh is set, once per episode
 *
 * The window grows only on ACKs for data that was sent when the window was in the way: such a
 * flight ends at `limited_end`. In slow start a flight of half the window counts, because the ACKs
 * of the next round trip double what was used. A connection that sends little keeps its window and
 * its right to it is not inflated by ACKs that prove nothing (RFC 9438 section 5.8, RFC 7661).
 *
 * Invariants
 *   1. cwnd >= one mss, ssthresh >= 2 mss (as mss was when they were set), cwnd <= TCP_CWND_MAX.
 *   2. cwnd_prior, the scoreboard's ssthresh_prior and w_max_prior are the values before the last
 *      reduction: an undo restores them.
 *
 * Limits: stretch ACKs beyond SLOW_START_BURST segments are counted as that many.
 */
#include "dataplane/wire/tcp/scoreboard.h"

/* RFC 3465 says 2, for receivers that acknowledge every other segment. Those with receive offload
 * acknowledge up to 44 at once and slow start would be linear; RFC 9406 section 4.2 has 8 for
 * senders without pacing, a burst below that of the initial window. */
#define SLOW_START_BURST 8u

static uint32_t initial_window(const struct stack *stack, const struct tcb *tcb)
{
    uint32_t count = stack->options.tcp.initial_window, mss = tcb->mss;
    uint32_t octets = count * 1460u;

    /* RFC 5681 3.1 asks for one segment after a lost SYN; like everybody with a first RTO of a
     * second, not before the second loss: one in so short a time may be no loss at all. */
    if (tcb->syn_count > 2)
        return mss;
    /* RFC 6928 section 2: min(10 mss, max(2 mss, 14600)). */
    if (octets < 2 * mss)
        octets = 2 * mss;
    return octets < count * mss ? octets : count * mss;
}

void tcp_congestion_init(struct stack *stack, struct tcb *tcb)
{
    CHECK(tcb->mss > 0 && stack->options.tcp.initial_window > 0);
    /* A SYN that was sent again left one. */
    if (tcb->sent.count == 0)
        tcp_recovery_free(tcb);

    /* No ssthresh from earlier connections: on a path that lost by chance once, it would keep
     * every later one out of slow start. */
    tcb->congestion = (struct tcp_congestion){
        .cwnd = initial_window(stack, tcb),
        .ssthresh = TCP_CWND_MAX,
        .limited_end = tcb->snd_una,
    };
    /* RFC 6582 section 4.1, step 1. */
    tcb->recover = tcb->snd_una - 1;
    tcp_hystart_begin(tcb);
    tcb->rack = (struct tcp_rack){.fack = tcb->snd_una};
}

/* The path has not shown its limit yet. */
static bool is_first(const struct tcp_congestion *congestion)
{
    return congestion->ssthresh == TCP_CWND_MAX;
}

/* Was the window in the way of what is now acknowledged? */
static bool is_limited(struct tcb *tcb)
{
    if (tcb->flags & TCB_IN_LOSS)
        return true;
    if (!(tcb->flags & TCB_CWND_LIMITED))
        return false;
    if (seq_le(tcb->snd_una, tcb->congestion.limited_end))
        return true;
    tcb->flags &= ~(uint32_t)TCB_CWND_LIMITED;
    return false;
}

void tcp_congestion_on_sent(struct tcb *tcb)
{
    struct tcp_congestion *congestion = &tcb->congestion;
    uint32_t pipe = tcb_pipe(tcb);
    bool is_slow_start = congestion->cwnd < congestion->ssthresh;

    if (is_slow_start ? pipe >= congestion->cwnd / 2 : pipe + tcb->mss > congestion->cwnd) {
        congestion->limited_end = tcb->snd_nxt;
        tcb->flags |= TCB_CWND_LIMITED;
    }
}

/* Slow start is over where it is. */
static void slow_start_end(struct tcp_congestion *congestion)
{
    congestion->ssthresh = congestion->cwnd;
    congestion->cubic = (struct tcp_cubic){0};
}

/* Returns how many octets are left for congestion avoidance. */
static uint32_t slow_start(struct tcb *tcb, const struct tcp_ack *ack)
{
    struct tcp_congestion *congestion = &tcb->congestion;
    uint32_t most = tcb->mss * (tcb->flags & TCB_IN_LOSS ? 1u : SLOW_START_BURST);
    uint32_t growth = ack->acked < most ? ack->acked : most;
    uint32_t room = congestion->ssthresh - congestion->cwnd;

    if (is_first(congestion)) {
        growth = tcp_hystart_growth(tcb, growth, ack->rtt_us);
        if (growth == 0)
            slow_start_end(congestion);
    }
    if (growth <= room) {
        congestion->cwnd += growth;
        return 0;
    }
    congestion->cwnd = congestion->ssthresh;
    return growth - room;
}

static void avoidance(struct stack *stack, struct tcb *tcb, uint32_t acked)
{
    if (stack->options.tcp.is_newreno)
        tcp_newreno_acked(tcb, acked);
    else
        tcp_cubic_acked(stack, tcb, acked);
    if (tcb->congestion.cwnd > TCP_CWND_MAX)
        tcb->congestion.cwnd = TCP_CWND_MAX;
}

void tcp_congestion_acked(struct stack *stack, struct tcb *tcb, const struct tcp_ack *ack)
{
    struct tcp_congestion *congestion = &tcb->congestion;
    uint32_t now = (uint32_t)stack->now, rest = ack->acked;
    bool was_limited = is_limited(tcb);

    /* RFC 9438 section 5.8: time in which the window was not needed is no time of the curve. */
    if (!was_limited && !is_first(congestion) && congestion->cubic.epoch != 0)
        congestion->cubic.epoch += now - congestion->grown_at;
    congestion->grown_at = now;
    if (!was_limited)
        return;
    if (congestion->cwnd < congestion->ssthresh)
        rest = slow_start(tcb, ack);
    if (rest > 0)
        avoidance(stack, tcb, rest);
}

/* A new stage of congestion avoidance, on the curve below `w_max`. */
static void restart(struct tcp_congestion *congestion, uint32_t w_max)
{
    congestion->cubic = (struct tcp_cubic){.w_max = w_max};
    congestion->acked = 0;
}

void tcp_congestion_reduce(struct stack *stack, struct tcb *tcb)
{
    struct tcp_congestion *congestion = &tcb->congestion;
    struct tcp_scoreboard *scoreboard = tcp_scoreboard(tcb);

    restart(congestion, is_first(congestion) ? 0 : congestion->cubic.w_max);
    congestion->cwnd_prior = congestion->cwnd;
    scoreboard->ssthresh_prior = congestion->ssthresh;
    scoreboard->w_max_prior = congestion->cubic.w_max;
    uint32_t ssthresh =
        stack->options.tcp.is_newreno ? tcp_newreno_reduce(tcb) : tcp_cubic_reduce(tcb);
    congestion->ssthresh = ssthresh > 2u * tcb->mss ? ssthresh : 2u * tcb->mss;
}

void tcp_congestion_on_rto(struct stack *stack, struct tcb *tcb)
{
    struct tcp_congestion *congestion = &tcb->congestion;

    (void)stack;
    /* RFC 5681 (6): one segment beyond what is thought to be in the network still. */
    congestion->cwnd = tcb_pipe(tcb) + tcb->mss;
    /* RFC 9438 section 4.8: after a time-out the curve starts flat, where slow start ends. */
    if (!is_first(congestion))
        restart(congestion, 0);
}

void tcp_congestion_idle(struct stack *stack, struct tcb *tcb)
{
    struct tcp_congestion *congestion = &tcb->congestion;
    uint32_t window = initial_window(stack, tcb), most = congestion->cwnd / 4 * 3;

    /* RFC 5681 4.1: what the window says of the path is old. Slow start finds the way back, up to
     * near where it was (RFC 2861). */
    if (congestion->ssthresh < most)
        congestion->ssthresh = most;
    if (congestion->cwnd > window)
        congestion->cwnd = window;
    if (!is_first(congestion))
        restart(congestion, congestion->cubic.w_max);
}

void tcp_congestion_undo(struct stack *stack, struct tcb *tcb)
{
    struct tcp_congestion *congestion = &tcb->congestion;
    const struct tcp_scoreboard *scoreboard = tcb->scoreboard;

    (void)stack;
    CHECK(scoreboard != NULL);
    if (congestion->cwnd < congestion->cwnd_prior)
        congestion->cwnd = congestion->cwnd_prior;
    if (congestion->ssthresh < scoreboard->ssthresh_prior)
        congestion->ssthresh = scoreboard->ssthresh_prior;
    /* RFC 9438 section 4.9. The curve goes through cwnd wherever it begins: a new epoch there, with
     * the old maximum, is the old one continued. */
    if (is_first(congestion))
        tcp_hystart_begin(tcb);
    else
        restart(congestion, scoreboard->w_max_prior);
}

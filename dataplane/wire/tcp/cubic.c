/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Congestion avoidance of RFC 9438 (CUBIC), in integers.
 *
 *   W(t) = C (t - K)^3 + w_max      C = 0.4 segments per second cubed, K = cbrt((w_max - cwnd0) /
 * C) at a loss: w_max = cwnd, or 0.85 cwnd if it was below the last w_max (fast convergence),
 *   ssthresh = 0.7 cwnd. Where Reno's window w_est would be larger, cwnd is that (section 4.3).
 *
 * Windows are octets, times milliseconds: with d = t - K in ms, C d^3 segments per s^3 are
 * d^3 / 2500 millionths of a segment. The window is moved CUBIC_STEPS times per round trip and not
 * by each ACK: the divisions are few, and each increment is large against its rounding, also for
 * windows of megabytes that grow by an octet per ACK.
 *
 * Invariants
 *   1. epoch is 0 or the time at which the curve began; then k_ms, w_max and w_est belong to it and
 *      w_max >= the window it began with.
 *   2. One step moves cwnd by at most half of what was acknowledged (section 4.2: target is at most
 *      1.5 cwnd).
 *
 * Limits: |t - K| is cut at CUBIC_TIME_MAX.
 */
#include "dataplane/wire/tcp/scoreboard.h"

#define CUBIC_STEPS    8u
#define CUBIC_TIME_MAX 200000 /* ms: 200 s from the plateau are 3 million segments */

/* Largest root with root^3 <= value. */
static uint32_t cube_root(uint64_t value)
{
    uint32_t root = 0;

    for (uint32_t bit = 1u << 20; bit > 0; bit >>= 1) {
        uint64_t candidate = root | bit;

        if (candidate * candidate * candidate <= value)
            root = (uint32_t)candidate;
    }
    return root;
}

/* A stage of congestion avoidance begins at cwnd. */
static void epoch_begin(const struct stack *stack, struct tcb *tcb)
{
    struct tcp_congestion *congestion = &tcb->congestion;

    congestion->cubic.epoch = stack->now > 0 ? stack->now : 1;
    congestion->cubic.w_est = congestion->cwnd;
    congestion->cubic.k_ms = 0;
    if (congestion->cwnd >= congestion->cubic.w_max) {
        congestion->cubic.w_max = congestion->cwnd;
        return;
    }
    uint64_t below = congestion->cubic.w_max - congestion->cwnd;
    congestion->cubic.k_ms = cube_root(below * 2500000000u / tcb->mss);
}

/* W(t), t milliseconds after the epoch began. */
static uint64_t cubic_window(const struct tcb *tcb, uint64_t t_ms)
{
    const struct tcp_congestion *congestion = &tcb->congestion;
    int64_t distance = (int64_t)t_ms - congestion->cubic.k_ms;

    if (distance > CUBIC_TIME_MAX)
        distance = CUBIC_TIME_MAX;
    if (distance < -CUBIC_TIME_MAX)
        distance = -CUBIC_TIME_MAX;
    int64_t window =
        distance * distance * distance / 2500 * tcb->mss / 1000000 + congestion->cubic.w_max;
    return window > 0 ? (uint64_t)window : 0;
}

/* Section 4.3: what Reno's window would be, at CUBIC's rate of loss. */
static void reno_acked(struct tcb *tcb, uint32_t acked)
{
    struct tcp_congestion *congestion = &tcb->congestion;
    uint64_t growth = (uint64_t)tcb->mss * acked / congestion->cwnd;

    /* alpha = 3 (1 - 0.7) / (1 + 0.7) until the window of the last loss is reached, then 1. */
    if (congestion->cubic.w_est < congestion->cwnd_prior)
        growth = growth * 9 / 17;
    congestion->cubic.w_est += (uint32_t)growth;
    if (congestion->cubic.w_est > TCP_CWND_MAX)
        congestion->cubic.w_est = TCP_CWND_MAX;
}

void tcp_cubic_acked(struct stack *stack, struct tcb *tcb, uint32_t acked)
{
    struct tcp_congestion *congestion = &tcb->congestion;

    if (congestion->cubic.epoch == 0)
        epoch_begin(stack, tcb);
    congestion->acked += acked;
    if (congestion->acked < congestion->cwnd / CUBIC_STEPS)
        return;
    acked = congestion->acked < congestion->cwnd ? congestion->acked : congestion->cwnd;
    congestion->acked = 0;

    uint64_t t_ms = (stack->now - congestion->cubic.epoch) / 1000;
    reno_acked(tcb, acked);
    if (cubic_window(tcb, t_ms) < congestion->cubic.w_est) {
        if (congestion->cwnd < congestion->cubic.w_est)
            congestion->cwnd = congestion->cubic.w_est;
        return;
    }
    /* Section 4.2: where the curve will be one round trip from now, reached by then. */
    uint64_t target = cubic_window(tcb, t_ms + tcb->rtt.srtt / 1000);
    uint64_t most = congestion->cwnd + congestion->cwnd / 2;
    if (target > most)
        target = most;
    if (target > congestion->cwnd)
        congestion->cwnd += (uint32_t)((target - congestion->cwnd) * acked / congestion->cwnd);
}

uint32_t tcp_cubic_reduce(struct tcb *tcb)
{
    struct tcp_congestion *congestion = &tcb->congestion;
    uint64_t cwnd = congestion->cwnd;

    /* Section 4.7: a flow that did not get back to its last maximum makes room for others. The
     * window, not the flight, is reduced: it grows only when it is used (congestion.c). */
    congestion->cubic.w_max = (uint32_t)(cwnd < congestion->cubic.w_max ? cwnd * 17 / 20 : cwnd);
    return (uint32_t)(cwnd * 7 / 10); /* section 4.6 */
}

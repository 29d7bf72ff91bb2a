/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Congestion avoidance of RFC 5681: one segment per round trip, counted in octets (RFC 3465 2.1),
 * and half the window at a loss. For policies that ask for it; CUBIC (cubic.c) is the default.
 */
#include "dataplane/wire/tcp/scoreboard.h"

void tcp_newreno_acked(struct tcb *tcb, uint32_t acked)
{
    struct tcp_congestion *congestion = &tcb->congestion;

    congestion->acked += acked;
    if (congestion->acked < congestion->cwnd)
        return;
    congestion->acked -= congestion->cwnd;
    congestion->cwnd += tcb->mss;
    /* An ACK for more than a window comes after silence: no arrears. */
    if (congestion->acked > congestion->cwnd)
        congestion->acked = 0;
}

uint32_t tcp_newreno_reduce(const struct tcb *tcb)
{
    uint32_t flight = tcb->snd_nxt - tcb->snd_una;

    /* RFC 5681 (4). The flight may exceed cwnd by limited transmit, which does not count. */
    return (flight < tcb->congestion.cwnd ? flight : tcb->congestion.cwnd) / 2;
}

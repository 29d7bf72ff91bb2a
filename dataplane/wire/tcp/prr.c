/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Proportional rate reduction, RFC 6937: in recovery what is sent follows what is delivered, so
 * that the window comes down to ssthresh within a round trip without a pause and without a burst.
 *
 *   pipe > ssthresh    for each octet delivered, ssthresh / recover_size octets are sent
 *   otherwise          as much as was delivered, and a segment per ACK more, up to ssthresh
 *                      (the slow-start reduction bound)
 *
 * cwnd is pipe + what may be sent, set anew with every ACK.
 *
 * For peers without SACK each duplicate ACK counts as one segment delivered (duplicate_size), until
 * a cumulative ACK says what was.
 */
#include "dataplane/wire/tcp/scoreboard.h"

void tcp_prr_enter(struct tcb *tcb)
{
    struct tcp_scoreboard *scoreboard = tcp_scoreboard(tcb);
    uint32_t flight = tcb->snd_nxt - tcb->snd_una;

    CHECK(flight > 0);
    scoreboard->prr_delivered = 0;
    scoreboard->prr_out = 0;
    scoreboard->recover_size = flight;
}

uint32_t tcp_prr_pipe(const struct tcb *tcb)
{
    uint32_t pipe = tcb_pipe(tcb);
    uint32_t left = tcb->scoreboard == NULL ? 0 : tcb->scoreboard->duplicate_size;

    return pipe > left ? pipe - left : 0;
}

void tcp_prr_ack(struct tcb *tcb, uint32_t delivered, bool is_forced)
{
    struct tcp_scoreboard *scoreboard = tcb->scoreboard;
    struct tcp_congestion *congestion = &tcb->congestion;
    uint32_t pipe = tcp_prr_pipe(tcb), out = scoreboard->prr_out, send = 0;

    scoreboard->prr_delivered += delivered;
    uint32_t arrears = scoreboard->prr_delivered > out ? scoreboard->prr_delivered - out : 0;
    if (pipe > congestion->ssthresh) {
        uint64_t due = ((uint64_t)scoreboard->prr_delivered * congestion->ssthresh +
                        scoreboard->recover_size - 1) /
                       scoreboard->recover_size;
        send = due > out ? (uint32_t)(due - out) : 0;
    } else {
        uint32_t limit = (arrears > delivered ? arrears : delivered) + tcb->mss;
        uint32_t room = congestion->ssthresh - pipe;
        send = room < limit ? room : limit;
    }
    /* The first retransmission never waits (RFC 6675 section 5 (4.3)), nor does, without SACK, that
     * of the next hole (RFC 6582 section 3.2): the pipe is a guess there, and nothing may come back
     * that would let it out later. */
    if ((out == 0 || is_forced) && send < tcb->mss)
        send = tcb->mss;
    congestion->cwnd = pipe + send > tcb->mss ? pipe + send : tcb->mss;
}

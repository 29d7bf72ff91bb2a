/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Path MTU: what routers say, and what their silence means.
 *
 * Every packet goes out with DF (RFC 1191, 8201). A router that cannot pass one says so by ICMP;
 * tcp_on_icmp_error() has then checked that it quotes a segment of ours that is in flight (RFC
 * 5927). The destination remembers the MTU for ten minutes, for all connections. What is in flight
 * and too long for the new MTU was lost for certain: it is marked so and goes again, in smaller
 * pieces, without any reaction of congestion control.
 *
 * Where a filter eats these messages, large segments vanish while small ones pass: the transfer
 * stops at its first full segment, the classic "hangs after DATA". The sign is that a full segment
 * timed out twice in a row. The MTU then goes down a step (RFC 4821 7.7), and another step after
 * every second time-out that follows; the destination is marked so that its next connections begin
 * where this one ended.
 *
 * Limits: never below the floors of destination_mtu_lower() (552, 1280); never up, but by age.
 */
#include "dataplane/wire/tcp/tcp.h"

#define BLACK_HOLE_TIMEOUTS 2u

/* RFC 1191 7.1: for routers that do not say how much they take. */
static const uint16_t plateaus[] = {32000, 17914, 8166, 4352, 2002, 1492, 1280, 1006, 552};
/* Without any word: what tunnels and Ethernet leave, then what every IPv6 path takes. */
static const uint16_t steps[] = {1500, 1400, 1280, 552};

static uint16_t next_lower(const uint16_t *table, size_t count, uint16_t mtu)
{
    for (size_t i = 0; i < count; i++) {
        if (table[i] < mtu)
            return table[i];
    }
    return mtu;
}

/* The path takes `mtu` from now on. */
static bool lower(struct stack *stack, struct tcb *tcb, uint16_t mtu)
{
    if (!destination_mtu_lower(stack, tcb->key.family, tcb->key.remote, mtu, false))
        return false;
    tcb_mss_update(stack, tcb);
    return true;
}

void tcp_pmtu_on_icmp(struct stack *stack, struct tcb *tcb, uint16_t mtu)
{
    if (mtu == 0)
        mtu = next_lower(plateaus, COUNT_OF(plateaus), destination_mtu(stack, tcb->destination));
    if (!lower(stack, tcb, mtu))
        return;
    tcp_recovery_lose_longer(tcb, tcb->mss);
    tcb_output_later(stack, tcb);
}

void tcp_pmtu_on_rto(struct stack *stack, struct tcb *tcb)
{
    uint16_t mtu = destination_mtu(stack, tcb->destination);

    if (tcb->rtt.backoff < BLACK_HOLE_TIMEOUTS || tcb->rtt.backoff % BLACK_HOLE_TIMEOUTS != 0 ||
        tcb->sent.count == 0)
        return;
    /* A short segment that is lost says nothing about length. */
    uint16_t size = tcp_sent_at(&tcb->sent, 0)->size;
    if (size < tcb->mss || tcb->snd_wnd == 0)
        return;
    if (!lower(stack, tcb, next_lower(steps, COUNT_OF(steps), mtu)))
        return;
    tcb->destination->is_black_hole = true;
    STACK_COUNT(stack, TCP_BLACK_HOLES);
}

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
 * stops at its first large segment, the classic "hangs after DATA". The sign is that such a
 * segment, full or not, timed out twice in a row. The MTU then goes down to the next step below
 * that packet (RFC 4821 7.7), and again with every time-out that follows. What every path should
 * take, 1,280 octets, is doubted only at the sixth, so that a peer that is merely away for some
 * seconds does not end at the floor. The destination is marked, and its next connections begin
 * where this one ended.
 *
 * Limits: never below the floors of destination_mtu_lower() (552, 1280); never up, but by age.
 */
#include "dataplane/wire/tcp/tcp.h"

#define TIMEOUTS_OF_LARGE 2u
#define TIMEOUTS_OF_SMALL 6u
#define SMALL_PACKET_MAX  1280u /* RFC 8200 5 */

/* RFC 1191 7.1: for routers that do not say how much they take. */
static const uint16_t plateaus[] = {32000, 17914, 8166, 4352, 2002, 1492, 1280, 1006, 552};
/* Without any word: what tunnels and Ethernet leave, then what every IPv6 path takes. */
static const uint16_t steps[] = {1500, 1400, 1280, 552};

/* 0: there is none. */
static uint16_t next_lower(const uint16_t *table, size_t count, uint32_t mtu)
{
    for (size_t i = 0; i < count; i++) {
        if (table[i] < mtu)
            return table[i];
    }
    return 0;
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

/* The IP packet that carries `octets` of payload. */
static uint32_t packet_size(const struct tcb *tcb, uint32_t octets)
{
    uint32_t ip = tcb->key.family == FLOW_FAMILY_IP6 ? IP6_HEADER_SIZE : IP4_HEADER_SIZE;
    uint32_t options = tcb->flags & TCB_HAS_TIMESTAMPS ? 12 : 0;

    return ip + TCP_HEADER_SIZE + options + octets;
}

void tcp_pmtu_on_rto(struct stack *stack, struct tcb *tcb)
{
    if (tcb->sent.count == 0 || tcb->snd_wnd == 0)
        return;
    const struct tcp_sent *sent = tcp_sent_at(&tcb->sent, 0);
    uint32_t octets = sent->size - (sent->flags & TCP_SENT_FIN ? 1u : 0u);
    uint32_t size = packet_size(tcb, octets);

    tcb_mss_update(stack, tcb);
    if (octets > tcb->mss)
        return; /* others have learnt it: it goes in smaller pieces now */
    if (tcb->rtt.backoff < (size > SMALL_PACKET_MAX ? TIMEOUTS_OF_LARGE : TIMEOUTS_OF_SMALL))
        return;
    /* What is no longer than the lowest step is not lost for its length. */
    uint16_t step = next_lower(steps, COUNT_OF(steps), size);
    if (step == 0 || !lower(stack, tcb, step))
        return;
    tcb->destination->is_black_hole = true;
    STACK_COUNT(stack, TCP_BLACK_HOLES);
}

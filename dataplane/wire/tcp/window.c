/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The window that we offer: what may arrive can be held, and it is as large as the peer's pace
 * deserves.
 *
 * A flow may pin slot.receive_limit octets of memory, and what is received pins at most twice its
 * size (receive_queue.c copies smaller payloads together). So the window is half of what is left of
 * the limit, and never more than window_limit, which starts at policy.receive_window_start and
 * doubles whenever more than half of it was delivered within a round trip: a sender that is not
 * held up by the window never makes it grow.
 *
 * Invariants
 *   1. rcv_edge, the rightmost edge we ever offered, never moves left: what was offered is
 * accepted, also when the charge has grown meanwhile (RFC 9293 3.8.6.2.2).
 *   2. What the last header says may lie left of rcv_edge by less than the unit of the window scale
 *      (RFC 7323 2.4 has receivers do so). Rounding up instead would offer anew what single octets
 *      used up, and a window could never close.
 *   3. The edge moves by a segment, or by half of what the flow can hold, or not at all (silly
 *      window avoidance, RFC 9293 3.8.6.2.2).
 *
 * Limits: policy.receive_window_max and half of slot.receive_limit.
 */
#include "dataplane/wire/tcp/tcp.h"

#define WINDOW_FIELD_MAX UINT16_MAX
/* Without an RTT a round is over when a whole window came. */
#define ROUND_MIN TICK_MS(1)

/* Largest window the flow could ever be offered. */
static uint32_t window_ceiling(const struct stack *stack, const struct tcb *tcb)
{
    uint32_t half = tcb->slot.receive_limit / 2;
    uint32_t max = stack->options.tcp.receive_window_max;
    uint32_t field = (uint32_t)WINDOW_FIELD_MAX << tcb->rcv_scale;

    max = max < half ? max : half;
    return max < field ? max : field;
}

uint32_t tcp_window_choose(const struct stack *stack, const struct tcb *tcb)
{
    const struct flow_slot *slot = &tcb->slot;
    uint32_t offered = tcb->rcv_edge - tcb->rcv_nxt;
    uint32_t ceiling = window_ceiling(stack, tcb);
    uint32_t room = slot->charge < slot->receive_limit ? slot->receive_limit - slot->charge : 0;
    uint32_t window = room / 2;

    ceiling = ceiling < tcb->window_limit ? ceiling : tcb->window_limit;
    window = window < ceiling ? window : ceiling;
    window = window >> tcb->rcv_scale << tcb->rcv_scale;
    if (window <= offered)
        return offered;
    uint32_t step = tcb->mss < ceiling / 2 ? tcb->mss : ceiling / 2;
    return window - offered < step ? offered : window;
}

uint16_t tcp_window_field(const struct stack *stack, struct tcb *tcb)
{
    uint32_t field = tcp_window_choose(stack, tcb) >> tcb->rcv_scale;
    uint32_t edge = tcb->rcv_nxt + (field << tcb->rcv_scale);

    CHECK(field <= WINDOW_FIELD_MAX);
    if (seq_gt(edge, tcb->rcv_edge))
        tcb->rcv_edge = edge;
    return (uint16_t)field;
}

/* An ACK of its own only when it tells the peer something worth a packet: two segments, half of
 * what it may have, or that a closed window is open again. */
void tcp_window_update(struct stack *stack, struct tcb *tcb)
{
    uint32_t offered = tcb->rcv_edge - tcb->rcv_nxt;
    uint32_t gain = tcp_window_choose(stack, tcb) - offered;

    if (gain == 0 || tcb->state < TCP_ESTABLISHED || tcb->flags & TCB_FIN_RECEIVED)
        return;
    if (offered < tcb->mss || gain >= 2u * tcb->mss || gain >= window_ceiling(stack, tcb) / 2) {
        tcb->flags |= TCB_ACK_NOW;
        tcb_output_later(stack, tcb);
    }
}

static void round_begin(const struct stack *stack, struct tcb *tcb)
{
    tcb->measure_sequence = tcb->rcv_nxt;
    tcb->measure_at = (uint32_t)stack->now;
}

void tcp_window_measure_begin(const struct stack *stack, struct tcb *tcb)
{
    uint32_t start = tcp_window_start(stack, tcb->slot.receive_limit);

    tcb->window_limit = start > tcb->mss ? start : tcb->mss;
    round_begin(stack, tcb);
}

void tcp_window_measure(const struct stack *stack, struct tcb *tcb)
{
    uint32_t time = (uint32_t)stack->now - tcb->measure_at;
    uint32_t delivered = tcb->rcv_nxt - tcb->measure_sequence;
    uint32_t ceiling = window_ceiling(stack, tcb);

    if (tcb->window_limit >= ceiling || tcb->slot.flags & FLOW_SLOT_ORPHAN)
        return;
    if (delivered < tcb->window_limit && (tcb->rtt.srtt == 0 || time < tcb->rtt.srtt))
        return;
    bool is_one_round = tcb->rtt.srtt == 0 || time < 2u * (tcb->rtt.srtt + ROUND_MIN);
    if (is_one_round && delivered > tcb->window_limit / 2)
        tcb->window_limit = tcb->window_limit < ceiling / 2 ? tcb->window_limit * 2 : ceiling;
    round_begin(stack, tcb);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tail loss probe, RFC 8985 section 7. When the last segments of a flight are lost nothing comes
 * back that could show it; after about two round trips of silence one segment is sent, new if there
 * is one, else the last again. What its ACK SACKs lets RACK repair the tail without the RTO, and
 * without throwing away the window.
 *
 *   TCB_TLP_IN_FLIGHT   a probe is out; none other before its verdict (tcp_tlp_ack())
 *   TCB_TLP_PENDING     tcp_output() is to send the probe, a new segment
 *
 * Only for peers with SACK: without it the probe's answer says nothing.
 */
#include "dataplane/wire/tcp/scoreboard.h"

#define TLP_TIME_FIRST    TICK_S(1)    /* before any RTT is known */
#define TLP_ACK_DELAY_MAX TICK_MS(200) /* how long a peer sits on the ACK of a single segment */
#define TLP_TIME_SLACK    TICK_MS(2) /* of the timers on both sides: 2 SRTT of a LAN are nothing */

/* Something that the owner gave and the peer's window takes. */
bool tcp_has_sendable(const struct tcb *tcb)
{
    uint64_t in_flight = tcb->snd_nxt - tcb->snd_una;
    uint64_t sendable = flow_core_sendable(&tcb->slot);

    if (tcb->flags & TCB_FIN_SENT || sendable <= in_flight || tcb->snd_wnd <= in_flight)
        return false;
    uint64_t size = sendable - in_flight < tcb->mss ? sendable - in_flight : tcb->mss;
    return tcb->snd_wnd - in_flight >= size;
}

tick_us tcp_recovery_tlp_at(const struct stack *stack, const struct tcb *tcb)
{
    const uint32_t barred =
        TCB_IN_RECOVERY | TCB_IN_LOSS | TCB_TLP_IN_FLIGHT | TCB_TLP_PENDING | TCB_ZERO_WINDOW;

    if (!(tcb->flags & TCB_HAS_SACK) || tcb->flags & barred || tcb->sent.count == 0 ||
        tcb->sacked > 0 || tcb->lost > 0) {
        return TICK_NEVER;
    }
    /* RFC 8985 7.2. */
    tick_us time = tcb->rtt.srtt == 0 ? TLP_TIME_FIRST : 2 * (tick_us)tcb->rtt.srtt;
    time += tcb->sent.count == 1 ? TLP_ACK_DELAY_MAX : TLP_TIME_SLACK;

    tick_us last_at = tcp_sent_at(&tcb->sent, tcb->sent.count - 1)->sent_at;
    tick_us progress_at = stack->now - ((uint32_t)stack->now - tcb->rtt.progress_at);
    tick_us at = (last_at > progress_at ? last_at : progress_at) + time;
    tick_us rto_at = tcp_recovery_rto_at(stack, tcb);
    return at < rto_at ? at : rto_at;
}

void tcp_recovery_on_tlp_timer(struct stack *stack, struct tcb *tcb)
{
    struct tcp_rack *rack = &tcb->rack;

    /* Something came meanwhile that makes the probe needless. */
    if (tcp_recovery_tlp_at(stack, tcb) == TICK_NEVER)
        return;
    tcb->flags |= TCB_TLP_IN_FLIGHT;
    rack->tlp_end_sequence = tcb->snd_nxt;
    rack->is_tlp_retransmission = !tcp_has_sendable(tcb);
    if (rack->is_tlp_retransmission) {
        if (!tcp_retransmit(stack, tcb, tcb->sent.count - 1))
            tcb->flags &= ~(uint32_t)TCB_TLP_IN_FLIGHT;
        return;
    }
    tcb->flags |= TCB_TLP_PENDING;
    tcb_output_later(stack, tcb);
}

bool tcp_tlp_ack(struct tcb *tcb, const struct tcp_ack *ack)
{
    const struct tcp_rack *rack = &tcb->rack;

    if (!(tcb->flags & TCB_TLP_IN_FLIGHT) || seq_lt(ack->acknowledgement, rack->tlp_end_sequence)) {
        return false;
    }
    bool is_repair = rack->is_tlp_retransmission && !ack->is_tlp_dsack &&
                     seq_gt(ack->acknowledgement, rack->tlp_end_sequence);
    /* Acknowledged up to the probe and no more: original or probe? The next ACK tells: a duplicate
     * without news is the answer to the second of the two. */
    bool is_open = rack->is_tlp_retransmission && !ack->is_tlp_dsack && !is_repair &&
                   (!ack->is_duplicate || ack->is_anything_delivered);
    if (!is_open)
        tcb->flags &= ~(uint32_t)(TCB_TLP_IN_FLIGHT | TCB_TLP_PENDING);
    return is_repair;
}

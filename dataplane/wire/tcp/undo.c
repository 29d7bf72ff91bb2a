/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was taken for a loss and was none. Three ways to know:
 *
 *   Eifel (RFC 3522)   the ACK of what was sent again echoes a timestamp from before that
 *   DSACK (RFC 3708)   every retransmission of the episode was received twice
 *   F-RTO (RFC 5682)   after an RTO something is delivered that was not sent again; only where the
 *                      RTO came out of silence, else it would have been delivered anyway
 *
 * Then the window is as it was before, losses that were assumed and not sent again are none, and
 * RACK learns that this path reorders.
 *
 * A peer may lie about all of these: it gets the window it had, and costs us the budget of work per
 * ACK; only after an RTO, which has its price in time, everything is looked at.
 */
#include "dataplane/wire/tcp/scoreboard.h"

void tcp_undo_begin(struct tcb *tcb)
{
    struct tcp_scoreboard *scoreboard = tcp_scoreboard(tcb);

    scoreboard->undo_count = 0;
    scoreboard->is_undo_stamped = false;
    tcb->flags |= TCB_SPURIOUS_CHECK;
}

void tcp_undo_on_resent(const struct stack *stack, struct tcb *tcb)
{
    struct tcp_scoreboard *scoreboard = tcb->scoreboard;

    if (!(tcb->flags & TCB_SPURIOUS_CHECK))
        return;
    scoreboard->undo_count++;
    if (tcb->flags & TCB_HAS_TIMESTAMPS && !scoreboard->is_undo_stamped) {
        scoreboard->undo_timestamp = tcp_timestamp_now(stack, tcb->ts_offset);
        scoreboard->is_undo_stamped = true;
    }
}

static bool is_spurious(struct tcb *tcb, const struct tcp_ack *ack)
{
    struct tcp_scoreboard *scoreboard = tcb->scoreboard;

    if (scoreboard->is_undo_stamped && ack->is_retransmit_acked && ack->has_timestamp &&
        seq_lt(ack->timestamp_echo, scoreboard->undo_timestamp)) {
        return true;
    }
    if (ack->has_dsack && scoreboard->undo_count > 0) {
        uint32_t count = scoreboard->undo_count;

        scoreboard->undo_count = ack->dsack_count < count ? count - ack->dsack_count : 0;
        if (scoreboard->undo_count == 0)
            return true;
    }
    return scoreboard->frto != TCP_FRTO_OFF && ack->is_original_delivered &&
           (tcb->flags & TCB_HAS_SACK || !ack->is_retransmit_acked);
}

bool tcp_undo_ack(struct stack *stack, struct tcb *tcb, const struct tcp_ack *ack)
{
    struct tcp_scoreboard *scoreboard = tcb->scoreboard;

    if (!(tcb->flags & TCB_SPURIOUS_CHECK) || !is_spurious(tcb, ack))
        return false;
    tcp_congestion_undo(stack, tcb);
    if (tcb->lost > 0)
        tcp_scoreboard_find_again(tcb, tcb->flags & TCB_IN_LOSS ? UINT32_MAX : TCP_SACK_BUDGET);
    if (tcb->flags & TCB_IN_LOSS)
        tcp_rtt_progress(&tcb->rtt, &stack->options.tcp);
    else
        tcp_rack_widen(tcb);
    tcb->rack.is_reordering_seen = true;
    scoreboard->frto = TCP_FRTO_OFF;
    tcb->flags &= ~(uint32_t)(TCB_SPURIOUS_CHECK | TCB_IN_LOSS | TCB_IN_RECOVERY);
    return true;
}

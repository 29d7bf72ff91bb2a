/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RACK, RFC 8985 section 6: a segment is lost if one sent after it was delivered and it is overdue
 * by the reordering window. Time decides, not the count of duplicate ACKs: it also finds lost
 * retransmissions, and reordering costs a delay instead of a needless retransmission.
 *
 * The reordering window is 0 until reordering was seen (then three SACKED segments are proof, as in
 * RFC 6675, and in recovery everything older is), else a quarter of the smallest RTT, and as many
 * quarters more as round trips brought a DSACK, or an echoed timestamp that says the same (undo.c);
 * this wears off after RACK_PERSIST recoveries.
 *
 * The segments are looked at in the order of their last transmission (step 5), which is two orders:
 * those sent once, up from `judged_to`, and the ring of those sent again (scoreboard.c). In each
 * the first that is not overdue ends the walk and says when to look again.
 *
 * Limits: TCP_SACK_BUDGET descriptors per call; the rest is due at once, by the reordering timer.
 */
#include "dataplane/wire/tcp/scoreboard.h"

#define RACK_PERSIST 16u

static bool is_sent_after(tick_us at, uint32_t end, tick_us other_at, uint32_t other_end)
{
    return at > other_at || (at == other_at && seq_gt(end, other_end));
}

/* Three segments above the hole: by octets, as RFC 6675 counts, or by the ACKs they caused. */
static bool is_threshold_reached(const struct tcb *tcb)
{
    return tcb->sacked > (TCP_DUP_THRESHOLD - 1) * tcb->mss || tcb->dupacks >= TCP_DUP_THRESHOLD;
}

uint32_t tcp_rack_reorder_window(const struct tcb *tcb)
{
    const struct tcp_rack *rack = &tcb->rack;

    if (!rack->is_reordering_seen &&
        (tcb->flags & (TCB_IN_RECOVERY | TCB_IN_LOSS) || is_threshold_reached(tcb))) {
        return 0;
    }
    uint64_t window = (uint64_t)(tcb->rtt.minimum / 4) * (1u + rack->reorder_multiple);
    return (uint32_t)(window < tcb->rtt.srtt ? window : tcb->rtt.srtt);
}

void tcp_rack_widen(struct tcb *tcb)
{
    struct tcp_rack *rack = &tcb->rack;

    if (tcb->flags & TCB_DSACK_ROUND)
        return;
    tcb->flags |= TCB_DSACK_ROUND;
    rack->dsack_round = tcb->snd_nxt;
    if (rack->reorder_multiple < UINT8_MAX)
        rack->reorder_multiple++;
    rack->reorder_persist = RACK_PERSIST;
}

void tcp_rack_update(struct stack *stack, struct tcb *tcb, const struct tcp_ack *ack)
{
    struct tcp_rack *rack = &tcb->rack;

    if (ack->has_newest) {
        tick_us rtt = stack->now - ack->newest_sent_at;

        rack->rtt = rtt > UINT32_MAX ? UINT32_MAX : (uint32_t)rtt;
        if (is_sent_after(ack->newest_sent_at, ack->newest_end, rack->sent_at,
                          rack->end_sequence)) {
            rack->sent_at = ack->newest_sent_at;
            rack->end_sequence = ack->newest_end;
            rack->is_retransmission = ack->is_newest_resent;
        }
    }
    rack->is_reordering_seen |= ack->is_reordered;
    if (tcb->flags & TCB_DSACK_ROUND && seq_ge(tcb->snd_una, rack->dsack_round))
        tcb->flags &= ~(uint32_t)TCB_DSACK_ROUND;
    /* A probe's DSACK speaks of a lost ACK, not of reordering. */
    if (ack->has_dsack && !ack->is_tlp_dsack)
        tcp_rack_widen(tcb);
}

void tcp_rack_recovered(struct tcb *tcb)
{
    struct tcp_rack *rack = &tcb->rack;

    if (rack->reorder_persist > 0 && --rack->reorder_persist == 0)
        rack->reorder_multiple = 0;
}

/* Those sent once. Returns when the next is overdue. */
static tick_us detect_first(const struct stack *stack, struct tcb *tcb, tick_us patience,
                            uint32_t *budget)
{
    struct tcp_scoreboard *scoreboard = tcb->scoreboard;
    const struct tcp_rack *rack = &tcb->rack;
    tick_us at = TICK_NEVER;
    uint32_t index =
        seq_lt(scoreboard->judged_to, tcb->snd_una) ? 0 : tcp_sent_find(tcb, scoreboard->judged_to);

    while (index < tcb->sent.count) {
        struct tcp_sent *sent = tcp_sent_at(&tcb->sent, index);

        if (*budget == 0) {
            at = stack->now;
            break;
        }
        (*budget)--;
        if (sent->flags & TCP_SENT_SACKED) {
            index = tcp_scoreboard_skip(tcb, index, budget);
            continue;
        }
        if (!(sent->flags & (TCP_SENT_LOST | TCP_SENT_RETRANSMITTED))) {
            if (!is_sent_after(rack->sent_at, rack->end_sequence, sent->sent_at,
                               sent->sequence + sent->size)) {
                break;
            }
            if (sent->sent_at + patience > stack->now) {
                at = sent->sent_at + patience;
                break;
            }
            tcp_scoreboard_lose(tcb, sent);
        }
        index++;
    }
    scoreboard->judged_to =
        index < tcb->sent.count ? tcp_sent_at(&tcb->sent, index)->sequence : tcb->snd_nxt;
    return at;
}

/* Those sent again. */
static tick_us detect_again(const struct stack *stack, struct tcb *tcb, tick_us patience,
                            uint32_t *budget)
{
    struct tcp_scoreboard *scoreboard = tcb->scoreboard;
    const struct tcp_rack *rack = &tcb->rack;

    for (; scoreboard->judged != scoreboard->tail; scoreboard->judged++) {
        const struct tcp_resent *resent =
            &scoreboard->resent[scoreboard->judged & (scoreboard->capacity - 1)];
        tick_us sent_at = stack->now - ((uint32_t)stack->now - resent->sent_at);

        /* In one turn something new may go before something that is sent again: sequence numbers
         * tell the order among retransmissions only. */
        if (!is_sent_after(rack->sent_at, rack->end_sequence, sent_at, resent->last + 1) ||
            (rack->sent_at == sent_at && !rack->is_retransmission)) {
            return TICK_NEVER;
        }
        if (sent_at + patience > stack->now)
            return sent_at + patience;
        if (*budget == 0)
            return stack->now;
        (*budget)--;
        uint32_t index = tcp_scoreboard_resent_at(tcb, scoreboard->judged);
        if (index == UINT32_MAX)
            continue;
        struct tcp_sent *sent = tcp_sent_at(&tcb->sent, index);
        if (!(sent->flags & TCP_SENT_LOST))
            tcp_scoreboard_lose(tcb, sent);
    }
    return TICK_NEVER;
}

void tcp_rack_detect(struct stack *stack, struct tcb *tcb)
{
    uint32_t budget = TCP_SACK_BUDGET;

    if (tcb->scoreboard == NULL)
        return;
    tick_us patience = (tick_us)tcb->rack.rtt + tcp_rack_reorder_window(tcb);
    /* What was sent again is older in sequence and holds back the peer: it has the first call. */
    tick_us again_at = detect_again(stack, tcb, patience, &budget);
    tick_us first_at = detect_first(stack, tcb, patience, &budget);
    tcb->scoreboard->reorder_at = again_at < first_at ? again_at : first_at;
}

tick_us tcp_recovery_reorder_at(const struct stack *stack, const struct tcb *tcb)
{
    (void)stack;
    return tcb->scoreboard == NULL ? TICK_NEVER : tcb->scoreboard->reorder_at;
}

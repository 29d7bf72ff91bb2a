/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When to believe in a loss, and how the connection gets over it. This file has the states; what is
 * marked, found and sent is in the files around it (scoreboard.h lists them).
 *
 *   State       Entered                                          Left
 *   OPEN                                                         enter_recovery(), on_rto()
 *   IN_RECOVERY RACK found a loss (RFC 8985), the third          recover is acknowledged: leave();
 *               duplicate ACK of a peer without SACK             undo; RTO
 *               (RFC 6582), or ECE (RFC 3168): PRR paces
 *   IN_LOSS     the RTO fired: slow start from one segment       the same
 *
 * In IN_RECOVERY cwnd is PRR's; in OPEN and IN_LOSS it grows by tcp_congestion_acked(). One episode
 * answers for one window: `recover` is snd_nxt at its begin, and nothing reduces again before it is
 * acknowledged, whatever else of that window turns out to be lost or marked.
 *
 * The scoreboard exists from the first sign that something is out of order until the episode is
 * over, acknowledged, and past undoing. Without one, an ACK takes the quick way: RTT, RACK's clock,
 * window.
 *
 * Invariants
 *   1. At most one of IN_RECOVERY and IN_LOSS; either implies a scoreboard.
 *   2. cwnd >= one mss.
 *   3. `recover` is never more than a window behind snd_una while no episode can need it.
 *
 * Not here: the timer itself (timer.c), sending (output.c).
 */
#include "dataplane/wire/tcp/scoreboard.h"

#define LIMITED_TRANSMIT_SEGMENTS 2u /* RFC 3042 */

static void enter_recovery(struct stack *stack, struct tcb *tcb)
{
    tcb->recover = tcb->snd_nxt;
    tcb->flags |= TCB_IN_RECOVERY;
    tcb->flags &= ~(uint32_t)(TCB_TLP_IN_FLIGHT | TCB_TLP_PENDING | TCB_SPURIOUS_CHECK);
    tcp_undo_begin(tcb);
    tcp_congestion_reduce(stack, tcb);
    tcp_prr_enter(tcb);
    if (tcb->flags & TCB_HAS_ECN)
        tcb->flags |= TCB_CWR_SEND; /* RFC 3168 6.1.2: for a loss, too */
}

/* `recover` is acknowledged. */
static void leave(struct tcb *tcb)
{
    struct tcp_congestion *congestion = &tcb->congestion;
    struct tcp_scoreboard *scoreboard = tcb->scoreboard;

    if (tcb->flags & TCB_IN_RECOVERY) {
        uint32_t flight = tcb->snd_nxt - tcb->snd_una;
        uint32_t most = (flight > tcb->mss ? flight : tcb->mss) + tcb->mss;

        congestion->cwnd = congestion->ssthresh;
        /* RFC 6582 section 3.2, full acknowledgement: no burst after a long hole. With SACK, PRR
         * has kept the flight near ssthresh. */
        if (!(tcb->flags & TCB_HAS_SACK) && congestion->cwnd > most)
            congestion->cwnd = most;
        if (congestion->cwnd < tcb->mss)
            congestion->cwnd = tcb->mss;
    }
    tcb->flags &= ~(uint32_t)(TCB_IN_RECOVERY | TCB_IN_LOSS);
    tcp_rack_recovered(tcb);
    scoreboard->frto = TCP_FRTO_OFF;
    scoreboard->duplicate_size = 0;
    /* A DSACK may still come for what was sent last. */
    scoreboard->undo_until = tcb->snd_nxt;
}

/* ---- peers without SACK: RFC 5681, 6582 ---- */

/* In recovery: octets delivered, where duplicate ACKs counted before the cumulative one. */
static uint32_t newreno_delivered(struct tcb *tcb, const struct tcp_ack *ack)
{
    struct tcp_scoreboard *scoreboard = tcb->scoreboard;

    if (ack->is_duplicate) {
        scoreboard->duplicate_size += tcb->mss;
        if (scoreboard->duplicate_size > tcb->snd_nxt - tcb->snd_una)
            scoreboard->duplicate_size = tcb->snd_nxt - tcb->snd_una;
        return tcb->mss;
    }
    if (!ack->is_advance)
        return 0;
    /* The first segment is the one that was missing; the others had their duplicate ACKs. */
    uint32_t others = ack->delivered > tcb->mss ? ack->delivered - tcb->mss : 0;
    uint32_t counted = others < scoreboard->duplicate_size ? others : scoreboard->duplicate_size;
    scoreboard->duplicate_size -= counted;
    return ack->delivered - counted;
}

static void newreno_lose_first(struct tcb *tcb)
{
    if (tcb->sent.count == 0)
        return;
    struct tcp_sent *sent = tcp_sent_at(&tcb->sent, 0);
    tcp_scoreboard(tcb);
    if (!(sent->flags & TCP_SENT_LOST))
        tcp_scoreboard_lose(tcb, sent);
}

static void newreno_detect(struct tcb *tcb, const struct tcp_ack *ack)
{
    if (tcb->flags & TCB_IN_LOSS)
        return; /* everything is LOST, or was sent again */
    if (tcb->flags & TCB_IN_RECOVERY) {
        /* RFC 6582 section 3.2: a partial ACK points at the next hole. */
        if (ack->is_advance)
            newreno_lose_first(tcb);
        return;
    }
    /* Step 2: duplicate ACKs for what was sent again after an RTO are no sign of a loss. */
    if (ack->is_duplicate && tcb->dupacks == TCP_DUP_THRESHOLD &&
        seq_gt(tcb->snd_una, tcb->recover)) {
        newreno_lose_first(tcb);
        /* Step 3: three left the network, with the one that is counted in a moment. */
        tcb->scoreboard->duplicate_size = (TCP_DUP_THRESHOLD - 1) * tcb->mss;
    }
}

/* ---- F-RTO without timestamps: RFC 5682 section 3 ---- */

/* True: the window is set for two new segments, and not to grow by this ACK. */
static bool frto_ack(struct tcb *tcb, const struct tcp_ack *ack)
{
    struct tcp_scoreboard *scoreboard = tcb->scoreboard;
    bool is_bad = ack->is_duplicate || ack->has_sack;

    if (scoreboard->frto == TCP_FRTO_OFF || !(is_bad || ack->is_advance))
        return false;
    /* Step 2b: two new segments instead of sending again. Timestamps would have answered already;
     * without anything new to send there is no test. */
    if (scoreboard->frto == TCP_FRTO_RESENT && !is_bad && !(tcb->flags & TCB_HAS_TIMESTAMPS) &&
        tcp_has_sendable(tcb)) {
        scoreboard->frto = TCP_FRTO_NEW_DATA;
        tcb->congestion.cwnd = tcb_pipe(tcb) + 2u * tcb->mss;
        return true;
    }
    /* Steps 2a and 3a: the losses are real. (3b was seen by undo.c.) */
    scoreboard->frto = TCP_FRTO_OFF;
    return false;
}

/* ---- the ACK ---- */

static void count_duplicates(struct tcb *tcb, const struct tcp_ack *ack)
{
    if (ack->is_advance)
        tcb->dupacks = 0;
    else if (ack->is_duplicate && tcb->dupacks < UINT8_MAX)
        tcb->dupacks++;
}

/* Forget the episode when nothing refers to it any more. */
static void settle(struct tcb *tcb)
{
    struct tcp_scoreboard *scoreboard = tcb->scoreboard;

    if (scoreboard == NULL)
        return;
    if (seq_lt(scoreboard->resend_from, tcb->snd_una))
        scoreboard->resend_from = tcb->snd_una;
    if (tcb->flags & (TCB_IN_RECOVERY | TCB_IN_LOSS) || tcb->sacked > 0 || tcb->lost > 0 ||
        tcb->retransmitted > 0 || seq_lt(tcb->snd_una, scoreboard->undo_until)) {
        return;
    }
    tcb->flags &= ~(uint32_t)TCB_SPURIOUS_CHECK;
    tcp_recovery_free(tcb);
}

/* The ACK that says nothing but "in order": the usual one. */
static bool is_plain(const struct tcb *tcb, const struct tcp_ack *ack)
{
    return tcb->scoreboard == NULL && ack->is_advance && !ack->is_ece && !ack->has_dsack &&
           !(tcb->flags & (TCB_TLP_IN_FLIGHT | TCB_DSACK_ROUND));
}

static void judge(struct stack *stack, struct tcb *tcb, const struct tcp_ack *ack)
{
    const uint32_t in_episode = TCB_IN_RECOVERY | TCB_IN_LOSS;

    if (tcb->flags & in_episode && seq_ge(tcb->snd_una, tcb->recover))
        leave(tcb);
    if (tcb->flags & TCB_HAS_SACK)
        tcp_rack_detect(stack, tcb);
    else
        newreno_detect(tcb, ack);
    if (tcb->flags & in_episode)
        return;
    /* RFC 3168 6.1.2: once per window; an ACK that covers no more than that window repeats ECE
     * because CWR has not reached the peer yet. */
    bool is_marked = ack->is_ece && ack->is_advance && seq_gt(tcb->snd_una, tcb->recover);
    if (tcb->sent.count > 0 && (tcb->lost > 0 || is_marked))
        enter_recovery(stack, tcb);
}

void tcp_recovery_ack(struct stack *stack, struct tcb *tcb, const struct tcp_ack *ack)
{
    if (ack->rtt_us > 0)
        tcp_rtt_sample(&tcb->rtt, &stack->options.tcp, ack->rtt_us);
    if (ack->is_advance)
        tcb->rtt.progress_at = (uint32_t)stack->now;
    count_duplicates(tcb, ack);
    tcp_rack_update(stack, tcb, ack);
    if (is_plain(tcb, ack)) {
        tcb->recover = tcb->snd_una - 1;
        tcp_congestion_acked(stack, tcb, ack);
        return;
    }
    if (tcp_tlp_ack(tcb, ack) && !(tcb->flags & (TCB_IN_RECOVERY | TCB_IN_LOSS))) {
        /* RFC 8985 7.4.2: the probe repaired what was lost; the window answers for it. */
        tcp_congestion_reduce(stack, tcb);
        tcb->congestion.cwnd = tcb->congestion.ssthresh;
    }
    bool was_in_recovery = tcb->flags & TCB_IN_RECOVERY;
    bool is_undone = tcb->scoreboard != NULL && tcp_undo_ack(stack, tcb, ack);
    bool is_set = is_undone || was_in_recovery;
    if (tcb->flags & TCB_IN_LOSS)
        is_set |= frto_ack(tcb, ack);
    judge(stack, tcb, ack);
    if (tcb->flags & TCB_IN_RECOVERY && tcb->flags & TCB_HAS_SACK)
        tcp_prr_ack(tcb, ack->delivered, false);
    else if (tcb->flags & TCB_IN_RECOVERY)
        tcp_prr_ack(tcb, newreno_delivered(tcb, ack), ack->is_advance);
    else if (ack->is_advance && !is_set)
        tcp_congestion_acked(stack, tcb, ack);
    settle(tcb);
}

/* ---- the timers ---- */

tick_us tcp_recovery_rto_at(const struct stack *stack, const struct tcb *tcb)
{
    if (tcb->sent.count == 0)
        return TICK_NEVER;
    const struct tcp_sent *first = tcp_sent_at(&tcb->sent, 0);
    tick_us since = stack->now - ((uint32_t)stack->now - tcb->rtt.progress_at);
    if (!(first->flags & TCP_SENT_SACKED) && first->sent_at > since)
        since = first->sent_at;
    return since + tcb->rtt.rto;
}

void tcp_recovery_on_rto(struct stack *stack, struct tcb *tcb)
{
    struct tcp_scoreboard *scoreboard = tcp_scoreboard(tcb);
    tick_us deadline = stack->now;

    CHECK(tcb->sent.count > 0);
    bool is_reneged = tcp_sent_at(&tcb->sent, 0)->flags & TCP_SENT_SACKED;
    bool was_quiet = tcb->sacked == 0 && !(tcb->flags & TCB_IN_RECOVERY);
    /* RFC 5681 (4): once for a segment, however often the timer sends it; and once for a window
     * that recovery has answered for. */
    bool is_first = !(tcb->flags & TCB_IN_LOSS) || tcb->rtt.backoff == 0;
    if (is_first && !(tcb->flags & TCB_IN_RECOVERY)) {
        tcp_undo_begin(tcb);
        tcp_congestion_reduce(stack, tcb);
    }
    if (is_reneged)
        tcp_scoreboard_renege(tcb);
    /* RFC 8985 6.3: what was sent within the last round trip may still be on its way. */
    else if (tcb->flags & TCB_HAS_SACK && tcb->rack.rtt > 0)
        deadline -= (tick_us)tcb->rack.rtt + tcp_rack_reorder_window(tcb);
    tcp_scoreboard_lose_all(tcb, deadline);
    tcb->flags &= ~(uint32_t)(TCB_IN_RECOVERY | TCB_TLP_IN_FLIGHT | TCB_TLP_PENDING);
    tcb->flags |= TCB_IN_LOSS;
    tcb->recover = tcb->snd_nxt;
    tcb->dupacks = 0;
    scoreboard->duplicate_size = 0;
    scoreboard->reorder_at = TICK_NEVER;
    scoreboard->frto = is_first && was_quiet ? TCP_FRTO_RESENT : TCP_FRTO_OFF;
    tcp_congestion_on_rto(stack, tcb);
    tcp_rtt_back_off(&tcb->rtt, &stack->options.tcp);
}

void tcp_recovery_on_reorder_timer(struct stack *stack, struct tcb *tcb)
{
    if (tcb->scoreboard == NULL)
        return;
    tcp_rack_detect(stack, tcb);
    if (tcb->lost == 0)
        return;
    if (!(tcb->flags & (TCB_IN_RECOVERY | TCB_IN_LOSS)))
        enter_recovery(stack, tcb);
    if (tcb->flags & TCB_IN_RECOVERY)
        tcp_prr_ack(tcb, 0, false);
}

/* ---- sending ---- */

uint32_t tcp_recovery_allowance(const struct stack *stack, const struct tcb *tcb)
{
    uint32_t pipe = tcp_prr_pipe(tcb), window = tcb->congestion.cwnd;

    (void)stack;
    /* RFC 3042: the first two duplicate ACKs each let a new segment out. With SACK the pipe says
     * the same. */
    if (!(tcb->flags & (TCB_HAS_SACK | TCB_IN_RECOVERY | TCB_IN_LOSS))) {
        uint32_t extra =
            tcb->dupacks < LIMITED_TRANSMIT_SEGMENTS ? tcb->dupacks : LIMITED_TRANSMIT_SEGMENTS;
        window += extra * tcb->mss;
    }
    uint32_t allowance = window > pipe ? window - pipe : 0;
    if (tcb->flags & TCB_TLP_PENDING && allowance < tcb->mss)
        allowance = tcb->mss;
    return allowance;
}

void tcp_recovery_on_sent(struct stack *stack, struct tcb *tcb)
{
    const struct tcp_sent *sent = tcp_sent_at(&tcb->sent, tcb->sent.count - 1);

    (void)stack;
    if (tcb->scoreboard != NULL)
        tcb->scoreboard->prr_out += sent->size;
    if (tcb->flags & TCB_TLP_PENDING) {
        tcb->flags &= ~(uint32_t)TCB_TLP_PENDING;
        tcb->rack.tlp_end_sequence = tcb->snd_nxt;
    }
    tcp_congestion_on_sent(tcb);
}

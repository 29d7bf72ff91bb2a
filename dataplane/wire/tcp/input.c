/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RFC 9293 3.10.7, in its order: what a segment does to a connection.
 *
 *   SYN_SENT                            input_syn_sent()       3.10.7.3
 *   SYN_RECEIVED and all that follow    input_synchronised()   3.10.7.4
 *     0  timestamps: PAWS               check_timestamps()     RFC 7323 5.3
 *     1  sequence number                check_sequence()
 *     2  RST                            on_rst()               RFC 5961 3.2
 *     3  (security: none)
 *     4  SYN                            challenge              RFC 5961 4.2
 *     5  ACK                            on_ack[state]          RFC 5961 5.2, input_ack()
 *     6  URG                            nothing: urgent octets are octets (3.8.5, HAZARDS TC-12)
 *     7  text                           on_text()
 *     8  FIN                            on_fin()
 *
 * Most segments of an open connection say nothing unusual: the next octets, an ACK that advances,
 * or both. input_fast() does these without asking what cannot be.
 *
 * Invariants
 *   1. A handler that returns false has dealt with the segment; the tcb may be gone then.
 *   2. Octets are accepted only inside what was offered, once, in order; first come stays.
 *   3. Nothing is sent from here but what must go before the tcb does: an ACK of a last FIN, and
 *      RSTs for segments that belong to nothing.
 */
#include "dataplane/wire/tcp/tcp.h"

#define TWENTY_FOUR_DAYS_MS (24u * 24 * 3600 * 1000)

static uint32_t now_ms(const struct stack *stack)
{
    return (uint32_t)(stack->now / TICK_MS(1));
}

/* ---- 5: ACK ---- */

static bool is_fin_acknowledged(const struct tcb *tcb)
{
    return tcb->flags & TCB_FIN_SENT && tcb->snd_una == tcb->snd_nxt;
}

static void window_take(struct tcb *tcb, const struct segment *segment)
{
    tcb->snd_wnd = segment->window;
    tcb->snd_wl1 = segment->header.sequence;
    tcb->snd_wl2 = segment->header.acknowledgement;
    if (tcb->snd_wnd > tcb->snd_wnd_max)
        tcb->snd_wnd_max = tcb->snd_wnd;
    if (tcb->snd_wnd == 0)
        tcb->flags |= TCB_ZERO_WINDOW;
    else
        tcb->flags &= ~(uint32_t)TCB_ZERO_WINDOW;
}

/* 3.10.7.4: only from segments that are not older than the last one it was taken from. One that
 * acknowledges more than any before is the newest, whatever its number: octets sent again tell
 * today's window. Without it the old window would count from the new snd_una, beyond its edge. */
static void window_update(struct stack *stack, struct tcb *tcb, const struct segment *segment,
                          bool is_advance)
{
    const struct tcp_header *header = &segment->header;
    bool is_older =
        seq_gt(tcb->snd_wl1, header->sequence) ||
        (tcb->snd_wl1 == header->sequence && seq_gt(tcb->snd_wl2, header->acknowledgement));

    uint32_t before = tcb->snd_wnd;

    /* An ACK of less than all says nothing of today's window, whatever its number. */
    if ((is_older && !is_advance) || seq_lt(header->acknowledgement, tcb->snd_una))
        return;
    window_take(tcb, segment);
    if (tcb->rtx_mode != TCP_RTX_PERSIST)
        return;
    /* The probes were answered, so the peer lives (RFC 1122 4.2.2.17: no limit then). */
    tcb->unacked_since = stack->now;
    /* A small window that stays as it is stays waited for: the override time-out runs on. */
    if (tcb->snd_wnd > 0 && tcb->snd_wnd != before) {
        tcp_rtt_progress(&tcb->rtt, &stack->options.tcp);
        tcb->rtx_mode = TCP_RTX_NONE;
        tcb->rtx_at = TICK_NEVER;
    }
}

/* An ACK of something, or with something to say: see "the order" in tcp.h. */
static void ack_take(struct stack *stack, struct tcb *tcb, const struct segment *segment)
{
    struct tcp_ack ack UNINITIALIZED;

    tcp_recovery_digest(stack, tcb, segment, &ack);
    if (ack.is_advance) {
        tcp_sent_drop(stack, tcb, segment->header.acknowledgement);
        tcb->unacked_since = stack->now;
        destination_confirm(stack, tcb->destination);
    }
    window_update(stack, tcb, segment, ack.is_advance);
    /* RFC 9293 3.8.6.1: while the peer answers, a closed window is no reason to give up. */
    if (tcb->snd_wnd == 0)
        tcb->unacked_since = stack->now;
    tcp_recovery_ack(stack, tcb, &ack);
    tcb_output_later(stack, tcb);
}

/* Nothing is in flight, so there is nothing to learn but the window. */
static bool is_plain_ack(const struct tcb *tcb, const struct segment *segment)
{
    return tcb->snd_una == tcb->snd_nxt && segment->header.acknowledgement == tcb->snd_una &&
           segment->header.options.sack_count == 0 && !(segment->flags & TCP_ECE);
}

/*
 * RFC 7323 4.3: from the earliest segment that an ACK of ours has not answered. And from none whose
 * acknowledgement was refused: a forger who guesses the window alone could set it so far ahead that
 * PAWS refuses all that the peer sends (RFC 5961 5.2 is to keep such segments from counting).
 */
static void timestamp_take(const struct stack *stack, struct tcb *tcb,
                           const struct segment *segment)
{
    const struct tcp_options *options = &segment->header.options;

    if (!(tcb->flags & TCB_HAS_TIMESTAMPS) || !options->has_timestamps ||
        seq_gt(segment->header.sequence, tcb->last_ack_sent))
        return;
    tcb->ts_recent = options->timestamp_value;
    tcb->ts_recent_at = now_ms(stack);
}

/* ESTABLISHED and later. False: dropped. */
static bool input_ack(struct stack *stack, struct tcb *tcb, struct segment *segment)
{
    uint32_t acknowledgement = segment->header.acknowledgement;

    if (seq_gt(acknowledgement, tcb->snd_nxt)) {
        STACK_COUNT(stack, TCP_ACK_UNSENT);
        tcp_challenge(stack, tcb);
        return false;
    }
    /* RFC 5961 5.2: older than any window we were ever given: not from this connection's peer. */
    if (seq_lt(acknowledgement, tcb->snd_una - tcb->snd_wnd_max)) {
        STACK_COUNT(stack, TCP_ACK_OLD);
        tcp_challenge(stack, tcb);
        return false;
    }
    timestamp_take(stack, tcb, segment);
    if (!is_plain_ack(tcb, segment)) {
        ack_take(stack, tcb, segment);
        return true;
    }
    uint32_t window = tcb->snd_wnd;
    window_update(stack, tcb, segment, false);
    if (tcb->snd_wnd != window || tcb->rtx_mode == TCP_RTX_PERSIST)
        tcb_output_later(stack, tcb);
    return true;
}

static bool ack_syn_received(struct stack *stack, struct tcb *tcb, struct segment *segment)
{
    uint32_t acknowledgement = segment->header.acknowledgement;

    if (seq_le(acknowledgement, tcb->snd_una) || seq_gt(acknowledgement, tcb->snd_nxt)) {
        tcb->flags &= ~(uint32_t)TCB_ACK_NOW; /* one answer is enough */
        tcp_send_reset_for(stack, segment);
        return false;
    }
    timestamp_take(stack, tcb, segment);
    window_take(tcb, segment);
    tcp_connected(stack, tcb, acknowledgement);
    return true;
}

static bool ack_fin_wait_1(struct stack *stack, struct tcb *tcb, struct segment *segment)
{
    if (!input_ack(stack, tcb, segment))
        return false;
    if (is_fin_acknowledged(tcb))
        tcb_enter(stack, tcb, TCP_FIN_WAIT_2);
    return true;
}

static bool ack_closing(struct stack *stack, struct tcb *tcb, struct segment *segment)
{
    if (!input_ack(stack, tcb, segment))
        return false;
    if (!is_fin_acknowledged(tcb))
        return true;
    tcb_finished(stack, tcb, true);
    return false;
}

static bool ack_last_ack(struct stack *stack, struct tcb *tcb, struct segment *segment)
{
    if (!input_ack(stack, tcb, segment))
        return false;
    if (!is_fin_acknowledged(tcb))
        return true;
    tcb_finished(stack, tcb, false);
    return false;
}

typedef bool ack_handler(struct stack *stack, struct tcb *tcb, struct segment *segment);
static ack_handler *const on_ack[TCP_STATE_COUNT] = {
    [TCP_SYN_RECEIVED] = ack_syn_received, [TCP_ESTABLISHED] = input_ack,
    [TCP_FIN_WAIT_1] = ack_fin_wait_1,     [TCP_FIN_WAIT_2] = input_ack,
    [TCP_CLOSE_WAIT] = input_ack,          [TCP_CLOSING] = ack_closing,
    [TCP_LAST_ACK] = ack_last_ack,
};

/* ---- 8: FIN ---- */

static void on_fin(struct stack *stack, struct tcb *tcb)
{
    tcb->rcv_nxt++;
    tcb->flags |= TCB_FIN_RECEIVED | TCB_ACK_NOW;
    tcb->slot.flags |= FLOW_SLOT_EOF;
    if (seq_gt(tcb->rcv_nxt, tcb->rcv_edge)) /* a FIN needs no room */
        tcb->rcv_edge = tcb->rcv_nxt;
    flow_core_touch(&stack->core, &tcb->slot);
    tcb_output_later(stack, tcb);
    switch ((enum tcp_state)tcb->state) {
    case TCP_ESTABLISHED:
        /* Whoever closes second needs no TIME_WAIT: that is what a linger waits for. */
        tcb_linger_end(stack, tcb);
        tcb_enter(stack, tcb, TCP_CLOSE_WAIT);
        return;
    case TCP_FIN_WAIT_1: /* with our FIN acknowledged it would be FIN_WAIT_2 by now */
        tcb_enter(stack, tcb, TCP_CLOSING);
        return;
    case TCP_FIN_WAIT_2:
        tcp_send_ack(stack, tcb);
        tcb_finished(stack, tcb, true);
        return;
    default:
        CHECK(!"a FIN is taken once, from a state that receives");
    }
}

/* ---- 7: text ---- */

/* RFC 9293 3.8.6.3, RFC 5681 4.2: at once for the first ones and for every second segment, else
 * when the delay is over or something is sent anyway. */
void tcp_ack_schedule(struct stack *stack, struct tcb *tcb, uint32_t segments)
{
    uint32_t quick = segments < tcb->quick_acks_left ? segments : tcb->quick_acks_left;

    tcb->quick_acks_left = (uint8_t)(tcb->quick_acks_left - quick);
    segments -= quick;
    if (quick > 0 || segments > 1 || (segments > 0 && tcb->flags & TCB_ACK_DELAYED))
        tcb->flags |= TCB_ACK_NOW;
    if (segments > 0 && !(tcb->flags & TCB_ACK_DELAYED)) {
        tcb->flags |= TCB_ACK_DELAYED;
        tcb->ack_at = stack->now + stack->options.tcp.delayed_ack_time;
    }
    tcb_output_later(stack, tcb);
}

/* RFC 3168 6.1.3: from the CE of a segment to the CWR of its sender, every ACK says ECE. */
static void on_ecn(struct tcb *tcb, const struct segment *segment)
{
    if (!(tcb->flags & TCB_HAS_ECN))
        return;
    if (segment->flags & TCP_CWR)
        tcb->flags &= ~(uint32_t)TCB_ECE_SEND;
    if (segment->is_ce)
        tcb->flags |= TCB_ECE_SEND | TCB_ACK_NOW;
}

/* The next octets, and nothing waits out of order. False: there is no memory for them. */
static bool input_text(struct stack *stack, struct tcb *tcb, struct segment *segment)
{
    if (!tcp_receive_in_order(stack, tcb, segment))
        return false;
    tcp_window_measure(stack, tcb);
    tcp_ack_schedule(stack, tcb, 1);
    return true;
}

/* Octets for an orphan are read and dropped, but not without end: then they belong to nobody, and
 * the peer is told so (RFC 1122 4.2.2.13). True: the tcb is gone. */
static bool orphan_is_overrun(struct stack *stack, struct tcb *tcb)
{
    if (!(tcb->slot.flags & FLOW_SLOT_ORPHAN) ||
        tcb->rcv_nxt - tcb->measure_sequence <= TCP_ORPHAN_DROP_MAX)
        return false;
    STACK_COUNT(stack, TCP_ORPHANS_OVERRUN);
    tcp_abort(stack, &tcb->slot);
    return true;
}

static void on_text(struct stack *stack, struct tcb *tcb, struct segment *segment)
{
    bool is_fin = segment->flags & TCP_FIN;

    if (segment->size == 0 && !is_fin)
        return;
    on_ecn(tcb, segment);
    if (tcb->reassembly == NULL && segment->sequence == tcb->rcv_nxt) {
        if (segment->size > 0 && !input_text(stack, tcb, segment))
            return;
    } else {
        /* RFC 5681 4.2: out of order, or filling a hole: at once. */
        tcp_receive_out_of_order(stack, tcb, segment);
        is_fin = tcp_receive_reassemble(stack, tcb);
        tcb->flags |= TCB_ACK_NOW;
        tcb_output_later(stack, tcb);
        /* Without SACK the peer counts: one for each, also of those that came in one burst. */
        if (!(tcb->flags & TCB_HAS_SACK))
            tcp_send_ack(stack, tcb);
    }
    if (orphan_is_overrun(stack, tcb))
        return;
    if (is_fin)
        on_fin(stack, tcb);
}

/* Cut off what was received already and what lies beyond the window. */
static void trim(struct stack *stack, struct tcb *tcb, struct segment *segment)
{
    uint32_t size = segment->size;

    if (seq_lt(segment->sequence, tcb->rcv_nxt)) {
        uint32_t cut = tcb->rcv_nxt - segment->sequence;
        cut = cut < segment->size ? cut : segment->size;
        if (cut > 0) {
            STACK_COUNT(stack, TCP_DUPLICATES);
            tcp_receive_note_duplicate(tcb, segment->sequence, segment->sequence + cut);
            tcb->flags |= TCB_ACK_NOW;
            tcb_output_later(stack, tcb);
        }
        segment->sequence += cut;
        segment->size -= cut;
        segment->payload_offset = (uint16_t)(segment->payload_offset + cut);
    }
    if (seq_gt(segment->sequence + segment->size, tcb->rcv_edge)) {
        STACK_COUNT(stack, TCP_BEYOND_WINDOW);
        segment->size =
            seq_lt(segment->sequence, tcb->rcv_edge) ? tcb->rcv_edge - segment->sequence : 0;
        segment->flags &= (uint8_t)~TCP_FIN;
        tcb->flags |= TCB_ACK_NOW;
        tcb_output_later(stack, tcb);
    }
    segment->is_trimmed = segment->size != size;
}

/* ---- 2: RST ---- */

/* RFC 5961 3.2: exactly the next octet, or it may be forged. */
static void on_rst(struct stack *stack, struct tcb *tcb, const struct segment *segment)
{
    if (segment->sequence != tcb->rcv_nxt) {
        tcp_challenge(stack, tcb);
        return;
    }
    STACK_COUNT(stack, TCP_RESETS_RECEIVED);
    /* 3.10.7.4: in CLOSING and LAST_ACK all was said; that our FIN was not acknowledged is not the
     * owner's loss as long as his octets were. */
    bool is_over = tcb->state == TCP_CLOSING || tcb->state == TCP_LAST_ACK;
    if (is_over && tcb->slot.unsent.size == 0)
        tcb_finished(stack, tcb, false);
    else
        tcb_lost(stack, tcb, tcb->state == TCP_SYN_RECEIVED ? ERR_REFUSED : ERR_PEER_RESET);
}

/* ---- 1: sequence number ---- */

/*
 * The table of 3.10.7.4 as one rule: some sequence number of the segment is wanted. Beyond the
 * table, a segment without any at the right edge is taken: a peer that filled our window while an
 * octet was lost sends its ACKs from there, and without them it would never learn which.
 */
static bool is_acceptable(const struct tcb *tcb, const struct segment *segment)
{
    if (segment->end == segment->sequence)
        return seq_ge(segment->sequence, tcb->rcv_nxt) && seq_le(segment->sequence, tcb->rcv_edge);
    return seq_gt(segment->end, tcb->rcv_nxt) && seq_lt(segment->sequence, tcb->rcv_edge);
}

static bool check_sequence(struct stack *stack, struct tcb *tcb, struct segment *segment)
{
    if (is_acceptable(tcb, segment))
        return true;
    /* With a closed window there is no room for text, but for an ACK or RST at the next octet. */
    if (segment->sequence == tcb->rcv_nxt && tcb->rcv_edge == tcb->rcv_nxt)
        return true;
    STACK_COUNT(stack, TCP_UNACCEPTABLE);
    if (segment->flags & TCP_RST)
        return false;
    if (segment->end == segment->sequence || segment->flags & TCP_SYN) {
        tcp_challenge(stack, tcb);
        return false;
    }
    /* Something sent again: our ACK was lost, or it was sent for nothing. Either way the peer needs
     * to hear, and it sent no less than we answer. */
    if (seq_le(segment->end, tcb->rcv_nxt) && segment->size > 0) {
        STACK_COUNT(stack, TCP_DUPLICATES);
        tcp_receive_note_duplicate(tcb, segment->sequence, segment->sequence + segment->size);
    }
    tcb->flags |= TCB_ACK_NOW;
    tcb_output_later(stack, tcb);
    return false;
}

/* ---- 0: timestamps ---- */

static bool timestamp_is_old(const struct stack *stack, const struct tcb *tcb, uint32_t value)
{
    return seq_lt(value, tcb->ts_recent) &&
           /* RFC 7323 5.5: after 24 days without one the clock may have gone half round. */
           now_ms(stack) - tcb->ts_recent_at < TWENTY_FOUR_DAYS_MS;
}

static bool check_timestamps(struct stack *stack, struct tcb *tcb, struct segment *segment)
{
    const struct tcp_options *options = &segment->header.options;

    /* RFC 7323 5.2: a RST is judged by its sequence number alone. A SYN is challenged anyway: it
     * may be from a peer that forgot the connection, and needs our ACK to end it. */
    if (!(tcb->flags & TCB_HAS_TIMESTAMPS) || segment->flags & (TCP_RST | TCP_SYN))
        return true;
    if (!options->has_timestamps) {
        /* RFC 7323 3.2: once agreed, every segment has them. */
        STACK_COUNT(stack, TCP_TIMESTAMP_MISSING);
        return false;
    }
    if (!timestamp_is_old(stack, tcb, options->timestamp_value))
        return true;
    STACK_COUNT(stack, TCP_PAWS);
    if (segment->size > 0 || segment->flags & TCP_FIN) {
        tcb->flags |= TCB_ACK_NOW;
        tcb_output_later(stack, tcb);
    } else {
        tcp_challenge(stack, tcb);
    }
    return false;
}

/* ---- 3.10.7.4 ---- */

static bool state_receives(const struct tcb *tcb)
{
    return tcb->state == TCP_ESTABLISHED || tcb->state == TCP_FIN_WAIT_1 ||
           tcb->state == TCP_FIN_WAIT_2;
}

static void input_synchronised(struct stack *stack, struct tcb *tcb, struct segment *segment)
{
    if (!check_timestamps(stack, tcb, segment) || !check_sequence(stack, tcb, segment))
        return;
    if (segment->flags & TCP_RST) {
        on_rst(stack, tcb, segment);
        return;
    }
    if (segment->flags & TCP_SYN) {
        STACK_COUNT(stack, TCP_SYN_INSIDE);
        tcp_challenge(stack, tcb);
        return;
    }
    if (!(segment->flags & TCP_ACK)) {
        STACK_COUNT(stack, TCP_ACK_MISSING);
        return;
    }
    trim(stack, tcb, segment);
    if (!on_ack[tcb->state](stack, tcb, segment))
        return;
    if (state_receives(tcb))
        on_text(stack, tcb, segment);
    else if (segment->size > 0)
        STACK_COUNT(stack, TCP_BEYOND_FIN);
}

/* ---- the usual ---- */

/* The ACK says what the one before said. (A plain one, of a window that did not change.) */
static bool is_no_news(const struct tcb *tcb, const struct segment *segment)
{
    return is_plain_ack(tcb, segment) && segment->window == tcb->snd_wnd && tcb->snd_wnd > 0 &&
           tcb->rtx_mode != TCP_RTX_PERSIST && seq_le(tcb->snd_wl1, segment->header.sequence);
}

/* What input_ack() would do. */
static void no_news_take(const struct stack *stack, struct tcb *tcb, const struct segment *segment)
{
    timestamp_take(stack, tcb, segment);
    tcb->snd_wl1 = segment->header.sequence;
    tcb->snd_wl2 = segment->header.acknowledgement;
}

/* True: it was nothing unusual, and is done. */
static bool input_fast(struct stack *stack, struct tcb *tcb, struct segment *segment)
{
    const struct tcp_options *options = &segment->header.options;
    const uint8_t unusual = TCP_FIN | TCP_SYN | TCP_RST | TCP_URG | TCP_ECE | TCP_CWR;

    if (tcb->state != TCP_ESTABLISHED || (segment->flags & (unusual | TCP_ACK)) != TCP_ACK ||
        segment->sequence != tcb->rcv_nxt || seq_gt(segment->end, tcb->rcv_edge) ||
        tcb->reassembly != NULL || segment->is_ce || tcb->slot.flags & FLOW_SLOT_ORPHAN)
        return false;
    if (tcb->flags & TCB_HAS_TIMESTAMPS) {
        if (!options->has_timestamps || seq_lt(options->timestamp_value, tcb->ts_recent))
            return false;
    }
    if (is_no_news(tcb, segment))
        no_news_take(stack, tcb, segment);
    else if (!input_ack(stack, tcb, segment))
        return true;
    if (segment->size > 0)
        (void)input_text(stack, tcb, segment);
    return true;
}

/* ---- 3.10.7.3 ---- */

static void syn_options_take(struct stack *stack, struct tcb *tcb, const struct segment *segment)
{
    const struct tcp_policy *policy = &stack->options.tcp;
    const struct tcp_options *options = &segment->header.options;

    if (options->has_mss)
        tcb->peer_mss = options->mss > policy->mss_min ? options->mss : policy->mss_min;
    if (options->has_sack_permitted && policy->has_sack)
        tcb->flags |= TCB_HAS_SACK;
    if (options->has_timestamps && policy->has_timestamps) {
        tcb->flags |= TCB_HAS_TIMESTAMPS;
        tcb->ts_recent = options->timestamp_value;
        tcb->ts_recent_at = now_ms(stack);
    }
    if (options->has_window_scale && policy->has_window_scale) {
        tcb->flags |= TCB_HAS_WINDOW_SCALE;
        /* RFC 7323 2.3: more than 14 means 14. */
        tcb->snd_scale = options->window_scale > 14 ? 14 : options->window_scale;
        tcb->rcv_scale = tcp_window_scale_offer(policy);
    }
}

static void syn_take(struct stack *stack, struct tcb *tcb, struct segment *segment)
{
    tcb->rcv_nxt = segment->sequence + 1;
    tcb->rcv_edge = tcb->rcv_nxt + tcp_window_start(stack, tcb->slot.receive_limit);
    tcb->last_ack_sent = tcb->rcv_nxt;
    segment->sequence++; /* of the text, if there is any */
    syn_options_take(stack, tcb, segment);
    tcb_mss_update(stack, tcb);
    window_take(tcb, segment);
}

static void input_syn_sent(struct stack *stack, struct tcb *tcb, struct segment *segment)
{
    uint32_t acknowledgement = segment->header.acknowledgement;
    bool has_ack = segment->flags & TCP_ACK;

    /* First: the ACK. Second: RST, believed with a good ACK alone. */
    if (has_ack &&
        (seq_le(acknowledgement, tcb->snd_una) || seq_gt(acknowledgement, tcb->snd_nxt))) {
        tcp_send_reset_for(stack, segment);
        return;
    }
    if (segment->flags & TCP_RST) {
        STACK_COUNT(stack, TCP_RESETS_RECEIVED);
        if (has_ack)
            tcb_lost(stack, tcb, ERR_REFUSED);
        return;
    }
    /* Fourth: SYN. */
    if (!(segment->flags & TCP_SYN)) {
        STACK_COUNT(stack, TCP_ACK_MISSING);
        return;
    }
    syn_take(stack, tcb, segment);
    if (!has_ack) {
        /* Simultaneous open. Text that came with the SYN is sent again by its sender. */
        tcb_enter(stack, tcb, TCP_SYN_RECEIVED);
        tcp_send_syn(stack, tcb);
        return;
    }
    tcp_connected(stack, tcb, acknowledgement);
    tcb->flags |= TCB_ACK_NOW;
    trim(stack, tcb, segment);
    on_text(stack, tcb, segment);
}

void tcp_input_segment(struct stack *stack, struct tcb *tcb, struct segment *segment)
{
    if (input_fast(stack, tcb, segment))
        return;
    if (tcb->state == TCP_SYN_SENT)
        input_syn_sent(stack, tcb, segment);
    else if (tcb->state != TCP_CLOSED)
        input_synchronised(stack, tcb, segment);
}

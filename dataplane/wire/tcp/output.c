/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a connection sends, and when.
 *
 * Calls of the owner, segments and timers only put a connection on the list; tcp_flush() looks at
 * each once at the end of the turn. So what was appended in pieces leaves together, an ACK rides on
 * data, and a burst of segments is answered once.
 *
 * Where a segment ends: after an mss, but where what was received as one nearly full segment can
 * leave as one there (tcp_send_cut()): such frames need no copy and no sum, which is worth more
 * than one frame fewer now and then.
 *
 * Order: a bare ACK when it has SACK blocks to tell (data segments have no room for them); what was
 * lost; new data, with the FIN on its last segment; the ACK, if nothing carried it; the timer.
 *
 * How much: the peer's window, congestion control's allowance, policy.send_window_max. A segment
 * that is not full goes only when it holds all there is to send (Nagle's wait is off: corks do its
 * work, flow.h rule 6), or fills half of the largest window the peer ever had (silly window
 * avoidance, RFC 9293 3.8.6.2.1); else the persist timer lets it go.
 *
 * Without buffers nothing large can be sent; but what is sent is acknowledged, and that brings
 * buffers back. So when a segment finds none, as much of it goes as fits behind its headers: many
 * connections that have appended all of a pool do not hold each other for ever.
 *
 * Limits: a connection stops for this turn when its port's queue is full or buffers are short, and
 * goes on in the next.
 */
#include "dataplane/wire/tcp/tcp.h"

void tcb_output_later(struct stack *stack, struct tcb *tcb)
{
    flow_core_send_now(&stack->core, &tcb->slot);
}

/* Payload that needs no buffer but the one of the headers. */
#define BARE_PAYLOAD_MAX (STACK_HEADER_SIZE - TCP_HEADER_SIZE - TCP_OPTIONS_SIZE_MAX)

/* The nic is asked at most once a turn when it refuses (tcp_flush() began with asking). */
static bool port_has_room(struct stack *stack, struct stack_port *port)
{
    if (port->waiting_count + TCP_PORT_ROOM_MIN < STACK_SEND_QUEUE)
        return true;
    if (port->waiting_refused == 0)
        stack_port_flush(stack, port);
    return port->waiting_count + TCP_PORT_ROOM_MIN < STACK_SEND_QUEUE;
}

/* True: the rest goes in the next turn. */
static bool is_cut_short(struct stack *stack, struct tcb *tcb)
{
    if (port_has_room(stack, tcb->destination->port))
        return false;
    STACK_COUNT(stack, TCP_SEND_PORT_FULL);
    tcb_output_later(stack, tcb);
    return true;
}

/* ---- again ---- */

/* What descriptor `index` describes, or its first `max` octets: then it is cut. */
static bool send_again(struct stack *stack, struct tcb *tcb, uint32_t index, uint32_t max)
{
    const struct tcp_sent *sent = tcp_sent_at(&tcb->sent, index);
    uint32_t octets = sent->size - (sent->flags & TCP_SENT_FIN ? 1u : 0u);

    if (octets > max) {
        if (tcp_sent_split(stack, tcb, index, (uint16_t)max) != ERR_OK)
            return false;
        sent = tcp_sent_at(&tcb->sent, index);
        octets = max;
    }
    bool is_fin = sent->flags & TCP_SENT_FIN;
    struct tcp_piece piece = {
        .sequence = sent->sequence,
        .offset = sent->sequence - tcb->snd_una,
        .size = octets,
        .flags = (uint8_t)((is_fin ? TCP_FIN : 0) |
                           (octets > 0 && index + 1 == tcb->sent.count ? TCP_PSH : 0)),
    };
    if (!tcp_segment_send(stack, tcb, &piece))
        return false;
    tcp_recovery_on_resent(stack, tcb, index);
    STACK_COUNT(stack, TCP_RETRANSMITTED);
    return true;
}

bool tcp_retransmit(struct stack *stack, struct tcb *tcb, uint32_t index)
{
    CHECK(!(tcp_sent_at(&tcb->sent, index)->flags & TCP_SENT_SYN));
    /* The path may have become narrower since: what is too long now goes in two. */
    tcb_mss_update(stack, tcb);
    return send_again(stack, tcb, index, tcb->mss) ||
           (tcb->mss > BARE_PAYLOAD_MAX && send_again(stack, tcb, index, BARE_PAYLOAD_MAX));
}

static void output_lost(struct stack *stack, struct tcb *tcb)
{
    uint32_t index;

    while ((index = tcp_recovery_next_lost(tcb)) != UINT32_MAX) {
        uint32_t allowance = tcp_recovery_allowance(stack, tcb);
        uint32_t size = tcp_sent_at(&tcb->sent, index)->size;
        if (allowance < (size < tcb->mss ? size : tcb->mss))
            return;
        if (is_cut_short(stack, tcb))
            return;
        if (!tcp_retransmit(stack, tcb, index)) {
            tcb_output_later(stack, tcb);
            return;
        }
    }
}

/* ---- new ---- */

/* Octets of the peer's window, and of our own bound, that are not in flight. */
static uint32_t window_left(const struct stack *stack, const struct tcb *tcb)
{
    uint32_t in_flight = tcb->snd_nxt - tcb->snd_una;
    uint32_t bound = stack->options.tcp.send_window_max;
    uint32_t window = tcb->snd_wnd < bound ? tcb->snd_wnd : bound;

    return window > in_flight ? window - in_flight : 0;
}

static bool fin_may_go(const struct tcb *tcb)
{
    return tcb->slot.flags & FLOW_SLOT_FIN_WANTED && !(tcb->flags & (TCB_FIN_SENT | TCB_LINGERS)) &&
           tcb->slot.held == 0 && (tcb->state == TCP_ESTABLISHED || tcb->state == TCP_CLOSE_WAIT);
}

/* A super-segment for the nic to cut: whole segments, as many as pieces allow. */
static uint32_t choose_tso(const struct tcb *tcb, uint32_t size)
{
    const struct stack_port *port = tcb->destination->port;
    uint32_t max = TCP_TSO_SIZE_MAX;

    if (!(port->nic->offloads & NIC_TX_TSO) || port->segments_max < 2)
        return tcb->mss;
    max = max < port->nic->tso_size_max ? max : port->nic->tso_size_max;
    size = size < max ? size : max;
    size -= size % tcb->mss;
    if (size <= tcb->mss)
        return tcb->mss;
    uint32_t fitting =
        tcp_send_fitting(tcb, tcb_octets_in_flight(tcb), size, port->segments_max - 1u);
    fitting -= fitting % tcb->mss;
    return fitting > tcb->mss ? fitting : tcb->mss;
}

/* Payload of the next segment; 0: none may go. */
static uint32_t choose_size(const struct stack *stack, const struct tcb *tcb, uint32_t available,
                            bool is_forced)
{
    uint32_t window = window_left(stack, tcb);
    uint32_t allowance = tcp_recovery_allowance(stack, tcb);
    uint32_t size = available < window ? available : window;

    size = size < allowance ? size : allowance;
    if (size >= 2u * tcb->mss)
        return choose_tso(tcb, size);
    if (size >= tcb->mss)
        return tcb->mss;
    if (size == available || is_forced)
        return size;
    if (size == window)
        return window >= tcb->snd_wnd_max / 2 ? size : 0;
    /* Less than a segment is allowed: more will be, by the next ACK, if there is one to come. */
    return tcb->snd_una == tcb->snd_nxt ? size : 0;
}

static void describe_one(struct stack *stack, struct tcb *tcb, uint32_t numbers, uint8_t flags)
{
    enum err err = tcp_sent_push(stack, tcb, (uint16_t)numbers, flags);

    CHECK(err == ERR_OK); /* there was room before the frame was built */
    tcp_recovery_on_sent(stack, tcb);
}

/* Descriptors for what was sent as one frame. */
static void describe(struct stack *stack, struct tcb *tcb, uint32_t size, bool is_fin)
{
    for (; size > tcb->mss; size -= tcb->mss)
        describe_one(stack, tcb, tcb->mss, 0);
    describe_one(stack, tcb, is_fin ? size + 1 : size, is_fin ? TCP_SENT_FIN : 0);
    if (!is_fin)
        return;
    tcb->flags |= TCB_FIN_SENT;
    tcb->slot.flags |= FLOW_SLOT_FIN_SENT;
    tcb_enter(stack, tcb, tcb->state == TCP_ESTABLISHED ? TCP_FIN_WAIT_1 : TCP_LAST_ACK);
}

/* False: there was no buffer; perhaps less of it went. */
static bool output_piece(struct stack *stack, struct tcb *tcb, const struct tcp_piece *piece,
                         bool is_fin)
{
    if (tcp_segment_send(stack, tcb, piece)) {
        describe(stack, tcb, piece->size, is_fin);
        return true;
    }
    tcb_output_later(stack, tcb);
    if (piece->size <= BARE_PAYLOAD_MAX)
        return false;
    struct tcp_piece bare = *piece;
    bare.size = BARE_PAYLOAD_MAX;
    bare.flags = 0;
    bare.whole = NULL;
    if (tcp_segment_send(stack, tcb, &bare))
        describe(stack, tcb, bare.size, false);
    return false;
}

/* One frame of new data, or the FIN. False: the rest waits. */
static bool output_one(struct stack *stack, struct tcb *tcb, uint32_t available, bool is_forced,
                       struct ip_train *train)
{
    uint32_t size = choose_size(stack, tcb, available, is_forced);
    struct buf *whole = NULL;

    if (size >= tcb->mss - tcb->mss / 4u && size <= tcb->mss)
        size = tcp_send_cut(tcb, size, available, &whole);
    bool is_fin = size == available && fin_may_go(tcb);
    if ((size == 0 && !is_fin) || !tcp_sent_has_room(tcb, size / tcb->mss + 2))
        return false;
    if (is_cut_short(stack, tcb))
        return false;
    struct tcp_piece piece = {
        .sequence = tcb->snd_nxt,
        .offset = tcb_octets_in_flight(tcb),
        .size = size,
        .flags = (uint8_t)((is_fin ? TCP_FIN : 0) | (size > 0 && size == available ? TCP_PSH : 0)),
        .is_new = true,
        /* A train is for who has more to send. */
        .train = size < available || train->size > 0 ? train : NULL,
        .whole = whole};
    return output_piece(stack, tcb, &piece, is_fin);
}

/*
 * Behind the first of a train: whole segments as long as there are more octets than one, as
 * output_one() would send them. Of what it asks, only sums of octets change from one to the next;
 * but with a scoreboard more does (PRR), and a nic that cuts gets more at once. False: the rest
 * waits.
 */
static bool output_train(struct stack *stack, struct tcb *tcb, struct ip_train *train)
{
    uint32_t mss = tcb->mss, available = tcb_unsent_size(tcb);

    if (train->size == 0 || tcb->scoreboard != NULL || available <= mss ||
        destination_offloads(tcb->destination) & NIC_TX_TSO)
        return true;
    uint32_t window = window_left(stack, tcb), most = tcp_recovery_allowance(stack, tcb);
    struct tcp_piece piece = {.is_new = true, .train = train};
    most = most < window ? most : window;
    while (available > mss && most >= mss && tcp_sent_has_room(tcb, 3)) {
        if (is_cut_short(stack, tcb))
            return false;
        uint32_t sent = tcp_train_go(stack, tcb, train, available, most);
        most -= sent;
        available -= sent;
        if (sent > 0)
            continue;
        piece.sequence = tcb->snd_nxt;
        piece.offset = tcb_octets_in_flight(tcb);
        piece.size = tcp_send_cut(tcb, mss, available, &piece.whole);
        if (!output_piece(stack, tcb, &piece, false))
            return false;
        most -= piece.size;
        available -= piece.size;
    }
    return true;
}

static void output_new(struct stack *stack, struct tcb *tcb, bool is_forced)
{
    uint32_t available = tcb_unsent_size(tcb);
    struct ip_train train UNINITIALIZED;

    if (available == 0 && !fin_may_go(tcb))
        return;
    /* RFC 5681 4.1: after silence for an RTO the window says nothing about the path any more. */
    if (tcb->snd_nxt == tcb->snd_una && stack->now - tcb->unacked_since > tcb->rtt.rto)
        tcp_congestion_idle(stack, tcb);
    tcb_mss_update(stack, tcb);
    train.size = 0;
    while ((available > 0 || fin_may_go(tcb)) &&
           output_one(stack, tcb, available, is_forced, &train)) {
        if (!output_train(stack, tcb, &train))
            return;
        available = tcb_unsent_size(tcb);
        is_forced = false;
    }
}

/* ---- all of it ---- */

static void output(struct stack *stack, struct tcb *tcb, bool is_forced)
{
    bool has_blocks = tcb->reassembly != NULL || tcb->flags & TCB_DSACK_SEND;

    if (tcb->state == TCP_CLOSED)
        return;
    if (tcb->state <= TCP_SYN_RECEIVED && (tcb->sent.count == 0 || tcb->flags & TCB_SYN_DUE))
        tcp_send_syn(stack, tcb);
    if (tcb->state == TCP_CLOSED) /* there is no way to the peer, and we were told at once */
        return;
    if (tcb->flags & TCB_ACK_NOW && has_blocks)
        tcp_send_ack(stack, tcb);
    if (tcb->state >= TCP_ESTABLISHED) {
        output_lost(stack, tcb);
        output_new(stack, tcb, is_forced);
    }
    if (tcb->flags & TCB_ACK_NOW)
        tcp_send_ack(stack, tcb);
    if (tcb->sent.count == 0 && tcb->sent.ring != NULL)
        tcp_sent_free(tcb);
    tcb_rtx_set(stack, tcb);
    tcb_timer_set(stack, tcb);
}

void tcp_output(struct stack *stack, struct tcb *tcb)
{
    output(stack, tcb, false);
}

void tcp_output_forced(struct stack *stack, struct tcb *tcb)
{
    output(stack, tcb, true);
}

/* Connections whose port is full wait for the next turn, in their order and without being looked
 * at: there may be thousands. */
static void flush_round(struct stack *stack, struct flow_link *round)
{
    struct flow_slot *slot;

    while ((slot = flow_core_dirty_next(round)) != NULL) {
        if (slot->kind != FLOW_SLOT_STREAM)
            continue;
        struct tcb *tcb = tcb_of(slot);
        if (tcb->state == TCP_CLOSED || !is_cut_short(stack, tcb))
            tcp_output(stack, tcb);
        else if (stack->port_count == 1)
            flow_core_dirty_return(&stack->core, round);
    }
}

void tcp_flush(struct stack *stack)
{
    struct flow_link round;
    struct flow_slot *slot;

    stack_flush_ports(stack); /* what was refused before goes first */
    flow_core_read_round(&stack->core, &round);
    while ((slot = flow_core_read_next(&round)) != NULL) {
        if (slot->kind == FLOW_SLOT_STREAM)
            tcp_window_update(stack, tcb_of(slot));
    }
    flow_core_dirty_round(&stack->core, &round);
    flush_round(stack, &round);
}

/* ---- segment size ---- */

static uint16_t path_mss(struct stack *stack, const struct tcb *tcb)
{
    uint16_t headers =
        (tcb->key.family == FLOW_FAMILY_IP6 ? IP6_HEADER_SIZE : IP4_HEADER_SIZE) + TCP_HEADER_SIZE;

    return (uint16_t)(destination_mtu(stack, tcb->destination) - headers);
}

void tcb_mss_update(struct stack *stack, struct tcb *tcb)
{
    uint32_t mss = path_mss(stack, tcb);

    mss = mss < tcb->peer_mss ? mss : tcb->peer_mss;
    if (tcb->destination->port->segments_max == 1) {
        /* Headers and payload in one buffer of our own. */
        uint32_t room =
            buf_pool_data_size(stack->options.pool) - TCP_HEADER_SIZE - TCP_OPTIONS_SIZE_MAX;
        mss = mss < room ? mss : room;
    }
    /* RFC 6691: the option speaks of segments without options, so these come off. */
    if (tcb->flags & TCB_HAS_TIMESTAMPS)
        mss -= 12;
    tcb->mss = (uint16_t)mss;
}

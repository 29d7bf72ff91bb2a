/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every invariant of a connection, CHECKed. Tests call this after every event; nothing else does.
 */
#include "dataplane/wire/tcp/tcp.h"

static void verify_sent(const struct tcb *tcb)
{
    uint32_t sequence = tcb->snd_una, sacked = 0, lost = 0, retransmitted = 0;

    CHECK(tcb->sent.count <= (tcb->sent.capacity > 0 ? tcb->sent.capacity : 1u));
    CHECK(tcb->sent.count <= TCP_SENT_MAX);
    for (uint32_t i = 0; i < tcb->sent.count; i++) {
        const struct tcp_sent *sent = tcp_sent_at(&tcb->sent, i);
        bool is_last = i + 1 == tcb->sent.count;
        CHECK(sent->sequence == sequence && sent->size > 0);
        CHECK(!(sent->flags & TCP_SENT_SYN) || tcb->state <= TCP_SYN_RECEIVED);
        CHECK(!(sent->flags & TCP_SENT_FIN) || (is_last && tcb->flags & TCB_FIN_SENT));
        CHECK((sent->flags & (TCP_SENT_SACKED | TCP_SENT_LOST)) !=
              (TCP_SENT_SACKED | TCP_SENT_LOST));
        sequence += sent->size;
        sacked += sent->flags & TCP_SENT_SACKED ? sent->size : 0u;
        lost += sent->flags & TCP_SENT_LOST ? sent->size : 0u;
        retransmitted += sent->flags & TCP_SENT_RETRANSMITTED ? sent->size : 0u;
    }
    CHECK(sequence == tcb->snd_nxt);
    CHECK(sacked == tcb->sacked && lost == tcb->lost && retransmitted == tcb->retransmitted);
}

/* The cursor stands behind what is in flight. */
static void verify_cursor(const struct tcb *tcb)
{
    uint32_t octets = tcb_octets_in_flight(tcb), before = 0;
    const struct buf_queue *unsent = &tcb->slot.unsent;

    CHECK(octets <= flow_core_sendable(&tcb->slot));
    CHECK(tcb->send_slice == 0 || tcb->send_slice < unsent->count);
    for (uint32_t i = 0; i < tcb->send_slice; i++)
        before += buf_queue_get(unsent, i)->size;
    CHECK(before + tcb->send_offset == octets);
    CHECK(unsent->count == 0 || tcb->send_offset <= buf_queue_get(unsent, tcb->send_slice)->size);
}

static void verify_closed(const struct tcb *tcb)
{
    CHECK(tcb->destination == NULL && tcb->reassembly == NULL && tcb->scoreboard == NULL);
    CHECK(tcb->sent.capacity == 0 && !wheel_is_armed(&tcb->timer));
    CHECK(!(tcb->slot.flags & (FLOW_SLOT_ORPHAN | FLOW_SLOT_UNACCEPTED)));
    CHECK(tcb->slot.unsent.size == 0);
}

static void verify_time(const struct tcb *tcb)
{
    tick_us at = tcb->rtx_at < tcb->ack_at ? tcb->rtx_at : tcb->ack_at;

    at = at < tcb->life_at ? at : tcb->life_at;
    /* What is on the list has its timer set at the end of the turn. */
    if (at != TICK_NEVER && tcb->slot.dirty.next == NULL)
        CHECK(wheel_is_armed(&tcb->timer) && tcb->timer.deadline <= at);
    CHECK((tcb->rtx_mode == TCP_RTX_NONE) == (tcb->rtx_at == TICK_NEVER) ||
          tcb->slot.dirty.next != NULL);
    CHECK((tcb->ack_at == TICK_NEVER) == !(tcb->flags & TCB_ACK_DELAYED) ||
          tcb->slot.dirty.next != NULL);
    /* Nothing waits for ever: what is in flight has a timer, what is connecting an end. */
    if (tcb->slot.dirty.next == NULL && tcb->state >= TCP_ESTABLISHED)
        CHECK(tcb->snd_una == tcb->snd_nxt || tcb->rtx_at != TICK_NEVER);
    if (tcb->state == TCP_SYN_SENT || tcb->state == TCP_SYN_RECEIVED ||
        tcb->slot.flags & FLOW_SLOT_ORPHAN)
        CHECK(tcb->life_at != TICK_NEVER);
}

static void verify_state(const struct tcb *tcb)
{
    static const uint32_t fin_sent =
        1u << TCP_FIN_WAIT_1 | 1u << TCP_FIN_WAIT_2 | 1u << TCP_CLOSING | 1u << TCP_LAST_ACK;
    static const uint32_t fin_received =
        1u << TCP_CLOSE_WAIT | 1u << TCP_CLOSING | 1u << TCP_LAST_ACK;
    uint32_t bit = 1u << tcb->state;

    CHECK(!(tcb->flags & TCB_FIN_SENT) == !(bit & fin_sent));
    CHECK(!(tcb->flags & TCB_FIN_RECEIVED) == !(bit & fin_received));
    CHECK(!(tcb->flags & TCB_FIN_RECEIVED) == !(tcb->slot.flags & FLOW_SLOT_EOF));
    CHECK(tcb->state != TCP_FIN_WAIT_2 || tcb->snd_una == tcb->snd_nxt);
    CHECK(!(tcb->flags & TCB_LINGERS) || tcb->slot.flags & FLOW_SLOT_ORPHAN);
    if (tcb->state >= TCP_ESTABLISHED)
        CHECK(tcb->slot.flags & FLOW_SLOT_OPEN && seq_ge(tcb->rcv_edge, tcb->rcv_nxt));
}

void tcb_verify(const struct stack *stack, const struct tcb *tcb)
{
    CHECK(tcb->slot.kind == FLOW_SLOT_STREAM && tcb->state < TCP_STATE_COUNT);
    if (tcb->state == TCP_CLOSED) {
        verify_closed(tcb);
        return;
    }
    struct tcp_found found = tcp_table_find((struct stack *)(uintptr_t)stack, &tcb->key);
    CHECK(found.kind == TCP_FOUND_TCB && found.index == tcb->slot.index);
    CHECK(tcb->destination != NULL && tcb->mss > 0);
    verify_state(tcb);
    verify_sent(tcb);
    if (tcb->state >= TCP_ESTABLISHED)
        verify_cursor(tcb);
    verify_time(tcb);
    tcp_recovery_verify(tcb);
    tcp_reassembly_verify(tcb);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can be seen of a stack from outside: its flows, what is in use, and whether all of it is in
 * order. Nothing here changes anything.
 */
#include "dataplane/wire/net/stack_internal.h"
#include "dataplane/wire/tcp/tcp.h"

/* The look-ups below take a stack that may be written to; nothing is. */
static struct stack *mutable_of(const struct stack *stack)
{
    return (struct stack *)(uintptr_t)stack;
}

static const struct flow_slot *slot_at(const struct stack *stack, uint32_t index)
{
    return flow_core_slot_at(&mutable_of(stack)->core, index);
}

/* ---- flows ---- */

static const char *const state_names[TCP_STATE_COUNT] = {
#define X(name) #name,
    TCP_STATES(X)
#undef X
};

static void row_of_stream(const struct stack *stack, const struct tcb *tcb,
                          struct stack_flow_row *ret_row)
{
    const struct tcp_key *key = &tcb->key;
    uint32_t age_ms = (uint32_t)(stack->now / 1000) - tcb->opened_at;

    CHECK(tcb->state < TCP_STATE_COUNT);
    *ret_row = (struct stack_flow_row){
        .local = {.family = key->family, .port = key->local_port},
        .remote = {.family = key->family, .port = key->remote_port},
        .state = state_names[tcb->state],
        .receive_queued = (uint32_t)tcb->slot.received.size,
        .send_queued = (uint32_t)tcb->slot.unsent.size,
        .in_flight = tcb->snd_nxt - tcb->snd_una,
        .window_congestion = tcb->congestion.cwnd,
        .window_peer = tcb->snd_wnd,
        .mss = tcb->mss,
        .rtt_us = tcb->rtt.srtt,
        .rto_us = tcb->rtt.rto,
        .octets_received = tcb->octets_received,
        .octets_sent = tcb->octets_sent,
        .retransmitted = tcb->retransmit_count,
        .lost = tcb->lost,
        .age = TICK_MS(age_ms),
    };
    memcpy(ret_row->local.ip, key->local, 16);
    memcpy(ret_row->remote.ip, key->remote, 16);
}

static void row_of(const struct stack *stack, const struct flow_slot *slot,
                   struct stack_flow_row *ret_row)
{
    if (slot->kind == FLOW_SLOT_STREAM) {
        row_of_stream(stack, (const struct tcb *)(const void *)slot, ret_row);
        return;
    }
    *ret_row = (struct stack_flow_row){0};
    if (slot->kind == FLOW_SLOT_LISTENER) {
        ret_row->local = ((const struct tcp_listener *)(const void *)slot)->address;
        ret_row->state = "LISTEN";
        return;
    }
    ret_row->state = "DATAGRAM";
    udp_row(slot, ret_row);
}

uint32_t stack_flows(const struct stack *stack, uint64_t *cursor, struct stack_flow_row *ret_rows,
                     uint32_t max)
{
    uint32_t count = 0;

    for (; count < max && *cursor < stack->core.slot_count; (*cursor)++) {
        const struct flow_slot *slot = slot_at(stack, (uint32_t)*cursor);
        if (slot->kind != FLOW_SLOT_FREE)
            row_of(stack, slot, &ret_rows[count++]);
    }
    return count;
}

/* ---- what is in use ---- */

static uint64_t memory_of(const struct stack *stack)
{
    return sizeof(*stack) + flow_core_memory(&stack->core) + destination_memory(stack) +
           neigh_memory(stack) + udp_memory(stack) + tcp_table_memory(stack) +
           tcp_time_waits_memory(stack) + tcp_syn_cache_memory(stack) + tcp_limits_memory(stack);
}

struct stack_usage stack_get_usage(const struct stack *stack)
{
    struct stack_usage usage = {
        .connections = stack->tcp->connection_count,
        .half_open = tcp_syn_cache_count(stack),
        .time_wait = tcp_time_waits_count(stack),
        .orphans = stack->core.stats.orphans,
        .neighbours = neigh_asked_count(stack),
        .destinations = destination_referenced_count(stack),
        .datagram_flows = udp_count(stack),
        .out_of_order_buffers = tcp_receive_buffers(stack),
        .armed_timers = (uint32_t)stack->wheel.armed - neigh_timer_count(stack) -
                        wheel_is_armed(&stack->tcp->list_timer),
        .memory = memory_of(stack),
    };

    for (uint32_t i = 0; i < stack->port_count; i++)
        usage.frames_waiting += stack->ports[i].waiting_count;
    for (uint32_t i = 0; i < stack->core.slot_count; i++) {
        const struct flow_slot *slot = slot_at(stack, i);
        if (slot->kind == FLOW_SLOT_STREAM)
            usage.sent_segments += ((const struct tcb *)(const void *)slot)->sent.count;
    }
    return usage;
}

/* ---- whether it is in order ---- */

static void port_verify(const struct stack_port *port)
{
    CHECK(port->waiting_count <= STACK_SEND_QUEUE);
    CHECK(port->waiting_refused <= port->waiting_count);
    for (uint32_t i = 0; i < port->waiting_count; i++)
        CHECK(port->waiting[i] != NULL && port->waiting[i]->mbuf.nb_segs <= port->segments_max);
}

void stack_verify(const struct stack *stack)
{
    struct stack *all = mutable_of(stack);

    for (uint32_t i = 0; i < stack->port_count; i++)
        port_verify(&stack->ports[i]);
    neigh_verify(stack);
    destination_verify(stack);
    udp_verify(all);
    tcp_table_verify(all);
    tcp_time_waits_verify(all);
    tcp_syn_cache_verify(all);
    tcp_limits_verify(all);
    for (uint32_t i = 0; i < stack->core.slot_count; i++) {
        const struct flow_slot *slot = slot_at(stack, i);
        if (slot->kind == FLOW_SLOT_STREAM)
            tcb_verify(stack, (const struct tcb *)(const void *)slot);
    }
}

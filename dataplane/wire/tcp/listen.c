/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listeners, and the connections that wait to be accepted.
 *
 * A handshake is the SYN cache's until its last ACK. Then there is a tcb, ESTABLISHED and
 * receiving, on its listener's ready list: nobody owns it (FLOW_SLOT_UNACCEPTED), so nothing of it
 * is reported, and its user value is the index of the listener's slot. tcp_accept() hands it over.
 *
 * When there is no slot for it the peer gets a RST, and the listener remembers that: accept then
 * says ERR_LIMIT once, as it does where descriptors run out.
 *
 * Invariants
 *   1. ready_count is the number of tcbs on `ready`, linked by slot.read.
 *   2. An unaccepted connection that is lost is freed at once: what it sent was never anybody's.
 *
 * Limits: TCP_LISTENER_MAX listeners; `backlog` connections wait, BACKLOG_DEFAULT if the owner says
 * 0. The SYN cache looks at both counts.
 */
#include "dataplane/wire/tcp/tcp.h"

#define BACKLOG_DEFAULT 4096u

static struct tcp_listener *listener_of(struct flow_slot *slot)
{
    return (struct tcp_listener *)(void *)slot;
}

static struct tcp_listener *listener_find(struct stack *stack, struct flow flow)
{
    struct flow_slot *slot = flow_core_find(&stack->core, flow);
    return slot != NULL && slot->kind == FLOW_SLOT_LISTENER ? listener_of(slot) : NULL;
}

void flow_slot_set_limits(struct flow_slot *slot, uint32_t receive_limit, uint32_t send_limit)
{
    if (receive_limit > 0)
        slot->receive_limit = receive_limit;
    if (send_limit > 0)
        slot->send_limit = send_limit;
}

/* ---- listening ---- */

static bool address_is_possible(struct stack *stack, const struct flow_address *address)
{
    static const uint8_t any[16];

    if ((address->family != FLOW_FAMILY_IP4 && address->family != FLOW_FAMILY_IP6) ||
        address->port == 0)
        return false;
    return memcmp(address->ip, any, sizeof(any)) == 0 ||
           stack_local_find(stack, address->family, address->ip) != NULL;
}

enum err tcp_listen(struct flow_plane *plane, const struct flow_listen_options *options,
                    struct flow *ret_flow)
{
    struct stack *stack = stack_of(plane);

    if (!address_is_possible(stack, &options->address))
        return ERR_SYSTEM;
    struct flow_slot *slot = flow_core_slot_new(&stack->core, FLOW_SLOT_LISTENER, options->user);
    if (slot == NULL)
        return ERR_LIMIT;
    struct tcp_listener *listener = listener_of(slot);
    listener->address = options->address;
    listener->address.reserved = 0;
    listener->backlog = options->backlog == 0 ? BACKLOG_DEFAULT : options->backlog;
    flow_link_init(&listener->ready);
    flow_slot_set_limits(slot, options->receive_limit, options->send_limit);
    listener->receive_limit = slot->receive_limit;
    listener->send_limit = slot->send_limit;
    enum err err = tcp_listener_add(stack, listener);
    if (err != ERR_OK) {
        flow_core_slot_free(&stack->core, slot);
        return err;
    }
    *ret_flow = flow_core_handle(slot);
    return ERR_OK;
}

void tcp_listener_close(struct stack *stack, struct flow_slot *slot)
{
    struct tcp_listener *listener = listener_of(slot);

    while (!flow_link_is_empty(&listener->ready))
        tcp_abort(stack, FLOW_SLOT_OF(listener->ready.next, read));
    tcp_listener_closed(stack, listener);
    tcp_listener_remove(stack, listener);
    flow_core_slot_free(&stack->core, slot);
}

/* ---- the ready list ---- */

static void listener_announce(struct stack *stack, struct tcp_listener *listener)
{
    listener->slot.flags |= FLOW_SLOT_PENDING;
    flow_core_touch(&stack->core, &listener->slot);
}

static void listener_unlink(struct tcp_listener *listener, struct tcb *tcb)
{
    CHECK(tcb->slot.flags & FLOW_SLOT_UNACCEPTED && listener->ready_count > 0);
    flow_link_remove(&tcb->slot.read);
    listener->ready_count--;
    tcb->slot.flags &= ~(uint32_t)FLOW_SLOT_UNACCEPTED;
}

void tcp_listener_forget(struct stack *stack, struct tcb *tcb)
{
    struct flow_slot *slot = flow_core_slot_at(&stack->core, (uint32_t)tcb->slot.user);

    CHECK(slot != NULL && slot->kind == FLOW_SLOT_LISTENER);
    listener_unlink(listener_of(slot), tcb);
}

static void agreed_take(struct stack *stack, struct tcb *tcb, const struct tcp_agreed *agreed)
{
    tcb->flags |= TCB_IS_PASSIVE;
    tcb->flags |= agreed->has_window_scale ? TCB_HAS_WINDOW_SCALE : 0u;
    tcb->flags |= agreed->has_sack ? TCB_HAS_SACK : 0u;
    tcb->flags |= agreed->has_timestamps ? TCB_HAS_TIMESTAMPS : 0u;
    tcb->flags |= agreed->has_ecn ? TCB_HAS_ECN : 0u;
    tcb->snd_scale = agreed->snd_scale;
    tcb->rcv_scale = agreed->rcv_scale;
    tcb->peer_mss = agreed->mss;
    tcb->ts_recent = agreed->ts_recent;
    tcb->ts_recent_at = (uint32_t)(stack->now / TICK_MS(1));
    tcb->ts_offset = agreed->ts_offset;
    tcb->snd_una = tcb->snd_nxt = agreed->iss + 1;
    tcb->rcv_nxt = tcb->last_ack_sent = agreed->irs + 1;
    tcb->rcv_edge = tcb->rcv_nxt + agreed->window_offered;
    tcb->snd_wnd = tcb->snd_wnd_max = agreed->window;
    /* Older than the segment that completes the handshake, from which the window is taken. */
    tcb->snd_wl1 = agreed->irs;
    tcb->snd_wl2 = agreed->iss;
}

/* No slot, or no way to it: RFC 9293 3.10.7.1. */
static void turn_away(struct stack *stack, struct tcp_listener *listener, const struct tcp_key *key,
                      const struct tcp_agreed *agreed)
{
    const struct tcp_header reset = {.sequence = agreed->iss + 1, .flags = TCP_RST};

    STACK_COUNT(stack, TCP_TURNED_AWAY);
    stack->core.stats.refused++;
    listener->turned_away++;
    listener_announce(stack, listener);
    tcp_send_plain(stack, key, &reset);
}

struct tcb *tcp_accept_ready(struct stack *stack, struct tcp_listener *listener,
                             const struct tcp_key *key, const struct tcp_agreed *agreed)
{
    struct tcb *tcb = tcb_new(stack, key, listener->slot.index);

    if (tcb == NULL) {
        turn_away(stack, listener, key, agreed);
        return NULL;
    }
    flow_slot_set_limits(&tcb->slot, listener->receive_limit, listener->send_limit);
    agreed_take(stack, tcb, agreed);
    if (agreed->syn_ack_at != 0)
        tcp_rtt_sample(&tcb->rtt, &stack->options.tcp, (uint32_t)(stack->now - agreed->syn_ack_at));
    tcb_opened(stack, tcb);
    tcb->slot.flags |= FLOW_SLOT_OPEN | FLOW_SLOT_UNACCEPTED;
    flow_link_push(&listener->ready, &tcb->slot.read);
    listener->ready_count++;
    listener_announce(stack, listener);
    return tcb;
}

/* ---- accepting ---- */

/* The one that waited longest. ERR_LIMIT: one was turned away since this was last said. */
static enum err listener_pop(struct stack *stack, struct tcp_listener *listener,
                             struct tcb **ret_tcb)
{
    if (!flow_link_is_empty(&listener->ready)) {
        struct tcb *tcb = tcb_of(FLOW_SLOT_OF(listener->ready.next, read));
        listener_unlink(listener, tcb);
        flow_core_touch(&stack->core, &listener->slot);
        *ret_tcb = tcb;
        return ERR_OK;
    }
    if (listener->turned_away > 0) {
        listener->turned_away--;
        flow_core_touch(&stack->core, &listener->slot);
        return ERR_LIMIT;
    }
    listener->slot.flags &= ~(uint32_t)FLOW_SLOT_PENDING;
    return ERR_AGAIN;
}

enum err tcp_accept(struct flow_plane *plane, struct flow from, uint64_t user,
                    struct flow *ret_flow, struct flow_address *ret_peer)
{
    struct stack *stack = stack_of(plane);
    struct tcp_listener *listener = listener_find(stack, from);
    struct tcb *tcb;

    if (listener == NULL)
        return ERR_STALE;
    TRY(listener_pop(stack, listener, &tcb));
    tcb->slot.user = user;
    stack->core.stats.accepted++;
    flow_core_touch(&stack->core, &tcb->slot);
    *ret_peer = tcp_key_remote(&tcb->key);
    *ret_flow = flow_core_handle(&tcb->slot);
    return ERR_OK;
}

enum err tcp_refuse(struct flow_plane *plane, struct flow from)
{
    struct stack *stack = stack_of(plane);
    struct tcp_listener *listener = listener_find(stack, from);
    struct tcb *tcb;

    if (listener == NULL)
        return ERR_STALE;
    enum err err = listener_pop(stack, listener, &tcb);
    if (err == ERR_LIMIT)
        return ERR_OK; /* refused already, and counted */
    TRY(err);
    stack->core.stats.refused++;
    tcp_abort(stack, &tcb->slot);
    return ERR_OK;
}

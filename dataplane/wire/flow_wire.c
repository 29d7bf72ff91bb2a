/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flow.h on the stack. What concerns handles, received and unsent octets is flow_core's; here is
 * the turn, and who answers for which kind of flow.
 *
 *   poll    frames in, timers (stack_poll_ports); then what changed is reported
 *   flush   window updates, output of every connection on the list (tcp_flush), frames to the nics;
 *           then the settle
 *
 * The stack never sleeps: it is polled, and flow_deadline() says how long it may be left alone. So
 * flow_wait() returns at once, and there is nothing that a watched descriptor would have to end.
 */
#include "dataplane/wire/tcp/tcp.h"

#define UNFINISHED_TIME TICK_MS(1) /* until what this turn could not do is tried again */

static struct flow_slot *slot_find(struct stack *stack, struct flow flow)
{
    return flow_core_find(&stack->core, flow);
}

static uint32_t wire_poll(struct flow_plane *plane, tick_us now, struct flow_event *ret_events,
                          uint32_t max)
{
    struct stack *stack = stack_of(plane);

    stack_poll_ports(stack, now);
    uint32_t count = flow_core_report(&stack->core, ret_events, max);
    (void)STACK_STAGE(stack, APPLICATION);
    return count;
}

static void wire_flush(struct flow_plane *plane, tick_us now)
{
    struct stack *stack = stack_of(plane);

    stack->now = now;
    (void)STACK_STAGE(stack, OUTPUT);
    tcp_flush(stack);
    stack_flush_ports(stack);
    flow_core_settle(&stack->core);
    (void)STACK_STAGE(stack, APPLICATION);
}

static tick_us wire_deadline(struct flow_plane *plane)
{
    struct stack *stack = stack_of(plane);
    tick_us deadline = stack_deadline(stack);

    if (flow_core_is_quiet(&stack->core))
        return deadline;
    /* Reports that did not fit, or a connection that a full nic or an empty pool cut short. */
    tick_us soon = stack->now + (flow_link_is_empty(&stack->core.report) ? UNFINISHED_TIME : 0);
    return deadline < soon ? deadline : soon;
}

static void wire_wait(struct flow_plane *plane, tick_us now, tick_us deadline)
{
    (void)plane;
    (void)now;
    (void)deadline;
}

static bool wire_spins(struct flow_plane *plane, tick_us now)
{
    (void)plane;
    (void)now;
    return true;
}

static enum err wire_watch(struct flow_plane *plane, int fd)
{
    (void)plane;
    (void)fd;
    return ERR_OK;
}

static enum err wire_addresses(struct flow_plane *plane, struct flow flow,
                               struct flow_address *ret_local, struct flow_address *ret_peer)
{
    struct stack *stack = stack_of(plane);
    struct flow_slot *slot = slot_find(stack, flow);

    if (slot == NULL)
        return ERR_STALE;
    if (slot->kind == FLOW_SLOT_DATAGRAM)
        return udp_addresses(stack, slot, ret_local, ret_peer);
    if (slot->kind == FLOW_SLOT_LISTENER) {
        *ret_local = ((const struct tcp_listener *)(const void *)slot)->address;
        *ret_peer = (struct flow_address){0};
        return ERR_OK;
    }
    *ret_local = tcp_key_local(&tcb_of(slot)->key);
    *ret_peer = tcp_key_remote(&tcb_of(slot)->key);
    return ERR_OK;
}

/* What was sent stays in slot->unsent until it is acknowledged. */
static uint64_t wire_pending(struct flow_plane *plane, struct flow flow)
{
    struct flow_slot *slot = slot_find(stack_of(plane), flow);

    if (slot == NULL || slot->kind != FLOW_SLOT_STREAM ||
        slot->flags & (FLOW_SLOT_IS_RESET | FLOW_SLOT_IS_FAILED))
        return FLOW_PENDING_STALE;
    return tcb_unsent_size(tcb_of(slot)) + slot->held;
}

static void wire_close(struct flow_plane *plane, struct flow flow)
{
    struct stack *stack = stack_of(plane);
    struct flow_slot *slot = slot_find(stack, flow);

    if (slot == NULL)
        return;
    if (slot->kind == FLOW_SLOT_DATAGRAM)
        udp_close(stack, slot);
    else
        tcp_close(stack, slot);
}

static void wire_abort(struct flow_plane *plane, struct flow flow)
{
    struct stack *stack = stack_of(plane);
    struct flow_slot *slot = slot_find(stack, flow);

    if (slot != NULL && slot->kind == FLOW_SLOT_STREAM)
        tcp_abort(stack, slot);
    else
        wire_close(plane, flow);
}

static void wire_free(struct flow_plane *plane)
{
    stack_free(stack_of(plane));
}

const struct flow_ops stack_ops = {
    .listen = tcp_listen,
    .accept = tcp_accept,
    .refuse = tcp_refuse,
    .connect = tcp_connect,
    .open_datagram = udp_open,
    .send_datagram = udp_send,
    .receive_datagram = udp_receive,
    .set_user = flow_core_set_user,
    .error = flow_core_error,
    .addresses = wire_addresses,
    .readable = flow_core_readable,
    .peek = flow_core_peek,
    .pull = flow_core_pull,
    .consume = flow_core_consume,
    .take = flow_core_take,
    .credit = flow_core_credit,
    .append = flow_core_append,
    .reserve = flow_core_reserve,
    .commit = flow_core_commit,
    .unsent = flow_core_unsent,
    .pending = wire_pending,
    .cork = flow_core_cork,
    .push = flow_core_push,
    .want = flow_core_want,
    .shutdown = flow_core_shutdown,
    .close = wire_close,
    .abort = wire_abort,
    .poll = wire_poll,
    .flush = wire_flush,
    .deadline = wire_deadline,
    .wait = wire_wait,
    .spins = wire_spins,
    .watch = wire_watch,
    .stats = flow_core_stats,
    .free = wire_free,
};

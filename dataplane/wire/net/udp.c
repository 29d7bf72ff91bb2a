/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Datagram flows: UDP (RFC 768) as flow.h has it, one connected socket per flow.
 *
 * The source port is drawn from the whole unprivileged range until it is free and its replies land
 * on our queue: never from a slice of the range, whose bounds a forger could find out. A port
 * belongs to one flow per local address; what comes to it from elsewhere than the flow's remote is
 * dropped.
 *
 * Invariants
 *   1. A flow is in exactly one bucket, by its local address and port, and alone there with them.
 *   2. It holds a reference to its destination.
 *
 * Limits: flow_count_max with the other flows; PORT_TRY_MAX draws. Not here: the datagrams
 * (udp_datagram.c).
 */
#include <stdlib.h>

#include "dataplane/wire/net/udp.h"

#define PORT_MIN     1024u
#define PORT_COUNT   (65536u - PORT_MIN)
#define PORT_TRY_MAX 64u /* times the number of queues */
#define BUCKETS_MIN  64u
#define BUCKETS_MAX  (1u << 20)
#define NONE         UINT32_MAX

/* ---- the table ---- */

static uint32_t *buckets_new(uint32_t count)
{
    uint32_t *buckets = malloc(count * sizeof(*buckets));

    CHECK(buckets != NULL);
    memset(buckets, 0xff, count * sizeof(*buckets));
    return buckets;
}

struct udp_shared *udp_shared_new(struct stack *stack)
{
    struct udp_shared *udp = calloc(1, sizeof(*udp));

    (void)stack;
    CHECK(udp != NULL);
    udp->buckets = buckets_new(BUCKETS_MIN);
    udp->bucket_mask = BUCKETS_MIN - 1;
    return udp;
}

void udp_shared_free(struct udp_shared *udp)
{
    CHECK(udp->count == 0);
    free(udp->buckets);
    free(udp);
}

static uint32_t *bucket_of(const struct stack *stack, const struct flow_address *local)
{
    uint64_t hash = siphash13(&stack->hash_key, local, sizeof(*local));
    return &stack->udp->buckets[hash & stack->udp->bucket_mask];
}

static struct udp_flow *flow_at(struct stack *stack, uint32_t index)
{
    return udp_of(flow_core_slot_at(&stack->core, index));
}

struct udp_flow *udp_flow_find(struct stack *stack, const struct flow_address *local)
{
    uint32_t index = *bucket_of(stack, local);

    while (index != NONE) {
        struct udp_flow *flow = flow_at(stack, index);
        if (flow_address_is_equal(&flow->local, local))
            return flow;
        index = flow->chain_next;
    }
    return NULL;
}

/* As many buckets again; every flow finds its place anew. */
static void table_grow(struct stack *stack)
{
    struct udp_shared *udp = stack->udp;
    uint32_t old_count = udp->bucket_mask + 1, *old = udp->buckets;

    udp->buckets = buckets_new(old_count * 2);
    udp->bucket_mask = old_count * 2 - 1;
    for (uint32_t i = 0; i < old_count; i++) {
        for (uint32_t index = old[i]; index != NONE;) {
            struct udp_flow *flow = flow_at(stack, index);
            uint32_t next = flow->chain_next, *bucket = bucket_of(stack, &flow->local);
            flow->chain_next = *bucket;
            *bucket = index;
            index = next;
        }
    }
    free(old);
}

static void table_add(struct stack *stack, struct udp_flow *flow)
{
    struct udp_shared *udp = stack->udp;

    if (udp->count > udp->bucket_mask && udp->bucket_mask + 1 < BUCKETS_MAX)
        table_grow(stack);
    uint32_t *bucket = bucket_of(stack, &flow->local);
    flow->chain_next = *bucket;
    *bucket = flow->slot.index;
    udp->count++;
}

static void table_remove(struct stack *stack, const struct udp_flow *flow)
{
    uint32_t *link = bucket_of(stack, &flow->local);

    while (*link != flow->slot.index)
        link = &flow_at(stack, *link)->chain_next;
    *link = flow->chain_next;
    stack->udp->count--;
}

/* ---- open and close ---- */

static bool is_zero_ip(const struct flow_address *address)
{
    return memcmp(address->ip, (const uint8_t[16]){0}, 16) == 0;
}

/* The address to speak from: the one asked for, if it is ours, or the best. */
static enum err local_choose(struct stack *stack, const struct flow_address *wanted,
                             const struct flow_address *remote, struct flow_address *ret_local,
                             const struct stack_port **ret_port)
{
    const struct stack_local *local;

    if (wanted == NULL || wanted->family == FLOW_FAMILY_NONE || is_zero_ip(wanted))
        local = stack_source_choose(stack, remote->family, remote->ip);
    else if (wanted->family == remote->family)
        local = stack_local_find(stack, wanted->family, wanted->ip);
    else
        local = NULL;
    if (local == NULL || !stack_local_is_usable(local))
        return ERR_SYSTEM;
    *ret_local = local->address.address;
    ret_local->port = wanted == NULL ? 0 : wanted->port;
    *ret_port = &stack->ports[local->port]; /* where replies come in */
    return ERR_OK;
}

static bool port_is_usable(struct stack *stack, const struct stack_port *port,
                           const struct flow_address *local, const struct flow_address *remote)
{
    uint16_t queue;

    return udp_flow_find(stack, local) == NULL &&
           !stack_is_foreign(stack, port, remote->family, remote->ip, local->ip, remote->port,
                             local->port, &queue);
}

static enum err port_choose(struct stack *stack, const struct stack_port *port,
                            struct flow_address *local, const struct flow_address *remote)
{
    uint32_t queues = port->nic->steering.queue_count;
    uint32_t tries = PORT_TRY_MAX * (queues > 1 ? queues : 1);

    if (local->port != 0)
        return port_is_usable(stack, port, local, remote) ? ERR_OK : ERR_SYSTEM;
    for (uint32_t i = 0; i < tries; i++) {
        local->port = (uint16_t)(PORT_MIN + rng_below(&stack->rng, PORT_COUNT));
        if (port_is_usable(stack, port, local, remote))
            return ERR_OK;
    }
    return ERR_SYSTEM;
}

static bool remote_is_possible(struct stack *stack, const struct flow_address *remote)
{
    return (remote->family == FLOW_FAMILY_IP4 || remote->family == FLOW_FAMILY_IP6) &&
           remote->port != 0 && !ip_is_martian_source(remote->family, remote->ip) &&
           stack_local_find(stack, remote->family, remote->ip) == NULL;
}

enum err udp_open(struct flow_plane *plane, const struct flow_address *local,
                  const struct flow_address *remote, uint64_t user, struct flow *ret_flow)
{
    struct stack *stack = stack_of(plane);
    struct flow_address bound;
    const struct stack_port *port;

    if (!remote_is_possible(stack, remote))
        return ERR_SYSTEM;
    TRY(local_choose(stack, local, remote, &bound, &port));
    struct destination *destination = destination_acquire(stack, remote->family, remote->ip);
    if (destination == NULL)
        return ERR_LIMIT;
    enum err err = port_choose(stack, port, &bound, remote);
    struct flow_slot *slot =
        err == ERR_OK ? flow_core_slot_new(&stack->core, FLOW_SLOT_DATAGRAM, user) : NULL;
    if (slot == NULL) {
        destination_release(stack, destination);
        return err == ERR_OK ? ERR_LIMIT : err;
    }
    struct udp_flow *flow = udp_of(slot);
    flow->local = bound;
    flow->remote = *remote;
    flow->destination = destination;
    table_add(stack, flow);
    *ret_flow = flow_core_handle(slot);
    return ERR_OK;
}

struct buf *udp_queue_pop(struct udp_flow *flow)
{
    struct buf *buf = flow->queue[flow->queue_head];

    CHECK(flow->queue_count > 0);
    flow->queue_head = (uint8_t)((flow->queue_head + 1) % UDP_QUEUE_MAX);
    flow->queue_count--;
    return buf;
}

void udp_close(struct stack *stack, struct flow_slot *slot)
{
    struct udp_flow *flow = udp_of(slot);

    CHECK(slot->kind == FLOW_SLOT_DATAGRAM);
    while (flow->queue_count > 0)
        buf_release_chain(udp_queue_pop(flow));
    table_remove(stack, flow);
    destination_release(stack, flow->destination);
    flow_core_slot_free(&stack->core, slot);
}

enum err udp_addresses(struct stack *stack, const struct flow_slot *slot,
                       struct flow_address *ret_local, struct flow_address *ret_peer)
{
    const struct udp_flow *flow = (const struct udp_flow *)(const void *)slot;

    (void)stack;
    CHECK(slot->kind == FLOW_SLOT_DATAGRAM);
    *ret_local = flow->local;
    *ret_peer = flow->remote;
    return ERR_OK;
}

/* ---- seeing ---- */

uint32_t udp_count(const struct stack *stack)
{
    return stack->udp->count;
}

void udp_row(const struct flow_slot *slot, struct stack_flow_row *ret_row)
{
    const struct udp_flow *flow = (const struct udp_flow *)(const void *)slot;

    ret_row->local = flow->local;
    ret_row->remote = flow->remote;
    for (uint32_t i = 0; i < flow->queue_count; i++)
        ret_row->receive_queued +=
            flow->queue[(flow->queue_head + i) % UDP_QUEUE_MAX]->mbuf.pkt_len;
}

uint64_t udp_memory(const struct stack *stack)
{
    return sizeof(*stack->udp) +
           (stack->udp->bucket_mask + UINT64_C(1)) * sizeof(*stack->udp->buckets);
}

void udp_verify(struct stack *stack)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i <= stack->udp->bucket_mask; i++) {
        for (uint32_t index = stack->udp->buckets[i]; index != NONE; count++) {
            const struct udp_flow *flow = flow_at(stack, index);
            CHECK(flow->slot.kind == FLOW_SLOT_DATAGRAM && count < stack->udp->count);
            CHECK(udp_flow_find(stack, &flow->local) == flow);
            CHECK(flow->queue_count <= UDP_QUEUE_MAX && flow->destination->references > 0);
            CHECK(flow->queue_count == 0 || flow->slot.flags & FLOW_SLOT_PENDING);
            index = flow->chain_next;
        }
    }
    CHECK(count == stack->udp->count);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Datagram flows: UDP (RFC 768) as flow.h has it, one connected socket per flow.
 *
 * The source port is drawn from the whole unprivileged range until it is free and its replies land
 * on our queue (never from a slice of the range, which would tell a forger the rest of it:
 * CVE-2026-50252). A port belongs to one flow per local address; what comes to it from elsewhere
 * than the flow's remote is dropped.
 *
 * Received datagrams wait in the buffers they came in and are copied when the owner takes them:
 * they are small, and so no span into a nic's buffer is ever handed out. When the nics' buffers
 * run low they are copied at once.
 *
 * Invariants
 *   1. A flow is in exactly one bucket, by its local address and port, and alone there with them.
 *   2. It holds a reference to its destination.
 *
 * Limits: UDP_QUEUE_MAX datagrams wait per flow, then new ones are dropped, as kernels do;
 * FLOW_DATAGRAM_SIZE_MAX octets each. No fragments: what does not fit the path is not sent.
 */
#include <stdlib.h>

#include "dataplane/wire/net/stack_internal.h"
#include "dataplane/wire/tcp/tcp.h"

#define UDP_QUEUE_MAX  16u
#define PORT_MIN       1024u
#define PORT_COUNT     (65536u - PORT_MIN)
#define PORT_TRY_MAX   64u /* times the number of queues */
#define BUCKETS_MIN    64u
#define BUCKETS_MAX    (1u << 20)
#define NONE           UINT32_MAX
#define CODE_TOO_LARGE 4u /* of ICMP_UNREACHABLE4 */

struct udp_flow {
    struct flow_slot slot; /* first */
    struct flow_address local, remote;
    struct destination *destination;
    uint32_t chain_next; /* index of the next slot in the bucket */
    uint8_t queue_head, queue_count;
    bool is_unreachable;              /* to be told by the next receive */
    struct buf *queue[UDP_QUEUE_MAX]; /* from the payload on; pkt_len is its size */
};
_Static_assert(offsetof(struct udp_flow, slot) == 0, "the core's slots are flows");
_Static_assert(sizeof(struct udp_flow) <= sizeof(struct tcb), "slots are as large as a tcb");

struct udp_shared {
    uint32_t *buckets;
    uint32_t bucket_mask, count;
    uint8_t scratch[FLOW_DATAGRAM_SIZE_MAX]; /* the datagram that was taken last */
};

static struct udp_flow *udp_of(struct flow_slot *slot)
{
    return (struct udp_flow *)(void *)slot;
}

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

static struct udp_flow *flow_find(struct stack *stack, const struct flow_address *local)
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
                             const struct flow_address *remote, struct flow_address *ret_local)
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
    return ERR_OK;
}

static bool port_is_usable(struct stack *stack, const struct stack_port *port,
                           const struct flow_address *local, const struct flow_address *remote)
{
    uint16_t queue;

    return flow_find(stack, local) == NULL &&
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

    if (!remote_is_possible(stack, remote))
        return ERR_SYSTEM;
    TRY(local_choose(stack, local, remote, &bound));
    struct destination *destination = destination_acquire(stack, remote->family, remote->ip);
    if (destination == NULL)
        return ERR_LIMIT;
    enum err err = port_choose(stack, destination->port, &bound, remote);
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

static struct buf *queue_pop(struct udp_flow *flow)
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
        buf_release_chain(queue_pop(flow));
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

static struct udp_flow *flow_of(struct stack *stack, struct flow flow)
{
    struct flow_slot *slot = flow_core_find(&stack->core, flow);
    return slot != NULL && slot->kind == FLOW_SLOT_DATAGRAM ? udp_of(slot) : NULL;
}

/* ---- sending ---- */

/* Payload behind the header, the rest of it in buffers of the pool. NULL: no buffers now. */
static struct buf *datagram_build(struct stack *stack, struct span payload)
{
    struct buf *head = stack_header_acquire(stack), *last = head;

    if (head == NULL)
        return NULL;
    buf_extend(head, UDP_HEADER_SIZE);
    while (payload.size > 0) {
        uint32_t part = payload.size < buf_room(last) ? payload.size : buf_room(last);
        memcpy(buf_data(last) + buf_size(last), payload.data, part);
        buf_extend(last, part);
        payload = span_skip(payload, part);
        if (payload.size == 0)
            break;
        struct buf *buf = buf_acquire(stack->options.pool);
        if (buf == NULL) {
            STACK_COUNT(stack, SEND_NO_BUFFER);
            buf_release_chain(head);
            return NULL;
        }
        last->mbuf.next = &buf->mbuf;
        last = buf;
        head->mbuf.nb_segs++;
    }
    return head;
}

/* RFC 768: a sum of 0 is sent as 65535, for 0 says that there is none. */
static uint16_t datagram_checksum(const struct udp_flow *flow, const struct buf *head,
                                  uint32_t size)
{
    uint64_t sum =
        wire_sum_pseudo(flow->local.family, flow->local.ip, flow->remote.ip, IP_PROTOCOL_UDP, size);
    uint32_t at = 0;

    if (destination_offloads(flow->destination) & NIC_TX_UDP_CHECKSUM)
        return (uint16_t)~wire_sum_finish(sum);
    for (const struct buf *buf = head; buf != NULL;
         buf = (const struct buf *)(const void *)buf->mbuf.next) {
        uint64_t part = wire_sum(buf_data(buf), buf_size(buf));
        sum += at % 2 == 0 ? part : wire_sum_swap(part);
        at += buf_size(buf);
    }
    uint16_t checksum = wire_sum_finish(sum);
    return checksum == 0 ? UINT16_MAX : checksum;
}

enum err udp_send(struct flow_plane *plane, struct flow handle, struct span octets)
{
    struct stack *stack = stack_of(plane);
    struct udp_flow *flow = flow_of(stack, handle);
    uint32_t size = UDP_HEADER_SIZE + octets.size;

    CHECK(octets.size <= FLOW_DATAGRAM_SIZE_MAX);
    if (flow == NULL)
        return ERR_STALE;
    uint32_t ip_size = flow->local.family == FLOW_FAMILY_IP4 ? IP4_HEADER_SIZE : IP6_HEADER_SIZE;
    if (size + ip_size > destination_mtu(stack, flow->destination)) {
        STACK_COUNT(stack, UDP_TOO_LARGE);
        return ERR_PEER_UNREACHABLE;
    }
    if (flow->destination->port->waiting_count == STACK_SEND_QUEUE)
        return ERR_AGAIN;
    struct buf *head = datagram_build(stack, octets);
    if (head == NULL)
        return ERR_AGAIN;
    head->mbuf.pkt_len = size;
    const struct udp_header header = {.source_port = flow->local.port,
                                      .destination_port = flow->remote.port,
                                      .size = (uint16_t)size};
    udp_build(&header, buf_data(head));
    uint16_t checksum = datagram_checksum(flow, head, size);
    memcpy(buf_data(head) + 6, &checksum, sizeof(checksum));
    const struct ip_send send = {
        .source = flow->local.ip, .protocol = IP_PROTOCOL_UDP, .l4_header_size = UDP_HEADER_SIZE};
    stack->core.stats.datagrams_sent++;
    ip_output(stack, flow->destination, &send, head);
    return ERR_OK;
}

/* ---- receiving ---- */

static bool checksum_is_good(const struct packet *packet, const struct udp_header *header)
{
    struct packet datagram = *packet;

    /* RFC 768, RFC 8200 8.1: none was computed; IPv6 has no header checksum to make up for it. */
    if (header->checksum == 0)
        return packet->ip.family == 4;
    if (packet->is_l4_checksum_known)
        return true;
    datagram.l4_size = header->size;
    return packet_l4_checksum_is_good(&datagram);
}

/* The payload alone, in the packet's own buffers. */
static struct buf *payload_take(struct packet *packet, uint32_t size)
{
    struct buf *buf = packet->buf;
    uint32_t front = packet->l4_offset + UDP_HEADER_SIZE;

    buf->mbuf.data_off = (uint16_t)(buf->mbuf.data_off + front);
    buf->mbuf.data_len = (uint16_t)(buf->mbuf.data_len - front);
    buf->mbuf.pkt_len = size;
    packet->buf = NULL;
    return buf;
}

/* Copies as many of the datagram's octets as its pkt_len says. */
static void payload_copy(const struct buf *payload, uint8_t *ret_octets)
{
    uint32_t left = payload->mbuf.pkt_len;

    for (const struct buf *buf = payload; left > 0;
         buf = (const struct buf *)(const void *)buf->mbuf.next) {
        uint32_t part = left < buf_size(buf) ? left : buf_size(buf);
        memcpy(ret_octets, buf_data(buf), part);
        ret_octets += part;
        left -= part;
    }
}

/* In a buffer of ours instead of the nic's; NULL: it does not fit, or there is none. */
static struct buf *payload_move(struct stack *stack, struct buf *payload)
{
    struct buf *copy = buf_acquire(stack->options.pool);

    if (copy != NULL && buf_room(copy) < payload->mbuf.pkt_len) {
        buf_release(copy);
        copy = NULL;
    }
    if (copy != NULL) {
        payload_copy(payload, buf_data(copy));
        buf_extend(copy, payload->mbuf.pkt_len);
        stack->core.stats.copies++;
        stack->core.stats.copied_octets += payload->mbuf.pkt_len;
    }
    buf_release_chain(payload);
    return copy;
}

static void datagram_lost(struct stack *stack, enum stack_counter why)
{
    stack->counters[why]++;
    stack->core.stats.datagrams_dropped++;
}

static void flow_receive(struct stack *stack, struct udp_flow *flow, struct packet *packet,
                         uint32_t size)
{
    const struct stack_options *options = &stack->options;

    if (size > FLOW_DATAGRAM_SIZE_MAX) {
        datagram_lost(stack, STACK_UDP_TOO_LARGE);
        return;
    }
    if (flow->queue_count == UDP_QUEUE_MAX) {
        datagram_lost(stack, STACK_UDP_QUEUE_FULL);
        return;
    }
    struct buf *payload = payload_take(packet, size);
    if (options->receive_pool != NULL &&
        buf_pool_available(options->receive_pool) < options->receive_reserve)
        payload = payload_move(stack, payload);
    if (payload == NULL) {
        datagram_lost(stack, STACK_UDP_NO_BUFFER);
        return;
    }
    flow->queue[(flow->queue_head + flow->queue_count) % UDP_QUEUE_MAX] = payload;
    flow->queue_count++;
    flow->slot.flags |= FLOW_SLOT_PENDING;
    destination_confirm(stack, flow->destination);
    flow_core_touch(&stack->core, &flow->slot);
}

void udp_input(struct stack *stack, struct packet *packet)
{
    struct flow_address local = {.family = packet->ip.family};
    struct udp_header header;

    if (udp_parse(packet_l4(packet), packet->l4_size, &header) != PACKET_OK ||
        header.destination_port == 0) {
        STACK_COUNT(stack, UDP_MALFORMED);
        return;
    }
    if (!checksum_is_good(packet, &header)) {
        STACK_COUNT(stack, UDP_CHECKSUM);
        return;
    }
    local.port = header.destination_port;
    memcpy(local.ip, packet->ip.destination, 16);
    struct udp_flow *flow = flow_find(stack, &local);
    if (flow == NULL) {
        STACK_COUNT(stack, UDP_CLOSED_PORT);
        icmp_send_port_unreachable(stack, packet);
        return;
    }
    if (flow->remote.port != header.source_port ||
        memcmp(flow->remote.ip, packet->ip.source, 16) != 0) {
        datagram_lost(stack, STACK_UDP_OTHER_REMOTE);
        return;
    }
    flow_receive(stack, flow, packet, header.size - UDP_HEADER_SIZE);
}

enum err udp_receive(struct flow_plane *plane, struct flow handle, struct flow_address *ret_from,
                     struct span *ret_octets)
{
    struct stack *stack = stack_of(plane);
    struct udp_flow *flow = flow_of(stack, handle);

    if (flow == NULL)
        return ERR_STALE;
    if (flow->is_unreachable) {
        flow->is_unreachable = false;
        flow_core_touch(&stack->core, &flow->slot);
        return ERR_PEER_UNREACHABLE;
    }
    if (flow->queue_count == 0) {
        flow->slot.flags &= ~(uint32_t)FLOW_SLOT_PENDING;
        return ERR_AGAIN;
    }
    struct buf *payload = queue_pop(flow);
    uint32_t size = payload->mbuf.pkt_len;
    payload_copy(payload, stack->udp->scratch);
    buf_release_chain(payload);
    flow_core_touch(&stack->core, &flow->slot);
    stack->core.stats.datagrams_received++;
    *ret_from = flow->remote;
    *ret_octets = span_of(stack->udp->scratch, size);
    return ERR_OK;
}

/* RFC 1122 4.1.3.3: what IP hears is passed on; here, that the remote cannot be reached. */
void udp_on_icmp_error(struct stack *stack, const struct icmp_error *error)
{
    struct flow_address local = {.family = error->quoted.family, .port = error->source_port};
    bool is_unreachable4 = error->quoted.family == 4 && error->type == ICMP_UNREACHABLE4;
    bool is_too_large = is_unreachable4
                            ? error->code == CODE_TOO_LARGE
                            : error->quoted.family == 6 && error->type == ICMP_PACKET_TOO_BIG6;
    bool is_unreachable6 = error->quoted.family == 6 && error->type == ICMP_UNREACHABLE6;

    memcpy(local.ip, error->quoted.source, 16);
    struct udp_flow *flow = flow_find(stack, &local);
    if (flow == NULL || flow->remote.port != error->destination_port ||
        memcmp(flow->remote.ip, error->quoted.destination, 16) != 0) {
        STACK_COUNT(stack, UDP_ERROR_UNKNOWN);
        return;
    }
    if (is_too_large) {
        destination_mtu_lower(stack, flow->remote.family, flow->remote.ip, error->mtu, false);
        return;
    }
    if (!is_unreachable4 && !is_unreachable6)
        return; /* on its way: it may be better next time */
    flow->is_unreachable = true;
    flow->slot.flags |= FLOW_SLOT_PENDING;
    flow_core_touch(&stack->core, &flow->slot);
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
            CHECK(flow_find(stack, &flow->local) == flow);
            CHECK(flow->queue_count <= UDP_QUEUE_MAX && flow->destination->references > 0);
            CHECK(flow->queue_count == 0 || flow->slot.flags & FLOW_SLOT_PENDING);
            index = flow->chain_next;
        }
    }
    CHECK(count == stack->udp->count);
}

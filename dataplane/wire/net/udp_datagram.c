/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The datagrams of flows: sent, received, and what ICMP says about them.
 *
 * Received datagrams wait in the buffers they came in and are copied when the owner takes them:
 * they are small, and so no span into a nic's buffer is ever handed out. When the nics' buffers
 * run low they are copied at once.
 *
 * Limits: UDP_QUEUE_MAX datagrams wait per flow, then new ones are dropped, as kernels do;
 * FLOW_DATAGRAM_SIZE_MAX octets each. No fragments: what does not fit the path is not sent.
 */
#include "dataplane/wire/net/chain.h"
#include "dataplane/wire/net/udp.h"

#define CODE_TOO_LARGE 4u /* of ICMP_UNREACHABLE4 */

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

    if (destination_offloads(flow->destination) & NIC_TX_UDP_CHECKSUM)
        return (uint16_t)~wire_sum_finish(sum);
    sum += chain_sum(head, 0, size);
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

/* In a buffer of ours instead of the nic's; NULL: it does not fit, or there is none. */
static struct buf *payload_move(struct stack *stack, struct buf *payload)
{
    struct buf *copy = buf_acquire(stack->options.pool);

    if (copy != NULL && buf_room(copy) < payload->mbuf.pkt_len) {
        buf_release(copy);
        copy = NULL;
    }
    if (copy != NULL) {
        chain_copy_out(payload, 0, buf_data(copy), payload->mbuf.pkt_len);
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
    struct udp_flow *flow = udp_flow_find(stack, &local);
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
    struct buf *payload = udp_queue_pop(flow);
    uint32_t size = payload->mbuf.pkt_len;
    chain_copy_out(payload, 0, stack->udp->scratch, size);
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
    struct udp_flow *flow = udp_flow_find(stack, &local);
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

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames on their way in: from the nic to the one who answers for their protocol.
 *
 * In this order, and each step sees only what the ones before let through:
 *   parse     link and IP header, whole and in the first buffer; nothing is done yet
 *   steer     a frame of another core's connection goes there, where the nic did not see to it
 *   show      to the tap
 *   judge     faults, impossible addresses (RFC 1122 3.2.1.3), whose it is
 *   dispatch  ARP, ICMP, UDP, TCP
 *
 * A burst goes this way, too, but for what ip_input_burst.c knows of a frame from the one before
 * it.
 *
 * What is not the engine's (another VLAN, type, address or protocol) goes to the exception path,
 * if there is one. Everything else that goes no further is dropped and counted by its reason.
 *
 * Invariants
 *   1. net_input() takes the frame: it is passed on, taken by a consumer, or released here.
 *   2. What a consumer sees ends where the IP payload ends: padding is cut off, and the sizes of
 *      the buffers add up to what the headers say. mbuf.pkt_len is never believed.
 *   3. The source of a packet that is dispatched is a unicast address that is not ours; its
 *      destination is ours. Only ICMPv6 also comes to groups that we are in, and then also from the
 *      unspecified address and from our own (neighbour discovery).
 *
 * Limits: headers of all layers within HEADERS_MAX octets; chains of CHAIN_MAX buffers.
 */
#include "dataplane/wire/net/ip_input.h"
#include "dataplane/wire/net/chain.h"
#include "dataplane/wire/tcp/tcp.h"

#define HEADERS_MAX 384u /* 18 Ethernet, 40 IPv6, 256 extensions, 60 TCP */

bool packet_l4_checksum_is_good(const struct packet *packet)
{
    const struct buf *buf = packet->buf;
    uint64_t sum = buf->mbuf.next == NULL
                       ? wire_sum(buf_data(buf) + packet->l4_offset, packet->l4_size)
                       : chain_sum(buf, packet->l4_offset, packet->l4_size);

    if (packet->ip.protocol != IP_PROTOCOL_ICMP)
        sum += wire_sum_pseudo(packet->ip.family, packet->ip.source, packet->ip.destination,
                               packet->ip.protocol, packet->l4_size);
    return wire_sum_finish(sum) == 0;
}

/* ---- parse ---- */

static enum frame_kind frame_fails(struct frame *frame, enum frame_kind kind,
                                   enum stack_counter fault)
{
    frame->fault = fault;
    return kind;
}

static enum stack_counter fault_counter(enum packet_fault fault)
{
    switch (fault) {
    case PACKET_CHECKSUM:
        return STACK_IP_CHECKSUM;
    case PACKET_FRAGMENT:
        return STACK_IP_FRAGMENT;
    case PACKET_UNSUPPORTED:
        return STACK_IP_UNSUPPORTED;
    default:
        return STACK_IP_MALFORMED;
    }
}

static enum frame_kind ip_parse(struct frame *frame, uint8_t family, uint32_t total)
{
    struct packet *packet = &frame->packet;
    struct span octets =
        span_skip(span_of(buf_data(packet->buf), buf_size(packet->buf)), packet->l3_offset);
    uint32_t l3_total = total - packet->l3_offset;
    bool is_good = is_checksum_known(packet, RTE_MBUF_F_RX_IP_CKSUM_MASK,
                                     RTE_MBUF_F_RX_IP_CKSUM_GOOD, RTE_MBUF_F_RX_IP_CKSUM_NONE);
    enum packet_fault fault = family == 4 ? ip4_parse(octets, l3_total, is_good, &packet->ip)
                                          : ip6_parse(octets, l3_total, &packet->ip);

    if (fault != PACKET_OK)
        return frame_fails(frame, FRAME_FAULTY, fault_counter(fault));
    packet->l4_offset = (uint16_t)(packet->l3_offset + packet->ip.header_size);
    packet->l4_size = packet->ip.payload_size;
    packet->is_l4_checksum_known =
        is_checksum_known(packet, RTE_MBUF_F_RX_L4_CKSUM_MASK, RTE_MBUF_F_RX_L4_CKSUM_GOOD,
                          RTE_MBUF_F_RX_L4_CKSUM_NONE);
    uint32_t size = (uint32_t)packet->l4_offset + packet->l4_size;
    if (size < total)
        chain_trim(packet->buf, size);
    return FRAME_IP;
}

/* The tag of the frame, wherever the nic left it. */
static uint16_t frame_vlan(const struct buf *buf, const struct ethernet_header *header)
{
    if (buf->mbuf.ol_flags & RTE_MBUF_F_RX_VLAN_STRIPPED && header->vlan == 0)
        return buf->mbuf.vlan_tci & 0x0fff;
    return header->vlan;
}

static enum frame_kind link_parse(struct frame *frame, uint32_t total)
{
    struct packet *packet = &frame->packet;
    const struct stack_port *port = packet->port;
    struct ethernet_header header;

    if (ethernet_parse(span_of(buf_data(packet->buf), buf_size(packet->buf)), &header) != PACKET_OK)
        return frame_fails(frame, FRAME_FAULTY, STACK_FRAME_SHORT);
    frame->is_group = ethernet_is_multicast(header.destination);
    if (!frame->is_group && memcmp(header.destination, port->mac, 6) != 0)
        return frame_fails(frame, FRAME_FAULTY, STACK_FRAME_OTHER_STATION);
    /* Our own frame that a loop in the network brought back, or nobody's. */
    if (ethernet_is_multicast(header.source) || memcmp(header.source, port->mac, 6) == 0)
        return frame_fails(frame, FRAME_FAULTY, STACK_FRAME_SOURCE);
    if (frame_vlan(packet->buf, &header) != port->vlan)
        return frame_fails(frame, FRAME_ALIEN, STACK_FRAME_VLAN);
    memcpy(packet->source_mac, header.source, sizeof(packet->source_mac));
    packet->l3_offset = header.size;
    if (header.type == ETHERTYPE_IP4)
        return ip_parse(frame, 4, total);
    if (header.type == ETHERTYPE_IP6)
        return ip_parse(frame, 6, total);
    if (header.type == ETHERTYPE_ARP)
        return FRAME_ARP;
    return frame_fails(frame, FRAME_ALIEN, STACK_FRAME_TYPE);
}

/* The headers of a frame of several buffers into one. False: there is no room. */
static bool frame_pull_up(struct stack *stack, struct packet *packet, uint32_t total)
{
    struct buf *head =
        chain_pull_up(stack->options.pool, packet->buf, total < HEADERS_MAX ? total : HEADERS_MAX);

    if (head == NULL)
        return false;
    packet->is_copied = head != packet->buf;
    packet->buf = head;
    return true;
}

static enum frame_kind frame_parse(struct stack *stack, struct frame *frame)
{
    struct packet *packet = &frame->packet;
    uint32_t total = buf_size(packet->buf);

    if (packet->buf->mbuf.next != NULL) {
        total = chain_size(packet->buf);
        if (total > UINT16_MAX || !frame_pull_up(stack, packet, total))
            return frame_fails(frame, FRAME_FAULTY, STACK_FRAME_SPLIT);
    }
    if (!packet->port->is_l3)
        return link_parse(frame, total);
    if (total == 0)
        return frame_fails(frame, FRAME_FAULTY, STACK_FRAME_SHORT);
    return ip_parse(frame, buf_data(packet->buf)[0] >> 4 == 6 ? 6 : 4, total);
}

/* ---- steer ---- */

bool packet_pass(struct stack *stack, struct packet *packet, uint16_t queue)
{
    if (packet->is_copied) {
        STACK_COUNT(stack, FRAME_SPLIT);
        return false;
    }
    STACK_COUNT(stack, FRAMES_PASSED);
    nic_pass(packet->port->nic, queue, packet->buf);
    packet->buf = NULL;
    return true;
}

/* True: the frame is of another core, and went there. */
static bool frame_steer(struct stack *stack, struct packet *packet)
{
    struct span l4 = packet_l4(packet);
    uint16_t queue;

    if ((packet->ip.protocol != IP_PROTOCOL_TCP && packet->ip.protocol != IP_PROTOCOL_UDP) ||
        l4.size < 4 ||
        !stack_is_foreign(stack, packet->port, packet->ip.family, packet->ip.source,
                          packet->ip.destination, load_be16(l4.data), load_be16(l4.data + 2),
                          &queue))
        return false;
    if (!packet_pass(stack, packet, queue))
        buf_release_chain(packet->buf);
    return true;
}

/* ---- judge ---- */

static bool is_broadcast4(const struct stack_port *port, const uint8_t ip[16])
{
    uint32_t address = load_be32(ip);

    if (address == UINT32_MAX)
        return true;
    for (uint32_t i = 0; i < port->prefix_count; i++) {
        const struct stack_prefix *prefix = &port->prefixes[i];
        /* RFC 3021: in a /31 both addresses are hosts. */
        if (prefix->family != 4 || prefix->bits > 30)
            continue;
        uint32_t hosts = UINT32_MAX >> prefix->bits;
        if (address == (load_be32(prefix->ip) | hosts))
            return true;
    }
    return false;
}

static bool is_unspecified6(const struct ip_header *ip)
{
    return ip->family == 6 && memcmp(ip->source, (const uint8_t[16]){0}, 16) == 0;
}

/* Sources that no packet on a wire has: false with the reason. */
static bool source_is_possible(struct stack *stack, const struct packet *packet,
                               enum stack_counter *ret_why)
{
    const struct ip_header *ip = &packet->ip;

    *ret_why = STACK_IP_MARTIAN;
    /* RFC 4861 7.1.1: a solicitation for duplicate address detection comes from ::. */
    if (ip_is_martian_source(ip->family, ip->source))
        return is_unspecified6(ip) && ip->protocol == IP_PROTOCOL_ICMP6 &&
               ip_is_multicast(6, ip->destination);
    if (ip->family == 4 && is_broadcast4(packet->port, ip->source))
        return false;
    *ret_why = STACK_IP_LAND;
    if (memcmp(ip->source, ip->destination, 16) == 0)
        return false;
    *ret_why = STACK_IP_SPOOFED;
    if (stack_local_find(stack, ip->family, ip->source) == NULL)
        return true;
    /* RFC 4862 5.4.4: who has our address already says so from that address, to all nodes. */
    return ip->family == 6 && ip->protocol == IP_PROTOCOL_ICMP6 && ip->ttl == 255 &&
           ip_is_multicast(6, ip->destination);
}

/* RFC 4861 7.2.1: all nodes, and the solicited-node groups of our addresses. */
static bool is_group_of_ours(const struct stack *stack, const struct stack_port *port,
                             const uint8_t ip[16])
{
    static const uint8_t all_nodes[16] = {0xff, 0x02, [15] = 1};
    static const uint8_t solicited_node[13] = {0xff, 0x02, [11] = 1, [12] = 0xff};

    if (memcmp(ip, all_nodes, 16) == 0)
        return true;
    if (memcmp(ip, solicited_node, sizeof(solicited_node)) != 0)
        return false;
    for (uint32_t i = 0; i < stack->local_count; i++) {
        const struct stack_local *local = &stack->locals[i];
        if (local->port == port->index && local->address.address.family == 6 &&
            memcmp(local->address.address.ip + 13, ip + 13, 3) == 0)
            return true;
    }
    return false;
}

/* The one packet with a router alert that is for hosts as well (RFC 3810 5). */
static bool is_membership_query(const struct packet *packet)
{
    struct span l4 = packet_l4(packet);
    return packet->ip.family == 6 && packet->ip.protocol == IP_PROTOCOL_ICMP6 && l4.size > 0 &&
           l4.data[0] == ICMP_MEMBERSHIP_QUERY6;
}

enum ip_whose { IP_OURS, IP_OURS_BUT_UNUSABLE, IP_NOBODYS };

static enum ip_whose destination_whose(struct stack *stack, const struct frame *frame)
{
    const struct packet *packet = &frame->packet;
    const struct ip_header *ip = &packet->ip;
    const struct stack_local *local = stack_local_find(stack, ip->family, ip->destination);

    if (local == NULL) {
        bool is_ours = ip->family == 6 && ip->protocol == IP_PROTOCOL_ICMP6 &&
                       ip_is_multicast(6, ip->destination) &&
                       is_group_of_ours(stack, packet->port, ip->destination);
        return is_ours ? IP_OURS : IP_NOBODYS;
    }
    if (local->port != packet->port->index)
        return IP_NOBODYS;
    /* RFC 1122 3.3.6: a packet to one host in a frame to all is answered by none. */
    if (frame->is_group || !stack_local_is_usable(local))
        return IP_OURS_BUT_UNUSABLE;
    return IP_OURS;
}

/* ---- dispatch ---- */

static void ip_dispatch(struct stack *stack, struct frame *frame)
{
    struct packet *packet = &frame->packet;
    uint8_t icmp = packet->ip.family == 4 ? IP_PROTOCOL_ICMP : IP_PROTOCOL_ICMP6;

    if (packet->ip.protocol == IP_PROTOCOL_TCP) {
        frame->is_through = true;
        tcp_input(stack, packet);
    } else if (packet->ip.protocol == IP_PROTOCOL_UDP) {
        udp_input(stack, packet);
    } else if (packet->ip.protocol == icmp) {
        icmp_input(stack, packet);
    } else {
        stack_port_except(stack, packet, STACK_IP_PROTOCOL);
    }
}

static void ip_input(struct stack *stack, struct frame *frame)
{
    struct packet *packet = &frame->packet;
    enum stack_counter why;

    if (!source_is_possible(stack, packet, &why)) {
        stack->counters[why]++;
        return;
    }
    switch (destination_whose(stack, frame)) {
    case IP_OURS:
        if (packet->ip.has_router_alert_or_route && !is_membership_query(packet))
            STACK_COUNT(stack, IP_ROUTED);
        else
            ip_dispatch(stack, frame);
        return;
    case IP_OURS_BUT_UNUSABLE:
        STACK_COUNT(stack, IP_UNUSABLE);
        return;
    case IP_NOBODYS:
        stack_port_except(stack, packet, STACK_IP_NOT_OURS);
        return;
    }
}

static void frame_dispatch(struct stack *stack, struct frame *frame)
{
    switch (frame->kind) {
    case FRAME_FAULTY:
        stack->counters[frame->fault]++;
        return;
    case FRAME_ALIEN:
        stack_port_except(stack, &frame->packet, frame->fault);
        return;
    case FRAME_ARP:
        neigh_input_arp(stack, &frame->packet);
        return;
    case FRAME_IP:
        ip_input(stack, frame);
        return;
    }
}

void frame_begin(struct stack *stack, struct stack_port *port, struct buf *buf,
                 struct frame *ret_frame)
{
    ret_frame->packet.buf = buf;
    ret_frame->packet.port = port;
    ret_frame->packet.is_copied = false;
    ret_frame->packet.has_key_hash = false;
    ret_frame->packet.is_next = false;
    ret_frame->packet.l3_offset = 0;
    ret_frame->is_group = false;
    ret_frame->is_through = false;
    ret_frame->is_like = false;
    ret_frame->kind = frame_parse(stack, ret_frame);
}

void frame_end(struct stack *stack, struct stack_port *port, const struct frame *before,
               struct frame *frame)
{
    /* Asked each time: a nic whose hash turns out to be wrong says so from then on. */
    if (frame->kind == FRAME_IP && port->rss != NULL && !port->nic->steering.is_hardware &&
        frame_steer(stack, &frame->packet))
        return;
    if (stack->tap != NULL)
        stack->tap(stack->tap_context, port->index, false, frame->packet.buf, stack->now);
    if (frame->is_like && before->is_through)
        ip_dispatch(stack, frame);
    else
        frame_dispatch(stack, frame);
    buf_release_chain(frame->packet.buf);
}

void net_input(struct stack *stack, struct stack_port *port, struct buf *buf)
{
    struct frame frame;

    frame_begin(stack, port, buf, &frame);
    frame_end(stack, port, NULL, &frame);
}

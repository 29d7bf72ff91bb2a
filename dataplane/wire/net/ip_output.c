/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets on their way out: IP header, offload requests, link header.
 *
 * The packet comes with its L4 header at the front of a buffer that is ours alone, and room before
 * it. The IP header goes in front (always without options; IPv4 with DF, RFC 1191, and so with an
 * identification that means nothing, RFC 6864 4.1), then the link header:
 *
 *   ip_output()            a connection's: the destination holds a ready link header for as long as
 *                          its next hop is known; only when that is over the neighbour is asked
 *   ip_train_send()        one more of a connection in this turn, with the headers of the one
 *                          before it, which were kept when that left; sizes differ
 *   ip_output_stateless()  an answer to somebody of whom nothing is kept: routed each time
 *   ip_output_reply()      back to the station from which the request came
 *
 * Invariants
 *   1. A packet that is taken is sent, waits for its neighbour, or was dropped and counted.
 *   2. A link header of a destination is used only while link_generation is the one it was made
 *      under: a neighbour that changed its address changes that.
 */
#include "dataplane/wire/net/stack_internal.h"

#define TTL_DEFAULT 64u

/* ---- headers ---- */

uint16_t stack_port_l2_size(const struct stack_port *port)
{
    if (port->is_l3)
        return 0;
    return port->vlan != 0 ? ETHERNET_HEADER_SIZE + ETHERNET_VLAN_SIZE : ETHERNET_HEADER_SIZE;
}

static uint8_t *packet_prepend(struct buf *packet, uint32_t size)
{
    CHECK(packet->mbuf.data_off >= size);
    packet->mbuf.data_off = (uint16_t)(packet->mbuf.data_off - size);
    packet->mbuf.data_len = (uint16_t)(packet->mbuf.data_len + size);
    packet->mbuf.pkt_len += size;
    return buf_data(packet);
}

/* What the nic is asked to do. */
static void packet_ask_offloads(struct buf *packet, const struct stack_port *port, uint8_t family,
                                const struct ip_send *send, uint16_t ip_size)
{
    uint32_t offloads = port->nic->offloads;
    uint64_t flags = 0;

    if (!send->is_checksum_complete) {
        if (send->protocol == IP_PROTOCOL_TCP && offloads & NIC_TX_TCP_CHECKSUM)
            flags |= RTE_MBUF_F_TX_TCP_CKSUM;
        else if (send->protocol == IP_PROTOCOL_UDP && offloads & NIC_TX_UDP_CHECKSUM)
            flags |= RTE_MBUF_F_TX_UDP_CKSUM;
    }
    if (send->tso_size > 0) {
        CHECK(offloads & NIC_TX_TSO && send->protocol == IP_PROTOCOL_TCP);
        flags |= RTE_MBUF_F_TX_TCP_SEG;
    }
    /* A nic that cuts segments writes the header of each. */
    if (family == 4 && (offloads & NIC_TX_IP4_CHECKSUM || send->tso_size > 0))
        flags |= RTE_MBUF_F_TX_IP_CKSUM;
    packet->mbuf.ol_flags &= RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL;
    packet->mbuf.tx_offload = 0;
    if (flags == 0)
        return;
    packet->mbuf.ol_flags |= flags | (family == 4 ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6);
    packet->mbuf.l2_len = stack_port_l2_size(port) & 0x7fu;
    packet->mbuf.l3_len = ip_size & 0x1ffu;
    packet->mbuf.l4_len = send->l4_header_size & 0xffu;
    packet->mbuf.tso_segsz = send->tso_size;
}

bool ip_output_header(struct stack *stack, struct stack_port *port, uint8_t family,
                      const uint8_t remote[16], const struct ip_send *send, struct buf *packet)
{
    uint16_t ip_size = family == 4 ? IP4_HEADER_SIZE : IP6_HEADER_SIZE;
    uint32_t l4_size = packet->mbuf.pkt_len, segment_size = l4_size;

    if (send->tso_size > 0 && l4_size > (uint32_t)send->l4_header_size + send->tso_size)
        segment_size = (uint32_t)send->l4_header_size + send->tso_size;
    if (segment_size + ip_size > port->mtu || l4_size + ip_size > UINT16_MAX) {
        STACK_COUNT(stack, SEND_TOO_LARGE);
        buf_release_chain(packet);
        return false;
    }
    struct ip_header header = {
        .family = family,
        .protocol = send->protocol,
        .ttl = send->ttl == 0 ? TTL_DEFAULT : send->ttl,
        .traffic_class = send->ecn & 3,
        .payload_size = (uint16_t)l4_size,
        .is_dont_fragment = true,
    };
    memcpy(header.source, send->source, 16);
    memcpy(header.destination, remote, 16);
    uint8_t *octets = packet_prepend(packet, ip_size);
    packet_ask_offloads(packet, port, family, send, ip_size);
    if (family == 4)
        ip4_build(&header, !(packet->mbuf.ol_flags & RTE_MBUF_F_TX_IP_CKSUM), octets);
    else
        ip6_build(&header, octets);
    return true;
}

static uint16_t ethertype_of(uint8_t family)
{
    return family == 4 ? ETHERTYPE_IP4 : ETHERTYPE_IP6;
}

/* Writes at most sizeof(destination.l2_header) octets. */
static uint32_t link_header_build(const struct stack_port *port, const uint8_t mac[6],
                                  uint16_t type, uint8_t *ret_octets)
{
    struct ethernet_header header = {.type = type, .vlan = port->vlan};

    memcpy(header.destination, mac, sizeof(header.destination));
    memcpy(header.source, port->mac, sizeof(header.source));
    return ethernet_build(&header, ret_octets);
}

void ip_output_link(struct stack *stack, struct stack_port *port, const uint8_t mac[6],
                    uint16_t type, struct buf *packet)
{
    if (!port->is_l3)
        link_header_build(port, mac, type, packet_prepend(packet, stack_port_l2_size(port)));
    stack_port_send(stack, port, packet);
}

/* ---- to a destination ---- */

/* The next hop is asked for; what it takes or loses is its business. */
static void destination_output_slow(struct stack *stack, struct destination *destination,
                                    struct buf *packet)
{
    struct stack_port *port = destination->port;
    uint8_t mac[6];

    if (destination->confirmed_at > 0)
        neigh_confirm(stack, port, destination->family, destination->next_hop,
                      destination->confirmed_at);
    uint32_t generation = stack->link_generation;
    enum err err = neigh_resolve(stack, port, destination->family, destination->next_hop, packet,
                                 mac, &destination->resolved_until);
    if (err == ERR_AGAIN)
        return;
    if (err != ERR_OK) {
        STACK_COUNT(stack, NEIGHBOUR_UNREACHABLE);
        buf_release_chain(packet);
        return;
    }
    destination->l2_size = (uint16_t)link_header_build(port, mac, ethertype_of(destination->family),
                                                       destination->l2_header);
    destination->l2_generation = generation;
    memcpy(packet_prepend(packet, destination->l2_size), destination->l2_header,
           destination->l2_size);
    stack_port_send(stack, port, packet);
}

static bool is_link_known(const struct stack *stack, const struct destination *destination)
{
    return destination->port->is_l3 || (stack->now < destination->resolved_until &&
                                        destination->l2_generation == stack->link_generation);
}

/* The packet is complete and about to go. */
static void train_keep(struct ip_train *train, const struct stack_port *port,
                       const struct buf *packet, uint16_t l4_offset, uint16_t l4_header_size)
{
    train->l3_offset = stack_port_l2_size(port);
    train->l4_offset = l4_offset;
    train->size = (uint16_t)(l4_offset + l4_header_size);
    train->l4_size = (uint16_t)(packet->mbuf.pkt_len - l4_offset);
    train->l4_size_max = (uint16_t)(port->mtu - (l4_offset - train->l3_offset));
    train->ol_flags = packet->mbuf.ol_flags & RTE_MBUF_F_TX_OFFLOAD_MASK;
    train->tx_offload = packet->mbuf.tx_offload;
    memcpy(train->octets + IP_TRAIN_SIZE - train->size, buf_data(packet), train->size);
}

void ip_output(struct stack *stack, struct destination *destination, const struct ip_send *send,
               struct buf *packet)
{
    uint32_t l4_at = packet->mbuf.data_off;

    if (!ip_output_header(stack, destination->port, destination->family, destination->ip, send,
                          packet))
        return;
    if (!is_link_known(stack, destination)) {
        destination_output_slow(stack, destination, packet);
        return;
    }
    if (!destination->port->is_l3)
        memcpy(packet_prepend(packet, destination->l2_size), destination->l2_header,
               destination->l2_size);
    if (send->train != NULL)
        train_keep(send->train, destination->port, packet,
                   (uint16_t)(l4_at - packet->mbuf.data_off), send->l4_header_size);
    stack_port_send(stack, destination->port, packet);
}

uint8_t *ip_train_begin(const struct ip_train *train, struct buf *packet, uint32_t end)
{
    uint8_t *octets = packet->mbuf.buf_addr;

    CHECK(train->size > 0 && end >= sizeof(train->octets) && end <= packet->mbuf.buf_len);
    /* All of it, which is quicker than as much as there is. */
    memcpy(octets + end - sizeof(train->octets), train->octets, sizeof(train->octets));
    packet->mbuf.data_off = (uint16_t)(end - train->size);
    packet->mbuf.data_len = train->size;
    packet->mbuf.pkt_len = train->size;
    return octets + end - (train->size - train->l4_offset);
}

/* Sizes, and what depends on them: of this packet, and of those that follow, which are mostly as
 * long. */
static void train_resize(struct ip_train *train, uint8_t family, uint16_t l4_size, uint8_t *l3)
{
    if (family == 4)
        ip4_resize(l3, l4_size, !(train->ol_flags & RTE_MBUF_F_TX_IP_CKSUM));
    else
        ip6_resize(l3, l4_size);
    memcpy(train->octets + IP_TRAIN_SIZE - train->size + train->l3_offset, l3,
           (size_t)train->l4_offset - train->l3_offset);
    train->l4_size = l4_size;
}

void ip_train_send(struct stack *stack, struct destination *destination, struct ip_train *train,
                   uint16_t l4_size, struct buf *packet)
{
    CHECK(l4_size <= train->l4_size_max);
    if (l4_size != train->l4_size)
        train_resize(train, destination->family, l4_size, buf_data(packet) + train->l3_offset);
    packet->mbuf.ol_flags = train->ol_flags;
    packet->mbuf.tx_offload = train->tx_offload;
    stack_port_send(stack, destination->port, packet);
}

/* ---- without a destination ---- */

void ip_output_stateless(struct stack *stack, uint8_t family, const uint8_t remote[16],
                         const struct ip_send *send, struct buf *packet)
{
    struct stack_port *port;
    uint8_t next_hop[16], mac[6];
    tick_us until;

    CHECK(send->is_checksum_complete && send->tso_size == 0);
    if (!stack_route(stack, family, remote, &port, next_hop)) {
        STACK_COUNT(stack, IP_NO_ROUTE);
        buf_release_chain(packet);
        return;
    }
    if (!ip_output_header(stack, port, family, remote, send, packet))
        return;
    if (port->is_l3) {
        stack_port_send(stack, port, packet);
        return;
    }
    enum err err = neigh_resolve(stack, port, family, next_hop, packet, mac, &until);
    if (err == ERR_AGAIN)
        return;
    if (err != ERR_OK) {
        STACK_COUNT(stack, NEIGHBOUR_UNREACHABLE);
        buf_release_chain(packet);
        return;
    }
    ip_output_link(stack, port, mac, ethertype_of(family), packet);
}

void ip_output_reply(struct stack *stack, const struct packet *request, const struct ip_send *send,
                     struct buf *packet)
{
    struct stack_port *port = request->port;
    uint8_t family = request->ip.family;

    CHECK(send->is_checksum_complete && send->tso_size == 0);
    if (ip_output_header(stack, port, family, request->ip.source, send, packet))
        ip_output_link(stack, port, request->source_mac, ethertype_of(family), packet);
}

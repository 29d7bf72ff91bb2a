/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ARP (RFC 826) and neighbour discovery (RFC 4861 7.2) packets, in and out.
 *
 * In: who asks for us is answered at once, at the address it asked from, and leaves nothing behind;
 * what a packet says about a neighbour that is in the table goes to neigh_hear(); everything else
 * says nothing. ARP for other addresses goes to the exception path: the kernel has some of its own.
 *
 * Out: solicitations, to everybody or to one station, and advertisements. A solicitation comes from
 * an address of ours on that port, of the neighbour's prefix if there is one.
 */
#include "dataplane/wire/net/neighbour.h"

#define ARP_REQUEST  1u
#define ARP_REPLY    2u
#define ND_SIZE_MAX  32u
#define ND_HOP_LIMIT 255u /* RFC 4861: nothing that came over a router has it */

static const uint8_t broadcast_mac[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
static const uint8_t all_nodes[16] = {0xff, 0x02, [15] = 1};
static const uint8_t unspecified[16];

static bool is_zero_mac(const uint8_t mac[6])
{
    return memcmp(mac, (const uint8_t[6]){0}, 6) == 0;
}

/* ---- out ---- */

static void arp_send(struct stack *stack, struct stack_port *port, const struct arp_packet *arp,
                     const uint8_t to[6])
{
    struct buf *packet = stack_header_acquire(stack);

    if (packet == NULL)
        return;
    arp_build(arp, buf_data(packet));
    buf_extend(packet, ARP_SIZE);
    ip_output_link(stack, port, to, ETHERTYPE_ARP, packet);
}

static void arp_solicit(struct stack *stack, const struct neigh *neigh, bool is_unicast)
{
    struct arp_packet arp = {.operation = ARP_REQUEST};
    const struct stack_local *local =
        stack_local_choose(stack, neigh->port, neigh->family, neigh->ip);

    if (local == NULL)
        return;
    memcpy(arp.sender_mac, neigh->port->mac, 6);
    memcpy(arp.sender_ip, local->address.address.ip, 4);
    memcpy(arp.target_ip, neigh->ip, 4);
    arp_send(stack, neigh->port, &arp, is_unicast ? neigh->mac : broadcast_mac);
}

void neigh_group_mac(const uint8_t group[16], uint8_t ret_mac[6])
{
    ret_mac[0] = ret_mac[1] = 0x33;
    memcpy(ret_mac + 2, group + 12, 4);
}

void neigh_group_of(const uint8_t ip[16], uint8_t ret_group[16])
{
    static const uint8_t prefix[13] = {0xff, 0x02, [11] = 1, [12] = 0xff};

    memcpy(ret_group, prefix, sizeof(prefix));
    memcpy(ret_group + 13, ip + 13, 3);
}

static void nd_send(struct stack *stack, struct stack_port *port, const struct nd_packet *nd,
                    const uint8_t source[16], const uint8_t destination[16], const uint8_t to[6])
{
    const struct ip_send send = {.source = source,
                                 .protocol = IP_PROTOCOL_ICMP6,
                                 .ttl = ND_HOP_LIMIT,
                                 .is_checksum_complete = true};
    struct buf *packet = stack_header_acquire(stack);
    if (packet == NULL)
        return;
    uint8_t *octets = buf_data(packet);
    uint32_t size = nd_build(nd, octets);
    uint64_t sum =
        wire_sum(octets, size) + wire_sum_pseudo(6, source, destination, IP_PROTOCOL_ICMP6, size);
    uint16_t checksum = wire_sum_finish(sum);
    memcpy(octets + 2, &checksum, sizeof(checksum));
    buf_extend(packet, size);
    if (ip_output_header(stack, port, 6, destination, &send, packet))
        ip_output_link(stack, port, to, ETHERTYPE_IP6, packet);
}

static void nd_solicit(struct stack *stack, const struct neigh *neigh, bool is_unicast)
{
    struct nd_packet nd = {.type = ICMP_NEIGHBOUR_SOLICITATION6, .has_link_address = true};
    const struct stack_local *local =
        stack_local_choose(stack, neigh->port, neigh->family, neigh->ip);
    uint8_t group[16], mac[6];

    if (local == NULL)
        return;
    memcpy(nd.target, neigh->ip, 16);
    memcpy(nd.link_address, neigh->port->mac, 6);
    neigh_group_of(neigh->ip, group);
    neigh_group_mac(group, mac);
    nd_send(stack, neigh->port, &nd, local->address.address.ip, is_unicast ? neigh->ip : group,
            is_unicast ? neigh->mac : mac);
}

void neigh_solicit(struct stack *stack, const struct neigh *neigh, bool is_unicast)
{
    if (neigh->family == 4)
        arp_solicit(stack, neigh, is_unicast);
    else
        nd_solicit(stack, neigh, is_unicast);
}

void neigh_solicit_duplicate(struct stack *stack, const struct stack_local *local)
{
    struct nd_packet nd = {.type = ICMP_NEIGHBOUR_SOLICITATION6};
    uint8_t group[16], mac[6];

    memcpy(nd.target, local->address.address.ip, 16);
    neigh_group_of(nd.target, group);
    neigh_group_mac(group, mac);
    nd_send(stack, &stack->ports[local->port], &nd, unspecified, group, mac);
}

static void nd_advertise(struct stack *stack, struct stack_port *port, const uint8_t target[16],
                         const uint8_t destination[16], const uint8_t to[6])
{
    struct nd_packet nd = {.type = ICMP_NEIGHBOUR_ADVERTISEMENT6,
                           .is_solicited = !ip_is_multicast(6, destination),
                           .is_override = true,
                           .has_link_address = true};

    memcpy(nd.target, target, 16);
    memcpy(nd.link_address, port->mac, 6);
    nd_send(stack, port, &nd, target, destination, to);
}

void neigh_advertise(struct stack *stack, struct stack_local *local)
{
    struct stack_port *port = &stack->ports[local->port];
    const uint8_t *ip = local->address.address.ip;
    uint8_t mac[6];

    if (local->address.address.family == 6) {
        neigh_group_mac(all_nodes, mac);
        nd_advertise(stack, port, ip, all_nodes, mac);
        return;
    }
    /* RFC 5227 2.3: an announcement is a request for the address that it comes from. */
    struct arp_packet arp = {.operation = ARP_REQUEST};
    memcpy(arp.sender_mac, port->mac, 6);
    memcpy(arp.sender_ip, ip, 4);
    memcpy(arp.target_ip, ip, 4);
    arp_send(stack, port, &arp, broadcast_mac);
}

/* ---- in ---- */

/* What a packet says of the station at `ip`. */
struct heard {
    uint8_t family;
    const uint8_t *ip, *mac;
    enum neigh_word word;
    bool is_override, is_announcement;
};

/* The nic gives ARP to one core, but all may have asked for what this one hears, and all must know
 * of a station that moved. Other noise of the link is kept from them. */
static void heard_tell(struct stack *stack, const struct stack_port *port,
                       const struct heard *heard, bool is_change)
{
    struct stack_news news = {.kind = heard->word == NEIGH_ANSWER ? STACK_NEWS_NEIGHBOUR
                                                                  : STACK_NEWS_CLAIM,
                              .port = (uint8_t)port->index,
                              .address = {.family = heard->family}};

    if (heard->word != NEIGH_ANSWER && !is_change)
        return;
    memcpy(news.address.ip, heard->ip, 16);
    memcpy(news.mac, heard->mac, 6);
    stack_tell(stack, &news);
}

static void heard_take(struct stack *stack, const struct stack_port *port,
                       const struct heard *heard)
{
    struct neigh *neigh = neigh_find(stack, port, heard->family, heard->ip);
    bool is_change = heard->is_announcement;

    if (neigh != NULL) {
        is_change = memcmp(neigh->mac, heard->mac, 6) != 0;
        neigh_hear(stack, neigh, heard->mac, heard->word, heard->is_override);
    }
    heard_tell(stack, port, heard, is_change && heard->is_override);
}

/* May `ip` be the address of a station on this link? */
static bool is_possible_neighbour(struct stack *stack, const struct stack_port *port,
                                  uint8_t family, const uint8_t ip[16])
{
    uint8_t bits;

    if (ip_is_martian_source(family, ip) || stack_local_find(stack, family, ip) != NULL)
        return false;
    return stack_port_has_prefix(port, family, ip, &bits) ||
           stack_port_is_router(port, family, ip) || (family == 6 && ip_is_link_local(family, ip));
}

static void arp_answer(struct stack *stack, struct stack_port *port, const struct arp_packet *arp)
{
    struct arp_packet reply = {.operation = ARP_REPLY};

    memcpy(reply.sender_mac, port->mac, 6);
    memcpy(reply.sender_ip, arp->target_ip, 4);
    memcpy(reply.target_mac, arp->sender_mac, 6);
    memcpy(reply.target_ip, arp->sender_ip, 4);
    arp_send(stack, port, &reply, arp->sender_mac);
}

static void arp_hear(struct stack *stack, struct stack_port *port, const struct arp_packet *arp,
                     const uint8_t sender[16], bool is_for_us)
{
    const struct heard heard = {
        .family = 4,
        .ip = sender,
        .mac = arp->sender_mac,
        .word = is_for_us && arp->operation == ARP_REPLY ? NEIGH_ANSWER : NEIGH_CLAIM,
        .is_override = true,
        .is_announcement = memcmp(arp->sender_ip, arp->target_ip, 4) == 0,
    };
    heard_take(stack, port, &heard);
}

void neigh_input_arp(struct stack *stack, struct packet *packet)
{
    struct stack_port *port = packet->port;
    struct span octets = span_of(buf_data(packet->buf), buf_size(packet->buf));
    uint8_t sender[16] = {0}, target[16] = {0};
    struct arp_packet arp;

    if (arp_parse(span_skip(octets, packet->l3_offset), &arp) != PACKET_OK ||
        is_zero_mac(arp.sender_mac)) {
        STACK_COUNT(stack, ARP_MALFORMED);
        return;
    }
    memcpy(sender, arp.sender_ip, 4);
    memcpy(target, arp.target_ip, 4);
    struct stack_local *claimed = stack_local_find(stack, 4, sender);
    if (claimed != NULL && claimed->port == port->index) {
        neigh_on_conflict(stack, claimed);
        return;
    }
    struct stack_local *local = stack_local_find(stack, 4, target);
    bool is_for_us = local != NULL && local->port == port->index && stack_local_is_usable(local);
    /* RFC 5227 2.1.1: a probe has no sender address yet; it is answered, and teaches nothing. */
    bool is_probe = memcmp(sender, unspecified, 16) == 0;
    if (!is_probe && !is_possible_neighbour(stack, port, 4, sender)) {
        STACK_COUNT(stack, ARP_REFUSED);
        return;
    }
    if (!is_probe)
        arp_hear(stack, port, &arp, sender, is_for_us);
    if (is_for_us && arp.operation == ARP_REQUEST)
        arp_answer(stack, port, &arp);
    else if (!is_for_us)
        stack_port_except(stack, packet, STACK_ARP_NOT_OURS);
}

/* RFC 4861 7.2.3, 7.2.4; RFC 4862 5.4.3. */
static void nd_on_solicitation(struct stack *stack, struct packet *packet,
                               const struct nd_packet *nd)
{
    struct stack_port *port = packet->port;
    struct stack_local *local = stack_local_find(stack, 6, nd->target);
    bool is_duplicate_check = memcmp(packet->ip.source, unspecified, 16) == 0;
    uint8_t mac[6];

    if (local == NULL || local->port != port->index) {
        STACK_COUNT(stack, ND_NOT_OURS);
        return;
    }
    if (local->is_tentative && is_duplicate_check) {
        /* Our own solicitation never comes back here: frames from our own address do not. */
        neigh_on_conflict(stack, local);
        return;
    }
    if (!stack_local_is_usable(local)) {
        STACK_COUNT(stack, IP_UNUSABLE);
        return;
    }
    if (is_duplicate_check) {
        neigh_group_mac(all_nodes, mac);
        nd_advertise(stack, port, nd->target, all_nodes, mac);
        return;
    }
    if (!is_possible_neighbour(stack, port, 6, packet->ip.source)) {
        STACK_COUNT(stack, ND_REFUSED);
        return;
    }
    const struct heard heard = {.family = 6,
                                .ip = packet->ip.source,
                                .mac = nd->link_address,
                                .word = NEIGH_CLAIM,
                                .is_override = true};
    if (nd->has_link_address)
        heard_take(stack, port, &heard);
    nd_advertise(stack, port, nd->target, packet->ip.source,
                 nd->has_link_address ? nd->link_address : packet->source_mac);
}

/* RFC 4861 7.2.5. */
static void nd_on_advertisement(struct stack *stack, struct packet *packet,
                                const struct nd_packet *nd)
{
    struct stack_port *port = packet->port;
    struct stack_local *local = stack_local_find(stack, 6, nd->target);

    if (local != NULL && local->port == port->index) {
        neigh_on_conflict(stack, local);
        return;
    }
    if (!is_possible_neighbour(stack, port, 6, nd->target)) {
        STACK_COUNT(stack, ND_REFUSED);
        return;
    }
    struct neigh *neigh = neigh_find(stack, port, 6, nd->target);
    /* An answer to a unicast solicitation need not say the address again. */
    const uint8_t *mac = nd->has_link_address ? nd->link_address
                         : neigh != NULL      ? neigh->mac
                                              : packet->source_mac;
    if (is_zero_mac(mac))
        return;
    const struct heard heard = {
        .family = 6,
        .ip = nd->target,
        .mac = mac,
        .word = nd->is_solicited ? NEIGH_ANSWER : NEIGH_CLAIM,
        .is_override = nd->is_override,
        .is_announcement = ip_is_multicast(6, packet->ip.destination),
    };
    heard_take(stack, port, &heard);
}

void neigh_input_nd(struct stack *stack, struct packet *packet, const struct nd_packet *nd)
{
    bool is_group = ip_is_multicast(6, packet->ip.destination);
    bool is_unspecified = memcmp(packet->ip.source, unspecified, 16) == 0;

    if (packet->port->is_l3) {
        STACK_COUNT(stack, ND_NOT_OURS);
        return;
    }
    if (nd->type == ICMP_NEIGHBOUR_SOLICITATION6) {
        /* RFC 4861 7.1.1. */
        if (is_unspecified && (!is_group || nd->has_link_address))
            STACK_COUNT(stack, ND_MALFORMED);
        else
            nd_on_solicitation(stack, packet, nd);
        return;
    }
    /* RFC 4861 7.1.2. */
    if (is_unspecified || (is_group && nd->is_solicited))
        STACK_COUNT(stack, ND_MALFORMED);
    else
        nd_on_advertisement(stack, packet, nd);
}

void neigh_on_news(struct stack *stack, const struct stack_news *news)
{
    struct stack_port *port = &stack->ports[news->port];
    uint8_t family = news->address.family;

    if (family != FLOW_FAMILY_IP4 && family != FLOW_FAMILY_IP6)
        return;
    struct stack_local *local = stack_local_find(stack, family, news->address.ip);
    if (local != NULL) {
        neigh_on_conflict_news(local);
        return;
    }
    struct neigh *neigh = neigh_find(stack, port, family, news->address.ip);
    if (neigh != NULL)
        neigh_hear(stack, neigh, news->mac,
                   news->kind == STACK_NEWS_CLAIM ? NEIGH_CLAIM : NEIGH_ANSWER, true);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Neighbour solicitations and advertisements (RFC 4861 4.3, 4.4), as ICMPv6 messages:
 *
 *   0  type 135 or 136   1  code 0   2  checksum (2)   4  R, S, O (advertisement), reserved (4)
 *   8  target (16)   24  options: type, size in units of 8 octets, ...
 *
 * The validity rules are 7.1.1 and 7.1.2: code 0, at least 24 octets, a target that is no multicast
 * address, and every option of a size above 0 within the message; a message that breaks one is
 * dropped whole. Those that need the IP header (hop limit 255, the unspecified source) are the
 * caller's. The only option that is looked into is the link-layer address, source or target as the
 * type wants it; a group address there is malformed, as in ARP.
 *
 * Limits: OPTIONS_MAX options; a real message has one or two.
 */
#include "dataplane/wire/format/packet.h"

#define ND_SIZE           24u
#define OPTION_UNIT       8u
#define OPTIONS_MAX       16u
#define FLAG_ROUTER       0x80u
#define FLAG_SOLICITED    0x40u
#define FLAG_OVERRIDE     0x20u
#define OPTION_SOURCE_MAC 1u
#define OPTION_TARGET_MAC 2u

static enum packet_fault options_parse(struct span options, struct nd_packet *packet)
{
    uint8_t wanted =
        packet->type == ICMP_NEIGHBOUR_SOLICITATION6 ? OPTION_SOURCE_MAC : OPTION_TARGET_MAC;

    for (uint32_t i = 0; options.size > 0; i++) {
        if (i == OPTIONS_MAX)
            return PACKET_UNSUPPORTED;
        if (options.size < OPTION_UNIT)
            return PACKET_MALFORMED;
        uint32_t size = options.data[1] * OPTION_UNIT;
        if (size == 0 || size > options.size)
            return PACKET_MALFORMED;
        if (options.data[0] == wanted) {
            /* RFC 2464 6: an Ethernet address takes one unit. */
            if (size != OPTION_UNIT || ethernet_is_multicast(options.data + 2))
                return PACKET_MALFORMED;
            packet->has_link_address = true;
            memcpy(packet->link_address, options.data + 2, 6);
        }
        options = span_skip(options, size);
    }
    return PACKET_OK;
}

enum packet_fault nd_parse(struct span octets, struct nd_packet *ret_packet)
{
    const uint8_t *data = octets.data;

    if (octets.size < ND_SIZE)
        return PACKET_SHORT;
    if (data[0] != ICMP_NEIGHBOUR_SOLICITATION6 && data[0] != ICMP_NEIGHBOUR_ADVERTISEMENT6)
        return PACKET_UNSUPPORTED;
    if (data[1] != 0 || ip_is_multicast(6, data + 8))
        return PACKET_MALFORMED;
    bool is_advertisement = data[0] == ICMP_NEIGHBOUR_ADVERTISEMENT6;
    struct nd_packet packet = {
        .type = data[0],
        .is_router = is_advertisement && (data[4] & FLAG_ROUTER) != 0,
        .is_solicited = is_advertisement && (data[4] & FLAG_SOLICITED) != 0,
        .is_override = is_advertisement && (data[4] & FLAG_OVERRIDE) != 0,
    };
    memcpy(packet.target, data + 8, 16);
    enum packet_fault fault = options_parse(span_skip(octets, ND_SIZE), &packet);
    if (fault == PACKET_OK)
        *ret_packet = packet;
    return fault;
}

uint32_t nd_build(const struct nd_packet *packet, uint8_t ret_octets[32])
{
    bool is_advertisement = packet->type == ICMP_NEIGHBOUR_ADVERTISEMENT6;

    CHECK(is_advertisement || packet->type == ICMP_NEIGHBOUR_SOLICITATION6);
    memset(ret_octets, 0, ND_SIZE);
    ret_octets[0] = packet->type;
    if (is_advertisement)
        ret_octets[4] = (uint8_t)((packet->is_router ? FLAG_ROUTER : 0) |
                                  (packet->is_solicited ? FLAG_SOLICITED : 0) |
                                  (packet->is_override ? FLAG_OVERRIDE : 0));
    memcpy(ret_octets + 8, packet->target, 16);
    if (!packet->has_link_address)
        return ND_SIZE;
    ret_octets[ND_SIZE] = is_advertisement ? OPTION_TARGET_MAC : OPTION_SOURCE_MAC;
    ret_octets[ND_SIZE + 1] = 1;
    memcpy(ret_octets + ND_SIZE + 2, packet->link_address, 6);
    return ND_SIZE + OPTION_UNIT;
}

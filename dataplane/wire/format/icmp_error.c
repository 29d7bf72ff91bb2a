/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ICMP errors (RFC 792, RFC 4443) with the packet of ours that they quote:
 *
 *   0  type   1  code   2  checksum (2)   4  unused, or what the type says   8  the quoted packet
 *   next-hop MTU: IPv4 type 3 code 4 at 6 (2) (RFC 1191 4); IPv6 type 2 at 4 (4)
 *
 * The quote is cut off, so its sizes are judged only against each other, and its IPv4 checksum is
 * not: routers and translators change what they quote. What is needed of it is its addresses, its
 * protocol and the first 8 octets behind its header (RFC 1122 3.2.2); without those it cannot be
 * told whose it is. Whether it is ours at all is for TCP and UDP to say (RFC 5927).
 *
 * Source quench is ignored (RFC 6633), redirects are no errors: both are unsupported.
 */
#include "dataplane/wire/format/packet.h"

#define ICMP_HEADER_SIZE      8u
#define QUOTED_SIZE           8u
#define FRAGMENTATION_NEEDED4 4u /* code of ICMP_UNREACHABLE4 */

static bool is_error(uint8_t family, uint8_t type)
{
    if (family == 4)
        return type == ICMP_UNREACHABLE4 || type == ICMP_TIME_EXCEEDED4 || type == ICMP_PARAMETER4;
    return type == ICMP_UNREACHABLE6 || type == ICMP_PACKET_TOO_BIG6 ||
           type == ICMP_TIME_EXCEEDED6 || type == ICMP_PARAMETER6;
}

static uint16_t mtu_parse(uint8_t family, const uint8_t *message)
{
    if (family == 4) {
        bool is_needed = message[0] == ICMP_UNREACHABLE4 && message[1] == FRAGMENTATION_NEEDED4;
        return is_needed ? load_be16(message + 6) : 0;
    }
    uint32_t mtu = message[0] == ICMP_PACKET_TOO_BIG6 ? load_be32(message + 4) : 0;
    return mtu > UINT16_MAX ? UINT16_MAX : (uint16_t)mtu;
}

enum packet_fault icmp_error_parse(uint8_t family, struct span octets, struct icmp_error *ret_error)
{
    struct ip_header quoted;

    if (octets.size < ICMP_HEADER_SIZE)
        return PACKET_SHORT;
    if (!is_error(family, octets.data[0]))
        return PACKET_UNSUPPORTED;
    struct span quote = span_skip(octets, ICMP_HEADER_SIZE);
    enum packet_fault fault = family == 4 ? ip4_parse(quote, UINT32_MAX, true, &quoted)
                                          : ip6_parse(quote, UINT32_MAX, &quoted);
    if (fault != PACKET_OK)
        return fault;
    if (quoted.protocol != IP_PROTOCOL_TCP && quoted.protocol != IP_PROTOCOL_UDP)
        return PACKET_UNSUPPORTED;
    if (quoted.payload_size < QUOTED_SIZE)
        return PACKET_MALFORMED;
    struct span l4 = span_skip(quote, quoted.header_size);
    if (l4.size < QUOTED_SIZE)
        return PACKET_SHORT;
    *ret_error = (struct icmp_error){
        .type = octets.data[0],
        .code = octets.data[1],
        .mtu = mtu_parse(family, octets.data),
        .quoted = quoted,
        .source_port = load_be16(l4.data),
        .destination_port = load_be16(l4.data + 2),
        .sequence = quoted.protocol == IP_PROTOCOL_TCP ? load_be32(l4.data + 4) : 0,
    };
    return PACKET_OK;
}

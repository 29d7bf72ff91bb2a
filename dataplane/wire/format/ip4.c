/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The IPv4 header (RFC 791):
 *
 *   0  version 4, size in words   1  TOS   2  total size (2)   4  identification (2)
 *   6  flags: -, DF, MF; fragment offset (13 bits)   8  TTL   9  protocol   10  checksum (2)
 *   12  source (4)   16  destination (4)   20  options, up to 40 octets
 *
 * The sizes are judged first, against the frame and against each other, and nothing is read before
 * it is known to be there. Options are looked through for those that name a route, and otherwise
 * ignored (RFC 1122 3.2.1.8); a list that cannot be walked is malformed. A TTL of 0 or 1 is fine
 * for a host (RFC 1122 3.2.1.7). Not here: reassembly, which the engine does not do.
 */
#include "dataplane/wire/format/packet.h"

#define DONT_FRAGMENT  0x4000u
#define MORE_FRAGMENTS 0x2000u
#define OFFSET_MASK    0x1fffu

enum ip4_option { OPTION_END = 0, OPTION_NOP = 1, OPTION_LSRR = 131, OPTION_SSRR = 137 };
#define OPTION_ROUTER_ALERT 148u /* RFC 2113 */

/* At most 40 steps. */
static enum packet_fault options_walk(struct span options, bool *ret_has_route)
{
    uint32_t at = 0;

    while (at < options.size) {
        uint8_t type = options.data[at];
        if (type == OPTION_END)
            return PACKET_OK;
        if (type == OPTION_NOP) {
            at++;
            continue;
        }
        if (options.size - at < 2)
            return PACKET_MALFORMED;
        uint8_t size = options.data[at + 1];
        if (size < 2 || size > options.size - at)
            return PACKET_MALFORMED;
        if (type == OPTION_LSRR || type == OPTION_SSRR || type == OPTION_ROUTER_ALERT)
            *ret_has_route = true;
        at += size;
    }
    return PACKET_OK;
}

static void address_load(uint8_t ret_ip[16], const uint8_t *octets)
{
    memcpy(ret_ip, octets, 4);
    memset(ret_ip + 4, 0, 12);
}

enum packet_fault ip4_parse(struct span octets, uint32_t total, bool is_checksum_good,
                            struct ip_header *ret_header)
{
    const uint8_t *data = octets.data;
    bool has_route = false;

    if (octets.size < IP4_HEADER_SIZE)
        return PACKET_SHORT;
    if (data[0] >> 4 != 4)
        return PACKET_UNSUPPORTED;
    uint16_t header_size = (uint16_t)((data[0] & 0x0f) * 4), size = load_be16(data + 2);
    if (header_size < IP4_HEADER_SIZE || size < header_size)
        return PACKET_MALFORMED;
    if (header_size > octets.size || size > total)
        return PACKET_SHORT;
    if (!is_checksum_good && wire_sum_finish(wire_sum_header(data, header_size)) != 0)
        return PACKET_CHECKSUM;
    uint16_t fragment = load_be16(data + 6);
    if ((fragment & (MORE_FRAGMENTS | OFFSET_MASK)) != 0)
        return PACKET_FRAGMENT;
    if (header_size > IP4_HEADER_SIZE) {
        enum packet_fault fault = options_walk(
            span_of(data + IP4_HEADER_SIZE, header_size - IP4_HEADER_SIZE), &has_route);
        if (fault != PACKET_OK)
            return fault;
    }
    ret_header->family = 4;
    ret_header->protocol = data[9];
    ret_header->ttl = data[8];
    ret_header->traffic_class = data[1];
    ret_header->header_size = header_size;
    ret_header->payload_size = (uint16_t)(size - header_size);
    ret_header->identification = load_be16(data + 4);
    ret_header->is_dont_fragment = (fragment & DONT_FRAGMENT) != 0;
    ret_header->has_options = header_size > IP4_HEADER_SIZE;
    ret_header->has_router_alert_or_route = has_route;
    address_load(ret_header->source, data + 12);
    address_load(ret_header->destination, data + 16);
    return PACKET_OK;
}

/* Its place holds 0 so far. */
static void checksum_put(uint8_t *octets)
{
    uint16_t checksum = wire_sum_finish(wire_sum_header(octets, IP4_HEADER_SIZE));

    memcpy(octets + 10, &checksum, sizeof(checksum));
}

void ip4_build(const struct ip_header *header, bool with_checksum,
               uint8_t ret_octets[IP4_HEADER_SIZE])
{
    CHECK(header->payload_size <= UINT16_MAX - IP4_HEADER_SIZE);
    ret_octets[0] = 0x45;
    ret_octets[1] = header->traffic_class;
    store_be16(ret_octets + 2, (uint16_t)(IP4_HEADER_SIZE + header->payload_size));
    store_be16(ret_octets + 4, header->identification);
    store_be16(ret_octets + 6, header->is_dont_fragment ? DONT_FRAGMENT : 0);
    ret_octets[8] = header->ttl;
    ret_octets[9] = header->protocol;
    store_be16(ret_octets + 10, 0);
    memcpy(ret_octets + 12, header->source, 4);
    memcpy(ret_octets + 16, header->destination, 4);
    if (with_checksum)
        checksum_put(ret_octets);
}

void ip4_resize(uint8_t octets[IP4_HEADER_SIZE], uint16_t payload_size, bool with_checksum)
{
    CHECK(payload_size <= UINT16_MAX - IP4_HEADER_SIZE);
    store_be16(octets + 2, (uint16_t)(IP4_HEADER_SIZE + payload_size));
    store_be16(octets + 10, 0);
    if (with_checksum)
        checksum_put(octets);
}

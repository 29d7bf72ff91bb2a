/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The IPv6 header and the extension headers in front of the payload (RFC 8200):
 *
 *   0  version 6, traffic class (8), flow label (20)   4  payload size (2)   6  next header
 *   7  hop limit   8  source (16)   24  destination (16)
 *
 * An extension header says what follows and how long it is. Skipped are hop-by-hop (only directly
 * behind the IPv6 header, 4.1) and destination options, routing headers (noted: the caller drops
 * them, RFC 5095), and the fragment header of an atomic fragment (RFC 6946). Everything else ends
 * the chain and is the packet's protocol, known to the caller or not.
 *
 * Invariants
 *   1. Nothing is read that is not both in the contiguous octets and in the payload.
 *   2. The work is bounded: EXTENSIONS_MAX headers and EXTENSIONS_SIZE_MAX octets; more is
 *      unsupported. Every option advances by at least an octet.
 *
 * Not here: reassembly, jumbograms (a jumbo payload option is one to discard the packet for).
 */
#include "dataplane/wire/format/packet.h"

#define EXTENSIONS_MAX      8u
#define EXTENSIONS_SIZE_MAX 256u

enum ip6_next {
    NEXT_HOP_BY_HOP = 0,
    NEXT_ROUTING = 43,
    NEXT_FRAGMENT = 44,
    NEXT_DESTINATION_OPTIONS = 60,
};

enum ip6_option { OPTION_PAD1 = 0, OPTION_PADN = 1, OPTION_ROUTER_ALERT = 5 };

/* The options of a hop-by-hop or destination options header, without its first two octets. */
static enum packet_fault options_walk(struct span options, bool *ret_has_alert)
{
    uint32_t at = 0;

    while (at < options.size) {
        uint8_t type = options.data[at];
        if (type == OPTION_PAD1) {
            at++;
            continue;
        }
        if (options.size - at < 2 || options.data[at + 1] > options.size - at - 2)
            return PACKET_MALFORMED;
        if (type == OPTION_ROUTER_ALERT)
            *ret_has_alert = true;
        /* 4.2: the two highest bits of an unknown type say what to do; only 00 is "skip it". */
        else if (type != OPTION_PADN && type >> 6 != 0)
            return PACKET_UNSUPPORTED;
        at += 2u + options.data[at + 1];
    }
    return PACKET_OK;
}

struct chain {
    uint8_t next;
    uint16_t at; /* octets of extension headers so far */
    bool has_alert_or_route;
};

static bool is_extension(uint8_t next)
{
    return next == NEXT_HOP_BY_HOP || next == NEXT_ROUTING || next == NEXT_FRAGMENT ||
           next == NEXT_DESTINATION_OPTIONS;
}

/* One extension header at the beginning of `rest`. */
static enum packet_fault chain_step(struct chain *chain, struct span rest)
{
    if (rest.size < 8)
        return PACKET_SHORT;
    uint8_t type = chain->next;
    if (type == NEXT_HOP_BY_HOP && chain->at > 0)
        return PACKET_MALFORMED;
    uint32_t size = type == NEXT_FRAGMENT ? 8u : 8u + 8u * rest.data[1];
    if (chain->at + size > EXTENSIONS_SIZE_MAX)
        return PACKET_UNSUPPORTED;
    if (size > rest.size)
        return PACKET_SHORT;
    if (type == NEXT_FRAGMENT) {
        /* Offset 0 and no more to come; the two reserved bits are ignored (4.5). */
        if ((load_be16(rest.data + 2) & 0xfff9) != 0)
            return PACKET_FRAGMENT;
    } else if (type == NEXT_ROUTING) {
        chain->has_alert_or_route = true;
    } else {
        enum packet_fault fault =
            options_walk(span_of(rest.data + 2, size - 2), &chain->has_alert_or_route);
        if (fault != PACKET_OK)
            return fault;
    }
    chain->next = rest.data[0];
    chain->at = (uint16_t)(chain->at + size);
    return PACKET_OK;
}

static enum packet_fault chain_walk(struct chain *chain, struct span payload)
{
    for (uint32_t i = 0; is_extension(chain->next); i++) {
        if (i == EXTENSIONS_MAX)
            return PACKET_UNSUPPORTED;
        enum packet_fault fault = chain_step(chain, span_skip(payload, chain->at));
        if (fault != PACKET_OK)
            return fault;
    }
    return PACKET_OK;
}

enum packet_fault ip6_parse(struct span octets, uint32_t total, struct ip_header *ret_header)
{
    const uint8_t *data = octets.data;

    if (octets.size < IP6_HEADER_SIZE || total < IP6_HEADER_SIZE)
        return PACKET_SHORT;
    if (data[0] >> 4 != 6)
        return PACKET_UNSUPPORTED;
    uint32_t payload_size = load_be16(data + 4), contiguous = octets.size - IP6_HEADER_SIZE;
    if (payload_size > total - IP6_HEADER_SIZE)
        return PACKET_SHORT;
    struct chain chain = {.next = data[6]};
    enum packet_fault fault =
        chain_walk(&chain, span_of(data + IP6_HEADER_SIZE,
                                   contiguous < payload_size ? contiguous : payload_size));
    if (fault != PACKET_OK)
        return fault;
    ret_header->family = 6;
    ret_header->protocol = chain.next;
    ret_header->ttl = data[7];
    ret_header->traffic_class = (uint8_t)(data[0] << 4 | data[1] >> 4);
    ret_header->header_size = (uint16_t)(IP6_HEADER_SIZE + chain.at);
    ret_header->payload_size = (uint16_t)(payload_size - chain.at);
    ret_header->identification = 0;
    ret_header->is_dont_fragment = false;
    ret_header->has_options = chain.at > 0;
    ret_header->has_router_alert_or_route = chain.has_alert_or_route;
    memcpy(ret_header->source, data + 8, 16);
    memcpy(ret_header->destination, data + 24, 16);
    return PACKET_OK;
}

void ip6_build(const struct ip_header *header, uint8_t ret_octets[IP6_HEADER_SIZE])
{
    store_be32(ret_octets, 6u << 28 | (uint32_t)header->traffic_class << 20);
    store_be16(ret_octets + 4, header->payload_size);
    ret_octets[6] = header->protocol;
    ret_octets[7] = header->ttl;
    memcpy(ret_octets + 8, header->source, 16);
    memcpy(ret_octets + 24, header->destination, 16);
}

void ip6_resize(uint8_t octets[IP6_HEADER_SIZE], uint16_t payload_size)
{
    store_be16(octets + 4, payload_size);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as a frame, and as each of the headers that a frame can have. Nothing may be read
 * outside of them, what comes out must lie inside of them, and what is built from it must be read
 * as the same. The three forms of the checksum must agree on them.
 */
#include "dataplane/wire/format/checksum.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SIZE_MAX_INPUT 4096u

static void tcp_check(struct span octets)
{
    struct tcp_header header, again;
    uint8_t built[60];

    if (tcp_parse(octets, &header) != PACKET_OK)
        return;
    CHECK(header.header_size >= TCP_HEADER_SIZE && header.header_size <= octets.size);
    CHECK(header.header_size % 4 == 0 && header.options.sack_count <= TCP_SACK_BLOCKS_MAX);
    bool is_syn = (header.flags & TCP_SYN) != 0;
    CHECK(is_syn || (!header.options.has_mss && !header.options.has_window_scale &&
                     !header.options.has_sack_permitted));
    uint32_t size = tcp_build(&header, built);
    CHECK(size <= sizeof(built) && tcp_parse(span_of(built, size), &again) == PACKET_OK);
    CHECK(again.header_size == size && again.flags == header.flags);
    CHECK(again.sequence == header.sequence && again.acknowledgement == header.acknowledgement);
    const struct tcp_options *options = &header.options, *read = &again.options;
    CHECK(read->has_mss == options->has_mss && (!read->has_mss || read->mss == options->mss));
    CHECK(read->has_window_scale == options->has_window_scale);
    CHECK(!read->has_window_scale || read->window_scale == options->window_scale);
    CHECK(read->has_sack_permitted == options->has_sack_permitted);
    CHECK(read->has_timestamps == options->has_timestamps);
    CHECK(!read->has_timestamps || (read->timestamp_value == options->timestamp_value &&
                                    read->timestamp_echo == options->timestamp_echo));
    /* Blocks may be left out for want of room: we align, the sender need not have. */
    CHECK(read->sack_count <= options->sack_count);
    CHECK(memcmp(read->sack, options->sack, read->sack_count * sizeof(read->sack[0])) == 0);
}

static void udp_check(struct span octets, uint32_t payload_size)
{
    struct udp_header header;
    uint8_t built[UDP_HEADER_SIZE];

    if (udp_parse(octets, payload_size, &header) != PACKET_OK)
        return;
    CHECK(header.size >= UDP_HEADER_SIZE && header.size <= payload_size);
    udp_build(&header, built);
    CHECK(memcmp(built, octets.data, sizeof(built)) == 0);
}

static void nd_check(struct span octets)
{
    struct nd_packet packet, again = {0};
    uint8_t built[32];

    if (nd_parse(octets, &packet) != PACKET_OK)
        return;
    CHECK(!ip_is_multicast(6, packet.target));
    uint32_t size = nd_build(&packet, built);
    CHECK(size <= octets.size && size <= sizeof(built));
    CHECK(nd_parse(span_of(built, size), &again) == PACKET_OK);
    CHECK(again.type == packet.type && again.is_router == packet.is_router &&
          again.is_solicited == packet.is_solicited && again.is_override == packet.is_override);
    CHECK(memcmp(again.target, packet.target, 16) == 0);
    CHECK(again.has_link_address == packet.has_link_address);
    if (packet.has_link_address) {
        CHECK(memcmp(again.link_address, packet.link_address, 6) == 0);
        CHECK(!ethernet_is_multicast(packet.link_address));
    }
}

static void icmp_check(uint8_t family, struct span octets)
{
    struct icmp_error error;

    if (icmp_error_parse(family, octets, &error) != PACKET_OK)
        return;
    CHECK(error.quoted.family == family);
    CHECK(8u + error.quoted.header_size + 8u <= octets.size);
    CHECK(error.quoted.payload_size >= 8);
}

/* A header that was read: it lies inside, and without what we do not build it is built again. */
static void ip_check_header(const struct ip_header *header, struct span octets, uint32_t total)
{
    struct ip_header again = {0};
    uint8_t built[IP6_HEADER_SIZE];
    bool is_4 = header->family == 4;
    uint32_t fixed = is_4 ? IP4_HEADER_SIZE : IP6_HEADER_SIZE;

    CHECK(header->header_size >= fixed && header->header_size <= octets.size);
    CHECK(header->header_size + header->payload_size <= total);
    CHECK(header->has_options == (header->header_size > fixed));
    if (header->has_options)
        return;
    if (is_4)
        ip4_build(header, true, built);
    else
        ip6_build(header, built);
    struct span span = span_of(built, fixed);
    CHECK((is_4 ? ip4_parse(span, total, false, &again) : ip6_parse(span, total, &again)) ==
          PACKET_OK);
    CHECK(again.protocol == header->protocol && again.payload_size == header->payload_size);
    CHECK(again.ttl == header->ttl && again.traffic_class == header->traffic_class);
    CHECK(memcmp(again.source, header->source, 16) == 0);
    CHECK(memcmp(again.destination, header->destination, 16) == 0);
}

static void ip_check(uint8_t family, struct span octets, uint32_t total)
{
    struct ip_header header;
    enum packet_fault fault =
        family == 4 ? ip4_parse(octets, total, true, &header) : ip6_parse(octets, total, &header);

    if (fault != PACKET_OK)
        return;
    ip_check_header(&header, octets, total);
    (void)ip_is_martian_source(family, header.source);
    uint32_t contiguous = octets.size - header.header_size;
    struct span l4 = span_of(octets.data + header.header_size,
                             contiguous < header.payload_size ? contiguous : header.payload_size);
    tcp_check(l4);
    udp_check(l4, header.payload_size);
    icmp_check(family, l4);
    nd_check(l4);
}

static void arp_check(struct span octets)
{
    struct arp_packet packet;
    uint8_t built[ARP_SIZE];

    if (arp_parse(octets, &packet) != PACKET_OK)
        return;
    arp_build(&packet, built);
    CHECK(memcmp(built, octets.data, sizeof(built)) == 0);
}

static void frame_check(struct span octets)
{
    struct ethernet_header header, again;
    uint8_t built[ETHERNET_HEADER_SIZE + ETHERNET_VLAN_SIZE];

    if (ethernet_parse(octets, &header) != PACKET_OK)
        return;
    CHECK(header.size <= octets.size && header.vlan <= 4095);
    uint32_t size = ethernet_build(&header, built);
    CHECK(size <= header.size);
    if (header.type != ETHERTYPE_VLAN) { /* untagged by us, a second tag would become the first */
        CHECK(ethernet_parse(span_of(built, size), &again) == PACKET_OK);
        CHECK(again.type == header.type && again.vlan == header.vlan);
    }
    struct span l3 = span_skip(octets, header.size);
    arp_check(l3);
    ip_check(4, l3, l3.size);
    ip_check(6, l3, l3.size);
}

static void sums_check(struct span octets)
{
    static uint8_t copy[SIZE_MAX_INPUT];
    uint16_t expected = wire_sum_finish(wire_sum_portable(octets.data, octets.size));

    CHECK(wire_sum_finish(wire_sum(octets.data, octets.size)) == expected);
    CHECK(wire_sum_finish(wire_sum_copy(copy, octets.data, octets.size)) == expected);
    CHECK(octets.size == 0 || memcmp(copy, octets.data, octets.size) == 0);
    uint32_t cut = octets.size / 3;
    uint64_t rest = wire_sum(octets.data + cut, octets.size - cut);
    rest = cut % 2 == 0 ? rest : wire_sum_swap(rest);
    CHECK(wire_sum_finish(wire_sum(octets.data, cut) + rest) == expected);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > SIZE_MAX_INPUT)
        return 0;
    struct span octets = span_of(data, (uint32_t)size);
    frame_check(octets);
    arp_check(octets);
    /* All there, and as the first buffer of a longer chain. */
    ip_check(4, octets, octets.size);
    ip_check(4, octets, octets.size + 1500);
    ip_check(6, octets, octets.size);
    ip_check(6, octets, octets.size + 1500);
    icmp_check(4, octets);
    icmp_check(6, octets);
    nd_check(octets);
    udp_check(octets, octets.size);
    tcp_check(octets);
    sums_check(octets);
    return 0;
}

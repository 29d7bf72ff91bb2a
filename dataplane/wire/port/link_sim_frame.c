/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Octets of packets, for the simulated link: where the headers are, checksums, ECN, the hash that
 * steers, and the ICMP error of a router in between.
 *
 * Deliberately plain and apart from dataplane/wire/format: the card of the simulation must not
 * share the engine's mistakes.
 */
#include "dataplane/wire/port/link_sim_frame.h"

#define TYPE_IP4       0x0800u
#define TYPE_VLAN      0x8100u
#define TYPE_IP6       0x86ddu
#define MAC_SIZE       12u
#define PROTOCOL_ICMP  1u
#define PROTOCOL_TCP   6u
#define PROTOCOL_UDP   17u
#define PROTOCOL_ICMP6 58u
#define HEADER4        20u
#define HEADER6        40u
#define EXTENSION_MAX  8u
#define QUOTE4_SIZE    (HEADER4 + 8)
#define QUOTE6_MAX     (1280u - HEADER6 - 8)

static const uint8_t router4[4] = {203, 0, 113, 254};
static const uint8_t router6[16] = {0x20, 0x01, 0x0d, 0xb8, 0xff, 0xff, [15] = 0xfe};

static uint16_t get16(const uint8_t *octets)
{
    return (uint16_t)(octets[0] << 8 | octets[1]);
}

static void put16(uint8_t *octets, uint32_t value)
{
    octets[0] = (uint8_t)(value >> 8);
    octets[1] = (uint8_t)value;
}

/* ---- where things are ---- */

static bool protocol_has_l4(uint8_t protocol)
{
    return protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP || protocol == PROTOCOL_ICMP ||
           protocol == PROTOCOL_ICMP6;
}

static bool parse4(struct span packet, struct link_frame *frame)
{
    const uint8_t *header = packet.data + frame->l3;
    uint32_t room = packet.size - frame->l3;

    if (room < HEADER4 || (header[0] & 15u) < 5)
        return false;
    uint32_t header_size = (header[0] & 15u) * 4u, total = get16(header + 2);
    if (header_size > total || total > room)
        return false;
    frame->family = 4;
    frame->protocol = header[9];
    frame->l4 = frame->l3 + header_size;
    frame->end = frame->l3 + total;
    frame->has_l4 = protocol_has_l4(header[9]) && (get16(header + 6) & 0x3fffu) == 0;
    return true;
}

/* Extension headers up to the first that is none; a fragment's L4 counts as absent. */
static bool parse6(struct span packet, struct link_frame *frame)
{
    const uint8_t *header = packet.data + frame->l3;
    uint32_t room = packet.size - frame->l3;

    if (room < HEADER6 || get16(header + 4) + HEADER6 > room)
        return false;
    frame->family = 6;
    frame->protocol = header[6];
    frame->l4 = frame->l3 + HEADER6;
    frame->end = frame->l4 + get16(header + 4);
    for (uint32_t i = 0; i < EXTENSION_MAX && (frame->protocol == 0 || frame->protocol == 60);
         i++) {
        const uint8_t *extension = packet.data + frame->l4;
        if (frame->end - frame->l4 < 8 || frame->end - frame->l4 < 8u + extension[1] * 8u)
            return true;
        frame->protocol = extension[0];
        frame->l4 += 8u + extension[1] * 8u;
    }
    frame->has_l4 = protocol_has_l4(frame->protocol);
    return true;
}

bool link_frame_parse(struct span packet, bool is_l3, struct link_frame *ret_frame)
{
    uint32_t type_at = MAC_SIZE;
    uint16_t type;

    *ret_frame = (struct link_frame){0};
    if (packet.size < MAC_SIZE + 2 + 4)
        return false;
    if (is_l3) {
        type = packet.data[0] >> 4 == 4 ? TYPE_IP4 : packet.data[0] >> 4 == 6 ? TYPE_IP6 : 0;
    } else {
        if (get16(packet.data + type_at) == TYPE_VLAN)
            type_at += 4;
        type = get16(packet.data + type_at);
        ret_frame->l3 = type_at + 2;
    }
    bool is_good = type == TYPE_IP4   ? parse4(packet, ret_frame)
                   : type == TYPE_IP6 ? parse6(packet, ret_frame)
                                      : false;
    if (!is_good)
        *ret_frame = (struct link_frame){0};
    if (is_good && ret_frame->has_l4 && ret_frame->end - ret_frame->l4 < 8)
        ret_frame->has_l4 = false;
    return is_good;
}

/* ---- checksums ---- */

uint16_t link_frame_sum(struct span octets, uint32_t sum)
{
    for (uint32_t i = 0; i < octets.size; i++) {
        sum += i % 2 == 0 ? (uint32_t)octets.data[i] << 8 : octets.data[i];
        sum = (sum & 0xffffu) + (sum >> 16);
    }
    return (uint16_t)((sum & 0xffffu) + (sum >> 16));
}

uint16_t link_frame_pseudo_sum(const uint8_t *packet, const struct link_frame *frame, uint32_t size)
{
    const uint8_t *ip = packet + frame->l3;
    struct span addresses = frame->family == 4 ? span_of(ip + 12, 8) : span_of(ip + 8, 32);
    uint8_t rest[6] = {
        (uint8_t)(size >> 24), (uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size, 0,
        frame->protocol};

    return link_frame_sum(span_of(rest, sizeof(rest)), link_frame_sum(addresses, 0));
}

uint32_t link_frame_checksum_offset(const struct link_frame *frame)
{
    if (!frame->has_l4)
        return 0;
    if (frame->protocol == PROTOCOL_TCP)
        return frame->end - frame->l4 < 20 ? 0 : frame->l4 + 16;
    return frame->l4 + (frame->protocol == PROTOCOL_UDP ? 6 : 2);
}

/* Over pseudo-header (ICMP for IPv4 has none) and all octets, the checksum field included. */
static uint16_t l4_sum(const uint8_t *packet, const struct link_frame *frame)
{
    uint32_t size = frame->end - frame->l4;
    uint16_t pseudo =
        frame->protocol == PROTOCOL_ICMP ? 0 : link_frame_pseudo_sum(packet, frame, size);

    return link_frame_sum(span_of(packet + frame->l4, size), pseudo);
}

static struct span ip4_header(const uint8_t *packet, const struct link_frame *frame)
{
    return span_of(packet + frame->l3, frame->l4 - frame->l3);
}

void link_frame_complete(uint8_t *packet, const struct link_frame *frame, bool ip4, bool l4)
{
    uint32_t offset = link_frame_checksum_offset(frame);

    if (ip4 && frame->family == 4) {
        put16(packet + frame->l3 + 10, 0);
        put16(packet + frame->l3 + 10, (uint16_t)~link_frame_sum(ip4_header(packet, frame), 0));
    }
    if (!l4 || offset == 0)
        return;
    put16(packet + offset, 0);
    uint16_t sum = (uint16_t)~l4_sum(packet, frame);
    /* RFC 768: zero means that there is none, so a sum of zero is sent as its other form. */
    put16(packet + offset, sum == 0 && frame->protocol == PROTOCOL_UDP ? 0xffff : sum);
}

bool link_frame_ip4_is_good(const uint8_t *packet, const struct link_frame *frame)
{
    return link_frame_sum(ip4_header(packet, frame), 0) == 0xffff;
}

bool link_frame_l4_is_good(const uint8_t *packet, const struct link_frame *frame)
{
    uint32_t offset = link_frame_checksum_offset(frame);

    if (offset == 0)
        return false;
    if (frame->protocol == PROTOCOL_UDP && get16(packet + offset) == 0)
        return frame->family == 4;
    return l4_sum(packet, frame) == 0xffff;
}

/* ---- ECN ---- */

uint8_t link_frame_ecn(const uint8_t *packet, const struct link_frame *frame)
{
    const uint8_t *ip = packet + frame->l3;

    return frame->family == 4 ? ip[1] & 3u : frame->family == 6 ? ip[1] >> 4 & 3u : 0;
}

void link_frame_mark(uint8_t *packet, const struct link_frame *frame)
{
    uint8_t *ip = packet + frame->l3;

    ip[1] |= frame->family == 4 ? 0x03 : 0x30;
    link_frame_complete(packet, frame, true, false);
}

/* ---- steering ---- */

uint32_t link_frame_rss(const uint8_t *packet, const struct link_frame *frame, const uint8_t *key,
                        uint32_t key_size)
{
    uint8_t input[36] = {0};
    uint32_t address_size = frame->family == 4 ? 8 : 32, size = address_size, hash = 0;

    if (frame->family == 0)
        return 0;
    memcpy(input, packet + frame->l3 + (frame->family == 4 ? 12 : 8), address_size);
    if (frame->has_l4 && (frame->protocol == PROTOCOL_TCP || frame->protocol == PROTOCOL_UDP)) {
        memcpy(input + size, packet + frame->l4, 4);
        size += 4;
    }
    CHECK(key_size >= size + 4);
    for (uint32_t bit = 0; bit < size * 8; bit++) {
        if (!(input[bit / 8] & 0x80u >> bit % 8))
            continue;
        for (uint32_t i = 0; i < 32; i++) { /* the 32 bits of the key that begin at `bit` */
            uint32_t at = bit + i;
            hash ^= (uint32_t)(key[at / 8] >> (7 - at % 8) & 1u) << (31 - i);
        }
    }
    return hash;
}

/* ---- the router's answer ---- */

/* RFC 1191 section 4: type 3, code 4, the next hop's MTU in the second half of the unused word. */
static uint32_t too_big4(struct span packet, const struct link_frame *frame, uint16_t mtu,
                         uint8_t *out)
{
    const uint8_t *ip = packet.data + frame->l3;
    uint8_t *answer = out + frame->l3, *icmp = answer + HEADER4;
    uint32_t quote = frame->end - frame->l3 < QUOTE4_SIZE ? frame->end - frame->l3 : QUOTE4_SIZE;

    if (!(ip[6] & 0x40))
        return 0; /* it may be fragmented: nobody is told */
    memset(answer, 0, HEADER4 + 8);
    answer[0] = 0x45;
    put16(answer + 2, HEADER4 + 8 + quote);
    answer[8] = 64;
    answer[9] = PROTOCOL_ICMP;
    memcpy(answer + 12, router4, 4);
    memcpy(answer + 16, ip + 12, 4);
    icmp[0] = 3;
    icmp[1] = 4;
    put16(icmp + 6, mtu);
    memcpy(icmp + 8, ip, quote);
    return frame->l3 + HEADER4 + 8 + quote;
}

/* RFC 4443 section 3.2: type 2, as much of the packet as 1,280 octets hold. */
static uint32_t too_big6(struct span packet, const struct link_frame *frame, uint16_t mtu,
                         uint8_t *out)
{
    const uint8_t *ip = packet.data + frame->l3;
    uint8_t *answer = out + frame->l3, *icmp = answer + HEADER6;
    uint32_t quote = frame->end - frame->l3 < QUOTE6_MAX ? frame->end - frame->l3 : QUOTE6_MAX;

    memset(answer, 0, HEADER6 + 8);
    answer[0] = 0x60;
    put16(answer + 4, 8 + quote);
    answer[6] = PROTOCOL_ICMP6;
    answer[7] = 64;
    memcpy(answer + 8, router6, 16);
    memcpy(answer + 24, ip + 8, 16);
    icmp[0] = 2;
    put16(icmp + 6, mtu);
    memcpy(icmp + 8, ip, quote);
    return frame->l3 + HEADER6 + 8 + quote;
}

uint32_t link_frame_too_big(struct span packet, const struct link_frame *frame, uint16_t mtu,
                            uint8_t ret_packet[LINK_FRAME_ICMP_MAX])
{
    struct link_frame answer;

    if (frame->protocol == PROTOCOL_ICMP || frame->protocol == PROTOCOL_ICMP6)
        return 0;
    for (uint32_t i = 0; i < frame->l3; i++) /* back the way it came, tag included */
        ret_packet[i] = packet.data[i < MAC_SIZE ? (i + 6) % MAC_SIZE : i];
    uint32_t size = frame->family == 4 ? too_big4(packet, frame, mtu, ret_packet)
                                       : too_big6(packet, frame, mtu, ret_packet);
    if (size > 0 && link_frame_parse(span_of(ret_packet, size), frame->l3 == 0, &answer))
        link_frame_complete(ret_packet, &answer, true, true);
    return size;
}

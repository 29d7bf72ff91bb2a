/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets that are not TCP in packet scripts: ARP, neighbour discovery, ICMP, UDP, octets as they
 * are. Each word after the arrow is a row of `kinds`.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/wire/script_spec.h"

#define ICMP_QUOTE4   28u
#define ECHO_SIZE_MAX 1400u
#define DATAGRAM_MAX  8000

struct host_packet { /* what a line describes */
    uint8_t octets[TEST_FRAME_MAX];
    uint32_t size;
};

static void put16(uint8_t *octets, uint32_t value)
{
    octets[0] = (uint8_t)(value >> 8);
    octets[1] = (uint8_t)value;
}

/* Ethernet and IP headers; returns where L4 begins. */
static uint32_t ip_begin(uint8_t *frame, const struct flow_address *from,
                         const struct flow_address *to, uint8_t protocol, uint32_t payload,
                         uint8_t ttl)
{
    uint8_t *ip = frame + TEST_L2_SIZE;

    memset(frame, 0, TEST_L2_SIZE + 40);
    memcpy(frame, world_stack_mac, 6);
    memcpy(frame + 6, world_peer_mac, 6);
    if (from->family == FLOW_FAMILY_IP4) {
        put16(frame + 12, 0x0800);
        ip[0] = 0x45;
        put16(ip + 2, 20 + payload);
        ip[8] = ttl;
        ip[9] = protocol;
        memcpy(ip + 12, from->ip, 4);
        memcpy(ip + 16, to->ip, 4);
        return TEST_L2_SIZE + 20;
    }
    put16(frame + 12, 0x86dd);
    ip[0] = 0x60;
    put16(ip + 4, payload);
    ip[6] = protocol;
    ip[7] = ttl;
    memcpy(ip + 8, from->ip, 16);
    memcpy(ip + 24, to->ip, 16);
    return TEST_L2_SIZE + 40;
}

static void packet_complete(struct host_packet *packet)
{
    struct link_frame map;

    if (link_frame_parse(span_of(packet->octets, packet->size), false, &map))
        link_frame_complete(packet->octets, &map, true, true);
}

static bool take_address(const char **at, struct flow_address *ret_address)
{
    char word[SCRIPT_LINE_MAX];

    return script_word(at, word) && script_address(word, ret_address);
}

static bool take_mac(const char **at, uint8_t ret_mac[6])
{
    char word[SCRIPT_LINE_MAX];

    return script_word(at, word) && script_mac(word, ret_mac);
}

/* ---- ARP ---- */

/* arp request TARGET from IP [mac MAC] | arp reply IP is MAC [to IP] */
static bool arp_build(const char *at, struct host_packet *packet)
{
    static const uint8_t everybody[6] = {255, 255, 255, 255, 255, 255};
    static const uint8_t fixed[6] = {0, 1, 8, 0, 6, 4};
    struct flow_address sender = world_peer4, target = world_stack4;
    uint8_t mac[6], *arp = packet->octets + TEST_L2_SIZE;
    bool is_request = script_take(&at, "request");

    memcpy(mac, world_peer_mac, 6);
    if (!is_request && !script_take(&at, "reply"))
        return false;
    if (!take_address(&at, is_request ? &target : &sender) ||
        !script_take(&at, is_request ? "from" : "is"))
        return false;
    if (is_request ? !take_address(&at, &sender) : !take_mac(&at, mac))
        return false;
    if (is_request && script_take(&at, "mac") && !take_mac(&at, mac))
        return false;
    if (!is_request && script_take(&at, "to") && !take_address(&at, &target))
        return false;
    memset(packet->octets, 0, 60);
    memcpy(packet->octets, is_request ? everybody : world_stack_mac, 6);
    memcpy(packet->octets + 6, mac, 6);
    put16(packet->octets + 12, 0x0806);
    memcpy(arp, fixed, sizeof(fixed));
    put16(arp + 6, is_request ? 1 : 2);
    memcpy(arp + 8, mac, 6);
    memcpy(arp + 14, sender.ip, 4);
    memcpy(arp + 18, world_stack_mac, is_request ? 0 : 6);
    memcpy(arp + 24, target.ip, 4);
    packet->size = TEST_L2_SIZE + 28;
    return true;
}

/* arp request TARGET [from IP] | arp reply IP */
static const char *arp_match(const char *at, struct span frame)
{
    const uint8_t *arp = frame.data + TEST_L2_SIZE;
    struct flow_address address, sender;
    bool is_request = script_take(&at, "request");

    if (!is_request && !script_take(&at, "reply"))
        return "arp request|reply";
    if (frame.size < TEST_L2_SIZE + 28 || frame.data[12] != 8 || frame.data[13] != 6)
        return "no ARP";
    if (arp[7] != (is_request ? 1 : 2))
        return "the other operation";
    if (memcmp(arp + 8, world_stack_mac, 6) != 0 || memcmp(frame.data + 6, world_stack_mac, 6) != 0)
        return "another hardware address";
    if (!take_address(&at, &address))
        return "arp request|reply IP";
    if (memcmp(arp + (is_request ? 24 : 14), address.ip, 4) != 0)
        return "another address";
    if (is_request && frame.data[0] != 255 && !script_take(&at, "unicast"))
        return "not to everybody";
    if (is_request && script_take(&at, "from") &&
        (!take_address(&at, &sender) || memcmp(arp + 14, sender.ip, 4) != 0))
        return "another sender";
    return NULL;
}

/* ---- neighbour discovery ---- */

/* ns TARGET from IP [hop N] [to IP] | na TARGET is MAC [from IP] [hop N] [flags N] [to IP] */
static bool nd_build(const char *at, bool is_solicitation, struct host_packet *packet)
{
    struct flow_address target, from = world_peer6, to = world_stack6;
    uint8_t mac[6], *frame = packet->octets;
    int64_t hop = 255, flags = 0x60;

    memcpy(mac, world_peer_mac, 6);
    if (!take_address(&at, &target))
        return false;
    if (!is_solicitation)
        from = target;
    if (!is_solicitation && (!script_take(&at, "is") || !take_mac(&at, mac)))
        return false;
    if (script_take(&at, "from") && !take_address(&at, &from))
        return false;
    if (script_take(&at, "hop") && !script_number(&at, &hop))
        return false;
    if (script_take(&at, "flags") && !script_number(&at, &flags))
        return false;
    if (script_take(&at, "to") && !take_address(&at, &to))
        return false;
    uint32_t l4 = ip_begin(frame, &from, &to, 58, 32, (uint8_t)hop);
    if (to.ip[0] == 0xff) { /* RFC 2464 7 */
        memset(frame, 0x33, 2);
        memcpy(frame + 2, to.ip + 12, 4);
    }
    memset(frame + l4, 0, 32);
    frame[l4] = is_solicitation ? 135 : 136;
    frame[l4 + 4] = is_solicitation ? 0 : (uint8_t)flags;
    memcpy(frame + l4 + 8, target.ip, 16);
    frame[l4 + 24] = is_solicitation ? 1 : 2;
    frame[l4 + 25] = 1;
    memcpy(frame + l4 + 26, mac, 6);
    packet->size = l4 + 32;
    packet_complete(packet);
    return true;
}

static bool ns_build(const char *at, struct host_packet *packet)
{
    return nd_build(at, true, packet);
}

static bool na_build(const char *at, struct host_packet *packet)
{
    return nd_build(at, false, packet);
}

static const char *nd_match(const char *at, bool is_solicitation, struct span frame)
{
    struct flow_address target;
    struct link_frame map;

    if (!link_frame_parse(frame, false, &map) || map.protocol != 58 || map.end - map.l4 < 24)
        return "no neighbour discovery";
    const uint8_t *icmp = frame.data + map.l4;
    if (icmp[0] != (is_solicitation ? 135 : 136))
        return "another ICMPv6 type";
    if (frame.data[map.l3 + 7] != 255)
        return "a hop limit that is not 255";
    if (!link_frame_l4_is_good(frame.data, &map))
        return "a wrong checksum";
    if (!take_address(&at, &target) || memcmp(icmp + 8, target.ip, 16) != 0)
        return "another target";
    return NULL;
}

static const char *ns_match(const char *at, struct span frame)
{
    return nd_match(at, true, frame);
}

static const char *na_match(const char *at, struct span frame)
{
    return nd_match(at, false, frame);
}

/* ---- ICMP ---- */

static void echo_fill(uint8_t *icmp, uint32_t size, int64_t id, int64_t number)
{
    put16(icmp + 4, (uint32_t)id);
    put16(icmp + 6, (uint32_t)number);
    for (uint32_t i = 0; i < size; i++)
        icmp[8 + i] = test_stream_octet(3, i);
}

/* echo SIZE ID NUMBER [from IP] [to IP] */
static bool echo_build(const char *at, struct host_packet *packet)
{
    struct flow_address from = world_peer4, to = world_stack4;
    int64_t size, id, number;

    if (!script_number(&at, &size) || !script_number(&at, &id) || !script_number(&at, &number) ||
        size < 0 || size > ECHO_SIZE_MAX)
        return false;
    if (script_take(&at, "from") && !take_address(&at, &from))
        return false;
    if (from.family == FLOW_FAMILY_IP6)
        to = world_stack6;
    if (script_take(&at, "to") && !take_address(&at, &to))
        return false;
    bool is_4 = from.family == FLOW_FAMILY_IP4;
    uint32_t l4 = ip_begin(packet->octets, &from, &to, is_4 ? 1 : 58, 8 + (uint32_t)size, 64);
    put16(packet->octets + l4, is_4 ? 0x0800 : 0x8000);
    echo_fill(packet->octets + l4, (uint32_t)size, id, number);
    packet->size = l4 + 8 + (uint32_t)size;
    packet_complete(packet);
    return true;
}

/* echo SIZE ID NUMBER: the reply */
static const char *echo_match(const char *at, struct span frame)
{
    uint8_t expected[8 + ECHO_SIZE_MAX] = {0};
    struct link_frame map;
    int64_t size, id, number;

    if (!script_number(&at, &size) || !script_number(&at, &id) || !script_number(&at, &number) ||
        size < 0 || size > ECHO_SIZE_MAX)
        return "echo SIZE ID NUMBER";
    if (!link_frame_parse(frame, false, &map) || !map.has_l4 ||
        (map.protocol != 1 && map.protocol != 58))
        return "no ICMP";
    if (map.end - map.l4 != 8 + size || frame.data[map.l4] != (map.family == 4 ? 0 : 129))
        return "no such reply";
    if (!link_frame_l4_is_good(frame.data, &map) ||
        (map.family == 4 && !link_frame_ip4_is_good(frame.data, &map)))
        return "a wrong checksum";
    echo_fill(expected, (uint32_t)size, id, number);
    return memcmp(expected + 4, frame.data + map.l4 + 4, 4 + (size_t)size) == 0 ? NULL
                                                                                : "other contents";
}

/* icmp TYPE CODE about NAME SEQ [mtu N] [port N] [from IP]: an error that quotes a segment */
static bool icmp_build(struct script *script, const char *at, struct host_packet *packet)
{
    uint8_t quoted[TEST_FRAME_MAX], none = 0;
    struct test_segment segment = {.flags = SEGMENT_ACK, .ttl = 60, .payload = &none};
    struct flow_address from;
    char name[SCRIPT_LINE_MAX];
    int64_t type, code, sequence, mtu = 0, port = -1;

    if (!script_number(&at, &type) || !script_number(&at, &code) || !script_take(&at, "about") ||
        !script_word(&at, name) || !script_number(&at, &sequence))
        return false;
    struct script_peer *peer = script_peer_find(script, name);
    if (peer == NULL)
        return false;
    from = peer->remote;
    if (script_take(&at, "mtu") && !script_number(&at, &mtu))
        return false;
    if (script_take(&at, "port") && !script_number(&at, &port))
        return false;
    if (script_take(&at, "from") && !take_address(&at, &from))
        return false;
    segment.family = peer->remote.family;
    memcpy(segment.source, peer->local.ip, 16);
    memcpy(segment.destination, peer->remote.ip, 16);
    segment.source_port = port >= 0 ? (uint16_t)port : peer->local.port;
    segment.destination_port = peer->remote.port;
    segment.sequence = peer->iss + (uint32_t)sequence;
    uint32_t size = test_segment_build(&segment, quoted) - TEST_L2_SIZE;
    if (peer->is_datagram)
        quoted[TEST_L2_SIZE + (segment.family == 4 ? 9 : 6)] = 17;
    if (segment.family == 4 && size > ICMP_QUOTE4)
        size = ICMP_QUOTE4;
    bool is_4 = segment.family == 4;
    uint32_t l4 = ip_begin(packet->octets, &from, &peer->local, is_4 ? 1 : 58, 8 + size, 60);
    memset(packet->octets + l4, 0, 8);
    packet->octets[l4] = (uint8_t)type;
    packet->octets[l4 + 1] = (uint8_t)code;
    put16(packet->octets + l4 + 6, (uint32_t)mtu);
    memcpy(packet->octets + l4 + 8, quoted + TEST_L2_SIZE, size);
    packet->size = l4 + 8 + size;
    packet_complete(packet);
    return true;
}

/* icmp TYPE CODE */
static const char *icmp_match(const char *at, struct span frame)
{
    struct link_frame map;
    int64_t type, code;

    if (!script_number(&at, &type) || !script_number(&at, &code))
        return "icmp TYPE CODE";
    if (!link_frame_parse(frame, false, &map) || !map.has_l4 ||
        (map.protocol != 1 && map.protocol != 58))
        return "no ICMP";
    if (frame.data[map.l4] != type || frame.data[map.l4 + 1] != code)
        return "another type or code";
    return link_frame_l4_is_good(frame.data, &map) ? NULL : "a wrong checksum";
}

/* ---- UDP ---- */

/* udp SIZE [sum bad|none] [from IP:PORT] */
bool script_udp_inject(struct script *script, struct script_peer *peer, const char *text)
{
    struct flow_address from = peer->remote;
    struct host_packet packet;
    const char *at = text;
    int64_t size;

    if (!script_number(&at, &size) || size < 0 || size > DATAGRAM_MAX)
        return script_fail(script, "udp SIZE [sum bad|none] [from IP:PORT]");
    bool has_sum = script_take(&at, "sum"), is_bad = has_sum && script_take(&at, "bad");
    bool is_none = has_sum && script_take(&at, "none");
    if (script_take(&at, "from") && !take_address(&at, &from))
        return script_fail(script, "from IP:PORT");
    if (!script_wait(script))
        return false;
    uint32_t l4 = ip_begin(packet.octets, &from, &peer->local, 17, 8 + (uint32_t)size, 64);
    put16(packet.octets + l4, from.port);
    put16(packet.octets + l4 + 2, peer->local.port);
    put16(packet.octets + l4 + 4, 8 + (uint32_t)size);
    put16(packet.octets + l4 + 6, 0);
    for (uint32_t i = 0; i < size; i++)
        packet.octets[l4 + 8 + i] = test_stream_octet(2, i);
    packet.size = l4 + 8 + (uint32_t)size;
    packet_complete(&packet);
    packet.octets[l4 + 7] ^= is_bad;
    if (is_none)
        put16(packet.octets + l4 + 6, 0);
    script_note(script, "%s < udp %lld", peer->name, (long long)size);
    world_send(script->world, packet.octets, packet.size);
    return script_collect(script);
}

/* udp SIZE */
bool script_udp_expect(struct script *script, struct script_peer *peer, const char *text)
{
    const char *wrong = NULL, *at = text;
    struct link_frame map;
    int64_t size;

    if (!script_number(&at, &size))
        return script_fail(script, "udp SIZE");
    struct world_frame *frame = script_await(script, peer, text);
    if (frame == NULL)
        return false;
    if (!link_frame_parse(span_of(frame->octets, frame->size), false, &map) || map.protocol != 17)
        wrong = "no UDP";
    else if (map.end - map.l4 != 8 + size)
        wrong = "another size";
    else if (!link_frame_l4_is_good(frame->octets, &map) ||
             (frame->octets[map.l4 + 6] | frame->octets[map.l4 + 7]) == 0)
        wrong = "a wrong checksum, or none";
    else if ((frame->octets[map.l4] << 8 | frame->octets[map.l4 + 1]) != peer->local.port)
        wrong = "another source port";
    for (int64_t i = 0; wrong == NULL && i < size; i++) {
        if (frame->octets[map.l4 + 8 + i] != test_stream_octet(1, (uint64_t)i))
            wrong = "other octets";
    }
    free(frame);
    return wrong == NULL || script_fail(script, "expected: udp %s; got %s", text, wrong);
}

/* ---- dispatch ---- */

static bool raw_build(const char *at, struct host_packet *packet)
{
    char word[SCRIPT_LINE_MAX];

    packet->size = 0;
    while (script_word(&at, word)) {
        uint32_t size = 0;
        if (!script_hex(word, packet->octets + packet->size, TEST_FRAME_MAX - packet->size, &size))
            return false;
        packet->size += size;
    }
    return packet->size > 0;
}

/* raw HEX...: the frame begins with these octets */
static const char *raw_match(const char *at, struct span frame)
{
    static struct host_packet packet;

    if (!raw_build(at, &packet))
        return "raw HEX";
    return packet.size <= frame.size && memcmp(packet.octets, frame.data, packet.size) == 0
               ? NULL
               : "other octets";
}

static const struct {
    const char *word;
    bool (*build)(const char *at, struct host_packet *packet);
    const char *(*match)(const char *at, struct span frame);
} kinds[] = {
    {"arp", arp_build, arp_match},    {"ns", ns_build, ns_match}, {"na", na_build, na_match},
    {"echo", echo_build, echo_match}, {"icmp", NULL, icmp_match}, {"raw", raw_build, raw_match},
};

bool script_host_inject(struct script *script, const char *text)
{
    static struct host_packet packet;
    const char *at = text;
    char word[SCRIPT_LINE_MAX];
    int64_t times = 1;

    if (!script_wait(script) || !script_collect(script))
        return false;
    if (script_take(&at, "times") && !script_number(&at, &times))
        return script_fail(script, "times N");
    if (!script_word(&at, word))
        return script_fail(script, "< what?");
    for (uint32_t i = 0; i < COUNT_OF(kinds); i++) {
        if (strcmp(kinds[i].word, word) != 0)
            continue;
        bool is_built =
            kinds[i].build != NULL ? kinds[i].build(at, &packet) : icmp_build(script, at, &packet);
        if (!is_built)
            return script_fail(script, "bad description: %s", text);
        script_note(script, "< %s", text);
        for (int64_t j = 0; j < times; j++)
            world_send(script->world, packet.octets, packet.size);
        return script_collect(script);
    }
    return script_fail(script, "what is `%s`?", word);
}

bool script_host_expect(struct script *script, const char *text)
{
    const char *at = text, *wrong = "what?";
    char word[SCRIPT_LINE_MAX];

    struct world_frame *frame = script_await(script, NULL, text);
    if (frame == NULL)
        return false;
    bool is_word = script_word(&at, word);
    for (uint32_t i = 0; is_word && i < COUNT_OF(kinds); i++) {
        if (strcmp(kinds[i].word, word) == 0 && kinds[i].match != NULL)
            wrong = kinds[i].match(at, span_of(frame->octets, frame->size));
    }
    script_note(script, "> %s", wrong == NULL ? text : "something else");
    free(frame);
    return wrong == NULL || script_fail(script, "expected: %s; got %s", text, wrong);
}

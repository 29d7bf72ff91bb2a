/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames on their way in: each reason for which one is dropped, what goes to the exception path and
 * to other cores, headers spread over buffers, checksums that the nic judged or did not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
/* cmocka.h wants the ones above first. */
#include <cmocka.h>

#include "tests/unit/wire_fixture.h"

#define SEGMENT_SIZE 28u /* a TCP header and eight octets */

static const uint8_t segment[SEGMENT_SIZE] = {
    [0] = 0x30, [1] = 0x39, [3] = 25, [12] = 0x50, [13] = 0x10};

static struct fixture *fixture_usual(void)
{
    const struct fixture_options options = fixture_defaults();
    return fixture_new(&options);
}

/* A segment as it should be, to our address. */
static struct fixture_packet packet_usual(void)
{
    return (struct fixture_packet){.source = "198.51.100.7",
                                   .destination = "192.0.2.1",
                                   .protocol = IP_PROTOCOL_TCP,
                                   .payload = span_of(segment, SEGMENT_SIZE)};
}

/* ---- whose it is, and where it cannot be from ---- */

static const struct address_row {
    const char *source, *destination;
    uint8_t protocol;
    bool is_taken; /* by TCP; else counted: */
    enum stack_counter counter;
} address_rows[] = {
    {"198.51.100.7", "192.0.2.1", IP_PROTOCOL_TCP, true, 0},
    {"192.0.2.10", "192.0.2.1", IP_PROTOCOL_TCP, true, 0},
    {"192.0.2.2", "192.0.2.1", IP_PROTOCOL_TCP, true, 0},
    {"192.0.2.254", "192.0.2.1", IP_PROTOCOL_TCP, true, 0},
    {"1.0.0.0", "192.0.2.1", IP_PROTOCOL_TCP, true, 0},
    {"223.255.255.255", "192.0.2.1", IP_PROTOCOL_TCP, true, 0},
    {"126.255.255.255", "192.0.2.1", IP_PROTOCOL_TCP, true, 0},
    {"128.0.0.0", "192.0.2.1", IP_PROTOCOL_TCP, true, 0},
    {"0.0.0.0", "192.0.2.1", IP_PROTOCOL_TCP, false, STACK_IP_MARTIAN},
    {"0.255.255.255", "192.0.2.1", IP_PROTOCOL_TCP, false, STACK_IP_MARTIAN},
    {"127.0.0.1", "192.0.2.1", IP_PROTOCOL_TCP, false, STACK_IP_MARTIAN},
    {"127.255.255.255", "192.0.2.1", IP_PROTOCOL_TCP, false, STACK_IP_MARTIAN},
    {"224.0.0.1", "192.0.2.1", IP_PROTOCOL_TCP, false, STACK_IP_MARTIAN},
    {"240.0.0.1", "192.0.2.1", IP_PROTOCOL_TCP, false, STACK_IP_MARTIAN},
    {"255.255.255.255", "192.0.2.1", IP_PROTOCOL_TCP, false, STACK_IP_MARTIAN},
    {"192.0.2.255", "192.0.2.1", IP_PROTOCOL_TCP, false, STACK_IP_MARTIAN},
    {"192.0.2.1", "192.0.2.1", IP_PROTOCOL_TCP, false, STACK_IP_LAND},
    {"192.0.2.1", "192.0.2.7", IP_PROTOCOL_TCP, false, STACK_IP_SPOOFED},
    {"10.1.0.1", "192.0.2.1", IP_PROTOCOL_TCP, false, STACK_IP_SPOOFED},
    {"198.51.100.7", "192.0.2.7", IP_PROTOCOL_TCP, false, STACK_IP_NOT_OURS},
    {"198.51.100.7", "192.0.2.255", IP_PROTOCOL_TCP, false, STACK_IP_NOT_OURS},
    {"198.51.100.7", "255.255.255.255", IP_PROTOCOL_TCP, false, STACK_IP_NOT_OURS},
    {"198.51.100.7", "224.0.0.1", IP_PROTOCOL_TCP, false, STACK_IP_NOT_OURS},
    {"198.51.100.7", "10.1.0.1", IP_PROTOCOL_TCP, false, STACK_IP_NOT_OURS}, /* the other port's */
    {"198.51.100.7", "192.0.2.1", 47, false, STACK_IP_PROTOCOL},
    {"198.51.100.7", "192.0.2.1", IP_PROTOCOL_ICMP6, false, STACK_IP_PROTOCOL},
    {"2001:db9::7", "2001:db8::1", IP_PROTOCOL_TCP, true, 0},
    {"fe80::7", "fe80::1", IP_PROTOCOL_TCP, true, 0},
    {"::2", "2001:db8::1", IP_PROTOCOL_TCP, true, 0},
    {"::", "2001:db8::1", IP_PROTOCOL_TCP, false, STACK_IP_MARTIAN},
    {"::", "ff02::1", IP_PROTOCOL_TCP, false, STACK_IP_MARTIAN},
    {"::1", "2001:db8::1", IP_PROTOCOL_TCP, false, STACK_IP_MARTIAN},
    {"ff02::1", "2001:db8::1", IP_PROTOCOL_TCP, false, STACK_IP_MARTIAN},
    {"::ffff:198.51.100.7", "2001:db8::1", IP_PROTOCOL_TCP, false, STACK_IP_MARTIAN},
    {"2001:db8::1", "2001:db8::1", IP_PROTOCOL_TCP, false, STACK_IP_LAND},
    {"2001:db8::1", "fe80::1", IP_PROTOCOL_TCP, false, STACK_IP_SPOOFED},
    {"2001:db8::1", "ff02::1", IP_PROTOCOL_TCP, false, STACK_IP_SPOOFED},
    {"2001:db9::7", "2001:db8::2", IP_PROTOCOL_TCP, false, STACK_IP_NOT_OURS},
    {"2001:db9::7", "ff02::1", IP_PROTOCOL_TCP, false, STACK_IP_NOT_OURS},
    {"2001:db9::7", "2001:db8::1", IP_PROTOCOL_ICMP, false, STACK_IP_PROTOCOL},
    {"2001:db9::7", "2001:db8::1", 59, false, STACK_IP_PROTOCOL},
};

static void test_addresses(void **state)
{
    struct fixture_options options = fixture_defaults();

    (void)state;
    options.port_count = 2;
    for (uint32_t i = 0; i < COUNT_OF(address_rows); i++) {
        const struct address_row *row = &address_rows[i];
        struct fixture *fixture = fixture_new(&options);
        struct fixture_packet packet = packet_usual();
        packet.source = row->source;
        packet.destination = row->destination;
        packet.protocol = row->protocol;
        fixture_input(fixture, &packet);
        if (fixture->segment_count != row->is_taken ||
            (!row->is_taken && fixture_counter(fixture, row->counter) != 1))
            fail_msg("%s to %s", row->source, row->destination);
        assert_int_equal(0, fixture_sent_count(fixture, 0));
        fixture_free(fixture);
    }
}

/* In a /31 both addresses are hosts (RFC 3021); in a /30 the last is the broadcast. */
static void test_broadcast_of_small_prefixes(void **state)
{
    static const struct {
        uint8_t bits;
        const char *source;
        bool is_taken;
    } rows[] = {
        {30, "192.0.2.3", false}, {30, "192.0.2.2", true}, {31, "192.0.2.0", true},
        {32, "192.0.2.3", true},  {0, "192.0.2.3", true},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture *fixture = fixture_usual();
        struct stack_prefix *prefix = &fixture->stack->ports[0].prefixes[0];
        prefix->bits = rows[i].bits;
        struct fixture_packet packet = packet_usual();
        packet.source = rows[i].source;
        fixture_input(fixture, &packet);
        assert_int_equal(rows[i].is_taken, fixture->segment_count);
        assert_int_equal(!rows[i].is_taken, COUNTER(fixture, IP_MARTIAN));
        fixture_free(fixture);
    }
}

/* ---- frames ---- */

/* One octet of a frame that is otherwise right is made another. */
static const struct frame_row {
    const char *name;
    uint32_t at;
    uint8_t value;
    enum stack_counter counter;
} frame_rows[] = {
    {"to another station", 5, 0x77, STACK_FRAME_OTHER_STATION},
    {"to a group", 0, 3, STACK_IP_UNUSABLE}, /* RFC 1122 3.3.6 */
    {"from a group", 6, 3, STACK_FRAME_SOURCE},
    {"from ourselves", 11, 1, STACK_FRAME_SOURCE},
    {"of another type", 13, 0x99, STACK_FRAME_TYPE},
    {"with a length for a type", 12, 0, STACK_FRAME_TYPE},
    {"version 5", 14, 0x55, STACK_IP_UNSUPPORTED},
    {"header size 4", 14, 0x44, STACK_IP_MALFORMED},
    {"header size 60", 14, 0x4f, STACK_IP_MALFORMED},
    {"longer than the frame", 16, 1, STACK_IP_MALFORMED},
    {"checksum", 24, 0x12, STACK_IP_CHECKSUM},
};

static void test_frames(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(frame_rows); i++) {
        const struct frame_row *row = &frame_rows[i];
        struct fixture *fixture = fixture_usual();
        struct fixture_packet packet = packet_usual();
        uint8_t frame[128];
        uint32_t size = fixture_build(&packet, frame);
        frame[row->at] = row->value;
        fixture_inject(fixture, 0, span_of(frame, size));
        fixture_turn(fixture, NULL, 0);
        if (fixture_counter(fixture, row->counter) != 1 || fixture->segment_count != 0)
            fail_msg("%s", row->name);
        assert_int_equal(1, COUNTER(fixture, FRAMES_RECEIVED));
        fixture_free(fixture);
    }
}

/* A header that is changed keeps a right checksum. */
static void ip4_reseal(uint8_t *l3)
{
    store_be16(l3 + 10, 0);
    uint16_t checksum = wire_sum_finish(wire_sum(l3, (l3[0] & 0xf) * 4u));
    memcpy(l3 + 10, &checksum, 2);
}

static void test_fragments(void **state)
{
    static const struct {
        uint16_t field;
        bool is_taken;
    } rows[] = {
        {0x0000, true},  {0x4000, true},  {0x8000, true},  {0x2000, false},
        {0x0001, false}, {0x1fff, false}, {0x2001, false}, {0x6000, false},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture *fixture = fixture_usual();
        struct fixture_packet packet = packet_usual();
        uint8_t frame[128];
        uint32_t size = fixture_build(&packet, frame);
        store_be16(frame + 14 + 6, rows[i].field);
        ip4_reseal(frame + 14);
        fixture_inject(fixture, 0, span_of(frame, size));
        fixture_turn(fixture, NULL, 0);
        assert_int_equal(rows[i].is_taken, fixture->segment_count);
        assert_int_equal(!rows[i].is_taken, COUNTER(fixture, IP_FRAGMENT));
        fixture_free(fixture);
    }
}

/* Options are ignored, but for those that say where a packet is to go (RFC 1122 3.2.1.8). */
static void test_ip4_options(void **state)
{
    static const struct {
        uint8_t options[8];
        bool is_taken;
        enum stack_counter counter;
    } rows[] = {
        {{1, 1, 1, 0}, true, 0},
        {{7, 7, 4, 0, 0, 0, 0, 0}, true, 0},                  /* record route */
        {{131, 7, 4, 1, 2, 3, 4, 0}, false, STACK_IP_ROUTED}, /* LSRR */
        {{137, 7, 4, 1, 2, 3, 4, 0}, false, STACK_IP_ROUTED}, /* SSRR */
        {{7, 9, 4, 0, 0, 0, 0, 0}, false, STACK_IP_MALFORMED},
        {{7, 1, 4, 0, 0, 0, 0, 0}, false, STACK_IP_MALFORMED},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture *fixture = fixture_usual();
        struct fixture_packet packet = packet_usual();
        uint8_t frame[128];
        uint32_t size = fixture_build(&packet, frame);
        memmove(frame + 34 + 8, frame + 34, SEGMENT_SIZE);
        memcpy(frame + 34, rows[i].options, 8);
        frame[14] = 0x47;
        store_be16(frame + 16, 28 + SEGMENT_SIZE);
        ip4_reseal(frame + 14);
        fixture_inject(fixture, 0, span_of(frame, size + 8));
        fixture_turn(fixture, NULL, 0);
        assert_int_equal(rows[i].is_taken, fixture->segment_count);
        if (rows[i].is_taken)
            assert_int_equal(SEGMENT_SIZE, fixture->segment_size);
        else
            assert_int_equal(1, fixture_counter(fixture, rows[i].counter));
        fixture_free(fixture);
    }
}

static void test_vlan(void **state)
{
    static const struct {
        uint16_t ours, theirs;
        bool is_taken;
    } rows[] = {{0, 0, true},  {0, 7, false}, {7, 7, true},
                {7, 8, false}, {7, 0, false}, {4094, 4094, true}};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture_options options = fixture_defaults();
        options.vlan = rows[i].ours;
        struct fixture *fixture = fixture_new(&options);
        struct fixture_packet packet = packet_usual();
        packet.vlan = rows[i].theirs;
        fixture_input(fixture, &packet);
        assert_int_equal(rows[i].is_taken, fixture->segment_count);
        assert_int_equal(!rows[i].is_taken, COUNTER(fixture, FRAME_VLAN));
        fixture_free(fixture);
    }
}

/* A tag that the nic took off still counts; priority alone is no VLAN. */
static void test_vlan_stripped(void **state)
{
    struct fixture_options options = fixture_defaults();

    (void)state;
    options.vlan = 7;
    for (uint16_t tag = 6; tag <= 8; tag++) {
        struct fixture *fixture = fixture_new(&options);
        struct fixture_packet packet = packet_usual();
        uint8_t frame[128];
        fixture_inject(fixture, 0, span_of(frame, fixture_build(&packet, frame)));
        fixture->nics[0].arriving[0]->mbuf.ol_flags = RTE_MBUF_F_RX_VLAN_STRIPPED;
        fixture->nics[0].arriving[0]->mbuf.vlan_tci = (uint16_t)(0xe000 | tag);
        fixture_turn(fixture, NULL, 0);
        assert_int_equal(tag == 7, fixture->segment_count);
        fixture_free(fixture);
    }
}

/* Every size of a frame, in a buffer of that size: nothing is read behind its end. */
static void test_truncated(void **state)
{
    static const char *const pairs[][2] = {{"198.51.100.7", "192.0.2.1"},
                                           {"2001:db9::7", "2001:db8::1"}};

    (void)state;
    struct fixture *fixture = fixture_usual();
    for (uint32_t i = 0; i < 2; i++) {
        struct fixture_packet packet = packet_usual();
        packet.source = pairs[i][0];
        packet.destination = pairs[i][1];
        uint8_t frame[128];
        uint32_t size = fixture_build(&packet, frame);
        for (uint32_t part = 0; part <= size; part++) {
            /* At the end of its block, so that the sanitizer sees a read beyond. */
            fixture_inject_pieces(fixture, 0, span_of(frame, part), FIXTURE_FRAME_SIZE,
                                  BUF_HEADROOM + FIXTURE_FRAME_SIZE - part);
            fixture_turn(fixture, NULL, 0);
            assert_int_equal(i + (part == size), fixture->segment_count);
        }
    }
    fixture_free(fixture);
}

/* ---- padding and chains ---- */

static void test_padding_is_cut_off(void **state)
{
    (void)state;
    for (uint32_t padding = 0; padding < 40; padding += 3) {
        for (uint32_t piece = 20; piece <= 200; piece += 36) {
            struct fixture *fixture = fixture_usual();
            struct fixture_packet packet = packet_usual();
            uint8_t frame[256] = {0};
            uint32_t size = fixture_build(&packet, frame);
            fixture_inject_pieces(fixture, 0, span_of(frame, size + padding), piece, BUF_HEADROOM);
            fixture_turn(fixture, NULL, 0);
            assert_int_equal(1, fixture->segment_count);
            assert_int_equal(SEGMENT_SIZE, fixture->segment_frame_size);
            assert_true(fixture->is_segment_checksum_good);
            fixture_free(fixture);
        }
    }
}

/* Headers over several buffers come together, in place or in a fresh buffer; payload stays. */
static void test_headers_are_pulled_up(void **state)
{
    static uint8_t payload[3000];

    (void)state;
    memcpy(payload, segment, SEGMENT_SIZE);
    for (uint32_t piece = 50; piece <= 600; piece += 50) {
        for (uint32_t has_room = 0; has_room < 2; has_room++) {
            struct fixture *fixture = fixture_usual();
            struct fixture_packet packet = packet_usual();
            uint8_t frame[4096];
            packet.payload = span_of(payload, sizeof(payload));
            uint32_t size = fixture_build(&packet, frame);
            uint32_t end = BUF_HEADROOM + FIXTURE_FRAME_SIZE;
            fixture_inject_pieces(fixture, 0, span_of(frame, size), piece,
                                  has_room ? BUF_HEADROOM : end - piece);
            fixture_turn(fixture, NULL, 0);
            assert_int_equal(1, fixture->segment_count);
            assert_int_equal(sizeof(payload), fixture->segment_frame_size);
            assert_true(fixture->is_segment_checksum_good);
            fixture_free(fixture);
        }
    }
}

static void test_chain_bounds(void **state)
{
    (void)state;
    for (uint32_t count = 64; count <= 65; count++) {
        struct fixture *fixture = fixture_usual();
        struct fixture_packet packet = packet_usual();
        uint8_t frame[128] = {0};
        fixture_build(&packet, frame);
        fixture_inject_pieces(fixture, 0, span_of(frame, count), 1, BUF_HEADROOM);
        fixture_turn(fixture, NULL, 0);
        assert_int_equal(count == 65, COUNTER(fixture, FRAME_SPLIT));
        assert_int_equal(count == 64, fixture->segment_count + COUNTER(fixture, FRAME_SHORT) +
                                          COUNTER(fixture, IP_MALFORMED));
        fixture_free(fixture);
    }
}

/* A larger pkt_len than there are octets is not believed. */
static void test_lying_length(void **state)
{
    struct fixture *fixture = fixture_usual();
    struct fixture_packet packet = packet_usual();
    uint8_t frame[128];

    (void)state;
    uint32_t size = fixture_build(&packet, frame);
    store_be16(frame + 16, 20 + SEGMENT_SIZE + 8);
    ip4_reseal(frame + 14);
    fixture_inject(fixture, 0, span_of(frame, size));
    fixture->nics[0].arriving[0]->mbuf.pkt_len = size + 8;
    fixture_turn(fixture, NULL, 0);
    assert_int_equal(0, fixture->segment_count);
    assert_int_equal(1, COUNTER(fixture, IP_MALFORMED));
    fixture_free(fixture);
}

/* ---- what the nic says of checksums ---- */

static void test_checksum_verdicts(void **state)
{
    static const struct {
        bool is_silent; /* the nic does not judge: its flags mean nothing */
        uint64_t flags;
        bool is_taken, is_known; /* of a packet with a wrong IPv4 checksum */
    } rows[] = {
        {false, RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_L4_CKSUM_GOOD, true, true},
        {false, RTE_MBUF_F_RX_IP_CKSUM_NONE | RTE_MBUF_F_RX_L4_CKSUM_NONE, true, true},
        {false, RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_L4_CKSUM_UNKNOWN, true, false},
        {false, RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_L4_CKSUM_BAD, true, false},
        {false, RTE_MBUF_F_RX_IP_CKSUM_UNKNOWN | RTE_MBUF_F_RX_L4_CKSUM_GOOD, false, true},
        {false, RTE_MBUF_F_RX_IP_CKSUM_BAD | RTE_MBUF_F_RX_L4_CKSUM_GOOD, false, true},
        {true, RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_L4_CKSUM_GOOD, false, false},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture_options options = fixture_defaults();
        if (!rows[i].is_silent)
            options.offloads |= NIC_RX_CHECKSUM;
        struct fixture *fixture = fixture_new(&options);
        struct fixture_packet packet = packet_usual();
        uint8_t frame[128];
        uint32_t size = fixture_build(&packet, frame);
        for (uint32_t broken = 0; broken < 2; broken++) {
            frame[24] ^= (uint8_t)broken;
            fixture_inject(fixture, 0, span_of(frame, size));
            fixture->nics[0].arriving[0]->mbuf.ol_flags = rows[i].flags;
            fixture_turn(fixture, NULL, 0);
            assert_int_equal(1 + (broken && rows[i].is_taken), fixture->segment_count);
            if (!broken)
                assert_int_equal(rows[i].is_known, fixture->is_segment_checksum_known);
        }
        fixture_free(fixture);
    }
}

/* ---- exception path ---- */

static void test_exception_path(void **state)
{
    static const struct {
        const char *name, *destination;
        uint8_t protocol;
        uint16_t type, vlan;
        bool is_excepted;
    } rows[] = {
        {"ours", "192.0.2.1", IP_PROTOCOL_TCP, ETHERTYPE_IP4, 0, false},
        {"another address", "192.0.2.7", IP_PROTOCOL_TCP, ETHERTYPE_IP4, 0, true},
        {"broadcast", "255.255.255.255", IP_PROTOCOL_UDP, ETHERTYPE_IP4, 0, true},
        {"another protocol", "192.0.2.1", 89, ETHERTYPE_IP4, 0, true},
        {"another type", "192.0.2.1", IP_PROTOCOL_TCP, 0x88cc, 0, true},
        {"another VLAN", "192.0.2.1", IP_PROTOCOL_TCP, ETHERTYPE_IP4, 9, true},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture_options options = fixture_defaults();
        options.has_exception = true;
        struct fixture *fixture = fixture_new(&options);
        struct fixture_packet packet = packet_usual();
        uint8_t frame[128];
        packet.destination = rows[i].destination;
        packet.protocol = rows[i].protocol;
        packet.vlan = rows[i].vlan;
        uint32_t size = fixture_build(&packet, frame);
        store_be16(frame + 12 + (rows[i].vlan != 0 ? 4 : 0), rows[i].type);
        fixture_inject(fixture, 0, span_of(frame, size));
        fixture_turn(fixture, NULL, 0);
        const struct fixture_frames *excepted = &fixture->nics[0].excepted;
        if (excepted->count != rows[i].is_excepted)
            fail_msg("%s", rows[i].name);
        assert_int_equal(rows[i].is_excepted, COUNTER(fixture, FRAMES_EXCEPTED));
        if (rows[i].is_excepted)
            assert_memory_equal(frame, excepted->frames[0]->octets, size);
        fixture_free(fixture);
    }
}

static void test_arp_of_others_is_excepted(void **state)
{
    struct fixture_options options = fixture_defaults();

    (void)state;
    options.has_exception = true;
    struct fixture *fixture = fixture_new(&options);
    fixture_input_arp(fixture, 1, fixture_peer_mac, "192.0.2.10", "192.0.2.7",
                      fixture_broadcast_mac);
    fixture_input_arp(fixture, 2, fixture_peer_mac, "192.0.2.10", "192.0.2.7", fixture_mac);
    assert_int_equal(2, fixture->nics[0].excepted.count);
    fixture_input_arp(fixture, 1, fixture_peer_mac, "192.0.2.10", "192.0.2.1",
                      fixture_broadcast_mac);
    assert_int_equal(2, fixture->nics[0].excepted.count);
    assert_int_equal(1, fixture_sent_count(fixture, 0));
    fixture_free(fixture);
}

/* ---- other cores ---- */

/* Without a nic that steers, every tuple goes to the core that its hash names, and to no other. */
static void test_foreign_frames_are_passed(void **state)
{
    static const char *const pairs[][2] = {{"198.51.100.7", "192.0.2.1"},
                                           {"2001:db9::7", "2001:db8::1"}};
    struct fixture_options options = fixture_defaults();
    uint32_t here = 0;

    (void)state;
    options.queue_count = options.core_count = 4;
    options.core = 2;
    struct fixture *fixture = fixture_new(&options);
    const struct nic_steering *steering = &fixture->nics[0].nic.steering;
    struct fixture_frames *passed = &fixture->nics[0].passed;
    for (uint16_t i = 0; i < 200; i++) {
        struct fixture_packet packet = packet_usual();
        uint8_t octets[SEGMENT_SIZE];
        memcpy(octets, segment, SEGMENT_SIZE);
        store_be16(octets, (uint16_t)(1000 + i));
        packet.source = pairs[i % 2][0];
        packet.destination = pairs[i % 2][1];
        packet.payload = span_of(octets, SEGMENT_SIZE);
        struct flow_address source = fixture_address(packet.source, 0);
        struct flow_address destination = fixture_address(packet.destination, 0);
        uint32_t hash = rss_hash(steering->key, source.family, source.ip, destination.ip,
                                 (uint16_t)(1000 + i), 25);
        uint16_t queue = steering->reta[hash % 128];
        fixture_input(fixture, &packet);
        here += queue == 2;
        assert_int_equal(here, fixture->segment_count);
        assert_int_equal(i + 1u - here, passed->count);
        if (queue != 2)
            assert_int_equal(queue, passed->frames[passed->count - 1]->queue);
    }
    assert_in_range(here, 25, 75);
    assert_int_equal(passed->count, COUNTER(fixture, FRAMES_PASSED));
    fixture_free(fixture);
}

static void test_a_nic_that_steers_is_believed(void **state)
{
    struct fixture_options options = fixture_defaults();

    (void)state;
    options.queue_count = options.core_count = 4;
    options.is_hardware = true;
    struct fixture *fixture = fixture_new(&options);
    struct fixture_packet packet = packet_usual();
    uint8_t octets[SEGMENT_SIZE];
    memcpy(octets, segment, SEGMENT_SIZE);
    packet.payload = span_of(octets, SEGMENT_SIZE);
    for (uint32_t i = 0; i < 8; i++) {
        octets[1] = (uint8_t)i;
        fixture_input(fixture, &packet);
    }
    assert_int_equal(8, fixture->segment_count);
    fixture->nics[0].nic.steering.is_hardware = false; /* it turned out to be wrong */
    fixture_input(fixture, &packet);
    packet.destination = "192.0.2.7"; /* whoever it is for, another core's is another core's */
    fixture_input(fixture, &packet);
    assert_int_equal(10, fixture->segment_count + fixture->nics[0].passed.count +
                             COUNTER(fixture, IP_NOT_OURS));
    fixture_free(fixture);
}

/* ---- without a link layer ---- */

static void test_l3(void **state)
{
    static const char *const pairs[][2] = {{"198.51.100.7", "192.0.2.1"},
                                           {"2001:db9::7", "2001:db8::1"}};
    struct fixture_options options = fixture_defaults();

    (void)state;
    options.offloads |= NIC_IS_L3;
    options.is_fresh = true;
    struct fixture *fixture = fixture_new(&options);
    for (uint32_t i = 0; i < 2; i++) {
        struct fixture_packet packet = packet_usual();
        packet.source = pairs[i][0];
        packet.destination = pairs[i][1];
        packet.is_l3 = true;
        fixture_input(fixture, &packet);
        assert_int_equal(i + 1, fixture->segment_count);
    }
    fixture_inject(fixture, 0, span_of(segment, 0));
    fixture_turn(fixture, NULL, 0);
    assert_int_equal(1, COUNTER(fixture, FRAME_SHORT));
    /* There are no link addresses to ask for. */
    struct nd_packet nd = {.type = ICMP_NEIGHBOUR_SOLICITATION6};
    struct flow_address us = fixture_address("2001:db8::1", 0);
    uint8_t message[32];
    memcpy(nd.target, us.ip, 16);
    uint32_t size = nd_build(&nd, message);
    fixture_input(fixture, &(struct fixture_packet){.source = "2001:db8::7",
                                                    .destination = "2001:db8::1",
                                                    .protocol = IP_PROTOCOL_ICMP6,
                                                    .ttl = 255,
                                                    .payload = span_of(message, size),
                                                    .is_l3 = true});
    assert_int_equal(1, COUNTER(fixture, ND_NOT_OURS));
    fixture_advance(fixture, TICK_S(5));
    assert_int_equal(0, fixture_sent_count(fixture, 0)); /* nothing to announce */
    fixture_free(fixture);
}

/* ---- a look at every frame ---- */

struct seen {
    uint32_t received, sent;
    uint8_t octets[128];
};

static void on_frame(void *context, uint32_t port, bool is_sent, const struct buf *frame,
                     tick_us now)
{
    struct seen *seen = context;

    (void)now;
    assert_int_equal(0, port);
    *(is_sent ? &seen->sent : &seen->received) += 1;
    memcpy(seen->octets, buf_data(frame), buf_size(frame));
}

static void test_tap_sees_every_frame_once(void **state)
{
    struct fixture *fixture = fixture_usual();
    struct seen seen = {0};
    struct fixture_packet packet = packet_usual();

    (void)state;
    stack_set_tap(fixture->stack, on_frame, &seen);
    fixture_input(fixture, &packet);
    assert_int_equal(1, seen.received);
    packet.source = "0.0.0.0"; /* also what is dropped */
    fixture_input(fixture, &packet);
    assert_int_equal(2, seen.received);
    fixture_input_arp(fixture, 1, fixture_peer_mac, "192.0.2.10", "192.0.2.1",
                      fixture_broadcast_mac);
    assert_int_equal(3, seen.received);
    assert_int_equal(1, seen.sent);
    assert_memory_equal(fixture->nics[0].sent.frames[0]->octets, seen.octets, 42);
    stack_set_tap(fixture->stack, NULL, NULL);
    fixture_input(fixture, &packet);
    assert_int_equal(3, seen.received);
    fixture_free(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_broadcast_of_small_prefixes),
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_fragments),
        cmocka_unit_test(test_ip4_options),
        cmocka_unit_test(test_vlan),
        cmocka_unit_test(test_vlan_stripped),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_padding_is_cut_off),
        cmocka_unit_test(test_headers_are_pulled_up),
        cmocka_unit_test(test_chain_bounds),
        cmocka_unit_test(test_lying_length),
        cmocka_unit_test(test_checksum_verdicts),
        cmocka_unit_test(test_exception_path),
        cmocka_unit_test(test_arp_of_others_is_excepted),
        cmocka_unit_test(test_foreign_frames_are_passed),
        cmocka_unit_test(test_a_nic_that_steers_is_believed),
        cmocka_unit_test(test_l3),
        cmocka_unit_test(test_tap_sees_every_frame_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is said on a link: Ethernet headers, ARP, neighbour discovery; and the ranges of addresses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/rng.h"
#include "dataplane/flow.h"
#include "dataplane/wire/format/packet.h"
#include "wire_octets.h"

/* The verdict on a copy of the octets; on failure the output must not have been touched. */
#define PARSE(parser, octets, size, ret_output)                                                    \
    ({                                                                                             \
        struct span copy_ = octets_copy(octets, size);                                             \
        uint8_t untouched_[sizeof(*(ret_output))];                                                 \
        memset(untouched_, 0xa5, sizeof(untouched_));                                              \
        memset((ret_output), 0xa5, sizeof(untouched_));                                            \
        enum packet_fault fault_ = parser(copy_, (ret_output));                                    \
        if (fault_ != PACKET_OK)                                                                   \
            assert_memory_equal(untouched_, (ret_output), sizeof(untouched_));                     \
        octets_free(copy_);                                                                        \
        fault_;                                                                                    \
    })

static void test_ethernet(void **state)
{
    static const struct {
        const char *name, *octets;
        enum packet_fault fault;
        uint16_t type, vlan, size;
    } rows[] = {
        {"IPv4", "020000000001 020000000002 0800", PACKET_OK, 0x0800, 0, 14},
        {"IPv4 and more", "020000000001 020000000002 0800 45", PACKET_OK, 0x0800, 0, 14},
        {"one octet short", "020000000001 020000000002 08", PACKET_SHORT, 0, 0, 0},
        {"tag", "020000000001 020000000002 8100 0064 86dd", PACKET_OK, 0x86dd, 100, 18},
        {"tag, priority and DEI", "020000000001 020000000002 8100 f064 86dd", PACKET_OK, 0x86dd,
         100, 18},
        {"tag 4095", "020000000001 020000000002 8100 0fff 0800", PACKET_OK, 0x0800, 4095, 18},
        {"priority tag", "020000000001 020000000002 8100 e000 0806", PACKET_OK, 0x0806, 0, 18},
        {"tag, one octet short", "020000000001 020000000002 8100 0064 86", PACKET_SHORT, 0, 0, 0},
        {"tag without its second half", "020000000001 020000000002 8100", PACKET_SHORT, 0, 0, 0},
        {"two tags: a type nobody knows", "020000000001 020000000002 8100 0064 8100 0065 0800",
         PACKET_OK, 0x8100, 100, 18},
        {"provider tag: a type nobody knows", "020000000001 020000000002 88a8 0064 8100 0065 0800",
         PACKET_OK, 0x88a8, 0, 14},
        {"a length (802.3)", "0180c2000000 020000000002 0026 424203", PACKET_OK, 0x0026, 0, 14},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct ethernet_header header;
        uint8_t octets[64], built[18];

        print_message("# case: %s\n", rows[i].name);
        uint32_t size = octets_from_hex(rows[i].octets, octets, sizeof(octets));
        assert_int_equal(rows[i].fault, PARSE(ethernet_parse, octets, size, &header));
        if (rows[i].fault != PACKET_OK)
            continue;
        assert_int_equal(rows[i].type, header.type);
        assert_int_equal(rows[i].vlan, header.vlan);
        assert_int_equal(rows[i].size, header.size);
        assert_memory_equal(octets, header.destination, 6);
        assert_memory_equal(octets + 6, header.source, 6);
        /* Priority and DEI are not kept, nor is a tag without a VLAN. */
        assert_int_equal(rows[i].vlan != 0 ? 18 : 14, ethernet_build(&header, built));
        struct ethernet_header again;
        assert_int_equal(PACKET_OK,
                         PARSE(ethernet_parse, built, rows[i].vlan != 0 ? 18 : 14, &again));
        assert_int_equal(rows[i].type, again.type);
        assert_int_equal(rows[i].vlan, again.vlan);
        assert_memory_equal(octets, built, 12);
    }
}

static void test_ethernet_multicast(void **state)
{
    static const uint8_t station[6] = {0xfe, 0xff, 0xff, 0xff, 0xff, 0xff}, group[6] = {0x01},
                         broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

    (void)state;
    assert_false(ethernet_is_multicast(station));
    assert_true(ethernet_is_multicast(group));
    assert_true(ethernet_is_multicast(broadcast));
}

/* A sound message, with `value` at offset `at` in it. */
struct change_row {
    const char *name;
    uint32_t at;
    uint8_t value;
    enum packet_fault fault;
};

static const char arp_request[] =
    "0001 0800 06 04 0001 020000000001 c0000201 000000000000 c0000202";

static void test_arp(void **state)
{
    static const struct change_row rows[] = {
        {"request", 7, 1, PACKET_OK},
        {"reply", 7, 2, PACKET_OK},
        {"operation 0", 7, 0, PACKET_UNSUPPORTED},
        {"reverse request", 7, 3, PACKET_UNSUPPORTED},
        {"operation 257", 6, 1, PACKET_UNSUPPORTED},
        {"hardware 0", 1, 0, PACKET_UNSUPPORTED},
        {"hardware 6", 1, 6, PACKET_UNSUPPORTED},
        {"protocol IPv6", 2, 0x86, PACKET_UNSUPPORTED},
        {"hardware address of 5 octets", 4, 5, PACKET_MALFORMED},
        {"hardware address of 7 octets", 4, 7, PACKET_MALFORMED},
        {"protocol address of 3 octets", 5, 3, PACKET_MALFORMED},
        {"protocol address of 16 octets", 5, 16, PACKET_MALFORMED},
        {"group address as sender", 8, 0x03, PACKET_MALFORMED},
        {"group address as target", 18, 0xff, PACKET_OK},
    };
    uint8_t octets[60] = {0};
    struct arp_packet packet;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# case: %s\n", rows[i].name);
        assert_int_equal(ARP_SIZE, octets_from_hex(arp_request, octets, sizeof(octets)));
        octets[rows[i].at] = rows[i].value;
        assert_int_equal(rows[i].fault, PARSE(arp_parse, octets, ARP_SIZE, &packet));
        /* Padding changes nothing. */
        assert_int_equal(rows[i].fault, PARSE(arp_parse, octets, 46, &packet));
    }
    octets_from_hex(arp_request, octets, sizeof(octets));
    for (uint32_t size = 0; size < ARP_SIZE; size++)
        assert_int_equal(PACKET_SHORT, PARSE(arp_parse, octets, size, &packet));
}

static void test_arp_round_trip(void **state)
{
    uint8_t octets[ARP_SIZE], built[ARP_SIZE];
    struct arp_packet packet;

    (void)state;
    octets_from_hex("0001 0800 06 04 0002 020304050607 0a0b0c0d 121314151617 1a1b1c1d", octets,
                    sizeof(octets));
    assert_int_equal(PACKET_OK, PARSE(arp_parse, octets, ARP_SIZE, &packet));
    assert_int_equal(2, packet.operation);
    assert_memory_equal("\x02\x03\x04\x05\x06\x07", packet.sender_mac, 6);
    assert_memory_equal("\x0a\x0b\x0c\x0d", packet.sender_ip, 4);
    assert_memory_equal("\x12\x13\x14\x15\x16\x17", packet.target_mac, 6);
    assert_memory_equal("\x1a\x1b\x1c\x1d", packet.target_ip, 4);
    arp_build(&packet, built);
    assert_memory_equal(octets, built, ARP_SIZE);
}

#define ND_TARGET "20010db8000000000000000000000001"
#define NS        "87 00 0000 00000000 " ND_TARGET
#define NA        "88 00 0000 e0000000 " ND_TARGET

static void test_nd(void **state)
{
    static const struct {
        const char *name, *octets;
        enum packet_fault fault;
        bool has_link_address;
    } rows[] = {
        {"solicitation", NS, PACKET_OK, false},
        {"solicitation with source", NS "0101 020000000001", PACKET_OK, true},
        {"advertisement", NA, PACKET_OK, false},
        {"advertisement with target", NA "0201 020000000001", PACKET_OK, true},
        {"solicitation with target: ignored", NS "0201 020000000001", PACKET_OK, false},
        {"advertisement with source: ignored", NA "0101 020000000001", PACKET_OK, false},
        {"one octet short", "87 00 0000 00000000 20010db80000000000000000000000", PACKET_SHORT,
         false},
        {"router advertisement", "86 00 0000 00000000 " ND_TARGET, PACKET_UNSUPPORTED, false},
        {"redirect", "89 00 0000 00000000 " ND_TARGET, PACKET_UNSUPPORTED, false},
        {"code 1", "87 01 0000 00000000 " ND_TARGET, PACKET_MALFORMED, false},
        {"multicast target", "87 00 0000 00000000 ff020000000000000000000000000001",
         PACKET_MALFORMED, false},
        {"option of size 0", NS "0100 020000000001", PACKET_MALFORMED, false},
        {"unknown option of size 0", NS "0e00 020000000001", PACKET_MALFORMED, false},
        {"link address of 16 octets", NS "0102 020000000001 0000000000000000", PACKET_MALFORMED,
         false},
        {"option beyond the message", NS "0e02 020000000001", PACKET_MALFORMED, false},
        {"half an option", NS "0101 0200", PACKET_MALFORMED, false},
        {"an octet behind the last option", NS "0101 020000000001 00", PACKET_MALFORMED, false},
        {"group address as link address", NS "0101 030000000001", PACKET_MALFORMED, false},
        {"unknown option before", NS "0e02 0000000000000000000000000000 0101 020000000001",
         PACKET_OK, true},
        {"unknown option behind", NS "0101 020000000001 0e01 000000000000", PACKET_OK, true},
        {"sound option, then one of size 0", NS "0101 020000000001 0e00 000000000000",
         PACKET_MALFORMED, false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct nd_packet packet;
        uint8_t octets[64];

        print_message("# case: %s\n", rows[i].name);
        uint32_t size = octets_from_hex(rows[i].octets, octets, sizeof(octets));
        assert_int_equal(rows[i].fault, PARSE(nd_parse, octets, size, &packet));
        if (rows[i].fault != PACKET_OK)
            continue;
        bool is_advertisement = packet.type == ICMP_NEIGHBOUR_ADVERTISEMENT6;
        assert_int_equal(octets[0], packet.type);
        assert_int_equal(is_advertisement, packet.is_router);
        assert_int_equal(is_advertisement, packet.is_solicited);
        assert_int_equal(is_advertisement, packet.is_override);
        assert_memory_equal(octets + 8, packet.target, 16);
        assert_int_equal(rows[i].has_link_address, packet.has_link_address);
        if (packet.has_link_address)
            assert_memory_equal("\x02\0\0\0\0\x01", packet.link_address, 6);
    }
}

/* Goal: the limit of options is where it says: 16 are read, 17 are not. */
static void test_nd_option_limit(void **state)
{
    uint8_t octets[24 + 17 * 8] = {ICMP_NEIGHBOUR_SOLICITATION6};
    struct nd_packet packet;

    (void)state;
    for (uint32_t i = 0; i < 17; i++) {
        octets[24 + 8 * i] = 14;
        octets[25 + 8 * i] = 1;
    }
    assert_int_equal(PACKET_OK, PARSE(nd_parse, octets, 24 + 16 * 8, &packet));
    assert_int_equal(PACKET_UNSUPPORTED, PARSE(nd_parse, octets, 24 + 17 * 8, &packet));
}

static void test_nd_round_trip(void **state)
{
    (void)state;
    for (uint32_t round = 0; round < 32; round++) {
        bool is_advertisement = round & 1;
        struct nd_packet got, packet = {
                                  .type = is_advertisement ? ICMP_NEIGHBOUR_ADVERTISEMENT6
                                                           : ICMP_NEIGHBOUR_SOLICITATION6,
                                  .is_router = is_advertisement && (round & 2) != 0,
                                  .is_solicited = is_advertisement && (round & 4) != 0,
                                  .is_override = is_advertisement && (round & 8) != 0,
                                  .target = {0xfe, 0x80, [15] = 7},
                                  .has_link_address = (round & 16) != 0,
                                  .link_address = {2, 3, 4, 5, 6, 7},
                              };
        uint8_t octets[32];

        memset(octets, 0xff, sizeof(octets));
        uint32_t size = nd_build(&packet, octets);
        assert_int_equal(packet.has_link_address ? 32 : 24, size);
        assert_int_equal(0, load_be32(octets) & 0xffffff);
        assert_int_equal(0, load_be32(octets + 4) & 0x1fffffff);
        assert_int_equal(PACKET_OK, PARSE(nd_parse, octets, size, &got));
        assert_int_equal(packet.type, got.type);
        assert_int_equal(packet.is_router, got.is_router);
        assert_int_equal(packet.is_solicited, got.is_solicited);
        assert_int_equal(packet.is_override, got.is_override);
        assert_memory_equal(packet.target, got.target, 16);
        assert_int_equal(packet.has_link_address, got.has_link_address);
        if (packet.has_link_address)
            assert_memory_equal(packet.link_address, got.link_address, 6);
    }
}

enum range { PLAIN = 0, MARTIAN = 1, MULTICAST = 2, LINK_LOCAL = 4 };

static void test_address_ranges(void **state)
{
    static const struct {
        const char *ip;
        unsigned ranges;
    } rows[] = {
        {"0.0.0.0", MARTIAN},
        {"0.255.255.255", MARTIAN},
        {"1.0.0.0", PLAIN},
        {"10.1.2.3", PLAIN},
        {"126.255.255.255", PLAIN},
        {"127.0.0.1", MARTIAN},
        {"127.255.255.255", MARTIAN},
        {"128.0.0.0", PLAIN},
        {"169.253.255.255", PLAIN},
        {"169.254.0.1", LINK_LOCAL},
        {"169.254.255.255", LINK_LOCAL},
        {"169.255.0.0", PLAIN},
        {"223.255.255.255", PLAIN},
        {"224.0.0.1", MARTIAN | MULTICAST},
        {"239.255.255.255", MARTIAN | MULTICAST},
        {"240.0.0.0", MARTIAN},
        {"255.255.255.254", MARTIAN},
        {"255.255.255.255", MARTIAN},
        {"::", MARTIAN},
        {"::1", MARTIAN},
        {"::2", PLAIN},
        {"::1:0:0:1", PLAIN},
        {"::ffff:192.0.2.1", MARTIAN},
        {"::fffe:c000:201", PLAIN},
        {"::1:ffff:c000:201", PLAIN},
        {"64:ff9b::c000:201", PLAIN},
        {"2001:db8::1", PLAIN},
        {"fe7f:ffff::1", PLAIN},
        {"fe80::1", LINK_LOCAL},
        {"febf:ffff::1", LINK_LOCAL},
        {"fec0::1", PLAIN},
        {"feff::1", PLAIN},
        {"ff00::", MARTIAN | MULTICAST},
        {"ff02::1", MARTIAN | MULTICAST},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct flow_address address;
        unsigned ranges = rows[i].ranges;

        print_message("# case: %s\n", rows[i].ip);
        assert_int_equal(ERR_OK, flow_address_parse_ip(span_from_text(rows[i].ip), &address));
        assert_int_equal((ranges & MARTIAN) != 0, ip_is_martian_source(address.family, address.ip));
        assert_int_equal((ranges & MULTICAST) != 0, ip_is_multicast(address.family, address.ip));
        assert_int_equal((ranges & LINK_LOCAL) != 0, ip_is_link_local(address.family, address.ip));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ethernet),
        cmocka_unit_test(test_ethernet_multicast),
        cmocka_unit_test(test_arp),
        cmocka_unit_test(test_arp_round_trip),
        cmocka_unit_test(test_nd),
        cmocka_unit_test(test_nd_option_limit),
        cmocka_unit_test(test_nd_round_trip),
        cmocka_unit_test(test_address_ranges),
    };
    return cmocka_run_group_tests_name("wire_link", tests, NULL, NULL);
}

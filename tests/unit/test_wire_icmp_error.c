/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ICMP errors of both versions: which types are errors, what they quote, how much of it must be
 * there, and the MTU in every form in which routers send it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "dataplane/wire/format/packet.h"
#include "wire_octets.h"

/* Parse a copy of the octets; on failure the output must not have been touched. */
static enum packet_fault parse(uint8_t family, const uint8_t *octets, uint32_t size,
                               struct icmp_error *ret_error)
{
    struct span copy = octets_copy(octets, size);
    struct icmp_error untouched;

    memset(ret_error, 0xa5, sizeof(*ret_error));
    memset(&untouched, 0xa5, sizeof(untouched));
    enum packet_fault fault = icmp_error_parse(family, copy, ret_error);
    if (fault != PACKET_OK)
        assert_memory_equal(&untouched, ret_error, sizeof(untouched));
    octets_free(copy);
    return fault;
}

#define SOURCE6      "20010db8000000000000000000000001"
#define DESTINATION6 "20010db8000000000000000000000002"
#define TCP_START    "9c40 0019 01020304"
#define IP4(total, fragment, protocol)                                                             \
    "45 00 " total " 0000 " fragment " 40 " protocol " 0bad c0000201 c6336402 "
#define IP6(payload, next) "60000000 " payload " " next " 40 " SOURCE6 DESTINATION6

static void test_types(void **state)
{
    static const struct {
        uint8_t family, type;
        bool is_error;
    } rows[] = {
        {4, 0, false},   {4, 3, true},    {4, 4, false},  {4, 5, false}, {4, 8, false},
        {4, 11, true},   {4, 12, true},   {4, 13, false}, {6, 0, false}, {6, 1, true},
        {6, 2, true},    {6, 3, true},    {6, 4, true},   {6, 5, false}, {6, 127, false},
        {6, 128, false}, {6, 137, false},
    };
    uint8_t octets[128];
    struct icmp_error error;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        bool is_4 = rows[i].family == 4;
        uint32_t size =
            octets_from_hex(is_4 ? "00070000 00000000" IP4("05dc", "4000", "06") TCP_START
                                 : "00070000 00000000" IP6("05b4", "06") TCP_START,
                            octets, sizeof(octets));

        print_message("# case: IPv%u type %u\n", rows[i].family, rows[i].type);
        octets[0] = rows[i].type;
        assert_int_equal(rows[i].is_error ? PACKET_OK : PACKET_UNSUPPORTED,
                         parse(rows[i].family, octets, size, &error));
        if (!rows[i].is_error)
            continue;
        assert_int_equal(rows[i].type, error.type);
        assert_int_equal(7, error.code);
        assert_int_equal(rows[i].family, error.quoted.family);
        assert_int_equal(IP_PROTOCOL_TCP, error.quoted.protocol);
        assert_int_equal(1480 - (is_4 ? 0 : 20), error.quoted.payload_size);
        assert_int_equal(1, error.quoted.source[is_4 ? 3 : 15]);
        assert_int_equal(2, error.quoted.destination[is_4 ? 3 : 15]);
        assert_int_equal(40000, error.source_port);
        assert_int_equal(25, error.destination_port);
        assert_int_equal(0x01020304, error.sequence);
    }
}

static void test_mtu(void **state)
{
    static const struct {
        const char *name;
        uint8_t family, type, code;
        uint32_t field; /* octets 4 to 7 */
        uint16_t mtu;
    } rows[] = {
        {"fragmentation needed, 1400", 4, 3, 4, 1400, 1400},
        {"fragmentation needed, the other half is no part of it", 4, 3, 4, 0xffff0578, 1400},
        {"fragmentation needed, old router", 4, 3, 4, 0, 0},
        {"fragmentation needed, 65535", 4, 3, 4, 65535, 65535},
        {"port unreachable has none", 4, 3, 3, 1400, 0},
        {"time exceeded has none", 4, 11, 4, 1400, 0},
        {"too big, 1280", 6, 2, 0, 1280, 1280},
        {"too big, 0", 6, 2, 0, 0, 0},
        {"too big, 65535", 6, 2, 0, 65535, 65535},
        {"too big, 65536", 6, 2, 0, 65536, 65535},
        {"too big, 66816: its lower half is 1280", 6, 2, 0, 66816, 65535},
        {"too big, most", 6, 2, 0, UINT32_MAX, 65535},
        {"unreachable has none", 6, 1, 4, 1400, 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        uint8_t octets[128];
        struct icmp_error error;
        uint32_t size = octets_from_hex(
            rows[i].family == 4 ? "00000000 00000000" IP4("05dc", "4000", "06") TCP_START
                                : "00000000 00000000" IP6("05b4", "06") TCP_START,
            octets, sizeof(octets));

        print_message("# case: %s\n", rows[i].name);
        octets[0] = rows[i].type;
        octets[1] = rows[i].code;
        store_be32(octets + 4, rows[i].field);
        assert_int_equal(PACKET_OK, parse(rows[i].family, octets, size, &error));
        assert_int_equal(rows[i].mtu, error.mtu);
    }
}

static void test_quotes(void **state)
{
    static const struct {
        const char *name;
        uint8_t family;
        const char *quote;
        enum packet_fault fault;
    } rows[] = {
        {"TCP", 4, IP4("05dc", "4000", "06") TCP_START, PACKET_OK},
        {"UDP", 4, IP4("05dc", "4000", "11") TCP_START, PACKET_OK},
        {"ICMP", 4, IP4("05dc", "4000", "01") TCP_START, PACKET_UNSUPPORTED},
        {"more than 8 octets", 4, IP4("05dc", "4000", "06") TCP_START "00000000", PACKET_OK},
        {"7 octets", 4, IP4("05dc", "4000", "06") "9c40 0019 010203", PACKET_SHORT},
        {"no octets", 4, IP4("05dc", "4000", "06"), PACKET_SHORT},
        {"IP header cut off", 4, "4500 05dc 0000 4000 4006 0bad c0000201 c63364", PACKET_SHORT},
        {"nothing", 4, "", PACKET_SHORT},
        {"IPv6 in ICMP for IPv4", 4, IP6("05b4", "06") TCP_START, PACKET_UNSUPPORTED},
        {"first fragment", 4, IP4("05dc", "2000", "06") TCP_START, PACKET_FRAGMENT},
        {"later fragment", 4, IP4("05dc", "0010", "06") TCP_START, PACKET_FRAGMENT},
        {"a packet of 28 octets", 4, IP4("001c", "4000", "06") TCP_START, PACKET_OK},
        {"a packet of 27 octets", 4, IP4("001b", "4000", "06") TCP_START, PACKET_MALFORMED},
        {"a packet of 19 octets", 4, IP4("0013", "4000", "06") TCP_START, PACKET_MALFORMED},
        {"header of 16 octets", 4, "44 00 05dc 0000 4000 40 06 0bad c0000201 c6336402" TCP_START,
         PACKET_MALFORMED},
        {"header with options", 4,
         "46 00 05dc 0000 4000 40 06 0bad c0000201 c6336402 01010101" TCP_START, PACKET_OK},
        {"header with options, cut off", 4,
         "46 00 05dc 0000 4000 40 06 0bad c0000201 c6336402 010101", PACKET_SHORT},
        {"TCP6", 6, IP6("05b4", "06") TCP_START, PACKET_OK},
        {"UDP6", 6, IP6("05b4", "11") TCP_START, PACKET_OK},
        {"ICMP6", 6, IP6("05b4", "3a") TCP_START, PACKET_UNSUPPORTED},
        {"atomic fragment", 6, IP6("05b4", "2c") "06000000 00000001" TCP_START, PACKET_OK},
        {"fragment", 6, IP6("05b4", "2c") "06000001 00000001" TCP_START, PACKET_FRAGMENT},
        {"destination options", 6, IP6("05b4", "3c") "0600 0104 00000000" TCP_START, PACKET_OK},
        {"7 octets behind options", 6, IP6("05b4", "3c") "0600 0104 00000000 9c400019010203",
         PACKET_SHORT},
        {"options cut off", 6, IP6("05b4", "3c") "0601 0104 00000000", PACKET_SHORT},
        {"a payload of 8 octets", 6, IP6("0008", "06") TCP_START, PACKET_OK},
        {"a payload of 7 octets", 6, IP6("0007", "06") TCP_START, PACKET_MALFORMED},
        {"IPv4 in ICMP for IPv6", 6, IP4("05dc", "4000", "06") TCP_START "000000000000000000000000",
         PACKET_UNSUPPORTED},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        uint8_t octets[160] = {rows[i].family == 4 ? ICMP_UNREACHABLE4 : ICMP_UNREACHABLE6};
        struct icmp_error error;

        print_message("# case: %s\n", rows[i].name);
        uint32_t size = 8 + octets_from_hex(rows[i].quote, octets + 8, sizeof(octets) - 8);
        assert_int_equal(rows[i].fault, parse(rows[i].family, octets, size, &error));
        if (rows[i].fault != PACKET_OK)
            continue;
        bool is_tcp = error.quoted.protocol == IP_PROTOCOL_TCP;
        assert_int_equal(40000, error.source_port);
        assert_int_equal(25, error.destination_port);
        assert_int_equal(is_tcp ? 0x01020304 : 0, error.sequence);
        uint32_t needed = 8u + error.quoted.header_size + 8;
        assert_true(needed <= size);
        for (uint32_t cut = 0; cut < needed; cut++)
            assert_int_equal(PACKET_SHORT, parse(rows[i].family, octets, cut, &error));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_mtu),
        cmocka_unit_test(test_quotes),
    };
    return cmocka_run_group_tests_name("wire_icmp_error", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP headers: every size, every malformed option (HAZARDS TC-11), and what is built is read again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/rng.h"
#include "dataplane/wire/format/packet.h"
#include "wire_octets.h"

/* Parse a copy of the octets; on failure the output must not have been touched. */
static enum packet_fault parse(const uint8_t *octets, uint32_t size, struct tcp_header *ret_header)
{
    struct span copy = octets_copy(octets, size);
    struct tcp_header untouched;

    memset(ret_header, 0xa5, sizeof(*ret_header));
    memset(&untouched, 0xa5, sizeof(untouched));
    enum packet_fault fault = tcp_parse(copy, ret_header);
    if (fault != PACKET_OK)
        assert_memory_equal(&untouched, ret_header, sizeof(untouched));
    octets_free(copy);
    return fault;
}

/* A header with these options in it, padded with zeros to whole words. */
static uint32_t header_of(const uint8_t *options, uint32_t size, uint8_t flags,
                          uint8_t ret_octets[60])
{
    uint32_t padded = (size + 3) / 4 * 4;

    assert_true(padded <= TCP_OPTIONS_SIZE_MAX);
    memset(ret_octets, 0, 60);
    ret_octets[12] = (uint8_t)((5 + padded / 4) << 4);
    ret_octets[13] = flags;
    if (size > 0)
        memcpy(ret_octets + TCP_HEADER_SIZE, options, size);
    return TCP_HEADER_SIZE + padded;
}

static void check_options(const struct tcp_options *expected, const struct tcp_options *got)
{
    assert_int_equal(expected->has_mss, got->has_mss);
    if (expected->has_mss)
        assert_int_equal(expected->mss, got->mss);
    assert_int_equal(expected->has_window_scale, got->has_window_scale);
    if (expected->has_window_scale)
        assert_int_equal(expected->window_scale, got->window_scale);
    assert_int_equal(expected->has_sack_permitted, got->has_sack_permitted);
    assert_int_equal(expected->has_timestamps, got->has_timestamps);
    if (expected->has_timestamps) {
        assert_int_equal(expected->timestamp_value, got->timestamp_value);
        assert_int_equal(expected->timestamp_echo, got->timestamp_echo);
    }
    assert_int_equal(expected->sack_count, got->sack_count);
    assert_memory_equal(expected->sack, got->sack, got->sack_count * sizeof(got->sack[0]));
}

static void test_fields(void **state)
{
    uint8_t octets[60];
    struct tcp_header header;

    (void)state;
    /* The reserved bits are set. */
    uint32_t size = octets_from_hex("9c40 0019 01020304 a1a2a3a4 8f ff ffdc 1234 fffe"
                                    "0101080a 11121314 21222324",
                                    octets, sizeof(octets));
    assert_int_equal(PACKET_OK, parse(octets, size, &header));
    assert_int_equal(40000, header.source_port);
    assert_int_equal(25, header.destination_port);
    assert_int_equal(0x01020304, header.sequence);
    assert_int_equal(0xa1a2a3a4, header.acknowledgement);
    assert_int_equal(32, header.header_size);
    assert_int_equal(0xff, header.flags);
    assert_int_equal(0xffdc, header.window);
    assert_int_equal(0x1234, header.checksum);
    assert_int_equal(0xfffe, header.urgent);
    check_options(&(struct tcp_options){.has_timestamps = true,
                                        .timestamp_value = 0x11121314,
                                        .timestamp_echo = 0x21222324},
                  &header.options);
}

/* Goal: for every header size that can be written and every number of octets that is there, the
 * verdict is the one of RFC 9293 3.1. */
static void test_every_size(void **state)
{
    uint8_t octets[64] = {0};
    struct tcp_header header;

    (void)state;
    memset(octets + TCP_HEADER_SIZE, 1, sizeof(octets) - TCP_HEADER_SIZE); /* NOPs */
    for (uint32_t words = 0; words < 16; words++) {
        octets[12] = (uint8_t)(words << 4);
        for (uint32_t size = 0; size <= sizeof(octets); size++) {
            enum packet_fault expected = size < 20          ? PACKET_SHORT
                                         : words < 5        ? PACKET_MALFORMED
                                         : 4 * words > size ? PACKET_SHORT
                                                            : PACKET_OK;
            assert_int_equal(expected, parse(octets, size, &header));
            if (expected == PACKET_OK) {
                assert_int_equal(4 * words, header.header_size);
                check_options(&(struct tcp_options){0}, &header.options);
            }
        }
    }
}

#define MSS       .has_mss = true, .mss = 1460
#define WS(shift) .has_window_scale = true, .window_scale = (shift)
#define SACK_OK   .has_sack_permitted = true
#define TS        .has_timestamps = true, .timestamp_value = 0x01020304, .timestamp_echo = 0x05060708

static void test_options(void **state)
{
    static const struct {
        const char *name, *options;
        uint8_t flags;
        struct tcp_options expected;
    } rows[] = {
        {"none", "", TCP_SYN, {0}},
        {"end at once", "00 020405b4", TCP_SYN, {0}},
        {"MSS", "020405b4", TCP_SYN, {MSS}},
        {"MSS 0", "02040000", TCP_SYN, {.has_mss = true, .mss = 0}},
        {"MSS 65535", "0204ffff", TCP_SYN, {.has_mss = true, .mss = 65535}},
        {"MSS of 3 octets", "020305 030307", TCP_SYN, {0}},
        {"MSS of 5 octets", "020505b400 030307", TCP_SYN, {0}},
        {"MSS cut off by the header's end", "0101 030307 01010101 020405", TCP_SYN, {WS(7)}},
        {"MSS without SYN", "020405b4 0101080a 0102030405060708", TCP_ACK, {TS}},
        {"MSS twice, the last counts", "02040218 020405b4", TCP_SYN, {MSS}},
        {"window scale", "030307", TCP_SYN | TCP_ACK, {WS(7)}},
        {"window scale 14", "03030e", TCP_SYN, {WS(14)}},
        {"window scale 15 is for TCP to judge", "03030f", TCP_SYN, {WS(15)}},
        {"window scale 255", "0303ff", TCP_SYN, {WS(255)}},
        {"window scale of 2 octets", "0302 020405b4", TCP_SYN, {0}},
        {"window scale of 4 octets", "03040700 020405b4", TCP_SYN, {0}},
        {"window scale without SYN", "030307", TCP_ACK, {0}},
        {"SACK permitted", "0402", TCP_SYN, {SACK_OK}},
        {"SACK permitted as the last octets", "0101 0402", TCP_SYN, {SACK_OK}},
        {"SACK permitted of 3 octets", "040300 020405b4", TCP_SYN, {0}},
        {"SACK permitted without SYN", "0402", TCP_ACK, {0}},
        {"timestamps", "080a 0102030405060708", TCP_ACK, {TS}},
        {"timestamps behind two NOPs", "0101080a 0102030405060708", TCP_ACK, {TS}},
        {"timestamps before two NOPs", "080a 0102030405060708 0101", TCP_ACK, {TS}},
        {"timestamps and more", "0101080a 0102030405060708 0402 0101", TCP_SYN, {TS, SACK_OK}},
        {"timestamps of 9 octets", "01010809 01020304050607", TCP_ACK, {0}},
        {"timestamps of 11 octets", "01080b 010203040506070809", TCP_ACK, {0}},
        {"a whole SYN",
         "020405b4 0402080a 0102030405060708 01030307",
         TCP_SYN,
         {MSS, SACK_OK, TS, WS(7)}},
        {"every option at its own place",
         "01 030307 01 0402 020405b4 080a 0102030405060708",
         TCP_SYN,
         {WS(7), SACK_OK, MSS, TS}},
        {"one SACK block",
         "0101050a 0000000100000002",
         TCP_ACK,
         {.sack_count = 1, .sack = {{1, 2}}}},
        {"four SACK blocks",
         "0101 0522 0000000100000002 0000000300000004 0000000500000006 0000000700000008",
         TCP_ACK,
         {.sack_count = 4, .sack = {{1, 2}, {3, 4}, {5, 6}, {7, 8}}}},
        {"three SACK blocks and timestamps",
         "0101080a 0102030405060708 0101 051a 0000000100000002 0000000300000004 ffffffff00000006",
         TCP_ACK,
         {TS, .sack_count = 3, .sack = {{1, 2}, {3, 4}, {0xffffffff, 6}}}},
        {"SACK without a block", "0502 0101 080a 0102030405060708", TCP_ACK, {0}},
        {"SACK of 3 octets", "050300 01 080a 0102030405060708", TCP_ACK, {0}},
        {"SACK of 9 octets", "0509 01020304050607 01 0101 080a 0102030405060708", TCP_ACK, {0}},
        {"SACK of 11 octets", "050b 0000000100000002 00 01 080a 0102030405060708", TCP_ACK, {0}},
        {"SACK one octet beyond the header",
         "0512 0000000100000002 0000000300000004 01 050a"
         "00000001000000",
         TCP_ACK,
         {.sack_count = 2, .sack = {{1, 2}, {3, 4}}}},
        {"fast open cookie is skipped", "220a 0102030405060708 020405b4", TCP_SYN, {MSS}},
        {"fast open request is skipped", "2202 020405b4", TCP_SYN, {MSS}},
        {"experiment of 253 octets", "fdfd 0102 020405b4", TCP_SYN, {0}},
        {"signature is skipped", "1312 00000000000000000000000000000000 020405b4", TCP_SYN, {MSS}},
        {"size 0", "1300 020405b4", TCP_SYN, {0}},
        {"size 1", "1301 020405b4", TCP_SYN, {0}},
        {"size 0 of MSS", "0200 020405b4", TCP_SYN, {0}},
        {"size 1 of MSS", "0201 020405b4", TCP_SYN, {0}},
        {"what stood before counts", "020405b4 1300 030307", TCP_SYN, {MSS}},
        {"a kind without a size at the end", "030307 13", TCP_SYN, {WS(7)}},
        {"a kind without a size as the last octet", "020405b4 010101 13", TCP_SYN, {MSS}},
        {"40 octets of NOP",
         "01010101010101010101 01010101010101010101 01010101010101010101 01010101010101010101",
         TCP_SYN,
         {0}},
        {"MSS behind 36 octets of NOP",
         "01010101010101010101 01010101010101010101 01010101010101010101 010101010101 020405b4",
         TCP_SYN,
         {MSS}},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        uint8_t options[TCP_OPTIONS_SIZE_MAX], octets[60];
        struct tcp_header header;

        print_message("# case: %s\n", rows[i].name);
        uint32_t size = octets_from_hex(rows[i].options, options, sizeof(options));
        size = header_of(options, size, rows[i].flags, octets);
        assert_int_equal(PACKET_OK, parse(octets, size, &header));
        check_options(&rows[i].expected, &header.options);
    }
}

static uint32_t known_size(uint32_t kind)
{
    static const uint8_t sizes[] = {[2] = 4, [3] = 3, [4] = 2, [8] = 10};

    return kind < COUNT_OF(sizes) ? sizes[kind] : 0;
}

/* Goal: for every kind and every size octet, an MSS in front counts, and a window scale behind it
 * counts exactly if the option is one that can be walked over. */
static void test_every_kind_and_size(void **state)
{
    (void)state;
    for (uint32_t kind = 2; kind < 256; kind++) {
        for (uint32_t size = 0; size < 256; size++) {
            uint8_t options[TCP_OPTIONS_SIZE_MAX] = {2, 4, 5, 0xb4, (uint8_t)kind, (uint8_t)size};
            bool is_sound = size >= 2 && size <= 36;
            if (known_size(kind) > 0)
                is_sound = size == known_size(kind);
            else if (kind == 5)
                is_sound = size == 10 || size == 18 || size == 26 || size == 34;
            bool has_scale = is_sound && kind != 3 && size <= 33;
            if (size >= 2 && size <= 33) {
                options[4 + size] = 3;
                options[5 + size] = 3;
                options[6 + size] = 9;
            }
            uint8_t octets[60];
            struct tcp_header header;
            uint32_t header_size = header_of(options, sizeof(options), TCP_SYN, octets);
            assert_int_equal(PACKET_OK, parse(octets, header_size, &header));
            assert_true(header.options.has_mss);
            if (kind != 3)
                assert_int_equal(has_scale, header.options.has_window_scale);
            assert_int_equal(is_sound && kind == 4, header.options.has_sack_permitted);
            assert_int_equal(is_sound && kind == 8, header.options.has_timestamps);
            assert_int_equal(is_sound && kind == 5 ? size / 8 : 0, header.options.sack_count);
        }
    }
}

/* Goal: the short way for NOP NOP TIMESTAMPS says what the walk says: the same options behind an
 * end-of-list word more. */
static void test_timestamps_both_ways(void **state)
{
    struct tcp_header fast, walked;
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 1);
    for (uint32_t round = 0; round < 1000; round++) {
        uint8_t options[16] = {1, 1, 8, 10}, octets[60];

        rng_fill(&rng, options + 4, 8);
        uint32_t size = header_of(options, 12, TCP_ACK, octets);
        assert_int_equal(PACKET_OK, parse(octets, size, &fast));
        size = header_of(options, 16, TCP_ACK, octets);
        assert_int_equal(PACKET_OK, parse(octets, size, &walked));
        assert_true(fast.options.has_timestamps);
        check_options(&walked.options, &fast.options);
    }
}

static void test_built_octets(void **state)
{
    static const struct {
        const char *name;
        struct tcp_options options;
        const char *expected;
    } rows[] = {
        {"none", {0}, ""},
        {"timestamps", {TS}, "0101080a 0102030405060708"},
        {"SYN", {MSS, SACK_OK, TS, WS(7)}, "020405b4 0402080a 0102030405060708 01030307"},
        {"SYN without timestamps", {MSS, SACK_OK, WS(0)}, "020405b4 04020101 01030300"},
        {"SACK", {.sack_count = 1, .sack = {{1, 2}}}, "0101050a 00000001 00000002"},
        {"four SACK blocks",
         {.sack_count = 4, .sack = {{1, 2}, {3, 4}, {5, 6}, {7, 8}}},
         "01010522 0000000100000002 0000000300000004 0000000500000006 0000000700000008"},
        {"the fourth SACK block does not fit",
         {TS, .sack_count = 4, .sack = {{1, 2}, {3, 4}, {5, 6}, {7, 8}}},
         "0101080a 0102030405060708 0101051a 0000000100000002 0000000300000004"
         "0000000500000006"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct tcp_header header = {.source_port = 0x0102,
                                    .destination_port = 0x0304,
                                    .sequence = 0x05060708,
                                    .acknowledgement = 0x090a0b0c,
                                    .window = 0x0f10,
                                    .checksum = 0xffff, /* not written */
                                    .urgent = 0x1314,
                                    .flags = TCP_ACK | TCP_PSH,
                                    .header_size = 99, /* not used */
                                    .options = rows[i].options};
        uint8_t expected[60], got[60];

        print_message("# case: %s\n", rows[i].name);
        uint32_t size = octets_from_hex("0102 0304 05060708 090a0b0c 5018 0f10 0000 1314", expected,
                                        sizeof(expected));
        size += octets_from_hex(rows[i].expected, expected + size, TCP_OPTIONS_SIZE_MAX);
        expected[12] = (uint8_t)(size / 4 << 4);
        memset(got, 0xa5, sizeof(got));
        assert_int_equal(size, tcp_build(&header, got));
        assert_memory_equal(expected, got, size);
    }
}

/* Goal: parse(build(x)) == x for every set of options and random numbers, within 60 octets, which
 * only cost SACK blocks. */
static void test_round_trip(void **state)
{
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 2);
    for (uint32_t round = 0; round < 16 * 5 * 50; round++) {
        struct tcp_header header, got;
        uint8_t octets[60];

        rng_fill(&rng, &header, sizeof(header));
        header.flags |= TCP_SYN;
        header.options.has_mss = round & 1;
        header.options.has_window_scale = round >> 1 & 1;
        header.options.has_sack_permitted = round >> 2 & 1;
        header.options.has_timestamps = round >> 3 & 1;
        header.options.sack_count = (uint8_t)(round / 16 % 5);
        uint32_t size = tcp_build(&header, octets);
        assert_true(size % 4 == 0 && size <= sizeof(octets));
        assert_int_equal(PACKET_OK, parse(octets, size, &got));
        assert_int_equal(size, got.header_size);
        assert_int_equal(header.source_port, got.source_port);
        assert_int_equal(header.destination_port, got.destination_port);
        assert_int_equal(header.sequence, got.sequence);
        assert_int_equal(header.acknowledgement, got.acknowledgement);
        assert_int_equal(header.window, got.window);
        assert_int_equal(header.urgent, got.urgent);
        assert_int_equal(header.flags, got.flags);
        assert_int_equal(0, got.checksum);
        if (got.options.sack_count < header.options.sack_count) {
            assert_true(size + 8 > sizeof(octets) || (got.options.sack_count == 0 && size > 48));
            header.options.sack_count = got.options.sack_count;
        }
        check_options(&header.options, &got.options);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_every_size),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_every_kind_and_size),
        cmocka_unit_test(test_timestamps_both_ways),
        cmocka_unit_test(test_built_octets),
        cmocka_unit_test(test_round_trip),
    };
    return cmocka_run_group_tests_name("wire_tcp_header", tests, NULL, NULL);
}

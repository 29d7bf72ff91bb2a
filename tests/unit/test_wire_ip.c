/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IPv4, IPv6 and UDP headers: every bound of every size, options and extension headers (HAZARDS
 * TC-14), truncation everywhere, and what is built is read again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/rng.h"
#include "dataplane/wire/format/packet.h"
#include "death.h"
#include "wire_octets.h"

/* Parse a copy of the octets; on failure the output must not have been touched. */
static enum packet_fault parse(uint8_t family, const uint8_t *octets, uint32_t size, uint32_t total,
                               bool is_checksum_good, struct ip_header *ret_header)
{
    struct span copy = octets_copy(octets, size);
    struct ip_header untouched;

    memset(ret_header, 0xa5, sizeof(*ret_header));
    memset(&untouched, 0xa5, sizeof(untouched));
    enum packet_fault fault = family == 4 ? ip4_parse(copy, total, is_checksum_good, ret_header)
                                          : ip6_parse(copy, total, ret_header);
    if (fault != PACKET_OK)
        assert_memory_equal(&untouched, ret_header, sizeof(untouched));
    octets_free(copy);
    return fault;
}

static void check_headers(const struct ip_header *expected, const struct ip_header *got)
{
    assert_int_equal(expected->family, got->family);
    assert_int_equal(expected->protocol, got->protocol);
    assert_int_equal(expected->ttl, got->ttl);
    assert_int_equal(expected->traffic_class, got->traffic_class);
    assert_int_equal(expected->header_size, got->header_size);
    assert_int_equal(expected->payload_size, got->payload_size);
    assert_int_equal(expected->identification, got->identification);
    assert_int_equal(expected->is_dont_fragment, got->is_dont_fragment);
    assert_int_equal(expected->has_options, got->has_options);
    assert_int_equal(expected->has_router_alert_or_route, got->has_router_alert_or_route);
    assert_memory_equal(expected->source, got->source, 16);
    assert_memory_equal(expected->destination, got->destination, 16);
}

/* ---- IPv4 ---- */

static void seal4(uint8_t *octets)
{
    uint16_t checksum;

    memset(octets + 10, 0, 2);
    checksum = wire_sum_finish(wire_sum(octets, (octets[0] & 0x0fu) * 4));
    memcpy(octets + 10, &checksum, 2);
}

/* 20 octets of header and 12 of payload. */
static void packet4(uint8_t octets[80])
{
    memset(octets, 0, 80);
    octets_from_hex("45 2e 0020 abcd 4000 40 06 0000 c0000201 c6336402", octets, 80);
    seal4(octets);
}

static void test_ip4_fields(void **state)
{
    uint8_t octets[80];
    struct ip_header header;

    (void)state;
    packet4(octets);
    assert_int_equal(PACKET_OK, parse(4, octets, 32, 32, false, &header));
    check_headers(&(struct ip_header){.family = 4,
                                      .protocol = 6,
                                      .ttl = 64,
                                      .traffic_class = 0x2e,
                                      .header_size = 20,
                                      .payload_size = 12,
                                      .identification = 0xabcd,
                                      .is_dont_fragment = true,
                                      .source = {192, 0, 2, 1},
                                      .destination = {198, 51, 100, 2}},
                  &header);
}

static void test_ip4_changes(void **state)
{
    static const struct {
        const char *name;
        uint32_t at, value /* 2 octets */, size, total;
        enum packet_fault fault;
    } rows[] = {
        {"padding of the frame", 2, 32, 46, 46, PACKET_OK},
        {"only the header is contiguous", 2, 32, 20, 32, PACKET_OK},
        {"total size is the frame's", 2, 46, 46, 46, PACKET_OK},
        {"total size one above the frame's", 2, 47, 46, 46, PACKET_SHORT},
        {"total size 65535", 2, 65535, 46, 46, PACKET_SHORT},
        {"total size 65535 in chains", 2, 65535, 46, 65535, PACKET_OK},
        {"total size is the header's", 2, 20, 46, 46, PACKET_OK},
        {"total size one below the header's", 2, 19, 46, 46, PACKET_MALFORMED},
        {"total size 0", 2, 0, 46, 46, PACKET_MALFORMED},
        {"version 0", 0, 0x0500, 46, 46, PACKET_UNSUPPORTED},
        {"version 5", 0, 0x5500, 46, 46, PACKET_UNSUPPORTED},
        {"version 6", 0, 0x6500, 46, 46, PACKET_UNSUPPORTED},
        {"header of 0 octets", 0, 0x4000, 46, 46, PACKET_MALFORMED},
        {"header of 16 octets", 0, 0x4400, 46, 46, PACKET_MALFORMED},
        {"header of 24 octets", 0, 0x4600, 46, 46, PACKET_OK},
        {"header of 32 octets is all of the packet", 0, 0x4800, 46, 46, PACKET_OK},
        {"header of 36 octets is more than the packet", 0, 0x4900, 46, 46, PACKET_MALFORMED},
        {"header of 60 octets is more than the packet", 0, 0x4f00, 60, 60, PACKET_MALFORMED},
        {"header of 32 octets, 31 contiguous", 0, 0x4800, 31, 46, PACKET_SHORT},
        {"header of 32 octets, 32 contiguous", 0, 0x4800, 32, 46, PACKET_OK},
        {"no flags", 6, 0x0000, 32, 32, PACKET_OK},
        {"reserved flag", 6, 0x8000, 32, 32, PACKET_OK},
        {"more fragments", 6, 0x2000, 32, 32, PACKET_FRAGMENT},
        {"more fragments, do not fragment", 6, 0x6000, 32, 32, PACKET_FRAGMENT},
        {"last fragment at 8", 6, 0x0001, 32, 32, PACKET_FRAGMENT},
        {"last fragment at 65528", 6, 0x1fff, 32, 32, PACKET_FRAGMENT},
        {"TTL 0", 8, 0x0006, 32, 32, PACKET_OK},
    };
    struct ip_header header;
    uint8_t octets[80];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# case: %s\n", rows[i].name);
        packet4(octets);
        store_be16(octets + rows[i].at, (uint16_t)rows[i].value);
        seal4(octets);
        assert_int_equal(rows[i].fault,
                         parse(4, octets, rows[i].size, rows[i].total, false, &header));
        if (rows[i].fault != PACKET_OK)
            continue;
        assert_int_equal((octets[0] & 0x0f) * 4, header.header_size);
        assert_int_equal(load_be16(octets + 2) - header.header_size, header.payload_size);
        assert_int_equal(header.header_size > 20, header.has_options);
    }
}

/* Goal: whatever is cut off, it is short; and one wrong bit in the header is never overlooked. */
static void test_ip4_truncated_and_flipped(void **state)
{
    struct ip_header header;
    uint8_t octets[80];

    (void)state;
    packet4(octets);
    for (uint32_t size = 0; size < 32; size++)
        assert_int_equal(PACKET_SHORT, parse(4, octets, size, size, false, &header));
    for (uint32_t bit = 0; bit < 8 * IP4_HEADER_SIZE; bit++) {
        octets[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(PACKET_OK, parse(4, octets, 32, 32, false, &header));
        octets[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    octets[8] ^= 1; /* the TTL: nothing but the checksum knows */
    assert_int_equal(PACKET_CHECKSUM, parse(4, octets, 32, 32, false, &header));
    assert_int_equal(PACKET_OK, parse(4, octets, 32, 32, true, &header));
}

static void test_ip4_options(void **state)
{
    static const struct {
        const char *name, *options; /* 4, 8 ... octets */
        enum packet_fault fault;
        bool has_route;
    } rows[] = {
        {"NOPs", "01010101", PACKET_OK, false},
        {"end, then anything", "00830300", PACKET_OK, false},
        {"record route", "0707 04 00000000 00", PACKET_OK, false},
        {"timestamp", "4408 0500 00000000", PACKET_OK, false},
        {"loose source route", "8307 04 c0000203 00", PACKET_OK, true},
        {"strict source route", "8907 04 c0000203 00", PACKET_OK, true},
        {"source route without an address", "8303 0400", PACKET_OK, true},
        {"source route behind NOPs", "010101 8303 04 0101", PACKET_OK, true},
        {"router alert", "9404 0000", PACKET_OK, true},
        {"size 0", "8300 0000", PACKET_MALFORMED, false},
        {"size 1", "8301 0000", PACKET_MALFORMED, false},
        {"size 2", "8302 0000", PACKET_OK, true},
        {"size of what is left", "8304 0000", PACKET_OK, true},
        {"size one above what is left", "8305 0000", PACKET_MALFORMED, false},
        {"size of what is left behind NOPs", "0101 0702", PACKET_OK, false},
        {"size one above what is left behind NOPs", "0101 0703", PACKET_MALFORMED, false},
        {"size 255", "07ff 0000", PACKET_MALFORMED, false},
        {"a type without a size at the end", "010101 07", PACKET_MALFORMED, false},
        {"40 octets of NOP",
         "01010101010101010101 01010101010101010101 01010101010101010101 01010101010101010101",
         PACKET_OK, false},
        {"source route at the end of 40 octets",
         "01010101010101010101 01010101010101010101 01010101010101010101 01010101010101 830304",
         PACKET_OK, true},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct ip_header header;
        uint8_t octets[80];

        print_message("# case: %s\n", rows[i].name);
        packet4(octets);
        uint32_t size = 20 + octets_from_hex(rows[i].options, octets + 20, 40);
        assert_int_equal(0, size % 4);
        octets[0] = (uint8_t)(0x40 | size / 4);
        store_be16(octets + 2, (uint16_t)size);
        seal4(octets);
        assert_int_equal(rows[i].fault, parse(4, octets, size, size, false, &header));
        if (rows[i].fault != PACKET_OK)
            continue;
        assert_true(header.has_options);
        assert_int_equal(rows[i].has_route, header.has_router_alert_or_route);
        assert_int_equal(0, header.payload_size);
    }
}

/* ---- IPv6 ---- */

#define ADDRESSES6 "20010db8000000000000000000000001 20010db8000000000000000000000002"

static uint32_t packet6(uint8_t next, const char *payload, uint8_t *ret_octets, uint32_t max)
{
    uint32_t size = octets_from_hex("62e0 0000 0000 00 40" ADDRESSES6, ret_octets, max);

    size += octets_from_hex(payload, ret_octets + size, max - size);
    ret_octets[6] = next;
    store_be16(ret_octets + 4, (uint16_t)(size - IP6_HEADER_SIZE));
    return size;
}

static void test_ip6_sizes(void **state)
{
    static const struct {
        const char *name;
        uint32_t payload, size, total;
        enum packet_fault fault;
    } rows[] = {
        {"exact", 8, 48, 48, PACKET_OK},
        {"padding of the frame", 7, 48, 48, PACKET_OK},
        {"only the header is contiguous", 8, 40, 48, PACKET_OK},
        {"one octet is missing", 9, 48, 48, PACKET_SHORT},
        {"65535 in chains", 65535, 48, 40 + 65535, PACKET_OK},
        {"65535 in chains, one octet is missing", 65535, 48, 40 + 65534, PACKET_SHORT},
        {"no payload", 0, 40, 40, PACKET_OK},
        {"no payload in a padded frame", 0, 48, 48, PACKET_OK},
        {"header one octet short", 0, 39, 39, PACKET_SHORT},
        {"header one octet short in the first buffer", 8, 39, 48, PACKET_SHORT},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct ip_header header;
        uint8_t octets[64];

        print_message("# case: %s\n", rows[i].name);
        packet6(6, "0102030405060708", octets, sizeof(octets));
        store_be16(octets + 4, (uint16_t)rows[i].payload);
        assert_int_equal(rows[i].fault,
                         parse(6, octets, rows[i].size, rows[i].total, false, &header));
        if (rows[i].fault != PACKET_OK)
            continue;
        check_headers(&(struct ip_header){.family = 6,
                                          .protocol = 6,
                                          .ttl = 64,
                                          .traffic_class = 0x2e,
                                          .header_size = 40,
                                          .payload_size = (uint16_t)rows[i].payload,
                                          .source = {0x20, 1, 0xd, 0xb8, [15] = 1},
                                          .destination = {0x20, 1, 0xd, 0xb8, [15] = 2}},
                      &header);
    }
}

static void test_ip6_version(void **state)
{
    struct ip_header header;
    uint8_t octets[64];
    uint32_t size = packet6(6, "0102030405060708", octets, sizeof(octets));

    (void)state;
    for (uint32_t version = 0; version < 16; version++) {
        octets[0] = (uint8_t)(version << 4 | 2);
        assert_int_equal(version == 6 ? PACKET_OK : PACKET_UNSUPPORTED,
                         parse(6, octets, size, size, false, &header));
    }
}

#define HBH  0
#define ROUT 43
#define FRAG 44
#define DEST 60
#define PAD6 "0104 00000000" /* fills the first 8 octets */

static void test_ip6_extensions(void **state)
{
    static const struct {
        const char *name;
        uint8_t next;
        const char *payload;
        enum packet_fault fault;
        uint8_t protocol;
        uint16_t extensions;
        bool has_alert_or_route;
    } rows[] = {
        {"hop-by-hop", HBH, "06 00" PAD6 "aabb", PACKET_OK, 6, 8, false},
        {"destination options", DEST, "06 00" PAD6 "aabb", PACKET_OK, 6, 8, false},
        {"hop-by-hop, then destination options", HBH, "3c 00" PAD6 "11 00" PAD6 "aabb", PACKET_OK,
         17, 16, false},
        {"hop-by-hop twice", HBH, "00 00" PAD6 "06 00" PAD6, PACKET_MALFORMED, 0, 0, false},
        {"hop-by-hop behind destination options", DEST, "00 00" PAD6 "06 00" PAD6, PACKET_MALFORMED,
         0, 0, false},
        {"nothing behind the extension", DEST, "06 00" PAD6, PACKET_OK, 6, 8, false},
        {"an octet is missing", DEST, "06 00 0103 000000", PACKET_SHORT, 0, 0, false},
        {"no extension header at all", DEST, "", PACKET_SHORT, 0, 0, false},
        {"16 octets, 15 are there", DEST, "06 01" PAD6 "00000000000000", PACKET_SHORT, 0, 0, false},
        {"16 octets", DEST, "06 01" PAD6 "0000000000000000", PACKET_OK, 6, 16, false},
        {"routing, type 0", ROUT, "06 02 00 01 00000000 00000000000000000000000000000000 aabb",
         PACKET_OK, 6, 24, true},
        {"routing, nothing left", ROUT, "06 00 00 00 00000000", PACKET_OK, 6, 8, true},
        {"routing behind hop-by-hop", HBH, "2b 00" PAD6 "06 00 00 00 00000000", PACKET_OK, 6, 16,
         true},
        {"routing, cut off", ROUT, "06 01 00 00 00000000", PACKET_SHORT, 0, 0, true},
        {"atomic fragment", FRAG, "06 00 0000 12345678 aabb", PACKET_OK, 6, 8, false},
        {"atomic fragment, reserved octet and bits", FRAG, "06 ff 0006 12345678 aabb", PACKET_OK, 6,
         8, false},
        {"first fragment", FRAG, "06 00 0001 12345678 aabb", PACKET_FRAGMENT, 0, 0, false},
        {"last fragment", FRAG, "06 00 0008 12345678 aabb", PACKET_FRAGMENT, 0, 0, false},
        {"fragment at the end", FRAG, "06 00 fff8 12345678 aabb", PACKET_FRAGMENT, 0, 0, false},
        {"fragment header cut off", FRAG, "06 00 0000 123456", PACKET_SHORT, 0, 0, false},
        {"router alert", HBH, "06 00 0502 0000 0100", PACKET_OK, 6, 8, true},
        {"eight headers", DEST,
         "3c00" PAD6 "3c00" PAD6 "3c00" PAD6 "3c00" PAD6 "3c00" PAD6 "3c00" PAD6 "3c00" PAD6
         "0600" PAD6,
         PACKET_OK, 6, 64, false},
        {"nine headers", DEST,
         "3c00" PAD6 "3c00" PAD6 "3c00" PAD6 "3c00" PAD6 "3c00" PAD6 "3c00" PAD6 "3c00" PAD6
         "3c00" PAD6 "0600" PAD6,
         PACKET_UNSUPPORTED, 0, 0, false},
        {"unknown option to be skipped", DEST, "06 00 1e04 00000000", PACKET_OK, 6, 8, false},
        {"unknown option to drop for (01)", DEST, "06 00 5e04 00000000", PACKET_UNSUPPORTED, 0, 0,
         false},
        {"unknown option to drop for (10)", DEST, "06 00 9e04 00000000", PACKET_UNSUPPORTED, 0, 0,
         false},
        {"unknown option to drop for (11)", DEST, "06 00 de04 00000000", PACKET_UNSUPPORTED, 0, 0,
         false},
        {"jumbo payload", HBH, "06 00 c204 00010000", PACKET_UNSUPPORTED, 0, 0, false},
        {"home address", DEST, "06 02 0102 0000 c910" ADDRESSES6, PACKET_UNSUPPORTED, 0, 0, false},
        {"six times Pad1", DEST, "06 00 000000000000", PACKET_OK, 6, 8, false},
        {"an option of exactly what is left", DEST, "06 00 00 1e03 000000", PACKET_OK, 6, 8, false},
        {"an option one octet longer", DEST, "06 00 00 1e04 000000 aabb", PACKET_MALFORMED, 0, 0,
         false},
        {"PadN of 255 octets", DEST, "06 00 01ff 00000000 aabb", PACKET_MALFORMED, 0, 0, false},
        {"an option without a size", DEST, "06 00 0000000000 1e", PACKET_MALFORMED, 0, 0, false},
        {"an option of size 0 at the end", DEST, "06 00 00000000 1e00", PACKET_OK, 6, 8, false},
        {"encrypted", 50, "0011223344556677", PACKET_OK, 50, 0, false},
        {"authenticated", 51, "0604 0000 00112233", PACKET_OK, 51, 0, false},
        {"no next header", 59, "0011223344556677", PACKET_OK, 59, 0, false},
        {"nothing behind destination options", DEST, "3b 00" PAD6, PACKET_OK, 59, 8, false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct ip_header header;
        uint8_t octets[200];

        print_message("# case: %s\n", rows[i].name);
        uint32_t size = packet6(rows[i].next, rows[i].payload, octets, sizeof(octets));
        assert_int_equal(rows[i].fault, parse(6, octets, size, size, false, &header));
        if (rows[i].fault != PACKET_OK)
            continue;
        assert_int_equal(rows[i].protocol, header.protocol);
        assert_int_equal(40 + rows[i].extensions, header.header_size);
        assert_int_equal(size - header.header_size, header.payload_size);
        assert_int_equal(rows[i].extensions > 0, header.has_options);
        assert_int_equal(rows[i].has_alert_or_route, header.has_router_alert_or_route);
        /* Cut anywhere in the extensions, by the first buffer or by the payload size: short. */
        for (uint32_t cut = 40; cut < header.header_size; cut++) {
            struct ip_header cut_header;
            assert_int_equal(PACKET_SHORT, parse(6, octets, cut, size, false, &cut_header));
            store_be16(octets + 4, (uint16_t)(cut - 40));
            assert_int_equal(PACKET_SHORT, parse(6, octets, size, size, false, &cut_header));
            store_be16(octets + 4, (uint16_t)(size - 40));
        }
    }
}

/* Goal: extension headers end at 256 octets, in one header or in several. */
static void test_ip6_extension_limit(void **state)
{
    static const struct {
        const char *name;
        uint8_t first, second; /* sizes, in units of 8 octets behind the first 8 */
        enum packet_fault fault;
    } rows[] = {
        {"8 and 248", 0, 30, PACKET_OK},          {"8 and 256", 0, 31, PACKET_UNSUPPORTED},
        {"128 and 128", 15, 15, PACKET_OK},       {"136 and 128", 16, 15, PACKET_UNSUPPORTED},
        {"256 and 8", 31, 0, PACKET_UNSUPPORTED}, {"2048 at once", 255, 0, PACKET_UNSUPPORTED},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct ip_header header;
        uint8_t octets[40 + 2 * 2048 + 8];

        print_message("# case: %s\n", rows[i].name);
        memset(octets, 0, sizeof(octets)); /* Pad1 all over */
        packet6(DEST, "", octets, sizeof(octets));
        store_be16(octets + 4, sizeof(octets) - 40);
        octets[40] = DEST;
        octets[41] = rows[i].first;
        uint32_t second = 48 + 8u * rows[i].first;
        octets[second] = 6;
        octets[second + 1] = rows[i].second;
        assert_int_equal(rows[i].fault,
                         parse(6, octets, sizeof(octets), sizeof(octets), false, &header));
        if (rows[i].fault == PACKET_OK)
            assert_int_equal(40 + 256, header.header_size);
    }
}

static void test_ip_round_trip(void **state)
{
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 1);
    for (uint32_t round = 0; round < 4000; round++) {
        uint8_t octets[IP6_HEADER_SIZE], family = round % 2 == 0 ? 4 : 6;
        uint32_t header_size = family == 4 ? 20 : 40;
        struct ip_header got,
            header = {
                .family = family,
                .protocol = round % 3 == 0 ? IP_PROTOCOL_TCP : IP_PROTOCOL_UDP,
                .ttl = (uint8_t)rng_u32(&rng),
                .traffic_class = (uint8_t)rng_u32(&rng),
                .header_size = (uint16_t)header_size,
                .payload_size = (uint16_t)rng_below(&rng, family == 4 ? 65516 : 65536),
                .identification = family == 4 ? (uint16_t)rng_u32(&rng) : 0,
                .is_dont_fragment = family == 4 && round % 4 < 2,
            };

        rng_fill(&rng, header.source, family == 4 ? 4 : 16);
        rng_fill(&rng, header.destination, family == 4 ? 4 : 16);
        memset(octets, 0xff, sizeof(octets));
        bool with_checksum = round % 5 != 0;
        if (family == 4)
            ip4_build(&header, with_checksum, octets);
        else
            ip6_build(&header, octets);
        assert_int_equal(PACKET_OK, parse(family, octets, header_size,
                                          header_size + header.payload_size, !with_checksum, &got));
        check_headers(&header, &got);
        if (family == 4 && !with_checksum)
            assert_int_equal(0, load_be16(octets + 10));
        if (family == 6)
            assert_int_equal(0, load_be32(octets) & 0xfffff); /* no flow label */
    }
}

static void build_larger_than_a_packet(void *header)
{
    uint8_t octets[IP4_HEADER_SIZE];

    ip4_build(header, false, octets);
}

/* Goal: the largest packet is built; a larger one is a bug of ours and never a wrong size. */
static void test_ip4_largest(void **state)
{
    struct ip_header got, header = {.family = 4, .payload_size = 65515};
    uint8_t octets[IP4_HEADER_SIZE];

    (void)state;
    ip4_build(&header, true, octets);
    assert_int_equal(65535, load_be16(octets + 2));
    assert_int_equal(PACKET_OK, parse(4, octets, 20, 65535, false, &got));
    assert_int_equal(65515, got.payload_size);
    header.payload_size = 65516;
    assert_true(death_is_caused_by(build_larger_than_a_packet, &header));
}

/* ---- UDP ---- */

static void test_udp(void **state)
{
    static const struct {
        const char *name;
        uint16_t size;
        uint32_t contiguous, payload_size;
        enum packet_fault fault;
    } rows[] = {
        {"exact", 20, 20, 20, PACKET_OK},
        {"payload not contiguous", 20, 8, 20, PACKET_OK},
        {"octets behind it", 19, 20, 20, PACKET_OK},
        {"one octet is missing", 21, 20, 20, PACKET_SHORT},
        {"empty", 8, 8, 8, PACKET_OK},
        {"empty, in a longer packet", 8, 20, 20, PACKET_OK},
        {"size below the header's", 7, 20, 20, PACKET_MALFORMED},
        {"size 0", 0, 20, 20, PACKET_MALFORMED},
        {"size 65535", 65535, 20, 20, PACKET_SHORT},
        {"size 65535 in chains", 65535, 20, 65535, PACKET_OK},
        {"header one octet short", 8, 7, 7, PACKET_SHORT},
        {"nothing", 8, 0, 0, PACKET_SHORT},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct udp_header header = {0x1234, 53, rows[i].size, 0xabcd}, got = {1, 2, 3, 4};
        uint8_t octets[20] = {0};

        print_message("# case: %s\n", rows[i].name);
        udp_build(&header, octets);
        struct span copy = octets_copy(octets, rows[i].contiguous);
        assert_int_equal(rows[i].fault, udp_parse(copy, rows[i].payload_size, &got));
        if (rows[i].fault != PACKET_OK)
            header = (struct udp_header){1, 2, 3, 4};
        assert_memory_equal(&header, &got, sizeof(got));
        octets_free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ip4_fields),
        cmocka_unit_test(test_ip4_changes),
        cmocka_unit_test(test_ip4_truncated_and_flipped),
        cmocka_unit_test(test_ip4_options),
        cmocka_unit_test(test_ip6_sizes),
        cmocka_unit_test(test_ip6_version),
        cmocka_unit_test(test_ip6_extensions),
        cmocka_unit_test(test_ip6_extension_limit),
        cmocka_unit_test(test_ip_round_trip),
        cmocka_unit_test(test_ip4_largest),
        cmocka_unit_test(test_udp),
    };
    return cmocka_run_group_tests_name("wire_ip", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Internet checksum against its definition: every variant, at every alignment, for sizes around
 * every block, over octets that carry; sums in parts; and the numbers of RFC 1071.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "dataplane/wire/format/checksum.h"

/* RFC 1071 section 1, word by word: the checksum as the two octets of the header. */
static uint16_t checksum_of(const uint8_t *octets, uint32_t size)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < size; i++)
        sum += (uint32_t)octets[i] << (i % 2 == 0 ? 8 : 0);
    while (sum > UINT16_MAX)
        sum = (sum & UINT16_MAX) + (sum >> 16);
    return (uint16_t)~sum;
}

/* What wire_sum_finish() gives, read as a number. */
static uint16_t finish(uint64_t sum)
{
    uint16_t stored = wire_sum_finish(sum);

    return load_be16((const uint8_t *)&stored);
}

enum fill { FILL_RANDOM, FILL_ONES, FILL_ZEROS, FILL_SPARSE, FILL_COUNT };

static void fill_octets(uint8_t *octets, uint32_t size, enum fill fill, struct rng *rng)
{
    rng_fill(rng, octets, size);
    for (uint32_t i = 0; i < size; i++) {
        if (fill == FILL_ONES || (fill == FILL_SPARSE && octets[i] < 0x80))
            octets[i] = 0xff;
        else if (fill == FILL_ZEROS)
            octets[i] = 0;
    }
}

/* A buffer of exactly `size` octets that begins `shift` octets off the alignment, so that reading
 * beyond either end is seen by the sanitizer. */
static uint8_t *octets_at(uint8_t **ret_block, uint32_t shift, uint32_t size)
{
    *ret_block = malloc(shift + size + 1); /* +1: never of size 0 */
    assert_non_null(*ret_block);
    return *ret_block + 1 + shift;
}

static void check_sums(const uint8_t *octets, uint32_t size, uint16_t expected)
{
    uint8_t *block, *copy = octets_at(&block, 0, size);

    assert_int_equal(expected, finish(wire_sum(octets, size)));
    assert_int_equal(expected, finish(wire_sum_portable(octets, size)));
    memset(copy, 0x5a, size);
    assert_int_equal(expected, finish(wire_sum_copy(copy, octets, size)));
    assert_memory_equal(octets, copy, size);
    memset(copy, 0x5a, size);
    assert_int_equal(expected, finish(wire_sum_copy_portable(copy, octets, size)));
    assert_memory_equal(octets, copy, size);
    if (wire_sum_has_avx2()) {
        assert_int_equal(expected, finish(wire_sum_avx2(octets, size)));
        memset(copy, 0x5a, size);
        assert_int_equal(expected, finish(wire_sum_copy_avx2(copy, octets, size)));
        assert_memory_equal(octets, copy, size);
    }
    free(block);
}

static void test_all_variants_are_the_definition(void **state)
{
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 1);
    for (uint32_t fill = 0; fill < FILL_COUNT; fill++) {
        for (uint32_t size = 0; size <= 300; size++) {
            for (uint32_t shift = 0; shift < 4; shift++) {
                uint8_t *block, *octets = octets_at(&block, shift * 3, size);
                fill_octets(octets, size, fill, &rng);
                check_sums(octets, size, checksum_of(octets, size));
                free(block);
            }
        }
    }
}

static void test_large_sizes(void **state)
{
    static const uint32_t sizes[] = {1447, 1448, 1449, 9000, 65535, 65536, 1000003};
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 2);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        for (uint32_t fill = 0; fill < FILL_COUNT; fill++) {
            uint8_t *block, *octets = octets_at(&block, (uint32_t)i, sizes[i]);
            fill_octets(octets, sizes[i], fill, &rng);
            check_sums(octets, sizes[i], checksum_of(octets, sizes[i]));
            free(block);
        }
    }
}

/* Goal: a datagram in parts, cut anywhere, has the checksum of the whole. */
static void test_sum_of_parts(void **state)
{
    uint8_t octets[500];
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 3);
    for (uint32_t round = 0; round < 3000; round++) {
        uint32_t size = rng_below(&rng, sizeof(octets) + 1), at = 0;
        uint64_t sum = 0;
        fill_octets(octets, size, round % FILL_COUNT, &rng);
        while (at < size) {
            uint32_t part = 1 + rng_below(&rng, size - at);
            uint64_t part_sum = wire_sum(octets + at, part);
            sum += at % 2 == 0 ? part_sum : wire_sum_swap(part_sum);
            at += part;
        }
        assert_int_equal(checksum_of(octets, size), finish(sum));
    }
}

/* Goal: no sum that callers can form overflows: many parts of the worst octets. */
static void test_many_parts_do_not_overflow(void **state)
{
    enum { PARTS = 100000, SIZE = 9001 };
    static uint8_t ones[SIZE];
    uint64_t sum = 0, part;

    (void)state;
    memset(ones, 0xff, sizeof(ones));
    part = wire_sum(ones, SIZE);
    assert_true(part < UINT64_C(1) << 34);
    assert_true(wire_sum_swap(part) < UINT64_C(1) << 42);
    /* The swap of the largest number that there is. */
    assert_int_equal(finish(UINT64_MAX), finish(wire_sum_swap(UINT64_MAX)));
    for (uint32_t i = 0; i < PARTS; i++)
        sum += i % 2 == 0 ? part : wire_sum_swap(part);
    /* Two parts together are words of ones and nothing else. */
    assert_int_equal(0, finish(sum));
}

/* RFC 1071 section 3: 00 01 f2 03 f4 f5 f6 f7 sums to ddf2. */
static void test_example_of_the_rfc(void **state)
{
    static const uint8_t octets[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};

    (void)state;
    assert_int_equal(0xddf2, (uint16_t)~finish(wire_sum(octets, sizeof(octets))));
    /* The same in two parts of odd size, as in the RFC's table. */
    assert_int_equal(
        0xddf2, (uint16_t)~finish(wire_sum(octets, 3) + wire_sum_swap(wire_sum(octets + 3, 5))));
}

/* Goal: data with its checksum in place sums to zero, and one wrong bit anywhere is found. */
static void test_verification(void **state)
{
    uint8_t octets[101];
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 4);
    rng_fill(&rng, octets, sizeof(octets));
    memset(octets + 16, 0, 2);
    uint16_t checksum = wire_sum_finish(wire_sum(octets, sizeof(octets)));
    memcpy(octets + 16, &checksum, 2);
    assert_int_equal(0, wire_sum_finish(wire_sum(octets, sizeof(octets))));
    for (uint32_t bit = 0; bit < 8 * sizeof(octets); bit++) {
        octets[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(0, wire_sum_finish(wire_sum(octets, sizeof(octets))));
        octets[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

/* The pseudo-header laid out as the RFCs draw it. */
static void test_pseudo_header(void **state)
{
    uint8_t source[16], destination[16], drawn[40];
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 5);
    for (uint32_t round = 0; round < 200; round++) {
        uint32_t size = rng_below(&rng, 70000);
        uint8_t protocol = (uint8_t)rng_u32(&rng);

        rng_fill(&rng, source, sizeof(source));
        rng_fill(&rng, destination, sizeof(destination));
        memcpy(drawn, source, 4);
        memcpy(drawn + 4, destination, 4);
        drawn[8] = 0;
        drawn[9] = protocol;
        store_be16(drawn + 10, (uint16_t)size);
        assert_int_equal(checksum_of(drawn, 12),
                         finish(wire_sum_pseudo(4, source, destination, protocol, size & 0xffff)));
        memcpy(drawn, source, 16);
        memcpy(drawn + 16, destination, 16);
        store_be32(drawn + 32, size);
        store_be32(drawn + 36, protocol);
        assert_int_equal(checksum_of(drawn, 40),
                         finish(wire_sum_pseudo(6, source, destination, protocol, size)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_variants_are_the_definition),
        cmocka_unit_test(test_large_sizes),
        cmocka_unit_test(test_sum_of_parts),
        cmocka_unit_test(test_many_parts_do_not_overflow),
        cmocka_unit_test(test_example_of_the_rfc),
        cmocka_unit_test(test_verification),
        cmocka_unit_test(test_pseudo_header),
    };
    return cmocka_run_group_tests_name("wire_checksum", tests, NULL, NULL);
}

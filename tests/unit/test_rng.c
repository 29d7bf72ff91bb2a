/* SPDX-License-Identifier: Apache-2.0 */
/* The generator: the RFC's block, streams that depend on the seed alone, nothing left behind in the
 * state, and no bias. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "death.h"

/* RFC 8439 section 2.3.2, and appendix A.1 test vector 1. */
static void test_block_of_the_rfc(void **state)
{
    static const uint32_t key[8] = {0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c,
                                    0x13121110, 0x17161514, 0x1b1a1918, 0x1f1e1d1c};
    static const uint32_t nonce[3] = {0x09000000, 0x4a000000, 0x00000000};
    static const uint8_t expected[64] = {
        0x10, 0xf1, 0xe7, 0xe4, 0xd1, 0x3b, 0x59, 0x15, 0x50, 0x0f, 0xdd, 0x1f, 0xa3,
        0x20, 0x71, 0xc4, 0xc7, 0xd1, 0xf4, 0xc7, 0x33, 0xc0, 0x68, 0x03, 0x04, 0x22,
        0xaa, 0x9a, 0xc3, 0xd4, 0x6c, 0x4e, 0xd2, 0x82, 0x64, 0x46, 0x07, 0x9f, 0xaa,
        0x09, 0x14, 0xc2, 0xd7, 0x05, 0xd9, 0x8b, 0x02, 0xa2, 0xb5, 0x12, 0x9c, 0xd1,
        0xde, 0x16, 0x4e, 0xb9, 0xcb, 0xd0, 0x83, 0xe8, 0xa2, 0x50, 0x3c, 0x4e};
    static const uint32_t zero[8] = {0};
    static const uint8_t expected_of_zero[16] = {0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90,
                                                 0x40, 0x5d, 0x6a, 0xe5, 0x53, 0x86, 0xbd, 0x28};
    uint8_t block[64];

    (void)state;
    rng_chacha20_block(key, 1, nonce, block);
    assert_memory_equal(expected, block, sizeof(expected));
    rng_chacha20_block(zero, 0, zero, block);
    assert_memory_equal(expected_of_zero, block, sizeof(expected_of_zero));
}

/* Goal: recorded seeds stay good. The first output of seed 0 is octets 32.. of the zero key's first
 * block (the first 32 become the next key): appendix A.1 test vector 1 again. */
static void test_stream_of_a_seed_is_fixed(void **state)
{
    static const uint8_t expected[8] = {0xda, 0x41, 0x59, 0x7c, 0x51, 0x57, 0x48, 0x8d};
    struct rng rng;
    uint8_t got[8];

    (void)state;
    rng_init_seed(&rng, 0);
    rng_fill(&rng, got, sizeof(got));
    assert_memory_equal(expected, got, sizeof(expected));
}

/* Goal: the sizes of the calls do not change the stream, and different seeds differ. */
static void test_stream_is_a_function_of_the_seed(void **state)
{
    uint8_t whole[2000], pieces[2000], other[2000];
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 42);
    rng_fill(&rng, whole, sizeof(whole));
    rng_init_seed(&rng, 42);
    for (uint32_t at = 0, size = 1; at < sizeof(pieces); at += size, size = size % 300 + 7) {
        if (size > sizeof(pieces) - at)
            size = (uint32_t)sizeof(pieces) - at;
        rng_fill(&rng, pieces + at, size);
    }
    assert_memory_equal(whole, pieces, sizeof(whole));
    rng_init_seed(&rng, UINT64_C(42) << 32);
    rng_fill(&rng, other, sizeof(other));
    assert_memory_not_equal(whole, other, 32);

    struct rng first, second;
    assert_int_equal(ERR_OK, rng_init_system(&first));
    assert_int_equal(ERR_OK, rng_init_system(&second));
    assert_true(rng_u64(&first) != rng_u64(&second));
}

/* Goal: neither what was handed out nor a second copy of the key is in the state afterwards. */
static void test_output_is_erased(void **state)
{
    struct rng rng;
    uint8_t got[16];

    (void)state;
    rng_init_seed(&rng, 1);
    for (int i = 0; i < 100; i++) {
        rng_fill(&rng, got, sizeof(got));
        for (size_t at = 0; at + sizeof(got) <= sizeof(rng); at++)
            assert_memory_not_equal(got, (const uint8_t *)&rng + at, sizeof(got));
        for (size_t at = 0; at + sizeof(rng.key) <= sizeof(rng.block); at++)
            assert_memory_not_equal(rng.key, rng.block + at, sizeof(rng.key));
    }
}

/* Goal: rng_below() is uniform. With bound 3 * 2^30 a plain remainder would give the lowest third
 * half of all draws, a plain multiply-and-shift would favour every third value. */
static void test_below_is_unbiased(void **state)
{
    enum { DRAWS = 60000, BOUND = 6 };
    const uint32_t wide = UINT32_C(3) << 30;
    uint32_t thirds[3] = {0}, remainders[3] = {0}, faces[BOUND] = {0};
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 7);
    for (uint32_t i = 0; i < DRAWS; i++) {
        uint32_t value = rng_below(&rng, wide);

        assert_true(value < wide);
        thirds[value >> 30]++;
        remainders[value % 3]++;
        faces[rng_below(&rng, BOUND)]++;
    }
    for (uint32_t i = 0; i < 3; i++) { /* sigma is 115 */
        assert_in_range(thirds[i], DRAWS / 3 - 600, DRAWS / 3 + 600);
        assert_in_range(remainders[i], DRAWS / 3 - 600, DRAWS / 3 + 600);
    }
    for (uint32_t i = 0; i < BOUND; i++) /* sigma is 91 */
        assert_in_range(faces[i], DRAWS / BOUND - 500, DRAWS / BOUND + 500);
    assert_int_equal(0, rng_below(&rng, 1));
}

static void draw_below_zero(void *context)
{
    (void)rng_below(context, 0);
}

static void test_bound_zero_is_a_bug(void **state)
{
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 1);
    assert_true(death_is_caused_by(draw_below_zero, &rng));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_block_of_the_rfc),
        cmocka_unit_test(test_stream_of_a_seed_is_fixed),
        cmocka_unit_test(test_stream_is_a_function_of_the_seed),
        cmocka_unit_test(test_output_is_erased),
        cmocka_unit_test(test_below_is_unbiased),
        cmocka_unit_test(test_bound_zero_is_a_bug),
    };
    return cmocka_run_group_tests_name("rng", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Internet checksum for processors with AVX2: the loop of checksum.c over four 64-bit words at
 * once, twice unrolled. The lanes stay independent: each keeps the sum of its words modulo 2^64 and
 * of their upper halves, and is reduced by itself. What is left below 64 octets goes to the
 * portable loop; 64 is even, so it needs no swap.
 *
 * Compiled for AVX2 by function attribute, entered only after wire_sum_has_avx2() said yes.
 */
#include "dataplane/wire/format/checksum.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define WITH_AVX2 __attribute__((target("avx2")))
#define BLOCK     64u

bool wire_sum_has_avx2(void)
{
    return __builtin_cpu_supports("avx2");
}

struct lanes {
    __m256i whole[2], high[2];
};

static inline WITH_AVX2 __attribute__((always_inline)) void lanes_add(struct lanes *lanes,
                                                                      __m256i first, __m256i second)
{
    lanes->whole[0] = _mm256_add_epi64(lanes->whole[0], first);
    lanes->high[0] = _mm256_add_epi64(lanes->high[0], _mm256_srli_epi64(first, 32));
    lanes->whole[1] = _mm256_add_epi64(lanes->whole[1], second);
    lanes->high[1] = _mm256_add_epi64(lanes->high[1], _mm256_srli_epi64(second, 32));
}

static inline WITH_AVX2 __attribute__((always_inline)) uint64_t
lanes_reduce(const struct lanes *lanes)
{
    __m256i whole = _mm256_add_epi64(lanes->whole[0], lanes->whole[1]);
    __m256i high = _mm256_add_epi64(lanes->high[0], lanes->high[1]);
    __m256i low = _mm256_sub_epi64(whole, _mm256_slli_epi64(high, 32));
    __m256i sum = _mm256_add_epi64(low, high);
    __m128i half = _mm_add_epi64(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));

    return (uint64_t)_mm_cvtsi128_si64(half) +
           (uint64_t)_mm_cvtsi128_si64(_mm_unpackhi_epi64(half, half));
}

static inline WITH_AVX2 __attribute__((always_inline)) __m256i load(const uint8_t *octets)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)octets);
}

static inline WITH_AVX2 __attribute__((always_inline)) void store(uint8_t *ret_octets,
                                                                  __m256i value)
{
    _mm256_storeu_si256((__m256i *)(void *)ret_octets, value);
}

WITH_AVX2 uint64_t wire_sum_avx2(const uint8_t *octets, uint32_t size)
{
    struct lanes lanes = {0};

    for (; size >= BLOCK; octets += BLOCK, size -= BLOCK)
        lanes_add(&lanes, load(octets), load(octets + 32));
    return wire_sum_fold32(lanes_reduce(&lanes)) + wire_sum_portable(octets, size);
}

WITH_AVX2 uint64_t wire_sum_copy_avx2(uint8_t *ret_octets, const uint8_t *octets, uint32_t size)
{
    struct lanes lanes = {0};

    for (; size >= BLOCK; octets += BLOCK, ret_octets += BLOCK, size -= BLOCK) {
        __m256i first = load(octets), second = load(octets + 32);
        store(ret_octets, first);
        store(ret_octets + 32, second);
        lanes_add(&lanes, first, second);
    }
    return wire_sum_fold32(lanes_reduce(&lanes)) + wire_sum_copy_portable(ret_octets, octets, size);
}

#else

bool wire_sum_has_avx2(void)
{
    return false;
}

uint64_t wire_sum_avx2(const uint8_t *octets, uint32_t size)
{
    (void)octets, (void)size;
    CHECK(false); /* wire_sum_has_avx2() said no */
    return 0;
}

uint64_t wire_sum_copy_avx2(uint8_t *ret_octets, const uint8_t *octets, uint32_t size)
{
    (void)ret_octets, (void)octets, (void)size;
    CHECK(false); /* wire_sum_has_avx2() said no */
    return 0;
}

#endif

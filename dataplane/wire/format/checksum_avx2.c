/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Internet checksum for processors with AVX2: 16 words at once.
 *
 * There is one instruction that multiplies 16 signed words and adds them in pairs to 32 bits. So
 * the words are made signed by turning their highest bit, which takes 2^15 from each, multiplied by
 * one, and added up; BIAS for every vector puts back what was taken. A lane of 32 bits moves by at
 * most 2^16 for each vector, and all lanes together hold a chunk.
 *
 * What is left below a vector is taken with the octets before it, which are then masked out: the
 * last vector ends where the octets end. An odd octet at the end is a word by itself, so that
 * vectors begin at even places.
 *
 * Compiled for AVX2 by function attribute, entered only after wire_sum_has_avx2() said yes.
 * Limits: CHUNK octets in one go: sums stay below 2^31. Less than a vector is the portable loop's.
 */
#include "dataplane/wire/format/checksum.h"

#if defined(__x86_64__)
#include <immintrin.h>

/* Loads in two halves are what gcc would tune for processors before AVX2. */
#if defined(__clang__)
#define WITH_AVX2 __attribute__((target("avx2")))
#else
#define WITH_AVX2 __attribute__((target("avx2,tune=haswell")))
#endif
#define INLINE inline WITH_AVX2 __attribute__((always_inline))
#define VECTOR 32u
#define BLOCK  (4 * VECTOR)
#define CHUNK  65536u
#define BIAS   ((uint64_t)VECTOR / 2 << 15)

/* From octet n on: what keeps the last n octets of a vector. */
static const uint64_t masks[2 * VECTOR / sizeof(uint64_t)] = {
    [4] = UINT64_MAX, [5] = UINT64_MAX, [6] = UINT64_MAX, [7] = UINT64_MAX};

bool wire_sum_has_avx2(void)
{
    return __builtin_cpu_supports("avx2");
}

static INLINE __m256i load(const uint8_t *octets)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)octets);
}

static INLINE void store(uint8_t *ret_octets, __m256i value)
{
    _mm256_storeu_si256((__m256i *)(void *)ret_octets, value);
}

/* Pairs of words added to lanes; biased. */
static INLINE __m256i lanes_add(__m256i lanes, __m256i words)
{
    __m256i as_signed = _mm256_xor_si256(words, _mm256_set1_epi16(INT16_MIN));

    return _mm256_add_epi32(lanes, _mm256_madd_epi16(as_signed, _mm256_set1_epi16(1)));
}

static INLINE __m256i vector_add(__m256i lanes, bool is_copy, uint8_t *ret_octets,
                                 const uint8_t *octets)
{
    __m256i words = load(octets);

    if (is_copy)
        store(ret_octets, words);
    return lanes_add(lanes, words);
}

static INLINE int32_t lanes_reduce(__m256i lanes)
{
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));

    sum = _mm_add_epi32(sum, _mm_unpackhi_epi64(sum, sum));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 1));
    return _mm_cvtsi128_si32(sum);
}

/* With `is_copy` they go to `ret_octets`, too. VECTOR <= size <= CHUNK. */
static INLINE uint64_t chunk_sum(bool is_copy, uint8_t *ret_octets, const uint8_t *octets,
                                 uint32_t size)
{
    __m256i first = _mm256_setzero_si256(), second = _mm256_setzero_si256();
    uint32_t even = size & ~1u, at = 0;
    uint64_t sum = (even + VECTOR - 1) / VECTOR * BIAS;

    if (size != even) {
        sum += octets[even];
        if (is_copy)
            ret_octets[even] = octets[even];
    }
    for (; at + BLOCK <= even; at += BLOCK) {
        first = vector_add(first, is_copy, ret_octets + at, octets + at);
        second = vector_add(second, is_copy, ret_octets + at + 32, octets + at + 32);
        first = vector_add(first, is_copy, ret_octets + at + 64, octets + at + 64);
        second = vector_add(second, is_copy, ret_octets + at + 96, octets + at + 96);
    }
    for (; at + VECTOR <= even; at += VECTOR)
        first = vector_add(first, is_copy, ret_octets + at, octets + at);
    if (at < even) {
        __m256i last = load(octets + even - VECTOR);
        if (is_copy)
            store(ret_octets + even - VECTOR, last);
        second =
            lanes_add(second, _mm256_and_si256(last, load((const uint8_t *)masks + (even - at))));
    }
    return sum + (uint64_t)(int64_t)lanes_reduce(_mm256_add_epi32(first, second));
}

WITH_AVX2 uint64_t wire_sum_avx2(const uint8_t *octets, uint32_t size)
{
    uint64_t sum = 0;
    uint32_t part;

    for (; size >= VECTOR; octets += part, size -= part) {
        part = size < CHUNK ? size : CHUNK;
        sum += chunk_sum(false, NULL, octets, part);
    }
    return wire_sum_fold32(sum + (size == 0 ? 0 : wire_sum_portable(octets, size)));
}

WITH_AVX2 uint64_t wire_sum_copy_avx2(uint8_t *ret_octets, const uint8_t *octets, uint32_t size)
{
    uint64_t sum = 0;
    uint32_t part;

    for (; size >= VECTOR; octets += part, ret_octets += part, size -= part) {
        part = size < CHUNK ? size : CHUNK;
        sum += chunk_sum(true, ret_octets, octets, part);
    }
    return wire_sum_fold32(sum +
                           (size == 0 ? 0 : wire_sum_copy_portable(ret_octets, octets, size)));
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

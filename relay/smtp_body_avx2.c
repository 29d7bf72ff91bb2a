/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fast loop of the body scanner for processors with AVX2: two vectors of 32 octets are one
 * block. CR, LF and '.' need their positions and become bit masks; NUL and octets above 127 need
 * only a yes or no, so they are folded into two vectors (minimum, or) and looked at when the loop
 * ends. The masks' meaning is smtp_body_block.h's, shared with the portable loop.
 *
 * Compiled for AVX2 by function attribute, entered only after smtp_body_has_avx2() said yes.
 */
#include "relay/smtp_body_block.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define WITH_AVX2 __attribute__((target("avx2")))

static inline WITH_AVX2 __attribute__((always_inline)) uint64_t mask_of(__m256i low, __m256i high,
                                                                        __m256i wanted)
{
    uint32_t low_bits = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(low, wanted));
    uint32_t high_bits = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(high, wanted));

    return (uint64_t)high_bits << 32 | low_bits;
}

bool smtp_body_has_avx2(void)
{
    return __builtin_cpu_supports("avx2");
}

/* Over all blocks: looked at when the loop ends. */
struct avx2_fold {
    __m256i any, least;
};

static inline WITH_AVX2 __attribute__((always_inline)) uint32_t
block_take(struct smtp_body_run *run, struct avx2_fold *fold, const uint8_t *block, uint32_t size)
{
    __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)block);
    __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(block + 32));
    struct smtp_body_masks masks = {.cr = mask_of(low, high, _mm256_set1_epi8('\r')),
                                    .lf = mask_of(low, high, _mm256_set1_epi8('\n')),
                                    .dot = mask_of(low, high, _mm256_set1_epi8('.'))};

    uint32_t fit = smtp_body_block_step(run, &masks, size);
    if (fit < size)
        return fit;
    fold->any = _mm256_or_si256(fold->any, _mm256_or_si256(low, high));
    fold->least = _mm256_min_epu8(fold->least, _mm256_min_epu8(low, high));
    return size;
}

/* A block with fewer octets, as far as nothing happens in it; returns how far that is. */
static WITH_AVX2 uint32_t part_take(struct smtp_body_run *run, struct avx2_fold *fold,
                                    const uint8_t *data, uint32_t size)
{
    uint8_t block[SMTP_BODY_BLOCK] UNINITIALIZED;
    uint32_t fit = size;

    while (size > 0) { /* twice at most: what fits once fits again */
        smtp_body_block_pad(block, data, size);
        fit = block_take(run, fold, block, size);
        if (fit == size)
            break;
        size = fit;
    }
    return fit;
}

WITH_AVX2 uint32_t smtp_body_run_avx2(struct smtp_body_run *run, const uint8_t *data, uint32_t size)
{
    struct avx2_fold fold = {_mm256_setzero_si256(), _mm256_set1_epi8(-1)};
    struct smtp_body_run local = *run;
    uint32_t done = 0;

    uint32_t fit = SMTP_BODY_BLOCK;
    while (size - done >= SMTP_BODY_BLOCK) {
        fit = block_take(&local, &fold, data + done, SMTP_BODY_BLOCK);
        if (fit < SMTP_BODY_BLOCK)
            break;
        done += SMTP_BODY_BLOCK;
    }
    done += part_take(&local, &fold, data + done, fit < SMTP_BODY_BLOCK ? fit : size - done);
    if (_mm256_movemask_epi8(fold.any) != 0)
        local.flags |= SMTP_BODY_EIGHT_BIT;
    if (_mm256_movemask_epi8(_mm256_cmpeq_epi8(fold.least, _mm256_setzero_si256())) != 0)
        local.flags |= SMTP_BODY_NUL;
    *run = local;
    return done;
}

#else

bool smtp_body_has_avx2(void)
{
    return false;
}

uint32_t smtp_body_run_avx2(struct smtp_body_run *run, const uint8_t *data, uint32_t size)
{
    (void)run, (void)data, (void)size;
    CHECK(false); /* smtp_body_has_avx2() said no */
    return 0;
}

#endif

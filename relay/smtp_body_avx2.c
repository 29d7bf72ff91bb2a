/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fast loop of the body scanner for processors with AVX2: two vectors of 32 octets are one
 * block. CR, LF and '.' need their positions and become bit masks; NUL and octets above 127 need
 * only a yes or no, so they are folded into two vectors (minimum, or) and looked at when the loop
 * ends. The masks' meaning is smtp_body_block.h's, shared with the portable loop.
 *
 * Most text needs no positions at all: windows of four vectors are asked whether anything in them
 * is out of place, and only the last LF before the blocks go on is looked for. A window that says
 * yes, or in which a line could become too long, is left to the blocks, as is what is behind it.
 *
 * Compiled for AVX2 by function attribute, entered only after smtp_body_has_avx2() said yes.
 */
#include "relay/smtp_body_block.h"

#if defined(__x86_64__)
#include <immintrin.h>

/* Loads in two halves are what gcc would tune for processors before AVX2. */
#if defined(__clang__)
#define WITH_AVX2 __attribute__((target("avx2")))
#else
#define WITH_AVX2 __attribute__((target("avx2,tune=haswell")))
#endif

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

#define VECTOR 32u
#define WINDOW (4 * VECTOR)

struct avx2_window {
    __m256i bad; /* a CR or LF without the other, or a dot at the beginning of a line */
    __m256i lf;
    struct avx2_fold fold;
};

static inline WITH_AVX2 __attribute__((always_inline)) void window_add(struct avx2_window *window,
                                                                       const uint8_t *octets)
{
    const __m256i cr = _mm256_set1_epi8('\r'), lf = _mm256_set1_epi8('\n');
    __m256i here = _mm256_loadu_si256((const __m256i *)(const void *)octets);
    __m256i before = _mm256_loadu_si256((const __m256i *)(const void *)(octets - 1));
    __m256i is_lf = _mm256_cmpeq_epi8(here, lf);
    __m256i is_dot = _mm256_cmpeq_epi8(here, _mm256_set1_epi8('.'));
    __m256i unpaired = _mm256_xor_si256(_mm256_cmpeq_epi8(before, cr), is_lf);
    __m256i dot_line = _mm256_and_si256(_mm256_cmpeq_epi8(before, lf), is_dot);

    window->bad = _mm256_or_si256(window->bad, _mm256_or_si256(unpaired, dot_line));
    window->lf = _mm256_or_si256(window->lf, is_lf);
    window->fold.any = _mm256_or_si256(window->fold.any, here);
    window->fold.least = _mm256_min_epu8(window->fold.least, here);
}

/* Windows from data + done on, until one is not as most are; returns where that is. One octet at
 * least was done before: each window looks one back. Not inlined: the registers are all its own. */
static __attribute__((noinline)) WITH_AVX2 uint32_t windows_take(struct smtp_body_run *run,
                                                                 struct avx2_fold *fold,
                                                                 const uint8_t *data, uint32_t done,
                                                                 uint32_t size)
{
    uint64_t line_size = run->line_size; /* or more: as if the line had begun with the window */
    struct avx2_fold sound = *fold;
    uint32_t begin = done;

    while (size - done >= WINDOW && line_size + WINDOW <= run->line_size_max) {
        struct avx2_window window = {_mm256_setzero_si256(), _mm256_setzero_si256(), sound};
        window_add(&window, data + done);
        window_add(&window, data + done + VECTOR);
        window_add(&window, data + done + 2 * VECTOR);
        window_add(&window, data + done + 3 * VECTOR);
        if (!_mm256_testz_si256(window.bad, window.bad))
            break;
        sound = window.fold;
        line_size = _mm256_testz_si256(window.lf, window.lf) ? line_size + WINDOW : WINDOW;
        done += WINDOW;
    }
    *fold = sound;
    if (done == begin)
        return done;
    const uint8_t *last = memrchr(data + begin, '\n', done - begin);
    run->line_size =
        last == NULL ? run->line_size + done - begin : (uint64_t)(data + done - last) - 1;
    run->is_cr = data[done - 1] == '\r';
    run->is_start = data[done - 1] == '\n';
    return done;
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
        if (done == SMTP_BODY_BLOCK)
            done = windows_take(&local, &fold, data, done, size);
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

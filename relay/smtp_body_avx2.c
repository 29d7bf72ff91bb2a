/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fast loop of the body scanner for processors with AVX2. A window of 64 octets is two vectors;
 * one look-up by the low four bits of each octet and one compare make a mask of what is special in
 * it: CR, LF and NUL. Most windows hold one line's end or none, so the special octets are then
 * walked by their bits: a CR is looked at together with the two octets behind it, which must be LF
 * and, in DATA, anything but a dot. What the loop does not know stops it, and is left to the
 * careful one, as are the last two octets of a piece if one of them may be special.
 *
 * NUL passes and is noted. Octets above 127 need only a yes or no: they are folded over all
 * windows, except for the one that stops the loop, of which only what is in front of the stop may
 * count: behind the end of data are commands.
 *
 * Invariants
 *   1. The beginning of the current line is never behind the octets done by more than the LF of a
 *      window that ended with its CR: such an LF is special in the next window, and taken already.
 *   2. The octet at the beginning of a line was looked at when the line before it ended.
 *
 * Compiled for AVX2 by function attribute, entered only after smtp_body_has_avx2() said yes.
 */
#include "relay/smtp_body_block.h"

#if defined(__x86_64__)
#include <immintrin.h>

/* Loads in two halves are what gcc would tune for processors before AVX2. */
#if defined(__clang__)
#define WITH_AVX2 __attribute__((target("avx2,bmi")))
#else
#define WITH_AVX2 __attribute__((target("avx2,bmi,tune=haswell")))
#endif

#define VECTOR  32
#define WINDOW  ((int64_t)SMTP_BODY_BLOCK)
#define BEHIND  2 /* how far behind a special octet the loop looks */
#define NOWHERE INT64_MAX

/* Every processor with the one has the other, but not every emulator. */
bool smtp_body_has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi");
}

/* The loop over one call. Offsets count from the call's first octet. */
struct avx2_walk {
    const uint8_t *data;
    int64_t line_size_max;
    int64_t
        line_limit; /* the current line began line_size_max before and ends here at the latest */
    int64_t room;   /* below 0 once a line went beyond its limit */
    uint32_t flags;
    bool is_data;
    __m256i any; /* of the windows that passed */
};

static inline WITH_AVX2 __attribute__((always_inline)) int64_t
line_begin(const struct avx2_walk *walk)
{
    return walk->line_limit - walk->line_size_max;
}

/* CRLF was before `end`. False: the line that begins there begins with a dot, and in DATA. */
static inline WITH_AVX2 __attribute__((always_inline)) bool line_end(struct avx2_walk *walk,
                                                                     int64_t end)
{
    walk->room |= walk->line_limit - end; /* keeps the sign of any */
    walk->line_limit = end + walk->line_size_max;
    if (__builtin_expect(walk->data[end] == '.', 0)) {
        if (walk->is_data)
            return false;
        walk->flags |= SMTP_BODY_DOT_LINES;
    }
    return true;
}

/* Walk the special octets of a window; returns where the loop has to stop, or NOWHERE. */
static inline WITH_AVX2 __attribute__((always_inline)) int64_t
specials_walk(struct avx2_walk *walk, int64_t window, uint64_t specials)
{
    while (specials != 0) {
        int64_t at = window + (int64_t)__builtin_ctzll(specials);
        const uint8_t *octets = walk->data + at;
        specials &= specials - 1;
        if (__builtin_expect(memcmp(octets, "\r\n", 2) == 0, 1)) {
            specials &= specials - 1; /* the LF */
            if (!line_end(walk, at + 2))
                return at + 2;
        } else if (*octets == '\0') {
            walk->flags |= SMTP_BODY_NUL;
        } else if (at >= line_begin(walk)) { /* else invariant 1 */
            return at;
        }
    }
    return NOWHERE;
}

static inline WITH_AVX2 __attribute__((always_inline)) uint64_t bits_of(__m256i low, __m256i high)
{
    return (uint64_t)(uint32_t)_mm256_movemask_epi8(high) << VECTOR |
           (uint32_t)_mm256_movemask_epi8(low);
}

/* All bits where an octet is the one special octet with these four low bits. The others of the
 * table are odd ones out: no octet finds itself there, and one above 127 finds 0. */
static inline WITH_AVX2 __attribute__((always_inline)) __m256i specials_find(__m256i octets)
{
    const __m256i table = _mm256_broadcastsi128_si256(
        _mm_setr_epi8('\0', -1, -1, -1, -1, -1, -1, -1, -1, -1, '\n', -1, -1, '\r', -1, -1));

    return _mm256_cmpeq_epi8(_mm256_shuffle_epi8(table, octets), octets);
}

/* One window, whose first `skip` octets were done before; `octets` are its own or a padded copy.
 * Returns as specials_walk(). */
static inline WITH_AVX2 __attribute__((always_inline)) int64_t
window_take(struct avx2_walk *walk, int64_t window, const uint8_t *octets, uint32_t skip)
{
    __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)octets);
    __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(octets + VECTOR));
    uint64_t specials = bits_of(specials_find(low), specials_find(high)) & UINT64_MAX << skip;
    int64_t stop = specials_walk(walk, window, specials);

    if (__builtin_expect(stop == NOWHERE, 1)) {
        walk->any = _mm256_or_si256(walk->any, _mm256_or_si256(low, high));
        return NOWHERE;
    }
    uint64_t before = stop - window < WINDOW ? ~(UINT64_MAX << (stop - window)) : UINT64_MAX;
    walk->flags |= (bits_of(low, high) & before) != 0 ? SMTP_BODY_EIGHT_BIT : 0;
    return stop;
}

/* The windows over data[done, size), each octet of which has BEHIND more. The last one overlaps the
 * one before it; where there is none, it is a padded copy. */
static inline WITH_AVX2 __attribute__((always_inline)) int64_t windows_take(struct avx2_walk *walk,
                                                                            int64_t size)
{
    uint8_t block[SMTP_BODY_BLOCK] UNINITIALIZED;
    int64_t done = 0;

    for (; done <= size - WINDOW; done += WINDOW) {
        int64_t stop = window_take(walk, done, walk->data + done, 0);
        if (stop != NOWHERE)
            return stop;
    }
    if (done == size)
        return NOWHERE;
    if (done > 0)
        return window_take(walk, size - WINDOW, walk->data + size - WINDOW,
                           (uint32_t)(WINDOW - (size - done)));
    smtp_body_block_pad(block, walk->data, (uint32_t)size);
    return window_take(walk, 0, block, 0);
}

/* The last octets, up to one that may be special. */
static inline WITH_AVX2 __attribute__((always_inline)) int64_t rest_take(struct avx2_walk *walk,
                                                                         int64_t size)
{
    int64_t done = size - BEHIND;

    if (line_begin(walk) > done) /* invariant 1 */
        done += 1;
    for (; done < size && walk->data[done] > '\r'; done++)
        walk->flags |= walk->data[done] >= 0x80 ? SMTP_BODY_EIGHT_BIT : 0;
    return done;
}

/* What the octets before these left open; false: not for this loop. */
static inline WITH_AVX2 __attribute__((always_inline)) bool walk_begin(struct avx2_walk *walk,
                                                                       struct smtp_body_run *run)
{
    const uint8_t *data = walk->data;

    if (run->is_cr)
        return data[0] == '\n' && line_end(walk, 1);
    if (run->is_start && data[0] == '.') {
        walk->flags |= SMTP_BODY_DOT_LINES;
        return !run->is_data;
    }
    return true;
}

WITH_AVX2 uint32_t smtp_body_run_avx2(struct smtp_body_run *run, const uint8_t *data, uint32_t size)
{
    struct avx2_walk walk = {.data = data,
                             .line_size_max = (int64_t)run->line_size_max,
                             .line_limit = (int64_t)(run->line_size_max - run->line_size),
                             .flags = run->flags,
                             .is_data = run->is_data,
                             .any = _mm256_setzero_si256()};

    if (size <= BEHIND || !walk_begin(&walk, run))
        return 0;
    int64_t done = windows_take(&walk, (int64_t)size - BEHIND);
    if (done == NOWHERE)
        done = rest_take(&walk, size);
    if (_mm256_movemask_epi8(walk.any) != 0)
        walk.flags |= SMTP_BODY_EIGHT_BIT;
    if ((walk.room | (walk.line_limit - done)) < 0)
        walk.flags |= SMTP_BODY_LONG_LINE;
    run->flags = walk.flags;
    run->line_size = (uint64_t)(done - line_begin(&walk));
    run->is_start = run->line_size == 0;
    run->is_cr = false;
    return (uint32_t)done;
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

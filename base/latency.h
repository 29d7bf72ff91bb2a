/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_LATENCY_H
#define BASE_LATENCY_H

#include "base/tick.h"

/*
 * How long something took, counted in buckets that widen with the value: exact below 4
 * microseconds, from there on four buckets for every power of two. A quantile read from them is at
 * most 25 % above the true one. All zero is empty.
 */
#define LATENCY_SUB_BITS     2u
#define LATENCY_VALUE_BITS   36u /* longer times, from 19 hours on, count as the longest */
#define LATENCY_BUCKET_COUNT ((LATENCY_VALUE_BITS - LATENCY_SUB_BITS + 1u) << LATENCY_SUB_BITS)

struct latency {
    uint64_t sum_us;
    uint64_t counts[LATENCY_BUCKET_COUNT];
};

/*
 * The same for what takes microseconds, in nanoseconds: in steps of 64 below 512, from there on
 * eight buckets for every power of two, so that a quantile is at most an eighth above the true one.
 */
#define LATENCY_FINE_UNIT_BITS  6u
#define LATENCY_FINE_SUB_BITS   3u
#define LATENCY_FINE_VALUE_BITS 27u /* longer times, from 134 ms on, count as the longest */
#define LATENCY_FINE_BUCKET_COUNT                                                                  \
    ((LATENCY_FINE_VALUE_BITS - LATENCY_FINE_UNIT_BITS - LATENCY_FINE_SUB_BITS + 1u)               \
     << LATENCY_FINE_SUB_BITS)

struct latency_fine {
    uint64_t sum_ns;
    uint64_t counts[LATENCY_FINE_BUCKET_COUNT];
};

/* Which bucket counts a value, with 1 << sub_bits of them for every power of two. */
static inline uint32_t latency_place(uint64_t value, uint32_t sub_bits)
{
    if (value >> sub_bits == 0)
        return (uint32_t)value;
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(value) - sub_bits;
    return (shift << sub_bits) + (uint32_t)(value >> shift);
}

/* The largest value that a bucket counts. */
static inline uint64_t latency_place_top(uint32_t bucket, uint32_t sub_bits)
{
    if (bucket >> sub_bits == 0)
        return bucket;
    uint32_t shift = (bucket >> sub_bits) - 1;
    uint64_t sub = bucket - (shift << sub_bits);
    return ((sub + 1) << shift) - 1;
}

static inline uint32_t latency_bucket(uint64_t us)
{
    if (us >> LATENCY_VALUE_BITS != 0)
        return LATENCY_BUCKET_COUNT - 1;
    return latency_place(us, LATENCY_SUB_BITS);
}

/** The longest time that a bucket counts, in microseconds. */
static inline uint64_t latency_bucket_top(uint32_t bucket)
{
    return latency_place_top(bucket, LATENCY_SUB_BITS);
}

/** Times below nothing, as a clock that was set back makes them, count as nothing. */
static inline void latency_add(struct latency *latency, int64_t us)
{
    uint64_t value = us < 0 ? 0 : (uint64_t)us;

    latency->counts[latency_bucket(value)]++;
    latency->sum_us += value;
}

static inline uint32_t latency_fine_bucket(uint64_t ns)
{
    if (ns >> LATENCY_FINE_VALUE_BITS != 0)
        return LATENCY_FINE_BUCKET_COUNT - 1;
    return latency_place(ns >> LATENCY_FINE_UNIT_BITS, LATENCY_FINE_SUB_BITS);
}

/** The longest time that a bucket counts, in nanoseconds. */
static inline uint64_t latency_fine_bucket_top(uint32_t bucket)
{
    return ((latency_place_top(bucket, LATENCY_FINE_SUB_BITS) + 1) << LATENCY_FINE_UNIT_BITS) - 1;
}

static inline void latency_fine_add(struct latency_fine *latency, uint64_t ns)
{
    latency->counts[latency_fine_bucket(ns)]++;
    latency->sum_ns += ns;
}

#endif

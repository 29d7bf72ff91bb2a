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

static inline uint32_t latency_bucket(uint64_t us)
{
    if (us >> LATENCY_SUB_BITS == 0)
        return (uint32_t)us;
    if (us >> LATENCY_VALUE_BITS != 0)
        return LATENCY_BUCKET_COUNT - 1;
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(us) - LATENCY_SUB_BITS;
    return (shift << LATENCY_SUB_BITS) + (uint32_t)(us >> shift);
}

/** The longest time that a bucket counts, in microseconds. */
static inline uint64_t latency_bucket_top(uint32_t bucket)
{
    if (bucket >> LATENCY_SUB_BITS == 0)
        return bucket;
    uint32_t shift = (bucket >> LATENCY_SUB_BITS) - 1;
    uint64_t sub = bucket - (shift << LATENCY_SUB_BITS);
    return ((sub + 1) << shift) - 1;
}

/** Times below nothing, as a clock that was set back makes them, count as nothing. */
static inline void latency_add(struct latency *latency, int64_t us)
{
    uint64_t value = us < 0 ? 0 : (uint64_t)us;

    latency->counts[latency_bucket(value)]++;
    latency->sum_us += value;
}

#endif

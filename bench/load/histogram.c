/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A log-linear histogram: the bucket of a value is its leading HISTOGRAM_SUB_BITS + 1 bits and how
 * far they are shifted, so that adding costs a count of leading zeros and two memory accesses, and
 * the relative error is the same at every size.
 *
 * Invariants
 *   1. bucket_top(bucket(v)) is in [v, v + v / 128], and bucket(bucket_top(b)) is b.
 *   2. count is the sum of all buckets; buckets above `highest` are 0.
 */
#include "bench/load/histogram.h"

#include <string.h>

uint32_t histogram_bucket(uint64_t value)
{
    CHECK(value <= HISTOGRAM_VALUE_MAX);
    if (value < HISTOGRAM_EXACT)
        return (uint32_t)value;
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(value) - HISTOGRAM_SUB_BITS;
    return (shift << HISTOGRAM_SUB_BITS) + (uint32_t)(value >> shift);
}

uint64_t histogram_bucket_top(uint32_t bucket)
{
    CHECK(bucket < HISTOGRAM_BUCKET_COUNT);
    if (bucket < HISTOGRAM_EXACT)
        return bucket;
    uint32_t shift = (bucket >> HISTOGRAM_SUB_BITS) - 1;
    uint64_t lead = bucket - (shift << HISTOGRAM_SUB_BITS);
    return ((lead + 1) << shift) - 1;
}

void histogram_add(struct histogram *histogram, uint64_t value)
{
    if (value > HISTOGRAM_VALUE_MAX) {
        histogram->clipped++;
        value = HISTOGRAM_VALUE_MAX;
    }
    uint32_t bucket = histogram_bucket(value);
    histogram->buckets[bucket]++;
    histogram->highest = bucket > histogram->highest ? bucket : histogram->highest;
    histogram->min = histogram->count == 0 || value < histogram->min ? value : histogram->min;
    histogram->max = value > histogram->max ? value : histogram->max;
    histogram->sum += value;
    histogram->count++;
}

void histogram_reset(struct histogram *histogram)
{
    memset(histogram->buckets, 0, (histogram->highest + 1) * sizeof(histogram->buckets[0]));
    histogram->count = histogram->sum = histogram->min = histogram->max = histogram->clipped = 0;
    histogram->highest = 0;
}

void histogram_merge(struct histogram *histogram, const struct histogram *source)
{
    if (source->count == 0)
        return;
    for (uint32_t i = 0; i <= source->highest; i++)
        histogram->buckets[i] += source->buckets[i];
    if (histogram->count == 0 || source->min < histogram->min)
        histogram->min = source->min;
    histogram->max = source->max > histogram->max ? source->max : histogram->max;
    histogram->highest =
        source->highest > histogram->highest ? source->highest : histogram->highest;
    histogram->count += source->count;
    histogram->sum += source->sum;
    histogram->clipped += source->clipped;
}

uint64_t histogram_quantile(const struct histogram *histogram, uint32_t parts)
{
    CHECK(parts <= 1000000);
    if (histogram->count == 0)
        return 0;
    /* The rank is rounded up: "99 % are not above" must hold for the value told. */
    uint64_t rank = (uint64_t)(((unsigned __int128)histogram->count * parts + 999999) / 1000000);
    uint64_t seen = 0;
    uint32_t bucket = 0;
    for (; bucket < histogram->highest; bucket++) {
        seen += histogram->buckets[bucket];
        if (seen >= rank && seen > 0)
            break;
    }
    uint64_t top = histogram_bucket_top(bucket);
    return top > histogram->max ? histogram->max : top;
}

double histogram_mean(const struct histogram *histogram)
{
    return histogram->count == 0 ? 0.0 : (double)histogram->sum / (double)histogram->count;
}

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_LOAD_HISTOGRAM_H
#define BENCH_LOAD_HISTOGRAM_H

#include <stdint.h>

#include "base/check.h"

/*
 * Counts of microseconds in buckets whose width grows with the value: exact below 256, from there
 * on 128 buckets for every power of two. histogram_quantile() never says less than the true value,
 * and at most 1/128 (0.8 %) more.
 */
#define HISTOGRAM_SUB_BITS   7u
#define HISTOGRAM_EXACT      (2u << HISTOGRAM_SUB_BITS)
#define HISTOGRAM_VALUE_BITS 36u
#define HISTOGRAM_VALUE_MAX  ((1ull << HISTOGRAM_VALUE_BITS) - 1) /* 19 hours */
#define HISTOGRAM_BUCKET_COUNT                                                                     \
    (HISTOGRAM_EXACT + ((HISTOGRAM_VALUE_BITS - HISTOGRAM_SUB_BITS - 1) << HISTOGRAM_SUB_BITS))

struct histogram {
    uint64_t count, sum, min, max; /* min and max are exact; 0 while count is 0 */
    uint64_t clipped;              /* values above HISTOGRAM_VALUE_MAX, counted as that */
    uint32_t highest;              /* no bucket above is in use */
    uint64_t buckets[HISTOGRAM_BUCKET_COUNT];
};

/** An all-zero histogram is an empty one. */
void histogram_add(struct histogram *histogram, uint64_t value);
/** Empty it again; costs as much as the highest value in it makes necessary. */
void histogram_reset(struct histogram *histogram);
/** What `source` counted is counted in `histogram` as well. */
void histogram_merge(struct histogram *histogram, const struct histogram *source);
/** The value that `parts` of a million values do not exceed; 0 when it is empty. CHECKs parts <=
 * 1,000,000. */
uint64_t histogram_quantile(const struct histogram *histogram, uint32_t parts);
double histogram_mean(const struct histogram *histogram);

/** The bucket of a value, and the highest value of a bucket: for tests. */
uint32_t histogram_bucket(uint64_t value);
uint64_t histogram_bucket_top(uint32_t bucket);

#endif

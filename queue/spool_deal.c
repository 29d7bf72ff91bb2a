/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All rows of all segments, dealt into buckets by ranges of ids, so that several threads can sort
 * and merge them, a bucket at a time, in their caches.
 *
 * Rows stay where the scan put them; what is dealt are their addresses. Borders are drawn by
 * samples of all segments, so that buckets come out much the same whatever the ids are. Then every
 * segment counts its rows of each bucket, which gives each of them its places, and fills these.
 *
 * Invariants
 *   1. All rows with one id are in one bucket; ids of a bucket are above those of the one before.
 *   2. In a bucket rows stand by segment, and in each as the segment has them, whatever thread
 *      dealt them.
 *
 * Limits: BUCKET_COUNT_MAX buckets; with more rows they are larger.
 */
#include <stdlib.h>

#include "queue/crew.h"
#include "queue/pages.h"
#include "queue/spool_recovery.h"

#define BUCKET_ROWS      4096u /* about so many to a bucket, as long as these are not too many */
#define BUCKET_COUNT_MAX 4096u
#define SAMPLES          16u /* looked at for each border between buckets */

_Static_assert(BUCKET_COUNT_MAX <= UINT16_MAX, "a bucket's number fits a row");

struct deal {
    struct spool_recovery *recovery;
    struct message_id *borders; /* the first ids of all buckets but the first */
    uint32_t bucket_count;
    uint32_t *counts; /* per segment and bucket: rows; then where they go */
};

int spool_recovery_compare_ids(struct message_id x, struct message_id y)
{
    if (x.high != y.high)
        return x.high < y.high ? -1 : 1;
    if (x.low != y.low)
        return x.low < y.low ? -1 : 1;
    return 0;
}

static int border_compare(const void *a, const void *b)
{
    return spool_recovery_compare_ids(*(const struct message_id *)a, *(const struct message_id *)b);
}

static bool bucket_has(const struct deal *deal, uint32_t bucket, struct message_id id)
{
    return (bucket == 0 || spool_recovery_compare_ids(deal->borders[bucket - 1], id) <= 0) &&
           (bucket + 1 == deal->bucket_count ||
            spool_recovery_compare_ids(deal->borders[bucket], id) > 0);
}

/* The bucket of this id; `near` is that of the row before, and most often it is the same. */
static uint32_t bucket_of(const struct deal *deal, struct message_id id, uint32_t near)
{
    uint32_t low = 0, high = deal->bucket_count - 1; /* borders below `low` are not above id */

    if (bucket_has(deal, near, id))
        return near;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (spool_recovery_compare_ids(deal->borders[middle], id) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void deal_draw_borders(struct deal *deal)
{
    const struct spool_recovery *recovery = deal->recovery;
    uint32_t wanted = recovery->row_count / BUCKET_ROWS + 1;
    deal->bucket_count = wanted < BUCKET_COUNT_MAX ? wanted : BUCKET_COUNT_MAX;
    uint32_t step = recovery->row_count / (deal->bucket_count * SAMPLES) + 1, count = 0, at = 0;
    struct message_id *samples = calloc(recovery->row_count / step + 1, sizeof(*samples));
    deal->borders = calloc(deal->bucket_count, sizeof(*deal->borders));
    CHECK(samples != NULL && deal->borders != NULL);
    for (uint32_t i = 0; i < recovery->segment_count; i++) {
        const struct recovery_segment *segment = &recovery->segments[i];
        for (; at < segment->row_count; at += step)
            samples[count++] = segment->rows[at].id;
        at -= segment->row_count;
    }
    if (count > 0)
        qsort(samples, count, sizeof(*samples), border_compare);
    for (uint32_t i = 1; i < deal->bucket_count; i++)
        deal->borders[i - 1] = samples[(uint64_t)i * count / deal->bucket_count];
    free(samples);
}

static void segment_count_rows(void *context, uint32_t worker, uint32_t index)
{
    struct deal *deal = context;
    const struct recovery_segment *segment = &deal->recovery->segments[index];
    uint32_t *counts = deal->counts + (size_t)index * deal->bucket_count;
    uint32_t bucket = 0;

    (void)worker;
    for (uint32_t i = 0; i < segment->row_count; i++) {
        bucket = bucket_of(deal, segment->rows[i].id, bucket);
        segment->rows[i].bucket = (uint16_t)bucket;
        counts[bucket]++;
    }
}

static void segment_deal_rows(void *context, uint32_t worker, uint32_t index)
{
    struct deal *deal = context;
    const struct recovery_segment *segment = &deal->recovery->segments[index];
    uint32_t *places = deal->counts + (size_t)index * deal->bucket_count;

    (void)worker;
    for (uint32_t i = 0; i < segment->row_count; i++)
        deal->recovery->rows[places[segment->rows[i].bucket]++] = &segment->rows[i];
}

/* From counts to places: bucket by bucket, in each segment by segment. */
static void deal_place(struct deal *deal, struct recovery_bucket *buckets)
{
    uint32_t at = 0;

    for (uint32_t i = 0; i < deal->bucket_count; i++) {
        buckets[i].start = at;
        for (uint32_t j = 0; j < deal->recovery->segment_count; j++) {
            uint32_t *count = &deal->counts[(size_t)j * deal->bucket_count + i];
            uint32_t place = at;
            at += *count;
            *count = place;
        }
        buckets[i].row_count = at - buckets[i].start;
    }
    CHECK(at == deal->recovery->row_count);
}

struct recovery_bucket *spool_deal(struct spool_recovery *recovery, uint32_t *ret_count)
{
    struct deal deal = {.recovery = recovery};
    uint32_t threads = recovery->options.threads, segment_count = recovery->segment_count;

    deal_draw_borders(&deal);
    struct recovery_bucket *buckets = calloc(deal.bucket_count, sizeof(*buckets));
    size_t counts_size = (size_t)deal.bucket_count * segment_count * sizeof(*deal.counts);
    CHECK(buckets != NULL);
    deal.counts = spool_pages_new(counts_size);
    crew_run(threads, segment_count, segment_count_rows, &deal);
    deal_place(&deal, buckets);
    crew_run(threads, segment_count, segment_deal_rows, &deal);
    spool_pages_free(deal.counts, counts_size);
    free(deal.borders);
    *ret_count = deal.bucket_count;
    return buckets;
}

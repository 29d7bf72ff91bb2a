/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ages of a group of mail.
 *
 * A message falls into the bin that covers its arrival; a new bin is BIN_WIDTH wide, cut where a
 * neighbour begins. When there are too many, the two neighbours that are closest to each other in
 * proportion to their age become one. A bin never changes its bounds but by that, and covers all
 * that was ever put into it, so that what is added can always be taken out.
 *
 * Invariants: bins are in order, do not overlap, none is empty.
 */
#include "queue/qmgr_ages.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"

#define BIN_WIDTH      32u /* seconds */
#define BUCKET_SECONDS 300u

static uint32_t seconds_of(wall_us wall)
{
    int64_t seconds = wall / 1000000;

    return seconds < 0                         ? 0
           : seconds >= UINT32_MAX - BIN_WIDTH ? UINT32_MAX - BIN_WIDTH - 1
                                               : (uint32_t)seconds;
}

/* The first bin that ends behind `second`: the one that covers it, or stands behind its place. */
static uint32_t bin_place(const struct qmgr_ages *ages, uint32_t second)
{
    uint32_t low = 0, high = ages->bin_count;

    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (ages->bins[middle].end <= second)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void bin_erase(struct qmgr_ages *ages, uint32_t index)
{
    ages->bin_count--;
    memmove(&ages->bins[index], &ages->bins[index + 1],
            (ages->bin_count - index) * sizeof(*ages->bins));
}

/* Small where a merged bin would be narrow for its age. */
static double merge_cost(const struct qmgr_ages *ages, uint32_t index)
{
    uint32_t newest = ages->bins[ages->bin_count - 1].end;
    uint32_t width = ages->bins[index + 1].end - ages->bins[index].start;

    return (double)width / (double)(newest - ages->bins[index].start + BIN_WIDTH);
}

static void bins_merge(struct qmgr_ages *ages)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i + 1 < ages->bin_count; i++) {
        if (merge_cost(ages, i) < merge_cost(ages, best))
            best = i;
    }
    ages->bins[best].end = ages->bins[best + 1].end;
    ages->bins[best].count += ages->bins[best + 1].count;
    bin_erase(ages, best + 1);
}

static void bins_reserve(struct qmgr_ages *ages)
{
    if (ages->bin_count < ages->bin_capacity)
        return;
    uint32_t capacity = ages->bin_capacity == 0 ? 1 : 2u * ages->bin_capacity;
    if (capacity > QMGR_AGES_BINS_MAX + 1)
        capacity = QMGR_AGES_BINS_MAX + 1;
    ages->bins = realloc(ages->bins, capacity * sizeof(*ages->bins));
    CHECK(ages->bins != NULL);
    ages->bin_capacity = (uint8_t)capacity;
}

void qmgr_ages_add(struct qmgr_ages *ages, wall_us arrived)
{
    uint32_t second = seconds_of(arrived);
    struct qmgr_age_bin *newest = ages->bin_count > 0 ? &ages->bins[ages->bin_count - 1] : NULL;

    if (newest != NULL && newest->start <= second && second < newest->end) { /* most often */
        newest->count++;
        return;
    }
    uint32_t place = bin_place(ages, second);
    if (place < ages->bin_count && ages->bins[place].start <= second) {
        ages->bins[place].count++;
        return;
    }
    bins_reserve(ages);
    struct qmgr_age_bin bin = {second - second % BIN_WIDTH, second - second % BIN_WIDTH + BIN_WIDTH,
                               1};
    if (place > 0 && ages->bins[place - 1].end > bin.start)
        bin.start = ages->bins[place - 1].end;
    if (place < ages->bin_count && ages->bins[place].start < bin.end)
        bin.end = ages->bins[place].start;
    memmove(&ages->bins[place + 1], &ages->bins[place],
            (ages->bin_count - place) * sizeof(*ages->bins));
    ages->bins[place] = bin;
    ages->bin_count++;
    if (ages->bin_count > QMGR_AGES_BINS_MAX)
        bins_merge(ages);
}

void qmgr_ages_remove(struct qmgr_ages *ages, wall_us arrived)
{
    uint32_t second = seconds_of(arrived);
    uint32_t place = bin_place(ages, second);

    CHECK(place < ages->bin_count && ages->bins[place].start <= second);
    if (--ages->bins[place].count == 0)
        bin_erase(ages, place);
    if (ages->bin_count == 0)
        qmgr_ages_fini(ages);
}

void qmgr_ages_fini(struct qmgr_ages *ages)
{
    free(ages->bins);
    *ages = (struct qmgr_ages){0};
}

void qmgr_ages_count(const struct qmgr_ages *ages, wall_us now,
                     uint32_t buckets[QMGR_AGE_BUCKET_COUNT])
{
    uint32_t now_second = seconds_of(now);

    for (uint32_t i = 0; i < ages->bin_count; i++) {
        const struct qmgr_age_bin *bin = &ages->bins[i];
        uint32_t middle = bin->start + (bin->end - bin->start) / 2;
        uint32_t age = middle < now_second ? now_second - middle : 0, bucket = 0;
        while (bucket + 1 < QMGR_AGE_BUCKET_COUNT && age >= BUCKET_SECONDS << bucket)
            bucket++;
        buckets[bucket] += bin->count;
    }
}

bool qmgr_ages_may_hold(const struct qmgr_ages *ages, wall_us from, wall_us to)
{
    uint32_t place = bin_place(ages, seconds_of(from));

    return place < ages->bin_count && ages->bins[place].start <= seconds_of(to);
}

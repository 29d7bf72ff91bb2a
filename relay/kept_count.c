/* SPDX-License-Identifier: Apache-2.0 */
/*
 * With fewer shards than before, several of the old ones are one now. What they counted of a
 * network does not add up: limits are of a shard, and some of it may be the same events, copied
 * when there were once more shards than before. The largest count is the one that holds: who had
 * its share on one of them has none left.
 */
#include "relay/kept_count.h"

#include <stdlib.h>

struct sorting {
    const struct kept_count *rows;
    uint32_t shard_count;
};

static int compare(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

/* Of what is one window in the process that comes. */
static int window_compare(const struct kept_count *a, const struct kept_count *b,
                          uint32_t shard_count)
{
    int order = memcmp(a->key, b->key, sizeof(a->key));

    order = order != 0 ? order : compare(a->kind, b->kind);
    order = order != 0 ? order : compare(a->window, b->window);
    return order != 0 ? order : compare(a->shard % shard_count, b->shard % shard_count);
}

static int row_compare(const void *a, const void *b, void *context)
{
    const struct sorting *sorting = context;
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    const struct kept_count *one = &sorting->rows[left], *other = &sorting->rows[right];
    int order = window_compare(one, other, sorting->shard_count);

    order = order != 0 ? order : compare(one->shard, other->shard);
    return order != 0 ? order : compare(left, right);
}

/* Rows of one window, `order` from `from` to `end`: those of the shard that counted most stay. */
static void window_reduce(struct kept_count *rows, const uint32_t *order, uint32_t from,
                          uint32_t end)
{
    uint64_t most = 0, total = 0;
    uint32_t best = rows[order[from]].shard;

    for (uint32_t i = from; i < end; i++) {
        const struct kept_count *row = &rows[order[i]];
        total =
            i > from && row->shard == rows[order[i - 1]].shard ? total + row->count : row->count;
        if (total > most) {
            most = total;
            best = row->shard;
        }
    }
    for (uint32_t i = from; i < end; i++) {
        if (rows[order[i]].shard != best)
            rows[order[i]].count = 0;
    }
}

void kept_counts_reduce(struct kept_count *rows, uint32_t count, uint32_t shard_count)
{
    struct sorting sorting = {rows, shard_count};
    bool is_fewer = false;

    for (uint32_t i = 0; i < count; i++)
        is_fewer = is_fewer || rows[i].shard_count > shard_count;
    uint32_t *order = is_fewer ? calloc(count, sizeof(*order)) : NULL;
    if (order == NULL)
        return; /* without memory they add up */
    for (uint32_t i = 0; i < count; i++)
        order[i] = i;
    qsort_r(order, count, sizeof(*order), row_compare, &sorting);
    for (uint32_t from = 0, end; from < count; from = end) {
        end = from + 1;
        while (end < count &&
               window_compare(&rows[order[from]], &rows[order[end]], shard_count) == 0)
            end++;
        window_reduce(rows, order, from, end);
    }
    free(order);
}

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_KEPT_COUNT_H
#define RELAY_KEPT_COUNT_H

#include <stdbool.h>
#include <string.h>

#include "base/check.h"
#include "base/tick.h"

/*
 * What a client network did, on its way to the process that comes next: events of one window that
 * are forgotten together, as brakes (brake_keep.c) and wrong passwords (tally.c) count them. Times
 * are those of the wall clock; a row has no padding, since it is stored as it is.
 *
 * Each shard counts for itself. What shard i of m counted goes to shard i of those that are now: to
 * each i' with the same remainder of the smaller number. So with as many shards each has its own
 * again, with fewer the largest count holds (kept_counts_reduce()), and with more a new one begins
 * with what an old one knew: who had its share on a shard has none left on those in its place.
 */
#define KEPT_KEY_SIZE   40u
#define KEPT_SHARDS_MAX UINT16_MAX

struct kept_count {
    uint8_t key[KEPT_KEY_SIZE]; /* zeros behind what is used of it */
    tick_us window;
    wall_us first, last;
    uint32_t count;
    uint16_t shard, shard_count; /* that counted it */
    uint16_t kind, key_size;
    uint32_t unused;
};
_Static_assert(sizeof(struct kept_count) == 80, "a row has no holes");

struct kept_wish { /* which rows are wanted */
    uint32_t shard, shard_count;
    tick_us window_min; /* shorter windows are not */
    bool is_rest;       /* only what was counted since *_keep_part() */
};

static inline bool kept_count_is_for(const struct kept_count *row, uint32_t shard,
                                     uint32_t shard_count)
{
    uint32_t both = row->shard_count < shard_count ? row->shard_count : shard_count;

    return row->shard < row->shard_count && row->shard % both == shard % both;
}

/** All rows of a file, for a process with so many shards: of what several shards counted that are
 * one now only the most is left; the others count nothing. Cost: O(count log count), if there are
 * fewer. */
void kept_counts_reduce(struct kept_count *rows, uint32_t count, uint32_t shard_count);

static inline wall_us kept_wall_of(tick_us tick, struct tick_now now)
{
    return now.wall - (wall_us)(now.tick - tick);
}

/* A time in the future is taken for now, one before our clock began for its beginning. */
static inline tick_us kept_tick_of(wall_us wall, struct tick_now now)
{
    tick_us age = wall < now.wall ? (tick_us)now.wall - (tick_us)wall : 0;

    return age < now.tick ? now.tick - age : 0;
}

/* Nothing of it is remembered any more; or it never was. */
static inline bool kept_count_is_over(const struct kept_count *row, struct tick_now now)
{
    return row->last < now.wall && (tick_us)now.wall - (tick_us)row->last > row->window;
}

#endif

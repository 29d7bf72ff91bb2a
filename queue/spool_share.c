/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each of the spools on a file system may take of it, so that none counts on room which
 * another one takes: on a disk that has not more than all of them may have, or less.
 *
 * Each tells what its files have. What is free then belongs to those that have least, up to one
 * level: as if all was poured into vessels that stand side by side.
 *
 * Invariants
 *   1. When a spool takes what is its own, nothing changes for the others: the level stays.
 *   2. All shares together are no more than what is free.
 *
 * Only what others than spools do with the file system changes the level. A file that is being made
 * or removed while somebody looks moves it by a segment, or less, for that moment.
 *
 * Limits: SPOOL_SHARES_MAX spools. One that was not told of others has all that is free; those of
 * another process (an upgrade) are such others.
 */
#include "queue/spool_internal.h"

/* The level of `free` octets over vessels that hold `octets` already. */
static uint64_t share_level(const uint64_t *octets, uint32_t count, uint64_t octets_free)
{
    uint64_t level = UINT64_MAX;

    for (;;) {
        uint64_t sum = octets_free;
        uint32_t below = 0;
        for (uint32_t i = 0; i < count; i++) {
            if (octets[i] >= level)
                continue;
            sum += octets[i];
            below++;
        }
        if (below == 0 || sum / below >= level)
            return level;
        level = sum / below;
    }
}

uint64_t spool_share_max(struct spool *spool, uint64_t octets_made, uint64_t octets_free)
{
    struct spool_shares *shares = spool->options.shares;
    uint64_t octets[SPOOL_SHARES_MAX];

    if (shares == NULL)
        return UINT64_MAX;
    CHECK(spool->options.shard < shares->count && shares->count <= SPOOL_SHARES_MAX);
    atomic_store_explicit(&shares->octets[spool->options.shard], octets_made, memory_order_relaxed);
    for (uint32_t i = 0; i < shares->count; i++)
        octets[i] = atomic_load_explicit(&shares->octets[i], memory_order_relaxed);
    return share_level(octets, shares->count, octets_free);
}

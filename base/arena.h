/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/span.h"

/*
 * Memory that lives as long as its owner and is reset as a whole: blocks from the heap, bump
 * allocation, 16-octet alignment. Growth is bounded by size_max; beyond it arena_acquire() returns
 * NULL and the caller answers with a limit.
 */
struct arena_block;
struct arena {
    struct arena_block *blocks; /* newest first */
    uint32_t used;              /* octets used in the newest block */
    uint32_t block_size;
    uint64_t size;     /* octets in all blocks */
    uint64_t size_max; /* bound on `size` */
};

void arena_init(struct arena *arena, uint32_t block_size, uint64_t size_max);
/** Free every block. */
void arena_fini(struct arena *arena);
/** Forget everything, keep at most one block for reuse. */
void arena_reset(struct arena *arena);
/** NULL when the bound or the heap is exhausted. Memory is not cleared. */
void *arena_acquire(struct arena *arena, uint64_t size) MUST_CHECK;
/** Copy; data NULL when exhausted and the source was not empty. */
struct span arena_copy(struct arena *arena, struct span source) MUST_CHECK;

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/span.h"

#define ARENA_ALIGNMENT 16u

/*
 * Memory that lives as long as its owner and is reset as a whole: blocks from the heap, bump
 * allocation, 16-octet alignment. Growth is bounded by size_max; beyond it arena_acquire() returns
 * NULL and the caller answers with a limit.
 */
struct arena_block {
    struct arena_block *next;
    uint64_t size; /* of octets */
    _Alignas(ARENA_ALIGNMENT) uint8_t octets[];
};
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
static inline void *arena_acquire(struct arena *arena, uint64_t size) MUST_CHECK;
/** Copy; data NULL when exhausted and the source was not empty. */
struct span arena_copy(struct arena *arena, struct span source) MUST_CHECK;
/* Of arena_acquire() alone: the newest block has no room for it. */
void *arena_acquire_slow(struct arena *arena, uint64_t size) MUST_CHECK;

static inline void *arena_acquire(struct arena *arena, uint64_t size)
{
    struct arena_block *block = arena->blocks;
    uint64_t aligned = (size + ARENA_ALIGNMENT - 1) & ~(uint64_t)(ARENA_ALIGNMENT - 1);

    /* 0: nothing was asked for, or so much that it went round. */
    if (block == NULL || aligned == 0 || aligned > block->size - arena->used)
        return arena_acquire_slow(arena, size);
    uint8_t *octets = block->octets + arena->used;
    arena->used += (uint32_t)aligned;
    return octets;
}

#endif

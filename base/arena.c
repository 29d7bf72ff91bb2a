/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bump allocation from heap blocks.
 *
 * Requests that fit are cut from the newest block. A request larger than block_size gets a block of
 * exactly its size, linked behind the newest one, whose rest stays in use.
 *
 * Invariants
 *   1. `used` <= size of the newest block; both are multiples of ARENA_ALIGNMENT.
 *   2. `size` is the sum over all blocks and at most size_max: close to the bound a block is made
 *      only as large as the request.
 *   3. After a reset at most one block is left, and none larger than block_size: one large message
 *      does not fatten an idle session.
 */
#include "base/arena.h"

#include <stdlib.h>

#define ARENA_REQUEST_MAX (1u << 30) /* octets of one request; `used` counts in 32 bits */

static uint64_t arena_align(uint64_t size)
{
    return (size + ARENA_ALIGNMENT - 1) & ~(uint64_t)(ARENA_ALIGNMENT - 1);
}

void arena_init(struct arena *arena, uint32_t block_size, uint64_t size_max)
{
    CHECK(block_size >= ARENA_ALIGNMENT && block_size <= ARENA_REQUEST_MAX);
    CHECK(size_max <= UINT64_MAX / 2);
    *arena = (struct arena){
        .block_size = (uint32_t)arena_align(block_size),
        .size_max = size_max,
    };
}

static void arena_free_blocks(struct arena_block *block)
{
    while (block != NULL) {
        struct arena_block *next = block->next;

        free(block);
        block = next;
    }
}

void arena_fini(struct arena *arena)
{
    arena_free_blocks(arena->blocks);
    arena->blocks = NULL;
    arena->used = 0;
    arena->size = 0;
}

void arena_reset(struct arena *arena)
{
    struct arena_block *block = arena->blocks;

    if (block == NULL)
        return;
    if (block->size > arena->block_size) {
        arena_fini(arena);
        return;
    }
    arena_free_blocks(block->next);
    block->next = NULL;
    arena->used = 0;
    arena->size = block->size;
}

/* A block with room for `size` octets, counted; NULL at the bound. */
static struct arena_block *arena_block_new(struct arena *arena, uint64_t size)
{
    uint64_t block_size = size > arena->block_size ? size : arena->block_size;

    if (block_size > arena->size_max - arena->size)
        block_size = size;
    if (block_size > arena->size_max - arena->size)
        return NULL;
    struct arena_block *block = malloc(sizeof(*block) + block_size);
    if (block == NULL)
        return NULL;
    block->size = block_size;
    arena->size += block_size;
    return block;
}

static void *block_acquire(struct arena *arena, uint64_t size)
{
    struct arena_block *block = arena_block_new(arena, size);

    if (block == NULL)
        return NULL;
    if (size > arena->block_size && arena->blocks != NULL) {
        block->next = arena->blocks->next;
        arena->blocks->next = block;
        return block->octets;
    }
    block->next = arena->blocks;
    arena->blocks = block;
    arena->used = (uint32_t)size;
    return block->octets;
}

void *arena_acquire_slow(struct arena *arena, uint64_t size)
{
    CHECK(arena->block_size > 0);
    if (size > ARENA_REQUEST_MAX)
        return NULL;
    size = arena_align(size > 0 ? size : 1);

    struct arena_block *block = arena->blocks;
    if (block == NULL || size > block->size - arena->used)
        return block_acquire(arena, size);
    uint8_t *octets = block->octets + arena->used;
    arena->used += (uint32_t)size;
    return octets;
}

struct span arena_copy(struct arena *arena, struct span source)
{
    if (source.size == 0)
        return (struct span){NULL, 0};
    uint8_t *octets = arena_acquire(arena, source.size);
    if (octets == NULL)
        return (struct span){NULL, 0};
    memcpy(octets, source.data, source.size);
    return span_of(octets, source.size);
}

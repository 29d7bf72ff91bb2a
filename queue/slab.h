/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_SLAB_H
#define QUEUE_SLAB_H

#include "base/err.h"
#include "queue/blocks.h"

/*
 * Objects of one size by the million: cut from 64 KB blocks, O(1) to acquire and release, walkable
 * while they live, and each knows its slab. Blocks stay until the slab ends.
 */
#define SLAB_BLOCK_SIZE BLOCK_SIZE
#define SLAB_OBJECT_MIN 32u
#define SLAB_LIVE_WORDS (SLAB_BLOCK_SIZE / SLAB_OBJECT_MIN / 64)
/* A reference is the number of the block, and that of the object in it: half as large as a pointer,
 * for links of which there are millions. 0 is that of NULL. */
#define SLAB_REF_SHIFT  11u
#define SLAB_BLOCKS_MAX ((1u << (32 - SLAB_REF_SHIFT)) - 1)

struct slab_block;
struct slab {
    uint32_t object_size, per_block, block_count, block_capacity;
    uint64_t inverse; /* 2^32 / object_size, rounded up: a division less for each reference */
    uint32_t in_use, count_max;
    void *owner; /* of all objects: slab_owner() */
    struct slab_block **blocks;
    uint64_t *used; /* bit i: something lives in block i */
    void *free;     /* first free object; its first octets point to the next */
};

/** `object_size` is SLAB_OBJECT_MIN to 4,096, and a multiple of 8. */
void slab_init(struct slab *slab, uint32_t object_size, uint32_t count_max, void *owner);
/** Frees all blocks, whatever still lives in them. */
void slab_fini(struct slab *slab);
/** A cleared object, or NULL at count_max or when the heap is exhausted. */
void *slab_acquire(struct slab *slab) MUST_CHECK;
void slab_release(struct slab *slab, void *object);
/** The owner of the slab that this object was acquired from. */
void *slab_owner(const void *object);
uint32_t slab_ref(const void *object);
/** The object of that reference; NULL for 0. */
void *slab_at(const struct slab *slab, uint32_t ref);
/** The same, of the slab of this object. */
void *slab_peer(const void *object, uint32_t ref);
/** The next living object at or behind `*cursor`, which starts at 0; NULL at the end. Cost: what is
 * free is passed over 64 objects, and 64 blocks, at a time. */
void *slab_next(const struct slab *slab, uint64_t *cursor);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_NET_SLAB_H
#define DATAPLANE_WIRE_NET_SLAB_H

#include "base/check.h"

/*
 * Entries of one size, named by index, in blocks that are made when they are needed, never moved
 * and freed only with the slab. An entry begins with a uint32_t of its owner's, which links it
 * while it is free.
 */
#define WIRE_SLAB_BLOCK 64u
#define WIRE_SLAB_NONE  UINT32_MAX

struct wire_slab {
    uint32_t entry_size, count_max;
    uint32_t made, in_use, free; /* free: first of the free ones */
    void **blocks;
};

/** Heap; start-up. */
void wire_slab_init(struct wire_slab *slab, uint32_t entry_size, uint32_t count_max);
/** CHECKs nothing about what is in use: the owner frees what its entries hold. */
void wire_slab_fini(struct wire_slab *slab);
/** Index of a zeroed entry; WIRE_SLAB_NONE at the limit. */
uint32_t wire_slab_acquire(struct wire_slab *slab) MUST_CHECK;
void wire_slab_release(struct wire_slab *slab, uint32_t index);
static inline void *wire_slab_at(const struct wire_slab *slab, uint32_t index)
{
    CHECK(index < slab->made);
    char *block = slab->blocks[index / WIRE_SLAB_BLOCK];
    return block + (size_t)(index % WIRE_SLAB_BLOCK) * slab->entry_size;
}
uint64_t wire_slab_memory(const struct wire_slab *slab);

#endif

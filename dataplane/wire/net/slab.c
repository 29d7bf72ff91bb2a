/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of WIRE_SLAB_BLOCK entries and a list of the free ones, last freed first.
 *
 * Invariants
 *   1. Entries [0, made) exist, in_use of them are out, the others are on the free list.
 *   2. An entry that is handed out is all zero.
 */
#include "dataplane/wire/net/slab.h"

#include <stdlib.h>
#include <string.h>

void wire_slab_init(struct wire_slab *slab, uint32_t entry_size, uint32_t count_max)
{
    CHECK(entry_size >= sizeof(uint32_t) && entry_size % sizeof(uint64_t) == 0);
    CHECK(count_max > 0 && count_max < WIRE_SLAB_NONE);
    *slab = (struct wire_slab){
        .entry_size = entry_size, .count_max = count_max, .free = WIRE_SLAB_NONE};
    slab->blocks = calloc((count_max - 1) / WIRE_SLAB_BLOCK + 1, sizeof(*slab->blocks));
    CHECK(slab->blocks != NULL);
}

void wire_slab_fini(struct wire_slab *slab)
{
    for (uint32_t i = 0; i < slab->made; i += WIRE_SLAB_BLOCK)
        free(slab->blocks[i / WIRE_SLAB_BLOCK]);
    free(slab->blocks);
    *slab = (struct wire_slab){0};
}

static bool wire_slab_grow(struct wire_slab *slab)
{
    if (slab->made == slab->count_max)
        return false;
    void **block = &slab->blocks[slab->made / WIRE_SLAB_BLOCK];
    if (*block == NULL)
        *block = calloc(WIRE_SLAB_BLOCK, slab->entry_size);
    if (*block == NULL)
        return false;
    slab->made++;
    return true;
}

uint32_t wire_slab_acquire(struct wire_slab *slab)
{
    uint32_t index = slab->free;

    if (index == WIRE_SLAB_NONE) {
        if (!wire_slab_grow(slab))
            return WIRE_SLAB_NONE;
        index = slab->made - 1;
    } else {
        memcpy(&slab->free, wire_slab_at(slab, index), sizeof(slab->free));
    }
    memset(wire_slab_at(slab, index), 0, slab->entry_size);
    slab->in_use++;
    return index;
}

void wire_slab_release(struct wire_slab *slab, uint32_t index)
{
    CHECK(slab->in_use > 0);
    memcpy(wire_slab_at(slab, index), &slab->free, sizeof(slab->free));
    slab->free = index;
    slab->in_use--;
}

uint64_t wire_slab_memory(const struct wire_slab *slab)
{
    uint64_t blocks = (slab->made + WIRE_SLAB_BLOCK - 1) / WIRE_SLAB_BLOCK;
    return blocks * WIRE_SLAB_BLOCK * slab->entry_size +
           ((uint64_t)(slab->count_max - 1) / WIRE_SLAB_BLOCK + 1) * sizeof(void *);
}

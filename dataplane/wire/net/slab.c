/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of SLAB_BLOCK entries and a list of the free ones, last freed first.
 *
 * Invariants
 *   1. Entries [0, made) exist, in_use of them are out, the others are on the free list.
 *   2. An entry that is handed out is all zero.
 */
#include "dataplane/wire/net/slab.h"

#include <stdlib.h>
#include <string.h>

void slab_init(struct slab *slab, uint32_t entry_size, uint32_t count_max)
{
    CHECK(entry_size >= sizeof(uint32_t) && entry_size % sizeof(uint64_t) == 0);
    CHECK(count_max > 0 && count_max < SLAB_NONE);
    *slab = (struct slab){.entry_size = entry_size, .count_max = count_max, .free = SLAB_NONE};
    slab->blocks = calloc((count_max - 1) / SLAB_BLOCK + 1, sizeof(*slab->blocks));
    CHECK(slab->blocks != NULL);
}

void slab_fini(struct slab *slab)
{
    for (uint32_t i = 0; i < slab->made; i += SLAB_BLOCK)
        free(slab->blocks[i / SLAB_BLOCK]);
    free(slab->blocks);
    *slab = (struct slab){0};
}

static bool slab_grow(struct slab *slab)
{
    if (slab->made == slab->count_max)
        return false;
    void **block = &slab->blocks[slab->made / SLAB_BLOCK];
    if (*block == NULL)
        *block = calloc(SLAB_BLOCK, slab->entry_size);
    if (*block == NULL)
        return false;
    slab->made++;
    return true;
}

uint32_t slab_acquire(struct slab *slab)
{
    uint32_t index = slab->free;

    if (index == SLAB_NONE) {
        if (!slab_grow(slab))
            return SLAB_NONE;
        index = slab->made - 1;
    } else {
        memcpy(&slab->free, slab_at(slab, index), sizeof(slab->free));
    }
    memset(slab_at(slab, index), 0, slab->entry_size);
    slab->in_use++;
    return index;
}

void slab_release(struct slab *slab, uint32_t index)
{
    CHECK(slab->in_use > 0);
    memcpy(slab_at(slab, index), &slab->free, sizeof(slab->free));
    slab->free = index;
    slab->in_use--;
}

uint64_t slab_memory(const struct slab *slab)
{
    uint64_t blocks = (slab->made + SLAB_BLOCK - 1) / SLAB_BLOCK;
    return blocks * SLAB_BLOCK * slab->entry_size +
           ((uint64_t)(slab->count_max - 1) / SLAB_BLOCK + 1) * sizeof(void *);
}

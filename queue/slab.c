/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of SLAB_BLOCK_SIZE octets, aligned to their size, so that an object finds its block's
 * header by masking its own address.
 *
 * Invariants
 *   1. Bit i of a block's `live` is set exactly while its object i is acquired.
 *   2. Every object that is not acquired is in the free list once.
 *   3. in_use is the number of set bits and at most count_max.
 *   4. Bit i of `used` is set exactly while a bit of block i is.
 *
 * Under AddressSanitizer free objects are poisoned but for the link in their first octets, so that
 * use after release is seen.
 */
#include "queue/slab.h"

#include <stdlib.h>
#include <string.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define SLAB_POISON(data, size)   __asan_poison_memory_region((data), (size))
#define SLAB_UNPOISON(data, size) __asan_unpoison_memory_region((data), (size))
#else
#define SLAB_POISON(data, size)   ((void)(data), (void)(size))
#define SLAB_UNPOISON(data, size) ((void)(data), (void)(size))
#endif

_Static_assert(SLAB_LIVE_WORDS * 64 <= 1u << SLAB_REF_SHIFT, "the objects of a block have numbers");

struct slab_block {
    struct slab *slab;
    uint32_t number, live_count;
    uint64_t live[SLAB_LIVE_WORDS];
    _Alignas(16) uint8_t objects[];
};

static struct slab_block *slab_block_of(const void *object)
{
    return (struct slab_block *)((uintptr_t)object & ~(uintptr_t)(SLAB_BLOCK_SIZE - 1));
}

static uint32_t slab_index_in(const struct slab_block *block, const void *object)
{
    uintptr_t offset = (uintptr_t)object - (uintptr_t)block->objects;

    uint32_t index = (uint32_t)(offset * block->slab->inverse >> 32);
    CHECK(index * block->slab->object_size == offset);
    return index;
}

void slab_init(struct slab *slab, uint32_t object_size, uint32_t count_max, void *owner)
{
    CHECK(object_size >= SLAB_OBJECT_MIN && object_size <= 4096 && object_size % 8 == 0);
    *slab = (struct slab){
        .object_size = object_size,
        .per_block = (uint32_t)((SLAB_BLOCK_SIZE - sizeof(struct slab_block)) / object_size),
        .inverse = (1ull << 32) / object_size + 1,
        .count_max = count_max,
        .owner = owner,
    };
}

void slab_fini(struct slab *slab)
{
    for (uint32_t i = 0; i < slab->block_count; i++) {
        SLAB_UNPOISON(slab->blocks[i], SLAB_BLOCK_SIZE);
        block_free(slab->blocks[i]);
    }
    free(slab->blocks);
    free(slab->used);
    *slab = (struct slab){0};
}

static void slab_free_push(struct slab *slab, void *object)
{
    memcpy(object, &slab->free, sizeof(slab->free));
    slab->free = object;
    SLAB_POISON((uint8_t *)object + sizeof(void *), slab->object_size - sizeof(void *));
}

static bool slab_grow(struct slab *slab)
{
    if (slab->block_count == SLAB_BLOCKS_MAX)
        return false;
    if (slab->block_count == slab->block_capacity) {
        uint32_t capacity = slab->block_capacity == 0 ? 16 : slab->block_capacity * 2;
        struct slab_block **blocks = realloc(slab->blocks, capacity * sizeof(*slab->blocks));
        if (blocks == NULL)
            return false;
        slab->blocks = blocks;
        uint64_t *used = realloc(slab->used, (capacity / 64 + 1) * sizeof(*used));
        if (used == NULL)
            return false;
        slab->used = used;
        slab->block_capacity = capacity;
    }
    struct slab_block *block = block_new();
    if (block == NULL)
        return false;
    *block = (struct slab_block){.slab = slab, .number = slab->block_count};
    if (slab->block_count % 64 == 0)
        slab->used[slab->block_count / 64] = 0;
    slab->blocks[slab->block_count++] = block;
    for (uint32_t i = slab->per_block; i-- > 0;)
        slab_free_push(slab, block->objects + (size_t)i * slab->object_size);
    return true;
}

void *slab_acquire(struct slab *slab)
{
    if (slab->in_use >= slab->count_max || (slab->free == NULL && !slab_grow(slab)))
        return NULL;
    void *object = slab->free;
    memcpy(&slab->free, object, sizeof(slab->free));
    SLAB_UNPOISON(object, slab->object_size);
    struct slab_block *block = slab_block_of(object);
    uint32_t index = slab_index_in(block, object);
    block->live[index / 64] |= 1ull << index % 64;
    if (block->live_count++ == 0)
        slab->used[block->number / 64] |= 1ull << block->number % 64;
    slab->in_use++;
    memset(object, 0, slab->object_size);
    return object;
}

void slab_release(struct slab *slab, void *object)
{
    struct slab_block *block = slab_block_of(object);
    uint32_t index = slab_index_in(block, object);

    CHECK(block->slab == slab && index < slab->per_block);
    CHECK(block->live[index / 64] >> index % 64 & 1);
    block->live[index / 64] &= ~(1ull << index % 64);
    if (--block->live_count == 0)
        slab->used[block->number / 64] &= ~(1ull << block->number % 64);
    slab->in_use--;
    slab_free_push(slab, object);
}

void *slab_owner(const void *object)
{
    return slab_block_of(object)->slab->owner;
}

/* The first set bit at or behind `from`, below `count`; `count` when there is none. */
static uint32_t bit_next(const uint64_t *words, uint32_t from, uint32_t count)
{
    while (from < count) {
        uint64_t rest = words[from / 64] >> from % 64;
        if (rest != 0) {
            from += (uint32_t)__builtin_ctzll(rest);
            return from < count ? from : count;
        }
        from = (from / 64 + 1) * 64;
    }
    return count;
}

uint32_t slab_ref(const void *object)
{
    if (object == NULL)
        return 0;
    const struct slab_block *block = slab_block_of(object);
    return (block->number + 1) << SLAB_REF_SHIFT | slab_index_in(block, object);
}

void *slab_at(const struct slab *slab, uint32_t ref)
{
    uint32_t number = ref >> SLAB_REF_SHIFT, index = ref & ((1u << SLAB_REF_SHIFT) - 1);

    if (ref == 0)
        return NULL;
    CHECK(number > 0 && number <= slab->block_count && index < slab->per_block);
    return slab->blocks[number - 1]->objects + (size_t)index * slab->object_size;
}

void *slab_peer(const void *object, uint32_t ref)
{
    return ref == 0 ? NULL : slab_at(slab_block_of(object)->slab, ref);
}

void *slab_next(const struct slab *slab, uint64_t *cursor)
{
    for (;;) {
        uint64_t number = *cursor / slab->per_block;
        uint32_t at = number < slab->block_count
                          ? bit_next(slab->used, (uint32_t)number, slab->block_count)
                          : slab->block_count;
        if (at > number)
            *cursor = (uint64_t)at * slab->per_block;
        if (at == slab->block_count)
            return NULL;
        struct slab_block *block = slab->blocks[at];
        uint32_t index =
            bit_next(block->live, (uint32_t)(*cursor % slab->per_block), slab->per_block);
        *cursor = (uint64_t)at * slab->per_block + index + (index < slab->per_block);
        if (index < slab->per_block)
            return block->objects + (size_t)index * slab->object_size;
    }
}

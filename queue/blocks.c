/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of slabs: what is free is kept in a list, and what is new is cut from regions of
 * REGION_SIZE, each of them a huge page if the system has one to give.
 *
 * At a start the indexes of segments give way to the queue that is made of them. Their memory comes
 * here when they are done with, and the queue is built in it: nothing is faulted in and cleared
 * twice, and a start needs little more than what stays.
 *
 * Invariants (under the mutex)
 *   1. A block is used by somebody, or once in the list, or between `fresh` and `fresh_end`.
 *   2. Blocks in the list link by their first octets.
 *
 * Under AddressSanitizer every block is one of the heap, so that what is used after its time is
 * seen.
 */
#include "queue/blocks.h"

#include <stdlib.h>

#ifdef __SANITIZE_ADDRESS__

#include "queue/pages.h"

void *block_new(void)
{
    return aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
}

void block_free(void *block)
{
    free(block);
}

void blocks_give(void *pages, size_t size)
{
    spool_pages_free(pages, size);
}

void blocks_trim(void)
{
}

#else

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "base/pages.h"

#define REGION_SIZE PAGES_HUGE_SIZE

static struct {
    pthread_mutex_t mutex;
    void *list;
    uint8_t *fresh, *fresh_end;
} blocks = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void unmap(uint8_t *from, const uint8_t *to)
{
    /* To free a part of what was mapped in one piece may take memory of the system: if it has
     * none, the part stays. */
    if (from < to)
        (void)munmap(from, (size_t)(to - from));
}

static bool blocks_grow(void)
{
    uint8_t *region = pages_new(REGION_SIZE);

    if (region == NULL)
        return false;
    blocks.fresh = region;
    blocks.fresh_end = region + REGION_SIZE;
    return true;
}

static void list_push(void *block)
{
    memcpy(block, &blocks.list, sizeof(blocks.list));
    blocks.list = block;
}

static void *list_pop(void)
{
    void *block = blocks.list;

    if (block != NULL)
        memcpy(&blocks.list, block, sizeof(blocks.list));
    return block;
}

void *block_new(void)
{
    CHECK(pthread_mutex_lock(&blocks.mutex) == 0);
    void *block = list_pop();
    if (block == NULL && (blocks.fresh < blocks.fresh_end || blocks_grow())) {
        block = blocks.fresh;
        blocks.fresh += BLOCK_SIZE;
    }
    CHECK(pthread_mutex_unlock(&blocks.mutex) == 0);
    return block;
}

void block_free(void *block)
{
    CHECK(pthread_mutex_lock(&blocks.mutex) == 0);
    list_push(block);
    CHECK(pthread_mutex_unlock(&blocks.mutex) == 0);
}

void blocks_give(void *pages, size_t size)
{
    uint8_t *start = pages, *end = start + size + 1; /* as queue/pages.c took it */
    uint8_t *first = start + (-(uintptr_t)start & (BLOCK_SIZE - 1));

    if (first + BLOCK_SIZE > end) {
        unmap(start, end);
        return;
    }
    uint8_t *last = end - ((uintptr_t)end & (BLOCK_SIZE - 1)); /* behind the last block */
    unmap(start, first);
    unmap(last, end);
    CHECK(pthread_mutex_lock(&blocks.mutex) == 0);
    for (uint8_t *block = last; block > first; block -= BLOCK_SIZE)
        list_push(block - BLOCK_SIZE);
    CHECK(pthread_mutex_unlock(&blocks.mutex) == 0);
}

void blocks_trim(void)
{
    uint8_t *block;

    CHECK(pthread_mutex_lock(&blocks.mutex) == 0);
    while ((block = list_pop()) != NULL)
        unmap(block, block + BLOCK_SIZE);
    CHECK(pthread_mutex_unlock(&blocks.mutex) == 0);
}

#endif

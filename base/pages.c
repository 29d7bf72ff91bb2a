/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory for large tables, straight from the kernel.
 *
 * An allocator's large blocks begin at any page and are rounded up to its size classes. A table
 * that is reached at random wants neither: on 4 KiB pages nearly every access to some hundred
 * megabytes misses the TLB, and in a virtual machine each miss walks two page tables. So a block of
 * a huge page or more is aligned to one: a piece larger by that much is mapped, and what lies
 * before and behind is given back at once. Whether the kernel has huge pages to give changes the
 * speed and nothing else.
 *
 * Limits: none of its own; an address space, and max_map_count mappings.
 */
#include "base/pages.h"

#include <stdint.h>
#include <sys/mman.h>

#include "base/check.h"

static size_t round_up(size_t size)
{
    return (size + PAGES_ALIGNMENT - 1) / PAGES_ALIGNMENT * PAGES_ALIGNMENT;
}

static void unmap(uint8_t *from, uint8_t *to)
{
    if (to > from)
        CHECK(munmap(from, (size_t)(to - from)) == 0);
}

void *pages_new(size_t size)
{
    CHECK(size > 0 && size <= SIZE_MAX / 2);
    size_t whole = round_up(size), spare = whole >= PAGES_HUGE_SIZE ? PAGES_HUGE_SIZE : 0;
    uint8_t *mapped = mmap(NULL, whole + spare, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (mapped == MAP_FAILED)
        return NULL;
    if (spare == 0)
        return mapped;
    uint8_t *pages = mapped + (-(uintptr_t)mapped & (PAGES_HUGE_SIZE - 1));
    unmap(mapped, pages);
    unmap(pages + whole, mapped + whole + spare);
    /* Refused where the kernel was built without: small pages do. */
    (void)madvise(pages, whole, MADV_HUGEPAGE);
    return pages;
}

void pages_free(void *pages, size_t size)
{
    if (pages != NULL)
        unmap(pages, (uint8_t *)pages + round_up(size));
}

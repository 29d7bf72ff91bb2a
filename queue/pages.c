/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages from mmap(). Under AddressSanitizer they come from the heap, so that what lies beside them
 * is watched.
 */
#include "queue/pages.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "base/err.h"

#ifdef __SANITIZE_ADDRESS__

void *spool_pages_new(size_t size)
{
    void *pages = calloc(1, size + 1);
    CHECK(pages != NULL);
    return pages;
}

void spool_pages_free(void *pages, size_t size)
{
    (void)size;
    free(pages);
}

#else

void *spool_pages_new(size_t size)
{
    int protection = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *pages = mmap(NULL, size + 1, protection, flags, -1, 0);
    CHECK(pages != MAP_FAILED);
    return pages;
}

void spool_pages_free(void *pages, size_t size)
{
    if (pages != NULL)
        CHECK(munmap(pages, size + 1) == 0);
}

#endif

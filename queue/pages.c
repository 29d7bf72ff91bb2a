/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages from the system, huge ones if it has them. Under AddressSanitizer they come from the heap,
 * so that what lies beside them is watched.
 */
#include "queue/pages.h"

#include <stdlib.h>

#include "base/err.h"
#include "base/pages.h"

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
    void *pages = pages_new(size + 1);
    CHECK(pages != NULL);
    return pages;
}

void spool_pages_free(void *pages, size_t size)
{
    pages_free(pages, size + 1);
}

#endif

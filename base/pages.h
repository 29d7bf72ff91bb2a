/* SPDX-License-Identifier: Apache-2.0 */
/* Memory for large tables: zeroed, taken page by page as it is touched, on huge pages where the
 * system gives them. */
#ifndef BASE_PAGES_H
#define BASE_PAGES_H

#include <stddef.h>

/** `size` octets, all zero, aligned to PAGES_ALIGNMENT or, from PAGES_HUGE_SIZE on, to a huge page,
 * which the kernel is then asked to use (madvise(2), MADV_HUGEPAGE). NULL: no memory. The caller's
 * until pages_free() with the same size. */
void *pages_new(size_t size);
/** NULL is a no-op. */
void pages_free(void *pages, size_t size);

#define PAGES_ALIGNMENT 4096u
#define PAGES_HUGE_SIZE ((size_t)2 << 20)

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_PAGES_H
#define QUEUE_PAGES_H

#include <stddef.h>

/*
 * Memory for much that is needed once: it goes back to the system when it is freed. The heap would
 * keep what the threads of a start have freed, for threads that are gone.
 */

/** Cleared memory, not yet resident. Ends the process when there is none. */
void *spool_pages_new(size_t size);
/** `size` as it was asked for; NULL is freed already. */
void spool_pages_free(void *pages, size_t size);

#endif

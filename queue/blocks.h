/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_BLOCKS_H
#define QUEUE_BLOCKS_H

#include <stddef.h>

#include "base/check.h"

/*
 * Blocks of memory for all slabs of the process, from any thread.
 */
#define BLOCK_SIZE 65536u

/** BLOCK_SIZE octets, aligned to as many, not cleared. NULL when there is no memory. */
void *block_new(void) MUST_CHECK;
/** For the next one who wants a block. */
void block_free(void *block);
/** Likewise, all blocks that lie in memory of spool_pages_new(`size`); the rest of it is freed. */
void blocks_give(void *pages, size_t size);
/** What nobody has goes back to the system. */
void blocks_trim(void);

#endif

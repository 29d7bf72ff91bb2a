/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_PORT_BUF_MEMPOOL_H
#define DATAPLANE_WIRE_PORT_BUF_MEMPOOL_H

#include "base/buf.h"

struct rte_mempool;

#define BUF_MEMPOOL_NAME_MAX 24u
#define BUF_MEMPOOL_ANY_NODE (-1)

/**
 * A pool whose buffers drivers fill and empty, too: it stands on an rte_mempool of packet buffers.
 *
 * Everything of base/buf.h works on it; buf_pool_free() frees the mempool. What is to be sent
 * through a port, and what clones of it show, must come from such pools.
 *
 * Bounds:     `name` is unique in the process, 1 to BUF_MEMPOOL_NAME_MAX octets; data_size as in
 *             buf_pool_options. `numa_node` BUF_MEMPOOL_ANY_NODE: wherever memory is.
 * Threading:  the owner shard's, as every pool; but a last reference may be given up by any thread
 *             that nobody else races with, as drivers' helper threads do.
 * Errors:     ERR_SYSTEM if the EAL has not so much memory, or is not up.
 */
enum err buf_pool_new_on_mempool(const char *name, uint32_t count, uint32_t data_size,
                                 int numa_node, struct buf_pool **ret_pool) MUST_CHECK;

/** The mempool below, for drivers. CHECKs that there is one. */
struct rte_mempool *buf_pool_mempool(const struct buf_pool *pool);
/** Whether it stands on a mempool. */
bool buf_pool_is_on_mempool(const struct buf_pool *pool);

/**
 * Release a chain that is the caller's alone, but of another shard's pool: the buffers go straight
 * back, past the cache that this thread has of that pool.
 *
 * Threading:  any thread.
 */
void buf_mempool_give_back(struct buf *chain);

/** What is in use now is lost, and no longer counted: a driver was closed and kept it. */
void buf_mempool_write_off(struct buf_pool *pool);

#endif

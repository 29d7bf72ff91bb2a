/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_BUF_POOL_H
#define BASE_BUF_POOL_H

#include "base/buf.h"

/*
 * Private to buffer pools: what base/buf.c and another backing (dataplane/wire/port/buf_mempool.c)
 * share. Everybody else includes base/buf.h.
 *
 * mbuf.pool tells where a buffer belongs. Drivers read it as a struct rte_mempool, so a pool that
 * stands on one leaves it alone, and its struct buf_pool lies in the mempool's private area, right
 * behind what DPDK keeps there. Pools of our own set the lowest bit of the pointer: no driver ever
 * sees such a buffer.
 */
struct buf_pool_ops {
    struct buf *(*acquire)(struct buf_pool *pool); /* refcnt 1; NULL: none left */
    /* The only reference, refcnt still 1, is given up. */
    void (*release)(struct buf_pool *pool, struct buf *buf);
    struct buf *(*clone)(struct buf_pool *pool, struct buf *buf, uint32_t offset, uint32_t size);
    uint32_t (*in_use)(const struct buf_pool *pool);
    uint32_t (*available)(const struct buf_pool *pool);
    void (*free)(struct buf_pool *pool);
};

struct buf_pool {
    const struct buf_pool_ops *ops; /* NULL: slabs or heap of base/buf.c */
    void *context;                  /* of ops */
    struct buf *free;               /* linked by mbuf.next */
    uint32_t in_use, created, count_max;
    uint32_t data_size, stride;
    enum buf_backing backing;
    uint64_t exhausted;
    void **slabs;
    uint32_t slab_count;
};

#define BUF_POOL_TAG 1u
/* Octets of a mempool's private area that are DPDK's (struct rte_pktmbuf_pool_private). */
#define BUF_POOL_PRIVATE_OFFSET 8u

/* Of a pool of our own: no driver may get it. */
static inline bool buf_is_tagged(const struct buf *buf)
{
    return ((uintptr_t)buf->mbuf.pool & BUF_POOL_TAG) != 0;
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buffer pools on rte_mempool.
 *
 * A driver allocates received buffers and frees sent ones behind our back, straight from and to the
 * mempool. So nothing is counted here: what is in use is asked from the mempool.
 *
 * Invariants
 *   1. A free buffer has refcnt 1, nb_segs 1, next NULL and its own octets: what drivers expect of
 *      rte_mbuf_raw_alloc().
 *   2. A clone is what rte_pktmbuf_attach() makes: RTE_MBUF_F_INDIRECT, buf_addr and priv_size of
 *      the buffer shown, from which DPDK finds that buffer again. So rte_pktmbuf_free() in a driver
 *      and buf_release() do the same.
 *   3. The struct buf_pool lies in the mempool's private area behind DPDK's own
 *      (BUF_POOL_PRIVATE_OFFSET).
 *   4. What no thread has cached lies in an rte_stack, mempool.pool_data: last in, first out, so
 *      that a busy pool goes round in few buffers, which the processor's caches hold, and not in
 *      all of its memory. We choose these mempool ops by name, since any others' count can be had
 *      only by asking all caches.
 *
 * Reference counts are plain here and atomic in drivers: both run in the owner's thread.
 *
 * A thread the EAL knows (eal_thread_enter()) keeps up to one and a half times CACHE_MAX free
 * buffers of a pool at hand without touching the shared stack. Other threads' share counts as not
 * available to us, but not as in use.
 */
#include "dataplane/wire/port/buf_mempool.h"

#include <rte_eal.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_stack.h>
#include <stddef.h>

#include "base/buf_pool.h"

#define CACHE_MAX 128u
/* A pool gives each thread's cache at most this part of it. */
#define CACHE_SHARE   8u
#define DATA_SIZE_MAX 65000u

_Static_assert(BUF_HEADROOM == RTE_PKTMBUF_HEADROOM, "drivers put the data where we expect it");
_Static_assert(BUF_POOL_PRIVATE_OFFSET == sizeof(struct rte_pktmbuf_pool_private), "behind DPDK's");
_Static_assert(BUF_POOL_PRIVATE_OFFSET % _Alignof(struct buf_pool) == 0, "aligned");
_Static_assert(BUF_MEMPOOL_NAME_MAX < RTE_MEMPOOL_NAMESIZE, "names fit");
_Static_assert(CACHE_MAX <= RTE_MEMPOOL_CACHE_MAX_SIZE, "caches fit");

static struct rte_mbuf *to_mbuf(struct buf *buf)
{
    return (struct rte_mbuf *)(void *)buf;
}

static struct buf *to_buf(struct rte_mbuf *mbuf)
{
    return (struct buf *)(void *)mbuf;
}

static struct buf *mempool_acquire(struct buf_pool *pool)
{
    return to_buf(rte_mbuf_raw_alloc(pool->context));
}

static void mempool_release(struct buf_pool *pool, struct buf *buf)
{
    (void)pool;
    rte_pktmbuf_free_seg(to_mbuf(buf));
}

/* The octets of some drivers' buffers lie outside, with a count of their own. */
static void clone_external(struct rte_mbuf *clone, struct rte_mbuf *shown)
{
    rte_pktmbuf_attach(clone, shown);
    clone->ol_flags = RTE_MBUF_F_EXTERNAL;
}

static void clone_ordinary(struct rte_mbuf *clone, struct rte_mbuf *shown)
{
    if (RTE_MBUF_CLONED(shown))
        shown = rte_mbuf_from_indirect(shown);
    buf_reference(to_buf(shown));
    /* Invariant 2. */
    clone->priv_size = shown->priv_size;
    clone->buf_addr = shown->buf_addr;
    rte_mbuf_iova_set(clone, rte_mbuf_iova_get(shown));
    clone->buf_len = shown->buf_len;
    clone->ol_flags = RTE_MBUF_F_INDIRECT;
}

static struct buf *mempool_clone(struct buf_pool *pool, struct buf *buf, uint32_t offset,
                                 uint32_t size)
{
    CHECK(!buf_is_tagged(buf));
    struct buf *clone = buf_acquire(pool);
    if (clone == NULL)
        return NULL;
    if (RTE_MBUF_HAS_EXTBUF(to_mbuf(buf)))
        clone_external(to_mbuf(clone), to_mbuf(buf));
    else
        clone_ordinary(to_mbuf(clone), to_mbuf(buf));
    clone->mbuf.data_off = (uint16_t)offset;
    clone->mbuf.data_len = (uint16_t)size;
    clone->mbuf.pkt_len = size;
    return clone;
}

/* Exact, and slow: asks the caches of all threads. pool->in_use is what was written off. */
static uint32_t mempool_in_use(const struct buf_pool *pool)
{
    return rte_mempool_in_use_count(pool->context) - pool->in_use;
}

static uint32_t mempool_available(const struct buf_pool *pool)
{
    struct rte_mempool *mempool = pool->context;
    const struct rte_mempool_cache *cache = rte_mempool_default_cache(mempool, rte_lcore_id());
    uint32_t shared = rte_stack_count(mempool->pool_data); /* invariant 4 */

    return shared + (cache != NULL ? cache->len : 0);
}

static void mempool_free(struct buf_pool *pool)
{
    rte_mempool_free(pool->context); /* the pool goes with it */
}

static const struct buf_pool_ops mempool_ops = {
    .acquire = mempool_acquire,
    .release = mempool_release,
    .clone = mempool_clone,
    .in_use = mempool_in_use,
    .available = mempool_available,
    .free = mempool_free,
};

/* The ops, buffers and private areas of a mempool that is there but empty. */
static enum err mempool_populate(struct rte_mempool *mempool, uint32_t count, uint32_t data_size)
{
    struct rte_pktmbuf_pool_private private = {
        .mbuf_data_room_size = (uint16_t)(BUF_HEADROOM + data_size),
    };

    if (rte_mempool_set_ops_byname(mempool, "stack", NULL) != 0)
        return ERR_SYSTEM;
    rte_pktmbuf_pool_init(mempool, &private);
    if (rte_mempool_populate_default(mempool) != (int)count)
        return ERR_SYSTEM;
    rte_mempool_obj_iter(mempool, rte_pktmbuf_init, NULL);
    return ERR_OK;
}

/*
 * Without huge pages no card reads these buffers, so they may cross the system's small pages;
 * otherwise each of them is given pages of its own, and pools take up to twice their memory.
 */
static uint32_t layout(void)
{
    return rte_eal_has_hugepages() ? 0 : RTE_MEMPOOL_F_NO_IOVA_CONTIG;
}

enum err buf_pool_new_on_mempool(const char *name, uint32_t count, uint32_t data_size,
                                 int numa_node, struct buf_pool **ret_pool)
{
    CHECK(strlen(name) > 0 && strlen(name) <= BUF_MEMPOOL_NAME_MAX);
    CHECK(count > 0 && count <= INT32_MAX && data_size > 0 && data_size <= DATA_SIZE_MAX);

    uint32_t element = (uint32_t)sizeof(struct rte_mbuf) + BUF_HEADROOM + data_size;
    uint32_t cache = count / CACHE_SHARE < CACHE_MAX ? count / CACHE_SHARE : CACHE_MAX;
    uint32_t private_size = BUF_POOL_PRIVATE_OFFSET + (uint32_t)sizeof(struct buf_pool);
    struct rte_mempool *mempool =
        rte_mempool_create_empty(name, count, element, cache, private_size, numa_node, layout());

    if (mempool == NULL)
        return ERR_SYSTEM;
    enum err err = mempool_populate(mempool, count, data_size);
    if (err != ERR_OK) {
        rte_mempool_free(mempool);
        return err;
    }
    struct buf_pool *pool =
        (void *)((uint8_t *)rte_mempool_get_priv(mempool) + BUF_POOL_PRIVATE_OFFSET);
    *pool = (struct buf_pool){
        .ops = &mempool_ops,
        .context = mempool,
        .count_max = count,
        .data_size = data_size,
    };
    *ret_pool = pool;
    return ERR_OK;
}

void buf_mempool_give_back(struct buf *chain)
{
    struct rte_mbuf *next = NULL;

    for (struct rte_mbuf *mbuf = to_mbuf(chain); mbuf != NULL; mbuf = next) {
        next = mbuf->next;
        struct rte_mbuf *last = rte_pktmbuf_prefree_seg(mbuf);
        void *object = last;

        if (last != NULL)
            rte_mempool_generic_put(last->pool, &object, 1, NULL);
    }
}

void buf_mempool_write_off(struct buf_pool *pool)
{
    CHECK(buf_pool_is_on_mempool(pool));
    pool->in_use += mempool_in_use(pool);
}

bool buf_pool_is_on_mempool(const struct buf_pool *pool)
{
    return pool->ops == &mempool_ops;
}

struct rte_mempool *buf_pool_mempool(const struct buf_pool *pool)
{
    CHECK(buf_pool_is_on_mempool(pool));
    return pool->context;
}

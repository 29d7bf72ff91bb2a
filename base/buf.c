/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Buffer pools and queues of slices.
 *
 * A pool hands out buffers from a free list, last returned first, for that one is still in the
 * cache. When the list is empty and count_max allows, it grows by a slab of BUF_POOL_BLOCK buffers:
 * header, headroom and data of each in one piece of memory. With BUF_BACKING_HEAP every buffer is
 * a heap block that is freed with its last reference. A pool that stands on an rte_mempool has ops
 * (base/buf_pool.h); slabs and heap know no function pointer.
 *
 * A queue is one slice in place, or a ring of slices. The ring comes with the second, doubles when
 * full and is freed by buf_queue_fini() only, so that a queue in use settles at the size it needs.
 *
 * Invariants
 *   1. A buffer on the free list has refcnt 0; every buffer outside has refcnt >= 1. In a mempool
 *      free ones have refcnt 1, as drivers want it.
 *   2. in_use counts the buffers outside and is at most count_max.
 *   3. A slice holds one reference and lies within its buffer. `size` of a queue is the sum over
 *      its slices, none of which is empty.
 *   4. A clone (RTE_MBUF_F_INDIRECT) has no octets of its own while it is out; mbuf.shinfo is the
 *      buffer it shows, never a clone itself.
 *   5. buf_queue_append_copy() writes into a buffer's room only if its own last slice ends where
 *      the data ends and it holds the only reference: nobody else can see or use that room.
 *
 * All calls belong to the shard that owns the pool: counts are plain integers.
 */
#include "base/buf.h"

#include <rte_mempool.h>
#include <stdlib.h>

#include "base/buf_pool.h"

#define BUF_DATA_SIZE_MAX   65000u
#define BUF_LINE            64u
#define BUF_QUEUE_SLOTS_MIN 16u /* a message of 10 KB by frames of Ethernet */
#define BUF_QUEUE_SLOTS_MAX (1u << 30)
#define BUF_REFCNT_MAX      UINT16_MAX

_Static_assert(BUF_DATA_SIZE_MAX + BUF_HEADROOM <= UINT16_MAX, "buf_len is 16 bits");

/* ---- pools ---- */

static struct buf *buf_from_mbuf(struct rte_mbuf *mbuf)
{
    return (struct buf *)(void *)mbuf;
}

static struct rte_mbuf *buf_to_mbuf(struct buf *buf)
{
    return (struct rte_mbuf *)(void *)buf;
}

static struct buf_pool *buf_get_pool(const struct buf *buf)
{
    struct rte_mempool *pool = buf->mbuf.pool;

    if (buf_is_tagged(buf))
        return (struct buf_pool *)(void *)((uint8_t *)pool - BUF_POOL_TAG);
    return (struct buf_pool *)(void *)((uint8_t *)rte_mempool_get_priv(pool) +
                                       BUF_POOL_PRIVATE_OFFSET);
}

struct buf_pool *buf_pool_new(const struct buf_pool_options *options)
{
    CHECK(options->data_size > 0 && options->data_size <= BUF_DATA_SIZE_MAX);
    CHECK(options->count_max > 0);

    struct buf_pool *pool = calloc(1, sizeof(*pool));
    CHECK(pool != NULL);
    pool->data_size = options->data_size;
    pool->count_max = options->count_max;
    pool->backing = options->backing;
    uint32_t size = (uint32_t)sizeof(struct buf) + BUF_HEADROOM + options->data_size;
    /* Slab buffers begin on a cache line. Heap buffers end where their data ends, so that an
     * overrun by one octet is seen. */
    pool->stride = (size + BUF_LINE - 1) / BUF_LINE * BUF_LINE;
    uint32_t slab_max = (pool->count_max - 1) / BUF_POOL_BLOCK + 1;
    pool->slabs = calloc(slab_max, sizeof(*pool->slabs));
    CHECK(pool->slabs != NULL);
    return pool;
}

void buf_pool_free(struct buf_pool *pool)
{
    if (pool == NULL)
        return;
    CHECK(buf_pool_in_use(pool) == 0);
    if (pool->ops != NULL) {
        pool->ops->free(pool);
        return;
    }
    for (uint32_t i = 0; i < pool->slab_count; i++)
        free(pool->slabs[i]);
    free(pool->slabs);
    free(pool);
}

uint32_t buf_pool_in_use(const struct buf_pool *pool)
{
    return pool->ops == NULL ? pool->in_use : pool->ops->in_use(pool);
}

uint32_t buf_pool_count_max(const struct buf_pool *pool)
{
    return pool->count_max;
}

uint32_t buf_pool_available(const struct buf_pool *pool)
{
    return pool->ops == NULL ? pool->count_max - pool->in_use : pool->ops->available(pool);
}

uint32_t buf_pool_data_size(const struct buf_pool *pool)
{
    return pool->data_size;
}

uint64_t buf_pool_exhausted(const struct buf_pool *pool)
{
    return pool->exhausted;
}

/* What stays the same for the whole life of a buffer. */
static void buf_init(struct buf_pool *pool, struct buf *buf, void *octets)
{
    memset(buf, 0, sizeof(*buf));
    buf->mbuf.buf_addr = octets;
    buf->mbuf.buf_len = (uint16_t)(BUF_HEADROOM + pool->data_size);
    buf->mbuf.port = UINT16_MAX; /* RTE_MBUF_PORT_INVALID */
    buf->mbuf.pool = (struct rte_mempool *)(void *)((uint8_t *)pool + BUF_POOL_TAG);
}

static void buf_pool_grow(struct buf_pool *pool)
{
    uint32_t count = pool->count_max - pool->created;

    if (count > BUF_POOL_BLOCK)
        count = BUF_POOL_BLOCK;
    uint8_t *slab = aligned_alloc(BUF_LINE, (size_t)count * pool->stride);
    if (slab == NULL)
        return;
    pool->slabs[pool->slab_count++] = slab;
    pool->created += count;
    for (uint32_t i = count; i > 0; i--) {
        uint8_t *place = slab + (size_t)(i - 1) * pool->stride;
        struct buf *buf = (struct buf *)(void *)place;

        buf_init(pool, buf, place + sizeof(*buf));
        buf->mbuf.next = buf_to_mbuf(pool->free);
        pool->free = buf;
    }
}

/* One buffer in two heap blocks, so that running out of the octets on either side is seen. */
static struct buf *buf_new_on_heap(struct buf_pool *pool)
{
    struct buf *buf = aligned_alloc(BUF_LINE, sizeof(*buf));
    void *octets = malloc(BUF_HEADROOM + pool->data_size);

    if (buf == NULL || octets == NULL) {
        free(buf);
        free(octets);
        return NULL;
    }
    buf_init(pool, buf, octets);
    return buf;
}

static struct buf *buf_pool_pop(struct buf_pool *pool)
{
    if (pool->in_use == pool->count_max)
        return NULL;
    if (pool->backing == BUF_BACKING_HEAP)
        return buf_new_on_heap(pool);
    if (pool->free == NULL)
        buf_pool_grow(pool);
    struct buf *buf = pool->free;
    if (buf != NULL)
        pool->free = buf_from_mbuf(buf->mbuf.next);
    return buf;
}

static struct buf *buf_acquire_own(struct buf_pool *pool)
{
    struct buf *buf = buf_pool_pop(pool);

    if (buf == NULL)
        return NULL;
    CHECK(buf->mbuf.refcnt == 0);
    buf->mbuf.refcnt = 1;
    pool->in_use++;
    return buf;
}

struct buf *buf_acquire(struct buf_pool *pool)
{
    struct buf *buf = pool->ops == NULL ? buf_acquire_own(pool) : pool->ops->acquire(pool);

    if (buf == NULL) {
        pool->exhausted++;
        return NULL;
    }
    buf->mbuf.data_off = BUF_HEADROOM;
    buf->mbuf.nb_segs = 1;
    buf->mbuf.ol_flags = 0;
    buf->mbuf.data_len = 0;
    buf->mbuf.pkt_len = 0;
    buf->mbuf.next = NULL;
    return buf;
}

void buf_reference(struct buf *buf)
{
    CHECK(buf->mbuf.refcnt > 0 && buf->mbuf.refcnt < BUF_REFCNT_MAX);
    buf->mbuf.refcnt++;
}

/* The buffer a clone shows. */
static struct buf *buf_shown(const struct buf *clone)
{
    return (struct buf *)(void *)clone->mbuf.shinfo;
}

/* Give a clone its own octets back. On the heap it has none. */
static void buf_detach(const struct buf_pool *pool, struct buf *clone)
{
    struct buf *shown = buf_shown(clone);
    bool is_on_heap = pool->backing == BUF_BACKING_HEAP;

    clone->mbuf.buf_addr = is_on_heap ? NULL : (void *)(clone + 1);
    clone->mbuf.buf_len = (uint16_t)(BUF_HEADROOM + pool->data_size);
    clone->mbuf.shinfo = NULL;
    clone->mbuf.ol_flags = 0;
    buf_release(shown);
}

struct buf *buf_clone(struct buf_pool *pool, struct buf *buf, uint32_t offset, uint32_t size)
{
    CHECK(offset <= buf->mbuf.buf_len && size <= buf->mbuf.buf_len - offset);
    if (pool->ops != NULL)
        return pool->ops->clone(pool, buf, offset, size);
    CHECK(buf_is_tagged(buf));
    struct buf *clone = buf_acquire(pool);
    if (clone == NULL)
        return NULL;
    struct buf *shown = buf->mbuf.ol_flags & RTE_MBUF_F_INDIRECT ? buf_shown(buf) : buf;

    buf_reference(shown);
    if (pool->backing == BUF_BACKING_HEAP)
        free(clone->mbuf.buf_addr);
    clone->mbuf.buf_addr = shown->mbuf.buf_addr;
    clone->mbuf.buf_len = shown->mbuf.buf_len;
    clone->mbuf.shinfo = (struct rte_mbuf_ext_shared_info *)(void *)shown;
    clone->mbuf.ol_flags = RTE_MBUF_F_INDIRECT;
    clone->mbuf.data_off = (uint16_t)offset;
    clone->mbuf.data_len = (uint16_t)size;
    clone->mbuf.pkt_len = size;
    return clone;
}

void buf_release_chain(struct buf *buf)
{
    while (buf != NULL) {
        struct buf *next = buf_from_mbuf(buf->mbuf.next);
        buf->mbuf.next = NULL;
        buf_release(buf);
        buf = next;
    }
}

void buf_release(struct buf *buf)
{
    CHECK(buf->mbuf.refcnt > 0);
    if (buf->mbuf.refcnt > 1) {
        buf->mbuf.refcnt--;
        return;
    }

    struct buf_pool *pool = buf_get_pool(buf);
    if (pool->ops != NULL) {
        pool->ops->release(pool, buf);
        return;
    }
    CHECK(pool->in_use > 0);
    buf->mbuf.refcnt = 0;
    pool->in_use--;
    if (buf->mbuf.ol_flags & RTE_MBUF_F_INDIRECT)
        buf_detach(pool, buf);
    if (pool->backing == BUF_BACKING_HEAP) {
        free(buf->mbuf.buf_addr);
        free(buf);
        return;
    }
    buf->mbuf.next = buf_to_mbuf(pool->free);
    pool->free = buf;
}

/* ---- queues ---- */

void buf_queue_init(struct buf_queue *queue)
{
    *queue = (struct buf_queue){0};
}

static struct buf_slice *queue_slot(const struct buf_queue *queue, uint32_t index)
{
    if (queue->capacity == 0)
        return (struct buf_slice *)(uintptr_t)&queue->one;
    return &queue->slices[(queue->head + index) & (queue->capacity - 1)];
}

void buf_queue_release(struct buf_queue *queue)
{
    for (uint32_t i = 0; i < queue->count; i++)
        buf_release(queue_slot(queue, i)->buf);
    if (queue->capacity > 0)
        free(queue->slices);
    *queue = (struct buf_queue){0};
}

/* All slices in their order, from the first place on. */
static void queue_lay_out(const struct buf_queue *queue, struct buf_slice *ret_slices)
{
    uint32_t first = queue->capacity > 0 ? queue->capacity - queue->head : 1;

    first = first < queue->count ? first : queue->count;
    memcpy(ret_slices, queue_slot(queue, 0), first * sizeof(*ret_slices));
    if (first < queue->count)
        memcpy(ret_slices + first, queue->slices, (queue->count - first) * sizeof(*ret_slices));
}

/* Room for `count` slices in all. Out of the way of those who have room: they need no frame. */
static __attribute__((noinline)) void queue_grow(struct buf_queue *queue, uint32_t count)
{
    uint32_t capacity = queue->capacity > 0 ? queue->capacity * 2 : BUF_QUEUE_SLOTS_MIN;

    CHECK(count <= BUF_QUEUE_SLOTS_MAX);
    while (capacity < count)
        capacity *= 2;
    struct buf_slice *slices = malloc(capacity * sizeof(*slices));

    /* A few hundred octets are not to be had: the kernel overcommits, so this is never the mail's
     * doing and nothing sensible can go on. */
    CHECK(slices != NULL);
    queue_lay_out(queue, slices);
    if (queue->capacity > 0)
        free(queue->slices);
    queue->slices = slices;
    queue->capacity = capacity;
    queue->head = 0;
}

/* Append a slice. True: its reference is the queue's now; false: it was joined with the last slice,
 * whose reference serves both. */
static bool queue_push(struct buf_queue *queue, struct buf_slice slice)
{
    uint32_t count = queue->count;

    queue->size += slice.size;
    if (count > 0) {
        struct buf_slice *last = queue_slot(queue, count - 1);

        if (last->buf == slice.buf && (uint32_t)last->offset + last->size == slice.offset) {
            last->size = (uint16_t)(last->size + slice.size);
            return false;
        }
        if (count >= queue->capacity)
            queue_grow(queue, count + 1);
    }
    *queue_slot(queue, count) = slice;
    queue->count = count + 1;
    return true;
}

void buf_queue_append(struct buf_queue *queue, struct buf *buf, uint32_t offset, uint32_t size)
{
    CHECK(offset <= buf->mbuf.buf_len && size <= buf->mbuf.buf_len - offset);
    if (size == 0)
        return;
    struct buf_slice slice = {buf, (uint16_t)offset, (uint16_t)size};
    if (queue_push(queue, slice))
        buf_reference(buf);
}

void buf_queue_append_own(struct buf_queue *queue, struct buf *buf, uint32_t offset, uint32_t size)
{
    CHECK(size > 0 && offset <= buf->mbuf.buf_len && size <= buf->mbuf.buf_len - offset);
    struct buf_slice slice = {buf, (uint16_t)offset, (uint16_t)size};
    if (!queue_push(queue, slice))
        buf_release(buf);
}

/* Invariant 5: the buffer at the end of the queue, if its room is ours to write. */
static struct buf *queue_find_room(const struct buf_queue *queue, const struct buf_pool *pool)
{
    if (queue->count == 0)
        return NULL;
    const struct buf_slice *last = queue_slot(queue, queue->count - 1);
    struct buf *buf = last->buf;

    if (buf->mbuf.refcnt != 1 || buf_get_pool(buf) != pool ||
        (uint32_t)last->offset + last->size != (uint32_t)buf->mbuf.data_off + buf->mbuf.data_len) {
        return NULL;
    }
    return buf;
}

/* `count` fresh buffers as a chain, or NULL and none. */
static struct buf *buf_acquire_chain(struct buf_pool *pool, uint32_t count)
{
    struct buf *chain = NULL;

    for (uint32_t i = 0; i < count; i++) {
        struct buf *buf = buf_acquire(pool);

        if (buf == NULL) {
            buf_release_chain(chain);
            return NULL;
        }
        buf->mbuf.next = buf_to_mbuf(chain);
        chain = buf;
    }
    return chain;
}

/* Copy what fits into the buffer and make it a slice; returns how much that was. */
static uint32_t queue_copy_into(struct buf_queue *queue, struct buf *buf, struct span octets)
{
    uint32_t size = octets.size < buf_room(buf) ? octets.size : buf_room(buf);
    uint32_t offset = (uint32_t)buf->mbuf.data_off + buf->mbuf.data_len;

    if (size == 0)
        return 0;
    memcpy(buf_data(buf) + buf_size(buf), octets.data, size);
    buf_extend(buf, size);
    buf_queue_append(queue, buf, offset, size);
    return size;
}

enum err buf_queue_append_copy(struct buf_queue *queue, struct buf_pool *pool, struct span octets)
{
    if (octets.size == 0)
        return ERR_OK;

    struct buf *tail = queue_find_room(queue, pool);
    uint32_t in_tail = tail != NULL ? buf_room(tail) : 0;
    uint32_t in_fresh = octets.size > in_tail ? octets.size - in_tail : 0;
    uint32_t fresh_count = in_fresh / pool->data_size + (in_fresh % pool->data_size != 0);
    struct buf *fresh = buf_acquire_chain(pool, fresh_count);

    if (fresh_count > 0 && fresh == NULL)
        return ERR_MEMORY;
    if (tail != NULL)
        octets = span_skip(octets, queue_copy_into(queue, tail, octets));
    while (fresh != NULL) {
        struct buf *next = buf_from_mbuf(fresh->mbuf.next);

        fresh->mbuf.next = NULL;
        octets = span_skip(octets, queue_copy_into(queue, fresh, octets));
        buf_release(fresh); /* the slice has its own reference */
        fresh = next;
    }
    CHECK(octets.size == 0);
    return ERR_OK;
}

void buf_queue_append_slices(struct buf_queue *queue, const struct buf_queue *source,
                             uint32_t index, uint32_t count)
{
    CHECK(queue != source && index <= source->count && count <= source->count - index);
    if (count == 0)
        return;
    if (count > 1 && queue->count + count > queue->capacity)
        queue_grow(queue, queue->count + count);
    const struct buf_slice *first = queue_slot(source, index);
    buf_queue_append(queue, first->buf, first->offset, first->size);
    for (uint32_t i = 1; i < count; i++) { /* apart there, and so here */
        const struct buf_slice *slice = queue_slot(source, index + i);
        buf_reference(slice->buf);
        queue->size += slice->size;
        *queue_slot(queue, queue->count++) = *slice;
    }
}

void buf_queue_append_queue(struct buf_queue *queue, const struct buf_queue *source)
{
    buf_queue_append_slices(queue, source, 0, source->count);
}

/* The first `count` slices of `source`, with their references. The first may join with our last;
 * the others are apart there, and so here. */
static void queue_push_first(struct buf_queue *queue, const struct buf_queue *source,
                             uint32_t count)
{
    struct buf_slice first = *queue_slot(source, 0);

    if (count > 1 && queue->count + count > queue->capacity)
        queue_grow(queue, queue->count + count);
    if (!queue_push(queue, first))
        buf_release(first.buf);
    for (uint32_t i = 1; i < count; i++) {
        const struct buf_slice *slice = queue_slot(source, i);
        queue->size += slice->size;
        *queue_slot(queue, queue->count++) = *slice;
    }
}

void buf_queue_move(struct buf_queue *queue, struct buf_queue *source)
{
    CHECK(queue != source);
    if (queue->count == 0) {
        struct buf_queue empty = *queue;

        *queue = *source;
        *source = empty;
        return;
    }
    if (source->count > 0)
        queue_push_first(queue, source, source->count);
    source->count = 0;
    source->size = 0;
}

/* The first slices are gone. */
static void queue_pop(struct buf_queue *queue, uint32_t count)
{
    queue->count -= count;
    if (queue->capacity > 0)
        queue->head = (queue->head + count) & (queue->capacity - 1);
}

void buf_queue_take(struct buf_queue *queue, struct buf_queue *source, uint64_t size)
{
    CHECK(queue != source && size <= source->size);
    if (size == source->size) {
        buf_queue_move(queue, source);
        return;
    }
    uint32_t count = 0;
    uint64_t left = size;
    while (queue_slot(source, count)->size <= left) /* it ends before the last: size is less */
        left -= queue_slot(source, count++)->size;
    if (count > 0) {
        queue_push_first(queue, source, count);
        queue_pop(source, count);
        source->size -= size - left;
    }
    if (left == 0)
        return;
    struct buf_slice slice = *queue_slot(source, 0);
    buf_queue_append(queue, slice.buf, slice.offset, (uint32_t)left);
    buf_queue_drop(source, left);
}

void buf_queue_drop(struct buf_queue *queue, uint64_t size)
{
    CHECK(size <= queue->size);
    queue->size -= size;
    while (size > 0) {
        struct buf_slice *first = queue_slot(queue, 0);

        if (size < first->size) {
            first->offset = (uint16_t)(first->offset + size);
            first->size = (uint16_t)(first->size - size);
            return;
        }
        size -= first->size;
        buf_release(first->buf);
        queue_pop(queue, 1);
    }
}

void buf_queue_copy_out(const struct buf_queue *queue, uint64_t offset, void *ret_data,
                        uint32_t size)
{
    uint8_t *data = ret_data;

    CHECK(offset <= queue->size && size <= queue->size - offset);
    for (uint32_t i = 0; i < queue->count && size > 0; i++) {
        struct span octets = buf_slice_span(queue_slot(queue, i));

        if (offset >= octets.size) {
            offset -= octets.size;
            continue;
        }
        octets = span_skip(octets, (uint32_t)offset);
        offset = 0;
        uint32_t part = octets.size < size ? octets.size : size;
        memcpy(data, octets.data, part);
        data += part;
        size -= part;
    }
    CHECK(size == 0);
}

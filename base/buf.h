/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <rte_mbuf_core.h>

#include "base/span.h"

/*
 * Buffers: reference-counted blocks of octets with rte_mbuf's layout, so that a buffer received
 * from a DPDK port and one from our own slabs are the same thing to everybody above.
 *
 * A buffer belongs to one pool and a pool to one shard: only that shard references and releases it.
 * Reference counts are plain integers. A body is a buf_queue of slices; chains (mbuf.next) exist
 * only per packet, inside dataplane/wire.
 *
 * Pools: slabs grow by blocks of BUF_POOL_BLOCK buffers up to count_max and never shrink; with
 * backing BUF_BACKING_HEAP every buffer is a heap block of its own, so that AddressSanitizer sees
 * overruns and use after free. Pools that drivers fill and empty, too, stand on an rte_mempool
 * (dataplane/wire/port/buf_mempool.h).
 */
struct buf {
    struct rte_mbuf mbuf;
};
_Static_assert(sizeof(struct buf) == sizeof(struct rte_mbuf), "a buf is an rte_mbuf");

#define BUF_HEADROOM   128u
#define BUF_POOL_BLOCK 64u

enum buf_backing { BUF_BACKING_SLAB, BUF_BACKING_HEAP };

struct buf_pool;

struct buf_pool_options {
    uint32_t
        data_size; /* octets of payload room per buffer, headroom not counted; at most 65,000 */
    uint32_t count_max; /* buffers, at most */
    enum buf_backing backing;
};

/** Heap; start-up only. NULL never: no memory at start ends the process. */
struct buf_pool *buf_pool_new(const struct buf_pool_options *options);
/** CHECKs that every buffer came back. */
void buf_pool_free(struct buf_pool *pool);
/** On a mempool slow: asks the caches of all threads. */
uint32_t buf_pool_in_use(const struct buf_pool *pool);
/** Buffers, at most. */
uint32_t buf_pool_count_max(const struct buf_pool *pool);
/** count_max - in use. On a mempool: what the calling thread can acquire at least, since others may
 * keep some cached. */
uint32_t buf_pool_available(const struct buf_pool *pool);
uint32_t buf_pool_data_size(const struct buf_pool *pool);
uint64_t buf_pool_exhausted(const struct buf_pool *pool); /* times buf_acquire() had none to give */

/** One reference, empty, headroom in front. NULL when the pool is exhausted (counted by the pool).
 */
struct buf *buf_acquire(struct buf_pool *pool) MUST_CHECK;
/** One more reference. */
void buf_reference(struct buf *buf);
/** One reference fewer; the last returns the buffer to its pool. */
void buf_release(struct buf *buf);

/** Release every buffer of a packet (linked by mbuf.next). NULL is a no-op. */
void buf_release_chain(struct buf *buf);
/**
 * A buffer of `pool` that shows the octets [offset, offset + size) of `buf` (offset from buf_addr)
 * and holds a reference to it until it is released itself: what a frame sends of a message without
 * copying. Nobody writes through it. NULL when the pool is exhausted. CHECKs that both are on
 * mempools, or neither: drivers let go of both.
 */
struct buf *buf_clone(struct buf_pool *pool, struct buf *buf, uint32_t offset,
                      uint32_t size) MUST_CHECK;

static inline uint8_t *buf_data(const struct buf *buf)
{
    return (uint8_t *)buf->mbuf.buf_addr + buf->mbuf.data_off;
}
static inline uint32_t buf_size(const struct buf *buf)
{
    return buf->mbuf.data_len;
}
/** Octets that can still be appended. */
static inline uint32_t buf_room(const struct buf *buf)
{
    return (uint32_t)buf->mbuf.buf_len - buf->mbuf.data_off - buf->mbuf.data_len;
}
/** Octets of memory this buffer pins: what a flow is charged for it. */
static inline uint32_t buf_charge(const struct buf *buf)
{
    return buf->mbuf.buf_len;
}
/** Make `size` octets, written by the caller behind the end, part of the buffer. CHECKs the room.
 */
static inline void buf_extend(struct buf *buf, uint32_t size)
{
    CHECK(size <= buf_room(buf));
    buf->mbuf.data_len = (uint16_t)(buf->mbuf.data_len + size);
    buf->mbuf.pkt_len = buf->mbuf.data_len;
}

/* Part of a buffer; holds one reference while it is in a queue. offset counts from buf_addr. */
struct buf_slice {
    struct buf *buf;
    uint16_t offset;
    uint16_t size;
};

static inline struct span buf_slice_span(const struct buf_slice *slice)
{
    return span_of((const uint8_t *)slice->buf->mbuf.buf_addr + slice->offset, slice->size);
}

/* A queue of slices: a message body, or what a flow has still to send. A single slice lies in the
 * queue itself; more go to a ring on the heap (jemalloc), 16 octets a slice. */
struct buf_queue {
    uint32_t capacity; /* of the ring, a power of two; 0: none, at most `one` */
    uint32_t count;
    union {
        struct buf_slice one;
        struct {
            struct buf_slice *slices;
            uint32_t head;
        };
    };
    uint64_t size; /* octets in all slices */
};

void buf_queue_init(struct buf_queue *queue);
static inline bool buf_queue_is_empty(const struct buf_queue *queue)
{
    return queue->count == 0;
}
/* Of buf_queue_fini(). */
void buf_queue_release(struct buf_queue *queue);
/** Release every slice and the ring. The queue is then empty and usable again. */
static inline void buf_queue_fini(struct buf_queue *queue)
{
    if (queue->count > 0 || queue->capacity > 0)
        buf_queue_release(queue);
}
/** Slice number `index` from the front. CHECKs index < count. */
static inline const struct buf_slice *buf_queue_get(const struct buf_queue *queue, uint32_t index)
{
    CHECK(index < queue->count);
    if (queue->capacity == 0)
        return &queue->one;
    return &queue->slices[(queue->head + index) & (queue->capacity - 1)];
}
/** Append part of `buf`; takes a new reference. Joins with the last slice where they touch. size 0
 * is a no-op. */
void buf_queue_append(struct buf_queue *queue, struct buf *buf, uint32_t offset, uint32_t size);
/** The same, but the caller's reference becomes the queue's. size > 0. */
void buf_queue_append_own(struct buf_queue *queue, struct buf *buf, uint32_t offset, uint32_t size);
/** Append octets by copy into buffers of `pool`. Errors: ERR_MEMORY; then nothing was appended. */
enum err buf_queue_append_copy(struct buf_queue *queue, struct buf_pool *pool,
                               struct span octets) MUST_CHECK;
/** Append `count` slices of `source`, from slice `index` on, by reference; `source` keeps its own.
 * CHECKs that it has them. */
void buf_queue_append_slices(struct buf_queue *queue, const struct buf_queue *source,
                             uint32_t index, uint32_t count);
/** Append all of `source` by reference; `source` keeps its own. */
void buf_queue_append_queue(struct buf_queue *queue, const struct buf_queue *source);
/** Move all of `source` to the end; `source` becomes empty. */
void buf_queue_move(struct buf_queue *queue, struct buf_queue *source);
/** Move `size` octets from the front of `source` to the end. CHECKs size <= source->size. */
void buf_queue_take(struct buf_queue *queue, struct buf_queue *source, uint64_t size);
/** Drop octets from the front, releasing buffers as they empty. CHECKs size <= queue->size. */
void buf_queue_drop(struct buf_queue *queue, uint64_t size);
/** Copy `size` octets from `offset` out. CHECKs the bounds. */
void buf_queue_copy_out(const struct buf_queue *queue, uint64_t offset, void *ret_data,
                        uint32_t size);

#endif

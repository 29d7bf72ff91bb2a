/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records lie one behind the other; one that does not fit behind the last goes to the front again.
 *
 *   [ newest, round ... ends | free | oldest ... | rest ]      begins: who lies at the front
 *
 * That a record always fits needs no look at octets. At most `limit` records wait, and there is
 * room for two more of the largest: so when the last one stands at the end, the oldest of those
 * that wait is further from the front than the new one is large, and stays so.
 *
 * A consumer that keeps up leaves nothing waiting now and then. The producer goes to the front then
 * if it is HOT octets from it: the two use the same few pages again and again, where a whole round
 * of 8,192 records is 7 MiB.
 *
 * Invariants
 *   1. `tail` and what lies before it are written by the producer, `head` by the consumer; each
 *      publishes with release and reads the other's with acquire.
 *   2. `begins` changes only when the record it named before has been dropped: nothing waits, or a
 *      round, which holds more than `limit`, has been filled since. So a consumer that has seen a
 *      tail behind it finds it as it was, and there is at most one in what it has seen.
 */
#include "control/record_ring.h"

#include <stdlib.h>

#include "control/record_raw.h"

#define HOT (64u * 1024u)

void record_ring_init(struct record_ring *ring, uint64_t limit)
{
    CHECK(limit > 0 && limit <= RECORD_RING_LIMIT_MAX);
    *ring = (struct record_ring){.limit = limit, .size = (uint32_t)(limit + 2) * RECORD_RAW_ROOM};
    ring->octets = calloc(1, ring->size);
    CHECK(ring->octets != NULL);
}

void record_ring_free(struct record_ring *ring)
{
    free(ring->octets);
}

bool record_ring_is_full(struct record_ring *ring)
{
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);

    if (tail - ring->head_seen >= ring->limit)
        ring->head_seen = record_ring_head(ring);
    return tail - ring->head_seen >= ring->limit;
}

static bool must_begin(struct record_ring *ring, uint64_t tail)
{
    if (ring->size - ring->end < RECORD_RAW_ROOM)
        return true;
    if (ring->end < HOT)
        return false;
    ring->head_seen = record_ring_head(ring);
    return ring->head_seen == tail;
}

void record_ring_push(struct record_ring *ring, const struct record *record)
{
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);

    CHECK(tail - ring->head_seen < ring->limit);
    if (must_begin(ring, tail)) {
        ring->end = 0;
        atomic_store_explicit(&ring->begins, tail, memory_order_relaxed);
    }
    ring->end += record_raw_pack(record, tail + 1, ring->octets + ring->end);
    atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
}

uint32_t record_ring_peek(struct record_ring *ring, uint32_t max, uint8_t **ret_octets)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    uint64_t tail = record_ring_tail(ring);
    uint64_t begins = atomic_load_explicit(&ring->begins, memory_order_relaxed);

    if (head == tail)
        return 0;
    if (head == begins)
        ring->front = 0;
    if (begins > head && begins < tail)
        tail = begins; /* what lies at the front is for the next time */
    *ret_octets = ring->octets + ring->front;
    return tail - head < max ? (uint32_t)(tail - head) : max;
}

void record_ring_drop(struct record_ring *ring, uint32_t count, uint32_t size)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

    ring->front += size;
    atomic_store_explicit(&ring->head, head + count, memory_order_release);
}

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_RECORD_RING_H
#define CONTROL_RECORD_RING_H

#include <stdalign.h>
#include <stdatomic.h>

#include "relay/record.h"

/*
 * Records on their way from one thread to another, packed as they stand in a file (record_raw.h),
 * one behind the other in octets. One producer, one consumer; neither waits.
 */
struct record_ring {
    /* the producer's */
    alignas(64) _Atomic uint64_t tail; /* records ever pushed */
    uint64_t head_seen;
    uint32_t end;            /* where the next one goes */
    _Atomic uint64_t begins; /* number of the last record that lies at the front, from 0 */
    /* the consumer's */
    alignas(64) _Atomic uint64_t head; /* records ever taken */
    uint32_t front;                    /* where the oldest lies */
    /* nobody's, after the start */
    alignas(64) uint8_t *octets;
    uint64_t limit;
    uint32_t size;
};

/** For `limit` records of any size; CHECKs that these are 1 to RECORD_RING_LIMIT_MAX. Released with
 * record_ring_free(). */
#define RECORD_RING_LIMIT_MAX (4u * 1024u * 1024u)
void record_ring_init(struct record_ring *ring, uint64_t limit);
void record_ring_free(struct record_ring *ring);

/* ---- the producer's ---- */

/** So many wait as may. */
bool record_ring_is_full(struct record_ring *ring);
/** Append one, with its number: the first is 1. CHECKs that the ring was not found full. */
void record_ring_push(struct record_ring *ring, const struct record *record);

/* ---- the consumer's ---- */

/** The oldest records, side by side: how many, at most `max`, and where they begin; 0: none wait.
 * They stay there, and may be written to, until they are dropped. */
uint32_t record_ring_peek(struct record_ring *ring, uint32_t max, uint8_t **ret_octets);
/** The first `count` of those, `size` octets, are done with. */
void record_ring_drop(struct record_ring *ring, uint32_t count, uint32_t size);

/* ---- anybody's ---- */

static inline uint64_t record_ring_tail(const struct record_ring *ring)
{
    return atomic_load_explicit(&ring->tail, memory_order_acquire);
}

static inline uint64_t record_ring_head(const struct record_ring *ring)
{
    return atomic_load_explicit(&ring->head, memory_order_acquire);
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_ENVELOPE_INDEX_H
#define QUEUE_ENVELOPE_INDEX_H

#include "queue/envelope.h"

/*
 * What the queue must know of a message while nobody works on it: enough to schedule it, to count
 * it and to find it, in a few dozen octets. Computed from an envelope as it is committed; its
 * encoded form (envelope_index.c) is for the footers of segments, so that a restart needs to read
 * no envelope. The id stands beside it there, and is not part of it.
 *
 * A message whose index would be too large, of whom many domains want a copy, has none: its
 * envelope is read instead.
 */
#define ENVELOPE_INDEX_SIZE_MAX     1024u /* encoded */
#define ENVELOPE_INDEX_DELIVERY_MAX 32u
#define ENVELOPE_INDEX_RUN_MAX      64u

/* The recipients of one domain. */
struct envelope_index_delivery {
    struct span domain;
    uint32_t first; /* index of the first of them */
    uint32_t count;
};

/* Recipients that follow each other and are of one delivery. */
struct envelope_index_run {
    uint16_t delivery, count;
};

struct envelope_index {
    struct message_id id;
    wall_us arrived, expires;
    uint64_t body_size;
    uint32_t flags; /* enum envelope_flags */
    uint8_t class;
    uint8_t notify;      /* of all recipients together: enum envelope_notify */
    bool is_notify_open; /* one of them or more left it unsaid */
    bool is_null_sender;
    struct span source_pool;
    struct span sender_domain; /* as it was written; empty when the sender has none */
    uint32_t recipient_count;
    uint32_t delivery_count, run_count;
    struct envelope_index_delivery deliveries[ENVELOPE_INDEX_DELIVERY_MAX];
    struct envelope_index_run runs[ENVELOPE_INDEX_RUN_MAX]; /* all recipients, in order */
};

/**
 * The index of an envelope that envelope_is_valid(). False: it has none, `*ret_index` is then of no
 * use. One whose recipients are not all DUE has none.
 *
 * Ownership:  spans borrow from what the envelope borrows from.
 */
bool envelope_index_of(const struct envelope *envelope, struct envelope_index *ret_index);
/** The delivery of recipient `recipient_index`, below recipient_count. */
uint32_t envelope_index_find(const struct envelope_index *index, uint32_t recipient_index);

/** Octets envelope_index_encode() will need, at most ENVELOPE_INDEX_SIZE_MAX. `index` comes from
 * envelope_index_of() or envelope_index_decode(). */
uint32_t envelope_index_encoded_size(const struct envelope_index *index);
void envelope_index_encode(const struct envelope_index *index, uint8_t *ret_data);
/**
 * Decode; `id` stood beside it. Spans borrow from `encoded`.
 * Errors: ERR_DISK_CORRUPT for anything that envelope_index_encode() cannot have made; `*ret_index`
 * is then of no use.
 */
enum err envelope_index_decode(struct span encoded, struct message_id id,
                               struct envelope_index *ret_index) MUST_CHECK;
/** Straight from an encoded envelope; returns the octets of the encoded index, 0 when it has none
 * or does not decode. `arena` is for scratch. */
uint32_t envelope_index_make(struct span envelope, struct arena *arena,
                             uint8_t ret_data[ENVELOPE_INDEX_SIZE_MAX]);

#endif

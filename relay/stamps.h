/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_STAMPS_H
#define RELAY_STAMPS_H

#include "base/latency.h"
#include "base/stamp.h"
#include "dataplane/flow.h"

/*
 * How long the relay itself holds up a message that goes straight through (stamps.c): from its last
 * octet received to its last octet handed to the network; likewise, but not before the next hop had
 * asked for it; and from the next hop's final reply received to ours handed to the network.
 *
 * One for each shard, used by its thread alone.
 */
struct stream;

enum stamps_kind { STAMPS_BODY, STAMPS_REPLY, STAMPS_KIND_COUNT };

#define STAMPS_WAIT_MAX 4096u

struct stamps_wait {
    struct flow flow; /* what it was appended to */
    uint64_t since, ready;
    enum stamps_kind kind;
};

/* What is told of them. */
struct stamps_view {
    struct latency_fine body_out, ready_out, reply_out;
    uint64_t missed; /* that were not timed: the connection was gone first, or too many waited */
};

struct stamps {
    struct flow_plane *plane;
    uint64_t turn; /* when this turn began to receive */
    uint64_t first;
    int64_t first_ns;    /* the kernel's clock at `first` */
    uint64_t multiplier; /* stamps to nanoseconds, times 2^24; 0: the rate is not known yet */
    uint32_t count;
    struct stamps_view view;
    struct stamps_wait waits[STAMPS_WAIT_MAX];
};

/** Large: part of something on the heap. */
void stamps_init(struct stamps *stamps, struct flow_plane *plane);

/** Before flow_poll(). */
static inline void stamps_turn_begin(struct stamps *stamps)
{
    stamps->turn = stamp_read();
}

/** When what this turn has received was received; 0: nobody wants to know. */
static inline uint64_t stamps_turn(const struct stamps *stamps)
{
    return stamps == NULL ? 0 : stamps->turn;
}

/**
 * What arrived at `since` has just been appended to the stream, to its last octet: count when that
 * is handed to the network. Without stamps, and with `since` 0, nothing happens. `ready`: when all
 * was here that this needed, at `since` or later; of bodies.
 *
 * Bounds: streams in the clear only: under TLS octets may wait to be encrypted.
 * Cost:   no allocation, no syscall, O(1).
 */
void stamps_out(struct stamps *stamps, enum stamps_kind kind, const struct stream *stream,
                uint64_t since, uint64_t ready);
/** Behind flow_flush(). Cost: O(what waits), a look at the counter only if something does. */
void stamps_turn_end(struct stamps *stamps);

#endif

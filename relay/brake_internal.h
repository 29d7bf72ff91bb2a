/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_BRAKE_INTERNAL_H
#define RELAY_BRAKE_INTERNAL_H

#include <sys/queue.h>

#include "queue/keyed_hash.h"
#include "relay/brake.h"

/* Shared by the files of the brakes: brake.c (counts, places), brake_keep.c (over a restart). */
#define BRAKE_PLACES    8192u
#define BRAKE_BUCKETS   8192u
#define BRAKE_MINUTE    TICK_S(60)
#define BRAKE_EXACT_MAX 17u /* limits that remember each moment */
#define BRAKE_CELL_TIME TICK_S(4)
#define BRAKE_CELLS     (BRAKE_EXACT_MAX + 1) /* of BRAKE_CELL_TIME each there are 17 in a minute */

/* All octets count: no padding. */
struct brake_key {
    struct flow_address network, listener;
};

struct brake_cell { /* what is forgotten together, a minute after the last of it */
    tick_us last;
    uint32_t span; /* us, from the first on */
    uint32_t count;
};

struct brake_window {
    tick_us told_until; /* a refusal was reported: no other before */
    uint32_t total, head, used;
    struct brake_cell cells[BRAKE_CELLS]; /* a ring, the oldest at `head` */
};

struct brake_client {
    LIST_ENTRY(brake_client) chain; /* of its bucket; of `free` */
    TAILQ_ENTRY(brake_client) link; /* in `idle` without connections */
    struct brake_key key;
    uint32_t connections;
    uint32_t kept_round; /* rows of it were taken in this one */
    struct brake_window windows[BRAKE_KIND_COUNT];
};

struct brake {
    struct keyed_hash hash;
    tick_us now;
    tick_us parted; /* cells that begin from here on are kept apart; 0: none */
    uint32_t kept_round;
    struct brake_stats stats;
    LIST_HEAD(, brake_client) buckets[BRAKE_BUCKETS];
    LIST_HEAD(, brake_client) free; /* empty: every place is taken */
    uint32_t fresh;                 /* places from here on were never touched, nor their memory */
    TAILQ_HEAD(, brake_client) idle;
    struct brake_client places[BRAKE_PLACES];
};

/* brake.c */
struct brake_client *brake_client_find(struct brake *brake, const struct brake_key *key);
/** A place for a new network, the last to be forgotten, or NULL. */
struct brake_client *brake_client_new(struct brake *brake, const struct brake_key *key);
/** Forget what is a minute old. */
void brake_window_review(const struct brake *brake, struct brake_window *window);

static inline struct brake_cell *brake_cell_at(struct brake_window *window, uint32_t index)
{
    return &window->cells[(window->head + index) % BRAKE_CELLS];
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_SITE_STATE_H
#define QUEUE_SITE_STATE_H

#include <sys/queue.h>

#include "base/wheel.h"
#include "queue/keyed_hash.h"
#include "queue/site.h"
#include "queue/slab.h"

/*
 * Inside of the sites; only site*.c include this.
 *   site.c        the table, a shard's own slots, timers
 *   site_home.c   the home's side: who has how many, who waits, the pause
 *   site_host.c   keys, and the memory of dead hosts
 *   site_view.c   what people see, and all invariants
 */

enum site_timer_kind { SITE_TIMER_LEASE = 1, SITE_TIMER_PAUSE };

/* What the home knows of one shard. */
struct site_share {
    uint32_t out;      /* slots leased to it; back only when its RETURN is in */
    uint32_t want;     /* slots it waits for */
    uint32_t given;    /* of these, in the present round */
    int64_t rank;      /* of its first waiting mail */
    uint32_t recalled; /* slots asked back and not yet returned */
    int64_t recall_rank;
    bool is_known;       /* has ever written: hears of pauses */
    bool is_told_scarce; /* since its last grant */
};

struct site_home {
    uint32_t limit, out_total;
    uint32_t failures; /* pauses in a row */
    tick_us paused_until;
    struct site_share shares[]; /* by shard */
};

struct site {
    uint64_t key;
    struct site *hash_next;
    TAILQ_ENTRY(site) idle_link;   /* least recently used first, while is_idle */
    TAILQ_ENTRY(site) waking_link; /* while is_waking */
    struct site_home *home;        /* NULL: its home is elsewhere, or nobody asked yet */
    uint32_t hold_count;
    bool is_idle, is_waking, is_scarce;
    bool is_waiting; /* an acquire said no and wake() has not followed yet */
    uint8_t label_size;
    uint32_t held, used; /* slots leased to this shard, and those with a connection */
    uint32_t asked;      /* slots of our last WANT that are not granted yet */
    int64_t asked_rank;
    int64_t waiting_rank;
    uint32_t owed; /* slots recalled: given back when idle, unless our own mail is older */
    int64_t owed_rank;
    uint32_t limit, holder, failures;
    tick_us paused_until;
    struct wheel_timer lease_timer, pause_timer;
    char label[SITE_LABEL_MAX + 1];
};

#define SITE_DEAD_WAYS 4u
struct site_dead {
    tick_us until; /* 0: free */
    uint8_t size;
    uint8_t address[SITE_ADDRESS_MAX];
};

/* Messages of a shard to itself. Handling one makes at most three, of which each makes fewer. */
#define SITE_SELF_QUEUE_MAX 64u

struct site_set {
    struct site_options options;
    struct rng *rng;
    struct keyed_hash hash;
    struct slab sites;
    struct site **buckets;
    uint32_t bucket_mask;
    bool is_started; /* the wheel knows the time */
    TAILQ_HEAD(, site) idle, waking;
    uint32_t waking_count;
    struct wheel wheel;
    uint32_t self_head, self_count;
    struct site_message self[SITE_SELF_QUEUE_MAX];
    struct site_dead dead[SITE_DEAD_MAX];
};

/* site.c */
struct site *site_find(const struct site_set *sites, uint64_t key);
/** Send to a shard; to ourselves through the queue that the public calls drain at their end. */
void site_post(struct site_set *sites, const struct site *site, uint32_t to_shard,
               const struct site_message *message);

/** Somebody, here or elsewhere, waits for it or has a connection: it must not be forgotten. */
bool site_is_needed(const struct site_set *sites, const struct site *site);

/* site_home.c */
/** A message for the home of this site, which is this shard. */
void site_home_receive(struct site_set *sites, struct site *site,
                       const struct site_message *message, tick_us now);
/** Nobody else has slots or waits for some. */
bool site_home_is_idle(const struct site_set *sites, const struct site *site);
void site_home_verify(const struct site_set *sites, const struct site *site);

#endif

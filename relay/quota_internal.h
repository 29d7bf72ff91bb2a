/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_QUOTA_INTERNAL_H
#define RELAY_QUOTA_INTERNAL_H

#include "base/wheel.h"
#include "relay/quota.h"

/*
 * Shared by quota.c (rights at hand, who waits), quota_home.c (who gets them) and quota_keep.c (on
 * the way over a restart).
 */
#define QUOTA_BUCKETS    16384u
#define QUOTA_LEASE_TIME TICK_S(1)

/* What this shard has of one user's count, whose home may be anywhere. */
struct quota_lease {
    LIST_ENTRY(quota_lease) chain;
    TAILQ_ENTRY(quota_lease) link; /* in `recalled`, if is_recalled */
    struct quota_key user;
    uint8_t kind; /* enum quota_kind */
    bool is_asked, is_recalled;
    bool is_first; /* the refusal was not told of yet */
    uint32_t waiter_count;
    uint32_t woken; /* who have not taken a right since */
    LIST_HEAD(, quota_waiter) waiters;
    uint32_t unused, used; /* `used`: not told of yet */
    tick_us used_at;       /* of the last of them */
    tick_us until;         /* of `unused` */
    tick_us refused_until;
    uint64_t serial; /* that was asked with last */
    struct wheel_timer timer;
};

/* A shard's part in a count, at home. */
struct quota_share {
    uint32_t out, want, given;
    bool is_recalled;
};

/* One count of one user, at home. */
struct quota_place {
    LIST_ENTRY(quota_place) chain;
    TAILQ_ENTRY(quota_place) link; /* in `places`, the one used last at the end */
    struct quota_key user;
    uint8_t kind; /* enum quota_kind */
    bool is_told; /* that there is no room */
    uint32_t out_total;
    uint32_t turn; /* the share that comes first */
    uint64_t serial;
    uint64_t kept_round;
    struct rate_limiter limiter;
    uint32_t apart;       /* uses since quota_keep_apart(), between these moments of a window */
    uint32_t apart_known; /* uses to come that went over with the others */
    tick_us apart_first, apart_last;
    struct quota_share shares[]; /* by shard */
};

struct quota_set {
    struct quota_options options;
    struct wheel wheel;
    uint32_t lease_count;
    uint64_t kept_round;
    bool is_apart;
    struct quota_stats stats;
    TAILQ_HEAD(quota_lease_list, quota_lease) recalled;
    TAILQ_HEAD(quota_place_list, quota_place) places;
    LIST_HEAD(, quota_lease) leases[QUOTA_BUCKETS];
    LIST_HEAD(, quota_place) buckets[QUOTA_BUCKETS];
};

/* The windows' time: what was before our clock began has one, too. */
static inline tick_us quota_time(tick_us now)
{
    return now + 2 * RATE_WINDOW_MAX;
}

static inline bool quota_key_is_equal(struct quota_key a, struct quota_key b)
{
    return a.half[0] == b.half[0] && a.half[1] == b.half[1];
}

static inline uint32_t quota_bucket_of(struct quota_key user, enum quota_kind kind)
{
    return (uint32_t)((user.half[1] + (uint64_t)kind) % QUOTA_BUCKETS);
}

/** To a shard, which may be this one: then it is received before the return. */
void quota_post(struct quota_set *set, uint32_t to_shard, struct quota_message *message,
                tick_us now);
void quota_lease_receive(struct quota_set *set, const struct quota_message *message, tick_us now);

/* quota_home.c */
void quota_home_receive(struct quota_set *set, const struct quota_message *message, tick_us now);
/** The count, made if there is none. NULL: no memory. */
struct quota_place *quota_place_get(struct quota_set *set, struct quota_key user,
                                    enum quota_kind kind, tick_us now);
struct quota_place *quota_place_find(struct quota_set *set, struct quota_key user,
                                     enum quota_kind kind);
void quota_places_free(struct quota_set *set);

/* quota_keep.c */
/** At the home: these uses were counted. */
void quota_place_used(const struct quota_set *set, struct quota_place *place, tick_us time,
                      uint32_t count);
void quota_home_verify(const struct quota_set *set);

#endif

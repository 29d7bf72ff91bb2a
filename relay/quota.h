/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_QUOTA_H
#define RELAY_QUOTA_H

#include <sys/queue.h>

#include "queue/rate.h"

/*
 * How much each user may send, over all shards together: never more than n in any window of a rate,
 * whatever shards the user's connections are on, and no refusal before there were n.
 *
 * A user has a home shard, by name. It alone counts, and gives the others rights to count one, for
 * a short time; see quota.c and quota_home.c. Who asks and finds no right at hand waits for the
 * home's word, without blocking anybody.
 */
enum quota_kind {
    QUOTA_MESSAGES,
    QUOTA_RECIPIENTS,
    QUOTA_HELD, /* messages beyond the others that were taken nevertheless */
    QUOTA_KIND_COUNT
};

/* Of a user's name, whatever the case of its ASCII letters; the same in every process. */
struct quota_key {
    uint64_t half[2];
};
struct quota_key quota_key_of(struct span user);

/* ---- what shards tell each other ---- */

enum quota_message_kind {
    QUOTA_MESSAGE_ASK,    /* to the home: `count` wanted; `used` since the last word, by `time` */
    QUOTA_MESSAGE_GRANT,  /* `count` rights, until `time` */
    QUOTA_MESSAGE_REFUSE, /* none before `time` */
    QUOTA_MESSAGE_RECALL, /* somebody waits: what is left comes back */
    QUOTA_MESSAGE_RETURN  /* to the home: `count` unused; `used` as with ASK */
};

struct quota_message {
    struct quota_key user;
    uint64_t serial; /* ASK: of the settings that the rates are from */
    tick_us time;
    uint32_t count, used;
    uint32_t from_shard;
    uint8_t kind;       /* enum quota_message_kind */
    uint8_t of;         /* enum quota_kind */
    uint8_t rate_count; /* ASK */
    bool is_first;      /* REFUSE: since there was room */
    struct {
        uint32_t count, window_ms;
    } rates[RATE_MAX];
};
_Static_assert(sizeof(struct quota_message) <= 112, "fits a ring message");

/* ---- one shard's side ---- */

struct quota_set;
struct quota_lease;

struct quota_options {
    uint32_t shard, shard_count;
    uint32_t place_max; /* counts of users at home here */
    void *context;
    /* To another shard: quota_receive() there. */
    void (*send)(void *context, uint32_t to_shard, const struct quota_message *message);
    /* The waiter may ask again. Called inside quota_ask(), quota_receive() and quota_advance(). */
    void (*wake)(void *context, void *owner);
};

/* One who waits; zero: does not. It lives as long as it waits. */
struct quota_waiter {
    LIST_ENTRY(quota_waiter) link;
    struct quota_lease *lease; /* whose answer it waits for; NULL: none */
    void *owner;
};

struct quota_question {
    struct quota_key user;
    enum quota_kind kind;
    const struct rate_set *rates;
    uint64_t serial; /* of the settings they are from: the home goes by the newest it saw */
};

enum quota_answer { QUOTA_YES, QUOTA_NO, QUOTA_WAIT };

struct quota_stats {
    uint64_t asks;      /* questions to other shards */
    uint64_t recalls;   /* rights that were wanted back */
    uint64_t forgotten; /* users whose counts were given up for others */
    uint64_t changes;   /* words of shards about what they use, or want: rows are others now */
    uint32_t places;    /* counts kept here now */
};

/** Heap; start-up. */
struct quota_set *quota_set_new(const struct quota_options *options, tick_us now);
/** Nobody waits any more. */
void quota_set_free(struct quota_set *set);

/**
 * May the user have one more? Nothing is counted yet: quota_take() does, before anything else is
 * asked or received.
 *
 * QUOTA_NO with *ret_is_first: for the first time since there was room. QUOTA_WAIT: `waiter` waits
 * for the home's word; woken, it asks again. Without a rate the answer is yes.
 */
enum quota_answer quota_ask(struct quota_set *set, const struct quota_question *question,
                            struct quota_waiter *waiter, tick_us now,
                            bool *ret_is_first) MUST_CHECK;
/** Count one, which quota_ask() has just said yes to. */
void quota_take(struct quota_set *set, const struct quota_question *question, tick_us now);
/** It waits no more. No effect if it does not. */
void quota_leave(struct quota_waiter *waiter);

void quota_receive(struct quota_set *set, const struct quota_message *message, tick_us now);
/** At the end of a turn, when those that were woken have had theirs. */
void quota_advance(struct quota_set *set, tick_us now);
/** Time of the next quota_advance(). */
tick_us quota_deadline(const struct quota_set *set);
/** The shard stops: what is left goes home. */
void quota_return_all(struct quota_set *set, tick_us now);

struct quota_stats quota_get_stats(const struct quota_set *set);
/** At the user's home, quota_home_of(): what is used of each window, rights that are out included;
 * how many windows there are. */
uint32_t quota_uses(struct quota_set *set, struct quota_key user, enum quota_kind kind, tick_us now,
                    struct rate_use ret_uses[RATE_MAX]);
uint32_t quota_home_of(struct quota_key user, uint32_t shard_count);
/** CHECKs all invariants. For tests. */
void quota_verify(const struct quota_set *set);

/* ---- over a restart ---- */

#define QUOTA_KEEP_WINDOW TICK_S(600) /* this and longer windows outlive any end of the process */
#define QUOTA_KEPT_CELLS  16u         /* rows of one window, at most; and one for rights out */
#define QUOTA_KEPT_MAX    (RATE_MAX * (QUOTA_KEPT_CELLS + 1)) /* rows of one count */

struct quota_kept { /* events of one window that are forgotten together; wall clock */
    struct quota_key user;
    tick_us window;
    wall_us first, last;
    uint32_t count;
    uint32_t kind; /* enum quota_kind */
};

struct quota_keep {
    tick_us window_min; /* shorter windows are not wanted */
    bool is_apart;      /* only what quota_keep_apart() kept apart */
};

/** Rows of some counts whose home is here; *cursor is 0 at first, UINT64_MAX at the end. */
uint32_t quota_keep_next(struct quota_set *set, const struct quota_keep *what, uint64_t *cursor,
                         struct tick_now now, struct quota_kept *rows, uint32_t row_max);
/** Another process goes on with what was counted so far: what is counted from now on is kept apart
 * as well, until it is false again. */
void quota_keep_apart(struct quota_set *set, bool is_apart);
/** What rows of users at home here say, beside what was counted here. Senseless ones are passed
 * over. */
void quota_keep_restore(struct quota_set *set, const struct quota_kept *rows, uint32_t count,
                        struct tick_now now);

#endif

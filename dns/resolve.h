/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DNS_RESOLVE_H
#define DNS_RESOLVE_H

#include "base/wheel.h"
#include "dns/cache.h"
#include "dns/dns.h"
#include "dns/query.h"
#include "dns/transport.h"
#include "dns/worked.h"

/* Inside of dns/: what dns.c (questions), home.c (other shards) and mx.c (hosts) share. */
#define DNS_FAILURE_TTL    TICK_S(10) /* how long a failure is believed; RFC 2308 section 7 */
#define DNS_STALE_RECHECK  TICK_S(30) /* RFC 8767 section 5: between tries while stale is served */
#define DNS_POPULAR_HITS   3u  /* finds during its life that make an answer worth refreshing */
#define DNS_HOME_NAME_MAX  88u /* longer names have no home: each shard asks by itself */
#define DNS_HOME_TRIES_MAX 3u  /* answers that change while they are copied */

enum dns_pseudo_type { /* cache types of what mx.c assembles; private use range of RFC 6895 */
                       DNS_TYPE_MX_SET = 65280,
                       DNS_TYPE_HOST_SET = 65281
};

/* What is known of (name, type). `value` borrows: valid until the next cache insertion. */
struct dns_result {
    struct cache_note note; /* note.outcome: enum dns_outcome */
    struct span value;
    bool has_worked; /* the name gave positive answers within the last week */
};

/* How good an answer from the cache must be. */
struct dns_want {
    tick_us fetched_after; /* 0: any */
    bool is_refresh;       /* not one that is due for a refresh */
};

struct mx_task;
struct dns_waiter { /* who waits for a question; linked in it until it is answered */
    struct dns_waiter *next;
    struct mx_task *task; /* NULL: another shard */
    uint32_t slot;        /* task: which of its questions */
    uint32_t shard, cookie;
};

enum dns_question_state { DNS_QUESTION_FREE, DNS_QUESTION_ASKED, DNS_QUESTION_AT_HOME };

struct dns_question {
    struct wheel_timer timer;
    enum dns_question_state state;
    uint32_t index, generation;
    uint32_t next; /* free list, or bucket; index + 1 */
    uint64_t hash;
    uint16_t type;
    uint8_t name_size;
    char name[CODEC_NAME_MAX];
    struct dns_want want;
    struct dns_waiter *waiters;
    struct transport_exchange exchange; /* ASKED */
    tick_us begun;                      /* ASKED: since then */
    uint32_t home;                      /* AT_HOME: the shard asked */
    uint8_t *value;                     /* the parts so far, heap */
    uint32_t value_size, value_used, serial, home_tries;
    struct cache_note note;
};

struct dns {
    struct dns_options options;
    struct flow_plane *plane;
    struct rng *rng;
    struct cache *cache;
    struct worked *worked;
    struct transport transport;
    struct wheel wheel;
    struct dns_question *questions;
    uint32_t *buckets; /* of questions by hash; index + 1 */
    uint32_t bucket_mask, free, outstanding;
    uint32_t remote_waiters;
    struct mx_task *tasks_done;    /* answered and not yet reported */
    struct mx_task *tasks_starved; /* wait for a free question, in order */
    struct mx_task **task_buckets; /* all tasks, bucket_mask + 1 */
    uint32_t task_count, user_count;
    uint32_t turned_away;         /* who found no free place since the last dns_advance() */
    struct query_answer answer;   /* scratch */
    struct codec_message message; /* scratch */
    struct dns_stats stats;
};

/**
 * What is known of a name, or ask.
 *
 * Errors: ERR_AGAIN: `waiter` is linked and will be told, never inside this call. ERR_LIMIT: no
 *         question is free.
 */
enum err dns_ask(struct dns *dns, struct span name, uint16_t type, const struct dns_want *want,
                 struct dns_waiter *waiter, tick_us now, struct dns_result *ret_result) MUST_CHECK;

/** Put what another shard found into the cache and answer the question. */
void dns_question_finish(struct dns *dns, struct dns_question *question,
                         const struct cache_note *note, struct span value, bool has_worked,
                         tick_us now);
/** No answer can be had: the stale one if there is one, else a short-lived failure. */
void dns_question_fail(struct dns *dns, struct dns_question *question, tick_us now);
/** Ask the resolvers from this shard. */
void dns_question_ask_resolvers(struct dns *dns, struct dns_question *question, tick_us now);

/* ---- home.c ---- */
bool dns_home_is_other(const struct dns *dns, struct span name, uint32_t *ret_shard);
void dns_home_ask(struct dns *dns, struct dns_question *question, tick_us now);
void dns_home_reply(struct dns *dns, uint32_t to_shard, uint32_t cookie, uint32_t offset,
                    const struct dns_result *result, uint32_t serial);

/* ---- mx.c ---- */
void mx_task_on_result(struct dns *dns, struct mx_task *task, uint32_t slot,
                       const struct dns_result *result, tick_us now);
/** Report what was answered: wake() for each user. The last thing before dns.c returns. */
void mx_tasks_report(struct dns *dns, tick_us now);
void mx_tasks_free(struct dns *dns);

#endif

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
 *   site.c        a shard's own slots, timers
 *   site_table.c  the table
 *   site_home.c   the home's side: who has how many, who waits, the pause
 *   site_learn.c  the home's side: how many the site takes
 *   site_order.c  the home's side: what operators and patterns impose
 *   site_rate.c   rights to say MAIL: a shard's own
 *   site_home_rate.c   the home's side of them: the windows, who has how many, who waits
 *   site_act.c    operators act on sites by name
 *   site_resume.c an operator says that a site may be tried again
 *   site_host.c   keys, and the memory of dead hosts
 *   site_keep.c   what windows counted, and orders, over the end of the process
 *   site_keep_learned.c   likewise, what answers taught
 *   site_view.c   what people see, and all invariants
 */

enum site_timer_kind {
    SITE_TIMER_LEASE = 1,
    SITE_TIMER_PAUSE,
    SITE_TIMER_MAIL,
    SITE_TIMER_HOME,
    SITE_TIMER_ORDER
};

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
    uint32_t mail_out;   /* rights leased to it; over only when its MAIL_RETURN is in */
    uint32_t mail_want;  /* rights it waits for */
    uint32_t mail_given; /* of these, in the present round */
    int64_t mail_rank;
};

/* How many connections the site takes, as far as its answers tell. */
struct site_learned {
    uint32_t allowed;   /* may be above what is configured, which then binds */
    uint32_t threshold; /* below it every success adds one, from it on `allowed` successes do */
    uint32_t successes; /* since the last step */
    enum site_learn_reason reason;
    tick_us since;     /* the last step */
    tick_us decreased; /* the last step down; 0: never */
    tick_us used;      /* the last word from a shard */
};

/* An order that needs several matches, on its way there. */
#define SITE_MATCHES_MAX 4u
struct site_matches {
    uint32_t count; /* 0: free */
    tick_us since;
    char by[SITE_ORDER_BY_SIZE];
};

#define SITE_BACK_OFF_MEMORY TICK_S(3600) /* of an order that doubles */

struct site_home {
    struct site *site;
    uint32_t configured; /* as the shards' configuration has it */
    uint32_t limit;      /* of that, as many as are allowed now */
    struct site_learned learned;
    bool is_learning; /* fewer than are configured: told to the shards */
    uint32_t out_total;
    uint32_t failures; /* pauses in a row */
    tick_us resumed;   /* trouble of what began before then is old news; 0: never */
    tick_us paused_until;
    struct site_orders *orders; /* NULL: none */
    struct site_matches matches[SITE_MATCHES_MAX];
    uint32_t back_offs; /* in a row */
    tick_us back_off_until;
    struct wheel_timer order_timer;
    struct rate_set rates;      /* as they come, one by one; rates.count: how many there will be */
    struct rate_set told_rates; /* the last that were complete */
    bool has_told_rates;
    bool has_standing;          /* the orders that stood for it are its own */
    struct rate_limiter mails;  /* what was said */
    uint32_t mail_out_total;    /* what may still be said */
    struct wheel_timer timer;   /* somebody waits for room, or all is to be forgotten */
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
    bool is_suspended;   /* until paused_until */
    tick_us slow_window; /* of an order's rate; 0: none. MAIL needs a right then */
    bool is_learning;    /* the home wants to hear of successes */
    bool is_waiting;     /* an acquire said no and wake() has not followed yet */
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
    struct rate_set rates;
    bool is_mail_waiting;      /* a site_mail_acquire() said no and wake() has not followed yet */
    bool is_home_told;         /* the home has our rates, and keeps them while it owes us */
    uint32_t mail_held;        /* rights leased to this shard and at hand */
    uint32_t mail_out;         /* with attempts; of these ... */
    uint32_t mail_out_leased;  /* ... so many by lease: the others began without a rate */
    uint32_t mail_used;        /* of which the home does not know yet; of these ... */
    uint32_t mail_used_leased; /* ... so many by lease */
    tick_us mail_used_at;      /* the last of them */
    uint32_t mail_asked;       /* of our last MAIL_WANT, not granted yet */
    int64_t mail_asked_rank, mail_rank;
    struct wheel_timer mail_timer; /* armed while mail_held or mail_used > 0 */
    char label[SITE_LABEL_MAX + 1];
    char source[SITE_SOURCE_MAX];
    uint8_t source_size;
};

#define SITE_DEAD_WAYS 4u
struct site_dead {
    tick_us until;   /* 0: free */
    uint64_t key;    /* of the site that found it so */
    bool is_ordered; /* whatever becomes of attempts there */
    uint8_t size;
    uint8_t address[SITE_ADDRESS_MAX];
};

/* Messages of a shard to itself. Handling one makes at most three, of which each makes fewer. */
#define SITE_SELF_QUEUE_MAX 64u

/* An operator's order for the sites of a name that become known while it holds. */
struct site_standing {
    struct site_order order;
    char name[SITE_LABEL_MAX + 1];
};

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
    uint64_t words;          /* of shards, about sites whose home we are */
    uint32_t order_count;    /* of the sites whose home we are */
    uint64_t orders_refused; /* no room */
    struct site_standing *standing;
    uint32_t standing_count;
    struct site_order *drafts;     /* by shard: an order on its way to us */
    char (*names)[SITE_LABEL_MAX]; /* likewise, of a site */
    uint32_t self_head, self_count;
    struct site_message self[SITE_SELF_QUEUE_MAX];
    struct site_dead dead[SITE_DEAD_MAX];
    tick_us dead_latest; /* no `until` is later */
};

/* site.c */
/** Slots that are idle here are the home's again. */
void site_give_back(struct site_set *sites, struct site *site, uint32_t count);

static inline uint32_t site_home_shard(const struct site_set *sites, uint64_t key)
{
    return (uint32_t)(key % sites->options.shard_count);
}

/** Send to a shard; to ourselves through the queue that the public calls drain at their end. */
void site_post(struct site_set *sites, const struct site *site, uint32_t to_shard,
               const struct site_message *message);

/** The first call tells the wheel where time is. */
void site_start(struct site_set *sites, tick_us now);
/** To its home. */
void site_post_home(struct site_set *sites, const struct site *site,
                    const struct site_message *message);
/** Handle what was said to ourselves: every public call that may have done so ends here. */
void site_drain(struct site_set *sites, tick_us now);
void site_waking_append(struct site_set *sites, struct site *site);
void site_waking_remove(struct site_set *sites, struct site *site);

/* site_keep.c, site_keep_learned.c */
/** Of a time that is over. */
static inline wall_us site_wall_of(tick_us tick, struct tick_now now)
{
    return now.wall - (wall_us)(now.tick - tick);
}

/** One in the future is taken for now. */
static inline tick_us site_tick_of(wall_us wall, struct tick_now now)
{
    if (wall >= now.wall)
        return now.tick;
    tick_us age = (tick_us)now.wall - (tick_us)wall;
    return age < now.tick ? now.tick - age : 0;
}

/* site_table.c */
struct site *site_find(const struct site_set *sites, uint64_t key);
/** A new site; at site_count_max the least recently used idle ones make room. */
struct site *site_make(struct site_set *sites, uint64_t key);
/** Called at the end of everything that changes a site. */
void site_review(struct site_set *sites, struct site *site);
/** Somebody, here or elsewhere, waits for it or has a connection: it must not be forgotten. */
bool site_is_needed(const struct site_set *sites, const struct site *site);

/* site_act.c */
/** A site that has just become known takes the orders that stand for its name. */
void site_standing_apply(struct site_set *sites, struct site *site, tick_us now);
/** False: too many. */
bool site_standing_add(struct site_set *sites, const char *name, const struct site_order *order,
                       tick_us now);

/** Is the order one of those that end? */
bool site_act_means(const struct site_act *act, const struct site_order *order);

/* site_resume.c */
/** Nothing that was learned, or a pattern ordered, holds this site back any more, as far as this
 * shard decides. Adds to `act->ended`. */
bool site_resume(struct site_set *sites, struct site *site, struct site_act *act, tick_us now);

/* site_host.c */
/** Addresses that this site found dead: how many; and they are so no more. */
uint32_t site_hosts_forgive(struct site_set *sites, uint64_t key, bool is_dry_run, tick_us now);
/** The host is tried last until then; 0: no longer. */
void site_host_skip(struct site_set *sites, const void *address, uint32_t address_size,
                    tick_us until);

/* site_home.c */
/** A message for the home of this site, which is this shard. */
void site_home_receive(struct site_set *sites, struct site *site,
                       const struct site_message *message, tick_us now);
/** Nobody else has slots or waits for some. */
bool site_home_is_idle(const struct site_set *sites, const struct site *site);
void site_home_verify(const struct site_set *sites, const struct site *site);
struct site_home *site_home_get(const struct site_set *sites, struct site *site);
void site_home_free(struct site_set *sites, struct site *site);

/** Grant what is allowed by now, ask back what is not. */
void site_home_balance(struct site_set *sites, struct site *site, tick_us now);

/* site_learn.c */
void site_learn_init(const struct site_set *sites, struct site_home *home, tick_us now);
/** An attempt is over. The home's limit may change: balance. */
enum site_outcome site_learn(const struct site_set *sites, struct site_home *home,
                             enum site_outcome outcome, tick_us began, tick_us now);
/** A shard has written: what was learned long ago is forgotten. */
void site_learn_review(struct site_set *sites, struct site_home *home, tick_us now);
/** Nothing that is still true was learned. */
bool site_learn_is_fresh(const struct site_home *home, tick_us now);
/** As an earlier process learned it, unless that heard the last word of the site, at `used`, too
 * long ago. */
void site_learn_restore(struct site_home *home, const struct site_learned *learned, wall_us used,
                        struct tick_now now);
/** What is true now, also when nobody has asked for long. */
struct site_learned site_learned_now(const struct site_set *sites, const struct site_home *home,
                                     tick_us now);
/** It takes fewer connections than are configured, since it refused or did not answer, or after an
 * order. */
bool site_learn_is_reduced(const struct site_home *home);
/** As if it had never been so; how many it takes is no fewer than those of a new site. */
void site_learn_forgive(const struct site_set *sites, struct site_home *home, tick_us now);
/** Begin at one connection, fast up to half of what it was. */
void site_learn_restart(struct site_home *home, tick_us now);
void site_learn_verify(const struct site_home *home);

/* site_order.c */
/** Orders of a site of ours that `act` means end. How many there were. */
uint32_t site_orders_cancel(struct site_set *sites, struct site *site, const struct site_act *act,
                            tick_us now);
tick_us site_home_suspended_until(const struct site_home *home);
/** UINT32_MAX: none. */
uint32_t site_home_order_limit(const struct site_home *home);
/** The shortest window of an order's rate; 0: none. */
tick_us site_home_slow_window(const struct site_home *home);
enum err site_home_order_rates_add(const struct site_home *home, struct rate_set *set) MUST_CHECK;
const struct site_order *site_home_orders(const struct site_home *home, uint32_t *ret_count);
/** Orders that are over end. */
void site_orders_review(struct site_set *sites, struct site *site, tick_us now);
void site_home_on_order(struct site_set *sites, struct site *site,
                        const struct site_message *message, tick_us now);
/** What a shard that may not know of them needs to. */
void site_orders_tell(struct site_set *sites, const struct site *site, uint32_t shard);
void site_on_skip_host(struct site_set *sites, const struct site_message *message);
void site_on_do_order(struct site_set *sites, const struct site *site,
                      const struct site_message *message);
/** One for a site that is to take it, besides what it has. */
enum err site_home_order_add(struct site_set *sites, struct site *site,
                             const struct site_order *order, tick_us now) MUST_CHECK;
void site_orders_free(struct site_set *sites, struct site_home *home);
/** May come from a file. */
bool site_order_is_valid(const struct site_order *order);
void site_orders_verify(const struct site_home *home);

/* site_home.c */
/** Tell the shards, and balance. */
void site_home_orders_changed(struct site_set *sites, struct site *site, tick_us now);
/** Likewise: what was learned, or the pause, is that of an earlier process. */
void site_home_restored(struct site_set *sites, struct site *site, tick_us now);

/* site_rate.c */
/** The home learns what the site is called. */
void site_label_tell(struct site_set *sites, const struct site *site);
void site_on_name(struct site_set *sites, struct site *site, const struct site_message *message);
void site_on_mail_grant(struct site_set *sites, struct site *site,
                        const struct site_message *message, tick_us now);
/** The lease ends: what is at hand goes back, what was used is told. */
void site_on_mail_timer(struct site_set *sites, struct site *site, tick_us now);
/** Nobody is left here who could use a right. */
void site_mail_give_back(struct site_set *sites, struct site *site);
void site_mail_verify(const struct site *site);

void site_on_slow(struct site_set *sites, struct site *site, const struct site_message *message);

/* site_home_rate.c */
/** The windows are those that were told, and the orders'. */
void site_home_rates_review(struct site_set *sites, struct site *site, tick_us now);
void site_home_mail_receive(struct site_set *sites, struct site *site,
                            const struct site_message *message, tick_us now);
void site_home_on_timer(struct site_set *sites, struct site *site, tick_us now);
/** No right is out or wanted elsewhere, and all that was said is older than the windows. */
bool site_home_mail_is_idle(const struct site_set *sites, const struct site *site);
void site_home_mail_verify(const struct site_set *sites, const struct site *site);

#endif

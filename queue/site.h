/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_SITE_H
#define QUEUE_SITE_H

#include "base/rng.h"
#include "queue/rate.h"

/*
 * Sites: who limits us. A site is the set of MX hosts a domain resolves to (hash of the lower-case
 * names, in no order), seen from one source address. Its home shard (key modulo shard count) alone
 * grants connection slots, as leases with expiry, recalled on demand, first to the shard whose
 * waiting mail ranks first. On one shard everything is a plain call; the code is the same.
 *
 * The protocol between a shard and the home, its invariants and what a lease means stand in site.c
 * (a shard's side) and site_home.c.
 *
 * The home also keeps the rates of the site, and grants the rights to say MAIL as leases (protocol
 * in site_rate.c): never more than n MAILs in any window, whichever shards say them.
 *
 * Also here: back-off of the site as a whole, how many connections its answers allow
 * (site_learn.c), what operators and reply patterns impose for a time (site_order.c), and dead-host
 * memory, so that one black hole slows nobody else.
 */
struct site_order;
struct site_set; /* one per shard */
struct site;

enum site_message_kind {
    SITE_MESSAGE_WANT,    /* to the home: count, waiting, rank, limit */
    SITE_MESSAGE_RETURN,  /* to the home: count; waiting: slots of the last WANT still wanted */
    SITE_MESSAGE_OUTCOME, /* to the home: count: enum site_outcome; until: when it began; waiting:
                             the sender has heard of a pause */
    SITE_MESSAGE_RATE,    /* to the home: rate number `waiting` of `count`: `limit` in `until` us */
    SITE_MESSAGE_LABEL,   /* to the home: octets of `text` from `waiting` on, of `count` in all;
                             limit 1: of the name of the source */
    SITE_MESSAGE_ORDER,   /* to the home: octets of a struct site_order, from `waiting` on */
    SITE_MESSAGE_MAIL_WANT,   /* to the home: count rights to say MAIL, rank; limit, until,
                                 waiting: as MAIL_RETURN */
    SITE_MESSAGE_MAIL_RETURN, /* to the home: count rights unused; limit: MAILs said, by `until` at
                                 the latest, `waiting` of them by right */
    SITE_MESSAGE_GRANT,       /* from the home: count, until; count 0: none soon, see holder;
                                 waiting: as LEARN */
    SITE_MESSAGE_RECALL,      /* from the home: count, rank of who waits for them */
    SITE_MESSAGE_PAUSE,       /* from the home: until (0: none), count of failures in a row;
                                 waiting 1: suspended */
    SITE_MESSAGE_SLOW,        /* from the home: MAIL needs a right; until: the shortest window, 0:
                                 no more */
    SITE_MESSAGE_SKIP_HOST,   /* from the home: until (0: no more); count octets of an address, in
                                 text, rank, limit, holder */
    SITE_MESSAGE_DO_ORDER,    /* from the home: octets of a BOUNCE, as ORDER */
    SITE_MESSAGE_MAIL_GRANT,  /* from the home: count rights */
    SITE_MESSAGE_LEARN,       /* from the home: waiting 1: successes are of interest, 0: no more */
    SITE_MESSAGE_NAME,        /* from the home, to who has told another LABEL: its own, likewise */
    SITE_MESSAGE_KIND_COUNT
};
#define SITE_HOLDER_NONE UINT32_MAX
#define SITE_TEXT_SIZE   16u
struct site_message {
    uint64_t key;
    uint32_t kind; /* enum site_message_kind */
    uint32_t from_shard;
    uint32_t count;   /* slots; see kind */
    uint32_t waiting; /* WANT: deliveries waiting at the asker; see RETURN */
    int64_t rank;     /* of its first: qmgr_rank(), smaller first */
    tick_us until;    /* lease end; pause end */
    uint32_t limit;   /* connection_max as the asker's configuration has it */
    uint32_t holder;  /* GRANT: a shard with a slot when the site is scarce, or SITE_HOLDER_NONE */
    char text[SITE_TEXT_SIZE]; /* LABEL, NAME, ORDER */
};
_Static_assert(sizeof(struct site_message) <= 64, "fits the payload of a ring message");

#define SITE_HOST_MAX    64u   /* names of one site */
#define SITE_ADDRESS_MAX 32u   /* octets of an address in the dead-host memory */
#define SITE_DEAD_MAX    4096u /* dead hosts remembered; the soonest to be tried again goes first */
#define SITE_LABEL_MAX   63u   /* octets of a label that are kept */
#define SITE_SOURCE_MAX  31u   /* octets of the name of a source */

struct site_options {
    uint32_t shard, shard_count;
    uint32_t site_count_max;          /* idle sites are forgotten, least recently used first */
    uint32_t connection_max;          /* per (source, site), all shards together; default 20 */
    uint32_t connection_start;        /* of a site that we know nothing of; at most connection_max
                                         are used at once */
    tick_us lease_time;               /* a lease not renewed is free again */
    tick_us host_dead_time;           /* how long a host that failed to answer is tried last */
    tick_us backoff_min, backoff_max; /* site-wide pause after connection failures of all its hosts:
                                         doubles, with jitter */
    void *context;
    /* How to reach another shard: messages for site_receive() over there, in order. Never called
     * for oneself. */
    void (*send)(void *context, uint32_t to_shard, const struct site_message *message);
    /* A slot became available, the pause ended, or the site turned out to be scarce: the shard
     * should call site_slot_acquire() for this site now, if it still has mail for it. Called by
     * site_advance() alone, once for every acquire that said no. */
    void (*wake)(void *context, struct site *site);
    /* An order of a pattern begins here, at its home (for records), and BOUNCE on every shard with
     * mail for the site, which is to carry it out (`is_home` false, also at home, behind the
     * other call). Borrowed. NULL: nobody wants to know. */
    void (*on_order)(void *context, struct span label, const struct site_order *order,
                     bool is_home);
    /* The site is called otherwise from now on: as its home calls it. NULL: as on_order. */
    void (*on_name)(void *context, const struct site *site);
};

struct site_set *site_set_new(const struct site_options *options, struct rng *rng);
void site_set_free(struct site_set *sites);

/** The key of a set of host names (order and repetition do not matter, ASCII case ignored) seen
 * from one source. CHECKs host_count <= SITE_HOST_MAX. */
uint64_t site_key(struct span source, const struct span *hosts, uint32_t host_count);
/** Find or make. `label` (a domain, or provider name) is for people. NULL only when all
 * site_count_max sites are busy. */
struct site *site_get(struct site_set *sites, uint64_t key, struct span label, tick_us now);
/** The name of the source that the site is seen from, for people; "" at first. */
void site_set_source(struct site *site, struct span name);
/** Users keep a site alive between hold and release (waiting domains, connections). */
void site_hold(struct site *site);
void site_release(struct site_set *sites, struct site *site);

/**
 * One connection slot for this shard. The caller holds the site. ERR_OK: yours until
 * site_slot_return(). ERR_AGAIN: asked the home shard, or none free: wake() follows. ERR_TIMEOUT:
 * the site pauses until site_paused_until(); wake() follows.
 */
enum err site_slot_acquire(struct site_set *sites, struct site *site, int64_t rank,
                           uint32_t waiting, tick_us now) MUST_CHECK;
/** Likewise for what can do without: one that is free now, and that no mail waits for. After false
 * wake() may follow. */
bool site_slot_try(struct site_set *sites, struct site *site, tick_us now);
void site_slot_return(struct site_set *sites, struct site *site, tick_us now);
/** How many connections the caller's configuration allows this site, instead of connection_max. The
 * home goes by what it heard last; above a lowered limit slots come back as they are returned. */
void site_limit_set(struct site_set *sites, struct site *site, uint32_t connection_max,
                    tick_us now);
/** Fewer slots than shards with mail for it: deliveries should be handed to the shard that holds
 * the slot. */
bool site_is_scarce(const struct site *site);
/** A shard that holds a slot of a scarce site (as the home told us), or our own number when
 * unknown. */
uint32_t site_holder(const struct site *site);

/** The rates that the caller's configuration sets for this site. The home goes by what it heard
 * last; what was counted stays. */
void site_rates_set(struct site_set *sites, struct site *site, const struct rate_set *rates,
                    tick_us now);
/**
 * The right to say MAIL once to a site. The caller holds the site. ERR_OK: yours until
 * site_mail_done(). ERR_AGAIN: there is none now; wake() follows. `waiting`: how many would help.
 */
enum err site_mail_acquire(struct site_set *sites, struct site *site, int64_t rank,
                           uint32_t waiting, tick_us now) MUST_CHECK;
/** A right is over. `was_used`: MAIL was sent, and has surely arrived by now or never will: from
 * this moment on it is counted. */
void site_mail_done(struct site_set *sites, struct site *site, bool was_used, tick_us now);

enum site_outcome {
    SITE_OUTCOME_OK,          /* a connection that spoke SMTP, and nothing against us */
    SITE_OUTCOME_NEUTRAL,     /* one that spoke SMTP, and told nothing of what the site can take */
    SITE_OUTCOME_REFUSED,     /* one that spoke SMTP: 421, or a refusal of its host or of us */
    SITE_OUTCOME_TURNED_AWAY, /* no host let us in, and one said so in its greeting */
    SITE_OUTCOME_UNREACHABLE  /* every host of the site failed */
};
/** An attempt that `began` then is over: ends, starts or lengthens the pause, and says how many
 * connections the site takes. */
void site_outcome(struct site_set *sites, struct site *site, enum site_outcome outcome,
                  tick_us began, tick_us now);
/** There are more connections than are allowed by now: idle ones should be closed. */
bool site_has_excess(const struct site *site);
tick_us site_paused_until(const struct site *site);

/** Dead-host memory: by address and port (at most SITE_ADDRESS_MAX octets, opaque here), and of
 * which site it was found dead. */
void site_host_report(struct site_set *sites, uint64_t key, struct span address, bool is_ok,
                      tick_us now);
bool site_host_is_dead(const struct site_set *sites, const void *address, uint32_t address_size,
                       tick_us now);
/** Until then; 0, or a time that is over: it is not. */
tick_us site_host_dead_until(const struct site_set *sites, const void *address,
                             uint32_t address_size);

/* ---- orders ---- */

#define SITE_ORDER_MAX       8u     /* of one site */
#define SITE_ORDERS_MAX      10000u /* of the sites of one home shard */
#define SITE_ORDERS_KEPT     1000u  /* of those, for operators: patterns do not get them */
#define SITE_ORDER_KEPT      1u     /* of one site, likewise */
#define SITE_STANDING_MAX    32u    /* operators' orders for sites that come later */
#define SITE_ORDER_TIME_MAX  (TICK_S(86400) * 31)
#define SITE_BACK_OFF_MAX    TICK_S(4 * 3600) /* what an order that doubles grows to */
#define SITE_ORDER_BY_SIZE   48u
#define SITE_ORDER_TEXT_SIZE 176u

enum site_order_kind {
    SITE_ORDER_SUSPEND,
    SITE_ORDER_SLOW,
    SITE_ORDER_SKIP_HOST, /* its address is tried last */
    SITE_ORDER_BOUNCE,    /* what is queued for the site goes back to its senders, once */
    SITE_ORDER_KIND_COUNT
};

struct site_order {
    uint32_t id;             /* for people, who cancel it by that; 1 and more */
    uint8_t kind;            /* enum site_order_kind */
    uint8_t steps;           /* SLOW with a rate: at the end it is doubled so often */
    bool is_pattern;         /* of a pattern; lengthened when it is given again */
    bool is_doubled;         /* SUSPEND: `duration` the first time, twice as long each time after */
    uint32_t connection_max; /* SLOW; 0: as it is */
    uint16_t needed;         /* in force when it was given so often ... */
    uint8_t host_size;       /* SKIP_HOST */
    bool is_restored;        /* from an earlier process: it does not begin now */
    struct rate rate;        /* SLOW; count 0: none more */
    tick_us needed_window;   /* ... within that time, from the first on */
    tick_us until, duration;
    wall_us given;
    char by[SITE_ORDER_BY_SIZE];       /* pattern's name, or who it was */
    char reason[SITE_ORDER_TEXT_SIZE]; /* for people, printable */
    uint8_t host[SITE_ADDRESS_MAX];    /* SKIP_HOST: as site_host_report() has it */
};
_Static_assert(sizeof(struct site_order) % SITE_TEXT_SIZE == 0, "travels in whole pieces");

/**
 * The order is in force for this site, whose home is this shard, on all shards.
 *
 * Bounds:  CHECKs that it is valid: SLOW has connections or a rate, duration within
 *          SITE_ORDER_TIME_MAX. One that is over already does nothing.
 * Errors:  ERR_LIMIT: too many orders, sites or windows.
 */
enum err site_order_add(struct site_set *sites, uint64_t key, struct span label,
                        const struct site_order *order, tick_us now) MUST_CHECK;
/** From any shard: the same at the site's home, soon. One that finds no room there is counted. */
void site_order_give(struct site_set *sites, struct site *site, const struct site_order *order,
                     tick_us now);
/** Orders that found no room so far: of patterns, of other shards, of an earlier process. */
uint64_t site_orders_refused(const struct site_set *sites);
/** No connection and no MAIL: not a pause, which kept connections do not mind. */
bool site_is_suspended(const struct site *site, tick_us now);

/*
 * What an operator does to the sites of a name: to those that are known, and an order also to those
 * that become known before it ends, such as the same site seen from another source.
 */
struct site_ended { /* what held sites back, and does no more */
    uint32_t orders;
    uint32_t pauses;    /* after failures */
    uint32_t back_offs; /* that would have doubled, and matches on the way to an order */
    uint32_t reduced;   /* that took fewer connections than before */
    uint32_t hosts;     /* addresses that were tried last; of the core that knew most of them */
};
struct site_act {
    char name[SITE_LABEL_MAX + 1];  /* label, or key in 16 hexadecimal digits; "": every site */
    const struct site_order *order; /* given to them; NULL: orders are cancelled ... */
    uint32_t id, kinds;             /* ... with this id (0: any), of these kinds (bits) ... */
    uint32_t pattern_kinds;         /* ... and of these, when they are a pattern's */
    bool is_resume;                 /* and what was learned against the site is forgotten */
    bool is_dry_run;
    struct site_ended ended; /* what has; with is_resume also what would */
    uint32_t hosts_here;     /* as `ended.hosts`, of the present core */
    uint32_t matched, done;  /* sites, so far */
    bool is_known;           /* the order stands, or has stood, for sites to come */
    bool is_full;            /* too many stand already: none is given */
};
/** Some thousand sites whose home we are. `*cursor` begins at 0. False: that was the end. */
bool site_act_step(struct site_set *sites, struct site_act *act, uint64_t *cursor, tick_us now);

void site_receive(struct site_set *sites, const struct site_message *message, tick_us now);
/** Timers: lease renewals and expiries, pauses. */
void site_advance(struct site_set *sites, tick_us now);
tick_us site_set_deadline(const struct site_set *sites);

enum site_learn_reason {
    SITE_LEARN_START,       /* nothing is known: few at first */
    SITE_LEARN_GROWN,       /* it took what it got */
    SITE_LEARN_REFUSED,     /* halved by a refusal */
    SITE_LEARN_UNREACHABLE, /* no host answered: one */
    SITE_LEARN_ORDER,       /* an order has ended: one */
    SITE_LEARN_REASON_COUNT
};

struct site_view { /* for `status` and `queue show` */
    uint64_t key;
    struct span label, source;
    uint32_t slots_held, slots_used, connection_max;
    tick_us paused_until;
    uint32_t failures;
    struct rate_set rates; /* as this shard's configuration has them */
    uint32_t mail_held;    /* rights to say MAIL that are at hand at this shard */
    bool is_suspended;     /* until paused_until */
    bool is_home;          /* then what follows is of all shards */
    uint32_t allowed;      /* connections at once, by what the site's answers taught */
    enum site_learn_reason allowed_reason;
    tick_us allowed_since;
    const struct site_order *orders; /* in force; valid until the next call into the sites */
    uint32_t order_count;
    uint32_t mail_out;              /* rights that are out */
    struct rate binding;            /* the rate with the least room; count 0: none */
    uint32_t binding_used;          /* MAILs in that window now */
    tick_us mail_next;              /* when the next right can be had, if nothing comes back */
    struct rate_use uses[RATE_MAX]; /* of each window, orders' too; as they are listed there */
    uint32_t use_count;
};
/** Iterate: `*cursor` starts at 0; false at the end. Only this view says what the home knows. */
bool site_next(const struct site_set *sites, uint32_t *cursor, struct site_view *ret_view);
struct site_view site_get_view(const struct site *site);
/* ---- over a restart ---- */

#define SITE_KEEP_WINDOW                                                                           \
    TICK_S(600) /* windows of this length and more outlive any end of the process */
#define SITE_KEPT_MAX      (RATE_MAX * 133u) /* rows of one site, at most */
#define SITE_KEEP_LOOK_MAX 16384u            /* sites in one look for rows: mail waits meanwhile */

struct site_kept { /* what a window of a site counted; times of the wall clock */
    uint64_t key;
    uint64_t window;
    int64_t first, last;
    uint32_t count, unused;
};

/** The next rows of the sites whose home we are, of windows of `window_min` and more. `*cursor` is
 * 0 at first and UINT64_MAX at the end. CHECKs row_max >= SITE_KEPT_MAX. */
uint32_t site_keep_next(struct site_set *sites, tick_us window_min, uint64_t *cursor,
                        struct tick_now now, struct site_kept *rows, uint32_t row_max);
/** Before the first mail: count again what an earlier process counted. Rows of other shards' sites,
 * and rows that make no sense, are passed over; those of a window come in their old order. */
void site_keep_restore(struct site_set *sites, const struct site_kept *rows, uint32_t count,
                       struct tick_now now);

struct site_order_kept { /* an order; `until` of it is no time here */
    uint64_t key;        /* 0: for all sites of that label */
    wall_us until;
    struct site_order order;
    char label[SITE_LABEL_MAX + 1];
};

/** The next orders of the sites whose home we are; `*cursor` as for site_keep_next(). CHECKs
 * row_max >= SITE_ORDER_MAX + SITE_STANDING_MAX. */
uint32_t site_keep_next_orders(struct site_set *sites, uint64_t *cursor, struct tick_now now,
                               struct site_order_kept *rows, uint32_t row_max);
/** Before the first mail: in force again, but what is over. As site_keep_restore(). */
void site_keep_restore_orders(struct site_set *sites, const struct site_order_kept *rows,
                              uint32_t count, struct tick_now now);

struct site_learned_kept { /* what a site's answers taught; times of the wall clock */
    uint64_t key;
    wall_us used, since;                  /* the last word about it, the last step */
    wall_us paused_until, back_off_until; /* 0: none */
    uint32_t allowed, threshold, successes;
    uint32_t reason;              /* enum site_learn_reason */
    uint32_t failures, back_offs; /* in a row */
    char label[SITE_LABEL_MAX + 1], source[SITE_SOURCE_MAX + 1];
};

/** The next of the sites whose home we are, those that take less than before first; `*cursor` as
 * for site_keep_next(). */
uint32_t site_keep_next_learned(struct site_set *sites, uint64_t *cursor, struct tick_now now,
                                struct site_learned_kept *rows, uint32_t row_max);
/** Before the first mail: learned again, as old as it is by now. As site_keep_restore(); a site
 * that was heard of in this process knows better. Without `with_pauses` each may be tried at once,
 * and pauses for longer if that fails. */
void site_keep_restore_learned(struct site_set *sites, bool with_pauses,
                               const struct site_learned_kept *rows, uint32_t count,
                               struct tick_now now);
/** It is another one when something was said about a site whose home we are. */
uint64_t site_learn_words(const struct site_set *sites);

/** CHECKs all invariants. For tests. */
void site_set_verify(const struct site_set *sites);

#endif

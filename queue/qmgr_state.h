/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_QMGR_STATE_H
#define QUEUE_QMGR_STATE_H

#include <sys/queue.h>

#include "base/wheel.h"
#include "queue/keyed_hash.h"
#include "queue/qmgr.h"
#include "queue/qmgr_ages.h"
#include "queue/slab.h"

/*
 * Inside of the queue manager; only qmgr*.c include this. The files, each opening with its own
 * invariants:
 *   qmgr.c           insert, timers, the end of messages, statistics, look-ups
 *   qmgr_envelope.c  envelopes: kept, read when needed, let go; states of recipients
 *   qmgr_line.c      lines: the table, and the list in which they are handed out
 *   qmgr_fair.c      what is due in a line, and whose turn it is
 *   qmgr_attempt.c   take, view, finish, retries, expiry
 *   qmgr_dsn.c       failures and the DSN they are owed
 *   qmgr_settle.c    settles gathered for a PROGRESS
 *   qmgr_act.c       orders of operators: hold, release, retry, bounce, delete
 *   qmgr_wish.c      orders about what is under way
 *   qmgr_unstored.c  mail whose client still waits
 *   qmgr_check.c     the watchman: counts what has no next event
 *   qmgr_dsn_view.c  what a DSN says, and the PROGRESS that goes with it
 *   qmgr_dsn_share.c how many a sender gets
 *   qmgr_sender.c    messages by sender domain
 *   qmgr_standing.c  orders for mail that comes later
 *   qmgr_match.c     does it match a filter?
 *   qmgr_scan.c      the operators' view: what matches a filter, in slices
 *   qmgr_groups.c    counts by group
 *   qmgr_piece.c     bodies for operators, piece by piece
 *   qmgr_route.c     deliveries that go by another domain than that of their recipients
 *   qmgr_recover.c   PROGRESS applied to a message that comes back
 *   qmgr_name_use.c  what waits for one site or domain, for operators
 *   qmgr_verify.c    all invariants of these structures
 */

/* Work of one turn: timers handled by one qmgr_advance(); the rest in the next. */
#define QMGR_TIMERS_PER_ADVANCE 4096u
/* Decoded envelope, failures and settles of the largest message fit. */
#define QMGR_ARENA_SIZE_MAX (8u << 20)
#define QMGR_WORK_SPARE_MAX 1024u
/* The first block of a work's arena: a decoded envelope of a few recipients. */
#define QMGR_WORK_ARENA_BLOCK 512u
#define QMGR_CLASS_COUNT      256u
#define QMGR_DSN_SHARE_SETS   1024u
#define QMGR_DSN_SHARE_WAYS   4u
/* Senders of one line that take turns by themselves; the others do together. */
#define QMGR_FAIR_PARTS_MAX 1024u
/* Envelopes kept for first attempts may have one part in so many of the memory for bodies. */
#define QMGR_ENVELOPE_SHARE 4u
/* Envelopes being read when no more are read for expiries. */
#define QMGR_LOADS_MAX 1024u

/* Bugs planted on purpose, in test programs only: each must be caught. */
#define QMGR_BUG_NONE             0
#define QMGR_BUG_STATES_FORGOTTEN 1 /* an envelope that was read back is as it was committed */
#define QMGR_BUG_FORGET_DEFERRED  2 /* an unstored message that is deferred has ended well */
#define QMGR_BUG_FORGET_IN_DOUBT                                                                   \
    3                             /* likewise, whose connection was lost behind the end of data    \
                                   */
#define QMGR_BUG_WISH_FORGOTTEN 4 /* an order about what is under way is in memory only */
#ifndef QMGR_BUG
#define QMGR_BUG QMGR_BUG_NONE
#endif
#define QMGR_HAS_BUG(bug) (QMGR_BUG == QMGR_BUG_##bug)

enum qmgr_timer_kind {
    QMGR_TIMER_RETRY = 1, /* of a delivery */
    QMGR_TIMER_EXPIRY,    /* of a message */
    QMGR_TIMER_DSN,       /* of a work: the DSN's commit failed */
    QMGR_TIMER_HOLD,      /* of a delivery; the bits from QMGR_HOLD_ORDER_SHIFT on: the order */
    QMGR_TIMER_CHECK      /* of the queue: a slice of the watchman's round */
};

/* The text of a last reply, shared by all deliveries of a line that heard the same. */
struct qmgr_reply {
    uint32_t references, size;
    uint8_t octets[];
};

enum qmgr_delivery_state { QMGR_WAITING = 1, QMGR_READY, QMGR_ACTIVE, QMGR_HELD };

/* The envelope of an ACTIVE delivery. */
enum qmgr_load_state {
    QMGR_LOAD_DONE,   /* here, and `recipients` are known */
    QMGR_LOAD_WAITED, /* being read */
    QMGR_LOAD_LISTED, /* the read has ended, the transfer is to hear of it */
    QMGR_LOAD_FAILED, /* the same, and it failed */
};

#define QMGR_HOLD_ORDER_SHIFT 8u
#define QMGR_TIMER_KIND_MASK  0xffu
/* The lifetime of a message, rounded up, for its notice of delay. */
#define QMGR_LIFETIME_SHIFT 8u
#define QMGR_LIFETIME_UNIT  TICK_MS(250)
#define QMGR_LIFETIME_MAX   ((1u << (32 - QMGR_LIFETIME_SHIFT)) - 1)

/* What an operator wants of a delivery that is under way, if its results leave anything to do. */
struct qmgr_wish {
    struct qmgr_wish *next; /* given later */
    struct qmgr_order order;
    uint32_t count; /* recipients it is about */
    uint32_t recipients[];
};

/* What an ACTIVE delivery has besides. */
struct qmgr_active {
    uint32_t *recipients; /* once its envelope is here */
    uint32_t count;
    uint32_t only;            /* what `recipients` points to when there is one */
    struct qmgr_wish *wishes; /* in the order in which they were given */
    void *user;
    struct qmgr_delivery *loaded_next;
};

struct qmgr_delivery {
    union {
        struct wheel_timer timer; /* WAITING; HELD: armed when the hold has an end */
        struct {
            wall_us since;
            struct qmgr_delivery *up, *left, *right; /* see qmgr_fair.c */
        } ready;
        struct {
            wall_us since; /* of being ready */
            struct qmgr_active *of;
        } active;
    };
    struct qmgr_message *message;
    struct qmgr_line *line;
    uint32_t next, prev;           /* of the message; references, as the next two */
    uint32_t line_next, line_prev; /* of the line */
    struct qmgr_reply *last_reply; /* NULL: none */
    uint16_t attempts;
    uint16_t first;       /* no recipient of this delivery stands before this index */
    uint16_t due_count;   /* recipients DUE */
    uint8_t rank;         /* READY; see qmgr_fair.c */
    uint8_t state : 3;    /* enum qmgr_delivery_state */
    uint8_t load : 2;     /* enum qmgr_load_state, while ACTIVE */
    bool is_fresh : 1;    /* no attempt has ended yet */
    bool is_rerouted : 1; /* its line is not that of its recipients' domain */
    bool is_joint : 1;    /* READY in the part of the senders that have none of their own */
};
_Static_assert(sizeof(struct qmgr_delivery) == 80, "resident for each delivery");

struct qmgr_message {
    struct wheel_timer expiry; /* armed until it is expired; the lifetime is in its kind */
    struct spool_entry *entry;
    struct qmgr_delivery *deliveries;
    struct qmgr_work *work; /* NULL while nobody works on it */
    union {                 /* the state of each recipient */
        uint8_t *states;    /* of more than QMGR_STATES_FEW; NULL: all DUE */
        uint8_t states_few[8];
    };
    struct qmgr_sender *sender;
    wall_us arrived;
    uint32_t sender_next, sender_prev; /* of the same sender domain; references */
    uint32_t hash, hash_next;          /* of its id; a reference */
    uint16_t recipient_count;
    uint16_t due, failed;   /* recipients DUE, and FAILED */
    uint16_t active, fresh; /* deliveries ACTIVE, and fresh */
    uint16_t dsn_runs;
    uint16_t flags; /* enum envelope_flags, as they are now */
    bool is_expired : 1;
    bool is_expiry_owed : 1; /* its time is over, its envelope is being read for that */
    bool is_null_sender : 1;
    bool is_delay_pending : 1; /* `expiry` is armed for the notice of delay */
    bool is_delay_owed : 1;    /* it is late, and the sender was not told yet */
    bool is_unreadable : 1;    /* its envelope could not be read the last time */
    bool is_body_lost : 1;     /* its recipients end as soon as its envelope was read */
    bool is_unjudged : 1;      /* standing orders are asked when its envelope is read */
    uint8_t storage : 2;       /* enum qmgr_storage */
    uint8_t way : 6;           /* enum way */
};
#define QMGR_STATES_FEW sizeof(((struct qmgr_message *)0)->states_few)
_Static_assert(RECIPIENT_DUE == 0, "a message begins with all DUE");
_Static_assert(WAY_COUNT <= 64, "a way fits");
_Static_assert(sizeof(struct qmgr_message) == 112, "resident for each message");
_Static_assert(ENVELOPE_OVER_QUOTA <= UINT16_MAX, "flags fit");

struct qmgr_failed {
    struct qmgr_failed *next;
    uint32_t recipient_index;
    uint16_t code;
    uint8_t enhanced[3];
    uint8_t notice;               /* enum qmgr_notice */
    bool is_expired, is_reported; /* reported: part of the DSN being made */
    uint32_t reply_size;
    uint8_t reply[];
};

enum qmgr_dsn_state { QMGR_DSN_NONE, QMGR_DSN_LISTED, QMGR_DSN_REPORTED, QMGR_DSN_DELAYED };

/* An envelope being read; its address, and QMGR_TOKEN_BIT, is the spool's token. */
struct qmgr_load {
    struct qmgr_load *next, *prev;
    struct qmgr_message *message; /* NULL: it is gone */
};

/* What a message needs only while it is worked on; the many that wait for a retry have none. */
struct qmgr_work {
    struct qmgr_work *next, *prev; /* in the DSN list while LISTED; `next`: among the spare */
    struct qmgr_message *message;
    uint8_t *encoded; /* the envelope as committed; NULL: not here */
    uint32_t encoded_size;
    uint32_t pins;          /* scans that look at its envelope */
    struct qmgr_load *load; /* NULL: it is not being read */
    struct arena arena;     /* the decoded envelope, and the DSN's arrays */
    struct envelope envelope;
    struct span route; /* in the arena: the domain that a delivery was rerouted to last */
    void *owner;       /* UNSTORED */
    uint8_t way_due;   /* enum way: why it is to be stored */
    bool is_news_due;  /* not STORED: something happened that a PROGRESS would have told */
    bool is_store_due; /* the owner was told */
    bool is_parked;    /* STORING: its delivery waits for that alone */
    bool is_decoded;
    bool is_dsn_last;    /* the view said is_done */
    bool is_dsn_granted; /* its turn in the sender's share was reserved */
    bool is_dsn_delayed; /* the view speaks of delayed recipients */
    bool is_kept;        /* in the list of those that may give way */
    uint8_t dsn_state;
    struct buf_queue body;
    struct qmgr_failed *failures;
    uint32_t dsn_failure_count; /* 0: not viewed yet */
    struct qmgr_failure *dsn_failures;
    struct span dsn_progress;
    wall_us
        spared_at; /* keeps_ends: no PROGRESS was written of the last results; 0: there are none */
    struct wheel_timer dsn_timer; /* armed while DELAYED */
    TAILQ_ENTRY(qmgr_work) kept_link;
    tick_us kept_at; /* in the list since, or looked at */
};
TAILQ_HEAD(qmgr_kept_list, qmgr_work);

/* The messages of one sender domain. */
struct qmgr_sender {
    struct qmgr_sender *hash_next;
    struct qmgr_message *first, *last; /* in the order in which they came to us */
    uint8_t *name;
    struct qmgr_ages ages;
    uint32_t message_count;
    uint16_t name_size;
};

/* The READY deliveries of one line from one sender domain; see qmgr_fair.c. */
struct qmgr_part {
    struct qmgr_part *hash_next;
    TAILQ_ENTRY(qmgr_part) line_link;  /* of the line, in the order of their turns */
    TAILQ_ENTRY(qmgr_part) share_link; /* of the share, likewise */
    struct qmgr_line *line;
    struct qmgr_sender *sender;         /* NULL: all that came when there were too many */
    struct qmgr_share *share;           /* NULL: the line is in no round */
    struct qmgr_delivery *first, *last; /* in order of arrival */
    struct qmgr_delivery *root;         /* those that came late */
};
TAILQ_HEAD(qmgr_part_list, qmgr_part);

/* One sender domain in one class of a round. */
struct qmgr_share {
    struct qmgr_share *hash_next;
    TAILQ_ENTRY(qmgr_share) link; /* in *class */
    struct qmgr_share_list *class;
    struct qmgr_sender *sender;
    struct qmgr_part_list parts;
    wall_us since; /* when it came, or had its last turn */
};
TAILQ_HEAD(qmgr_share_list, qmgr_share);

/* A sender's share of notifications, see qmgr_dsn_share.c. */
struct qmgr_dsn_share {
    uint64_t hash; /* 0: free */
    tick_us next;  /* turn after those reserved, at an even pace */
};

/* Where a message would be found after a restart. */
enum qmgr_storage {
    QMGR_STORED,
    QMGR_UNSTORED,  /* nowhere: its client waits */
    QMGR_STORING,   /* its commit is under way */
    QMGR_FORGOTTEN, /* nowhere, and its client knows; an attempt is still to end */
};

enum qmgr_line_state { QMGR_LINE_IDLE, QMGR_LINE_READY, QMGR_LINE_PARKED };

struct qmgr_line {
    struct qmgr_line *next, *prev; /* in the round of its class while READY */
    struct qmgr_line *hash_next;
    void *user;
    uint8_t *name;               /* domain, then source pool */
    struct qmgr_part_list parts; /* READY deliveries */
    struct qmgr_round *round;    /* that it is in, PARKED; NULL: none */
    uint32_t ready_count, part_count;
    uint32_t unstored_count; /* of those that are ready */
    uint32_t delivery_count; /* in any state */
    uint32_t active_count;
    uint32_t hash;
    struct qmgr_delivery *newest; /* the last one made; NULL when it is gone */
    tick_us moved_at;             /* when an attempt ended last */
    struct qmgr_delivery *first_delivery, *last_delivery; /* in any state, as they were made */
    struct qmgr_ages ages;
    uint8_t *site;          /* the name of the site it went to last; NULL: none yet */
    const char *unresolved; /* why its hosts could not be found the last time; NULL: were */
    tick_us unresolved_since;
    struct qmgr_reply *last_reply; /* what the last deferred delivery heard */
    uint8_t domain_size, pool_size, class;
    uint8_t state; /* enum qmgr_line_state */
    uint8_t site_size;
};

/* Octets of a body being read for an operator; its address, with two bits, is the spool's token. */
enum qmgr_piece_state { QMGR_PIECE_FREE, QMGR_PIECE_READING, QMGR_PIECE_READ };
struct qmgr_piece {
    enum qmgr_piece_state state;
    uint32_t size; /* asked for */
    enum err err;
    struct buf_queue octets;
};

#define QMGR_SCAN_PLACES 64u

/* Where something matches, as far as the index tells; its envelope is pinned. */
struct qmgr_place {
    struct qmgr_message *message; /* NULL: it is gone */
    struct qmgr_delivery *only;   /* NULL: all recipients of the message */
};

/* One walk of an operator over what matches a filter; see qmgr_scan.c. */
struct qmgr_scan {
    bool is_used;
    uint8_t plan; /* enum qmgr_scan_plan */
    uint32_t generation;
    tick_us touched;
    uint64_t cursor;                /* into the slab of messages, or lines */
    struct qmgr_line *line_next;    /* of the domain */
    struct qmgr_line *line;         /* being walked; NULL: the next one is to be found */
    struct qmgr_delivery *delivery; /* of that line: looked at next */
    struct qmgr_message *message;   /* of the sender: looked at next */
    uint32_t left;                  /* of the line's or sender's list when its walk began */
    bool has_more;                  /* places to be found */
    bool is_count;                  /* what the index can tell is counted, not told */
    uint64_t counted;               /* recipients, by this step */
    bool is_of_all_states;          /* also recipients that are at their end */
    struct qmgr_place places[QMGR_SCAN_PLACES];
    uint32_t place_count;
    uint32_t told_count;  /* of these, told in full by the last step */
    uint32_t resume_from; /* the first recipient of the next place that was not told */
    struct qmgr_filter filter;
};

struct qmgr_hashed {
    uint32_t size, hash; /* size 0: none */
    uint8_t domain[ENVELOPE_DOMAIN_SIZE_MAX];
};

#define QMGR_TABLE_LINKING 16u

/* Messages by id: qmgr_table.c. */
struct qmgr_table {
    uint32_t *buckets;   /* references */
    uint32_t count, max; /* in use, and allocated */
    uint32_t mask;
    uint32_t expected; /* see qmgr_expect() */
    struct qmgr_message *linking[QMGR_TABLE_LINKING];
    uint32_t linking_count;
};

struct qmgr {
    struct qmgr_options options;
    struct spool *spool;
    struct rng *rng;
    struct keyed_hash hash;
    struct qmgr_hashed *hashed; /* the domain that a line was looked for by last */
    struct slab messages, deliveries, lines, senders, parts, shares;
    struct qmgr_table table; /* of messages */
    struct qmgr_line **line_buckets;
    struct qmgr_sender *sender_latest;   /* of the last insert; NULL: it is gone */
    struct qmgr_sender **sender_buckets; /* line_mask is theirs, and that of the next two */
    struct qmgr_part **part_buckets;
    struct qmgr_share **share_buckets;
    uint32_t line_mask;
    uint32_t rerouted; /* deliveries */
    struct {
        struct qmgr_line *first, *last;
    } round[QMGR_CLASS_COUNT];
    uint64_t round_occupied[QMGR_CLASS_COUNT / 64];
    struct {
        struct qmgr_work *first, *last;
        uint32_t count;
    } dsns;
    struct qmgr_load *loads;
    uint32_t load_count;
    struct {
        struct qmgr_delivery *first, *last;
    } loaded;                           /* ACTIVE ones of which the transfer is to hear */
    const struct qmgr_classes *classes; /* NULL: none */
    struct qmgr_dsn_share dsn_shares[QMGR_DSN_SHARE_SETS][QMGR_DSN_SHARE_WAYS];
    struct qmgr_kept_list kept; /* the one looked at longest ago is first */
    struct qmgr_work *work_spare;
    uint32_t work_spare_count;
    struct buf_queue no_body;
    struct arena scratch;    /* of one call */
    struct arena view_arena; /* qmgr_message_envelope() */
    struct envelope view_envelope;
    struct wheel wheel;
    struct qmgr_stats stats;
    struct {
        struct wheel_timer timer; /* armed while there is mail */
        tick_us round_since;
        uint64_t cursor;
        uint32_t stuck, stuck_before; /* found in this round so far, and in the one before */
    } check;
    struct qmgr_standing_entry *standing[QMGR_STANDING_MAX]; /* as they were given */
    uint32_t standing_count;
    struct qmgr_scan scans[QMGR_SCAN_MAX];
    uint32_t scan_count; /* in use */
    struct qmgr_piece pieces[QMGR_PIECE_MAX];
};

static inline struct qmgr_delivery *qmgr_delivery_next(const struct qmgr_delivery *delivery)
{
    return slab_peer(delivery, delivery->next);
}
static inline struct qmgr_delivery *qmgr_delivery_line_next(const struct qmgr_delivery *delivery)
{
    return slab_peer(delivery, delivery->line_next);
}
static inline struct qmgr_message *qmgr_sender_next(const struct qmgr_message *message)
{
    return slab_peer(message, message->sender_next);
}

/* qmgr_table.c */
void qmgr_table_init(struct qmgr_table *table, uint32_t message_count_max);
void qmgr_table_fini(struct qmgr_table *table);
/** qmgr_find() finds it from now on. It is not in the table. */
uint32_t qmgr_table_hash(const struct qmgr *qmgr, struct message_id id);
/* qmgr_find(), with the hash of the id. */
struct qmgr_message *qmgr_table_find(struct qmgr *qmgr, struct message_id id, uint32_t hash);
/* message->hash is known. */
void qmgr_table_link(struct qmgr *qmgr, struct qmgr_message *message);
void qmgr_table_unlink(struct qmgr *qmgr, struct qmgr_message *message);

/* qmgr.c */
/** The work of a message, made when it has none. */
struct qmgr_work *qmgr_work_get(struct qmgr *qmgr, struct qmgr_message *message);
/**
 * Called at the end of everything that changes a message: ends it, or lists its DSN, lets go of its
 * body and work when they are of no more use. The message may be gone afterwards.
 */
void qmgr_message_review(struct qmgr *qmgr, struct qmgr_message *message);
/** Free the message and all it has; the entry is the caller's. */
void qmgr_message_remove(struct qmgr *qmgr, struct qmgr_message *message);
/** Tick of a wall time, at most `ahead_max` after now and never before. */
tick_us qmgr_tick_of(wall_us wall, tick_us ahead_max, struct tick_now now);

/* qmgr_envelope.c */
/** May it be looked into? */
static inline bool qmgr_envelope_is_here(const struct qmgr_message *message)
{
    return message->work != NULL && message->work->encoded != NULL;
}
static inline bool qmgr_envelope_is_loading(const struct qmgr_message *message)
{
    return message->work != NULL && message->work->load != NULL;
}
/** Have it read, unless it is here or being read. The spool may answer within this call. */
void qmgr_envelope_want(struct qmgr *qmgr, struct qmgr_message *message);
/** The envelope, decoded, with the present states; it is here. */
struct envelope *qmgr_message_open(struct qmgr *qmgr, struct qmgr_message *message);
/** Decode as it was committed; `encoded` is borrowed until it is closed. */
enum err qmgr_envelope_decode(struct qmgr_work *work, struct span encoded,
                              bool is_known) MUST_CHECK;
void qmgr_envelope_close(struct qmgr_work *work);
/** Keep a copy of it. */
void qmgr_envelope_keep(struct qmgr *qmgr, struct qmgr_work *work, struct span encoded,
                        bool is_given);
void qmgr_envelope_release(struct qmgr *qmgr, struct qmgr_work *work);
/** Is there somebody for whom it stays? */
bool qmgr_envelope_is_wanted(const struct qmgr *qmgr, const struct qmgr_work *work);
/** May one more be kept for a first attempt? */
bool qmgr_envelope_has_room(const struct qmgr *qmgr);
/** Let go of it, whether it is here or being read: its message ends. */
void qmgr_envelope_forget(struct qmgr *qmgr, struct qmgr_work *work);
void qmgr_loads_free(struct qmgr *qmgr);
enum recipient_state qmgr_recipient_state(const struct qmgr_message *message, uint32_t index);
/** The only writer of a recipient's state, in the index and in its decoded envelope. */
void qmgr_recipient_set(struct qmgr_message *message, struct envelope_recipient *recipient,
                        enum recipient_state state);
/** All that are DUE are SETTLED: of an envelope that cannot be read. */
void qmgr_states_settle(struct qmgr_message *message);
/** Recipients of an ACTIVE delivery, from the envelope that is here now. */
void qmgr_delivery_loaded(struct qmgr *qmgr, struct qmgr_delivery *delivery);
/** The transfer is to hear of it that it will not be attempted: somebody wished so meanwhile. */
void qmgr_loaded_refuse(struct qmgr *qmgr, struct qmgr_delivery *delivery);
/** It leaves while the transfer has not heard of its envelope yet. */
void qmgr_loaded_remove(struct qmgr *qmgr, struct qmgr_delivery *delivery);

/* qmgr_piece.c */
/** False: the read was for something else. Takes the event's octets. */
bool qmgr_piece_on_read(struct spool_event *event);
void qmgr_pieces_free(struct qmgr *qmgr);

/* qmgr_line.c */
struct qmgr_line *qmgr_line_find(const struct qmgr *qmgr, const struct envelope *envelope,
                                 struct span domain);
struct qmgr_line *qmgr_line_get(struct qmgr *qmgr, const struct envelope *envelope,
                                struct span domain);
/** The line of that domain, of the same source pool and class as `line`; made when there is none.
 */
struct qmgr_line *qmgr_line_get_beside(struct qmgr *qmgr, const struct qmgr_line *line,
                                       struct span domain);
/** The first line of a domain, of any source pool and class; the others follow by hash_next,
 * between lines of other domains. */
struct qmgr_line *qmgr_line_first(const struct qmgr *qmgr, struct span domain);
/** A delivery comes to its line, and leaves it. */
void qmgr_line_join(struct qmgr_delivery *delivery);
void qmgr_line_leave(struct qmgr_delivery *delivery);
struct span qmgr_line_site(const struct qmgr_line *line);
/** Free the line when nothing is in it and nobody holds it. */
void qmgr_line_review(struct qmgr *qmgr, struct qmgr_line *line);
void qmgr_line_free(struct qmgr *qmgr, struct qmgr_line *line);
/** The delivery is READY from now on. */
void qmgr_line_push(struct qmgr *qmgr, struct qmgr_delivery *delivery, wall_us since);
/** A READY delivery is READY no more; its state is the caller's to set. */
void qmgr_line_remove(struct qmgr *qmgr, struct qmgr_delivery *delivery);
void qmgr_reply_release(struct qmgr_reply *reply);
/** The text as this line's deliveries keep it; one reference is the caller's. */
struct qmgr_reply *qmgr_line_reply(struct qmgr_line *line, struct span text);

/* qmgr_fair.c */
/** The number of the class with this name; QMGR_CLASS_COUNT: none has. */
uint16_t qmgr_class_find(const struct qmgr *qmgr, struct span name);
/** In and out of the order of its line; counts are the line's and the round's. */
void qmgr_fair_push(struct qmgr *qmgr, struct qmgr_delivery *delivery, wall_us since);
void qmgr_fair_remove(struct qmgr *qmgr, struct qmgr_delivery *delivery);
/** The oldest delivery of the sender whose turn it is, who goes to the end; NULL: none is due. */
struct qmgr_delivery *qmgr_fair_next(struct qmgr_line *line);
/** Is this READY delivery where its line finds it? */
bool qmgr_fair_holds(const struct qmgr_delivery *delivery);
void qmgr_fair_verify(const struct qmgr_delivery *delivery);
void qmgr_fair_verify_line(const struct qmgr_line *line);

/* qmgr_settle.c */
/* Settles being gathered: what one PROGRESS will say of recipients. */
struct qmgr_settling {
    struct envelope_settle *settles;
    uint32_t count, count_max; /* the latter: with wishes */
    struct envelope_settle *wishes;
    uint32_t wish_count;
    uint32_t told_count; /* the first so many are an attempt's results: records tell of them */
    uint32_t reply_room; /* octets of replies that still fit the record; the others are left out */
};

struct qmgr_settling qmgr_settling_begin(struct qmgr *qmgr, uint32_t count_max);
void qmgr_settling_add(struct qmgr *qmgr, struct qmgr_settling *settling,
                       const struct envelope_recipient *recipient,
                       const struct qmgr_failure *failure);
/** What an operator wants to become of a recipient, if nothing else does. */
void qmgr_settling_add_wish(struct qmgr *qmgr, struct qmgr_settling *settling,
                            enum recipient_state state, const struct qmgr_failure *failure);
/** What became of an attempt, or expired, is not worth the room that its record takes: true. */
bool qmgr_progress_spare(const struct qmgr *qmgr, struct qmgr_message *message,
                         const struct qmgr_settling *settling,
                         const struct envelope_progress *progress, struct tick_now now);
/** Note of which settles records tell. */
void qmgr_progress_told(const struct qmgr_settling *settling, struct envelope_progress *progress,
                        struct tick_now now);
/** The record, in the scratch arena. */
struct span qmgr_progress_make(struct qmgr *qmgr, const struct qmgr_message *message,
                               const struct qmgr_settling *settling,
                               struct envelope_progress *progress);
void qmgr_progress_write(struct qmgr *qmgr, struct qmgr_message *message,
                         const struct qmgr_settling *settling, struct envelope_progress *progress);

/* qmgr_unstored.c */
/** The results of an attempt were applied. True: all were refused, the owner was told, the message
 * is gone. */
bool qmgr_unstored_finish(struct qmgr *qmgr, struct qmgr_message *message,
                          const struct qmgr_finish *finish);
/** qmgr_message_review() of a message that is not STORED. */
void qmgr_unstored_review(struct qmgr *qmgr, struct qmgr_message *message);

/* qmgr_damage.c */
/** The body is lost, the envelope is here: it is mended, or undelivered recipients end. The message
 * may be gone afterwards. */
void qmgr_damage_settle(struct qmgr *qmgr, struct qmgr_message *message, struct tick_now now);

/* qmgr_act.c */
/** In no state: held from now on, until then, or until it is released (INT64_MAX). */
void qmgr_delivery_hold(struct qmgr *qmgr, struct qmgr_delivery *delivery, uint32_t order,
                        wall_us until, struct tick_now now);
/** What PROGRESS says of a delivery in any state. */
void qmgr_progress_of(const struct qmgr_delivery *delivery, struct envelope_progress *ret_progress);
/** What PROGRESS says of a delivery that is held. */
void qmgr_progress_held(const struct qmgr_delivery *delivery, uint32_t order, wall_us until,
                        struct envelope_progress *ret_progress);
/** A recipient of this delivery, DUE until now, ends by an order. */
void qmgr_recipient_end(struct qmgr *qmgr, struct qmgr_delivery *delivery, uint32_t index,
                        const struct qmgr_order *order, struct qmgr_settling *settling);
/** What its sender is told. */
struct qmgr_failure qmgr_order_failure(const struct qmgr_order *order, uint32_t recipient_index);
/** Released mail is not held again by what holds mail that comes back: what its PROGRESS says. */
uint32_t qmgr_flag_released(const struct qmgr *qmgr, struct qmgr_message *message);

/* qmgr_wish.c */
/** An order about an ACTIVE delivery; `count` 0: nobody can say about which of its recipients. */
void qmgr_wish_add(struct qmgr *qmgr, struct qmgr_delivery *delivery,
                   const struct qmgr_order *order, const uint32_t *recipients, uint32_t count,
                   struct tick_now now);
/** Those to hold. False: there was none. */
bool qmgr_wishes_withdraw(struct qmgr *qmgr, struct qmgr_delivery *delivery, struct tick_now now);
/** The order that will hold an ACTIVE delivery; 0: none. */
uint32_t qmgr_wished_hold(const struct qmgr_delivery *delivery);
/** What PROGRESS says of an ACTIVE delivery that has wishes. */
void qmgr_wishes_tell(struct qmgr *qmgr, const struct qmgr_delivery *delivery,
                      struct qmgr_settling *settling, struct envelope_progress *progress,
                      struct tick_now now);
void qmgr_wishes_free(struct qmgr_wish *wishes);
/** The attempt is over: recipients that are still DUE get what was wished. Returns the wish to
 * hold, and to reroute, that counts; they are the caller's to carry out; NULL: nobody wished that.
 */
void qmgr_wishes_fulfil(struct qmgr *qmgr, struct qmgr_delivery *delivery,
                        const struct qmgr_wish *wishes, struct qmgr_settling *settling,
                        const struct qmgr_wish **ret_hold, const struct qmgr_wish **ret_reroute);
/** QMGR_HOLD_FOR_EVER: until it is released. The delivery is HELD. */
static inline wall_us qmgr_delivery_held_until(const struct qmgr_delivery *delivery,
                                               struct tick_now now)
{
    return wheel_is_armed(&delivery->timer)
               ? now.wall + (wall_us)(delivery->timer.deadline - now.tick)
               : QMGR_HOLD_FOR_EVER;
}

/** The order that holds it; the delivery is HELD. */
static inline uint32_t qmgr_delivery_order(const struct qmgr_delivery *delivery)
{
    return delivery->timer.kind >> QMGR_HOLD_ORDER_SHIFT;
}

/* qmgr_standing.c */
/** Its envelope is here: what stands is done to it; `is_back`: it was in the queue before. False:
 * the message is gone. */
bool qmgr_standing_judge(struct qmgr *qmgr, struct qmgr_message *message, bool is_back,
                         struct tick_now now) MUST_CHECK;
void qmgr_standing_free(struct qmgr *qmgr);

/* qmgr_quota.c */
/** Its user had sent enough, and nobody released it. */
static inline bool qmgr_quota_holds(uint32_t envelope_flags)
{
    return (envelope_flags & ENVELOPE_OVER_QUOTA) && !(envelope_flags & ENVELOPE_RELEASED);
}
/** It was just inserted, and the quota holds it. */
void qmgr_quota_hold(struct qmgr *qmgr, struct qmgr_message *message, bool is_new,
                     struct tick_now now);
/** This delivery of a message will be released; what is held of the others stays so. */
void qmgr_quota_release(struct qmgr *qmgr, const struct qmgr_delivery *released,
                        struct tick_now now);

/* qmgr_keep.c */
/** A message was stored, with what it keeps in memory; nothing when it keeps nothing for a first
 * attempt. */
void qmgr_keep_join(struct qmgr *qmgr, struct qmgr_message *message, struct tick_now now);
void qmgr_keep_leave(struct qmgr *qmgr, struct qmgr_work *work);

/* qmgr_attempt.c */
struct qmgr_delivery *qmgr_delivery_new(struct qmgr *qmgr, struct qmgr_message *message,
                                        struct qmgr_line *line, uint32_t first);
/** Not READY, WAITING or ACTIVE any more: unlink it from message and line. */
void qmgr_delivery_free(struct qmgr *qmgr, struct qmgr_delivery *delivery);
/** READY until now: ACTIVE. */
void qmgr_delivery_activate(struct qmgr *qmgr, struct qmgr_delivery *delivery);
/** Out of line or wheel, or no longer ACTIVE. */
void qmgr_delivery_leave(struct qmgr *qmgr, struct qmgr_delivery *delivery);
void qmgr_delivery_not_fresh(struct qmgr_delivery *delivery);
void qmgr_delivery_wait(struct qmgr *qmgr, struct qmgr_delivery *delivery, tick_us deadline);
/** Indexes of its DUE recipients into ret_indexes, which has room for due_count. */
void qmgr_delivery_recipients(struct qmgr_delivery *delivery, const struct envelope *envelope,
                              uint32_t *ret_indexes);
/** Its time is over; its envelope is read first when it is not here. */
void qmgr_message_expire(struct qmgr *qmgr, struct qmgr_message *message, struct tick_now now);

/* qmgr_dsn.c */
/** One recipient is refused for good: FAILED, or SETTLED when nobody wants to be told. */
void qmgr_recipient_fail(struct qmgr *qmgr, struct qmgr_message *message,
                         struct envelope_recipient *recipient, const struct qmgr_failure *failure);
/** What becomes of a recipient that is refused for good. */
enum recipient_state qmgr_failure_state(const struct qmgr_message *message,
                                        const struct envelope_recipient *recipient);
/** One recipient was taken by a hop that tells nobody: RELAYED, or DELIVERED when nobody asked. */
void qmgr_recipient_relay(struct qmgr *qmgr, struct qmgr_message *message,
                          struct envelope_recipient *recipient, const struct qmgr_failure *failure);
/** Mail that is to be told of when it is late has a timer for that in front of its expiry. Arms the
 * one or the other. */
void qmgr_message_arm(struct qmgr *qmgr, struct qmgr_message *message,
                      const struct envelope *envelope, struct tick_now now);
/** The timer of the notice came: it is owed, and the expiry is next. */
void qmgr_message_delay(struct qmgr *qmgr, struct qmgr_message *message);
/** Does anybody want to hear that this recipient's delivery takes long? */
bool qmgr_recipient_wants_delay(const struct qmgr *qmgr,
                                const struct envelope_recipient *recipient);
/** List or unlist the message as one that owes a DSN. */
void qmgr_dsn_review(struct qmgr *qmgr, struct qmgr_message *message);
void qmgr_dsn_forget(struct qmgr *qmgr, struct qmgr_work *work);
void qmgr_dsn_timer(struct qmgr *qmgr, struct qmgr_work *work);
/** Its envelope cannot be read: what is LISTED waits for another try. */
void qmgr_dsn_postpone(struct qmgr *qmgr, struct qmgr_message *message, tick_us until);
/** At most ENVELOPE_REPLY_SIZE_MAX octets of `text`, copied to `ret_octets`, control octets made
 * '?'. Returns how many. */
uint32_t qmgr_text_copy(struct span text, uint8_t *ret_octets);

/* qmgr_check.c */
/** Does something come that moves this message? */
bool qmgr_message_has_next_event(const struct qmgr_message *message);
/** There is mail: see to it that rounds are made. */
void qmgr_check_begin(struct qmgr *qmgr, struct tick_now now);
/** The queue is empty. */
void qmgr_check_end(struct qmgr *qmgr);
void qmgr_check_timer(struct qmgr *qmgr, struct tick_now now);
/** Messages without a next event in the last round, or in this one if it has found more. */
uint32_t qmgr_check_stuck(const struct qmgr *qmgr);

/* qmgr_sender.c */
void qmgr_sender_join(struct qmgr *qmgr, struct qmgr_message *message, struct span domain);
void qmgr_sender_leave(struct qmgr *qmgr, struct qmgr_message *message);
/** `name` in lower case. */
struct qmgr_sender *qmgr_sender_find(const struct qmgr *qmgr, struct span name);
struct span qmgr_sender_name(const struct qmgr_sender *sender);

/* qmgr_match.c: each asks the terms that it knows about; all of them make the answer. */
bool qmgr_matches_message(const struct qmgr_filter *filter, const struct qmgr_message *message,
                          struct tick_now now);
bool qmgr_matches_delivery(const struct qmgr_filter *filter, const struct qmgr_delivery *delivery);
/** Of a recipient that has failed, and so has no delivery any more. */
bool qmgr_matches_failed(const struct qmgr_filter *filter, const struct envelope *envelope,
                         const struct envelope_recipient *recipient);
/** By the counts of the line: may any of its deliveries match? */
bool qmgr_may_match_line(const struct qmgr_filter *filter, const struct qmgr_line *line,
                         struct tick_now now);

/* qmgr_scan.c: what is about to be freed is nowhere looked at next. */
void qmgr_scans_skip_message(struct qmgr *qmgr, const struct qmgr_message *message);
void qmgr_scans_skip_delivery(struct qmgr *qmgr, const struct qmgr_delivery *delivery);
void qmgr_scans_skip_line(struct qmgr *qmgr, const struct qmgr_line *line);

/* qmgr_dsn_view.c */
/** The recipient's state once its notice is durable. */
enum recipient_state qmgr_notice_settles(enum qmgr_notice notice);
/** Fix what the DSN of a REPORTED work says. */
void qmgr_dsn_view_build(struct qmgr *qmgr, struct qmgr_work *work);

/* qmgr_dsn_share.c */
/** When the next notification for this sender may go. */
tick_us qmgr_dsn_reserve(struct qmgr *qmgr, struct span sender, struct tick_now now);

/* qmgr_route.c */
/** Is the recipient, if it is DUE, one of this delivery? The envelope is the message's. */
bool qmgr_delivery_has(const struct qmgr_delivery *delivery, const struct envelope *envelope,
                       const struct envelope_recipient *recipient);
/** Recipients of rerouted deliveries get the domain that they go by; its octets are the arena's. */
void qmgr_routes_apply(const struct qmgr_message *message, struct envelope *envelope,
                       struct arena *arena);
/** Its line is not that of its recipients' domain. */
void qmgr_delivery_set_rerouted(struct qmgr *qmgr, struct qmgr_delivery *delivery);
/** Before deliveries are made: the group of recipient `first` goes by `domain`, which is copied. */
void qmgr_route_recover(struct qmgr_work *work, uint32_t first, struct span domain);
/** In no state: it goes by `domain` from now on. The line it was in may be gone afterwards. */
void qmgr_delivery_reroute(struct qmgr *qmgr, struct qmgr_delivery *delivery, struct span domain);

/* qmgr_recover.c */
/** What an index tells, as an envelope without addresses. */
void qmgr_recover_index(struct qmgr_work *work, const struct envelope_index *index);
/** The PROGRESS of a message that has one, taken apart once; without its settles. */
struct qmgr_recalled {
    struct envelope_progress progress;
    bool is_all;     /* if not, there are several, or none is valid */
    bool has_wishes; /* any of them */
};
/** States, flags and DSN runs from PROGRESS payloads; before deliveries are made. */
void qmgr_recover_states(struct qmgr *qmgr, struct qmgr_message *message,
                         const struct qmgr_insert *insert, struct qmgr_recalled *ret_recalled);
/** Attempts, last replies and next tries; after deliveries are made, all fresh and unscheduled. */
void qmgr_recover_deliveries(struct qmgr *qmgr, struct qmgr_message *message,
                             const struct qmgr_insert *insert, const struct qmgr_recalled *recalled,
                             struct tick_now now);

#endif

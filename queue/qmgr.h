/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_QMGR_H
#define QUEUE_QMGR_H

#include "base/buf.h"
#include "base/rng.h"
#include "queue/envelope_index.h"
#include "queue/qmgr_ages.h"
#include "queue/qmgr_filter.h"
#include "queue/site.h"
#include "queue/spool.h"
#include "queue/way.h"

/*
 * The queue manager of one shard: what waits for whom, until when. Knows no SMTP and no DNS:
 * relay/transfer asks it for work and tells it outcomes.
 *
 * A *message* holds an index of its envelope, recipient states, its spool entry and (while fresh,
 * under a cap) envelope and body. A *delivery* is one message to the recipients of one domain.
 * Deliveries wait in a *line* per (domain, source pool, class). Lines that have something due are
 * handed out in turn (round robin inside a class, lower class first), so that no line starves
 * another; lines of one site are served in a *round*, by class and sender.
 *
 *   WAITING --due--> READY --qmgr_take()--> ACTIVE --qmgr_finish()--> WAITING (retry) | DONE
 *      \--- expiry timer (own wheel entry, independent of attempts) ---> EXPIRED (all due
 * recipients FAILED)
 *
 * A line is IDLE (nothing due), READY (in the round), or PARKED (the transfer waits for DNS or a
 * site on its behalf).
 *
 * Every message ends: qmgr_verify() counts messages that have no next event, which must always be
 * none.
 */
#define QMGR_ROUND_CLASS_COUNT 16u /* the last one stands for all that follow, too */
struct qmgr;
struct qmgr_message;
struct qmgr_delivery;
struct qmgr_line;

/* What operators may want of mail. */
enum qmgr_verb {
    QMGR_VERB_HOLD,    /* no attempts until `until`, or until it is released; it still expires */
    QMGR_VERB_RELEASE, /* of what is held */
    QMGR_VERB_RETRY,   /* of what waits: now */
    QMGR_VERB_BOUNCE,  /* failed for good, the sender is told */
    QMGR_VERB_DELETE,  /* gone, nobody is told */
    QMGR_VERB_REROUTE, /* goes by another domain from now on, and at once */
    QMGR_VERB_COUNT
};
#define QMGR_REASON_SIZE   200u
#define QMGR_ORDER_ID_MAX  ((1u << 22) - 1)
#define QMGR_HOLD_FOR_EVER INT64_MAX
/* Numbers beyond QMGR_ORDER_GIVEN_MAX are the relay's own. */
#define QMGR_ORDER_GIVEN_MAX (QMGR_ORDER_ID_MAX - 16)
#define QMGR_ORDER_QUOTA     (QMGR_ORDER_ID_MAX - 1) /* holds what is beyond a user's quota */
#define QMGR_ORDER_DAMAGE    QMGR_ORDER_ID_MAX       /* ends what cannot be read any more */
struct qmgr_order {
    enum qmgr_verb verb;
    uint32_t id;                              /* 1 to QMGR_ORDER_ID_MAX */
    wall_us until;                            /* HOLD */
    char route[ENVELOPE_DOMAIN_SIZE_MAX + 1]; /* REROUTE: a routing key */
    char reason[QMGR_REASON_SIZE];            /* printable */
};

/* What the priority classes are called, and what the later ones get at least. */
#define QMGR_CLASS_NAME_SIZE 32u
struct qmgr_classes {
    const char *names[QMGR_ROUND_CLASS_COUNT]; /* each shorter than QMGR_CLASS_NAME_SIZE */
    uint8_t least[QMGR_ROUND_CLASS_COUNT];     /* percent of the turns of a round */
    uint32_t count;                            /* 0: classes have numbers only */
};

struct qmgr_result;
struct qmgr_options {
    /* For the sizes of tables, and for the door: what is durable already (recovered messages, DSNs,
     * what the door let in before these) is taken beyond it as well. */
    uint32_t message_count_max;
    uint64_t body_memory_max;     /* octets of bodies kept in memory for first attempts; of
                                     envelopes a quarter as much besides */
    tick_us retry_min, retry_max; /* exponential from min to max, doubling, +-20 % jitter */
    tick_us delay_after;          /* the sender is told, once, of mail so old; 0: never */
    bool is_delay_unasked;        /* also those who did not say NOTIFY=DELAY */
    bool keeps_ends;              /* what ends a message is written as PROGRESS too, ahead of the
                                     DONE that may wait (relay/transfer_ends.c) */
    uint32_t dsn_per_sender_max;  /* DSNs for one sender in an hour; more wait; 0: no bound */
    void *context;
    /* An unstored message has come to its end, and leaves no trace: all its recipients are
     * delivered (or an operator ended them), `refusal` being NULL; or the next hop refused all of
     * them for good, this being what the first one heard. False, with a refusal only: nobody is
     * there to hear it; it is to be stored. Else the message is gone. */
    bool (*on_unstored_end)(void *context, void *owner, const struct qmgr_result *refusal);
    /* An unstored message must be stored: qmgr_store() it, not within this call. */
    void (*on_store_due)(void *context, void *owner, enum way reason);
    /* All recipients of the message are DELIVERED or SETTLED: the message is gone after this call;
     * write DONE. */
    void (*on_done)(void *context, struct spool_entry *entry);
    /* A line with a user pointer is about to be freed (it is empty and not PARKED). */
    void (*on_line_gone)(void *context, void *user);
    /* Recipients of this message expired (records); called once per recipient, before the DSN is
     * reported. */
    void (*on_expired)(void *context, const struct envelope *envelope, uint32_t recipient_index);
    /* Is there room for what on_expired tells? If not, expiries wait a while. NULL: always. */
    bool (*may_expire)(void *context);
    /* An operator's order is carried out on a recipient (records); may be NULL. */
    void (*on_order)(void *context, const struct envelope *envelope, uint32_t recipient_index,
                     const struct qmgr_order *order);
};

/** Heap; start-up. No memory at start ends the process. */
struct qmgr *qmgr_new(const struct qmgr_options *options, struct spool *spool, struct rng *rng,
                      struct tick_now now);
/** From now on; borrowed until the next call. NULL: no names, and the lowest class goes first. */
void qmgr_set_classes(struct qmgr *qmgr, const struct qmgr_classes *classes);
/** "bulk", or the number of a class without a name. Returns ret_text. */
const char *qmgr_class_name(const struct qmgr *qmgr, uint8_t class,
                            char ret_text[QMGR_CLASS_NAME_SIZE]);
/** Frees everything, parked lines and active deliveries too; calls no one back. */
void qmgr_free(struct qmgr *qmgr);

/**
 * Take over a committed message. Recipients in state DUE become deliveries, due at once or at
 * `next_try`; FAILED ones are reported by qmgr_dsn_next() again. A message with neither is at its
 * end: on_done comes inside this call. PROGRESS that does not decode, or speaks of recipients that
 * do not exist, is passed over and counted: better twice than never.
 *
 * Ownership: `encoded` is copied; `body` (may be NULL or empty: read from the spool when needed) is
 * moved. Errors:    ERR_LIMIT at 2^32 - 1 messages; ERR_DISK_CORRUPT when `encoded` does not
 * decode, or its id is here already. Nothing was taken then.
 */
struct qmgr_insert {
    struct span encoded;
    bool is_given; /* unstored: `encoded` is of malloc(), and the queue's whatever comes of it */
    const struct envelope_index *index; /* instead of `encoded`: recovery without envelopes */
    bool is_new; /* accepted just now: the envelope is kept for the first attempt, if there is room
                  */
    struct spool_entry *entry;
    struct buf_queue *body;
    const struct span *progress; /* recovery: PROGRESS payloads, oldest first */
    uint32_t progress_count;
    void *owner; /* unstored: whose it is; `entry` is NULL then, and without a body that is with
                    the owner, and may still be coming */
    enum way way;
};
enum err qmgr_insert(struct qmgr *qmgr, const struct qmgr_insert *insert,
                     struct tick_now now) MUST_CHECK;

/** About so many messages will be inserted soon: a hint, before recovered mail comes. */
void qmgr_expect(struct qmgr *qmgr, uint32_t count);

/*
 * Unstored mail: its client waits for what becomes of it (qmgr_unstored.c). Its recipients are of
 * one domain, and it has an owner: on_unstored_end() and on_store_due() tell him. It is in memory
 * whole, or its owner has the body, which may still be coming. All else is as for other mail.
 */
/* What is known of a message when its body has come. */
struct qmgr_completion {
    uint64_t body_size;
    uint32_t header_size, flags;
};
/** The body of an unstored message has come; all else is as it was inserted. */
void qmgr_unstored_complete(struct qmgr *qmgr, struct qmgr_message *message,
                            const struct qmgr_completion *completion);
/** Its body will never come: it is forgotten, and what is under way is asked to end. */
void qmgr_unstored_forget(struct qmgr *qmgr, struct qmgr_message *message, struct tick_now now);
/** Is there memory for the body of one more? */
bool qmgr_has_body_room(const struct qmgr *qmgr, uint64_t size);
/** Another body is to be kept, and memory is short: some that were kept for mail of lines that
 * stand still are let go. Cost: a few messages are looked at. */
void qmgr_make_room(struct qmgr *qmgr, struct tick_now now);
/** Is stored mail of this envelope's class or an earlier one due for the domain of its recipients?
 */
bool qmgr_is_waited_for(const struct qmgr *qmgr, const struct envelope *envelope);
/** Might a standing order be about mail with this envelope, all of one domain? */
bool qmgr_standing_may_match(const struct qmgr *qmgr, const struct envelope *envelope,
                             struct tick_now now);
/* What is to be committed; borrowed until the next call of anything here. */
struct qmgr_storing {
    struct span encoded;
    struct span progress; /* to be durable with it; empty: there is nothing to say */
    const struct buf_queue *body;
};
/** An unstored message is being stored from now on. Unless it is ACTIVE its delivery waits for
 * that. `is_in_doubt`: it comes back marked so. */
struct qmgr_storing qmgr_store(struct qmgr *qmgr, struct qmgr_message *message, enum way reason,
                               bool is_in_doubt, struct tick_now now);
/** It is durable: a message like any other. It may be at its end, and gone. */
void qmgr_stored(struct qmgr *qmgr, struct qmgr_message *message, struct spool_entry *entry,
                 struct tick_now now);
/** Its commit failed, and it is forgotten; what is under way is asked to end. True: all its
 * recipients had been delivered. */
bool qmgr_store_failed(struct qmgr *qmgr, struct qmgr_message *message);
/** The delivery of an unstored message while it is ACTIVE, else NULL. */
struct qmgr_delivery *qmgr_unstored_active(const struct qmgr_message *message);
/** Would these results of an ACTIVE delivery say that all recipients of its message are refused for
 * good? */
bool qmgr_is_refusal(const struct qmgr_delivery *delivery, const struct qmgr_result *results,
                     uint32_t result_count);
/** Of the message of an ACTIVE delivery; NULL: it is stored, or being stored. */
void *qmgr_delivery_owner(const struct qmgr_delivery *delivery);

/* ---- work for the transfer ---- */

/** Next line with something due, now PARKED on the caller's account; NULL when there is none. */
struct qmgr_line *qmgr_line_next(struct qmgr *qmgr, struct tick_now now);
struct span qmgr_line_domain(const struct qmgr_line *line);
struct span qmgr_line_source_pool(const struct qmgr_line *line);
/** Deliveries of this line that are due. */
uint32_t qmgr_line_due(const struct qmgr_line *line);
/** The transfer's pointer, NULL at first. */
void *qmgr_line_user(const struct qmgr_line *line);
void qmgr_line_set_user(struct qmgr_line *line, void *user);
/** Put a parked line back: READY if something is due, else IDLE. It may be freed when empty: the
 * pointer is gone after this call, and on_line_gone was told. */
void qmgr_line_return(struct qmgr *qmgr, struct qmgr_line *line, struct tick_now now);

/** A due delivery of a parked line, now ACTIVE; NULL when there is none. Sender domains take turns;
 * of each the oldest message goes first. If its envelope is not loaded yet, it is being read, and
 * qmgr_loaded_next() tells when that has ended. */
struct qmgr_delivery *qmgr_take(struct qmgr *qmgr, struct qmgr_line *line, struct tick_now now);
bool qmgr_delivery_is_loaded(const struct qmgr_delivery *delivery);
/** An ACTIVE delivery whose envelope was being read; NULL when there is none. `*ret_is_loaded`:
 * there is a view of it now. If not, all the caller may do is to finish it as not attempted. */
struct qmgr_delivery *qmgr_loaded_next(struct qmgr *qmgr, bool *ret_is_loaded);
/** The caller's, while it is ACTIVE; NULL at first. */
void *qmgr_delivery_user(const struct qmgr_delivery *delivery);
void qmgr_delivery_set_user(struct qmgr_delivery *delivery, void *user);

/*
 * A round: parked lines that are served together. The lowest class goes first, but for the turns
 * that a later one gets at least; inside a class sender domains take turns, one delivery each; of a
 * sender, its lines take turns; of a line and sender, the oldest message goes first.
 */
struct qmgr_round;
/** Heap. No memory ends the process. */
struct qmgr_round *qmgr_round_new(const struct qmgr *qmgr);
/** CHECKs nothing: lines that are still in it must not be looked at again. */
void qmgr_round_free(struct qmgr_round *round);
/** A parked line comes to a round, and leaves it before it is given back. */
void qmgr_round_join(struct qmgr *qmgr, struct qmgr_round *round, struct qmgr_line *line,
                     struct tick_now now);
void qmgr_round_leave(struct qmgr *qmgr, struct qmgr_line *line);
/** The line whose delivery qmgr_round_take() would hand out; NULL: nothing is due. */
struct qmgr_line *qmgr_round_next(const struct qmgr_round *round);
/**
 * The delivery whose turn it is, now ACTIVE; NULL when there is none. `*ret_rank` compares it with
 * what waits in other rounds for the same site: the lower class first, then the sender who had no
 * turn for the longest time.
 */
struct qmgr_delivery *qmgr_round_take(struct qmgr *qmgr, struct qmgr_round *round,
                                      struct tick_now now, int64_t *ret_rank);
/** Would qmgr_round_take() hand out one of an earlier class than that rank's? */
bool qmgr_round_overtakes(const struct qmgr_round *round, int64_t rank);
/** Is the class of the one rank before that of the other? */
bool qmgr_rank_is_earlier(int64_t rank, int64_t other);
/** Percent of the turns that the class of that rank is promised. */
uint32_t qmgr_rank_least(const struct qmgr *qmgr, int64_t rank);
/** Deliveries of its lines that are due. */
uint32_t qmgr_round_due(const struct qmgr_round *round);
/** The rank of a class's mail whose turn it is since then. */
int64_t qmgr_rank(uint8_t class, wall_us since);

/* The queue's own reads from the spool have tokens with this bit: no address of the caller's has
 * it. Their READ events belong here. */
#define QMGR_TOKEN_BIT 1ull
bool qmgr_owns_token(uint64_t token);
/** Takes the event's octets. */
void qmgr_on_read(struct qmgr *qmgr, struct spool_event *event, struct tick_now now);

/* What an attempt needs to know, once it is loaded; borrowed until qmgr_finish(). */
struct qmgr_view {
    const struct envelope *envelope; /* decoded; recipients' states are the present ones */
    const uint32_t
        *recipients; /* indexes into envelope->recipients: this delivery's, DUE ones only */
    uint32_t recipient_count;
    struct spool_entry *entry;
    struct buf_queue *body; /* empty: read it from the spool */
    uint32_t attempts;      /* before this one */
    struct span last_reply;
    wall_us active_since; /* when it became due for this attempt: `delays` */
    enum way way;
};
struct qmgr_view qmgr_delivery_view(struct qmgr *qmgr, struct qmgr_delivery *delivery);
/** An operator, or expiry, wants this active delivery to end: the transfer cancels what it can and
 * calls qmgr_finish() as always. */
bool qmgr_delivery_is_cancelled(const struct qmgr_delivery *delivery);

struct qmgr_result { /* for one recipient */
    uint32_t recipient_index;
    /* DUE: retry; DELIVERED; RELAYED: likewise, and nobody else tells a sender who asked for it;
     * FAILED. A DSN is owed for the last two, if the sender has a name and wants it. */
    enum recipient_state state;
    struct span
        reply;     /* printable; kept for `queue show` and the DSN; at most 1,000 octets are kept */
    uint16_t code; /* SMTP reply code or 0 */
    uint8_t enhanced[3]; /* 5.1.1; 0.0.0 when unknown */
};
/**
 * End of an attempt. Recipients not mentioned stay DUE. Retries are scheduled (`retry_not_before`
 * at the earliest, and now when `retry_now`: rest of a batch), PROGRESS is written lazily, the body
 * is let go after the first attempt when more is to come. Recipients FAILED on a null-sender
 * message are SETTLED at once. May end the message (on_done). What was not attempted is READY again
 * at once, unless retry_not_before says otherwise: a caller without a slot keeps the line parked.
 */
struct qmgr_finish {
    const struct qmgr_result *results;
    uint32_t result_count;
    bool is_in_doubt;   /* connection lost after the end of data: sets ENVELOPE_IN_DOUBT */
    bool was_attempted; /* false: not counted (no slot, cancelled before the start) */
    bool retry_now;
    wall_us retry_not_before;
};
void qmgr_finish(struct qmgr *qmgr, struct qmgr_delivery *delivery,
                 const struct qmgr_finish *finish, struct tick_now now);

/* ---- the end of messages ---- */

/**
 * A message that owes a DSN: it has FAILED or RELAYED recipients, or is late, and no attempt is in
 * flight, and its sender may have one now. It is not reported again until qmgr_dsn_written() or
 * qmgr_dsn_failed(). NULL when there is none.
 */
struct qmgr_message *qmgr_dsn_next(struct qmgr *qmgr, struct tick_now now);
enum qmgr_notice { QMGR_NOTICE_FAILED, QMGR_NOTICE_RELAYED, QMGR_NOTICE_DELAYED };
/* What a DSN says of one recipient. */
struct qmgr_failure {
    uint32_t recipient_index;
    enum qmgr_notice notice;
    uint16_t code;
    uint8_t enhanced[3];
    struct span reply;
    bool is_expired;
};
struct qmgr_dsn {
    const struct envelope *envelope;
    struct spool_entry *entry;
    struct buf_queue *body; /* may be empty */
    const struct qmgr_failure *failures;
    uint32_t failure_count;
    uint32_t run; /* DSNs made for this message before: the DSN's id derives from (id, run) */
    bool has_failed, has_delayed; /* among them, a FAILED, a DELAYED one */
    struct span progress; /* encoded PROGRESS that settles these failures, for spool_commit_dsn() */
    bool is_done;         /* nothing is left of the message after this DSN */
};
/** Borrowed until the matching qmgr_dsn_written()/failed(). */
struct qmgr_dsn qmgr_dsn_view(struct qmgr *qmgr, struct qmgr_message *message);
/** The DSN is durable: failures become SETTLED. With is_done the message is gone (on_done is NOT
 * called: spool_commit_dsn() did it). */
void qmgr_dsn_written(struct qmgr *qmgr, struct qmgr_message *message, struct tick_now now);
/** Its commit failed: reported again after retry_min. */
void qmgr_dsn_failed(struct qmgr *qmgr, struct qmgr_message *message, struct tick_now now);

/** The disk has lost something of this message (enum spool_damage): it is written anew from memory,
 * or, false, its undelivered recipients end now. True as well when it is gone already, or when its
 * envelope is read before they end. */
bool qmgr_damaged(struct qmgr *qmgr, struct message_id id, uint8_t damage, struct tick_now now);

/** Timers: retries become due, messages expire (recipients FAILED with 4.4.7, is_expired; reported
 * through on_expired for records). */
void qmgr_advance(struct qmgr *qmgr, struct tick_now now);
tick_us qmgr_deadline(const struct qmgr *qmgr);

/* ---- operators ---- */
struct qmgr_stats {
    uint32_t messages, deliveries_waiting, deliveries_ready, deliveries_active, deliveries_held,
        lines;
    uint64_t inserted, delivered_recipients, failed_recipients, expired_recipients, deferrals, done,
        deleted_recipients;
    uint64_t progress_corrupt; /* PROGRESS payloads passed over at recovery */
    uint64_t dsns,
        dsns_capped; /* notices made durable, and those that had to wait for their turn */
    uint64_t dsn_senders_forgotten; /* of whom the count was lost: too many senders at a time */
    uint64_t delays_told, double_bounces; /* notices of delay; recipients of a DSN that failed */
    uint64_t body_memory, envelope_memory;
    uint64_t envelope_failures;     /* envelopes that could not be read back */
    uint32_t unreadable;            /* messages of which that is so now */
    uint64_t checked, check_rounds; /* messages the watchman looked at; rounds over all of them */
    uint32_t stuck;                 /* without a next event, as he found: must be 0 */
    uint32_t quota_held;            /* of deliveries_held: by QMGR_ORDER_QUOTA */
    uint64_t quota_messages;        /* messages that were held by it when they came */
};
struct qmgr_stats qmgr_get_stats(const struct qmgr *qmgr);
/** Its `messages`. */
uint32_t qmgr_message_count(const struct qmgr *qmgr);
struct qmgr_message *qmgr_find(struct qmgr *qmgr, struct message_id id);
/** All messages, in slices: `*cursor` starts at 0; NULL at the end. Messages inserted meanwhile may
 * or may not be seen. */
struct qmgr_message *qmgr_next(struct qmgr *qmgr, uint64_t *cursor);
struct qmgr_status { /* of one recipient, for `queue show` */
    enum recipient_state state;
    bool is_active, is_ready, is_held;
    uint32_t order;           /* that holds it */
    struct span domain, site; /* where its delivery goes; the site may be unknown yet */
    uint32_t attempts;
    wall_us next_try;
    struct span last_reply;
};
struct message_id qmgr_message_id(const struct qmgr_message *message);
/** Why it is in the queue, and the spool; READY: it is in the queue alone. */
enum way qmgr_message_way(const struct qmgr_message *message);
/** With the present states; good until the next call. NULL while it is not in memory: a scan has
 * it read. */
const struct envelope *qmgr_message_envelope(const struct qmgr_message *message);
struct qmgr_status qmgr_message_status(const struct qmgr_message *message, uint32_t recipient_index,
                                       struct tick_now now);
/** The delivery of a recipient of its envelope; NULL when it is not DUE. */
const struct qmgr_delivery *qmgr_message_delivery(const struct qmgr_message *message,
                                                  const struct envelope *envelope,
                                                  const struct envelope_recipient *recipient);
struct qmgr_status qmgr_recipient_status(const struct envelope_recipient *recipient,
                                         const struct qmgr_delivery *delivery, struct tick_now now);
/** What the site of this parked line is called: for people, and for filters. */
void qmgr_line_set_site(struct qmgr_line *line, struct span name);
/** Why its hosts could not be found this time, static text; NULL: they were. For people. */
void qmgr_line_set_unresolved(struct qmgr_line *line, const char *why, tick_us now);

/*
 * What matches a filter, a slice at a time, over many turns; see qmgr_scan.c for what costs what.
 * Mail that leaves or arrives meanwhile does no harm; what arrives may or may not be seen.
 */
#define QMGR_SCAN_MAX 4u
struct qmgr_match {
    struct qmgr_message *message;
    struct qmgr_delivery *delivery; /* NULL: the recipient has FAILED, or is at its end */
    uint32_t recipient_index;
    bool is_unreadable; /* its envelope: the match stands for the delivery as a whole */
    bool is_whole;      /* all recipients of the delivery that are DUE match */
    bool is_rest;       /* an earlier step told others of them */
};
/** A handle. At most QMGR_SCAN_MAX at once: one more ends the one that rested longest. */
uint64_t qmgr_scan_begin(struct qmgr *qmgr, const struct qmgr_filter *filter, struct tick_now now);
/**
 * The next recipients that match, at most `max`, good until anything else is called, with their
 * envelopes in memory; there may be none although more come. `*ret_is_done`: there were no more,
 * and the handle is gone.
 *
 * Cost:       a bounded look, whatever the size of the queue.
 * Errors:     ERR_STALE: others took its place, or it is done.
 */
enum err qmgr_scan_step(struct qmgr *qmgr, uint64_t handle, struct qmgr_match *ret_matches,
                        uint32_t max, uint32_t *ret_count, bool *ret_is_done,
                        struct tick_now now) MUST_CHECK;
/** All recipients of one message, in any state, by qmgr_scan_step(). */
uint64_t qmgr_show_begin(struct qmgr *qmgr, struct message_id id, struct tick_now now);
/** How many recipients match, step by step; reads only the envelopes it must. */
uint64_t qmgr_count_begin(struct qmgr *qmgr, const struct qmgr_filter *filter, struct tick_now now);
/** As qmgr_scan_step(). */
enum err qmgr_count_step(struct qmgr *qmgr, uint64_t handle, uint64_t *ret_count, bool *ret_is_done,
                         struct tick_now now) MUST_CHECK;
/** Nothing will be found before an envelope was read: step again after a qmgr_on_read(). */
bool qmgr_scan_is_waiting(struct qmgr *qmgr, uint64_t handle);
/** No effect on a handle that is gone. */
void qmgr_scan_end(struct qmgr *qmgr, uint64_t handle);

/*
 * The stored body of a message (without the prefix that its envelope has), piece by piece, whatever
 * becomes of the message meanwhile. Begun, it is being read until a qmgr_on_read(); then it must be
 * ended.
 */
#define QMGR_PIECE_SIZE_MAX 262144u
#define QMGR_PIECE_MAX      4u /* at once */
/** Errors: ERR_STALE: no such message; ERR_DISK_CORRUPT: its body is shorter; ERR_LIMIT. */
enum err qmgr_piece_begin(struct qmgr *qmgr, struct message_id id, uint64_t offset, uint32_t size,
                          uint32_t *ret_piece) MUST_CHECK;
bool qmgr_piece_is_reading(const struct qmgr *qmgr, uint32_t piece);
/** Copies out what was asked for. Errors: ERR_STALE: the message ended; the spool's, ERR_MEMORY. */
enum err qmgr_piece_end(struct qmgr *qmgr, uint32_t piece, uint8_t *ret_octets) MUST_CHECK;

/** "hold" */
const char *qmgr_verb_name(enum qmgr_verb verb);
/* Sites (domains where the site is not known yet) of mail that was to be tried at once. */
#define QMGR_RETRIED_MAX 64u
struct qmgr_retried {
    uint32_t count;
    bool has_more; /* than are in names */
    char names[QMGR_RETRIED_MAX][SITE_LABEL_MAX + 1];
};
struct qmgr_acted { /* recipients */
    uint64_t matched, done;
    uint64_t in_flight;  /* under way: asked to end; what they leave undelivered gets the order */
    uint64_t unreadable; /* bounces and deletions of some recipients of an envelope that cannot be
                            read: nobody can say who they are */
    struct qmgr_retried *retried; /* added to by RETRY; NULL: not of interest */
};
/**
 * Carry out an order on what a scan step found, in the same turn. Adds to `*acted`; what is matched
 * and neither done nor in flight was passed over (released though not held, failed already).
 *
 * A hold, release, retry or reroute acts on all recipients of a message at a domain together, as
 * soon as the first of them is told. The order of `matches` is changed.
 */
void qmgr_act(struct qmgr *qmgr, struct qmgr_match *matches, uint32_t count,
              const struct qmgr_order *order, struct qmgr_acted *acted, struct tick_now now);

/* An order that also stands for mail that comes before it ends; see qmgr_standing.c. */
#define QMGR_STANDING_MAX        64u
#define QMGR_STANDING_TERMS_SIZE 1020u
struct qmgr_standing { /* kept over restarts as it is */
    struct qmgr_order order;
    wall_us given, until;
    uint64_t done_now, done_since; /* recipients: of what waited when it was given, and came then */
    uint32_t uid;                  /* who gave it */
    char terms[QMGR_STANDING_TERMS_SIZE]; /* of its filter, as they were given; "": all mail */
};
_Static_assert(sizeof(struct qmgr_standing) == 1528, "no holes: it is kept in a file");
/** As qmgr_filter_parse(); also refused is what cannot be judged of mail to come. */
enum err qmgr_standing_filter_parse(struct span terms, struct qmgr_filter *ret_filter,
                                    char ret_why[QMGR_FILTER_WHY_SIZE]) MUST_CHECK;
bool qmgr_verb_may_stand(enum qmgr_verb verb);
/** Mail that comes from now on gets the order, until its end; one that has ended does nothing.
 * Errors: ERR_LIMIT: too many stand; ERR_CONFIG_VALUE: it is no order, or stands already. */
enum err qmgr_standing_add(struct qmgr *qmgr, const struct qmgr_standing *standing,
                           struct tick_now now) MUST_CHECK;
/** It stands no more; what it did stays. False: none of this number stood. */
bool qmgr_standing_end(struct qmgr *qmgr, uint32_t id, struct tick_now now);
/** Those in force, as they were given: `*index` starts at 0; NULL at the end. */
const struct qmgr_standing *qmgr_standing_next(struct qmgr *qmgr, uint32_t *index,
                                               struct tick_now now);
/** So many recipients that waited got it. */
void qmgr_standing_count(struct qmgr *qmgr, uint32_t id, uint64_t recipients);
/** What a cancelled order held was released, in this turn: others that stand hold it on. */
void qmgr_standing_hold_again(struct qmgr *qmgr, const struct qmgr_match *match,
                              struct tick_now now);

enum qmgr_group_by {
    QMGR_BY_SITE, /* the domain, where the site is not known yet */
    QMGR_BY_DOMAIN,
    QMGR_BY_SOURCE,
    QMGR_BY_CLASS,
    QMGR_BY_SENDER, /* its domain */
    QMGR_BY_COUNT
};
struct qmgr_group {
    char name[ENVELOPE_ADDRESS_SIZE_MAX + 1];
    uint32_t ages[QMGR_AGE_BUCKET_COUNT]; /* deliveries; BY_SENDER: messages */
};
/** Counts of the groups, a slice at a time: `*cursor` starts at 0, UINT64_MAX at the end. A name
 * may come more than once: add up. Costs what there are lines, or senders; never a message. */
uint32_t qmgr_groups(const struct qmgr *qmgr, enum qmgr_group_by by, uint64_t *cursor,
                     struct qmgr_group *ret_groups, uint32_t max, struct tick_now now);

/* What waits for a site, or for a domain. */
#define QMGR_NAME_SITES_MAX 8u
struct qmgr_name_use {
    struct qmgr_class_use {
        uint64_t ready, active, waiting, held; /* deliveries */
        uint64_t unseen;                       /* waiting or held: too many to look at each */
        tick_us next_try;                      /* of what waits and was looked at */
    } classes[QMGR_ROUND_CLASS_COUNT];         /* the last one stands for all that follow, too */
    char sites[QMGR_NAME_SITES_MAX][SITE_LABEL_MAX + 1]; /* that the domain's mail goes to */
    uint32_t site_count;
    bool has_unasked; /* some of the domain's mail: its hosts were neither found nor missed yet
                         since the start */
    const char *unresolved; /* of mail for this domain: why its hosts could not be found the last
                               time; NULL: they were. Static. */
    tick_us unresolved_since;
};
/** Add a slice of what goes to the site or domain of this name: `*cursor` starts at 0, UINT64_MAX
 * at the end. A bounded look. */
void qmgr_name_use_add(const struct qmgr *qmgr, struct span name, uint64_t *cursor,
                       struct qmgr_name_use *use, tick_us now);
/** The names and promised turns that are in force; NULL: none. */
const struct qmgr_classes *qmgr_get_classes(const struct qmgr *qmgr);
/** Invariants; returns how many messages have no next event (must be 0). */
uint32_t qmgr_verify(const struct qmgr *qmgr);

#endif

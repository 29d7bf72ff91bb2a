/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_TRANSFER_INTERNAL_H
#define RELAY_TRANSFER_INTERNAL_H

#include <sys/queue.h>

#include "base/wheel.h"
#include "relay/handover.h"
#include "relay/source.h"
#include "relay/transfer.h"
#include "relay/transfer_probe.h"

/*
 * Shared by the files of the transfer: transfer.c (hub), transfer_intake.c (messages coming in),
 * transfer_cut.c (those that go at once), transfer_stream.c (while they come), transfer_line.c (a
 * line's way to its place), transfer_place.c (whose turn it is at a place, and from which source),
 * transfer_site.c (what is known of a site seen from one source), transfer_job.c (one delivery's
 * attempt), transfer_dsn.c (what is owed to senders). States are drawn in each file's opening
 * comment.
 */
#define TRANSFER_SITE_BUCKETS      4096u
#define TRANSFER_READ_AHEAD        4u         /* bodies of one site read ahead of new connections */
#define TRANSFER_READ_MEMORY_SHARE 4u         /* of the pool: bodies read back and not yet sent */
#define TRANSFER_READ_FIRST_SHARE  2u         /* of the rest: a site's only body, beyond that */
#define TRANSFER_READ_MORE_SHARE   8u         /* of the rest: all bodies of a site, beyond that */
#define TRANSFER_READ_SPARE_SHARE  16u        /* of read_memory_max: with less left, none is read */
#define TRANSFER_RECEIVE_SHARE     8u         /* of the pool: not for bodies read back */
#define TRANSFER_BODY_KEEP_MAX     (1u << 20) /* larger bodies are read back from the spool */
#define TRANSFER_AWAY_MAX          4u
#define TRANSFER_RESULTS_FEW       8u /* of so many recipients on the stack */
/* Jobs kept for use again: none where AddressSanitizer is to see what is used too long. */
#ifdef __SANITIZE_ADDRESS__
#define TRANSFER_JOBS_SPARE 0u
#else
#define TRANSFER_JOBS_SPARE 128u
#endif
#define TRANSFER_DSN_ACTIVE_MAX     64u
#define TRANSFER_SETTLE_AHEAD_MAX   64u /* envelopes read at a time for a line that is settled */
#define TRANSFER_CANCEL_SCAN_TIME   TICK_S(1)
#define TRANSFER_HELD_BACK_TIME     TICK_MS(20) /* until records are looked at again */
#define TRANSFER_RESOLVE_RETRY_TIME TICK_S(1)   /* after our own bounds, not the peer's trouble */

enum transfer_token_kind {
    TRANSFER_TOKEN_INTAKE,
    TRANSFER_TOKEN_JOB,
    TRANSFER_TOKEN_DSN,
    TRANSFER_TOKEN_LINE,
    TRANSFER_TOKEN_REPLAY,
};

/* First member of everything that waits for the spool; its address is the spool token. What waits
 * for the envelope of a delivery is the delivery's user. */
struct transfer_token {
    enum transfer_token_kind kind;
};

enum transfer_intake_state {
    TRANSFER_INTAKE_RECEIVING,
    TRANSFER_INTAKE_STREAMING, /* it goes on while it comes: transfer_stream.c */
    TRANSFER_INTAKE_SPOOLING,  /* it did; what comes goes to the spool */
    TRANSFER_INTAKE_FATED,     /* its fate is known, its end was not read */
    TRANSFER_INTAKE_SETTLED,   /* its end was read, its client hears its fate */
    TRANSFER_INTAKE_REFUSED,   /* its end was read, and the spool cannot take it */
    TRANSFER_INTAKE_COMMITTING,
    TRANSFER_INTAKE_UNSTORED,  /* in the queue, not in the spool: transfer_cut.c */
    TRANSFER_INTAKE_STORE_DUE, /* likewise, and to be stored */
    TRANSFER_INTAKE_STORING,   /* likewise, its commit is under way */
    TRANSFER_INTAKE_STATE_COUNT
};

/* Of an intake that goes on, or went on, while it comes. */
struct transfer_stream {
    struct client_feed *feed;
    struct buf_queue kept; /* all of it, while is_kept; else the spool has it */
    bool is_kept;
    bool is_stalled;   /* much waited for the next hop since it was looked at */
    uint64_t charged;  /* of transfer->stream_memory */
    uint64_t received; /* since it began */
    tick_us since, moved, looked;
    uint64_t looked_received, looked_taken; /* then */
    /* FATED: what its client hears. */
    uint16_t code;
    uint8_t enhanced[3];
    uint32_t reply_size;
    uint8_t reply[ENVELOPE_REPLY_SIZE_MAX];
};

struct transfer_intake {
    struct transfer_token token;
    LIST_ENTRY(transfer_intake) link; /* in the list of its state */
    enum transfer_intake_state state;
    struct spool_transaction *transaction; /* until its commit; NULL: the spool had no room */
    enum settings_delivery delivery;
    enum way way;
    bool is_gathered;               /* nothing of it is with the spool yet */
    bool is_sending;                /* UNSTORED: an attempt has begun */
    enum err err;                   /* REFUSED */
    tick_us begun, ended;           /* the client's first octet was due, its last one came */
    uint64_t heard;                 /* a stamp: when that was received; 0: unknown */
    uint64_t size_said;             /* by the client; 0: nothing */
    struct transfer_stream *stream; /* NULL: it never went on while it came */
    struct wheel_timer timer;       /* UNSTORED */
    struct message_id id;
    struct buf_queue body; /* kept for the first attempt, while small enough */
    bool is_kept;
    uint64_t user;
    uint64_t body_size; /* when it has ended */
    uint32_t encoded_size;
    uint8_t *encoded;
};

enum transfer_line_state {
    TRANSFER_LINE_RESOLVING,
    TRANSFER_LINE_WOKEN,
    TRANSFER_LINE_AT_PLACE,
    TRANSFER_LINE_SETTLING,
};

/* What ended a recipient's attempt without a next hop's reply. */
struct transfer_verdict {
    enum recipient_state state;
    uint16_t code;
    uint8_t enhanced[3];
    const char *text;
    bool was_attempted;
    wall_us retry_not_before;
};

struct transfer_bounce; /* what a pattern returns to its senders */
struct transfer_place;
struct transfer_line {
    struct transfer_token token;
    TAILQ_ENTRY(transfer_line)
    link; /* in transfer->resolving, ->woken, ->settling or place->lines: as `state` says */
    enum transfer_line_state state;
    struct qmgr_line *line;
    struct transfer_place *place; /* AT_PLACE */
    uint64_t settings_serial; /* route may be followed only while this is the present snapshot */
    const struct settings_route *route;
    struct transfer_verdict verdict;       /* SETTLING: of all that was due */
    uint32_t settle_count, settle_waiting; /* to be taken; taken, their envelopes being read */
    struct mx_answer answer;               /* last: large, filled by resolving */
};
TAILQ_HEAD(transfer_line_list, transfer_line);

enum transfer_job_state {
    TRANSFER_JOB_LOADING, /* its envelope is being read */
    TRANSFER_JOB_UNREAD,  /* no memory to read its body into */
    TRANSFER_JOB_READING,
    TRANSFER_JOB_READY,
    TRANSFER_JOB_SENDING,
    TRANSFER_JOB_AWAY, /* on another shard's connection */
};

/* Another shard's delivery on our connection. */
struct transfer_guest {
    struct handover *handover;
    struct arena arena;
    struct envelope envelope;
    bool is_cancelled;
};

struct transfer_job {
    struct transfer_token token;
    struct transfer_job *spare_next; /* of transfer->spare_jobs: the job is nobody's */
    TAILQ_ENTRY(transfer_job) link;  /* in place->ready (READY), transfer->unread (UNREAD) */
    TAILQ_ENTRY(transfer_job) all;
    enum transfer_job_state state;
    struct transfer_place *place;
    struct transfer_member *member; /* SENDING, AWAY: over which */
    struct qmgr_delivery *delivery; /* NULL for a guest */
    struct transfer_guest *guest;   /* NULL for our own */
    struct handover *away;          /* AWAY: held by shard `holder` */
    uint32_t holder;
    const struct settings *settings;
    const struct settings_route *route;
    int64_t rank;               /* among all that wait for the site: qmgr_round_take() */
    struct buf_queue read_body; /* when the queue has it no longer */
    uint64_t read_size;
    bool is_cancel_sent;
    bool is_withdrawn; /* ended by us for what is not the next hop's fault: not attempted */
    bool is_abandoned; /* likewise, its sender is lost: nobody wants to know what came of it */
    wall_us started;
    tick_us started_tick;    /* SENDING */
    struct mx_answer answer; /* last: large, and copied only as far as it is filled */
};
TAILQ_HEAD(transfer_job_list, transfer_job);

/* What the transfer keeps of a site seen from one source, while anything of ours is there. */
struct transfer_site {
    struct transfer_site *hash_next;
    uint64_t key;
    struct site *site;
    TAILQ_HEAD(, transfer_member) members; /* of places that may send over it; the next first */
    uint32_t connection_max;
    uint32_t messages_per_connection_max, recipient_max; /* 0: as the settings say */
    enum settings_bdat_ahead bdat_ahead;                 /* UNSAID: likewise */
    uint32_t connections, away;
    bool is_mail_short; /* the right to say MAIL was missing when it was asked for last */
};

/* One source of a place's pool. */
struct transfer_member {
    TAILQ_ENTRY(transfer_member) link; /* in site->members, while `site` is known */
    struct transfer_place *place;
    struct transfer_site *site; /* NULL: not used there yet */
    const struct settings_source *source;
    uint32_t number; /* of the source */
    uint64_t site_key;
};

/* Where the lines of one pool wait for one site, whichever source will take them. */
struct transfer_place {
    struct transfer_place *hash_next;
    TAILQ_ENTRY(transfer_place) woken_link;
    bool is_woken, is_guest;
    bool is_local; /* mailbox servers, which do not see the source: how it fares is all the same */
    uint64_t base; /* of the site, whatever the source and the pool */
    uint64_t key;  /* by which it is found, with `pool`: `base`, or the site of guests */
    const struct settings_pool *pool; /* of `settings`; guests have none */
    const struct settings
        *settings;   /* followed only while they are the present ones, or for jobs */
    uint64_t serial; /* of `settings` */
    const struct settings_route *route;
    struct settings_site_limits limits;
    char label[SITE_LABEL_MAX + 1];
    struct transfer_line_list lines;
    struct qmgr_round *round; /* the order in which their mail goes */
    struct transfer_job_list ready;
    int64_t rank;      /* of the job that waits for a connection; INT64_MAX: none does */
    uint32_t promised; /* percent of a turn that READY jobs which were overtaken have earned */
    uint32_t jobs, reading;
    uint64_t read_memory;
    uint32_t member_count;
    struct source_turn *turns; /* behind the members */
    struct transfer_member members[];
};
TAILQ_HEAD(transfer_place_list, transfer_place);

enum transfer_dsn_state { TRANSFER_DSN_READING, TRANSFER_DSN_COMMITTING };

struct transfer_dsn {
    struct transfer_token token;
    LIST_ENTRY(transfer_dsn) link; /* in transfer->dsns */
    enum transfer_dsn_state state;
    struct qmgr_message *message;
    struct spool_entry *ending; /* of a message that ends with it, and whose DONE waits */
    struct buf_queue body;
    uint8_t *encoded;
    uint32_t encoded_size;
};

/* A message that has ended, and whose DONE waits for its records. */
struct transfer_end {
    struct spool_entry *entry;
    uint64_t number; /* of the last record that may be its */
};

/* A ring of them, in the order in which they ended. */
struct transfer_ends {
    struct transfer_end *items;
    uint32_t first, count, size; /* size: a power of two, or 0 */
    uint64_t told;               /* number of the last record that was replayed */
};

/* The hosts whose key was asked for last. */
struct transfer_base {
    uint64_t base;
    uint32_t size; /* 0: none yet */
    uint8_t names[512];
};

struct transfer {
    struct transfer_options options;
    const struct settings *settings;
    struct qmgr *qmgr;
    struct site_set *sites;
    struct client *client;
    struct tick_now
        now; /* of this turn: the clients' and sites' callbacks have no clock of their own */
    struct source_set *sources;
    struct source_news *news_drafts; /* by shard: what it is telling */
    wall_us warmup_next;             /* when a source has another day of its warm-up */
    wall_us warmup_seen; /* the clock when that was looked at last: it may be set back */
    struct transfer_line_list resolving, woken, settling;
    struct transfer_place_list woken_places;
    struct transfer_site *sites_by_key[TRANSFER_SITE_BUCKETS];
    struct transfer_place *places_by_key[TRANSFER_SITE_BUCKETS];
    struct transfer_base base_last;
    struct transfer_job_list jobs, unread;
    LIST_HEAD(transfer_intake_list, transfer_intake) intakes_by_state[TRANSFER_INTAKE_STATE_COUNT];
    struct transfer_intake *relief_next; /* transfer_relieve() goes on with it; NULL: with the */
    uint32_t relief_stage;               /* next state that it looks at */
    struct wheel wheel;                  /* of UNSTORED and STREAMING intakes */
    uint64_t stream_memory;              /* octets that streams hold, or may */
    struct transfer_ways ways;
    LIST_HEAD(, transfer_dsn) dsns;
    struct transfer_job *spare_jobs; /* TRANSFER_JOBS_SPARE at most */
    uint32_t spare_job_count;
    uint32_t intakes, jobs_active, dsns_active, lines_active;
    uint64_t read_memory, read_memory_max; /* octets */
    uint64_t reading_size;                 /* the part of read_memory that has not come yet */
    struct transfer_latencies latencies;
    uint64_t handovers, handed_over; /* handed_over: octets copied for that, of both sides */
    uint64_t reply_heard; /* a stamp, while a next hop's reply is being settled; else 0 */
    struct transfer_ends ends;
    LIST_HEAD(, transfer_replay) replays; /* their envelopes are being read */
    uint32_t replays_active;
    wall_us replay_since; /* INT64_MAX: nothing is to be replayed */
    struct reaction_matcher *matcher;
    STAILQ_HEAD(, transfer_bounce) bounces;
    uint32_t bounce_count;
    tick_us drain_since;
    tick_us cancel_scan;
    tick_us crowded_until; /* 0: no place waits for a connection of the client */
    bool is_draining, is_adopting;
    bool is_waiting;        /* another process delivers */
    bool has_adopted;       /* mail of earlier runs is here, all of it */
    bool is_held_back;      /* records are behind: nothing new is begun */
    bool is_replay_told;    /* that nothing is left to replay */
    bool has_unstored_news; /* an UNSTORED message has just come to the queue */
};

/* transfer_ends.c */
/** Nothing is left to do for the message: its DONE, now or when its records are kept. */
void transfer_entry_end(struct transfer *transfer, struct spool_entry *entry);
/** Must it wait? A notification's commit does not end a message that must. */
bool transfer_end_waits(const struct transfer *transfer);
void transfer_ends_run(struct transfer *transfer);
/** Records of a message that may have ended already were replayed. */
void transfer_ends_told(struct transfer *transfer);
tick_us transfer_ends_deadline(const struct transfer *transfer);
void transfer_ends_free(struct transfer *transfer);

/* transfer_replay.c */
struct transfer_replay;
/** A message came back: write the records again that may be lost. Before the queue hears of it. */
void transfer_replay(struct transfer *transfer, const struct spool_recovered *message,
                     const struct envelope_index *index);
void transfer_replay_on_read(struct transfer *transfer, struct transfer_replay *replay,
                             struct spool_event *event);
/** Read again what there was no memory for. */
void transfer_replays_run(struct transfer *transfer);
void transfer_replays_free(struct transfer *transfer);

/* transfer_probe.c */
/* Whom an answer of DNS is for: a line by its address, or a probe by its own, which is even, and
 * one. */
static inline uint64_t transfer_probe_user(const struct transfer_probe *probe)
{
    return (uint64_t)(uintptr_t)probe | 1u;
}

static inline struct transfer_probe *transfer_probe_of(uint64_t user)
{
    return (user & 1u) == 0 ? NULL : (struct transfer_probe *)(uintptr_t)(user & ~(uint64_t)1);
}

void transfer_probe_on_dns(struct transfer_probe *probe);

/* transfer_intake.c */
/** The only writer of its state, and of the lists. */
void transfer_intake_enter(struct transfer *transfer, struct transfer_intake *intake,
                           enum transfer_intake_state next);
/** Its fate is known: tell the server, and let go of it. */
void transfer_intake_finish(struct transfer *transfer, struct transfer_intake *intake,
                            const struct message_fate *fate);
/** Its envelope, encoded. */
void transfer_intake_encode(struct transfer_intake *intake, const struct envelope *envelope);
/** What was gathered of it goes to the spool after all. Errors: as transfer_body(). */
enum err transfer_intake_spool(struct transfer *transfer,
                               struct transfer_intake *intake) MUST_CHECK;
/** Its spool transaction, if it has one, ends without a message. */
void transfer_intake_give_up_room(struct transfer *transfer, struct transfer_intake *intake);
/** The code that a failed commit is answered with. */
uint16_t transfer_refusal_code(enum err err);
/** May a body stay in memory? Where buffers are short, mail that stands still gives way first. */
bool transfer_may_keep_body(const struct transfer *transfer);
/** What was refused at its end. */
void transfer_intakes_run(struct transfer *transfer);
void transfer_on_committed(struct transfer *transfer, struct transfer_intake *intake,
                           const struct spool_event *event);
/** The process ends; what is under way is the next life's to find out. */
void transfer_intakes_free(struct transfer *transfer);

/* transfer_cut.c */
/** Which way will it go? WAY_READY: to the next hop, without the spool. */
enum way transfer_cut_choose(const struct transfer *transfer, const struct transfer_intake *intake,
                             const struct envelope *envelope);
/** The message of an intake that has one; and the attempt that has it, or NULL. */
struct qmgr_message *transfer_cut_message(struct transfer *transfer,
                                          const struct transfer_intake *intake);
struct transfer_job *transfer_cut_job(struct transfer *transfer,
                                      const struct transfer_intake *intake);
/** Into the queue, UNSTORED. */
void transfer_cut_begin(struct transfer *transfer, struct transfer_intake *intake);
/** Timers, and what is to be stored. */
void transfer_cut_run(struct transfer *transfer);
tick_us transfer_cut_deadline(const struct transfer *transfer);
/** All that is UNSTORED is stored. */
void transfer_cut_drain(struct transfer *transfer);
/** The commit of a STORING intake has ended. */
void transfer_cut_on_committed(struct transfer *transfer, struct transfer_intake *intake,
                               const struct spool_event *event);
/** A READY job whose message must be stored before it may go: it goes back, and is. */
bool transfer_cut_hold_back(struct transfer *transfer, struct transfer_place *place,
                            struct transfer_job *job);
/** The job is on a connection, or on its way to one elsewhere. */
void transfer_cut_sending(struct transfer *transfer, const struct transfer_job *job);
/** The job goes back, not attempted. */
void transfer_cut_put_back(struct transfer *transfer, const struct transfer_job *job);
/** All recipients are refused for good, and the client will hear it. */
bool transfer_cut_passes_on(const struct transfer *transfer, const struct qmgr_delivery *delivery,
                            const struct qmgr_result *results, uint32_t result_count);
/** The stamp of the last octet received of a message that goes straight through; 0: unknown. */
uint64_t transfer_cut_heard(const struct transfer_job *job);
/* Callbacks of the queue. */
bool transfer_on_unstored_end(void *context, void *owner, const struct qmgr_result *refusal);
void transfer_on_store_due(void *context, void *owner, enum way reason);

/* transfer_stream.c */
/** As transfer_body(), for an intake with a stream. */
enum err transfer_stream_body(struct transfer *transfer, struct transfer_intake *intake,
                              struct buf_queue *octets) MUST_CHECK;
/** Its part in transfer_pending(). */
uint64_t transfer_stream_pending(const struct transfer_intake *intake);
/** As transfer_end(). */
void transfer_stream_end(struct transfer *transfer, struct transfer_intake *intake,
                         const struct envelope *envelope);
/** As transfer_abort(); the intake is still to be freed. */
void transfer_stream_abort(struct transfer *transfer, struct transfer_intake *intake);
void transfer_stream_free(struct transfer *transfer, struct transfer_intake *intake);
/** STREAMING: nothing more of it goes out, the rest goes to the spool. */
void transfer_stream_fall_back(struct transfer *transfer, struct transfer_intake *intake,
                               enum way reason);
/** Likewise, and the attempt is asked to end. */
void transfer_stream_stop(struct transfer *transfer, struct transfer_intake *intake,
                          enum way reason);
/** STREAMING, SPOOLING: its message has left the queue: refused, or, NULL, settled. */
void transfer_stream_fate(struct transfer *transfer, struct transfer_intake *intake,
                          const struct qmgr_result *refusal);
/** SETTLED: what its client hears. */
struct message_fate transfer_stream_get_fate(const struct transfer_intake *intake);
/** Why an intake that nobody is sending is stored. */
enum way transfer_stream_idle_reason(const struct transfer_intake *intake);
void transfer_stream_on_timer(struct transfer *transfer, struct transfer_intake *intake);
/** STREAMING: an attempt has begun. */
void transfer_stream_sending(struct transfer *transfer, struct transfer_intake *intake);
/** The body of the job's message, if it is still coming, or did when it began; NULL: it is not. */
struct client_feed *transfer_stream_feed(const struct transfer_job *job);
/** May an attempt begin from its feed? If not, it is tried again from the spool. */
bool transfer_stream_may_go(struct transfer *transfer, struct transfer_intake *intake);
/** Memory is scarce: what is kept goes to the spool. */
void transfer_stream_relieve(struct transfer *transfer, struct transfer_intake *intake);
/** No stream goes on. */
void transfer_stream_drain(struct transfer *transfer);

/* transfer_line.c */
/** Is every address of the host known not to answer? */
bool transfer_host_is_dead(const struct transfer *transfer, const struct mx_host *host);
/** The hosts that a route lists. Errors: as mx_lookup(), with `user`. */
enum err transfer_route_resolve(struct transfer *transfer, const struct settings_route *route,
                                uint64_t user, struct mx_answer *ret_answer) MUST_CHECK;
void transfer_lines_run(struct transfer *transfer);
/** Back to the queue, from its place or from no list. */
void transfer_line_finish(struct transfer *transfer, struct transfer_line *line);
/** It leaves its place, and finds its route and its hosts anew at the next turn, which is at once.
 */
void transfer_line_renew(struct transfer *transfer, struct transfer_line *line);
/** Its route and its hosts are still as they were found. */
bool transfer_line_is_fresh(const struct transfer *transfer, const struct transfer_line *line);
void transfer_line_list_free(struct transfer *transfer, struct transfer_line_list *list);
void transfer_lines_free(struct transfer *transfer);

/** The envelope of a delivery of a SETTLING line is here, or cannot be read. */
void transfer_line_on_loaded(struct transfer *transfer, struct transfer_line *line,
                             struct qmgr_delivery *delivery, bool is_loaded);
bool transfer_lines_use_settings(const struct transfer *transfer, uint64_t serial);

/* transfer_site.c */
struct transfer_site *transfer_site_find(struct transfer *transfer, uint64_t key);
/** The site is called otherwise: so are the places of its mail. */
void transfer_on_site_name(void *context, const struct site *site);
/** NULL: all sites are busy. */
struct transfer_site *transfer_site_get(struct transfer *transfer, uint64_t key, struct span label,
                                        struct span source);
/** Of the site of these hosts, whatever the source. */
uint64_t transfer_site_base(struct transfer *transfer, const struct mx_answer *answer,
                            const struct settings_site_limits *limits);
/** Of that site, seen from one source. */
uint64_t transfer_site_key(uint64_t base, const struct settings_source *source);
/** The limits that the configuration has for it from now on. */
void transfer_site_limit(struct transfer *transfer, struct transfer_site *site,
                         const struct settings_source *source, const struct settings_route *route,
                         const struct settings_site_limits *limits);
/** The first rank of the jobs that wait for it, at whatever place. */
int64_t transfer_site_rank(const struct transfer_site *site);
/** Something of it became free: whoever waits for it gets a look. */
void transfer_site_wake(struct transfer *transfer, struct transfer_site *site);
/** Forget it if nothing is there any more. */
void transfer_site_review(struct transfer *transfer, struct transfer_site *site);
void transfer_sites_free(struct transfer *transfer);

/* transfer_place.c */
/** Find or make the place where a line of this pool waits for the site of its hosts; NULL: all
 * sites are busy. */
struct transfer_place *transfer_place_get(struct transfer *transfer, struct transfer_line *line,
                                          const struct settings_site_limits *limits);
/** The place of deliveries that other shards send over this source; NULL: there is no such source,
 * or no room for its site. */
struct transfer_place *transfer_place_get_guest(struct transfer *transfer,
                                                const struct handover *handover,
                                                const struct settings_route *route,
                                                const struct settings_site_limits *limits);
void transfer_place_wake(struct transfer *transfer, struct transfer_place *place);
void transfer_places_wake(struct transfer *transfer);
void transfer_places_run(struct transfer *transfer);
/** Limits of sources that warm up follow the day. */
void transfer_places_warm_up(struct transfer *transfer);
void transfer_place_review(struct transfer *transfer, struct transfer_place *place);
/** Deliveries of the place that would go now if they were allowed to. */
uint32_t transfer_place_waiting(const struct transfer_place *place);
void transfer_places_free(struct transfer *transfer);

/* transfer_job.c */
struct transfer_job *transfer_job_new(struct transfer *transfer, struct transfer_line *line,
                                      struct qmgr_delivery *delivery, int64_t rank);
/* How it went to start a job over one source. */
enum transfer_try {
    TRANSFER_TRY_STARTED,
    TRANSFER_TRY_BUSY,   /* nothing to be had now: the site will wake us */
    TRANSFER_TRY_PAUSED, /* the site pauses, seen from there, and will wake us */
};
/** Try to put a READY job on a connection of this member, whose site is known. */
enum transfer_try transfer_job_try(struct transfer *transfer, struct transfer_job *job,
                                   struct transfer_member *member);
/** Hand a READY job to the shard that has the member's scarce slots. False: it stays READY. */
bool transfer_job_try_away(struct transfer *transfer, struct transfer_job *job,
                           struct transfer_member *member);
/** Every recipient of our own READY job has the same fate, and the job ends. */
void transfer_job_settle_all(struct transfer *transfer, struct transfer_job *job,
                             const struct transfer_verdict *verdict);
/** Its message and recipients, its own or a guest's. */
struct qmgr_view transfer_job_view(struct transfer *transfer, struct transfer_job *job);
/** The attempt never began: the delivery goes back, not counted, and is due again then (0: at
 * once).
 */
void transfer_job_put_back(struct transfer *transfer, struct transfer_job *job, wall_us not_before);
/** Its envelope is here, or cannot be read. */
void transfer_job_on_loaded(struct transfer *transfer, struct transfer_job *job, bool is_loaded);
void transfer_job_on_read(struct transfer *transfer, struct transfer_job *job,
                          struct spool_event *event);
void transfer_job_new_guest(struct transfer *transfer, struct transfer_place *place,
                            struct transfer_guest *guest, const struct settings_route *route,
                            struct buf_queue *body);
/** Give a result to the queue, write records, end the job. */
void transfer_job_settle(struct transfer *transfer, struct transfer_job *job,
                         const struct client_result *result);
void transfer_job_on_result(void *context, const struct client_result *result);
void transfer_jobs_scan(struct transfer *transfer);
void transfer_jobs_free(struct transfer *transfer);

/** Give every recipient of an active delivery the same fate, and write the records. */
void transfer_delivery_settle(struct transfer *transfer, struct qmgr_delivery *delivery,
                              const struct transfer_verdict *verdict);

/** What an attempt tells of its site. */
enum site_outcome transfer_outcome_of(const struct client_result *result);

/* transfer_source.c */
/** A job goes: over a new connection, or a kept one. */
void transfer_source_begin(struct transfer *transfer, const struct transfer_job *job, bool is_new);
/** What the attempt tells of the source. */
void transfer_source_judge(struct transfer *transfer, const struct transfer_job *job,
                           const struct client_result *result);
/** A reply of this host speaks of the address, and not of mail. */
void transfer_source_refused(struct transfer *transfer, const struct transfer_job *job,
                             const struct flow_address *host, struct span text);
/** May another source of the pool be used, and does the job's site not refuse it? */
bool transfer_source_has_other(const struct transfer *transfer, const struct transfer_job *job,
                               const struct settings_pool *pool);
/** Of what another shard tells. */
void transfer_source_on_piece(struct transfer *transfer, const struct handover_message *message);
/** For the other shards. */
void transfer_on_source_news(void *context, const struct source_news *news);

/* transfer_react.c */
void transfer_on_refusal(void *context, const struct client_refusal *refusal);
/** An order about a site begins; see struct site_options. */
void transfer_on_site_order(void *context, struct span label, const struct site_order *order,
                            bool is_home);
/** The next slice of what is to be returned to its senders. */
void transfer_bounces_run(struct transfer *transfer);
bool transfer_has_bounces(const struct transfer *transfer);
bool transfer_bounces_are_due(const struct transfer *transfer);
void transfer_bounces_free(struct transfer *transfer);

/* transfer_guest.c */
/** Hand a READY job to the shard that holds a slot of its scarce site. False: not possible, it
 * stays READY. */
bool transfer_job_send_away(struct transfer *transfer, struct transfer_job *job,
                            struct transfer_member *member, const struct client_request *request);
/** Ask the holder of an AWAY job to end it early; its RESULT follows. */
void transfer_job_recall(struct transfer *transfer, struct transfer_job *job);
/** Answer the owner (NULL: not attempted) and free the guest. */
/** Without a result: the end of the process. */
void transfer_guest_free(struct transfer_guest *guest);
void transfer_guest_end(struct transfer *transfer, struct transfer_guest *guest,
                        const struct client_result *result);

/* transfer_dsn.c */
void transfer_dsns_run(struct transfer *transfer);
/** Those under way are forgotten: their failures are still owed, in the spool. */
void transfer_dsns_free(struct transfer *transfer);
void transfer_dsn_on_event(struct transfer *transfer, struct transfer_dsn *dsn,
                           struct spool_event *event);

#endif

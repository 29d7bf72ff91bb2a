/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_SHARD_H
#define CONTROL_SHARD_H

#include "queue/ring.h"
#include "relay/server.h"
#include "relay/transfer.h"

/*
 * One shard: a pinned thread's worth of relay, and the only place that knows all parts. Its seams
 * (network, disk, clock, randomness) are passed in, so that the daemon and the simulator run the
 * same code.
 *
 *   turn = time, network, sessions, mailbox, disk, timers, flush
 *
 * Control talks to shards only by ring messages (member number `count` of the group is control's);
 * answers come back the same way. A query's memory belongs to control, is filled by the shard, and
 * must not be touched by control between sending and the reply.
 */
struct shard;

struct shard_options {
    uint32_t index, count;
    struct flow_plane *plane; /* owned by the caller, as all seams */
    struct disk *disk;
    const struct tick_source *clock;
    struct rng rng; /* by value: keyed by the caller, a different key for every shard */
    struct ring_member *mailbox; /* NULL only when count is 1 and nobody controls it */
    struct record_sink records;
    const struct settings *settings;
    struct spool_options spool; /* pool, shard and epoch are filled in by shard_new() */
    uint64_t epoch;
    struct dns_options dns; /* send, wake and context are filled in by shard_new() */
    uint32_t message_count_max;
    uint64_t body_memory_max;
    uint32_t connection_max;   /* per (source, site) */
    uint32_t connection_start; /* of these, while nothing is known of the site */
    uint32_t outbound_max;     /* outbound connections of this shard */
    bool is_auth_inline;       /* passwords are checked without a thread: simulations */
    uint32_t body_octets;      /* of large messages that are asked for at a time */
    uint32_t inbound_flow_max; /* flows in use, of all kinds, above which no session is taken */
    bool is_waiting; /* for another process to leave: no mail is taken before an INTAKE query says
                        so, and none goes out before transfer_set_waiting() does */
};

/** Heap; start-up, on the shard's own thread or before it starts. Errors: the spool's. */
enum err shard_new(const struct shard_options *options, struct shard **ret_shard) MUST_CHECK;
void shard_free(struct shard *shard);
/** Open the listeners. Errors: ERR_SYSTEM, the failing listener's index in *ret_index. */
enum err shard_listen(struct shard *shard, uint32_t *ret_index) MUST_CHECK;
/** One turn; returns the time until which nothing will happen by itself (it may be in the past:
 * turn again at once). */
tick_us shard_turn(struct shard *shard);
/** Turn until stopped, sleeping in between: the thread's body. */
void shard_run(struct shard *shard);
bool shard_is_stopped(const struct shard *shard);

/* ---- messages: ring_message.kind ---- */
enum shard_message_kind {
    SHARD_MESSAGE_DNS = 1, /* between shards */
    SHARD_MESSAGE_SITE,
    SHARD_MESSAGE_HANDOVER,  /* a delivery goes to the shard that holds the slot (relay/handover.h)
                              */
    SHARD_MESSAGE_QUOTA,     /* of users (relay/quota.h) */
    SHARD_MESSAGE_SETTINGS,  /* control -> shard: payload is struct shard_control */
    SHARD_MESSAGE_RECOVERED, /* control -> shard: adopt your share of *recovery; reply when done */
    SHARD_MESSAGE_QUERY,     /* control -> shard: fill *query; reply when done */
    SHARD_MESSAGE_TRACE,     /* shard -> control: lines in *batch; the reply gives it back */
    SHARD_MESSAGE_DRAIN, /* control -> shard: stop accepting, finish what is in flight; reply when
                            drained, then the thread ends */
};

struct shard_control { /* payload of all from SETTINGS on; the reply carries the same */
    const struct settings *settings;
    struct spool_recovery *recovery;
    struct shard_query *query;
    struct trace_batch *batch;
    tick_us time; /* DRAIN: that transactions under way have, before they hear 421, too; 0: there
                     is no such bound */
    tick_us time_max; /* DRAIN: when it ends, with whatever is under way; 0: likewise */
    bool is_cut;      /* DRAIN, the reply: something was */
    uint64_t serial; /* of `settings`, which may be gone by the time of the reply: that is sent when
                        the shard has let go of the snapshot before it */
};

/* ---- queries ---- */
enum shard_query_kind {
    SHARD_QUERY_STATUS,
    SHARD_QUERY_QUEUE_LIST,
    SHARD_QUERY_QUEUE_SHOW,
    SHARD_QUERY_QUEUE_CAT, /* one message as it is stored */
    SHARD_QUERY_QUEUE_SUMMARY,
    SHARD_QUERY_QUEUE_ACT, /* an order, on what a filter finds */
    SHARD_QUERY_PLANE,     /* a function of the asker's looks at the network plane */
    SHARD_QUERY_TRANSFER,  /* ... at the transfer */
    SHARD_QUERY_QUOTA,     /* ... at the quotas of users */
    SHARD_QUERY_SERVER,    /* ... at the server */
    SHARD_QUERY_INTAKE,    /* take no mail from now on, or take it again */
    SHARD_QUERY_TRACE,     /* show conversations to these viewers from now on */
};

struct shard_intake {
    bool is_closed;
    bool is_dry_run;               /* nothing is done, but counted */
    tick_us time;                  /* that transactions under way have */
    uint32_t open, failed;         /* added to: sessions; shards that cannot listen again */
    uint64_t messages, deliveries; /* of a dry run, added to: in the queue; under way */
};

struct shard_trace_order {
    struct trace_filter filters[TRACE_VIEWERS_MAX];
    struct trace_batch *batches; /* two for each shard */
};

struct shard_status {
    struct server_stats server;
    struct client_stats client;
    struct qmgr_stats queue;
    struct spool_stats spool;
    struct dns_stats dns;
    struct flow_stats flow;
    struct ring_stats ring;
    struct source_counts sources; /* every shard knows all of it */
    uint64_t turns, busy_us;      /* time spent in turns that did something */
    uint64_t stalled_us;          /* long turns of a shard that spins in which nothing came: it had
                                     not its core, or worked for timers, disk or handshakes */
    tick_us uptime;
    uint32_t invariant_violations; /* messages without a next event, as the queue's watchman
                                      counts them; must be 0 */
    uint64_t handovers;            /* deliveries sent to another shard's connection */
    struct transfer_ways ways;
    struct transfer_latencies latencies;
    struct stamps_view stamps;
    struct relay_copied copied;
};

struct shard_queue_row { /* one recipient of one queued message */
    struct message_id id;
    wall_us arrived, expires, next_try;
    uint64_t size;
    uint32_t attempts, shard;
    uint8_t state; /* enum recipient_state */
    uint8_t class;
    uint8_t way; /* enum way */
    bool is_active, is_ready, is_held;
    uint32_t order; /* that holds it */
    char sender[256], recipient[256], domain[256], last_reply[256], user[256];
    char site[64], source[64], class_name[QMGR_CLASS_NAME_SIZE];
};

/* Rows of one look: what a shard does for an operator in one turn. */
#define SHARD_QUERY_ROWS_MAX 256u
#define SHARD_QUERY_ACTS_MAX 64u /* recipients that an order is carried out on in one look */

struct shard_query {
    enum shard_query_kind kind;
    struct message_id id;                  /* SHOW */
    const struct qmgr_filter *filter;      /* LIST, ACT */
    enum qmgr_group_by by;                 /* SUMMARY */
    struct qmgr_order *order;              /* ACT */
    struct shard_cat *cat;                 /* CAT (control/shard_cat.h) */
    const struct shard_trace_order *trace; /* TRACE */
    bool is_dry_run;                       /* ACT: only count what matches */
    bool is_cancel;          /* ACT: a cancelled hold is released: others that stand hold on */
    bool is_end;             /* LIST, ACT: the asker has left: the walk ends */
    struct qmgr_acted acted; /* ACT: added to */
    bool is_stuck;           /* ACT: what was done cannot be written to a spool now */
    uint64_t cursor;         /* all but STATUS: 0 at first; in and out; UINT64_MAX at the end */
    struct shard_queue_row *rows; /* LIST, SHOW: filled up to row_max */
    struct qmgr_group *groups;    /* SUMMARY: as rows */
    uint32_t row_max, row_count;  /* row_max: at most SHARD_QUERY_ROWS_MAX */
    enum err err;                 /* LIST, SHOW, ACT: the scan was given up for others */
    tick_us behind_since; /* ACT: when records were first waited for; 0: they are not behind */
    bool is_waiting;      /* LIST, SHOW, ACT: out: nothing comes before a disk has answered.
                             The shard replies when it has. */
    struct shard_status *status;                                       /* STATUS: filled */
    void (*look)(struct shard_query *query, struct flow_plane *plane); /* PLANE */
    void (*visit)(struct shard_query *query, struct transfer *transfer, tick_us now); /* TRANSFER */
    void (*visit_quota)(struct shard_query *query, struct quota_set *quotas,
                        tick_us now); /* QUOTA */
    void (*visit_server)(struct shard_query *query, struct server *server,
                         tick_us now); /* SERVER */
    void *found;                       /* PLANE, TRANSFER, QUOTA, SERVER: the function's */
};

/** Answer a query now: on the shard's own thread, or between turns. */
void shard_query_run(struct shard *shard, struct shard_query *query);
/** CHECKs all of the queue; returns its messages without a next event. For tests: it takes as long
 * as the queue is. */
uint32_t shard_verify(const struct shard *shard);
/* Numbers that scenarios expect by name: "queue.messages", "records.delivery", ... */
void shard_get_status(const struct shard *shard, struct shard_status *ret_status);

#endif

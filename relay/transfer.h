/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_TRANSFER_H
#define RELAY_TRANSFER_H

#include "base/latency.h"
#include "dns/dns.h"
#include "queue/qmgr.h"
#include "queue/site.h"
#include "queue/spool.h"
#include "relay/client.h"
#include "relay/fate.h"
#include "relay/handover.h"
#include "relay/reaction.h"
#include "relay/record.h"
#include "relay/settings.h"
#include "relay/source.h"

/*
 * The hub of a shard: joins sessions, spool, queue, DNS, sites and outbound connections.
 *
 * Inbound: a session's transaction becomes a spool transaction; its end becomes a commit; the
 * commit's completion releases the session's reply slot and hands the message to the queue. Or, by
 * cut-through, the message goes to the queue at once, and what becomes of it releases the slot.
 * Outbound: a line of the queue that has something due is resolved (route, MX), its site is found,
 * a connection is had (a kept one, or a slot), deliveries are taken and given to the client;
 * results settle recipients; what failed for good gets its DSN in the same commit.
 */
struct transfer;
struct transfer_intake; /* one inbound message being received */

struct transfer_options {
    uint32_t shard;
    struct flow_plane *plane;
    struct spool *spool;
    struct dns *dns;
    struct rng *rng;
    struct record_sink records;
    struct qmgr_options queue;
    struct site_options sites;
    uint32_t connection_count_max; /* outbound, of this shard */
    void *server;                  /* passed to on_commit */
    /* To the transfer of another shard (its transfer_on_handover()); `server` is the context. */
    void (*send_handover)(void *server, uint32_t to_shard, const struct handover_message *message);
    /* The end of data has its fate. `user` as given to transfer_end(). */
    void (*on_commit)(void *server, uint64_t user, const struct message_fate *fate);
    /* Would its client hear a refusal? NULL: always. */
    bool (*is_heard)(void *server, uint64_t user);
    struct trace *trace;   /* as in client_options */
    struct stamps *stamps; /* likewise */
};

struct transfer *transfer_new(const struct transfer_options *options,
                              const struct settings *settings, struct tick_now now);
void transfer_free(struct transfer *transfer);
void transfer_set_settings(struct transfer *transfer, const struct settings *settings);

/* ---- inbound: called by the server ---- */

struct transfer_offer {
    uint64_t size; /* as the client says; 0: it does not */
    uint32_t recipient_count;
    enum settings_delivery delivery;
    enum way reason; /* with `delivery` SPOOL: who says so; WAY_UNKNOWN: the listener */
};
/** False: one disk failure after another. Nothing can be begun until it has taken something. */
bool transfer_can_store(const struct transfer *transfer);
/** Begin a message. ERR_DISK_FULL, ERR_DISK_IO, ERR_LIMIT: answer 452 4.3.1 / 451 4.3.0. The id is
 * in *ret_id for `Received:`. */
enum err transfer_begin(struct transfer *transfer, const struct transfer_offer *offer,
                        struct tick_now now, struct transfer_intake **ret_intake,
                        struct message_id *ret_id) MUST_CHECK;
/** Body octets, in order, dot-unstuffed, our header fields first; `octets` is emptied. Errors: as
 * begin; abort then. */
enum err transfer_body(struct transfer *transfer, struct transfer_intake *intake,
                       struct buf_queue *octets) MUST_CHECK;
/** Memory is scarce: what messages that are being received have gathered goes to the disk, and is
 * not kept for the first attempt. TRANSFER_RELIEF_SLICE of them in each call; true: all have been,
 * and the next call begins anew. */
bool transfer_relieve(struct transfer *transfer);
#define TRANSFER_RELIEF_SLICE 32u
/** Octets of this intake that wait for the disk, or a measure of those that wait for the next hop:
 * the server stops reading above TRANSFER_PENDING_MAX, and goes on below half of it. */
uint64_t transfer_pending(const struct transfer_intake *intake);
#define TRANSFER_PENDING_MAX (1u << 20)
/** Enough has come for it to go on while it comes: transfer_stream_begin() is due. */
bool transfer_wants_stream(const struct transfer *transfer, const struct transfer_intake *intake);
/**
 * It goes on while it comes, if that can be; else the spool has it. `envelope`: as it will be at
 * the end, but for what only then is known (sizes, flags of the content); NULL: it cannot be said
 * yet, or, with a `reason`, it must not go like that. Errors: as transfer_body().
 */
enum err transfer_stream_begin(struct transfer *transfer, struct transfer_intake *intake,
                               struct envelope *envelope, enum way reason,
                               struct tick_now now) MUST_CHECK;
/** End of data: to the next hop, or to the spool. `envelope` (id filled in by transfer) is copied.
 * on_commit follows exactly once, never inside this call. Consumes the intake. */
void transfer_end(struct transfer *transfer, struct transfer_intake *intake,
                  struct envelope *envelope, uint64_t user, struct tick_now now);
/** A stamp: when its last octet was received; before transfer_end(). 0, as at first: unknown. */
void transfer_set_heard(struct transfer_intake *intake, uint64_t heard);
/** Refused, or the client is gone before the end of data. Consumes the intake. */
void transfer_abort(struct transfer *transfer, struct transfer_intake *intake);

/* ---- the shard's turn ---- */
void transfer_on_flow(struct transfer *transfer, const struct flow_event *event,
                      struct tick_now now); /* CLIENT_FLOW_USER_TAG */
void transfer_on_dns(struct transfer *transfer, uint64_t user,
                     struct tick_now now); /* dns wake() */
void transfer_on_site_message(struct transfer *transfer, const struct site_message *message,
                              struct tick_now now);
void transfer_on_handover(struct transfer *transfer, const struct handover_message *message,
                          struct tick_now now);
void transfer_run(struct transfer *transfer,
                  struct tick_now now); /* spool events, due lines, timers */
tick_us transfer_deadline(const struct transfer *transfer);
/** Recovered mail is coming, or all of it is here. Until then no notice is made: one that is owed
 * may be among what comes. */
void transfer_adopting(struct transfer *transfer, bool is_adopting);
/** Another process still delivers in our place: until it is not so, nothing goes out and no notice
 * is made. What comes in is stored. */
void transfer_set_waiting(struct transfer *transfer, bool is_waiting);
/** Recovered mail (adopted entries), one by one. */
void transfer_recovered(struct transfer *transfer, const struct spool_recovered *message,
                        struct tick_now now);
/** So many records are being written again, or wait for their writer, that no more mail should come
 * back for a moment. */
bool transfer_is_replaying(const struct transfer *transfer);
/** Stop new attempts; true when no attempt and no commit is in flight. */
bool transfer_drain(struct transfer *transfer, struct tick_now now);

/** True while some attempt or kept connection still uses the snapshot with this serial. */
bool transfer_uses_settings(const struct transfer *transfer, uint64_t serial);

/** The patterns of the present settings; NULL: none. */
const struct reaction_set *transfer_reactions(const struct transfer *transfer);
/** How often pattern `index` of these has matched here. */
struct reaction_stats transfer_reaction_stats(const struct transfer *transfer, uint32_t index);
/* How long things took. */
struct transfer_latencies {
    struct latency accept;   /* from the last octet of a message to its durable record */
    struct latency delivery; /* of one recipient: from the beginning of its message to the next
                                hop's 2xx */
    struct latency attempt;  /* from a delivery's turn to the end of its transaction */
};
const struct transfer_latencies *transfer_get_latencies(const struct transfer *transfer);
/* Messages by the way they went, and why; in doubt: of those under `patience`. */
struct transfer_ways {
#define X(symbol, name, meaning) uint64_t name;
#include "queue/way.def"
#undef X
    uint64_t unstored; /* messages whose clients wait now */
    uint64_t in_doubt;
};
const struct transfer_ways *transfer_get_ways(const struct transfer *transfer);
/** Octets of messages that this shard has copied, by reason. */
struct relay_copied transfer_get_copied(const struct transfer *transfer);
/** Deliveries sent to other shards' connections so far. */
uint64_t transfer_handovers(const struct transfer *transfer);

/* What people see of the hub, apart from queue, sites, sources and client. */
struct transfer_view {
    const struct qmgr_options *queue; /* retries */
    uint64_t read_memory, read_memory_max;
    uint32_t flows; /* of the plane, of all kinds */
};
struct transfer_view transfer_get_view(const struct transfer *transfer);
/* This shard's part of one site seen from one source. */
#define TRANSFER_VIEW_HOST_MAX 8u
struct transfer_site_view {
    uint32_t idle;   /* connections that are kept, and free */
    bool has_room;   /* client_has_room() */
    uint32_t unread; /* deliveries that wait for memory to read their bodies into */
    uint32_t away;   /* on other shards' connections */
    struct client_ahead_view ahead;
    uint32_t address_count, dead_count; /* of the hosts of mail that waits there: 0: none does */
    struct flow_address dead[TRANSFER_VIEW_HOST_MAX]; /* the first of these: tried last */
    tick_us dead_until[TRANSFER_VIEW_HOST_MAX];
};
/** What this shard sends there before its turn. */
struct client_ahead_view transfer_get_ahead(struct transfer *transfer, uint64_t key);
struct transfer_site_view transfer_get_site_view(struct transfer *transfer, uint64_t key);
struct qmgr *transfer_queue(struct transfer *transfer);
struct site_set *transfer_sites(struct transfer *transfer);
struct source_set *transfer_sources(struct transfer *transfer);
struct client *transfer_client(struct transfer *transfer);

#endif

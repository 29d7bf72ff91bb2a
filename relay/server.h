/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_SERVER_H
#define RELAY_SERVER_H

#include "dataplane/flow.h"
#include "relay/brake.h"
#include "relay/record.h"
#include "relay/settings.h"
#include "relay/smtpd.h"
#include "relay/trace.h"
#include "relay/transfer.h"

/*
 * Inbound SMTP of one shard: listeners, sessions, deadlines. The protocol engine is smtpd.c (no
 * I/O); server.c drives it over stream.h and hands bodies to the transfer. Sessions' reply slots
 * are ordered (smtpd_reply.c).
 */
#define SERVER_FLOW_USER_TAG  0x5352560000000000ull
#define SERVER_FLOW_USER_MASK 0xffffff0000000000ull

struct server;
struct server_options {
    uint32_t shard;
    struct flow_plane *plane;
    struct rng *rng;
    struct transfer *transfer;
    struct record_sink records;
    /* With so many flows in use on the plane, inbound and outbound, clients get a RST. 0: no bound.
     */
    uint32_t flow_max;
    uint32_t body_octets; /* of large messages that are asked for at a time: body_gate.h */
    bool is_auth_inline;  /* passwords are checked in the turn, not by a thread: simulations */
    uint32_t shard_count;
    void *context;
    /* To another shard: server_on_quota() there. */
    void (*send_quota)(void *context, uint32_t to_shard, const struct quota_message *message);
    struct trace *trace;   /* NULL: nobody can look on */
    struct stamps *stamps; /* NULL: nothing is timed */
};

struct server *server_new(const struct server_options *options, const struct settings *settings,
                          struct tick_now now);
void server_free(struct server *server);
/** Listen on every listener of the settings. Errors: ERR_SYSTEM with the index of the failing
 * listener in *ret_index. */
enum err server_listen(struct server *server, uint32_t *ret_index) MUST_CHECK;
/** New settings: listeners that are gone close, new ones open; sessions keep the old limits until
 * they end (they hold the old snapshot). */
void server_set_settings(struct server *server, const struct settings *settings,
                         struct tick_now now);
/** An eventfd that is readable when a verdict on a password has come; -1: there is none. */
int server_auth_eventfd(const struct server *server);
/** True while this snapshot is the present one, or some session still uses it. */
bool server_uses_settings(const struct server *server, uint64_t serial);

void server_on_flow(struct server *server, const struct flow_event *event, struct tick_now now);
/** The fate of an end of data (transfer's on_commit). */
void server_on_commit(struct server *server, uint64_t user, const struct message_fate *fate,
                      struct tick_now now);
/** Will what its client is told now be read, as far as we know? */
bool server_is_heard(const struct server *server, uint64_t user);
void server_on_quota(struct server *server, const struct quota_message *message,
                     struct tick_now now);
/** Of the users whose home this shard is. */
struct quota_set *server_quota(struct server *server);
void server_advance(struct server *server, struct tick_now now);
tick_us server_deadline(const struct server *server);
/** Stop accepting; sessions outside a transaction get 421 and end. True when none is left. */
bool server_drain(struct server *server, struct tick_now now);
/** The time for that is over: sessions in the middle of a transaction get 421, too. What was
 * committed, or is about to be, is answered first. */
void server_dismiss(struct server *server);
/** Take mail again. False: some listener could not be opened, the log says which. */
bool server_resume(struct server *server) MUST_CHECK;

struct server_stats {
    uint64_t sessions, refused, messages_accepted, messages_rejected, pools_unknown,
        recipients_accepted, recipients_rejected, octets, tls_sessions, timeouts, desynchronised,
        reliefs;
    uint64_t gate_waits;        /* large messages that waited for others to come first */
    uint64_t sign_waits;        /* messages that waited for their signatures until the next turn */
    struct relay_copied copied; /* `own` and `pieces` */
    uint32_t open;
    uint32_t closed; /* 1: no mail is taken */
    struct smtpd_dkim_stats dkim;
    struct smtpd_auth_stats auth;
    struct brake_stats brakes;
    struct quota_stats quota;
};
struct server_stats server_get_stats(const struct server *server);

/* ---- over a restart: server_keep.c ---- */

#define SERVER_KEEP_WINDOW                                                                         \
    TICK_S(600) /* windows of this length and more outlive any end of the process */

struct server_keep {
    tick_us window_min; /* shorter windows are not wanted */
    bool is_rest;       /* only what was counted since server_keep_part() */
};

/** Rows of some client networks. `*cursor` is 0 at first and UINT64_MAX at the end. CHECKs that
 * `row_max` is TALLY_KEPT_MAX at least. */
uint32_t server_keep_next(struct server *server, const struct server_keep *what, uint64_t *cursor,
                          struct tick_now now, struct kept_count *rows, uint32_t row_max);
/** Another process goes on with what was counted so far; what is counted from now on is kept apart,
 * until it is false again. */
void server_keep_part(struct server *server, bool is_parted, tick_us now);
/** What rows for this shard say, beside what was counted here. Senseless ones are passed over. */
void server_keep_restore(struct server *server, const struct kept_count *rows, uint32_t count,
                         struct tick_now now);
/** It is another one when long windows have counted. */
uint64_t server_keep_changes(const struct server *server);

#endif

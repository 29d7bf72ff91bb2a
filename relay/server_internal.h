/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_SERVER_INTERNAL_H
#define RELAY_SERVER_INTERNAL_H

#include <sys/queue.h>

#include "base/wheel.h"
#include "relay/body_gate.h"
#include "relay/server.h"
#include "relay/smtpd.h"
#include "relay/stream.h"

/*
 * Shared by the files of the server: server.c (turn and life), server_listener.c (sockets, new
 * sessions), server_session.c (runs), server_body.c (message octets), server_auth.c (logins),
 * server_trace.c (what viewers see).
 */
#define SERVER_LISTENER_USER    (SERVER_FLOW_USER_TAG | 1ull << 39)
#define SERVER_AUTH_USER        (SERVER_FLOW_USER_TAG | 1ull << 38)
#define SERVER_BODY_PENDING_MAX TRANSFER_PENDING_MAX
#define SERVER_RELIEF_HANDS     4u  /* bodies that a turn hands on because buffers are scarce */
#define SERVER_GATE_PASSES      32u /* large messages that a turn lets in which had to wait */

enum server_queue {
    SERVER_QUEUE_NONE,
    SERVER_QUEUE_GREETING,  /* accepted in this turn, no banner yet */
    SERVER_QUEUE_READY,     /* more to do in the next server_advance() */
    SERVER_QUEUE_STALLED,   /* waits until the spool has written */
    SERVER_QUEUE_GATE,      /* waits for the room that its large body takes */
    SERVER_QUEUE_HANDSHAKE, /* has octets of a TLS handshake, see server_advance() */
    SERVER_QUEUE_COUNT
};

struct server_session {
    struct smtpd_session smtpd;
    struct stream stream;
    struct transfer_intake *intake;
    struct buf_queue body; /* content that the transfer does not have yet */
    uint64_t taken;        /* octets in it that are charged to the flow */
    struct wheel_timer timer;
    LIST_ENTRY(server_session) link;        /* in server->sessions or ->free */
    TAILQ_ENTRY(server_session) ready_link; /* in the list that `queue` names */
    uint8_t queue;                          /* enum server_queue */
    uint8_t gate_place;                     /* of its body */
    uint16_t late_events;                   /* of the flow, while in SERVER_QUEUE_HANDSHAKE */
    uint32_t gate_since;                    /* in SERVER_QUEUE_GATE: a tick, modulo 2^32 */
    tick_us accepted;
    uint64_t heard; /* a stamp: when the last octets were received that it has looked at */
    uint32_t index;
    bool is_used;
    bool is_connected; /* false: the client is gone, the stream with it */
    bool has_left;     /* it hung up without a word: it may or may not hear what is still said */
};
_Static_assert(sizeof(struct server_session) <= 400, "all that an idle session costs here");
LIST_HEAD(server_session_list, server_session);
TAILQ_HEAD(server_session_queue, server_session);

struct server_auth; /* server_auth.c */

struct server_listener {
    struct flow flow; /* none: not listening */
    const struct settings_listener *settings;
};

/* Sessions that began with a snapshot. */
struct server_snapshot {
    uint64_t serial;
    uint32_t sessions; /* 0: the place is free */
};

struct server {
    struct server_options options;
    const struct settings *settings;
    struct server_snapshot snapshots[SETTINGS_SNAPSHOT_MAX];
    struct server_listener *listeners;
    uint32_t listener_count;
    struct smtpd_context smtpd;
    struct brake *brake;
    struct server_auth *auth;
    struct wheel wheel;
    struct body_gate gate;
    tick_us gate_patience; /* the first at the gate waits no longer; 0: who is there may pass */
    uint64_t body_mean;    /* octets of the last messages, the older the less */
    struct server_session **blocks;
    uint32_t block_count;
    struct server_session_list sessions, free;
    struct server_session_queue queues[SERVER_QUEUE_COUNT];
    uint64_t session_id;
    uint32_t sign_left;   /* of what signatures may cost in this turn */
    tick_us relief_at;    /* no round of server_bodies_relieve() begins before */
    uint32_t relief_next; /* session that it goes on with; UINT32_MAX: the transfer goes on; 0: no
                             round is on */
    struct server_stats stats;
    bool is_draining;
};

/* server_session.c */
/** NULL at the bound. */
struct server_session *server_session_new(struct server *server);
/** One more than the index of any. */
uint32_t server_session_end(const struct server *server);
/** The live session of this index, or NULL. */
struct server_session *server_session_at(const struct server *server, uint32_t index);
void server_session_free(struct server *server, struct server_session *session);
void server_session_enqueue(struct server *server, struct server_session *session,
                            enum server_queue queue);
void server_session_unqueue(struct server *server, struct server_session *session);
/** Do all that can be done, then settle. The session may be freed. */
void server_session_run(struct server *server, struct server_session *session, struct tick_now now);
/** Replies out, and close, free or wait. The session may be freed. */
void server_session_settle(struct server *server, struct server_session *session);
/** A client at a listener with implicit TLS: the handshake comes before the banner. */
void server_session_tls_first(struct server *server, struct server_session *session);
/** Its reply is out, and a run would find nothing to do: the next octets of its client make an
 * event. Then its deadline is seen to, as a run would. */
bool server_session_rests(struct server *server, struct server_session *session);
/** Write what the engine has said. */
void server_session_flush(struct server *server, struct server_session *session);

/* server_body.c */
/** SMTPD_NEED_BEGIN. False: it is large, and waits at the gate. */
bool server_message_begin(struct server *server, struct server_session *session,
                          struct tick_now now);
void server_message_end(struct server *server, struct server_session *session, struct tick_now now);
/** Make its signatures, if this turn has time for them. False: in the next one. */
bool server_message_sign(struct server *server, struct server_session *session,
                         struct tick_now now);
/** Its message has ended: its place is for others. */
void server_gate_pass(struct server *server, struct server_session *session);
/** Messages at the gate, as far as there is room. */
void server_gate_advance(struct server *server, struct tick_now now);
/** When the first of them goes on at the latest. */
tick_us server_gate_deadline(const struct server *server);
/** Read message octets. True when something was done. */
bool server_body_feed(struct server *server, struct server_session *session, struct tick_now now);
/** When buffers are nearly used up: what messages in the middle have gathered goes to the disk, a
 * slice each turn; until the round is over relief_next is not 0. */
void server_bodies_relieve(struct server *server, struct tick_now now);
/** Abort the intake unless the engine still wants its message. */
void server_intake_check(struct server *server, struct server_session *session);

/* server_auth.c */
/** Start-up; the server's options are set. */
struct server_auth *server_auth_new(struct server *server, uint64_t seed);
void server_auth_free(struct server_auth *auth);
/** Wrong passwords, by user and network. */
struct tally *server_auth_failures(const struct server_auth *auth);
/** There is something to do in the next turn. */
bool server_auth_is_due(const struct server_auth *auth);
/** SMTPD_NEED_AUTH: find out. */
void server_auth_begin(struct server *server, struct server_session *session, struct tick_now now);
/** An event of the connection to Dovecot. */
void server_auth_on_flow(struct server *server, const struct flow_event *event,
                         struct tick_now now);
/** Verdicts that have come. */
void server_auth_advance(struct server *server, struct tick_now now);
/** The verdict on a session's request, if it still waits for it. `user`: smtpd_auth_name(). */
void server_auth_tell(struct server *server, uint32_t index, uint64_t session_id, uint32_t number,
                      enum auth_verdict verdict, struct span user, struct tick_now now);

/* server_trace.c: only while trace_is_on() */
void server_trace_command(struct server *server, const struct server_session *session,
                          struct span octets, bool is_secret);
void server_trace_replies(struct server *server, const struct server_session *session,
                          struct span octets);
void server_trace_note(struct server *server, const struct server_session *session,
                       const char *text);
/** The message in hand is complete. */
void server_trace_body(struct server *server, const struct server_session *session);

/* server_listener.c */
void server_listeners_make(struct server *server, const struct settings *settings);
void server_listeners_close(struct server *server);
/** Those that are closed. False: not all, the log says which. */
bool server_listeners_open(struct server *server) MUST_CHECK;
void server_listener_on_flow(struct server *server, uint32_t index, struct tick_now now);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_CLIENT_INTERNAL_H
#define RELAY_CLIENT_INTERNAL_H

#include "base/arena.h"
#include "base/rng.h"
#include "base/wheel.h"
#include "relay/client.h"
#include "relay/smtpc.h"
#include "relay/stream.h"

/*
 * Shared by client.c (requests in, kept connections, timers), client_connection.c (one connection
 * and its engine), client_attempt.c (one request and its hosts), client_race.c (the families of a
 * host), client_follow.c (requests behind others), client_body.c, client_feed.c, client_trace.c
 * (what viewers see).
 */
#define CLIENT_BUCKETS       256u  /* of kept connections, by site */
#define CLIENT_CLEAR_ENTRIES 1024u /* remembered hosts whose TLS failed */
#define CLIENT_KNOWN_ENTRIES 16384u
#define CLIENT_AHEAD_ENTRIES 4096u      /* what sites make of being sent more than they answered */
#define CLIENT_CANCEL_TIME   TICK_S(10) /* for the reply to an end of data that was sent */
#define CLIENT_REASON_MAX    512u
#define CLIENT_BODY_WINDOW   (256u * 1024)

#define CLIENT_STATES                                                                              \
    X(FREE)                                                                                        \
    X(STARTING)   /* a request whose first step waits for client_advance() */                      \
    X(GONE)       /* reset by us: its slot waits until the peer must have seen it */               \
    X(FOLLOWING)  /* no connection: a request behind another's, on that one's */                   \
    X(ANSWERED)   /* likewise: one that is over, as far as the replies can be believed */          \
    X(CONNECTING) /* flow_connect() is under way */                                                \
    X(RACING)     /* likewise, beside another connection and for its request */                    \
    X(ACTIVE)     /* the engine speaks, with or without a request */                               \
    X(IDLE)       /* kept for the next request */                                                  \
    X(QUITTING)   /* QUIT was sent: waiting for the peer's FIN */

enum client_state {
#define X(name) CLIENT_STATE_##name,
    CLIENT_STATES
#undef X
        CLIENT_STATE_COUNT
};

/* One request on its way through hosts and addresses. Reset as a whole. */
struct client_attempt {
    struct client_request request;
    const struct settings *settings; /* it began under: the route is theirs; borrowed like it */
    uint64_t serial;
    struct mx_host *hosts;
    uint32_t host_count, host_index, address_index;
    struct client_recipient_result *results; /* as request.recipients */
    struct smtpc_recipient *pending;         /* those without a final result, for the engine */
    uint32_t pending_count;
    uint32_t avoid;       /* extensions, on this address */
    bool has_fallen_back; /* one reconnection without an extension is all a request gets */
    bool is_reused;       /* on a kept connection that has not answered yet */
    bool has_connected, was_attempted, is_cancelled;
    bool has_followed;     /* it was begun behind another */
    bool is_bdat_ahead;    /* its body went before any reply */
    bool has_mail_right;   /* to say MAIL, unused */
    bool is_source_broken; /* see client_result */
    uint8_t families_connected, families_failed, families_broken; /* likewise */
    bool is_mail_out;               /* MAIL was said, with the right to it, and is not answered */
    struct smtpc_failure failure;   /* the last one; text unused */
    char reason[CLIENT_REASON_MAX]; /* its text, with the host's name */
    tick_us connect_started, connect_time, transmit_started;
    uint32_t body_index; /* slices handed to the connection */
    bool is_line_start;  /* the next octet of the body begins a line */
    uint64_t asked;      /* a stamp: when the next hop asked for the body; 0: not yet */
    bool is_prefix_out;  /* the envelope's prefix was handed to the connection */
};

struct client_connection {
    uint32_t index;
    enum client_state state;
    struct client_connection *next, *prev; /* free list; kept connections of a bucket */
    tick_us due;                           /* of what the state waits for; TICK_NEVER: nothing */
    /* Due times mostly move away, several a message: the timer is left where it is, and looks again
     * when it fires. */
    struct wheel_timer timer;
    tick_us step_deadline;
    uint32_t step; /* what step_deadline is for */
    uint64_t site; /* whose slot this is */
    uint64_t key;  /* digest of TLS level, verified identity, AUTH, source */
    char host[MX_NAME_MAX];
    struct flow_address peer, source;
    uint64_t id;
    tick_us opened; /* when we began to connect */
    uint32_t use_count, use_max;
    uint32_t mails_late; /* MAILs that were said here, without an answer: told when it is gone */
    bool has_request;
    bool has_led;         /* one that followed another here was answered to its end */
    bool is_stranger;     /* nobody has answered at its site lately, nor here yet */
    struct stream stream; /* while CONNECTING and later */
    struct smtpc smtpc;
    struct client_connection *rival;  /* CONNECTING: who races; NULL: nobody */
    struct client_connection *leader; /* RACING: against whom; FOLLOWING, ANSWERED: on whose */
    struct client_connection *follower, *follower_last; /* ACTIVE: who follows; by `next` */
    struct client_connection *answered, *answered_last; /* ACTIVE: likewise, ANSWERED before this */
    uint32_t answered_count;
    bool has_room;                  /* ACTIVE: is in client->rooms */
    struct smtpc_transaction ahead; /* FOLLOWING: as the leader's engine has it */
    struct arena arena;             /* what belongs to the attempt */
    struct client_attempt attempt;
};

struct client_clear_entry {
    struct flow_address address;
    tick_us until;
};

/* A site where a server greeted us. */
struct client_known {
    uint64_t site;
    tick_us until;
};

/* What a site made of being sent more than it had answered. */
struct client_ahead {
    uint64_t site;
    tick_us shy_until;   /* no request follows another there, and nothing goes ahead of replies */
    uint32_t bdat_count; /* messages that it took by BDAT since */
};

struct client {
    struct client_options options;
    const struct settings *settings;
    struct client_stats stats;
    tick_us now; /* of the last call that said it */
    uint64_t connection_id;
    struct wheel wheel;
    struct client_connection *connections, *free; /* free: NULL when all are taken */
    uint32_t fresh; /* connections from here on were never touched, nor their memory */
    struct client_connection *idle[CLIENT_BUCKETS];
    struct client_clear_entry clear[CLIENT_CLEAR_ENTRIES];
    struct client_known known[CLIENT_KNOWN_ENTRIES];
    struct client_ahead ahead[CLIENT_AHEAD_ENTRIES];
    struct client_connection *rooms[CLIENT_BUCKETS]; /* connections that take a request more */
    struct client_connection *found;                 /* IDLE: client_has_idle() said yes; or NULL */
    uint64_t found_for;                              /* to whom */
    uint32_t strangers;                              /* connections with is_stranger */
    uint32_t followers;                              /* objects FOLLOWING and ANSWERED */
    struct client_feed *news;                        /* that have more for their connections */
    uint8_t room[SMTPC_ROOM_MIN];                    /* commands on their way into a connection */
};

/* client.c */
void client_enter(struct client *client, struct client_connection *connection,
                  enum client_state next);
/** The first that is free is so no more; CHECKs that there is one. */
struct client_connection *client_pop(struct client *client);
/** A free connection, STARTING; CHECKs that there is one. */
struct client_connection *client_take(struct client *client);
/** A server greeted us on this connection: its site is no stranger any more. */
void client_site_answered(struct client *client, struct client_connection *connection);
/** The connection is gone and its slot with it: on_closed(). */
void client_release(struct client *client, struct client_connection *connection);
/** The object is free, whatever it was for. */
void client_put(struct client *client, struct client_connection *connection);
/** Is the connection one for this request? */
bool client_fits(const struct client_connection *connection, const struct client_request *request,
                 uint64_t key);
struct client_connection **client_bucket(struct client_connection **buckets, uint64_t site);
/* A list of connections by `next` and `prev`. */
void client_link(struct client_connection **head, struct client_connection *connection);
void client_unlink(struct client_connection **head, struct client_connection *connection);
uint64_t client_key(const struct client_request *request);
bool client_is_clear_host(const struct client *client, const struct flow_address *address);
void client_clear_host_remember(struct client *client, const struct flow_address *address);

/* client_connection.c */
/** Begin to connect to `connection->peer`. */
enum err client_connection_open(struct client *client, struct client_connection *connection);
/** Begin to connect for this attempt; the state and the timer for step_deadline are the caller's.
 */
enum err client_connection_dial(struct client *client, struct client_connection *connection,
                                const struct client_attempt *attempt);
/** The flow is there: the engine begins. */
void client_connection_connected(struct client *client, struct client_connection *connection);
/** Reset a connection; its slot is free when the peer must have noticed. */
void client_connection_drop(struct client *client, struct client_connection *connection);
/** Put the request to a kept connection. */
void client_connection_reuse(struct client *client, struct client_connection *connection);
/** Read, speak, write, until there is nothing left to do now. */
void client_connection_drive(struct client *client, struct client_connection *connection);
void client_connection_on_flow(struct client *client, struct client_connection *connection,
                               const struct flow_event *event);
/** Have client_connection_on_timer() called then, unless another state is entered before. */
void client_connection_set_due(struct client *client, struct client_connection *connection,
                               tick_us due);
void client_connection_on_timer(struct client *client, struct client_connection *connection);
/** There is more of its body. */
void client_connection_on_feed(struct client *client, struct client_connection *connection);
/** Say QUIT where that can be said, and wait for the FIN; else reset. Afterwards the attempt goes
 * on, or the slot is free. */
void client_connection_leave(struct client *client, struct client_connection *connection);
void client_connection_arm(struct client *client, struct client_connection *connection,
                           tick_us deadline);

/* client_attempt.c */
/** Errors: ERR_LIMIT: no memory; the arena is reset. */
enum err client_attempt_init(struct client *client, struct client_connection *connection,
                             const struct client_request *request) MUST_CHECK;
/** Go to the present address of the present host, or the next that can be tried; without one the
 * attempt ends. `may_end` false: it ends in client_advance(). */
void client_attempt_connect(struct client *client, struct client_connection *connection,
                            bool may_end);
/** May hosts be tried over this family? */
bool client_attempt_has_family(const struct client_attempt *attempt, enum flow_family family);
/** No connection over this family came about: for `err`, or because another was there first. */
void client_attempt_family_failed(struct client_attempt *attempt, enum flow_family family,
                                  enum err err);
/** connect() failed. */
void client_attempt_unreachable(struct client *client, struct client_connection *connection,
                                enum err err);
/** The engine, or the connection under it, failed: what next? */
void client_attempt_failed(struct client *client, struct client_connection *connection);
/** Results are complete: tell. The connection is the caller's again. */
void client_attempt_finish(struct client *client, struct client_connection *connection);
/** Let go of the body that was still coming, if there is one. */
void client_attempt_feed_release(struct client_attempt *attempt);
/** A right to say MAIL that is out is over: the answer is in. */
void client_attempt_mail_over(struct client *client, struct client_connection *connection);
/** The answer will never come. MAIL is on its way on `carrier`, and counts when the peer has seen
 * the end of that, as its slot does. */
void client_attempt_mail_lost(struct client_connection *connection,
                              struct client_connection *carrier);
/** The engine is ready: begin the transaction. Returns its first event. */
enum smtpc_event client_attempt_begin(struct client *client, struct client_connection *connection);
/** Likewise behind the leader's last. */
enum smtpc_event client_attempt_follow(struct client *client, struct client_connection *follower);
/** Its text, as what ended the attempt. */
void client_attempt_blame(struct client_connection *connection,
                          const struct smtpc_failure *failure);

/* client_race.c */
/** When the timer of a connection that has begun to connect should ring: time for a rival, or
 * step_deadline. */
tick_us client_race_time(const struct client *client, struct client_connection *connection);
/** It is time for a rival, if there is an address and a slot for it. */
void client_race_begin(struct client *client, struct client_connection *leader);
/** Let go of the rival, if there is one. */
void client_race_end(struct client *client, struct client_connection *leader);
/** connect() failed, the flow is gone. True: the rival has the request now, the leader is free. */
bool client_race_leader_failed(struct client *client, struct client_connection *leader);
void client_race_on_flow(struct client *client, struct client_connection *rival, uint32_t events);
void client_race_on_timer(struct client *client, struct client_connection *rival);

/* client_follow.c */
/** Ahead of replies, if this one may: how the engine is asked. */
bool client_may_go_ahead(const struct client *client, struct client_connection *connection);
/** The state of the engine has changed: may another request follow now? */
void client_follow_look(struct client *client, struct client_connection *connection);
/** Out of client->rooms. */
void client_follow_close(struct client *client, struct client_connection *connection);
/** Replies match commands up to here: what was heard is true, and is told. Or they do not: all of
 * it is in doubt. */
void client_follow_settle(struct client *client, struct client_connection *connection,
                          bool do_match);
/** The engine goes on with the transaction behind the one that is over: so does the connection. */
void client_follow_promote(struct client *client, struct client_connection *connection);
/** The engine ends, and with it whatever followed. */
void client_follow_end(struct client *client, struct client_connection *connection);
void client_follow_on_timer(struct client *client, struct client_connection *follower);
/** An attempt that followed, or went ahead, has failed: is it the site that cannot do that? */
void client_follow_judge(struct client *client, const struct client_connection *connection,
                         const struct smtpc_failure *failure);
/** A message was taken by BDAT, all in its turn. */
void client_follow_learn(struct client *client, const struct client_connection *connection);

/* client_trace.c: only while trace_is_on() */
void client_trace_commands(struct client *client, const struct client_connection *connection,
                           struct span octets, bool is_secret);
/** What the engine has of an unfinished reply line: how many octets. */
uint32_t client_trace_unfinished(const struct client_connection *connection,
                                 uint8_t ret_octets[SMTP_REPLY_LINE_KEPT]);
/** `octets` were fed, behind `unfinished`. */
void client_trace_replies(struct client *client, const struct client_connection *connection,
                          struct span unfinished, struct span octets);
void client_trace_note(struct client *client, const struct client_connection *connection,
                       const char *format, ...) __attribute__((format(printf, 3, 4)));
void client_trace_connected(struct client *client, const struct client_connection *connection);

/* client_body.c */
/** Hand over as much of the body as the connection should hold, at last the end of data. Errors:
 * ERR_MEMORY. */
enum err client_body_send(struct client *client, struct client_connection *connection) MUST_CHECK;
/** Append a slice, with another dot before each line that begins with one. Errors: ERR_MEMORY. */
enum err client_body_stuff(struct client *client, struct client_connection *connection,
                           const struct buf_slice *slice, struct buf_queue *queue) MUST_CHECK;

/** The command for the body of this attempt was written: the body behind it, as a whole. Errors:
 * ERR_MEMORY. */
enum err client_body_go_ahead(struct client *client, struct client_attempt *attempt,
                              struct client_connection *connection) MUST_CHECK;

/* client_feed.c */
/** As client_body_send(), of what has come so far. */
enum err client_feed_send(struct client *client, struct client_connection *connection) MUST_CHECK;
/** A feed with news, and the reference that the list had; NULL: there is none. */
struct client_feed *client_feed_next(struct client *client);

#endif

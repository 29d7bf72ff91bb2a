/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_SMTPD_H
#define RELAY_SMTPD_H

#include "base/arena.h"
#include "dataplane/flow.h"
#include "queue/envelope.h"
#include "relay/auth.h"
#include "relay/author.h"
#include "relay/brake.h"
#include "relay/dkim.h"
#include "relay/fate.h"
#include "relay/header_reader.h"
#include "relay/quota.h"
#include "relay/record.h"
#include "relay/settings.h"
#include "relay/smtp_body.h"

/*
 * The server side of SMTP as an engine: octets and the time go in, octets come out, and
 * smtpd_need() says what the engine wants next. It knows no socket, no disk and no clock; server.c
 * drives it over stream.h and transfer.h, tests drive it from arrays.
 *
 * Driving: look at smtpd_need() and do that, until it is COMMAND or BODY without octets at hand, or
 * COMMIT; then send what is in context->output. When smtpd_is_storing() turns false with an intake
 * open, the intake is to be aborted.
 *
 * Reply slots: a message whose end of data was read and whose commit is under way is *pending*. All
 * replies made meanwhile are held behind it, in order, and go out when smtpd_committed() was called
 * for it and for all before it.
 *
 *   state        meaning                                      legal next states
 */
#define SMTPD_STATES                                                                               \
    X(CONNECTED, "no banner yet")                                                                  \
    X(GREETED, "banner sent, no EHLO yet")                                                         \
    X(READY, "EHLO done, no transaction")                                                          \
    X(MAIL, "sender accepted")                                                                     \
    X(RCPT, "at least one recipient accepted")                                                     \
    X(DATA, "message octets follow, up to CRLF.CRLF")                                              \
    X(CHUNKS, "at least one BDAT was accepted or failed")                                          \
    X(CLOSING, "QUIT answered, or a fatal error")

enum smtpd_state {
#define X(name, text) SMTPD_##name,
    SMTPD_STATES
#undef X
        SMTPD_STATE_COUNT
};

enum smtpd_reply {
#define X(symbol, code, line) SMTPD_REPLY_##symbol,
#include "relay/smtpd_reply.def"
#undef X
    SMTPD_REPLY_COUNT
};

enum smtpd_need {
    SMTPD_NEED_GREETING, /* smtpd_greet() */
    SMTPD_NEED_COMMAND,  /* smtpd_feed_command() */
    SMTPD_NEED_BODY,     /* smtpd_feed_body() */
    SMTPD_NEED_BEGIN,    /* transfer_begin(), then smtpd_begun() */
    SMTPD_NEED_SIGN,     /* smtpd_sign(), now or as soon as there is time for smtpd_sign_cost() */
    SMTPD_NEED_END,      /* hand on the rest of the body, then smtpd_end() and transfer_end() */
    SMTPD_NEED_TLS,      /* send the output, start TLS, then smtpd_tls_started() */
    SMTPD_NEED_AUTH,     /* smtpd_auth_take(), and find out */
    SMTPD_NEED_VERDICT,  /* nothing before smtpd_auth_verdict() */
    SMTPD_NEED_QUOTA,    /* nothing before the quota set wakes the session */
    SMTPD_NEED_COMMIT,   /* nothing before the next smtpd_committed() */
    SMTPD_NEED_CLOSE,    /* send the output and close */
};

#define SMTPD_OUTPUT_SIZE 65536u
/* Upper bound of command_line_size_max: what a stream gives in one piece. */
#define SMTPD_LINE_SIZE_MAX FLOW_PULL_MAX
#define SMTPD_HEARD_MAX     16u /* stamps: further ones are not kept */
/* Held replies of one session; beyond it no command is read before a commit. */
#define SMTPD_HELD_MAX 8192u

/* Messages of clients that some rule is for, by what became of them, and signatures made. */
struct smtpd_dkim_stats {
    uint64_t messages, signatures, unmatched, malformed, oversized, failed;
};

/* Logins, by their verdict. */
struct smtpd_auth_stats {
    uint64_t accepted, rejected, unavailable, locked;
    uint64_t messages_refused, recipients_refused; /* beyond what a user may send */
    uint64_t messages_held;                        /* taken although they were */
};

struct smtpd_auth; /* smtpd_auth.c */

/* A transaction from MAIL to the reply to its end of data; pending ones wait in their session's
 * list. Pooled in the context. */
struct smtpd_transaction {
    struct smtpd_transaction *next;
    struct arena arena;

    /* From here on reset as a whole. */
    struct envelope envelope;
    uint32_t recipient_capacity, encoded_size; /* at most, of the envelope */
    struct smtp_body body;
    struct smtp_header header;
    uint64_t content_size;  /* of the client's content */
    uint32_t received_size; /* of our own header field in front of it */
    tick_us deadline;
    uint16_t failure; /* enum smtpd_reply: the message is refused with it; 0: it is good so far */
    bool is_begun;    /* smtpd_begun() said yes */
    bool is_complete; /* the end of data was read and the message is good */
    bool is_utf8_address;
    bool is_pool_chosen;         /* by smtpd_early() */
    bool is_sign_due;            /* complete but for the signatures */
    struct dkim_signer *dkim;    /* NULL: not to be signed */
    struct author_check *author; /* from the arena; NULL: it may bear any name */

    /* The reply slot. */
    uint16_t sequence;
    bool is_committed;
    uint16_t commit_code;
    enum way way;
    uint64_t heard; /* as message_fate's */
    char *refusal;  /* of the next hop, as a line; from the arena; NULL: none */
    struct message_id commit_id;
    char id_text[MESSAGE_ID_TEXT_SIZE]; /* of commit_id, once it is begun */
    char *held;                         /* replies behind this one; from the arena */
    uint32_t held_size, held_capacity;

    struct header_reader fields; /* last: large, and begun with the body */
};

/* Shared by the sessions of one shard. */
struct smtpd_context {
    uint32_t shard;
    struct record_sink records;
    struct brake *brake;             /* NULL: no client has one */
    struct quota_set *quota;         /* of users; NULL: nobody has one */
    const struct settings *settings; /* in force; NULL: the sessions' own are */
    bool has_scram;                  /* somebody can make the exchange */
    bool is_storage_lost;            /* no mail is begun: 421 */
    struct smtpd_transaction *free;
    uint32_t free_count;
    uint8_t *output; /* what must be sent to the session in hand; the driver empties it */
    uint32_t output_size;
    /* Of the next hops' replies behind those in the output; the driver empties it likewise. */
    uint64_t heard[SMTPD_HEARD_MAX];
    uint32_t heard_count;
    int64_t date_second; /* `date` is the text of this second */
    char date[40];
    uint64_t messages_accepted, messages_rejected, recipients_accepted, recipients_rejected;
    struct smtpd_dkim_stats dkim;
    struct smtpd_auth_stats auth;
    uint64_t pools_unknown;              /* messages that asked for a pool that there is not */
    uint64_t replies[SMTPD_REPLY_COUNT]; /* by row */
};

struct smtpd_session {
    uint8_t state; /* enum smtpd_state; smtpd_enter() is the only writer */
    bool is_esmtp, is_tls, is_relay_client;
    bool is_tls_wanted;    /* STARTTLS was answered with 220 */
    bool is_skipping_line; /* the rest of an over-long command line */
    bool is_braked;        /* its network had its share of errors */
    /* What this transaction attempt has seen; reset with the transaction. */
    struct {
        bool is_mail_seen, is_smtputf8;
        uint32_t rcpt_count; /* RCPT commands, refused ones as well */
    } attempt;
    /* The BDAT chunk in hand. */
    struct {
        uint64_t left;
        bool is_active, is_last;
        uint16_t refusal; /* enum smtpd_reply, said when the chunk is swallowed; 0: content */
    } chunk;

    const struct settings *settings;
    const struct settings_listener *listener;
    struct flow_address peer, local;
    struct brake_client *brake; /* borrowed; NULL: not braked */
    char *hello_name;           /* heap; NULL before EHLO */
    char *client_text;          /* likewise; the same with the address, NULL before a message */
    const char *tls_version;
    uint64_t id;
    struct smtpd_auth *auth; /* NULL: the client has not tried to log in */

    struct smtpd_transaction *transaction; /* NULL outside */
    struct smtpd_transaction *pending, *pending_last;
    uint32_t pending_count, held_size;
    uint16_t sequence;

    uint32_t error_count, junk_count, message_count, skipped_size;
    uint64_t discard_left; /* octets of refused messages that may still be read */
    tick_us deadline;      /* of the session */
    tick_us phase_deadline;
};

void smtpd_context_init(struct smtpd_context *context, uint32_t shard, struct record_sink records);
/** No session left. */
void smtpd_context_fini(struct smtpd_context *context);

struct smtpd_session_options {
    const struct settings *settings; /* and the listener in it: borrowed until smtpd_fini() */
    const struct settings_listener *listener;
    struct flow_address peer, local;
    struct brake_client *brake; /* the driver's until smtpd_fini() */
    uint64_t id;
    bool is_tls; /* from its first octet on */
};
void smtpd_init(struct smtpd_session *session, const struct smtpd_session_options *options,
                struct tick_now now);
/** The process ends: pending messages are not waited for. What the spool has of them decides. */
void smtpd_forget_pending(struct smtpd_context *context, struct smtpd_session *session);
/** Forget everything. Pending commits must be in. */
void smtpd_fini(struct smtpd_context *context, struct smtpd_session *session);

/** Send the banner; with has_early_octets refuse instead: the client did not wait for it. */
void smtpd_greet(struct smtpd_context *context, struct smtpd_session *session,
                 bool has_early_octets, struct tick_now now);
enum smtpd_need smtpd_need(const struct smtpd_session *session);

/**
 * Execute at most one command from the front of `octets`, which are all that have come, in one
 * piece, as far as the line limit goes.
 *
 * Errors: ERR_AGAIN: nothing was done, there is no whole line yet or SMTPD_NEED_QUOTA; *ret_used
 *         octets are done with otherwise.
 */
enum err smtpd_feed_command(struct smtpd_context *context, struct smtpd_session *session,
                            struct span octets, struct tick_now now, uint32_t *ret_used) MUST_CHECK;

/* One step through message octets: as struct smtp_body_step, and whether content is to be kept. */
struct smtpd_body_step {
    uint32_t pass, skip;
    struct span insert;
    bool is_stored;   /* false: pass octets are to be dropped as well */
    bool is_borrowed; /* `insert` is good until the next step only */
};
struct smtpd_body_step smtpd_feed_body(struct smtpd_context *context, struct smtpd_session *session,
                                       struct span octets, struct tick_now now);
/** SMTPD_NEED_BEGIN was done with this result. Returns the header field to put first; empty when
 * the message was refused. Borrowed until the next call on this context. */
struct span smtpd_begun(struct smtpd_context *context, struct smtpd_session *session, enum err err,
                        struct message_id id, struct tick_now now);
/** Storing failed, at the latest at SMTPD_NEED_END: read the message to its end and refuse it. */
void smtpd_fail(struct smtpd_context *context, struct smtpd_session *session, enum err err,
                struct tick_now now);
/** The open message is (still) to be kept. */
bool smtpd_is_storing(const struct smtpd_session *session);
/**
 * The envelope of a message that is still coming, to go on with what has come of it. Its sizes are
 * what the client says or has sent, its flags those of the content so far.
 *
 * Ownership: borrows from the transaction.
 * Returns:   false: not yet, or, with a reason, never.
 */
bool smtpd_early(struct smtpd_context *context, struct smtpd_session *session,
                 struct envelope *ret_envelope, enum way *ret_reason);
/** What smtpd_sign() will cost, see dkim_signer_cost(). */
uint32_t smtpd_sign_cost(const struct smtpd_session *session);
/** SMTPD_NEED_SIGN: make the signatures. If that fails, the message is refused for now. */
void smtpd_sign(struct smtpd_context *context, struct smtpd_session *session, struct tick_now now);
/** SMTPD_NEED_END: the message becomes pending. Returns its envelope, borrowed until committed;
 * *ret_sequence names it to smtpd_committed(). */
struct envelope *smtpd_end(struct smtpd_context *context, struct smtpd_session *session,
                           struct tick_now now, uint16_t *ret_sequence);
/** A pending message has its fate. Releases replies in order. */
void smtpd_committed(struct smtpd_context *context, struct smtpd_session *session,
                     uint16_t sequence, const struct message_fate *fate, struct tick_now now);
void smtpd_tls_started(struct smtpd_context *context, struct smtpd_session *session,
                       const char *tls_version, struct tick_now now);

/**
 * SMTPD_NEED_AUTH: who wants to log in. From now on the session waits for a verdict on *ret_number;
 * after auth.timeout it answers 454 by itself. Borrowed until the next call on this session.
 */
struct auth_request smtpd_auth_take(struct smtpd_session *session, struct tick_now now,
                                    uint32_t *ret_number);
/**
 * Before the verdict: who that is, where the client may have said it otherwise. Up to AUTH_NAME_MAX
 * octets; ignored as a verdict is.
 */
void smtpd_auth_name(struct smtpd_session *session, uint32_t number, struct span name);
/** SCRAM: what the server has said, in base64: it is the client's turn. Ignored as a verdict is. */
void smtpd_auth_challenge(struct smtpd_context *context, struct smtpd_session *session,
                          uint32_t number, struct span challenge, struct tick_now now);
/** Is this still the session's exchange? It may have been given up between challenges. */
bool smtpd_auth_goes_on(const struct smtpd_session *session, uint32_t number);
/** The verdict. One on a number that is not waited for any more is ignored. */
void smtpd_auth_verdict(struct smtpd_context *context, struct smtpd_session *session,
                        uint32_t number, enum auth_verdict verdict, struct tick_now now);
/** What was read, or is read next, is a password. */
bool smtpd_has_secrets(const struct smtpd_session *session);
/** Who is logged in; empty: nobody. */
struct span smtpd_user(const struct smtpd_session *session);

/** Time of the next smtpd_expire(). */
tick_us smtpd_deadline(const struct smtpd_session *session);
/** A deadline may have passed: 421 then. */
void smtpd_expire(struct smtpd_context *context, struct smtpd_session *session,
                  struct tick_now now);
/** End with a reply, now: shutdown, too many sessions. */
void smtpd_dismiss(struct smtpd_context *context, struct smtpd_session *session,
                   enum smtpd_reply reply);
/** The record of a client that was turned away at the door, without a session. */
void smtpd_record_refusal(struct smtpd_context *context, const struct flow_address *peer,
                          const struct flow_address *local, enum smtpd_reply reply,
                          struct tick_now now);
/** No transaction open and none pending. */
bool smtpd_is_idle(const struct smtpd_session *session);
/** The client is gone: drop the open transaction. Pending ones stay to be committed. */
void smtpd_hang_up(struct smtpd_context *context, struct smtpd_session *session);
const char *smtpd_state_name(enum smtpd_state state);
uint16_t smtpd_reply_code(enum smtpd_reply reply);
/** Without CRLF; static. */
struct span smtpd_reply_line(enum smtpd_reply reply);

#endif

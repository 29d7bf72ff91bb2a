/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_SMTPC_H
#define RELAY_SMTPC_H

#include "relay/client.h"
#include "relay/smtp_reply.h"

/*
 * The client's side of one SMTP connection, without I/O, clock or allocation: octets of the server
 * go in by smtpc_feed(), commands come out of smtpc_drain(), events tell the driver what only it
 * can do (TLS, the body, the end). The driver reads everything there is before it drains: octets
 * that stand in its receive buffer while no reply is due are the server's desynchronisation.
 *
 *     feed -> SMTPC_START_TLS  -> TLS handshake      -> smtpc_tls_done()
 *          -> SMTPC_READY      -> smtpc_begin(), keep idle, or smtpc_quit()
 *          -> SMTPC_SEND_BODY  -> drain, send the body -> smtpc_body_done()
 *          -> SMTPC_FINISHED   -> results are complete; look at smtpc_state() for what comes next
 *          -> SMTPC_FAILED     -> `failure` says why; the connection carries no more mail
 */
enum smtpc_extension {
    SMTPC_ESMTP = 1u << 0, /* to avoid it: say HELO */
    SMTPC_PIPELINING = 1u << 1,
    SMTPC_SIZE = 1u << 2,
    SMTPC_8BITMIME = 1u << 3,
    SMTPC_SMTPUTF8 = 1u << 4,
    SMTPC_CHUNKING = 1u << 5,
    SMTPC_STARTTLS = 1u << 6,
    SMTPC_AUTH_PLAIN = 1u << 7,
    SMTPC_AUTH_LOGIN = 1u << 8,
    SMTPC_DSN = 1u << 9,
};

#define SMTPC_STATES                                                                               \
    X(GREETING)  /* waiting for 220 */                                                             \
    X(EHLO)      /* EHLO to be sent or answered */                                                 \
    X(HELO)      /* HELO likewise, after EHLO was refused or is to be avoided */                   \
    X(STARTTLS)  /* STARTTLS likewise */                                                           \
    X(HANDSHAKE) /* the driver does TLS */                                                         \
    X(AUTH)      /* AUTH likewise */                                                               \
    X(READY)     /* no transaction; nothing is due from the server */                              \
    X(ENVELOPE)  /* MAIL, RCPT, DATA on their way or being answered */                             \
    X(BODY)      /* the driver sends the body */                                                   \
    X(END)       /* the end of the body is with the flow, its replies are not all in */            \
    X(RSET)      /* RSET to be sent or answered */                                                 \
    X(QUIT)      /* QUIT to be sent, then nothing the server says matters */                       \
    X(FAILED)    /* of no more use */

enum smtpc_state {
#define X(name) SMTPC_STATE_##name,
    SMTPC_STATES
#undef X
        SMTPC_STATE_COUNT
};

enum smtpc_event {
    SMTPC_MORE, /* nothing for the driver to do but feed and drain */
    SMTPC_START_TLS,
    SMTPC_READY,
    SMTPC_SEND_BODY,
    SMTPC_FINISHED,
    SMTPC_FAILED,
};

struct smtpc_options {
    const char *hello_name; /* at most 255 octets */
    enum settings_tls_level tls;
    bool has_tls; /* the driver has a TLS context */
    bool use_bdat;
    bool is_lmtp; /* RFC 2033: LHLO, and a reply for each recipient behind the end of the body */
    enum settings_eight_bit eight_bit;
    const struct settings_auth *auth; /* NULL: none; used under TLS only */
    uint32_t avoid;                   /* enum smtpc_extension: not to be used even where offered */
};

struct smtpc_recipient {
    struct span address;
    struct span orcpt; /* as in the envelope */
    uint8_t notify;
    struct client_recipient_result *result; /* state DUE at the start */
    bool is_accepted;
};

struct smtpc_transaction {
    const struct envelope *envelope;
    uint64_t body_size;
    struct smtpc_recipient *recipients;
    uint32_t recipient_count;
    struct arena *arena; /* texts of refusals */
    bool is_alone;       /* lock-step, whatever the server offers */
    bool is_ahead;       /* the body may go before a reply is in: see smtpc_is_body_due() */
    bool is_open; /* the body is still coming: its size is what its sender says (0: nothing), and
                     after BDAT it goes in chunks */
    /* what follows is the engine's */
    struct smtpc_transaction *next; /* that was sent behind it */
    bool is_bdat, is_pipelined, is_mail_refused;
    bool is_out;                     /* its end was sent */
    bool is_reset_due, is_reset_out; /* RSET goes first; was sent, and is not answered */
    uint32_t sent, answered; /* commands: MAIL is 0, RCPTs 1 to n, DATA, or BDAT ahead, n + 1 */
    uint32_t accepted_count;
    uint32_t end_due;   /* replies to the end of the body that are not in */
    uint32_t end_index; /* LMTP: of the first recipient whose reply to the end is not in */
    bool is_end_refused;
    struct {
        uint64_t size;
        bool is_last;
    } chunk;             /* whose BDAT is to be drained */
    uint32_t chunks_due; /* that were sent and not answered, but for the last one */
};

struct smtpc_failure {
    enum smtp_scope scope;
    enum smtp_stage stage;
    uint16_t code; /* of the server's reply, 0 when there was none */
    uint8_t enhanced[3];
    struct span text;   /* printable; the server's or static */
    bool is_broken;     /* nothing more may be sent: lost, or the dialogue makes no sense */
    bool is_in_doubt;   /* the end of the body was sent and not answered; LMTP: not for all */
    bool is_of_session; /* the server takes no more messages over this connection */
    bool is_mismatch;   /* replies did not match commands: what was heard since both last did may be
                           others' */
};

struct smtpc {
    struct smtpc_options options;
    enum smtpc_state state;
    uint32_t extensions;  /* offered and not avoided */
    uint64_t size_max;    /* SIZE=, 0: no bound known */
    uint32_t replies_due; /* commands sent and not answered */
    uint8_t auth_step;
    bool is_tls, is_command_due, is_dot_due;
    bool has_surplus;   /* octets stand behind the reply being handled */
    bool is_farewell;   /* and they say that the server leaves */
    bool is_unfit_open; /* a transaction ended at once: its body must be known first, all of it */
    bool is_spoiled; /* commands were sent whose replies nobody waits for: the last transaction */
    struct smtpc_transaction transaction;
    struct smtpc_transaction *next_last; /* the last that was sent behind it; NULL: none was */
    uint32_t next_count;
    struct smtpc_failure failure;
    struct smtp_reply_parser parser;
};

#define SMTPC_CHUNKS_AHEAD_MAX 8u
#define SMTPC_NEXT_MAX         7u    /* transactions sent behind the one that is being answered */
#define SMTPC_ROOM_MIN         4096u /* one smtpc_drain() writes whole commands only */
#define SMTPC_ADDRESS_MAX      1000u

/** A connection was made: the greeting is due. `options` is copied; what it points to is borrowed
 * until the session is READY. */
void smtpc_init(struct smtpc *session, const struct smtpc_options *options);

/**
 * Consume octets of the server up to the next event.
 *
 * Spec:   RFC 5321, RFC 2033 (LMTP), RFC 2920 (pipelining), RFC 3030 (BDAT), RFC 1870, 3461,
 *         6152, 6531, 3207, 4954.
 * Cost:   no allocation but texts of refusals from the transaction's arena.
 * Errors: SMTPC_FAILED, `failure` filled in, for everything the server does wrong.
 */
enum smtpc_event smtpc_feed(struct smtpc *session, struct span input,
                            uint32_t *ret_consumed) MUST_CHECK;

/** Write whole commands into `room` (at least SMTPC_ROOM_MIN octets); returns how many octets. Call
 * again until it returns 0. */
uint32_t smtpc_drain(struct smtpc *session, struct span_mut room) MUST_CHECK;

/** The handshake that SMTPC_START_TLS asked for is done. */
void smtpc_tls_done(struct smtpc *session);

/**
 * Begin a transaction in state READY. The arrays are borrowed until FINISHED or FAILED, and
 * recipients whose address cannot be sent are removed from `recipients` at once, refused.
 * Returns SMTPC_MORE, or SMTPC_FINISHED when nothing is left to send: the server lacks what the
 * message needs, or no recipient is left.
 */
enum smtpc_event smtpc_begin(struct smtpc *session,
                             const struct smtpc_transaction *transaction) MUST_CHECK;

/** The last octet of the body, with the end of data, was appended to the connection. */
void smtpc_body_done(struct smtpc *session);

/**
 * May another transaction be sent behind the last one, before that is answered?
 *
 * Spec: RFC 2920 section 3.1: what must be the last command of a group is DATA, not the end of the
 *       data that it announced: behind that, as behind a chunk of BDAT, a group may begin.
 */
bool smtpc_may_follow(const struct smtpc *session);
/**
 * Send another transaction behind the last one; as smtpc_begin(). It is borrowed until it is the
 * session's own, which it is when the one before it is FINISHED: the state is ENVELOPE then.
 */
enum smtpc_event smtpc_follow(struct smtpc *session,
                              struct smtpc_transaction *transaction) MUST_CHECK;
/** The last transaction, which was sent behind another and whose end was not sent, is nobody's from
 * now on: the session ends with the one before it. */
void smtpc_unfollow(struct smtpc *session);
/** The command that announces the body was just drained, before any reply to it (`is_ahead`): its
 * octets are to follow at once, then smtpc_body_done(). */
bool smtpc_is_body_due(const struct smtpc *session);
/** May the server have taken the message, for all that we know? */
bool smtpc_is_in_doubt(const struct smtpc *session);

/** Of an open body: may one more chunk be sent before those sent are answered? */
bool smtpc_may_chunk(const struct smtpc *session);
/** Of an open body: a chunk of this size is next. Drain its command, append its octets to the
 * connection; behind the last chunk say smtpc_body_done(). */
void smtpc_chunk(struct smtpc *session, uint64_t size, bool is_last);

/** Leave: QUIT is drained next. Only when smtpc_can_quit(). */
void smtpc_quit(struct smtpc *session);
bool smtpc_can_quit(const struct smtpc *session);

/** The connection is lost, a deadline passed, or the driver gives up: state FAILED, scope HOST.
 * `text` is static or outlives the failure. */
void smtpc_lost(struct smtpc *session, const char *text);
/** Octets stand in the receive buffer where the server has nothing to say. */
void smtpc_desynchronised(struct smtpc *session);

/** Where in the dialogue the session is: what deadline binds and what a failure is about. */
enum smtp_stage smtpc_stage(const struct smtpc *session);

#endif

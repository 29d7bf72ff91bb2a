/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_SMTPD_INTERNAL_H
#define RELAY_SMTPD_INTERNAL_H

#include "relay/smtp_address.h"
#include "relay/smtpd.h"

/*
 * Shared by the files of the engine: smtpd.c (states, lines, dispatch, deadlines), smtpd_command.c
 * (EHLO and the small commands), smtpd_mail.c (MAIL, RCPT), smtpd_body.c (DATA, BDAT, content),
 * smtpd_pool.c (which pool a message is for), smtpd_auth.c (users who log in),
 * smtpd_submission.c (what users' mail is asked for and given), smtpd_reply.c (replies and their
 * order, records), smtpd_received.c (the trace field).
 */
#define SMTPD_TRACE_SIZE_MAX 1024u

/* One command line, taken apart. */
struct smtpd_line {
    struct span verb;
    struct span argument; /* without the space in front of it and spaces behind it */
    uint32_t behind;      /* octets that came with it and after it */
};

/* smtpd.c */
void smtpd_enter(struct smtpd_session *session, enum smtpd_state next);
/** The client's name, of malloc(): the session's from now on; NULL: none. */
void smtpd_hello_set(struct smtpd_session *session, char *name);
/** The one way out of a transaction, whatever its end: back to READY with nothing left of it. */
void smtpd_transaction_reset(struct smtpd_context *context, struct smtpd_session *session);
/** An empty transaction; NULL without memory. */
struct smtpd_transaction *smtpd_transaction_acquire(struct smtpd_context *context);
void smtpd_transaction_release(struct smtpd_context *context,
                               struct smtpd_transaction *transaction);

/* smtpd_command.c */
void smtpd_on_ehlo(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now);
void smtpd_on_helo(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now);
void smtpd_on_rset(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now);
void smtpd_on_noop(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now);
void smtpd_on_vrfy(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now);
void smtpd_on_help(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now);
void smtpd_on_quit(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now);
void smtpd_on_starttls(struct smtpd_context *context, struct smtpd_session *session,
                       const struct smtpd_line *line, struct tick_now now);
void smtpd_on_http(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now);

/* smtpd_auth.c; more in smtpd_auth.h */
/** A verdict did not come in its time. False: none is waited for. */
bool smtpd_auth_expire(struct smtpd_context *context, struct smtpd_session *session,
                       struct tick_now now);
/** Who wants to be logged in, or is; for records. */
struct span smtpd_auth_candidate(const struct smtpd_session *session);

/* smtpd_mail.c */
void smtpd_on_mail(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now);
void smtpd_on_rcpt(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now);

/* smtpd_body.c */
void smtpd_on_data(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now);
void smtpd_on_bdat(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now);

/* smtpd_pool.c */
/** The message is whole: its pool is in the envelope. SMTPD_REPLY_OK, or why it is refused. */
enum smtpd_reply smtpd_pool_choose(struct smtpd_context *context, struct smtpd_session *session);

/* smtpd_reply.c */
void smtpd_reply(struct smtpd_context *context, struct smtpd_session *session,
                 enum smtpd_reply reply);
/** Reply lines made by the caller, CRLF included; at most 2,048 octets. */
void smtpd_reply_text(struct smtpd_context *context, struct smtpd_session *session,
                      struct span text);
/** smtpd_reply(), and a REJECTION record that names the recipient, if any. `text`: instead of the
 * row's own behind code and enhanced code; NULL: the row's. */
void smtpd_reject(struct smtpd_context *context, struct smtpd_session *session,
                  enum smtpd_reply reply, struct span recipient, const char *text,
                  struct tick_now now);
/** Keep what the next hop said until it is this message's turn. */
void smtpd_refusal_keep(struct smtpd_transaction *transaction, const struct message_fate *fate);
/** A pending message's own reply, the replies held behind it, and its record. */
void smtpd_reply_release(struct smtpd_context *context, struct smtpd_session *session,
                         struct smtpd_transaction *transaction, struct tick_now now);

/* smtpd_received.c */
/** As in a Date field; borrowed until the next call. */
struct span smtpd_date(struct smtpd_context *context, wall_us time);
/** What the relay calls itself. */
struct span smtpd_own_name(const struct smtpd_session *session);
/* These: `ret_text` has room for SMTPD_TRACE_SIZE_MAX octets. */
/** "name [192.0.2.1]". */
struct span smtpd_client_format(struct smtpd_session *session, uint8_t *ret_text);
/** The trace field of RFC 5321 section 4.4 with CRLF; `client` is smtpd_client_format()'s. */
struct span smtpd_received_format(struct smtpd_context *context,
                                  const struct smtpd_session *session, struct span client,
                                  wall_us time, uint8_t *ret_text);

#endif

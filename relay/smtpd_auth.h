/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_SMTPD_AUTH_H
#define RELAY_SMTPD_AUTH_H

#include "relay/smtpd_internal.h"

/*
 * The AUTH command inside the session engine: what the other files of the engine ask of it. Its
 * driver's calls are in smtpd.h.
 */

void smtpd_on_auth(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now);
/** The client's next line belongs to an exchange: smtpd_auth_feed() takes it. */
bool smtpd_auth_is_asking(const struct smtpd_session *session);
/** As smtpd_feed_command(). */
enum err smtpd_auth_feed(struct smtpd_context *context, struct smtpd_session *session,
                         struct span octets, struct tick_now now, uint32_t *ret_used) MUST_CHECK;
/** What the driver owes an exchange; SMTPD_NEED_COMMAND: nothing. */
enum smtpd_need smtpd_auth_need(const struct smtpd_session *session);
/** For EHLO: "AUTH ..." as it is offered now; empty when it is not. */
struct span smtpd_auth_offer(const struct smtpd_context *context,
                             const struct smtpd_session *session, char ret_text[64]);
/** May the client begin a transaction? SMTPD_REPLY_OK, or why not. */
enum smtpd_reply smtpd_auth_mail_check(const struct smtpd_session *session);
/** May it send under this address? */
bool smtpd_auth_owns(const struct smtpd_session *session, const struct smtp_address *address);
/** May it be the author of mail of this domain: has it an address there, by name or by right? */
bool smtpd_auth_owns_domain(const struct smtpd_session *session, struct span domain);

/** For smtpd_quota.c: where who is logged in waits. */
struct quota_waiter *smtpd_auth_waiter(const struct smtpd_session *session);

/* smtpd_quota.c */
struct smtpd_quota {
    enum smtpd_reply reply; /* SMTPD_REPLY_OK, or the refusal */
    bool is_first;          /* refusal since there was room */
    bool is_held;           /* OK, but the message is to be held: ENVELOPE_OVER_QUOTA */
    bool is_counted;        /* OK, and to be counted, as `kind` */
    enum quota_kind kind;
};
/** May the user have one more message, or recipient? Nothing is counted yet. False: it is not known
 * yet. The command is to be forgotten, and will be fed again: smtpd_quota_is_awaited(). */
bool smtpd_quota_find(struct smtpd_context *context, struct smtpd_session *session,
                      bool is_recipient, struct tick_now now,
                      struct smtpd_quota *ret_quota) MUST_CHECK;
/** Count what was found, with what it is refused for. */
void smtpd_quota_count(struct smtpd_context *context, const struct smtpd_session *session,
                       const struct smtpd_quota *quota, struct tick_now now);
bool smtpd_quota_is_awaited(const struct smtpd_session *session);
/** The answer is of no interest any more. */
void smtpd_quota_forget(const struct smtpd_session *session);

/* smtpd_submission.c */
/** What to look for in the header. */
const struct header_names *smtpd_header_names(const struct smtpd_session *session);
/** A message begins; transaction->commit_id is known. Errors: ERR_MEMORY. */
enum err smtpd_submission_begin(struct smtpd_context *context, const struct smtpd_session *session,
                                struct smtpd_transaction *transaction, wall_us now) MUST_CHECK;

/* smtpd_auth.c */
/** The parameter AUTH= of MAIL: offered, and well formed? */
bool smtpd_auth_parameter_is_good(const struct smtpd_session *session, struct span value);
/** Nobody is logged in any more. */
void smtpd_auth_forget(struct smtpd_session *session);
void smtpd_auth_fini(struct smtpd_session *session);

#endif

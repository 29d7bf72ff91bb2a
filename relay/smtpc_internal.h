/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_SMTPC_INTERNAL_H
#define RELAY_SMTPC_INTERNAL_H

#include "relay/smtpc.h"

/* Shared by smtpc.c (dispatch, endings), smtpc_hello.c (up to READY), smtpc_begin.c (how a
 * transaction begins), smtpc_command.c (its commands) and smtpc_transaction.c (their replies). */

/* Commands on their way out: whole ones, or nothing. */
struct smtpc_writer {
    struct span_mut room;
    uint32_t used;
    bool is_full; /* something did not fit: the caller rolls back to the last whole command */
};
void smtpc_put(struct smtpc_writer *writer, struct span octets);
static inline void smtpc_put_text(struct smtpc_writer *writer, const char *text)
{
    smtpc_put(writer, span_from_text(text));
}
void smtpc_put_number(struct smtpc_writer *writer, uint64_t number);
void smtpc_put_base64(struct smtpc_writer *writer, struct span octets);

/* The only writer of session->state. */
void smtpc_enter(struct smtpc *session, enum smtpc_state next);

/* A reply ends the connection's use: judged already. */
enum smtpc_event smtpc_fail_reply(struct smtpc *session, enum smtp_scope scope);
/* We end it, for a reason of ours: static text with an enhanced code in front ("4.7.0 ..."). */
enum smtpc_event smtpc_fail_text(struct smtpc *session, enum smtp_scope scope, const char *text);
/* The dialogue makes no sense any more: likewise. */
enum smtpc_event smtpc_fail_dialogue(struct smtpc *session, const char *text);

/* Replies, one handler per state that awaits some. */
enum smtpc_event smtpc_on_greeting(struct smtpc *session);
enum smtpc_event smtpc_on_ehlo(struct smtpc *session);
enum smtpc_event smtpc_on_helo(struct smtpc *session);
enum smtpc_event smtpc_on_starttls(struct smtpc *session);
enum smtpc_event smtpc_on_auth(struct smtpc *session);
enum smtpc_event smtpc_on_envelope(struct smtpc *session);
enum smtpc_event smtpc_on_body(struct smtpc *session);
enum smtpc_event smtpc_on_end(struct smtpc *session);

void smtpc_ehlo_line(struct smtpc *session);
void smtpc_hello_write(struct smtpc *session, struct smtpc_writer *writer);
void smtpc_auth_write(struct smtpc *session, struct smtpc_writer *writer);
void smtpc_chunk_write(const struct smtpc_transaction *transaction, struct smtpc_writer *writer);
void smtpc_envelope_drain(struct smtpc *session, struct smtpc_writer *writer);
/* What a reply means for a recipient. */
struct smtpc_outcome {
    enum recipient_state state;
    enum smtp_scope scope;
    enum smtp_stage stage;
    uint16_t code;
    uint8_t enhanced[3];
    struct span text; /* lives as long as the results */
    bool is_dsn_passed_on;
};
void smtpc_result_set(struct smtpc_recipient *recipient, const struct smtpc_outcome *outcome);
void smtpc_transaction_set_all(struct smtpc_transaction *transaction,
                               const struct smtpc_outcome *outcome);

/* The transaction whose commands go out now. */
static inline struct smtpc_transaction *smtpc_outgoing(struct smtpc *session)
{
    return session->next_last != NULL ? session->next_last : &session->transaction;
}

/* Forget what was recorded in this transaction: its replies may have been given to the wrong
 * recipients. */
void smtpc_results_revoke(struct smtpc *session);

#endif

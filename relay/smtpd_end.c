/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The envelope that goes with a message, and its reply slot from the end of data on.
 *
 *   NEED_END -> smtpd_end(): pending -> smtpd_committed(): replies go out, in order
 *
 * A message that goes on while it comes has its envelope as soon as its header was read: class and
 * pool depend on that alone. What only the end tells (sizes, flags of the content) follows then.
 *
 * Not here: the octets and their verdict (smtpd_body.c), the replies themselves (smtpd_reply.c).
 */
#include "relay/class.h"
#include "relay/smtpd_internal.h"

static uint32_t envelope_flags(const struct smtpd_transaction *transaction)
{
    uint32_t scanned = smtp_body_flags(&transaction->body);
    uint32_t flags = transaction->envelope.flags & (ENVELOPE_SMTPUTF8 | ENVELOPE_RET_FULL |
                                                    ENVELOPE_RET_HEADERS | ENVELOPE_OVER_QUOTA);

    if (scanned & SMTP_BODY_EIGHT_BIT)
        flags |= ENVELOPE_EIGHT_BIT;
    if (scanned & SMTP_BODY_DOT_LINES)
        flags |= ENVELOPE_DOT_LINES;
    if (!smtp_body_is_at_line_start(&transaction->body))
        flags |= ENVELOPE_NO_FINAL_CRLF;
    /* Raw octets above 127 in a header that came without SMTPUTF8 are an old habit, and travel as
     * any eight-bit content does. */
    if ((flags & ENVELOPE_SMTPUTF8) &&
        (transaction->is_utf8_address || transaction->header.is_eight_bit))
        flags |= ENVELOPE_UTF8_NEEDED;
    return flags;
}

/* What the content and its header say. */
static void envelope_fill(const struct smtpd_session *session,
                          const struct smtpd_transaction *transaction, struct envelope *envelope)
{
    uint64_t header_size =
        envelope->prefix.size + transaction->received_size + transaction->header.size;

    envelope->header_size = header_size > UINT32_MAX ? UINT32_MAX : (uint32_t)header_size;
    envelope->flags = envelope_flags(transaction);
    envelope->class =
        class_decide(&session->settings->classes, &(struct class_mail){
                                                      .envelope = envelope,
                                                      .fields = &transaction->fields,
                                                      .listener = &session->listener->address,
                                                      .is_relay_client = session->is_relay_client,
                                                  });
    envelope->expires = envelope->arrived + (wall_us)session->settings->message_lifetime;
}

bool smtpd_early(struct smtpd_context *context, struct smtpd_session *session,
                 struct envelope *ret_envelope, enum way *ret_reason)
{
    struct smtpd_transaction *transaction = session->transaction;

    CHECK(smtpd_is_storing(session));
    *ret_reason = transaction->dkim != NULL ? WAY_SIGNATURE : WAY_UNKNOWN;
    if (transaction->dkim != NULL || !transaction->header.is_done)
        return false;
    if (!transaction->is_pool_chosen && smtpd_pool_choose(context, session) != SMTPD_REPLY_OK) {
        *ret_reason = WAY_SIZE; /* it will be refused at its end */
        return false;
    }
    transaction->is_pool_chosen = true;
    *ret_envelope = transaction->envelope;
    uint64_t said = ret_envelope->body_size;
    ret_envelope->body_size = transaction->received_size +
                              (said > transaction->content_size ? said : transaction->content_size);
    envelope_fill(session, transaction, ret_envelope);
    return true;
}

struct envelope *smtpd_end(struct smtpd_context *context, struct smtpd_session *session,
                           struct tick_now now, uint16_t *ret_sequence)
{
    struct smtpd_transaction *transaction = session->transaction;
    struct envelope *envelope = &transaction->envelope;

    CHECK(smtpd_need(session) == SMTPD_NEED_END);
    envelope->body_size += envelope->prefix.size;
    envelope_fill(session, transaction, envelope);
    session->transaction = NULL;
    transaction->sequence = ++session->sequence;
    transaction->next = NULL;
    if (session->pending == NULL)
        session->pending = transaction;
    else
        session->pending_last->next = transaction;
    session->pending_last = transaction;
    session->pending_count += 1;
    session->message_count += 1;
    session->junk_count = 0;
    smtpd_transaction_reset(context, session);
    session->phase_deadline = now.tick + session->listener->limits.command_timeout;
    *ret_sequence = transaction->sequence;
    return envelope;
}

void smtpd_committed(struct smtpd_context *context, struct smtpd_session *session,
                     uint16_t sequence, const struct message_fate *fate, struct tick_now now)
{
    struct smtpd_transaction *transaction = session->pending;

    CHECK(fate->code == 250 || fate->code == 451 || fate->code == 452 ||
          (fate->code >= 500 && fate->code < 600));
    while (transaction != NULL && transaction->sequence != sequence)
        transaction = transaction->next;
    CHECK(transaction != NULL && !transaction->is_committed);
    transaction->is_committed = true;
    transaction->commit_code = fate->code;
    if (!message_id_is_equal(fate->id, transaction->commit_id)) {
        transaction->commit_id = fate->id;
        message_id_format(fate->id, transaction->id_text);
    }
    transaction->way = fate->way;
    transaction->heard = fate->heard;
    if (fate->code >= 500)
        smtpd_refusal_keep(transaction, fate);
    while (session->pending != NULL && session->pending->is_committed) {
        transaction = session->pending;
        session->pending = transaction->next;
        session->pending_count -= 1;
        if (session->pending == NULL) {
            session->pending_last = NULL;
            session->phase_deadline = now.tick + session->listener->limits.command_timeout;
        }
        smtpd_reply_release(context, session, transaction, now);
        smtpd_transaction_release(context, transaction);
    }
}

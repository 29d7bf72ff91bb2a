/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a transaction of the client engine begins: what cannot go to this server, or nowhere, is
 * refused without a command; the rest is the session's own, or is lined up behind it.
 *
 * Invariants
 *   1. What the message needs and the server does not offer fails here, without a command, and for
 *      good; not when it was we who said HELO to avoid EHLO.
 *   2. A transaction is lined up only behind one whose end was sent, on a server that offers
 *      PIPELINING, and none of the two goes alone.
 */
#include "relay/smtpc_internal.h"

/* CR and LF would be commands of the sender's choice; no address that was ever accepted has them.
 */
static bool address_is_sendable(struct span address)
{
    return address.size <= SMTPC_ADDRESS_MAX && !span_has_control(address);
}

static void smtpc_refuse_unsendable(struct smtpc_transaction *transaction)
{
    static const struct smtpc_outcome outcome = {
        .state = RECIPIENT_FAILED,
        .scope = SMTP_SCOPE_RECIPIENT,
        .stage = SMTP_STAGE_RCPT,
        .code = 553,
        .enhanced = {5, 1, 3},
        .text = {(const uint8_t *)"the address has octets that cannot be sent", 42},
    };
    uint32_t kept = 0;

    for (uint32_t i = 0; i < transaction->recipient_count; i++) {
        if (address_is_sendable(transaction->recipients[i].address))
            transaction->recipients[kept++] = transaction->recipients[i];
        else
            smtpc_result_set(&transaction->recipients[i], &outcome);
    }
    transaction->recipient_count = kept;
}

/* Whether an open body has octets above 127 nobody knows yet: where they matter it cannot go. */
static bool smtpc_is_unfit_open(const struct smtpc *session,
                                const struct smtpc_transaction *transaction)
{
    return transaction->is_open && (session->extensions & SMTPC_8BITMIME) == 0 &&
           session->options.eight_bit == SETTINGS_EIGHT_BIT_BOUNCE;
}

/* Does the server lack what this message needs? */
static bool smtpc_is_unfit(struct smtpc *session, const struct smtpc_transaction *transaction,
                           struct smtpc_outcome *ret_outcome)
{
    uint32_t flags = transaction->envelope->flags;
    struct smtpc_outcome outcome = {.scope = SMTP_SCOPE_MESSAGE, .stage = SMTP_STAGE_MAIL};

    session->is_unfit_open = smtpc_is_unfit_open(session, transaction);
    if ((flags & ENVELOPE_UTF8_NEEDED) != 0 && (session->extensions & SMTPC_SMTPUTF8) == 0) {
        outcome.code = 550;
        memcpy(outcome.enhanced, (uint8_t[]){5, 6, 7}, 3);
        outcome.text =
            SPAN_LITERAL("the message needs SMTPUTF8 and the next hop does not offer it");
    } else if (session->size_max > 0 && transaction->body_size > session->size_max) {
        outcome.code = 552;
        memcpy(outcome.enhanced, (uint8_t[]){5, 3, 4}, 3);
        outcome.text = SPAN_LITERAL("the message is larger than the next hop allows");
    } else if ((flags & ENVELOPE_EIGHT_BIT) != 0 && (session->extensions & SMTPC_8BITMIME) == 0 &&
               session->options.eight_bit == SETTINGS_EIGHT_BIT_BOUNCE) {
        outcome.code = 554;
        memcpy(outcome.enhanced, (uint8_t[]){5, 6, 3}, 3);
        outcome.text =
            SPAN_LITERAL("the message needs 8BITMIME and the next hop does not offer it");
    } else if (!address_is_sendable(transaction->envelope->sender)) {
        outcome.code = 553;
        memcpy(outcome.enhanced, (uint8_t[]){5, 1, 7}, 3);
        outcome.text = SPAN_LITERAL("the sender has octets that cannot be sent");
    } else if (session->is_unfit_open) {
        outcome.text = SPAN_LITERAL("the message must be known whole before it goes there");
    } else {
        return false;
    }
    outcome.state = (session->options.avoid & SMTPC_ESMTP) != 0 || session->is_unfit_open
                        ? RECIPIENT_DUE
                        : RECIPIENT_FAILED;
    *ret_outcome = outcome;
    return true;
}

/* How it goes to this server. False: not at all, and its recipients have their results. */
static bool smtpc_prepare(struct smtpc *session, struct smtpc_transaction *transaction)
{
    struct smtpc_outcome outcome;

    CHECK(transaction->recipient_count > 0);
    for (uint32_t i = 0; i < transaction->recipient_count; i++)
        CHECK(transaction->recipients[i].result->state == RECIPIENT_DUE);
    transaction->is_bdat = session->options.use_bdat && (session->extensions & SMTPC_CHUNKING) != 0;
    transaction->is_pipelined =
        !transaction->is_alone && (session->extensions & SMTPC_PIPELINING) != 0;
    transaction->is_ahead = transaction->is_ahead && transaction->is_bdat &&
                            transaction->is_pipelined && !transaction->is_open &&
                            !session->options.is_lmtp;
    transaction->chunk.size = transaction->body_size;
    transaction->chunk.is_last = true;
    smtpc_refuse_unsendable(transaction);
    bool is_unfit = smtpc_is_unfit(session, transaction, &outcome);
    if (is_unfit)
        smtpc_transaction_set_all(transaction, &outcome);
    return !is_unfit && transaction->recipient_count > 0;
}

enum smtpc_event smtpc_begin(struct smtpc *session, const struct smtpc_transaction *transaction)
{
    CHECK(session->state == SMTPC_STATE_READY && session->replies_due == 0);
    CHECK(session->next_last == NULL);

    session->transaction = *transaction;
    if (!smtpc_prepare(session, &session->transaction)) {
        session->transaction = (struct smtpc_transaction){0};
        return SMTPC_FINISHED;
    }
    smtpc_enter(session, SMTPC_STATE_ENVELOPE);
    return SMTPC_MORE;
}

bool smtpc_may_follow(const struct smtpc *session)
{
    const struct smtpc_transaction *last =
        session->next_last != NULL ? session->next_last : &session->transaction;

    return (session->state == SMTPC_STATE_END || session->state == SMTPC_STATE_ENVELOPE) &&
           last->is_out && last->is_pipelined && session->next_count < SMTPC_NEXT_MAX &&
           !session->is_spoiled;
}

enum smtpc_event smtpc_follow(struct smtpc *session, struct smtpc_transaction *transaction)
{
    struct smtpc_transaction *last = smtpc_outgoing(session);

    CHECK(smtpc_may_follow(session) && !transaction->is_alone && !transaction->is_open);
    if (!smtpc_prepare(session, transaction))
        return SMTPC_FINISHED;
    transaction->is_reset_due = last->is_bdat;
    last->next = transaction;
    session->next_last = transaction;
    session->next_count++;
    return SMTPC_MORE;
}

void smtpc_unfollow(struct smtpc *session)
{
    struct smtpc_transaction *before = &session->transaction;

    CHECK(session->next_count > 0 && !session->next_last->is_out);
    for (uint32_t i = 1; i < session->next_count; i++)
        before = before->next;
    CHECK(before->next == session->next_last);
    before->next = NULL;
    session->next_count--;
    session->next_last = session->next_count > 0 ? before : NULL;
    session->is_spoiled = true;
}

bool smtpc_is_body_due(const struct smtpc *session)
{
    const struct smtpc_transaction *last =
        session->next_last != NULL ? session->next_last : &session->transaction;

    return last->is_ahead && !last->is_out && last->sent == last->recipient_count + 2;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client engine inside a transaction: MAIL, RCPT and DATA in one flight where the server offers
 * PIPELINING, in lock-step elsewhere and for mail that must go alone; BDAT in place of DATA where
 * offered, its chunk after the RCPT replies (RFC 3030 section 2).
 *
 * Invariants
 *   1. Reply number n answers command number n; a refused MAIL settles all recipients, and what the
 *      server then says to RCPT and DATA of the same flight changes nothing.
 *   2. 354 although no recipient was accepted is answered by a lone dot and the end of the
 *      connection (RFC 2920 section 3.1): an empty message to nobody.
 *   3. A transaction that was not ended by DATA's end or BDAT's last chunk with success is ended by
 *      RSET before the next one begins.
 *   4. "Too many recipients" asks for another batch at once only if this batch took somebody:
 *      otherwise the next one would end the same way, for ever.
 *   5. What the message needs and the server does not offer fails here, without a command, and for
 *      good; not when it was we who said HELO to avoid EHLO.
 *
 *   6. By LMTP every accepted recipient has a reply to the end of the body, and is settled by it,
 *      whatever it says about the server: 421 to one of them says nothing of those that were
 *      delivered before. Only what no LMTP server says there (3xx, 5xx about commands) ends the
 *      dialogue, with the rest in doubt.
 *
 * Not here: dot-stuffing and the end of data (client_body.c).
 */
#include "relay/smtpc_internal.h"

#include "relay/judge.h"
#include "relay/smtp_dsn.h"

struct smtpc_outcome {
    enum recipient_state state;
    enum smtp_scope scope;
    enum smtp_stage stage;
    uint16_t code;
    uint8_t enhanced[3];
    struct span text; /* lives as long as the results */
    bool is_dsn_passed_on;
};

/* ---- results ---- */

static void smtpc_result_set(struct smtpc_recipient *recipient, const struct smtpc_outcome *outcome)
{
    struct client_recipient_result *result = recipient->result;

    result->state = outcome->state;
    result->retry_now = false;
    result->scope = outcome->scope;
    result->stage = outcome->stage;
    result->code = outcome->code;
    memcpy(result->enhanced, outcome->enhanced, sizeof(result->enhanced));
    result->reply = outcome->text;
    result->is_dsn_passed_on = outcome->is_dsn_passed_on;
}

/* What the reply just read means for whom it is about. Its text is copied once. */
static struct smtpc_outcome smtpc_outcome_of_reply(struct smtpc *session, enum smtp_scope scope,
                                                   enum recipient_state state)
{
    const struct smtp_reply *reply = &session->parser.reply;
    struct smtpc_outcome outcome = {
        .state = state, .scope = scope, .stage = smtpc_stage(session), .code = reply->code};

    memcpy(outcome.enhanced, reply->enhanced, sizeof(outcome.enhanced));
    outcome.text = arena_copy(session->transaction.arena, smtp_reply_text(reply));
    if (outcome.text.data == NULL)
        outcome.text.size = 0; /* out of memory: the code must do */
    return outcome;
}

static enum recipient_state smtpc_state_of(struct judge_verdict verdict)
{
    return verdict.is_permanent ? RECIPIENT_FAILED : RECIPIENT_DUE;
}

static void smtpc_results_set_accepted(struct smtpc *session, const struct smtpc_outcome *outcome)
{
    struct smtpc_transaction *transaction = &session->transaction;

    for (uint32_t i = 0; i < transaction->recipient_count; i++) {
        if (transaction->recipients[i].is_accepted)
            smtpc_result_set(&transaction->recipients[i], outcome);
    }
}

static void smtpc_results_set_all(struct smtpc *session, const struct smtpc_outcome *outcome)
{
    struct smtpc_transaction *transaction = &session->transaction;

    for (uint32_t i = 0; i < transaction->recipient_count; i++)
        smtpc_result_set(&transaction->recipients[i], outcome);
}

void smtpc_results_revoke(struct smtpc *session)
{
    static const struct smtpc_outcome unknown = {.state = RECIPIENT_DUE};

    smtpc_results_set_all(session, &unknown);
}

/* The transaction is over and every recipient has its result. */
static enum smtpc_event smtpc_finish(struct smtpc *session, enum smtpc_state next)
{
    struct smtpc_transaction *transaction = &session->transaction;

    for (uint32_t i = 0; i < transaction->recipient_count && transaction->accepted_count == 0; i++)
        transaction->recipients[i].result->retry_now = false;
    session->transaction = (struct smtpc_transaction){0};
    smtpc_enter(session, next);
    return SMTPC_FINISHED;
}

/* The transaction is over before the body: every command was answered. One reply more to a flight,
 * and nobody knows which refusal was whose. (In lock-step and after the body the reply is believed:
 * up to it the counts were right, and servers do say 421 behind it.) */
static enum smtpc_event smtpc_finish_envelope(struct smtpc *session)
{
    if (session->has_surplus && session->transaction.is_pipelined) {
        smtpc_desynchronised(session);
        return SMTPC_FAILED;
    }
    return smtpc_finish(session, SMTPC_STATE_RSET);
}

/* ---- the beginning ---- */

/* CR and LF would be commands of the sender's choice; no address that was ever accepted has them.
 */
static bool address_is_sendable(struct span address)
{
    for (uint32_t i = 0; i < address.size; i++) {
        if (address.data[i] < ' ' || address.data[i] == 0x7f)
            return false;
    }
    return address.size <= SMTPC_ADDRESS_MAX;
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
static bool smtpc_is_unfit_open(const struct smtpc *session)
{
    return session->transaction.is_open && (session->extensions & SMTPC_8BITMIME) == 0 &&
           session->options.eight_bit == SETTINGS_EIGHT_BIT_BOUNCE;
}

/* Does the server lack what this message needs? */
static bool smtpc_is_unfit(const struct smtpc *session, struct smtpc_outcome *ret_outcome)
{
    const struct smtpc_transaction *transaction = &session->transaction;
    uint32_t flags = transaction->envelope->flags;
    struct smtpc_outcome outcome = {.scope = SMTP_SCOPE_MESSAGE, .stage = SMTP_STAGE_MAIL};

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

enum smtpc_event smtpc_begin(struct smtpc *session, const struct smtpc_transaction *transaction)
{
    struct smtpc_outcome outcome;

    CHECK(session->state == SMTPC_STATE_READY && session->replies_due == 0);
    CHECK(transaction->recipient_count > 0);

    session->transaction = *transaction;
    session->transaction.is_bdat =
        session->options.use_bdat && (session->extensions & SMTPC_CHUNKING) != 0;
    session->transaction.is_pipelined =
        !transaction->is_alone && (session->extensions & SMTPC_PIPELINING) != 0;
    session->transaction.is_mail_refused = false;
    session->transaction.sent = session->transaction.answered = 0;
    session->transaction.accepted_count = 0;
    session->transaction.end_index = 0;
    session->transaction.is_end_refused = false;
    session->transaction.chunk.size = transaction->body_size;
    session->transaction.chunk.is_last = true;
    session->transaction.chunks_due = 0;
    session->is_unfit_open = smtpc_is_unfit_open(session);
    for (uint32_t i = 0; i < transaction->recipient_count; i++)
        CHECK(transaction->recipients[i].result->state == RECIPIENT_DUE);

    smtpc_refuse_unsendable(&session->transaction);
    bool is_unfit = smtpc_is_unfit(session, &outcome);
    if (is_unfit)
        smtpc_results_set_all(session, &outcome);
    if (is_unfit || session->transaction.recipient_count == 0) {
        session->transaction = (struct smtpc_transaction){0};
        return SMTPC_FINISHED;
    }
    smtpc_enter(session, SMTPC_STATE_ENVELOPE);
    return SMTPC_MORE;
}

/* ---- commands ---- */

/* RFC 3461 section 5.2.1: what the sender said goes on as it was said. */
static void smtpc_dsn_write(const struct envelope *envelope, struct smtpc_writer *writer)
{
    if ((envelope->flags & ENVELOPE_RET_FULL) != 0)
        smtpc_put_text(writer, " RET=FULL");
    else if ((envelope->flags & ENVELOPE_RET_HEADERS) != 0)
        smtpc_put_text(writer, " RET=HDRS");
    if (envelope->envid.size > 0) {
        smtpc_put_text(writer, " ENVID=");
        smtpc_put(writer, envelope->envid);
    }
}

static void smtpc_mail_write(const struct smtpc *session, struct smtpc_writer *writer)
{
    const struct smtpc_transaction *transaction = &session->transaction;
    uint32_t flags = transaction->envelope->flags;

    smtpc_put_text(writer, "MAIL FROM:<");
    smtpc_put(writer, transaction->envelope->sender);
    smtpc_put_text(writer, ">");
    if ((session->extensions & SMTPC_SIZE) != 0 &&
        !(transaction->is_open && transaction->body_size == 0)) {
        smtpc_put_text(writer, " SIZE=");
        smtpc_put_number(writer, transaction->body_size);
    }
    if (((flags & ENVELOPE_EIGHT_BIT) != 0 || transaction->is_open) &&
        (session->extensions & SMTPC_8BITMIME) != 0)
        smtpc_put_text(writer, " BODY=8BITMIME");
    if ((flags & (ENVELOPE_SMTPUTF8 | ENVELOPE_UTF8_NEEDED)) != 0 &&
        (session->extensions & SMTPC_SMTPUTF8) != 0)
        smtpc_put_text(writer, " SMTPUTF8");
    if ((session->extensions & SMTPC_DSN) != 0)
        smtpc_dsn_write(transaction->envelope, writer);
    smtpc_put_text(writer, "\r\n");
}

static void smtpc_rcpt_write(const struct smtpc *session, uint32_t index,
                             struct smtpc_writer *writer)
{
    const struct smtpc_recipient *recipient = &session->transaction.recipients[index];
    bool has_dsn = (session->extensions & SMTPC_DSN) != 0;

    smtpc_put_text(writer, "RCPT TO:<");
    smtpc_put(writer, recipient->address);
    smtpc_put_text(writer, ">");
    if (has_dsn && recipient->notify != 0) {
        smtpc_put_text(writer, " NOTIFY=");
        smtpc_put(writer, smtp_notify_text(recipient->notify));
    }
    if (has_dsn && recipient->orcpt.size > 0) {
        smtpc_put_text(writer, " ORCPT=");
        smtpc_put(writer, recipient->orcpt);
    }
    smtpc_put_text(writer, "\r\n");
}

void smtpc_envelope_drain(struct smtpc *session, struct smtpc_writer *writer)
{
    struct smtpc_transaction *transaction = &session->transaction;
    uint32_t count = 1 + transaction->recipient_count + (transaction->is_bdat ? 0 : 1);

    while (transaction->sent < count && (transaction->is_pipelined || session->replies_due == 0)) {
        uint32_t mark = writer->used;

        if (transaction->sent == 0)
            smtpc_mail_write(session, writer);
        else if (transaction->sent <= transaction->recipient_count)
            smtpc_rcpt_write(session, transaction->sent - 1, writer);
        else
            smtpc_put_text(writer, "DATA\r\n");
        if (writer->is_full) {
            CHECK(mark > 0); /* SMTPC_ROOM_MIN holds any single command */
            writer->used = mark;
            writer->is_full = false;
            return;
        }
        transaction->sent++;
        session->replies_due++;
    }
}

/* ---- replies ---- */

static bool is_positive(const struct smtpc *session)
{
    return session->parser.reply.code / 100 == 2;
}

/* HOST and PROTOCOL end the connection's use: their transaction is tried again elsewhere. */
static bool ends_connection(struct judge_verdict verdict)
{
    return verdict.scope == SMTP_SCOPE_HOST || verdict.scope == SMTP_SCOPE_PROTOCOL;
}

/* All replies before the body are in, and there will be no body. */
static bool smtpc_envelope_is_over(const struct smtpc *session)
{
    const struct smtpc_transaction *transaction = &session->transaction;
    bool has_answers =
        transaction->is_mail_refused || transaction->answered > transaction->recipient_count;

    return has_answers && session->replies_due == 0 && transaction->accepted_count == 0;
}

static enum smtpc_event smtpc_on_mail_reply(struct smtpc *session)
{
    if (is_positive(session))
        return SMTPC_MORE;
    struct judge_verdict verdict = judge_reply(SMTP_STAGE_MAIL, &session->parser.reply);
    if (ends_connection(verdict))
        return smtpc_fail_reply(session, verdict.scope);
    struct smtpc_outcome outcome =
        smtpc_outcome_of_reply(session, verdict.scope, smtpc_state_of(verdict));
    smtpc_results_set_all(session, &outcome);
    session->transaction.is_mail_refused = true;
    return SMTPC_MORE;
}

static enum smtpc_event smtpc_on_rcpt_reply(struct smtpc *session,
                                            struct smtpc_recipient *recipient)
{
    if (session->transaction.is_mail_refused)
        return SMTPC_MORE;
    if (is_positive(session)) {
        recipient->is_accepted = true;
        session->transaction.accepted_count++;
        return SMTPC_MORE;
    }
    struct judge_verdict verdict = judge_reply(SMTP_STAGE_RCPT, &session->parser.reply);
    if (ends_connection(verdict))
        return smtpc_fail_reply(session, verdict.scope);
    struct smtpc_outcome outcome =
        smtpc_outcome_of_reply(session, verdict.scope, smtpc_state_of(verdict));
    smtpc_result_set(recipient, &outcome);
    recipient->result->retry_now = verdict.is_too_many;
    return SMTPC_MORE;
}

static enum smtpc_event smtpc_on_data_reply(struct smtpc *session)
{
    const struct smtp_reply *reply = &session->parser.reply;
    bool is_wanted = session->transaction.accepted_count > 0;

    if (reply->code == 354 && is_wanted) {
        smtpc_enter(session, SMTPC_STATE_BODY);
        return SMTPC_SEND_BODY;
    }
    if (reply->code == 354) {
        session->is_dot_due = true;
        return smtpc_finish(session, SMTPC_STATE_QUIT);
    }
    if (!is_wanted && reply->code >= 400)
        return SMTPC_MORE; /* as it should be: nobody was accepted, DATA is refused */
    struct judge_verdict verdict = judge_reply(SMTP_STAGE_DATA, reply);
    if (ends_connection(verdict))
        return smtpc_fail_reply(session, verdict.scope);
    struct smtpc_outcome outcome =
        smtpc_outcome_of_reply(session, verdict.scope, smtpc_state_of(verdict));
    smtpc_results_set_accepted(session, &outcome);
    return smtpc_finish_envelope(session);
}

enum smtpc_event smtpc_on_envelope(struct smtpc *session)
{
    struct smtpc_transaction *transaction = &session->transaction;
    uint32_t index = transaction->answered;
    enum smtpc_event event;

    CHECK(index < transaction->sent);
    if (index == 0)
        event = smtpc_on_mail_reply(session);
    else if (index <= transaction->recipient_count)
        event = smtpc_on_rcpt_reply(session, &transaction->recipients[index - 1]);
    else
        event = smtpc_on_data_reply(session);
    if (event != SMTPC_MORE)
        return event;

    transaction->answered++;
    if (smtpc_envelope_is_over(session))
        return smtpc_finish_envelope(session);
    if (transaction->is_bdat && !transaction->is_mail_refused &&
        transaction->answered == transaction->recipient_count + 1) {
        smtpc_enter(session, SMTPC_STATE_BODY);
        return SMTPC_SEND_BODY;
    }
    return SMTPC_MORE;
}

/* A chunk before the last one was taken. */
static bool smtpc_is_chunk_taken(struct smtpc *session)
{
    struct smtpc_transaction *transaction = &session->transaction;

    if (transaction->chunks_due == 0 || !is_positive(session))
        return false;
    transaction->chunks_due--;
    return true;
}

enum smtpc_event smtpc_on_body(struct smtpc *session)
{
    if (smtpc_is_chunk_taken(session))
        return SMTPC_MORE;
    struct judge_verdict verdict = judge_reply(SMTP_STAGE_BODY, &session->parser.reply);

    /* By LMTP it may be about the first recipient alone, with the others' still to come. */
    if (session->options.is_lmtp)
        return smtpc_fail_dialogue(session, "4.5.0 the server refused before the message ended");
    if (ends_connection(verdict))
        return smtpc_fail_reply(session, verdict.scope);
    /* An honest refusal, only early. The rest of the body is not sent, so nothing can follow on
     * this connection. */
    struct smtpc_outcome outcome =
        smtpc_outcome_of_reply(session, verdict.scope, smtpc_state_of(verdict));
    smtpc_results_set_accepted(session, &outcome);
    session->failure =
        (struct smtpc_failure){.scope = verdict.scope, .stage = SMTP_STAGE_BODY, .is_broken = true};
    return smtpc_finish(session, SMTPC_STATE_FAILED);
}

void smtpc_body_done(struct smtpc *session)
{
#ifdef PLANT_DONE_BEFORE_COMMIT /* a bug for the simulator to find */
    smtpc_results_set_accepted(session, &(struct smtpc_outcome){.state = RECIPIENT_DELIVERED});
#endif
    smtpc_enter(session, SMTPC_STATE_END);
}

static struct smtpc_outcome smtpc_delivered(struct smtpc *session)
{
    struct smtpc_outcome outcome =
        smtpc_outcome_of_reply(session, SMTP_SCOPE_MESSAGE, RECIPIENT_DELIVERED);

    outcome.is_dsn_passed_on = (session->extensions & SMTPC_DSN) != 0;
    return outcome;
}

/* RFC 2033 section 4.2: replies come in the order of the RCPT commands that succeeded. */
static enum smtpc_event smtpc_on_end_of_one(struct smtpc *session)
{
    struct smtpc_transaction *transaction = &session->transaction;
    struct judge_verdict verdict = judge_reply(SMTP_STAGE_END, &session->parser.reply);
    struct smtpc_outcome outcome;

    if (is_positive(session))
        outcome = smtpc_delivered(session);
    else if (verdict.scope == SMTP_SCOPE_PROTOCOL)
        return smtpc_fail_dialogue(session, "4.5.0 the server's reply to the message is not LMTP");
    else
        outcome = smtpc_outcome_of_reply(session, SMTP_SCOPE_RECIPIENT, smtpc_state_of(verdict));
    while (!transaction->recipients[transaction->end_index].is_accepted) {
        transaction->end_index++;
        CHECK(transaction->end_index < transaction->recipient_count);
    }
    smtpc_result_set(&transaction->recipients[transaction->end_index++], &outcome);
    transaction->is_end_refused |= outcome.state != RECIPIENT_DELIVERED;
    if (session->replies_due > 0)
        return SMTPC_MORE;
    return smtpc_finish(session, transaction->is_bdat && transaction->is_end_refused
                                     ? SMTPC_STATE_RSET
                                     : SMTPC_STATE_READY);
}

enum smtpc_event smtpc_on_end(struct smtpc *session)
{
    bool is_bdat = session->transaction.is_bdat;

    if (session->transaction.chunks_due > 0) /* an earlier chunk's: if refused, so is the message */
        return smtpc_on_body(session);
    if (session->options.is_lmtp)
        return smtpc_on_end_of_one(session);
    if (is_positive(session)) {
        struct smtpc_outcome outcome = smtpc_delivered(session);
        smtpc_results_set_accepted(session, &outcome);
        return smtpc_finish(session, SMTPC_STATE_READY);
    }
    struct judge_verdict verdict = judge_reply(SMTP_STAGE_END, &session->parser.reply);
    if (ends_connection(verdict))
        return smtpc_fail_reply(session, verdict.scope);
    struct smtpc_outcome outcome =
        smtpc_outcome_of_reply(session, verdict.scope, smtpc_state_of(verdict));
    smtpc_results_set_accepted(session, &outcome);
    /* A BDAT that failed leaves the server's transaction in a state that only RSET makes certain.
     */
    return smtpc_finish(session, is_bdat ? SMTPC_STATE_RSET : SMTPC_STATE_READY);
}

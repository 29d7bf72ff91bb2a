/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client engine inside a transaction: MAIL, RCPT and DATA in one flight where the server offers
 * PIPELINING, in lock-step elsewhere and for mail that must go alone; BDAT in place of DATA where
 * offered, its chunk after the RCPT replies (RFC 3030 section 2), or, where that was asked for,
 * ahead of them: then the whole transaction is one flight.
 *
 * Behind the end of one transaction the next may be sent (RFC 2920 section 3.1: a group of commands
 * ends with DATA, and the end of the data is no command). What comes back is answers to one
 * transaction after the other. Behind BDAT the next one begins with RSET: a server that refused a
 * chunk may be in the middle of that transaction still (RFC 3030 section 2), and RSET may stand
 * anywhere in a group.
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
 *   5. By LMTP every accepted recipient has a reply to the end of the body, and is settled by it,
 *      whatever it says about the server: 421 to one of them says nothing of those that were
 *      delivered before. Only what no LMTP server says there (3xx, 5xx about commands) ends the
 *      dialogue, with the rest in doubt. Nothing is sent ahead of replies there: how many there are
 *      to the end depends on those before it.
 *   6. What is sent ahead is sent whole: BDAT ... LAST and all its octets, whatever the server says
 *      meanwhile. A server that refused the recipients refuses the chunk; one that takes it for
 *      nobody has not understood, and what it said of recipients is worth nothing. Nor is what a
 *      server said that answered more than was sent: its last reply may be that to the body.
 *
 * Not here: how it begins (smtpc_begin.c), its commands (smtpc_command.c), dot-stuffing and the end
 * of data (client_body.c).
 */
#include "relay/smtpc_internal.h"

#include "relay/judge.h"

/* ---- results ---- */

void smtpc_result_set(struct smtpc_recipient *recipient, const struct smtpc_outcome *outcome)
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

void smtpc_transaction_set_all(struct smtpc_transaction *transaction,
                               const struct smtpc_outcome *outcome)
{
    for (uint32_t i = 0; i < transaction->recipient_count; i++)
        smtpc_result_set(&transaction->recipients[i], outcome);
}

static void smtpc_results_set_all(struct smtpc *session, const struct smtpc_outcome *outcome)
{
    smtpc_transaction_set_all(&session->transaction, outcome);
}

void smtpc_results_revoke(struct smtpc *session)
{
    static const struct smtpc_outcome unknown = {.state = RECIPIENT_DUE};

    smtpc_results_set_all(session, &unknown);
}

/* The one that was sent behind it is the session's own now. It begins with RSET where one is due:
 * whatever would be said between them is said. */
static enum smtpc_event smtpc_go_on(struct smtpc *session)
{
    struct smtpc_transaction *next = session->transaction.next;

    CHECK(session->next_count > 0);
    if (session->next_last == next)
        session->next_last = NULL;
    session->next_count--;
    session->transaction = *next;
    smtpc_enter(session, SMTPC_STATE_ENVELOPE);
    return SMTPC_FINISHED;
}

/* The transaction is over and every recipient has its result. */
static enum smtpc_event smtpc_finish(struct smtpc *session, enum smtpc_state next)
{
    struct smtpc_transaction *transaction = &session->transaction;
    bool is_last = transaction->next == NULL;

    for (uint32_t i = 0; i < transaction->recipient_count && transaction->accepted_count == 0; i++)
        transaction->recipients[i].result->retry_now = false;
    if (!is_last && next != SMTPC_STATE_FAILED)
        return smtpc_go_on(session);
    CHECK(is_last || next == SMTPC_STATE_FAILED);
    if (session->is_spoiled && next != SMTPC_STATE_FAILED) {
        next = SMTPC_STATE_FAILED;
        session->failure = (struct smtpc_failure){.stage = SMTP_STAGE_END, .is_broken = true};
    }
    if (is_last)
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

static enum smtpc_event smtpc_fail_verdict(struct smtpc *session, struct judge_verdict verdict)
{
    smtpc_fail_reply(session, verdict.scope);
    session->failure.is_of_session = verdict.is_of_session;
    return SMTPC_FAILED;
}

/* All replies before the body are in, and there will be no body. */
static bool smtpc_envelope_is_over(const struct smtpc *session)
{
    const struct smtpc_transaction *transaction = &session->transaction;
    bool has_answers =
        transaction->is_mail_refused || transaction->answered > transaction->recipient_count;

    return has_answers && transaction->answered == transaction->sent &&
           transaction->accepted_count == 0;
}

static enum smtpc_event smtpc_on_mail_reply(struct smtpc *session)
{
    if (is_positive(session))
        return SMTPC_MORE;
    struct judge_verdict verdict = judge_reply(SMTP_STAGE_MAIL, &session->parser.reply);
    if (ends_connection(verdict))
        return smtpc_fail_verdict(session, verdict);
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
        return smtpc_fail_verdict(session, verdict);
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
        return smtpc_fail_verdict(session, verdict);
    struct smtpc_outcome outcome =
        smtpc_outcome_of_reply(session, verdict.scope, smtpc_state_of(verdict));
    smtpc_results_set_accepted(session, &outcome);
    return smtpc_finish_envelope(session);
}

/* All recipients are answered: the body's turn, or that of the reply to it. */
static enum smtpc_event smtpc_envelope_answered(struct smtpc *session)
{
    struct smtpc_transaction *transaction = &session->transaction;

    if (transaction->is_ahead && transaction->sent == transaction->recipient_count + 2) {
        smtpc_enter(session, SMTPC_STATE_END);
        transaction->end_due = 1;
        return SMTPC_MORE;
    }
    if (transaction->is_mail_refused)
        return SMTPC_MORE;
    transaction->is_ahead = false; /* the replies were here before the flight was written */
    smtpc_enter(session, SMTPC_STATE_BODY);
    return SMTPC_SEND_BODY;
}

static enum smtpc_event smtpc_on_reset_first(struct smtpc *session)
{
    bool is_in_doubt = smtpc_is_in_doubt(session) && session->parser.reply.code != 421;

    session->transaction.is_reset_out = false;
    if (is_positive(session))
        return SMTPC_MORE;
    smtpc_fail_reply(session, SMTP_SCOPE_HOST);
    session->failure.is_in_doubt = is_in_doubt;
    /* RSET is never refused: that is the reply to the body before it, and one more was sent. */
    session->failure.is_mismatch = session->parser.reply.code != 421;
    return SMTPC_FAILED;
}

enum smtpc_event smtpc_on_envelope(struct smtpc *session)
{
    struct smtpc_transaction *transaction = &session->transaction;
    uint32_t index = transaction->answered;
    enum smtpc_event event;

    if (transaction->is_reset_out)
        return smtpc_on_reset_first(session);
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
    return transaction->is_bdat && transaction->answered == transaction->recipient_count + 1
               ? smtpc_envelope_answered(session)
               : SMTPC_MORE;
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
        return smtpc_fail_verdict(session, verdict);
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
    smtpc_outgoing(session)->is_out = true;
    if (session->state == SMTPC_STATE_BODY)
        smtpc_enter(session, SMTPC_STATE_END);
    else
        CHECK(session->state == SMTPC_STATE_ENVELOPE || session->state == SMTPC_STATE_END);
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
    if (--transaction->end_due > 0)
        return SMTPC_MORE;
    return smtpc_finish(session, transaction->is_bdat && transaction->is_end_refused
                                     ? SMTPC_STATE_RSET
                                     : SMTPC_STATE_READY);
}

/* Everybody has a result, and the server leaves. */
static enum smtpc_event smtpc_end_session(struct smtpc *session)
{
    session->failure = (struct smtpc_failure){.scope = SMTP_SCOPE_HOST,
                                              .stage = SMTP_STAGE_END,
                                              .code = session->parser.reply.code,
                                              .is_broken = true};
    return smtpc_finish(session, SMTPC_STATE_FAILED);
}

/* Sent ahead, and the replies cannot be those to what was sent: whose they are nobody knows. */
static enum smtpc_event smtpc_fail_ahead(struct smtpc *session, const char *text)
{
    smtpc_results_revoke(session);
    smtpc_fail_text(session, SMTP_SCOPE_HOST, text);
    session->failure.is_broken = session->failure.is_mismatch = true;
    session->failure.is_in_doubt = true;
    return SMTPC_FAILED;
}

/* Sent ahead, and nobody was accepted: the refusal of the chunk says nothing new. */
static enum smtpc_event smtpc_on_end_of_none(struct smtpc *session)
{
    if (session->parser.reply.code == 421)
        return smtpc_end_session(session);
    if (session->parser.reply.code >= 400)
        return smtpc_finish(session, SMTPC_STATE_RSET);
    return smtpc_fail_ahead(session, "4.5.0 the server took a message for nobody");
}

/* Does this verdict end the connection? Not for one message's sake, while another is on its way
 * behind it; but 421 is the server's own end, one that takes no more messages takes that neither,
 * and a broken dialogue is everybody's. */
static bool smtpc_end_ends_connection(const struct smtpc *session, struct judge_verdict verdict)
{
    if (verdict.scope == SMTP_SCOPE_HOST && session->parser.reply.code != 421 &&
        !verdict.is_of_session && session->next_count > 0)
        return false;
    return ends_connection(verdict);
}

enum smtpc_event smtpc_on_end(struct smtpc *session)
{
    bool is_bdat = session->transaction.is_bdat;

    if (session->transaction.is_ahead && session->replies_due == 0 && session->has_surplus &&
        !session->is_farewell)
        return smtpc_fail_ahead(session, "4.5.0 the server sent replies that nobody asked for");
    if (session->transaction.accepted_count == 0)
        return smtpc_on_end_of_none(session);
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
    if (smtpc_end_ends_connection(session, verdict))
        return smtpc_fail_verdict(session, verdict);
    struct smtpc_outcome outcome =
        smtpc_outcome_of_reply(session, verdict.scope, smtpc_state_of(verdict));
#ifdef PLANT_REPLY_OF_THE_NEXT /* likewise: as if the one behind it had been refused */
    if (session->transaction.next != NULL)
        outcome.state = RECIPIENT_DELIVERED;
#endif
    smtpc_results_set_accepted(session, &outcome);
    /* A BDAT that failed leaves the server's transaction in a state that only RSET makes certain.
     */
    return smtpc_finish(session, is_bdat ? SMTPC_STATE_RSET : SMTPC_STATE_READY);
}

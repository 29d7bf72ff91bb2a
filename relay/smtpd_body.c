/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Message octets: DATA, BDAT, the verdict at the end.
 *
 *   RCPT --DATA--> DATA: NEED_BEGIN -> (354) NEED_BODY ... -> end of data -> verdict
 *   RCPT, CHUNKS --BDAT--> CHUNKS: NEED_BEGIN once -> NEED_BODY ... -> 250 | LAST -> verdict
 *   verdict: good -> (NEED_SIGN ->) NEED_END, pending, READY        bad -> its reply, READY
 *
 * A message that is bound to be refused (too big, forbidden octets, a loop, no room) is read to
 * its true end without being kept, so that the client reads the reply and does not try again. What
 * may be read so is bounded per session; beyond that: 521 and close.
 *
 * A BDAT chunk is always swallowed by its announced size, whether its transaction is good, refused
 * or missing: its octets are never commands. A size that cannot be read has lost the framing, and
 * the session ends.
 *
 * Invariants
 *   1. is_complete is set only by message_finish(), with no failure.
 *   2. After any end of a message, good or bad, nothing of its transaction is left in the session.
 *   3. Memory for a chunked message does not depend on the number of chunks.
 *
 * Not here: the envelope that goes with the message, and its reply slot (smtpd_end.c).
 */
#include "relay/smtpd_auth.h"
#include "relay/smtpd_internal.h"

/* A chunk without any MAIL before it: no pipelining client can mean it. */
#define SMTPD_STRAY_CHUNK_MAX 65536u
#define CONTENT_VIOLATIONS    (SMTP_BODY_BARE_CR | SMTP_BODY_BARE_LF | SMTP_BODY_NUL)

static void body_begin(struct smtpd_session *session, bool is_data)
{
    const struct settings_listener *listener = session->listener;
    struct smtpd_transaction *transaction = session->transaction;

    smtp_body_init(&transaction->body, is_data, listener->bare_lf == SETTINGS_BARE_LF_NORMALIZE,
                   listener->limits.text_line_size_max, SMTP_BODY_BEST);
    smtp_header_init(&transaction->header);
    header_reader_init(&transaction->fields, smtpd_header_names(session));
}

/* ---- commands ---- */

void smtpd_on_data(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now)
{
    if (line->argument.size > 0) {
        smtpd_reply(context, session, SMTPD_REPLY_ARGUMENT_NONE);
    } else if (session->transaction->envelope.recipient_count == 0) {
        smtpd_reply(context, session,
                    session->attempt.rcpt_count > 0 ? SMTPD_REPLY_NO_RECIPIENTS
                                                    : SMTPD_REPLY_SEQUENCE);
    } else {
        body_begin(session, true);
        smtpd_enter(session, SMTPD_DATA);
        session->phase_deadline = now.tick + session->listener->limits.data_timeout;
    }
}

/* 1*20DIGIT [SP "LAST"] */
static enum err chunk_parse(struct span argument, uint64_t *ret_size, bool *ret_is_last)
{
    uint32_t digits = 0;

    while (digits < argument.size && argument.data[digits] != ' ')
        digits += 1;
    struct span rest = span_skip(argument, digits);
    if (rest.size > 0 && !span_is_equal_nocase(rest, SPAN_LITERAL(" LAST")))
        return ERR_PEER_SYNTAX;
    TRY(span_parse_u64(span_head(argument, digits), ret_size));
    *ret_is_last = rest.size > 0;
    return ERR_OK;
}

/* Why a chunk of this size is not content now; SMTPD_REPLY_OK if it is. */
static enum smtpd_reply chunk_judge(struct smtpd_session *session, uint64_t size)
{
    struct smtpd_transaction *transaction = session->transaction;
    uint64_t size_max = session->listener->limits.message_size_max;

    if (transaction == NULL)
        return SMTPD_REPLY_SEQUENCE;
    if (transaction->envelope.recipient_count == 0)
        return session->attempt.rcpt_count > 0 ? SMTPD_REPLY_NO_RECIPIENTS : SMTPD_REPLY_SEQUENCE;
    if (session->state == SMTPD_RCPT) {
        body_begin(session, false);
        smtpd_enter(session, SMTPD_CHUNKS);
    }
    if (transaction->failure == 0 &&
        (size > size_max || transaction->content_size > size_max - size))
        transaction->failure = SMTPD_REPLY_SIZE_MAX;
    return transaction->failure;
}

void smtpd_on_bdat(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now)
{
    uint64_t size = 0;
    bool is_last = false;

    if (chunk_parse(line->argument, &size, &is_last) != ERR_OK) {
        smtpd_dismiss(context, session, SMTPD_REPLY_CHUNK_SYNTAX);
        return;
    }
    enum smtpd_reply refusal = chunk_judge(session, size);
    if (refusal != SMTPD_REPLY_OK) {
        uint64_t size_max =
            session->attempt.is_mail_seen ? session->discard_left : SMTPD_STRAY_CHUNK_MAX;
        if (size > size_max || size > session->discard_left) {
            smtpd_dismiss(context, session, SMTPD_REPLY_DISCARD_MAX);
            return;
        }
    }
    /* Empty chunks bring no mail nearer. */
    session->junk_count += size == 0 && !is_last;
    session->chunk.left = size;
    session->chunk.is_active = true;
    session->chunk.is_last = is_last;
    session->chunk.refusal = (uint16_t)refusal;
    session->phase_deadline = now.tick + session->listener->limits.data_timeout;
}

bool smtpd_is_storing(const struct smtpd_session *session)
{
    return session->transaction != NULL && session->transaction->is_begun &&
           session->transaction->failure == 0;
}

/* ---- content ---- */

/* What is wrong with the content so far; SMTPD_REPLY_OK: nothing. */
static enum smtpd_reply content_judge(const struct smtpd_session *session)
{
    const struct settings_listener *listener = session->listener;
    const struct smtpd_transaction *transaction = session->transaction;
    uint32_t flags = smtp_body_flags(&transaction->body);
    uint32_t violations = listener->bare_lf == SETTINGS_BARE_LF_NORMALIZE
                              ? (uint32_t)SMTP_BODY_NUL
                              : (uint32_t)CONTENT_VIOLATIONS;

    if (flags & violations)
        return SMTPD_REPLY_CONTENT_OCTETS;
    if ((flags & SMTP_BODY_LONG_LINE) && listener->long_lines == SETTINGS_LONG_LINES_REJECT)
        return SMTPD_REPLY_CONTENT_LINE;
    if (transaction->content_size + transaction->fields.cut_size >
        listener->limits.message_size_max)
        return SMTPD_REPLY_SIZE_MAX;
    /*= rfc5321#section-6.3
     * Simple counting of the number of "Received:" header fields ... is an effective method of
     * detecting loops. */
    if (transaction->header.received_count >= listener->limits.received_max)
        return SMTPD_REPLY_LOOP;
    if (transaction->author != NULL && author_check_is_refused(transaction->author))
        return SMTPD_REPLY_AUTHOR_NOT_OWN;
    return SMTPD_REPLY_OK;
}

static void content_add(struct smtpd_transaction *transaction, struct span octets)
{
    transaction->content_size += octets.size;
    if (!transaction->header.is_done)
        smtp_header_feed(&transaction->header, octets,
                         (smtp_body_flags(&transaction->body) & SMTP_BODY_EIGHT_BIT) != 0);
    if (transaction->dkim != NULL)
        dkim_signer_feed(transaction->dkim, octets);
    if (transaction->author != NULL)
        author_check_feed(transaction->author, octets);
}

/* Scan a part of the message, take what is for us out of its header, keep count of it, and judge
 * it. */
static struct smtp_body_step content_scan(struct smtpd_session *session, struct span octets,
                                          bool *ret_is_borrowed)
{
    struct smtpd_transaction *transaction = session->transaction;

    *ret_is_borrowed = false;
    if (transaction->failure != 0)
        return smtp_body_scan(&transaction->body, octets);
    struct span part = span_head(octets, header_reader_wants(&transaction->fields, octets));
    struct smtp_body_step step = smtp_body_scan(&transaction->body, part);
    step = header_reader_step(&transaction->fields, part, &step, ret_is_borrowed);
    content_add(transaction, span_head(part, step.pass));
    if (step.insert.size > 0)
        content_add(transaction, step.insert);
    transaction->failure = (uint16_t)content_judge(session);
    return step;
}

static enum smtpd_reply failure_reply(enum err err)
{
    CHECK(err != ERR_OK);
    return err_class(err) == ERR_CLASS_LIMIT || err == ERR_DISK_FULL ? SMTPD_REPLY_STORAGE_FULL
                                                                     : SMTPD_REPLY_STORAGE_ERROR;
}

/* ---- signatures ---- */

/* Who is logged in has no domain signed for but its own: others' names are in From as easily. */
static bool is_author(const void *context, struct span domain)
{
    return smtpd_auth_owns_domain(context, domain);
}

/* A signer for the message, fed with our own field in front of it. Strangers have none. */
static enum err signer_begin(const struct smtpd_session *session,
                             struct smtpd_transaction *transaction)
{
    struct dkim_origin origin = {.listener = session->listener,
                                 .client = &session->peer,
                                 .sender = transaction->envelope.sender,
                                 .is_author = is_author,
                                 .context = session};

    if (!session->is_relay_client || session->settings->dkim_count == 0)
        return ERR_OK;
    return dkim_signer_new(session->settings, &origin, &transaction->dkim);
}

/* The message is complete: is it signed, passed as it is, or refused? */
static void signer_judge(struct smtpd_context *context, const struct smtpd_session *session,
                         struct smtpd_transaction *transaction)
{
    enum dkim_verdict verdict = dkim_signer_finish(transaction->dkim);

    transaction->is_sign_due = verdict == DKIM_SIGN;
    context->dkim.unmatched += verdict == DKIM_UNMATCHED;
    context->dkim.oversized += verdict == DKIM_OVERSIZED;
    if (!dkim_is_malformed(verdict))
        return;
    context->dkim.malformed += 1;
    if (session->settings->dkim_malformed == SETTINGS_MALFORMED_REJECT)
        transaction->failure = SMTPD_REPLY_CONTENT_HEADER;
}

/* The message is at its end: make it pending, or refuse it. */
static void message_finish(struct smtpd_context *context, struct smtpd_session *session,
                           struct tick_now now)
{
    struct smtpd_transaction *transaction = session->transaction;

    transaction->envelope.body_size = transaction->content_size + transaction->received_size;
    if (transaction->failure == 0 && transaction->author != NULL) {
        author_check_finish(transaction->author);
        transaction->failure = (uint16_t)content_judge(session);
    }
    if (transaction->failure == 0 && !transaction->is_pool_chosen)
        transaction->failure = (uint16_t)smtpd_pool_choose(context, session);
    transaction->is_pool_chosen = true;
    if (transaction->failure == 0 && transaction->dkim != NULL)
        signer_judge(context, session, transaction);
    if (transaction->failure == 0) {
        transaction->is_complete = true;
        return;
    }
    context->messages_rejected += 1;
    smtpd_reject(context, session, transaction->failure, (struct span){0}, NULL, now);
    smtpd_transaction_reset(context, session);
}

/* Octets that nobody keeps are bounded per session. False: the bound is passed, 521 was said. */
static bool discard(struct smtpd_context *context, struct smtpd_session *session, uint32_t size)
{
    if (size <= session->discard_left) {
        session->discard_left -= size;
        return true;
    }
    smtpd_dismiss(context, session, SMTPD_REPLY_DISCARD_MAX);
    return false;
}

static void data_feed(struct smtpd_context *context, struct smtpd_session *session,
                      struct span octets, struct tick_now now, struct smtpd_body_step *step)
{
    struct smtpd_transaction *transaction = session->transaction;
    bool is_borrowed;
    struct smtp_body_step scan = content_scan(session, octets, &is_borrowed);

    *step = (struct smtpd_body_step){.pass = scan.pass,
                                     .skip = scan.skip,
                                     .insert = scan.insert,
                                     .is_stored = transaction->failure == 0,
                                     .is_borrowed = is_borrowed};
    if (!step->is_stored && !discard(context, session, scan.pass))
        return;
    if (scan.is_end)
        message_finish(context, session, now);
}

/* The last chunk is read: what was held back of the content comes behind it. */
static void content_finish(struct smtpd_session *session, struct smtpd_body_step *step)
{
    struct smtpd_transaction *transaction = session->transaction;
    struct span before = step->insert;

    step->insert =
        header_reader_finish(&transaction->fields, before, smtp_body_finish(&transaction->body));
    step->is_borrowed = true;
    content_add(transaction, span_skip(step->insert, before.size));
    transaction->failure = (uint16_t)content_judge(session);
}

/* The chunk is read: reply, or verdict. */
static void chunk_finish(struct smtpd_context *context, struct smtpd_session *session,
                         struct tick_now now)
{
    bool is_last = session->chunk.is_last;
    enum smtpd_reply refusal = session->chunk.refusal;

    memset(&session->chunk, 0, sizeof(session->chunk));
    if (is_last && session->state == SMTPD_CHUNKS) {
        message_finish(context, session, now);
    } else if (refusal == SMTPD_REPLY_OK) {
        smtpd_reply(context, session, SMTPD_REPLY_CHUNK_OK);
    } else {
        smtpd_reply(context, session, refusal);
        if (is_last)
            smtpd_transaction_reset(context, session);
    }
    if (session->junk_count > session->listener->limits.junk_max && session->state != SMTPD_CLOSING)
        smtpd_dismiss(context, session, SMTPD_REPLY_JUNK_MAX);
}

static void chunk_feed(struct smtpd_context *context, struct smtpd_session *session,
                       struct span octets, struct tick_now now, struct smtpd_body_step *step)
{
    struct smtpd_transaction *transaction = session->transaction;
    uint32_t size = octets.size > session->chunk.left ? (uint32_t)session->chunk.left : octets.size;

    if (session->chunk.refusal == SMTPD_REPLY_OK) {
        bool is_borrowed;
        struct smtp_body_step scan = content_scan(session, span_head(octets, size), &is_borrowed);
        *step = (struct smtpd_body_step){.pass = scan.pass,
                                         .skip = scan.skip,
                                         .insert = scan.insert,
                                         .is_borrowed = is_borrowed};
        session->chunk.left -= scan.pass + scan.skip;
        if (session->chunk.left == 0 && session->chunk.is_last && transaction->failure == 0)
            content_finish(session, step);
        session->chunk.refusal = transaction->failure;
        step->is_stored = transaction->failure == 0;
    } else {
        step->pass = size;
        session->chunk.left -= size;
    }
    if (!step->is_stored && !discard(context, session, step->pass))
        return;
    if (session->chunk.left == 0)
        chunk_finish(context, session, now);
}

/* Content, or what is dropped in its place, is read. */
static bool smtpd_is_in_body(const struct smtpd_session *session)
{
    return session->chunk.is_active || session->state == SMTPD_DATA;
}

struct smtpd_body_step smtpd_feed_body(struct smtpd_context *context, struct smtpd_session *session,
                                       struct span octets, struct tick_now now)
{
    struct smtpd_body_step step = {0};

    CHECK(smtpd_is_in_body(session));
    if (octets.size > 0)
        session->phase_deadline = now.tick + session->listener->limits.data_timeout;
    if (session->chunk.is_active)
        chunk_feed(context, session, octets, now, &step);
    else
        data_feed(context, session, octets, now, &step);
    if (!smtpd_is_in_body(session) && smtpd_need(session) == SMTPD_NEED_COMMAND)
        session->phase_deadline = now.tick + session->listener->limits.command_timeout;
    return step;
}

/* ---- the driver's results ---- */

struct span smtpd_begun(struct smtpd_context *context, struct smtpd_session *session, enum err err,
                        struct message_id id, struct tick_now now)
{
    struct smtpd_transaction *transaction = session->transaction;
    bool is_data = session->state == SMTPD_DATA;
    uint8_t *text = arena_acquire(&transaction->arena, 2 * SMTPD_TRACE_SIZE_MAX);

    CHECK(smtpd_need(session) == SMTPD_NEED_BEGIN);
    if (err == ERR_OK && text == NULL)
        err = ERR_MEMORY;
    transaction->commit_id = id;
    message_id_format(id, transaction->id_text);
    if (err == ERR_OK)
        err = signer_begin(session, transaction);
    if (err == ERR_OK)
        err = smtpd_submission_begin(context, session, transaction, now.wall);
    if (err != ERR_OK) {
        transaction->failure = (uint16_t)failure_reply(err);
        if (is_data) /* no 354 was given: there is nothing to read */
            message_finish(context, session, now);
        else
            session->chunk.refusal = transaction->failure;
        return (struct span){0};
    }
    transaction->is_begun = true;
    struct span client = smtpd_client_format(session, text + SMTPD_TRACE_SIZE_MAX);
    struct span received = smtpd_received_format(context, session, client, now.wall, text);
    transaction->envelope.client = client;
    transaction->received_size = received.size;
    if (transaction->dkim != NULL)
        dkim_signer_feed(transaction->dkim, received);
    if (is_data)
        smtpd_reply(context, session, SMTPD_REPLY_DATA_GO);
    return received;
}

void smtpd_fail(struct smtpd_context *context, struct smtpd_session *session, enum err err,
                struct tick_now now)
{
    struct smtpd_transaction *transaction = session->transaction;

    CHECK(transaction != NULL && transaction->is_begun);
    transaction->failure = (uint16_t)failure_reply(err);
    if (session->chunk.is_active)
        session->chunk.refusal = transaction->failure;
    if (transaction->is_complete)
        message_finish(context, session, now);
}

uint32_t smtpd_sign_cost(const struct smtpd_session *session)
{
    CHECK(smtpd_need(session) == SMTPD_NEED_SIGN);
    return dkim_signer_cost(session->transaction->dkim);
}

void smtpd_sign(struct smtpd_context *context, struct smtpd_session *session, struct tick_now now)
{
    struct smtpd_transaction *transaction = session->transaction;
    struct span fields = {0};
    uint32_t count = 0;

    CHECK(smtpd_need(session) == SMTPD_NEED_SIGN);
    enum err err = dkim_signer_sign(transaction->dkim, now.wall, &fields, &count);
    transaction->is_sign_due = false;
    if (err == ERR_OK) {
        transaction->envelope.prefix = fields;
        context->dkim.messages += 1;
        context->dkim.signatures += count;
    } else if (err == ERR_LIMIT) { /* it would never fit: as a header that is too large */
        context->dkim.oversized += 1;
    } else {
        context->dkim.failed += 1;
        smtpd_fail(context, session, err, now);
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replies and their order, and the records of what was taken and refused.
 *
 * Every session has an ordered queue of reply slots. A slot is a pending transaction: its end of
 * data was read and its commit is under way. What is replied meanwhile (to RSET, MAIL, RCPT, DATA
 * of the next message, QUIT) belongs behind that slot's own reply, so it is kept in the youngest
 * pending transaction and sent when that one and all before it are committed:
 *
 *   pending:  T1 [held: 250 250 354]  T2 [held: 221]        output: (all that was before T1)
 *   T2 commits: nothing leaves.  T1 commits: 250 for T1, its held text, 250 for T2, 221.
 *
 * Invariants
 *   1. Without a pending transaction replies go straight to the output.
 *   2. The held text of all pending transactions is at most SMTPD_HELD_MAX and one more command's
 *      replies: smtpd_need() stops reading commands there.
 *   3. No octet of the client's is ever part of a reply. What a next hop said is, made printable
 *      and one line.
 */
#include <stdio.h>
#include <stdlib.h>

#include "relay/smtp_reply.h"
#include "relay/smtpd_internal.h"

#define SMTPD_REPLY_TEXT_MAX 2048u
#define REFUSAL_LINE_MAX     511u /*= rfc5321#section-4.5.3.1.5: 512 octets with CRLF, and NUL */

static const struct smtpd_reply_row {
    uint16_t code;
    uint8_t size;
    const char *line;
    const char *sent; /* with CRLF */
} smtpd_replies[SMTPD_REPLY_COUNT] = {
#define X(symbol, code, line) {code, sizeof(line) - 1, line, line "\r\n"},
#include "relay/smtpd_reply.def"
#undef X
};

uint16_t smtpd_reply_code(enum smtpd_reply reply)
{
    CHECK(reply < SMTPD_REPLY_COUNT);
    return smtpd_replies[reply].code;
}

static void output_append(struct smtpd_context *context, struct span text)
{
    CHECK(text.size <= SMTPD_OUTPUT_SIZE - context->output_size);
    if (text.size == 0)
        return;
    memcpy(context->output + context->output_size, text.data, text.size);
    context->output_size += text.size;
}

static void hold_text(struct smtpd_session *session, struct span text)
{
    struct smtpd_transaction *slot = session->pending_last;
    uint32_t needed = slot->held_size + text.size;

    if (needed > slot->held_capacity) {
        uint32_t capacity = slot->held_capacity == 0 ? 512 : slot->held_capacity;
        while (capacity < needed)
            capacity *= 2;
        slot->held = realloc(slot->held, capacity);
        CHECK(slot->held != NULL); /* at most 16 KB: the process is beyond help */
        slot->held_capacity = capacity;
    }
    memcpy(slot->held + slot->held_size, text.data, text.size);
    slot->held_size = needed;
    session->held_size += text.size;
}

void smtpd_reply_text(struct smtpd_context *context, struct smtpd_session *session,
                      struct span text)
{
    CHECK(text.size >= 2 && text.size <= SMTPD_REPLY_TEXT_MAX);
    CHECK(text.data[text.size - 2] == '\r' && text.data[text.size - 1] == '\n');
    if (session->state == SMTPD_CLOSING)
        return;
    bool is_held = session->pending_last != NULL;
#ifdef PLANT_REPLY_OVERTAKES /* a bug for the simulator to find */
    is_held = false;
#endif
    if (is_held)
        hold_text(session, text);
    else
        output_append(context, text);
}

static void count_reply(struct smtpd_context *context, struct smtpd_session *session,
                        enum smtpd_reply reply)
{
    bool is_error = smtpd_replies[reply].code >= 500, is_first;

    context->replies[reply] += 1;
    session->error_count += is_error;
    if (is_error && session->brake != NULL &&
        !brake_take(context->brake, session->brake, session->listener, BRAKE_ERRORS, &is_first))
        session->is_braked = true;
}

void smtpd_reply(struct smtpd_context *context, struct smtpd_session *session,
                 enum smtpd_reply reply)
{
    const struct smtpd_reply_row *row = &smtpd_replies[reply];

    count_reply(context, session, reply);
    smtpd_reply_text(context, session, span_of(row->sent, row->size + 2u));
}

/* ---- records ---- */

static uint16_t parse_code(const char *line)
{
    return (uint16_t)((line[0] - '0') * 100 + (line[1] - '0') * 10 + (line[2] - '0'));
}

/* "550 5.6.11 text": a row's own line, so its form is known. */
static void parse_enhanced(const char *line, uint8_t ret_enhanced[3])
{
    const char *at = line + 4;

    for (uint32_t i = 0; i < 3; i++, at++) {
        for (; *at >= '0' && *at <= '9'; at++)
            ret_enhanced[i] = (uint8_t)(ret_enhanced[i] * 10 + (*at - '0'));
    }
}

static void record_emit(struct smtpd_context *context, const struct smtpd_session *session,
                        const struct smtpd_transaction *transaction, enum record_kind kind,
                        struct span recipient, const char *line, struct tick_now now)
{
    struct record record = {.kind = (uint16_t)kind,
                            .code = parse_code(line),
                            .shard = context->shard,
                            .time = now.wall,
                            .session = session->id,
                            .source = session->local,
                            .peer = session->peer,
                            .connection_use = session->message_count};

    parse_enhanced(line, record.enhanced);
    if (transaction != NULL) {
        const struct envelope *envelope = &transaction->envelope;
        record.id = transaction->commit_id;
        record.size = envelope->body_size;
        record.recipient_count = (uint16_t)envelope->recipient_count;
        record.way = (uint8_t)transaction->way;
        record.delays_ms[0] = (uint32_t)((now.wall - envelope->arrived) / 1000);
        record_text(record.sender, sizeof(record.sender), envelope->sender);
        if (recipient.size == 0 && envelope->recipient_count > 0)
            recipient = envelope->recipients[0].address;
    }
    record_text(record.recipient, sizeof(record.recipient), recipient);
    record_text(record.text, sizeof(record.text), span_from_text(line));
    if (session->hello_name != NULL)
        record_text(record.host, sizeof(record.host), span_from_text(session->hello_name));
    if (session->is_tls && session->tls_version != NULL)
        record_text(record.tls, sizeof(record.tls), span_from_text(session->tls_version));
    record_text(record.user, sizeof(record.user),
                transaction != NULL ? transaction->envelope.user : smtpd_auth_candidate(session));
    context->records.emit(context->records.context, &record);
}

void smtpd_reject(struct smtpd_context *context, struct smtpd_session *session,
                  enum smtpd_reply reply, struct span recipient, const char *text,
                  struct tick_now now)
{
    const char *row_line = smtpd_replies[reply].line;
    char line[512]; /*= rfc5321#section-4.5.3.1.5: 512 octets with CRLF */

    if (text == NULL) {
        smtpd_reply(context, session, reply);
        text = row_line;
    } else { /* the operator's words, behind the row's codes */
        int size = snprintf(line, sizeof(line) - 2, "%.10s%s", row_line, text);
        uint32_t length = size < (int)sizeof(line) - 2 ? (uint32_t)size : sizeof(line) - 3;
        memcpy(line + length, "\r\n", 3);
        count_reply(context, session, reply);
        smtpd_reply_text(context, session, span_of(line, length + 2));
        line[length] = '\0';
        text = line;
    }
    record_emit(context, session, session->transaction, RECORD_REJECTION, recipient, text, now);
}

void smtpd_record_refusal(struct smtpd_context *context, const struct flow_address *peer,
                          const struct flow_address *local, enum smtpd_reply reply,
                          struct tick_now now)
{
    const char *line = smtpd_replies[reply].line;
    struct record record = {.kind = RECORD_REJECTION,
                            .code = smtpd_replies[reply].code,
                            .shard = context->shard,
                            .time = now.wall,
                            .source = *local,
                            .peer = *peer};

    parse_enhanced(line, record.enhanced);
    record_text(record.text, sizeof(record.text), span_from_text(line));
    context->records.emit(context->records.context, &record);
}

struct span smtpd_reply_line(enum smtpd_reply reply)
{
    return span_of(smtpd_replies[reply].line, smtpd_replies[reply].size);
}

/* ---- what a next hop said ---- */

/* Behind the code and the enhanced code that it may begin with. */
static struct span refusal_text(const struct message_fate *fate)
{
    struct span text = fate->reply;
    char code[8];
    uint16_t parts[3];

    (void)snprintf(code, sizeof(code), "%03u", fate->code);
    if (text.size < 3 || memcmp(text.data, code, 3) != 0)
        return text;
    text = span_skip(text, text.size > 3 ? 4 : 3);
    uint32_t size = smtp_enhanced_parse(text, parts);
    return span_skip(text, size < text.size && size > 0 ? size + 1 : size);
}

void smtpd_refusal_keep(struct smtpd_transaction *transaction, const struct message_fate *fate)
{
    const uint8_t *enhanced = fate->enhanced;
    struct span text = refusal_text(fate);
    char line[REFUSAL_LINE_MAX];
    bool has_enhanced = enhanced[0] == fate->code / 100;

    int size = snprintf(line, sizeof(line), "%03u %u.%u.%u %.*s", fate->code, fate->code / 100,
                        has_enhanced ? enhanced[1] : 0, has_enhanced ? enhanced[2] : 0,
                        (int)text.size, (const char *)text.data);
    uint32_t length = size < (int)sizeof(line) ? (uint32_t)size : sizeof(line) - 1;
    for (uint32_t i = 0; i < length; i++) {
        if (line[i] < ' ' || line[i] > '~')
            line[i] = '?';
    }
    transaction->refusal = arena_acquire(&transaction->arena, length + 1);
    if (transaction->refusal == NULL)
        return; /* the code must do */
    memcpy(transaction->refusal, line, length);
    transaction->refusal[length] = '\0';
}

/* What to say to an end of data that was not accepted; good while the transaction is. */
static const char *refusal_line(struct smtpd_context *context, struct smtpd_session *session,
                                const struct smtpd_transaction *transaction)
{
    enum smtpd_reply reply = SMTPD_REPLY_STORAGE_ERROR;

    if (transaction->commit_code == 452)
        reply = SMTPD_REPLY_STORAGE_FULL;
    if (transaction->commit_code >= 500)
        reply = SMTPD_REPLY_NEXT_HOP;
    if (reply == SMTPD_REPLY_NEXT_HOP)
        context->replies[reply] += 1; /* no error of the client's */
    else
        count_reply(context, session, reply);
    return transaction->refusal != NULL ? transaction->refusal : smtpd_replies[reply].line;
}

void smtpd_reply_release(struct smtpd_context *context, struct smtpd_session *session,
                         struct smtpd_transaction *transaction, struct tick_now now)
{
    static const char accepted[] = "250 2.0.0 ok ";
    bool is_accepted = transaction->commit_code == 250;
    char accepted_line[sizeof(accepted) + MESSAGE_ID_TEXT_SIZE] UNINITIALIZED;
    const char *line = accepted_line;

    if (is_accepted) {
        memcpy(accepted_line, accepted, sizeof(accepted));
        memcpy(accepted_line + sizeof(accepted) - 1, transaction->id_text, MESSAGE_ID_TEXT_SIZE);
        context->messages_accepted += 1;
    } else {
        line = refusal_line(context, session, transaction);
        context->messages_rejected += 1;
    }
    if (transaction->heard != 0 && context->heard_count < SMTPD_HEARD_MAX)
        context->heard[context->heard_count++] = transaction->heard;
    output_append(context, span_from_text(line));
    output_append(context, SPAN_LITERAL("\r\n"));
    output_append(context, span_of(transaction->held, transaction->held_size));
    CHECK(session->held_size >= transaction->held_size);
    session->held_size -= transaction->held_size;
    record_emit(context, session, transaction, is_accepted ? RECORD_RECEPTION : RECORD_REJECTION,
                (struct span){0}, line, now);
}

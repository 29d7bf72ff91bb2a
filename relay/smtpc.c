/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SMTP client engine: which command goes out next, which command a reply belongs to, and when
 * to stop believing the server.
 *
 *   GREETING -> EHLO -> [HELO] -> [STARTTLS -> HANDSHAKE -> EHLO] -> [AUTH] -> READY
 *   READY -> ENVELOPE -> BODY -> END -> READY          accepted, or refused at the end of data
 *            ENVELOPE -> RSET -> READY                 refused before it
 *            ENVELOPE -> END                           the body was sent ahead of these replies
 *                        END -> ENVELOPE               another transaction was sent behind it
 *            ENVELOPE -> QUIT                          354 although no recipient was accepted
 *   READY | FAILED -> QUIT                             smtpc_quit()
 *   any -> FAILED                                      smtpc_fail(), smtpc_lost()
 *
 * Invariants
 *   1. `replies_due` counts commands that left smtpc_drain() and have no reply yet; octets that
 *      come while it is 0 are desynchronisation: the session fails, nothing more is sent, and what
 *      was recorded in the running transaction is forgotten, for it may be the wrong recipients'.
 *   2. A command that may not be followed by another (RFC 2920: EHLO, DATA, STARTTLS, AUTH, QUIT)
 *      is drained only when no reply is due behind it; the driver reads before it drains, so that
 *      early replies are seen before they could be taken for answers.
 *   3. The body is asked for only after 354 (DATA), or all RCPT replies (BDAT), with at least one
 *      recipient accepted; unless the transaction is to go ahead of its replies.
 *   4. Credentials leave under TLS only. STARTTLS replies end in a handshake or in FAILED; the
 *      extensions offered in the clear are forgotten with it.
 *   5. In doubt is exactly: the driver said smtpc_body_done(), no complete reply came, and no other
 *      reply says that there is nobody to take it for. By LMTP there is a reply for each recipient
 *      that was accepted, in their order (RFC 2033 section 4.2): those that came count, whatever
 *      becomes of the others.
 *   6. Transactions that were sent behind another are answered in their order, each for itself:
 *      whatever becomes of one, the next begins with the reply behind its last. Only the last one
 *      may have commands that are not sent, or a body; those before it have ended.
 *
 * Limits: those of smtp_reply.h; SMTPC_ADDRESS_MAX octets of an address.
 * Not here: sockets, deadlines, hosts (client_*.c); who is to blame (judge.c).
 */
#include "relay/smtpc_internal.h"

#include "relay/judge.h"

#define TO(name) (1u << SMTPC_STATE_##name)

/* FAILED may be entered from everywhere and is not listed. */
static const uint32_t smtpc_edges[SMTPC_STATE_COUNT] = {
    [SMTPC_STATE_GREETING] = TO(EHLO) | TO(HELO),
    [SMTPC_STATE_EHLO] = TO(HELO) | TO(STARTTLS) | TO(AUTH) | TO(READY),
    [SMTPC_STATE_HELO] = TO(READY),
    [SMTPC_STATE_STARTTLS] = TO(HANDSHAKE),
    [SMTPC_STATE_HANDSHAKE] = TO(EHLO),
    [SMTPC_STATE_AUTH] = TO(READY),
    [SMTPC_STATE_READY] = TO(ENVELOPE) | TO(QUIT),
    [SMTPC_STATE_ENVELOPE] = TO(BODY) | TO(END) | TO(RSET) | TO(QUIT),
    [SMTPC_STATE_BODY] = TO(END),
    [SMTPC_STATE_END] = TO(READY) | TO(ENVELOPE) | TO(RSET),
    [SMTPC_STATE_RSET] = TO(READY),
    [SMTPC_STATE_FAILED] = TO(QUIT),
};

void smtpc_enter(struct smtpc *session, enum smtpc_state next)
{
    CHECK(next < SMTPC_STATE_COUNT);
    CHECK(next == SMTPC_STATE_FAILED || (smtpc_edges[session->state] & 1u << next) != 0);

    session->state = next;
    if (next == SMTPC_STATE_FAILED) { /* what was sent behind it is the driver's to end */
        session->transaction.next = session->next_last = NULL;
        session->next_count = 0;
    }
    session->is_command_due = next == SMTPC_STATE_EHLO || next == SMTPC_STATE_HELO ||
                              next == SMTPC_STATE_STARTTLS || next == SMTPC_STATE_AUTH ||
                              next == SMTPC_STATE_RSET || next == SMTPC_STATE_QUIT;
    if (next == SMTPC_STATE_EHLO || next == SMTPC_STATE_HELO)
        session->extensions = 0;
    if (next == SMTPC_STATE_BODY) {
        CHECK(session->transaction.accepted_count > 0);
        CHECK(session->replies_due == 0);
        /* Those to the end of the body, or an early refusal. */
        session->transaction.end_due =
            session->options.is_lmtp ? session->transaction.accepted_count : 1;
        session->replies_due = session->transaction.end_due;
        session->is_command_due = session->transaction.is_bdat && !session->transaction.is_open;
    }
}

void smtpc_init(struct smtpc *session, const struct smtpc_options *options)
{
    CHECK(strlen(options->hello_name) <= 255);

    session->options = *options;
    session->state = SMTPC_STATE_GREETING;
    session->extensions = 0;
    session->size_max = 0;
    session->replies_due = 1;
    session->auth_step = 0;
    session->is_tls = false;
    session->is_command_due = false;
    session->is_dot_due = false;
    session->has_surplus = session->is_farewell = false;
    session->is_unfit_open = false;
    session->is_spoiled = false;
    session->transaction = (struct smtpc_transaction){0};
    session->next_last = NULL;
    session->next_count = 0;
    session->failure = (struct smtpc_failure){0};
    smtp_reply_parser_init(&session->parser);
}

enum smtp_stage smtpc_stage(const struct smtpc *session)
{
    const struct smtpc_transaction *transaction = &session->transaction;

    switch (session->state) {
    case SMTPC_STATE_GREETING:
        return SMTP_STAGE_GREETING;
    case SMTPC_STATE_EHLO:
    case SMTPC_STATE_HELO:
        return SMTP_STAGE_EHLO;
    case SMTPC_STATE_STARTTLS:
    case SMTPC_STATE_HANDSHAKE:
        return SMTP_STAGE_STARTTLS;
    case SMTPC_STATE_AUTH:
        return SMTP_STAGE_AUTH;
    case SMTPC_STATE_ENVELOPE:
        if (transaction->answered == 0)
            return SMTP_STAGE_MAIL;
        return transaction->answered <= transaction->recipient_count ? SMTP_STAGE_RCPT
                                                                     : SMTP_STAGE_DATA;
    case SMTPC_STATE_BODY:
        return SMTP_STAGE_BODY;
    case SMTPC_STATE_END:
        return SMTP_STAGE_END;
    default:
        return SMTP_STAGE_MAIL; /* between transactions: the next command would be MAIL */
    }
}

/* ---- endings ---- */

static void smtpc_fail(struct smtpc *session, const struct smtpc_failure *failure)
{
    CHECK(session->state != SMTPC_STATE_FAILED);

    session->failure = *failure;
    if (failure->scope == SMTP_SCOPE_PROTOCOL)
        smtpc_results_revoke(session);
    smtpc_enter(session, SMTPC_STATE_FAILED);
}

enum smtpc_event smtpc_fail_reply(struct smtpc *session, enum smtp_scope scope)
{
    const struct smtp_reply *reply = &session->parser.reply;
    struct smtpc_failure failure = {
        .scope = scope,
        .stage = smtpc_stage(session),
        .code = reply->code,
        .text = smtp_reply_text(reply),
        /* A positive answer to the wrong command: replies and commands no longer match. */
        .is_broken = reply->code < 400 || session->state == SMTPC_STATE_BODY,
        /* Sent ahead: 421 ends the server's session (RFC 5321 section 3.8), and what is behind it
         * is not taken; nor is a message whose MAIL was refused. */
        .is_in_doubt = session->state == SMTPC_STATE_ENVELOPE && smtpc_is_in_doubt(session) &&
                       reply->code != 421 &&
                       (reply->code < 400 || session->transaction.answered > 0),
        .is_mismatch = reply->code < 400 || scope == SMTP_SCOPE_PROTOCOL,
    };

    memcpy(failure.enhanced, reply->enhanced, sizeof(failure.enhanced));
    smtpc_fail(session, &failure);
    return SMTPC_FAILED;
}

enum smtpc_event smtpc_fail_text(struct smtpc *session, enum smtp_scope scope, const char *text)
{
    struct smtpc_failure failure = {
        .scope = scope, .stage = smtpc_stage(session), .text = span_from_text(text)};
    uint16_t parts[3];

    CHECK(smtp_enhanced_parse(failure.text, parts) > 0);
    for (uint32_t i = 0; i < 3; i++)
        failure.enhanced[i] = (uint8_t)parts[i];
    smtpc_fail(session, &failure);
    return SMTPC_FAILED;
}

bool smtpc_is_in_doubt(const struct smtpc *session)
{
    const struct smtpc_transaction *transaction = &session->transaction;
    bool is_answered = transaction->answered > transaction->recipient_count;

    return transaction->is_out && !transaction->is_mail_refused &&
           (!is_answered || transaction->accepted_count > 0);
}

/* The dialogue makes no sense any more. The fate of a body whose end was sent is unknown then. */
enum smtpc_event smtpc_fail_dialogue(struct smtpc *session, const char *text)
{
    bool is_in_doubt = smtpc_is_in_doubt(session);

    if (session->state == SMTPC_STATE_ENVELOPE)
        smtpc_results_revoke(session);
    smtpc_fail_text(session, is_in_doubt ? SMTP_SCOPE_HOST : SMTP_SCOPE_PROTOCOL, text);
    session->failure.is_broken = session->failure.is_mismatch = true;
    session->failure.is_in_doubt = is_in_doubt;
    return SMTPC_FAILED;
}

void smtpc_lost(struct smtpc *session, const char *text)
{
    bool is_in_doubt = smtpc_is_in_doubt(session);

    if (session->state == SMTPC_STATE_FAILED) {
        session->failure.is_broken = true;
        return;
    }
    smtpc_fail_text(session, SMTP_SCOPE_HOST, text);
    session->failure.is_broken = true;
    session->failure.is_in_doubt = is_in_doubt;
}

void smtpc_desynchronised(struct smtpc *session)
{
    smtpc_fail_dialogue(session, "4.5.0 the server sent replies that nobody asked for");
}

bool smtpc_can_quit(const struct smtpc *session)
{
    return session->replies_due == 0 &&
           (session->state == SMTPC_STATE_READY ||
            (session->state == SMTPC_STATE_FAILED && !session->failure.is_broken));
}

void smtpc_quit(struct smtpc *session)
{
    CHECK(smtpc_can_quit(session));
    smtpc_enter(session, SMTPC_STATE_QUIT);
}

/* ---- in ---- */

static enum smtpc_event smtpc_on_rset(struct smtpc *session)
{
    if (session->parser.reply.code / 100 != 2)
        return smtpc_fail_reply(session, SMTP_SCOPE_HOST);
    smtpc_enter(session, SMTPC_STATE_READY);
    return SMTPC_READY;
}

static enum smtpc_event (*const smtpc_on_reply[SMTPC_STATE_COUNT])(struct smtpc *session) = {
    [SMTPC_STATE_GREETING] = smtpc_on_greeting, [SMTPC_STATE_EHLO] = smtpc_on_ehlo,
    [SMTPC_STATE_HELO] = smtpc_on_helo,         [SMTPC_STATE_STARTTLS] = smtpc_on_starttls,
    [SMTPC_STATE_AUTH] = smtpc_on_auth,         [SMTPC_STATE_ENVELOPE] = smtpc_on_envelope,
    [SMTPC_STATE_BODY] = smtpc_on_body,         [SMTPC_STATE_END] = smtpc_on_end,
    [SMTPC_STATE_RSET] = smtpc_on_rset,
};

/* Servers do say that they leave without being asked. */
static bool smtpc_is_farewell(struct span octets)
{
    return span_has_prefix_nocase(octets, SPAN_LITERAL("421")) ||
           span_has_prefix_nocase(octets, SPAN_LITERAL("221"));
}

enum smtpc_event smtpc_feed(struct smtpc *session, struct span input, uint32_t *ret_consumed)
{
    enum smtpc_event event = SMTPC_MORE;
    uint32_t consumed = 0;

    CHECK(session->state != SMTPC_STATE_FAILED);
    *ret_consumed = input.size;
    if (session->state == SMTPC_STATE_QUIT || input.size == 0)
        return SMTPC_MORE;
    /* Each round consumes at least one octet. */
    while (consumed < input.size && event == SMTPC_MORE) {
        uint32_t used = 0;

        if (session->replies_due == 0) {
            smtpc_desynchronised(session);
            return SMTPC_FAILED;
        }
        enum err err = smtp_reply_feed(&session->parser, span_skip(input, consumed), &used);
        if (err == ERR_AGAIN)
            return SMTPC_MORE;
        if (err != ERR_OK)
            return smtpc_fail_dialogue(session, err == ERR_LIMIT
                                                    ? "4.5.0 the server's reply is too long"
                                                    : "4.5.0 the server's reply is not SMTP");
        consumed += used;
        if (session->state == SMTPC_STATE_EHLO)
            smtpc_ehlo_line(session);
        if (session->parser.is_last) {
            session->replies_due--;
            session->has_surplus = consumed < input.size;
            session->is_farewell =
                session->has_surplus && smtpc_is_farewell(span_skip(input, consumed));
            event = smtpc_on_reply[session->state](session);
        }
        if (session->replies_due == 0 && event == SMTPC_MORE)
            break; /* whatever follows is judged by the next feed, after the driver looked */
    }
    *ret_consumed = consumed;
    return event;
}

/* ---- out ---- */

void smtpc_put(struct smtpc_writer *writer, struct span octets)
{
    if (octets.size > writer->room.size - writer->used) {
        writer->is_full = true;
        return;
    }
    if (octets.size == 0)
        return; /* an empty span may have no address at all: the null sender */
    memcpy(writer->room.data + writer->used, octets.data, octets.size);
    writer->used += octets.size;
}

void smtpc_put_number(struct smtpc_writer *writer, uint64_t number)
{
    uint8_t digits[20];
    uint32_t first = sizeof(digits);

    do {
        digits[--first] = (uint8_t)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    smtpc_put(writer, span_of(digits + first, (uint32_t)sizeof(digits) - first));
}

void smtpc_put_base64(struct smtpc_writer *writer, struct span octets)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    for (uint32_t i = 0; i < octets.size; i += 3) {
        uint32_t left = octets.size - i;
        uint32_t group = (uint32_t)octets.data[i] << 16 |
                         (left > 1 ? (uint32_t)octets.data[i + 1] << 8 : 0) |
                         (left > 2 ? octets.data[i + 2] : 0);
        char text[4] = {alphabet[group >> 18 & 63], alphabet[group >> 12 & 63],
                        left > 1 ? alphabet[group >> 6 & 63] : '=',
                        left > 2 ? alphabet[group & 63] : '='};
        smtpc_put(writer, span_of(text, sizeof(text)));
    }
}

bool smtpc_may_chunk(const struct smtpc *session)
{
    const struct smtpc_transaction *transaction = &session->transaction;

    return session->state == SMTPC_STATE_BODY && transaction->is_open && transaction->is_bdat &&
           transaction->chunks_due < (transaction->is_pipelined ? SMTPC_CHUNKS_AHEAD_MAX : 1u);
}

void smtpc_chunk(struct smtpc *session, uint64_t size, bool is_last)
{
    CHECK(smtpc_may_chunk(session) && !session->is_command_due);
    session->transaction.chunk.size = size;
    session->transaction.chunk.is_last = is_last;
    session->is_command_due = true;
    if (is_last)
        return; /* its reply is the one to the body */
    session->transaction.chunks_due++;
    session->replies_due++;
}

static void smtpc_command_write(struct smtpc *session, struct smtpc_writer *writer)
{
    switch (session->state) {
    case SMTPC_STATE_EHLO:
    case SMTPC_STATE_HELO:
        smtpc_hello_write(session, writer);
        break;
    case SMTPC_STATE_STARTTLS:
        smtpc_put_text(writer, "STARTTLS\r\n");
        break;
    case SMTPC_STATE_AUTH:
        smtpc_auth_write(session, writer);
        break;
    case SMTPC_STATE_BODY:
        smtpc_chunk_write(&session->transaction, writer);
        break;
    case SMTPC_STATE_RSET:
        smtpc_put_text(writer, "RSET\r\n");
        break;
    default:
        CHECK(session->state == SMTPC_STATE_QUIT);
        smtpc_put_text(writer, session->is_dot_due ? ".\r\nQUIT\r\n" : "QUIT\r\n");
        session->is_dot_due = false;
    }
}

uint32_t smtpc_drain(struct smtpc *session, struct span_mut room)
{
    struct smtpc_writer writer = {.room = room};

    CHECK(room.size >= SMTPC_ROOM_MIN);
    if (session->state == SMTPC_STATE_ENVELOPE ||
        (session->state == SMTPC_STATE_END && session->next_last != NULL)) {
        smtpc_envelope_drain(session, &writer);
        return writer.used;
    }
    if (!session->is_command_due)
        return 0;
    smtpc_command_write(session, &writer);
    CHECK(!writer.is_full);
    session->is_command_due = false;
    if (session->state != SMTPC_STATE_BODY && session->state != SMTPC_STATE_QUIT)
        session->replies_due++; /* BODY: counted already, for the reply to its end */
    return writer.used;
}

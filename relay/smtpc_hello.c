/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client engine from the greeting to READY: EHLO or HELO, what the server offers, TLS by the
 * route's level, AUTH.
 *
 * Invariants
 *   1. What was offered in the clear is forgotten after the handshake (RFC 3207 section 4.2).
 *   2. A route that wants TLS (encrypt, verify) or AUTH never becomes READY without: a server that
 *      does not offer it is skipped like one that does not answer.
 *   3. Credentials are sent under TLS only, whatever the server offers in the clear.
 *   4. Only extensions that this program uses are recognised; the rest of EHLO's lines is skipped.
 *
 * Limits: user name and password together SMTPC_CREDENTIALS_MAX octets (one AUTH PLAIN command fits
 * one drain).
 * Not here: the handshake itself (stream.h).
 */
#include "relay/smtpc_internal.h"

#include "relay/judge.h"

#define SMTPC_CREDENTIALS_MAX 2048u

static const struct smtpc_keyword {
    const char *name;
    uint32_t extension;
} smtpc_keywords[] = {
    {"PIPELINING", SMTPC_PIPELINING},
    {"SIZE", SMTPC_SIZE},
    {"8BITMIME", SMTPC_8BITMIME},
    {"SMTPUTF8", SMTPC_SMTPUTF8},
    {"CHUNKING", SMTPC_CHUNKING},
    {"STARTTLS", SMTPC_STARTTLS},
    {"DSN", SMTPC_DSN},
};

/* The next word of `text`, which is shortened by it and the spaces in front. */
static struct span word_next(struct span *text)
{
    uint32_t start = 0;
    while (start < text->size && text->data[start] == ' ')
        start++;
    uint32_t end = start;
    while (end < text->size && text->data[end] != ' ')
        end++;
    struct span word = span_of(text->data + start, end - start);
    *text = span_skip(*text, end);
    return word;
}

static void smtpc_auth_offered(struct smtpc *session, struct span mechanisms)
{
    /* At most half as many words as the line has octets. */
    for (struct span word = word_next(&mechanisms); word.size > 0; word = word_next(&mechanisms)) {
        if (span_is_equal_nocase(word, SPAN_LITERAL("PLAIN")))
            session->extensions |= SMTPC_AUTH_PLAIN;
        else if (span_is_equal_nocase(word, SPAN_LITERAL("LOGIN")))
            session->extensions |= SMTPC_AUTH_LOGIN;
    }
}

void smtpc_ehlo_line(struct smtpc *session)
{
    struct span text = smtp_reply_line_text(&session->parser);

    if (session->parser.reply.code != 250 || session->parser.line_count == 1)
        return; /* the first line is the server's name */
    struct span name = word_next(&text);
    if (span_is_equal_nocase(name, SPAN_LITERAL("AUTH"))) {
        smtpc_auth_offered(session, text);
        return;
    }
    for (uint32_t i = 0; i < COUNT_OF(smtpc_keywords); i++) {
        const struct smtpc_keyword *keyword = &smtpc_keywords[i];
        if (!span_is_equal_nocase(name, span_from_text(keyword->name)))
            continue;
        session->extensions |= keyword->extension;
        /* A bound we cannot read is as good as none: the server will say it again at MAIL. */
        uint64_t size_max = 0;
        if (keyword->extension == SMTPC_SIZE &&
            span_parse_u64(word_next(&text), &size_max) == ERR_OK)
            session->size_max = size_max;
    }
}

void smtpc_hello_write(struct smtpc *session, struct smtpc_writer *writer)
{
    const char *verb = session->state == SMTPC_STATE_EHLO ? "EHLO " : "HELO ";

    //= rfc2033#section-4.1
    //# The HELO and EHLO commands of SMTP are replaced by the LHLO command.
    smtpc_put_text(writer, session->options.is_lmtp ? "LHLO " : verb);
    smtpc_put_text(writer, session->options.hello_name);
    smtpc_put_text(writer, "\r\n");
}

static enum smtpc_event smtpc_auth_start(struct smtpc *session)
{
    const struct settings_auth *auth = session->options.auth;

    if (!session->is_tls)
        return smtpc_fail_text(session, SMTP_SCOPE_HOST,
                               "4.7.0 credentials are configured and there is no TLS");
    if ((session->extensions & (SMTPC_AUTH_PLAIN | SMTPC_AUTH_LOGIN)) == 0)
        return smtpc_fail_text(session, SMTP_SCOPE_HOST,
                               "4.7.0 the server offers no AUTH mechanism that we know");
    if (strlen(auth->user) + strlen(auth->password) > SMTPC_CREDENTIALS_MAX)
        return smtpc_fail_text(session, SMTP_SCOPE_SOURCE, "4.7.0 the credentials are too long");
    session->auth_step = 0;
    smtpc_enter(session, SMTPC_STATE_AUTH);
    return SMTPC_MORE;
}

/* EHLO or HELO was accepted: what next? */
static enum smtpc_event smtpc_hello_done(struct smtpc *session)
{
    const struct smtpc_options *options = &session->options;

    session->extensions &= ~options->avoid;
    if (options->tls != SETTINGS_TLS_NONE && options->has_tls && !session->is_tls &&
        (session->extensions & SMTPC_STARTTLS) != 0) {
        smtpc_enter(session, SMTPC_STATE_STARTTLS);
        return SMTPC_MORE;
    }
    if (options->tls >= SETTINGS_TLS_ENCRYPT && !session->is_tls)
        return smtpc_fail_text(session, SMTP_SCOPE_HOST,
                               "4.7.4 TLS is required and the server does not offer it");
    if (options->auth != NULL)
        return smtpc_auth_start(session);
    smtpc_enter(session, SMTPC_STATE_READY);
    return SMTPC_READY;
}

enum smtpc_event smtpc_on_greeting(struct smtpc *session)
{
    const struct smtp_reply *reply = &session->parser.reply;

    if (reply->code != 220)
        return smtpc_fail_reply(session, judge_reply(SMTP_STAGE_GREETING, reply).scope);
    smtpc_enter(session,
                (session->options.avoid & SMTPC_ESMTP) != 0 ? SMTPC_STATE_HELO : SMTPC_STATE_EHLO);
    return SMTPC_MORE;
}

enum smtpc_event smtpc_on_ehlo(struct smtpc *session)
{
    const struct smtp_reply *reply = &session->parser.reply;

    if (reply->code == 250)
        return smtpc_hello_done(session);
    //= rfc5321#section-4.1.4
    //# If the EHLO command is not acceptable to the SMTP server, 501, 500, 502, or 550 failure
    //# replies MUST be returned as appropriate.
    if (reply->code >= 500 && reply->code != 521 && !session->is_tls && !session->options.is_lmtp) {
        smtpc_enter(session, SMTPC_STATE_HELO);
        return SMTPC_MORE;
    }
    return smtpc_fail_reply(session, judge_reply(SMTP_STAGE_EHLO, reply).scope);
}

enum smtpc_event smtpc_on_helo(struct smtpc *session)
{
    const struct smtp_reply *reply = &session->parser.reply;

    if (reply->code == 250)
        return smtpc_hello_done(session);
    return smtpc_fail_reply(session, judge_reply(SMTP_STAGE_EHLO, reply).scope);
}

enum smtpc_event smtpc_on_starttls(struct smtpc *session)
{
    const struct smtp_reply *reply = &session->parser.reply;

    if (reply->code != 220)
        return smtpc_fail_reply(session, judge_reply(SMTP_STAGE_STARTTLS, reply).scope);
    smtpc_enter(session, SMTPC_STATE_HANDSHAKE);
    return SMTPC_START_TLS;
}

void smtpc_tls_done(struct smtpc *session)
{
    session->is_tls = true;
    session->size_max = 0;
    smtpc_enter(session, SMTPC_STATE_EHLO);
}

/* RFC 4616: empty authorization identity, NUL, user, NUL, password. */
static void smtpc_auth_plain_write(const struct settings_auth *auth, struct smtpc_writer *writer)
{
    uint8_t message[SMTPC_CREDENTIALS_MAX + 2];
    uint32_t user_size = (uint32_t)strlen(auth->user);
    uint32_t password_size = (uint32_t)strlen(auth->password);

    CHECK(user_size + password_size <= SMTPC_CREDENTIALS_MAX);
    message[0] = 0;
    memcpy(message + 1, auth->user, user_size);
    message[1 + user_size] = 0;
    memcpy(message + 2 + user_size, auth->password, password_size);
    smtpc_put_text(writer, "AUTH PLAIN ");
    smtpc_put_base64(writer, span_of(message, 2 + user_size + password_size));
    explicit_bzero(message, sizeof(message));
}

void smtpc_auth_write(struct smtpc *session, struct smtpc_writer *writer)
{
    const struct settings_auth *auth = session->options.auth;

    CHECK(session->is_tls);
    if ((session->extensions & SMTPC_AUTH_PLAIN) != 0)
        smtpc_auth_plain_write(auth, writer);
    else if (session->auth_step == 0)
        smtpc_put_text(writer, "AUTH LOGIN");
    else
        smtpc_put_base64(writer,
                         span_from_text(session->auth_step == 1 ? auth->user : auth->password));
    smtpc_put_text(writer, "\r\n");
}

enum smtpc_event smtpc_on_auth(struct smtpc *session)
{
    const struct smtp_reply *reply = &session->parser.reply;

    if (reply->code == 235) {
        smtpc_enter(session, SMTPC_STATE_READY);
        return SMTPC_READY;
    }
    /* LOGIN asks twice, for name and password; PLAIN with its initial response never. */
    if (reply->code == 334 && (session->extensions & SMTPC_AUTH_PLAIN) == 0 &&
        session->auth_step < 2) {
        session->auth_step++;
        session->is_command_due = true;
        return SMTPC_MORE;
    }
    return smtpc_fail_reply(session, judge_reply(SMTP_STAGE_AUTH, reply).scope);
}

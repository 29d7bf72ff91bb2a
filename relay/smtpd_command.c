/* SPDX-License-Identifier: Apache-2.0 */
/*
 * EHLO and the commands that carry no mail. Order and pipelining were judged before a handler is
 * called (smtpd.c), so handlers look at their arguments only.
 */
#include <stdlib.h>

#include "relay/smtpd_auth.h"
#include "relay/smtpd_internal.h"

/* Host names and address literals, and what careless clients make of them ('_'); nothing that
 * could need quoting in the trace field or a log. Octets above 127 are no host name: RFC 6531
 * section 3.7.1 wants A-labels here. */
static bool is_hello_name(struct span name)
{
    if (name.size == 0 || name.size > SMTP_DOMAIN_MAX)
        return false;
    for (uint32_t i = 0; i < name.size; i++) {
        uint8_t octet = name.data[i];
        bool is_alphanumeric = (octet >= '0' && octet <= '9') || (octet >= 'a' && octet <= 'z') ||
                               (octet >= 'A' && octet <= 'Z');
        if (!is_alphanumeric && (octet == '\0' || strchr(".-_:[]", octet) == NULL))
            return false;
    }
    return true;
}

/* The name is kept, the transaction (there is none) and its traces are forgotten. */
static bool take_hello(struct smtpd_context *context, struct smtpd_session *session,
                       struct span name)
{
    if (!is_hello_name(name)) {
        smtpd_reply(context, session, SMTPD_REPLY_HELLO_NAME);
        return false;
    }
    char *copy = strndup((const char *)name.data, name.size);
    if (copy == NULL) {
        smtpd_reply(context, session, SMTPD_REPLY_MEMORY);
        return false;
    }
    smtpd_hello_set(session, copy);
    if (session->state == SMTPD_GREETED)
        smtpd_enter(session, SMTPD_READY);
    smtpd_transaction_reset(context, session);
    return true;
}

static bool is_starttls_offered(const struct smtpd_session *session)
{
    return session->listener->offer_starttls && !session->is_tls;
}

/* What the relay calls itself, between these two. */
static void reply_with_name(struct smtpd_context *context, struct smtpd_session *session,
                            struct span before, struct span behind)
{
    uint8_t octets[SMTP_DOMAIN_MAX + 32] UNINITIALIZED;
    struct span_text text = {.data = octets, .size_max = sizeof(octets)};

    span_text_put(&text, before);
    span_text_put(&text, smtpd_own_name(session));
    span_text_put(&text, behind);
    smtpd_reply_text(context, session, span_text_get(&text));
}

void smtpd_on_ehlo(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now)
{
    uint8_t octets[832] UNINITIALIZED;
    struct span_text text = {.data = octets, .size_max = sizeof(octets)};
    char offer[64] = "";

    (void)now;
    if (!take_hello(context, session, line->argument))
        return;
    session->is_esmtp = true;
    (void)smtpd_auth_offer(context, session, offer);
    span_text_put(&text, SPAN_LITERAL("250-"));
    span_text_put(&text, smtpd_own_name(session));
    span_text_put(&text, SPAN_LITERAL("\r\n250-PIPELINING\r\n250-SIZE "));
    span_text_put_u64(&text, session->listener->limits.message_size_max);
    span_text_put(&text, SPAN_LITERAL("\r\n"));
    if (is_starttls_offered(session))
        span_text_put(&text, SPAN_LITERAL("250-STARTTLS\r\n"));
    span_text_put(&text, span_from_text(offer));
    span_text_put(&text, SPAN_LITERAL("250-8BITMIME\r\n250-SMTPUTF8\r\n250-CHUNKING\r\n250-DSN\r\n"
                                      "250 ENHANCEDSTATUSCODES\r\n"));
    smtpd_reply_text(context, session, span_text_get(&text));
}

void smtpd_on_helo(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now)
{
    (void)now;
    if (!take_hello(context, session, line->argument))
        return;
    session->is_esmtp = false;
    reply_with_name(context, session, SPAN_LITERAL("250 "), SPAN_LITERAL("\r\n"));
}

void smtpd_greet(struct smtpd_context *context, struct smtpd_session *session,
                 bool has_early_octets, struct tick_now now)
{
    CHECK(session->state == SMTPD_CONNECTED);
    if (has_early_octets) {
        smtpd_dismiss(context, session, SMTPD_REPLY_EARLY_TALKER);
        return;
    }
    if (context->is_storage_lost) {
        smtpd_dismiss(context, session, SMTPD_REPLY_STORAGE_LOST);
        return;
    }
    reply_with_name(context, session, SPAN_LITERAL("220 "), SPAN_LITERAL(" ESMTP Angarium\r\n"));
    smtpd_enter(session, SMTPD_GREETED);
    session->phase_deadline = now.tick + session->listener->limits.command_timeout;
}

void smtpd_on_rset(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now)
{
    (void)now;
    if (line->argument.size > 0) {
        smtpd_reply(context, session, SMTPD_REPLY_ARGUMENT_NONE);
        return;
    }
    smtpd_transaction_reset(context, session);
    smtpd_reply(context, session, SMTPD_REPLY_RESET);
}

void smtpd_on_noop(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now)
{
    (void)line, (void)now;
    smtpd_reply(context, session, SMTPD_REPLY_OK);
}

void smtpd_on_vrfy(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now)
{
    (void)now;
    smtpd_reply(context, session,
                line->argument.size > 0 ? SMTPD_REPLY_VERIFY : SMTPD_REPLY_ARGUMENT);
}

void smtpd_on_help(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now)
{
    (void)line, (void)now;
    smtpd_reply(context, session, SMTPD_REPLY_HELP);
}

void smtpd_on_quit(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now)
{
    (void)now;
    if (line->argument.size > 0)
        smtpd_reply(context, session, SMTPD_REPLY_ARGUMENT_NONE);
    else
        smtpd_dismiss(context, session, SMTPD_REPLY_BYE);
}

void smtpd_on_starttls(struct smtpd_context *context, struct smtpd_session *session,
                       const struct smtpd_line *line, struct tick_now now)
{
    (void)now;
    if (line->argument.size > 0) {
        smtpd_reply(context, session, SMTPD_REPLY_ARGUMENT_NONE);
    } else if (session->is_tls) {
        smtpd_reply(context, session, SMTPD_REPLY_TLS_ACTIVE);
    } else if (!is_starttls_offered(session)) {
        smtpd_reply(context, session, SMTPD_REPLY_TLS_ABSENT);
    } else {
        smtpd_reply(context, session, SMTPD_REPLY_TLS_READY);
        session->is_tls_wanted = true;
    }
}

void smtpd_on_http(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now)
{
    (void)line, (void)now;
    smtpd_dismiss(context, session, SMTPD_REPLY_NOT_SMTP);
}

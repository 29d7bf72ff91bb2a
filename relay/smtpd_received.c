/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The trace field that every relay puts in front of a message (RFC 5321 section 4.4), and the
 * client's description for records. All of the client's that goes in is its EHLO name, which
 * smtpd_command.c lets pass only as letters, digits and ".-_:[]".
 *
 *   Received: from client.example ([192.0.2.1])
 *   \tby relay.example with ESMTPS id aaaa...;
 *   \tMon, 23 Nov 2026 22:13:58 +0000
 */
#include <stdio.h>
#include <time.h>

#include "relay/smtpd_internal.h"

/* Keywords of RFC 3848 and RFC 6531 section 4.3. */
static const char *protocol_name(const struct smtpd_session *session)
{
    bool has_user = smtpd_user(session).size > 0;

    if (session->transaction != NULL &&
        (session->transaction->envelope.flags & ENVELOPE_SMTPUTF8) != 0)
        return has_user ? (session->is_tls ? "UTF8SMTPSA" : "UTF8SMTPA")
                        : (session->is_tls ? "UTF8SMTPS" : "UTF8SMTP");
    if (has_user)
        return session->is_tls ? "ESMTPSA" : "ESMTPA";
    if (session->is_tls)
        return "ESMTPS";
    return session->is_esmtp ? "ESMTP" : "SMTP";
}

/* RFC 5322 section 3.3, in UTC, whatever the locale. Kept for as long as the second lasts. */
struct span smtpd_date(struct smtpd_context *context, wall_us time)
{
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    int64_t second = time / 1000000;

    if (second != context->date_second || context->date[0] == '\0') {
        time_t seconds = (time_t)second;
        struct tm tm = {.tm_mday = 1, .tm_year = 70, .tm_wday = 4};
        gmtime_r(&seconds, &tm);
        snprintf(context->date, sizeof(context->date), "%s, %d %s %d %02d:%02d:%02d +0000",
                 days[tm.tm_wday % 7], tm.tm_mday, months[tm.tm_mon % 12], tm.tm_year + 1900,
                 tm.tm_hour, tm.tm_min, tm.tm_sec);
        context->date_second = second;
    }
    return span_from_text(context->date);
}

static struct span bounded_text(const char *text)
{
    return span_of(text, (uint32_t)strnlen(text, SMTP_DOMAIN_MAX));
}

struct span smtpd_own_name(const struct smtpd_session *session)
{
    return bounded_text(session->settings->hostname);
}

static struct span client_format(const struct smtpd_session *session, uint8_t *ret_text)
{
    struct span_text text = {.data = ret_text, .size_max = SMTPD_TRACE_SIZE_MAX};
    char ip[FLOW_ADDRESS_TEXT_MAX];
    bool is_ip6 = session->peer.family == FLOW_FAMILY_IP6;

    span_text_put(&text, bounded_text(session->hello_name));
    /* An address literal of RFC 5321 section 4.1.3. */
    if (is_ip6 || session->peer.family == FLOW_FAMILY_IP4) {
        span_text_put(&text, is_ip6 ? SPAN_LITERAL(" [IPv6:") : SPAN_LITERAL(" ["));
        span_text_put(&text, span_from_text(flow_address_format_ip(&session->peer, ip)));
        span_text_put(&text, SPAN_LITERAL("]"));
    } else {
        span_text_put(&text, SPAN_LITERAL(" [local]"));
    }
    return span_text_get(&text);
}

/* The same for all messages of a session, but for another EHLO. A message may outlive that: it has
 * a copy of its own. */
struct span smtpd_client_format(struct smtpd_session *session, uint8_t *ret_text)
{
    if (session->client_text == NULL) {
        struct span text = client_format(session, ret_text);
        session->client_text = strndup((const char *)text.data, text.size);
        return text;
    }
    struct span_text text = {.data = ret_text, .size_max = SMTPD_TRACE_SIZE_MAX};
    span_text_put(&text, span_from_text(session->client_text));
    return span_text_get(&text);
}

struct span smtpd_received_format(struct smtpd_context *context,
                                  const struct smtpd_session *session, struct span client,
                                  wall_us time, uint8_t *ret_text)
{
    struct span hello = bounded_text(session->hello_name);
    struct span_text text = {.data = ret_text, .size_max = SMTPD_TRACE_SIZE_MAX};

    span_text_put(&text, SPAN_LITERAL("Received: from "));
    span_text_put(&text, hello);
    span_text_put(&text, SPAN_LITERAL(" ("));
    span_text_put(&text, span_skip(client, hello.size + 1)); /* the literal */
    span_text_put(&text, SPAN_LITERAL(")\r\n\tby "));
    span_text_put(&text, smtpd_own_name(session));
    span_text_put(&text, SPAN_LITERAL(" with "));
    span_text_put(&text, span_from_text(protocol_name(session)));
    span_text_put(&text, SPAN_LITERAL(" id "));
    span_text_put(&text, span_from_text(session->transaction->id_text));
    span_text_put(&text, SPAN_LITERAL(";\r\n\t"));
    span_text_put(&text, smtpd_date(context, time));
    span_text_put(&text, SPAN_LITERAL("\r\n"));
    return span_text_get(&text);
}

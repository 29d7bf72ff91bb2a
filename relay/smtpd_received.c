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
    if (session->transaction != NULL &&
        (session->transaction->envelope.flags & ENVELOPE_SMTPUTF8) != 0)
        return session->is_tls ? "UTF8SMTPS" : "UTF8SMTP";
    if (session->is_tls)
        return "ESMTPS";
    return session->is_esmtp ? "ESMTP" : "SMTP";
}

/* An address literal of RFC 5321 section 4.1.3. */
static void literal_format(const struct flow_address *address,
                           char ret_text[FLOW_ADDRESS_TEXT_MAX + 8])
{
    char ip[FLOW_ADDRESS_TEXT_MAX];

    if (address->family == FLOW_FAMILY_IP4 || address->family == FLOW_FAMILY_IP6) {
        snprintf(ret_text, FLOW_ADDRESS_TEXT_MAX + 8, "[%s%s]",
                 address->family == FLOW_FAMILY_IP6 ? "IPv6:" : "",
                 flow_address_format_ip(address, ip));
    } else {
        snprintf(ret_text, FLOW_ADDRESS_TEXT_MAX + 8, "[local]");
    }
}

/* RFC 5322 section 3.3, in UTC, whatever the locale. */
static void date_format(wall_us time, char ret_text[40])
{
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t seconds = (time_t)(time / 1000000);
    struct tm tm = {.tm_mday = 1, .tm_year = 70, .tm_wday = 4};

    gmtime_r(&seconds, &tm);
    snprintf(ret_text, 40, "%s, %d %s %d %02d:%02d:%02d +0000", days[tm.tm_wday % 7], tm.tm_mday,
             months[tm.tm_mon % 12], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

uint32_t smtpd_received_format(const struct smtpd_session *session, struct message_id id,
                               wall_us time, char ret_text[SMTPD_RECEIVED_SIZE_MAX])
{
    char literal[FLOW_ADDRESS_TEXT_MAX + 8], date[40], id_text[MESSAGE_ID_TEXT_SIZE];

    literal_format(&session->peer, literal);
    date_format(time, date);
    int size = snprintf(ret_text, SMTPD_RECEIVED_SIZE_MAX,
                        "Received: from %.255s (%s)\r\n\tby %.255s with %s id %s;\r\n\t%s\r\n",
                        session->hello_name, literal, session->settings->hostname,
                        protocol_name(session), message_id_format(id, id_text), date);
    CHECK(size > 0 && size < (int)SMTPD_RECEIVED_SIZE_MAX);
    return (uint32_t)size;
}

uint32_t smtpd_client_format(const struct smtpd_session *session,
                             char ret_text[SMTPD_RECEIVED_SIZE_MAX])
{
    char literal[FLOW_ADDRESS_TEXT_MAX + 8];

    literal_format(&session->peer, literal);
    int size =
        snprintf(ret_text, SMTPD_RECEIVED_SIZE_MAX, "%.255s %s", session->hello_name, literal);
    CHECK(size > 0 && size < (int)SMTPD_RECEIVED_SIZE_MAX);
    return (uint32_t)size;
}

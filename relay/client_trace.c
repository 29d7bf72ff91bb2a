/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What viewers see of outbound connections (trace.h): commands when they are written, replies when
 * they were read, and what became of the connection. Called only while somebody looks on.
 *
 * A reply line may come in pieces, of which the engine keeps the unfinished one: the caller asks
 * for it before it feeds, and brings it with what was fed. What is unfinished then comes with the
 * next piece.
 */
#include "relay/client_internal.h"

#include <stdarg.h>
#include <stdio.h>

static struct trace_subject subject_of(const struct client *client,
                                       const struct client_connection *connection)
{
    const struct client_request *request = &connection->attempt.request;
    struct trace_subject subject = {
        .side = TRACE_OUTBOUND,
        .session = connection->id,
        .began = connection->opened,
        .peer = &connection->peer,
    };

    if (client->options.site_label != NULL)
        subject.site = client->options.site_label(client->options.context, connection->site);
    if (!connection->has_request)
        return subject;
    subject.envelope = request->envelope;
    subject.id = request->envelope->id;
    subject.domain = request->envelope->recipients[request->recipients[0]].domain;
    return subject;
}

void client_trace_commands(struct client *client, const struct client_connection *connection,
                           struct span octets, bool is_secret)
{
    struct trace_subject subject = subject_of(client, connection);
    uint32_t viewers = trace_match(client->options.trace, &subject);

    if (viewers != 0)
        trace_commands(client->options.trace, &subject, viewers, octets, is_secret);
}

uint32_t client_trace_unfinished(const struct client_connection *connection,
                                 uint8_t ret_octets[SMTP_REPLY_LINE_KEPT])
{
    const struct smtp_reply_parser *parser = &connection->smtpc.parser;
    uint32_t size = parser->is_line_done ? 0 : parser->line_size;

    if (size > SMTP_REPLY_LINE_KEPT)
        size = SMTP_REPLY_LINE_KEPT;
    memcpy(ret_octets, parser->line, size);
    return size;
}

void client_trace_replies(struct client *client, const struct client_connection *connection,
                          struct span unfinished, struct span octets)
{
    struct trace_subject subject = subject_of(client, connection);
    uint32_t viewers = trace_match(client->options.trace, &subject);
    uint8_t first[2 * SMTP_REPLY_LINE_KEPT];
    const uint8_t *end = octets.size == 0 ? NULL : memchr(octets.data, '\n', octets.size);

    if (viewers == 0 || end == NULL)
        return;
    /* The line that was begun earlier, put together as far as a viewer sees it. */
    uint32_t size = (uint32_t)(end - octets.data) + 1;
    uint32_t taken = size < SMTP_REPLY_LINE_KEPT ? size : SMTP_REPLY_LINE_KEPT;
    CHECK(unfinished.size <= SMTP_REPLY_LINE_KEPT);
    memcpy(first, unfinished.data, unfinished.size);
    memcpy(first + unfinished.size, octets.data, taken);
    trace_replies(client->options.trace, &subject, viewers,
                  span_of(first, unfinished.size + taken));
    octets = span_skip(octets, size);
    uint32_t whole = octets.size;
    while (whole > 0 && octets.data[whole - 1] != '\n')
        whole--;
    trace_replies(client->options.trace, &subject, viewers, span_head(octets, whole));
}

void client_trace_note(struct client *client, const struct client_connection *connection,
                       const char *format, ...)
{
    struct trace_subject subject = subject_of(client, connection);
    uint32_t viewers = trace_match(client->options.trace, &subject);
    char text[TRACE_TEXT_MAX];
    va_list arguments;

    if (viewers == 0)
        return;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    trace_note(client->options.trace, &subject, viewers, "%s", text);
}

void client_trace_connected(struct client *client, const struct client_connection *connection)
{
    struct span site = subject_of(client, connection).site;

    client_trace_note(client, connection, "connected to %s, site %.*s", connection->host,
                      (int)site.size, (const char *)site.data);
}

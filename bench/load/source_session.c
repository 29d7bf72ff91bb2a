/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection of the source: greeting, EHLO, STARTTLS, and the replies to one message after the
 * other. source.c has the states.
 *
 * What the peer offers is taken at its word. PIPELINING is used when it is offered; BDAT and
 * STARTTLS are used because they were asked for, and when they are not offered that is told and the
 * end: a run that measured something else would be worse than none.
 */
#include "bench/load/source_internal.h"

#include <stdio.h>

#define LINE_MAX_SEEN 2048u /* longer reply lines lose the connection */

static tick_us elapsed(const struct source *source, tick_us since)
{
    return source->now.tick > since ? source->now.tick - since : 0;
}

/* ---- begin and end ---- */

/* A session keeps to one of our addresses: each has ports for some 60,000 connections. */
static struct flow_address session_address(const struct source *source, uint64_t number)
{
    if (source->address_count == 0)
        return (struct flow_address){.family = FLOW_FAMILY_NONE};
    return source->addresses[number % source->address_count]->address;
}

void source_session_connect(struct source *source, struct source_session *session)
{
    uint64_t number = (uint64_t)(session - source->sessions);
    struct flow_connect_options connect = {
        .remote = source->options->target,
        .source = session_address(source, number),
        .deadline = source->now.tick + TICK_S(30),
        .receive_limit = 65536,
        .send_limit = 1u << 20,
        .user = number,
    };
    struct flow flow;

    if (flow_connect(source->plane, &connect, &flow) != ERR_OK) {
        source_session_rest(source, session, false);
        return;
    }
    stream_init(&session->stream, source->plane, flow);
    session->state = SESSION_CONNECTING;
    session->is_open = true;
    session->is_helo = false;
    session->sent = 0;
    session->offers = 0;
    session->since = source->now.tick;
    source->meter->open++;
}

void source_session_lost(struct source *source, struct source_session *session)
{
    stream_abort(&session->stream);
    source->meter->open--;
    session->is_open = false;
    if (session->state == SESSION_ENVELOPE || session->state == SESSION_BODY)
        meter_count(source->meter, METER_LOST, 1);
    if (session->state == SESSION_SILENT) {
        meter_count(source->meter, METER_IDLE_LOST, 1);
        source->silent_count--;
    }
    source_session_rest(source, session, false);
}

/* The peer's FIN after QUIT. It was first: the port is free at once. */
static void session_done(struct source *source, struct source_session *session)
{
    stream_close(&session->stream);
    source->meter->open--;
    session->is_open = false;
    source_session_rest(source, session, true);
}

/* Nothing came of this connection. If nothing came of any, there is no point in going on. */
static void session_refused(struct source *source, struct source_session *session, const char *what,
                            struct span line)
{
    const struct load_options *options = source->options;

    meter_count(source->meter, METER_REFUSED, 1);
    source->refused++;
    if (!options->is_patient && !source->was_ready && source->refused >= options->sessions)
        source_fail(source, what, line);
    session->state = SESSION_IDLE;
    source_session_lost(source, session);
}

void source_session_quit(struct source *source, struct source_session *session)
{
    source_session_write(source, session, SPAN_LITERAL("QUIT\r\n"));
    session->since = source->now.tick;
    session->state = SESSION_QUIT;
}

void source_session_next(struct source *source, struct source_session *session)
{
    const struct load_options *options = source->options;
    bool is_full =
        options->messages_per_session > 0 && session->sent >= options->messages_per_session;

    if (is_full || !source_has_work(source))
        source_session_quit(source, session);
    else if (source_session_is_silent(source, session))
        source_session_silence(source, session);
    else if (!source_is_due(source))
        source_session_wait(source, session);
    else
        source_message_begin(source, session);
}

/* ---- greeting ---- */

static void session_hello(struct source *source, struct source_session *session)
{
    char command[300];
    int size = snprintf(command, sizeof(command), "%s %.255s\r\n",
                        session->is_helo ? "HELO" : "EHLO", source->options->hello);

    session->offers = 0;
    session->state = SESSION_HELLO;
    session->since = source->now.tick;
    source_session_write(source, session, span_of(command, (uint32_t)size));
}

static void session_offered(struct source_session *session, struct span line)
{
    static const struct {
        const char *name;
        enum source_offer offer;
    } offers[] = {{"PIPELINING", OFFER_PIPELINING},
                  {"CHUNKING", OFFER_CHUNKING},
                  {"STARTTLS", OFFER_STARTTLS}};

    for (size_t i = 0; i < COUNT_OF(offers); i++) {
        struct span name = span_from_text(offers[i].name);
        bool is_it = span_has_prefix_nocase(line, name) &&
                     (line.size == name.size || line.data[name.size] <= ' ');
        session->offers |= is_it ? (uint8_t)offers[i].offer : 0;
    }
}

static void session_handshake(struct source *source, struct source_session *session)
{
    session->state = SESSION_HANDSHAKE;
    session->since = source->now.tick;
    if (source_tls_start(source, &session->stream) != ERR_OK)
        session_refused(source, session,
                        source->options->tls == LOAD_TLS_IMPLICIT
                            ? "--tls: the peer speaks in the clear"
                            : "octets in the clear behind the reply to STARTTLS",
                        SPAN_LITERAL(""));
}

static void session_ready(struct source *source, struct source_session *session)
{
    const char *version = stream_tls_version(&session->stream);

    if (!source->was_ready)
        (void)snprintf(source->note, sizeof(source->note), "%s, %s, %s",
                       !(session->offers & OFFER_PIPELINING) ? "no PIPELINING offered"
                       : source->options->has_no_pipelining  ? "PIPELINING not used"
                                                             : "PIPELINING",
                       source->options->has_chunking ? "BDAT" : "DATA",
                       version == NULL ? "in the clear" : version);
    source->was_ready = true;
    session->state = SESSION_READY;
    source_session_next(source, session);
}

static void session_on_hello(struct source *source, struct source_session *session, int code,
                             struct span line)
{
    const struct load_options *options = source->options;

    meter_latency(source->meter, METER_HELLO, elapsed(source, session->since));
    if (code >= 500 && !session->is_helo) {
        session->is_helo = true; /* RFC 5321 section 4.1.4 */
        session_hello(source, session);
    } else if (code >= 400) {
        session_refused(source, session, "EHLO was refused", line);
    } else if (options->tls == LOAD_TLS_START && session->stream.tls == NULL) {
        if (session->offers & OFFER_STARTTLS) {
            source_session_write(source, session, SPAN_LITERAL("STARTTLS\r\n"));
            session->since = source->now.tick;
            session->state = SESSION_STARTTLS;
        } else {
            source_fail(source, "--starttls: the peer does not offer STARTTLS", SPAN_LITERAL(""));
            source_session_quit(source, session);
        }
    } else if (options->has_chunking && !(session->offers & OFFER_CHUNKING)) {
        source_fail(source, "--chunking: the peer does not offer CHUNKING", SPAN_LITERAL(""));
        source_session_quit(source, session);
    } else {
        session_ready(source, session);
    }
}

/* ---- the replies to a message ---- */

static void session_count(struct source *source, struct source_session *session, char kind,
                          int code)
{
    if (source->ledger != NULL)
        ledger_source(source->ledger, kind, source->options->run, session->sequence, code,
                      kind == 'A' ? (int)session->accepted : -1);
    session->sent++;
    if (code < 400) {
        meter_count(source->meter, METER_MESSAGES, 1);
        meter_count(source->meter, METER_RECIPIENTS, session->accepted);
    } else {
        meter_count(source->meter, code < 500 ? METER_TEMPFAILS : METER_PERMFAILS, 1);
    }
}

static void session_reset(struct source *source, struct source_session *session)
{
    source_session_write(source, session, SPAN_LITERAL("RSET\r\n"));
    session->since = source->now.tick;
    session->state = SESSION_RESET;
}

static void session_on_final(struct source *source, struct source_session *session, int code)
{
    meter_latency(source->meter, METER_FINAL, elapsed(source, session->since));
    meter_latency(source->meter, METER_MESSAGE, elapsed(source, session->intended));
    bool is_refused = session->accepted == 0; /* an empty text, or BDAT for nobody */
    session_count(source, session, is_refused ? 'F' : 'A',
                  is_refused && session->failed_code > 0 ? session->failed_code : code);
    session->state = SESSION_READY;
    if (is_refused || code >= 400)
        session_reset(source, session);
    else
        source_session_next(source, session);
}

/* All commands are answered: send the text, unless nobody wants it. */
static void session_on_envelope_end(struct source *source, struct source_session *session, int code)
{
    bool has_bdat = source->options->has_chunking;

    if (session->has_body) {
        session->state = SESSION_BODY; /* BDAT went with the commands */
    } else if (has_bdat ? session->accepted > 0 : code == 354) {
        session->state = SESSION_BODY;
        source_message_body(source, session, session->accepted == 0);
    } else {
        session_count(source, session, 'F', session->failed_code > 0 ? session->failed_code : code);
        session_reset(source, session);
    }
}

static void session_on_command(struct source *source, struct source_session *session, int code)
{
    uint32_t recipients = source->options->recipients;
    uint32_t index = session->commands_sent - session->commands_left;
    bool is_recipient = index >= 1 && index <= recipients;
    uint32_t count = recipients + (source->options->has_chunking ? 1 : 2);

    meter_latency(source->meter,
                  index == 0     ? METER_MAIL
                  : is_recipient ? METER_RCPT
                                 : METER_DATA,
                  elapsed(source, session->since));
    if (code >= 400 && session->failed_code == 0)
        session->failed_code = code;
    session->accepted += is_recipient && code < 300;
    meter_count(source->meter, METER_NOT_TAKEN, is_recipient && code >= 400);
    session->commands_left--;
    if (session->commands_left > 0)
        return;
    bool is_hopeless = session->failed_code > 0 && index == 0 && session->commands_sent < count;
    bool is_unwanted = index == recipients && session->accepted == 0;
    if (session->commands_sent < count && !is_hopeless && !is_unwanted)
        source_message_commands(source, session);
    else
        session_on_envelope_end(source, session, code);
}

/* ---- replies ---- */

static void session_on_reply(struct source *source, struct source_session *session, int code,
                             struct span line)
{
    switch (session->state) {
    case SESSION_BANNER:
        meter_latency(source->meter, METER_BANNER, elapsed(source, session->since));
        if (code >= 200 && code < 300)
            session_hello(source, session);
        else
            session_refused(source, session, "the greeting was a refusal", line);
        break;
    case SESSION_HELLO:
        session_on_hello(source, session, code, line);
        break;
    case SESSION_STARTTLS:
        if (code < 300)
            session_handshake(source, session);
        else
            session_refused(source, session, "STARTTLS was refused", line);
        break;
    case SESSION_RESET:
        source_session_next(source, session);
        break;
    case SESSION_ENVELOPE:
        session_on_command(source, session, code);
        break;
    case SESSION_BODY:
        session_on_final(source, session, code);
        break;
    default: /* 421 to one that waits, or the reply to QUIT: its FIN follows */
        break;
    }
}

static int code_of(struct span line)
{
    for (uint32_t i = 0; i < 3; i++) {
        if (line.size < 3 || line.data[i] < '0' || line.data[i] > '9')
            return 599;
    }
    return (line.data[0] - '0') * 100 + (line.data[1] - '0') * 10 + (line.data[2] - '0');
}

static void session_read(struct source *source, struct source_session *session)
{
    while (session->is_open) {
        struct span seen = stream_pull(&session->stream, LINE_MAX_SEEN);
        const uint8_t *end = seen.size == 0 ? NULL : memchr(seen.data, '\n', seen.size);
        char copy[LINE_MAX_SEEN] UNINITIALIZED;

        if (end == NULL) {
            if (seen.size == LINE_MAX_SEEN)
                source_session_lost(source, session);
            return;
        }
        uint32_t size = (uint32_t)(end - seen.data) + 1;
        struct span line = span_of(copy, size > 1 && end[-1] == '\r' ? size - 2 : size - 1);
        memcpy(copy, seen.data, line.size);
        stream_consume(&session->stream, size);
        if (session->state == SESSION_HELLO && line.size > 4)
            session_offered(session, span_skip(line, 4));
        if (line.size < 4 || line.data[3] != '-')
            session_on_reply(source, session, code_of(line), line);
    }
}

static void session_connected(struct source *source, struct source_session *session)
{
    if (session->state == SESSION_CONNECTING) {
        meter_latency(source->meter, METER_CONNECT, elapsed(source, session->since));
        meter_count(source->meter, METER_CONNECTIONS, 1);
        session->since = source->now.tick;
        session->state = SESSION_BANNER;
        if (source->options->tls == LOAD_TLS_IMPLICIT)
            session_handshake(source, session);
    } else if (session->state == SESSION_HANDSHAKE) {
        meter_latency(source->meter, METER_TLS, elapsed(source, session->since));
        meter_count(source->meter, METER_RESUMED, stream_tls_is_resumed(&session->stream));
        session->since = source->now.tick;
        if (source->options->tls == LOAD_TLS_IMPLICIT)
            session->state = SESSION_BANNER;
        else
            session_hello(source, session);
    }
}

static void session_ended(struct source *source, struct source_session *session)
{
    bool was_ready = session->state >= SESSION_READY;
    const char *reason = stream_tls_reason(&session->stream);
    enum err err = stream_error(&session->stream);

    if (session->state == SESSION_CONNECTING)
        session_refused(source, session, "cannot connect", span_from_text(err_text(err)));
    else if (!was_ready)
        session_refused(source, session, "the connection ended before a message could be sent",
                        span_from_text(reason != NULL  ? reason
                                       : err != ERR_OK ? err_text(err)
                                                       : "closed by the peer"));
    else if (session->state == SESSION_QUIT)
        session_done(source, session);
    else
        source_session_lost(source, session);
}

void source_session_on_event(struct source *source, struct source_session *session,
                             const struct flow_event *event)
{
    if (!session->is_open || event->flow.index != session->stream.flow.index ||
        event->flow.generation != session->stream.flow.generation)
        return;
    uint32_t events = stream_on_event(&session->stream, event);
    if (events & FLOW_CONNECTED)
        session_connected(source, session);
    if (session->is_open && events & FLOW_READABLE)
        session_read(source, session);
    if (session->is_open && events & (FLOW_PEER_CLOSED | FLOW_RESET | FLOW_FAILED))
        session_ended(source, session);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source: N sessions, each sending one message after the other, MAIL, RCPT and DATA in one
 * flight where PIPELINING is offered.
 *
 *   CONNECTING -> BANNER -> HELLO -> ENVELOPE -> BODY -> (ENVELOPE | QUIT)
 *   any state  -> lost: the session reconnects while work is left
 *
 * A message is counted when its end of data is answered. What was sent and not answered (connection
 * lost) is not sent again: the audit counts it as unknown.
 */
#include "bench/load/load.h"

#include <stdlib.h>
#include <string.h>

#include "bench/load/source_session.h"

struct source {
    const struct load_options *options;
    struct flow_plane *plane;
    struct source_session *sessions;
    FILE *ledger;
    uint64_t sequence, answered;
    tick_us now, started, line_at;
    struct load_stats stats, printed;
    char domains[64][128];
    uint32_t domain_count;
};

static bool source_has_work(const struct source *source)
{
    const struct load_options *options = source->options;
    if (load_is_stopping)
        return false;
    if (options->duration_s > 0)
        return source->now < source->started + TICK_S(options->duration_s);
    return source->sequence < options->messages;
}

static void source_split_domains(struct source *source)
{
    const char *text = source->options->domains;
    while (*text != '\0' && source->domain_count < COUNT_OF(source->domains)) {
        size_t size = strcspn(text, ",");
        CHECK(size < sizeof(source->domains[0]));
        memcpy(source->domains[source->domain_count], text, size);
        source->domains[source->domain_count++][size] = '\0';
        text += size + (text[size] == ',');
    }
    CHECK(source->domain_count > 0);
}

static void session_connect(struct source *source, struct source_session *session)
{
    struct flow_connect_options connect = {
        .remote = source->options->target,
        .deadline = source->now + TICK_S(30),
        .receive_limit = 65536,
        .send_limit = 1u << 20,
        .user = (uint64_t)(session - source->sessions),
    };
    session->sent = 0;
    session->is_open = flow_connect(source->plane, &connect, &session->flow) == ERR_OK;
    session->state = SESSION_CONNECTING;
    session->retry_at = source->now + TICK_MS(50);
}

static void session_write(struct source *source, struct source_session *session, const char *text,
                          size_t size)
{
    struct span_mut room = flow_reserve(source->plane, session->flow, (uint32_t)size);
    CHECK(room.data != NULL && size <= room.size);
    memcpy(room.data, text, size);
    flow_commit(source->plane, session->flow, (uint32_t)size);
}

static void session_send_envelope(struct source *source, struct source_session *session)
{
    char text[LOAD_LINE_MAX * 2];
    const struct load_options *options = source->options;
    size_t size = 0;

    session->sequence = source->sequence++;
    session->failed_code = 0;
    session->replies_left = options->recipients + 2;
    size += (size_t)snprintf(text, sizeof(text), "MAIL FROM:<%s>\r\n", options->sender);
    for (uint32_t i = 0; i < options->recipients; i++) {
        const char *domain = source->domains[(session->sequence + i) % source->domain_count];
        size +=
            (size_t)snprintf(text + size, sizeof(text) - size, "RCPT TO:<u%u@%s>\r\n", i, domain);
        CHECK(size < sizeof(text) - 8);
        if (size > 3500) {
            session_write(source, session, text, size);
            size = 0;
        }
    }
    size += (size_t)snprintf(text + size, sizeof(text) - size, "DATA\r\n");
    session_write(source, session, text, size);
    session->state = SESSION_ENVELOPE;
}

static void session_send_body(struct source *source, struct source_session *session)
{
    char header[512];
    const struct load_options *options = source->options;
    uint32_t template_index = (uint32_t)(session->sequence % LOAD_TEMPLATE_COUNT);
    struct span body = load_template(options->size, template_index);
    int size =
        snprintf(header, sizeof(header),
                 "From: <%s>\r\nTo: undisclosed:;\r\nSubject: load\r\nX-Load: %llx-%llu %u\r\n\r\n",
                 options->sender, (unsigned long long)options->run,
                 (unsigned long long)session->sequence, template_index);
    struct buf_queue octets;

    buf_queue_init(&octets);
    enum err err =
        buf_queue_append_copy(&octets, source->plane->pool, span_of(header, (uint32_t)size));
    if (err == ERR_OK)
        err = buf_queue_append_copy(&octets, source->plane->pool, body);
    if (err == ERR_OK)
        err = buf_queue_append_copy(&octets, source->plane->pool, SPAN_LITERAL(".\r\n"));
    CHECK(err == ERR_OK);
    source->stats.octets += octets.size;
    flow_append(source->plane, session->flow, &octets);
    if (source->ledger != NULL)
        (void)fprintf(source->ledger, "S %llx-%llu\n", (unsigned long long)options->run,
                      (unsigned long long)session->sequence);
    session->state = SESSION_BODY;
}

static void session_quit(struct source *source, struct source_session *session)
{
    session_write(source, session, "QUIT\r\n", 6);
    session->state = SESSION_QUIT;
}

static void session_next(struct source *source, struct source_session *session)
{
    const struct load_options *options = source->options;
    bool is_full =
        options->messages_per_session > 0 && session->sent >= options->messages_per_session;

    if (is_full || !source_has_work(source)) {
        session_quit(source, session);
    } else if (options->rate > 0 &&
               source->sequence >= (source->now - source->started) * options->rate / 1000000u) {
        session->state = SESSION_WAITING;
    } else {
        session_send_envelope(source, session);
    }
}

static void session_ledger(struct source *source, const struct source_session *session, char kind,
                           int code)
{
    if (source->ledger != NULL)
        (void)fprintf(source->ledger, "%c %llx-%llu %d\n", kind,
                      (unsigned long long)source->options->run,
                      (unsigned long long)session->sequence, code);
}

static void session_count(struct source *source, struct source_session *session, char kind,
                          int code)
{
    session_ledger(source, session, kind, code);
    session->sent++;
    source->answered++;
    if (code < 400) {
        source->stats.messages++;
        source->stats.recipients += source->options->recipients;
    } else if (code < 500) {
        source->stats.tempfails++;
    } else {
        source->stats.permfails++;
    }
}

/* Replies to MAIL, RCPT ..., DATA in order: 354 decides. */
static void session_on_envelope_reply(struct source *source, struct source_session *session,
                                      int code)
{
    if (code >= 400 && session->failed_code == 0)
        session->failed_code = code;
    if (--session->replies_left > 0)
        return;
    if (code == 354) {
        session_send_body(source, session);
        return;
    }
    session_count(source, session, 'F', session->failed_code);
    session_write(source, session, "RSET\r\n", 6);
    session->state = SESSION_RESET;
}

static void session_on_reply(struct source *source, struct source_session *session, int code)
{
    switch (session->state) {
    case SESSION_BANNER:
        session_write(source, session, "EHLO load.example\r\n", 19);
        session->state = SESSION_HELLO;
        break;
    case SESSION_HELLO:
    case SESSION_RESET:
        session_next(source, session);
        break;
    case SESSION_ENVELOPE:
        session_on_envelope_reply(source, session, code);
        break;
    case SESSION_BODY:
        session_count(source, session, 'A', code);
        session_next(source, session);
        break;
    default:
        break;
    }
}

static void session_lost(struct source *source, struct source_session *session)
{
    if (session->is_open)
        flow_abort(source->plane, session->flow);
    session->is_open = false;
    if (session->state == SESSION_BODY)
        source->stats.lost_connections++;
    session->state = SESSION_IDLE;
    session->retry_at = source->now + TICK_MS(50);
}

static void session_read(struct source *source, struct source_session *session)
{
    for (;;) {
        struct span seen = flow_pull(source->plane, session->flow, LOAD_LINE_MAX);
        const uint8_t *end = seen.size == 0 ? NULL : memchr(seen.data, '\n', seen.size);
        if (end == NULL)
            return;
        uint32_t line_size = (uint32_t)(end - seen.data) + 1;
        int code = line_size >= 5 ? (seen.data[0] - '0') * 100 + (seen.data[1] - '0') * 10 +
                                        (seen.data[2] - '0')
                                  : 0;
        bool is_last = line_size >= 4 && seen.data[3] != '-';
        flow_consume(source->plane, session->flow, line_size);
        if (is_last)
            session_on_reply(source, session, code);
    }
}

void source_on_event(struct source *source, const struct flow_event *event, tick_us now)
{
    struct source_session *session = &source->sessions[event->user];

    source->now = now;
    if (event->events & FLOW_CONNECTED) {
        session->state = SESSION_BANNER;
        source->stats.connections++;
    }
    if (event->events & FLOW_READABLE)
        session_read(source, session);
    if (event->events & (FLOW_PEER_CLOSED | FLOW_RESET | FLOW_FAILED)) {
        if (event->events & FLOW_FAILED && !source->options->is_patient &&
            source->stats.connections == 0) {
            (void)fprintf(stderr, "source: cannot connect: %s\n",
                          err_text(flow_error(source->plane, session->flow)));
            exit(1);
        }
        session_lost(source, session);
    }
}

static uint32_t source_start_sessions(struct source *source)
{
    uint32_t busy = 0;
    for (uint32_t i = 0; i < source->options->sessions; i++) {
        struct source_session *session = &source->sessions[i];
        if (!session->is_open && source_has_work(source) && source->now >= session->retry_at)
            session_connect(source, session);
        if (session->state == SESSION_WAITING)
            session_next(source, session);
        busy += session->is_open;
    }
    return busy;
}

bool source_turn(struct source *source, tick_us now)
{
    source->now = now;
    return source_start_sessions(source) > 0 || source_has_work(source);
}

void source_print(struct source *source, tick_us now, bool is_total)
{
    if (is_total) {
        load_print_line(source->options, "source-total", &source->stats, &(struct load_stats){0},
                        (double)(now - source->started) / 1e6);
    } else if (now >= source->line_at) {
        if (!source->options->is_quiet)
            load_print_line(source->options, "source", &source->stats, &source->printed, 1.0);
        source->printed = source->stats;
        source->line_at += TICK_S(1);
    }
}

struct source *source_new(const struct load_options *options, struct flow_plane *plane, tick_us now)
{
    struct source *source = calloc(1, sizeof(*source));
    CHECK(source != NULL);

    source->options = options;
    source->plane = plane;
    if (options->ledger_path != NULL &&
        (source->ledger = fopen(options->ledger_path, "a")) == NULL) {
        perror(options->ledger_path);
        free(source);
        return NULL;
    }
    source->sessions = calloc(options->sessions, sizeof(*source->sessions));
    CHECK(source->sessions != NULL);
    source_split_domains(source);
    source->now = source->started = now;
    source->line_at = now + TICK_S(1);
    return source;
}

void source_free(struct source *source)
{
    if (source->ledger != NULL)
        (void)fclose(source->ledger);
    free(source->sessions);
    free(source);
}

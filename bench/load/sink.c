/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sink: accepts mail, optionally late (latency_ms), optionally in a bad mood (odds of 4xx and
 * 5xx per recipient; 4xx for everything during the first seconds), checks every octet of what
 * angarium-load's source made, and keeps a ledger or the messages themselves.
 *
 * With -m it ends by itself after so many messages. The seconds of its total run from the first
 * MAIL.
 *
 * The ledger line is written before the 250, so that what the sink acknowledged is never missing
 * from it.
 */
#include "bench/load/load.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { SINK_RECIPIENT_MAX = 1000, SINK_BODY_MAX = 64 << 20 };

struct sink_session {
    struct flow flow;
    bool is_used, is_body, has_sender;
    uint32_t recipient_count;
    char **recipients;
    uint8_t *body;
    size_t body_size, body_capacity;
    tick_us reply_at; /* TICK_NEVER: none owed */
    struct sink_session *next_late;
};

struct sink {
    const struct load_options *options;
    struct flow_plane *plane;
    struct flow listener;
    struct sink_session *sessions;
    uint32_t session_count;
    FILE *ledger;
    struct rng rng;
    tick_us now, started, line_at;
    tick_us first_mail;                          /* 0: none yet */
    struct sink_session *late_first, *late_last; /* constant latency: first come, first due */
    uint64_t kept;
    struct load_stats stats, printed;
};

static const char sink_hello[] =
    "250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n"
    "250-ENHANCEDSTATUSCODES\r\n250 SIZE 104857600\r\n";

static void sink_reply(struct sink *sink, struct sink_session *session, const char *text)
{
    size_t size = strlen(text);
    struct span_mut room = flow_reserve(sink->plane, session->flow, (uint32_t)size);
    if (room.data == NULL)
        return;
    memcpy(room.data, text, size);
    flow_commit(sink->plane, session->flow, (uint32_t)size);
}

static void session_reset(struct sink_session *session)
{
    for (uint32_t i = 0; i < session->recipient_count; i++)
        free(session->recipients[i]);
    session->recipient_count = 0;
    session->has_sender = false;
    session->is_body = false;
    session->body_size = 0;
}

static void session_free(struct sink *sink, struct sink_session *session)
{
    session_reset(session);
    free(session->recipients);
    free(session->body);
    struct sink_session **link = &sink->late_first;
    sink->late_last = NULL;
    while (*link != NULL) {
        if (*link == session) {
            *link = session->next_late;
            continue;
        }
        sink->late_last = *link;
        link = &(*link)->next_late;
    }
    *session = (struct sink_session){0};
}

static bool sink_is_moody(const struct sink *sink)
{
    return sink->now < sink->started + TICK_S(sink->options->moody_s);
}

static void session_on_rcpt(struct sink *sink, struct sink_session *session, struct span line)
{
    const uint8_t *open = memchr(line.data, '<', line.size);
    const uint8_t *close = memrchr(line.data, '>', line.size);
    uint32_t roll = rng_below(&sink->rng, 100);

    if (!session->has_sender || open == NULL || close == NULL || close < open) {
        sink_reply(sink, session, "501 5.5.4 no recipient\r\n");
    } else if (sink_is_moody(sink) || roll < sink->options->percent_tempfail) {
        sink->stats.tempfails++;
        sink_reply(sink, session, "450 4.2.0 come back later\r\n");
    } else if (roll < sink->options->percent_tempfail + sink->options->percent_permfail) {
        sink->stats.permfails++;
        sink_reply(sink, session, "550 5.1.1 nobody of that name\r\n");
    } else if (session->recipient_count == SINK_RECIPIENT_MAX) {
        sink_reply(sink, session, "452 4.5.3 too many recipients\r\n");
    } else {
        if (session->recipients == NULL)
            session->recipients = calloc(SINK_RECIPIENT_MAX, sizeof(char *));
        CHECK(session->recipients != NULL);
        session->recipients[session->recipient_count++] =
            strndup((const char *)open + 1, (size_t)(close - open - 1));
        sink_reply(sink, session, "250 2.1.5 ok\r\n");
    }
}

/* ---- the message ---- */

static bool sink_body_is_whole(const struct sink *sink, const uint8_t *body, size_t size,
                               uint32_t index)
{
    struct span expected = load_template(sink->options->size, index);
    return size == expected.size && memcmp(body, expected.data, size) == 0;
}

/* Whose message is this, and is it whole? "-" when it is nobody's of ours (a notification, say). */
static bool sink_identify(const struct sink *sink, const struct sink_session *session,
                          char ret_id[64])
{
    const char *field = memmem(session->body, session->body_size, "\r\nX-Load: ", 10);
    const uint8_t *separator = memmem(session->body, session->body_size, "\r\n\r\n", 4);
    unsigned int index;
    char text[128] = "";

    (void)snprintf(ret_id, 64, "-");
    if (field == NULL || separator == NULL || (const uint8_t *)field > separator)
        return true;
    size_t room = session->body_size - (size_t)((const uint8_t *)field + 10 - session->body);
    memcpy(text, field + 10, room < sizeof(text) - 1 ? room : sizeof(text) - 1);
    if (sscanf(text, "%63s %u", ret_id, &index) != 2 || index >= LOAD_TEMPLATE_COUNT)
        return false;
    const uint8_t *body = separator + 4;
    return sink_body_is_whole(sink, body, session->body_size - (size_t)(body - session->body),
                              index);
}

static void sink_keep(struct sink *sink, const struct sink_session *session)
{
    char path[4096];
    (void)snprintf(path, sizeof(path), "%s/%08llu", sink->options->keep_directory,
                   (unsigned long long)sink->kept++);
    FILE *file = fopen(path, "w");
    if (file == NULL || fwrite(session->body, 1, session->body_size, file) != session->body_size ||
        fclose(file) != 0) {
        perror(path);
        exit(1);
    }
}

static void session_send_final(struct sink *sink, struct sink_session *session)
{
    session->reply_at = TICK_NEVER;
    sink_reply(sink, session, "250 2.0.0 taken\r\n");
}

static void session_on_message(struct sink *sink, struct sink_session *session)
{
    if (sink->ledger != NULL) {
        char id[64];
        bool is_whole = sink_identify(sink, session, id);
        sink->stats.damaged += !is_whole;
        for (uint32_t i = 0; i < session->recipient_count; i++)
            (void)fprintf(sink->ledger, "R %s %s %s\n", id, session->recipients[i],
                          is_whole ? "ok" : "bad");
        (void)fflush(sink->ledger);
    }
    if (sink->options->keep_directory != NULL)
        sink_keep(sink, session);
    sink->stats.messages++;
    sink->stats.recipients += session->recipient_count;
    sink->stats.octets += session->body_size;
    session_reset(session);
    if (sink->options->latency_ms == 0) {
        session_send_final(sink, session);
        return;
    }
    session->reply_at = sink->now + TICK_MS(sink->options->latency_ms);
    session->next_late = NULL;
    if (sink->late_last != NULL)
        sink->late_last->next_late = session;
    else
        sink->late_first = session;
    sink->late_last = session;
}

static void session_body_line(struct sink_session *session, struct span line)
{
    size_t needed = session->body_size + line.size;
    if (needed > session->body_capacity) {
        size_t capacity = needed * 2 + 4096;
        CHECK(capacity < SINK_BODY_MAX);
        session->body = realloc(session->body, capacity);
        CHECK(session->body != NULL);
        session->body_capacity = capacity;
    }
    memcpy(session->body + session->body_size, line.data, line.size);
    session->body_size = needed;
}

/* ---- commands ---- */

static bool line_is(struct span line, const char *verb)
{
    return line.size >= strlen(verb) &&
           strncasecmp((const char *)line.data, verb, strlen(verb)) == 0;
}

/* False: the session is gone. */
static bool session_on_command(struct sink *sink, struct sink_session *session, struct span line)
{
    if (line_is(line, "EHLO") || line_is(line, "HELO")) {
        sink_reply(sink, session, line_is(line, "EHLO") ? sink_hello : "250 sink.example\r\n");
    } else if (line_is(line, "MAIL")) {
        session_reset(session);
        session->has_sender = true;
        if (sink->first_mail == 0)
            sink->first_mail = sink->now;
        sink_reply(sink, session, "250 2.1.0 ok\r\n");
    } else if (line_is(line, "RCPT")) {
        session_on_rcpt(sink, session, line);
    } else if (line_is(line, "DATA")) {
        session->is_body = session->recipient_count > 0;
        sink_reply(sink, session,
                   session->is_body ? "354 go on\r\n" : "554 5.5.1 no valid recipients\r\n");
    } else if (line_is(line, "QUIT")) {
        sink_reply(sink, session, "221 2.0.0 bye\r\n");
        flow_close(sink->plane, session->flow);
        session_free(sink, session);
        return false;
    } else if (line_is(line, "RSET") || line_is(line, "NOOP")) {
        if (line_is(line, "RSET"))
            session_reset(session);
        sink_reply(sink, session, "250 2.0.0 ok\r\n");
    } else {
        sink_reply(sink, session, "500 5.5.1 unknown\r\n");
    }
    return true;
}

static bool session_on_line(struct sink *sink, struct sink_session *session, struct span line)
{
    if (!session->is_body)
        return session_on_command(sink, session, line);
    if (line.size == 3 && memcmp(line.data, ".\r\n", 3) == 0)
        session_on_message(sink, session);
    else
        session_body_line(session, line.data[0] == '.' ? span_skip(line, 1) : line);
    return true;
}

/* Lines longer than FLOW_PULL_MAX do not occur: the source makes none. */
static void session_read(struct sink *sink, struct sink_session *session)
{
    while (session->is_used && session->reply_at == TICK_NEVER) {
        struct span seen = flow_pull(sink->plane, session->flow, FLOW_PULL_MAX);
        uint32_t used = 0;
        const uint8_t *end;
        while (used < seen.size &&
               (end = memchr(seen.data + used, '\n', seen.size - used)) != NULL) {
            uint32_t size = (uint32_t)(end - seen.data) + 1 - used;
            if (!session_on_line(sink, session, span_of(seen.data + used, size)))
                return;
            used += size;
            if (session->reply_at != TICK_NEVER)
                break;
        }
        if (used == 0)
            return;
        flow_consume(sink->plane, session->flow, used);
    }
}

/* ---- connections ---- */

static void sink_accept(struct sink *sink)
{
    for (uint32_t i = 0; i < sink->session_count; i++) {
        struct sink_session *session = &sink->sessions[i];
        struct flow_address peer;
        if (session->is_used)
            continue;
        if (flow_accept(sink->plane, sink->listener, LOAD_SINK_USER | (i + 1), &session->flow,
                        &peer) != ERR_OK)
            return;
        session->is_used = true;
        session->reply_at = TICK_NEVER;
        sink->stats.connections++;
        sink_reply(sink, session, "220 sink.example ESMTP\r\n");
    }
}

void sink_on_event(struct sink *sink, const struct flow_event *event, tick_us now)
{
    uint64_t number = event->user & ~LOAD_SINK_USER;

    sink->now = now;
    if (number == 0) {
        sink_accept(sink);
        return;
    }
    struct sink_session *session = &sink->sessions[number - 1];
    if (!session->is_used)
        return;
    session_read(sink, session);
    if (session->is_used && event->events & (FLOW_PEER_CLOSED | FLOW_RESET)) {
        if (session->is_body || session->body_size > 0)
            sink->stats.lost_connections++;
        flow_close(sink->plane, session->flow);
        session_free(sink, session);
    }
}

static void sink_send_late(struct sink *sink)
{
    while (sink->late_first != NULL && sink->late_first->reply_at <= sink->now) {
        struct sink_session *session = sink->late_first;
        sink->late_first = session->next_late;
        if (sink->late_first == NULL)
            sink->late_last = NULL;
        session_send_final(sink, session);
        session_read(sink, session);
    }
}

bool sink_turn(struct sink *sink, tick_us now)
{
    sink->now = now;
    sink_send_late(sink);
    return sink->options->messages == 0 || sink->stats.messages < sink->options->messages;
}

tick_us sink_patience(const struct sink *sink)
{
    return sink->late_first != NULL ? TICK_MS(1) : TICK_MS(50);
}

void sink_print(struct sink *sink, tick_us now, bool is_total)
{
    if (is_total) {
        tick_us begin = sink->first_mail > 0 ? sink->first_mail : sink->started;
        load_print_line(sink->options, "sink-total", &sink->stats, &(struct load_stats){0},
                        (double)(now - begin) / 1e6);
    } else if (now >= sink->line_at) {
        if (!sink->options->is_quiet)
            load_print_line(sink->options, "sink", &sink->stats, &sink->printed, 1.0);
        sink->printed = sink->stats;
        sink->line_at += TICK_S(1);
    }
}

struct sink *sink_new(const struct load_options *options, struct flow_plane *plane, tick_us now)
{
    struct flow_listen_options listen = {.address = options->listen,
                                         .backlog = 1024,
                                         .receive_limit = 1u << 20,
                                         .send_limit = 65536,
                                         .user = LOAD_SINK_USER};
    struct sink *sink = calloc(1, sizeof(*sink));
    CHECK(sink != NULL);

    sink->options = options;
    sink->plane = plane;
    sink->session_count = options->sessions;
    rng_init_seed(&sink->rng, options->seed);
    if (flow_listen(plane, &listen, &sink->listener) != ERR_OK) {
        (void)fprintf(stderr, "sink: cannot listen\n");
        free(sink);
        return NULL;
    }
    if (options->ledger_path != NULL && (sink->ledger = fopen(options->ledger_path, "a")) == NULL) {
        perror(options->ledger_path);
        free(sink);
        return NULL;
    }
    sink->sessions = calloc(sink->session_count, sizeof(*sink->sessions));
    CHECK(sink->sessions != NULL);
    sink->now = sink->started = now;
    sink->line_at = now + TICK_S(1);
    return sink;
}

void sink_free(struct sink *sink)
{
    if (sink->ledger != NULL)
        (void)fclose(sink->ledger);
    for (uint32_t i = 0; i < sink->session_count; i++)
        session_free(sink, &sink->sessions[i]);
    free(sink->sessions);
    free(sink);
}

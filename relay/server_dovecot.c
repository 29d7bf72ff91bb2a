/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection to Dovecot's authentication socket.
 *
 *   DOWN -> CONNECTING     a request, RETRY_TIME after the last failure   link_open()
 *   CONNECTING -> HELLO    connected: our lines are sent                  dovecot_link_on_flow()
 *   HELLO -> READY         its DONE, of version 1, with PLAIN             line_run()
 *   all -> DOWN            lost, or a line that is none of the protocol   dovecot_link_drop()
 *
 * Requests that come before READY wait as text, and go out with the DONE.
 *
 * Invariants
 *   1. `waiting` is empty in DOWN and READY, and overwritten when it is let go of: it holds
 *      passwords.
 *   2. A verdict is told for requests of this connection alone: their numbers never come again.
 *
 * Limits: WAITING_MAX octets of requests before READY; DOVECOT_LINE_MAX of a line.
 */
#include "relay/server_dovecot.h"

#include <stdlib.h>

#include "base/log.h"
#include "relay/stream.h"

#define RETRY_TIME   TICK_S(1)
#define CONNECT_TIME TICK_S(10)
#define WAITING_MAX  (16u * DOVECOT_REQUEST_MAX)
#define SOCKET_PATH  108u /* of a Unix socket, with its NUL */

enum link_state { LINK_DOWN, LINK_CONNECTING, LINK_HELLO, LINK_READY };

struct dovecot_link {
    struct dovecot_link_options options;
    enum link_state state;
    struct stream stream;
    char path[SOCKET_PATH];
    tick_us retry_at;
    bool was_lost, has_version, has_plain;
    bool has_scram; /* as of the last handshake; is_scram: of this one */
    bool is_scram;
    uint32_t waiting_size;
    char waiting[WAITING_MAX];
};

struct dovecot_link *dovecot_link_new(const struct dovecot_link_options *options)
{
    struct dovecot_link *link = calloc(1, sizeof(*link));

    CHECK(link != NULL); /* start-up */
    link->options = *options;
    return link;
}

void dovecot_link_drop(struct dovecot_link *link, tick_us now)
{
    if (link->state == LINK_DOWN)
        return;
    stream_abort(&link->stream);
    explicit_bzero(link->waiting, link->waiting_size);
    link->waiting_size = 0;
    link->state = LINK_DOWN;
    link->was_lost = true;
    link->retry_at = now + RETRY_TIME;
}

void dovecot_link_free(struct dovecot_link *link)
{
    dovecot_link_drop(link, 0);
    free(link);
}

bool dovecot_link_was_lost(struct dovecot_link *link)
{
    bool was_lost = link->was_lost;

    link->was_lost = false;
    return was_lost;
}

static void link_fail(struct dovecot_link *link, const char *why, tick_us now)
{
    log_line(LOG_WARNING, "event=dovecot_lost socket=%s reason=%s", link->path, why);
    dovecot_link_drop(link, now);
}

static enum err link_open(struct dovecot_link *link, const char *path, tick_us now)
{
    struct flow_connect_options options = {.remote = {.family = FLOW_FAMILY_UNIX},
                                           .unix_path = link->path,
                                           .deadline = now + CONNECT_TIME,
                                           .user = link->options.user};
    struct flow flow;

    if (now < link->retry_at)
        return ERR_SYSTEM;
    CHECK(strlen(path) < sizeof(link->path)); /* the configuration's bound */
    memcpy(link->path, path, strlen(path) + 1);
    link->has_version = link->has_plain = link->is_scram = false;
    if (flow_connect(link->options.plane, &options, &flow) != ERR_OK) {
        link->retry_at = now + RETRY_TIME;
        log_line(LOG_WARNING, "event=dovecot_lost socket=%s reason=connect", link->path);
        return ERR_SYSTEM;
    }
    stream_init(&link->stream, link->options.plane, flow);
    link->state = LINK_CONNECTING;
    return ERR_OK;
}

enum err dovecot_link_ask(struct dovecot_link *link, const char *path, uint32_t number,
                          const struct auth_request *request, const struct dovecot_client *client,
                          struct tick_now now)
{
    char text[DOVECOT_REQUEST_MAX];
    enum err err = ERR_OK;

    if (link->state != LINK_DOWN && strcmp(path, link->path) != 0) {
        dovecot_link_drop(link, now.tick); /* a reload named another */
        link->retry_at = now.tick;
    }
    if (link->state == LINK_DOWN)
        TRY(link_open(link, path, now.tick));
    struct span line = dovecot_request_format(number, request, client, text);
    if (link->state == LINK_READY) {
        err = stream_write(&link->stream, line);
    } else if (line.size > WAITING_MAX - link->waiting_size) {
        err = ERR_LIMIT;
    } else {
        memcpy(link->waiting + link->waiting_size, line.data, line.size);
        link->waiting_size += line.size;
    }
    explicit_bzero(text, sizeof(text));
    return err;
}

enum err dovecot_link_continue(struct dovecot_link *link, uint32_t number,
                               const struct auth_request *request)
{
    char text[DOVECOT_REQUEST_MAX];

    if (link->state != LINK_READY)
        return ERR_SYSTEM;
    struct span line = dovecot_continue_format(number, request, text);
    enum err err = stream_write(&link->stream, line);
    explicit_bzero(text, sizeof(text));
    return err;
}

void dovecot_link_cancel(struct dovecot_link *link, uint32_t number, tick_us now)
{
    char text[DOVECOT_CANCEL_MAX];

    if (link->state == LINK_READY &&
        stream_write(&link->stream, dovecot_cancel_format(number, text)) != ERR_OK)
        link_fail(link, "memory", now);
}

void dovecot_link_prepare(struct dovecot_link *link, const char *path, tick_us now)
{
    if (link->state == LINK_DOWN && strcmp(path, link->path) != 0)
        (void)link_open(link, path, now); /* if it fails, the next login tries again */
}

bool dovecot_link_has_scram(const struct dovecot_link *link)
{
    return link->has_scram;
}

/* The handshake is done: what waited goes out. */
static void link_begin(struct dovecot_link *link, tick_us now)
{
    if (!link->has_version || !link->has_plain) {
        link_fail(link, "no_plain", now);
        return;
    }
    link->state = LINK_READY;
    link->has_scram = link->is_scram;
    enum err err = stream_write(&link->stream, span_of(link->waiting, link->waiting_size));
    explicit_bzero(link->waiting, link->waiting_size);
    link->waiting_size = 0;
    if (err != ERR_OK)
        link_fail(link, "memory", now);
}

static void line_run(struct dovecot_link *link, const struct dovecot_line *line,
                     struct tick_now now)
{
    bool is_ready = link->state == LINK_READY;
    enum auth_verdict verdict = AUTH_UNAVAILABLE;
    struct span text = span_of(line->user, line->user_size);

    switch (line->word) {
    case DOVECOT_VERSION:
        link->has_version = line->number == 1;
        if (!link->has_version)
            link_fail(link, "version", now.tick);
        break;
    case DOVECOT_MECH:
        link->has_plain |= line->is_plain;
        link->is_scram |= line->is_scram;
        break;
    case DOVECOT_DONE:
        if (!is_ready)
            link_begin(link, now.tick);
        break;
    case DOVECOT_OK:
    case DOVECOT_FAIL:
    case DOVECOT_CONT:
        if (line->word == DOVECOT_OK && line->user_size > 0)
            verdict = AUTH_ACCEPTED;
        else if (line->word == DOVECOT_FAIL && !line->is_temporary)
            verdict = AUTH_REJECTED;
        if (line->word == DOVECOT_CONT) {
            verdict = AUTH_CHALLENGED;
            text = span_of(line->challenge, line->challenge_size);
        }
        if (is_ready)
            link->options.tell(link->options.context, line->number, verdict, text, now);
        break;
    case DOVECOT_OTHER:
        break;
    }
}

/* True: a line was read. */
static bool link_read(struct dovecot_link *link, struct tick_now now)
{
    struct dovecot_line line;
    uint32_t readable = stream_readable(&link->stream);
    uint32_t size = readable < DOVECOT_LINE_MAX ? readable : DOVECOT_LINE_MAX;

    if (size == 0)
        return false;
    struct span octets = stream_pull(&link->stream, size);
    const uint8_t *lf = memchr(octets.data, '\n', octets.size);
    if (lf == NULL && size == DOVECOT_LINE_MAX)
        link_fail(link, "line", now.tick);
    if (lf == NULL)
        return false;
    uint32_t line_size = (uint32_t)(lf - octets.data);
    enum err err = dovecot_line_parse(span_head(octets, line_size), &line);
    stream_consume(&link->stream, line_size + 1);
    if (err == ERR_OK)
        line_run(link, &line, now);
    else
        link_fail(link, "line", now.tick);
    return link->state != LINK_DOWN;
}

void dovecot_link_on_flow(struct dovecot_link *link, const struct flow_event *event,
                          struct tick_now now)
{
    char hello[DOVECOT_HELLO_MAX];

    if (link->state == LINK_DOWN || event->flow.index != link->stream.flow.index ||
        event->flow.generation != link->stream.flow.generation)
        return;
    uint32_t events = stream_on_event(&link->stream, event);
    if ((events & FLOW_CONNECTED) != 0 && link->state == LINK_CONNECTING) {
        link->state = LINK_HELLO;
        if (stream_write(&link->stream, dovecot_hello_format(link->options.client, hello)) !=
            ERR_OK)
            link_fail(link, "memory", now.tick);
        else
            stream_want(&link->stream, FLOW_READABLE);
    }
    while (link->state >= LINK_HELLO && link_read(link, now))
        continue; /* a line each round, as many as have come */
    if (link->state != LINK_DOWN && (events & (FLOW_FAILED | FLOW_RESET | FLOW_PEER_CLOSED)) != 0)
        link_fail(link, "closed", now.tick);
}

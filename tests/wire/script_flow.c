/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The application of a packet script: what it calls, and what it must have been told.
 *
 * A flow has the name of the peer it is with. What it writes is stream 1, what it reads must be
 * stream 2 (test_stream_octet()), so that every octet is known by its place.
 */
#include <stdio.h>

#include "tests/wire/script.h"

#define LISTENER_USER 1000u
#define DATAGRAM_MAX  2048u
#define WRITE_CHUNK   4096u

/* ---- events ---- */

void script_on_event(void *context, const struct flow_event *event)
{
    static const char *const names[] = {"acceptable",  "connected", "readable", "writable",
                                        "peer closed", "reset",     "failed",   "sent"};
    struct script *script = context;

    if (event->user >= SCRIPT_PEER_MAX)
        return;
    struct script_peer *peer = &script->peers[event->user];
    for (uint32_t i = 0; i < COUNT_OF(names); i++) {
        if (event->events & ~peer->events & 1u << i)
            script_note(script, "-- %s is %s", peer->name, names[i]);
    }
    peer->events |= event->events;
}

/* ---- listening, accepting, connecting ---- */

static struct flow *listener_find(struct script *script, const struct flow_address *local)
{
    for (uint32_t i = 0; i < script->listener_count; i++) {
        if (script->listeners[i].port == local->port &&
            script->listeners[i].family == local->family)
            return &script->listeners[i].flow;
    }
    return NULL;
}

static enum err listener_new(struct script *script, const struct flow_listen_options *options)
{
    struct script_listener *listener = &script->listeners[script->listener_count];

    listener->port = options->address.port;
    listener->family = options->address.family;
    TRY(flow_listen(script->world->plane, options, &listener->flow));
    script->listener_count++;
    return ERR_OK;
}

struct flow *script_listener(struct script *script, const struct flow_address *local,
                             uint32_t limit)
{
    struct flow_listen_options options = {.address = {.family = local->family, .port = local->port},
                                          .backlog = 64,
                                          .receive_limit = limit,
                                          .user = LISTENER_USER};

    if (listener_find(script, local) == NULL && script->listener_count < SCRIPT_LISTENER_MAX)
        (void)!listener_new(script, &options);
    return listener_find(script, local);
}

/* listen [IP:]PORT [backlog N] [limit N] */
bool script_listen(struct script *script, const char *argument)
{
    struct flow_listen_options options = {.backlog = 64, .user = LISTENER_USER};
    char word[SCRIPT_LINE_MAX];
    int64_t number;

    if (!script_word(&argument, word) || script->listener_count == SCRIPT_LISTENER_MAX)
        return script_fail(script, "listen [IP:]PORT [backlog N] [limit N]");
    if (script_is_number(word, &number))
        options.address =
            (struct flow_address){.family = FLOW_FAMILY_IP4, .port = (uint16_t)number};
    else if (!script_address(word, &options.address))
        return script_fail(script, "listen [IP:]PORT");
    while (script_word(&argument, word)) {
        bool is_backlog = strcmp(word, "backlog") == 0;
        if ((!is_backlog && strcmp(word, "limit") != 0) || !script_number(&argument, &number))
            return script_fail(script, "what is `%s`?", word);
        if (is_backlog)
            options.backlog = (uint32_t)number;
        else
            options.receive_limit = (uint32_t)number;
    }
    if (!script_wait(script))
        return false;
    enum err err = listener_new(script, &options);
    return err == ERR_OK || script_fail(script, "listen: %s", err_name(err));
}

static bool on_accept(struct script *script, struct script_peer *peer, const char *argument)
{
    uint64_t user = (uint64_t)(peer - script->peers);
    struct flow_address from;
    struct flow *listener = listener_find(script, &peer->local);

    (void)argument;
    if (listener == NULL)
        return script_fail(script, "nobody listens on port %u", peer->local.port);
    enum err err = flow_accept(script->world->plane, *listener, user, &peer->flow, &from);
    if (err != ERR_OK)
        return script_fail(script, "accept: %s", err_name(err));
    peer->has_flow = true;
    if (!flow_address_is_equal(&from, &peer->remote))
        return script_fail(script, "accept: a connection from somebody else");
    return true;
}

static bool on_refuse(struct script *script, struct script_peer *peer, const char *argument)
{
    struct flow *listener = listener_find(script, &peer->local);

    (void)argument;
    enum err err = listener == NULL ? ERR_STALE : flow_refuse(script->world->plane, *listener);
    return err == ERR_OK || script_fail(script, "refuse: %s", err_name(err));
}

/* accept again: none left */
static bool on_unaccepted(struct script *script, struct script_peer *peer, const char *argument)
{
    struct flow *listener = listener_find(script, &peer->local);
    struct flow_address from;
    struct flow flow;

    (void)argument;
    enum err err = listener == NULL
                       ? ERR_STALE
                       : flow_accept(script->world->plane, *listener, LISTENER_USER, &flow, &from);
    return err == ERR_AGAIN || script_fail(script, "accept: %s, not AGAIN", err_name(err));
}

/* connect [from IP[:PORT]] [within TIME] [limit N] */
static bool on_connect(struct script *script, struct script_peer *peer, const char *argument)
{
    struct flow_connect_options options = {
        .remote = peer->remote, .deadline = TICK_NEVER, .user = (uint64_t)(peer - script->peers)};
    char word[SCRIPT_LINE_MAX], value[SCRIPT_LINE_MAX];
    int64_t number;
    tick_us time;

    while (script_word(&argument, word)) {
        if (!script_word(&argument, value))
            return script_fail(script, "what is `%s`?", word);
        if (strcmp(word, "from") == 0 && script_address(value, &options.source))
            continue;
        if (strcmp(word, "within") == 0 && script_parse_time(value, &time))
            options.deadline = script->world->now + time;
        else if (strcmp(word, "limit") == 0 && script_is_number(value, &number))
            options.receive_limit = (uint32_t)number;
        else
            return script_fail(script, "what is `%s %s`?", word, value);
    }
    peer->has_local = false;
    enum err err = flow_connect(script->world->plane, &options, &peer->flow);
    peer->has_flow = err == ERR_OK;
    return err == ERR_OK || script_fail(script, "connect: %s", err_name(err));
}

/* ---- octets ---- */

static bool append(struct script *script, struct script_peer *peer, uint64_t position,
                   uint32_t size)
{
    uint8_t octets[WRITE_CHUNK];
    struct buf_queue queue;

    buf_queue_init(&queue);
    for (uint32_t at = 0; at < size;) {
        uint32_t part = size - at < WRITE_CHUNK ? size - at : WRITE_CHUNK;
        for (uint32_t i = 0; i < part; i++)
            octets[i] = test_stream_octet(1, position + at + i);
        if (buf_queue_append_copy(&queue, script->world->pool, span_of(octets, part)) != ERR_OK) {
            buf_queue_fini(&queue);
            return script_fail(script, "write: the pool is empty");
        }
        at += part;
    }
    flow_append(script->world->plane, peer->flow, &queue);
    buf_queue_fini(&queue);
    return true;
}

static bool on_write(struct script *script, struct script_peer *peer, const char *argument)
{
    int64_t size;

    if (!script_number(&argument, &size) || size <= 0)
        return script_fail(script, "write OCTETS");
    if (!append(script, peer, peer->written, (uint32_t)size))
        return false;
    peer->written += (uint64_t)size;
    return true;
}

static bool stream_is_good(struct script *script, struct script_peer *peer, struct span octets,
                           uint64_t position)
{
    for (uint32_t i = 0; i < octets.size; i++) {
        if (octets.data[i] != test_stream_octet(2, position + i))
            return script_fail(script, "octet %llu of what %s reads is another",
                               (unsigned long long)(position + i), peer->name);
    }
    return true;
}

/* Something to be read must be there already. */
static bool wants_readable(struct script *script, struct script_peer *peer, const char **argument,
                           int64_t *ret_size)
{
    if (!script_number(argument, ret_size) || *ret_size <= 0)
        return script_fail(script, "how many octets?");
    uint32_t readable = flow_readable(script->world->plane, peer->flow);
    return readable >= *ret_size ||
           script_fail(script, "%s can read %u octets only", peer->name, readable);
}

static bool on_read(struct script *script, struct script_peer *peer, const char *argument)
{
    struct flow_plane *plane = script->world->plane;
    int64_t size;

    if (!wants_readable(script, peer, &argument, &size))
        return false;
    while (size > 0) {
        struct span octets =
            flow_pull(plane, peer->flow, size < FLOW_PULL_MAX ? (uint32_t)size : FLOW_PULL_MAX);
        if (octets.size == 0 || !stream_is_good(script, peer, octets, peer->read))
            return script_fail(script, "%s reads nothing", peer->name);
        flow_consume(plane, peer->flow, octets.size);
        peer->read += octets.size;
        size -= octets.size;
    }
    return true;
}

static bool on_take(struct script *script, struct script_peer *peer, const char *argument)
{
    uint32_t first = peer->taken.count;
    int64_t size;

    if (!wants_readable(script, peer, &argument, &size))
        return false;
    flow_take(script->world->plane, peer->flow, (uint32_t)size, &peer->taken);
    uint64_t before = peer->taken.size - (uint64_t)size;
    uint8_t octets[WRITE_CHUNK];
    (void)first;
    for (uint64_t at = before; at < peer->taken.size;) {
        uint64_t left = peer->taken.size - at;
        uint32_t part = left < WRITE_CHUNK ? (uint32_t)left : WRITE_CHUNK;
        buf_queue_copy_out(&peer->taken, at, octets, part);
        if (!stream_is_good(script, peer, span_of(octets, part), peer->read))
            return false;
        peer->read += part;
        at += part;
    }
    return true;
}

static bool on_credit(struct script *script, struct script_peer *peer, const char *argument)
{
    int64_t size;

    if (!script_number(&argument, &size) || (uint64_t)size > peer->taken.size)
        return script_fail(script, "credit OCTETS, of those taken");
    buf_queue_drop(&peer->taken, (uint64_t)size);
    flow_credit(script->world->plane, peer->flow, (uint64_t)size);
    return true;
}

static bool on_readable(struct script *script, struct script_peer *peer, const char *argument)
{
    uint32_t readable = flow_readable(script->world->plane, peer->flow);
    int64_t size;

    if (!script_number(&argument, &size))
        return script_fail(script, "readable OCTETS");
    return readable == size || script_fail(script, "%u octets can be read", readable);
}

static bool on_unsent(struct script *script, struct script_peer *peer, const char *argument)
{
    uint64_t unsent = flow_unsent(script->world->plane, peer->flow);
    int64_t size;

    if (!script_number(&argument, &size))
        return script_fail(script, "unsent OCTETS");
    return unsent == (uint64_t)size ||
           script_fail(script, "%llu octets are unsent", (unsigned long long)unsent);
}

/* ---- the end ---- */

static bool on_shutdown(struct script *script, struct script_peer *peer, const char *argument)
{
    (void)argument;
    flow_shutdown(script->world->plane, peer->flow);
    return true;
}

static bool on_close(struct script *script, struct script_peer *peer, const char *argument)
{
    (void)argument;
    buf_queue_fini(&peer->taken);
    flow_close(script->world->plane, peer->flow);
    peer->has_flow = false;
    return true;
}

static bool on_abort(struct script *script, struct script_peer *peer, const char *argument)
{
    (void)argument;
    buf_queue_fini(&peer->taken);
    flow_abort(script->world->plane, peer->flow);
    peer->has_flow = false;
    return true;
}

static bool on_cork(struct script *script, struct script_peer *peer, const char *argument)
{
    bool is_on = script_take(&argument, "on");

    if (!is_on && !script_take(&argument, "off"))
        return script_fail(script, "cork on|off");
    flow_cork(script->world->plane, peer->flow, is_on);
    return true;
}

static bool on_push(struct script *script, struct script_peer *peer, const char *argument)
{
    (void)argument;
    flow_push(script->world->plane, peer->flow);
    return true;
}

static bool on_want(struct script *script, struct script_peer *peer, const char *argument)
{
    uint32_t events = FLOW_READABLE;

    if (script_take(&argument, "sent"))
        events |= FLOW_SENT;
    else if (script_take(&argument, "writable"))
        events |= FLOW_WRITABLE;
    peer->events &= ~events;
    flow_want(script->world->plane, peer->flow, events);
    return true;
}

/* ---- what must have been told ---- */

static bool is_told(struct script *script, struct script_peer *peer, uint32_t event,
                    const char *argument)
{
    char word[SCRIPT_LINE_MAX];

    while (!(peer->events & event) && script->world->now < script->until) {
        tick_us next = flow_deadline(script->world->plane);
        world_run(script->world, next < script->until ? next : script->until);
    }
    if (!script_collect(script))
        return false;
    if (!(peer->events & event))
        return script_fail(script, "%s was not told that", peer->name);
    script->clock = script->world->now;
    if (!script_word(&argument, word))
        return true;
    enum err err = flow_error(script->world->plane, peer->flow);
    return strcmp(err_name(err), word) == 0 ||
           script_fail(script, "%s: the error is %s", peer->name, err_name(err));
}

static bool on_connected(struct script *script, struct script_peer *peer, const char *argument)
{
    return is_told(script, peer, FLOW_CONNECTED, argument);
}

static bool on_failed(struct script *script, struct script_peer *peer, const char *argument)
{
    return is_told(script, peer, FLOW_FAILED, argument);
}

static bool on_reset(struct script *script, struct script_peer *peer, const char *argument)
{
    return is_told(script, peer, FLOW_RESET, argument);
}

static bool on_peer_closed(struct script *script, struct script_peer *peer, const char *argument)
{
    return is_told(script, peer, FLOW_PEER_CLOSED, argument);
}

static bool on_sent(struct script *script, struct script_peer *peer, const char *argument)
{
    return is_told(script, peer, FLOW_SENT, argument);
}

/* alive: neither end has closed or lost it, as far as the application knows */
static bool on_alive(struct script *script, struct script_peer *peer, const char *argument)
{
    (void)argument;
    if (peer->events & (FLOW_PEER_CLOSED | FLOW_RESET | FLOW_FAILED))
        return script_fail(script, "%s is closed, reset or failed", peer->name);
    return flow_error(script->world->plane, peer->flow) == ERR_OK ||
           script_fail(script, "%s: the error is %s", peer->name,
                       err_name(flow_error(script->world->plane, peer->flow)));
}

/* ---- datagrams ---- */

/* datagram PORT: bound there, connected to the peer */
static bool on_datagram(struct script *script, struct script_peer *peer, const char *argument)
{
    int64_t port;

    if (!script_number(&argument, &port))
        return script_fail(script, "datagram PORT");
    peer->local.port = (uint16_t)port;
    enum err err = flow_open_datagram(script->world->plane, &peer->local, &peer->remote,
                                      (uint64_t)(peer - script->peers), &peer->flow);
    peer->is_datagram = peer->has_flow = err == ERR_OK;
    return err == ERR_OK || script_fail(script, "open: %s", err_name(err));
}

static bool on_send(struct script *script, struct script_peer *peer, const char *argument)
{
    uint8_t octets[DATAGRAM_MAX];
    int64_t size;

    if (!script_number(&argument, &size) || size < 0 || size > DATAGRAM_MAX)
        return script_fail(script, "send OCTETS");
    for (uint32_t i = 0; i < size; i++)
        octets[i] = test_stream_octet(1, i);
    enum err err =
        flow_send_datagram(script->world->plane, peer->flow, span_of(octets, (uint32_t)size));
    return err == ERR_OK || script_fail(script, "send: %s", err_name(err));
}

/* receive N, or receive ERROR */
static bool on_receive(struct script *script, struct script_peer *peer, const char *argument)
{
    struct flow_address from;
    struct span octets;
    char word[SCRIPT_LINE_MAX];
    int64_t size;

    if (!script_word(&argument, word))
        return script_fail(script, "receive OCTETS|ERROR");
    enum err err = flow_receive_datagram(script->world->plane, peer->flow, &from, &octets);
    if (!script_is_number(word, &size))
        return strcmp(err_name(err), word) == 0 ||
               script_fail(script, "receive: %s", err_name(err));
    if (err != ERR_OK || octets.size != size || !flow_address_is_equal(&from, &peer->remote))
        return script_fail(script, "receive: %s, %u octets", err_name(err),
                           err == ERR_OK ? octets.size : 0);
    for (uint32_t i = 0; i < octets.size; i++) {
        if (octets.data[i] != test_stream_octet(2, i))
            return script_fail(script, "octet %u of the datagram is another", i);
    }
    return true;
}

/* ---- dispatch ---- */

static const struct {
    const char *word;
    bool needs_flow, is_call; /* is_call: at its time; else within its time */
    bool (*on_statement)(struct script *script, struct script_peer *peer, const char *argument);
} statements[] = {
    {"accept", false, true, on_accept},
    {"refuse", false, true, on_refuse},
    {"unaccepted", false, true, on_unaccepted},
    {"connect", false, true, on_connect},
    {"write", true, true, on_write},
    {"read", true, true, on_read},
    {"take", true, true, on_take},
    {"credit", true, true, on_credit},
    {"readable", true, true, on_readable},
    {"unsent", true, true, on_unsent},
    {"shutdown", true, true, on_shutdown},
    {"close", true, true, on_close},
    {"abort", true, true, on_abort},
    {"cork", true, true, on_cork},
    {"push", true, true, on_push},
    {"want", true, true, on_want},
    {"connected", true, false, on_connected},
    {"failed", true, false, on_failed},
    {"reset", true, false, on_reset},
    {"peer_closed", true, false, on_peer_closed},
    {"sent", true, false, on_sent},
    {"alive", true, true, on_alive},
    {"state", false, true, script_state},
    {"datagram", false, true, on_datagram},
    {"send", true, true, on_send},
    {"receive", true, true, on_receive},
};

bool script_flow_statement(struct script *script, struct script_peer *peer, const char *text)
{
    const char *rest = text;
    char word[SCRIPT_LINE_MAX];

    if (!script_begin(script) || !script_word(&rest, word))
        return script_fail(script, "%s does what?", peer->name);
    for (uint32_t i = 0; i < COUNT_OF(statements); i++) {
        if (strcmp(statements[i].word, word) != 0)
            continue;
        if (statements[i].needs_flow && !peer->has_flow)
            return script_fail(script, "%s has no flow", peer->name);
        if (statements[i].is_call && !script_wait(script))
            return false;
        script_note(script, "-- %s %s", peer->name, text);
        if (!statements[i].on_statement(script, peer, rest))
            return false;
        world_settle(script->world);
        return script_collect(script);
    }
    return script_wait(script) && script_field(script, peer, word, rest);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listening sockets, what a reload does to them, and connections at the door.
 *
 * A listener is its address: one that is in the old settings and in the new keeps its socket, and
 * with it the connections in its backlog. Beyond session_max, or what its network may have
 * (brake.h), a client gets 421; without a descriptor for it, or when flows are scarce, a RST.
 */
#include <stdlib.h>

#include "base/log.h"
#include "relay/server_internal.h"

#define LISTENER_BACKLOG  4096u
#define LISTENER_LIMIT    1024u
#define ACCEPTS_PER_EVENT 64u

static void session_refuse(struct server *server, struct flow flow, enum smtpd_reply reply)
{
    struct stream stream;

    server->stats.refused += 1;
    server->smtpd.replies[reply] += 1;
    stream_init(&stream, server->options.plane, flow);
    if (stream_write(&stream, smtpd_reply_line(reply)) == ERR_OK &&
        stream_write(&stream, SPAN_LITERAL("\r\n")) == ERR_OK)
        stream_close(&stream);
    else
        stream_abort(&stream);
}

static void session_accept(struct server *server, const struct server_listener *listener,
                           struct flow flow, const struct flow_address *peer, struct tick_now now)
{
    uint32_t session_max = listener->settings->limits.session_max;
    struct brake_client *brake;
    bool is_first;

    if (brake_connect(server->brake, listener->settings, peer,
                      settings_relay_is_allowed(server->settings, peer), &brake,
                      &is_first) != ERR_OK) {
        if (is_first)
            smtpd_record_refusal(&server->smtpd, peer, &listener->settings->address,
                                 SMTPD_REPLY_BRAKE_CONNECTIONS, now);
        session_refuse(server, flow, SMTPD_REPLY_BRAKE_CONNECTIONS);
        return;
    }
    struct server_session *session =
        server->stats.open < session_max ? server_session_new(server) : NULL;
    if (session == NULL) {
        brake_disconnect(server->brake, brake);
        session_refuse(server, flow, SMTPD_REPLY_SESSIONS_MAX);
        return;
    }
    struct smtpd_session_options options = {.settings = server->settings,
                                            .listener = listener->settings,
                                            .peer = *peer,
                                            .brake = brake,
                                            .id = (uint64_t)server->options.shard << 48 |
                                                  ++server->session_id};
    struct flow_address ignored;
    if (flow_addresses(server->options.plane, flow, &options.local, &ignored) != ERR_OK)
        options.local = listener->settings->address;
    flow_set_user(server->options.plane, flow, SERVER_FLOW_USER_TAG | session->index);
    stream_init(&session->stream, server->options.plane, flow);
    options.is_tls = listener->settings->is_tls_implicit;
    smtpd_init(&session->smtpd, &options, now);
    session->accepted = now.tick;
    server->stats.sessions += 1;
    if (trace_is_on(server->options.trace))
        server_trace_note(server, session, "connected");
    if (!options.is_tls)
        server_session_enqueue(server, session, SERVER_QUEUE_GREETING);
    else
        server_session_tls_first(server, session);
    server_session_settle(server, session);
}

/* What is left is for outbound connections and the DNS: mail that cannot leave fills the spool. */
static bool flows_are_scarce(const struct server *server)
{
    struct flow_stats stats = flow_plane_stats(server->options.plane);
    uint32_t flow_max = server->options.flow_max;

    return flow_max > 0 && stats.flows + stats.orphans >= flow_max;
}

void server_listener_on_flow(struct server *server, uint32_t index, struct tick_now now)
{
    struct flow flow;
    struct flow_address peer;

    if (index >= server->listener_count || flow_is_none(server->listeners[index].flow))
        return;
    const struct server_listener *listener = &server->listeners[index];
    for (uint32_t i = 0; i < ACCEPTS_PER_EVENT; i++) {
        enum err err = flows_are_scarce(server) ? ERR_LIMIT
                                                : flow_accept(server->options.plane, listener->flow,
                                                              SERVER_FLOW_USER_TAG, &flow, &peer);
        if (err == ERR_OK) {
            session_accept(server, listener, flow, &peer, now);
            continue;
        }
        if (err == ERR_AGAIN || flow_refuse(server->options.plane, listener->flow) != ERR_OK)
            return;
        server->stats.refused += 1;
    }
}

static enum err listener_open(struct server *server, uint32_t index)
{
    struct server_listener *listener = &server->listeners[index];
    struct flow_listen_options options = {.address = listener->settings->address,
                                          .backlog = LISTENER_BACKLOG,
                                          .is_shared = true,
                                          .user = SERVER_LISTENER_USER | index};

    return flow_listen(server->options.plane, &options, &listener->flow);
}

static void listener_close(struct server *server, struct server_listener *listener)
{
    if (!flow_is_none(listener->flow))
        flow_close(server->options.plane, listener->flow);
    listener->flow = (struct flow){0};
}

void server_listeners_make(struct server *server, const struct settings *settings)
{
    CHECK(settings->listener_count <= LISTENER_LIMIT);
    server->settings = settings;
    server->smtpd.settings = settings;
    server->listener_count = settings->listener_count;
    server->listeners = calloc(settings->listener_count + 1, sizeof(struct server_listener));
    CHECK(server->listeners != NULL); /* start or reload */
    for (uint32_t i = 0; i < settings->listener_count; i++)
        server->listeners[i].settings = &settings->listeners[i];
}

enum err server_listen(struct server *server, uint32_t *ret_index)
{
    for (uint32_t i = 0; i < server->listener_count; i++) {
        enum err err = listener_open(server, i);
        if (err != ERR_OK) {
            *ret_index = i;
            return err;
        }
    }
    return ERR_OK;
}

static bool listener_open_told(struct server *server, uint32_t index)
{
    char text[FLOW_ADDRESS_TEXT_MAX];
    enum err err = listener_open(server, index);

    if (err != ERR_OK)
        log_line(LOG_ERROR, "listener=%s event=listen_failed error=%s",
                 flow_address_format(&server->listeners[index].settings->address, text),
                 err_name(err));
    return err == ERR_OK;
}

/* Keep the socket of a listener that is in the new settings as well. */
static void listener_inherit(struct server *server, struct server_listener *old, uint32_t old_count,
                             uint32_t index)
{
    struct server_listener *listener = &server->listeners[index];

    for (uint32_t i = 0; i < old_count; i++) {
        if (flow_address_is_equal(&old[i].settings->address, &listener->settings->address) &&
            !flow_is_none(old[i].flow)) {
            listener->flow = old[i].flow;
            old[i].flow = (struct flow){0};
            flow_set_user(server->options.plane, listener->flow, SERVER_LISTENER_USER | index);
            return;
        }
    }
    (void)listener_open_told(server, index);
}

bool server_listeners_open(struct server *server)
{
    bool is_ok = true;

    for (uint32_t i = 0; i < server->listener_count; i++) {
        if (flow_is_none(server->listeners[i].flow))
            is_ok = listener_open_told(server, i) && is_ok;
    }
    return is_ok;
}

void server_set_settings(struct server *server, const struct settings *settings,
                         struct tick_now now)
{
    struct server_listener *old = server->listeners;
    uint32_t old_count = server->listener_count;

    (void)now;
    server_listeners_make(server, settings);
    for (uint32_t i = 0; i < server->listener_count && !server->is_draining; i++)
        listener_inherit(server, old, old_count, i);
    for (uint32_t i = 0; i < old_count; i++)
        listener_close(server, &old[i]);
    free(old);
}

void server_listeners_close(struct server *server)
{
    for (uint32_t i = 0; i < server->listener_count; i++)
        listener_close(server, &server->listeners[i]);
}

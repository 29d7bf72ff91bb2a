/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One outbound connection: the engine (smtpc.h) on one side, the stream on the other.
 *
 *   CONNECTING -> ACTIVE                  connected (RACING: client_race.c)
 *   ACTIVE -> IDLE -> ACTIVE              kept, and used again
 *   ACTIVE | IDLE -> QUITTING             QUIT said
 *   QUITTING -> CONNECTING | FREE         FIN, RST or CLIENT_QUIT_TIME
 *   any -> CONNECTING | GONE              reset
 *   GONE -> CONNECTING | FREE             after CLIENT_GONE_TIME
 *
 * Invariants
 *   1. Everything readable is fed before anything is written: octets that came too early are seen
 *      while no reply is due.
 *   2. Each step of the dialogue has one absolute deadline, set when the step begins and not moved
 *      by octets that trickle in (only the body's is, by octets that leave). The request's deadline
 *      bounds them all.
 *   3. What happens on a kept connection is never an answer: it is closed without a word to
 *      anybody but on_closed().
 *   4. Callbacks come last: after on_result(), on_idle() or on_closed() the function returns to the
 *      loop, which looks at the state anew.
 *
 * Limits: CLIENT_RECEIVE_LIMIT octets received and not read, CLIENT_SEND_LIMIT for WRITABLE.
 */
#include "relay/client_internal.h"

#include <stdio.h>

#define CLIENT_RECEIVE_LIMIT (32u * 1024)
#define CLIENT_SEND_LIMIT    (256u * 1024)
#define CLIENT_QUIT_TIME     TICK_S(2)
#define CLIENT_UNHEARD_TIME  TICK_S(30)   /* for a first reply to what was sent before its turn */
#define CLIENT_GONE_TIME     TICK_MS(500) /* for a reset to arrive: the peer counts until then */

/* A request keeps to the settings it began under: they live as long as its route. */
static const struct settings_client *settings_of(const struct client *client,
                                                 const struct client_connection *connection)
{
    return connection->has_request ? &connection->attempt.settings->client
                                   : &client->settings->client;
}

/* ---- deadlines ---- */

void client_connection_set_due(struct client *client, struct client_connection *connection,
                               tick_us due)
{
    connection->due = due;
    if (!wheel_is_armed(&connection->timer) || due < connection->timer.deadline)
        wheel_arm(&client->wheel, &connection->timer, due);
}

void client_connection_arm(struct client *client, struct client_connection *connection,
                           tick_us deadline)
{
    if (connection->has_request && connection->attempt.request.deadline < deadline)
        deadline = connection->attempt.request.deadline;
    client_connection_set_due(client, connection, deadline);
}

static tick_us step_time(const struct client *client, const struct client_connection *connection)
{
    const struct settings_client *settings = settings_of(client, connection);
    const struct smtpc_transaction *transaction = &connection->smtpc.transaction;

    /* Sent before its turn, and perhaps dropped by a server that forgets its input with the body.
     * No end is sent: asking again on another connection is no risk. */
    if (connection->has_request && connection->attempt.has_followed &&
        connection->attempt.is_reused && !transaction->is_out &&
        settings->command_timeout > CLIENT_UNHEARD_TIME)
        return CLIENT_UNHEARD_TIME;
    switch (smtpc_stage(&connection->smtpc)) {
    case SMTP_STAGE_GREETING:
        return settings->greeting_timeout;
    case SMTP_STAGE_DATA:
        return settings->data_init_timeout;
    case SMTP_STAGE_BODY:
        return settings->data_block_timeout;
    case SMTP_STAGE_END:
        return settings->data_end_timeout;
    default:
        return settings->command_timeout;
    }
}

/* A new step begins when the engine's state changes or a command was answered. READY with a request
 * is armed by client_connection_reuse(). */
static void step_arm(struct client *client, struct client_connection *connection)
{
    const struct smtpc *smtpc = &connection->smtpc;
    uint32_t step = (uint32_t)smtpc->state << 24 | (uint32_t)smtpc->auth_step << 20 |
                    (smtpc->transaction.answered & 0xfffff);

    if (connection->state != CLIENT_STATE_ACTIVE || smtpc->state == SMTPC_STATE_READY ||
        (step == connection->step && connection->due != TICK_NEVER))
        return;
    connection->step = step;
    connection->step_deadline = client->now + step_time(client, connection);
    client_connection_arm(client, connection, connection->step_deadline);
}

/* ---- beginning ---- */

enum err client_connection_dial(struct client *client, struct client_connection *connection,
                                const struct client_attempt *attempt)
{
    const struct flow_address *peer = &connection->peer;
    tick_us deadline = attempt->request.deadline;
    struct flow flow;

    if (client->now + attempt->settings->client.connect_timeout < deadline)
        deadline = client->now + attempt->settings->client.connect_timeout;
    connection->source = (struct flow_address){0};
    if (settings_route_has_source(attempt->request.route))
        connection->source = settings_source_address(attempt->request.source, peer->family);
    enum err err = flow_connect(client->options.plane,
                                &(struct flow_connect_options){
                                    .remote = *peer,
                                    .source = connection->source,
                                    .unix_path = connection->host,
                                    .deadline = deadline,
                                    .receive_limit = CLIENT_RECEIVE_LIMIT,
                                    .send_limit = CLIENT_SEND_LIMIT,
                                    .user = CLIENT_FLOW_USER_TAG | connection->index,
                                },
                                &flow);
    if (err != ERR_OK)
        return err;
    stream_init(&connection->stream, client->options.plane, flow);
    client->stats.connections++;
    connection->id = ++client->connection_id;
    connection->opened = client->now;
    connection->use_count = 0;
    connection->has_led = false;
    connection->step_deadline = deadline;
    return ERR_OK;
}

enum err client_connection_open(struct client *client, struct client_connection *connection)
{
    TRY(client_connection_dial(client, connection, &connection->attempt));
    connection->attempt.connect_started = client->now;
    client_enter(client, connection, CLIENT_STATE_CONNECTING);
    client_connection_set_due(client, connection, client_race_time(client, connection));
    return ERR_OK;
}

static struct ssl_ctx_st *tls_context_of(const struct client_connection *connection)
{
    const struct client_attempt *attempt = &connection->attempt;
    struct ssl_ctx_st *context = attempt->request.route->tls_client;

    return context != NULL ? context : attempt->settings->client.tls_may;
}

void client_connection_connected(struct client *client, struct client_connection *connection)
{
    const struct settings_route *route = connection->attempt.request.route;
    struct flow_address peer;

    connection->attempt.families_connected |= (uint8_t)(1u << connection->peer.family);

    if (flow_addresses(client->options.plane, connection->stream.flow, &connection->source,
                       &peer) != ERR_OK)
        connection->source = (struct flow_address){0};
    client_enter(client, connection, CLIENT_STATE_ACTIVE);
    if (trace_is_on(client->options.trace))
        client_trace_connected(client, connection);
    smtpc_init(&connection->smtpc, &(struct smtpc_options){
                                       .hello_name = connection->attempt.request.source->hello_name,
                                       .tls = route->tls,
                                       .has_tls = tls_context_of(connection) != NULL,
                                       .use_bdat = settings_of(client, connection)->use_bdat,
                                       .is_lmtp = route->kind == SETTINGS_ROUTE_LMTP,
                                       .eight_bit = settings_of(client, connection)->eight_bit,
                                       .auth = route->auth,
                                       .avoid = connection->attempt.avoid,
                                   });
    connection->step = UINT32_MAX;
    client_connection_drive(client, connection);
}

void client_connection_reuse(struct client *client, struct client_connection *connection)
{
    client_enter(client, connection, CLIENT_STATE_ACTIVE);
    connection->attempt.is_reused = true;
    connection->attempt.has_connected = true;
    client->stats.reused++;
    if (trace_is_on(client->options.trace))
        client_trace_note(client, connection, "used once more");
    connection->step = UINT32_MAX;
    if (client_attempt_begin(client, connection) == SMTPC_FINISHED)
        client_connection_set_due(client, connection, 0); /* told by the timer */
    else
        client_connection_drive(client, connection);
}

/* ---- end ---- */

/* The flow is gone. */
static void connection_closed(struct client *client, struct client_connection *connection)
{
    if (trace_is_on(client->options.trace))
        client_trace_note(client, connection, "closed");
    for (; connection->mails_late > 0; connection->mails_late--) {
        if (client->options.on_mail != NULL)
            client->options.on_mail(client->options.context, connection->site, true);
    }
    if (connection->has_request)
        client_attempt_connect(client, connection, true);
    else
        client_release(client, connection);
}

void client_connection_drop(struct client *client, struct client_connection *connection)
{
    stream_abort(&connection->stream);
    client_enter(client, connection, CLIENT_STATE_GONE);
    client_connection_set_due(client, connection, client->now + CLIENT_GONE_TIME);
}

static void connection_abort(struct client *client, struct client_connection *connection)
{
    bool is_peer_gone = stream_get_state(&connection->stream) == STREAM_PEER_CLOSED ||
                        stream_error(&connection->stream) == ERR_PEER_RESET;

    if (is_peer_gone) {
        stream_abort(&connection->stream);
        connection_closed(client, connection);
    } else {
        client_connection_drop(client, connection);
    }
}

static bool connection_drain(struct client *client, struct client_connection *connection)
{
    bool is_secret = connection->smtpc.state == SMTPC_STATE_AUTH;
    uint32_t size = smtpc_drain(&connection->smtpc,
                                (struct span_mut){client->room, (uint32_t)sizeof(client->room)});

    if (size == 0)
        return false;
    enum err err = stream_write(&connection->stream, span_of(client->room, size));
    if (trace_is_on(client->options.trace))
        client_trace_commands(client, connection, span_of(client->room, size), is_secret);
    if (is_secret)
        explicit_bzero(client->room, size);
    if (err == ERR_OK && smtpc_is_body_due(&connection->smtpc))
        err = client_body_go_ahead(client, &connection->attempt, connection);
    if (err == ERR_OK)
        return true;
    if (connection->state == CLIENT_STATE_ACTIVE) {
        smtpc_lost(&connection->smtpc, "4.3.2 no memory for commands");
        client_attempt_failed(client, connection);
    }
    return false;
}

void client_connection_leave(struct client *client, struct client_connection *connection)
{
    if (stream_get_state(&connection->stream) == STREAM_PEER_CLOSED) {
        stream_close(&connection->stream);
        connection_closed(client, connection);
        return;
    }
    if (stream_get_state(&connection->stream) != STREAM_OPEN ||
        (connection->smtpc.state != SMTPC_STATE_QUIT && !smtpc_can_quit(&connection->smtpc))) {
        connection_abort(client, connection);
        return;
    }
    if (connection->smtpc.state != SMTPC_STATE_QUIT)
        smtpc_quit(&connection->smtpc);
    client_enter(client, connection, CLIENT_STATE_QUITTING);
    client_connection_arm(client, connection, client->now + CLIENT_QUIT_TIME);
    connection_drain(client, connection);
}

static void quitting_look(struct client *client, struct client_connection *connection)
{
    uint32_t readable = stream_readable(&connection->stream);

    if (readable > 0)
        stream_consume(&connection->stream, readable);
    switch (stream_get_state(&connection->stream)) {
    case STREAM_PEER_CLOSED:
        stream_close(&connection->stream);
        connection_closed(client, connection);
        break;
    case STREAM_FAILED:
        connection_abort(client, connection);
        break;
    default:
        break;
    }
}

/* Between transactions: keep, or leave. */
static void connection_rest(struct client *client, struct client_connection *connection)
{
    const struct settings_client *settings = settings_of(client, connection);
    uint64_t site = connection->site;

    CHECK(!connection->has_request);
    if (stream_readable(&connection->stream) > 0) {
        client->stats.desynchronised++;
        connection_abort(client, connection);
        return;
    }
    if (stream_get_state(&connection->stream) != STREAM_OPEN ||
        connection->use_count >= connection->use_max ||
        connection->attempt.serial != client->settings->serial) {
        client_connection_leave(client, connection);
        return;
    }
    client_enter(client, connection, CLIENT_STATE_IDLE);
    client_connection_set_due(client, connection, client->now + settings->idle_timeout);
    client->options.on_idle(client->options.context, site);
}

/* ---- the dialogue ---- */

static void connection_start_tls(struct client *client, struct client_connection *connection)
{
    const struct settings_route *route = connection->attempt.request.route;
    const char *name = route->tls_name != NULL ? route->tls_name : connection->host;
    struct flow_address literal;

    /* An address is no server name (RFC 6066 section 3). */
    if (route->tls != SETTINGS_TLS_VERIFY &&
        flow_address_parse_ip(span_from_text(name), &literal) == ERR_OK)
        name = NULL;
    client->stats.tls_handshakes++;
    enum err err = stream_start_tls_client(&connection->stream, tls_context_of(connection), name,
                                           route->tls == SETTINGS_TLS_VERIFY);
    if (err == ERR_OK)
        return;
    smtpc_lost(&connection->smtpc, err == ERR_PEER_SYNTAX
                                       ? "4.7.5 the server sent octets behind its STARTTLS reply"
                                       : "4.7.5 TLS could not be started");
    client_attempt_failed(client, connection);
}

static void connection_tls_done(struct client *client, struct client_connection *connection)
{
    const char *version = stream_tls_version(&connection->stream);

    smtpc_tls_done(&connection->smtpc);
    if (trace_is_on(client->options.trace))
        client_trace_note(client, connection, "%s", version == NULL ? "TLS" : version);
}

/* The last octet of the body was appended. */
static void body_stamp(struct client *client, const struct client_connection *connection)
{
    const struct client_attempt *attempt = &connection->attempt;
    const struct client_request *request = &attempt->request;
    uint64_t heard = request->feed != NULL ? request->feed->heard : request->heard;

    stamps_out(client->options.stamps, STAMPS_BODY, &connection->stream, heard,
               heard > attempt->asked ? heard : attempt->asked);
}

static void connection_send_body(struct client *client, struct client_connection *connection)
{
    struct smtpc *smtpc = &connection->smtpc;
    const struct client_request *request = &connection->attempt.request;
    bool is_open = request->feed != NULL;

    if (connection->attempt.asked == 0)
        connection->attempt.asked = stamps_turn(client->options.stamps);
    if ((is_open ? client_feed_send(client, connection) : client_body_send(client, connection)) ==
        ERR_OK) {
        if (smtpc->state == SMTPC_STATE_END)
            body_stamp(client, connection);
        if (smtpc->state == SMTPC_STATE_END && trace_is_on(client->options.trace))
            client_trace_note(client, connection, "message of %llu octets",
                              (unsigned long long)(is_open ? connection->attempt.request.feed->taken
                                                           : smtpc->transaction.body_size));
        return;
    }
    smtpc_lost(smtpc, "4.3.2 no memory for the body");
    client_attempt_failed(client, connection);
}

/* Hand over more of the body. Progress: the block's time begins anew. */
static void connection_go_on(struct client *client, struct client_connection *connection)
{
    const struct client_attempt *attempt = &connection->attempt;
    const struct client_feed *feed = attempt->request.feed;
    uint64_t before = feed != NULL ? feed->taken : attempt->body_index;

    connection_send_body(client, connection);
    if (connection->state == CLIENT_STATE_ACTIVE && connection->has_request &&
        before != (feed != NULL ? feed->taken : attempt->body_index))
        connection->step = UINT32_MAX;
}

static void connection_finished(struct client *client, struct client_connection *connection)
{
    if (connection->smtpc.state == SMTPC_STATE_FAILED)
        client_follow_judge(client, connection, &connection->smtpc.failure);
    else
        connection->has_led |= connection->attempt.has_followed;
    if (connection->smtpc.state == SMTPC_STATE_ENVELOPE) {
        client_follow_promote(client, connection);
        return;
    }
    if (connection->smtpc.state != SMTPC_STATE_FAILED)
        client_follow_settle(client, connection, true);
    client_attempt_finish(client, connection);
    switch (connection->smtpc.state) {
    case SMTPC_STATE_READY:
        connection_rest(client, connection);
        break;
    case SMTPC_STATE_RSET:
        break; /* READY comes with its reply */
    default:
        client_follow_end(client, connection);
        client_connection_leave(client, connection);
    }
}

static void connection_on_event(struct client *client, struct client_connection *connection,
                                enum smtpc_event event)
{
    switch (event) {
    case SMTPC_MORE:
        break;
    case SMTPC_START_TLS:
        connection_start_tls(client, connection);
        break;
    case SMTPC_READY:
        if (!connection->has_request)
            connection_rest(client, connection);
        else if (client_attempt_begin(client, connection) == SMTPC_FINISHED)
            connection_finished(client, connection);
        break;
    case SMTPC_SEND_BODY:
        if (stream_readable(&connection->stream) > 0) {
            smtpc_desynchronised(&connection->smtpc);
            client_attempt_failed(client, connection);
            break;
        }
        client_follow_settle(client, connection, true);
        connection_drain(client, connection);
        if (connection->smtpc.state == SMTPC_STATE_BODY)
            connection_send_body(client, connection);
        break;
    case SMTPC_FINISHED:
        connection_finished(client, connection);
        break;
    case SMTPC_FAILED:
        client_attempt_failed(client, connection);
        break;
    }
}

static void connection_feed(struct client *client, struct client_connection *connection)
{
    struct client_attempt *attempt = &connection->attempt;
    bool was_greeting = connection->smtpc.state == SMTPC_STATE_GREETING;
    struct span octets;
    uint32_t consumed;

    if (stream_peek(&connection->stream, &octets, 1) == 0)
        return;
    bool is_traced = trace_is_on(client->options.trace);
    uint8_t unfinished[SMTP_REPLY_LINE_KEPT] UNINITIALIZED;
    uint32_t unfinished_size = is_traced ? client_trace_unfinished(connection, unfinished) : 0;
    bool is_bdat = connection->smtpc.state == SMTPC_STATE_END &&
                   connection->smtpc.transaction.is_bdat &&
                   connection->smtpc.transaction.is_pipelined;
    enum smtpc_event event = smtpc_feed(&connection->smtpc, octets, &consumed);
    if (is_traced)
        client_trace_replies(client, connection, span_of(unfinished, unfinished_size),
                             span_head(octets, consumed));
    stream_consume(&connection->stream, consumed);
    if (is_bdat && event == SMTPC_FINISHED && connection->smtpc.parser.reply.code / 100 == 2)
        client_follow_learn(client, connection);
    if (connection->has_request && connection->smtpc.transaction.answered > 0) {
        attempt->is_reused = false;
        client_attempt_mail_over(client, connection);
    }
    if (was_greeting && (connection->smtpc.state == SMTPC_STATE_EHLO ||
                         connection->smtpc.state == SMTPC_STATE_HELO)) {
        attempt->has_connected = true;
        client_site_answered(client, connection);
        client->options.on_host(client->options.context, connection->site, &connection->peer, true);
    }
    bool is_chunk_answered =
        event == SMTPC_MORE && connection->has_request && smtpc_may_chunk(&connection->smtpc);
    connection_on_event(client, connection, event);
    if (is_chunk_answered)
        connection_go_on(client, connection);
}

static const char *lost_text(const struct client_connection *connection)
{
    if (connection->smtpc.state == SMTPC_STATE_HANDSHAKE)
        return stream_error(&connection->stream) == ERR_PEER_CERTIFICATE
                   ? "4.7.5 the server's certificate does not satisfy the route"
                   : "4.7.5 the TLS handshake failed";
    return stream_error(&connection->stream) == ERR_PEER_RESET
               ? "4.4.2 the server reset the connection"
               : "4.4.2 the server closed the connection";
}

void client_connection_drive(struct client *client, struct client_connection *connection)
{
    struct stream *stream = &connection->stream;

    if (connection->state == CLIENT_STATE_ACTIVE && connection->smtpc.state == SMTPC_STATE_FAILED)
        client_attempt_failed(client, connection); /* while another request was to follow */
    /* Each round consumes what the flow holds, or hands over commands; the engine stops both. */
    while (connection->state == CLIENT_STATE_ACTIVE) {
        if (connection->smtpc.state == SMTPC_STATE_HANDSHAKE &&
            stream_get_state(stream) == STREAM_OPEN)
            connection_tls_done(client, connection);
        if (stream_readable(stream) > 0)
            connection_feed(client, connection);
        else if (!connection_drain(client, connection))
            break;
    }
    if (connection->state == CLIENT_STATE_QUITTING) {
        quitting_look(client, connection);
        return;
    }
    if (connection->state != CLIENT_STATE_ACTIVE)
        return;
    enum stream_state state = stream_get_state(stream);
    if (state == STREAM_PEER_CLOSED || state == STREAM_FAILED) {
        smtpc_lost(&connection->smtpc, lost_text(connection));
        client_attempt_failed(client, connection);
        return;
    }
    client_follow_look(client, connection);
    step_arm(client, connection);
}

/* There is more of the body, or room for it. A reply that is here already is read first: it is none
 * to the end that may leave now. */
static void connection_more_body(struct client *client, struct client_connection *connection)
{
    if (stream_readable(&connection->stream) > 0)
        client_connection_drive(client, connection);
    if (connection->state != CLIENT_STATE_ACTIVE || connection->smtpc.state != SMTPC_STATE_BODY)
        return;
    connection_go_on(client, connection);
    client_connection_drive(client, connection);
}

void client_connection_on_feed(struct client *client, struct client_connection *connection)
{
    CHECK(connection->state == CLIENT_STATE_ACTIVE);
    if (connection->smtpc.state == SMTPC_STATE_BODY)
        connection_more_body(client, connection);
}

/* ---- events ---- */

static void connecting_on_flow(struct client *client, struct client_connection *connection,
                               uint32_t events)
{
    if ((events & (FLOW_FAILED | FLOW_RESET)) != 0) {
        enum err err = flow_error(client->options.plane, connection->stream.flow);
        stream_abort(&connection->stream);
        client_attempt_unreachable(client, connection, err);
        return;
    }
    if ((events & FLOW_CONNECTED) == 0)
        return;
    client_race_end(client, connection);
    client_connection_connected(client, connection);
}

void client_connection_on_flow(struct client *client, struct client_connection *connection,
                               const struct flow_event *event)
{
    uint32_t events = stream_on_event(&connection->stream, event);

    switch (connection->state) {
    case CLIENT_STATE_CONNECTING:
        connecting_on_flow(client, connection, events);
        break;
    case CLIENT_STATE_RACING:
        client_race_on_flow(client, connection, events);
        break;
    case CLIENT_STATE_ACTIVE:
        if (connection->smtpc.state == SMTPC_STATE_BODY && (events & FLOW_WRITABLE) != 0)
            connection_more_body(client, connection);
        else
            client_connection_drive(client, connection);
        break;
    case CLIENT_STATE_IDLE:
        /* 421, a FIN, or nonsense: in any case the end. */
        if (stream_readable(&connection->stream) > 0 ||
            stream_get_state(&connection->stream) != STREAM_OPEN)
            client_connection_leave(client, connection);
        break;
    case CLIENT_STATE_QUITTING:
        quitting_look(client, connection);
        break;
    default:
        CHECK(connection->state == CLIENT_STATE_STARTING);
    }
}

static void connecting_on_timer(struct client *client, struct client_connection *connection)
{
    if (!connection->attempt.is_cancelled && client->now < connection->step_deadline) {
        client_race_begin(client, connection);
        return;
    }
    stream_abort(&connection->stream);
    client_attempt_unreachable(client, connection, ERR_TIMEOUT);
}

static void active_on_timer(struct client *client, struct client_connection *connection)
{
    if (connection->smtpc.state == SMTPC_STATE_READY && connection->has_request) {
        connection_finished(client, connection); /* refused without a command, on reuse */
        return;
    }
    smtpc_lost(&connection->smtpc, connection->has_request && connection->attempt.is_cancelled
                                       ? "4.3.0 the attempt was cancelled"
                                       : "4.4.2 the server did not answer in time");
    client_attempt_failed(client, connection);
}

void client_connection_on_timer(struct client *client, struct client_connection *connection)
{
    tick_us due = connection->due;

    connection->due = TICK_NEVER;
    if (due > client->now) {
        if (due != TICK_NEVER)
            client_connection_set_due(client, connection, due);
        return;
    }
    switch (connection->state) {
    case CLIENT_STATE_STARTING:
        client_attempt_connect(client, connection, true);
        break;
    case CLIENT_STATE_CONNECTING:
        connecting_on_timer(client, connection);
        break;
    case CLIENT_STATE_RACING:
        client_race_on_timer(client, connection);
        break;
    case CLIENT_STATE_ACTIVE:
        active_on_timer(client, connection);
        break;
    case CLIENT_STATE_IDLE:
        client_connection_leave(client, connection);
        break;
    case CLIENT_STATE_GONE:
        connection_closed(client, connection);
        break;
    case CLIENT_STATE_FOLLOWING:
        client_follow_on_timer(client, connection);
        break;
    default:
        CHECK(connection->state == CLIENT_STATE_QUITTING);
        connection_abort(client, connection);
    }
}

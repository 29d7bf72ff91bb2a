/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inbound SMTP of one shard: listeners, sessions, deadlines; it moves octets between streams, the
 * session engine (smtpd.h) and the transfer, and knows no SMTP itself.
 *
 * A session is run when something happened to it: octets, room, a commit, a deadline.
 *
 *   accept -> greeting list -> (next turn: banner) -> runs ... -> CLOSE -> freed
 *                                          |  client lost -> waits for its commits -> freed
 *
 * Invariants
 *   1. An intake is open only while smtpd_is_storing(): a step that changes that aborts it.
 *   2. Body octets are taken by reference and charged to the flow until the transfer has them.
 *   3. A session whose client is gone lives on until its last pending commit is in: a client that
 *      leaves after its end of data has handed its message over.
 *   4. A session that waits (for commits, for the spool, for the client to read) reads nothing.
 *   5. A commit's reply is written when it comes; what the client pipelined behind it is read in
 *      the next server_advance(), not inside the transfer's call.
 *
 * The banner waits one turn so that octets which are there already are noticed: a client that
 * speaks first does not listen, and is refused.
 *
 * Limits: HANDSHAKE_STEPS_MAX steps of TLS handshakes and SIGN_COST_MAX of signatures in a turn;
 * options.flow_max flows in use, of all kinds: with more, clients are turned away at the door, so
 * that mail can still go out; options.body_octets of large messages asked for at a time, after
 * which others wait for their 354 (body_gate.h). Not here: runs (server_session.c), message octets
 * (server_body.c), sockets (server_listener.c).
 */
#include "relay/server.h"

#include <stdlib.h>

#include "relay/server_internal.h"

#define HANDSHAKE_STEPS_MAX 2u
#define QUOTA_PLACES_MAX    262144u /* counts of users, two or three each */
#define SIGN_COST_MAX       32u     /* four signatures by RSA of 2,048 bits: dkim_signer_cost() */

/* ---- the shard's turn ---- */

/* What sessions that run now must know. */
static void turn_begin(struct server *server, struct tick_now now)
{
    brake_set_time(server->brake, now.tick);
    server->smtpd.is_storage_lost = !transfer_can_store(server->options.transfer);
}

void server_on_flow(struct server *server, const struct flow_event *event, struct tick_now now)
{
    uint32_t index = (uint32_t)event->user;

    turn_begin(server, now);
    CHECK((event->user & SERVER_FLOW_USER_MASK) == SERVER_FLOW_USER_TAG);
    if ((event->user & SERVER_LISTENER_USER) == SERVER_LISTENER_USER) {
        server_listener_on_flow(server, index, now);
        return;
    }
    if ((event->user & SERVER_AUTH_USER) == SERVER_AUTH_USER) {
        server_auth_on_flow(server, event, now);
        return;
    }
    struct server_session *session = server_session_at(server, index);
    /* An event of this poll may speak of a flow that was let go while others were handled. */
    if (session == NULL || !session->is_connected ||
        session->stream.flow.index != event->flow.index ||
        session->stream.flow.generation != event->flow.generation)
        return;
    if (stream_get_state(&session->stream) == STREAM_HANDSHAKE) {
        session->late_events = (uint16_t)(session->late_events | event->events);
        if (session->queue != SERVER_QUEUE_HANDSHAKE)
            server_session_enqueue(server, session, SERVER_QUEUE_HANDSHAKE);
        return;
    }
    stream_on_event(&session->stream, event);
    if (session->queue == SERVER_QUEUE_GREETING && !(event->events & (FLOW_RESET | FLOW_FAILED)))
        return; /* server_advance() looks at what it said */
    /* While it is READY older octets wait, too. */
    if ((event->events & FLOW_READABLE) && session->queue != SERVER_QUEUE_READY)
        session->heard = stamps_turn(server->options.stamps);
    server_session_run(server, session, now);
}

void server_on_commit(struct server *server, uint64_t user, const struct message_fate *fate,
                      struct tick_now now)
{
    struct server_session *session = server_session_at(server, (uint32_t)(user >> 16));

    CHECK(session != NULL);
    smtpd_committed(&server->smtpd, &session->smtpd, (uint16_t)user, fate, now);
    if (session->smtpd.pending == NULL)
        server_gate_pass(server, session);
    server_session_flush(server, session);
    if (session->queue != SERVER_QUEUE_GREETING && session->queue != SERVER_QUEUE_GATE &&
        !server_session_rests(server, session))
        server_session_enqueue(server, session, SERVER_QUEUE_READY);
}

bool server_is_heard(const struct server *server, uint64_t user)
{
    const struct server_session *session = server_session_at(server, (uint32_t)(user >> 16));

    CHECK(session != NULL);
    return session->is_connected && !session->has_left;
}

/* ---- quotas of users ---- */

static void quota_send(void *context, uint32_t to_shard, const struct quota_message *message)
{
    const struct server *server = context;

    server->options.send_quota(server->options.context, to_shard, message);
}

static void quota_wake(void *context, void *owner)
{
    struct server_session *session = WHEEL_OWNER(owner, struct server_session, smtpd);

    server_session_enqueue(context, session, SERVER_QUEUE_READY);
}

void server_on_quota(struct server *server, const struct quota_message *message,
                     struct tick_now now)
{
    quota_receive(server->smtpd.quota, message, now.tick);
}

struct quota_set *server_quota(struct server *server)
{
    return server->smtpd.quota;
}

/* ---- the turn's parts ---- */

static void advance_greeting(struct server *server, struct tick_now now)
{
    struct server_session *session, *next;

    for (session = TAILQ_FIRST(&server->queues[SERVER_QUEUE_GREETING]); session != NULL;
         session = next) {
        next = TAILQ_NEXT(session, ready_link); /* a run may free the session */
        if (session->accepted >= now.tick)
            break;
        server_session_unqueue(server, session);
        bool has_early_octets = stream_readable(&session->stream) > 0;
        server->stats.desynchronised += has_early_octets;
        smtpd_greet(&server->smtpd, &session->smtpd, has_early_octets, now);
        server_session_run(server, session, now);
    }
}

static void advance_ready(struct server *server, struct tick_now now)
{
    struct server_session *session;

    /* Those that get ready meanwhile wait for the next turn. */
    struct server_session *last =
        TAILQ_LAST(&server->queues[SERVER_QUEUE_READY], server_session_queue);
    for (bool is_last = last == NULL; !is_last;) {
        session = TAILQ_FIRST(&server->queues[SERVER_QUEUE_READY]);
        is_last = session == last;
        server_session_run(server, session, now);
    }
}

static void advance_stalled(struct server *server, struct tick_now now)
{
    struct server_session *session, *next;

    for (session = TAILQ_FIRST(&server->queues[SERVER_QUEUE_STALLED]); session != NULL;
         session = next) {
        next = TAILQ_NEXT(session, ready_link);
        if (session->intake == NULL ||
            transfer_pending(session->intake) <= SERVER_BODY_PENDING_MAX / 2)
            server_session_run(server, session, now);
    }
}

/* A step of a handshake costs as much as hundreds of commands: the longest waiting ones first, and
 * few in a turn, so that a flood of them does not hold up everybody else. */
static void advance_handshakes(struct server *server, struct tick_now now)
{
    struct server_session *session;

    for (uint32_t i = 0; i < HANDSHAKE_STEPS_MAX; i++) {
        session = TAILQ_FIRST(&server->queues[SERVER_QUEUE_HANDSHAKE]);
        if (session == NULL)
            return;
        struct flow_event event = {.flow = session->stream.flow, .events = session->late_events};
        session->late_events = 0;
        stream_on_event(&session->stream, &event);
        if (session->smtpd.state == SMTPD_CONNECTED &&
            stream_get_state(&session->stream) == STREAM_OPEN) {
            /* TLS came first: the banner's turn. */
            session->accepted = now.tick;
            server_session_enqueue(server, session, SERVER_QUEUE_GREETING);
            continue;
        }
        server_session_run(server, session, now);
    }
}

void server_advance(struct server *server, struct tick_now now)
{
    struct wheel_timer *timer;

    turn_begin(server, now);
    server->sign_left = SIGN_COST_MAX;
    server_auth_advance(server, now);
    advance_handshakes(server, now);
    advance_greeting(server, now);
    advance_ready(server, now);
    advance_stalled(server, now);
    server_gate_advance(server, now);
    server_bodies_relieve(server, now);
    quota_advance(server->smtpd.quota, now.tick);
    while ((timer = wheel_expire_next(&server->wheel, now.tick)) != NULL) {
        struct server_session *session = WHEEL_OWNER(timer, struct server_session, timer);
        bool was_closing = session->smtpd.state == SMTPD_CLOSING;
        smtpd_expire(&server->smtpd, &session->smtpd, now);
        server->stats.timeouts += !was_closing && session->smtpd.state == SMTPD_CLOSING;
        server_session_settle(server, session);
    }
}

tick_us server_deadline(const struct server *server)
{
    const struct server_session *first = TAILQ_FIRST(&server->queues[SERVER_QUEUE_GREETING]);

    if (!TAILQ_EMPTY(&server->queues[SERVER_QUEUE_READY]) ||
        !TAILQ_EMPTY(&server->queues[SERVER_QUEUE_HANDSHAKE]))
        return 0;
    tick_us deadline = wheel_deadline(&server->wheel), quota = quota_deadline(server->smtpd.quota);
    tick_us gate = server_gate_deadline(server);
    deadline = quota < deadline ? quota : deadline;
    deadline = gate < deadline ? gate : deadline;
    if (server_auth_is_due(server->auth) || server->relief_next > 0)
        return 0;
    if (first != NULL && first->accepted + 1 < deadline)
        deadline = first->accepted + 1;
    return deadline;
}

bool server_drain(struct server *server, struct tick_now now)
{
    struct server_session *session, *next;

    if (!server->is_draining)
        server_listeners_close(server);
    server->is_draining = true;
    quota_return_all(server->smtpd.quota, now.tick);
    for (session = LIST_FIRST(&server->sessions); session != NULL; session = next) {
        next = LIST_NEXT(session, link);
        /* Who waits for the home of its user may wait for a shard that has stopped. */
        bool is_waiting = smtpd_need(&session->smtpd) == SMTPD_NEED_QUOTA;
        if (session->smtpd.state == SMTPD_CLOSING ||
            (!smtpd_is_idle(&session->smtpd) && !is_waiting))
            continue;
        smtpd_dismiss(&server->smtpd, &session->smtpd, SMTPD_REPLY_SHUTDOWN);
        server_session_settle(server, session);
    }
    return LIST_EMPTY(&server->sessions);
}

void server_dismiss(struct server *server)
{
    struct server_session *session, *next;

    for (session = LIST_FIRST(&server->sessions); session != NULL; session = next) {
        next = LIST_NEXT(session, link);
        if (session->smtpd.state == SMTPD_CLOSING)
            continue;
        smtpd_dismiss(&server->smtpd, &session->smtpd, SMTPD_REPLY_SHUTDOWN);
        server_session_settle(server, session);
    }
}

bool server_resume(struct server *server)
{
    server->is_draining = false;
    return server_listeners_open(server);
}

bool server_uses_settings(const struct server *server, uint64_t serial)
{
    if (server->settings->serial == serial)
        return true;
    for (uint32_t i = 0; i < SETTINGS_SNAPSHOT_MAX; i++) {
        if (server->snapshots[i].serial == serial && server->snapshots[i].sessions > 0)
            return true;
    }
    return false;
}

/* ---- life ---- */

struct server *server_new(const struct server_options *options, const struct settings *settings,
                          struct tick_now now)
{
    struct server *server = calloc(1, sizeof(*server));

    CHECK(server != NULL); /* start-up */
    server->options = *options;
    LIST_INIT(&server->sessions);
    LIST_INIT(&server->free);
    for (uint32_t i = 0; i < SERVER_QUEUE_COUNT; i++)
        TAILQ_INIT(&server->queues[i]);
    smtpd_context_init(&server->smtpd, options->shard, options->records);
    uint64_t seed = rng_u64(options->rng);
    server->brake = brake_new(seed);
    brake_set_time(server->brake, now.tick);
    server->smtpd.brake = server->brake;
    struct quota_options quota = {.shard = options->shard,
                                  .shard_count = options->shard_count,
                                  .place_max = QUOTA_PLACES_MAX,
                                  .context = server,
                                  .send = quota_send,
                                  .wake = quota_wake};
    server->smtpd.quota = quota_set_new(&quota, now.tick);
    server->auth = server_auth_new(server, seed + 1);
    wheel_init(&server->wheel, now.tick);
    body_gate_init(&server->gate, options->body_octets);
    server_listeners_make(server, settings);
    return server;
}

void server_free(struct server *server)
{
    struct server_session *session;

    server_listeners_close(server);
    while ((session = LIST_FIRST(&server->sessions)) != NULL) {
        smtpd_hang_up(&server->smtpd, &session->smtpd);
        server_intake_check(server, session);
        if (session->is_connected)
            stream_abort(&session->stream);
        session->is_connected = false;
        smtpd_forget_pending(&server->smtpd, &session->smtpd);
        server_session_free(server, session);
    }
    server_auth_free(server->auth);
    quota_set_free(server->smtpd.quota);
    smtpd_context_fini(&server->smtpd);
    brake_free(server->brake);
    for (uint32_t i = 0; i < server->block_count; i++)
        free(server->blocks[i]);
    free(server->blocks);
    free(server->listeners);
    free(server);
}

struct server_stats server_get_stats(const struct server *server)
{
    struct server_stats stats = server->stats;

    stats.closed = server->is_draining;
    stats.messages_accepted = server->smtpd.messages_accepted;
    stats.messages_rejected = server->smtpd.messages_rejected;
    stats.pools_unknown = server->smtpd.pools_unknown;
    stats.recipients_accepted = server->smtpd.recipients_accepted;
    stats.recipients_rejected = server->smtpd.recipients_rejected;
    stats.dkim = server->smtpd.dkim;
    stats.auth = server->smtpd.auth;
    stats.brakes = brake_get_stats(server->brake);
    stats.quota = quota_get_stats(server->smtpd.quota);
    return stats;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One session's run: steps as smtpd_need() says, until there is nothing to do or the budget is used
 * up, then the settle: one write with all replies, what to wait for, when to look again.
 *
 * A session that waits (for commits, for the spool, for the client to read its replies) reads
 * nothing. A session whose client is gone lives on until its last pending commit is in.
 *
 * Sessions live in blocks of SESSION_BLOCK that are never moved or given back.
 * Limits: STEPS_MAX steps per run, of COMMANDS_MAX commands each; UNSENT_MAX octets of replies that
 * the client has not read.
 */
#include <stdlib.h>

#include "relay/server_internal.h"

#define SESSION_BLOCK     64u
#define SESSION_COUNT_MAX (1u << 24)
#define STEPS_MAX         64u
#define UNSENT_MAX        65536u
#define COMMANDS_MAX      4u /* of one step */
#define OUTPUT_FLUSH_SIZE (SMTPD_OUTPUT_SIZE / 2)

/* ---- sessions ---- */

void server_session_unqueue(struct server *server, struct server_session *session)
{
    if (session->queue != SERVER_QUEUE_NONE)
        TAILQ_REMOVE(&server->queues[session->queue], session, ready_link);
    session->queue = SERVER_QUEUE_NONE;
}

void server_session_enqueue(struct server *server, struct server_session *session,
                            enum server_queue queue)
{
    server_session_unqueue(server, session);
    session->queue = (uint8_t)queue;
    TAILQ_INSERT_TAIL(&server->queues[queue], session, ready_link);
}

static bool sessions_grow(struct server *server)
{
    uint32_t first = server->block_count * SESSION_BLOCK;

    if (first + SESSION_BLOCK > SESSION_COUNT_MAX)
        return false;
    struct server_session **blocks =
        realloc(server->blocks, (server->block_count + 1) * sizeof(struct server_session *));
    if (blocks == NULL)
        return false;
    server->blocks = blocks;
    struct server_session *block = calloc(SESSION_BLOCK, sizeof(*block));
    if (block == NULL)
        return false;
    server->blocks[server->block_count++] = block;
    for (uint32_t i = 0; i < SESSION_BLOCK; i++) {
        block[i].index = first + i;
        LIST_INSERT_HEAD(&server->free, &block[i], link);
    }
    return true;
}

uint32_t server_session_end(const struct server *server)
{
    return server->block_count * SESSION_BLOCK;
}

struct server_session *server_session_at(const struct server *server, uint32_t index)
{
    if (index / SESSION_BLOCK >= server->block_count)
        return NULL;
    struct server_session *session = &server->blocks[index / SESSION_BLOCK][index % SESSION_BLOCK];
    return session->is_used ? session : NULL;
}

/* Places are enough: whoever makes snapshots keeps to SETTINGS_SNAPSHOT_MAX of them. */
static struct server_snapshot *snapshot_of(struct server *server, uint64_t serial)
{
    struct server_snapshot *place = NULL;

    for (uint32_t i = 0; i < SETTINGS_SNAPSHOT_MAX; i++) {
        struct server_snapshot *snapshot = &server->snapshots[i];
        if (snapshot->sessions > 0 && snapshot->serial == serial)
            return snapshot;
        if (snapshot->sessions == 0)
            place = snapshot;
    }
    CHECK(place != NULL);
    place->serial = serial;
    return place;
}

struct server_session *server_session_new(struct server *server)
{
    if (LIST_EMPTY(&server->free) && !sessions_grow(server))
        return NULL;
    struct server_session *session = LIST_FIRST(&server->free);
    uint32_t index = session->index;
    LIST_REMOVE(session, link);
    *session = (struct server_session){.index = index, .is_used = true, .is_connected = true};
    buf_queue_init(&session->body);
    LIST_INSERT_HEAD(&server->sessions, session, link);
    server->stats.open += 1;
    snapshot_of(server, server->settings->serial)->sessions += 1;
    return session;
}

void server_session_free(struct server *server, struct server_session *session)
{
    CHECK(!session->is_connected && session->intake == NULL);
    if (trace_is_on(server->options.trace))
        server_trace_note(server, session, "closed");
    snapshot_of(server, session->smtpd.settings->serial)->sessions -= 1;
    brake_disconnect(server->brake, session->smtpd.brake);
    body_gate_leave(&server->gate, session->gate_place, session->index);
    smtpd_fini(&server->smtpd, &session->smtpd);
    server_session_unqueue(server, session);
    wheel_cancel(&server->wheel, &session->timer);
    LIST_REMOVE(session, link);
    session->is_used = false;
    LIST_INSERT_HEAD(&server->free, session, link);
    server->stats.open -= 1;
}

/* ---- steps ---- */

void server_session_flush(struct server *server, struct server_session *session)
{
    struct span output = span_of(server->smtpd.output, server->smtpd.output_size);
    uint32_t heard_count = server->smtpd.heard_count;

    server->smtpd.output_size = server->smtpd.heard_count = 0;
    if (output.size == 0 || !session->is_connected)
        return;
    if (trace_is_on(server->options.trace))
        server_trace_replies(server, session, output);
    if (stream_write(&session->stream, output) != ERR_OK) {
        /* Without memory for a reply the two sides cannot go on together. */
        smtpd_hang_up(&server->smtpd, &session->smtpd);
        stream_abort(&session->stream);
        session->is_connected = false;
        return;
    }
    for (uint32_t i = 0; i < heard_count; i++)
        stamps_out(server->options.stamps, STAMPS_REPLY, &session->stream, server->smtpd.heard[i],
                   server->smtpd.heard[i]);
}

/* The command at the front of `octets`, which are moved behind it. False: it waits for more. */
static bool command_step(struct server *server, struct server_session *session, struct span *octets,
                         struct tick_now now)
{
    uint32_t used = 0;

    /* A password may come where none is asked for: with AUTH before TLS, or after a login. */
    bool has_secrets = smtpd_has_secrets(&session->smtpd) ||
                       span_has_prefix_nocase(*octets, SPAN_LITERAL("AUTH "));
    if (smtpd_feed_command(&server->smtpd, &session->smtpd, *octets, now, &used) != ERR_OK)
        return false;
    has_secrets = has_secrets || smtpd_has_secrets(&session->smtpd);
    if (trace_is_on(server->options.trace))
        server_trace_command(server, session, span_head(*octets, used), has_secrets);
    /* The buffers are ours, and go back to the pool as they are. */
    if (has_secrets)
        explicit_bzero((void *)octets->data, used);
    *octets = span_skip(*octets, used);
    return true;
}

/* Commands that came together are taken from the stream together. */
static bool command_feed(struct server *server, struct server_session *session, struct tick_now now)
{
    uint32_t readable = stream_readable(&session->stream);

    if (readable == 0 || stream_unsent(&session->stream) > UNSENT_MAX)
        return false;
    struct span octets =
        stream_pull(&session->stream, readable < FLOW_PULL_MAX ? readable : FLOW_PULL_MAX);
    uint32_t pulled = octets.size;
    bool goes_on = true;
    for (uint32_t i = 0; i < COMMANDS_MAX && goes_on && octets.size > 0 &&
                         server->smtpd.output_size <= OUTPUT_FLUSH_SIZE &&
                         smtpd_need(&session->smtpd) == SMTPD_NEED_COMMAND;
         i++)
        goes_on = command_step(server, session, &octets, now);
    stream_consume(&session->stream, pulled - octets.size);
    return octets.size < pulled;
}

void server_session_tls_first(struct server *server, struct server_session *session)
{
    if (stream_begin_tls_server(&session->stream, session->smtpd.listener->tls_server) == ERR_OK) {
        server->stats.tls_sessions += 1;
        return;
    }
    smtpd_hang_up(&server->smtpd, &session->smtpd);
    stream_abort(&session->stream);
    session->is_connected = false;
}

static bool tls_start(struct server *server, struct server_session *session, struct tick_now now)
{
    server_session_flush(server, session);
    if (!session->is_connected)
        return false;
    if (stream_start_tls_server(&session->stream, session->smtpd.listener->tls_server) != ERR_OK) {
        server->stats.desynchronised += 1;
        smtpd_hang_up(&server->smtpd, &session->smtpd);
        stream_abort(&session->stream);
        session->is_connected = false;
        return false;
    }
    server->stats.tls_sessions += 1;
    smtpd_tls_started(&server->smtpd, &session->smtpd, NULL, now);
    return false; /* the handshake's octets are the stream's business */
}

/* Do what the engine needs. False: nothing to be done now. */
static bool session_step(struct server *server, struct server_session *session, struct tick_now now)
{
    switch (smtpd_need(&session->smtpd)) {
    case SMTPD_NEED_COMMAND:
        return command_feed(server, session, now);
    case SMTPD_NEED_BODY:
        return server_body_feed(server, session, now);
    case SMTPD_NEED_BEGIN:
        return server_message_begin(server, session, now);
    case SMTPD_NEED_SIGN:
        return server_message_sign(server, session, now);
    case SMTPD_NEED_END:
        server_message_end(server, session, now);
        return true;
    case SMTPD_NEED_TLS:
        return tls_start(server, session, now);
    case SMTPD_NEED_AUTH:
        server_auth_begin(server, session, now);
        return false;
    case SMTPD_NEED_VERDICT:
    case SMTPD_NEED_QUOTA:
    case SMTPD_NEED_GREETING: /* in the next turn */
    case SMTPD_NEED_COMMIT:
    case SMTPD_NEED_CLOSE:
        break;
    }
    return false;
}

/* ---- runs ---- */

static void session_arm(struct server *server, struct server_session *session)
{
    tick_us deadline = smtpd_deadline(&session->smtpd);

    /* Deadlines mostly move away: the timer is left as it is and looks again when it fires. */
    if (deadline != TICK_NEVER &&
        (!wheel_is_armed(&session->timer) || deadline < session->timer.deadline))
        wheel_arm(&server->wheel, &session->timer, deadline);
}

/* What the flow is to report next. */
static uint32_t session_wants(struct server_session *session, enum smtpd_need need)
{
    if (session->queue == SERVER_QUEUE_STALLED || need == SMTPD_NEED_BEGIN ||
        need == SMTPD_NEED_COMMIT || need == SMTPD_NEED_VERDICT || need == SMTPD_NEED_QUOTA)
        return 0;
    if (stream_unsent(&session->stream) > UNSENT_MAX)
        return FLOW_SENT;
    return FLOW_READABLE;
}

bool server_session_rests(struct server *server, struct server_session *session)
{
    if (!session->is_connected || session->queue != SERVER_QUEUE_NONE ||
        session->stream.wanted != FLOW_READABLE ||
        smtpd_need(&session->smtpd) != SMTPD_NEED_COMMAND ||
        stream_get_state(&session->stream) != STREAM_OPEN ||
        stream_readable(&session->stream) > 0 || stream_unsent(&session->stream) > UNSENT_MAX)
        return false;
    session_arm(server, session);
    return true;
}

/* End of a run: replies out, and close, free or wait. */
void server_session_settle(struct server *server, struct server_session *session)
{
    server_intake_check(server, session);
    server_session_flush(server, session);
    server_intake_check(server, session); /* the write may have failed */
    enum smtpd_need need = smtpd_need(&session->smtpd);
    if (session->queue == SERVER_QUEUE_GATE && need != SMTPD_NEED_BEGIN)
        server_session_unqueue(server, session);
    if (need == SMTPD_NEED_CLOSE) {
        if (session->is_connected)
            stream_close(&session->stream);
        session->is_connected = false;
        server_session_free(server, session);
        return;
    }
    if (session->is_connected) {
        uint32_t wants = session_wants(session, need);
        if (wants != session->stream.wanted)
            stream_want(&session->stream, wants);
    }
    session_arm(server, session);
}

/* The client went away without a word, or its FIN is in and all it sent is read. */
static void session_lost(struct server *server, struct server_session *session)
{
    session->has_left = true;
    smtpd_hang_up(&server->smtpd, &session->smtpd);
    server_intake_check(server, session);
    if (stream_get_state(&session->stream) == STREAM_FAILED) {
        stream_abort(&session->stream);
        session->is_connected = false;
    }
}

/* The handshake is over. */
static void session_tls_named(struct server *server, struct server_session *session)
{
    session->smtpd.tls_version = stream_tls_version(&session->stream);
    if (session->smtpd.tls_version != NULL && trace_is_on(server->options.trace))
        server_trace_note(server, session, session->smtpd.tls_version);
}

static bool session_reads(const struct server_session *session)
{
    enum smtpd_need need = smtpd_need(&session->smtpd);

    return need == SMTPD_NEED_COMMAND || need == SMTPD_NEED_BODY || need == SMTPD_NEED_GREETING;
}

void server_session_run(struct server *server, struct server_session *session, struct tick_now now)
{
    bool has_more = session->is_connected;

    /* It keeps its place in the row, and there is nothing else to be done for it. */
    if (session->queue == SERVER_QUEUE_GATE && stream_get_state(&session->stream) != STREAM_FAILED)
        return;
    server_session_unqueue(server, session);
    if (session->smtpd.is_tls && session->smtpd.tls_version == NULL)
        session_tls_named(server, session);
    for (uint32_t i = 0; i < STEPS_MAX && has_more; i++) {
        has_more = session_step(server, session, now);
        server_intake_check(server, session);
        if (server->smtpd.output_size > OUTPUT_FLUSH_SIZE)
            server_session_flush(server, session);
        has_more = has_more && session->is_connected;
    }
    if (has_more) /* the others' turn */
        server_session_enqueue(server, session, SERVER_QUEUE_READY);
    if (session->is_connected && !has_more && session->queue != SERVER_QUEUE_STALLED) {
        enum stream_state state = stream_get_state(&session->stream);
        if (state == STREAM_FAILED || (state == STREAM_PEER_CLOSED && session_reads(session)))
            session_lost(server, session);
    }
    server_session_settle(server, session);
}

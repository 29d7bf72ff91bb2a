/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sink: accepts mail in the mood it was told to have, checks every octet of what
 * angarium-load's source made, and keeps a ledger or the messages themselves.
 *
 * Connections beyond sink_sessions wait in the kernel until one ends; beyond `limit` they get 421.
 * With -m it ends by itself after so many messages. The seconds of its total run from the first
 * MAIL.
 *
 * A reply may be held back (mood) and leave octet by octet (tarpit): its session then has a timer
 * and is not read from. Timers are exact to the millisecond.
 *
 * Invariant: a session in the free list has state SINK_FREE, no stream and no timer.
 */
#include "bench/load/sink_internal.h"

#include <stdlib.h>
#include <unistd.h>

#include "relay/tls_self_signed.h"

/* ---- the end of a session ---- */

void sink_session_end(struct sink *sink, struct sink_session *session, bool is_graceful)
{
    if (session->state == SINK_FREE)
        return;
    wheel_cancel(&sink->wheel, &session->timer);
    if (is_graceful)
        stream_close(&session->stream);
    else
        stream_abort(&session->stream);
    sink_transaction_reset(session);
    session->state = SINK_FREE;
    session->next_free = sink->free_first;
    sink->free_first = (uint32_t)(session - sink->sessions) + 1;
    sink->meter->open--;
}

/* ---- replies ---- */

static void write_out(struct sink *sink, struct sink_session *session, struct span octets)
{
    if (stream_write(&session->stream, octets) != ERR_OK)
        sink_session_end(sink, session, false);
}

/* False: the session is gone. */
static bool after_reply(struct sink *sink, struct sink_session *session)
{
    enum sink_after after = session->after;

    session->after = SINK_AFTER_NOTHING;
    if (session->state == SINK_FREE)
        return false;
    if (after == SINK_AFTER_TLS) {
        session->state = SINK_HANDSHAKE;
        if (stream_start_tls_server(&session->stream, sink->tls) == ERR_OK)
            return true;
    }
    if (after != SINK_AFTER_NOTHING)
        sink_session_end(sink, session, after == SINK_AFTER_CLOSE);
    return after == SINK_AFTER_NOTHING;
}

static void hold_back(struct sink *sink, struct sink_session *session, struct span reply,
                      tick_us delay)
{
    if (session->reply == NULL)
        session->reply = malloc(SINK_REPLY_SIZE);
    CHECK(session->reply != NULL && reply.size <= SINK_REPLY_SIZE);
    memcpy(session->reply, reply.data, reply.size);
    session->reply_size = reply.size;
    session->reply_sent = 0;
    wheel_arm(&sink->wheel, &session->timer, sink->now.tick + delay);
}

static void count_refusal(struct sink *sink, const char *reply)
{
    meter_count(sink->meter, reply[0] == '4' ? METER_TEMPFAILS : METER_PERMFAILS, 1);
}

bool sink_answer(struct sink *sink, struct sink_session *session, enum mood_step step,
                 const struct mood_verdict *verdict, const char *reply)
{
    if (verdict->is_drop) {
        meter_count(sink->meter, METER_LOST, 1);
        sink_session_end(sink, session, false);
        return false;
    }
    if (verdict->reply != NULL) {
        reply = verdict->reply;
        count_refusal(sink, reply);
        /* 421 says that the channel closes; a refusal in place of a greeting ends it, too. */
        bool is_end = memcmp(reply, "421", 3) == 0 || step == MOOD_CONNECT;
        session->after = is_end ? SINK_AFTER_CLOSE : SINK_AFTER_NOTHING;
    }
    struct span text = span_from_text(reply);
    if (verdict->delay > 0 || sink->options->tarpit_ms > 0) {
        hold_back(sink, session, text,
                  verdict->delay > 0 ? verdict->delay : TICK_MS(sink->options->tarpit_ms));
        return true;
    }
    write_out(sink, session, text);
    return after_reply(sink, session);
}

/* The time of a held-back reply, or of its next octet, has come. */
static void reply_late(struct sink *sink, struct sink_session *session)
{
    uint32_t size = sink->options->tarpit_ms > 0 ? 1 : session->reply_size;

    write_out(sink, session, span_of(session->reply + session->reply_sent, size));
    if (session->state == SINK_FREE)
        return;
    session->reply_sent += size;
    if (session->reply_sent < session->reply_size)
        wheel_arm(&sink->wheel, &session->timer,
                  sink->now.tick + TICK_MS(sink->options->tarpit_ms));
    else if (after_reply(sink, session))
        sink_session_read(sink, session);
}

/* ---- connections ---- */

static void session_begin(struct sink *sink, struct sink_session *session, struct flow flow)
{
    sink->free_first = session->next_free;
    stream_init(&session->stream, sink->plane, flow);
    session->state = SINK_COMMANDS;
    session->after = SINK_AFTER_NOTHING;
    meter_count(sink->meter, METER_CONNECTIONS, 1);
    sink->meter->open++;
    if (sink->options->limit > 0 && sink->meter->open > sink->options->limit) {
        const struct mood_verdict verdict = {.reply = "421 4.7.0 too many connections\r\n"};
        meter_count(sink->meter, METER_REFUSED, 1);
        (void)sink_answer(sink, session, MOOD_CONNECT, &verdict, NULL);
    } else if (sink->options->tls == LOAD_TLS_IMPLICIT) {
        session->state = SINK_HANDSHAKE;
        if (stream_start_tls_server(&session->stream, sink->tls) != ERR_OK)
            sink_session_end(sink, session, false);
    } else {
        sink_session_greet(sink, session);
    }
}

static void sink_accept(struct sink *sink)
{
    sink->is_accepting = false;
    while (sink->free_first != 0) {
        uint32_t index = sink->free_first - 1;
        struct flow_address peer;
        struct flow flow;

        if (flow_accept(sink->plane, sink->listener, LOAD_SINK_USER | (index + 1), &flow, &peer) !=
            ERR_OK)
            return;
        session_begin(sink, &sink->sessions[index], flow);
    }
    sink->is_accepting = true;
}

static void session_on_event(struct sink *sink, struct sink_session *session,
                             const struct flow_event *event)
{
    uint32_t events = stream_on_event(&session->stream, event);

    if (session->state == SINK_HANDSHAKE && events & FLOW_CONNECTED) {
        session->state = SINK_COMMANDS;
        if (sink->options->tls == LOAD_TLS_IMPLICIT)
            sink_session_greet(sink, session);
    }
    if (session->state != SINK_FREE)
        sink_session_read(sink, session);
    if (session->state == SINK_FREE || !(events & (FLOW_PEER_CLOSED | FLOW_RESET)))
        return;
    if (events & FLOW_PEER_CLOSED && sink_session_is_late(session))
        return; /* what was said before its FIN still has its reply to come */
    meter_count(sink->meter, METER_LOST,
                session->state == SINK_TEXT || session->state == SINK_CHUNK);
    sink_session_end(sink, session, true);
}

void sink_on_event(struct sink *sink, const struct flow_event *event, struct tick_now now)
{
    uint64_t number = event->user & ~LOAD_SINK_USER;

    sink->now = now;
    if (number == 0) {
        sink_accept(sink);
        return;
    }
    struct sink_session *session = &sink->sessions[number - 1];
    if (session->state != SINK_FREE && session->stream.flow.index == event->flow.index &&
        session->stream.flow.generation == event->flow.generation)
        session_on_event(sink, session, event);
}

bool sink_turn(struct sink *sink, struct tick_now now)
{
    struct wheel_timer *timer;

    sink->now = now;
    while ((timer = wheel_expire_next(&sink->wheel, now.tick)) != NULL) {
        struct sink_session *session = WHEEL_OWNER(timer, struct sink_session, timer);
        bool is_left = stream_get_state(&session->stream) != STREAM_OPEN;
        reply_late(sink, session);
        if (is_left && session->state != SINK_FREE && !sink_session_is_late(session))
            sink_session_end(sink, session, true);
    }
    if (sink->is_accepting && sink->free_first != 0)
        sink_accept(sink);
    return sink->options->sink_messages == 0 ||
           sink->meter->counts[METER_MESSAGES] < sink->options->sink_messages;
}

tick_us sink_deadline(const struct sink *sink)
{
    tick_us deadline = wheel_deadline(&sink->wheel);

    return deadline < sink->meter->line_at ? deadline : sink->meter->line_at;
}

struct meter *sink_meter(struct sink *sink)
{
    return sink->meter;
}

tick_us sink_began(const struct sink *sink)
{
    return sink->first_mail > 0 ? sink->first_mail : sink->started;
}

/* ---- start and end ---- */

/* A certificate of its own, unless files were given. */
static bool sink_tls_make(struct sink *sink)
{
    const struct load_options *options = sink->options;
    char folder[] = "/tmp/angarium-load-XXXXXX", certificate[TLS_SELF_SIGNED_PATH_MAX],
         key[TLS_SELF_SIGNED_PATH_MAX], why[256] = "cannot make a folder in /tmp";
    enum err err = ERR_CONFIG_VALUE;

    if (options->tls == LOAD_TLS_NONE)
        return true;
    if (options->certificate_file != NULL) {
        err = tls_server_context_new(options->certificate_file, options->key_file, "sink",
                                     &sink->tls, why);
    } else if (mkdtemp(folder) != NULL) {
        err = tls_self_signed_ensure(folder, "sink.example", certificate, key, why);
        if (err == ERR_OK)
            err = tls_server_context_new(certificate, key, "sink", &sink->tls, why);
        (void)unlink(certificate);
        (void)unlink(key);
        (void)rmdir(folder);
    }
    if (err != ERR_OK)
        (void)fprintf(stderr, "angarium-load sink: %s\n", why);
    return err == ERR_OK;
}

static void hello_make(const struct load_options *options, bool is_tls, char ret_hello[256])
{
    (void)snprintf(ret_hello, 256,
                   "250-sink.example\r\n%s%s%s250-8BITMIME\r\n250-SMTPUTF8\r\n"
                   "250-ENHANCEDSTATUSCODES\r\n250 SIZE %u\r\n",
                   options->has_no_pipelining ? "" : "250-PIPELINING\r\n",
                   options->has_chunking ? "250-CHUNKING\r\n" : "",
                   options->tls == LOAD_TLS_START && !is_tls ? "250-STARTTLS\r\n" : "",
                   SINK_MESSAGE_MAX);
}

static void sessions_make(struct sink *sink)
{
    sink->session_count = sink->options->sink_sessions;
    sink->sessions = calloc(sink->session_count, sizeof(*sink->sessions));
    CHECK(sink->sessions != NULL);
    for (uint32_t i = sink->session_count; i > 0; i--) {
        sink->sessions[i - 1].next_free = sink->free_first;
        sink->free_first = i;
    }
}

struct sink *sink_new(const struct load_options *options, struct flow_plane *plane,
                      struct ledger *ledger, struct tick_now now)
{
    struct flow_listen_options listen = {.address = options->listen,
                                         .backlog = 4096,
                                         .receive_limit = 1u << 20,
                                         .send_limit = 65536,
                                         .user = LOAD_SINK_USER};
    struct sink *sink = calloc(1, sizeof(*sink));
    char where[FLOW_ADDRESS_TEXT_MAX];

    CHECK(sink != NULL);
    sink->options = options;
    sink->plane = plane;
    sink->ledger = ledger;
    sink->now = now;
    sink->started = now.tick;
    sink->meter = meter_new("sink", METER_END_TO_END, now.tick);
    wheel_init(&sink->wheel, now.tick);
    rng_init_seed(&sink->rng, options->seed);
    hello_make(options, false, sink->hello);
    hello_make(options, true, sink->hello_tls);
    sessions_make(sink);
    bool is_ok = sink_tls_make(sink);
    if (is_ok && flow_listen(plane, &listen, &sink->listener) != ERR_OK) {
        (void)fprintf(stderr, "angarium-load sink: cannot listen on %s: in use, or not ours\n",
                      flow_address_format(&options->listen, where));
        is_ok = false;
    }
    if (is_ok)
        return sink;
    sink_free(sink);
    return NULL;
}

void sink_free(struct sink *sink)
{
    for (uint32_t i = 0; i < sink->session_count; i++) {
        struct sink_session *session = &sink->sessions[i];
        sink_session_end(sink, session, true);
        free(session->recipients);
        free(session->head);
        free(session->kept);
        free(session->reply);
    }
    free(sink->sessions);
    tls_context_free(sink->tls);
    meter_free(sink->meter);
    free(sink);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source: N sessions, each sending one message after the other.
 *
 *   IDLE -> CONNECTING -> BANNER -> HELLO -> [STARTTLS -> HANDSHAKE -> HELLO] -> READY
 *   READY -> ENVELOPE -> BODY -> READY ... -> QUIT      WAITING: READY, and the rate says not yet
 *   READY -> SILENT ... -> QUIT                         of those that send nothing
 *   any state -> lost: the session rests for LOAD_RETRY and reconnects while work is left
 *
 * Closed loop: a session sends its next message when the last was answered; the ramp lets sessions
 * in one after another. Open loop: message k is meant to be sent at pace_due(k), whatever the peer
 * does; whichever session is free takes it, and its latency counts from when it was meant to be
 * sent, so that a peer who stalls cannot hide it by stalling the source. A stall of the source
 * itself is in those latencies too, but is made up for little by little (pace.h): the peer is to
 * see the rate asked for, not what this core was kept from.
 *
 * Silent sessions (--idle) are opened first, SILENT_OPENING at a time, and held until the end: one
 * that is lost is counted and opened again. Messages begin when all of them are there, or when
 * timeout_s is over.
 *
 * A message is counted when its end of data is answered. What was sent and not answered (connection
 * lost) is not sent again: the audit counts it as unknown.
 *
 * Bodies are sent by reference from one text. A buffer counts at most 65,535 references, so there
 * is a copy of the text for every SOURCE_COPY_SESSIONS sessions: each holds a buffer's reference
 * once, and an engine again for each frame not yet acknowledged.
 */
#include "bench/load/source_internal.h"

#include <stdlib.h>

#define SILENT_OPENING 512u

/* ---- lists ---- */

static void link_remove(struct source_session *session)
{
    if (!session->is_listed)
        return;
    session->link.next->previous = session->link.previous;
    session->link.previous->next = session->link.next;
    session->is_listed = false;
}

/* In front of `place`: the end of the list, when that is the list itself. */
static void link_insert(struct source_link *place, struct source_session *session)
{
    CHECK(!session->is_listed);
    session->link = (struct source_link){.next = place, .previous = place->previous};
    place->previous->next = &session->link;
    place->previous = &session->link;
    session->is_listed = true;
}

static struct source_session *list_first(const struct source_link *list)
{
    return list->next == list ? NULL : (struct source_session *)(void *)list->next;
}

/* The list stays in the order of retry_at. */
void source_session_rest(struct source *source, struct source_session *session, bool is_soon)
{
    link_remove(session);
    session->state = SESSION_IDLE;
    session->retry_at = source->now.tick + (is_soon ? 0 : LOAD_RETRY);
    link_insert(is_soon ? source->idle.next : &source->idle, session);
}

void source_session_wait(struct source *source, struct source_session *session)
{
    session->state = SESSION_WAITING;
    link_insert(&source->waiting, session);
}

/* ---- what is left to do ---- */

static struct pace source_pace(const struct source *source)
{
    return (struct pace){.rate = source->options->rate, .ramp = TICK_S(source->options->ramp_s)};
}

bool source_has_work(const struct source *source)
{
    const struct load_options *options = source->options;

    if (load_is_stopping || source->is_failed)
        return false;
    if (source->is_begun && options->duration_s > 0 &&
        source->now.tick >= source->started + TICK_S(options->duration_s))
        return false;
    return options->messages == 0 || source->sequence < options->messages;
}

static tick_us source_due(const struct source *source)
{
    struct pace pace = source_pace(source);

    return source->started + pace_due(&pace, source->sequence);
}

/* Spaced only while there are sessions that wait for nothing else: when none is left, it is the
 * peer who is behind, and what comes free is due at once. */
static tick_us source_begins(const struct source *source)
{
    tick_us due = source_due(source);

    return list_first(&source->waiting) == NULL ? due : pace_spacing_begins(&source->spacing, due);
}

bool source_is_due(const struct source *source)
{
    return source->options->rate <= 0 || source_begins(source) <= source->now.tick;
}

void source_fail(struct source *source, const char *what, struct span detail)
{
    if (source->is_failed)
        return;
    source->is_failed = true;
    (void)fprintf(stderr, "angarium-load source: %s%s", what, detail.size > 0 ? ": " : "");
    for (uint32_t i = 0; i < detail.size && i < 200; i++)
        (void)fputc(detail.data[i] >= ' ' && detail.data[i] <= '~' ? detail.data[i] : '?', stderr);
    (void)fputc('\n', stderr);
}

/* Sessions that the ramp has let in by now. */
static uint32_t sessions_allowed(const struct source *source)
{
    const struct load_options *options = source->options;
    tick_us ramp = TICK_S(options->ramp_s), elapsed = source->now.tick - source->started;

    if (options->rate > 0 || elapsed >= ramp)
        return options->sessions;
    return (uint32_t)((uint64_t)options->sessions * elapsed / ramp) + 1;
}

void source_session_silence(struct source *source, struct source_session *session)
{
    session->state = SESSION_SILENT;
    source->silent_count++;
    meter_count(source->meter, METER_IDLE, 1);
}

static void silent_start(struct source *source)
{
    const struct load_options *options = source->options;

    while (source->silent_started < options->idle &&
           source->silent_started - source->silent_count < SILENT_OPENING) {
        uint32_t index = options->sessions + source->silent_started++;
        source_session_rest(source, &source->sessions[index], true);
    }
    if (source->is_begun)
        return;
    source->is_begun = source->silent_count == options->idle ||
                       source->now.tick >= source->started + TICK_S(options->timeout_s);
    if (source->is_begun)
        source->started = source->now.tick;
}

static void sessions_start(struct source *source)
{
    struct source_session *session;
    uint32_t allowed = source->is_begun ? sessions_allowed(source) : 0;

    while (source->session_started < allowed) {
        session = &source->sessions[source->session_started++];
        source_session_rest(source, session, true);
    }
    while (source_has_work(source) && (session = list_first(&source->idle)) != NULL &&
           session->retry_at <= source->now.tick) {
        link_remove(session);
        source_session_connect(source, session);
    }
}

static void messages_start(struct source *source)
{
    struct source_session *session;

    while ((session = list_first(&source->waiting)) != NULL &&
           (source_is_due(source) || !source_has_work(source))) {
        link_remove(session);
        session->since = source->now.tick;
        session->state = SESSION_READY;
        source_session_next(source, session);
    }
}

static bool is_owed_a_reply(const struct source_session *session)
{
    return session->is_open && session->state > SESSION_CONNECTING &&
           session->state != SESSION_WAITING && session->state != SESSION_SILENT;
}

/* Who owes a reply for too long is let go. Looked at once a second; not at those that are silent,
 * all of them: they may be a million. */
static void sessions_expire(struct source *source)
{
    tick_us patience = TICK_S(source->options->timeout_s);
    bool is_silent = source->silent_count == source->options->idle && !source->is_over;
    uint32_t count = is_silent ? source->options->sessions : source->session_count;

    for (uint32_t i = 0; i < count; i++) {
        struct source_session *session = &source->sessions[i];
        if (is_owed_a_reply(session) && session->since + patience <= source->now.tick)
            source_session_lost(source, session);
    }
}

/* Who is not ready by now has no message to send any more; who is silent may go. */
static void sessions_abandon(struct source *source)
{
    for (uint32_t i = 0; i < source->session_count; i++) {
        struct source_session *session = &source->sessions[i];
        if (session->is_open && session->state < SESSION_READY)
            source_session_lost(source, session);
        else if (session->is_open && session->state == SESSION_SILENT)
            source_session_quit(source, session);
    }
}

static void source_end(struct source *source)
{
    const struct load_options *options = source->options;

    source->is_over = true;
    sessions_abandon(source);
    if (options->rate <= 0)
        return;
    struct pace pace = source_pace(source);
    tick_us elapsed = source->now.tick - source->started;
    if (options->duration_s > 0 && elapsed > TICK_S(options->duration_s))
        elapsed = TICK_S(options->duration_s);
    uint64_t due = pace_count(&pace, elapsed);
    if (options->messages > 0 && due > options->messages)
        due = options->messages;
    if (due > source->sequence)
        meter_count(source->meter, METER_UNSENT, due - source->sequence);
}

bool source_turn(struct source *source, struct tick_now now)
{
    bool is_second = now.tick >= source->meter->line_at;

    source->now = now;
    if (is_second)
        sessions_expire(source);
    silent_start(source);
    sessions_start(source);
    messages_start(source);
    pace_spacing_look(&source->spacing, now.tick);
    if (!source->is_over && !source_has_work(source))
        source_end(source);
    return !source->is_failed && (source->meter->open > 0 || source_has_work(source));
}

tick_us source_wakes(const struct source *source)
{
    tick_us deadline = source->meter->line_at;
    const struct source_session *idle = list_first(&source->idle);

    if (!source_has_work(source))
        return deadline;
    if (idle != NULL && idle->retry_at < deadline)
        deadline = idle->retry_at;
    if (list_first(&source->waiting) != NULL && source->options->rate > 0 &&
        source_begins(source) < deadline)
        deadline = source_begins(source);
    if (source->is_begun && source->session_started < source->options->sessions &&
        source->now.tick + TICK_MS(5) < deadline)
        deadline = source->now.tick + TICK_MS(5);
    return deadline;
}

void source_on_event(struct source *source, const struct flow_event *event, struct tick_now now)
{
    source->now = now;
    source_session_on_event(source, &source->sessions[event->user], event);
}

struct meter *source_meter(struct source *source)
{
    return source->meter;
}

const char *source_note(const struct source *source)
{
    return source->note;
}

bool source_has_failed(const struct source *source)
{
    return source->is_failed;
}

/* Our addresses in whose networks the target is; none with kernel sockets. */
static void addresses_find(struct source *source)
{
    const struct load_options *options = source->options;

    source->addresses =
        calloc((size_t)LOAD_PORT_MAX * LOAD_ADDRESS_MAX, sizeof(*source->addresses));
    CHECK(source->addresses != NULL);
    for (uint32_t i = 0; i < options->port_count; i++) {
        for (uint32_t j = 0; j < options->ports[i].address_count; j++) {
            const struct flow_prefix *address = &options->addresses[i][j];
            if (flow_prefix_contains(address, &options->target))
                source->addresses[source->address_count++] = address;
        }
    }
}

struct source *source_new(const struct load_options *options, struct flow_plane *plane,
                          struct ledger *ledger, struct tick_now now)
{
    struct source *source = calloc(1, sizeof(*source));

    CHECK(source != NULL);
    source->options = options;
    source->plane = plane;
    source->ledger = ledger;
    source->domains = options->domains;
    source->sender_domains = options->sender_domains;
    source->sizes = options->sizes;
    source->idle = (struct source_link){&source->idle, &source->idle};
    source->waiting = (struct source_link){&source->waiting, &source->waiting};
    source->now = now;
    source->started = now.tick;
    source->meter = meter_new("source", METER_MESSAGE, now.tick);
    source->session_count = options->sessions + options->idle;
    source->sessions = calloc(source->session_count, sizeof(*source->sessions));
    CHECK(source->sessions != NULL);
    addresses_find(source);
    rng_init_seed(&source->rng, options->seed);
    if (!source_tls_make(source) || !source_texts_make(source)) {
        source_free(source);
        return NULL;
    }
    return source;
}

void source_free(struct source *source)
{
    for (uint32_t i = 0; i < source->session_count; i++) {
        if (source->sessions[i].is_open)
            stream_abort(&source->sessions[i].stream);
    }
    for (uint32_t i = 0; i < source->text_count; i++)
        buf_queue_fini(&source->texts[i]);
    free(source->texts);
    free(source->plans);
    free(source->sessions);
    free(source->addresses);
    source_tls_free(source);
    meter_free(source->meter);
    free(source);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A message's octets on their way from the stream to the transfer: scanned in place, taken by
 * reference, handed on in larger portions.
 *
 * What the scanner cuts out (stuffed dots, the end of data) splits slices; pieces that are smaller
 * than a slice is worth are copied together instead. Octets stay charged to the flow until the
 * transfer has them, so that a client cannot send faster than they go.
 *
 * Limits: SERVER_BODY_PENDING_MAX octets of one message between us and the disk, then the session
 * stalls; BODY_HAND_ON_SIZE octets wait here at most, and the rest of one scan. When buffers are
 * scarce, RELIEF_SLICE sessions are looked at in a turn and SERVER_RELIEF_HANDS of them handed on.
 * SERVER_GATE_PASSES sessions that waited at the gate go on in a turn.
 */
#include "queue/qmgr_filter.h"
#include "relay/server_internal.h"

#define SPANS_MAX         16u
#define PIECES_MAX        64u
#define PIECE_COPY_MAX    128u /* smaller pieces are copied together: a slice costs more */
#define BODY_HAND_ON_SIZE 32768u
#define RELIEF_SHARE      8u /* of the pool: with less left, clients that stall keep little of it */
#define RELIEF_TIME       TICK_MS(10)
#define RELIEF_SLICE      256u  /* sessions looked at in a turn */
#define BODY_HAND_ON_LOW  4096u /* when buffers are scarce */

/* ---- the message on its way to the transfer ---- */

/* The body's octets went to the transfer, or nowhere: the client may send as many more. */
static void body_let_go(struct server_session *session)
{
    buf_queue_fini(&session->body);
    if (session->is_connected)
        stream_credit(&session->stream, session->taken);
    session->taken = 0;
}

void server_gate_pass(struct server *server, struct server_session *session)
{
    body_gate_leave(&server->gate, session->gate_place, session->index);
    session->gate_place = BODY_GATE_NO_PLACE;
}

/* Invariant 1. */
void server_intake_check(struct server *server, struct server_session *session)
{
    if (session->intake == NULL || smtpd_is_storing(&session->smtpd))
        return;
    transfer_abort(server->options.transfer, session->intake);
    session->intake = NULL;
    server_gate_pass(server, session);
    body_let_go(session);
}

/* It is large enough to go on while it comes. */
static enum err body_stream(struct server *server, struct server_session *session,
                            struct tick_now now)
{
    struct envelope envelope;
    enum way reason;
    bool is_known = smtpd_early(&server->smtpd, &session->smtpd, &envelope, &reason);

    return transfer_stream_begin(server->options.transfer, session->intake,
                                 is_known ? &envelope : NULL, reason, now);
}

static void body_hand_on(struct server *server, struct server_session *session, struct tick_now now)
{
    if (buf_queue_is_empty(&session->body))
        return;
    server->stats.octets += session->body.size;
    enum err err = transfer_body(server->options.transfer, session->intake, &session->body);
    if (err == ERR_OK && transfer_wants_stream(server->options.transfer, session->intake))
        err = body_stream(server, session, now);
    body_let_go(session);
    if (err != ERR_OK)
        smtpd_fail(&server->smtpd, &session->smtpd, err, now);
}

static void body_append_copy(struct server *server, struct server_session *session,
                             struct span octets, uint64_t *reason, struct tick_now now)
{
    struct buf_pool *pool = server->options.plane->pool;

    if (octets.size == 0 || !smtpd_is_storing(&session->smtpd))
        return;
    *reason += octets.size;
    if (buf_queue_append_copy(&session->body, pool, octets) != ERR_OK)
        smtpd_fail(&server->smtpd, &session->smtpd, ERR_MEMORY, now);
}

/* `spool`, of listener or sender, is law. Else the sender's rule says more than the listener. */
static void offer_delivery(const struct server_session *session, struct transfer_offer *offer)
{
    const struct smtpd_session *smtpd = &session->smtpd;
    const struct envelope *envelope = &smtpd->transaction->envelope;
    const struct settings_mail mail = {.sender_domain = qmgr_sender_domain_of(envelope->sender),
                                       .user = envelope->user,
                                       .client = &smtpd->peer};

    offer->delivery = smtpd->listener->delivery;
    if (offer->delivery == SETTINGS_DELIVERY_SPOOL || smtpd->settings->delivery_rule_count == 0)
        return;
    enum settings_delivery own = settings_delivery_find(smtpd->settings, &mail);
    if (own == SETTINGS_DELIVERY_UNSAID)
        return;
    offer->delivery = own;
    offer->reason = own == SETTINGS_DELIVERY_SPOOL ? WAY_SENDER : WAY_UNKNOWN;
}

static void message_begin(struct server *server, struct server_session *session,
                          struct tick_now now)
{
    struct transfer_offer offer = {
        .size = session->smtpd.transaction->envelope.body_size,
        .recipient_count = session->smtpd.transaction->envelope.recipient_count,
    };
    struct message_id id = {0};

    offer_delivery(session, &offer);
    enum err err = transfer_begin(server->options.transfer, &offer, now, &session->intake, &id);
    if (err != ERR_OK) {
        session->intake = NULL;
        server_gate_pass(server, session);
    }
    struct span header = smtpd_begun(&server->smtpd, &session->smtpd, err, id, now);
    body_append_copy(server, session, header, &server->stats.copied.own, now);
}

/* Of a message that is to begin: as announced, or else as they mostly are here. */
static uint64_t expected_size(const struct server *server, const struct server_session *session)
{
    uint64_t announced = session->smtpd.transaction->envelope.body_size;

    return announced > 0 ? announced : server->body_mean;
}

/* It has to have a place. Mail that is stored anyway has not: the more of it comes at a time, the
 * fewer batches there are for the disk. */
static bool is_gated(const struct server *server, const struct server_session *session)
{
    struct transfer_offer offer;

    if (session->smtpd.state != SMTPD_DATA ||
        !body_gate_is_for(&server->gate, expected_size(server, session)))
        return false;
    offer_delivery(session, &offer);
    return offer.delivery != SETTINGS_DELIVERY_SPOOL;
}

/* One that takes all room counts as no more than that: it says nothing about the next ones. */
static void body_mean_add(struct server *server, uint64_t size)
{
    uint64_t counted = size < server->gate.octets_max ? size : server->gate.octets_max;

    server->body_mean += (counted >> 3) - (server->body_mean >> 3);
}

bool server_message_begin(struct server *server, struct server_session *session,
                          struct tick_now now)
{
    if (is_gated(server, session)) {
        uint64_t size = expected_size(server, session);
        if (session->smtpd.pending != NULL) /* its 354 must wait for the one before anyway */
            return false;
        if (!TAILQ_EMPTY(&server->queues[SERVER_QUEUE_GATE]) ||
            !body_gate_has_room(&server->gate, size, now.tick)) {
            server->stats.gate_waits += 1;
            session->gate_since = (uint32_t)now.tick;
            server_session_enqueue(server, session, SERVER_QUEUE_GATE);
            return false;
        }
        session->gate_place = body_gate_enter(&server->gate, size, session->index, now.tick);
    }
    message_begin(server, session, now);
    return true;
}

void server_gate_advance(struct server *server, struct tick_now now)
{
    struct server_session *session;

    server->gate_patience = 0;
    for (uint32_t i = 0; i < SERVER_GATE_PASSES; i++) {
        session = TAILQ_FIRST(&server->queues[SERVER_QUEUE_GATE]);
        if (session == NULL)
            return;
        uint64_t size = expected_size(server, session);
        uint32_t waited = (uint32_t)now.tick - session->gate_since;
        if (!body_gate_is_for(&server->gate, size)) { /* it was for the mean of then */
            session->gate_place = BODY_GATE_NO_PLACE;
        } else if (body_gate_has_room(&server->gate, size, now.tick)) {
            session->gate_place = body_gate_enter(&server->gate, size, session->index, now.tick);
        } else if (waited < BODY_GATE_WAIT_MAX) {
            server->gate_patience = now.tick + (BODY_GATE_WAIT_MAX - waited);
            return;
        }
        server_session_unqueue(server, session);
        message_begin(server, session, now);
        server_session_run(server, session, now);
    }
}

tick_us server_gate_deadline(const struct server *server)
{
    tick_us place = body_gate_deadline(&server->gate);

    if (TAILQ_EMPTY(&server->queues[SERVER_QUEUE_GATE]))
        return TICK_NEVER;
    if (server->gate.count == 0)
        return 0;
    return place < server->gate_patience ? place : server->gate_patience;
}

bool server_message_sign(struct server *server, struct server_session *session, struct tick_now now)
{
    uint32_t cost = smtpd_sign_cost(&session->smtpd);

    if (server->sign_left == 0) {
        server->stats.sign_waits += 1;
        server_session_enqueue(server, session, SERVER_QUEUE_READY);
        return false;
    }
    server->sign_left -= cost < server->sign_left ? cost : server->sign_left;
    smtpd_sign(&server->smtpd, &session->smtpd, now);
    return true;
}

void server_message_end(struct server *server, struct server_session *session, struct tick_now now)
{
    uint16_t sequence;

    body_hand_on(server, session, now);
    if (!smtpd_is_storing(&session->smtpd))
        return;
    if (trace_is_on(server->options.trace))
        server_trace_body(server, session);
    struct envelope *envelope = smtpd_end(&server->smtpd, &session->smtpd, now, &sequence);
    body_mean_add(server, envelope->body_size);
    transfer_set_heard(session->intake, session->heard);
    transfer_end(server->options.transfer, session->intake, envelope,
                 (uint64_t)session->index << 16 | sequence, now);
    session->intake = NULL;
}

/* ---- body octets ---- */

struct body_piece {
    uint32_t pass, skip;
    struct span insert;
    bool is_stored;
};

/* Scan what is readable, in place, into pieces. What lies side by side is one piece. */
static uint32_t body_scan(struct server *server, struct server_session *session,
                          struct body_piece pieces[PIECES_MAX], struct tick_now now)
{
    struct span spans[SPANS_MAX] UNINITIALIZED;
    uint32_t count = 0, span_count = stream_peek(&session->stream, spans, SPANS_MAX);

    if (span_count == 0)
        spans[span_count++] = (struct span){0}; /* an empty chunk ends without octets */
    for (uint32_t i = 0; i < span_count; i++) {
        struct span rest = spans[i];
        do {
            struct smtpd_body_step step =
                smtpd_feed_body(&server->smtpd, &session->smtpd, rest, now);
            rest = span_skip(rest, step.pass + step.skip);
            struct body_piece *last = count > 0 ? &pieces[count - 1] : NULL;
            if (last != NULL && last->skip == 0 && last->insert.size == 0 &&
                last->is_stored == step.is_stored)
                *last = (struct body_piece){last->pass + step.pass, step.skip, step.insert,
                                            step.is_stored};
            else
                pieces[count++] =
                    (struct body_piece){step.pass, step.skip, step.insert, step.is_stored};
            if (count == PIECES_MAX || step.is_borrowed ||
                smtpd_need(&session->smtpd) != SMTPD_NEED_BODY)
                return count;
        } while (rest.size > 0);
    }
    return count;
}

static void body_take(struct server *server, struct server_session *session, uint32_t size,
                      struct tick_now now)
{
    if (!smtpd_is_storing(&session->smtpd)) {
        stream_consume(&session->stream, size);
    } else if (size < PIECE_COPY_MAX) {
        body_append_copy(server, session, stream_pull(&session->stream, size),
                         &server->stats.copied.pieces, now);
        stream_consume(&session->stream, size);
    } else {
        stream_take(&session->stream, size, &session->body);
        session->taken += size;
    }
}

/* Small portions cost the spool more, large ones keep buffers from everybody else. */
static uint32_t hand_on_size(const struct server *server)
{
    const struct buf_pool *pool = server->options.plane->pool;
    bool is_low = buf_pool_available(pool) < buf_pool_count_max(pool) / 3;

    return is_low ? BODY_HAND_ON_LOW : BODY_HAND_ON_SIZE;
}

static bool memory_is_scarce(const struct server *server)
{
    const struct buf_pool *pool = server->options.plane->pool;

    return buf_pool_available(pool) < buf_pool_count_max(pool) / RELIEF_SHARE;
}

/* What it has gathered goes on; false: too little to be worth it. The session may be freed. */
static bool session_relieve(struct server *server, struct server_session *session,
                            struct tick_now now)
{
    if (session->body.size < BODY_HAND_ON_LOW || !smtpd_is_storing(&session->smtpd))
        return false;
    body_hand_on(server, session, now);
    server_session_settle(server, session);
    return true;
}

/* Sessions may be a million, most of them only there: they are looked at in the order in which they
 * lie in memory, a slice each turn; then messages that the transfer has, a slice each turn. The
 * next round begins RELIEF_TIME after this one did. */
void server_bodies_relieve(struct server *server, struct tick_now now)
{
    if (server->relief_next == 0 && now.tick < server->relief_at)
        return;
    if (!memory_is_scarce(server)) {
        server->relief_next = 0;
        return;
    }
    if (server->relief_next == 0) {
        server->relief_at = now.tick + RELIEF_TIME;
        server->stats.reliefs += 1;
    }
    uint32_t handed_on = 0, end = server_session_end(server);
    for (uint32_t i = 0; i < RELIEF_SLICE && handed_on < SERVER_RELIEF_HANDS; i++) {
        if (server->relief_next >= end) {
            server->relief_next = transfer_relieve(server->options.transfer) ? 0 : UINT32_MAX;
            return;
        }
        struct server_session *session = server_session_at(server, server->relief_next++);
        handed_on += session != NULL && session_relieve(server, session, now);
    }
}

/* True when something was done. */
bool server_body_feed(struct server *server, struct server_session *session, struct tick_now now)
{
    struct body_piece pieces[PIECES_MAX] UNINITIALIZED;
    uint64_t done = 0;

    if (session->intake != NULL && transfer_pending(session->intake) > SERVER_BODY_PENDING_MAX) {
        server_session_enqueue(server, session, SERVER_QUEUE_STALLED);
        return false;
    }
    uint32_t count = body_scan(server, session, pieces, now);
    for (uint32_t i = 0; i < count; i++) {
        const struct body_piece *piece = &pieces[i];
        if (piece->is_stored)
            body_take(server, session, piece->pass, now);
        else
            stream_consume(&session->stream, piece->pass);
        if (piece->skip > 0)
            stream_consume(&session->stream, piece->skip);
        if (piece->is_stored && piece->insert.size > 0)
            body_append_copy(server, session, piece->insert, &server->stats.copied.own, now);
        done += piece->pass + piece->skip + piece->insert.size;
    }
    if (session->body.size >= hand_on_size(server) && smtpd_is_storing(&session->smtpd))
        body_hand_on(server, session, now);
    return done > 0 || smtpd_need(&session->smtpd) != SMTPD_NEED_BODY;
}

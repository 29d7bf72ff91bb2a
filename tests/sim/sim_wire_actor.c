/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The actors: one at each end of every connection, with manners of its own, holding the stack to
 * what flow.h promises.
 *
 * Every octet of a stream is known by connection, direction and position, so what is read is held
 * against what must be there at once. What else must hold:
 *   - the peer's end is seen only when everything it wrote before was read or can be read;
 *   - a connection that neither side aborts or leaves early is never reset, and ends;
 *   - a connect() that failed while the network lost packets is tried again, and succeeds in the
 *     end.
 *
 * Some acceptors have nothing of their own to say: what they take goes back by reference, as a
 * relay's octets do, so that it may leave in the buffers it came in.
 *
 * An acceptor knows its connection by the client's address. A connection whose client is gone
 * already is a ghost (sim_wire_ghost.c).
 */
#include "tests/sim/sim_wire.h"
#include "tests/wire/segment.h"

#define PORT          25u
#define LISTENER_USER UINT64_MAX
#define CONNECT_TIME  TICK_S(60)
#define RETRY_TIME    TICK_MS(500)
#define LOOK_TIME     100u
#define PULL_MAX      FLOW_PULL_MAX

static struct flow_plane *plane_of(const struct sim_actor *actor)
{
    return sim_plane(actor->sim, actor->host, actor->stack);
}

static struct sim_actor *other_of(const struct sim_actor *actor)
{
    return &actor->sim->conns[actor->conn].actors[1 - actor->side];
}

static uint32_t chance_below(struct sim_wire *sim, uint32_t bound)
{
    return rng_below(&sim->chance, bound);
}

static tick_us pause_of(const struct sim_actor *actor)
{
    return actor->sim->now + chance_below(actor->sim, (uint32_t)actor->pause_max + 1);
}

/* Both ends behave, so nothing may be lost. */
static bool is_clean(const struct sim_actor *actor)
{
    const struct sim_actor *other = other_of(actor);

    return actor->ending <= SIM_END_WAIT && other->ending <= SIM_END_WAIT;
}

/* ---- ends ---- */

static void actor_rest(struct sim_actor *actor)
{
    buf_queue_fini(&actor->taken);
    actor->state = SIM_ACTOR_DONE;
    actor->wake_at = TICK_NEVER;
}

static void actor_close(struct sim_actor *actor)
{
    sim_trace(actor->sim, "conn %u side %u closes: wrote %llu, read %llu", actor->conn, actor->side,
              (unsigned long long)actor->written, (unsigned long long)actor->read);
    flow_close(plane_of(actor), actor->flow);
    actor_rest(actor);
}

static void actor_abort(struct sim_actor *actor)
{
    sim_trace(actor->sim, "conn %u side %u aborts", actor->conn, actor->side);
    actor->is_lost = true;
    flow_abort(plane_of(actor), actor->flow);
    actor_rest(actor);
}

/* ---- reading ---- */

static bool octets_are_good(struct sim_actor *actor, struct span octets)
{
    uint64_t stream = sim_stream(actor->conn, 1 - actor->side);

    for (uint32_t i = 0; i < octets.size; i++) {
        if (octets.data[i] == test_stream_octet(stream, actor->read + i))
            continue;
        sim_violation(actor->sim, "conn %u side %u: octet %llu is another", actor->conn,
                      actor->side, (unsigned long long)(actor->read + i));
        return false;
    }
    return true;
}

static void actor_take(struct sim_actor *actor, uint32_t size)
{
    uint64_t before = actor->taken.size;
    uint8_t octets[PULL_MAX];

    flow_take(plane_of(actor), actor->flow, size, &actor->taken);
    for (uint64_t at = before; at < actor->taken.size;) {
        uint64_t left = actor->taken.size - at;
        uint32_t part = left < PULL_MAX ? (uint32_t)left : PULL_MAX;
        buf_queue_copy_out(&actor->taken, at, octets, part);
        if (!octets_are_good(actor, span_of(octets, part)))
            return;
        actor->read += part;
        at += part;
    }
}

static void actor_consume(struct sim_actor *actor, uint32_t size)
{
    struct flow_plane *plane = plane_of(actor);

    while (size > 0) {
        struct span octets = flow_pull(plane, actor->flow, size < PULL_MAX ? size : PULL_MAX);
        if (octets.size == 0 || !octets_are_good(actor, octets))
            return;
        actor->read += octets.size;
        size -= octets.size;
        flow_consume(plane, actor->flow, octets.size);
    }
    if (actor->sim->options.plant == SIM_PLANT_LOST_OCTET &&
        flow_readable(plane, actor->flow) > 0 && chance_below(actor->sim, 20) == 0)
        flow_consume(plane, actor->flow, 1);
}

/* True: there may be more, later. */
static bool actor_read(struct sim_actor *actor)
{
    uint32_t readable = flow_readable(plane_of(actor), actor->flow);
    uint32_t size = readable < actor->read_max ? readable : actor->read_max;

    if (size > 0 && actor->takes)
        actor_take(actor, size);
    else if (size > 0)
        actor_consume(actor, size);
    return readable > size;
}

/* Some or all of what was taken is truly gone now. */
static void actor_credit(struct sim_actor *actor)
{
    uint64_t size = actor->taken.size;

    if (size == 0)
        return;
    if (actor->pause_max > 0 && size > 1)
        size = 1 + chance_below(actor->sim, (uint32_t)size);
    if (actor->sim->options.plant == SIM_PLANT_LEAK && chance_below(actor->sim, 50) == 0)
        buf_reference(buf_queue_get(&actor->taken, 0)->buf);
    buf_queue_drop(&actor->taken, size);
    flow_credit(plane_of(actor), actor->flow, size);
}

/* ---- sending back ---- */

static bool actor_echoes(const struct sim_actor *actor)
{
    return actor->side == 1 && sim_conn_echoes(actor->conn);
}

/* What was taken goes back as it is, and is credited at once: the send limit bounds what waits.
 * True: it has to go on later though nothing happens. */
static bool actor_echo(struct sim_actor *actor)
{
    struct flow_plane *plane = plane_of(actor);
    uint32_t readable = flow_readable(plane, actor->flow);
    uint32_t size = readable < actor->read_max ? readable : actor->read_max;

    if (size == 0)
        return false;
    if (flow_unsent(plane, actor->flow) >= actor->send_limit) {
        flow_want(plane, actor->flow, FLOW_READABLE | FLOW_WRITABLE);
        return false;
    }
    actor_take(actor, size);
    flow_append(plane, actor->flow, &actor->taken);
    flow_credit(plane, actor->flow, size);
    actor->written += size;
    return readable > size;
}

/* ---- writing ---- */

static bool actor_append(struct sim_actor *actor, uint32_t size)
{
    uint64_t stream = sim_stream(actor->conn, actor->side);
    struct flow_plane *plane = plane_of(actor);
    uint8_t octets[20001];
    struct buf_queue queue;

    for (uint32_t i = 0; i < size; i++)
        octets[i] = test_stream_octet(stream, actor->written + i);
    if (size <= FLOW_RESERVE_MAX && chance_below(actor->sim, 4) == 0) {
        struct span_mut room = flow_reserve(plane, actor->flow, size);
        if (room.data == NULL)
            return false;
        memcpy(room.data, octets, size);
        flow_commit(plane, actor->flow, size);
    } else {
        buf_queue_init(&queue);
        if (buf_queue_append_copy(&queue, plane->pool, span_of(octets, size)) != ERR_OK)
            return false;
        flow_append(plane, actor->flow, &queue);
        buf_queue_fini(&queue);
    }
    actor->written += size;
    return true;
}

/* True: it has to go on later though nothing happens. */
static bool actor_write(struct sim_actor *actor)
{
    struct flow_plane *plane = plane_of(actor);

    while (actor->written < actor->size) {
        uint64_t left = actor->size - actor->written;
        uint32_t size = left < actor->chunk ? (uint32_t)left : actor->chunk;
        if (flow_unsent(plane, actor->flow) >= actor->send_limit) {
            flow_want(plane, actor->flow, FLOW_READABLE | FLOW_WRITABLE);
            return false;
        }
        if (!actor_append(actor, size) || actor->pause_max > 0)
            return true;
    }
    return false;
}

static void actor_end_writing(struct sim_actor *actor)
{
    if (actor->written < actor->size || actor->has_shut_down || actor->ending != SIM_END_SHUTDOWN)
        return;
    if (actor->corks)
        flow_cork(plane_of(actor), actor->flow, chance_below(actor->sim, 2) == 0);
    flow_shutdown(plane_of(actor), actor->flow);
    actor->has_shut_down = true;
}

/* ---- a look at the connection ---- */

static bool actor_is_at_end(const struct sim_actor *actor)
{
    return actor->has_peer_closed && flow_readable(plane_of(actor), actor->flow) == 0;
}

static void check_end(struct sim_actor *actor)
{
    const struct sim_actor *other = other_of(actor);

    if (!actor->is_lost && !other->is_lost && actor->read != other->written)
        sim_violation(actor->sim, "conn %u side %u: the end after %llu octets of %llu", actor->conn,
                      actor->side, (unsigned long long)actor->read,
                      (unsigned long long)other->written);
}

static void actor_look(struct sim_actor *actor)
{
    bool has_more = false;

    if (actor->state != SIM_ACTOR_OPEN)
        return;
    actor->wake_at = TICK_NEVER;
    if (actor_echoes(actor)) {
        has_more = actor_echo(actor);
    } else {
        has_more = actor_read(actor);
        actor_credit(actor);
        has_more = actor_write(actor) || has_more || actor->taken.size > 0;
    }
    actor_end_writing(actor);
    bool is_written = actor->written == actor->size;
    if (actor->ending == SIM_END_ABORT &&
        (is_written || actor->written + actor->read >= actor->abort_after)) {
        actor_abort(actor);
        return;
    }
    if (actor_is_at_end(actor)) {
        check_end(actor);
        if (is_written) {
            actor_close(actor);
            return;
        }
    } else if (actor->ending == SIM_END_EARLY && is_written) {
        actor_close(actor);
        return;
    }
    if (actor->corks && chance_below(actor->sim, 2) == 0)
        flow_cork(plane_of(actor), actor->flow, chance_below(actor->sim, 2) == 0);
    if (has_more)
        actor->wake_at = pause_of(actor) + LOOK_TIME;
    else if (actor->corks) /* or it might wait for ever */
        flow_push(plane_of(actor), actor->flow);
}

static void actor_lost(struct sim_actor *actor)
{
    struct sim_wire *sim = actor->sim;
    enum err err = flow_error(plane_of(actor), actor->flow);

    sim_trace(sim, "conn %u side %u is lost: %s", actor->conn, actor->side, err_name(err));
    actor->is_lost = true;
    if (is_clean(actor))
        sim_violation(sim, "conn %u side %u: reset (%s) after %llu written, %llu read", actor->conn,
                      actor->side, err_name(err), (unsigned long long)actor->written,
                      (unsigned long long)actor->read);
    flow_close(plane_of(actor), actor->flow);
    actor_rest(actor);
}

/* ---- connecting and accepting ---- */

static void actor_connect(struct sim_actor *actor)
{
    struct sim_wire *sim = actor->sim;
    struct sim_conn *conn = &sim->conns[actor->conn];
    struct flow_address peer;
    struct flow_connect_options options = {.remote = sim->hosts[1 - actor->host].address,
                                           .deadline = sim->now + CONNECT_TIME,
                                           .receive_limit = actor->receive_limit,
                                           .user = actor->conn};

    options.remote.port = PORT;
    actor->wake_at = sim->now + RETRY_TIME;
    enum err err = flow_connect(plane_of(actor), &options, &actor->flow);
    if (err != ERR_OK) {
        if (sim->is_healed && conn->attempts++ > 100)
            sim_violation(sim, "conn %u: connect says %s", actor->conn, err_name(err));
        return;
    }
    conn->attempts++;
    actor->state = SIM_ACTOR_CONNECTING;
    actor->wake_at = TICK_NEVER;
    conn->has_client = flow_addresses(plane_of(actor), actor->flow, &conn->client, &peer) == ERR_OK;
    sim_trace(sim, "conn %u connects from port %u", actor->conn, conn->client.port);
}

static void actor_failed(struct sim_actor *actor)
{
    struct sim_wire *sim = actor->sim;
    enum err err = flow_error(plane_of(actor), actor->flow);

    sim_trace(sim, "conn %u: connect failed: %s", actor->conn, err_name(err));
    if (sim->is_gentle || sim->conns[actor->conn].attempts > 100)
        sim_violation(sim, "conn %u: connect failed: %s", actor->conn, err_name(err));
    flow_close(plane_of(actor), actor->flow);
    actor->state = SIM_ACTOR_IDLE;
    actor->wake_at = sim->now + RETRY_TIME;
}

/* The acceptor of the client's latest attempt. NULL: a ghost. */
static struct sim_actor *acceptor_of(struct sim_wire *sim, uint32_t host,
                                     const struct flow_address *from)
{
    for (uint32_t i = 0; i < sim->conn_count; i++) {
        struct sim_conn *conn = &sim->conns[i];
        if (conn->has_client && conn->actors[1].host == host &&
            conn->actors[1].state == SIM_ACTOR_IDLE && flow_address_is_equal(&conn->client, from))
            return &conn->actors[1];
    }
    return NULL;
}

static void accept_all(struct sim_wire *sim, uint32_t host, uint32_t stack)
{
    struct flow_plane *plane = sim_plane(sim, host, stack);
    struct flow_address from;
    struct flow flow;
    enum err err;

    while ((err = flow_accept(plane, sim->hosts[host].listeners[stack], LISTENER_USER, &flow,
                              &from)) == ERR_OK) {
        struct sim_actor *actor = acceptor_of(sim, host, &from);
        if (actor == NULL) {
            sim_ghost_welcome(sim, host, stack, flow);
            continue;
        }
        actor->flow = flow;
        actor->stack = stack;
        actor->state = SIM_ACTOR_OPEN;
        flow_set_user(plane, flow, SIM_CONN_MAX + actor->conn);
        sim_trace(sim, "conn %u is accepted by stack %u", actor->conn, stack);
        actor_look(actor);
    }
    if (err != ERR_AGAIN)
        sim_violation(sim, "accept says %s", err_name(err));
}

/* ---- events and time ---- */

void sim_actors_on_event(struct sim_wire *sim, uint32_t host, uint32_t stack,
                         const struct flow_event *event)
{
    if (event->user == LISTENER_USER) {
        if (event->events & FLOW_ACCEPTABLE)
            accept_all(sim, host, stack);
        return;
    }
    if (event->user >= SIM_GHOST_USER) {
        sim_ghost_on_event(&sim->ghosts[event->user - SIM_GHOST_USER], event->events);
        return;
    }
    struct sim_actor *actor =
        &sim->conns[event->user % SIM_CONN_MAX].actors[event->user / SIM_CONN_MAX];
    if (event->flow.index != actor->flow.index ||
        event->flow.generation != actor->flow.generation || actor->state == SIM_ACTOR_DONE) {
        sim_violation(sim, "conn %u side %u: an event for a closed flow", actor->conn, actor->side);
        return;
    }
    if (event->events & FLOW_FAILED) {
        actor_failed(actor);
        return;
    }
    if (event->events & FLOW_CONNECTED)
        actor->state = SIM_ACTOR_OPEN;
    actor->has_peer_closed = actor->has_peer_closed || event->events & FLOW_PEER_CLOSED;
    actor_look(actor);
    if (actor->state == SIM_ACTOR_OPEN && event->events & FLOW_RESET)
        actor_lost(actor);
}

void sim_actors_turn(struct sim_wire *sim, uint32_t host, uint32_t stack)
{
    for (uint32_t i = 0; i < 2 * sim->conn_count; i++) {
        struct sim_actor *actor = &sim->conns[i / 2].actors[i % 2];
        if (actor->host != host || actor->stack != stack || actor->wake_at > sim->now)
            continue;
        if (actor->state == SIM_ACTOR_IDLE)
            actor_connect(actor);
        else
            actor_look(actor);
    }
    for (uint32_t i = 0; i < sim->ghost_count; i++) {
        struct sim_actor *ghost = &sim->ghosts[i];
        if (ghost->host == host && ghost->stack == stack && ghost->wake_at <= sim->now)
            sim_ghost_on_event(ghost, FLOW_PEER_CLOSED);
    }
}

tick_us sim_actors_deadline(const struct sim_wire *sim)
{
    tick_us deadline = TICK_NEVER;

    for (uint32_t i = 0; i < 2 * sim->conn_count; i++) {
        tick_us own = sim->conns[i / 2].actors[i % 2].wake_at;
        deadline = own < deadline ? own : deadline;
    }
    for (uint32_t i = 0; i < sim->ghost_count; i++)
        deadline = sim->ghosts[i].wake_at < deadline ? sim->ghosts[i].wake_at : deadline;
    return deadline;
}

/* An acceptor may never hear of a connection that its client aborted, nor anybody of a RST that was
 * lost: without something to send TCP never finds out. */
static bool actor_is_done(const struct sim_actor *actor)
{
    bool is_waiting = actor->side == 1 && actor->state == SIM_ACTOR_IDLE;

    return actor->state == SIM_ACTOR_DONE || other_of(actor)->is_lost ||
           (is_waiting && other_of(actor)->state == SIM_ACTOR_DONE);
}

bool sim_actors_are_done(const struct sim_wire *sim)
{
    for (uint32_t i = 0; i < 2 * sim->conn_count; i++) {
        if (!actor_is_done(&sim->conns[i / 2].actors[i % 2]))
            return false;
    }
    return true;
}

void sim_actors_settle(struct sim_wire *sim)
{
    for (uint32_t i = 0; i < 2 * sim->conn_count; i++) {
        struct sim_actor *actor = &sim->conns[i / 2].actors[i % 2];
        sim->octets += actor->read;
        if (is_clean(actor) && actor->read != other_of(actor)->size)
            sim_violation(sim, "conn %u side %u: %llu octets of %llu arrived", actor->conn,
                          actor->side, (unsigned long long)actor->read,
                          (unsigned long long)other_of(actor)->size);
        if (actor->state != SIM_ACTOR_DONE && is_clean(actor))
            sim_violation(sim, "conn %u side %u does not end", actor->conn, actor->side);
        if (actor->state == SIM_ACTOR_OPEN || actor->state == SIM_ACTOR_CONNECTING)
            actor_abort(actor);
    }
    for (uint32_t i = 0; i < sim->ghost_count; i++)
        sim_ghost_on_event(&sim->ghosts[i], FLOW_PEER_CLOSED);
}

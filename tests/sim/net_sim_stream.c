/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams of the simulated network.
 *
 * A stream has a pipe towards each side: segments with their time of arrival, never earlier than
 * the one before. The sender cuts what it has into pieces of random size while less than a window
 * is in flight; what the receiver reads opens the window again, one latency later.
 *
 * A connection: connect() finds its listener at once (by a hash of the client's address when
 * several share it); the SYN arrives one latency later and waits there, the client hears of it
 * after two, whether or not anybody has accepted, as from a kernel's backlog. Nobody listens, or
 * the listener is gone by then: refused. A full backlog and a black hole do not answer.
 *
 * Endings are segments too: FIN and RESET arrive behind what was sent before. A lost connection
 * drops what is in flight and puts a RESET in its place, on both sides. Octets sent to a side that
 * is gone bring a RESET back.
 */
#include <stdlib.h>

#include "tests/sim/net_sim_internal.h"

#define BACKLOG_DEFAULT 128u

/* ---- pipes ---- */

static void pipe_pop(struct sim_pipe *pipe)
{
    struct sim_segment *segment = pipe->first;

    pipe->first = segment->next;
    if (pipe->first == NULL)
        pipe->last = NULL;
    pipe->in_flight -= segment->size - segment->offset;
    free(segment);
}

static void pipe_clear(struct sim_pipe *pipe)
{
    while (pipe->first != NULL)
        pipe_pop(pipe);
}

/* Lose what has not arrived by `now`. */
static void pipe_cut(struct sim_pipe *pipe, tick_us now)
{
    struct sim_pipe kept = {.arrival_last = pipe->arrival_last};

    while (pipe->first != NULL && pipe->first->arrival <= now) {
        struct sim_segment *segment = pipe->first;
        pipe->first = segment->next;
        segment->next = NULL;
        if (kept.last == NULL)
            kept.first = segment;
        else
            kept.last->next = segment;
        kept.last = segment;
        kept.in_flight += segment->size - segment->offset;
        pipe->in_flight -= segment->size - segment->offset;
    }
    pipe_clear(pipe);
    *pipe = kept;
}

static struct sim_segment *stream_push(struct net_sim *sim, struct sim_stream *stream,
                                       uint32_t side, enum sim_segment_kind kind, uint32_t size)
{
    struct sim_pipe *pipe = &stream->pipes[side];
    struct sim_segment *segment = calloc(1, sizeof(*segment) + size);
    CHECK(segment != NULL);

    tick_us arrival = sim->now + net_sim_latency(sim);
    segment->arrival = arrival > pipe->arrival_last ? arrival : pipe->arrival_last;
    segment->kind = kind;
    segment->size = size;
    pipe->arrival_last = segment->arrival;
    if (pipe->last == NULL)
        pipe->first = segment;
    else
        pipe->last->next = segment;
    pipe->last = segment;
    pipe->in_flight += size;
    if (stream->flows[side] != NULL)
        sim_wake_at(stream->flows[side], segment->arrival);
    return segment;
}

/* ---- streams ---- */

static void stream_release(struct sim_stream *stream)
{
    if (stream->flows[0] != NULL || stream->flows[1] != NULL || stream->listener != NULL)
        return;
    pipe_clear(&stream->pipes[0]);
    pipe_clear(&stream->pipes[1]);
    free(stream);
}

static void stream_leave(struct sim_flow *flow)
{
    struct sim_stream *stream = flow->stream;

    stream->flows[flow->side] = NULL;
    stream->has_left[flow->side] = true;
    pipe_clear(&stream->pipes[flow->side]);
    flow->stream = NULL;
    sim_flow_free(flow);
    stream_release(stream);
}

static void stream_reset_side(struct net_sim *sim, struct sim_stream *stream, uint32_t side)
{
    if (!stream->is_mute && !stream->has_left[side])
        stream_push(sim, stream, side, SIM_SEGMENT_RESET, 0);
}

/* The network loses the connection: octets in flight are gone, each side hears of it. */
static void stream_lose(struct net_sim *sim, struct sim_stream *stream)
{
    for (uint32_t side = 0; side < 2; side++) {
        pipe_cut(&stream->pipes[side], sim->now);
        stream_reset_side(sim, stream, side);
    }
}

void sim_stream_abort(struct sim_flow *flow)
{
    struct net_sim *sim = flow->plane->sim;
    uint32_t other = 1 - flow->side;

    /* A RST may overtake what was sent before it. */
    if (rng_below(&sim->rng, 2) == 0)
        pipe_cut(&flow->stream->pipes[other], sim->now);
    if (!flow->plane->is_silent && !(flow->slot.flags & (FLOW_SLOT_IS_RESET | FLOW_SLOT_IS_FAILED)))
        stream_reset_side(sim, flow->stream, other);
    stream_leave(flow);
}

void sim_abort(struct flow_plane *base, struct flow handle)
{
    struct flow_slot *slot = flow_core_find(&sim_plane_of(base)->core, handle);

    if (slot == NULL)
        return;
    if (slot->kind == FLOW_SLOT_STREAM)
        sim_stream_abort(sim_flow_of(slot));
    else if (slot->kind == FLOW_SLOT_LISTENER)
        sim_listener_close(sim_flow_of(slot));
    else
        sim_datagram_close(sim_flow_of(slot));
}

void sim_close(struct flow_plane *base, struct flow handle)
{
    struct sim_plane *plane = sim_plane_of(base);
    struct flow_slot *slot = flow_core_find(&plane->core, handle);

    if (slot == NULL)
        return;
    if (slot->kind != FLOW_SLOT_STREAM || !(slot->flags & FLOW_SLOT_OPEN) ||
        slot->flags & FLOW_SLOT_IS_RESET || plane->is_silent) {
        sim_abort(base, handle);
        return;
    }
    flow_core_slot_orphan(&plane->core, slot);
    wheel_arm(&plane->wheel, &sim_flow_of(slot)->timer, plane->sim->now + plane->orphan_time);
    slot->flags |= FLOW_SLOT_MORE;
    flow_core_resume(&plane->core, slot);
}

enum err sim_addresses(struct flow_plane *base, struct flow handle, struct flow_address *ret_local,
                       struct flow_address *ret_peer)
{
    struct flow_slot *slot = flow_core_find(&sim_plane_of(base)->core, handle);

    if (slot == NULL)
        return ERR_STALE;
    struct sim_flow *flow = sim_flow_of(slot);
    *ret_local = flow->stream == NULL ? flow->local : flow->stream->addresses[flow->side];
    *ret_peer = flow->stream == NULL ? flow->remote : flow->stream->addresses[1 - flow->side];
    return ERR_OK;
}

/* ---- receiving ---- */

/* Copies arrived octets into the room given; returns how many. */
static uint32_t pipe_read(struct sim_pipe *pipe, tick_us now, const struct iovec *vector,
                          uint32_t count)
{
    uint32_t total = 0, at = 0, filled = 0;

    while (at < count && pipe->first != NULL && pipe->first->arrival <= now &&
           pipe->first->kind == SIM_SEGMENT_DATA) {
        struct sim_segment *segment = pipe->first;
        uint32_t size = segment->size - segment->offset;
        uint32_t room = (uint32_t)vector[at].iov_len - filled;
        uint32_t copied = size < room ? size : room;
        memcpy((uint8_t *)vector[at].iov_base + filled, segment->data + segment->offset, copied);
        segment->offset += copied;
        pipe->in_flight -= copied;
        filled += copied;
        total += copied;
        if (segment->offset == segment->size)
            pipe_pop(pipe);
        if (filled == vector[at].iov_len) {
            at++;
            filled = 0;
        }
    }
    return total;
}

/* Nobody wants them: however small the pieces are, what has arrived is gone at once. */
static void pipe_discard(struct sim_pipe *pipe, tick_us now)
{
    while (pipe->first != NULL && pipe->first->arrival <= now &&
           pipe->first->kind == SIM_SEGMENT_DATA)
        pipe_pop(pipe);
}

static void stream_window_opened(struct sim_flow *flow)
{
    struct net_sim *sim = flow->plane->sim;
    struct sim_flow *sender = flow->stream->flows[1 - flow->side];

    if (sender != NULL && sender->slot.flags & FLOW_SLOT_BLOCKED)
        sim_wake_at(sender, sim->now + net_sim_latency(sim));
}

static void stream_receive_end(struct sim_flow *flow, enum sim_segment_kind kind)
{
    struct flow_core *core = &flow->plane->core;
    bool is_orphan = flow->slot.flags & FLOW_SLOT_ORPHAN;

    pipe_pop(&flow->stream->pipes[flow->side]);
    net_sim_note(flow->plane->sim, &kind, sizeof(kind));
    if (kind == SIM_SEGMENT_RESET) {
        if (is_orphan)
            stream_leave(flow);
        else
            flow_core_reset(core, &flow->slot, ERR_PEER_RESET);
        return;
    }
    flow->slot.flags |= FLOW_SLOT_EOF;
    if (is_orphan && flow->slot.flags & FLOW_SLOT_FIN_SENT) {
        stream_leave(flow);
        return;
    }
    flow_core_touch(core, &flow->slot);
    flow_core_resume(core, &flow->slot);
}

static void stream_receive_octets(struct sim_flow *flow)
{
    struct flow_core *core = &flow->plane->core;
    struct net_sim *sim = flow->plane->sim;
    struct sim_pipe *pipe = &flow->stream->pipes[flow->side];
    struct iovec vector[FLOW_RECEIVE_VECTOR_MAX];

    if (flow->slot.flags & FLOW_SLOT_ORPHAN) {
        pipe_discard(pipe, sim->now);
    } else {
        uint32_t count = flow_core_receive_begin(core, &flow->slot, vector);
        uint32_t size = pipe_read(pipe, sim->now, vector, count);
        if (size > 0)
            net_sim_note(sim, vector[0].iov_base,
                         size < vector[0].iov_len ? size : (uint32_t)vector[0].iov_len);
        flow_core_receive_end(core, &flow->slot, size);
    }
    stream_window_opened(flow);
    flow_core_resume(core, &flow->slot);
}

void sim_stream_receive(struct sim_flow *flow)
{
    if (flow->stream == NULL || flow->slot.flags & FLOW_SLOT_IS_RESET)
        return;
    struct sim_segment *first = flow->stream->pipes[flow->side].first;

    if (first == NULL || first->arrival > flow->plane->sim->now)
        flow->slot.flags &= ~(uint32_t)FLOW_SLOT_MORE;
    else if (first->kind == SIM_SEGMENT_DATA)
        stream_receive_octets(flow);
    else
        stream_receive_end(flow, first->kind);
}

/* ---- sending ---- */

static void stream_send_segment(struct sim_flow *flow)
{
    struct net_sim *sim = flow->plane->sim;
    struct sim_stream *stream = flow->stream;
    uint32_t other = 1 - flow->side;
    uint64_t size = flow_core_sendable(&flow->slot);
    /* Half of the pieces are as long as may be, half of any length. */
    uint32_t piece = sim->faults.segment_max;

    if (rng_below(&sim->rng, 2) == 0)
        piece = 1 + rng_below(&sim->rng, piece);
    if (size > piece)
        size = piece;
    if (net_sim_chance(sim, sim->faults.mute_stream))
        stream->is_mute = true;
    if (stream->is_mute)
        stream->pipes[other].in_flight += size; /* never read: the window closes in the end */
    else if (stream->has_left[other])
        stream_reset_side(sim, stream, flow->side);
    else
        buf_queue_copy_out(&flow->slot.unsent, 0,
                           stream_push(sim, stream, other, SIM_SEGMENT_DATA, (uint32_t)size)->data,
                           (uint32_t)size);
    flow_core_sent(&flow->plane->core, &flow->slot, size);
    if (net_sim_chance(sim, sim->faults.lose_stream))
        stream_lose(sim, stream);
}

/* A RST that arrived behind octets which the receive limit keeps unread is noticed by sending. */
static bool stream_is_reset(const struct sim_flow *flow)
{
    const struct sim_pipe *pipe = &flow->stream->pipes[flow->side];

    return pipe->last != NULL && pipe->last->kind == SIM_SEGMENT_RESET &&
           pipe->last->arrival <= flow->plane->sim->now &&
           flow->slot.charge >= flow->slot.receive_limit;
}

static void stream_send_fin(struct sim_flow *flow)
{
    uint32_t other = 1 - flow->side;

    if (!(flow->slot.flags & FLOW_SLOT_FIN_WANTED) || flow->slot.flags & FLOW_SLOT_FIN_SENT ||
        flow->slot.unsent.size > 0)
        return;
    flow->slot.flags |= FLOW_SLOT_FIN_SENT;
    if (!flow->stream->is_mute && !flow->stream->has_left[other])
        stream_push(flow->plane->sim, flow->stream, other, SIM_SEGMENT_FIN, 0);
    if (flow->slot.flags & FLOW_SLOT_ORPHAN && flow->slot.flags & FLOW_SLOT_EOF)
        stream_leave(flow);
}

void sim_stream_send(struct sim_flow *flow)
{
    const struct sim_pipe *pipe = &flow->stream->pipes[1 - flow->side];
    uint32_t window = flow->plane->sim->faults.window;

    if (!(flow->slot.flags & FLOW_SLOT_ORPHAN) && stream_is_reset(flow)) {
        flow_core_reset(&flow->plane->core, &flow->slot, ERR_PEER_RESET);
        return;
    }
    while (flow_core_sendable(&flow->slot) > 0 && pipe->in_flight < window)
        stream_send_segment(flow);
    if (flow_core_sendable(&flow->slot) > 0) {
        flow->slot.flags |= FLOW_SLOT_BLOCKED;
        return;
    }
    stream_send_fin(flow);
}

/* ---- connecting ---- */

void sim_stream_wake(struct sim_flow *flow)
{
    struct flow_core *core = &flow->plane->core;
    struct sim_stream *stream = flow->stream;
    tick_us now = flow->plane->sim->now;

    if (flow->slot.flags & (FLOW_SLOT_IS_FAILED | FLOW_SLOT_IS_RESET))
        return;
    if (!(flow->slot.flags & FLOW_SLOT_OPEN)) {
        if (now < stream->answer_at)
            return;
        wheel_cancel(&flow->plane->wheel, &flow->timer);
        flow_core_connected(core, &flow->slot, stream->is_refused ? ERR_REFUSED : ERR_OK);
        if (stream->is_refused)
            return;
    }
    flow->slot.flags |= FLOW_SLOT_MORE;
    flow_core_resume(core, &flow->slot);
    if (flow->slot.flags & FLOW_SLOT_BLOCKED &&
        stream->pipes[1 - flow->side].in_flight < flow->plane->sim->faults.window) {
        flow->slot.flags &= ~(uint32_t)FLOW_SLOT_BLOCKED;
        flow_core_send_later(core, &flow->slot);
    }
}

static bool listener_matches(const struct sim_flow *listener, const struct flow_address *remote)
{
    static const uint8_t any[16] = {0};
    const struct flow_address *local = &listener->local;

    return local->family == remote->family && local->port == remote->port &&
           (memcmp(local->ip, any, 16) == 0 || memcmp(local->ip, remote->ip, 16) == 0);
}

static uint32_t address_hash(const struct flow_address *address)
{
    uint32_t hash = 2166136261u;

    for (uint32_t i = 0; i < 16; i++)
        hash = (hash ^ address->ip[i]) * 16777619u;
    hash = (hash ^ address->port) * 16777619u;
    return hash ^ hash >> 16;
}

static struct sim_flow *listener_choose(struct net_sim *sim, const struct flow_address *remote,
                                        const struct flow_address *client)
{
    struct sim_flow *found[NET_SIM_PLANE_MAX], *listener;
    uint64_t cursor = 0;
    uint32_t count = 0;

    while ((listener = net_sim_flow_next(sim, FLOW_SLOT_LISTENER, &cursor)) != NULL) {
        if (listener_matches(listener, remote) && count < NET_SIM_PLANE_MAX)
            found[count++] = listener;
    }
    return count == 0 ? NULL : found[address_hash(client) % count];
}

static void listener_enqueue(struct sim_flow *listener, struct sim_stream *stream)
{
    struct sim_stream **at = &listener->waiting_first;

    while (*at != NULL && (*at)->syn_at <= stream->syn_at)
        at = &(*at)->next;
    stream->next = *at;
    *at = stream;
    stream->listener = listener;
    listener->waiting_count++;
    sim_wake_at(listener, stream->syn_at);
}

static void sim_connect_start(struct sim_flow *flow)
{
    struct net_sim *sim = flow->plane->sim;
    struct sim_stream *stream = flow->stream;

    if (net_sim_is_black_hole(sim, &stream->addresses[1])) {
        stream->answer_at = TICK_NEVER;
        return;
    }
    struct sim_flow *listener = listener_choose(sim, &stream->addresses[1], &stream->addresses[0]);
    stream->syn_at = sim->now + net_sim_latency(sim);
    stream->answer_at = stream->syn_at + net_sim_latency(sim);
    if (listener == NULL) {
        stream->is_refused = true;
    } else if (listener->waiting_count >= listener->backlog) {
        stream->answer_at = TICK_NEVER;
        return;
    } else {
        listener_enqueue(listener, stream);
    }
    sim_wake_at(flow, stream->answer_at);
}

enum err sim_connect(struct flow_plane *base, const struct flow_connect_options *options,
                     struct flow *ret_flow)
{
    struct sim_plane *plane = sim_plane_of(base);

    if (options->remote.family == FLOW_FAMILY_UNIX || net_sim_is_gone(plane->sim, &options->source))
        return ERR_SYSTEM;
    struct flow_slot *slot = flow_core_slot_new(&plane->core, FLOW_SLOT_STREAM, options->user);
    if (slot == NULL)
        return ERR_LIMIT;
    struct sim_flow *flow = sim_flow_of(slot);
    flow->plane = plane;
    flow->stream = calloc(1, sizeof(*flow->stream));
    CHECK(flow->stream != NULL);
    flow->stream->flows[0] = flow;
    flow->stream->addresses[0] =
        sim_address_choose(plane, &options->source, options->remote.family);
    if (flow->stream->addresses[0].port == 0)
        flow->stream->addresses[0].port = sim_port_draw(plane);
    flow->stream->addresses[1] = options->remote;
    if (options->receive_limit > 0)
        slot->receive_limit = options->receive_limit;
    if (options->send_limit > 0)
        slot->send_limit = options->send_limit;
    sim_connect_start(flow);
    if (options->deadline != TICK_NEVER)
        wheel_arm(&plane->wheel, &flow->timer, options->deadline);
    *ret_flow = flow_core_handle(slot);
    return ERR_OK;
}

/* ---- listening ---- */

enum err sim_listen(struct flow_plane *base, const struct flow_listen_options *options,
                    struct flow *ret_flow)
{
    struct sim_plane *plane = sim_plane_of(base);
    struct sim_flow *other;
    uint64_t cursor = 0;

    if (options->address.family == FLOW_FAMILY_UNIX)
        return ERR_SYSTEM;
    while ((other = net_sim_flow_next(plane->sim, FLOW_SLOT_LISTENER, &cursor)) != NULL) {
        if (flow_address_is_equal(&other->local, &options->address) &&
            !(other->is_shared && options->is_shared))
            return ERR_SYSTEM;
    }
    struct flow_slot *slot = flow_core_slot_new(&plane->core, FLOW_SLOT_LISTENER, options->user);
    if (slot == NULL)
        return ERR_LIMIT;
    struct sim_flow *flow = sim_flow_of(slot);
    flow->plane = plane;
    flow->local = options->address;
    flow->is_shared = options->is_shared;
    flow->backlog = options->backlog == 0 ? BACKLOG_DEFAULT : options->backlog;
    if (options->receive_limit > 0)
        slot->receive_limit = options->receive_limit;
    if (options->send_limit > 0)
        slot->send_limit = options->send_limit;
    *ret_flow = flow_core_handle(slot);
    return ERR_OK;
}

void sim_listener_wake(struct sim_flow *flow)
{
    flow->slot.flags |= FLOW_SLOT_PENDING;
    flow_core_touch(&flow->plane->core, &flow->slot);
}

static struct sim_stream *listener_pop(struct sim_flow *listener)
{
    struct sim_stream *stream = listener->waiting_first;

    if (stream == NULL || stream->syn_at > listener->plane->sim->now) {
        listener->slot.flags &= ~(uint32_t)FLOW_SLOT_PENDING;
        return NULL;
    }
    listener->waiting_first = stream->next;
    listener->waiting_count--;
    stream->next = NULL;
    stream->listener = NULL;
    flow_core_touch(&listener->plane->core, &listener->slot);
    return stream;
}

static void stream_turn_away(struct sim_plane *plane, struct sim_stream *stream)
{
    struct sim_flow *client = stream->flows[0];

    stream->has_left[1] = true;
    pipe_clear(&stream->pipes[1]);
    if (client == NULL || !(client->slot.flags & FLOW_SLOT_OPEN))
        stream->is_refused = true;
    else if (!plane->is_silent)
        stream_reset_side(plane->sim, stream, 0);
    stream_release(stream);
}

void sim_listener_close(struct sim_flow *flow)
{
    struct sim_stream *stream;

    while ((stream = flow->waiting_first) != NULL) {
        flow->waiting_first = stream->next;
        stream->listener = NULL;
        stream_turn_away(flow->plane, stream);
    }
    sim_flow_free(flow);
}

static struct sim_flow *listener_find(struct sim_plane *plane, struct flow handle)
{
    struct flow_slot *slot = flow_core_find(&plane->core, handle);
    return slot != NULL && slot->kind == FLOW_SLOT_LISTENER ? sim_flow_of(slot) : NULL;
}

enum err sim_refuse(struct flow_plane *base, struct flow handle)
{
    struct sim_plane *plane = sim_plane_of(base);
    struct sim_flow *listener = listener_find(plane, handle);

    if (listener == NULL)
        return ERR_STALE;
    struct sim_stream *stream = listener_pop(listener);
    if (stream == NULL)
        return ERR_AGAIN;
    plane->core.stats.refused++;
    stream_turn_away(plane, stream);
    return ERR_OK;
}

static void sim_accepted(struct sim_flow *flow, struct sim_stream *stream)
{
    flow->stream = stream;
    flow->side = 1;
    stream->flows[1] = flow;
    flow->slot.flags |= FLOW_SLOT_OPEN | FLOW_SLOT_MORE;
    flow_core_resume(&flow->plane->core, &flow->slot);
    for (const struct sim_segment *segment = stream->pipes[1].first; segment != NULL;
         segment = segment->next)
        sim_wake_at(flow, segment->arrival);
}

enum err sim_accept(struct flow_plane *base, struct flow handle, uint64_t user,
                    struct flow *ret_flow, struct flow_address *ret_peer)
{
    struct sim_plane *plane = sim_plane_of(base);
    struct sim_flow *listener = listener_find(plane, handle);

    if (listener == NULL)
        return ERR_STALE;
    struct sim_stream *stream = listener_pop(listener);
    if (stream == NULL)
        return ERR_AGAIN;
    struct flow_slot *slot = flow_core_slot_new(&plane->core, FLOW_SLOT_STREAM, user);
    if (slot == NULL) {
        plane->core.stats.refused++;
        stream_turn_away(plane, stream);
        return ERR_LIMIT;
    }
    sim_flow_of(slot)->plane = plane;
    slot->receive_limit = listener->slot.receive_limit;
    slot->send_limit = listener->slot.send_limit;
    sim_accepted(sim_flow_of(slot), stream);
    plane->core.stats.accepted++;
    *ret_peer = stream->addresses[0];
    *ret_flow = flow_core_handle(slot);
    return ERR_OK;
}

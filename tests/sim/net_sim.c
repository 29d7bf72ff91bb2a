/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated network: clock, events, and the turn of a plane.
 *
 * Every plane has a heap of events {time, sequence, flow}: "look at this flow then". What the flow
 * finds there (segments, a SYN, a datagram, room in the window) waits in its own queues with its
 * time of arrival, so an event carries nothing and a superfluous one does no harm.
 *
 * Invariants
 *   1. Nothing depends on addresses of memory, on the machine's clock or on the order of hash
 *      tables: chance comes from one generator, ties are broken by sequence numbers.
 *   2. An octet is delivered at or after its time of arrival, and within a stream in order.
 *   3. An event names its flow by index and incarnation, so it never reaches a slot's next user.
 *
 * Limits: NET_SIM_PLANE_MAX planes, NET_SIM_BLACK_HOLE_MAX black holes. No Unix sockets.
 * Not here: streams (net_sim_stream.c), datagrams (net_sim_datagram.c).
 */
#include "tests/sim/net_sim.h"

#include <stdlib.h>

#include "tests/sim/net_sim_internal.h"
#include "tests/sim/net_wire.h"

#define FNV_OFFSET 14695981039346656037u
#define FNV_PRIME  1099511628211u
#define PORT_MIN   1024u
/* When the pool was empty, reads are tried again after this. */
#define STARVED_TIME TICK_MS(1)

/* ---- clock and chance ---- */

static tick_us sim_monotonic(void *context)
{
    return ((const struct net_sim *)context)->now;
}

static wall_us sim_wall(void *context)
{
    const struct net_sim *sim = context;
    return sim->wall_offset + (wall_us)sim->now;
}

void net_sim_set_back(struct net_sim *sim, tick_us time)
{
    sim->wall_offset -= (wall_us)time;
}

struct net_sim_faults net_sim_faults_none(void)
{
    return (struct net_sim_faults){
        .latency_min = 50, .latency_max = 500, .segment_max = 1448, .window = 65536};
}

void net_sim_set_faults(struct net_sim *sim, const struct net_sim_faults *faults)
{
    CHECK(faults->latency_min <= faults->latency_max);
    CHECK(faults->segment_max > 0 && faults->window > 0);
    sim->faults = *faults;
    if (sim->wire != NULL)
        net_wire_set_faults(sim->wire, faults);
}

struct net_sim *net_sim_new(const struct net_sim_options *options)
{
    struct net_sim *sim = calloc(1, sizeof(*sim));
    CHECK(sim != NULL);

    sim->clock = (struct tick_source){sim_monotonic, sim_wall, sim};
    sim->now = options->start;
    sim->wall_offset = options->wall_start - (wall_us)options->start;
    sim->fingerprint = FNV_OFFSET;
    rng_init_seed(&sim->rng, options->seed);
    if (options->has_wire)
        sim->wire = net_wire_new(sim, options->seed);
    net_sim_set_faults(sim, &options->faults);
    return sim;
}

void net_sim_free(struct net_sim *sim)
{
    CHECK(sim->plane_count == 0);
    if (sim->wire != NULL)
        net_wire_free(sim->wire);
    free(sim);
}

const struct tick_source *net_sim_clock(struct net_sim *sim)
{
    return &sim->clock;
}

tick_us net_sim_now(const struct net_sim *sim)
{
    return sim->now;
}

void net_sim_advance(struct net_sim *sim, tick_us to)
{
    CHECK(to >= sim->now && to != TICK_NEVER);
    sim->now = to;
}

tick_us net_sim_latency(struct net_sim *sim)
{
    tick_us spread = sim->faults.latency_max - sim->faults.latency_min;
    return sim->faults.latency_min + rng_below(&sim->rng, (uint32_t)spread + 1);
}

bool net_sim_chance(struct net_sim *sim, uint32_t per_million)
{
    return per_million > 0 && rng_below(&sim->rng, 1000000) < per_million;
}

void net_sim_set_black_hole(struct net_sim *sim, const struct flow_prefix *prefix)
{
    CHECK(sim->black_hole_count < NET_SIM_BLACK_HOLE_MAX);
    sim->black_holes[sim->black_hole_count++] = *prefix;
}

/* Addresses of hosts: the port does not count. */
static bool is_same_ip(const struct flow_address *a, const struct flow_address *b)
{
    return a->family == b->family && memcmp(a->ip, b->ip, sizeof(a->ip)) == 0;
}

bool net_sim_is_gone(const struct net_sim *sim, const struct flow_address *address)
{
    for (uint32_t i = 0; i < NET_SIM_GONE_MAX; i++) {
        if (sim->gone[i].family != FLOW_FAMILY_NONE && is_same_ip(&sim->gone[i], address))
            return true;
    }
    return false;
}

void net_sim_set_gone(struct net_sim *sim, const struct flow_address *address, bool is_gone)
{
    uint32_t place = 0;

    while (place < NET_SIM_GONE_MAX && (is_gone ? sim->gone[place].family != FLOW_FAMILY_NONE
                                                : !is_same_ip(&sim->gone[place], address)))
        place++;
    CHECK(place < NET_SIM_GONE_MAX);
    sim->gone[place] = is_gone ? *address : (struct flow_address){0};
}

bool net_sim_is_black_hole(const struct net_sim *sim, const struct flow_address *address)
{
    for (uint32_t i = 0; i < sim->black_hole_count; i++) {
        if (flow_prefix_contains(&sim->black_holes[i], address))
            return true;
    }
    return false;
}

void net_sim_note(struct net_sim *sim, const void *octets, uint32_t size)
{
    const uint8_t *data = octets;

    for (uint32_t i = 0; i < size; i++)
        sim->fingerprint = (sim->fingerprint ^ data[i]) * FNV_PRIME;
    sim->fingerprint = (sim->fingerprint ^ sim->now) * FNV_PRIME;
}

uint64_t net_sim_fingerprint(const struct net_sim *sim)
{
    return sim->wire != NULL ? net_wire_fingerprint(sim->wire) : sim->fingerprint;
}

/* ---- events ---- */

static bool event_is_before(const struct sim_event *a, const struct sim_event *b)
{
    return a->time != b->time ? a->time < b->time : a->sequence < b->sequence;
}

static void heap_swap(struct sim_event *a, struct sim_event *b)
{
    struct sim_event event = *a;
    *a = *b;
    *b = event;
}

void sim_wake_at(struct sim_flow *flow, tick_us time)
{
    struct sim_plane *plane = flow->plane;

    if (plane->heap_count == plane->heap_capacity) {
        plane->heap_capacity = plane->heap_capacity == 0 ? 64 : plane->heap_capacity * 2;
        plane->heap = realloc(plane->heap, plane->heap_capacity * sizeof(*plane->heap));
        CHECK(plane->heap != NULL);
    }
    uint32_t at = plane->heap_count++;
    plane->heap[at] =
        (struct sim_event){time, plane->sim->sequence++, flow->slot.index, flow->slot.incarnation};
    while (at > 0 && event_is_before(&plane->heap[at], &plane->heap[(at - 1) / 2])) {
        heap_swap(&plane->heap[at], &plane->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
}

static struct sim_event heap_pop(struct sim_plane *plane)
{
    struct sim_event event = plane->heap[0];

    plane->heap[0] = plane->heap[--plane->heap_count];
    for (uint32_t at = 0;;) {
        uint32_t least = at;
        for (uint32_t child = 2 * at + 1; child <= 2 * at + 2; child++) {
            if (child < plane->heap_count &&
                event_is_before(&plane->heap[child], &plane->heap[least]))
                least = child;
        }
        if (least == at)
            return event;
        heap_swap(&plane->heap[at], &plane->heap[least]);
        at = least;
    }
}

struct sim_flow *net_sim_flow_next(struct net_sim *sim, enum flow_slot_kind kind, uint64_t *cursor)
{
    uint32_t plane_index = (uint32_t)(*cursor >> 32), slot_index = (uint32_t)*cursor;

    for (; plane_index < sim->plane_count; plane_index++, slot_index = 0) {
        struct flow_core *core = &sim->planes[plane_index]->core;
        for (; slot_index < core->slot_count; slot_index++) {
            struct flow_slot *slot = flow_core_slot_at(core, slot_index);
            if (slot->kind != kind)
                continue;
            *cursor = (uint64_t)plane_index << 32 | (slot_index + 1);
            return sim_flow_of(slot);
        }
    }
    return NULL;
}

void sim_flow_free(struct sim_flow *flow)
{
    wheel_cancel(&flow->plane->wheel, &flow->timer);
    flow_core_slot_free(&flow->plane->core, &flow->slot);
}

struct flow_address sim_address_choose(const struct sim_plane *plane,
                                       const struct flow_address *wanted, uint8_t family)
{
    static const uint8_t any[16] = {0};
    struct flow_address address = family == FLOW_FAMILY_IP4 ? plane->address4 : plane->address6;

    address.port = 0;
    if (wanted == NULL || wanted->family == FLOW_FAMILY_NONE)
        return address;
    address.port = wanted->port;
    if (memcmp(wanted->ip, any, sizeof(any)) != 0)
        address = *wanted;
    return address;
}

uint16_t sim_port_draw(struct sim_plane *plane)
{
    return (uint16_t)(PORT_MIN + rng_below(&plane->sim->rng, 65536 - PORT_MIN));
}

/* ---- the turn of a plane ---- */

static void sim_on_event(struct sim_plane *plane, const struct sim_event *event)
{
    struct flow_slot *slot = flow_core_slot_at(&plane->core, event->index);

    if (slot == NULL || slot->incarnation != event->incarnation)
        return;
    if (slot->kind == FLOW_SLOT_STREAM)
        sim_stream_wake(sim_flow_of(slot));
    else if (slot->kind == FLOW_SLOT_LISTENER)
        sim_listener_wake(sim_flow_of(slot));
    else if (slot->kind == FLOW_SLOT_DATAGRAM)
        sim_datagram_wake(sim_flow_of(slot));
}

static void sim_expire(struct sim_plane *plane)
{
    struct wheel_timer *timer;

    while ((timer = wheel_expire_next(&plane->wheel, plane->sim->now)) != NULL) {
        struct sim_flow *flow = WHEEL_OWNER(timer, struct sim_flow, timer);
        if (flow->slot.flags & FLOW_SLOT_ORPHAN)
            sim_stream_abort(flow);
        else
            flow_core_connected(&plane->core, &flow->slot, ERR_TIMEOUT);
    }
}

static uint32_t sim_poll(struct flow_plane *base, tick_us now, struct flow_event *ret_events,
                         uint32_t max)
{
    struct sim_plane *plane = sim_plane_of(base);
    struct flow_link round;
    struct flow_slot *slot;

    CHECK(now <= plane->sim->now);
    plane->core.is_starved = false;
    while (plane->heap_count > 0 && plane->heap[0].time <= plane->sim->now) {
        struct sim_event event = heap_pop(plane);
        sim_on_event(plane, &event);
    }
    sim_expire(plane);
    flow_core_read_round(&plane->core, &round);
    while ((slot = flow_core_read_next(&round)) != NULL)
        sim_stream_receive(sim_flow_of(slot));
    return flow_core_report(&plane->core, ret_events, max);
}

static void sim_flush(struct flow_plane *base, tick_us now)
{
    struct sim_plane *plane = sim_plane_of(base);
    struct flow_link round;
    struct flow_slot *slot;

    (void)now;
    flow_core_dirty_round(&plane->core, &round);
    while ((slot = flow_core_dirty_next(&round)) != NULL)
        sim_stream_send(sim_flow_of(slot));
    flow_core_settle(&plane->core);
}

static tick_us sim_deadline(struct flow_plane *base)
{
    struct sim_plane *plane = sim_plane_of(base);
    tick_us deadline = wheel_deadline(&plane->wheel);

    if (!flow_core_is_quiet(&plane->core) && !plane->core.is_starved)
        return plane->sim->now;
    if (plane->heap_count > 0 && plane->heap[0].time < deadline)
        deadline = plane->heap[0].time;
    if (plane->core.is_starved && plane->sim->now + STARVED_TIME < deadline)
        deadline = plane->sim->now + STARVED_TIME;
    return deadline;
}

tick_us net_sim_deadline(struct net_sim *sim)
{
    tick_us deadline = sim->wire != NULL ? net_wire_deadline(sim->wire) : TICK_NEVER;

    for (uint32_t i = 0; i < sim->plane_count; i++) {
        tick_us own = sim_deadline(&sim->planes[i]->core.plane);
        deadline = own < deadline ? own : deadline;
    }
    return deadline < sim->now ? sim->now : deadline;
}

static void sim_wait(struct flow_plane *base, tick_us now, tick_us deadline)
{
    (void)base;
    (void)now;
    (void)deadline;
}

static enum err sim_watch(struct flow_plane *base, int fd)
{
    (void)base;
    (void)fd;
    return ERR_OK;
}

/* ---- planes ---- */

static void sim_free(struct flow_plane *base)
{
    struct sim_plane *plane = sim_plane_of(base);
    struct net_sim *sim = plane->sim;
    uint32_t index = 0;

    for (uint32_t i = 0; i < plane->core.slot_count; i++) {
        struct flow_slot *slot = flow_core_slot_at(&plane->core, i);
        if (slot->kind == FLOW_SLOT_STREAM)
            sim_stream_abort(sim_flow_of(slot));
        else if (slot->kind == FLOW_SLOT_LISTENER)
            sim_listener_close(sim_flow_of(slot));
        else if (slot->kind == FLOW_SLOT_DATAGRAM)
            sim_datagram_close(sim_flow_of(slot));
    }
    flow_core_fini(&plane->core);
    while (sim->planes[index] != plane)
        index++;
    memmove(&sim->planes[index], &sim->planes[index + 1],
            (sim->plane_count - index - 1) * sizeof(sim->planes[0]));
    sim->plane_count--;
    free(plane->heap);
    free(plane);
}

void net_sim_plane_silence(struct net_sim *sim, struct flow_plane *base)
{
    if (sim->wire != NULL)
        net_wire_silence(sim->wire, base);
    else
        sim_plane_of(base)->is_silent = true;
}

const struct flow_ops net_sim_ops = {
    .listen = sim_listen,
    .accept = sim_accept,
    .refuse = sim_refuse,
    .connect = sim_connect,
    .open_datagram = sim_open_datagram,
    .send_datagram = sim_send_datagram,
    .receive_datagram = sim_receive_datagram,
    .set_user = flow_core_set_user,
    .error = flow_core_error,
    .addresses = sim_addresses,
    .readable = flow_core_readable,
    .peek = flow_core_peek,
    .pull = flow_core_pull,
    .consume = flow_core_consume,
    .take = flow_core_take,
    .credit = flow_core_credit,
    .append = flow_core_append,
    .reserve = flow_core_reserve,
    .commit = flow_core_commit,
    .unsent = flow_core_unsent,
    .cork = flow_core_cork,
    .push = flow_core_push,
    .want = flow_core_want,
    .shutdown = flow_core_shutdown,
    .close = sim_close,
    .abort = sim_abort,
    .poll = sim_poll,
    .flush = sim_flush,
    .deadline = sim_deadline,
    .wait = sim_wait,
    .watch = sim_watch,
    .stats = flow_core_stats,
    .free = sim_free,
};

struct flow_plane *net_sim_plane_new(struct net_sim *sim,
                                     const struct net_sim_plane_options *options)
{
    if (sim->wire != NULL)
        return net_wire_plane_new(sim->wire, options);
    CHECK(sim->plane_count < NET_SIM_PLANE_MAX);
    struct sim_plane *plane = calloc(1, sizeof(*plane));
    CHECK(plane != NULL);

    plane->sim = sim;
    plane->orphan_time = options->orphan_time;
    plane->address4 = options->address4;
    plane->address6 = options->address6;
    wheel_init(&plane->wheel, sim->now);
    flow_core_init(&plane->core, &net_sim_ops, options->pool, sizeof(struct sim_flow),
                   options->flow_count_max);
    sim->planes[sim->plane_count++] = plane;
    return &plane->core.plane;
}

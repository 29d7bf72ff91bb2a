/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Datagrams of the simulated network: each takes its own latency, so they overtake each other; each
 * may be lost, come twice, or be accompanied by a forgery from another port. A connected flow drops
 * what is not from its peer, as a kernel does. Where nobody has bound the port, the sender hears
 * that, as by ICMP.
 */
#include <stdlib.h>

#include "tests/sim/net_sim_internal.h"
#include "tests/sim/net_wire.h"

static struct sim_flow *datagram_find_bound(struct net_sim *sim, const struct flow_address *local)
{
    struct sim_flow *flow;
    uint64_t cursor = 0;

    while ((flow = net_sim_flow_next(sim, FLOW_SLOT_DATAGRAM, &cursor)) != NULL) {
        if (flow_address_is_equal(&flow->local, local))
            return flow;
    }
    return NULL;
}

static void datagram_deliver(struct sim_flow *to, const struct flow_address *from,
                             struct span octets, bool is_unreachable)
{
    struct net_sim *sim = to->plane->sim;
    struct sim_datagram *datagram = calloc(1, sizeof(*datagram) + octets.size);
    struct sim_datagram **at = &to->inbox;
    CHECK(datagram != NULL);

    datagram->arrival = sim->now + net_sim_latency(sim);
    datagram->from = *from;
    datagram->is_unreachable = is_unreachable;
    datagram->size = octets.size;
    if (octets.size > 0)
        memcpy(datagram->data, octets.data, octets.size);
    while (*at != NULL && (*at)->arrival <= datagram->arrival)
        at = &(*at)->next;
    datagram->next = *at;
    *at = datagram;
    sim_wake_at(to, datagram->arrival);
}

static void datagram_send_one(struct net_sim *sim, const struct flow_address *from,
                              const struct flow_address *to, struct span octets)
{
    struct sim_flow *target = datagram_find_bound(sim, to);
    struct sim_flow *sender = datagram_find_bound(sim, from);

    if (target != NULL && target->remote.family != FLOW_FAMILY_NONE &&
        !flow_address_is_equal(&target->remote, from))
        target->plane->core.stats.datagrams_dropped++;
    else if (target != NULL)
        datagram_deliver(target, from, octets, false);
    else if (sender != NULL)
        datagram_deliver(sender, to, (struct span){NULL, 0}, true);
}

static void datagram_send(struct net_sim *sim, const struct flow_address *from,
                          const struct flow_address *to, struct span octets)
{
    CHECK(octets.size <= FLOW_DATAGRAM_SIZE_MAX);
    if (net_sim_is_black_hole(sim, to) || net_sim_chance(sim, sim->faults.lose_datagram))
        return;
    datagram_send_one(sim, from, to, octets);
    if (net_sim_chance(sim, sim->faults.double_datagram))
        datagram_send_one(sim, from, to, octets);
    if (net_sim_chance(sim, sim->faults.forge_datagram)) {
        struct flow_address forged = *from;
        forged.port ^= 1;
        datagram_send_one(sim, &forged, to, octets);
    }
}

void net_sim_send_datagram(struct net_sim *sim, struct flow_plane *base,
                           const struct flow_address *from, const struct flow_address *to,
                           struct span octets)
{
    if (sim->wire != NULL)
        net_wire_send(sim->wire, base, from, to, octets);
    else
        datagram_send(sim, from, to, octets);
}

static enum err datagram_bind(struct sim_plane *plane, struct flow_address *local)
{
    bool is_chosen = local->port != 0;

    do {
        if (!is_chosen)
            local->port = sim_port_draw(plane);
        if (datagram_find_bound(plane->sim, local) == NULL)
            return ERR_OK;
    } while (!is_chosen);
    return ERR_SYSTEM;
}

enum err sim_open_datagram(struct flow_plane *base, const struct flow_address *local,
                           const struct flow_address *remote, uint64_t user, struct flow *ret_flow)
{
    struct sim_plane *plane = sim_plane_of(base);
    struct flow_address bound = sim_address_choose(plane, local, remote->family);

    TRY(sim_bind_datagram(plane, &bound, user, ret_flow));
    sim_flow_of(flow_core_find(&plane->core, *ret_flow))->remote = *remote;
    return ERR_OK;
}

enum err sim_bind_datagram(struct sim_plane *plane, const struct flow_address *local, uint64_t user,
                           struct flow *ret_flow)
{
    struct flow_address bound = *local;

    TRY(datagram_bind(plane, &bound));
    struct flow_slot *slot = flow_core_slot_new(&plane->core, FLOW_SLOT_DATAGRAM, user);
    if (slot == NULL)
        return ERR_LIMIT;
    sim_flow_of(slot)->plane = plane;
    sim_flow_of(slot)->local = bound;
    *ret_flow = flow_core_handle(slot);
    return ERR_OK;
}

enum err net_sim_open_datagram(struct net_sim *sim, struct flow_plane *base,
                               const struct flow_address *local, uint64_t user,
                               struct flow *ret_flow)
{
    if (sim->wire == NULL)
        return sim_bind_datagram(sim_plane_of(base), local, user, ret_flow);
    net_wire_bind(sim->wire, base, local);
    *ret_flow = (struct flow){0, 0};
    return ERR_OK;
}

enum err net_sim_receive_datagram(struct net_sim *sim, struct flow_plane *base, struct flow flow,
                                  struct flow_address *ret_from, struct span *ret_octets)
{
    if (sim->wire != NULL)
        return net_wire_receive(sim->wire, base, ret_from, ret_octets);
    return sim_receive_datagram(base, flow, ret_from, ret_octets);
}

static struct sim_flow *datagram_find(struct sim_plane *plane, struct flow handle)
{
    struct flow_slot *slot = flow_core_find(&plane->core, handle);
    return slot != NULL && slot->kind == FLOW_SLOT_DATAGRAM ? sim_flow_of(slot) : NULL;
}

enum err sim_send_datagram(struct flow_plane *base, struct flow handle, struct span octets)
{
    struct sim_plane *plane = sim_plane_of(base);
    struct sim_flow *flow = datagram_find(plane, handle);

    if (flow == NULL)
        return ERR_STALE;
    CHECK(flow->remote.family != FLOW_FAMILY_NONE);
    plane->core.stats.datagrams_sent++;
    datagram_send(plane->sim, &flow->local, &flow->remote, octets);
    return ERR_OK;
}

static struct sim_datagram *datagram_pop(struct sim_flow *flow)
{
    struct sim_datagram *datagram = flow->inbox;

    free(flow->received);
    flow->received = NULL;
    if (datagram == NULL || datagram->arrival > flow->plane->sim->now)
        return NULL;
    flow->inbox = datagram->next;
    flow->received = datagram;
    return datagram;
}

enum err sim_receive_datagram(struct flow_plane *base, struct flow handle,
                              struct flow_address *ret_from, struct span *ret_octets)
{
    struct sim_plane *plane = sim_plane_of(base);
    struct sim_flow *flow = datagram_find(plane, handle);
    struct sim_datagram *datagram;

    if (flow == NULL)
        return ERR_STALE;
    datagram = datagram_pop(flow);
    if (datagram != NULL) {
        flow_core_touch(&plane->core, &flow->slot);
        net_sim_note(plane->sim, datagram->data, datagram->size);
        if (datagram->is_unreachable)
            return ERR_PEER_UNREACHABLE;
        plane->core.stats.datagrams_received++;
        *ret_from = datagram->from;
        *ret_octets = span_of(datagram->data, datagram->size);
        return ERR_OK;
    }
    flow->slot.flags &= ~(uint32_t)FLOW_SLOT_PENDING;
    return ERR_AGAIN;
}

void sim_datagram_wake(struct sim_flow *flow)
{
    flow->slot.flags |= FLOW_SLOT_PENDING;
    flow_core_touch(&flow->plane->core, &flow->slot);
}

void sim_datagram_close(struct sim_flow *flow)
{
    struct sim_datagram *datagram;

    while ((datagram = flow->inbox) != NULL) {
        flow->inbox = datagram->next;
        free(datagram);
    }
    free(flow->received);
    sim_flow_free(flow);
}

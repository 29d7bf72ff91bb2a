/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ghosts: connections whose client is gone already, brought about by a late duplicate and a SYN
 * cookie. They are read to their end, and nothing is expected of them (RFC 4987 section 3.6 knows
 * no cure).
 */
#include "tests/sim/sim_wire.h"

#define GHOST_TIME TICK_S(30)

void sim_ghost_welcome(struct sim_wire *sim, uint32_t host, uint32_t stack, struct flow flow)
{
    struct flow_plane *plane = sim_plane(sim, host, stack);
    uint32_t index = sim->ghost_count;

    sim_trace(sim, "a ghost at host %u", host);
    if (sim->is_gentle || index == SIM_CONN_MAX) {
        sim_violation(sim, "a connection that nobody made");
        flow_abort(plane, flow);
        return;
    }
    sim->ghosts[index] = (struct sim_actor){.sim = sim, .host = host, .stack = stack, .flow = flow};
    sim->ghosts[index].wake_at = sim->now + GHOST_TIME;
    flow_set_user(plane, flow, SIM_GHOST_USER + index);
    sim->ghost_count++;
}

void sim_ghost_on_event(struct sim_actor *ghost, uint32_t events)
{
    struct flow_plane *plane = sim_plane(ghost->sim, ghost->host, ghost->stack);
    uint32_t readable = flow_readable(plane, ghost->flow);

    if (flow_is_none(ghost->flow))
        return;
    if (readable > 0)
        flow_consume(plane, ghost->flow, readable);
    if (events & (FLOW_PEER_CLOSED | FLOW_RESET)) {
        flow_close(plane, ghost->flow);
        ghost->flow = (struct flow){0, 0};
        ghost->wake_at = TICK_NEVER;
    }
}

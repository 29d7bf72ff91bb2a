/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_PORT_GATE_H
#define DATAPLANE_WIRE_PORT_GATE_H

#include <stdatomic.h>

#include "base/check.h"

/*
 * Keeps the EAL's interrupt thread and the bursts of shards apart, for drivers that have no lock
 * between the two: net_memif unmaps its rings in that thread when the other process dies, whoever
 * reads them at this moment.
 *
 * While there are seats, the interrupt thread is held and let go for a moment now and then, with
 * the gate closed: then no shard is in a burst, and none begins one, for some 150 microseconds.
 * That is every GATE_PERIOD while a link is to come up or somebody waits for that thread, and else
 * every GATE_QUIET. What it has to do, as to take down the rings of a process that died, is late by
 * as much.
 */
struct gate_seat { /* one per queue */
    _Alignas(64) _Atomic bool is_inside;
};

#define GATE_SEATS_MAX 512u
#define GATE_PERIOD_US 20000u
#define GATE_QUIET_US  250000u

/* Closed or not; gate.c. */
extern _Atomic bool gate_is_closed;
/* How many wait for the interrupt thread to do something (eal.c). */
extern _Atomic uint32_t gate_wanted;

/** True: the interrupt thread does nothing until gate_leave(). False: not now; try again later.
 * Threading: the shard of the seat. Cost: a full fence. */
static inline bool gate_enter(struct gate_seat *seat)
{
    atomic_store(&seat->is_inside, true);
    if (!atomic_load(&gate_is_closed))
        return true;
    atomic_store_explicit(&seat->is_inside, false, memory_order_release);
    return false;
}
static inline void gate_leave(struct gate_seat *seat)
{
    atomic_store_explicit(&seat->is_inside, false, memory_order_release);
}

/** Make seats known, at an ethdev port; GATE_NO_PORT: one that never has a link. Threading: control
 * thread, before their shards run. */
#define GATE_NO_PORT UINT16_MAX
void gate_add(struct gate_seat *seat, uint16_t port_id);
/** After their shards stopped; also if it was not added. With the last the interrupt thread is free
 * again. */
void gate_remove(struct gate_seat *seat);

#endif

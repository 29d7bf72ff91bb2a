/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_BODY_GATE_H
#define RELAY_BODY_GATE_H

#include "base/check.h"
#include "base/tick.h"

/*
 * How many octets of large messages a shard asks its clients for at a time: who wants to send one
 * has to have a place before it is told to go on. See body_gate.c.
 */
#define BODY_GATE_OCTETS     (512u << 10) /* of all places; one body alone may be larger */
#define BODY_GATE_PLACES     64u          /* a body of less than this part of the octets passes */
#define BODY_GATE_PLACE_TIME TICK_MS(2)   /* then a place is given away: its body comes slowly */
#define BODY_GATE_WAIT_MAX   TICK_MS(10)  /* who has waited so long needs no place */
#define BODY_GATE_NO_PLACE   0u

struct body_gate {
    uint32_t octets_max;
    uint64_t octets; /* of all places in use */
    uint32_t count;  /* places in use */
    tick_us expires; /* the first of them; TICK_NEVER: none is in use */
    struct body_gate_place {
        uint32_t owner, octets; /* 0: not in use */
        tick_us expires;
    } places[BODY_GATE_PLACES];
};

/** CHECKs octets_max >= BODY_GATE_PLACES. */
void body_gate_init(struct body_gate *gate, uint32_t octets_max);
/** Bodies of this announced size have to have a place. */
bool body_gate_is_for(const struct body_gate *gate, uint64_t size);
/** There is a place for a body of this size. Places whose time is over are given away for it. */
bool body_gate_has_room(struct body_gate *gate, uint64_t size, tick_us now);
/** A place for `owner`, to be left with body_gate_leave(). CHECKs that there is room.
 * Returns: not BODY_GATE_NO_PLACE. */
uint8_t body_gate_enter(struct body_gate *gate, uint64_t size, uint32_t owner, tick_us now);
/** Leave a place, unless it was given away; nothing for BODY_GATE_NO_PLACE. */
void body_gate_leave(struct body_gate *gate, uint8_t place, uint32_t owner);
/** When a place is given away at the latest, TICK_NEVER: none is in use. */
tick_us body_gate_deadline(const struct body_gate *gate);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate for large bodies. A hundred clients that send 100 KB each, all at a time, have 10 MB
 * under way at a shard, and each body waits in memory that the caches have long given to others.
 * So a shard lets them send one after another: a large message hears its 354 when those that came
 * before it leave room. Where the shard is what limits, nothing is lost by that; where it is not,
 * nobody waits for long:
 *
 *   DATA -> (room) place -> 354 -> body -> passed on or stored -> left
 *        -> (no room) waits, in order -> room, or BODY_GATE_WAIT_MAX -> 354
 *
 *   A place whose message has not ended in BODY_GATE_PLACE_TIME is given away: a client or a next
 *   hop that is far away or slow holds others up for that time and no longer.
 *
 * Counts only: who waits, and in which order, is the server's (server_body.c). With BDAT the octets
 * come unasked: there is nothing to hold back.
 *
 * Invariants
 *   1. octets and count are sums over the places in use.
 *   2. octets is at most octets_max. As each place counts a BODY_GATE_PLACES-th of that at least,
 *      the places suffice.
 */
#include "relay/body_gate.h"

void body_gate_init(struct body_gate *gate, uint32_t octets_max)
{
    CHECK(octets_max >= BODY_GATE_PLACES);
    *gate = (struct body_gate){.octets_max = octets_max, .expires = TICK_NEVER};
}

bool body_gate_is_for(const struct body_gate *gate, uint64_t size)
{
    return size >= gate->octets_max / BODY_GATE_PLACES;
}

static uint32_t octets_of(const struct body_gate *gate, uint64_t size)
{
    return size < gate->octets_max ? (uint32_t)size : gate->octets_max;
}

static void place_free(struct body_gate *gate, struct body_gate_place *place)
{
    gate->octets -= place->octets;
    gate->count -= 1;
    place->octets = 0;
}

/* Give away what is over, and find out which is the next. */
static void body_gate_expire(struct body_gate *gate, tick_us now)
{
    gate->expires = TICK_NEVER;
    for (uint32_t i = 0; i < BODY_GATE_PLACES; i++) {
        struct body_gate_place *place = &gate->places[i];
        if (place->octets != 0 && place->expires <= now)
            place_free(gate, place);
        if (place->octets != 0 && place->expires < gate->expires)
            gate->expires = place->expires;
    }
}

bool body_gate_has_room(struct body_gate *gate, uint64_t size, tick_us now)
{
    if (gate->expires <= now)
        body_gate_expire(gate, now);
    return gate->octets + octets_of(gate, size) <= gate->octets_max;
}

uint8_t body_gate_enter(struct body_gate *gate, uint64_t size, uint32_t owner, tick_us now)
{
    uint8_t i = 0;

    CHECK(body_gate_is_for(gate, size) && body_gate_has_room(gate, size, now));
    while (gate->places[i].octets != 0)
        i += 1;
    gate->places[i] = (struct body_gate_place){
        .owner = owner, .octets = octets_of(gate, size), .expires = now + BODY_GATE_PLACE_TIME};
    gate->octets += gate->places[i].octets;
    gate->count += 1;
    if (gate->expires == TICK_NEVER)
        gate->expires = now + BODY_GATE_PLACE_TIME;
    return i + 1u;
}

void body_gate_leave(struct body_gate *gate, uint8_t place, uint32_t owner)
{
    if (place == BODY_GATE_NO_PLACE)
        return;
    CHECK(place <= BODY_GATE_PLACES);
    struct body_gate_place *left = &gate->places[place - 1];
    if (left->octets != 0 && left->owner == owner)
        place_free(gate, left);
}

tick_us body_gate_deadline(const struct body_gate *gate)
{
    return gate->count > 0 ? gate->expires : TICK_NEVER;
}

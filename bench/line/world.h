/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_LINE_WORLD_H
#define BENCH_LINE_WORLD_H

#include "base/rng.h"
#include "dataplane/wire/stack.h"

/*
 * A wire for angarium-line: engines joined by a switch that copies frames into the receiver's
 * buffers, as net_memif does, in virtual time. Nothing is lost, and nothing takes time but the way
 * to a net that is far.
 */
#define WORLD_STATION_MAX 16u

struct world;

/** Heap; starts at one second. */
struct world *world_new(void);
/** After every plane was freed. */
void world_free(struct world *world);
const struct tick_source *world_clock(struct world *world);
tick_us world_now(const struct world *world);
void world_advance(struct world *world, tick_us to);

/** A station of its own with the address 10.0.`net`.`host`; its plane, freed by flow_plane_free().
 * Buffers that are kept are `buffer_size` octets. */
struct flow_plane *world_join(struct world *world, uint8_t net, uint8_t host, uint32_t buffer_size);
/** Frames to this net, and from it to others, take so long. Once, before any is sent. */
void world_set_far(struct world *world, uint8_t net, tick_us time);
/** A station of this net receives at most so many frames in a turn; 0: as many as wait. Before it
 * joins. */
void world_set_frames(struct world *world, uint8_t net, uint32_t max);
/** Frames have come for this plane. */
bool world_has_frames(const struct world *world, const struct flow_plane *plane);
/** When the next frame that is on its way comes. */
tick_us world_arrival(const struct world *world);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_SOURCE_H
#define RELAY_SOURCE_H

#include "base/tick.h"
#include "relay/settings.h"

/*
 * The sources of one shard: whose turn it is, and which may not be used now, where and why. Knows
 * no mail and no connections: transfer_place.c asks before it lets a delivery go, and says how that
 * went.
 */

/* ---- turns ---- */

/* Smooth weighted round robin: of weights 3 and 1 the turns are a a b a, not a a a b. */
struct source_turn {
    int64_t weight, credit;
};
/** Whose turn it is among those of `mask`, one of at most 64; `mask` is not empty. */
uint32_t source_turn_next(const struct source_turn *turns, uint32_t count, uint64_t mask);
/** `taken` had its turn; those of `mask`, and it, could have had it. */
void source_turn_taken(struct source_turn *turns, uint32_t count, uint64_t mask, uint32_t taken);

/* ---- what may be used ---- */

struct source_set;

#define SOURCE_REASON_SIZE 128u
#define SOURCE_REST_MAX    256u /* (source, site) pairs at rest; the soonest to end goes first */

enum source_use {
    SOURCE_USE_YES,
    SOURCE_USE_NO,
};

/** Heap; start-up. */
struct source_set *source_set_new(const struct settings *settings);
void source_set_free(struct source_set *sources);
/** What is known stays with the names. The settings live until the next call. */
void source_set_settings(struct source_set *sources, const struct settings *settings);

/** May this source (by number) be used for the site of this key, as seen from it? */
enum source_use source_may_use(const struct source_set *sources, uint32_t number, uint64_t site,
                               tick_us now);
/** Which member of a pool has the first turn at a site that has had none. */
uint32_t source_first_turn(struct source_set *sources, const struct settings_pool *pool);

/** Pass a source over at one site, until then: whoever sends there takes another of the pool, or
 * waits. `reason` is for people. A rest that lasts longer already stays. */
void source_rest(struct source_set *sources, uint32_t number, uint64_t site, tick_us until,
                 const char *reason);
/** Nothing could leave from its address. */
void source_on_broken(struct source_set *sources, uint32_t number, tick_us now);
/** A connection came about. */
void source_on_connected(struct source_set *sources, uint32_t number);

/** True when something may be used again that could not be. */
bool source_advance(struct source_set *sources, tick_us now);
tick_us source_deadline(const struct source_set *sources);

#endif

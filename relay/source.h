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

#define SOURCE_REASON_SIZE 200u

enum source_use {
    SOURCE_USE_YES,
    SOURCE_USE_NO,
};

/** Heap; start-up. */
struct source_set *source_set_new(const struct settings *settings);
void source_set_free(struct source_set *sources);
/** What is known stays with the names. The settings live until the next call. */
void source_set_settings(struct source_set *sources, const struct settings *settings);

/** May this source (by number) be used? At one site it may still be suspended or pause: site.h. */
enum source_use source_may_use(const struct source_set *sources, uint32_t number, tick_us now);
/** Which member of a pool has the first turn at a site that has had none. */
uint32_t source_first_turn(struct source_set *sources, const struct settings_pool *pool);

/** An operator's word: not before that time. `reason` is for people. False: there is no such
 * source. */
bool source_suspend(struct source_set *sources, struct span name, tick_us until,
                    const char *reason) MUST_CHECK;
/** What suspends it, or makes it rest, ends now. False: there is no such source. */
bool source_resume(struct source_set *sources, struct span name, tick_us now) MUST_CHECK;
/** Nothing could leave from its address. True: from now on it rests. */
bool source_on_broken(struct source_set *sources, uint32_t number, tick_us now);
/** A connection came about. */
void source_on_connected(struct source_set *sources, uint32_t number);

struct source_view {
    const struct settings_source *source;
    bool is_suspended, is_broken;
    tick_us until;      /* of that */
    uint32_t failures;  /* rests in a row */
    const char *reason; /* "" without one */
};
struct source_view source_get_view(const struct source_set *sources, uint32_t number, tick_us now);
uint32_t source_count(const struct source_set *sources);

/** True when something may be used again that could not be. */
bool source_advance(struct source_set *sources, tick_us now);
tick_us source_deadline(const struct source_set *sources);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_SOURCE_INTERNAL_H
#define RELAY_SOURCE_INTERNAL_H

#include "relay/source.h"

/* Shared by source.c (turns, orders of operators, time) and source_rest.c (what attempts tell). */
#define SOURCE_REFUSED_MAX 64u   /* sites that refuse one source; the oldest goes first */
#define SOURCE_FAILED_MAX  16u   /* sites that one family does not reach, likewise */
#define SOURCE_REACHED_MAX 1024u /* sites that somebody reached; by a digest of the key */
#define SOURCE_TAKEN_WORDS 4u    /* sites that take mail of one source: a bit each, by digest */

struct source_site { /* that has something against a source, or is not reached from it */
    uint64_t site;
    uint32_t origin; /* source_origin() */
    struct source_evidence evidence;
};

struct source_failures { /* of one family, since its last connection */
    uint32_t count;
    struct source_site sites[SOURCE_FAILED_MAX];
};

struct source_state {
    char name[SETTINGS_SOURCE_NAME_MAX + 1];
    tick_us suspended_until;         /* 0: it is not */
    char reason[SOURCE_REASON_SIZE]; /* of the suspension */
    struct source_rest rests[SOURCE_PART_COUNT];
    tick_us connected_at[SOURCE_PART_COUNT]; /* of the families; 0: never */
    struct source_failures failures[SOURCE_PART_COUNT];
    uint32_t refused_count;
    struct source_site refused[SOURCE_REFUSED_MAX];
    tick_us taken_since; /* when the bits of `taken[0]` began; those of [1] are the window before */
    uint64_t taken[2][SOURCE_TAKEN_WORDS];
};

struct source_reached {
    uint64_t site;
    tick_us at;
};

struct source_set {
    const struct settings *settings;
    struct source_state *states; /* by number */
    struct source_turn **firsts; /* by pool, then member */
    tick_us deadline;            /* the first end of anything below */
    tick_us alive_since;         /* what began before and failed may be the network's fault */
    struct source_reached reached[SOURCE_REACHED_MAX];
    void *context;
    void (*tell)(void *context, const struct source_news *news);
};

/* source.c */
void source_ends_at(struct source_set *sources, tick_us until);
struct source_state *source_state_find(struct source_set *sources, struct span name);

/* source_rest.c */
/** Nothing rests, and nothing is held against it. */
void source_rests_clear(struct source_state *state);

#endif

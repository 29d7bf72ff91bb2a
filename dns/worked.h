/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DNS_WORKED_H
#define DNS_WORKED_H

#include "base/check.h"
#include "base/tick.h"

/* Which names gave a positive answer lately, so that a sudden "no such domain" is not believed at
 * once. A bounded memory of fingerprints; owner shard only. */
#define WORKED_TIME    TICK_S(7 * 86400)
#define WORKED_CONFIRM TICK_S(60) /* between the first negative answer and the one that counts */

struct worked_entry {
    uint64_t fingerprint; /* 0: empty */
    tick_us worked_at;
    tick_us negative_at; /* first negative answer since; 0: none */
};

struct worked;
struct worked *worked_new(uint32_t count_max);
void worked_free(struct worked *worked);

/** The name of this keyed hash works: forgets negative answers, evicts the oldest of its set. */
void worked_note(struct worked *worked, uint64_t hash, tick_us now);
/** The memory of a name that worked within WORKED_TIME, or NULL. Valid until the next note. */
struct worked_entry *worked_find(struct worked *worked, uint64_t hash, tick_us now);

#endif

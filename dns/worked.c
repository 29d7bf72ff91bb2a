/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of names that worked: a set-associative table of fingerprints.
 *
 * A domain that took mail this week and is suddenly unknown is more often a broken zone than a
 * closed company, and a bounce cannot be taken back. So the first negative answer for such a name
 * counts as temporary, and only another one, WORKED_CONFIRM later, is believed (mx.c does that).
 *
 * Limits: SET_SIZE entries per set, a power of two of sets, at least count_max entries in all. A
 * full set gives up the entry that worked longest ago; that name is then judged without memory.
 * Fingerprints are 64-bit keyed hashes: two names that share one merely share their memory.
 */
#include "dns/worked.h"

#include <stdlib.h>

#define SET_SIZE 4u

struct worked {
    struct worked_entry *entries;
    uint32_t set_mask;
};

struct worked *worked_new(uint32_t count_max)
{
    CHECK(count_max > 0 && count_max <= 1u << 30);

    struct worked *worked = calloc(1, sizeof(*worked));
    uint32_t set_count = 1;
    while (set_count * SET_SIZE < count_max)
        set_count *= 2;
    CHECK(worked != NULL);
    worked->set_mask = set_count - 1;
    worked->entries = calloc((size_t)set_count * SET_SIZE, sizeof(*worked->entries));
    CHECK(worked->entries != NULL);
    return worked;
}

void worked_free(struct worked *worked)
{
    free(worked->entries);
    free(worked);
}

static struct worked_entry *set_of(struct worked *worked, uint64_t hash)
{
    return &worked->entries[(hash & worked->set_mask) * SET_SIZE];
}

static uint64_t fingerprint_of(uint64_t hash)
{
    return hash == 0 ? 1 : hash;
}

void worked_note(struct worked *worked, uint64_t hash, tick_us now)
{
    struct worked_entry *set = set_of(worked, hash), *victim = &set[0];

    for (uint32_t i = 0; i < SET_SIZE; i++) {
        if (set[i].fingerprint == fingerprint_of(hash)) {
            victim = &set[i];
            break;
        }
        if (set[i].worked_at < victim->worked_at)
            victim = &set[i];
    }
    *victim = (struct worked_entry){.fingerprint = fingerprint_of(hash), .worked_at = now};
}

struct worked_entry *worked_find(struct worked *worked, uint64_t hash, tick_us now)
{
    struct worked_entry *set = set_of(worked, hash);

    for (uint32_t i = 0; i < SET_SIZE; i++) {
        if (set[i].fingerprint == fingerprint_of(hash))
            return now - set[i].worked_at <= WORKED_TIME ? &set[i] : NULL;
    }
    return NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DNS_CACHE_H
#define DNS_CACHE_H

#include <stdalign.h>

#include "base/span.h"
#include "base/tick.h"

/* Answers of one shard by (name, type), in a fixed number of entries. Owner shard only. */
#define CACHE_NAME_MAX 253u

/* What an entry says besides its value. */
struct cache_note {
    uint8_t outcome;     /* the user's enum */
    bool is_stale;       /* the value's own mark; the cache does not read it */
    tick_us fetched;     /* when the answer came */
    tick_us expires;     /* fresh before this */
    tick_us refresh_at;  /* a popular entry is asked for again from here on */
    tick_us stale_until; /* kept, not fresh, up to here; <= expires: not kept */
    tick_us retry_at;    /* a refresh failed: do not try again before */
};

/* What a find reads and writes is one cache line. */
struct cache_entry {
    alignas(64) uint64_t hash;
    uint8_t *block; /* name, then value */
    uint32_t next;  /* in the bucket; index + 1 */
    uint32_t hits;  /* since it was put in */
    uint16_t type;
    uint8_t name_size;
    bool is_used, is_referenced;
    uint32_t serial;
    uint32_t value_size, block_size;
    struct cache_note note; /* the user may change refresh_at and retry_at in place */
};
_Static_assert(offsetof(struct cache_entry, note) < 64, "the hot part of an entry is one line");

struct cache;

/** Heap; start-up. `key` makes bucket positions unpredictable to those who choose the names. */
struct cache *cache_new(uint32_t count_max, const uint64_t key[2]);
void cache_free(struct cache *cache);

/** SipHash-1-3 of a name and a type: for cache_find() and cache_put(). */
uint64_t cache_hash(const uint64_t key[2], struct span name, uint16_t type);
uint64_t cache_hash_of(const struct cache *cache, struct span name, uint16_t type);

/**
 * The entry, fresh or not, or NULL. Valid until the next cache_put().
 *
 * Cost: one hash chain, no allocation; counts the hit and protects the entry from the next round of
 *       eviction.
 */
struct cache_entry *cache_find(struct cache *cache, uint64_t hash, struct span name, uint16_t type);

/**
 * Insert or replace; evicts when full. Returns the entry.
 *
 * Bounds: name.size <= CACHE_NAME_MAX.
 * Cost:   one heap block per name whose size changed.
 */
struct cache_entry *cache_put(struct cache *cache, uint64_t hash, struct span name, uint16_t type,
                              const struct cache_note *note, struct span value);

static inline struct span cache_entry_value(const struct cache_entry *entry)
{
    return span_of(entry->block + entry->name_size, entry->value_size);
}

uint32_t cache_count(const struct cache *cache);
uint64_t cache_octets(const struct cache *cache); /* in names and values */
uint64_t cache_evicted(const struct cache *cache);
/** The time by which eviction judges entries; an earlier one than before has no effect. */
void cache_advance(struct cache *cache, tick_us now);

#endif

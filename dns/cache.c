/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DNS cache: a fixed array of entries, hash chains by index, CLOCK eviction.
 *
 * Names are chosen by whoever sends mail, so neither the hash nor eviction may be steered by them:
 * SipHash-1-3 with a random key, and an entry that was put in but never found again is the first to
 * go. A flood of names that are asked once therefore turns over only the unreferenced part.
 *
 * Invariants
 *   1. At most count_max entries and count_max * OCTETS_PER_ENTRY octets of names and values;
 *      a put beyond either evicts first.
 *   2. An entry is in exactly one chain, the one of its hash.
 *   3. Victims, in the order the hand meets them: dead entries (past expires and stale_until)
 *      always, others when not referenced since the hand passed last. Two rounds find one.
 *   4. A serial is never given twice: a copy in parts notices when the entry was replaced.
 *
 * Cost of a find: one SipHash, one bucket, one entry, one comparison of the name.
 *
 * Not here: what values mean, when to refresh, stale answers (dns.c).
 */
#include "dns/cache.h"

#include <stdlib.h>

#define OCTETS_PER_ENTRY 1024u

struct cache {
    uint64_t key[2];
    struct cache_entry *entries;
    uint32_t *buckets; /* index + 1, 0: empty */
    uint32_t free;     /* first free entry, linked by `next`; index + 1 */
    uint32_t fresh;    /* entries from here on were never touched, nor their memory */
    uint32_t bucket_mask, count_max, count, hand, serial;
    uint64_t octets, evicted;
    tick_us now;
};

static uint64_t rotate(uint64_t value, uint32_t bits)
{
    return value << bits | value >> (64 - bits);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

static void sip_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
}

/* The type goes in as two octets behind the name. */
uint64_t cache_hash(const uint64_t key[2], struct span name, uint16_t type)
{
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du,
                     key[0] ^ 0x6c7967656e657261u, key[1] ^ 0x7465646279746573u};
    uint64_t word, last = (uint64_t)(name.size + 2) << 56;
    uint32_t at = 0;

    for (; at + 8 <= name.size; at += 8) {
        memcpy(&word, name.data + at, 8);
        sip_word(v, word);
    }
    uint8_t rest[16] = {0};
    uint32_t rest_size = name.size - at;
    memcpy(rest, name.data + at, rest_size);
    memcpy(rest + rest_size, &type, 2);
    memcpy(&word, rest, 8);
    if (rest_size + 2 >= 8) {
        sip_word(v, word);
        memcpy(&word, rest + 8, 8);
    }
    sip_word(v, word | last);
    v[2] ^= 0xff;
    sip_round(v);
    sip_round(v);
    sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint64_t cache_hash_of(const struct cache *cache, struct span name, uint16_t type)
{
    return cache_hash(cache->key, name, type);
}

struct cache *cache_new(uint32_t count_max, const uint64_t key[2])
{
    CHECK(count_max > 0 && count_max <= 1u << 28);

    struct cache *cache = calloc(1, sizeof(*cache));
    uint32_t bucket_count = 16;
    while (bucket_count < 2 * (uint64_t)count_max)
        bucket_count *= 2;
    CHECK(cache != NULL);
    *cache = (struct cache){
        .key = {key[0], key[1]},
        .entries = aligned_alloc(64, count_max * sizeof(*cache->entries)),
        .buckets = calloc(bucket_count, sizeof(*cache->buckets)),
        .bucket_mask = bucket_count - 1,
        .count_max = count_max,
    };
    CHECK(cache->entries != NULL && cache->buckets != NULL);
    return cache;
}

void cache_free(struct cache *cache)
{
    for (uint32_t i = 0; i < cache->fresh; i++)
        free(cache->entries[i].block);
    free(cache->entries);
    free(cache->buckets);
    free(cache);
}

static struct cache_entry *entry_find(struct cache *cache, uint64_t hash, struct span name,
                                      uint16_t type)
{
    uint32_t link = cache->buckets[hash & cache->bucket_mask];

    while (link != 0) {
        struct cache_entry *entry = &cache->entries[link - 1];
        if (entry->hash == hash && entry->type == type && entry->name_size == name.size &&
            memcmp(entry->block, name.data, name.size) == 0) {
            return entry;
        }
        link = entry->next;
    }
    return NULL;
}

struct cache_entry *cache_find(struct cache *cache, uint64_t hash, struct span name, uint16_t type)
{
    struct cache_entry *entry = entry_find(cache, hash, name, type);

    if (entry != NULL) {
        entry->is_referenced = true;
        entry->hits++;
    }
    return entry;
}

static void entry_unlink(struct cache *cache, struct cache_entry *entry)
{
    uint32_t self = (uint32_t)(entry - cache->entries) + 1;
    uint32_t *link = &cache->buckets[entry->hash & cache->bucket_mask];

    while (*link != self) {
        CHECK(*link != 0);
        link = &cache->entries[*link - 1].next;
    }
    *link = entry->next;
}

static void entry_drop(struct cache *cache, struct cache_entry *entry)
{
    CHECK(entry->is_used);
    entry_unlink(cache, entry);
    cache->octets -= entry->block_size;
    cache->count--;
    free(entry->block);
    *entry = (struct cache_entry){.next = cache->free};
    cache->free = (uint32_t)(entry - cache->entries) + 1;
}

static bool entry_is_dead(const struct cache *cache, const struct cache_entry *entry)
{
    return entry->note.expires <= cache->now && entry->note.stale_until <= cache->now;
}

/* Move the hand until an entry has been dropped. */
static void entry_evict(struct cache *cache)
{
    for (uint64_t steps = 0;; steps++) {
        CHECK(steps <= 2ull * cache->count_max);
        struct cache_entry *entry = &cache->entries[cache->hand];
        cache->hand = cache->hand + 1 == cache->fresh ? 0 : cache->hand + 1;
        if (!entry->is_used)
            continue;
        if (!entry->is_referenced || entry_is_dead(cache, entry)) {
            entry_drop(cache, entry);
            cache->evicted++;
            return;
        }
        entry->is_referenced = false;
    }
}

/* A free place, with room for so many octets. */
static struct cache_entry *entry_acquire(struct cache *cache, uint64_t octets)
{
    uint64_t octets_max = (uint64_t)cache->count_max * OCTETS_PER_ENTRY;

    while ((cache->free == 0 && cache->fresh == cache->count_max) ||
           (cache->count > 0 && cache->octets + octets > octets_max))
        entry_evict(cache);
    if (cache->free == 0)
        return &cache->entries[cache->fresh++];
    struct cache_entry *entry = &cache->entries[cache->free - 1];
    cache->free = entry->next;
    return entry;
}

static void entry_link(struct cache *cache, struct cache_entry *entry)
{
    uint32_t *bucket = &cache->buckets[entry->hash & cache->bucket_mask];

    entry->next = *bucket;
    *bucket = (uint32_t)(entry - cache->entries) + 1;
    cache->count++;
    cache->octets += entry->block_size;
}

static struct cache_entry *entry_new(struct cache *cache, uint64_t hash, struct span name,
                                     uint16_t type, uint32_t block_size)
{
    struct cache_entry *entry = entry_acquire(cache, block_size);

    *entry = (struct cache_entry){
        .hash = hash,
        .type = type,
        .name_size = (uint8_t)name.size,
        .block_size = block_size,
        .is_used = true,
        .block = malloc(block_size),
    };
    CHECK(entry->block != NULL);
    memcpy(entry->block, name.data, name.size);
    entry_link(cache, entry);
    return entry;
}

struct cache_entry *cache_put(struct cache *cache, uint64_t hash, struct span name, uint16_t type,
                              const struct cache_note *note, struct span value)
{
    CHECK(name.size > 0 && name.size <= CACHE_NAME_MAX);
    CHECK(value.size <= UINT16_MAX);

    uint32_t block_size = name.size + value.size;
    struct cache_entry *entry = entry_find(cache, hash, name, type);
    bool is_referenced = entry != NULL && entry->is_referenced;
    if (entry != NULL && entry->block_size != block_size) {
        entry_drop(cache, entry);
        entry = NULL;
    }
    if (entry == NULL)
        entry = entry_new(cache, hash, name, type, block_size);
    if (value.size > 0)
        memcpy(entry->block + name.size, value.data, value.size);
    entry->value_size = value.size;
    entry->note = *note;
    entry->serial = ++cache->serial;
    entry->hits = 0;
    entry->is_referenced = is_referenced;
    CHECK(cache->count <= cache->count_max);
    return entry;
}

uint32_t cache_count(const struct cache *cache)
{
    return cache->count;
}

uint64_t cache_octets(const struct cache *cache)
{
    return cache->octets;
}

uint64_t cache_evicted(const struct cache *cache)
{
    return cache->evicted;
}

void cache_advance(struct cache *cache, tick_us now)
{
    if (now > cache->now)
        cache->now = now;
}

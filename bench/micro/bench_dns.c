/* SPDX-License-Identifier: Apache-2.0 */
/* The DNS cache of a shard holding 100,000 names, asked for them in a shuffled order: most look-ups
 * miss the processor's caches, as they do in a busy relay. dns_cache_hit_hot asks for 64 of them.
 */
#include "bench/micro/harness.h"

#include <stdio.h>
#include <stdlib.h>

#include "dns/cache.h"

#define NAMES 100000u

struct dns_context {
    struct cache *cache;
    uint32_t at;
    uint8_t sizes[NAMES];
    char names[NAMES][32];
};

static void *dns_set_up(void)
{
    static const uint64_t key[2] = {1, 2};
    static const uint8_t value[100];
    struct dns_context *context = calloc(1, sizeof(*context));

    CHECK(context != NULL);
    context->cache = cache_new(NAMES, key);
    for (uint32_t i = 0; i < NAMES; i++) {
        struct cache_note note = {.expires = TICK_S(300), .stale_until = TICK_S(300)};
        int size = snprintf(context->names[i], sizeof(context->names[i]), "mail%u.example.org", i);
        struct span name = span_of(context->names[i], (uint32_t)size);

        context->sizes[i] = (uint8_t)size;
        cache_put(context->cache, cache_hash_of(context->cache, name, 15), name, 15, &note,
                  span_of(value, sizeof(value)));
    }
    return context;
}

static void dns_tear_down(void *pointer)
{
    struct dns_context *context = pointer;

    cache_free(context->cache);
    free(context);
}

static void dns_look_up(struct dns_context *context, uint64_t iterations, uint32_t stride,
                        uint32_t count)
{
    uint32_t at = context->at;

    for (uint64_t i = 0; i < iterations; i++) {
        struct span name = span_of(context->names[at], context->sizes[at]);
        const struct cache_entry *entry =
            cache_find(context->cache, cache_hash_of(context->cache, name, 15), name, 15);

        CHECK(entry != NULL);
        micro_keep(cache_entry_value(entry).data[0]);
        at = (at + stride) % count;
    }
    context->at = at;
}

static void dns_hit(void *context, uint64_t iterations)
{
    dns_look_up(context, iterations, 7919, NAMES);
}

static void dns_hit_hot(void *context, uint64_t iterations)
{
    dns_look_up(context, iterations, 7, 64);
}

const struct micro_bench micro_bench_dns[] = {
    {"dns_cache_hit", dns_set_up, dns_hit, dns_tear_down, 1, 0,
     "hash and find, all of 100,000 names in turn, 1 core"},
    {"dns_cache_hit_hot", dns_set_up, dns_hit_hot, dns_tear_down, 1, 0,
     "hash and find, 64 of 100,000 names in turn, 1 core"},
    {0},
};

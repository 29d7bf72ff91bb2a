/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts by key: a table of rate limiters (queue/rate.h), made when something is counted for the
 * first time.
 *
 * Invariants
 *   1. `used` holds every key once, the one not asked for and not counted for the longest time
 *      first; that one is forgotten when a place is needed.
 *   2. The rates are asked anew at every call: a reload takes effect at once, and what windows of
 *      the same length counted stays.
 *
 * Limits: count_max keys, each with the cells of its limiter. Cost: a keyed hash, a chain of a few
 * places. Time that goes back is taken for the last one (rate.h).
 */
#include "relay/tally.h"

#include <stdlib.h>
#include <sys/queue.h>

#include "base/rng.h"
#include "queue/keyed_hash.h"

#define TALLY_BUCKETS 4096u

struct tally_place {
    LIST_ENTRY(tally_place) chain;
    TAILQ_ENTRY(tally_place) link;
    struct rate_limiter limiter;
    struct rate_set rates; /* the limiter's */
    bool is_told;          /* that there is no room */
    uint16_t key_size;
    uint8_t key[TALLY_KEY_MAX];
};

struct tally {
    struct keyed_hash hash;
    uint32_t count, count_max;
    LIST_HEAD(, tally_place) buckets[TALLY_BUCKETS];
    TAILQ_HEAD(, tally_place) used;
};

struct tally *tally_new(uint64_t seed, uint32_t count_max)
{
    struct tally *tally = calloc(1, sizeof(*tally));
    struct rng rng;

    CHECK(tally != NULL && count_max > 0);
    rng_init_seed(&rng, seed);
    tally->hash = (struct keyed_hash){{rng_u64(&rng), rng_u64(&rng)}};
    tally->count_max = count_max;
    TAILQ_INIT(&tally->used);
    return tally;
}

static void place_free(struct tally *tally, struct tally_place *place)
{
    LIST_REMOVE(place, chain);
    TAILQ_REMOVE(&tally->used, place, link);
    rate_limiter_fini(&place->limiter);
    free(place);
    tally->count -= 1;
}

void tally_free(struct tally *tally)
{
    while (!TAILQ_EMPTY(&tally->used))
        place_free(tally, TAILQ_FIRST(&tally->used));
    free(tally);
}

uint32_t tally_count(const struct tally *tally)
{
    return tally->count;
}

static uint32_t bucket_of(const struct tally *tally, struct span key)
{
    return (uint32_t)(keyed_hash_octets(&tally->hash, key) % TALLY_BUCKETS);
}

/* The place of a key, which is now the one used last; NULL: nothing was counted. */
static struct tally_place *place_find(struct tally *tally, struct span key)
{
    struct tally_place *place;

    CHECK(key.size > 0 && key.size <= TALLY_KEY_MAX);
    LIST_FOREACH(place, &tally->buckets[bucket_of(tally, key)], chain)
    {
        if (!span_is_equal(span_of(place->key, place->key_size), key))
            continue;
        TAILQ_REMOVE(&tally->used, place, link);
        TAILQ_INSERT_TAIL(&tally->used, place, link);
        return place;
    }
    return NULL;
}

static struct tally_place *place_new(struct tally *tally, struct span key)
{
    struct tally_place *place = calloc(1, sizeof(*place));

    if (place == NULL)
        return NULL;
    if (tally->count == tally->count_max)
        place_free(tally, TAILQ_FIRST(&tally->used));
    place->key_size = (uint16_t)key.size;
    memcpy(place->key, key.data, key.size);
    LIST_INSERT_HEAD(&tally->buckets[bucket_of(tally, key)], place, chain);
    TAILQ_INSERT_TAIL(&tally->used, place, link);
    tally->count += 1;
    return place;
}

static void place_set(struct tally_place *place, const struct rate_set *rates, tick_us now)
{
    if (rate_set_is_equal(&place->rates, rates))
        return;
    place->rates = *rates;
    rate_limiter_set(&place->limiter, rates, now);
}

bool tally_has_room(struct tally *tally, struct span key, const struct rate_set *rates, tick_us now,
                    bool *ret_is_first)
{
    struct tally_place *place = rates->count == 0 ? NULL : place_find(tally, key);

    *ret_is_first = false;
    if (place == NULL)
        return true;
    place_set(place, rates, now);
    bool has_room = rate_limiter_room(&place->limiter, now) > 0;
    *ret_is_first = !has_room && !place->is_told;
    place->is_told = !has_room;
    return has_room;
}

void tally_add(struct tally *tally, struct span key, const struct rate_set *rates, tick_us now)
{
    if (rates->count == 0)
        return;
    struct tally_place *place = place_find(tally, key);
    if (place == NULL)
        place = place_new(tally, key);
    if (place == NULL)
        return; /* without memory nothing is counted */
    place_set(place, rates, now);
    rate_limiter_add(&place->limiter, now, 1);
}

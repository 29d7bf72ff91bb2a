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
 *
 * Over a restart neighbouring cells of a window go together, so that it is TALLY_KEPT_CELLS rows at
 * most, and a restored event is never forgotten earlier than the original, as long as the wall
 * clock does not jump. A restored window only remembers, until somebody asks with rates. In an
 * upgrade, what is counted since the parting is a row by itself for each window: the process that
 * goes on adds it.
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
    uint32_t apart;        /* counted since the parting, ... */
    tick_us apart_first, apart_last;
    uint32_t kept_round; /* rows of it were taken in this one */
    uint16_t key_size;
    uint8_t key[TALLY_KEY_MAX];
};

struct tally {
    struct keyed_hash hash;
    uint32_t count, count_max, kept_round;
    uint64_t changes;
    bool is_parted;
    LIST_HEAD(, tally_place) buckets[TALLY_BUCKETS];
    TAILQ_HEAD(tally_places, tally_place) used;
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

/* The windows' time: what was before our clock began has one, too. */
static tick_us window_time(tick_us now)
{
    return now + 2 * RATE_WINDOW_MAX;
}

static uint32_t bucket_of(const struct tally *tally, struct span key)
{
    return (uint32_t)(keyed_hash_octets(&tally->hash, key) % TALLY_BUCKETS);
}

/* The place of a key; NULL: nothing was counted. */
static struct tally_place *place_look(struct tally *tally, struct span key)
{
    struct tally_place *place;

    CHECK(key.size > 0 && key.size <= TALLY_KEY_MAX);
    LIST_FOREACH(place, &tally->buckets[bucket_of(tally, key)], chain)
    {
        if (span_is_equal(span_of(place->key, place->key_size), key))
            return place;
    }
    return NULL;
}

/* As it; and it is now the one used last. */
static struct tally_place *place_find(struct tally *tally, struct span key)
{
    struct tally_place *place = place_look(tally, key);

    if (place == NULL)
        return NULL;
    TAILQ_REMOVE(&tally->used, place, link);
    TAILQ_INSERT_TAIL(&tally->used, place, link);
    return place;
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
    rate_limiter_set(&place->limiter, rates, window_time(now));
}

bool tally_has_room(struct tally *tally, struct span key, const struct rate_set *rates, tick_us now,
                    bool *ret_is_first)
{
    struct tally_place *place = rates->count == 0 ? NULL : place_find(tally, key);

    *ret_is_first = false;
    if (place == NULL)
        return true;
    place_set(place, rates, now);
    bool has_room = rate_limiter_room(&place->limiter, window_time(now)) > 0;
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
    rate_limiter_add(&place->limiter, window_time(now), 1);
    tally->changes += 1;
    if (!tally->is_parted)
        return;
    if (place->apart++ == 0)
        place->apart_first = now;
    place->apart_last = now;
}

/* ---- over a restart: taking ---- */

uint64_t tally_changes(const struct tally *tally)
{
    return tally->changes;
}

void tally_keep_part(struct tally *tally, bool is_parted)
{
    struct tally_place *place;

    tally->is_parted = is_parted;
    TAILQ_FOREACH(place, &tally->used, link)
    {
        place->apart = 0;
    }
}

static struct kept_count row_blank(const struct tally_place *place, tick_us window,
                                   const struct kept_wish *wish)
{
    struct kept_count row = {.window = window,
                             .shard = (uint16_t)wish->shard,
                             .shard_count = (uint16_t)wish->shard_count,
                             .key_size = place->key_size};

    memcpy(row.key, place->key, place->key_size);
    return row;
}

static uint32_t window_keep(const struct tally_place *place, const struct rate_window *window,
                            const struct kept_wish *wish, struct tick_now now,
                            struct kept_count *rows)
{
    uint32_t together = (window->used + TALLY_KEPT_CELLS - 1) / TALLY_KEPT_CELLS, count = 0;
    struct tick_now then = {window_time(now.tick), now.wall};

    for (uint32_t i = 0; i < window->used; i++) {
        const struct rate_cell *cell = &window->cells[(window->head + i) % window->capacity];
        if (i % together == 0) {
            rows[count] = row_blank(place, window->rate.window, wish);
            rows[count++].first = kept_wall_of(cell->first, then);
        }
        rows[count - 1].last = kept_wall_of(cell->last, then);
        rows[count - 1].count += cell->count;
    }
    return count;
}

static uint32_t apart_keep(const struct tally_place *place, const struct rate_window *window,
                           const struct kept_wish *wish, struct tick_now now,
                           struct kept_count *row)
{
    if (place->apart == 0)
        return 0;
    *row = row_blank(place, window->rate.window, wish);
    row->first = kept_wall_of(place->apart_first, now);
    row->last = kept_wall_of(place->apart_last, now);
    row->count = place->apart;
    return 1;
}

static uint32_t place_keep(struct tally_place *place, const struct kept_wish *wish,
                           struct tick_now now, struct kept_count *rows)
{
    uint32_t count = 0;

    (void)rate_limiter_room(&place->limiter, window_time(now.tick)); /* what is over is not kept */
    for (uint32_t i = 0; i < place->limiter.count; i++) {
        const struct rate_window *window = &place->limiter.windows[i];
        if (window->rate.window >= wish->window_min)
            count += wish->is_rest ? apart_keep(place, window, wish, now, rows + count)
                                   : window_keep(place, window, wish, now, rows + count);
    }
    return count;
}

uint32_t tally_keep_next(struct tally *tally, const struct kept_wish *wish, uint64_t *cursor,
                         struct tick_now now, struct kept_count *rows, uint32_t row_max)
{
    struct tally_place *place;
    uint32_t count = 0;

    CHECK(row_max >= TALLY_KEPT_MAX);
    if (*cursor == 0)
        tally->kept_round++;
    TAILQ_FOREACH_REVERSE(place, &tally->used, tally_places, link)
    {
        if (place->kept_round == tally->kept_round)
            continue;
        if (count + TALLY_KEPT_MAX > row_max) {
            *cursor = 1;
            return count;
        }
        place->kept_round = tally->kept_round;
        count += place_keep(place, wish, now, rows + count);
    }
    *cursor = UINT64_MAX;
    return count;
}

/* ---- giving back ---- */

static bool row_is_sane(const struct kept_count *row)
{
    return row->key_size > 0 && row->key_size <= TALLY_KEY_MAX && row->count > 0 &&
           row->count <= RATE_COUNT_MAX && row->window >= RATE_WINDOW_MIN &&
           row->window <= RATE_WINDOW_MAX && row->first <= row->last;
}

/* Rows come in the order in which keys were used last: each new one is the next to be forgotten. */
static struct tally_place *place_restore(struct tally *tally, struct span key)
{
    struct tally_place *place = place_look(tally, key);

    if (place != NULL || tally->count == tally->count_max)
        return place;
    place = place_new(tally, key);
    if (place != NULL) {
        TAILQ_REMOVE(&tally->used, place, link);
        TAILQ_INSERT_HEAD(&tally->used, place, link);
    }
    return place;
}

void tally_keep_restore(struct tally *tally, const struct kept_count *row, struct tick_now now)
{
    struct tick_now then = {window_time(now.tick), now.wall};

    if (!row_is_sane(row) || kept_count_is_over(row, now))
        return;
    struct tally_place *place = place_restore(tally, span_of(row->key, row->key_size));
    if (place == NULL)
        return;
    rate_limiter_remember(&place->limiter, row->window);
    rate_limiter_restore(&place->limiter, row->window, kept_tick_of(row->first, then),
                         kept_tick_of(row->last, then), row->count, then.tick);
}

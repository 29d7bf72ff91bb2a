/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quotas of users on their way over a restart: what windows have counted, those of
 * QUOTA_KEEP_WINDOW and more at any time, all when the next process follows at once. Times are
 * those of the wall clock in between. A restored window has no number of its own: it only
 * remembers, until somebody asks with the user's rates.
 *
 * Neighbouring cells go together, so that a window is QUOTA_KEPT_CELLS rows at most: a file of many
 * users stays small. Rights that are out when rows are taken count as used: whether they were is
 * not known.
 *
 * In an upgrade the process that comes is told twice what the one that leaves has counted: all of
 * it when it takes over, and at the end what the last transactions there have used since, which was
 * kept apart. So nothing is counted twice or not at all.
 *
 * Invariants
 *   1. A restored use is never forgotten earlier than the original would have been, as long as the
 *      wall clock does not jump; a time in the future is taken for now.
 *   2. A round that asks again and again visits every count once, also if others come and go.
 */
#include "relay/quota_internal.h"

/* ---- taking ---- */

/* Of a moment in a window. */
static wall_us wall_of(tick_us time, struct tick_now now)
{
    return now.wall - (wall_us)(quota_time(now.tick) - time);
}

static uint32_t window_keep(const struct quota_place *place, const struct rate_window *window,
                            struct tick_now now, struct quota_kept *rows)
{
    uint32_t together = (window->used + QUOTA_KEPT_CELLS - 1) / QUOTA_KEPT_CELLS, count = 0;
    struct quota_kept blank = {
        .user = place->user, .window = window->rate.window, .kind = place->kind};

    for (uint32_t i = 0; i < window->used; i++) {
        const struct rate_cell *cell = &window->cells[(window->head + i) % window->capacity];
        if (i % together == 0) {
            rows[count] = blank;
            rows[count++].first = wall_of(cell->first, now);
        }
        rows[count - 1].last = wall_of(cell->last, now);
        rows[count - 1].count += cell->count;
    }
    if (place->out_total > 0) {
        rows[count] = blank;
        rows[count].first = rows[count].last = now.wall;
        rows[count++].count = place->out_total;
    }
    return count;
}

/* What was used since quota_keep_apart(), in this window. */
static uint32_t apart_keep(const struct quota_place *place, const struct rate_window *window,
                           struct tick_now now, struct quota_kept *row)
{
    if (place->apart == 0)
        return 0;
    *row = (struct quota_kept){.user = place->user,
                               .window = window->rate.window,
                               .first = wall_of(place->apart_first, now),
                               .last = wall_of(place->apart_last, now),
                               .count = place->apart,
                               .kind = place->kind};
    return 1;
}

static uint32_t place_keep(const struct quota_keep *what, struct quota_place *place,
                           struct tick_now now, struct quota_kept *rows)
{
    uint32_t count = 0;

    (void)rate_limiter_room(&place->limiter, quota_time(now.tick)); /* what is over is not kept */
    for (uint32_t i = 0; i < place->limiter.count; i++) {
        const struct rate_window *window = &place->limiter.windows[i];
        if (window->rate.window >= what->window_min)
            count += what->is_apart ? apart_keep(place, window, now, rows + count)
                                    : window_keep(place, window, now, rows + count);
    }
    CHECK(count <= QUOTA_KEPT_MAX);
    return count;
}

uint32_t quota_keep_next(struct quota_set *set, const struct quota_keep *what, uint64_t *cursor,
                         struct tick_now now, struct quota_kept *rows, uint32_t row_max)
{
    uint32_t count = 0;

    CHECK(row_max >= QUOTA_KEPT_MAX);
    if (*cursor == 0)
        set->kept_round++;
    for (uint64_t bucket = *cursor == 0 ? 0 : *cursor - 1; bucket < QUOTA_BUCKETS; bucket++) {
        struct quota_place *place;
        LIST_FOREACH(place, &set->buckets[bucket], chain)
        {
            if (place->kept_round == set->kept_round)
                continue;
            if (count + QUOTA_KEPT_MAX > row_max) {
                *cursor = bucket + 1;
                return count;
            }
            place->kept_round = set->kept_round;
            count += place_keep(what, place, now, rows + count);
        }
    }
    *cursor = UINT64_MAX;
    return count;
}

/* ---- an upgrade ---- */

/* Rights that are out have gone over as used: they are not used once more. */
void quota_keep_apart(struct quota_set *set, bool is_apart)
{
    struct quota_place *place;

    set->is_apart = is_apart;
    TAILQ_FOREACH(place, &set->places, link)
    {
        place->apart = 0;
        place->apart_known = is_apart ? place->out_total : 0;
    }
}

void quota_place_used(const struct quota_set *set, struct quota_place *place, tick_us time,
                      uint32_t count)
{
    uint32_t known = count < place->apart_known ? count : place->apart_known;

    if (!set->is_apart || count == 0)
        return;
    place->apart_known -= known;
    if (count == known)
        return;
    if (place->apart == 0)
        place->apart_first = time;
    place->apart += count - known;
    place->apart_last = time;
}

/* ---- giving back ---- */

/* The moment in a window: now if it is to come. */
static tick_us time_of(wall_us wall, struct tick_now now)
{
    if (wall >= now.wall)
        return quota_time(now.tick);
    tick_us age = (tick_us)(now.wall - wall);
    return quota_time(now.tick) - (age < RATE_WINDOW_MAX + 1 ? age : RATE_WINDOW_MAX + 1);
}

static bool row_is_sane(const struct quota_kept *row)
{
    return row->kind < QUOTA_KIND_COUNT && row->count > 0 && row->count <= RATE_COUNT_MAX &&
           row->window >= RATE_WINDOW_MIN && row->window <= RATE_WINDOW_MAX && row->first >= 0 &&
           row->last >= 0;
}

void quota_keep_restore(struct quota_set *set, const struct quota_kept *rows, uint32_t count,
                        struct tick_now now)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct quota_kept *row = &rows[i];
        if (!row_is_sane(row) ||
            quota_home_of(row->user, set->options.shard_count) != set->options.shard)
            continue;
        struct quota_place *place = quota_place_get(set, row->user, row->kind, now.tick);
        if (place == NULL)
            return;
        rate_limiter_remember(&place->limiter, row->window);
        rate_limiter_restore(&place->limiter, row->window, time_of(row->first, now),
                             time_of(row->last, now), row->count, quota_time(now.tick));
    }
}

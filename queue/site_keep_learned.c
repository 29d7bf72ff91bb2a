/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What answers of sites taught, on its way over a restart: how many connections a site takes, the
 * pause after failures of all its hosts and how many of those there were in a row, how often an
 * order that doubles was given.
 *
 * A row has the time of the last word about its site: what is restored is as old as that, and is
 * forgotten when it would have been without the restart (site_learn.c). What is too old for that,
 * or over, is not written.
 *
 * Where rows are bounded, those of sites that take less than before come first: who is taken for
 * healthy and is not hears 421 once more; who is taken for new grows in a few dozen messages.
 *
 * Invariants
 *   1. A pause never lasts longer than from now on it could, whatever the wall clock did meanwhile.
 *   2. A site that this process has learned something of is left as it is.
 *
 * Not here: counts of windows and orders (site_keep.c); the memory of dead hosts, which begins
 * empty, and matches of patterns that need several, which are counted anew.
 */
#include "queue/site_state.h"

#define CONNECTIONS_MAX 10000000u /* more than any option allows */
#define FAILURES_MAX    10000000u
#define BACK_OFFS_MAX   32u
#define CURSOR_SECOND   (1ull << 62) /* the second pass */

/* ---- taking ---- */

static bool has_back_offs(const struct site_home *home, tick_us now)
{
    return home->back_offs > 0 &&
           (home->back_off_until >= now || now - home->back_off_until <= SITE_BACK_OFF_MEMORY);
}

/* It takes less than before. */
static bool is_down(const struct site_home *home, tick_us now)
{
    bool is_learned = !site_learn_is_fresh(home, now) && home->learned.reason != SITE_LEARN_GROWN;

    return is_learned || home->failures > 0 || has_back_offs(home, now);
}

/* Of a time that may be over or not; 0: there is none. */
static wall_us moment_of(tick_us tick, struct tick_now now)
{
    return tick > now.tick ? now.wall + (wall_us)(tick - now.tick) : site_wall_of(tick, now);
}

static struct site_learned_kept learned_keep(const struct site *site, struct tick_now now)
{
    const struct site_home *home = site->home;
    const struct site_learned *learned = &home->learned;
    struct site_learned_kept row = {.key = site->key,
                                    .used = home->out_total > 0 ? now.wall
                                                                : site_wall_of(learned->used, now),
                                    .since = site_wall_of(learned->since, now),
                                    .allowed = learned->allowed,
                                    .threshold = learned->threshold,
                                    .successes = learned->successes,
                                    .reason = (uint32_t)learned->reason,
                                    .failures = home->failures};

    if (home->failures > 0)
        row.paused_until = moment_of(home->paused_until, now);
    if (has_back_offs(home, now.tick)) {
        row.back_offs = home->back_offs;
        row.back_off_until = moment_of(home->back_off_until, now);
    }
    memcpy(row.label, site->label, site->label_size);
    memcpy(row.source, site->source, site->source_size);
    return row;
}

_Static_assert(sizeof(struct site_learned_kept) == 160, "a row has no holes");

static bool is_of_pass(const struct site_home *home, bool is_second, tick_us now)
{
    if (home == NULL)
        return false;
    return is_second ? !is_down(home, now) && !site_learn_is_fresh(home, now) : is_down(home, now);
}

uint32_t site_keep_next_learned(struct site_set *sites, uint64_t *cursor, struct tick_now now,
                                struct site_learned_kept *rows, uint32_t row_max)
{
    bool is_second = (*cursor & CURSOR_SECOND) != 0;
    uint64_t place = *cursor & ~CURSOR_SECOND;
    uint32_t count = 0, looked = 0;

    CHECK(row_max > 0);
    while (count < row_max && looked++ < SITE_KEEP_LOOK_MAX) {
        const struct site *site = slab_next(&sites->sites, &place);
        if (site == NULL) {
            *cursor = is_second ? UINT64_MAX : CURSOR_SECOND;
            return count;
        }
        if (is_of_pass(site->home, is_second, now.tick))
            rows[count++] = learned_keep(site, now);
    }
    *cursor = place | (is_second ? CURSOR_SECOND : 0);
    return count;
}

/* ---- giving back ---- */

static bool row_is_sane(const struct site_learned_kept *row)
{
    return row->allowed > 0 && row->allowed <= CONNECTIONS_MAX && row->threshold > 0 &&
           row->reason < SITE_LEARN_REASON_COUNT && row->since <= row->used &&
           row->failures <= FAILURES_MAX && row->back_offs <= BACK_OFFS_MAX &&
           memchr(row->label, '\0', sizeof(row->label)) != NULL &&
           memchr(row->source, '\0', sizeof(row->source)) != NULL;
}

/* A time that may be to come, but not more than `max` from now. */
static tick_us tick_of_moment(wall_us moment, tick_us max, struct tick_now now)
{
    if (moment <= now.wall)
        return site_tick_of(moment, now);
    tick_us left = (tick_us)moment - (tick_us)now.wall;
    return now.tick + (left < max ? left : max);
}

/* NULL: there is no room, or more is known of it here. */
static struct site *site_of_row(struct site_set *sites, const struct site_learned_kept *row,
                                tick_us now)
{
    struct span label = span_from_text(row->label);
    bool is_full = sites->sites.in_use >= sites->options.site_count_max;

    if (site_find(sites, row->key) == NULL && is_full)
        return NULL;
    struct site *site = site_get(sites, row->key, label, now);
    const struct site_home *home = site_home_get(sites, site);
    if (home->learned.reason != SITE_LEARN_START || home->failures > 0 || home->back_offs > 0)
        return NULL;
    if (site->source_size == 0)
        site_set_source(site, span_from_text(row->source));
    return site;
}

static void learned_restore(const struct site_set *sites, struct site_home *home,
                            const struct site_learned_kept *row, struct tick_now now)
{
    /* Attempts of ours begin behind all that was learned: no step down of then is late for them. */
    struct site_learned learned = {.allowed = row->allowed,
                                   .threshold = row->threshold,
                                   .successes = row->successes,
                                   .reason = (enum site_learn_reason)row->reason,
                                   .since = site_tick_of(row->since, now),
                                   .used = site_tick_of(row->used, now)};
    tick_us pause_max = sites->options.backoff_max + sites->options.backoff_max / 5;

    site_learn_restore(home, &learned, row->used, now);
    home->failures = row->failures;
    if (row->failures > 0)
        home->paused_until = tick_of_moment(row->paused_until, pause_max, now);
    home->back_offs = row->back_offs;
    if (row->back_offs > 0)
        home->back_off_until = tick_of_moment(row->back_off_until, SITE_ORDER_TIME_MAX, now);
}

void site_keep_restore_learned(struct site_set *sites, bool with_pauses,
                               const struct site_learned_kept *rows, uint32_t count,
                               struct tick_now now)
{
    site_start(sites, now.tick);
    for (uint32_t i = 0; i < count; i++) {
        const struct site_learned_kept *row = &rows[i];
        bool is_ours = site_home_shard(sites, row->key) == sites->options.shard;
        struct site *site = is_ours && row_is_sane(row) ? site_of_row(sites, row, now.tick) : NULL;
        if (site == NULL)
            continue;
        learned_restore(sites, site->home, row, now);
        if (!with_pauses && site->home->paused_until > now.tick)
            site->home->paused_until = now.tick;
        site_home_restored(sites, site, now.tick);
        site_drain(sites, now.tick);
        site_review(sites, site);
        if (site->is_idle) { /* the next to be forgotten: what is worth more came first */
            TAILQ_REMOVE(&sites->idle, site, idle_link);
            TAILQ_INSERT_HEAD(&sites->idle, site, idle_link);
        }
    }
}

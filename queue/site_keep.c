/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What windows have counted, on its way over a restart: those of SITE_KEEP_WINDOW and more at any
 * time, all at the end of a process, which the next one follows at once.
 *
 * Each cell of a window becomes a row, its times those of the wall clock. A restored window has no
 * number of its own: it only remembers, until a shard tells of the site's rates; then what it knows
 * goes over to the window of the same length, or of the longest one known. Rows come to whichever
 * shard is the site's home now.
 *
 * Rights that are out when rows are taken count as used: whether they were is not known.
 *
 * Orders are kept as they are, with their end on the wall clock; the clock of their rate begins
 * anew.
 *
 * A call looks at so many sites, whether they have rows or not.
 *
 * Invariant: a restored event is never forgotten earlier than the original would have been, as long
 * as the wall clock does not jump; a time in the future is taken for now.
 */
#include "queue/site_state.h"

/* ---- taking ---- */

static uint32_t window_keep(uint64_t key, const struct rate_window *window, uint32_t out,
                            struct tick_now now, struct site_kept *rows)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < window->used; i++) {
        const struct rate_cell *cell = &window->cells[(window->head + i) % window->capacity];
        rows[count++] = (struct site_kept){.key = key,
                                           .window = window->rate.window,
                                           .first = site_wall_of(cell->first, now),
                                           .last = site_wall_of(cell->last, now),
                                           .count = cell->count};
    }
    if (out > 0)
        rows[count++] = (struct site_kept){.key = key,
                                           .window = window->rate.window,
                                           .first = now.wall,
                                           .last = now.wall,
                                           .count = out};
    return count;
}

static uint32_t site_keep(struct site *site, tick_us window_min, struct tick_now now,
                          struct site_kept *rows)
{
    struct site_home *home = site->home;
    uint32_t count = 0;

    if (home == NULL)
        return 0;
    (void)rate_limiter_room(&home->mails, now.tick); /* what is over is not kept */
    for (uint32_t i = 0; i < home->mails.count; i++) {
        if (home->mails.windows[i].rate.window >= window_min)
            count += window_keep(site->key, &home->mails.windows[i], home->mail_out_total, now,
                                 rows + count);
    }
    CHECK(count <= SITE_KEPT_MAX);
    return count;
}

uint32_t site_keep_next(struct site_set *sites, tick_us window_min, uint64_t *cursor,
                        struct tick_now now, struct site_kept *rows, uint32_t row_max)
{
    uint32_t count = 0, looked = 0;

    CHECK(row_max >= SITE_KEPT_MAX);
    while (count + SITE_KEPT_MAX <= row_max && looked++ < SITE_KEEP_LOOK_MAX) {
        struct site *site = slab_next(&sites->sites, cursor);
        if (site == NULL) {
            *cursor = UINT64_MAX;
            break;
        }
        count += site_keep(site, window_min, now, rows + count);
    }
    return count;
}

/* ---- giving back ---- */

static void row_restore(struct site_set *sites, const struct site_kept *row, struct tick_now now)
{
    struct site *site = site_find(sites, row->key);

    if (site == NULL && sites->sites.in_use >= sites->options.site_count_max)
        return;
    if (site == NULL)
        site = site_make(sites, row->key);
    struct site_home *home = site_home_get(sites, site);
    rate_limiter_remember(&home->mails, row->window);
    rate_limiter_restore(&home->mails, row->window, site_tick_of(row->first, now),
                         site_tick_of(row->last, now), row->count, now.tick);
    site_home_on_timer(sites, site, now.tick);
    site_review(sites, site);
}

void site_keep_restore(struct site_set *sites, const struct site_kept *rows, uint32_t count,
                       struct tick_now now)
{
    site_start(sites, now.tick);
    for (uint32_t i = 0; i < count; i++) {
        const struct site_kept *row = &rows[i];
        if (row->key % sites->options.shard_count == sites->options.shard && row->count > 0 &&
            row->count <= RATE_COUNT_MAX && row->window >= RATE_WINDOW_MIN &&
            row->window <= RATE_WINDOW_MAX)
            row_restore(sites, row, now);
    }
    site_drain(sites, now.tick);
}

/* ---- orders ---- */

static uint32_t site_keep_orders(const struct site *site, struct tick_now now,
                                 struct site_order_kept *rows)
{
    uint32_t count = 0, kept = 0;

    if (site->home == NULL)
        return 0;
    const struct site_order *orders = site_home_orders(site->home, &count);
    for (uint32_t i = 0; i < count; i++) {
        tick_us left = orders[i].until > now.tick ? orders[i].until - now.tick : 0;
        if (orders[i].kind == SITE_ORDER_BOUNCE) /* it was carried out */
            continue;
        rows[kept] = (struct site_order_kept){
            .key = site->key, .until = now.wall + (wall_us)left, .order = orders[i]};
        memcpy(rows[kept++].label, site->label, site->label_size);
    }
    return kept;
}

static uint32_t standing_keep(const struct site_set *sites, struct tick_now now,
                              struct site_order_kept *rows)
{
    for (uint32_t i = 0; i < sites->standing_count; i++) {
        const struct site_standing *standing = &sites->standing[i];
        tick_us left = standing->order.until > now.tick ? standing->order.until - now.tick : 0;
        rows[i] =
            (struct site_order_kept){.until = now.wall + (wall_us)left, .order = standing->order};
        memcpy(rows[i].label, standing->name, sizeof(standing->name));
    }
    return sites->standing_count;
}

uint32_t site_keep_next_orders(struct site_set *sites, uint64_t *cursor, struct tick_now now,
                               struct site_order_kept *rows, uint32_t row_max)
{
    uint32_t count = 0, looked = 0;

    CHECK(row_max >= SITE_ORDER_MAX + SITE_STANDING_MAX);
    if (*cursor == 0 && sites->options.shard == 0) /* all shards have the same */
        count = standing_keep(sites, now, rows);
    while (count + SITE_ORDER_MAX <= row_max && looked++ < SITE_KEEP_LOOK_MAX) {
        const struct site *site = slab_next(&sites->sites, cursor);
        if (site == NULL) {
            *cursor = UINT64_MAX;
            break;
        }
        count += site_keep_orders(site, now, rows + count);
    }
    return count;
}

void site_keep_restore_orders(struct site_set *sites, const struct site_order_kept *rows,
                              uint32_t count, struct tick_now now)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct site_order_kept *row = &rows[i];
        size_t label_size = strnlen(row->label, sizeof(row->label));
        bool is_ours =
            row->key == 0 || row->key % sites->options.shard_count == sites->options.shard;
        if (!is_ours || row->until <= now.wall || row->order.kind == SITE_ORDER_BOUNCE ||
            label_size > SITE_LABEL_MAX || !site_order_is_valid(&row->order))
            continue;
        tick_us left = (tick_us)(row->until - now.wall);
        struct site_order order = row->order;
        order.is_doubled = false; /* its time is what is left */
        order.needed = 0;
        order.is_restored = true;
        order.until = now.tick + (left < order.duration ? left : order.duration);
        bool is_taken = row->key == 0 && site_standing_add(sites, row->label, &order, now.tick);
        if (row->key == 0) {
            sites->orders_refused += !is_taken;
            continue;
        }
        if (site_order_add(sites, row->key, span_of(row->label, (uint32_t)label_size), &order,
                           now.tick) != ERR_OK)
            sites->orders_refused++;
    }
}

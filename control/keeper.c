/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What limits remember, and what operators ordered, kept in a file (keeper_file.c): windows, orders
 * about sites, orders about mail that stand.
 *
 * All shards have the same standing orders, but for what they did by them: that adds up, and is
 * given back to the first shard.
 *
 * A round asks one shard after the other for its rows, in slices, and replaces the file as a whole:
 * written beside it, synced, renamed. A round without a row after one without a row writes nothing.
 * Other files of rows have a part in the round when it is time for them (keeper_rows.c).
 *
 * In an upgrade two processes count for a while, and which of them knows what is true depends on
 * who counts. What deliveries use (limits, orders, sources, what sites taught) is the old process'
 * until its end, since the new one delivers none: it reads those files then. What mail that is
 * taken uses (quotas, brakes) is read when the new one begins to take mail, and what the old one
 * still counts is added in the end.
 *
 * Invariant: one query of ours is with the shards at most; its memory stays until the reply.
 *
 * Limits: KEEPER_ROWS_MAX rows and KEEPER_ORDERS_MAX orders; beyond that the rest is not kept. A
 * process that is killed loses what was counted since the last round; one that stops loses nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "control/keeper_internal.h"

#define GIVE_ORDERS 1024u /* in one turn */

/* ---- on the shards ---- */

static struct tick_now now_of(tick_us tick)
{
    const struct tick_source *clock = tick_source_system();

    return (struct tick_now){tick, clock->wall(clock->context)};
}

static void standing_add(struct keeper *keeper, const struct qmgr_standing *standing)
{
    for (uint32_t i = 0; i < keeper->standing_count; i++) {
        struct qmgr_standing *known = &keeper->standing[i];
        if (known->order.id != standing->order.id)
            continue;
        known->done_now += standing->done_now;
        known->done_since += standing->done_since;
        return;
    }
    if (keeper->standing_count < QMGR_STANDING_MAX)
        keeper->standing[keeper->standing_count++] = *standing;
}

static void standing_take(struct keeper *keeper, struct qmgr *queue, struct tick_now now)
{
    const struct qmgr_standing *standing;

    for (uint32_t i = 0; (standing = qmgr_standing_next(queue, &i, now)) != NULL;)
        standing_add(keeper, standing);
}

static void standing_give_back(struct keeper *keeper, struct qmgr *queue, struct tick_now now)
{
    for (uint32_t i = 0; i < keeper->standing_count; i++) {
        if (qmgr_standing_add(queue, &keeper->standing[i], now) != ERR_OK)
            log_line(LOG_WARNING, "limits: order %u is damaged: it stands no more",
                     keeper->standing[i].order.id);
        keeper->standing[i].done_now = keeper->standing[i].done_since = 0;
    }
}

static void take_slice(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    struct keeper *keeper = query->found;

    keeper->slice_count = keeper->order_slice_count = 0;
    if (query->cursor == 0)
        keeper_source_take(keeper->sources, transfer_sources(transfer), now_of(now));
    if (keeper->stage == AT_ORDERS && query->cursor == 0)
        standing_take(keeper, transfer_queue(transfer), now_of(now));
    if (keeper->stage == AT_ORDERS)
        keeper->order_slice_count =
            site_keep_next_orders(transfer_sites(transfer), &query->cursor, now_of(now),
                                  keeper->order_slice, KEEPER_ORDERS);
    else
        keeper->slice_count =
            site_keep_next(transfer_sites(transfer), keeper->window_min, &query->cursor,
                           now_of(now), keeper->slice, KEEPER_SLICE);
}

/* How many of `count` are next. */
static uint32_t slice_of(uint32_t count, uint32_t from, uint32_t max)
{
    return count - from < max ? count - from : max;
}

/* Rows, then orders, a slice in each turn; what stands is the end. */
static void give_back(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    struct keeper *keeper = query->found;
    struct site_set *sites = transfer_sites(transfer);
    uint32_t at = (uint32_t)query->cursor;

    if (at < keeper->count) {
        uint32_t count = slice_of(keeper->count, at, KEEPER_SLICE);
        site_keep_restore(sites, keeper->rows + at, count, now_of(now));
        query->cursor += count;
        return;
    }
    at -= keeper->count;
    if (at < keeper->order_count) {
        uint32_t count = slice_of(keeper->order_count, at, GIVE_ORDERS);
        site_keep_restore_orders(sites, keeper->orders + at, count, now_of(now));
        query->cursor += count;
        return;
    }
    standing_give_back(keeper, transfer_queue(transfer), now_of(now));
    query->cursor = UINT64_MAX;
}

/* ---- rounds ---- */

static void rows_clear(struct keeper *keeper)
{
    free(keeper->rows);
    keeper->rows = NULL;
    keeper->count = keeper->capacity = 0;
    free(keeper->orders);
    keeper->orders = NULL;
    keeper->order_count = keeper->order_capacity = 0;
    keeper->standing_count = 0;
    keeper->stage = AT_ROWS;
}

static void orders_add(struct keeper *keeper)
{
    uint32_t count = keeper->order_slice_count;

    if (keeper->order_count + count > KEEPER_ORDERS_MAX)
        count = KEEPER_ORDERS_MAX - keeper->order_count;
    if (count == 0)
        return;
    if (keeper->order_count + count > keeper->order_capacity) {
        uint32_t capacity = keeper->order_count + count + KEEPER_ORDERS;
        struct site_order_kept *orders = reallocarray(keeper->orders, capacity, sizeof(*orders));
        if (orders == NULL)
            return;
        keeper->orders = orders;
        keeper->order_capacity = capacity;
    }
    memcpy(keeper->orders + keeper->order_count, keeper->order_slice,
           count * sizeof(keeper->order_slice[0]));
    keeper->order_count += count;
}

/* What a shard has just given. */
static void rows_add(struct keeper *keeper)
{
    uint32_t count = keeper->slice_count;

    if (keeper->stage >= AT_KINDS) {
        keeper_rows_add(keeper->kinds[keeper->stage - AT_KINDS], &keeper->query);
        return;
    }
    orders_add(keeper);
    if (keeper->count + count > KEEPER_ROWS_MAX)
        count = KEEPER_ROWS_MAX - keeper->count;
    if (count == 0)
        return;
    if (keeper->count + count > keeper->capacity) {
        uint32_t capacity = keeper->count + count + KEEPER_SLICE;
        struct site_kept *rows = reallocarray(keeper->rows, capacity, sizeof(*rows));
        if (rows == NULL)
            return;
        keeper->rows = rows;
        keeper->capacity = capacity;
    }
    memcpy(keeper->rows + keeper->count, keeper->slice, count * sizeof(keeper->slice[0]));
    keeper->count += count;
}

static void query_init(struct keeper *keeper,
                       void (*visit)(struct shard_query *, struct transfer *, tick_us))
{
    if (keeper->stage >= AT_KINDS)
        keeper->query = keeper_rows_query(keeper->kinds[keeper->stage - AT_KINDS]);
    else
        keeper->query =
            (struct shard_query){.kind = SHARD_QUERY_TRANSFER, .visit = visit, .found = keeper};
}

static void kinds_begin(struct keeper *keeper, tick_us now)
{
    for (uint32_t i = 0; i < KEEPER_KIND_COUNT; i++)
        keeper->has_kind[i] = keeper_rows_begin(keeper->kinds[i], now);
}

/* What is taken behind this; STAGE_COUNT: a shard has given all. */
static enum keeper_stage stage_behind(const struct keeper *keeper, enum keeper_stage stage)
{
    do {
        stage++;
    } while (stage < STAGE_COUNT && stage >= AT_KINDS && !keeper->has_kind[stage - AT_KINDS]);
    return stage;
}

static void round_save(struct keeper *keeper, tick_us now)
{
    keeper_source_save(keeper->sources);
    keeper_file_save(keeper);
    for (uint32_t i = 0; i < KEEPER_KIND_COUNT; i++) {
        if (keeper->has_kind[i])
            (void)keeper_rows_save(keeper->kinds[i], now);
    }
}

static void keeper_ask(struct keeper *keeper)
{
    keeper->options.query(keeper->options.context, keeper->shard, &keeper->query);
}

void keeper_run(struct keeper *keeper, tick_us now)
{
    if (keeper->is_under_way || now < keeper->next)
        return;
    rows_clear(keeper);
    query_init(keeper, take_slice);
    kinds_begin(keeper, now);
    keeper->is_under_way = true;
    keeper->is_hastened = false;
    keeper->shard = 0;
    keeper_ask(keeper);
}

void keeper_hasten(struct keeper *keeper)
{
    keeper->is_hastened = true;
    keeper->next = 0;
}

tick_us keeper_deadline(const struct keeper *keeper)
{
    return keeper->is_under_way ? TICK_NEVER : keeper->next;
}

bool keeper_owns(const struct keeper *keeper, const struct shard_query *query)
{
    return query == &keeper->query;
}

void keeper_on_reply(struct keeper *keeper, tick_us now)
{
    CHECK(keeper->is_under_way);
    rows_add(keeper);
    if (keeper->query.cursor == UINT64_MAX) {
        keeper->stage = stage_behind(keeper, keeper->stage);
        if (keeper->stage == STAGE_COUNT) {
            keeper->shard += 1;
            keeper->stage = AT_ROWS;
        }
        query_init(keeper, take_slice);
    }
    if (keeper->shard < keeper->options.shard_count) {
        keeper_ask(keeper);
        return;
    }
    keeper->is_under_way = false;
    keeper->next = keeper->is_hastened ? now : now + KEEPER_TIME;
    round_save(keeper, now);
}

/* ---- start and end ---- */

enum err keeper_new(const struct keeper_options *options, struct keeper **ret_keeper)
{
    struct keeper *keeper = calloc(1, sizeof(*keeper));

    if (keeper == NULL)
        return ERR_MEMORY;
    keeper->options = *options;
    keeper->was_empty = true;
    keeper->window_min = SITE_KEEP_WINDOW;
    keeper->sources = keeper_source_new(options->directory);
    bool is_made = keeper->sources != NULL;
    for (uint32_t i = 0; i < KEEPER_KIND_COUNT; i++) {
        keeper->kinds[i] =
            keeper_rows_new(&keeper_kinds[i], options->directory, options->shard_count);
        is_made = is_made && keeper->kinds[i] != NULL;
    }
    if (!is_made) {
        keeper_free(keeper);
        return ERR_MEMORY;
    }
    *ret_keeper = keeper;
    return ERR_OK;
}

void keeper_free(struct keeper *keeper)
{
    rows_clear(keeper);
    keeper_source_free(keeper->sources);
    for (uint32_t i = 0; i < KEEPER_KIND_COUNT; i++)
        keeper_rows_free(keeper->kinds[i]);
    free(keeper);
}

static void limits_load(struct keeper *keeper,
                        void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    keeper_source_load(keeper->sources, keeper->options.shard_count, keeper->options.context, run);
    bool is_whole = keeper_file_load(keeper);
    for (uint32_t i = 0; is_whole && i < keeper->options.shard_count; i++) {
        query_init(keeper, give_back);
        while (keeper->query.cursor != UINT64_MAX)
            run(keeper->options.context, i, &keeper->query);
    }
    rows_clear(keeper);
}

static void parted_load(struct keeper *keeper, bool is_start, keeper_run_fn *run)
{
    for (uint32_t i = 0; i < KEEPER_KIND_COUNT; i++) {
        if (keeper_kinds[i].rest_name != NULL)
            keeper_rows_load(keeper->kinds[i], is_start, keeper->options.context, run);
    }
}

static void rest_load(struct keeper *keeper, bool is_start, keeper_run_fn *run)
{
    limits_load(keeper, run);
    for (uint32_t i = 0; i < KEEPER_KIND_COUNT; i++) {
        if (keeper_kinds[i].rest_name == NULL)
            keeper_rows_load(keeper->kinds[i], is_start, keeper->options.context, run);
        else
            keeper_rows_load_rest(keeper->kinds[i], keeper->options.context, run);
    }
}

void keeper_load(struct keeper *keeper,
                 void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    parted_load(keeper, true, run);
    rest_load(keeper, true, run);
}

void keeper_load_parted(struct keeper *keeper,
                        void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    parted_load(keeper, false, run);
}

void keeper_load_rest(struct keeper *keeper,
                      void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    rest_load(keeper, false, run);
}

/* ---- another process takes our place ---- */

bool keeper_part(struct keeper *keeper,
                 void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    bool is_saved = true;

    CHECK(!keeper->is_under_way);
    for (uint32_t i = 0; i < KEEPER_KIND_COUNT; i++)
        is_saved = keeper_rows_part(keeper->kinds[i], keeper->options.context, run) && is_saved;
    return is_saved;
}

void keeper_part_end(struct keeper *keeper,
                     void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    for (uint32_t i = 0; i < KEEPER_KIND_COUNT; i++)
        keeper_rows_part_end(keeper->kinds[i], keeper->options.context, run);
}

bool keeper_is_under_way(const struct keeper *keeper)
{
    return keeper->is_under_way;
}

void keeper_finish(struct keeper *keeper,
                   void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    rows_clear(keeper);
    keeper->window_min = 0;
    kinds_begin(keeper, TICK_NEVER);
    for (uint32_t i = 0; i < STAGE_COUNT * keeper->options.shard_count; i++) {
        keeper->stage = (enum keeper_stage)(i / keeper->options.shard_count);
        query_init(keeper, take_slice);
        while (keeper->query.cursor != UINT64_MAX) {
            run(keeper->options.context, i % keeper->options.shard_count, &keeper->query);
            rows_add(keeper);
        }
    }
    round_save(keeper, 0);
}

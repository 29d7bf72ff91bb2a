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

static void take_quotas(struct shard_query *query, struct quota_set *quotas, tick_us now)
{
    struct keeper *keeper = query->found;

    keeper_quota_take(keeper->quotas, quotas, keeper->window_min_quota, &query->cursor,
                      now_of(now));
}

static void give_back(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    struct keeper *keeper = query->found;

    site_keep_restore(transfer_sites(transfer), keeper->rows, keeper->count, now_of(now));
    site_keep_restore_orders(transfer_sites(transfer), keeper->orders, keeper->order_count,
                             now_of(now));
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

    if (keeper->stage == AT_QUOTAS) {
        keeper_quota_add(keeper->quotas);
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
    keeper->query =
        (struct shard_query){.kind = SHARD_QUERY_TRANSFER, .visit = visit, .found = keeper};
    if (keeper->stage == AT_QUOTAS)
        keeper->query = (struct shard_query){
            .kind = SHARD_QUERY_QUOTA, .visit_quota = take_quotas, .found = keeper};
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
    keeper->has_quotas = keeper_quota_begin(keeper->quotas, now);
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
        bool is_last = keeper->stage == (keeper->has_quotas ? AT_QUOTAS : AT_ORDERS);
        keeper->shard += is_last;
        keeper->stage = is_last ? AT_ROWS : keeper->stage + 1;
        query_init(keeper, take_slice);
    }
    if (keeper->shard < keeper->options.shard_count) {
        keeper_ask(keeper);
        return;
    }
    keeper->is_under_way = false;
    keeper->next = keeper->is_hastened ? now : now + KEEPER_TIME;
    keeper_source_save(keeper->sources);
    keeper_file_save(keeper);
    if (keeper->has_quotas)
        keeper_quota_save(keeper->quotas, now);
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
    keeper->window_min_quota = QUOTA_KEEP_WINDOW;
    keeper->sources = keeper_source_new(options->directory);
    keeper->quotas = keeper_quota_new(options->directory);
    if (keeper->sources == NULL || keeper->quotas == NULL) {
        keeper_source_free(keeper->sources);
        free(keeper->quotas);
        free(keeper);
        return ERR_MEMORY;
    }
    *ret_keeper = keeper;
    return ERR_OK;
}

void keeper_free(struct keeper *keeper)
{
    rows_clear(keeper);
    keeper_source_free(keeper->sources);
    keeper_quota_free(keeper->quotas);
    free(keeper);
}

static void limits_load(struct keeper *keeper,
                        void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    keeper_source_load(keeper->sources, keeper->options.shard_count, keeper->options.context, run);
    bool is_whole = keeper_file_load(keeper);
    for (uint32_t i = 0; is_whole && i < keeper->options.shard_count; i++) {
        query_init(keeper, give_back);
        run(keeper->options.context, i, &keeper->query);
    }
    rows_clear(keeper);
}

void keeper_load(struct keeper *keeper,
                 void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    keeper_load_quotas(keeper, run);
    keeper_load_rest(keeper, run);
}

void keeper_load_quotas(struct keeper *keeper,
                        void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    keeper_quota_load(keeper->quotas, keeper->options.shard_count, keeper->options.context, run);
}

void keeper_load_rest(struct keeper *keeper,
                      void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    limits_load(keeper, run);
    keeper_quota_load_apart(keeper->quotas, keeper->options.shard_count, keeper->options.context,
                            run);
}

/* ---- another process takes our place ---- */

static void quotas_part(struct shard_query *query, struct quota_set *quotas, tick_us now)
{
    (void)now;
    quota_keep_apart(quotas, *(const bool *)query->found);
    query->cursor = UINT64_MAX;
}

static void shards_part(struct keeper *keeper, bool is_apart,
                        void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    for (uint32_t i = 0; i < keeper->options.shard_count; i++) {
        struct shard_query query = {
            .kind = SHARD_QUERY_QUOTA, .visit_quota = quotas_part, .found = &is_apart};
        run(keeper->options.context, i, &query);
    }
}

static void quotas_take_all(struct keeper *keeper,
                            void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    keeper->stage = AT_QUOTAS;
    for (uint32_t i = 0; i < keeper->options.shard_count; i++) {
        query_init(keeper, take_slice);
        while (keeper->query.cursor != UINT64_MAX) {
            run(keeper->options.context, i, &keeper->query);
            rows_add(keeper);
        }
    }
}

/* Apart first: what is counted while rows are taken counts twice, rather than not at all. */
void keeper_part(struct keeper *keeper,
                 void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    CHECK(!keeper->is_under_way);
    rows_clear(keeper);
    keeper->window_min_quota = 0;
    shards_part(keeper, true, run);
    (void)keeper_quota_begin(keeper->quotas, TICK_NEVER);
    quotas_take_all(keeper, run);
    keeper_quota_save(keeper->quotas, 0);
    keeper_quota_part(keeper->quotas, true);
}

void keeper_part_end(struct keeper *keeper,
                     void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    keeper_quota_part(keeper->quotas, false);
    shards_part(keeper, false, run);
    keeper->window_min_quota = QUOTA_KEEP_WINDOW;
}

bool keeper_is_under_way(const struct keeper *keeper)
{
    return keeper->is_under_way;
}

void keeper_finish(struct keeper *keeper,
                   void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    rows_clear(keeper);
    keeper->window_min = keeper->window_min_quota = 0;
    keeper->has_quotas = keeper_quota_begin(keeper->quotas, TICK_NEVER);
    for (uint32_t i = 0; i < STAGE_COUNT * keeper->options.shard_count; i++) {
        keeper->stage = (enum keeper_stage)(i / keeper->options.shard_count);
        query_init(keeper, take_slice);
        while (keeper->query.cursor != UINT64_MAX) {
            run(keeper->options.context, i % keeper->options.shard_count, &keeper->query);
            rows_add(keeper);
        }
    }
    keeper_source_save(keeper->sources);
    keeper_file_save(keeper);
    keeper_quota_save(keeper->quotas, 0);
}

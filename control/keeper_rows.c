/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file of rows (kept_file.c): what shards count, on its way over a restart.
 *
 * Written in rounds, if anything was counted since it was written last; with shorter windows, and
 * whatever was counted, when this process ends or another one takes its place.
 *
 * In an upgrade the process that leaves writes the file when the other one is to take mail, and
 * what it counts from then on to a second one, `rest_name`, at its end; the other process adds that
 * to what it knows, and removes it. So what was counted before is in both, what each counts
 * meanwhile is its own, and in the end nothing is counted twice or not at all. Until then either
 * one keeps to limits by what it knows: of what the other does meanwhile it learns then.
 *
 * Invariants
 *   1. A shard has its share of the rows that the file may have: who comes first does not use up
 *      that of the others. The order in which a shard gives them is that of their worth.
 *   2. The last round, and a parting, look at everything, whenever the last one was.
 *
 * Limits: form.count_max rows, beyond which the rest is not kept, and the log says so, once. A
 * process that is killed loses what was counted since the last round.
 */
#include "control/keeper_rows.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

#define PATH_SIZE 4200u

struct keeper_rows {
    const struct keeper_kind *kind;
    const char *directory;
    uint32_t shard_count;
    tick_us next;
    bool is_whole;                   /* this round is of all windows, and is written in any case */
    bool is_parting;                 /* what shards are told */
    bool is_start;                   /* what is given back: by a process that had ended */
    bool is_apart;                   /* another process goes on with the file */
    bool was_empty;                  /* or is not there */
    bool was_cut;                    /* and the log knows */
    uint64_t changes, changes_saved; /* of all shards */
    uint32_t count, capacity, share_used;
    uint8_t *rows;
    uint32_t slice_count;
    uint8_t *slice;
};

static void rows_clear(struct keeper_rows *rows)
{
    free(rows->rows);
    rows->rows = NULL;
    rows->count = rows->capacity = 0;
    rows->changes = 0;
}

static size_t octets_of(const struct keeper_rows *rows, uint32_t count)
{
    return (size_t)count * rows->kind->form.row_size;
}

/* ---- on the shards ---- */

struct keeper_rows *keeper_rows_of(const struct shard_query *query)
{
    return query->found;
}

struct tick_now keeper_rows_now(tick_us tick)
{
    const struct tick_source *clock = tick_source_system();

    return (struct tick_now){tick, clock->wall(clock->context)};
}

void *keeper_rows_slice(struct keeper_rows *rows)
{
    return rows->slice;
}

void keeper_rows_taken(struct keeper_rows *rows, uint32_t count, uint64_t changes)
{
    CHECK(count <= KEEPER_ROWS_SLICE);
    rows->slice_count = count;
    rows->changes += changes;
}

tick_us keeper_rows_window_min(const struct keeper_rows *rows, tick_us in_rounds)
{
    return rows->is_whole ? 0 : in_rounds;
}

bool keeper_rows_is_rest(const struct keeper_rows *rows)
{
    return rows->is_apart;
}

bool keeper_rows_is_parting(const struct keeper_rows *rows)
{
    return rows->is_parting;
}

bool keeper_rows_is_start(const struct keeper_rows *rows)
{
    return rows->is_start;
}

const void *keeper_rows_next(struct shard_query *query, uint32_t *ret_count)
{
    const struct keeper_rows *rows = query->found;
    uint32_t from = (uint32_t)query->cursor, left = rows->count - from;

    CHECK(from < rows->count);
    *ret_count = left < KEEPER_ROWS_SLICE ? left : KEEPER_ROWS_SLICE;
    query->cursor = *ret_count == left ? UINT64_MAX : from + *ret_count;
    return rows->rows + octets_of(rows, from);
}

/* ---- rounds ---- */

struct shard_query keeper_rows_query(struct keeper_rows *rows)
{
    struct shard_query query = rows->kind->take;

    query.found = rows;
    rows->share_used = 0;
    return query;
}

bool keeper_rows_begin(struct keeper_rows *rows, tick_us now)
{
    rows->is_whole = now == TICK_NEVER;
    if (!rows->is_whole && (now < rows->next || rows->is_apart))
        return false;
    rows_clear(rows);
    return true;
}

/* False: there is no memory. */
static bool rows_grow(struct keeper_rows *rows, uint32_t count)
{
    if (rows->count + count <= rows->capacity)
        return true;
    uint32_t capacity = rows->count + count + KEEPER_ROWS_SLICE;
    uint8_t *more = reallocarray(rows->rows, capacity, rows->kind->form.row_size);
    if (more == NULL)
        return false;
    rows->rows = more;
    rows->capacity = capacity;
    return true;
}

void keeper_rows_add(struct keeper_rows *rows, struct shard_query *query)
{
    uint32_t share = rows->kind->form.count_max / rows->shard_count;
    uint32_t count = rows->slice_count, room = share - rows->share_used;

    if (count > room && !rows->was_cut)
        log_line(LOG_WARNING, "%s=%s: %s", rows->kind->form.name, rows->directory, rows->kind->cut);
    rows->was_cut = rows->was_cut || count > room;
    if (count > room)
        query->cursor = UINT64_MAX;
    count = count < room ? count : room;
    if (count == 0 || !rows_grow(rows, count))
        return;
    memcpy(rows->rows + octets_of(rows, rows->count), rows->slice, octets_of(rows, count));
    rows->count += count;
    rows->share_used += count;
}

static struct kept_form rest_form(const struct keeper_rows *rows)
{
    struct kept_form form = rows->kind->form;

    form.name = rows->kind->rest_name;
    return form;
}

bool keeper_rows_save(struct keeper_rows *rows, tick_us now)
{
    const struct keeper_kind *kind = rows->kind;
    struct kept_form form = rows->is_apart ? rest_form(rows) : kind->form;
    bool is_other = rows->is_whole || rows->changes != rows->changes_saved;

    rows->next = now + kind->round_time * (1 + rows->count / kind->rows_per_time);
    if (!is_other || (rows->count == 0 && (rows->is_apart || rows->was_empty)))
        return true;
    if (!kept_file_write(rows->directory, &form, rows->rows, rows->count)) {
        log_line(LOG_WARNING, "%s=%s: what was counted could not be kept: %s", form.name,
                 rows->directory, strerror(errno));
        return false;
    }
    rows->changes_saved = rows->changes;
    rows->was_empty = rows->count == 0;
    return true;
}

/* ---- reading ---- */

/* False: there is no such file. */
static bool file_load(struct keeper_rows *rows, const struct kept_form *form)
{
    void *found = NULL;
    uint32_t count = 0;
    enum kept_state state = kept_file_read(rows->directory, form, &found, &count);

    rows_clear(rows);
    if (state == KEPT_DAMAGED)
        log_line(LOG_WARNING, "%s=%s: is damaged: %s", form->name, rows->directory,
                 rows->kind->lost);
    if (state == KEPT_WHOLE) {
        rows->rows = found;
        rows->count = rows->capacity = count;
    }
    return state != KEPT_ABSENT;
}

static void rows_give(struct keeper_rows *rows, void *context, keeper_run_fn *run)
{
    if (rows->kind->reduce != NULL)
        rows->kind->reduce(rows->rows, rows->count, rows->shard_count);
    for (uint32_t i = 0; rows->count > 0 && i < rows->shard_count; i++) {
        struct shard_query query = rows->kind->give;
        query.found = rows;
        while (query.cursor != UINT64_MAX)
            run(context, i, &query);
    }
    rows_clear(rows);
}

void keeper_rows_load(struct keeper_rows *rows, bool is_start, void *context, keeper_run_fn *run)
{
    rows->is_start = is_start;
    if (!file_load(rows, &rows->kind->form))
        return;
    rows->was_empty = false;
    rows_give(rows, context, run);
}

static void rest_remove(const struct keeper_rows *rows)
{
    char path[PATH_SIZE];

    (void)snprintf(path, sizeof(path), "%s/%s", rows->directory, rows->kind->rest_name);
    (void)unlink(path);
}

void keeper_rows_load_rest(struct keeper_rows *rows, void *context, keeper_run_fn *run)
{
    if (rows->kind->rest_name == NULL)
        return;
    struct kept_form form = rest_form(rows);
    if (!file_load(rows, &form))
        return;
    rows_give(rows, context, run);
    rest_remove(rows);
}

/* ---- another process takes our place ---- */

static void shards_part(struct keeper_rows *rows, bool is_parting, void *context,
                        keeper_run_fn *run)
{
    rows->is_parting = is_parting;
    for (uint32_t i = 0; i < rows->shard_count; i++) {
        struct shard_query query = rows->kind->part;
        query.found = rows;
        run(context, i, &query);
    }
}

static void rows_take_all(struct keeper_rows *rows, void *context, keeper_run_fn *run)
{
    for (uint32_t i = 0; i < rows->shard_count; i++) {
        struct shard_query query = keeper_rows_query(rows);
        while (query.cursor != UINT64_MAX) {
            run(context, i, &query);
            keeper_rows_add(rows, &query);
        }
    }
}

/* Apart first: what is counted while rows are taken counts twice, rather than not at all. */
bool keeper_rows_part(struct keeper_rows *rows, void *context, keeper_run_fn *run)
{
    if (rows->kind->rest_name == NULL)
        return true;
    shards_part(rows, true, context, run);
    (void)keeper_rows_begin(rows, TICK_NEVER);
    rows_take_all(rows, context, run);
    bool is_saved = keeper_rows_save(rows, 0);
    rows->is_apart = true;
    rest_remove(rows); /* of a process that was killed */
    return is_saved;
}

void keeper_rows_part_end(struct keeper_rows *rows, void *context, keeper_run_fn *run)
{
    if (rows->kind->rest_name == NULL)
        return;
    rows->is_apart = false;
    shards_part(rows, false, context, run);
}

/* ---- start and end ---- */

struct keeper_rows *keeper_rows_new(const struct keeper_kind *kind, const char *directory,
                                    uint32_t shard_count)
{
    struct keeper_rows *rows = calloc(1, sizeof(*rows));

    if (rows == NULL)
        return NULL;
    rows->kind = kind;
    rows->directory = directory;
    rows->shard_count = shard_count;
    rows->was_empty = true;
    rows->slice = calloc(KEEPER_ROWS_SLICE, kind->form.row_size);
    if (rows->slice == NULL) {
        free(rows);
        return NULL;
    }
    return rows;
}

void keeper_rows_free(struct keeper_rows *rows)
{
    if (rows == NULL)
        return;
    rows_clear(rows);
    free(rows->slice);
    free(rows);
}

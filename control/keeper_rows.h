/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_KEEPER_ROWS_H
#define CONTROL_KEEPER_ROWS_H

#include "control/kept_file.h"
#include "control/shard.h"

/*
 * One of the keeper's files of rows, whatever they are about: taken from the shards in slices,
 * written as a whole, read back and given to all shards. What rows mean is their kind's
 * (keeper_kinds.c). The keeper says when. Control thread, but for what a kind does on a shard's.
 */
#define KEEPER_ROWS_SLICE 4096u

struct keeper_rows;

struct keeper_kind {
    struct kept_form form;  /* the file */
    const char *rest_name;  /* another file, of what was counted since keeper_rows_part(); NULL: of
                               these nothing is, they are written at the end */
    const char *lost;       /* what follows when it is damaged */
    const char *cut;        /* what follows when there are too many rows */
    tick_us round_time;     /* between two rounds, and ... */
    uint32_t rows_per_time; /* ... once more for each so many rows */
    /* All rows that were read, before shards get them; NULL: as they are. */
    void (*reduce)(void *rows, uint32_t count, uint32_t shard_count);
    /* Queries for a shard: rows are taken; given back; kept apart from now on, or no more. */
    struct shard_query take, give, part;
};

typedef void keeper_run_fn(void *context, uint32_t shard, struct shard_query *query);

/** NULL: no memory. `directory` is borrowed. */
struct keeper_rows *keeper_rows_new(const struct keeper_kind *kind, const char *directory,
                                    uint32_t shard_count);
void keeper_rows_free(struct keeper_rows *rows);
/** Read the file, and give it to all shards; `run` as for keeper_load(). `is_start`: not from a
 * process that is still there. */
void keeper_rows_load(struct keeper_rows *rows, bool is_start, void *context, keeper_run_fn *run);
/** As it, when shards count already: what another process kept apart, which is gone then. */
void keeper_rows_load_rest(struct keeper_rows *rows, void *context, keeper_run_fn *run);
/** The query that asks a shard for rows. */
struct shard_query keeper_rows_query(struct keeper_rows *rows);
/** A round begins, TICK_NEVER: the last one, with all that is known. False: not yet. */
bool keeper_rows_begin(struct keeper_rows *rows, tick_us now);
/** Back from a shard: keep what was taken. The query is at its end when its share is used up. */
void keeper_rows_add(struct keeper_rows *rows, struct shard_query *query);
/** All shards were asked: write it, if it is another one than before. False: that failed, and the
 * log knows. */
bool keeper_rows_save(struct keeper_rows *rows, tick_us now);
/** Another process goes on with the file, which is written now. From here on, until
 * keeper_rows_part_end(), no round begins but the last one, which writes what is counted from here
 * on, to the other file. No effect on kinds without one. False: it could not be written; end it. */
bool keeper_rows_part(struct keeper_rows *rows, void *context, keeper_run_fn *run);
void keeper_rows_part_end(struct keeper_rows *rows, void *context, keeper_run_fn *run);

/* ---- for a kind's queries, on a shard's thread ---- */

/** Of a query. */
struct keeper_rows *keeper_rows_of(const struct shard_query *query);
struct tick_now keeper_rows_now(tick_us tick);
/** Room for KEEPER_ROWS_SLICE rows. */
void *keeper_rows_slice(struct keeper_rows *rows);
/** So many are there now. `changes`: a number that is another one when the shard's rows are. */
void keeper_rows_taken(struct keeper_rows *rows, uint32_t count, uint64_t changes);
/** Shorter windows are not wanted; only what was kept apart is; from now on it is. */
tick_us keeper_rows_window_min(const struct keeper_rows *rows, tick_us in_rounds);
bool keeper_rows_is_rest(const struct keeper_rows *rows);
bool keeper_rows_is_parting(const struct keeper_rows *rows);
/** What is given back was kept by a process that had ended. */
bool keeper_rows_is_start(const struct keeper_rows *rows);
/** The next KEEPER_ROWS_SLICE of what was read, for a `give`; the query's cursor goes on. */
const void *keeper_rows_next(struct shard_query *query, uint32_t *ret_count);

#endif

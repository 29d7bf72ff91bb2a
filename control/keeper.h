/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_KEEPER_H
#define CONTROL_KEEPER_H

#include "control/shard.h"

/*
 * Keeps what the long windows of sites have counted, and the orders that stand, in a file, `limits`
 * in the spool's directory, so that a restart forgets nothing: read before the shards start,
 * written every KEEPER_TIME, at every order, and once more, then with short windows as well, when
 * they have ended. Likewise, in files of their own, what bars sources (keeper_source.h), what users
 * sent, what client networks did, and what sites taught (keeper_kinds.h). Control thread only.
 */
#define KEEPER_TIME       TICK_S(2)
#define KEEPER_ROWS_MAX   262144u
#define KEEPER_ORDERS_MAX 65536u

struct keeper;

struct keeper_options {
    const char *directory;
    uint32_t shard_count;
    void *context;
    /* Send to a shard; keeper_on_reply() follows. */
    void (*query)(void *context, uint32_t shard, struct shard_query *query);
};

/** Errors: ERR_MEMORY. */
enum err keeper_new(const struct keeper_options *options, struct keeper **ret_keeper) MUST_CHECK;
void keeper_free(struct keeper *keeper);
/**
 * Read the file. A missing one is none; one that is damaged is said so in the log and taken for
 * none. `run` answers a query at once (no shard runs yet).
 */
void keeper_load(struct keeper *keeper,
                 void (*run)(void *context, uint32_t shard, struct shard_query *query));
/** Only what the process that takes mail counts, of users and client networks: another one still
 * delivers. `run` returns when the query is answered. */
void keeper_load_parted(struct keeper *keeper,
                        void (*run)(void *context, uint32_t shard, struct shard_query *query));
/** The rest, when that process has ended, with what it counted of those meanwhile. */
void keeper_load_rest(struct keeper *keeper,
                      void (*run)(void *context, uint32_t shard, struct shard_query *query));
/** What users and client networks did is written now, for a process that takes our place, and what
 * they still do here is kept apart for it. keeper_is_under_way() is false. False: it could not be
 * written, and keeper_part_end() is to follow. */
bool keeper_part(struct keeper *keeper,
                 void (*run)(void *context, uint32_t shard, struct shard_query *query));
/** That process did not come. */
void keeper_part_end(struct keeper *keeper,
                     void (*run)(void *context, uint32_t shard, struct shard_query *query));
/** A query is with a shard. */
bool keeper_is_under_way(const struct keeper *keeper);
/** Begin another round when it is time. */
void keeper_run(struct keeper *keeper, tick_us now);
/** Something has changed that must not wait: the next round begins now, or as soon as this one
 * ends.
 */
void keeper_hasten(struct keeper *keeper);
tick_us keeper_deadline(const struct keeper *keeper);
/** Is this reply ours? */
bool keeper_owns(const struct keeper *keeper, const struct shard_query *query);
void keeper_on_reply(struct keeper *keeper, tick_us now);
/** The last round, all shards having ended; `run` as in keeper_load(). */
void keeper_finish(struct keeper *keeper,
                   void (*run)(void *context, uint32_t shard, struct shard_query *query));

#endif

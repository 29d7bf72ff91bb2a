/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_KEEPER_QUOTA_H
#define CONTROL_KEEPER_QUOTA_H

#include "control/shard.h"

/*
 * The keeper's part about quotas of users: what their long windows have counted, in a file of its
 * own, `quotas` in the spool's directory. The keeper says when.
 */
#define KEEPER_QUOTA_ROWS_MAX 262144u

struct keeper_quota;

/** NULL: no memory. `directory` is borrowed. */
struct keeper_quota *keeper_quota_new(const char *directory);
void keeper_quota_free(struct keeper_quota *keeper);
/** Read the file, and give it to all shards; as keeper_load(). */
void keeper_quota_load(struct keeper_quota *keeper, uint32_t shard_count, void *context,
                       void (*run)(void *context, uint32_t shard, struct shard_query *query));
/** As it, when shards count already: and what another process kept apart (keeper_quota_part()),
 * which is gone then. */
void keeper_quota_load_apart(struct keeper_quota *keeper, uint32_t shard_count, void *context,
                             void (*run)(void *context, uint32_t shard, struct shard_query *query));
/** Another process goes on with the file as it is now. From here on, until it is false again, no
 * round begins, but that of the end writes what is counted from here on, to a file of its own. */
void keeper_quota_part(struct keeper_quota *keeper, bool is_apart);
/** A round begins. False: not yet, a large file is not written as often. */
bool keeper_quota_begin(struct keeper_quota *keeper, tick_us now);
/** On a shard's thread: some of what is counted there; the cursor is a query's. */
void keeper_quota_take(struct keeper_quota *keeper, struct quota_set *quotas, tick_us window_min,
                       uint64_t *cursor, struct tick_now now);
/** Back from there: keep what was taken. */
void keeper_quota_add(struct keeper_quota *keeper);
/** All shards were asked: write it, if anything was counted since. */
void keeper_quota_save(struct keeper_quota *keeper, tick_us now);

#endif

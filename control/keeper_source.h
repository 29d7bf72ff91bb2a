/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_KEEPER_SOURCE_H
#define CONTROL_KEEPER_SOURCE_H

#include "control/shard.h"

/*
 * The keeper's part about sources: what suspends them, and makes them rest, in a file of its own,
 * `sources` in the spool's directory. The keeper says when.
 */
struct keeper_source;

/** NULL: no memory. `directory` is borrowed. */
struct keeper_source *keeper_source_new(const char *directory);
void keeper_source_free(struct keeper_source *keeper);
/** Read the file, and give it to all shards; as keeper_load(). */
void keeper_source_load(struct keeper_source *keeper, uint32_t shard_count, void *context,
                        void (*run)(void *context, uint32_t shard, struct shard_query *query));
/** On a shard's thread: what it knows; all know the same. */
void keeper_source_take(struct keeper_source *keeper, const struct source_set *sources,
                        struct tick_now now);
/** Write what was taken, if it is another than before. */
void keeper_source_save(struct keeper_source *keeper);

#endif

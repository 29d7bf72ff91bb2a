/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_PLANE_H
#define CONTROL_ADMIN_PLANE_H

#include "control/json_text.h"
#include "control/shard.h"

/*
 * Verbs of the control socket that look at the network plane of every shard: `flows` (connections
 * of the engine) and `counters` (what engine and ports counted). Shards fill plain rows; JSON is
 * made here, by the control thread.
 */

/** True when `verb` is one of them: the query is then ready to be sent, its memory allocated
 * (`found` NULL when there was none). */
bool admin_plane_prepare(const char *verb, struct shard_query *query);
/** What the shard found, as rows, at most `limit`. Returns how many. */
uint32_t admin_plane_add(struct json_text *out, const struct shard_query *query, uint32_t shard,
                         uint64_t limit);
/** Free what prepare allocated; fine for other queries, too. */
void admin_plane_end(struct shard_query *query);

#endif

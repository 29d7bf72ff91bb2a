/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_RELOAD_H
#define CONTROL_ADMIN_RELOAD_H

#include <jansson.h>

#include "control/shard.h"

/*
 * The end of a reload, for whoever asked: the new settings are on their way to all shards when it
 * begins.
 */

/** Ask all shards, behind the new settings; then `text` is the answer. False: no memory. */
bool admin_reload_prepare(struct shard_query *query, const char *text);
/** Was the query made here? */
bool admin_reload_owns(const struct shard_query *query);
/** All shards have answered. Returns NULL: there is no more that could be refused. */
const char *admin_reload_finish(json_t *answer, const struct shard_query *query);
void admin_reload_end(struct shard_query *query);

#endif

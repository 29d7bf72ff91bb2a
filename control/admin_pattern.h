/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_PATTERN_H
#define CONTROL_ADMIN_PATTERN_H

#include <jansson.h>

#include "control/shard.h"

/*
 * `site patterns`: how often each reply pattern has matched, on all shards together.
 */
/** Is `verb` that? Then found is NULL without memory, and admin_pattern_end() frees it. */
bool admin_pattern_prepare(const char *verb, struct shard_query *query);
bool admin_pattern_owns(const struct shard_query *query);
/** All shards have been asked: a row of each pattern. */
void admin_pattern_finish(json_t *answer, const struct shard_query *query);
void admin_pattern_end(struct shard_query *query);

#endif

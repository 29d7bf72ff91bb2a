/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_QUOTA_H
#define CONTROL_ADMIN_QUOTA_H

#include <jansson.h>

#include "control/shard.h"

/*
 * What a user has sent, for operators: `user quota`, with the user's name as `id`.
 */

#define ADMIN_QUOTA_WHY_SIZE 32u

/** Is `verb` it? Then the query may be sent, unless its `found` is NULL: there was no name, which
 * is told, or no memory, which is not; admin_quota_end() frees it. */
bool admin_quota_prepare(const char *verb, const json_t *request, struct shard_query *query,
                         char ret_why[ADMIN_QUOTA_WHY_SIZE]);
/** Was the query made here? */
bool admin_quota_owns(const struct shard_query *query);
/** All shards have answered: a row for each window into the answer. */
void admin_quota_finish(json_t *answer, const struct shard_query *query);
void admin_quota_end(struct shard_query *query);

#endif

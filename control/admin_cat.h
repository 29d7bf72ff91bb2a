/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_CAT_H
#define CONTROL_ADMIN_CAT_H

#include <jansson.h>

#include "control/shard_cat.h"

/*
 * `queue cat` on the control socket: a line for the message, one for each recipient, one for each
 * piece of its octets (base64), then the answer.
 */
#define ADMIN_CAT_WHY_SIZE 256u

struct admin_client;

/** From a request. The query's `cat` is freed by admin_queue_end(). False: why, for people. */
bool admin_cat_prepare(const json_t *request, struct shard_query *query,
                       char ret_why[ADMIN_CAT_WHY_SIZE]) MUST_CHECK;
/** Pass on what a look has found. False: no memory. */
bool admin_cat_add(struct admin_client *client, struct shard_query *query) MUST_CHECK;
/** All that was asked for was told. False for queries of other kinds. */
bool admin_cat_is_over(const struct shard_query *query);
void admin_cat_finish(json_t *answer, const struct shard_query *query);

#endif

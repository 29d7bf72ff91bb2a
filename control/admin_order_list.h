/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_ORDER_LIST_H
#define CONTROL_ADMIN_ORDER_LIST_H

#include <jansson.h>

#include "control/shard.h"

/* `queue orders`: all that operators ordered and that is in force, about mail and about sites. */

/** Is the verb ours? Then `found` is NULL when there was no memory; admin_order_list_end() frees
 * it.
 */
bool admin_order_list_prepare(const char *verb, struct shard_query *query);
bool admin_order_list_owns(const struct shard_query *query);
void admin_order_list_end(struct shard_query *query);
/** The rows, into the answer. */
void admin_order_list_finish(json_t *answer, const struct shard_query *query);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_ORDER_H
#define CONTROL_ADMIN_ORDER_H

#include <jansson.h>

#include "control/admin_queue.h"

/*
 * Orders about mail on the control socket: hold, release, retry, bounce, delete, reroute; those
 * that stand; and `queue cancel`, which ends an order of any kind by its number.
 */

/** As admin_queue_prepare(); admin_order_end() frees its memory. */
enum admin_queue_kind admin_order_prepare(const char *verb, const json_t *request,
                                          struct shard_query *query,
                                          char ret_why[ADMIN_QUEUE_WHY_SIZE]);
/** Is this query's `found` ours? */
bool admin_order_owns(const struct shard_query *query);
void admin_order_end(struct shard_query *query);
/** Does it walk over the queue? */
bool admin_order_is_walk(const char *verb);
/** Must all mail of earlier runs be in the queue before it is carried out? */
bool admin_order_awaits_mail(const char *verb, const json_t *request);
/** Its number, and who gives it. */
void admin_order_number(struct shard_query *query, uint32_t id, uint32_t uid);
/** Is it in the round that changes what stands? That goes to all shards, whoever waits for it. */
bool admin_order_is_changing(const struct shard_query *query);
/** All shards have answered. True: they are asked once more, from the first one on. */
bool admin_order_next_round(struct shard_query *query);
/** What it did, into the answer. NULL, or why it is refused after all. */
const char *admin_order_finish(json_t *answer, const struct shard_query *query);
/** One line of the log for every order, however it ended. */
void admin_order_log(const struct shard_query *query, const char *filter);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_SHARD_QUERY_H
#define CONTROL_SHARD_QUERY_H

#include "control/shard.h"

/** Answer a query about the queue, on the shard's thread, in one bounded look. */
void shard_query_queue(struct qmgr *queue, uint32_t shard, struct shard_query *query,
                       struct tick_now now);

#endif

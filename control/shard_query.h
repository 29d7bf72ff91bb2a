/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_SHARD_QUERY_H
#define CONTROL_SHARD_QUERY_H

#include "control/shard.h"

/** True: an order is to be carried out later, for the writer of records is behind, and each
 * recipient of an order is one more, which must not push out what happens to mail. A writer that
 * stands still stops no order: it is waited for a second, and not again before it has come up. */
bool shard_query_yields(struct shard_query *query, const struct record_sink *records, tick_us now);
/** Answer a query about the queue, on the shard's thread, in one bounded look. */
void shard_query_queue(struct qmgr *queue, uint32_t shard, struct shard_query *query,
                       struct tick_now now);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_ANSWER_H
#define CONTROL_ADMIN_ANSWER_H

#include <jansson.h>

#include "control/record_writer.h"
#include "control/shard.h"
#include "control/webhook.h"

/** Add a shard's numbers to the object: groups of sums over all shards. */
void admin_status_add(json_t *answer, const struct shard_status *status);
/** What belongs to the process: version, pid, uptime, cores, records. */
void admin_status_finish(json_t *answer, uint32_t shard_count, tick_us uptime,
                         const struct record_writer_stats *records);
/** What became of each webhook, and of all together. */
void admin_status_webhooks(json_t *answer, const struct webhook_set *webhooks);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_ANSWER_H
#define CONTROL_ADMIN_ANSWER_H

#include "control/json_text.h"
#include "control/record_writer.h"
#include "control/shard.h"
#include "control/webhook.h"

/* Numbers of the shards, added up. */
struct admin_status;

/** Heap, never NULL. */
struct admin_status *admin_status_new(void);
/** NULL is legal. */
void admin_status_free(struct admin_status *status);
void admin_status_add(struct admin_status *sums, const struct shard_status *status);
/** As members of an object: groups of sums over all shards, latencies, and what each core has. */
void admin_status_write(const struct admin_status *sums, struct json_text *text);
/** What belongs to the process: version, pid, uptime, cores, records. */
void admin_status_finish(json_t *answer, uint32_t shard_count, tick_us uptime,
                         const struct record_writer_stats *records);
/** What became of each webhook, and of all together. */
void admin_status_webhooks(json_t *answer, const struct webhook_set *webhooks);

#endif

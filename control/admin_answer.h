/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_ANSWER_H
#define CONTROL_ADMIN_ANSWER_H

#include "control/json_text.h"
#include "control/record_writer.h"
#include "control/status_sums.h"
#include "control/webhook.h"

/* Numbers of the shards, added up. */
struct admin_status;
/* What is the same in each answer. */
struct admin_status_texts;

/** Heap, never NULL; and so below. */
struct admin_status_texts *admin_status_texts_new(void);
/** NULL is legal, here and below. */
void admin_status_texts_free(struct admin_status_texts *texts);
struct admin_status *admin_status_new(void);
void admin_status_free(struct admin_status *status);
/** Where a shard tells its numbers. */
struct shard_status *admin_status_room(struct admin_status *status);
/** Add what a shard told. */
void admin_status_add(struct admin_status *status);
const struct status_sums *admin_status_sums(const struct admin_status *status);
/** As members of an object that has others before: groups of sums over all shards, latencies, and
 * what each core has. */
void admin_status_write(const struct admin_status *status, const struct admin_status_texts *texts,
                        struct json_text *text);
/** What belongs to the process: version, pid, uptime, cores, records. */
void admin_status_finish(struct admin_status_texts *texts, uint32_t shard_count, tick_us uptime,
                         const struct record_writer_stats *records, struct json_text *text);

/* What became of all webhooks together. */
struct admin_webhooks {
    uint32_t count, failing, gone;
    uint64_t batches, events, failures, waiting, gaps;
};
struct admin_webhooks admin_status_webhooks(const struct webhook_set *webhooks);
/** Of each, and of all together. */
void admin_status_webhooks_write(const struct webhook_set *webhooks, struct json_text *text);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_SUMMARY_H
#define CONTROL_ADMIN_SUMMARY_H

#include "control/json_text.h"
#include "control/shard.h"

/* The answer to `queue summary`: what the shards counted by group, added up. */
#define ADMIN_SUMMARY_GROUP_MAX 100000u /* what comes beyond is one group of its own */

struct admin_summary;

/** Heap, never NULL. */
struct admin_summary *admin_summary_new(void);
/** NULL is legal. */
void admin_summary_free(struct admin_summary *summary);
/** Add what a shard counted. */
void admin_summary_add(struct admin_summary *summary, const struct shard_query *query);
/** The largest `limit` groups, and the sums of all, as members of an object; `by`: how they are
 * called. */
void admin_summary_write(const struct admin_summary *summary, const char *by, uint64_t limit,
                         struct json_text *text);

#endif

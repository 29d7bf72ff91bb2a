/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_SUMMARY_H
#define CONTROL_ADMIN_SUMMARY_H

#include "control/json_text.h"
#include "control/shard.h"
#include "queue/keyed_hash.h"

/* The answer to `queue summary`: what the shards counted by group, added up. */
#define ADMIN_SUMMARY_GROUP_MAX 100000u /* what comes beyond is one group of its own */

struct admin_summary;

struct admin_summary_sums { /* of all groups */
    uint32_t group_count;   /* that have mail: one that has none may be known for a while */
    uint64_t total, ages[QMGR_AGE_BUCKET_COUNT];
};

struct admin_summary_row {
    uint64_t total, begins; /* begins: of the name, to order by */
    const char *name;       /* terminated, and as it is shown */
    const uint64_t *ages;
};

/** Heap, never NULL. `hash`: with a key that nobody knows. */
struct admin_summary *admin_summary_new(const struct keyed_hash *hash);
/** NULL is legal. */
void admin_summary_free(struct admin_summary *summary);
/** Add what a shard counted. */
void admin_summary_add(struct admin_summary *summary, const struct shard_query *query);
/** All is added: of the groups together. */
struct admin_summary_sums admin_summary_sum(struct admin_summary *summary);
/** After that: the groups with the most mail, these first; how many there are. What they borrow is
 * valid as long as nothing is added. */
uint32_t admin_summary_largest(const struct admin_summary *summary, uint32_t max,
                               struct admin_summary_row *ret_rows);
/** The largest `limit` groups, and the sums of all, as members of an object; `by`: how they are
 * called. Returns whether there are more groups. */
bool admin_summary_write(struct admin_summary *summary, const char *by, uint64_t limit,
                         struct json_text *text);

#endif

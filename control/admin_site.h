/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_SITE_H
#define CONTROL_ADMIN_SITE_H

#include "control/json_text.h"
#include "control/shard.h"

/*
 * `site show [NAME]` of the control socket: the sites each shard knows, their limits, what is used
 * of them now, and which rate binds. A row is of one core; the row with "home": true knows of all.
 */

/** True when `verb` is one of them: the query is then ready to be sent, its memory allocated
 * (`found` NULL when there was none). */
bool admin_site_prepare(const char *verb, const json_t *request, struct shard_query *query);
/** What the shard found, as rows, at most `limit`. Returns how many. */
uint32_t admin_site_add(struct json_text *out, struct shard_query *query, uint32_t shard,
                        uint64_t limit);
/** What is sent to a site before its turn. New reference. */
json_t *admin_site_ahead(const struct client_ahead_view *ahead, tick_us now);
/** Orders as rows; NULL: none. New reference. */
json_t *admin_site_orders(const struct site_order *orders, uint32_t count, tick_us now);
/** "few at first" */
const char *admin_site_learn_reason(enum site_learn_reason reason);
/** Free what prepare allocated. */
void admin_site_end(struct shard_query *query);

#endif

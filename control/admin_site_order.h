/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_SITE_ORDER_H
#define CONTROL_ADMIN_SITE_ORDER_H

#include <jansson.h>

#include "control/shard.h"

/*
 * Orders of operators about sites: `site suspend`, `site set`, `site resume`.
 */
enum admin_site_kind { ADMIN_SITE_NONE, ADMIN_SITE_READY, ADMIN_SITE_REFUSED };

#define ADMIN_SITE_WHY_SIZE 256u

/** Is `verb` one of them? READY: the query may be sent once it has a number, and
 * admin_site_order_end() frees its memory. REFUSED: why, for people. */
enum admin_site_kind admin_site_order_prepare(const char *verb, const json_t *request,
                                              struct shard_query *query,
                                              char ret_why[ADMIN_SITE_WHY_SIZE]);
/** Was the query made here? */
bool admin_site_order_owns(const struct shard_query *query);
void admin_site_order_number(struct shard_query *query, uint32_t id);
/** What became of it, into the answer, and one line of the log. False: no site has that name, or no
 * order that number. */
bool admin_site_order_finish(json_t *answer, const struct shard_query *query);
void admin_site_order_end(struct shard_query *query);

#endif

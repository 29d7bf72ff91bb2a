/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_EXPLAIN_H
#define CONTROL_ADMIN_EXPLAIN_H

#include <jansson.h>

#include "control/shard.h"

/*
 * `explain NAME` of the control socket: all limits in force at the site of that name, from each
 * source, and which one binds; what waits for it, by class; and where the mail of a domain of that
 * name goes. It adds up over the shards.
 */

/** True when it is the verb: the query is then ready to be sent, its memory allocated (`found` NULL
 * when there was none). */
bool admin_explain_prepare(const char *verb, const json_t *request, struct shard_query *query);
/** Was the query made here? */
bool admin_explain_owns(const struct shard_query *query);
/** What all shards told, into the answer. False: nothing of that name is known. */
bool admin_explain_finish(json_t *answer, const struct shard_query *query);
void admin_explain_end(struct shard_query *query);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_PROBE_H
#define CONTROL_ADMIN_PROBE_H

#include <jansson.h>

#include "control/shard.h"

/*
 * `route ADDRESS` and `dns lookup NAME` of the control socket: where mail would go now, and by
 * what. One shard is asked; what its cache does not have is asked of DNS, as for mail.
 */
#define ADMIN_PROBE_WHY_SIZE 160u

enum admin_probe_kind { ADMIN_PROBE_NONE, ADMIN_PROBE_READY, ADMIN_PROBE_REFUSED };

/** Is it one of the verbs, and is what it is about a name? With READY the query is ready to be
 * sent. */
enum admin_probe_kind admin_probe_prepare(const char *verb, const json_t *request,
                                          struct shard_query *query,
                                          char ret_why[ADMIN_PROBE_WHY_SIZE]);
/** Was the query made here? */
bool admin_probe_owns(const struct shard_query *query);
/** What was found, into the answer. False: the resolvers are too busy. */
bool admin_probe_finish(json_t *answer, const struct shard_query *query);
void admin_probe_end(struct shard_query *query);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_SOURCE_H
#define CONTROL_ADMIN_SOURCE_H

#include <jansson.h>

#include "control/shard.h"

/*
 * Sources, for operators: `source show`, `source suspend`, `source resume`. A row is of one core.
 */
enum admin_source_kind { ADMIN_SOURCE_NONE, ADMIN_SOURCE_READY, ADMIN_SOURCE_REFUSED };

#define ADMIN_SOURCE_WHY_SIZE 256u

/** Is `verb` one of them? READY: the query may be sent, and admin_source_end() frees its memory.
 * REFUSED: why, for people. */
enum admin_source_kind admin_source_prepare(const char *verb, const json_t *request,
                                            struct shard_query *query,
                                            char ret_why[ADMIN_SOURCE_WHY_SIZE]);
/** Was the query made here? */
bool admin_source_owns(const struct shard_query *query);
/** All shards have answered: rows into the answer, and a line of the log for what was changed.
 * False: there is no such source. */
bool admin_source_finish(json_t *answer, const struct shard_query *query);
void admin_source_end(struct shard_query *query);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a reload. Messages to a shard stay in order, so one that has answered a query sent
 * behind the new settings has these: who asked for the reload hears of it then, and whoever
 * connects from there on meets the new settings on every core. Listeners that are new are open, and
 * those that are gone are closed.
 */
#include "control/admin_reload.h"

#include <stdlib.h>
#include <string.h>

static void visit(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    (void)transfer;
    (void)now;
    query->cursor = UINT64_MAX;
}

bool admin_reload_prepare(struct shard_query *query, const char *text)
{
    query->kind = SHARD_QUERY_TRANSFER;
    query->visit = visit;
    query->found = strdup(text);
    return query->found != NULL;
}

bool admin_reload_owns(const struct shard_query *query)
{
    return query->kind == SHARD_QUERY_TRANSFER && query->visit == visit;
}

const char *admin_reload_finish(json_t *answer, const struct shard_query *query)
{
    json_object_set_new(answer, "text", json_string(query->found));
    return NULL;
}

void admin_reload_end(struct shard_query *query)
{
    free(query->found);
    query->found = NULL;
}

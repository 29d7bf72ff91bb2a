/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts of reply patterns: each shard adds its own to the same rows. Counts begin anew at a
 * reload; one that comes between two shards leaves the rest of the old counts out.
 */
#include "control/admin_pattern.h"

#include <stdlib.h>
#include <string.h>

struct counted {
    char name[REACTION_NAME_MAX + 1];
    struct reaction_stats stats;
};

struct counts {
    uint64_t refused; /* orders */
    uint32_t count;
    struct counted rows[REACTION_RULE_MAX];
};

static void add_counts(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    struct counts *counts = query->found;
    const struct reaction_set *set = transfer_reactions(transfer);

    (void)now;
    for (uint32_t i = 0; i < reaction_set_count(set); i++) {
        const char *name = reaction_set_get(set, i)->name;
        struct counted *row = &counts->rows[i];
        if (i == counts->count) {
            memcpy(row->name, name, strnlen(name, REACTION_NAME_MAX));
            counts->count++;
        }
        if (strcmp(row->name, name) != 0)
            continue;
        struct reaction_stats stats = transfer_reaction_stats(transfer, i);
        row->stats.matches += stats.matches;
        row->stats.given_up += stats.given_up;
    }
    counts->refused += site_orders_refused(transfer_sites(transfer));
    query->cursor = UINT64_MAX;
}

bool admin_pattern_prepare(const char *verb, struct shard_query *query)
{
    if (strcmp(verb, "site patterns") != 0)
        return false;
    query->kind = SHARD_QUERY_TRANSFER;
    query->visit = add_counts;
    query->found = calloc(1, sizeof(struct counts));
    return true;
}

bool admin_pattern_owns(const struct shard_query *query)
{
    return query->kind == SHARD_QUERY_TRANSFER && query->visit == add_counts;
}

void admin_pattern_finish(json_t *answer, const struct shard_query *query)
{
    const struct counts *counts = query->found;
    json_t *rows = json_array();

    for (uint32_t i = 0; i < counts->count; i++)
        json_array_append_new(rows, json_pack("{ss,sI,sI}", "name", counts->rows[i].name, "matches",
                                              (json_int_t)counts->rows[i].stats.matches, "given_up",
                                              (json_int_t)counts->rows[i].stats.given_up));
    json_object_set_new(answer, "rows", rows);
    json_object_set_new(answer, "refused", json_integer((json_int_t)counts->refused));
}

void admin_pattern_end(struct shard_query *query)
{
    free(query->found);
    query->found = NULL;
}

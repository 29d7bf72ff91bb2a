/* SPDX-License-Identifier: Apache-2.0 */
/* What an operator sees of the queue, asked of every shard as the control socket asks. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/scenario/scenario.h"

#define STEPS_MAX 10000u

struct listing {
    struct qmgr_filter filter;
    char reply[256]; /* pattern */
    unsigned long long wanted, found;
};

static uint64_t list_shard(struct node *node, uint32_t shard, const struct listing *listing)
{
    struct shard_queue_row *rows = calloc(SHARD_QUERY_ROWS_MAX, sizeof(*rows));
    struct shard_query query = {.kind = SHARD_QUERY_QUEUE_LIST,
                                .filter = &listing->filter,
                                .rows = rows,
                                .row_max = SHARD_QUERY_ROWS_MAX};
    uint64_t found = 0;

    CHECK(rows != NULL);
    for (uint32_t i = 0; i < STEPS_MAX && query.cursor != UINT64_MAX; i++) {
        query.row_count = 0;
        node_query(node, shard, &query);
        for (uint32_t row = 0; row < query.row_count; row++)
            found += scenario_matches(listing->reply, rows[row].last_reply);
    }
    free(rows);
    return found;
}

static bool listing_is_met(const struct scenario *scenario, const void *argument)
{
    struct listing *listing = (struct listing *)(uintptr_t)argument;

    listing->found = 0;
    for (uint32_t i = 0; scenario->node != NULL && i < node_shard_count(scenario->node); i++)
        listing->found += list_shard(scenario->node, i, listing);
    return listing->found == listing->wanted;
}

/* Cuts `REPLY=PATTERN` off the end of the terms. */
static void reply_take(char *terms, char ret_pattern[256])
{
    char *reply = strstr(terms, "REPLY=");

    snprintf(ret_pattern, 256, "%s", reply == NULL ? "*" : reply + 6);
    if (reply != NULL)
        *reply = '\0';
}

bool scenario_list(struct scenario *scenario, const char *argument)
{
    struct listing listing = {0};
    char terms[1024], why[QMGR_FILTER_WHY_SIZE];

    snprintf(terms, sizeof(terms), "%s", argument);
    char *count = strstr(terms, " == ");
    if (!scenario_begin(scenario))
        return false;
    if (count == NULL)
        return scenario_fail(scenario, "list TERM=VALUE ... == N");
    listing.wanted = strtoull(count + 4, NULL, 10);
    *count = '\0';
    reply_take(terms, listing.reply);
    if (qmgr_filter_parse(span_from_text(terms), &listing.filter, why) != ERR_OK)
        return scenario_fail(scenario, "%s", why);
    if (scenario_run(scenario, scenario->patience, listing_is_met, &listing))
        return true;
    if (scenario->has_failed)
        return false;
    return scenario_fail(scenario, "expected list %s, got %llu", argument, listing.found);
}

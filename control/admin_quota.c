/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a user has sent, of how much. The user's home knows; the other shards have nothing to say.
 *
 * A limit that nothing was counted for within its window has no row: it is of no interest.
 */
#include "control/admin_quota.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[QUOTA_KIND_COUNT] = {
    [QUOTA_MESSAGES] = "messages", [QUOTA_RECIPIENTS] = "recipients", [QUOTA_HELD] = "held"};

struct asked {
    struct quota_key user;
    tick_us now;
    uint32_t counts[QUOTA_KIND_COUNT];
    struct rate_use uses[QUOTA_KIND_COUNT][RATE_MAX];
};

static void visit(struct shard_query *query, struct quota_set *quotas, tick_us now)
{
    struct asked *asked = query->found;

    asked->now = now;
    for (uint32_t kind = 0; kind < QUOTA_KIND_COUNT; kind++) {
        struct rate_use uses[RATE_MAX];
        uint32_t count = quota_uses(quotas, asked->user, (enum quota_kind)kind, now, uses);
        if (count == 0)
            continue;
        asked->counts[kind] = count;
        memcpy(asked->uses[kind], uses, count * sizeof(uses[0]));
    }
    query->cursor = UINT64_MAX;
}

bool admin_quota_prepare(const char *verb, const json_t *request, struct shard_query *query,
                         char ret_why[ADMIN_QUOTA_WHY_SIZE])
{
    const char *user = json_string_value(json_object_get(request, "id"));

    if (strcmp(verb, "user quota") != 0)
        return false;
    if (user == NULL)
        (void)snprintf(ret_why, ADMIN_QUOTA_WHY_SIZE, "say which user");
    struct asked *asked = user == NULL ? NULL : calloc(1, sizeof(*asked));
    if (asked != NULL)
        asked->user = quota_key_of(span_from_text(user));
    query->kind = SHARD_QUERY_QUOTA;
    query->visit_quota = visit;
    query->found = asked;
    return true;
}

bool admin_quota_owns(const struct shard_query *query)
{
    return query->kind == SHARD_QUERY_QUOTA && query->visit_quota == visit;
}

static json_t *use_row(enum quota_kind kind, const struct rate_use *use, tick_us now)
{
    struct rate_set rates = {1, {use->rate}};
    char text[RATE_TEXT_SIZE];
    bool bars = use->used >= use->rate.count;
    tick_us left = bars && use->next != TICK_NEVER && use->next > now ? use->next - now : 0;

    return json_pack("{ss,ss,sI,sI,sb,sI}", "limit", names[kind], "rate",
                     rate_set_format(&rates, text), "used", (json_int_t)use->used, "max",
                     (json_int_t)use->rate.count, "bars", bars, "next_us", (json_int_t)left);
}

void admin_quota_finish(json_t *answer, const struct shard_query *query)
{
    const struct asked *asked = query->found;
    json_t *rows = json_array();

    for (uint32_t kind = 0; kind < QUOTA_KIND_COUNT; kind++) {
        for (uint32_t i = 0; i < asked->counts[kind]; i++) {
            /* Only remembered over a restart: nobody has asked with the user's rates yet. */
            if (asked->uses[kind][i].rate.count == RATE_COUNT_MAX)
                continue;
            json_array_append_new(
                rows, use_row((enum quota_kind)kind, &asked->uses[kind][i], asked->now));
        }
    }
    json_object_set_new(answer, "rows", rows);
}

void admin_quota_end(struct shard_query *query)
{
    free(query->found);
    query->found = NULL;
}

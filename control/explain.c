/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which limit binds. No state, no clock: facts in, limits out; tests go through them by table.
 *
 * Limits that are times (a suspension, a pause) are in force only while they last. Those that are
 * counts are always listed, so that people see how far away they are, and bar when they are used
 * up.
 */
#include "control/explain.h"

#include "base/span.h"

static const char *const names[EXPLAIN_KIND_COUNT] = {
    [EXPLAIN_SOURCE_SUSPENDED] = "source suspended", [EXPLAIN_SOURCE_RESTS] = "source rests",
    [EXPLAIN_SOURCE_COLD] = "warm-up has not begun", [EXPLAIN_SITE_SUSPENDED] = "site suspended",
    [EXPLAIN_SITE_PAUSED] = "site pauses",           [EXPLAIN_RATE] = "rate",
    [EXPLAIN_CONFIGURED] = "connections configured", [EXPLAIN_ORDERED] = "connections by order",
    [EXPLAIN_LEARNED] = "connections allowed now",   [EXPLAIN_OUTBOUND] = "outbound connections",
    [EXPLAIN_MEMORY] = "memory for bodies",
};

const char *explain_kind_name(enum explain_kind kind)
{
    CHECK(kind < EXPLAIN_KIND_COUNT);
    return names[kind];
}

struct listing {
    struct explain_limit *limits;
    uint32_t count;
};

static void time_add(struct listing *listing, enum explain_kind kind, tick_us left)
{
    if (left > 0)
        listing->limits[listing->count++] =
            (struct explain_limit){.kind = kind, .bars = true, .left = left};
}

static void count_add(struct listing *listing, enum explain_kind kind, uint64_t used, uint64_t max,
                      bool bars)
{
    listing->limits[listing->count++] =
        (struct explain_limit){.kind = kind, .used = used, .max = max, .bars = bars};
}

static void rates_add(struct listing *listing, const struct explain_facts *facts)
{
    for (uint32_t i = 0; i < facts->rate_count; i++) {
        const struct explain_rate *rate = &facts->rates[i];
        uint64_t used = (uint64_t)rate->used + facts->mail_out;
        bool bars = used >= rate->rate.count;
        count_add(listing, EXPLAIN_RATE, used, rate->rate.count, bars);
        listing->limits[listing->count - 1].window = rate->rate.window;
        listing->limits[listing->count - 1].left = bars ? rate->left : 0;
    }
}

/* A kept connection that is free takes the next mail, whatever the limit. */
static void connections_add(struct listing *listing, const struct explain_facts *facts,
                            enum explain_kind kind, uint32_t max)
{
    if (max != EXPLAIN_NOT_SET)
        count_add(listing, kind, facts->connections, max,
                  facts->idle == 0 && facts->connections >= max);
}

static bool is_of_connections(const struct explain_limit *limit)
{
    return limit->kind == EXPLAIN_CONFIGURED || limit->kind == EXPLAIN_ORDERED ||
           limit->kind == EXPLAIN_LEARNED;
}

static bool binds_harder(const struct explain_limit *a, const struct explain_limit *b)
{
    if (a->left != b->left)
        return a->left > b->left;
    return is_of_connections(a) && is_of_connections(b) && a->max < b->max;
}

static void binding_mark(struct listing *listing)
{
    struct explain_limit *binding = NULL;

    for (uint32_t i = 0; i < listing->count; i++) {
        struct explain_limit *limit = &listing->limits[i];
        if (limit->bars && (binding == NULL || binds_harder(limit, binding)))
            binding = limit;
    }
    if (binding != NULL)
        binding->binds = true;
}

uint32_t explain_limits(const struct explain_facts *facts,
                        struct explain_limit ret_limits[EXPLAIN_LIMIT_MAX])
{
    struct listing listing = {.limits = ret_limits};

    CHECK(facts->rate_count <= RATE_MAX);
    time_add(&listing, EXPLAIN_SOURCE_SUSPENDED, facts->source_suspended);
    time_add(&listing, EXPLAIN_SOURCE_RESTS, facts->source_rests);
    time_add(&listing, EXPLAIN_SOURCE_COLD, facts->source_cold);
    time_add(&listing, EXPLAIN_SITE_SUSPENDED, facts->suspended);
    time_add(&listing, EXPLAIN_SITE_PAUSED, facts->paused);
    rates_add(&listing, facts);
    connections_add(&listing, facts, EXPLAIN_CONFIGURED, facts->configured);
    connections_add(&listing, facts, EXPLAIN_ORDERED, facts->ordered);
    connections_add(&listing, facts, EXPLAIN_LEARNED, facts->learned);
    count_add(&listing, EXPLAIN_OUTBOUND, facts->outbound, facts->outbound_max,
              facts->is_crowded && facts->idle == 0);
    count_add(&listing, EXPLAIN_MEMORY, facts->memory, facts->memory_max, facts->unread > 0);
    binding_mark(&listing);
    return listing.count;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sources of a shard: turns, what operators say, and time. What attempts say is in source_rest.c.
 *
 * Turns. Every member that could have had a turn is credited its weight, and who had it pays all of
 * that: after any number of turns each has had its share to within one. Who is passed over while it
 * is busy keeps its credit, up to CREDIT_ROUNDS rounds, and catches up; who may not be used is not
 * credited at all. The first turn at a site goes round the pool by the same rule, so that a
 * thousand sites with one letter each do not all see the same source.
 */
#include "relay/source_internal.h"

#include <stdio.h>
#include <stdlib.h>

#define CREDIT_ROUNDS 2

/* ---- turns ---- */

uint32_t source_turn_next(const struct source_turn *turns, uint32_t count, uint64_t mask)
{
    uint32_t best = count;

    CHECK(count <= 64);
    for (uint32_t i = 0; i < count; i++) {
        if ((mask & 1ull << i) != 0 &&
            (best == count ||
             turns[i].credit + turns[i].weight > turns[best].credit + turns[best].weight))
            best = i;
    }
    CHECK(best < count);
    return best;
}

void source_turn_taken(struct source_turn *turns, uint32_t count, uint64_t mask, uint32_t taken)
{
    int64_t total = 0;

    CHECK(taken < count && count <= 64);
    mask |= 1ull << taken;
    for (uint32_t i = 0; i < count; i++) {
        if ((mask & 1ull << i) != 0)
            total += turns[i].weight;
    }
    for (uint32_t i = 0; i < count; i++) {
        if ((mask & 1ull << i) == 0)
            continue;
        turns[i].credit += turns[i].weight - (i == taken ? total : 0);
        if (turns[i].credit > CREDIT_ROUNDS * total)
            turns[i].credit = CREDIT_ROUNDS * total;
        if (turns[i].credit < -CREDIT_ROUNDS * total)
            turns[i].credit = -CREDIT_ROUNDS * total;
    }
}

uint32_t source_first_turn(struct source_set *sources, const struct settings_pool *pool)
{
    struct source_turn *turns = sources->firsts[pool - sources->settings->pools];
    uint32_t count = pool->member_count;
    uint64_t all = count == 64 ? UINT64_MAX : (1ull << count) - 1;
    uint32_t next = source_turn_next(turns, count, all);

    source_turn_taken(turns, count, all, next);
    return next;
}

/* ---- settings ---- */

static struct source_turn **firsts_new(const struct settings *settings)
{
    struct source_turn **firsts = calloc(settings->pool_count, sizeof(struct source_turn *));

    CHECK(firsts != NULL);
    for (uint32_t i = 0; i < settings->pool_count; i++) {
        const struct settings_pool *pool = &settings->pools[i];
        firsts[i] = calloc(pool->member_count, sizeof(*firsts[i]));
        CHECK(firsts[i] != NULL);
        for (uint32_t j = 0; j < pool->member_count; j++)
            firsts[i][j].weight = pool->members[j].weight;
    }
    return firsts;
}

static void firsts_free(struct source_set *sources)
{
    for (uint32_t i = 0; i < sources->settings->pool_count; i++)
        free(sources->firsts[i]);
    free(sources->firsts);
}

static struct source_state *states_new(const struct settings *settings)
{
    struct source_state *states = calloc(settings->source_count, sizeof(*states));

    CHECK(states != NULL && settings->source_count > 0);
    for (uint32_t i = 0; i < settings->source_count; i++)
        (void)snprintf(states[i].name, sizeof(states[i].name), "%s", settings->sources[i].name);
    return states;
}

struct source_set *source_set_new(const struct settings *settings)
{
    struct source_set *sources = calloc(1, sizeof(*sources));

    CHECK(sources != NULL);
    sources->settings = settings;
    sources->deadline = TICK_NEVER;
    sources->states = states_new(settings);
    sources->firsts = firsts_new(settings);
    return sources;
}

void source_set_free(struct source_set *sources)
{
    firsts_free(sources);
    free(sources->states);
    free(sources);
}

void source_set_tell(struct source_set *sources, void *context,
                     void (*tell)(void *context, const struct source_news *news))
{
    sources->context = context;
    sources->tell = tell;
}

void source_set_settings(struct source_set *sources, const struct settings *settings)
{
    struct source_state *states = states_new(settings);

    for (uint32_t i = 0; i < settings->source_count; i++) {
        for (uint32_t old = 0; old < sources->settings->source_count; old++) {
            if (strcmp(states[i].name, sources->states[old].name) == 0)
                states[i] = sources->states[old];
        }
    }
    free(sources->states);
    firsts_free(sources);
    sources->states = states;
    sources->settings = settings;
    sources->firsts = firsts_new(settings);
}

/* ---- what may be used ---- */

void source_ends_at(struct source_set *sources, tick_us until)
{
    if (until < sources->deadline)
        sources->deadline = until;
}

struct source_state *source_state_find(struct source_set *sources, struct span name)
{
    for (uint32_t i = 0; i < sources->settings->source_count; i++) {
        if (span_is_equal_nocase(span_from_text(sources->states[i].name), name))
            return &sources->states[i];
    }
    return NULL;
}

bool source_suspend(struct source_set *sources, struct span name, tick_us until, const char *reason)
{
    struct source_state *state = source_state_find(sources, name);

    if (state == NULL)
        return false;
    state->suspended_until = until;
    memset(state->reason, 0, sizeof(state->reason));
    (void)snprintf(state->reason, sizeof(state->reason), "%s", reason);
    source_ends_at(sources, until);
    return true;
}

bool source_resume(struct source_set *sources, struct span name, tick_us now)
{
    struct source_state *state = source_state_find(sources, name);

    if (state == NULL)
        return false;
    state->suspended_until = 0;
    source_rests_clear(state);
    source_ends_at(sources, now); /* whoever waits gets a look */
    return true;
}

/* All families that it has rest. */
static bool is_cut_off(const struct source_set *sources, uint32_t number, tick_us now)
{
    const struct settings_source *source = &sources->settings->sources[number];
    uint32_t resting = source_families_resting(sources, number, now);

    return (!settings_source_has_family(source, FLOW_FAMILY_IP4) ||
            (resting & 1u << FLOW_FAMILY_IP4) != 0) &&
           (!settings_source_has_family(source, FLOW_FAMILY_IP6) ||
            (resting & 1u << FLOW_FAMILY_IP6) != 0);
}

enum source_use source_may_use(const struct source_set *sources, uint32_t number, tick_us now)
{
    CHECK(number < sources->settings->source_count);
    const struct source_state *state = &sources->states[number];
    bool is_barred = state->suspended_until > now ||
                     source_rest_holds(&state->rests[SOURCE_WHOLE], now) ||
                     is_cut_off(sources, number, now);
    return is_barred ? SOURCE_USE_NO : SOURCE_USE_YES;
}

uint32_t source_count(const struct source_set *sources)
{
    return sources->settings->source_count;
}

/* The rest that keeps it from being used; NULL: none does. Of two families: the shorter one. */
static const struct source_rest *rest_in_force(const struct source_set *sources, uint32_t number,
                                               tick_us now)
{
    const struct source_rest *rests = sources->states[number].rests;
    const struct source_rest *ip4 = &rests[SOURCE_IP4], *ip6 = &rests[SOURCE_IP6];

    if (source_rest_holds(&rests[SOURCE_WHOLE], now))
        return &rests[SOURCE_WHOLE];
    if (!is_cut_off(sources, number, now))
        return NULL;
    if (!source_rest_holds(ip4, now))
        return ip6;
    return source_rest_holds(ip6, now) && ip6->until < ip4->until ? ip6 : ip4;
}

struct source_view source_get_view(const struct source_set *sources, uint32_t number, tick_us now)
{
    CHECK(number < sources->settings->source_count);
    const struct source_state *state = &sources->states[number];
    const struct source_rest *rest = rest_in_force(sources, number, now);
    struct source_view view = {.source = &sources->settings->sources[number],
                               .is_suspended = state->suspended_until > now,
                               .is_broken = rest != NULL,
                               .reason = "",
                               .rests = state->rests};

    if (view.is_suspended) {
        view.until = state->suspended_until;
        view.reason = state->reason;
    } else if (rest != NULL) {
        view.until = rest->until > now ? rest->until : rest->probe_until;
        view.reason = rest->reason;
        view.failures = rest->times;
    }
    return view;
}

struct source_counts source_get_counts(const struct source_set *sources, tick_us now)
{
    struct source_counts counts = {0};

    for (uint32_t i = 0; i < sources->settings->source_count; i++) {
        bool is_whole = rest_in_force(sources, i, now) != NULL;
        counts.suspended += sources->states[i].suspended_until > now;
        counts.resting += is_whole;
        counts.resting_partly += !is_whole && source_families_resting(sources, i, now) != 0;
    }
    return counts;
}

/* ---- who counts as one ---- */

uint32_t source_origin(uint64_t site, const struct flow_address *host)
{
    uint32_t size = host == NULL ? 0 : host->family == FLOW_FAMILY_IP4 ? 3 : 6;
    uint64_t key = 0;

    if (size == 0 || (size == 6 && host->family != FLOW_FAMILY_IP6))
        return (uint32_t)(site ^ site >> 32);
    for (uint32_t i = 0; i < size; i++)
        key = key << 8 | host->ip[i];
    return (uint32_t)(key * 0x9e3779b97f4a7c15ull >> 32);
}

/* ---- time ---- */

/* The next end of one, if it holds. */
static void rest_await(struct source_set *sources, const struct source_rest *rest, tick_us now)
{
    if (source_rest_holds(rest, now))
        source_ends_at(sources, rest->until > now ? rest->until : rest->probe_until);
}

bool source_advance(struct source_set *sources, tick_us now)
{
    if (now < sources->deadline)
        return false;
    sources->deadline = TICK_NEVER;
    for (uint32_t i = 0; i < sources->settings->source_count; i++) {
        struct source_state *state = &sources->states[i];
        if (state->suspended_until > now)
            source_ends_at(sources, state->suspended_until);
        else
            state->suspended_until = 0;
        for (uint32_t part = 0; part < SOURCE_PART_COUNT; part++)
            rest_await(sources, &state->rests[part], now);
    }
    return true;
}

tick_us source_deadline(const struct source_set *sources)
{
    return sources->deadline;
}

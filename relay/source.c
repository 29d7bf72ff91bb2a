/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sources of a shard: turns, and rests.
 *
 * Turns. Every member that could have had a turn is credited its weight, and who had it pays all of
 * that: after any number of turns each has had its share to within one. Who is passed over while it
 * is busy keeps its credit, up to CREDIT_ROUNDS rounds, and catches up; who may not be used is not
 * credited at all. The first turn at a site goes round the pool by the same rule, so that a
 * thousand sites with one letter each do not all see the same source.
 *
 * Rests. A source is broken when nothing can leave from its address: it rests for BROKEN_MIN,
 * doubled by every failure that comes when the rest is over, up to BROKEN_MAX; a connection ends
 * that. A rest at one site ends at its time.
 *
 * What one shard learns the others learn for themselves, at the price of one attempt each that
 * never leaves.
 */
#include "relay/source.h"

#include <stdio.h>
#include <stdlib.h>

#define CREDIT_ROUNDS 2
#define BROKEN_MIN    TICK_S(60)
#define BROKEN_MAX    TICK_S(3600)

struct source_state {
    char name[SETTINGS_SOURCE_NAME_MAX + 1];
    tick_us until; /* broken: not before; 0: it is not */
    uint32_t failures;
    char reason[SOURCE_REASON_SIZE];
};

struct source_rest {
    uint64_t site;
    tick_us until;
    uint32_t number;
    char reason[SOURCE_REASON_SIZE];
};

struct source_set {
    const struct settings *settings;
    struct source_state *states; /* by number */
    struct source_turn **firsts; /* by pool, then member */
    tick_us deadline;            /* the first end of anything below */
    uint32_t rest_count;
    struct source_rest rests[SOURCE_REST_MAX];
};

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

/* What was known of a source, under its new number; what is no more is forgotten. */
static uint32_t state_move(const struct source_set *sources, uint32_t old,
                           const struct settings *settings, struct source_state *states)
{
    for (uint32_t i = 0; i < settings->source_count; i++) {
        if (strcmp(states[i].name, sources->states[old].name) != 0)
            continue;
        states[i] = sources->states[old];
        return i;
    }
    return settings->source_count;
}

void source_set_settings(struct source_set *sources, const struct settings *settings)
{
    uint32_t old_count = sources->settings->source_count, kept = 0;
    struct source_state *states = states_new(settings);
    uint32_t *numbers = calloc(old_count, sizeof(*numbers));

    CHECK(numbers != NULL);
    for (uint32_t i = 0; i < old_count; i++)
        numbers[i] = state_move(sources, i, settings, states);
    for (uint32_t i = 0; i < sources->rest_count; i++) {
        struct source_rest rest = sources->rests[i];
        rest.number = numbers[rest.number];
        if (rest.number < settings->source_count)
            sources->rests[kept++] = rest;
    }
    sources->rest_count = kept;
    free(numbers);
    free(sources->states);
    firsts_free(sources);
    sources->states = states;
    sources->settings = settings;
    sources->firsts = firsts_new(settings);
}

/* ---- rests ---- */

static void ends_at(struct source_set *sources, tick_us until)
{
    if (until < sources->deadline)
        sources->deadline = until;
}

static struct source_rest *rest_find(struct source_set *sources, uint32_t number, uint64_t site)
{
    for (uint32_t i = 0; i < sources->rest_count; i++) {
        if (sources->rests[i].site == site && sources->rests[i].number == number)
            return &sources->rests[i];
    }
    return NULL;
}

static struct source_rest *rest_new(struct source_set *sources)
{
    uint32_t soonest = 0;

    if (sources->rest_count < SOURCE_REST_MAX)
        return &sources->rests[sources->rest_count++];
    for (uint32_t i = 1; i < sources->rest_count; i++) {
        if (sources->rests[i].until < sources->rests[soonest].until)
            soonest = i;
    }
    return &sources->rests[soonest];
}

void source_rest(struct source_set *sources, uint32_t number, uint64_t site, tick_us until,
                 const char *reason)
{
    struct source_rest *rest = rest_find(sources, number, site);

    CHECK(number < sources->settings->source_count);
    if (rest != NULL && rest->until >= until)
        return;
    if (rest == NULL)
        rest = rest_new(sources);
    *rest = (struct source_rest){.site = site, .until = until, .number = number};
    (void)snprintf(rest->reason, sizeof(rest->reason), "%s", reason);
    ends_at(sources, until);
}

void source_on_broken(struct source_set *sources, uint32_t number, tick_us now)
{
    struct source_state *state = &sources->states[number];
    tick_us time = BROKEN_MIN;

    if (state->until > now)
        return; /* an attempt that began before */
    for (uint32_t i = 0; i < state->failures && time < BROKEN_MAX; i++)
        time *= 2;
    state->failures++;
    state->until = now + (time < BROKEN_MAX ? time : BROKEN_MAX);
    (void)snprintf(state->reason, sizeof(state->reason), "its address is not here");
    ends_at(sources, state->until);
}

void source_on_connected(struct source_set *sources, uint32_t number)
{
    sources->states[number].failures = 0;
}

enum source_use source_may_use(const struct source_set *sources, uint32_t number, uint64_t site,
                               tick_us now)
{
    CHECK(number < sources->settings->source_count);
    if (sources->states[number].until > now)
        return SOURCE_USE_NO;
    for (uint32_t i = 0; i < sources->rest_count; i++) {
        if (sources->rests[i].site == site && sources->rests[i].number == number &&
            sources->rests[i].until > now)
            return SOURCE_USE_NO;
    }
    return SOURCE_USE_YES;
}

/* ---- time ---- */

bool source_advance(struct source_set *sources, tick_us now)
{
    uint32_t kept = 0;

    if (now < sources->deadline)
        return false;
    sources->deadline = TICK_NEVER;
    for (uint32_t i = 0; i < sources->settings->source_count; i++) {
        struct source_state *state = &sources->states[i];
        if (state->until <= now)
            state->until = 0;
        else
            ends_at(sources, state->until);
    }
    for (uint32_t i = 0; i < sources->rest_count; i++) {
        if (sources->rests[i].until <= now)
            continue;
        sources->rests[kept++] = sources->rests[i];
        ends_at(sources, sources->rests[i].until);
    }
    sources->rest_count = kept;
    return true;
}

tick_us source_deadline(const struct source_set *sources)
{
    return sources->deadline;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sources of a shard: turns, and which may be used.
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
    tick_us suspended_until; /* 0: it is not */
    tick_us broken_until;    /* likewise */
    uint32_t failures;
    char reason[SOURCE_REASON_SIZE]; /* of the suspension */
};

struct source_set {
    const struct settings *settings;
    struct source_state *states; /* by number */
    struct source_turn **firsts; /* by pool, then member */
    tick_us deadline;            /* the first end of anything below */
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

static void ends_at(struct source_set *sources, tick_us until)
{
    if (until < sources->deadline)
        sources->deadline = until;
}

static struct source_state *state_find(struct source_set *sources, struct span name)
{
    for (uint32_t i = 0; i < sources->settings->source_count; i++) {
        if (span_is_equal_nocase(span_from_text(sources->states[i].name), name))
            return &sources->states[i];
    }
    return NULL;
}

bool source_suspend(struct source_set *sources, struct span name, tick_us until, const char *reason)
{
    struct source_state *state = state_find(sources, name);

    if (state == NULL)
        return false;
    state->suspended_until = until;
    (void)snprintf(state->reason, sizeof(state->reason), "%s", reason);
    ends_at(sources, until);
    return true;
}

bool source_resume(struct source_set *sources, struct span name, tick_us now)
{
    struct source_state *state = state_find(sources, name);

    if (state == NULL)
        return false;
    state->suspended_until = state->broken_until = 0;
    ends_at(sources, now); /* whoever waits gets a look */
    return true;
}

bool source_on_broken(struct source_set *sources, uint32_t number, tick_us now)
{
    struct source_state *state = &sources->states[number];
    tick_us time = BROKEN_MIN;

    if (state->broken_until > now)
        return false; /* an attempt that began before */
    for (uint32_t i = 0; i < state->failures && time < BROKEN_MAX; i++)
        time *= 2;
    state->failures++;
    state->broken_until = now + (time < BROKEN_MAX ? time : BROKEN_MAX);
    ends_at(sources, state->broken_until);
    return true;
}

void source_on_connected(struct source_set *sources, uint32_t number)
{
    sources->states[number].failures = 0;
}

enum source_use source_may_use(const struct source_set *sources, uint32_t number, tick_us now)
{
    CHECK(number < sources->settings->source_count);
    const struct source_state *state = &sources->states[number];
    return state->suspended_until > now || state->broken_until > now ? SOURCE_USE_NO
                                                                     : SOURCE_USE_YES;
}

uint32_t source_count(const struct source_set *sources)
{
    return sources->settings->source_count;
}

struct source_view source_get_view(const struct source_set *sources, uint32_t number, tick_us now)
{
    CHECK(number < sources->settings->source_count);
    const struct source_state *state = &sources->states[number];
    struct source_view view = {.source = &sources->settings->sources[number],
                               .is_suspended = state->suspended_until > now,
                               .is_broken = state->broken_until > now,
                               .failures = state->failures,
                               .reason = ""};

    if (view.is_suspended) {
        view.until = state->suspended_until;
        view.reason = state->reason;
    } else if (view.is_broken) {
        view.until = state->broken_until;
        view.reason = "nothing leaves from its address";
    }
    return view;
}

/* ---- time ---- */

static tick_us end_of(struct source_set *sources, tick_us until, tick_us now)
{
    if (until <= now)
        return 0;
    ends_at(sources, until);
    return until;
}

bool source_advance(struct source_set *sources, tick_us now)
{
    if (now < sources->deadline)
        return false;
    sources->deadline = TICK_NEVER;
    for (uint32_t i = 0; i < sources->settings->source_count; i++) {
        struct source_state *state = &sources->states[i];
        state->suspended_until = end_of(sources, state->suspended_until, now);
        state->broken_until = end_of(sources, state->broken_until, now);
    }
    return true;
}

tick_us source_deadline(const struct source_set *sources)
{
    return sources->deadline;
}

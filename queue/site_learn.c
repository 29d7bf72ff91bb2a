/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many connections a site takes, learned by its home from what becomes of attempts.
 *
 * As a TCP sender learns the width of a path: begin with connection_start, one more for every
 * success, so that a healthy site is at its limit within a few dozen messages. A refusal that is
 * not about the mail (421, a scope of HOST or SOURCE) halves the number; from there on it takes as
 * many successes as connections are allowed to add one. When no host answers, one connection tries;
 * after it has, the number doubles up to half of what it was, and grows slowly above. Who is turned
 * away in the greeting, as by a server that has enough connections of ours, is refused; but if it
 * was the only connection, there is no fewer to try with, and it counts as no answer.
 *
 *   START -> GROWN       a success
 *   any   -> REFUSED     a refusal:  allowed / 2
 *   any   -> UNREACHABLE no host:    1
 *   any   -> ORDER       an order has ended: 1
 *   any   -> START       LEARN_TIME without a word from any shard, or an operator resumes the site
 *                        (GROWN where it takes more than a new one)
 *
 * Invariants (site_learn_verify())
 *   1. 1 <= allowed; the home's limit is the smaller of allowed and configured.
 *   2. A step down counts once: attempts that began before it saw the same trouble, and their
 *      successes do not undo it either.
 *
 * Not here: the pause after failures (site_home.c), rates, the way over a restart
 * (site_keep_learned.c).
 */
#include "queue/site_state.h"

#define LEARN_TIME TICK_S(900)

static struct site_learned learned_of_new(const struct site_set *sites, tick_us now)
{
    return (struct site_learned){
        .allowed = sites->options.connection_start,
        .threshold = UINT32_MAX,
        .reason = SITE_LEARN_START,
        .since = now,
        .used = now,
    };
}

void site_learn_init(const struct site_set *sites, struct site_home *home, tick_us now)
{
    home->learned = learned_of_new(sites, now);
    home->is_learning = home->learned.allowed < home->configured;
    home->limit = home->is_learning ? home->learned.allowed : home->configured;
}

static void step(struct site_learned *learned, uint32_t allowed, enum site_learn_reason reason,
                 tick_us now)
{
    learned->allowed = allowed > 0 ? allowed : 1;
    learned->reason = reason;
    learned->since = now;
    learned->successes = 0;
}

static void learn_success(const struct site_home *home, struct site_learned *learned, tick_us now)
{
    if (learned->allowed >= home->configured)
        return;
    learned->successes++;
    if (learned->allowed < learned->threshold || learned->successes >= learned->allowed)
        step(learned, learned->allowed + 1, SITE_LEARN_GROWN, now);
}

static uint32_t connections_in_force(const struct site_home *home)
{
    return home->learned.allowed < home->configured ? home->learned.allowed : home->configured;
}

static void learn_trouble(const struct site_home *home, struct site_learned *learned,
                          bool is_reachable, tick_us now)
{
    uint32_t in_force = connections_in_force(home);

    learned->threshold = in_force > 1 ? in_force / 2 : 1;
    learned->decreased = now;
    if (is_reachable)
        step(learned, in_force / 2, SITE_LEARN_REFUSED, now);
    else
        step(learned, 1, SITE_LEARN_UNREACHABLE, now);
}

void site_learn_restart(struct site_home *home, tick_us now)
{
    uint32_t in_force = connections_in_force(home);

    home->learned.threshold = in_force > 1 ? in_force / 2 : 1;
    step(&home->learned, 1, SITE_LEARN_ORDER, now);
}

bool site_learn_is_reduced(const struct site_home *home)
{
    return home->learned.threshold != UINT32_MAX && home->learned.allowed < home->configured;
}

void site_learn_forgive(const struct site_set *sites, struct site_home *home, tick_us now)
{
    uint32_t before = home->learned.allowed;

    home->learned = learned_of_new(sites, now);
    if (before <= home->learned.allowed)
        return;
    home->learned.allowed = before;
    home->learned.reason = SITE_LEARN_GROWN;
}

enum site_outcome site_learn(const struct site_set *sites, struct site_home *home,
                             enum site_outcome outcome, tick_us began, tick_us now)
{
    bool is_late = began < home->learned.decreased;

    (void)sites;
    if (outcome == SITE_OUTCOME_TURNED_AWAY)
        outcome = is_late                          ? SITE_OUTCOME_NEUTRAL
                  : connections_in_force(home) > 1 ? SITE_OUTCOME_REFUSED
                                                   : SITE_OUTCOME_UNREACHABLE;
    if (outcome == SITE_OUTCOME_NEUTRAL || is_late)
        return outcome;
    if (outcome == SITE_OUTCOME_OK)
        learn_success(home, &home->learned, now);
    else
        learn_trouble(home, &home->learned, outcome == SITE_OUTCOME_REFUSED, now);
    return outcome;
}

static bool is_forgotten(const struct site_home *home, tick_us now)
{
    return home->out_total == 0 && now > home->learned.used &&
           now - home->learned.used > LEARN_TIME;
}

void site_learn_review(struct site_set *sites, struct site_home *home, tick_us now)
{
    sites->words++;
    if (is_forgotten(home, now))
        site_learn_init(sites, home, now);
    home->learned.used = now;
}

bool site_learn_is_fresh(const struct site_home *home, tick_us now)
{
    return home->learned.reason == SITE_LEARN_START || is_forgotten(home, now);
}

void site_learn_restore(struct site_home *home, const struct site_learned *learned, wall_us used,
                        struct tick_now now)
{
    bool is_over = now.wall > used && (tick_us)now.wall - (tick_us)used > LEARN_TIME;

    if (is_over || learned->reason == SITE_LEARN_START)
        return;
    home->learned = *learned;
}

uint64_t site_learn_words(const struct site_set *sites)
{
    return sites->words;
}

struct site_learned site_learned_now(const struct site_set *sites, const struct site_home *home,
                                     tick_us now)
{
    struct site_home fresh = {.configured = home->configured};

    if (!is_forgotten(home, now))
        return home->learned;
    site_learn_init(sites, &fresh, home->learned.used + LEARN_TIME);
    return fresh.learned;
}

void site_learn_verify(const struct site_home *home)
{
    const struct site_learned *learned = &home->learned;

    CHECK(learned->allowed > 0 && home->configured > 0 && learned->threshold > 0);
    uint32_t limit = connections_in_force(home);
    uint32_t ordered = site_home_order_limit(home);
    CHECK(home->limit == (ordered < limit ? ordered : limit));
    CHECK(home->is_learning == (learned->allowed < home->configured));
    CHECK(learned->decreased <= learned->since);
}

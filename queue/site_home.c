/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sites, the home's side: one shard alone decides who gets the connections of a site.
 *
 * Slots go one by one to the shards that want some: in each round the one whose mail waits longest
 * comes first, so that a shard with a thousand letters does not take them all from a shard with
 * one. When none are left, everybody who has slots hears the rank of the oldest mail of the others
 * (RECALL); whether it is older than their own they know best. A shard that is told keeps being
 * told only when the rank falls or the slots it owed are back: one RECALL per RETURN at most. A
 * GRANT ends the shard's WANT and what it owed, so that no decision rests on the rank of mail that
 * is gone: otherwise two shards could hand one slot to and fro for ever.
 *
 * The pause of a site is decided here, so that all shards agree: after all hosts failed it lasts
 * backoff_min, doubled by every further failure that comes when it is over, up to backoff_max, and
 * 80 to 120 % of that at random. Failures reported during a pause are of attempts begun before it.
 * One connection that speaks SMTP ends it and the doubling. A greeting that turns us away is a
 * failure of all hosts only when it met the one connection that is allowed (site_learn.c).
 *
 * Invariants
 *   1. out_total is the sum of all shares' out. A slot is granted only while out_total < limit.
 *   2. out falls only by that shard's RETURN.
 *   3. No want is kept while the site pauses or is suspended: whoever wants then is told of the
 * pause, and asks again when it ends.
 */
#include <stdlib.h>

#include "queue/site_state.h"

#define PAUSE_JITTER_PERMILLE 200u

struct site_home *site_home_get(const struct site_set *sites, struct site *site)
{
    uint32_t count = sites->options.shard_count;

    if (site->home != NULL)
        return site->home;
    site->home = calloc(1, sizeof(*site->home) + count * sizeof(site->home->shares[0]));
    CHECK(site->home != NULL);
    site->home->configured = site->limit;
    site->home->site = site;
    site_learn_init(sites, site->home, sites->wheel.now);
    site->home->timer.kind = SITE_TIMER_HOME;
    site->home->order_timer.kind = SITE_TIMER_ORDER;
    return site->home;
}

void site_home_free(struct site_set *sites, struct site *site)
{
    if (site->home == NULL)
        return;
    site_orders_free(sites, site->home);
    wheel_cancel(&sites->wheel, &site->home->timer);
    rate_limiter_fini(&site->home->mails);
    free(site->home);
    site->home = NULL;
}

/* ---- recall ---- */

static void recall(struct site_set *sites, struct site *site, uint32_t shard, uint32_t count,
                   int64_t rank)
{
    struct site_share *share = &site->home->shares[shard];

    count = count < share->out ? count : share->out;
    if (count == 0)
        return;
    if (share->recalled == 0)
        share->recall_rank = INT64_MAX;
    if (count <= share->recalled && rank >= share->recall_rank)
        return; /* it knows */
    if (count > share->recalled)
        share->recalled = count;
    if (rank < share->recall_rank)
        share->recall_rank = rank;
    site_post(sites, site, shard,
              &(struct site_message){.kind = SITE_MESSAGE_RECALL,
                                     .count = share->recalled,
                                     .rank = share->recall_rank});
}

/* Ask everybody for what the others wait for. */
static void recall_for_wanting(struct site_set *sites, struct site *site)
{
    const struct site_home *home = site->home;
    uint32_t count = sites->options.shard_count, want_total = 0, first = count, second = count;

    for (uint32_t i = 0; i < count; i++) {
        if (home->shares[i].want == 0)
            continue;
        want_total += home->shares[i].want;
        if (first == count || home->shares[i].rank < home->shares[first].rank) {
            second = first;
            first = i;
        } else if (second == count || home->shares[i].rank < home->shares[second].rank) {
            second = i;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t oldest_other = i == first ? second : first;
        if (oldest_other != count)
            recall(sites, site, i, want_total - home->shares[i].want,
                   home->shares[oldest_other].rank);
    }
}

/* The limit was lowered: what is above it comes back, whoever waits. */
static void recall_excess(struct site_set *sites, struct site *site)
{
    for (uint32_t i = 0; i < sites->options.shard_count; i++)
        recall(sites, site, i, site->home->out_total - site->home->limit, INT64_MIN);
}

/* ---- grant ---- */

static uint32_t holder_find(const struct site_set *sites, const struct site_home *home)
{
    uint32_t shard = 0;

    while (shard < sites->options.shard_count && home->shares[shard].out == 0)
        shard++;
    return shard < sites->options.shard_count ? shard : SITE_HOLDER_NONE;
}

/* Shards that have or want slots are more than there are slots. */
static bool home_is_scarce(const struct site_set *sites, const struct site_home *home)
{
    uint32_t interested = 0;

    for (uint32_t i = 0; i < sites->options.shard_count; i++)
        interested += home->shares[i].out > 0 || home->shares[i].want > 0;
    return interested > home->limit;
}

static void tell_scarce(struct site_set *sites, struct site *site)
{
    uint32_t holder = holder_find(sites, site->home);

    for (uint32_t i = 0; i < sites->options.shard_count; i++) {
        struct site_share *share = &site->home->shares[i];
        if (share->want == 0 || share->out > 0 || share->is_told_scarce)
            continue;
        share->is_told_scarce = true;
        site_post(sites, site, i,
                  &(struct site_message){.kind = SITE_MESSAGE_GRANT,
                                         .waiting = site->home->is_learning,
                                         .holder = holder});
    }
}

static void grant(struct site_set *sites, struct site *site, uint32_t shard, uint32_t count,
                  tick_us now)
{
    struct site_share *share = &site->home->shares[shard];

    share->want = 0; /* what it still wants then, it asks for with the rank of that mail */
    share->recalled = 0;
    share->is_told_scarce = false;
    site_post(sites, site, shard,
              &(struct site_message){.kind = SITE_MESSAGE_GRANT,
                                     .count = count,
                                     .waiting = site->home->is_learning,
                                     .until = now + sites->options.lease_time,
                                     .holder = SITE_HOLDER_NONE});
}

/* Does `a` come before `b`? Who got less this time does, then who has the older mail. */
static bool share_is_before(const struct site_share *a, const struct site_share *b)
{
    return a->given < b->given || (a->given == b->given && a->rank < b->rank);
}

static struct site_share *next_to_grant(const struct site_set *sites, struct site_home *home)
{
    struct site_share *best = NULL;

    for (uint32_t i = 0; i < sites->options.shard_count; i++) {
        struct site_share *share = &home->shares[i];
        if (share->want > 0 && (best == NULL || share_is_before(share, best)))
            best = share;
    }
    return best;
}

void site_home_balance(struct site_set *sites, struct site *site, tick_us now)
{
    struct site_home *home = site->home;
    struct site_share *share;

    while (home->out_total < home->limit && (share = next_to_grant(sites, home)) != NULL) {
        share->given++;
        share->want--;
        share->out++;
        home->out_total++;
    }
    for (uint32_t i = 0; i < sites->options.shard_count; i++) {
        share = &home->shares[i];
        if (share->given > 0)
            grant(sites, site, i, share->given, now);
        share->given = 0;
    }
    if (home->out_total > home->limit)
        recall_excess(sites, site);
    if (home->out_total >= home->limit) {
        recall_for_wanting(sites, site);
        if (home_is_scarce(sites, home))
            tell_scarce(sites, site);
    }
}

/* ---- the pause ---- */

/* No slot is granted before. */
static tick_us home_closed_until(const struct site_home *home)
{
    tick_us suspended = site_home_suspended_until(home);

    return suspended > home->paused_until ? suspended : home->paused_until;
}

static void tell_pause(struct site_set *sites, struct site *site, uint32_t shard)
{
    site_post(sites, site, shard,
              &(struct site_message){.kind = SITE_MESSAGE_PAUSE,
                                     .count = site->home->failures,
                                     .waiting = site_home_suspended_until(site->home) > 0,
                                     .until = home_closed_until(site->home)});
}

static void tell_pause_to_all(struct site_set *sites, struct site *site)
{
    for (uint32_t i = 0; i < sites->options.shard_count; i++) {
        if (site->home->shares[i].is_known)
            tell_pause(sites, site, i);
    }
}

static tick_us pause_time(struct site_set *sites, uint32_t failures)
{
    tick_us time = sites->options.backoff_min;

    for (uint32_t i = 1; i < failures && time < sites->options.backoff_max; i++)
        time *= 2;
    if (time > sites->options.backoff_max)
        time = sites->options.backoff_max;
    uint32_t permille = 1000 - PAUSE_JITTER_PERMILLE + rng_below(sites->rng, 401);
    return time / 1000 * permille + time % 1000;
}

/* ---- how many it takes ---- */

static void tell_learning(struct site_set *sites, struct site *site, uint32_t shard)
{
    site_post(
        sites, site, shard,
        &(struct site_message){.kind = SITE_MESSAGE_LEARN, .waiting = site->home->is_learning});
}

/* What is allowed may have changed. */
static void home_limit_review(struct site_set *sites, struct site *site, tick_us now)
{
    struct site_home *home = site->home;
    bool was_learning = home->is_learning;
    uint32_t ordered = site_home_order_limit(home);

    home->limit =
        home->learned.allowed < home->configured ? home->learned.allowed : home->configured;
    home->limit = ordered < home->limit ? ordered : home->limit;
    home->is_learning = home->learned.allowed < home->configured;
    for (uint32_t i = 0; i < sites->options.shard_count && was_learning != home->is_learning; i++) {
        if (home->shares[i].is_known)
            tell_learning(sites, site, i);
    }
    site_home_balance(sites, site, now);
}

static void tell_slow(struct site_set *sites, struct site *site, uint32_t shard)
{
    site_post(sites, site, shard,
              &(struct site_message){.kind = SITE_MESSAGE_SLOW,
                                     .until = site_home_slow_window(site->home)});
}

void site_home_orders_changed(struct site_set *sites, struct site *site, tick_us now)
{
    struct site_home *home = site->home;

    site_home_rates_review(sites, site, now);
    for (uint32_t i = 0; i < sites->options.shard_count; i++) {
        if (home_closed_until(home) > now)
            home->shares[i].want = 0;
        if (home->shares[i].is_known || i == sites->options.shard) {
            tell_slow(sites, site, i);
            tell_pause(sites, site, i);
        }
    }
    home_limit_review(sites, site, now);
}

void site_home_restored(struct site_set *sites, struct site *site, tick_us now)
{
    struct site_home *home = site->home;

    for (uint32_t i = 0; i < sites->options.shard_count && home->failures > 0; i++) {
        if (home_closed_until(home) > now)
            home->shares[i].want = 0;
        if (home->shares[i].is_known || i == sites->options.shard)
            tell_pause(sites, site, i);
    }
    home_limit_review(sites, site, now);
}

static void home_on_failure(struct site_set *sites, struct site *site, tick_us now)
{
    struct site_home *home = site->home;

    if (home->paused_until > now)
        return;
    home->failures++;
    home->paused_until = now + pause_time(sites, home->failures);
    for (uint32_t i = 0; i < sites->options.shard_count; i++)
        home->shares[i].want = 0;
    tell_pause_to_all(sites, site);
}

/* Some host spoke SMTP. */
static void home_on_contact(struct site_set *sites, struct site *site,
                            const struct site_message *message)
{
    struct site_home *home = site->home;

    if (home->failures == 0) {
        if (message->waiting > 0) /* it knows something we forgot, or were told late */
            tell_pause(sites, site, message->from_shard);
        return;
    }
    home->failures = 0;
    home->paused_until = 0;
    tell_pause_to_all(sites, site);
}

static void home_on_outcome(struct site_set *sites, struct site *site,
                            const struct site_message *message, tick_us now)
{
    struct site_home *home = site->home;
    enum site_outcome said = (enum site_outcome)message->count;
    bool is_trouble = said != SITE_OUTCOME_OK && said != SITE_OUTCOME_NEUTRAL;

    if (is_trouble && message->until < home->resumed)
        return;
    enum site_outcome outcome = site_learn(sites, home, said, message->until, now);

    if (outcome == SITE_OUTCOME_UNREACHABLE)
        home_on_failure(sites, site, now);
    else if (said != SITE_OUTCOME_TURNED_AWAY)
        home_on_contact(sites, site, message);
    bool was_learning = home->is_learning;
    home_limit_review(sites, site, now);
    if (!was_learning && !home->is_learning && outcome == SITE_OUTCOME_OK)
        tell_learning(sites, site, message->from_shard); /* it thinks that we care */
}

/* ---- messages ---- */

static void home_on_want(struct site_set *sites, struct site *site,
                         const struct site_message *message, tick_us now)
{
    struct site_home *home = site->home;
    struct site_share *share = &home->shares[message->from_shard];

    home->configured = message->limit;
    home_limit_review(sites, site, now);
    site_standing_apply(sites, site, now);
    if (home->orders != NULL) { /* it may never have heard of them */
        tell_slow(sites, site, message->from_shard);
        site_orders_tell(sites, site, message->from_shard);
    }
    if (home_closed_until(home) > now) {
        tell_pause(sites, site, message->from_shard);
        return;
    }
    share->want = message->count;
    share->rank = message->rank;
    site_home_balance(sites, site, now);
}

static void home_on_return(struct site_set *sites, struct site *site,
                           const struct site_message *message, tick_us now)
{
    struct site_home *home = site->home;
    struct site_share *share = &home->shares[message->from_shard];

    CHECK(message->count <= share->out && message->count <= home->out_total);
    share->out -= message->count;
    home->out_total -= message->count;
    share->recalled -= share->recalled < message->count ? share->recalled : message->count;
    if (message->waiting < share->want)
        share->want = message->waiting;
    site_home_balance(sites, site, now);
}

void site_home_receive(struct site_set *sites, struct site *site,
                       const struct site_message *message, tick_us now)
{
    struct site_home *home = site_home_get(sites, site);

    site_learn_review(sites, home, now);
    site_orders_review(sites, site, now);
    CHECK(site->key % sites->options.shard_count == sites->options.shard);
    home->shares[message->from_shard].is_known = true;
    if (message->kind == SITE_MESSAGE_WANT)
        home_on_want(sites, site, message, now);
    else if (message->kind == SITE_MESSAGE_RETURN)
        home_on_return(sites, site, message, now);
    else if (message->kind == SITE_MESSAGE_OUTCOME)
        home_on_outcome(sites, site, message, now);
    else if (message->kind == SITE_MESSAGE_ORDER)
        site_home_on_order(sites, site, message, now);
    else
        site_home_mail_receive(sites, site, message, now);
}

bool site_home_is_idle(const struct site_set *sites, const struct site *site)
{
    if (site->home == NULL)
        return true;
    if (site->home->orders != NULL)
        return false;
    for (uint32_t i = 0; i < sites->options.shard_count; i++) {
        const struct site_share *share = &site->home->shares[i];
        if (share->want > 0 || (share->out > 0 && i != sites->options.shard))
            return false;
    }
    return site_home_mail_is_idle(sites, site);
}

void site_home_verify(const struct site_set *sites, const struct site *site)
{
    const struct site_home *home = site->home;
    uint32_t out = 0, want = 0;

    if (home == NULL)
        return;
    for (uint32_t i = 0; i < sites->options.shard_count; i++) {
        out += home->shares[i].out;
        want += home->shares[i].want;
        CHECK(home->shares[i].recalled <= home->shares[i].out);
    }
    CHECK(out == home->out_total);
    CHECK(want == 0 || home->out_total >= home->limit); /* nobody waits beside a free slot */
    CHECK(home->shares[sites->options.shard].out == site->held);
    site_learn_verify(home);
    site_orders_verify(home);
    site_home_mail_verify(sites, site);
}

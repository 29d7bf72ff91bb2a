/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quotas of users, the home's side: the windows, and who gets the rights to count one.
 *
 * Rights go one by one to the shards that want some, in turn. Another shard gets more than it asks
 * for while there is plenty: an equal part of a quarter of what is left, BATCH_MAX at most, so that
 * a busy user's messages are not a question each. When none is left, all that are out are wanted
 * back (RECALL); only when none is out either, who wants hears that there are none (REFUSE), and
 * when there will be.
 *
 * The rates are those of the newest settings that somebody asked with: sessions of older settings
 * do not bring the old ones back.
 *
 * Invariants (quota_home_verify())
 *   1. In every window: uses and rights out are together at most its number, unless that was
 *      lowered.
 *   2. A right is out until its shard says so, used or not. What was used counts from the moment of
 *      the last use told with it: late, never early.
 *   3. Who wants waits for rights that are out, and recalled.
 *   4. `places` holds every count once, the one used last at the end. One without rights out,
 *      wants, or events in its windows is idle, and let go when it comes first.
 *
 * Limits: options.place_max counts, of users who sent within their windows; with more, the one used
 * the longest time ago is forgotten, and that is counted.
 */
#include <stdlib.h>

#include "relay/quota_internal.h"

#define BATCH_MAX 16u

/* ---- counts ---- */

struct quota_place *quota_place_find(struct quota_set *set, struct quota_key user,
                                     enum quota_kind kind)
{
    struct quota_place *place;

    LIST_FOREACH(place, &set->buckets[quota_bucket_of(user, kind)], chain)
    {
        if (place->kind == kind && quota_key_is_equal(place->user, user))
            return place;
    }
    return NULL;
}

static void place_free(struct quota_set *set, struct quota_place *place)
{
    LIST_REMOVE(place, chain);
    TAILQ_REMOVE(&set->places, place, link);
    rate_limiter_fini(&place->limiter);
    free(place);
    set->stats.places--;
}

void quota_places_free(struct quota_set *set)
{
    while (!TAILQ_EMPTY(&set->places))
        place_free(set, TAILQ_FIRST(&set->places));
}

static bool somebody_wants(const struct quota_set *set, const struct quota_place *place)
{
    for (uint32_t i = 0; i < set->options.shard_count; i++) {
        if (place->shares[i].want > 0)
            return true;
    }
    return false;
}

static bool place_is_idle(const struct quota_set *set, struct quota_place *place, tick_us now)
{
    if (place->out_total > 0 || somebody_wants(set, place))
        return false;
    (void)rate_limiter_room(&place->limiter, quota_time(now)); /* forgets what is over */
    for (uint32_t i = 0; i < place->limiter.count; i++) {
        if (place->limiter.windows[i].used > 0)
            return false;
    }
    return true;
}

/* The first is let go if it is idle, or if there must be room. */
static void places_review(struct quota_set *set, tick_us now)
{
    struct quota_place *first = TAILQ_FIRST(&set->places);

    if (first == NULL)
        return;
    bool is_idle = place_is_idle(set, first, now);
    if (!is_idle && set->stats.places < set->options.place_max)
        return;
    if (!is_idle && (first->out_total > 0 || somebody_wants(set, first))) {
        TAILQ_REMOVE(&set->places, first, link);
        TAILQ_INSERT_TAIL(&set->places, first, link);
        return;
    }
    set->stats.forgotten += !is_idle;
    place_free(set, first);
}

struct quota_place *quota_place_get(struct quota_set *set, struct quota_key user,
                                    enum quota_kind kind, tick_us now)
{
    struct quota_place *place = quota_place_find(set, user, kind);
    uint32_t count = set->options.shard_count;

    if (place != NULL) {
        TAILQ_REMOVE(&set->places, place, link);
        TAILQ_INSERT_TAIL(&set->places, place, link);
        return place;
    }
    for (uint32_t i = 0; i < 2; i++) /* faster than they come */
        places_review(set, now);
    place = calloc(1, sizeof(*place) + count * sizeof(place->shares[0]));
    if (place == NULL)
        return NULL;
    place->user = user;
    place->kind = (uint8_t)kind;
    LIST_INSERT_HEAD(&set->buckets[quota_bucket_of(user, kind)], place, chain);
    TAILQ_INSERT_TAIL(&set->places, place, link);
    set->stats.places++;
    return place;
}

/* ---- rights ---- */

static tick_us lease_time(const struct quota_place *place)
{
    tick_us part = place->limiter.count == 0 ? 0 : place->limiter.windows[0].rate.window / 16;

    return part < QUOTA_LEASE_TIME ? part : QUOTA_LEASE_TIME;
}

static void answer(struct quota_set *set, struct quota_place *place, uint32_t shard,
                   struct quota_message *message, tick_us now)
{
    message->user = place->user;
    message->of = place->kind;
    quota_post(set, shard, message, now);
}

static void recall_all(struct quota_set *set, struct quota_place *place, tick_us now)
{
    for (uint32_t i = 0; i < set->options.shard_count; i++) {
        if (place->shares[i].out == 0 || place->shares[i].is_recalled)
            continue;
        place->shares[i].is_recalled = true;
        set->stats.recalls++;
        answer(set, place, i, &(struct quota_message){.kind = QUOTA_MESSAGE_RECALL}, now);
    }
}

static void refuse_all(struct quota_set *set, struct quota_place *place, tick_us now)
{
    tick_us next = now + rate_limiter_next(&place->limiter, 0, quota_time(now)) - quota_time(now);

    for (uint32_t i = 0; i < set->options.shard_count; i++) {
        struct quota_message message = {
            .kind = QUOTA_MESSAGE_REFUSE, .time = next, .is_first = !place->is_told};
        if (place->shares[i].want == 0)
            continue;
        place->shares[i].want = 0;
        place->is_told = true;
        answer(set, place, i, &message, now);
    }
}

/* One to each that wants some, in turn, until there are none. */
static void deal(struct quota_set *set, struct quota_place *place, uint32_t room)
{
    uint32_t count = set->options.shard_count;

    for (uint32_t missed = 0; place->out_total < room && missed < count;) {
        struct quota_share *share = &place->shares[place->turn];
        place->turn = (place->turn + 1) % count;
        missed = share->want > 0 ? 0 : missed + 1;
        if (share->want == 0)
            continue;
        share->want--;
        share->given++;
        share->out++;
        place->out_total++;
    }
}

static void deal_more(const struct quota_set *set, struct quota_place *place, uint32_t shard,
                      uint32_t room)
{
    struct quota_share *share = &place->shares[shard];
    uint32_t left = room > place->out_total ? room - place->out_total : 0;
    uint32_t part = left / (4 * set->options.shard_count);

    if (shard == set->options.shard || share->given >= BATCH_MAX)
        return;
    if (part > BATCH_MAX - share->given)
        part = BATCH_MAX - share->given;
    share->given += part;
    share->out += part;
    place->out_total += part;
}

static void place_balance(struct quota_set *set, struct quota_place *place, tick_us now)
{
    uint32_t room = rate_limiter_room(&place->limiter, quota_time(now));

    deal(set, place, room);
    for (uint32_t i = 0; i < set->options.shard_count; i++) {
        struct quota_share *share = &place->shares[i];
        if (share->given == 0)
            continue;
        deal_more(set, place, i, room);
        struct quota_message message = {
            .kind = QUOTA_MESSAGE_GRANT, .count = share->given, .time = now + lease_time(place)};
        share->given = 0;
        share->want = 0; /* what it still wants then, it asks for */
        place->is_told = false;
        answer(set, place, i, &message, now);
    }
    if (!somebody_wants(set, place))
        return;
    if (place->out_total > 0)
        recall_all(set, place, now);
    else
        refuse_all(set, place, now);
}

/* ---- messages ---- */

static void rates_set(struct quota_place *place, const struct quota_message *message, tick_us now)
{
    struct rate_set rates = {.count = message->rate_count}, known = {.count = place->limiter.count};

    CHECK(message->rate_count > 0 && message->rate_count <= RATE_MAX);
    if (place->serial > 0 && message->serial <= place->serial)
        return;
    place->serial = message->serial;
    for (uint32_t i = 0; i < rates.count; i++)
        rates.rates[i] = (struct rate){message->rates[i].count,
                                       (tick_us)message->rates[i].window_ms * TICK_MS(1)};
    for (uint32_t i = 0; i < known.count; i++)
        known.rates[i] = place->limiter.windows[i].rate;
    if (!rate_set_is_equal(&known, &rates))
        rate_limiter_set(&place->limiter, &rates, quota_time(now));
}

static void count_uses(const struct quota_set *set, struct quota_place *place,
                       const struct quota_message *message)
{
    struct quota_share *share = &place->shares[message->from_shard];

    CHECK(message->used <= share->out);
    rate_limiter_add(&place->limiter, quota_time(message->time), message->used);
    quota_place_used(set, place, quota_time(message->time), message->used);
    share->out -= message->used;
    place->out_total -= message->used;
}

/* Without memory nothing is counted, so that nothing may be sent. */
static void refuse_without_place(struct quota_set *set, const struct quota_message *message,
                                 tick_us now)
{
    struct quota_message refusal = {.kind = QUOTA_MESSAGE_REFUSE,
                                    .user = message->user,
                                    .of = message->of,
                                    .time = now + QUOTA_LEASE_TIME};

    quota_post(set, message->from_shard, &refusal, now);
}

void quota_home_receive(struct quota_set *set, const struct quota_message *message, tick_us now)
{
    struct quota_place *place = quota_place_get(set, message->user, message->of, now);

    CHECK(quota_home_of(message->user, set->options.shard_count) == set->options.shard);
    CHECK(message->from_shard < set->options.shard_count);
    if (place == NULL) {
        refuse_without_place(set, message, now);
        return;
    }
    struct quota_share *share = &place->shares[message->from_shard];
    set->stats.changes++;
    count_uses(set, place, message);
    if (message->kind == QUOTA_MESSAGE_ASK) {
        CHECK(share->out == 0); /* it asks when it has none */
        rates_set(place, message, now);
        share->want = message->count;
    } else {
        CHECK(message->count <= share->out);
        share->out -= message->count;
        place->out_total -= message->count;
    }
    share->is_recalled = share->is_recalled && share->out > 0;
    place_balance(set, place, now);
}

/* ---- for people ---- */

uint32_t quota_uses(struct quota_set *set, struct quota_key user, enum quota_kind kind, tick_us now,
                    struct rate_use ret_uses[RATE_MAX])
{
    struct quota_place *place = quota_place_find(set, user, kind);

    if (place == NULL)
        return 0;
    uint32_t count =
        rate_limiter_uses(&place->limiter, place->out_total, quota_time(now), ret_uses);
    for (uint32_t i = 0; i < count; i++) {
        ret_uses[i].used += place->out_total;
        if (ret_uses[i].next != TICK_NEVER)
            ret_uses[i].next -= quota_time(0);
    }
    return count;
}

void quota_home_verify(const struct quota_set *set)
{
    const struct quota_place *place;
    uint32_t count = 0;

    TAILQ_FOREACH(place, &set->places, link)
    {
        uint32_t out = 0;
        count++;
        for (uint32_t i = 0; i < set->options.shard_count; i++) {
            const struct quota_share *share = &place->shares[i];
            out += share->out;
            CHECK(share->given == 0);
            CHECK(share->out == 0 || share->is_recalled || !somebody_wants(set, place));
        }
        CHECK(out == place->out_total);
        CHECK(out > 0 || !somebody_wants(set, place));
        rate_limiter_verify(&place->limiter);
    }
    CHECK(count == set->stats.places);
}

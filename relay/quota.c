/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Quotas of users, the side of who asks: the rights that a shard has at hand, and who waits for
 * some.
 *
 *   ask: a right is at hand      yes; taking it counts as used, and the home hears of it later;
 *                                one of older settings goes back first
 *        refused until           no, without asking again
 *        neither                 ASK, wait ---GRANT---> woken, asks again: yes
 *                                          `--REFUSE--> woken, asks again: no
 *
 * Rights end: after QUOTA_LEASE_TIME, or a sixteenth of the shortest window; when the home wants
 * them back (RECALL), at the end of the turn, so that those who were woken in it have theirs and
 * two shards do not hand one right to and fro for ever; when the shard stops. Then a RETURN says
 * how many were used, the last of them when, and how many not. At the home itself each use is told
 * at once: with one shard nothing is ever out.
 *
 * Invariants (quota_verify())
 *   1. A lease is kept while it has rights, uses that the home does not know of, a refusal in
 *      force, a question under way or somebody who waits.
 *   2. Who waits has a question under way.
 *   3. What has rights or untold uses, or a refusal, has the timer.
 *
 * Limits: QUOTA_LEASES_MAX leases, beyond which, and without memory, the answer is no. A refusal is
 * believed for REFUSED_TIME at most, then asked about again. Cost: a hash and a chain of a few
 * places; no message while rights are at hand.
 */
#include <stdlib.h>

#include "queue/keyed_hash.h"
#include "relay/quota_internal.h"

#define QUOTA_LEASES_MAX 262144u
#define REFUSED_TIME     TICK_S(60)
#define NAME_PIECE       64u

/* ---- names ---- */

/* The keys are no secret: names are the operator's, and the same after a restart. */
struct quota_key quota_key_of(struct span user)
{
    static const struct keyed_hash hashes[2] = {{{0x9e3779b97f4a7c15u, 0xbf58476d1ce4e5b9u}},
                                                {{0x94d049bb133111ebu, 0x2545f4914f6cdd1du}}};
    struct quota_key key = {{user.size, 0}};
    uint8_t folded[sizeof(key) + NAME_PIECE];

    for (uint32_t at = 0; at < user.size; at += NAME_PIECE) {
        uint32_t size = user.size - at < NAME_PIECE ? user.size - at : NAME_PIECE;
        memcpy(folded, &key, sizeof(key));
        for (uint32_t i = 0; i < size; i++) {
            uint8_t octet = user.data[at + i];
            folded[sizeof(key) + i] = octet >= 'A' && octet <= 'Z' ? octet | 0x20 : octet;
        }
        struct span piece = span_of(folded, (uint32_t)sizeof(key) + size);
        key = (struct quota_key){
            {keyed_hash_octets(&hashes[0], piece), keyed_hash_octets(&hashes[1], piece)}};
    }
    return key;
}

uint32_t quota_home_of(struct quota_key user, uint32_t shard_count)
{
    return (uint32_t)(user.half[0] % shard_count);
}

/* ---- leases ---- */

static struct quota_lease *lease_find(struct quota_set *set, struct quota_key user,
                                      enum quota_kind kind)
{
    struct quota_lease *lease;

    LIST_FOREACH(lease, &set->leases[quota_bucket_of(user, kind)], chain)
    {
        if (lease->kind == kind && quota_key_is_equal(lease->user, user))
            return lease;
    }
    return NULL;
}

static struct quota_lease *lease_get(struct quota_set *set, const struct quota_question *question)
{
    struct quota_lease *lease = lease_find(set, question->user, question->kind);

    if (lease != NULL || set->lease_count >= QUOTA_LEASES_MAX)
        return lease;
    lease = calloc(1, sizeof(*lease));
    if (lease == NULL)
        return NULL;
    lease->user = question->user;
    lease->kind = (uint8_t)question->kind;
    LIST_INIT(&lease->waiters);
    LIST_INSERT_HEAD(&set->leases[quota_bucket_of(lease->user, lease->kind)], lease, chain);
    set->lease_count++;
    return lease;
}

static void lease_free(struct quota_set *set, struct quota_lease *lease)
{
    CHECK(LIST_EMPTY(&lease->waiters));
    if (lease->is_recalled)
        TAILQ_REMOVE(&set->recalled, lease, link);
    wheel_cancel(&set->wheel, &lease->timer);
    LIST_REMOVE(lease, chain);
    set->lease_count--;
    free(lease);
}

static bool lease_is_idle(const struct quota_lease *lease, tick_us now)
{
    return lease->unused == 0 && lease->used == 0 && lease->refused_until <= now &&
           !lease->is_asked && LIST_EMPTY(&lease->waiters);
}

/* Keep it as long as it is good for something. */
static void lease_review(struct quota_set *set, struct quota_lease *lease, tick_us now)
{
    if (lease_is_idle(lease, now))
        lease_free(set, lease);
    else if (lease->unused > 0 || lease->used > 0)
        wheel_arm(&set->wheel, &lease->timer, lease->until);
    else if (lease->refused_until > now)
        wheel_arm(&set->wheel, &lease->timer, lease->refused_until);
    else
        wheel_cancel(&set->wheel, &lease->timer);
}

static void lease_wake(struct quota_set *set, struct quota_lease *lease)
{
    struct quota_waiter *waiter;

    while ((waiter = LIST_FIRST(&lease->waiters)) != NULL) {
        quota_leave(waiter);
        lease->woken++;
        set->options.wake(set->options.context, waiter->owner);
    }
}

/* ---- messages ---- */

void quota_post(struct quota_set *set, uint32_t to_shard, struct quota_message *message,
                tick_us now)
{
    message->from_shard = set->options.shard;
    if (to_shard == set->options.shard)
        quota_receive(set, message, now);
    else
        set->options.send(set->options.context, to_shard, message);
}

static void lease_return(struct quota_set *set, struct quota_lease *lease, tick_us now)
{
    struct quota_message message = {.kind = QUOTA_MESSAGE_RETURN,
                                    .user = lease->user,
                                    .of = lease->kind,
                                    .count = lease->unused,
                                    .used = lease->used,
                                    .time = lease->used_at};

    if (lease->unused == 0 && lease->used == 0)
        return;
    lease->unused = lease->used = 0;
    quota_post(set, quota_home_of(lease->user, set->options.shard_count), &message, now);
}

/* The home's own uses: they count from their very moment. */
static void lease_tell_used(struct quota_set *set, struct quota_lease *lease, tick_us now)
{
    struct quota_message message = {.kind = QUOTA_MESSAGE_RETURN,
                                    .user = lease->user,
                                    .of = lease->kind,
                                    .used = lease->used,
                                    .time = now};

    lease->used = 0;
    quota_post(set, set->options.shard, &message, now);
}

static void lease_ask(struct quota_set *set, struct quota_lease *lease,
                      const struct quota_question *question, tick_us now)
{
    struct quota_message message = {.kind = QUOTA_MESSAGE_ASK,
                                    .user = lease->user,
                                    .of = lease->kind,
                                    .count = lease->woken > 0 ? lease->woken : 1,
                                    .used = lease->used,
                                    .time = lease->used_at,
                                    .serial = question->serial,
                                    .rate_count = (uint8_t)question->rates->count};
    uint32_t home = quota_home_of(lease->user, set->options.shard_count);

    CHECK(question->rates->count <= RATE_MAX && lease->unused == 0);
    lease->woken = 0;
    for (uint32_t i = 0; i < question->rates->count; i++) {
        message.rates[i].count = question->rates->rates[i].count;
        message.rates[i].window_ms = (uint32_t)((question->rates->rates[i].window + 999) / 1000);
    }
    lease->used = 0;
    lease->is_asked = true;
    lease->refused_until = 0;
    lease->serial = question->serial;
    set->stats.asks += home != set->options.shard;
    quota_post(set, home, &message, now);
}

void quota_lease_receive(struct quota_set *set, const struct quota_message *message, tick_us now)
{
    struct quota_lease *lease = lease_find(set, message->user, message->of);

    if (message->kind == QUOTA_MESSAGE_RECALL) {
        if (lease != NULL && !lease->is_recalled)
            TAILQ_INSERT_TAIL(&set->recalled, lease, link);
        if (lease != NULL)
            lease->is_recalled = true;
        return;
    }
    CHECK(lease != NULL && lease->is_asked);
    lease->is_asked = false;
    if (message->kind == QUOTA_MESSAGE_GRANT) {
        lease->unused += message->count;
        lease->until = message->time;
        lease->refused_until = 0;
    } else {
        tick_us believed = now + REFUSED_TIME;
        lease->refused_until = message->time < believed ? message->time : believed;
        lease->is_first = message->is_first;
    }
    lease_wake(set, lease);
    lease_review(set, lease, now);
}

void quota_receive(struct quota_set *set, const struct quota_message *message, tick_us now)
{
    CHECK(message->of < QUOTA_KIND_COUNT);
    if (message->kind == QUOTA_MESSAGE_ASK || message->kind == QUOTA_MESSAGE_RETURN)
        quota_home_receive(set, message, now);
    else
        quota_lease_receive(set, message, now);
}

/* ---- asking ---- */

static bool answer_is_known(const struct quota_lease *lease, const struct quota_question *question,
                            tick_us now)
{
    return question->serial <= lease->serial && (lease->unused > 0 || lease->refused_until > now);
}

/* What is known, the refusal being told of. */
static enum quota_answer answer_of(struct quota_lease *lease, bool *ret_is_first)
{
    if (lease->unused > 0)
        return QUOTA_YES;
    *ret_is_first = lease->is_first;
    lease->is_first = false;
    return QUOTA_NO;
}

enum quota_answer quota_ask(struct quota_set *set, const struct quota_question *question,
                            struct quota_waiter *waiter, tick_us now, bool *ret_is_first)
{
    *ret_is_first = false;
    CHECK(waiter->lease == NULL);
    if (question->rates->count == 0)
        return QUOTA_YES;
    struct quota_lease *lease = lease_get(set, question);
    if (lease == NULL)
        return QUOTA_NO;
    if (!answer_is_known(lease, question, now) && !lease->is_asked) {
        if (lease->unused > 0) /* of older settings */
            lease_return(set, lease, now);
        lease_ask(set, lease, question, now); /* at home the answer may be there at once */
    }
    if (answer_is_known(lease, question, now))
        return answer_of(lease, ret_is_first);
    waiter->lease = lease;
    lease->waiter_count++;
    LIST_INSERT_HEAD(&lease->waiters, waiter, link);
    return QUOTA_WAIT;
}

void quota_take(struct quota_set *set, const struct quota_question *question, tick_us now)
{
    struct quota_lease *lease;

    if (question->rates->count == 0)
        return;
    lease = lease_find(set, question->user, question->kind);
    CHECK(lease != NULL && lease->unused > 0);
    lease->unused--;
    lease->woken -= lease->woken > 0;
    lease->used++;
    lease->used_at = now;
    if (quota_home_of(lease->user, set->options.shard_count) == set->options.shard)
        lease_tell_used(set, lease, now);
    lease_review(set, lease, now);
}

void quota_leave(struct quota_waiter *waiter)
{
    if (waiter->lease == NULL)
        return;
    LIST_REMOVE(waiter, link);
    waiter->lease->waiter_count--;
    waiter->lease = NULL;
}

/* ---- turns ---- */

void quota_advance(struct quota_set *set, tick_us now)
{
    struct quota_lease *lease, *last = TAILQ_LAST(&set->recalled, quota_lease_list);
    struct wheel_timer *timer;

    /* What is recalled meanwhile comes back after the next turn: somebody may have been woken. */
    for (bool is_last = last == NULL; !is_last;) {
        lease = TAILQ_FIRST(&set->recalled);
        is_last = lease == last;
        TAILQ_REMOVE(&set->recalled, lease, link);
        lease->is_recalled = false;
        lease_return(set, lease, now);
        lease_review(set, lease, now);
    }
    while ((timer = wheel_expire_next(&set->wheel, now)) != NULL) {
        lease = WHEEL_OWNER(timer, struct quota_lease, timer);
        if (lease->until <= now)
            lease_return(set, lease, now);
        lease_review(set, lease, now);
    }
}

tick_us quota_deadline(const struct quota_set *set)
{
    return TAILQ_EMPTY(&set->recalled) ? wheel_deadline(&set->wheel) : 0;
}

void quota_return_all(struct quota_set *set, tick_us now)
{
    for (uint32_t i = 0; i < QUOTA_BUCKETS; i++) {
        struct quota_lease *lease = LIST_FIRST(&set->leases[i]), *next;
        for (; lease != NULL; lease = next) {
            next = LIST_NEXT(lease, chain);
            lease_return(set, lease, now);
            lease_review(set, lease, now);
        }
    }
}

/* ---- life ---- */

struct quota_set *quota_set_new(const struct quota_options *options, tick_us now)
{
    struct quota_set *set = calloc(1, sizeof(*set));

    CHECK(set != NULL && options->shard < options->shard_count && options->place_max > 0);
    set->options = *options;
    wheel_init(&set->wheel, now);
    TAILQ_INIT(&set->recalled);
    TAILQ_INIT(&set->places);
    return set;
}

void quota_set_free(struct quota_set *set)
{
    for (uint32_t i = 0; i < QUOTA_BUCKETS; i++) {
        while (!LIST_EMPTY(&set->leases[i]))
            lease_free(set, LIST_FIRST(&set->leases[i]));
    }
    quota_places_free(set);
    free(set);
}

struct quota_stats quota_get_stats(const struct quota_set *set)
{
    return set->stats;
}

void quota_verify(const struct quota_set *set)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < QUOTA_BUCKETS; i++) {
        const struct quota_lease *lease;
        LIST_FOREACH(lease, &set->leases[i], chain)
        {
            const struct quota_waiter *waiter;
            uint32_t waiting = 0;
            LIST_FOREACH(waiter, &lease->waiters, link) waiting++;
            count++;
            CHECK(waiting == lease->waiter_count);
            CHECK(waiting == 0 || lease->is_asked);
            CHECK(lease->is_asked || wheel_is_armed(&lease->timer));
            CHECK(lease->unused + lease->used == 0 || wheel_is_armed(&lease->timer));
        }
    }
    CHECK(count == set->lease_count);
    quota_home_verify(set);
}

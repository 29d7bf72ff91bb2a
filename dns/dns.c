/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stub resolver of a shard: questions, the cache in front of them, and who waits for them.
 *
 *   dns_ask()  cache -> answer
 *              cache, question already out -> wait with the others (coalesced)
 *              a question of its own: to the home shard of the name, or to the resolvers
 *
 * Life of a question                      done by
 *   FREE -> ASKED      this shard asks     dns_question_ask_resolvers()
 *   FREE -> AT_HOME    the home asks       dns_home_ask()
 *   AT_HOME -> ASKED   home is no help     dns_question_ask_resolvers()
 *   * -> FREE          answered or failed  question_release()
 *
 * Invariants
 *   1. At most one question per (name, type) is out, so that a birthday attack has one target
 *      (RFC 5452 section 5), and at most outstanding_max in all.
 *   2. Every question ends: the exchange with the resolvers, and the wait for home, are bounded,
 *      and shorter when there are more questions than places: questions_make_room().
 *   3. A waiter is told exactly once, from dns_on_flow(), dns_receive() or dns_advance(); users
 *      (wake) only after all of that is done, so that they may call anything.
 *   4. A failure never replaces an answer that is fresh, or positive and may still be served stale;
 *      and it is never a negative answer.
 *   5. Stale answers (RFC 8767) are positive, at most stale_max_s past their TTL, and only handed
 *      out after the refresh failed; for DNS_STALE_RECHECK they are then handed out at once.
 *
 * Not here: packets (query.c), resolvers (transport.c), which hosts take mail (mx.c), what shards
 * say to each other (home.c).
 */
#include "dns/dns.h"

#include <stdlib.h>

#include "dns/resolve.h"

#define USER_INDEX_MASK 0xffffffu

static struct dns_options options_complete(const struct dns_options *options)
{
    struct dns_options complete = *options;

    if (complete.cache_count_max == 0)
        complete.cache_count_max = 65536;
    if (complete.query_timeout == 0)
        complete.query_timeout = TICK_S(2);
    if (complete.tries_max == 0)
        complete.tries_max = 4;
    if (complete.ttl_min_s == 0)
        complete.ttl_min_s = 5;
    if (complete.ttl_max_s == 0)
        complete.ttl_max_s = 86400;
    if (complete.negative_ttl_max_s == 0)
        complete.negative_ttl_max_s = 900;
    if (complete.outstanding_max == 0)
        complete.outstanding_max = 1024;
    if (complete.shard_count == 0)
        complete.shard_count = 1;
    return complete;
}

static void questions_init(struct dns *dns)
{
    uint32_t bucket_count = 16, count = dns->options.outstanding_max;

    while (bucket_count < count)
        bucket_count *= 2;
    dns->bucket_mask = bucket_count - 1;
    dns->questions = calloc(count, sizeof(*dns->questions));
    dns->buckets = calloc(bucket_count, sizeof(*dns->buckets));
    dns->task_buckets = calloc(bucket_count, sizeof(struct mx_task *));
    CHECK(dns->questions != NULL && dns->buckets != NULL && dns->task_buckets != NULL);
    for (uint32_t i = count; i > 0; i--) {
        dns->questions[i - 1].index = i - 1;
        dns->questions[i - 1].next = dns->free;
        dns->free = i;
    }
}

struct dns *dns_new(const struct dns_options *options, struct flow_plane *plane, struct rng *rng,
                    struct tick_now now)
{
    struct dns *dns = calloc(1, sizeof(*dns));
    CHECK(dns != NULL);
    dns->options = options_complete(options);
    CHECK(dns->options.outstanding_max <= USER_INDEX_MASK);
    CHECK(dns->options.shard < dns->options.shard_count);

    dns->plane = plane;
    dns->rng = rng;
    uint64_t key[2] = {rng_u64(rng), rng_u64(rng)};
    dns->cache = cache_new(dns->options.cache_count_max, key);
    dns->worked = worked_new(dns->options.cache_count_max);
    transport_init(&dns->transport, &dns->options, plane, rng, &dns->stats);
    wheel_init(&dns->wheel, now.tick);
    questions_init(dns);
    return dns;
}

void dns_free(struct dns *dns)
{
    for (uint32_t i = 0; i < dns->options.outstanding_max; i++) {
        struct dns_question *question = &dns->questions[i];
        if (question->state == DNS_QUESTION_ASKED)
            transport_end(&dns->transport, &question->exchange);
        free(question->value);
        while (question->waiters != NULL) {
            struct dns_waiter *waiter = question->waiters;
            question->waiters = waiter->next;
            if (waiter->task == NULL)
                free(waiter);
        }
    }
    mx_tasks_free(dns);
    cache_free(dns->cache);
    worked_free(dns->worked);
    free(dns->questions);
    free(dns->buckets);
    free(dns->task_buckets);
    free(dns);
}

static struct dns_question *question_find(struct dns *dns, uint64_t hash, struct span name,
                                          uint16_t type)
{
    uint32_t link = dns->buckets[hash & dns->bucket_mask];

    while (link != 0) {
        struct dns_question *question = &dns->questions[link - 1];
        if (question->hash == hash && question->type == type &&
            span_is_equal(span_of(question->name, question->name_size), name)) {
            return question;
        }
        link = question->next;
    }
    return NULL;
}

static struct dns_question *question_acquire(struct dns *dns, uint64_t hash, struct span name,
                                             uint16_t type)
{
    if (dns->free == 0)
        return NULL;
    struct dns_question *question = &dns->questions[dns->free - 1];
    CHECK(question->state == DNS_QUESTION_FREE);
    dns->free = question->next;
    dns->outstanding++;
    question->hash = hash;
    question->type = type;
    question->name_size = (uint8_t)name.size;
    memcpy(question->name, name.data, name.size);
    question->generation++;
    question->next = dns->buckets[hash & dns->bucket_mask];
    dns->buckets[hash & dns->bucket_mask] = question->index + 1;
    return question;
}

static void question_release(struct dns *dns, struct dns_question *question)
{
    uint32_t *link = &dns->buckets[question->hash & dns->bucket_mask];

    CHECK(question->waiters == NULL);
    while (*link != question->index + 1) {
        CHECK(*link != 0);
        link = &dns->questions[*link - 1].next;
    }
    *link = question->next;
    if (question->state == DNS_QUESTION_ASKED)
        transport_end(&dns->transport, &question->exchange);
    wheel_cancel(&dns->wheel, &question->timer);
    free(question->value);
    question->value = NULL;
    question->home_tries = 0;
    question->state = DNS_QUESTION_FREE;
    question->next = dns->free;
    dns->free = question->index + 1;
    dns->outstanding--;
}

/* Tell everyone who waits. Nothing is put into the cache meanwhile, so `result` stays valid. */
static void waiters_tell(struct dns *dns, struct dns_question *question,
                         const struct dns_result *result, uint32_t serial, tick_us now)
{
    struct dns_waiter *waiters = question->waiters;

    question->waiters = NULL;
    while (waiters != NULL) {
        struct dns_waiter *waiter = waiters;
        waiters = waiter->next;
        if (waiter->task != NULL) {
            mx_task_on_result(dns, waiter->task, waiter->slot, result, now);
            continue;
        }
        dns_home_reply(dns, waiter->shard, waiter->cookie, 0, result, serial);
        dns->remote_waiters--;
        free(waiter);
    }
}

static struct dns_result result_of(struct dns *dns, const struct cache_entry *entry, tick_us now)
{
    struct span name = span_of(entry->block, entry->name_size);
    struct dns_result result = {.note = entry->note, .value = cache_entry_value(entry)};

    result.note.is_stale = now >= entry->note.expires;
    if (entry->note.outcome != DNS_OUTCOME_POSITIVE)
        result.has_worked =
            worked_find(dns->worked, cache_hash_of(dns->cache, name, 0), now) != NULL;
    return result;
}

void dns_question_finish(struct dns *dns, struct dns_question *question,
                         const struct cache_note *note, struct span value, bool has_worked,
                         tick_us now)
{
    struct span name = span_of(question->name, question->name_size);

    cache_advance(dns->cache, now);
    struct cache_entry *entry =
        cache_put(dns->cache, question->hash, name, question->type, note, value);
    if (note->outcome == DNS_OUTCOME_POSITIVE && now < note->expires)
        worked_note(dns->worked, cache_hash_of(dns->cache, name, 0), note->fetched);
    struct dns_result result = result_of(dns, entry, now);
    result.has_worked |= has_worked;
    waiters_tell(dns, question, &result, entry->serial, now);
    question_release(dns, question);
}

static void question_answer(struct dns *dns, struct dns_question *question, tick_us now)
{
    const struct query_answer *answer = &dns->answer;
    tick_us ttl = TICK_S((tick_us)answer->ttl_s);
    struct cache_note note = {
        .outcome = (uint8_t)answer->outcome,
        .fetched = now,
        .expires = now + ttl,
        .refresh_at = now + ttl / 10 * 9,
    };

    if (answer->outcome == DNS_OUTCOME_POSITIVE)
        note.stale_until = note.expires + TICK_S((tick_us)dns->options.stale_max_s);
    dns_question_finish(dns, question, &note, span_of(answer->value, answer->value_size), false,
                        now);
}

/* May this answer still be used although it could not be refreshed? */
static bool entry_is_usable(const struct cache_entry *entry, tick_us now)
{
    const struct cache_note *note = &entry->note;

    if (now < note->expires)
        return note->outcome != DNS_OUTCOME_FAILED;
    return note->outcome == DNS_OUTCOME_POSITIVE && now < note->stale_until;
}

void dns_question_fail(struct dns *dns, struct dns_question *question, tick_us now)
{
    struct span name = span_of(question->name, question->name_size);
    struct cache_entry *entry = cache_find(dns->cache, question->hash, name, question->type);

    if (entry != NULL && entry_is_usable(entry, now) && question->want.fetched_after == 0) {
        entry->note.retry_at = now + DNS_STALE_RECHECK;
        struct dns_result result = result_of(dns, entry, now);
        dns->stats.stale_served += result.note.is_stale;
        waiters_tell(dns, question, &result, entry->serial, now);
        question_release(dns, question);
        return;
    }
    struct cache_note note = {
        .outcome = DNS_OUTCOME_FAILED,
        .fetched = now,
        .expires = now + DNS_FAILURE_TTL,
        .refresh_at = now + DNS_FAILURE_TTL,
    };
    dns_question_finish(dns, question, &note, span_of(NULL, 0), false, now);
}

/* What the exchange says next: arm its deadline, or end the question. */
static void question_proceed(struct dns *dns, struct dns_question *question,
                             enum transport_result result, struct span packet, tick_us now)
{
    struct query_limits limits = {dns->options.ttl_min_s, dns->options.ttl_max_s,
                                  dns->options.negative_ttl_max_s};

    if (result == TRANSPORT_ANSWERED) {
        if (query_read(&question->exchange.query, packet, &limits, &dns->message, &dns->answer) ==
            ERR_OK) {
            question_answer(dns, question, now);
            return;
        }
        result = transport_reject(&dns->transport, &question->exchange, now);
    }
    if (result == TRANSPORT_FAILED) {
        dns_question_fail(dns, question, now);
        return;
    }
    wheel_arm(&dns->wheel, &question->timer, question->exchange.deadline);
}

void dns_question_ask_resolvers(struct dns *dns, struct dns_question *question, tick_us now)
{
    uint64_t user = DNS_FLOW_USER_TAG | question->index;

    question->state = DNS_QUESTION_ASKED;
    question->begun = now;
    transport_begin(&dns->transport, &question->exchange,
                    span_of(question->name, question->name_size), question->type, user, now);
    wheel_arm(&dns->wheel, &question->timer, question->exchange.deadline);
}

static bool entry_is_wanted(const struct cache_entry *entry, const struct dns_want *want,
                            tick_us now)
{
    const struct cache_note *note = &entry->note;

    if (note->fetched < want->fetched_after)
        return false;
    if (now < note->expires)
        return !want->is_refresh || now < note->refresh_at || now < note->retry_at;
    return entry_is_usable(entry, now) && now < note->retry_at;
}

enum err dns_ask(struct dns *dns, struct span name, uint16_t type, const struct dns_want *want,
                 struct dns_waiter *waiter, tick_us now, struct dns_result *ret_result)
{
    CHECK(query_name_is_sound(name));

    uint64_t hash = cache_hash_of(dns->cache, name, type);
    struct cache_entry *entry = cache_find(dns->cache, hash, name, type);
    if (entry != NULL && entry_is_wanted(entry, want, now)) {
        *ret_result = result_of(dns, entry, now);
        dns->stats.hits++;
        dns->stats.stale_served += ret_result->note.is_stale;
        return ERR_OK;
    }

    struct dns_question *question = question_find(dns, hash, name, type);
    if (question != NULL) {
        dns->stats.coalesced++;
    } else {
        question = question_acquire(dns, hash, name, type);
        if (question == NULL)
            return ERR_LIMIT;
        dns->stats.misses++;
        question->want = *want;
        if (dns_home_is_other(dns, name, &question->home))
            dns_home_ask(dns, question, now);
        else
            dns_question_ask_resolvers(dns, question, now);
    }
    waiter->next = question->waiters;
    question->waiters = waiter;
    return ERR_AGAIN;
}

void dns_on_flow(struct dns *dns, const struct flow_event *event, struct tick_now now)
{
    uint64_t index = event->user & USER_INDEX_MASK;

    if ((event->user & DNS_FLOW_USER_MASK) != DNS_FLOW_USER_TAG ||
        index >= dns->options.outstanding_max) {
        return;
    }
    struct dns_question *question = &dns->questions[index];
    struct flow flow = question->exchange.flow;
    /* An event of an earlier try, or of an earlier question in this place, is of no interest. */
    if (question->state != DNS_QUESTION_ASKED || flow.index != event->flow.index ||
        flow.generation != event->flow.generation) {
        return;
    }
    struct span packet = {NULL, 0};
    enum transport_result result =
        transport_on_flow(&dns->transport, &question->exchange, event, now.tick, &packet);
    question_proceed(dns, question, result, packet, now.tick);
    mx_tasks_report(dns, now.tick);
}

/* Names whose servers are silent, or slow, must not keep all others from being asked for: when
 * somebody was turned away, questions that have had the time of one try give up their places. */
static void questions_make_room(struct dns *dns, tick_us now)
{
    uint32_t wanted = dns->turned_away;

    dns->turned_away = 0;
    for (uint32_t i = 0; i < dns->options.outstanding_max && wanted > 0; i++) {
        struct dns_question *question = &dns->questions[i];
        if (question->state != DNS_QUESTION_ASKED ||
            now < question->begun + dns->options.query_timeout)
            continue;
        dns->stats.cut_short++;
        dns_question_fail(dns, question, now);
        wanted--;
    }
}

void dns_advance(struct dns *dns, struct tick_now now)
{
    struct wheel_timer *timer;
    struct span none = {NULL, 0};

    while ((timer = wheel_expire_next(&dns->wheel, now.tick)) != NULL) {
        struct dns_question *question = WHEEL_OWNER(timer, struct dns_question, timer);
        if (question->state == DNS_QUESTION_AT_HOME) {
            dns->stats.timeouts++;
            dns_question_fail(dns, question, now.tick);
            continue;
        }
        enum transport_result result =
            transport_expire(&dns->transport, &question->exchange, now.tick);
        question_proceed(dns, question, result, none, now.tick);
    }
    if (dns->turned_away > 0)
        questions_make_room(dns, now.tick);
    mx_tasks_report(dns, now.tick);
}

tick_us dns_deadline(const struct dns *dns)
{
    return wheel_deadline(&dns->wheel);
}

struct dns_stats dns_get_stats(const struct dns *dns)
{
    struct dns_stats stats = dns->stats;

    stats.entries = cache_count(dns->cache);
    stats.evicted = cache_evicted(dns->cache);
    stats.outstanding = dns->outstanding;
    return stats;
}

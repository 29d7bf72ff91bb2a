/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shards and the homes of names: each name has one shard that asks the resolvers for it, so that a
 * name that all shards want at once is asked for once.
 *
 * One request, one reply, always: the transport between shards gives credit by reply. An answer
 * longer than a message is fetched in parts by further requests; the serial of the cache entry at
 * home tells when it changed in between.
 *
 *   ASK     kind, name size, type, cookie of the question, offset, flags, serial, fetched_after,
 * name ANSWER  kind, outcome, flags, part size, cookie, offset, total size, serial, fetched,
 * expires, part
 *
 * Both are MESSAGE_SIZE octets in host order. Clocks agree: all shards read the same one.
 *
 * Invariants
 *   1. The home of a name is the same on every shard (hash_key is).
 *   2. A name too long for a message, DNS_HOME_NAME_MAX, has no home; each shard asks by itself.
 *   3. A shard that waits for home gives up after the time that home needs at most; an answer that
 *      then comes finds another generation in its cookie.
 *   4. At most DNS_HOME_TRIES_MAX changes of an answer under the copy; then this shard asks itself.
 *   5. Waiters of other shards are at most outstanding_max; who comes then, or when no question is
 *      free, is told to ask the resolvers itself.
 */
#include <stdlib.h>

#include "dns/resolve.h"

#define MESSAGE_SIZE 112u
#define PART_MAX     80u
#define COOKIE_INDEX 20u /* bits */
#define FLAG_REFRESH 1u
#define FLAG_WORKED  2u
#define FLAG_RESTART 4u /* the part asked for is of an answer that is gone */
#define FLAG_BUSY    8u /* home has no question free: ask the resolvers yourself */

enum message_kind { MESSAGE_ASK = 1, MESSAGE_ANSWER = 2 };

struct ask_message {
    uint8_t kind, name_size;
    uint16_t type;
    uint32_t cookie;
    uint16_t offset, flags;
    uint32_t serial;
    uint64_t fetched_after;
    uint8_t name[DNS_HOME_NAME_MAX];
};
struct answer_message {
    uint8_t kind, outcome, flags, part_size;
    uint32_t cookie;
    uint16_t offset, total;
    uint32_t serial;
    uint64_t fetched, expires;
    uint8_t part[PART_MAX];
};
_Static_assert(sizeof(struct ask_message) == MESSAGE_SIZE, "fits a ring message");
_Static_assert(sizeof(struct answer_message) == MESSAGE_SIZE, "fits a ring message");

bool dns_home_is_other(const struct dns *dns, struct span name, uint32_t *ret_shard)
{
    const struct dns_options *options = &dns->options;

    if (options->shard_count == 1 || name.size > DNS_HOME_NAME_MAX)
        return false;
    *ret_shard = (uint32_t)(cache_hash(options->hash_key, name, 0) % options->shard_count);
    return *ret_shard != options->shard;
}

static uint32_t question_cookie(const struct dns_question *question)
{
    return question->generation << COOKIE_INDEX | question->index;
}

static void question_send(struct dns *dns, struct dns_question *question, uint32_t offset)
{
    struct ask_message ask = {
        .kind = MESSAGE_ASK,
        .name_size = question->name_size,
        .type = question->type,
        .cookie = question_cookie(question),
        .offset = (uint16_t)offset,
        .flags = question->want.is_refresh ? FLAG_REFRESH : 0,
        .serial = question->serial,
        .fetched_after = question->want.fetched_after,
    };

    memcpy(ask.name, question->name, question->name_size);
    dns->stats.remote_asks++;
    dns->options.send(dns->options.context, question->home, &ask, sizeof(ask), false);
}

void dns_home_ask(struct dns *dns, struct dns_question *question, tick_us now)
{
    CHECK(question->index >> COOKIE_INDEX == 0);

    question->state = DNS_QUESTION_AT_HOME;
    question->value_used = question->value_size = question->serial = question->home_tries = 0;
    wheel_arm(&dns->wheel, &question->timer, now + transport_time_max(&dns->transport) + TICK_S(1));
    question_send(dns, question, 0);
}

void dns_home_reply(struct dns *dns, uint32_t to_shard, uint32_t cookie, uint32_t offset,
                    const struct dns_result *result, uint32_t serial)
{
    struct span rest = span_skip(result->value, offset);
    uint32_t part_size = rest.size < PART_MAX ? rest.size : PART_MAX;
    struct answer_message answer = {
        .kind = MESSAGE_ANSWER,
        .outcome = result->note.outcome,
        .flags = result->has_worked ? FLAG_WORKED : 0,
        .part_size = (uint8_t)part_size,
        .cookie = cookie,
        .offset = (uint16_t)offset,
        .total = (uint16_t)result->value.size,
        .serial = serial,
        .fetched = result->note.fetched,
        .expires = result->note.expires,
    };

    if (part_size > 0)
        memcpy(answer.part, rest.data, part_size);
    dns->options.send(dns->options.context, to_shard, &answer, sizeof(answer), true);
}

/* Home cannot give the answer; the flag says what the asker does instead. */
static void reply_without_value(struct dns *dns, uint32_t to_shard, uint32_t cookie, uint8_t flag)
{
    struct answer_message answer = {
        .kind = MESSAGE_ANSWER,
        .outcome = DNS_OUTCOME_FAILED,
        .flags = flag,
        .cookie = cookie,
    };

    dns->options.send(dns->options.context, to_shard, &answer, sizeof(answer), true);
}

/* A later part of an answer: from the cache, if it is still the same one. */
static void ask_part(struct dns *dns, uint32_t from_shard, const struct ask_message *ask)
{
    struct span name = span_of(ask->name, ask->name_size);
    uint64_t hash = cache_hash_of(dns->cache, name, ask->type);
    struct cache_entry *entry = cache_find(dns->cache, hash, name, ask->type);

    if (entry == NULL || entry->serial != ask->serial || ask->offset >= entry->value_size) {
        reply_without_value(dns, from_shard, ask->cookie, FLAG_RESTART);
        return;
    }
    struct dns_result result = {.note = entry->note, .value = cache_entry_value(entry)};
    dns_home_reply(dns, from_shard, ask->cookie, ask->offset, &result, entry->serial);
}

static uint32_t serial_of(struct dns *dns, struct span name, uint16_t type)
{
    struct cache_entry *entry =
        cache_find(dns->cache, cache_hash_of(dns->cache, name, type), name, type);

    return entry == NULL ? 0 : entry->serial;
}

static void on_ask(struct dns *dns, uint32_t from_shard, const struct ask_message *ask, tick_us now)
{
    struct span name = span_of(ask->name, ask->name_size);
    struct dns_want want = {ask->fetched_after, (ask->flags & FLAG_REFRESH) != 0};
    struct dns_result result;
    struct dns_waiter *waiter = NULL;

    if (ask->offset > 0) {
        ask_part(dns, from_shard, ask);
        return;
    }
    if (dns->remote_waiters < dns->options.outstanding_max)
        waiter = calloc(1, sizeof(*waiter));
    if (waiter == NULL) {
        reply_without_value(dns, from_shard, ask->cookie, FLAG_BUSY);
        return;
    }
    waiter->shard = from_shard;
    waiter->cookie = ask->cookie;
    enum err err = dns_ask(dns, name, ask->type, &want, waiter, now, &result);
    if (err == ERR_AGAIN) {
        dns->remote_waiters++;
        return;
    }
    free(waiter);
    if (err == ERR_OK)
        dns_home_reply(dns, from_shard, ask->cookie, 0, &result, serial_of(dns, name, ask->type));
    else
        reply_without_value(dns, from_shard, ask->cookie, FLAG_BUSY);
}

/* The answer at home changed while we copied it: again from its start, or by ourselves. */
static void question_restart(struct dns *dns, struct dns_question *question, tick_us now)
{
    free(question->value);
    question->value = NULL;
    question->value_used = question->value_size = 0;
    if (++question->home_tries < DNS_HOME_TRIES_MAX)
        question_send(dns, question, 0);
    else
        dns_question_ask_resolvers(dns, question, now);
}

/* The first part says how long the answer is, and how good. */
static void question_begin_value(struct dns *dns, struct dns_question *question,
                                 const struct answer_message *answer)
{
    tick_us ttl = answer->expires - answer->fetched;

    CHECK(answer->total <= QUERY_VALUE_MAX);
    free(question->value);
    question->value = malloc(answer->total + 1u);
    CHECK(question->value != NULL);
    question->value_size = answer->total;
    question->value_used = 0;
    question->serial = answer->serial;
    question->note = (struct cache_note){
        .outcome = answer->outcome,
        .fetched = answer->fetched,
        .expires = answer->expires,
        .refresh_at = answer->fetched + ttl / 10 * 9,
    };
    if (answer->outcome == DNS_OUTCOME_POSITIVE) {
        question->note.stale_until = answer->expires + TICK_S((tick_us)dns->options.stale_max_s);
    }
}

static void on_answer(struct dns *dns, const struct answer_message *answer, tick_us now)
{
    uint32_t index = answer->cookie & ((1u << COOKIE_INDEX) - 1);
    CHECK(index < dns->options.outstanding_max);
    struct dns_question *question = &dns->questions[index];

    if (question->state != DNS_QUESTION_AT_HOME || question_cookie(question) != answer->cookie)
        return;
    if (answer->flags & FLAG_RESTART) {
        question_restart(dns, question, now);
        return;
    }
    if (answer->flags & FLAG_BUSY) {
        dns_question_ask_resolvers(dns, question, now);
        return;
    }
    if (answer->outcome == DNS_OUTCOME_FAILED) {
        dns_question_fail(dns, question, now);
        return;
    }
    if (answer->offset == 0)
        question_begin_value(dns, question, answer);
    CHECK(answer->offset == question->value_used && answer->part_size <= PART_MAX);
    CHECK(answer->part_size <= question->value_size - question->value_used);
    memcpy(question->value + question->value_used, answer->part, answer->part_size);
    question->value_used += answer->part_size;
    if (question->value_used < question->value_size) {
        question_send(dns, question, question->value_used);
        return;
    }
    /* What home itself serves stale is stale here too; home tries again, so we need not. */
    if (now >= question->note.expires)
        question->note.retry_at = now + DNS_STALE_RECHECK;
    dns_question_finish(dns, question, &question->note,
                        span_of(question->value, question->value_size),
                        (answer->flags & FLAG_WORKED) != 0, now);
}

void dns_receive(struct dns *dns, uint32_t from_shard, const void *message, uint32_t size,
                 struct tick_now now)
{
    struct ask_message ask;
    struct answer_message answer;

    CHECK(size == MESSAGE_SIZE && from_shard < dns->options.shard_count);
    memcpy(&ask, message, sizeof(ask));
    memcpy(&answer, message, sizeof(answer));
    if (ask.kind == MESSAGE_ASK) {
        CHECK(ask.name_size <= DNS_HOME_NAME_MAX);
        on_ask(dns, from_shard, &ask, now.tick);
    } else {
        CHECK(answer.kind == MESSAGE_ANSWER);
        on_answer(dns, &answer, now.tick);
    }
    mx_tasks_report(dns, now.tick);
}

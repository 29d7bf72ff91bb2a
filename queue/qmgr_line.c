/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines: the mail of one (domain, source pool, class), and the order in which they are handed out.
 *
 * Line                                            Edge done by
 *   IDLE -> READY       something became due      qmgr_line_push()
 *   READY -> IDLE       nothing is due any more   qmgr_line_remove()
 *   READY -> PARKED     the transfer takes it     qmgr_line_next()
 *   PARKED -> READY     given back, mail is due   qmgr_line_return()
 *   PARKED -> IDLE      given back, none is due   qmgr_line_return()
 *   IDLE -> (none)      no delivery is left       qmgr_line_review()
 *
 * What is due in a line, and in which order it goes: qmgr_fair.c.
 *
 * Lines are handed out from one list per class. The lowest class that has a READY line goes first,
 * strictly. Inside a class a line that is given back goes to the end.
 *
 * Invariants
 *   1. A line is in such a list exactly while it is READY, and READY only while something is due.
 *   2. A line without deliveries exists only while it is PARKED.
 */
#include <stdlib.h>

#include "queue/qmgr_state.h"

/* ---- replies ---- */

void qmgr_reply_release(struct qmgr_reply *reply)
{
    if (reply == NULL)
        return;
    CHECK(reply->references > 0);
    if (--reply->references == 0)
        free(reply);
}

struct qmgr_reply *qmgr_line_reply(struct qmgr_line *line, struct span text)
{
    uint8_t octets[ENVELOPE_REPLY_SIZE_MAX] UNINITIALIZED;
    struct qmgr_reply *reply = line->last_reply;

    if (reply != NULL && span_is_equal(span_of(reply->octets, reply->size), text)) {
        reply->references++;
        return reply;
    }
    uint32_t size = qmgr_text_copy(text, octets);
    if (reply == NULL ||
        !span_is_equal(span_of(reply->octets, reply->size), span_of(octets, size))) {
        qmgr_reply_release(reply);
        reply = malloc(sizeof(*reply) + size);
        CHECK(reply != NULL);
        reply->references = 1;
        reply->size = size;
        memcpy(reply->octets, octets, size);
        line->last_reply = reply;
    }
    reply->references++;
    return reply;
}

/* ---- the table ---- */

struct span qmgr_line_domain(const struct qmgr_line *line)
{
    return span_of(line->name, line->domain_size);
}

struct span qmgr_line_source_pool(const struct qmgr_line *line)
{
    return span_of(line->name + line->domain_size, line->pool_size);
}

/* By domain alone: the lines of a domain, of which there are few, are found together. */
static uint32_t line_hash(const struct qmgr *qmgr, struct span domain)
{
    struct qmgr_hashed *latest = qmgr->hashed;

    /* A message asks several times, and the next one often for the same. */
    if (latest->size == domain.size && memcmp(latest->domain, domain.data, domain.size) == 0)
        return latest->hash;
    uint64_t hash = keyed_hash_octets(&qmgr->hash, domain);
    latest->hash = (uint32_t)(hash >> 32 ^ hash);
    latest->size = 0;
    if (domain.size > 0 && domain.size <= sizeof(latest->domain)) {
        memcpy(latest->domain, domain.data, domain.size);
        latest->size = domain.size;
    }
    return latest->hash;
}

static struct qmgr_line *line_new(struct qmgr *qmgr, struct span domain, struct span pool)
{
    struct qmgr_line *line = slab_acquire(&qmgr->lines);

    CHECK(line != NULL);
    line->name = malloc(domain.size + pool.size);
    CHECK(line->name != NULL);
    memcpy(line->name, domain.data, domain.size);
    if (pool.size > 0)
        memcpy(line->name + domain.size, pool.data, pool.size);
    TAILQ_INIT(&line->parts);
    line->domain_size = (uint8_t)domain.size;
    line->pool_size = (uint8_t)pool.size;
    return line;
}

static struct qmgr_line *line_find(const struct qmgr *qmgr, const struct envelope *envelope,
                                   struct span domain, uint32_t hash)
{
    struct qmgr_line *line = qmgr->line_buckets[hash & qmgr->line_mask];

    for (; line != NULL; line = line->hash_next) {
        if (line->hash == hash && line->class == envelope->class &&
            span_is_equal(qmgr_line_domain(line), domain) &&
            span_is_equal(qmgr_line_source_pool(line), envelope->source_pool))
            return line;
    }
    return NULL;
}

struct qmgr_line *qmgr_line_find(const struct qmgr *qmgr, const struct envelope *envelope,
                                 struct span domain)
{
    uint32_t hash = line_hash(qmgr, domain);
    return line_find(qmgr, envelope, domain, hash);
}

struct qmgr_line *qmgr_line_get(struct qmgr *qmgr, const struct envelope *envelope,
                                struct span domain)
{
    uint32_t hash = line_hash(qmgr, domain);
    struct qmgr_line **bucket = &qmgr->line_buckets[hash & qmgr->line_mask];
    struct qmgr_line *line = line_find(qmgr, envelope, domain, hash);

    if (line != NULL)
        return line;
    line = line_new(qmgr, domain, envelope->source_pool);
    line->class = envelope->class;
    line->hash = hash;
    line->hash_next = *bucket;
    *bucket = line;
    return line;
}

struct qmgr_line *qmgr_line_get_beside(struct qmgr *qmgr, const struct qmgr_line *line,
                                       struct span domain)
{
    struct envelope envelope = {.class = line->class, .source_pool = qmgr_line_source_pool(line)};

    return qmgr_line_get(qmgr, &envelope, domain);
}

struct qmgr_line *qmgr_line_first(const struct qmgr *qmgr, struct span domain)
{
    struct qmgr_line *line = qmgr->line_buckets[line_hash(qmgr, domain) & qmgr->line_mask];

    while (line != NULL && !span_is_equal(qmgr_line_domain(line), domain))
        line = line->hash_next;
    return line;
}

void qmgr_line_free(struct qmgr *qmgr, struct qmgr_line *line)
{
    struct qmgr_line **link = &qmgr->line_buckets[line->hash & qmgr->line_mask];

    CHECK(line->delivery_count == 0 && line->ready_count == 0);
    if (line->user != NULL && qmgr->options.on_line_gone != NULL)
        qmgr->options.on_line_gone(qmgr->options.context, line->user);
    while (*link != line)
        link = &(*link)->hash_next;
    *link = line->hash_next;
    qmgr_scans_skip_line(qmgr, line);
    qmgr_reply_release(line->last_reply);
    qmgr_ages_fini(&line->ages);
    free(line->name);
    free(line->site);
    slab_release(&qmgr->lines, line);
}

void qmgr_line_review(struct qmgr *qmgr, struct qmgr_line *line)
{
    if (line->state == QMGR_LINE_IDLE && line->delivery_count == 0)
        qmgr_line_free(qmgr, line);
}

/* ---- all that is in a line ---- */

void qmgr_line_join(struct qmgr_delivery *delivery)
{
    struct qmgr_line *line = delivery->line;

    delivery->line_next = 0;
    delivery->line_prev = slab_ref(line->last_delivery);
    if (line->last_delivery != NULL)
        line->last_delivery->line_next = slab_ref(delivery);
    else
        line->first_delivery = delivery;
    line->last_delivery = delivery;
    line->delivery_count++;
    qmgr_ages_add(&line->ages, delivery->message->arrived);
}

void qmgr_line_leave(struct qmgr_delivery *delivery)
{
    struct qmgr_line *line = delivery->line;

    struct qmgr_delivery *next = qmgr_delivery_line_next(delivery);
    struct qmgr_delivery *prev = slab_peer(delivery, delivery->line_prev);
    if (prev != NULL)
        prev->line_next = delivery->line_next;
    else
        line->first_delivery = next;
    if (next != NULL)
        next->line_prev = delivery->line_prev;
    else
        line->last_delivery = prev;
    line->delivery_count--;
    qmgr_ages_remove(&line->ages, delivery->message->arrived);
}

struct span qmgr_line_site(const struct qmgr_line *line)
{
    return span_of(line->site, line->site_size);
}

void qmgr_line_set_site(struct qmgr_line *line, struct span name)
{
    if (span_is_equal(qmgr_line_site(line), name) || name.size > UINT8_MAX)
        return;
    line->site = realloc(line->site, name.size + 1);
    CHECK(line->site != NULL);
    memcpy(line->site, name.data, name.size);
    line->site_size = (uint8_t)name.size;
}

void qmgr_line_set_unresolved(struct qmgr_line *line, const char *why, tick_us now)
{
    if (line->unresolved == NULL)
        line->unresolved_since = now;
    line->unresolved = why;
}

/* ---- the round ---- */

static void round_append(struct qmgr *qmgr, struct qmgr_line *line)
{
    line->next = NULL;
    line->prev = qmgr->round[line->class].last;
    if (line->prev != NULL)
        line->prev->next = line;
    else
        qmgr->round[line->class].first = line;
    qmgr->round[line->class].last = line;
    qmgr->round_occupied[line->class / 64] |= 1ull << line->class % 64;
}

static void round_remove(struct qmgr *qmgr, struct qmgr_line *line)
{
    if (line->prev != NULL)
        line->prev->next = line->next;
    else
        qmgr->round[line->class].first = line->next;
    if (line->next != NULL)
        line->next->prev = line->prev;
    else
        qmgr->round[line->class].last = line->prev;
    if (qmgr->round[line->class].first == NULL)
        qmgr->round_occupied[line->class / 64] &= ~(1ull << line->class % 64);
}

/* The only writer of line->state. */
static void line_enter(struct qmgr *qmgr, struct qmgr_line *line, enum qmgr_line_state next)
{
    CHECK(next != QMGR_LINE_READY || line->ready_count > 0);
    if (line->state == QMGR_LINE_READY)
        round_remove(qmgr, line);
    line->state = (uint8_t)next;
    if (next == QMGR_LINE_READY)
        round_append(qmgr, line);
}

struct qmgr_line *qmgr_line_next(struct qmgr *qmgr, struct tick_now now)
{
    (void)now; /* what is due was made READY by qmgr_advance() of this turn */
    for (uint32_t word = 0; word < COUNT_OF(qmgr->round_occupied); word++) {
        uint64_t occupied = qmgr->round_occupied[word];
        if (occupied == 0)
            continue;
        uint32_t class = word * 64 + (uint32_t)__builtin_ctzll(occupied);
        struct qmgr_line *line = qmgr->round[class].first;
        line_enter(qmgr, line, QMGR_LINE_PARKED);
        return line;
    }
    return NULL;
}

void qmgr_line_return(struct qmgr *qmgr, struct qmgr_line *line, struct tick_now now)
{
    (void)now;
    CHECK(line->state == QMGR_LINE_PARKED && line->round == NULL);
    line_enter(qmgr, line, line->ready_count > 0 ? QMGR_LINE_READY : QMGR_LINE_IDLE);
    qmgr_line_review(qmgr, line);
}

/* ---- what is due ---- */

void qmgr_line_push(struct qmgr *qmgr, struct qmgr_delivery *delivery, wall_us since)
{
    struct qmgr_line *line = delivery->line;

    delivery->state = QMGR_READY;
    line->unstored_count += delivery->message->storage == QMGR_UNSTORED;
    qmgr_fair_push(qmgr, delivery, since);
    qmgr->stats.deliveries_ready++;
    if (line->state == QMGR_LINE_IDLE)
        line_enter(qmgr, line, QMGR_LINE_READY);
}

void qmgr_line_remove(struct qmgr *qmgr, struct qmgr_delivery *delivery)
{
    struct qmgr_line *line = delivery->line;

    CHECK(delivery->state == QMGR_READY);
    line->unstored_count -= delivery->message->storage == QMGR_UNSTORED;
    qmgr_fair_remove(qmgr, delivery);
    qmgr->stats.deliveries_ready--;
    if (line->ready_count == 0 && line->state == QMGR_LINE_READY)
        line_enter(qmgr, line, QMGR_LINE_IDLE);
}

uint32_t qmgr_line_due(const struct qmgr_line *line)
{
    return line->ready_count;
}

void *qmgr_line_user(const struct qmgr_line *line)
{
    return line->user;
}

void qmgr_line_set_user(struct qmgr_line *line, void *user)
{
    line->user = user;
}

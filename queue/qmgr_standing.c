/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standing orders: what an operator ordered is done to mail that comes later, too, until the order
 * ends. (What waits when it is given is found by a scan, as for any order; see qmgr_act.c.)
 *
 * When mail is judged
 *   accepted just now     as it is inserted, in the same turn: no attempt comes before it. It is in
 *                         the spool already and gets its 250; a bounce or a deletion follows.
 *   back from the spool   when its envelope is read for the first time, since addresses are needed
 *                         to judge it and to tell of it: before any attempt. Until then it stands
 *                         in the queue as it was kept. Mostly it was judged when it was accepted,
 *                         and what that led to was kept; this is for what a crash took back.
 *
 * Invariants
 *   1. Orders are judged in the order in which they were given, each on what the ones before it
 *      left. Of several holds the one that ends last holds.
 *   2. Without standing orders an insert asks one counter.
 *   3. A filter is compiled once. Only terms that are known of new mail may stand
 *      (qmgr_standing_filter_parse()), so that every order can be judged on all mail.
 *   4. What an operator released is not held again when it comes back after a restart, and what he
 *      rerouted is not rerouted again: ENVELOPE_RELEASED, and the route itself, say so.
 *   5. An order at or behind its end does nothing, and leaves the table when that is next changed.
 *
 * Limits: QMGR_STANDING_MAX orders; each costs a comparison of its terms for every message.
 * Not here: who gives, lists and cancels them (control/admin_order.c), who keeps them over restarts
 * (control/keeper.c).
 */
#include <stdio.h>
#include <stdlib.h>

#include "queue/qmgr_state.h"

struct qmgr_standing_entry {
    struct qmgr_standing standing;
    struct qmgr_filter filter;
};

/* ---- what may stand ---- */

static const struct {
    uint32_t terms;
    const char *why;
} never_stand[] = {
    {QMGR_FILTER_ID, "id= names mail that is here already: leave --duration out"},
    {QMGR_FILTER_SITE, "site= of mail to come is not known before its domain is resolved: use "
                       "domain=, or site suspend"},
    {QMGR_FILTER_STATE, "state= says nothing of mail to come: leave it or --duration out"},
    {QMGR_FILTER_ORDER, "order= says nothing of mail to come: leave --duration out"},
    {QMGR_FILTER_OLDER | QMGR_FILTER_YOUNGER,
     "older= and younger= say nothing of mail to come: leave them or --duration out"},
};

enum err qmgr_standing_filter_parse(struct span terms, struct qmgr_filter *ret_filter,
                                    char ret_why[QMGR_FILTER_WHY_SIZE])
{
    struct qmgr_filter filter;

    TRY(qmgr_filter_parse(terms, &filter, ret_why));
    for (uint32_t i = 0; i < COUNT_OF(never_stand); i++) {
        if (!qmgr_filter_has(&filter, never_stand[i].terms))
            continue;
        (void)snprintf(ret_why, QMGR_FILTER_WHY_SIZE, "%s", never_stand[i].why);
        return ERR_CONFIG_VALUE;
    }
    if (terms.size >= QMGR_STANDING_TERMS_SIZE) {
        (void)snprintf(ret_why, QMGR_FILTER_WHY_SIZE,
                       "terms of an order that stands have at most %u octets",
                       QMGR_STANDING_TERMS_SIZE - 1);
        return ERR_CONFIG_VALUE;
    }
    *ret_filter = filter;
    return ERR_OK;
}

bool qmgr_verb_may_stand(enum qmgr_verb verb)
{
    return verb != QMGR_VERB_RELEASE && verb != QMGR_VERB_RETRY;
}

static bool standing_is_valid(const struct qmgr_standing *standing)
{
    const struct qmgr_order *order = &standing->order;

    return order->id > 0 && order->id <= QMGR_ORDER_GIVEN_MAX && order->verb < QMGR_VERB_COUNT &&
           qmgr_verb_may_stand(order->verb) &&
           memchr(order->route, '\0', sizeof(order->route)) != NULL &&
           (order->route[0] != '\0') == (order->verb == QMGR_VERB_REROUTE) &&
           memchr(order->reason, '\0', sizeof(order->reason)) != NULL &&
           memchr(standing->terms, '\0', sizeof(standing->terms)) != NULL;
}

/* ---- the table ---- */

static void standing_remove(struct qmgr *qmgr, uint32_t index)
{
    free(qmgr->standing[index]);
    qmgr->standing_count--;
    memmove(qmgr->standing + index, qmgr->standing + index + 1,
            (qmgr->standing_count - index) * sizeof(struct qmgr_standing_entry *));
}

static void standing_end_old(struct qmgr *qmgr, struct tick_now now)
{
    for (uint32_t i = 0; i < qmgr->standing_count;) {
        if (qmgr->standing[i]->standing.until <= now.wall)
            standing_remove(qmgr, i);
        else
            i++;
    }
}

static struct qmgr_standing_entry *standing_find(const struct qmgr *qmgr, uint32_t id)
{
    for (uint32_t i = 0; i < qmgr->standing_count; i++) {
        if (qmgr->standing[i]->standing.order.id == id)
            return qmgr->standing[i];
    }
    return NULL;
}

enum err qmgr_standing_add(struct qmgr *qmgr, const struct qmgr_standing *standing,
                           struct tick_now now)
{
    char why[QMGR_FILTER_WHY_SIZE];
    struct qmgr_filter filter;

    standing_end_old(qmgr, now);
    if (!standing_is_valid(standing) || standing_find(qmgr, standing->order.id) != NULL)
        return ERR_CONFIG_VALUE;
    TRY(qmgr_standing_filter_parse(span_from_text(standing->terms), &filter, why));
    if (standing->until <= now.wall)
        return ERR_OK;
    if (qmgr->standing_count == QMGR_STANDING_MAX)
        return ERR_LIMIT;
    struct qmgr_standing_entry *entry = malloc(sizeof(*entry));
    CHECK(entry != NULL);
    *entry = (struct qmgr_standing_entry){*standing, filter};
    if (standing->order.verb == QMGR_VERB_HOLD)
        entry->standing.order.until = standing->until;
    qmgr->standing[qmgr->standing_count++] = entry;
    return ERR_OK;
}

bool qmgr_standing_end(struct qmgr *qmgr, uint32_t id, struct tick_now now)
{
    standing_end_old(qmgr, now);
    for (uint32_t i = 0; i < qmgr->standing_count; i++) {
        if (qmgr->standing[i]->standing.order.id != id)
            continue;
        standing_remove(qmgr, i);
        return true;
    }
    return false;
}

const struct qmgr_standing *qmgr_standing_next(struct qmgr *qmgr, uint32_t *index,
                                               struct tick_now now)
{
    if (*index == 0)
        standing_end_old(qmgr, now);
    return *index < qmgr->standing_count ? &qmgr->standing[(*index)++]->standing : NULL;
}

void qmgr_standing_count(struct qmgr *qmgr, uint32_t id, uint64_t recipients)
{
    struct qmgr_standing_entry *entry = standing_find(qmgr, id);

    if (entry != NULL)
        entry->standing.done_now += recipients;
}

void qmgr_standing_free(struct qmgr *qmgr)
{
    while (qmgr->standing_count > 0)
        standing_remove(qmgr, qmgr->standing_count - 1);
}

/* ---- judging ---- */

/* Recipients of one delivery that the order is about. Returns how many. */
static uint32_t delivery_match(const struct qmgr_filter *filter, struct qmgr_delivery *delivery,
                               const struct envelope *envelope, struct qmgr_match *matches)
{
    uint32_t count = 0, due = delivery->due_count;
    uint32_t *indexes = malloc(due * sizeof(*indexes));

    CHECK(indexes != NULL);
    qmgr_delivery_recipients(delivery, envelope, indexes);
    for (uint32_t i = 0; i < due; i++) {
        struct span address = envelope->recipients[indexes[i]].address;
        if (qmgr_filter_has(filter, QMGR_FILTER_RECIPIENT) &&
            !span_is_equal_nocase(address, qmgr_filter_span(&filter->recipient)))
            continue;
        matches[count++] =
            (struct qmgr_match){.message = delivery->message,
                                .delivery = delivery,
                                .recipient_index = indexes[i],
                                .is_whole = !qmgr_filter_has(filter, QMGR_FILTER_RECIPIENT)};
    }
    free(indexes);
    return count;
}

/* The message may be gone afterwards. */
static void delivery_judge(struct qmgr *qmgr, struct qmgr_standing_entry *entry,
                           struct qmgr_delivery *delivery, struct tick_now now)
{
    struct qmgr_message *message = delivery->message;
    struct qmgr_match *matches = reallocarray(NULL, delivery->due_count, sizeof(*matches));
    struct qmgr_acted acted = {0};

    CHECK(matches != NULL);
    uint32_t count =
        delivery_match(&entry->filter, delivery, qmgr_message_open(qmgr, message), matches);
    if (count > 0)
        qmgr_act(qmgr, matches, count, &entry->standing.order, &acted, now);
    entry->standing.done_since += acted.done + acted.in_flight;
    free(matches);
}

static bool entry_matches(const struct qmgr *qmgr, struct qmgr_standing_entry *entry,
                          struct qmgr_message *message, struct tick_now now)
{
    struct qmgr_filter *filter = &entry->filter;
    const struct envelope *envelope = qmgr_message_open(slab_owner(message), message);

    if (filter->class_name.size > 0) /* names may have changed with the configuration */
        filter->class = qmgr_class_find(qmgr, qmgr_filter_span(&filter->class_name));
    return entry->standing.until > now.wall && qmgr_matches_message(filter, message, now) &&
           (!qmgr_filter_has(filter, QMGR_FILTER_SENDER) ||
            span_is_equal_nocase(envelope->sender, qmgr_filter_span(&filter->sender))) &&
           (!qmgr_filter_has(filter, QMGR_FILTER_USER) ||
            span_is_equal_nocase(envelope->user, qmgr_filter_span(&filter->user)));
}

bool qmgr_standing_may_match(const struct qmgr *qmgr, const struct envelope *envelope,
                             struct tick_now now)
{
    for (uint32_t i = 0; i < qmgr->standing_count; i++) {
        const struct qmgr_filter *filter = &qmgr->standing[i]->filter;
        bool is_other_domain = qmgr_filter_has(filter, QMGR_FILTER_DOMAIN) &&
                               !span_is_equal_nocase(envelope->recipients[0].domain,
                                                     qmgr_filter_span(&filter->domain));
        bool is_other_sender =
            qmgr_filter_has(filter, QMGR_FILTER_SENDER) &&
            !span_is_equal_nocase(envelope->sender, qmgr_filter_span(&filter->sender));
        if (qmgr->standing[i]->standing.until > now.wall && !is_other_domain && !is_other_sender)
            return true;
    }
    return false;
}

/* Invariant 4. */
static bool was_decided(enum qmgr_verb verb, const struct qmgr_delivery *delivery)
{
    return (verb == QMGR_VERB_HOLD && delivery->message->flags & ENVELOPE_RELEASED) ||
           (verb == QMGR_VERB_REROUTE && delivery->is_rerouted);
}

/* False: the message is gone. */
static bool entry_judge(struct qmgr *qmgr, struct qmgr_standing_entry *entry,
                        struct qmgr_message *message, bool is_back, struct tick_now now)
{
    struct message_id id = qmgr_message_id(message);
    struct qmgr_delivery *next;

    for (struct qmgr_delivery *delivery = message->deliveries; delivery != NULL; delivery = next) {
        next = qmgr_delivery_next(delivery);
        if (qmgr_matches_delivery(&entry->filter, delivery) &&
            !(is_back && was_decided(entry->standing.order.verb, delivery)))
            delivery_judge(qmgr, entry, delivery, now);
    }
    return qmgr_find(qmgr, id) != NULL;
}

bool qmgr_standing_judge(struct qmgr *qmgr, struct qmgr_message *message, bool is_back,
                         struct tick_now now)
{
    CHECK(qmgr_envelope_is_here(message));
    message->is_unjudged = false;
    message->work->pins++; /* for the time that it takes */
    for (uint32_t i = 0; i < qmgr->standing_count; i++) {
        struct qmgr_standing_entry *entry = qmgr->standing[i];
        if (entry_matches(qmgr, entry, message, now) &&
            !entry_judge(qmgr, entry, message, is_back, now))
            return false;
    }
    message->work->pins--;
    return true;
}

void qmgr_standing_hold_again(struct qmgr *qmgr, const struct qmgr_match *match,
                              struct tick_now now)
{
    struct qmgr_message *message = match->message;

    for (uint32_t i = 0; i < qmgr->standing_count; i++) {
        struct qmgr_standing_entry *entry = qmgr->standing[i];
        if (match->delivery != NULL && entry->standing.order.verb == QMGR_VERB_HOLD &&
            qmgr_envelope_is_here(message) && entry_matches(qmgr, entry, message, now) &&
            qmgr_matches_delivery(&entry->filter, match->delivery))
            delivery_judge(qmgr, entry, match->delivery, now);
    }
}

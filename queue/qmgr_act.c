/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Orders of operators, carried out on what a scan found.
 *
 * verb      on what                      what becomes of it
 *   HOLD      anything not held so long    HELD; no attempt until it is released, or the hold's end
 *   RELEASE   HELD                         READY
 *   RETRY     WAITING                      READY
 *   BOUNCE    recipients that are DUE      FAILED: their sender is told, with the reason
 *   DELETE    recipients that are DUE      SETTLED: nobody is told
 *   REROUTE   anything but ACTIVE          goes by another domain, READY; what is HELD stays so
 *
 * Rules
 *   1. What is under way (ACTIVE) is asked to end, and its results win: a recipient that was
 *      delivered is delivered. What is left DUE when the attempt ends gets the order then: it
 *      waits as a wish of the delivery (qmgr_wish.c).
 *   2. HOLD, RELEASE, BOUNCE, DELETE and REROUTE are in the spool with the lazy records, those of
 *      mail that is under way, too: after a crash at most the last second of orders is forgotten.
 *   3. The expiry of what is HELD goes on: every message ends.
 *   4. Each recipient that an order is carried out on is reported once (on_order).
 */
#include <stdlib.h>

#include "queue/qmgr_state.h"

#define HOLD_AHEAD_MAX TICK_S(3660ull * 86400)

const char *qmgr_verb_name(enum qmgr_verb verb)
{
    static const char *const names[QMGR_VERB_COUNT] = {
        [QMGR_VERB_HOLD] = "hold",     [QMGR_VERB_RELEASE] = "release",
        [QMGR_VERB_RETRY] = "retry",   [QMGR_VERB_BOUNCE] = "bounce",
        [QMGR_VERB_DELETE] = "delete", [QMGR_VERB_REROUTE] = "reroute",
    };

    CHECK(verb < QMGR_VERB_COUNT);
    return names[verb];
}

/* ---- holding ---- */

void qmgr_delivery_hold(struct qmgr *qmgr, struct qmgr_delivery *delivery, uint32_t order,
                        wall_us until, struct tick_now now)
{
    CHECK(order > 0 && order <= QMGR_ORDER_ID_MAX);
    delivery->state = QMGR_HELD;
    delivery->timer =
        (struct wheel_timer){.kind = QMGR_TIMER_HOLD | order << QMGR_HOLD_ORDER_SHIFT};
    if (until != QMGR_HOLD_FOR_EVER)
        wheel_arm(&qmgr->wheel, &delivery->timer, qmgr_tick_of(until, HOLD_AHEAD_MAX, now));
    qmgr->stats.deliveries_held++;
    qmgr->stats.quota_held += order == QMGR_ORDER_QUOTA;
    qmgr_delivery_not_fresh(delivery); /* its body is read back when its turn comes */
}

void qmgr_progress_of(const struct qmgr_delivery *delivery, struct envelope_progress *ret_progress)
{
    ret_progress->delivery = delivery->first;
    ret_progress->attempts = delivery->attempts;
    if (delivery->last_reply != NULL)
        ret_progress->last_reply =
            span_of(delivery->last_reply->octets, delivery->last_reply->size);
    if (delivery->is_rerouted)
        ret_progress->route = qmgr_line_domain(delivery->line);
}

void qmgr_progress_held(const struct qmgr_delivery *delivery, uint32_t order, wall_us until,
                        struct envelope_progress *ret_progress)
{
    qmgr_progress_of(delivery, ret_progress);
    ret_progress->next_try = until;
    ret_progress->hold_order = order;
}

/* ---- ending recipients ---- */

struct qmgr_failure qmgr_order_failure(const struct qmgr_order *order, uint32_t recipient_index)
{
    return (struct qmgr_failure){
        .recipient_index = recipient_index,
        .code = 554,
        .enhanced = {5, 7, 1},
        .reply = span_from_text(order->reason),
    };
}

void qmgr_recipient_end(struct qmgr *qmgr, struct qmgr_delivery *delivery, uint32_t index,
                        const struct qmgr_order *order, struct qmgr_settling *settling)
{
    struct qmgr_message *message = delivery->message;
    struct envelope *envelope = &message->work->envelope;
    struct envelope_recipient *recipient = &envelope->recipients[index];
    struct qmgr_failure failure = qmgr_order_failure(order, index);

    if (qmgr->options.on_order != NULL)
        qmgr->options.on_order(qmgr->options.context, envelope, index, order);
    if (order->verb == QMGR_VERB_BOUNCE) {
        qmgr_recipient_fail(qmgr, message, recipient, &failure);
    } else {
        qmgr_recipient_set(message, recipient, RECIPIENT_SETTLED);
        message->due--;
        qmgr->stats.deleted_recipients++;
    }
    delivery->due_count--;
    qmgr_settling_add(qmgr, settling, recipient, &failure);
}

static bool verb_ends_recipients(enum qmgr_verb verb)
{
    return verb == QMGR_VERB_BOUNCE || verb == QMGR_VERB_DELETE;
}

/* ---- one delivery ---- */

/* Recipients of one delivery that an order is about. */
struct act_group {
    struct qmgr_message *message;
    struct qmgr_delivery *delivery;
    uint32_t *recipients; /* NULL: nobody can say who they are */
    uint32_t count;
};

/* What is moved as a whole is counted as a whole, by the first step that tells of it. */
static struct act_group group_make(const struct qmgr_match *matches, uint32_t count, bool is_move)
{
    struct act_group group = {matches[0].message, matches[0].delivery, NULL, count};
    bool is_all = is_move && matches[0].is_whole;

    if (is_all || matches[0].is_unreadable)
        group.count = group.delivery->due_count;
    if (matches[0].is_unreadable)
        return group;
    group.recipients = malloc(group.count * sizeof(*group.recipients));
    CHECK(group.recipients != NULL);
    if (is_all)
        qmgr_delivery_recipients(group.delivery,
                                 qmgr_message_open(slab_owner(group.message), group.message),
                                 group.recipients);
    for (uint32_t i = 0; i < count && !is_all; i++)
        group.recipients[i] = matches[i].recipient_index;
    return group;
}

static void act_on_active(struct qmgr *qmgr, const struct act_group *group,
                          const struct qmgr_order *order, struct qmgr_acted *acted,
                          struct tick_now now)
{
    if (order->verb == QMGR_VERB_RETRY)
        return;
    if (order->verb == QMGR_VERB_RELEASE) {
        if (qmgr_wishes_withdraw(qmgr, group->delivery, now))
            acted->done += group->count;
        return;
    }
    acted->in_flight += group->count;
    qmgr_wish_add(qmgr, group->delivery, order, group->recipients,
                  group->recipients == NULL ? 0 : group->count, now);
}

/* A hold that ends later takes over what another one holds. */
static bool hold_is_longer(const struct qmgr_delivery *delivery, const struct qmgr_order *order,
                           struct tick_now now)
{
    return delivery->state == QMGR_HELD && qmgr_delivery_order(delivery) != order->id &&
           order->until > qmgr_delivery_held_until(delivery, now);
}

/* May the order do anything to a delivery in this state? */
static bool act_applies(const struct qmgr_delivery *delivery, const struct qmgr_order *order,
                        struct tick_now now)
{
    static const uint32_t states[QMGR_VERB_COUNT] = {
        [QMGR_VERB_HOLD] = 1u << QMGR_WAITING | 1u << QMGR_READY,
        [QMGR_VERB_RELEASE] = 1u << QMGR_HELD,
        [QMGR_VERB_RETRY] = 1u << QMGR_WAITING,
        [QMGR_VERB_BOUNCE] = 1u << QMGR_WAITING | 1u << QMGR_READY | 1u << QMGR_HELD,
        [QMGR_VERB_DELETE] = 1u << QMGR_WAITING | 1u << QMGR_READY | 1u << QMGR_HELD,
        [QMGR_VERB_REROUTE] = 1u << QMGR_WAITING | 1u << QMGR_READY | 1u << QMGR_HELD,
    };
    bool is_there = order->verb == QMGR_VERB_REROUTE &&
                    span_is_equal(qmgr_line_domain(delivery->line), span_from_text(order->route));

    if (order->verb == QMGR_VERB_HOLD && hold_is_longer(delivery, order, now))
        return true;
    return !is_there && states[order->verb] >> delivery->state & 1;
}

uint32_t qmgr_flag_released(const struct qmgr *qmgr, struct qmgr_message *message)
{
    if (qmgr->standing_count == 0 && !(message->flags & ENVELOPE_OVER_QUOTA))
        return 0;
    message->flags |= ENVELOPE_RELEASED;
    return ENVELOPE_RELEASED;
}

/* Held, released or tried at once: the delivery as a whole. */
static void act_move(struct qmgr *qmgr, const struct act_group *group,
                     const struct qmgr_order *order, struct tick_now now)
{
    struct qmgr_message *message = group->message;
    struct qmgr_delivery *delivery = group->delivery;
    struct envelope_progress progress = {.delivery = ENVELOPE_DELIVERY_NONE};

    bool is_told = qmgr->options.on_order != NULL && group->recipients != NULL &&
                   qmgr_envelope_is_here(message);
    for (uint32_t i = 0; i < group->count && is_told; i++)
        qmgr->options.on_order(qmgr->options.context, qmgr_message_open(qmgr, message),
                               group->recipients[i], order);
    uint32_t hold_order = order->verb == QMGR_VERB_HOLD ? order->id : 0;
    wall_us hold_until = order->until;
    if (order->verb == QMGR_VERB_REROUTE && delivery->state == QMGR_HELD) {
        hold_order = qmgr_delivery_order(delivery);
        hold_until = qmgr_delivery_held_until(delivery, now);
    }
    if (order->verb == QMGR_VERB_RELEASE)
        qmgr_quota_release(qmgr, delivery, now);
    qmgr_delivery_leave(qmgr, delivery);
    delivery->state = 0;
    if (order->verb == QMGR_VERB_REROUTE)
        qmgr_delivery_reroute(qmgr, delivery, span_from_text(order->route));
    if (hold_order > 0) {
        qmgr_delivery_hold(qmgr, delivery, hold_order, hold_until, now);
        qmgr_progress_held(delivery, hold_order, hold_until, &progress);
    } else {
        qmgr_line_push(qmgr, delivery, now.wall);
        qmgr_progress_of(delivery, &progress);
        progress.next_try = now.wall;
    }
    struct qmgr_settling settling = qmgr_settling_begin(qmgr, 0);
    if (order->verb == QMGR_VERB_RELEASE)
        progress.flags = qmgr_flag_released(qmgr, message);
    if (order->verb != QMGR_VERB_RETRY)
        qmgr_progress_write(qmgr, message, &settling, &progress);
}

/* Nobody can say who the recipients of its deliveries are, so it ends as a whole or not at all: all
 * its deliveries match, and none is under way. Nobody can be told either: it is deleted only.
 * `count` matches of it, each a delivery. The message is gone afterwards, or nothing was done. */
static void act_end_unreadable(struct qmgr *qmgr, const struct qmgr_match *matches, uint32_t count,
                               const struct qmgr_order *order, struct qmgr_acted *acted)
{
    struct qmgr_message *message = matches[0].message;
    uint32_t due = message->due, matched = 0, in_all = 0;

    for (uint32_t i = 0; i < count; i++)
        matched += matches[i].delivery->due_count;
    for (struct qmgr_delivery *d = message->deliveries; d != NULL; d = qmgr_delivery_next(d))
        in_all++;
    acted->matched += matched;
    if (order->verb != QMGR_VERB_DELETE || in_all != count || message->active > 0) {
        acted->unreadable += matched;
        return;
    }
    acted->done += due;
    qmgr->stats.deleted_recipients += due;
    qmgr_states_settle(message);
    message->due = 0;
    while (message->deliveries != NULL)
        qmgr_delivery_free(qmgr, message->deliveries);
    qmgr_message_review(qmgr, message);
}

static void act_end(struct qmgr *qmgr, const struct act_group *group,
                    const struct qmgr_order *order)
{
    struct qmgr_message *message = group->message;
    struct qmgr_delivery *delivery = group->delivery;
    struct envelope_progress progress = {.delivery = ENVELOPE_DELIVERY_NONE};
    struct qmgr_settling settling = qmgr_settling_begin(qmgr, group->count);

    qmgr_message_open(qmgr, message);
    for (uint32_t i = 0; i < group->count; i++)
        qmgr_recipient_end(qmgr, delivery, group->recipients[i], order, &settling);
    if (delivery->due_count == 0)
        qmgr_delivery_free(qmgr, delivery);
    if (message->due + message->failed > 0 || qmgr->options.keeps_ends)
        qmgr_progress_write(qmgr, message, &settling, &progress);
}

static void retried_note(struct qmgr_retried *retried, const struct qmgr_line *line)
{
    struct span site = qmgr_line_site(line);
    struct span name = site.size > 0 ? site : qmgr_line_domain(line);

    name.size = name.size < SITE_LABEL_MAX ? name.size : SITE_LABEL_MAX;
    for (uint32_t i = 0; i < retried->count; i++) {
        if (span_is_equal(span_from_text(retried->names[i]), name))
            return;
    }
    retried->has_more = retried->count == QMGR_RETRIED_MAX;
    if (retried->has_more)
        return;
    memcpy(retried->names[retried->count], name.data, name.size);
    retried->names[retried->count++][name.size] = '\0';
}

static void act_on_group(struct qmgr *qmgr, const struct act_group *group,
                         const struct qmgr_order *order, struct qmgr_acted *acted,
                         struct tick_now now)
{
    struct qmgr_delivery *delivery = group->delivery;

    acted->matched += group->count;
    if (order->verb == QMGR_VERB_RETRY && acted->retried != NULL && !acted->retried->has_more)
        retried_note(acted->retried, delivery->line);
    if (delivery->state == QMGR_ACTIVE) {
        act_on_active(qmgr, group, order, acted, now);
        return;
    }
    if (!act_applies(delivery, order, now))
        return;
    if (verb_ends_recipients(order->verb))
        act_end(qmgr, group, order);
    else
        act_move(qmgr, group, order, now);
    acted->done += group->count;
    qmgr_message_review(qmgr, group->message);
}

/* Move what matches the first one's delivery to the front; returns how many these are. Recipients
 * of several domains stand in turn. */
static uint32_t group_gather(struct qmgr_match *matches, uint32_t count)
{
    uint32_t gathered = 1;

    for (uint32_t i = 1; i < count && matches[i].message == matches[0].message; i++) {
        if (matches[i].delivery != matches[0].delivery)
            continue;
        struct qmgr_match match = matches[i];
        matches[i] = matches[gathered];
        matches[gathered++] = match;
    }
    return gathered;
}

/* How many matches of the same message follow one another. */
static uint32_t message_count(const struct qmgr_match *matches, uint32_t count)
{
    uint32_t same = 1;

    while (same < count && matches[same].message == matches[0].message)
        same++;
    return same;
}

void qmgr_act(struct qmgr *qmgr, struct qmgr_match *matches, uint32_t count,
              const struct qmgr_order *order, struct qmgr_acted *acted, struct tick_now now)
{
    bool is_move = !verb_ends_recipients(order->verb);
    uint32_t gathered;

    CHECK(order->verb < QMGR_VERB_COUNT && order->id > 0);
    for (uint32_t i = 0; i < count; i += gathered) {
        if (!is_move && matches[i].delivery != NULL && !qmgr_envelope_is_here(matches[i].message)) {
            gathered = message_count(&matches[i], count - i);
            act_end_unreadable(qmgr, &matches[i], gathered, order, acted);
            continue;
        }
        gathered = group_gather(&matches[i], count - i);
        if (matches[i].delivery == NULL) { /* it has failed: its notification is on its way */
            acted->matched += gathered;
            continue;
        }
        if (is_move && matches[i].is_whole && matches[i].is_rest)
            continue; /* it was counted, and moved if need be, by an earlier step */
        struct act_group group = group_make(&matches[i], gathered, is_move);
        act_on_group(qmgr, &group, order, acted, now);
        free(group.recipients);
    }
}

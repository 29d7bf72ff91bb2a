/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Orders of operators, carried out on what a scan found.
 *
 * verb      on what                      what becomes of it
 *   HOLD      anything not held            HELD; no attempt until it is released, or the hold's end
 *   RELEASE   HELD                         READY
 *   RETRY     WAITING                      READY
 *   BOUNCE    recipients that are DUE      FAILED: their sender is told, with the reason
 *   DELETE    recipients that are DUE      SETTLED: nobody is told
 *   REROUTE   anything but ACTIVE          goes by another domain, READY; what is HELD stays so
 *
 * Rules
 *   1. What is under way (ACTIVE) is asked to end, and its results win: a recipient that was
 *      delivered is delivered. What is left DUE when the attempt ends gets the order then: it
 *      waits as a `wish` of the delivery. Wishes are fulfilled as they were given; of several to
 *      hold, or to reroute, the last; a release or a retry withdraws those to hold.
 *   2. HOLD, RELEASE, BOUNCE, DELETE and REROUTE are in the spool with the lazy records: after a
 * crash at most the last second of orders is forgotten. A wish lives as long as the attempt.
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

static void recipient_end(struct qmgr *qmgr, struct qmgr_delivery *delivery, uint32_t index,
                          const struct qmgr_order *order, struct qmgr_settling *settling)
{
    struct qmgr_message *message = delivery->message;
    struct envelope *envelope = &message->work->envelope;
    struct envelope_recipient *recipient = &envelope->recipients[index];
    struct qmgr_failure failure = {
        .recipient_index = index,
        .code = 554,
        .enhanced = {5, 7, 1},
        .reply = span_from_text(order->reason),
    };

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

void qmgr_wishes_free(struct qmgr_wish *wishes)
{
    while (wishes != NULL) {
        struct qmgr_wish *next = wishes->next;
        free(wishes);
        wishes = next;
    }
}

static void wish_fulfil(struct qmgr *qmgr, struct qmgr_delivery *delivery,
                        const struct qmgr_wish *wish, struct qmgr_settling *settling)
{
    const struct envelope *envelope = qmgr_message_open(qmgr, delivery->message);

    for (uint32_t i = 0; i < wish->count; i++) {
        uint32_t index = wish->recipients[i];
        if (envelope->recipients[index].state != RECIPIENT_DUE)
            continue; /* the result won, or an order before this one */
        if (verb_ends_recipients(wish->order.verb))
            recipient_end(qmgr, delivery, index, &wish->order, settling);
        else if (qmgr->options.on_order != NULL)
            qmgr->options.on_order(qmgr->options.context, envelope, index, &wish->order);
    }
}

void qmgr_wishes_fulfil(struct qmgr *qmgr, struct qmgr_delivery *delivery,
                        const struct qmgr_wish *wishes, struct qmgr_settling *settling,
                        const struct qmgr_wish **ret_hold, const struct qmgr_wish **ret_reroute)
{
    bool is_here = qmgr_envelope_is_here(delivery->message);

    for (const struct qmgr_wish *wish = wishes; wish != NULL; wish = wish->next) {
        if (wish->order.verb == QMGR_VERB_HOLD)
            *ret_hold = wish;
        if (wish->order.verb == QMGR_VERB_REROUTE)
            *ret_reroute = wish;
        if (is_here) /* else nobody can say who these are */
            wish_fulfil(qmgr, delivery, wish, settling);
    }
}

/* ---- one delivery ---- */

/* Recipients of one delivery that matched. */
struct act_group {
    const struct qmgr_match *matches;
    uint32_t count;
};

/* A release or a retry withdraws what was wished to be held. */
static bool wishes_release(struct qmgr_wish **link)
{
    bool was_held = false;

    while (*link != NULL) {
        struct qmgr_wish *wish = *link;
        if (wish->order.verb != QMGR_VERB_HOLD) {
            link = &wish->next;
            continue;
        }
        *link = wish->next;
        free(wish);
        was_held = true;
    }
    return was_held;
}

static void act_on_active(struct qmgr_delivery *delivery, const struct act_group *group,
                          const struct qmgr_order *order, struct qmgr_acted *acted)
{
    struct qmgr_wish **link = &delivery->active.of->wishes;

    if (order->verb == QMGR_VERB_RELEASE || order->verb == QMGR_VERB_RETRY) {
        acted->done += wishes_release(link) ? group->count : 0;
        return;
    }
    while (*link != NULL && (*link)->order.id != order->id)
        link = &(*link)->next;
    uint32_t before = *link != NULL ? (*link)->count : 0;
    struct qmgr_wish *next = *link != NULL ? (*link)->next : NULL;
    struct qmgr_wish *wish =
        realloc(*link, sizeof(*wish) + (before + group->count) * sizeof(wish->recipients[0]));
    CHECK(wish != NULL);
    wish->next = next;
    wish->order = *order;
    wish->count = before + group->count;
    for (uint32_t i = 0; i < group->count; i++)
        wish->recipients[before + i] = group->matches[i].recipient_index;
    *link = wish;
    acted->in_flight += group->count;
}

/* May the verb do anything to a delivery in this state? */
static bool act_applies(const struct qmgr_delivery *delivery, enum qmgr_verb verb)
{
    static const uint32_t states[QMGR_VERB_COUNT] = {
        [QMGR_VERB_HOLD] = 1u << QMGR_WAITING | 1u << QMGR_READY,
        [QMGR_VERB_RELEASE] = 1u << QMGR_HELD,
        [QMGR_VERB_RETRY] = 1u << QMGR_WAITING,
        [QMGR_VERB_BOUNCE] = 1u << QMGR_WAITING | 1u << QMGR_READY | 1u << QMGR_HELD,
        [QMGR_VERB_DELETE] = 1u << QMGR_WAITING | 1u << QMGR_READY | 1u << QMGR_HELD,
        [QMGR_VERB_REROUTE] = 1u << QMGR_WAITING | 1u << QMGR_READY | 1u << QMGR_HELD,
    };
    return states[verb] >> delivery->state & 1;
}

/* Held, released or tried at once: the delivery as a whole. */
static void act_move(struct qmgr *qmgr, struct qmgr_delivery *delivery,
                     const struct act_group *group, const struct qmgr_order *order,
                     struct tick_now now)
{
    struct qmgr_message *message = delivery->message;
    struct envelope_progress progress = {.delivery = ENVELOPE_DELIVERY_NONE};

    bool is_told = qmgr->options.on_order != NULL && qmgr_envelope_is_here(message);
    for (uint32_t i = 0; i < group->count && is_told; i++)
        qmgr->options.on_order(qmgr->options.context, qmgr_message_open(qmgr, message),
                               group->matches[i].recipient_index, order);
    uint32_t hold_order = order->verb == QMGR_VERB_HOLD ? order->id : 0;
    wall_us hold_until = order->until;
    if (order->verb == QMGR_VERB_REROUTE && delivery->state == QMGR_HELD) {
        hold_order = qmgr_delivery_order(delivery);
        hold_until = qmgr_delivery_held_until(delivery, now);
    }
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
    if (order->verb != QMGR_VERB_RETRY)
        qmgr_progress_write(qmgr, message, &settling, &progress);
}

/* Nobody can say who its recipients are. When all that are DUE belong to this delivery they can be
 * deleted all the same; nothing else can be done for them. */
static void act_end_unreadable(struct qmgr *qmgr, struct qmgr_delivery *delivery,
                               const struct qmgr_order *order, struct qmgr_acted *acted)
{
    struct qmgr_message *message = delivery->message;

    if (order->verb != QMGR_VERB_DELETE || message->due != delivery->due_count)
        return;
    acted->done++; /* as it was told: by one match */
    qmgr->stats.deleted_recipients += message->due;
    qmgr_states_settle(message);
    message->due = 0;
    qmgr_delivery_free(qmgr, delivery);
    qmgr_message_review(qmgr, message);
}

static void act_end(struct qmgr *qmgr, struct qmgr_delivery *delivery,
                    const struct act_group *group, const struct qmgr_order *order)
{
    struct qmgr_message *message = delivery->message;
    struct envelope_progress progress = {.delivery = ENVELOPE_DELIVERY_NONE};
    struct qmgr_settling settling = qmgr_settling_begin(qmgr, group->count);

    qmgr_message_open(qmgr, message);
    for (uint32_t i = 0; i < group->count; i++)
        recipient_end(qmgr, delivery, group->matches[i].recipient_index, order, &settling);
    if (delivery->due_count == 0)
        qmgr_delivery_free(qmgr, delivery);
    if (message->due + message->failed > 0)
        qmgr_progress_write(qmgr, message, &settling, &progress);
}

static void act_on_group(struct qmgr *qmgr, const struct act_group *group,
                         const struct qmgr_order *order, struct qmgr_acted *acted,
                         struct tick_now now)
{
    struct qmgr_delivery *delivery = group->matches[0].delivery;
    struct qmgr_message *message = group->matches[0].message;

    acted->matched += group->count;
    if (delivery == NULL)
        return; /* it has failed: its notification is on its way */
    if (delivery->state == QMGR_ACTIVE) {
        act_on_active(delivery, group, order, acted);
        return;
    }
    bool is_held_by_it = delivery->state == QMGR_HELD && order->verb == QMGR_VERB_HOLD &&
                         qmgr_delivery_order(delivery) == order->id; /* the rest of a large one */
    bool is_there = order->verb == QMGR_VERB_REROUTE &&
                    span_is_equal(qmgr_line_domain(delivery->line), span_from_text(order->route));
    if (is_there || (!act_applies(delivery, order->verb) && !is_held_by_it))
        return;
    if (verb_ends_recipients(order->verb) && !qmgr_envelope_is_here(message)) {
        act_end_unreadable(qmgr, delivery, order, acted);
        return;
    }
    if (verb_ends_recipients(order->verb))
        act_end(qmgr, delivery, group, order);
    else
        act_move(qmgr, delivery, group, order, now);
    acted->done += group->count;
    qmgr_message_review(qmgr, message);
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

void qmgr_act(struct qmgr *qmgr, struct qmgr_match *matches, uint32_t count,
              const struct qmgr_order *order, struct qmgr_acted *acted, struct tick_now now)
{
    CHECK(order->verb < QMGR_VERB_COUNT && order->id > 0);
    for (uint32_t i = 0; i < count;) {
        struct act_group group = {&matches[i], group_gather(&matches[i], count - i)};
        act_on_group(qmgr, &group, order, acted, now);
        i += group.count;
    }
}

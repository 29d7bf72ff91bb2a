/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Orders about a delivery that is under way. It is asked to end, and its results win; what they
 * leave DUE gets the order then. Until that the order is a *wish* of the delivery.
 *
 * Rules
 *   1. Wishes are fulfilled as they were given. Of several to hold the one that ends last counts,
 * of several to reroute the last; a recipient that is to end does so by the first order that says
 *      so. A release withdraws wishes to hold, and is as final as that of mail that is held.
 *   2. A wish is in the spool, with the lazy records, from the moment it was given: if the relay
 *      stops or dies before the attempt has ended, the message comes back with the order carried
 *      out. A wish to hold or to reroute is the PROGRESS that would be written if the attempt ended
 *      now, without any result; so is what is left when one is withdrawn. A wish to end recipients
 *      is a WISH of the PROGRESS: it counts for those of whom no result is known.
 *   3. Of mail that is not in the spool nothing is written until it is stored; what it is stored
 *      with says its wishes, too.
 *
 * Limits: each recipient is in at most one wish that ends it, so that all of them fit a record.
 * Not here: what becomes of recipients (qmgr_act.c), what comes back (qmgr_recover.c).
 */
#include <stdlib.h>

#include "queue/qmgr_state.h"

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

/* ---- in the spool ---- */

static const struct qmgr_wish *wish_to_reroute(const struct qmgr_wish *wishes)
{
    const struct qmgr_wish *last = NULL;

    for (const struct qmgr_wish *wish = wishes; wish != NULL; wish = wish->next) {
        if (wish->order.verb == QMGR_VERB_REROUTE)
            last = wish;
    }
    return last;
}

/* The first of those that end last. */
static const struct qmgr_wish *wish_to_hold(const struct qmgr_wish *wishes)
{
    const struct qmgr_wish *longest = NULL;

    for (const struct qmgr_wish *wish = wishes; wish != NULL; wish = wish->next) {
        if (wish->order.verb == QMGR_VERB_HOLD &&
            (longest == NULL || wish->order.until > longest->order.until))
            longest = wish;
    }
    return longest;
}

uint32_t qmgr_wished_hold(const struct qmgr_delivery *delivery)
{
    const struct qmgr_wish *hold = wish_to_hold(delivery->active.of->wishes);

    return hold == NULL ? 0 : hold->order.id;
}

/* What wishes to hold and to reroute make of a delivery. */
static void progress_move(const struct qmgr_delivery *delivery, struct envelope_progress *progress,
                          struct tick_now now)
{
    const struct qmgr_wish *wishes = delivery->active.of->wishes;
    const struct qmgr_wish *hold = wish_to_hold(wishes);
    const struct qmgr_wish *reroute = wish_to_reroute(wishes);

    qmgr_progress_of(delivery, progress);
    progress->next_try = now.wall;
    if (hold != NULL)
        qmgr_progress_held(delivery, hold->order.id, hold->order.until, progress);
    if (reroute != NULL)
        progress->route = span_from_text(reroute->order.route);
}

/* From the `from`th recipient of the wish on, those that are still DUE. */
static void wish_gather(struct qmgr *qmgr, const struct qmgr_message *message,
                        const struct qmgr_wish *wish, uint32_t from, struct qmgr_settling *settling)
{
    const struct envelope *envelope = &message->work->envelope;

    for (uint32_t i = from; i < wish->count; i++) {
        const struct envelope_recipient *recipient = &envelope->recipients[wish->recipients[i]];
        struct qmgr_failure failure = qmgr_order_failure(&wish->order, wish->recipients[i]);
        if (recipient->state == RECIPIENT_DUE)
            qmgr_settling_add_wish(qmgr, settling,
                                   wish->order.verb == QMGR_VERB_BOUNCE
                                       ? qmgr_failure_state(message, recipient)
                                       : RECIPIENT_SETTLED,
                                   &failure);
    }
}

void qmgr_wishes_tell(struct qmgr *qmgr, const struct qmgr_delivery *delivery,
                      struct qmgr_settling *settling, struct envelope_progress *progress,
                      struct tick_now now)
{
    progress_move(delivery, progress, now);
    for (const struct qmgr_wish *wish = delivery->active.of->wishes; wish != NULL;
         wish = wish->next) {
        if (verb_ends_recipients(wish->order.verb))
            wish_gather(qmgr, delivery->message, wish, 0, settling);
    }
}

/* An unstored message has nothing in the spool, and one that is being stored tells all at once.
 * `flags` stay to be told when no wish does. */
static bool is_told_later(struct qmgr_message *message, uint32_t flags)
{
    if (message->storage == QMGR_STORING || (message->storage == QMGR_UNSTORED && flags != 0))
        message->work->is_news_due = true;
    return message->storage != QMGR_STORED || QMGR_HAS_BUG(WISH_FORGOTTEN);
}

static void write_move(struct qmgr *qmgr, const struct qmgr_delivery *delivery, uint32_t flags,
                       struct tick_now now)
{
    struct envelope_progress progress = {.delivery = ENVELOPE_DELIVERY_NONE, .flags = flags};

    if (is_told_later(delivery->message, flags))
        return;
    struct qmgr_settling settling = qmgr_settling_begin(qmgr, 0);
    progress_move(delivery, &progress, now);
    qmgr_progress_write(qmgr, delivery->message, &settling, &progress);
}

static void write_end(struct qmgr *qmgr, const struct qmgr_delivery *delivery,
                      const struct qmgr_wish *wish, uint32_t from)
{
    struct envelope_progress progress = {.delivery = ENVELOPE_DELIVERY_NONE};

    if (is_told_later(delivery->message, 0))
        return;
    qmgr_message_open(qmgr, delivery->message);
    struct qmgr_settling settling = qmgr_settling_begin(qmgr, wish->count - from);
    wish_gather(qmgr, delivery->message, wish, from, &settling);
    qmgr_progress_write(qmgr, delivery->message, &settling, &progress);
}

/* ---- given and withdrawn ---- */

bool qmgr_wishes_withdraw(struct qmgr *qmgr, struct qmgr_delivery *delivery, struct tick_now now)
{
    struct qmgr_wish **link = &delivery->active.of->wishes;
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
    if (was_held)
        write_move(qmgr, delivery, qmgr_flag_released(qmgr, delivery->message), now);
    return was_held;
}

static bool is_wished_to_end(const struct qmgr_wish *wishes, uint32_t recipient)
{
    for (const struct qmgr_wish *wish = wishes; wish != NULL; wish = wish->next) {
        for (uint32_t i = 0; i < wish->count && verb_ends_recipients(wish->order.verb); i++) {
            if (wish->recipients[i] == recipient)
                return true;
        }
    }
    return false;
}

/* Room for `added` recipients more in the wish of this order, the last one if it is new. */
static struct qmgr_wish *wish_get(struct qmgr_wish **link, const struct qmgr_order *order,
                                  uint32_t added)
{
    while (*link != NULL && (*link)->order.id != order->id)
        link = &(*link)->next;
    bool is_new = *link == NULL;
    uint32_t count = is_new ? 0 : (*link)->count;
    struct qmgr_wish *wish =
        realloc(*link, sizeof(*wish) + (count + added) * sizeof(wish->recipients[0]));
    CHECK(wish != NULL);
    if (is_new)
        *wish = (struct qmgr_wish){.order = *order};
    *link = wish;
    return wish;
}

static bool has_wish(const struct qmgr_wish *wishes, uint32_t order)
{
    while (wishes != NULL && wishes->order.id != order)
        wishes = wishes->next;
    return wishes != NULL;
}

static void wish_end_add(struct qmgr *qmgr, struct qmgr_delivery *delivery,
                         const struct qmgr_order *order, const uint32_t *recipients, uint32_t count)
{
    struct qmgr_wish **wishes = &delivery->active.of->wishes;
    uint32_t added = 0, *fresh = malloc(count * sizeof(*fresh));

    CHECK(fresh != NULL);
    for (uint32_t i = 0; i < count; i++) {
        if (!is_wished_to_end(*wishes, recipients[i]))
            fresh[added++] = recipients[i];
    }
    if (added > 0) {
        struct qmgr_wish *wish = wish_get(wishes, order, added);
        memcpy(wish->recipients + wish->count, fresh, added * sizeof(*fresh));
        wish->count += added;
        write_end(qmgr, delivery, wish, wish->count - added);
    }
    free(fresh);
}

void qmgr_wish_add(struct qmgr *qmgr, struct qmgr_delivery *delivery,
                   const struct qmgr_order *order, const uint32_t *recipients, uint32_t count,
                   struct tick_now now)
{
    struct qmgr_wish **wishes = &delivery->active.of->wishes;

    if (verb_ends_recipients(order->verb)) {
        wish_end_add(qmgr, delivery, order, recipients, count);
        return;
    }
    if (has_wish(*wishes, order->id))
        return; /* it was wished for the whole delivery */
    struct qmgr_wish *wish = wish_get(wishes, order, count);
    if (count > 0)
        memcpy(wish->recipients, recipients, count * sizeof(*recipients));
    wish->count = count;
    write_move(qmgr, delivery, 0, now);
}

/* ---- fulfilled ---- */

static void wish_fulfil(struct qmgr *qmgr, struct qmgr_delivery *delivery,
                        const struct qmgr_wish *wish, struct qmgr_settling *settling)
{
    const struct envelope *envelope = qmgr_message_open(qmgr, delivery->message);

    for (uint32_t i = 0; i < wish->count; i++) {
        uint32_t index = wish->recipients[i];
        if (envelope->recipients[index].state != RECIPIENT_DUE)
            continue; /* the result won, or an order before this one */
        if (verb_ends_recipients(wish->order.verb))
            qmgr_recipient_end(qmgr, delivery, index, &wish->order, settling);
        else if (qmgr->options.on_order != NULL)
            qmgr->options.on_order(qmgr->options.context, envelope, index, &wish->order);
    }
}

void qmgr_wishes_fulfil(struct qmgr *qmgr, struct qmgr_delivery *delivery,
                        const struct qmgr_wish *wishes, struct qmgr_settling *settling,
                        const struct qmgr_wish **ret_hold, const struct qmgr_wish **ret_reroute)
{
    bool is_here = qmgr_envelope_is_here(delivery->message);

    /* If it cannot be read, nobody can say who these are; at the next start they end all the same.
     */
    for (const struct qmgr_wish *wish = wishes; wish != NULL && is_here; wish = wish->next)
        wish_fulfil(qmgr, delivery, wish, settling);
    *ret_hold = wish_to_hold(wishes);
    *ret_reroute = wish_to_reroute(wishes);
}

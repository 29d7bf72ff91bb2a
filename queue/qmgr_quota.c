/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a user sent beyond the quota is held until an operator releases it. ENVELOPE_OVER_QUOTA, set
 * by who accepted the message, says so as long as the message lives: the hold needs nothing else to
 * outlive a crash. It is a hold as those of orders are (qmgr_act.c), by the order QMGR_ORDER_QUOTA.
 *
 * Invariants
 *   1. No attempt comes before an operator released it: it is held in the turn in which it is
 *      inserted, be it new or back from the spool.
 *   2. It is told of once, when it is new.
 *   3. ENVELOPE_RELEASED speaks of the message, a release of deliveries: before it is set, the
 *      spool has the hold of each delivery that is held on.
 */
#include "queue/qmgr_state.h"

static void hold_new(struct qmgr *qmgr, struct qmgr_delivery *delivery, struct tick_now now)
{
    static const struct qmgr_order order = {
        .verb = QMGR_VERB_HOLD,
        .id = QMGR_ORDER_QUOTA,
        .until = QMGR_HOLD_FOR_EVER,
        .reason = "quota",
    };
    struct qmgr_match match = {
        .message = delivery->message,
        .delivery = delivery,
        .recipient_index = delivery->first,
        .is_whole = true,
    };
    struct qmgr_acted acted = {0};

    qmgr_act(qmgr, &match, 1, &order, &acted, now);
}

void qmgr_quota_hold(struct qmgr *qmgr, struct qmgr_message *message, bool is_new,
                     struct tick_now now)
{
    message->work->pins++; /* for the time that it takes */
    qmgr->stats.quota_messages += is_new;
    for (struct qmgr_delivery *d = message->deliveries; d != NULL; d = qmgr_delivery_next(d)) {
        if (d->state == QMGR_HELD)
            continue;
        if (is_new) {
            hold_new(qmgr, d, now);
            continue;
        }
        qmgr_delivery_leave(qmgr, d);
        d->state = 0;
        qmgr_delivery_hold(qmgr, d, QMGR_ORDER_QUOTA, QMGR_HOLD_FOR_EVER, now);
    }
    message->work->pins--;
}

void qmgr_quota_release(struct qmgr *qmgr, const struct qmgr_delivery *released,
                        struct tick_now now)
{
    struct qmgr_message *message = released->message;

    if (!qmgr_quota_holds(message->flags))
        return;
    for (struct qmgr_delivery *d = message->deliveries; d != NULL; d = qmgr_delivery_next(d)) {
        struct envelope_progress progress = {.delivery = ENVELOPE_DELIVERY_NONE};
        if (d == released || d->state != QMGR_HELD)
            continue;
        struct qmgr_settling settling = qmgr_settling_begin(qmgr, 0);
        qmgr_progress_held(d, qmgr_delivery_order(d), qmgr_delivery_held_until(d, now), &progress);
        qmgr_progress_write(qmgr, message, &settling, &progress);
    }
}

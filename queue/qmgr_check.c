/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watchman: walks over the queue for as long as the relay runs, and counts messages that
 * nothing will ever move again. There must be none; if a mistake of ours ever makes one, the
 * operator hears of it long before the sender asks.
 *
 * A round looks at every message, CHECK_SLICE of them every CHECK_PERIOD, and the next one begins
 * CHECK_ROUND after the last began, or when that is done. The wheel calls; while the queue is empty
 * nothing does.
 *
 * A message that is stored has its next event when (all must hold)
 *   1. its expiry is armed, or its envelope is being read for that, or it is expired and an attempt
 *      or a notification will end it;
 *   2. it owes a notification only while that is listed, made, delayed or waits for an attempt;
 *   3. every recipient that is DUE belongs to a delivery, and each delivery waits with its timer
 *      armed, or has its place in a line that is to be handed out or is with the transfer, or is
 *      under way, or is held (and expires).
 *
 * Not here: proof of all structures (qmgr_verify.c), which no running relay can afford.
 */
#include "base/log.h"
#include "queue/qmgr_state.h"

#define CHECK_SLICE    1024u
#define CHECK_PERIOD   TICK_MS(250)
#define CHECK_ROUND    TICK_S(60)
#define CHECK_LOGS_MAX 5u /* of one round */

static bool delivery_has_next_event(const struct qmgr_delivery *delivery)
{
    switch (delivery->state) {
    case QMGR_WAITING:
        return wheel_is_armed(&delivery->timer);
    case QMGR_READY:
        return delivery->line->state != QMGR_LINE_IDLE && qmgr_fair_holds(delivery);
    case QMGR_ACTIVE:
        return delivery->load != QMGR_LOAD_WAITED || qmgr_envelope_is_loading(delivery->message);
    default:
        return delivery->state == QMGR_HELD;
    }
}

bool qmgr_message_has_next_event(const struct qmgr_message *message)
{
    uint8_t dsn_state = message->work == NULL ? QMGR_DSN_NONE : message->work->dsn_state;
    uint32_t due = 0;

    if (message->storage != QMGR_STORED) /* its owner sees to it; what is forgotten is ACTIVE */
        return message->storage != QMGR_FORGOTTEN || message->active > 0;
    if (!message->is_expired && !wheel_is_armed(&message->expiry) &&
        !(message->is_expiry_owed && qmgr_envelope_is_loading(message)))
        return false;
    if (message->failed > 0 && message->active == 0 && dsn_state == QMGR_DSN_NONE)
        return false;
    if (message->is_expired && message->active == 0 && dsn_state == QMGR_DSN_NONE)
        return false;
    for (const struct qmgr_delivery *d = message->deliveries; d != NULL;
         d = qmgr_delivery_next(d)) {
        if (!delivery_has_next_event(d))
            return false;
        due += d->due_count;
    }
    return due == message->due;
}

static void stuck_report(struct qmgr *qmgr, const struct qmgr_message *message)
{
    char id[MESSAGE_ID_TEXT_SIZE];

    if (qmgr->check.stuck++ >= CHECK_LOGS_MAX)
        return;
    log_line(LOG_ERROR, "event=message_without_next_event id=%s (please report this)",
             message_id_format(qmgr_message_id(message), id));
}

/* False: the round is done. */
static bool check_slice(struct qmgr *qmgr)
{
    for (uint32_t i = 0; i < CHECK_SLICE; i++) {
        const struct qmgr_message *message = slab_next(&qmgr->messages, &qmgr->check.cursor);
        if (message == NULL)
            return false;
        qmgr->stats.checked++;
        if (!qmgr_message_has_next_event(message))
            stuck_report(qmgr, message);
    }
    return true;
}

void qmgr_check_begin(struct qmgr *qmgr, struct tick_now now)
{
    if (wheel_is_armed(&qmgr->check.timer))
        return;
    qmgr->check.timer.kind = QMGR_TIMER_CHECK;
    qmgr->check.round_since = now.tick;
    wheel_arm(&qmgr->wheel, &qmgr->check.timer, now.tick + CHECK_PERIOD);
}

void qmgr_check_end(struct qmgr *qmgr)
{
    wheel_cancel(&qmgr->wheel, &qmgr->check.timer);
    qmgr->check.cursor = 0;
    qmgr->check.stuck = qmgr->check.stuck_before = 0;
}

void qmgr_check_timer(struct qmgr *qmgr, struct tick_now now)
{
    tick_us next = now.tick + CHECK_PERIOD;

    if (!check_slice(qmgr)) {
        qmgr->stats.check_rounds++;
        qmgr->check.stuck_before = qmgr->check.stuck;
        qmgr->check.stuck = 0;
        qmgr->check.cursor = 0;
        if (next < qmgr->check.round_since + CHECK_ROUND)
            next = qmgr->check.round_since + CHECK_ROUND;
        qmgr->check.round_since = next;
    }
    wheel_arm(&qmgr->wheel, &qmgr->check.timer, next);
}

uint32_t qmgr_check_stuck(const struct qmgr *qmgr)
{
    return qmgr->check.stuck > qmgr->check.stuck_before ? qmgr->check.stuck
                                                        : qmgr->check.stuck_before;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What memory keeps for first attempts, and what gives way.
 *
 * A fresh message keeps its envelope and its body until its first attempt has ended, so that mail
 * that goes at once is never read back. The memory for that is bounded and belongs to mail that
 * moves: when it is full and another message comes, messages of lines that stand still give theirs
 * up, and are read from the spool when their turn comes. Otherwise the mail of a few dead domains
 * would have it all until it expires, and every message to the living would be read back.
 *
 *   kept ---------> not kept    its first attempts have ended; it is gone
 *     |   \-------> not kept    looked at: it is stored, idle, and none of its lines moved lately
 *     \-----------> kept        looked at: it goes to the back
 *
 * Invariants
 *   1. Every message in the list is STORED and has a work; a work that is reused is in no list.
 *   2. Nothing gives way while an attempt, a scan, a notification or a read is about it.
 *   3. What it costs: a call looks at LOOKS_MAX messages, and at none twice within STILL_TIME.
 *
 * Limits: LOOKS_MAX a call, LINES_MAX lines of a message: one with more is left alone.
 */
#include "queue/qmgr_state.h"

#define LOOKS_MAX  4u
#define LINES_MAX  8u
#define STILL_TIME TICK_S(1)

void qmgr_keep_join(struct qmgr *qmgr, struct qmgr_message *message, struct tick_now now)
{
    struct qmgr_work *work = message->work;

    if (message->storage != QMGR_STORED || message->fresh == 0 || work == NULL || work->is_kept)
        return;
    work->is_kept = true;
    work->kept_at = now.tick;
    TAILQ_INSERT_TAIL(&qmgr->kept, work, kept_link);
}

void qmgr_keep_leave(struct qmgr *qmgr, struct qmgr_work *work)
{
    if (!work->is_kept)
        return;
    TAILQ_REMOVE(&qmgr->kept, work, kept_link);
    work->is_kept = false;
}

static bool is_idle(const struct qmgr_work *work)
{
    return work->message->active == 0 && work->pins == 0 && work->load == NULL &&
           work->dsn_state == QMGR_DSN_NONE;
}

static bool stands_still(const struct qmgr_message *message, struct tick_now now)
{
    const struct qmgr_delivery *delivery = message->deliveries;

    for (uint32_t i = 0; i < LINES_MAX && delivery != NULL; i++) {
        if (delivery->line->moved_at + STILL_TIME > now.tick)
            return false;
        delivery = qmgr_delivery_next(delivery);
    }
    return delivery == NULL;
}

static void give_up(struct qmgr *qmgr, struct qmgr_work *work)
{
    struct qmgr_message *message = work->message;

    for (struct qmgr_delivery *d = message->deliveries; d != NULL; d = qmgr_delivery_next(d))
        qmgr_delivery_not_fresh(d);
    qmgr_keep_leave(qmgr, work);
    qmgr_message_review(qmgr, message);
}

void qmgr_make_room(struct qmgr *qmgr, struct tick_now now)
{
    for (uint32_t i = 0; i < LOOKS_MAX; i++) {
        struct qmgr_work *work = TAILQ_FIRST(&qmgr->kept);

        if (work == NULL || work->kept_at + STILL_TIME > now.tick)
            return;
        if (is_idle(work) && stands_still(work->message, now)) {
            give_up(qmgr, work);
            continue;
        }
        qmgr_keep_leave(qmgr, work);
        qmgr_keep_join(qmgr, work->message, now);
    }
}

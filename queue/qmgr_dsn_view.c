/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a DSN says: of each recipient at most one thing, in the order of the recipients; and the
 * PROGRESS that becomes durable with it.
 *
 * Failures and successes are those that were there when the DSN was REPORTED. A notice of delay
 * speaks of the recipients that are DUE now and want it; it settles nobody, its PROGRESS says that
 * it was made.
 *
 * Limits: DELAY_REPLIES_MAX octets of last replies in a notice of delay, the others are left out.
 */
#include <stdlib.h>

#include "queue/qmgr_state.h"

#define DELAY_REPLIES_MAX (1u << 20)

enum recipient_state qmgr_notice_settles(enum qmgr_notice notice)
{
    CHECK(notice != QMGR_NOTICE_DELAYED);
    return notice == QMGR_NOTICE_RELAYED ? RECIPIENT_DELIVERED : RECIPIENT_SETTLED;
}

/* A row for every recipient; those of which nothing is said have no place in `is_told`. */
struct rows {
    struct qmgr_failure *rows;
    bool *is_told;
    uint32_t count;
};

static void rows_set(struct rows *rows, const struct qmgr_failure *row)
{
    CHECK(!rows->is_told[row->recipient_index]);
    rows->rows[row->recipient_index] = *row;
    rows->is_told[row->recipient_index] = true;
    rows->count++;
}

static void rows_add_failed(const struct qmgr_work *work, struct rows *rows)
{
    for (const struct qmgr_failed *failed = work->failures; failed != NULL; failed = failed->next) {
        if (!failed->is_reported)
            continue;
        rows_set(rows,
                 &(struct qmgr_failure){
                     .recipient_index = failed->recipient_index,
                     .notice = (enum qmgr_notice)failed->notice,
                     .code = failed->code,
                     .enhanced = {failed->enhanced[0], failed->enhanced[1], failed->enhanced[2]},
                     .reply = span_of(failed->reply, failed->reply_size),
                     .is_expired = failed->is_expired,
                 });
    }
}

/* The recipients of one delivery that are late and want to hear of it. */
static void rows_add_late(struct qmgr *qmgr, struct qmgr_work *work, struct qmgr_delivery *delivery,
                          struct rows *rows, uint32_t *room)
{
    const struct qmgr_reply *last = delivery->last_reply;
    struct qmgr_failure row = {.notice = QMGR_NOTICE_DELAYED};
    uint32_t *indexes = malloc(delivery->due_count * sizeof(*indexes));

    CHECK(indexes != NULL);
    qmgr_delivery_recipients(delivery, &work->envelope, indexes);
    if (last != NULL && last->size <= *room) {
        row.reply = arena_copy(&work->arena, span_of(last->octets, last->size));
        CHECK(row.reply.data != NULL || last->size == 0); /* room is far below the arena's bound */
        *room -= last->size;
    }
    for (uint32_t i = 0; i < delivery->due_count; i++) {
        row.recipient_index = indexes[i];
        if (qmgr_recipient_wants_delay(qmgr, &work->envelope.recipients[indexes[i]]))
            rows_set(rows, &row);
    }
    free(indexes);
}

static struct span progress_encode(struct qmgr_work *work, const struct envelope_settle *settles,
                                   uint32_t settle_count)
{
    struct envelope_progress progress = {
        .delivery = ENVELOPE_DELIVERY_NONE,
        .dsn_runs = work->message->dsn_runs + 1u,
        .flags = work->is_dsn_delayed ? ENVELOPE_DELAY_TOLD : 0,
        .settles = settles,
        .settle_count = settle_count,
        .told_time = settle_count > 0 ? work->spared_at : 0,
        .told_count = settle_count > 0 && work->spared_at > 0 ? settle_count : 0,
    };
    uint32_t size = envelope_progress_encoded_size(&progress);
    uint8_t *encoded = arena_acquire(&work->arena, size);

    CHECK(encoded != NULL);
    envelope_progress_encode(&progress, encoded);
    return span_of(encoded, size);
}

/* What it has come to is in the spool already, unless it was spared (qmgr_settle.c). */
static struct envelope_settle settle_of(const struct qmgr_work *work,
                                        const struct qmgr_failure *failure)
{
    struct envelope_settle settle = {
        .recipient_index = failure->recipient_index,
        .state = qmgr_notice_settles(failure->notice),
    };

    if (work->spared_at == 0)
        return settle;
    settle.code = failure->code;
    settle.is_expired = failure->is_expired;
    memcpy(settle.enhanced, failure->enhanced, sizeof(settle.enhanced));
    return settle;
}

void qmgr_dsn_view_build(struct qmgr *qmgr, struct qmgr_work *work)
{
    const struct qmgr_message *message = work->message;
    uint32_t recipients = work->envelope.recipient_count, place = 0, settled = 0;
    uint32_t room = DELAY_REPLIES_MAX;
    struct rows rows = {
        .rows = arena_acquire(&work->arena, recipients * sizeof(struct qmgr_failure)),
        .is_told = arena_acquire(&work->arena, recipients * sizeof(bool)),
    };

    CHECK(rows.rows != NULL && rows.is_told != NULL);
    memset(rows.is_told, 0, recipients * sizeof(bool));
    rows_add_failed(work, &rows);
    uint32_t failed = rows.count;
    struct qmgr_delivery *delivery = work->is_dsn_delayed ? message->deliveries : NULL;
    for (; delivery != NULL; delivery = qmgr_delivery_next(delivery))
        rows_add_late(qmgr, work, delivery, &rows, &room);

    struct envelope_settle *settles = arena_acquire(&work->arena, (failed + 1) * sizeof(*settles));
    CHECK(settles != NULL);
    for (uint32_t i = 0; i < recipients; i++) {
        if (!rows.is_told[i])
            continue;
        if (rows.rows[i].notice != QMGR_NOTICE_DELAYED)
            settles[settled++] = settle_of(work, &rows.rows[i]);
        rows.rows[place++] = rows.rows[i];
    }
    CHECK(place == rows.count && settled == failed && place > 0);
    work->dsn_progress = progress_encode(work, settles, settled);
    work->dsn_failures = rows.rows;
    work->dsn_failure_count = place;
    /* Said once: the commit is prepared from any of the views. */
    work->is_dsn_last = message->due == 0 && message->failed == failed;
}

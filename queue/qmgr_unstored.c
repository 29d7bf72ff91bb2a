/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mail whose client still waits: it has its place in the queue, and none in the spool.
 *
 * Storage of a message                            Edge done by
 *   (none) -> UNSTORED     inserted with an owner  qmgr_insert()
 *   UNSTORED -> (none)     delivered, or refused   qmgr_finish(), qmgr_act()
 *                          and the client hears it
 *   UNSTORED -> STORING    it is being committed   qmgr_store()
 *   STORING -> STORED      it is durable           qmgr_stored()
 *   STORING -> (none)      the commit failed       qmgr_store_failed()
 *   STORING -> FORGOTTEN   likewise, an attempt is under way
 *   FORGOTTEN -> (none)    that has ended          qmgr_finish()
 *   UNSTORED -> FORGOTTEN  its body will not come  qmgr_unstored_forget()
 *
 * Invariants
 *   1. While a message is not STORED its envelope is in memory, its body there or with its owner,
 *      nothing is written to the spool about it, and no notification is made.
 *   2. What happened to its recipients before its commit is told with that commit, in one PROGRESS;
 *      what happened during it, in one behind it. Its MESSAGE says that all are due: a crash
 * between the two costs another attempt.
 *   3. The owner hears of its end once (on_unstored_end()), unless he stores it; and once that it
 *      must be stored.
 *   4. What waits for its commit is not begun to be sent. What is under way goes on, and its
 * results count.
 *   5. All its recipients are of one domain, so that it has one delivery or none.
 *
 * Not here: when it must be stored for reasons of time, and the commit (relay/transfer_cut.c).
 */
#include "queue/qmgr_state.h"

/* Beyond any commit: it ends with the message's fate. */
#define COMMIT_TIME_MAX TICK_S(3600)

bool qmgr_is_waited_for(const struct qmgr *qmgr, const struct envelope *envelope)
{
    const struct qmgr_line *line = qmgr_line_first(qmgr, envelope->recipients[0].domain);

    for (; line != NULL; line = line->hash_next) {
        if (line->ready_count > line->unstored_count && line->class <= envelope->class &&
            span_is_equal(qmgr_line_domain(line), envelope->recipients[0].domain))
            return true;
    }
    return false;
}

enum way qmgr_message_way(const struct qmgr_message *message)
{
    return (enum way)message->way;
}

struct qmgr_delivery *qmgr_unstored_active(const struct qmgr_message *message)
{
    struct qmgr_delivery *delivery = message->deliveries;

    CHECK(message->storage == QMGR_UNSTORED);
    return delivery != NULL && delivery->state == QMGR_ACTIVE ? delivery : NULL;
}

void *qmgr_delivery_owner(const struct qmgr_delivery *delivery)
{
    const struct qmgr_message *message = delivery->message;

    return message->storage == QMGR_UNSTORED ? message->work->owner : NULL;
}

/* ---- its end without the spool ---- */

static bool message_end(struct qmgr *qmgr, struct qmgr_message *message,
                        const struct qmgr_result *refusal)
{
    void *owner = message->work->owner;

    if (!qmgr->options.on_unstored_end(qmgr->options.context, owner, refusal)) {
        CHECK(refusal != NULL);
        return false;
    }
    qmgr_message_remove(qmgr, message);
    qmgr->stats.done++;
    return true;
}

/* Did the next hop refuse all its recipients for good, in one attempt? */
static bool is_refusal(const struct qmgr_message *message, const struct qmgr_result *results,
                       uint32_t count)
{
    if (count < message->recipient_count)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        if (results[i].state != RECIPIENT_FAILED || results[i].code < 500)
            return false;
    }
    return true;
}

bool qmgr_is_refusal(const struct qmgr_delivery *delivery, const struct qmgr_result *results,
                     uint32_t result_count)
{
    return is_refusal(delivery->message, results, result_count);
}

static bool finish_is_refusal(const struct qmgr_message *message, const struct qmgr_finish *finish)
{
    return is_refusal(message, finish->results, finish->result_count);
}

static enum way finish_reason(const struct qmgr_message *message, const struct qmgr_finish *finish)
{
    uint32_t settled = message->recipient_count - message->due;

    if (settled > 0)
        return settled == message->recipient_count && finish_is_refusal(message, finish)
                   ? WAY_LEFT
                   : WAY_MIXED;
    if (message->deliveries != NULL && message->deliveries->state == QMGR_HELD)
        return WAY_ORDER;
    return finish->is_in_doubt ? WAY_UNCERTAIN : WAY_TEMPORARY;
}

bool qmgr_unstored_finish(struct qmgr *qmgr, struct qmgr_message *message,
                          const struct qmgr_finish *finish)
{
    if (message->storage != QMGR_UNSTORED)
        return false;
    if (finish_is_refusal(message, finish) && message_end(qmgr, message, &finish->results[0]))
        return true;
    if ((QMGR_HAS_BUG(FORGET_DEFERRED) && finish->was_attempted && !finish->is_in_doubt) ||
        (QMGR_HAS_BUG(FORGET_IN_DOUBT) && finish->is_in_doubt))
        return message_end(qmgr, message, NULL);
    if (finish->was_attempted && message->work->way_due == WAY_UNKNOWN)
        message->work->way_due = (uint8_t)finish_reason(message, finish);
    return false;
}

void qmgr_unstored_review(struct qmgr *qmgr, struct qmgr_message *message)
{
    struct qmgr_work *work = message->work;

    if (message->storage == QMGR_STORING)
        return;
    if (message->storage == QMGR_FORGOTTEN) {
        if (message->active == 0)
            qmgr_message_remove(qmgr, message);
        return;
    }
    if (message->due == 0 && message->failed == 0) {
        (void)message_end(qmgr, message, NULL);
        return;
    }
    if (!work->is_news_due || work->is_store_due)
        return;
    work->is_store_due = true;
    qmgr->options.on_store_due(qmgr->options.context, work->owner,
                               work->way_due == WAY_UNKNOWN ? WAY_ORDER : (enum way)work->way_due);
}

/* ---- a body that is still coming ---- */

void qmgr_unstored_complete(struct qmgr *qmgr, struct qmgr_message *message,
                            const struct qmgr_completion *completion)
{
    struct qmgr_work *work = message->work;
    struct envelope *envelope = &work->envelope;

    (void)qmgr;
    CHECK(message->storage == QMGR_UNSTORED && buf_queue_is_empty(&work->body));
    /* What came of it meanwhile stays. */
    uint32_t flags =
        completion->flags | ((envelope->flags | message->flags) & ENVELOPE_PROGRESS_FLAGS);
    envelope->body_size = completion->body_size;
    envelope->header_size = completion->header_size;
    envelope->flags = flags;
    message->flags = (uint16_t)flags;
    envelope_patch_sizes(work->encoded, completion->body_size, completion->header_size);
    envelope_patch_flags(work->encoded, completion->flags);
}

/* ---- into the spool ---- */

static const struct qmgr_failed *failed_find(const struct qmgr_work *work, uint32_t index)
{
    const struct qmgr_failed *failed = work->failures;

    while (failed != NULL && failed->recipient_index != index)
        failed = failed->next;
    return failed;
}

static void settling_fill(struct qmgr *qmgr, const struct qmgr_message *message,
                          struct qmgr_settling *settling)
{
    const struct envelope *envelope = &message->work->envelope;

    for (uint32_t i = 0; i < envelope->recipient_count; i++) {
        const struct qmgr_failed *failed = failed_find(message->work, i);
        struct qmgr_failure failure = {.recipient_index = i};
        if (envelope->recipients[i].state == RECIPIENT_DUE)
            continue;
        if (failed != NULL) {
            failure.code = failed->code;
            failure.is_expired = failed->is_expired;
            failure.reply = span_of(failed->reply, failed->reply_size);
            memcpy(failure.enhanced, failed->enhanced, sizeof(failure.enhanced));
        }
        qmgr_settling_add(qmgr, settling, &envelope->recipients[i], &failure);
    }
}

/* Of operators, about what is under way. */
static bool has_wishes(const struct qmgr_message *message)
{
    return message->active > 0 && message->deliveries->active.of->wishes != NULL;
}

/* Of the delivery, if there still is one. */
static void progress_fill(struct qmgr *qmgr, const struct qmgr_message *message,
                          struct qmgr_settling *settling, struct envelope_progress *progress,
                          struct tick_now now)
{
    const struct qmgr_delivery *delivery = message->deliveries;

    if (delivery == NULL)
        return;
    if (has_wishes(message)) {
        qmgr_wishes_tell(qmgr, delivery, settling, progress, now);
        return;
    }
    if (delivery->state == QMGR_HELD) {
        qmgr_progress_held(delivery, qmgr_delivery_order(delivery),
                           qmgr_delivery_held_until(delivery, now), progress);
        return;
    }
    qmgr_progress_of(delivery, progress);
    if (delivery->state == QMGR_WAITING && delivery->timer.deadline > now.tick)
        progress->next_try = now.wall + (wall_us)(delivery->timer.deadline - now.tick);
}

/* All that has happened to the message so far, as one PROGRESS. */
static struct span message_news(struct qmgr *qmgr, struct qmgr_message *message,
                                struct tick_now now)
{
    struct envelope_progress progress = {.delivery = ENVELOPE_DELIVERY_NONE};

    message->work->is_news_due = false;
    (void)qmgr_message_open(qmgr, message);
    struct qmgr_settling settling = qmgr_settling_begin(qmgr, message->recipient_count);
    settling_fill(qmgr, message, &settling);
    progress_fill(qmgr, message, &settling, &progress, now);
    progress.flags = message->flags & ENVELOPE_PROGRESS_FLAGS;
    settling.told_count = settling.count;
    qmgr_progress_told(&settling, &progress, now);
    return qmgr_progress_make(qmgr, message, &settling, &progress);
}

/* Invariant 4. */
static void delivery_park(struct qmgr *qmgr, struct qmgr_message *message, struct tick_now now)
{
    struct qmgr_delivery *delivery = message->deliveries;

    if (delivery == NULL || delivery->state != QMGR_READY)
        return;
    qmgr_delivery_leave(qmgr, delivery);
    qmgr_delivery_wait(qmgr, delivery, now.tick + COMMIT_TIME_MAX);
    message->work->is_parked = true;
}

void qmgr_unstored_forget(struct qmgr *qmgr, struct qmgr_message *message, struct tick_now now)
{
    CHECK(message->storage == QMGR_UNSTORED);
    delivery_park(qmgr, message, now);
    message->storage = QMGR_FORGOTTEN;
    message->work->owner = NULL;
    qmgr_unstored_review(qmgr, message);
}

struct qmgr_storing qmgr_store(struct qmgr *qmgr, struct qmgr_message *message, enum way reason,
                               bool is_in_doubt, struct tick_now now)
{
    struct qmgr_work *work = message->work;
    struct span news = {0};

    CHECK(message->storage == QMGR_UNSTORED);
    CHECK(message->deliveries == NULL || qmgr_delivery_next(message->deliveries) == NULL);
    if (is_in_doubt)
        message->flags |= ENVELOPE_IN_DOUBT;
    /* What an index knows of a message are the flags of its envelope. */
    if ((message->flags & ENVELOPE_IN_DOUBT) != 0)
        envelope_patch_flags(work->encoded,
                             envelope_basic_get(work->encoded).flags | ENVELOPE_IN_DOUBT);
    if (work->is_news_due || has_wishes(message))
        news = message_news(qmgr, message, now);
    delivery_park(qmgr, message, now);
    message->storage = QMGR_STORING;
    message->way = reason & 63;
    work->owner = NULL;
    return (struct qmgr_storing){
        .encoded = span_of(work->encoded, work->encoded_size),
        .progress = news,
        .body = &work->body,
    };
}

static void delivery_unpark(struct qmgr *qmgr, struct qmgr_message *message, struct tick_now now)
{
    struct qmgr_delivery *delivery = message->deliveries;
    bool is_parked = message->work->is_parked;

    message->work->is_parked = false;
    /* An operator's order, or its expiry, may have come first. */
    if (!is_parked || delivery == NULL || delivery->state != QMGR_WAITING)
        return;
    qmgr_delivery_leave(qmgr, delivery);
    qmgr_line_push(qmgr, delivery, now.wall);
}

void qmgr_stored(struct qmgr *qmgr, struct qmgr_message *message, struct spool_entry *entry,
                 struct tick_now now)
{
    CHECK(message->storage == QMGR_STORING && entry != NULL);
    message->storage = QMGR_STORED;
    message->entry = entry;
    delivery_unpark(qmgr, message, now);
    if (message->work->is_news_due &&
        (message->due + message->failed > 0 || qmgr->options.keeps_ends))
        spool_progress(qmgr->spool, entry, message_news(qmgr, message, now));
    qmgr_keep_join(qmgr, message, now);
    qmgr_message_review(qmgr, message);
}

bool qmgr_store_failed(struct qmgr *qmgr, struct qmgr_message *message)
{
    uint32_t delivered = 0;

    CHECK(message->storage == QMGR_STORING);
    for (uint32_t i = 0; i < message->recipient_count; i++)
        delivered += qmgr_recipient_state(message, i) == RECIPIENT_DELIVERED;
    bool is_delivered = delivered == message->recipient_count;
    message->storage = QMGR_FORGOTTEN;
    qmgr_unstored_review(qmgr, message);
    return is_delivered;
}

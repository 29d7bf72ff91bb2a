/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Failures, and the delivery status notification they are owed.
 *
 * A recipient refused for good, or expired, is FAILED: somebody must be told, and until that is
 * durable the recipient is not settled. With a null sender there is nobody to tell (RFC 5321
 * section 4.5.5): it is SETTLED at once.
 *
 * DSN of a message                                  Edge done by
 *   NONE -> LISTED       failures, none in flight   qmgr_dsn_review()
 *   LISTED -> NONE       an attempt starts          qmgr_dsn_review()
 *   LISTED -> REPORTED   the transfer asks          qmgr_dsn_next()
 *   REPORTED -> NONE     it is durable              qmgr_dsn_written()
 *   REPORTED -> DELAYED  its commit failed          qmgr_dsn_failed()
 *   DELAYED -> LISTED    retry_min later            qmgr_dsn_timer()
 *
 * A DSN waits until no delivery of its message is ACTIVE, so that what fails together is told
 * together; recipients that wait for a retry do not delay it. Which failures it speaks of is fixed
 * when it is REPORTED; later ones get the next, with the next run number.
 *
 * A crash between the DSN's commit and our hearing of it changes nothing: the PROGRESS that settles
 * the failures, with the run number, is in that commit.
 */
#include <stdlib.h>

#include "queue/qmgr_state.h"

uint32_t qmgr_text_copy(struct span text, uint8_t *ret_octets)
{
    uint32_t size = text.size < ENVELOPE_REPLY_SIZE_MAX ? text.size : ENVELOPE_REPLY_SIZE_MAX;

    for (uint32_t i = 0; i < size; i++) {
        uint8_t octet = text.data[i];
        ret_octets[i] = octet < 0x20 || octet == 0x7f ? '?' : octet;
    }
    return size;
}

static struct qmgr_failed *failed_new(const struct qmgr_failure *failure)
{
    uint8_t octets[ENVELOPE_REPLY_SIZE_MAX];
    uint32_t size = qmgr_text_copy(failure->reply, octets);
    struct qmgr_failed *failed = malloc(sizeof(*failed) + size);

    CHECK(failed != NULL);
    *failed = (struct qmgr_failed){
        .recipient_index = failure->recipient_index,
        .code = failure->code,
        .is_expired = failure->is_expired,
        .reply_size = size,
    };
    memcpy(failed->enhanced, failure->enhanced, sizeof(failed->enhanced));
    memcpy(failed->reply, octets, size);
    return failed;
}

void qmgr_recipient_fail(struct qmgr *qmgr, struct qmgr_message *message,
                         struct envelope_recipient *recipient, const struct qmgr_failure *failure)
{
    CHECK(message->due > 0);
    message->due--;
    qmgr->stats.failed_recipients++;
    if (message->is_null_sender) {
        envelope_patch_state(message->encoded, recipient, RECIPIENT_SETTLED);
        return;
    }
    envelope_patch_state(message->encoded, recipient, RECIPIENT_FAILED);
    message->failed++;
    struct qmgr_work *work = qmgr_work_get(qmgr, message);
    struct qmgr_failed *failed = failed_new(failure);
    failed->next = work->failures;
    work->failures = failed;
}

/* ---- the list of those that owe one ---- */

static void dsn_list_append(struct qmgr *qmgr, struct qmgr_work *work)
{
    work->next = NULL;
    work->prev = qmgr->dsns.last;
    if (work->prev != NULL)
        work->prev->next = work;
    else
        qmgr->dsns.first = work;
    qmgr->dsns.last = work;
}

static void dsn_list_remove(struct qmgr *qmgr, struct qmgr_work *work)
{
    if (work->prev != NULL)
        work->prev->next = work->next;
    else
        qmgr->dsns.first = work->next;
    if (work->next != NULL)
        work->next->prev = work->prev;
    else
        qmgr->dsns.last = work->prev;
}

/* The only writer of work->dsn_state. */
static void dsn_enter(struct qmgr *qmgr, struct qmgr_work *work, enum qmgr_dsn_state next)
{
    if (work->dsn_state == QMGR_DSN_LISTED)
        dsn_list_remove(qmgr, work);
    if (work->dsn_state == QMGR_DSN_DELAYED)
        wheel_cancel(&qmgr->wheel, &work->dsn_timer);
    work->dsn_state = (uint8_t)next;
    if (next == QMGR_DSN_LISTED)
        dsn_list_append(qmgr, work);
}

void qmgr_dsn_review(struct qmgr *qmgr, struct qmgr_message *message)
{
    struct qmgr_work *work = message->work;

    if (work == NULL)
        return;
    bool is_owed = message->failed > 0 && message->active == 0;
    if (work->dsn_state == QMGR_DSN_NONE && is_owed)
        dsn_enter(qmgr, work, QMGR_DSN_LISTED);
    else if (work->dsn_state == QMGR_DSN_LISTED && !is_owed)
        dsn_enter(qmgr, work, QMGR_DSN_NONE);
}

/* Free the failures, or only those the DSN spoke of. Returns how many. */
static uint32_t failures_free(struct qmgr_work *work, bool only_reported)
{
    struct qmgr_failed **link = &work->failures;
    uint32_t count = 0;

    while (*link != NULL) {
        struct qmgr_failed *failed = *link;
        if (only_reported && !failed->is_reported) {
            link = &failed->next;
            continue;
        }
        *link = failed->next;
        free(failed);
        count++;
    }
    return count;
}

void qmgr_dsn_forget(struct qmgr *qmgr, struct qmgr_work *work)
{
    dsn_enter(qmgr, work, QMGR_DSN_NONE);
    failures_free(work, false);
}

void qmgr_dsn_timer(struct qmgr *qmgr, struct qmgr_work *work)
{
    dsn_enter(qmgr, work, QMGR_DSN_NONE);
    qmgr_message_review(qmgr, work->message);
}

/* ---- for the transfer ---- */

struct qmgr_message *qmgr_dsn_next(struct qmgr *qmgr, struct tick_now now)
{
    struct qmgr_work *work = qmgr->dsns.first;

    (void)now;
    if (work == NULL)
        return NULL;
    dsn_enter(qmgr, work, QMGR_DSN_REPORTED);
    for (struct qmgr_failed *failed = work->failures; failed != NULL; failed = failed->next)
        failed->is_reported = true;
    qmgr_message_open(qmgr, work->message);
    return work->message;
}

/* The DSN's failures, in the order of the recipients, and the PROGRESS that settles them. */
static void dsn_build_view(struct qmgr_work *work)
{
    uint32_t count = work->message->failed, filled = 0;
    struct qmgr_failure *failures = arena_acquire(&work->arena, count * sizeof(*failures));
    struct envelope_settle *settles = arena_acquire(&work->arena, count * sizeof(*settles));
    struct qmgr_failure **by_index =
        arena_acquire(&work->arena, work->envelope.recipient_count * sizeof(*by_index));

    CHECK(failures != NULL && settles != NULL && by_index != NULL);
    memset(by_index, 0, work->envelope.recipient_count * sizeof(*by_index));
    for (const struct qmgr_failed *failed = work->failures; failed != NULL; failed = failed->next) {
        if (!failed->is_reported)
            continue;
        CHECK(filled < count);
        struct qmgr_failure *failure = &failures[filled++];
        *failure = (struct qmgr_failure){
            .recipient_index = failed->recipient_index,
            .code = failed->code,
            .enhanced = {failed->enhanced[0], failed->enhanced[1], failed->enhanced[2]},
            .reply = span_of(failed->reply, failed->reply_size),
            .is_expired = failed->is_expired,
        };
        by_index[failed->recipient_index] = failure;
    }
    struct qmgr_failure *sorted = arena_acquire(&work->arena, filled * sizeof(*sorted));
    CHECK(sorted != NULL);
    uint32_t place = 0;
    for (uint32_t i = 0; i < work->envelope.recipient_count; i++) {
        if (by_index[i] == NULL)
            continue;
        settles[place] = (struct envelope_settle){i, RECIPIENT_SETTLED, 0, {0}, false, {0}};
        sorted[place++] = *by_index[i];
    }
    CHECK(place == filled && filled > 0);

    struct envelope_progress progress = {
        .delivery = ENVELOPE_DELIVERY_NONE,
        .dsn_runs = work->message->dsn_runs + 1u,
        .settles = settles,
        .settle_count = filled,
    };
    uint32_t size = envelope_progress_encoded_size(&progress);
    uint8_t *encoded = arena_acquire(&work->arena, size);
    CHECK(encoded != NULL);
    envelope_progress_encode(&progress, encoded);
    work->dsn_failures = sorted;
    work->dsn_failure_count = filled;
    work->dsn_progress = span_of(encoded, size);
    /* Said once: the commit is prepared from any of the views. */
    work->is_dsn_last = work->message->due == 0 && count == filled;
}

struct qmgr_dsn qmgr_dsn_view(struct qmgr *qmgr, struct qmgr_message *message)
{
    struct qmgr_work *work = message->work;

    CHECK(work != NULL && work->dsn_state == QMGR_DSN_REPORTED && work->is_decoded);
    if (work->dsn_failure_count == 0)
        dsn_build_view(work);
    return (struct qmgr_dsn){
        .envelope = &work->envelope,
        .entry = message->entry,
        .body = buf_queue_is_empty(&work->body) ? &qmgr->no_body : &work->body,
        .failures = work->dsn_failures,
        .failure_count = work->dsn_failure_count,
        .run = message->dsn_runs,
        .progress = work->dsn_progress,
        .is_done = work->is_dsn_last,
    };
}

static void dsn_close_view(struct qmgr *qmgr, struct qmgr_work *work, enum qmgr_dsn_state next)
{
    work->dsn_failures = NULL;
    work->dsn_failure_count = 0;
    dsn_enter(qmgr, work, next);
}

void qmgr_dsn_written(struct qmgr *qmgr, struct qmgr_message *message, struct tick_now now)
{
    struct qmgr_work *work = message->work;

    (void)now;
    CHECK(work != NULL && work->dsn_state == QMGR_DSN_REPORTED && work->dsn_failure_count > 0);
    bool is_last = work->is_dsn_last;
    for (uint32_t i = 0; i < work->dsn_failure_count; i++) {
        uint32_t index = work->dsn_failures[i].recipient_index;
        envelope_patch_state(message->encoded, &work->envelope.recipients[index],
                             RECIPIENT_SETTLED);
    }
    uint32_t freed = failures_free(work, true);
    CHECK(freed == work->dsn_failure_count && message->failed >= freed);
    message->failed = (uint16_t)(message->failed - freed);
    message->dsn_runs++;
    dsn_close_view(qmgr, work, QMGR_DSN_NONE);
    if (is_last) {
        CHECK(message->due == 0 && message->failed == 0);
        qmgr->stats.done++;
        qmgr_message_remove(qmgr, message); /* the commit consumed the entry */
        return;
    }
    qmgr_message_review(qmgr, message);
}

void qmgr_dsn_failed(struct qmgr *qmgr, struct qmgr_message *message, struct tick_now now)
{
    struct qmgr_work *work = message->work;

    CHECK(work != NULL && work->dsn_state == QMGR_DSN_REPORTED);
    for (struct qmgr_failed *failed = work->failures; failed != NULL; failed = failed->next)
        failed->is_reported = false;
    dsn_close_view(qmgr, work, QMGR_DSN_DELAYED);
    wheel_arm(&qmgr->wheel, &work->dsn_timer, now.tick + qmgr->options.retry_min);
    qmgr_message_review(qmgr, message);
}

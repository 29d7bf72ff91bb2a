/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What senders are owed: the delivery status notification.
 *
 * A recipient refused for good, or expired, is FAILED: somebody must be told, and until that is
 * durable the recipient is not settled. With a null sender there is nobody to tell (RFC 5321
 * section 4.5.5), and who said NOTIFY without FAILURE does not want to be told: it is SETTLED at
 * once. A recipient that was taken by a hop without DSN is RELAYED if the sender asked for SUCCESS
 * (RFC 3461 section 5.2.2), else DELIVERED at once. And a message may be late: its sender is told
 * once, of the recipients that are DUE.
 *
 * DSN of a message                                  Edge done by
 *   NONE -> LISTED       owed, none in flight       qmgr_dsn_review()
 *   LISTED -> NONE       an attempt starts          qmgr_dsn_review()
 *   LISTED -> REPORTED   the transfer asks          qmgr_dsn_next()
 *   LISTED -> DELAYED    the sender had its share   qmgr_dsn_next()
 *   REPORTED -> NONE     it is durable              qmgr_dsn_written()
 *   REPORTED -> DELAYED  its commit failed          qmgr_dsn_failed()
 *   DELAYED -> LISTED    retry_min later, its turn  qmgr_dsn_timer()
 *
 * A DSN waits until no delivery of its message is ACTIVE, so that what fails together is told
 * together; recipients that wait for a retry do not delay it. Which failures it speaks of is fixed
 * when it is REPORTED; later ones get the next, with the next run number.
 *
 * Limits: while DSN_LATE_MAX are listed, mail that is only late is told at the end of its next
 * attempt. Envelopes are read for the first DSN_READ_AHEAD.
 *
 * A crash between the DSN's commit and our hearing of it changes nothing: the PROGRESS that settles
 * the failures, or says that the delay was told, with the run number, is in that commit.
 */
#include <stdlib.h>

#include "queue/qmgr_state.h"

#define DSN_LATE_MAX   1024u /* listed, when no more are listed that are only late */
#define DSN_READ_AHEAD 16u   /* envelopes of those that are next */

uint32_t qmgr_text_copy(struct span text, uint8_t *ret_octets)
{
    uint32_t size = text.size < ENVELOPE_REPLY_SIZE_MAX ? text.size : ENVELOPE_REPLY_SIZE_MAX;

    if (!span_has_control(span_head(text, size))) {
        if (size > 0)
            memcpy(ret_octets, text.data, size);
        return size;
    }
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
        .notice = (uint8_t)failure->notice,
        .is_expired = failure->is_expired,
        .reply_size = size,
    };
    memcpy(failed->enhanced, failure->enhanced, sizeof(failed->enhanced));
    memcpy(failed->reply, octets, size);
    return failed;
}

static bool recipient_wants(const struct envelope_recipient *recipient, uint8_t what, bool unasked)
{
    return recipient->notify == 0 ? unasked : (recipient->notify & what) != 0;
}

bool qmgr_recipient_wants_delay(const struct qmgr *qmgr, const struct envelope_recipient *recipient)
{
    return recipient_wants(recipient, ENVELOPE_NOTIFY_DELAY, qmgr->options.is_delay_unasked);
}

static void recipient_owe(struct qmgr *qmgr, struct qmgr_message *message,
                          struct envelope_recipient *recipient, enum recipient_state state,
                          const struct qmgr_failure *failure)
{
    qmgr_recipient_set(message, recipient, state);
    message->failed++;
    struct qmgr_work *work = qmgr_work_get(qmgr, message);
    struct qmgr_failed *failed = failed_new(failure);
    failed->next = work->failures;
    work->failures = failed;
}

enum recipient_state qmgr_failure_state(const struct qmgr_message *message,
                                        const struct envelope_recipient *recipient)
{
    if (message->is_null_sender || !recipient_wants(recipient, ENVELOPE_NOTIFY_FAILURE, true))
        return RECIPIENT_SETTLED;
    return RECIPIENT_FAILED;
}

void qmgr_recipient_fail(struct qmgr *qmgr, struct qmgr_message *message,
                         struct envelope_recipient *recipient, const struct qmgr_failure *failure)
{
    CHECK(message->due > 0 && failure->notice == QMGR_NOTICE_FAILED);
    message->due--;
    qmgr->stats.failed_recipients++;
    if ((message->flags & ENVELOPE_IS_DSN) != 0)
        qmgr->stats.double_bounces++;
    if (qmgr_failure_state(message, recipient) == RECIPIENT_FAILED)
        recipient_owe(qmgr, message, recipient, RECIPIENT_FAILED, failure);
    else
        qmgr_recipient_set(message, recipient, RECIPIENT_SETTLED);
}

void qmgr_recipient_relay(struct qmgr *qmgr, struct qmgr_message *message,
                          struct envelope_recipient *recipient, const struct qmgr_failure *failure)
{
    struct qmgr_failure notice = *failure;

    CHECK(message->due > 0);
    message->due--;
    qmgr->stats.delivered_recipients++;
    notice.notice = QMGR_NOTICE_RELAYED;
    if (!message->is_null_sender && recipient_wants(recipient, ENVELOPE_NOTIFY_SUCCESS, false))
        recipient_owe(qmgr, message, recipient, RECIPIENT_RELAYED, &notice);
    else
        qmgr_recipient_set(message, recipient, RECIPIENT_DELIVERED);
}

/* ---- lateness ---- */

/* Could a notice of delay ever be due for this message? */
static bool message_wants_delay(const struct qmgr *qmgr, const struct qmgr_message *message,
                                const struct envelope *envelope)
{
    tick_us lifetime = (tick_us)(envelope->expires - envelope->arrived);

    if (qmgr->options.delay_after == 0 || qmgr->options.delay_after >= lifetime ||
        message->expiry.kind >> QMGR_LIFETIME_SHIFT == QMGR_LIFETIME_MAX ||
        message->is_null_sender || (envelope->flags & ENVELOPE_DELAY_TOLD) != 0)
        return false;
    for (uint32_t i = 0; i < envelope->recipient_count; i++) {
        const struct envelope_recipient *recipient = &envelope->recipients[i];
        if (recipient->state == RECIPIENT_DUE && qmgr_recipient_wants_delay(qmgr, recipient))
            return true;
    }
    return false;
}

void qmgr_message_arm(struct qmgr *qmgr, struct qmgr_message *message,
                      const struct envelope *envelope, struct tick_now now)
{
    tick_us lifetime = (tick_us)(envelope->expires - envelope->arrived);
    tick_us deadline = qmgr_tick_of(envelope->expires, lifetime, now);

    if (message_wants_delay(qmgr, message, envelope)) {
        tick_us before = lifetime - qmgr->options.delay_after;
        /* Both are counted from now: a jump of the wall clock later moves neither. */
        message->is_delay_pending = deadline > now.tick + before;
        message->is_delay_owed = !message->is_delay_pending;
        if (message->is_delay_pending)
            deadline -= before;
    }
    wheel_arm(&qmgr->wheel, &message->expiry, deadline);
}

void qmgr_message_delay(struct qmgr *qmgr, struct qmgr_message *message)
{
    uint32_t lifetime = message->expiry.kind >> QMGR_LIFETIME_SHIFT;
    tick_us before = lifetime * QMGR_LIFETIME_UNIT - qmgr->options.delay_after;

    message->is_delay_pending = false;
    message->is_delay_owed = true;
    wheel_arm(&qmgr->wheel, &message->expiry, message->expiry.deadline + before);
    qmgr_message_review(qmgr, message);
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
    qmgr->dsns.count++;
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
    qmgr->dsns.count--;
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

/* A million messages that are late at the same time do not all need a work: those beyond the bound
 * are told when their next attempt has ended. */
static bool delay_has_room(const struct qmgr *qmgr, const struct qmgr_message *message)
{
    return qmgr->dsns.count < DSN_LATE_MAX ||
           (message->work != NULL && message->work->dsn_state != QMGR_DSN_NONE);
}

void qmgr_dsn_review(struct qmgr *qmgr, struct qmgr_message *message)
{
    bool is_late = message->is_delay_owed && delay_has_room(qmgr, message);
    bool is_owed = (message->failed > 0 || is_late) && message->active == 0;

    if (message->work == NULL && !is_owed)
        return;
    struct qmgr_work *work = qmgr_work_get(qmgr, message);
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

/* Has the sender's turn come? If not, the notification waits for it, and gathers what else fails.
 * Nor is there one if all who wanted to hear of a delay have had their mail by now. */
static bool dsn_is_admitted(struct qmgr *qmgr, struct qmgr_work *work, struct tick_now now)
{
    struct qmgr_message *message = work->message;
    const struct envelope *envelope = qmgr_message_open(qmgr, message);

    message->is_delay_owed = message->is_delay_owed && message_wants_delay(qmgr, message, envelope);
    if (message->failed == 0 && !message->is_delay_owed) {
        dsn_enter(qmgr, work, QMGR_DSN_NONE);
        qmgr_message_review(qmgr, message);
        return false;
    }
    if (work->is_dsn_granted)
        return true;
    tick_us turn = qmgr_dsn_reserve(qmgr, envelope->sender, now);
    work->is_dsn_granted = true;
    if (turn <= now.tick)
        return true;
    qmgr->stats.dsns_capped++;
    dsn_enter(qmgr, work, QMGR_DSN_DELAYED);
    wheel_arm(&qmgr->wheel, &work->dsn_timer, turn);
    qmgr_message_review(qmgr, message);
    return false;
}

/* The first one whose envelope is here; of some before it, it is being read. */
static struct qmgr_work *dsn_first(struct qmgr *qmgr)
{
    struct qmgr_work *work = qmgr->dsns.first;

    for (uint32_t i = 0; work != NULL && i < DSN_READ_AHEAD; i++) {
        struct qmgr_work *next = work->next;
        qmgr_envelope_want(qmgr, work->message);
        if (work->encoded != NULL)
            return work;
        work = next;
    }
    return NULL;
}

void qmgr_dsn_postpone(struct qmgr *qmgr, struct qmgr_message *message, tick_us until)
{
    struct qmgr_work *work = message->work;

    if (work == NULL || work->dsn_state != QMGR_DSN_LISTED)
        return;
    dsn_enter(qmgr, work, QMGR_DSN_DELAYED);
    wheel_arm(&qmgr->wheel, &work->dsn_timer, until);
}

struct qmgr_message *qmgr_dsn_next(struct qmgr *qmgr, struct tick_now now)
{
    struct qmgr_work *work = dsn_first(qmgr);

    while (work != NULL && !dsn_is_admitted(qmgr, work, now)) /* it left the list */
        work = dsn_first(qmgr);
    if (work == NULL)
        return NULL;
    dsn_enter(qmgr, work, QMGR_DSN_REPORTED);
    for (struct qmgr_failed *failed = work->failures; failed != NULL; failed = failed->next)
        failed->is_reported = true;
    work->is_dsn_delayed = work->message->is_delay_owed;
    qmgr_message_open(qmgr, work->message);
    return work->message;
}

struct qmgr_dsn qmgr_dsn_view(struct qmgr *qmgr, struct qmgr_message *message)
{
    struct qmgr_work *work = message->work;

    CHECK(work != NULL && work->dsn_state == QMGR_DSN_REPORTED && work->is_decoded);
    if (work->dsn_failure_count == 0)
        qmgr_dsn_view_build(qmgr, work);
    bool has_failed = false;
    for (uint32_t i = 0; i < work->dsn_failure_count; i++)
        has_failed |= work->dsn_failures[i].notice == QMGR_NOTICE_FAILED;
    return (struct qmgr_dsn){
        .envelope = &work->envelope,
        .entry = message->entry,
        .body = buf_queue_is_empty(&work->body) ? &qmgr->no_body : &work->body,
        .failures = work->dsn_failures,
        .failure_count = work->dsn_failure_count,
        .run = message->dsn_runs,
        .has_failed = has_failed,
        .has_delayed = work->is_dsn_delayed,
        .progress = work->dsn_progress,
        .is_done = work->is_dsn_last,
    };
}

static void dsn_close_view(struct qmgr *qmgr, struct qmgr_work *work, enum qmgr_dsn_state next)
{
    work->dsn_failures = NULL;
    work->dsn_failure_count = 0;
    work->is_dsn_delayed = false;
    dsn_enter(qmgr, work, next);
}

static void dsn_delay_told(struct qmgr *qmgr, struct qmgr_work *work)
{
    work->envelope.flags |= ENVELOPE_DELAY_TOLD;
    work->message->flags |= ENVELOPE_DELAY_TOLD;
    work->message->is_delay_owed = false;
    qmgr->stats.delays_told++;
}

void qmgr_dsn_written(struct qmgr *qmgr, struct qmgr_message *message, struct tick_now now)
{
    struct qmgr_work *work = message->work;

    (void)now;
    CHECK(work != NULL && work->dsn_state == QMGR_DSN_REPORTED && work->dsn_failure_count > 0);
    bool is_last = work->is_dsn_last;
    uint32_t freed = failures_free(work, true), settled = 0;
    for (uint32_t i = 0; i < work->dsn_failure_count; i++) {
        const struct qmgr_failure *failure = &work->dsn_failures[i];
        if (failure->notice == QMGR_NOTICE_DELAYED)
            continue;
        qmgr_recipient_set(message, &work->envelope.recipients[failure->recipient_index],
                           qmgr_notice_settles(failure->notice));
        settled++;
    }
    CHECK(freed == settled && message->failed >= freed);
    message->failed = (uint16_t)(message->failed - freed);
    message->dsn_runs++;
    qmgr->stats.dsns++;
    work->is_dsn_granted = false;
    if (work->is_dsn_delayed)
        dsn_delay_told(qmgr, work);
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

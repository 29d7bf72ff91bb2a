/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attempts: a delivery is taken, looked at, and ended; its recipients are settled, deferred or
 * expired. Every end of an attempt and every expiry goes the same way:
 *
 *   1. results are applied to the states of recipients and gathered as settles;
 *   2. the delivery is freed (nothing DUE), expired (the message is) or scheduled;
 *   3. unless the message is at its end, one PROGRESS is written, lazily;
 *   4. qmgr_message_review() draws the conclusions for the message.
 *
 * Retries: after attempt n the delivery waits retry_min * 2^(n - 1), at most retry_max, and of that
 * 80 to 120 % at random, so that mail deferred together does not come back together. What was not
 * attempted (no slot, cancelled before the start) and what is the rest of a batch is READY at once,
 * or at retry_not_before; a caller who has no slot keeps the line PARKED until it has one.
 *
 * Expiry of a message does not interrupt an ACTIVE delivery: qmgr_delivery_is_cancelled() tells the
 * transfer, the attempt's own deadline bounds it, and its results win over the expiry.
 *
 * Losing a PROGRESS in a crash means another attempt, never a lost recipient.
 */
#include <stdlib.h>

#include "queue/qmgr_state.h"

#define RETRY_JITTER_PERMILLE 200u
/* So many expire at once that their envelopes must be read one after the other. */
#define EXPIRY_LOAD_PAUSE TICK_MS(100)
/* A caller's retry_not_before further ahead than this is cut: the clock may have jumped. */
#define RETRY_NOT_BEFORE_MAX TICK_S(7 * 86400)

/* ---- deliveries ---- */

struct qmgr_delivery *qmgr_delivery_new(struct qmgr *qmgr, struct qmgr_message *message,
                                        struct qmgr_line *line, uint32_t first)
{
    struct qmgr_delivery *delivery = slab_acquire(&qmgr->deliveries);

    CHECK(delivery != NULL && first < ENVELOPE_RECIPIENT_MAX);
    delivery->message = message;
    delivery->line = line;
    delivery->first = (uint16_t)first;
    delivery->is_fresh = true;
    delivery->next = slab_ref(message->deliveries);
    if (message->deliveries != NULL)
        message->deliveries->prev = slab_ref(delivery);
    message->deliveries = delivery;
    message->fresh++;
    line->newest = delivery;
    qmgr_line_join(delivery);
    return delivery;
}

static void delivery_deactivate(struct qmgr *qmgr, struct qmgr_delivery *delivery)
{
    CHECK(delivery->state == QMGR_ACTIVE);
    if (delivery->load == QMGR_LOAD_LISTED || delivery->load == QMGR_LOAD_FAILED)
        qmgr_loaded_remove(qmgr, delivery);
    struct qmgr_active *active = delivery->active.of;
    if (active->recipients != &active->only)
        free(active->recipients);
    qmgr_wishes_free(active->wishes);
    free(active);
    delivery->load = QMGR_LOAD_DONE;
    delivery->message->active--;
    delivery->line->active_count--;
    delivery->state = 0;
    delivery->timer = (struct wheel_timer){0};
    qmgr->stats.deliveries_active--;
}

void qmgr_delivery_leave(struct qmgr *qmgr, struct qmgr_delivery *delivery)
{
    switch (delivery->state) {
    case QMGR_WAITING:
        wheel_cancel(&qmgr->wheel, &delivery->timer);
        qmgr->stats.deliveries_waiting--;
        break;
    case QMGR_READY:
        qmgr_line_remove(qmgr, delivery);
        break;
    case QMGR_HELD:
        wheel_cancel(&qmgr->wheel, &delivery->timer);
        qmgr->stats.deliveries_held--;
        qmgr->stats.quota_held -= qmgr_delivery_order(delivery) == QMGR_ORDER_QUOTA;
        break;
    case QMGR_ACTIVE:
        delivery_deactivate(qmgr, delivery);
        break;
    default:
        break; /* an attempt has just ended */
    }
}

void qmgr_delivery_not_fresh(struct qmgr_delivery *delivery)
{
    if (delivery->is_fresh)
        delivery->message->fresh--;
    delivery->is_fresh = false;
}

void qmgr_delivery_free(struct qmgr *qmgr, struct qmgr_delivery *delivery)
{
    struct qmgr_message *message = delivery->message;
    struct qmgr_line *line = delivery->line;

    qmgr_delivery_leave(qmgr, delivery);
    qmgr_delivery_not_fresh(delivery);
    struct qmgr_delivery *next = qmgr_delivery_next(delivery);
    struct qmgr_delivery *prev = slab_peer(delivery, delivery->prev);
    if (prev != NULL)
        prev->next = delivery->next;
    else
        message->deliveries = next;
    if (next != NULL)
        next->prev = delivery->prev;
    if (line->newest == delivery)
        line->newest = NULL;
    qmgr->rerouted -= delivery->is_rerouted;
    qmgr_reply_release(delivery->last_reply);
    qmgr_scans_skip_delivery(qmgr, delivery);
    qmgr_line_leave(delivery);
    slab_release(&qmgr->deliveries, delivery);
    qmgr_line_review(qmgr, line);
}

void qmgr_delivery_wait(struct qmgr *qmgr, struct qmgr_delivery *delivery, tick_us deadline)
{
    delivery->state = QMGR_WAITING;
    delivery->timer = (struct wheel_timer){.kind = QMGR_TIMER_RETRY};
    wheel_arm(&qmgr->wheel, &delivery->timer, deadline);
    qmgr->stats.deliveries_waiting++;
}

void qmgr_delivery_recipients(struct qmgr_delivery *delivery, const struct envelope *envelope,
                              uint32_t *ret_indexes)
{
    uint32_t found = 0;

    for (uint32_t i = delivery->first; found < delivery->due_count; i++) {
        CHECK(i < envelope->recipient_count);
        const struct envelope_recipient *recipient = &envelope->recipients[i];
        if (recipient->state == RECIPIENT_DUE && qmgr_delivery_has(delivery, envelope, recipient))
            ret_indexes[found++] = i;
    }
}

/* ---- take and view ---- */

void qmgr_delivery_activate(struct qmgr *qmgr, struct qmgr_delivery *delivery)
{
    wall_us since = delivery->ready.since;

    qmgr_line_remove(qmgr, delivery);
    delivery->state = QMGR_ACTIVE;
    delivery->active.since = since;
    delivery->active.of = malloc(sizeof(*delivery->active.of));
    CHECK(delivery->active.of != NULL);
    *delivery->active.of = (struct qmgr_active){0};
    delivery->message->active++;
    delivery->line->active_count++;
    qmgr->stats.deliveries_active++;
    qmgr_dsn_review(qmgr, delivery->message);
    qmgr_envelope_want(qmgr, delivery->message);
    if (qmgr_envelope_is_here(delivery->message) && delivery->active.of->wishes == NULL)
        qmgr_delivery_loaded(qmgr, delivery);
    else if (qmgr_envelope_is_here(delivery->message))
        qmgr_loaded_refuse(qmgr, delivery);
    else
        delivery->load = QMGR_LOAD_WAITED;
}

struct qmgr_delivery *qmgr_take(struct qmgr *qmgr, struct qmgr_line *line, struct tick_now now)
{
    (void)now; /* what is due was made READY by qmgr_advance() of this turn */
    CHECK(line->state == QMGR_LINE_PARKED);
    struct qmgr_delivery *delivery = qmgr_fair_next(line);
    if (delivery != NULL)
        qmgr_delivery_activate(qmgr, delivery);
    return delivery;
}

void *qmgr_delivery_user(const struct qmgr_delivery *delivery)
{
    CHECK(delivery->state == QMGR_ACTIVE);
    return delivery->active.of->user;
}

void qmgr_delivery_set_user(struct qmgr_delivery *delivery, void *user)
{
    CHECK(delivery->state == QMGR_ACTIVE);
    delivery->active.of->user = user;
}

struct qmgr_view qmgr_delivery_view(struct qmgr *qmgr, struct qmgr_delivery *delivery)
{
    struct qmgr_work *work = delivery->message->work;
    bool has_body = !buf_queue_is_empty(&work->body);

    CHECK(qmgr_delivery_is_loaded(delivery) && work->is_decoded);
    struct qmgr_view view = {
        .envelope = &work->envelope,
        .recipients = delivery->active.of->recipients,
        .recipient_count = delivery->active.of->count,
        .entry = delivery->message->entry,
        .body = has_body ? &work->body : &qmgr->no_body,
        .attempts = delivery->attempts,
        .active_since = delivery->active.since,
        .way = (enum way)delivery->message->way,
    };
    if (delivery->last_reply != NULL)
        view.last_reply = span_of(delivery->last_reply->octets, delivery->last_reply->size);
    return view;
}

bool qmgr_delivery_is_cancelled(const struct qmgr_delivery *delivery)
{
    return delivery->message->is_expired || delivery->message->storage == QMGR_FORGOTTEN ||
           delivery->active.of->wishes != NULL;
}

/* ---- the end of an attempt ---- */

static void finish_delivered(struct qmgr *qmgr, struct qmgr_delivery *delivery,
                             struct envelope_recipient *recipient)
{
    qmgr_recipient_set(delivery->message, recipient, RECIPIENT_DELIVERED);
    delivery->message->due--;
    qmgr->stats.delivered_recipients++;
}

/* One recipient's result; a deferred one's reply goes to `*last_reply`. */
static void finish_result(struct qmgr *qmgr, struct qmgr_delivery *delivery,
                          const struct qmgr_result *result, struct qmgr_settling *settling,
                          struct span *last_reply)
{
    struct envelope *envelope = &delivery->message->work->envelope;

    CHECK(result->recipient_index < envelope->recipient_count);
    struct envelope_recipient *recipient = &envelope->recipients[result->recipient_index];
    CHECK(recipient->state == RECIPIENT_DUE);
    CHECK(qmgr_delivery_has(delivery, envelope, recipient));
    struct qmgr_failure failure = {
        .recipient_index = result->recipient_index, .code = result->code, .reply = result->reply};
    memcpy(failure.enhanced, result->enhanced, sizeof(failure.enhanced));
    switch (result->state) {
    case RECIPIENT_DUE:
        if (result->reply.size > 0)
            *last_reply = result->reply;
        return;
    case RECIPIENT_DELIVERED:
        finish_delivered(qmgr, delivery, recipient);
        break;
    case RECIPIENT_RELAYED:
        qmgr_recipient_relay(qmgr, delivery->message, recipient, &failure);
        break;
    default:
        CHECK(result->state == RECIPIENT_FAILED);
        qmgr_recipient_fail(qmgr, delivery->message, recipient, &failure);
        break;
    }
    delivery->due_count--;
    qmgr_settling_add(qmgr, settling, recipient, &failure);
}

static void delivery_set_reply(struct qmgr_delivery *delivery, struct span text)
{
    if (text.size == 0)
        return;
    struct qmgr_reply *reply = qmgr_line_reply(delivery->line, text);
    qmgr_reply_release(delivery->last_reply);
    delivery->last_reply = reply;
}

static void delivery_count_attempt(struct qmgr_delivery *delivery, const struct qmgr_finish *finish)
{
    if (!finish->was_attempted)
        return;
    if (delivery->attempts < UINT16_MAX)
        delivery->attempts++;
    if (!finish->retry_now)
        qmgr_delivery_not_fresh(delivery);
}

/* Every recipient of the delivery that is still DUE has run out of time. */
static void delivery_expire(struct qmgr *qmgr, struct qmgr_delivery *delivery,
                            struct qmgr_settling *settling)
{
    struct qmgr_message *message = delivery->message;
    struct envelope *envelope = qmgr_message_open(qmgr, message);
    uint32_t count = delivery->due_count;
    uint32_t *indexes = malloc(count * sizeof(*indexes));

    CHECK(indexes != NULL);
    qmgr_delivery_recipients(delivery, envelope, indexes);
    struct qmgr_failure failure = {.enhanced = {4, 4, 7}, .is_expired = true};
    if (delivery->last_reply != NULL)
        failure.reply = span_of(delivery->last_reply->octets, delivery->last_reply->size);
    for (uint32_t i = 0; i < count; i++) {
        failure.recipient_index = indexes[i];
        qmgr->options.on_expired(qmgr->options.context, envelope, indexes[i]);
        qmgr_recipient_fail(qmgr, message, &envelope->recipients[indexes[i]], &failure);
        qmgr_settling_add(qmgr, settling, &envelope->recipients[indexes[i]], &failure);
    }
    free(indexes);
    delivery->due_count = 0;
    qmgr->stats.expired_recipients += count;
}

static tick_us retry_delay(struct qmgr *qmgr, uint32_t attempts)
{
    tick_us delay = qmgr->options.retry_min;

    for (uint32_t i = 1; i < attempts && delay < qmgr->options.retry_max; i++)
        delay *= 2;
    if (delay > qmgr->options.retry_max)
        delay = qmgr->options.retry_max;
    uint32_t permille = 1000 - RETRY_JITTER_PERMILLE + rng_below(qmgr->rng, 401);
    return delay / 1000 * permille + delay % 1000;
}

/* READY or WAITING again. Returns the wall time of the next try. */
static wall_us delivery_schedule(struct qmgr *qmgr, struct qmgr_delivery *delivery,
                                 const struct qmgr_finish *finish, struct tick_now now)
{
    tick_us deadline = qmgr_tick_of(finish->retry_not_before, RETRY_NOT_BEFORE_MAX, now);

    if (delivery->message->is_unreadable && deadline < now.tick + qmgr->options.retry_min)
        deadline = now.tick + qmgr->options.retry_min;
    if (finish->was_attempted && !finish->retry_now) {
        tick_us retry = now.tick + retry_delay(qmgr, delivery->attempts);
        deadline = deadline > retry ? deadline : retry;
        qmgr->stats.deferrals++;
    }
    if (deadline > now.tick)
        qmgr_delivery_wait(qmgr, delivery, deadline);
    else
        qmgr_line_push(qmgr, delivery, now.wall);
    return now.wall + (wall_us)(deadline - now.tick);
}

/* The delivery goes where its recipients' states send it; `progress` hears of it. */
static void delivery_conclude(struct qmgr *qmgr, struct qmgr_delivery *delivery,
                              const struct qmgr_finish *finish, struct qmgr_settling *settling,
                              struct envelope_progress *progress, struct tick_now now)
{
    struct qmgr_wish *wishes = delivery->active.of->wishes;
    const struct qmgr_wish *hold = NULL, *reroute = NULL;
    const struct qmgr_finish at_once = {.retry_now = true};

    delivery->active.of->wishes = NULL;
    delivery_deactivate(qmgr, delivery);
    if (delivery->due_count > 0 && delivery->message->is_expired)
        delivery_expire(qmgr, delivery, settling);
    else
        qmgr_wishes_fulfil(qmgr, delivery, wishes, settling, &hold, &reroute);
    if (delivery->due_count > 0 && reroute != NULL)
        qmgr_delivery_reroute(qmgr, delivery, span_from_text(reroute->order.route));
    if (delivery->due_count == 0) {
        qmgr_delivery_free(qmgr, delivery);
    } else if (hold != NULL) {
        qmgr_delivery_hold(qmgr, delivery, hold->order.id, hold->order.until, now);
        qmgr_progress_held(delivery, hold->order.id, hold->order.until, progress);
    } else {
        progress->next_try =
            delivery_schedule(qmgr, delivery, reroute != NULL ? &at_once : finish, now);
        qmgr_progress_of(delivery, progress);
    }
    qmgr_wishes_free(wishes);
}

void qmgr_finish(struct qmgr *qmgr, struct qmgr_delivery *delivery,
                 const struct qmgr_finish *finish, struct tick_now now)
{
    struct qmgr_message *message = delivery->message;
    struct envelope_progress progress = {.delivery = ENVELOPE_DELIVERY_NONE};
    struct span last_reply = {0};

    CHECK(delivery->state == QMGR_ACTIVE && finish->result_count <= delivery->active.of->count);
    CHECK(delivery->load == QMGR_LOAD_DONE);
    CHECK(delivery->active.of->recipients != NULL ||
          (!finish->was_attempted && !finish->is_in_doubt));
    struct qmgr_settling settling = qmgr_settling_begin(qmgr, delivery->due_count);
    for (uint32_t i = 0; i < finish->result_count; i++)
        finish_result(qmgr, delivery, &finish->results[i], &settling, &last_reply);
    if (finish->is_in_doubt) {
        message->work->envelope.flags |= ENVELOPE_IN_DOUBT;
        message->flags |= ENVELOPE_IN_DOUBT;
        progress.flags = ENVELOPE_IN_DOUBT;
    }
    delivery->line->moved_at = now.tick;
    delivery_set_reply(delivery, last_reply);
    delivery_count_attempt(delivery, finish);
    settling.told_count = settling.count; /* what wishes end has records of its own */
    delivery_conclude(qmgr, delivery, finish, &settling, &progress, now);

    bool has_news = settling.count > 0 || finish->was_attempted || finish->is_in_doubt ||
                    progress.hold_order > 0 || progress.route.size > 0;
    has_news = has_news && !qmgr_progress_spare(qmgr, message, &settling, &progress, now);
    qmgr_progress_told(&settling, &progress, now);
    if (has_news && (message->due + message->failed > 0 || qmgr->options.keeps_ends))
        qmgr_progress_write(qmgr, message, &settling, &progress);
    if (!qmgr_unstored_finish(qmgr, message, finish))
        qmgr_message_review(qmgr, message);
}

/* ---- expiry ---- */

/* When its envelope is here: it says who is to be told. The message may be gone afterwards. */
static void expire_later(struct qmgr *qmgr, struct qmgr_message *message, struct tick_now now)
{
    if (qmgr->load_count >= QMGR_LOADS_MAX) {
        wheel_arm(&qmgr->wheel, &message->expiry, now.tick + EXPIRY_LOAD_PAUSE);
        return;
    }
    message->is_expiry_owed = true;
    qmgr_envelope_want(qmgr, message);
}

void qmgr_message_expire(struct qmgr *qmgr, struct qmgr_message *message, struct tick_now now)
{
    struct envelope_progress progress = {.delivery = ENVELOPE_DELIVERY_NONE};

    if (qmgr->options.may_expire != NULL && !qmgr->options.may_expire(qmgr->options.context)) {
        message->is_expiry_owed = false;
        wheel_arm(&qmgr->wheel, &message->expiry, now.tick + EXPIRY_LOAD_PAUSE);
        qmgr_message_review(qmgr, message);
        return;
    }
    if (!qmgr_envelope_is_here(message)) {
        expire_later(qmgr, message, now);
        return;
    }
    message->is_expired = true;
    message->is_expiry_owed = false;
    qmgr_message_open(qmgr, message);
    struct qmgr_settling settling = qmgr_settling_begin(qmgr, message->due);
    struct qmgr_delivery *next;
    for (struct qmgr_delivery *delivery = message->deliveries; delivery != NULL; delivery = next) {
        next = qmgr_delivery_next(delivery);
        if (delivery->state == QMGR_ACTIVE)
            continue; /* its results win; what they leave DUE expires in qmgr_finish() */
        delivery_expire(qmgr, delivery, &settling);
        qmgr_delivery_free(qmgr, delivery);
    }
    qmgr_progress_told(&settling, &progress, now);
    bool has_news =
        settling.count > 0 && !qmgr_progress_spare(qmgr, message, &settling, &progress, now);
    if (has_news && (message->due + message->failed > 0 || qmgr->options.keeps_ends))
        qmgr_progress_write(qmgr, message, &settling, &progress);
    qmgr_message_review(qmgr, message);
}

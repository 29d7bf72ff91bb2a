/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A message comes back after a restart: its envelope as committed, and its PROGRESS payloads,
 * oldest first.
 *
 * Rules
 *   1. States only move forward: DUE -> FAILED -> SETTLED, DUE -> RELAYED -> DELIVERED, DUE ->
 *      DELIVERED. A PROGRESS that says otherwise is older than what is known, or damaged; that
 * settle is passed over.
 *   2. A payload that does not decode, or names a recipient the message does not have, costs at
 *      worst another attempt. It is counted, and the message lives.
 *   3. A FAILED or RELAYED recipient has its DSN still to come, with the reply that the PROGRESS
 *      kept.
 *   4. What an operator holds stays held, until the end that he gave it.
 *   5. What an operator wished of an attempt that was under way is carried out on the recipients
 *      of which no PROGRESS tells, after all of these: results win, whichever was written first.
 *   6. A next try further ahead than any retry of ours is pulled in: the wall clock was wrong then
 *      or is now.
 */
#include "queue/qmgr_state.h"

#define HOLD_AHEAD_MAX TICK_S(3660ull * 86400)

/* Only for the time of the insert: its addresses are empty. What it says of notifications is what
 * one of the recipients may want. */
void qmgr_recover_index(struct qmgr_work *work, const struct envelope_index *index)
{
    uint64_t size = index->recipient_count * sizeof(struct envelope_recipient);
    struct envelope_recipient *recipients = arena_acquire(&work->arena, size);
    uint8_t notify = index->notify & ENVELOPE_NOTIFY_DELAY;
    uint32_t place = 0;

    CHECK(recipients != NULL); /* far below the arena's bound */
    if (notify == 0 && !index->is_notify_open)
        notify = ENVELOPE_NOTIFY_FAILURE;
    memset(recipients, 0, size);
    for (uint32_t i = 0; i < index->run_count; i++) {
        for (uint32_t j = 0; j < index->runs[i].count; j++, place++) {
            recipients[place].domain = index->deliveries[index->runs[i].delivery].domain;
            recipients[place].notify = notify;
        }
    }
    CHECK(place == index->recipient_count);
    work->envelope = (struct envelope){
        .id = index->id,
        .arrived = index->arrived,
        .expires = index->expires,
        .body_size = index->body_size,
        .flags = index->flags,
        .class = index->class,
        .source_pool = index->source_pool,
        .sender = index->is_null_sender ? (struct span){0} : SPAN_LITERAL("unknown"),
        .recipients = recipients,
        .recipient_count = index->recipient_count,
    };
    work->is_decoded = true;
}

static bool progress_decode(struct qmgr *qmgr, struct span payload,
                            struct envelope_progress *ret_progress)
{
    arena_reset(&qmgr->scratch);
    return envelope_progress_decode(payload, &qmgr->scratch, ret_progress) == ERR_OK;
}

static bool owes(enum recipient_state state)
{
    return state == RECIPIENT_FAILED || state == RECIPIENT_RELAYED;
}

static bool may_follow(enum recipient_state state, enum recipient_state next)
{
    switch (state) {
    case RECIPIENT_DUE:
        return next != RECIPIENT_DUE;
    case RECIPIENT_FAILED:
        return next == RECIPIENT_FAILED || next == RECIPIENT_SETTLED;
    case RECIPIENT_RELAYED:
        return next == RECIPIENT_RELAYED || next == RECIPIENT_DELIVERED;
    default:
        return false;
    }
}

/* Of each FAILED or RELAYED recipient, the settle that said so; replies borrow from the payloads.
 */
static void apply_settle(struct qmgr_message *message, struct envelope *envelope,
                         const struct envelope_settle *settle, struct envelope_settle *details)
{
    struct envelope_recipient *recipient = &envelope->recipients[settle->recipient_index];

    if (!may_follow(recipient->state, settle->state))
        return;
    if (owes(settle->state))
        details[settle->recipient_index] = *settle;
    else
        message->due--;
    qmgr_recipient_set(message, recipient, settle->state);
}

/* Rule 5. */
static void apply_wishes(struct qmgr *qmgr, struct qmgr_message *message,
                         const struct qmgr_insert *insert, struct envelope_settle *details)
{
    struct envelope *envelope = &message->work->envelope;

    for (uint32_t i = 0; i < insert->progress_count; i++) {
        struct envelope_progress progress = {0};
        if (!progress_decode(qmgr, insert->progress[i], &progress))
            continue; /* it was counted */
        for (uint32_t j = 0; j < progress.wish_count; j++) {
            uint32_t index = progress.wishes[j].recipient_index;
            if (index >= envelope->recipient_count)
                qmgr->stats.progress_corrupt++;
            else if (envelope->recipients[index].state == RECIPIENT_DUE)
                apply_settle(message, envelope, &progress.wishes[j], details);
        }
    }
}

static void apply_progress(struct qmgr *qmgr, struct qmgr_message *message,
                           const struct envelope_progress *progress,
                           struct envelope_settle *details)
{
    struct envelope *envelope = &message->work->envelope;
    bool is_foreign = false;

    envelope->flags |= progress->flags & ENVELOPE_PROGRESS_FLAGS;
    message->flags = (uint16_t)(message->flags | (progress->flags & ENVELOPE_PROGRESS_FLAGS));
    if (progress->dsn_runs > message->dsn_runs && progress->dsn_runs < UINT16_MAX)
        message->dsn_runs = (uint16_t)progress->dsn_runs;
    for (uint32_t i = 0; i < progress->settle_count; i++) {
        if (progress->settles[i].recipient_index < envelope->recipient_count)
            apply_settle(message, envelope, &progress->settles[i], details);
        else
            is_foreign = true;
    }
    if (progress->route.size > 0 && progress->delivery < envelope->recipient_count)
        qmgr_route_recover(message->work, progress->delivery, progress->route);
    qmgr->stats.progress_corrupt += is_foreign;
}

/* Until here those who owe a DSN count as due. */
static void owe_recipients(struct qmgr *qmgr, struct qmgr_message *message,
                           const struct envelope_settle *details, bool is_index)
{
    struct envelope *envelope = &message->work->envelope;

    for (uint32_t i = 0; i < envelope->recipient_count; i++) {
        enum recipient_state state = envelope->recipients[i].state;
        if (!owes(state))
            continue;
        if (is_index) /* an index does not know who asked for what; it would not be owed if not */
            envelope->recipients[i].notify = ENVELOPE_NOTIFY_SUCCESS | ENVELOPE_NOTIFY_FAILURE;
        struct qmgr_failure failure = {.recipient_index = i};
        if (details != NULL) {
            failure.code = details[i].code;
            failure.is_expired = details[i].is_expired;
            failure.reply = details[i].reply;
            memcpy(failure.enhanced, details[i].enhanced, sizeof(failure.enhanced));
        }
        if (state == RECIPIENT_FAILED)
            qmgr_recipient_fail(qmgr, message, &envelope->recipients[i], &failure);
        else
            qmgr_recipient_relay(qmgr, message, &envelope->recipients[i], &failure);
    }
}

void qmgr_recover_states(struct qmgr *qmgr, struct qmgr_message *message,
                         const struct qmgr_insert *insert, struct qmgr_recalled *ret_recalled)
{
    struct envelope *envelope = &message->work->envelope;
    struct envelope_settle *details = NULL;

    ret_recalled->is_all = ret_recalled->has_wishes = false;
    for (uint32_t i = 0; i < envelope->recipient_count; i++) {
        enum recipient_state state = envelope->recipients[i].state;
        message->due = (uint16_t)(message->due + (state == RECIPIENT_DUE || owes(state)));
        if (state != RECIPIENT_DUE)
            qmgr_recipient_set(message, &envelope->recipients[i], state);
    }
    if (insert->progress_count > 0) {
        uint64_t size = envelope->recipient_count * sizeof(*details);
        details = arena_acquire(&message->work->arena, size);
        CHECK(details != NULL); /* far below the arena's bound */
        memset(details, 0, size);
    }
    for (uint32_t i = 0; i < insert->progress_count; i++) {
        struct envelope_progress *progress = &ret_recalled->progress;
        if (!progress_decode(qmgr, insert->progress[i], progress)) {
            qmgr->stats.progress_corrupt++;
            continue;
        }
        apply_progress(qmgr, message, progress, details);
        ret_recalled->has_wishes |= progress->wish_count > 0;
        progress->settles = progress->wishes = NULL; /* scratch */
        progress->settle_count = progress->wish_count = 0;
        ret_recalled->is_all = insert->progress_count == 1;
    }
    if (ret_recalled->has_wishes)
        apply_wishes(qmgr, message, insert, details);
    owe_recipients(qmgr, message, details, insert->index != NULL);
}

/* message_schedule() makes it true. */
static void apply_hold(struct qmgr_delivery *delivery, const struct envelope_progress *progress,
                       struct tick_now now)
{
    delivery->timer.deadline = progress->next_try == QMGR_HOLD_FOR_EVER
                                   ? TICK_NEVER
                                   : qmgr_tick_of(progress->next_try, HOLD_AHEAD_MAX, now);
    if (progress->hold_order > QMGR_ORDER_ID_MAX || delivery->timer.deadline <= now.tick) {
        delivery->timer.deadline = 0; /* damaged, or over while we were away */
        return;
    }
    delivery->state = QMGR_HELD;
    delivery->timer.kind = progress->hold_order << QMGR_HOLD_ORDER_SHIFT;
}

static void apply_history(struct qmgr *qmgr, struct qmgr_delivery *delivery,
                          const struct envelope_progress *progress, struct tick_now now)
{
    tick_us ahead_max = qmgr->options.retry_max + qmgr->options.retry_max / 4;

    if (progress->attempts > 0 && delivery->is_fresh) {
        delivery->is_fresh = false;
        delivery->message->fresh--;
    }
    delivery->attempts =
        (uint16_t)(progress->attempts < UINT16_MAX ? progress->attempts : UINT16_MAX);
    if (progress->last_reply.size > 0) {
        qmgr_reply_release(delivery->last_reply);
        delivery->last_reply = qmgr_line_reply(delivery->line, progress->last_reply);
    }
    delivery->state = 0;
    if (progress->hold_order > 0) {
        apply_hold(delivery, progress, now);
        return;
    }
    if (progress->next_try > 0)
        delivery->timer.deadline = qmgr_tick_of(progress->next_try, ahead_max, now);
}

static struct qmgr_delivery *delivery_find(struct qmgr *qmgr, struct qmgr_message *message,
                                           const struct envelope_recipient *recipient)
{
    const struct envelope *envelope = &message->work->envelope;
    struct qmgr_delivery *delivery = message->deliveries;

    /* Most messages have one. Of many, the line knows which one is theirs. */
    if (delivery != NULL && qmgr_delivery_has(delivery, envelope, recipient))
        return delivery;
    struct qmgr_line *line = qmgr_line_find(qmgr, envelope, recipient->domain);
    delivery = line == NULL ? NULL : line->newest;
    if (delivery != NULL && delivery->message == message &&
        !qmgr_delivery_has(delivery, envelope, recipient))
        delivery =
            (struct qmgr_delivery *)(uintptr_t)qmgr_message_delivery(message, envelope, recipient);
    return delivery != NULL && delivery->message == message ? delivery : NULL;
}

static void recover_delivery(struct qmgr *qmgr, struct qmgr_message *message,
                             const struct envelope_progress *progress, struct tick_now now)
{
    const struct envelope *envelope = &message->work->envelope;

    if (progress->delivery >= envelope->recipient_count)
        return;
    struct qmgr_delivery *delivery =
        delivery_find(qmgr, message, &envelope->recipients[progress->delivery]);
    if (delivery != NULL)
        apply_history(qmgr, delivery, progress, now);
}

void qmgr_recover_deliveries(struct qmgr *qmgr, struct qmgr_message *message,
                             const struct qmgr_insert *insert, const struct qmgr_recalled *recalled,
                             struct tick_now now)
{
    if (recalled->is_all) {
        recover_delivery(qmgr, message, &recalled->progress, now);
        return;
    }
    for (uint32_t i = 0; i < insert->progress_count; i++) {
        struct envelope_progress progress;
        if (progress_decode(qmgr, insert->progress[i], &progress))
            recover_delivery(qmgr, message, &progress, now);
    }
}

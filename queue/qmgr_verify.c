/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All invariants of the queue manager's structures, restated from nothing but states of recipients,
 * the envelopes that are in memory, and the links. A broken one is a bug and ends the process; a
 * message without a next event is counted, and the answer must be 0.
 *
 * O(everything): for tests, and for an operator who wants to know.
 */
#include "queue/qmgr_state.h"

struct verify_counts {
    uint32_t waiting, ready, active, held, quota_held, fresh, due;
};

/* What only the envelope knows. */
static void verify_recipients(const struct qmgr_delivery *delivery, const struct envelope *envelope)
{
    uint32_t due = 0;

    CHECK(delivery->line->class == envelope->class);
    CHECK(span_is_equal(qmgr_line_source_pool(delivery->line), envelope->source_pool));
    for (uint32_t i = 0; i < envelope->recipient_count; i++) {
        const struct envelope_recipient *recipient = &envelope->recipients[i];
        if (recipient->state != RECIPIENT_DUE || !qmgr_delivery_has(delivery, envelope, recipient))
            continue;
        CHECK(span_is_equal(recipient->domain, qmgr_line_domain(delivery->line)));
        CHECK(i >= delivery->first);
        due++;
    }
    CHECK(due == delivery->due_count);
}

static void verify_load(const struct qmgr_delivery *delivery)
{
    const struct qmgr_message *message = delivery->message;

    if (delivery->load == QMGR_LOAD_WAITED)
        CHECK(qmgr_envelope_is_loading(message) && !qmgr_envelope_is_here(message));
    else if (delivery->load == QMGR_LOAD_DONE && delivery->active.of->recipients != NULL)
        CHECK(delivery->active.of->count >= delivery->due_count && qmgr_envelope_is_here(message));
}

static void verify_delivery(const struct qmgr_delivery *delivery, struct verify_counts *counts)
{
    CHECK(delivery->due_count > 0 && delivery->first < delivery->message->recipient_count);
    CHECK(delivery->state == QMGR_ACTIVE || delivery->load == QMGR_LOAD_DONE);
    counts->due += delivery->due_count;
    counts->fresh += delivery->is_fresh;
    counts->waiting += delivery->state == QMGR_WAITING;
    counts->ready += delivery->state == QMGR_READY;
    counts->active += delivery->state == QMGR_ACTIVE;
    counts->held += delivery->state == QMGR_HELD;
    counts->quota_held +=
        delivery->state == QMGR_HELD && qmgr_delivery_order(delivery) == QMGR_ORDER_QUOTA;
    if (delivery->state == QMGR_WAITING)
        CHECK(wheel_is_armed(&delivery->timer));
    else if (delivery->state == QMGR_READY)
        qmgr_fair_verify(delivery);
    else if (delivery->state == QMGR_HELD)
        CHECK(qmgr_delivery_order(delivery) > 0);
    else
        verify_load(delivery);
}

static void verify_work(const struct qmgr_work *work)
{
    const struct qmgr_message *message = work->message;
    uint32_t failures = 0, reported = 0;

    for (const struct qmgr_failed *failed = work->failures; failed != NULL; failed = failed->next) {
        failures++;
        reported += failed->is_reported;
    }
    CHECK(failures == message->failed);
    CHECK((work->dsn_state == QMGR_DSN_REPORTED) == (reported > 0 || work->is_dsn_delayed));
    CHECK(work->dsn_failure_count == 0 || work->dsn_failure_count >= reported);
    CHECK(wheel_is_armed(&work->dsn_timer) == (work->dsn_state == QMGR_DSN_DELAYED));
    CHECK(work->dsn_state != QMGR_DSN_REPORTED || work->is_decoded);
    CHECK(!work->is_decoded || work->encoded != NULL);
    CHECK(work->load == NULL || (work->encoded == NULL && work->load->message == message));
    CHECK(message->active > 0 || failures > 0 || message->is_delay_owed || work->is_dsn_delayed ||
          !buf_queue_is_empty(&work->body) || work->encoded != NULL || work->load != NULL ||
          work->pins > 0);
    if (message->active > 0)
        CHECK(work->dsn_state != QMGR_DSN_LISTED);
}

/* Returns whether it has a next event. */
static bool verify_message(const struct qmgr_message *message, struct verify_counts *total)
{
    const struct envelope *envelope = qmgr_message_envelope(message);
    struct verify_counts counts = {0};
    uint32_t due = 0, failed = 0;
    bool is_reported = message->work != NULL && message->work->dsn_state == QMGR_DSN_REPORTED;

    for (uint32_t i = 0; i < message->recipient_count; i++) {
        enum recipient_state state = qmgr_recipient_state(message, i);
        due += state == RECIPIENT_DUE;
        failed += state == RECIPIENT_FAILED || state == RECIPIENT_RELAYED;
        CHECK(envelope == NULL || envelope->recipients[i].state == state);
    }
    CHECK(envelope == NULL || envelope->recipient_count == message->recipient_count);
    CHECK(message->due == due && message->failed == failed &&
          (due + failed > 0 || is_reported || message->storage == QMGR_STORING));
    CHECK((message->entry == NULL) == (message->storage != QMGR_STORED));
    CHECK(message->storage == QMGR_STORED || qmgr_envelope_is_here(message));
    CHECK(message->storage != QMGR_UNSTORED || message->work->owner != NULL);
    CHECK(!message->is_delay_owed || (due > 0 && !message->is_delay_pending));
    CHECK(!message->is_delay_pending || wheel_is_armed(&message->expiry));
    CHECK(envelope == NULL || message->is_null_sender == (envelope->sender.size == 0));
    CHECK(!message->is_expiry_owed || (qmgr_envelope_is_loading(message) && !message->is_expired));
    CHECK(!message->is_null_sender || failed == 0);
    for (const struct qmgr_delivery *d = message->deliveries; d != NULL;
         d = qmgr_delivery_next(d)) {
        CHECK(d->message == message &&
              (d->next == 0 || qmgr_delivery_next(d)->prev == slab_ref(d)));
        verify_delivery(d, &counts);
        if (envelope != NULL)
            verify_recipients(d, envelope);
    }
    CHECK(counts.due == due && counts.active == message->active && counts.fresh == message->fresh);
    CHECK(!message->is_expired || counts.waiting + counts.ready + counts.held == 0);
    CHECK(message->work != NULL || (failed == 0 && counts.active == 0));
    if (message->work != NULL) {
        CHECK(message->work->message == message);
        verify_work(message->work);
    }
    total->waiting += counts.waiting;
    total->ready += counts.ready;
    total->active += counts.active;
    total->held += counts.held;
    total->quota_held += counts.quota_held;
    return qmgr_message_has_next_event(message);
}

static uint32_t ages_total(const struct qmgr_ages *ages)
{
    uint32_t total = 0;

    for (uint32_t i = 0; i < ages->bin_count; i++) {
        CHECK(ages->bins[i].count > 0 && ages->bins[i].start < ages->bins[i].end);
        CHECK(i == 0 || ages->bins[i - 1].end <= ages->bins[i].start);
        total += ages->bins[i].count;
    }
    return total;
}

static void verify_line_list(const struct qmgr_line *line)
{
    uint32_t count = 0, active = 0, ready = 0, unstored = 0;

    for (const struct qmgr_delivery *d = line->first_delivery; d != NULL;
         d = qmgr_delivery_line_next(d)) {
        CHECK(d->line == line);
        CHECK(d->line_next == 0 ? line->last_delivery == d
                                : qmgr_delivery_line_next(d)->line_prev == slab_ref(d));
        active += d->state == QMGR_ACTIVE;
        ready += d->state == QMGR_READY;
        unstored += d->state == QMGR_READY && d->message->storage == QMGR_UNSTORED;
        count++;
    }
    CHECK(unstored == line->unstored_count);
    CHECK(count == line->delivery_count && active == line->active_count);
    CHECK(ready == line->ready_count);
    qmgr_fair_verify_line(line);
    CHECK(count == ages_total(&line->ages));
}

static void verify_senders(const struct qmgr *qmgr)
{
    const struct qmgr_sender *sender;
    uint64_t cursor = 0;
    uint32_t total = 0;

    while ((sender = slab_next(&qmgr->senders, &cursor)) != NULL) {
        uint32_t count = 0;
        for (const struct qmgr_message *m = sender->first; m != NULL; m = qmgr_sender_next(m)) {
            CHECK(m->sender == sender);
            CHECK(m->sender_next == 0 ? sender->last == m
                                      : qmgr_sender_next(m)->sender_prev == slab_ref(m));
            count++;
        }
        CHECK(count > 0 && count == sender->message_count && count == ages_total(&sender->ages));
        CHECK(qmgr_sender_find(qmgr, qmgr_sender_name(sender)) == sender);
        total += count;
    }
    CHECK(total == qmgr->messages.in_use);
}

static uint32_t verify_lines(const struct qmgr *qmgr)
{
    const struct qmgr_line *line;
    uint64_t cursor = 0;
    uint32_t ready = 0, delivery_count = 0;

    while ((line = slab_next(&qmgr->lines, &cursor)) != NULL) {
        CHECK(line->delivery_count > 0 || line->state == QMGR_LINE_PARKED);
        CHECK(line->state == QMGR_LINE_PARKED ||
              (line->state == QMGR_LINE_READY) == (line->ready_count > 0));
        verify_line_list(line);
        ready += line->state == QMGR_LINE_READY;
        delivery_count += line->delivery_count;
    }
    for (uint32_t class = 0; class < QMGR_CLASS_COUNT; class ++) {
        uint64_t occupied = qmgr->round_occupied[class / 64] >> class % 64 & 1;
        CHECK(occupied == (qmgr->round[class].first != NULL));
        for (line = qmgr->round[class].first; line != NULL; line = line->next) {
            CHECK(line->state == QMGR_LINE_READY && line->class == class);
            CHECK(line->next == NULL ? qmgr->round[class].last == line : line->next->prev == line);
            ready--;
        }
    }
    CHECK(ready == 0);
    return delivery_count;
}

static void verify_dsn_list(const struct qmgr *qmgr)
{
    uint32_t count = 0;

    for (const struct qmgr_work *work = qmgr->dsns.first; work != NULL; work = work->next) {
        count++;
        CHECK(work->dsn_state == QMGR_DSN_LISTED);
        CHECK(work->next == NULL ? qmgr->dsns.last == work : work->next->prev == work);
    }
    CHECK(count == qmgr->dsns.count);
}

uint32_t qmgr_verify(const struct qmgr *qmgr)
{
    const struct qmgr_message *message;
    struct verify_counts total = {0};
    uint64_t cursor = 0, body_memory = 0;
    uint32_t stuck = 0, unreadable = 0;

    while ((message = slab_next(&qmgr->messages, &cursor)) != NULL) {
        stuck += !verify_message(message, &total);
        body_memory += message->work == NULL ? 0 : message->work->body.size;
        unreadable += message->is_unreadable;
    }
    CHECK(total.waiting == qmgr->stats.deliveries_waiting);
    CHECK(total.ready == qmgr->stats.deliveries_ready);
    CHECK(total.active == qmgr->stats.deliveries_active);
    CHECK(total.held == qmgr->stats.deliveries_held);
    CHECK(total.quota_held == qmgr->stats.quota_held);
    CHECK(qmgr->deliveries.in_use == total.waiting + total.ready + total.active + total.held);
    CHECK(verify_lines(qmgr) == qmgr->deliveries.in_use);
    CHECK(body_memory == qmgr->stats.body_memory && body_memory <= qmgr->options.body_memory_max);
    CHECK(unreadable == qmgr->stats.unreadable);
    verify_dsn_list(qmgr);
    verify_senders(qmgr);
    return stuck;
}

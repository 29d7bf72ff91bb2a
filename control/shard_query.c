/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a shard tells of its queue: rows and counts, written into the asker's memory. A list,
 * and an order, go by slices: the first look begins a scan whose handle is the query's cursor from
 * then on. A walk that nobody waits for any more is ended, so that others need not take its place.
 */
#include "control/shard_query.h"

#define RECORDS_PATIENCE TICK_S(1)

static void row_fill(const struct qmgr *queue, struct shard_queue_row *row,
                     const struct envelope *envelope, uint32_t recipient_index,
                     const struct qmgr_status *status, uint32_t shard)
{
    *row = (struct shard_queue_row){
        .id = envelope->id,
        .arrived = envelope->arrived,
        .expires = envelope->expires,
        .next_try = status->next_try,
        .size = envelope->body_size,
        .attempts = status->attempts,
        .shard = shard,
        .state = (uint8_t)status->state,
        .is_active = status->is_active,
        .is_ready = status->is_ready,
        .is_held = status->is_held,
        .order = status->order,
        .class = envelope->class,
    };
    (void)qmgr_class_name(queue, envelope->class, row->class_name);
    record_text(row->sender, sizeof(row->sender), envelope->sender);
    record_text(row->user, sizeof(row->user), envelope->user);
    record_text(row->recipient, sizeof(row->recipient),
                envelope->recipients[recipient_index].address);
    record_text(row->domain, sizeof(row->domain), status->domain);
    record_text(row->site, sizeof(row->site), status->site);
    record_text(row->source, sizeof(row->source), envelope->source_pool);
    record_text(row->last_reply, sizeof(row->last_reply), status->last_reply);
}

/* What is known of a message whose envelope cannot be read. */
static void row_fill_unreadable(const struct qmgr *queue, struct shard_queue_row *row,
                                const struct qmgr_match *match, const struct qmgr_status *status,
                                uint32_t shard)
{
    struct envelope_recipient recipient = {.address = SPAN_LITERAL("(unreadable)")};
    struct envelope envelope = {
        .id = qmgr_message_id(match->message),
        .sender = SPAN_LITERAL("(unreadable)"),
        .recipients = &recipient,
        .recipient_count = 1,
    };
    envelope.arrived = (wall_us)envelope.id.high;
    row_fill(queue, row, &envelope, 0, status, shard);
}

/* One step of the query's scan, which the first look begins. Returns how many were found. */
static uint32_t query_step(struct qmgr *queue, struct shard_query *query,
                           struct qmgr_match *matches, uint32_t max, struct tick_now now)
{
    uint32_t count = 0;
    bool is_done = true;

    if (query->cursor == 0)
        query->cursor = query->kind == SHARD_QUERY_QUEUE_SHOW
                            ? qmgr_show_begin(queue, query->id, now)
                            : qmgr_scan_begin(queue, query->filter, now);
    query->err = qmgr_scan_step(queue, query->cursor, matches, max, &count, &is_done, now);
    query->is_waiting = count == 0 && !is_done && qmgr_scan_is_waiting(queue, query->cursor);
    if (is_done)
        query->cursor = UINT64_MAX;
    return count;
}

static void query_list(struct qmgr *queue, uint32_t shard, struct shard_query *query,
                       struct tick_now now)
{
    static const struct envelope_recipient unreadable = {.state = RECIPIENT_DUE};
    struct qmgr_match matches[SHARD_QUERY_ROWS_MAX] UNINITIALIZED;

    CHECK(query->row_max <= SHARD_QUERY_ROWS_MAX);
    uint32_t count = query_step(queue, query, matches, query->row_max, now);
    const struct qmgr_message *opened = NULL;
    const struct envelope *envelope = NULL;
    for (uint32_t i = 0; i < count; i++) {
        const struct qmgr_match *match = &matches[i];
        struct shard_queue_row *row = &query->rows[query->row_count++];
        if (match->is_unreadable) {
            struct qmgr_status status = qmgr_recipient_status(&unreadable, match->delivery, now);
            row_fill_unreadable(queue, row, match, &status, shard);
            row->way = (uint8_t)qmgr_message_way(match->message);
            continue;
        }
        if (match->message != opened)
            envelope = qmgr_message_envelope(match->message);
        opened = match->message;
        struct qmgr_status status = qmgr_recipient_status(
            &envelope->recipients[match->recipient_index], match->delivery, now);
        row_fill(queue, row, envelope, match->recipient_index, &status, shard);
        row->way = (uint8_t)qmgr_message_way(match->message);
    }
}

static void query_count(struct qmgr *queue, struct shard_query *query, struct tick_now now)
{
    uint64_t count = 0;
    bool is_done = true;

    if (query->cursor == 0)
        query->cursor = qmgr_count_begin(queue, query->filter, now);
    query->err = qmgr_count_step(queue, query->cursor, &count, &is_done, now);
    query->is_waiting = count == 0 && !is_done && qmgr_scan_is_waiting(queue, query->cursor);
    query->acted.matched += count;
    if (is_done)
        query->cursor = UINT64_MAX;
}

static void query_act(struct qmgr *queue, struct shard_query *query, struct tick_now now)
{
    struct qmgr_match matches[SHARD_QUERY_ACTS_MAX] UNINITIALIZED;

    if (query->is_dry_run) {
        query_count(queue, query, now);
        return;
    }
    uint32_t count = query_step(queue, query, matches, SHARD_QUERY_ACTS_MAX, now);
    uint64_t before = query->acted.done + query->acted.in_flight;
    qmgr_act(queue, matches, count, query->order, &query->acted, now);
    qmgr_standing_count(queue, query->order->id,
                        query->acted.done + query->acted.in_flight - before);
    for (uint32_t i = 0; i < count && query->is_cancel; i++) /* to release ends no message */
        qmgr_standing_hold_again(queue, &matches[i], now);
}

bool shard_query_yields(struct shard_query *query, const struct record_sink *records, tick_us now)
{
    bool writes = query->kind == SHARD_QUERY_QUEUE_ACT && !query->is_dry_run && !query->is_end;

    query->is_waiting = false;
    if (!writes || records->is_behind == NULL || !records->is_behind(records->context)) {
        query->behind_since = 0;
        return false;
    }
    if (query->behind_since == 0)
        query->behind_since = now;
    return now - query->behind_since < RECORDS_PATIENCE;
}

void shard_query_queue(struct qmgr *queue, uint32_t shard, struct shard_query *query,
                       struct tick_now now)
{
    query->is_waiting = false;
    if (query->is_end) {
        qmgr_scan_end(queue, query->cursor);
        query->cursor = UINT64_MAX;
    } else if (query->kind == SHARD_QUERY_QUEUE_LIST || query->kind == SHARD_QUERY_QUEUE_SHOW)
        query_list(queue, shard, query, now);
    else if (query->kind == SHARD_QUERY_QUEUE_ACT)
        query_act(queue, query, now);
    else
        query->row_count =
            qmgr_groups(queue, query->by, &query->cursor, query->groups, query->row_max, now);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a shard tells of its queue: rows and counts, written into the asker's memory. A list,
 * and an order, go by slices: the first look begins a scan whose handle is the query's cursor from
 * then on.
 */
#include "control/shard_query.h"

static void row_fill(struct shard_queue_row *row, const struct envelope *envelope,
                     uint32_t recipient_index, const struct qmgr_status *status, uint32_t shard)
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
    record_text(row->sender, sizeof(row->sender), envelope->sender);
    record_text(row->recipient, sizeof(row->recipient),
                envelope->recipients[recipient_index].address);
    record_text(row->domain, sizeof(row->domain), status->domain);
    record_text(row->site, sizeof(row->site), status->site);
    record_text(row->source, sizeof(row->source), envelope->source_pool);
    record_text(row->last_reply, sizeof(row->last_reply), status->last_reply);
}

/* One step of the query's scan, which the first look begins. Returns how many were found. */
static uint32_t query_step(struct qmgr *queue, struct shard_query *query,
                           struct qmgr_match *matches, uint32_t max, struct tick_now now)
{
    uint32_t count = 0;
    bool is_done = true;

    if (query->cursor == 0)
        query->cursor = qmgr_scan_begin(queue, query->filter, now);
    query->err = qmgr_scan_step(queue, query->cursor, matches, max, &count, &is_done, now);
    if (is_done)
        query->cursor = UINT64_MAX;
    return count;
}

static void query_list(struct qmgr *queue, uint32_t shard, struct shard_query *query,
                       struct tick_now now)
{
    struct qmgr_match matches[SHARD_QUERY_ROWS_MAX];

    CHECK(query->row_max <= SHARD_QUERY_ROWS_MAX);
    uint32_t count = query_step(queue, query, matches, query->row_max, now);
    for (uint32_t i = 0; i < count; i++) {
        const struct envelope *envelope = qmgr_message_envelope(matches[i].message);
        uint32_t index = matches[i].recipient_index;
        struct qmgr_status status =
            qmgr_recipient_status(&envelope->recipients[index], matches[i].delivery, now);
        row_fill(&query->rows[query->row_count++], envelope, index, &status, shard);
    }
}

static void query_act(struct qmgr *queue, struct shard_query *query, struct tick_now now)
{
    struct qmgr_match matches[SHARD_QUERY_ACTS_MAX];
    uint32_t count = query_step(queue, query, matches, SHARD_QUERY_ACTS_MAX, now);

    if (query->is_dry_run)
        query->acted.matched += count;
    else
        qmgr_act(queue, matches, count, query->order, &query->acted, now);
}

static void query_show(struct qmgr *queue, uint32_t shard, struct shard_query *query,
                       struct tick_now now)
{
    struct qmgr_message *message = qmgr_find(queue, query->id);

    if (message == NULL) {
        query->cursor = UINT64_MAX;
        return;
    }
    const struct envelope *envelope = qmgr_message_envelope(message);
    for (uint32_t i = (uint32_t)query->cursor;
         i < envelope->recipient_count && query->row_count < query->row_max; i++) {
        const struct envelope_recipient *recipient = &envelope->recipients[i];
        struct qmgr_status status = qmgr_recipient_status(
            recipient, qmgr_message_delivery(message, recipient->domain), now);
        row_fill(&query->rows[query->row_count++], envelope, i, &status, shard);
        query->cursor = i + 1;
    }
    if (query->cursor >= envelope->recipient_count)
        query->cursor = UINT64_MAX;
}

void shard_query_queue(struct qmgr *queue, uint32_t shard, struct shard_query *query,
                       struct tick_now now)
{
    if (query->kind == SHARD_QUERY_QUEUE_LIST)
        query_list(queue, shard, query, now);
    else if (query->kind == SHARD_QUERY_QUEUE_SHOW)
        query_show(queue, shard, query, now);
    else if (query->kind == SHARD_QUERY_QUEUE_ACT)
        query_act(queue, query, now);
    else
        query->row_count =
            qmgr_groups(queue, query->by, &query->cursor, query->groups, query->row_max, now);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One message as it is stored, for an operator: its envelope with the present states, then its
 * octets, which are the prefix of the envelope and the body in the spool.
 *
 *   envelope -> prefix -> body, a piece a look -> end       cat_envelope(), cat_octets()
 *
 * Invariants
 *   1. A look writes no more than its arrays hold, whatever the size of the message.
 *   2. While a piece is read the query waits with the shard, so that whoever begins a piece ends
 * it.
 *   3. Nothing keeps the message: it may be delivered between two looks. What was told so far stays
 *      true; the rest is refused.
 */
#include "control/shard_cat.h"

#define UNREADABLE "its envelope cannot be read: see the log"
#define LEFT       "the message has left the queue while it was read"

static void text_set(char *ret_text, uint32_t size, struct span text)
{
    if (text.size >= size)
        text.size = size - 1;
    if (text.size > 0)
        memcpy(ret_text, text.data, text.size);
    ret_text[text.size] = '\0';
}

static void cat_fail(struct shard_query *query, enum err err, const char *why)
{
    query->err = err;
    query->cat->why = why;
}

/* ---- the envelope ---- */

static void message_fill(const struct qmgr *queue, struct shard_cat *cat,
                         const struct envelope *envelope)
{
    cat->is_found = true;
    cat->arrived = envelope->arrived;
    cat->expires = envelope->expires;
    cat->size = envelope->body_size;
    cat->header_size = envelope->header_size;
    cat->flags = envelope->flags;
    cat->recipient_count = envelope->recipient_count;
    cat->class = envelope->class;
    (void)qmgr_class_name(queue, envelope->class, cat->class_name);
    text_set(cat->sender, sizeof(cat->sender), envelope->sender);
    text_set(cat->client, sizeof(cat->client), envelope->client);
    text_set(cat->source, sizeof(cat->source), envelope->source_pool);
    text_set(cat->envid, sizeof(cat->envid), envelope->envid);
    cat->prefix_size = envelope->prefix.size;
    if (cat->prefix_size > 0)
        memcpy(cat->prefix, envelope->prefix.data, cat->prefix_size);
    cat->end = cat->has_body ? cat->size : cat->has_header ? cat->header_size : 0;
}

static void row_fill(struct shard_cat_row *row, const struct envelope_recipient *recipient,
                     const struct qmgr_status *status)
{
    *row = (struct shard_cat_row){
        .attempts = status->attempts,
        .state = (uint8_t)status->state,
        .notify = recipient->notify,
        .is_active = status->is_active,
        .is_ready = status->is_ready,
        .is_held = status->is_held,
    };
    text_set(row->address, sizeof(row->address), recipient->address);
    text_set(row->orcpt, sizeof(row->orcpt), recipient->orcpt);
    text_set(row->domain, sizeof(row->domain), status->domain);
    text_set(row->site, sizeof(row->site), status->site);
}

/* What a step has found. False: it cannot be read. */
static bool cat_take(struct qmgr *queue, struct shard_cat *cat, const struct qmgr_match *matches,
                     uint32_t count, struct tick_now now)
{
    for (uint32_t i = 0; i < count; i++) {
        if (matches[i].is_unreadable)
            return false;
        const struct envelope *envelope = qmgr_message_envelope(matches[i].message);
        if (i == 0 && !cat->is_found)
            message_fill(queue, cat, envelope);
        if (!cat->has_envelope)
            break;
        const struct envelope_recipient *recipient =
            &envelope->recipients[matches[i].recipient_index];
        struct qmgr_status status = qmgr_recipient_status(recipient, matches[i].delivery, now);
        row_fill(&cat->rows[cat->row_count++], recipient, &status);
    }
    cat->rows_told += cat->row_count;
    return true;
}

/* The scan has nothing more. */
static void cat_envelope_end(struct qmgr *queue, struct shard_query *query)
{
    struct shard_cat *cat = query->cat;

    if (!cat->is_found && qmgr_find(queue, query->id) != NULL)
        cat_fail(query, ERR_DISK_CORRUPT, UNREADABLE);
    else if (!cat->is_found)
        query->cursor = UINT64_MAX;
    else if (cat->has_envelope && cat->rows_told < cat->recipient_count)
        cat_fail(query, ERR_STALE, LEFT);
    else
        cat->is_at_octets = true;
}

static void cat_envelope(struct qmgr *queue, struct shard_query *query, struct tick_now now)
{
    struct qmgr_match matches[SHARD_CAT_ROWS_MAX];
    struct shard_cat *cat = query->cat;
    bool is_done = true;
    uint32_t count = 0;

    if (query->cursor == 0)
        query->cursor = qmgr_show_begin(queue, query->id, now);
    enum err err =
        qmgr_scan_step(queue, query->cursor, matches, COUNT_OF(matches), &count, &is_done, now);
    if (err != ERR_OK) {
        cat_fail(query, err, "too many walks over the queue at once");
        return;
    }
    bool is_readable = cat_take(queue, cat, matches, count, now);
    query->is_waiting = count == 0 && !is_done && qmgr_scan_is_waiting(queue, query->cursor);
    bool is_enough = cat->is_found && !cat->has_envelope;
    if (!is_readable || is_enough)
        qmgr_scan_end(queue, query->cursor);
    if (!is_readable)
        cat_fail(query, ERR_DISK_CORRUPT, UNREADABLE);
    else if (is_enough || is_done)
        cat_envelope_end(queue, query);
}

/* ---- octets ---- */

static void cat_piece_begin(struct qmgr *queue, struct shard_query *query)
{
    struct shard_cat *cat = query->cat;
    uint64_t left = cat->end - cat->offset;

    cat->piece_size = left < SHARD_CAT_OCTETS_MAX ? (uint32_t)left : SHARD_CAT_OCTETS_MAX;
    enum err err = qmgr_piece_begin(queue, query->id, cat->offset - cat->prefix_size,
                                    cat->piece_size, &cat->piece);
    cat->is_reading = err == ERR_OK;
    if (err == ERR_STALE)
        cat_fail(query, err, LEFT);
    else if (err == ERR_LIMIT)
        cat_fail(query, err, "too many messages are read at once");
    else if (err != ERR_OK)
        cat_fail(query, err, "its body is damaged: see the log");
}

static void cat_piece_end(struct qmgr *queue, struct shard_query *query)
{
    struct shard_cat *cat = query->cat;
    enum err err = qmgr_piece_end(queue, cat->piece, cat->octets);

    cat->is_reading = false;
    if (err == ERR_OK) {
        cat->octet_count = cat->piece_size;
        cat->offset += cat->piece_size;
    } else if (err == ERR_STALE) {
        cat_fail(query, err, LEFT);
    } else if (err == ERR_MEMORY) {
        cat_fail(query, err, "no memory to read its body into: try again");
    } else {
        cat_fail(query, err, "its body is damaged, or the disk is");
    }
}

static void cat_octets(struct qmgr *queue, struct shard_query *query)
{
    struct shard_cat *cat = query->cat;

    if (cat->offset < cat->prefix_size && cat->offset < cat->end) {
        cat->octet_count = cat->end < cat->prefix_size ? (uint32_t)cat->end : cat->prefix_size;
        memcpy(cat->octets, cat->prefix, cat->octet_count);
        cat->offset = cat->octet_count;
    } else if (cat->offset < cat->end) {
        if (!cat->is_reading)
            cat_piece_begin(queue, query);
        query->is_waiting = cat->is_reading && qmgr_piece_is_reading(queue, cat->piece);
        if (cat->is_reading && !query->is_waiting)
            cat_piece_end(queue, query);
    }
    if (cat->offset == cat->end && query->err == ERR_OK)
        query->cursor = UINT64_MAX;
}

void shard_query_cat(struct qmgr *queue, struct shard_query *query, struct tick_now now)
{
    struct shard_cat *cat = query->cat;

    query->is_waiting = false;
    cat->row_count = cat->octet_count = 0;
    if (!cat->is_at_octets)
        cat_envelope(queue, query, now);
    else
        cat_octets(queue, query);
}

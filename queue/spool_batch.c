/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer of the spool: records wait in order, are written in batches, and are answered for.
 *
 *   pending --batch_fill()--> in flight --completion--> durable
 *      ^                         |
 *      |                         +--error, or later than the deadline--> lost: flight_lose()
 *      +---- PROGRESS, DONE, VOID again; VOID for every lost MESSAGE ----+
 *
 * A batch is one gathered write from the buffers themselves, followed by fdatasync unless it holds
 * nothing but BODY records. One batch is in flight at a time, so that a segment never has a hole
 * before acknowledged records; what arrives meanwhile goes into the next one. When that is large it
 * goes ahead: it is handed to the disk while the one in flight is still being synced, and the disk
 * begins with it at once when that is done (disk.h: commits are carried out in order), instead of
 * waiting until we have looked, gathered and summed. A small one waits: messages that come later
 * then share its sync.
 *
 * Invariants
 *   1. A commit is reported good only after the sync of the batch with its MESSAGE; its BODY
 *      records are in that batch, or before it in the same segment and synced with it, or in a
 *      sealed segment; and a segment is sealed only when it is synced.
 *   2. A batch that failed or came late is lost as a whole: its segment is retired, a VOID record
 *      for each lost MESSAGE goes first into the next segment, and the sender hears of the failure
 *      when that VOID is durable, or at the commit deadline.
 *   3. PROGRESS and DONE keep epoch and sequence when they are written again: twice is the same as
 *      once. Those that share the commit of a DSN are void with it.
 *   4. The octets of a batch stay untouched until its completion, also when it is late.
 *   5. `ahead` is in the segment of `flight`, and both are synced writes. So it is never written
 *      when the other one fails; it is lost with it, whether that failed or came late, and
 *      everything in it is void, too.
 *
 * Limits: SPOOL_BATCH_SIZE_MAX octets and DISK_VECTOR_MAX pieces a batch.
 * Not here: which segment (spool_segment.c), what a commit is for its user (spool.c).
 */
#include <stdlib.h>

#include "queue/spool_internal.h"

static const uint8_t batch_zeros[SPOOL_BLOCK_SIZE];

/* ---- filling a batch ---- */

struct batch_fill {
    uint32_t pieces;        /* one is kept for the padding at the end */
    uint32_t rows, details; /* for the index */
    uint32_t end;           /* offset in the segment */
};

/* True if the item still goes into this batch. */
static bool batch_has_room(const struct spool_segment *segment, const struct batch_fill *fill,
                           const struct spool_item *item)
{
    uint64_t end = spool_align(fill->end, 8) + sizeof(item->record) + item->record.payload_size;
    uint64_t size = spool_align(end, SPOOL_BLOCK_SIZE) - segment->used;
    return fill->pieces + spool_item_pieces(item) < DISK_VECTOR_MAX &&
           size <= SPOOL_BATCH_SIZE_MAX &&
           size <= spool_segment_room(segment, fill->rows + 1,
                                      fill->details + spool_item_detail(item).size);
}

/* Move what fits from pending into the batch, in order, and give everything its place. */
static void batch_fill(struct spool *spool, struct spool_batch *batch)
{
    struct spool_segment *segment = batch->segment;
    struct batch_fill fill = {.end = segment->used};
    while (spool->pending.first != NULL) {
        struct spool_item *item = spool->pending.first;
        bool is_moot = spool_item_is_moot(item);
        if (!is_moot && !batch_has_room(segment, &fill, item))
            break;
        spool_list_take(&spool->pending);
        spool->pending_octets -= item->record.payload_size;
        spool->lazy_count -= item->is_lazy;
        spool->copy_count -= item->copy != NULL;
        if (is_moot) {
            spool_item_drop(spool, item);
            continue;
        }
        item->offset = (uint32_t)spool_align(fill.end, 8);
        item->record.salt = segment->salt;
        spool_item_place(spool, segment, item);
        fill.end = item->offset + (uint32_t)sizeof(item->record) + item->record.payload_size;
        fill.pieces += spool_item_pieces(item);
        if (item->record.type != SPOOL_BODY) {
            fill.rows++;
            fill.details += spool_item_detail(item).size;
            batch->is_synced = true;
        }
        batch->messages += item->record.type == SPOOL_MESSAGE && item->copy == NULL;
        spool_list_append(&batch->items, item);
    }
    if (spool->lazy_count == 0)
        spool->lazy_due = TICK_NEVER;
}

/* Seal the headers and hand the batch to the disk. */
static void batch_submit(struct spool *spool, struct spool_batch *batch)
{
    struct spool_segment *segment = batch->segment;
    struct iovec vector[DISK_VECTOR_MAX];
    uint32_t count = 0, end = segment->used;
    if (!segment->is_dirty)
        batch->items.first->record.flags |= SPOOL_RECORD_AFTER_SYNC;
    for (struct spool_item *item = batch->items.first; item != NULL; item = item->next) {
        if (item->next == NULL)
            item->record.flags |= SPOOL_RECORD_LAST;
        spool_item_seal(item);
        count += spool_item_gather(item, item->offset - end, vector + count);
        end = item->offset + (uint32_t)sizeof(item->record) + item->record.payload_size;
        if (item->record.type != SPOOL_BODY)
            spool_segment_row(segment, &item->record, item->offset, spool_item_detail(item));
    }
    uint32_t start = segment->used;
    segment->used = (uint32_t)spool_align(end, SPOOL_BLOCK_SIZE);
    if (segment->used > end)
        vector[count++] = (struct iovec){(void *)(uintptr_t)batch_zeros, segment->used - end};
    segment->is_dirty = !batch->is_synced;
    batch->octets = segment->used - start;
    bool then_sync = batch->is_synced && !SPOOL_HAS_BUG(REPLY_BEFORE_SYNC);
    disk_submit_write(spool->disk, segment->file, start, vector, count, then_sync,
                      (uintptr_t)&batch->io);
}

static struct spool_batch *batch_new(struct spool *spool, struct spool_segment *segment)
{
    struct spool_batch *batch = calloc(1, sizeof(*batch));
    CHECK(batch != NULL);
    batch->io = (struct spool_io){SPOOL_IO_BATCH, batch};
    batch->segment = segment;
    batch->submitted = spool->now.tick;
    batch->deadline = spool->now.tick + spool->options.commit_deadline;
    spool_list_init(&batch->items);
    return batch;
}

static void batch_free(struct spool *spool, struct spool_batch *batch)
{
    spool_list_free(spool, &batch->items);
    free(batch);
}

void spool_batches_free(struct spool *spool)
{
    if (spool->flight != NULL)
        batch_free(spool, spool->flight);
    if (spool->ahead != NULL)
        batch_free(spool, spool->ahead);
    while (spool->late != NULL) {
        struct spool_batch *batch = spool->late;
        spool->late = batch->next;
        batch_free(spool, batch);
    }
    spool_list_free(spool, &spool->pending);
    while (spool->failures != NULL) {
        struct spool_failure *failure = spool->failures;
        spool->failures = failure->next;
        free(failure);
    }
    while (spool->items_free != NULL) {
        struct spool_item *item = spool->items_free;
        spool->items_free = item->next;
        free(item);
    }
}

/* Invariant 5; a flight without items is a mere sync, which is no commit. */
static bool batch_may_go_ahead(const struct spool *spool)
{
    const struct spool_batch *flight = spool->flight;
    struct batch_fill fill = {.end = flight->segment->used};
    return spool->ahead == NULL && flight->is_synced && !SPOOL_HAS_BUG(REPLY_BEFORE_SYNC) &&
           flight->items.first != NULL && spool->pending_octets >= spool->ahead_min &&
           batch_has_room(flight->segment, &fill, spool->pending.first);
}

static bool batch_is_wanted(const struct spool *spool)
{
    if (spool->pending.first == NULL || spool->now.tick < spool->retry_at)
        return false;
    if (spool->flight != NULL)
        return batch_may_go_ahead(spool);
    if (spool->pending.count > spool->lazy_count + spool->copy_count || spool->is_flushing)
        return true;
    /* Copies wait for those that are being read, and what is lazy travels with them rather than in
     * a block of its own where blocks are dear. */
    bool is_gathering = spool->copier.reading > 0;
    return (spool->copy_count > 0 && !is_gathering) ||
           (spool->now.tick >= spool->lazy_due && !(is_gathering && spool_room_is_tight(spool)));
}

/* The active segment is too full for the next record. True when there may be another one. */
static bool batch_turn_over(struct spool *spool)
{
    struct spool_segment *active = spool->active;
    if (spool->flight != NULL)
        return false; /* of that, nobody knows yet */
    if (!active->is_dirty) {
        spool_segment_seal(spool);
        return true;
    }
    /* Invariant 1: BODY records here must be durable before their MESSAGE in the next segment is.
     */
    spool->flight = batch_new(spool, active);
    spool->flight->is_synced = true;
    active->is_dirty = false;
    disk_submit_sync(spool->disk, active->file, (uintptr_t)&spool->flight->io);
    return false;
}

void spool_batch_start(struct spool *spool)
{
    /* Twice at most: the second segment is empty and was chosen to take the next record. */
    for (uint32_t i = 0; i < 2 && batch_is_wanted(spool); i++) {
        struct spool_batch **place = spool->flight == NULL ? &spool->flight : &spool->ahead;
        struct spool_segment *segment =
            spool->flight == NULL ? spool_segment_writable(spool) : spool->flight->segment;
        if (segment == NULL)
            return;
        struct spool_batch *batch = batch_new(spool, segment);
        batch->is_synced = spool->flight != NULL;
        batch_fill(spool, batch);
        if (batch->items.first != NULL) {
            spool->stats.batches_ahead += spool->flight != NULL;
            *place = batch;
            batch_submit(spool, batch);
            return;
        }
        batch_free(spool, batch);
        if (spool->pending.first != NULL && !batch_turn_over(spool))
            return;
    }
}

/* ---- the end of a batch ---- */

static void progress_succeed(struct spool *spool, const struct spool_batch *batch,
                             const struct spool_item *item)
{
    struct spool_place place = {
        .serial = batch->segment->serial,
        .segment = batch->segment->index,
        .retry = item->retry,
        .offset = item->offset,
    };
    if (item->entry->state == SPOOL_ENTRY_LIVE || item->entry->state == SPOOL_ENTRY_FINISHING)
        spool_entry_supersede(spool, item->entry, &place);
}

static void item_succeed(struct spool *spool, const struct spool_batch *batch,
                         struct spool_item *item)
{
    struct spool_entry *entry = item->entry;
    if (item->copy != NULL) {
        spool_copy_durable(spool, item);
    } else if (item->record.type == SPOOL_MESSAGE) {
        entry->state = SPOOL_ENTRY_LIVE;
        spool_entry_settle(spool, entry);
        spool->stats.commits++;
        spool->stats.messages_live++;
        spool_event_add(spool, SPOOL_EVENT_COMMITTED, ERR_OK, item->token)->entry = entry;
    } else if (item->record.type == SPOOL_DONE) {
        spool->stats.messages_live--;
        spool_entry_end(spool, entry);
    } else if (item->record.type == SPOOL_VOID && item->failure != NULL) {
        item->failure->voids_left--;
    } else if (item->record.type == SPOOL_PROGRESS && item->retry > 0) {
        progress_succeed(spool, batch, item);
    }
}

static void batch_succeed(struct spool *spool, struct spool_batch *batch)
{
    tick_us time = spool->now.tick - batch->submitted;
    spool->failures_in_row = 0;
    spool->retry_at = 0;
    spool->stats.batches++;
    spool->stats.octets_written += batch->octets;
    if (batch->is_synced) {
        spool->stats.syncs++;
        spool->stats.sync_time_us_total += time;
    }
    if (batch->messages > spool->stats.batch_messages_max)
        spool->stats.batch_messages_max = batch->messages;
    for (struct spool_item *item = batch->items.first; item != NULL; item = item->next)
        item_succeed(spool, batch, item);
}

static struct spool_failure *failure_new(struct spool *spool, uint64_t token, enum err err)
{
    struct spool_failure *failure = calloc(1, sizeof(*failure));
    CHECK(failure != NULL);
    *failure = (struct spool_failure){
        .next = spool->failures,
        .token = token,
        .err = err,
        .deadline = spool->now.tick + spool->options.commit_deadline,
    };
    spool->failures = failure;
    return failure;
}

/* The PROGRESS at this place is written again elsewhere, or void. */
static void entry_forget_progress(struct spool *spool, struct spool_entry *entry,
                                  const struct spool_segment *segment, uint32_t offset)
{
    for (uint32_t i = entry->body_count; i < entry->place_count; i++) {
        struct spool_place place = spool_entry_place(spool, entry, i);
        if (place.kind != SPOOL_PLACE_PROGRESS || place.segment != segment->index ||
            place.offset != offset)
            continue;
        if (place.is_held)
            spool_unhold(spool, &place);
        spool_entry_remove_place(entry, i);
        return;
    }
}

static void batch_lose_item(struct spool *spool, struct spool_batch *batch, struct spool_item *item,
                            enum err err, struct spool_item_list *again)
{
    struct spool_entry *entry = item->entry;
    /* Its leader stood right before it: the newest failure is the leader's. */
    bool is_void_with_leader = item->leader != NULL && item->leader->err != ERR_OK;
    if (item->copy != NULL) {
        spool_copy_lost(spool, item);
        return;
    }
    if (item->record.type == SPOOL_BODY) {
        entry->err = (uint8_t)err;
        return;
    }
    if (item->record.type == SPOOL_PROGRESS)
        entry_forget_progress(spool, entry, batch->segment, item->offset);
    if (item->record.type == SPOOL_MESSAGE) {
        struct spool_failure *failure = failure_new(spool, item->token, err);
        spool_list_append(again, spool_item_void(spool, batch->segment, item, failure));
        entry->err = (uint8_t)err;
        /* The DONE behind a DSN may have missed this batch: it is not to be written either. One in
         * the batch behind is the next that is lost. */
        bool is_last = item->next == NULL && (batch == spool->ahead || spool->ahead == NULL);
        struct spool_item *rider = is_last ? spool->pending.first : NULL;
        if (rider != NULL && rider->leader == entry && rider->record.type == SPOOL_DONE)
            rider->entry->state = SPOOL_ENTRY_LIVE;
        spool_entry_end(spool, entry);
    } else if (is_void_with_leader) {
        spool_list_append(again, spool_item_void(spool, batch->segment, item, spool->failures));
        if (item->record.type == SPOOL_DONE)
            entry->state = SPOOL_ENTRY_LIVE;
    } else {
        spool_list_append(again, spool_item_again(spool, item));
    }
}

static void entry_lose_bodies(const struct spool *spool, struct spool_entry *entry,
                              const struct spool_segment *segment, enum err err)
{
    for (uint32_t i = 0; i < entry->body_count; i++) {
        if (spool_entry_place(spool, entry, i).segment == segment->index)
            entry->err = (uint8_t)err;
    }
}

/* BODY records written to the lost segment since its last sync are lost with it. */
static void batch_lose_transactions(struct spool *spool, const struct spool_segment *segment,
                                    enum err err)
{
    for (struct spool_transaction *transaction = spool->transactions; transaction != NULL;
         transaction = transaction->next)
        entry_lose_bodies(spool, transaction->entry, segment, err);
    for (struct spool_item *item = spool->pending.first; item != NULL; item = item->next) {
        if (item->record.type == SPOOL_MESSAGE && item->copy == NULL)
            entry_lose_bodies(spool, item->entry, segment, err);
    }
}

static void batch_lose(struct spool *spool, struct spool_batch *batch, enum err err,
                       struct spool_item_list *again)
{
    for (struct spool_item *item = batch->items.first; item != NULL; item = item->next)
        batch_lose_item(spool, batch, item, err, again);
}

/* Its completion is still to come. */
static void batch_is_late(struct spool *spool, struct spool_batch *batch)
{
    batch->next = spool->late;
    spool->late = batch;
}

/* Invariants 2 and 5. The batch in flight is its caller's to keep or to free. */
static struct spool_batch *flight_lose(struct spool *spool, enum err err)
{
    struct spool_batch *flight = spool->flight, *ahead = spool->ahead;
    struct spool_item_list again;
    spool_list_init(&again);
    spool_segment_retire(spool, flight->segment);
    batch_lose(spool, flight, err, &again);
    if (ahead != NULL) {
        CHECK(ahead->segment == flight->segment);
        batch_lose(spool, ahead, err, &again);
        batch_is_late(spool, ahead);
    }
    batch_lose_transactions(spool, flight->segment, err);
    spool_copy_segment_lost(spool, flight->segment);
    for (struct spool_item *item = again.first; item != NULL; item = item->next)
        spool->pending_octets += item->record.payload_size;
    spool_list_prepend(&spool->pending, &again);
    spool->flight = spool->ahead = NULL;
    return flight;
}

void spool_batch_completed(struct spool *spool, struct spool_batch *batch, enum err err)
{
    CHECK(batch != spool->ahead); /* commits complete in order */
    if (batch != spool->flight) { /* late: lost already, whatever the disk says now */
        struct spool_batch **link = &spool->late;
        while (*link != batch)
            link = &(*link)->next;
        *link = batch->next;
        batch_free(spool, batch);
        return;
    }
    if (err == ERR_OK) {
        spool->flight = spool->ahead;
        spool->ahead = NULL;
        if (spool->flight != NULL)
            spool->flight->submitted = spool->now.tick; /* now the disk has begun with it */
        batch_succeed(spool, batch);
    } else {
        (void)flight_lose(spool, err);
    }
    batch_free(spool, batch);
}

/* ---- time ---- */

/* `item` is in the pending list, or was just taken from its front. */
void spool_commit_refuse(struct spool *spool, struct spool_item *item, enum err err)
{
    struct spool_entry *entry = item->entry;
    CHECK(entry->state == SPOOL_ENTRY_COMMITTING && err != ERR_OK);
    entry->err = (uint8_t)err;
    /* The DONE behind a DSN is not to be written either: its message lives on. */
    struct spool_item *rider = item->next;
    if (rider != NULL && rider->leader == entry && rider->record.type == SPOOL_DONE)
        rider->entry->state = SPOOL_ENTRY_LIVE;
    spool_event_add(spool, SPOOL_EVENT_COMMITTED, err, item->token);
    spool_entry_end(spool, entry);
}

static void failures_report(struct spool *spool)
{
    for (struct spool_failure **link = &spool->failures; *link != NULL;) {
        struct spool_failure *failure = *link;
        bool is_due = failure->voids_left == 0 || spool->now.tick >= failure->deadline;
        if (is_due && !failure->is_reported) {
            failure->is_reported = true;
            spool_event_add(spool, SPOOL_EVENT_COMMITTED, failure->err, failure->token);
        }
        if (failure->voids_left > 0) {
            link = &failure->next;
            continue;
        }
        *link = failure->next;
        free(failure);
    }
}

/* Commits that never found a segment to be written to. They are dropped when their turn comes. */
static void pending_expire(struct spool *spool)
{
    for (struct spool_item *item = spool->pending.first; item != NULL; item = item->next) {
        if (spool->now.tick < item->queued_at + spool->options.commit_deadline)
            return; /* first come, first due: lazy records wait here by the thousand */
        if (item->record.type == SPOOL_MESSAGE && item->copy == NULL &&
            item->entry->state == SPOOL_ENTRY_COMMITTING)
            spool_commit_refuse(spool, item, ERR_TIMEOUT);
    }
}

void spool_batch_expire(struct spool *spool)
{
    if (spool->flight != NULL && spool->now.tick >= spool->flight->deadline)
        batch_is_late(spool, flight_lose(spool, ERR_TIMEOUT));
    if (spool->failures != NULL)
        failures_report(spool);
    if (spool->pending.first != NULL && spool->flight == NULL)
        pending_expire(spool);
}

static tick_us earlier(tick_us a, tick_us b)
{
    return a < b ? a : b;
}

tick_us spool_batch_deadline(const struct spool *spool)
{
    tick_us deadline = TICK_NEVER;
    if (batch_is_wanted(spool) && (spool->active != NULL || spool->census.ready > 0))
        return spool->now.tick;
    if (spool->flight != NULL)
        deadline = spool->flight->deadline;
    else if (spool->pending.count > spool->lazy_count)
        deadline = spool->now.tick + SPOOL_RETRY_TIME;
    else if (spool->now.tick < spool->lazy_due)
        deadline = spool->lazy_due;
    else /* due, and no segment to write it to: as below, whatever frees one comes by itself */
        deadline = spool->now.tick + SPOOL_RETRY_TIME;
    for (const struct spool_failure *failure = spool->failures; failure != NULL;
         failure = failure->next) {
        if (!failure->is_reported)
            deadline = earlier(deadline, failure->deadline);
    }
    return deadline;
}

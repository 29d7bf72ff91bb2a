/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spool: accepted messages survive a crash from the moment we answer 250.
 *
 * Each shard appends records (spool_record.h) to segments of its own and never rewrites them. A
 * message is live while a MESSAGE record of it, not VOID, has no newer DONE; recovery reads the
 * segments to find the live messages. A segment is used again when nothing in it matters any more.
 *
 * Invariants
 *   1. COMMITTED with ERR_OK: MESSAGE, its BODY records and all before them in their segments are
 *      synced.
 *   2. COMMITTED with an error: the MESSAGE was never written, or is VOID durably, or could not be
 *      made VOID within the commit deadline. Its sender hears 4xx.
 *   3. A DONE record outlives every copy of the MESSAGE it speaks of (spool_segment.c).
 *   4. Every spool_commit() ends in exactly one COMMITTED, every read in exactly one READ.
 *   5. Losing PROGRESS or DONE in a crash means a second delivery, never a loss. They are written
 *      with the next commit, or after lazy_time.
 *
 * States of an entry                        Edge done by
 *   BUILDING -> COMMITTING                  spool_commit()
 *   BUILDING -> GONE                        spool_abort()
 *   COMMITTING -> LIVE                      its batch is durable (spool_batch.c)
 *   COMMITTING -> GONE                      its batch is lost, or it was never written
 *   LIVE -> FINISHING                       spool_done(), spool_commit_dsn()
 *   FINISHING -> GONE                       its DONE is durable
 *   FINISHING -> LIVE                       the DSN that would have ended it was lost
 *
 * Space: spool_begin() promises room for the size it is told. Who may take how much, and why it
 * never comes to a stand: spool_space.c.
 *
 * Limits: SPOOL_TRANSACTION_MAX open transactions, SPOOL_EXTENT_COUNT_MAX BODY records a message,
 * an envelope and its extents of SPOOL_PAYLOAD_SIZE_MAX together.
 * Not here: when to retry (qmgr.c), what an envelope is (envelope.c), how octets reach the medium
 * (disk.h), what a start finds (spool_recovery.c).
 */
#include <stdlib.h>

#include "queue/spool_internal.h"

#define SPOOL_REAP_MAX      64u
#define SPOOL_SEGMENT_PARTS 16u /* BODY records in a segment, at least */
#define SPOOL_SCRATCH_BLOCK (16u << 10)
#define SPOOL_SCRATCH_MAX   (4u << 20) /* an envelope of ENVELOPE_RECIPIENT_MAX, decoded */
#define SPOOL_SERIAL_OWN    (1u << 30) /* adopted generations are older than all own ones */
#define SPOOL_EVENTS_FIRST  256u

/* ---- events ---- */

struct spool_event *spool_event_add(struct spool *spool, enum spool_event_kind kind, enum err err,
                                    uint64_t token)
{
    if (spool->event_count == spool->event_capacity) {
        uint32_t capacity =
            spool->event_capacity == 0 ? SPOOL_EVENTS_FIRST : 2 * spool->event_capacity;
        struct spool_event *events = malloc(capacity * sizeof(*events));
        CHECK(events != NULL);
        for (uint32_t i = 0; i < spool->event_count; i++)
            events[i] = spool->events[(spool->event_head + i) % spool->event_capacity];
        free(spool->events);
        spool->events = events;
        spool->event_head = 0;
        spool->event_capacity = capacity;
    }
    uint32_t tail = (spool->event_head + spool->event_count++) % spool->event_capacity;
    spool->events[tail] = (struct spool_event){.kind = kind, .err = err, .token = token};
    buf_queue_init(&spool->events[tail].octets);
    return &spool->events[tail];
}

/* ---- life ---- */

static uint32_t spool_part_size_max(uint32_t segment_size)
{
    /* What is less than a part at the end of a segment is lost. */
    uint32_t part = (segment_size / SPOOL_SEGMENT_PARTS) & ~(SPOOL_BLOCK_SIZE - 1);
    return part < SPOOL_PART_SIZE_MAX ? part : SPOOL_PART_SIZE_MAX;
}

enum err spool_new(const struct spool_options *options, struct disk *disk, struct rng *rng,
                   struct tick_now now, struct spool **ret_spool)
{
    CHECK(options->pool != NULL && options->epoch > 0 && options->epoch <= UINT32_MAX);
    if (options->segment_size < SPOOL_SEGMENT_SIZE_MIN ||
        options->segment_size > SPOOL_SEGMENT_SIZE_MAX || options->segment_spare_min == 0 ||
        options->size_max < 2 * (uint64_t)options->segment_size)
        return ERR_CONFIG_VALUE;

    struct spool *spool = calloc(1, sizeof(*spool));
    CHECK(spool != NULL);
    spool->options = *options;
    spool->options.segment_size &= ~(SPOOL_BLOCK_SIZE - 1);
    spool->disk = disk;
    spool->rng = rng;
    spool->now = now;
    spool->create_size_max = spool->options.segment_size;
    spool->part_size_max = spool_part_size_max(spool->options.segment_size);
    spool->ahead_min = spool->options.segment_size / SPOOL_AHEAD_PART;
    if (spool->ahead_min > SPOOL_AHEAD_MIN)
        spool->ahead_min = SPOOL_AHEAD_MIN;
    spool->serial = SPOOL_SERIAL_OWN;
    spool->lazy_due = TICK_NEVER;
    spool->is_census_due = true;
    spool_list_init(&spool->pending);
    spool->reads_end = &spool->reads_waiting;
    spool_copy_init(spool);
    spool_scrub_init(spool);
    slab_init(&spool->entries, sizeof(struct spool_entry), UINT32_MAX, spool);
    arena_init(&spool->scratch, SPOOL_SCRATCH_BLOCK, SPOOL_SCRATCH_MAX);
    enum err err = spool_segment_create_first(spool);
    if (err != ERR_OK) {
        spool_segments_free(spool);
        arena_fini(&spool->scratch);
        free(spool);
        return err;
    }
    spool_segments_maintain(spool);
    *ret_spool = spool;
    return ERR_OK;
}

static void spool_free_entries(struct spool *spool)
{
    for (uint32_t i = 0; i < spool->segment_count; i++) {
        while (spool->segments[i]->entries != NULL)
            spool_entry_end(spool, spool->segments[i]->entries);
    }
}

void spool_free(struct spool *spool)
{
    while (spool->transactions != NULL)
        spool_abort(spool, spool->transactions);
    spool_copy_fini(spool);
    free(spool->scrub.block);
    spool_reads_free(spool);
    spool_batches_free(spool);
    spool_free_entries(spool);
    for (; spool->event_count > 0; spool->event_count--) {
        buf_queue_fini(&spool->events[spool->event_head].octets);
        spool->event_head = (spool->event_head + 1) % spool->event_capacity;
    }
    spool_segments_free(spool);
    slab_fini(&spool->entries);
    arena_fini(&spool->scratch);
    free(spool->events);
    free(spool);
}

/* ---- a message on its way in ---- */

static bool spool_has_failed(const struct spool *spool)
{
    return spool->failures_in_row > 1;
}

enum err spool_refusal(const struct spool *spool)
{
    if (spool_has_failed(spool))
        return ERR_DISK_IO;
    if (spool->transaction_count >= SPOOL_TRANSACTION_MAX)
        return ERR_LIMIT;
    return spool->stats.is_full ? ERR_DISK_FULL : ERR_OK;
}

struct spool_transaction *spool_begin(struct spool *spool, struct message_id id, uint64_t size_hint,
                                      bool with_reserve)
{
    spool->stats.is_full = !spool_has_room(spool, size_hint, with_reserve);
    if (spool_refusal(spool) != ERR_OK)
        return NULL;
    struct spool_transaction *transaction = malloc(sizeof(*transaction));
    CHECK(transaction != NULL);
    *transaction = (struct spool_transaction){0};
    transaction->entry = spool_entry_new(spool, id);
    transaction->promised = spool_promise(size_hint);
    transaction->with_reserve = with_reserve;
    spool->promised += transaction->promised;
    buf_queue_init(&transaction->tail);
    transaction->next = spool->transactions;
    if (transaction->next != NULL)
        transaction->next->prev = transaction;
    spool->transactions = transaction;
    spool->transaction_count++;
    spool->is_flushing = false;
    return transaction;
}

/* Cut the next BODY record off the tail. */
static void transaction_cut(struct spool *spool, struct spool_transaction *transaction)
{
    struct spool_entry *entry = transaction->entry;
    struct spool_item *item = spool_item_new(spool, SPOOL_BODY, entry);
    struct buf_queue *tail = &transaction->tail;
    while (tail->count > 0 && item->body.size < spool->part_size_max &&
           item->body.count < SPOOL_PART_SLICES_MAX) {
        const struct buf_slice *slice = buf_queue_get(tail, 0);
        uint64_t room = spool->part_size_max - item->body.size;
        uint32_t size = slice->size < room ? slice->size : (uint32_t)room;
        buf_queue_append(&item->body, slice->buf, slice->offset, size);
        buf_queue_drop(tail, size);
    }
    item->record.payload_size = (uint32_t)item->body.size;
    item->record.part = entry->part_count++;
    entry->unwritten += item->body.size;
    spool_item_queue(spool, item);
}

static void transaction_consume_promise(struct spool *spool, struct spool_transaction *transaction,
                                        uint64_t size)
{
    uint64_t used = size < transaction->promised ? size : transaction->promised;
    transaction->promised -= used;
    spool->promised -= used;
}

enum err spool_write_body(struct spool *spool, struct spool_transaction *transaction,
                          struct buf_queue *octets)
{
    uint64_t size = octets->size;
    if (size > transaction->promised && !spool_has_room(spool, size, transaction->with_reserve))
        return ERR_DISK_FULL;
    if (transaction->entry->part_count + size / spool->part_size_max + 2 > SPOOL_EXTENT_COUNT_MAX)
        return ERR_LIMIT;
    transaction_consume_promise(spool, transaction, size);
    buf_queue_move(&transaction->tail, octets);
    while (transaction->tail.size >= spool->part_size_max ||
           transaction->tail.count >= SPOOL_PART_SLICES_MAX)
        transaction_cut(spool, transaction);
    return ERR_OK;
}

void spool_relieve(struct spool *spool)
{
    for (struct spool_transaction *transaction = spool->transactions; transaction != NULL;
         transaction = transaction->next) {
        /* Half of the parts that a message may have are for those of full size. */
        if (transaction->tail.size >= SPOOL_PART_SIZE_MIN &&
            transaction->entry->part_count < SPOOL_EXTENT_COUNT_MAX / 2)
            transaction_cut(spool, transaction);
    }
}

uint64_t spool_unwritten(const struct spool_transaction *transaction)
{
    return transaction->tail.size + transaction->entry->unwritten;
}

static void transaction_free(struct spool *spool, struct spool_transaction *transaction)
{
    transaction_consume_promise(spool, transaction, transaction->promised);
    if (transaction->prev != NULL)
        transaction->prev->next = transaction->next;
    else
        spool->transactions = transaction->next;
    if (transaction->next != NULL)
        transaction->next->prev = transaction->prev;
    spool->transaction_count--;
    buf_queue_fini(&transaction->tail);
    free(transaction);
}

void spool_commit(struct spool *spool, struct spool_transaction *transaction, struct span envelope,
                  uint64_t token)
{
    struct spool_entry *entry = transaction->entry;
    CHECK(entry->state == SPOOL_ENTRY_BUILDING && envelope.size <= ENVELOPE_SIZE_MAX);
    while (transaction->tail.size > 0)
        transaction_cut(spool, transaction);
    transaction_free(spool, transaction);
    entry->state = SPOOL_ENTRY_COMMITTING;

    struct spool_item *item = spool_item_new(spool, SPOOL_MESSAGE, entry);
    uint32_t size = spool_message_size(entry->part_count, envelope.size);
    item->token = token;
    item->envelope_size = envelope.size;
    item->block_size = item->record.payload_size = size;
    item->block = malloc(size);
    CHECK(item->block != NULL);
    memcpy(item->block + size - envelope.size, envelope.data, envelope.size);
    uint64_t segment_room = spool->options.segment_size - 4 * (uint64_t)SPOOL_BLOCK_SIZE;
    if (size > SPOOL_PAYLOAD_SIZE_MAX || size + sizeof(item->record) > segment_room) {
        spool_commit_refuse(spool, item, ERR_LIMIT);
        spool_item_free(spool, item);
        return;
    }
    spool_item_describe(spool, item, envelope);
    spool_item_queue(spool, item);
}

static struct spool_item *item_progress(struct spool *spool, struct spool_entry *entry,
                                        struct span progress)
{
    struct spool_item *item = spool_item_new(spool, SPOOL_PROGRESS, entry);
    item->block_size = item->record.payload_size = progress.size;
    item->block = malloc(progress.size + 1); /* never NULL, also when empty */
    CHECK(item->block != NULL);
    if (progress.size > 0)
        memcpy(item->block, progress.data, progress.size);
    return item;
}

/* What rides with the commit of `leader`, which was referenced for it before that could fail. */
static void rider_queue(struct spool *spool, struct spool_item *rider, struct spool_entry *leader)
{
    rider->leader = leader;
    spool_item_queue(spool, rider);
}

void spool_commit_progress(struct spool *spool, struct spool_transaction *transaction,
                           struct span envelope, struct span progress, uint64_t token)
{
    struct spool_entry *leader = transaction->entry;

    spool_entry_reference(leader);
    spool_commit(spool, transaction, envelope, token);
    if (progress.size == 0 || leader->state == SPOOL_ENTRY_GONE) { /* nothing to say; refused */
        spool_entry_release(spool, leader);
        return;
    }
    rider_queue(spool, item_progress(spool, leader, progress), leader);
}

void spool_commit_dsn(struct spool *spool, struct spool_transaction *transaction,
                      struct span envelope, struct spool_entry *about, struct span progress,
                      bool is_done, uint64_t token)
{
    CHECK(about->state == SPOOL_ENTRY_LIVE);
    struct spool_entry *leader = transaction->entry;
    if (SPOOL_HAS_BUG(DSN_AFTER_SETTLE) && is_done) {
        about->state = SPOOL_ENTRY_FINISHING;
        spool_item_queue(spool, spool_item_new(spool, SPOOL_DONE, about));
        spool_commit(spool, transaction, envelope, token);
        return;
    }
    spool_entry_reference(leader); /* the rider's, from before the leader may fail */
    spool_commit(spool, transaction, envelope, token);
    if (leader->state == SPOOL_ENTRY_GONE) { /* refused at once */
        spool_entry_release(spool, leader);
        return;
    }
    struct spool_item *rider;
    if (is_done) {
        rider = spool_item_new(spool, SPOOL_DONE, about);
        about->state = SPOOL_ENTRY_FINISHING;
    } else {
        rider = item_progress(spool, about, progress);
    }
    rider_queue(spool, rider, leader);
}

void spool_abort(struct spool *spool, struct spool_transaction *transaction)
{
    struct spool_entry *entry = transaction->entry;
    CHECK(entry->state == SPOOL_ENTRY_BUILDING);
    transaction_free(spool, transaction);
    spool_entry_end(spool, entry);
}

/* ---- a message on its way out ---- */

void spool_progress(struct spool *spool, struct spool_entry *entry, struct span progress)
{
    CHECK(entry->state == SPOOL_ENTRY_LIVE && progress.size <= ENVELOPE_SIZE_MAX);
    struct spool_item *item = item_progress(spool, entry, progress);
    item->is_lazy = true;
    item->retry = spool_progress_retry(progress);
    spool_item_queue(spool, item);
}

void spool_done(struct spool *spool, struct spool_entry *entry)
{
    CHECK(entry->state == SPOOL_ENTRY_LIVE);
    entry->state = SPOOL_ENTRY_FINISHING;
    struct spool_item *item = spool_item_new(spool, SPOOL_DONE, entry);
    item->is_lazy = true;
    spool_item_queue(spool, item);
}

/* ---- the turn ---- */

static void spool_complete(struct spool *spool, const struct disk_completion *completion)
{
    struct spool_io *io = (struct spool_io *)(uintptr_t)completion->token;
    switch (io->kind) {
    case SPOOL_IO_BATCH:
        spool_batch_completed(spool, io->owner, completion->err);
        break;
    case SPOOL_IO_SEGMENT:
        spool_segment_completed(spool, io->owner, completion->err);
        break;
    case SPOOL_IO_READ:
        spool_read_completed(spool, io->owner, completion->err, completion->size);
        break;
    case SPOOL_IO_COPY:
        spool_copy_completed(spool, io->owner, completion->err, completion->size);
        break;
    case SPOOL_IO_SCRUB:
        spool_scrub_completed(spool, completion->err, completion->size);
        break;
    }
}

static void spool_reap(struct spool *spool)
{
    struct disk_completion completions[SPOOL_REAP_MAX] UNINITIALIZED;
    uint32_t count = disk_poll(spool->disk, completions, SPOOL_REAP_MAX);
    for (uint32_t i = 0; i < count; i++)
        spool_complete(spool, &completions[i]);
}

uint32_t spool_poll(struct spool *spool, struct tick_now now, struct spool_event *ret_events,
                    uint32_t max)
{
    spool->now = now;
    spool_reap(spool);
    spool_batch_expire(spool);
    spool_segments_maintain(spool);
    spool_copy_advance(spool);
    spool_batch_start(spool);
    spool_reads_start(spool);
    spool_scrub_advance(spool);
    uint32_t count = 0;
    for (; count < max && spool->event_count > 0; count++) {
        ret_events[count] = spool->events[spool->event_head];
        spool->event_head = (spool->event_head + 1) % spool->event_capacity;
        spool->event_count--;
    }
    return count;
}

tick_us spool_deadline(const struct spool *spool)
{
    /* A read that was asked for after this turn's poll is submitted by the next. */
    bool has_reads = spool->reads_waiting != NULL && spool->reads_running < SPOOL_READS_MAX;

    if (spool->event_count > 0 || has_reads)
        return spool->now.tick;
    tick_us deadline = spool_batch_deadline(spool), scrub = spool_scrub_deadline(spool);
    tick_us victim = spool_victim_deadline(spool);
    deadline = deadline < scrub ? deadline : scrub;
    return deadline < victim ? deadline : victim;
}

bool spool_is_idle(const struct spool *spool)
{
    return spool->pending.first == NULL && spool->flight == NULL && spool->late == NULL &&
           spool->operations == 0 && spool->reads_running == 0 && spool->reads_waiting == NULL &&
           spool->copier.reading == 0 && !spool->scrub.is_reading && spool->event_count == 0;
}

void spool_flush(struct spool *spool)
{
    spool->is_flushing = true;
}

struct spool_stats spool_get_stats(const struct spool *spool)
{
    struct spool_stats stats = spool->stats;
    stats.octets_used = spool->census.octets;
    stats.octets_max = spool->options.size_max;
    stats.is_failed = spool_has_failed(spool);
    stats.is_stuck = spool->is_stuck;
    return stats;
}

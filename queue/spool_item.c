/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records on their way to the disk: made, queued, placed, sealed, gathered; written again, voided.
 *
 * An item is one record with its payload: slices of buffers for a BODY, a block on the heap for
 * everything else. It keeps its message in memory by a reference.
 *
 * Invariants
 *   1. Epoch and sequence are given when the record is made and never change, whatever becomes of
 *      it.
 *   2. Where a BODY is becomes known when it is placed; the extents of a MESSAGE are filled in
 *      after that, since it stands behind its BODY records.
 *   3. A VOID names the record it kills by id, epoch and sequence, and its segment refers to the
 *      one with that record.
 *
 * Not here: which items make a batch, and what becomes of the batch (spool_batch.c).
 */
#include <stdlib.h>

#include "queue/crc32c.h"
#include "queue/envelope_index.h"
#include "queue/spool_internal.h"

void spool_list_init(struct spool_item_list *list)
{
    list->first = NULL;
    list->end = &list->first;
    list->count = 0;
}

void spool_list_append(struct spool_item_list *list, struct spool_item *item)
{
    item->next = NULL;
    *list->end = item;
    list->end = &item->next;
    list->count++;
}

struct spool_item *spool_list_take(struct spool_item_list *list)
{
    struct spool_item *item = list->first;
    if (item == NULL)
        return NULL;
    list->first = item->next;
    if (list->first == NULL)
        list->end = &list->first;
    list->count--;
    return item;
}

/* Move all of `front` before all of `list`. */
void spool_list_prepend(struct spool_item_list *list, struct spool_item_list *front)
{
    if (front->first == NULL)
        return;
    *front->end = list->first;
    if (list->first == NULL)
        list->end = front->end;
    list->first = front->first;
    list->count += front->count;
    spool_list_init(front);
}

struct spool_item *spool_item_new(struct spool *spool, enum spool_record_type type,
                                  struct spool_entry *entry)
{
    struct spool_item *item = spool->items_free;
    if (item != NULL)
        spool->items_free = item->next;
    else
        item = malloc(sizeof(*item));
    CHECK(item != NULL);
    *item = (struct spool_item){.entry = entry, .queued_at = spool->now.tick};
    buf_queue_init(&item->body);
    item->record.type = (uint8_t)type;
    item->record.epoch = (uint32_t)spool->options.epoch;
    item->record.sequence = ++spool->sequence;
    if (entry != NULL) {
        item->record.id = entry->id;
        spool_entry_reference(entry);
    }
    spool->items_outstanding++;
    return item;
}

void spool_item_free(struct spool *spool, struct spool_item *item)
{
    buf_queue_fini(&item->body);
    free(item->block);
    free(item->detail);
    if (item->entry != NULL)
        spool_entry_release(spool, item->entry);
    if (item->leader != NULL)
        spool_entry_release(spool, item->leader);
    spool->items_outstanding--;
    item->next = spool->items_free;
    spool->items_free = item;
}

void spool_item_queue(struct spool *spool, struct spool_item *item)
{
    spool_list_append(&spool->pending, item);
    spool->pending_octets += item->record.payload_size;
    spool->lazy_count += item->is_lazy;
    spool->copy_count += item->copy != NULL;
    if (item->is_lazy && spool->lazy_due == TICK_NEVER)
        spool->lazy_due = spool->now.tick + spool->options.lazy_time;
}

uint32_t spool_item_pieces(const struct spool_item *item)
{
    return 1 + (item->block != NULL ? 1 : item->body.count);
}

/* A record that is not to be written any more: its message is gone, or its commit has failed. */
bool spool_item_is_moot(const struct spool_item *item)
{
    const struct spool_entry *entry = item->entry;
    if (entry == NULL)
        return false;
    if (item->copy != NULL)
        return entry->state != SPOOL_ENTRY_LIVE || item->copy->is_failed;
    if (item->leader != NULL && item->leader->state == SPOOL_ENTRY_GONE &&
        item->leader->err != ERR_OK)
        return true;
    return entry->state == SPOOL_ENTRY_GONE ||
           (item->record.type == SPOOL_MESSAGE && entry->err != ERR_OK);
}

void spool_item_drop(struct spool *spool, struct spool_item *item)
{
    if (item->copy != NULL)
        spool_copy_lost(spool, item);
    else if (item->record.type == SPOOL_MESSAGE && item->entry->state != SPOOL_ENTRY_GONE)
        spool_commit_refuse(spool, item, (enum err)item->entry->err);
    spool_item_free(spool, item);
}

static uint32_t item_extents_size(const struct spool_item *item)
{
    return item->block_size - item->envelope_size;
}

void spool_item_describe(struct spool *spool, struct spool_item *item, struct span envelope)
{
    uint8_t index[ENVELOPE_INDEX_SIZE_MAX] UNINITIALIZED;
    uint32_t extents_size = item_extents_size(item);

    CHECK(item->record.type == SPOOL_MESSAGE && item->detail == NULL);
    if (extents_size > SPOOL_DETAIL_SIZE_MAX - sizeof(index))
        return;
    arena_reset(&spool->scratch);
    uint32_t size = envelope_index_make(envelope, &spool->scratch, index);
    item->detail_size = extents_size + size;
    item->detail = malloc(item->detail_size);
    CHECK(item->detail != NULL);
    memcpy(item->detail + extents_size, index, size);
}

struct span spool_item_detail(const struct spool_item *item)
{
    if (item->detail != NULL)
        return span_of(item->detail, item->detail_size);
    if (item->record.type == SPOOL_PROGRESS && item->block_size <= SPOOL_DETAIL_SIZE_MAX)
        return span_of(item->block, item->block_size);
    return (struct span){0};
}

/* The extents in front of a MESSAGE's envelope: where its BODY records are, known only now. */
static void item_encode_extents(struct spool *spool, struct spool_item *item)
{
    const struct spool_entry *entry = item->entry;
    uint32_t count = entry->body_count;
    struct spool_message message = {
        .extent_count = count,
        .envelope_size = item->envelope_size,
        .body_size = spool_entry_body_size(entry),
    };
    CHECK(item->block_size == spool_message_size(count, item->envelope_size));
    memcpy(item->block, &message, sizeof(message));
    for (uint32_t i = 0; i < count; i++) {
        struct spool_place body =
            item->copy != NULL ? item->copy->bodies[i] : spool_entry_place(spool, entry, i);
        CHECK((body.is_held || item->copy != NULL) && spool_place_is_current(spool, &body));
        struct spool_body_extent extent = {
            .salt = spool->segments[body.segment]->salt,
            .offset = body.offset,
            .size = body.payload_size,
        };
        memcpy(item->block + sizeof(message) + i * sizeof(extent), &extent, sizeof(extent));
    }
    if (item->detail != NULL)
        memcpy(item->detail, item->block, item_extents_size(item));
}

/* A DONE in `segment` outlives every MESSAGE record of its message. */
static void item_refer(struct spool *spool, struct spool_segment *segment,
                       const struct spool_entry *entry)
{
    struct spool_place place = spool_entry_message(spool, entry);

    spool_segment_refer(spool, segment, &place);
    for (uint32_t i = entry->body_count; i < entry->place_count; i++) {
        place = spool_entry_place(spool, entry, i);
        if (place.kind == SPOOL_PLACE_OLD)
            spool_segment_refer(spool, segment, &place);
    }
}

/* Tell the message where its record is going to be. */
void spool_item_place(struct spool *spool, struct spool_segment *segment, struct spool_item *item)
{
    struct spool_entry *entry = item->entry;
    struct spool_place place = {
        .serial = segment->serial,
        .segment = segment->index,
        .offset = item->offset,
        .payload_size = item->record.payload_size,
    };
    if (item->copy != NULL) {
        if (item->record.type == SPOOL_MESSAGE)
            item_encode_extents(spool, item);
        spool_copy_placed(spool, item, place);
        return;
    }
    switch ((enum spool_record_type)item->record.type) {
    case SPOOL_BODY:
        place.kind = SPOOL_PLACE_BODY;
        spool_hold(spool, &place);
        spool_entry_add_place(entry, &place);
        entry->body_count++;
        entry->unwritten -= item->record.payload_size;
        break;
    case SPOOL_MESSAGE:
        item_encode_extents(spool, item);
        place.kind = SPOOL_PLACE_MESSAGE;
        spool_hold(spool, &place);
        spool_entry_set_message(entry, &place);
        break;
    case SPOOL_PROGRESS:
        place.kind = SPOOL_PLACE_PROGRESS;
        place.retry = item->retry;
        spool_hold(spool, &place);
        spool_entry_add_place(entry, &place);
        break;
    case SPOOL_DONE:
        item_refer(spool, segment, entry);
        break;
    case SPOOL_VOID: /* the lost record is in a retired segment: this one stays as long as that */
        spool_segment_refer(spool, segment, &item->source);
        break;
    case SPOOL_RECORD_TYPE_END:
        break;
    }
}

void spool_item_seal(struct spool_item *item)
{
    uint32_t checksum = 0;
    if (item->block != NULL)
        checksum = crc32c_update(0, span_of(item->block, item->record.payload_size));
    for (uint32_t i = 0; i < item->body.count; i++)
        checksum = crc32c_update(checksum, buf_slice_span(buf_queue_get(&item->body, i)));
    item->record.payload_checksum = checksum;
    spool_record_seal(&item->record);
}

/* Pieces of memory for the write; `padding` zeros stand before the header. */
uint32_t spool_item_gather(struct spool_item *item, uint32_t padding, struct iovec *ret_vector)
{
    uint32_t count = 0;
    ret_vector[count++] =
        (struct iovec){(uint8_t *)&item->record - padding, sizeof(item->record) + padding};
    if (item->block != NULL && item->record.payload_size > 0)
        ret_vector[count++] = (struct iovec){item->block, item->record.payload_size};
    for (uint32_t i = 0; i < item->body.count; i++) {
        struct span octets = buf_slice_span(buf_queue_get(&item->body, i));
        ret_vector[count++] = (struct iovec){(void *)(uintptr_t)octets.data, octets.size};
    }
    return count;
}

/* The same record once more: the lost one still belongs to the disk. */
struct spool_item *spool_item_again(struct spool *spool, const struct spool_item *lost)
{
    struct spool_item *item =
        spool_item_new(spool, (enum spool_record_type)lost->record.type, lost->entry);
    item->record.id = lost->record.id;
    item->record.epoch = lost->record.epoch;
    item->record.sequence = lost->record.sequence;
    item->record.copy = lost->record.copy;
    item->record.payload_size = lost->record.payload_size;
    item->failure = lost->failure;
    item->retry = lost->retry;
    item->source = lost->source;
    item->block_size = lost->block_size;
    if (lost->block_size > 0) {
        item->block = malloc(lost->block_size);
        CHECK(item->block != NULL);
        memcpy(item->block, lost->block, lost->block_size);
    }
    return item;
}

/* VOID names the record that it kills by id, epoch and sequence. */
struct spool_item *spool_item_void(struct spool *spool, const struct spool_segment *segment,
                                   const struct spool_item *lost, struct spool_failure *failure)
{
    struct spool_item *item = spool_item_new(spool, SPOOL_VOID, NULL);
    item->record.id = lost->record.id;
    item->record.epoch = lost->record.epoch;
    item->record.sequence = lost->record.sequence;
    item->source = (struct spool_place){
        .serial = segment->serial,
        .segment = segment->index,
    };
    item->failure = failure;
    failure->voids_left++;
    spool->stats.voids++;
    return item;
}

void spool_list_free(struct spool *spool, struct spool_item_list *list)
{
    for (struct spool_item *item = spool_list_take(list); item != NULL;
         item = spool_list_take(list)) {
        /* Only at the end of the spool is there still a commit without an outcome. */
        if (item->record.type == SPOOL_MESSAGE && item->entry->state == SPOOL_ENTRY_COMMITTING)
            spool_entry_end(spool, item->entry);
        spool_item_free(spool, item);
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying messages forward, so that their old segments can be used again.
 *
 * The live messages of a victim (spool_victim.c) are read and written again, as they are, to the
 * end of the log. A message that is damaged is copied likewise, and what cannot be read is taken
 * from memory.
 *
 * SPOOL_COPIES_MAX messages at a time, each one record at a time; the copies travel in ordinary
 * batches. As long as some record is being read, those that were wait for it: a batch fills up
 * blocks, and one for each small message would take several times the room that it frees.
 *
 * Invariants
 *   1. A copy keeps id, epoch and sequence and counts `copy` up: recovery takes the highest, and a
 *      DONE kills all.
 *   2. The old records are let go only when MESSAGE copy and BODY copies are durable.
 *   3. While a copy of MESSAGE may be on the disk, durable or not, the entry knows its place as
 *      OLD: the segment with its DONE will outlive it.
 *   4. A message that finishes meanwhile is not copied further: DONE never comes before a copy.
 *   5. A message is copied once at a time (entry->is_copied).
 *
 * Edges: copy_begin() -> copy_read() -> spool_copy_completed() -> ... -> copy_finish()
 * Limits: COPY_ITEMS_MAX records of a message and SPOOL_COPY_OCTETS_MAX of all that are being read
 * or wait to be written, and one more.
 */
#include <stdlib.h>

#include "queue/spool_internal.h"

#define COPY_ITEMS_MAX 8u

/* Of an OLD place only the segment is kept. */
static bool place_is_equal(const struct spool_place *a, const struct spool_place *b)
{
    return a->segment == b->segment && a->serial == b->serial &&
           (a->kind == SPOOL_PLACE_OLD || a->offset == b->offset);
}

static bool place_is_in(const struct spool_place *place, const struct spool_segment *segment)
{
    return place->segment == segment->index && place->serial == segment->serial;
}

/* ---- one message ---- */

static void copy_begin(struct spool *spool, struct spool_copy *copy, struct spool_entry *entry)
{
    CHECK(copy->entry == NULL && !entry->is_copied);
    spool_entry_reference(entry);
    entry->is_copied = true;
    copy->entry = entry;
    spool->copier.running++;
    copy->victim = spool->copier.victim;
    copy->is_failed = copy->is_message_durable = false;
    copy->bodies_placed = 0;
    copy->message = (struct spool_place){0};
    struct spool_place place = spool_entry_message(spool, entry);
    copy->is_message_moved = copy->repair != NULL || place_is_in(&place, copy->victim);
    for (uint32_t i = 0; !copy->is_message_moved && i < entry->body_count; i++) {
        place = spool_entry_place(spool, entry, i);
        copy->is_message_moved = place_is_in(&place, copy->victim);
    }
    copy->step = copy->is_message_moved ? 0 : entry->body_count + 1;
    copy->bodies = calloc(entry->body_count + 1, sizeof(*copy->bodies));
    CHECK(copy->bodies != NULL);
}

static void repair_free(struct spool *spool, struct spool_repair *repair)
{
    spool_entry_release(spool, repair->entry);
    buf_queue_fini(&repair->body);
    free(repair);
}

static void copy_finish(struct spool *spool, struct spool_copy *copy)
{
    CHECK(copy->items_queued == 0 && !copy->is_reading);
    if (!copy->is_message_durable) {
        for (uint32_t i = 0; i < copy->entry->body_count; i++) {
            if (copy->bodies[i].is_held)
                spool_unhold(spool, &copy->bodies[i]);
        }
        if (copy->message.is_held)
            spool_unhold(spool, &copy->message);
    }
    free(copy->bodies);
    copy->bodies = NULL;
    copy->entry->is_copied = false;
    spool_entry_release(spool, copy->entry);
    copy->entry = NULL;
    spool->copier.running--;
    if (copy->repair != NULL)
        repair_free(spool, copy->repair);
    copy->repair = NULL;
}

/* Choose the record of the next step. False when there is none left. BODY records that are not in
 * the victim stay where they are. */
static bool copy_choose(const struct spool *spool, struct spool_copy *copy)
{
    const struct spool_entry *entry = copy->entry;
    for (; copy->step <= entry->place_count; copy->step++) {
        if (copy->step == entry->body_count) {
            copy->source = spool_entry_message(spool, entry);
            return true;
        }
        bool is_body = copy->step < entry->body_count;
        copy->source = spool_entry_place(spool, entry, is_body ? copy->step : copy->step - 1);
        bool is_moved = copy->repair != NULL || place_is_in(&copy->source, copy->victim);
        if (is_body ? is_moved
                    : copy->repair == NULL && copy->source.kind == SPOOL_PLACE_PROGRESS && is_moved)
            return true;
        if (is_body) {
            copy->bodies[copy->step] = copy->source;
            copy->bodies[copy->step].is_held = false; /* not by the copier */
            copy->bodies_placed++;
        }
    }
    return false;
}

static void copy_read(struct spool *spool, struct spool_copy *copy)
{
    copy->block = malloc(sizeof(struct spool_record) + copy->source.payload_size);
    CHECK(copy->block != NULL);
    copy->salt = spool->segments[copy->source.segment]->salt;
    copy->is_reading = true;
    spool->copier.reading++;
    spool->copier.octets += copy->source.payload_size;
    spool_segment_read(spool, &copy->source, copy->block, &copy->io);
}

/* Queue a copy of the record at copy->source, whose header, if it is known, is `record`. */
static void copy_queue_item(struct spool *spool, struct spool_copy *copy,
                            const struct spool_record *record, struct span payload,
                            uint32_t envelope_size)
{
    bool is_body = copy->step < copy->entry->body_count;
    enum spool_record_type type = record != NULL ? (enum spool_record_type)record->type
                                  : is_body      ? SPOOL_BODY
                                                 : SPOOL_MESSAGE;
    struct spool_item *item = spool_item_new(spool, type, copy->entry);

    item->copy = copy;
    item->source = copy->source;
    item->envelope_size = envelope_size;
    item->block_size = item->record.payload_size = payload.size;
    item->block = malloc(payload.size + 1);
    CHECK(item->block != NULL);
    if (payload.size > 0)
        memcpy(item->block, payload.data, payload.size);
    if (record != NULL) {
        item->record.part = record->part;
        item->record.epoch = record->epoch;
        item->record.sequence = record->sequence;
        item->record.copy = record->copy + 1;
    } else if (type == SPOOL_BODY) {
        item->record.part = copy->step;
    }
    if (type == SPOOL_MESSAGE)
        spool_item_describe(spool, item, span_skip(payload, payload.size - envelope_size));
    copy->items_queued++;
    copy->step++;
    spool_item_queue(spool, item);
}

/* A record was read: queue its copy. Errors: ERR_DISK_CORRUPT, nothing was queued. */
static enum err copy_queue(struct spool *spool, struct spool_copy *copy, struct span octets)
{
    struct spool_record record;
    TRY(spool_record_open(octets, copy->salt, &record));
    if (octets.size != sizeof(record) + record.payload_size ||
        record.payload_size != copy->source.payload_size ||
        (record.type == SPOOL_BODY && record.part != copy->step) ||
        !message_id_is_equal(record.id, copy->entry->id))
        return ERR_DISK_CORRUPT;
    struct span payload = span_skip(octets, (uint32_t)sizeof(record));
    if (!spool_payload_is_valid(&record, payload))
        return ERR_DISK_CORRUPT;
    struct spool_message message = {0};
    struct span extents, envelope;
    if (record.type == SPOOL_MESSAGE)
        TRY(spool_message_open(payload, &message, &extents, &envelope));
    copy_queue_item(spool, copy, &record, payload, message.envelope_size);
    return ERR_OK;
}

/* Part number `part` of the body that memory has. */
static void repair_body(const struct spool_copy *copy, uint32_t part, uint8_t *ret_data)
{
    uint64_t skip = 0;
    uint32_t left = spool_entry_payload_size(copy->entry, part);

    for (uint32_t i = 0; i < part; i++)
        skip += spool_entry_payload_size(copy->entry, i);
    for (uint32_t i = 0; i < copy->repair->body.count && left > 0; i++) {
        struct span octets = buf_slice_span(buf_queue_get(&copy->repair->body, i));
        uint32_t passed = skip < octets.size ? (uint32_t)skip : octets.size;
        octets = span_skip(octets, passed);
        octets = span_head(octets, octets.size < left ? octets.size : left);
        skip -= passed;
        if (octets.size > 0)
            memcpy(ret_data, octets.data, octets.size);
        ret_data += octets.size;
        left -= octets.size;
    }
    CHECK(left == 0);
}

/* The record at copy->source cannot be read: take it from memory. A MESSAGE whose header is lost
 * becomes newer than its PROGRESS, which its envelope has taken in. False: memory has it not. */
static bool copy_queue_repair(struct spool *spool, struct spool_copy *copy, struct span octets)
{
    const struct spool_repair *repair = copy->repair;
    bool is_body = copy->step < copy->entry->body_count;
    struct spool_record record;

    if (repair == NULL || (is_body ? repair->body.size != spool_entry_body_size(copy->entry)
                                   : repair->envelope_size == 0))
        return false;
    uint32_t size = is_body ? copy->source.payload_size
                            : spool_message_size(copy->entry->body_count, repair->envelope_size);
    uint8_t *block = malloc(size + 1);
    CHECK(block != NULL);
    if (is_body)
        repair_body(copy, copy->step, block);
    else
        memcpy(block + size - repair->envelope_size, repair->envelope, repair->envelope_size);
    bool has_header = spool_record_open(octets, copy->salt, &record) == ERR_OK &&
                      message_id_is_equal(record.id, copy->entry->id);
    copy_queue_item(spool, copy, has_header ? &record : NULL, span_of(block, size),
                    is_body ? 0 : repair->envelope_size);
    free(block);
    return true;
}

/* The record at copy->source is not what it was: the queue mends or ends the message. */
static void copy_tell_damage(struct spool *spool, const struct spool_copy *copy)
{
    struct spool_event *event = spool_event_add(spool, SPOOL_EVENT_DAMAGED, ERR_DISK_CORRUPT, 0);

    event->id = copy->entry->id;
    event->damage = copy->step < copy->entry->body_count    ? SPOOL_DAMAGE_BODY
                    : copy->step == copy->entry->body_count ? SPOOL_DAMAGE_ENVELOPE
                                                            : SPOOL_DAMAGE_PROGRESS;
    spool->stats.damaged_messages++;
}

void spool_copy_completed(struct spool *spool, struct spool_copy *copy, enum err err, uint32_t size)
{
    CHECK(copy->is_reading && spool->copier.reading > 0);
    copy->is_reading = false;
    spool->copier.reading--;
    spool_segment_read_end(spool, &copy->source);
    struct span octets = span_of(copy->block, err == ERR_OK ? size : 0);
    bool is_wanted = copy->entry->state == SPOOL_ENTRY_LIVE && !copy->is_failed;
    if (err == ERR_OK && is_wanted)
        err = copy_queue(spool, copy, octets);
    if (err != ERR_OK && is_wanted && copy_queue_repair(spool, copy, octets))
        err = ERR_OK;
    if (err != ERR_OK || !is_wanted)
        spool->copier.octets -= copy->source.payload_size; /* no item came of it */
    if (err != ERR_OK) {
        copy->is_failed = true;
        copy->entry->is_copy_refused = true;
        if (err == ERR_DISK_CORRUPT && copy->repair == NULL)
            copy_tell_damage(spool, copy);
    }
    free(copy->block);
    copy->block = NULL;
}

/* ---- what becomes of the copies ---- */

void spool_copy_placed(struct spool *spool, struct spool_item *item, struct spool_place place)
{
    struct spool_copy *copy = item->copy;
    CHECK(copy->entry == item->entry && item->entry->state == SPOOL_ENTRY_LIVE);
    if (item->record.type == SPOOL_BODY) {
        place.kind = SPOOL_PLACE_BODY;
        spool_hold(spool, &place);
        CHECK(item->record.part < item->entry->body_count);
        copy->bodies[item->record.part] = place;
        copy->bodies_placed++;
    } else if (item->record.type == SPOOL_MESSAGE) {
        place.kind = SPOOL_PLACE_OLD; /* invariant 3 */
        spool_entry_add_place(item->entry, &place);
        place.kind = SPOOL_PLACE_MESSAGE;
        spool_hold(spool, &place);
        copy->message = place;
    } else {
        place.kind = SPOOL_PLACE_PROGRESS;
        spool_hold(spool, &place);
        item->target = place;
    }
}

/* Number of the place of this kind there. */
static bool entry_find(const struct spool *spool, const struct spool_entry *entry,
                       enum spool_place_kind kind, const struct spool_place *place,
                       uint32_t *ret_index)
{
    for (uint32_t i = entry->body_count; i < entry->place_count; i++) {
        struct spool_place other = spool_entry_place(spool, entry, i);
        *ret_index = i;
        if (other.kind == kind && place_is_equal(&other, place))
            return true;
    }
    return false;
}

/* Invariant 2: from now on the message is where its copy is. */
static void copy_message_durable(struct spool *spool, const struct spool_item *item)
{
    struct spool_copy *copy = item->copy;
    struct spool_entry *entry = item->entry;
    CHECK(copy->bodies_placed == entry->body_count);
    for (uint32_t i = 0; i < entry->body_count; i++) {
        struct spool_place body = spool_entry_place(spool, entry, i);
        if (!copy->bodies[i].is_held)
            continue; /* it stayed */
        spool_unhold(spool, &body);
        spool_entry_set_place(entry, i, &copy->bodies[i]);
    }
    struct spool_place old = spool_entry_message(spool, entry);
    spool_unhold(spool, &old);
    old.kind = SPOOL_PLACE_OLD;
    uint32_t index;
    bool is_found = entry_find(spool, entry, SPOOL_PLACE_OLD, &copy->message, &index);
    CHECK(is_found);
    spool_entry_set_place(entry, index, &old);
    spool_entry_set_message(entry, &copy->message);
    copy->is_message_durable = true;
    spool->stats.copied_messages++;
    spool->stats.repaired_messages += copy->repair != NULL;
}

static void copy_progress_durable(struct spool *spool, const struct spool_item *item)
{
    struct spool_place target = item->target;
    uint32_t index;

    if (!entry_find(spool, item->entry, SPOOL_PLACE_PROGRESS, &item->source, &index)) {
        spool_unhold(spool, &target); /* a newer one took its place meanwhile */
        return;
    }
    struct spool_place place = spool_entry_place(spool, item->entry, index);
    target.retry = place.retry;
    spool_unhold(spool, &place);
    spool_entry_set_place(item->entry, index, &target);
}

/* The item is durable, or lost. */
static void copy_item_end(struct spool *spool, const struct spool_item *item)
{
    struct spool_copy *copy = item->copy;

    CHECK(copy->entry == item->entry && copy->items_queued > 0);
    CHECK(spool->copier.octets >= item->source.payload_size);
    copy->items_queued--;
    spool->copier.octets -= item->source.payload_size;
}

void spool_copy_durable(struct spool *spool, const struct spool_item *item)
{
    struct spool_entry *entry = item->entry;
    copy_item_end(spool, item);
    if (item->record.type == SPOOL_BODY)
        return;
    if (entry->state != SPOOL_ENTRY_LIVE && entry->state != SPOOL_ENTRY_FINISHING) {
        struct spool_place target = item->target;
        if (target.is_held)
            spool_unhold(spool, &target);
        return;
    }
    if (item->record.type == SPOOL_MESSAGE)
        copy_message_durable(spool, item);
    else
        copy_progress_durable(spool, item);
    spool_entry_unlink(spool, entry);
    spool_entry_settle(spool, entry);
}

void spool_copy_lost(struct spool *spool, struct spool_item *item)
{
    copy_item_end(spool, item);
    item->copy->is_failed = true;
    if (item->target.is_held)
        spool_unhold(spool, &item->target);
}

void spool_copy_segment_lost(struct spool *spool, const struct spool_segment *segment)
{
    for (uint32_t at = 0; at < SPOOL_COPIES_MAX; at++) {
        struct spool_copy *copy = &spool->copier.copies[at];
        uint32_t count =
            copy->entry == NULL || copy->is_message_durable ? 0 : copy->entry->body_count;
        for (uint32_t i = 0; i < count; i++)
            copy->is_failed |= copy->bodies[i].is_held && place_is_in(&copy->bodies[i], segment);
    }
}

/* ---- repairs ---- */

void spool_repair(struct spool *spool, struct spool_entry *entry, struct span envelope,
                  const struct buf_queue *body)
{
    CHECK(envelope.size <= ENVELOPE_SIZE_MAX);
    if (entry->state != SPOOL_ENTRY_LIVE)
        return; /* its end is on the way */
    struct spool_repair *repair = calloc(1, sizeof(*repair) + envelope.size);
    CHECK(repair != NULL);
    repair->entry = entry;
    spool_entry_reference(entry);
    buf_queue_init(&repair->body);
    for (uint32_t i = 0; body != NULL && i < body->count; i++) {
        const struct buf_slice *slice = buf_queue_get(body, i);
        buf_queue_append(&repair->body, slice->buf, slice->offset, slice->size);
    }
    repair->envelope_size = envelope.size;
    if (envelope.size > 0)
        memcpy(repair->envelope, envelope.data, envelope.size);
    *spool->repairs_end = repair;
    spool->repairs_end = &repair->next;
}

/* ---- the turn ---- */

/* The entry in hand: read its next record, or wait, or finish. */
static void copy_continue(struct spool *spool, struct spool_copy *copy)
{
    bool is_over = copy->is_failed || copy->entry->state != SPOOL_ENTRY_LIVE || spool->is_flushing;
    if (is_over)
        copy->is_failed = true;
    if (is_over || !copy_choose(spool, copy)) {
        if (copy->items_queued == 0)
            copy_finish(spool, copy);
        return;
    }
    if (copy->items_queued < COPY_ITEMS_MAX && spool->copier.octets < SPOOL_COPY_OCTETS_MAX)
        copy_read(spool, copy);
}

/* False: there is nothing that it could begin with now. */
static bool copy_start(struct spool *spool, struct spool_copy *copy)
{
    struct spool_repair *repair = spool->repairs;
    struct spool_entry *entry = repair != NULL ? repair->entry : spool_victim_entry(spool);

    if (entry == NULL || entry->is_copied || spool->copier.octets >= SPOOL_COPY_OCTETS_MAX)
        return false;
    copy->repair = repair;
    if (repair != NULL)
        spool->repairs = repair->next;
    if (spool->repairs == NULL)
        spool->repairs_end = &spool->repairs;
    copy_begin(spool, copy, entry);
    copy_continue(spool, copy);
    return true;
}

bool spool_copies_are_none(const struct spool *spool)
{
    return spool->copier.running == 0;
}

void spool_copy_advance(struct spool *spool)
{
    struct spool_copy *copies = spool->copier.copies;

    for (uint32_t i = 0; i < SPOOL_COPIES_MAX && spool->copier.running > 0; i++) {
        if (copies[i].entry != NULL && !copies[i].is_reading)
            copy_continue(spool, &copies[i]);
    }
    if (spool->is_flushing || spool->failures_in_row > 0)
        return;
    for (uint32_t i = 0; i < SPOOL_COPIES_MAX; i++) {
        if (copies[i].entry == NULL && !copy_start(spool, &copies[i]))
            return;
    }
}

void spool_copy_init(struct spool *spool)
{
    for (uint32_t i = 0; i < SPOOL_COPIES_MAX; i++)
        spool->copier.copies[i].io = (struct spool_io){SPOOL_IO_COPY, &spool->copier.copies[i]};
    spool->repairs_end = &spool->repairs;
}

void spool_copy_fini(struct spool *spool)
{
    for (uint32_t i = 0; i < SPOOL_COPIES_MAX; i++) {
        struct spool_copy *copy = &spool->copier.copies[i];
        free(copy->block);
        free(copy->bodies);
        if (copy->entry != NULL)
            spool_entry_release(spool, copy->entry);
        copy->entry = NULL;
        if (copy->repair != NULL)
            repair_free(spool, copy->repair);
    }
    while (spool->repairs != NULL) {
        struct spool_repair *repair = spool->repairs;
        spool->repairs = repair->next;
        repair_free(spool, repair);
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copying survivors forward, so that old segments can be used again.
 *
 * When no segment is reusable or creatable and only the last spares are ready, the oldest segment
 * that refers to no other is emptied: its live messages are read and written again, as they are, to
 * the end of the log. Taking the oldest first means that the segment is surely reusable afterwards,
 * and that each one freed takes a reference off younger ones. A retired segment is emptied as well,
 * as long as the disk works: what was acknowledged is read back and gets a second, healthy home.
 * A message that is damaged is copied likewise, and what cannot be read is taken from memory.
 *
 * One message at a time, one record at a time; the copies travel in ordinary batches.
 *
 * Invariants
 *   1. A copy keeps id, epoch and sequence and counts `copy` up: recovery takes the highest, and a
 *      DONE kills all.
 *   2. The old records are let go only when MESSAGE copy and BODY copies are durable.
 *   3. While a copy of MESSAGE may be on the disk, durable or not, the entry knows its place as
 * OLD: the segment with its DONE will outlive it.
 *   4. A message that finishes meanwhile is not copied further: DONE never comes before a copy.
 *
 * Edges: copy_begin() -> copy_read() -> spool_copy_completed() -> ... -> copy_finish()
 * Limits: COPY_ITEMS_MAX records waiting to be written.
 */
#include <stdlib.h>

#include "queue/spool_internal.h"

#define COPY_ITEMS_MAX 8u
#define COPY_LOOK_TIME TICK_MS(5) /* between looks for a victim */

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

/* ---- what to copy ---- */

/* Nothing but the last spare segments is left, which are the reserve: mail is refused soon. */
static bool copy_is_needed(const struct spool *spool)
{
    const struct spool_census *census = &spool->census;
    return census->ready <= spool->options.segment_spare_min && census->preparing == 0 &&
           census->reusable == 0 && census->creatable == 0;
}

/* In a small segment each record may cost a block, as they travel in small batches. */
static bool copy_has_room(const struct spool_segment *segment)
{
    const struct spool *spool = segment->spool;
    uint64_t blocks = segment->holds * (uint64_t)SPOOL_BLOCK_SIZE;
    return segment->live_octets <= spool_room_urgent(spool) ||
           segment->live_octets + blocks <= spool_room_small(spool);
}

static bool copy_has_room_for(const struct spool *spool, const struct spool_entry *entry)
{
    uint64_t body = spool_entry_body_size(entry);
    uint64_t records = body + spool_entry_message(spool, entry).payload_size +
                       (entry->place_count + (uint64_t)2) * SPOOL_BLOCK_SIZE;
    return spool_room(spool) >= body + 2 * spool->part_size_max ||
           spool_room_small(spool) >= records;
}

/* Copying pays only when it frees more than it takes, and when it can be brought to its end: half
 * a segment copied frees nothing. */
static bool segment_is_victim(const struct spool_segment *segment)
{
    return segment->state == SPOOL_SEGMENT_SEALED && segment->entries != NULL &&
           !segment->is_drained && segment->live_octets < segment->size / 4 * 3u &&
           copy_has_room(segment) && spool_segment_refers_nothing(segment);
}

static struct spool_segment *copy_find_victim(const struct spool *spool)
{
    struct spool_segment *oldest = NULL;
    bool is_needed = copy_is_needed(spool);
    if (!is_needed && spool->stats.sync_failures == 0)
        return NULL;
    for (uint32_t i = 0; i < spool->segment_count; i++) {
        struct spool_segment *segment = spool->segments[i];
        if (segment->state == SPOOL_SEGMENT_RETIRED && segment->entries != NULL &&
            !segment->is_drained)
            return segment;
        if (is_needed && segment_is_victim(segment) &&
            (oldest == NULL || segment->serial < oldest->serial))
            oldest = segment;
    }
    return oldest;
}

static struct spool_entry *copy_find_entry(const struct spool_segment *victim)
{
    struct spool_entry *entry = victim->entries;
    while (entry != NULL && (entry->state != SPOOL_ENTRY_LIVE || entry->is_copy_refused))
        entry = spool_entry_next(victim->spool, entry);
    return entry;
}

/* ---- one message ---- */

static void copy_begin(struct spool *spool, struct spool_entry *entry)
{
    struct spool_copy *copy = &spool->copy;
    spool_entry_reference(entry);
    copy->entry = entry;
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

static void copy_finish(struct spool *spool)
{
    struct spool_copy *copy = &spool->copy;
    CHECK(copy->items_queued == 0 && !copy->is_reading);
    if (!copy->is_message_durable) {
        for (uint32_t i = 0; i < copy->bodies_placed; i++)
            spool_unhold(spool, &copy->bodies[i]);
        if (copy->message.is_held)
            spool_unhold(spool, &copy->message);
    }
    free(copy->bodies);
    copy->bodies = NULL;
    spool_entry_release(spool, copy->entry);
    copy->entry = NULL;
    if (copy->repair != NULL)
        repair_free(spool, copy->repair);
    copy->repair = NULL;
}

/* Choose the record of the next step. False when there is none left. */
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
        if (is_body || (copy->repair == NULL && copy->source.kind == SPOOL_PLACE_PROGRESS &&
                        place_is_in(&copy->source, copy->victim)))
            return true;
    }
    return false;
}

static void copy_read(struct spool *spool)
{
    struct spool_copy *copy = &spool->copy;
    copy->block = malloc(sizeof(struct spool_record) + copy->source.payload_size);
    CHECK(copy->block != NULL);
    copy->salt = spool->segments[copy->source.segment]->salt;
    copy->is_reading = true;
    spool_segment_read(spool, &copy->source, copy->block, &copy->io);
}

/* Queue a copy of the record at copy->source, whose header, if it is known, is `record`. */
static void copy_queue_item(struct spool *spool, enum spool_record_type type,
                            const struct spool_record *record, uint8_t *block, uint32_t block_size,
                            uint32_t envelope_size)
{
    struct span envelope = span_of(block + block_size - envelope_size, envelope_size);
    struct spool_copy *copy = &spool->copy;
    struct spool_item *item = spool_item_new(spool, type, copy->entry);

    item->is_copy = true;
    item->source = copy->source;
    item->envelope_size = envelope_size;
    item->block = block;
    item->block_size = item->record.payload_size = block_size;
    if (record != NULL) {
        item->record.part = record->part;
        item->record.epoch = record->epoch;
        item->record.sequence = record->sequence;
        item->record.copy = record->copy + 1;
    } else if (type == SPOOL_BODY) {
        item->record.part = copy->step;
    }
    if (type == SPOOL_MESSAGE)
        spool_item_describe(spool, item, envelope);
    copy->items_queued++;
    copy->step++;
    spool_item_queue(spool, item);
}

/* A record was read: queue its copy. Errors: ERR_DISK_CORRUPT, nothing was queued. */
static enum err copy_queue(struct spool *spool, struct span octets)
{
    struct spool_copy *copy = &spool->copy;
    struct spool_record record;
    TRY(spool_record_open(octets, copy->salt, &record));
    if (octets.size != sizeof(record) + record.payload_size ||
        record.payload_size != copy->source.payload_size ||
        !message_id_is_equal(record.id, copy->entry->id))
        return ERR_DISK_CORRUPT;
    struct span payload = span_skip(octets, (uint32_t)sizeof(record));
    if (!spool_payload_is_valid(&record, payload))
        return ERR_DISK_CORRUPT;
    struct spool_message message = {0};
    struct span extents, envelope;
    if (record.type == SPOOL_MESSAGE)
        TRY(spool_message_open(payload, &message, &extents, &envelope));

    uint8_t *block = malloc(payload.size + 1);
    CHECK(block != NULL);
    memcpy(block, payload.data, payload.size);
    copy_queue_item(spool, (enum spool_record_type)record.type, &record, block, payload.size,
                    message.envelope_size);
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
static bool copy_queue_repair(struct spool *spool, struct span octets)
{
    struct spool_copy *copy = &spool->copy;
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
    copy_queue_item(spool, is_body ? SPOOL_BODY : SPOOL_MESSAGE, has_header ? &record : NULL, block,
                    size, is_body ? 0 : repair->envelope_size);
    return true;
}

/* The record at copy->source is not what it was: the queue mends or ends the message. */
static void copy_tell_damage(struct spool *spool)
{
    const struct spool_copy *copy = &spool->copy;
    struct spool_event *event = spool_event_add(spool, SPOOL_EVENT_DAMAGED, ERR_DISK_CORRUPT, 0);

    event->id = copy->entry->id;
    event->damage = copy->step < copy->entry->body_count    ? SPOOL_DAMAGE_BODY
                    : copy->step == copy->entry->body_count ? SPOOL_DAMAGE_ENVELOPE
                                                            : SPOOL_DAMAGE_PROGRESS;
    spool->stats.damaged_messages++;
}

void spool_copy_completed(struct spool *spool, enum err err, uint32_t size)
{
    struct spool_copy *copy = &spool->copy;
    CHECK(copy->is_reading);
    copy->is_reading = false;
    spool_segment_read_end(spool, &copy->source);
    struct span octets = span_of(copy->block, err == ERR_OK ? size : 0);
    bool is_wanted = copy->entry->state == SPOOL_ENTRY_LIVE && !copy->is_failed;
    if (err == ERR_OK && is_wanted)
        err = copy_queue(spool, octets);
    if (err != ERR_OK && is_wanted && copy_queue_repair(spool, octets))
        err = ERR_OK;
    if (err != ERR_OK) {
        copy->is_failed = true;
        copy->entry->is_copy_refused = true;
        if (err == ERR_DISK_CORRUPT && copy->repair == NULL)
            copy_tell_damage(spool);
    }
    free(copy->block);
    copy->block = NULL;
}

/* ---- what becomes of the copies ---- */

void spool_copy_placed(struct spool *spool, struct spool_item *item, struct spool_place place)
{
    struct spool_copy *copy = &spool->copy;
    CHECK(copy->entry == item->entry && item->entry->state == SPOOL_ENTRY_LIVE);
    if (item->record.type == SPOOL_BODY) {
        place.kind = SPOOL_PLACE_BODY;
        spool_hold(spool, &place);
        copy->bodies[copy->bodies_placed++] = place;
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
    struct spool_copy *copy = &spool->copy;
    struct spool_entry *entry = item->entry;
    CHECK(copy->bodies_placed == entry->body_count);
    for (uint32_t i = 0; i < entry->body_count; i++) {
        struct spool_place body = spool_entry_place(spool, entry, i);
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

void spool_copy_durable(struct spool *spool, const struct spool_item *item)
{
    struct spool_copy *copy = &spool->copy;
    struct spool_entry *entry = item->entry;
    CHECK(copy->entry == entry && copy->items_queued > 0);
    copy->items_queued--;
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
    struct spool_copy *copy = &spool->copy;
    CHECK(copy->items_queued > 0);
    copy->items_queued--;
    copy->is_failed = true;
    if (item->target.is_held)
        spool_unhold(spool, &item->target);
}

void spool_copy_segment_lost(struct spool *spool, const struct spool_segment *segment)
{
    struct spool_copy *copy = &spool->copy;
    for (uint32_t i = 0; copy->entry != NULL && i < copy->bodies_placed; i++)
        copy->is_failed |= !copy->is_message_durable && place_is_in(&copy->bodies[i], segment);
}

/* ---- the turn ---- */

/* The entry in hand: read its next record, or wait, or finish. */
static void copy_continue(struct spool *spool)
{
    struct spool_copy *copy = &spool->copy;
    bool is_over = copy->is_failed || copy->entry->state != SPOOL_ENTRY_LIVE || spool->is_flushing;
    if (is_over)
        copy->is_failed = true;
    if (is_over || !copy_choose(spool, copy)) {
        if (copy->items_queued == 0)
            copy_finish(spool);
        return;
    }
    if (copy->items_queued < COPY_ITEMS_MAX)
        copy_read(spool);
}

static void repair_begin(struct spool *spool)
{
    struct spool_repair *repair = spool->repairs;

    spool->repairs = repair->next;
    if (spool->repairs == NULL)
        spool->repairs_end = &spool->repairs;
    spool->copy.repair = repair;
    copy_begin(spool, repair->entry);
    copy_continue(spool);
}

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

void spool_copy_advance(struct spool *spool)
{
    struct spool_copy *copy = &spool->copy;
    if (copy->is_reading)
        return;
    if (copy->entry != NULL) {
        copy_continue(spool);
        return;
    }
    if (spool->is_flushing || spool->failures_in_row > 0)
        return;
    if (spool->repairs != NULL) {
        repair_begin(spool);
        return;
    }
    /* Empty at last, the victim may be on its way to be used again. */
    if (copy->victim != NULL && copy->victim->state != SPOOL_SEGMENT_SEALED &&
        copy->victim->state != SPOOL_SEGMENT_RETIRED)
        copy->victim = NULL;
    if (copy->victim == NULL && spool->now.tick >= copy->look_at) {
        copy->victim = copy_find_victim(spool);
        copy->look_at = copy->victim == NULL ? spool->now.tick + COPY_LOOK_TIME : 0;
    }
    if (copy->victim == NULL)
        return;
    struct spool_entry *entry = copy_find_entry(copy->victim);
    if (entry == NULL || !copy_has_room_for(spool, entry)) {
        copy->victim->is_drained = true;
        copy->victim = NULL;
        return;
    }
    copy_begin(spool, entry);
    copy_continue(spool);
}

void spool_copy_fini(struct spool *spool)
{
    struct spool_copy *copy = &spool->copy;
    free(copy->block);
    free(copy->bodies);
    if (copy->entry != NULL)
        spool_entry_release(spool, copy->entry);
    copy->entry = NULL;
    if (copy->repair != NULL)
        repair_free(spool, copy->repair);
    while (spool->repairs != NULL) {
        struct spool_repair *repair = spool->repairs;
        spool->repairs = repair->next;
        repair_free(spool, repair);
    }
}

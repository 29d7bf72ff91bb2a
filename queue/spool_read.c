/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading back: bodies for later attempts, envelopes for operators.
 *
 * A read goes record by record: each is read whole, its header and payload checked, and the part
 * asked for copied into buffers. So damaged octets are never handed out.
 *
 *   waiting -> reading a record -> ... -> READ event        read_next(), spool_read_completed()
 *
 * A segment is not used again while a record in it is read, so that a message may be copied forward
 * or end meanwhile. Once it has ended no further record of it is read: ERR_STALE.
 *
 * Limits: SPOOL_READS_MAX disk reads at a time, the others wait in order.
 */
#include <stdlib.h>

#include "queue/spool_internal.h"

static void read_queue(struct spool *spool, struct spool_read *read)
{
    spool_entry_reference(read->entry);
    read->io = (struct spool_io){SPOOL_IO_READ, read};
    buf_queue_init(&read->octets);
    *spool->reads_end = read;
    spool->reads_end = &read->next;
}

static struct spool_read *read_new(struct spool_entry *entry, uint64_t token)
{
    CHECK(entry->state == SPOOL_ENTRY_LIVE || entry->state == SPOOL_ENTRY_FINISHING);
    struct spool_read *read = calloc(1, sizeof(*read));
    CHECK(read != NULL);
    read->entry = entry;
    read->token = token;
    return read;
}

void spool_read_body(struct spool *spool, struct spool_entry *entry, uint64_t offset, uint32_t size,
                     uint64_t token)
{
    uint64_t body_size = spool_entry_body_size(entry);
    CHECK(offset <= body_size && size <= body_size - offset);
    struct spool_read *read = read_new(entry, token);
    read->offset = offset;
    read->end = offset + size;
    read_queue(spool, read);
}

void spool_read_envelope(struct spool *spool, struct spool_entry *entry, uint64_t token)
{
    struct spool_read *read = read_new(entry, token);
    read->is_envelope = true;
    read_queue(spool, read);
}

static void read_free(struct spool *spool, struct spool_read *read)
{
    spool_entry_release(spool, read->entry);
    buf_queue_fini(&read->octets);
    free(read->block);
    free(read);
}

static void read_finish(struct spool *spool, struct spool_read *read, enum err err)
{
    struct spool_event *event = spool_event_add(spool, SPOOL_EVENT_READ, err, read->token);
    event->entry = read->entry;
    if (err == ERR_OK)
        buf_queue_move(&event->octets, &read->octets);
    read_free(spool, read);
}

/* Where the record that is wanted next is now. */
static struct spool_place read_place(const struct spool *spool, const struct spool_read *read)
{
    return read->is_envelope ? spool_entry_message(spool, read->entry)
                             : spool_entry_place(spool, read->entry, read->part);
}

static void read_submit(struct spool *spool, struct spool_read *read)
{
    read->place = read_place(spool, read);
    free(read->block);
    read->block = malloc(sizeof(struct spool_record) + read->place.payload_size);
    CHECK(read->block != NULL);
    read->salt = spool->segments[read->place.segment]->salt;
    spool->reads_running++;
    read->next = spool->reads_active;
    spool->reads_active = read;
    spool_segment_read(spool, &read->place, read->block, &read->io);
}

/* Read the next record, or finish. */
static void read_next(struct spool *spool, struct spool_read *read)
{
    if (!read->is_envelope) {
        const struct spool_entry *entry = read->entry;
        while (read->part < entry->body_count &&
               read->part_offset + spool_entry_payload_size(entry, read->part) <= read->offset)
            read->part_offset += spool_entry_payload_size(entry, read->part++);
        if (read->offset == read->end) {
            read_finish(spool, read, ERR_OK);
            return;
        }
        CHECK(read->part < entry->body_count);
    }
    if (read->entry->state == SPOOL_ENTRY_GONE) /* others may have its segments already */
        read_finish(spool, read, ERR_STALE);
    else
        read_submit(spool, read);
}

/* The payload of the record just read, if it is what it should be. */
static enum err read_payload(const struct spool_read *read, uint32_t size, struct span *ret_payload)
{
    struct span octets = span_of(read->block, size);
    struct spool_record record;
    TRY(spool_record_open(octets, read->salt, &record));
    uint8_t type = read->is_envelope ? SPOOL_MESSAGE : SPOOL_BODY;
    if (record.type != type || !message_id_is_equal(record.id, read->entry->id) ||
        record.payload_size != read->place.payload_size ||
        size != sizeof(record) + record.payload_size)
        return ERR_DISK_CORRUPT;
    struct span payload = span_skip(octets, (uint32_t)sizeof(record));
    if (!spool_payload_is_valid(&record, payload))
        return ERR_DISK_CORRUPT;
    *ret_payload = payload;
    return ERR_OK;
}

/* Copy out what was asked for. */
static enum err read_take(struct spool *spool, struct spool_read *read, struct span payload)
{
    if (read->is_envelope) {
        struct spool_message message;
        struct span extents, envelope;
        TRY(spool_message_open(payload, &message, &extents, &envelope));
        return buf_queue_append_copy(&read->octets, spool->options.pool, envelope);
    }
    uint32_t skip = (uint32_t)(read->offset - read->part_offset);
    uint64_t left = read->end - read->offset;
    uint32_t size = payload.size - skip < left ? payload.size - skip : (uint32_t)left;
    read->offset += size;
    return buf_queue_append_copy(&read->octets, spool->options.pool,
                                 span_head(span_skip(payload, skip), size));
}

void spool_read_completed(struct spool *spool, struct spool_read *read, enum err err, uint32_t size)
{
    CHECK(spool->reads_running > 0);
    spool->reads_running--;
    spool_segment_read_end(spool, &read->place);
    struct spool_read **link = &spool->reads_active;
    while (*link != read)
        link = &(*link)->next;
    *link = read->next;
    read->next = NULL;
    struct span payload = {0};
    if (err == ERR_OK)
        err = read_payload(read, size, &payload);
    if (err == ERR_OK)
        err = read_take(spool, read, payload);
    if (err != ERR_OK || read->is_envelope)
        read_finish(spool, read, err);
    else
        read_next(spool, read);
}

void spool_reads_start(struct spool *spool)
{
    while (spool->reads_waiting != NULL && spool->reads_running < SPOOL_READS_MAX) {
        struct spool_read *read = spool->reads_waiting;
        spool->reads_waiting = read->next;
        if (spool->reads_waiting == NULL)
            spool->reads_end = &spool->reads_waiting;
        read->next = NULL;
        read_next(spool, read);
    }
}

static void reads_free(struct spool *spool, struct spool_read *reads)
{
    while (reads != NULL) {
        struct spool_read *read = reads;
        reads = read->next;
        read_free(spool, read);
    }
}

void spool_reads_free(struct spool *spool)
{
    reads_free(spool, spool->reads_waiting);
    reads_free(spool, spool->reads_active);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is in one segment: its rows, from the index if it is sealed, else record by record up to the
 * first that is not valid.
 *
 * Invariants
 *   1. Nothing is written: a crash at any point, any number of times, changes nothing.
 *   2. What follows the first invalid record of an unsealed segment was never acknowledged, since
 *      batches go to a segment one at a time; unless a later batch says that everything before it
 *      was durable (segment_find_proof()). Damage of the last batch cannot be told from a torn end.
 *   3. Segments are independent of each other: several threads may scan, one segment each.
 *
 * What was read on the way is kept for the merge: the details of an index, or the payloads of an
 * unsealed segment. Those of a segment of an earlier format, whose index has none, are read later.
 */
#include <stdlib.h>

#include "base/log.h"
#include "queue/pages.h"
#include "queue/spool_recovery.h"

#define SCAN_AHEAD  8192u /* octets read with a header whose payload size is not known */
#define PROOF_CHUNK (256u << 10)

/* A batch begins at most this far behind the beginning of the one before; and some more. */
#define PROOF_SEARCH_MAX (2 * SPOOL_BATCH_SIZE_MAX)

/* ---- reading ---- */

static enum err read_exactly(const struct spool_recovery *recovery,
                             const struct recovery_segment *segment, uint64_t offset,
                             void *ret_data, uint32_t size)
{
    uint32_t got;
    TRY(disk_read(recovery->disk, segment->file, offset, ret_data, size, &got));
    return got == size ? ERR_OK : ERR_DISK_CORRUPT;
}

enum err spool_recovery_read(const struct spool_recovery *recovery, uint32_t segment_index,
                             uint32_t offset, uint32_t payload_size_expected,
                             struct spool_record *ret_record, struct recovery_block **ret_block)
{
    const struct recovery_segment *segment = &recovery->segments[segment_index];
    const uint32_t header_size = (uint32_t)sizeof(struct spool_record);
    uint32_t ahead = payload_size_expected < SPOOL_PAYLOAD_SIZE_MAX ? payload_size_expected
                                                                    : SPOOL_PAYLOAD_SIZE_MAX;
    uint32_t size = header_size + ahead, got;
    struct spool_record record;
    struct recovery_block *block = malloc(sizeof(*block) + size);
    CHECK(block != NULL);
    enum err err = disk_read(recovery->disk, segment->file, offset, block->octets, size, &got);
    if (err == ERR_OK)
        err = spool_record_open(span_of(block->octets, got), segment->header.salt, &record);
    if (err == ERR_OK &&
        (uint64_t)offset + header_size + record.payload_size > segment->header.segment_size)
        err = ERR_DISK_CORRUPT;
    if (err == ERR_OK && got < header_size + record.payload_size) {
        size = header_size + record.payload_size;
        block = realloc(block, sizeof(*block) + size);
        CHECK(block != NULL);
        err = read_exactly(recovery, segment, offset, block->octets, size);
    }
    if (err == ERR_OK) {
        memmove(block->octets, block->octets + header_size, record.payload_size);
        if (!spool_payload_is_valid(&record, span_of(block->octets, record.payload_size)))
            err = ERR_DISK_CORRUPT;
    }
    if (err != ERR_OK) {
        free(block);
        return err;
    }
    *ret_record = record;
    *ret_block = block;
    return ERR_OK;
}

static void segment_add_row(struct spool_recovery *recovery, uint32_t index,
                            const struct recovery_row *row)
{
    struct recovery_segment *segment = &recovery->segments[index];
    if (segment->row_count == segment->row_capacity) {
        segment->row_capacity = segment->row_capacity == 0 ? 256 : 2 * segment->row_capacity;
        segment->rows = realloc(segment->rows, segment->row_capacity * sizeof(*segment->rows));
        CHECK(segment->rows != NULL);
    }
    segment->rows[segment->row_count] = *row;
    segment->rows[segment->row_count++].segment = (uint16_t)index;
}

static void segment_keep(struct recovery_segment *segment, struct recovery_block *block)
{
    block->next = segment->blocks;
    segment->blocks = block;
}

/* ---- a sealed segment ---- */

/* Room for an index that is being read, the same for all of them that one thread reads. */
static uint8_t *scratch_get(struct recovery_scratch *scratch, size_t size)
{
    if (scratch->octets == NULL || scratch->size < size) {
        spool_pages_free(scratch->octets, scratch->size);
        scratch->size = size + size / 2;
        scratch->octets = spool_pages_new(scratch->size);
    }
    return scratch->octets;
}

/* Rows, and behind them their details: what the merge and the adoption look at. */
static void segment_take_index(struct spool_recovery *recovery, uint32_t index,
                               const struct spool_trailer *trailer, const uint8_t *octets)
{
    struct recovery_segment *segment = &recovery->segments[index];
    size_t rows_size = trailer->row_count * sizeof(struct recovery_row);

    segment->pages_size = rows_size + trailer->details_size + 1;
    segment->rows = spool_pages_new(segment->pages_size);
    segment->row_count = trailer->row_count;
    uint8_t *detail = (uint8_t *)segment->rows + rows_size;
    memcpy(detail, octets + trailer->row_count * sizeof(struct spool_row), trailer->details_size);
    for (uint32_t i = 0; i < trailer->row_count; i++) {
        struct spool_row row;
        memcpy(&row, octets + i * sizeof(row), sizeof(row));
        segment->rows[i] = (struct recovery_row){
            .id = row.id,
            .sequence = row.sequence,
            .epoch = row.epoch,
            .copy = row.copy,
            .offset = row.offset,
            .payload_size = row.payload_size,
            .detail = row.detail_size > 0 ? detail : NULL,
            .detail_size = row.detail_size,
            .segment = (uint16_t)index,
            .type = row.type,
            .is_whole = row.type == SPOOL_PROGRESS,
        };
        detail += row.detail_size;
    }
}

/* Take the rows from the index. Errors: no valid index, nothing was taken. */
static enum err segment_read_index(struct spool_recovery *recovery, uint32_t index,
                                   struct recovery_scratch *scratch)
{
    struct recovery_segment *segment = &recovery->segments[index];
    uint32_t size = segment->header.segment_size;
    uint8_t end[sizeof(struct spool_trailer)];
    struct spool_trailer trailer;
    TRY(read_exactly(recovery, segment, size - SPOOL_BLOCK_SIZE, end, sizeof(end)));
    TRY(spool_trailer_open(span_of(end, sizeof(end)), segment->header.salt, size, &trailer));

    uint32_t index_size = spool_index_size(&trailer);
    uint8_t *octets = scratch_get(scratch, index_size);
    TRY(read_exactly(recovery, segment, trailer.index_offset, octets, index_size));
    TRY(spool_index_verify(&trailer, span_of(octets, index_size)));
    segment_take_index(recovery, index, &trailer, octets);
    segment->is_end_known = trailer.log_end > 0;
    segment->end = segment->is_end_known ? trailer.log_end : trailer.index_offset;
    return ERR_OK;
}

/* ---- any other segment ---- */

/*
 * What stands at `offset` is not valid. If a batch behind it was written when everything before it
 * was durable, it is damage: true, and where that batch begins. If not, it is the torn end of what
 * was being written at a crash, or nothing.
 */
static bool segment_find_proof(const struct spool_recovery *recovery,
                               const struct recovery_segment *segment, uint64_t offset,
                               uint64_t *ret_offset)
{
    uint64_t at = spool_align(offset + 1, SPOOL_BLOCK_SIZE), end = at + PROOF_SEARCH_MAX;
    uint8_t *chunk = malloc(PROOF_CHUNK);
    uint32_t size = PROOF_CHUNK;
    bool is_found = false;

    CHECK(chunk != NULL);
    if (end > segment->header.segment_size)
        end = segment->header.segment_size;
    for (; at < end && size == PROOF_CHUNK && !is_found; at += PROOF_CHUNK) {
        if (disk_read(recovery->disk, segment->file, at, chunk, PROOF_CHUNK, &size) != ERR_OK)
            break;
        for (uint32_t i = 0; i < size && !is_found; i += SPOOL_BLOCK_SIZE) {
            struct spool_record record;
            is_found = spool_record_open(span_of(chunk + i, size - i), segment->header.salt,
                                         &record) == ERR_OK &&
                       record.flags & SPOOL_RECORD_AFTER_SYNC;
            *ret_offset = at + i;
        }
    }
    free(chunk);
    return is_found;
}

uint64_t spool_recovery_find_record(const struct spool_recovery *recovery, uint32_t index,
                                    uint64_t offset, uint64_t end)
{
    const struct recovery_segment *segment = &recovery->segments[index];
    const uint32_t header_size = (uint32_t)sizeof(struct spool_record);
    uint64_t at = spool_align(offset + 1, 8), found = end;
    uint8_t *chunk = malloc(PROOF_CHUNK);
    uint32_t size = PROOF_CHUNK;

    CHECK(chunk != NULL);
    while (at + header_size <= end && found == end && size == PROOF_CHUNK) {
        if (disk_read(recovery->disk, segment->file, at, chunk, PROOF_CHUNK, &size) != ERR_OK)
            break;
        for (uint32_t i = 0; i + header_size <= size && at + i < end && found == end; i += 8) {
            struct spool_record record;
            if (spool_record_open(span_of(chunk + i, header_size), segment->header.salt, &record) ==
                ERR_OK)
                found = at + i;
        }
        at += PROOF_CHUNK - header_size + 8; /* a header may lie across the end of a chunk */
    }
    free(chunk);
    return found;
}

/* `block` is its payload, or NULL when that is damaged: then it is read again, in vain. */
static void segment_add_record(struct spool_recovery *recovery, uint32_t index,
                               const struct spool_record *record, uint64_t offset,
                               struct recovery_block *block)
{
    bool is_kept = block != NULL && record->payload_size > 0 && record->type != SPOOL_BODY;

    if (record->type != SPOOL_BODY)
        segment_add_row(recovery, index,
                        &(struct recovery_row){
                            .id = record->id,
                            .sequence = record->sequence,
                            .epoch = record->epoch,
                            .copy = record->copy,
                            .offset = (uint32_t)offset,
                            .payload_size = record->payload_size,
                            .detail = is_kept ? block->octets : NULL,
                            .detail_size = is_kept ? record->payload_size : 0,
                            .type = record->type,
                            .is_whole = is_kept,
                        });
    if (!is_kept) {
        free(block);
        return;
    }
    /* It was read with much room ahead. */
    struct recovery_block *fitting = realloc(block, sizeof(*block) + record->payload_size);
    CHECK(fitting != NULL);
    segment_keep(&recovery->segments[index], fitting);
    struct recovery_segment *segment = &recovery->segments[index];
    segment->rows[segment->row_count - 1].detail = fitting->octets;
}

/* The record at `*offset` is not valid: go on behind it if it is damage. A header that is valid
 * tells where it ends, and which message it costs. False at the end of the log. */
static bool segment_pass_damage(struct spool_recovery *recovery, uint32_t index, uint64_t *offset)
{
    struct recovery_segment *segment = &recovery->segments[index];
    uint8_t octets[sizeof(struct spool_record)];
    struct spool_record record;
    uint64_t proof;

    if (!segment_find_proof(recovery, segment, *offset, &proof))
        return false;
    segment->is_damaged = true;
    log_line(LOG_ERROR, "spool segment=%s offset=%lu a record is damaged", segment->name, *offset);
    bool has_header = read_exactly(recovery, segment, *offset, octets, sizeof(octets)) == ERR_OK &&
                      spool_record_open(span_of(octets, sizeof(octets)), segment->header.salt,
                                        &record) == ERR_OK &&
                      spool_record_end(&record, *offset) <= proof;
    if (has_header) {
        segment_add_record(recovery, index, &record, *offset, NULL);
        *offset = spool_record_end(&record, *offset);
    } else {
        *offset = spool_recovery_find_record(recovery, index, *offset, proof);
    }
    return true;
}

/* Take the rows record by record, up to the end of the log. Errors: ERR_DISK_IO. */
static enum err segment_read_records(struct spool_recovery *recovery, uint32_t index)
{
    struct recovery_segment *segment = &recovery->segments[index];
    uint64_t offset = SPOOL_BLOCK_SIZE;

    while (offset + sizeof(struct spool_record) <= segment->header.segment_size) {
        segment->end = (uint32_t)offset;
        struct spool_record record;
        struct recovery_block *block;
        enum err err =
            spool_recovery_read(recovery, index, (uint32_t)offset, SCAN_AHEAD, &record, &block);
        if (err == ERR_DISK_CORRUPT && segment_pass_damage(recovery, index, &offset))
            continue;
        if (err != ERR_OK)
            return err == ERR_DISK_CORRUPT ? ERR_OK : err;
        segment_add_record(recovery, index, &record, offset, block);
        offset = spool_record_end(&record, offset);
        segment->end = (uint32_t)offset;
    }
    return ERR_OK;
}

/*
 * What a process wrote that was killed before its sync is read from the page cache, and would be
 * gone after a power loss: mail that this start takes for finished would be back in the next. A
 * sealed segment was synced as a whole before.
 */
static void segment_make_durable(struct spool_recovery *recovery, struct recovery_segment *segment)
{
    enum err err = disk_sync(recovery->disk, segment->file);
    if (err != ERR_OK)
        log_line(LOG_ERROR, "spool segment=%s sync=%s", segment->name, err_name(err));
}

void spool_recovery_scan(struct spool_recovery *recovery, uint32_t index,
                         struct recovery_scratch *scratch)
{
    struct recovery_segment *segment = &recovery->segments[index];

    if (segment->is_blank || segment->header.segment_size == 0)
        return;
    segment->is_sealed = segment_read_index(recovery, index, scratch) == ERR_OK;
    if (segment->is_sealed)
        return;
    segment_make_durable(recovery, segment);
    segment->is_end_known = true;
    enum err err = segment_read_records(recovery, index);
    if (err == ERR_OK)
        return;
    segment->is_damaged = true;
    log_line(LOG_ERROR, "spool segment=%s read=%s offset=%u", segment->name, err_name(err),
             segment->end);
}

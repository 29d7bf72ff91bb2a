/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a start finds in the spool directory.
 *
 * Every segment that nobody else has locked is opened, locked and read: a sealed one by its index,
 * any other record by record up to the first that is not valid. The rows of all segments are then
 * merged by id (spool_merge.c) and handed out to the shards (spool_adopt.c).
 *
 * Invariants
 *   1. Nothing is written: a crash at any point, any number of times, changes nothing.
 *   2. What follows the first invalid record of an unsealed segment was never acknowledged, since
 *      batches go to a segment one at a time; unless a later batch says that everything before it
 *      was durable (segment_find_proof()). Damage of the last batch cannot be told from a torn end.
 *   3. A damaged segment costs its own messages, never the start: it is kept, reported and not
 *      used.
 *
 * A segment with a header but no index costs reading it whole; one with an index, reading the
 * index. Limits: SPOOL_RECOVERY_SEGMENTS_MAX segments in a directory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/log.h"
#include "queue/spool_recovery.h"

#define NAME_SUFFIX   ".spool"
#define SCAN_AHEAD    8192u /* octets read with a header whose payload size is not known */
#define PROOF_CHUNK   (256u << 10)
#define LOCK_TRIES    200u /* in all: two seconds */
#define LOCK_PAUSE_NS 10000000

/* A batch begins at most this far behind the beginning of the one before; and some more. */
#define PROOF_SEARCH_MAX (2 * SPOOL_BATCH_SIZE_MAX)

/* ---- names ---- */

static bool name_is_segment(const char *name)
{
    size_t size = strlen(name), suffix = strlen(NAME_SUFFIX);
    return size > suffix && size < DISK_NAME_SIZE_MAX &&
           strcmp(name + size - suffix, NAME_SUFFIX) == 0;
}

static uint32_t name_epoch(const char *name)
{
    unsigned epoch = 0;
    return sscanf(name, "%8x-", &epoch) == 1 ? epoch : 0;
}

static void recovery_add_name(void *context, const char *name)
{
    struct spool_recovery *recovery = context;
    if (!name_is_segment(name))
        return;
    if (recovery->segment_count == recovery->segment_capacity) {
        uint32_t capacity = recovery->segment_capacity == 0 ? 64 : 2 * recovery->segment_capacity;
        recovery->segments = realloc(recovery->segments, capacity * sizeof(*recovery->segments));
        CHECK(recovery->segments != NULL);
        recovery->segment_capacity = capacity;
    }
    struct recovery_segment *segment = &recovery->segments[recovery->segment_count++];
    *segment = (struct recovery_segment){0};
    memcpy(segment->name, name, strlen(name) + 1);
    if (name_epoch(name) > recovery->epoch_newest)
        recovery->epoch_newest = name_epoch(name);
}

/* ---- reading ---- */

static enum err read_exactly(struct spool_recovery *recovery,
                             const struct recovery_segment *segment, uint64_t offset,
                             void *ret_data, uint32_t size)
{
    uint32_t got;
    TRY(disk_read(recovery->disk, segment->file, offset, ret_data, size, &got));
    return got == size ? ERR_OK : ERR_DISK_CORRUPT;
}

enum err spool_recovery_read(struct spool_recovery *recovery, uint32_t segment_index,
                             uint32_t offset, uint32_t payload_size_expected,
                             struct spool_record *ret_record, uint8_t **ret_payload)
{
    const struct recovery_segment *segment = &recovery->segments[segment_index];
    const uint32_t header_size = (uint32_t)sizeof(struct spool_record);
    uint32_t ahead = payload_size_expected < SPOOL_PAYLOAD_SIZE_MAX ? payload_size_expected
                                                                    : SPOOL_PAYLOAD_SIZE_MAX;
    uint32_t size = header_size + ahead, got;
    struct spool_record record;
    uint8_t *block = malloc(size);
    CHECK(block != NULL);
    enum err err = disk_read(recovery->disk, segment->file, offset, block, size, &got);
    if (err == ERR_OK)
        err = spool_record_open(span_of(block, got), segment->header.salt, &record);
    if (err == ERR_OK &&
        (uint64_t)offset + header_size + record.payload_size > segment->header.segment_size)
        err = ERR_DISK_CORRUPT;
    if (err == ERR_OK && got < header_size + record.payload_size) {
        size = header_size + record.payload_size;
        block = realloc(block, size);
        CHECK(block != NULL);
        err = read_exactly(recovery, segment, offset, block, size);
    }
    if (err == ERR_OK) {
        memmove(block, block + header_size, record.payload_size);
        if (!spool_payload_is_valid(&record, span_of(block, record.payload_size)))
            err = ERR_DISK_CORRUPT;
    }
    if (err != ERR_OK) {
        free(block);
        return err;
    }
    *ret_record = record;
    *ret_payload = block;
    return ERR_OK;
}

static void recovery_add_row(struct spool_recovery *recovery, uint32_t segment,
                             const struct spool_row *row)
{
    if (recovery->row_count == recovery->row_capacity) {
        uint64_t capacity = recovery->row_capacity == 0 ? 1024 : 2 * recovery->row_capacity;
        recovery->rows = realloc(recovery->rows, capacity * sizeof(*recovery->rows));
        CHECK(recovery->rows != NULL);
        recovery->row_capacity = capacity;
    }
    recovery->rows[recovery->row_count++] = (struct recovery_row){
        .id = row->id,
        .sequence = row->sequence,
        .epoch = row->epoch,
        .copy = row->copy,
        .segment = segment,
        .offset = row->offset,
        .payload_size = row->payload_size,
        .type = row->type,
    };
}

/* ---- one segment ---- */

/* Take the rows from the index. Errors: no valid index, nothing was taken. */
static enum err segment_read_index(struct spool_recovery *recovery, uint32_t index)
{
    struct recovery_segment *segment = &recovery->segments[index];
    uint32_t size = segment->header.segment_size;
    uint8_t octets[sizeof(struct spool_trailer)];
    struct spool_trailer trailer;
    TRY(read_exactly(recovery, segment, size - SPOOL_BLOCK_SIZE, octets, sizeof(octets)));
    TRY(spool_trailer_open(span_of(octets, sizeof(octets)), segment->header.salt, size, &trailer));

    uint32_t rows_size = trailer.row_count * (uint32_t)sizeof(struct spool_row);
    uint8_t *rows = malloc(rows_size + 1);
    CHECK(rows != NULL);
    enum err err = read_exactly(recovery, segment, trailer.index_offset, rows, rows_size);
    if (err == ERR_OK)
        err = spool_rows_verify(&trailer, span_of(rows, rows_size));
    for (uint32_t i = 0; err == ERR_OK && i < trailer.row_count; i++) {
        struct spool_row row;
        memcpy(&row, rows + i * sizeof(row), sizeof(row));
        recovery_add_row(recovery, index, &row);
    }
    free(rows);
    segment->end = trailer.index_offset;
    return err;
}

/*
 * What stands at `offset` is not valid. If a batch behind it was written when everything before it
 * was durable, it is damage: true, and where that batch begins. If not, it is the torn end of what
 * was being written at a crash, or nothing.
 */
static bool segment_find_proof(struct spool_recovery *recovery,
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

uint64_t spool_recovery_find_record(struct spool_recovery *recovery, uint32_t index,
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

static void recovery_add_record(struct spool_recovery *recovery, uint32_t index,
                                const struct spool_record *record, uint64_t offset)
{
    struct spool_row row = {
        .id = record->id,
        .sequence = record->sequence,
        .epoch = record->epoch,
        .copy = record->copy,
        .offset = (uint32_t)offset,
        .payload_size = record->payload_size,
        .type = record->type,
    };
    if (record->type != SPOOL_BODY)
        recovery_add_row(recovery, index, &row);
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
        recovery_add_record(recovery, index, &record, *offset);
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
        uint8_t *payload;
        enum err err =
            spool_recovery_read(recovery, index, (uint32_t)offset, SCAN_AHEAD, &record, &payload);
        if (err == ERR_DISK_CORRUPT && segment_pass_damage(recovery, index, &offset))
            continue;
        if (err != ERR_OK)
            return err == ERR_DISK_CORRUPT ? ERR_OK : err;
        free(payload);
        recovery_add_record(recovery, index, &record, offset);
        offset = spool_record_end(&record, offset);
        segment->end = (uint32_t)offset;
    }
    return ERR_OK;
}

static bool octets_are_zero(const uint8_t *octets, uint32_t size)
{
    uint8_t any = 0;
    for (uint32_t i = 0; i < size; i++)
        any |= octets[i];
    return any == 0;
}

/*
 * Lock, or find that somebody else has it. Our own running spools have the newest epoch. A lock on
 * an older segment may be that of a process which was just killed: the kernel ends io_uring
 * requests, and with them the last use of the file, some time after the process is gone. That is
 * waited for.
 */
static enum err segment_lock(struct spool_recovery *recovery,
                             const struct recovery_segment *segment)
{
    const struct timespec pause = {.tv_nsec = LOCK_PAUSE_NS};
    enum err err = disk_lock(recovery->disk, segment->file);
    while (err == ERR_DISK_LOCKED && recovery->lock_tries_left > 0 &&
           name_epoch(segment->name) < recovery->epoch_newest) {
        recovery->lock_tries_left--;
        nanosleep(&pause, NULL);
        err = disk_lock(recovery->disk, segment->file);
    }
    return err;
}

/* Open, lock and read the header. False when the segment is none of ours. */
static bool segment_open(struct spool_recovery *recovery, struct recovery_segment *segment)
{
    struct disk *disk = recovery->disk;
    enum err err = disk_open(disk, segment->name, 0, &segment->file);
    if (err != ERR_OK) {
        segment->file = NULL;
        if (err != ERR_NOT_FOUND)
            log_line(LOG_ERROR, "spool segment=%s open=%s", segment->name, err_name(err));
        return false;
    }
    err = segment_lock(recovery, segment);
    if (err != ERR_OK) {
        disk_close(disk, segment->file);
        segment->file = NULL;
        recovery->segments_busy += err == ERR_DISK_LOCKED;
        if (name_epoch(segment->name) < recovery->epoch_newest)
            log_line(LOG_WARNING, "spool segment=%s lock=%s", segment->name, err_name(err));
        return false;
    }
    uint8_t block[SPOOL_BLOCK_SIZE] = {0};
    uint32_t size = 0;
    uint64_t file_size = 0;
    err = disk_read(disk, segment->file, 0, block, sizeof(block), &size);
    if (err == ERR_OK)
        err = disk_file_size(disk, segment->file, &file_size);
    if (err == ERR_OK)
        err = spool_segment_header_open(span_of(block, size), &segment->header);
    if (err == ERR_OK && segment->header.segment_size > file_size)
        err = ERR_DISK_CORRUPT;
    segment->is_blank = err == ERR_DISK_CORRUPT && octets_are_zero(block, size);
    segment->is_damaged = err != ERR_OK && !segment->is_blank;
    if (segment->is_damaged)
        log_line(LOG_ERROR, "spool segment=%s header=%s", segment->name, err_name(err));
    return true;
}

static int segment_compare(const void *a, const void *b)
{
    const struct recovery_segment *x = a, *y = b;
    if (x->header.epoch != y->header.epoch)
        return x->header.epoch < y->header.epoch ? -1 : 1;
    if (x->header.sequence != y->header.sequence)
        return x->header.sequence < y->header.sequence ? -1 : 1;
    return strcmp(x->name, y->name);
}

static void recovery_open_all(struct spool_recovery *recovery)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < recovery->segment_count; i++) {
        if (segment_open(recovery, &recovery->segments[i]))
            recovery->segments[kept++] = recovery->segments[i];
    }
    recovery->segment_count = kept;
    if (kept > 0)
        qsort(recovery->segments, kept, sizeof(*recovery->segments), segment_compare);
}

static void recovery_read_all(struct spool_recovery *recovery)
{
    for (uint32_t i = 0; i < recovery->segment_count; i++) {
        struct recovery_segment *segment = &recovery->segments[i];
        if (segment->is_blank || segment->is_damaged)
            continue;
        segment->is_sealed = segment_read_index(recovery, i) == ERR_OK;
        enum err err = segment->is_sealed ? ERR_OK : segment_read_records(recovery, i);
        if (err == ERR_OK)
            continue;
        segment->is_damaged = true;
        log_line(LOG_ERROR, "spool segment=%s read=%s offset=%u", segment->name, err_name(err),
                 segment->end);
    }
}

/* ---- public ---- */

enum err spool_recovery_run(struct disk *disk, struct spool_recovery **ret_recovery)
{
    struct spool_recovery *recovery = calloc(1, sizeof(*recovery));
    CHECK(recovery != NULL);
    recovery->disk = disk;
    recovery->lock_tries_left = LOCK_TRIES;
    enum err err = disk_list(disk, recovery_add_name, recovery);
    if (err == ERR_OK && recovery->segment_count > SPOOL_RECOVERY_SEGMENTS_MAX)
        err = ERR_LIMIT;
    if (err != ERR_OK) {
        recovery->segment_count = 0;
        spool_recovery_free(recovery);
        return err;
    }
    recovery_open_all(recovery);
    recovery_read_all(recovery);
    spool_merge(recovery);
    *ret_recovery = recovery;
    return ERR_OK;
}

void spool_recovery_free(struct spool_recovery *recovery)
{
    for (uint32_t i = 0; i < recovery->segment_count; i++) {
        if (recovery->segments[i].file != NULL)
            disk_close(recovery->disk, recovery->segments[i].file);
        free(recovery->segments[i].refers);
    }
    for (uint32_t i = 0; i < recovery->message_count; i++) {
        struct recovery_message *message = &recovery->messages[i];
        for (uint32_t j = 0; j < message->progress_count; j++)
            free((void *)(uintptr_t)message->progress[j].data);
        free(message->progress);
        free(message->progress_rows);
        free(message->payload);
    }
    free(recovery->messages);
    free(recovery->rows);
    free(recovery->segments);
    free(recovery);
}

struct epoch_search {
    struct spool_recovery names;
    uint64_t epoch_max;
};

/* Errors: ERR_DISK_VERSION. What cannot be read says nothing of epochs. */
static enum err epoch_look(struct epoch_search *search, struct disk *disk, const char *name)
{
    /* A segment used again by a later process keeps its name: look inside as well. */
    struct disk_file *file;
    if (disk_open(disk, name, DISK_OPEN_READ_ONLY, &file) != ERR_OK)
        return ERR_OK;
    uint8_t octets[sizeof(struct spool_segment_header)];
    struct spool_segment_header header;
    uint32_t size = 0;
    enum err err = disk_read(disk, file, 0, octets, sizeof(octets), &size);
    if (err == ERR_OK)
        err = spool_segment_header_open(span_of(octets, size), &header);
    if (err == ERR_OK && header.epoch > search->epoch_max)
        search->epoch_max = header.epoch;
    if (err == ERR_DISK_VERSION)
        log_line(LOG_ERROR, "spool segment=%s was written by a newer version", name);
    disk_close(disk, file);
    return err == ERR_DISK_VERSION ? err : ERR_OK;
}

enum err spool_epoch_next(struct disk *disk, uint64_t *ret_epoch)
{
    struct epoch_search search = {0};
    enum err err = disk_list(disk, recovery_add_name, &search.names);
    search.epoch_max = search.names.epoch_newest;
    for (uint32_t i = 0; err == ERR_OK && i < search.names.segment_count; i++)
        err = epoch_look(&search, disk, search.names.segments[i].name);
    free(search.names.segments);
    if (err == ERR_OK)
        *ret_epoch = search.epoch_max + 1;
    return err;
}

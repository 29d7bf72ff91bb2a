/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a start finds in the spool directory.
 *
 * Every segment that nobody else has locked is opened, locked and scanned (spool_scan.c), by
 * several threads at a time. The rows of all segments are then merged by id (spool_merge.c) and
 * handed out to the shards (spool_adopt.c).
 *
 * Invariants
 *   1. Nothing is written: a crash at any point, any number of times, changes nothing. What was
 *      written before and may not be durable yet is synced.
 *   2. A damaged segment costs its own messages, never the start: it is kept, reported and not
 *      used.
 *
 * A segment with a header but no index costs reading it whole; one with an index, reading the
 * index. Limits: SPOOL_RECOVERY_SEGMENTS_MAX segments in a directory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/log.h"
#include "queue/blocks.h"
#include "queue/crew.h"
#include "queue/pages.h"
#include "queue/spool_recovery.h"

#define NAME_SUFFIX   ".spool"
#define LOCK_TRIES    200u /* in all: two seconds */
#define LOCK_PAUSE_NS 10000000

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
    segment->is_blank = err == ERR_DISK_CORRUPT && octets_are_zero(block, size);
    segment->is_damaged = err != ERR_OK && !segment->is_blank;
    if (segment->is_damaged)
        log_line(LOG_ERROR, "spool segment=%s header=%s", segment->name, err_name(err));
    if (err == ERR_OK && segment->header.segment_size > file_size) {
        segment->is_damaged = true; /* what is left of it counts */
        log_line(LOG_ERROR, "spool segment=%s is cut short: octets=%lu of=%u", segment->name,
                 file_size, segment->header.segment_size);
    }
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

struct scan {
    struct spool_recovery *recovery;
    struct recovery_scratch scratch[CREW_SIZE_MAX];
};

static void scan_one(void *context, uint32_t worker, uint32_t index)
{
    struct scan *scan = context;
    spool_recovery_scan(scan->recovery, index, &scan->scratch[worker]);
}

static void recovery_scan_all(struct spool_recovery *recovery)
{
    struct scan scan = {.recovery = recovery};

    crew_run(recovery->options.threads, recovery->segment_count, scan_one, &scan);
    for (uint32_t i = 0; i < recovery->options.threads; i++)
        spool_pages_free(scan.scratch[i].octets, scan.scratch[i].size);
}

/* ---- public ---- */

enum err spool_recovery_run(struct disk *disk, const struct spool_recovery_options *options,
                            struct spool_recovery **ret_recovery)
{
    static const struct spool_recovery_options usual = {.threads = 1, .has_envelopes = true};
    struct spool_recovery *recovery = calloc(1, sizeof(*recovery));
    CHECK(recovery != NULL);
    recovery->disk = disk;
    recovery->options = options != NULL ? *options : usual;
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
    recovery_scan_all(recovery);
    spool_merge(recovery);
    *ret_recovery = recovery;
    return ERR_OK;
}

void spool_recovery_forget_rows(struct recovery_segment *segment)
{
    if (segment->pages_size > 0)
        blocks_give(segment->rows, segment->pages_size);
    else
        free(segment->rows);
    segment->rows = NULL;
    segment->pages_size = 0;
}

static void segment_forget(struct spool_recovery *recovery, struct recovery_segment *segment)
{
    if (segment->file != NULL)
        disk_close(recovery->disk, segment->file);
    if (segment->pages_size > 0)
        spool_pages_free(segment->rows, segment->pages_size);
    else
        free(segment->rows);
    free(segment->refers);
    while (segment->blocks != NULL) {
        struct recovery_block *block = segment->blocks;
        segment->blocks = block->next;
        free(block);
    }
}

void spool_recovery_free(struct spool_recovery *recovery)
{
    for (uint32_t i = 0; i < recovery->segment_count; i++)
        segment_forget(recovery, &recovery->segments[i]);
    spool_pages_free(recovery->messages, recovery->row_count * sizeof(*recovery->messages));
    spool_pages_free(recovery->rows, recovery->row_count * sizeof(*recovery->rows));
    free(recovery->segments);
    free(recovery);
    blocks_trim();
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

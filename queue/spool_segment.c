/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The segments of a spool: made, stamped, zeroed, written, sealed, used again.
 *
 * States                                     Edge done by
 *   NONE -> CREATING                         spool_segment_create()
 *   CREATING -> STAMPING | NONE              spool_segment_completed(): file made | not made
 *   CREATING -> REMOVING                     the same: the disk was full, half a file may be there
 *   SEALED -> STAMPING                       spool_segment_stamp(): nothing here is needed any more
 *   STAMPING -> ZEROING -> READY             header with a new salt is durable; zeros are durable
 *   READY -> ACTIVE                          spool_segment_writable()
 *   ACTIVE -> SEALING -> SEALED              spool_segment_seal(): index is durable
 *   READY -> REMOVING -> NONE                spool_segment_remove(): not needed any more
 *   any of these -> RETIRED                  a write or sync failed, or came late
 *
 * Invariants
 *   1. A segment is stamped for reuse only when no live message needs a record in it (holds == 0),
 *      none is being read,
 *      and every MESSAGE that its DONE and VOID records speak of is in a segment that was stamped
 *      since (refers is empty): finished mail would come back otherwise.
 *   2. What a stamp makes free is free only when the stamp is durable: then the bits of this
 *      segment are cleared everywhere, and its serial number makes old places stale.
 *   3. A RETIRED segment is never written, synced, stamped or removed by this process.
 *   4. References point from younger generations to older ones: there is no cycle.
 *
 * At most one segment is in preparation at a time, in slices of SEGMENT_SLICE, so that the disk
 * stays the commits'. When commits wait for a segment, zeroing is left out: an unzeroed segment is
 * correct, only slower (its syncs commit the file system's journal), and is left again as soon as a
 * zeroed one is ready.
 *
 * Limits: SPOOL_SEGMENT_COUNT_MAX segments, options.size_max octets. Not here: which of them are
 * made, used again or removed, and when (spool_supply.c); what is copied forward (spool_copy.c).
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "queue/spool_internal.h"

#define SEGMENT_SLICE      (1u << 20) /* octets zeroed at a time */
#define SEGMENT_ZERO_UNIT  (16u << 10)
#define SEGMENT_ZERO_SYNC  (4u << 20) /* octets zeroed between syncs */
#define SEGMENT_NAME_TRIES 8u

#define TO(state) (1u << SPOOL_SEGMENT_##state)

static const uint32_t segment_edges[SPOOL_SEGMENT_STATE_COUNT] = {
    [SPOOL_SEGMENT_NONE] = TO(CREATING) | TO(SEALED),
    [SPOOL_SEGMENT_CREATING] = TO(STAMPING) | TO(REMOVING) | TO(NONE),
    [SPOOL_SEGMENT_STAMPING] = TO(ZEROING) | TO(READY) | TO(RETIRED),
    [SPOOL_SEGMENT_ZEROING] = TO(READY) | TO(RETIRED),
    [SPOOL_SEGMENT_READY] = TO(ACTIVE) | TO(REMOVING),
    [SPOOL_SEGMENT_ACTIVE] = TO(SEALING) | TO(RETIRED),
    [SPOOL_SEGMENT_SEALING] = TO(SEALED) | TO(RETIRED),
    [SPOOL_SEGMENT_SEALED] = TO(STAMPING) | TO(RETIRED),
    [SPOOL_SEGMENT_RETIRED] = 0,
    [SPOOL_SEGMENT_REMOVING] = TO(NONE),
};

static const uint8_t segment_zeros[SEGMENT_ZERO_UNIT];

/* The only writer of segment->state. */
static void segment_enter(struct spool_segment *segment, enum spool_segment_state next)
{
    CHECK(next < SPOOL_SEGMENT_STATE_COUNT);
    CHECK(segment_edges[segment->state] & 1u << next);
    segment->state = next;
    segment->spool->is_census_due = true;
}

/* ---- making ---- */

static struct spool_segment *segment_new(struct spool *spool)
{
    for (uint32_t i = 0; i < spool->segment_count; i++) {
        if (spool->segments[i]->state == SPOOL_SEGMENT_NONE)
            return spool->segments[i];
    }
    CHECK(spool->segment_count < SPOOL_SEGMENT_COUNT_MAX);
    struct spool_segment *segment = calloc(1, sizeof(*segment));
    struct spool_segment **segments =
        realloc(spool->segments, (spool->segment_count + 1) * sizeof(*segments));
    CHECK(segment != NULL && segments != NULL);
    segment->spool = spool;
    segment->io = (struct spool_io){SPOOL_IO_SEGMENT, segment};
    segment->index = (uint16_t)spool->segment_count;
    spool->segments = segments;
    spool->segments[spool->segment_count++] = segment;
    return segment;
}

static void segment_name(struct spool *spool, struct spool_segment *segment)
{
    snprintf(segment->name, sizeof(segment->name), "%08x-%04x-%08x.spool",
             (uint32_t)spool->options.epoch, spool->options.shard, ++spool->name_number);
}

static void segment_submit(struct spool_segment *segment)
{
    segment->spool->operations++;
}

static uint64_t segment_token(struct spool_segment *segment)
{
    return (uintptr_t)&segment->io;
}

void spool_segment_create(struct spool *spool, uint32_t size)
{
    struct spool_segment *segment = segment_new(spool);
    segment_name(spool, segment);
    segment_enter(segment, SPOOL_SEGMENT_CREATING);
    segment->size = size;
    segment->is_zeroed = segment->is_foreign = false;
    segment_submit(segment);
    disk_submit_create(spool->disk, segment->name, segment->size, &segment->file,
                       segment_token(segment));
}

void spool_segment_stamp(struct spool_segment *segment)
{
    struct spool *spool = segment->spool;
    CHECK(segment->holds == 0 && segment->entries == NULL);
    segment_enter(segment, SPOOL_SEGMENT_STAMPING);
    segment->salt = rng_u64(spool->rng);
    segment->block = calloc(1, SPOOL_BLOCK_SIZE);
    CHECK(segment->block != NULL);
    struct spool_segment_header header = {
        .shard = spool->options.shard,
        .salt = segment->salt,
        .sequence = ++spool->sequence,
        .epoch = (uint32_t)spool->options.epoch,
        .segment_size = segment->size,
    };
    spool_segment_header_seal(&header);
    memcpy(segment->block, &header, sizeof(header));
    struct iovec vector = {segment->block, SPOOL_BLOCK_SIZE};
    segment_submit(segment);
    disk_submit_write(spool->disk, segment->file, 0, &vector, 1, true, segment_token(segment));
}

static void segment_unlink(struct spool_segment *segment)
{
    segment_enter(segment, SPOOL_SEGMENT_REMOVING);
    segment_submit(segment);
    disk_submit_remove(segment->spool->disk, segment->name, segment_token(segment));
}

void spool_segment_remove(struct spool_segment *segment)
{
    disk_close(segment->spool->disk, segment->file);
    segment->file = NULL;
    segment_unlink(segment);
}

/* The next slice of zeros, or the sync of those before. */
static void segment_zero(struct spool_segment *segment)
{
    struct spool *spool = segment->spool;
    bool is_end = segment->zeroed == segment->size;
    segment_submit(segment);
    segment->is_zero_sync =
        !segment->is_zero_sync && (is_end || segment->zeroed % SEGMENT_ZERO_SYNC == 0);
    if (segment->is_zero_sync) {
        disk_submit_sync(spool->disk, segment->file, segment_token(segment));
        return;
    }
    struct iovec vector[SEGMENT_SLICE / SEGMENT_ZERO_UNIT];
    uint32_t count = 0, slice = 0;
    while (slice < SEGMENT_SLICE && segment->zeroed + slice < segment->size) {
        uint32_t left = segment->size - segment->zeroed - slice;
        uint32_t size = left < SEGMENT_ZERO_UNIT ? left : SEGMENT_ZERO_UNIT;
        vector[count++] = (struct iovec){(void *)(uintptr_t)segment_zeros, size};
        slice += size;
    }
    uint32_t offset = segment->zeroed;
    segment->zeroed += slice;
    disk_submit_write(spool->disk, segment->file, offset, vector, count, false,
                      segment_token(segment));
}

/* Create and lock the first file. A recovery that looks at the directory at this moment may have
 * taken the lock first: then the next name. */
static enum err segment_open_first(struct spool *spool, struct spool_segment *segment)
{
    enum err err = ERR_DISK_LOCKED;
    for (uint32_t i = 0; i < SEGMENT_NAME_TRIES && err == ERR_DISK_LOCKED; i++) {
        segment_name(spool, segment);
        TRY(disk_open(spool->disk, segment->name, DISK_OPEN_CREATE, &segment->file));
        err = disk_lock(spool->disk, segment->file);
        if (err != ERR_OK) {
            disk_close(spool->disk, segment->file);
            segment->file = NULL;
        }
    }
    return err;
}

enum err spool_segment_create_first(struct spool *spool)
{
    struct disk *disk = spool->disk;
    struct spool_segment *segment = segment_new(spool);
    enum err err = segment_open_first(spool, segment), err_unlink = ERR_OK;
    bool is_open = err == ERR_OK;
    if (is_open)
        err = disk_allocate(disk, segment->file, spool->options.segment_size);
    if (err == ERR_OK)
        err = disk_sync_directory(disk);
    if (err != ERR_OK && is_open) {
        disk_close(disk, segment->file);
        segment->file = NULL;
        err_unlink = disk_unlink(disk, segment->name);
    }
    if (err != ERR_OK) {
        /* A full disk must not keep us from delivering what is in the spool already. */
        spool->is_create_refused = err == ERR_DISK_FULL;
        return err == ERR_DISK_FULL && err_unlink == ERR_OK ? ERR_OK : err;
    }
    segment->size = spool->options.segment_size;
    segment_enter(segment, SPOOL_SEGMENT_CREATING);
    spool_segment_stamp(segment);
    return ERR_OK;
}

struct spool_segment *spool_segment_adopt(struct spool *spool, struct disk_file *file,
                                          const char *name,
                                          const struct spool_segment_header *header)
{
    CHECK(strlen(name) < DISK_NAME_SIZE_MAX);
    struct spool_segment *segment = segment_new(spool);
    segment_enter(segment, SPOOL_SEGMENT_SEALED);
    segment->file = file;
    memcpy(segment->name, name, strlen(name) + 1);
    segment->size = header->segment_size;
    segment->salt = header->salt;
    segment->is_foreign = true;
    segment->serial = ++spool->serial_adopted;
    return segment;
}

/* Sealed segments are many: they keep no index in memory. */
static void segment_forget_rows(struct spool_segment *segment)
{
    free(segment->rows);
    free(segment->details);
    segment->rows = NULL;
    segment->details = NULL;
    segment->row_count = segment->row_capacity = 0;
    segment->details_size = segment->details_capacity = 0;
}

/* ---- completions ---- */

static void segment_created(struct spool_segment *segment, enum err err)
{
    struct spool *spool = segment->spool;
    if (err == ERR_OK) {
        uint64_t twice = 2 * (uint64_t)segment->size;
        spool->is_create_refused = false;
        if (spool->create_size_max < twice)
            spool->create_size_max =
                twice < spool->options.segment_size ? (uint32_t)twice : spool->options.segment_size;
        spool_segment_stamp(segment);
        return;
    }
    if (err != ERR_DISK_LOCKED)
        spool->create_not_before = spool->now.tick + SPOOL_RETRY_TIME;
    if (err != ERR_DISK_FULL) {
        segment_enter(segment, SPOOL_SEGMENT_NONE);
        return;
    }
    /* Other cores may want what is left, too, and its last octets are the file system's. Half a
     * file would keep it all. */
    spool->create_size_max = segment->size / 2;
    spool->is_create_refused = true;
    segment_unlink(segment);
}

/* The new generation begins (invariant 2). */
static void segment_stamped(struct spool_segment *segment)
{
    struct spool *spool = segment->spool;
    free(segment->block);
    segment->block = NULL;
    for (uint32_t i = 0; i < spool->segment_count; i++) {
        uint64_t *word = &spool->segments[i]->refers[segment->index / 64];
        *word &= ~((uint64_t)1 << segment->index % 64);
    }
    memset(segment->refers, 0, sizeof(segment->refers));
    spool->failures_in_row = 0; /* a write and a sync went well */
    spool->retry_at = 0;
    spool->stats.recycled_segments += segment->serial != 0;
    segment->serial = ++spool->serial;
    segment->used = SPOOL_BLOCK_SIZE;
    segment->ranges_told = 0;
    segment_forget_rows(segment);
    segment->is_drained = segment->is_dirty = false;
    if (segment->is_zeroed || spool_segments_are_out(spool) || segment->is_foreign) {
        segment_enter(segment, SPOOL_SEGMENT_READY);
        return;
    }
    segment->zeroed = SPOOL_BLOCK_SIZE;
    segment->is_zero_sync = true; /* nothing to sync yet */
    segment_enter(segment, SPOOL_SEGMENT_ZEROING);
    segment_zero(segment);
}

static void segment_zeroed(struct spool_segment *segment)
{
    bool is_done = segment->zeroed == segment->size && segment->is_zero_sync;
    if (!is_done && !segment->spool->is_flushing) {
        segment_zero(segment);
        return;
    }
    segment->is_zeroed = is_done;
    segment_enter(segment, SPOOL_SEGMENT_READY);
}

static void segment_sealed(struct spool_segment *segment)
{
    free(segment->block);
    segment->block = NULL;
    segment->has_index = segment->is_end_known = true;
    segment_enter(segment, SPOOL_SEGMENT_SEALED);
}

void spool_segment_retire(struct spool *spool, struct spool_segment *segment)
{
    segment_enter(segment, SPOOL_SEGMENT_RETIRED);
    segment_forget_rows(segment);
    if (spool->active == segment)
        spool->active = NULL;
    spool->failures_in_row++;
    spool->stats.sync_failures++;
    if (spool->failures_in_row > 1)
        spool->retry_at = spool->now.tick + SPOOL_RETRY_TIME;
}

void spool_segment_completed(struct spool *spool, struct spool_segment *segment, enum err err)
{
    CHECK(spool->operations > 0);
    spool->operations--;
    if (segment->state == SPOOL_SEGMENT_CREATING) {
        segment_created(segment, err);
        return;
    }
    if (segment->state == SPOOL_SEGMENT_REMOVING) {
        segment_enter(segment, SPOOL_SEGMENT_NONE);
        return;
    }
    if (err != ERR_OK) {
        free(segment->block);
        segment->block = NULL;
        spool_segment_retire(spool, segment);
        return;
    }
    if (segment->state == SPOOL_SEGMENT_STAMPING)
        segment_stamped(segment);
    else if (segment->state == SPOOL_SEGMENT_ZEROING)
        segment_zeroed(segment);
    else
        segment_sealed(segment);
}

/* ---- writing ---- */

static uint32_t segment_index_octets(const struct spool_segment *segment, uint32_t rows_more,
                                     uint32_t details_more)
{
    uint64_t rows = (segment->row_count + (uint64_t)rows_more) * sizeof(struct spool_row);
    return (uint32_t)spool_align(rows + segment->details_size + details_more, SPOOL_BLOCK_SIZE);
}

uint32_t spool_segment_room(const struct spool_segment *segment, uint32_t rows_more,
                            uint32_t details_more)
{
    uint32_t kept = SPOOL_BLOCK_SIZE + segment_index_octets(segment, rows_more, details_more);
    return segment->used + kept >= segment->size ? 0 : segment->size - segment->used - kept;
}

static void segment_add_detail(struct spool_segment *segment, struct span detail)
{
    if (segment->details_size + detail.size > segment->details_capacity) {
        uint32_t capacity = 2 * segment->details_capacity + 4 * SPOOL_DETAIL_SIZE_MAX;
        segment->details = realloc(segment->details, capacity);
        CHECK(segment->details != NULL);
        segment->details_capacity = capacity;
    }
    if (detail.size > 0)
        memcpy(segment->details + segment->details_size, detail.data, detail.size);
    segment->details_size += detail.size;
}

void spool_segment_row(struct spool_segment *segment, const struct spool_record *record,
                       uint32_t offset, struct span detail)
{
    CHECK(detail.size <= SPOOL_DETAIL_SIZE_MAX);
    if (segment->row_count == segment->row_capacity) {
        uint32_t capacity = segment->row_capacity == 0 ? 256 : 2 * segment->row_capacity;
        segment->rows = realloc(segment->rows, capacity * sizeof(*segment->rows));
        CHECK(segment->rows != NULL);
        segment->row_capacity = capacity;
    }
    segment->rows[segment->row_count++] = (struct spool_row){
        .id = record->id,
        .sequence = record->sequence,
        .epoch = record->epoch,
        .copy = record->copy,
        .offset = offset,
        .payload_size = record->payload_size,
        .type = record->type,
        .detail_size = detail.size,
    };
    segment_add_detail(segment, detail);
}

void spool_segment_seal(struct spool *spool)
{
    struct spool_segment *segment = spool->active;
    CHECK(segment != NULL && !segment->is_dirty && spool->flight == NULL);
    uint32_t octets = segment_index_octets(segment, 0, 0);
    uint32_t rows_size = segment->row_count * (uint32_t)sizeof(struct spool_row);
    CHECK(segment->used + octets + SPOOL_BLOCK_SIZE <= segment->size);
    segment->block = calloc(1, octets + SPOOL_BLOCK_SIZE);
    CHECK(segment->block != NULL);
    if (rows_size > 0)
        memcpy(segment->block, segment->rows, rows_size);
    if (segment->details_size > 0)
        memcpy(segment->block + rows_size, segment->details, segment->details_size);
    struct spool_trailer trailer = {
        .salt = segment->salt,
        .index_offset = segment->size - SPOOL_BLOCK_SIZE - octets,
        .row_count = segment->row_count,
        .details_size = segment->details_size,
        .log_end = segment->used,
    };
    spool_trailer_seal(&trailer, span_of(segment->block, spool_index_size(&trailer)));
    memcpy(segment->block + octets, &trailer, sizeof(trailer));
    segment_forget_rows(segment);

    segment_enter(segment, SPOOL_SEGMENT_SEALING);
    spool->active = NULL;
    segment_submit(segment);
    struct iovec vector = {segment->block, octets + SPOOL_BLOCK_SIZE};
    disk_submit_write(spool->disk, segment->file, trailer.index_offset, &vector, 1, true,
                      segment_token(segment));
}

struct spool_segment *spool_segment_writable(struct spool *spool)
{
    struct spool_segment *active = spool->active;
    if (active != NULL && (active->is_zeroed || active->is_dirty || spool->census.ready == 0 ||
                           !spool_may_waste(spool, spool_segment_room(active, 0, 0))))
        return active;
    struct spool_segment *ready = spool_segment_find_ready(spool);
    if (ready == NULL || (active != NULL && !ready->is_zeroed))
        return active;
    if (active != NULL)
        spool_segment_seal(spool);
    segment_enter(ready, SPOOL_SEGMENT_ACTIVE);
    /* Serial numbers rise with the age of content: this generation's begins now. */
    CHECK(ready->row_count == 0);
    ready->serial = ++spool->serial;
    spool->active = ready;
    if (spool->is_stuck)
        log_line(LOG_WARNING, "event=spool_writable shard=%u segment=%s octets=%u",
                 spool->options.shard, ready->name, ready->size);
    spool->is_stuck = false;
    return ready;
}

/* ---- the end ---- */

void spool_segments_free(struct spool *spool)
{
    for (uint32_t i = 0; i < spool->segment_count; i++) {
        struct spool_segment *segment = spool->segments[i];
        if (segment->file != NULL)
            disk_close(spool->disk, segment->file);
        segment_forget_rows(segment);
        free(segment->block);
        free(segment);
    }
    free(spool->segments);
}

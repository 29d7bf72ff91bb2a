/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The segments of a spool: made, stamped, zeroed, written, sealed, used again.
 *
 * States                                     Edge done by
 *   NONE -> CREATING                         segment_create()
 *   CREATING -> STAMPING | NONE              spool_segment_completed(): file made | not made
 *   SEALED -> STAMPING                       segment_stamp(): nothing here is needed any more
 *   STAMPING -> ZEROING -> READY             header with a new salt is durable; zeros are durable
 *   READY -> ACTIVE                          spool_segment_writable()
 *   ACTIVE -> SEALING -> SEALED              spool_segment_seal(): index is durable
 *   READY -> REMOVING -> NONE                segment_remove(): too many of an earlier process
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
 * Limits: SPOOL_SEGMENT_COUNT_MAX segments, options.size_max octets. Not here: choosing what is
 * copied forward (spool_copy.c).
 */
#include <stdio.h>
#include <stdlib.h>

#include "queue/spool_internal.h"

#define SEGMENT_SLICE      (1u << 20) /* octets zeroed at a time */
#define SEGMENT_ZERO_UNIT  (16u << 10)
#define SEGMENT_ZERO_SYNC  (4u << 20) /* octets zeroed between syncs */
#define SEGMENT_NAME_TRIES 8u
#define SEGMENT_URGENT     4u

#define TO(state) (1u << SPOOL_SEGMENT_##state)

static const uint32_t segment_edges[SPOOL_SEGMENT_STATE_COUNT] = {
    [SPOOL_SEGMENT_NONE] = TO(CREATING) | TO(SEALED),
    [SPOOL_SEGMENT_CREATING] = TO(STAMPING) | TO(NONE),
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

static void segment_create(struct spool *spool)
{
    struct spool_segment *segment = segment_new(spool);
    segment_name(spool, segment);
    segment_enter(segment, SPOOL_SEGMENT_CREATING);
    segment->size = spool->options.segment_size;
    segment->is_zeroed = segment->is_foreign = false;
    segment_submit(segment);
    disk_submit_create(spool->disk, segment->name, segment->size, &segment->file,
                       segment_token(segment));
}

/* Write the header of a new generation. What was here before is forgotten by the next start. */
static void segment_stamp(struct spool_segment *segment)
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
    TRY(segment_open_first(spool, segment));
    enum err err = disk_allocate(disk, segment->file, spool->options.segment_size);
    if (err == ERR_OK)
        err = disk_sync_directory(disk);
    if (err != ERR_OK) {
        disk_close(disk, segment->file);
        segment->file = NULL;
        enum err err_unlink = disk_unlink(disk, segment->name);
        /* A full disk must not keep us from delivering what is in the spool already. */
        return err == ERR_DISK_FULL && err_unlink == ERR_OK ? ERR_OK : err;
    }
    segment->size = spool->options.segment_size;
    segment_enter(segment, SPOOL_SEGMENT_CREATING);
    segment_stamp(segment);
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
        segment_stamp(segment);
        return;
    }
    segment_enter(segment, SPOOL_SEGMENT_NONE);
    if (err != ERR_DISK_LOCKED)
        spool->create_not_before = spool->now.tick + SPOOL_RETRY_TIME;
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
    bool is_urgent = spool->active == NULL && spool->census.ready == 0;
    if (segment->is_zeroed || is_urgent || segment->is_foreign) {
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

/* A READY segment, a zeroed one before others. */
static struct spool_segment *segment_find_ready(const struct spool *spool)
{
    struct spool_segment *best = NULL;
    for (uint32_t i = 0; i < spool->segment_count; i++) {
        struct spool_segment *segment = spool->segments[i];
        if (segment->state == SPOOL_SEGMENT_READY &&
            (best == NULL || (segment->is_zeroed && !best->is_zeroed)))
            best = segment;
    }
    return best;
}

struct spool_segment *spool_segment_writable(struct spool *spool)
{
    struct spool_segment *active = spool->active;
    if (active != NULL && (active->is_zeroed || active->is_dirty || spool->census.ready == 0))
        return active;
    struct spool_segment *ready = segment_find_ready(spool);
    if (ready == NULL || (active != NULL && !ready->is_zeroed))
        return active;
    if (active != NULL)
        spool_segment_seal(spool);
    segment_enter(ready, SPOOL_SEGMENT_ACTIVE);
    /* Serial numbers rise with the age of content: this generation's begins now. */
    CHECK(ready->row_count == 0);
    ready->serial = ++spool->serial;
    spool->active = ready;
    return ready;
}

/* ---- housekeeping ---- */

/* Segments that fit between `octets` and `octets_max`, as far as the file system has room. */
static uint32_t segments_fitting(const struct spool *spool, uint64_t octets, uint64_t octets_max,
                                 uint64_t octets_free)
{
    uint64_t room = octets < octets_max ? octets_max - octets : 0;
    return (uint32_t)((room < octets_free ? room : octets_free) / spool->options.segment_size);
}

/* When there is no segment at all for what waits, not even by copying, or because more than
 * size_max was adopted, SEGMENT_URGENT more are allowed: only DONE and PROGRESS free space in the
 * end. */
static void segments_count_creatable(struct spool *spool, struct spool_census *census,
                                     uint64_t octets_foreign)
{
    uint64_t octets_free, octets_total;
    if (spool->now.tick < spool->create_not_before ||
        disk_space(spool->disk, &octets_free, &octets_total) != ERR_OK)
        return;
    uint64_t most = spool->options.size_max;
    uint64_t most_urgent = (most > octets_foreign ? most : octets_foreign) +
                           SEGMENT_URGENT * (uint64_t)spool->options.segment_size;
    census->creatable = segments_fitting(spool, census->octets, most, octets_free);
    census->creatable_urgent = segments_fitting(spool, census->octets, most_urgent, octets_free);
}

static void segments_count(struct spool *spool)
{
    struct spool_census census = {0};
    uint64_t octets_foreign = 0;
    for (uint32_t i = 0; i < spool->segment_count; i++) {
        const struct spool_segment *segment = spool->segments[i];
        census.octets += segment->state == SPOOL_SEGMENT_NONE ? 0 : segment->size;
        octets_foreign +=
            segment->is_foreign && segment->state != SPOOL_SEGMENT_NONE ? segment->size : 0;
        census.ready += segment->state == SPOOL_SEGMENT_READY;
        bool is_reusable = spool_segment_is_reusable(segment);
        census.reusable += is_reusable;
        census.foreign +=
            segment->is_foreign && (is_reusable || segment->state == SPOOL_SEGMENT_READY);
        census.preparing +=
            segment->state == SPOOL_SEGMENT_CREATING || segment->state == SPOOL_SEGMENT_STAMPING ||
            segment->state == SPOOL_SEGMENT_ZEROING || segment->state == SPOOL_SEGMENT_REMOVING;
    }
    segments_count_creatable(spool, &census, octets_foreign);
    spool->census = census;
    spool->is_census_due = false;
    spool->space_checked = spool->now.tick;
}

/* The oldest segment that may be used anew, of an earlier process only or of any. */
static struct spool_segment *segment_find_reusable(const struct spool *spool, bool is_foreign_only)
{
    struct spool_segment *oldest = NULL;
    for (uint32_t i = 0; i < spool->segment_count; i++) {
        struct spool_segment *segment = spool->segments[i];
        if (spool_segment_is_reusable(segment) && (segment->is_foreign || !is_foreign_only) &&
            (oldest == NULL || segment->serial < oldest->serial))
            oldest = segment;
    }
    return oldest;
}

static struct spool_segment *segment_find_surplus(const struct spool *spool)
{
    for (uint32_t i = 0; i < spool->segment_count; i++) {
        if (spool->segments[i]->state == SPOOL_SEGMENT_READY && spool->segments[i]->is_foreign)
            return spool->segments[i];
    }
    return NULL;
}

static void segment_remove(struct spool_segment *segment)
{
    struct spool *spool = segment->spool;
    segment_enter(segment, SPOOL_SEGMENT_REMOVING);
    disk_close(spool->disk, segment->file);
    segment->file = NULL;
    segment_submit(segment);
    disk_submit_remove(spool->disk, segment->name, segment_token(segment));
}

void spool_segments_maintain(struct spool *spool)
{
    bool is_time = spool->now.tick >= spool->space_checked + SPOOL_RETRY_TIME;
    if (is_time || spool->is_census_due)
        segments_count(spool);
    for (uint32_t i = 0; is_time && i < spool->segment_count; i++)
        spool->segments[i]->is_drained = false; /* the copier may try again */
    const struct spool_census *census = &spool->census;
    if (census->preparing > 0 || spool->now.tick < spool->retry_at)
        return;
    uint32_t wanted = spool->options.segment_spare_min;
    bool is_urgent = spool->active == NULL && census->ready == 0;
    bool is_needed = census->ready < wanted || is_urgent;
    if (spool->is_flushing && !is_urgent)
        return;
    if (!is_needed && census->foreign == 0)
        return;
    struct spool_segment *reusable = segment_find_reusable(spool, !is_needed);
    uint32_t creatable =
        is_urgent && spool->pending.first != NULL ? census->creatable_urgent : census->creatable;
    struct spool_segment *surplus = census->ready > wanted ? segment_find_surplus(spool) : NULL;
    if (surplus != NULL)
        segment_remove(surplus);
    else if (reusable != NULL)
        segment_stamp(reusable);
    else if (is_needed && creatable > 0 && spool->segment_count < SPOOL_SEGMENT_COUNT_MAX / 2)
        segment_create(spool);
}

static uint64_t segments_room(const struct spool *spool, uint32_t creatable)
{
    uint64_t capacity = spool->options.segment_size - 4 * SPOOL_BLOCK_SIZE;
    uint64_t room = spool->active == NULL ? 0 : spool_segment_room(spool->active, 64, 0);
    const struct spool_census *census = &spool->census;
    return room + capacity * (census->ready + census->preparing + census->reusable + creatable);
}

uint64_t spool_room(const struct spool *spool)
{
    return segments_room(spool, spool->census.creatable);
}

uint64_t spool_room_urgent(const struct spool *spool)
{
    return segments_room(spool, spool->census.creatable_urgent);
}

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

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The supply of segments: how many there may be, and which one is made, used again or removed next.
 *
 * A file system may refuse a file although it has the octets: there is no inode, or a quota. Once
 * it has, what it says is free is no room until a file could be made; that is tried every
 * SPOOL_RETRY_TIME.
 *
 * On a full disk: when records wait and there is nothing to write to, a segment is made of what is
 * left, down to SPOOL_SEGMENT_SIZE_MIN; some hundred octets for each DONE free whole segments. The
 * tail of the active segment cannot be counted on for that: it is lost with the process. Small
 * segments are used again only when there is no other, and are removed when there are enough.
 *
 * A spool of options.size_max that is full of mail which owes notifications can be emptied only by
 * writing these, and they may take more than the mail did, and wait long for their receivers. So
 * what ends mail may take as much again, where the file system has it, rather than stand still.
 *
 * Invariants
 *   1. One segment is in preparation at a time.
 *   2. One that is chosen for the next record takes it.
 *   3. More than options.size_max is made only when there is nothing to write to.
 *   4. Room that is promised to mail is in files that are there, or that nothing has refused, and
 *      that no other spool counts on.
 *   5. Only a spool that has nothing at all to write to takes what others count on: it stands, and
 *      they have room, or this would be its own.
 *
 * Limits: half of SPOOL_SEGMENT_COUNT_MAX own segments; twice options.size_max and SEGMENT_URGENT
 * for what ends mail. Not here: what a segment goes through (spool_segment.c), when one may be used
 * again (spool_place.c), who may take which room (spool_space.c).
 */
#include "base/log.h"
#include "queue/spool_internal.h"

#define SEGMENT_URGENT 4u

/* ---- choosing ---- */

static bool segment_is_small(const struct spool_segment *segment)
{
    return segment->size < segment->spool->options.segment_size;
}

/* Octets that a segment must have to take the next record: with its header, an index of one row
 * with its detail, and the trailer. */
static uint64_t segments_need(const struct spool *spool)
{
    const struct spool_item *item = spool->pending.first;
    uint64_t payload = item == NULL ? 0 : item->record.payload_size;
    return spool_align(sizeof(item->record) + payload, SPOOL_BLOCK_SIZE) + 4 * SPOOL_BLOCK_SIZE;
}

struct spool_segment *spool_segment_find_ready(const struct spool *spool)
{
    struct spool_segment *best = NULL;
    for (uint32_t i = 0; i < spool->segment_count; i++) {
        struct spool_segment *segment = spool->segments[i];
        if (segment->state == SPOOL_SEGMENT_READY && segment->size >= segments_need(spool) &&
            (best == NULL || (segment->is_zeroed && !best->is_zeroed)))
            best = segment;
    }
    return best;
}

bool spool_segments_are_out(const struct spool *spool)
{
    return spool->active == NULL && spool_segment_find_ready(spool) == NULL;
}

/* ---- housekeeping ---- */

/* Segments that fit between `octets` and `octets_max`, as far as the file system has room. */
static uint32_t segments_fitting(const struct spool *spool, uint64_t octets, uint64_t octets_max,
                                 uint64_t octets_free)
{
    uint64_t room = octets < octets_max ? octets_max - octets : 0;
    return (uint32_t)((room < octets_free ? room : octets_free) / spool->options.segment_size);
}

/* A whole segment if there is room, else no more than half of it as long as that will do: other
 * cores need theirs. */
uint32_t spool_segment_urgent_size(const struct spool *spool)
{
    uint64_t room = spool->census.creatable_octets;
    uint64_t least = segments_need(spool), size = spool->create_size_max;
    least = least < SPOOL_SEGMENT_SIZE_MIN ? SPOOL_SEGMENT_SIZE_MIN : least;
    bool is_whole = size == spool->options.segment_size && size <= room;
    while (!is_whole && size > least && size > room / 2)
        size /= 2;
    size = size < least ? least : size & ~(uint64_t)(SPOOL_BLOCK_SIZE - 1);
    return size <= room && size <= SPOOL_SEGMENT_SIZE_MAX ? (uint32_t)size : 0;
}

/* When there is no segment at all for what waits, not even by copying, or because more than
 * size_max was adopted, as much again and SEGMENT_URGENT are allowed: only notifications, DONE and
 * PROGRESS free space in the end. */
static void segments_count_creatable(struct spool *spool, struct spool_census *census,
                                     uint64_t octets_foreign, uint64_t octets_made)
{
    uint64_t octets_free, octets_total;
    if (spool->now.tick < spool->create_not_before ||
        disk_space(spool->disk, &octets_free, &octets_total) != ERR_OK)
        return;
    uint64_t most = spool->options.size_max;
    uint64_t share = spool_share_max(spool, octets_made, octets_free);
    uint64_t most_urgent = 2 * (most > octets_foreign ? most : octets_foreign) +
                           SEGMENT_URGENT * (uint64_t)spool->options.segment_size;
    uint64_t room = census->octets < most_urgent ? most_urgent - census->octets : 0;
    census->creatable_octets = room < octets_free ? room : octets_free;
    most = most < share ? most : share;
    most_urgent = most_urgent < share ? most_urgent : share;
    census->creatable = segments_fitting(spool, census->octets, most, octets_free);
    census->creatable_urgent = segments_fitting(spool, census->octets, most_urgent, octets_free);
    census->is_space_known = true;
}

/* What is in preparation will be room, but for a file that may be refused as the one before was. */
static bool segment_will_be_room(const struct spool_segment *segment)
{
    return segment->state == SPOOL_SEGMENT_STAMPING || segment->state == SPOOL_SEGMENT_ZEROING ||
           !segment->spool->is_create_refused;
}

/* Octets up to which a segment was used: all of it, where its process did not seal it, or left it
 * with much unwritten. A little at the end no record fits in. */
static uint64_t segment_written(const struct spool_segment *segment)
{
    uint64_t most = segment->size - 4 * SPOOL_BLOCK_SIZE;

    if (segment->state == SPOOL_SEGMENT_SEALED && !segment->has_index)
        return segment->size;
    if (segment->state == SPOOL_SEGMENT_SEALED && segment->used + segment->size / 8 < most)
        return most;
    return segment->used;
}

/* What nobody needs, before the copier has made room of it: records, and the end of a segment that
 * was not written. */
static uint64_t segment_garbage(const struct spool_segment *segment)
{
    bool is_sealed = segment->state == SPOOL_SEGMENT_SEALED;
    uint64_t needed = SPOOL_BLOCK_SIZE + segment->live_octets, written = segment_written(segment);

    if ((!is_sealed && segment->state != SPOOL_SEGMENT_ACTIVE) ||
        spool_segment_is_reusable(segment) || written < needed)
        return 0;
    return written - needed;
}

static bool segment_is_made(const struct spool_segment *segment)
{
    return segment->state != SPOOL_SEGMENT_NONE && segment->state != SPOOL_SEGMENT_CREATING;
}

static void segments_count(struct spool *spool)
{
    struct spool_census census = {0};
    uint64_t octets_foreign = 0, octets_made = 0;
    for (uint32_t i = 0; i < spool->segment_count; i++) {
        const struct spool_segment *segment = spool->segments[i];
        census.octets += segment->state == SPOOL_SEGMENT_NONE ? 0 : segment->size;
        octets_made += segment_is_made(segment) ? segment->size : 0;
        octets_foreign +=
            segment->is_foreign && segment->state != SPOOL_SEGMENT_NONE ? segment->size : 0;
        census.lost += segment->state == SPOOL_SEGMENT_RETIRED ? segment->size : 0;
        census.garbage += segment_garbage(segment);
        census.ready += segment->state == SPOOL_SEGMENT_READY;
        bool is_reusable = spool_segment_is_reusable(segment);
        census.reusable += is_reusable;
        bool is_free = is_reusable || segment->state == SPOOL_SEGMENT_READY;
        census.foreign += segment->is_foreign && is_free;
        census.small += segment_is_small(segment) && is_free;
        bool is_preparing =
            segment->state == SPOOL_SEGMENT_CREATING || segment->state == SPOOL_SEGMENT_STAMPING ||
            segment->state == SPOOL_SEGMENT_ZEROING || segment->state == SPOOL_SEGMENT_REMOVING;
        census.preparing += is_preparing;
        bool is_room = is_free || (is_preparing && segment_will_be_room(segment));
        census.room += is_room ? segment->size - 4 * SPOOL_BLOCK_SIZE : 0;
    }
    segments_count_creatable(spool, &census, octets_foreign, octets_made);
    census.total = census.total_urgent = census.octets - census.lost;
    if (!spool->is_create_refused) {
        census.total += census.creatable * (uint64_t)spool->options.segment_size;
        census.total_urgent += census.creatable_urgent * (uint64_t)spool->options.segment_size;
    }
    spool->census = census;
    spool->is_census_due = false;
    spool->space_checked = spool->now.tick;
}

/* Of an earlier process, or small: removed when there are others. */
static bool segment_is_surplus(const struct spool_segment *segment)
{
    return segment->is_foreign || segment_is_small(segment);
}

/* The oldest segment that may be used anew, small or not, and of those that may be surplus only or
 * of any; it takes the next record. */
static struct spool_segment *segment_find_reusable(const struct spool *spool, bool is_small,
                                                   bool is_surplus_only)
{
    struct spool_segment *oldest = NULL;
    for (uint32_t i = 0; i < spool->segment_count; i++) {
        struct spool_segment *segment = spool->segments[i];
        if (spool_segment_is_reusable(segment) && segment_is_small(segment) == is_small &&
            (is_surplus_only ? segment_is_surplus(segment)
                             : segment->size >= segments_need(spool)) &&
            (oldest == NULL || segment->serial < oldest->serial))
            oldest = segment;
    }
    return oldest;
}

/* A small one before others. */
static struct spool_segment *segment_find_surplus(const struct spool *spool)
{
    struct spool_segment *best = NULL;
    for (uint32_t i = 0; i < spool->segment_count; i++) {
        struct spool_segment *segment = spool->segments[i];
        if (segment->state == SPOOL_SEGMENT_READY && segment_is_surplus(segment) &&
            (best == NULL || segment->size < best->size))
            best = segment;
    }
    return best;
}

/* Once, until there is something to write to again. */
static void segments_tell_stuck(struct spool *spool)
{
    uint64_t octets_free = 0, octets_total = 0;
    /* After a refusal it is tried with less, as long as there is less. */
    bool is_final = spool->census.is_space_known || spool->create_size_max < SPOOL_SEGMENT_SIZE_MIN;
    if (!is_final || spool->is_stuck ||
        disk_space(spool->disk, &octets_free, &octets_total) != ERR_OK)
        return;
    spool->is_stuck = true;
    bool is_files = spool->is_create_refused && octets_free >= spool->options.segment_size;
    log_line(LOG_ERROR,
             "event=spool_full shard=%u waiting_records=%u file_system_octets_free=%lu "
             "file_system_octets=%lu spool_octets=%lu (nothing can be written: what is delivered "
             "now may be delivered again after a restart%s)",
             spool->options.shard, spool->pending.count, octets_free, octets_total,
             spool->census.octets,
             is_files ? "; no file can be made, is it inodes or a quota?" : "");
}

/* A file was refused, and the file system says that there is room: is there? */
static bool segments_must_try(const struct spool *spool)
{
    return spool->is_create_refused && spool->census.creatable > 0 &&
           spool->segment_count < SPOOL_SEGMENT_COUNT_MAX / 2;
}

/* One more to write to: used again, or made; small ones of both kinds come last. */
static void segments_prepare(struct spool *spool, bool is_urgent)
{
    const struct spool_census *census = &spool->census;
    bool may_create = spool->segment_count < SPOOL_SEGMENT_COUNT_MAX / 2;
    bool may_be_whole = segments_need(spool) <= spool->options.segment_size &&
                        (!is_urgent || spool->create_size_max == spool->options.segment_size);
    struct spool_segment *whole = segment_find_reusable(spool, false, false);
    struct spool_segment *small = segment_find_reusable(spool, true, false);
    if (whole != NULL)
        spool_segment_stamp(whole);
    else if (may_create && may_be_whole && census->creatable > 0)
        spool_segment_create(spool, spool->options.segment_size);
    else if (small != NULL)
        spool_segment_stamp(small);
    else if (is_urgent && may_create && spool_segment_urgent_size(spool) > 0)
        spool_segment_create(spool, spool_segment_urgent_size(spool));
    else if (is_urgent)
        segments_tell_stuck(spool);
}

/* There are enough: a surplus one that can be used again is on its way to be removed. */
static void segments_retrieve(struct spool *spool)
{
    struct spool_segment *segment = segment_find_reusable(spool, true, true);
    if (segment == NULL)
        segment = segment_find_reusable(spool, false, true);
    if (segment != NULL)
        spool_segment_stamp(segment);
}

/* spool_segments_are_out(), for every turn: where nothing waits any ready segment will do, and none
 * of them, who may be many, is looked at. */
static bool segments_are_out_now(const struct spool *spool)
{
    _Static_assert(SPOOL_SEGMENT_SIZE_MIN >= 8 * SPOOL_BLOCK_SIZE, "the smallest takes a record");
    if (spool->pending.first == NULL && spool->census.ready > 0)
        return false;
    return spool_segments_are_out(spool);
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
    bool is_out = segments_are_out_now(spool);
    /* When room is tight, those that refer to a reusable one wait for it. */
    bool is_needed =
        census->ready < wanted || is_out || (census->reusable > 0 && spool_room_is_tight(spool));
    if (spool->is_flushing && !is_out)
        return;
    if (!is_needed && segments_must_try(spool)) {
        spool_segment_create(spool, spool->options.segment_size);
        return;
    }
    if (!is_needed && census->foreign == 0 && census->small == 0)
        return;
    /* What is ready and too small for the next record is in the way. */
    struct spool_segment *surplus = census->ready > wanted || (is_out && census->ready > 0)
                                        ? segment_find_surplus(spool)
                                        : NULL;
    if (surplus != NULL)
        spool_segment_remove(surplus);
    else if (is_needed)
        segments_prepare(spool, is_out && spool->pending.first != NULL);
    else
        segments_retrieve(spool);
}

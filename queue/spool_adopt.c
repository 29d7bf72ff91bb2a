/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handing recovered segments and messages to the spools of this process.
 *
 * Groups of segments that belong together are dealt out to the shares by their number of live
 * messages. Every call computes the same deal, so that shares may be adopted in any order, by
 * different threads, whatever the number of shards was before.
 *
 * Invariants
 *   1. A segment passes to exactly one spool: the recovery closes it, which frees its lock, and the
 *      spool opens and locks it through its own disk. If somebody else is faster, the segment and
 *      its messages are theirs.
 *   2. An adopted segment is SEALED, older than every own one, and obeys the rules of
 *      spool_segment.c from then on: references are translated, damaged segments are held for ever.
 *   3. The recovery itself is only read, except for what belongs to this share.
 *
 * A file that never got a header is removed.
 */
#include <stdlib.h>

#include "base/log.h"
#include "queue/spool_recovery.h"

#define NOT_ADOPTED UINT32_MAX

struct adoption {
    struct spool_recovery *recovery;
    struct spool *spool;
    uint32_t *shares;  /* per segment */
    uint32_t *adopted; /* per segment: index in the spool, or NOT_ADOPTED */
    uint32_t index;
};

/* Which share every segment goes to: each group to the share with the fewest messages so far. */
static void adoption_deal(struct adoption *adoption, uint32_t count)
{
    const struct spool_recovery *recovery = adoption->recovery;
    uint64_t *loads = calloc(count, sizeof(*loads));
    CHECK(loads != NULL);
    for (uint32_t i = 0; i < recovery->segment_count; i++) {
        if (recovery->segments[i].parent != i)
            continue;
        uint32_t least = 0;
        for (uint32_t j = 1; j < count; j++) {
            if (loads[j] < loads[least])
                least = j;
        }
        adoption->shares[i] = least;
        loads[least] += recovery->segments[i].live + (uint64_t)1;
    }
    free(loads);
    for (uint32_t i = 0; i < recovery->segment_count; i++)
        adoption->shares[i] = adoption->shares[spool_recovery_root(recovery, i)];
}

static void adopt_segment(struct adoption *adoption, uint32_t index)
{
    struct spool *spool = adoption->spool;
    struct recovery_segment *from = &adoption->recovery->segments[index];
    disk_close(adoption->recovery->disk, from->file);
    from->file = NULL;
    if (from->is_blank) {
        enum err err = disk_unlink(spool->disk, from->name);
        if (err != ERR_OK && err != ERR_NOT_FOUND)
            log_line(LOG_ERROR, "spool segment=%s remove=%s", from->name, err_name(err));
        return;
    }
    if (from->header.segment_size == 0)
        return; /* the header itself is damaged: left where it is */
    struct disk_file *file;
    enum err err = disk_open(spool->disk, from->name, 0, &file);
    if (err == ERR_OK) {
        err = disk_lock(spool->disk, file);
        if (err != ERR_OK)
            disk_close(spool->disk, file);
    }
    if (err != ERR_OK) {
        log_line(LOG_ERROR, "spool segment=%s adopt=%s", from->name, err_name(err));
        return;
    }
    struct spool_segment *segment =
        spool_segment_adopt(spool, file, from->name, &from->header, from->end, from->is_sealed);
    segment->holds += from->is_damaged;
    adoption->adopted[index] = segment->index;
}

/* What an adopted segment refers to; a target that is not ours pins it for ever. */
static void adopt_references(struct adoption *adoption, uint32_t index)
{
    const struct recovery_segment *from = &adoption->recovery->segments[index];
    struct spool_segment *segment = adoption->spool->segments[adoption->adopted[index]];
    for (uint32_t i = 0; i < adoption->recovery->segment_count; i++) {
        if (!(from->refers[i / 64] >> i % 64 & 1))
            continue;
        uint32_t target = adoption->adopted[i];
        if (target == NOT_ADOPTED)
            segment->holds++;
        else
            segment->refers[target / 64] |= (uint64_t)1 << target % 64;
    }
}

static bool adopt_place(const struct adoption *adoption, const struct recovery_row *row,
                        enum spool_place_kind kind, struct spool_place *ret_place)
{
    uint32_t target = adoption->adopted[row->segment];
    if (target == NOT_ADOPTED)
        return false;
    *ret_place = (struct spool_place){
        .serial = adoption->spool->segments[target]->serial,
        .segment = (uint16_t)target,
        .kind = (uint8_t)kind,
        .offset = row->offset,
        .payload_size = row->payload_size,
    };
    return true;
}

static bool adopt_bodies(const struct adoption *adoption, const struct recovery_message *from,
                         struct spool_entry *entry)
{
    const struct spool_recovery *recovery = adoption->recovery;
    for (uint32_t i = 0; i < from->message.extent_count; i++) {
        struct spool_body_extent extent;
        memcpy(&extent, from->extents.data + i * sizeof(extent), sizeof(extent));
        struct recovery_row row = {.offset = extent.offset, .payload_size = extent.size};
        while (recovery->segments[row.segment].header.salt != extent.salt)
            row.segment++;
        struct spool_place place;
        if (!adopt_place(adoption, &row, SPOOL_PLACE_BODY, &place))
            return false;
        spool_entry_add_place(entry, &place);
        entry->body_count++;
    }
    entry->part_count = entry->body_count;
    return true;
}

/* PROGRESS records, and the other MESSAGE records of this id, which its DONE must outlive. */
static void adopt_others(const struct adoption *adoption, const struct recovery_message *from,
                         struct spool_entry *entry)
{
    const struct spool_recovery *recovery = adoption->recovery;
    struct spool_place place;
    for (uint32_t i = 0; i < from->progress_count; i++) {
        const struct recovery_row *row = &recovery->rows[from->progress_rows[i]];
        if (!adopt_place(adoption, row, SPOOL_PLACE_PROGRESS, &place))
            continue;
        spool_hold(adoption->spool, &place);
        place.retry = spool_progress_retry(from->progress[i]);
        spool_entry_add_place(entry, &place);
    }
    for (uint32_t i = 0; i < from->row_count; i++) {
        const struct recovery_row *row = &recovery->rows[from->first_row + i];
        if (row->type == SPOOL_MESSAGE && from->first_row + i != from->row &&
            adopt_place(adoption, row, SPOOL_PLACE_OLD, &place))
            spool_entry_add_place(entry, &place);
    }
}

/* Nothing may be missing any more: from now on the segments stay for this message. */
static void adopt_holds(struct spool *spool, struct spool_entry *entry, struct spool_place message)
{
    spool_hold(spool, &message);
    spool_entry_set_message(entry, &message);
    for (uint32_t i = 0; i < entry->place_count; i++) {
        struct spool_place place = spool_entry_place(spool, entry, i);
        if (place.kind == SPOOL_PLACE_OLD || place.is_held)
            continue;
        spool_hold(spool, &place);
        spool_entry_set_place(entry, i, &place);
    }
}

/* The live message as an entry of the spool, or NULL when a segment of it went to somebody else. */
static struct spool_entry *adopt_entry(const struct adoption *adoption,
                                       const struct recovery_message *from)
{
    struct spool *spool = adoption->spool;
    const struct recovery_row *row = &adoption->recovery->rows[from->row];
    struct spool_entry *entry = spool_entry_new(spool, row->id);
    struct spool_place place;
    if (!adopt_place(adoption, row, SPOOL_PLACE_MESSAGE, &place) ||
        !adopt_bodies(adoption, from, entry)) {
        spool_entry_end(spool, entry);
        return NULL;
    }
    adopt_others(adoption, from, entry);
    adopt_holds(spool, entry, place);
    entry->state = SPOOL_ENTRY_LIVE;
    spool_entry_settle(spool, entry);
    spool->stats.messages_live++;
    spool->stats.messages_recovered++;
    return entry;
}

static void adopt_messages(const struct adoption *adoption,
                           void (*on_message)(void *context, const struct spool_recovered *message),
                           void *context)
{
    const struct spool_recovery *recovery = adoption->recovery;
    for (uint32_t i = 0; i < recovery->message_count; i++) {
        const struct recovery_message *from = &recovery->messages[i];
        if (adoption->shares[recovery->rows[from->row].segment] != adoption->index)
            continue;
        struct spool_recovered message = {
            .entry = adopt_entry(adoption, from),
            .envelope = from->envelope,
            .progress = from->progress,
            .progress_count = from->progress_count,
        };
        if (message.entry != NULL)
            on_message(context, &message);
    }
}

void spool_recovery_adopt(struct spool_recovery *recovery, struct spool *spool, uint32_t index,
                          uint32_t count,
                          void (*on_message)(void *context, const struct spool_recovered *message),
                          void *context)
{
    CHECK(index < count);
    struct adoption adoption = {.recovery = recovery, .spool = spool, .index = index};
    uint32_t segments = recovery->segment_count;
    adoption.shares = calloc(segments + 1, sizeof(*adoption.shares));
    adoption.adopted = malloc((segments + 1) * sizeof(*adoption.adopted));
    CHECK(adoption.shares != NULL && adoption.adopted != NULL);
    memset(adoption.adopted, 0xff, (segments + 1) * sizeof(*adoption.adopted));
    adoption_deal(&adoption, count);
    for (uint32_t i = 0; i < segments; i++) {
        if (adoption.shares[i] == index)
            adopt_segment(&adoption, i);
    }
    for (uint32_t i = 0; i < segments; i++) {
        if (adoption.adopted[i] != NOT_ADOPTED)
            adopt_references(&adoption, i);
    }
    adopt_messages(&adoption, on_message, context);
    spool->is_census_due = true;
    free(adoption.shares);
    free(adoption.adopted);
}

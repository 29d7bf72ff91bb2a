/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which segment is emptied next, by copying what lives in it (spool_copy.c) to the end of the log.
 *
 * When no segment is reusable or creatable and only the last spares are ready, or room for mail
 * comes to its end, it is the oldest that refers to no other, of those that are not nearly full of
 * what lives: it is surely reusable afterwards, and each one that is freed takes a reference off
 * younger ones.
 *
 * When room is tight (spool_space.c) it is the oldest of all, however little is
 * garbage in it: those that refer to it can be used again only after it. This goes on from segment
 * to segment, and is worth its while only when there is garbage somewhere. A turn over all of them
 * that has gained nothing is not begun again for VICTIM_PAUSE, unless there is more garbage than
 * the padding of batches may be, which no turn gets rid of.
 *
 * A retired segment is emptied as well, as long as the disk works: what was acknowledged is read
 * back and gets a second, healthy home.
 *
 * Most messages of a victim are in its list; those that have their oldest record elsewhere are
 * looked for among all, VICTIM_SLICE at a time.
 *
 * Invariants
 *   1. A victim stays one until all that can be copied out of it was, or it needs it no more.
 *   2. It is begun with only if all of it finds room, with what its copies may waste: half a
 * segment copied frees nothing.
 */
#include "queue/spool_internal.h"

#define VICTIM_LOOK_TIME TICK_MS(5) /* between looks for one */
#define VICTIM_PAUSE     TICK_S(60)
#define VICTIM_SLICE     1000u
#define VICTIM_GARBAGE   64u /* this part of all is worth a turn over all segments */

/* Nothing but the last spare segments is left, or mail is refused soon. */
static bool victim_is_needed(const struct spool *spool)
{
    const struct spool_census *census = &spool->census;
    bool is_last = census->ready <= spool->options.segment_spare_min && census->preparing == 0 &&
                   census->reusable == 0 && census->creatable == 0;
    return is_last || !spool_has_room(spool, spool->options.segment_size / 2, false);
}

/* What the end of a segment may leave unused behind copies, and the padding of a batch. */
static uint64_t victim_waste(const struct spool *spool)
{
    return spool->part_size_max + 2 * (uint64_t)SPOOL_BLOCK_SIZE;
}

/* Copies go to three segments at most: the rest of the active one, and two more. */
static bool room_is_for(const struct spool *spool, uint64_t octets)
{
    return spool_room_urgent(spool) >= spool->copier.octets + octets + 2 * victim_waste(spool) ||
           spool_room_small(spool) >= spool->copier.octets + octets;
}

/* What lives in a segment, its rows in the index, and what its batches and last entry waste. */
static bool victim_has_room(const struct spool_segment *segment, uint64_t besides)
{
    const struct spool *spool = segment->spool;
    uint64_t octets = segment->live_octets + (uint64_t)segment->holds * SPOOL_ROW_OCTETS + besides;
    return room_is_for(spool, octets + segment->size / 32 + 2 * victim_waste(spool)) ||
           spool_room_small(spool) >= octets;
}

/* MESSAGE records that go with bodies in it and stand elsewhere. */
static uint64_t victim_besides(const struct spool_segment *segment)
{
    uint64_t octets = 0;
    for (struct spool_entry *entry = segment->entries; entry != NULL;
         entry = spool_entry_next(segment->spool, entry)) {
        struct spool_place message = spool_entry_message(segment->spool, entry);
        if (message.segment != segment->index)
            octets += sizeof(struct spool_record) + message.payload_size + SPOOL_ROW_OCTETS;
    }
    return octets;
}

static bool entry_has_room(const struct spool *spool, const struct spool_entry *entry)
{
    uint16_t victim = spool->copier.victim->index;
    uint64_t octets = spool_entry_message(spool, entry).payload_size + SPOOL_ROW_OCTETS;
    for (uint32_t i = 0; i < entry->place_count; i++) {
        struct spool_place place = spool_entry_place(spool, entry, i);
        if (place.is_held && place.segment == victim)
            octets += place.payload_size + sizeof(struct spool_record) + SPOOL_ROW_OCTETS;
    }
    return room_is_for(spool, octets);
}

static bool segment_may_be_victim(const struct spool_segment *segment)
{
    return segment->state == SPOOL_SEGMENT_SEALED && segment->holds > 0 && !segment->is_drained &&
           spool_segment_refers_nothing(segment);
}

/* Copying one that is nearly full pays only when nothing else does. */
static bool segment_pays(const struct spool_segment *segment)
{
    return segment->live_octets < segment->size / 4 * 3u;
}

static struct spool_segment *victim_oldest(const struct spool *spool, bool must_pay)
{
    struct spool_segment *oldest = NULL;
    for (uint32_t i = 0; i < spool->segment_count; i++) {
        struct spool_segment *segment = spool->segments[i];
        if (segment_may_be_victim(segment) && (!must_pay || segment_pays(segment)) &&
            victim_has_room(segment, 0) && (oldest == NULL || segment->serial < oldest->serial))
            oldest = segment;
    }
    if (oldest == NULL || victim_has_room(oldest, victim_besides(oldest)))
        return oldest;
    oldest->is_drained = true; /* for a while: the next look is at another */
    return NULL;
}

static struct spool_segment *victim_retired(const struct spool *spool)
{
    for (uint32_t i = 0; spool->stats.sync_failures > 0 && i < spool->segment_count; i++) {
        struct spool_segment *segment = spool->segments[i];
        if (segment->state == SPOOL_SEGMENT_RETIRED && segment->holds > 0 && !segment->is_drained)
            return segment;
    }
    return NULL;
}

/* A turn is over when the oldest segment is one that was written in it. */
static bool victim_turn_is_worth_it(struct spool *spool, const struct spool_segment *oldest)
{
    struct spool_copier *copier = &spool->copier;
    uint64_t room = spool_room_urgent(spool), segment_size = spool->options.segment_size;
    uint64_t total = spool->census.total;

    if (oldest->serial <= copier->turn_serial)
        return true;
    uint64_t padding = total / 32 + total / segment_size * 2 * SPOOL_BLOCK_SIZE;
    bool has_gained = room >= copier->turn_room + segment_size / 4;
    bool has_garbage = spool->census.garbage >= total / VICTIM_GARBAGE + padding;
    if (!has_gained && !has_garbage && spool->now.tick < copier->turn_begun + VICTIM_PAUSE)
        return false;
    copier->turn_begun = spool->now.tick;
    copier->turn_serial = spool->serial;
    copier->turn_room = room;
    return true;
}

static struct spool_segment *victim_find(struct spool *spool)
{
    const struct spool_census *census = &spool->census;
    struct spool_segment *victim = victim_retired(spool);

    if (victim != NULL)
        return victim;
    if (!spool_room_is_tight(spool))
        return victim_is_needed(spool) ? victim_oldest(spool, true) : NULL;
    if (census->garbage < census->total / VICTIM_GARBAGE)
        return NULL;
    victim = victim_oldest(spool, false);
    return victim != NULL && victim_turn_is_worth_it(spool, victim) ? victim : NULL;
}

static bool entry_can_be_copied(const struct spool_entry *entry)
{
    return entry->state == SPOOL_ENTRY_LIVE && !entry->is_copy_refused && !entry->is_copied;
}

static struct spool_entry *victim_listed(const struct spool_segment *victim)
{
    struct spool_entry *entry = victim->entries;
    while (entry != NULL && !entry_can_be_copied(entry))
        entry = spool_entry_next(victim->spool, entry);
    return entry;
}

static bool entry_needs(const struct spool *spool, const struct spool_entry *entry,
                        const struct spool_segment *segment)
{
    bool is_needed = spool_entry_message(spool, entry).segment == segment->index;
    for (uint32_t i = 0; i < entry->place_count && !is_needed; i++) {
        struct spool_place place = spool_entry_place(spool, entry, i);
        is_needed = place.is_held && place.segment == segment->index;
    }
    return is_needed;
}

/* Of all messages, the next that needs the victim. NULL: of this slice there is none. */
static struct spool_entry *victim_search(struct spool *spool)
{
    struct spool_copier *copier = &spool->copier;

    for (uint32_t i = 0; i < VICTIM_SLICE; i++) {
        struct spool_entry *entry = slab_next(&spool->entries, &copier->cursor);
        copier->is_searching = entry != NULL;
        if (entry == NULL)
            return NULL;
        if (entry_can_be_copied(entry) && entry_needs(spool, entry, copier->victim))
            return entry;
    }
    return NULL;
}

static struct spool_entry *victim_next(struct spool *spool)
{
    const struct spool_copier *copier = &spool->copier;
    struct spool_entry *entry = victim_listed(copier->victim);

    if (entry == NULL && copier->victim->holds > 0 && copier->is_searching)
        entry = victim_search(spool);
    return entry;
}

tick_us spool_victim_deadline(const struct spool *spool)
{
    const struct spool_copier *copier = &spool->copier;
    bool is_searching = copier->victim != NULL && copier->victim->holds > 0 &&
                        copier->is_searching && spool_copies_are_none(spool);
    bool is_at_rest = spool->is_flushing || spool->failures_in_row > 0;

    return is_searching && !is_at_rest ? spool->now.tick : TICK_NEVER;
}

struct spool_entry *spool_victim_entry(struct spool *spool)
{
    struct spool_copier *copier = &spool->copier;

    /* Empty at last, it may be on its way to be used again. */
    if (copier->victim != NULL &&
        (copier->victim->holds == 0 || (copier->victim->state != SPOOL_SEGMENT_SEALED &&
                                        copier->victim->state != SPOOL_SEGMENT_RETIRED)))
        copier->victim = NULL;
    if (copier->victim == NULL && spool->now.tick >= copier->look_at) {
        copier->victim = victim_find(spool);
        copier->is_searching = true;
        copier->cursor = 0;
        copier->look_at = copier->victim == NULL ? spool->now.tick + VICTIM_LOOK_TIME : 0;
    }
    if (copier->victim == NULL)
        return NULL;
    struct spool_entry *entry = victim_next(spool);
    if (entry != NULL && entry_has_room(spool, entry))
        return entry;
    /* What copies in hand free may be room enough. */
    if (spool_copies_are_none(spool) && (entry != NULL || !copier->is_searching)) {
        copier->victim->is_drained = true;
        copier->victim = NULL;
    }
    return NULL;
}

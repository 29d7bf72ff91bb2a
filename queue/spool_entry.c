/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the spool keeps in memory of a message, and how it keeps it small: there are millions.
 *
 * An entry is SPOOL_ENTRY_SIZE octets in a slab. Where its records are is one word each (struct
 * spool_spot): SPOOL_SPOTS_INLINE of them in the entry, which is enough for a body of one record
 * and the PROGRESS of its last attempt; more in an array on the heap whose size is the next power
 * of two.
 *
 *   62 and 63  what it is: MESSAGE, BODY or PROGRESS; the same, held; OLD; a held PROGRESS that the
 *              next one of its delivery replaces
 *   49 to 61   segment
 *   0 to 48    OLD: serial (32 bits). Others: payload size (22 bits), offset / 8 (27 bits); of what
 *              is replaced, delivery + 1 (11 bits) and payload size (11 bits) share the 22
 *
 * The lists of entries link by the reference into the slab, half as large as a pointer.
 *
 * Invariants
 *   1. A place that is held needs no serial: its segment is not used again while it is held.
 *   2. The BODY places come first, in the order of parts; PROGRESS and OLD follow in any order.
 *   3. The links are in use from LIVE on, `unwritten` before.
 *
 * Limits: sizes, offsets and numbers of segments of spool_record.h and spool_internal.h.
 * Not here: the states of an entry (spool.c), what holding means (spool_place.c).
 */
#include <stdlib.h>

#include "queue/spool_internal.h"

#define SPOT_KIND_SHIFT    62u
#define SPOT_SEGMENT_SHIFT 49u
#define SPOT_SEGMENT_BITS  13u
#define SPOT_SIZE_SHIFT    27u
#define SPOT_SIZE_BITS     22u
#define SPOT_RETRY_SHIFT   38u
#define SPOT_RETRY_BITS    11u
#define SPOT_OFFSET_BITS   27u

enum spot_kind { SPOT_FREE, SPOT_HELD, SPOT_OLD, SPOT_RETRY };

_Static_assert(SPOOL_SEGMENT_COUNT_MAX <= 1u << SPOT_SEGMENT_BITS, "a segment's number fits");
_Static_assert(SPOOL_PAYLOAD_SIZE_MAX < 1u << SPOT_SIZE_BITS, "a payload's size fits");
_Static_assert(SPOOL_SEGMENT_SIZE_MAX / 8 <= 1u << SPOT_OFFSET_BITS, "an offset fits");
_Static_assert(SPOT_SIZE_SHIFT + SPOT_SIZE_BITS == SPOT_SEGMENT_SHIFT, "no bit is used twice");
_Static_assert(SPOT_SIZE_SHIFT + SPOT_RETRY_BITS == SPOT_RETRY_SHIFT, "nor in a retry");
_Static_assert(SPOT_RETRY_SHIFT + SPOT_RETRY_BITS == SPOT_SEGMENT_SHIFT, "nor above it");
_Static_assert(SPOOL_RETRY_MAX < 1u << SPOT_RETRY_BITS, "a delivery fits");
_Static_assert(SPOOL_RETRY_SIZE_MAX < 1u << (SPOT_RETRY_SHIFT - SPOT_SIZE_SHIFT), "its size fits");
_Static_assert(sizeof(struct spool_entry) == SPOOL_ENTRY_SIZE, "resident for each message");

/* ---- places ---- */

static uint64_t bits(uint64_t word, uint32_t shift, uint32_t count)
{
    return word >> shift & ((1ull << count) - 1);
}

static struct spool_spot spot_of(const struct spool_place *place)
{
    uint64_t word = (uint64_t)place->segment << SPOT_SEGMENT_SHIFT;
    uint64_t kind = place->is_held ? SPOT_HELD : SPOT_FREE;

    CHECK(place->segment < SPOOL_SEGMENT_COUNT_MAX);
    if (place->kind == SPOOL_PLACE_OLD) {
        CHECK(!place->is_held);
        return (struct spool_spot){(uint64_t)SPOT_OLD << SPOT_KIND_SHIFT | word | place->serial};
    }
    CHECK(place->offset % 8 == 0 && place->offset < SPOOL_SEGMENT_SIZE_MAX);
    CHECK(place->payload_size <= SPOOL_PAYLOAD_SIZE_MAX);
    if (place->is_held && place->retry > 0) {
        CHECK(place->retry <= SPOOL_RETRY_MAX && place->payload_size <= SPOOL_RETRY_SIZE_MAX);
        kind = SPOT_RETRY;
        word |= (uint64_t)place->retry << SPOT_RETRY_SHIFT;
    }
    word |= (uint64_t)place->payload_size << SPOT_SIZE_SHIFT | place->offset / 8;
    return (struct spool_spot){kind << SPOT_KIND_SHIFT | word};
}

static struct spool_place spot_place(const struct spool *spool, struct spool_spot spot,
                                     enum spool_place_kind kind)
{
    uint64_t segment = bits(spot.word, SPOT_SEGMENT_SHIFT, SPOT_SEGMENT_BITS);
    uint64_t what = bits(spot.word, SPOT_KIND_SHIFT, 2);
    struct spool_place place = {.segment = (uint16_t)segment, .kind = (uint8_t)kind};

    if (what == SPOT_OLD) {
        place.kind = SPOOL_PLACE_OLD;
        place.serial = (uint32_t)spot.word;
        return place;
    }
    CHECK(segment < spool->segment_count);
    place.serial = spool->segments[segment]->serial;
    place.is_held = what != SPOT_FREE;
    place.offset = (uint32_t)bits(spot.word, 0, SPOT_OFFSET_BITS) * 8;
    if (what == SPOT_RETRY)
        place.retry = (uint16_t)bits(spot.word, SPOT_RETRY_SHIFT, SPOT_RETRY_BITS);
    place.payload_size =
        (uint32_t)bits(spot.word, SPOT_SIZE_SHIFT,
                       what == SPOT_RETRY ? SPOT_RETRY_SHIFT - SPOT_SIZE_SHIFT : SPOT_SIZE_BITS);
    return place;
}

static struct spool_spot *entry_spots(struct spool_entry *entry)
{
    return entry->place_count > SPOOL_SPOTS_INLINE ? entry->spots : entry->inlined;
}

static struct spool_spot entry_spot(const struct spool_entry *entry, uint32_t index)
{
    CHECK(index < entry->place_count);
    return entry->place_count > SPOOL_SPOTS_INLINE ? entry->spots[index] : entry->inlined[index];
}

struct spool_place spool_entry_place(const struct spool *spool, const struct spool_entry *entry,
                                     uint32_t index)
{
    return spot_place(spool, entry_spot(entry, index),
                      index < entry->body_count ? SPOOL_PLACE_BODY : SPOOL_PLACE_PROGRESS);
}

uint32_t spool_entry_payload_size(const struct spool_entry *entry, uint32_t part)
{
    CHECK(part < entry->body_count);
    return (uint32_t)bits(entry_spot(entry, part).word, SPOT_SIZE_SHIFT, SPOT_SIZE_BITS);
}

void spool_entry_set_place(struct spool_entry *entry, uint32_t index,
                           const struct spool_place *place)
{
    CHECK(index < entry->place_count);
    entry_spots(entry)[index] = spot_of(place);
}

static bool is_power_of_two(uint32_t count)
{
    return (count & (count - 1)) == 0;
}

void spool_entry_add_place(struct spool_entry *entry, const struct spool_place *place)
{
    uint32_t count = entry->place_count;

    if (count >= SPOOL_SPOTS_INLINE && is_power_of_two(count)) { /* full */
        bool is_inline = count == SPOOL_SPOTS_INLINE;
        struct spool_spot inlined[SPOOL_SPOTS_INLINE];
        memcpy(inlined, entry->inlined, sizeof(inlined));
        struct spool_spot *spots =
            realloc(is_inline ? NULL : entry->spots, 2 * (size_t)count * sizeof(*spots));
        CHECK(spots != NULL);
        if (is_inline)
            memcpy(spots, inlined, sizeof(inlined));
        entry->spots = spots;
    }
    entry->place_count++;
    entry_spots(entry)[count] = spot_of(place);
}

void spool_entry_remove_place(struct spool_entry *entry, uint32_t index)
{
    struct spool_spot *spots = entry_spots(entry);

    CHECK(index >= entry->body_count && index < entry->place_count);
    spots[index] = spots[entry->place_count - 1];
    uint32_t count = --entry->place_count;
    if (count == SPOOL_SPOTS_INLINE) {
        memcpy(entry->inlined, spots, sizeof(entry->inlined));
        free(spots);
    } else if (count > SPOOL_SPOTS_INLINE && is_power_of_two(count)) {
        entry->spots = realloc(spots, count * sizeof(*spots));
        CHECK(entry->spots != NULL);
    }
}

static void entry_unhold_place(struct spool *spool, struct spool_entry *entry, uint32_t index)
{
    struct spool_place place = spool_entry_place(spool, entry, index);

    if (!place.is_held)
        return;
    spool_unhold(spool, &place);
    spool_entry_set_place(entry, index, &place);
}

uint16_t spool_progress_retry(struct span progress)
{
    uint32_t delivery;

    if (progress.size > SPOOL_RETRY_SIZE_MAX || !envelope_progress_is_retry(progress, &delivery) ||
        delivery >= SPOOL_RETRY_MAX)
        return 0;
    return (uint16_t)(delivery + 1);
}

void spool_entry_supersede(struct spool *spool, struct spool_entry *entry,
                           const struct spool_place *newest)
{
    for (uint32_t i = entry->place_count; i-- > entry->body_count;) {
        struct spool_place place = spool_entry_place(spool, entry, i);
        bool is_older = place.serial < newest->serial ||
                        (place.serial == newest->serial && place.offset < newest->offset);
        if (place.kind != SPOOL_PLACE_PROGRESS || place.retry != newest->retry || !is_older)
            continue;
        spool_entry_unlink(spool, entry); /* its oldest record may be another one now */
        entry_unhold_place(spool, entry, i);
        spool_entry_remove_place(entry, i);
        spool_entry_settle(spool, entry);
    }
}

struct spool_place spool_entry_message(const struct spool *spool, const struct spool_entry *entry)
{
    return spot_place(spool, entry->message, SPOOL_PLACE_MESSAGE);
}

void spool_entry_set_message(struct spool_entry *entry, const struct spool_place *place)
{
    CHECK(place->kind == SPOOL_PLACE_MESSAGE);
    entry->message = spot_of(place);
}

/* ---- life ---- */

struct spool_entry *spool_entry_new(struct spool *spool, struct message_id id)
{
    struct spool_entry *entry = slab_acquire(&spool->entries);

    CHECK(entry != NULL);
    entry->id = id;
    return entry;
}

void spool_entry_reference(struct spool_entry *entry)
{
    entry->references++;
}

static void entry_free(struct spool *spool, struct spool_entry *entry)
{
    if (entry->place_count > SPOOL_SPOTS_INLINE)
        free(entry->spots);
    slab_release(&spool->entries, entry);
}

void spool_entry_release(struct spool *spool, struct spool_entry *entry)
{
    CHECK(entry->references > 0);
    if (--entry->references == 0 && entry->state == SPOOL_ENTRY_GONE)
        entry_free(spool, entry);
}

void spool_entry_settle(struct spool *spool, struct spool_entry *entry)
{
    CHECK(entry->next == 0 && entry->prev == 0);
    struct spool_place oldest = spool_entry_message(spool, entry);
    for (uint32_t i = 0; i < entry->place_count; i++) {
        struct spool_place place = spool_entry_place(spool, entry, i);
        if (place.is_held && place.serial < oldest.serial)
            oldest = place;
    }
    struct spool_segment *home = spool->segments[oldest.segment];
    entry->home = home->index;
    if (home->entries != NULL) {
        entry->next = slab_ref(home->entries);
        home->entries->prev = slab_ref(entry);
    }
    home->entries = entry;
}

void spool_entry_unlink(struct spool *spool, struct spool_entry *entry)
{
    struct spool_segment *home = spool->segments[entry->home];

    if (entry->state != SPOOL_ENTRY_LIVE && entry->state != SPOOL_ENTRY_FINISHING)
        return; /* invariant 3 */
    if (entry->prev == 0 && home->entries != entry)
        return;
    struct spool_entry *next = slab_at(&spool->entries, entry->next);
    struct spool_entry *prev = slab_at(&spool->entries, entry->prev);
    if (prev != NULL)
        prev->next = entry->next;
    else
        home->entries = next;
    if (next != NULL)
        next->prev = entry->prev;
    entry->next = entry->prev = 0;
}

struct spool_entry *spool_entry_next(const struct spool *spool, const struct spool_entry *entry)
{
    return slab_at(&spool->entries, entry->next);
}

static void entry_unhold(struct spool *spool, struct spool_entry *entry)
{
    struct spool_place place = spool_entry_message(spool, entry);

    if (place.is_held) {
        spool_unhold(spool, &place);
        spool_entry_set_message(entry, &place);
    }
    for (uint32_t i = 0; i < entry->place_count; i++)
        entry_unhold_place(spool, entry, i);
}

void spool_entry_end(struct spool *spool, struct spool_entry *entry)
{
    CHECK(entry->state != SPOOL_ENTRY_GONE);
    spool_entry_unlink(spool, entry);
    entry_unhold(spool, entry);
    /* BODY records that are still pending get no place any more. */
    entry->state = SPOOL_ENTRY_GONE;
    if (entry->references == 0)
        entry_free(spool, entry);
}

struct message_id spool_entry_id(const struct spool_entry *entry)
{
    return entry->id;
}

uint64_t spool_entry_body_size(const struct spool_entry *entry)
{
    uint64_t size = 0;

    for (uint32_t i = 0; i < entry->body_count; i++)
        size += spool_entry_payload_size(entry, i);
    return size;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scrubber: octets that change on the medium are found while there is time to do something.
 *
 * A round reads every sealed segment from end to end, a chunk at a time, at no more than
 * options.scrub_rate and only while nothing else wants the disk, and checks every header, payload
 * and index in it. What is not whole is a range of octets; the messages that need octets in it are
 * then looked for, a slice at a time, and the queue is told (SPOOL_EVENT_DAMAGED): it mends the
 * message with what memory still has (spool_repair()), or ends it so that its sender hears of it.
 *
 *   choose a segment -> read a chunk -> check -> ... -> read its index -> check -> the next segment
 *                              |
 *                              +-- damage: search the messages, then go on
 *
 * Invariants
 *   1. Nothing is written, and nothing becomes worse: what is damaged stays where it is until its
 *      messages are gone or copied, as do the good records beside it.
 *   2. Damage is told once for each range and generation of a segment, not in every round.
 *   3. A segment may be used again between two reads; its serial number says so, and it is left.
 *
 * The last records of a segment of an earlier process may be followed by anything, as nothing says
 * where its log ended: there a range counts only when a message needs it.
 *
 * Limits: SCRUB_RANGES_MAX ranges in a chunk; more are taken for one.
 */
#include <stdlib.h>

#include "base/log.h"
#include "queue/spool_internal.h"

#define SCRUB_CHUNK     (256u << 10)
#define SCRUB_SLICE     256u        /* messages looked at in a turn */
#define SCRUB_LOOK_TIME TICK_MS(50) /* until the next look at a busy disk */
#define SCRUB_REST_TIME TICK_S(60)  /* after a start, at most */

/* ---- what is damaged ---- */

static void range_add(struct spool *spool, uint32_t start, uint32_t end, bool is_certain)
{
    struct spool_scrub *scrub = &spool->scrub;
    struct spool_segment *segment = spool->segments[scrub->segment];

    if (++scrub->ranges_seen <= segment->ranges_told)
        return; /* invariant 2 */
    if (scrub->range_count == SPOOL_SCRUB_RANGES_MAX) {
        scrub->ranges[SPOOL_SCRUB_RANGES_MAX - 1].end = end;
        return;
    }
    scrub->ranges[scrub->range_count++] = (struct spool_range){start, end, is_certain, 0};
    scrub->cursor = 0;
}

/* Octets that are no record end at `end`. */
static void lost_end(struct spool *spool, uint32_t end, bool is_certain)
{
    struct spool_scrub *scrub = &spool->scrub;

    if (scrub->is_lost)
        range_add(spool, scrub->lost_from, end, is_certain);
    scrub->is_lost = false;
}

static void lost_begin(struct spool_scrub *scrub, uint32_t offset)
{
    if (scrub->is_lost)
        return;
    scrub->is_lost = true;
    scrub->lost_from = offset;
}

static uint8_t range_kind(const struct spool *spool, const struct spool_range *range,
                          const struct spool_place *place)
{
    const struct spool_scrub *scrub = &spool->scrub;
    uint64_t end = (uint64_t)place->offset + sizeof(struct spool_record) + place->payload_size;
    static const uint8_t kinds[] = {
        [SPOOL_PLACE_MESSAGE] = SPOOL_DAMAGE_ENVELOPE,
        [SPOOL_PLACE_BODY] = SPOOL_DAMAGE_BODY,
        [SPOOL_PLACE_PROGRESS] = SPOOL_DAMAGE_PROGRESS,
        [SPOOL_PLACE_OLD] = 0,
    };

    if (!place->is_held || place->segment != scrub->segment || place->offset >= range->end ||
        end <= range->start)
        return 0;
    return kinds[place->kind];
}

static uint8_t entry_kinds(const struct spool *spool, struct spool_range *range,
                           const struct spool_entry *entry)
{
    struct spool_place place = spool_entry_message(spool, entry);
    uint8_t kinds = range_kind(spool, range, &place);

    for (uint32_t i = 0; i < entry->place_count; i++) {
        place = spool_entry_place(spool, entry, i);
        kinds |= range_kind(spool, range, &place);
    }
    range->messages += kinds != 0;
    return kinds;
}

static void entry_check(struct spool *spool, const struct spool_entry *entry)
{
    struct spool_scrub *scrub = &spool->scrub;
    char text[MESSAGE_ID_TEXT_SIZE];
    uint8_t kinds = 0;

    for (uint32_t i = 0; i < scrub->range_count; i++)
        kinds |= entry_kinds(spool, &scrub->ranges[i], entry);
    if (kinds == 0)
        return;
    spool->stats.damaged_messages++;
    log_line(LOG_ERROR, "spool segment=%s message=%s damaged=%s%s%s",
             spool->segments[scrub->segment]->name, message_id_format(entry->id, text),
             kinds & SPOOL_DAMAGE_ENVELOPE ? "envelope," : "",
             kinds & SPOOL_DAMAGE_BODY ? "body," : "",
             kinds & SPOOL_DAMAGE_PROGRESS ? "progress," : "");
    struct spool_event *event = spool_event_add(spool, SPOOL_EVENT_DAMAGED, ERR_DISK_CORRUPT, 0);
    event->id = entry->id;
    event->damage = kinds;
}

static void search_end(struct spool *spool)
{
    struct spool_scrub *scrub = &spool->scrub;
    struct spool_segment *segment = spool->segments[scrub->segment];

    for (uint32_t i = 0; i < scrub->range_count; i++) {
        const struct spool_range *range = &scrub->ranges[i];
        if (!range->is_certain && range->messages == 0)
            continue;
        spool->stats.damaged_ranges++;
        log_line(LOG_ERROR, "spool segment=%s damaged from=%u to=%u messages=%u", segment->name,
                 range->start, range->end, range->messages);
    }
    segment->ranges_told = scrub->ranges_seen;
    scrub->range_count = 0;
}

/* Which messages need what is damaged: the next slice of them. */
static void search_slice(struct spool *spool)
{
    struct spool_scrub *scrub = &spool->scrub;

    for (uint32_t i = 0; i < SCRUB_SLICE; i++) {
        const struct spool_entry *entry = slab_next(&spool->entries, &scrub->cursor);
        if (entry == NULL) {
            search_end(spool);
            return;
        }
        if (entry->state == SPOOL_ENTRY_LIVE)
            entry_check(spool, entry);
    }
}

/* ---- checking ---- */

/* Records of the chunk that are whole in it. What is not is read again with the next. */
static void check_records(struct spool *spool, struct span chunk)
{
    struct spool_scrub *scrub = &spool->scrub;
    const struct spool_segment *segment = spool->segments[scrub->segment];
    uint32_t limit = segment->used - scrub->offset;
    uint64_t at = 0;

    scrub->wanted = 0;
    while (at + sizeof(struct spool_record) <= chunk.size) {
        struct spool_record record;
        struct span rest = span_skip(chunk, (uint32_t)at);
        bool is_record = spool_record_open(rest, segment->salt, &record) == ERR_OK;
        uint32_t size = (uint32_t)sizeof(record) + (is_record ? record.payload_size : 0);
        if (!is_record || at + size > limit) {
            lost_begin(scrub, scrub->offset + (uint32_t)at);
            at += 8;
            continue;
        }
        lost_end(spool, scrub->offset + (uint32_t)at, true);
        if (size > rest.size) {
            scrub->wanted = size;
            break;
        }
        struct span payload =
            span_head(span_skip(rest, (uint32_t)sizeof(record)), record.payload_size);
        if (!spool_payload_is_valid(&record, payload))
            range_add(spool, scrub->offset + (uint32_t)at, scrub->offset + (uint32_t)at + size,
                      true);
        at = spool_record_end(&record, scrub->offset + at) - scrub->offset;
    }
    scrub->offset = at < limit ? scrub->offset + (uint32_t)at : segment->used;
}

static void check_trailer(struct spool *spool, struct span chunk)
{
    struct spool_scrub *scrub = &spool->scrub;
    const struct spool_segment *segment = spool->segments[scrub->segment];

    if (spool_trailer_open(chunk, segment->salt, segment->size, &scrub->trailer) != ERR_OK) {
        range_add(spool, segment->size - SPOOL_BLOCK_SIZE, segment->size, true);
        scrub->phase = SPOOL_SCRUB_END;
        return;
    }
    scrub->phase = SPOOL_SCRUB_INDEX;
    scrub->offset = scrub->trailer.index_offset;
    scrub->wanted = spool_index_size(&scrub->trailer);
}

static void check_index(struct spool *spool, struct span chunk)
{
    struct spool_scrub *scrub = &spool->scrub;
    const struct spool_segment *segment = spool->segments[scrub->segment];

    if (chunk.size != spool_index_size(&scrub->trailer) ||
        spool_index_verify(&scrub->trailer, chunk) != ERR_OK)
        range_add(spool, scrub->offset, segment->size, true);
    scrub->phase = SPOOL_SCRUB_END;
}

/* What comes behind the chunk. */
static void check_advance(struct spool *spool)
{
    struct spool_scrub *scrub = &spool->scrub;
    const struct spool_segment *segment = spool->segments[scrub->segment];

    if (scrub->phase == SPOOL_SCRUB_RECORDS &&
        scrub->offset + sizeof(struct spool_record) > segment->used) {
        lost_end(spool, segment->used, segment->is_end_known);
        scrub->phase = segment->has_index ? SPOOL_SCRUB_TRAILER : SPOOL_SCRUB_END;
        scrub->offset = segment->size - SPOOL_BLOCK_SIZE;
        scrub->wanted = SPOOL_BLOCK_SIZE;
    }
}

void spool_scrub_completed(struct spool *spool, enum err err, uint32_t size)
{
    struct spool_scrub *scrub = &spool->scrub;
    struct spool_segment *segment = spool->segments[scrub->segment];
    struct span chunk = span_of(scrub->block, err == ERR_OK ? size : 0);

    CHECK(scrub->is_reading && segment->reads > 0);
    scrub->is_reading = false;
    if (--segment->reads == 0)
        spool->is_census_due = true;
    spool->stats.scrubbed_octets += scrub->asked;
    if (scrub->phase == SPOOL_SCRUB_TRAILER) {
        check_trailer(spool, chunk);
    } else if (scrub->phase == SPOOL_SCRUB_INDEX) {
        check_index(spool, chunk);
    } else if (chunk.size < sizeof(struct spool_record)) { /* the disk cannot read it */
        lost_begin(scrub, scrub->offset);
        scrub->offset += scrub->asked;
        scrub->wanted = 0;
    } else {
        check_records(spool, chunk);
    }
    check_advance(spool);
}

/* ---- the round ---- */

static bool disk_is_quiet(const struct spool *spool)
{
    return spool->flight == NULL && spool->pending.count == spool->lazy_count &&
           spool->operations == 0 && spool->reads_running == 0 && spool->reads_waiting == NULL &&
           spool_copies_are_none(spool) && spool->repairs == NULL && spool->failures_in_row == 0;
}

static bool segment_is_scrubbed(const struct spool_scrub *scrub,
                                const struct spool_segment *segment)
{
    return segment->state == SPOOL_SEGMENT_SEALED && segment->serial == scrub->serial &&
           scrub->phase != SPOOL_SCRUB_END;
}

/* The segment in hand, or the next one. False: the round is over. */
static bool scrub_choose(struct spool *spool)
{
    struct spool_scrub *scrub = &spool->scrub;

    while (scrub->segment < spool->segment_count) {
        const struct spool_segment *segment = spool->segments[scrub->segment];
        if (scrub->is_begun && segment_is_scrubbed(scrub, segment))
            return true;
        if (scrub->is_begun || segment->state != SPOOL_SEGMENT_SEALED) {
            scrub->is_begun = false;
            scrub->segment++;
            continue;
        }
        scrub->is_begun = true;
        scrub->is_lost = false;
        scrub->serial = segment->serial;
        scrub->phase = SPOOL_SCRUB_RECORDS;
        scrub->offset = SPOOL_BLOCK_SIZE;
        scrub->wanted = scrub->ranges_seen = 0;
        check_advance(spool);
    }
    scrub->segment = 0;
    return false;
}

static void scrub_read(struct spool *spool)
{
    struct spool_scrub *scrub = &spool->scrub;
    struct spool_segment *segment = spool->segments[scrub->segment];
    uint32_t size = scrub->wanted;

    if (scrub->phase == SPOOL_SCRUB_RECORDS) {
        size = size > SCRUB_CHUNK ? size : SCRUB_CHUNK;
        size = size < segment->used - scrub->offset ? size : segment->used - scrub->offset;
    }
    if (size > scrub->block_size) {
        free(scrub->block);
        scrub->block = malloc(size);
        CHECK(scrub->block != NULL);
        scrub->block_size = size;
    }
    scrub->asked = size;
    scrub->is_reading = true;
    scrub->due = spool->now.tick + size * TICK_S(1) / spool->options.scrub_rate;
    segment->reads++;
    disk_submit_read(spool->disk, segment->file, scrub->offset, scrub->block, size,
                     (uintptr_t)&scrub->io);
}

void spool_scrub_init(struct spool *spool)
{
    tick_us pause = spool->options.scrub_pause;

    spool->scrub.io = (struct spool_io){SPOOL_IO_SCRUB, spool};
    spool->scrub.due = spool->now.tick + (pause < SCRUB_REST_TIME ? pause : SCRUB_REST_TIME);
}

void spool_scrub_advance(struct spool *spool)
{
    struct spool_scrub *scrub = &spool->scrub;

    if (spool->options.scrub_rate == 0 || scrub->is_reading || spool->is_flushing)
        return;
    if (scrub->range_count > 0) {
        search_slice(spool);
        return;
    }
    if (spool->now.tick < scrub->due)
        return;
    if (!disk_is_quiet(spool)) {
        scrub->due = spool->now.tick + SCRUB_LOOK_TIME;
        return;
    }
    if (scrub_choose(spool)) {
        scrub_read(spool);
        return;
    }
    spool->stats.scrub_rounds++;
    scrub->due = spool->now.tick + spool->options.scrub_pause;
    free(scrub->block); /* of no use until the next round */
    scrub->block = NULL;
    scrub->block_size = 0;
}

tick_us spool_scrub_deadline(const struct spool *spool)
{
    const struct spool_scrub *scrub = &spool->scrub;

    if (spool->options.scrub_rate == 0 || scrub->is_reading || spool->is_flushing)
        return TICK_NEVER;
    return scrub->range_count > 0 ? spool->now.tick : scrub->due;
}

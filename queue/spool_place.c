/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who needs a segment: holds, references, reads.
 *
 *   holds    records in it that a live or unfinished message needs
 *   refers   other segments whose MESSAGE records are spoken of by its DONE and VOID records
 *   reads    records in it that are being read
 *
 * A segment without any of them may be used again (the rule and its reasons: spool_segment.c). A
 * place is a record's address together with the generation of its segment, so that an address in a
 * segment that was used again is known to be stale.
 */
#include "queue/spool_internal.h"

bool spool_place_is_current(const struct spool *spool, const struct spool_place *place)
{
    CHECK(place->segment < spool->segment_count);
    return spool->segments[place->segment]->serial == place->serial;
}

static uint64_t place_octets(const struct spool_place *place)
{
    return sizeof(struct spool_record) + (uint64_t)place->payload_size;
}

void spool_hold(struct spool *spool, struct spool_place *place)
{
    CHECK(!place->is_held && spool_place_is_current(spool, place));
    struct spool_segment *segment = spool->segments[place->segment];
    place->is_held = true;
    segment->holds++;
    segment->live_octets += place_octets(place);
    spool->live_octets += place_octets(place);
    spool->live_records++;
}

void spool_unhold(struct spool *spool, struct spool_place *place)
{
    CHECK(place->is_held && spool_place_is_current(spool, place));
    struct spool_segment *segment = spool->segments[place->segment];
    CHECK(segment->holds > 0 && segment->live_octets >= place_octets(place));
    place->is_held = false;
    segment->holds--;
    segment->live_octets -= place_octets(place);
    spool->live_octets -= place_octets(place);
    spool->live_records--;
    if (segment->holds == 0 && segment->state == SPOOL_SEGMENT_SEALED)
        spool->is_census_due = true;
}

void spool_segment_refer(struct spool *spool, struct spool_segment *segment,
                         const struct spool_place *place)
{
    if (place->segment == segment->index || !spool_place_is_current(spool, place))
        return;
    segment->refers[place->segment / 64] |= (uint64_t)1 << place->segment % 64;
}

bool spool_segment_refers_nothing(const struct spool_segment *segment)
{
    uint64_t any = 0;
    for (uint32_t i = 0; i < COUNT_OF(segment->refers); i++)
        any |= segment->refers[i];
    return any == 0;
}

bool spool_segment_is_reusable(const struct spool_segment *segment)
{
    return segment->state == SPOOL_SEGMENT_SEALED && segment->holds == 0 && segment->reads == 0 &&
           (SPOOL_HAS_BUG(EARLY_RECYCLE) || spool_segment_refers_nothing(segment));
}

void spool_segment_read(struct spool *spool, const struct spool_place *place, uint8_t *ret_data,
                        struct spool_io *io)
{
    CHECK(spool_place_is_current(spool, place));
    struct spool_segment *segment = spool->segments[place->segment];
    segment->reads++;
    disk_submit_read(spool->disk, segment->file, place->offset, ret_data,
                     (uint32_t)place_octets(place), (uintptr_t)io);
}

void spool_segment_read_end(struct spool *spool, const struct spool_place *place)
{
    struct spool_segment *segment = spool->segments[place->segment];
    CHECK(segment->reads > 0);
    if (--segment->reads == 0)
        spool->is_census_due = true;
}

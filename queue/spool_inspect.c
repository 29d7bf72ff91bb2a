/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking at a spool offline.
 *
 * First a recovery is run, which says which messages live and where their records are; then every
 * segment is read record by record as far as a row of it, or a BODY of a live message, reaches.
 * What lies behind that was never acknowledged: it may be torn, and is not looked at. Behind a
 * header that is not valid the next valid one is looked for.
 *
 * Invariants
 *   1. Nothing is written, and the segments are locked meanwhile: a relay that starts beside this
 *      leaves them to their next start.
 *   2. A run of octets that is no record counts as one damaged record, however long it is.
 *
 * Not here: repair. A damaged record costs its own message (spool_recovery.c).
 */
#include "queue/spool_inspect.h"

#include <stdlib.h>

#include "queue/spool_recovery.h"

struct inspection {
    struct spool_recovery *recovery;
    const struct spool_inspect_visitor *visitor;
    struct spool_inspect_counts counts;
    uint64_t *ends;        /* per segment: where what matters ends */
    uint64_t *octets_live; /* per segment */
};

static void reach(struct inspection *inspection, uint32_t segment, uint32_t offset,
                  uint32_t payload_size, bool is_live)
{
    uint64_t size = sizeof(struct spool_record) + (uint64_t)payload_size;

    if (offset + size > inspection->ends[segment])
        inspection->ends[segment] = offset + size;
    if (is_live)
        inspection->octets_live[segment] += size;
}

static void reach_message(struct inspection *inspection, const struct recovery_message *message)
{
    const struct spool_recovery *recovery = inspection->recovery;
    const struct recovery_row *row = recovery->rows[message->row];
    struct recovery_content content;
    bool is_open = spool_recovery_open(row, &content) == ERR_OK; /* the merge did it before */

    CHECK(is_open);
    reach(inspection, row->segment, row->offset, row->payload_size, true);
    for (uint32_t i = message->first_row; i < message->first_row + message->row_count; i++) {
        const struct recovery_row *progress = recovery->rows[i];
        if (progress->is_wanted)
            reach(inspection, progress->segment, progress->offset, progress->payload_size, true);
    }
    for (uint32_t i = 0; i < content.message.extent_count; i++) {
        struct spool_body_extent extent;
        uint32_t segment = 0;
        memcpy(&extent, content.extents.data + i * sizeof(extent), sizeof(extent));
        bool is_found = spool_recovery_find_segment(recovery, extent.salt, row->segment, &segment);
        CHECK(is_found);
        reach(inspection, segment, extent.offset, extent.size, true);
    }
}

/* ---- record by record ---- */

/* True with the record, or false. `*ret_is_damaged`: the payload does not fit a good header. */
static bool record_read(const struct inspection *inspection, uint32_t index, uint64_t offset,
                        struct spool_record *ret_record, bool *ret_is_damaged)
{
    const struct recovery_segment *segment = &inspection->recovery->segments[index];
    struct disk *disk = inspection->recovery->disk;
    uint8_t header[sizeof(struct spool_record)];
    uint32_t size;

    if (disk_read(disk, segment->file, offset, header, sizeof(header), &size) != ERR_OK ||
        spool_record_open(span_of(header, size), segment->header.salt, ret_record) != ERR_OK)
        return false;
    uint8_t *payload = malloc(ret_record->payload_size + 1);
    CHECK(payload != NULL);
    *ret_is_damaged = disk_read(disk, segment->file, offset + sizeof(header), payload,
                                ret_record->payload_size, &size) != ERR_OK ||
                      size != ret_record->payload_size ||
                      !spool_payload_is_valid(ret_record, span_of(payload, size));
    free(payload);
    return true;
}

static void record_tell(struct inspection *inspection, struct spool_inspect_segment *about,
                        const struct spool_inspect_record *record)
{
    about->records++;
    about->records_damaged += record->is_damaged;
    inspection->counts.records[record->record.type]++;
    inspection->counts.records_damaged += record->is_damaged;
    if (inspection->visitor->on_record != NULL)
        inspection->visitor->on_record(inspection->visitor->context, record);
}

static void segment_walk(struct inspection *inspection, uint32_t index,
                         struct spool_inspect_segment *about)
{
    uint64_t offset = SPOOL_BLOCK_SIZE, end = inspection->ends[index];

    while (offset + sizeof(struct spool_record) <= end) {
        struct spool_inspect_record record = {.segment = about->name, .offset = (uint32_t)offset};
        if (record_read(inspection, index, offset, &record.record, &record.is_damaged)) {
            record_tell(inspection, about, &record);
            offset = spool_record_end(&record.record, offset);
            continue;
        }
        record.is_damaged = true;
        record_tell(inspection, about, &record);
        offset = spool_recovery_find_record(inspection->recovery, index, offset, end);
    }
}

static void segment_inspect(struct inspection *inspection, uint32_t index)
{
    const struct recovery_segment *segment = &inspection->recovery->segments[index];
    struct spool_inspect_segment about = {
        .name = segment->name,
        .kind = segment->is_sealed ? SPOOL_SEGMENT_IS_SEALED : SPOOL_SEGMENT_IS_OPEN,
        .header = segment->header,
        .octets_live = inspection->octets_live[index],
    };
    if (!segment->is_blank && segment->header.segment_size > 0)
        segment_walk(inspection, index, &about);
    if (segment->is_blank)
        about.kind = SPOOL_SEGMENT_IS_BLANK;
    else if (segment->is_damaged || about.records_damaged > 0)
        about.kind = SPOOL_SEGMENT_IS_DAMAGED;
    inspection->counts.segments[about.kind]++;
    inspection->counts.octets_total += segment->header.segment_size;
    inspection->counts.octets_live += about.octets_live;
    if (inspection->visitor->on_segment != NULL)
        inspection->visitor->on_segment(inspection->visitor->context, &about);
}

static void inspect_all(struct inspection *inspection)
{
    const struct spool_recovery *recovery = inspection->recovery;

    for (uint32_t i = 0; i < recovery->row_count; i++)
        reach(inspection, recovery->rows[i]->segment, recovery->rows[i]->offset,
              recovery->rows[i]->payload_size, false);
    for (uint32_t i = 0; i < recovery->message_count; i++)
        reach_message(inspection, &recovery->messages[i]);
    for (uint32_t i = 0; i < recovery->segment_count; i++)
        segment_inspect(inspection, i);
    inspection->counts.messages_live = recovery->message_count;
    inspection->counts.messages_lost = recovery->messages_lost;
    inspection->counts.segments_busy = recovery->segments_busy;
}

enum err spool_inspect(struct disk *disk, const struct spool_inspect_visitor *visitor,
                       struct spool_inspect_counts *ret_counts)
{
    struct inspection inspection = {.visitor = visitor};
    uint64_t epoch;

    TRY(spool_epoch_next(disk, &epoch)); /* refuses a newer format */
    TRY(spool_recovery_run(disk, NULL, &inspection.recovery));
    uint32_t count = inspection.recovery->segment_count + 1;
    inspection.ends = calloc(count, sizeof(*inspection.ends));
    inspection.octets_live = calloc(count, sizeof(*inspection.octets_live));
    CHECK(inspection.ends != NULL && inspection.octets_live != NULL);
    inspect_all(&inspection);
    free(inspection.ends);
    free(inspection.octets_live);
    spool_recovery_free(inspection.recovery);
    *ret_counts = inspection.counts;
    return ERR_OK;
}

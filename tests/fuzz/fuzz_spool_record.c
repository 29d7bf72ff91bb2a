/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever stands in a spool file: the reader of a segment neither crashes nor reads beyond it. The
 * first octet says how much of the input is sealed again with right checksums, so that the fuzzer
 * gets past them.
 */
#include <stdlib.h>

#include "queue/crc32c.h"
#include "queue/spool_record.h"

#define SALT 7u

/* Walk records as recovery does. */
static void walk(struct span octets)
{
    uint64_t offset = 0;
    struct spool_record record;
    while (offset < octets.size &&
           spool_record_open(span_skip(octets, (uint32_t)offset), SALT, &record) == ERR_OK) {
        struct span payload = span_skip(octets, (uint32_t)(offset + sizeof(record)));
        if (payload.size < record.payload_size)
            return;
        payload = span_head(payload, record.payload_size);
        (void)spool_payload_is_valid(&record, payload);
        struct spool_message message;
        struct span extents, envelope;
        if (record.type == SPOOL_MESSAGE &&
            spool_message_open(payload, &message, &extents, &envelope) == ERR_OK)
            CHECK(extents.size + envelope.size + sizeof(message) == payload.size);
        uint64_t end = spool_record_end(&record, offset);
        CHECK(end > offset);
        offset = end;
    }
}

static void read_index(struct span octets)
{
    struct spool_trailer trailer;
    if (spool_trailer_open(octets, SALT, SPOOL_SEGMENT_SIZE_MIN, &trailer) != ERR_OK)
        return;
    struct span index = span_skip(octets, sizeof(trailer));
    if (spool_index_size(&trailer) <= index.size)
        (void)spool_index_verify(&trailer, span_head(index, spool_index_size(&trailer)));
}

/* Give the header at the front the magic, salt and checksum that make it readable. */
static void reseal(uint8_t *data, uint32_t size, bool is_trailer)
{
    struct spool_record record;
    if (size < sizeof(record))
        return;
    memcpy(&record, data, sizeof(record));
    struct span rest = span_of(data + sizeof(record), size - (uint32_t)sizeof(record));
    if (is_trailer) {
        struct spool_trailer trailer;
        memcpy(&trailer, data, sizeof(trailer));
        trailer.magic = SPOOL_TRAILER_MAGIC;
        trailer.salt = SALT;
        uint32_t rows = (uint32_t)(rest.size / sizeof(struct spool_row));
        trailer.row_count = trailer.row_count % 4 == 0 ? trailer.row_count : rows;
        trailer.index_checksum =
            crc32c_update(0, span_head(rest, rows * (uint32_t)sizeof(struct spool_row)));
        trailer.checksum = crc32c_update(0, span_of(&trailer, 60));
        memcpy(data, &trailer, sizeof(trailer));
        return;
    }
    record.magic = SPOOL_RECORD_MAGIC;
    record.salt = SALT;
    record.payload_checksum = crc32c_update(
        0, span_head(rest, record.payload_size < rest.size ? record.payload_size : rest.size));
    record.checksum = crc32c_update(0, span_of(&record, 60));
    memcpy(data, &record, sizeof(record));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 65536)
        return 0;
    uint32_t length = (uint32_t)size - 1;
    uint8_t *copy = malloc(length + 1); /* exactly sized: overreads show */
    CHECK(copy != NULL);
    memcpy(copy, data + 1, length);
    if (data[0] & 1)
        reseal(copy, length, data[0] & 2);
    struct spool_segment_header header;
    walk(span_of(copy, length));
    read_index(span_of(copy, length));
    (void)spool_segment_header_open(span_of(copy, length), &header);
    free(copy);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of the spool: sealing what is written, judging what is read. spool_record.h is the
 * specification of the format.
 *
 * Invariants
 *   1. There is one definition of a valid header, a valid index and a valid MESSAGE payload; the
 *      writer CHECKs it, the reader tests it.
 *   2. Nothing read from the disk is believed before its checksum fits, and no size or offset is
 *      used before it was compared with what surrounds it.
 *
 * Not here: what records mean together (spool_recovery.c).
 */
#include "queue/spool_record.h"

#include "queue/crc32c.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "structs are the file format");

#define CHECKSUM_COVERED 60u /* of every 64-octet header; the checksum is its last word */

static uint32_t header_checksum(const void *header)
{
    return crc32c_update(0, span_of(header, CHECKSUM_COVERED));
}

uint64_t spool_record_end(const struct spool_record *record, uint64_t offset)
{
    uint64_t end = offset + sizeof(*record) + record->payload_size;
    return spool_align(end, record->flags & SPOOL_RECORD_LAST ? SPOOL_BLOCK_SIZE : 8);
}

static bool record_is_valid(const struct spool_record *record)
{
    return record->magic == SPOOL_RECORD_MAGIC && record->checksum == header_checksum(record) &&
           record->type >= SPOOL_BODY && record->type < SPOOL_RECORD_TYPE_END &&
           record->payload_size <= SPOOL_PAYLOAD_SIZE_MAX;
}

void spool_record_seal(struct spool_record *record)
{
    record->magic = SPOOL_RECORD_MAGIC;
    record->checksum = header_checksum(record);
    CHECK(record_is_valid(record)); /* our own bug if not: crash before the sync */
}

enum err spool_record_open(struct span octets, uint64_t salt, struct spool_record *ret_record)
{
    struct spool_record record;
    if (octets.size < sizeof(record))
        return ERR_DISK_CORRUPT;
    memcpy(&record, octets.data, sizeof(record));
    if (!record_is_valid(&record) || record.salt != salt)
        return ERR_DISK_CORRUPT;
    *ret_record = record;
    return ERR_OK;
}

bool spool_payload_is_valid(const struct spool_record *record, struct span payload)
{
    CHECK(payload.size == record->payload_size);
    return SPOOL_HAS_BUG(NO_CHECKSUM) || record->payload_checksum == crc32c_update(0, payload);
}

/* What every version has in common. */
static bool segment_header_is_sealed(const struct spool_segment_header *header)
{
    return header->magic == SPOOL_SEGMENT_MAGIC && header->checksum == header_checksum(header);
}

static bool segment_header_is_valid(const struct spool_segment_header *header)
{
    return header->version >= SPOOL_VERSION_MIN && header->version <= SPOOL_VERSION &&
           header->segment_size >= SPOOL_SEGMENT_SIZE_MIN &&
           header->segment_size <= SPOOL_SEGMENT_SIZE_MAX &&
           header->segment_size % SPOOL_BLOCK_SIZE == 0;
}

void spool_segment_header_seal(struct spool_segment_header *header)
{
    header->magic = SPOOL_SEGMENT_MAGIC;
    header->version = SPOOL_VERSION;
    header->checksum = header_checksum(header);
    CHECK(segment_header_is_sealed(header) && segment_header_is_valid(header));
}

enum err spool_segment_header_open(struct span octets, struct spool_segment_header *ret_header)
{
    struct spool_segment_header header;
    if (octets.size < sizeof(header))
        return ERR_DISK_CORRUPT;
    memcpy(&header, octets.data, sizeof(header));
    if (!segment_header_is_sealed(&header))
        return ERR_DISK_CORRUPT;
    if (header.version > SPOOL_VERSION)
        return ERR_DISK_VERSION;
    if (!segment_header_is_valid(&header))
        return ERR_DISK_CORRUPT;
    *ret_header = header;
    return ERR_OK;
}

static bool trailer_is_valid(const struct spool_trailer *trailer, uint64_t salt,
                             uint32_t segment_size)
{
    uint64_t index_end = trailer->index_offset + trailer->details_size +
                         (uint64_t)trailer->row_count * sizeof(struct spool_row);
    return trailer->magic == SPOOL_TRAILER_MAGIC && trailer->salt == salt &&
           (SPOOL_HAS_BUG(INDEX_BELIEVED) || trailer->checksum == header_checksum(trailer)) &&
           trailer->index_offset >= SPOOL_BLOCK_SIZE &&
           trailer->index_offset % SPOOL_BLOCK_SIZE == 0 &&
           index_end <= segment_size - SPOOL_BLOCK_SIZE &&
           trailer->log_end <= trailer->index_offset;
}

uint32_t spool_index_size(const struct spool_trailer *trailer)
{
    return trailer->row_count * (uint32_t)sizeof(struct spool_row) + trailer->details_size;
}

void spool_trailer_seal(struct spool_trailer *trailer, struct span index)
{
    CHECK(index.size == spool_index_size(trailer));
    trailer->magic = SPOOL_TRAILER_MAGIC;
    trailer->index_checksum = crc32c_update(0, index);
    trailer->checksum = header_checksum(trailer);
}

enum err spool_trailer_open(struct span octets, uint64_t salt, uint32_t segment_size,
                            struct spool_trailer *ret_trailer)
{
    struct spool_trailer trailer;
    if (octets.size < sizeof(trailer))
        return ERR_DISK_CORRUPT;
    memcpy(&trailer, octets.data, sizeof(trailer));
    if (!trailer_is_valid(&trailer, salt, segment_size))
        return ERR_DISK_CORRUPT;
    *ret_trailer = trailer;
    return ERR_OK;
}

static bool row_is_valid(const struct spool_row *row, const struct spool_trailer *trailer)
{
    uint64_t end = (uint64_t)row->offset + sizeof(struct spool_record) + row->payload_size;

    return row->type > SPOOL_BODY && row->type < SPOOL_RECORD_TYPE_END &&
           row->payload_size <= SPOOL_PAYLOAD_SIZE_MAX && row->offset >= SPOOL_BLOCK_SIZE &&
           row->offset % 8 == 0 && end <= trailer->index_offset &&
           row->detail_size <= SPOOL_DETAIL_SIZE_MAX;
}

enum err spool_index_verify(const struct spool_trailer *trailer, struct span index)
{
    uint64_t details_size = 0;

    CHECK(index.size == spool_index_size(trailer));
    if (!SPOOL_HAS_BUG(INDEX_BELIEVED) && trailer->index_checksum != crc32c_update(0, index))
        return ERR_DISK_CORRUPT;
    for (uint32_t i = 0; i < trailer->row_count; i++) {
        struct spool_row row;
        memcpy(&row, index.data + i * sizeof(row), sizeof(row));
        if (!SPOOL_HAS_BUG(INDEX_BELIEVED) && !row_is_valid(&row, trailer))
            return ERR_DISK_CORRUPT;
        details_size += row.detail_size;
    }
    return details_size == trailer->details_size ? ERR_OK : ERR_DISK_CORRUPT;
}

uint32_t spool_message_size(uint32_t extent_count, uint32_t envelope_size)
{
    return (uint32_t)sizeof(struct spool_message) +
           extent_count * (uint32_t)sizeof(struct spool_body_extent) + envelope_size;
}

/* Message, extents, and the rest, whatever that is. */
static enum err message_split(struct span octets, struct spool_message *ret_message,
                              struct span *ret_extents, struct span *ret_rest)
{
    struct spool_message message;
    if (octets.size < sizeof(message))
        return ERR_DISK_CORRUPT;
    memcpy(&message, octets.data, sizeof(message));
    uint64_t extents_size = (uint64_t)message.extent_count * sizeof(struct spool_body_extent);
    if (sizeof(message) + extents_size > octets.size)
        return ERR_DISK_CORRUPT;

    struct span extents =
        span_head(span_skip(octets, (uint32_t)sizeof(message)), (uint32_t)extents_size);
    uint64_t body_size = 0;
    for (uint32_t i = 0; i < message.extent_count; i++) {
        struct spool_body_extent extent;
        memcpy(&extent, extents.data + i * sizeof(extent), sizeof(extent));
        if (extent.size > SPOOL_PAYLOAD_SIZE_MAX)
            return ERR_DISK_CORRUPT;
        body_size += extent.size;
    }
    if (body_size != message.body_size)
        return ERR_DISK_CORRUPT;
    *ret_message = message;
    *ret_extents = extents;
    *ret_rest = span_skip(octets, (uint32_t)(sizeof(message) + extents_size));
    return ERR_OK;
}

enum err spool_message_open(struct span payload, struct spool_message *ret_message,
                            struct span *ret_extents, struct span *ret_envelope)
{
    struct spool_message message;
    struct span extents, envelope;

    TRY(message_split(payload, &message, &extents, &envelope));
    if (envelope.size != message.envelope_size)
        return ERR_DISK_CORRUPT;
    *ret_message = message;
    *ret_extents = extents;
    *ret_envelope = envelope;
    return ERR_OK;
}

enum err spool_message_detail_open(struct span detail, struct spool_message *ret_message,
                                   struct span *ret_extents, struct span *ret_index)
{
    return message_split(detail, ret_message, ret_extents, ret_index);
}

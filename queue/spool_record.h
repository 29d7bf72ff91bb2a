/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_SPOOL_RECORD_H
#define QUEUE_SPOOL_RECORD_H

#include "base/span.h"
#include "queue/envelope.h"

/*
 * The format of a spool segment. All numbers are little endian, all reserved octets zero; the
 * structs below are the format.
 *
 *   0                        segment header, 64 octets, then zeros up to SPOOL_BLOCK_SIZE
 *   SPOOL_BLOCK_SIZE         batches, each beginning at a multiple of SPOOL_BLOCK_SIZE
 *   ...                      (nothing, or leftovers of an earlier generation of this segment)
 *   trailer.index_offset     index: rows of 48 octets, then    } only in a sealed segment
 *                            their details                     }
 *   size - SPOOL_BLOCK_SIZE  trailer, 64 octets, then zeros    }
 *
 * A batch is a row of records, each beginning at a multiple of 8, the last one marked
 * SPOOL_RECORD_LAST; zeros fill up the block behind it. A record is a header of 64 octets and
 * payload_size octets of payload. Reading a segment without an index ends at the first record that
 * is not valid, unless a later batch begins with SPOOL_RECORD_AFTER_SYNC: then what is not valid
 * was durable once, so that it is damage and not a torn end, and reading goes on.
 *
 * A header is trusted when its own checksum and the segment's salt fit: then so is payload_size.
 * The salt changes each time a segment is used anew, so that leftovers are never valid.
 *
 * The index has a row for each record but BODY. A row may have a detail, so that a start needs to
 * read no record: details stand behind the rows, in their order, without gaps.
 *   MESSAGE   struct spool_message, the extents, then the index of the envelope (opaque here:
 *             envelope_index.c); that is empty when there is none, and the envelope is read
 *   PROGRESS  the payload
 * What has no detail is read.
 *
 * Versions. Magic, version, their place and the checksum of the 64 octets stay as they are for
 * ever. A program reads the version that it writes and the one before; segments are written anew in
 * its own version as they are used again. It refuses a directory with a newer one, and changes
 * nothing there: going back is possible as long as nothing was written, or when the spool was
 * emptied first. A new version is whatever an older program must not read past: another layout, a
 * new type of record, a new TLV below 128 in an envelope or a PROGRESS (envelope.c). One that it
 * may leave out, from 128 on, needs none.
 *
 * Payloads
 *   BODY      octets of the message; `part` counts from 0
 *   MESSAGE   struct spool_message, then extent_count x struct spool_body_extent, then the envelope
 *             (opaque here: envelope.c). The commit point of a message.
 *   PROGRESS  opaque here: envelope.c. One that a program does not understand counts as damaged:
 *             it is told, and its message is tried as the records before it say
 *   DONE      empty: nothing is left to do for messages of this id with a lower (epoch, sequence)
 *   VOID      empty: the record with this id, epoch and sequence was never acknowledged and is dead
 */
#define SPOOL_BLOCK_SIZE       4096u
#define SPOOL_VERSION          2u                  /* written */
#define SPOOL_VERSION_MIN      1u                  /* oldest that is read: rows without details */
#define SPOOL_SEGMENT_MAGIC    0x4c4f4f50534e4741u /* "AGNSPOOL" */
#define SPOOL_TRAILER_MAGIC    0x5845444e494e4741u /* "AGNINDEX" */
#define SPOOL_RECORD_MAGIC     0x44434552u         /* "RECD" */
#define SPOOL_PAYLOAD_SIZE_MAX (2u << 20)
#define SPOOL_DETAIL_SIZE_MAX  2048u
#define SPOOL_SEGMENT_SIZE_MIN (128u << 10)
#define SPOOL_SEGMENT_SIZE_MAX (1u << 30)

enum spool_record_type {
    SPOOL_BODY = 1,
    SPOOL_MESSAGE,
    SPOOL_PROGRESS,
    SPOOL_DONE,
    SPOOL_VOID,
    SPOOL_RECORD_TYPE_END
};

enum spool_record_flags {
    SPOOL_RECORD_LAST = 1,
    SPOOL_RECORD_AFTER_SYNC = 2 /* all before it in its segment was durable when it was written */
};

struct spool_segment_header {
    uint64_t magic;
    uint32_t version;
    uint32_t shard; /* of the writer; informative */
    uint64_t salt;
    uint64_t sequence; /* of the writer at the time: orders segments of one epoch */
    uint32_t epoch;
    uint32_t segment_size;
    uint8_t reserved[20];
    uint32_t checksum; /* CRC-32C of the 60 octets before */
};
_Static_assert(sizeof(struct spool_segment_header) == 64, "file format");

struct spool_record {
    uint32_t magic;
    uint8_t type, flags;
    uint16_t reserved;
    uint32_t payload_size;
    uint32_t part;
    struct message_id id;
    uint64_t sequence; /* with epoch: which record of this id is the newer one */
    uint64_t salt;     /* of the segment */
    uint32_t epoch;
    uint32_t copy; /* 0: as first written; one more each time it was copied forward */
    uint32_t payload_checksum;
    uint32_t checksum; /* CRC-32C of the 60 octets before */
};
_Static_assert(sizeof(struct spool_record) == 64, "file format");

struct spool_message {
    uint32_t extent_count;
    uint32_t envelope_size;
    uint64_t body_size;
};
_Static_assert(sizeof(struct spool_message) == 16, "file format");

struct spool_body_extent { /* where a BODY record is */
    uint64_t salt;         /* of its segment */
    uint32_t offset;       /* of its header in the segment */
    uint32_t size;         /* of its payload */
};
_Static_assert(sizeof(struct spool_body_extent) == 16, "file format");

struct spool_row { /* of the index: every record but BODY, in the order of the segment */
    struct message_id id;
    uint64_t sequence;
    uint32_t epoch;
    uint32_t copy;
    uint32_t offset;
    uint32_t payload_size;
    uint8_t type;
    uint8_t reserved[3];
    uint32_t detail_size; /* 0: it has none */
};
_Static_assert(sizeof(struct spool_row) == 48, "file format");

struct spool_trailer {
    uint64_t magic;
    uint64_t salt;
    uint32_t index_offset;
    uint32_t row_count;
    uint32_t index_checksum; /* CRC-32C of rows and details */
    uint32_t details_size;
    uint32_t log_end; /* records end here; 0: unknown */
    uint8_t reserved[24];
    uint32_t checksum; /* CRC-32C of the 60 octets before */
};
_Static_assert(sizeof(struct spool_trailer) == 64, "file format");

static inline uint64_t spool_align(uint64_t offset, uint32_t unit)
{
    return (offset + unit - 1) & ~(uint64_t)(unit - 1);
}

/** Offset of the record behind one at `offset`. */
uint64_t spool_record_end(const struct spool_record *record, uint64_t offset);

/** Fill in magic and checksum. The payload's checksum is the caller's. CHECKs the result. */
void spool_record_seal(struct spool_record *record);
/**
 * Parse the header at the front of `octets`, which may end before its payload does.
 *
 * Errors: ERR_DISK_CORRUPT unless this is a sealed header of the segment with this salt.
 */
enum err spool_record_open(struct span octets, uint64_t salt,
                           struct spool_record *ret_record) MUST_CHECK;
bool spool_payload_is_valid(const struct spool_record *record, struct span payload);

void spool_segment_header_seal(struct spool_segment_header *header);
/** Errors: ERR_DISK_CORRUPT; ERR_DISK_VERSION when a newer version wrote it. `octets` are those of
 * the whole file's front. */
enum err spool_segment_header_open(struct span octets,
                                   struct spool_segment_header *ret_header) MUST_CHECK;

/** `index` is rows and details. */
void spool_trailer_seal(struct spool_trailer *trailer, struct span index);
/** The trailer at the front of `octets`. Errors: ERR_DISK_CORRUPT unless it is sealed, of this salt
 * and within a segment of this size. */
enum err spool_trailer_open(struct span octets, uint64_t salt, uint32_t segment_size,
                            struct spool_trailer *ret_trailer) MUST_CHECK;
/** Octets of rows and details. */
uint32_t spool_index_size(const struct spool_trailer *trailer);
/** Errors: ERR_DISK_CORRUPT unless rows and details are those of the trailer, and every one is
 * possible. */
enum err spool_index_verify(const struct spool_trailer *trailer, struct span index) MUST_CHECK;

/** Octets of a MESSAGE payload. */
uint32_t spool_message_size(uint32_t extent_count, uint32_t envelope_size);
/**
 * Split a MESSAGE payload. Ownership: the outputs borrow from `payload`; extents may be unaligned.
 * Errors: ERR_DISK_CORRUPT unless sizes and sums fit.
 */
enum err spool_message_open(struct span payload, struct spool_message *ret_message,
                            struct span *ret_extents, struct span *ret_envelope) MUST_CHECK;

/** Split the detail of a MESSAGE likewise; `*ret_index` may be empty. */
enum err spool_message_detail_open(struct span detail, struct spool_message *ret_message,
                                   struct span *ret_extents, struct span *ret_index) MUST_CHECK;

/* Bugs planted on purpose, one at a time, in test programs only: each must be caught. */
#define SPOOL_BUG_NONE        0
#define SPOOL_BUG_NO_CHECKSUM 1 /* payloads are believed */
#define SPOOL_BUG_EARLY_RECYCLE                                                                    \
    2 /* a segment with DONE records is reused before their messages'                              \
       */
#define SPOOL_BUG_VOID_IGNORED      3
#define SPOOL_BUG_INDEX_BELIEVED    4 /* index and trailer are used without their checksums */
#define SPOOL_BUG_REPLY_BEFORE_SYNC 5 /* a commit is told before it is on stable storage */
#define SPOOL_BUG_DSN_AFTER_SETTLE  6 /* a message's end is written before the DSN that it owes */
#define SPOOL_BUG_NO_MARGIN         7 /* notifications take the segment that the copier needs */
#ifndef SPOOL_BUG
#define SPOOL_BUG SPOOL_BUG_NONE
#endif
#define SPOOL_HAS_BUG(bug) (SPOOL_BUG == SPOOL_BUG_##bug)

#endif

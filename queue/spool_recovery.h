/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_SPOOL_RECOVERY_H
#define QUEUE_SPOOL_RECOVERY_H

#include "queue/spool_internal.h"

/* What the scan of a spool directory found, between spool_recovery.c (scan), spool_merge.c (which
 * messages live) and spool_adopt.c (who gets them). Read only after the scan. */
#define SPOOL_RECOVERY_SEGMENTS_MAX (SPOOL_SEGMENT_COUNT_MAX / 2)

struct recovery_segment {
    char name[DISK_NAME_SIZE_MAX];
    struct disk_file *file; /* opened and locked until its adoption */
    struct spool_segment_header header;
    bool is_blank;   /* a file that never got a header: nothing to lose */
    bool is_damaged; /* something in it could not be read: never used again */
    bool is_sealed;
    uint32_t end;     /* records before this offset are valid */
    uint32_t parent;  /* union-find: segments that must go to the same spool */
    uint32_t live;    /* live messages of the group, at its root */
    uint64_t *refers; /* bit per segment, as in struct spool_segment */
};

struct recovery_row {
    struct message_id id;
    uint64_t sequence;
    uint32_t epoch, copy;
    uint32_t segment, offset, payload_size;
    uint8_t type;
    bool is_void;
};

struct recovery_message {          /* live */
    uint32_t first_row, row_count; /* all rows of its id */
    uint32_t row;                  /* its MESSAGE */
    uint8_t *payload;
    struct spool_message message;
    struct span extents, envelope; /* in payload */
    uint32_t *progress_rows;
    struct span *progress; /* each on the heap */
    uint32_t progress_count;
};

struct spool_recovery {
    struct disk *disk;
    uint32_t epoch_newest;             /* of all names */
    uint32_t lock_tries_left;          /* for locks that may go away */
    struct recovery_segment *segments; /* in the order of their generations */
    uint32_t segment_count, segment_capacity;
    struct recovery_row *rows; /* by id, epoch, sequence, copy */
    uint64_t row_count, row_capacity;
    struct recovery_message *messages; /* by id */
    uint32_t message_count, message_capacity;
    uint32_t messages_lost; /* acknowledged, not finished, not readable */
    uint32_t segments_busy; /* locked by somebody else */
};

/** Decide which messages live, read their MESSAGE and PROGRESS, and which segments belong together.
 */
void spool_merge(struct spool_recovery *recovery);
/** Root of the group that the segment belongs to. Does not write. */
uint32_t spool_recovery_root(const struct spool_recovery *recovery, uint32_t segment);
/** Read a record and check it; in one go when its payload has the size expected. Errors:
 * ERR_DISK_IO, ERR_DISK_CORRUPT. On success *ret_payload is on the heap. */
enum err spool_recovery_read(struct spool_recovery *recovery, uint32_t segment, uint32_t offset,
                             uint32_t payload_size_expected, struct spool_record *ret_record,
                             uint8_t **ret_payload) MUST_CHECK;

/** The first valid header behind `offset` and before `end`, or `end`: where reading goes on behind
 * damage. No mail can contain one: its sender would have to know the segment's salt. */
uint64_t spool_recovery_find_record(struct spool_recovery *recovery, uint32_t index,
                                    uint64_t offset, uint64_t end);

#endif

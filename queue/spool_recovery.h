/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_SPOOL_RECOVERY_H
#define QUEUE_SPOOL_RECOVERY_H

#include "queue/spool_internal.h"

/* What the scan of a spool directory found, between spool_recovery.c (which segments), spool_scan.c
 * (what is in them), spool_deal.c (rows by ranges of ids), spool_sort.c (such a range in order),
 * spool_merge.c (which messages live) and spool_adopt.c (who gets them). Read only after the merge,
 * but for the rows of a segment: they are gone as soon as all were adopted that are wanted. */
#define SPOOL_RECOVERY_SEGMENTS_MAX (SPOOL_SEGMENT_COUNT_MAX / 2)

struct recovery_block {
    struct recovery_block *next;
    uint8_t octets[];
};

struct recovery_segment {
    char name[DISK_NAME_SIZE_MAX];
    struct disk_file *file; /* opened and locked until its adoption */
    struct spool_segment_header header;
    bool is_blank;   /* a file that never got a header: nothing to lose */
    bool is_damaged; /* something in it could not be read: never used again */
    bool is_sealed;
    bool is_end_known;    /* records end at `end`; if not, no later */
    uint32_t end;         /* records before this offset are valid */
    uint32_t parent;      /* union-find: segments that must go to the same spool */
    uint32_t live;        /* live messages of the group, at its root, and */
    uint64_t live_octets; /* what they have */
    uint64_t *refers;     /* bit per segment, as in struct spool_segment */
    struct recovery_row *rows;
    uint32_t row_count, row_capacity;
    uint32_t wanted;               /* rows that the adoption will look at */
    size_t pages_size;             /* sealed: of rows and details, which are one piece; else 0 */
    struct recovery_block *blocks; /* that rows point into */
};

struct recovery_row {
    struct message_id id;
    uint64_t sequence;
    const uint8_t *detail; /* NULL: to be read */
    uint32_t epoch, copy;
    uint32_t offset, payload_size;
    uint32_t detail_size;
    uint16_t segment;
    union {
        uint16_t bucket; /* while rows are dealt out */
        uint16_t retry;  /* of a PROGRESS that counts: as in struct spool_place */
    };
    uint8_t type;
    bool is_void : 1;
    bool is_whole : 1;  /* the detail is the payload */
    bool is_wanted : 1; /* a PROGRESS that counts */
};

struct recovery_message {          /* live */
    uint32_t first_row, row_count; /* all rows of its id */
    uint32_t row;                  /* its MESSAGE */
    uint32_t segment;              /* that has it */
};

struct recovery_bucket { /* of a range of ids */
    uint32_t start, row_count;
    uint32_t message_count; /* live */
};

struct spool_recovery {
    struct disk *disk;
    struct spool_recovery_options options;
    uint32_t epoch_newest;             /* of all names */
    uint32_t lock_tries_left;          /* for locks that may go away */
    struct recovery_segment *segments; /* in the order of their generations */
    uint32_t segment_count, segment_capacity;
    struct recovery_row **rows; /* by id, epoch, sequence, copy */
    uint32_t row_count;
    struct recovery_message *messages; /* by id; room for row_count */
    uint32_t message_count;
    uint32_t messages_lost; /* acknowledged, not finished, not readable */
    uint32_t segments_busy; /* locked by somebody else */
};

/* A MESSAGE, taken apart; borrowed from its row. */
struct recovery_content {
    struct spool_message message;
    struct span extents;
    struct span envelope; /* empty: it was not read */
    struct span index;    /* of the envelope; empty: there is none */
};

/* spool_scan.c */

/* For one segment after the other. */
struct recovery_scratch {
    uint8_t *octets;
    size_t size;
};
/** Take the rows of a segment: from its index, or record by record. */
void spool_recovery_scan(struct spool_recovery *recovery, uint32_t segment,
                         struct recovery_scratch *scratch);
/** Read a record and check it; in one go when its payload has the size expected. Errors:
 * ERR_DISK_IO, ERR_DISK_CORRUPT. On success *ret_block, on the heap, holds the payload. */
enum err spool_recovery_read(const struct spool_recovery *recovery, uint32_t segment,
                             uint32_t offset, uint32_t payload_size_expected,
                             struct spool_record *ret_record,
                             struct recovery_block **ret_block) MUST_CHECK;
/** The first valid header behind `offset` and before `end`, or `end`: where reading goes on behind
 * damage. No mail can contain one: its sender would have to know the segment's salt. */
uint64_t spool_recovery_find_record(const struct spool_recovery *recovery, uint32_t index,
                                    uint64_t offset, uint64_t end);

/* spool_deal.c */

/** Fill `rows`, bucket by bucket, and return the buckets, on the heap. */
struct recovery_bucket *spool_deal(struct spool_recovery *recovery, uint32_t *ret_count);
int spool_recovery_compare_ids(struct message_id x, struct message_id y);

/* spool_sort.c */

/** By id, epoch, sequence, copy, segment. */
void spool_recovery_sort(struct recovery_row **rows, uint32_t count);
/** By epoch and sequence. */
int spool_recovery_compare_keys(const struct recovery_row *x, const struct recovery_row *y);

/* spool_recovery.c */

/** The rows of a segment are done with. */
void spool_recovery_forget_rows(struct recovery_segment *segment);

/* spool_merge.c */

/** Decide which messages live, read of them what no index had, and which segments belong together.
 */
void spool_merge(struct spool_recovery *recovery);
/** Root of the group that the segment belongs to. Does not write. */
uint32_t spool_recovery_root(const struct spool_recovery *recovery, uint32_t segment);
/** Take a MESSAGE row that has its detail apart. Errors: ERR_DISK_CORRUPT. */
enum err spool_recovery_open(const struct recovery_row *row,
                             struct recovery_content *ret_content) MUST_CHECK;
/** The segment with this salt; most often it is `hint`, the one with the MESSAGE. */
bool spool_recovery_find_segment(const struct spool_recovery *recovery, uint64_t salt,
                                 uint32_t hint, uint32_t *ret_index);

/* spool_adopt.c */
/** Which of `count` shares each segment goes to. What lives is spread evenly, and what is free goes
 * where room is scarce: all need some (spool_space.c). */
void spool_recovery_deal(const struct spool_recovery *recovery, uint32_t count,
                         uint32_t *ret_shares);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_SPOOL_INSPECT_H
#define QUEUE_SPOOL_INSPECT_H

#include "queue/disk.h"
#include "queue/spool_record.h"

/* Looking at a spool that no relay uses, or at a copy of one: every record is read, nothing is
 * written. */
enum spool_segment_kind {
    SPOOL_SEGMENT_IS_SEALED,
    SPOOL_SEGMENT_IS_OPEN,    /* no index: the one that was written last, or a crash */
    SPOOL_SEGMENT_IS_BLANK,   /* a file that never got a header: nothing to lose */
    SPOOL_SEGMENT_IS_DAMAGED, /* the header, or something in it that a message needs */
    SPOOL_SEGMENT_KIND_COUNT
};

struct spool_inspect_segment {
    const char *name;
    enum spool_segment_kind kind;
    struct spool_segment_header header;
    uint64_t records, records_damaged;
    uint64_t octets_live; /* records of live messages */
};

struct spool_inspect_record {
    const char *segment;
    uint32_t offset;
    struct spool_record record; /* zeros when the header itself is damaged */
    bool is_damaged;
};

/* All but `context` may be NULL. What they get is borrowed for the call. */
struct spool_inspect_visitor {
    void *context;
    void (*on_record)(void *context, const struct spool_inspect_record *record);
    void (*on_segment)(void *context, const struct spool_inspect_segment *segment);
};

struct spool_inspect_counts {
    uint32_t segments[SPOOL_SEGMENT_KIND_COUNT];
    uint32_t segments_busy; /* locked by a running relay: not looked at */
    uint64_t records[SPOOL_RECORD_TYPE_END];
    uint64_t records_damaged;
    uint64_t octets_total, octets_live;
    uint32_t messages_live, messages_lost; /* lost: acknowledged, not finished, not readable */
};

/**
 * Read a whole spool directory, as a start would and then record by record.
 *
 * Bounds:     damage ends nothing: reading goes on at the next record.
 * Errors:     ERR_DISK_VERSION when a newer relay wrote here, ERR_DISK_IO; counts then unchanged.
 */
enum err spool_inspect(struct disk *disk, const struct spool_inspect_visitor *visitor,
                       struct spool_inspect_counts *ret_counts) MUST_CHECK;

#endif

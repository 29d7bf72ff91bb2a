/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_RECORD_READER_H
#define CONTROL_RECORD_READER_H

#include "base/span.h"
#include "relay/record.h"

/*
 * Lines of a file of records, or records of one in binary (record_raw.h), from a place on that
 * outlives the process: through the files that it was turned over into, to the one that is written
 * now, and on while that grows. Whoever turns files over, the relay (NAME.1, NAME.2 ...) or another
 * (any name that begins with NAME), a file is known by its inode and birth. One thread; blocks on
 * the disk.
 */
#define RECORD_READER_BUFFER 65536u

struct record_place {
    uint64_t inode, birth; /* of the file; birth in nanoseconds, 0: the file system knows none */
    uint64_t offset;       /* of the next line */
};

struct record_reader {
    const char *path; /* borrowed */
    int fd;           /* -1: there was no file yet */
    struct record_place place;
    uint64_t gaps;     /* files that were gone before they were read to their end */
    uint64_t passed;   /* octets that make no record, or a line that is too long */
    uint64_t pass_max; /* so many in one call, or a buffer more; 0: all there are */
    bool is_cut;       /* the last call ended there: it may be asked again */
    uint32_t at, size; /* of the buffer: what comes next, what there is */
    char *buffer;
};

enum record_reader_from {
    RECORD_READER_END,    /* what is written from now on */
    RECORD_READER_OLDEST, /* all that there is */
    RECORD_READER_PLACE,  /* from `place`; the oldest when its file is gone, which is a gap */
};

void record_reader_open(struct record_reader *reader, const char *path,
                        enum record_reader_from from, const struct record_place *place);
void record_reader_close(struct record_reader *reader);
/** The next whole line, without its end; it is good until the next call. False: there is none now,
 * or is_cut. */
bool record_reader_next(struct record_reader *reader, struct span *ret_line);
/** The next whole record of a file in binary. False: there is none now, or is_cut. */
bool record_reader_next_raw(struct record_reader *reader, struct record *ret_record);
/** Read on from a place of the file that is being read. */
void record_reader_rewind(struct record_reader *reader, uint64_t offset);
/** Octets behind the place, in all files that are to come. */
uint64_t record_reader_waiting(const struct record_reader *reader);

#endif

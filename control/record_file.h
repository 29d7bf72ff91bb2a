/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_RECORD_FILE_H
#define CONTROL_RECORD_FILE_H

#include "base/err.h"
#include "base/tick.h"

/*
 * A file of lines, or of records in binary, that is appended to, and turned over: when it is large
 * or old enough it becomes NAME.1, what was that NAME.2, and so on; the oldest goes. Its owner's
 * thread alone; it blocks on the disk.
 *
 * Lines are whole: after a write that ended in the middle, the next one starts on a new line. What
 * could not be written is lost and counted, or stays for another try, as the owner wants it.
 */
#define RECORD_FILE_BUFFER_SIZE (256u * 1024u)

enum record_turning {
    RECORD_TURNING_FREE, /* when it is due */
    RECORD_TURNING_NOW,  /* one is being turned over */
    RECORD_TURNING_NOT   /* another process writes to it, too: not now */
};

struct record_file_options {
    const char *path;     /* borrowed; made with mode 0640 when missing */
    const char *head;     /* first line of every file, with its newline; "": none */
    uint64_t rotate_size; /* octets beyond which it is turned over; 0: whatever its size */
    tick_us rotate_time;  /* after its first line; 0: whatever its age */
    uint32_t keep;        /* older files; 0: none is kept */
    tick_us sync_time;    /* what is written is on the disk so soon; 0: when the system likes */
    bool must_keep;       /* what cannot be written is tried again */
    _Atomic uint32_t *turning; /* one of enum record_turning; NULL: always free */
    /* Octets of the whole records among the first `size`, how many there are; NULL: they are lines.
     * Who reads others finds the next behind a torn one by itself. */
    uint32_t (*whole)(const char *octets, uint32_t size, uint32_t *ret_count);
};

struct record_file {
    struct record_file_options options;
    int fd;
    char *lines;
    uint32_t size, count; /* of the buffer: octets, lines */
    uint64_t file_size;
    tick_us began;      /* its first line; 0: none yet */
    tick_us sync_since; /* the oldest of what is written and not synced; 0: nothing is */
    bool is_torn;       /* the last write ended in the middle of a line */
    bool is_stuck;      /* must_keep: the last write failed, and lines wait */
    bool is_headless;   /* it is empty, and its first line could not be written yet */
    bool is_regular;    /* a pipe or a device is not turned over */
    uint64_t written, lost, failures; /* lines, lines, writes */
};

/** Errors: ERR_SYSTEM with errno; nothing is left behind. */
enum err record_file_open(struct record_file *file,
                          const struct record_file_options *options) MUST_CHECK;
/** Flushes. */
void record_file_close(struct record_file *file);
/** Room for one more line of at most `size_max` octets; flushes when there was none. NULL: lines
 * wait that cannot be written. The line is there with record_file_take(). CHECKs size_max <=
 * RECORD_FILE_BUFFER_SIZE. */
char *record_file_room(struct record_file *file, uint32_t size_max, tick_us now);
void record_file_take(struct record_file *file, uint32_t size);
/** Write what was taken, turn over and sync what is due. */
void record_file_flush(struct record_file *file, tick_us now);
/** Write and sync now what was taken. */
void record_file_sync(struct record_file *file, tick_us now);
/** All that was taken is where it was to go: written, and synced if it is to be. */
bool record_file_is_kept(const struct record_file *file);
/** When record_file_flush() has something to do without new lines; TICK_NEVER: it has not. */
tick_us record_file_deadline(const struct record_file *file);
/** Somebody else has moved the file: go on in a new one. */
void record_file_reopen(struct record_file *file, tick_us now);

#endif

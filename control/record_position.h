/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_RECORD_POSITION_H
#define CONTROL_RECORD_POSITION_H

#include "base/err.h"
#include "base/tick.h"

/*
 * Up to when records are safe: a moment in a file beside the spool. What happened after it may have
 * no record when the process ends without warning, and is told again by the next (relay/
 * transfer_replay.c). Blocks on the disk: the writer's thread alone, after the start.
 */
struct record_position {
    int fd;          /* -1: nothing is kept */
    bool must_sync;  /* it outlives a loss of power too */
    bool has_failed; /* the log knows */
};

/** Errors: ERR_SYSTEM with errno. */
enum err record_position_open(struct record_position *position, const char *path,
                              bool must_sync) MUST_CHECK;
/** No file: nothing is known, and nothing is kept. */
void record_position_none(struct record_position *position);
/** INT64_MAX: nothing is known, also when the file says nothing of use. Any thread. */
wall_us record_position_get(const struct record_position *position);
/** All records of before this moment are safe. A failure is told once. */
void record_position_set(struct record_position *position, wall_us wall);
void record_position_close(struct record_position *position);

#endif

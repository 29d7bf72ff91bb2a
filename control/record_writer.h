/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_RECORD_WRITER_H
#define CONTROL_RECORD_WRITER_H

#include "control/record_file.h"
#include "relay/record.h"

/*
 * One thread that writes the records of all shards into files, as lines or as they are. A shard's
 * sink is its own ring. When the writer is slow, records are dropped and counted; or, if it holds,
 * mail waits for it: lines that cannot be written stay, and shards begin nothing new while an
 * eighth of a ring is in use. The rest is for what is under way; only when that is full too does
 * emitting wait, once for `hold_ms`, and then drop and count.
 */

struct record_writer;

struct record_writer_options {
    const struct record_file_options *json; /* a line of JSON for each; NULL: no such file */
    const struct record_file_options *csv;  /* a line of PowerMTA's accounting; NULL: none */
    const struct record_file_options *raw;  /* each as it is (record_raw.h); NULL: none */
    uint32_t shard_count;
    uint32_t buffer_count; /* records per shard; four times as many if it holds */
    bool must_hold;
    uint32_t hold_ms;
    const char *position_path; /* what is safe is noted there; NULL: nowhere */
    bool is_turning_forbidden; /* at the start */
};

struct record_writer_stats {
    uint64_t written, dropped; /* lines; dropped: ring full, or the write failed */
    uint64_t write_failures;   /* and failures to turn over or to sync */
    uint64_t replayed;         /* of those written: once more after a crash */
    bool is_holding;           /* some shard begins nothing new */
};

/** Opens the files and starts the thread. Errors: ERR_SYSTEM, errno says why, *ret_path which. */
enum err record_writer_new(const struct record_writer_options *options,
                           struct record_writer **ret_writer, const char **ret_path) MUST_CHECK;
/** Write what is in the rings, end the thread, close the files. No shard may emit any more. */
void record_writer_free(struct record_writer *writer);
/** Write what was emitted before this call, though shards may go on emitting, and end the thread.
 * False: not done within so many seconds. Only record_writer_free() may follow, after true. */
bool record_writer_finish(struct record_writer *writer, uint32_t seconds);
/** The sink of one shard; used by that shard's thread alone. */
struct record_sink record_writer_sink(struct record_writer *writer, uint32_t shard);
/** A sink that takes everything and keeps nothing. */
struct record_sink record_sink_none(void);
/** Open the files anew before the next write (they were renamed). Any thread. */
void record_writer_reopen(struct record_writer *writer);
/** Another process writes to the files, too: turn none over before record_writer_turn(). Who reads
 * them takes one that was turned over for ended. False: one is being turned over, and that takes
 * long; nothing is forbidden. Any thread. */
bool record_writer_turn_not(struct record_writer *writer);
void record_writer_turn(struct record_writer *writer);
/** Any thread. */
struct record_writer_stats record_writer_get_stats(const struct record_writer *writer);

#endif

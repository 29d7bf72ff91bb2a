/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_CAPTURE_H
#define CONTROL_ADMIN_CAPTURE_H

#include <jansson.h>

#include "control/shard.h"
#include "dataplane/dataplane_capture.h"

/*
 * `angarium capture`: at most one at a time. Starting and ending ask every shard to put its tap on
 * or off, as queries of the control socket do; in between the file is fed by admin_capture_run().
 *
 *   NONE -> STARTING -> RUNNING -> ENDING -> NONE
 */
enum admin_capture_state {
    ADMIN_CAPTURE_NONE,
    ADMIN_CAPTURE_STARTING,
    ADMIN_CAPTURE_RUNNING,
    ADMIN_CAPTURE_ENDING
};

struct admin_capture {
    enum admin_capture_state state;
    struct dataplane_capture *capture;
    uint32_t shard; /* that is asked */
    tick_us deadline, drain_at;
    bool is_over; /* a bound was reached: it should be ended */
    struct dataplane_capture_stats stats;
};

/** The capture that a request describes, STARTING. With "stream" it goes to whoever reads
 * `*ret_reader`, which is the caller's; else that is -1. False: refused, with ret_why. */
bool admin_capture_begin(struct admin_capture *capture, const json_t *request, uint32_t shard_count,
                         int *ret_reader, char ret_why[DATAPLANE_CAPTURE_ERROR_SIZE]);
/** RUNNING to ENDING. False: none runs. */
bool admin_capture_end(struct admin_capture *capture);
/** Make `query` the one that puts the tap of shard `shard` on or off. */
void admin_capture_query(struct admin_capture *capture, uint32_t shard, struct shard_query *query);
/** Every shard has done so: RUNNING, or NONE with `stats`. */
void admin_capture_done(struct admin_capture *capture);
/** Feed the file; sets is_over. */
void admin_capture_run(struct admin_capture *capture, tick_us now);
tick_us admin_capture_deadline(const struct admin_capture *capture);
/** What to tell of it. New reference. */
json_t *admin_capture_answer(const struct admin_capture *capture);
/** At the very end: shards are gone. */
void admin_capture_fini(struct admin_capture *capture);

#endif

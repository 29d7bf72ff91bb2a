/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_RELOAD_H
#define CONTROL_RELOAD_H

#include "control/assembly.h"

/*
 * The snapshots of the configuration that some shard may still borrow from.
 *
 * A reload makes a new snapshot, with a serial one higher, and sends it to every shard. A shard
 * replies when nothing of it borrows from the one before; when all have replied that one is freed,
 * whatever others are still in use: a session of an hour keeps one snapshot, not all that came
 * after it. The first is kept until the end: the daemon itself borrows from it what a reload cannot
 * change.
 */
#define RELOAD_SNAPSHOT_MAX SETTINGS_SNAPSHOT_MAX
#define RELOAD_TEXT_SIZE    9000u

struct reload_snapshot {
    struct config *config;
    uint32_t borrowers; /* shards that have not let go of it; of the newest, 0: nobody is to */
};

struct reload {
    const char *path; /* of the file */
    struct assembly *assembly;
    struct reload_snapshot snapshots[RELOAD_SNAPSHOT_MAX]; /* oldest first */
    uint32_t count;
};

/** Ownership: `first` passes to the reload; `path` is borrowed. */
void reload_init(struct reload *reload, const char *path, struct config *first);
void reload_fini(struct reload *reload);
/** The newest snapshot. */
const struct config *reload_current(const struct reload *reload);
/** Read the file and hand the new snapshot to the shards; a dry run only says what that would
 * change. False: it cannot be, and nothing has changed. Text for people, several lines at most, in
 * either case. */
bool reload_run(struct reload *reload, bool is_dry_run, char ret_text[RELOAD_TEXT_SIZE]);
/** A shard's reply to SETTINGS. */
void reload_on_reply(struct reload *reload, const struct shard_control *reply);

#endif

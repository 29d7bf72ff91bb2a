/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ASSEMBLY_H
#define CONTROL_ASSEMBLY_H

#include "control/assembly_listen.h"
#include "control/record_writer.h"
#include "control/shard.h"

/*
 * All shards of the relay with what each stands on: buffers, network, disk, mailbox, thread. Made
 * and unmade by the control thread; in between control speaks to shards by ring messages alone.
 */
struct assembly;

/** Make the spool directory, with every missing folder of its path. False: errno says why. */
bool assembly_directory_make(const char *path);

/**
 * Make every shard, open every listener; no thread runs yet.
 *
 * With a `place` (else NULL) the shards wait: see struct shard_options. Their listeners open when
 * the intake does, and the spool is not locked before assembly_lock().
 *
 * Bounds:    control is member number `config->cores` of the ring group.
 * Ownership: config and records stay the caller's and outlive the assembly.
 * Errors:    ERR_SYSTEM, ERR_DISK_*, with text in ret_why; nothing is left behind.
 */
enum err assembly_new(const struct config *config, struct record_writer *records,
                      const struct assembly_place *place, struct assembly **ret_assembly,
                      char ret_why[ASSEMBLY_WHY_SIZE]) MUST_CHECK;
/** The spool is this process' alone from now on. Errors: ERR_DISK_LOCKED: not yet. */
enum err assembly_lock(struct assembly *assembly) MUST_CHECK;
/** Start the threads, each on a processor of its own where there are enough. Errors: ERR_SYSTEM. */
enum err assembly_start(struct assembly *assembly, char ret_why[ASSEMBLY_WHY_SIZE]) MUST_CHECK;
struct ring_member *assembly_mailbox(struct assembly *assembly);
uint32_t assembly_count(const struct assembly *assembly);
/** As dataplane_watch(). */
tick_us assembly_watch(struct assembly *assembly, tick_us now);
/** Send to one shard, or to all. */
void assembly_send(struct assembly *assembly, uint32_t shard, enum shard_message_kind kind,
                   const struct shard_control *control);
void assembly_send_all(struct assembly *assembly, enum shard_message_kind kind,
                       const struct shard_control *control);
/** Answer a query at once: before assembly_start(), or behind assembly_join(). */
void assembly_query(struct assembly *assembly, uint32_t shard, struct shard_query *query);
/** After every shard replied to DRAIN: its threads have ended. */
void assembly_join(struct assembly *assembly);
/** After every shard replied to DRAIN (or was never started): join the threads and free all. */
void assembly_free(struct assembly *assembly);

/* ---- mail left by an earlier run ---- */

/** Scan the spool on a thread of its own; the eventfd becomes readable when it is done. Errors:
 * ERR_SYSTEM. */
enum err assembly_recovery_start(struct assembly *assembly, const struct config *config) MUST_CHECK;
int assembly_recovery_eventfd(const struct assembly *assembly);
/** What was found, once the eventfd is readable; joins the thread. Errors: the spool's. */
enum err assembly_recovery_finish(struct assembly *assembly,
                                  struct spool_recovery **ret_recovery) MUST_CHECK;
/** The scan still runs: the assembly cannot be freed. */
bool assembly_is_recovering(const struct assembly *assembly);
/** After every shard adopted its share. */
void assembly_recovery_free(struct assembly *assembly);

#endif

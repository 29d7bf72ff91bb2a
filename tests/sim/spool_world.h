/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SIM_SPOOL_WORLD_H
#define TESTS_SIM_SPOOL_WORLD_H

#include "queue/spool.h"
#include "tests/sim/disk_sim.h"

/*
 * Spools on a simulated disk, a random workload, and a ledger that knows what each message was
 * promised. Violations are counted, not asserted, so that the same checker can be shown to catch
 * planted bugs.
 */
#define WORLD_SHARDS_MAX   3u
#define WORLD_MESSAGES_MAX 4096u
#define WORLD_PROGRESS_MAX 32u

enum world_state {
    WORLD_BUILDING,   /* must be absent after a crash */
    WORLD_COMMITTING, /* may be present */
    WORLD_LIVE,       /* must be present */
    WORLD_VOID,       /* its sender heard of the failure in time: must be absent */
    WORLD_UNKNOWN,    /* its sender heard of the failure late: may be present */
    WORLD_FINISHING,  /* DONE issued: may be present */
    WORLD_GONE,       /* known to be gone: must be absent */
};

struct world_message {
    struct message_id id;
    enum world_state state;
    uint32_t shard;
    uint32_t body_size, envelope_size;
    tick_us committed_at;
    struct spool_transaction *transaction;
    uint32_t written; /* octets of the body handed over */
    struct spool_entry *entry;
    uint32_t progress_count;   /* issued: payload number i is made from (id, i) */
    uint32_t progress_durable; /* of those, known to be durable */
    uint32_t dsn_about;     /* index + 1 of the message whose end rides on this commit; 0: none */
    uint32_t dsn_progress;  /* number + 1 of the PROGRESS that rides on it */
    uint32_t progress_void; /* bit per number: void with its DSN */
    bool is_reading, was_seen;
};

struct world_options {
    uint64_t seed;
    uint32_t shard_count;
    uint32_t segment_size;
    uint64_t size_max, disk_size;
    tick_us latency_max;
    uint32_t body_size_max; /* 0: as it comes */
    bool is_brisk;          /* the disk gets time after each operation: little is under way */
    uint32_t live_max;      /* more live messages than that: some are finished first; 0: no bound */
    bool is_false_sync;     /* planted: syncs are acknowledged without being done */
    bool is_false_directory_sync; /* planted: those of the directory */
};

struct world {
    struct world_options options;
    struct rng rng;    /* of the workload */
    struct rng chance; /* of crashes */
    struct rng salt;   /* of the spools */
    tick_us tick;
    struct tick_source clock;
    struct disk_sim *sim;
    struct buf_pool *pool;
    struct disk *disks[WORLD_SHARDS_MAX];
    struct spool *spools[WORLD_SHARDS_MAX];
    uint32_t shard_count; /* of this life; 0: dead */
    struct world_message messages[WORLD_MESSAGES_MAX];
    uint32_t message_count;
    uint32_t violations;
    char first_violation[256];
    uint64_t commits, failures, recovered, lives, recycled, copied, ahead;
    uint64_t outcome; /* of the last start: the same when the same messages are back the same way */
    bool is_quiet;    /* nothing new is begun */
};

struct world *world_new(const struct world_options *options);
void world_free(struct world *world);
/** Open the directory with this many shards, recover, compare with the ledger. False when the disk
 * failed or stopped meanwhile (then crash and try again). */
bool world_start(struct world *world, uint32_t shard_count);
/** Random operations. Ends early when the disk stops. */
void world_work(struct world *world, uint32_t operations);
/** Wait until every spool is idle: all DONE and PROGRESS are durable then. */
void world_settle(struct world *world);
/** One turn of all shards; the clock goes on to the next completion or by `step`. */
void world_turn(struct world *world, tick_us step);
/**
 * `copy` becomes the dead node that a power loss would leave of `world` now: disk_sim_lose() on its
 * sim is to follow. To `world`, which may be in the middle of a disk call, nothing happens.
 *
 * Bounds: `copy` is dead, and made with options of the same sizes.
 */
void world_copy(struct world *copy, const struct world *world);
/** Changes with everything that the ledger holds the spool to. */
uint64_t world_promises(const struct world *world);
/** Power loss (or, is_kill, the end of the process). */
void world_crash(struct world *world, bool is_kill);
/** Read every live message back and compare. */
void world_read_all(struct world *world);

#endif

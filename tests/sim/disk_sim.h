/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SIM_DISK_SIM_H
#define TESTS_SIM_DISK_SIM_H

#include "base/rng.h"
#include "base/tick.h"
#include "queue/disk.h"

/*
 * A spool directory in memory, under a virtual clock, that fails in every way a disk may.
 *
 * A `disk_sim` is the directory and its medium; it outlives the crashes of the node.
 * disk_sim_open() gives a `struct disk` on it, as a process would open the directory: one for each
 * shard, one for recovery. What was written but not synced is seen by readers (the page cache) and
 * is kept, dropped, torn at 512-octet sectors or reordered by disk_sim_crash().
 *
 * How a node dies and comes back:
 *     disk_sim_crash(sim, rng)      power loss; or disk_sim_kill(sim): only the process died
 *     ... free spools and disks of the dead node as usual: their calls do nothing any more ...
 *     disk = disk_sim_open(sim)     the next life sees what survived
 */
struct disk_sim;

struct disk_sim_options {
    const struct tick_source *clock;  /* completions become visible by its monotonic time */
    uint64_t size;                    /* capacity of the medium in octets; beyond: ERR_DISK_FULL */
    tick_us latency_min, latency_max; /* of a submission, drawn uniformly */
    uint64_t seed;                    /* of latencies and of failures by probability */
};

struct disk_sim *disk_sim_new(const struct disk_sim_options *options);
/** From now on the medium has that many octets, also if there are more on it. */
void disk_sim_resize(struct disk_sim *sim, uint64_t size);
/** After every disk on it was freed. */
void disk_sim_free(struct disk_sim *sim);

/** One process's or thread's view of the directory. Freed with disk_free(). */
struct disk *disk_sim_open(struct disk_sim *sim);

/** Due time of the earliest completion not yet polled, or TICK_NEVER (also while held). */
tick_us disk_sim_deadline(const struct disk_sim *sim);

/* ---- crashes ---- */

/**
 * Power is lost now. Of what was not synced an arbitrary legal part survives, drawn from `rng`:
 * each 512-octet sector of each unsynced write (completed or under way) is kept or dropped by
 * itself, names created or removed without a directory sync are there or not. Disks opened before
 * are dead: blocking calls fail with ERR_DISK_IO, submissions never complete, close and free still
 * work.
 */
void disk_sim_crash(struct disk_sim *sim, struct rng *rng);
/**
 * The same in two steps, so that every legal loss can be tried. After the first, each of these is a
 * unit that is kept or lost by itself, in this order: every sector of every write that had begun
 * (completed or not; of a commit behind another, nothing had), file by file; every name that was
 * made or removed; the size of every file that was just being made. The second step keeps the units
 * for which `is_kept` says so.
 */
typedef bool disk_sim_keep(void *context, uint32_t unit);
void disk_sim_power_off(struct disk_sim *sim);
void disk_sim_lose(struct disk_sim *sim, disk_sim_keep *is_kept, void *context);
/** `copy` (no disk is open on it) becomes what disk_sim_power_off() would leave of `sim` now; to
 * `sim` nothing happens. */
void disk_sim_copy(struct disk_sim *copy, const struct disk_sim *sim);
/** Before every call that counts, before every completion takes effect: `on_moment`, which leaves
 * `sim` alone. Between two moments nothing changes that a power loss would find. */
typedef void disk_sim_moment(void *context);
void disk_sim_watch(struct disk_sim *sim, disk_sim_moment *on_moment, void *context);
/** Rises with everything that changes what a power loss would find. */
uint64_t disk_sim_changes(const struct disk_sim *sim);
/** The process dies, the machine stays up: completed writes are kept as they are, writes under way
 * happen or not, locks are gone, disks opened before are dead. Later power losses may still take
 * what was not synced. */
void disk_sim_kill(struct disk_sim *sim, struct rng *rng);

/** Calls of any kind made so far, close, poll and free not counted. */
uint64_t disk_sim_calls(const struct disk_sim *sim);
/** Stop the medium at call number `call` (counted from 1): that call and all later ones have no
 * effect and submissions under way stay so. 0: never. Then call disk_sim_crash(). */
void disk_sim_stop_at(struct disk_sim *sim, uint64_t call);
bool disk_sim_is_stopped(const struct disk_sim *sim);

/* ---- failures ---- */

enum disk_sim_call {
    DISK_SIM_OPEN,
    DISK_SIM_ALLOCATE,
    DISK_SIM_READ, /* blocking and submitted */
    DISK_SIM_LOCK,
    DISK_SIM_UNLINK, /* blocking and submitted */
    DISK_SIM_DIRECTORY,
    DISK_SIM_WRITE, /* the write itself fails; the sync that follows is not done */
    DISK_SIM_SYNC,  /* alone or behind a write */
    DISK_SIM_CREATE,
    DISK_SIM_CALL_COUNT
};

/** Fail call number `occurrence` (from 1, counted from now on) of this kind with `err`; a WRITE
 * leaves the first part of its octets behind (a short write). 0 cancels. */
void disk_sim_fail_at(struct disk_sim *sim, enum disk_sim_call call, uint64_t occurrence,
                      enum err err);
/** Fail each call of this kind with probability `per_million` / 1,000,000. 0 cancels. */
void disk_sim_fail_often(struct disk_sim *sim, enum disk_sim_call call, uint32_t per_million,
                         enum err err);
/** Fail call number `call` of any kind (as disk_sim_calls() counts, from 1) with `err`. 0 cancels.
 */
void disk_sim_fail_call(struct disk_sim *sim, uint64_t call, enum err err);
/** While held, no submission completes (a stalled device); on release each completes at its time.
 */
void disk_sim_hold(struct disk_sim *sim, bool is_held);
/** Flip one bit of the stored octets of file `name`. ERR_NOT_FOUND when there is no such octet. */
enum err disk_sim_flip(struct disk_sim *sim, const char *name, uint64_t offset,
                       uint32_t bit) MUST_CHECK;

/* ---- planted bugs: a harness is trusted only after it has caught one ---- */

/** Acknowledge syncs without making anything durable. */
void disk_sim_plant_false_sync(struct disk_sim *sim, bool is_planted);
/** The same for syncs of the directory only: names that were made are lost with the power. */
void disk_sim_plant_false_directory_sync(struct disk_sim *sim, bool is_planted);

struct disk_sim_stats {
    uint64_t writes, syncs, reads, octets_written, failures, crashes;
    uint64_t files, octets_used;
};
struct disk_sim_stats disk_sim_get_stats(const struct disk_sim *sim);

#endif

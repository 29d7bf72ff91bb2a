/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SIM_DISK_SIM_FILE_H
#define TESTS_SIM_DISK_SIM_FILE_H

#include "base/rng.h"
#include "queue/disk.h"

/*
 * One file of the simulated medium: what is stable, what readers see, and the unsynced writes that
 * make the difference. Used by disk_sim.c only.
 */
#define SIM_SECTOR_SIZE 512u

struct sim_write { /* one unsynced write, in the order of completion */
    struct sim_write *next;
    uint64_t offset, stamp;
    uint8_t *data;
    uint32_t size;
    bool is_forsaken; /* a sync over it failed: no later sync makes it durable */
};

struct sim_file {
    struct sim_file *next;
    char name[DISK_NAME_SIZE_MAX];
    uint8_t *cached, *stable; /* both `room` octets */
    uint64_t size, stable_size, room;
    struct sim_write *writes;
    const void *lock_holder; /* the handle that holds the lock */
    bool is_named,
        is_named_stable; /* in the directory as readers see it; as a power loss leaves it */
};

struct sim_file *sim_file_new(const char *name);
void sim_file_free(struct sim_file *file);
/** Zeros up to `size`, as fallocate and fsync leave them. */
void sim_file_allocate(struct sim_file *file, uint64_t size);
void sim_file_write(struct sim_file *file, uint64_t offset, const uint8_t *data, uint32_t size,
                    uint64_t stamp);
/** Every write up to `stamp` becomes stable (or, with is_lost, none of them ever will). */
void sim_file_sync(struct sim_file *file, uint64_t stamp, bool is_lost);
/** The medium after a power loss: an arbitrary legal part of the unsynced writes survives. */
void sim_file_crash(struct sim_file *file, struct rng *rng);

#endif

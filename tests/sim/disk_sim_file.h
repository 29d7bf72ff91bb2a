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
#define SIM_PAGE_SIZE   4096u

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
    uint64_t version; /* the same in two files: so are their octets */
    struct sim_write *writes;
    const void *lock_holder; /* the handle that holds the lock */
    bool is_named,
        is_named_stable; /* in the directory as readers see it; as a power loss leaves it */
    bool is_half_made;   /* power failed while it was made: it has its size, or none */
};

struct sim_file *sim_file_new(const char *name);
void sim_file_free(struct sim_file *file);
/** `copy`, whatever it was, becomes the same once more, with its unsynced writes. */
void sim_file_copy(struct sim_file *copy, const struct sim_file *file);
/** `file`, whatever it was, becomes a new one. */
void sim_file_renew(struct sim_file *file, const char *name);
/** Its octets were changed from outside. */
void sim_file_touch(struct sim_file *file);
/** Zeros up to `size`, as fallocate and fsync leave them. */
void sim_file_allocate(struct sim_file *file, uint64_t size);
void sim_file_write(struct sim_file *file, uint64_t offset, const uint8_t *data, uint32_t size,
                    uint64_t stamp);
/** No octets any more. */
void sim_file_empty(struct sim_file *file);
/** Every write up to `stamp` becomes stable (or, with is_lost, none of them ever will). */
void sim_file_sync(struct sim_file *file, uint64_t stamp, bool is_lost);
/** Says of the next sector of the unsynced writes, in their order, whether it survives. */
typedef bool sim_keep(void *context, const struct sim_write *write, uint64_t sector);
/** Ask of every sector; the answer must be no, and nothing changes. */
void sim_file_each_sector(struct sim_file *file, sim_keep *keeps_none, void *context);
/** The medium after a power loss: of the unsynced writes survives what `is_kept` says. */
void sim_file_lose(struct sim_file *file, sim_keep *is_kept, void *context);
/** The same with an arbitrary part. */
void sim_file_crash(struct sim_file *file, struct rng *rng);

#endif

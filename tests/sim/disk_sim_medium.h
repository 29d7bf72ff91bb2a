/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SIM_DISK_SIM_MEDIUM_H
#define TESTS_SIM_DISK_SIM_MEDIUM_H

#include "tests/sim/disk_sim.h"
#include "tests/sim/disk_sim_file.h"

/* What disk_sim.c (calls) and disk_sim_medium.c (crashes, planned failures) share. */
struct sim_fault {
    uint64_t countdown; /* calls until the planned failure; 0: none planned */
    enum err err;
    uint32_t per_million;
    enum err err_often;
};

struct disk_sim {
    struct disk_sim_options options;
    struct rng rng;
    struct sim_file *files;
    struct sim_file *spares; /* of copies before: their memory is used again */
    struct sim_disk *disks;
    struct sim_fault faults[DISK_SIM_CALL_COUNT];
    uint64_t calls, stop_at, fail_call;
    enum err fail_call_err;
    uint64_t stamp;
    bool is_stopped, is_held, is_false_sync, is_false_directory_sync;
    struct disk_sim_stats stats;
    uint64_t changes; /* of what a power loss would find */
    disk_sim_moment *on_moment;
    void *moment_context;
};

struct disk_file {
    struct sim_file *file;
    bool has_failed; /* a commit did */
};

enum sim_kind { SIM_WRITE, SIM_SYNC, SIM_READ, SIM_CREATE, SIM_REMOVE };

struct sim_operation {
    struct sim_operation *next; /* by due time */
    enum sim_kind kind;
    tick_us due;
    uint64_t token, offset, stamp; /* stamp: the last write that had completed at submission */
    struct disk_file *handle;
    struct sim_file *file;
    struct iovec *vector;
    uint32_t count, size;
    uint8_t *data; /* WRITE: copy of the octets; READ: the caller's memory */
    bool then_sync;
    bool is_behind;         /* a commit that waits for the one before */
    enum err err, err_sync; /* decided at submission */
    char name[DISK_NAME_SIZE_MAX];
    struct disk_file **ret_file;
};

struct sim_disk {
    struct disk disk;
    struct disk_sim *sim; /* NULL: dead */
    struct sim_disk *next;
    struct sim_operation *operations;
    uint32_t outstanding;
};

/** A file with this name and nothing in it. */
struct sim_file *disk_sim_file_new(struct disk_sim *sim, const char *name);
struct sim_file *disk_sim_find(struct disk_sim *sim, const char *name);
uint64_t disk_sim_octets_used(const struct disk_sim *sim);

#endif

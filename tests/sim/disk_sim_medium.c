/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated disk's medium: its life, its crashes, and the failures planned for it.
 *
 * A crash first lets what is under way land in the page cache or not, by chance; a power loss then
 * decides for every unsynced sector and every unsynced name whether it survives, and of a file that
 * was being made whether it got its size. A kill leaves
 * the page cache alone. Either way every disk opened before is dead, and the medium runs again.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/disk_sim_medium.h"

struct disk_sim *disk_sim_new(const struct disk_sim_options *options)
{
    CHECK(options->clock != NULL && options->latency_min <= options->latency_max);
    CHECK(options->latency_max - options->latency_min < UINT32_MAX);
    struct disk_sim *sim = calloc(1, sizeof(*sim));
    CHECK(sim != NULL);
    sim->options = *options;
    rng_init_seed(&sim->rng, options->seed);
    return sim;
}

static void sim_files_free(struct sim_file *files)
{
    while (files != NULL) {
        struct sim_file *file = files;
        files = file->next;
        sim_file_free(file);
    }
}

void disk_sim_resize(struct disk_sim *sim, uint64_t size)
{
    sim->options.size = size;
}

void disk_sim_free(struct disk_sim *sim)
{
    CHECK(sim->disks == NULL);
    sim_files_free(sim->files);
    sim_files_free(sim->spares);
    free(sim);
}

/* One with the octets of this version, or any, or NULL. */
static struct sim_file *sim_spare_take(struct disk_sim *sim, uint64_t version)
{
    struct sim_file **link = &sim->spares;
    while (*link != NULL && (*link)->version != version)
        link = &(*link)->next;
    if (*link == NULL)
        link = &sim->spares;
    struct sim_file *file = *link;
    if (file != NULL) {
        *link = file->next;
        file->next = NULL;
    }
    return file;
}

struct sim_file *disk_sim_file_new(struct disk_sim *sim, const char *name)
{
    struct sim_file *file = sim_spare_take(sim, 0);
    if (file == NULL)
        return sim_file_new(name);
    sim_file_renew(file, name);
    return file;
}

tick_us disk_sim_deadline(const struct disk_sim *sim)
{
    tick_us deadline = TICK_NEVER;
    if (sim->is_held || sim->is_stopped)
        return deadline;
    for (const struct sim_disk *disk = sim->disks; disk != NULL; disk = disk->next) {
        if (disk->operations != NULL && disk->operations->due < deadline)
            deadline = disk->operations->due;
    }
    return deadline;
}

/* ---- what is under way ---- */

static struct sim_file *sim_named(struct disk_sim *sim, const char *name)
{
    struct sim_file **end = &sim->files;
    for (; *end != NULL; end = &(*end)->next) {
        if ((*end)->is_named && strcmp((*end)->name, name) == 0)
            return NULL;
    }
    *end = disk_sim_file_new(sim, name);
    return *end;
}

/* A submission takes effect on `sim`, as far as the page cache goes: power loss then tears it. */
static void sim_land_one(struct disk_sim *sim, const struct sim_operation *op,
                         struct sim_file *file)
{
    /* Not begun: disk.h. */
    bool is_idle = op->then_sync && (op->is_behind || op->handle->has_failed);

    if (op->kind == SIM_WRITE && !is_idle) {
        sim_file_write(file, op->offset, op->data, op->size, ++sim->stamp);
    } else if (op->kind == SIM_CREATE && op->err == ERR_OK) {
        file = sim_named(sim, op->name);
        if (file == NULL)
            return;
        sim_file_allocate(file, op->offset);
        file->is_half_made = true;
    } else if (op->kind == SIM_REMOVE && op->err == ERR_OK) {
        file = disk_sim_find(sim, op->name);
        if (file != NULL)
            file->is_named = false;
    }
}

/* What is under way happens or not (rng NULL: all of it does). */
static void sim_land(struct disk_sim *sim, const struct sim_disk *disk, struct rng *rng)
{
    for (const struct sim_operation *op = disk->operations; op != NULL; op = op->next) {
        bool is_change = op->kind == SIM_WRITE || op->kind == SIM_CREATE || op->kind == SIM_REMOVE;
        if (is_change && (rng == NULL || rng_below(rng, 2) == 0))
            sim_land_one(sim, op, op->file);
    }
}

static void sim_disks_die(struct disk_sim *sim, struct rng *rng)
{
    while (sim->disks != NULL) {
        struct sim_disk *disk = sim->disks;
        sim_land(sim, disk, rng);
        sim->disks = disk->next;
        disk->sim = NULL;
    }
    sim->is_stopped = sim->is_held = false;
    sim->stop_at = 0;
    sim->stats.crashes++;
}

/* Files without a name are gone for good. */
static void sim_names_settle(struct disk_sim *sim)
{
    for (struct sim_file **link = &sim->files; *link != NULL;) {
        struct sim_file *file = *link;
        file->is_named_stable = file->is_named;
        file->is_half_made = false;
        if (file->is_named) {
            link = &file->next;
            continue;
        }
        *link = file->next;
        sim_file_free(file);
    }
}

void disk_sim_crash(struct disk_sim *sim, struct rng *rng)
{
    sim_disks_die(sim, rng);
    for (struct sim_file *file = sim->files; file != NULL; file = file->next)
        sim_file_crash(file, rng);
    /* Names not yet synced are there or not. */
    for (struct sim_file *file = sim->files; file != NULL; file = file->next) {
        if (file->is_named != file->is_named_stable)
            file->is_named = rng_below(rng, 2) == 0;
        if (file->is_half_made && rng_below(rng, 2) == 0)
            sim_file_empty(file);
    }
    sim_names_settle(sim);
}

/* ---- every legal loss, one by one ---- */

void disk_sim_power_off(struct disk_sim *sim)
{
    sim_disks_die(sim, NULL);
}

struct sim_units {
    uint32_t count;
    disk_sim_keep *is_kept;
    void *context;
};

static bool sim_units_keep(void *context, const struct sim_write *write, uint64_t sector)
{
    struct sim_units *units = context;

    (void)write;
    (void)sector;
    return units->is_kept(units->context, units->count++);
}

void disk_sim_lose(struct disk_sim *sim, disk_sim_keep *is_kept, void *context)
{
    struct sim_units units = {.is_kept = is_kept, .context = context};

    for (struct sim_file *file = sim->files; file != NULL; file = file->next)
        sim_file_lose(file, sim_units_keep, &units);
    for (struct sim_file *file = sim->files; file != NULL; file = file->next) {
        if (file->is_named != file->is_named_stable && !is_kept(context, units.count++))
            file->is_named = file->is_named_stable;
    }
    for (struct sim_file *file = sim->files; file != NULL; file = file->next) {
        if (file->is_half_made && !is_kept(context, units.count++))
            sim_file_empty(file);
    }
    sim_names_settle(sim);
}

/* The file of the copy that is this one of `sim`: they stand in the same order. */
static struct sim_file *sim_same(struct disk_sim *copy, const struct disk_sim *sim,
                                 const struct sim_file *wanted)
{
    struct sim_file *same = copy->files;
    for (const struct sim_file *file = sim->files; file != wanted; file = file->next)
        same = same->next;
    return same;
}

void disk_sim_copy(struct disk_sim *copy, const struct disk_sim *sim)
{
    CHECK(copy->disks == NULL);
    struct sim_file **end = &copy->spares;
    while (*end != NULL)
        end = &(*end)->next;
    *end = copy->files;
    copy->files = NULL;
    end = &copy->files;
    for (const struct sim_file *file = sim->files; file != NULL; file = file->next) {
        *end = sim_spare_take(copy, file->version);
        if (*end == NULL)
            *end = sim_file_new(file->name);
        sim_file_copy(*end, file);
        end = &(*end)->next;
    }
    copy->rng = sim->rng;
    copy->stamp = sim->stamp;
    copy->stats = sim->stats;
    copy->is_stopped = copy->is_held = false;
    copy->is_false_sync = sim->is_false_sync;
    copy->is_false_directory_sync = sim->is_false_directory_sync;
    for (const struct sim_disk *disk = sim->disks; disk != NULL; disk = disk->next) {
        for (const struct sim_operation *op = disk->operations; op != NULL; op = op->next)
            sim_land_one(copy, op, op->file == NULL ? NULL : sim_same(copy, sim, op->file));
    }
}

void disk_sim_watch(struct disk_sim *sim, disk_sim_moment *on_moment, void *context)
{
    sim->on_moment = on_moment;
    sim->moment_context = context;
}

uint64_t disk_sim_changes(const struct disk_sim *sim)
{
    return sim->changes;
}

void disk_sim_kill(struct disk_sim *sim, struct rng *rng)
{
    sim_disks_die(sim, rng);
    for (struct sim_file *file = sim->files; file != NULL; file = file->next) {
        file->lock_holder = NULL;
        if (file->is_half_made && rng_below(rng, 2) == 0)
            sim_file_empty(file);
        file->is_half_made = false;
    }
}

uint64_t disk_sim_calls(const struct disk_sim *sim)
{
    return sim->calls;
}

void disk_sim_stop_at(struct disk_sim *sim, uint64_t call)
{
    sim->stop_at = call;
}

bool disk_sim_is_stopped(const struct disk_sim *sim)
{
    return sim->is_stopped;
}

void disk_sim_fail_at(struct disk_sim *sim, enum disk_sim_call call, uint64_t occurrence,
                      enum err err)
{
    CHECK(call < DISK_SIM_CALL_COUNT);
    sim->faults[call].countdown = occurrence;
    sim->faults[call].err = err;
}

void disk_sim_fail_often(struct disk_sim *sim, enum disk_sim_call call, uint32_t per_million,
                         enum err err)
{
    CHECK(call < DISK_SIM_CALL_COUNT);
    sim->faults[call].per_million = per_million;
    sim->faults[call].err_often = err;
}

void disk_sim_fail_call(struct disk_sim *sim, uint64_t call, enum err err)
{
    sim->fail_call = call;
    sim->fail_call_err = err;
}

void disk_sim_hold(struct disk_sim *sim, bool is_held)
{
    sim->is_held = is_held;
}

enum err disk_sim_flip(struct disk_sim *sim, const char *name, uint64_t offset, uint32_t bit)
{
    CHECK(bit < 8);
    struct sim_file *file = disk_sim_find(sim, name);
    if (file == NULL || offset >= file->size)
        return ERR_NOT_FOUND;
    sim_file_touch(file);
    file->cached[offset] = (uint8_t)(file->cached[offset] ^ 1u << bit);
    file->stable[offset] = (uint8_t)(file->stable[offset] ^ 1u << bit);
    return ERR_OK;
}

void disk_sim_plant_false_sync(struct disk_sim *sim, bool is_planted)
{
    sim->is_false_sync = is_planted;
}

void disk_sim_plant_false_directory_sync(struct disk_sim *sim, bool is_planted)
{
    sim->is_false_directory_sync = is_planted;
}

struct disk_sim_stats disk_sim_get_stats(const struct disk_sim *sim)
{
    struct disk_sim_stats stats = sim->stats;
    for (const struct sim_file *file = sim->files; file != NULL; file = file->next)
        stats.files += file->is_named;
    stats.octets_used = disk_sim_octets_used(sim);
    return stats;
}

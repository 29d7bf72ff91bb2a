/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated disk: a directory in memory under a virtual clock.
 *
 * Each call first passes sim_enter(), which counts it and decides whether it is stopped, fails or
 * goes on. A submission becomes an operation in its disk's list with a due time; disk_poll()
 * carries out the operations that are due, in the order of due time, and hands their completions
 * out. So what is under way at a crash has not happened yet, and happens in part or not at all.
 *
 * Invariants
 *   1. Octets given to submit_write stay as they were until the completion (compared then).
 *   2. A sync covers the writes that had completed when it was submitted (behind a commit: when
 *      that had ended), and the write it rides on; nothing else.
 *   3. A crash makes every open disk dead: dead disks touch the medium no more.
 *   4. The same options and the same calls give the same behaviour.
 *   5. A commit (write with sync) is due after the one before it on its file, has not begun before
 *      that has ended, and does nothing when one failed before.
 *
 * Life of an operation
 *   (none) -> UNDER WAY   submit_*()        -> done      disk_poll() at its due time
 *                                           -> in part   disk_sim_crash(), disk_sim_kill()
 * Not here: crashes and planned failures (disk_sim_medium.c), what a single file remembers
 * (disk_sim_file.c).
 */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/disk_sim_medium.h"

static struct sim_disk *sim_disk_of(struct disk *disk)
{
    return (struct sim_disk *)disk;
}

static void sim_moment(const struct disk_sim *sim)
{
    if (sim->on_moment != NULL)
        sim->on_moment(sim->moment_context);
}

/* Count a call and decide its fate: ERR_OK, or the planned failure. Check sim->is_stopped after. */
static enum err sim_enter(struct disk_sim *sim, enum disk_sim_call call)
{
    if (sim->is_stopped)
        return ERR_DISK_IO;
    sim_moment(sim);
    sim->calls++;
    if (sim->calls == sim->stop_at) {
        sim->is_stopped = true;
        return ERR_DISK_IO;
    }
    struct sim_fault *fault = &sim->faults[call];
    enum err err = ERR_OK;
    if (sim->calls == sim->fail_call)
        err = sim->fail_call_err;
    if (fault->countdown > 0 && --fault->countdown == 0)
        err = fault->err;
    if (fault->per_million > 0 && rng_below(&sim->rng, 1000000) < fault->per_million)
        err = fault->err_often;
    sim->stats.failures += err != ERR_OK;
    return err;
}

struct sim_file *disk_sim_find(struct disk_sim *sim, const char *name)
{
    for (struct sim_file *file = sim->files; file != NULL; file = file->next) {
        if (file->is_named && strcmp(file->name, name) == 0)
            return file;
    }
    return NULL;
}

uint64_t disk_sim_octets_used(const struct disk_sim *sim)
{
    uint64_t used = 0;
    for (const struct sim_file *file = sim->files; file != NULL; file = file->next)
        used += file->is_named ? file->size : 0;
    return used;
}

static void sim_directory_stable(struct disk_sim *sim)
{
    if (sim->is_false_sync || sim->is_false_directory_sync)
        return;
    sim->changes++;
    for (struct sim_file *file = sim->files; file != NULL; file = file->next)
        file->is_named_stable = file->is_named;
}

/* The octets of a file whose name a crash could bring back are free, but not given away before the
 * file system has forgotten the name: ext4 does so when there are no others. */
static bool sim_has_room(struct disk_sim *sim, uint64_t more)
{
    uint64_t used = disk_sim_octets_used(sim), removed = 0;
    for (const struct sim_file *file = sim->files; file != NULL; file = file->next)
        removed += !file->is_named && file->is_named_stable ? file->size : 0;
    if (used + more > sim->options.size)
        return false;
    if (removed > 0 && used + removed + more > sim->options.size)
        sim_directory_stable(sim);
    return true;
}

static struct disk_file *sim_handle_new(struct sim_file *file)
{
    struct disk_file *handle = calloc(1, sizeof(*handle));
    CHECK(handle != NULL);
    handle->file = file;
    return handle;
}

static struct sim_file *sim_create(struct disk_sim *sim, const char *name)
{
    struct sim_file *file = disk_sim_file_new(sim, name);
    sim->changes++;
    struct sim_file **end = &sim->files;
    while (*end != NULL)
        end = &(*end)->next;
    *end = file;
    return file;
}

/* ---- blocking calls ---- */

static enum err sim_open(struct disk *disk, const char *name, uint32_t flags,
                         struct disk_file **ret_file)
{
    struct disk_sim *sim = sim_disk_of(disk)->sim;
    if (sim == NULL)
        return ERR_DISK_IO;
    TRY(sim_enter(sim, DISK_SIM_OPEN));
    struct sim_file *file = disk_sim_find(sim, name);
    if (flags & DISK_OPEN_CREATE) {
        if (file != NULL)
            return ERR_DISK_IO;
        file = sim_create(sim, name);
    }
    if (file == NULL)
        return ERR_NOT_FOUND;
    *ret_file = sim_handle_new(file);
    return ERR_OK;
}

static void sim_close(struct disk *disk, struct disk_file *handle)
{
    struct sim_disk *self = sim_disk_of(disk);
    if (self->sim != NULL) {
        for (const struct sim_operation *op = self->operations; op != NULL; op = op->next)
            CHECK(op->handle != handle || self->sim->is_stopped);
        if (handle->file->lock_holder == handle)
            handle->file->lock_holder = NULL;
    }
    free(handle);
}

static enum err sim_file_size(struct disk *disk, struct disk_file *handle, uint64_t *ret_size)
{
    if (sim_disk_of(disk)->sim == NULL)
        return ERR_DISK_IO;
    *ret_size = handle->file->size;
    return ERR_OK;
}

static enum err sim_allocate_octets(struct disk_sim *sim, struct sim_file *file, uint64_t size)
{
    uint64_t more = size > file->size ? size - file->size : 0;
    if (!sim_has_room(sim, more))
        return ERR_DISK_FULL;
    sim->changes++;
    sim_file_allocate(file, size);
    return ERR_OK;
}

static enum err sim_allocate(struct disk *disk, struct disk_file *handle, uint64_t size)
{
    struct disk_sim *sim = sim_disk_of(disk)->sim;
    if (sim == NULL)
        return ERR_DISK_IO;
    TRY(sim_enter(sim, DISK_SIM_ALLOCATE));
    return sim_allocate_octets(sim, handle->file, size);
}

static enum err sim_sync(struct disk *disk, struct disk_file *handle)
{
    struct disk_sim *sim = sim_disk_of(disk)->sim;
    if (sim == NULL)
        return ERR_DISK_IO;
    enum err err = sim_enter(sim, DISK_SIM_SYNC);
    if (sim->is_stopped || (err == ERR_OK && sim->is_false_sync))
        return err;
    sim->changes++;
    sim->stats.syncs++;
    sim_file_sync(handle->file, sim->stamp, err != ERR_OK);
    return err;
}

static uint32_t sim_read_octets(const struct sim_file *file, uint64_t offset, void *ret_data,
                                uint32_t size)
{
    if (offset >= file->size)
        return 0;
    uint32_t available = file->size - offset < size ? (uint32_t)(file->size - offset) : size;
    memcpy(ret_data, file->cached + offset, available);
    return available;
}

static enum err sim_read(struct disk *disk, struct disk_file *handle, uint64_t offset,
                         void *ret_data, uint32_t size, uint32_t *ret_size)
{
    struct disk_sim *sim = sim_disk_of(disk)->sim;
    if (sim == NULL)
        return ERR_DISK_IO;
    TRY(sim_enter(sim, DISK_SIM_READ));
    sim->stats.reads++;
    *ret_size = sim_read_octets(handle->file, offset, ret_data, size);
    return ERR_OK;
}

static enum err sim_lock(struct disk *disk, struct disk_file *handle)
{
    struct disk_sim *sim = sim_disk_of(disk)->sim;
    if (sim == NULL)
        return ERR_DISK_IO;
    TRY(sim_enter(sim, DISK_SIM_LOCK));
    if (handle->file->lock_holder != NULL && handle->file->lock_holder != handle)
        return ERR_DISK_LOCKED;
    handle->file->lock_holder = handle;
    return ERR_OK;
}

static enum err sim_unlink(struct disk *disk, const char *name)
{
    struct disk_sim *sim = sim_disk_of(disk)->sim;
    if (sim == NULL)
        return ERR_DISK_IO;
    TRY(sim_enter(sim, DISK_SIM_UNLINK));
    struct sim_file *file = disk_sim_find(sim, name);
    if (file == NULL)
        return ERR_NOT_FOUND;
    sim->changes++;
    file->is_named = false;
    return ERR_OK;
}

static enum err sim_sync_directory(struct disk *disk)
{
    struct disk_sim *sim = sim_disk_of(disk)->sim;
    if (sim == NULL)
        return ERR_DISK_IO;
    TRY(sim_enter(sim, DISK_SIM_DIRECTORY));
    sim_directory_stable(sim);
    return ERR_OK;
}

static enum err sim_list(struct disk *disk, void (*on_name)(void *context, const char *name),
                         void *context)
{
    struct disk_sim *sim = sim_disk_of(disk)->sim;
    if (sim == NULL)
        return ERR_DISK_IO;
    TRY(sim_enter(sim, DISK_SIM_DIRECTORY));
    for (const struct sim_file *file = sim->files; file != NULL; file = file->next) {
        if (file->is_named)
            on_name(context, file->name);
    }
    return ERR_OK;
}

static enum err sim_space(struct disk *disk, uint64_t *ret_free, uint64_t *ret_total)
{
    struct disk_sim *sim = sim_disk_of(disk)->sim;
    if (sim == NULL)
        return ERR_DISK_IO;
    uint64_t used = disk_sim_octets_used(sim);
    *ret_total = sim->options.size;
    *ret_free = used < sim->options.size ? sim->options.size - used : 0;
    return ERR_OK;
}

/* ---- submissions ---- */

static struct sim_operation *sim_operation_new(struct sim_disk *self, enum sim_kind kind,
                                               struct disk_file *handle, uint64_t token)
{
    struct sim_operation *operation = calloc(1, sizeof(*operation));
    CHECK(operation != NULL);
    CHECK(self->outstanding < DISK_SUBMISSION_MAX);
    *operation = (struct sim_operation){.kind = kind, .handle = handle, .token = token};
    if (handle != NULL && self->sim != NULL)
        operation->file = handle->file;
    self->outstanding++;
    return operation;
}

static void sim_operation_free(struct sim_operation *operation)
{
    if (operation->kind == SIM_WRITE) {
        free(operation->data);
        free(operation->vector);
    }
    free(operation);
}

/* Give the operation its due time and its place. A dead disk's operations stay for ever. */
static void sim_submit(struct sim_disk *self, struct sim_operation *operation)
{
    struct disk_sim *sim = self->sim;
    operation->due = TICK_NEVER;
    if (sim != NULL) {
        sim->changes++;
        tick_us spread = sim->options.latency_max - sim->options.latency_min;
        operation->stamp = sim->stamp;
        tick_us start = sim->options.clock->monotonic(sim->options.clock->context);
        for (const struct sim_operation *op = self->operations; op != NULL; op = op->next) {
            if (!operation->then_sync || !op->then_sync || op->handle != operation->handle)
                continue;
            start = op->due > start ? op->due : start;
            operation->is_behind = true;
        }
        operation->due =
            start + sim->options.latency_min + rng_below(&sim->rng, (uint32_t)spread + 1);
    }
    struct sim_operation **link = &self->operations;
    while (*link != NULL && (*link)->due <= operation->due)
        link = &(*link)->next;
    operation->next = *link;
    *link = operation;
}

static void sim_submit_write(struct disk *disk, struct disk_file *handle, uint64_t offset,
                             const struct iovec *vector, uint32_t count, bool then_sync,
                             uint64_t token)
{
    struct sim_disk *self = sim_disk_of(disk);
    CHECK(count > 0 && count <= DISK_VECTOR_MAX);
    struct sim_operation *operation = sim_operation_new(self, SIM_WRITE, handle, token);
    operation->vector = calloc(count, sizeof(*vector));
    CHECK(operation->vector != NULL);
    memcpy(operation->vector, vector, count * sizeof(*vector));
    operation->count = count;
    operation->offset = offset;
    operation->then_sync = then_sync;
    for (uint32_t i = 0; i < count; i++)
        operation->size += (uint32_t)vector[i].iov_len;
    operation->data = malloc(operation->size + 1);
    CHECK(operation->data != NULL);
    for (uint32_t i = 0, at = 0; i < count; at += (uint32_t)vector[i++].iov_len)
        memcpy(operation->data + at, vector[i].iov_base, vector[i].iov_len);
    if (self->sim != NULL) {
        operation->err = sim_enter(self->sim, DISK_SIM_WRITE);
        if (then_sync && operation->err == ERR_OK)
            operation->err_sync = sim_enter(self->sim, DISK_SIM_SYNC);
    }
    sim_submit(self, operation);
}

static void sim_submit_sync(struct disk *disk, struct disk_file *handle, uint64_t token)
{
    struct sim_disk *self = sim_disk_of(disk);
    struct sim_operation *operation = sim_operation_new(self, SIM_SYNC, handle, token);
    if (self->sim != NULL)
        operation->err_sync = sim_enter(self->sim, DISK_SIM_SYNC);
    sim_submit(self, operation);
}

static void sim_submit_read(struct disk *disk, struct disk_file *handle, uint64_t offset,
                            void *ret_data, uint32_t size, uint64_t token)
{
    struct sim_disk *self = sim_disk_of(disk);
    struct sim_operation *operation = sim_operation_new(self, SIM_READ, handle, token);
    operation->offset = offset;
    operation->data = ret_data;
    operation->size = size;
    if (self->sim != NULL)
        operation->err = sim_enter(self->sim, DISK_SIM_READ);
    sim_submit(self, operation);
}

static void sim_submit_named(struct sim_disk *self, enum sim_kind kind, enum disk_sim_call call,
                             const char *name, uint64_t size, struct disk_file **ret_file,
                             uint64_t token)
{
    struct sim_operation *operation = sim_operation_new(self, kind, NULL, token);
    CHECK(strlen(name) < DISK_NAME_SIZE_MAX);
    memcpy(operation->name, name, strlen(name) + 1);
    operation->offset = size;
    operation->ret_file = ret_file;
    if (self->sim != NULL)
        operation->err = sim_enter(self->sim, call);
    sim_submit(self, operation);
}

static void sim_submit_create(struct disk *disk, const char *name, uint64_t size,
                              struct disk_file **ret_file, uint64_t token)
{
    sim_submit_named(sim_disk_of(disk), SIM_CREATE, DISK_SIM_CREATE, name, size, ret_file, token);
}

static void sim_submit_remove(struct disk *disk, const char *name, uint64_t token)
{
    sim_submit_named(sim_disk_of(disk), SIM_REMOVE, DISK_SIM_UNLINK, name, 0, NULL, token);
}

/* ---- completions ---- */

static enum err sim_finish_sync(struct disk_sim *sim, struct sim_operation *operation,
                                uint64_t stamp)
{
    sim->stats.syncs++;
    if (operation->err_sync == ERR_OK && sim->is_false_sync)
        return ERR_OK;
    sim_file_sync(operation->file, stamp, operation->err_sync != ERR_OK);
    return operation->err_sync;
}

static enum err sim_finish_write(struct disk_sim *sim, struct sim_operation *operation)
{
    for (uint32_t i = 0, at = 0; i < operation->count; i++) {
        const struct iovec *piece = &operation->vector[i];
        CHECK(memcmp(piece->iov_base, operation->data + at, piece->iov_len) == 0);
        at += (uint32_t)piece->iov_len;
    }
    struct sim_file *file = operation->file;
    if (operation->then_sync && operation->handle->has_failed)
        return ERR_DISK_IO;
    uint64_t end = operation->offset + operation->size;
    uint64_t more = end > file->size ? end - file->size : 0;
    enum err err = operation->err;
    if (err == ERR_OK && more > 0 && !sim_has_room(sim, more))
        err = ERR_DISK_FULL;
    uint32_t written = err == ERR_OK ? operation->size : operation->size / 2;
    sim->stats.writes++;
    sim->stats.octets_written += written;
    sim_file_write(file, operation->offset, operation->data, written, ++sim->stamp);
    if (err != ERR_OK || !operation->then_sync)
        return err;
    /* Invariant 2: what completed between submission and now, by others, is not covered. */
    for (struct sim_write *write = file->writes; write != NULL; write = write->next) {
        if (write->stamp == sim->stamp)
            write->stamp = operation->stamp;
    }
    return sim_finish_sync(sim, operation, operation->stamp);
}

/* What waits behind it may begin. */
static void sim_commit_ended(struct sim_disk *self, const struct sim_operation *operation,
                             enum err err)
{
    operation->handle->has_failed |= err != ERR_OK;
    for (struct sim_operation *op = self->operations; op != NULL; op = op->next) {
        if (op->then_sync && op->handle == operation->handle) {
            op->is_behind = false;
            op->stamp = self->sim->stamp;
            return;
        }
    }
}

static enum err sim_finish_create(struct disk_sim *sim, struct sim_operation *operation)
{
    if (operation->err == ERR_OK && disk_sim_find(sim, operation->name) != NULL)
        return ERR_DISK_IO;
    if (operation->err == ERR_DISK_LOCKED)
        return ERR_DISK_LOCKED;
    struct sim_file *file = sim_create(sim, operation->name);
    enum err err = operation->err;
    if (err == ERR_OK)
        err = sim_allocate_octets(sim, file, operation->offset);
    if (err != ERR_OK)
        return err; /* a half made file stays */
    struct disk_file *handle = sim_handle_new(file);
    file->lock_holder = handle;
    sim_directory_stable(sim);
    *operation->ret_file = handle;
    return ERR_OK;
}

static enum err sim_finish_remove(struct disk_sim *sim, struct sim_operation *operation)
{
    TRY(operation->err);
    struct sim_file *file = disk_sim_find(sim, operation->name);
    if (file == NULL)
        return ERR_NOT_FOUND;
    file->is_named = false;
    return ERR_OK;
}

static struct disk_completion sim_finish(struct disk_sim *sim, struct sim_operation *operation)
{
    struct disk_completion completion = {.token = operation->token, .size = operation->size};
    switch (operation->kind) {
    case SIM_WRITE:
        completion.err = sim_finish_write(sim, operation);
        break;
    case SIM_SYNC:
        completion.err = sim_finish_sync(sim, operation, operation->stamp);
        break;
    case SIM_READ:
        sim->stats.reads++;
        completion.err = operation->err;
        if (completion.err == ERR_OK)
            completion.size = sim_read_octets(operation->file, operation->offset, operation->data,
                                              operation->size);
        break;
    case SIM_CREATE:
        completion.err = sim_finish_create(sim, operation);
        break;
    case SIM_REMOVE:
        completion.err = sim_finish_remove(sim, operation);
        break;
    }
    if (completion.err != ERR_OK)
        completion.size = 0;
    return completion;
}

static uint32_t sim_poll(struct disk *disk, struct disk_completion *ret_completions, uint32_t max)
{
    struct sim_disk *self = sim_disk_of(disk);
    struct disk_sim *sim = self->sim;
    if (sim == NULL || sim->is_stopped || sim->is_held)
        return 0;
    tick_us now = sim->options.clock->monotonic(sim->options.clock->context);
    uint32_t count = 0;
    while (count < max && self->operations != NULL && self->operations->due <= now) {
        struct sim_operation *operation = self->operations;
        sim_moment(sim);
        sim->changes++;
        self->operations = operation->next;
        self->outstanding--;
        ret_completions[count] = sim_finish(sim, operation);
        if (operation->then_sync)
            sim_commit_ended(self, operation, ret_completions[count].err);
        count++;
        sim_operation_free(operation);
    }
    return count;
}

static int sim_eventfd(struct disk *disk)
{
    (void)disk;
    return -1;
}

static void sim_disk_free(struct disk *disk)
{
    struct sim_disk *self = sim_disk_of(disk);
    if (self->sim != NULL) {
        CHECK(self->operations == NULL || self->sim->is_stopped);
        struct sim_disk **link = &self->sim->disks;
        while (*link != self)
            link = &(*link)->next;
        *link = self->next;
    }
    while (self->operations != NULL) {
        struct sim_operation *operation = self->operations;
        self->operations = operation->next;
        sim_operation_free(operation);
    }
    free(self);
}

static const struct disk_ops sim_ops = {
    .open = sim_open,
    .close = sim_close,
    .file_size = sim_file_size,
    .allocate = sim_allocate,
    .sync = sim_sync,
    .read = sim_read,
    .lock = sim_lock,
    .unlink = sim_unlink,
    .sync_directory = sim_sync_directory,
    .list = sim_list,
    .space = sim_space,
    .submit_write = sim_submit_write,
    .submit_sync = sim_submit_sync,
    .submit_read = sim_submit_read,
    .submit_create = sim_submit_create,
    .submit_remove = sim_submit_remove,
    .poll = sim_poll,
    .eventfd = sim_eventfd,
    .free = sim_disk_free,
};

struct disk *disk_sim_open(struct disk_sim *sim)
{
    struct sim_disk *self = calloc(1, sizeof(*self));
    CHECK(self != NULL);
    self->disk.ops = &sim_ops;
    self->sim = sim;
    self->next = sim->disks;
    sim->disks = self;
    return &self->disk;
}

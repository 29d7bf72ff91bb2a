/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk through io_uring: the shard submits, kernel workers write and sync.
 *
 * A write with sync is linked entries, WRITEV (one for each DISK_IOV_MAX pieces) then
 * FSYNC(DATASYNC), submitted by one kernel entry. The writes report only their failure
 * (IOSQE_CQE_SKIP_SUCCESS): a failed or short write then cancels the rest silently, so that the
 * chain has exactly one completion and wakes the shard once. A write without sync is such a chain
 * whose last write reports.
 * Writes carry IOSQE_ASYNC: copying a batch into the page cache is then a kernel worker's time, not
 * the shard's (on file systems without non-blocking buffered writes, ext4 among them, the attempt
 * would be wasted anyway).
 *
 * The ring has no special flags: completions by kernel workers appear in the ring by themselves and
 * those that need the submitter's context interrupt it, so that polling needs no kernel entry. The
 * kernel's workers run on any processor, also when the shard is pinned.
 *
 * Invariants
 *   1. A slot is free, or waits for `entries_due` completions; its token is reported exactly once.
 *   2. The eventfd is read before the ring is looked at: a completion that arrives between makes it
 *      readable again.
 *   3. At most one commit is in the ring. The others wait in `commits`, in order; the next poll
 *      after the end of one begins the next. has_failed of a file is the owner's.
 *
 * Stages of a creation (all in one slot)            Edge done by
 *   OPEN -> LOCK, ALLOCATE -> SYNC FILE -> SYNC DIRECTORY -> done     uring_create_advance()
 *   any  -> done with an error; the descriptor is closed
 *
 * Limits: DISK_SUBMISSION_MAX slots. Not here: blocking calls (disk.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "queue/disk_posix.h"

enum uring_stage { /* of a creation */
                   URING_STAGE_OPEN,
                   URING_STAGE_ALLOCATE,
                   URING_STAGE_SYNC_FILE,
                   URING_STAGE_SYNC_DIRECTORY,
};

enum uring_kind { URING_FREE, URING_WRITE, URING_SYNC, URING_READ, URING_CREATE, URING_REMOVE };

struct uring_slot {
    enum uring_kind kind;
    bool then_sync;
    uint32_t entries_due; /* completions of the ring still to come */
    uint64_t token;
    uint32_t size;      /* asked for, then done */
    uint32_t last_size; /* of the last write of a chain */
    enum err err;
    struct disk_file *file; /* WRITE */
    uint64_t offset;
    uint32_t count;
    struct iovec *vector; /* kept for the next write in this slot */
    uint32_t vector_capacity;
    uint32_t next_free;
    /* CREATE and REMOVE */
    char name[DISK_NAME_SIZE_MAX];
    uint64_t create_size;
    struct disk_file **ret_file;
    enum uring_stage stage;
    int fd;
};

struct disk_uring {
    struct disk_posix posix;
    struct io_uring ring;
    int eventfd;
    uint32_t free_head; /* DISK_SUBMISSION_MAX: none */
    uint32_t outstanding;
    struct uring_slot *commit;                       /* in the ring, or NULL */
    struct uring_slot *commits[DISK_SUBMISSION_MAX]; /* waiting: a ring */
    uint32_t commit_head, commit_count;
    struct uring_slot slots[DISK_SUBMISSION_MAX];
};

static struct disk_uring *uring_of(struct disk *disk)
{
    return (struct disk_uring *)disk;
}

static struct uring_slot *uring_slot_acquire(struct disk_uring *self, enum uring_kind kind,
                                             uint64_t token)
{
    CHECK(self->free_head < DISK_SUBMISSION_MAX);
    struct uring_slot *slot = &self->slots[self->free_head];
    CHECK(slot->kind == URING_FREE);
    self->free_head = slot->next_free;
    self->outstanding++;
    slot->kind = kind;
    slot->token = token;
    slot->entries_due = 0;
    slot->size = 0;
    slot->err = ERR_OK;
    return slot;
}

static void uring_slot_release(struct disk_uring *self, struct uring_slot *slot)
{
    slot->kind = URING_FREE;
    slot->next_free = self->free_head;
    self->free_head = (uint32_t)(slot - self->slots);
    self->outstanding--;
}

/* Entries are submitted as soon as those of one slot are made: the ring is never full. */
static struct io_uring_sqe *uring_entry(struct disk_uring *self, struct uring_slot *slot)
{
    struct io_uring_sqe *entry = io_uring_get_sqe(&self->ring);
    CHECK(entry != NULL);
    slot->entries_due++;
    return entry;
}

static void uring_submit(struct disk_uring *self)
{
    /* EAGAIN and EBUSY mean that the kernel is short of memory for the moment. */
    while (io_uring_sq_ready(&self->ring) > 0) {
        int submitted = io_uring_submit(&self->ring);
        CHECK(submitted >= 0 || submitted == -EINTR || submitted == -EAGAIN || submitted == -EBUSY);
    }
}

/* A write that is not the last of its chain is told by the lowest bit of the user data. */
static void *uring_tag_write(struct uring_slot *slot)
{
    return (uint8_t *)slot + 1;
}

static struct uring_slot *uring_untag(void *data, bool *ret_is_linked_write)
{
    *ret_is_linked_write = (uintptr_t)data & 1;
    return (struct uring_slot *)(void *)((uint8_t *)data - *ret_is_linked_write);
}

/* The writes of a slot, then its sync. */
static void uring_write(struct disk_uring *self, struct uring_slot *slot)
{
    uint64_t offset = slot->offset;
    for (uint32_t at = 0; at < slot->count; at += DISK_IOV_MAX) {
        uint32_t left = slot->count - at, count = left < DISK_IOV_MAX ? left : DISK_IOV_MAX;
        bool is_last = count == left && !slot->then_sync;
        struct io_uring_sqe *entry = uring_entry(self, slot);
        io_uring_prep_writev(entry, slot->file->fd, slot->vector + at, count, offset);
        entry->flags |= IOSQE_ASYNC | (is_last ? 0 : IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS);
        io_uring_sqe_set_data(entry, is_last ? slot : uring_tag_write(slot));
        slot->last_size = 0;
        for (uint32_t i = at; i < at + count; i++)
            slot->last_size += (uint32_t)slot->vector[i].iov_len;
        offset += slot->last_size;
    }
    if (slot->then_sync) {
        struct io_uring_sqe *entry = uring_entry(self, slot);
        io_uring_prep_fsync(entry, slot->file->fd, IORING_FSYNC_DATASYNC);
        io_uring_sqe_set_data(entry, slot);
    }
    slot->entries_due = 1; /* completion for all */
    uring_submit(self);
}

/* Begin the next commit if none is under way; those that may not begin are completed. */
static uint32_t uring_commits_advance(struct disk_uring *self,
                                      struct disk_completion *ret_completions, uint32_t max)
{
    uint32_t count = 0;
    while (self->commit == NULL && self->commit_count > 0) {
        struct uring_slot *slot = self->commits[self->commit_head];
        if (slot->file->has_failed && count == max)
            break;
        self->commit_head = (self->commit_head + 1) % DISK_SUBMISSION_MAX;
        self->commit_count--;
        if (!slot->file->has_failed) {
            self->commit = slot;
            uring_write(self, slot);
            break;
        }
        ret_completions[count++] =
            (struct disk_completion){.token = slot->token, .err = ERR_DISK_IO};
        uring_slot_release(self, slot);
    }
    if (self->commit == NULL && self->commit_count > 0) /* come back for the rest */
        CHECK(eventfd_write(self->eventfd, 1) == 0 || errno == EAGAIN);
    return count;
}

static void uring_submit_write(struct disk *disk, struct disk_file *file, uint64_t offset,
                               const struct iovec *vector, uint32_t count, bool then_sync,
                               uint64_t token)
{
    struct disk_uring *self = uring_of(disk);
    CHECK(count > 0 && count <= DISK_VECTOR_MAX);
    struct uring_slot *slot = uring_slot_acquire(self, URING_WRITE, token);
    slot->then_sync = then_sync;
    if (slot->vector_capacity < count) {
        free(slot->vector);
        slot->vector = malloc(count * sizeof(*vector));
        CHECK(slot->vector != NULL);
        slot->vector_capacity = count;
    }
    for (uint32_t i = 0; i < count; i++) {
        slot->vector[i] = vector[i];
        slot->size += (uint32_t)vector[i].iov_len;
    }
    slot->count = count;
    slot->file = file;
    slot->offset = offset;
    if (!then_sync) {
        uring_write(self, slot);
        return;
    }
    self->commits[(self->commit_head + self->commit_count++) % DISK_SUBMISSION_MAX] = slot;
    (void)uring_commits_advance(self, NULL, 0);
}

static void uring_submit_sync(struct disk *disk, struct disk_file *file, uint64_t token)
{
    struct disk_uring *self = uring_of(disk);
    struct uring_slot *slot = uring_slot_acquire(self, URING_SYNC, token);
    struct io_uring_sqe *entry = uring_entry(self, slot);
    io_uring_prep_fsync(entry, file->fd, IORING_FSYNC_DATASYNC);
    io_uring_sqe_set_data(entry, slot);
    uring_submit(self);
}

static void uring_submit_read(struct disk *disk, struct disk_file *file, uint64_t offset,
                              void *ret_data, uint32_t size, uint64_t token)
{
    struct disk_uring *self = uring_of(disk);
    struct uring_slot *slot = uring_slot_acquire(self, URING_READ, token);
    struct io_uring_sqe *entry = uring_entry(self, slot);
    io_uring_prep_read(entry, file->fd, ret_data, size, offset);
    io_uring_sqe_set_data(entry, slot);
    uring_submit(self);
}

static void uring_slot_name(struct uring_slot *slot, const char *name)
{
    CHECK(strchr(name, '/') == NULL && strlen(name) < DISK_NAME_SIZE_MAX);
    memcpy(slot->name, name, strlen(name) + 1);
}

static void uring_submit_create(struct disk *disk, const char *name, uint64_t size,
                                struct disk_file **ret_file, uint64_t token)
{
    struct disk_uring *self = uring_of(disk);
    struct uring_slot *slot = uring_slot_acquire(self, URING_CREATE, token);
    uring_slot_name(slot, name);
    slot->create_size = size;
    slot->ret_file = ret_file;
    slot->stage = URING_STAGE_OPEN;
    slot->fd = -1;
    struct io_uring_sqe *entry = uring_entry(self, slot);
    io_uring_prep_openat(entry, self->posix.directory, slot->name,
                         O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    io_uring_sqe_set_data(entry, slot);
    uring_submit(self);
}

static void uring_submit_remove(struct disk *disk, const char *name, uint64_t token)
{
    struct disk_uring *self = uring_of(disk);
    struct uring_slot *slot = uring_slot_acquire(self, URING_REMOVE, token);
    uring_slot_name(slot, name);
    struct io_uring_sqe *entry = uring_entry(self, slot);
    io_uring_prep_unlinkat(entry, self->posix.directory, slot->name, 0);
    io_uring_sqe_set_data(entry, slot);
    uring_submit(self);
}

/* A stage of a creation succeeded: prepare the next one. False when it was the last. */
static bool uring_create_advance(struct disk_uring *self, struct uring_slot *slot, int result)
{
    if (slot->stage == URING_STAGE_SYNC_DIRECTORY) {
        *slot->ret_file = disk_posix_file_new(slot->fd);
        return false;
    }
    if (slot->stage == URING_STAGE_OPEN) {
        slot->fd = result;
        slot->err = disk_posix_lock(&self->posix.disk, &(struct disk_file){.fd = result});
        if (slot->err != ERR_OK)
            return false;
    }
    slot->stage++;
    struct io_uring_sqe *entry = uring_entry(self, slot);
    if (slot->stage == URING_STAGE_ALLOCATE)
        io_uring_prep_fallocate(entry, slot->fd, 0, 0, (off_t)slot->create_size);
    else if (slot->stage == URING_STAGE_SYNC_FILE)
        io_uring_prep_fsync(entry, slot->fd, 0);
    else
        io_uring_prep_fsync(entry, self->posix.directory, 0);
    io_uring_sqe_set_data(entry, slot);
    uring_submit(self);
    return true;
}

/* Take one entry's result in. True when the slot is done. */
static bool uring_slot_feed(struct disk_uring *self, void *data, int result)
{
    bool is_linked_write;
    struct uring_slot *slot = uring_untag(data, &is_linked_write);
    CHECK(slot->entries_due > 0);
    slot->entries_due--;
    if (result < 0 && slot->err == ERR_OK)
        slot->err = disk_posix_err(-result);
    if (slot->kind == URING_CREATE && slot->err == ERR_OK &&
        uring_create_advance(self, slot, result))
        return false;
    if (slot->kind == URING_CREATE && slot->err != ERR_OK && slot->fd >= 0)
        close(slot->fd);
    if (slot->kind == URING_READ && slot->err == ERR_OK)
        slot->size = (uint32_t)result;
    /* A linked write reports only to say that it failed, or that it was short (the disk is full).
     */
    bool is_plain_write = slot->kind == URING_WRITE && !slot->then_sync;
    if (result >= 0 && (is_linked_write || (is_plain_write && (uint32_t)result != slot->last_size)))
        slot->err = ERR_DISK_IO;
    if (slot == self->commit) {
        slot->file->has_failed = slot->err != ERR_OK;
        self->commit = NULL;
    }
    return slot->entries_due == 0;
}

/* The results in the ring, as far as slots are done by them. */
static uint32_t uring_reap(struct disk_uring *self, struct disk_completion *ret_completions,
                           uint32_t max)
{
    struct io_uring_cqe *entry;
    uint32_t count = 0;
    while (count < max && io_uring_peek_cqe(&self->ring, &entry) == 0) {
        void *data = io_uring_cqe_get_data(entry);
        int result = entry->res;
        io_uring_cqe_seen(&self->ring, entry);
        if (!uring_slot_feed(self, data, result))
            continue;
        bool ignored_tag;
        struct uring_slot *slot = uring_untag(data, &ignored_tag);
        ret_completions[count++] = (struct disk_completion){
            .token = slot->token,
            .err = slot->err,
            .size = slot->err == ERR_OK ? slot->size : 0,
        };
        uring_slot_release(self, slot);
    }
    return count;
}

static uint32_t uring_poll(struct disk *disk, struct disk_completion *ret_completions, uint32_t max)
{
    struct disk_uring *self = uring_of(disk);
    struct io_uring_cqe *entry;
    bool is_stalled = self->commit == NULL && self->commit_count > 0;
    if (self->outstanding == 0 || (io_uring_peek_cqe(&self->ring, &entry) != 0 && !is_stalled))
        return 0;
    uint64_t ignored;
    if (read(self->eventfd, &ignored, sizeof(ignored)) < 0)
        CHECK(errno == EAGAIN || errno == EINTR);
    uint32_t count = uring_reap(self, ret_completions, max);
    return count + uring_commits_advance(self, ret_completions + count, max - count);
}

static int uring_eventfd(struct disk *disk)
{
    return uring_of(disk)->eventfd;
}

static void uring_free(struct disk *disk)
{
    struct disk_uring *self = uring_of(disk);
    CHECK(self->outstanding == 0);
    io_uring_queue_exit(&self->ring);
    close(self->eventfd);
    disk_posix_fini(&self->posix);
    for (uint32_t i = 0; i < DISK_SUBMISSION_MAX; i++)
        free(self->slots[i].vector);
    free(self);
}

static const struct disk_ops uring_ops = {
    .open = disk_posix_open,
    .close = disk_posix_close,
    .file_size = disk_posix_file_size,
    .allocate = disk_posix_allocate,
    .sync = disk_posix_sync,
    .read = disk_posix_read,
    .lock = disk_posix_lock,
    .unlink = disk_posix_unlink,
    .sync_directory = disk_posix_sync_directory,
    .list = disk_posix_list,
    .space = disk_posix_space,
    .submit_write = uring_submit_write,
    .submit_sync = uring_submit_sync,
    .submit_read = uring_submit_read,
    .submit_create = uring_submit_create,
    .submit_remove = uring_submit_remove,
    .poll = uring_poll,
    .eventfd = uring_eventfd,
    .free = uring_free,
};

/* The ring and the eventfd that follows it. Errors: ERR_SYSTEM, nothing is left open. */
static enum err uring_open(struct disk_uring *self)
{
    self->eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (self->eventfd < 0)
        return ERR_SYSTEM;
    if (io_uring_queue_init(2 * DISK_SUBMISSION_MAX, &self->ring, 0) != 0) {
        close(self->eventfd);
        return ERR_SYSTEM;
    }
    if (!(self->ring.features & IORING_FEAT_CQE_SKIP) ||
        io_uring_register_eventfd(&self->ring, self->eventfd) != 0) {
        io_uring_queue_exit(&self->ring);
        close(self->eventfd);
        return ERR_SYSTEM;
    }
    return ERR_OK;
}

enum err disk_uring_new(const char *path, struct disk **ret_disk)
{
    struct disk_uring *self = calloc(1, sizeof(*self));
    CHECK(self != NULL);
    enum err err = disk_posix_init(&self->posix, path);
    if (err == ERR_OK) {
        err = uring_open(self);
        if (err != ERR_OK)
            disk_posix_fini(&self->posix);
    }
    if (err != ERR_OK) {
        free(self);
        return err;
    }
    for (uint32_t i = 0; i < DISK_SUBMISSION_MAX; i++)
        self->slots[i].next_free = i + 1;
    self->posix.disk.ops = &uring_ops;
    *ret_disk = &self->posix.disk;
    return ERR_OK;
}

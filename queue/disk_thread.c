/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk through helper threads.
 *
 * Two lanes, each a thread with a queue of its own: commits (writes followed by a sync) go to the
 * first, everything else to the second, so that a commit never waits behind the preparation of a
 * segment or a read. That the first lane is one thread is what keeps commits in order; a commit
 * that waits in it begins as soon as the one before has ended, without the shard. What else must be
 * ordered the spool orders by waiting for completions.
 *
 * Each lane is a ring of slots with one producer (the owner) and one consumer (the helper):
 *
 *   collected <= done <= submitted          all only rise
 *
 * The helper publishes `done` with release; the owner reads it with acquire and finds the results
 * in the slots. Sleeping: the helper sets is_sleeping, full fence, looks again, reads its eventfd;
 * the owner publishes `submitted`, full fence, looks at is_sleeping, writes the eventfd.
 *
 * Invariants
 *   1. Slots in [done, submitted) belong to the helper, all others to the owner.
 *   2. The completion eventfd is read before `done` is looked at.
 *   3. has_failed of a file is read and written by the helper of the first lane only.
 *
 * The helpers run on any processor that the process may use, and inherit the signal mask of the
 * thread that calls disk_new(). Limits: DISK_SUBMISSION_MAX slots in both lanes together. Not here:
 * blocking calls.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "queue/disk_posix.h"

#define LANE_COUNT 2u

enum job_kind { JOB_WRITE, JOB_SYNC, JOB_READ, JOB_CREATE, JOB_REMOVE, JOB_STOP };

struct job {
    enum job_kind kind;
    bool then_sync;
    int fd;
    struct disk_file *written; /* WRITE: the file */
    uint64_t offset, token;
    struct iovec *vector; /* kept for the next job in this slot */
    uint32_t vector_capacity, count;
    void *data;
    uint32_t size; /* asked for, then done */
    enum err err;
    char name[DISK_NAME_SIZE_MAX];
    struct disk_file **ret_file;
    struct disk_file *file; /* created */
};

struct lane {
    struct disk_thread *disk;
    pthread_t thread;
    int wakeup;
    atomic_bool is_sleeping;
    atomic_uint submitted, done;
    uint32_t collected; /* owner only */
    struct job jobs[DISK_SUBMISSION_MAX];
};

struct disk_thread {
    struct disk_posix posix;
    int eventfd;
    uint32_t outstanding;
    struct lane lanes[LANE_COUNT];
};

static struct disk_thread *thread_of(struct disk *disk)
{
    return (struct disk_thread *)disk;
}

/* ---- helper side ---- */

static enum err job_sync(int fd)
{
    return fdatasync(fd) == 0 ? ERR_OK : disk_posix_err(errno);
}

static enum err job_write(const struct job *job)
{
    uint64_t offset = job->offset;
    for (uint32_t at = 0; at < job->count; at += DISK_IOV_MAX) {
        uint32_t count = job->count - at < DISK_IOV_MAX ? job->count - at : DISK_IOV_MAX;
        ssize_t written;
        do
            written = pwritev(job->fd, job->vector + at, (int)count, (off_t)offset);
        while (written < 0 && errno == EINTR);
        if (written < 0)
            return disk_posix_err(errno);
        offset += (uint64_t)written;
        for (uint32_t i = at; i < at + count; i++)
            written -= (ssize_t)job->vector[i].iov_len;
        if (written != 0)
            return ERR_DISK_IO;
    }
    return ERR_OK;
}

static enum err job_commit(struct job *job)
{
    struct disk_file *file = job->written;
    if (file->has_failed)
        return ERR_DISK_IO;
    enum err err = job_write(job);
    if (err == ERR_OK)
        err = job_sync(job->fd);
    file->has_failed = err != ERR_OK;
    return err;
}

static enum err job_create(struct disk_thread *self, struct job *job)
{
    struct disk *disk = &self->posix.disk;
    struct disk_file *file;
    TRY(disk_posix_open(disk, job->name, DISK_OPEN_CREATE, &file));
    enum err err = disk_posix_lock(disk, file);
    if (err == ERR_OK)
        err = disk_posix_allocate(disk, file, job->offset);
    if (err == ERR_OK)
        err = disk_posix_sync_directory(disk);
    if (err == ERR_OK)
        job->file = file;
    else
        disk_posix_close(disk, file);
    return err;
}

static enum err job_run(struct disk_thread *self, struct job *job)
{
    switch (job->kind) {
    case JOB_WRITE:
        return job->then_sync ? job_commit(job) : job_write(job);
    case JOB_SYNC:
        return job_sync(job->fd);
    case JOB_READ:
        return disk_posix_read(&self->posix.disk, &(struct disk_file){.fd = job->fd}, job->offset,
                               job->data, job->size, &job->size);
    case JOB_CREATE:
        return job_create(self, job);
    case JOB_REMOVE:
        return disk_posix_unlink(&self->posix.disk, job->name);
    case JOB_STOP:
        return ERR_OK;
    }
    CHECK(false);
}

static void lane_sleep(struct lane *lane, uint32_t done)
{
    atomic_store_explicit(&lane->is_sleeping, true, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* partner: lane_push() */
    uint64_t ignored;
    if (atomic_load_explicit(&lane->submitted, memory_order_relaxed) == done &&
        read(lane->wakeup, &ignored, sizeof(ignored)) < 0)
        CHECK(errno == EINTR);
    atomic_store_explicit(&lane->is_sleeping, false, memory_order_relaxed);
}

/* The shard may be pinned when it makes its disk; its helpers must not compete with it. The kernel
 * cuts the set to the processors that we may use. */
static void lane_unpin(void)
{
    cpu_set_t all;
    memset(&all, 0xff, sizeof(all));
    (void)pthread_setaffinity_np(pthread_self(), sizeof(all), &all); /* as before, if refused */
}

static void *lane_main(void *context)
{
    struct lane *lane = context;
    lane_unpin();
    uint32_t done = 0;
    for (bool is_stopped = false; !is_stopped;) {
        /* partner: lane_push() */
        if (atomic_load_explicit(&lane->submitted, memory_order_acquire) == done) {
            lane_sleep(lane, done);
            continue;
        }
        struct job *job = &lane->jobs[done % DISK_SUBMISSION_MAX];
        is_stopped = job->kind == JOB_STOP;
        job->err = job_run(lane->disk, job);
        /* partner: thread_collect() */
        atomic_store_explicit(&lane->done, ++done, memory_order_release);
        CHECK(eventfd_write(lane->disk->eventfd, 1) == 0 || errno == EAGAIN);
    }
    return NULL;
}

/* ---- owner side ---- */

static struct job *lane_job(struct lane *lane, enum job_kind kind, uint64_t token)
{
    uint32_t submitted = atomic_load_explicit(&lane->submitted, memory_order_relaxed);
    CHECK(lane->disk->outstanding < DISK_SUBMISSION_MAX);
    lane->disk->outstanding++;
    struct job *job = &lane->jobs[submitted % DISK_SUBMISSION_MAX];
    job->kind = kind;
    job->token = token;
    job->size = 0;
    job->file = NULL;
    return job;
}

static void lane_push(struct lane *lane)
{
    uint32_t submitted = atomic_load_explicit(&lane->submitted, memory_order_relaxed);
    /* partner: lane_main() */
    atomic_store_explicit(&lane->submitted, submitted + 1, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst); /* partner: lane_sleep() */
    if (atomic_load_explicit(&lane->is_sleeping, memory_order_relaxed))
        CHECK(eventfd_write(lane->wakeup, 1) == 0 || errno == EAGAIN);
}

static struct lane *thread_lane(struct disk *disk, bool is_commit)
{
    return &thread_of(disk)->lanes[is_commit ? 0 : 1];
}

static void thread_submit_write(struct disk *disk, struct disk_file *file, uint64_t offset,
                                const struct iovec *vector, uint32_t count, bool then_sync,
                                uint64_t token)
{
    CHECK(count > 0 && count <= DISK_VECTOR_MAX);
    struct lane *lane = thread_lane(disk, then_sync);
    struct job *job = lane_job(lane, JOB_WRITE, token);
    if (job->vector_capacity < count) {
        free(job->vector);
        job->vector = malloc(count * sizeof(*vector));
        CHECK(job->vector != NULL);
        job->vector_capacity = count;
    }
    for (uint32_t i = 0; i < count; i++) {
        job->vector[i] = vector[i];
        job->size += (uint32_t)vector[i].iov_len;
    }
    job->count = count;
    job->fd = file->fd;
    job->written = file;
    job->offset = offset;
    job->then_sync = then_sync;
    lane_push(lane);
}

static void thread_submit_sync(struct disk *disk, struct disk_file *file, uint64_t token)
{
    struct lane *lane = thread_lane(disk, false);
    lane_job(lane, JOB_SYNC, token)->fd = file->fd;
    lane_push(lane);
}

static void thread_submit_read(struct disk *disk, struct disk_file *file, uint64_t offset,
                               void *ret_data, uint32_t size, uint64_t token)
{
    struct lane *lane = thread_lane(disk, false);
    struct job *job = lane_job(lane, JOB_READ, token);
    job->fd = file->fd;
    job->offset = offset;
    job->data = ret_data;
    job->size = size;
    lane_push(lane);
}

static void thread_submit_create(struct disk *disk, const char *name, uint64_t size,
                                 struct disk_file **ret_file, uint64_t token)
{
    struct lane *lane = thread_lane(disk, false);
    struct job *job = lane_job(lane, JOB_CREATE, token);
    CHECK(strlen(name) < DISK_NAME_SIZE_MAX);
    memcpy(job->name, name, strlen(name) + 1);
    job->offset = size;
    job->ret_file = ret_file;
    lane_push(lane);
}

static void thread_submit_remove(struct disk *disk, const char *name, uint64_t token)
{
    struct lane *lane = thread_lane(disk, false);
    struct job *job = lane_job(lane, JOB_REMOVE, token);
    CHECK(strlen(name) < DISK_NAME_SIZE_MAX);
    memcpy(job->name, name, strlen(name) + 1);
    lane_push(lane);
}

static uint32_t thread_collect(struct lane *lane, struct disk_completion *ret_completions,
                               uint32_t max)
{
    uint32_t count = 0;
    uint32_t done = atomic_load_explicit(&lane->done, memory_order_acquire);
    while (count < max && lane->collected != done) {
        struct job *job = &lane->jobs[lane->collected++ % DISK_SUBMISSION_MAX];
        if (job->kind == JOB_CREATE && job->err == ERR_OK)
            *job->ret_file = job->file;
        lane->disk->outstanding--;
        ret_completions[count++] = (struct disk_completion){
            .token = job->token,
            .err = job->err,
            .size = job->err == ERR_OK ? job->size : 0,
        };
    }
    return count;
}

static bool lane_has_results(const struct lane *lane)
{
    return lane->collected != atomic_load_explicit(&lane->done, memory_order_relaxed);
}

static uint32_t thread_poll(struct disk *disk, struct disk_completion *ret_completions,
                            uint32_t max)
{
    struct disk_thread *self = thread_of(disk);
    if (!lane_has_results(&self->lanes[0]) && !lane_has_results(&self->lanes[1]))
        return 0;
    eventfd_t ignored;
    if (eventfd_read(self->eventfd, &ignored) != 0)
        CHECK(errno == EAGAIN || errno == EINTR);
    uint32_t count = 0;
    for (uint32_t i = 0; i < LANE_COUNT; i++)
        count += thread_collect(&self->lanes[i], ret_completions + count, max - count);
    return count;
}

static int thread_eventfd(struct disk *disk)
{
    return thread_of(disk)->eventfd;
}

static void lane_stop(struct lane *lane)
{
    lane_job(lane, JOB_STOP, 0);
    lane_push(lane);
    pthread_join(lane->thread, NULL);
    close(lane->wakeup);
    for (uint32_t i = 0; i < DISK_SUBMISSION_MAX; i++)
        free(lane->jobs[i].vector);
}

static void thread_free(struct disk *disk)
{
    struct disk_thread *self = thread_of(disk);
    CHECK(self->outstanding == 0);
    for (uint32_t i = 0; i < LANE_COUNT; i++)
        lane_stop(&self->lanes[i]);
    close(self->eventfd);
    disk_posix_fini(&self->posix);
    free(self);
}

static const struct disk_ops thread_ops = {
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
    .submit_write = thread_submit_write,
    .submit_sync = thread_submit_sync,
    .submit_read = thread_submit_read,
    .submit_create = thread_submit_create,
    .submit_remove = thread_submit_remove,
    .poll = thread_poll,
    .eventfd = thread_eventfd,
    .free = thread_free,
};

enum err disk_thread_new(const char *path, struct disk **ret_disk)
{
    struct disk_thread *self = calloc(1, sizeof(*self));
    CHECK(self != NULL);
    enum err err = disk_posix_init(&self->posix, path);
    if (err != ERR_OK) {
        free(self);
        return err;
    }
    self->posix.disk.ops = &thread_ops;
    /* Descriptors and threads are start-up resources: without them the process cannot serve. */
    self->eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    CHECK(self->eventfd >= 0);
    for (uint32_t i = 0; i < LANE_COUNT; i++) {
        struct lane *lane = &self->lanes[i];
        lane->disk = self;
        lane->wakeup = eventfd(0, EFD_CLOEXEC);
        CHECK(lane->wakeup >= 0);
        CHECK(pthread_create(&lane->thread, NULL, lane_main, lane) == 0);
    }
    *ret_disk = &self->posix.disk;
    return ERR_OK;
}

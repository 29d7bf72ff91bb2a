/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_DISK_H
#define QUEUE_DISK_H

#include <sys/uio.h>

#include "base/err.h"

/*
 * The storage seam. The spool knows the disk only through this header; behind it are
 *   disk_uring    io_uring (linked write + fdatasync), where the kernel allows it
 *   disk_thread   helper threads with pwritev + fdatasync
 *   disk_sim      the simulator's: keeps, drops, tears and reorders unsynced writes, fails any call
 * (tests/sim)
 *
 * Two kinds of calls. Blocking ones (open, allocate, sync, list, unlink, lock, read) are for
 * start-up, recovery and helper threads. Submissions (write, write + sync, sync, read, create,
 * remove) return at once and end in exactly one completion, in any order but for commits. At most
 * DISK_SUBMISSION_MAX may be outstanding.
 *
 * A commit is a write with then_sync. Commits to one file are carried out one after the other in
 * the order of their submission: the write of the next begins when the sync of the one before has
 * come to its end, and they complete in that order. After one that failed no other touches the
 * file: those that were submitted behind it fail likewise. So a second commit may wait here while
 * the first is under way, and what it writes still stands behind what is durable.
 *
 * A disk belongs to one thread: the one that submits and polls.
 */
#define DISK_SUBMISSION_MAX 256u
#define DISK_VECTOR_MAX     4096u /* pieces of one write */
#define DISK_NAME_SIZE_MAX  64u   /* of a file name with its NUL */

struct disk_file; /* opened file; owned by its disk */

struct disk_completion {
    uint64_t token; /* as submitted */
    enum err err;   /* ERR_OK, ERR_DISK_IO, ERR_DISK_FULL */
    uint32_t size;  /* octets done; a short write is reported as ERR_DISK_IO */
};

enum disk_open_flags {
    DISK_OPEN_CREATE = 1, /* must not exist */
    DISK_OPEN_READ_ONLY = 2,
};

struct disk;
struct disk_ops {
    enum err (*open)(struct disk *disk, const char *name, uint32_t flags,
                     struct disk_file **ret_file);
    void (*close)(struct disk *disk, struct disk_file *file);
    enum err (*file_size)(struct disk *disk, struct disk_file *file, uint64_t *ret_size);
    enum err (*allocate)(struct disk *disk, struct disk_file *file, uint64_t size);
    enum err (*sync)(struct disk *disk, struct disk_file *file);
    enum err (*read)(struct disk *disk, struct disk_file *file, uint64_t offset, void *ret_data,
                     uint32_t size, uint32_t *ret_size);
    enum err (*lock)(struct disk *disk, struct disk_file *file);
    enum err (*unlink)(struct disk *disk, const char *name);
    enum err (*sync_directory)(struct disk *disk);
    enum err (*list)(struct disk *disk, void (*on_name)(void *context, const char *name),
                     void *context);
    enum err (*space)(struct disk *disk, uint64_t *ret_free, uint64_t *ret_total);
    void (*submit_write)(struct disk *disk, struct disk_file *file, uint64_t offset,
                         const struct iovec *vector, uint32_t count, bool then_sync,
                         uint64_t token);
    void (*submit_sync)(struct disk *disk, struct disk_file *file, uint64_t token);
    void (*submit_read)(struct disk *disk, struct disk_file *file, uint64_t offset, void *ret_data,
                        uint32_t size, uint64_t token);
    void (*submit_create)(struct disk *disk, const char *name, uint64_t size,
                          struct disk_file **ret_file, uint64_t token);
    void (*submit_remove)(struct disk *disk, const char *name, uint64_t token);
    uint32_t (*poll)(struct disk *disk, struct disk_completion *ret_completions, uint32_t max);
    int (*eventfd)(struct disk *disk);
    void (*free)(struct disk *disk);
};

struct disk {
    const struct disk_ops *ops;
};

/** Open, or create with DISK_OPEN_CREATE, a file of the spool directory by name (no '/'). Blocking.
 */
static inline enum err disk_open(struct disk *disk, const char *name, uint32_t flags,
                                 struct disk_file **ret_file)
{
    return disk->ops->open(disk, name, flags, ret_file);
}
/** Close; no submission may be outstanding on it. */
static inline void disk_close(struct disk *disk, struct disk_file *file)
{
    disk->ops->close(disk, file);
}
static inline enum err disk_file_size(struct disk *disk, struct disk_file *file, uint64_t *ret_size)
{
    return disk->ops->file_size(disk, file, ret_size);
}
/** fallocate to `size`, then fsync of file. Blocking. Errors: ERR_DISK_FULL, ERR_DISK_IO. */
static inline enum err disk_allocate(struct disk *disk, struct disk_file *file, uint64_t size)
{
    return disk->ops->allocate(disk, file, size);
}
/** fdatasync: all that was written before, by whomever. Blocking. */
static inline enum err disk_sync(struct disk *disk, struct disk_file *file)
{
    return disk->ops->sync(disk, file);
}
/** Blocking read; a read beyond the end gives fewer octets, not an error. */
static inline enum err disk_read(struct disk *disk, struct disk_file *file, uint64_t offset,
                                 void *ret_data, uint32_t size, uint32_t *ret_size)
{
    return disk->ops->read(disk, file, offset, ret_data, size, ret_size);
}
/** Exclusive lock for as long as the file is open by this process (OFD lock). Errors:
 * ERR_DISK_LOCKED. */
static inline enum err disk_lock(struct disk *disk, struct disk_file *file)
{
    return disk->ops->lock(disk, file);
}
static inline enum err disk_unlink(struct disk *disk, const char *name)
{
    return disk->ops->unlink(disk, name);
}
static inline enum err disk_sync_directory(struct disk *disk)
{
    return disk->ops->sync_directory(disk);
}
static inline enum err disk_list(struct disk *disk,
                                 void (*on_name)(void *context, const char *name), void *context)
{
    return disk->ops->list(disk, on_name, context);
}
/** Free octets for us and total octets of the file system. */
static inline enum err disk_space(struct disk *disk, uint64_t *ret_free, uint64_t *ret_total)
{
    return disk->ops->space(disk, ret_free, ret_total);
}
/**
 * Write at offset, and with then_sync fdatasync after it; one completion for both.
 *
 * Ownership: vector is copied, the octets it points to stay untouched until the completion.
 */
static inline void disk_submit_write(struct disk *disk, struct disk_file *file, uint64_t offset,
                                     const struct iovec *vector, uint32_t count, bool then_sync,
                                     uint64_t token)
{
    disk->ops->submit_write(disk, file, offset, vector, count, then_sync, token);
}
static inline void disk_submit_sync(struct disk *disk, struct disk_file *file, uint64_t token)
{
    disk->ops->submit_sync(disk, file, token);
}
static inline void disk_submit_read(struct disk *disk, struct disk_file *file, uint64_t offset,
                                    void *ret_data, uint32_t size, uint64_t token)
{
    disk->ops->submit_read(disk, file, offset, ret_data, size, token);
}
/**
 * Create `name` (must not exist), lock it, give it `size` octets of zeros, sync it and its
 * directory entry: what open, lock, allocate and sync_directory do, without blocking.
 *
 * Ownership: name is copied; *ret_file is written before the completion and only when it says
 * ERR_OK. Errors: ERR_DISK_FULL, ERR_DISK_LOCKED, ERR_DISK_IO (also when the name exists); a half
 * made file may be left behind, without content.
 */
static inline void disk_submit_create(struct disk *disk, const char *name, uint64_t size,
                                      struct disk_file **ret_file, uint64_t token)
{
    disk->ops->submit_create(disk, name, size, ret_file, token);
}
/** Unlink without blocking. Not durable: the name may be back after a crash. */
static inline void disk_submit_remove(struct disk *disk, const char *name, uint64_t token)
{
    disk->ops->submit_remove(disk, name, token);
}
/** Completions so far, at most max. Never blocks. */
static inline uint32_t disk_poll(struct disk *disk, struct disk_completion *ret_completions,
                                 uint32_t max)
{
    return disk->ops->poll(disk, ret_completions, max);
}
/** Becomes readable when completions wait (-1: the implementation needs none). */
static inline int disk_eventfd(struct disk *disk)
{
    return disk->ops->eventfd(disk);
}

/** A real disk on directory `path`. AUTO is the better one by measurement: see disk.c. Errors:
 * ERR_SYSTEM when the directory cannot be opened or the kernel denies io_uring. */
enum disk_kind { DISK_KIND_AUTO, DISK_KIND_URING, DISK_KIND_THREAD };
enum err disk_new(const char *path, enum disk_kind kind, struct disk **ret_disk) MUST_CHECK;
/** All submissions completed, all files closed. */
static inline void disk_free(struct disk *disk)
{
    disk->ops->free(disk);
}

#endif

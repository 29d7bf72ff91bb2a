/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_DISK_POSIX_H
#define QUEUE_DISK_POSIX_H

#include "queue/disk.h"

/* The blocking calls of disk.h on a real directory, shared by the two real disks. */
struct disk_file {
    int fd;
    bool has_failed; /* a commit did; of whoever carries commits out */
};

#define DISK_IOV_MAX 1024u /* pieces that the kernel takes at a time */

struct disk_posix {
    struct disk disk;
    int directory; /* fd of the spool directory */
};

/** Open the directory. Errors: ERR_SYSTEM. */
enum err disk_posix_init(struct disk_posix *self, const char *path) MUST_CHECK;
void disk_posix_fini(struct disk_posix *self);

enum err disk_posix_open(struct disk *disk, const char *name, uint32_t flags,
                         struct disk_file **ret_file);
void disk_posix_close(struct disk *disk, struct disk_file *file);
enum err disk_posix_file_size(struct disk *disk, struct disk_file *file, uint64_t *ret_size);
enum err disk_posix_allocate(struct disk *disk, struct disk_file *file, uint64_t size);
enum err disk_posix_sync(struct disk *disk, struct disk_file *file);
enum err disk_posix_read(struct disk *disk, struct disk_file *file, uint64_t offset, void *ret_data,
                         uint32_t size, uint32_t *ret_size);
enum err disk_posix_lock(struct disk *disk, struct disk_file *file);
enum err disk_posix_unlink(struct disk *disk, const char *name);
enum err disk_posix_sync_directory(struct disk *disk);
enum err disk_posix_list(struct disk *disk, void (*on_name)(void *context, const char *name),
                         void *context);
enum err disk_posix_space(struct disk *disk, uint64_t *ret_free, uint64_t *ret_total);

/** The error of a failed call: `error` is an errno value, not 0. */
enum err disk_posix_err(int error);
struct disk_file *disk_posix_file_new(int fd);

/** The two implementations; disk_new() chooses. */
enum err disk_uring_new(const char *path, struct disk **ret_disk) MUST_CHECK;
enum err disk_thread_new(const char *path, struct disk **ret_disk) MUST_CHECK;

#endif

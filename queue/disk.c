/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which disk, and the blocking calls that both real disks share.
 *
 * AUTO takes the helper threads. Measured side by side (Linux 6.18 guest, ext4, pre-written file,
 * write + fdatasync of one batch, shard asleep in between):
 *
 *                       helper threads      io_uring
 *   12 KB a batch       105 - 143 us        145 - 157 us
 *   128 KB              161 - 227 us        178 - 187 us
 *   1,000 KB            329 - 395 us        332 - 384 us
 *   submission, shard   1 - 10 us           4 - 11 us       (waking the other side, in both)
 *
 * Buffered writes and fdatasync go to kernel workers under io_uring anyway, so the same hand-over
 * is paid there, with more around it. io_uring reads in parallel, the helper one at a time.
 *
 * Invariants
 *   1. Names never contain '/' and never leave the spool directory: every call goes through its fd.
 *   2. Locks are OFD locks: they belong to the opened file, so that two disks of one process
 *      exclude each other as two processes do, and they vanish with the process.
 *   3. EINTR is retried; ENOSPC and EDQUOT are ERR_DISK_FULL; everything else is ERR_DISK_IO.
 *
 * Not here: submissions (disk_uring.c, disk_thread.c).
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "queue/disk_posix.h"

enum err disk_new(const char *path, enum disk_kind kind, struct disk **ret_disk)
{
    CHECK(path != NULL && ret_disk != NULL);
    return kind == DISK_KIND_URING ? disk_uring_new(path, ret_disk)
                                   : disk_thread_new(path, ret_disk);
}

enum err disk_posix_err(int error)
{
    CHECK(error != 0);
    switch (error) {
    case ENOSPC:
    case EDQUOT:
        return ERR_DISK_FULL;
    case ENOENT:
        return ERR_NOT_FOUND;
    default:
        return ERR_DISK_IO;
    }
}

static struct disk_posix *posix_of(struct disk *disk)
{
    return (struct disk_posix *)disk;
}

enum err disk_posix_init(struct disk_posix *self, const char *path)
{
    self->directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return self->directory < 0 ? ERR_SYSTEM : ERR_OK;
}

void disk_posix_fini(struct disk_posix *self)
{
    close(self->directory);
}

struct disk_file *disk_posix_file_new(int fd)
{
    struct disk_file *file = calloc(1, sizeof(*file));
    CHECK(file != NULL);
    file->fd = fd;
    return file;
}

/* What is no file is not opened: a pipe by that name would be waited for. */
static bool is_something_else(struct disk *disk, const char *name)
{
    struct stat status;
    return fstatat(posix_of(disk)->directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
           !S_ISREG(status.st_mode);
}

enum err disk_posix_open(struct disk *disk, const char *name, uint32_t flags,
                         struct disk_file **ret_file)
{
    CHECK(strchr(name, '/') == NULL && strlen(name) < DISK_NAME_SIZE_MAX);
    int mode = flags & DISK_OPEN_READ_ONLY ? O_RDONLY : O_RDWR;
    if (!(flags & DISK_OPEN_CREATE) && is_something_else(disk, name))
        return ERR_DISK_IO;
    if (flags & DISK_OPEN_CREATE)
        mode |= O_CREAT | O_EXCL;
    int fd = openat(posix_of(disk)->directory, name, mode | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return disk_posix_err(errno);
    *ret_file = disk_posix_file_new(fd);
    return ERR_OK;
}

void disk_posix_close(struct disk *disk, struct disk_file *file)
{
    (void)disk;
    close(file->fd);
    free(file);
}

enum err disk_posix_file_size(struct disk *disk, struct disk_file *file, uint64_t *ret_size)
{
    (void)disk;
    struct stat status;
    if (fstat(file->fd, &status) != 0)
        return disk_posix_err(errno);
    *ret_size = (uint64_t)status.st_size;
    return ERR_OK;
}

enum err disk_posix_allocate(struct disk *disk, struct disk_file *file, uint64_t size)
{
    (void)disk;
    int error = posix_fallocate(file->fd, 0, (off_t)size);
    if (error != 0)
        return disk_posix_err(error);
    return fsync(file->fd) == 0 ? ERR_OK : disk_posix_err(errno);
}

enum err disk_posix_sync(struct disk *disk, struct disk_file *file)
{
    (void)disk;
    return fdatasync(file->fd) == 0 ? ERR_OK : disk_posix_err(errno);
}

enum err disk_posix_read(struct disk *disk, struct disk_file *file, uint64_t offset, void *ret_data,
                         uint32_t size, uint32_t *ret_size)
{
    (void)disk;
    uint32_t done = 0;
    while (done < size) {
        ssize_t got =
            pread(file->fd, (uint8_t *)ret_data + done, size - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return disk_posix_err(errno);
        if (got == 0)
            break;
        done += (uint32_t)got;
    }
    *ret_size = done;
    return ERR_OK;
}

enum err disk_posix_lock(struct disk *disk, struct disk_file *file)
{
    (void)disk;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(file->fd, F_OFD_SETLK, &lock) == 0)
        return ERR_OK;
    return errno == EAGAIN || errno == EACCES ? ERR_DISK_LOCKED : disk_posix_err(errno);
}

enum err disk_posix_unlink(struct disk *disk, const char *name)
{
    CHECK(strchr(name, '/') == NULL);
    return unlinkat(posix_of(disk)->directory, name, 0) == 0 ? ERR_OK : disk_posix_err(errno);
}

enum err disk_posix_sync_directory(struct disk *disk)
{
    return fsync(posix_of(disk)->directory) == 0 ? ERR_OK : disk_posix_err(errno);
}

enum err disk_posix_list(struct disk *disk, void (*on_name)(void *context, const char *name),
                         void *context)
{
    /* A new open file description: the position of posix->directory is nobody's business. */
    int fd = openat(posix_of(disk)->directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return disk_posix_err(errno);
    DIR *directory = fdopendir(fd);
    if (directory == NULL) {
        close(fd);
        return ERR_DISK_IO;
    }
    errno = 0;
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        if (entry->d_name[0] != '.')
            on_name(context, entry->d_name);
        errno = 0;
    }
    enum err err = errno == 0 ? ERR_OK : ERR_DISK_IO;
    closedir(directory);
    return err;
}

enum err disk_posix_space(struct disk *disk, uint64_t *ret_free, uint64_t *ret_total)
{
    struct statvfs status;
    if (fstatvfs(posix_of(disk)->directory, &status) != 0)
        return disk_posix_err(errno);
    *ret_free = (uint64_t)status.f_bavail * status.f_frsize;
    *ret_total = (uint64_t)status.f_blocks * status.f_frsize;
    return ERR_OK;
}

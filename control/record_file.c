/* SPDX-License-Identifier: Apache-2.0 */
#include "control/record_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"

#define PATH_SIZE (4096u + 16u)

/* All octets, or false with errno; *ret_done octets were written. */
static bool write_all(int fd, const char *octets, uint32_t size, uint32_t *ret_done)
{
    *ret_done = 0;
    while (*ret_done < size) {
        ssize_t got = write(fd, octets + *ret_done, size - *ret_done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return false;
        *ret_done += (uint32_t)got;
    }
    return true;
}

/* The first complaint of a kind is told, the rest is counted. */
static void complain(struct record_file *file, const char *what)
{
    if (file->failures++ == 0)
        log_line(LOG_ERROR, "records file=%s error=\"%s\": %s", file->options.path, strerror(errno),
                 what);
}

/* Did whoever wrote it last end in the middle of a line? */
static bool file_is_torn(const char *path, off_t size)
{
    char last = '\n';
    int fd = size > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;

    if (fd < 0)
        return false;
    bool is_torn = pread(fd, &last, 1, size - 1) == 1 && last != '\n';
    close(fd);
    return is_torn;
}

/* False: the first line is due, and could not be written; as on a full disk. */
static bool head_write(struct record_file *file)
{
    uint32_t done;

    if (!file->is_headless)
        return true;
    bool is_whole =
        write_all(file->fd, file->options.head, (uint32_t)strlen(file->options.head), &done);
    file->file_size += done;
    file->is_headless = done == 0;
    file->is_torn = file->is_torn || (!is_whole && done > 0 && file->options.whole == NULL);
    return is_whole;
}

/* Open, and begin it when it is empty. False with errno. */
static bool file_begin(struct record_file *file)
{
    struct stat status = {0};
    int fd = open(file->options.path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);

    if (fd < 0)
        return false;
    if (file->fd >= 0)
        close(file->fd);
    file->fd = fd;
    file->began = file->sync_since = 0;
    file->is_regular = fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
    file->file_size = file->is_regular ? (uint64_t)status.st_size : 0;
    file->is_torn = file->is_regular && file->options.whole == NULL &&
                    file_is_torn(file->options.path, status.st_size);
    file->is_headless = file->file_size == 0 && file->options.head[0] != '\0';
    if (!head_write(file))
        complain(file, "it has no first line");
    return true;
}

enum err record_file_open(struct record_file *file, const struct record_file_options *options)
{
    *file = (struct record_file){.options = *options, .fd = -1};
    file->lines = malloc(RECORD_FILE_BUFFER_SIZE);
    CHECK(file->lines != NULL);
    if (file_begin(file))
        return ERR_OK;
    int error = errno;
    free(file->lines);
    file->lines = NULL;
    errno = error;
    return ERR_SYSTEM;
}

static void file_sync(struct record_file *file)
{
    if (file->sync_since != 0 && fdatasync(file->fd) != 0 && errno != EINVAL)
        complain(file, "what was written may not be on the disk");
    file->sync_since = 0;
}

static const char *old_name(const struct record_file *file, uint32_t number, char name[PATH_SIZE])
{
    (void)snprintf(name, PATH_SIZE, "%s.%u", file->options.path, number);
    return name;
}

/* NAME becomes NAME.1 and so on, the oldest first, up to a number that is free. So a turn that ends
 * in the middle pushes nothing out when it is tried again, however often. */
static bool file_move(const struct record_file *file)
{
    char from[PATH_SIZE], to[PATH_SIZE];
    uint32_t last = 1, keep = file->options.keep;

    if (access(file->options.path, F_OK) != 0 && errno == ENOENT)
        return true; /* it was, but a new one could not be opened; or another has moved it */
    if (keep == 0)
        return unlink(file->options.path) == 0;
    while (last < keep && access(old_name(file, last, to), F_OK) == 0)
        last++;
    for (uint32_t i = last; i > 1; i--)
        (void)rename(old_name(file, i - 1, from), old_name(file, i, to));
    return rename(file->options.path, old_name(file, 1, to)) == 0;
}

/* What cannot be renamed is kept, and grows. */
static void file_turn(struct record_file *file)
{
    file_sync(file);
    if (!file_move(file) || !file_begin(file))
        complain(file, "it could not be turned over");
    file->began = 0; /* what could not be moved is tried again with the next lines */
}

/* Octets of the whole lines among the first `size`; how many there are. */
static uint32_t lines_whole(const char *lines, uint32_t size, uint32_t *ret_count)
{
    uint32_t whole = 0;

    *ret_count = 0;
    for (uint32_t i = 0; i < size; i++) {
        if (lines[i] != '\n')
            continue;
        whole = i + 1;
        *ret_count += 1;
    }
    return whole;
}

/* So many octets were written, which may be all. What is left stays, or is lost. */
static void lines_written(struct record_file *file, uint32_t done)
{
    uint32_t count = file->count, whole = file->size;

    if (done < file->size)
        whole = (file->options.whole != NULL ? file->options.whole : lines_whole)(file->lines, done,
                                                                                  &count);
    uint32_t left = file->size - whole;

    file->written += count;
    file->count -= count;
    file->is_torn = file->is_torn || (whole < done && file->options.whole == NULL);
    file->is_stuck = file->options.must_keep && left > 0;
    if (left > 0)
        complain(file, file->is_stuck ? "records wait" : "records are being dropped");
    if (file->is_stuck) { /* a torn line is written once more, whole */
        memmove(file->lines, file->lines + whole, left);
        file->size = left;
        return;
    }
    file->lost += file->count;
    file->size = file->count = 0;
}

static void lines_write(struct record_file *file, tick_us now)
{
    uint32_t done = 0, end;

    if (file->size == 0)
        return;
    if (file->is_torn && write_all(file->fd, "\n", 1, &end))
        file->is_torn = false;
    if (!file->is_torn && head_write(file))
        (void)write_all(file->fd, file->lines, file->size, &done);
    file->file_size += done;
    if (file->began == 0)
        file->began = now;
    if (file->sync_since == 0 && file->options.sync_time > 0 && done > 0)
        file->sync_since = now;
    lines_written(file, done);
}

static bool may_turn(const struct record_file *file)
{
    return file->options.turning == NULL ||
           atomic_load(file->options.turning) != RECORD_TURNING_NOT;
}

/* Who forbids it afterwards finds it ended. */
static void file_turn_unless_forbidden(struct record_file *file)
{
    uint32_t expected = RECORD_TURNING_FREE;

    if (file->options.turning != NULL &&
        !atomic_compare_exchange_strong(file->options.turning, &expected, RECORD_TURNING_NOW))
        return;
    file_turn(file);
    if (file->options.turning != NULL)
        atomic_store(file->options.turning, RECORD_TURNING_FREE);
}

static bool is_turn_due(const struct record_file *file, tick_us now)
{
    if (!file->is_regular || file->began == 0)
        return false; /* an empty file is not turned over */
    if (file->options.rotate_size > 0 && file->file_size >= file->options.rotate_size)
        return true;
    return file->options.rotate_time > 0 && now >= file->began + file->options.rotate_time;
}

void record_file_flush(struct record_file *file, tick_us now)
{
    lines_write(file, now);
    if (file->sync_since != 0 && now >= file->sync_since + file->options.sync_time)
        file_sync(file);
    if (is_turn_due(file, now))
        file_turn_unless_forbidden(file);
}

void record_file_sync(struct record_file *file, tick_us now)
{
    lines_write(file, now);
    file_sync(file);
}

bool record_file_is_kept(const struct record_file *file)
{
    return file->size == 0 && file->sync_since == 0;
}

tick_us record_file_deadline(const struct record_file *file)
{
    tick_us deadline = TICK_NEVER;

    if (file->sync_since != 0)
        deadline = file->sync_since + file->options.sync_time;
    if (file->options.rotate_time > 0 && file->is_regular && file->began != 0 && may_turn(file) &&
        file->began + file->options.rotate_time < deadline)
        deadline = file->began + file->options.rotate_time;
    return deadline;
}

char *record_file_room(struct record_file *file, uint32_t size_max, tick_us now)
{
    CHECK(size_max <= RECORD_FILE_BUFFER_SIZE);
    if (RECORD_FILE_BUFFER_SIZE - file->size < size_max)
        record_file_flush(file, now);
    return RECORD_FILE_BUFFER_SIZE - file->size < size_max ? NULL : file->lines + file->size;
}

void record_file_take(struct record_file *file, uint32_t size)
{
    file->size += size;
    file->count++;
}

void record_file_reopen(struct record_file *file, tick_us now)
{
    record_file_flush(file, now);
    file_sync(file);
    if (!file_begin(file))
        complain(file, "the old file is kept");
}

void record_file_close(struct record_file *file)
{
    const struct tick_source *clock = tick_source_system();

    lines_write(file, clock->monotonic(clock->context));
    file_sync(file);
    close(file->fd);
    free(file->lines);
}

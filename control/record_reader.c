/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which file comes next. Ours is found by inode among NAME, NAME.1, NAME.2 ...; the one with the
 * number before it is next. One that is not among them was renamed by another, and NAME is next; or
 * it is gone, and the oldest is next.
 *
 * A file is left only when there is another behind it in which something is, and nothing new was
 * read from it after that was seen: whoever writes has let go of it then. The rest of a line that
 * is never finished is passed over with it.
 *
 * In binary a record says itself where it ends, and is known by its checksum; what makes none, as
 * behind a write that was cut short, is passed over octet by octet.
 *
 * Limits: NUMBER_MAX files, as records.keep; a line longer than the buffer is passed over.
 */
#include "control/record_reader.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "control/record_raw.h"

#define PATH_SIZE  4200u
#define NUMBER_MAX 10000u
#define TRIES_MAX  3u

static const char *name_of(const struct record_reader *reader, uint32_t number,
                           char name[PATH_SIZE])
{
    (void)snprintf(name, PATH_SIZE, number == 0 ? "%s" : "%s.%u", reader->path, number);
    return name;
}

/* Who the file is, and its size. False: there is none. */
static bool file_look(int folder, const char *name, struct record_place *ret_place,
                      uint64_t *ret_size)
{
    struct statx status;

    if (statx(folder, name, *name == '\0' ? AT_EMPTY_PATH : 0,
              STATX_INO | STATX_SIZE | STATX_BTIME | STATX_TYPE, &status) != 0 ||
        !S_ISREG(status.stx_mode))
        return false;
    *ret_place = (struct record_place){.inode = status.stx_ino};
    if ((status.stx_mask & STATX_BTIME) != 0)
        ret_place->birth =
            (uint64_t)status.stx_btime.tv_sec * 1000000000u + status.stx_btime.tv_nsec;
    *ret_size = status.stx_size;
    return true;
}

static bool is_same(const struct record_place *a, const struct record_place *b)
{
    return a->inode == b->inode && a->birth == b->birth;
}

static bool number_is(const struct record_reader *reader, uint32_t number,
                      const struct record_place *place)
{
    char name[PATH_SIZE];
    struct record_place found;
    uint64_t size;

    return file_look(AT_FDCWD, name_of(reader, number, name), &found, &size) &&
           is_same(&found, place);
}

/* The file becomes the one that is read, from `offset` on. */
static bool file_take(struct record_reader *reader, const char *name, uint64_t offset)
{
    struct record_place place;
    uint64_t size;
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return false;
    if (!file_look(fd, "", &place, &size)) {
        close(fd);
        return false;
    }
    if (reader->fd >= 0)
        close(reader->fd);
    reader->fd = fd;
    reader->place = place;
    reader->place.offset = offset < size ? offset : size; /* a power loss may have cut it */
    reader->at = reader->size = 0;
    return true;
}

/* The highest number that there is; one that is missing ends them, but NAME may be just missing. */
static uint32_t number_oldest(const struct record_reader *reader)
{
    char name[PATH_SIZE];
    uint32_t number = 0;

    while (number < NUMBER_MAX && access(name_of(reader, number + 1, name), R_OK) == 0)
        number++;
    return number;
}

static bool oldest_take(struct record_reader *reader)
{
    char name[PATH_SIZE];

    return file_take(reader, name_of(reader, number_oldest(reader), name), 0);
}

/* The file of a place, whatever it is called now. */
static bool place_take(struct record_reader *reader, const struct record_place *place)
{
    char folder[PATH_SIZE], name[PATH_SIZE];
    const char *slash = strrchr(reader->path, '/');
    const char *base = slash == NULL ? reader->path : slash + 1;
    bool is_found = false;

    (void)snprintf(folder, sizeof(folder), "%.*s", (int)(base - reader->path), reader->path);
    DIR *directory = opendir(*folder == '\0' ? "." : folder);
    if (directory == NULL)
        return false;
    for (struct dirent *entry; !is_found && (entry = readdir(directory)) != NULL;) {
        struct record_place found;
        uint64_t size;
        if (strncmp(entry->d_name, base, strlen(base)) != 0 ||
            snprintf(name, sizeof(name), "%s%s", folder, entry->d_name) >= (int)sizeof(name))
            continue;
        is_found = file_look(AT_FDCWD, name, &found, &size) && is_same(&found, place) &&
                   file_take(reader, name, place->offset) && is_same(&reader->place, place);
    }
    closedir(directory);
    return is_found;
}

void record_reader_open(struct record_reader *reader, const char *path,
                        enum record_reader_from from, const struct record_place *place)
{
    *reader = (struct record_reader){.path = path, .fd = -1};
    reader->buffer = malloc(RECORD_READER_BUFFER);
    CHECK(reader->buffer != NULL);
    if (from == RECORD_READER_END)
        (void)file_take(reader, path, UINT64_MAX);
    else if (from == RECORD_READER_OLDEST)
        (void)oldest_take(reader);
    else if (!place_take(reader, place)) {
        reader->gaps++;
        (void)oldest_take(reader);
    }
}

void record_reader_close(struct record_reader *reader)
{
    if (reader->fd >= 0)
        close(reader->fd);
    free(reader->buffer);
}

/* ---- to the next file ---- */

/* Number of the file behind ours. False: ours is the last one. */
static bool successor_find(const struct record_reader *reader, uint32_t *ret_number)
{
    uint32_t oldest = number_oldest(reader);
    struct stat status;

    for (uint32_t number = 0; number <= oldest; number++) {
        if (!number_is(reader, number, &reader->place))
            continue;
        *ret_number = number - 1;
        return number > 0;
    }
    bool is_gone = fstat(reader->fd, &status) == 0 && status.st_nlink == 0;
    *ret_number = is_gone ? oldest : 0;
    return true;
}

/* Is there a line behind ours in another file? Then no more comes to ours. */
static bool successor_has_begun(const struct record_reader *reader, uint32_t *ret_number)
{
    char name[PATH_SIZE];
    struct record_place found;
    uint64_t size;

    return successor_find(reader, ret_number) &&
           file_look(AT_FDCWD, name_of(reader, *ret_number, name), &found, &size) && size > 0;
}

static ssize_t buffer_fill(struct record_reader *reader)
{
    if (reader->at > 0) {
        memmove(reader->buffer, reader->buffer + reader->at, reader->size - reader->at);
        reader->size -= reader->at;
        reader->at = 0;
    }
    if (reader->size == RECORD_READER_BUFFER) { /* no line of ours is so long */
        reader->place.offset += reader->size;
        reader->passed += reader->size;
        reader->size = 0;
    }
    ssize_t got =
        pread(reader->fd, reader->buffer + reader->size, RECORD_READER_BUFFER - reader->size,
              (off_t)(reader->place.offset + reader->size));
    if (got > 0)
        reader->size += (uint32_t)got;
    return got;
}

/* More to read: of this file, or of the next. False: there is none now. */
static bool reader_go_on(struct record_reader *reader)
{
    char name[PATH_SIZE];
    uint32_t number;

    if (buffer_fill(reader) > 0)
        return true;
    for (uint32_t i = 0; i < TRIES_MAX; i++) {
        struct record_place ours = reader->place;
        if (!successor_has_begun(reader, &number))
            return false;
        if (buffer_fill(reader) > 0)
            return true;
        bool had_number = number_is(reader, number + 1, &ours);
        struct record_reader old = *reader;
        reader->fd = -1;
        bool is_taken = file_take(reader, name_of(reader, number, name), 0);
        /* Was another turned over between the two looks? */
        if (is_taken && !is_same(&reader->place, &ours) &&
            had_number == number_is(reader, number + 1, &ours)) {
            close(old.fd);
            return true;
        }
        if (is_taken)
            close(reader->fd);
        *reader = old;
    }
    return false;
}

/* Who wants to look at the clock now and then is let go. */
static bool is_cut(struct record_reader *reader, uint64_t passed_before)
{
    reader->is_cut = reader->pass_max > 0 && reader->passed - passed_before >= reader->pass_max;
    return reader->is_cut;
}

bool record_reader_next(struct record_reader *reader, struct span *ret_line)
{
    uint64_t passed = reader->passed;

    reader->is_cut = false;
    if (reader->fd < 0 && !oldest_take(reader))
        return false;
    while (!is_cut(reader, passed)) {
        char *line = reader->buffer + reader->at;
        char *end = memchr(line, '\n', reader->size - reader->at);
        if (end != NULL) {
            uint32_t size = (uint32_t)(end - line);
            *ret_line = span_of(line, size);
            reader->at += size + 1;
            reader->place.offset += size + 1;
            return true;
        }
        if (!reader_go_on(reader))
            return false;
    }
    return false;
}

/* ---- in binary ---- */

static void raw_pass(struct record_reader *reader, uint32_t size, bool is_record)
{
    reader->at += size;
    reader->place.offset += size;
    reader->passed += is_record ? 0 : size;
}

static bool raw_is_head(const struct record_reader *reader)
{
    return reader->place.offset == 0 && reader->size - reader->at >= RECORD_RAW_HEAD_SIZE &&
           memcmp(reader->buffer + reader->at, record_raw_head, RECORD_RAW_HEAD_SIZE) == 0;
}

/* The next record in the buffer. One that may still be finished is waited for, unless there is
 * another behind it, which is looked for when nothing more comes now. */
static bool raw_find(struct record_reader *reader, bool is_all, struct record *ret_record)
{
    uint32_t size, at;

    if (raw_is_head(reader))
        raw_pass(reader, RECORD_RAW_HEAD_SIZE, true);
    for (at = reader->at; at < reader->size; at++) {
        enum err err =
            record_raw_decode(span_of(reader->buffer + at, reader->size - at), ret_record, &size);
        if (err == ERR_OK) {
            raw_pass(reader, at - reader->at, false);
            raw_pass(reader, size, true);
            return true;
        }
        if (err == ERR_AGAIN && !is_all)
            break;
    }
    if (!is_all)
        raw_pass(reader, at - reader->at, false);
    return false;
}

bool record_reader_next_raw(struct record_reader *reader, struct record *ret_record)
{
    uint64_t passed = reader->passed;

    reader->is_cut = false;
    if (reader->fd < 0 && !oldest_take(reader))
        return false;
    while (!is_cut(reader, passed)) {
        if (raw_find(reader, false, ret_record))
            return true;
        if (buffer_fill(reader) > 0)
            continue;
        if (raw_find(reader, true, ret_record))
            return true;
        if (!reader_go_on(reader))
            return false;
    }
    return false;
}

void record_reader_rewind(struct record_reader *reader, uint64_t offset)
{
    reader->place.offset = offset;
    reader->at = reader->size = 0;
}

uint64_t record_reader_waiting(const struct record_reader *reader)
{
    char name[PATH_SIZE];
    struct record_place found;
    uint64_t size, waiting = 0;
    uint32_t number = 0;
    bool is_found = false;

    if (reader->fd < 0)
        return 0;
    for (; !is_found && number < NUMBER_MAX; number++) {
        if (!file_look(AT_FDCWD, name_of(reader, number, name), &found, &size)) {
            if (number > 0)
                break;
            continue;
        }
        is_found = is_same(&found, &reader->place);
        waiting += is_found ? 0 : size;
    }
    if (!file_look(reader->fd, "", &found, &size))
        return waiting;
    return waiting + (size > reader->place.offset ? size - reader->place.offset : 0);
}

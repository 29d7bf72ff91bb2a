/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of rows that are kept over a restart.
 *
 *   the magic, filled up with zeros to 24 octets
 *   u32 count, u32 crc32c of the rows
 *   count rows, as this machine stores them
 *
 * Written beside it, synced, renamed.
 *
 * Invariant: a file is taken whole or not at all: magic, count, size and checksum must agree.
 */
#include "control/kept_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "queue/crc32c.h"

#define PATH_SIZE 4200u

struct kept_header {
    char magic[24];
    uint32_t count, checksum;
};
_Static_assert(sizeof(struct kept_header) == 32, "the file has no holes");

static void header_set_magic(struct kept_header *header, const struct kept_form *form)
{
    CHECK(strlen(form->magic) < sizeof(header->magic));
    memcpy(header->magic, form->magic, strlen(form->magic));
}

static uint32_t rows_checksum(const void *rows, size_t octets)
{
    return crc32c_update(0, span_of(rows, (uint32_t)octets));
}

bool kept_octets_write(int fd, const void *octets, size_t size)
{
    const uint8_t *from = octets;

    while (size > 0) {
        ssize_t written = write(fd, from, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        from += written;
        size -= (size_t)written;
    }
    return true;
}

bool kept_file_write(const char *directory, const struct kept_form *form, const void *rows,
                     uint32_t count)
{
    char path[PATH_SIZE], beside[PATH_SIZE];
    size_t octets = (size_t)count * form->row_size;
    struct kept_header header = {.count = count, .checksum = rows_checksum(rows, octets)};

    CHECK(count <= form->count_max);
    header_set_magic(&header, form);
    (void)snprintf(path, sizeof(path), "%s/%s", directory, form->name);
    (void)snprintf(beside, sizeof(beside), "%s/%s.new", directory, form->name);
    int fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (fd < 0)
        return false;
    bool is_written = kept_octets_write(fd, &header, sizeof(header)) &&
                      kept_octets_write(fd, rows, octets) && fdatasync(fd) == 0;
    return close(fd) == 0 && is_written && rename(beside, path) == 0;
}

/* NULL: damaged. */
static void *file_take(int fd, const struct kept_form *form, uint32_t *ret_count)
{
    struct kept_header header, expected = {0};
    struct stat status;

    header_set_magic(&expected, form);
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) ||
        read(fd, &header, sizeof(header)) != (ssize_t)sizeof(header) ||
        memcmp(header.magic, expected.magic, sizeof(header.magic)) != 0 ||
        header.count > form->count_max)
        return NULL;
    size_t octets = (size_t)header.count * form->row_size;
    void *rows = (uint64_t)status.st_size == sizeof(header) + octets ? malloc(octets + 1) : NULL;
    bool is_whole = rows != NULL && read(fd, rows, octets) == (ssize_t)octets &&
                    rows_checksum(rows, octets) == header.checksum;
    if (!is_whole) {
        free(rows);
        return NULL;
    }
    *ret_count = header.count;
    return rows;
}

enum kept_state kept_file_read(const char *directory, const struct kept_form *form, void **ret_rows,
                               uint32_t *ret_count)
{
    char path[PATH_SIZE];

    (void)snprintf(path, sizeof(path), "%s/%s", directory, form->name);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK); /* it may be a pipe */
    if (fd < 0)
        return errno == ENOENT ? KEPT_ABSENT : KEPT_DAMAGED; /* a link, or another user's */
    void *rows = file_take(fd, form, ret_count);
    close(fd);
    if (rows == NULL)
        return KEPT_DAMAGED;
    *ret_rows = rows;
    return KEPT_WHOLE;
}

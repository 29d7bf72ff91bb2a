/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper's file of what limits remember, and of what operators ordered.
 *
 *   "angarium limits 3\n"                  18 octets, then 6 zeros
 *   u32 count, u32 crc32c of rows
 *   u32 count, u32 crc32c of orders
 *   u32 count, u32 crc32c of standing orders
 *   count rows of struct site_kept         40 octets each, as this machine stores them
 *   count orders, struct site_order_kept   400 octets each
 *   count standing orders, struct qmgr_standing   1,528 octets each
 *
 * Version 2 ends with the orders about sites, version 1 with the rows; neither has the numbers of
 * what it has not. Both are read, and replaced by the next round.
 *
 * Invariant: a file is taken whole or not at all: its size and checksums must agree.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "control/keeper_internal.h"
#include "control/kept_file.h"
#include "queue/crc32c.h"

#define KEEPER_MAGIC     "angarium limits 3\n"
#define KEEPER_MAGIC_2   "angarium limits 2\n"
#define KEEPER_MAGIC_1   "angarium limits 1\n"
#define KEEPER_PATH_SIZE 4200u

struct keeper_header {
    char magic[24];
    uint32_t count, checksum;
    uint32_t order_count, order_checksum;       /* since version 2 */
    uint32_t standing_count, standing_checksum; /* since version 3 */
};
#define KEEPER_HEADER_1 offsetof(struct keeper_header, order_count)
#define KEEPER_HEADER_2 offsetof(struct keeper_header, standing_count)
_Static_assert(sizeof(struct keeper_header) == 48, "the file has no holes");
_Static_assert(KEEPER_HEADER_1 == 32, "as it was");
_Static_assert(sizeof(struct site_order_kept) == 400, "nor has an order");
_Static_assert(sizeof(struct site_kept) == 40, "nor has a row");

static uint32_t rows_checksum(const struct keeper *keeper)
{
    return crc32c_update(0, span_of(keeper->rows, keeper->count * (uint32_t)sizeof(*keeper->rows)));
}

static uint32_t orders_checksum(const struct keeper *keeper)
{
    return crc32c_update(
        0, span_of(keeper->orders, keeper->order_count * (uint32_t)sizeof(*keeper->orders)));
}

static uint32_t standing_checksum(const struct keeper *keeper)
{
    return crc32c_update(
        0, span_of(keeper->standing, keeper->standing_count * (uint32_t)sizeof(*keeper->standing)));
}

static bool rows_write(const struct keeper *keeper, const char *path)
{
    struct keeper_header header = {KEEPER_MAGIC,
                                   keeper->count,
                                   rows_checksum(keeper),
                                   keeper->order_count,
                                   orders_checksum(keeper),
                                   keeper->standing_count,
                                   standing_checksum(keeper)};
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);

    if (fd < 0)
        return false;
    bool is_written =
        kept_octets_write(fd, &header, sizeof(header)) &&
        kept_octets_write(fd, keeper->rows, keeper->count * sizeof(*keeper->rows)) &&
        kept_octets_write(fd, keeper->orders, keeper->order_count * sizeof(*keeper->orders)) &&
        kept_octets_write(fd, keeper->standing,
                          keeper->standing_count * sizeof(*keeper->standing)) &&
        fdatasync(fd) == 0;
    return close(fd) == 0 && is_written;
}

void keeper_file_save(struct keeper *keeper)
{
    char path[KEEPER_PATH_SIZE], beside[KEEPER_PATH_SIZE];

    bool is_empty = keeper->count == 0 && keeper->order_count == 0 && keeper->standing_count == 0;
    if (is_empty && keeper->was_empty)
        return;
    snprintf(path, sizeof(path), "%s/limits", keeper->options.directory);
    snprintf(beside, sizeof(beside), "%s/limits.new", keeper->options.directory);
    if (!rows_write(keeper, beside) || rename(beside, path) != 0)
        log_line(LOG_WARNING, "limits=%s: what was counted could not be kept: %s", path,
                 strerror(errno));
    else
        keeper->was_empty = is_empty;
}

/* By its version; 0: none of ours. */
static size_t header_size(const struct keeper_header *header)
{
    static const struct {
        char magic[sizeof(KEEPER_MAGIC)];
        size_t size;
    } versions[] = {
        {KEEPER_MAGIC, sizeof(struct keeper_header)},
        {KEEPER_MAGIC_2, KEEPER_HEADER_2},
        {KEEPER_MAGIC_1, KEEPER_HEADER_1},
    };

    for (uint32_t i = 0; i < COUNT_OF(versions); i++) {
        if (memcmp(header->magic, versions[i].magic, sizeof(versions[i].magic)) == 0)
            return versions[i].size;
    }
    return 0;
}

/* Of any version. Its size in the file; 0: damaged. */
static size_t header_read(int fd, struct keeper_header *ret_header)
{
    memset(ret_header, 0, sizeof(*ret_header));
    if (read(fd, ret_header, KEEPER_HEADER_1) != (ssize_t)KEEPER_HEADER_1)
        return 0;
    size_t size = header_size(ret_header);
    size_t more = size > KEEPER_HEADER_1 ? size - KEEPER_HEADER_1 : 0;
    if (read(fd, (char *)ret_header + KEEPER_HEADER_1, more) != (ssize_t)more)
        return 0;
    bool is_sane = ret_header->count <= KEEPER_ROWS_MAX &&
                   ret_header->order_count <= KEEPER_ORDERS_MAX &&
                   ret_header->standing_count <= QMGR_STANDING_MAX;
    return is_sane ? size : 0;
}

/* What is in a file whose size is that of its counts. False: damaged. */
static bool rows_read(struct keeper *keeper, int fd, off_t size)
{
    struct keeper_header header;
    size_t before = header_read(fd, &header);
    size_t octets = header.count * sizeof(*keeper->rows);
    size_t order_octets = header.order_count * sizeof(*keeper->orders);

    size_t standing_octets = header.standing_count * sizeof(*keeper->standing);

    if (before == 0 || (uint64_t)size != before + octets + order_octets + standing_octets)
        return false;
    keeper->rows = malloc(octets > 0 ? octets : 1);
    keeper->orders = malloc(order_octets > 0 ? order_octets : 1);
    if (keeper->rows == NULL || keeper->orders == NULL)
        return false;
    keeper->count = keeper->capacity = header.count;
    keeper->order_count = keeper->order_capacity = header.order_count;
    keeper->standing_count = header.standing_count;
    return read(fd, keeper->rows, octets) == (ssize_t)octets &&
           rows_checksum(keeper) == header.checksum &&
           read(fd, keeper->orders, order_octets) == (ssize_t)order_octets &&
           orders_checksum(keeper) == header.order_checksum &&
           read(fd, keeper->standing, standing_octets) == (ssize_t)standing_octets &&
           standing_checksum(keeper) == header.standing_checksum;
}

bool keeper_file_load(struct keeper *keeper)
{
    char path[KEEPER_PATH_SIZE];
    struct stat status;

    snprintf(path, sizeof(path), "%s/limits", keeper->options.directory);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK); /* it may be a pipe */
    if (fd < 0 && errno == ENOENT)
        return false;
    keeper->was_empty = false;
    bool is_whole = fd >= 0 && fstat(fd, &status) == 0 && rows_read(keeper, fd, status.st_size);
    if (fd >= 0) /* not a link, nor another user's */
        close(fd);
    if (!is_whole)
        log_line(LOG_WARNING,
                 "limits=%s: is damaged: long windows begin empty, and no order stands", path);
    return is_whole;
}

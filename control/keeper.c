/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of long windows.
 *
 *   "angarium limits 1\n"            18 octets, then 6 zeros
 *   u32 count, u32 crc32c of rows
 *   count rows of struct site_kept   40 octets each, as this machine stores them
 *
 * A round asks one shard after the other for its rows, in slices, and replaces the file as a whole:
 * written beside it, synced, renamed. A round without a row after one without a row writes nothing.
 *
 * Invariants
 *   1. One query of ours is with the shards at most; its memory stays until the reply.
 *   2. A file is taken whole or not at all: its size and checksum must agree.
 *
 * Limits: KEEPER_ROWS_MAX rows; beyond that the rest is not kept. A process that is killed loses
 * what was counted since the last round; one that stops loses nothing.
 */
#include "control/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "queue/crc32c.h"

#define KEEPER_MAGIC     "angarium limits 1\n"
#define KEEPER_SLICE     4096u
#define KEEPER_PATH_SIZE 4200u

struct keeper_header {
    char magic[24];
    uint32_t count, checksum;
};
_Static_assert(sizeof(struct keeper_header) == 32, "the file has no holes");
_Static_assert(sizeof(struct site_kept) == 40, "nor has a row");
_Static_assert(KEEPER_SLICE >= SITE_KEPT_MAX, "a site fits");

struct keeper {
    struct keeper_options options;
    struct shard_query query;
    bool is_under_way, was_empty;
    uint32_t shard;
    tick_us next;
    uint32_t slice_count;
    struct site_kept slice[KEEPER_SLICE];
    uint32_t count, capacity;
    struct site_kept *rows;
};

/* ---- on the shards ---- */

static struct tick_now now_of(tick_us tick)
{
    const struct tick_source *clock = tick_source_system();

    return (struct tick_now){tick, clock->wall(clock->context)};
}

static void take_slice(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    struct keeper *keeper = query->found;

    keeper->slice_count = site_keep_next(transfer_sites(transfer), &query->cursor, now_of(now),
                                         keeper->slice, KEEPER_SLICE);
}

static void give_back(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    struct keeper *keeper = query->found;

    site_keep_restore(transfer_sites(transfer), keeper->rows, keeper->count, now_of(now));
    query->cursor = UINT64_MAX;
}

/* ---- the file ---- */

static bool file_write(int fd, const void *octets, size_t size)
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

static uint32_t rows_checksum(const struct keeper *keeper)
{
    return crc32c_update(0, span_of(keeper->rows, keeper->count * (uint32_t)sizeof(*keeper->rows)));
}

static bool rows_write(const struct keeper *keeper, const char *path)
{
    struct keeper_header header = {KEEPER_MAGIC, keeper->count, rows_checksum(keeper)};
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return false;
    bool is_written = file_write(fd, &header, sizeof(header)) &&
                      file_write(fd, keeper->rows, keeper->count * sizeof(*keeper->rows)) &&
                      fdatasync(fd) == 0;
    return close(fd) == 0 && is_written;
}

static void keeper_save(struct keeper *keeper)
{
    char path[KEEPER_PATH_SIZE], beside[KEEPER_PATH_SIZE];

    if (keeper->count == 0 && keeper->was_empty)
        return;
    snprintf(path, sizeof(path), "%s/limits", keeper->options.directory);
    snprintf(beside, sizeof(beside), "%s/limits.new", keeper->options.directory);
    if (!rows_write(keeper, beside) || rename(beside, path) != 0)
        log_line(LOG_WARNING, "limits=%s: what was counted could not be kept: %s", path,
                 strerror(errno));
    else
        keeper->was_empty = keeper->count == 0;
}

/* The rows of a file whose size is that of `count`. False: damaged. */
static bool rows_read(struct keeper *keeper, int fd, off_t size)
{
    struct keeper_header header;

    if (read(fd, &header, sizeof(header)) != (ssize_t)sizeof(header) ||
        memcmp(header.magic, KEEPER_MAGIC, sizeof(KEEPER_MAGIC)) != 0 ||
        header.count > KEEPER_ROWS_MAX)
        return false;
    size_t octets = header.count * sizeof(*keeper->rows);
    if ((uint64_t)size != sizeof(header) + octets)
        return false;
    keeper->rows = malloc(octets > 0 ? octets : 1);
    if (keeper->rows == NULL)
        return false;
    keeper->count = keeper->capacity = header.count;
    return read(fd, keeper->rows, octets) == (ssize_t)octets &&
           rows_checksum(keeper) == header.checksum;
}

/* ---- rounds ---- */

static void rows_clear(struct keeper *keeper)
{
    free(keeper->rows);
    keeper->rows = NULL;
    keeper->count = keeper->capacity = 0;
}

static void rows_add(struct keeper *keeper)
{
    uint32_t count = keeper->slice_count;

    if (keeper->count + count > KEEPER_ROWS_MAX)
        count = KEEPER_ROWS_MAX - keeper->count;
    if (count == 0)
        return;
    if (keeper->count + count > keeper->capacity) {
        uint32_t capacity = keeper->count + count + KEEPER_SLICE;
        struct site_kept *rows = reallocarray(keeper->rows, capacity, sizeof(*rows));
        if (rows == NULL)
            return;
        keeper->rows = rows;
        keeper->capacity = capacity;
    }
    memcpy(keeper->rows + keeper->count, keeper->slice, count * sizeof(keeper->slice[0]));
    keeper->count += count;
}

static void query_init(struct keeper *keeper,
                       void (*visit)(struct shard_query *, struct transfer *, tick_us))
{
    keeper->query =
        (struct shard_query){.kind = SHARD_QUERY_TRANSFER, .visit = visit, .found = keeper};
}

static void keeper_ask(struct keeper *keeper)
{
    keeper->options.query(keeper->options.context, keeper->shard, &keeper->query);
}

void keeper_run(struct keeper *keeper, tick_us now)
{
    if (keeper->is_under_way || now < keeper->next)
        return;
    rows_clear(keeper);
    query_init(keeper, take_slice);
    keeper->is_under_way = true;
    keeper->shard = 0;
    keeper_ask(keeper);
}

tick_us keeper_deadline(const struct keeper *keeper)
{
    return keeper->is_under_way ? TICK_NEVER : keeper->next;
}

bool keeper_owns(const struct keeper *keeper, const struct shard_query *query)
{
    return query == &keeper->query;
}

void keeper_on_reply(struct keeper *keeper, tick_us now)
{
    CHECK(keeper->is_under_way);
    rows_add(keeper);
    if (keeper->query.cursor == UINT64_MAX) {
        keeper->query.cursor = 0;
        keeper->shard++;
    }
    if (keeper->shard < keeper->options.shard_count) {
        keeper_ask(keeper);
        return;
    }
    keeper->is_under_way = false;
    keeper->next = now + KEEPER_TIME;
    keeper_save(keeper);
}

/* ---- start and end ---- */

enum err keeper_new(const struct keeper_options *options, struct keeper **ret_keeper)
{
    struct keeper *keeper = calloc(1, sizeof(*keeper));

    if (keeper == NULL)
        return ERR_MEMORY;
    keeper->options = *options;
    keeper->was_empty = true;
    *ret_keeper = keeper;
    return ERR_OK;
}

void keeper_free(struct keeper *keeper)
{
    rows_clear(keeper);
    free(keeper);
}

void keeper_load(struct keeper *keeper,
                 void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    char path[KEEPER_PATH_SIZE];
    struct stat status;

    snprintf(path, sizeof(path), "%s/limits", keeper->options.directory);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return;
    keeper->was_empty = false;
    bool is_whole = fstat(fd, &status) == 0 && rows_read(keeper, fd, status.st_size);
    close(fd);
    if (!is_whole)
        log_line(LOG_WARNING, "limits=%s: is damaged: long windows begin empty", path);
    for (uint32_t i = 0; is_whole && i < keeper->options.shard_count; i++) {
        query_init(keeper, give_back);
        run(keeper->options.context, i, &keeper->query);
    }
    rows_clear(keeper);
}

void keeper_finish(struct keeper *keeper,
                   void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    rows_clear(keeper);
    for (uint32_t i = 0; i < keeper->options.shard_count; i++) {
        query_init(keeper, take_slice);
        while (keeper->query.cursor != UINT64_MAX) {
            run(keeper->options.context, i, &keeper->query);
            rows_add(keeper);
        }
    }
    keeper_save(keeper);
}

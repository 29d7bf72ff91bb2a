/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of what bars sources.
 *
 *   "angarium sources 1\n"                 19 octets, then 5 zeros
 *   u32 count, u32 crc32c of rows
 *   count rows of struct source_kept       1,064 octets each, as this machine stores them
 *
 * Written beside it, synced, renamed; only when a row came, went or changed: the same moment by the
 * wall clock is another by a few microseconds each time it is read, and no change.
 *
 * Invariant: a file is taken whole or not at all: its size and checksum must agree.
 *
 * Limits: KEPT_MAX rows. A process that is killed forgets what was said since the last round.
 */
#include "control/keeper_source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "queue/crc32c.h"

#define KEPT_MAGIC "angarium sources 1\n"
#define KEPT_MAX   (256u * SOURCE_KEPT_MAX) /* of as many sources as can be configured */
#define SAME_TIME  1000000                  /* us by which two readings of a moment may differ */
#define PATH_SIZE  4200u

struct kept_header {
    char magic[24];
    uint32_t count, checksum;
};
_Static_assert(sizeof(struct kept_header) == 32, "the file has no holes");
_Static_assert(sizeof(struct source_kept) == 1064, "nor has a row");

struct keeper_source {
    const char *directory;
    bool is_changed; /* since it was written last */
    uint32_t count;
    struct source_kept rows[KEPT_MAX];
};

/* ---- on the shards ---- */

static bool is_same_time(wall_us a, wall_us b)
{
    return a - b < SAME_TIME && b - a < SAME_TIME;
}

static bool row_is_same(const struct source_kept *a, const struct source_kept *b)
{
    struct source_kept copy = *b;

    if (!is_same_time(a->since, b->since) || !is_same_time(a->until, b->until))
        return false;
    copy.since = a->since;
    copy.until = a->until;
    for (uint32_t i = 0; i < SOURCE_EVIDENCE_MAX; i++) {
        if (!is_same_time(a->evidence[i].at, b->evidence[i].at))
            return false;
        copy.evidence[i].at = a->evidence[i].at;
    }
    return memcmp(a, &copy, sizeof(copy)) == 0;
}

static void row_put(struct keeper_source *keeper, uint32_t index, const struct source_kept *row)
{
    if (index < keeper->count && row_is_same(&keeper->rows[index], row))
        return;
    keeper->rows[index] = *row;
    keeper->is_changed = true;
}

void keeper_source_take(struct keeper_source *keeper, const struct source_set *sources,
                        struct tick_now now)
{
    struct source_kept rows[SOURCE_KEPT_MAX];
    uint32_t count = 0;

    for (uint32_t i = 0; i < source_count(sources) && count + SOURCE_KEPT_MAX <= KEPT_MAX; i++) {
        uint32_t found = source_keep(sources, i, now, rows);
        for (uint32_t j = 0; j < found; j++)
            row_put(keeper, count++, &rows[j]);
    }
    keeper->is_changed = keeper->is_changed || count != keeper->count;
    keeper->count = count;
}

static void give_back(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    const struct tick_source *clock = tick_source_system();
    struct keeper_source *keeper = query->found;
    struct tick_now then = {now, clock->wall(clock->context)};

    source_keep_restore(transfer_sources(transfer), keeper->rows, keeper->count, then);
    query->cursor = UINT64_MAX;
}

/* ---- the file ---- */

static uint32_t rows_checksum(const struct keeper_source *keeper)
{
    return crc32c_update(0, span_of(keeper->rows, keeper->count * (uint32_t)sizeof(*keeper->rows)));
}

bool keeper_octets_write(int fd, const void *octets, size_t size)
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

static bool file_write(const struct keeper_source *keeper, const char *path)
{
    struct kept_header header = {KEPT_MAGIC, keeper->count, rows_checksum(keeper)};
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return false;
    bool is_written =
        keeper_octets_write(fd, &header, sizeof(header)) &&
        keeper_octets_write(fd, keeper->rows, keeper->count * sizeof(*keeper->rows)) &&
        fdatasync(fd) == 0;
    return close(fd) == 0 && is_written;
}

void keeper_source_save(struct keeper_source *keeper)
{
    char path[PATH_SIZE], beside[PATH_SIZE];

    if (!keeper->is_changed)
        return;
    (void)snprintf(path, sizeof(path), "%s/sources", keeper->directory);
    (void)snprintf(beside, sizeof(beside), "%s/sources.new", keeper->directory);
    if (!file_write(keeper, beside) || rename(beside, path) != 0)
        log_line(LOG_WARNING, "sources=%s: what bars sources could not be kept: %s", path,
                 strerror(errno));
    else
        keeper->is_changed = false;
}

/* False: damaged. */
static bool file_read(struct keeper_source *keeper, int fd, off_t size)
{
    struct kept_header header;

    if (read(fd, &header, sizeof(header)) != (ssize_t)sizeof(header) ||
        memcmp(header.magic, KEPT_MAGIC, sizeof(KEPT_MAGIC)) != 0 || header.count > KEPT_MAX ||
        (uint64_t)size != sizeof(header) + header.count * sizeof(*keeper->rows))
        return false;
    size_t octets = header.count * sizeof(*keeper->rows);
    if (read(fd, keeper->rows, octets) != (ssize_t)octets)
        return false;
    keeper->count = header.count;
    return rows_checksum(keeper) == header.checksum;
}

void keeper_source_load(struct keeper_source *keeper, uint32_t shard_count, void *context,
                        void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    char path[PATH_SIZE];
    struct stat status;

    (void)snprintf(path, sizeof(path), "%s/sources", keeper->directory);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return;
    bool is_whole = fstat(fd, &status) == 0 && file_read(keeper, fd, status.st_size);
    close(fd);
    if (!is_whole) {
        log_line(LOG_WARNING, "sources=%s: is damaged: no source is suspended or rests", path);
        keeper->count = 0;
        keeper->is_changed = true;
    }
    for (uint32_t i = 0; is_whole && i < shard_count; i++) {
        struct shard_query query = {
            .kind = SHARD_QUERY_TRANSFER, .visit = give_back, .found = keeper};
        run(context, i, &query);
    }
}

/* ---- start and end ---- */

struct keeper_source *keeper_source_new(const char *directory)
{
    struct keeper_source *keeper = calloc(1, sizeof(*keeper));

    if (keeper != NULL)
        keeper->directory = directory;
    return keeper;
}

void keeper_source_free(struct keeper_source *keeper)
{
    free(keeper);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of what quotas of users have counted.
 *
 *   "angarium quotas 1\n"                  18 octets, then 6 zeros
 *   u32 count, u32 crc32c of rows
 *   count rows of struct quota_kept        48 octets each, as this machine stores them
 *
 * Written beside it, synced, renamed; only when something was counted since it was written last.
 * Names of users are in it as hashes.
 *
 * Invariant: a file is taken whole or not at all: its size and checksum must agree.
 *
 * Limits: KEEPER_QUOTA_ROWS_MAX rows, beyond which the rest is not kept, and the log says so. A
 * process that is killed loses what was counted since the last round: two seconds, and two more for
 * each ROWS_PER_ROUND rows.
 */
#include "control/keeper_quota.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "control/keeper_source.h"
#include "queue/crc32c.h"

#define KEPT_MAGIC     "angarium quotas 1\n"
#define KEPT_SLICE     4096u
#define ROWS_PER_ROUND 16384u
#define ROUND_TIME     TICK_S(2)
#define PATH_SIZE      4200u

struct kept_header {
    char magic[24];
    uint32_t count, checksum;
};
_Static_assert(sizeof(struct kept_header) == 32, "the file has no holes");
_Static_assert(sizeof(struct quota_kept) == 48, "nor has a row");
_Static_assert(KEPT_SLICE >= QUOTA_KEPT_MAX, "a count fits");

struct keeper_quota {
    const char *directory;
    tick_us next;
    uint64_t changes, changes_saved; /* of all shards' counts */
    bool was_cut;                    /* and the log knows */
    uint32_t count, capacity;
    struct quota_kept *rows;
    uint32_t slice_count;
    struct quota_kept slice[KEPT_SLICE];
};

static void rows_clear(struct keeper_quota *keeper)
{
    free(keeper->rows);
    keeper->rows = NULL;
    keeper->count = keeper->capacity = 0;
    keeper->changes = 0;
}

/* ---- on the shards ---- */

void keeper_quota_take(struct keeper_quota *keeper, struct quota_set *quotas, uint64_t *cursor,
                       struct tick_now now)
{
    if (*cursor == 0)
        keeper->changes += quota_get_stats(quotas).changes;
    keeper->slice_count = quota_keep_next(quotas, cursor, now, keeper->slice, KEPT_SLICE);
}

static void give_back(struct shard_query *query, struct quota_set *quotas, tick_us now)
{
    const struct tick_source *clock = tick_source_system();
    struct keeper_quota *keeper = query->found;
    struct tick_now then = {now, clock->wall(clock->context)};

    quota_keep_restore(quotas, keeper->rows, keeper->count, then);
    query->cursor = UINT64_MAX;
}

/* ---- rounds ---- */

bool keeper_quota_begin(struct keeper_quota *keeper, tick_us now)
{
    if (now < keeper->next)
        return false;
    rows_clear(keeper);
    return true;
}

void keeper_quota_add(struct keeper_quota *keeper)
{
    uint32_t count = keeper->slice_count, room = KEEPER_QUOTA_ROWS_MAX - keeper->count;

    if (count > room && !keeper->was_cut)
        log_line(LOG_WARNING, "quotas=%s: too many users sent: not all that was counted is kept",
                 keeper->directory);
    keeper->was_cut = keeper->was_cut || count > room;
    count = count < room ? count : room;
    if (keeper->count + count > keeper->capacity) {
        uint32_t capacity = keeper->count + count + KEPT_SLICE;
        struct quota_kept *rows = reallocarray(keeper->rows, capacity, sizeof(*rows));
        if (rows == NULL)
            return;
        keeper->rows = rows;
        keeper->capacity = capacity;
    }
    if (count > 0)
        memcpy(keeper->rows + keeper->count, keeper->slice, count * sizeof(keeper->slice[0]));
    keeper->count += count;
}

/* ---- the file ---- */

static uint32_t rows_checksum(const struct keeper_quota *keeper)
{
    return crc32c_update(0, span_of(keeper->rows, keeper->count * (uint32_t)sizeof(*keeper->rows)));
}

static bool file_write(const struct keeper_quota *keeper, const char *path)
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

void keeper_quota_save(struct keeper_quota *keeper, tick_us now)
{
    char path[PATH_SIZE], beside[PATH_SIZE];

    keeper->next = now + ROUND_TIME * (keeper->count / ROWS_PER_ROUND);
    if (keeper->changes == keeper->changes_saved)
        return;
    (void)snprintf(path, sizeof(path), "%s/quotas", keeper->directory);
    (void)snprintf(beside, sizeof(beside), "%s/quotas.new", keeper->directory);
    if (!file_write(keeper, beside) || rename(beside, path) != 0)
        log_line(LOG_WARNING, "quotas=%s: what users sent could not be kept: %s", path,
                 strerror(errno));
    else
        keeper->changes_saved = keeper->changes;
}

/* False: damaged. */
static bool file_read(struct keeper_quota *keeper, int fd, off_t size)
{
    struct kept_header header;

    if (read(fd, &header, sizeof(header)) != (ssize_t)sizeof(header) ||
        memcmp(header.magic, KEPT_MAGIC, sizeof(KEPT_MAGIC)) != 0 ||
        header.count > KEEPER_QUOTA_ROWS_MAX ||
        (uint64_t)size != sizeof(header) + header.count * sizeof(*keeper->rows))
        return false;
    size_t octets = header.count * sizeof(*keeper->rows);
    keeper->rows = malloc(octets > 0 ? octets : 1);
    if (keeper->rows == NULL || read(fd, keeper->rows, octets) != (ssize_t)octets)
        return false;
    keeper->count = keeper->capacity = header.count;
    return rows_checksum(keeper) == header.checksum;
}

void keeper_quota_load(struct keeper_quota *keeper, uint32_t shard_count, void *context,
                       void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    char path[PATH_SIZE];
    struct stat status;

    (void)snprintf(path, sizeof(path), "%s/quotas", keeper->directory);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return;
    bool is_whole = fstat(fd, &status) == 0 && file_read(keeper, fd, status.st_size);
    close(fd);
    if (!is_whole)
        log_line(LOG_WARNING, "quotas=%s: is damaged: long windows of users begin empty", path);
    for (uint32_t i = 0; is_whole && i < shard_count; i++) {
        struct shard_query query = {
            .kind = SHARD_QUERY_QUOTA, .visit_quota = give_back, .found = keeper};
        run(context, i, &query);
    }
    rows_clear(keeper);
}

/* ---- start and end ---- */

struct keeper_quota *keeper_quota_new(const char *directory)
{
    struct keeper_quota *keeper = calloc(1, sizeof(*keeper));

    if (keeper != NULL)
        keeper->directory = directory;
    return keeper;
}

void keeper_quota_free(struct keeper_quota *keeper)
{
    rows_clear(keeper);
    free(keeper);
}

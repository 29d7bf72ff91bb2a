/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of what limits remember: long windows, and orders.
 *
 *   "angarium limits 2\n"                  18 octets, then 6 zeros
 *   u32 count, u32 crc32c of rows
 *   u32 count, u32 crc32c of orders
 *   count rows of struct site_kept         40 octets each, as this machine stores them
 *   count orders, struct site_order_kept   400 octets each
 *
 * Version 1 ends with the rows and has neither number of orders; it is read, and replaced by the
 * next round.
 *
 * A round asks one shard after the other for its rows, in slices, and replaces the file as a whole:
 * written beside it, synced, renamed. A round without a row after one without a row writes nothing.
 *
 * Invariants
 *   1. One query of ours is with the shards at most; its memory stays until the reply.
 *   2. A file is taken whole or not at all: its size and checksum must agree.
 *
 * Limits: KEEPER_ROWS_MAX rows and KEEPER_ORDERS_MAX orders; beyond that the rest is not kept. A
 * process that is killed loses what was counted since the last round; one that stops loses nothing.
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
#include "control/keeper_source.h"
#include "queue/crc32c.h"

#define KEEPER_MAGIC     "angarium limits 2\n"
#define KEEPER_MAGIC_1   "angarium limits 1\n"
#define KEEPER_SLICE     4096u
#define KEEPER_ORDERS    64u
#define KEEPER_PATH_SIZE 4200u

struct keeper_header {
    char magic[24];
    uint32_t count, checksum;
    uint32_t order_count, order_checksum; /* since version 2 */
};
#define KEEPER_HEADER_1 offsetof(struct keeper_header, order_count)
_Static_assert(sizeof(struct keeper_header) == 40, "the file has no holes");
_Static_assert(KEEPER_HEADER_1 == 32, "as it was");
_Static_assert(sizeof(struct site_order_kept) == 400, "nor has an order");
_Static_assert(sizeof(struct site_kept) == 40, "nor has a row");
_Static_assert(KEEPER_SLICE >= SITE_KEPT_MAX, "a site fits");

struct keeper {
    struct keeper_options options;
    struct keeper_source *sources;
    struct shard_query query;
    bool is_under_way, was_empty;
    uint32_t shard;
    tick_us next;
    uint32_t slice_count;
    struct site_kept slice[KEEPER_SLICE];
    uint32_t count, capacity;
    struct site_kept *rows;
    bool is_at_orders; /* of this shard, behind its rows */
    uint32_t order_slice_count;
    struct site_order_kept order_slice[KEEPER_ORDERS];
    uint32_t order_count, order_capacity;
    struct site_order_kept *orders;
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

    keeper->slice_count = keeper->order_slice_count = 0;
    if (query->cursor == 0)
        keeper_source_take(keeper->sources, transfer_sources(transfer), now_of(now));
    if (keeper->is_at_orders)
        keeper->order_slice_count =
            site_keep_next_orders(transfer_sites(transfer), &query->cursor, now_of(now),
                                  keeper->order_slice, KEEPER_ORDERS);
    else
        keeper->slice_count = site_keep_next(transfer_sites(transfer), &query->cursor, now_of(now),
                                             keeper->slice, KEEPER_SLICE);
}

static void give_back(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    struct keeper *keeper = query->found;

    site_keep_restore(transfer_sites(transfer), keeper->rows, keeper->count, now_of(now));
    site_keep_restore_orders(transfer_sites(transfer), keeper->orders, keeper->order_count,
                             now_of(now));
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

static uint32_t orders_checksum(const struct keeper *keeper)
{
    return crc32c_update(
        0, span_of(keeper->orders, keeper->order_count * (uint32_t)sizeof(*keeper->orders)));
}

static bool rows_write(const struct keeper *keeper, const char *path)
{
    struct keeper_header header = {KEEPER_MAGIC, keeper->count, rows_checksum(keeper),
                                   keeper->order_count, orders_checksum(keeper)};
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return false;
    bool is_written =
        file_write(fd, &header, sizeof(header)) &&
        file_write(fd, keeper->rows, keeper->count * sizeof(*keeper->rows)) &&
        file_write(fd, keeper->orders, keeper->order_count * sizeof(*keeper->orders)) &&
        fdatasync(fd) == 0;
    return close(fd) == 0 && is_written;
}

static void keeper_save(struct keeper *keeper)
{
    char path[KEEPER_PATH_SIZE], beside[KEEPER_PATH_SIZE];

    keeper_source_save(keeper->sources);
    bool is_empty = keeper->count == 0 && keeper->order_count == 0;
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

/* Of either version. Its size in the file; 0: damaged. */
static size_t header_read(int fd, struct keeper_header *ret_header)
{
    size_t size = sizeof(*ret_header);

    memset(ret_header, 0, size);
    if (read(fd, ret_header, KEEPER_HEADER_1) != (ssize_t)KEEPER_HEADER_1)
        return 0;
    if (memcmp(ret_header->magic, KEEPER_MAGIC_1, sizeof(KEEPER_MAGIC_1)) == 0)
        size = KEEPER_HEADER_1;
    else if (memcmp(ret_header->magic, KEEPER_MAGIC, sizeof(KEEPER_MAGIC)) != 0 ||
             read(fd, (char *)ret_header + KEEPER_HEADER_1, size - KEEPER_HEADER_1) !=
                 (ssize_t)(size - KEEPER_HEADER_1))
        return 0;
    bool is_sane =
        ret_header->count <= KEEPER_ROWS_MAX && ret_header->order_count <= KEEPER_ORDERS_MAX;
    return is_sane ? size : 0;
}

/* What is in a file whose size is that of its counts. False: damaged. */
static bool rows_read(struct keeper *keeper, int fd, off_t size)
{
    struct keeper_header header;
    size_t header_size = header_read(fd, &header);
    size_t octets = header.count * sizeof(*keeper->rows);
    size_t order_octets = header.order_count * sizeof(*keeper->orders);

    if (header_size == 0 || (uint64_t)size != header_size + octets + order_octets)
        return false;
    keeper->rows = malloc(octets > 0 ? octets : 1);
    keeper->orders = malloc(order_octets > 0 ? order_octets : 1);
    if (keeper->rows == NULL || keeper->orders == NULL)
        return false;
    keeper->count = keeper->capacity = header.count;
    keeper->order_count = keeper->order_capacity = header.order_count;
    return read(fd, keeper->rows, octets) == (ssize_t)octets &&
           rows_checksum(keeper) == header.checksum &&
           read(fd, keeper->orders, order_octets) == (ssize_t)order_octets &&
           orders_checksum(keeper) == header.order_checksum;
}

/* ---- rounds ---- */

static void rows_clear(struct keeper *keeper)
{
    free(keeper->rows);
    keeper->rows = NULL;
    keeper->count = keeper->capacity = 0;
    free(keeper->orders);
    keeper->orders = NULL;
    keeper->order_count = keeper->order_capacity = 0;
    keeper->is_at_orders = false;
}

static void orders_add(struct keeper *keeper)
{
    uint32_t count = keeper->order_slice_count;

    if (keeper->order_count + count > KEEPER_ORDERS_MAX)
        count = KEEPER_ORDERS_MAX - keeper->order_count;
    if (count == 0)
        return;
    if (keeper->order_count + count > keeper->order_capacity) {
        uint32_t capacity = keeper->order_count + count + KEEPER_ORDERS;
        struct site_order_kept *orders = reallocarray(keeper->orders, capacity, sizeof(*orders));
        if (orders == NULL)
            return;
        keeper->orders = orders;
        keeper->order_capacity = capacity;
    }
    memcpy(keeper->orders + keeper->order_count, keeper->order_slice,
           count * sizeof(keeper->order_slice[0]));
    keeper->order_count += count;
}

static void rows_add(struct keeper *keeper)
{
    uint32_t count = keeper->slice_count;

    orders_add(keeper);
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
        keeper->shard += keeper->is_at_orders;
        keeper->is_at_orders = !keeper->is_at_orders;
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
    keeper->sources = keeper_source_new(options->directory);
    if (keeper->sources == NULL) {
        free(keeper);
        return ERR_MEMORY;
    }
    *ret_keeper = keeper;
    return ERR_OK;
}

void keeper_free(struct keeper *keeper)
{
    rows_clear(keeper);
    keeper_source_free(keeper->sources);
    free(keeper);
}

void keeper_load(struct keeper *keeper,
                 void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    char path[KEEPER_PATH_SIZE];
    struct stat status;

    keeper_source_load(keeper->sources, keeper->options.shard_count, keeper->options.context, run);
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
    for (uint32_t i = 0; i < 2 * keeper->options.shard_count; i++) {
        keeper->is_at_orders = i >= keeper->options.shard_count;
        query_init(keeper, take_slice);
        while (keeper->query.cursor != UINT64_MAX) {
            run(keeper->options.context, i % keeper->options.shard_count, &keeper->query);
            rows_add(keeper);
        }
    }
    keeper_save(keeper);
}

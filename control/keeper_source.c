/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of what bars sources (kept_file.c): "angarium sources 1\n", rows of struct source_kept,
 * 1,064 octets each. Written only when a row came, went or changed: the same moment by the wall
 * clock is another by a few microseconds each time it is read, and no change.
 *
 * Limits: KEPT_MAX rows. A process that is killed forgets what was said since the last round.
 */
#include "control/keeper_source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "control/kept_file.h"

#define KEPT_MAX  (256u * SOURCE_KEPT_MAX) /* of as many sources as can be configured */
#define SAME_TIME 1000000                  /* us by which two readings of a moment may differ */

static const struct kept_form kept_form = {"sources", "angarium sources 1\n",
                                           sizeof(struct source_kept), KEPT_MAX};
_Static_assert(sizeof(struct source_kept) == 1064, "a row has no holes");

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

void keeper_source_save(struct keeper_source *keeper)
{
    if (!keeper->is_changed)
        return;
    if (kept_file_write(keeper->directory, &kept_form, keeper->rows, keeper->count))
        keeper->is_changed = false;
    else
        log_line(LOG_WARNING, "sources=%s/sources: what bars sources could not be kept: %s",
                 keeper->directory, strerror(errno));
}

void keeper_source_load(struct keeper_source *keeper, uint32_t shard_count, void *context,
                        void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    void *rows;
    enum kept_state state = kept_file_read(keeper->directory, &kept_form, &rows, &keeper->count);

    if (state == KEPT_DAMAGED) {
        log_line(LOG_WARNING, "sources=%s/sources: is damaged: no source is suspended or rests",
                 keeper->directory);
        keeper->is_changed = true;
    }
    if (state != KEPT_WHOLE)
        return;
    memcpy(keeper->rows, rows, keeper->count * sizeof(*keeper->rows));
    free(rows);
    for (uint32_t i = 0; i < shard_count; i++) {
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

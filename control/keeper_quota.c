/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of what quotas of users have counted (kept_file.c): "angarium quotas 1\n", rows of
 * struct quota_kept, 48 octets each. Written only when something was counted since it was written
 * last. Names of users are in it as hashes.
 *
 * A process whose place another one took writes, at its end, the same to `quotas.rest`: what it
 * counted since. The other one adds that to what it knows, and removes it.
 *
 * Limits: KEEPER_QUOTA_ROWS_MAX rows, beyond which the rest is not kept, and the log says so. A
 * process that is killed loses what was counted since the last round: two seconds, and two more for
 * each ROWS_PER_ROUND rows.
 */
#include "control/keeper_quota.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "control/kept_file.h"

#define KEPT_SLICE     4096u
#define ROWS_PER_ROUND 16384u
#define ROUND_TIME     TICK_S(2)
#define PATH_SIZE      4200u

static const struct kept_form kept_form = {"quotas", "angarium quotas 1\n",
                                           sizeof(struct quota_kept), KEEPER_QUOTA_ROWS_MAX};
static const struct kept_form rest_form = {"quotas.rest", "angarium quotas 1\n",
                                           sizeof(struct quota_kept), KEEPER_QUOTA_ROWS_MAX};
_Static_assert(sizeof(struct quota_kept) == 48, "a row has no holes");
_Static_assert(KEPT_SLICE >= QUOTA_KEPT_MAX, "a count fits");

struct keeper_quota {
    const char *directory;
    tick_us next;
    uint64_t changes, changes_saved; /* of all shards' counts */
    bool was_cut;                    /* and the log knows */
    bool is_apart;
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

void keeper_quota_take(struct keeper_quota *keeper, struct quota_set *quotas, tick_us window_min,
                       uint64_t *cursor, struct tick_now now)
{
    const struct quota_keep what = {window_min, keeper->is_apart};

    if (*cursor == 0)
        keeper->changes += quota_get_stats(quotas).changes;
    keeper->slice_count = quota_keep_next(quotas, &what, cursor, now, keeper->slice, KEPT_SLICE);
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
    if (now < keeper->next || (keeper->is_apart && now != TICK_NEVER))
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

void keeper_quota_save(struct keeper_quota *keeper, tick_us now)
{
    keeper->next = now + ROUND_TIME * (keeper->count / ROWS_PER_ROUND);
    if (keeper->changes == keeper->changes_saved && !keeper->is_apart)
        return;
    if (kept_file_write(keeper->directory, keeper->is_apart ? &rest_form : &kept_form, keeper->rows,
                        keeper->count))
        keeper->changes_saved = keeper->changes;
    else
        log_line(LOG_WARNING, "quotas=%s/quotas: what users sent could not be kept: %s",
                 keeper->directory, strerror(errno));
}

/* False: there is no such file. */
static bool file_load(struct keeper_quota *keeper, const struct kept_form *form)
{
    void *rows = NULL;
    enum kept_state state = kept_file_read(keeper->directory, form, &rows, &keeper->count);

    if (state == KEPT_DAMAGED)
        log_line(LOG_WARNING, "quotas=%s/%s: is damaged: long windows of users begin empty",
                 keeper->directory, form->name);
    keeper->rows = rows;
    return state != KEPT_ABSENT;
}

static void rows_give(struct keeper_quota *keeper, uint32_t shard_count, void *context,
                      void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    for (uint32_t i = 0; keeper->count > 0 && i < shard_count; i++) {
        struct shard_query query = {
            .kind = SHARD_QUERY_QUOTA, .visit_quota = give_back, .found = keeper};
        run(context, i, &query);
    }
    rows_clear(keeper);
}

void keeper_quota_load(struct keeper_quota *keeper, uint32_t shard_count, void *context,
                       void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    if (file_load(keeper, &kept_form))
        rows_give(keeper, shard_count, context, run);
}

static void rest_remove(const struct keeper_quota *keeper)
{
    char path[PATH_SIZE];

    (void)snprintf(path, sizeof(path), "%s/%s", keeper->directory, rest_form.name);
    (void)unlink(path);
}

void keeper_quota_load_apart(struct keeper_quota *keeper, uint32_t shard_count, void *context,
                             void (*run)(void *context, uint32_t shard, struct shard_query *query))
{
    if (!file_load(keeper, &rest_form))
        return;
    rows_give(keeper, shard_count, context, run);
    rest_remove(keeper);
}

void keeper_quota_part(struct keeper_quota *keeper, bool is_apart)
{
    keeper->is_apart = is_apart;
    if (is_apart)
        rest_remove(keeper); /* of a process that was killed */
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

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kinds of rows that are kept over a restart (keeper_rows.c), each in a file of its own:
 *
 *   quotas   "angarium quotas 1\n", struct quota_kept, 48 octets each: what quotas of users have
 *            counted. Names of users are in it as hashes. The rest: quotas.rest
 *   brakes   "angarium brakes 1\n", struct kept_count, 80 octets each: what brakes have counted of
 *            client networks in the last minute (at the end of the process only), and wrong
 *            passwords, by network and hash of the user's name. The rest: brakes.rest
 *   learned  "angarium learned 1\n", struct site_learned_kept, 160 octets each: how many
 *            connections sites take, and their pauses. Only the process that delivers learns, so
 *            in an upgrade there is no rest: it writes all at its end, and then the other begins.
 *
 * Rows are as this machine stores them.
 */
#include "control/keeper_kinds.h"

#include "relay/tally.h"

_Static_assert(sizeof(struct quota_kept) == 48, "a row has no holes");
_Static_assert(KEEPER_ROWS_SLICE >= QUOTA_KEPT_MAX, "a count fits");
_Static_assert(KEEPER_ROWS_SLICE >= TALLY_KEPT_MAX, "a key fits");

/* ---- quotas ---- */

static void quotas_take(struct shard_query *query, struct quota_set *quotas, tick_us now)
{
    struct keeper_rows *rows = keeper_rows_of(query);
    const struct quota_keep what = {keeper_rows_window_min(rows, QUOTA_KEEP_WINDOW),
                                    keeper_rows_is_rest(rows)};
    uint64_t changes = query->cursor == 0 ? quota_get_stats(quotas).changes : 0;
    uint32_t count = quota_keep_next(quotas, &what, &query->cursor, keeper_rows_now(now),
                                     keeper_rows_slice(rows), KEEPER_ROWS_SLICE);

    keeper_rows_taken(rows, count, changes);
}

static void quotas_give(struct shard_query *query, struct quota_set *quotas, tick_us now)
{
    uint32_t count;
    const struct quota_kept *next = keeper_rows_next(query, &count);

    quota_keep_restore(quotas, next, count, keeper_rows_now(now));
}

static void quotas_part(struct shard_query *query, struct quota_set *quotas, tick_us now)
{
    (void)now;
    quota_keep_apart(quotas, keeper_rows_is_parting(keeper_rows_of(query)));
    query->cursor = UINT64_MAX;
}

/* ---- brakes ---- */

static void brakes_take(struct shard_query *query, struct server *server, tick_us now)
{
    struct keeper_rows *rows = keeper_rows_of(query);
    const struct server_keep what = {keeper_rows_window_min(rows, SERVER_KEEP_WINDOW),
                                     keeper_rows_is_rest(rows)};
    uint64_t changes = query->cursor == 0 ? server_keep_changes(server) : 0;
    uint32_t count = server_keep_next(server, &what, &query->cursor, keeper_rows_now(now),
                                      keeper_rows_slice(rows), KEEPER_ROWS_SLICE);

    keeper_rows_taken(rows, count, changes);
}

static void brakes_reduce(void *rows, uint32_t count, uint32_t shard_count)
{
    kept_counts_reduce(rows, count, shard_count);
}

static void brakes_give(struct shard_query *query, struct server *server, tick_us now)
{
    uint32_t count;
    const struct kept_count *next = keeper_rows_next(query, &count);

    server_keep_restore(server, next, count, keeper_rows_now(now));
}

static void brakes_part(struct shard_query *query, struct server *server, tick_us now)
{
    server_keep_part(server, keeper_rows_is_parting(keeper_rows_of(query)), now);
    query->cursor = UINT64_MAX;
}

/* ---- learned ---- */

static void learned_take(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    struct keeper_rows *rows = keeper_rows_of(query);
    struct site_set *sites = transfer_sites(transfer);
    uint64_t changes = query->cursor == 0 ? site_learn_words(sites) : 0;
    uint32_t count = site_keep_next_learned(sites, &query->cursor, keeper_rows_now(now),
                                            keeper_rows_slice(rows), KEEPER_ROWS_SLICE);

    keeper_rows_taken(rows, count, changes);
}

static void learned_give(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    uint32_t count;
    const struct site_learned_kept *next = keeper_rows_next(query, &count);

    /* Who starts a relay anew may have mended what did not answer. */
    bool with_pauses = !keeper_rows_is_start(keeper_rows_of(query));

    site_keep_restore_learned(transfer_sites(transfer), with_pauses, next, count,
                              keeper_rows_now(now));
}

const struct keeper_kind keeper_kinds[KEEPER_KIND_COUNT] = {
    [KEEPER_QUOTAS] =
        {
            .form = {"quotas", "angarium quotas 1\n", sizeof(struct quota_kept), 262144},
            .rest_name = "quotas.rest",
            .lost = "long windows of users begin empty",
            .cut = "too many users sent: not all that was counted is kept",
            .round_time = TICK_S(2),
            .rows_per_time = 16384,
            .take = {.kind = SHARD_QUERY_QUOTA, .visit_quota = quotas_take},
            .give = {.kind = SHARD_QUERY_QUOTA, .visit_quota = quotas_give},
            .part = {.kind = SHARD_QUERY_QUOTA, .visit_quota = quotas_part},
        },
    [KEEPER_BRAKES] =
        {
            .form = {"brakes", "angarium brakes 1\n", sizeof(struct kept_count), 262144},
            .rest_name = "brakes.rest",
            .lost = "brakes and wrong passwords of client networks begin empty",
            .cut = "too many client networks: not all that was counted is kept",
            .round_time = TICK_S(2),
            .rows_per_time = 8192,
            .reduce = brakes_reduce,
            .take = {.kind = SHARD_QUERY_SERVER, .visit_server = brakes_take},
            .give = {.kind = SHARD_QUERY_SERVER, .visit_server = brakes_give},
            .part = {.kind = SHARD_QUERY_SERVER, .visit_server = brakes_part},
        },
    [KEEPER_LEARNED] =
        {
            .form = {"learned", "angarium learned 1\n", sizeof(struct site_learned_kept), 65536},
            .lost = "how many connections sites take is learned anew",
            .cut = "too many sites: how many connections the last ones take is not kept",
            .round_time = TICK_S(30),
            .rows_per_time = 8192,
            .take = {.kind = SHARD_QUERY_TRANSFER, .visit = learned_take},
            .give = {.kind = SHARD_QUERY_TRANSFER, .visit = learned_give},
        },
};

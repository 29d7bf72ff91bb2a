/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of client networks, on its way over a restart: wrong passwords (server_auth.c,
 * counted by tally.c), then what brakes have counted (brake_keep.c). Both are rows of one form; the
 * kind says whose.
 *
 * Wrong passwords come first: their windows are long, and where rows are bounded they are those
 * that somebody who guesses would like to be forgotten.
 */
#include "relay/server_internal.h"
#include "relay/tally.h"

#define KIND_FAILURES 100u /* behind those of brakes */
#define CURSOR_BRAKES (1ull << 32)
#define CURSOR_MASK   (CURSOR_BRAKES - 1)
_Static_assert(KIND_FAILURES >= BRAKE_KIND_COUNT, "a kind is a brake's or a tally's");
_Static_assert(TALLY_KEPT_MAX >= BRAKE_KEPT_MAX, "the larger one");

uint32_t server_keep_next(struct server *server, const struct server_keep *what, uint64_t *cursor,
                          struct tick_now now, struct kept_count *rows, uint32_t row_max)
{
    struct tally *failures = server_auth_failures(server->auth);
    struct kept_wish wish = {server->options.shard, server->options.shard_count, what->window_min,
                             what->is_rest};
    bool is_at_brakes = (*cursor & CURSOR_BRAKES) != 0;
    uint64_t inner = *cursor & CURSOR_MASK;
    uint32_t count;

    CHECK(wish.shard_count <= KEPT_SHARDS_MAX);
    if (is_at_brakes) {
        count = brake_keep_next(server->brake, &wish, &inner, now, rows, row_max);
        *cursor = inner == UINT64_MAX ? UINT64_MAX : inner | CURSOR_BRAKES;
        return count;
    }
    count = tally_keep_next(failures, &wish, &inner, now, rows, row_max);
    *cursor = inner == UINT64_MAX ? CURSOR_BRAKES : inner;
    for (uint32_t i = 0; i < count; i++)
        rows[i].kind = KIND_FAILURES;
    return count;
}

void server_keep_part(struct server *server, bool is_parted, tick_us now)
{
    tally_keep_part(server_auth_failures(server->auth), is_parted);
    brake_keep_part(server->brake, is_parted, now);
}

void server_keep_restore(struct server *server, const struct kept_count *rows, uint32_t count,
                         struct tick_now now)
{
    uint32_t shard = server->options.shard, shard_count = server->options.shard_count;

    for (uint32_t i = 0; i < count; i++) {
        if (rows[i].kind == KIND_FAILURES && kept_count_is_for(&rows[i], shard, shard_count))
            tally_keep_restore(server_auth_failures(server->auth), &rows[i], now);
    }
    brake_keep_restore(server->brake, shard, shard_count, rows, count, now);
}

uint64_t server_keep_changes(const struct server *server)
{
    return tally_changes(server_auth_failures(server->auth));
}

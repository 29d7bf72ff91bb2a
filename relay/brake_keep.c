/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Brakes on their way over a restart: what the last minute of each client network has counted.
 * Times are those of the wall clock in between.
 *
 * Neighbouring cells of a window go together, so that it is BRAKE_KEPT_CELLS rows at most. Networks
 * that were refused in this minute come first, then those that did something in the last quarter
 * of it: where rows are bounded, what is lost is of the others.
 *
 * Connections that are open are not kept. In an upgrade they stay in the process that leaves, which
 * ends each one behind its transaction, and count there; the one that comes begins at none. So a
 * client that is dismissed there is let in here at once, and a network has, as long as both are
 * there, as many connections more as it had before, and nothing else for them: what they do counts
 * in the minute of the process they are in, and is added to that of the other one in the end.
 *
 * Invariants
 *   1. A restored event is never forgotten earlier than the original would have been, as long as
 *      the wall clock does not jump, and a minute later than it at most; a time in the future is
 *      taken for now.
 *   2. A round that asks again and again visits every network once, also if others come and go.
 *   3. Cells are in the order of time: a restored one that is older than the newest is made as
 *      new as it.
 */
#include "relay/brake_internal.h"

#define FRESH_TIME TICK_S(15)
#define LOOK_MAX   2048u /* places in one look: sessions wait meanwhile */

/* ---- taking ---- */

enum pass { PASS_REFUSED, PASS_FRESH, PASS_REST, PASS_COUNT };

static bool is_of_pass(const struct brake *brake, struct brake_client *client, enum pass pass)
{
    bool is_refused = false, is_fresh = false, is_used = false;

    for (enum brake_kind kind = 0; kind < BRAKE_KIND_COUNT; kind++) {
        struct brake_window *window = &client->windows[kind];
        is_refused = is_refused || window->told_until > brake->now;
        is_used = is_used || window->used > 0;
        is_fresh =
            is_fresh || (window->used > 0 &&
                         brake->now - brake_cell_at(window, window->used - 1)->last < FRESH_TIME);
    }
    return pass == PASS_REFUSED ? is_refused : pass == PASS_FRESH ? is_fresh : is_used;
}

static bool is_wanted(const struct brake *brake, const struct brake_cell *cell,
                      const struct kept_wish *wish)
{
    bool is_apart = brake->parted > 0 && cell->last - cell->span >= brake->parted;

    return is_apart == wish->is_rest;
}

static uint32_t window_keep(const struct brake *brake, struct brake_client *client,
                            enum brake_kind kind, const struct kept_wish *wish, struct tick_now now,
                            struct kept_count *rows)
{
    struct brake_window *window = &client->windows[kind];
    uint32_t together = (window->used + BRAKE_KEPT_CELLS - 1) / BRAKE_KEPT_CELLS;
    uint32_t cells = 0, count = 0;

    for (uint32_t i = 0; i < window->used; i++) {
        const struct brake_cell *cell = brake_cell_at(window, i);
        if (!is_wanted(brake, cell, wish))
            continue;
        if (cells++ % together == 0) {
            rows[count] = (struct kept_count){.window = BRAKE_MINUTE,
                                              .first = kept_wall_of(cell->last - cell->span, now),
                                              .shard = (uint16_t)wish->shard,
                                              .shard_count = (uint16_t)wish->shard_count,
                                              .kind = (uint16_t)kind,
                                              .key_size = sizeof(client->key)};
            memcpy(rows[count++].key, &client->key, sizeof(client->key));
        }
        rows[count - 1].last = kept_wall_of(cell->last, now);
        rows[count - 1].count += cell->count;
    }
    return count;
}

static uint32_t client_keep(const struct brake *brake, struct brake_client *client,
                            const struct kept_wish *wish, struct tick_now now,
                            struct kept_count *rows)
{
    uint32_t count = 0;

    for (enum brake_kind kind = 0; kind < BRAKE_KIND_COUNT; kind++) {
        brake_window_review(brake, &client->windows[kind]); /* what is over is not kept */
        count += window_keep(brake, client, kind, wish, now, rows + count);
    }
    return count;
}

_Static_assert(sizeof(struct brake_key) <= KEPT_KEY_SIZE, "a row has room for it");

uint32_t brake_keep_next(struct brake *brake, const struct kept_wish *wish, uint64_t *cursor,
                         struct tick_now now, struct kept_count *rows, uint32_t row_max)
{
    uint32_t count = 0, looked = 0;

    CHECK(row_max >= BRAKE_KEPT_MAX);
    brake->now = now.tick;
    if (*cursor == 0)
        brake->kept_round++;
    if (wish->window_min > BRAKE_MINUTE)
        *cursor = UINT64_MAX;
    for (; *cursor < PASS_COUNT * BRAKE_PLACES; *cursor += 1) {
        if (looked++ == LOOK_MAX)
            return count;
        struct brake_client *client = &brake->places[*cursor % BRAKE_PLACES];
        if (client->kept_round == brake->kept_round ||
            !is_of_pass(brake, client, (enum pass)(*cursor / BRAKE_PLACES)))
            continue;
        if (count + BRAKE_KEPT_MAX > row_max)
            return count;
        client->kept_round = brake->kept_round;
        count += client_keep(brake, client, wish, now, rows + count);
    }
    *cursor = UINT64_MAX;
    return count;
}

void brake_keep_part(struct brake *brake, bool is_parted, tick_us now)
{
    brake->now = now;
    brake->parted = is_parted ? now : 0;
}

/* ---- giving back ---- */

static bool row_is_sane(const struct kept_count *row)
{
    return row->kind < BRAKE_KIND_COUNT && row->kind != BRAKE_CONNECTIONS && row->count > 0 &&
           row->window == BRAKE_MINUTE && row->key_size == sizeof(struct brake_key) &&
           row->first <= row->last;
}

static void window_restore(struct brake_window *window, tick_us first, tick_us last, uint32_t count)
{
    struct brake_cell *newest = brake_cell_at(window, window->used + BRAKE_CELLS - 1);

    if (window->used > 0)
        last = last > newest->last ? last : newest->last;
    if (window->used == BRAKE_CELLS) {
        first = newest->last - newest->span;
        newest->count += count;
    } else {
        newest = brake_cell_at(window, window->used++);
        newest->count = count;
    }
    newest->last = last;
    newest->span = last - first < UINT32_MAX ? (uint32_t)(last - first) : UINT32_MAX;
    window->total += count;
}

/* The first to be forgotten, and nobody's place. */
static struct brake_client *client_restore(struct brake *brake, const struct brake_key *key)
{
    struct brake_client *client = brake_client_find(brake, key);

    if (client != NULL || LIST_EMPTY(&brake->free))
        return client;
    client = brake_client_new(brake, key);
    if (client != NULL) {
        TAILQ_REMOVE(&brake->idle, client, link);
        TAILQ_INSERT_HEAD(&brake->idle, client, link);
    }
    return client;
}

void brake_keep_restore(struct brake *brake, uint32_t shard, uint32_t shard_count,
                        const struct kept_count *rows, uint32_t count, struct tick_now now)
{
    brake->now = now.tick;
    for (uint32_t i = 0; i < count; i++) {
        const struct kept_count *row = &rows[i];
        struct brake_key key;

        memcpy(&key, row->key, sizeof(key));
        if (!row_is_sane(row) || !kept_count_is_for(row, shard, shard_count) ||
            kept_count_is_over(row, now))
            continue;
        struct brake_client *client = client_restore(brake, &key);
        if (client == NULL)
            continue;
        struct brake_window *window = &client->windows[row->kind];
        brake_window_review(brake, window);
        if (row->count <= UINT32_MAX - window->total)
            window_restore(window, kept_tick_of(row->first, now), kept_tick_of(row->last, now),
                           row->count);
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The limiter: exact windows in constant time and bounded memory.
 *
 * A window remembers its events in cells. An event is forgotten, and its place free again, when the
 * last event of its cell is more than a window old: never too early, so the limit is never
 * exceeded, and a little too late where a cell holds more than one event. Up to CELL_SHARE events
 * each has a cell of its own, and nothing is late. Beyond that a cell is closed when it has 1 /
 * CELL_SHARE of the events or spans 1 / CELL_SHARE of the window, so that an even flow loses at
 * most that share, and a burst nothing.
 *
 * Invariants (rate_limiter_verify())
 *   1. total is the sum of the cells' counts; no cell is empty; cells are in the order of time.
 *   2. Two events in different cells are in order; a cell's last is not before any of its events.
 *   3. Cells are at most 2 * CELL_SHARE + 2 as long as total <= rate.count: at most CELL_SHARE full
 *      ones, at most CELL_SHARE + 1 closed by their span, the open one. Should a lowered rate leave
 *      more, the newest cell takes what comes: late, never early.
 *
 * Not here: who may use the room (site_rate.c, site_home_rate.c), the grammar (rate_parse.c).
 */
#include "queue/rate.h"

#include <stdlib.h>

#define CELL_SHARE 64u
#define CELL_MAX   (2 * CELL_SHARE + 4)
#define CELL_FIRST 4u /* cells that a window begins with; it grows as it needs them */

/* ---- one window ---- */

static struct rate_cell *window_cell(const struct rate_window *window, uint32_t index)
{
    return &window->cells[(window->head + index) % window->capacity];
}

static void window_init(struct rate_window *window, struct rate rate)
{
    CHECK(rate.count > 0 && rate.window >= RATE_WINDOW_MIN && rate.window <= RATE_WINDOW_MAX);
    *window = (struct rate_window){
        .rate = rate,
        .capacity = rate.count < CELL_FIRST ? rate.count : CELL_FIRST,
    };
    window->cells = calloc(window->capacity, sizeof(*window->cells));
    CHECK(window->cells != NULL);
}

/* Both ends of a window count: an event is in the way as long as it is not older than the window.
 */
static void window_expire(struct rate_window *window, tick_us now)
{
    while (window->used > 0) {
        const struct rate_cell *oldest = window_cell(window, 0);
        if (now <= oldest->last || now - oldest->last <= window->rate.window)
            return;
        window->total -= oldest->count;
        window->head = (window->head + 1) % window->capacity;
        window->used--;
    }
}

static bool cell_takes(const struct rate_window *window, const struct rate_cell *cell, tick_us time,
                       uint32_t count)
{
    uint32_t count_max = window->rate.count / CELL_SHARE + (window->rate.count % CELL_SHARE != 0);

    if (cell->last == time)
        return true;
    return cell->count + count <= count_max &&
           time - cell->first <= window->rate.window / CELL_SHARE;
}

/* More cells, if there may be more. Without memory the newest takes what comes, as if there were
 * not. */
static void window_grow(struct rate_window *window)
{
    uint32_t max = window->rate.count <= CELL_SHARE ? window->rate.count : CELL_MAX;
    uint32_t capacity = 2 * window->capacity < max ? 2 * window->capacity : max;

    if (capacity <= window->capacity)
        return;
    struct rate_cell *cells = calloc(capacity, sizeof(*cells));
    if (cells == NULL)
        return;
    for (uint32_t i = 0; i < window->used; i++)
        cells[i] = *window_cell(window, i);
    free(window->cells);
    window->cells = cells;
    window->capacity = capacity;
    window->head = 0;
}

static void window_add(struct rate_window *window, tick_us first, tick_us last, uint32_t count)
{
    struct rate_cell *newest = window->used == 0 ? NULL : window_cell(window, window->used - 1);

    if (newest != NULL && last < newest->last)
        last = newest->last;
    window_expire(window, last); /* makes room in the ring */
    window->total += count;
    bool is_taken = window->used > 0 && cell_takes(window, newest, last, count);
    if (!is_taken && window->used == window->capacity)
        window_grow(window);
    if (is_taken || window->used == window->capacity) {
        newest = window_cell(window, window->used - 1);
        newest->last = last;
        newest->count += count;
        return;
    }
    *window_cell(window, window->used++) =
        (struct rate_cell){first < last ? first : last, last, count};
}

static uint32_t window_room(const struct rate_window *window)
{
    return window->total < window->rate.count ? window->rate.count - window->total : 0;
}

/* When enough is forgotten that `out` and one more fit. */
static tick_us window_next(const struct rate_window *window, uint32_t out, tick_us now)
{
    uint64_t excess = (uint64_t)window->total + out + 1;

    if (excess <= window->rate.count)
        return now;
    excess -= window->rate.count;
    for (uint32_t i = 0; i < window->used; i++) {
        const struct rate_cell *cell = window_cell(window, i);
        if (excess <= cell->count)
            return cell->last + window->rate.window + 1;
        excess -= cell->count;
    }
    return TICK_NEVER;
}

static void window_copy(struct rate_window *window, const struct rate_window *from)
{
    for (uint32_t i = 0; i < from->used; i++) {
        const struct rate_cell *cell = window_cell(from, i);
        window_add(window, cell->first, cell->last, cell->count);
    }
}

/* ---- all windows ---- */

void rate_limiter_fini(struct rate_limiter *limiter)
{
    for (uint32_t i = 0; i < limiter->count; i++)
        free(limiter->windows[i].cells);
    *limiter = (struct rate_limiter){0};
}

/* The window of this length, or the longest. */
static const struct rate_window *limiter_history(const struct rate_limiter *limiter, tick_us length)
{
    for (uint32_t i = 0; i < limiter->count; i++) {
        if (limiter->windows[i].rate.window == length)
            return &limiter->windows[i];
    }
    return limiter->count == 0 ? NULL : &limiter->windows[limiter->count - 1];
}

void rate_limiter_set(struct rate_limiter *limiter, const struct rate_set *set, tick_us now)
{
    struct rate_limiter next = {.count = set->count};

    CHECK(set->count <= RATE_MAX);
    for (uint32_t i = 0; i < set->count; i++) {
        const struct rate_window *history = limiter_history(limiter, set->rates[i].window);
        CHECK(i == 0 || set->rates[i - 1].window < set->rates[i].window);
        window_init(&next.windows[i], set->rates[i]);
        if (history != NULL)
            window_copy(&next.windows[i], history);
        window_expire(&next.windows[i], now);
    }
    rate_limiter_fini(limiter);
    *limiter = next;
}

uint32_t rate_limiter_room(struct rate_limiter *limiter, tick_us now)
{
    uint32_t room = UINT32_MAX;

    for (uint32_t i = 0; i < limiter->count; i++) {
        window_expire(&limiter->windows[i], now);
        uint32_t here = window_room(&limiter->windows[i]);
        room = here < room ? here : room;
    }
    return room;
}

void rate_limiter_add(struct rate_limiter *limiter, tick_us time, uint32_t count)
{
    for (uint32_t i = 0; count > 0 && i < limiter->count; i++)
        window_add(&limiter->windows[i], time, time, count);
}

void rate_limiter_remember(struct rate_limiter *limiter, tick_us length)
{
    uint32_t at = 0;

    while (at < limiter->count && limiter->windows[at].rate.window < length)
        at++;
    bool is_there = at < limiter->count && limiter->windows[at].rate.window == length;
    if (is_there || limiter->count == RATE_MAX)
        return;
    memmove(&limiter->windows[at + 1], &limiter->windows[at],
            (limiter->count - at) * sizeof(limiter->windows[0]));
    limiter->count++;
    window_init(&limiter->windows[at], (struct rate){RATE_COUNT_MAX, length});
}

void rate_limiter_restore(struct rate_limiter *limiter, tick_us length, tick_us first, tick_us last,
                          uint32_t count, tick_us now)
{
    for (uint32_t i = 0; i < limiter->count; i++) {
        struct rate_window *window = &limiter->windows[i];
        if (window->rate.window != length)
            continue;
        window_add(window, first, last, count);
        window_expire(window, now);
    }
}

tick_us rate_limiter_next(struct rate_limiter *limiter, uint32_t out, tick_us now)
{
    tick_us next = now;

    for (uint32_t i = 0; i < limiter->count; i++) {
        window_expire(&limiter->windows[i], now);
        tick_us here = window_next(&limiter->windows[i], out, now);
        next = here > next ? here : next;
    }
    return next;
}

const struct rate_window *rate_limiter_binding(struct rate_limiter *limiter, tick_us now)
{
    const struct rate_window *binding = NULL;

    for (uint32_t i = 0; i < limiter->count; i++) {
        const struct rate_window *window = &limiter->windows[i];
        window_expire(&limiter->windows[i], now);
        if (binding == NULL || window_room(window) < window_room(binding))
            binding = window;
    }
    return binding;
}

uint32_t rate_limiter_uses(struct rate_limiter *limiter, uint32_t out, tick_us now,
                           struct rate_use ret_uses[RATE_MAX])
{
    for (uint32_t i = 0; i < limiter->count; i++) {
        struct rate_window *window = &limiter->windows[i];
        window_expire(window, now);
        ret_uses[i] = (struct rate_use){window->rate, window->total, window_next(window, out, now)};
    }
    return limiter->count;
}

void rate_limiter_verify(const struct rate_limiter *limiter)
{
    CHECK(limiter->count <= RATE_MAX);
    for (uint32_t i = 0; i < limiter->count; i++) {
        const struct rate_window *window = &limiter->windows[i];
        uint64_t total = 0;
        CHECK(window->used <= window->capacity && window->capacity <= CELL_MAX);
        for (uint32_t j = 0; j < window->used; j++) {
            const struct rate_cell *cell = window_cell(window, j);
            CHECK(cell->count > 0 && cell->first <= cell->last);
            CHECK(j == 0 || window_cell(window, j - 1)->last <= cell->last);
            total += cell->count;
        }
        CHECK(total == window->total);
    }
}

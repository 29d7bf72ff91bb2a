/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_RATE_H
#define QUEUE_RATE_H

#include "base/span.h"
#include "base/tick.h"

/*
 * Rates, and a limiter that keeps them exactly: `n/window` means never more than n events in any
 * window of that length, wherever it begins.
 */
#define RATE_MAX        8u          /* windows at once; a max_burst is one more */
#define RATE_COUNT_MAX  1000000000u /* events in a window */
#define RATE_WINDOW_MIN TICK_MS(1)
#define RATE_WINDOW_MAX (TICK_S(86400) * 31)
#define RATE_TEXT_SIZE  320u

struct rate {
    uint32_t count;
    tick_us window;
};

struct rate_set { /* all hold; windows of different length, the shortest first */
    uint32_t count;
    struct rate rates[RATE_MAX];
};

/**
 * Parse a list of rates: `100/10m`, `1,000/hr`, `1_000/h`, `50/s,max_burst=5`, `50/s, 1000/1m`.
 *
 * Bounds: 1 to RATE_COUNT_MAX events, windows from a second to RATE_WINDOW_MAX; of two rates with
 *         the same window the smaller one counts; at most RATE_MAX.
 * Errors: ERR_PEER_SYNTAX; *ret_set is then unchanged.
 */
enum err rate_set_parse(struct span text, struct rate_set *ret_set) MUST_CHECK;
/** `10`, `1,000`, `1_000`, also behind `local:`. 1 to RATE_COUNT_MAX. Errors: ERR_PEER_SYNTAX. */
enum err rate_count_parse(struct span text, uint32_t *ret_count) MUST_CHECK;
/** Add one rate at its place. Errors: ERR_LIMIT: there are RATE_MAX already. */
enum err rate_set_add(struct rate_set *set, struct rate rate) MUST_CHECK;
bool rate_set_is_equal(const struct rate_set *a, const struct rate_set *b);
/** "50/1s, 1000/1m"; it parses to the same set unless a window is shorter than a second. */
const char *rate_set_format(const struct rate_set *set, char ret_text[RATE_TEXT_SIZE]);

/* ---- the limiter ---- */

struct rate_cell { /* events that are forgotten together, a window after the last of them */
    tick_us first, last;
    uint32_t count;
};

struct rate_window {
    struct rate rate;
    uint32_t total; /* events in the cells */
    uint32_t head, used, capacity;
    struct rate_cell *cells; /* a ring, oldest at `head` */
};

struct rate_limiter {
    uint32_t count;
    struct rate_window windows[RATE_MAX];
};

/** All zero is a limiter without a rate: it limits nothing. */
void rate_limiter_fini(struct rate_limiter *limiter);
/**
 * These rates from now on. What a window of the same length counted stays; a new window begins with
 * what the longest one knows.
 *
 * Cost: heap; as many cells of 24 octets a window as it has events, 132 at most.
 */
void rate_limiter_set(struct rate_limiter *limiter, const struct rate_set *set, tick_us now);
/** How many events may follow at this moment: UINT32_MAX without a rate. O(1), amortized. */
uint32_t rate_limiter_room(struct rate_limiter *limiter, tick_us now);
/** Events happened, at `time` at the latest. A time before that of the last call is taken for
 * that one. */
void rate_limiter_add(struct rate_limiter *limiter, tick_us time, uint32_t count);
/** A window of this length that limits nothing, and only remembers, empty at first; unless there is
 * one already or there are RATE_MAX. */
void rate_limiter_remember(struct rate_limiter *limiter, tick_us length);
/** Events of an earlier life, in the window of this length alone; in the order of `last`. */
void rate_limiter_restore(struct rate_limiter *limiter, tick_us length, tick_us first, tick_us last,
                          uint32_t count, tick_us now);
/** The first moment at which there may be room for one besides `out` others: `now` when there is
 * already, TICK_NEVER when only fewer `out` can help. */
tick_us rate_limiter_next(struct rate_limiter *limiter, uint32_t out, tick_us now);
/** The window with the least room for more; NULL without a rate. */
const struct rate_window *rate_limiter_binding(struct rate_limiter *limiter, tick_us now);
struct rate_use {
    struct rate rate;
    uint32_t used;
    tick_us next; /* as rate_limiter_next(), of this window alone */
};
/** What is used of each window, besides `out` others; how many windows there are. */
uint32_t rate_limiter_uses(struct rate_limiter *limiter, uint32_t out, tick_us now,
                           struct rate_use ret_uses[RATE_MAX]);
/** CHECKs all invariants. For tests. */
void rate_limiter_verify(const struct rate_limiter *limiter);

#endif

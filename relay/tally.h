/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_TALLY_H
#define RELAY_TALLY_H

#include "queue/rate.h"
#include "relay/kept_count.h"

/*
 * How often something happened, by who did it: rates for keys of any kind, for the keys used last.
 */
#define TALLY_KEY_MAX KEPT_KEY_SIZE

struct tally;

/** Heap; start-up. At most `count_max` keys are known at a time. */
struct tally *tally_new(uint64_t seed, uint32_t count_max);
void tally_free(struct tally *tally);
/**
 * May this happen once more, as far as the rates say? Nothing is counted. *ret_is_first: no, and
 * for the first time since it might.
 *
 * Bounds: a key of 1 to TALLY_KEY_MAX octets.
 */
bool tally_has_room(struct tally *tally, struct span key, const struct rate_set *rates, tick_us now,
                    bool *ret_is_first);
/** It happened. Nothing is kept without a rate. */
void tally_add(struct tally *tally, struct span key, const struct rate_set *rates, tick_us now);
/** Keys known now. */
uint32_t tally_count(const struct tally *tally);

/* ---- over a restart ---- */

#define TALLY_KEPT_CELLS 16u                           /* rows of one window, at most */
#define TALLY_KEPT_MAX   (RATE_MAX * TALLY_KEPT_CELLS) /* of one key */

/** Rows of some keys, those used last first; their kind is 0. `*cursor` is 0 at first and
 * UINT64_MAX at the end. CHECKs row_max >= TALLY_KEPT_MAX. */
uint32_t tally_keep_next(struct tally *tally, const struct kept_wish *wish, uint64_t *cursor,
                         struct tick_now now, struct kept_count *rows, uint32_t row_max);
/** Another process goes on with what was counted so far: what is counted from now on is kept apart
 * as well, until it is false again. */
void tally_keep_part(struct tally *tally, bool is_parted);
/** What a row says, beside what was counted here; a senseless one is passed over. */
void tally_keep_restore(struct tally *tally, const struct kept_count *row, struct tick_now now);
/** How often something was counted. */
uint64_t tally_changes(const struct tally *tally);

#endif

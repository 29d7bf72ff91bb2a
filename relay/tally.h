/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_TALLY_H
#define RELAY_TALLY_H

#include "queue/rate.h"

/*
 * How often something happened, by who did it: rates for keys of any kind, for the keys used last.
 */
#define TALLY_KEY_MAX 300u

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

#endif

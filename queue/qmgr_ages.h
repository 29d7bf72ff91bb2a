/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_QMGR_AGES_H
#define QUEUE_QMGR_AGES_H

#include <stdbool.h>

#include "base/tick.h"

/*
 * How old the mail of a group is, without a walk: counts by time of arrival, in bins that are
 * narrow for young mail and wide for old. The count is exact; an age is known to within a quarter
 * of itself, or half a minute. At most QMGR_AGES_BINS_MAX bins of 12 octets a group, as many as its
 * mail needs.
 */
#define QMGR_AGES_BINS_MAX    32u
#define QMGR_AGE_BUCKET_COUNT 10u /* up to 5, 10, 20 ... 1,280 minutes, and above */

struct qmgr_age_bin {
    uint32_t start, end; /* seconds since 1970; end is not in it */
    uint32_t count;
};

struct qmgr_ages {
    struct qmgr_age_bin *bins; /* oldest first, none empty, none overlapping */
    uint8_t bin_count, bin_capacity;
};

void qmgr_ages_add(struct qmgr_ages *ages, wall_us arrived);
/** CHECKs that it was added. */
void qmgr_ages_remove(struct qmgr_ages *ages, wall_us arrived);
void qmgr_ages_fini(struct qmgr_ages *ages);
/** Add this group's counts to the buckets. */
void qmgr_ages_count(const struct qmgr_ages *ages, wall_us now,
                     uint32_t buckets[QMGR_AGE_BUCKET_COUNT]);
/** May there be mail that arrived between the two (both included)? Never a false no. */
bool qmgr_ages_may_hold(const struct qmgr_ages *ages, wall_us from, wall_us to);

#endif

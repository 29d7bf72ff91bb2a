/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_STATUS_SUMS_H
#define CONTROL_STATUS_SUMS_H

#include "control/shard.h"

/* The numbers of status.def, in its order, added up over the shards. */
enum status_counts {
#define STATUS(group, name, type, help) +1
#define SHARED(group, name, help)       +1
#define OWN(name, type, help)           +1
    STATUS_NUMBER_COUNT = 0
#include "control/status.def"
    ,
#define LATENCY(name, help) +1
    STATUS_LATENCY_COUNT = 0
#include "control/status.def"
    ,
#define FINE(name, help) +1
    STATUS_FINE_COUNT = 0
#include "control/status.def"
};

struct status_sums {
    uint32_t shard_count; /* 0: there is nothing in it, whatever is in its memory */
    uint64_t numbers[STATUS_NUMBER_COUNT];
    struct latency latencies[STATUS_LATENCY_COUNT];
    struct latency_fine fines[STATUS_FINE_COUNT];
};

void status_sums_add(struct status_sums *sums, const struct shard_status *status);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_LINE_ACCOUNT_H
#define BENCH_LINE_ACCOUNT_H

#include "control/shard.h"

/* What shards copied, and said to each other, as angarium-line tells it. */
struct account {
    struct flow_copied flow;
    struct relay_copied relay;
    uint64_t octets_sent, handovers, ring_sent;
};

void account_add(struct account *account, const struct shard_status *status);
/** What came between the two, for each message, as members of an object of JSON. */
void account_print(const struct account *before, const struct account *after, double messages);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/line/account.h"

#include <stdio.h>

void account_add(struct account *account, const struct shard_status *status)
{
#define X(name, meaning) account->flow.name += status->flow.copied.name;
    FLOW_COPIED_X(X)
#undef X
#define X(name, meaning) account->relay.name += status->copied.name;
#include "relay/copy.def"
#undef X
    account->octets_sent += status->flow.octets_sent;
    account->handovers += status->handovers;
    account->ring_sent += status->ring.sent;
}

void account_print(const struct account *before, const struct account *after, double messages)
{
    (void)printf("\"octets_sent\":%.1f,\"handovers\":%.4f,\"ring_messages\":%.4f,\"copied\":{",
                 (double)(after->octets_sent - before->octets_sent) / messages,
                 (double)(after->handovers - before->handovers) / messages,
                 (double)(after->ring_sent - before->ring_sent) / messages);
#define X(name, meaning)                                                                           \
    (void)printf("\"" #name "\":%.1f,", (double)(after->flow.name - before->flow.name) / messages);
    FLOW_COPIED_X(X)
#undef X
#define X(name, meaning)                                                                           \
    (void)printf("\"" #name "\":%.1f,",                                                            \
                 (double)(after->relay.name - before->relay.name) / messages);
#include "relay/copy.def"
#undef X
    (void)printf("\"messages\":%.0f}", messages);
}

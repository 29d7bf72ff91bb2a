/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_RECOVERY_NET_H
#define TESTS_UNIT_RECOVERY_NET_H

#include "base/rng.h"
#include "tests/unit/recovery_fixture.h"

/*
 * A path and a receiver behind the fixture's connection, in virtual time: segments and ACKs are
 * lost, late and doubled by chance. The receiver acknowledges as RFC 5681, 2018, 2883 and 7323 ask.
 * It says what became of the transfer.
 */
struct recovery_path {
    uint32_t flags; /* TCB_HAS_SACK, TCB_HAS_TIMESTAMPS */
    tick_us rtt, jitter;
    uint32_t loss, ack_loss, duplicate; /* in 10,000 */
    uint32_t segments;                  /* to be moved; at most RECOVERY_NET_SEGMENTS */
    bool is_delayed_ack;
    bool is_liar; /* the receiver adds blocks and DSACKs of its own invention */
    uint64_t seed;
};
#define RECOVERY_NET_SEGMENTS 20000u

struct recovery_result {
    tick_us time;
    uint32_t sent, lost, resent, needless; /* segments; needless: received twice */
    uint32_t time_outs, probes;
    bool is_complete; /* all arrived, and the sender knows */
};

struct recovery_result recovery_net_run(const struct recovery_path *path);

#endif

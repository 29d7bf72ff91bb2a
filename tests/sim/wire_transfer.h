/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SIM_WIRE_TRANSFER_H
#define TESTS_SIM_WIRE_TRANSFER_H

#include "dataplane/wire/port/link_sim.h"
#include "dataplane/wire/stack.h"

/*
 * One bulk transfer between two stacks over a simulated link, in virtual time: what it carried.
 * The sender always has more; the receiver reads at once.
 */
struct wire_transfer {
    struct link_sim_path forth, back; /* what data and ACKs meet */
    struct tcp_policy sender, receiver;
    tick_us warm_up, time; /* measured: `time` after `warm_up` */
    uint32_t flows;        /* at once; 0: one */
    uint64_t seed;
};

struct wire_transfer_result {
    uint64_t octets;      /* received by the application while measured, all flows */
    uint64_t least, most; /* of one flow */
    uint64_t segments, retransmitted, time_outs, probes;
    struct link_sim_stats link;
    uint64_t turns;
};

struct wire_transfer_result wire_transfer_run(const struct wire_transfer *transfer);

#endif

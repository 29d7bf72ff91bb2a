/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_DATAPLANE_DPDK_H
#define DATAPLANE_DATAPLANE_DPDK_H

#include "dataplane/dataplane.h"

/* Private to dataplane*.c: what a process with DPDK has besides kernel sockets. */
struct dataplane_dpdk;

/** EAL, pools of all cores, ports. `options` outlive it. As dataplane_new(). */
enum err dataplane_dpdk_new(const struct dataplane_options *options,
                            struct dataplane_dpdk **ret_dpdk,
                            char ret_why[DATAPLANE_WHY_SIZE]) MUST_CHECK;
void dataplane_dpdk_free(struct dataplane_dpdk *dpdk);
/** As dataplane_watch(). */
tick_us dataplane_dpdk_watch(struct dataplane_dpdk *dpdk, tick_us now);
/** The pool of a core's retained octets; stays ours. */
struct buf_pool *dataplane_dpdk_pool(struct dataplane_dpdk *dpdk, uint16_t core);
/** The engine of a core, joined with `host`, which is taken over, also on errors. */
enum err dataplane_dpdk_join(struct dataplane_dpdk *dpdk, uint16_t core, struct flow_plane *host,
                             struct flow_plane **ret_plane,
                             char ret_why[DATAPLANE_WHY_SIZE]) MUST_CHECK;

/* Of a plane that dataplane_dpdk_join() made, on its core's thread. */
uint32_t dataplane_dpdk_flows(struct flow_plane *plane, uint64_t *cursor,
                              struct dataplane_flow *ret_flows, uint32_t max);
uint32_t dataplane_dpdk_counters(struct flow_plane *plane, struct dataplane_counter *ret_counters,
                                 uint32_t max);
/* Every counter there is, values 0. */
uint32_t dataplane_dpdk_counters_known(struct dataplane_counter *ret_counters, uint32_t max);

#endif

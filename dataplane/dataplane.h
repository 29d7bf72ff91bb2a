/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_DATAPLANE_H
#define DATAPLANE_DATAPLANE_H

#include "dataplane/flow.h"

/*
 * The network of the whole process, as control/ assembles it: for each core a flow_plane and the
 * pool that its buffers come from. With DATAPLANE_HOST that is kernel sockets; with DATAPLANE_DPDK
 * it is DPDK's environment, ports with a queue for each core, an engine on each queue, and kernel
 * sockets beside it for what is local (dataplane/flow_pair.h).
 */
enum dataplane_driver { DATAPLANE_HOST, DATAPLANE_DPDK };
enum dataplane_poll { DATAPLANE_ADAPTIVE, DATAPLANE_BUSY };
enum dataplane_huge_pages { DATAPLANE_HUGE_AUTO, DATAPLANE_HUGE_NEVER };

#define DATAPLANE_PORT_MAX    8u
#define DATAPLANE_ADDRESS_MAX 64u /* over all ports */
#define DATAPLANE_WHY_SIZE    512u

struct dataplane_port_options {
    const char *device;    /* PCI address or DPDK's name and arguments of a virtual device */
    const char *exception; /* TAP interface for what is not ours; NULL: none */
    const struct flow_prefix *addresses; /* ours, with the size of the network */
    uint32_t address_count;
    struct flow_address gateway4, gateway6; /* family NONE: none */
    uint16_t mtu, vlan;
    bool has_no_checksums; /* nic_eth.h: between two engines on one machine */
};

struct dataplane_options {
    enum dataplane_driver driver;
    enum dataplane_poll poll;
    enum dataplane_huge_pages huge_pages;
    uint16_t core_count;
    uint32_t flow_count_max;        /* per core */
    uint32_t kernel_flow_count_max; /* of them at most so many kernel sockets; 0: all */
    uint32_t buffer_size;
    uint64_t buffer_memory; /* per core */
    uint64_t memory;        /* ports' buffers, over all cores */
    uint32_t connections_per_prefix_max;
    const struct flow_prefix *kernel;
    uint32_t kernel_count;
    const struct dataplane_port_options *ports;
    uint32_t port_count;
};

/** Does the kernel serve this address (to listen on, or to connect to)? */
bool dataplane_is_kernel(const struct dataplane_options *options,
                         const struct flow_address *address);

struct dataplane;

/**
 * Everything but the planes: environment, ports, memory.
 *
 * Threading: the control thread, once in the life of the process with DATAPLANE_DPDK (DPDK's
 *            environment cannot be set up twice).
 * Ownership: options and what they point to are copied as far as needed.
 * Errors:    ERR_SYSTEM, ERR_CONFIG_VALUE, with text in ret_why; nothing is left behind.
 */
enum err dataplane_new(const struct dataplane_options *options, struct dataplane **ret_dataplane,
                       char ret_why[DATAPLANE_WHY_SIZE]) MUST_CHECK;
/**
 * The plane of one core and its pool; both end with dataplane_core_free().
 *
 * Threading: the control thread, before the core's thread runs.
 * Errors:    ERR_SYSTEM, ERR_MEMORY, with text in ret_why.
 */
enum err dataplane_core_new(struct dataplane *dataplane, uint16_t core, uint64_t seed,
                            struct flow_plane **ret_plane,
                            char ret_why[DATAPLANE_WHY_SIZE]) MUST_CHECK;
/** Ports that are gone since are logged; returns when to look again, TICK_NEVER: nothing can go.
 * Threading: the control thread. */
tick_us dataplane_watch(struct dataplane *dataplane, tick_us now);
/** First thing a core's thread does. */
void dataplane_thread_begin(struct dataplane *dataplane);
/** Last thing a core's thread does. */
void dataplane_thread_end(struct dataplane *dataplane);
/** After the core's thread ended and its users let go of all flows and buffers. */
void dataplane_core_free(struct dataplane *dataplane, uint16_t core);
/** After every core was freed. */
void dataplane_free(struct dataplane *dataplane);

/* ---- seeing; on the core's thread ---- */

/* A connection, listener or datagram flow of the engine. Times in microseconds. */
struct dataplane_flow {
    struct flow_address local, remote;
    const char *state; /* "ESTABLISHED", "LISTEN", "UDP" ...; static */
    uint32_t receive_queued, send_queued, in_flight;
    uint32_t window_congestion, window_peer, mss, rtt_us, rto_us, retransmitted;
    uint64_t octets_received, octets_sent;
    tick_us age;
};
/** Flows of the core's engine from `*cursor` on (0 at first; UINT64_MAX when there are no more);
 * returns how many. None with kernel sockets: the system's own tools show those. */
uint32_t dataplane_flows(struct flow_plane *plane, uint64_t *cursor,
                         struct dataplane_flow *ret_flows, uint32_t max);

struct dataplane_counter {
    char port[32];                                /* "" for what is the engine's as a whole */
    const char *name, *severity, *text, *meaning; /* static */
    uint64_t value;
};
#define DATAPLANE_COUNTERS_MAX 1024u
/** Counters of the core's engine and of its queue of each port; returns how many. */
uint32_t dataplane_counters(struct flow_plane *plane, struct dataplane_counter *ret_counters,
                            uint32_t max);

/** Every counter there is, without a value: for the reference page. Any thread. */
uint32_t dataplane_counters_known(struct dataplane_counter *ret_counters, uint32_t max);

#endif

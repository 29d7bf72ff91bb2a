/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_PORT_NIC_ETH_H
#define DATAPLANE_WIRE_PORT_NIC_ETH_H

#include "dataplane/wire/nic.h"

/*
 * A port of DPDK's ethdev, hardware or virtual, opened once by the control thread; then one struct
 * nic per queue pair, each for the stack of one shard.
 *
 * Virtual devices, and what to know of them (nic_eth_driver.c has the rest):
 *   net_memif   shared memory to another process, which may come and go. Both ends need the same
 *               number of queues, or read garbage. The long-lived end takes role=server: a client
 *               connects once, when it is opened. socket=/path,socket-abstract=no keeps containers
 *               that share a network apart. The other end is trusted: it writes into our rings.
 *   net_tap     a TAP interface of the kernel: tests and exceptions, one system call per frame.
 *   net_af_packet, net_af_xdp
 *               frames of a kernel interface. Give it no address, or the kernel answers with
 *               resets. Turn off TSO, GSO, GRO, LRO and checksum offloads on both ends of a veth
 *               (`ethtool -K IFACE tso off gso off gro off lro off tx off rx off`): frames
 *               otherwise arrive longer than the MTU, or without checksums.
 * net_ring passes buffers of one stack to another without a copy, and is refused.
 */
#define NIC_ETH_QUEUES_MAX 64u
#define NIC_ETH_ERROR_SIZE 256u

/* Wish for whatever the port does better than the stack. */
#define NIC_ETH_OFFLOADS_AUTO UINT32_MAX

struct nic_eth_options {
    /* "0000:01:00.0" (named to eal_start()), or a virtual device with its arguments:
     * "net_memif0,role=server,socket=/run/angarium/memif,socket-abstract=no" */
    const char *device;
    uint16_t queue_count;
    uint16_t receive_descriptors, send_descriptors; /* 0: what suits the port */
    /* One per queue, on mempools: where received frames come from. */
    struct buf_pool *const *pools;
    uint16_t mtu;      /* of IP packets; 0: 1500, or what the port takes */
    uint32_t offloads; /* wishes, enum nic_offloads, or NIC_ETH_OFFLOADS_AUTO */
    /* Frames go to another engine on this machine and through memory alone: checksums are neither
     * computed nor verified. The other end must be told the same. */
    bool has_no_checksums;
    const char *exception; /* name of a TAP interface to make for what is not ours; NULL: none */
    tick_us connect_time;  /* how long the client of a memif waits for its server */
};

struct nic_eth_port;

/**
 * A started port.
 *
 * Ownership:  pools stay the caller's and outlive the port.
 * Threading:  control thread; before shards run, or at least not in step with a shard's turn: it
 *             may wait for connect_time.
 * Errors:     ERR_CONFIG_VALUE: no such device, or it cannot do what was asked; ERR_SYSTEM: a
 *             resource; ERR_TIMEOUT: nobody to connect to. `ret_error` says which, for people.
 */
enum err nic_eth_port_new(const struct nic_eth_options *options, struct nic_eth_port **ret_port,
                          char ret_error[NIC_ETH_ERROR_SIZE]) MUST_CHECK;
/** After every nic that was handed out is freed, what was received is released, and no shard runs.
 * The device is removed. */
void nic_eth_port_free(struct nic_eth_port *port);

/** The nic of one queue; each can be handed out once, and is the caller's then. Everything done
 * with it is its shard's. */
struct nic *nic_eth_queue(struct nic_eth_port *port, uint16_t queue);

bool nic_eth_port_has_link(const struct nic_eth_port *port);
/** True when it is up; false after `time`. */
bool nic_eth_port_wait_link(const struct nic_eth_port *port, tick_us time);
/** The port is on an interface of the kernel, which could be deleted. */
bool nic_eth_port_is_kernel(const struct nic_eth_port *port);
/**
 * Look whether the kernel's interface is still there; once it is not, the port is gone for good.
 *
 * Threading: control thread.
 * Cost:      system calls.
 */
bool nic_eth_port_is_gone(struct nic_eth_port *port);
/** "net_memif"; static as long as the port. */
const char *nic_eth_port_driver(const struct nic_eth_port *port);

/* ---- counts ---- */

/* What the driver and the card count. */
struct nic_eth_port_stats {
    uint64_t received, sent, octets_received, octets_sent;
    uint64_t missed;         /* the receive queue was full: shards too slow */
    uint64_t errors;         /* damaged, or too long */
    uint64_t without_buffer; /* the receive pool was empty */
    uint64_t send_errors;
    uint64_t exceptions_out, exceptions_in; /* frames to and from the exception interface */
    uint64_t exceptions_dropped;
    uint64_t gone; /* the kernel's interface below it is: 1 */
};
/** Threading: control thread. */
struct nic_eth_port_stats nic_eth_port_stats(const struct nic_eth_port *port);

/* What a queue counts itself. */
struct nic_eth_queue_stats {
    uint64_t received, sent;
    uint64_t send_full;    /* frames refused for now, since the transmit queue was full */
    uint64_t send_invalid; /* frames that the driver would not send at all: dropped */
    uint64_t passed, taken;
    uint64_t pass_dropped;        /* the other queue's ring was full */
    uint64_t take_dropped;        /* no buffer for a passed frame */
    uint64_t except_dropped;      /* the exception path was full */
    uint64_t hash_good, hash_bad; /* hashes of the card compared with ours */
};
/** Threading: any; counts of another thread may be a moment old. */
struct nic_eth_queue_stats nic_eth_queue_stats(const struct nic *nic);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_NIC_H
#define DATAPLANE_WIRE_NIC_H

#include "base/buf.h"
#include "base/tick.h"

/*
 * A nic brings frames to one stack and takes frames from it: one queue pair of an ethdev
 * (port/nic_eth.h), one end of a simulated link (port/link_sim.h), or what an embedding program
 * wraps around its own packets. The engine sees nothing else of the outside. It is the one header
 * that a program without DPDK's EAL implements.
 *
 * A frame is a chain of buffers (mbuf.next, mbuf.nb_segs and mbuf.pkt_len set in the first), from
 * the Ethernet header on, or from the IP header on with NIC_IS_L3. Received frames are owned by the
 * stack from then on and released to the pool they came from. Frames given to nic_send() are owned
 * by the nic once accepted.
 *
 * Checksums: a received buffer says in mbuf.ol_flags what the nic found (RTE_MBUF_F_RX_{IP,L4}_
 * CKSUM_*): GOOD, BAD, NONE (partial, but the data is good), or UNKNOWN: the stack then verifies
 * itself. A buffer to be sent asks by RTE_MBUF_F_TX_* only for what `offloads` grants, with the
 * pseudo-header sum in place and l2_len, l3_len, l4_len (and tso_segsz) set. As DPDK wants it: the
 * pseudo-header of a TSO frame counts its length as zero, RTE_MBUF_F_TX_IPV4 or _IPV6 comes with
 * every request, and TSO over IPv4 asks for the IP checksum as well (whose field is then zero).
 *
 * The stack writes notes of its own where the hash of a received buffer was, and says so by one of
 * the flags that DPDK leaves to applications: NIC_STACK_FLAG, the highest of them. No driver may
 * have it (eal_start() claims it). A nic need not take it off a buffer that comes again.
 */
#define NIC_STACK_FLAG RTE_MBUF_F_LAST_FREE

enum nic_offloads {
    NIC_TX_IP4_CHECKSUM = 1u << 0,
    NIC_TX_TCP_CHECKSUM = 1u << 1,
    NIC_TX_UDP_CHECKSUM = 1u << 2,
    NIC_TX_TSO = 1u << 3,
    NIC_TX_MULTI_SEGMENT = 1u << 4, /* without it every frame must be one buffer */
    NIC_RX_CHECKSUM = 1u << 5,      /* ol_flags of received buffers mean something */
    NIC_IS_L3 = 1u << 6, /* no Ethernet header, no ARP, no neighbour discovery by link address */
};

#define NIC_RSS_KEY_SIZE 52u
#define NIC_RETA_MAX     512u

/* How frames find their queue, and so which source ports bring replies back to this one. The same
 * for every stack of a port. */
struct nic_steering {
    uint16_t queue, queue_count;
    bool is_hardware; /* the port computes this hash itself, verified; else stacks pass frames on */
    uint8_t key[NIC_RSS_KEY_SIZE];
    uint16_t reta_size; /* a power of two */
    uint16_t reta[NIC_RETA_MAX];
};

struct nic;
struct nic_ops {
    uint32_t (*receive)(struct nic *nic, tick_us now, struct buf **ret_frames, uint32_t max);
    uint32_t (*send)(struct nic *nic, tick_us now, struct buf **frames, uint32_t count);
    void (*pass)(struct nic *nic, uint16_t queue, struct buf *frame);
    void (*except)(struct nic *nic, struct buf *frame);
    tick_us (*deadline)(struct nic *nic);
    void (*free)(struct nic *nic);
};

struct nic {
    const struct nic_ops *ops;
    uint8_t mac[6];
    uint16_t mtu_max;      /* largest IP packet that fits a frame */
    uint16_t segments_max; /* buffers per frame sent, with NIC_TX_MULTI_SEGMENT */
    uint32_t tso_size_max; /* octets of payload per frame, with NIC_TX_TSO */
    uint32_t offloads;     /* enum nic_offloads */
    struct nic_steering steering;
};

#define NIC_BURST 32u

/** Up to `max` frames that have arrived. Never blocks. */
static inline uint32_t nic_receive(struct nic *nic, tick_us now, struct buf **ret_frames,
                                   uint32_t max)
{
    return nic->ops->receive(nic, now, ret_frames, max);
}
/** Send; returns how many were accepted (and are the nic's), in order from the first. Never blocks.
 */
static inline uint32_t nic_send(struct nic *nic, tick_us now, struct buf **frames, uint32_t count)
{
    return nic->ops->send(nic, now, frames, count);
}
/** Hand a received frame to the stack of another queue. The frame must be the caller's alone.
 * CHECKs that there is another queue. */
static inline void nic_pass(struct nic *nic, uint16_t queue, struct buf *frame)
{
    nic->ops->pass(nic, queue, frame);
}
/** A received frame that is not the stack's (other protocol, other address): to the exception path,
 * or dropped where there is none (ops->except NULL: the caller releases it). */
static inline bool nic_has_exception(const struct nic *nic)
{
    return nic->ops->except != NULL;
}
/** When the nic has to be polled next though nothing arrives from outside (a simulated link);
 * TICK_NEVER for real ones. */
static inline tick_us nic_deadline(struct nic *nic)
{
    return nic->ops->deadline == NULL ? TICK_NEVER : nic->ops->deadline(nic);
}
static inline void nic_free(struct nic *nic)
{
    nic->ops->free(nic);
}

#endif

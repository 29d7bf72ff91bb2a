/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_NET_UDP_H
#define DATAPLANE_WIRE_NET_UDP_H

#include "dataplane/wire/net/stack_internal.h"
#include "dataplane/wire/tcp/tcp.h"

/* Private to net/udp*.c: flows and their table in udp.c, their datagrams in udp_datagram.c. */

#define UDP_QUEUE_MAX 16u

struct udp_flow {
    struct flow_slot slot; /* first */
    struct flow_address local, remote;
    struct destination *destination;
    uint32_t chain_next; /* index of the next slot in the bucket */
    uint8_t queue_head, queue_count;
    bool is_unreachable;              /* to be told by the next receive */
    struct buf *queue[UDP_QUEUE_MAX]; /* from the payload on; pkt_len is its size */
};
_Static_assert(offsetof(struct udp_flow, slot) == 0, "the core's slots are flows");
_Static_assert(sizeof(struct udp_flow) <= sizeof(struct tcb), "slots are as large as a tcb");

struct udp_shared {
    uint32_t *buckets;
    uint32_t bucket_mask, count;
    uint8_t scratch[FLOW_DATAGRAM_SIZE_MAX]; /* the datagram that was taken last */
};

static inline struct udp_flow *udp_of(struct flow_slot *slot)
{
    return (struct udp_flow *)(void *)slot;
}

/** The flow bound to exactly this address and port, or NULL. */
struct udp_flow *udp_flow_find(struct stack *stack, const struct flow_address *local);
/** The oldest datagram that waits. CHECKs that there is one. */
struct buf *udp_queue_pop(struct udp_flow *flow);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_NET_IP_INPUT_H
#define DATAPLANE_WIRE_NET_IP_INPUT_H

#include "dataplane/wire/net/stack_internal.h"

/* What ip_input.c and ip_input_burst.c share: a frame between its parsing and its end. */

enum frame_kind { FRAME_FAULTY, FRAME_ALIEN, FRAME_ARP, FRAME_IP };

/* What parsing found. */
struct frame {
    struct packet packet;
    enum frame_kind kind;
    enum stack_counter fault; /* why, of what is faulty or alien */
    uint32_t next_count;      /* in a burst: so many follow it on its connection */
    bool is_group;            /* the link address names more than us */
    bool is_through;          /* TCP has it */
    bool is_like;             /* the frame before it, in all that ip_input() asks */
};

/** Parse; nothing is done yet. */
void frame_begin(struct stack *stack, struct stack_port *port, struct buf *buf,
                 struct frame *ret_frame);
/** Steer, show, judge and dispatch; takes the frame's buffer. `before`: the frame before it in the
 * burst, if it is like that one. */
void frame_end(struct stack *stack, struct stack_port *port, const struct frame *before,
               struct frame *frame);

/* GOOD was verified by the nic; NONE says that the sum is not one but the octets are sound (a
 * packet that never left its machine). Where the nic is silent, or says BAD, we look ourselves: a
 * nic can be wrong about what it does not know (UDP without checksum, tunnels). */
static inline bool is_checksum_known(const struct packet *packet, uint64_t mask, uint64_t good,
                                     uint64_t none)
{
    uint64_t verdict = packet->buf->mbuf.ol_flags & mask;
    return packet->port->nic->offloads & NIC_RX_CHECKSUM && (verdict == good || verdict == none);
}

#endif

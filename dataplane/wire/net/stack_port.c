/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames on their way out of the stack, one queue per port.
 *
 * What a turn builds waits in the port's array and is given to the nic at the end of the turn, or
 * when the array is full. What the nic refuses stays in front and is offered again in the next
 * turn. When nothing more fits, the newest frame is dropped: TCP sends again, and the older ones
 * are nearer to going. A nic that takes nothing for STALL_TIME loses all that waits: segments that
 * come a second late were sent again already.
 *
 * A frame of more buffers than the nic takes is copied into fewer here, the last place on the way.
 *
 * Invariants
 *   1. waiting[0 .. waiting_count) are complete frames, in the order in which they were given.
 *   2. The first waiting_refused of them were refused before (and counted).
 *   3. Every frame is sent, waits, or was dropped and counted.
 */
#include "dataplane/wire/net/chain.h"
#include "dataplane/wire/net/stack_internal.h"

#define STALL_TIME      TICK_S(1)
#define COMPACT_FORWARD 32u /* octets of headroom that a copied frame takes for its headers */

static void frame_drop(struct stack *stack, struct buf *frame)
{
    STACK_COUNT(stack, SEND_DROPPED);
    buf_release_chain(frame);
}

/* ---- frames of too many buffers ---- */

/* The frame in at most port->segments_max buffers; NULL when that cannot be: then it is gone. */
static struct buf *frame_compact(struct stack *stack, const struct stack_port *port,
                                 struct buf *frame)
{
    uint32_t room = buf_pool_data_size(stack->options.pool) + COMPACT_FORWARD;
    struct buf *copy = NULL;

    if (frame->mbuf.pkt_len <= (uint32_t)port->segments_max * room)
        copy = chain_copy(stack->options.pool, frame, 0, BUF_HEADROOM - COMPACT_FORWARD);
    if (copy == NULL) {
        frame_drop(stack, frame);
        return NULL;
    }
    copy->mbuf.ol_flags = frame->mbuf.ol_flags & RTE_MBUF_F_TX_OFFLOAD_MASK;
    copy->mbuf.tx_offload = frame->mbuf.tx_offload;
    buf_release_chain(frame);
    STACK_COUNT(stack, SEND_COMPACTED);
    flow_core_copied(&stack->core, &stack->core.stats.copied.compacted, copy->mbuf.pkt_len);
    return copy;
}

/* ---- the queue ---- */

void stack_port_send(struct stack *stack, struct stack_port *port, struct buf *frame)
{
    if (frame->mbuf.nb_segs > port->segments_max) {
        frame = frame_compact(stack, port, frame);
        if (frame == NULL)
            return;
    }
    if (port->waiting_count == STACK_SEND_QUEUE)
        stack_port_flush(stack, port);
    if (port->waiting_count == STACK_SEND_QUEUE) {
        frame_drop(stack, frame);
        return;
    }
    if (stack->tap != NULL)
        stack->tap(stack->tap_context, port->index, true, frame, stack->now);
    if (port->waiting_count == 0)
        port->accepted_at = stack->now;
    port->waiting[port->waiting_count++] = frame;
    if (port->waiting_count == NIC_BURST)
        stack_port_flush(stack, port);
}

/* The nic took `sent` frames from the front. */
static void port_keep_refused(struct stack *stack, struct stack_port *port, uint32_t sent)
{
    uint32_t left = port->waiting_count - sent;
    uint32_t counted = port->waiting_refused > sent ? port->waiting_refused - sent : 0;

    STACK_COUNT_BY(stack, FRAMES_SENT, sent);
    STACK_COUNT_BY(stack, SEND_FULL, left - counted);
    if (sent > 0) {
        memmove(port->waiting, port->waiting + sent, left * sizeof(port->waiting[0]));
        port->accepted_at = stack->now;
    }
    port->waiting_count = port->waiting_refused = left;
    if (left == 0 || stack->now - port->accepted_at < STALL_TIME)
        return;
    for (uint32_t i = 0; i < left; i++)
        frame_drop(stack, port->waiting[i]);
    port->waiting_count = port->waiting_refused = 0;
}

void stack_port_flush(struct stack *stack, struct stack_port *port)
{
    uint32_t sent = 0;

    if (port->waiting_count == 0)
        return;
    while (sent < port->waiting_count) {
        uint32_t left = port->waiting_count - sent;
        uint32_t count = left < NIC_BURST ? left : NIC_BURST;
        uint32_t taken = nic_send(port->nic, stack->now, port->waiting + sent, count);
        CHECK(taken <= count);
        sent += taken;
        if (taken < count)
            break;
    }
    port_keep_refused(stack, port, sent);
}

void stack_port_except(struct stack *stack, struct packet *packet, enum stack_counter why)
{
    struct nic *nic = packet->port->nic;

    if (!nic_has_exception(nic)) {
        stack->counters[why]++;
        return;
    }
    STACK_COUNT(stack, FRAMES_EXCEPTED);
    nic->ops->except(nic, packet->buf);
    packet->buf = NULL;
}

struct buf *stack_header_acquire(struct stack *stack)
{
    struct buf *buf = buf_acquire(stack->options.header_pool);

    if (buf == NULL)
        STACK_COUNT(stack, SEND_NO_BUFFER);
    return buf;
}

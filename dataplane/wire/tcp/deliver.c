/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Octets that are in order, to the flow.
 *
 * A payload goes there in the buffer it arrived in, with a note for whoever sends it on (whole.h).
 * It is copied behind what was copied before, and the buffer let go, when it is small beside its
 * buffer and others are charged already, so that what a window lets in never pins more than twice
 * its size; or when the pool that the nic receives into runs low. Both are counted. When it is low
 * and there is nothing to copy into either, payload is dropped and comes again: the reserve is for
 * ACKs, which set buffers free.
 */
#include "dataplane/wire/net/chain.h"
#include "dataplane/wire/tcp/tcp.h"
#include "dataplane/wire/tcp/whole.h"

bool tcp_receive_is_low(const struct stack *stack)
{
    const struct buf_pool *pool = stack->options.receive_pool;
    return pool != NULL && buf_pool_available(pool) < stack->options.receive_reserve;
}

/* Where one pool is both, copies may have half of the reserve. */
bool tcp_deliver_has_room(const struct stack *stack, uint32_t size)
{
    const struct buf_pool *pool = stack->options.pool;

    if (!tcp_receive_is_low(stack))
        return true;
    uint32_t kept = pool == stack->options.receive_pool ? stack->options.receive_reserve / 2 : 0;
    return buf_pool_available(pool) > kept + size / buf_pool_data_size(pool) + 1;
}

static bool is_small(const struct flow_slot *slot, const struct buf *buf)
{
    return slot->charge > 0 && buf_size(buf) * 2 < buf_charge(buf);
}

/* True: all octets were copied, the buffer is not needed. What was copied of it is cut off. */
static bool deliver_by_copy(struct stack *stack, struct tcb *tcb, struct buf *buf, bool is_low)
{
    struct flow_copied *reasons = &stack->core.stats.copied;
    uint32_t copied =
        flow_core_receive_copy(&stack->core, &tcb->slot, span_of(buf_data(buf), buf_size(buf)),
                               is_low ? &reasons->reserve : &reasons->small);
    if (copied == buf_size(buf))
        return true;
    buf->mbuf.data_off = (uint16_t)(buf->mbuf.data_off + copied);
    buf->mbuf.data_len = (uint16_t)(buf->mbuf.data_len - copied);
    STACK_COUNT(stack, TCP_RECEIVE_COPY_FAILED);
    return false;
}

/* True: nothing was copied. */
static bool deliver_one(struct stack *stack, struct tcb *tcb, struct buf *buf, bool is_low)
{
    bool is_kept = !is_low && !is_small(&tcb->slot, buf);

    if (!is_kept) {
        if (is_low)
            STACK_COUNT(stack, TCP_RECEIVE_COPIED_RESERVE);
        else
            STACK_COUNT(stack, TCP_RECEIVE_COPIED_SMALL);
        if (deliver_by_copy(stack, tcb, buf, is_low)) {
            buf_release(buf);
            return false;
        }
    }
    flow_core_receive_buf(&stack->core, &tcb->slot, buf, buf->mbuf.data_off, buf_size(buf));
    return is_kept;
}

void tcp_deliver(struct stack *stack, struct tcb *tcb, struct buf *chain, uint32_t size)
{
    tcb->rcv_nxt += size;
    tcb->octets_received += size;
    /* So that no RST takes our last reply from the peer. */
    if (tcb->slot.flags & FLOW_SLOT_ORPHAN) {
        buf_release_chain(chain);
        STACK_COUNT_BY(stack, TCP_ORPHAN_OCTETS_DROPPED, size);
        return;
    }
    while (chain != NULL) {
        struct buf *next = chain_next(chain);
        chain->mbuf.next = NULL;
        if (buf_size(chain) > 0)
            (void)deliver_one(stack, tcb, chain, tcp_receive_is_low(stack));
        else
            buf_release(chain);
        chain = next;
    }
}

bool tcp_deliver_whole(struct stack *stack, struct tcb *tcb, struct buf *buf,
                       const struct tcp_payload *payload, bool is_low)
{
    buf->mbuf.data_off = (uint16_t)(buf->mbuf.data_off + payload->offset);
    buf->mbuf.data_len = (uint16_t)payload->size;
    tcb->rcv_nxt += payload->size;
    tcb->octets_received += payload->size;
    tcp_whole_forget(buf);
    if (!payload->is_trimmed && payload->size >= TCP_WHOLE_SIZE_MIN)
        tcp_whole_note(buf, buf->mbuf.data_off, payload->size, payload->is_summed, payload->sum);
    return deliver_one(stack, tcb, buf, is_low);
}

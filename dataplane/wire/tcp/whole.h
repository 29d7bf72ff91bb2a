/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_TCP_WHOLE_H
#define DATAPLANE_WIRE_TCP_WHOLE_H

#include "base/buf.h"
#include "dataplane/wire/net/net.h"

/*
 * A payload that leaves as it came: in the buffer the nic put it into, with our headers where the
 * sender's were, and with the sum that was computed when it was verified.
 *
 * A buffer that holds the payload of one segment, and has room for a train of headers in front of
 * it, carries a note of where it lies and what it sums up to. The note lies where the nic's hash
 * was (which nobody asks for any more), and a flag says that it is there (nic.h). Buffers come
 * again with the flag where drivers leave it, so what is received has a note of its own or none.
 * What is in front of the payload was headers and is nobody's, so it may be written to whoever else
 * holds the buffer; but where a frame of the buffer begins and ends is written into the buffer
 * itself, so it can go that way once only, and the flag is taken off with it. Whatever is sent
 * again is a copy.
 */

/* Smaller ones are three quarters of no mss there is (tcp_send_cut()). */
#define TCP_WHOLE_SIZE_MIN 256u

struct tcp_whole {
    uint16_t offset, size; /* as those of a slice */
    uint16_t sum;          /* wire_sum(), folded */
    uint16_t has_sum;      /* 0: the nic verified it */
};
_Static_assert(sizeof(struct tcp_whole) == sizeof(((struct rte_mbuf *)0)->hash), "in its place");

/** `buf` is one that the nic gave, with this payload and nothing else that is needed in it. */
static inline void tcp_whole_note(struct buf *buf, uint32_t offset, uint32_t size, bool has_sum,
                                  uint64_t sum)
{
    struct tcp_whole whole = {.offset = (uint16_t)offset,
                              .size = (uint16_t)size,
                              .sum = (uint16_t)~wire_sum_finish(sum),
                              .has_sum = has_sum};

    if (buf->mbuf.ol_flags & (RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL) || offset < IP_TRAIN_SIZE)
        return;
    memcpy(&buf->mbuf.hash, &whole, sizeof(whole));
    buf->mbuf.ol_flags |= NIC_STACK_FLAG;
}

static inline void tcp_whole_forget(struct buf *buf)
{
    buf->mbuf.ol_flags &= ~(uint64_t)NIC_STACK_FLAG;
}

static inline struct tcp_whole tcp_whole_get(const struct buf *buf)
{
    struct tcp_whole whole;

    memcpy(&whole, &buf->mbuf.hash, sizeof(whole));
    return whole;
}

/** The slice is a payload that may go as it came. */
static inline bool tcp_whole_is(const struct buf_slice *slice)
{
    const struct tcp_whole whole = tcp_whole_get(slice->buf);

    return slice->buf->mbuf.ol_flags & NIC_STACK_FLAG && whole.offset == slice->offset &&
           whole.size == slice->size;
}
/** And it is worth to be sent in one frame: nearly a full segment. */
static inline bool tcp_whole_is_worth(const struct buf_slice *slice, uint32_t mss)
{
    return slice->size <= mss && slice->size >= mss - mss / 4u && tcp_whole_is(slice);
}

#endif

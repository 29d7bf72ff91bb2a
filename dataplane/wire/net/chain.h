/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_NET_CHAIN_H
#define DATAPLANE_WIRE_NET_CHAIN_H

#include "base/buf.h"

/* Frames of several buffers (linked by mbuf.next): what is done to their octets as if they were in
 * one piece. */

static inline struct buf *chain_next(const struct buf *buf)
{
    return (struct buf *)(void *)buf->mbuf.next;
}
/** Octets in all buffers, whatever pkt_len says; UINT32_MAX: more than CHAIN_MAX buffers. */
uint32_t chain_size(const struct buf *chain);
#define CHAIN_MAX 64u
/** Cut off what is behind the first `size` octets. CHECKs that there are as many. */
void chain_trim(struct buf *chain, uint32_t size);
/** Sum (wire_sum()) of `size` octets from `offset` on; as many must be there. */
uint64_t chain_sum(const struct buf *chain, uint32_t offset, uint32_t size);
/** Copy `size` octets from `offset` on out; as many must be there. */
void chain_copy_out(const struct buf *chain, uint32_t offset, uint8_t *ret_octets, uint32_t size);
/** What is from `offset` on, in as few buffers of `pool` as hold it, which begin at `data_off`.
 * NULL: the pool is empty. */
struct buf *chain_copy(struct buf_pool *pool, const struct buf *chain, uint32_t offset,
                       uint16_t data_off) MUST_CHECK;
/**
 * The first `size` octets into the first buffer: into its own room if nobody else sees it, else
 * into a fresh buffer of `pool`, with the flags of the first. Returns the chain's new head; NULL
 * when there is no room, and then the chain is as it was.
 */
struct buf *chain_pull_up(struct buf_pool *pool, struct buf *chain, uint32_t size) MUST_CHECK;

#endif

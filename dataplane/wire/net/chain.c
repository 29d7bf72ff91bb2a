/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Octets of frames that lie in several buffers.
 *
 * Invariants
 *   1. After every change mbuf.nb_segs and mbuf.pkt_len of the head are right again.
 *   2. A buffer that somebody else may see (a second reference, octets that are another buffer's)
 *      is not written into.
 *   3. A walk ends: chains of received frames are judged by chain_size() first.
 */
#include "dataplane/wire/net/chain.h"

#include "dataplane/wire/format/packet.h"

uint32_t chain_size(const struct buf *chain)
{
    uint32_t size = 0, count = 0;

    for (const struct buf *buf = chain; buf != NULL; buf = chain_next(buf)) {
        if (++count > CHAIN_MAX)
            return UINT32_MAX;
        size += buf_size(buf);
    }
    return size;
}

static void chain_renumber(struct buf *chain)
{
    uint32_t size = 0;
    uint16_t count = 0;

    for (const struct buf *buf = chain; buf != NULL; buf = chain_next(buf)) {
        size += buf_size(buf);
        count++;
    }
    chain->mbuf.pkt_len = size;
    chain->mbuf.nb_segs = count;
}

void chain_trim(struct buf *chain, uint32_t size)
{
    struct buf *buf = chain;
    uint32_t left = size;

    while (left > buf_size(buf)) {
        left -= buf_size(buf);
        buf = chain_next(buf);
        CHECK(buf != NULL);
    }
    buf->mbuf.data_len = (uint16_t)left;
    if (buf == chain && buf->mbuf.next == NULL) { /* the usual frame */
        chain->mbuf.pkt_len = size;
        return;
    }
    buf_release_chain(chain_next(buf));
    buf->mbuf.next = NULL;
    chain_renumber(chain);
}

uint64_t chain_sum(const struct buf *chain, uint32_t offset, uint32_t size)
{
    uint32_t at = 0;
    uint64_t sum = 0;

    for (const struct buf *buf = chain; at < size; buf = chain_next(buf)) {
        CHECK(buf != NULL);
        if (offset >= buf_size(buf)) {
            offset -= buf_size(buf);
            continue;
        }
        uint32_t part = buf_size(buf) - offset;
        part = part < size - at ? part : size - at;
        uint64_t part_sum = wire_sum(buf_data(buf) + offset, part);
        sum += at % 2 == 0 ? part_sum : wire_sum_swap(part_sum);
        at += part;
        offset = 0;
    }
    return sum;
}

void chain_copy_out(const struct buf *chain, uint32_t offset, uint8_t *ret_octets, uint32_t size)
{
    for (const struct buf *buf = chain; size > 0; buf = chain_next(buf)) {
        CHECK(buf != NULL);
        if (offset >= buf_size(buf)) {
            offset -= buf_size(buf);
            continue;
        }
        uint32_t part = buf_size(buf) - offset;
        part = part < size ? part : size;
        memcpy(ret_octets, buf_data(buf) + offset, part);
        ret_octets += part;
        size -= part;
        offset = 0;
    }
}

struct buf *chain_copy(struct buf_pool *pool, const struct buf *chain, uint32_t offset,
                       uint16_t data_off)
{
    uint32_t left = chain->mbuf.pkt_len - offset;
    struct buf *head = NULL, *last = NULL;

    do {
        struct buf *buf = buf_acquire(pool);
        if (buf == NULL) {
            buf_release_chain(head);
            return NULL;
        }
        buf->mbuf.data_off = data_off;
        uint32_t part = left < buf_room(buf) ? left : buf_room(buf);
        chain_copy_out(chain, offset, buf_data(buf), part);
        buf_extend(buf, part);
        offset += part;
        left -= part;
        if (head == NULL)
            head = buf;
        else
            last->mbuf.next = &buf->mbuf;
        last = buf;
    } while (left > 0);
    chain_renumber(head);
    return head;
}

/* Moves the first `size` octets of `from` to the end of `to`; returns what is left of `from`. */
static struct buf *chain_move(struct buf *to, struct buf *from, uint32_t size)
{
    while (size > 0) {
        CHECK(from != NULL);
        uint32_t part = size < buf_size(from) ? size : buf_size(from);
        memcpy(buf_data(to) + buf_size(to), buf_data(from), part);
        to->mbuf.data_len = (uint16_t)(to->mbuf.data_len + part);
        from->mbuf.data_off = (uint16_t)(from->mbuf.data_off + part);
        from->mbuf.data_len = (uint16_t)(from->mbuf.data_len - part);
        size -= part;
        if (buf_size(from) > 0)
            break;
        struct buf *next = chain_next(from);
        from->mbuf.next = NULL;
        buf_release(from);
        from = next;
    }
    CHECK(size == 0);
    return from;
}

struct buf *chain_pull_up(struct buf_pool *pool, struct buf *chain, uint32_t size)
{
    const uint64_t shared = RTE_MBUF_F_INDIRECT | RTE_MBUF_F_EXTERNAL;
    struct buf *rest;

    if (buf_size(chain) >= size)
        return chain;
    if (chain->mbuf.refcnt == 1 && !(chain->mbuf.ol_flags & shared) &&
        buf_room(chain) >= size - buf_size(chain)) {
        rest = chain_move(chain, chain_next(chain), size - buf_size(chain));
        chain->mbuf.next = rest == NULL ? NULL : &rest->mbuf;
        chain_renumber(chain);
        return chain;
    }
    struct buf *fresh = buf_acquire(pool);
    if (fresh == NULL)
        return NULL;
    if (buf_room(fresh) < size) {
        buf_release(fresh);
        return NULL;
    }
    fresh->mbuf.ol_flags = chain->mbuf.ol_flags & ~shared;
    fresh->mbuf.vlan_tci = chain->mbuf.vlan_tci;
    rest = chain_move(fresh, chain, size);
    fresh->mbuf.next = rest == NULL ? NULL : &rest->mbuf;
    chain_renumber(fresh);
    return fresh;
}

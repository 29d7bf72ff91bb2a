/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames that came together. What is asked of a frame of TCP up to its connection is asked once of
 * all that have the same headers:
 *
 *   one that is read by itself (ip_input.c)
 *   one that is like the one before: link and IP header differ in nothing but sizes and
 *   identification, so the same was read, and whose it is is not asked again
 *   one that is next: of the same ports, too, so of the same connection. Of it no more is kept than
 *   its buffer and its size; all else is in the frame that it follows.
 *
 * First all are read, and what they will need of tables and connections is asked for, so that
 * memory is waited for once; then they are worked in their order.
 *
 * Limits: NIC_BURST frames.
 */
#include "dataplane/wire/net/chain.h"
#include "dataplane/wire/net/ip_input.h"
#include "dataplane/wire/tcp/tcp.h"

struct burst {
    uint32_t count, next_count;
    struct frame frames[NIC_BURST];
    struct packet_next nexts[NIC_BURST]; /* those of all frames, in their order */
};

/* ---- read ---- */

enum likeness { FRAME_OTHER, FRAME_LIKE, FRAME_NEXT };

static bool is_link_like(const uint8_t *octets, const uint8_t *before, uint32_t size)
{
    if (size == ETHERNET_HEADER_SIZE)
        return memcmp(octets, before, ETHERNET_HEADER_SIZE) == 0;
    return size == 0 || memcmp(octets, before, size) == 0;
}

/* IP headers without options that differ in size, checksum and IPv4's identification at most. */
static bool is_header_like(const uint8_t *octets, const uint8_t *before, uint8_t family)
{
    if (family == 4)
        return memcmp(octets, before, 2) == 0 && memcmp(octets + 6, before + 6, 4) == 0 &&
               memcmp(octets + 12, before + 12, 8) == 0;
    return memcmp(octets, before, 4) == 0 && memcmp(octets + 6, before + 6, 34) == 0;
}

/* It has what the headers of a packet of TCP without options before that header take. */
static bool is_layout_like(const struct buf *buf, const struct packet *like)
{
    uint16_t header_size = like->ip.family == 4 ? IP4_HEADER_SIZE : IP6_HEADER_SIZE;

    return like->has_key_hash && buf_size(buf) >= (uint32_t)like->l4_offset + TCP_HEADER_SIZE &&
           !like->is_copied && buf->mbuf.next == NULL && like->ip.header_size == header_size &&
           buf->mbuf.ol_flags == like->buf->mbuf.ol_flags &&
           buf->mbuf.vlan_tci == like->buf->mbuf.vlan_tci;
}

/* Link and IP header but for sizes and identification are those of the packet before: the same
 * octets, of which the same was read. Otherwise it is to be parsed by itself. */
static enum likeness buf_compare(struct buf *buf, const struct packet *like, uint16_t *ret_l4_size)
{
    const uint8_t *octets = buf_data(buf), *before = buf_data(like->buf);
    const uint8_t *l3 = octets + like->l3_offset;
    uint32_t size = buf_size(buf), l4_at = like->l4_offset, l4_size;

    if (!is_layout_like(buf, like) || !is_link_like(octets, before, like->l3_offset) ||
        !is_header_like(l3, before + like->l3_offset, like->ip.family))
        return FRAME_OTHER;
    l4_size =
        like->ip.family == 4 ? load_be16(l3 + 2) - (uint32_t)IP4_HEADER_SIZE : load_be16(l3 + 4);
    if (l4_size < TCP_HEADER_SIZE || l4_size > size - l4_at)
        return FRAME_OTHER;
    if (like->ip.family == 4 &&
        !is_checksum_known(like, RTE_MBUF_F_RX_IP_CKSUM_MASK, RTE_MBUF_F_RX_IP_CKSUM_GOOD,
                           RTE_MBUF_F_RX_IP_CKSUM_NONE) &&
        wire_sum_finish(wire_sum_header(l3, IP4_HEADER_SIZE)) != 0)
        return FRAME_OTHER;
    if (l4_at + l4_size < size)
        chain_trim(buf, l4_at + l4_size);
    *ret_l4_size = (uint16_t)l4_size;
    return memcmp(octets + l4_at, before + l4_at, 4) == 0 ? FRAME_NEXT : FRAME_LIKE;
}

static void frame_begin_like(struct buf *buf, const struct frame *before, uint16_t l4_size,
                             struct frame *ret_frame)
{
    *ret_frame = *before;
    packet_step(&ret_frame->packet, &(struct packet_next){buf, l4_size});
    ret_frame->is_through = false;
    ret_frame->is_like = true;
}

static void burst_add(struct stack *stack, struct stack_port *port, struct burst *burst,
                      struct buf *buf)
{
    struct frame *frame = &burst->frames[burst->count];
    enum likeness likeness = FRAME_OTHER;
    uint16_t l4_size = 0;

    if (burst->count > 0)
        likeness = buf_compare(buf, &frame[-1].packet, &l4_size);
    if (likeness == FRAME_NEXT) {
        burst->nexts[burst->next_count++] = (struct packet_next){buf, l4_size};
        frame[-1].next_count++;
        return;
    }
    burst->count++;
    if (likeness == FRAME_LIKE)
        frame_begin_like(buf, &frame[-1], l4_size, frame);
    else
        frame_begin(stack, port, buf, frame);
    frame->next_count = 0;
    if (frame->kind == FRAME_IP && frame->packet.ip.protocol == IP_PROTOCOL_TCP)
        tcp_prefetch(stack, &frame->packet);
}

static void burst_prefetch(struct stack *stack, const struct burst *burst)
{
    const struct tcb *tcbs[NIC_BURST] UNINITIALIZED;

    for (uint32_t i = 0; i < burst->count; i++) {
        const struct packet *packet = &burst->frames[i].packet;
        tcbs[i] = packet->has_key_hash ? tcp_table_prefetch_found(stack, packet->key_hash) : NULL;
    }
    for (uint32_t i = 0; i < burst->count; i++) {
        if (tcbs[i] != NULL)
            tcp_prefetch_buffers(tcbs[i]);
    }
}

/* ---- work ---- */

/* Those behind one that came through: nothing that was asked of it can have changed since. */
static void nexts_end(struct stack *stack, const struct stack_port *port, struct frame *frame,
                      const struct packet_next *nexts)
{
    /* Who looks on sees each before what it does. */
    uint32_t step = stack->tap == NULL ? frame->next_count : 1;

    for (uint32_t i = 0; i < frame->next_count; i += step) {
        if (stack->tap != NULL)
            stack->tap(stack->tap_context, port->index, false, nexts[i].buf, stack->now);
        tcp_input_next(stack, &frame->packet, nexts + i, step);
    }
}

static void frame_end_all(struct stack *stack, struct stack_port *port, const struct frame *before,
                          struct frame *frame, const struct packet_next *nexts)
{
    frame_end(stack, port, before, frame);
    if (frame->is_through) {
        nexts_end(stack, port, frame, nexts);
        return;
    }
    for (uint32_t i = 0; i < frame->next_count; i++) {
        packet_step(&frame->packet, &nexts[i]);
        frame_end(stack, port, frame, frame);
    }
}

void net_input_burst(struct stack *stack, struct stack_port *port, struct buf *const *bufs,
                     uint32_t count)
{
    struct burst burst UNINITIALIZED;
    const struct packet_next *nexts = burst.nexts;

    CHECK(count <= NIC_BURST);
    burst.count = burst.next_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (i + 2 < count)
            __builtin_prefetch(bufs[i + 2]);
        if (i + 1 < count)
            __builtin_prefetch(buf_data(bufs[i + 1]));
        burst_add(stack, port, &burst, bufs[i]);
    }
    burst_prefetch(stack, &burst);
    for (uint32_t i = 0; i < burst.count; i++) {
        struct frame *frame = &burst.frames[i];
        frame_end_all(stack, port, i > 0 ? frame - 1 : NULL, frame, nexts);
        nexts += frame->next_count;
    }
}

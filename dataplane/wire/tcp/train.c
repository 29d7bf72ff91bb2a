/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Behind the first segment of new data in a turn: payloads that leave in the buffers they came in
 * (whole.h), one frame behind the other. Between two of them nothing is asked that cannot have
 * changed; what each is given is sequence number, sizes and checksum, a reference and a descriptor.
 *
 * A frame is what tcp_segment_send() makes of such a piece, and described as output.c does it: in a
 * train there is no scoreboard, and of what tcp_recovery_on_sent() sees of several segments the
 * last says all, since the more is in flight the more the window is in the way.
 *
 * Limits: those of output_train(); where the port's queue is full it is for the caller to ask the
 * nic.
 */
#include "dataplane/wire/tcp/tcp.h"
#include "dataplane/wire/tcp/whole.h"

/* The cursor, which the frame before moved, stands at the end of its slice. */
static bool is_between_slices(const struct tcb *tcb)
{
    CHECK(tcb->send_offset > 0);
    return tcb->send_offset == buf_queue_get(&tcb->slot.unsent, tcb->send_slice)->size;
}

/* What the payload sums up to, and what is left to do for the nic. */
static uint16_t checksum_of(const struct ip_train *train, uint32_t sequence, uint8_t flags,
                            uint32_t l4_size, const struct buf_slice *slice)
{
    const struct tcp_whole whole = tcp_whole_get(slice->buf);
    uint64_t sum = whole.sum;

    if (train->ol_flags & RTE_MBUF_F_TX_TCP_CKSUM)
        return ip_train_checksum_begin(train, l4_size);
    if (!whole.has_sum)
        sum = wire_sum(buf_slice_span(slice).data, slice->size);
    return ip_train_checksum(train, sequence, flags, l4_size, sum);
}

/* With its flags the buffer loses the note: once only. */
static void whole_send(struct stack *stack, struct tcb *tcb, struct ip_train *train,
                       const struct buf_slice *slice, uint8_t flags)
{
    struct buf *buf = slice->buf;
    uint32_t l4_size = train->size - (uint32_t)train->l4_offset + slice->size;
    uint8_t *l4 = ip_train_begin(train, buf, slice->offset);

    buf_reference(buf);
    tcp_rebuild(l4, tcb->snd_nxt, flags, checksum_of(train, tcb->snd_nxt, flags, l4_size, slice));
    buf->mbuf.data_len = (uint16_t)(train->size + slice->size);
    buf->mbuf.pkt_len = buf->mbuf.data_len;
    buf->mbuf.nb_segs = 1;
    ip_train_send(stack, tcb->destination, train, (uint16_t)l4_size, buf);
}

uint32_t tcp_train_go(struct stack *stack, struct tcb *tcb, struct ip_train *train,
                      uint32_t available, uint32_t most)
{
    const struct stack_port *port = tcb->destination->port;
    uint32_t mss = tcb->mss, before = tcb->snd_nxt, sent = 0, count = 0;
    uint8_t flags = tcp_ack_flags(tcb, 0);

    if (!is_between_slices(tcb))
        return 0;
    for (; available - sent > mss && most - sent >= mss && tcp_sent_has_room(tcb, 3) &&
           port->waiting_count + TCP_PORT_ROOM_MIN < STACK_SEND_QUEUE;
         sent = tcb->snd_nxt - before, count++) {
        const struct buf_slice *slice = buf_queue_get(&tcb->slot.unsent, tcb->send_slice + 1);
        if (!tcp_whole_is_worth(slice, mss))
            break;
        whole_send(stack, tcb, train, slice, flags);
        tcb->send_slice++;
        tcb->send_offset = slice->size;
        (void)tcp_sent_describe(stack, tcb, slice->size, 0);
    }
    if (count > 0)
        tcp_recovery_on_sent(stack, tcb);
    STACK_COUNT_BY(stack, TCP_SENT, count);
    return sent;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frames of a burst that follow one of their connection: nearly all of them are the next octets
 * of a message, and say nothing else.
 *
 * What input.c would ask of such a segment is asked here of its octets, all at once and before it
 * is parsed: is_expected() is true of those alone for which each rule of input_fast() has only one
 * answer, and then the effects are those of input_fast(). Of all others nothing was taken, and they
 * go the usual way. test_wire_burst.c and test_wire_next.c hold both ways against each other.
 */
#include "dataplane/wire/format/tcp_options.h"
#include "dataplane/wire/tcp/tcp.h"

/* Offsets in the header. */
enum { AT_SEQUENCE = 4, AT_ACKNOWLEDGEMENT = 8, AT_SIZE = 12, AT_FLAGS = 13, AT_WINDOW = 14 };

/* The connection of the segment before, if it still is one and the packet is for it. */
static struct tcb *tcb_of_packet(struct stack *stack, const struct packet *packet,
                                 const uint8_t *l4)
{
    struct flow_slot *slot = flow_core_slot_at(&stack->core, stack->tcp->latest);

    if (slot == NULL || slot->kind != FLOW_SLOT_STREAM || tcb_of(slot)->state != TCP_ESTABLISHED)
        return NULL;
    const struct tcp_key *key = &tcb_of(slot)->key;
    if (key->remote_port != load_be16(l4) || key->local_port != load_be16(l4 + 2) ||
        key->family != packet->ip.family || memcmp(key->remote, packet->ip.source, 16) != 0 ||
        memcmp(key->local, packet->ip.destination, 16) != 0)
        return NULL;
    return tcb_of(slot);
}

/* It has no options but timestamps where they were agreed, and they are not older than the last. */
static bool is_layout_expected(const struct tcb *tcb, const uint8_t *l4, uint32_t header_size)
{
    if (l4[AT_SIZE] != header_size / 4 << 4)
        return false;
    return header_size == TCP_HEADER_SIZE ||
           (load_be32(l4 + TCP_HEADER_SIZE) == TCP_OPTIONS_TIMESTAMPS_WORD &&
            seq_ge(load_be32(l4 + TCP_HEADER_SIZE + 4), tcb->ts_recent));
}

/* The next octets, inside the window; an ACK that says what the one before it said. */
static bool is_expected(const struct tcb *tcb, const struct packet *packet, const uint8_t *l4,
                        uint32_t header_size)
{
    uint32_t sequence = load_be32(l4 + AT_SEQUENCE), size = packet->l4_size - header_size;

    return (l4[AT_FLAGS] & ~TCP_PSH) == TCP_ACK && (packet->ip.traffic_class & 3) != 3 &&
           sequence == tcb->rcv_nxt && seq_le(sequence + size, tcb->rcv_edge) &&
           load_be32(l4 + AT_ACKNOWLEDGEMENT) == tcb->snd_una && tcb->snd_una == tcb->snd_nxt &&
           (uint32_t)load_be16(l4 + AT_WINDOW) << tcb->snd_scale == tcb->snd_wnd &&
           tcb->snd_wnd > 0 && tcb->rtx_mode != TCP_RTX_PERSIST && seq_le(tcb->snd_wl1, sequence) &&
           tcb->reassembly == NULL && !(tcb->slot.flags & FLOW_SLOT_ORPHAN) &&
           is_layout_expected(tcb, l4, header_size);
}

/* RFC 7323 4.3, and RFC 9293 3.10.7.4 for the window, which is what it was. */
static void header_take(const struct stack *stack, struct tcb *tcb, const uint8_t *l4)
{
    uint32_t sequence = tcb->rcv_nxt;

    if (tcb->flags & TCB_HAS_TIMESTAMPS && seq_le(sequence, tcb->last_ack_sent)) {
        tcb->ts_recent = load_be32(l4 + TCP_HEADER_SIZE + 4);
        tcb->ts_recent_at = (uint32_t)(stack->now / TICK_MS(1));
    }
    tcb->snd_wl1 = sequence;
    tcb->snd_wl2 = tcb->snd_una;
}

bool tcp_input_next(struct stack *stack, struct packet *packet)
{
    const uint8_t *l4 = buf_data(packet->buf) + packet->l4_offset;
    struct tcb *tcb = tcb_of_packet(stack, packet, l4);
    struct segment segment UNINITIALIZED;

    if (tcb == NULL)
        return false;
    uint32_t header_size =
        TCP_HEADER_SIZE + (tcb->flags & TCB_HAS_TIMESTAMPS ? TCP_OPTIONS_TIMESTAMPS_SIZE : 0);
    if (packet->l4_size <= header_size || !is_expected(tcb, packet, l4, header_size))
        return false;
    if (!tcp_checksum_check(stack, packet, header_size, &segment))
        return true;
    segment.packet = packet;
    segment.sequence = tcb->rcv_nxt;
    segment.size = packet->l4_size - header_size;
    segment.payload_offset = (uint16_t)(packet->l4_offset + header_size);
    segment.is_trimmed = false;
    header_take(stack, tcb, l4);
    (void)tcp_input_text(stack, tcb, &segment);
    return true;
}

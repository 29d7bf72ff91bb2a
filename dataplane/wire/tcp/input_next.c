/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frames of a burst that follow one of their connection: nearly all of them are the next octets
 * of a message, and say nothing else.
 *
 * What input.c would ask of such a segment is asked here of its octets, all at once and before it
 * is parsed, and what depends on the connection alone once of all that follow each other: a run.
 * run_begin() and is_expected() are true of those alone for which each rule of input_fast() has
 * only one answer, and then the effects are those of input_fast(). Nothing in a run changes what
 * run_begin() asked; the first that is not expected ends it. Of such a one nothing was taken, and
 * it goes the usual way. test_wire_burst.c and test_wire_next.c hold both ways against each other.
 */
#include "dataplane/wire/format/tcp_options.h"
#include "dataplane/wire/tcp/tcp.h"

/* Offsets in the header. */
enum { AT_SEQUENCE = 4, AT_ACKNOWLEDGEMENT = 8 };

/* What the segments of a run have in common. */
struct run {
    struct tcb *tcb;
    uint32_t header_size;
    uint16_t l4_offset;
    bool has_timestamps;
    bool is_checksum_known;
    uint64_t words, words_mask; /* from the acknowledgement up to the checksum, as they lie there */
    uint64_t pseudo_sum;        /* but for the size */
};

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

static uint64_t words_at(const uint8_t *octets)
{
    uint64_t words;

    memcpy(&words, octets, sizeof(words));
    return words;
}

/* An ACK that says what the one before it said: with no more than PSH, and no options but
 * timestamps where they were agreed. False: there is no such header. */
static bool words_expect(struct run *run)
{
    static const uint8_t mask[8] = {255, 255, 255, 255, 255, (uint8_t)~TCP_PSH, 255, 255};
    const struct tcb *tcb = run->tcb;
    uint32_t window = tcb->snd_wnd >> tcb->snd_scale;
    uint8_t words[8];

    if (window > UINT16_MAX || window << tcb->snd_scale != tcb->snd_wnd)
        return false;
    store_be32(words, tcb->snd_una);
    words[4] = (uint8_t)(run->header_size / 4 << 4);
    words[5] = TCP_ACK;
    store_be16(words + 6, (uint16_t)window);
    run->words = words_at(words);
    run->words_mask = words_at(mask);
    return true;
}

/* Segments that have nothing but the next octets can be taken without asking more. */
static bool run_begin(struct stack *stack, const struct packet *packet, const uint8_t *l4,
                      struct run *run)
{
    struct tcb *tcb = run->tcb = tcb_of_packet(stack, packet, l4);

    if (tcb == NULL || tcb->snd_una != tcb->snd_nxt || tcb->snd_wnd == 0 ||
        tcb->rtx_mode == TCP_RTX_PERSIST || seq_gt(tcb->snd_wl1, tcb->rcv_nxt) ||
        tcb->reassembly != NULL || tcb->slot.flags & FLOW_SLOT_ORPHAN ||
        (packet->ip.traffic_class & 3) == 3 || tcp_receive_is_low(stack))
        return false;
    run->has_timestamps = tcb->flags & TCB_HAS_TIMESTAMPS;
    run->header_size = TCP_HEADER_SIZE + (run->has_timestamps ? TCP_OPTIONS_TIMESTAMPS_SIZE : 0);
    run->l4_offset = packet->l4_offset;
    run->is_checksum_known = packet->is_l4_checksum_known;
    run->pseudo_sum = wire_sum_pseudo(packet->ip.family, packet->ip.source, packet->ip.destination,
                                      IP_PROTOCOL_TCP, 0);
    return words_expect(run);
}

/* The next octets, inside the window, and not older than the last. */
static bool is_expected(const struct run *run, const uint8_t *l4, uint32_t l4_size)
{
    const struct tcb *tcb = run->tcb;
    uint32_t size = l4_size - run->header_size;

    return l4_size > run->header_size && load_be32(l4 + AT_SEQUENCE) == tcb->rcv_nxt &&
           (words_at(l4 + AT_ACKNOWLEDGEMENT) & run->words_mask) == run->words &&
           seq_le(tcb->rcv_nxt + size, tcb->rcv_edge) &&
           (!run->has_timestamps ||
            (load_be32(l4 + TCP_HEADER_SIZE) == TCP_OPTIONS_TIMESTAMPS_WORD &&
             seq_ge(load_be32(l4 + TCP_HEADER_SIZE + 4), tcb->ts_recent)));
}

/* It is what was sent; what its payload sums up to is kept for whoever sends it on. */
static bool checksum_check(struct stack *stack, const struct run *run, const uint8_t *l4,
                           struct tcp_payload *payload)
{
    if (run->is_checksum_known)
        return true;
    enum stack_stage left = STACK_STAGE(stack, VERIFY);
    payload->sum = wire_sum(l4 + run->header_size, payload->size);
    uint64_t sum = payload->sum + wire_sum_header(l4, run->header_size) + run->pseudo_sum +
                   htobe32(run->header_size + payload->size);
    STACK_STAGE_BACK(stack, left);
    return wire_sum_finish(sum) == 0;
}

/* RFC 7323 4.3, and RFC 9293 3.10.7.4 for the window, which is what it was. */
static void header_take(const struct stack *stack, const struct run *run, const uint8_t *l4)
{
    struct tcb *tcb = run->tcb;

    if (run->has_timestamps && seq_le(tcb->rcv_nxt, tcb->last_ack_sent)) {
        tcb->ts_recent = load_be32(l4 + TCP_HEADER_SIZE + 4);
        tcb->ts_recent_at = (uint32_t)(stack->now / TICK_MS(1));
    }
    tcb->snd_wl1 = tcb->rcv_nxt;
    tcb->snd_wl2 = tcb->snd_una;
}

/* Takes the first of them that are expected; returns how many. */
static uint32_t run_take(struct stack *stack, const struct packet *packet,
                         const struct packet_next *nexts, uint32_t count)
{
    struct run run UNINITIALIZED;
    uint32_t taken = 0;
    bool goes_on = run_begin(stack, packet, buf_data(nexts[0].buf) + packet->l4_offset, &run);

    while (goes_on && taken < count) {
        struct buf *buf = nexts[taken].buf;
        const uint8_t *l4 = buf_data(buf) + run.l4_offset;
        uint32_t l4_size = nexts[taken].l4_size;
        struct tcp_payload payload = {.offset = run.l4_offset + run.header_size,
                                      .size = l4_size - run.header_size,
                                      .is_summed = !run.is_checksum_known};

        if (!is_expected(&run, l4, l4_size) || !checksum_check(stack, &run, l4, &payload))
            break;
        header_take(stack, &run, l4);
        /* A copy may have made a pool run low. */
        goes_on = tcp_deliver_whole(stack, run.tcb, buf, &payload, false);
        tcp_window_measure(stack, run.tcb);
        taken++;
    }
    if (taken > 0)
        tcp_ack_schedule(stack, run.tcb, taken);
    STACK_COUNT_BY(stack, TCP_RECEIVED, taken);
    return taken;
}

void tcp_input_next(struct stack *stack, struct packet *packet, const struct packet_next *nexts,
                    uint32_t count)
{
    packet->is_next = true;
    for (uint32_t i = 0; i < count;) {
        i += run_take(stack, packet, nexts + i, count - i);
        if (i == count)
            return;
        packet_step(packet, &nexts[i++]);
        tcp_input(stack, packet);
        buf_release_chain(packet->buf);
    }
}

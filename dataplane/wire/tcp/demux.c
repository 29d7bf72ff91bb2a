/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way in: from an IP packet to the connection, record or listener it is for; ICMP errors too.
 *
 *   tcb             input.c
 *   TIME_WAIT       time_wait.c; a SYN that may take the tuple goes on to the listener
 *   listener        syn_input.c: SYNs, and what completes a half-open connection
 *   nothing         RST (RFC 9293 3.10.7.1)
 *
 * ICMP errors are believed when they quote a segment that is in flight: a tuple alone can be
 * guessed (RFC 5927 4). While connecting, "unreachable" ends the attempt, so that mail goes on to
 * the next address (RFC 5461 4.1); an established connection takes it for the weather.
 */
#include "dataplane/wire/tcp/tcp.h"

/* Codes of ICMP_UNREACHABLE4 and 6. */
#define UNREACHABLE4_PROTOCOL      2u
#define UNREACHABLE4_PORT          3u
#define UNREACHABLE4_FRAGMENTATION 4u
#define UNREACHABLE6_PORT          4u

/* In one buffer the payload is summed by itself, for whoever sends it on. */
static bool checksum_check(struct stack *stack, const struct packet *packet, uint32_t header_size,
                           struct segment *segment)
{
    const uint8_t *l4 = buf_data(packet->buf) + packet->l4_offset;
    uint32_t size = packet->l4_size;
    enum stack_stage left = STACK_STAGE(stack, VERIFY);
    bool is_good = packet->is_l4_checksum_known;

    segment->is_summed = !is_good && packet->buf->mbuf.next == NULL;
    if (segment->is_summed) {
        segment->payload_sum =
            size > header_size ? wire_sum(l4 + header_size, size - header_size) : 0;
        uint64_t sum = segment->payload_sum + wire_sum_header(l4, header_size);
        is_good = wire_sum_finish(sum + wire_sum_pseudo(packet->ip.family, packet->ip.source,
                                                        packet->ip.destination, IP_PROTOCOL_TCP,
                                                        size)) == 0;
    } else if (!is_good) {
        is_good = packet_l4_checksum_is_good(packet);
    }
    STACK_STAGE_BACK(stack, left);
    if (!is_good)
        STACK_COUNT(stack, TCP_CHECKSUM);
    return is_good;
}

static bool segment_parse(struct stack *stack, struct packet *packet, struct segment *ret_segment)
{
    struct tcp_header *header = &ret_segment->header;

    if (tcp_parse(packet_l4(packet), header) != PACKET_OK) {
        STACK_COUNT(stack, TCP_MALFORMED);
        return false;
    }
    if (!checksum_check(stack, packet, header->header_size, ret_segment))
        return false;
    ret_segment->is_trimmed = false;
    /* Port 0 names nobody. */
    if (header->source_port == 0 || header->destination_port == 0) {
        STACK_COUNT(stack, TCP_ODD);
        return false;
    }
    ret_segment->packet = packet;
    ret_segment->flags = header->flags;
    ret_segment->is_ce = (packet->ip.traffic_class & 3) == 3;
    ret_segment->payload_offset = (uint16_t)(packet->l4_offset + header->header_size);
    ret_segment->sequence = header->sequence;
    ret_segment->size = (uint32_t)packet->l4_size - header->header_size;
    ret_segment->end = header->sequence + ret_segment->size + (header->flags & TCP_SYN ? 1 : 0) +
                       (header->flags & TCP_FIN ? 1 : 0);
    return true;
}

static void key_fill(struct tcp_key *ret_key, uint8_t family, const uint8_t local[16],
                     const uint8_t remote[16], uint16_t local_port, uint16_t remote_port)
{
    memcpy(ret_key->local, local, 16);
    memcpy(ret_key->remote, remote, 16);
    ret_key->local_port = local_port;
    ret_key->remote_port = remote_port;
    ret_key->family = family;
    memset(ret_key->reserved, 0, sizeof(ret_key->reserved));
}

/* RFC 9293 3.10.7.1 and 3.10.7.2: no connection, perhaps a listener. */
static void input_unconnected(struct stack *stack, struct segment *segment, uint32_t iss_min)
{
    const struct tcp_key *key = &segment->key;
    struct tcp_listener *listener =
        tcp_listener_find(stack, key->family, key->local, key->local_port);
    bool is_open = (segment->flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN;

    if (listener != NULL && is_open) {
        tcp_syn_input(stack, listener, segment, iss_min);
        return;
    }
    if (listener != NULL && tcp_syn_complete(stack, listener, segment))
        return;
    STACK_COUNT(stack, TCP_UNCONNECTED);
    /* 3.10.7.2, fourth: neither RST, ACK nor SYN: a listener drops it. */
    if (listener == NULL || segment->flags & TCP_ACK)
        tcp_send_reset_for(stack, segment);
}

void tcp_prefetch(struct stack *stack, struct packet *packet)
{
    struct span l4 = packet_l4(packet);
    struct tcp_key key;

    if (l4.size < 2 * sizeof(uint16_t))
        return;
    key_fill(&key, packet->ip.family, packet->ip.destination, packet->ip.source,
             load_be16(l4.data + 2), load_be16(l4.data));
    packet->key_hash = tcp_table_prefetch(stack, &key);
    packet->has_key_hash = true;
}

void tcp_prefetch_buffers(const struct tcb *tcb)
{
    const struct buf_queue *unsent = &tcb->slot.unsent;

    if (unsent->count > 0)
        __builtin_prefetch(buf_queue_get(unsent, 0)->buf);
}

/* The connection that the segment before was for, if it still is one: as long as it is not CLOSED
 * the table has it under its key, and nothing else. */
static struct tcb *tcb_latest(struct stack *stack, const struct tcp_key *key)
{
    struct flow_slot *slot = flow_core_slot_at(&stack->core, stack->tcp->latest);

    if (slot == NULL || slot->kind != FLOW_SLOT_STREAM || tcb_of(slot)->state == TCP_CLOSED ||
        !tcp_key_is_equal(&tcb_of(slot)->key, key))
        return NULL;
    return tcb_of(slot);
}

static struct tcp_found segment_find(struct stack *stack, const struct segment *segment)
{
    const struct packet *packet = segment->packet;
    struct tcb *tcb = packet->is_next ? tcb_latest(stack, &segment->key) : NULL;

    if (tcb != NULL)
        return tcp_found_tcb(tcb);
    return packet->has_key_hash ? tcp_table_find_hashed(stack, &segment->key, packet->key_hash)
                                : tcp_table_find(stack, &segment->key);
}

void tcp_input(struct stack *stack, struct packet *packet)
{
    struct segment segment UNINITIALIZED;
    uint32_t iss_min = 0;

    STACK_COUNT(stack, TCP_RECEIVED);
    if (!segment_parse(stack, packet, &segment))
        return;
    key_fill(&segment.key, packet->ip.family, packet->ip.destination, packet->ip.source,
             segment.header.destination_port, segment.header.source_port);
    struct tcp_found found = segment_find(stack, &segment);
    segment.window = segment.header.window;
    if (found.kind == TCP_FOUND_TCB) {
        struct tcb *tcb = tcb_of(flow_core_slot_at(&stack->core, found.index));
        stack->tcp->latest = found.index;
        if (!(segment.flags & TCP_SYN)) /* RFC 7323 2.2: a SYN's window is never scaled */
            segment.window <<= tcb->snd_scale;
        tcp_input_segment(stack, tcb, &segment);
        return;
    }
    if (found.kind == TCP_FOUND_TIME_WAIT &&
        tcp_time_wait_input(stack, found.index, &segment, &iss_min))
        return;
    input_unconnected(stack, &segment, iss_min);
}

/* ---- ICMP ---- */

static bool is_too_big(const struct icmp_error *error)
{
    if (error->quoted.family == FLOW_FAMILY_IP6)
        return error->type == ICMP_PACKET_TOO_BIG6;
    return error->type == ICMP_UNREACHABLE4 && error->code == UNREACHABLE4_FRAGMENTATION;
}

static bool is_unreachable(const struct icmp_error *error)
{
    if (error->quoted.family == FLOW_FAMILY_IP6)
        return error->type == ICMP_UNREACHABLE6;
    return error->type == ICMP_UNREACHABLE4;
}

/* The host is there and said no. */
static bool is_refusal(const struct icmp_error *error)
{
    if (error->quoted.family == FLOW_FAMILY_IP6)
        return error->code == UNREACHABLE6_PORT;
    return error->code == UNREACHABLE4_PORT || error->code == UNREACHABLE4_PROTOCOL;
}

void tcp_on_icmp_error(struct stack *stack, const struct icmp_error *error)
{
    struct tcp_key key;

    key_fill(&key, error->quoted.family, error->quoted.source, error->quoted.destination,
             error->source_port, error->destination_port);
    struct tcp_found found = tcp_table_find(stack, &key);
    if (found.kind != TCP_FOUND_TCB) {
        if (is_unreachable(error) && !is_too_big(error))
            tcp_syn_on_icmp_error(stack, &key, error->sequence);
        return;
    }
    struct tcb *tcb = tcb_of(flow_core_slot_at(&stack->core, found.index));
    if (seq_lt(error->sequence, tcb->snd_una) || seq_ge(error->sequence, tcb->snd_nxt)) {
        STACK_COUNT(stack, TCP_ICMP_STRAY);
    } else if (is_too_big(error)) {
        STACK_COUNT(stack, TCP_ICMP_TOO_BIG);
        tcp_pmtu_on_icmp(stack, tcb, error->mtu);
    } else if (is_unreachable(error) && tcb->state == TCP_SYN_SENT) {
        STACK_COUNT(stack, TCP_ICMP_ACTED);
        tcb_lost(stack, tcb, is_refusal(error) ? ERR_REFUSED : ERR_PEER_UNREACHABLE);
    } else {
        STACK_COUNT(stack, TCP_ICMP_SOFT);
    }
}

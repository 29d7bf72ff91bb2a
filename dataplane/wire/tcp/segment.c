/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Segments on their way out: header, payload, checksum, and on to ip_output().
 *
 * A frame is a header buffer and, behind it, clones of the slices it shows (send_queue.c). Every
 * segment of a connection acknowledges all that was received and offers the window of now, so that
 * whatever is sent also does a pending ACK's work. SACK blocks go in bare ACKs alone: a segment
 * with payload is as long as the path allows already.
 *
 * What a connection sends in one turn is a train: the first segment of new data leaves its headers
 * behind, and the others take them, change sequence number, flags and sizes, and go to the port at
 * once. Nothing else can differ within a turn. What their checksums share is summed once.
 *
 * A piece that is `whole` has its headers put in front of it, in the buffer it came in (whole.h).
 *
 * A segment that cannot be built for want of a buffer is not sent and counted; it is as if it had
 * been lost, only that new data is not taken as sent.
 *
 * Segments without a connection (SYN-ACKs, TIME_WAIT, RSTs) have their checksum computed here
 * whatever the nic can, and keep nothing.
 */
#include "dataplane/wire/format/tcp_options.h"
#include "dataplane/wire/net/chain.h"
#include "dataplane/wire/tcp/tcp.h"
#include "dataplane/wire/tcp/whole.h"

/* RSTs for segments that belong to nothing, per second (HAZARDS TC-06: how many exactly is not to
 * be told from outside). */
#define RESETS_PER_SECOND 2000u

#define CHECKSUM_OFFSET 16u

/* ---- buffers and checksums ---- */

static bool sum_is_ours(const struct tcb *tcb)
{
    return !(destination_offloads(tcb->destination) & NIC_TX_TCP_CHECKSUM);
}

/*
 * A buffer for the headers, and for `size` octets of payload where they are copied: for a nic that
 * takes no chains, and, as long as there are buffers, where the checksum is ours (send_queue.c).
 */
static struct buf *head_acquire(struct stack *stack, const struct tcb *tcb, uint32_t size)
{
    const struct stack_options *options = &stack->options;
    uint32_t whole = TCP_HEADER_SIZE + TCP_OPTIONS_SIZE_MAX + size;
    bool is_small = whole <= STACK_HEADER_SIZE;
    bool is_chain_possible = tcb->destination->port->segments_max > 1;
    struct buf *head = NULL;

    if (!is_small && (!is_chain_possible || sum_is_ours(tcb)) &&
        whole <= buf_pool_data_size(options->pool))
        head = buf_acquire(options->pool);
    if (head == NULL && (is_small || is_chain_possible))
        head = buf_acquire(options->header_pool);
    if (head == NULL)
        STACK_COUNT(stack, TCP_SEND_NO_BUFFER);
    return head;
}

static void checksum_put(uint8_t *l4, uint16_t checksum)
{
    memcpy(l4 + CHECKSUM_OFFSET, &checksum, sizeof(checksum));
}

/* `sum`: of header and payload. */
static void checksum_complete(const struct tcp_key *key, uint8_t *l4, uint32_t l4_size,
                              uint64_t sum)
{
    sum += wire_sum_pseudo(key->family, key->local, key->remote, IP_PROTOCOL_TCP, l4_size);
    checksum_put(l4, wire_sum_finish(sum));
}

/* For the nic to go on from: the pseudo-header's sum, not complemented; for TSO as if the size were
 * 0, because each segment has its own. */
static void checksum_begin(const struct tcp_key *key, uint8_t *l4, uint32_t l4_size)
{
    uint64_t sum = wire_sum_pseudo(key->family, key->local, key->remote, IP_PROTOCOL_TCP, l4_size);
    checksum_put(l4, (uint16_t)~wire_sum_finish(sum));
}

/* What was built of a segment: a header of `header_size` octets that lies `offset` octets behind
 * the buffer's first, and its payload. */
struct built {
    struct buf *head;
    uint32_t offset, header_size;
    uint64_t payload_sum;
    bool is_summed; /* payload_sum was computed on the way */
    bool is_tso;
};

static void checksum_write(const struct tcb *tcb, const struct built *built)
{
    struct buf *head = built->head;
    uint8_t *l4 = buf_data(head) + built->offset;
    uint32_t size = head->mbuf.pkt_len - built->offset;

    if (!sum_is_ours(tcb))
        checksum_begin(&tcb->key, l4, built->is_tso ? 0 : size);
    else if (built->is_summed)
        checksum_complete(&tcb->key, l4, size,
                          wire_sum_header(l4, built->header_size) + built->payload_sum);
    else
        checksum_complete(&tcb->key, l4, size, chain_sum(head, built->offset, size));
}

/* ---- of a connection ---- */

static void header_fill(const struct stack *stack, struct tcb *tcb, uint8_t flags,
                        uint32_t sequence, struct tcp_header *ret_header)
{
    *ret_header = (struct tcp_header){.source_port = tcb->key.local_port,
                                      .destination_port = tcb->key.remote_port,
                                      .sequence = sequence,
                                      .flags = flags};
    if (flags & TCP_ACK) {
        ret_header->acknowledgement = tcb->rcv_nxt;
        ret_header->flags = tcp_ack_flags(tcb, flags);
    }
    if (tcb->flags & TCB_HAS_TIMESTAMPS) {
        ret_header->options.has_timestamps = true;
        ret_header->options.timestamp_value = tcp_timestamp_now(stack, tcb->ts_offset);
        ret_header->options.timestamp_echo = flags & TCP_ACK ? tcb->ts_recent : 0;
    }
}

/* An ACK is on its way with all that there is to acknowledge. */
static void ack_is_sent(struct tcb *tcb)
{
    tcb->last_ack_sent = tcb->rcv_nxt;
    tcb->flags &= ~(uint32_t)(TCB_ACK_NOW | TCB_ACK_DELAYED);
    tcb->ack_at = TICK_NEVER;
}

static void frame_send(struct stack *stack, struct tcb *tcb, const struct built *built,
                       struct ip_send *send)
{
    enum stack_stage left = STACK_STAGE(stack, SUM);
    checksum_write(tcb, built);
    STACK_STAGE_BACK(stack, left);
    STACK_COUNT(stack, TCP_SENT);
    send->source = tcb->key.local;
    send->protocol = IP_PROTOCOL_TCP;
    send->l4_header_size = (uint16_t)built->header_size;
    ip_output(stack, tcb->destination, send, built->head);
}

/* A segment without payload. False: no buffer. */
static bool control_send(struct stack *stack, struct tcb *tcb, const struct tcp_header *header)
{
    struct built built = {.head = head_acquire(stack, tcb, 0), .is_summed = true};
    struct ip_send send = {0};

    if (built.head == NULL)
        return false;
    built.header_size = tcp_build(header, buf_data(built.head));
    buf_extend(built.head, built.header_size);
    if (header->flags & TCP_ACK && !(header->flags & TCP_RST))
        ack_is_sent(tcb);
    frame_send(stack, tcb, &built, &send);
    return true;
}

/* ---- payload that leaves as it came ---- */

/* A buffer for a piece; of one that goes as it came, the reference of the frame. NULL: none. */
static struct buf *piece_acquire(struct stack *stack, const struct tcb *tcb,
                                 const struct tcp_piece *piece)
{
    if (piece->whole == NULL)
        return head_acquire(stack, tcb, piece->size);
    buf_reference(piece->whole);
    return piece->whole;
}

/* Where headers of a piece end, from buf_addr, if they are `size` octets from data_off on. */
static uint32_t header_end(const struct tcp_piece *piece, const struct buf *head, uint32_t size)
{
    return piece->whole != NULL ? tcp_whole_get(head).offset : head->mbuf.data_off + size;
}

/* The headers are in front of it already. */
static void payload_leave(const struct tcb *tcb, const struct tcp_piece *piece, struct built *built)
{
    struct buf *head = built->head;
    const struct tcp_whole whole = tcp_whole_get(head);
    uint32_t size = buf_size(head) + piece->size;

    tcp_whole_forget(head);
    built->is_tso = false;
    built->is_summed = sum_is_ours(tcb);
    if (built->is_summed)
        built->payload_sum =
            whole.has_sum
                ? whole.sum
                : wire_sum((const uint8_t *)head->mbuf.buf_addr + whole.offset, piece->size);
    head->mbuf.data_len = (uint16_t)size;
    head->mbuf.pkt_len = size;
    head->mbuf.nb_segs = 1;
}

/* The octets of the piece behind the header. False: no buffer, and the head is gone. */
static bool payload_put(struct stack *stack, struct tcb *tcb, const struct tcp_piece *piece,
                        struct built *built)
{
    if (piece->whole != NULL) {
        payload_leave(tcb, piece, built);
        return true;
    }
    built->is_tso = piece->size > tcb->mss;
    built->is_summed = sum_is_ours(tcb) && piece->size <= buf_room(built->head);
    if (built->is_summed) {
        enum stack_stage left = STACK_STAGE(stack, SUM);
        built->payload_sum = tcp_send_copy(tcb, piece->offset, piece->size, built->head);
        flow_core_copied(&stack->core, &stack->core.stats.copied.summed, piece->size);
        STACK_STAGE_BACK(stack, left);
        return true;
    }
    if (tcp_send_gather(stack, tcb, piece->offset, piece->size, built->head))
        return true;
    STACK_COUNT(stack, TCP_SEND_NO_BUFFER);
    buf_release_chain(built->head);
    return false;
}

/* What the checksums of a train have in common: all of header and pseudo-header but sequence
 * number, flags and size; of the pseudo-header alone where the nic does the rest. */
static void train_sum(const struct tcb *tcb, struct ip_train *train)
{
    uint32_t size = train->size - (uint32_t)train->l4_offset;
    uint8_t *l4 = train->octets + IP_TRAIN_SIZE - size;

    tcp_rebuild(l4, 0, 0, 0);
    train->l4_sum =
        wire_sum_pseudo(tcb->key.family, tcb->key.local, tcb->key.remote, IP_PROTOCOL_TCP, 0);
    if (sum_is_ours(tcb))
        train->l4_sum += wire_sum_header(l4, size);
}

/* As checksum_write(), with the sum of what its header shares with the others. */
static void train_checksum_write(const struct tcb *tcb, const struct tcp_piece *piece,
                                 uint8_t flags, uint8_t *l4, const struct built *built)
{
    uint32_t size = built->header_size + piece->size;

    if (!sum_is_ours(tcb))
        checksum_put(l4, ip_train_checksum_begin(piece->train, size));
    else if (built->is_summed)
        checksum_put(
            l4, ip_train_checksum(piece->train, piece->sequence, flags, size, built->payload_sum));
    else
        checksum_write(tcb, built);
}

/* New data behind new data of this turn: acknowledgement, window, timestamps and addresses are as
 * they were, and CWR has gone. */
static bool train_send(struct stack *stack, struct tcb *tcb, const struct tcp_piece *piece)
{
    struct ip_train *train = piece->train;
    uint8_t flags = tcp_ack_flags(tcb, piece->flags);
    struct built built UNINITIALIZED;

    built.head = piece_acquire(stack, tcb, piece);
    if (built.head == NULL)
        return false;
    built.offset = train->l4_offset;
    built.header_size = train->size - (uint32_t)train->l4_offset;
    uint8_t *l4 =
        ip_train_begin(train, built.head, header_end(piece, built.head, built.header_size));
    tcp_rebuild(l4, piece->sequence, flags, 0);
    if (!payload_put(stack, tcb, piece, &built))
        return false;
    enum stack_stage left = STACK_STAGE(stack, SUM);
    train_checksum_write(tcb, piece, flags, l4, &built);
    STACK_STAGE_BACK(stack, left);
    STACK_COUNT(stack, TCP_SENT);
    ip_train_send(stack, tcb->destination, train, (uint16_t)(built.header_size + piece->size),
                  built.head);
    return true;
}

static bool is_in_train(const struct tcp_piece *piece)
{
    const struct ip_train *train = piece->train;

    return train != NULL && train->size > 0 && piece->size > 0 &&
           train->size - (uint32_t)train->l4_offset + piece->size <= train->l4_size_max;
}

/* The buffer begins with the header, which ends at `end`. */
static void header_begin(const struct built *built, uint32_t end)
{
    struct rte_mbuf *mbuf = &built->head->mbuf;

    mbuf->data_off = (uint16_t)(end - built->header_size);
    mbuf->data_len = (uint16_t)built->header_size;
    mbuf->pkt_len = built->header_size;
}

bool tcp_segment_send(struct stack *stack, struct tcb *tcb, const struct tcp_piece *piece)
{
    const uint8_t ect0 = 2; /* RFC 3168 5 */
    struct tcp_header header UNINITIALIZED;
    struct built built = {0};

    if (is_in_train(piece))
        return train_send(stack, tcb, piece);
    built.head = piece_acquire(stack, tcb, piece);
    if (built.head == NULL)
        return false;
    header_fill(stack, tcb, (uint8_t)(piece->flags | TCP_ACK), piece->sequence, &header);
    header.window = tcp_window_field(stack, tcb);
    /* RFC 3168 6.1.2, 6.1.5: CWR with the next new data; retransmissions are not ECT. */
    bool is_ecn = tcb->flags & TCB_HAS_ECN && piece->is_new && piece->size > 0;
    if (is_ecn && tcb->flags & TCB_CWR_SEND)
        header.flags |= TCP_CWR;
    built.header_size =
        TCP_HEADER_SIZE + (tcb->flags & TCB_HAS_TIMESTAMPS ? TCP_OPTIONS_TIMESTAMPS_SIZE : 0);
    header_begin(&built, header_end(piece, built.head, built.header_size));
    CHECK(tcp_build(&header, buf_data(built.head)) == built.header_size);
    if (!payload_put(stack, tcb, piece, &built))
        return false;
    if (is_ecn)
        tcb->flags &= ~(uint32_t)TCB_CWR_SEND;
    ack_is_sent(tcb);
    struct ip_send send = {.train = built.is_tso || piece->size == 0 ? NULL : piece->train,
                           .ecn = is_ecn ? ect0 : 0,
                           .tso_size = built.is_tso ? tcb->mss : 0};
    frame_send(stack, tcb, &built, &send);
    if (send.train != NULL && send.train->size > 0)
        train_sum(tcb, send.train);
    return true;
}

void tcp_send_ack(struct stack *stack, struct tcb *tcb)
{
    struct tcp_header header;
    uint8_t max = tcb->flags & TCB_HAS_TIMESTAMPS ? 3 : 4; /* RFC 2018 3: what 40 octets take */

    header_fill(stack, tcb, TCP_ACK, tcb->snd_nxt, &header);
    header.window = tcp_window_field(stack, tcb);
    header.options.sack_count = tcp_receive_sack_blocks(stack, tcb, header.options.sack, max);
    if (control_send(stack, tcb, &header))
        return;
    /* Without a buffer now, with one soon. */
    tcb->flags |= TCB_ACK_DELAYED;
    tcb->ack_at = stack->now + stack->options.tcp.delayed_ack_time;
    tcb_timer_set(stack, tcb);
}

void tcp_send_probe(struct stack *stack, struct tcb *tcb)
{
    struct tcp_header header;

    /* A sequence number that the peer has: it must answer with an ACK and its window. */
    header_fill(stack, tcb, TCP_ACK, tcb->snd_una - 1, &header);
    header.window = tcp_window_field(stack, tcb);
    (void)control_send(stack, tcb, &header);
}

static void syn_options(struct stack *stack, const struct tcb *tcb, struct tcp_options *options)
{
    const struct tcp_policy *policy = &stack->options.tcp;
    /* In a SYN-ACK only what the other SYN had, too. */
    bool is_answer = tcb->state == TCP_SYN_RECEIVED;

    options->has_mss = true;
    options->mss = tcp_mss_offer(stack, &tcb->key);
    options->has_sack_permitted = is_answer ? tcb->flags & TCB_HAS_SACK : policy->has_sack;
    options->has_window_scale =
        is_answer ? tcb->flags & TCB_HAS_WINDOW_SCALE : policy->has_window_scale;
    options->window_scale = tcp_window_scale_offer(policy);
    if (!is_answer && policy->has_timestamps) {
        options->has_timestamps = true;
        options->timestamp_value = tcp_timestamp_now(stack, tcb->ts_offset);
    }
}

/* RFC 4862 5.4: nothing leaves from a tentative address. The schedule of SYNs goes on meanwhile. */
static bool may_speak(struct stack *stack, const struct tcb *tcb)
{
    const struct stack_local *local = stack_local_find(stack, tcb->key.family, tcb->key.local);

    return local != NULL && stack_local_is_usable(local);
}

void tcp_send_syn(struct stack *stack, struct tcb *tcb)
{
    struct tcp_header header;
    bool is_answer = tcb->state == TCP_SYN_RECEIVED;

    if (tcb->sent.count == 0) {
        CHECK(tcp_sent_push(stack, tcb, 1, TCP_SENT_SYN) == ERR_OK);
        tcp_recovery_on_sent(stack, tcb);
    } else {
        STACK_COUNT(stack, TCP_SYNS_SENT_AGAIN);
        tcp_recovery_on_resent(stack, tcb, 0);
        tcb->flags |= TCB_SYN_RETRANSMITTED;
    }
    tcb->flags &= ~(uint32_t)TCB_SYN_DUE;
    if (tcb->syn_count < UINT8_MAX)
        tcb->syn_count++;
    header_fill(stack, tcb, is_answer ? TCP_SYN | TCP_ACK : TCP_SYN, tcb->snd_una, &header);
    header.window = (uint16_t)tcp_window_start(stack, tcb->slot.receive_limit);
    syn_options(stack, tcb, &header.options);
    if (may_speak(stack, tcb))
        (void)control_send(stack, tcb, &header);
}

void tcp_send_rst(struct stack *stack, struct tcb *tcb)
{
    struct tcp_header header;

    header_fill(stack, tcb, TCP_RST | TCP_ACK, tcb->snd_nxt, &header);
    STACK_COUNT(stack, TCP_RESETS_SENT);
    (void)control_send(stack, tcb, &header);
}

/* ---- without a connection ---- */

/* Header and checksum in a buffer of their own; NULL: none. */
static struct buf *plain_build(struct stack *stack, const struct tcp_key *key,
                               const struct tcp_header *header, struct ip_send *ret_send)
{
    struct tcp_header complete = *header;
    struct buf *head = buf_acquire(stack->options.header_pool);

    if (head == NULL) {
        STACK_COUNT(stack, TCP_SEND_NO_BUFFER);
        return NULL;
    }
    complete.source_port = key->local_port;
    complete.destination_port = key->remote_port;
    uint32_t size = tcp_build(&complete, buf_data(head));
    buf_extend(head, size);
    checksum_complete(key, buf_data(head), size, wire_sum_header(buf_data(head), size));
    *ret_send = (struct ip_send){.source = key->local,
                                 .protocol = IP_PROTOCOL_TCP,
                                 .l4_header_size = (uint16_t)size,
                                 .is_checksum_complete = true};
    STACK_COUNT(stack, TCP_SENT);
    return head;
}

void tcp_send_plain(struct stack *stack, const struct tcp_key *key, const struct tcp_header *header)
{
    struct ip_send send;
    struct buf *head = plain_build(stack, key, header, &send);

    if (head != NULL)
        ip_output_stateless(stack, key->family, key->remote, &send, head);
}

void tcp_send_reset_for(struct stack *stack, const struct segment *segment)
{
    const struct tcp_header *header = &segment->header;
    struct tcp_header reset = {.flags = TCP_RST};
    struct ip_send send;

    if (header->flags & TCP_RST)
        return;
    if (!stack_bucket_take(stack, &stack->tcp->reset_bucket, RESETS_PER_SECOND)) {
        STACK_COUNT(stack, TCP_RESETS_LIMITED);
        return;
    }
    if (header->flags & TCP_ACK) {
        reset.sequence = header->acknowledgement;
    } else {
        /* As it was sent, before anything was trimmed. */
        uint32_t size = (uint32_t)segment->packet->l4_size - header->header_size;
        reset.flags |= TCP_ACK;
        reset.acknowledgement = header->sequence + size + (header->flags & TCP_SYN ? 1 : 0) +
                                (header->flags & TCP_FIN ? 1 : 0);
    }
    struct buf *head = plain_build(stack, &segment->key, &reset, &send);
    if (head == NULL)
        return;
    STACK_COUNT(stack, TCP_RESETS_SENT);
    ip_output_reply(stack, segment->packet, &send, head);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is in flight: a descriptor per segment, and the way from a sequence number to the octets.
 *
 * slot.unsent holds every octet from snd_una on; `sent` describes [snd_una, snd_nxt) of them. A
 * cursor (send_slice, send_offset) says where in slot.unsent the octet of snd_nxt lies, so that
 * sending new data never walks the queue; retransmissions walk it from the front, where what was
 * lost usually is.
 *
 * Frames reference the octets (buf_clone) behind a buffer with the headers. Copied instead are
 * payloads that fit behind the header, which costs less than a second buffer; those with more
 * pieces than the nic takes in one frame; and those whose checksum is ours to compute, because the
 * octets are read then anyway: copying them on the way costs less than a clone for each piece,
 * which the driver has to walk and to free. What may leave in the buffer it came in (whole.h) is
 * neither; tcp_send_cut() ends segments of new data so that it may.
 *
 * Invariants
 *   1. Descriptors follow each other without gaps: the first begins at snd_una, the last ends at
 *      snd_nxt. None is empty.
 *   2. The octets of all descriptors (their sizes less SYN and FIN) are the first ones of
 *      slot.unsent, and the cursor stands behind them. It stands at the end of a slice rather than
 *      at the start of the next, because a slice may still grow at its end.
 *   3. sacked, lost and retransmitted are the sums over descriptors with these flags.
 *
 * Limits: TCP_SENT_MAX descriptors: a sender of single octets stops there until they are
 * acknowledged.
 */
#include "dataplane/wire/tcp/tcp.h"
#include "dataplane/wire/tcp/whole.h"

#include <stdlib.h>

#define SENT_CAPACITY_MIN 16u /* as for slices: a message of 10 KB by frames of Ethernet */
#define CUT_LOOKS_MAX     4u
#define CUT_MIN           64u /* fewer octets go with those behind them */

/* Sequence numbers of a descriptor that are no octets. */
static uint32_t sent_controls(const struct tcp_sent *sent)
{
    return sent->flags & (TCP_SENT_SYN | TCP_SENT_FIN) ? 1 : 0;
}

/* ---- descriptors ---- */

void tcp_sent_grow(struct tcp_sent_queue *queue)
{
    uint32_t capacity = queue->capacity == 0 ? SENT_CAPACITY_MIN : queue->capacity * 2;
    struct tcp_sent *ring = malloc(capacity * sizeof(*ring));

    CHECK(ring != NULL); /* as for slices: the kernel overcommits */
    for (uint32_t i = 0; i < queue->count; i++)
        ring[i] = *tcp_sent_at(queue, i);
    if (queue->capacity > 0)
        free(queue->ring);
    queue->ring = ring;
    queue->capacity = capacity;
    queue->head = 0;
}

static void cursor_advance(struct tcb *tcb, uint32_t octets)
{
    uint32_t offset = tcb->send_offset + octets, slice = tcb->send_slice;

    if (octets == 0)
        return;
    for (;;) {
        uint32_t size = buf_queue_get(&tcb->slot.unsent, slice)->size;
        if (offset <= size)
            break;
        offset -= size;
        slice++;
    }
    tcb->send_slice = slice;
    tcb->send_offset = offset;
}

enum err tcp_sent_push(struct stack *stack, struct tcb *tcb, uint16_t size, uint8_t flags)
{
    CHECK(size > 0);
    if (tcb->sent.count == TCP_SENT_MAX)
        return ERR_LIMIT;
    cursor_advance(tcb, size - sent_controls(tcp_sent_describe(stack, tcb, size, flags)));
    return ERR_OK;
}

uint32_t tcp_sent_find(const struct tcb *tcb, uint32_t sequence)
{
    const struct tcp_sent_queue *queue = &tcb->sent;
    uint32_t low = 0, high = queue->count;

    if (queue->count == 0 || seq_lt(sequence, tcb->snd_una))
        return queue->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        const struct tcp_sent *sent = tcp_sent_at(queue, middle);
        if (seq_le(sent->sequence + sent->size, sequence))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

enum err tcp_sent_split(struct stack *stack, struct tcb *tcb, uint32_t index, uint16_t size)
{
    struct tcp_sent_queue *queue = &tcb->sent;

    (void)stack;
    CHECK(index < queue->count && size > 0 && size < tcp_sent_at(queue, index)->size);
    if (queue->count == TCP_SENT_MAX)
        return ERR_LIMIT;
    if (queue->count > 0 && queue->count >= queue->capacity)
        tcp_sent_grow(queue);
    queue->count++;
    for (uint32_t i = queue->count - 1; i > index + 1; i--)
        *tcp_sent_at(queue, i) = *tcp_sent_at(queue, i - 1);
    struct tcp_sent *first = tcp_sent_at(queue, index), *second = tcp_sent_at(queue, index + 1);
    *second = *first;
    second->sequence += size;
    second->size = (uint16_t)(first->size - size);
    first->size = size;
    /* The SYN comes first, the FIN last. */
    first->flags &= (uint8_t)~TCP_SENT_FIN;
    second->flags &= (uint8_t)~TCP_SENT_SYN;
    return ERR_OK;
}

/* ---- what is acknowledged ---- */

/* Octets at the front of slot.unsent go: the cursor stays on its octet. */
static void cursor_drop(struct tcb *tcb, uint64_t octets)
{
    uint32_t popped = 0;

    while (octets > 0 && octets >= buf_queue_get(&tcb->slot.unsent, popped)->size)
        octets -= buf_queue_get(&tcb->slot.unsent, popped++)->size;
    if (tcb->send_slice < popped) { /* it stood at the end of a slice that is gone */
        tcb->send_slice = tcb->send_offset = 0;
        return;
    }
    tcb->send_slice -= popped;
    if (tcb->send_slice == 0)
        tcb->send_offset -= (uint32_t)octets;
}

/* The first descriptor, or `size` sequence numbers of it, is acknowledged. */
static void sent_count_off(struct tcb *tcb, const struct tcp_sent *sent, uint32_t size)
{
    tcb->sacked -= sent->flags & TCP_SENT_SACKED ? size : 0;
    tcb->lost -= sent->flags & TCP_SENT_LOST ? size : 0;
    tcb->retransmitted -= sent->flags & TCP_SENT_RETRANSMITTED ? size : 0;
}

/* Take `size` sequence numbers off the front; returns how many were octets. */
static uint32_t sent_trim(struct tcb *tcb, uint32_t size)
{
    struct tcp_sent_queue *queue = &tcb->sent;
    bool has_marks = (tcb->sacked | tcb->lost | tcb->retransmitted) != 0;
    uint32_t octets = size;

    while (size > 0) {
        struct tcp_sent *sent = tcp_sent_at(queue, 0);
        uint32_t part = sent->size < size ? sent->size : size;

        if (has_marks)
            sent_count_off(tcb, sent, part);
        size -= part;
        if (part < sent->size) {
            sent->sequence += part;
            sent->size = (uint16_t)(sent->size - part);
            break;
        }
        octets -= sent_controls(sent);
        if (queue->capacity > 0)
            queue->head = (queue->head + 1) & (queue->capacity - 1);
        queue->count--;
    }
    return octets;
}

/* The same for all of them, none of which has a mark; returns how many numbers were octets. */
static uint32_t sent_trim_all(struct tcb *tcb)
{
    uint32_t octets = tcb->snd_nxt - tcb->snd_una - sent_controls(tcp_sent_at(&tcb->sent, 0));

    if (tcb->sent.count > 1)
        octets -= sent_controls(tcp_sent_at(&tcb->sent, tcb->sent.count - 1));
    tcb->sent.count = 0;
    return octets;
}

void tcp_sent_drop(struct stack *stack, struct tcb *tcb, uint32_t acknowledged)
{
    bool is_all = acknowledged == tcb->snd_nxt && tcb->sent.count > 0 &&
                  (tcb->sacked | tcb->lost | tcb->retransmitted) == 0;

    CHECK(seq_ge(acknowledged, tcb->snd_una) && seq_le(acknowledged, tcb->snd_nxt));
    uint32_t octets = is_all ? sent_trim_all(tcb) : sent_trim(tcb, acknowledged - tcb->snd_una);
    tcb->snd_una = acknowledged;
    if (octets == 0)
        return;
    if (is_all)
        tcb->send_slice = tcb->send_offset = 0; /* what is left begins at the cursor */
    else
        cursor_drop(tcb, octets);
    tcb->octets_sent += octets;
    flow_core_sent(&stack->core, &tcb->slot, octets);
}

void tcp_sent_free(struct tcb *tcb)
{
    if (tcb->sent.capacity > 0)
        free(tcb->sent.ring);
    tcb->sent = (struct tcp_sent_queue){0};
    tcb->sacked = tcb->lost = tcb->retransmitted = 0;
    tcb->send_slice = tcb->send_offset = 0;
}

/* ---- octets for a frame ---- */

/* A place in slot.unsent. */
struct place {
    uint32_t slice, offset;
};

static struct place place_of(const struct tcb *tcb, uint32_t offset)
{
    if (offset == tcb_octets_in_flight(tcb))
        return (struct place){tcb->send_slice, tcb->send_offset};
    struct place place = {0, offset};
    for (;;) {
        uint32_t size = buf_queue_get(&tcb->slot.unsent, place.slice)->size;
        if (place.offset < size)
            return place;
        place.offset -= size;
        place.slice++;
    }
}

/* The next piece of at most `size` octets; moves the place behind it. */
static struct buf_slice place_next(const struct tcb *tcb, struct place *place, uint32_t size)
{
    const struct buf_slice *slice = buf_queue_get(&tcb->slot.unsent, place->slice);

    if (place->offset == slice->size) {
        place->slice++;
        place->offset = 0;
        slice = buf_queue_get(&tcb->slot.unsent, place->slice);
    }
    uint32_t left = slice->size - place->offset;
    struct buf_slice piece = {.buf = slice->buf,
                              .offset = (uint16_t)(slice->offset + place->offset),
                              .size = (uint16_t)(left < size ? left : size)};
    place->offset += piece.size;
    return piece;
}

uint32_t tcp_send_fitting(const struct tcb *tcb, uint32_t offset, uint32_t size,
                          uint32_t pieces_max)
{
    struct place place = place_of(tcb, offset);
    uint32_t octets = 0;

    for (uint32_t pieces = 0; pieces < pieces_max && octets < size; pieces++)
        octets += place_next(tcb, &place, size - octets).size;
    return octets;
}

/* Moves the place on. */
static void gather_by_copy(const struct tcb *tcb, struct place *place, uint32_t size,
                           struct buf *into)
{
    while (size > 0) {
        struct buf_slice piece = place_next(tcb, place, size);
        struct span octets = buf_slice_span(&piece);

        memcpy(buf_data(into) + buf_size(into), octets.data, octets.size);
        into->mbuf.data_len = (uint16_t)(into->mbuf.data_len + octets.size);
        size -= octets.size;
    }
}

static void chain_append(struct buf *head, struct buf **tail, struct buf *buf)
{
    (*tail)->mbuf.next = (struct rte_mbuf *)(void *)buf;
    *tail = buf;
    head->mbuf.nb_segs++;
}

static bool gather_by_reference(struct stack *stack, const struct tcb *tcb, struct place place,
                                uint32_t size, struct buf *head)
{
    struct buf *tail = head;

    while (size > 0) {
        struct buf_slice piece = place_next(tcb, &place, size);
        struct buf *clone =
            buf_clone(stack->options.clone_pool, piece.buf, piece.offset, piece.size);
        if (clone == NULL)
            return false;
        chain_append(head, &tail, clone);
        size -= piece.size;
    }
    return true;
}

/* More pieces than the nic takes: into buffers of our own, which are few enough
 * (stack_options_check()). */
static bool gather_together(struct stack *stack, const struct tcb *tcb, struct place place,
                            uint32_t size, struct buf *head)
{
    struct buf *tail = head;
    uint32_t octets = size;

    while (size > 0) {
        struct buf *buf = buf_acquire(stack->options.pool);
        if (buf == NULL)
            return false;
        uint32_t part = size < buf_room(buf) ? size : buf_room(buf);
        gather_by_copy(tcb, &place, part, buf);
        chain_append(head, &tail, buf);
        size -= part;
    }
    STACK_COUNT(stack, TCP_SEND_JOINED);
    flow_core_copied(&stack->core, &stack->core.stats.copied.joined, octets);
    return true;
}

/* Where, of the `size` octets that begin with slice `at` after `ahead` others, one begins that is
 * worth a frame; `size` if none does. */
static uint32_t find_worth(const struct tcb *tcb, uint32_t at, uint32_t ahead, uint32_t size)
{
    const struct buf_queue *unsent = &tcb->slot.unsent;

    for (uint32_t looks = 0; looks < CUT_LOOKS_MAX && ahead < size && at < unsent->count; looks++) {
        const struct buf_slice *slice = buf_queue_get(unsent, at++);
        if (ahead >= CUT_MIN && tcp_whole_is_worth(slice, tcb->mss))
            return ahead;
        ahead += slice->size;
    }
    return size;
}

uint32_t tcp_send_cut(const struct tcb *tcb, uint32_t size, uint32_t available,
                      struct buf **ret_whole)
{
    const struct buf_queue *unsent = &tcb->slot.unsent;
    const struct buf_slice *slice = buf_queue_get(unsent, tcb->send_slice);
    uint32_t at = tcb->send_slice, ahead = slice->size - tcb->send_offset;

    *ret_whole = NULL;
    if (ahead == 0) {
        slice = buf_queue_get(unsent, ++at);
        ahead = slice->size;
    }
    if (ahead == slice->size && ahead <= size && (ahead == available || available > tcb->mss) &&
        tcp_whole_is_worth(slice, tcb->mss)) {
        *ret_whole = slice->buf;
        return ahead;
    }
    /* What fits into one frame goes in one. */
    return available > tcb->mss ? find_worth(tcb, at + 1, ahead, size) : size;
}

uint64_t tcp_send_copy(const struct tcb *tcb, uint32_t offset, uint32_t size, struct buf *into)
{
    struct place place = place_of(tcb, offset);
    uint8_t *to = buf_data(into) + buf_size(into);
    uint64_t sum = 0;

    buf_extend(into, size);
    for (uint32_t at = 0; at < size; place.slice++, place.offset = 0) {
        const struct buf_slice *slice = buf_queue_get(&tcb->slot.unsent, place.slice);
        uint32_t left = slice->size - place.offset, part = left < size - at ? left : size - at;
        if (part == 0) /* the cursor may stand at the end of a slice */
            continue;
        uint64_t part_sum = wire_sum_copy(to + at, buf_slice_span(slice).data + place.offset, part);
        sum += at % 2 == 0 ? part_sum : wire_sum_swap(part_sum);
        at += part;
    }
    return sum;
}

bool tcp_send_gather(struct stack *stack, struct tcb *tcb, uint32_t offset, uint32_t size,
                     struct buf *head)
{
    struct place place = place_of(tcb, offset);
    uint32_t pieces_max = tcb->destination->port->segments_max - 1u;
    bool is_done;

    if (size <= buf_room(head)) {
        gather_by_copy(tcb, &place, size, head);
        is_done = true;
    } else if (tcp_send_fitting(tcb, offset, size, pieces_max) == size) {
        is_done = gather_by_reference(stack, tcb, place, size, head);
    } else {
        is_done = gather_together(stack, tcb, place, size, head);
    }
    head->mbuf.pkt_len = buf_size(head) + (head->mbuf.next != NULL ? size : 0);
    return is_done;
}

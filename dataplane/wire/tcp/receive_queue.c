/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is received: in order to the flow (deliver.c), out of order into ranges until the holes are
 * filled.
 *
 * Out of order, payloads are held in ranges [start, end) of sequence numbers in rising order, each
 * a chain of buffers that show exactly its octets. What is already held stays, what comes later and
 * overlaps is cut (HAZARDS TC-13): nobody can exchange octets that were inspected. A small payload
 * that continues a range is copied behind its last octet.
 *
 * Invariants
 *   1. Ranges do not touch each other, all lie beyond rcv_nxt and below a known FIN.
 *   2. While there is a reassembly it has a range or knows a FIN; in-order payload goes through it.
 *   3. A chain's buffers have refcnt 1 and belong to nobody else: room behind the data is ours.
 *
 * Limits: RANGES_MAX ranges, policy.out_of_order_segments_max buffers and out_of_order_octets_max
 * octets of memory (not of payload, HAZARDS TC-05) a connection; half of the receive pool, or
 * BUFFERS_MAX, a stack; nothing while the receive reserve is touched. Beyond them segments are
 * dropped and counted. What fills the first hole is exempt: it leaves at once.
 */
#include "dataplane/wire/tcp/tcp.h"
#include "dataplane/wire/tcp/whole.h"

#include <stdlib.h>

#define RANGES_MAX  512u
#define RANGES_MIN  4u
#define BUFFERS_MAX 65536u

struct range {
    uint32_t start, end;
    struct buf *first, *last;
    uint32_t stamp; /* of the latest segment that changed it */
};

struct tcp_reassembly {
    struct range *ranges; /* capacity RANGES_MIN to RANGES_MAX + 1: the last for the first hole */
    uint32_t count, capacity;
    uint32_t buffers, memory, stamp;
    bool has_fin;
    uint32_t fin; /* its sequence number */
};

struct tcp_receive {
    uint32_t buffers, buffers_max;
};

struct tcp_receive *tcp_receive_new(struct stack *stack)
{
    const struct buf_pool *pool = stack->options.receive_pool;
    struct tcp_receive *receive = calloc(1, sizeof(*receive));

    CHECK(receive != NULL);
    receive->buffers_max = BUFFERS_MAX;
    if (pool != NULL)
        receive->buffers_max = (buf_pool_available(pool) + buf_pool_in_use(pool)) / 2;
    return receive;
}

void tcp_receive_free(struct tcp_receive *receive)
{
    CHECK(receive->buffers == 0);
    free(receive);
}

uint32_t tcp_receive_buffers(const struct stack *stack)
{
    return stack->tcp->receive->buffers;
}

/* ---- chains ---- */

static struct buf *chain_next(const struct buf *buf)
{
    return (struct buf *)(void *)buf->mbuf.next;
}

static struct buf *chain_last(struct buf *buf)
{
    while (buf->mbuf.next != NULL)
        buf = chain_next(buf);
    return buf;
}

/* Cut octets off the front; buffers that become empty are released. Returns the rest. */
static struct buf *chain_trim(struct buf *chain, uint32_t size)
{
    while (chain != NULL && (size > 0 || buf_size(chain) == 0)) {
        if (size < buf_size(chain)) {
            chain->mbuf.data_off = (uint16_t)(chain->mbuf.data_off + size);
            chain->mbuf.data_len = (uint16_t)(chain->mbuf.data_len - size);
            return chain;
        }
        struct buf *next = chain_next(chain);
        size -= buf_size(chain);
        chain->mbuf.next = NULL;
        buf_release(chain);
        chain = next;
    }
    return chain;
}

/* Keep the first `size` octets, size > 0. */
static void chain_cut(struct buf *chain, uint32_t size)
{
    while (size > buf_size(chain)) {
        size -= buf_size(chain);
        chain = chain_next(chain);
    }
    chain->mbuf.data_len = (uint16_t)size;
    buf_release_chain(chain_next(chain));
    chain->mbuf.next = NULL;
}

/* Copies of the first `size` octets; NULL: the pool is empty. */
static struct buf *chain_copy(struct buf_pool *pool, const struct buf *chain, uint32_t size)
{
    struct buf *first = NULL, *last = NULL;
    uint32_t offset = 0;

    while (size > 0) {
        if (last == NULL || buf_room(last) == 0) {
            struct buf *buf = buf_acquire(pool);
            if (buf == NULL) {
                buf_release_chain(first);
                return NULL;
            }
            if (last != NULL)
                last->mbuf.next = (struct rte_mbuf *)(void *)buf;
            else
                first = buf;
            last = buf;
        }
        uint32_t step = buf_size(chain) - offset;
        step = step < size ? step : size;
        step = step < buf_room(last) ? step : buf_room(last);
        memcpy(buf_data(last) + buf_size(last), buf_data(chain) + offset, step);
        buf_extend(last, step);
        size -= step;
        offset += step;
        if (offset == buf_size(chain)) {
            chain = chain_next(chain);
            offset = 0;
        }
    }
    return first;
}

/* The payload of a segment, and nothing else, as a chain that is now the caller's; size > 0. */
static struct buf *payload_take(struct segment *segment)
{
    struct buf *chain = segment->packet->buf;

    segment->packet->buf = NULL;
    for (struct buf *buf = chain; buf != NULL; buf = chain_next(buf))
        tcp_whole_forget(buf);
    chain = chain_trim(chain, segment->payload_offset);
    chain_cut(chain, segment->size);
    return chain;
}

/* ---- in order ---- */

bool tcp_receive_in_order(struct stack *stack, struct tcb *tcb, struct segment *segment)
{
    struct buf *buf = segment->packet->buf;

    CHECK(tcb->reassembly == NULL && segment->sequence == tcb->rcv_nxt && segment->size > 0);
    if (!tcp_deliver_has_room(stack, segment->size)) {
        STACK_COUNT(stack, TCP_RECEIVE_DROPPED);
        return false;
    }
    if (buf->mbuf.next != NULL || tcb->slot.flags & FLOW_SLOT_ORPHAN) {
        tcp_deliver(stack, tcb, payload_take(segment), segment->size);
        return true;
    }
    segment->packet->buf = NULL;
    struct tcp_payload payload = {.offset = segment->payload_offset,
                                  .size = segment->size,
                                  .sum = segment->payload_sum,
                                  .is_summed = segment->is_summed,
                                  .is_trimmed = segment->is_trimmed};
    (void)tcp_deliver_whole(stack, tcb, buf, &payload, tcp_receive_is_low(stack));
    return true;
}

/* ---- ranges ---- */

static struct tcp_reassembly *reassembly_get(struct tcb *tcb)
{
    if (tcb->reassembly == NULL) {
        tcb->reassembly = calloc(1, sizeof(*tcb->reassembly));
        CHECK(tcb->reassembly != NULL);
    }
    return tcb->reassembly;
}

static void range_release(struct stack *stack, struct tcp_reassembly *reassembly, struct buf *chain)
{
    for (const struct buf *buf = chain; buf != NULL; buf = chain_next(buf)) {
        reassembly->buffers--;
        reassembly->memory -= buf_charge(buf);
        stack->tcp->receive->buffers--;
    }
}

void tcp_reassembly_free(struct stack *stack, struct tcb *tcb)
{
    struct tcp_reassembly *reassembly = tcb->reassembly;

    if (reassembly == NULL)
        return;
    for (uint32_t i = 0; i < reassembly->count; i++) {
        range_release(stack, reassembly, reassembly->ranges[i].first);
        buf_release_chain(reassembly->ranges[i].first);
    }
    CHECK(reassembly->buffers == 0 && reassembly->memory == 0);
    free(reassembly->ranges);
    free(reassembly);
    tcb->reassembly = NULL;
}

/* The first range that ends beyond `sequence`; count if none does. */
static uint32_t range_find(const struct tcp_reassembly *reassembly, uint32_t sequence)
{
    uint32_t low = 0, high = reassembly->count;

    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (seq_le(reassembly->ranges[middle].end, sequence))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void ranges_remove(struct tcp_reassembly *reassembly, uint32_t index)
{
    reassembly->count--;
    memmove(&reassembly->ranges[index], &reassembly->ranges[index + 1],
            (reassembly->count - index) * sizeof(*reassembly->ranges));
}

static struct range *ranges_insert(struct tcp_reassembly *reassembly, uint32_t index)
{
    if (reassembly->count == reassembly->capacity) {
        uint32_t capacity = reassembly->capacity == 0 ? RANGES_MIN : reassembly->capacity * 2;
        reassembly->ranges = realloc(reassembly->ranges, capacity * sizeof(*reassembly->ranges));
        CHECK(reassembly->ranges != NULL);
        reassembly->capacity = capacity;
    }
    memmove(&reassembly->ranges[index + 1], &reassembly->ranges[index],
            (reassembly->count - index) * sizeof(*reassembly->ranges));
    reassembly->count++;
    return &reassembly->ranges[index];
}

/* What continues a range and is small goes behind its last octet. */
static bool range_extend_by_copy(struct range *range, const struct buf *chain, uint32_t size)
{
    struct buf *last = range->last;

    if (chain->mbuf.next != NULL || size * 2 >= buf_charge(chain) || size > buf_room(last))
        return false;
    CHECK(last->mbuf.refcnt == 1);
    memcpy(buf_data(last) + buf_size(last), buf_data(chain), size);
    buf_extend(last, size);
    range->end += size;
    return true;
}

static void chain_account(struct stack *stack, struct tcp_reassembly *reassembly,
                          const struct buf *chain)
{
    for (; chain != NULL; chain = chain_next(chain)) {
        reassembly->buffers++;
        reassembly->memory += buf_charge(chain);
        stack->tcp->receive->buffers++;
    }
}

/* [sequence, sequence + size) lies in the hole before range `index`; joins what it touches. */
static void range_add(struct stack *stack, struct tcp_reassembly *reassembly, uint32_t index,
                      uint32_t sequence, uint32_t size, struct buf *chain)
{
    struct range *ranges = reassembly->ranges;
    bool joins_before = index > 0 && ranges[index - 1].end == sequence;
    bool joins_after = index < reassembly->count && ranges[index].start == sequence + size;
    struct buf *last = chain_last(chain);

    if (joins_before && range_extend_by_copy(&ranges[index - 1], chain, size)) {
        flow_core_copied(&stack->core, &stack->core.stats.copied.reordered, size);
        buf_release(chain);
    } else if (joins_before) {
        chain_account(stack, reassembly, chain);
        ranges[index - 1].last->mbuf.next = (struct rte_mbuf *)(void *)chain;
        ranges[index - 1].last = last;
        ranges[index - 1].end += size;
    } else if (joins_after) {
        chain_account(stack, reassembly, chain);
        last->mbuf.next = (struct rte_mbuf *)(void *)ranges[index].first;
        ranges[index].first = chain;
        ranges[index].start = sequence;
        ranges[index].stamp = reassembly->stamp;
        return;
    } else {
        chain_account(stack, reassembly, chain);
        *ranges_insert(reassembly, index) =
            (struct range){sequence, sequence + size, chain, last, reassembly->stamp};
        return;
    }
    ranges[index - 1].stamp = reassembly->stamp;
    if (!joins_after)
        return;
    ranges[index - 1].last->mbuf.next = (struct rte_mbuf *)(void *)ranges[index].first;
    ranges[index - 1].last = ranges[index].last;
    ranges[index - 1].end = ranges[index].end;
    ranges_remove(reassembly, index);
}

/* ---- out of order ---- */

void tcp_receive_note_duplicate(struct tcb *tcb, uint32_t start, uint32_t end)
{
    if (!(tcb->flags & TCB_HAS_SACK) || tcb->flags & TCB_DSACK_SEND)
        return; /* the earliest of a turn is reported */
    tcb->dsack_start = start;
    tcb->dsack_end = end;
    tcb->flags |= TCB_DSACK_SEND;
}

/* HAZARDS TC-05: what holes may cost, whatever arrives. */
static bool is_within_bounds(const struct stack *stack, const struct tcb *tcb,
                             const struct segment *segment)
{
    const struct tcp_policy *policy = &stack->options.tcp;
    const struct tcp_reassembly *reassembly = tcb->reassembly;
    const struct tcp_receive *receive = stack->tcp->receive;

    if (segment->sequence == tcb->rcv_nxt)
        return tcp_deliver_has_room(stack, segment->size);
    if (receive->buffers >= receive->buffers_max || tcp_receive_is_low(stack))
        return false;
    return reassembly == NULL || (reassembly->buffers < policy->out_of_order_segments_max &&
                                  reassembly->memory < policy->out_of_order_octets_max);
}

/* Put what is new of the chain into the holes it meets; takes the chain. Each round passes a range,
 * so there are at most two for each. */
static void fill_holes(struct stack *stack, struct tcb *tcb, uint32_t sequence, uint32_t size,
                       struct buf *chain)
{
    struct tcp_reassembly *reassembly = tcb->reassembly;

    while (size > 0) {
        uint32_t index = range_find(reassembly, sequence), step = size;
        bool has_next = index < reassembly->count;
        struct range *next = has_next ? &reassembly->ranges[index] : NULL;

        if (has_next && seq_le(next->start, sequence)) {
            step = next->end - sequence < size ? next->end - sequence : size;
            tcp_receive_note_duplicate(tcb, sequence, sequence + step);
            next->stamp = reassembly->stamp;
            chain = chain_trim(chain, step);
        } else if (has_next && seq_lt(next->start, sequence + size)) {
            step = next->start - sequence;
            struct buf *piece = chain_copy(stack->options.pool, chain, step);
            if (piece == NULL) {
                STACK_COUNT(stack, TCP_OUT_OF_ORDER_DROPPED);
                break;
            }
            range_add(stack, reassembly, index, sequence, step, piece);
            chain = chain_trim(chain, step);
        } else if (reassembly->count >= RANGES_MAX && sequence != tcb->rcv_nxt &&
                   (index == 0 || reassembly->ranges[index - 1].end != sequence) &&
                   !(has_next && next->start == sequence + size)) {
            STACK_COUNT(stack, TCP_OUT_OF_ORDER_DROPPED);
            break;
        } else {
            range_add(stack, reassembly, index, sequence, step, chain);
            chain = NULL;
        }
        sequence += step;
        size -= step;
    }
    buf_release_chain(chain);
}

/* A FIN that would cut off octets which are held already is ignored: first wins. */
static void note_fin(struct tcp_reassembly *reassembly, uint32_t fin)
{
    uint32_t count = reassembly->count;

    if (reassembly->has_fin || (count > 0 && seq_gt(reassembly->ranges[count - 1].end, fin)))
        return;
    reassembly->has_fin = true;
    reassembly->fin = fin;
}

void tcp_receive_out_of_order(struct stack *stack, struct tcb *tcb, struct segment *segment)
{
    uint32_t size = segment->size;

    STACK_COUNT(stack, TCP_OUT_OF_ORDER);
    if (!is_within_bounds(stack, tcb, segment)) {
        STACK_COUNT(stack, TCP_OUT_OF_ORDER_DROPPED);
        return;
    }
    struct tcp_reassembly *reassembly = reassembly_get(tcb);
    reassembly->stamp++;
    if (segment->flags & TCP_FIN)
        note_fin(reassembly, segment->sequence + size);
    if (reassembly->has_fin && seq_gt(segment->sequence + size, reassembly->fin)) {
        STACK_COUNT(stack, TCP_BEYOND_FIN);
        segment->size = size =
            seq_lt(segment->sequence, reassembly->fin) ? reassembly->fin - segment->sequence : 0;
    }
    if (size > 0)
        fill_holes(stack, tcb, segment->sequence, size, payload_take(segment));
    if (reassembly->count == 0 && !reassembly->has_fin)
        tcp_reassembly_free(stack, tcb);
}

bool tcp_receive_reassemble(struct stack *stack, struct tcb *tcb)
{
    struct tcp_reassembly *reassembly = tcb->reassembly;

    if (reassembly == NULL)
        return false;
    if (reassembly->count > 0 && reassembly->ranges[0].start == tcb->rcv_nxt) {
        struct range first = reassembly->ranges[0];
        range_release(stack, reassembly, first.first);
        ranges_remove(reassembly, 0);
        tcp_deliver(stack, tcb, first.first, first.end - first.start);
    }
    bool is_fin = reassembly->has_fin && reassembly->fin == tcb->rcv_nxt;
    if (is_fin || (reassembly->count == 0 && !reassembly->has_fin))
        tcp_reassembly_free(stack, tcb);
    return is_fin;
}

/* ---- SACK ---- */

/* The range with the highest stamp below `stamp`; NULL: none. */
static const struct range *range_before(const struct tcp_reassembly *reassembly, uint32_t stamp)
{
    const struct range *found = NULL;

    for (uint32_t i = 0; i < reassembly->count; i++) {
        const struct range *range = &reassembly->ranges[i];
        if (seq_lt(range->stamp, stamp) && (found == NULL || seq_gt(range->stamp, found->stamp)))
            found = range;
    }
    return found;
}

uint8_t tcp_receive_sack_blocks(struct stack *stack, struct tcb *tcb,
                                struct tcp_sack_block *ret_blocks, uint8_t max)
{
    uint8_t count = 0;

    if (!(tcb->flags & TCB_HAS_SACK))
        return 0;
    /* RFC 2883 4: the duplicate comes first; where more is held around it, that comes next, as its
     * stamp is the latest. */
    if (tcb->flags & TCB_DSACK_SEND && max > 0) {
        ret_blocks[count++] = (struct tcp_sack_block){tcb->dsack_start, tcb->dsack_end};
        tcb->flags &= ~(uint32_t)TCB_DSACK_SEND;
        STACK_COUNT(stack, TCP_DSACK_SENT);
    }
    if (tcb->reassembly == NULL)
        return count;
    /* RFC 2018 4: the block with the latest segment, then the ones reported before, latest first.
     */
    uint32_t stamp = tcb->reassembly->stamp + 1;
    while (count < max) {
        const struct range *range = range_before(tcb->reassembly, stamp);
        if (range == NULL)
            break;
        ret_blocks[count++] = (struct tcp_sack_block){range->start, range->end};
        stamp = range->stamp;
    }
    return count;
}

/* ---- for tests ---- */

void tcp_reassembly_verify(const struct tcb *tcb)
{
    const struct tcp_reassembly *reassembly = tcb->reassembly;
    uint32_t sequence = tcb->rcv_nxt, buffers = 0, memory = 0;

    if (reassembly == NULL)
        return;
    CHECK(reassembly->count > 0 || reassembly->has_fin);
    CHECK(reassembly->count <= RANGES_MAX + 1 && reassembly->count <= reassembly->capacity);
    for (uint32_t i = 0; i < reassembly->count; i++) {
        const struct range *range = &reassembly->ranges[i];
        uint32_t octets = 0;
        CHECK(seq_lt(sequence, range->start) && seq_lt(range->start, range->end));
        for (const struct buf *buf = range->first; buf != NULL; buf = chain_next(buf)) {
            CHECK(buf->mbuf.refcnt == 1);
            CHECK((buf->mbuf.next == NULL) == (buf == range->last));
            octets += buf_size(buf);
            buffers++;
            memory += buf_charge(buf);
        }
        CHECK(octets == range->end - range->start);
        sequence = range->end;
    }
    CHECK(!reassembly->has_fin || seq_le(sequence, reassembly->fin));
    CHECK(buffers == reassembly->buffers && memory == reassembly->memory);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TIME_WAIT (RFC 9293 3.6.1): who closed first remembers the connection for a while, so that the
 * peer's repeated FIN is acknowledged and old segments do not get into a new connection with the
 * same tuple. A mail server closes first, so there are many; they are records of 72 octets instead
 * of tcbs, in the same table of tuples.
 *
 * All wait equally long, so they form a list by age and need no timer each. The number is bounded:
 * when it is reached the oldest record makes room and is counted.
 *
 * Who may use a tuple again before its time:
 *   the peer, by a SYN that cannot be old              RFC 6191, tcp_time_wait_input()
 *   ourselves, after REUSE_AGE_MS, with timestamps     tcp_time_wait_reuse()
 * Both get the least sequence number that lies beyond all that the old connection sent.
 *
 * Answers. An ACK is sent only for what occupies sequence space (SYN, FIN, data): two ends in
 * TIME_WAIT then never answer each other's ACKs (HAZARDS TC-07). A SYN that may be old is answered
 * so, too (RFC 9293 3.10.7.4, RFC 5961 4.2): a peer that means it resets us, which we ignore, and
 * tries again. Nothing is sent for RSTs, which change nothing (RFC 1337).
 *
 * Invariants
 *   1. A used record is in the table under its key, and on the list; a free one on the free list.
 *   2. From the oldest to the newest, `at` does not fall; at most one time_wait_time lies between.
 *
 * Limits: time_wait_max records, by blocks of BLOCK that are kept; ADVANCE_MAX expiries per call.
 */
#include <stdlib.h>

#include "dataplane/wire/tcp/tcp.h"

#define BLOCK        1024u
#define ADVANCE_MAX  1024u
#define REUSE_AGE_MS 1000
#define NONE         UINT32_MAX

struct tcp_time_waits {
    struct tcp_time_wait **blocks;
    uint32_t made, count, count_max;
    uint32_t free, oldest, newest;
};

/* ---- records ---- */

struct tcp_time_waits *tcp_time_waits_new(struct stack *stack)
{
    struct tcp_time_waits *waits = calloc(1, sizeof(*waits));
    uint32_t count_max = stack->options.time_wait_max;

    CHECK(waits != NULL);
    CHECK(stack->options.tcp.time_wait_time < TICK_S(1000000)); /* ms in 31 bits */
    waits->blocks = calloc(count_max / BLOCK + 1, sizeof(struct tcp_time_wait *));
    CHECK(waits->blocks != NULL);
    waits->count_max = count_max;
    waits->free = waits->oldest = waits->newest = NONE;
    return waits;
}

void tcp_time_waits_free(struct tcp_time_waits *waits)
{
    for (uint32_t i = 0; i * BLOCK < waits->made; i++)
        free(waits->blocks[i]);
    free(waits->blocks);
    free(waits);
}

static struct tcp_time_wait *record_at(const struct tcp_time_waits *waits, uint32_t index)
{
    return &waits->blocks[index / BLOCK][index % BLOCK];
}

struct tcp_time_wait *tcp_time_wait_at(const struct stack *stack, uint32_t index)
{
    const struct tcp_time_waits *waits = stack->tcp->time_waits;

    CHECK(index < waits->made);
    return record_at(waits, index);
}

uint32_t tcp_time_waits_count(const struct stack *stack)
{
    return stack->tcp->time_waits->count;
}

uint64_t tcp_time_waits_memory(const struct stack *stack)
{
    const struct tcp_time_waits *waits = stack->tcp->time_waits;
    uint64_t blocks = (waits->made + BLOCK - 1) / BLOCK;

    return sizeof(*waits) + (waits->count_max / BLOCK + 1) * sizeof(waits->blocks[0]) +
           blocks * BLOCK * sizeof(struct tcp_time_wait);
}

/* Whole milliseconds; `at` is rounded up, so that no record ends early: -1 at first. */
static int32_t age_ms(tick_us now, const struct tcp_time_wait *record)
{
    return (int32_t)((uint32_t)(now / 1000) - record->at);
}

/* To the new end of the list, from now on. */
static void record_link(struct stack *stack, uint32_t index)
{
    struct tcp_time_waits *waits = stack->tcp->time_waits;
    struct tcp_time_wait *record = record_at(waits, index);

    record->at = (uint32_t)((stack->now + 999) / 1000);
    record->newer = NONE;
    record->older = waits->newest;
    if (waits->newest != NONE)
        record_at(waits, waits->newest)->newer = index;
    else
        waits->oldest = index;
    waits->newest = index;
}

static void record_unlink(struct tcp_time_waits *waits, uint32_t index)
{
    const struct tcp_time_wait *record = record_at(waits, index);

    if (record->older != NONE)
        record_at(waits, record->older)->newer = record->newer;
    else
        waits->oldest = record->newer;
    if (record->newer != NONE)
        record_at(waits, record->newer)->older = record->older;
    else
        waits->newest = record->older;
}

/* The record at `index` is forgotten, its tuple free. */
static void record_end(struct stack *stack, uint32_t index)
{
    struct tcp_time_waits *waits = stack->tcp->time_waits;
    struct tcp_time_wait *record = record_at(waits, index);

    CHECK(record->is_used);
    tcp_table_remove(stack, &record->key, (struct tcp_found){TCP_FOUND_TIME_WAIT, index});
    record_unlink(waits, index);
    record->is_used = false;
    record->newer = waits->free;
    waits->free = index;
    waits->count--;
}

/* A free record, at the price of the oldest if need be. */
static uint32_t record_new(struct stack *stack)
{
    struct tcp_time_waits *waits = stack->tcp->time_waits;
    uint32_t index;

    if (waits->count == waits->count_max) {
        STACK_COUNT(stack, TCP_TIME_WAIT_EVICTED);
        record_end(stack, waits->oldest);
    }
    if (waits->free == NONE) {
        index = waits->made;
        if (index % BLOCK == 0) {
            waits->blocks[index / BLOCK] = malloc(BLOCK * sizeof(struct tcp_time_wait));
            CHECK(waits->blocks[index / BLOCK] != NULL);
        }
        waits->made++;
    } else {
        index = waits->free;
        waits->free = record_at(waits, index)->newer;
    }
    waits->count++;
    return index;
}

void tcp_time_waits_verify(struct stack *stack)
{
    struct tcp_time_waits *waits = stack->tcp->time_waits;
    uint32_t used = 0, unused = 0, older = NONE;

    for (uint32_t i = waits->oldest; i != NONE; i = record_at(waits, i)->newer) {
        const struct tcp_time_wait *record = record_at(waits, i);
        struct tcp_found found = tcp_table_find(stack, &record->key);
        CHECK(record->is_used && record->older == older && used < waits->count);
        CHECK(found.kind == TCP_FOUND_TIME_WAIT && found.index == i);
        CHECK(older == NONE || seq_le(record_at(waits, older)->at, record->at));
        older = i;
        used++;
    }
    for (uint32_t i = waits->free; i != NONE; i = record_at(waits, i)->newer) {
        CHECK(!record_at(waits, i)->is_used && unused < waits->made);
        unused++;
    }
    CHECK(waits->newest == older && used == waits->count);
    CHECK(used + unused == waits->made && waits->made <= waits->count_max);
}

/* ---- entering ---- */

void tcp_time_wait_enter(struct stack *stack, const struct tcb *tcb)
{
    struct tcp_time_waits *waits = stack->tcp->time_waits;
    uint32_t window = 0; /* also when a FIN was taken at the edge */

    if (seq_gt(tcb->rcv_edge, tcb->rcv_nxt))
        window = (tcb->rcv_edge - tcb->rcv_nxt) >> tcb->rcv_scale;
    if (waits->count_max == 0) {
        STACK_COUNT(stack, TCP_TIME_WAIT_EVICTED);
        return;
    }
    uint32_t index = record_new(stack);
    *record_at(waits, index) = (struct tcp_time_wait){
        .key = tcb->key,
        .snd_nxt = tcb->snd_nxt,
        .rcv_nxt = tcb->rcv_nxt,
        .ts_recent = tcb->ts_recent,
        .ts_offset = tcb->ts_offset,
        .window = (uint16_t)(window < UINT16_MAX ? window : UINT16_MAX),
        .is_used = true,
        .has_timestamps = (tcb->flags & TCB_HAS_TIMESTAMPS) != 0,
    };
    record_link(stack, index);
    tcp_table_replace(stack, &tcb->key, tcp_found_tcb(tcb),
                      (struct tcp_found){TCP_FOUND_TIME_WAIT, index});
    tcp_list_timer_set(stack, stack->now + stack->options.tcp.time_wait_time);
}

/* ---- segments ---- */

/*
 * RFC 6191 section 2: is this SYN surely newer than all that the peer sent before? The sequence
 * number last seen is that of its FIN, rcv_nxt - 1.
 */
static bool syn_is_new(const struct stack *stack, const struct tcp_time_wait *record,
                       const struct tcp_header *syn)
{
    bool has_timestamps = syn->options.has_timestamps && stack->options.tcp.has_timestamps;
    bool is_beyond = seq_ge(syn->sequence, record->rcv_nxt);

    if (!has_timestamps)
        return is_beyond;
    if (!record->has_timestamps)
        return true;
    if (syn->options.timestamp_value == record->ts_recent)
        return is_beyond;
    return seq_gt(syn->options.timestamp_value, record->ts_recent);
}

/* Beyond all the old connection sent, and never 0. */
static uint32_t iss_min_of(const struct tcp_time_wait *record)
{
    return record->snd_nxt != 0 ? record->snd_nxt : 1;
}

static void ack_send(struct stack *stack, const struct tcp_time_wait *record)
{
    struct tcp_header header = {
        .source_port = record->key.local_port,
        .destination_port = record->key.remote_port,
        .sequence = record->snd_nxt,
        .acknowledgement = record->rcv_nxt,
        .window = record->window,
        .flags = TCP_ACK,
        .options = {.has_timestamps = record->has_timestamps,
                    .timestamp_value = tcp_timestamp_now(stack, record->ts_offset),
                    .timestamp_echo = record->ts_recent},
    };
    STACK_COUNT(stack, TCP_TIME_WAIT_ACKED);
    tcp_send_plain(stack, &record->key, &header);
}

/* Neither SYN nor RST. */
static void record_input(struct stack *stack, uint32_t index, const struct segment *segment)
{
    struct tcp_time_waits *waits = stack->tcp->time_waits;
    struct tcp_time_wait *record = record_at(waits, index);
    const struct tcp_header *header = &segment->header;
    uint32_t end = header->sequence + segment->size + ((header->flags & TCP_FIN) ? 1 : 0);
    bool is_current = !record->has_timestamps ||
                      (header->options.has_timestamps &&
                       seq_ge(header->options.timestamp_value, record->ts_recent)); /* PAWS */

    if (!(header->flags & TCP_ACK) || (end == header->sequence && !(header->flags & TCP_SYN))) {
        STACK_COUNT(stack, TCP_TIME_WAIT_IGNORED);
        return;
    }
    /* RFC 9293 3.10.7.4: the peer's FIN again restarts the wait. */
    if ((header->flags & (TCP_FIN | TCP_SYN)) == TCP_FIN && end == record->rcv_nxt && is_current) {
        if (record->has_timestamps)
            record->ts_recent = header->options.timestamp_value;
        record_unlink(waits, index);
        record_link(stack, index);
    }
    ack_send(stack, record);
}

bool tcp_time_wait_input(struct stack *stack, uint32_t index, const struct segment *segment,
                         uint32_t *ret_iss_min)
{
    const struct tcp_time_wait *record = tcp_time_wait_at(stack, index);
    uint8_t flags = segment->header.flags;

    CHECK(record->is_used);
    if (flags & TCP_RST) {
        STACK_COUNT(stack, TCP_TIME_WAIT_RESETS);
        return true;
    }
    if ((flags & (TCP_SYN | TCP_ACK)) != TCP_SYN) {
        record_input(stack, index, segment);
        return true;
    }
    if ((flags & TCP_FIN) || !syn_is_new(stack, record, &segment->header)) {
        STACK_COUNT(stack, TCP_TIME_WAIT_IGNORED);
        if (!(flags & TCP_FIN)) /* with FIN it is nobody's honest segment */
            ack_send(stack, record);
        return true;
    }
    *ret_iss_min = iss_min_of(record);
    STACK_COUNT(stack, TCP_TIME_WAIT_REUSED);
    record_end(stack, index);
    return false;
}

bool tcp_time_wait_reuse(struct stack *stack, const struct tcp_key *key, uint32_t *ret_iss_min)
{
    struct tcp_found found = tcp_table_find(stack, key);

    if (found.kind != TCP_FOUND_TIME_WAIT)
        return false;
    const struct tcp_time_wait *record = record_at(stack->tcp->time_waits, found.index);
    /* Our timestamps went on by at least 1: the peer, if it waits too, takes our SYN (RFC 6191),
     * and PAWS keeps old segments out (RFC 7323 5.2). */
    if (!record->has_timestamps || !stack->options.tcp.has_timestamps ||
        age_ms(stack->now, record) < REUSE_AGE_MS)
        return false;
    *ret_iss_min = iss_min_of(record);
    STACK_COUNT(stack, TCP_TIME_WAIT_REUSED);
    record_end(stack, found.index);
    return true;
}

/* ---- time ---- */

tick_us tcp_time_waits_advance(struct stack *stack, tick_us now)
{
    struct tcp_time_waits *waits = stack->tcp->time_waits;
    int32_t time_ms = (int32_t)(stack->options.tcp.time_wait_time / 1000);

    for (uint32_t done = 0; waits->oldest != NONE; done++) {
        int32_t age = age_ms(now, record_at(waits, waits->oldest));
        if (age < time_ms)
            return now - now % 1000 + TICK_MS(time_ms - age);
        if (done == ADVANCE_MAX)
            return now;
        record_end(stack, waits->oldest);
    }
    return TICK_NEVER;
}

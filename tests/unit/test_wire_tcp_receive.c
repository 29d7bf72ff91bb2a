/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The receive queue against an oracle: whatever order, overlap and contradiction segments come
 * with, each octet is the one that came first, and what is held stays within its bounds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>

#include "tests/unit/wire_pair.h"

#define STREAM_MAX 60000u

/* A connection whose side B is fed by hand; its answers are never sent. */
struct feed {
    struct pair *pair;
    struct stack *stack;
    struct tcb *tcb;
    uint32_t base;                /* sequence number of octet 0 */
    uint8_t expected[STREAM_MAX]; /* 0: not there yet, else the octet that came first */
    uint32_t received;            /* octets read so far */
    uint32_t ends[2];             /* of the last segment */
};

static struct feed *feed_new(const struct tcp_policy *changes, uint32_t receive_limit)
{
    struct tcp_policy policy = changes == NULL ? tcp_policy_default() : *changes;
    struct feed *feed = calloc(1, sizeof(*feed));

    assert_non_null(feed);
    policy.has_timestamps = false;
    feed->pair = pair_new(&(struct pair_options){
        .policy = {&policy, &policy}, .receive_limit = receive_limit, .pool_max = 20000});
    pair_connect(feed->pair);
    feed->stack = feed->pair->stacks[PAIR_B];
    feed->tcb = pair_tcb(feed->pair, PAIR_B);
    feed->base = feed->tcb->rcv_nxt;
    feed->tcb->rcv_edge = feed->base + STREAM_MAX;
    return feed;
}

static void feed_free(struct feed *feed)
{
    pair_free(feed->pair);
    free(feed);
}

/* Octets [from, from + size), each `value`, in buffers of at most `piece`. */
static struct buf *octets_new(struct feed *feed, uint32_t size, uint8_t value, uint32_t piece)
{
    struct buf *first = NULL, *last = NULL;

    do {
        struct buf *buf = buf_acquire(feed->pair->pools[PAIR_B]);
        uint32_t part = size < piece ? size : piece;
        assert_non_null(buf);
        memset(buf_data(buf), value, part);
        buf_extend(buf, part);
        if (last == NULL)
            first = buf;
        else
            last->mbuf.next = &buf->mbuf;
        last = buf;
        size -= part;
    } while (size > 0);
    return first;
}

static void feed_segment(struct feed *feed, uint32_t from, uint32_t size, uint8_t value,
                         uint8_t flags, uint32_t piece)
{
    struct packet packet = {.buf = octets_new(feed, size, value, piece), .l4_size = (uint16_t)size};
    struct segment segment = {.packet = &packet,
                              .header = {.sequence = feed->base + from,
                                         .acknowledgement = feed->tcb->snd_una,
                                         .flags = (uint8_t)(TCP_ACK | flags)},
                              .key = feed->tcb->key,
                              .sequence = feed->base + from,
                              .size = size,
                              .end = feed->base + from + size + (flags & TCP_FIN ? 1 : 0),
                              .flags = (uint8_t)(TCP_ACK | flags),
                              .window = feed->tcb->snd_wnd};

    tcp_input_segment(feed->stack, feed->tcb, &segment);
    buf_release_chain(packet.buf);
    tcb_verify(feed->stack, feed->tcb);
}

/* What the flow has is what came first, and all that is in order. */
static void feed_check(struct feed *feed)
{
    struct flow_plane *plane = feed->pair->planes[PAIR_B];
    struct flow flow = feed->pair->flows[PAIR_B];
    uint32_t end = feed->received, size;

    while (end < STREAM_MAX && feed->expected[end] != 0)
        end++;
    assert_int_equal(end, feed->tcb->rcv_nxt - feed->base);
    while ((size = flow_readable(plane, flow)) > 0) {
        struct span octets = flow_pull(plane, flow, size < FLOW_PULL_MAX ? size : FLOW_PULL_MAX);
        assert_memory_equal(feed->expected + feed->received, octets.data, octets.size);
        feed->received += octets.size;
        flow_consume(plane, flow, octets.size);
    }
    assert_int_equal(end, feed->received);
}

static void expect(struct feed *feed, uint32_t from, uint32_t size, uint8_t value)
{
    for (uint32_t i = from; i < from + size && i < STREAM_MAX; i++) {
        if (feed->expected[i] == 0)
            feed->expected[i] = value;
    }
}

/* Blocks speak of what is held, the first one of the latest segment. */
static void check_blocks(struct feed *feed, uint32_t from, uint32_t size)
{
    struct tcp_sack_block blocks[TCP_SACK_BLOCKS_MAX];
    uint8_t count, first = 0;
    bool has_duplicate = feed->tcb->flags & TCB_DSACK_SEND;

    count = tcp_receive_sack_blocks(feed->stack, feed->tcb, blocks, 4);
    for (uint8_t i = 0; i < count; i++) {
        assert_true(seq_lt(blocks[i].start, blocks[i].end));
        for (uint32_t at = blocks[i].start - feed->base; at < blocks[i].end - feed->base; at++)
            assert_true(feed->expected[at] != 0);
    }
    if (has_duplicate)
        first = 1;
    if (count > first && from + size > feed->tcb->rcv_nxt - feed->base) {
        uint32_t last = feed->base + from + size - 1;
        assert_true(seq_le(blocks[first].start, last) && seq_gt(blocks[first].end, last));
    }
}

static void test_first_wins(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 12; seed++) {
        struct feed *feed = feed_new(NULL, 0);
        struct rng rng;
        uint32_t spread = seed % 3 == 0 ? 3000 : 20000, last = 0;

        rng_init_seed(&rng, seed);
        for (uint32_t i = 0; i < 3000 && feed->received < STREAM_MAX - 4000; i++) {
            uint32_t from = feed->received + rng_below(&rng, spread);
            uint32_t size = 1 + rng_below(&rng, seed % 2 == 0 ? 1448 : 3000);
            if (rng_below(&rng, 8) == 0)
                from = feed->received - (feed->received < 500 ? feed->received : 500);
            if (rng_below(&rng, 8) == 0)
                from = feed->received;
            if (rng_below(&rng, 8) == 0 && i > 0)
                from = last; /* exactly where one began before */
            last = from;
            if (from + size > STREAM_MAX)
                continue;
            uint8_t value = (uint8_t)(1 + i % 255);
            feed_segment(feed, from, size, value, 0, rng_below(&rng, 4) == 0 ? 100 : 2048);
            expect(feed, from, size, value);
            feed_check(feed);
            check_blocks(feed, from, size);
        }
        assert_int_equal(0, pair_count(feed->pair, PAIR_B, STACK_TCP_OUT_OF_ORDER_DROPPED));
        assert_true(feed->received > 20000);
        feed_free(feed);
    }
}

/* Goal: holes cost what the policy says and no more (HAZARDS TC-05). */
static void test_holes_are_bounded(void **state)
{
    struct tcp_policy policy = tcp_policy_default();

    (void)state;
    policy.out_of_order_segments_max = 50;
    struct feed *feed = feed_new(&policy, 0);
    for (uint32_t i = 0; i < 20000; i++)
        feed_segment(feed, 2 + 2 * (i * 7919 % 20000), 1, 'x', 0, 2048);
    assert_int_equal(50, tcp_receive_buffers(feed->stack));
    assert_int_equal(19950, pair_count(feed->pair, PAIR_B, STACK_TCP_OUT_OF_ORDER_DROPPED));
    feed_free(feed);

    policy.out_of_order_segments_max = 100000;
    policy.out_of_order_octets_max = 30 * (2048 + BUF_HEADROOM);
    feed = feed_new(&policy, 0);
    for (uint32_t i = 0; i < 1000; i++)
        feed_segment(feed, 2 + 2 * i, 1, 'x', 0, 2048);
    assert_int_equal(30, tcp_receive_buffers(feed->stack));
    feed_free(feed);

    /* The ranges are bounded by themselves; what continues one is not a new one. */
    policy.out_of_order_octets_max = 1u << 30;
    feed = feed_new(&policy, 0);
    for (uint32_t i = 0; i < 1000; i++)
        feed_segment(feed, 2 + 20 * i, 1, 'x', 0, 2048);
    assert_int_equal(512, tcp_receive_buffers(feed->stack));
    feed_segment(feed, 3, 1, 'x', 0, 2048);
    feed_segment(feed, 1, 1, 'x', 0, 2048);
    assert_int_equal(513, tcp_receive_buffers(feed->stack));
    /* The first hole can always be filled. */
    feed_segment(feed, 0, 1, 'x', 0, 2048);
    assert_int_equal(4, feed->tcb->rcv_nxt - feed->base);
    assert_int_equal(511, tcp_receive_buffers(feed->stack));
    feed_free(feed);
}

/* Goal: holes are not filled at the expense of the receive reserve. */
static void test_reserve_is_not_for_holes(void **state)
{
    struct feed *feed = feed_new(NULL, 0);

    (void)state;
    feed_segment(feed, 100, 10, 'x', 0, 2048);
    assert_int_equal(1, tcp_receive_buffers(feed->stack));
    feed->stack->options.receive_reserve = buf_pool_available(feed->pair->pools[PAIR_B]);
    feed_segment(feed, 200, 10, 'x', 0, 2048);
    assert_int_equal(1, tcp_receive_buffers(feed->stack));
    assert_int_equal(1, pair_count(feed->pair, PAIR_B, STACK_TCP_OUT_OF_ORDER_DROPPED));
    feed_segment(feed, 0, 100, 'x', 0, 2048); /* what is in order is copied out */
    assert_int_equal(110, flow_readable(feed->pair->planes[PAIR_B], feed->pair->flows[PAIR_B]));
    feed->stack->options.receive_reserve = 0;
    feed_free(feed);
}

/* Goal: octets that come one by one behind a hole share buffers. */
static void test_single_octets_behind_a_hole(void **state)
{
    struct feed *feed = feed_new(NULL, 0);

    (void)state;
    for (uint32_t i = 1; i <= 4000; i++) {
        feed_segment(feed, i, 1, (uint8_t)(1 + i % 200), 0, 2048);
        expect(feed, i, 1, (uint8_t)(1 + i % 200));
    }
    assert_in_range(tcp_receive_buffers(feed->stack), 1, 3);
    feed_segment(feed, 0, 1, 9, 0, 2048);
    expect(feed, 0, 1, 9);
    feed_check(feed);
    assert_int_equal(4001, feed->received);
    assert_int_equal(0, tcp_receive_buffers(feed->stack));
    feed_free(feed);
}

/* Goal: in order, what a window lets in pins no more than twice its size. */
static void test_small_segments_share_buffers(void **state)
{
    static const uint32_t sizes[] = {1, 7, 100, 700, 1000, 1087, 1088, 1448};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(sizes); i++) {
        struct feed *feed = feed_new(NULL, 0);
        uint32_t total = 0;
        for (; total + sizes[i] < 30000; total += sizes[i])
            feed_segment(feed, total, sizes[i], 'y', 0, 2048);
        assert_int_equal(total,
                         flow_readable(feed->pair->planes[PAIR_B], feed->pair->flows[PAIR_B]));
        assert_true(feed->tcb->slot.charge <= 2 * total + 2 * (2048 + BUF_HEADROOM));
        feed_free(feed);
    }
}

/* ---- FIN ---- */

static void test_fin_out_of_order(void **state)
{
    struct feed *feed = feed_new(NULL, 0);

    (void)state;
    feed_segment(feed, 200, 100, 'c', TCP_FIN, 2048);
    feed_segment(feed, 300, 50, 'z', 0, 2048);        /* beyond the FIN: nothing */
    feed_segment(feed, 250, 100, 'z', 0, 2048);       /* in part */
    feed_segment(feed, 100, 100, 'b', TCP_FIN, 2048); /* another end: ignored, the octets are not */
    assert_false(feed->tcb->flags & TCB_FIN_RECEIVED);
    feed_segment(feed, 0, 100, 'a', 0, 2048);
    expect(feed, 0, 100, 'a');
    expect(feed, 100, 100, 'b');
    expect(feed, 200, 100, 'c');
    assert_true(feed->tcb->flags & TCB_FIN_RECEIVED);
    assert_int_equal(TCP_CLOSE_WAIT, feed->tcb->state);
    assert_int_equal(301, feed->tcb->rcv_nxt - feed->base);
    assert_int_equal(300, flow_readable(feed->pair->planes[PAIR_B], feed->pair->flows[PAIR_B]));
    assert_int_equal(0, tcp_receive_buffers(feed->stack));
    assert_int_equal(2, pair_count(feed->pair, PAIR_B, STACK_TCP_BEYOND_FIN));
    feed_free(feed);
}

/* A FIN in the midst of what is held already is no FIN: first wins. */
static void test_fin_that_contradicts(void **state)
{
    struct feed *feed = feed_new(NULL, 0);

    (void)state;
    feed_segment(feed, 100, 200, 'b', 0, 2048);
    feed_segment(feed, 50, 100, 'z', TCP_FIN, 2048);
    feed_segment(feed, 0, 50, 'a', 0, 2048);
    assert_int_equal(TCP_ESTABLISHED, feed->tcb->state);
    assert_int_equal(300, feed->tcb->rcv_nxt - feed->base);
    feed_segment(feed, 300, 0, 0, TCP_FIN, 2048);
    assert_int_equal(TCP_CLOSE_WAIT, feed->tcb->state);
    feed_free(feed);
}

static void test_bare_fin_out_of_order(void **state)
{
    struct feed *feed = feed_new(NULL, 0);

    (void)state;
    feed_segment(feed, 10, 0, 0, TCP_FIN, 2048);
    assert_int_equal(TCP_ESTABLISHED, feed->tcb->state);
    feed_segment(feed, 0, 20, 'a', 0, 2048);
    assert_int_equal(TCP_CLOSE_WAIT, feed->tcb->state);
    assert_int_equal(11, feed->tcb->rcv_nxt - feed->base);
    feed_free(feed);
}

/* ---- what peers are told ---- */

static void test_blocks_latest_first(void **state)
{
    struct feed *feed = feed_new(NULL, 0);
    struct tcp_sack_block blocks[4];

    (void)state;
    for (uint32_t i = 1; i <= 6; i++)
        feed_segment(feed, i * 100, 50, 'x', 0, 2048);
    feed_segment(feed, 150, 10, 'x', 0, 2048); /* the first range grows */
    assert_int_equal(4, tcp_receive_sack_blocks(feed->stack, feed->tcb, blocks, 4));
    const uint32_t expected[4][2] = {{100, 160}, {600, 650}, {500, 550}, {400, 450}};
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(expected[i][0], blocks[i].start - feed->base);
        assert_int_equal(expected[i][1], blocks[i].end - feed->base);
    }
    /* A duplicate within a range: the octets that came again, then the range around them. */
    feed_segment(feed, 310, 20, 'z', 0, 2048);
    assert_int_equal(3, tcp_receive_sack_blocks(feed->stack, feed->tcb, blocks, 3));
    assert_int_equal(310, blocks[0].start - feed->base);
    assert_int_equal(330, blocks[0].end - feed->base);
    assert_int_equal(300, blocks[1].start - feed->base);
    assert_int_equal(350, blocks[1].end - feed->base);
    /* It is told once. */
    assert_int_equal(3, tcp_receive_sack_blocks(feed->stack, feed->tcb, blocks, 3));
    assert_int_equal(300, blocks[0].start - feed->base);
    /* Old octets, below rcv_nxt. */
    feed_segment(feed, 0, 100, 'a', 0, 2048);
    feed_segment(feed, 20, 30, 'a', 0, 2048);
    assert_true(tcp_receive_sack_blocks(feed->stack, feed->tcb, blocks, 4) >= 2);
    assert_int_equal(20, blocks[0].start - feed->base);
    assert_int_equal(50, blocks[0].end - feed->base);
    feed_free(feed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_wins),
        cmocka_unit_test(test_holes_are_bounded),
        cmocka_unit_test(test_reserve_is_not_for_holes),
        cmocka_unit_test(test_single_octets_behind_a_hole),
        cmocka_unit_test(test_small_segments_share_buffers),
        cmocka_unit_test(test_fin_out_of_order),
        cmocka_unit_test(test_fin_that_contradicts),
        cmocka_unit_test(test_bare_fin_out_of_order),
        cmocka_unit_test(test_blocks_latest_first),
    };
    return cmocka_run_group_tests_name("wire tcp receive", tests, NULL, NULL);
}

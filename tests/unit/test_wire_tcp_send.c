/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The send queue against a model: whatever is appended, described, acknowledged and cut, a frame
 * finds the octets of its sequence numbers. And what of it a frame is made of.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/wire_pair.h"

/* ---- the queue by itself ---- */

/* A connection whose side A is worked by hand and never flushed. */
struct hand {
    struct pair *pair;
    struct stack *stack;
    struct tcb *tcb;
    struct rng rng;
    uint32_t una, appended; /* positions in the stream: acknowledged, appended */
};

static void hand_append(struct hand *hand)
{
    struct flow_plane *plane = hand->pair->planes[PAIR_A];
    struct flow flow = hand->pair->flows[PAIR_A];
    uint32_t size = 1 + rng_below(&hand->rng, rng_below(&hand->rng, 2) == 0 ? 30 : 5000);

    if (rng_below(&hand->rng, 2) == 0) {
        pair_send(hand->pair, PAIR_A, hand->appended, size);
    } else {
        size = size < 500 ? size : 500;
        struct span_mut room = flow_reserve(plane, flow, size);
        assert_non_null(room.data);
        for (uint32_t i = 0; i < size; i++)
            room.data[i] = pair_octet(hand->appended + i);
        flow_commit(plane, flow, size);
    }
    hand->appended += size;
}

static void hand_push(struct hand *hand)
{
    uint32_t in_flight = hand->tcb->snd_nxt - hand->tcb->snd_una;
    uint32_t left = hand->appended - hand->una - in_flight;
    uint32_t size = 1 + rng_below(&hand->rng, 1448);

    size = size < left ? size : left;
    if (size > 0)
        assert_int_equal(ERR_OK, tcp_sent_push(hand->stack, hand->tcb, (uint16_t)size, 0));
}

static void hand_acknowledge(struct hand *hand)
{
    uint32_t in_flight = hand->tcb->snd_nxt - hand->tcb->snd_una;
    uint32_t size = rng_below(&hand->rng, in_flight + 1);

    if (rng_below(&hand->rng, 8) == 0)
        size = in_flight;
    tcp_sent_drop(hand->stack, hand->tcb, hand->tcb->snd_una + size);
    hand->una += size;
}

static void hand_split(struct hand *hand)
{
    uint32_t count = hand->tcb->sent.count;

    if (count == 0)
        return;
    uint32_t index = rng_below(&hand->rng, count);
    uint16_t size = tcp_sent_at(&hand->tcb->sent, index)->size;
    if (size > 1)
        assert_int_equal(ERR_OK, tcp_sent_split(hand->stack, hand->tcb, index,
                                                (uint16_t)(1 + rng_below(&hand->rng, size - 1u))));
}

/* Any octets from snd_una on, as a frame would have them. */
static void hand_gather(struct hand *hand)
{
    uint32_t all = hand->appended - hand->una;
    uint32_t in_flight = hand->tcb->snd_nxt - hand->tcb->snd_una;
    uint32_t offset = rng_below(&hand->rng, 2) == 0 ? in_flight : rng_below(&hand->rng, all + 1);
    uint32_t size = rng_below(&hand->rng, 1448), at = 0;

    size = size < all - offset ? size : all - offset;
    if (size == 0)
        return;
    struct buf *head = buf_acquire(hand->stack->options.header_pool);
    assert_non_null(head);
    assert_true(tcp_send_gather(hand->stack, hand->tcb, offset, size, head));
    assert_int_equal(size, head->mbuf.pkt_len);
    uint32_t count = 0;
    for (const struct buf *buf = head; buf != NULL;
         buf = (const struct buf *)(const void *)buf->mbuf.next) {
        for (uint32_t i = 0; i < buf_size(buf); i++, at++)
            assert_int_equal(pair_octet(hand->una + offset + at), buf_data(buf)[i]);
        count++;
    }
    assert_int_equal(size, at);
    assert_int_equal(count, head->mbuf.nb_segs);
    assert_true(count <= hand->tcb->destination->port->segments_max);
    buf_release_chain(head);
}

static void test_queue_against_a_model(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 10; seed++) {
        struct hand hand = {.pair = pair_new(&(struct pair_options){
                                .segments_max = (uint16_t)(seed % 2 == 0 ? 3 : 8)})};
        rng_init_seed(&hand.rng, seed);
        pair_connect(hand.pair);
        hand.stack = hand.pair->stacks[PAIR_A];
        hand.tcb = pair_tcb(hand.pair, PAIR_A);
        for (uint32_t i = 0; i < 4000; i++) {
            uint32_t what = rng_below(&hand.rng, 10);
            if (what < 2 && hand.appended - hand.una < 200000)
                hand_append(&hand);
            else if (what < 5)
                hand_push(&hand);
            else if (what < 7)
                hand_acknowledge(&hand);
            else if (what < 8)
                hand_split(&hand);
            else
                hand_gather(&hand);
            flow_core_settle(&hand.stack->core);
            tcb_verify(hand.stack, hand.tcb);
            uint32_t count = hand.tcb->sent.count;
            for (uint32_t j = 0; j < count; j += 1 + count / 8) {
                const struct tcp_sent *sent = tcp_sent_at(&hand.tcb->sent, j);
                assert_int_equal(j, tcp_sent_find(hand.tcb, sent->sequence));
                assert_int_equal(j, tcp_sent_find(hand.tcb, sent->sequence + sent->size - 1));
            }
            assert_int_equal(count, tcp_sent_find(hand.tcb, hand.tcb->snd_nxt));
            assert_int_equal(count, tcp_sent_find(hand.tcb, hand.tcb->snd_una - 1));
        }
        pair_free(hand.pair);
    }
}

static void test_descriptors_are_bounded(void **state)
{
    struct pair *pair = pair_new(&(struct pair_options){.pool_max = 8192});

    (void)state;
    pair_connect(pair);
    struct tcb *tcb = pair_tcb(pair, PAIR_A);
    pair_send(pair, PAIR_A, 0, TCP_SENT_MAX + 10);
    for (uint32_t i = 0; i < TCP_SENT_MAX; i++)
        assert_int_equal(ERR_OK, tcp_sent_push(pair->stacks[PAIR_A], tcb, 1, 0));
    assert_int_equal(ERR_LIMIT, tcp_sent_push(pair->stacks[PAIR_A], tcb, 1, 0));
    assert_false(tcp_sent_has_room(tcb, 1));
    tcb_verify(pair->stacks[PAIR_A], tcb);
    pair_free(pair);
}

/* ---- frames ---- */

/* Frames of one side as they come to the nic: through a tap. */
struct taps {
    uint32_t count, buffers_max, size_max;
    uint32_t odd; /* payloads that are no whole segments though more followed */
};

#define MSS          1448u
#define HEADERS_SIZE (ETHERNET_HEADER_SIZE + IP4_HEADER_SIZE + TCP_HEADER_SIZE + 12u)
#define FLAGS_AT     (ETHERNET_HEADER_SIZE + IP4_HEADER_SIZE + 13u)

static void tap(void *context, uint32_t port, bool is_sent, const struct buf *frame, tick_us now)
{
    struct taps *taps = context;

    (void)port;
    (void)now;
    if (!is_sent)
        return;
    taps->count++;
    if (frame->mbuf.nb_segs > taps->buffers_max)
        taps->buffers_max = frame->mbuf.nb_segs;
    if (frame->mbuf.pkt_len > taps->size_max)
        taps->size_max = frame->mbuf.pkt_len;
    bool is_last = buf_data(frame)[FLAGS_AT] & TCP_PSH;
    if (frame->mbuf.pkt_len > HEADERS_SIZE && !is_last)
        taps->odd += (frame->mbuf.pkt_len - HEADERS_SIZE) % MSS != 0;
}

static void test_what_frames_are_made_of(void **state)
{
    static const struct {
        const char *name;
        uint32_t offloads;
        uint16_t segments_max;
        uint32_t piece; /* what is appended at a time */
        uint32_t buffers, size_min, size_max;
    } rows[] = {
        {"small ones are one buffer", NIC_TX_MULTI_SEGMENT, 8, 100, 1, 150, 200},
        {"copied where the checksum is ours", NIC_TX_MULTI_SEGMENT, 8, 60000, 1, 1514, 1514},
        {"by reference", NIC_TX_MULTI_SEGMENT | NIC_TX_TCP_CHECKSUM, 8, 60000, 3, 1514, 1514},
        {"more pieces than fit are joined", NIC_TX_MULTI_SEGMENT | NIC_TX_TCP_CHECKSUM, 2, 60000, 2,
         1514, 1514},
        {"one buffer a frame", NIC_RX_CHECKSUM, 1, 60000, 1, 1514, 1514},
        {"super-segments",
         NIC_TX_MULTI_SEGMENT | NIC_TX_TCP_CHECKSUM | NIC_TX_IP4_CHECKSUM | NIC_TX_TSO, 40, 60000,
         30, 14000, 65000},
        {"super-segments of few pieces",
         NIC_TX_MULTI_SEGMENT | NIC_TX_TCP_CHECKSUM | NIC_TX_IP4_CHECKSUM | NIC_TX_TSO, 5, 60000, 5,
         5000, 9000},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct pair *pair = pair_new(&(struct pair_options){.offloads = rows[i].offloads,
                                                            .segments_max = rows[i].segments_max,
                                                            .paths = {{.delay = 1000}}});
        struct taps taps = {0};
        uint32_t received = 0;
        print_message("# %s\n", rows[i].name);
        pair_connect(pair);
        stack_set_tap(pair->stacks[PAIR_A], tap, &taps);
        for (uint32_t sent = 0; sent < 5 * rows[i].piece; sent += rows[i].piece) {
            pair_send(pair, PAIR_A, sent, rows[i].piece);
            pair_run(pair, TICK_MS(200));
            received += pair_receive(pair, PAIR_B, received);
        }
        assert_int_equal(5 * rows[i].piece, received);
        assert_int_equal(rows[i].buffers, taps.buffers_max);
        assert_in_range(taps.size_max, rows[i].size_min, rows[i].size_max);
        assert_int_equal(0, taps.odd);
        pair_free(pair);
    }
}

/* RFC 9293 3.9.1.2: PSH where the owner's octets end, FIN on the last of them. */
static void test_push_and_fin(void **state)
{
    struct pair *pair = pair_new(&(struct pair_options){.paths = {{.delay = 1000}}});
    uint32_t index, position = 0;
    const struct pair_segment *segment;

    (void)state;
    pair_connect(pair);
    index = pair->segment_count;
    pair_send(pair, PAIR_A, 0, 4000);
    flow_shutdown(pair->planes[PAIR_A], pair->flows[PAIR_A]);
    pair_run(pair, TICK_MS(100));
    while (position < 4000 && (segment = pair_find(pair, PAIR_A, 0, &index)) != NULL) {
        position += segment->size;
        bool is_last = position == 4000;
        assert_int_equal(is_last, (segment->tcp.flags & TCP_PSH) != 0);
        assert_int_equal(is_last, (segment->tcp.flags & TCP_FIN) != 0);
    }
    assert_int_equal(4000, position);
    pair_free(pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_queue_against_a_model),
        cmocka_unit_test(test_descriptors_are_bounded),
        cmocka_unit_test(test_what_frames_are_made_of),
        cmocka_unit_test(test_push_and_fin),
    };
    return cmocka_run_group_tests_name("wire tcp send", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Windows and acknowledgements: what is offered, when it is told, and how a sender waits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/wire_pair.h"

#define RTT TICK_MS(20)

static struct pair *pair_of(const struct tcp_policy *policy, uint32_t receive_limit)
{
    return pair_new(&(struct pair_options){.receive_limit = receive_limit,
                                           .policy = {policy, policy},
                                           .paths = {{.delay = RTT / 2}, {.delay = RTT / 2}}});
}

static uint32_t segments_of(const struct pair *pair, enum pair_side side, uint32_t from)
{
    uint32_t count = 0;

    while (pair_find(pair, side, 0, &from) != NULL)
        count++;
    return count;
}

/* Goal: as the headers of B say it, the right edge never moves left by as much as a unit of the
 * scale, whatever the owner does. */
static void check_edges(const struct pair *pair, uint8_t scale)
{
    const struct pair_segment *segment;
    uint32_t index = 0, edge = 0;
    bool is_first = true;

    while ((segment = pair_find(pair, PAIR_B, TCP_ACK, &index)) != NULL) {
        if (segment->tcp.flags & (TCP_SYN | TCP_RST))
            continue;
        uint32_t now = segment->tcp.acknowledgement + ((uint32_t)segment->tcp.window << scale);
        assert_true(is_first || seq_gt(now + (1u << scale), edge));
        if (is_first || seq_gt(now, edge))
            edge = now;
        is_first = false;
    }
    assert_false(is_first);
}

/* ---- growth ---- */

/* A sends `size` octets; B's owner reads all at once. Returns the largest window B offered. */
static uint32_t window_after(struct pair *pair, uint32_t size)
{
    uint32_t received = 0, sent = 0;
    tick_us end = pair->now + TICK_S(60);

    pair_connect(pair);
    while (received < size && pair->now < end) {
        if (sent < size && flow_unsent(pair->planes[PAIR_A], pair->flows[PAIR_A]) < 2000000) {
            pair_send(pair, PAIR_A, sent, 100000);
            sent += 100000;
        }
        received += pair_receive(pair, PAIR_B, received);
        pair_turn(pair);
    }
    assert_true(received >= size);
    return pair_tcb(pair, PAIR_B)->window_limit;
}

static void test_window_grows_to_its_bounds(void **state)
{
    struct tcp_policy policy = tcp_policy_default();
    static const struct {
        const char *name;
        uint32_t receive_limit, window_max, expected;
    } rows[] = {
        {"half the limit of the flow", 1u << 20, 4u << 20, 1u << 19},
        {"the policy's maximum", 4u << 20, 300000, 300000},
        {"a small flow", 40000, 4u << 20, 20000},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        policy.receive_window_max = rows[i].window_max;
        struct pair *pair = pair_of(&policy, rows[i].receive_limit);
        print_message("# %s\n", rows[i].name);
        assert_int_equal(rows[i].expected, window_after(pair, 6000000));
        check_edges(pair, pair_tcb(pair, PAIR_B)->rcv_scale);
        pair_free(pair);
    }
}

/* Goal: a sender whom the window does not hold up does not make it grow. */
static void test_window_of_a_slow_sender_stays(void **state)
{
    struct tcp_policy policy = tcp_policy_default();
    uint32_t sent = 0;

    (void)state;
    struct pair *pair = pair_of(&policy, 4u << 20);
    pair_connect(pair);
    for (uint32_t i = 0; i < 200; i++) {
        pair_send(pair, PAIR_A, sent, 10000);
        pair_run(pair, RTT);
        sent += pair_receive(pair, PAIR_B, sent);
    }
    assert_int_equal(policy.receive_window_start, pair_tcb(pair, PAIR_B)->window_limit);
    pair_free(pair);
}

/* ---- closed windows ---- */

/* Goal: an owner that does not read holds the sender for as long as it likes, within the limit. */
static void test_closed_window_lasts(void **state)
{
    const uint32_t limit = 30000;
    const struct pair_segment *segment, *last = NULL;
    uint32_t index, probes = 0, received;
    tick_us gap = 0, end;

    (void)state;
    struct pair *pair = pair_of(NULL, limit);
    pair_connect(pair);
    pair_send(pair, PAIR_A, 0, 200000);
    pair_run(pair, TICK_S(2));
    index = pair->segment_count;
    pair_run(pair, TICK_S(1000)); /* far beyond user_time */
    assert_int_equal(ERR_OK, flow_error(pair->planes[PAIR_A], pair->flows[PAIR_A]));
    assert_true(pair_tcb(pair, PAIR_B)->slot.charge <= limit + 2048 + BUF_HEADROOM);
    while ((segment = pair_find(pair, PAIR_A, 0, &index)) != NULL) {
        if (last != NULL) {
            /* RFC 9293 3.8.6.1: exponential, up to the largest RTO. */
            assert_true(segment->at - last->at >= gap);
            gap = segment->at - last->at;
        }
        last = segment;
        probes++;
    }
    assert_in_range(probes, 15, 40);
    assert_in_range(gap, TICK_S(59), TICK_S(61));
    /* It goes on at once when the owner reads. */
    received = pair_receive(pair, PAIR_B, 0);
    end = pair->now + TICK_S(5);
    while (received < 200000 && pair->now < end) {
        pair_turn(pair);
        received += pair_receive(pair, PAIR_B, received);
    }
    assert_int_equal(200000, received);
    check_edges(pair, pair_tcb(pair, PAIR_B)->rcv_scale);
    pair_free(pair);
}

/* Goal: probes go also when the owner appends all the time. */
static void test_appending_does_not_postpone_probes(void **state)
{
    (void)state;
    struct pair *pair = pair_of(NULL, 30000);
    pair_connect(pair);
    pair_send(pair, PAIR_A, 0, 100000);
    pair_run(pair, TICK_S(1));
    uint64_t before = pair_count(pair, PAIR_A, STACK_TCP_PROBES);
    for (uint32_t i = 0; i < 200; i++) {
        pair_send(pair, PAIR_A, 100000 + i, 1);
        pair_run(pair, TICK_MS(100));
    }
    assert_in_range(pair_count(pair, PAIR_A, STACK_TCP_PROBES) - before, 3, 12);
    pair_free(pair);
}

/* Goal: patience counts from when there was something to wait for, not from before. */
static void test_closed_window_after_a_long_silence(void **state)
{
    (void)state;
    struct pair *pair = pair_of(NULL, 30000);
    pair_connect(pair);
    pair_send(pair, PAIR_A, 0, 15000);
    pair_run(pair, TICK_S(300));
    assert_int_equal(0, flow_unsent(pair->planes[PAIR_A], pair->flows[PAIR_A]));
    pair_send(pair, PAIR_A, 15000, 30000);
    pair_run(pair, TICK_S(60));
    assert_int_equal(ERR_OK, flow_error(pair->planes[PAIR_A], pair->flows[PAIR_A]));
    pair_free(pair);
}

static bool drop_octets(struct pair *pair, const struct pair_segment *segment)
{
    if (segment->from == PAIR_B || segment->size == 0 || pair->judged == 0)
        return true;
    pair->judged--;
    return false;
}

/* Goal: the probes' back-off does not slow down what comes after them. */
static void test_loss_after_a_closed_window(void **state)
{
    uint32_t received;

    (void)state;
    struct pair *pair = pair_of(NULL, 30000);
    pair_connect(pair);
    pair_send(pair, PAIR_A, 0, 50000);
    pair_run(pair, TICK_S(300));
    pair->judge = drop_octets;
    pair->judged = 12; /* the whole flight, and the probe behind it */
    received = pair_receive(pair, PAIR_B, 0);
    tick_us end = pair->now + TICK_S(3);
    while (received < 50000 && pair->now < end) {
        pair_turn(pair);
        received += pair_receive(pair, PAIR_B, received);
    }
    assert_int_equal(0, pair->judged);
    assert_int_equal(50000, received);
    pair_free(pair);
}

/* A peer that does not answer probes is gone. */
static bool drop_b(struct pair *pair, const struct pair_segment *segment)
{
    return pair->judged == 0 || segment->from == PAIR_A;
}

static void test_closed_window_of_a_dead_peer(void **state)
{
    (void)state;
    struct pair *pair = pair_of(NULL, 30000);
    pair_connect(pair);
    pair_send(pair, PAIR_A, 0, 200000);
    pair_run(pair, TICK_S(20));
    pair->judge = drop_b;
    pair->judged = 1;
    pair_run(pair, TICK_S(100));
    assert_int_equal(ERR_OK, flow_error(pair->planes[PAIR_A], pair->flows[PAIR_A]));
    pair_run(pair, TICK_S(90));
    assert_int_equal(ERR_TIMEOUT, flow_error(pair->planes[PAIR_A], pair->flows[PAIR_A]));
    pair_free(pair);
}

/* A probe finds the window open whose update was lost. */
static void test_lost_window_update(void **state)
{
    uint32_t received = 0;

    (void)state;
    struct pair *pair = pair_of(NULL, 30000);
    pair_connect(pair);
    pair_send(pair, PAIR_A, 0, 100000);
    pair_run(pair, TICK_S(2));
    pair->judge = drop_b;
    pair->judged = 1;
    received = pair_receive(pair, PAIR_B, 0);
    pair_run(pair, TICK_MS(50));
    pair->judged = 0;
    tick_us end = pair->now + TICK_S(10);
    while (received < 100000 && pair->now < end) {
        pair_turn(pair);
        received += pair_receive(pair, PAIR_B, received);
    }
    assert_int_equal(100000, received);
    pair_free(pair);
}

/* Goal: an owner that reads octet by octet does not make the peer send small segments, nor us
 * small updates (RFC 9293 3.8.6.2). */
static void test_no_silly_windows(void **state)
{
    const uint32_t total = 100000;
    uint32_t received = 0, index, small = 0;
    const struct pair_segment *segment;

    (void)state;
    struct pair *pair = pair_of(NULL, 30000);
    pair_connect(pair);
    pair_send(pair, PAIR_A, 0, total);
    pair_run(pair, TICK_S(2));
    index = pair->segment_count;
    uint32_t begin = index;
    while (received < total) {
        uint32_t readable = flow_readable(pair->planes[PAIR_B], pair->flows[PAIR_B]);
        uint32_t size = readable < 50 ? readable : 50;
        flow_consume(pair->planes[PAIR_B], pair->flows[PAIR_B], size);
        received += size;
        pair_turn(pair);
    }
    while ((segment = pair_find(pair, PAIR_A, 0, &index)) != NULL)
        small += segment->size > 0 && segment->size < 1000;
    assert_in_range(small, 0, 5);
    assert_in_range(segments_of(pair, PAIR_B, begin), 20, 160);
    pair_free(pair);
}

/* ---- acknowledgements ---- */

static void test_delayed_acknowledgement(void **state)
{
    struct tcp_policy policy = tcp_policy_default();
    uint32_t position = 0, index;

    (void)state;
    policy.quick_acks = 3;
    struct pair *pair = pair_of(&policy, 0);
    pair_connect(pair);
    for (uint32_t i = 0; i < 3; i++) { /* at the start each at once */
        index = pair->segment_count;
        pair_send(pair, PAIR_A, position, 100);
        position += 100;
        pair_run(pair, RTT / 2 + TICK_MS(3));
        assert_int_equal(1, segments_of(pair, PAIR_B, index));
    }
    /* Then one alone waits for the delay. */
    index = pair->segment_count;
    pair_send(pair, PAIR_A, position, 100);
    position += 100;
    pair_run(pair, RTT / 2 + TICK_MS(35));
    assert_int_equal(0, segments_of(pair, PAIR_B, index));
    pair_run(pair, TICK_MS(10));
    assert_int_equal(1, segments_of(pair, PAIR_B, index));
    /* The second is answered at once. */
    index = pair->segment_count;
    pair_send(pair, PAIR_A, position, 3000);
    position += 3000;
    pair_run(pair, RTT / 2 + TICK_MS(3));
    assert_int_equal(1, segments_of(pair, PAIR_B, index));
    /* An answer carries it. */
    assert_int_equal(position, pair_receive(pair, PAIR_B, 0));
    pair_run(pair, TICK_MS(100));
    index = pair->segment_count;
    pair_send(pair, PAIR_A, position, 100);
    assert_true(pair_wait(pair, PAIR_B, PAIR_USER, FLOW_READABLE, TICK_S(1)));
    while (flow_readable(pair->planes[PAIR_B], pair->flows[PAIR_B]) == 0)
        pair_turn(pair);
    pair_receive(pair, PAIR_B, position);
    pair_send(pair, PAIR_B, 0, 100);
    pair_run(pair, TICK_MS(30));
    assert_int_equal(1, segments_of(pair, PAIR_B, index));
    pair_free(pair);
}

/* A burst is answered once, pieces of a turn leave together, a push ends with PSH. */
static void test_one_segment_per_turn(void **state)
{
    uint32_t index;

    (void)state;
    struct pair *pair = pair_of(NULL, 0);
    pair_connect(pair);
    pair_run(pair, TICK_MS(50));
    index = pair->segment_count;
    for (uint32_t i = 0; i < 10; i++)
        pair_send(pair, PAIR_A, i * 10, 10);
    pair_run(pair, TICK_MS(2));
    uint32_t at = index;
    const struct pair_segment *segment = pair_find(pair, PAIR_A, TCP_PSH, &at);
    assert_non_null(segment);
    assert_int_equal(100, segment->size);
    assert_int_equal(1, segments_of(pair, PAIR_A, index));
    pair_run(pair, TICK_MS(50));
    index = pair->segment_count;
    pair_send(pair, PAIR_A, 100, 1448 * 8);
    pair_run(pair, TICK_MS(50));
    assert_int_equal(8, segments_of(pair, PAIR_A, index));
    assert_int_equal(1, segments_of(pair, PAIR_B, index));
    pair_free(pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_window_grows_to_its_bounds),
        cmocka_unit_test(test_window_of_a_slow_sender_stays),
        cmocka_unit_test(test_closed_window_lasts),
        cmocka_unit_test(test_appending_does_not_postpone_probes),
        cmocka_unit_test(test_closed_window_after_a_long_silence),
        cmocka_unit_test(test_loss_after_a_closed_window),
        cmocka_unit_test(test_closed_window_of_a_dead_peer),
        cmocka_unit_test(test_lost_window_update),
        cmocka_unit_test(test_no_silly_windows),
        cmocka_unit_test(test_delayed_acknowledgement),
        cmocka_unit_test(test_one_segment_per_turn),
    };
    return cmocka_run_group_tests_name("wire tcp window", tests, NULL, NULL);
}

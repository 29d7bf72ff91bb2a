/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How connections end: who has TIME_WAIT, what a RST is for, what time ends by itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/wire_pair.h"

#define RTT TICK_MS(20)

static struct pair *pair_of(const struct tcp_policy *a, const struct tcp_policy *b,
                            tick_us orphan_time)
{
    return pair_new(&(struct pair_options){.orphan_time = orphan_time,
                                           .policy = {a, b},
                                           .paths = {{.delay = RTT / 2}, {.delay = RTT / 2}}});
}

static int setup(void **state)
{
    *state = pair_of(NULL, NULL, TICK_S(20));
    return 0;
}

static int teardown(void **state)
{
    pair_free(*state);
    return 0;
}

static void side_close(struct pair *pair, enum pair_side side)
{
    flow_close(pair->planes[side], pair->flows[side]);
}

static uint32_t resets_of(const struct pair *pair, enum pair_side side)
{
    uint32_t index = 0, count = 0;

    while (pair_find(pair, side, TCP_RST, &index) != NULL)
        count++;
    return count;
}

/* Nothing is left but this many TIME_WAIT records; no RST was sent. */
static void expect_over(struct pair *pair, uint32_t time_wait_a, uint32_t time_wait_b)
{
    const uint32_t expected[] = {time_wait_a, time_wait_b};

    for (uint32_t i = 0; i < 2; i++) {
        struct stack_usage usage = stack_get_usage(pair->stacks[i]);
        assert_int_equal(0, usage.connections);
        assert_int_equal(0, usage.orphans);
        assert_int_equal(expected[i], usage.time_wait);
        assert_int_equal(0, resets_of(pair, i));
    }
}

/* ---- who closes first ---- */

/* Goal: a client that closes at the server's word leaves TIME_WAIT to the server. */
static void test_client_waits_for_the_servers_fin(void **state)
{
    struct pair *pair = *state;

    pair_connect(pair);
    pair_send(pair, PAIR_A, 0, 6); /* QUIT */
    assert_true(pair_wait(pair, PAIR_B, PAIR_USER, FLOW_READABLE, TICK_S(1)));
    pair_receive(pair, PAIR_B, 0);
    pair_send(pair, PAIR_B, 0, 9); /* 221 */
    assert_true(pair_wait(pair, PAIR_A, PAIR_USER, FLOW_READABLE, TICK_S(1)));
    pair_receive(pair, PAIR_A, 0);
    side_close(pair, PAIR_A); /* the server is a moment late */
    side_close(pair, PAIR_B);
    pair_run(pair, TICK_MS(100));
    expect_over(pair, 0, 1);
}

static void test_client_closes_itself_in_the_end(void **state)
{
    struct pair *pair = *state;
    uint32_t index = 0;

    pair_connect(pair);
    tick_us at = pair->now, round_trips = 2 * pair_tcb(pair, PAIR_A)->rtt.srtt;
    side_close(pair, PAIR_A);
    assert_true(pair_wait(pair, PAIR_B, PAIR_USER, FLOW_PEER_CLOSED, TICK_S(2)));
    const struct pair_segment *fin = pair_find(pair, PAIR_A, TCP_FIN, &index);
    assert_non_null(fin);
    assert_in_range(fin->at - at, round_trips, round_trips + TICK_MS(12));
    side_close(pair, PAIR_B);
    pair_run(pair, TICK_MS(100));
    expect_over(pair, 1, 0);
}

/* ... and on a long way not after two round trips, but a second. */
static void test_client_lingers_a_second_at_most(void **state)
{
    struct pair *pair = pair_new(
        &(struct pair_options){.paths = {{.delay = TICK_MS(700)}, {.delay = TICK_MS(700)}}});
    uint32_t index = 0;

    (void)state;
    pair_connect(pair);
    tick_us at = pair->now;
    side_close(pair, PAIR_A);
    assert_true(pair_wait(pair, PAIR_B, PAIR_USER, FLOW_PEER_CLOSED, TICK_S(3)));
    const struct pair_segment *fin = pair_find(pair, PAIR_A, TCP_FIN, &index);
    assert_non_null(fin);
    assert_in_range(fin->at - at, TICK_MS(999), TICK_MS(1003));
    pair_free(pair);
}

static void test_server_closes_at_once(void **state)
{
    struct pair *pair = *state;
    uint32_t index = 0;

    pair_connect(pair);
    pair_send(pair, PAIR_B, 0, 500);
    tick_us at = pair->now;
    side_close(pair, PAIR_B);
    pair_turn(pair);
    const struct pair_segment *fin = pair_find(pair, PAIR_B, TCP_FIN, &index);
    assert_non_null(fin);
    assert_int_equal(500, fin->size); /* on the last segment */
    assert_true(fin->at - at < TICK_MS(2));
    assert_true(pair_wait(pair, PAIR_A, PAIR_USER, FLOW_PEER_CLOSED, TICK_S(1)));
    assert_int_equal(500, pair_receive(pair, PAIR_A, 0));
    side_close(pair, PAIR_A);
    pair_run(pair, TICK_MS(100));
    expect_over(pair, 0, 1);
}

static void test_both_at_once(void **state)
{
    struct pair *pair = *state;

    pair_connect(pair);
    for (uint32_t i = 0; i < 2; i++)
        flow_shutdown(pair->planes[i], pair->flows[i]);
    pair_run(pair, RTT / 2 + TICK_MS(2));
    assert_int_equal(TCP_CLOSING, pair_tcb(pair, PAIR_A)->state);
    assert_int_equal(TCP_CLOSING, pair_tcb(pair, PAIR_B)->state);
    pair_run(pair, TICK_MS(100));
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(TCP_CLOSED, pair_tcb(pair, i)->state);
        assert_true(pair->seen[i][PAIR_USER] & FLOW_PEER_CLOSED);
        assert_int_equal(ERR_OK, flow_error(pair->planes[i], pair->flows[i]));
        side_close(pair, i);
    }
    expect_over(pair, 1, 1);
}

/* Octets wait for their owner after all is over. */
static void test_half_close(void **state)
{
    struct pair *pair = *state;

    pair_connect(pair);
    flow_shutdown(pair->planes[PAIR_A], pair->flows[PAIR_A]);
    pair_run(pair, TICK_S(30)); /* no time-out: the owner is still there */
    assert_int_equal(TCP_FIN_WAIT_2, pair_tcb(pair, PAIR_A)->state);
    assert_int_equal(TCP_CLOSE_WAIT, pair_tcb(pair, PAIR_B)->state);
    pair_send(pair, PAIR_B, 0, 60000);
    side_close(pair, PAIR_B);
    assert_true(pair_wait(pair, PAIR_A, PAIR_USER, FLOW_PEER_CLOSED, TICK_S(2)));
    pair_run(pair, TICK_S(70));
    assert_int_equal(60000, pair_receive(pair, PAIR_A, 0));
    side_close(pair, PAIR_A);
    expect_over(pair, 0, 0);
}

static void test_unread_octets_are_no_reset(void **state)
{
    struct pair *pair = *state;

    pair_connect(pair);
    pair_send(pair, PAIR_A, 0, 50000);
    assert_true(pair_wait(pair, PAIR_B, PAIR_USER, FLOW_READABLE, TICK_S(1)));
    pair_send(pair, PAIR_B, 0, 100);
    side_close(pair, PAIR_B);
    assert_true(pair_wait(pair, PAIR_A, PAIR_USER, FLOW_PEER_CLOSED, TICK_S(2)));
    pair_send(pair, PAIR_A, 50000, 50000);
    pair_run(pair, TICK_S(1));
    assert_int_equal(100, pair_receive(pair, PAIR_A, 0));
    assert_int_equal(0, flow_unsent(pair->planes[PAIR_A], pair->flows[PAIR_A]));
    side_close(pair, PAIR_A);
    pair_run(pair, TICK_S(1));
    expect_over(pair, 0, 1);
    assert_true(pair_count(pair, PAIR_B, STACK_TCP_ORPHAN_OCTETS_DROPPED) >= 50000);
}

/* ... but not without end. */
static void test_endless_sender_is_reset(void **state)
{
    struct pair *pair = *state;
    uint32_t sent = 0;

    pair_connect(pair);
    side_close(pair, PAIR_B);
    while (!(pair->seen[PAIR_A][PAIR_USER] & FLOW_RESET) && sent < 2 * TCP_ORPHAN_DROP_MAX) {
        if (flow_unsent(pair->planes[PAIR_A], pair->flows[PAIR_A]) < 200000) {
            pair_send(pair, PAIR_A, sent, 100000);
            sent += 100000;
        }
        pair_turn(pair);
    }
    assert_int_equal(FLOW_RESET, pair->seen[PAIR_A][PAIR_USER] & FLOW_RESET);
    assert_in_range(sent, TCP_ORPHAN_DROP_MAX, TCP_ORPHAN_DROP_MAX + 1000000);
    assert_int_equal(1, pair_count(pair, PAIR_B, STACK_TCP_ORPHANS_OVERRUN));
}

/* ---- time ---- */

static void test_peer_never_closes(void **state)
{
    struct tcp_policy policy = tcp_policy_default();
    static const struct {
        const char *name;
        tick_us orphan_time, fin_wait_2_time, expected;
    } rows[] = {
        {"orphan time", TICK_S(5), TICK_S(60), TICK_S(5)},
        {"FIN_WAIT_2", TICK_S(60), TICK_S(3), TICK_S(3)},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        uint32_t index = 0;
        policy.fin_wait_2_time = rows[i].fin_wait_2_time;
        struct pair *pair = pair_of(NULL, &policy, rows[i].orphan_time);
        pair_connect(pair);
        tick_us at = pair->now;
        side_close(pair, PAIR_B);
        pair_run(pair, rows[i].expected - TICK_MS(10));
        assert_int_equal(1, flow_plane_stats(pair->planes[PAIR_B]).orphans);
        pair_run(pair, TICK_MS(100));
        assert_int_equal(0, flow_plane_stats(pair->planes[PAIR_B]).orphans);
        const struct pair_segment *reset = pair_find(pair, PAIR_B, TCP_RST, &index);
        assert_non_null(reset);
        assert_in_range(reset->at - at, rows[i].expected - TICK_MS(1),
                        rows[i].expected + TICK_MS(60));
        assert_true(pair->seen[PAIR_A][PAIR_USER] & FLOW_RESET);
        pair_free(pair);
    }
}

static bool drop_all(struct pair *pair, const struct pair_segment *segment)
{
    (void)pair;
    (void)segment;
    return false;
}

static void test_vanished_peer(void **state)
{
    struct pair *pair = *state;

    pair_connect(pair);
    pair->judge = drop_all;
    pair_send(pair, PAIR_A, 0, 1000);
    pair_send(pair, PAIR_B, 0, 1000);
    side_close(pair, PAIR_B);
    pair_run(pair, TICK_S(21));
    assert_int_equal(0, flow_plane_stats(pair->planes[PAIR_B]).orphans);
    pair_run(pair, TICK_S(98)); /* user_time is 120 s */
    assert_int_equal(ERR_OK, flow_error(pair->planes[PAIR_A], pair->flows[PAIR_A]));
    pair_run(pair, TICK_S(2));
    assert_int_equal(ERR_TIMEOUT, flow_error(pair->planes[PAIR_A], pair->flows[PAIR_A]));
    assert_true(pair->seen[PAIR_A][PAIR_USER] & FLOW_RESET);
}

/* Goal: patience counts from when something was sent, not from the last word before a silence. */
static void test_loss_after_a_long_silence(void **state)
{
    struct pair *pair = *state;

    pair_connect(pair);
    pair_send(pair, PAIR_A, 0, 1000);
    pair_run(pair, TICK_S(500));
    pair->judge = drop_all;
    pair_send(pair, PAIR_A, 1000, 1000);
    pair_run(pair, TICK_S(20));
    assert_int_equal(ERR_OK, flow_error(pair->planes[PAIR_A], pair->flows[PAIR_A]));
    pair->judge = NULL;
    pair_run(pair, TICK_S(60));
    assert_int_equal(2000, pair_receive(pair, PAIR_B, 0));
}

/* ---- what is lost on the way ---- */

/* Drops the first `judged` segments with a FIN, or pure ACKs that follow one. */
static bool drop_fins(struct pair *pair, const struct pair_segment *segment)
{
    if (!(segment->tcp.flags & TCP_FIN) || pair->judged == 0)
        return true;
    pair->judged--;
    return false;
}

static bool drop_last_acks(struct pair *pair, const struct pair_segment *segment)
{
    bool is_last = segment->from == PAIR_B && segment->size == 0 && segment->tcp.flags == TCP_ACK;

    if (!is_last || pair->judged == 0)
        return true;
    pair->judged--;
    return false;
}

static void test_lost_fins(void **state)
{
    (void)state;
    for (uint32_t i = 1; i < 6; i++) {
        struct pair *pair = pair_of(NULL, NULL, TICK_S(60));
        pair_connect(pair);
        pair->judge = drop_fins;
        pair->judged = i;
        side_close(pair, PAIR_B);
        pair_wait(pair, PAIR_A, PAIR_USER, FLOW_PEER_CLOSED, TICK_S(60));
        side_close(pair, PAIR_A);
        pair_run(pair, TICK_S(30));
        assert_int_equal(0, pair->judged);
        for (uint32_t side = 0; side < 2; side++) {
            assert_int_equal(0, stack_get_usage(pair->stacks[side]).connections);
            assert_int_equal(0, resets_of(pair, side));
        }
        pair_free(pair);
    }
}

/* TIME_WAIT answers the FIN that comes again. */
static void test_lost_last_ack(void **state)
{
    struct pair *pair = *state;

    pair_connect(pair);
    side_close(pair, PAIR_B);
    assert_true(pair_wait(pair, PAIR_A, PAIR_USER, FLOW_PEER_CLOSED, TICK_S(1)));
    pair->judge = drop_last_acks;
    pair->judged = 2;
    side_close(pair, PAIR_A);
    pair_run(pair, TICK_S(5));
    assert_int_equal(0, pair->judged);
    expect_over(pair, 0, 1);
}

/* ---- abort ---- */

static void test_abort_by_state(void **state)
{
    static const struct {
        const char *name;
        bool shut_a, shut_b, is_in_flight;
        uint8_t expected;
        uint32_t resets; /* the ACK of a FIN finds nobody any more */
    } rows[] = {
        {"open", false, false, false, TCP_ESTABLISHED, 1},
        {"our FIN on its way", true, false, true, TCP_FIN_WAIT_1, 2},
        {"our FIN acknowledged", true, false, false, TCP_FIN_WAIT_2, 1},
        {"its FIN came", false, true, false, TCP_CLOSE_WAIT, 1},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct pair *pair = pair_of(NULL, NULL, TICK_S(20));
        print_message("# %s\n", rows[i].name);
        pair_connect(pair);
        if (rows[i].shut_a)
            flow_shutdown(pair->planes[PAIR_A], pair->flows[PAIR_A]);
        if (rows[i].shut_b)
            flow_shutdown(pair->planes[PAIR_B], pair->flows[PAIR_B]);
        pair_run(pair, rows[i].is_in_flight ? TICK_MS(2) : TICK_MS(200));
        assert_int_equal(rows[i].expected, pair_tcb(pair, PAIR_A)->state);
        flow_abort(pair->planes[PAIR_A], pair->flows[PAIR_A]);
        pair_run(pair, TICK_MS(100));
        assert_int_equal(rows[i].resets, resets_of(pair, PAIR_A));
        assert_true(pair->seen[PAIR_B][PAIR_USER] & FLOW_RESET);
        assert_int_equal(ERR_PEER_RESET, flow_error(pair->planes[PAIR_B], pair->flows[PAIR_B]));
        assert_int_equal(0, stack_get_usage(pair->stacks[PAIR_A]).connections);
        assert_int_equal(0, stack_get_usage(pair->stacks[PAIR_B]).connections);
        pair_free(pair);
    }
}

/* ---- connections that nobody owns yet ---- */

static void test_reset_before_accept(void **state)
{
    struct pair *pair = *state;
    struct flow_address peer;
    struct flow flow, flows[3];

    pair_listen(pair);
    for (uint32_t i = 0; i < COUNT_OF(flows); i++) {
        assert_int_equal(ERR_OK, flow_connect(pair->planes[PAIR_A],
                                              &(struct flow_connect_options){
                                                  .remote = pair_address(pair, PAIR_B, 25),
                                                  .deadline = TICK_NEVER,
                                                  .user = 3 + i},
                                              &flows[i]));
        assert_true(pair_wait(pair, PAIR_A, 3 + i, FLOW_CONNECTED, TICK_S(1)));
    }
    pair_run(pair, TICK_MS(50));
    flow_abort(pair->planes[PAIR_A], flows[1]);
    pair_run(pair, TICK_MS(50));
    assert_int_equal(ERR_OK, flow_accept(pair->planes[PAIR_B], pair->listener, 9, &flow, &peer));
    assert_int_equal(ERR_OK, flow_accept(pair->planes[PAIR_B], pair->listener, 10, &flow, &peer));
    assert_int_equal(ERR_AGAIN,
                     flow_accept(pair->planes[PAIR_B], pair->listener, 11, &flow, &peer));
    assert_int_equal(2, stack_get_usage(pair->stacks[PAIR_B]).connections);
    const struct flow_slot *slot = flow_core_find(&pair->stacks[PAIR_B]->core, pair->listener);
    assert_int_equal(0, ((const struct tcp_listener *)(const void *)slot)->ready_count);
}

static void test_listener_closes_on_those_who_wait(void **state)
{
    struct pair *pair = *state;
    struct flow flow;

    pair_listen(pair);
    assert_int_equal(ERR_OK, flow_connect(pair->planes[PAIR_A],
                                          &(struct flow_connect_options){
                                              .remote = pair_address(pair, PAIR_B, 25),
                                              .deadline = TICK_NEVER,
                                              .user = 3},
                                          &flow));
    assert_true(pair_wait(pair, PAIR_B, PAIR_LISTENER, FLOW_ACCEPTABLE, TICK_S(1)));
    flow_close(pair->planes[PAIR_B], pair->listener);
    assert_true(pair_wait(pair, PAIR_A, 3, FLOW_RESET, TICK_S(1)));
    assert_int_equal(0, stack_get_usage(pair->stacks[PAIR_B]).connections);
    assert_int_equal(0, flow_plane_stats(pair->planes[PAIR_B]).flows);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_client_waits_for_the_servers_fin),
        TEST(test_client_closes_itself_in_the_end),
        cmocka_unit_test(test_client_lingers_a_second_at_most),
        TEST(test_server_closes_at_once),
        TEST(test_both_at_once),
        TEST(test_half_close),
        TEST(test_unread_octets_are_no_reset),
        TEST(test_endless_sender_is_reset),
        cmocka_unit_test(test_peer_never_closes),
        TEST(test_vanished_peer),
        TEST(test_loss_after_a_long_silence),
        cmocka_unit_test(test_lost_fins),
        TEST(test_lost_last_ack),
        cmocka_unit_test(test_abort_by_state),
        TEST(test_reset_before_accept),
        TEST(test_listener_closes_on_those_who_wait),
    };
    return cmocka_run_group_tests_name("wire tcp close", tests, NULL, NULL);
}

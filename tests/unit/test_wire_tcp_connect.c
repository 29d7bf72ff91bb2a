/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connecting: the schedule of SYNs, what ends an attempt and how soon, what both sides agree on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/wire_pair.h"

#define RTT TICK_MS(20)

static struct pair *pair_of(const struct tcp_policy *a, const struct tcp_policy *b, uint8_t family)
{
    return pair_new(&(struct pair_options){
        .family = family, .policy = {a, b}, .paths = {{.delay = RTT / 2}, {.delay = RTT / 2}}});
}

static int setup(void **state)
{
    *state = pair_of(NULL, NULL, 4);
    return 0;
}

static int teardown(void **state)
{
    pair_free(*state);
    return 0;
}

static struct flow connect_to(struct pair *pair, const struct flow_address *remote,
                              tick_us deadline, uint64_t user)
{
    struct flow flow;

    assert_int_equal(ERR_OK,
                     flow_connect(pair->planes[PAIR_A],
                                  &(struct flow_connect_options){
                                      .remote = *remote, .deadline = deadline, .user = user},
                                  &flow));
    return flow;
}

/* ---- time ---- */

static bool drop_syns(struct pair *pair, const struct pair_segment *segment)
{
    (void)pair;
    return !(segment->tcp.flags & TCP_SYN);
}

static void test_schedule_of_syns(void **state)
{
    struct tcp_policy policy = tcp_policy_default();
    const tick_us times[] = {0, TICK_MS(300), TICK_S(1), TICK_S(4)};

    (void)state;
    memset(policy.syn_times, 0, sizeof(policy.syn_times));
    memcpy(policy.syn_times, times, sizeof(times));
    struct pair *pair = pair_of(&policy, NULL, 4);
    struct flow_address remote = pair_address(pair, PAIR_B, 25);
    pair_connect(pair); /* the neighbour is known */
    pair->judge = drop_syns;
    uint32_t index = pair->segment_count;
    tick_us start = pair->now;
    struct flow flow = connect_to(pair, &remote, start + TICK_S(30), 5);
    assert_false(pair_wait(pair, PAIR_A, 5, FLOW_FAILED, TICK_MS(29900)));
    assert_true(pair_wait(pair, PAIR_A, 5, FLOW_FAILED, TICK_MS(200)));
    assert_int_equal(ERR_TIMEOUT, flow_error(pair->planes[PAIR_A], flow));
    for (uint32_t i = 0; i < COUNT_OF(times); i++) {
        const struct pair_segment *syn = pair_find(pair, PAIR_A, TCP_SYN, &index);
        assert_non_null(syn);
        assert_in_range(syn->at - start + TICK_MS(1), times[i], times[i] + TICK_MS(3));
    }
    assert_null(pair_find(pair, PAIR_A, TCP_SYN, &index));
    flow_close(pair->planes[PAIR_A], flow);
    pair_free(pair);
}

static void test_no_deadline_ends_too(void **state)
{
    struct pair *pair = *state;
    struct flow_address remote = pair_address(pair, PAIR_B, 25);

    pair_connect(pair);
    pair->judge = drop_syns;
    connect_to(pair, &remote, TICK_NEVER, 5);
    assert_false(pair_wait(pair, PAIR_A, 5, FLOW_FAILED, TICK_S(179)));
    assert_true(pair_wait(pair, PAIR_A, 5, FLOW_FAILED, TICK_S(2)));
}

static void test_late_syn_ack_is_reset(void **state)
{
    struct pair *pair = *state;
    struct flow_address remote = pair_address(pair, PAIR_B, 25);
    uint32_t index;

    pair_connect(pair);
    index = pair->segment_count;
    struct flow flow = connect_to(pair, &remote, TICK_NEVER, 5);
    pair_run(pair, TICK_MS(5));
    flow_close(pair->planes[PAIR_A], flow);
    pair_turn(pair);
    assert_null(pair_find(pair, PAIR_A, TCP_RST, &(uint32_t){index})); /* nothing to be reset yet */
    pair_run(pair, TICK_MS(100));
    assert_non_null(pair_find(pair, PAIR_A, TCP_RST, &index));
    assert_int_equal(0, stack_get_usage(pair->stacks[PAIR_B]).half_open);
    assert_int_equal(1, stack_get_usage(pair->stacks[PAIR_B]).connections);
}

/* ---- refusals ---- */

static void test_refused(void **state)
{
    struct pair *pair = *state;
    struct flow_address remote = pair_address(pair, PAIR_B, 26);
    tick_us start = pair->now;

    struct flow flow = connect_to(pair, &remote, TICK_NEVER, 5);
    assert_true(pair_wait(pair, PAIR_A, 5, FLOW_FAILED, TICK_S(1)));
    assert_int_equal(ERR_REFUSED, flow_error(pair->planes[PAIR_A], flow));
    assert_true(pair->now - start < TICK_MS(200));
    flow_close(pair->planes[PAIR_A], flow);
    assert_int_equal(0, flow_plane_stats(pair->planes[PAIR_A]).flows);
}

/* A host that is not there is known to be so when ARP has given up, long before any deadline. */
static void test_nobody_there(void **state)
{
    struct pair *pair = *state;
    struct flow_address remote = pair_address(pair, PAIR_B, 25);

    remote.ip[3] = 99;
    struct flow flow = connect_to(pair, &remote, TICK_NEVER, 5);
    assert_true(pair_wait(pair, PAIR_A, 5, FLOW_FAILED, TICK_S(10)));
    assert_int_equal(ERR_PEER_UNREACHABLE, flow_error(pair->planes[PAIR_A], flow));
    flow_close(pair->planes[PAIR_A], flow);
}

static void test_impossible_destinations(void **state)
{
    struct pair *pair = *state;
    static const char *const ips[] = {"0.0.0.0",  "127.0.0.1", "224.0.0.1", "255.255.255.255",
                                      "10.0.0.1", "8.8.8.8",   "::1",       "ff02::1"};

    for (uint32_t i = 0; i < COUNT_OF(ips); i++) {
        struct flow_address remote;
        assert_int_equal(ERR_OK, flow_address_parse_ip(span_from_text(ips[i]), &remote));
        remote.port = 25;
        struct flow flow = connect_to(pair, &remote, TICK_NEVER, 5);
        pair->seen[PAIR_A][5] = 0;
        assert_true(pair_wait(pair, PAIR_A, 5, FLOW_FAILED, TICK_MS(10)));
        assert_int_equal(ERR_PEER_UNREACHABLE, flow_error(pair->planes[PAIR_A], flow));
        flow_close(pair->planes[PAIR_A], flow);
    }
    assert_int_equal(0, pair->segment_count);
    assert_int_equal(0, flow_plane_stats(pair->planes[PAIR_A]).flows);
}

static void test_impossible_sources(void **state)
{
    struct pair *pair = *state;
    struct flow_connect_options options = {.remote = pair_address(pair, PAIR_B, 25)};
    struct flow flow;

    options.source = pair_address(pair, PAIR_B, 0); /* not ours */
    assert_int_equal(ERR_SYSTEM, flow_connect(pair->planes[PAIR_A], &options, &flow));
    assert_int_equal(ERR_OK, flow_address_parse_ip(SPAN_LITERAL("::1"), &options.source));
    assert_int_equal(ERR_SYSTEM, flow_connect(pair->planes[PAIR_A], &options, &flow));
    options.source = pair_address(pair, PAIR_A, 7000);
    assert_int_equal(ERR_OK, flow_connect(pair->planes[PAIR_A], &options, &flow));
    assert_int_equal(ERR_SYSTEM, flow_connect(pair->planes[PAIR_A], &options, &flow));
    options.remote.port = 0;
    assert_int_equal(ERR_SYSTEM, flow_connect(pair->planes[PAIR_A], &options, &flow));
    options.remote = (struct flow_address){.family = FLOW_FAMILY_UNIX};
    assert_int_equal(ERR_SYSTEM, flow_connect(pair->planes[PAIR_A], &options, &flow));
}

static void test_impossible_listeners(void **state)
{
    struct pair *pair = *state;
    struct flow_listen_options options = {.address = pair_address(pair, PAIR_B, 25)};
    struct flow flow;

    assert_int_equal(ERR_OK, flow_listen(pair->planes[PAIR_B], &options, &flow));
    assert_int_equal(ERR_SYSTEM, flow_listen(pair->planes[PAIR_B], &options, &flow));
    options.address.ip[3] = 77;
    assert_int_equal(ERR_SYSTEM, flow_listen(pair->planes[PAIR_B], &options, &flow));
    options.address = pair_address(pair, PAIR_B, 0);
    assert_int_equal(ERR_SYSTEM, flow_listen(pair->planes[PAIR_B], &options, &flow));
    options.address = (struct flow_address){.family = FLOW_FAMILY_IP6, .port = 25}; /* any */
    assert_int_equal(ERR_OK, flow_listen(pair->planes[PAIR_B], &options, &flow));
}

/* RFC 4862 5.4: in the first second an IPv6 address says nothing, and then what was to be said. */
static void test_tentative_source_waits(void **state)
{
    (void)state;
    for (uint32_t is_named = 0; is_named < 2; is_named++) {
        struct pair *pair = pair_new(&(struct pair_options){.family = 6, .is_fresh = true});
        struct flow_connect_options options = {.remote = pair_address(pair, PAIR_B, 25),
                                               .deadline = pair->now + TICK_S(30),
                                               .user = PAIR_USER};
        struct flow flow;

        if (is_named)
            options.source = pair_address(pair, PAIR_A, 0);
        pair_listen(pair);
        pair_run(pair, TICK_MS(2));
        assert_int_equal(ERR_OK, flow_connect(pair->planes[PAIR_A], &options, &flow));
        assert_false(pair_wait(pair, PAIR_A, PAIR_USER, FLOW_CONNECTED, TICK_MS(990)));
        assert_int_equal(0, pair->segment_count);
        assert_true(pair_wait(pair, PAIR_A, PAIR_USER, FLOW_CONNECTED, TICK_MS(100)));
        pair_free(pair);
    }
}

/* ---- both at once ---- */

/* RFC 9293 3.5, figure 7: each sends a SYN to the other's port. */
static void test_simultaneous_open(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        struct pair *pair = pair_of(NULL, NULL, i == 0 ? 4 : 6);
        struct flow_connect_options options[2];
        pair_connect(pair); /* neighbours are known */
        for (uint32_t side = 0; side < 2; side++) {
            options[side] = (struct flow_connect_options){
                .remote = pair_address(pair, 1 - side, (uint16_t)(3000 + side)),
                .source = pair_address(pair, side, (uint16_t)(3000 + 1 - side)),
                .deadline = pair->now + TICK_S(20),
                .user = 6};
            pair->flows[side] = (struct flow){0};
            assert_int_equal(ERR_OK,
                             flow_connect(pair->planes[side], &options[side], &pair->flows[side]));
        }
        assert_true(pair_wait(pair, PAIR_A, 6, FLOW_CONNECTED, TICK_S(2)));
        assert_true(pair_wait(pair, PAIR_B, 6, FLOW_CONNECTED, TICK_S(2)));
        for (uint32_t side = 0; side < 2; side++) {
            assert_true(pair_tcb(pair, side)->flags & TCB_HAS_TIMESTAMPS);
            assert_true(pair_tcb(pair, side)->flags & TCB_HAS_SACK);
            assert_int_equal(pair_tcb(pair, side)->rcv_scale, pair_tcb(pair, 1 - side)->snd_scale);
            pair_send(pair, side, 0, 50000);
        }
        pair_run(pair, TICK_S(1));
        assert_int_equal(50000, pair_receive(pair, PAIR_A, 0));
        assert_int_equal(50000, pair_receive(pair, PAIR_B, 0));
        pair_free(pair);
    }
}

/* ---- what is agreed on ---- */

static void test_options(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 64; i++) {
        struct tcp_policy policy[2] = {tcp_policy_default(), tcp_policy_default()};
        for (uint32_t side = 0; side < 2; side++) {
            policy[side].has_sack = i >> (3 * side) & 1;
            policy[side].has_timestamps = i >> (3 * side + 1) & 1;
            policy[side].has_window_scale = i >> (3 * side + 2) & 1;
        }
        struct pair *pair = pair_of(&policy[0], &policy[1], i % 2 == 0 ? 4 : 6);
        pair_connect(pair);
        for (uint32_t side = 0; side < 2; side++) {
            const struct tcb *tcb = pair_tcb(pair, side);
            bool has_sack = policy[0].has_sack && policy[1].has_sack;
            bool has_timestamps = policy[0].has_timestamps && policy[1].has_timestamps;
            bool has_scale = policy[0].has_window_scale && policy[1].has_window_scale;
            assert_int_equal(has_sack, (tcb->flags & TCB_HAS_SACK) != 0);
            assert_int_equal(has_timestamps, (tcb->flags & TCB_HAS_TIMESTAMPS) != 0);
            assert_int_equal(has_scale, (tcb->flags & TCB_HAS_WINDOW_SCALE) != 0);
            assert_int_equal(has_scale ? 7 : 0, tcb->rcv_scale);
            assert_int_equal(has_scale ? 7 : 0, tcb->snd_scale);
            assert_int_equal((i % 2 == 0 ? 1460 : 1440) - (has_timestamps ? 12 : 0), tcb->mss);
            assert_in_range(tcb->snd_wnd, 65535 >> tcb->snd_scale << tcb->snd_scale, 65535);
        }
        pair_free(pair);
    }
}

static bool drop_first_syn(struct pair *pair, const struct pair_segment *segment)
{
    if (segment->from == PAIR_B || !(segment->tcp.flags & TCP_SYN) || pair->judged == 0)
        return true;
    pair->judged--;
    return false;
}

/* The first RTT sample comes with the handshake, unless a SYN was sent again. */
static void test_first_round_trip(void **state)
{
    struct pair *pair = *state;

    pair_connect(pair);
    pair_connect(pair);
    assert_in_range(pair_tcb(pair, PAIR_A)->rtt.srtt, RTT - TICK_MS(1), RTT + TICK_MS(3));
    assert_in_range(pair_tcb(pair, PAIR_B)->rtt.srtt, RTT - TICK_MS(1), RTT + TICK_MS(3));
    assert_int_equal(10 * 1448, pair_tcb(pair, PAIR_A)->congestion.cwnd);
    /* What a connection learnt of the way, the next one's SYN knows (RFC 9040). */
    flow_abort(pair->planes[PAIR_A], pair->flows[PAIR_A]);
    struct flow_address remote = pair_address(pair, PAIR_B, 25);
    pair->flows[PAIR_A] = connect_to(pair, &remote, TICK_NEVER, 5);
    assert_in_range(pair_tcb(pair, PAIR_A)->rtt.rto, TICK_MS(200), TICK_MS(300));
}

/* RFC 6298 5.7. */
static void test_lost_syn_slows_the_first_timeout(void **state)
{
    struct pair *pair = *state;

    pair_connect(pair);
    pair->judge = drop_first_syn;
    pair->judged = 1;
    pair_connect(pair);
    assert_int_equal(0, pair->judged);
    assert_int_equal(0, pair_tcb(pair, PAIR_A)->rtt.srtt);
    assert_int_equal(TICK_S(3), pair_tcb(pair, PAIR_A)->rtt.rto);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schedule_of_syns),
        TEST(test_no_deadline_ends_too),
        TEST(test_late_syn_ack_is_reset),
        TEST(test_refused),
        TEST(test_nobody_there),
        TEST(test_impossible_destinations),
        TEST(test_impossible_sources),
        TEST(test_impossible_listeners),
        cmocka_unit_test(test_tentative_source_waits),
        cmocka_unit_test(test_simultaneous_open),
        cmocka_unit_test(test_options),
        TEST(test_first_round_trip),
        TEST(test_lost_syn_slows_the_first_timeout),
    };
    return cmocka_run_group_tests_name("wire tcp connect", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Path MTU: routers that say how much they take, and paths that swallow what is too long.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/wire_pair.h"

#define RTT  TICK_MS(20)
#define SIZE 200000u

static struct pair *pair_of(uint8_t family, uint16_t mtu, bool has_icmp, uint16_t port_mtu)
{
    struct link_sim_path path = {.delay = RTT / 2, .mtu = mtu, .has_icmp = has_icmp};

    return pair_new(&(struct pair_options){.family = family,
                                           .mtu = port_mtu,
                                           .pool_size = port_mtu > 2000 ? 9216 : 2048,
                                           .paths = {path, {.delay = RTT / 2}}});
}

/* A sends SIZE octets; returns how long that took. */
static tick_us transfer(struct pair *pair)
{
    uint32_t received = 0;
    tick_us start = pair->now;

    pair_send(pair, PAIR_A, 0, SIZE);
    while (received < SIZE && pair->now < start + TICK_S(100)) {
        pair_turn(pair);
        received += pair_receive(pair, PAIR_B, received);
    }
    assert_int_equal(SIZE, received);
    return pair->now - start;
}

static void test_narrow_paths(void **state)
{
    static const struct {
        const char *name;
        uint8_t family;
        uint16_t mtu;
        bool has_icmp;
        uint16_t port_mtu, expected;
        tick_us time_max;
    } rows[] = {
        {"a router says so", 4, 1400, true, 1500, 1400, TICK_MS(400)},
        {"a router says so", 6, 1400, true, 1500, 1400, TICK_MS(400)},
        {"from jumbo frames", 4, 1500, true, 9000, 1500, TICK_MS(400)},
        {"at the floor", 4, 552, true, 1500, 552, TICK_MS(600)},
        {"at the floor", 6, 1280, true, 1500, 1280, TICK_MS(400)},
        {"nobody says anything", 4, 1400, false, 1500, 1400, TICK_S(4)},
        {"nobody says anything", 6, 1400, false, 1500, 1400, TICK_S(4)},
        {"nobody, and narrower", 4, 1300, false, 1500, 1280, TICK_S(3)},
        {"nobody, jumbo frames", 4, 1500, false, 9000, 1500, TICK_S(4)},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct pair *pair =
            pair_of(rows[i].family, rows[i].mtu, rows[i].has_icmp, rows[i].port_mtu);
        print_message("# %s, IPv%u, %u\n", rows[i].name, rows[i].family, rows[i].mtu);
        pair_connect(pair);
        tick_us time = transfer(pair);
        uint16_t mss = (uint16_t)(rows[i].expected - (rows[i].family == 4 ? 52 : 72));
        assert_int_equal(mss, pair_tcb(pair, PAIR_A)->mss);
        assert_true(time < rows[i].time_max);
        assert_int_equal(!rows[i].has_icmp, pair_tcb(pair, PAIR_A)->destination->is_black_hole);
        if (rows[i].has_icmp) {
            /* It was no congestion: the window was not reduced, no time-out was waited for. */
            assert_int_equal(0, pair_count(pair, PAIR_A, STACK_TCP_TIMEOUTS));
            assert_true(pair_tcb(pair, PAIR_A)->congestion.ssthresh > 1000000);
        }
        /* The next connection begins where this one ended. */
        pair_connect(pair);
        assert_int_equal(mss, pair_tcb(pair, PAIR_A)->mss);
        uint64_t again = pair_count(pair, PAIR_A, STACK_TCP_RETRANSMITTED);
        transfer(pair);
        assert_int_equal(again, pair_count(pair, PAIR_A, STACK_TCP_RETRANSMITTED));
        pair_free(pair);
    }
}

/* Goal: the last segment of a message, which is not a full one, gets through as well. */
static void test_black_hole_at_the_end(void **state)
{
    static const struct {
        uint16_t mtu;
        uint32_t size, expected_mss;
        tick_us time_max;
    } rows[] = {
        {1400, 1400, 1348, TICK_S(3)}, /* longer than most paths take */
        {1000, 1100, 500, TICK_S(20)}, /* few are so narrow */
        {1000, 500, 1448, TICK_MS(100)},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct pair *pair = pair_of(4, rows[i].mtu, false, 1500);
        uint32_t received = 0;
        pair_connect(pair);
        tick_us start = pair->now;
        pair_send(pair, PAIR_A, 0, rows[i].size);
        while (received < rows[i].size && pair->now < start + rows[i].time_max) {
            pair_turn(pair);
            received += pair_receive(pair, PAIR_B, received);
        }
        assert_int_equal(rows[i].size, received);
        assert_int_equal(rows[i].expected_mss, pair_tcb(pair, PAIR_A)->mss);
        pair_free(pair);
    }
}

static bool drop_data(struct pair *pair, const struct pair_segment *segment)
{
    if (segment->from == PAIR_B || segment->size == 0 || pair->judged == 0)
        return true;
    pair->judged--;
    return false;
}

/* Goal: a peer that is away for some seconds does not end at the floor. */
static void test_outage_is_no_narrow_path(void **state)
{
    (void)state;
    struct pair *pair = pair_of(4, 0, false, 1500);
    pair_connect(pair);
    pair->judge = drop_data;
    pair->judged = UINT32_MAX;
    pair_send(pair, PAIR_A, 0, 5000);
    pair_run(pair, TICK_S(6));
    pair->judge = NULL;
    pair_run(pair, TICK_S(20));
    assert_int_equal(5000, pair_receive(pair, PAIR_B, 0));
    assert_true(pair_tcb(pair, PAIR_A)->mss >= 1280 - 52);
    pair_free(pair);
}

/* Goal: small segments that are lost say nothing about length. */
static void test_lost_small_segments_are_no_black_hole(void **state)
{
    (void)state;
    struct pair *pair = pair_of(4, 0, false, 1500);
    pair_connect(pair);
    pair->judge = drop_data;
    pair->judged = 6;
    pair_send(pair, PAIR_A, 0, 500);
    pair_run(pair, TICK_S(60));
    assert_int_equal(500, pair_receive(pair, PAIR_B, 0));
    assert_int_equal(1448, pair_tcb(pair, PAIR_A)->mss);
    pair_free(pair);
}

/* ---- ICMP ---- */

static struct icmp_error error_for(struct pair *pair, uint32_t sequence, uint16_t mtu)
{
    const struct tcb *tcb = pair_tcb(pair, PAIR_A);
    struct icmp_error error = {.type = ICMP_UNREACHABLE4,
                               .code = 4,
                               .mtu = mtu,
                               .quoted = {.family = 4},
                               .source_port = tcb->key.local_port,
                               .destination_port = tcb->key.remote_port,
                               .sequence = sequence};

    memcpy(error.quoted.source, tcb->key.local, 16);
    memcpy(error.quoted.destination, tcb->key.remote, 16);
    return error;
}

/* RFC 5927: what is not in flight was never sent, or long ago. */
static void test_icmp_is_believed_for_what_is_in_flight(void **state)
{
    (void)state;
    struct pair *pair = pair_of(4, 0, false, 1500);
    pair_connect(pair);
    struct tcb *tcb = pair_tcb(pair, PAIR_A);
    pair_send(pair, PAIR_A, 0, 20000);
    pair_run(pair, TICK_MS(3));
    uint32_t una = tcb->snd_una, nxt = tcb->snd_nxt;
    assert_true(nxt - una > 10000);
    const uint32_t strays[] = {una - 1, nxt, nxt + 1000, una - 100000};
    for (uint32_t i = 0; i < COUNT_OF(strays); i++) {
        struct icmp_error stray = error_for(pair, strays[i], 600);
        tcp_on_icmp_error(pair->stacks[PAIR_A], &stray);
        assert_int_equal(1448, tcb->mss);
    }
    assert_int_equal(4, pair_count(pair, PAIR_A, STACK_TCP_ICMP_STRAY));
    struct icmp_error good = error_for(pair, nxt - 1, 1000);
    tcp_on_icmp_error(pair->stacks[PAIR_A], &good);
    assert_int_equal(948, tcb->mss);
    good = error_for(pair, una, 1400); /* no increase */
    tcp_on_icmp_error(pair->stacks[PAIR_A], &good);
    assert_int_equal(948, tcb->mss);
    good = error_for(pair, una, 68); /* no less than the floor */
    tcp_on_icmp_error(pair->stacks[PAIR_A], &good);
    assert_true(tcb->mss >= 500);
    /* RFC 5461: a connection that works does not end by hearsay. */
    good = error_for(pair, una, 0);
    for (uint8_t code = 0; code < 14; code++) {
        good.code = code;
        if (code != 4)
            tcp_on_icmp_error(pair->stacks[PAIR_A], &good);
    }
    assert_int_equal(TCP_ESTABLISHED, tcb->state);
    assert_int_equal(13, pair_count(pair, PAIR_A, STACK_TCP_ICMP_SOFT));
    pair_run(pair, TICK_S(2));
    assert_int_equal(20000, pair_receive(pair, PAIR_B, 0));
    pair_free(pair);
}

static void test_icmp_while_connecting(void **state)
{
    static const struct {
        uint8_t code;
        enum err expected;
    } rows[] = {{0, ERR_PEER_UNREACHABLE},
                {1, ERR_PEER_UNREACHABLE},
                {2, ERR_REFUSED},
                {3, ERR_REFUSED},
                {13, ERR_PEER_UNREACHABLE}};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct pair *pair = pair_of(4, 0, false, 1500);
        const struct flow_connect_options options = {
            .remote = pair_address(pair, PAIR_B, 25), .deadline = TICK_NEVER, .user = 5};
        assert_int_equal(ERR_OK,
                         flow_connect(pair->planes[PAIR_A], &options, &pair->flows[PAIR_A]));
        flow_flush(pair->planes[PAIR_A], pair->now); /* the SYN */
        struct tcb *tcb = pair_tcb(pair, PAIR_A);
        struct icmp_error error = error_for(pair, tcb->snd_una + 1, 0);
        error.code = rows[i].code;
        tcp_on_icmp_error(pair->stacks[PAIR_A], &error);
        assert_int_equal(TCP_SYN_SENT, tcb->state);
        error.sequence = tcb->snd_una;
        tcp_on_icmp_error(pair->stacks[PAIR_A], &error);
        assert_int_equal(TCP_CLOSED, tcb->state);
        assert_true(pair_wait(pair, PAIR_A, 5, FLOW_FAILED, TICK_MS(10)));
        assert_int_equal(rows[i].expected, flow_error(pair->planes[PAIR_A], pair->flows[PAIR_A]));
        pair_free(pair);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_narrow_paths),
        cmocka_unit_test(test_black_hole_at_the_end),
        cmocka_unit_test(test_lost_small_segments_are_no_black_hole),
        cmocka_unit_test(test_outage_is_no_narrow_path),
        cmocka_unit_test(test_icmp_is_believed_for_what_is_in_flight),
        cmocka_unit_test(test_icmp_while_connecting),
    };
    return cmocka_run_group_tests_name("wire tcp path", tests, NULL, NULL);
}

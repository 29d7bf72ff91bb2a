/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stack as a whole: what it can be made of, its counters' names, its turn and deadline, its flows
 * as seen from outside.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
/* cmocka.h wants the ones above first. */
#include <cmocka.h>

#include "tests/unit/wire_fixture.h"

/* ---- options ---- */

/* What a row changes of options that are right. */
struct subject {
    struct fixture *fixture;
    struct stack_options options;
    struct stack_port_options ports[FIXTURE_PORTS];
    struct stack_address addresses[4];
    struct buf_pool *small;
};

/* Each sets something to the last value that is right (is_right) or to the first that is not. */
#define CHANGE(name, right, wrong)                                                                 \
    static void name(struct subject *subject, bool is_right)                                       \
    {                                                                                              \
        if (is_right) {                                                                            \
            right;                                                                                 \
        } else {                                                                                   \
            wrong;                                                                                 \
        }                                                                                          \
    }
#define OPTIONS  subject->options
#define PORT     subject->ports[0]
#define NIC      subject->fixture->nics[0].nic
#define STEERING NIC.steering

CHANGE(no_port, OPTIONS.port_count = 1, OPTIONS.port_count = 0)
CHANGE(too_many_ports, OPTIONS.port_count = 2, OPTIONS.port_count = STACK_PORT_MAX + 1)
CHANGE(no_nic, (void)subject, PORT.nic = NULL)
CHANGE(no_pool, (void)subject, OPTIONS.pool = NULL)
CHANGE(no_header_pool, (void)subject, OPTIONS.header_pool = NULL)
CHANGE(no_clone_pool, (void)subject, OPTIONS.clone_pool = NULL)
CHANGE(small_headers, (void)subject, OPTIONS.header_pool = subject->small)
CHANGE(small_buffers, NIC.offloads |= NIC_TX_MULTI_SEGMENT;
       OPTIONS.pool = subject->small, NIC.offloads = 0; OPTIONS.pool = subject->small)
CHANGE(no_flows, OPTIONS.flow_count_max = 1, OPTIONS.flow_count_max = 0)
CHANGE(no_neighbours, OPTIONS.neighbour_max = 1, OPTIONS.neighbour_max = 0)
CHANGE(no_destinations, OPTIONS.destination_max = 1, OPTIONS.destination_max = 0)
CHANGE(core, OPTIONS.core_count = 2; OPTIONS.core = 1, OPTIONS.core_count = 2; OPTIONS.core = 2)
CHANGE(no_cores, OPTIONS.core_count = 1, OPTIONS.core_count = 0)
CHANGE(too_many_cores, OPTIONS.core_count = STACK_CORE_MAX, OPTIONS.core_count = STACK_CORE_MAX + 1)
CHANGE(large_mtu, PORT.mtu = 1500, PORT.mtu = 1501)
CHANGE(small_mtu6, PORT.mtu = 1280, PORT.mtu = 1279)
CHANGE(small_mtu4, PORT.mtu = 576; PORT.address_count = 1; PORT.gateway6.family = 0, PORT.mtu = 575;
       PORT.address_count = 1; PORT.gateway6.family = 0)
CHANGE(vlan, PORT.vlan = 4094, PORT.vlan = 4095)
CHANGE(vlan_without_link, NIC.offloads |= NIC_IS_L3, NIC.offloads |= NIC_IS_L3; PORT.vlan = 1)
CHANGE(one_segment, NIC.segments_max = 2, NIC.segments_max = 1)
CHANGE(group_mac, NIC.mac[0] = 2, NIC.mac[0] = 3)
CHANGE(addresses_missing, PORT.addresses = NULL; PORT.address_count = 0; PORT.gateway4.family = 0;
       PORT.gateway6.family = 0, PORT.addresses = NULL)
CHANGE(prefix4, subject->addresses[0].prefix_bits = 24, subject->addresses[0].prefix_bits = 33)
CHANGE(prefix6, subject->addresses[1].prefix_bits = 64, subject->addresses[1].prefix_bits = 129)
CHANGE(loopback, (void)subject, subject->addresses[0].address = fixture_address("127.0.0.1", 0))
CHANGE(group, (void)subject, subject->addresses[1].address = fixture_address("ff02::1", 0))
CHANGE(family, (void)subject, subject->addresses[0].address.family = FLOW_FAMILY_UNIX)
CHANGE(long_address4, (void)subject, subject->addresses[0].address.ip[4] = 1)
CHANGE(repeated, (void)subject, subject->addresses[2] = subject->addresses[1])
CHANGE(repeated_elsewhere, OPTIONS.port_count = 2, OPTIONS.port_count = 2;
       subject->addresses[3] = subject->addresses[0])
CHANGE(far_gateway4, PORT.gateway4 = fixture_address("192.0.2.254", 0),
       PORT.gateway4 = fixture_address("192.0.3.254", 0))
CHANGE(far_gateway6, PORT.gateway6 = fixture_address("fe80::99", 0),
       PORT.gateway6 = fixture_address("2001:db8:0:1::fe", 0))
CHANGE(lonely_address, PORT.gateway4 = fixture_address("203.0.113.1", 0);
       subject->addresses[0].prefix_bits = 32, PORT.gateway4 = fixture_address("203.0.113.1", 0);
       subject->addresses[0].prefix_bits = 31)
CHANGE(own_gateway, (void)subject, PORT.gateway4 = fixture_address("192.0.2.1", 0))
CHANGE(gateway_family, PORT.gateway4.family = 0, PORT.gateway4 = PORT.gateway6)
CHANGE(queue, STEERING.queue_count = 2; STEERING.queue = 1, STEERING.queue_count = 2;
       STEERING.queue = 2)
CHANGE(reta_size, STEERING.queue_count = 2;
       STEERING.reta_size = NIC_RETA_MAX, STEERING.queue_count = 2; STEERING.reta_size = 96)
CHANGE(reta_queue, STEERING.queue_count = 2; STEERING.reta[127] = 1, STEERING.queue_count = 2;
       STEERING.reta[127] = 2)
CHANGE(window_scale, OPTIONS.tcp.window_scale_max = 14, OPTIONS.tcp.window_scale_max = 15)
CHANGE(mss_min, OPTIONS.tcp.mss_min = 536, OPTIONS.tcp.mss_min = 537)
CHANGE(tiny_mss_min, OPTIONS.tcp.mss_min = 64, OPTIONS.tcp.mss_min = 63)
CHANGE(rto_order, OPTIONS.tcp.rto_min = TICK_S(1), OPTIONS.tcp.rto_min = TICK_S(1) + 1)
CHANGE(rto_max, OPTIONS.tcp.rto_max = TICK_S(1), OPTIONS.tcp.rto_max = TICK_S(1) - 1)
CHANGE(delayed_ack, OPTIONS.tcp.delayed_ack_time = TICK_MS(500) - 1,
       OPTIONS.tcp.delayed_ack_time = TICK_MS(500))
CHANGE(window_order, OPTIONS.tcp.receive_window_start = OPTIONS.tcp.receive_window_max,
       OPTIONS.tcp.receive_window_start = OPTIONS.tcp.receive_window_max + 1)
CHANGE(first_syn, OPTIONS.tcp.syn_times[0] = 0, OPTIONS.tcp.syn_times[0] = 1)

#define ROW(name)                                                                                  \
    {                                                                                              \
#name, name                                                                                \
    }
static const struct {
    const char *name;
    void (*change)(struct subject *subject, bool is_right);
} changes[] = {
    ROW(no_port),           ROW(too_many_ports),  ROW(no_nic),
    ROW(no_pool),           ROW(no_header_pool),  ROW(no_clone_pool),
    ROW(small_headers),     ROW(small_buffers),   ROW(no_flows),
    ROW(no_neighbours),     ROW(no_destinations), ROW(core),
    ROW(no_cores),          ROW(too_many_cores),  ROW(large_mtu),
    ROW(small_mtu6),        ROW(small_mtu4),      ROW(vlan),
    ROW(vlan_without_link), ROW(one_segment),     ROW(group_mac),
    ROW(addresses_missing), ROW(prefix4),         ROW(prefix6),
    ROW(loopback),          ROW(group),           ROW(family),
    ROW(long_address4),     ROW(repeated),        ROW(repeated_elsewhere),
    ROW(far_gateway4),      ROW(far_gateway6),    ROW(lonely_address),
    ROW(own_gateway),       ROW(gateway_family),  ROW(queue),
    ROW(reta_size),         ROW(reta_queue),      ROW(window_scale),
    ROW(mss_min),           ROW(tiny_mss_min),    ROW(rto_order),
    ROW(rto_max),           ROW(delayed_ack),     ROW(window_order),
    ROW(first_syn),
};

/* Every bound from both sides; impossible options leave the nics alone. */
static void test_options(void **state)
{
    const struct fixture_options options = fixture_defaults();

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(changes) * 2; i++) {
        bool is_right = i % 2 == 0;
        struct fixture *fixture = fixture_new(&options);
        struct subject subject = {
            .fixture = fixture,
            .small = buf_pool_new(&(struct buf_pool_options){STACK_HEADER_SIZE - 1, 64, 1})};
        struct stack *stack = NULL;

        flow_plane_free(fixture->plane);
        fixture->nics[0].is_freed = false;
        subject.options =
            fixture_stack_options(fixture, &options, subject.ports, subject.addresses);
        changes[i / 2].change(&subject, is_right);
        enum err err = stack_new(&subject.options, &stack);
        if (err != (is_right ? ERR_OK : ERR_CONFIG_VALUE))
            fail_msg("%s %s", changes[i / 2].name, is_right ? "right" : "wrong");
        assert_int_equal(is_right, stack != NULL);
        if (stack != NULL)
            flow_plane_free(stack_plane(stack));
        assert_int_equal(is_right, fixture->nics[0].is_freed);
        buf_pool_free(subject.small);
        fixture_free_pools(fixture);
    }
}

static void test_address_bounds(void **state)
{
    static struct stack_address addresses[STACK_ADDRESS_MAX + 1];
    const struct fixture_options options = fixture_defaults();
    struct stack_port_options ports[FIXTURE_PORTS];
    struct stack_address usual[4];

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(addresses); i++) {
        addresses[i] = (struct stack_address){fixture_address("192.0.2.1", 0), 24};
        addresses[i].address.ip[3] = (uint8_t)(1 + i);
    }
    for (uint32_t extra = 0; extra < 2; extra++) {
        struct fixture *fixture = fixture_new(&options);
        struct stack *stack;
        flow_plane_free(fixture->plane);
        struct stack_options wanted = fixture_stack_options(fixture, &options, ports, usual);
        ports[0].addresses = addresses;
        ports[0].address_count = STACK_ADDRESS_MAX + extra;
        ports[0].gateway6.family = FLOW_FAMILY_NONE;
        assert_int_equal(extra == 0 ? ERR_OK : ERR_CONFIG_VALUE, stack_new(&wanted, &stack));
        if (extra == 0) {
            for (uint32_t i = 0; i < STACK_ADDRESS_MAX; i++)
                assert_ptr_equal(&stack->locals[i],
                                 stack_local_find(stack, 4, addresses[i].address.ip));
            assert_null(stack_local_find(stack, 4, addresses[STACK_ADDRESS_MAX].address.ip));
            assert_null(stack_local_find(stack, 6, addresses[0].address.ip));
            assert_int_equal(1, stack->ports[0].prefix_count);
            flow_plane_free(stack_plane(stack));
        }
        fixture_free_pools(fixture);
    }
}

/* Another seed, or another half of it, is another stack to whoever guesses. */
static void test_seeds(void **state)
{
    const struct fixture_options options = fixture_defaults();
    uint64_t seen[5];

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(seen); i++) {
        struct fixture *fixture = fixture_new(&options);
        struct stack_port_options ports[FIXTURE_PORTS];
        struct stack_address addresses[4];
        struct stack *stack;
        flow_plane_free(fixture->plane);
        struct stack_options wanted = fixture_stack_options(fixture, &options, ports, addresses);
        wanted.seed[0] ^= i == 1 ? 1 : i == 2 ? UINT64_C(1) << 63 : 0;
        wanted.seed[1] ^= i == 3 ? 1 : i == 4 ? UINT64_C(1) << 63 : 0;
        assert_int_equal(ERR_OK, stack_new(&wanted, &stack));
        seen[i] = stack->isn_key.words[0];
        assert_true(stack->isn_key.words[0] != stack->hash_key.words[0]);
        flow_plane_free(stack_plane(stack));
        fixture_free_pools(fixture);
    }
    for (uint32_t i = 0; i < COUNT_OF(seen) * COUNT_OF(seen); i++)
        assert_true(i / COUNT_OF(seen) == i % COUNT_OF(seen) ||
                    seen[i / COUNT_OF(seen)] != seen[i % COUNT_OF(seen)]);
}

/* ---- counters ---- */

static void test_counter_names(void **state)
{
    (void)state;
    assert_string_equal("frames_received", stack_counter_name(STACK_FRAMES_RECEIVED));
    assert_string_equal("frames received", stack_counter_text(STACK_FRAMES_RECEIVED));
    for (uint32_t i = 0; i < STACK_COUNTER_COUNT; i++) {
        const char *name = stack_counter_name((enum stack_counter)i);
        assert_in_range(strlen(name), 3, 39);
        assert_int_equal(strlen(name), strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_"));
        for (uint32_t j = 0; j < i; j++)
            assert_string_not_equal(name, stack_counter_name((enum stack_counter)j));
    }
}

/* ---- turn and deadline ---- */

/* A burst per port and turn; what is beyond it waits for the next. */
static void test_turn_is_bounded(void **state)
{
    const struct fixture_options options = fixture_defaults();
    struct fixture *fixture = fixture_new(&options);
    uint8_t segment[TCP_HEADER_SIZE] = {[12] = 0x50};
    const struct fixture_packet packet = {.source = "198.51.100.7",
                                          .destination = "192.0.2.1",
                                          .protocol = IP_PROTOCOL_TCP,
                                          .payload = span_of(segment, sizeof(segment))};
    uint8_t frame[128];
    uint32_t size = fixture_build(&packet, frame);

    (void)state;
    for (uint32_t i = 0; i < NIC_BURST + 1; i++)
        fixture_inject(fixture, 0, span_of(frame, size));
    fixture_turn(fixture, NULL, 0);
    assert_int_equal(NIC_BURST, fixture->segment_count);
    fixture_turn(fixture, NULL, 0);
    assert_int_equal(NIC_BURST + 1, fixture->segment_count);
    fixture_free(fixture);
}

/* Timers that are due in one turn beyond its bound fire in the next, which is due at once. */
static void test_timers_are_bounded(void **state)
{
    static struct wheel_timer timers[4097];
    const struct fixture_options options = fixture_defaults();
    struct fixture *fixture = fixture_new(&options);

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(timers); i++) {
        timers[i].kind = STACK_TIMER_LIST;
        wheel_arm(&fixture->stack->wheel, &timers[i], fixture->now + TICK_MS(5));
    }
    fixture->now += TICK_MS(10);
    fixture_turn(fixture, NULL, 0);
    assert_int_equal(4096, fixture->list_timer_count);
    assert_true(flow_deadline(fixture->plane) <= fixture->now);
    fixture_turn(fixture, NULL, 0);
    assert_int_equal(4097, fixture->list_timer_count);
    fixture_free(fixture);
}

static tick_us nic_soon(struct nic *nic)
{
    (void)nic;
    return TICK_S(2000);
}

static void test_deadline(void **state)
{
    const struct fixture_options options = fixture_defaults();
    struct fixture *fixture = fixture_new(&options);
    struct flow_address remote = fixture_address("192.0.2.10", 53);
    struct nic_ops ops = *fixture->nics[0].nic.ops;
    struct flow flow;

    (void)state;
    assert_true(flow_deadline(fixture->plane) == TICK_NEVER);
    ops.deadline = nic_soon;
    fixture->nics[0].nic.ops = &ops;
    assert_int_equal(TICK_S(2000), flow_deadline(fixture->plane));
    assert_int_equal(ERR_OK, flow_open_datagram(fixture->plane, NULL, &remote, 1, &flow));
    assert_int_equal(ERR_OK, flow_send_datagram(fixture->plane, flow, SPAN_LITERAL("x")));
    fixture_turn(fixture, NULL, 0); /* its neighbour is asked again after a second */
    assert_in_range(flow_deadline(fixture->plane), fixture->now + 1, fixture->now + TICK_MS(1001));
    fixture_free(fixture);
}

/* ---- flows ---- */

static void test_flow_rows(void **state)
{
    const struct fixture_options options = fixture_defaults();
    struct fixture *fixture = fixture_new(&options);
    struct flow_address remote = fixture_address("192.0.2.10", 53);
    struct stack_flow_row rows[2];
    struct flow flows[5];
    uint64_t cursor = 0;
    uint32_t seen = 0, count;

    (void)state;
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(ERR_OK, flow_open_datagram(fixture->plane, NULL, &remote, i, &flows[i]));
    flow_close(fixture->plane, flows[1]);
    while ((count = stack_flows(fixture->stack, &cursor, rows, 2)) > 0) {
        for (uint32_t i = 0; i < count; i++) {
            assert_string_equal("DATAGRAM", rows[i].state);
            assert_memory_equal(&remote, &rows[i].remote, sizeof(remote));
            assert_true(fixture_ip_is(rows[i].local.ip, "192.0.2.1"));
        }
        seen += count;
    }
    assert_int_equal(4, seen);
    assert_int_equal(4, stack_get_usage(fixture->stack).datagram_flows);
    fixture_free(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),         cmocka_unit_test(test_address_bounds),
        cmocka_unit_test(test_seeds),           cmocka_unit_test(test_counter_names),
        cmocka_unit_test(test_turn_is_bounded), cmocka_unit_test(test_timers_are_bounded),
        cmocka_unit_test(test_deadline),        cmocka_unit_test(test_flow_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Datagram flows over the engine: what flow.h promises (test_flow_contract.c has it for all
 * drivers), and what only an engine of our own has to answer for: checksums, ports that land on our
 * queue, bounds, errors, buffers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
/* cmocka.h wants the ones above first. */
#include <cmocka.h>

#include "tests/unit/wire_fixture.h"

#define USER 7u

struct ends {
    uint8_t family;
    const char *remote, *us, *router;
};
static const struct ends ends4 = {4, "198.51.100.53", "192.0.2.1", "192.0.2.254"};
static const struct ends ends6 = {6, "2001:db9::53", "2001:db8::1", "2001:db8::fe"};
static const struct ends *const both_ends[] = {&ends4, &ends6};

static struct fixture *fixture_usual(void)
{
    const struct fixture_options options = fixture_defaults();
    return fixture_new(&options);
}

/* A flow to port 53 of the remote, whose router is known; returns its local address. */
static struct flow open_flow(struct fixture *fixture, const struct ends *ends,
                             struct flow_address *ret_local)
{
    struct flow_address remote = fixture_address(ends->remote, 53), peer;
    struct flow flow;

    assert_int_equal(ERR_OK, flow_open_datagram(fixture->plane, NULL, &remote, USER, &flow));
    assert_int_equal(ERR_OK, flow_addresses(fixture->plane, flow, ret_local, &peer));
    assert_true(flow_address_is_equal(&remote, &peer));
    assert_true(fixture_ip_is(ret_local->ip, ends->us));
    assert_int_equal(ERR_OK, flow_send_datagram(fixture->plane, flow, SPAN_LITERAL("query")));
    fixture_turn(fixture, NULL, 0);
    fixture_answer(fixture, ends->router, fixture_router_mac);
    fixture_forget(fixture, 0);
    return flow;
}

static struct fixture_packet answer_to(const struct ends *ends, const struct flow_address *local,
                                       struct span payload)
{
    return (struct fixture_packet){.source = ends->remote,
                                   .destination = ends->us,
                                   .from = fixture_router_mac,
                                   .protocol = IP_PROTOCOL_UDP,
                                   .source_port = 53,
                                   .destination_port = local->port,
                                   .payload = payload};
}

static enum err receive(struct fixture *fixture, struct flow flow, struct span *ret_octets)
{
    struct flow_address from;
    return flow_receive_datagram(fixture->plane, flow, &from, ret_octets);
}

/* ---- back and forth ---- */

static void test_exchange(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        struct fixture *fixture = fixture_usual();
        struct flow_address local, from;
        struct flow_event event;
        struct span octets;
        struct flow flow = open_flow(fixture, both_ends[i], &local);
        uint8_t frame[256];

        struct fixture_packet packet = answer_to(both_ends[i], &local, SPAN_LITERAL("answer"));
        fixture_inject(fixture, 0, span_of(frame, fixture_build(&packet, frame)));
        assert_int_equal(1, fixture_turn(fixture, &event, 1));
        assert_int_equal(USER, event.user);
        assert_int_equal(FLOW_READABLE, event.events);
        assert_int_equal(0, fixture_turn(fixture, &event, 1)); /* looked at, not taken */
        assert_int_equal(ERR_OK, flow_receive_datagram(fixture->plane, flow, &from, &octets));
        assert_true(span_is_equal(SPAN_LITERAL("answer"), octets));
        assert_true(fixture_ip_is(from.ip, both_ends[i]->remote));
        assert_int_equal(53, from.port);
        assert_int_equal(1, fixture_turn(fixture, &event, 1)); /* there may be more */
        assert_int_equal(ERR_AGAIN, receive(fixture, flow, &octets));
        assert_int_equal(0, fixture_turn(fixture, &event, 1));
        struct flow_stats stats = flow_plane_stats(fixture->plane);
        assert_int_equal(1, stats.datagrams_sent);
        assert_int_equal(1, stats.datagrams_received);
        flow_close(fixture->plane, flow);
        assert_int_equal(ERR_STALE, receive(fixture, flow, &octets));
        assert_int_equal(ERR_STALE, flow_send_datagram(fixture->plane, flow, octets));
        assert_int_equal(ERR_STALE, flow_addresses(fixture->plane, flow, &local, &from));
        const struct stack_usage usage = stack_get_usage(fixture->stack);
        assert_int_equal(0, usage.datagram_flows + usage.destinations + usage.neighbours +
                                usage.armed_timers + usage.frames_waiting + usage.connections);
        assert_true(usage.memory > 0);
        fixture_free(fixture);
    }
}

/* Every size, in one buffer and several, both ways, with the checksum by us or by the nic. */
static void test_sizes(void **state)
{
    static const uint32_t sizes[] = {0, 1, 2, 247, 248, 249, 1000, 1452, 1472, 2296, 2297, 4096};
    static uint8_t data[FLOW_DATAGRAM_SIZE_MAX];

    (void)state;
    for (uint32_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7 + i / 256);
    for (uint32_t i = 0; i < COUNT_OF(sizes) * 8; i++) {
        struct fixture_options options = fixture_defaults();
        const struct ends *ends = both_ends[i % 2];
        uint32_t size = sizes[i / 8];
        options.nic_mtu = options.mtu = 4200;
        options.pool_size = 4200;
        options.offloads = i & 2 ? NIC_TX_MULTI_SEGMENT : 0;
        options.offloads |= i & 4 ? NIC_TX_UDP_CHECKSUM | NIC_TX_IP4_CHECKSUM : 0;
        struct fixture *fixture = fixture_new(&options);
        struct flow_address local;
        struct span octets;
        struct flow flow = open_flow(fixture, ends, &local);

        assert_int_equal(ERR_OK, flow_send_datagram(fixture->plane, flow, span_of(data, size)));
        fixture_turn(fixture, NULL, 0);
        struct fixture_view view = fixture_take(fixture, 0); /* its checksums are looked at */
        assert_int_equal(UDP_HEADER_SIZE + size, view.l4.size);
        assert_memory_equal(data, view.l4.data + UDP_HEADER_SIZE, size);
        assert_int_equal(view.l4.size, load_be16(view.l4.data + 4));
        assert_true(options.offloads & NIC_TX_MULTI_SEGMENT || view.frame->segments == 1);

        struct fixture_packet packet = answer_to(ends, &local, span_of(data, size));
        uint8_t frame[FIXTURE_FRAME_SIZE];
        uint32_t frame_size = fixture_build(&packet, frame);
        fixture_inject_pieces(fixture, 0, span_of(frame, frame_size),
                              i & 2 ? FIXTURE_FRAME_SIZE : 333, BUF_HEADROOM);
        fixture_turn(fixture, NULL, 0);
        assert_int_equal(ERR_OK, receive(fixture, flow, &octets));
        assert_true(span_is_equal(span_of(data, size), octets));
        fixture_free(fixture);
    }
}

static void test_offload_request(void **state)
{
    struct fixture_options options = fixture_defaults();

    (void)state;
    options.offloads |= NIC_TX_UDP_CHECKSUM | NIC_TX_IP4_CHECKSUM;
    options.vlan = 5;
    for (uint32_t i = 0; i < 2; i++) {
        struct fixture *fixture = fixture_new(&options);
        struct flow_address remote = fixture_address(i == 0 ? "192.0.2.10" : "2001:db8::10", 53);
        struct flow flow;
        struct rte_mbuf asked;
        assert_int_equal(ERR_OK, flow_open_datagram(fixture->plane, NULL, &remote, USER, &flow));
        struct stack *stack = fixture->stack;
        struct destination *destination = destination_acquire(stack, remote.family, remote.ip);
        destination->resolved_until = TICK_NEVER; /* as if its next hop were known */
        destination->l2_size = ETHERNET_HEADER_SIZE + ETHERNET_VLAN_SIZE;
        destination->l2_generation = stack->link_generation;
        const struct ethernet_header header = {.type = i == 0 ? ETHERTYPE_IP4 : ETHERTYPE_IP6,
                                               .vlan = 5};
        ethernet_build(&header, destination->l2_header);
        assert_int_equal(ERR_OK, flow_send_datagram(fixture->plane, flow, SPAN_LITERAL("x")));
        fixture_turn(fixture, NULL, 0);
        struct fixture_view view = fixture_take(fixture, 0);
        uint64_t flags = i == 0 ? RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM : RTE_MBUF_F_TX_IPV6;
        assert_int_equal(flags | RTE_MBUF_F_TX_UDP_CKSUM, view.frame->ol_flags);
        asked.tx_offload = view.frame->tx_offload;
        assert_int_equal(18, asked.l2_len);
        assert_int_equal(i == 0 ? 20 : 40, asked.l3_len);
        assert_int_equal(8, asked.l4_len);
        assert_int_equal(0, asked.tso_segsz);
        assert_int_equal(5, view.ethernet.vlan);
        destination_release(stack, destination);
        fixture_free(fixture);
    }
}

/* ---- checksums ---- */

static void test_checksum(void **state)
{
    static const struct {
        const struct ends *ends;
        uint16_t change; /* of the field; 0xffff: set it to zero */
        bool is_nic_sure, is_taken;
    } rows[] = {
        {&ends4, 0, false, true},  {&ends6, 0, false, true},      {&ends4, 1, false, false},
        {&ends6, 1, false, false}, {&ends4, 0xffff, false, true}, {&ends6, 0xffff, false, false},
        {&ends4, 1, true, true},   {&ends6, 1, true, true},       {&ends6, 0xffff, true, false},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture_options options = fixture_defaults();
        options.offloads |= NIC_RX_CHECKSUM;
        struct fixture *fixture = fixture_new(&options);
        struct flow_address local;
        struct span octets;
        struct flow flow = open_flow(fixture, rows[i].ends, &local);
        struct fixture_packet packet = answer_to(rows[i].ends, &local, SPAN_LITERAL("answer"));
        uint8_t frame[256];
        uint32_t size = fixture_build(&packet, frame);
        uint8_t *field = frame + size - 6 - 2;
        store_be16(field,
                   rows[i].change == 0xffff ? 0 : (uint16_t)(load_be16(field) ^ rows[i].change));
        fixture_inject(fixture, 0, span_of(frame, size));
        if (rows[i].is_nic_sure)
            fixture->nics[0].arriving[0]->mbuf.ol_flags = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
        fixture_turn(fixture, NULL, 0);
        assert_int_equal(rows[i].is_taken ? ERR_OK : ERR_AGAIN, receive(fixture, flow, &octets));
        assert_int_equal(!rows[i].is_taken, COUNTER(fixture, UDP_CHECKSUM));
        fixture_free(fixture);
    }
}

/* RFC 768: where the sum is 0, the field says 65535. */
static void test_zero_sum_is_sent_as_ones(void **state)
{
    struct fixture *fixture = fixture_usual();
    struct flow_address local;
    uint32_t seen = 0;

    (void)state;
    struct flow flow = open_flow(fixture, &ends4, &local);
    for (uint32_t value = 0; value <= UINT16_MAX && seen == 0; value++) {
        uint8_t octets[2];
        store_be16(octets, (uint16_t)value);
        assert_int_equal(ERR_OK, flow_send_datagram(fixture->plane, flow, span_of(octets, 2)));
        fixture_turn(fixture, NULL, 0);
        struct fixture_view view = fixture_take(fixture, 0);
        assert_int_not_equal(0, load_be16(view.l4.data + 6));
        seen += load_be16(view.l4.data + 6) == UINT16_MAX;
        fixture_forget(fixture, 0);
    }
    assert_int_equal(1, seen);
    fixture_free(fixture);
}

/* Octets behind what the UDP header says are none of the datagram (and not of its checksum). */
static void test_octets_behind_the_datagram(void **state)
{
    struct fixture *fixture = fixture_usual();
    struct flow_address local;
    struct span octets;
    struct flow flow = open_flow(fixture, &ends4, &local);
    struct fixture_packet packet = answer_to(&ends4, &local, SPAN_LITERAL("answer"));
    uint8_t frame[256] = {0};
    uint32_t size = fixture_build(&packet, frame);

    (void)state;
    memcpy(frame + size, "garbage", 7);
    store_be16(frame + 16, (uint16_t)(size - 14 + 7));
    store_be16(frame + 24, 0);
    uint16_t checksum = wire_sum_finish(wire_sum(frame + 14, 20));
    memcpy(frame + 24, &checksum, 2);
    fixture_inject(fixture, 0, span_of(frame, size + 7));
    fixture_turn(fixture, NULL, 0);
    assert_int_equal(ERR_OK, receive(fixture, flow, &octets));
    assert_true(span_is_equal(SPAN_LITERAL("answer"), octets));
    fixture_free(fixture);
}

/* ---- who may speak to a flow ---- */

static void test_only_the_remote_is_heard(void **state)
{
    static const struct {
        const char *source;
        uint16_t source_port;
        bool is_taken;
    } rows[] = {
        {"198.51.100.53", 53, true}, {"198.51.100.53", 54, false}, {"198.51.100.54", 53, false}};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture *fixture = fixture_usual();
        struct flow_address local;
        struct span octets;
        struct flow flow = open_flow(fixture, &ends4, &local);
        struct fixture_packet packet = answer_to(&ends4, &local, SPAN_LITERAL("answer"));
        packet.source = rows[i].source;
        packet.source_port = rows[i].source_port;
        fixture_input(fixture, &packet);
        assert_int_equal(rows[i].is_taken ? ERR_OK : ERR_AGAIN, receive(fixture, flow, &octets));
        assert_int_equal(!rows[i].is_taken, COUNTER(fixture, UDP_OTHER_REMOTE));
        assert_int_equal(!rows[i].is_taken, flow_plane_stats(fixture->plane).datagrams_dropped);
        assert_int_equal(0, fixture_sent_count(fixture, 0)); /* no answer tells of the port */
        fixture_free(fixture);
    }
}

static void test_malformed(void **state)
{
    static const struct {
        const char *name;
        uint32_t at; /* in the UDP header */
        uint16_t value;
    } rows[] = {{"size below a header", 4, 7}, {"size beyond the packet", 4, 15}, {"port 0", 2, 0}};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture *fixture = fixture_usual();
        struct flow_address local = {.port = 9};
        struct fixture_packet packet = answer_to(&ends4, &local, SPAN_LITERAL("answer"));
        uint8_t frame[256];
        uint32_t size = fixture_build(&packet, frame);
        store_be16(frame + 34 + rows[i].at, rows[i].value);
        store_be16(frame + 34 + 6, 0);
        fixture_inject(fixture, 0, span_of(frame, size));
        fixture_turn(fixture, NULL, 0);
        if (COUNTER(fixture, UDP_MALFORMED) != 1)
            fail_msg("%s", rows[i].name);
        fixture_free(fixture);
    }
}

/* ---- opening ---- */

static void test_open_errors(void **state)
{
    static const struct {
        const char *name, *local, *remote;
        uint16_t local_port, remote_port;
        enum err err;
    } rows[] = {
        {"any", NULL, "198.51.100.53", 0, 53, ERR_OK},
        {"any with a port", "0.0.0.0", "198.51.100.53", 4000, 53, ERR_OK},
        {"ours", "192.0.2.1", "198.51.100.53", 0, 53, ERR_OK},
        {"not ours", "192.0.2.2", "198.51.100.53", 0, 53, ERR_SYSTEM},
        {"of the other family", "2001:db8::1", "198.51.100.53", 0, 53, ERR_SYSTEM},
        {"to port 0", NULL, "198.51.100.53", 0, 0, ERR_SYSTEM},
        {"to a group", NULL, "224.0.0.1", 0, 53, ERR_SYSTEM},
        {"to ourselves", NULL, "192.0.2.1", 0, 53, ERR_SYSTEM},
        {"to nowhere", NULL, "0.0.0.0", 0, 53, ERR_SYSTEM},
        {"IPv6", NULL, "2001:db9::53", 0, 53, ERR_OK},
        {"IPv6 to all nodes", NULL, "ff02::1", 0, 53, ERR_SYSTEM},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture *fixture = fixture_usual();
        struct flow_address local = {0}, bound, peer;
        struct flow_address remote = fixture_address(rows[i].remote, rows[i].remote_port);
        struct flow flow;
        if (rows[i].local != NULL)
            local = fixture_address(rows[i].local, rows[i].local_port);
        enum err err = flow_open_datagram(fixture->plane, rows[i].local == NULL ? NULL : &local,
                                          &remote, USER, &flow);
        if (err != rows[i].err)
            fail_msg("%s: %s", rows[i].name, err_name(err));
        if (err == ERR_OK) {
            assert_int_equal(ERR_OK, flow_addresses(fixture->plane, flow, &bound, &peer));
            if (rows[i].local_port != 0)
                assert_int_equal(rows[i].local_port, bound.port);
        }
        assert_int_equal(err == ERR_OK, stack_get_usage(fixture->stack).destinations);
        fixture_free(fixture);
    }
}

static void test_port_is_taken_once(void **state)
{
    struct fixture *fixture = fixture_usual();
    struct flow_address one = fixture_address("198.51.100.53", 53);
    struct flow_address two = fixture_address("198.51.100.54", 53);
    struct flow_address local = fixture_address("192.0.2.1", 4000);
    struct flow a, b;

    (void)state;
    assert_int_equal(ERR_OK, flow_open_datagram(fixture->plane, &local, &one, USER, &a));
    assert_int_equal(ERR_SYSTEM, flow_open_datagram(fixture->plane, &local, &two, USER, &b));
    flow_close(fixture->plane, a);
    assert_int_equal(ERR_OK, flow_open_datagram(fixture->plane, &local, &two, USER, &b));
    fixture_free(fixture);
}

static void test_limits(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        struct fixture_options options = fixture_defaults();
        options.flow_count_max = i == 0 ? 3 : 100;
        options.destination_max = i == 0 ? 100 : 3;
        struct fixture *fixture = fixture_new(&options);
        struct flow flow[4];
        for (uint8_t j = 0; j < 4; j++) {
            struct flow_address remote = fixture_address("198.51.100.0", 53);
            remote.ip[3] = j;
            assert_int_equal(j < 3 ? ERR_OK : ERR_LIMIT,
                             flow_open_datagram(fixture->plane, NULL, &remote, USER, &flow[j]));
        }
        assert_int_equal(3, stack_get_usage(fixture->stack).destinations);
        flow_close(fixture->plane, flow[0]);
        struct flow_address remote = fixture_address("198.51.100.77", 53);
        assert_int_equal(ERR_OK, flow_open_datagram(fixture->plane, NULL, &remote, USER, flow));
        fixture_free(fixture);
    }
}

/* All ports of our queue are used, those of others never, whichever way frames are steered. */
static void test_ports_land_on_our_queue(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        struct fixture_options options = fixture_defaults();
        const struct ends *ends = both_ends[i];
        uint16_t least = UINT16_MAX, most = 0, queue;
        options.queue_count = options.core_count = 8;
        options.core = 5;
        options.is_hardware = i == 0;
        struct fixture *fixture = fixture_new(&options);
        struct flow_address remote = fixture_address(ends->remote, 53), local, peer;
        for (uint32_t j = 0; j < 500; j++) {
            struct flow flow;
            assert_int_equal(ERR_OK,
                             flow_open_datagram(fixture->plane, NULL, &remote, USER, &flow));
            assert_int_equal(ERR_OK, flow_addresses(fixture->plane, flow, &local, &peer));
            assert_false(stack_is_foreign(fixture->stack, &fixture->stack->ports[0], remote.family,
                                          remote.ip, local.ip, 53, local.port, &queue));
            least = local.port < least ? local.port : least;
            most = local.port > most ? local.port : most;
        }
        assert_in_range(least, 1024, 2500);
        assert_in_range(most, 64000, 65535);
        /* A port that was asked for and is another core's cannot be had. */
        uint32_t refused = 0;
        for (uint16_t port = 5000; port < 5100; port++) {
            struct flow flow;
            local.port = port;
            bool is_foreign =
                stack_is_foreign(fixture->stack, &fixture->stack->ports[0], remote.family,
                                 remote.ip, local.ip, 53, port, &queue);
            enum err err = flow_open_datagram(fixture->plane, &local, &remote, USER, &flow);
            assert_true(err == ERR_SYSTEM || !is_foreign);
            refused += err == ERR_SYSTEM;
        }
        assert_in_range(refused, 60, 99);
        fixture_free(fixture);
    }
}

/* Replies come to the port of our address, wherever the question went out. */
static void test_steering_of_the_local_port(void **state)
{
    struct fixture_options options = fixture_defaults();

    (void)state;
    options.port_count = 2;
    options.queue_count = options.core_count = 2;
    struct fixture *fixture = fixture_new(&options);
    struct nic_steering *steering = &fixture->nics[1].nic.steering;
    for (uint32_t i = 0; i < steering->reta_size; i++)
        steering->reta[i] = 1; /* all that comes in by it is the other core's */
    struct flow_address remote = fixture_address(ends4.remote, 53);
    struct flow_address local = fixture_address("10.1.0.1", 0);
    struct flow flow;
    assert_int_equal(ERR_SYSTEM, flow_open_datagram(fixture->plane, &local, &remote, USER, &flow));
    local = fixture_address(ends4.us, 0);
    assert_int_equal(ERR_OK, flow_open_datagram(fixture->plane, &local, &remote, USER, &flow));
    fixture_free(fixture);
}

/* ---- queue and buffers ---- */

static void test_queue_is_bounded(void **state)
{
    struct fixture *fixture = fixture_usual();
    struct flow_address local;
    struct span octets;
    struct flow flow = open_flow(fixture, &ends4, &local);

    (void)state;
    for (uint8_t i = 0; i < 20; i++) {
        struct fixture_packet packet = answer_to(&ends4, &local, span_of(&i, 1));
        fixture_input(fixture, &packet);
    }
    assert_int_equal(4, COUNTER(fixture, UDP_QUEUE_FULL));
    assert_int_equal(4, flow_plane_stats(fixture->plane).datagrams_dropped);
    assert_int_equal(16, buf_pool_in_use(fixture->receive_pool));
    for (uint32_t i = 0; i < 16; i++) {
        assert_int_equal(ERR_OK, receive(fixture, flow, &octets));
        assert_int_equal(i, octets.data[0]);
    }
    assert_int_equal(ERR_AGAIN, receive(fixture, flow, &octets));
    struct fixture_packet packet = answer_to(&ends4, &local, SPAN_LITERAL("next"));
    fixture_input(fixture, &packet);
    assert_int_equal(ERR_OK, receive(fixture, flow, &octets));
    fixture_input(fixture, &packet);
    flow_close(fixture->plane, flow); /* with one unread */
    assert_int_equal(0, buf_pool_in_use(fixture->receive_pool));
    fixture_free(fixture);
}

/* When the nics' buffers run low, what waits is copied into ours. */
static void test_receive_reserve(void **state)
{
    struct fixture_options options = fixture_defaults();

    (void)state;
    options.receive_reserve = 254; /* of 256 */
    options.pool_size = 64;
    options.segments_max = 32; /* of such buffers a frame can still be made */
    struct fixture *fixture = fixture_new(&options);
    struct flow_address local;
    struct span octets;
    struct flow flow = open_flow(fixture, &ends4, &local);
    uint8_t large[65] = {0};
    for (uint32_t i = 0; i < 4; i++) {
        struct fixture_packet packet = answer_to(&ends4, &local, SPAN_LITERAL("answer"));
        fixture_input(fixture, &packet);
    }
    assert_int_equal(2, buf_pool_in_use(fixture->receive_pool));
    assert_int_equal(2, flow_plane_stats(fixture->plane).copies);
    struct fixture_packet packet = answer_to(&ends4, &local, span_of(large, sizeof(large)));
    fixture_input(fixture, &packet); /* larger than a buffer of ours */
    assert_int_equal(1, COUNTER(fixture, UDP_NO_BUFFER));
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(ERR_OK, receive(fixture, flow, &octets));
        assert_true(span_is_equal(SPAN_LITERAL("answer"), octets));
    }
    fixture_free(fixture);
}

static void test_send_errors(void **state)
{
    struct fixture_options options = fixture_defaults();
    static uint8_t data[2000];

    (void)state;
    options.header_pool_max = 8;
    struct fixture *fixture = fixture_new(&options);
    struct flow_address local;
    struct flow flow = open_flow(fixture, &ends4, &local);
    assert_int_equal(ERR_PEER_UNREACHABLE,
                     flow_send_datagram(fixture->plane, flow, span_of(data, 1473)));
    assert_int_equal(1, COUNTER(fixture, UDP_TOO_LARGE));
    assert_int_equal(ERR_OK, flow_send_datagram(fixture->plane, flow, span_of(data, 1472)));
    fixture->nics[0].room = 0;
    for (uint32_t i = 0; i < 7; i++)
        assert_int_equal(ERR_OK, flow_send_datagram(fixture->plane, flow, span_of(data, 1)));
    assert_int_equal(ERR_AGAIN, flow_send_datagram(fixture->plane, flow, span_of(data, 1)));
    assert_int_equal(1, COUNTER(fixture, SEND_NO_BUFFER));
    fixture_free(fixture);
}

/* ---- what ICMP tells ---- */

static void icmp_input_error(struct fixture *fixture, const struct ends *ends,
                             const struct flow_address *local, uint8_t type, uint8_t code,
                             uint32_t rest, uint16_t remote_port)
{
    const struct fixture_packet quoted = {.source = ends->us,
                                          .destination = ends->remote,
                                          .protocol = IP_PROTOCOL_UDP,
                                          .source_port = local->port,
                                          .destination_port = remote_port,
                                          .payload = SPAN_LITERAL("query"),
                                          .is_l3 = true};
    uint8_t message[256] = {type, code};
    uint32_t size = 8 + fixture_build(&quoted, message + 8);

    store_be32(message + 4, rest);
    fixture_input(fixture, &(struct fixture_packet){
                               .source = ends->router,
                               .destination = ends->us,
                               .from = fixture_router_mac,
                               .protocol = ends->family == 4 ? IP_PROTOCOL_ICMP : IP_PROTOCOL_ICMP6,
                               .payload = span_of(message, size)});
}

static void test_icmp_errors(void **state)
{
    static const struct {
        const struct ends *ends;
        uint8_t type, code;
        uint32_t rest;
        uint16_t remote_port;
        bool is_told, is_unknown;
        uint16_t mtu;
    } rows[] = {
        {&ends4, ICMP_UNREACHABLE4, 3, 0, 53, true, false, 1500},
        {&ends4, ICMP_UNREACHABLE4, 1, 0, 53, true, false, 1500},
        {&ends4, ICMP_UNREACHABLE4, 13, 0, 53, true, false, 1500},
        {&ends4, ICMP_UNREACHABLE4, 3, 0, 54, false, true, 1500},
        {&ends4, ICMP_UNREACHABLE4, 4, 1400, 53, false, false, 1400},
        {&ends4, ICMP_UNREACHABLE4, 4, 551, 53, false, false, 1500},
        {&ends4, ICMP_TIME_EXCEEDED4, 0, 0, 53, false, false, 1500},
        {&ends6, ICMP_UNREACHABLE6, 4, 0, 53, true, false, 1500},
        {&ends6, ICMP_UNREACHABLE6, 4, 0, 54, false, true, 1500},
        {&ends6, ICMP_PACKET_TOO_BIG6, 0, 1280, 53, false, false, 1280},
        {&ends6, ICMP_PACKET_TOO_BIG6, 0, 1279, 53, false, false, 1500},
        {&ends6, ICMP_PARAMETER6, 0, 0, 53, false, false, 1500},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture *fixture = fixture_usual();
        struct flow_address local, remote = fixture_address(rows[i].ends->remote, 53);
        struct span octets;
        struct flow flow = open_flow(fixture, rows[i].ends, &local);
        icmp_input_error(fixture, rows[i].ends, &local, rows[i].type, rows[i].code, rows[i].rest,
                         rows[i].remote_port);
        assert_int_equal(rows[i].is_unknown, COUNTER(fixture, UDP_ERROR_UNKNOWN));
        assert_int_equal(rows[i].is_told ? ERR_PEER_UNREACHABLE : ERR_AGAIN,
                         receive(fixture, flow, &octets));
        assert_int_equal(ERR_AGAIN, receive(fixture, flow, &octets)); /* once */
        struct destination *destination =
            destination_acquire(fixture->stack, remote.family, remote.ip);
        assert_int_equal(rows[i].mtu, destination_mtu(fixture->stack, destination));
        destination_release(fixture->stack, destination);
        fixture_free(fixture);
    }
}

/* More flows than the table of buckets began with, found and closed in any order. */
static void test_many_flows(void **state)
{
    static struct flow flows[1000];
    static struct flow_address locals[1000];
    struct fixture *fixture = fixture_usual();
    struct flow_address remote = fixture_address(ends4.remote, 53), peer;
    struct span octets;

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(flows); i++) {
        assert_int_equal(ERR_OK,
                         flow_open_datagram(fixture->plane, NULL, &remote, USER, &flows[i]));
        assert_int_equal(ERR_OK, flow_addresses(fixture->plane, flows[i], &locals[i], &peer));
    }
    stack_verify(fixture->stack);
    for (uint32_t i = 0; i < COUNT_OF(flows); i += 97) {
        struct fixture_packet packet = answer_to(&ends4, &locals[i], SPAN_LITERAL("answer"));
        fixture_input(fixture, &packet);
        assert_int_equal(ERR_OK, receive(fixture, flows[i], &octets));
    }
    for (uint32_t i = 0; i < COUNT_OF(flows); i++)
        flow_close(fixture->plane, flows[i * 7 % COUNT_OF(flows)]);
    stack_verify(fixture->stack);
    assert_int_equal(0, stack_get_usage(fixture->stack).datagram_flows);
    fixture_free(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exchange),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_offload_request),
        cmocka_unit_test(test_checksum),
        cmocka_unit_test(test_zero_sum_is_sent_as_ones),
        cmocka_unit_test(test_octets_behind_the_datagram),
        cmocka_unit_test(test_only_the_remote_is_heard),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_open_errors),
        cmocka_unit_test(test_port_is_taken_once),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_ports_land_on_our_queue),
        cmocka_unit_test(test_steering_of_the_local_port),
        cmocka_unit_test(test_queue_is_bounded),
        cmocka_unit_test(test_receive_reserve),
        cmocka_unit_test(test_send_errors),
        cmocka_unit_test(test_icmp_errors),
        cmocka_unit_test(test_many_flows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

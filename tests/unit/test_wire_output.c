/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets on their way out: headers, offloads, frames of too many buffers, a nic that refuses,
 * answers without a destination.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
/* cmocka.h wants the ones above first. */
#include <cmocka.h>

#include "tests/unit/wire_fixture.h"

static struct fixture *fixture_usual(void)
{
    const struct fixture_options options = fixture_defaults();
    return fixture_new(&options);
}

static struct destination *acquire(struct fixture *fixture, const char *ip)
{
    struct flow_address address = fixture_address(ip, 0);
    return destination_acquire(fixture->stack, address.family, address.ip);
}

/* A destination whose next hop answered. */
static struct destination *acquire_resolved(struct fixture *fixture, const char *ip)
{
    struct destination *destination = acquire(fixture, ip);
    struct flow_address remote = fixture_address(ip, 53);
    struct flow flow;

    assert_non_null(destination);
    assert_int_equal(ERR_OK, flow_open_datagram(fixture->plane, NULL, &remote, 1, &flow));
    assert_int_equal(ERR_OK, flow_send_datagram(fixture->plane, flow, SPAN_LITERAL("x")));
    fixture_turn(fixture, NULL, 0);
    if (remote.ip[0] == 192 && remote.ip[3] != 254)
        fixture_answer(fixture, ip, fixture_peer_mac);
    else
        fixture_answer(fixture, remote.family == 4 ? "192.0.2.254" : "2001:db8::fe",
                       fixture_router_mac);
    flow_close(fixture->plane, flow);
    fixture_forget(fixture, 0);
    return destination;
}

/* `count` buffers of `size` octets each, numbered through; the first has a TCP header in front. */
static struct buf *chain_new(struct fixture *fixture, uint32_t count, uint32_t size)
{
    struct buf *head = buf_acquire(fixture->header_pool), *last = head;
    uint32_t at = 0;

    assert_non_null(head);
    memset(buf_data(head), 0, TCP_HEADER_SIZE);
    buf_extend(head, TCP_HEADER_SIZE);
    for (uint32_t i = 0; i < count; i++) {
        struct buf *buf = buf_acquire(fixture->pool);
        assert_non_null(buf);
        for (uint32_t j = 0; j < size; j++, at++)
            buf_data(buf)[j] = (uint8_t)(at % 251);
        buf_extend(buf, size);
        last->mbuf.next = &buf->mbuf;
        last = buf;
        head->mbuf.nb_segs++;
    }
    head->mbuf.pkt_len = TCP_HEADER_SIZE + count * size;
    return head;
}

static void send_tcp_keeping(struct fixture *fixture, struct destination *destination,
                             struct buf *packet, uint16_t tso_size, struct ip_train *train)
{
    const uint8_t us4[16] = {192, 0, 2, 1};
    const struct ip_send send = {
        .train = train,
        .source = destination->family == 4 ? us4 : fixture->stack->locals[1].address.address.ip,
        .protocol = IP_PROTOCOL_TCP,
        .ecn = 2,
        .l4_header_size = TCP_HEADER_SIZE,
        .tso_size = tso_size};
    ip_output(fixture->stack, destination, &send, packet);
}

static void send_tcp(struct fixture *fixture, struct destination *destination, struct buf *packet,
                     uint16_t tso_size)
{
    send_tcp_keeping(fixture, destination, packet, tso_size, NULL);
}

static void expect_payload(const struct fixture_view *view, uint32_t size)
{
    assert_int_equal(TCP_HEADER_SIZE + size, view->l4.size);
    for (uint32_t i = 0; i < size; i++)
        assert_int_equal(i % 251, view->l4.data[TCP_HEADER_SIZE + i]);
}

/* ---- headers ---- */

static void test_headers(void **state)
{
    static const char *const remotes[] = {"198.51.100.7", "2001:db9::7"};

    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        struct fixture_options options = fixture_defaults();
        options.vlan = i < 2 ? 0 : 4094;
        struct fixture *fixture = fixture_new(&options);
        struct destination *destination = acquire(fixture, remotes[i % 2]);
        /* The next hop learns its place without the fixture's untagged frames. */
        struct stack_news news = {.kind = STACK_NEWS_NEIGHBOUR,
                                  .address = {.family = destination->family}};
        memcpy(news.address.ip, destination->next_hop, 16);
        memcpy(news.mac, fixture_router_mac, 6);
        send_tcp(fixture, destination, chain_new(fixture, 1, 100), 0);
        stack_on_news(fixture->stack, &news);
        fixture_turn(fixture, NULL, 0);
        fixture_take(fixture, 0);          /* the question */
        for (uint32_t j = 0; j < 3; j++) { /* waited; looked up; by the header that is kept */
            struct fixture_view view = fixture_take(fixture, 0);
            assert_memory_equal(fixture_mac, view.ethernet.source, 6);
            assert_memory_equal(fixture_router_mac, view.ethernet.destination, 6);
            assert_int_equal(options.vlan, view.ethernet.vlan);
            assert_int_equal(64, view.ip.ttl);
            assert_int_equal(2, view.ip.traffic_class);
            assert_int_equal(i % 2 == 0, view.ip.is_dont_fragment);
            assert_true(fixture_ip_is(view.ip.destination, remotes[i % 2]));
            assert_true(fixture_ip_is(view.ip.source, i % 2 == 0 ? "192.0.2.1" : "2001:db8::1"));
            expect_payload(&view, 100);
            send_tcp(fixture, destination, chain_new(fixture, 1, 100), 0);
            fixture_turn(fixture, NULL, 0);
        }
        assert_true(destination->resolved_until > fixture->now);
        destination_release(fixture->stack, destination);
        fixture_free(fixture);
    }
}

static void test_offloads(void **state)
{
    static const struct {
        uint32_t offloads;
        uint16_t tso_size;
        uint64_t flags4, flags6;
    } rows[] = {
        {0, 0, 0, 0},
        {NIC_TX_IP4_CHECKSUM, 0, RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM, 0},
        {NIC_TX_TCP_CHECKSUM, 0, RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_TCP_CKSUM,
         RTE_MBUF_F_TX_IPV6 | RTE_MBUF_F_TX_TCP_CKSUM},
        {NIC_TX_TCP_CHECKSUM | NIC_TX_TSO, 1000,
         RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_TCP_CKSUM |
             RTE_MBUF_F_TX_TCP_SEG,
         RTE_MBUF_F_TX_IPV6 | RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_TCP_SEG},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows) * 2; i++) {
        struct fixture_options options = fixture_defaults();
        bool is_ip4 = i % 2 == 0;
        options.offloads |= rows[i / 2].offloads;
        struct fixture *fixture = fixture_new(&options);
        struct destination *destination =
            acquire_resolved(fixture, is_ip4 ? "198.51.100.7" : "2001:db9::7");
        uint16_t tso_size = rows[i / 2].tso_size;
        send_tcp(fixture, destination, chain_new(fixture, tso_size > 0 ? 4 : 1, 1000), tso_size);
        fixture_turn(fixture, NULL, 0);
        struct fixture_view view = fixture_take(fixture, 0);
        struct rte_mbuf asked;
        asked.tx_offload = view.frame->tx_offload;
        assert_int_equal(is_ip4 ? rows[i / 2].flags4 : rows[i / 2].flags6, view.frame->ol_flags);
        assert_int_equal(tso_size, asked.tso_segsz);
        if (view.frame->ol_flags != 0) {
            assert_int_equal(14, asked.l2_len);
            assert_int_equal(is_ip4 ? 20 : 40, asked.l3_len);
            assert_int_equal(20, asked.l4_len);
        }
        destination_release(fixture->stack, destination);
        fixture_free(fixture);
    }
}

/* The same packet by the headers of the one before it, whose octets are behind them. */
static void send_in_train(struct fixture *fixture, struct destination *destination,
                          struct ip_train *train, uint32_t size)
{
    struct buf *chain = chain_new(fixture, 1, size), *head = buf_acquire(fixture->header_pool);
    uint32_t l4_size = chain->mbuf.pkt_len;

    assert_non_null(head);
    assert_int_equal(TCP_HEADER_SIZE, train->size - train->l4_offset);
    uint8_t *l4 = buf_data(head);
    assert_ptr_equal(l4, ip_train_begin(train, head, head->mbuf.data_off + TCP_HEADER_SIZE));
    head->mbuf.next = chain->mbuf.next;
    head->mbuf.nb_segs = 2;
    head->mbuf.pkt_len = buf_size(head) + size;
    chain->mbuf.next = NULL;
    buf_release(chain);
    ip_train_send(fixture->stack, destination, train, (uint16_t)l4_size, head);
}

static void train_compare(struct fixture *fixture, struct destination *destination,
                          struct ip_train *train, uint32_t size)
{
    send_tcp(fixture, destination, chain_new(fixture, 1, size), 0);
    send_in_train(fixture, destination, train, size);
    fixture_turn(fixture, NULL, 0);
    struct fixture_frame *wanted = fixture_take(fixture, 0).frame;
    struct fixture_frame *frame = fixture_take(fixture, 0).frame;
    assert_int_equal(wanted->size, frame->size);
    assert_memory_equal(wanted->octets, frame->octets, frame->size);
    assert_int_equal(wanted->ol_flags, frame->ol_flags);
    assert_int_equal(wanted->tx_offload, frame->tx_offload);
}

static void test_a_train_is_its_packets(void **state)
{
    static const char *const remotes[] = {"192.0.2.9", "198.51.100.7", "2001:db9::7"};
    static const uint32_t offloads[] = {0, NIC_TX_IP4_CHECKSUM, NIC_TX_TCP_CHECKSUM,
                                        NIC_TX_IP4_CHECKSUM | NIC_TX_TCP_CHECKSUM | NIC_TX_TSO};
    static const uint32_t sizes[] = {1000, 999, 1};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(remotes) * COUNT_OF(offloads) * COUNT_OF(sizes); i++) {
        uint32_t size = sizes[i / (COUNT_OF(remotes) * COUNT_OF(offloads))];
        struct fixture_options options = fixture_defaults();
        struct ip_train train = {.size = 0};
        options.offloads |= offloads[i / COUNT_OF(remotes) % COUNT_OF(offloads)];
        struct fixture *fixture = fixture_new(&options);
        struct destination *destination = acquire_resolved(fixture, remotes[i % COUNT_OF(remotes)]);
        send_tcp(fixture, destination, chain_new(fixture, 1, 100), 0);
        fixture_turn(fixture, NULL, 0);
        fixture_forget(fixture, 0);
        send_tcp_keeping(fixture, destination, chain_new(fixture, 1, 1000), 0, &train);
        fixture_turn(fixture, NULL, 0);
        fixture_forget(fixture, 0);
        for (uint32_t j = 0; j < 3; j++) /* as long as the one before it, and not */
            train_compare(fixture, destination, &train, j < 2 ? size : 500);
        destination_release(fixture->stack, destination);
        fixture_free(fixture);
    }
}

/* Goal: while nobody knows where the next hop is, no headers are kept. */
static void test_no_train_without_a_link(void **state)
{
    struct fixture *fixture = fixture_usual();
    struct destination *destination = acquire(fixture, "192.0.2.9");
    struct ip_train train = {.size = 0};

    (void)state;
    send_tcp_keeping(fixture, destination, chain_new(fixture, 1, 100), 0, &train);
    assert_int_equal(0, train.size);
    fixture_turn(fixture, NULL, 0);
    fixture_forget(fixture, 0);
    fixture_answer(fixture, "192.0.2.9", fixture_peer_mac);
    destination_release(fixture->stack, destination);
    fixture_free(fixture);
}

static void test_size_bounds(void **state)
{
    static const char *const remotes[] = {"198.51.100.7", "2001:db9::7"};

    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        struct fixture *fixture = fixture_usual();
        struct destination *destination = acquire_resolved(fixture, remotes[i % 2]);
        uint32_t most = 1500 - (i % 2 == 0 ? 20 : 40) - TCP_HEADER_SIZE;
        send_tcp(fixture, destination, chain_new(fixture, 1, most + i / 2), 0);
        fixture_turn(fixture, NULL, 0);
        assert_int_equal(i < 2, fixture_sent_count(fixture, 0));
        assert_int_equal(i >= 2, COUNTER(fixture, SEND_TOO_LARGE));
        destination_release(fixture->stack, destination);
        fixture_free(fixture);
    }
}

/* ---- frames of too many buffers ---- */

static void test_compaction(void **state)
{
    static const struct {
        uint32_t offloads, segments_max, count, size, segments; /* segments 0: dropped */
        uint16_t tso_size;
    } rows[] = {
        {0, 1, 0, 0, 1, 0},
        {0, 1, 3, 400, 1, 0},
        {0, 1, 1, 1460, 1, 0},
        {NIC_TX_MULTI_SEGMENT, 8, 7, 200, 8, 0},
        {NIC_TX_MULTI_SEGMENT, 8, 8, 180, 1, 0},
        {NIC_TX_MULTI_SEGMENT, 2, 3, 400, 1, 0},
        {NIC_TX_MULTI_SEGMENT | NIC_TX_TSO | NIC_TX_TCP_CHECKSUM, 4, 8, 1000, 4, 1000},
        {NIC_TX_MULTI_SEGMENT | NIC_TX_TSO | NIC_TX_TCP_CHECKSUM, 3, 8, 1000, 0, 1000},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture_options options = fixture_defaults();
        options.offloads = rows[i].offloads;
        options.segments_max = rows[i].segments_max;
        struct fixture *fixture = fixture_new(&options);
        struct destination *destination = acquire_resolved(fixture, "198.51.100.7");
        send_tcp(fixture, destination, chain_new(fixture, rows[i].count, rows[i].size),
                 rows[i].tso_size);
        fixture_turn(fixture, NULL, 0);
        bool is_copied = rows[i].count + 1 > rows[i].segments_max;
        assert_int_equal(is_copied && rows[i].segments > 0, COUNTER(fixture, SEND_COMPACTED));
        assert_int_equal(rows[i].segments == 0, COUNTER(fixture, SEND_DROPPED));
        assert_int_equal(rows[i].segments > 0, fixture_sent_count(fixture, 0));
        if (rows[i].segments > 0) {
            struct fixture_view view = fixture_take(fixture, 0);
            assert_int_equal(rows[i].segments, view.frame->segments);
            expect_payload(&view, rows[i].count * rows[i].size);
            assert_int_equal(rows[i].tso_size > 0,
                             (view.frame->ol_flags & RTE_MBUF_F_TX_TCP_SEG) != 0);
        }
        destination_release(fixture->stack, destination);
        fixture_free(fixture);
    }
}

/* ---- a nic that refuses ---- */

static void test_refused_frames_wait(void **state)
{
    struct fixture *fixture = fixture_usual();
    struct destination *destination = acquire_resolved(fixture, "198.51.100.7");
    struct fixture_nic *nic = &fixture->nics[0];

    (void)state;
    nic->room = 3;
    for (uint32_t i = 0; i < 10; i++)
        send_tcp(fixture, destination, chain_new(fixture, 1, i), 0);
    fixture_turn(fixture, NULL, 0);
    assert_int_equal(3, fixture_sent_count(fixture, 0));
    assert_int_equal(7, stack_get_usage(fixture->stack).frames_waiting);
    assert_int_equal(7, COUNTER(fixture, SEND_FULL));
    assert_in_range(flow_deadline(fixture->plane), fixture->now, fixture->now + TICK_MS(1));
    fixture_turn(fixture, NULL, 0);
    assert_int_equal(7, COUNTER(fixture, SEND_FULL)); /* each is counted once */
    nic->room = 4;
    send_tcp(fixture, destination, chain_new(fixture, 1, 10), 0);
    fixture_turn(fixture, NULL, 0);
    assert_int_equal(8, COUNTER(fixture, SEND_FULL));
    nic->room = UINT32_MAX;
    fixture_turn(fixture, NULL, 0);
    for (uint32_t i = 0; i <= 10; i++) { /* in order */
        struct fixture_view view = fixture_take(fixture, 0);
        expect_payload(&view, i);
    }
    assert_int_equal(0, stack_get_usage(fixture->stack).frames_waiting);
    assert_int_equal(0, COUNTER(fixture, SEND_DROPPED));
    destination_release(fixture->stack, destination);
    fixture_free(fixture);
}

static void test_queue_is_bounded(void **state)
{
    struct fixture *fixture = fixture_usual();
    struct destination *destination = acquire_resolved(fixture, "198.51.100.7");

    (void)state;
    fixture->nics[0].room = 0;
    for (uint32_t i = 0; i < STACK_SEND_QUEUE + 2; i++) {
        send_tcp(fixture, destination, chain_new(fixture, 0, 0), 0);
        assert_int_equal(i < STACK_SEND_QUEUE ? 0 : i + 1 - STACK_SEND_QUEUE,
                         COUNTER(fixture, SEND_DROPPED));
    }
    fixture->nics[0].room = UINT32_MAX;
    /* A full queue asks the nic before it drops. */
    send_tcp(fixture, destination, chain_new(fixture, 0, 0), 0);
    assert_int_equal(2, COUNTER(fixture, SEND_DROPPED));
    fixture_turn(fixture, NULL, 0);
    assert_int_equal(STACK_SEND_QUEUE + 1, fixture_sent_count(fixture, 0));
    destination_release(fixture->stack, destination);
    fixture_free(fixture);
}

/* What waited for a second is not worth sending. */
static void test_stalled_nic(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        struct fixture *fixture = fixture_usual();
        struct destination *destination = acquire_resolved(fixture, "198.51.100.7");
        fixture_advance(fixture, TICK_S(5)); /* how long nothing was sent does not matter */
        fixture->nics[0].room = 0;
        for (uint32_t j = 0; j < 5; j++)
            send_tcp(fixture, destination, chain_new(fixture, 0, 0), 0);
        fixture_turn(fixture, NULL, 0);
        fixture_advance(fixture, TICK_S(1) - 1);
        assert_int_equal(5, stack_get_usage(fixture->stack).frames_waiting);
        if (i == 1)
            fixture->nics[0].room = 1; /* it moves: another second */
        fixture_advance(fixture, 1);
        assert_int_equal(i == 0 ? 0 : 4, stack_get_usage(fixture->stack).frames_waiting);
        fixture_advance(fixture, TICK_S(1));
        assert_int_equal(0, stack_get_usage(fixture->stack).frames_waiting);
        assert_int_equal(i == 0 ? 5 : 4, COUNTER(fixture, SEND_DROPPED));
        destination_release(fixture->stack, destination);
        fixture_free(fixture);
    }
}

/* ---- answers without a destination ---- */

static void test_stateless(void **state)
{
    static const char *const remotes[] = {"198.51.100.7", "2001:db9::7"};

    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        struct fixture_options options = fixture_defaults();
        options.offloads |= NIC_TX_TCP_CHECKSUM; /* nothing is left to it here */
        struct fixture *fixture = fixture_new(&options);
        struct flow_address remote = fixture_address(remotes[i], 0);
        const struct ip_send send = {.source = fixture->stack->locals[i].address.address.ip,
                                     .protocol = IP_PROTOCOL_TCP,
                                     .l4_header_size = TCP_HEADER_SIZE,
                                     .is_checksum_complete = true};
        destination_release(fixture->stack, acquire_resolved(fixture, remotes[i]));
        ip_output_stateless(fixture->stack, remote.family, remote.ip, &send,
                            chain_new(fixture, 1, 10));
        fixture_turn(fixture, NULL, 0);
        struct fixture_view view = fixture_take(fixture, 0);
        assert_memory_equal(fixture_router_mac, view.ethernet.destination, 6);
        expect_payload(&view, 10);
        assert_int_equal(0, view.frame->ol_flags);
        assert_int_equal(0, stack_get_usage(fixture->stack).destinations);
        fixture_free(fixture);
    }
}

/* Without a link layer there is nobody to ask; without a route there is nothing to send. */
static void test_l3_and_no_route(void **state)
{
    struct fixture_options options = fixture_defaults();

    (void)state;
    options.offloads |= NIC_IS_L3;
    struct fixture *fixture = fixture_new(&options);
    struct flow_address remote = fixture_address("198.51.100.7", 0);
    const struct ip_send send = {.source = fixture->stack->locals[0].address.address.ip,
                                 .protocol = IP_PROTOCOL_TCP,
                                 .is_checksum_complete = true};
    struct destination *destination = acquire(fixture, "198.51.100.7");
    send_tcp(fixture, destination, chain_new(fixture, 1, 10), 0);
    ip_output_stateless(fixture->stack, 4, remote.ip, &send, chain_new(fixture, 1, 10));
    fixture_turn(fixture, NULL, 0);
    for (uint32_t i = 0; i < 2; i++) {
        struct fixture_view view = fixture_take(fixture, 0);
        assert_int_equal(IP4_HEADER_SIZE + TCP_HEADER_SIZE + 10, view.frame->size);
        expect_payload(&view, 10);
    }
    fixture->stack->ports[0].gateway4.family = FLOW_FAMILY_NONE; /* the port itself is the way */
    ip_output_stateless(fixture->stack, 4, remote.ip, &send, chain_new(fixture, 1, 10));
    fixture_turn(fixture, NULL, 0);
    assert_int_equal(1, fixture_sent_count(fixture, 0));
    fixture->stack->ports[0].prefix_count = 0;
    ip_output_stateless(fixture->stack, 4, remote.ip, &send, chain_new(fixture, 1, 10));
    assert_int_equal(1, COUNTER(fixture, IP_NO_ROUTE));
    destination_release(fixture->stack, destination);
    fixture_free(fixture);
}

/* An address that stands alone has its router on the link all the same. */
static void test_router_of_a_lonely_address(void **state)
{
    struct fixture *fixture = fixture_usual();
    struct stack_port *port = &fixture->stack->ports[0];

    (void)state;
    port->prefixes[0].bits = 32;
    struct destination *router = acquire(fixture, "192.0.2.254");
    struct destination *other = acquire(fixture, "192.0.2.77");
    assert_true(fixture_ip_is(router->next_hop, "192.0.2.254"));
    assert_true(fixture_ip_is(other->next_hop, "192.0.2.254"));
    send_tcp(fixture, other, chain_new(fixture, 0, 0), 0);
    fixture_turn(fixture, NULL, 0);
    fixture_forget(fixture, 0);
    fixture_answer(fixture, "192.0.2.254", fixture_router_mac);
    assert_int_equal(1, fixture_sent_count(fixture, 0));
    fixture_answer(fixture, "192.0.2.77", fixture_router_mac);
    assert_int_equal(1, COUNTER(fixture, ARP_REFUSED));
    destination_release(fixture->stack, router);
    destination_release(fixture->stack, other);
    fixture_free(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_offloads),
        cmocka_unit_test(test_a_train_is_its_packets),
        cmocka_unit_test(test_no_train_without_a_link),
        cmocka_unit_test(test_size_bounds),
        cmocka_unit_test(test_compaction),
        cmocka_unit_test(test_refused_frames_wait),
        cmocka_unit_test(test_queue_is_bounded),
        cmocka_unit_test(test_stalled_nic),
        cmocka_unit_test(test_stateless),
        cmocka_unit_test(test_l3_and_no_route),
        cmocka_unit_test(test_router_of_a_lonely_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

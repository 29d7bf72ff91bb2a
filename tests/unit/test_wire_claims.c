/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What strangers on the link can do to the neighbour table and to our addresses, and what the other
 * cores are told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
/* cmocka.h wants the ones above first. */
#include <cmocka.h>

#include "dataplane/wire/net/neighbour.h"
#include "tests/unit/wire_fixture.h"

#define ARP_REQUEST 1u
#define ARP_REPLY   2u

static const char *const peers[] = {"192.0.2.10", "2001:db8::10"};

static struct fixture *fixture_usual(void)
{
    const struct fixture_options options = fixture_defaults();
    return fixture_new(&options);
}

static struct neigh *find(struct fixture *fixture, const char *ip)
{
    struct flow_address address = fixture_address(ip, 0);
    return neigh_find(fixture->stack, &fixture->stack->ports[0], address.family, address.ip);
}

/* A flow to `ip`, at the peer's address; the frames so far are forgotten. */
static struct flow make_reachable(struct fixture *fixture, const char *ip)
{
    struct flow_address address = fixture_address(ip, 53);
    struct flow flow;

    assert_int_equal(ERR_OK, flow_open_datagram(fixture->plane, NULL, &address, 1, &flow));
    assert_int_equal(ERR_OK, flow_send_datagram(fixture->plane, flow, SPAN_LITERAL("first")));
    fixture_turn(fixture, NULL, 0);
    fixture_answer(fixture, ip, fixture_peer_mac);
    /* From now on the destination has a header of its own. */
    assert_int_equal(ERR_OK, flow_send_datagram(fixture->plane, flow, SPAN_LITERAL("second")));
    fixture_turn(fixture, NULL, 0);
    fixture_forget(fixture, 0);
    return flow;
}

static void expect_sent_to(struct fixture *fixture, struct flow flow, const uint8_t *mac)
{
    fixture_forget(fixture, 0);
    assert_int_equal(ERR_OK, flow_send_datagram(fixture->plane, flow, SPAN_LITERAL("data")));
    fixture_turn(fixture, NULL, 0);
    struct fixture_view view = fixture_take(fixture, 0);
    assert_int_equal(IP_PROTOCOL_UDP, view.ip.protocol);
    assert_memory_equal(mac, view.ethernet.destination, 6);
}

static void input_advertisement(struct fixture *fixture, const char *target, const uint8_t *mac,
                                bool is_solicited, const char *destination)
{
    struct flow_address address = fixture_address(target, 0);
    struct nd_packet nd = {.type = ICMP_NEIGHBOUR_ADVERTISEMENT6,
                           .is_solicited = is_solicited,
                           .is_override = true,
                           .has_link_address = true};

    memcpy(nd.target, address.ip, 16);
    memcpy(nd.link_address, mac, 6);
    fixture_input_nd(fixture, &nd, target, destination, mac);
}

static void input_solicitation(struct fixture *fixture, const char *target, const char *source,
                               const uint8_t *mac, const char *destination)
{
    struct flow_address address = fixture_address(target, 0);
    struct nd_packet nd = {.type = ICMP_NEIGHBOUR_SOLICITATION6, .has_link_address = mac != NULL};

    memcpy(nd.target, address.ip, 16);
    if (mac != NULL)
        memcpy(nd.link_address, mac, 6);
    fixture_input_nd(fixture, &nd, source, destination, mac == NULL ? fixture_peer_mac : mac);
}

/* Every way to say that 192.0.2.10 or 2001:db8::10 is at the evil address. */
static void poison(struct fixture *fixture, uint32_t way)
{
    switch (way) {
    case 0:
        fixture_input_arp(fixture, ARP_REPLY, fixture_evil_mac, peers[0], "192.0.2.1", fixture_mac);
        return;
    case 1:
        fixture_input_arp(fixture, ARP_REPLY, fixture_evil_mac, peers[0], peers[0],
                          fixture_broadcast_mac);
        return;
    case 2:
        fixture_input_arp(fixture, ARP_REQUEST, fixture_evil_mac, peers[0], "192.0.2.1",
                          fixture_broadcast_mac);
        return;
    case 3:
        fixture_input_arp(fixture, ARP_REQUEST, fixture_evil_mac, peers[0], peers[0],
                          fixture_broadcast_mac);
        return;
    case 4:
        input_advertisement(fixture, peers[1], fixture_evil_mac, true, "2001:db8::1");
        return;
    case 5:
        input_advertisement(fixture, peers[1], fixture_evil_mac, false, "ff02::1");
        return;
    default:
        input_solicitation(fixture, "2001:db8::1", peers[1], fixture_evil_mac, "ff02::1:ff00:1");
        return;
    }
}
#define POISON_WAYS 7u

/* ---- poisoning ---- */

static void test_unasked_makes_no_entry(void **state)
{
    (void)state;
    for (uint32_t way = 0; way < POISON_WAYS; way++) {
        struct fixture *fixture = fixture_usual();
        poison(fixture, way);
        assert_null(find(fixture, peers[0]));
        assert_null(find(fixture, peers[1]));
        fixture_free(fixture);
    }
}

static void test_old_address_answers_and_stays(void **state)
{
    (void)state;
    for (uint32_t way = 0; way < POISON_WAYS; way++) {
        struct fixture *fixture = fixture_usual();
        const char *peer = peers[way >= 4];
        struct flow flow = make_reachable(fixture, peer);

        poison(fixture, way);
        assert_int_equal(1, COUNTER(fixture, NEIGHBOUR_CLAIMED));
        /* The old address is asked; what else goes out is the answer to a question. */
        struct fixture_view view = fixture_take(fixture, 0);
        assert_memory_equal(fixture_peer_mac, view.ethernet.destination, 6);
        assert_in_range(fixture_sent_count(fixture, 0), 0, 1);
        expect_sent_to(fixture, flow, fixture_peer_mac);
        /* Again and again; it makes no difference. */
        poison(fixture, way);
        expect_sent_to(fixture, flow, fixture_peer_mac);
        fixture_answer(fixture, peer, fixture_peer_mac);
        assert_int_equal(NEIGH_REACHABLE, find(fixture, peer)->state);
        expect_sent_to(fixture, flow, fixture_peer_mac);
        fixture_advance(fixture, TICK_S(5));
        expect_sent_to(fixture, flow, fixture_peer_mac);
        assert_int_equal(0, COUNTER(fixture, NEIGHBOUR_MOVED));
        fixture_free(fixture);
    }
}

/* A station that moved (a router that failed over) is found after three silent questions. */
static void test_silent_address_moves(void **state)
{
    (void)state;
    for (uint32_t way = 0; way < POISON_WAYS; way++) {
        struct fixture *fixture = fixture_usual();
        const char *peer = peers[way >= 4];
        struct flow flow = make_reachable(fixture, peer);

        poison(fixture, way);
        if (way < 4) /* a second claim does not take the place of the first */
            fixture_input_arp(fixture, ARP_REPLY, fixture_router_mac, peer, "192.0.2.1",
                              fixture_mac);
        if (way % 2 == 0) {
            fixture_advance(fixture, TICK_MS(898));
            expect_sent_to(fixture, flow, fixture_peer_mac);
        } else {
            fixture_advance(fixture, TICK_MS(898)); /* unused meanwhile */
        }
        fixture_advance(fixture, TICK_MS(3));
        assert_int_equal(1, COUNTER(fixture, NEIGHBOUR_MOVED));
        expect_sent_to(fixture, flow, fixture_evil_mac);
        fixture_answer(fixture, peer, fixture_evil_mac);
        assert_int_equal(NEIGH_REACHABLE, find(fixture, peer)->state);
        fixture_free(fixture);
    }
}

/* Among many neighbours that do not exist, those that do stay. */
static void test_scan_does_not_push_out(void **state)
{
    struct fixture *fixture = fixture_usual();
    struct flow flow = make_reachable(fixture, peers[0]);
    struct stack *stack = fixture->stack;

    (void)state;
    for (uint32_t i = 0; i < 200; i++) {
        uint8_t ip[16] = {192, 0, 2, (uint8_t)(20 + i)}, mac[6];
        tick_us until;
        struct buf *packet = buf_acquire(fixture->header_pool);
        struct buf *copy = packet;
        memset(buf_data(packet), 0, 40);
        buf_data(packet)[0] = 0x45;
        store_be16(buf_data(packet) + 2, 40);
        buf_data(packet)[9] = IP_PROTOCOL_ICMP;
        buf_extend(packet, 40);
        assert_int_equal(ERR_AGAIN,
                         neigh_resolve(stack, &stack->ports[0], 4, ip, copy, mac, &until));
        stack_verify(stack);
        fixture_turn(fixture, NULL, 0);
    }
    assert_int_equal(8, stack_get_usage(stack).neighbours); /* half of the table */
    assert_int_equal(192, COUNTER(fixture, NEIGHBOUR_EVICTED));
    expect_sent_to(fixture, flow, fixture_peer_mac);
    fixture_free(fixture);
}

/* 16 entries in use; the 17th finds no room, until one is not in use. */
static void test_full_of_neighbours_in_use(void **state)
{
    struct fixture *fixture = fixture_usual();
    struct flow flow;
    char text[20];

    (void)state;
    for (uint32_t i = 0; i < 16; i++) {
        snprintf(text, sizeof(text), "192.0.2.%u", 20 + i);
        make_reachable(fixture, text);
    }
    struct flow_address address = fixture_address("192.0.2.100", 53);
    /* The table of destinations is as full: the flow itself is refused. */
    assert_int_equal(ERR_LIMIT, flow_open_datagram(fixture->plane, NULL, &address, 1, &flow));
    assert_int_equal(1, COUNTER(fixture, DESTINATION_FULL));
    const struct ip_send send = {.source = fixture->stack->locals[0].address.address.ip,
                                 .protocol = IP_PROTOCOL_ICMP,
                                 .is_checksum_complete = true};
    struct buf *packet = buf_acquire(fixture->header_pool);
    memset(buf_data(packet), 0, 8);
    buf_extend(packet, 8);
    ip_output_stateless(fixture->stack, 4, address.ip, &send, packet);
    assert_int_equal(1, COUNTER(fixture, NEIGHBOUR_FULL));
    fixture_advance(fixture, TICK_S(46)); /* all are stale */
    fixture_forget(fixture, 0);
    packet = buf_acquire(fixture->header_pool);
    memset(buf_data(packet), 0, 8);
    buf_extend(packet, 8);
    ip_output_stateless(fixture->stack, 4, address.ip, &send, packet);
    fixture_turn(fixture, NULL, 0);
    assert_int_equal(1, fixture_sent_count(fixture, 0));
    assert_int_equal(1, COUNTER(fixture, NEIGHBOUR_EVICTED));
    assert_int_equal(1, COUNTER(fixture, NEIGHBOUR_FULL));
    assert_non_null(find(fixture, "192.0.2.100"));
    fixture_free(fixture);
}

/* ---- whom we answer ---- */

static const struct arp_row {
    const char *name, *sender, *target;
    uint16_t operation;
    bool is_answered;
    enum stack_counter counter; /* that rises, where none answers */
} arp_rows[] = {
    {"question", "192.0.2.10", "192.0.2.1", ARP_REQUEST, true, 0},
    {"probe (RFC 5227)", "0.0.0.0", "192.0.2.1", ARP_REQUEST, true, 0},
    {"for another", "192.0.2.10", "192.0.2.11", ARP_REQUEST, false, STACK_ARP_NOT_OURS},
    {"probe for another", "0.0.0.0", "192.0.2.11", ARP_REQUEST, false, STACK_ARP_NOT_OURS},
    {"from beyond the prefix", "192.0.3.10", "192.0.2.1", ARP_REQUEST, false, STACK_ARP_REFUSED},
    {"from a group", "224.0.0.1", "192.0.2.1", ARP_REQUEST, false, STACK_ARP_REFUSED},
    {"from loopback", "127.0.0.1", "192.0.2.1", ARP_REQUEST, false, STACK_ARP_REFUSED},
    {"from our own address", "192.0.2.1", "192.0.2.1", ARP_REQUEST, false, STACK_ADDRESS_CONFLICT},
    {"for the other port's address", "192.0.2.10", "10.1.0.1", ARP_REQUEST, false,
     STACK_ARP_NOT_OURS},
    {"answer to another", "192.0.2.10", "192.0.2.11", ARP_REPLY, false, STACK_ARP_NOT_OURS},
};

static void test_arp_answers(void **state)
{
    struct fixture_options options = fixture_defaults();

    (void)state;
    options.port_count = 2;
    for (uint32_t i = 0; i < COUNT_OF(arp_rows); i++) {
        const struct arp_row *row = &arp_rows[i];
        struct fixture *fixture = fixture_new(&options);
        fixture_input_arp(fixture, row->operation, fixture_peer_mac, row->sender, row->target,
                          fixture_broadcast_mac);
        if (!row->is_answered) {
            if (fixture_counter(fixture, row->counter) != 1)
                fail_msg("%s", row->name);
        } else {
            struct fixture_view view = fixture_take(fixture, 0);
            struct flow_address sender = fixture_address(row->sender, 0);
            assert_int_equal(ARP_REPLY, view.arp.operation);
            assert_memory_equal(fixture_peer_mac, view.ethernet.destination, 6);
            assert_memory_equal(fixture_peer_mac, view.arp.target_mac, 6);
            assert_memory_equal(fixture_mac, view.arp.sender_mac, 6);
            assert_memory_equal(sender.ip, view.arp.target_ip, 4);
        }
        assert_int_equal(0,
                         fixture_sent_count(fixture, 0) - (row->counter == STACK_ADDRESS_CONFLICT));
        fixture_free(fixture);
    }
}

/* On a link without bounds, there are still addresses that no station has. */
static void test_martians_on_a_wide_link(void **state)
{
    static const char *const senders[] = {"127.0.0.1", "224.0.0.1", "240.0.0.1"};
    struct fixture *fixture = fixture_usual();

    (void)state;
    fixture->stack->ports[0].prefixes[0].bits = 0;
    for (uint32_t i = 0; i < COUNT_OF(senders); i++)
        fixture_input_arp(fixture, ARP_REQUEST, fixture_peer_mac, senders[i], "192.0.2.1",
                          fixture_broadcast_mac);
    assert_int_equal(COUNT_OF(senders), COUNTER(fixture, ARP_REFUSED));
    assert_int_equal(0, fixture_sent_count(fixture, 0));
    fixture_free(fixture);
}

static const struct nd_row {
    const char *name, *source, *target, *destination;
    bool has_mac;
    uint8_t ttl;
    const char *answered_to; /* NULL: nobody */
    enum stack_counter counter;
} nd_rows[] = {
    {"question", "2001:db8::10", "2001:db8::1", "ff02::1:ff00:1", true, 255, "2001:db8::10", 0},
    {"alone", "2001:db8::10", "2001:db8::1", "2001:db8::1", false, 255, "2001:db8::10", 0},
    {"from a router", "fe80::99", "2001:db8::1", "ff02::1:ff00:1", true, 255, "fe80::99", 0},
    {"duplicate check", "::", "2001:db8::1", "ff02::1:ff00:1", false, 255, "ff02::1", 0},
    {"over a router", "2001:db8::10", "2001:db8::1", "ff02::1:ff00:1", true, 254, NULL,
     STACK_ND_MALFORMED},
    {"from nowhere with an address", "::", "2001:db8::1", "ff02::1:ff00:1", true, 255, NULL,
     STACK_ND_MALFORMED},
    {"from nowhere to us alone", "::", "2001:db8::1", "2001:db8::1", false, 255, NULL,
     STACK_IP_MARTIAN},
    {"from beyond the prefix", "2001:db9::10", "2001:db8::1", "ff02::1:ff00:1", true, 255, NULL,
     STACK_ND_REFUSED},
    {"for another", "2001:db8::10", "2001:db8::11", "ff02::1:ff00:1", true, 255, NULL,
     STACK_ND_NOT_OURS},
    {"to a group we are not in", "2001:db8::10", "2001:db8::1", "ff02::1:ff00:2", true, 255, NULL,
     STACK_IP_NOT_OURS},
};

static void test_nd_answers(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(nd_rows); i++) {
        const struct nd_row *row = &nd_rows[i];
        struct fixture *fixture = fixture_usual();
        struct nd_packet nd = {.type = ICMP_NEIGHBOUR_SOLICITATION6,
                               .has_link_address = row->has_mac};
        struct flow_address target = fixture_address(row->target, 0);
        uint8_t message[32];

        memcpy(nd.target, target.ip, 16);
        memcpy(nd.link_address, fixture_peer_mac, 6);
        uint32_t size = nd_build(&nd, message);
        fixture_input(fixture, &(struct fixture_packet){.source = row->source,
                                                        .destination = row->destination,
                                                        .protocol = IP_PROTOCOL_ICMP6,
                                                        .ttl = row->ttl,
                                                        .payload = span_of(message, size)});
        if (row->answered_to == NULL) {
            if (fixture_counter(fixture, row->counter) != 1)
                fail_msg("%s", row->name);
        } else {
            struct fixture_view view = fixture_take(fixture, 0);
            assert_int_equal(PACKET_OK, nd_parse(view.l4, &nd));
            assert_int_equal(ICMP_NEIGHBOUR_ADVERTISEMENT6, nd.type);
            assert_true(fixture_ip_is(view.ip.destination, row->answered_to));
            assert_int_equal(view.ip.destination[0] != 0xff, nd.is_solicited);
            assert_true(nd.is_override && !nd.is_router && nd.has_link_address);
            assert_memory_equal(fixture_mac, nd.link_address, 6);
        }
        assert_int_equal(0, fixture_sent_count(fixture, 0));
        fixture_free(fixture);
    }
}

/* RFC 4861 7.1.2: nobody is answered by way of a group. */
static void test_malformed_advertisements(void **state)
{
    struct fixture *fixture = fixture_usual();
    struct flow flow = make_reachable(fixture, peers[1]);

    (void)state;
    input_advertisement(fixture, peers[1], fixture_evil_mac, true, "ff02::1");
    assert_int_equal(1, COUNTER(fixture, ND_MALFORMED));
    assert_int_equal(0, COUNTER(fixture, NEIGHBOUR_CLAIMED));
    expect_sent_to(fixture, flow, fixture_peer_mac);
    fixture_free(fixture);
}

/* ---- our own addresses ---- */

static struct stack_local *local_of(struct fixture *fixture, const char *ip)
{
    struct flow_address address = fixture_address(ip, 0);
    return stack_local_find(fixture->stack, address.family, address.ip);
}

/* What goes out in the first seconds: RFC 5227 2.3, RFC 4862 5.4. */
static void test_first_seconds(void **state)
{
    struct fixture_options options = fixture_defaults();
    uint32_t announced = 0, checked = 0, advertised = 0;

    (void)state;
    options.is_fresh = true;
    struct fixture *fixture = fixture_new(&options);
    assert_true(local_of(fixture, "2001:db8::1")->is_tentative);
    assert_false(local_of(fixture, "192.0.2.1")->is_tentative);
    struct flow_address peer = fixture_address(peers[1], 53);
    struct flow flow;
    assert_int_equal(ERR_SYSTEM, flow_open_datagram(fixture->plane, NULL, &peer, 1, &flow));
    assert_null(stack_source_choose(fixture->stack, 6, peer.ip));
    fixture_advance(fixture, TICK_MS(999));
    assert_true(local_of(fixture, "2001:db8::1")->is_tentative);
    assert_int_equal(4, fixture_sent_count(fixture, 0)); /* one joins the group */
    fixture_advance(fixture, TICK_MS(1));
    assert_false(local_of(fixture, "2001:db8::1")->is_tentative);
    assert_int_equal(7, fixture_sent_count(fixture, 0));
    fixture_advance(fixture, TICK_S(10));
    while (fixture_sent_count(fixture, 0) > 0) {
        struct fixture_view view = fixture_take(fixture, 0);
        struct nd_packet nd;
        if (view.ethernet.type == ETHERTYPE_ARP) {
            assert_memory_equal(view.arp.sender_ip, view.arp.target_ip, 4);
            assert_memory_equal(fixture_broadcast_mac, view.ethernet.destination, 6);
            announced++;
            continue;
        }
        if (view.ip.has_options)
            continue; /* a membership report */
        assert_int_equal(PACKET_OK, nd_parse(view.l4, &nd));
        checked += nd.type == ICMP_NEIGHBOUR_SOLICITATION6;
        advertised += nd.type == ICMP_NEIGHBOUR_ADVERTISEMENT6;
        assert_int_equal(nd.type == ICMP_NEIGHBOUR_SOLICITATION6,
                         fixture_ip_is(view.ip.source, "::"));
        assert_int_equal(nd.type == ICMP_NEIGHBOUR_ADVERTISEMENT6, nd.has_link_address);
    }
    assert_int_equal(2, announced);
    assert_int_equal(2, checked);
    assert_int_equal(4, advertised);
    fixture_free(fixture);
}

/* One core speaks for all; the others keep the same times. */
static void test_other_cores_are_silent(void **state)
{
    struct fixture_options options = fixture_defaults();

    (void)state;
    options.is_fresh = true;
    options.core_count = 2;
    options.core = 1;
    options.queue_count = 2;
    struct fixture *fixture = fixture_new(&options);
    fixture_advance(fixture, TICK_MS(999));
    assert_true(local_of(fixture, "2001:db8::1")->is_tentative);
    fixture_advance(fixture, TICK_S(10));
    assert_false(local_of(fixture, "2001:db8::1")->is_tentative);
    assert_int_equal(0, fixture_sent_count(fixture, 0));
    fixture_free(fixture);
}

/* Somebody answers, or asks for the same address at the same time (RFC 4862 5.4.3, 5.4.4). */
static void test_duplicate_is_not_used(void **state)
{
    struct fixture_options options = fixture_defaults();

    (void)state;
    options.is_fresh = true;
    options.core_count = 2;
    for (uint32_t way = 0; way < 3; way++) {
        struct fixture *fixture = fixture_new(&options);
        struct stack_news news = {.kind = STACK_NEWS_NEIGHBOUR,
                                  .address = fixture_address("2001:db8::1", 0)};
        if (way == 0)
            input_advertisement(fixture, "2001:db8::1", fixture_peer_mac, false, "ff02::1");
        else if (way == 1)
            input_solicitation(fixture, "2001:db8::1", "::", NULL, "ff02::1:ff00:1");
        else
            stack_on_news(fixture->stack, &news);
        assert_int_equal(way < 2, fixture->news_count);
        if (way < 2)
            assert_memory_equal(&news.address, &fixture->news[0].address, sizeof(news.address));
        fixture_advance(fixture, TICK_S(4));
        assert_true(local_of(fixture, "2001:db8::1")->is_duplicate);
        assert_false(local_of(fixture, "fe80::1")->is_duplicate);
        fixture_forget(fixture, 0);
        input_solicitation(fixture, "2001:db8::1", peers[1], fixture_peer_mac, "ff02::1:ff00:1");
        assert_int_equal(0, fixture_sent_count(fixture, 0));
        fixture_free(fixture);
    }
}

/* An address in use is kept, and defended every ten seconds at most (RFC 5227 2.4 b). */
static void test_address_in_use_is_defended(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        struct fixture *fixture = fixture_usual();
        for (uint32_t second = 0; second < 20; second++) {
            if (i == 0)
                fixture_input_arp(fixture, ARP_REQUEST, fixture_evil_mac, "192.0.2.1", "192.0.2.10",
                                  fixture_broadcast_mac);
            else
                input_advertisement(fixture, "2001:db8::1", fixture_evil_mac, false, "ff02::1");
            fixture_advance(fixture, TICK_S(1));
        }
        assert_int_equal(20, COUNTER(fixture, ADDRESS_CONFLICT));
        assert_int_equal(2, fixture_sent_count(fixture, 0));
        assert_false(local_of(fixture, "2001:db8::1")->is_duplicate);
        fixture_free(fixture);
    }
}

/* ---- other cores ---- */

/* The nic gave our answer to another core, which says so. */
static void test_news_of_neighbours(void **state)
{
    struct fixture_options options = fixture_defaults();

    (void)state;
    options.core_count = 2;
    for (uint32_t i = 0; i < COUNT_OF(peers); i++) {
        struct fixture *fixture = fixture_new(&options);
        struct flow_address address = fixture_address(peers[i], 53);
        struct flow flow;
        struct stack_news news = {.kind = STACK_NEWS_NEIGHBOUR,
                                  .address = fixture_address(peers[i], 0)};
        memcpy(news.mac, fixture_peer_mac, 6);

        stack_on_news(fixture->stack, &news); /* not asked for: makes no entry */
        assert_null(find(fixture, peers[i]));
        assert_int_equal(ERR_OK, flow_open_datagram(fixture->plane, NULL, &address, 1, &flow));
        assert_int_equal(ERR_OK, flow_send_datagram(fixture->plane, flow, SPAN_LITERAL("x")));
        fixture_turn(fixture, NULL, 0);
        stack_on_news(fixture->stack, &news);
        assert_int_equal(NEIGH_REACHABLE, find(fixture, peers[i])->state);
        expect_sent_to(fixture, flow, fixture_peer_mac);
        /* What we hear ourselves goes to the others, also when it means nothing to us. */
        assert_int_equal(0, fixture->news_count);
        fixture_answer(fixture, i == 0 ? "192.0.2.20" : "2001:db8::20", fixture_evil_mac);
        assert_int_equal(1, fixture->news_count);
        assert_int_equal(STACK_NEWS_NEIGHBOUR, fixture->news[0].kind);
        assert_memory_equal(fixture_evil_mac, fixture->news[0].mac, 6);
        assert_int_equal(i == 0 ? 20 : 0x20, fixture->news[0].address.ip[i == 0 ? 3 : 15]);
        fixture_free(fixture);
    }
}

/* A station that moved says so to all, but only one core hears it. */
static void test_news_of_claims(void **state)
{
    static const struct {
        uint32_t way; /* of poison() */
        bool is_known, is_told;
    } rows[] = {
        {0, false, true}, /* an answer, as it seems */
        {1, false, true}, {1, true, true},  {2, false, false}, {2, true, true},   {3, false, true},
        {3, true, true},  {5, false, true}, {5, true, true},   {6, false, false}, {6, true, true},
    };
    struct fixture_options options = fixture_defaults();

    (void)state;
    options.core_count = 2;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture *fixture = fixture_new(&options);
        if (rows[i].is_known)
            make_reachable(fixture, peers[rows[i].way >= 4]);
        uint32_t before = fixture->news_count;
        poison(fixture, rows[i].way);
        if (fixture->news_count - before != rows[i].is_told)
            fail_msg("row %u", i);
        if (rows[i].is_told) {
            assert_int_equal(rows[i].way == 0 ? STACK_NEWS_NEIGHBOUR : STACK_NEWS_CLAIM,
                             fixture->news[before].kind);
            assert_memory_equal(fixture_evil_mac, fixture->news[before].mac, 6);
        }
        fixture_free(fixture);
    }
}

/* Told so, a core asks the old address first, as if it had heard it itself. */
static void test_claims_that_others_heard(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        struct fixture *fixture = fixture_usual();
        struct flow flow = make_reachable(fixture, peers[i]);
        struct stack_news news = {.kind = STACK_NEWS_CLAIM,
                                  .address = fixture_address(peers[i], 0)};
        memcpy(news.mac, fixture_evil_mac, 6);
        stack_on_news(fixture->stack, &news);
        assert_int_equal(NEIGH_PROBE, find(fixture, peers[i])->state);
        memcpy(news.mac, fixture_peer_mac, 6);
        stack_on_news(fixture->stack, &news); /* no answer: it proves nothing */
        assert_int_equal(NEIGH_PROBE, find(fixture, peers[i])->state);
        news.kind = STACK_NEWS_NEIGHBOUR;
        stack_on_news(fixture->stack, &news);
        assert_int_equal(NEIGH_REACHABLE, find(fixture, peers[i])->state);
        fixture_turn(fixture, NULL, 0); /* the question goes out */
        expect_sent_to(fixture, flow, fixture_peer_mac);
        fixture_free(fixture);
    }
}

static void test_flood_of_news_is_bounded(void **state)
{
    struct fixture_options options = fixture_defaults();

    (void)state;
    options.core_count = 2;
    struct fixture *fixture = fixture_new(&options);
    for (uint32_t i = 0; i < 2000; i++)
        fixture_answer(fixture, "192.0.2.20", fixture_evil_mac);
    assert_in_range(fixture->news_count, 500, 1000);
    assert_int_equal(2000 - fixture->news_count, COUNTER(fixture, NEWS_LIMITED));
    fixture_advance(fixture, TICK_S(1));
    fixture_answer(fixture, "192.0.2.20", fixture_evil_mac);
    assert_int_equal(2000, COUNTER(fixture, NEWS_LIMITED) + fixture->news_count - 1);
    fixture_free(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unasked_makes_no_entry),
        cmocka_unit_test(test_old_address_answers_and_stays),
        cmocka_unit_test(test_silent_address_moves),
        cmocka_unit_test(test_scan_does_not_push_out),
        cmocka_unit_test(test_full_of_neighbours_in_use),
        cmocka_unit_test(test_arp_answers),
        cmocka_unit_test(test_martians_on_a_wide_link),
        cmocka_unit_test(test_nd_answers),
        cmocka_unit_test(test_malformed_advertisements),
        cmocka_unit_test(test_first_seconds),
        cmocka_unit_test(test_other_cores_are_silent),
        cmocka_unit_test(test_duplicate_is_not_used),
        cmocka_unit_test(test_address_in_use_is_defended),
        cmocka_unit_test(test_news_of_neighbours),
        cmocka_unit_test(test_news_of_claims),
        cmocka_unit_test(test_claims_that_others_heard),
        cmocka_unit_test(test_flood_of_news_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Neighbours: the states of RFC 4861 7.3.2 by a table of state and event, for ARP and for neighbour
 * discovery alike; times, bounds, packets that wait; and that nobody is believed who was not asked
 * (HAZARDS TC-15).
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

struct family {
    const char *peer, *router, *other;
    uint8_t number;
};
static const struct family families[] = {
    {"192.0.2.10", "192.0.2.254", "192.0.2.77", 4},
    {"2001:db8::10", "2001:db8::fe", "2001:db8::77", 6},
};

static struct fixture *fixture_usual(void)
{
    const struct fixture_options options = fixture_defaults();
    return fixture_new(&options);
}

static struct flow open_to(struct fixture *fixture, const char *remote)
{
    struct flow_address address = fixture_address(remote, 53);
    struct flow flow;

    assert_int_equal(ERR_OK, flow_open_datagram(fixture->plane, NULL, &address, 1, &flow));
    return flow;
}

static void send_text(struct fixture *fixture, struct flow flow, const char *text)
{
    assert_int_equal(ERR_OK, flow_send_datagram(fixture->plane, flow, span_from_text(text)));
    fixture_turn(fixture, NULL, 0);
}

static struct neigh *find(struct fixture *fixture, const char *ip)
{
    struct flow_address address = fixture_address(ip, 0);
    return neigh_find(fixture->stack, &fixture->stack->ports[0], address.family, address.ip);
}

static enum neigh_state state_of(struct fixture *fixture, const char *ip)
{
    const struct neigh *neigh = find(fixture, ip);
    assert_non_null(neigh);
    return (enum neigh_state)neigh->state;
}

/* The frame that asks for `ip`, at `to` or of everybody. */
static void expect_question(struct fixture *fixture, const char *ip, const uint8_t *to)
{
    struct fixture_view view = fixture_take(fixture, 0);
    struct flow_address address = fixture_address(ip, 0);

    assert_memory_equal(fixture_mac, view.ethernet.source, 6);
    if (address.family == FLOW_FAMILY_IP4) {
        const uint8_t sender[4] = {192, 0, 2, 1};
        assert_int_equal(ETHERTYPE_ARP, view.ethernet.type);
        assert_int_equal(1, view.arp.operation);
        assert_memory_equal(fixture_mac, view.arp.sender_mac, 6);
        assert_memory_equal(sender, view.arp.sender_ip, 4);
        assert_memory_equal(address.ip, view.arp.target_ip, 4);
        assert_memory_equal(to == NULL ? fixture_broadcast_mac : to, view.ethernet.destination, 6);
        return;
    }
    struct nd_packet nd;
    uint8_t group_mac[6] = {0x33, 0x33, 0xff};
    memcpy(group_mac + 3, address.ip + 13, 3);
    assert_int_equal(PACKET_OK, nd_parse(view.l4, &nd));
    assert_int_equal(ICMP_NEIGHBOUR_SOLICITATION6, nd.type);
    assert_int_equal(255, view.ip.ttl);
    assert_memory_equal(address.ip, nd.target, 16);
    assert_true(fixture_ip_is(view.ip.source, "2001:db8::1"));
    assert_true(nd.has_link_address);
    assert_memory_equal(fixture_mac, nd.link_address, 6);
    assert_memory_equal(to == NULL ? group_mac : to, view.ethernet.destination, 6);
    if (to == NULL) {
        assert_int_equal(0xff, view.ip.destination[0]);
        assert_memory_equal(address.ip + 13, view.ip.destination + 13, 3);
    } else {
        assert_memory_equal(address.ip, view.ip.destination, 16);
    }
}

static void expect_datagram(struct fixture *fixture, const uint8_t *to, const char *text)
{
    struct fixture_view view = fixture_take(fixture, 0);

    assert_int_equal(IP_PROTOCOL_UDP, view.ip.protocol);
    assert_memory_equal(to, view.ethernet.destination, 6);
    assert_int_equal(UDP_HEADER_SIZE + strlen(text), view.l4.size);
    assert_memory_equal(text, view.l4.data + UDP_HEADER_SIZE, strlen(text));
}

/* `ip` is REACHABLE at the peer's address; nothing is left to be seen. */
static struct flow make_reachable(struct fixture *fixture, const char *ip)
{
    struct flow flow = open_to(fixture, ip);

    send_text(fixture, flow, "first");
    fixture_answer(fixture, ip, fixture_peer_mac);
    assert_int_equal(NEIGH_REACHABLE, state_of(fixture, ip));
    fixture_forget(fixture, 0);
    return flow;
}

/* ---- packets that wait ---- */

static void test_first_packet_is_kept(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(families); i++) {
        struct fixture *fixture = fixture_usual();
        struct flow flow = open_to(fixture, families[i].peer);

        send_text(fixture, flow, "first");
        expect_question(fixture, families[i].peer, NULL);
        assert_int_equal(0, fixture_sent_count(fixture, 0));
        assert_int_equal(1, stack_get_usage(fixture->stack).neighbours);
        fixture_answer(fixture, families[i].peer, fixture_peer_mac);
        expect_datagram(fixture, fixture_peer_mac, "first");
        assert_int_equal(0, stack_get_usage(fixture->stack).neighbours);
        send_text(fixture, flow, "second");
        expect_datagram(fixture, fixture_peer_mac, "second");
        fixture_free(fixture);
    }
}

static void test_router_is_asked_for_remote_hosts(void **state)
{
    static const char *const remotes[] = {"198.51.100.7", "2001:db8:ffff::7"};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(families); i++) {
        struct fixture *fixture = fixture_usual();
        struct flow flow = open_to(fixture, remotes[i]);

        send_text(fixture, flow, "far");
        expect_question(fixture, families[i].router, NULL);
        fixture_answer(fixture, families[i].router, fixture_router_mac);
        expect_datagram(fixture, fixture_router_mac, "far");
        fixture_free(fixture);
    }
}

static void send_numbers(struct fixture *fixture, struct flow flow, uint32_t count)
{
    char text[12];

    for (uint32_t i = 0; i < count; i++) {
        (void)snprintf(text, sizeof(text), "%u", i);
        send_text(fixture, flow, text);
    }
}

/* Goal: so many packets wait for a neighbour, and are sent in their order; of one more the oldest
 * is dropped. */
static void test_packets_wait(void **state)
{
    char text[12];

    (void)state;
    for (uint32_t over = 0; over < 2; over++) {
        struct fixture *fixture = fixture_usual();
        struct flow flow = open_to(fixture, families[0].peer);

        send_numbers(fixture, flow, NEIGH_QUEUE_MAX + over);
        expect_question(fixture, families[0].peer, NULL);
        fixture_answer(fixture, families[0].peer, fixture_peer_mac);
        for (uint32_t i = over; i < NEIGH_QUEUE_MAX + over; i++) {
            (void)snprintf(text, sizeof(text), "%u", i);
            expect_datagram(fixture, fixture_peer_mac, text);
        }
        assert_int_equal(over, COUNTER(fixture, NEIGHBOUR_QUEUE_DROPPED));
        fixture_free(fixture);
    }
}

/* Goal: neighbours that nobody hears of keep only so many packets, and each has its few. */
static void test_waiting_is_bounded(void **state)
{
    char address[16];
    struct fixture_options options = fixture_defaults();

    (void)state;
    options.pool_count = options.header_pool_max = NEIGH_WAITING_MAX + 256;
    struct fixture *fixture = fixture_new(&options);
    for (uint32_t i = 0; i < NEIGH_WAITING_MAX / NEIGH_QUEUE_MAX; i++) {
        (void)snprintf(address, sizeof(address), "192.0.2.%u", 100 + i);
        send_numbers(fixture, open_to(fixture, address), NEIGH_QUEUE_MAX);
    }
    struct flow flow = open_to(fixture, families[0].peer);
    assert_int_equal(NEIGH_WAITING_MAX, fixture->stack->neighbours->waiting);
    send_numbers(fixture, flow, NEIGH_QUEUE_SURE);
    assert_int_equal(0, COUNTER(fixture, NEIGHBOUR_QUEUE_DROPPED));
    send_numbers(fixture, flow, 1);
    assert_int_equal(1, COUNTER(fixture, NEIGHBOUR_QUEUE_DROPPED));
    assert_int_equal(NEIGH_WAITING_MAX + NEIGH_QUEUE_SURE, fixture->stack->neighbours->waiting);
    fixture_free(fixture);
}

/* Three questions, a second apart; then the flow hears it, and for a second nobody is asked. */
static void test_silence_fails(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(families); i++) {
        struct fixture *fixture = fixture_usual();
        struct flow flow = open_to(fixture, families[i].peer);
        struct flow_address from;
        struct span octets;

        send_text(fixture, flow, "lost");
        for (uint32_t j = 0; j < 3; j++) {
            expect_question(fixture, families[i].peer, NULL);
            assert_int_equal(NEIGH_INCOMPLETE, state_of(fixture, families[i].peer));
            assert_int_equal(ERR_AGAIN,
                             flow_receive_datagram(fixture->plane, flow, &from, &octets));
            fixture_advance(fixture, TICK_MS(999));
            assert_int_equal(0, fixture_sent_count(fixture, 0));
            fixture_advance(fixture, TICK_MS(1));
        }
        assert_int_equal(NEIGH_FAILED, state_of(fixture, families[i].peer));
        assert_int_equal(1, COUNTER(fixture, NEIGHBOUR_FAILED));
        assert_int_equal(1, COUNTER(fixture, NEIGHBOUR_UNREACHABLE));
        assert_int_equal(ERR_PEER_UNREACHABLE,
                         flow_receive_datagram(fixture->plane, flow, &from, &octets));
        assert_int_equal(ERR_AGAIN, flow_receive_datagram(fixture->plane, flow, &from, &octets));
        send_text(fixture, flow, "too soon");
        assert_int_equal(2, COUNTER(fixture, NEIGHBOUR_UNREACHABLE));
        assert_int_equal(0, fixture_sent_count(fixture, 0));
        fixture_advance(fixture, TICK_MS(1001));
        assert_null(find(fixture, families[i].peer));
        send_text(fixture, flow, "again");
        expect_question(fixture, families[i].peer, NULL);
        fixture_free(fixture);
    }
}

/* ---- states and events ---- */

enum event {
    RESOLVE,          /* a packet is sent */
    ANSWER_SAME,      /* to us alone, from the address we know (or the first) */
    ANSWER_OTHER,     /* to us alone, from another */
    CLAIM_SAME,       /* unasked */
    CLAIM_OTHER,      /* unasked, from another */
    CLAIM_OTHER_WEAK, /* unasked, without the override flag (IPv6) */
    TIME,             /* the state's time-out passes */
    CONFIRM,          /* TCP says that the peer answers */
    EVENT_COUNT
};
#define GONE NEIGH_STATE_COUNT
static const char *const event_names[EVENT_COUNT] = {
    "resolve",     "answer same",      "answer other", "claim same",
    "claim other", "claim other weak", "time",         "confirm"};

static const enum neigh_state expected[NEIGH_STATE_COUNT][EVENT_COUNT] = {
    [NEIGH_INCOMPLETE] = {NEIGH_INCOMPLETE, NEIGH_REACHABLE, NEIGH_REACHABLE, NEIGH_STALE,
                          NEIGH_STALE, NEIGH_STALE, NEIGH_FAILED, NEIGH_INCOMPLETE},
    [NEIGH_REACHABLE] = {NEIGH_REACHABLE, NEIGH_REACHABLE, NEIGH_PROBE, NEIGH_REACHABLE,
                         NEIGH_PROBE, NEIGH_STALE, NEIGH_STALE, NEIGH_REACHABLE},
    [NEIGH_STALE] = {NEIGH_DELAY, NEIGH_STALE, NEIGH_PROBE, NEIGH_STALE, NEIGH_PROBE, NEIGH_STALE,
                     GONE, NEIGH_REACHABLE},
    [NEIGH_DELAY] = {NEIGH_DELAY, NEIGH_DELAY, NEIGH_PROBE, NEIGH_DELAY, NEIGH_PROBE, NEIGH_DELAY,
                     NEIGH_PROBE, NEIGH_REACHABLE},
    [NEIGH_PROBE] = {NEIGH_PROBE, NEIGH_REACHABLE, NEIGH_PROBE, NEIGH_PROBE, NEIGH_PROBE,
                     NEIGH_PROBE, GONE, NEIGH_REACHABLE},
    [NEIGH_FAILED] = {NEIGH_FAILED, GONE, GONE, GONE, GONE, GONE, GONE, NEIGH_FAILED},
};

/* The times that end a state when nothing happens in it, and a little more. */
static const tick_us ends_after[NEIGH_STATE_COUNT] = {
    [NEIGH_INCOMPLETE] = TICK_MS(3001), [NEIGH_REACHABLE] = TICK_S(46),
    [NEIGH_STALE] = TICK_S(121),        [NEIGH_DELAY] = TICK_MS(5001),
    [NEIGH_PROBE] = TICK_MS(3001),      [NEIGH_FAILED] = TICK_MS(1001),
};

static void bring_to(struct fixture *fixture, const char *ip, struct flow flow,
                     enum neigh_state wanted)
{
    send_text(fixture, flow, "first");
    if (wanted == NEIGH_FAILED)
        fixture_advance(fixture, TICK_MS(3001));
    if (wanted == NEIGH_INCOMPLETE || wanted == NEIGH_FAILED)
        return;
    fixture_answer(fixture, ip, fixture_peer_mac);
    if (wanted == NEIGH_REACHABLE)
        return;
    while (state_of(fixture, ip) == NEIGH_REACHABLE)
        fixture_advance(fixture, TICK_MS(100));
    if (wanted == NEIGH_STALE)
        return;
    send_text(fixture, flow, "second");
    if (wanted == NEIGH_PROBE)
        fixture_advance(fixture, TICK_MS(5001));
}

static void hear(struct fixture *fixture, const struct family *family, bool is_answer,
                 const uint8_t mac[6], bool is_override)
{
    if (family->number == 4) {
        /* Answers come to us, claims to all. */
        fixture_input_arp(fixture, 2, mac, family->peer, is_answer ? "192.0.2.1" : family->peer,
                          is_answer ? fixture_mac : fixture_broadcast_mac);
        return;
    }
    struct nd_packet nd = {.type = ICMP_NEIGHBOUR_ADVERTISEMENT6,
                           .is_solicited = is_answer,
                           .is_override = is_override,
                           .has_link_address = true};
    struct flow_address address = fixture_address(family->peer, 0);
    memcpy(nd.target, address.ip, 16);
    memcpy(nd.link_address, mac, 6);
    fixture_input_nd(fixture, &nd, family->peer, is_answer ? "2001:db8::1" : "ff02::1", mac);
}

static void happen(struct fixture *fixture, const struct family *family, struct flow flow,
                   enum neigh_state from, enum event event)
{
    struct flow_address address = fixture_address(family->peer, 0);

    switch (event) {
    case RESOLVE:
        send_text(fixture, flow, "more");
        return;
    case TIME:
        fixture_advance(fixture, ends_after[from]);
        return;
    case CONFIRM:
        fixture_advance(fixture, 1);
        neigh_confirm(fixture->stack, &fixture->stack->ports[0], address.family, address.ip,
                      fixture->now);
        return;
    default:
        hear(fixture, family, event == ANSWER_SAME || event == ANSWER_OTHER,
             event == ANSWER_SAME || event == CLAIM_SAME ? fixture_peer_mac : fixture_evil_mac,
             event != CLAIM_OTHER_WEAK);
        return;
    }
}

static void test_states_and_events(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(families) * NEIGH_STATE_COUNT * EVENT_COUNT; i++) {
        const struct family *family = &families[i / (NEIGH_STATE_COUNT * EVENT_COUNT)];
        enum neigh_state from = i / EVENT_COUNT % NEIGH_STATE_COUNT;
        enum event event = i % EVENT_COUNT;

        if (family->number == 4 && event == CLAIM_OTHER_WEAK)
            continue;
        struct fixture *fixture = fixture_usual();
        struct flow flow = open_to(fixture, family->peer);
        bring_to(fixture, family->peer, flow, from);
        assert_int_equal(from, state_of(fixture, family->peer));
        happen(fixture, family, flow, from, event);
        const struct neigh *neigh = find(fixture, family->peer);
        enum neigh_state to = neigh == NULL ? GONE : (enum neigh_state)neigh->state;
        if (to != expected[from][event])
            fail_msg("IPv%u, state %u, %s: %u instead of %u", family->number, from,
                     event_names[event], to, expected[from][event]);
        fixture_free(fixture);
    }
}

/* ---- time ---- */

static void test_reachable_time_is_spread(void **state)
{
    tick_us least = TICK_NEVER, most = 0;

    (void)state;
    struct fixture *fixture = fixture_usual();
    struct flow flow = make_reachable(fixture, families[0].peer);
    for (uint32_t i = 0; i < 100; i++) {
        struct neigh *neigh = find(fixture, families[0].peer);
        tick_us time = neigh->reachable_until - fixture->now;
        least = time < least ? time : least;
        most = time > most ? time : most;
        while (state_of(fixture, families[0].peer) == NEIGH_REACHABLE)
            fixture_advance(fixture, TICK_S(1));
        fixture_advance(fixture, 1);
        neigh_confirm(fixture->stack, &fixture->stack->ports[0], 4, neigh->ip, fixture->now);
    }
    assert_in_range(least, TICK_S(15), TICK_S(18));
    assert_in_range(most, TICK_S(42), TICK_S(45));
    flow_close(fixture->plane, flow);
    fixture_free(fixture);
}

/* Used while stale: the packet goes at once, five seconds later the station is asked, alone. */
static void test_probe_before_expiry(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(families); i++) {
        struct fixture *fixture = fixture_usual();
        const char *ip = families[i].peer;
        struct flow flow = open_to(fixture, ip);

        bring_to(fixture, ip, flow, NEIGH_STALE);
        fixture_forget(fixture, 0);
        send_text(fixture, flow, "stale");
        expect_datagram(fixture, fixture_peer_mac, "stale");
        fixture_advance(fixture, TICK_MS(4998));
        assert_int_equal(0, fixture_sent_count(fixture, 0));
        for (uint32_t j = 0; j < 3; j++) {
            fixture_advance(fixture, TICK_MS(j == 0 ? 3 : 1000));
            expect_question(fixture, ip, fixture_peer_mac);
            send_text(fixture, flow, "probed");
            expect_datagram(fixture, fixture_peer_mac, "probed");
        }
        /* It is silent and in use: everybody is asked, and packets wait. */
        fixture_advance(fixture, TICK_MS(1000));
        expect_question(fixture, ip, NULL);
        assert_int_equal(NEIGH_INCOMPLETE, state_of(fixture, ip));
        send_text(fixture, flow, "waits");
        assert_int_equal(0, fixture_sent_count(fixture, 0));
        fixture_answer(fixture, ip, fixture_router_mac);
        expect_datagram(fixture, fixture_router_mac, "waits");
        fixture_free(fixture);
    }
}

/* Answers to what was sent make questions needless (RFC 4861 7.3.1), as long as they come. */
static void test_progress_confirms(void **state)
{
    struct fixture *fixture = fixture_usual();
    struct flow flow = make_reachable(fixture, families[0].peer);
    struct flow_address address = fixture_address(families[0].peer, 0);
    struct destination *destination = destination_acquire(fixture->stack, 4, address.ip);

    (void)state;
    for (uint32_t second = 0; second < 300; second++) {
        send_text(fixture, flow, "data");
        fixture_advance(fixture, TICK_S(1));
        destination_confirm(fixture->stack, destination);
    }
    assert_int_equal(300, fixture_sent_count(fixture, 0));
    for (uint32_t i = 0; i < 300; i++)
        expect_datagram(fixture, fixture_peer_mac, "data");
    for (uint32_t second = 0; second < 70; second++) {
        send_text(fixture, flow, "data");
        fixture_advance(fixture, TICK_S(1));
    }
    uint32_t questions = 0;
    while (fixture_sent_count(fixture, 0) > 0)
        questions += fixture_take(fixture, 0).ethernet.type == ETHERTYPE_ARP;
    assert_true(questions > 0);
    destination_release(fixture->stack, destination);
    fixture_free(fixture);
}

/* Near the end of its time, an answer to TCP gives it more. */
static void test_progress_extends(void **state)
{
    struct fixture *fixture = fixture_usual();
    struct flow flow = make_reachable(fixture, families[0].peer);
    struct flow_address address = fixture_address(families[0].peer, 0);
    struct neigh *neigh = find(fixture, families[0].peer);
    tick_us end = neigh->reachable_until;

    (void)state;
    fixture_advance(fixture, end - fixture->now - TICK_S(1));
    neigh_confirm(fixture->stack, &fixture->stack->ports[0], 4, address.ip, fixture->now);
    assert_int_equal(fixture->now + TICK_S(15), neigh->reachable_until);
    fixture_advance(fixture, TICK_S(15) - TICK_MS(1));
    assert_int_equal(NEIGH_REACHABLE, state_of(fixture, families[0].peer));
    fixture_advance(fixture, TICK_MS(2));
    assert_int_equal(NEIGH_STALE, state_of(fixture, families[0].peer));
    flow_close(fixture->plane, flow);
    fixture_free(fixture);
}

/* It counts from when it came, not from when it was looked at. */
static void test_late_progress_counts_from_its_time(void **state)
{
    struct fixture *fixture = fixture_usual();
    struct flow flow = make_reachable(fixture, families[0].peer);
    struct neigh *neigh = find(fixture, families[0].peer);
    uint32_t confirmed = 0;

    (void)state;
    for (uint32_t i = 0; i < 40; i++) {
        while (state_of(fixture, families[0].peer) == NEIGH_REACHABLE)
            fixture_advance(fixture, TICK_S(1));
        tick_us at = fixture->now;
        fixture_advance(fixture, TICK_S(15) + (i % 2)); /* RFC 4861 7.3.1: not for ever */
        neigh_confirm(fixture->stack, &fixture->stack->ports[0], 4, neigh->ip, at);
        if (i % 2 == 0) {
            assert_int_equal(NEIGH_REACHABLE, neigh->state);
            assert_in_range(neigh->reachable_until - at, TICK_S(15), TICK_S(45));
            confirmed++;
        } else {
            assert_int_equal(NEIGH_STALE, neigh->state);
        }
    }
    assert_int_equal(20, confirmed);
    flow_close(fixture->plane, flow);
    fixture_free(fixture);
}

/* A confirmation from before the address changed says nothing about the new one. */
static void test_old_progress_does_not_confirm(void **state)
{
    struct fixture *fixture = fixture_usual();
    struct flow flow = make_reachable(fixture, families[0].peer);
    struct flow_address address = fixture_address(families[0].peer, 0);
    tick_us before = fixture->now;

    (void)state;
    fixture_advance(fixture, TICK_S(1));
    hear(fixture, &families[0], false, fixture_evil_mac, true);
    fixture_advance(fixture, TICK_MS(901)); /* the old one is silent */
    assert_memory_equal(fixture_evil_mac, find(fixture, families[0].peer)->mac, 6);
    neigh_confirm(fixture->stack, &fixture->stack->ports[0], 4, address.ip, before);
    assert_int_equal(NEIGH_PROBE, state_of(fixture, families[0].peer));
    fixture_advance(fixture, 1);
    neigh_confirm(fixture->stack, &fixture->stack->ports[0], 4, address.ip, fixture->now);
    assert_int_equal(NEIGH_REACHABLE, state_of(fixture, families[0].peer));
    flow_close(fixture->plane, flow);
    fixture_free(fixture);
}

static void doubt(struct fixture *fixture, const struct family *family)
{
    struct flow_address address = fixture_address(family->peer, 0);

    neigh_doubt(fixture->stack, &fixture->stack->ports[0], address.family, address.ip);
}

/* A doubt asks the place that is known, and what was heard before it does not answer. However many
 * doubt, the question is asked once in five seconds. */
static void test_doubt_asks_once_in_a_while(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(families); i++) {
        const struct family *family = &families[i];
        struct fixture *fixture = fixture_usual();
        struct flow flow = make_reachable(fixture, family->peer);
        struct flow_address address = fixture_address(family->peer, 0);
        tick_us before = fixture->now;

        fixture_advance(fixture, TICK_MS(10));
        doubt(fixture, family);
        assert_int_equal(NEIGH_PROBE, state_of(fixture, family->peer));
        neigh_confirm(fixture->stack, &fixture->stack->ports[0], address.family, address.ip,
                      before);
        assert_int_equal(NEIGH_PROBE, state_of(fixture, family->peer));
        hear(fixture, family, true, fixture_peer_mac, true);
        assert_int_equal(NEIGH_REACHABLE, state_of(fixture, family->peer));
        fixture_advance(fixture, TICK_S(5) - 1);
        doubt(fixture, family);
        assert_int_equal(NEIGH_REACHABLE, state_of(fixture, family->peer));
        fixture_advance(fixture, 1);
        doubt(fixture, family);
        assert_int_equal(NEIGH_PROBE, state_of(fixture, family->peer));
        /* Nobody is there: everybody is asked, though nothing more was sent. */
        fixture_advance(fixture, TICK_S(3));
        assert_int_equal(NEIGH_INCOMPLETE, state_of(fixture, family->peer));
        doubt(fixture, family);
        assert_int_equal(NEIGH_INCOMPLETE, state_of(fixture, family->peer));
        flow_close(fixture->plane, flow);
        fixture_free(fixture);
    }
}

static void test_idle_is_forgotten(void **state)
{
    struct fixture *fixture = fixture_usual();

    (void)state;
    make_reachable(fixture, families[0].peer);
    fixture_advance(fixture, TICK_S(45 + 120) + TICK_MS(2));
    assert_null(find(fixture, families[0].peer));
    assert_int_equal(0, fixture->stack->wheel.armed);
    fixture_free(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_packet_is_kept),
        cmocka_unit_test(test_router_is_asked_for_remote_hosts),
        cmocka_unit_test(test_packets_wait),
        cmocka_unit_test(test_waiting_is_bounded),
        cmocka_unit_test(test_silence_fails),
        cmocka_unit_test(test_states_and_events),
        cmocka_unit_test(test_reachable_time_is_spread),
        cmocka_unit_test(test_probe_before_expiry),
        cmocka_unit_test(test_progress_confirms),
        cmocka_unit_test(test_progress_extends),
        cmocka_unit_test(test_late_progress_counts_from_its_time),
        cmocka_unit_test(test_old_progress_does_not_confirm),
        cmocka_unit_test(test_doubt_asks_once_in_a_while),
        cmocka_unit_test(test_idle_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

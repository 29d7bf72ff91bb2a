/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ICMP: pings, errors and whom they are told, what is sent and how often.
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

/* The ends of a packet: a remote host, its router's address on the link, us. */
struct ends {
    uint8_t family, icmp;
    const char *remote, *us;
};
static const struct ends ends4 = {4, IP_PROTOCOL_ICMP, "198.51.100.7", "192.0.2.1"};
static const struct ends ends6 = {6, IP_PROTOCOL_ICMP6, "2001:db9::7", "2001:db8::1"};
static const struct ends *const both_ends[] = {&ends4, &ends6};

static uint32_t echo_build(uint8_t family, uint8_t *ret_message, uint32_t data_size)
{
    memset(ret_message, 0, 8);
    ret_message[0] = family == 4 ? ICMP_ECHO_REQUEST4 : ICMP_ECHO_REQUEST6;
    store_be16(ret_message + 4, 0x1234);
    store_be16(ret_message + 6, 7);
    for (uint32_t i = 0; i < data_size; i++)
        ret_message[8 + i] = (uint8_t)i;
    return 8 + data_size;
}

static void ping(struct fixture *fixture, const char *source, const char *destination)
{
    struct flow_address address = fixture_address(source, 0);
    uint8_t message[64];
    uint32_t size = echo_build(address.family, message, 32);

    fixture_input(fixture,
                  &(struct fixture_packet){.source = source,
                                           .destination = destination,
                                           .from = fixture_router_mac,
                                           .protocol = address.family == 4 ? IP_PROTOCOL_ICMP
                                                                           : IP_PROTOCOL_ICMP6,
                                           .ttl = 255,
                                           .payload = span_of(message, size)});
}

/* ---- echo ---- */

/* Back to the station it came from, of whatever size, in whatever pieces; nothing is remembered. */
static void test_echo(void **state)
{
    static const uint32_t sizes[] = {0, 1, 33, 500, 1452};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(sizes) * 2 * 3; i++) {
        const struct ends *ends = both_ends[i % 2];
        static const uint32_t pieces[] = {FIXTURE_FRAME_SIZE, 700, 400};
        struct fixture *fixture = fixture_usual();
        uint8_t message[2048], frame[2048];
        uint32_t size = echo_build(ends->family, message, sizes[i / 2 % COUNT_OF(sizes)]);
        const struct fixture_packet packet = {.source = ends->remote,
                                              .destination = ends->us,
                                              .from = fixture_router_mac,
                                              .protocol = ends->icmp,
                                              .payload = span_of(message, size)};
        uint32_t frame_size = fixture_build(&packet, frame);
        fixture_inject_pieces(fixture, 0, span_of(frame, frame_size), pieces[i / 2 / 5],
                              BUF_HEADROOM);
        fixture_turn(fixture, NULL, 0);
        struct fixture_view view = fixture_take(fixture, 0);
        assert_memory_equal(fixture_router_mac, view.ethernet.destination, 6);
        assert_true(fixture_ip_is(view.ip.source, ends->us));
        assert_true(fixture_ip_is(view.ip.destination, ends->remote));
        assert_int_equal(64, view.ip.ttl);
        assert_int_equal(size, view.l4.size);
        assert_int_equal(ends->family == 4 ? ICMP_ECHO_REPLY4 : ICMP_ECHO_REPLY6, view.l4.data[0]);
        assert_memory_equal(message + 4, view.l4.data + 4, size - 4);
        assert_int_equal(0, fixture_sent_count(fixture, 0));
        assert_int_equal(1, COUNTER(fixture, ICMP_ECHO_ANSWERED));
        fixture_free(fixture);
    }
}

static void test_whom_echo_answers(void **state)
{
    static const struct {
        const char *source, *destination, *answers; /* NULL: nobody */
    } rows[] = {
        {"198.51.100.7", "192.0.2.255", NULL},
        {"198.51.100.7", "255.255.255.255", NULL},
        {"198.51.100.7", "224.0.0.1", NULL},
        {"192.0.2.255", "192.0.2.1", NULL},
        {"255.255.255.255", "192.0.2.1", NULL},
        {"192.0.2.1", "192.0.2.1", NULL},
        {"2001:db8::7", "ff02::1", "2001:db8::1"},
        {"fe80::7", "ff02::1", "fe80::1"},
        {"::", "ff02::1", NULL},
        {"2001:db8::1", "ff02::1", NULL},
        {"ff02::1", "2001:db8::1", NULL},
        {"2001:db8::7", "ff02::2", NULL},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture *fixture = fixture_usual();
        ping(fixture, rows[i].source, rows[i].destination);
        if (fixture_sent_count(fixture, 0) != (rows[i].answers != NULL))
            fail_msg("%s to %s", rows[i].source, rows[i].destination);
        if (rows[i].answers != NULL)
            assert_true(fixture_ip_is(fixture_take(fixture, 0).ip.source, rows[i].answers));
        fixture_free(fixture);
    }
}

static void test_echo_is_limited_by_source(void **state)
{
    struct fixture *fixture = fixture_usual();
    uint32_t answered;

    (void)state;
    for (uint32_t i = 0; i < 150; i++)
        ping(fixture, ends4.remote, ends4.us);
    answered = fixture_sent_count(fixture, 0);
    assert_in_range(answered, 50, 100);
    assert_int_equal(150 - answered, COUNTER(fixture, ICMP_LIMITED));
    ping(fixture, "198.51.100.8", ends4.us); /* another's bucket */
    assert_int_equal(answered + 1, fixture_sent_count(fixture, 0));
    fixture_advance(fixture, TICK_S(1));
    ping(fixture, ends4.remote, ends4.us);
    assert_int_equal(answered + 2, fixture_sent_count(fixture, 0));
    fixture_free(fixture);
}

/* Without buffers there are no answers, and no harm. */
static void test_no_buffers(void **state)
{
    struct fixture *fixture = fixture_usual();
    struct buf *held[256];

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(held); i++)
        held[i] = buf_acquire(fixture->pool);
    ping(fixture, ends4.remote, ends4.us);
    assert_int_equal(1, COUNTER(fixture, SEND_NO_BUFFER));
    assert_int_equal(0, fixture_sent_count(fixture, 0));
    for (uint32_t i = 0; i < COUNT_OF(held); i++)
        buf_release(held[i]);
    ping(fixture, ends4.remote, ends4.us);
    assert_int_equal(1, fixture_sent_count(fixture, 0));
    fixture_free(fixture);
}

static void test_broken_messages(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        const struct ends *ends = both_ends[i];
        struct fixture *fixture = fixture_usual();
        uint8_t message[64], frame[256];
        uint32_t size = echo_build(ends->family, message, 8);
        struct fixture_packet packet = {.source = ends->remote,
                                        .destination = ends->us,
                                        .protocol = ends->icmp,
                                        .payload = span_of(message, 7)};
        fixture_input(fixture, &packet);
        assert_int_equal(1, COUNTER(fixture, ICMP_MALFORMED));
        packet.payload.size = size;
        uint32_t frame_size = fixture_build(&packet, frame);
        frame[frame_size - 1] ^= 1;
        fixture_inject(fixture, 0, span_of(frame, frame_size));
        /* Whatever the nic says: it does not know ICMP. */
        fixture->nics[0].arriving[0]->mbuf.ol_flags = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
        fixture_turn(fixture, NULL, 0);
        assert_int_equal(1, COUNTER(fixture, ICMP_CHECKSUM));
        assert_int_equal(0, fixture_sent_count(fixture, 0));
        fixture_free(fixture);
    }
}

static void test_ignored_types(void **state)
{
    static const struct {
        const struct ends *ends;
        uint8_t type;
        enum stack_counter counter;
    } rows[] = {
        {&ends4, ICMP_ECHO_REPLY4, STACK_ICMP_IGNORED},
        {&ends4, 4, STACK_ICMP_IGNORED}, /* source quench, RFC 6633 */
        {&ends4, 5, STACK_ICMP_REDIRECT},
        {&ends4, 9, STACK_ICMP_IGNORED},
        {&ends4, 13, STACK_ICMP_IGNORED}, /* timestamp */
        {&ends6, ICMP_ECHO_REPLY6, STACK_ICMP_IGNORED},
        {&ends6, 131, STACK_ICMP_IGNORED}, /* what others are in */
        {&ends6, ICMP_ROUTER_ADVERTISEMENT6, STACK_ICMP_ROUTER_ADVERTISEMENT},
        {&ends6, 137, STACK_ICMP_REDIRECT},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture *fixture = fixture_usual();
        uint8_t message[64] = {rows[i].type};
        fixture_input(fixture, &(struct fixture_packet){.source = rows[i].ends->remote,
                                                        .destination = rows[i].ends->us,
                                                        .protocol = rows[i].ends->icmp,
                                                        .ttl = 255,
                                                        .payload = span_of(message, 64)});
        assert_int_equal(1, fixture_counter(fixture, rows[i].counter));
        assert_int_equal(0, fixture_sent_count(fixture, 0));
        fixture_free(fixture);
    }
}

/* ---- errors that come in ---- */

struct quote {
    const char *source, *destination;
    uint8_t protocol;
    uint16_t source_port, destination_port, size; /* size: of the IP packet, as its header says */
    uint32_t sequence;
};

static uint32_t error_build(uint8_t family, uint8_t type, uint8_t code, uint32_t rest,
                            const struct quote *quote, uint8_t *ret_message)
{
    struct flow_address source = fixture_address(quote->source, 0);
    struct flow_address destination = fixture_address(quote->destination, 0);
    uint16_t ip_size = family == 4 ? IP4_HEADER_SIZE : IP6_HEADER_SIZE;
    struct ip_header ip = {.family = family,
                           .protocol = quote->protocol,
                           .ttl = 1,
                           .payload_size = (uint16_t)(quote->size - ip_size)};

    memset(ret_message, 0, 128);
    ret_message[0] = type;
    ret_message[1] = code;
    store_be32(ret_message + 4, rest);
    memcpy(ip.source, source.ip, 16);
    memcpy(ip.destination, destination.ip, 16);
    if (family == 4)
        ip4_build(&ip, true, ret_message + 8);
    else
        ip6_build(&ip, ret_message + 8);
    uint8_t *l4 = ret_message + 8 + ip_size;
    store_be16(l4, quote->source_port);
    store_be16(l4 + 2, quote->destination_port);
    store_be32(l4 + 4, quote->sequence);
    return 8u + ip_size + 8u;
}

static void error_input(struct fixture *fixture, const struct ends *ends, const char *router,
                        uint8_t type, uint8_t code, uint32_t rest, const struct quote *quote)
{
    uint8_t message[128];
    uint32_t size = error_build(ends->family, type, code, rest, quote, message);

    fixture_input(fixture, &(struct fixture_packet){.source = router,
                                                    .destination = ends->us,
                                                    .from = fixture_router_mac,
                                                    .protocol = ends->icmp,
                                                    .payload = span_of(message, size)});
}

static struct quote quote_usual(const struct ends *ends)
{
    return (struct quote){ends->us, ends->remote, IP_PROTOCOL_TCP, 40000, 25, 1500, 0x01020304};
}

static void test_errors_reach_tcp(void **state)
{
    static const struct {
        const struct ends *ends;
        uint8_t type, code;
        uint32_t rest;
        uint16_t mtu;
    } rows[] = {
        {&ends4, ICMP_UNREACHABLE4, 1, 0, 0},    {&ends4, ICMP_UNREACHABLE4, 4, 1400, 1400},
        {&ends4, ICMP_UNREACHABLE4, 4, 0, 1492}, /* RFC 1191 7.1: below 1500 */
        {&ends4, ICMP_TIME_EXCEEDED4, 0, 0, 0},  {&ends4, ICMP_PARAMETER4, 0, 0, 0},
        {&ends6, ICMP_UNREACHABLE6, 3, 0, 0},    {&ends6, ICMP_PACKET_TOO_BIG6, 0, 1300, 1300},
        {&ends6, ICMP_TIME_EXCEEDED6, 0, 0, 0},  {&ends6, ICMP_PARAMETER6, 1, 0, 0},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture *fixture = fixture_usual();
        struct quote quote = quote_usual(rows[i].ends);
        error_input(fixture, rows[i].ends, rows[i].ends == &ends4 ? "203.0.113.1" : "2001:db9::ff",
                    rows[i].type, rows[i].code, rows[i].rest, &quote);
        assert_int_equal(1, fixture->error_count);
        assert_int_equal(rows[i].type, fixture->error.type);
        assert_int_equal(rows[i].code, fixture->error.code);
        assert_int_equal(rows[i].mtu, fixture->error.mtu);
        assert_int_equal(0x01020304, fixture->error.sequence);
        assert_int_equal(40000, fixture->error.source_port);
        assert_int_equal(1, COUNTER(fixture, ICMP_ERROR_RECEIVED));
        fixture_free(fixture);
    }
}

/* A router that does not say its MTU: the next common one below what it refused. */
static void test_guessed_mtu(void **state)
{
    static const struct {
        uint16_t size, mtu;
    } rows[] = {{9000, 8166}, {8166, 4352}, {1500, 1492}, {1492, 1006},
                {1007, 1006}, {1006, 552},  {553, 552},   {552, 0}};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture *fixture = fixture_usual();
        struct quote quote = quote_usual(&ends4);
        quote.size = rows[i].size;
        error_input(fixture, &ends4, "203.0.113.1", ICMP_UNREACHABLE4, 4, 0, &quote);
        assert_int_equal(rows[i].mtu, fixture->error.mtu);
        fixture_free(fixture);
    }
}

static void test_forged_errors(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        const struct ends *ends = both_ends[i];
        uint8_t type = ends->family == 4 ? ICMP_UNREACHABLE4 : ICMP_UNREACHABLE6;
        struct fixture *fixture = fixture_usual();
        struct quote quote = quote_usual(ends);
        quote.source = ends->remote; /* not sent by us */
        error_input(fixture, ends, ends->remote, type, 1, 0, &quote);
        quote.source = ends->family == 4 ? "10.1.0.1" : "fe80::1"; /* not by the one it is told */
        error_input(fixture, ends, ends->remote, type, 1, 0, &quote);
        assert_int_equal(2, COUNTER(fixture, ICMP_ERROR_FORGED));
        quote = quote_usual(ends);
        quote.protocol = ends->icmp; /* no error is told about ICMP to anybody */
        error_input(fixture, ends, ends->remote, type, 1, 0, &quote);
        assert_int_equal(1, COUNTER(fixture, ICMP_MALFORMED));
        assert_int_equal(0, fixture->error_count);
        fixture_free(fixture);
    }
}

/* Errors come from anywhere, so the nic gives them to any core: they go to that of the quote. */
static void test_errors_of_other_cores(void **state)
{
    struct fixture_options options = fixture_defaults();

    (void)state;
    options.queue_count = options.core_count = 4;
    options.is_hardware = true;
    struct fixture *fixture = fixture_new(&options);
    const struct nic_steering *steering = &fixture->nics[0].nic.steering;
    struct fixture_frames *passed = &fixture->nics[0].passed;
    uint32_t here = 0;
    for (uint16_t i = 0; i < 100; i++) {
        const struct ends *ends = both_ends[i % 2];
        struct flow_address remote = fixture_address(ends->remote, 0);
        struct flow_address us = fixture_address(ends->us, 0);
        struct quote quote = quote_usual(ends);
        quote.source_port = (uint16_t)(40000 + i);
        uint32_t hash =
            rss_hash(steering->key, ends->family, remote.ip, us.ip, 25, quote.source_port);
        uint16_t queue = steering->reta[hash % 128];
        error_input(fixture, ends, ends->family == 4 ? "203.0.113.1" : "2001:db9::ff",
                    ends->family == 4 ? ICMP_UNREACHABLE4 : ICMP_UNREACHABLE6, 1, 0, &quote);
        here += queue == 0;
        assert_int_equal(here, fixture->error_count);
        assert_int_equal(i + 1u - here, passed->count);
        if (queue != 0)
            assert_int_equal(queue, passed->frames[passed->count - 1]->queue);
    }
    assert_in_range(here, 10, 45);
    fixture_free(fixture);
}

/* Too large for a single buffer's headers: it is our copy then, and stays here. */
static void test_copied_error_is_not_passed(void **state)
{
    struct fixture_options options = fixture_defaults();

    (void)state;
    options.queue_count = options.core_count = 128;
    options.is_hardware = true;
    struct fixture *fixture = fixture_new(&options);
    struct quote quote = quote_usual(&ends4);
    uint8_t message[128], frame[256];
    uint32_t size = error_build(4, ICMP_UNREACHABLE4, 1, 0, &quote, message);
    const struct fixture_packet packet = {.source = ends4.remote,
                                          .destination = ends4.us,
                                          .protocol = IP_PROTOCOL_ICMP,
                                          .payload = span_of(message, size)};
    uint32_t frame_size = fixture_build(&packet, frame);
    for (uint32_t piece = 20; piece <= 200; piece += 180) {
        fixture_inject_pieces(fixture, 0, span_of(frame, frame_size), piece,
                              BUF_HEADROOM + FIXTURE_FRAME_SIZE - piece);
        fixture_turn(fixture, NULL, 0);
        assert_int_equal(1, COUNTER(fixture, FRAME_SPLIT));
        assert_int_equal(piece > 20, COUNTER(fixture, FRAMES_PASSED));
    }
    fixture_free(fixture);
}

/* ---- port unreachable ---- */

static void probe_port(struct fixture *fixture, const struct ends *ends, struct span payload)
{
    fixture_input(fixture, &(struct fixture_packet){.source = ends->remote,
                                                    .destination = ends->us,
                                                    .from = fixture_router_mac,
                                                    .protocol = IP_PROTOCOL_UDP,
                                                    .source_port = 53,
                                                    .destination_port = 9,
                                                    .payload = payload});
}

static void test_port_unreachable(void **state)
{
    static uint8_t payload[1000];

    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        const struct ends *ends = both_ends[i % 2];
        struct fixture *fixture = fixture_usual();
        struct icmp_error error;
        probe_port(fixture, ends, span_of(payload, i < 2 ? 0 : sizeof(payload)));
        struct fixture_view view = fixture_take(fixture, 0);
        assert_memory_equal(fixture_router_mac, view.ethernet.destination, 6);
        assert_true(fixture_ip_is(view.ip.destination, ends->remote));
        assert_int_equal(PACKET_OK, icmp_error_parse(ends->family, view.l4, &error));
        assert_int_equal(ends->family == 4 ? 3 : 1, error.type);
        assert_int_equal(ends->family == 4 ? 3 : 4, error.code);
        assert_int_equal(53, error.source_port);
        assert_int_equal(9, error.destination_port);
        assert_int_equal(1, COUNTER(fixture, UDP_CLOSED_PORT));
        fixture_free(fixture);
    }
}

static void test_port_unreachable_is_limited(void **state)
{
    struct fixture *fixture = fixture_usual();
    uint32_t sent[20], different = 0;

    (void)state;
    for (uint32_t second = 0; second < COUNT_OF(sent); second++) {
        for (uint32_t i = 0; i < 12; i++)
            probe_port(fixture, &ends4, (struct span){NULL, 0});
        sent[second] = fixture_sent_count(fixture, 0);
        assert_in_range(sent[second], 5, 10);
        fixture_forget(fixture, 0);
        different += second > 0 && sent[second] != sent[second - 1];
        fixture_advance(fixture, TICK_S(1));
    }
    assert_true(different > 0); /* the limit itself cannot be counted on */
    fixture_free(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo),
        cmocka_unit_test(test_whom_echo_answers),
        cmocka_unit_test(test_echo_is_limited_by_source),
        cmocka_unit_test(test_no_buffers),
        cmocka_unit_test(test_broken_messages),
        cmocka_unit_test(test_ignored_types),
        cmocka_unit_test(test_errors_reach_tcp),
        cmocka_unit_test(test_guessed_mtu),
        cmocka_unit_test(test_forged_errors),
        cmocka_unit_test(test_errors_of_other_cores),
        cmocka_unit_test(test_copied_error_is_not_passed),
        cmocka_unit_test(test_port_unreachable),
        cmocka_unit_test(test_port_unreachable_is_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

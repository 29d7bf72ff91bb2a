/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Membership in the solicited-node groups: what is said at start and to whom, and the answers to
 * queries of both versions of MLD.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants the ones above first. */
#include <cmocka.h>

#include "dataplane/wire/net/neighbour.h"
#include "tests/unit/wire_fixture.h"

#define REPORT1 131u
#define REPORT2 143u

static const uint8_t group[16] = {0xff, 0x02, [11] = 1, [12] = 0xff, [15] = 1};

static struct fixture *fixture_usual(void)
{
    const struct fixture_options options = fixture_defaults();
    return fixture_new(&options);
}

/* A report as every one must be (RFC 3810 5.2, 5.2.13); its checksum was looked at. */
static struct fixture_view take_report(struct fixture *fixture, const char *destination,
                                       const char *source)
{
    static const uint8_t alert[8] = {IP_PROTOCOL_ICMP6, 0, 5, 2, 0, 0, 1, 0};
    struct fixture_view view = fixture_take(fixture, 0);

    assert_int_equal(1, view.ip.ttl);
    assert_int_equal(IP_PROTOCOL_ICMP6, view.ip.protocol);
    assert_true(view.ip.has_router_alert_or_route);
    assert_true(fixture_ip_is(view.ip.destination, destination));
    assert_true(fixture_ip_is(view.ip.source, source));
    assert_int_equal(0x33, view.ethernet.destination[0]);
    assert_int_equal(0x33, view.ethernet.destination[1]);
    assert_memory_equal(view.ip.destination + 12, view.ethernet.destination + 2, 4);
    assert_memory_equal(alert, view.l4.data - sizeof(alert), sizeof(alert));
    return view;
}

static void expect_report2(struct fixture *fixture, uint8_t record_type, const char *source)
{
    struct fixture_view view = take_report(fixture, "ff02::16", source);

    assert_int_equal(28, view.l4.size);
    assert_int_equal(REPORT2, view.l4.data[0]);
    assert_int_equal(1, load_be16(view.l4.data + 6)); /* both addresses have one group */
    assert_int_equal(record_type, view.l4.data[8]);
    assert_int_equal(0, view.l4.data[9]);
    assert_int_equal(0, load_be16(view.l4.data + 10));
    assert_memory_equal(group, view.l4.data + 12, 16);
}

/* A query with the router alert in front; `size` is that of the ICMP message. */
static void input_query(struct fixture *fixture, const char *source, const char *destination,
                        uint8_t ttl, uint16_t response, uint32_t size)
{
    uint8_t octets[8 + 64] = {IP_PROTOCOL_ICMP6, 0, 5, 2, 0, 0, 1, 0};
    struct flow_address from = fixture_address(source, 0), to = fixture_address(destination, 0);
    uint8_t *message = octets + 8;

    message[0] = ICMP_MEMBERSHIP_QUERY6;
    store_be16(message + 4, response);
    uint16_t checksum = wire_sum_finish(
        wire_sum(message, size) + wire_sum_pseudo(6, from.ip, to.ip, IP_PROTOCOL_ICMP6, size));
    memcpy(message + 2, &checksum, 2);
    fixture_input(fixture, &(struct fixture_packet){.source = source,
                                                    .destination = destination,
                                                    .from = fixture_router_mac,
                                                    .protocol = 0,
                                                    .ttl = ttl,
                                                    .payload = span_of(octets, 8 + size)});
}

static void test_join_at_start(void **state)
{
    struct fixture_options options = fixture_defaults();

    (void)state;
    options.is_fresh = true;
    struct fixture *fixture = fixture_new(&options);
    fixture_turn(fixture, NULL, 0);
    expect_report2(fixture, 4, "::"); /* no address is ours yet */
    fixture_forget(fixture, 0);
    fixture_advance(fixture, TICK_S(1));
    expect_report2(fixture, 4, "fe80::1");
    fixture_free(fixture);
}

/* Eleven groups fit a report; the twelfth goes in another. */
static void test_many_groups(void **state)
{
    (void)state;
    for (uint32_t count = 11; count <= 12; count++) {
        struct fixture *fixture = fixture_usual();
        struct stack_address address = {fixture_address("2001:db8::1:0", 0), 64};
        for (uint32_t i = 1; i < count; i++) { /* one is there */
            address.address.ip[15] = (uint8_t)i;
            stack_local_add(fixture->stack, &fixture->stack->ports[0], &address);
        }
        membership_join(fixture->stack);
        fixture_turn(fixture, NULL, 0);
        assert_int_equal(count - 10, fixture_sent_count(fixture, 0));
        for (uint32_t at = 0; at < count; at += 11) {
            struct fixture_view view = take_report(fixture, "ff02::16", "fe80::1");
            uint32_t records = count - at < 11 ? count - at : 11;
            assert_int_equal(records, load_be16(view.l4.data + 6));
            assert_int_equal(8 + 20 * records, view.l4.size);
        }
        fixture_free(fixture);
    }
}

/* The answer comes within what the query grants, and a tenth of a second at least. */
static void test_answers(void **state)
{
    static const struct {
        uint32_t size;
        uint16_t response;
        tick_us most;
    } rows[] = {
        {28, 0, 0},
        {28, 1000, TICK_S(1)},
        {28, 0x7fff, TICK_S(10)}, /* no longer than we wait */
        {28, 0x8000, TICK_S(10)}, /* 0x1000 << 3 ms */
        {24, 0, 0},
        {24, 2000, TICK_S(2)},
        {24, 0x8000, TICK_S(10)}, /* a number, in version 1 */
        {44, 500, TICK_MS(500)},  /* with a source */
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture *fixture = fixture_usual();
        tick_us before = fixture->now;
        input_query(fixture, "fe80::fe", "ff02::1", 1, rows[i].response, rows[i].size);
        assert_int_equal(0, stack_get_usage(fixture->stack).armed_timers);
        fixture_advance(fixture, TICK_MS(99));
        assert_int_equal(0, fixture_sent_count(fixture, 0));
        while (fixture_sent_count(fixture, 0) == 0) {
            fixture_advance(fixture, TICK_MS(1));
            assert_true(fixture->now - before <= TICK_MS(102) + rows[i].most);
        }
        if (rows[i].size == 24) {
            struct fixture_view view = take_report(fixture, "ff02::1:ff00:1", "fe80::1");
            assert_int_equal(24, view.l4.size);
            assert_int_equal(REPORT1, view.l4.data[0]);
            assert_memory_equal(group, view.l4.data + 8, 16);
        } else {
            expect_report2(fixture, 2, "fe80::1");
        }
        fixture_advance(fixture, TICK_S(20));
        assert_int_equal(0, fixture_sent_count(fixture, 0));
        fixture_free(fixture);
    }
}

static void test_whose_queries_are_answered(void **state)
{
    static const struct {
        const char *name, *source, *destination;
        uint8_t ttl;
        uint32_t size;
        enum stack_counter counter; /* STACK_COUNTER_COUNT: answered */
    } rows[] = {
        {"general", "fe80::fe", "ff02::1", 1, 28, STACK_COUNTER_COUNT},
        {"of our group", "fe80::fe", "ff02::1:ff00:1", 1, 28, STACK_COUNTER_COUNT},
        {"of another group", "fe80::fe", "ff02::1:ff00:2", 1, 28, STACK_IP_NOT_OURS},
        {"over a router", "fe80::fe", "ff02::1", 2, 28, STACK_ICMP_MALFORMED},
        {"from no link-local address", "2001:db8::fe", "ff02::1", 1, 28, STACK_ICMP_MALFORMED},
        {"short", "fe80::fe", "ff02::1", 1, 23, STACK_ICMP_MALFORMED},
        {"of neither version", "fe80::fe", "ff02::1", 1, 25, STACK_ICMP_MALFORMED},
        {"of neither version", "fe80::fe", "ff02::1", 1, 27, STACK_ICMP_MALFORMED},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture *fixture = fixture_usual();
        bool is_answered = rows[i].counter == STACK_COUNTER_COUNT;
        input_query(fixture, rows[i].source, rows[i].destination, rows[i].ttl, 100, rows[i].size);
        fixture_advance(fixture, TICK_S(1));
        if (fixture_sent_count(fixture, 0) != is_answered ||
            (!is_answered && fixture_counter(fixture, rows[i].counter) != 1))
            fail_msg("%s", rows[i].name);
        fixture_free(fixture);
    }
}

/* The alert lets nothing else in. */
static void test_router_alert_of_others(void **state)
{
    struct fixture *fixture = fixture_usual();
    uint8_t octets[8 + 16] = {IP_PROTOCOL_ICMP6, 0, 5, 2, 0, 0, 1, 0};

    (void)state;
    octets[8] = ICMP_ECHO_REQUEST6;
    fixture_input(fixture, &(struct fixture_packet){.source = "fe80::fe",
                                                    .destination = "ff02::1",
                                                    .protocol = 0,
                                                    .payload = span_of(octets, sizeof(octets))});
    assert_int_equal(1, COUNTER(fixture, IP_ROUTED));
    fixture_free(fixture);
}

/* Queries without end are answered every tenth of a second. */
static void test_flood_of_queries(void **state)
{
    struct fixture *fixture = fixture_usual();

    (void)state;
    for (uint32_t i = 0; i < 1000; i++) {
        input_query(fixture, "fe80::fe", "ff02::1", 1, 0, 28);
        fixture_advance(fixture, TICK_MS(1));
    }
    assert_in_range(fixture_sent_count(fixture, 0), 9, 10);
    fixture_free(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_join_at_start),
        cmocka_unit_test(test_many_groups),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_whose_queries_are_answered),
        cmocka_unit_test(test_router_alert_of_others),
        cmocka_unit_test(test_flood_of_queries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

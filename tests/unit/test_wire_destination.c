/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of remote addresses: routes, path MTUs and their age, metrics, the bound of the
 * table.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
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

/* ---- routes ---- */

static void test_routes(void **state)
{
    static const struct {
        const char *remote, *next_hop; /* NULL: none */
        uint32_t port;
        const char *source;
    } rows[] = {
        {"192.0.2.77", "192.0.2.77", 0, "192.0.2.1"},
        {"192.0.3.1", "192.0.2.254", 0, "192.0.2.1"},
        {"10.1.255.254", "10.1.255.254", 1, "10.1.0.1"},
        {"10.2.0.1", "192.0.2.254", 0, "192.0.2.1"},
        {"2001:db8::77", "2001:db8::77", 0, "2001:db8::1"},
        {"2001:db8:0:1::1", "2001:db8::fe", 0, "2001:db8::1"},
        {"fe80::77", "fe80::77", 0, "fe80::1"},
        {"fe80:1::77", "fe80:1::77", 0, "fe80::1"},
    };

    (void)state;
    struct fixture_options options = fixture_defaults();
    options.port_count = 2;
    struct fixture *fixture = fixture_new(&options);
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct flow_address remote = fixture_address(rows[i].remote, 0);
        struct stack_port *port;
        uint8_t next_hop[16];
        assert_true(stack_route(fixture->stack, remote.family, remote.ip, &port, next_hop));
        assert_int_equal(rows[i].port, port->index);
        assert_true(fixture_ip_is(next_hop, rows[i].next_hop));
        const struct stack_local *local =
            stack_source_choose(fixture->stack, remote.family, remote.ip);
        assert_true(fixture_ip_is(local->address.address.ip, rows[i].source));
    }
    /* A link-local address is no matter for a router. */
    struct stack_port *first = &fixture->stack->ports[0];
    first->prefix_count = 1;
    assert_null(acquire(fixture, "fe80::77"));
    assert_int_equal(1, COUNTER(fixture, IP_NO_ROUTE));
    first->prefix_count = 3;
    /* Without routers, what is not on a link cannot be reached. */
    fixture->stack->ports[0].gateway4.family = FLOW_FAMILY_NONE;
    fixture->stack->ports[0].gateway6.family = FLOW_FAMILY_NONE;
    assert_null(acquire(fixture, "192.0.3.1"));
    assert_null(acquire(fixture, "2001:db8:0:1::1"));
    assert_int_equal(3, COUNTER(fixture, IP_NO_ROUTE));
    fixture_free(fixture);
}

/* The longest prefix wins, whichever port has it. */
static void test_longest_prefix(void **state)
{
    struct fixture_options options = fixture_defaults();
    struct stack_port *port;
    uint8_t next_hop[16];

    (void)state;
    options.port_count = 2;
    struct fixture *fixture = fixture_new(&options);
    struct flow_address remote = fixture_address("10.1.7.7", 0);
    struct stack_port *first = &fixture->stack->ports[0];
    for (uint8_t bits = 15; bits <= 17; bits++) {
        first->prefixes[first->prefix_count] = (struct stack_prefix){4, bits, {10, 1, 0, 0}};
        first->prefix_count++;
        assert_true(stack_route(fixture->stack, 4, remote.ip, &port, next_hop));
        assert_int_equal(bits < 16, port->index); /* of equals, the first */
        first->prefix_count--;
    }
    /* Also among those of one port, in whatever order they stand. */
    for (uint32_t i = 0; i < 2; i++) {
        first->prefixes[first->prefix_count + i] =
            (struct stack_prefix){4, i == 0 ? 17 : 15, {10, 1, 0, 0}};
        first->prefixes[first->prefix_count + !i] =
            (struct stack_prefix){4, i == 0 ? 15 : 17, {10, 1, 0, 0}};
        first->prefix_count += 2;
        assert_true(stack_route(fixture->stack, 4, remote.ip, &port, next_hop));
        assert_int_equal(0, port->index);
        first->prefix_count -= 2;
    }
    fixture_free(fixture);
}

/* ---- destinations ---- */

static void test_path_mtu(void **state)
{
    static const struct {
        const char *remote;
        uint16_t floor;
    } rows[] = {{"198.51.100.7", 552}, {"2001:db9::7", 1280}};
    struct fixture_options options = fixture_defaults();

    (void)state;
    options.core_count = 2;
    for (uint32_t i = 0; i < 2; i++) {
        struct fixture *fixture = fixture_new(&options);
        struct stack *stack = fixture->stack;
        struct flow_address remote = fixture_address(rows[i].remote, 0);
        struct destination *destination = acquire(fixture, rows[i].remote);

        assert_int_equal(1500, destination_mtu(stack, destination));
        assert_false(destination_mtu_lower(stack, remote.family, remote.ip, 1500, false));
        assert_true(destination_mtu_lower(stack, remote.family, remote.ip, 1499, false));
        assert_false(destination_mtu_lower(stack, remote.family, remote.ip, 1499, false));
        assert_false(destination_mtu_lower(stack, remote.family, remote.ip, 1500, false));
        assert_int_equal(1499, destination_mtu(stack, destination));
        assert_false(destination_mtu_lower(stack, remote.family, remote.ip,
                                           (uint16_t)(rows[i].floor - 1), false));
        assert_true(destination_mtu_lower(stack, remote.family, remote.ip, rows[i].floor, false));
        assert_int_equal(rows[i].floor, destination_mtu(stack, destination));
        assert_int_equal(2, COUNTER(fixture, PMTU_LOWERED));
        assert_int_equal(4, COUNTER(fixture, PMTU_IGNORED));
        /* The other cores hear it, once for each time that it fell. */
        assert_int_equal(2, fixture->news_count);
        assert_int_equal(STACK_NEWS_PMTU, fixture->news[1].kind);
        assert_int_equal(rows[i].floor, fixture->news[1].mtu);
        assert_memory_equal(&remote, &fixture->news[1].address, sizeof(remote));
        /* RFC 1191 6.3: after ten minutes it may have grown. */
        destination->is_black_hole = true;
        fixture_advance(fixture, TICK_S(600) - 1);
        assert_int_equal(rows[i].floor, destination_mtu(stack, destination));
        fixture_advance(fixture, 1);
        assert_int_equal(1500, destination_mtu(stack, destination));
        assert_false(destination->is_black_hole);
        assert_true(destination_mtu_lower(stack, remote.family, remote.ip, 1400, false));
        destination_release(stack, destination);
        fixture_free(fixture);
    }
}

/* News of a path is kept for connections to come, and not told again. */
static void test_news_of_paths(void **state)
{
    struct fixture_options options = fixture_defaults();

    (void)state;
    options.core_count = 2;
    struct fixture *fixture = fixture_new(&options);
    struct stack_news news = {
        .kind = STACK_NEWS_PMTU, .mtu = 1400, .address = fixture_address("198.51.100.7", 0)};
    stack_on_news(fixture->stack, &news);
    struct destination *destination = acquire(fixture, "198.51.100.7");
    assert_int_equal(1400, destination_mtu(fixture->stack, destination));
    news.mtu = 551;
    stack_on_news(fixture->stack, &news);
    news.port = 1; /* a port that we do not have */
    news.mtu = 1300;
    stack_on_news(fixture->stack, &news);
    assert_int_equal(1400, destination_mtu(fixture->stack, destination));
    assert_int_equal(0, fixture->news_count);
    destination_release(fixture->stack, destination);
    fixture_free(fixture);
}

/* 16 are remembered; in use they cannot be forgotten, else the one that was idle longest is. */
static void test_destinations_are_bounded(void **state)
{
    struct fixture *fixture = fixture_usual();
    struct destination *destinations[17];
    struct flow_address address = fixture_address("198.51.100.0", 0);

    (void)state;
    for (uint8_t i = 0; i < 17; i++) {
        address.ip[3] = i;
        destinations[i] = destination_acquire(fixture->stack, 4, address.ip);
        assert_int_equal(i < 16, destinations[i] != NULL);
        if (i < 16)
            destinations[i]->srtt_us = 1000u + i;
    }
    assert_int_equal(1, COUNTER(fixture, DESTINATION_FULL));
    destination_release(fixture->stack, destinations[7]);
    destination_release(fixture->stack, destinations[3]);
    stack_verify(fixture->stack);
    address.ip[3] = 7;
    struct destination *again = destination_acquire(fixture->stack, 4, address.ip);
    assert_ptr_equal(destinations[7], again); /* remembered, with what was learnt */
    assert_int_equal(1007, again->srtt_us);
    destination_release(fixture->stack, again);
    address.ip[3] = 16; /* in place of number 3, which was idle longer */
    destinations[16] = destination_acquire(fixture->stack, 4, address.ip);
    assert_non_null(destinations[16]);
    assert_int_equal(0, destinations[16]->srtt_us);
    assert_int_equal(1, COUNTER(fixture, DESTINATION_EVICTED));
    address.ip[3] = 7;
    assert_int_equal(1007, destination_acquire(fixture->stack, 4, address.ip)->srtt_us);
    stack_verify(fixture->stack);
    for (uint32_t i = 0; i < 17; i++) {
        if (i != 3)
            destination_release(fixture->stack, destinations[i]);
    }
    assert_int_equal(0, stack_get_usage(fixture->stack).destinations);
    stack_verify(fixture->stack);
    fixture_free(fixture);
}

static void test_metrics_age(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        struct fixture *fixture = fixture_usual();
        struct destination *destination = acquire(fixture, "198.51.100.7");
        destination->srtt_us = destination->rttvar_us = destination->ssthresh = 5;
        destination->is_ecn_broken = true;
        fixture_advance(fixture, TICK_S(10000)); /* in use they do not age */
        destination_release(fixture->stack, destination);
        fixture_advance(fixture, TICK_S(3600) - 1 + i);
        destination = acquire(fixture, "198.51.100.7");
        assert_int_equal(i == 0 ? 5 : 0, destination->srtt_us);
        assert_int_equal(i == 0 ? 5 : 0, destination->rttvar_us);
        assert_int_equal(i == 0 ? 5 : 0, destination->ssthresh);
        assert_int_equal(i == 0, destination->is_ecn_broken);
        destination_release(fixture->stack, destination);
        fixture_free(fixture);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_longest_prefix),
        cmocka_unit_test(test_path_mtu),
        cmocka_unit_test(test_news_of_paths),
        cmocka_unit_test(test_destinations_are_bounded),
        cmocka_unit_test(test_metrics_age),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

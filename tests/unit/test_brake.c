/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: each brake lets through exactly its limit and no more, by network and listener, in minutes;
 * the table is bounded, forgets the oldest that is not connected, and says so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "relay/brake.h"

#define MINUTE TICK_S(60)
#define START  TICK_S(1000)

static struct settings_listener listener_new(const char *address)
{
    struct settings_listener listener = {.brakes = {.ipv4_prefix = 32, .ipv6_prefix = 64}};
    assert_int_equal(ERR_OK, flow_address_parse_ip(span_from_text(address), &listener.address));
    return listener;
}

static struct flow_address peer_of(const char *text)
{
    struct flow_address address;
    assert_int_equal(ERR_OK, flow_address_parse_ip(span_from_text(text), &address));
    return address;
}

static bool connects(struct brake *brake, const struct settings_listener *listener,
                     const char *peer, struct brake_client **ret_client)
{
    struct flow_address address = peer_of(peer);
    bool is_first;

    return brake_connect(brake, listener, &address, false, ret_client, &is_first) == ERR_OK;
}

static void test_connections_at_a_time(void **state)
{
    struct settings_listener listener = listener_new("192.0.2.1");
    struct brake *brake = brake_new(1);
    struct brake_client *clients[4];

    (void)state;
    brake_set_time(brake, START);
    listener.brakes.connection_max = 3;
    for (uint32_t i = 0; i < 3; i++)
        assert_true(connects(brake, &listener, "198.51.100.7", &clients[i]));
    assert_false(connects(brake, &listener, "198.51.100.7", &clients[3]));
    assert_null(clients[3]);
    assert_int_equal(1, brake_get_stats(brake).connections);
    brake_set_time(brake, START + 10 * MINUTE); /* not a matter of time */
    assert_false(connects(brake, &listener, "198.51.100.7", &clients[3]));
    brake_disconnect(brake, clients[1]);
    assert_true(connects(brake, &listener, "198.51.100.7", &clients[1]));
    for (uint32_t i = 0; i < 3; i++)
        brake_disconnect(brake, clients[i]);
    assert_int_equal(1, brake_get_stats(brake).networks);
    brake_free(brake);
}

static void test_shares_of_a_minute(void **state)
{
    static const struct {
        const char *name;
        enum brake_kind kind;
        size_t limit, counter;
    } rows[] = {
        {"messages", BRAKE_MESSAGES, offsetof(struct settings_brakes, messages_per_minute),
         offsetof(struct brake_stats, messages)},
        {"recipients", BRAKE_RECIPIENTS, offsetof(struct settings_brakes, recipients_per_minute),
         offsetof(struct brake_stats, recipients)},
        {"refused", BRAKE_REFUSED, offsetof(struct settings_brakes, refused_per_minute),
         offsetof(struct brake_stats, refused)},
        {"errors", BRAKE_ERRORS, offsetof(struct settings_brakes, errors_per_minute),
         offsetof(struct brake_stats, errors)},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct settings_listener listener = listener_new("192.0.2.1");
        struct brake *brake = brake_new(1);
        struct brake_client *client, *other;
        bool is_first;

        print_message("# case: %s\n", rows[i].name);
        brake_set_time(brake, START);
        *(uint32_t *)(void *)((char *)&listener.brakes + rows[i].limit) = 5;
        assert_true(connects(brake, &listener, "198.51.100.7", &client));
        assert_true(connects(brake, &listener, "198.51.100.8", &other));
        for (uint32_t round = 0; round < 3; round++) {
            tick_us begin = START + round * (MINUTE + TICK_S(7));
            for (uint32_t n = 0; n < 5; n++) {
                brake_set_time(brake, begin + TICK_S(n));
                assert_true(brake_take(brake, client, &listener, rows[i].kind, &is_first));
            }
            brake_set_time(brake, begin + MINUTE - 1);
            assert_false(brake_take(brake, client, &listener, rows[i].kind, &is_first));
            assert_true(is_first); /* worth a record */
            assert_false(brake_take(brake, client, &listener, rows[i].kind, &is_first));
            assert_false(is_first);
            assert_true(brake_take(brake, other, &listener, rows[i].kind, &is_first));
            brake_set_time(brake, begin + MINUTE);
        }
        struct brake_stats stats = brake_get_stats(brake);
        assert_int_equal(6, *(const uint64_t *)(const void *)((char *)&stats + rows[i].counter));
        brake_disconnect(brake, client);
        brake_disconnect(brake, other);
        brake_free(brake);
    }
}

/* Goal: never more than the limit in any minute, wherever it begins; of small limits the next is
 * let in as soon as the first is a minute old, of large ones an even flow gets 15 of 16 at least.
 */
static void test_any_minute(void **state)
{
    static const uint32_t limits[] = {1, 2, 16, 17, 18, 60, 1000};
    static const tick_us steps[] = {TICK_MS(7), TICK_MS(150)};
    static tick_us taken[6000];

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(limits) * COUNT_OF(steps); i++) {
        uint32_t limit = limits[i / COUNT_OF(steps)], count = 0;
        tick_us step = steps[i % COUNT_OF(steps)];
        struct settings_listener listener = listener_new("192.0.2.1");
        struct brake *brake = brake_new(1);
        struct brake_client *client;
        bool is_first;

        print_message("# case: %u, each %llu us\n", limit, (unsigned long long)step);
        listener.brakes.messages_per_minute = limit;
        brake_set_time(brake, START);
        assert_true(connects(brake, &listener, "198.51.100.7", &client));
        for (tick_us at = START; at < START + 5 * MINUTE; at += step) {
            brake_set_time(brake, at);
            if (brake_take(brake, client, &listener, BRAKE_MESSAGES, &is_first))
                taken[count++] = at;
        }
        for (uint32_t j = limit; j < count; j++) {
            assert_true(taken[j] - taken[j - limit] >= MINUTE);
            if (limit <= 17)
                assert_true(taken[j] - taken[j - limit] < MINUTE + step);
        }
        tick_us offered = 5 * MINUTE / step;
        assert_true(count >= (5 * limit < offered ? 5 * limit : offered) * 15 / 16);
        brake_disconnect(brake, client);
        brake_free(brake);
    }
}

static void test_connections_in_a_minute(void **state)
{
    struct settings_listener listener = listener_new("192.0.2.1");
    struct brake *brake = brake_new(1);
    struct brake_client *client;
    struct flow_address peer = peer_of("198.51.100.7");
    bool is_first;

    (void)state;
    listener.brakes.connections_per_minute = 4;
    for (uint32_t n = 0; n < 4; n++) {
        brake_set_time(brake, START + TICK_S(n));
        assert_true(connects(brake, &listener, "198.51.100.7", &client));
        brake_disconnect(brake, client);
    }
    brake_set_time(brake, START + MINUTE - 1);
    assert_int_equal(ERR_REFUSED,
                     brake_connect(brake, &listener, &peer, false, &client, &is_first));
    assert_true(is_first);
    assert_int_equal(ERR_REFUSED,
                     brake_connect(brake, &listener, &peer, false, &client, &is_first));
    assert_false(is_first);
    brake_set_time(brake, START + MINUTE);
    assert_true(connects(brake, &listener, "198.51.100.7", &client));
    brake_disconnect(brake, client);
    assert_int_equal(2, brake_get_stats(brake).connection_rate);
    brake_free(brake);
}

/* Who had its share of refused recipients or errors is not let in before its minute is over. */
static void test_door_is_closed_to_the_bad(void **state)
{
    static const enum brake_kind kinds[] = {BRAKE_REFUSED, BRAKE_ERRORS};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        struct settings_listener listener = listener_new("192.0.2.1");
        struct brake *brake = brake_new(1);
        struct brake_client *client;
        bool is_first;

        listener.brakes.refused_per_minute = listener.brakes.errors_per_minute = 2;
        brake_set_time(brake, START);
        assert_true(connects(brake, &listener, "198.51.100.7", &client));
        assert_true(brake_take(brake, client, &listener, kinds[i], &is_first));
        brake_disconnect(brake, client);
        assert_true(connects(brake, &listener, "198.51.100.7", &client));
        assert_true(brake_take(brake, client, &listener, kinds[i], &is_first));
        brake_disconnect(brake, client);
        assert_false(connects(brake, &listener, "198.51.100.7", &client));
        assert_true(connects(brake, &listener, "198.51.100.6", &client));
        brake_disconnect(brake, client);
        brake_set_time(brake, START + MINUTE - 1);
        assert_false(connects(brake, &listener, "198.51.100.7", &client));
        brake_set_time(brake, START + MINUTE);
        assert_true(connects(brake, &listener, "198.51.100.7", &client));
        brake_disconnect(brake, client);
        brake_free(brake);
    }
}

static void test_networks(void **state)
{
    static const struct {
        const char *name, *first, *second;
        uint32_t ipv4_prefix, ipv6_prefix;
        bool is_same;
    } rows[] = {
        {"one address", "198.51.100.7", "198.51.100.7", 32, 64, true},
        {"neighbours", "198.51.100.6", "198.51.100.7", 32, 64, false},
        {"neighbours of a /31", "198.51.100.6", "198.51.100.7", 31, 64, true},
        {"not of a /31", "198.51.100.7", "198.51.100.8", 31, 64, false},
        {"a /24", "198.51.100.0", "198.51.100.255", 24, 64, true},
        {"beyond a /24", "198.51.100.255", "198.51.101.0", 24, 64, false},
        {"a /8", "10.0.0.0", "10.255.255.255", 8, 64, true},
        {"an IPv6 /64", "2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", 32, 64, true},
        {"beyond an IPv6 /64", "2001:db8::1", "2001:db8:0:1::1", 32, 64, false},
        {"an IPv6 address", "2001:db8::1", "2001:db8::1", 32, 128, true},
        {"IPv6 neighbours", "2001:db8::1", "2001:db8::2", 32, 128, false},
        {"an IPv6 /57", "2001:db8:0:ff00::", "2001:db8:0:ff7f::", 32, 57, true},
        {"beyond an IPv6 /57", "2001:db8:0:ff7f::", "2001:db8:0:ff80::", 32, 57, false},
        {"IPv4 in IPv6", "::ffff:198.51.100.7", "198.51.100.7", 32, 16, true},
        {"IPv4s in IPv6", "::ffff:198.51.100.7", "::ffff:198.51.100.8", 32, 16, false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct settings_listener listener = listener_new("192.0.2.1");
        struct brake *brake = brake_new(1);
        struct brake_client *first, *second;

        brake_set_time(brake, START);
        listener.brakes.connection_max = 1;
        listener.brakes.ipv4_prefix = rows[i].ipv4_prefix;
        listener.brakes.ipv6_prefix = rows[i].ipv6_prefix;
        assert_true(connects(brake, &listener, rows[i].first, &first));
        if (connects(brake, &listener, rows[i].second, &second) == rows[i].is_same)
            fail_msg("%s", rows[i].name);
        brake_disconnect(brake, first);
        brake_disconnect(brake, second);
        brake_free(brake);
    }
}

static void test_listeners_and_relay_clients(void **state)
{
    struct settings_listener listener = listener_new("192.0.2.1");
    struct settings_listener other = listener_new("192.0.2.2"), free_one = other;
    struct flow_address peer = peer_of("198.51.100.7");
    struct brake *brake = brake_new(1);
    struct brake_client *client, *second;
    bool is_first;

    (void)state;
    brake_set_time(brake, START);
    listener.brakes.connection_max = other.brakes.connection_max = 1;
    assert_true(connects(brake, &listener, "198.51.100.7", &client));
    assert_true(connects(brake, &other, "198.51.100.7", &second));
    assert_false(connects(brake, &listener, "198.51.100.7", &second));
    /* No bound: not even counted. */
    assert_true(connects(brake, &free_one, "198.51.100.7", &second));
    assert_null(second);
    assert_true(brake_take(brake, NULL, &listener, BRAKE_ERRORS, &is_first));
    /* Our own clients, unless asked for. */
    assert_int_equal(ERR_OK, brake_connect(brake, &listener, &peer, true, &second, &is_first));
    assert_null(second);
    listener.brakes.brakes_relay_clients = true;
    assert_int_equal(ERR_REFUSED, brake_connect(brake, &listener, &peer, true, &second, &is_first));
    brake_free(brake);
}

/* More networks than places: the oldest idle one goes, connected ones stay. */
static void test_table_is_bounded(void **state)
{
    enum { PLACES = 8192 };
    static struct brake_client *clients[PLACES];
    struct settings_listener listener = listener_new("192.0.2.1");
    struct brake *brake = brake_new(1);
    struct brake_client *client;
    char peer[32];

    (void)state;
    listener.brakes.connection_max = listener.brakes.refused_per_minute = 1;
    brake_set_time(brake, START);
    for (uint32_t i = 0; i < PLACES; i++) {
        snprintf(peer, sizeof(peer), "10.0.%u.%u", i / 256, i % 256);
        assert_true(connects(brake, &listener, peer, &clients[i]));
        assert_non_null(clients[i]);
    }
    assert_int_equal(PLACES, brake_get_stats(brake).networks);
    assert_true(connects(brake, &listener, "10.1.0.0", &client));
    assert_null(client);
    assert_int_equal(1, brake_get_stats(brake).untracked);
    brake_disconnect(brake, clients[7]);
    brake_disconnect(brake, clients[3]);
    assert_true(connects(brake, &listener, "10.1.0.0", &client)); /* takes the place of 7 */
    assert_int_equal(1, brake_get_stats(brake).forgotten);
    assert_int_equal(PLACES, brake_get_stats(brake).networks);
    assert_false(connects(brake, &listener, "10.0.0.4", &clients[4]));
    assert_true(connects(brake, &listener, "10.0.0.3", &clients[3])); /* still known */
    assert_int_equal(1, brake_get_stats(brake).forgotten);
    brake_free(brake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_connections_at_a_time),
        cmocka_unit_test(test_shares_of_a_minute),
        cmocka_unit_test(test_any_minute),
        cmocka_unit_test(test_connections_in_a_minute),
        cmocka_unit_test(test_door_is_closed_to_the_bad),
        cmocka_unit_test(test_networks),
        cmocka_unit_test(test_listeners_and_relay_clients),
        cmocka_unit_test(test_table_is_bounded),
    };
    return cmocka_run_group_tests_name("brake", tests, NULL, NULL);
}

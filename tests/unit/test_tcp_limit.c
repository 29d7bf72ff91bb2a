/* SPDX-License-Identifier: Apache-2.0 */
/* Connections per client network: what counts as one, both sides of the limit, and the table under
 * random coming and going against plain counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "death.h"
#include "tcp_tables_fixture.h"

static struct stack *limits_stack_new(uint32_t flows, uint32_t per_prefix)
{
    struct stack *stack = fixture_stack_new(&(struct stack_options){
        .flow_count_max = flows, .connections_per_prefix_max = per_prefix, .seed = {3, 0}});

    stack->tcp->limits = tcp_limits_new(stack);
    return stack;
}

static void limits_stack_free(struct stack *stack)
{
    tcp_limits_free(stack->tcp->limits);
    fixture_stack_free(stack);
}

static void test_what_is_one_network(void **state)
{
    static const struct {
        const char *name;
        uint8_t family;
        uint8_t a[16], b[16];
        bool is_same;
    } rows[] = {
        {"one IPv4 address", 4, {192, 0, 2, 1}, {192, 0, 2, 1}, true},
        {"two IPv4 addresses", 4, {192, 0, 2, 1}, {192, 0, 2, 0}, false},
        {"one /64", 6, {0x20, 1, [7] = 1, [15] = 1}, {0x20, 1, [7] = 1, [8] = 9}, true},
        {"two /64", 6, {0x20, 1, [7] = 1}, {0x20, 1, [7] = 0}, false},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct stack *stack = limits_stack_new(8, 1);
        assert_true(tcp_limit_enter(stack, rows[i].family, rows[i].a));
        if (tcp_limit_enter(stack, rows[i].family, rows[i].b) == rows[i].is_same)
            fail_msg("%s", rows[i].name);
        limits_stack_free(stack);
    }
}

/* Goal: an IPv6 prefix that begins like an IPv4 address is another network. */
static void test_families_are_apart(void **state)
{
    static const uint8_t ip[16] = {192, 0, 2, 1};
    struct stack *stack = limits_stack_new(8, 1);

    (void)state;
    assert_true(tcp_limit_enter(stack, 4, ip));
    assert_true(tcp_limit_enter(stack, 6, ip));
    assert_int_equal(2, tcp_limit_count(stack));
    limits_stack_free(stack);
}

static void test_the_limit(void **state)
{
    static const uint8_t ip[16] = {192, 0, 2, 1};
    struct stack *stack = limits_stack_new(100, 3);

    (void)state;
    for (uint32_t i = 0; i < 3; i++)
        assert_true(tcp_limit_enter(stack, 4, ip));
    assert_false(tcp_limit_enter(stack, 4, ip));
    tcp_limit_leave(stack, 4, ip);
    assert_true(tcp_limit_enter(stack, 4, ip));
    assert_false(tcp_limit_enter(stack, 4, ip));
    for (uint32_t i = 0; i < 3; i++)
        tcp_limit_leave(stack, 4, ip);
    assert_int_equal(0, tcp_limit_count(stack));
    limits_stack_free(stack);
}

static void leave_unentered(void *stack)
{
    static const uint8_t ip[16] = {192, 0, 2, 1};

    tcp_limit_leave(stack, 4, ip);
}

static void test_leaving_without_entering_is_a_bug(void **state)
{
    struct stack *stack = limits_stack_new(8, 1);

    (void)state;
    assert_true(death_is_caused_by(leave_unentered, stack));
    limits_stack_free(stack);
}

/* Goal: 0 is no limit, and costs nothing. */
static void test_off(void **state)
{
    static const uint8_t ip[16] = {192, 0, 2, 1};
    struct stack *stack = limits_stack_new(2, 0);

    (void)state;
    for (uint32_t i = 0; i < 100; i++)
        assert_true(tcp_limit_enter(stack, 4, ip));
    for (uint32_t i = 0; i < 200; i++)
        tcp_limit_leave(stack, 4, ip);
    assert_true(tcp_limits_memory(stack) < 64);
    limits_stack_free(stack);
}

/* Goal: one network more than there can be connections, and no further. */
static void test_table_is_bounded(void **state)
{
    struct stack *stack = limits_stack_new(7, 1);
    uint64_t memory = tcp_limits_memory(stack);

    (void)state;
    for (uint32_t i = 0; i <= 8; i++) {
        struct tcp_key key = fixture_key4(1, 25, i, 1);
        assert_int_equal(i < 8, tcp_limit_enter(stack, 4, key.remote));
    }
    tcp_limits_verify(stack);
    assert_int_equal(memory, tcp_limits_memory(stack));
    struct tcp_key key = fixture_key4(1, 25, 0, 1);
    assert_false(tcp_limit_enter(stack, 4, key.remote));
    limits_stack_free(stack);
}

#define NETWORKS 90u

static void random_run(uint64_t seed, uint32_t flows, uint32_t per_prefix)
{
    struct stack *stack = limits_stack_new(flows, per_prefix);
    uint32_t counts[NETWORKS] = {0}, used = 0, refused = 0;
    struct rng rng;

    rng_init_seed(&rng, seed);
    for (uint32_t step = 0; step < 50000; step++) {
        uint32_t at = rng_below(&rng, NETWORKS);
        bool is_ip6 = at % 2 == 0, is_enter = rng_below(&rng, 20) < (step / 5000 % 2 ? 7u : 13u);
        struct tcp_key key = is_ip6 ? fixture_key6(1, 25, 1, 1) : fixture_key4(1, 25, at, 1);
        if (is_ip6)
            key.remote[7] = (uint8_t)at;
        if (is_enter) {
            bool is_room = counts[at] > 0 || used < flows + 1;
            bool is_allowed = counts[at] < per_prefix && is_room;
            assert_int_equal(is_allowed, tcp_limit_enter(stack, key.family, key.remote));
            used += is_allowed && counts[at] == 0;
            counts[at] += is_allowed;
            refused += !is_allowed;
        } else if (counts[at] > 0) {
            tcp_limit_leave(stack, key.family, key.remote);
            used -= --counts[at] == 0;
        }
        assert_int_equal(used, tcp_limit_count(stack));
        if (step % 100 == 0)
            tcp_limits_verify(stack);
    }
    assert_true(refused > 0);
    limits_stack_free(stack);
}

static void test_random_work(void **state)
{
    (void)state;
    random_run(1, 200, 3);
    random_run(2, 40, 5); /* fewer places than networks */
    random_run(3, 1, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_one_network),
        cmocka_unit_test(test_families_are_apart),
        cmocka_unit_test(test_the_limit),
        cmocka_unit_test(test_leaving_without_entering_is_a_bug),
        cmocka_unit_test(test_off),
        cmocka_unit_test(test_table_is_bounded),
        cmocka_unit_test(test_random_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

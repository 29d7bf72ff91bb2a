/* SPDX-License-Identifier: Apache-2.0 */
/* SYN cookies and floods: when cookies are given, when they are believed, a million forged ones,
 * and legitimate clients amid 100,000 forged SYNs. Random work with the cache's invariants checked.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tcp_syn_fixture.h"

#define PERIOD TCP_COOKIE_PERIOD

/* ---- cookies, given and believed ---- */

/* Goal: without timestamps a cookie cannot remember scale, SACK and ECN, and does not agree. */
static void test_cookie_without_timestamps(void **state)
{
    struct stack *stack = syn_stack_new(0);
    struct tcp_key key = syn_client();
    struct segment segment = syn_modern(&key);

    (void)state;
    segment.header.options.has_timestamps = false;
    segment.header.flags |= TCP_ECE | TCP_CWR;
    tcp_syn_input(stack, syn_listener, &segment, 0);
    assert_int_equal(TCP_SYN | TCP_ACK, fixture_sent.header.flags);
    assert_false(fixture_sent.header.options.has_sack_permitted);
    assert_false(fixture_sent.header.options.has_window_scale);
    assert_true(syn_answer(stack, syn_final_ack(&key)));
    assert_int_equal(1460, syn_others.agreed.mss);
    assert_int_equal(502, syn_others.agreed.window);
    assert_false(syn_others.agreed.has_sack || syn_others.agreed.has_window_scale ||
                 syn_others.agreed.has_ecn || syn_others.agreed.has_timestamps);
    syn_stack_free(stack);
}

/* Goal: at three quarters of the cache, or with a full set, cookies; what is there stays. */
static void test_when_cookies_are_given(void **state)
{
    struct stack *stack = syn_stack_new(64);
    uint32_t cookies = 0;

    (void)state;
    for (uint32_t i = 0; i < 500; i++) {
        struct tcp_key key = fixture_key4(1, 25, i, 40000);
        uint32_t before = tcp_syn_cache_count(stack);
        syn_send(stack, &key);
        bool is_cookie = stack->counters[STACK_TCP_COOKIES_SENT] > cookies;
        cookies += is_cookie;
        assert_int_equal(before + !is_cookie, tcp_syn_cache_count(stack));
        assert_true(before < 48 || is_cookie);
    }
    assert_int_equal(48, tcp_syn_cache_count(stack));
    assert_int_equal(500, fixture_sent.count);
    /* No SYN-ACK of a cookie is sent again. */
    stack->now += TICK_S(1);
    tcp_syn_cache_advance(stack, stack->now);
    assert_int_equal(548, fixture_sent.count);
    syn_stack_free(stack);
}

/* Goal: a cookie is good until the end of the next period, whenever in its own it was given. */
static void test_age_of_cookies(void **state)
{
    static const struct {
        const char *name;
        tick_us given, used; /* after the start of a period */
        bool is_good;
    } rows[] = {
        {"at once", 0, 0, true},
        {"end of the next period", 0, 2 * PERIOD - 1, true},
        {"two periods later", 0, 2 * PERIOD, false},
        {"given late, end of the next", PERIOD - 1, 2 * PERIOD - 1, true},
        {"given late, two periods on", PERIOD - 1, 2 * PERIOD, false},
        {"the parity is the same again", PERIOD - 1, 2 * PERIOD + 5, false},
        {"and again", 0, 4 * PERIOD, false},
    };

    (void)state;
    for (uint32_t i = 0; i < 2 * COUNT_OF(rows); i++) {
        struct stack *stack = syn_stack_new(0);
        struct tcp_key key = syn_client(), other = fixture_key4(1, 25, 2, 40000);
        tick_us period = (100 + i % 2) * PERIOD; /* odd and even ones */
        bool is_good = rows[i / 2].is_good;
        stack->now = period + rows[i / 2].given;
        syn_send(stack, &key);
        struct segment ack = syn_final_ack(&key);
        stack->now = period + rows[i / 2].used;
        if (!is_good)
            syn_send(stack, &other); /* cookies are believed, only not this one */
        if (syn_answer(stack, ack) != is_good)
            fail_msg("%s", rows[i / 2].name);
        assert_int_equal(is_good, syn_others.accepted);
        syn_stack_free(stack);
    }
}

/* Goal: long after the last cookie was given none is believed, not even looked at. */
static void test_cookies_when_none_are_given(void **state)
{
    struct stack *stack = syn_stack_new(16);
    struct tcp_key key = syn_client();
    struct segment ack = syn_modern(&key);

    (void)state;
    ack.header.flags = TCP_ACK;
    ack.header.sequence = SYN_IRS + 1;
    ack.header.options.has_timestamps = false;
    ack.header.acknowledgement = tcp_cookie_make(stack, &key, SYN_IRS, 1460) + 1;
    assert_false(syn_answer(stack, ack)); /* good, but nobody gave it */
    assert_int_equal(0, stack->counters[STACK_TCP_COOKIES_REJECTED]);
    stack->tcp->syn_cache = (tcp_syn_cache_free(stack->tcp->syn_cache),
                             stack->options.syn_cache_max = 0, tcp_syn_cache_new(stack));
    struct tcp_key other = fixture_key4(1, 25, 2, 40000);
    syn_send(stack, &other);
    assert_true(syn_answer(stack, ack));
    assert_int_equal(1, syn_others.accepted);
    syn_stack_free(stack);
}

/* Goal: a cookie belongs to its tuple, sequence number and timestamps; other flags do not count. */
static void test_bent_cookies(void **state)
{
    struct stack *stack = syn_stack_new(0);
    struct tcp_key key = syn_client();

    (void)state;
    syn_send(stack, &key);
    struct segment good = syn_final_ack(&key);
    for (uint32_t bit = 0; bit < 8 * offsetof(struct tcp_key, reserved); bit++) {
        struct segment bent = good;
        ((uint8_t *)&bent.key)[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(syn_answer(stack, bent));
    }
    for (uint32_t bit = 0; bit < 32; bit++) {
        struct segment bent = good;
        bent.header.sequence ^= 1u << bit;
        assert_false(syn_answer(stack, bent));
        bent = good;
        bent.header.acknowledgement ^= 1u << bit;
        assert_false(syn_answer(stack, bent));
    }
    static const uint8_t flags[] = {TCP_RST, TCP_ACK | TCP_SYN, TCP_ACK | TCP_RST, TCP_PSH, 0};
    for (uint32_t i = 0; i < COUNT_OF(flags); i++) {
        struct segment bent = good;
        bent.header.flags = flags[i];
        assert_false(syn_answer(stack, bent));
    }
    struct segment bent = good; /* an echo that we cannot have sent */
    bent.header.options.timestamp_echo += 100;
    assert_false(syn_answer(stack, bent));
    assert_true(syn_answer(stack, good));
    assert_int_equal(1, syn_others.accepted);
    syn_stack_free(stack);
}

//= rfc4987#section-3.6: forged ACKs do not get a connection
static void test_forged_cookies(void **state)
{
    struct stack *stack = syn_stack_new(0);
    struct tcp_key key = syn_client();
    struct rng rng;

    (void)state;
    syn_send(stack, &key);
    rng_init_seed(&rng, 2024);
    for (uint32_t i = 0; i < 1000000; i++) {
        struct segment forged = {.header = {.flags = TCP_ACK,
                                            .sequence = rng_u32(&rng),
                                            .acknowledgement = rng_u32(&rng)},
                                 .key = key};
        forged.key.remote_port = (uint16_t)rng_u32(&rng);
        assert_false(tcp_syn_complete(stack, syn_listener, &forged));
    }
    assert_int_equal(0, syn_others.accepted);
    assert_int_equal(1000000, stack->counters[STACK_TCP_COOKIES_REJECTED]);
    syn_stack_free(stack);
}

/* ---- the flood ---- */

static struct tcp_key stranger(struct rng *rng)
{
    struct tcp_key key = fixture_key4(1, 25, 0, (uint16_t)rng_u32(rng));

    if (rng_below(rng, 4) == 0)
        key = fixture_key6(1, 25, 0, (uint16_t)rng_u32(rng));
    rng_fill(rng, key.remote, rss_ip_size(key.family));
    return key;
}

/* Goal: 100,000 forged SYNs take no memory; a client gets through before, in the middle and after,
 * with all that it offered; afterwards everything is as before. */
static void test_flood(void **state)
{
    struct stack *stack = syn_stack_new(1024);
    uint64_t memory = tcp_syn_cache_memory(stack);
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 77);
    for (uint32_t i = 0; i < 100000; i++) {
        struct tcp_key key = stranger(&rng);
        syn_send(stack, &key);
        stack->now += 10;
        if (i % 1000 == 0)
            tcp_syn_cache_advance(stack, stack->now);
        if (i % 25000 != 12345)
            continue;
        struct tcp_key friend = fixture_key4(1, 25, i, 4000);
        uint32_t before = syn_others.accepted;
        syn_send(stack, &friend);
        struct segment ack = syn_final_ack(&friend);
        stack->now += TICK_MS(30);
        assert_true(syn_answer(stack, ack));
        assert_int_equal(before + 1, syn_others.accepted);
        assert_memory_equal(&friend, &syn_others.key, sizeof(friend));
        assert_true(syn_others.agreed.has_sack && syn_others.agreed.has_timestamps &&
                    syn_others.agreed.has_window_scale);
        assert_int_equal(7, syn_others.agreed.snd_scale);
        assert_int_equal(1460, syn_others.agreed.mss);
        assert_int_equal(502 << 7, syn_others.agreed.window);
    }
    assert_true(stack->counters[STACK_TCP_COOKIES_SENT] > 90000);
    assert_int_equal(768, tcp_syn_cache_count(stack));
    assert_int_equal(memory, tcp_syn_cache_memory(stack));
    assert_true(memory <= 1024 * 66 + 256);
    tcp_syn_cache_verify(stack);

    for (tick_us due; (due = tcp_syn_cache_advance(stack, stack->now)) != TICK_NEVER;)
        stack->now = due;
    assert_int_equal(0, tcp_syn_cache_count(stack));
    struct tcp_key friend = syn_client();
    syn_send(stack, &friend);
    assert_int_equal(1, tcp_syn_cache_count(stack));
    assert_true(syn_answer(stack, syn_final_ack(&friend)));
    assert_true(syn_others.agreed.syn_ack_at != 0); /* by the cache again */
    syn_stack_free(stack);
}

/* Goal: random SYNs, ACKs, RSTs and time leave lists, tags and counts whole. */
static void test_random_work(void **state)
{
    struct stack *stack = syn_stack_new(64);
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 31);
    stack->options.connections_per_prefix_max = 1000000;
    for (uint32_t step = 0; step < 30000; step++) {
        struct tcp_key key = fixture_key4(1, 25, rng_below(&rng, 90), 40000);
        struct segment segment = syn_modern(&key);
        stack->now += rng_below(&rng, 100) == 0 ? TICK_S(1) : TICK_MS(3);
        tcp_syn_cache_advance(stack, stack->now);
        switch (rng_below(&rng, 5)) {
        case 0:
            syn_send(stack, &key);
            syn_answer(stack, syn_final_ack(&key));
            break;
        case 1:
            segment.header.flags = TCP_RST;
            segment.header.sequence = SYN_IRS + rng_below(&rng, 3);
            syn_answer(stack, segment);
            break;
        default:
            syn_send(stack, &key);
            break;
        }
        syn_listener->ready_count = 0;
        if (step % 50 == 0)
            tcp_syn_cache_verify(stack);
    }
    assert_true(stack->counters[STACK_TCP_HALF_OPEN_EXPIRED] > 0);
    assert_true(stack->counters[STACK_TCP_HALF_OPEN_RESET] > 0);
    assert_true(stack->counters[STACK_TCP_COOKIES_ACCEPTED] > 0);
    syn_stack_free(stack);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cookie_without_timestamps),
        cmocka_unit_test(test_when_cookies_are_given),
        cmocka_unit_test(test_age_of_cookies),
        cmocka_unit_test(test_cookies_when_none_are_given),
        cmocka_unit_test(test_bent_cookies),
        cmocka_unit_test(test_forged_cookies),
        cmocka_unit_test(test_flood),
        cmocka_unit_test(test_random_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What a SYN and our SYN-ACK agree on, by the cache and by a cookie, and where sequence numbers and
 * windows come from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tcp_syn_fixture.h"

struct agree_row {
    const char *name;
    uint8_t family;
    struct tcp_options offer;
    uint8_t ecn; /* flags of the SYN */
    struct tcp_agreed expected;
    uint16_t cookie_mss;
};

static const struct agree_row agree_rows[] = {
    {"everything",
     4,
     {.has_mss = true,
      .mss = 1460,
      .has_window_scale = true,
      .window_scale = 7,
      .has_sack_permitted = true,
      .has_timestamps = true,
      .timestamp_value = SYN_TS},
     TCP_ECE | TCP_CWR,
     {.mss = 1460,
      .snd_scale = 7,
      .rcv_scale = 7,
      .has_window_scale = true,
      .has_sack = true,
      .has_timestamps = true,
      .has_ecn = true,
      .ts_recent = SYN_TS},
     1460},
    {"nothing", 4, {0}, 0, {.mss = 536}, 536},
    {"nothing, IPv6", 6, {0}, 0, {.mss = 1220}, 1220},
    {"MSS below the floor", 4, {.has_mss = true, .mss = 215}, 0, {.mss = 216}, 216},
    {"MSS 0", 4, {.has_mss = true, .mss = 0}, 0, {.mss = 216}, 216},
    {"MSS above the floor", 4, {.has_mss = true, .mss = 217}, 0, {.mss = 217}, 216},
    {"MSS between two of the table", 4, {.has_mss = true, .mss = 1459}, 0, {.mss = 1459}, 1360},
    {"large MSS", 6, {.has_mss = true, .mss = 65535}, 0, {.mss = 65535}, 1440},
    {"scale 14",
     4,
     {.has_mss = true,
      .mss = 536,
      .has_window_scale = true,
      .window_scale = 14,
      .has_timestamps = true},
     0,
     {.mss = 536,
      .snd_scale = 14,
      .rcv_scale = 7,
      .has_window_scale = true,
      .has_timestamps = true},
     536},
    {"scale 15 means 14",
     4,
     {.has_mss = true,
      .mss = 536,
      .has_window_scale = true,
      .window_scale = 15,
      .has_timestamps = true},
     0,
     {.mss = 536,
      .snd_scale = 14,
      .rcv_scale = 7,
      .has_window_scale = true,
      .has_timestamps = true},
     536},
    {"scale 0",
     6,
     {.has_mss = true,
      .mss = 1440,
      .has_window_scale = true,
      .window_scale = 0,
      .has_timestamps = true},
     0,
     {.mss = 1440,
      .snd_scale = 0,
      .rcv_scale = 7,
      .has_window_scale = true,
      .has_timestamps = true},
     1440},
    {"SACK alone",
     4,
     {.has_sack_permitted = true, .has_timestamps = true},
     0,
     {.mss = 536, .has_sack = true, .has_timestamps = true},
     536},
    {"half of ECN",
     4,
     {.has_timestamps = true},
     TCP_ECE,
     {.mss = 536, .has_timestamps = true},
     536},
    {"the other half",
     4,
     {.has_timestamps = true},
     TCP_CWR,
     {.mss = 536, .has_timestamps = true},
     536},
};

static void syn_ack_check(const struct agree_row *row, const struct tcp_key *key)
{
    const struct tcp_header *header = &fixture_sent.header;
    const struct tcp_agreed *expected = &row->expected;

    assert_int_equal(1, fixture_sent.count);
    assert_memory_equal(key, &fixture_sent.key, sizeof(*key));
    assert_int_equal(TCP_SYN | TCP_ACK, header->flags & ~TCP_ECE);
    assert_int_equal(SYN_IRS + 1, header->acknowledgement);
    assert_int_equal(25, header->source_port);
    assert_int_equal(40000, header->destination_port);
    assert_true(header->options.has_mss);
    assert_int_equal(row->family == 4 ? 1460 : 1440, header->options.mss);
    assert_int_equal(65535, header->window);
    if (header->options.has_sack_permitted != expected->has_sack ||
        header->options.has_timestamps != expected->has_timestamps ||
        header->options.has_window_scale != expected->has_window_scale ||
        ((header->flags & TCP_ECE) != 0) != expected->has_ecn)
        fail_msg("%s: SYN-ACK", row->name);
    if (expected->has_window_scale)
        assert_int_equal(7, header->options.window_scale);
    if (expected->has_timestamps)
        assert_int_equal(expected->ts_recent, header->options.timestamp_echo);
}

static void agreed_check(struct stack *stack, const struct agree_row *row, bool is_cookie)
{
    const struct tcp_agreed *agreed = &syn_others.agreed, *expected = &row->expected;

    if (agreed->mss != (is_cookie ? row->cookie_mss : expected->mss) ||
        agreed->snd_scale != expected->snd_scale || agreed->rcv_scale != expected->rcv_scale ||
        agreed->has_window_scale != expected->has_window_scale ||
        agreed->has_sack != expected->has_sack || agreed->has_ecn != expected->has_ecn ||
        agreed->has_timestamps != expected->has_timestamps)
        fail_msg("%s: agreed (cookie %d)", row->name, is_cookie);
    assert_int_equal(SYN_IRS, agreed->irs);
    assert_int_equal(fixture_sent.header.sequence, agreed->iss);
    assert_int_equal(65535, agreed->window_offered);
    assert_int_equal(502u << expected->snd_scale, agreed->window);
    assert_true(agreed->syn_ack_at == (is_cookie ? 0 : SYN_START));
    if (expected->has_timestamps)
        assert_int_equal(tcp_timestamp_offset(stack, &syn_others.key), agreed->ts_offset);
}

/* Goal: what was agreed is said in the SYN-ACK and handed to the tcb; with a cookie too, but for
 * the MSS, which may be lower. */
static void test_agreeing(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2 * COUNT_OF(agree_rows); i++) {
        const struct agree_row *row = &agree_rows[i / 2];
        bool is_cookie = i % 2 == 1;
        struct stack *stack = syn_stack_new(is_cookie ? 0 : 16);
        struct tcp_key key = row->family == 4 ? syn_client() : fixture_key6(1, 25, 1, 40000);
        struct segment segment = {.header = {.sequence = SYN_IRS,
                                             .flags = (uint8_t)(TCP_SYN | row->ecn),
                                             .options = row->offer},
                                  .key = key};
        tcp_syn_input(stack, syn_listener, &segment, 0);
        syn_ack_check(row, &key);
        stack->now += TICK_MS(20) + 3;
        assert_true(syn_answer(stack, syn_final_ack(&key)));
        assert_int_equal(1, syn_others.accepted);
        assert_int_equal(1, syn_others.fed);
        assert_memory_equal(&key, &syn_others.key, sizeof(key));
        agreed_check(stack, row, is_cookie);
        assert_int_equal(0, tcp_syn_cache_count(stack));
        syn_stack_free(stack);
    }
}

/* Goal: what our policy has switched off is not agreed on. */
static void test_policy_off(void **state)
{
    struct stack *stack = syn_stack_new(16);
    struct tcp_policy *policy = &stack->options.tcp;
    struct tcp_key key = syn_client();
    struct segment segment = syn_modern(&key);

    (void)state;
    segment.header.flags |= TCP_ECE | TCP_CWR;
    policy->has_sack = policy->has_ecn = policy->has_timestamps = policy->has_window_scale = false;
    tcp_syn_input(stack, syn_listener, &segment, 0);
    assert_int_equal(TCP_SYN | TCP_ACK, fixture_sent.header.flags);
    assert_false(fixture_sent.header.options.has_sack_permitted ||
                 fixture_sent.header.options.has_window_scale ||
                 fixture_sent.header.options.has_timestamps);
    assert_true(syn_answer(stack, syn_final_ack(&key)));
    assert_int_equal(502, syn_others.agreed.window);
    syn_stack_free(stack);
}

static void test_window_scale_offer(void **state)
{
    static const struct {
        uint32_t window;
        uint8_t max, expected;
    } rows[] = {{65535, 14, 0},    {65536, 14, 1},       {131071, 14, 1},  {131072, 14, 2},
                {4u << 20, 14, 7}, {(1u << 30), 14, 14}, {4u << 20, 3, 3}, {4u << 20, 0, 0}};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct tcp_policy policy = {.receive_window_max = rows[i].window,
                                    .window_scale_max = rows[i].max};
        assert_int_equal(rows[i].expected, tcp_window_scale_offer(&policy));
    }
}

/* Goal: a listener offers no more than it can hold: half its limit, as what is received may pin
 * twice its size. */
static void test_window_of_the_listener(void **state)
{
    static const uint32_t limits[] = {1000, 131069, 131070, 131072, 0};
    static const uint16_t expected[] = {500, 65534, 65535, 65535, 65535};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(limits); i++) {
        struct stack *stack = syn_stack_new(16);
        struct tcp_key key = syn_client();
        syn_listener->receive_limit = limits[i];
        syn_send(stack, &key);
        assert_int_equal(expected[i], fixture_sent.header.window);
        assert_true(syn_answer(stack, syn_final_ack(&key)));
        assert_int_equal(expected[i], syn_others.agreed.window_offered);
        syn_stack_free(stack);
    }
}

static void test_least_sequence_number(void **state)
{
    struct tcp_key key = syn_client();
    struct stack *stack = syn_stack_new(16);
    uint32_t isn = tcp_isn(stack, &key);
    const uint32_t minima[] = {isn + 5000, isn - 5000, 0};
    const uint32_t expected[] = {isn + 5000, isn, isn};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(minima); i++) {
        struct segment segment = syn_modern(&key), reset = syn_modern(&key);
        tcp_syn_input(stack, syn_listener, &segment, minima[i]);
        assert_int_equal(expected[i], fixture_sent.header.sequence);
        reset.header.flags = TCP_RST;
        reset.header.sequence = SYN_IRS + 1;
        syn_answer(stack, reset);
        assert_int_equal(0, tcp_syn_cache_count(stack));
    }
    syn_stack_free(stack);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_agreeing),
        cmocka_unit_test(test_policy_off),
        cmocka_unit_test(test_window_scale_offer),
        cmocka_unit_test(test_window_of_the_listener),
        cmocka_unit_test(test_least_sequence_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

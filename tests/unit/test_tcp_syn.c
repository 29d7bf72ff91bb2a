/* SPDX-License-Identifier: Apache-2.0 */
/* Half-open connections: which segment completes, ends or leaves them; backlog, limits, ICMP; and
 * SYN-ACKs sent again until given up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tcp_syn_fixture.h"

/* ---- segments for a half-open connection ---- */

enum outcome { COMPLETES, IGNORED, RESET_SENT, REMOVED };

static void test_segments(void **state)
{
    static const struct {
        const char *name;
        uint8_t flags;
        uint32_t sequence, acknowledgement; /* beyond those of the exact ACK */
        uint32_t timestamp;                 /* 0: none */
        enum outcome outcome;
    } rows[] = {
        {"the ACK", TCP_ACK, 0, 0, SYN_TS + 1, COMPLETES},
        {"with PSH", TCP_ACK | TCP_PSH, 0, 0, SYN_TS, COMPLETES},
        {"with FIN", TCP_ACK | TCP_FIN, 0, 0, SYN_TS, COMPLETES},
        {"data that overtook it", TCP_ACK, 65534, 0, SYN_TS + 1, COMPLETES},
        {"at the window's edge", TCP_ACK, 65535, 0, SYN_TS + 1, IGNORED},
        {"before the window", TCP_ACK, UINT32_MAX, 0, SYN_TS + 1, IGNORED},
        {"older timestamp", TCP_ACK, 0, 0, SYN_TS - 1, IGNORED},
        {"no timestamp", TCP_ACK, 0, 0, 0, IGNORED},
        {"ACK of nothing", TCP_ACK, 0, UINT32_MAX, SYN_TS + 1, RESET_SENT},
        {"ACK of more", TCP_ACK, 0, 1, SYN_TS + 1, RESET_SENT},
        {"wrong ACK out of the window", TCP_ACK, 70000, 1, SYN_TS + 1, IGNORED},
        {"no ACK", TCP_PSH, 0, 0, SYN_TS + 1, IGNORED},
        {"FIN without ACK", TCP_FIN, 0, 0, SYN_TS + 1, IGNORED},
        {"SYN-ACK", TCP_SYN | TCP_ACK, 0, 0, SYN_TS + 1, IGNORED},
        {"RST at RCV.NXT", TCP_RST, 0, 0, 0, REMOVED},
        {"RST with a wrong ACK", TCP_RST | TCP_ACK, 0, 99, 0, REMOVED},
        {"RST in the window", TCP_RST, 1, 0, 0, IGNORED},
        {"RST before it", TCP_RST, UINT32_MAX, 0, 0, IGNORED},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct stack *stack = syn_stack_new(16);
        struct tcp_key key = syn_client();
        enum outcome outcome;
        syn_send(stack, &key);
        struct segment segment = syn_final_ack(&key);
        segment.header.flags = rows[i].flags;
        segment.header.sequence += rows[i].sequence;
        segment.header.acknowledgement += rows[i].acknowledgement;
        segment.header.options.has_timestamps = rows[i].timestamp != 0;
        segment.header.options.timestamp_value = rows[i].timestamp;
        assert_true(syn_answer(stack, segment)); /* it is ours, whatever becomes of it */
        if (syn_others.accepted == 1)
            outcome = COMPLETES;
        else if (syn_others.resets == 1)
            outcome = RESET_SENT;
        else
            outcome = tcp_syn_cache_count(stack) == 0 ? REMOVED : IGNORED;
        if (outcome != rows[i].outcome)
            fail_msg("%s: %d", rows[i].name, (int)outcome);
        bool is_gone = outcome == COMPLETES || outcome == REMOVED;
        assert_int_equal(is_gone ? 0 : 1, tcp_syn_cache_count(stack));
        assert_int_equal(1, fixture_sent.count); /* the SYN-ACK alone */
        /* What was ignored did no harm. */
        if (!is_gone)
            assert_true(syn_answer(stack, syn_final_ack(&key)));
        assert_int_equal(outcome == REMOVED ? 0 : 1, syn_others.accepted);
        syn_stack_free(stack);
    }
}

/* Goal: the very segment goes on to the machine, with its data, once. */
static void test_data_of_the_final_ack(void **state)
{
    struct stack *stack = syn_stack_new(16);
    struct tcp_key key = syn_client();

    (void)state;
    syn_send(stack, &key);
    struct segment segment = syn_final_ack(&key);
    segment.size = 77;
    assert_true(tcp_syn_complete(stack, syn_listener, &segment));
    assert_ptr_equal(&segment, syn_others.segment);
    assert_int_equal(77, segment.size);
    assert_int_equal(502 << 7, segment.window);
    assert_int_equal(1, syn_others.fed);
    assert_false(tcp_syn_complete(stack, syn_listener, &segment)); /* now it is the table's */
    syn_stack_free(stack);
}

static void test_strangers(void **state)
{
    struct stack *stack = syn_stack_new(16);
    struct tcp_key key = syn_client(), other = fixture_key4(1, 25, 2, 40000);

    (void)state;
    syn_send(stack, &key);
    assert_false(syn_answer(stack, syn_final_ack(&other)));
    assert_int_equal(0, stack->counters[STACK_TCP_COOKIES_REJECTED]); /* none were given */
    struct segment odd = syn_modern(&other);
    odd.header.flags |= TCP_FIN;
    tcp_syn_input(stack, syn_listener, &odd, 0);
    assert_int_equal(1, tcp_syn_cache_count(stack));
    assert_int_equal(1, stack->counters[STACK_TCP_SYNS_ODD]);
    syn_stack_free(stack);
}

static void test_repeated_syn(void **state)
{
    struct stack *stack = syn_stack_new(16);
    struct tcp_key key = syn_client();
    struct segment again = syn_modern(&key);

    (void)state;
    again.header.flags |= TCP_ECE | TCP_CWR;
    tcp_syn_input(stack, syn_listener, &again, 0);
    uint32_t iss = fixture_sent.header.sequence;
    tick_us due = tcp_syn_cache_advance(stack, stack->now);

    /* The same numbers again, the newer timestamp echoed, ECN given up, no RTT from it. */
    stack->now += TICK_MS(400);
    again.header.flags = TCP_SYN;
    again.header.options.timestamp_value = SYN_TS + 400;
    tcp_syn_input(stack, syn_listener, &again, 0);
    assert_int_equal(2, fixture_sent.count);
    assert_int_equal(iss, fixture_sent.header.sequence);
    assert_int_equal(TCP_SYN | TCP_ACK, fixture_sent.header.flags);
    assert_int_equal(SYN_TS + 400, fixture_sent.header.options.timestamp_echo);
    assert_true(due == tcp_syn_cache_advance(stack, stack->now)); /* nobody prolongs an entry */

    /* Another sequence number: the answer tells its sender to reset the old one. */
    again.header.sequence = SYN_IRS + 100000;
    again.header.options.timestamp_value = SYN_TS + 900;
    tcp_syn_input(stack, syn_listener, &again, 0);
    assert_int_equal(iss, fixture_sent.header.sequence);
    assert_int_equal(SYN_IRS + 1, fixture_sent.header.acknowledgement);
    assert_int_equal(SYN_TS + 400, fixture_sent.header.options.timestamp_echo);
    assert_int_equal(1, tcp_syn_cache_count(stack));

    struct segment ack = syn_final_ack(&key);
    ack.header.options.timestamp_value = SYN_TS + 401;
    assert_true(syn_answer(stack, ack));
    assert_int_equal(1, syn_others.accepted);
    assert_true(syn_others.agreed.syn_ack_at == 0);
    assert_false(syn_others.agreed.has_ecn);
    syn_stack_free(stack);
}

/* ---- bounds above ---- */

static void test_backlog(void **state)
{
    static const uint32_t cache_sizes[] = {16, 0};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cache_sizes); i++) {
        struct stack *stack = syn_stack_new(cache_sizes[i]);
        struct tcp_key key = syn_client(), late = fixture_key4(1, 25, 2, 40000);
        syn_send(stack, &key);
        struct segment ack = syn_final_ack(&key);
        syn_listener->backlog = 1;
        syn_listener->ready_count = 1;
        syn_send(stack, &late);
        assert_int_equal(1, fixture_sent.count); /* not answered */
        assert_true(syn_answer(stack, ack));
        assert_int_equal(0, syn_others.accepted + syn_others.resets);
        assert_int_equal(2, stack->counters[STACK_TCP_ACCEPT_FULL]);
        syn_listener->ready_count = 0;
        assert_true(syn_answer(stack, ack));
        assert_int_equal(1, syn_others.accepted);
        syn_stack_free(stack);
    }
}

static void test_limit_per_prefix(void **state)
{
    struct stack *stack = syn_stack_new(64);

    (void)state;
    stack->options.connections_per_prefix_max = 2;
    for (uint16_t i = 0; i < 3; i++) {
        struct tcp_key key = fixture_key4(1, 25, 1, (uint16_t)(40000 + i));
        syn_send(stack, &key);
        assert_true(syn_answer(stack, syn_final_ack(&key)));
    }
    assert_int_equal(2, syn_others.accepted);
    assert_int_equal(1, syn_others.resets);
    assert_int_equal(1, stack->counters[STACK_TCP_PREFIX_LIMIT]);
    assert_int_equal(0, tcp_syn_cache_count(stack));
    /* Half-open ones do not count: their addresses may be forged. */
    struct tcp_key other = fixture_key4(1, 25, 2, 1);
    syn_send(stack, &other);
    assert_int_equal(1, tcp_limit_count(stack));
    syn_stack_free(stack);
}

/* Goal: no tcb, no share of the prefix. */
static void test_no_tcb(void **state)
{
    struct stack *stack = syn_stack_new(16);
    struct tcp_key key = syn_client();

    (void)state;
    syn_send(stack, &key);
    syn_others.is_refusing = true;
    assert_true(syn_answer(stack, syn_final_ack(&key)));
    assert_int_equal(0, syn_others.fed);
    assert_int_equal(0, tcp_limit_count(stack));
    assert_int_equal(0, tcp_syn_cache_count(stack));
    syn_stack_free(stack);
}

/* ---- time ---- */

/* Goal: SYN-ACKs at 1, 3 and 7 seconds, none at 15, and then the entry is gone. */
static void test_schedule(void **state)
{
    static const uint32_t times_s[] = {1, 3, 7};
    struct stack *stack = syn_stack_new(16);
    struct tcp_key key = syn_client();

    (void)state;
    syn_send(stack, &key);
    assert_true(stack->tcp->list_timer.deadline == SYN_START + TICK_S(1));
    struct tcp_header first = fixture_sent.header;
    for (uint32_t i = 0; i < COUNT_OF(times_s); i++) {
        tick_us due = SYN_START + TICK_S(times_s[i]);
        stack->now = due - 1;
        assert_true(tcp_syn_cache_advance(stack, stack->now) == due);
        assert_int_equal(i + 1, fixture_sent.count);
        stack->now = due;
        tcp_syn_cache_advance(stack, stack->now);
        assert_int_equal(i + 2, fixture_sent.count);
        assert_int_equal(first.sequence, fixture_sent.header.sequence);
        assert_int_equal(first.options.timestamp_value + times_s[i] * 1000,
                         fixture_sent.header.options.timestamp_value);
    }
    stack->now = SYN_START + TICK_S(15) - 1;
    tcp_syn_cache_advance(stack, stack->now);
    assert_int_equal(1, tcp_syn_cache_count(stack));
    stack->now++;
    assert_true(tcp_syn_cache_advance(stack, stack->now) == TICK_NEVER);
    assert_int_equal(0, tcp_syn_cache_count(stack));
    assert_int_equal(4, fixture_sent.count);
    assert_int_equal(3, stack->counters[STACK_TCP_SYN_ACKS_REPEATED]);
    assert_int_equal(1, stack->counters[STACK_TCP_HALF_OPEN_EXPIRED]);
    syn_stack_free(stack);
}

/* Goal: after a second SYN-ACK the ACK still completes, but tells no round-trip time. */
static void test_ack_after_retransmission(void **state)
{
    struct stack *stack = syn_stack_new(16);
    struct tcp_key key = syn_client();

    (void)state;
    syn_send(stack, &key);
    struct segment ack = syn_final_ack(&key);
    stack->now += TICK_S(1);
    tcp_syn_cache_advance(stack, stack->now);
    assert_true(syn_answer(stack, ack)); /* of the first SYN-ACK */
    assert_int_equal(1, syn_others.accepted);
    assert_true(syn_others.agreed.syn_ack_at == 0);
    syn_stack_free(stack);
}

static void test_no_retries(void **state)
{
    struct stack *stack = syn_stack_new(16);
    struct tcp_key key = syn_client();

    (void)state;
    stack->options.tcp.syn_ack_retries = 0;
    syn_send(stack, &key);
    stack->now += TICK_S(1);
    assert_true(tcp_syn_cache_advance(stack, stack->now) == TICK_NEVER);
    assert_int_equal(1, fixture_sent.count);
    assert_int_equal(0, tcp_syn_cache_count(stack));
    syn_stack_free(stack);
}

/* Goal: more retries than there are levels are cut, and no wait is over a minute. */
static void test_many_retries(void **state)
{
    struct stack *stack = syn_stack_new(16);
    struct tcp_key key = syn_client();
    tick_us due;

    (void)state;
    stack->options.tcp.syn_ack_retries = 100;
    syn_send(stack, &key);
    while ((due = tcp_syn_cache_advance(stack, stack->now)) != TICK_NEVER) {
        assert_true(due > stack->now && due - stack->now <= TICK_S(60));
        stack->now = due;
    }
    assert_int_equal(8, fixture_sent.count);
    assert_true(stack->now == SYN_START + TICK_S(1 + 2 + 4 + 8 + 16 + 32 + 60 + 60));
    syn_stack_free(stack);
}

static void test_icmp(void **state)
{
    struct stack *stack = syn_stack_new(16);
    struct tcp_key key = syn_client(), other = fixture_key4(1, 25, 2, 40000);

    (void)state;
    syn_send(stack, &key);
    uint32_t iss = fixture_sent.header.sequence;
    tcp_syn_on_icmp_error(stack, &other, iss);
    tcp_syn_on_icmp_error(stack, &key, iss + 1);
    tcp_syn_on_icmp_error(stack, &key, iss - 1);
    assert_int_equal(1, tcp_syn_cache_count(stack));
    assert_int_equal(2, stack->counters[STACK_TCP_HALF_OPEN_IGNORED]);
    tcp_syn_on_icmp_error(stack, &key, iss);
    assert_int_equal(0, tcp_syn_cache_count(stack));
    assert_int_equal(1, stack->counters[STACK_TCP_HALF_OPEN_UNREACHABLE]);
    syn_stack_free(stack);
}

/* Goal: a listener takes its half-open connections along, and only those. */
static void test_listener_closed(void **state)
{
    struct stack *stack = syn_stack_new(64);
    struct tcp_key any = syn_client(), exact = fixture_key4(2, 25, 1, 40000);
    struct tcp_listener *second = fixture_listener_new(
        stack, &(struct flow_address){.family = FLOW_FAMILY_IP4, .port = 25, .ip = {192, 0, 2, 2}},
        10);

    (void)state;
    syn_send(stack, &any);
    syn_send(stack, &exact);
    tcp_listener_closed(stack, syn_listener);
    tcp_listener_remove(stack, syn_listener);
    assert_int_equal(1, tcp_syn_cache_count(stack));
    tcp_listener_closed(stack, second);
    tcp_listener_remove(stack, second);
    assert_int_equal(0, tcp_syn_cache_count(stack));
    assert_true(tcp_syn_cache_advance(stack, stack->now) == TICK_NEVER);
    syn_stack_free(stack);
}

/* Goal: work per call is bounded, also when everything is due at once. */
static void test_advance_is_bounded(void **state)
{
    struct stack *stack = syn_stack_new(8192);
    uint64_t before;

    (void)state;
    for (uint32_t i = 0; i < 4000; i++) {
        struct tcp_key key = fixture_key4(1, 25, i, 40000);
        syn_send(stack, &key);
    }
    stack->now += TICK_S(1);
    before = fixture_sent.count;
    for (uint32_t left = tcp_syn_cache_count(stack); left > 0;) {
        tick_us due = tcp_syn_cache_advance(stack, stack->now);
        uint32_t sent = (uint32_t)(fixture_sent.count - before);
        assert_true(sent > 0 && sent <= 1024);
        left -= sent;
        before = fixture_sent.count;
        assert_true(left > 0 ? due == stack->now : due > stack->now);
    }
    syn_stack_free(stack);
}

/* Goal: one timer serves half-open connections and TIME_WAIT, each at its time; then it rests. */
static void test_one_timer_for_both(void **state)
{
    struct stack *stack = syn_stack_new(16);
    struct tcp_key key = syn_client(), old = fixture_key4(1, 25, 2, 40000);
    struct tcb *tcb = fixture_tcb_new(stack, &old);
    struct wheel_timer *timer;
    tick_us ended_at = 0;

    (void)state;
    stack->options.time_wait_max = 1;
    stack->options.tcp.time_wait_time = TICK_S(5);
    stack->tcp->time_waits = tcp_time_waits_new(stack);
    assert_int_equal(ERR_OK, tcp_table_add(stack, &old, tcp_found_tcb(tcb)));
    tcp_time_wait_enter(stack, tcb);
    assert_true(stack->tcp->list_timer.deadline == SYN_START + TICK_S(5));
    syn_send(stack, &key);
    assert_true(stack->tcp->list_timer.deadline == SYN_START + TICK_S(1));
    while (wheel_is_armed(&stack->tcp->list_timer)) {
        stack->now += TICK_MS(1);
        while ((timer = wheel_expire_next(&stack->wheel, stack->now)) != NULL) {
            assert_ptr_equal(&stack->tcp->list_timer, timer);
            assert_int_equal(STACK_TIMER_LIST, timer->kind);
            tcp_list_on_timer(stack);
            if (tcp_time_waits_count(stack) == 0 && ended_at == 0)
                ended_at = stack->now;
        }
    }
    assert_true(ended_at >= SYN_START + TICK_S(5) &&
                ended_at <= SYN_START + TICK_S(5) + TICK_MS(2));
    assert_true(stack->now >= SYN_START + TICK_S(15) &&
                stack->now <= SYN_START + TICK_S(15) + TICK_MS(5));
    assert_int_equal(4, fixture_sent.count);
    assert_int_equal(0, tcp_syn_cache_count(stack));
    tcp_time_waits_free(stack->tcp->time_waits);
    syn_stack_free(stack);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segments),
        cmocka_unit_test(test_data_of_the_final_ack),
        cmocka_unit_test(test_strangers),
        cmocka_unit_test(test_repeated_syn),
        cmocka_unit_test(test_backlog),
        cmocka_unit_test(test_limit_per_prefix),
        cmocka_unit_test(test_no_tcb),
        cmocka_unit_test(test_schedule),
        cmocka_unit_test(test_ack_after_retransmission),
        cmocka_unit_test(test_no_retries),
        cmocka_unit_test(test_many_retries),
        cmocka_unit_test(test_icmp),
        cmocka_unit_test(test_listener_closed),
        cmocka_unit_test(test_advance_is_bounded),
        cmocka_unit_test(test_one_timer_for_both),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

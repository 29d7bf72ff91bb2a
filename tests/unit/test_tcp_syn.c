/* SPDX-License-Identifier: Apache-2.0 */
/* Handshakes of others: what is agreed on, what completes and what does not, SYN-ACKs again and
 * again until given up, cookies, and a flood with a legitimate client in the middle. The rest of
 * TCP is played by this file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tcp_tables_fixture.h"

#define START        TICK_S(1000)
#define IRS          7000u
#define TS           500u
#define WINDOW_START 65536u
#define PERIOD       TCP_COOKIE_PERIOD

/* ---- the rest of TCP ---- */

static struct {
    uint32_t resets, accepted, fed;
    bool is_refusing; /* tcp_accept_ready() has no tcb to give */
    struct tcp_agreed agreed;
    struct tcp_key key;
    struct segment *segment;
} others;
static struct stack_local local;

void tcp_send_reset_for(struct stack *stack, const struct segment *segment)
{
    (void)stack;
    (void)segment;
    others.resets++;
}

struct tcb *tcp_accept_ready(struct stack *stack, struct tcp_listener *listener,
                             const struct tcp_key *key, const struct tcp_agreed *agreed)
{
    static struct tcb tcb;

    (void)stack;
    if (others.is_refusing)
        return NULL;
    listener->ready_count++;
    others.accepted++;
    others.agreed = *agreed;
    others.key = *key;
    return &tcb;
}

void tcp_input_segment(struct stack *stack, struct tcb *tcb, struct segment *segment)
{
    (void)stack;
    (void)tcb;
    others.fed++;
    others.segment = segment;
}

struct stack_local *stack_local_find(struct stack *stack, uint8_t family, const uint8_t ip[16])
{
    (void)stack;
    (void)family;
    (void)ip;
    return &local;
}

/* ---- a stack with a listener, and clients ---- */

static struct tcp_listener *listener;

static struct stack *syn_stack_new(uint32_t syn_cache_max)
{
    struct stack *stack =
        fixture_stack_new(&(struct stack_options){.flow_count_max = 64,
                                                  .syn_cache_max = syn_cache_max,
                                                  .connections_per_prefix_max = 20,
                                                  .now = START,
                                                  .seed = {9, 0},
                                                  .tcp = {.mss_min = 216,
                                                          .window_scale_max = 10,
                                                          .has_sack = true,
                                                          .has_timestamps = true,
                                                          .has_window_scale = true,
                                                          .has_ecn = true,
                                                          .receive_window_start = WINDOW_START,
                                                          .receive_window_max = 4u << 20,
                                                          .syn_ack_time = TICK_S(1),
                                                          .syn_ack_retries = 3}});

    stack->ports[0].mtu = 1500;
    stack->tcp->table = tcp_table_new(stack);
    stack->tcp->limits = tcp_limits_new(stack);
    stack->tcp->syn_cache = tcp_syn_cache_new(stack);
    listener = fixture_listener_new(
        stack, &(struct flow_address){.family = FLOW_FAMILY_IP4, .port = 25}, 100);
    fixture_listener_new(stack, &(struct flow_address){.family = FLOW_FAMILY_IP6, .port = 25}, 100);
    memset(&others, 0, sizeof(others));
    memset(&fixture_sent, 0, sizeof(fixture_sent));
    return stack;
}

static void syn_stack_free(struct stack *stack)
{
    tcp_syn_cache_verify(stack);
    tcp_limits_verify(stack);
    tcp_syn_cache_free(stack->tcp->syn_cache);
    tcp_limits_free(stack->tcp->limits);
    tcp_table_free(stack->tcp->table);
    fixture_stack_free(stack);
}

/* A SYN as systems of today send it. */
static struct segment modern_syn(const struct tcp_key *key)
{
    return (struct segment){.header = {.sequence = IRS,
                                       .window = 64240,
                                       .flags = TCP_SYN,
                                       .options = {.has_mss = true,
                                                   .mss = 1460,
                                                   .has_window_scale = true,
                                                   .window_scale = 7,
                                                   .has_sack_permitted = true,
                                                   .has_timestamps = true,
                                                   .timestamp_value = TS}},
                            .key = *key};
}

/* The answer to the SYN-ACK that was sent last. */
static struct segment final_ack(const struct tcp_key *key)
{
    const struct tcp_header *syn_ack = &fixture_sent.header;

    return (struct segment){
        .header = {.sequence = syn_ack->acknowledgement,
                   .acknowledgement = syn_ack->sequence + 1,
                   .window = 502,
                   .flags = TCP_ACK,
                   .options = {.has_timestamps = syn_ack->options.has_timestamps,
                               .timestamp_value = TS + 1,
                               .timestamp_echo = syn_ack->options.timestamp_value}},
        .key = *key,
        .sequence = syn_ack->acknowledgement};
}

static void syn(struct stack *stack, const struct tcp_key *key)
{
    struct segment segment = modern_syn(key);

    tcp_syn_input(stack, listener, &segment, 0);
}

static bool complete(struct stack *stack, struct segment segment)
{
    return tcp_syn_complete(stack, listener, &segment);
}

static struct tcp_key client(void)
{
    return fixture_key4(1, 25, 1, 40000);
}

/* ---- agreeing ---- */

/* What was agreed is said in the SYN-ACK and handed to the tcb; with a cookie too, but for the MSS,
 * which may be lower, and for what needs timestamps. */
static void test_agreeing(void **state)
{
    static const struct {
        const char *name;
        uint8_t family;
        struct tcp_options offer;
        uint8_t ecn; /* flags of the SYN */
        struct tcp_agreed expected;
        uint16_t cookie_mss;
    } rows[] = {
        {"everything",
         4,
         {.has_mss = true,
          .mss = 1460,
          .has_window_scale = true,
          .window_scale = 7,
          .has_sack_permitted = true,
          .has_timestamps = true,
          .timestamp_value = TS},
         TCP_ECE | TCP_CWR,
         {.mss = 1460,
          .snd_scale = 7,
          .rcv_scale = 7,
          .has_window_scale = true,
          .has_sack = true,
          .has_timestamps = true,
          .has_ecn = true,
          .ts_recent = TS},
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

    (void)state;
    for (uint32_t i = 0; i < 2 * COUNT_OF(rows); i++) {
        bool is_cookie = i % 2 == 1;
        const char *name = rows[i / 2].name;
        struct tcp_agreed expected = rows[i / 2].expected;
        struct stack *stack = syn_stack_new(is_cookie ? 0 : 16);
        struct tcp_key key = rows[i / 2].family == 4 ? client() : fixture_key6(1, 25, 1, 40000);
        struct segment segment = {.header = {.sequence = IRS,
                                             .flags = (uint8_t)(TCP_SYN | rows[i / 2].ecn),
                                             .options = rows[i / 2].offer},
                                  .key = key};
        tcp_syn_input(stack, listener, &segment, 0);

        const struct tcp_header *header = &fixture_sent.header;
        assert_int_equal(1, fixture_sent.count);
        assert_memory_equal(&key, &fixture_sent.key, sizeof(key));
        assert_int_equal(TCP_SYN | TCP_ACK, header->flags & ~TCP_ECE);
        assert_int_equal(IRS + 1, header->acknowledgement);
        assert_int_equal(25, header->source_port);
        assert_int_equal(40000, header->destination_port);
        assert_true(header->options.has_mss);
        assert_int_equal(rows[i / 2].family == 4 ? 1460 : 1440, header->options.mss);
        assert_int_equal(65535, header->window);
        if (header->options.has_sack_permitted != expected.has_sack ||
            header->options.has_timestamps != expected.has_timestamps ||
            header->options.has_window_scale != expected.has_window_scale ||
            ((header->flags & TCP_ECE) != 0) != expected.has_ecn)
            fail_msg("%s: SYN-ACK", name);
        if (expected.has_window_scale)
            assert_int_equal(7, header->options.window_scale);
        if (expected.has_timestamps)
            assert_int_equal(expected.ts_recent, header->options.timestamp_echo);

        stack->now += TICK_MS(20) + 3;
        assert_true(complete(stack, final_ack(&key)));
        assert_int_equal(1, others.accepted);
        assert_int_equal(1, others.fed);
        assert_memory_equal(&key, &others.key, sizeof(key));
        const struct tcp_agreed *agreed = &others.agreed;
        if (agreed->mss != (is_cookie ? rows[i / 2].cookie_mss : expected.mss) ||
            agreed->snd_scale != expected.snd_scale || agreed->rcv_scale != expected.rcv_scale ||
            agreed->has_window_scale != expected.has_window_scale ||
            agreed->has_sack != expected.has_sack || agreed->has_ecn != expected.has_ecn ||
            agreed->has_timestamps != expected.has_timestamps)
            fail_msg("%s: agreed (cookie %d)", name, is_cookie);
        assert_int_equal(IRS, agreed->irs);
        assert_int_equal(fixture_sent.header.sequence, agreed->iss);
        assert_int_equal(65535, agreed->window_offered);
        assert_int_equal(502u << expected.snd_scale, agreed->window);
        assert_true(agreed->syn_ack_at == (is_cookie ? 0 : START));
        if (expected.has_timestamps)
            assert_int_equal(tcp_timestamp_offset(stack, &key), agreed->ts_offset);
        assert_int_equal(0, tcp_syn_cache_count(stack));
        syn_stack_free(stack);
    }
}

/* Goal: without timestamps a cookie cannot remember scale, SACK and ECN, and does not agree. */
static void test_cookie_without_timestamps(void **state)
{
    struct stack *stack = syn_stack_new(0);
    struct tcp_key key = client();
    struct segment segment = modern_syn(&key);

    (void)state;
    segment.header.options.has_timestamps = false;
    segment.header.flags |= TCP_ECE | TCP_CWR;
    tcp_syn_input(stack, listener, &segment, 0);
    assert_int_equal(TCP_SYN | TCP_ACK, fixture_sent.header.flags);
    assert_false(fixture_sent.header.options.has_sack_permitted);
    assert_false(fixture_sent.header.options.has_window_scale);
    assert_true(complete(stack, final_ack(&key)));
    assert_int_equal(1460, others.agreed.mss);
    assert_int_equal(502, others.agreed.window);
    assert_false(others.agreed.has_sack || others.agreed.has_window_scale ||
                 others.agreed.has_ecn || others.agreed.has_timestamps);
    syn_stack_free(stack);
}

/* Goal: what our policy has switched off is not agreed on. */
static void test_policy_off(void **state)
{
    struct stack *stack = syn_stack_new(16);
    struct tcp_policy *policy = &stack->options.tcp;
    struct tcp_key key = client();
    struct segment segment = modern_syn(&key);

    (void)state;
    segment.header.flags |= TCP_ECE | TCP_CWR;
    policy->has_sack = policy->has_ecn = policy->has_timestamps = policy->has_window_scale = false;
    tcp_syn_input(stack, listener, &segment, 0);
    assert_int_equal(TCP_SYN | TCP_ACK, fixture_sent.header.flags);
    assert_false(fixture_sent.header.options.has_sack_permitted ||
                 fixture_sent.header.options.has_window_scale ||
                 fixture_sent.header.options.has_timestamps);
    assert_true(complete(stack, final_ack(&key)));
    assert_int_equal(502, others.agreed.window);
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

/* Goal: a listener with little room offers no more than it has. */
static void test_window_of_the_listener(void **state)
{
    static const uint32_t limits[] = {1000, 65535, 65536, 0};
    static const uint16_t expected[] = {1000, 65535, 65535, 65535};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(limits); i++) {
        struct stack *stack = syn_stack_new(16);
        struct tcp_key key = client();
        listener->receive_limit = limits[i];
        syn(stack, &key);
        assert_int_equal(expected[i], fixture_sent.header.window);
        assert_true(complete(stack, final_ack(&key)));
        assert_int_equal(expected[i], others.agreed.window_offered);
        syn_stack_free(stack);
    }
}

static void test_least_sequence_number(void **state)
{
    struct tcp_key key = client();
    struct stack *stack = syn_stack_new(16);
    uint32_t isn = tcp_isn(stack, &key);
    const uint32_t minima[] = {isn + 5000, isn - 5000, 0};
    const uint32_t expected[] = {isn + 5000, isn, isn};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(minima); i++) {
        struct segment segment = modern_syn(&key), reset = modern_syn(&key);
        tcp_syn_input(stack, listener, &segment, minima[i]);
        assert_int_equal(expected[i], fixture_sent.header.sequence);
        reset.header.flags = TCP_RST;
        reset.header.sequence = IRS + 1;
        complete(stack, reset);
        assert_int_equal(0, tcp_syn_cache_count(stack));
    }
    syn_stack_free(stack);
}

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
        {"the ACK", TCP_ACK, 0, 0, TS + 1, COMPLETES},
        {"with PSH", TCP_ACK | TCP_PSH, 0, 0, TS, COMPLETES},
        {"with FIN", TCP_ACK | TCP_FIN, 0, 0, TS, COMPLETES},
        {"data that overtook it", TCP_ACK, 65534, 0, TS + 1, COMPLETES},
        {"at the window's edge", TCP_ACK, 65535, 0, TS + 1, IGNORED},
        {"before the window", TCP_ACK, UINT32_MAX, 0, TS + 1, IGNORED},
        {"older timestamp", TCP_ACK, 0, 0, TS - 1, IGNORED},
        {"no timestamp", TCP_ACK, 0, 0, 0, IGNORED},
        {"ACK of nothing", TCP_ACK, 0, UINT32_MAX, TS + 1, RESET_SENT},
        {"ACK of more", TCP_ACK, 0, 1, TS + 1, RESET_SENT},
        {"wrong ACK out of the window", TCP_ACK, 70000, 1, TS + 1, IGNORED},
        {"no ACK", TCP_PSH, 0, 0, TS + 1, IGNORED},
        {"FIN without ACK", TCP_FIN, 0, 0, TS + 1, IGNORED},
        {"SYN-ACK", TCP_SYN | TCP_ACK, 0, 0, TS + 1, IGNORED},
        {"RST at RCV.NXT", TCP_RST, 0, 0, 0, REMOVED},
        {"RST with a wrong ACK", TCP_RST | TCP_ACK, 0, 99, 0, REMOVED},
        {"RST in the window", TCP_RST, 1, 0, 0, IGNORED},
        {"RST before it", TCP_RST, UINT32_MAX, 0, 0, IGNORED},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct stack *stack = syn_stack_new(16);
        struct tcp_key key = client();
        enum outcome outcome;
        syn(stack, &key);
        struct segment segment = final_ack(&key);
        segment.header.flags = rows[i].flags;
        segment.header.sequence += rows[i].sequence;
        segment.header.acknowledgement += rows[i].acknowledgement;
        segment.header.options.has_timestamps = rows[i].timestamp != 0;
        segment.header.options.timestamp_value = rows[i].timestamp;
        assert_true(complete(stack, segment)); /* it is ours, whatever becomes of it */
        if (others.accepted == 1)
            outcome = COMPLETES;
        else if (others.resets == 1)
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
            assert_true(complete(stack, final_ack(&key)));
        assert_int_equal(outcome == REMOVED ? 0 : 1, others.accepted);
        syn_stack_free(stack);
    }
}

/* Goal: the very segment goes on to the machine, with its data, once. */
static void test_data_of_the_final_ack(void **state)
{
    struct stack *stack = syn_stack_new(16);
    struct tcp_key key = client();

    (void)state;
    syn(stack, &key);
    struct segment segment = final_ack(&key);
    segment.size = 77;
    assert_true(tcp_syn_complete(stack, listener, &segment));
    assert_ptr_equal(&segment, others.segment);
    assert_int_equal(77, segment.size);
    assert_int_equal(502 << 7, segment.window);
    assert_int_equal(1, others.fed);
    assert_false(tcp_syn_complete(stack, listener, &segment)); /* now it is the table's */
    syn_stack_free(stack);
}

static void test_strangers(void **state)
{
    struct stack *stack = syn_stack_new(16);
    struct tcp_key key = client(), other = fixture_key4(1, 25, 2, 40000);

    (void)state;
    syn(stack, &key);
    assert_false(complete(stack, final_ack(&other)));
    assert_int_equal(0, stack->counters[STACK_TCP_COOKIES_REJECTED]); /* none were given */
    struct segment odd = modern_syn(&other);
    odd.header.flags |= TCP_FIN;
    tcp_syn_input(stack, listener, &odd, 0);
    assert_int_equal(1, tcp_syn_cache_count(stack));
    assert_int_equal(1, stack->counters[STACK_TCP_SYNS_ODD]);
    syn_stack_free(stack);
}

static void test_repeated_syn(void **state)
{
    struct stack *stack = syn_stack_new(16);
    struct tcp_key key = client();
    struct segment again = modern_syn(&key);

    (void)state;
    again.header.flags |= TCP_ECE | TCP_CWR;
    tcp_syn_input(stack, listener, &again, 0);
    uint32_t iss = fixture_sent.header.sequence;
    tick_us due = tcp_syn_cache_advance(stack, stack->now);

    /* The same numbers again, the newer timestamp echoed, ECN given up, no RTT from it. */
    stack->now += TICK_MS(400);
    again.header.flags = TCP_SYN;
    again.header.options.timestamp_value = TS + 400;
    tcp_syn_input(stack, listener, &again, 0);
    assert_int_equal(2, fixture_sent.count);
    assert_int_equal(iss, fixture_sent.header.sequence);
    assert_int_equal(TCP_SYN | TCP_ACK, fixture_sent.header.flags);
    assert_int_equal(TS + 400, fixture_sent.header.options.timestamp_echo);
    assert_true(due == tcp_syn_cache_advance(stack, stack->now)); /* nobody prolongs an entry */

    /* Another sequence number: the answer tells its sender to reset the old one. */
    again.header.sequence = IRS + 100000;
    again.header.options.timestamp_value = TS + 900;
    tcp_syn_input(stack, listener, &again, 0);
    assert_int_equal(iss, fixture_sent.header.sequence);
    assert_int_equal(IRS + 1, fixture_sent.header.acknowledgement);
    assert_int_equal(TS + 400, fixture_sent.header.options.timestamp_echo);
    assert_int_equal(1, tcp_syn_cache_count(stack));

    struct segment ack = final_ack(&key);
    ack.header.options.timestamp_value = TS + 401;
    assert_true(complete(stack, ack));
    assert_int_equal(1, others.accepted);
    assert_true(others.agreed.syn_ack_at == 0);
    assert_false(others.agreed.has_ecn);
    syn_stack_free(stack);
}

/* ---- bounds above ---- */

static void test_backlog(void **state)
{
    static const uint32_t cache_sizes[] = {16, 0};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cache_sizes); i++) {
        struct stack *stack = syn_stack_new(cache_sizes[i]);
        struct tcp_key key = client(), late = fixture_key4(1, 25, 2, 40000);
        syn(stack, &key);
        struct segment ack = final_ack(&key);
        listener->backlog = 1;
        listener->ready_count = 1;
        syn(stack, &late);
        assert_int_equal(1, fixture_sent.count); /* not answered */
        assert_true(complete(stack, ack));
        assert_int_equal(0, others.accepted + others.resets);
        assert_int_equal(2, stack->counters[STACK_TCP_ACCEPT_FULL]);
        listener->ready_count = 0;
        assert_true(complete(stack, ack));
        assert_int_equal(1, others.accepted);
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
        syn(stack, &key);
        assert_true(complete(stack, final_ack(&key)));
    }
    assert_int_equal(2, others.accepted);
    assert_int_equal(1, others.resets);
    assert_int_equal(1, stack->counters[STACK_TCP_PREFIX_LIMIT]);
    assert_int_equal(0, tcp_syn_cache_count(stack));
    /* Half-open ones do not count: their addresses may be forged. */
    struct tcp_key other = fixture_key4(1, 25, 2, 1);
    syn(stack, &other);
    assert_int_equal(1, tcp_limit_count(stack));
    syn_stack_free(stack);
}

/* Goal: no tcb, no share of the prefix. */
static void test_no_tcb(void **state)
{
    struct stack *stack = syn_stack_new(16);
    struct tcp_key key = client();

    (void)state;
    syn(stack, &key);
    others.is_refusing = true;
    assert_true(complete(stack, final_ack(&key)));
    assert_int_equal(0, others.fed);
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
    struct tcp_key key = client();

    (void)state;
    syn(stack, &key);
    assert_true(stack->tcp->list_timer.deadline == START + TICK_S(1));
    struct tcp_header first = fixture_sent.header;
    for (uint32_t i = 0; i < COUNT_OF(times_s); i++) {
        tick_us due = START + TICK_S(times_s[i]);
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
    stack->now = START + TICK_S(15) - 1;
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
    struct tcp_key key = client();

    (void)state;
    syn(stack, &key);
    struct segment ack = final_ack(&key);
    stack->now += TICK_S(1);
    tcp_syn_cache_advance(stack, stack->now);
    assert_true(complete(stack, ack)); /* of the first SYN-ACK */
    assert_int_equal(1, others.accepted);
    assert_true(others.agreed.syn_ack_at == 0);
    syn_stack_free(stack);
}

static void test_no_retries(void **state)
{
    struct stack *stack = syn_stack_new(16);
    struct tcp_key key = client();

    (void)state;
    stack->options.tcp.syn_ack_retries = 0;
    syn(stack, &key);
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
    struct tcp_key key = client();
    tick_us due;

    (void)state;
    stack->options.tcp.syn_ack_retries = 100;
    syn(stack, &key);
    while ((due = tcp_syn_cache_advance(stack, stack->now)) != TICK_NEVER) {
        assert_true(due > stack->now && due - stack->now <= TICK_S(60));
        stack->now = due;
    }
    assert_int_equal(8, fixture_sent.count);
    assert_true(stack->now == START + TICK_S(1 + 2 + 4 + 8 + 16 + 32 + 60 + 60));
    syn_stack_free(stack);
}

static void test_icmp(void **state)
{
    struct stack *stack = syn_stack_new(16);
    struct tcp_key key = client(), other = fixture_key4(1, 25, 2, 40000);

    (void)state;
    syn(stack, &key);
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
    struct tcp_key any = client(), exact = fixture_key4(2, 25, 1, 40000);
    struct tcp_listener *second = fixture_listener_new(
        stack, &(struct flow_address){.family = FLOW_FAMILY_IP4, .port = 25, .ip = {192, 0, 2, 2}},
        10);

    (void)state;
    syn(stack, &any);
    syn(stack, &exact);
    tcp_listener_closed(stack, listener);
    tcp_listener_remove(stack, listener);
    assert_int_equal(1, tcp_syn_cache_count(stack));
    tcp_listener_closed(stack, second);
    tcp_listener_remove(stack, second);
    assert_int_equal(0, tcp_syn_cache_count(stack));
    assert_true(tcp_syn_cache_advance(stack, stack->now) == TICK_NEVER);
    syn_stack_free(stack);
}

/* ---- cookies, given and believed ---- */

/* Goal: at three quarters of the cache, or with a full set, cookies; what is there stays. */
static void test_when_cookies_are_given(void **state)
{
    struct stack *stack = syn_stack_new(64);
    uint32_t cookies = 0;

    (void)state;
    for (uint32_t i = 0; i < 500; i++) {
        struct tcp_key key = fixture_key4(1, 25, i, 40000);
        uint32_t before = tcp_syn_cache_count(stack);
        syn(stack, &key);
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
        struct tcp_key key = client(), other = fixture_key4(1, 25, 2, 40000);
        tick_us period = (100 + i % 2) * PERIOD; /* odd and even ones */
        bool is_good = rows[i / 2].is_good;
        stack->now = period + rows[i / 2].given;
        syn(stack, &key);
        struct segment ack = final_ack(&key);
        stack->now = period + rows[i / 2].used;
        if (!is_good)
            syn(stack, &other); /* cookies are believed, only not this one */
        if (complete(stack, ack) != is_good)
            fail_msg("%s", rows[i / 2].name);
        assert_int_equal(is_good, others.accepted);
        syn_stack_free(stack);
    }
}

/* Goal: long after the last cookie was given none is believed, not even looked at. */
static void test_cookies_when_none_are_given(void **state)
{
    struct stack *stack = syn_stack_new(16);
    struct tcp_key key = client();
    struct segment ack = modern_syn(&key);

    (void)state;
    ack.header.flags = TCP_ACK;
    ack.header.sequence = IRS + 1;
    ack.header.options.has_timestamps = false;
    ack.header.acknowledgement = tcp_cookie_make(stack, &key, IRS, 1460) + 1;
    assert_false(complete(stack, ack)); /* good, but nobody gave it */
    assert_int_equal(0, stack->counters[STACK_TCP_COOKIES_REJECTED]);
    stack->tcp->syn_cache = (tcp_syn_cache_free(stack->tcp->syn_cache),
                             stack->options.syn_cache_max = 0, tcp_syn_cache_new(stack));
    struct tcp_key other = fixture_key4(1, 25, 2, 40000);
    syn(stack, &other);
    assert_true(complete(stack, ack));
    assert_int_equal(1, others.accepted);
    syn_stack_free(stack);
}

/* Goal: a cookie belongs to its tuple, sequence number and timestamps; other flags do not count. */
static void test_bent_cookies(void **state)
{
    struct stack *stack = syn_stack_new(0);
    struct tcp_key key = client();

    (void)state;
    syn(stack, &key);
    struct segment good = final_ack(&key);
    for (uint32_t bit = 0; bit < 8 * offsetof(struct tcp_key, reserved); bit++) {
        struct segment bent = good;
        ((uint8_t *)&bent.key)[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(complete(stack, bent));
    }
    for (uint32_t bit = 0; bit < 32; bit++) {
        struct segment bent = good;
        bent.header.sequence ^= 1u << bit;
        assert_false(complete(stack, bent));
        bent = good;
        bent.header.acknowledgement ^= 1u << bit;
        assert_false(complete(stack, bent));
    }
    static const uint8_t flags[] = {TCP_RST, TCP_ACK | TCP_SYN, TCP_ACK | TCP_RST, TCP_PSH, 0};
    for (uint32_t i = 0; i < COUNT_OF(flags); i++) {
        struct segment bent = good;
        bent.header.flags = flags[i];
        assert_false(complete(stack, bent));
    }
    struct segment bent = good; /* an echo that we cannot have sent */
    bent.header.options.timestamp_echo += 100;
    assert_false(complete(stack, bent));
    assert_true(complete(stack, good));
    assert_int_equal(1, others.accepted);
    syn_stack_free(stack);
}

//= rfc4987#section-3.6: forged ACKs do not get a connection
static void test_forged_cookies(void **state)
{
    struct stack *stack = syn_stack_new(0);
    struct tcp_key key = client();
    struct rng rng;

    (void)state;
    syn(stack, &key);
    rng_init_seed(&rng, 2024);
    for (uint32_t i = 0; i < 1000000; i++) {
        struct segment forged = {.header = {.flags = TCP_ACK,
                                            .sequence = rng_u32(&rng),
                                            .acknowledgement = rng_u32(&rng)},
                                 .key = key};
        forged.key.remote_port = (uint16_t)rng_u32(&rng);
        assert_false(tcp_syn_complete(stack, listener, &forged));
    }
    assert_int_equal(0, others.accepted);
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
        syn(stack, &key);
        stack->now += 10;
        if (i % 1000 == 0)
            tcp_syn_cache_advance(stack, stack->now);
        if (i % 25000 != 12345)
            continue;
        struct tcp_key friend = fixture_key4(1, 25, i, 4000);
        uint32_t before = others.accepted;
        syn(stack, &friend);
        struct segment ack = final_ack(&friend);
        stack->now += TICK_MS(30);
        assert_true(complete(stack, ack));
        assert_int_equal(before + 1, others.accepted);
        assert_memory_equal(&friend, &others.key, sizeof(friend));
        assert_true(others.agreed.has_sack && others.agreed.has_timestamps &&
                    others.agreed.has_window_scale);
        assert_int_equal(7, others.agreed.snd_scale);
        assert_int_equal(1460, others.agreed.mss);
        assert_int_equal(502 << 7, others.agreed.window);
    }
    assert_true(stack->counters[STACK_TCP_COOKIES_SENT] > 90000);
    assert_int_equal(768, tcp_syn_cache_count(stack));
    assert_int_equal(memory, tcp_syn_cache_memory(stack));
    assert_true(memory <= 1024 * 66 + 256);
    tcp_syn_cache_verify(stack);

    for (tick_us due; (due = tcp_syn_cache_advance(stack, stack->now)) != TICK_NEVER;)
        stack->now = due;
    assert_int_equal(0, tcp_syn_cache_count(stack));
    struct tcp_key friend = client();
    syn(stack, &friend);
    assert_int_equal(1, tcp_syn_cache_count(stack));
    assert_true(complete(stack, final_ack(&friend)));
    assert_true(others.agreed.syn_ack_at != 0); /* by the cache again */
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
        syn(stack, &key);
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
    struct tcp_key key = client(), old = fixture_key4(1, 25, 2, 40000);
    struct tcb *tcb = fixture_tcb_new(stack, &old);
    struct wheel_timer *timer;
    tick_us ended_at = 0;

    (void)state;
    stack->options.time_wait_max = 1;
    stack->options.tcp.time_wait_time = TICK_S(5);
    stack->tcp->time_waits = tcp_time_waits_new(stack);
    assert_int_equal(ERR_OK, tcp_table_add(stack, &old, tcp_found_tcb(tcb)));
    tcp_time_wait_enter(stack, tcb);
    assert_true(stack->tcp->list_timer.deadline == START + TICK_S(5));
    syn(stack, &key);
    assert_true(stack->tcp->list_timer.deadline == START + TICK_S(1));
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
    assert_true(ended_at >= START + TICK_S(5) && ended_at <= START + TICK_S(5) + TICK_MS(2));
    assert_true(stack->now >= START + TICK_S(15) && stack->now <= START + TICK_S(15) + TICK_MS(5));
    assert_int_equal(4, fixture_sent.count);
    assert_int_equal(0, tcp_syn_cache_count(stack));
    tcp_time_waits_free(stack->tcp->time_waits);
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
        struct segment segment = modern_syn(&key);
        stack->now += rng_below(&rng, 100) == 0 ? TICK_S(1) : TICK_MS(3);
        tcp_syn_cache_advance(stack, stack->now);
        switch (rng_below(&rng, 5)) {
        case 0:
            syn(stack, &key);
            complete(stack, final_ack(&key));
            break;
        case 1:
            segment.header.flags = TCP_RST;
            segment.header.sequence = IRS + rng_below(&rng, 3);
            complete(stack, segment);
            break;
        default:
            syn(stack, &key);
            break;
        }
        listener->ready_count = 0;
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
        cmocka_unit_test(test_agreeing),
        cmocka_unit_test(test_cookie_without_timestamps),
        cmocka_unit_test(test_policy_off),
        cmocka_unit_test(test_window_scale_offer),
        cmocka_unit_test(test_window_of_the_listener),
        cmocka_unit_test(test_least_sequence_number),
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
        cmocka_unit_test(test_when_cookies_are_given),
        cmocka_unit_test(test_age_of_cookies),
        cmocka_unit_test(test_cookies_when_none_are_given),
        cmocka_unit_test(test_bent_cookies),
        cmocka_unit_test(test_forged_cookies),
        cmocka_unit_test(test_flood),
        cmocka_unit_test(test_advance_is_bounded),
        cmocka_unit_test(test_one_timer_for_both),
        cmocka_unit_test(test_random_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

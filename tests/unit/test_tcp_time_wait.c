/* SPDX-License-Identifier: Apache-2.0 */
/* TIME_WAIT: whose SYN may take the tuple (a row per case of RFC 6191), what is answered and what
 * not, how long records live and what happens when there are too many, all against the clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "death.h"
#include "tcp_tables_fixture.h"

#define WAIT    TICK_S(60)
#define SND_NXT 5000u
#define RCV_NXT 9000u
#define TS      700u
#define START   (TICK_S(100) + 1)
#define FLOWS   16u

static struct stack *waits_stack_new(uint32_t time_wait_max)
{
    struct stack *stack = fixture_stack_new(
        &(struct stack_options){.flow_count_max = FLOWS,
                                .time_wait_max = time_wait_max,
                                .now = START,
                                .seed = {5, 0},
                                .tcp = {.time_wait_time = WAIT, .has_timestamps = true}});

    stack->tcp->table = tcp_table_new(stack);
    stack->tcp->time_waits = tcp_time_waits_new(stack);
    memset(&fixture_sent, 0, sizeof(fixture_sent));
    return stack;
}

static void waits_stack_free(struct stack *stack)
{
    tcp_time_waits_verify(stack);
    tcp_table_verify(stack);
    tcp_time_waits_free(stack->tcp->time_waits);
    tcp_table_free(stack->tcp->table);
    fixture_stack_free(stack);
}

/* A connection with this tuple lived, and we closed it first. */
static struct tcp_key enter(struct stack *stack, uint32_t remote, uint32_t flags)
{
    struct tcp_key key = fixture_key4(1, 25, remote, 4000);
    struct tcb *tcb = fixture_tcb_new(stack, &key);

    tcb->snd_nxt = SND_NXT;
    tcb->rcv_nxt = RCV_NXT;
    tcb->rcv_edge = RCV_NXT + 64000;
    tcb->rcv_scale = 4;
    tcb->ts_recent = TS;
    tcb->ts_offset = 33;
    tcb->flags = flags;
    assert_int_equal(ERR_OK, tcp_table_add(stack, &key, tcp_found_tcb(tcb)));
    tcp_time_wait_enter(stack, tcb);
    tcp_table_remove(stack, &key, tcp_found_tcb(tcb)); /* as tcb_free() does */
    flow_core_slot_free(&stack->core, &tcb->slot);
    return key;
}

static bool is_waiting(struct stack *stack, const struct tcp_key *key)
{
    return tcp_table_find(stack, key).kind == TCP_FOUND_TIME_WAIT;
}

static bool input(struct stack *stack, const struct tcp_key *key, uint8_t flags, uint32_t sequence,
                  uint32_t size, bool has_timestamps, uint32_t timestamp, uint32_t *ret_iss_min)
{
    struct segment segment = {
        .header = {.flags = flags,
                   .sequence = sequence,
                   .acknowledgement = SND_NXT,
                   .options = {.has_timestamps = has_timestamps, .timestamp_value = timestamp}},
        .key = *key,
        .sequence = sequence,
        .size = size,
        .flags = flags};
    struct tcp_found found = tcp_table_find(stack, key);

    assert_int_equal(TCP_FOUND_TIME_WAIT, found.kind);
    return tcp_time_wait_input(stack, found.index, &segment, ret_iss_min);
}

//= rfc6191#section-2: which SYNs a TIME_WAIT connection gives way to
static void test_syn(void **state)
{
    static const struct {
        const char *name;
        bool had_timestamps, has_timestamps, is_off; /* is_off: our policy has none now */
        uint32_t timestamp, sequence;
        uint8_t flags;
        bool is_reused;
    } rows[] = {
        {"later timestamp, old sequence", true, true, false, TS + 1, RCV_NXT - 9, TCP_SYN, true},
        {"later timestamp over the wrap", true, true, false, TS + 0x7fffffff, 1, TCP_SYN, true},
        {"same timestamp, next sequence", true, true, false, TS, RCV_NXT, TCP_SYN, true},
        {"same timestamp, last sequence", true, true, false, TS, RCV_NXT - 1, TCP_SYN, false},
        {"earlier timestamp, new sequence", true, true, false, TS - 1, RCV_NXT + 9, TCP_SYN, false},
        {"none now, next sequence", true, false, false, 0, RCV_NXT, TCP_SYN, true},
        {"none now, last sequence", true, false, false, 0, RCV_NXT - 1, TCP_SYN, false},
        {"we agree to none now, next sequence", true, true, true, 1, RCV_NXT, TCP_SYN, true},
        {"we agree to none now, last sequence", true, true, true, TS + 1, RCV_NXT - 1, TCP_SYN,
         false},
        {"none then, some now", false, true, false, 0, RCV_NXT - 1, TCP_SYN, true},
        {"none at all, next sequence", false, false, false, 0, RCV_NXT, TCP_SYN, true},
        {"none at all, half the space on", false, false, false, 0, RCV_NXT + 0x7fffffff, TCP_SYN,
         true},
        {"none at all, last sequence", false, false, false, 0, RCV_NXT - 1, TCP_SYN, false},
        {"ECN does not matter", true, true, false, TS + 1, 1, TCP_SYN | TCP_ECE | TCP_CWR, true},
        {"SYN with FIN", true, true, false, TS + 1, RCV_NXT, TCP_SYN | TCP_FIN, false},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct stack *stack = waits_stack_new(4);
        struct tcp_key key = enter(stack, 1, rows[i].had_timestamps ? TCB_HAS_TIMESTAMPS : 0);
        uint32_t iss_min = 0;
        stack->options.tcp.has_timestamps = !rows[i].is_off;
        bool is_reused = !input(stack, &key, rows[i].flags, rows[i].sequence, 0,
                                rows[i].has_timestamps, rows[i].timestamp, &iss_min);
        if (is_reused != rows[i].is_reused || is_waiting(stack, &key) == is_reused ||
            iss_min != (is_reused ? SND_NXT : 0))
            fail_msg("%s", rows[i].name);
        /* RFC 9293 3.10.7.4: an old one learns where the connection stands. */
        assert_int_equal(is_reused || rows[i].flags & TCP_FIN ? 0 : 1, fixture_sent.count);
        assert_int_equal(is_reused ? 0 : 1, tcp_time_waits_count(stack));
        waits_stack_free(stack);
    }
}

/* Goal: what is answered, and what restarts the wait. */
static void test_segments(void **state)
{
    static const struct {
        const char *name;
        uint8_t flags;
        uint32_t sequence, size, timestamp;
        bool has_timestamps, is_answered, is_restarted;
    } rows[] = {
        {"the FIN again", TCP_FIN | TCP_ACK, RCV_NXT - 1, 0, TS, true, true, true},
        {"the FIN again, with data", TCP_FIN | TCP_ACK, RCV_NXT - 101, 100, TS + 5, true, true,
         true},
        {"an older FIN by its timestamp", TCP_FIN | TCP_ACK, RCV_NXT - 1, 0, TS - 1, true, true,
         false},
        {"the FIN without timestamps", TCP_FIN | TCP_ACK, RCV_NXT - 1, 0, 0, false, true, false},
        {"another FIN", TCP_FIN | TCP_ACK, RCV_NXT, 0, TS, true, true, false},
        {"old data", TCP_ACK, RCV_NXT - 500, 100, TS, true, true, false},
        {"SYN-ACK", TCP_SYN | TCP_ACK, RCV_NXT - 500, 0, TS, true, true, false},
        {"SYN-ACK that ends at the FIN", TCP_SYN | TCP_ACK | TCP_FIN, RCV_NXT - 1, 0, TS, true,
         true, false},
        {"an ACK", TCP_ACK, RCV_NXT, 0, TS, true, false, false},
        {"an old ACK", TCP_ACK, RCV_NXT - 500, 0, TS, true, false, false},
        {"FIN without ACK", TCP_FIN, RCV_NXT - 1, 0, TS, true, false, false},
        {"RST at RCV.NXT", TCP_RST, RCV_NXT, 0, TS, true, false, false},
        {"RST with ACK", TCP_RST | TCP_ACK, RCV_NXT, 0, TS, true, false, false},
        {"RST with SYN", TCP_RST | TCP_SYN, RCV_NXT, 0, TS + 1, true, false, false},
        {"nothing at all", 0, RCV_NXT, 0, TS, true, false, false},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct stack *stack = waits_stack_new(4);
        struct tcp_key key = enter(stack, 1, TCB_HAS_TIMESTAMPS);
        uint32_t iss_min;
        stack->now += TICK_S(10);
        assert_true(input(stack, &key, rows[i].flags, rows[i].sequence, rows[i].size,
                          rows[i].has_timestamps, rows[i].timestamp, &iss_min));
        if (fixture_sent.count != (rows[i].is_answered ? 1 : 0))
            fail_msg("%s: answered", rows[i].name);
        stack->now = START + WAIT + TICK_S(1);
        tcp_time_waits_advance(stack, stack->now);
        if (is_waiting(stack, &key) != rows[i].is_restarted)
            fail_msg("%s: restarted", rows[i].name);
        waits_stack_free(stack);
    }
}

//= rfc1337#section-3: RSTs are ignored in TIME_WAIT
static void test_resets_are_counted(void **state)
{
    struct stack *stack = waits_stack_new(4);
    struct tcp_key key = enter(stack, 1, 0);
    uint32_t iss_min;

    (void)state;
    assert_true(input(stack, &key, TCP_RST, RCV_NXT, 0, false, 0, &iss_min));
    assert_int_equal(1, stack->counters[STACK_TCP_TIME_WAIT_RESETS]);
    waits_stack_free(stack);
}

static void test_what_the_ack_says(void **state)
{
    struct stack *stack = waits_stack_new(4);
    struct tcp_key key = enter(stack, 1, TCB_HAS_TIMESTAMPS);
    uint32_t iss_min;

    (void)state;
    stack->now += TICK_S(1);
    input(stack, &key, TCP_FIN | TCP_ACK, RCV_NXT - 1, 0, true, TS + 3, &iss_min);
    const struct tcp_header *ack = &fixture_sent.header;
    assert_memory_equal(&key, &fixture_sent.key, sizeof(key));
    assert_int_equal(key.local_port, ack->source_port);
    assert_int_equal(key.remote_port, ack->destination_port);
    assert_int_equal(TCP_ACK, ack->flags);
    assert_int_equal(SND_NXT, ack->sequence);
    assert_int_equal(RCV_NXT, ack->acknowledgement);
    assert_int_equal(64000 >> 4, ack->window);
    assert_true(ack->options.has_timestamps);
    assert_int_equal((uint32_t)(stack->now / 1000) + 33, ack->options.timestamp_value);
    assert_int_equal(TS + 3, ack->options.timestamp_echo);
    waits_stack_free(stack);
}

/* Goal: after the ACK of a later FIN, an older SYN that was newer than the first FIN is old. */
static void test_newest_timestamp_counts(void **state)
{
    struct stack *stack = waits_stack_new(4);
    struct tcp_key key = enter(stack, 1, TCB_HAS_TIMESTAMPS);
    uint32_t iss_min;

    (void)state;
    input(stack, &key, TCP_FIN | TCP_ACK, RCV_NXT - 1, 0, true, TS + 30, &iss_min);
    assert_true(input(stack, &key, TCP_SYN, RCV_NXT + 9, 0, true, TS + 29, &iss_min));
    assert_false(input(stack, &key, TCP_SYN, RCV_NXT + 9, 0, true, TS + 31, &iss_min));
    waits_stack_free(stack);
}

/* Goal: a window of exactly nothing, and less than nothing, is said as 0; one too large as 65535.
 */
static void test_window_bounds(void **state)
{
    static const uint32_t edges[] = {0, UINT32_MAX, 65536};
    static const uint16_t expected[] = {0, 0, 65535};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(edges); i++) {
        struct stack *stack = waits_stack_new(4);
        struct tcp_key key = fixture_key4(1, 25, 1, 1);
        struct tcb *tcb = fixture_tcb_new(stack, &key);
        tcb->rcv_nxt = RCV_NXT;
        tcb->rcv_edge = RCV_NXT + edges[i];
        assert_int_equal(ERR_OK, tcp_table_add(stack, &key, tcp_found_tcb(tcb)));
        tcp_time_wait_enter(stack, tcb);
        assert_int_equal(expected[i],
                         tcp_time_wait_at(stack, tcp_table_find(stack, &key).index)->window);
        waits_stack_free(stack);
    }
}

/* ---- our own connect() ---- */

static void test_reuse(void **state)
{
    static const struct {
        const char *name;
        bool had_timestamps, has_timestamps;
        tick_us age;
        bool is_reused;
    } rows[] = {
        {"a second old", true, true, TICK_S(1) + 999, true},
        {"not quite", true, true, TICK_S(1) - 1, false},
        {"no timestamps then", false, true, TICK_S(59), false},
        {"no timestamps now", true, false, TICK_S(59), false},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct stack *stack = waits_stack_new(4);
        struct tcp_key key = enter(stack, 1, rows[i].had_timestamps ? TCB_HAS_TIMESTAMPS : 0);
        uint32_t iss_min = 0;
        stack->now += rows[i].age;
        stack->options.tcp.has_timestamps = rows[i].has_timestamps;
        bool is_reused = tcp_time_wait_reuse(stack, &key, &iss_min);
        if (is_reused != rows[i].is_reused || is_waiting(stack, &key) == is_reused ||
            iss_min != (is_reused ? SND_NXT : 0))
            fail_msg("%s", rows[i].name);
        waits_stack_free(stack);
    }
}

/* Goal: a second from the last FIN on, not from the first; a tcb's tuple is not ours to take. */
static void test_reuse_is_refused(void **state)
{
    struct stack *stack = waits_stack_new(4);
    struct tcp_key key = enter(stack, 1, TCB_HAS_TIMESTAMPS), other = fixture_key4(1, 25, 2, 2);
    struct tcb *tcb = fixture_tcb_new(stack, &other);
    uint32_t iss_min;

    (void)state;
    assert_int_equal(ERR_OK, tcp_table_add(stack, &other, tcp_found_tcb(tcb)));
    stack->now += TICK_S(30);
    assert_false(tcp_time_wait_reuse(stack, &other, &iss_min));
    input(stack, &key, TCP_FIN | TCP_ACK, RCV_NXT - 1, 0, true, TS, &iss_min);
    stack->now += TICK_MS(500);
    assert_false(tcp_time_wait_reuse(stack, &key, &iss_min));
    stack->now += TICK_MS(501);
    assert_true(tcp_time_wait_reuse(stack, &key, &iss_min));
    assert_false(tcp_time_wait_reuse(stack, &key, &iss_min)); /* gone */
    waits_stack_free(stack);
}

/* Goal: 0 means "any" elsewhere, so it is never said. */
static void test_iss_min_is_never_zero(void **state)
{
    struct stack *stack = waits_stack_new(4);
    struct tcp_key key = enter(stack, 1, TCB_HAS_TIMESTAMPS);
    uint32_t iss_min = 77;

    (void)state;
    tcp_time_wait_at(stack, tcp_table_find(stack, &key).index)->snd_nxt = 0;
    assert_false(input(stack, &key, TCP_SYN, RCV_NXT, 0, true, TS + 1, &iss_min));
    assert_int_equal(1, iss_min);
    waits_stack_free(stack);
}

/* ---- time and number ---- */

/* Goal: nobody goes early, everybody within the millisecond after, and the deadline says when. */
static void test_expiry(void **state)
{
    struct stack *stack = waits_stack_new(8);
    struct tcp_key first = enter(stack, 1, 0);

    (void)state;
    stack->now += TICK_MS(10) + 500;
    struct tcp_key second = enter(stack, 2, 0);
    assert_int_equal(START + WAIT, stack->tcp->list_timer.deadline);
    tick_us due = tcp_time_waits_advance(stack, START + WAIT - 1);
    assert_true(is_waiting(stack, &first));
    assert_true(due >= START + WAIT && due <= START + WAIT + 1000);
    stack->now = due;
    due = tcp_time_waits_advance(stack, stack->now);
    assert_false(is_waiting(stack, &first));
    assert_true(is_waiting(stack, &second));
    assert_true(due >= START + WAIT + TICK_MS(10) + 500);
    assert_true(due <= START + WAIT + TICK_MS(12));
    stack->now = due;
    assert_true(tcp_time_waits_advance(stack, stack->now) == TICK_NEVER);
    assert_int_equal(0, tcp_time_waits_count(stack));
    waits_stack_free(stack);
}

/* Goal: the clock's 32 bits of milliseconds wrap without anybody noticing. */
static void test_wrap_of_the_clock(void **state)
{
    struct stack *stack = waits_stack_new(8);

    (void)state;
    stack->now = TICK_MS(UINT64_C(0xffffffff)) - TICK_S(30);
    struct tcp_key key = enter(stack, 1, TCB_HAS_TIMESTAMPS);
    tick_us end = stack->now + WAIT;
    assert_true(tcp_time_waits_advance(stack, end - 1000) >= end);
    assert_true(is_waiting(stack, &key));
    assert_true(tcp_time_waits_advance(stack, end + 1000) == TICK_NEVER);
    waits_stack_free(stack);
}

/* Goal: the bound holds, the oldest goes, and each is counted. 0 is a bound too. */
static void test_eviction(void **state)
{
    struct stack *stack = waits_stack_new(3);
    struct tcp_key keys[5];

    (void)state;
    for (uint32_t i = 0; i < 5; i++) {
        keys[i] = enter(stack, i, 0);
        stack->now += TICK_MS(1);
        assert_int_equal(i < 3 ? i + 1 : 3, tcp_time_waits_count(stack));
    }
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(i >= 2, is_waiting(stack, &keys[i]));
    assert_int_equal(2, stack->counters[STACK_TCP_TIME_WAIT_EVICTED]);
    waits_stack_free(stack);

    stack = waits_stack_new(0);
    keys[0] = enter(stack, 0, 0);
    assert_int_equal(TCP_FOUND_NONE, tcp_table_find(stack, &keys[0]).kind);
    assert_int_equal(1, stack->counters[STACK_TCP_TIME_WAIT_EVICTED]);
    waits_stack_free(stack);
}

/* Goal: a backlog of expiries is worked off in bounded pieces. */
static void test_work_per_call_is_bounded(void **state)
{
    struct stack *stack = waits_stack_new(5000);
    uint32_t calls = 0, left = 5000;

    (void)state;
    for (uint32_t i = 0; i < 5000; i++)
        enter(stack, i, 0);
    stack->now += WAIT + 1000;
    while (tcp_time_waits_advance(stack, stack->now) != TICK_NEVER) {
        assert_true(left - tcp_time_waits_count(stack) <= 1024);
        left = tcp_time_waits_count(stack);
        assert_true(++calls < 6);
    }
    assert_int_equal(4, calls);
    waits_stack_free(stack);
}

/* Goal: 96 octets a record with its share of the table, blocks and all. */
static void test_memory(void **state)
{
    static const uint32_t counts[] = {3000, 49155, 65536};

    (void)state;
    for (uint32_t n = 0; n < COUNT_OF(counts); n++) {
        struct stack *stack = waits_stack_new(counts[n]);
        for (uint32_t i = 0; i < counts[n]; i++)
            enter(stack, i, 0);
        uint64_t memory = tcp_time_waits_memory(stack) + tcp_table_memory(stack);
        assert_true(memory <= (uint64_t)96 * counts[n] + 96 * 1024);
        assert_int_equal(counts[n], tcp_time_waits_count(stack));
        waits_stack_free(stack);
    }
}

/* Goal: random coming, going, FINs, reuse and time leave lists, table and counts whole. */
static void test_random_work(void **state)
{
    struct stack *stack = waits_stack_new(50);
    struct rng rng;
    uint32_t iss_min;

    (void)state;
    rng_init_seed(&rng, 11);
    for (uint32_t step = 0; step < 20000; step++) {
        uint32_t remote = rng_below(&rng, 120);
        struct tcp_key key = fixture_key4(1, 25, remote, 4000);
        bool was_waiting = is_waiting(stack, &key);
        stack->now += rng_below(&rng, 4) * TICK_MS(700);
        tcp_time_waits_advance(stack, stack->now);
        if (!is_waiting(stack, &key)) {
            if (!was_waiting)
                enter(stack, remote, TCB_HAS_TIMESTAMPS);
        } else if (rng_below(&rng, 2) == 0) {
            input(stack, &key, TCP_FIN | TCP_ACK, RCV_NXT - 1, 0, true, TS, &iss_min);
        } else if (rng_below(&rng, 2) == 0) {
            assert_false(input(stack, &key, TCP_SYN, RCV_NXT, 0, true, TS + 1, &iss_min));
        } else {
            tcp_time_wait_reuse(stack, &key, &iss_min);
        }
        if (step % 50 == 0) {
            tcp_time_waits_verify(stack);
            tcp_table_verify(stack);
        }
    }
    assert_true(stack->counters[STACK_TCP_TIME_WAIT_EVICTED] > 0);
    waits_stack_free(stack);
}

static void enter_unknown(void *context)
{
    struct stack *stack = context;
    struct tcp_key key = fixture_key4(1, 25, 1, 4000);

    tcp_time_wait_enter(stack, fixture_tcb_new(stack, &key));
}

static void test_misuse_is_a_bug(void **state)
{
    struct stack *stack = waits_stack_new(4);

    (void)state;
    assert_true(death_is_caused_by(enter_unknown, stack));
    waits_stack_free(stack);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_syn),
        cmocka_unit_test(test_segments),
        cmocka_unit_test(test_resets_are_counted),
        cmocka_unit_test(test_what_the_ack_says),
        cmocka_unit_test(test_newest_timestamp_counts),
        cmocka_unit_test(test_window_bounds),
        cmocka_unit_test(test_reuse),
        cmocka_unit_test(test_reuse_is_refused),
        cmocka_unit_test(test_iss_min_is_never_zero),
        cmocka_unit_test(test_expiry),
        cmocka_unit_test(test_wrap_of_the_clock),
        cmocka_unit_test(test_eviction),
        cmocka_unit_test(test_work_per_call_is_bounded),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_random_work),
        cmocka_unit_test(test_misuse_is_a_bug),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

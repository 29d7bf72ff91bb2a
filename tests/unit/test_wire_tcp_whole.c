/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Payload that is sent on as it came (dataplane/wire/tcp/whole.h): B sends back what A sent, by
 * reference, with octets of its own in front, and perhaps twice. What A gets must be that, whatever
 * is lost, and frames must be what they should be made of.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
/* cmocka.h wants the ones above first. */
#include <cmocka.h>

#include "dataplane/wire/format/tcp_options.h"
#include "dataplane/wire/tcp/scoreboard.h"
#include "dataplane/wire/tcp/whole.h"
#include "tests/unit/wire_pair.h"

#define MSS          1448u
#define WORTH        (MSS - MSS / 4)
#define EXPECTED_MAX (1u << 20)

struct echo {
    struct pair *pair;
    uint32_t prefix, times; /* in front of what was taken at once; how often that is sent */
    uint8_t expected[EXPECTED_MAX];
    uint32_t expected_size, got;
};

static struct echo *echo_new(const struct pair_options *options, uint32_t prefix, uint32_t times)
{
    struct echo *echo = calloc(1, sizeof(*echo));

    assert_non_null(echo);
    echo->pair = pair_new(options);
    echo->prefix = prefix;
    echo->times = times;
    pair_connect(echo->pair);
    return echo;
}

static void echo_free(struct echo *echo)
{
    pair_free(echo->pair);
    free(echo);
}

static void say(struct echo *echo, const struct buf_queue *octets)
{
    struct buf_queue out;

    buf_queue_init(&out);
    buf_queue_append_queue(&out, octets);
    assert_in_range(echo->expected_size + out.size, 0, EXPECTED_MAX);
    buf_queue_copy_out(&out, 0, echo->expected + echo->expected_size, (uint32_t)out.size);
    echo->expected_size += (uint32_t)out.size;
    flow_append(echo->pair->planes[PAIR_B], echo->pair->flows[PAIR_B], &out);
    buf_queue_fini(&out);
}

/* B says what it heard, and A hears it. */
static void echo_turn(struct echo *echo)
{
    struct pair *pair = echo->pair;
    struct flow_plane *plane = pair->planes[PAIR_B];
    uint32_t size = flow_readable(plane, pair->flows[PAIR_B]);
    struct buf_queue heard, prefix;

    if (size > 0) {
        buf_queue_init(&heard);
        buf_queue_init(&prefix);
        for (uint32_t i = 0; i < echo->prefix; i++)
            assert_int_equal(
                ERR_OK, buf_queue_append_copy(&prefix, pair->pools[PAIR_B], SPAN_LITERAL("+")));
        flow_take(plane, pair->flows[PAIR_B], size, &heard);
        say(echo, &prefix);
        for (uint32_t i = 0; i < echo->times; i++)
            say(echo, &heard);
        flow_credit(plane, pair->flows[PAIR_B], size);
        buf_queue_fini(&prefix);
        buf_queue_fini(&heard);
    }
    pair_turn(pair);
    while ((size = flow_readable(pair->planes[PAIR_A], pair->flows[PAIR_A])) > 0) {
        struct span octets = flow_pull(pair->planes[PAIR_A], pair->flows[PAIR_A],
                                       size < FLOW_PULL_MAX ? size : FLOW_PULL_MAX);
        assert_in_range(echo->got + octets.size, 0, echo->expected_size);
        assert_memory_equal(echo->expected + echo->got, octets.data, octets.size);
        echo->got += octets.size;
        flow_consume(pair->planes[PAIR_A], pair->flows[PAIR_A], octets.size);
    }
}

/* Until A has heard what it said, or as often as B says it. */
static void echo_finish(struct echo *echo, uint32_t size)
{
    tick_us end = echo->pair->now + TICK_S(120);

    do
        echo_turn(echo);
    while (echo->pair->now < end &&
           (echo->got < size * echo->times || echo->got < echo->expected_size));
    assert_int_equal(echo->expected_size, echo->got);
    assert_in_range(echo->got, size * echo->times, EXPECTED_MAX);
}

static void echo_run(struct echo *echo, uint32_t size)
{
    pair_send(echo->pair, PAIR_A, 0, size);
    echo_finish(echo, size);
}

static bool lose(struct pair *pair, const struct pair_segment *segment)
{
    return segment->size == 0 || ++pair->judged % 9 != 0;
}

static void test_what_comes_is_what_goes(void **state)
{
    const uint32_t sums = NIC_RX_CHECKSUM | NIC_TX_TCP_CHECKSUM;
    static const uint32_t prefixes[] = {0, 1, 63, 64, 300, 1500};
    const struct pair_options rows[] = {
        {.offloads = NIC_TX_MULTI_SEGMENT, .segments_max = 8},
        {.offloads = NIC_TX_MULTI_SEGMENT, .segments_max = 8, .family = FLOW_FAMILY_IP6},
        {.offloads = NIC_TX_MULTI_SEGMENT | sums, .segments_max = 8},
        {.offloads = NIC_TX_MULTI_SEGMENT | NIC_RX_CHECKSUM, .segments_max = 8},
        {.offloads = NIC_TX_MULTI_SEGMENT | NIC_TX_TCP_CHECKSUM, .segments_max = 8},
        {.offloads = NIC_TX_MULTI_SEGMENT, .segments_max = 8, .split = 500},
        {.offloads = NIC_RX_CHECKSUM, .segments_max = 1},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows) * COUNT_OF(prefixes) * 4; i++) {
        struct pair_options options = rows[i % COUNT_OF(rows)];
        uint32_t which = i / COUNT_OF(rows);
        bool is_lossy = which / COUNT_OF(prefixes) % 2 > 0;
        options.paths[0].delay = options.paths[1].delay = 1000;
        struct echo *echo = echo_new(&options, prefixes[which % COUNT_OF(prefixes)],
                                     1 + which / COUNT_OF(prefixes) / 2);
        echo->pair->judge = is_lossy ? lose : NULL;
        echo_run(echo, 40000);
        uint64_t bad = pair_count(echo->pair, PAIR_A, STACK_TCP_CHECKSUM);
        assert_int_equal(0, bad);
        echo_free(echo);
    }
}

/* ---- buffers that come with a note ---- */

static const struct nic_ops *clean_ops;

/* As from a driver that leaves flags and hash of a buffer as they were when it came the last time:
 * then, too, it held a full segment. */
static uint32_t receive_used(struct nic *nic, tick_us now, struct buf **ret_frames, uint32_t max)
{
    const uint32_t headers =
        ETHERNET_HEADER_SIZE + IP4_HEADER_SIZE + TCP_HEADER_SIZE + TCP_OPTIONS_TIMESTAMPS_SIZE;
    uint32_t count = clean_ops->receive(nic, now, ret_frames, max);

    for (uint32_t i = 0; i < count; i++)
        tcp_whole_note(ret_frames[i], ret_frames[i]->mbuf.data_off + headers, MSS, true, 0x1234);
    return count;
}

/* Goal: what a buffer carried before says nothing of what it carries now, which may have come out
 * of order, or was verified by the nic. */
static void test_buffers_come_again(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        struct pair_options options = {
            .offloads = NIC_TX_MULTI_SEGMENT | (i & 1 ? NIC_RX_CHECKSUM : 0), .segments_max = 8};
        options.paths[0].delay = options.paths[1].delay = 1000;
        struct echo *echo = echo_new(&options, 0, 1);
        struct nic *nic = echo->pair->stacks[PAIR_B]->ports[0].nic;
        clean_ops = nic->ops;
        struct nic_ops ops = *clean_ops;
        ops.receive = receive_used;
        nic->ops = &ops;
        echo->pair->judge = i & 2 ? lose : NULL;
        echo_run(echo, 100 * MSS + 7);
        assert_int_equal(0, pair_count(echo->pair, PAIR_A, STACK_TCP_CHECKSUM));
        nic->ops = clean_ops;
        echo_free(echo);
    }
}

/* The sizes of what B sent first. */
static uint32_t size_of(const struct pair *pair, uint32_t number)
{
    for (uint32_t i = 0; i < pair->segment_count; i++) {
        if (pair->segments[i].from == PAIR_B && pair->segments[i].size > 0 && number-- == 0)
            return pair->segments[i].size;
    }
    return 0;
}

/* What B sent last says that there is no more. */
static bool is_last_pushed(const struct pair *pair)
{
    for (uint32_t i = pair->segment_count; i > 0; i--) {
        if (pair->segments[i - 1].from == PAIR_B && pair->segments[i - 1].size > 0)
            return pair->segments[i - 1].tcp.flags & TCP_PSH;
    }
    return false;
}

static void test_where_segments_end(void **state)
{
    static const struct {
        const char *name;
        uint32_t size, prefix, times, first, second;
    } rows[] = {
        {"as they came", 2 * MSS, 0, 1, MSS, MSS},
        {"a few octets go with those behind them", 2 * MSS, 63, 1, MSS, MSS},
        {"more of them go ahead", 2 * MSS, 64, 1, 64, MSS},
        {"as many as fit go ahead", 2 * MSS, MSS, 1, MSS, MSS},
        {"three quarters of a segment are worth a frame", WORTH, 100, 2, 100, WORTH},
        {"less is not", WORTH - 1, 100, 2, MSS, 2 * (WORTH - 1) + 100 - MSS},
        {"what fits into one frame goes in one", WORTH, MSS - WORTH, 1, MSS, 0},
        {"what does not, does not", WORTH, MSS - WORTH + 1, 1, MSS - WORTH + 1, WORTH},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct echo *echo =
            echo_new(&(struct pair_options){.offloads = NIC_TX_MULTI_SEGMENT, .segments_max = 8},
                     rows[i].prefix, rows[i].times);
        print_message("# %s\n", rows[i].name);
        echo_run(echo, rows[i].size);
        assert_int_equal(rows[i].first, size_of(echo->pair, 0));
        assert_int_equal(rows[i].second, size_of(echo->pair, 1));
        assert_true(is_last_pushed(echo->pair));
        echo_free(echo);
    }
}

/* Goal: nothing is copied that can go as it came, and it goes so once. */
static void test_copies(void **state)
{
    for (uint32_t times = 1; times <= 2; times++) {
        struct pair_options options = {.offloads = NIC_TX_MULTI_SEGMENT, .segments_max = 8};
        struct echo *echo = echo_new(&options, 0, times);

        (void)state;
        echo_run(echo, 50 * MSS);
        uint64_t copied = echo->pair->stacks[PAIR_B]->core.stats.copied.summed;
        assert_in_range(copied, (times - 1) * 50 * MSS, (times - 1) * 50 * MSS + 2 * MSS);
        echo_free(echo);
    }
}

/* Goal: what goes as it came counts for the window like all else that goes: when it is in the way
 * of a train, it grows. */
static void test_window_grows(void **state)
{
    const uint32_t size = 40 * MSS;
    struct pair_options options = {.offloads = NIC_TX_MULTI_SEGMENT, .segments_max = 8};

    (void)state;
    options.paths[0].delay = options.paths[1].delay = 1000;
    struct echo *echo = echo_new(&options, 0, 1);
    struct pair *pair = echo->pair;
    uint32_t before = pair_tcb(pair, PAIR_B)->congestion.cwnd;
    tick_us end = pair->now + TICK_S(10);
    pair_send(pair, PAIR_A, 0, size);
    while (flow_readable(pair->planes[PAIR_B], pair->flows[PAIR_B]) < size && pair->now < end)
        pair_turn(pair);
    echo_finish(echo, size);
    assert_in_range(pair_tcb(pair, PAIR_B)->congestion.cwnd, before + before / 2, size);
    echo_free(echo);
}

/* ---- what ends a train ---- */

/* B has heard 40 segments that it may send as they came, behind so many octets of its own, and
 * nothing is in flight. */
static struct echo *echo_heard_behind(uint32_t prefix)
{
    struct pair_options options = {.offloads = NIC_TX_MULTI_SEGMENT, .segments_max = 8};

    options.paths[0].delay = options.paths[1].delay = 1000;
    struct echo *echo = echo_new(&options, prefix, 1);
    struct pair *pair = echo->pair;
    tick_us end = pair->now + TICK_S(10);
    pair_send(pair, PAIR_A, 0, 40 * MSS);
    while (flow_readable(pair->planes[PAIR_B], pair->flows[PAIR_B]) < 40 * MSS && pair->now < end)
        pair_turn(pair);
    return echo;
}

static struct echo *echo_heard(void)
{
    return echo_heard_behind(0);
}

/* In segments. */
static void windows_set(struct tcb *tcb, uint32_t window, uint32_t cwnd)
{
    tcb->snd_wnd = tcb->snd_wnd_max = window * MSS;
    tcb->congestion.cwnd = cwnd * MSS;
}

/* How many octets B sends of the 40 segments in one turn. */
static uint32_t train_octets(uint32_t window, uint32_t cwnd)
{
    struct echo *echo = echo_heard();
    struct tcb *tcb = pair_tcb(echo->pair, PAIR_B);
    uint32_t before = tcb->snd_nxt;

    windows_set(tcb, window, cwnd);
    echo_turn(echo);
    uint32_t octets = tcb->snd_nxt - before;
    echo_free(echo);
    return octets;
}

/* Goal: a train ends where the peer's window or the congestion window does, and nowhere else. */
static void test_what_ends_a_train(void **state)
{
    (void)state;
    for (uint32_t room = 2; room < 12; room++) {
        assert_int_equal(room * MSS, train_octets(room, 100));
        assert_int_equal(room * MSS, train_octets(100, room));
    }
    assert_int_equal(40 * MSS, train_octets(100, 100));
}

/* One segment in flight is described octet by octet, so that `left` more descriptors may be. */
static void descriptors_leave(const struct echo *echo, uint32_t left)
{
    struct stack *stack = echo->pair->stacks[PAIR_B];
    struct tcb *tcb = pair_tcb(echo->pair, PAIR_B);

    for (uint32_t first = tcb->sent.count; first > 0; first--) {
        for (uint32_t size = MSS; size > 1 && tcb->sent.count + left < TCP_SENT_MAX; size--)
            assert_int_equal(ERR_OK, tcp_sent_split(stack, tcb, first - 1, (uint16_t)(size - 1)));
    }
    assert_int_equal(TCP_SENT_MAX - left, tcb->sent.count);
}

/* Goal: two descriptors are kept for what may follow a segment, in a train as without. */
static void test_descriptors_end_a_train(void **state)
{
    (void)state;
    for (uint32_t left = 2; left < 8; left++) {
        struct echo *echo = echo_heard();
        struct tcb *tcb = pair_tcb(echo->pair, PAIR_B);

        windows_set(tcb, 100, 14);
        echo_turn(echo);
        assert_int_equal(14, tcb->sent.count);
        descriptors_leave(echo, left);
        uint32_t before = tcb->snd_nxt;
        windows_set(tcb, 100, 100);
        tcb_output_later(echo->pair->stacks[PAIR_B], tcb);
        flow_flush(echo->pair->planes[PAIR_B], echo->pair->now);
        assert_int_equal((left - 2) * MSS, tcb->snd_nxt - before);
        stack_verify(echo->pair->stacks[PAIR_B]);
        echo_free(echo);
    }
}

static uint32_t take_nothing(struct nic *nic, tick_us now, struct buf **frames, uint32_t count)
{
    (void)nic;
    (void)now;
    (void)frames;
    (void)count;
    return 0;
}

/* Goal: a train ends where the rest of the port's queue is for others, no frame of it is dropped,
 * and the rest goes as soon as the nic takes frames again. */
static void test_port_ends_a_train(void **state)
{
    const uint32_t room = STACK_SEND_QUEUE - TCP_PORT_ROOM_MIN;

    (void)state;
    for (uint32_t own = room - 34; own <= room; own += 17) {
        struct echo *echo = echo_heard_behind(own * MSS);
        struct pair *pair = echo->pair;
        struct tcb *tcb = pair_tcb(pair, PAIR_B);
        struct stack_port *port = &pair->stacks[PAIR_B]->ports[0];
        const struct nic_ops *ops = port->nic->ops;
        struct nic_ops full = *ops;
        uint32_t before = tcb->snd_nxt;

        full.send = take_nothing;
        port->nic->ops = &full;
        windows_set(tcb, 1000, 1000);
        echo_turn(echo);
        assert_int_equal(room, port->waiting_count);
        assert_int_equal(room * MSS, tcb->snd_nxt - before);
        assert_int_equal(1, pair_count(pair, PAIR_B, STACK_TCP_SEND_PORT_FULL));
        port->nic->ops = ops;
        echo_turn(echo);
        assert_int_equal((own + 40) * MSS, tcb->snd_nxt - before);
        assert_int_equal(0, pair_count(pair, PAIR_B, STACK_SEND_DROPPED));
        echo_finish(echo, 40 * MSS);
        echo_free(echo);
    }
}

static bool lose_one(struct pair *pair, const struct pair_segment *segment)
{
    return segment->from != PAIR_B || segment->size == 0 || ++pair->judged != 1;
}

/* Of payload, since segment number `at` of the link. */
static uint32_t octets_since(const struct pair *pair, uint32_t at)
{
    uint32_t octets = 0;

    for (; at < pair->segment_count; at++)
        octets += pair->segments[at].from == PAIR_B ? pair->segments[at].size : 0;
    return octets;
}

/* Goal: while losses are repaired all that is sent counts, also of several segments in a turn
 * (RFC 6937 3: prr_out). */
static void test_recovery_counts_all(void **state)
{
    struct echo *echo = echo_heard();
    struct pair *pair = echo->pair;
    struct tcb *tcb = pair_tcb(pair, PAIR_B);
    uint32_t at = 0, most = 0;

    (void)state;
    pair->judge = lose_one;
    windows_set(tcb, 100, 20);
    for (uint32_t turns = 0; turns < 100; turns++) {
        uint32_t before = pair->segment_count;
        bool was_open = !(tcb->flags & TCB_IN_RECOVERY);
        echo_turn(echo);
        if (!(tcb->flags & TCB_IN_RECOVERY))
            continue;
        at = was_open ? before : at;
        assert_int_equal(octets_since(pair, at), tcb->scoreboard->prr_out);
        uint32_t octets = octets_since(pair, before);
        most = octets > most ? octets : most;
    }
    assert_in_range(most, 4 * MSS, 20 * MSS); /* it was more than one at a time */
    echo_finish(echo, 40 * MSS);
    echo_free(echo);
}

/* Goal: RFC 3168 6.1.3 asks for ECE on every ACK until CWR comes: on frames of a train, too. */
static void test_trains_echo_marks(void **state)
{
    struct echo *echo = echo_heard();
    struct pair *pair = echo->pair;
    uint32_t at = pair->segment_count, count = 0;

    (void)state;
    pair_tcb(pair, PAIR_B)->flags |= TCB_HAS_ECN | TCB_ECE_SEND;
    echo_turn(echo);
    for (; at < pair->segment_count; at++) {
        const struct pair_segment *segment = &pair->segments[at];
        if (segment->from != PAIR_B || segment->size == 0)
            continue;
        assert_true(segment->tcp.flags & TCP_ECE);
        count++;
    }
    assert_in_range(count, 5, 40);
    echo_free(echo);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_comes_is_what_goes),
        cmocka_unit_test(test_buffers_come_again),
        cmocka_unit_test(test_where_segments_end),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_window_grows),
        cmocka_unit_test(test_what_ends_a_train),
        cmocka_unit_test(test_descriptors_end_a_train),
        cmocka_unit_test(test_port_ends_a_train),
        cmocka_unit_test(test_recovery_counts_all),
        cmocka_unit_test(test_trains_echo_marks),
    };
    return cmocka_run_group_tests_name("wire tcp whole", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stamps: what is counted, when, and what is not; of the time itself only that it is no less than
 * what passed and no more than the test took.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <time.h>

#include "relay/stamps.h"
#include "relay/stream.h"

#define FLOWS    3u
#define SLEEP_NS 2000000

static uint64_t pending[FLOWS];
static struct stamps *stamps;

static uint64_t fake_pending(struct flow_plane *plane, struct flow flow)
{
    (void)plane;
    assert_true(flow.index < FLOWS);
    return pending[flow.index];
}

static const struct flow_ops ops = {.pending = fake_pending};
static struct flow_plane plane = {.ops = &ops};

static int64_t now_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void rest(int64_t ns)
{
    for (int64_t end = now_ns() + ns; now_ns() < end;)
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

static uint64_t count_of(const struct latency_fine *latency)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < LATENCY_FINE_BUCKET_COUNT; i++)
        count += latency->counts[i];
    return count;
}

static struct stream stream_of(uint32_t index)
{
    return (struct stream){.plane = &plane, .flow = {index, 1}};
}

static void expect_counts(uint64_t bodies, uint64_t replies, uint64_t missed)
{
    assert_int_equal(bodies, count_of(&stamps->view.body_out));
    assert_int_equal(bodies, count_of(&stamps->view.ready_out));
    assert_int_equal(replies, count_of(&stamps->view.reply_out));
    assert_int_equal(missed, stamps->view.missed);
}

/* Its rate is known. */
static int setup(void **state)
{
    struct stream stream = stream_of(0);

    (void)state;
    stamps = calloc(1, sizeof(*stamps));
    stamps_init(stamps, &plane);
    for (uint32_t i = 0; i < FLOWS; i++)
        pending[i] = 0;
    rest(51000000);
    stamps_turn_begin(stamps);
    stamps_out(stamps, STAMPS_BODY, &stream, stamps_turn(stamps), stamps_turn(stamps));
    stamps_turn_end(stamps);
    expect_counts(1, 0, 0);
    stamps->view = (struct stamps_view){0};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    free(stamps);
    return 0;
}

/* Goal: from the beginning of the turn that received to the end of the one in which nothing is
 * pending any more, and only then. */
static void test_waits_for_the_last_octet(void **state)
{
    struct stream body = stream_of(0), reply = stream_of(1);

    (void)state;
    int64_t began = now_ns();
    stamps_turn_begin(stamps);
    stamps_out(stamps, STAMPS_BODY, &body, stamps_turn(stamps), stamps_turn(stamps));
    stamps_out(stamps, STAMPS_REPLY, &reply, stamps_turn(stamps), stamps_turn(stamps));
    pending[0] = 1;
    stamps_turn_end(stamps);
    expect_counts(0, 1, 0);
    rest(SLEEP_NS);
    stamps_turn_begin(stamps);
    stamps_turn_end(stamps);
    expect_counts(0, 1, 0);
    pending[0] = 0;
    stamps_turn_end(stamps);
    expect_counts(1, 1, 0);
    assert_int_equal(0, stamps->count);
    int64_t took = now_ns() - began;
    assert_in_range(stamps->view.body_out.sum_ns, SLEEP_NS, (uint64_t)took * 101 / 100);
    assert_in_range(stamps->view.reply_out.sum_ns, 0, stamps->view.body_out.sum_ns);
}

/* Goal: what waited for the next hop's word counts from that word as well. */
static void test_ready_later(void **state)
{
    struct stream body = stream_of(0);

    (void)state;
    stamps_turn_begin(stamps);
    uint64_t heard = stamps_turn(stamps);
    rest(SLEEP_NS);
    int64_t asked = now_ns();
    stamps_turn_begin(stamps);
    stamps_out(stamps, STAMPS_BODY, &body, heard, stamps_turn(stamps));
    stamps_turn_end(stamps);
    int64_t took = now_ns() - asked;
    expect_counts(1, 0, 0);
    assert_true(stamps->view.body_out.sum_ns >= SLEEP_NS);
    assert_in_range(stamps->view.ready_out.sum_ns, 0, (uint64_t)took * 101 / 100 + 1000);
}

/* Goal: what cannot be timed is not, and is counted if it would have been. */
static void test_missed(void **state)
{
    struct stream gone = stream_of(0), under_tls = stream_of(1), other = stream_of(2);

    (void)state;
    stamps_turn_begin(stamps);
    under_tls.tls = (struct tlsio *)(void *)&under_tls;
    stamps_out(stamps, STAMPS_BODY, &under_tls, stamps_turn(stamps), stamps_turn(stamps));
    stamps_out(stamps, STAMPS_BODY, &other, 0, 0);
    stamps_out(NULL, STAMPS_BODY, &other, stamps_turn(stamps), stamps_turn(stamps));
    assert_int_equal(0, stamps->count);
    assert_int_equal(0, stamps_turn(NULL));
    stamps_out(stamps, STAMPS_BODY, &gone, stamps_turn(stamps), stamps_turn(stamps));
    pending[0] = FLOW_PENDING_STALE;
    stamps_turn_end(stamps);
    expect_counts(0, 0, 1);
    assert_int_equal(0, stamps->count);
}

/* Goal: at the bound one more is missed, and the others are kept. */
static void test_bound(void **state)
{
    struct stream stream = stream_of(0);

    (void)state;
    stamps_turn_begin(stamps);
    for (uint32_t i = 0; i < STAMPS_WAIT_MAX; i++)
        stamps_out(stamps, STAMPS_REPLY, &stream, stamps_turn(stamps), stamps_turn(stamps));
    expect_counts(0, 0, 0);
    stamps_out(stamps, STAMPS_REPLY, &stream, stamps_turn(stamps), stamps_turn(stamps));
    expect_counts(0, 0, 1);
    stamps_turn_end(stamps);
    expect_counts(0, STAMPS_WAIT_MAX, 1);
}

/* Goal: who reads nothing is given up at the longest time there is, and counts as that. */
static void test_longest(void **state)
{
    struct stream stream = stream_of(0);
    const uint64_t longest = 1ull << LATENCY_FINE_VALUE_BITS;

    (void)state;
    pending[0] = 1;
    stamps_turn_begin(stamps);
    uint64_t cycles = (longest << 24) / stamps->multiplier;
    stamps_out(stamps, STAMPS_BODY, &stream, stamps_turn(stamps) - cycles / 2, stamps_turn(stamps));
    stamps_turn_end(stamps);
    expect_counts(0, 0, 0);
    stamps->waits[0].since -= cycles;
    stamps_turn_end(stamps);
    expect_counts(1, 0, 0);
    assert_int_equal(1, stamps->view.body_out.counts[LATENCY_FINE_BUCKET_COUNT - 1]);
    assert_int_equal(0, stamps->count);
}

/* Goal: before the rate is known nothing is guessed. */
static void test_rate_unknown(void **state)
{
    struct stream stream = stream_of(0);

    (void)state;
    stamps_init(stamps, &plane);
    stamps_turn_begin(stamps);
    stamps_out(stamps, STAMPS_BODY, &stream, stamps_turn(stamps), stamps_turn(stamps));
    stamps->first_ns = now_ns(); /* however slow the machine is */
    stamps_turn_end(stamps);
    expect_counts(0, 0, 1);
    assert_int_equal(0, stamps->count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_waits_for_the_last_octet, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ready_later, setup, teardown),
        cmocka_unit_test_setup_teardown(test_missed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bound, setup, teardown),
        cmocka_unit_test_setup_teardown(test_longest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rate_unknown, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

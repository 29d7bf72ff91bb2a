/* SPDX-License-Identifier: Apache-2.0 */
/* The congestion window outside recovery: RFC 5681, 6928, 3465, 9438. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/recovery_fixture.h"

static void test_initial_window(void **state)
{
    static const struct {
        const char *name;
        uint16_t mss;
        uint8_t syn_count;
        uint32_t expected;
    } rows[] = {
        {"Ethernet with timestamps", 1448, 1, 14480},
        {"Ethernet", 1460, 1, 14600},
        {"one octet more", 1461, 1, 14600},
        {"IPv6 minimum", 1220, 1, 12200},
        {"jumbo frames", 8948, 1, 17896},
        {"the break of 2 mss", 7300, 1, 14600},
        {"above it", 7301, 1, 14602},
        {"one SYN lost", 1448, 2, 14480},
        {"two SYNs lost", 1448, 3, 1448},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct recovery_fixture f;

        print_message("# %s\n", rows[i].name);
        fixture_open(&f, 10);
        f.tcb->mss = rows[i].mss;
        f.tcb->syn_count = rows[i].syn_count;
        tcp_congestion_init(f.stack, f.tcb);
        assert_int_equal(rows[i].expected, f.tcb->congestion.cwnd);
        assert_true(f.tcb->congestion.ssthresh > 1u << 29);
        fixture_close(&f);
    }
}

static uint32_t first_in_flight(const struct recovery_fixture *f)
{
    return (f->tcb->snd_una - fixture_sequence(0)) / FIXTURE_MSS;
}

/* One flight that fills the window, acknowledged in steps of `step` segments. */
static void round_trip(struct recovery_fixture *f, uint32_t step)
{
    f->is_endless = true;
    fixture_output(f);
    uint32_t first = first_in_flight(f), count = f->tcb->sent.count;
    fixture_advance(f, TICK_MS(100));
    for (uint32_t n = step; n < count; n += step)
        fixture_ack_plain(f, first + n);
    fixture_ack_plain(f, first + count);
}

/* The same, segment by segment, while the next flight leaves. */
static void round_trip_sending(struct recovery_fixture *f, tick_us rtt)
{
    f->is_endless = true;
    fixture_output(f);
    uint32_t first = first_in_flight(f), count = f->tcb->sent.count;
    fixture_advance(f, rtt);
    for (uint32_t n = 1; n <= count; n++) {
        fixture_ack_plain(f, first + n);
        fixture_output(f);
    }
}

static void test_slow_start(void **state)
{
    static const struct {
        const char *name;
        uint32_t step, after[4];
    } rows[] = {
        {"every segment", 1, {20, 40, 80, 160}},
        {"every other", 2, {20, 40, 80, 160}},
        {"eight at once", 8, {20, 40, 80, 160}},
        {"the whole flight at once counts as eight", 1000, {18, 26, 34, 42}},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct recovery_fixture f;

        print_message("# %s\n", rows[i].name);
        fixture_open(&f, 10);
        f.tcb->congestion.ssthresh = TCP_CWND_MAX;
        tcp_hystart_begin(f.tcb);
        for (uint32_t n = 0; n < COUNT_OF(rows[i].after); n++) {
            round_trip(&f, rows[i].step);
            assert_int_equal(rows[i].after[n] * FIXTURE_MSS, f.tcb->congestion.cwnd);
        }
        fixture_close(&f);
    }
}

/* RFC 9406: the first slow start ends when the RTT rises with the window. */
static void test_hystart(void **state)
{
    static const struct {
        const char *name;
        uint32_t rtt_us[24]; /* of each round trip; the last counts on */
        uint32_t rounds;     /* of growth */
        uint32_t expected;   /* segments then; ssthresh, too, where it ended */
        bool is_over;
    } rows[] = {
        {"a steady RTT: it doubles", {50000}, 6, 640, false},
        {"an eighth more: a quarter's growth", {50000, 50000, 50000, 56250}, 5, 193, false},
        {"a little less than an eighth", {50000, 50000, 50000, 56249}, 5, 320, false},
        {"five such rounds end it", {50000, 50000, 50000, 56250}, 12, 458, true},
        {"the rise was chance", {50000, 50000, 50000, 56250, 50000}, 6, 617, false},
        {"of a small RTT, 4 ms", {1000, 1000, 1000, 5000}, 5, 193, false},
        {"and not less", {1000, 1000, 1000, 4999}, 5, 320, false},
        {"of a large one, 16 ms", {400000, 400000, 400000, 416000}, 5, 193, false},
        {"and not less", {400000, 400000, 400000, 415999}, 5, 320, false},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct recovery_fixture f;
        uint32_t rtt_us = 0;

        print_message("# %s\n", rows[i].name);
        fixture_open(&f, 10);
        f.tcb->congestion.ssthresh = TCP_CWND_MAX;
        tcp_hystart_begin(f.tcb);
        for (uint32_t n = 0; n < rows[i].rounds; n++) {
            rtt_us = rows[i].rtt_us[n] > 0 ? rows[i].rtt_us[n] : rtt_us;
            round_trip_sending(&f, rtt_us);
        }
        assert_int_equal(rows[i].is_over, f.tcb->congestion.ssthresh < TCP_CWND_MAX);
        assert_in_range(f.tcb->congestion.cwnd / FIXTURE_MSS, rows[i].expected * 95 / 100,
                        rows[i].expected * 105 / 100);
        fixture_close(&f);
    }
}

static void test_slow_start_ends_at_ssthresh(void **state)
{
    struct recovery_fixture f;

    (void)state;
    fixture_open(&f, 10);
    f.stack->options.tcp.is_newreno = true;
    f.tcb->congestion.ssthresh = 15 * FIXTURE_MSS;
    round_trip(&f, 1);
    assert_int_equal(15 * FIXTURE_MSS, f.tcb->congestion.cwnd);
    fixture_close(&f);
}

/* NewReno in congestion avoidance: one segment per window of octets, whatever the ACKs are like. */
static void test_newreno(void **state)
{
    static const uint32_t steps[] = {1, 2, 5, 1000};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(steps); i++) {
        struct recovery_fixture f;

        fixture_open(&f, 20);
        f.stack->options.tcp.is_newreno = true;
        for (uint32_t n = 0; n < 10; n++)
            round_trip(&f, steps[i]);
        assert_in_range(f.tcb->congestion.cwnd, 29 * FIXTURE_MSS, 30 * FIXTURE_MSS);
        fixture_send(&f, 24);
        tcp_congestion_reduce(f.stack, f.tcb);
        assert_int_equal(12 * FIXTURE_MSS, f.tcb->congestion.ssthresh);
        fixture_close(&f);
    }
}

/* A window that was not used does not grow, and what grows it is used again. */
static void test_unused_window(void **state)
{
    struct recovery_fixture f;

    (void)state;
    fixture_open(&f, 40);
    f.tcb->congestion.ssthresh = TCP_CWND_MAX;
    tcp_hystart_begin(f.tcb);
    for (uint32_t n = 0; n < 50; n++) {
        fixture_send(&f, 19);
        fixture_advance(&f, TICK_MS(50));
        fixture_ack_plain(&f, 19 * (n + 1));
    }
    assert_int_equal(40 * FIXTURE_MSS, f.tcb->congestion.cwnd);
    /* Half the window counts in slow start. */
    fixture_send(&f, 20);
    fixture_ack_plain(&f, 19 * 50 + 20);
    assert_int_equal(48 * FIXTURE_MSS, f.tcb->congestion.cwnd);
    /* In congestion avoidance it has to be full. */
    f.stack->options.tcp.is_newreno = true;
    f.tcb->congestion.ssthresh = f.tcb->congestion.cwnd;
    for (uint32_t n = 1; n <= 5; n++) {
        fixture_send(&f, 47);
        fixture_ack_plain(&f, 19 * 50 + 20 + 47 * n);
    }
    assert_int_equal(48 * FIXTURE_MSS, f.tcb->congestion.cwnd);
    for (uint32_t n = 1; n <= 5; n++)
        round_trip(&f, 1000);
    assert_int_equal(53 * FIXTURE_MSS, f.tcb->congestion.cwnd);
    fixture_close(&f);
}

static void test_idle(void **state)
{
    struct recovery_fixture f;

    (void)state;
    fixture_open(&f, 100);
    tcp_congestion_idle(f.stack, f.tcb);
    assert_int_equal(10 * FIXTURE_MSS, f.tcb->congestion.cwnd);
    assert_int_equal(100 * FIXTURE_MSS, f.tcb->congestion.ssthresh);
    /* An ssthresh far below is forgotten in part: there was no loss since. */
    f.tcb->congestion.cwnd = 100 * FIXTURE_MSS;
    f.tcb->congestion.ssthresh = 20 * FIXTURE_MSS;
    tcp_congestion_idle(f.stack, f.tcb);
    assert_int_equal(75 * FIXTURE_MSS, f.tcb->congestion.ssthresh);
    /* A small window is none to restart from. */
    f.tcb->congestion.cwnd = 4 * FIXTURE_MSS;
    tcp_congestion_idle(f.stack, f.tcb);
    assert_int_equal(4 * FIXTURE_MSS, f.tcb->congestion.cwnd);
    fixture_close(&f);
}

/* RFC 9438 figure 1, in double arithmetic and segments. */
static double curve(double w_max, double k, double t)
{
    return 0.4 * pow(t - k, 3) + w_max;
}

/* After a loss at `cwnd` the window follows the curve through the plateau and beyond. */
static void test_cubic_curve(void **state)
{
    static const struct {
        const char *name;
        uint32_t cwnd, rtt_ms, seconds;
    } rows[] = {
        {"a megabyte at 100 ms", 1000, 100, 20},
        {"two megabytes at 40 ms", 2000, 40, 25},
        {"six megabytes at 200 ms", 4000, 200, 30},
        {"four at a satellite", 3000, 600, 30},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct recovery_fixture f;
        double w_max = rows[i].cwnd, k = cbrt(w_max * 0.3 / 0.4), worst = 0;

        print_message("# %s\n", rows[i].name);
        fixture_open(&f, rows[i].cwnd);
        struct tcp_congestion *congestion = &f.tcb->congestion;
        tcp_congestion_reduce(f.stack, f.tcb);
        assert_int_equal(rows[i].cwnd * FIXTURE_MSS / 10 * 7, congestion->ssthresh);
        congestion->cwnd = congestion->ssthresh;
        f.tcb->rtt.srtt = rows[i].rtt_ms * 1000;
        f.tcb->flags |= TCB_CWND_LIMITED;
        congestion->limited_end = f.tcb->snd_una;
        tick_us start = f.stack->now;
        /* Every other segment is acknowledged, evenly over the round trip. */
        while (f.stack->now - start < TICK_S(rows[i].seconds)) {
            tcp_congestion_acked(f.stack, f.tcb, &(struct tcp_ack){.acked = 2 * FIXTURE_MSS});
            double t = (double)(f.stack->now - start) / 1e6;
            double error = congestion->cwnd / 1000.0 / curve(w_max, k, t) - 1;
            worst = fabs(error) > worst ? fabs(error) : worst;
            f.stack->now += 2000ull * rows[i].rtt_ms * FIXTURE_MSS / congestion->cwnd;
        }
        print_message("# off the curve by %.3f %% at most\n", worst * 100);
        assert_true(worst < 0.01);
        fixture_close(&f);
    }
}

/* Section 4.3: with small windows CUBIC is what Reno would be at its rate of loss. */
static void test_cubic_reno_friendly(void **state)
{
    struct recovery_fixture f;
    double expected = 7;

    (void)state;
    fixture_open(&f, 10);
    struct tcp_congestion *congestion = &f.tcb->congestion;
    tcp_congestion_reduce(f.stack, f.tcb);
    congestion->cwnd = congestion->ssthresh;
    f.tcb->rtt.srtt = 1000;
    f.tcb->flags |= TCB_IN_LOSS; /* the window counts as used */
    f.tcb->recover = f.tcb->snd_nxt + 1;
    for (uint32_t n = 0; n < 5000; n++) {
        uint32_t cwnd = congestion->cwnd;
        tcp_congestion_acked(f.stack, f.tcb, &(struct tcp_ack){.acked = FIXTURE_MSS});
        expected += (expected < 10 ? 9.0 / 17 : 1.0) * FIXTURE_MSS / cwnd;
        f.stack->now += 1000ull * FIXTURE_MSS / cwnd;
        double error = congestion->cwnd / 1000.0 / expected - 1;
        assert_true(fabs(error) < 0.02);
    }
    assert_true(congestion->cwnd > 90 * FIXTURE_MSS);
    fixture_close(&f);
}

static void test_cubic_reduction(void **state)
{
    static const struct {
        const char *name;
        uint32_t cwnd, w_max, ssthresh, w_max_after;
    } rows[] = {
        {"at a new maximum", 1000, 900, 700, 1000},
        {"at the old one", 1000, 1000, 700, 1000},
        {"below it: fast convergence", 1000, 1001, 700, 850},
        {"never below two segments", 2, 0, 2, 2},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct recovery_fixture f;

        print_message("# %s\n", rows[i].name);
        fixture_open(&f, rows[i].cwnd);
        f.tcb->congestion.cubic.w_max = rows[i].w_max * FIXTURE_MSS;
        tcp_congestion_reduce(f.stack, f.tcb);
        assert_int_equal(rows[i].ssthresh * FIXTURE_MSS, f.tcb->congestion.ssthresh);
        assert_int_equal(rows[i].w_max_after * FIXTURE_MSS, f.tcb->congestion.cubic.w_max);
        fixture_close(&f);
    }
}

/* Section 5.8: time in which the owner sent little does not carry the window up the curve. */
static void test_cubic_waits_for_the_owner(void **state)
{
    struct recovery_fixture f;

    (void)state;
    fixture_open(&f, 100);
    struct tcp_congestion *congestion = &f.tcb->congestion;
    tcp_congestion_reduce(f.stack, f.tcb);
    congestion->cwnd = congestion->ssthresh;
    f.tcb->rtt.srtt = 50000;
    f.is_endless = true;
    round_trip(&f, 2);
    uint32_t before = congestion->cwnd;
    uint32_t first = first_in_flight(&f);
    for (uint32_t n = 1; n <= 1000; n++) { /* a hundred seconds of one segment at a time */
        fixture_send(&f, 1);
        fixture_advance(&f, TICK_MS(100));
        fixture_ack_plain(&f, first + n);
    }
    assert_int_equal(before, congestion->cwnd);
    round_trip(&f, 2);
    assert_true(congestion->cwnd < before + 20 * FIXTURE_MSS);
    assert_true(congestion->cwnd > before);
    fixture_close(&f);
}

static void test_undo(void **state)
{
    struct recovery_fixture f;

    (void)state;
    fixture_open(&f, 100);
    struct tcp_congestion *congestion = &f.tcb->congestion;
    congestion->cubic.w_max = 120 * FIXTURE_MSS;
    tcp_congestion_reduce(f.stack, f.tcb);
    tcp_congestion_on_rto(f.stack, f.tcb);
    assert_int_equal(FIXTURE_MSS, congestion->cwnd);
    assert_int_equal(0, congestion->cubic.w_max);
    tcp_congestion_undo(f.stack, f.tcb);
    assert_int_equal(100 * FIXTURE_MSS, congestion->cwnd);
    assert_int_equal(100 * FIXTURE_MSS, congestion->ssthresh);
    assert_int_equal(120 * FIXTURE_MSS, congestion->cubic.w_max);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_initial_window),
        cmocka_unit_test(test_slow_start),
        cmocka_unit_test(test_hystart),
        cmocka_unit_test(test_slow_start_ends_at_ssthresh),
        cmocka_unit_test(test_newreno),
        cmocka_unit_test(test_unused_window),
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_cubic_curve),
        cmocka_unit_test(test_cubic_reno_friendly),
        cmocka_unit_test(test_cubic_reduction),
        cmocka_unit_test(test_cubic_waits_for_the_owner),
        cmocka_unit_test(test_undo),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

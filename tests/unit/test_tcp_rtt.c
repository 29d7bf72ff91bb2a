/* SPDX-License-Identifier: Apache-2.0 */
/* Round-trip times and the retransmission time-out against RFC 6298. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "dataplane/wire/tcp/tcp.h"

static const struct tcp_policy policy = {
    .rto_initial = TICK_S(1),
    .rto_min = TICK_MS(200),
    .rto_max = TICK_S(120),
};

static void test_first_rto(void **state)
{
    static const struct {
        const char *name;
        uint32_t srtt, rttvar, expected;
    } rows[] = {
        {"unknown host", 0, 0, 1000000},
        {"near host: the floor of the variance", 20000, 5000, 220000},
        {"variance at the floor", 20000, 50000, 220000},
        {"variance above the floor", 20000, 50001, 220004},
        {"satellite", 700000, 100000, 1100000},
        {"at most the bound", 100000000, 20000000, 120000000},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct destination destination = {.srtt_us = rows[i].srtt, .rttvar_us = rows[i].rttvar};
        struct tcp_rtt rtt;

        print_message("# %s\n", rows[i].name);
        tcp_rtt_init(&rtt, &policy, &destination);
        assert_int_equal(rows[i].expected, rtt.rto);
        assert_int_equal(0, rtt.srtt);
        assert_int_equal(UINT32_MAX, rtt.minimum);
    }
    struct tcp_rtt rtt;
    tcp_rtt_init(&rtt, &policy, NULL);
    assert_int_equal(1000000, rtt.rto);
}

/* RFC 6298 2.2 and 2.3, with alpha 1/8 and beta 1/4. */
static void test_samples(void **state)
{
    static const struct {
        uint32_t sample, srtt, rttvar, rto;
    } rows[] = {
        {400000, 400000, 200000, 1200000}, {400000, 400000, 150000, 1000000},
        {800000, 450000, 212500, 1300000}, {50000, 400000, 259375, 1437500},
        {0, 350000, 294531, 1528124}, /* two events of one turn: a microsecond */
    };
    struct tcp_rtt rtt;

    (void)state;
    tcp_rtt_init(&rtt, &policy, NULL);
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        tcp_rtt_sample(&rtt, &policy, rows[i].sample);
        assert_int_equal(rows[i].srtt, rtt.srtt);
        assert_int_equal(rows[i].rttvar, rtt.rttvar);
        assert_int_equal(rows[i].rto, rtt.rto);
    }
    assert_int_equal(1, rtt.minimum);
}

/* A steady path: the estimate is the sample, and the RTO keeps its distance from it. */
static void test_steady(void **state)
{
    static const uint32_t rtts[] = {1, 50, 1000, 40000, 300000, 2000000, 600000000, UINT32_MAX};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rtts); i++) {
        uint32_t expected = rtts[i] > 600000000 ? 600000000 : rtts[i];
        struct tcp_rtt rtt;

        tcp_rtt_init(&rtt, &policy, NULL);
        tcp_rtt_sample(&rtt, &policy, 5 * (rtts[i] / 8));
        for (uint32_t n = 0; n < 200; n++)
            tcp_rtt_sample(&rtt, &policy, rtts[i]);
        assert_in_range(rtt.srtt, expected > 4 ? expected - 4 : 1, expected + 4);
        assert_true(rtt.rttvar <= 8);
        uint32_t rto = rtt.srtt + 200000 > 120000000 ? 120000000 : rtt.srtt + 200000;
        assert_int_equal(rto, rtt.rto);
    }
}

static void test_back_off(void **state)
{
    struct tcp_rtt rtt;

    (void)state;
    tcp_rtt_init(&rtt, &policy, NULL);
    for (uint32_t n = 1; n <= 10; n++) {
        tcp_rtt_back_off(&rtt, &policy);
        assert_int_equal(n, rtt.backoff);
        assert_int_equal(n < 7 ? 1000000u << n : 120000000u, rtt.rto);
    }
    /* Karn: without a sample the doubled value stays. */
    tcp_rtt_progress(&rtt, &policy);
    assert_int_equal(0, rtt.backoff);
    assert_int_equal(120000000, rtt.rto);
    tcp_rtt_sample(&rtt, &policy, 100000);
    assert_int_equal(300000, rtt.rto);
    tcp_rtt_back_off(&rtt, &policy);
    assert_int_equal(600000, rtt.rto);
    tcp_rtt_progress(&rtt, &policy);
    assert_int_equal(300000, rtt.rto);
    for (uint32_t n = 0; n < 300; n++)
        tcp_rtt_back_off(&rtt, &policy);
    assert_int_equal(31, rtt.backoff);
}

static void test_lost_syn(void **state)
{
    static const struct {
        const char *name;
        uint32_t rto, sample, expected;
    } rows[] = {
        {"a second becomes three", 1000000, 0, 3000000},
        {"just below", 2999999, 0, 3000000},
        {"three stay", 3000000, 0, 3000000},
        {"more stays", 4000000, 0, 4000000},
        {"timestamps gave a sample", 1000000, 50000, 250000},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct tcp_rtt rtt;

        print_message("# %s\n", rows[i].name);
        tcp_rtt_init(&rtt, &policy, NULL);
        rtt.rto = rows[i].rto;
        if (rows[i].sample > 0)
            tcp_rtt_sample(&rtt, &policy, rows[i].sample);
        tcp_rtt_syn_was_lost(&rtt, &policy);
        assert_int_equal(rows[i].expected, rtt.rto);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_rto), cmocka_unit_test(test_samples),
        cmocka_unit_test(test_steady),    cmocka_unit_test(test_back_off),
        cmocka_unit_test(test_lost_syn),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

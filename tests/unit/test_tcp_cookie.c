/* SPDX-License-Identifier: Apache-2.0 */
/* SYN cookies as numbers: they come back as what they were made of, look like noise (chi square and
 * avalanche, fixed seeds), and timestamps that carry terms never run ahead. When cookies are given
 * and believed: test_tcp_syn.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tcp_tables_fixture.h"

static struct stack *cookie_stack_new(uint64_t seed)
{
    return fixture_stack_new(
        &(struct stack_options){.flow_count_max = 1, .now = TICK_S(5000), .seed = {seed, 0}});
}

static void test_sizes(void **state)
{
    static const struct {
        uint16_t mss, ip4, ip6;
    } rows[] = {
        {0, 64, 64},        {64, 64, 64},       {535, 64, 64},       {536, 536, 64},
        {1219, 536, 64},    {1220, 536, 1220},  {1359, 536, 1220},   {1360, 1360, 1220},
        {1379, 1360, 1220}, {1380, 1360, 1380}, {1439, 1360, 1380},  {1440, 1360, 1440},
        {1459, 1360, 1440}, {1460, 1460, 1440}, {65535, 1460, 1440},
    };
    struct stack *stack = cookie_stack_new(1);

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct tcp_key keys[2] = {fixture_key4(1, 25, i, 1), fixture_key6(1, 25, i, 1)};
        for (uint32_t n = 0; n < 2; n++) {
            uint16_t mss = 0;
            uint32_t cookie = tcp_cookie_make(stack, &keys[n], 99, rows[i].mss);
            assert_true(tcp_cookie_check(stack, &keys[n], 99, cookie, &mss));
            assert_int_equal(n == 0 ? rows[i].ip4 : rows[i].ip6, mss);
        }
    }
    fixture_stack_free(stack);
}

/* Goal: the index of the size is under the hash as well: of the 8 cookies that share their upper
 * bits one is good. */
static void test_low_bits_are_protected(void **state)
{
    struct stack *stack = cookie_stack_new(2);
    struct tcp_key key = fixture_key4(1, 25, 1, 1);
    uint32_t good = 0;
    uint16_t mss;

    (void)state;
    for (uint32_t irs = 0; irs < 1000; irs++) {
        uint32_t cookie = tcp_cookie_make(stack, &key, irs, 1460);
        for (uint32_t low = 0; low < 8; low++)
            good += tcp_cookie_check(stack, &key, irs, (cookie & ~7u) | low, &mss);
    }
    assert_int_equal(1000, good);
    fixture_stack_free(stack);
}

/* Goal: secrets differ, so do cookies; and what was refused leaves the result alone. */
static void test_another_secret(void **state)
{
    struct stack *ours = cookie_stack_new(3), *theirs = cookie_stack_new(4);
    uint32_t good = 0;
    uint16_t mss = 7;

    (void)state;
    for (uint32_t i = 0; i < 1000; i++) {
        struct tcp_key key = fixture_key4(1, 25, i, 1);
        good += tcp_cookie_check(ours, &key, 5, tcp_cookie_make(theirs, &key, 5, 1460), &mss);
    }
    assert_int_equal(0, good);
    assert_int_equal(7, mss);
    fixture_stack_free(ours);
    fixture_stack_free(theirs);
}

/* ---- noise ---- */

#define CELLS   256u
#define SAMPLES 64000u
/* Chi square of 255 degrees of freedom is above this once in 10,000 times; seeds are fixed. */
#define CHI_SQUARE_MAX 347.0

static void noise_check(const char *name, const uint32_t *cookies)
{
    for (uint32_t shift = 0; shift <= 24; shift += 8) {
        uint32_t values[CELLS] = {0}, differences[CELLS] = {0}, previous = 0;
        for (uint32_t i = 0; i < SAMPLES; i++) {
            /* the lowest three bits are no noise, and are left out */
            uint32_t cookie = shift == 0 ? cookies[i] >> 3 : cookies[i];
            values[cookie >> shift & 0xff]++;
            differences[((cookie >> shift) - previous) & 0xff]++;
            previous = cookie >> shift;
        }
        if (fixture_chi_square(values, CELLS, SAMPLES) > CHI_SQUARE_MAX ||
            fixture_chi_square(differences, CELLS, SAMPLES) > CHI_SQUARE_MAX)
            fail_msg("%s, bits from %u on", name, shift);
    }
}

static void test_cookies_look_random(void **state)
{
    static uint32_t cookies[SAMPLES];
    struct stack *stack = cookie_stack_new(5);
    struct tcp_key key = fixture_key4(1, 25, 1, 1);

    (void)state;
    for (uint32_t i = 0; i < SAMPLES; i++) {
        struct tcp_key other = fixture_key4(1, 25, i, 1);
        cookies[i] = tcp_cookie_make(stack, &other, 1, 1460);
    }
    noise_check("neighbours", cookies);
    for (uint32_t i = 0; i < SAMPLES; i++)
        cookies[i] = tcp_cookie_make(stack, &key, i, 1460);
    noise_check("sequence numbers in a row", cookies);
    for (uint32_t i = 0; i < SAMPLES; i++) {
        key.remote_port = (uint16_t)i;
        cookies[i] = tcp_cookie_make(stack, &key, 1, 1460);
    }
    noise_check("ports in a row", cookies);
    for (uint32_t i = 0; i < SAMPLES; i++) {
        cookies[i] = tcp_cookie_make(stack, &key, 1, 1460);
        stack->now += TCP_COOKIE_PERIOD;
    }
    noise_check("periods in a row", cookies);
    fixture_stack_free(stack);
}

/* Goal: a bit of the tuple changes each bit of the hash half of the time. */
static void test_avalanche(void **state)
{
    struct stack *stack = cookie_stack_new(6);
    uint32_t flips[32] = {0}, samples = 0;

    (void)state;
    for (uint32_t i = 0; i < 100; i++) {
        struct tcp_key key = fixture_key6(1, 25, i, 1);
        uint32_t cookie = tcp_cookie_make(stack, &key, i, 1440);
        for (uint32_t bit = 0; bit < 8 * offsetof(struct tcp_key, family); bit++, samples++) {
            struct tcp_key bent = key;
            ((uint8_t *)&bent)[bit / 8] ^= (uint8_t)(1u << bit % 8);
            uint32_t changed = cookie ^ tcp_cookie_make(stack, &bent, i, 1440);
            for (uint32_t n = 0; n < 32; n++)
                flips[n] += changed >> n & 1;
        }
    }
    for (uint32_t n = 3; n < 32; n++) /* 5 standard deviations of 28,800 tosses: 424 */
        assert_in_range(flips[n], samples / 2 - 424, samples / 2 + 424);
    fixture_stack_free(stack);
}

/* ---- timestamps ---- */

/* Goal: all terms, at all places of the low bits and over the wrap: read back as they were, never
 * ahead of the clock, less than two rounds of the low bits behind it. */
static void test_terms_in_timestamps(void **state)
{
    static const uint32_t bases[] = {0, 1000000, 0x7fffffc0, 0xffffffc0};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(bases) * 64 * 64; i++) {
        uint32_t now = bases[i / 4096] + i / 64 % 64, marked;
        struct tcp_cookie_terms read = {.mss = 77}, terms = {.snd_scale = i & 15,
                                                             .has_sack = i >> 4 & 1,
                                                             .has_ecn = i >> 5 & 1};
        marked = tcp_cookie_timestamp(now, &terms);
        assert_true(now - marked < 64);
        assert_true(tcp_cookie_timestamp_read(now + 30, marked, &read));
        assert_int_equal(terms.snd_scale, read.snd_scale);
        assert_int_equal(terms.has_sack, read.has_sack);
        assert_int_equal(terms.has_ecn, read.has_ecn);
        assert_int_equal(77, read.mss);
    }
}

static void test_age_of_timestamps(void **state)
{
    const uint32_t age_max = 2 * (uint32_t)(TCP_COOKIE_PERIOD / 1000) + 63, now = 5;
    struct tcp_cookie_terms terms;

    (void)state;
    assert_true(tcp_cookie_timestamp_read(now, now, &terms));
    assert_false(tcp_cookie_timestamp_read(now, now + 1, &terms));
    assert_true(tcp_cookie_timestamp_read(now, now - age_max, &terms));
    assert_false(tcp_cookie_timestamp_read(now, now - age_max - 1, &terms));
    assert_false(tcp_cookie_timestamp_read(now, now + 0x80000000, &terms));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_low_bits_are_protected),
        cmocka_unit_test(test_another_secret),
        cmocka_unit_test(test_cookies_look_random),
        cmocka_unit_test(test_avalanche),
        cmocka_unit_test(test_terms_in_timestamps),
        cmocka_unit_test(test_age_of_timestamps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Digits are those that printf would write, at every number of them and on both sides of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>

#include "base/check.h"
#include "control/digits.h"

static void expect(uint64_t number)
{
    char text[DIGITS_MAX + 1], wanted[DIGITS_MAX + 1];

    *digits_put(text, number) = '\0';
    snprintf(wanted, sizeof(wanted), "%" PRIu64, number);
    assert_string_equal(wanted, text);
}

static void test_digits(void **state)
{
    (void)state;
    for (uint64_t power = 1; power < UINT64_C(1) << 63; power *= 2) {
        expect(power - 1);
        expect(power);
    }
    for (uint64_t power = 1; power <= 1000000000000000000; power *= 10) {
        expect(power - 1);
        expect(power);
        expect(power + 1);
        expect(power * 9);
    }
    expect(UINT64_C(9999999999999999999));
    expect(UINT64_C(10000000000000000000));
    expect(UINT64_MAX);
}

static void test_signed(void **state)
{
    static const int64_t numbers[] = {0, -1, 9, -9, 10, -10, INT64_MAX, INT64_MIN};
    char text[DIGITS_MAX + 2], wanted[DIGITS_MAX + 2];

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(numbers); i++) {
        *digits_put_signed(text, numbers[i]) = '\0';
        snprintf(wanted, sizeof(wanted), "%" PRId64, numbers[i]);
        assert_string_equal(wanted, text);
    }
}

static void test_point(void **state)
{
    static const struct {
        uint64_t number;
        uint32_t decimals;
        const char *text;
    } rows[] = {
        {0, 6, "0.000000"},
        {1, 6, "0.000001"},
        {64, 6, "0.000064"},
        {999999, 6, "0.999999"},
        {1000000, 6, "1.000000"},
        {1024, 9, "0.000001024"},
        {134217728, 9, "0.134217728"},
        {12345678901, 9, "12.345678901"},
        {UINT64_MAX, 6, "18446744073709.551615"},
        {7, 1, "0.7"},
    };
    char text[DIGITS_MAX + 2];

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        *digits_put_point(text, rows[i].number, rows[i].decimals) = '\0';
        assert_string_equal(rows[i].text, text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_digits),
        cmocka_unit_test(test_signed),
        cmocka_unit_test(test_point),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

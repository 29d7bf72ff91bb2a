/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of orders: none is given twice, whatever the clock and restarts do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/tick.h"
#include "control/order_number.h"

#define SECOND(n) ((wall_us)(n)*1000000)

static char directory[] = "/tmp/angarium-order-XXXXXX";
static char file[64];

static int begin(void **state)
{
    (void)state;
    (void)unlink(file);
    return 0;
}

static uint32_t next(struct order_numbers *numbers, uint64_t second)
{
    return order_numbers_next(numbers, SECOND(second));
}

static void numbers_rise(void **state)
{
    struct order_numbers numbers;

    (void)state;
    order_numbers_load(&numbers, NULL);
    assert_int_equal(1000, next(&numbers, 1000));
    assert_int_equal(1001, next(&numbers, 1000)); /* faster than the clock */
    assert_int_equal(1002, next(&numbers, 1001));
    assert_int_equal(1003, next(&numbers, 500)); /* it was set back */
    assert_int_equal(2000, next(&numbers, 2000));
    assert_int_equal(2000000, next(&numbers, 2000000));
    assert_int_equal(4000000, next(&numbers, 4000000));
    assert_int_equal(QMGR_ORDER_GIVEN_MAX, next(&numbers, QMGR_ORDER_GIVEN_MAX));
    assert_int_equal(1, next(&numbers, QMGR_ORDER_GIVEN_MAX)); /* they come round */
    order_numbers_load(&numbers, NULL);
    assert_int_equal(3000000, next(&numbers, 3000000)); /* the first, whatever the time is */
    assert_int_equal(1, next(&numbers, QMGR_ORDER_ID_MAX));
}

static void no_number_is_given_twice(void **state)
{
    static const struct {
        uint32_t orders, seconds; /* given; until the restart */
    } rows[] = {{1, 0}, {2, 1}, {63, 0}, {64, 0}, {65, 0}, {66, 2}, {500, 3}, {500, 10000}};
    uint64_t second = QMGR_ORDER_GIVEN_MAX - 700; /* once around, too */
    struct order_numbers numbers;
    uint32_t last = 0;

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        order_numbers_load(&numbers, directory);
        for (uint32_t j = 0; j < rows[i].orders; j++) {
            uint32_t number = next(&numbers, second);
            assert_true(number > 0 && number <= QMGR_ORDER_GIVEN_MAX);
            uint32_t ahead = (number - last) & QMGR_ORDER_ID_MAX;
            assert_true((i == 0 && j == 0) || (ahead > 0 && ahead < 20000));
            last = number;
        }
        second += rows[i].seconds;
    }
}

static void a_damaged_file_is_passed_over(void **state)
{
    static const char *const texts[] = {
        "",     "angarium orders 1\n",     "angarium orders 1\n12",  "angarium orders 1\n4194304\n",
        "12\n", "angarium orders 2\n12\n", "angarium orders 1\n-1\n"};
    struct order_numbers numbers;

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(texts); i++) {
        FILE *stream = fopen(file, "w");
        assert_non_null(stream);
        assert_true(fputs(texts[i], stream) >= 0);
        assert_int_equal(0, fclose(stream));
        order_numbers_load(&numbers, directory);
        assert_int_equal(777, next(&numbers, 777));
    }
    order_numbers_load(&numbers, directory); /* it was written anew */
    assert_true(next(&numbers, 777) > 777);
}

static void without_a_file_orders_go_on(void **state)
{
    struct order_numbers numbers;

    (void)state;
    order_numbers_load(&numbers, "/nonexistent");
    assert_int_equal(777, next(&numbers, 777));
    assert_int_equal(778, next(&numbers, 777));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(numbers_rise, begin),
        cmocka_unit_test_setup(no_number_is_given_twice, begin),
        cmocka_unit_test_setup(a_damaged_file_is_passed_over, begin),
        cmocka_unit_test_setup(without_a_file_orders_go_on, begin),
    };
    if (mkdtemp(directory) == NULL)
        return 1;
    (void)snprintf(file, sizeof(file), "%s/orders", directory);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(file);
    (void)rmdir(directory);
    return failed;
}

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

/* A life that has given `second` as its number, or some more. */
static uint32_t life(const char *in, uint64_t second, uint32_t orders)
{
    struct order_numbers numbers;
    uint32_t last = 0;

    order_numbers_load(&numbers, in);
    for (uint32_t i = 0; i < orders; i++)
        last = next(&numbers, second);
    return last;
}

static void numbers_of_a_dead_host_are_not_given_again(void **state)
{
    char dead[] = "/tmp/angarium-order-XXXXXX", path[64], adopted[64];

    (void)state;
    assert_non_null(mkdtemp(dead));
    (void)snprintf(path, sizeof(path), "%s/orders", dead);
    (void)snprintf(adopted, sizeof(adopted), "%s/" ORDER_NUMBERS_ADOPTED, directory);
    assert_true(order_numbers_adopt(dead, directory)); /* it never had an order */
    assert_int_not_equal(0, access(adopted, F_OK));
    uint32_t last = life(dead, 5000, 200);
    assert_int_equal(5199, last);

    /* Also while the relay here runs, and gives numbers. */
    struct order_numbers living;
    order_numbers_load(&living, directory);
    assert_int_equal(1000, next(&living, 1000));
    assert_true(order_numbers_adopt(dead, directory));
    assert_true(order_numbers_adopt(dead, directory)); /* it may be repeated */
    for (uint32_t i = 0; i < 100; i++)
        assert_true(next(&living, 1000) < 5000);
    assert_in_range(life(directory, 1100, 1), last + 1, last + 200);
    assert_int_not_equal(0, access(adopted, F_OK)); /* taken in */
    uint32_t here = life(directory, 1200, 1);
    assert_in_range(here, last + 2, last + 400);

    /* One that was behind changes nothing, nor does one that cannot be read. */
    assert_int_equal(0, unlink(path));
    assert_int_equal(2000, life(dead, 2000, 1));
    assert_true(order_numbers_adopt(dead, directory));
    assert_in_range(life(directory, 1300, 1), here + 1, here + 200);
    assert_int_equal(0, truncate(path, 10));
    assert_true(order_numbers_adopt(dead, directory));
    assert_false(order_numbers_adopt(directory, "/nonexistent"));
    assert_int_equal(0, unlink(path));
    assert_int_equal(0, rmdir(dead));
}

static void a_damaged_file_is_passed_over(void **state)
{
    struct order_numbers numbers;
    char whole[64];

    (void)state;
    assert_int_equal(5000, life(directory, 5000, 1));
    FILE *stream = fopen(file, "r");
    assert_non_null(stream);
    size_t size = fread(whole, 1, sizeof(whole), stream);
    assert_int_equal(36, size);
    assert_int_equal(0, fclose(stream));
    for (size_t cut = 0; cut < size; cut++) { /* shorter, and with an octet changed */
        for (uint32_t is_changed = 0; is_changed < 2; is_changed++) {
            stream = fopen(file, "w");
            assert_non_null(stream);
            whole[cut] = (char)(whole[cut] ^ 1);
            assert_int_equal(1, fwrite(whole, is_changed ? size : cut, 1, stream) +
                                    (cut == 0 && !is_changed));
            whole[cut] = (char)(whole[cut] ^ 1);
            assert_int_equal(0, fclose(stream));
            order_numbers_load(&numbers, directory);
            assert_int_equal(777, next(&numbers, 777));
        }
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
        cmocka_unit_test_setup(numbers_of_a_dead_host_are_not_given_again, begin),
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

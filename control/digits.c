/* SPDX-License-Identifier: Apache-2.0 */
#include "control/digits.h"

#include <string.h>

/* How many a number has. */
static uint32_t digits_count(uint64_t number)
{
    static const uint64_t powers[] = {
        0,
        10,
        100,
        1000,
        10000,
        100000,
        1000000,
        10000000,
        100000000,
        1000000000,
        10000000000,
        100000000000,
        1000000000000,
        10000000000000,
        100000000000000,
        1000000000000000,
        10000000000000000,
        100000000000000000,
        1000000000000000000,
        10000000000000000000u,
    };
    uint32_t bits = 64u - (uint32_t)__builtin_clzll(number | 1);
    uint32_t digits = bits * 1233 >> 12; /* by the logarithm of 2: right, or one less */

    return digits + (number >= powers[digits]);
}

/* `count` digits, with zeros in front: two at a time, from the last on. Returns what is left of the
 * number. */
static uint64_t digits_fill(char *room, uint64_t number, uint32_t count)
{
    static const char pairs[] = "00010203040506070809101112131415161718192021222324"
                                "25262728293031323334353637383940414243444546474849"
                                "50515253545556575859606162636465666768697071727374"
                                "75767778798081828384858687888990919293949596979899";

    for (; count >= 2; number /= 100)
        memcpy(room + (count -= 2), &pairs[number % 100 * 2], 2);
    if (count == 0)
        return number;
    *room = (char)('0' + number % 10);
    return number / 10;
}

char *digits_put_many(char *room, uint64_t number)
{
    uint32_t count = digits_count(number);

    (void)digits_fill(room, number, count);
    return room + count;
}

char *digits_put_point(char *room, uint64_t number, uint32_t decimals)
{
    uint64_t whole = number;

    for (uint32_t i = 0; i < decimals; i++)
        whole /= 10;
    room = digits_put(room, whole);
    *room = '.';
    (void)digits_fill(room + 1, number, decimals);
    return room + 1 + decimals;
}

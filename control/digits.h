/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_DIGITS_H
#define CONTROL_DIGITS_H

#include <stdint.h>

/* Decimal digits of numbers, without printf: answers have thousands of them. */
#define DIGITS_MAX 20u

char *digits_put_many(char *room, uint64_t number);

/** At most DIGITS_MAX octets. Returns where the next goes. */
static inline char *digits_put(char *room, uint64_t number)
{
    if (number >= 10)
        return digits_put_many(room, number);
    *room = (char)('0' + number); /* as most are */
    return room + 1;
}

/** The same, behind a sign: one octet more. */
static inline char *digits_put_signed(char *room, int64_t number)
{
    if (number >= 0)
        return digits_put(room, (uint64_t)number);
    *room = '-';
    return digits_put(room + 1, 0 - (uint64_t)number);
}

/** With so many digits behind a point: at most DIGITS_MAX + 1 octets, if these are fewer than
 * DIGITS_MAX. */
char *digits_put_point(char *room, uint64_t number, uint32_t decimals);

#endif

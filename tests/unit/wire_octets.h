/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_WIRE_OCTETS_H
#define TESTS_UNIT_WIRE_OCTETS_H

#include <stdlib.h>

#include "base/span.h"

/*
 * Octets for tests of parsers: from text, and in blocks of exactly their size, so that the
 * sanitizer sees every octet that is read behind the end. Include after cmocka.h.
 */

/* "01 02 0a0b" into ret_octets; returns how many. */
static inline uint32_t octets_from_hex(const char *hex, uint8_t *ret_octets, uint32_t max)
{
    static const char digits[] = "0123456789abcdef";
    uint32_t count = 0;

    for (const char *at = hex; *at != '\0';) {
        if (*at == ' ') {
            at++;
            continue;
        }
        const char *high = strchr(digits, at[0]), *low = strchr(digits, at[1]);
        assert_true(count < max && high != NULL && low != NULL && at[1] != '\0');
        ret_octets[count++] = (uint8_t)((high - digits) << 4 | (low - digits));
        at += 2;
    }
    return count;
}

/* A copy in a block of its own, to be freed as `(void *)span.data`. */
static inline struct span octets_copy(const uint8_t *octets, uint32_t size)
{
    uint8_t *copy = malloc(size + (size == 0));

    assert_non_null(copy);
    if (size > 0)
        memcpy(copy, octets, size);
    return span_of(size == 0 ? copy + 1 : copy, size);
}

static inline void octets_free(struct span copy)
{
    free((uint8_t *)(uintptr_t)copy.data - (copy.size == 0));
}

#endif

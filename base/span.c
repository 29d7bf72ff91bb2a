/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What spans can do beyond their header: comparing without case and reading decimal numbers, both
 * by ASCII alone. The locale never plays a part: a Turkish locale must not change what a domain is.
 */
#include "base/span.h"

#define SPAN_DIGITS_MAX 20u /* of 18446744073709551615 */

static inline uint8_t octet_lower(uint8_t octet)
{
    return (uint8_t)(octet - 'A') < 26 ? (uint8_t)(octet | 0x20) : octet;
}

bool span_is_equal_nocase(struct span a, struct span b)
{
    if (a.size != b.size)
        return false;
    for (uint32_t i = 0; i < a.size; i++) {
        if (octet_lower(a.data[i]) != octet_lower(b.data[i]))
            return false;
    }
    return true;
}

bool span_has_prefix_nocase(struct span s, struct span prefix)
{
    return prefix.size <= s.size && span_is_equal_nocase(span_head(s, prefix.size), prefix);
}

enum err span_parse_u64(struct span s, uint64_t *ret_value)
{
    uint64_t value = 0;

    CHECK(ret_value != NULL);
    if (s.size == 0 || s.size > SPAN_DIGITS_MAX)
        return ERR_PEER_SYNTAX;
    for (uint32_t i = 0; i < s.size; i++) {
        uint8_t digit = (uint8_t)(s.data[i] - '0');

        if (digit > 9 || __builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, digit, &value)) {
            return ERR_PEER_SYNTAX;
        }
    }
    *ret_value = value;
    return ERR_OK;
}

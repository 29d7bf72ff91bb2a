/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What spans can do beyond their header: comparing without case, and reading and writing decimal
 * numbers, by ASCII alone. The locale never plays a part: a Turkish locale must not change what a
 * domain is.
 */
#include "base/span.h"

#define SPAN_DIGITS_MAX 20u /* of 18446744073709551615 */

static inline uint8_t octet_lower(uint8_t octet)
{
    return (uint8_t)(octet - 'A') < 26 ? (uint8_t)(octet | 0x20) : octet;
}

/* Eight octets at a time: in OCTETS(n) each is n, and HIGH_BITS are what tests leave. */
#define OCTETS(n) (0x0101010101010101u * (n))
#define HIGH_BITS OCTETS(0x80u)

/* The high bit of each octet of `word` that is below 0x20, or 0x7f; the other bits are anything. */
static inline uint64_t word_controls(uint64_t word)
{
    /* One more, without the high bit: 0x7f becomes 0, and what is looked for is at most 0x20. */
    uint64_t next = ((word & ~HIGH_BITS) + OCTETS(1u)) & ~HIGH_BITS;

    return (OCTETS(0xa0u) - next) & ~word;
}

static inline uint64_t word_lower(uint64_t word)
{
    /* No sum reaches the next octet: what has the high bit is looked at without it. */
    uint64_t low = word & ~HIGH_BITS;
    uint64_t from_a = low + OCTETS(0x80u - 'A'), above_z = low + OCTETS(0x7fu - 'Z');

    return word | (from_a & ~above_z & ~word & HIGH_BITS) >> 2;
}

/* Up to eight octets as a word: the same for the same octets, if there are as many. */
static inline uint64_t octets_get(const uint8_t *at, uint32_t size)
{
    uint64_t word = 0;
    uint32_t head, tail;

    if (size == 8) {
        memcpy(&word, at, 8);
    } else if (size >= 4) { /* two halves that may share octets */
        memcpy(&head, at, 4);
        memcpy(&tail, at + size - 4, 4);
        word = (uint64_t)head << 32 | tail;
    } else if (size > 0) {
        word = (uint64_t)at[0] << 16 | (uint64_t)at[size / 2] << 8 | at[size - 1];
    }
    return word;
}

bool span_has_control(struct span s)
{
    uint32_t i = 0;
    uint64_t word, found = 0;

    for (; i + 8 <= s.size; i += 8) {
        memcpy(&word, s.data + i, 8);
        found |= word_controls(word);
    }
    if (i < s.size && s.size >= 8) { /* the rest is part of the last eight */
        memcpy(&word, s.data + s.size - 8, 8);
        return ((found | word_controls(word)) & HIGH_BITS) != 0;
    }
    for (; i < s.size; i++)
        found |= s.data[i] < 0x20 || s.data[i] == 0x7f ? HIGH_BITS : 0;
    return (found & HIGH_BITS) != 0;
}

void span_to_lower(struct span s, uint8_t *ret_octets)
{
    uint32_t i = 0;
    uint64_t word;

    for (; i + 8 <= s.size; i += 8) {
        memcpy(&word, s.data + i, 8);
        word = word_lower(word);
        memcpy(ret_octets + i, &word, 8);
    }
    for (; i < s.size; i++)
        ret_octets[i] = octet_lower(s.data[i]);
}

bool span_is_equal_nocase(struct span a, struct span b)
{
    if (a.size != b.size)
        return false;
    const uint8_t *at = a.data, *other = b.data;
    for (uint32_t left = a.size; left > 8; left -= 8, at += 8, other += 8) {
        if (word_lower(octets_get(at, 8)) != word_lower(octets_get(other, 8)))
            return false;
    }
    uint32_t rest = a.size == 0 ? 0 : (a.size - 1) % 8 + 1;
    return word_lower(octets_get(at, rest)) == word_lower(octets_get(other, rest));
}

void span_text_put_u64(struct span_text *text, uint64_t value)
{
    uint8_t digits[SPAN_DIGITS_MAX] UNINITIALIZED;
    uint32_t at = SPAN_DIGITS_MAX;

    do {
        digits[--at] = (uint8_t)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    span_text_put(text, span_of(digits + at, SPAN_DIGITS_MAX - at));
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

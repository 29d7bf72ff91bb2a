/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Internet checksum (RFC 1071): the ones' complement sum of 16-bit words, complemented.
 *
 * The sum is a number modulo 65535, and three of its properties carry this file:
 *   1. 2^16 is 1 modulo 65535, so words of 32 or 64 bits may be summed in place of 16-bit ones and
 *      folded at the end.
 *   2. Exchanging the octets of every word multiplies the sum by 2^8. So words are loaded in the
 *      processor's own order, and the sum comes out in the order in which it is stored.
 *   3. For the same reason a part that begins at an odd offset is summed as if it were even and
 *      then multiplied by 2^8: wire_sum_swap().
 *
 * A sum of 64-bit words would need its carries. Instead `whole` adds the words modulo 2^64 and
 * `high` their upper halves exactly; whole - high * 2^32 is then the exact sum of the lower halves,
 * which is below 2^62 for any size. Three operations per word, no carry, several words at once.
 *
 * A sum that is no zero never becomes one by folding: zero means that every octet was zero.
 * checksum_avx2.c has another way, for 32 octets at once; one test holds both to the definition.
 * Not here: which octets are summed, and that UDP sends a checksum of 0 as 0xffff (RFC 768).
 */
#include "dataplane/wire/format/checksum.h"

/* Below this the processor is not asked. */
#define SIZE_SMALL 32u

static inline uint64_t load64(const uint8_t *octets)
{
    uint64_t word;

    memcpy(&word, octets, sizeof(word));
    return word;
}

/* Up to 7 octets, as the beginning of a word that goes on with zeros. With `has_more` the 8 octets
 * that end with them may be read at once (in the order of little endian). */
static inline uint64_t load_tail(const uint8_t *octets, uint32_t size, bool has_more)
{
    uint64_t word = 0;

    if (has_more && __BYTE_ORDER == __LITTLE_ENDIAN)
        return size == 0 ? 0 : load64(octets + size - 8) >> 8 * (8 - size);

    for (uint32_t i = 0; i < size; i++)
        ((uint8_t *)&word)[i] = octets[i];
    return word;
}

uint64_t wire_sum_portable(const uint8_t *octets, uint32_t size)
{
    uint64_t whole[2] = {0}, high[2] = {0};
    bool has_more = size >= 8;

    for (; size >= 16; octets += 16, size -= 16) {
        uint64_t first = load64(octets), second = load64(octets + 8);
        whole[0] += first;
        high[0] += first >> 32;
        whole[1] += second;
        high[1] += second >> 32;
    }
    if (size >= 8) {
        uint64_t word = load64(octets);
        whole[0] += word;
        high[0] += word >> 32;
        octets += 8;
        size -= 8;
    }
    uint64_t word = load_tail(octets, size, has_more);
    uint64_t highs = high[0] + high[1] + (word >> 32);
    uint64_t lows = whole[0] + whole[1] + word - (highs << 32);

    return wire_sum_fold32(lows + highs);
}

uint64_t wire_sum_copy_portable(uint8_t *ret_octets, const uint8_t *octets, uint32_t size)
{
    uint64_t whole = 0, high = 0;
    bool has_more = size >= 8;

    for (; size >= 8; octets += 8, ret_octets += 8, size -= 8) {
        uint64_t word = load64(octets);
        memcpy(ret_octets, &word, sizeof(word));
        whole += word;
        high += word >> 32;
    }
    uint64_t word = load_tail(octets, size, has_more);
    for (uint32_t i = 0; i < size; i++)
        ret_octets[i] = octets[i];
    whole += word;
    high += word >> 32;
    return wire_sum_fold32(whole - (high << 32) + high);
}

uint64_t wire_sum(const void *octets, uint32_t size)
{
    if (size >= SIZE_SMALL && wire_sum_has_avx2())
        return wire_sum_avx2(octets, size);
    return wire_sum_portable(octets, size);
}

uint64_t wire_sum_copy(void *ret_octets, const void *octets, uint32_t size)
{
    if (size >= SIZE_SMALL && wire_sum_has_avx2())
        return wire_sum_copy_avx2(ret_octets, octets, size);
    return wire_sum_copy_portable(ret_octets, octets, size);
}

uint64_t wire_sum_swap(uint64_t sum)
{
    return wire_sum_fold32(sum) << 8;
}

uint64_t wire_sum_pseudo6(const uint8_t source[16], const uint8_t destination[16])
{
    return wire_sum_portable(source, 16) + wire_sum_portable(destination, 16);
}

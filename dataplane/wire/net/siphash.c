/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SipHash (Aumasson, Bernstein 2012): a keyed function whose outputs tell nothing about the others
 * to those without the key.
 *
 * SipHash-2-4 makes what strangers must not guess: initial sequence numbers, cookies, the order of
 * ports. SipHash-1-3, half the work, places entries in tables: there a stranger sees no output,
 * only whether things are slow.
 *
 * Both are one function; the numbers of rounds are constants where it is inlined, so that the
 * rounds become straight code. A tuple is five words and takes no tail.
 */
#include <endian.h>

#include "dataplane/wire/net/net.h"

struct sip {
    uint64_t v0, v1, v2, v3;
};

static inline uint64_t rotate(uint64_t word, unsigned bits)
{
    return word << bits | word >> (64 - bits);
}

static inline __attribute__((always_inline)) void rounds(struct sip *sip, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        sip->v0 += sip->v1;
        sip->v2 += sip->v3;
        sip->v1 = rotate(sip->v1, 13) ^ sip->v0;
        sip->v3 = rotate(sip->v3, 16) ^ sip->v2;
        sip->v0 = rotate(sip->v0, 32);
        sip->v2 += sip->v1;
        sip->v0 += sip->v3;
        sip->v1 = rotate(sip->v1, 17) ^ sip->v2;
        sip->v3 = rotate(sip->v3, 21) ^ sip->v0;
        sip->v2 = rotate(sip->v2, 32);
    }
}

static inline __attribute__((always_inline)) uint64_t siphash(const struct siphash_key *key,
                                                              const uint8_t *octets, uint32_t size,
                                                              unsigned per_word, unsigned at_end)
{
    /* "somepseudorandomlygeneratedbytes" */
    struct sip sip = {key->words[0] ^ 0x736f6d6570736575u, key->words[1] ^ 0x646f72616e646f6du,
                      key->words[0] ^ 0x6c7967656e657261u, key->words[1] ^ 0x7465646279746573u};
    uint64_t last = (uint64_t)size << 56, word;

    for (; size >= sizeof(word); octets += sizeof(word), size -= (uint32_t)sizeof(word)) {
        memcpy(&word, octets, sizeof(word));
        word = le64toh(word);
        sip.v3 ^= word;
        rounds(&sip, per_word);
        sip.v0 ^= word;
    }
    for (uint32_t i = 0; i < size; i++)
        last |= (uint64_t)octets[i] << 8 * i;
    sip.v3 ^= last;
    rounds(&sip, per_word);
    sip.v0 ^= last;
    sip.v2 ^= 0xff;
    rounds(&sip, at_end);
    return sip.v0 ^ sip.v1 ^ sip.v2 ^ sip.v3;
}

uint64_t siphash24(const struct siphash_key *key, const void *octets, uint32_t size)
{
    return siphash(key, octets, size, 2, 4);
}

uint64_t siphash13(const struct siphash_key *key, const void *octets, uint32_t size)
{
    return siphash(key, octets, size, 1, 3);
}

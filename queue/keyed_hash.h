/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_KEYED_HASH_H
#define QUEUE_KEYED_HASH_H

#include "base/span.h"

/*
 * SipHash-1-3 (Aumasson, Bernstein: "SipHash: a fast short-input PRF", 2012): for tables whose keys
 * strangers choose, such as domains. With a random key nobody can fill one chain.
 */
struct keyed_hash {
    uint64_t key[2];
};

static inline uint64_t keyed_hash_rotate(uint64_t value, uint32_t bits)
{
    return value << bits | value >> (64 - bits);
}

static inline void keyed_hash_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = keyed_hash_rotate(v[1], 13) ^ v[0];
    v[3] = keyed_hash_rotate(v[3], 16) ^ v[2];
    v[0] = keyed_hash_rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = keyed_hash_rotate(v[1], 17) ^ v[2];
    v[3] = keyed_hash_rotate(v[3], 21) ^ v[0];
    v[2] = keyed_hash_rotate(v[2], 32);
}

static inline uint64_t keyed_hash_octets(const struct keyed_hash *hash, struct span octets)
{
    uint64_t v[4] = {hash->key[0] ^ 0x736f6d6570736575u, hash->key[1] ^ 0x646f72616e646f6du,
                     hash->key[0] ^ 0x6c7967656e657261u, hash->key[1] ^ 0x7465646279746573u};
    uint32_t offset = 0;

    for (; offset + 8 <= octets.size; offset += 8) {
        uint64_t word;
        memcpy(&word, octets.data + offset, 8);
        v[3] ^= word;
        keyed_hash_round(v);
        v[0] ^= word;
    }
    uint64_t last = (uint64_t)octets.size << 56;
    uint32_t rest = octets.size - offset;
    if (rest > 0 && octets.size >= 8) {
        uint64_t word; /* they are the last of these eight */
        memcpy(&word, octets.data + octets.size - 8, 8);
        last |= word >> 8 * (8 - rest);
        rest = 0;
    }
    for (uint32_t i = 0; i < rest; i++)
        last |= (uint64_t)octets.data[offset + i] << 8 * i;
    v[3] ^= last;
    keyed_hash_round(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    for (uint32_t i = 0; i < 3; i++)
        keyed_hash_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif

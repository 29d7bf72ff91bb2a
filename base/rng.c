/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ChaCha20 as a generator with fast key erasure.
 *
 * A refill computes RNG_BLOCKS blocks (RFC 8439 section 2.3) under the present key. The first 32
 * octets become the next key, the rest is handed out.
 *
 * Invariants
 *   1. `used` is within [RNG_KEY_SIZE, sizeof(block)]; octets of `block` before it are zero:
 * neither the key nor what was handed out can be read from a state captured later.
 *   2. The stream is a function of the seed alone: the same on every machine and in every version,
 *      for recorded simulator seeds must stay good. Little-endian output, as in the RFC.
 *
 * Not here: reseeding. 2^64 blocks and a key that changes every 256 octets are enough for a
 * process.
 */
#include "base/rng.h"

#include <string.h>
#include <sys/random.h>

#define RNG_KEY_SIZE   32u
#define RNG_BLOCK_SIZE 64u
#define RNG_BLOCKS     (sizeof(((struct rng *)0)->block) / RNG_BLOCK_SIZE)
#define RNG_ROUNDS     20u

static inline uint32_t rotate_left(uint32_t value, unsigned bits)
{
    return value << bits | value >> (32 - bits);
}

static inline void quarter_round(uint32_t *x, unsigned a, unsigned b, unsigned c, unsigned d)
{
    x[a] += x[b];
    x[d] = rotate_left(x[d] ^ x[a], 16);
    x[c] += x[d];
    x[b] = rotate_left(x[b] ^ x[c], 12);
    x[a] += x[b];
    x[d] = rotate_left(x[d] ^ x[a], 8);
    x[c] += x[d];
    x[b] = rotate_left(x[b] ^ x[c], 7);
}

void rng_chacha20_block(const uint32_t key[8], uint32_t counter, const uint32_t nonce[3],
                        uint8_t ret_block[64])
{
    /* "expand 32-byte k" */
    uint32_t state[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574}, x[16];

    memcpy(state + 4, key, 32);
    state[12] = counter;
    memcpy(state + 13, nonce, 12);
    memcpy(x, state, sizeof(x));
    for (unsigned round = 0; round < RNG_ROUNDS; round += 2) {
        quarter_round(x, 0, 4, 8, 12);
        quarter_round(x, 1, 5, 9, 13);
        quarter_round(x, 2, 6, 10, 14);
        quarter_round(x, 3, 7, 11, 15);
        quarter_round(x, 0, 5, 10, 15);
        quarter_round(x, 1, 6, 11, 12);
        quarter_round(x, 2, 7, 8, 13);
        quarter_round(x, 3, 4, 9, 14);
    }
    for (unsigned i = 0; i < 16; i++) {
        uint32_t word = x[i] + state[i];

        ret_block[4 * i] = (uint8_t)word;
        ret_block[4 * i + 1] = (uint8_t)(word >> 8);
        ret_block[4 * i + 2] = (uint8_t)(word >> 16);
        ret_block[4 * i + 3] = (uint8_t)(word >> 24);
    }
}

static void rng_refill(struct rng *rng)
{
    for (uint32_t i = 0; i < RNG_BLOCKS; i++) {
        const uint32_t nonce[3] = {(uint32_t)(rng->counter >> 32), 0, 0};

        rng_chacha20_block(rng->key, (uint32_t)rng->counter, nonce,
                           rng->block + i * RNG_BLOCK_SIZE);
        rng->counter++;
    }
    for (uint32_t i = 0; i < 8; i++) {
        const uint8_t *octets = rng->block + 4 * i;

        rng->key[i] = (uint32_t)octets[0] | (uint32_t)octets[1] << 8 | (uint32_t)octets[2] << 16 |
                      (uint32_t)octets[3] << 24;
    }
    memset(rng->block, 0, RNG_KEY_SIZE);
    rng->used = RNG_KEY_SIZE;
}

enum err rng_init_system(struct rng *rng)
{
    CHECK(rng != NULL);
    *rng = (struct rng){.used = sizeof(rng->block)};
    /* 32 octets: never a short read, and blocks only until the kernel is seeded once after boot. */
    if (getrandom(rng->key, sizeof(rng->key), 0) != (ssize_t)sizeof(rng->key))
        return ERR_SYSTEM;
    return ERR_OK;
}

void rng_init_seed(struct rng *rng, uint64_t seed)
{
    CHECK(rng != NULL);
    *rng = (struct rng){.used = sizeof(rng->block)};
    rng->key[0] = (uint32_t)seed;
    rng->key[1] = (uint32_t)(seed >> 32);
}

void rng_fill(struct rng *rng, void *ret_data, uint32_t size)
{
    uint8_t *data = ret_data;

    CHECK(rng->used >= RNG_KEY_SIZE && rng->used <= sizeof(rng->block));
    if (size == 8 && sizeof(rng->block) - rng->used >= 8) { /* as below, without a call */
        memcpy(data, rng->block + rng->used, 8);
        memset(rng->block + rng->used, 0, 8);
        rng->used += 8;
        return;
    }
    while (size > 0) {
        if (rng->used == sizeof(rng->block))
            rng_refill(rng);
        uint32_t left = (uint32_t)sizeof(rng->block) - rng->used;
        uint32_t part = size < left ? size : left;

        memcpy(data, rng->block + rng->used, part);
        memset(rng->block + rng->used, 0, part);
        rng->used += part;
        data += part;
        size -= part;
    }
}

uint32_t rng_u32(struct rng *rng)
{
    uint8_t octets[4];

    rng_fill(rng, octets, sizeof(octets));
    return (uint32_t)octets[0] | (uint32_t)octets[1] << 8 | (uint32_t)octets[2] << 16 |
           (uint32_t)octets[3] << 24;
}

uint64_t rng_u64(struct rng *rng)
{
    uint8_t octets[8];
    uint64_t value = 0;

    rng_fill(rng, octets, sizeof(octets));
    for (uint32_t i = 0; i < sizeof(octets); i++)
        value |= (uint64_t)octets[i] << 8 * i;
    return value;
}

uint32_t rng_below(struct rng *rng, uint32_t bound)
{
    CHECK(bound > 0);

    /* Multiply and shift (Lemire): the draws whose low half is below 2^32 mod bound are those that
     * would make some results more likely than others. Fewer than half of all draws are, so the
     * loop ends. */
    uint32_t threshold = -bound % bound;
    for (;;) {
        uint64_t product = (uint64_t)rng_u32(rng) * bound;

        if ((uint32_t)product >= threshold)
            return (uint32_t)(product >> 32);
    }
}

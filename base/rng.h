/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include "base/err.h"

/*
 * The randomness seam: a ChaCha20 generator (RFC 8439 block function) per shard, keyed by
 * getrandom(2) in the daemon and by the seed in the simulator. Fit for DNS IDs, ports and message
 * ids: the key is replaced after every refill, so that earlier output cannot be computed from a
 * later state.
 */
struct rng {
    uint32_t key[8];
    uint64_t counter;
    uint8_t block[256];
    uint32_t used; /* octets of block already handed out */
};

/** Key from getrandom(2). Errors: ERR_SYSTEM; the caller must stop, never go on unseeded. */
enum err rng_init_system(struct rng *rng) MUST_CHECK;

/** Key from a seed: the same seed gives the same stream for ever. */
void rng_init_seed(struct rng *rng, uint64_t seed);

void rng_fill(struct rng *rng, void *ret_data, uint32_t size);
uint32_t rng_u32(struct rng *rng);
uint64_t rng_u64(struct rng *rng);

/** The block function of RFC 8439 section 2.3: 64 octets of key stream. */
void rng_chacha20_block(const uint32_t key[8], uint32_t counter, const uint32_t nonce[3],
                        uint8_t ret_block[64]);

/** Uniform in [0, bound), without modulo bias. CHECKs bound > 0. */
uint32_t rng_below(struct rng *rng, uint32_t bound);

#endif

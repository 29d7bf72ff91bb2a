/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SYN cookies (RFC 4987 3.6): while the SYN cache is full, a SYN is answered and forgotten. The
 * sequence number of the SYN-ACK says all that is needed when it comes back in the final ACK:
 *
 *   bits 3..31  SipHash-2-4 of tuple, peer's sequence number, period and MSS index
 *   bits 1..2   MSS index: the largest in mss_table that the peer can take
 *   bit 0       the period is odd
 *
 * A period is TCP_COOKIE_PERIOD of time; its number is part of what is hashed, so that every period
 * has, in effect, a secret of its own. A cookie is good in its period and in the next.
 *
 * How many cookies are good for a tuple at one time is what a blind forger counts on: 4 sizes times
 * 2 periods of 2^32, once in 2^29 tries, which is why the table of sizes is short, why the period
 * is, and why cookies are believed only while they are being given (syn_cache.c).
 *
 * What else a SYN offered would be lost. If it has timestamps, ours in the SYN-ACK carries the rest
 * in its lowest bits, and the peer echoes it:
 *
 *   bits 0..3   the peer's window scale; 15: none offered
 *   bit 4       SACK permitted
 *   bit 5       ECN
 *
 * The bits may not make a timestamp that is ahead of our clock, for later ones would then run
 * backwards (RFC 7323 5.4): 64 less in that case. Nothing protects these bits; whoever changes them
 * harms its own connection.
 *
 * Not here: when cookies are given and believed (syn_cache.c).
 */
#include "dataplane/wire/tcp/tcp.h"

#define MSS_BITS   2u
#define TERMS_MASK ((1u << TCP_COOKIE_TERMS_BITS) - 1)
#define TERM_SACK  (1u << 4)
#define TERM_ECN   (1u << 5)
#define PERIOD_MS  (uint32_t)(TCP_COOKIE_PERIOD / 1000u)

/* The smallest is raised to the policy's floor by the reader; else common sizes: the default of the
 * family, tunnels, Ethernet. */
static const uint16_t mss_table[2][1u << MSS_BITS] = {{64, 536, 1360, 1460},
                                                      {64, 1220, 1380, 1440}};

static const uint16_t *mss_row(uint8_t family)
{
    return mss_table[family == FLOW_FAMILY_IP6];
}

static uint32_t cookie_of(const struct stack *stack, const struct tcp_key *key, uint32_t irs,
                          uint64_t period, uint32_t mss_index)
{
    struct {
        struct tcp_key key;
        uint32_t irs, mss_index;
        uint64_t period;
    } what = {*key, irs, mss_index, period};
    _Static_assert(sizeof(what) == 56, "hashed as octets: no padding");

    uint32_t hash = (uint32_t)siphash24(&stack->cookie_key, &what, sizeof(what));
    return hash << (MSS_BITS + 1) | mss_index << 1 | (uint32_t)(period & 1);
}

uint32_t tcp_cookie_make(struct stack *stack, const struct tcp_key *key, uint32_t irs, uint16_t mss)
{
    const uint16_t *row = mss_row(key->family);
    uint32_t index = (1u << MSS_BITS) - 1;

    while (index > 0 && row[index] > mss)
        index--;
    return cookie_of(stack, key, irs, stack->now / TCP_COOKIE_PERIOD, index);
}

bool tcp_cookie_check(struct stack *stack, const struct tcp_key *key, uint32_t irs, uint32_t cookie,
                      uint16_t *ret_mss)
{
    uint64_t period = stack->now / TCP_COOKIE_PERIOD;
    uint32_t index = cookie >> 1 & ((1u << MSS_BITS) - 1);

    if ((period & 1) != (cookie & 1))
        period--; /* wraps in the first period of all: then nothing was given in it */
    if (cookie_of(stack, key, irs, period, index) != cookie)
        return false;
    *ret_mss = mss_row(key->family)[index];
    return true;
}

uint32_t tcp_cookie_timestamp(uint32_t timestamp, const struct tcp_cookie_terms *terms)
{
    CHECK(terms->snd_scale <= TCP_SCALE_NONE);

    uint32_t bits =
        terms->snd_scale | (terms->has_sack ? TERM_SACK : 0) | (terms->has_ecn ? TERM_ECN : 0);
    uint32_t marked = (timestamp & ~TERMS_MASK) | bits;
    return seq_gt(marked, timestamp) ? marked - (TERMS_MASK + 1) : marked;
}

bool tcp_cookie_timestamp_read(uint32_t timestamp, uint32_t echoed, struct tcp_cookie_terms *terms)
{
    if (timestamp - echoed > 2 * PERIOD_MS + TERMS_MASK)
        return false;
    terms->snd_scale = echoed & 0xf;
    terms->has_sack = (echoed & TERM_SACK) != 0;
    terms->has_ecn = (echoed & TERM_ECN) != 0;
    return true;
}

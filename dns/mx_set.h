/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DNS_MX_SET_H
#define DNS_MX_SET_H

#include "base/rng.h"
#include "dns/dns.h"

/* What DNS says about a domain's hosts, before any policy: assembled by mx.c, kept in the cache. */
enum mx_family { MX_FAMILY_4, MX_FAMILY_6, MX_FAMILY_COUNT };

enum mx_host_state {
    MX_HOST_RESOLVED, /* has addresses */
    MX_HOST_FAILED,   /* may have addresses; DNS does not tell now */
    MX_HOST_EMPTY     /* has none, or can have none: an address literal, octets no host name has */
};

struct mx_set_host {
    uint16_t preference;
    uint8_t state; /* enum mx_host_state */
    uint8_t name_size;
    uint8_t counts[MX_FAMILY_COUNT];
    uint8_t addresses[MX_FAMILY_COUNT][MX_ADDRESS_MAX][16];
    char name[MX_NAME_MAX];
};

struct mx_set {
    enum mx_verdict verdict; /* OK: hosts follow, if only unresolved ones */
    const char *reason;      /* static */
    uint32_t host_count;
    struct mx_set_host hosts[MX_HOST_MAX]; /* by preference */
};

#define MX_SET_SIZE_MAX                                                                            \
    (16u + MX_HOST_MAX * (8u + MX_NAME_MAX + MX_ADDRESS_MAX * (4u + 16u))) /* octets, packed */

/** Pack; returns the octets used of ret_octets. */
uint32_t mx_set_pack(const struct mx_set *set, uint8_t ret_octets[MX_SET_SIZE_MAX]);

/**
 * The answer for those who want to deliver now: shuffled within equal preference, judged by policy.
 *
 * Spec:   RFC 5321 section 5.1, RFC 7505.
 * Bounds: `octets` are of mx_set_pack(). Only the used part of ret_answer is written.
 * Cost:   no allocation; O(hosts * addresses * prefixes).
 */
void mx_set_answer(struct span octets, const struct mx_policy *policy, uint16_t port,
                   struct rng *rng, struct mx_answer *ret_answer);

#endif

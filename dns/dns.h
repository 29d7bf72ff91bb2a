/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DNS_DNS_H
#define DNS_DNS_H

#include "base/rng.h"
#include "base/tick.h"
#include "dataplane/flow.h"

/*
 * The stub resolver of one shard: cache in front of a home shard per name, coalescing, UDP then
 * TCP, several recursive resolvers with health. ldns is the codec (dns/codec.c alone), every
 * acceptance check is ours.
 *
 * Layers, bottom up: query.c builds and checks packets; transport.c sends them over flow.h;
 * cache.c; dns.c joins them; home.c asks other shards; mx.c answers "which hosts take mail for this
 * domain". Everything is a function of the calls, the generator and the clock: a run can be
 * repeated.
 */
enum dns_type { DNS_TYPE_A = 1, DNS_TYPE_CNAME = 5, DNS_TYPE_MX = 15, DNS_TYPE_AAAA = 28 };

/* A 0 means the default in brackets, but for stale_max_s. */
struct dns_options {
    struct flow_address resolvers[4]; /* in order of preference */
    uint32_t resolver_count;
    uint32_t cache_count_max; /* answers kept per shard [65,536]; 1 KB each at most, on average */
    tick_us query_timeout;    /* per try [2 s] */
    uint32_t tries_max;       /* over all resolvers, at most 16 [4] */
    uint32_t ttl_min_s, ttl_max_s, negative_ttl_max_s; /* [5, 86400, 900] */
    uint32_t stale_max_s; /* positive answers only, when the refresh times out or fails; 0: off */
    uint32_t outstanding_max; /* questions out, and lookups waiting for them [1024] */
    uint32_t shard, shard_count;
    uint64_t hash_key[2]; /* drawn once, the same on every shard: where the home of a name is */
    void *context;
    /* 112-octet messages for dns_receive() on the home shard of a name and back. Never called for
     * oneself. */
    void (*send)(void *context, uint32_t to_shard, const void *message, uint32_t size,
                 bool is_reply);
    /* An mx_lookup() that was ERR_AGAIN has its answer: call mx_lookup() again with the same user
     * value. */
    void (*wake)(void *context, uint64_t user);
};

struct dns;
struct dns *dns_new(const struct dns_options *options, struct flow_plane *plane, struct rng *rng,
                    struct tick_now now);
void dns_free(struct dns *dns);

/* High 24 bits of the user value of our flows: the shard routes events by it. */
#define DNS_FLOW_USER_TAG  0x444e530000000000ull
#define DNS_FLOW_USER_MASK 0xffffff0000000000ull
/** An event of a flow that carries the tag; others are ignored. */
void dns_on_flow(struct dns *dns, const struct flow_event *event, struct tick_now now);
void dns_receive(struct dns *dns, uint32_t from_shard, const void *message, uint32_t size,
                 struct tick_now now);
void dns_advance(struct dns *dns, struct tick_now now);
tick_us dns_deadline(const struct dns *dns);

struct dns_stats {
    uint64_t hits, misses, coalesced, queries_udp, queries_tcp, answers, timeouts, servfail,
        wrong_packets, truncated, stale_served, remote_asks, evicted, refreshed,
        cut_short; /* failed early, to make room for others */
    uint32_t entries, outstanding;
};
struct dns_stats dns_get_stats(const struct dns *dns);

/* ---- mx ---- */
#define MX_HOST_MAX    16u
#define MX_ADDRESS_MAX 5u /* per host */
#define MX_NAME_MAX    256u

enum mx_verdict {
    MX_OK,         /* hosts follow, best first */
    MX_NULL,       /* RFC 7505: the domain takes no mail; permanent, 5.1.10 */
    MX_NOT_FOUND,  /* NXDOMAIN, or neither MX nor address: permanent, 5.1.2 */
    MX_ALL_DENIED, /* every target points at us or at a forbidden address: 5.4.6 (ours) or 5.1.2 */
    MX_TEMPORARY,  /* SERVFAIL, time-outs, no target resolves now: 4.4.3 */
};

struct mx_host {
    uint16_t preference, port, weight;
    uint8_t address_count;
    char name[MX_NAME_MAX];
    struct flow_address addresses[MX_ADDRESS_MAX]; /* families interleaved, port set */
};

struct mx_answer {
    enum mx_verdict verdict;
    bool is_stale,
        is_loop; /* is_loop: worse preferences than our own were dropped (RFC 5321 section 5.1) */
    tick_us valid_until;
    uint32_t host_count;
    uint32_t other_count; /* names behind these: mail exchangers without a usable address now */
    struct mx_host hosts[MX_HOST_MAX]; /* preference order, shuffled within */
    const char *reason;                /* static text for replies and records */
};

/* What targets are refused; immutable, from the configuration. */
struct mx_policy {
    const struct flow_prefix *deny; /* besides the built-in list (loopback, link-local, multicast,
                                       unspecified, mapped forms ...) */
    uint32_t deny_count;
    const struct flow_prefix *allow; /* wins over deny and the built-in list */
    uint32_t allow_count;
    const struct flow_address
        *own; /* address and port we listen on (port 0: any), and own_addresses */
    uint32_t own_count;
    uint16_t port; /* mx_port */
    bool ipv4, ipv6;
};

/** Drop-or-keep for one target address: ERR_OK, ERR_REFUSED (forbidden), ERR_LIMIT (ourselves). */
enum err mx_policy_check(const struct mx_policy *policy,
                         const struct flow_address *address) MUST_CHECK;

/**
 * The hosts for `domain` (lower-case A-labels).
 *
 * Cost:   a cache hit is a few hundred nanoseconds and completes at once.
 * Errors: ERR_AGAIN: asked; wake(user) follows exactly once. ERR_LIMIT: outstanding_max reached:
 * treat as MX_TEMPORARY.
 */
enum err mx_lookup(struct dns *dns, const struct mx_policy *policy, struct span domain,
                   uint64_t user, struct tick_now now, struct mx_answer *ret_answer) MUST_CHECK;
/** As mx_lookup(), for a host name from a route: addresses only, no MX. Fills one host. A name
 * without addresses is MX_TEMPORARY: a mistake of ours is no reason to bounce. */
enum err mx_lookup_host(struct dns *dns, const struct mx_policy *policy, struct span host,
                        uint16_t port, uint64_t user, struct tick_now now,
                        struct mx_answer *ret_answer) MUST_CHECK;

/** Turn a domain as people write it (UTF-8 U-labels or A-labels, any case, final dot allowed) into
 * lower-case A-labels (IDNA2008, libidn2). Errors: ERR_PEER_SYNTAX; also when the result has octets
 * outside LDH, labels over 63 or a name over 253. */
enum err dns_name_normalize(struct span domain, char ret_name[MX_NAME_MAX],
                            uint32_t *ret_size) MUST_CHECK;

/**
 * The `nameserver` lines of a resolv.conf, port 53; returns how many were put into ret_addresses.
 * Lines that are no addresses, scoped ones and duplicates are left out.
 *
 * Spec:   resolv.conf(5).
 * Bounds: at most `max`; any text.
 */
uint32_t dns_resolv_conf_parse(struct span text, struct flow_address *ret_addresses, uint32_t max);

#endif

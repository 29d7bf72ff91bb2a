/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hosts of a domain, packed for the cache, and what becomes of them under a policy.
 *
 * Policy is applied at every lookup and not before the cache: it may change with a reload, and a
 * cached verdict would outlive it.
 *
 * Packed form, host order, no padding between hosts:
 *   verdict (1), host count (1), reserved (6), reason (pointer to static text)
 *   host: preference (2), state (1), name size (1), IPv4 count (1), IPv6 count (1), name, addresses
 *
 * Invariants of an answer
 *   1. Preferences never fall; within one, the order is random, anew for each answer.
 *   2. No host has an address that mx_policy_check() does not let through, nor one of a family that
 *      the policy does not use; every host has at least one address and at most MX_ADDRESS_MAX.
 *   3. If one of a preference's hosts is ourselves, that preference and all worse ones are gone
 *      (RFC 5321 section 5.1).
 *   4. hosts and others together have every name of the set, once: they say which site it is, and
 *      that must not depend on what resolves at the moment.
 *   5. MX_OK has at least one host. Without one: TEMPORARY while some better host may still
 *      resolve, else ALL_DENIED when something was denied, else TEMPORARY.
 *
 * Families alternate, IPv6 first (RFC 8305 section 4), each beginning at a random one of its own.
 */
#include "dns/mx_set.h"

#define HEADER_SIZE 16u
#define HOST_SIZE   6u

static const uint32_t family_size[MX_FAMILY_COUNT] = {4, 16};
static const uint8_t family_code[MX_FAMILY_COUNT] = {FLOW_FAMILY_IP4, FLOW_FAMILY_IP6};

uint32_t mx_set_pack(const struct mx_set *set, uint8_t ret_octets[MX_SET_SIZE_MAX])
{
    uint32_t used = HEADER_SIZE;

    memset(ret_octets, 0, HEADER_SIZE);
    ret_octets[0] = (uint8_t)set->verdict;
    ret_octets[1] = (uint8_t)set->host_count;
    memcpy(ret_octets + 8, &set->reason, sizeof(set->reason));
    for (uint32_t i = 0; i < set->host_count; i++) {
        const struct mx_set_host *host = &set->hosts[i];
        CHECK(i == 0 || host->preference >= set->hosts[i - 1].preference);
        memcpy(ret_octets + used, &host->preference, 2);
        ret_octets[used + 2] = host->state;
        ret_octets[used + 3] = host->name_size;
        ret_octets[used + 4] = host->counts[MX_FAMILY_4];
        ret_octets[used + 5] = host->counts[MX_FAMILY_6];
        used += HOST_SIZE;
        memcpy(ret_octets + used, host->name, host->name_size);
        used += host->name_size;
        for (uint32_t family = 0; family < MX_FAMILY_COUNT; family++) {
            for (uint32_t j = 0; j < host->counts[family]; j++, used += family_size[family])
                memcpy(ret_octets + used, host->addresses[family][j], family_size[family]);
        }
    }
    CHECK(used <= MX_SET_SIZE_MAX);
    return used;
}

static uint16_t host_preference(const uint8_t *host)
{
    uint16_t preference;

    memcpy(&preference, host, sizeof(preference));
    return preference;
}

static uint32_t host_size(const uint8_t *host)
{
    return HOST_SIZE + host[3] + host[4] * 4u + host[5] * 16u;
}

/* Where each host begins, in random order within each preference. */
static uint32_t hosts_shuffle(struct span octets, struct rng *rng, const uint8_t **ret_hosts)
{
    uint32_t count = octets.data[1], run = 0;
    const uint8_t *host = octets.data + HEADER_SIZE;

    CHECK(count <= MX_HOST_MAX);
    for (uint32_t i = 0; i < count; i++, host += host_size(host)) {
        if (i > 0 && host_preference(host) != host_preference(ret_hosts[i - 1]))
            run = i;
        uint32_t other = i == run ? i : run + rng_below(rng, i - run + 1);
        ret_hosts[i] = ret_hosts[other];
        ret_hosts[other] = host;
    }
    return count;
}

/* How the addresses of a packed host fared. */
struct filtered {
    struct flow_address addresses[MX_FAMILY_COUNT][MX_ADDRESS_MAX];
    uint32_t counts[MX_FAMILY_COUNT];
    bool is_own, is_denied;
};

static void host_filter(const uint8_t *host, const struct mx_policy *policy, uint16_t port,
                        struct filtered *filtered)
{
    const uint8_t *ip = host + HOST_SIZE + host[3];
    const bool is_wanted[MX_FAMILY_COUNT] = {policy->ipv4, policy->ipv6};

    filtered->is_own = filtered->is_denied = false;
    for (uint32_t family = 0; family < MX_FAMILY_COUNT; family++) {
        uint32_t count = 0;
        for (uint32_t i = 0; i < host[4 + family]; i++, ip += family_size[family]) {
            struct flow_address *address = &filtered->addresses[family][count];
            *address = (struct flow_address){.family = family_code[family], .port = port};
            memcpy(address->ip, ip, family_size[family]);
            enum err err = mx_policy_check(policy, address);
            filtered->is_own |= err == ERR_LIMIT;
            filtered->is_denied |= err == ERR_REFUSED;
            count += err == ERR_OK && is_wanted[family];
        }
        filtered->counts[family] = count;
    }
}

/* IPv6, IPv4, IPv6 ... each family from a random start, until MX_ADDRESS_MAX or both are used up.
 */
static void host_interleave(const struct filtered *filtered, struct rng *rng, struct mx_host *host)
{
    uint32_t count6 = filtered->counts[MX_FAMILY_6], count4 = filtered->counts[MX_FAMILY_4];
    uint32_t random = count6 > 1 || count4 > 1 ? rng_u32(rng) : 0;
    uint32_t start6 = count6 > 1 ? (random & 0xffff) % count6 : 0;
    uint32_t start4 = count4 > 1 ? (random >> 16) % count4 : 0;
    uint32_t used = 0;

    for (uint32_t i = 0; i < MX_ADDRESS_MAX && used < MX_ADDRESS_MAX; i++) {
        if (i < count6)
            host->addresses[used++] = filtered->addresses[MX_FAMILY_6][(start6 + i) % count6];
        if (i < count4 && used < MX_ADDRESS_MAX)
            host->addresses[used++] = filtered->addresses[MX_FAMILY_4][(start4 + i) % count4];
    }
    host->address_count = (uint8_t)used;
}

static struct mx_host *answer_name(struct mx_answer *answer, uint32_t index, const uint8_t *packed,
                                   uint16_t port)
{
    struct mx_host *host = &answer->hosts[index];

    host->preference = host_preference(packed);
    host->port = port;
    host->weight = 0;
    host->address_count = 0;
    memcpy(host->name, packed + HOST_SIZE, packed[3]);
    host->name[packed[3]] = '\0';
    return host;
}

static void answer_add(struct mx_answer *answer, const uint8_t *packed, uint16_t port,
                       const struct filtered *filtered, struct rng *rng)
{
    host_interleave(filtered, rng, answer_name(answer, answer->host_count, packed, port));
    answer->host_count++;
}

static bool answer_has(const struct mx_answer *answer, const uint8_t *packed)
{
    struct span name = span_of(packed + HOST_SIZE, packed[3]);

    for (uint32_t i = 0; i < answer->host_count; i++) {
        if (span_is_equal(span_from_text(answer->hosts[i].name), name))
            return true;
    }
    return false;
}

static void answer_add_others(struct mx_answer *answer, const uint8_t *const *packed,
                              uint32_t count, uint16_t port)
{
    for (uint32_t i = 0; i < count; i++) {
        if (!answer_has(answer, packed[i]))
            answer_name(answer, answer->host_count + answer->other_count++, packed[i], port);
    }
}

/* RFC 5321 section 5.1: our own preference and all behind it are no way out. */
static void answer_cut(struct mx_answer *answer, uint16_t preference)
{
    while (answer->host_count > 0 &&
           answer->hosts[answer->host_count - 1].preference >= preference) {
        answer->host_count--;
    }
    answer->is_loop = true;
}

static void answer_set(struct mx_answer *answer, enum mx_verdict verdict, const char *reason)
{
    answer->verdict = verdict;
    answer->reason = reason;
}

void mx_set_answer(struct span octets, const struct mx_policy *policy, uint16_t port,
                   struct rng *rng, struct mx_answer *ret_answer)
{
    const uint8_t *hosts[MX_HOST_MAX];
    struct filtered filtered;
    uint32_t best_failed = UINT32_MAX, own = UINT32_MAX;
    bool is_denied = false;

    CHECK(octets.size >= HEADER_SIZE);
    ret_answer->verdict = octets.data[0];
    memcpy(&ret_answer->reason, octets.data + 8, sizeof(ret_answer->reason));
    ret_answer->is_loop = false;
    ret_answer->host_count = ret_answer->other_count = 0;
    if (ret_answer->verdict != MX_OK)
        return;

    uint32_t count = hosts_shuffle(octets, rng, hosts);
    for (uint32_t i = 0; i < count; i++) {
        if (hosts[i][2] == MX_HOST_FAILED && best_failed == UINT32_MAX)
            best_failed = host_preference(hosts[i]);
        host_filter(hosts[i], policy, port, &filtered);
        if (filtered.is_own) {
            own = host_preference(hosts[i]);
            answer_cut(ret_answer, (uint16_t)own);
            break;
        }
        is_denied |= filtered.is_denied;
        if (filtered.counts[MX_FAMILY_4] + filtered.counts[MX_FAMILY_6] > 0)
            answer_add(ret_answer, hosts[i], port, &filtered, rng);
    }
    if (ret_answer->host_count > 0) {
        answer_add_others(ret_answer, hosts, count, port);
        return;
    }
    if (best_failed < own)
        answer_set(ret_answer, MX_TEMPORARY, "the mail hosts of the domain do not resolve now");
    else if (own != UINT32_MAX)
        answer_set(ret_answer, MX_ALL_DENIED, "mail for the domain loops back to this host");
    else if (is_denied)
        answer_set(ret_answer, MX_ALL_DENIED, "the mail hosts of the domain have no valid address");
    else
        answer_set(ret_answer, MX_TEMPORARY, "no mail host of the domain has a usable address");
}

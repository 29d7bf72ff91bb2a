/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which addresses mail may be sent to.
 *
 * Names of MX hosts are chosen by strangers; without a rule they could point the relay at itself,
 * at services on its own machine, or at multicast groups. Order of judgement:
 *
 *   1. ourselves     always dropped, and a sign of a loop
 *   2. allow         wins over what follows; tests and demonstrations need it, defaults have none
 *   3. deny, and the built-in list: never a mail host anywhere on the Internet
 *
 * An IPv4 address in IPv6 clothes (::ffff:a.b.c.d) counts as itself for the first two and is always
 * on the built-in list: no DNS answer has a reason to contain one.
 *
 * Private networks (RFC 1918, ULA) are not on the list: many relays serve them. Configurations for
 * the open Internet deny them.
 */
#include "dns/dns.h"

static bool ip6_begins_with_zeros(const uint8_t *ip, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (ip[i] != 0)
            return false;
    }
    return true;
}

static bool ip6_is_mapped(const uint8_t *ip)
{
    return ip[10] == 0xff && ip[11] == 0xff && ip6_begins_with_zeros(ip, 10);
}

/* 0/8, 127/8, 169.254/16, 224/4 (multicast), 240/4 (reserved, broadcast). */
static bool ip4_is_never_a_host(const uint8_t *ip)
{
    return ip[0] == 0 || ip[0] == 127 || (ip[0] == 169 && ip[1] == 254) || ip[0] >= 224;
}

/* ::/96 (unspecified, loopback, IPv4-compatible), ::ffff:0:0/96, fe80::/10, ff00::/8, and the
 * translation prefix 64:ff9b::/96 around a forbidden IPv4 address. */
static bool ip6_is_never_a_host(const uint8_t *ip)
{
    static const uint8_t translation[12] = {0x00, 0x64, 0xff, 0x9b};

    if (ip6_begins_with_zeros(ip, 12) || ip6_is_mapped(ip))
        return true;
    if (memcmp(ip, translation, sizeof(translation)) == 0)
        return ip4_is_never_a_host(ip + 12);
    return ip[0] == 0xff || (ip[0] == 0xfe && (ip[1] & 0xc0) == 0x80);
}

static struct flow_address without_clothes(const struct flow_address *address)
{
    struct flow_address plain = *address;

    if (address->family == FLOW_FAMILY_IP6 && ip6_is_mapped(address->ip)) {
        plain = (struct flow_address){.family = FLOW_FAMILY_IP4, .port = address->port};
        memcpy(plain.ip, address->ip + 12, 4);
    }
    return plain;
}

static bool policy_is_own(const struct mx_policy *policy, const struct flow_address *address)
{
    struct flow_address plain = without_clothes(address);

    for (uint32_t i = 0; i < policy->own_count; i++) {
        struct flow_address own = without_clothes(&policy->own[i]);
        if (own.family == plain.family && memcmp(own.ip, plain.ip, sizeof(own.ip)) == 0 &&
            (own.port == 0 || own.port == plain.port)) {
            return true;
        }
    }
    return false;
}

static bool prefixes_contain(const struct flow_prefix *prefixes, uint32_t count,
                             const struct flow_address *address)
{
    for (uint32_t i = 0; i < count; i++) {
        if (flow_prefix_contains(&prefixes[i], address))
            return true;
    }
    return false;
}

enum err mx_policy_check(const struct mx_policy *policy, const struct flow_address *address)
{
    CHECK(address->family == FLOW_FAMILY_IP4 || address->family == FLOW_FAMILY_IP6);

    if (policy_is_own(policy, address))
        return ERR_LIMIT;
    if (prefixes_contain(policy->allow, policy->allow_count, address))
        return ERR_OK;
    bool is_never = address->family == FLOW_FAMILY_IP4 ? ip4_is_never_a_host(address->ip)
                                                       : ip6_is_never_a_host(address->ip);
    if (is_never || prefixes_contain(policy->deny, policy->deny_count, address))
        return ERR_REFUSED;
    return ERR_OK;
}

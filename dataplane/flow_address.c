/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Endpoints and prefixes as text and back.
 *
 * Parsing is strict, for what we accept is what access lists and logs are made of: IPv4 is four
 * decimal numbers without leading zeros ("010" is 8 to some programs and 10 to others), IPv6 is
 * RFC 4291 section 2.2 text without zone, brackets or port. inet_pton() of glibc is exactly that;
 * inet_aton() is not and is never used.
 */
#include "dataplane/flow.h"

#include <arpa/inet.h>

_Static_assert(INET6_ADDRSTRLEN + 8 <= FLOW_ADDRESS_TEXT_MAX, "with brackets and port");

#define BITS_IP4 32u
#define BITS_IP6 128u

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* ---- to text; by hand, since every record has four of them ---- */

static char *put_number(char *at, uint32_t number)
{
    char digits[10];
    uint32_t count = 0;

    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    while (count > 0)
        *at++ = digits[--count];
    return at;
}

/* Without the NUL; returns where it belongs. */
static char *put_ip(char *at, const struct flow_address *address)
{
    if (address->family == FLOW_FAMILY_IP4) {
        for (uint32_t i = 0; i < 4; i++) {
            if (i > 0)
                *at++ = '.';
            at = put_number(at, address->ip[i]);
        }
        return at;
    }
    if (address->family == FLOW_FAMILY_IP6 &&
        inet_ntop(AF_INET6, address->ip, at, INET6_ADDRSTRLEN) != NULL)
        return at + strlen(at);
    memcpy(at, address->family == FLOW_FAMILY_UNIX ? "unix" : "none", 4);
    return at + 4;
}

const char *flow_address_format_ip(const struct flow_address *address,
                                   char ret_text[FLOW_ADDRESS_TEXT_MAX])
{
    *put_ip(ret_text, address) = '\0';
    return ret_text;
}

const char *flow_address_format(const struct flow_address *address,
                                char ret_text[FLOW_ADDRESS_TEXT_MAX])
{
    bool is_ip6 = address->family == FLOW_FAMILY_IP6;
    char *at = ret_text;

    if (is_ip6)
        *at++ = '[';
    at = put_ip(at, address);
    if (is_ip6)
        *at++ = ']';
    if (is_ip6 || address->family == FLOW_FAMILY_IP4) {
        *at++ = ':';
        at = put_number(at, address->port);
    }
    *at = '\0';
    return ret_text;
}

/* ---- from text ---- */

enum err flow_address_parse_ip(struct span text, struct flow_address *ret_address)
{
    char terminated[INET6_ADDRSTRLEN];
    struct flow_address address = {0};

    /* An octet NUL would end the text early for inet_pton(). */
    if (text.size == 0 || text.size >= sizeof(terminated) ||
        memchr(text.data, '\0', text.size) != NULL)
        return ERR_PEER_SYNTAX;
    memcpy(terminated, text.data, text.size);
    terminated[text.size] = '\0';
    if (inet_pton(AF_INET, terminated, address.ip) == 1)
        address.family = FLOW_FAMILY_IP4;
    else if (inet_pton(AF_INET6, terminated, address.ip) == 1)
        address.family = FLOW_FAMILY_IP6;
    else
        return ERR_PEER_SYNTAX;
    *ret_address = address;
    return ERR_OK;
}

bool flow_address_is_equal(const struct flow_address *a, const struct flow_address *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

/* The address as 16 octets, IPv4 in its mapped form: one kind of compare for both. */
static void address_widen(const struct flow_address *address, uint8_t ret_ip[16])
{
    if (address->family == FLOW_FAMILY_IP4) {
        memcpy(ret_ip, mapped_prefix, sizeof(mapped_prefix));
        memcpy(ret_ip + sizeof(mapped_prefix), address->ip, 4);
    } else {
        memcpy(ret_ip, address->ip, 16);
    }
}

static bool address_is_mapped(const struct flow_address *address)
{
    return address->family == FLOW_FAMILY_IP4 ||
           (address->family == FLOW_FAMILY_IP6 &&
            memcmp(address->ip, mapped_prefix, sizeof(mapped_prefix)) == 0);
}

/* True when no bit of `ip` behind the first `bits` is set. */
static bool host_bits_are_zero(const uint8_t *ip, uint32_t bits, uint32_t bits_max)
{
    for (uint32_t bit = bits; bit < bits_max; bit++) {
        if (ip[bit / 8] & 0x80u >> bit % 8)
            return false;
    }
    return true;
}

enum err flow_prefix_parse(struct span text, struct flow_prefix *ret_prefix)
{
    const uint8_t *slash = text.size == 0 ? NULL : memchr(text.data, '/', text.size);
    uint32_t ip_size = slash == NULL ? text.size : (uint32_t)(slash - text.data);
    struct flow_prefix prefix = {0};

    if (flow_address_parse_ip(span_head(text, ip_size), &prefix.address) != ERR_OK)
        return ERR_CONFIG_VALUE;
    uint32_t bits_max = prefix.address.family == FLOW_FAMILY_IP4 ? BITS_IP4 : BITS_IP6;
    uint64_t bits = bits_max;
    if (slash != NULL && (text.size - ip_size - 1 > 3 ||
                          span_parse_u64(span_skip(text, ip_size + 1), &bits) != ERR_OK))
        return ERR_CONFIG_VALUE;
    if (bits > bits_max || !host_bits_are_zero(prefix.address.ip, (uint32_t)bits, bits_max))
        return ERR_CONFIG_VALUE;
    prefix.bits = (uint8_t)bits;
    *ret_prefix = prefix;
    return ERR_OK;
}

bool flow_prefix_contains(const struct flow_prefix *prefix, const struct flow_address *address)
{
    uint8_t range[16], ip[16];

    if ((address->family != FLOW_FAMILY_IP4 && address->family != FLOW_FAMILY_IP6) ||
        (prefix->address.family != FLOW_FAMILY_IP4 && prefix->address.family != FLOW_FAMILY_IP6))
        return false;
    /* ::/0 means IPv6, not the IPv4 addresses that can be written as mapped ones. */
    if (address_is_mapped(address) != address_is_mapped(&prefix->address))
        return false;
    address_widen(&prefix->address, range);
    address_widen(address, ip);
    uint32_t bits = prefix->bits;
    if (prefix->address.family == FLOW_FAMILY_IP4)
        bits += BITS_IP6 - BITS_IP4;
    if (memcmp(range, ip, bits / 8) != 0)
        return false;
    return bits % 8 == 0 || (range[bits / 8] ^ ip[bits / 8]) >> (8 - bits % 8) == 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the first octets of an address say about it. The ranges are those of RFC 6890 and RFC 4291;
 * whether an address is one of ours, or the broadcast address of one of our networks, only the
 * stack knows.
 */
#include "dataplane/wire/format/packet.h"

/* ::/127 without its last bit: the unspecified address and the loopback address. */
static bool is_zero_but_last_bit(const uint8_t ip[16])
{
    static const uint8_t zero[15];

    return memcmp(ip, zero, sizeof(zero)) == 0 && ip[15] <= 1;
}

static bool is_mapped(const uint8_t ip[16])
{
    static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};

    return memcmp(ip, prefix, sizeof(prefix)) == 0;
}

bool ip_is_martian_source(uint8_t family, const uint8_t ip[16])
{
    if (family == 4)
        /* 0/8 and 127/8 (RFC 1122 3.2.1.3); from 224/4 on multicast, class E and broadcast. */
        return ip[0] == 0 || ip[0] == 127 || ip[0] >= 224;
    return ip[0] == 0xff || is_zero_but_last_bit(ip) || is_mapped(ip);
}

bool ip_is_multicast(uint8_t family, const uint8_t ip[16])
{
    return family == 4 ? (ip[0] & 0xf0) == 0xe0 : ip[0] == 0xff;
}

bool ip_is_link_local(uint8_t family, const uint8_t ip[16])
{
    if (family == 4)
        return ip[0] == 169 && ip[1] == 254; /* RFC 3927 */
    return ip[0] == 0xfe && (ip[1] & 0xc0) == 0x80;
}

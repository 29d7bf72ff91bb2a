/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ethernet II with at most one 802.1Q tag:
 *
 *   0  destination (6)   6  source (6)   12  type (2)
 *   or 12  0x8100 (2)   14  priority 3, DEI 1, VLAN 12 bits   16  type (2)
 *
 * A second tag, and a length in place of a type (802.3), come out as a type that nobody knows: such
 * frames are somebody else's and go to the exception path.
 */
#include "dataplane/wire/format/packet.h"

#define VLAN_MASK 0x0fffu

enum packet_fault ethernet_parse(struct span octets, struct ethernet_header *ret_header)
{
    const uint8_t *data = octets.data;

    if (octets.size < ETHERNET_HEADER_SIZE)
        return PACKET_SHORT;
    uint16_t type = load_be16(data + 12), vlan = 0, size = ETHERNET_HEADER_SIZE;
    if (type == ETHERTYPE_VLAN) {
        size += ETHERNET_VLAN_SIZE;
        if (octets.size < size)
            return PACKET_SHORT;
        vlan = load_be16(data + 14) & VLAN_MASK;
        type = load_be16(data + 16);
    }
    memcpy(ret_header->destination, data, 6);
    memcpy(ret_header->source, data + 6, 6);
    ret_header->type = type;
    ret_header->vlan = vlan;
    ret_header->size = size;
    return PACKET_OK;
}

uint32_t ethernet_build(const struct ethernet_header *header, uint8_t *ret_octets)
{
    uint32_t at = 12;

    CHECK(header->vlan <= VLAN_MASK);
    memcpy(ret_octets, header->destination, 6);
    memcpy(ret_octets + 6, header->source, 6);
    if (header->vlan != 0) {
        store_be16(ret_octets + 12, ETHERTYPE_VLAN);
        store_be16(ret_octets + 14, header->vlan);
        at += ETHERNET_VLAN_SIZE;
    }
    store_be16(ret_octets + at, header->type);
    return at + 2;
}

bool ethernet_is_multicast(const uint8_t mac[6])
{
    return (mac[0] & 1) != 0; /* broadcast too */
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ARP for IPv4 over Ethernet (RFC 826):
 *
 *   0  hardware 1 (2)   2  protocol 0x0800 (2)   4  sizes 6, 4   6  operation (2)
 *   8  sender MAC (6)   14  sender IP (4)   18  target MAC (6)   24  target IP (4)
 *
 * A sender with a group address is malformed: no station has one (RFC 1812 3.3.2), and believing it
 * would send a neighbour's traffic to everybody.
 */
#include "dataplane/wire/format/packet.h"

#define HARDWARE_ETHERNET 1u
#define OPERATION_REQUEST 1u
#define OPERATION_REPLY   2u

enum packet_fault arp_parse(struct span octets, struct arp_packet *ret_packet)
{
    const uint8_t *data = octets.data;

    if (octets.size < ARP_SIZE)
        return PACKET_SHORT;
    uint16_t operation = load_be16(data + 6);
    if (load_be16(data) != HARDWARE_ETHERNET || load_be16(data + 2) != ETHERTYPE_IP4)
        return PACKET_UNSUPPORTED;
    if (data[4] != 6 || data[5] != 4 || ethernet_is_multicast(data + 8))
        return PACKET_MALFORMED;
    if (operation != OPERATION_REQUEST && operation != OPERATION_REPLY)
        return PACKET_UNSUPPORTED;
    ret_packet->operation = operation;
    memcpy(ret_packet->sender_mac, data + 8, 6);
    memcpy(ret_packet->sender_ip, data + 14, 4);
    memcpy(ret_packet->target_mac, data + 18, 6);
    memcpy(ret_packet->target_ip, data + 24, 4);
    return PACKET_OK;
}

void arp_build(const struct arp_packet *packet, uint8_t ret_octets[ARP_SIZE])
{
    store_be16(ret_octets, HARDWARE_ETHERNET);
    store_be16(ret_octets + 2, ETHERTYPE_IP4);
    ret_octets[4] = 6;
    ret_octets[5] = 4;
    store_be16(ret_octets + 6, packet->operation);
    memcpy(ret_octets + 8, packet->sender_mac, 6);
    memcpy(ret_octets + 14, packet->sender_ip, 4);
    memcpy(ret_octets + 18, packet->target_mac, 6);
    memcpy(ret_octets + 24, packet->target_ip, 4);
}

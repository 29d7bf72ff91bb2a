/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The UDP header (RFC 768):
 *
 *   0  source port (2)   2  destination port (2)   4  size of header and payload (2)   6  checksum
 *
 * Octets behind the size that the header gives are no payload. What a checksum of 0 means depends
 * on the IP version and is the caller's business.
 */
#include "dataplane/wire/format/packet.h"

enum packet_fault udp_parse(struct span octets, uint32_t payload_size,
                            struct udp_header *ret_header)
{
    if (octets.size < UDP_HEADER_SIZE)
        return PACKET_SHORT;
    uint16_t size = load_be16(octets.data + 4);
    if (size < UDP_HEADER_SIZE)
        return PACKET_MALFORMED;
    if (size > payload_size)
        return PACKET_SHORT;
    ret_header->source_port = load_be16(octets.data);
    ret_header->destination_port = load_be16(octets.data + 2);
    ret_header->size = size;
    ret_header->checksum = load_be16(octets.data + 6);
    return PACKET_OK;
}

void udp_build(const struct udp_header *header, uint8_t ret_octets[UDP_HEADER_SIZE])
{
    store_be16(ret_octets, header->source_port);
    store_be16(ret_octets + 2, header->destination_port);
    store_be16(ret_octets + 4, header->size);
    store_be16(ret_octets + 6, header->checksum);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The TCP header (RFC 9293 3.1):
 *
 *   0  source port (2)   2  destination port (2)   4  sequence (4)   8  acknowledgement (4)
 *   12  header size in words (4 bits), reserved (4 bits)   13  flags   14  window (2)
 *   16  checksum (2)   18  urgent pointer (2)   20  options, up to 40 octets
 *
 * Only the sizes can be wrong. Flags in any combination, port 0 and every value of every field are
 * judged by the state machine. Reserved bits are ignored on the way in and 0 on the way out.
 */
#include "dataplane/wire/format/tcp_options.h"

#define WORDS_MIN 5u

enum packet_fault tcp_parse(struct span octets, struct tcp_header *ret_header)
{
    const uint8_t *data = octets.data;

    if (octets.size < TCP_HEADER_SIZE)
        return PACKET_SHORT;
    uint8_t words = data[12] >> 4;
    if (words < WORDS_MIN)
        return PACKET_MALFORMED;
    if (words * 4u > octets.size)
        return PACKET_SHORT;
    ret_header->source_port = load_be16(data);
    ret_header->destination_port = load_be16(data + 2);
    ret_header->sequence = load_be32(data + 4);
    ret_header->acknowledgement = load_be32(data + 8);
    ret_header->window = load_be16(data + 14);
    ret_header->checksum = load_be16(data + 16);
    ret_header->urgent = load_be16(data + 18);
    ret_header->flags = data[13];
    ret_header->header_size = (uint8_t)(words * 4);

    struct tcp_options *options = &ret_header->options;
    uint32_t options_size = words * 4u - TCP_HEADER_SIZE;
    *options = (struct tcp_options){0};
    if (options_size == TCP_OPTIONS_TIMESTAMPS_SIZE &&
        load_be32(data + TCP_HEADER_SIZE) == TCP_OPTIONS_TIMESTAMPS_WORD) {
        options->has_timestamps = true;
        options->timestamp_value = load_be32(data + TCP_HEADER_SIZE + 4);
        options->timestamp_echo = load_be32(data + TCP_HEADER_SIZE + 8);
    } else if (options_size > 0) {
        tcp_options_parse(span_of(data + TCP_HEADER_SIZE, options_size), (data[13] & TCP_SYN) != 0,
                          options);
    }
    return PACKET_OK;
}

uint32_t tcp_build(const struct tcp_header *header, uint8_t ret_octets[60])
{
    uint32_t size =
        TCP_HEADER_SIZE + tcp_options_build(&header->options, ret_octets + TCP_HEADER_SIZE);

    store_be16(ret_octets, header->source_port);
    store_be16(ret_octets + 2, header->destination_port);
    store_be32(ret_octets + 4, header->sequence);
    store_be32(ret_octets + 8, header->acknowledgement);
    ret_octets[12] = (uint8_t)(size / 4 << 4);
    ret_octets[13] = header->flags;
    store_be16(ret_octets + 14, header->window);
    store_be16(ret_octets + 16, 0);
    store_be16(ret_octets + 18, header->urgent);
    return size;
}

void tcp_rebuild(uint8_t octets[TCP_HEADER_SIZE], uint32_t sequence, uint8_t flags,
                 uint16_t checksum)
{
    store_be32(octets + 4, sequence);
    octets[13] = flags;
    memcpy(octets + 16, &checksum, sizeof(checksum));
}

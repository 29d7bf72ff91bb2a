/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_FORMAT_TCP_OPTIONS_H
#define DATAPLANE_WIRE_FORMAT_TCP_OPTIONS_H

#include "dataplane/wire/format/packet.h"

/* The options of a TCP header, for tcp_header.c alone. */

/* NOP NOP TIMESTAMPS 10: what nearly every segment carries. */
#define TCP_OPTIONS_TIMESTAMPS_WORD 0x0101080au
#define TCP_OPTIONS_TIMESTAMPS_SIZE 12u

/** `octets` are at most TCP_OPTIONS_SIZE_MAX; `ret_options` has no option when called. */
void tcp_options_parse(struct span octets, bool is_syn, struct tcp_options *ret_options);
/** Returns the size, a multiple of 4 and at most TCP_OPTIONS_SIZE_MAX. */
uint32_t tcp_options_build(const struct tcp_options *options,
                           uint8_t ret_octets[TCP_OPTIONS_SIZE_MAX]);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_PORT_LINK_SIM_FRAME_H
#define DATAPLANE_WIRE_PORT_LINK_SIM_FRAME_H

#include "base/span.h"

/*
 * What a simulated card and a test's peer must know of the octets of a packet. Written apart from
 * dataplane/wire/format, octet by octet and without its tricks, so that a mistake there is seen
 * here.
 */
struct link_frame {       /* where things are in a packet; offsets from its first octet */
    uint32_t l3, l4, end; /* end: of the IP packet; padding may follow. All 0: no IP */
    uint8_t family, protocol;
    bool has_l4; /* TCP or UDP or ICMP header is there: no fragment */
};
/** `is_l3`: no Ethernet header. Returns false when it is no whole IP packet (ARP, malformed). */
bool link_frame_parse(struct span packet, bool is_l3, struct link_frame *ret_frame);

/** RFC 1071: the sum of 16-bit words, folded, not complemented. `sum` is added. */
uint16_t link_frame_sum(struct span octets, uint32_t sum);
/** Sum of the pseudo-header for an L4 packet of `size` octets. */
uint16_t link_frame_pseudo_sum(const uint8_t *packet, const struct link_frame *frame,
                               uint32_t size);
/** Where the checksum is in TCP, UDP, ICMP, ICMPv6; 0: has none. */
uint32_t link_frame_checksum_offset(const struct link_frame *frame);
/** Both checksums as they must be. */
void link_frame_complete(uint8_t *packet, const struct link_frame *frame, bool ip4, bool l4);
bool link_frame_ip4_is_good(const uint8_t *packet, const struct link_frame *frame);
bool link_frame_l4_is_good(const uint8_t *packet, const struct link_frame *frame);

/** The two ECN bits; marking keeps the IPv4 checksum right. */
uint8_t link_frame_ecn(const uint8_t *packet, const struct link_frame *frame);
void link_frame_mark(uint8_t *packet, const struct link_frame *frame);

/** Toeplitz hash over addresses and, for unfragmented TCP and UDP, ports. */
uint32_t link_frame_rss(const uint8_t *packet, const struct link_frame *frame, const uint8_t *key,
                        uint32_t key_size);

#define LINK_FRAME_ICMP_MAX 1500u
/** The ICMP error of a router on whose next link at most `mtu` fits, back to the packet's sender.
 * Returns its size; 0: none may be sent. */
uint32_t link_frame_too_big(struct span packet, const struct link_frame *frame, uint16_t mtu,
                            uint8_t ret_packet[LINK_FRAME_ICMP_MAX]);

#endif

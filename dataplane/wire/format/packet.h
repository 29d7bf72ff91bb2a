/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_FORMAT_PACKET_H
#define DATAPLANE_WIRE_FORMAT_PACKET_H

#include <endian.h>

#include "base/span.h"

/*
 * Headers on the wire: checked parsing into plain structs and building from them. No state, no
 * buffers: spans in, numbers out. All numbers in host order, addresses as 16 octets (IPv4 in the
 * first four, the rest zero), as in struct flow_address.
 *
 * A parser is given the octets from its header to the end of what is contiguous in the first buffer
 * of a frame; headers must lie there whole. Errors are those of enum packet_fault; they are data of
 * the network, never CHECKed.
 */
#define ETHERNET_HEADER_SIZE 14u
#define ETHERNET_VLAN_SIZE   4u
#define ETHERNET_MIN_SIZE    60u
#define IP4_HEADER_SIZE      20u
#define IP6_HEADER_SIZE      40u
#define UDP_HEADER_SIZE      8u
#define TCP_HEADER_SIZE      20u
#define TCP_OPTIONS_SIZE_MAX 40u
#define ARP_SIZE             28u

#define ETHERTYPE_IP4  0x0800u
#define ETHERTYPE_ARP  0x0806u
#define ETHERTYPE_VLAN 0x8100u
#define ETHERTYPE_IP6  0x86ddu

#define IP_PROTOCOL_ICMP  1u
#define IP_PROTOCOL_TCP   6u
#define IP_PROTOCOL_UDP   17u
#define IP_PROTOCOL_ICMP6 58u

enum packet_fault {
    PACKET_OK = 0,
    PACKET_SHORT,       /* a header or a length does not fit the frame */
    PACKET_MALFORMED,   /* a field has an impossible value */
    PACKET_CHECKSUM,    /* IPv4 header checksum */
    PACKET_FRAGMENT,    /* an IP fragment (IPv6 atomic fragments are none, RFC 6946) */
    PACKET_UNSUPPORTED, /* another version, protocol, or extension header */
};

struct ethernet_header {
    uint8_t destination[6], source[6];
    uint16_t type; /* after the tag, if there was one */
    uint16_t vlan; /* 0: untagged or priority-tagged */
    uint16_t size; /* octets of the header, tag included */
};
enum packet_fault ethernet_parse(struct span octets, struct ethernet_header *ret_header);
/** Writes size octets: 14, or 18 with a tag. */
uint32_t ethernet_build(const struct ethernet_header *header, uint8_t *ret_octets);
bool ethernet_is_multicast(const uint8_t mac[6]);

struct arp_packet {
    uint16_t operation; /* 1 request, 2 reply */
    uint8_t sender_mac[6], target_mac[6];
    uint8_t sender_ip[4], target_ip[4];
};
enum packet_fault arp_parse(struct span octets, struct arp_packet *ret_packet);
void arp_build(const struct arp_packet *packet, uint8_t ret_octets[ARP_SIZE]);

/* Both IP versions. */
struct ip_header {
    uint8_t family; /* 4 or 6 */
    uint8_t protocol;
    uint8_t ttl;             /* hop limit */
    uint8_t traffic_class;   /* TOS; the lowest two bits are ECN */
    uint16_t header_size;    /* options and extension headers included */
    uint16_t payload_size;   /* octets after the header, as the header says; <= what is there */
    uint16_t identification; /* IPv4 */
    bool is_dont_fragment;   /* IPv4 */
    bool has_options;        /* IPv4 options (ignored), or IPv6 extension headers skipped */
    /* Source routes (LSRR, SSRR), routing headers, router alerts: not for an endpoint; drop. */
    bool has_router_alert_or_route;
    uint8_t source[16], destination[16];
};
/** `total` is the size of the frame from the IP header on (padding included); `octets` what is
 * contiguous of it. Verifies the IPv4 header checksum unless `is_checksum_good`. IPv6: skips
 * hop-by-hop and destination options, at most 8, within 256 octets. Spec: RFC 791, RFC 8200. */
enum packet_fault ip4_parse(struct span octets, uint32_t total, bool is_checksum_good,
                            struct ip_header *ret_header);
enum packet_fault ip6_parse(struct span octets, uint32_t total, struct ip_header *ret_header);
/** Without options. With `with_checksum` false the IPv4 checksum is left 0 for the nic. */
void ip4_build(const struct ip_header *header, bool with_checksum,
               uint8_t ret_octets[IP4_HEADER_SIZE]);
void ip6_build(const struct ip_header *header, uint8_t ret_octets[IP6_HEADER_SIZE]);
/** Another payload size in a header that was built. */
void ip4_resize(uint8_t octets[IP4_HEADER_SIZE], uint16_t payload_size, bool with_checksum);
void ip6_resize(uint8_t octets[IP6_HEADER_SIZE], uint16_t payload_size);

struct udp_header {
    uint16_t source_port, destination_port, size /* header and payload */, checksum;
};
enum packet_fault udp_parse(struct span octets, uint32_t payload_size,
                            struct udp_header *ret_header);
void udp_build(const struct udp_header *header, uint8_t ret_octets[UDP_HEADER_SIZE]);

enum tcp_flags {
    TCP_FIN = 1u << 0,
    TCP_SYN = 1u << 1,
    TCP_RST = 1u << 2,
    TCP_PSH = 1u << 3,
    TCP_ACK = 1u << 4,
    TCP_URG = 1u << 5,
    TCP_ECE = 1u << 6,
    TCP_CWR = 1u << 7,
};
#define TCP_SACK_BLOCKS_MAX 4u
struct tcp_sack_block {
    uint32_t start, end; /* [start, end) */
};
struct tcp_options {
    bool has_mss, has_window_scale, has_sack_permitted, has_timestamps;
    uint16_t mss;
    uint8_t window_scale; /* as sent; may exceed 14 */
    uint8_t sack_count;
    uint32_t timestamp_value, timestamp_echo;
    struct tcp_sack_block sack[TCP_SACK_BLOCKS_MAX];
};
struct tcp_header {
    uint16_t source_port, destination_port;
    uint32_t sequence, acknowledgement;
    uint16_t window; /* unscaled, as in the header */
    uint16_t checksum, urgent;
    uint8_t flags;
    uint8_t header_size; /* options included */
    struct tcp_options options;
};
/** Never fails on options: a malformed one ends the list and the rest is ignored (RFC 9293 MUST-7,
 * HAZARDS TC-11). Fast for the usual layout NOP NOP TIMESTAMPS. */
enum packet_fault tcp_parse(struct span octets, struct tcp_header *ret_header);
/** Writes header and options, padded; checksum 0. Returns the header's size, <= 60. SYN-only
 * options are written only as `has_*` says; SACK blocks that do not fit are left out. */
uint32_t tcp_build(const struct tcp_header *header, uint8_t ret_octets[60]);
/** Another sequence number, other flags and, as wire_sum_finish() gives it, another checksum in a
 * header that was built. */
void tcp_rebuild(uint8_t octets[TCP_HEADER_SIZE], uint32_t sequence, uint8_t flags,
                 uint16_t checksum);

#define ICMP_ECHO_REPLY4              0u
#define ICMP_UNREACHABLE4             3u
#define ICMP_ECHO_REQUEST4            8u
#define ICMP_TIME_EXCEEDED4           11u
#define ICMP_PARAMETER4               12u
#define ICMP_UNREACHABLE6             1u
#define ICMP_PACKET_TOO_BIG6          2u
#define ICMP_TIME_EXCEEDED6           3u
#define ICMP_PARAMETER6               4u
#define ICMP_ECHO_REQUEST6            128u
#define ICMP_ECHO_REPLY6              129u
#define ICMP_MEMBERSHIP_QUERY6        130u
#define ICMP_ROUTER_ADVERTISEMENT6    134u
#define ICMP_NEIGHBOUR_SOLICITATION6  135u
#define ICMP_NEIGHBOUR_ADVERTISEMENT6 136u

/* An ICMP error with what it quotes. */
struct icmp_error {
    uint8_t type, code;
    uint16_t
        mtu; /* frag-needed and packet-too-big; 0 unknown (RFC 1191 old routers); capped at 65535 */
    struct ip_header quoted;
    uint16_t source_port, destination_port; /* of the quoted TCP or UDP header */
    uint32_t sequence;                      /* TCP */
};
/** `octets`: the ICMP message. Spec: RFC 792, 4443, 1191. */
enum packet_fault icmp_error_parse(uint8_t family, struct span octets,
                                   struct icmp_error *ret_error);

struct nd_packet { /* RFC 4861 neighbour solicitation and advertisement */
    uint8_t type;
    bool is_router, is_solicited, is_override;
    uint8_t target[16];
    bool has_link_address; /* source (solicitation) or target (advertisement) link-layer address */
    uint8_t link_address[6];
};
/** Every option is checked for length (RFC 4861 section 7.1). The caller checks hop limit 255. */
enum packet_fault nd_parse(struct span octets, struct nd_packet *ret_packet);
/** Returns the size written, <= 32; ICMP checksum 0. */
uint32_t nd_build(const struct nd_packet *packet, uint8_t ret_octets[32]);

/* ---- checksum (RFC 1071) ---- */

/** Sum of 16-bit words, not folded, as if the octets began at an even offset. Runtime choice of
 * AVX2. Add sums with +; a part that begins at an odd offset goes through wire_sum_swap(). */
uint64_t wire_sum(const void *octets, uint32_t size);
uint64_t wire_sum_swap(uint64_t sum);
static inline uint64_t wire_sum_word(const uint8_t octets[4])
{
    uint32_t word;

    memcpy(&word, octets, sizeof(word));
    return word;
}
/** Of a header of IPv4 or TCP: `size` octets, a multiple of 4, at least 20. */
static inline uint64_t wire_sum_header(const uint8_t *octets, uint32_t size)
{
    uint64_t sum = wire_sum_word(octets) + wire_sum_word(octets + 4) + wire_sum_word(octets + 8) +
                   wire_sum_word(octets + 12) + wire_sum_word(octets + 16);

    if (size == 32) /* TCP with timestamps, nearly always */
        return sum + wire_sum_word(octets + 20) + wire_sum_word(octets + 24) +
               wire_sum_word(octets + 28);
    for (uint32_t at = 20; at < size; at += 4)
        sum += wire_sum_word(octets + at);
    return sum;
}
/** The checksum to put into a header, in network order as stored: memcpy it. */
static inline uint16_t wire_sum_finish(uint64_t sum)
{
    /* Both halves added in both orders: the carry of the lower goes into the upper, as it must. */
    sum += sum << 32 | sum >> 32;
    uint32_t half = (uint32_t)(sum >> 32);
    half += half << 16 | half >> 16;
    return (uint16_t) ~(half >> 16);
}
/** The addresses of an IPv6 pseudo-header. */
uint64_t wire_sum_pseudo6(const uint8_t source[16], const uint8_t destination[16]);
/** Pseudo-header of TCP, UDP and ICMPv6. RFC 9293 3.1 and RFC 8200 8.1: the same words but for the
 * addresses; the zeros between them add nothing. */
static inline uint64_t wire_sum_pseudo(uint8_t family, const uint8_t source[16],
                                       const uint8_t destination[16], uint8_t protocol,
                                       uint32_t size)
{
    uint64_t sum = (uint64_t)htobe16(protocol) + htobe32(size);

    if (family == 4)
        return sum + wire_sum_word(source) + wire_sum_word(destination);
    return sum + wire_sum_pseudo6(source, destination);
}
/** Copies while it sums. */
uint64_t wire_sum_copy(void *ret_octets, const void *octets, uint32_t size);

/* ---- addresses ---- */

/** Not a source that may appear on a wire: unspecified, loopback, multicast, broadcast, class E,
 * IPv4-mapped (RFC 1122 3.2.1.3, RFC 6890). */
bool ip_is_martian_source(uint8_t family, const uint8_t ip[16]);
bool ip_is_multicast(uint8_t family, const uint8_t ip[16]);
bool ip_is_link_local(uint8_t family, const uint8_t ip[16]);

static inline uint16_t load_be16(const uint8_t *octets)
{
    return (uint16_t)(octets[0] << 8 | octets[1]);
}
static inline uint32_t load_be32(const uint8_t *octets)
{
    return (uint32_t)octets[0] << 24 | (uint32_t)octets[1] << 16 | (uint32_t)octets[2] << 8 |
           octets[3];
}
static inline void store_be16(uint8_t *octets, uint16_t value)
{
    octets[0] = (uint8_t)(value >> 8);
    octets[1] = (uint8_t)value;
}
static inline void store_be32(uint8_t *octets, uint32_t value)
{
    octets[0] = (uint8_t)(value >> 24);
    octets[1] = (uint8_t)(value >> 16);
    octets[2] = (uint8_t)(value >> 8);
    octets[3] = (uint8_t)value;
}

#endif

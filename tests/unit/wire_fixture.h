/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_WIRE_FIXTURE_H
#define TESTS_UNIT_WIRE_FIXTURE_H

#include "dataplane/wire/net/net.h"

/*
 * A stack between a test and nics that are arrays: frames go in as octets and come out as octets.
 * TCP is not there: what reaches it is recorded. Every buffer is a heap block of its own.
 *
 * Port 0 is 02:00:00:00:00:01 with 192.0.2.1/24, 2001:db8::1/64 and fe80::1/64, routers
 * 192.0.2.254 and 2001:db8::fe. Port 1, where there is one, is 02:00:00:00:01:01 with 10.1.0.1/16.
 */
#define FIXTURE_PORTS      2u
#define FIXTURE_FRAME_SIZE 9216u
#define FIXTURE_FRAMES     1024u

extern const uint8_t fixture_mac[6], fixture_peer_mac[6], fixture_router_mac[6],
    fixture_evil_mac[6], fixture_broadcast_mac[6];

struct fixture_frame {
    uint32_t size;
    uint16_t segments, queue; /* queue: of what was passed on */
    uint64_t ol_flags, tx_offload;
    uint8_t octets[FIXTURE_FRAME_SIZE];
};

struct fixture_frames { /* frames that left by one of the ways out */
    struct fixture_frame *frames[FIXTURE_FRAMES];
    uint32_t count, taken;
};

struct fixture_nic {
    struct nic nic; /* first */
    struct buf *arriving[NIC_BURST * 4];
    uint32_t arriving_count;
    uint32_t room; /* frames that are still accepted */
    struct fixture_frames sent, passed, excepted;
    bool is_freed;
};

struct fixture_options {
    uint32_t port_count, offloads, queue_count, core, core_count;
    uint32_t neighbour_max, destination_max, flow_count_max, receive_reserve;
    uint32_t header_pool_max, segments_max;
    uint16_t vlan, mtu, nic_mtu, pool_size;
    uint32_t pool_count;
    bool has_exception, is_fresh; /* fresh: no time passed since stack_new() */
    bool is_hardware;             /* the nic steers */
};

struct fixture {
    struct buf_pool *pool, *header_pool, *clone_pool, *receive_pool;
    struct fixture_nic nics[FIXTURE_PORTS];
    struct stack *stack;
    struct flow_plane *plane;
    tick_us now;
    uint32_t segment_count; /* that reached TCP */
    struct ip_header segment_ip;
    uint32_t segment_size, segment_frame_size; /* of L4; of all buffers from the L4 header on */
    bool is_segment_checksum_known, is_segment_checksum_good;
    uint32_t error_count; /* ICMP errors that reached TCP */
    struct icmp_error error;
    uint32_t list_timer_count; /* timers of TCP's lists that fired */
    uint32_t news_count;
    struct stack_news news[64];
};

struct fixture_options fixture_defaults(void);
struct stack_options fixture_stack_options(struct fixture *fixture,
                                           const struct fixture_options *options,
                                           struct stack_port_options *ret_ports,
                                           struct stack_address *ret_addresses);
struct fixture *fixture_new(const struct fixture_options *options);
/** CHECKs that no buffer is left. */
void fixture_free(struct fixture *fixture);
/** The same, of a fixture whose plane the test freed. */
void fixture_free_pools(struct fixture *fixture);

/** Poll, verify, flush; returns how many events were reported. */
uint32_t fixture_turn(struct fixture *fixture, struct flow_event *ret_events, uint32_t max);
/** Turns up to `time` from now, one at each deadline. */
void fixture_advance(struct fixture *fixture, tick_us time);

/* ---- frames in ---- */

/** A frame in one buffer; padded to 60 octets when `is_padded`. */
void fixture_inject(struct fixture *fixture, uint32_t port, struct span frame);
/** In pieces of at most `piece` octets. */
void fixture_inject_pieces(struct fixture *fixture, uint32_t port, struct span frame,
                           uint32_t piece, uint32_t headroom);

struct fixture_packet { /* what to build; zero is the usual */
    const char *source, *destination;
    const uint8_t *from, *to; /* peer's and ours when NULL */
    uint8_t protocol, ttl;
    uint16_t vlan, source_port, destination_port;
    struct span payload; /* of UDP; else all of L4 */
    bool is_l3;          /* no Ethernet header */
};
/** Writes a frame with all checksums right; returns its size. */
uint32_t fixture_build(const struct fixture_packet *packet, uint8_t *ret_frame);
/** Build, inject, turn. */
void fixture_input(struct fixture *fixture, const struct fixture_packet *packet);
void fixture_input_arp(struct fixture *fixture, uint16_t operation, const uint8_t sender_mac[6],
                       const char *sender, const char *target, const uint8_t to[6]);
/** Neighbour discovery: `mac` NULL: without the option. */
void fixture_input_nd(struct fixture *fixture, const struct nd_packet *nd, const char *source,
                      const char *destination, const uint8_t *from);

/* ---- frames out ---- */

struct fixture_view { /* what a frame says; ip.family 0: ARP */
    struct ethernet_header ethernet;
    struct arp_packet arp;
    struct ip_header ip;
    struct span l4;
    struct fixture_frame *frame;
};
uint32_t fixture_sent_count(const struct fixture *fixture, uint32_t port);
/** The oldest frame that was sent and not taken; fails the test where there is none, or where a
 * checksum in it is wrong. */
struct fixture_view fixture_take(struct fixture *fixture, uint32_t port);
void fixture_forget(struct fixture *fixture, uint32_t port);
bool fixture_ip_is(const uint8_t ip[16], const char *text);
struct flow_address fixture_address(const char *text, uint16_t port);
uint64_t fixture_counter(const struct fixture *fixture, enum stack_counter counter);
#define COUNTER(fixture, SYMBOL) fixture_counter(fixture, STACK_##SYMBOL)

/** Answer the question for `ip` that was just sent, from `mac`. */
void fixture_answer(struct fixture *fixture, const char *ip, const uint8_t mac[6]);

#endif

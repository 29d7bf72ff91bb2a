/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_STACK_H
#define DATAPLANE_WIRE_STACK_H

#include "base/rng.h"
#include "dataplane/flow.h"
#include "dataplane/wire/nic.h"

/*
 * The engine as a library: Ethernet, ARP, ND, IPv4, IPv6, ICMP, UDP and TCP over nics, for one
 * core. A stack does no I/O of its own, has no global state and starts no thread: frames come and
 * go through struct nic, time comes in with flow_poll() and flow_flush(), and applications use it
 * as a flow_plane (dataplane/flow.h). flow_deadline() says when it must be polled next.
 *
 * All calls belong to the owner core. Memory: what grows does so by blocks up to the bounds in
 * stack_options and is never allocated per packet.
 */
#define STACK_PORT_MAX    8u
#define STACK_ADDRESS_MAX 64u /* over all ports */
#define STACK_CORE_MAX    128u

/* Every number of TCP's that is policy and not protocol. Times in microseconds. */
struct tcp_policy {
    uint16_t mss_min;         /* smaller ones offered by peers are raised to this (HAZARDS TC-04) */
    uint8_t window_scale_max; /* offered; 0..14 */
    bool has_sack, has_timestamps, has_window_scale,
        has_ecn; /* offered and accepted; ecn: passive */
    uint32_t receive_window_start, receive_window_max;
    uint32_t send_window_max; /* octets in flight, whatever the peer offers */
    uint32_t initial_window;  /* segments, RFC 6928 */
    tick_us rto_initial, rto_min, rto_max;
    tick_us delayed_ack_time;
    uint32_t quick_acks;  /* segments acknowledged at once at the start */
    tick_us syn_times[8]; /* when to send SYN number i, from connect() on; ends at the first 0 after
                             [0] */
    tick_us syn_ack_time; /* first retransmission of a SYN-ACK; doubles */
    uint32_t syn_ack_retries;
    tick_us time_wait_time, fin_wait_2_time;
    tick_us user_time; /* data unacknowledged this long: give up (RFC 5482); at least 100 s (R2) */
    bool is_newreno;   /* else CUBIC */
    uint32_t out_of_order_segments_max, out_of_order_octets_max; /* per connection */
    uint32_t challenge_acks_per_second;                          /* per connection, RFC 5961 */
};
struct tcp_policy tcp_policy_default(void);

struct stack_address {
    struct flow_address address; /* port unused */
    uint8_t prefix_bits;
};

struct stack_port_options {
    struct nic *nic; /* the stack's from stack_new() on: freed with it */
    uint16_t mtu;    /* of IP packets; 0: what the nic allows, at most 1500 */
    uint16_t vlan;   /* 802.1Q tag of every frame; 0: none */
    const struct stack_address *addresses;
    uint32_t address_count;
    struct flow_address gateway4, gateway6; /* family NONE: none */
};

/* What one stack learnt and every other should know. By value over a ring. */
enum stack_news_kind {
    STACK_NEWS_NEIGHBOUR, /* it answered from there */
    STACK_NEWS_CLAIM,     /* it says, unasked, that it is there */
    STACK_NEWS_PMTU,
};
struct stack_news {
    uint8_t kind, port;
    uint16_t mtu;
    uint8_t mac[6];
    struct flow_address address;
};

struct stack_options {
    struct buf_pool *pool; /* retained octets: what is appended, copied; also flow_plane.pool */
    struct buf_pool
        *header_pool; /* protocol headers of sent frames: data_size >= STACK_HEADER_SIZE */
    struct buf_pool *clone_pool; /* references of sent frames to payload (buf_clone()) */
    struct buf_pool
        *receive_pool;        /* where nics' buffers come from; may be NULL: no reserve is kept */
    uint32_t receive_reserve; /* buffers: with fewer available, received payload is copied out */
    const struct stack_port_options *ports;
    uint32_t port_count;
    uint32_t flow_count_max; /* listeners, connections and datagram flows */
    uint32_t time_wait_max, syn_cache_max, neighbour_max, destination_max;
    uint32_t connections_per_prefix_max; /* inbound, per IPv4 /32 and IPv6 /64; 0: no limit */
    tick_us orphan_time;
    tick_us now;
    uint64_t seed[2];          /* of everything random; from getrandom in earnest */
    uint16_t core, core_count; /* who we are among the stacks that share the ports */
    struct tcp_policy tcp;
    void *context;                                                 /* of: */
    void (*on_news)(void *context, const struct stack_news *news); /* may be NULL */
};

#define STACK_HEADER_SIZE 256u

struct stack;

/**
 * A stack over the given ports; the flow_plane is its face.
 *
 * Ownership:  nics are taken over (freed with the plane, by flow_plane_free()); pools stay the
 * caller's. Errors:     ERR_CONFIG_VALUE impossible options; nics then stay the caller's.
 */
enum err stack_new(const struct stack_options *options, struct stack **ret_stack) MUST_CHECK;
struct flow_plane *stack_plane(struct stack *stack);
struct stack *stack_of_plane(struct flow_plane *plane);
/** News from another stack of the same ports. */
void stack_on_news(struct stack *stack, const struct stack_news *news);

/* ---- seeing ---- */

enum stack_counter {
#define X(symbol, severity, text, meaning) STACK_##symbol,
#include "dataplane/wire/wire_counter.def"
#undef X
    STACK_COUNTER_COUNT
};
const char *stack_counter_name(enum stack_counter counter); /* "frames_received" */
const char *stack_counter_text(enum stack_counter counter);
/** "INFO": traffic; "NOTE": normal on the Internet; "WARN": worth a look. */
const char *stack_counter_severity(enum stack_counter counter);
/** What it means for the operator. */
const char *stack_counter_meaning(enum stack_counter counter);
uint64_t stack_counter(const struct stack *stack, enum stack_counter counter);

/** Cycles spent in stage number `index`, in builds with stages; false beyond the last, and always
 * in other builds. */
bool stack_stage_cycles(const struct stack *stack, uint32_t index, const char **ret_name,
                        const char **ret_text, uint64_t *ret_cycles);

/* One row of `angarium flows`. */
struct stack_flow_row {
    struct flow_address local, remote;
    const char *state; /* "ESTABLISHED" ... static */
    uint32_t receive_queued, send_queued, in_flight;
    uint32_t window_congestion, window_peer, mss, rtt_us, rto_us;
    uint64_t octets_received, octets_sent;
    uint32_t retransmitted, lost;
    tick_us age;
};
/** Rows from `*cursor` on (start with 0); returns how many, 0 at the end. TIME_WAIT records are not
 * flows. */
uint32_t stack_flows(const struct stack *stack, uint64_t *cursor, struct stack_flow_row *ret_rows,
                     uint32_t max);

/* What is in use now; all zero (but for memory) when everything is closed. What is merely
 * remembered of neighbours and destinations is not in use: counted are the neighbours that packets
 * wait for and the destinations of flows, and of the timers those of flows. O(flows). */
struct stack_usage {
    uint32_t connections, half_open, time_wait, orphans, neighbours, destinations, datagram_flows,
        out_of_order_buffers, sent_segments, armed_timers, frames_waiting;
    uint64_t memory; /* octets of tables and slabs */
};
struct stack_usage stack_get_usage(const struct stack *stack);
/** CHECKs the invariants of every structure; O(everything), for tests. */
void stack_verify(const struct stack *stack);

/* A look at every frame, for capture: called with the frame as it is on the wire; NULL ends it. */
typedef void stack_tap(void *context, uint32_t port, bool is_sent, const struct buf *frame,
                       tick_us now);
void stack_set_tap(struct stack *stack, stack_tap *tap, void *context);

#endif

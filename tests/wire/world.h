/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_WIRE_WORLD_H
#define TESTS_WIRE_WORLD_H

#include "dataplane/wire/port/link_sim.h"
#include "dataplane/wire/port/link_sim_frame.h"
#include "dataplane/wire/stack.h"
#include "tests/wire/segment.h"

/*
 * One stack under test, a peer that is played octet by octet, and virtual time. Frames cross at
 * once. What the stack sends is kept, with its time, until the test takes it.
 *
 * The stack is 192.0.2.1/24 and 2001:db8::1/64; the peer's card answers for every other address of
 * these networks (unless told not to), so a test may speak for any number of hosts.
 */
struct world_options {
    struct tcp_policy tcp;
    struct stack_options stack; /* limits and times; pools, ports and seed are the world's */
    struct link_sim_station_options nic;
    uint16_t mtu, vlan;
    struct flow_address gateway4, gateway6;
    struct stack_address addresses[8];
    uint32_t address_count;
    uint32_t buffer_size, buffer_count, receive_count, header_count, clone_count;
    bool is_neighbour_manual; /* nobody answers ARP and ND but the test */
    bool is_verified;         /* stack_verify() after every turn */
    uint64_t seed;
};

struct world_frame {
    struct world_frame *next;
    tick_us time;
    uint32_t size;
    uint8_t octets[];
};

struct world {
    struct world_options options;
    struct link_sim *link;
    struct buf_pool *pool, *header_pool, *clone_pool, *receive_pool, *peer_pool;
    struct stack *stack;
    struct flow_plane *plane;
    struct nic *peer;
    tick_us now;
    struct world_frame *first, *last;
    bool is_restless; /* the stack wanted turns without end at one time */
    void (*on_event)(void *context, const struct flow_event *event);
    void *context;
};

extern const uint8_t world_stack_mac[6], world_peer_mac[6];
extern const struct flow_address world_stack4, world_peer4, world_stack6, world_peer6;

struct world_options world_options_default(void);
struct world *world_new(const struct world_options *options);
/** Frees the stack with whatever it holds. CHECKs that nothing is leaked. */
void world_free(struct world *world);
/** Turns until the stack has nothing to do at this time. */
void world_settle(struct world *world);
/** Time passes until then (at once, if that is now). */
void world_run(struct world *world, tick_us until);
/** The same, but ends as soon as the stack has sent something. */
void world_run_until_sent(struct world *world, tick_us until);
/** A frame from the peer's card; the world settles. */
void world_send(struct world *world, const uint8_t *octets, uint32_t size);
/** The same frame twice, in one burst. */
void world_send_twice(struct world *world, const uint8_t *octets, uint32_t size);
/** The oldest frame that the stack sent and nobody took; the caller frees it. NULL: none. */
struct world_frame *world_take(struct world *world);

#endif

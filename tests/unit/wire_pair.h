/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_WIRE_PAIR_H
#define TESTS_UNIT_WIRE_PAIR_H

#include "dataplane/wire/port/link_sim.h"
#include "dataplane/wire/tcp/tcp.h"

/*
 * Two stacks joined by a simulated link, in virtual time, every buffer a heap block of its own.
 * The invariants of both are CHECKed in every turn. Side A (10.0.0.1, fd00::1) connects, side B
 * (10.0.0.2, fd00::2) listens on port 25. Every TCP segment on the link is remembered.
 */
enum pair_side { PAIR_A, PAIR_B };

#define PAIR_SEGMENTS_MAX 65536u
#define PAIR_USERS        16u
#define PAIR_USER         1u /* of the connection, on either side */
#define PAIR_LISTENER     2u

struct pair_options {
    uint8_t family;    /* 0: 4 */
    uint32_t offloads; /* of both nics; enum nic_offloads */
    uint16_t segments_max, mtu, split, pool_size;
    uint32_t refuse; /* per million and frame: the nic of A takes no more in this call */
    uint32_t pool_max, receive_reserve, flow_max, header_max;
    uint32_t receive_limit, send_limit; /* of the connection's flows */
    tick_us orphan_time;
    uint64_t seed;
    bool is_fresh; /* no time has passed: IPv6 addresses are tentative */
    struct link_sim_path paths[2];
    const struct tcp_policy *policy[2]; /* NULL: the default */
};

struct pair_segment {
    tick_us at;
    enum pair_side from;
    bool is_dropped;
    struct ip_header ip;
    struct tcp_header tcp;
    uint32_t size; /* of the payload */
};

struct pair {
    struct link_sim *link;
    struct stack *stacks[2];
    struct flow_plane *planes[2];
    struct buf_pool *pools[2], *header_pools[2], *clone_pools[2];
    tick_us now;
    uint32_t seen[2][PAIR_USERS];
    struct flow listener, flows[2]; /* the connection, by side */
    struct pair_options options;
    struct pair_segment *segments;
    uint32_t segment_count;
    /* False: this segment vanishes. May be NULL. */
    bool (*judge)(struct pair *pair, const struct pair_segment *segment);
    uint32_t judged; /* for its use */
};

struct pair *pair_new(const struct pair_options *options);
/** CHECKs that every buffer came back. */
void pair_free(struct pair *pair);
/** Both poll and flush; then time goes to what comes next, by at most a millisecond. */
void pair_turn(struct pair *pair);
/** Turns until `time` has passed. */
void pair_run(struct pair *pair, tick_us time);
/** Turns until all of `events` were seen of the user on this side, at most `time`. */
bool pair_wait(struct pair *pair, enum pair_side side, uint32_t user, uint32_t events,
               tick_us time);
void pair_listen(struct pair *pair);
/** flows[PAIR_A] and flows[PAIR_B] are the ends of a connection. */
void pair_connect(struct pair *pair);
struct tcb *pair_tcb(struct pair *pair, enum pair_side side);
/** Append octets of a pattern by position, so that any of them can be checked. */
void pair_send(struct pair *pair, enum pair_side side, uint32_t from, uint32_t size);
/** Consume what is readable and compare it with the pattern; returns how much that was. */
uint32_t pair_receive(struct pair *pair, enum pair_side side, uint32_t from);
static inline uint8_t pair_octet(uint32_t position)
{
    return (uint8_t)(position ^ position >> 8 ^ position >> 16);
}
/** The next segment from `side` at or after number *index that was sent and has all of `flags`;
 * NULL: none. *index is then behind it. */
const struct pair_segment *pair_find(const struct pair *pair, enum pair_side side, uint8_t flags,
                                     uint32_t *index);
uint64_t pair_count(const struct pair *pair, enum pair_side side, enum stack_counter counter);
struct flow_address pair_address(const struct pair *pair, enum pair_side side, uint16_t port);

#endif

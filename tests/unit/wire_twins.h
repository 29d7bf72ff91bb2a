/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_WIRE_TWINS_H
#define TESTS_UNIT_WIRE_TWINS_H

#include "dataplane/wire/tcp/tcp.h"

/*
 * Two servers, equal to the last random number, that get the same frames at the same time: the
 * first in bursts as they come, the second each by itself. What they report, receive and send is
 * written down. They listen on port 25 of 10.0.0.1 or fd00::1; the peer is 10.0.0.2 or fd00::2,
 * behind Ethernet where is_link says so, else without.
 */
#define TWINS_PORT    25u
#define TWINS_BUFFERS 4096u
#define TWINS_FLOWS   16u

struct twin {
    struct nic nic; /* first */
    bool is_one_by_one;
    struct buf *arriving[NIC_BURST];
    uint32_t arriving_count, arriving_taken;
    struct buf_pool *pool, *header_pool, *clone_pool;
    struct stack *stack;
    struct flow_plane *plane;
    struct flow listener;
    uint8_t *log; /* what it sent, after reports_size of what it reported and received */
    uint32_t log_size, reports_size;
};

struct twins {
    struct twin servers[2];
    uint8_t family;
    bool is_link, has_timestamps;
    uint16_t vlan;                           /* with is_link */
    uint32_t receive_limit, receive_reserve; /* the reserve: of TWINS_BUFFERS */
    uint32_t window_start;                   /* at most; grows to half of the limit */
};

struct twins_shape { /* of a frame; zero: a plain ACK */
    uint8_t flags;
    uint32_t sequence, acknowledgement, size;
    uint16_t window;
    uint32_t timestamp;
    bool is_marked; /* CE */
    bool is_damaged, has_ip_options, is_alert /* IPv4 */, is_fragment /* likewise */;
    bool has_other_options;           /* as long as timestamps, where these were agreed */
    bool is_from_us, is_datagram;     /* a source that cannot be; another protocol */
    bool is_to_all, is_of_other_vlan; /* with is_link */
};

/** All but the servers is set. */
void twins_start(struct twins *twins, tick_us now);
void twins_end(struct twins *twins);
/** A frame from `port` of the peer, for both. At most NIC_BURST before a turn. */
void twins_give(struct twins *twins, uint16_t port, const struct twins_shape *shape);
/** Both take what was given, then report and send. They must have done the same, and know the same
 * of their connections. */
void twins_turn(struct twins *twins, tick_us now);
/** The next of what they sent in this turn, from its IP header on; false: that was all. `at`: 0 at
 * first. Asked for its link address, the peer has answered. */
bool twins_next_frame(struct twins *twins, uint32_t *at, struct span *ret_frame);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SIM_NET_SIM_INTERNAL_H
#define TESTS_SIM_NET_SIM_INTERNAL_H

#include "base/wheel.h"
#include "dataplane/flow_core.h"
#include "tests/sim/net_sim.h"

/* Private to net_sim*.c. */

#define NET_SIM_PLANE_MAX      64u
#define NET_SIM_BLACK_HOLE_MAX 16u
#define NET_SIM_GONE_MAX       8u

struct sim_plane;
struct sim_flow;

enum sim_segment_kind { SIM_SEGMENT_DATA, SIM_SEGMENT_FIN, SIM_SEGMENT_RESET };

struct sim_segment {
    struct sim_segment *next;
    tick_us arrival;
    enum sim_segment_kind kind;
    uint32_t size, offset; /* offset: octets already read */
    uint8_t data[];
};

/* What is under way to one side of a stream, in order. */
struct sim_pipe {
    struct sim_segment *first, *last;
    uint64_t in_flight;
    tick_us arrival_last;
};

/* A connection. Lives until both sides let go. */
struct sim_stream {
    struct sim_stream *next;  /* in a listener's queue */
    struct sim_pipe pipes[2]; /* [i]: towards side i; side 0 connected, side 1 accepts */
    struct sim_flow *flows[2];
    struct flow_address addresses[2];
    struct sim_flow *listener; /* while it waits there */
    tick_us syn_at, answer_at;
    bool is_refused, is_mute;
    bool has_left[2]; /* the side existed and is gone */
};

struct sim_datagram {
    struct sim_datagram *next;
    tick_us arrival;
    struct flow_address from;
    bool is_unreachable; /* ICMP instead of octets */
    uint32_t size;
    uint8_t data[];
};

struct sim_flow {
    struct flow_slot slot;
    struct wheel_timer timer;
    struct sim_plane *plane;
    struct sim_stream *stream; /* streams */
    uint32_t side;
    struct flow_address local, remote; /* listeners and datagrams; remote NONE: not connected */
    bool is_shared;
    uint32_t backlog, waiting_count;
    struct sim_stream *waiting_first, *waiting_last; /* listeners: SYNs in order of arrival */
    struct sim_datagram *inbox;                      /* in order of arrival */
    struct sim_datagram *received;                   /* the one whose octets the owner looks at */
};

struct sim_event {
    tick_us time;
    uint64_t sequence;
    uint32_t index, incarnation;
};

struct sim_plane {
    struct flow_core core;
    struct net_sim *sim;
    bool is_silent; /* see net_sim_plane_silence() */
    tick_us orphan_time;
    struct flow_address address4, address6;
    struct wheel wheel;
    struct sim_event *heap; /* by (time, sequence) */
    uint32_t heap_count, heap_capacity;
    uint16_t port_next;
};

struct net_sim {
    struct tick_source clock;
    tick_us now;
    wall_us wall_offset;
    struct rng rng;
    uint64_t sequence, fingerprint;
    struct net_sim_faults faults;
    struct sim_plane *planes[NET_SIM_PLANE_MAX];
    uint32_t plane_count;
    struct net_wire *wire; /* NULL: octets are moved here */
    struct flow_prefix black_holes[NET_SIM_BLACK_HOLE_MAX];
    uint32_t black_hole_count;
    struct flow_address gone[NET_SIM_GONE_MAX]; /* family NONE: a free place */
};

static inline struct sim_plane *sim_plane_of(struct flow_plane *plane)
{
    return (struct sim_plane *)(void *)plane;
}
static inline struct sim_flow *sim_flow_of(struct flow_slot *slot)
{
    return (struct sim_flow *)(void *)slot;
}

/* net_sim.c */
tick_us net_sim_latency(struct net_sim *sim);
bool net_sim_chance(struct net_sim *sim, uint32_t per_million);
bool net_sim_is_gone(const struct net_sim *sim, const struct flow_address *address);
bool net_sim_is_black_hole(const struct net_sim *sim, const struct flow_address *address);
void net_sim_note(struct net_sim *sim, const void *octets, uint32_t size);
/** The next live flow of this kind on any plane, in order of planes and slots; `*cursor` starts at
 * 0. */
struct sim_flow *net_sim_flow_next(struct net_sim *sim, enum flow_slot_kind kind, uint64_t *cursor);
/** poll of the flow's plane looks at the flow at `time`. */
void sim_wake_at(struct sim_flow *flow, tick_us time);
/** Free the slot; its stream and queues have been let go. */
void sim_flow_free(struct sim_flow *flow);
uint16_t sim_port_draw(struct sim_plane *plane);
/** `wanted`, with the plane's own address where it names none. */
struct flow_address sim_address_choose(const struct sim_plane *plane,
                                       const struct flow_address *wanted, uint8_t family);
extern const struct flow_ops net_sim_ops;

/* net_sim_stream.c */
enum err sim_listen(struct flow_plane *plane, const struct flow_listen_options *options,
                    struct flow *ret_flow);
enum err sim_accept(struct flow_plane *plane, struct flow listener, uint64_t user,
                    struct flow *ret_flow, struct flow_address *ret_peer);
enum err sim_refuse(struct flow_plane *plane, struct flow listener);
enum err sim_connect(struct flow_plane *plane, const struct flow_connect_options *options,
                     struct flow *ret_flow);
enum err sim_addresses(struct flow_plane *plane, struct flow flow, struct flow_address *ret_local,
                       struct flow_address *ret_peer);
void sim_close(struct flow_plane *plane, struct flow flow);
void sim_abort(struct flow_plane *plane, struct flow flow);
void sim_listener_wake(struct sim_flow *flow);
void sim_stream_wake(struct sim_flow *flow);
void sim_stream_receive(struct sim_flow *flow);
void sim_stream_send(struct sim_flow *flow);
void sim_stream_abort(struct sim_flow *flow);
void sim_listener_close(struct sim_flow *flow);

/* net_sim_datagram.c */
enum err sim_bind_datagram(struct sim_plane *plane, const struct flow_address *local, uint64_t user,
                           struct flow *ret_flow);
enum err sim_open_datagram(struct flow_plane *plane, const struct flow_address *local,
                           const struct flow_address *remote, uint64_t user, struct flow *ret_flow);
enum err sim_send_datagram(struct flow_plane *plane, struct flow flow, struct span octets);
enum err sim_receive_datagram(struct flow_plane *plane, struct flow flow,
                              struct flow_address *ret_from, struct span *ret_octets);
void sim_datagram_wake(struct sim_flow *flow);
void sim_datagram_close(struct sim_flow *flow);

#endif

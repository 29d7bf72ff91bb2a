/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SIM_NET_SIM_H
#define TESTS_SIM_NET_SIM_H

#include "base/rng.h"
#include "dataplane/flow.h"

/*
 * A network in memory under a virtual clock, from one seed: any number of flow planes (the relay's
 * shards, and the parties around it) implement flow.h on it. The same seed and the same calls give
 * the same run, octet for octet.
 *
 * Time moves only by net_sim_advance(). A turn of the world: poll and flush every plane until all
 * are quiet, then advance to the earliest deadline of anybody. What is due is delivered by each
 * plane's flow_poll(), in order of its time.
 */
struct net_sim;

struct net_sim_faults { /* chances are per million */
    tick_us latency_min, latency_max;
    uint32_t segment_max; /* a stream is cut into pieces of 1 to this many octets */
    uint32_t window;      /* octets in flight per direction, unread ones included */
    uint32_t lose_stream; /* per segment: the connection is reset, octets in flight are lost */
    uint32_t mute_stream; /* per segment: from now on nothing passes any more, silently */
    uint32_t lose_datagram, double_datagram;
    uint32_t forge_datagram; /* per datagram: a copy from another source port comes as well */
};

struct net_sim_options {
    uint64_t seed;
    tick_us start;
    wall_us wall_start;
    struct net_sim_faults faults;
    bool has_wire; /* the planes are stacks of the engine (IPv4 only): packets are lost, not octets
                    */
};

/** Small latencies, random pieces, no losses. */
struct net_sim_faults net_sim_faults_none(void);

struct net_sim *net_sim_new(const struct net_sim_options *options);
/** After every plane was freed. */
void net_sim_free(struct net_sim *sim);
void net_sim_set_faults(struct net_sim *sim, const struct net_sim_faults *faults);
const struct tick_source *net_sim_clock(struct net_sim *sim);
tick_us net_sim_now(const struct net_sim *sim);
/** The clock is `to` from now on; CHECKs that it does not go back. */
void net_sim_advance(struct net_sim *sim, tick_us to);
/** The earliest time at which some plane has something to do; now, if one has already. */
tick_us net_sim_deadline(struct net_sim *sim);
/** The wall clock is set back; the other goes on. */
void net_sim_set_back(struct net_sim *sim, tick_us time);
/** Nobody answers there: SYNs and datagrams vanish; connections that exist go on. */
void net_sim_set_black_hole(struct net_sim *sim, const struct flow_prefix *prefix);
/** Nothing can leave from this address any more, or again. */
void net_sim_set_gone(struct net_sim *sim, const struct flow_address *address, bool is_gone);
/** A function of everything delivered so far: two runs are the same if it is. */
uint64_t net_sim_fingerprint(const struct net_sim *sim);

struct net_sim_plane_options {
    struct buf_pool *pool;
    uint32_t flow_count_max;
    tick_us orphan_time;
    struct flow_address address4, address6; /* of flows that choose no source; port unused */
    const struct flow_address *addresses;   /* further ones to listen on; with has_wire alone */
    uint32_t address_count;
    uint32_t core, core_count; /* planes of one host are made in order, core 0 first; 0, 0: alone */
};
/** Heap. Freed by flow_plane_free(), which resets its connections. */
struct flow_plane *net_sim_plane_new(struct net_sim *sim,
                                     const struct net_sim_plane_options *options);
/** As by a power loss: from now on nothing leaves the plane, not even a RST when it is freed. Peers
 * that send get a RST once it is. */
void net_sim_plane_silence(struct net_sim *sim, struct flow_plane *plane);

/** A datagram flow that is not connected: takes what comes from anywhere. */
enum err net_sim_open_datagram(struct net_sim *sim, struct flow_plane *plane,
                               const struct flow_address *local, uint64_t user,
                               struct flow *ret_flow) MUST_CHECK;
/** The next datagram of such a flow. Errors: ERR_AGAIN none, ERR_PEER_UNREACHABLE. */
enum err net_sim_receive_datagram(struct net_sim *sim, struct flow_plane *plane, struct flow flow,
                                  struct flow_address *ret_from,
                                  struct span *ret_octets) MUST_CHECK;
/** Send from any source address, so also a wrong one. */
void net_sim_send_datagram(struct net_sim *sim, struct flow_plane *plane,
                           const struct flow_address *from, const struct flow_address *to,
                           struct span octets);

#endif

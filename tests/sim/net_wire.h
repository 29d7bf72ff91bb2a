/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SIM_NET_WIRE_H
#define TESTS_SIM_NET_WIRE_H

#include "tests/sim/net_sim.h"

/*
 * The simulated network with the shipped engine in it: behind net_sim.h, every plane is a stack on
 * a simulated link, and packets, not octets, are lost. Private to net_sim*.c; see there and
 * net_wire.c.
 */
struct net_wire;

struct net_wire *net_wire_new(struct net_sim *sim, uint64_t seed);
void net_wire_free(struct net_wire *wire);
void net_wire_set_faults(struct net_wire *wire, const struct net_sim_faults *faults);
struct flow_plane *net_wire_plane_new(struct net_wire *wire,
                                      const struct net_sim_plane_options *options);
void net_wire_silence(struct net_wire *wire, struct flow_plane *plane);
/** The earliest deadline of a living plane. */
tick_us net_wire_deadline(struct net_wire *wire);
uint64_t net_wire_fingerprint(const struct net_wire *wire);

/** Datagrams to this address are the caller's from now on, whoever sent them. */
void net_wire_bind(struct net_wire *wire, struct flow_plane *plane,
                   const struct flow_address *local);
enum err net_wire_receive(struct net_wire *wire, struct flow_plane *plane,
                          struct flow_address *ret_from, struct span *ret_octets) MUST_CHECK;
void net_wire_send(struct net_wire *wire, struct flow_plane *plane, const struct flow_address *from,
                   const struct flow_address *to, struct span octets);

#endif

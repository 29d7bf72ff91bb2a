/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_PORT_LINK_SIM_INTERNAL_H
#define DATAPLANE_WIRE_PORT_LINK_SIM_INTERNAL_H

#include "dataplane/wire/port/link_sim.h"
#include "dataplane/wire/port/link_sim_frame.h"

/* Private to link_sim*.c. */

struct link_packet { /* on the wire, or waiting to be received */
    tick_us arrival;
    uint64_t sequence;
    bool is_ip4_partial, is_l4_partial; /* the sender left that checksum to a card */
    bool is_judged;                     /* passed on by another queue, with its verdicts: */
    uint64_t verdicts;
    uint32_t size;
    uint8_t octets[];
};

struct link_nic {
    struct nic nic; /* first */
    struct link_sim *link;
    uint32_t station, queue;
    struct buf_pool *pool;
    tick_us now;               /* of the last call */
    struct link_packet **heap; /* to be received, by (arrival, sequence) */
    uint32_t heap_count, heap_capacity;
};

struct link_station {
    struct link_sim_station_options options;
    struct link_nic *nics[LINK_SIM_QUEUE_MAX]; /* NULL once freed */
    uint32_t nic_count;                        /* not freed yet; 0: the place is free */
    bool is_connected, is_in_burst;
    tick_us busy_until;   /* the rate: when the last octet so far has left */
    tick_us arrival_last; /* without reordering nobody arrives before this */
};

struct link_sim {
    struct rng rng;
    uint64_t sequence, fingerprint;
    uint8_t hidden_key[NIC_RSS_KEY_SIZE]; /* of LINK_SIM_NO_RSS */
    struct link_station stations[LINK_SIM_STATION_MAX];
    struct link_sim_stats stats;
    link_sim_filter *filter;
    void *filter_context;
};

bool link_chance(struct link_sim *link, uint32_t per_million);

/* ---- link_sim_card.c: frames of buffers to packets of octets, and back ---- */

struct link_packet *link_packet_new(uint32_t size);
struct link_packet *link_packet_copy(const struct link_packet *packet);
/** CHECKs that the frame asks for nothing that was not granted, and asks correctly. */
void link_card_check(const struct nic *nic, const struct buf *frame);
/** All octets of a chain. */
struct link_packet *link_card_flatten(const struct buf *frame);
/** How many packets a frame becomes (TSO). */
uint32_t link_card_segment_count(const struct buf *frame);
/** Packet number `index` of the frame whose octets are `whole`. */
struct link_packet *link_card_segment(const struct buf *frame, const struct link_packet *whole,
                                      uint32_t index);
/** Do what the sender left to a card. */
void link_card_complete(struct link_packet *packet, bool is_l3);
/** A chain of the nic's pool with the packet's octets and verdicts; NULL when the pool is empty. */
struct buf *link_card_receive(struct link_nic *nic, const struct link_packet *packet);

#endif

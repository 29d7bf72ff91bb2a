/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_PORT_LINK_SIM_H
#define DATAPLANE_WIRE_PORT_LINK_SIM_H

#include "base/rng.h"
#include "dataplane/wire/nic.h"

/*
 * A network in memory between nics, in virtual time and from one seed: a switch with any number of
 * stations, each with one or more queues (one struct nic per queue), and a path for what each
 * station sends. The same seed and the same calls give the same run, octet for octet.
 *
 * Frames are copied when they are sent, and again into the receiving queue's pool when they are
 * received: stacks share no memory. What a frame asks of the nic (checksums, TSO) is done as a card
 * does it; asking for what was not granted, or asking wrongly, is a bug and CHECKed.
 *
 * Time is what nic_receive() and nic_send() are told; nic_deadline() says when the next frame
 * arrives. Everything here belongs to one thread.
 */
#define LINK_SIM_STATION_MAX 64u
#define LINK_SIM_QUEUE_MAX   8u

/* What the frames of one station meet, in this order. Chances are per million. */
struct link_sim_path {
    uint16_t mtu;       /* larger IP packets vanish; 0: none do */
    bool has_icmp;      /* ... and their sender is told */
    uint64_t rate;      /* octets per second; 0: no limit */
    uint32_t queue_max; /* octets that wait for the rate; what comes on top is dropped; 0: any */
    uint32_t mark_over; /* ECN-capable packets behind more octets than this are marked; 0: never */
    uint32_t lose;
    uint32_t burst_begin, burst_end, burst_lose; /* Gilbert-Elliott: to enter the bad state, to
                                                    leave it, to be lost in it; per frame */
    uint32_t corrupt;                            /* one bit flips */
    uint32_t duplicate;
    tick_us delay, jitter; /* one way; jitter alone lets nobody overtake */
    uint32_t reorder;      /* the frame is held back by up to reorder_delay; others overtake it */
    tick_us reorder_delay;
};

/* How arriving frames find their queue. */
enum link_sim_steering {
    LINK_SIM_RSS,    /* Toeplitz and RETA, as the nic says */
    LINK_SIM_NO_RSS, /* a hash that nobody can predict */
};

struct link_sim_station_options {
    uint8_t mac[6];
    uint16_t mtu_max;                           /* 0: 1500 */
    uint32_t offloads;                          /* enum nic_offloads */
    uint16_t segments_max;                      /* 0: 8 */
    uint32_t tso_size_max;                      /* 0: 65,000 */
    uint32_t queue_count;                       /* 0: 1 */
    struct buf_pool *pools[LINK_SIM_QUEUE_MAX]; /* of received frames, one per queue */
    enum link_sim_steering steering;
    uint32_t misplace;  /* per million: the frame comes on a wrong queue */
    uint32_t refuse;    /* per million and frame: nic_send() takes it no more in this call */
    uint16_t split;     /* received buffers hold at most so many octets, but whole headers; 0: as
                           many as the pool's */
    bool has_partial;   /* checksums that were asked for stay undone when every receiver says
                           NIC_RX_CHECKSUM, as between virtual machines */
    bool is_lying;      /* planted fault: says GOOD of every checksum */
    bool has_exception; /* there is an exception path (it counts and drops) */
    struct link_sim_path path;
};

struct link_sim_stats {
    uint64_t sent, received, lost, queue_dropped, marked, too_big, told_too_big, corrupted,
        duplicated, reordered, misplaced, passed, excepted, refused, pool_empty, unconnected;
};

struct link_sim;

struct link_sim *link_sim_new(uint64_t seed);
/** After every nic was freed. */
void link_sim_free(struct link_sim *link);
/**
 * One more station; `ret_nics` gets queue_count nics. They end with nic_free(), the station with
 * the last of them.
 *
 * Bounds:     LINK_SIM_STATION_MAX alive at a time. With NIC_IS_L3 for one, for all.
 * Ownership:  the nics are the caller's; pools stay the caller's and must outlive them.
 */
uint32_t link_sim_attach(struct link_sim *link, const struct link_sim_station_options *options,
                         struct nic **ret_nics);
void link_sim_set_path(struct link_sim *link, uint32_t station, const struct link_sim_path *path);
/** Unplugged: nothing comes to the station or from it, what is under way is lost. */
void link_sim_set_connected(struct link_sim *link, uint32_t station, bool is_connected);
/**
 * `filter` sees every packet on the wire, from the Ethernet header (L3: IP header) on, before the
 * path does anything with it; it may change it. False: the packet vanishes.
 */
typedef bool link_sim_filter(void *context, uint32_t station, tick_us now, uint8_t *octets,
                             uint32_t size);
void link_sim_set_filter(struct link_sim *link, link_sim_filter *filter, void *context);
struct link_sim_stats link_sim_get_stats(const struct link_sim *link);
/** Packets that have not been received yet. */
uint32_t link_sim_under_way(const struct link_sim *link);
/** A function of everything received so far: two runs are the same if it is. */
uint64_t link_sim_fingerprint(const struct link_sim *link);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_NET_NEIGHBOUR_H
#define DATAPLANE_WIRE_NET_NEIGHBOUR_H

#include "dataplane/wire/net/slab.h"
#include "dataplane/wire/net/stack_internal.h"

/*
 * Private to net/neighbour*.c. The states are in neighbour.c, the table in neighbour_table.c, the
 * packets that feed them in neighbour_packet.c, what is done at start in neighbour_announce.c.
 */

enum neigh_state {
    NEIGH_INCOMPLETE, /* asked for, packets wait */
    NEIGH_REACHABLE,  /* answered not long ago */
    NEIGH_STALE,      /* answered once; asked again only when it is used */
    NEIGH_DELAY,      /* used while stale: TCP may yet say that it is alive */
    NEIGH_PROBE,      /* asked by its own address */
    NEIGH_FAILED,     /* did not answer; not asked again for a moment */
    NEIGH_STATE_COUNT
};

#define NEIGH_QUEUE_MAX   128u /* packets that wait for one neighbour */
#define NEIGH_QUEUE_SURE  3u   /* of each, however many wait for others */
#define NEIGH_WAITING_MAX 512u /* for all neighbours, but for that */
#define NEIGH_SOLICIT_MAX 3u   /* RFC 4861 10 */

struct neigh {
    uint32_t chain_next;           /* first: slab.h. Index of the next in the bucket */
    uint32_t list_next, list_prev; /* of the list that its state belongs to, oldest use first */
    uint32_t bucket;
    struct wheel_timer timer;
    tick_us reachable_until; /* REACHABLE */
    tick_us learnt_at;       /* from when on an answer says that mac is right */
    tick_us doubted_at;      /* last neigh_doubt() that asked; 0: never */
    struct stack_port *port;
    uint8_t ip[16];
    uint8_t family, state; /* enum neigh_state */
    uint8_t tries;         /* solicitations sent in this state */
    uint8_t queue_count;
    uint8_t mac[6];
    uint8_t claimed_mac[6];   /* somebody said that it is there now; the old place is asked first */
    bool is_claimed, is_used; /* used: since PROBE began */
    struct buf *queue[NEIGH_QUEUE_MAX]; /* INCOMPLETE: packets from the IP header on */
};

/* The answer to a router's query that waits on a port. */
struct membership {
    struct wheel_timer timer;
    bool is_version1;
};

struct neigh_list {
    uint32_t first, last, count;
};

struct neigh_table {
    struct wire_slab slab;
    uint32_t *buckets;
    uint32_t bucket_mask;
    struct neigh_list resolved, unresolved; /* unresolved: INCOMPLETE and FAILED */
    uint32_t timers_armed;
    uint32_t waiting;                              /* packets in queues */
    struct membership memberships[STACK_PORT_MAX]; /* by port */
    struct wheel_timer announce_timer;
    uint32_t announce_step;
};

/* ---- neighbour_table.c ---- */

struct neigh *neigh_find(struct stack *stack, const struct stack_port *port, uint8_t family,
                         const uint8_t ip[16]);

/** INCOMPLETE, without a timer; NULL: all are in use. */
struct neigh *neigh_new(struct stack *stack, struct stack_port *port, uint8_t family,
                        const uint8_t ip[16]);
/** Drops what waits. */
void neigh_forget(struct stack *stack, struct neigh *neigh);
/** The entry's state, and the list it is on. Only neigh_enter() says this. */
void neigh_relist(struct stack *stack, struct neigh *neigh, enum neigh_state next);
void neigh_timer_set(struct stack *stack, struct neigh *neigh, tick_us deadline);

/* ---- neighbour.c ---- */

/* What a packet said about a neighbour that we know. */
enum neigh_word {
    NEIGH_ANSWER, /* to a question to us alone: counts as one only if we asked */
    NEIGH_CLAIM,  /* unasked: a broadcast, or a question of its own */
};
/** `mac` is said to be where `neigh` is. Spec: RFC 4861 7.2.5, RFC 826. */
void neigh_hear(struct stack *stack, struct neigh *neigh, const uint8_t mac[6],
                enum neigh_word word, bool is_override);

/* ---- neighbour_packet.c, neighbour_announce.c ---- */

/** The solicited-node group of an address (RFC 4291 2.7.1). */
void neigh_group_of(const uint8_t ip[16], uint8_t ret_group[16]);
/** The Ethernet address of an IPv6 group (RFC 2464 7). */
void neigh_group_mac(const uint8_t group[16], uint8_t ret_mac[6]);

/** Ask for `neigh`: everybody, or the address that it had. */
void neigh_solicit(struct stack *stack, const struct neigh *neigh, bool is_unicast);
/** Say that we are at our address: to all. */
void neigh_advertise(struct stack *stack, struct stack_local *local);
/** RFC 4862 5.4.2: ask whether somebody has our tentative address. */
void neigh_solicit_duplicate(struct stack *stack, const struct stack_local *local);
/** Somebody else uses an address of ours. */
void neigh_on_conflict(struct stack *stack, struct stack_local *local);
/** Another core heard so. */
void neigh_on_conflict_news(struct stack_local *local);

/* ---- membership.c ---- */

/** Say that we are in our groups. */
void membership_join(struct stack *stack);

#endif

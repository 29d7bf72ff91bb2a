/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_RING_H
#define QUEUE_RING_H

#include <stdalign.h>

#include "base/err.h"

/*
 * Messages between shards, over rte_ring (one single-producer single-consumer ring per ordered pair
 * of shards).
 *
 * A send never blocks and never fails. *Requests* (and notices that nobody answers) may fill half
 * of a ring, *replies* all of it: a reply never waits behind requests for room. What finds no room
 * waits in the sender's own list, bounded by RING_BACKLOG_MAX (CHECK: the users' own limits keep it
 * far below), and moves on with the sender's next send or receive. Order is kept among the requests
 * and among the replies of a pair; a reply may overtake requests that wait. Full rings and backlog
 * are counted.
 *
 * A shard that is about to sleep: ring_sleep_begin() sets its flag, full fence, looks again; a
 * sender that sees the flag after its fence writes the eventfd. Each fence names its partner in
 * ring.c.
 *
 * Control and helper threads have rings of their own, one producer each: they are just further
 * members of the group.
 */
#define RING_MESSAGE_PAYLOAD 112u
#define RING_BACKLOG_MAX     65536u /* messages, over all receivers */
#define RING_MEMBERS_MAX     255u
#define RING_SIZE_MIN        4u

struct ring_message {
    uint16_t kind; /* the users' enum (control/shard.h lists them all) */
    uint8_t from;  /* filled in by ring_send() */
    bool is_reply; /* may use the reserved half of the ring */
    uint32_t payload_size;
    alignas(8) uint8_t payload[RING_MESSAGE_PAYLOAD]; /* copied by value */
};

struct ring_group;  /* all members and their rings */
struct ring_member; /* one shard's (or thread's) end; owner only */

struct ring_stats {
    uint64_t sent, received, full, backlog_max, wakeups; /* full: sends that had to wait */
};

/** Heap; start-up. Rings of ring_size slots (power of two, one stays empty) between all pairs of
 * `member_count` members. */
struct ring_group *ring_group_new(uint32_t member_count, uint32_t ring_size);
/** After every member's thread has ended. Messages still inside are forgotten. */
void ring_group_free(struct ring_group *group);
struct ring_member *ring_member_get(struct ring_group *group, uint32_t index);

/** Send to member `to` (never to oneself: plain calls do that). Owner only; copies the message. */
void ring_send(struct ring_member *member, uint32_t to, const struct ring_message *message);
/** Next message, round-robin over senders. ERR_AGAIN when there is none. Also moves this member's
 * backlog on. */
enum err ring_receive(struct ring_member *member, struct ring_message *ret_message) MUST_CHECK;

/** The eventfd to add to the sleeper's epoll set: readable when somebody sent to a sleeper. */
int ring_member_eventfd(const struct ring_member *member);
/** Announce sleep. False if there is work (messages in, or backlog to move on): do not sleep, and
 * sleep is not announced. */
bool ring_sleep_begin(struct ring_member *member);
/** Awake again: clears flag and eventfd. */
void ring_sleep_end(struct ring_member *member);
struct ring_stats ring_member_stats(const struct ring_member *member);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SIM_NODE_H
#define TESTS_SIM_NODE_H

#include "control/config.h"
#include "control/shard.h"
#include "tests/sim/disk_sim.h"
#include "tests/sim/net_sim.h"

/*
 * One life of the relay in the simulated world: the shipped shards on simulated planes and disks,
 * started, recovered, run turn by turn on one thread, and ended by a power loss or a kill. What
 * outlives it (network, disk, clock, configuration) is the caller's.
 */
#define NODE_SHARD_MAX 8u

struct node_options {
    struct net_sim *net;
    struct disk_sim *disk;
    const struct config *config; /* cores: how many shards */
    uint64_t seed;               /* of this life */
    struct record_sink records;
    const struct record_sink *shard_records; /* instead, one for each shard; NULL: `records` */
    struct flow_address address4, address6;
    uint32_t body_octets;   /* as struct shard_options has it */
    tick_us recovery_delay; /* the scan of the spool ends so long after the start */
    uint64_t *seen;         /* a viewer looks on at all conversations: its lines; NULL: nobody */
};

struct node;

/** Shards made, listeners open. Errors: what stopped the start; nothing is left behind. */
enum err node_start(const struct node_options *options, struct node **ret_node) MUST_CHECK;
uint32_t node_shard_count(const struct node *node);
/** One turn of one shard. */
void node_turn(struct node *node, uint32_t shard);
/** Between turns: what control does. Call at least once per round over the shards. Errors: the
 * recovery failed. */
enum err node_control(struct node *node) MUST_CHECK;
/** The earliest time at which a shard or control wants a turn; now, if one has work. */
tick_us node_deadline(const struct node *node);
/** Every shard adopted its share of what an earlier life left. */
bool node_is_recovered(const struct node *node);
/** An operator's question to one shard, answered between turns. */
void node_query(struct node *node, uint32_t shard, struct shard_query *query);
struct shard_status node_status(const struct node *node, uint32_t shard);

/** An operator stops the relay: the shards end what is under way and take nothing new. */
void node_drain(struct node *node);

enum node_end {
    NODE_POWER_LOSS, /* unsynced writes may be lost; peers hear nothing */
    NODE_KILL,       /* the kernel lives: completed writes stay, connections are reset */
};
/** End this life and free the node. */
void node_end(struct node *node, enum node_end end, struct rng *rng);

#endif

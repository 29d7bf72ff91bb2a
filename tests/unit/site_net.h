/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_SITE_NET_H
#define TESTS_UNIT_SITE_NET_H

#include "queue/site.h"

/*
 * Several shards' sites in one thread: their messages arrive in order, and as late as a seed says.
 */
#define SHARDS_MAX  8u
#define FLIGHT_MAX  4096u
#define LEASE_TIME  TICK_S(10)
#define BACKOFF_MIN TICK_S(30)
#define BACKOFF_MAX TICK_S(600)

struct flight { /* a message under way */
    tick_us arrives;
    uint32_t to;
    struct site_message message;
};

struct shard {
    struct net *net;
    struct site_set *sites;
    uint32_t number;
    uint32_t wakes;
    struct site *woken; /* the last one */
};

struct net {
    struct rng rng;
    tick_us now;
    tick_us delay_max; /* of a message; 0: until the test pumps */
    uint32_t shard_count;
    struct shard shards[SHARDS_MAX];
    struct flight flights[FLIGHT_MAX];
    uint32_t flight_count;
    uint64_t sent;
    tick_us last_arrival[SHARDS_MAX][SHARDS_MAX];
    void (*on_wake)(struct shard *shard, struct site *site);
};

void net_init(struct net *net, uint32_t shard_count, uint32_t connection_max,
              uint32_t site_count_max, uint64_t seed);
/** As net_init(), and sites that nothing is known of get so many connections. */
void net_init_learning(struct net *net, uint32_t shard_count, uint32_t connection_max,
                       uint32_t connection_start);
/** As net_init(), and told of orders. */
void net_init_telling(struct net *net, uint32_t shard_count,
                      void (*on_order)(void *context, struct span label,
                                       const struct site_order *order, bool is_home));
void net_fini(struct net *net);
/** All invariants on all shards. */
void net_verify(struct net *net);
/** Deliver what has arrived, in order. */
void net_deliver(struct net *net);
/** Until nothing is under way and nobody is to be woken. */
void net_settle(struct net *net);
/** Time passes, then net_settle(). */
void net_pass(struct net *net, tick_us time);
/** Site `number` whose home is `home`, held by shard `shard`; NULL when all are busy. */
struct site *net_site(struct net *net, uint32_t shard, uint32_t home, uint64_t number);
enum err net_acquire(struct net *net, uint32_t shard, struct site *site, int64_t rank);
void net_return(struct net *net, uint32_t shard, struct site *site);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of sites share: shards, the messages between them, and virtual time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "site_net.h"

static void net_send(void *context, uint32_t to_shard, const struct site_message *message)
{
    struct shard *shard = context;
    struct net *net = shard->net;
    tick_us *last = &net->last_arrival[shard->number][to_shard];
    tick_us arrives =
        net->now + (net->delay_max == 0 ? 0 : rng_below(&net->rng, (uint32_t)net->delay_max));

    CHECK(to_shard != shard->number && to_shard < net->shard_count);
    CHECK(net->flight_count < FLIGHT_MAX);
    *last = arrives > *last ? arrives : *last; /* a ring keeps the order */
    net->flights[net->flight_count++] = (struct flight){*last, to_shard, *message};
    net->sent++;
}

static void net_wake(void *context, struct site *site)
{
    struct shard *shard = context;

    shard->wakes++;
    shard->woken = site;
    if (shard->net->on_wake != NULL)
        shard->net->on_wake(shard, site);
}

static void net_make(struct net *net, uint32_t shard_count, uint32_t connection_max,
                     uint32_t connection_start, uint32_t site_count_max,
                     void (*on_order)(void *, struct span, const struct site_order *, bool))
{
    *net = (struct net){.now = TICK_S(100), .shard_count = shard_count};
    rng_init_seed(&net->rng, 1);
    for (uint32_t i = 0; i < shard_count; i++) {
        net->shards[i] = (struct shard){.net = net, .number = i};
        struct site_options options = {
            .shard = i,
            .shard_count = shard_count,
            .site_count_max = site_count_max,
            .connection_max = connection_max,
            .connection_start = connection_start,
            .lease_time = LEASE_TIME,
            .host_dead_time = TICK_S(60),
            .backoff_min = BACKOFF_MIN,
            .backoff_max = BACKOFF_MAX,
            .context = &net->shards[i],
            .send = net_send,
            .wake = net_wake,
            .on_order = on_order,
        };
        net->shards[i].sites = site_set_new(&options, &net->rng);
    }
}

void net_init(struct net *net, uint32_t shard_count, uint32_t connection_max,
              uint32_t site_count_max, uint64_t seed)
{
    net_make(net, shard_count, connection_max, UINT32_MAX, site_count_max, NULL); /* all at once */
    rng_init_seed(&net->rng, seed);
}

void net_init_learning(struct net *net, uint32_t shard_count, uint32_t connection_max,
                       uint32_t connection_start)
{
    net_make(net, shard_count, connection_max, connection_start, 10, NULL);
}

void net_init_telling(struct net *net, uint32_t shard_count,
                      void (*on_order)(void *, struct span, const struct site_order *, bool))
{
    net_make(net, shard_count, 8, UINT32_MAX, 10, on_order);
}

void net_fini(struct net *net)
{
    for (uint32_t i = 0; i < net->shard_count; i++)
        site_set_free(net->shards[i].sites);
}

void net_verify(struct net *net)
{
    for (uint32_t i = 0; i < net->shard_count; i++)
        site_set_verify(net->shards[i].sites);
}

void net_deliver(struct net *net)
{
    uint32_t delivered = 0;

    for (uint32_t i = 0; i < net->flight_count;) {
        assert_true(delivered++ < 100 * FLIGHT_MAX); /* nobody answers for ever */
        if (net->flights[i].arrives > net->now) {
            i++;
            continue;
        }
        struct flight flight = net->flights[i];
        memmove(&net->flights[i], &net->flights[i + 1],
                (--net->flight_count - i) * sizeof(net->flights[0]));
        site_receive(net->shards[flight.to].sites, &flight.message, net->now);
        site_set_verify(net->shards[flight.to].sites);
    }
}

void net_settle(struct net *net)
{
    for (uint32_t round = 0; round < 100; round++) {
        net_deliver(net);
        for (uint32_t i = 0; i < net->shard_count; i++)
            site_advance(net->shards[i].sites, net->now);
    }
    assert_int_equal(0, net->flight_count);
    net_verify(net);
}

void net_pass(struct net *net, tick_us time)
{
    net->now += time;
    net_settle(net);
}

struct site *net_site(struct net *net, uint32_t shard, uint32_t home, uint64_t number)
{
    uint64_t key = number * net->shard_count + home;
    struct site *site =
        site_get(net->shards[shard].sites, key, SPAN_LITERAL("site.example"), net->now);
    if (site != NULL)
        site_hold(site);
    return site;
}

enum err net_acquire(struct net *net, uint32_t shard, struct site *site, int64_t rank)
{
    enum err err = site_slot_acquire(net->shards[shard].sites, site, rank, 1, net->now);
    net_verify(net);
    return err;
}

void net_return(struct net *net, uint32_t shard, struct site *site)
{
    site_slot_return(net->shards[shard].sites, site, net->now);
    net_verify(net);
}

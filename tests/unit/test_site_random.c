/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sites under seeded traffic: shards of different speed, messages late by anything up to 400 ms.
 * The limit is exact at every instant, all mail is served, no wake is lost, every slot comes back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "site_net.h"

#define SITES_MAX 6u
#define MAIL_MAX  64u

struct demand { /* of one shard for one site */
    struct site *site;
    int64_t mail[MAIL_MAX]; /* ranks waiting, oldest first */
    uint32_t count;
    tick_us ends[MAIL_MAX]; /* connections in use */
    uint32_t used;
};

struct traffic {
    struct net net;
    uint32_t site_count, limits[SITES_MAX];
    struct demand demands[SHARDS_MAX][SITES_MAX];
    uint64_t served, arrived;
    tick_us wait_max;
    bool is_failing;
};

static struct traffic *traffic;

static uint32_t used_everywhere(uint32_t s)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < traffic->net.shard_count; i++)
        used += traffic->demands[i][s].used;
    return used;
}

/* What a transfer does: connections as long as there is mail and there are slots. */
static void serve(uint32_t shard, uint32_t s)
{
    struct demand *demand = &traffic->demands[shard][s];
    struct net *net = &traffic->net;

    while (demand->count > 0) {
        enum err err = site_slot_acquire(net->shards[shard].sites, demand->site, demand->mail[0],
                                         demand->count, net->now);
        if (err != ERR_OK) {
            assert_int_equal(site_paused_until(demand->site) > net->now ? ERR_TIMEOUT : ERR_AGAIN,
                             err);
            return;
        }
        tick_us wait = net->now - (tick_us)demand->mail[0];
        traffic->wait_max = wait > traffic->wait_max ? wait : traffic->wait_max;
        memmove(demand->mail, demand->mail + 1, --demand->count * sizeof(demand->mail[0]));
        demand->ends[demand->used++] = net->now + TICK_MS(1) + rng_below(&net->rng, 40000);
        traffic->served++;
        assert_true(used_everywhere(s) <= traffic->limits[s]); /* exact, at every instant */
    }
}

static void traffic_on_wake(struct shard *shard, struct site *site)
{
    for (uint32_t s = 0; s < traffic->site_count; s++) {
        if (traffic->demands[shard->number][s].site == site)
            serve(shard->number, s);
    }
}

static void end_connections(uint32_t shard, uint32_t s)
{
    struct demand *demand = &traffic->demands[shard][s];
    struct net *net = &traffic->net;

    for (uint32_t i = 0; i < demand->used;) {
        if (demand->ends[i] > net->now) {
            i++;
            continue;
        }
        demand->ends[i] = demand->ends[--demand->used];
        bool is_ok = !traffic->is_failing || rng_below(&net->rng, 50) != 0;
        site_outcome(net->shards[shard].sites, demand->site,
                     is_ok ? SITE_OUTCOME_OK : SITE_OUTCOME_UNREACHABLE, net->now, net->now);
        site_slot_return(net->shards[shard].sites, demand->site, net->now);
        serve(shard, s);
    }
}

static void mail_arrives(void)
{
    struct net *net = &traffic->net;
    uint32_t shard = rng_below(&net->rng, net->shard_count);
    uint32_t s = rng_below(&net->rng, traffic->site_count);
    struct demand *demand = &traffic->demands[shard][s];

    for (uint32_t i = rng_below(&net->rng, 4); i > 0 && demand->count < MAIL_MAX; i--) {
        demand->mail[demand->count++] = (int64_t)net->now;
        traffic->arrived++;
    }
    serve(shard, s);
}

static void traffic_turn(void)
{
    struct net *net = &traffic->net;

    net->now += rng_below(&net->rng, 3000);
    net_deliver(net);
    for (uint32_t i = 0; i < net->shard_count; i++) {
        if (rng_below(&net->rng, 4) == 0)
            continue; /* a slow shard: its turn comes later */
        for (uint32_t s = 0; s < traffic->site_count; s++)
            end_connections(i, s);
        site_advance(net->shards[i].sites, net->now);
        site_set_verify(net->shards[i].sites);
    }
}

static uint64_t traffic_waiting(void)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < traffic->net.shard_count; i++) {
        for (uint32_t s = 0; s < traffic->site_count; s++)
            count += traffic->demands[i][s].count + traffic->demands[i][s].used;
    }
    return count;
}

static void traffic_init(uint32_t shards, tick_us delay_max, bool is_failing, uint64_t seed)
{
    static const uint32_t limits[SITES_MAX] = {1, 2, 3, 5, 20, 1};
    struct net *net = &traffic->net;

    net_init(net, shards, 5, 100, seed);
    net->delay_max = delay_max;
    net->on_wake = traffic_on_wake;
    traffic->site_count = SITES_MAX;
    traffic->is_failing = is_failing;
    for (uint32_t s = 0; s < SITES_MAX; s++) {
        traffic->limits[s] = limits[s];
        for (uint32_t i = 0; i < shards; i++) {
            struct demand *demand = &traffic->demands[i][s];
            demand->site = net_site(net, i, s % shards, s);
            site_limit_set(net->shards[i].sites, demand->site, limits[s], net->now);
        }
    }
}

static void traffic_run(uint32_t shards, tick_us delay_max, bool is_failing, uint64_t seed)
{
    traffic = calloc(1, sizeof(*traffic));
    struct net *net = &traffic->net;
    traffic_init(shards, delay_max, is_failing, seed);
    for (uint32_t turn = 0; turn < 4000; turn++) {
        if (turn % 3 == 0)
            mail_arrives();
        traffic_turn();
    }
    assert_true(traffic->served > (is_failing ? 30 : 300)); /* a pause may take most of it */

    /* No mail comes any more: all that waits is served, no wake is lost. */
    traffic->is_failing = false;
    uint32_t turns = 0;
    while (traffic_waiting() > 0) {
        traffic_turn();
        net->now += is_failing ? TICK_MS(100) : 0;
        if (++turns > 40000)
            fail_msg("seed %lu: %lu letters are stuck", (unsigned long)seed,
                     (unsigned long)traffic_waiting());
    }
    assert_int_equal(traffic->arrived, traffic->served);
    if (!is_failing)
        assert_true(traffic->wait_max < TICK_S(60));

    /* Nothing leaks: after the leases the homes have every slot back. */
    net->delay_max = 0;
    net_pass(net, 2 * LEASE_TIME + TICK_MS(100));
    net_pass(net, 2 * LEASE_TIME + TICK_MS(100));
    for (uint32_t i = 0; i < shards; i++) {
        for (uint32_t s = 0; s < SITES_MAX; s++)
            assert_int_equal(0, site_get_view(traffic->demands[i][s].site).slots_held);
        assert_true(site_set_deadline(net->shards[i].sites) > net->now);
    }
    net_fini(net);
    free(traffic);
}

static void limit_is_exact_under_any_delay(void **state)
{
    static const tick_us delays[] = {1, TICK_MS(1), TICK_MS(30), TICK_MS(400)};

    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        uint32_t shards = (uint32_t)(1 + seed % SHARDS_MAX);
        traffic_run(shards, delays[seed % COUNT_OF(delays)], seed % 3 == 0, seed);
    }
}

/* Goal: with one slot among four shards, mail is served about in the order in which it came. */
static void scarce_slot_goes_to_the_oldest_mail(void **state)
{
    (void)state;
    traffic = calloc(1, sizeof(*traffic));
    struct net *net = &traffic->net;
    net_init(net, 4, 1, 100, 5);
    net->delay_max = TICK_MS(1);
    net->on_wake = traffic_on_wake;
    traffic->site_count = 1;
    traffic->limits[0] = 1;
    for (uint32_t i = 0; i < 4; i++)
        traffic->demands[i][0].site = net_site(net, i, 2, 1);
    tick_us start = net->now;
    for (uint32_t n = 0; n < 200; n++) { /* 50 letters each, a millisecond apart */
        struct demand *demand = &traffic->demands[n % 4][0];
        demand->mail[demand->count++] = (int64_t)(start - TICK_S(1) + TICK_MS(n));
        traffic->arrived++;
    }
    for (uint32_t i = 0; i < 4; i++)
        serve(i, 0);
    uint32_t spread_max = 0;
    while (traffic_waiting() > 0) {
        traffic_turn();
        uint32_t least = MAIL_MAX, most = 0;
        for (uint32_t i = 0; i < 4; i++) {
            uint32_t count = traffic->demands[i][0].count;
            least = count < least ? count : least;
            most = count > most ? count : most;
        }
        spread_max = most - least > spread_max ? most - least : spread_max;
        assert_true(net->now < start + TICK_S(600));
    }
    assert_in_range(spread_max, 1, 3);
    net_fini(net);
    free(traffic);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limit_is_exact_under_any_delay),
        cmocka_unit_test(scarce_slot_goes_to_the_oldest_mail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

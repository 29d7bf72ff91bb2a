/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sites: connection slots among shards, the pause, the memory of dead hosts. Shards are played in
 * one thread; their messages arrive in order and as late as a seed says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "queue/site.h"

#define SHARDS_MAX  8u
#define SITES_MAX   6u
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

static void net_init(struct net *net, uint32_t shard_count, uint32_t connection_max,
                     uint32_t site_count_max, uint64_t seed)
{
    *net = (struct net){.now = TICK_S(100), .shard_count = shard_count};
    rng_init_seed(&net->rng, seed);
    for (uint32_t i = 0; i < shard_count; i++) {
        net->shards[i] = (struct shard){.net = net, .number = i};
        struct site_options options = {
            .shard = i,
            .shard_count = shard_count,
            .site_count_max = site_count_max,
            .connection_max = connection_max,
            .lease_time = LEASE_TIME,
            .host_dead_time = TICK_S(60),
            .backoff_min = BACKOFF_MIN,
            .backoff_max = BACKOFF_MAX,
            .context = &net->shards[i],
            .send = net_send,
            .wake = net_wake,
        };
        net->shards[i].sites = site_set_new(&options, &net->rng);
    }
}

static void net_fini(struct net *net)
{
    for (uint32_t i = 0; i < net->shard_count; i++)
        site_set_free(net->shards[i].sites);
}

static void net_verify(struct net *net)
{
    for (uint32_t i = 0; i < net->shard_count; i++)
        site_set_verify(net->shards[i].sites);
}

/* Deliver what has arrived, in order. */
static void net_deliver(struct net *net)
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

/* Until nothing is under way and nobody is to be woken. */
static void net_settle(struct net *net)
{
    for (uint32_t round = 0; round < 100; round++) {
        net_deliver(net);
        for (uint32_t i = 0; i < net->shard_count; i++)
            site_advance(net->shards[i].sites, net->now);
    }
    assert_int_equal(0, net->flight_count);
    net_verify(net);
}

static void net_pass(struct net *net, tick_us time)
{
    net->now += time;
    net_settle(net);
}

/* A site whose home is `home`, held by shard `shard`. */
static struct site *net_site(struct net *net, uint32_t shard, uint32_t home, uint64_t number)
{
    uint64_t key = number * net->shard_count + home;
    struct site *site =
        site_get(net->shards[shard].sites, key, SPAN_LITERAL("site.example"), net->now);
    if (site != NULL)
        site_hold(site);
    return site;
}

static enum err net_acquire(struct net *net, uint32_t shard, struct site *site, int64_t rank)
{
    enum err err = site_slot_acquire(net->shards[shard].sites, site, rank, 1, net->now);
    net_verify(net);
    return err;
}

static void net_return(struct net *net, uint32_t shard, struct site *site)
{
    site_slot_return(net->shards[shard].sites, site, net->now);
    net_verify(net);
}

/* ---- one shard ---- */

static void limit_holds_on_one_shard(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 1, 3, 10, 1);
    struct site *site = net_site(&net, 0, 0, 1);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(ERR_OK, net_acquire(&net, 0, site, 5));
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 0, site, 5));
    assert_int_equal(3, site_get_view(site).slots_used);
    net_settle(&net);
    assert_int_equal(0, net.shards[0].wakes);
    net_return(&net, 0, site);
    assert_int_equal(0, net.shards[0].wakes); /* never inside a call of ours */
    assert_true(site_set_deadline(net.shards[0].sites) <= net.now);
    net_settle(&net);
    assert_int_equal(1, net.shards[0].wakes);
    assert_ptr_equal(site, net.shards[0].woken);
    assert_int_equal(ERR_OK, net_acquire(&net, 0, site, 5));
    net_return(&net, 0, site);
    net_settle(&net);
    assert_int_equal(1, net.shards[0].wakes); /* nobody waited */
    assert_int_equal(0, net.sent);
    assert_false(site_is_scarce(site));
    assert_int_equal(0, site_holder(site));
    net_fini(&net);
}

static void idle_slots_go_back_when_the_lease_ends(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 1, 3, 10, 1);
    struct site *site = net_site(&net, 0, 0, 1);
    assert_int_equal(ERR_OK, net_acquire(&net, 0, site, 5));
    assert_int_equal(ERR_OK, net_acquire(&net, 0, site, 5));
    net_return(&net, 0, site);
    assert_int_equal(2, site_get_view(site).slots_held);
    net_pass(&net, LEASE_TIME - TICK_MS(1));
    assert_int_equal(2, site_get_view(site).slots_held);
    net_pass(&net, TICK_MS(2));
    assert_int_equal(1, site_get_view(site).slots_held); /* the used one stays */
    net_pass(&net, 10 * LEASE_TIME);
    assert_int_equal(1, site_get_view(site).slots_held);
    net_return(&net, 0, site);
    net_pass(&net, LEASE_TIME + TICK_MS(2));
    assert_int_equal(0, site_get_view(site).slots_held);
    assert_int_equal(TICK_NEVER, site_set_deadline(net.shards[0].sites));
    net_fini(&net);
}

static void limit_can_be_changed(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 2, 2, 10, 1);
    struct site *site = net_site(&net, 1, 0, 1), *other = net_site(&net, 0, 0, 1);
    site_limit_set(net.shards[1].sites, site, 3, net.now);
    for (uint32_t i = 0; i < 3; i++) {
        (void)net_acquire(&net, 1, site, 5);
        net_settle(&net);
        assert_int_equal(ERR_OK, net_acquire(&net, 1, site, 5));
    }
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 1, site, 5));
    net_settle(&net);
    site_limit_set(net.shards[1].sites, site, 1, net.now);
    net_settle(&net);
    assert_int_equal(1, site_get_view(site).connection_max);
    net_return(&net, 1, site); /* 2 left */
    net_settle(&net);
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 1, site, 5));
    net_return(&net, 1, site); /* 1 left */
    net_settle(&net);
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 1, site, 5));
    assert_int_equal(1, site_get_view(site).slots_used);
    net_return(&net, 1, site);
    net_settle(&net);
    assert_int_equal(ERR_OK, net_acquire(&net, 1, site, 5));
    (void)other;
    net_fini(&net);
}

/* ---- recall ---- */

static void idle_slots_are_recalled_on_demand(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 3, 1, 10, 1);
    struct site *a = net_site(&net, 1, 0, 1), *b = net_site(&net, 2, 0, 1);
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 1, a, 100));
    net_settle(&net);
    assert_int_equal(1, net.shards[1].wakes);
    assert_int_equal(ERR_OK, net_acquire(&net, 1, a, 100));
    net_return(&net, 1, a);
    net_settle(&net);
    assert_int_equal(1, site_get_view(a).slots_held);
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 2, b, 500)); /* younger, but it is idle */
    net_settle(&net);
    assert_int_equal(0, site_get_view(a).slots_held);
    assert_int_equal(1, net.shards[2].wakes);
    assert_int_equal(ERR_OK, net_acquire(&net, 2, b, 500));
    net_fini(&net);
}

static void used_slots_come_back_when_returned(void **state)
{
    static const struct {
        const char *name;
        bool is_waiting; /* does the holder have more mail */
        int64_t rank;    /* of that */
        bool is_kept;
    } rows[] = {
        {"holder has nothing more", false, 0, false},
        {"holder has younger mail", true, 501, false},
        {"holder has mail of equal rank", true, 500, true},
        {"holder has older mail", true, 499, true},
    };
    struct net net;

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        net_init(&net, 3, 1, 10, 1);
        struct site *a = net_site(&net, 1, 0, 1), *b = net_site(&net, 2, 0, 1);
        (void)net_acquire(&net, 1, a, 100);
        net_settle(&net);
        assert_int_equal(ERR_OK, net_acquire(&net, 1, a, 100));
        if (rows[i].is_waiting)
            assert_int_equal(ERR_AGAIN, net_acquire(&net, 1, a, rows[i].rank));
        assert_int_equal(ERR_AGAIN, net_acquire(&net, 2, b, 500));
        net_settle(&net);
        assert_int_equal(0, net.shards[2].wakes);
        uint32_t wakes = net.shards[1].wakes;
        net_return(&net, 1, a);
        net_settle(&net);
        if ((net.shards[1].wakes > wakes) != rows[i].is_kept ||
            (net.shards[2].wakes > 0) == rows[i].is_kept)
            fail_msg("%s", rows[i].name);
        if (rows[i].is_kept) { /* woken, and does not come for it: the other one gets it */
            net_pass(&net, TICK_MS(10));
            assert_int_equal(1, net.shards[2].wakes);
        }
        assert_int_equal(ERR_OK, net_acquire(&net, 2, b, 500));
        net_fini(&net);
    }
}

static void younger_mail_does_not_take_a_recalled_slot(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 3, 1, 10, 1);
    struct site *a = net_site(&net, 1, 0, 1), *b = net_site(&net, 2, 0, 1);
    (void)net_acquire(&net, 1, a, 100);
    net_settle(&net);
    assert_int_equal(ERR_OK, net_acquire(&net, 1, a, 100));
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 1, a, 101));
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 2, b, 500));
    net_settle(&net);
    net_return(&net, 1, a);                                    /* kept for 101 */
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 1, a, 900)); /* but now it is for 900 */
    net_settle(&net);
    assert_int_equal(ERR_OK, net_acquire(&net, 2, b, 500));
    net_return(&net, 2, b);
    net_settle(&net);
    assert_int_equal(ERR_OK, net_acquire(&net, 1, a, 900));
    net_fini(&net);
}

static void scarce_site_names_its_holder(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 3, 1, 10, 1);
    struct site *a = net_site(&net, 1, 0, 1), *b = net_site(&net, 2, 0, 1);
    (void)net_acquire(&net, 1, a, 100);
    net_settle(&net);
    assert_int_equal(ERR_OK, net_acquire(&net, 1, a, 100));
    (void)net_acquire(&net, 2, b, 500);
    assert_int_equal(2, site_holder(b));
    net_settle(&net);
    assert_true(site_is_scarce(b));
    assert_int_equal(1, site_holder(b));
    assert_false(site_is_scarce(a));
    net_return(&net, 1, a);
    net_settle(&net);
    assert_false(site_is_scarce(b)); /* it is the holder now */
    assert_int_equal(2, site_holder(b));
    net_fini(&net);
}

/* ---- the pause ---- */

static void report(struct net *net, uint32_t shard, struct site *site, bool is_ok)
{
    site_outcome(net->shards[shard].sites, site, is_ok, net->now);
    net_settle(net);
}

static void pause_doubles_and_success_ends_it(void **state)
{
    static const uint32_t base_s[] = {30, 60, 120, 240, 480, 600, 600};
    struct net net;

    (void)state;
    net_init(&net, 2, 5, 10, 3);
    struct site *a = net_site(&net, 0, 0, 1), *b = net_site(&net, 1, 0, 1);
    (void)net_acquire(&net, 1, b, 7);
    net_settle(&net);
    for (uint32_t i = 0; i < COUNT_OF(base_s); i++) {
        report(&net, i % 2, i % 2 == 0 ? a : b, false);
        tick_us pause = site_paused_until(a) - net.now;
        assert_in_range(pause, TICK_S(base_s[i]) / 10 * 8, TICK_S(base_s[i]) / 10 * 12);
        assert_int_equal(site_paused_until(a), site_paused_until(b));
        report(&net, 0, a, false); /* an attempt begun before */
        report(&net, 1, b, false);
        assert_int_equal(net.now + pause, site_paused_until(b));
        assert_int_equal(i + 1, site_get_view(b).failures);
        uint32_t wakes[2] = {net.shards[0].wakes, net.shards[1].wakes};
        assert_int_equal(ERR_TIMEOUT, net_acquire(&net, 0, a, 7));
        assert_int_equal(ERR_TIMEOUT, net_acquire(&net, 1, b, 7));
        net_pass(&net, pause - TICK_MS(1));
        assert_int_equal(ERR_TIMEOUT, net_acquire(&net, 1, b, 7));
        assert_int_equal(wakes[1], net.shards[1].wakes);
        net_pass(&net, TICK_MS(2));
        assert_int_equal(wakes[0] + 1, net.shards[0].wakes);
        assert_int_equal(wakes[1] + 1, net.shards[1].wakes);
    }
    /* Success on one shard ends it on all, and the doubling. */
    report(&net, 0, a, false);
    assert_int_equal(ERR_TIMEOUT, net_acquire(&net, 1, b, 7));
    uint32_t wakes = net.shards[1].wakes;
    report(&net, 0, a, true);
    assert_int_equal(wakes + 1, net.shards[1].wakes);
    assert_int_equal(0, site_get_view(b).failures);
    report(&net, 1, b, false);
    assert_true(site_paused_until(a) - net.now <= TICK_S(36));
    uint64_t sent = net.sent;
    report(&net, 1, b, true);
    assert_true(net.sent > sent);
    sent = net.sent;
    report(&net, 1, b, true); /* what everybody knows is not told */
    assert_int_equal(sent, net.sent);
    net_fini(&net);
}

static void newcomer_hears_of_the_pause(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 3, 5, 10, 3);
    struct site *a = net_site(&net, 1, 0, 1), *b = net_site(&net, 2, 0, 1);
    report(&net, 1, a, false);
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 2, b, 7));
    net_settle(&net);
    assert_int_equal(site_paused_until(a), site_paused_until(b));
    assert_int_equal(0, net.shards[2].wakes);
    net_pass(&net, TICK_S(40));
    assert_int_equal(1, net.shards[2].wakes);
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 2, b, 7));
    net_settle(&net);
    assert_int_equal(ERR_OK, net_acquire(&net, 2, b, 7));
    net_fini(&net);
}

/* ---- the table ---- */

static void idle_sites_are_forgotten_least_recently_used_first(void **state)
{
    struct net net;
    struct site *sites[4];

    (void)state;
    net_init(&net, 2, 5, 4, 3);
    for (uint64_t i = 0; i < 4; i++)
        sites[i] = net_site(&net, 0, 1, i);
    assert_null(net_site(&net, 0, 1, 9)); /* all busy */
    (void)net_acquire(&net, 0, sites[2], 5);
    net_settle(&net);
    assert_int_equal(1, site_get_view(sites[2]).slots_held);
    for (uint32_t i = 0; i < 4; i++)
        site_release(net.shards[0].sites, sites[i]);
    net_verify(&net);
    site_release(net.shards[0].sites, net_site(&net, 0, 1, 0)); /* used again: 1 is oldest */
    assert_non_null(net_site(&net, 0, 1, 10));
    uint32_t cursor = 0, seen = 0;
    struct site_view view;
    while (site_next(net.shards[0].sites, &cursor, &view)) {
        seen |= 1u << view.key / 2;
        assert_true(span_is_equal(SPAN_LITERAL("site.example"), view.label));
    }
    assert_int_equal(1u << 0 | 1u << 2 | 1u << 3 | 1u << 10, seen);

    /* Forgetting gives slots back: the other shard can have all five. */
    assert_non_null(net_site(&net, 0, 1, 11));
    net_settle(&net);
    struct site *other = net_site(&net, 1, 1, 2);
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(ERR_OK, net_acquire(&net, 1, other, 5));
    net_fini(&net);
}

static void grant_for_a_forgotten_site_goes_back(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 2, 1, 1, 3);
    struct site *site = net_site(&net, 0, 1, 1);
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 0, site, 5));
    site_release(net.shards[0].sites, site);
    assert_non_null(net_site(&net, 0, 1, 2)); /* forgets the first while its WANT is under way */
    net_settle(&net);
    assert_int_equal(0, net.shards[0].wakes);
    struct site *other = net_site(&net, 1, 1, 1);
    assert_int_equal(ERR_OK, net_acquire(&net, 1, other, 5));
    net_fini(&net);
}

/* ---- keys and dead hosts ---- */

static void keys_name_sets_of_hosts(void **state)
{
    const struct span none = {NULL, 0};
    const struct span ab[] = {SPAN_LITERAL("a.example"), SPAN_LITERAL("b.example")};
    const struct span ba[] = {SPAN_LITERAL("B.example"), SPAN_LITERAL("A.EXAMPLE")};
    const struct span aba[] = {SPAN_LITERAL("a.example"), SPAN_LITERAL("b.example"),
                               SPAN_LITERAL("a.example")};
    const struct span ac[] = {SPAN_LITERAL("a.example"), SPAN_LITERAL("c.example")};
    struct span many[SITE_HOST_MAX];

    (void)state;
    uint64_t key = site_key(none, ab, 2);
    assert_int_equal(key, site_key(none, ba, 2));
    assert_int_equal(key, site_key(none, aba, 3));
    assert_int_not_equal(key, site_key(none, ac, 2));
    assert_int_not_equal(key, site_key(none, ab, 1));
    assert_int_not_equal(key, site_key(SPAN_LITERAL("192.0.2.1"), ab, 2));
    for (uint32_t i = 0; i < SITE_HOST_MAX; i++)
        many[i] = ab[i % 2];
    assert_int_equal(key, site_key(none, many, SITE_HOST_MAX));
    assert_int_not_equal(key, site_key(none, NULL, 0));
}

static void dead_hosts_are_remembered_for_a_while(void **state)
{
    struct net net;
    const uint8_t a[SITE_ADDRESS_MAX] = {1}, b[SITE_ADDRESS_MAX] = {2};

    (void)state;
    net_init(&net, 1, 5, 4, 3);
    struct site_set *sites = net.shards[0].sites;
    assert_false(site_host_is_dead(sites, a, sizeof(a), net.now));
    site_host_report(sites, a, sizeof(a), false, net.now);
    assert_true(site_host_is_dead(sites, a, sizeof(a), net.now));
    assert_false(site_host_is_dead(sites, b, sizeof(b), net.now));
    assert_false(site_host_is_dead(sites, a, sizeof(a) - 1, net.now));
    assert_true(site_host_is_dead(sites, a, sizeof(a), net.now + TICK_S(60) - 1));
    assert_false(site_host_is_dead(sites, a, sizeof(a), net.now + TICK_S(60)));
    site_host_report(sites, a, sizeof(a), false, net.now + TICK_S(30)); /* and longer */
    assert_true(site_host_is_dead(sites, a, sizeof(a), net.now + TICK_S(80)));
    site_host_report(sites, a, sizeof(a), true, net.now + TICK_S(31));
    assert_false(site_host_is_dead(sites, a, sizeof(a), net.now + TICK_S(31)));

    /* A scan of the whole Internet does not grow it, and the last ones are known. */
    uint32_t known = 0;
    for (uint32_t i = 0; i < 3 * SITE_DEAD_MAX; i++)
        site_host_report(sites, &i, sizeof(i), false, net.now + i);
    for (uint32_t i = 0; i < 3 * SITE_DEAD_MAX; i++)
        known += site_host_is_dead(sites, &i, sizeof(i), net.now + 3 * SITE_DEAD_MAX);
    assert_in_range(known, SITE_DEAD_MAX / 2, SITE_DEAD_MAX);
    uint32_t last = 3 * SITE_DEAD_MAX - 1;
    assert_true(site_host_is_dead(sites, &last, sizeof(last), net.now + last));
    net_fini(&net);
}

/* ---- everything at once ---- */

#define MAIL_MAX 64u

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
        site_outcome(net->shards[shard].sites, demand->site, is_ok, net->now);
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
    assert_true(traffic->served > 300);

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
        cmocka_unit_test(limit_holds_on_one_shard),
        cmocka_unit_test(idle_slots_go_back_when_the_lease_ends),
        cmocka_unit_test(limit_can_be_changed),
        cmocka_unit_test(idle_slots_are_recalled_on_demand),
        cmocka_unit_test(used_slots_come_back_when_returned),
        cmocka_unit_test(younger_mail_does_not_take_a_recalled_slot),
        cmocka_unit_test(scarce_site_names_its_holder),
        cmocka_unit_test(pause_doubles_and_success_ends_it),
        cmocka_unit_test(newcomer_hears_of_the_pause),
        cmocka_unit_test(idle_sites_are_forgotten_least_recently_used_first),
        cmocka_unit_test(grant_for_a_forgotten_site_goes_back),
        cmocka_unit_test(keys_name_sets_of_hosts),
        cmocka_unit_test(dead_hosts_are_remembered_for_a_while),
        cmocka_unit_test(limit_is_exact_under_any_delay),
        cmocka_unit_test(scarce_slot_goes_to_the_oldest_mail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

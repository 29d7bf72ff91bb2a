/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Orders about sites: suspended, slowed, ended, kept over a restart. Virtual time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "site_net.h"

#define MINUTE TICK_S(60)

static struct site_order order_of(uint32_t id, const struct net *net, tick_us duration)
{
    return (struct site_order){.id = id,
                               .kind = SITE_ORDER_SUSPEND,
                               .until = net->now + duration,
                               .duration = duration,
                               .by = "operator",
                               .reason = "because"};
}

static struct site_order slow_order(uint32_t id, const struct net *net, uint32_t connections,
                                    struct rate rate)
{
    struct site_order order = order_of(id, net, 10 * MINUTE);

    order.kind = SITE_ORDER_SLOW;
    order.connection_max = connections;
    order.rate = rate;
    return order;
}

static struct site_view home_view(struct net *net)
{
    struct site_view view = {0};
    uint32_t cursor = 0;

    while (site_next(net->shards[0].sites, &cursor, &view) && !view.is_home)
        continue;
    return view;
}

static uint32_t cancel(struct net *net, uint32_t id, uint32_t kinds)
{
    struct site_act act = {.id = id, .kinds = kinds};
    uint64_t cursor = 0;

    (void)site_act_step(net->shards[0].sites, &act, &cursor, net->now);
    net_settle(net);
    return act.ended.orders;
}

/* No slot anywhere until the end; who had one is woken, so as to close it. */
static void suspended_site_gets_nothing(void **state)
{
    (void)state;
    for (uint32_t is_cancelled = 0; is_cancelled < 2; is_cancelled++) {
        struct net net;
        net_init(&net, 2, 8, 10, 1);
        struct site *a = net_site(&net, 0, 0, 1), *b = net_site(&net, 1, 0, 1);
        (void)net_acquire(&net, 1, b, 5);
        net_settle(&net);
        assert_int_equal(ERR_OK, net_acquire(&net, 1, b, 5));
        uint32_t wakes = net.shards[1].wakes;
        struct site_order order = order_of(7, &net, MINUTE);
        site_order_give(net.shards[1].sites, b, &order, net.now);
        net_settle(&net);
        assert_int_equal(wakes + 1, net.shards[1].wakes);
        assert_true(site_is_suspended(a, net.now) && site_is_suspended(b, net.now));
        assert_int_equal(ERR_TIMEOUT, net_acquire(&net, 0, a, 5));
        assert_int_equal(ERR_TIMEOUT, net_acquire(&net, 1, b, 5));
        /* One that was under way goes well: that ends no order. */
        site_outcome(net.shards[1].sites, b, SITE_OUTCOME_OK, net.now, net.now);
        net_return(&net, 1, b);
        net_pass(&net, MINUTE - TICK_MS(10));
        assert_int_equal(ERR_TIMEOUT, net_acquire(&net, 0, a, 5));
        assert_int_equal(ERR_TIMEOUT, net_acquire(&net, 1, b, 5));
        wakes = net.shards[1].wakes;
        assert_int_equal(1, home_view(&net).order_count);
        assert_string_equal("because", home_view(&net).orders[0].reason);
        if (is_cancelled > 0)
            assert_int_equal(1, cancel(&net, 7, 1u << SITE_ORDER_SUSPEND));
        else
            net_pass(&net, TICK_MS(20));
        assert_int_equal(wakes + 1, net.shards[1].wakes);
        assert_int_equal(0, home_view(&net).order_count);
        assert_false(site_is_suspended(a, net.now) || site_is_suspended(b, net.now));
        /* It comes back gently. */
        assert_int_equal(1, home_view(&net).allowed);
        assert_int_equal(SITE_LEARN_ORDER, home_view(&net).allowed_reason);
        assert_int_equal(ERR_OK, net_acquire(&net, 0, a, 5));
        assert_int_equal(ERR_AGAIN, net_acquire(&net, 0, a, 5));
        net_fini(&net);
    }
}

static void newcomer_hears_of_the_suspension(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 2, 8, 10, 1);
    struct site_order order = order_of(7, &net, MINUTE);
    assert_int_equal(
        ERR_OK, site_order_add(net.shards[0].sites, 2, SPAN_LITERAL("x.example"), &order, net.now));
    struct site *site = net_site(&net, 1, 0, 1);
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 1, site, 5));
    net_settle(&net);
    assert_true(site_is_suspended(site, net.now));
    net_fini(&net);
}

static void connections_are_set_within_the_configuration(void **state)
{
    static const struct {
        uint32_t ordered, allowed;
    } rows[] = {{1, 1}, {3, 3}, {4, 4}, {5, 4}, {UINT32_MAX, 4}};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct net net;
        net_init(&net, 2, 4, 10, 1);
        struct site *site = net_site(&net, 0, 0, 1);
        struct site_order order = slow_order(3, &net, rows[i].ordered, (struct rate){0});
        site_order_give(net.shards[0].sites, site, &order, net.now);
        for (uint32_t taken = 0; taken < rows[i].allowed; taken++)
            assert_int_equal(ERR_OK, net_acquire(&net, 0, site, 5));
        assert_int_equal(ERR_AGAIN, net_acquire(&net, 0, site, 5));
        net_fini(&net);
    }
}

static uint32_t say_mail(struct net *net, uint32_t shard, struct site *site, uint32_t tries)
{
    uint32_t said = 0;

    for (uint32_t i = 0; i < tries; i++) {
        if (site_mail_acquire(net->shards[shard].sites, site, 5, 1, net->now) == ERR_OK) {
            site_mail_done(net->shards[shard].sites, site, true, net->now);
            said++;
        }
        net_settle(net);
    }
    return said;
}

/* A rate binds also where the configuration has none, on all shards together, and ends in steps. */
static void rate_is_set_for_a_time(void **state)
{
    static const uint32_t expected[] = {6, 12, 24, 48};
    struct net net;

    (void)state;
    net_init(&net, 2, 8, 10, 1);
    struct site *a = net_site(&net, 0, 0, 1), *b = net_site(&net, 1, 0, 1);
    (void)net_acquire(&net, 1, b, 5);
    net_settle(&net);
    assert_int_equal(100, say_mail(&net, 1, b, 100));
    struct site_order order = slow_order(3, &net, 2, (struct rate){6, MINUTE});
    order.is_pattern = true;
    order.steps = 3;
    site_order_give(net.shards[1].sites, b, &order, net.now);
    net_settle(&net);
    for (uint32_t step = 0; step < COUNT_OF(expected); step++) {
        uint32_t said = say_mail(&net, 0, a, 60) + say_mail(&net, 1, b, 60);
        assert_in_range(said, expected[step] - 1, expected[step]);
        if (step == 0) {
            net_pass(&net, 2 * MINUTE);
            assert_in_range(say_mail(&net, 1, b, 60), 5, 6);
            net_pass(&net, 6 * MINUTE); /* to the end of its time */
        }
        net_pass(&net, step == 0 ? 2 * MINUTE + TICK_S(10) : 5 * MINUTE / 2 + TICK_S(1));
    }
    assert_int_equal(0, home_view(&net).order_count);
    assert_int_equal(200, say_mail(&net, 0, a, 100) + say_mail(&net, 1, b, 100));
    net_fini(&net);
}

static void pattern_lengthens_its_order(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 1, 8, 10, 1);
    struct site *site = net_site(&net, 0, 0, 1);
    struct site_set *sites = net.shards[0].sites;
    struct site_order order = order_of(7, &net, MINUTE);
    order.is_pattern = true;
    site_order_give(sites, site, &order, net.now);
    net_pass(&net, MINUTE / 2);
    order.id = 8;
    order.until = net.now + MINUTE;
    site_order_give(sites, site, &order, net.now);
    assert_int_equal(1, home_view(&net).order_count);
    assert_int_equal(7, home_view(&net).orders[0].id); /* who noted it may still cancel it */
    net_pass(&net, MINUTE - TICK_MS(1));
    assert_true(site_is_suspended(site, net.now));
    order.is_pattern = false; /* operators' orders stand beside each other */
    order.until = net.now + MINUTE;
    site_order_give(sites, site, &order, net.now);
    order.id = 9;
    site_order_give(sites, site, &order, net.now);
    assert_int_equal(3, home_view(&net).order_count);
    assert_int_equal(0, cancel(&net, 99, ~0u));
    assert_int_equal(0, cancel(&net, 8, 1u << SITE_ORDER_SLOW));
    assert_int_equal(1, cancel(&net, 8, ~0u));
    assert_int_equal(2, cancel(&net, 0, ~0u));
    assert_false(site_is_suspended(site, net.now));
    net_fini(&net);
}

/* Twice as long each time, unless the last is long ago; what comes while it holds changes nothing.
 */
static void back_off_lasts_longer_each_time(void **state)
{
    static const uint32_t minutes[] = {10, 20, 40, 80, 160, 240, 240};
    struct net net;

    (void)state;
    net_init(&net, 2, 8, 10, 1);
    struct site *site = net_site(&net, 1, 0, 1);
    for (uint32_t i = 0; i <= COUNT_OF(minutes); i++) {
        bool is_forgotten = i == COUNT_OF(minutes);
        if (is_forgotten)
            net_pass(&net, TICK_S(3601));
        struct site_order order = order_of(i + 1, &net, 10 * MINUTE);
        order.is_pattern = order.is_doubled = true;
        for (uint32_t again = 0; again < 3; again++)
            site_order_give(net.shards[1].sites, site, &order, net.now);
        net_settle(&net);
        tick_us expected = (is_forgotten ? 10 : minutes[i]) * MINUTE;
        assert_int_equal(1, home_view(&net).order_count);
        assert_int_equal(net.now + expected, home_view(&net).orders[0].until);
        net_pass(&net, expected + TICK_MS(1));
        assert_int_equal(0, home_view(&net).order_count);
    }
    net_fini(&net);
}

static void order_waits_for_its_matches(void **state)
{
    static const struct {
        const char *name;
        uint32_t seconds[4]; /* when it is given; 0: no more */
        bool is_in_force;
    } rows[] = {
        {"two", {1, 2}, false},
        {"three", {1, 2, 60}, true},
        {"at the end of the window", {1, 2, 61}, true},
        {"behind the window", {1, 2, 62}, false},
        {"behind the window once more", {1, 2, 62, 63}, false},
        {"a new window", {1, 62, 63, 64}, true},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct net net;
        net_init(&net, 2, 8, 10, 1);
        struct site *site = net_site(&net, 0, 0, 1);
        tick_us begun = net.now;
        for (uint32_t n = 0; n < COUNT_OF(rows[i].seconds) && rows[i].seconds[n] > 0; n++) {
            net_pass(&net, begun + TICK_S(rows[i].seconds[n]) - net.now);
            struct site_order order = order_of(n + 1, &net, 10 * MINUTE), other = order;
            order.is_pattern = other.is_pattern = true;
            order.needed = other.needed = 3;
            order.needed_window = other.needed_window = MINUTE;
            other.by[0] = 'x'; /* is counted by itself */
            site_order_give(net.shards[0].sites, site, &order, net.now);
            if (n == 0)
                site_order_give(net.shards[0].sites, site, &other, net.now);
        }
        if (rows[i].is_in_force != (home_view(&net).order_count == 1))
            fail_msg("%s", rows[i].name);
        net_fini(&net);
    }
}

static uint32_t told_home, told_shards;

static void on_order(void *context, struct span label, const struct site_order *order, bool is_home)
{
    (void)context;
    assert_int_equal(12, label.size);
    assert_string_equal("because", order->reason);
    told_home += is_home;
    told_shards += !is_home;
}

/* Every shard that has had to do with the site is told, once. */
static void bounce_is_told_once(void **state)
{
    struct net net;

    (void)state;
    net_init_telling(&net, 3, on_order);
    struct site *site = net_site(&net, 1, 0, 1);
    (void)net_site(&net, 0, 0, 1);
    (void)net_acquire(&net, 1, site, 5);
    net_settle(&net);
    for (uint32_t i = 0; i < 3; i++) {
        struct site_order order = order_of(7 + i, &net, 10 * MINUTE);
        order.kind = SITE_ORDER_BOUNCE;
        order.is_pattern = true;
        site_order_give(net.shards[1].sites, site, &order, net.now);
        net_settle(&net);
        assert_int_equal(i < 2 ? 1 : 2, told_home);
        assert_int_equal(i < 2 ? 2 : 4, told_shards);
        if (i == 1)
            net_pass(&net, 11 * MINUTE);
    }
    net_fini(&net);
}

static void host_is_skipped_on_all_shards(void **state)
{
    static const uint8_t host[SITE_ADDRESS_MAX] = {1, 2, 3, [31] = 9}, other[4] = {1, 2, 3, 4};
    struct net net;

    (void)state;
    net_init(&net, 2, 8, 10, 1);
    struct site *a = net_site(&net, 0, 0, 1), *b = net_site(&net, 1, 0, 1);
    struct site_set *sets[] = {net.shards[0].sites, net.shards[1].sites};
    struct site_order order = order_of(7, &net, 10 * MINUTE);
    order.kind = SITE_ORDER_SKIP_HOST;
    order.is_pattern = true;
    order.host_size = sizeof(host);
    memcpy(order.host, host, sizeof(host));
    site_order_give(sets[0], a, &order, net.now);
    (void)net_acquire(&net, 1, b, 5); /* it hears of it now */
    net_settle(&net);
    for (uint32_t i = 0; i < 2; i++) {
        site_host_report(sets[i], 7, span_of(host, sizeof(host)), true,
                         net.now); /* changes nothing */
        site_host_report(sets[i], 7, span_of(host, sizeof(host)), false, net.now);
        assert_true(site_host_is_dead(sets[i], host, sizeof(host), net.now + 9 * MINUTE));
        assert_false(site_host_is_dead(sets[i], host, sizeof(host), net.now + 10 * MINUTE));
        assert_false(site_host_is_dead(sets[i], other, sizeof(other), net.now));
    }
    assert_int_equal(1, cancel(&net, 7, ~0u));
    for (uint32_t i = 0; i < 2; i++)
        assert_false(site_host_is_dead(sets[i], host, sizeof(host), net.now));
    net_fini(&net);
}

static void orders_of_a_site_are_bounded(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 1, 8, 10, 1);
    struct site *site = net_site(&net, 0, 0, 1);
    struct site_set *sites = net.shards[0].sites;
    for (uint32_t i = 1; i <= SITE_ORDER_MAX + 1; i++) {
        struct site_order order = order_of(i, &net, MINUTE);
        assert_int_equal(i <= SITE_ORDER_MAX ? ERR_OK : ERR_LIMIT,
                         site_order_add(sites, 1, (struct span){0}, &order, net.now));
    }
    struct site_order ninth = order_of(9, &net, MINUTE);
    assert_int_equal(0, site_orders_refused(sites));
    site_order_give(sites, site, &ninth, net.now);
    assert_int_equal(1, site_orders_refused(sites));
    net_pass(&net, MINUTE + 1);
    struct rate_set rates = {0}; /* as many windows as there may be */
    for (uint32_t i = 0; i < RATE_MAX; i++)
        assert_int_equal(ERR_OK,
                         rate_set_add(&rates, (struct rate){1000 * (i + 1), TICK_S(i + 1)}));
    site_rates_set(sites, site, &rates, net.now);
    assert_int_equal(1, say_mail(&net, 0, site, 1));
    struct site_order order = slow_order(20, &net, 0, (struct rate){5, MINUTE});
    assert_int_equal(ERR_LIMIT, site_order_add(sites, 1, (struct span){0}, &order, net.now));
    assert_int_equal(0, home_view(&net).order_count);
    order.rate.window = TICK_S(3);
    assert_int_equal(ERR_OK, site_order_add(sites, 1, (struct span){0}, &order, net.now));
    assert_int_equal(4, say_mail(&net, 0, site, 20)); /* one was said before */
    net_fini(&net);
}

/* However much strangers' replies bring about, there is room for an operator. */
static void patterns_leave_room_for_operators(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 1, 8, 10, 1);
    struct site_set *sites = net.shards[0].sites;
    for (uint32_t i = 1; i <= SITE_ORDER_MAX; i++) {
        struct site_order order = order_of(i, &net, MINUTE);
        order.is_pattern = true;
        order.by[0] = (char)('a' + i);
        assert_int_equal(i <= SITE_ORDER_MAX - SITE_ORDER_KEPT ? ERR_OK : ERR_LIMIT,
                         site_order_add(sites, 1, (struct span){0}, &order, net.now));
    }
    struct site_order order = order_of(100, &net, MINUTE);
    assert_int_equal(ERR_OK, site_order_add(sites, 1, (struct span){0}, &order, net.now));
    order.id++;
    assert_int_equal(ERR_LIMIT, site_order_add(sites, 1, (struct span){0}, &order, net.now));
    net_fini(&net);
}

static void orders_outlive_a_restart(void **state)
{
    struct site_order_kept rows[SITE_ORDER_MAX + SITE_STANDING_MAX];
    uint64_t cursor = 0;
    struct net net;

    (void)state;
    net_init(&net, 1, 8, 10, 1);
    (void)net_site(&net, 0, 0, 1);
    for (uint32_t i = 0; i < 2; i++) {
        struct site_order order = order_of(i + 1, &net, (2 * i + 1) * MINUTE);
        assert_int_equal(ERR_OK,
                         site_order_add(net.shards[0].sites, 1, (struct span){0}, &order, net.now));
    }
    uint32_t count = site_keep_next_orders(net.shards[0].sites, &cursor,
                                           (struct tick_now){net.now, 1000}, rows, COUNT_OF(rows));
    assert_int_equal(2, count);
    assert_int_equal(1000 + MINUTE, rows[0].until);
    net_fini(&net);

    net_init(&net, 2, 8, 10, 1); /* site 1 is at home on shard 1 now; a minute and a half later */
    rows[1].order.kind = SITE_ORDER_SUSPEND;
    struct tick_now now = {net.now, 1000 + 3 * MINUTE / 2};
    for (uint32_t i = 0; i < 2; i++)
        site_keep_restore_orders(net.shards[i].sites, rows, count, now);
    struct site *site = net_site(&net, 0, 1, 0);
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 0, site, 5));
    net_settle(&net);
    assert_true(site_is_suspended(site, net.now));
    net_pass(&net, 3 * MINUTE / 2 - TICK_MS(1));
    assert_true(site_is_suspended(site, net.now));
    net_pass(&net, TICK_MS(2));
    assert_false(site_is_suspended(site, net.now));
    net_fini(&net);
}

static void damaged_orders_are_passed_over(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 1, 8, 10, 1);
    struct tick_now now = {net.now, 1000};
    struct site_order good = order_of(1, &net, MINUTE);
    struct site_order_kept rows[8];
    for (uint32_t i = 0; i < COUNT_OF(rows); i++)
        rows[i] = (struct site_order_kept){.key = i + 1, .until = 1000 + MINUTE, .order = good};
    rows[1].order.kind = SITE_ORDER_KIND_COUNT;
    rows[2].order.id = 0;
    rows[3].order.connection_max = 1; /* of a suspension */
    rows[4].order.kind = SITE_ORDER_SLOW;
    rows[5].until = 1000;
    memset(rows[6].order.by, 'x', sizeof(rows[6].order.by));
    rows[7].order.duration = SITE_ORDER_TIME_MAX + 1;
    site_keep_restore_orders(net.shards[0].sites, rows, COUNT_OF(rows), now);
    struct site_view view;
    uint32_t cursor = 0, orders = 0;
    while (site_next(net.shards[0].sites, &cursor, &view))
        orders += view.order_count;
    assert_int_equal(1, orders);
    net_fini(&net);
}

static void operators_act_by_name(void **state)
{
    static const struct {
        const char *name;
        uint32_t matched;
    } rows[] = {{"site.example", 2},     {"SITE.example", 2},   {"site.exampl", 0}, {"", 2},
                {"0000000000000001", 1}, {"000000000000001", 0}};
    struct net net;

    (void)state;
    net_init(&net, 1, 8, 10, 1);
    for (uint32_t number = 1; number <= 2; number++)
        assert_int_equal(ERR_OK, net_acquire(&net, 0, net_site(&net, 0, 0, number), 5));
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct site_order order = order_of(5, &net, MINUTE);
        struct site_act act = {.order = &order, .is_dry_run = true};
        memcpy(act.name, rows[i].name, strlen(rows[i].name));
        for (uint32_t round = 0; round < 3; round++) { /* tried, done, ended */
            uint64_t cursor = 0;
            act.matched = act.done = 0;
            assert_false(site_act_step(net.shards[0].sites, &act, &cursor, net.now));
            assert_int_equal(rows[i].matched, act.matched);
            assert_int_equal(round == 0 ? 0 : rows[i].matched, act.done);
            act.is_dry_run = false;
            if (round == 1)
                act = (struct site_act){.id = 5, .kinds = 1u << SITE_ORDER_SUSPEND};
        }
    }
    net_fini(&net);
}

static struct site_act suspension(const struct site_order *order, const char *name)
{
    struct site_act act = {.order = order};

    memcpy(act.name, name, strlen(name));
    return act;
}

static void act_everywhere(struct net *net, struct site_act *act)
{
    for (uint32_t i = 0; i < net->shard_count; i++) {
        uint64_t cursor = 0;
        assert_false(site_act_step(net->shards[i].sites, act, &cursor, net->now));
    }
    net_settle(net);
}

/* The site as another source sees it is another site of that name: it must not escape. */
static void order_stands_for_sites_to_come(void **state)
{
    struct site_order_kept rows[SITE_ORDER_MAX + SITE_STANDING_MAX];
    struct net net;

    (void)state;
    net_init(&net, 2, 8, 10, 1);
    struct site *known = net_site(&net, 1, 0, 1);
    (void)net_acquire(&net, 1, known, 5);
    net_settle(&net);
    struct site_order order = order_of(7, &net, 10 * MINUTE);
    struct site_act act = suspension(&order, "SITE.example");
    act_everywhere(&net, &act);
    assert_int_equal(1, act.matched);
    struct site *later = net_site(&net, 1, 0, 2);
    assert_int_equal(ERR_AGAIN, net_acquire(&net, 1, later, 5));
    net_settle(&net);
    assert_true(site_is_suspended(known, net.now) && site_is_suspended(later, net.now));
    assert_int_equal(ERR_TIMEOUT, net_acquire(&net, 1, later, 5));
    uint64_t cursor = 0; /* of both sites, and for those to come */
    struct tick_now now = {net.now, 1000};
    assert_int_equal(
        3, site_keep_next_orders(net.shards[0].sites, &cursor, now, rows, COUNT_OF(rows)));
    struct site_act resume = {.id = 7, .kinds = ~0u};
    act_everywhere(&net, &resume);
    assert_true(resume.is_known && resume.done == 2);
    struct site *last = net_site(&net, 1, 0, 3);
    (void)net_acquire(&net, 1, last, 5);
    net_settle(&net);
    assert_int_equal(ERR_OK, net_acquire(&net, 1, last, 5));
    net_fini(&net);

    net_init(&net, 2, 8, 10, 1); /* after a restart */
    for (uint32_t i = 0; i < 2; i++)
        site_keep_restore_orders(net.shards[i].sites, rows, 3, now);
    last = net_site(&net, 0, 1, 5);
    (void)net_acquire(&net, 0, last, 5);
    net_settle(&net);
    assert_true(site_is_suspended(last, net.now));
    net_fini(&net);
}

static void standing_orders_are_bounded(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 1, 8, 10, 1);
    assert_int_equal(ERR_OK, net_acquire(&net, 0, net_site(&net, 0, 0, 1), 5));
    for (uint32_t i = 1; i <= SITE_STANDING_MAX + 2; i++) {
        if (i == SITE_STANDING_MAX + 2) /* the others have ended */
            net_pass(&net, MINUTE + 1);
        struct site_order order = order_of(i, &net, MINUTE);
        struct site_act act =
            suspension(&order, i == SITE_STANDING_MAX + 1 ? "site.example" : "x.example");
        act_everywhere(&net, &act);
        assert_int_equal(i == SITE_STANDING_MAX + 1, act.is_full);
        assert_int_equal(0, act.done);
    }
    net_fini(&net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(suspended_site_gets_nothing),
        cmocka_unit_test(newcomer_hears_of_the_suspension),
        cmocka_unit_test(connections_are_set_within_the_configuration),
        cmocka_unit_test(rate_is_set_for_a_time),
        cmocka_unit_test(pattern_lengthens_its_order),
        cmocka_unit_test(back_off_lasts_longer_each_time),
        cmocka_unit_test(order_waits_for_its_matches),
        cmocka_unit_test(bounce_is_told_once),
        cmocka_unit_test(host_is_skipped_on_all_shards),
        cmocka_unit_test(orders_of_a_site_are_bounded),
        cmocka_unit_test(patterns_leave_room_for_operators),
        cmocka_unit_test(orders_outlive_a_restart),
        cmocka_unit_test(damaged_orders_are_passed_over),
        cmocka_unit_test(operators_act_by_name),
        cmocka_unit_test(order_stands_for_sites_to_come),
        cmocka_unit_test(standing_orders_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

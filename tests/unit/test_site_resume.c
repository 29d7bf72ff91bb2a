/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An operator resumes a site: what was learned against it ends on all shards. Virtual time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "site_net.h"

#define MINUTE TICK_S(60)

static struct site_view home_view(struct net *net, uint64_t key)
{
    struct site_view view = {0};
    uint32_t cursor = 0;

    while (site_next(net->shards[0].sites, &cursor, &view) && !(view.is_home && view.key == key))
        continue;
    return view;
}

static struct site_act resume_all(struct net *net, const char *name, bool is_dry_run)
{
    struct site_act act = {.kinds = 1u << SITE_ORDER_SUSPEND,
                           .pattern_kinds = 1u << SITE_ORDER_SLOW | 1u << SITE_ORDER_SKIP_HOST,
                           .is_resume = true,
                           .is_dry_run = is_dry_run};

    memcpy(act.name, name, strlen(name));
    for (uint32_t i = 0; i < net->shard_count; i++) {
        uint64_t cursor = 0;
        assert_false(site_act_step(net->shards[i].sites, &act, &cursor, net->now));
    }
    net_settle(net);
    return act;
}

static void no_answer(struct net *net, uint32_t shard, struct site *site, tick_us began)
{
    site_outcome(net->shards[shard].sites, site, SITE_OUTCOME_UNREACHABLE, began, net->now);
    net_settle(net);
}

/* Failures in a row have made the pause long; it ends everywhere, and the next one is a first. */
static void pause_ends_everywhere(void **state)
{
    struct net net;

    (void)state;
    net_init_learning(&net, 2, 20, 5);
    struct site *a = net_site(&net, 0, 0, 1), *b = net_site(&net, 1, 0, 1);
    (void)net_acquire(&net, 1, b, 5);
    net_settle(&net);
    assert_int_equal(ERR_OK, net_acquire(&net, 1, b, 5));
    net_return(&net, 1, b);
    assert_int_equal(ERR_OK, net_acquire(&net, 0, a, 5));
    net_return(&net, 0, a);
    for (uint32_t i = 0; i < 4; i++) {
        no_answer(&net, 1, b, net.now);
        tick_us until = site_paused_until(a);
        assert_true(until > net.now && site_paused_until(b) == until);
        if (i < 3)
            net_pass(&net, until - net.now + 1);
    }
    assert_true(site_paused_until(a) > net.now + 3 * BACKOFF_MIN);
    assert_int_equal(ERR_TIMEOUT, net_acquire(&net, 0, a, 5));
    assert_int_equal(ERR_TIMEOUT, net_acquire(&net, 1, b, 5));
    uint32_t wakes[2] = {net.shards[0].wakes, net.shards[1].wakes};

    struct site_act act = resume_all(&net, "site.example", true);
    assert_int_equal(1, act.matched);
    assert_int_equal(0, act.done);
    assert_int_equal(1, act.ended.pauses);
    assert_int_equal(ERR_TIMEOUT, net_acquire(&net, 0, a, 5)); /* it was a dry run */

    act = resume_all(&net, "SITE.example", false);
    assert_int_equal(1, act.done);
    assert_int_equal(1, act.ended.pauses);
    assert_int_equal(1, act.ended.back_offs);
    assert_int_equal(1, act.ended.reduced);
    assert_int_equal(0, act.ended.orders);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(wakes[i] + 1, net.shards[i].wakes);
    assert_int_equal(ERR_OK, net_acquire(&net, 0, a, 5));
    assert_int_equal(5, home_view(&net, 2).allowed);
    assert_int_equal(SITE_LEARN_START, home_view(&net, 2).allowed_reason);
    assert_int_equal(0, resume_all(&net, "site.example", false).done); /* nothing is left of it */

    net_pass(&net, TICK_S(1));
    no_answer(&net, 0, a, net.now);
    assert_true(site_paused_until(a) <= net.now + BACKOFF_MIN + BACKOFF_MIN / 5);
    net_fini(&net);
}

/* Attempts that began before and end badly behind it knew nothing of it. */
static void old_trouble_is_no_news(void **state)
{
    static const enum site_outcome outcomes[] = {SITE_OUTCOME_UNREACHABLE, SITE_OUTCOME_TURNED_AWAY,
                                                 SITE_OUTCOME_REFUSED};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(outcomes); i++) {
        struct net net;
        net_init_learning(&net, 1, 20, 5);
        struct site *site = net_site(&net, 0, 0, 1);
        assert_int_equal(ERR_OK, net_acquire(&net, 0, site, 5));
        no_answer(&net, 0, site, net.now);
        net_pass(&net, TICK_S(1));
        (void)resume_all(&net, "site.example", false);
        site_outcome(net.shards[0].sites, site, outcomes[i], net.now - 1, net.now);
        assert_true(site_paused_until(site) <= net.now);
        assert_int_equal(5, home_view(&net, 1).allowed);
        site_outcome(net.shards[0].sites, site, outcomes[i], net.now, net.now);
        assert_true(home_view(&net, 1).allowed < 5);
        net_fini(&net);
    }
}

/* What a healthy site takes stays; behind a refusal it grows as if there had been none. */
static void connections_are_no_fewer(void **state)
{
    static const struct {
        const char *name;
        uint32_t grown, allowed, reduced;
    } rows[] = {
        {"half of many is more than a new site's", 16, 8, 1},
        {"half of few is less", 5, 5, 1},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct net net;
        net_init_learning(&net, 1, 20, 5);
        struct site_set *sites = net.shards[0].sites;
        struct site *site = net_site(&net, 0, 0, 1);
        assert_int_equal(ERR_OK, net_acquire(&net, 0, site, 5));
        for (uint32_t n = 5; n < rows[i].grown; n++)
            site_outcome(sites, site, SITE_OUTCOME_OK, net.now, net.now);
        assert_int_equal(0, resume_all(&net, "site.example", false).done);
        assert_int_equal(rows[i].grown, home_view(&net, 1).allowed);
        site_outcome(sites, site, SITE_OUTCOME_REFUSED, net.now, net.now);
        assert_int_equal(rows[i].grown / 2, home_view(&net, 1).allowed);
        net_pass(&net, TICK_S(1));
        assert_int_equal(rows[i].reduced, resume_all(&net, "site.example", false).ended.reduced);
        assert_int_equal(rows[i].allowed, home_view(&net, 1).allowed);
        site_outcome(sites, site, SITE_OUTCOME_OK, net.now, net.now);
        assert_int_equal(rows[i].allowed + 1, home_view(&net, 1).allowed);
        net_fini(&net);
    }
}

static struct site_order order_of(uint32_t id, const struct net *net, enum site_order_kind kind,
                                  bool is_pattern)
{
    struct site_order order = {.id = id,
                               .kind = (uint8_t)kind,
                               .is_pattern = is_pattern,
                               .until = net->now + 10 * MINUTE,
                               .duration = 10 * MINUTE,
                               .reason = "because"};

    order.by[0] = (char)('a' + id);
    if (kind == SITE_ORDER_SLOW)
        order.connection_max = 2;
    if (kind == SITE_ORDER_SKIP_HOST) {
        order.host_size = 8;
        memcpy(order.host, "hosthost", 8);
    }
    return order;
}

/* Who gave it and what it does say whether it ends with the name alone. */
static void orders_end_by_who_gave_them(void **state)
{
    static const struct {
        enum site_order_kind kind;
        bool is_pattern, ends;
    } rows[] = {
        {SITE_ORDER_SUSPEND, false, true},  {SITE_ORDER_SUSPEND, true, true},
        {SITE_ORDER_SLOW, false, false},    {SITE_ORDER_SLOW, true, true},
        {SITE_ORDER_SKIP_HOST, true, true}, {SITE_ORDER_BOUNCE, true, false},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct net net;
        net_init_learning(&net, 2, 20, 5);
        struct site *site = net_site(&net, 1, 0, 1);
        struct site_order order = order_of(1, &net, rows[i].kind, rows[i].is_pattern);
        site_order_give(net.shards[1].sites, site, &order, net.now);
        net_settle(&net);
        assert_int_equal(1, home_view(&net, 2).order_count);
        struct site_act act = resume_all(&net, "site.example", false);
        assert_int_equal(rows[i].ends, act.ended.orders);
        assert_int_equal(!rows[i].ends, home_view(&net, 2).order_count);
        assert_false(rows[i].ends && site_is_suspended(site, net.now));
        assert_int_equal(5, home_view(&net, 2).allowed);
        net_fini(&net);
    }
}

/* A pattern's back-off that had doubled, and matches on the way to an order, begin anew. */
static void doubling_and_matches_begin_anew(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 1, 20, 10, 1);
    struct site *site = net_site(&net, 0, 0, 1);
    struct site_set *sites = net.shards[0].sites;
    for (uint32_t i = 0; i < 3; i++) {
        struct site_order order = order_of(1, &net, SITE_ORDER_SUSPEND, true);
        order.is_doubled = true;
        site_order_give(sites, site, &order, net.now);
        tick_us left = home_view(&net, 1).orders[0].until - net.now;
        assert_int_equal((i == 1 ? 2 : 1) * 10 * MINUTE, left);
        if (i == 0)
            net_pass(&net, left + 1);
        if (i == 1)
            assert_int_equal(1, resume_all(&net, "site.example", false).ended.back_offs);
    }
    (void)resume_all(&net, "site.example", false);
    struct site_order order = order_of(2, &net, SITE_ORDER_SLOW, true);
    order.needed = 2;
    order.needed_window = MINUTE;
    site_order_give(sites, site, &order, net.now);
    assert_int_equal(1, resume_all(&net, "site.example", false).ended.back_offs);
    site_order_give(sites, site, &order, net.now);
    assert_int_equal(0, home_view(&net, 1).order_count);
    site_order_give(sites, site, &order, net.now);
    assert_int_equal(1, home_view(&net, 1).order_count);
    net_fini(&net);
}

/* Addresses that this site found dead, on every shard; those of others stay. */
static void dead_hosts_are_tried_again(void **state)
{
    const struct span own = SPAN_LITERAL("host a"), others = SPAN_LITERAL("host b");
    struct net net;

    (void)state;
    net_init(&net, 2, 20, 10, 1);
    (void)net_site(&net, 0, 0, 1);
    (void)net_site(&net, 1, 0, 1);
    for (uint32_t i = 0; i < 2; i++) {
        site_host_report(net.shards[i].sites, 2, own, false, net.now);
        site_host_report(net.shards[i].sites, 4, others, false, net.now);
    }
    for (uint32_t is_dry_run = 2; is_dry_run-- > 0;) {
        struct site_act act = resume_all(&net, "0000000000000002", is_dry_run > 0);
        assert_int_equal(1, act.ended.hosts);
        for (uint32_t i = 0; i < 2; i++) {
            struct site_set *sites = net.shards[i].sites;
            assert_int_equal(is_dry_run, site_host_is_dead(sites, own.data, own.size, net.now));
            assert_true(site_host_is_dead(sites, others.data, others.size, net.now));
        }
    }
    assert_int_equal(0, resume_all(&net, "site.example", false).ended.hosts);
    net_fini(&net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pause_ends_everywhere),
        cmocka_unit_test(old_trouble_is_no_news),
        cmocka_unit_test(connections_are_no_fewer),
        cmocka_unit_test(orders_end_by_who_gave_them),
        cmocka_unit_test(doubling_and_matches_begin_anew),
        cmocka_unit_test(dead_hosts_are_tried_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

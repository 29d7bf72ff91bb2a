/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rates of sites among shards: never more MAILs than allowed in any window, as the peer sees them
 * come, whatever is delayed; and hardly fewer while there is mail.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "site_net.h"

#define WEEK        TICK_S(604800)
#define FLOW_MAX    64u
#define HISTORY_MAX 2000000u

static struct rate_set rates_of(const char *text)
{
    struct rate_set set = {0};

    if (*text != '\0')
        assert_int_equal(ERR_OK, rate_set_parse(span_from_text(text), &set));
    return set;
}

static struct site *limited_site(struct net *net, uint32_t shard, uint32_t home, const char *rates)
{
    struct site *site = net_site(net, shard, home, 1);
    struct rate_set set = rates_of(rates);

    site_rates_set(net->shards[shard].sites, site, &set, net->now);
    net_verify(net);
    return site;
}

static enum err acquire(struct net *net, uint32_t shard, struct site *site)
{
    enum err err = site_mail_acquire(net->shards[shard].sites, site, 5, 1, net->now);

    net_verify(net);
    return err;
}

static void done(struct net *net, uint32_t shard, struct site *site, bool was_used)
{
    site_mail_done(net->shards[shard].sites, site, was_used, net->now);
    net_verify(net);
}

static struct site_view view_at_home(struct net *net, uint32_t home)
{
    struct site_view view = {0};
    uint32_t cursor = 0;

    assert_true(site_next(net->shards[home].sites, &cursor, &view));
    return view;
}

/* ---- rule by rule ---- */

static void site_without_rates_is_free(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 2, 3, 10, 1);
    struct site *site = limited_site(&net, 1, 0, "");
    for (uint32_t i = 0; i < 1000; i++)
        assert_int_equal(ERR_OK, acquire(&net, 1, site));
    for (uint32_t i = 0; i < 1000; i++)
        done(&net, 1, site, true);
    assert_int_equal(0, net.sent);
    net_fini(&net);
}

static void right_comes_back_behind_the_window(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 1, 3, 10, 1);
    struct site *site = limited_site(&net, 0, 0, "2/1m");
    assert_int_equal(ERR_OK, acquire(&net, 0, site));
    assert_int_equal(ERR_OK, acquire(&net, 0, site));
    assert_int_equal(ERR_AGAIN, acquire(&net, 0, site));
    net_pass(&net, TICK_S(600)); /* as long as the answer is not in, it may come at any time */
    assert_int_equal(0, net.shards[0].wakes);
    done(&net, 0, site, true);
    done(&net, 0, site, true);
    assert_int_equal(2, view_at_home(&net, 0).binding_used);
    assert_int_equal(net.now + TICK_S(60) + 1, view_at_home(&net, 0).mail_next);
    net_pass(&net, TICK_S(60));
    assert_int_equal(0, net.shards[0].wakes);
    net_pass(&net, TICK_MS(2));
    assert_int_equal(1, net.shards[0].wakes);
    assert_int_equal(ERR_OK, acquire(&net, 0, site));
    done(&net, 0, site, true);
    net_fini(&net);
}

static void unused_right_is_free_at_once(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 1, 3, 10, 1);
    struct site *site = limited_site(&net, 0, 0, "1/1h");
    assert_int_equal(ERR_OK, acquire(&net, 0, site));
    assert_int_equal(ERR_AGAIN, acquire(&net, 0, site));
    done(&net, 0, site, false);
    net_settle(&net);
    assert_int_equal(1, net.shards[0].wakes);
    assert_int_equal(ERR_OK, acquire(&net, 0, site));
    net_fini(&net);
}

static void idle_rights_go_back_when_the_lease_ends(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 2, 3, 10, 1);
    struct site *a = limited_site(&net, 1, 0, "1/1h"), *b = limited_site(&net, 0, 0, "1/1h");
    assert_int_equal(ERR_AGAIN, acquire(&net, 1, a));
    net_settle(&net);
    assert_int_equal(1, net.shards[1].wakes); /* it has one, and does not use it */
    assert_int_equal(ERR_AGAIN, acquire(&net, 0, b));
    net_pass(&net, TICK_MS(900));
    assert_int_equal(0, net.shards[0].wakes);
    net_pass(&net, TICK_MS(200));
    assert_int_equal(1, net.shards[0].wakes);
    assert_int_equal(ERR_OK, acquire(&net, 0, b));
    net_fini(&net);
}

static void released_site_gives_its_rights_back(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 2, 3, 10, 1);
    struct site *site = limited_site(&net, 1, 0, "5/1h");
    assert_int_equal(ERR_AGAIN, acquire(&net, 1, site));
    net_settle(&net);
    assert_int_equal(1, view_at_home(&net, 0).mail_out);
    site_release(net.shards[1].sites, site);
    net_settle(&net);
    assert_int_equal(0, view_at_home(&net, 0).mail_out);
    net_fini(&net);
}

/* Goal: who asks the home by the site's name finds it, and its source, however long the names are.
 */
static void home_hears_the_name(void **state)
{
    static const char *const names[] = {
        "a", "sixteen.octets.x", "seventeen.octets.",
        "a-name-of-more-than-sixty-three-octets-is-cut-at-its-sixty-third-one"};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct net net;
        struct rate_set set = rates_of("5/1h");
        struct span name = span_from_text(names[i]);
        print_message("# case: %s\n", names[i]);
        net_init(&net, 2, 3, 10, 1);
        struct site *site = site_get(net.shards[1].sites, 2, name, net.now);
        site_set_source(site, name);
        site_hold(site);
        site_rates_set(net.shards[1].sites, site, &set, net.now);
        assert_int_equal(ERR_AGAIN, acquire(&net, 1, site));
        net_settle(&net);
        assert_true(span_is_equal(view_at_home(&net, 0).label,
                                  span_head(name, name.size < 63 ? name.size : 63)));
        assert_true(span_is_equal(view_at_home(&net, 0).source,
                                  span_head(name, name.size < 31 ? name.size : 31)));
        net_fini(&net);
    }
}

static void rates_can_be_changed(void **state)
{
    static const struct {
        const char *name, *next;
        uint32_t more; /* rights to be had then, after 3 of 3/1h were used */
    } cases[] = {{"raised", "5/1h", 2},
                 {"lowered", "2/1h", 0},
                 {"another window", "4/1d", 1},
                 {"lifted", "", 20}};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct net net;
        uint32_t more = 0;
        print_message("# case: %s\n", cases[i].name);
        net_init(&net, 2, 3, 10, 1);
        struct site *site = limited_site(&net, 1, 0, "3/1h");
        for (uint32_t j = 0; j < 3; j++) {
            assert_int_equal(ERR_AGAIN, acquire(&net, 1, site));
            net_settle(&net);
            assert_int_equal(ERR_OK, acquire(&net, 1, site));
            done(&net, 1, site, true);
            net_settle(&net);
        }
        struct rate_set set = rates_of(cases[i].next);
        site_rates_set(net.shards[1].sites, site, &set, net.now);
        net_settle(&net);
        for (; more < 20; more++) {
            enum err err = acquire(&net, 1, site);
            net_settle(&net);
            if (err != ERR_OK && acquire(&net, 1, site) != ERR_OK)
                break;
            done(&net, 1, site, true);
            net_settle(&net);
        }
        assert_int_equal(cases[i].more, more);
        net_fini(&net);
    }
}

/* What is under way when a rate comes has no right, and rights that come meanwhile are as many as
 * were granted, whichever MAIL ends first, whether it was said, and whether rights stay at hand. */
static void mail_that_began_without_a_rate_costs_no_right(void **state)
{
    static const struct {
        uint32_t free, leased; /* MAILs under way, by no right and by one */
        const char *ends;      /* in turn: u said, - not said, then the leases end: . */
    } rows[] = {{1, 0, "u."},    {1, 1, "u.u."},     {1, 1, "u.-."},  {1, 1, "-.u."},
                {2, 1, "uu.-."}, {2, 2, "u.u.-.-."}, {2, 2, "uu--."}, {2, 2, "----."}};

    (void)state;
    for (uint32_t i = 0; i < 2 * COUNT_OF(rows); i++) {
        uint32_t shard = i & 1, had = 0;
        struct net net;
        print_message("# row %u, shard %u\n", i / 2, shard);
        net_init(&net, 2, 3, 10, 1);
        struct site *site = limited_site(&net, shard, 0, "");
        struct site_set *sites = net.shards[shard].sites;
        for (uint32_t j = 0; j < rows[i / 2].free; j++)
            assert_int_equal(ERR_OK, acquire(&net, shard, site));
        struct rate_set set = rates_of("10/1m");
        site_rates_set(sites, site, &set, net.now);
        net_settle(&net);
        enum err err = site_mail_acquire(sites, site, 5, 5, net.now);
        net_settle(&net);
        if (err == ERR_OK)
            done(&net, shard, site, false); /* five are at hand */
        for (uint32_t j = 0; j < rows[i / 2].leased; j++)
            assert_int_equal(ERR_OK, acquire(&net, shard, site));
        for (const char *at = rows[i / 2].ends; *at != '\0'; at++) {
            if (*at == '.')
                net_pass(&net, TICK_S(2));
            else
                done(&net, shard, site, *at == 'u');
        }
        net_pass(&net, TICK_S(120));
        for (uint32_t j = 0; j < 30; j++) {
            had += acquire(&net, shard, site) == ERR_OK;
            net_settle(&net);
        }
        assert_int_equal(10, had);
        assert_int_equal(10, view_at_home(&net, 0).mail_out);
        net_fini(&net);
    }
}

/* Goal: a site whose windows are not over is remembered though nobody uses it and others press. */
static void windows_outlive_disuse(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 1, 3, 4, 1);
    struct site *site = limited_site(&net, 0, 0, "1/1h");
    assert_int_equal(ERR_OK, acquire(&net, 0, site));
    done(&net, 0, site, true);
    site_release(net.shards[0].sites, site);
    for (uint64_t i = 10; i < 30; i++)
        site_release(net.shards[0].sites, net_site(&net, 0, 0, i));
    net_pass(&net, TICK_S(3600));
    site = limited_site(&net, 0, 0, "1/1h");
    assert_int_equal(ERR_AGAIN, acquire(&net, 0, site));
    site_release(net.shards[0].sites, site);
    net_pass(&net, TICK_S(1));
    for (uint64_t i = 10; i < 30; i++) /* but not for ever */
        site_release(net.shards[0].sites, net_site(&net, 0, 0, i));
    net_pass(&net, TICK_S(1));
    assert_int_equal(TICK_NEVER, site_set_deadline(net.shards[0].sites));
    net_fini(&net);
}

static void right_wanted_by_two_goes_to_the_older_mail(void **state)
{
    struct net net;

    (void)state;
    net_init(&net, 3, 3, 10, 1);
    struct site *sites[3];
    for (uint32_t i = 0; i < 3; i++)
        sites[i] = limited_site(&net, i, 0, "1/1m");
    assert_int_equal(ERR_OK, acquire(&net, 0, sites[0]));
    done(&net, 0, sites[0], true);
    assert_int_equal(ERR_AGAIN, site_mail_acquire(net.shards[1].sites, sites[1], 200, 1, net.now));
    assert_int_equal(ERR_AGAIN, site_mail_acquire(net.shards[2].sites, sites[2], 100, 1, net.now));
    net_settle(&net);
    net_pass(&net, TICK_S(61));
    assert_int_equal(0, net.shards[1].wakes);
    assert_int_equal(1, net.shards[2].wakes);
    net_fini(&net);
}

/* ---- over a restart ---- */

/* All rows of all shards. */
static uint32_t rows_take(struct net *net, wall_us wall, struct site_kept rows[SITE_KEPT_MAX])
{
    struct site_kept found[SITE_KEPT_MAX];
    uint32_t count = 0;

    for (uint32_t i = 0; i < net->shard_count; i++) {
        for (uint64_t cursor = 0; cursor != UINT64_MAX;) {
            uint32_t more = site_keep_next(net->shards[i].sites, SITE_KEEP_WINDOW, &cursor,
                                           (struct tick_now){net->now, wall}, found, SITE_KEPT_MAX);
            memcpy(rows + count, found, more * sizeof(rows[0]));
            count += more;
        }
    }
    return count;
}

static void rows_restore(struct net *net, wall_us wall, const struct site_kept *rows,
                         uint32_t count)
{
    for (uint32_t i = 0; i < net->shard_count; i++)
        site_keep_restore(net->shards[i].sites, rows, count, (struct tick_now){net->now, wall});
    net_verify(net);
}

static void use(struct net *net, uint32_t shard, struct site *site)
{
    if (acquire(net, shard, site) != ERR_OK) {
        net_settle(net);
        assert_int_equal(ERR_OK, acquire(net, shard, site));
    }
    done(net, shard, site, true);
    net_settle(net);
}

/* Goal: a call looks at a bounded number of sites, also when none of them has anything to keep:
 * mail waits meanwhile. */
static void rows_are_looked_for_in_bounds(void **state)
{
    enum { SITES = SITE_KEEP_LOOK_MAX + 1 };
    static struct site_order_kept orders[SITE_ORDER_MAX + SITE_STANDING_MAX];
    static struct site_kept known[SITES];
    static struct site_kept rows[SITE_KEPT_MAX];
    const struct tick_now now = {TICK_S(7000), 1700000000000000};
    uint64_t cursor = 0, order_cursor = 0;
    struct net net;

    (void)state;
    net_init(&net, 1, 3, SITES, 1);
    for (uint32_t i = 0; i < SITES; i++)
        known[i] = (struct site_kept){i + 1, TICK_S(60), now.wall, now.wall, 1, 0};
    site_keep_restore(net.shards[0].sites, known, SITES, now);
    for (uint32_t call = 0; call < 2; call++) {
        assert_int_not_equal(UINT64_MAX, cursor);
        assert_int_not_equal(UINT64_MAX, order_cursor);
        assert_int_equal(0, site_keep_next(net.shards[0].sites, SITE_KEEP_WINDOW, &cursor, now,
                                           rows, COUNT_OF(rows)));
        assert_int_equal(0, site_keep_next_orders(net.shards[0].sites, &order_cursor, now, orders,
                                                  COUNT_OF(orders)));
    }
    assert_int_equal(UINT64_MAX, cursor);
    assert_int_equal(UINT64_MAX, order_cursor);
    net_fini(&net);
}

/* Goal: at the end of a process that another one follows at once, short windows are taken as well,
 * and hold there. */
static void short_windows_survive_a_clean_end(void **state)
{
    static struct site_kept rows[SITE_KEPT_MAX];
    const wall_us wall = 1700000000000000;
    uint64_t cursor = 0;
    struct net net;

    (void)state;
    net_init(&net, 1, 3, 10, 1);
    struct site *site = limited_site(&net, 0, 0, "3/10s, 4/1m");
    use(&net, 0, site);
    use(&net, 0, site);
    assert_int_equal(0, rows_take(&net, wall, rows));
    uint32_t count = site_keep_next(net.shards[0].sites, 0, &cursor,
                                    (struct tick_now){net.now, wall}, rows, SITE_KEPT_MAX);
    assert_int_equal(2, count); /* two at one time, in each window */
    net_fini(&net);

    net_init(&net, 1, 3, 10, 1);
    net.now = TICK_S(7000);
    rows_restore(&net, wall + (wall_us)TICK_S(9), rows, count);
    site = limited_site(&net, 0, 0, "3/10s, 4/1m");
    use(&net, 0, site);
    assert_int_equal(ERR_AGAIN, acquire(&net, 0, site));
    net_pass(&net, TICK_S(2)); /* the first two are over in the short window */
    use(&net, 0, site);
    assert_int_equal(ERR_AGAIN, acquire(&net, 0, site)); /* by the long one */
    net_fini(&net);
}

/* Goal: what long windows counted holds in the next life, with another number of shards and another
 * monotonic clock; short windows begin empty, and what was out counts as used. */
static void long_windows_survive_a_restart(void **state)
{
    static struct site_kept rows[SITE_KEPT_MAX];
    wall_us wall = 1700000000000000;
    struct net net;

    (void)state;
    net_init(&net, 2, 3, 10, 1);
    struct site *site = limited_site(&net, 1, 0, "3/1m, 4/1h");
    use(&net, 1, site);
    use(&net, 1, site);
    assert_int_equal(ERR_AGAIN, acquire(&net, 1, site));
    net_settle(&net);
    assert_int_equal(ERR_OK, acquire(&net, 1, site)); /* out when the process ends */
    uint32_t count = rows_take(&net, wall, rows);
    assert_int_equal(2, count); /* the two at one time, and the one that is out */
    net_fini(&net);

    net_init(&net, 3, 3, 10, 1);
    net.now = TICK_S(7000);
    rows[0].key = rows[1].key = 3; /* as a key of shard 0 of three */
    rows_restore(&net, wall + (wall_us)TICK_S(600), rows, count);
    site = limited_site(&net, 1, 0, "3/1m, 4/1h");
    use(&net, 1, site);
    assert_int_equal(ERR_AGAIN, acquire(&net, 1, site));
    net.shards[1].wakes = 0;
    net_pass(&net, TICK_S(3600 - 601));
    assert_int_equal(0, net.shards[1].wakes);
    net_pass(&net, TICK_S(2)); /* the first life's are an hour old */
    assert_int_equal(1, net.shards[1].wakes);
    for (uint32_t i = 0; i < 3; i++)
        use(&net, 1, site);
    assert_int_equal(ERR_AGAIN, acquire(&net, 1, site));
    net_fini(&net);
}

static void senseless_rows_are_passed_over(void **state)
{
    static const struct {
        const char *name;
        struct site_kept row;
        uint32_t kept;
    } cases[] = {
        {"good", {7, TICK_S(600), 50, 60, 1, 0}, 1},
        {"a short window", {7, TICK_S(600) - 1, 50, 60, 1, 0}, 0},
        {"a window beyond all", {7, RATE_WINDOW_MAX + 1, 50, 60, 1, 0}, 0},
        {"no event", {7, TICK_S(600), 50, 60, 0, 0}, 0},
        {"more events than there may be", {7, TICK_S(600), 50, 60, RATE_COUNT_MAX + 1, 0}, 0},
        {"in the future", {7, TICK_S(600), INT64_MAX, INT64_MAX, 1, 0}, 1},
        {"before all time", {7, TICK_S(600), INT64_MIN / 2, INT64_MIN / 2, 1, 0}, 0},
        {"ends before it begins", {7, TICK_S(600), 60, 50, 1, 0}, 1},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        static struct site_kept rows[SITE_KEPT_MAX];
        struct net net;
        print_message("# case: %s\n", cases[i].name);
        net_init(&net, 1, 3, 10, 1);
        net.now = TICK_S(1000);
        rows_restore(&net, 100, &cases[i].row, 1);
        assert_int_equal(cases[i].kept, rows_take(&net, 100, rows));
        net_pass(&net, TICK_S(1000));
        assert_int_equal(0, rows_take(&net, 100 + (wall_us)TICK_S(1000), rows));
        net_fini(&net);
    }
}

/* ---- traffic ---- */

struct attempt { /* MAIL is said at `said` and reaches the peer at `arrives`; its answer is in at
                    `answered` */
    tick_us arrives, answered;
    bool is_used;
};

static struct traffic {
    struct net net;
    struct rate_set rates;
    struct site *sites[SHARDS_MAX];
    struct attempt attempts[SHARDS_MAX][FLOW_MAX];
    uint32_t counts[SHARDS_MAX];
    tick_us arrivals[HISTORY_MAX];
    uint32_t arrival_count;
    bool is_night;
} * traffic;

static void serve(struct shard *shard, struct site *site)
{
    struct net *net = &traffic->net;
    uint32_t *count = &traffic->counts[shard->number];

    while (*count < (traffic->is_night ? 1 : FLOW_MAX)) {
        if (site_mail_acquire(shard->sites, site, (int64_t)net->now, 8, net->now) != ERR_OK)
            return;
        tick_us arrives = net->now + 1000 + rng_below(&net->rng, 800000);
        traffic->attempts[shard->number][(*count)++] = (struct attempt){
            .arrives = arrives,
            .answered = arrives + 1000 + rng_below(&net->rng, 200000),
            .is_used = rng_below(&net->rng, 10) != 0,
        };
    }
}

static void attempts_end(uint32_t shard)
{
    struct net *net = &traffic->net;

    for (uint32_t i = 0; i < traffic->counts[shard];) {
        struct attempt attempt = traffic->attempts[shard][i];
        if (attempt.answered > net->now) {
            i++;
            continue;
        }
        traffic->attempts[shard][i] = traffic->attempts[shard][--traffic->counts[shard]];
        if (attempt.is_used) {
            assert_true(traffic->arrival_count < HISTORY_MAX);
            traffic->arrivals[traffic->arrival_count++] = attempt.arrives;
        }
        site_mail_done(net->shards[shard].sites, traffic->sites[shard], attempt.is_used, net->now);
    }
}

static int tick_compare(const void *a, const void *b)
{
    tick_us left = *(const tick_us *)a, right = *(const tick_us *)b;

    return (left > right) - (left < right);
}

/* The most MAILs that reached the peer in any closed window of this length. */
static uint32_t peak_at_the_peer(tick_us window)
{
    uint32_t first = 0, peak = 0;

    for (uint32_t i = 0; i < traffic->arrival_count; i++) {
        while (traffic->arrivals[i] - traffic->arrivals[first] > window)
            first++;
        peak = i - first + 1 > peak ? i - first + 1 : peak;
    }
    return peak;
}

static void traffic_run(uint32_t shards, const char *rates, tick_us time, tick_us delay_max,
                        bool has_nights, uint64_t seed)
{
    struct net *net = &traffic->net;

    *traffic = (struct traffic){.rates = rates_of(rates)};
    net_init(net, shards, 3, 10, seed);
    net->delay_max = delay_max;
    net->on_wake = serve;
    for (uint32_t i = 0; i < shards; i++) {
        traffic->sites[i] = net_site(net, i, 0, 1);
        site_rates_set(net->shards[i].sites, traffic->sites[i], &traffic->rates, net->now);
    }
    for (tick_us end = net->now + time; net->now < end;) {
        uint32_t busy = 0;
        traffic->is_night = has_nights && net->now / TICK_S(3600) % 24 < 6;
        for (uint32_t i = 0; i < shards; i++) {
            attempts_end(i);
            serve(&net->shards[i], traffic->sites[i]);
            site_advance(net->shards[i].sites, net->now);
            busy += traffic->counts[i];
        }
        net_deliver(net);
        bool is_quiet = busy == 0 && net->flight_count == 0;
        net->now += is_quiet ? TICK_MS(200) : 1 + rng_below(&net->rng, 60000);
    }
    net_verify(net);
    qsort(traffic->arrivals, traffic->arrival_count, sizeof(traffic->arrivals[0]), tick_compare);
    for (uint32_t i = 0; i < traffic->rates.count; i++) {
        const struct rate *rate = &traffic->rates.rates[i];
        uint32_t peak = peak_at_the_peer(rate->window);
        print_message("# %u shards, %u in %llu s: peak %u, %u in all\n", shards, rate->count,
                      (unsigned long long)(rate->window / TICK_S(1)), peak, traffic->arrival_count);
        assert_true(peak <= rate->count);
    }
    net_fini(net);
}

static void traffic_of_every_kind_is_exact(void **state)
{
    static const struct {
        uint32_t shards;
        const char *rates;
        tick_us delay;
        uint32_t least; /* MAILs in 20 minutes */
    } cases[] = {
        {1, "100/1m", 0, 1800},
        {2, "100/1m", 2000, 1750},
        {2, "3/1m", 2000, 50},
        {4, "100/1m", 50000, 1600},
        {8, "1000/1m", 2000, 12000},
        {2, "10/s", 1000, 4000},
        {3, "5/2s, 100/1m", 400000, 1000},
        {2, "50/s,max_burst=5", 1000, 1000},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        for (uint64_t seed = 1; seed <= 3; seed++) {
            traffic_run(cases[i].shards, cases[i].rates, TICK_S(1200), cases[i].delay, false, seed);
            assert_true(traffic->arrival_count >= cases[i].least);
        }
    }
}

/* Goal: a week of two shards in virtual time, nights quiet; three windows hold at the peer. */
static void week_of_two_shards(void **state)
{
    (void)state;
    traffic_run(2, "100/1m, 1000/1h, 8000/1d", WEEK, 2000, true, 4711);
    assert_in_range(traffic->arrival_count, 7 * 8000 / 100 * 90, 8 * 8000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(site_without_rates_is_free),
        cmocka_unit_test(right_comes_back_behind_the_window),
        cmocka_unit_test(unused_right_is_free_at_once),
        cmocka_unit_test(idle_rights_go_back_when_the_lease_ends),
        cmocka_unit_test(released_site_gives_its_rights_back),
        cmocka_unit_test(home_hears_the_name),
        cmocka_unit_test(rates_can_be_changed),
        cmocka_unit_test(mail_that_began_without_a_rate_costs_no_right),
        cmocka_unit_test(windows_outlive_disuse),
        cmocka_unit_test(right_wanted_by_two_goes_to_the_older_mail),
        cmocka_unit_test(short_windows_survive_a_clean_end),
        cmocka_unit_test(rows_are_looked_for_in_bounds),
        cmocka_unit_test(long_windows_survive_a_restart),
        cmocka_unit_test(senseless_rows_are_passed_over),
        cmocka_unit_test(traffic_of_every_kind_is_exact),
        cmocka_unit_test(week_of_two_shards),
    };

    traffic = calloc(1, sizeof(*traffic));
    CHECK(traffic != NULL);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(traffic);
    return failed;
}

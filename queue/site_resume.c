/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An operator who mended the other side says: go on now.
 *
 * What a site's answers taught against it is forgotten at once, on all shards: the pause after
 * failures, how long the next one and the next back-off would be, matches of patterns on their way
 * to an order, connections that it was thought not to take, addresses that were tried last. What
 * patterns ordered ends by `act` (site_orders_cancel()), suspensions of operators as well; what
 * returned mail stays known, so that it does not return more before its time.
 *
 * Invariants
 *   1. Afterwards the site stands no worse than a new one.
 *   2. What began before and fails only then is not held against it (`resumed`, site_home.c).
 *
 * The home does it for all shards but for dead addresses, of which each shard has its own memory.
 */
#include "queue/site_state.h"

static uint32_t orders_meant(const struct site_act *act, const struct site_home *home)
{
    uint32_t count, meant = 0;
    const struct site_order *orders = site_home_orders(home, &count);

    for (uint32_t i = 0; i < count; i++)
        meant += site_act_means(act, &orders[i]);
    return meant;
}

static bool has_matches(const struct site_home *home)
{
    bool has = false;

    for (uint32_t i = 0; i < SITE_MATCHES_MAX; i++)
        has = has || home->matches[i].count > 0;
    return has;
}

/* What holds the site back now. */
static struct site_ended held_back(const struct site_act *act, const struct site_home *home,
                                   tick_us now)
{
    return (struct site_ended){
        .orders = orders_meant(act, home),
        .pauses = home->paused_until > now,
        .back_offs = home->failures > 0 || home->back_offs > 0 || has_matches(home),
        .reduced = site_learn_is_reduced(home),
    };
}

static void home_forgive(struct site_set *sites, struct site *site, const struct site_act *act,
                         tick_us now)
{
    struct site_home *home = site->home;

    (void)site_orders_cancel(sites, site, act, now);
    home->failures = home->back_offs = 0;
    home->paused_until = home->back_off_until = 0;
    home->resumed = now;
    memset(home->matches, 0, sizeof(home->matches));
    site_learn_forgive(sites, home, now);
    sites->words++;
    site_home_orders_changed(sites, site, now);
    site_drain(sites, now);
    site_review(sites, site);
}

bool site_resume(struct site_set *sites, struct site *site, struct site_act *act, tick_us now)
{
    struct site_ended *ended = &act->ended;
    struct site_ended here = {0};

    site_start(sites, now);
    if (site->home != NULL) {
        site_orders_review(sites, site, now);
        here = held_back(act, site->home, now);
    }
    uint32_t hosts = site_hosts_forgive(sites, site->key, act->is_dry_run, now);
    bool is_any = here.orders + here.pauses + here.back_offs + here.reduced + hosts > 0;
    if (is_any && site->home != NULL && !act->is_dry_run)
        home_forgive(sites, site, act, now);
    act->hosts_here += hosts;
    ended->orders += here.orders;
    ended->pauses += here.pauses;
    ended->back_offs += here.back_offs;
    ended->reduced += here.reduced;
    ended->hosts = act->hosts_here > ended->hosts ? act->hosts_here : ended->hosts;
    return is_any;
}

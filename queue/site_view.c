/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sites as people see them, and their invariants (site.c and site_home.c number them).
 */
#include "queue/site_state.h"

struct site_view site_get_view(const struct site *site)
{
    return (struct site_view){
        .key = site->key,
        .label = span_of(site->label, site->label_size),
        .source = span_of(site->source, site->source_size),
        .slots_held = site->held,
        .slots_used = site->used,
        .connection_max = site->limit,
        .paused_until = site->paused_until,
        .failures = site->failures,
        .rates = site->rates,
        .mail_held = site->mail_held,
        .is_suspended = site->is_suspended,
    };
}

static void view_add_home(const struct site_set *sites, struct site_home *home,
                          struct site_view *view)
{
    tick_us now = sites->wheel.now;

    view->is_home = true;
    struct site_learned learned = site_learned_now(sites, home, now);
    view->allowed = learned.allowed < home->configured ? learned.allowed : home->configured;
    view->allowed_reason = learned.reason;
    view->allowed_since = learned.since;
    view->orders = site_home_orders(home, &view->order_count);
    view->mail_out = home->mail_out_total;
    view->use_count = rate_limiter_uses(&home->mails, home->mail_out_total, now, view->uses);
    const struct rate_window *binding = rate_limiter_binding(&home->mails, now);
    if (binding == NULL)
        return;
    view->binding = binding->rate;
    view->binding_used = binding->total;
    view->mail_next = rate_limiter_next(&home->mails, home->mail_out_total, now);
}

bool site_next(const struct site_set *sites, uint32_t *cursor, struct site_view *ret_view)
{
    uint64_t place = *cursor;
    const struct site *site = slab_next(&sites->sites, &place);

    *cursor = (uint32_t)place;
    if (site == NULL)
        return false;
    *ret_view = site_get_view(site);
    if (site->home != NULL)
        view_add_home(sites, site->home, ret_view);
    return true;
}

static void site_verify(const struct site_set *sites, const struct site *site)
{
    CHECK(site->used <= site->held && site->owed <= site->held);
    CHECK(wheel_is_armed(&site->lease_timer) == (site->held > 0));
    CHECK(site->is_idle == !site_is_needed(sites, site));
    CHECK(!site->is_waiting || site->hold_count > 0);
    CHECK(!site->is_mail_waiting || site->hold_count > 0);
    CHECK(!site->is_waking || site->is_waiting || site->is_mail_waiting);
    if (site->is_waiting)
        CHECK(site->asked > 0 || site->is_waking || wheel_is_armed(&site->pause_timer));
    site_mail_verify(site);
    site_home_verify(sites, site);
}

void site_set_verify(const struct site_set *sites)
{
    const struct site *site;
    uint64_t cursor = 0;
    uint32_t idle = 0, waking = 0;

    CHECK(sites->self_count == 0);
    while ((site = slab_next(&sites->sites, &cursor)) != NULL) {
        site_verify(sites, site);
        idle += site->is_idle;
        waking += site->is_waking;
    }
    CHECK(waking == sites->waking_count);
    TAILQ_FOREACH(site, &sites->idle, idle_link)
    {
        CHECK(site->is_idle);
        idle--;
    }
    CHECK(idle == 0);
}

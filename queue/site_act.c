/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an operator does to sites by name: a walk over those whose home we are, in slices.
 *
 * An order also stands for sites of that name that become known before it ends: each shard keeps
 * it, and a site takes it when its home first grants something. Such a site may be one more
 * source's view of the same receivers. A key names one site alone, and stands for none to come.
 *
 * A name is the label, or the key in hexadecimal digits as people are shown it: two sites may have
 * one label, when a domain has changed its mail exchangers lately.
 */
#include "queue/site_state.h"

#define ACT_SLICE 4096u /* sites that are looked at in one step */
#define KEY_SIZE  16u   /* digits */

static bool key_is(struct span name, uint64_t key)
{
    static const char digits[] = "0123456789abcdef";

    if (name.size != KEY_SIZE)
        return false;
    for (uint32_t i = 0; i < KEY_SIZE; i++) {
        if (name.data[i] != digits[key >> (60 - 4 * i) & 15])
            return false;
    }
    return true;
}

static bool name_is_of(struct span name, const struct site *site)
{
    return span_is_equal_nocase(name, span_of(site->label, site->label_size));
}

/* An empty name means every site. */
static bool act_matches(const struct site_act *act, const struct site *site)
{
    struct span name = span_from_text(act->name);

    return name.size == 0 || key_is(name, site->key) || name_is_of(name, site);
}

/* ---- for sites to come ---- */

static void standing_end_old(struct site_set *sites, tick_us now)
{
    uint32_t left = 0;

    for (uint32_t i = 0; i < sites->standing_count; i++) {
        if (sites->standing[i].order.until > now)
            sites->standing[left++] = sites->standing[i];
    }
    sites->standing_count = left;
}

bool site_standing_add(struct site_set *sites, const char *name, const struct site_order *order,
                       tick_us now)
{
    standing_end_old(sites, now);
    if (sites->standing_count == SITE_STANDING_MAX)
        return false;
    struct site_standing *standing = &sites->standing[sites->standing_count++];
    *standing = (struct site_standing){.order = *order};
    memcpy(standing->name, name, strnlen(name, SITE_LABEL_MAX));
    return true;
}

bool site_act_means(const struct site_act *act, const struct site_order *order)
{
    uint32_t kinds = act->kinds | (order->is_pattern ? act->pattern_kinds : 0);

    return (act->id == 0 || order->id == act->id) && (1u << order->kind & kinds) != 0;
}

static void standing_cancel(struct site_set *sites, struct site_act *act)
{
    struct span name = span_from_text(act->name);
    uint32_t left = 0;

    for (uint32_t i = 0; i < sites->standing_count; i++) {
        struct site_standing *standing = &sites->standing[i];
        bool is_meant =
            site_act_means(act, &standing->order) &&
            (name.size == 0 || span_is_equal_nocase(name, span_from_text(standing->name)));
        act->is_known = act->is_known || is_meant;
        if (!is_meant || act->is_dry_run)
            sites->standing[left++] = *standing;
    }
    sites->standing_count = left;
}

static bool has_id(const struct site_home *home, uint32_t id)
{
    uint32_t count;
    const struct site_order *orders = site_home_orders(home, &count);
    bool has = false;

    for (uint32_t i = 0; i < count; i++)
        has = has || orders[i].id == id;
    return has;
}

void site_standing_apply(struct site_set *sites, struct site *site, tick_us now)
{
    if (site->home->has_standing || site->label_size == 0)
        return;
    site->home->has_standing = true;
    for (uint32_t i = 0; i < sites->standing_count; i++) {
        const struct site_standing *standing = &sites->standing[i];
        if (standing->order.until > now && !has_id(site->home, standing->order.id) &&
            name_is_of(span_from_text(standing->name), site) &&
            site_home_order_add(sites, site, &standing->order, now) != ERR_OK)
            sites->orders_refused++;
    }
}

/* ---- the walk ---- */

/* False: nothing more may stand, so that nothing is given at all. */
static bool act_begin(struct site_set *sites, struct site_act *act, tick_us now)
{
    bool is_key =
        strlen(act->name) == KEY_SIZE && act->name[strspn(act->name, "0123456789abcdef")] == '\0';

    if (act->order == NULL) {
        standing_cancel(sites, act);
        return true;
    }
    if (act->is_dry_run || is_key || act->name[0] == '\0')
        return true;
    act->is_known = site_standing_add(sites, act->name, act->order, now);
    return act->is_known;
}

static bool has_order(const struct site_act *act, const struct site_home *home)
{
    uint32_t count;
    const struct site_order *orders = site_home_orders(home, &count);
    bool has = false;

    for (uint32_t i = 0; i < count; i++)
        has = has || site_act_means(act, &orders[i]);
    return has;
}

static void act_on(struct site_set *sites, struct site_act *act, struct site *site, tick_us now)
{
    struct span label = span_of(site->label, site->label_size);

    if (act->is_resume) {
        bool is_held_back = site_resume(sites, site, act, now);
        act->matched += site->home != NULL;
        act->done += site->home != NULL && is_held_back && !act->is_dry_run;
        return;
    }
    if (site->home == NULL || (act->order == NULL && !has_order(act, site->home)))
        return;
    act->matched++;
    if (act->is_dry_run || act->is_full)
        return;
    uint32_t ended = act->order == NULL ? site_orders_cancel(sites, site, act, now) : 0;
    act->ended.orders += ended;
    if (act->order == NULL)
        act->done += ended > 0;
    else
        act->done += site_order_add(sites, site->key, label, act->order, now) == ERR_OK;
}

bool site_act_step(struct site_set *sites, struct site_act *act, uint64_t *cursor, tick_us now)
{
    CHECK(act->order != NULL || act->kinds != 0);
    if (*cursor == 0) {
        act->is_full = !act_begin(sites, act, now) || act->is_full;
        act->hosts_here = 0;
    }
    for (uint32_t i = 0; i < ACT_SLICE; i++) {
        struct site *site = slab_next(&sites->sites, cursor);
        if (site == NULL)
            return false;
        if (act_matches(act, site))
            act_on(sites, act, site, now);
    }
    return true;
}

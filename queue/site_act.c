/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an operator does to sites by name: a walk over those whose home we are, in slices.
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

/* An empty name means every site. */
static bool act_matches(const struct site_act *act, const struct site *site)
{
    struct span name = span_from_text(act->name);

    return name.size == 0 || key_is(name, site->key) ||
           span_is_equal_nocase(name, span_of(site->label, site->label_size));
}

static bool has_order(const struct site_act *act, const struct site_home *home)
{
    uint32_t count;
    const struct site_order *orders = site_home_orders(home, &count);
    bool has = false;

    for (uint32_t i = 0; i < count; i++)
        has = has || ((act->id == 0 || orders[i].id == act->id) &&
                      (1u << orders[i].kind & act->kinds) != 0);
    return has;
}

static void act_on(struct site_set *sites, struct site_act *act, const struct site *site,
                   tick_us now)
{
    struct span label = span_of(site->label, site->label_size);

    if (act->order == NULL && !has_order(act, site->home))
        return;
    act->matched++;
    if (act->is_dry_run)
        return;
    if (act->order == NULL)
        act->done += site_orders_cancel(sites, site->key, act->id, act->kinds, now) > 0;
    else
        act->done += site_order_add(sites, site->key, label, act->order, now) == ERR_OK;
}

bool site_act_step(struct site_set *sites, struct site_act *act, uint64_t *cursor, tick_us now)
{
    CHECK(act->order != NULL || act->kinds != 0);
    for (uint32_t i = 0; i < ACT_SLICE; i++) {
        const struct site *site = slab_next(&sites->sites, cursor);
        if (site == NULL)
            return false;
        if (site->home != NULL && act_matches(act, site))
            act_on(sites, act, site, now);
    }
    return true;
}

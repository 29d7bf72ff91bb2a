/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sites: which there are. A table by key, and a list of those that nobody needs.
 *
 * Invariant (site_set_verify()): a site is in the idle list exactly while nobody here or elsewhere
 * needs it; only such a site is forgotten, least recently used first, and what slots it has are
 * returned.
 *
 * Limits: site_count_max sites of our own; as a home we keep besides what other shards ask for,
 * which their own limits bound.
 */
#include "queue/site_state.h"

/* ---- who is needed ---- */

static void idle_append(struct site_set *sites, struct site *site)
{
    site->is_idle = true;
    TAILQ_INSERT_TAIL(&sites->idle, site, idle_link);
}

static void idle_remove(struct site_set *sites, struct site *site)
{
    if (site->is_idle)
        TAILQ_REMOVE(&sites->idle, site, idle_link);
    site->is_idle = false;
}

bool site_is_needed(const struct site_set *sites, const struct site *site)
{
    return site->hold_count > 0 || site->used > 0 || site->is_waiting || site->mail_out > 0 ||
           site->mail_used > 0 || !site_home_is_idle(sites, site);
}

void site_review(struct site_set *sites, struct site *site)
{
    bool is_needed = site_is_needed(sites, site);

    if (is_needed)
        idle_remove(sites, site);
    else if (!site->is_idle)
        idle_append(sites, site);
}

/* ---- the table ---- */

static struct site **site_bucket(const struct site_set *sites, uint64_t key)
{
    uint64_t hash = keyed_hash_octets(&sites->hash, span_of(&key, sizeof(key)));
    return &sites->buckets[hash & sites->bucket_mask];
}

struct site *site_find(const struct site_set *sites, uint64_t key)
{
    struct site *site = *site_bucket(sites, key);

    while (site != NULL && site->key != key)
        site = site->hash_next;
    return site;
}

static void site_forget(struct site_set *sites, struct site *site)
{
    struct site **link = site_bucket(sites, site->key);

    CHECK(!site_is_needed(sites, site));
    if (site_home_shard(sites, site->key) != sites->options.shard)
        site_give_back(sites, site, site->held);
    site_mail_give_back(sites, site);
    idle_remove(sites, site);
    site_waking_remove(sites, site);
    wheel_cancel(&sites->wheel, &site->lease_timer);
    wheel_cancel(&sites->wheel, &site->pause_timer);
    wheel_cancel(&sites->wheel, &site->mail_timer);
    while (*link != site)
        link = &(*link)->hash_next;
    *link = site->hash_next;
    site_home_free(sites, site);
    slab_release(&sites->sites, site);
}

struct site *site_make(struct site_set *sites, uint64_t key)
{
    while (sites->sites.in_use >= sites->options.site_count_max && !TAILQ_EMPTY(&sites->idle))
        site_forget(sites, TAILQ_FIRST(&sites->idle));
    struct site *site = slab_acquire(&sites->sites);
    CHECK(site != NULL);
    struct site **bucket = site_bucket(sites, key);
    site->key = key;
    site->limit = sites->options.connection_max;
    site->holder = SITE_HOLDER_NONE;
    site->is_learning = true;
    site->lease_timer.kind = SITE_TIMER_LEASE;
    site->pause_timer.kind = SITE_TIMER_PAUSE;
    site->mail_timer.kind = SITE_TIMER_MAIL;
    site->hash_next = *bucket;
    *bucket = site;
    idle_append(sites, site);
    return site;
}

struct site *site_get(struct site_set *sites, uint64_t key, struct span label, tick_us now)
{
    struct site *site = site_find(sites, key);

    site_start(sites, now);
    if (site == NULL) {
        if (sites->sites.in_use >= sites->options.site_count_max && TAILQ_EMPTY(&sites->idle))
            return NULL;
        site = site_make(sites, key);
    } else if (site->is_idle) {
        idle_remove(sites, site);
        idle_append(sites, site);
    }
    if (site->label_size == 0 && label.size > 0) {
        site->label_size = (uint8_t)(label.size < SITE_LABEL_MAX ? label.size : SITE_LABEL_MAX);
        memcpy(site->label, label.data, site->label_size);
    }
    return site;
}

void site_set_source(struct site *site, struct span name)
{
    site->source_size = (uint8_t)(name.size < SITE_SOURCE_MAX ? name.size : SITE_SOURCE_MAX);
    if (site->source_size > 0)
        memcpy(site->source, name.data, site->source_size);
}

void site_hold(struct site *site)
{
    site->hold_count++;
    idle_remove(slab_owner(site), site);
}

void site_release(struct site_set *sites, struct site *site)
{
    CHECK(site->hold_count > 0);
    if (--site->hold_count == 0) {
        site->is_waiting = site->is_mail_waiting = false; /* nobody is left to be woken */
        site_waking_remove(sites, site);
        site_mail_give_back(sites, site);
        site_drain(sites, sites->wheel.now);
    }
    site_review(sites, site);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the transfer keeps of a site as seen from one source: the limiter that it holds, and the
 * connections and places that are there.
 *
 * The key of a site is made of the names of its hosts (or of a provider's name alone), and of the
 * source's name: connections, rates, back-off and windows kept over a restart go by that key. The
 * source that exists without `sources` adds nothing to it.
 *
 * Invariant: a site is kept while it has a connection or a place may send over it.
 */
#include "relay/transfer_internal.h"

#include <stdlib.h>

#define NAME_WITH_PORT_MAX (MX_NAME_MAX + 6u)

static uint32_t site_bucket(uint64_t key)
{
    return (uint32_t)(key >> 32 ^ key) % TRANSFER_SITE_BUCKETS;
}

struct transfer_site *transfer_site_find(struct transfer *transfer, uint64_t key)
{
    struct transfer_site *site = transfer->sites_by_key[site_bucket(key)];
    while (site != NULL && site->key != key)
        site = site->hash_next;
    return site;
}

void transfer_on_site_name(void *context, const struct site *site)
{
    struct transfer *transfer = context;
    struct site_view view = site_get_view(site);
    struct transfer_site *known = transfer_site_find(transfer, view.key);
    struct transfer_member *member;
    struct transfer_line *line;

    if (known == NULL)
        return;
    TAILQ_FOREACH(member, &known->members, link)
    {
        struct transfer_place *place = member->place;
        if (member != &place->members[0])
            continue; /* it has the name of its first source's site */
        memcpy(place->label, view.label.data, view.label.size);
        place->label[view.label.size] = '\0';
        TAILQ_FOREACH(line, &place->lines, link)
        qmgr_line_set_site(line->line, view.label);
    }
}

struct transfer_site *transfer_site_get(struct transfer *transfer, uint64_t key, struct span label,
                                        struct span source)
{
    struct transfer_site *site = transfer_site_find(transfer, key);
    if (site != NULL)
        return site;
    struct site *limiter = site_get(transfer->sites, key, label, transfer->now.tick);
    if (limiter == NULL)
        return NULL;
    site_set_source(limiter, source);
    site_hold(limiter);
    site = calloc(1, sizeof(*site));
    CHECK(site != NULL);
    site->key = key;
    site->site = limiter;
    site->connection_max = site_get_view(limiter).connection_max;
    TAILQ_INIT(&site->members);
    uint32_t bucket = site_bucket(key);
    site->hash_next = transfer->sites_by_key[bucket];
    transfer->sites_by_key[bucket] = site;
    return site;
}

/* The key of what `name` makes of `base`. */
static uint64_t key_within(uint64_t base, const char *name)
{
    uint8_t text[16];

    for (uint32_t i = 0; i < sizeof(text); i++)
        text[i] = (uint8_t) "0123456789abcdef"[base >> (60 - 4 * i) & 15u];
    return site_key(span_from_text(name), &(struct span){text, sizeof(text)}, 1);
}

/* By hand: a line comes this way with little more than one message in it, and snprintf() cost it
 * more than all else. */
static struct span name_put(struct span_text *text, const struct transfer *transfer,
                            const struct mx_host *host)
{
    uint32_t from = text->size;

    span_text_put(text, span_from_text(host->name));
    if (host->port != transfer->settings->mx.port) {
        span_text_put(text, SPAN_LITERAL(":"));
        span_text_put_u64(text, host->port);
    }
    return span_skip(span_text_get(text), from);
}

/* Names, each with its port where a route gave it another than a mail exchanger's: servers on two
 * ports of one host fail, and are limited, each by itself. The key of those that came last is kept:
 * where all mail has one route, that spares it three hashes a message. */
uint64_t transfer_site_base(struct transfer *transfer, const struct mx_answer *answer,
                            const struct settings_site_limits *limits)
{
    struct transfer_base *last = &transfer->base_last;
    uint8_t octets[MX_HOST_MAX * (NAME_WITH_PORT_MAX + 1) + sizeof(limits->name)] UNINITIALIZED;
    struct span_text text = {.data = octets, .size_max = sizeof(octets)};
    struct span names[MX_HOST_MAX + 1] UNINITIALIZED;
    uint32_t count = 0;

    if (limits->name[0] != '\0') {
        names[count++] = span_from_text(limits->name);
        span_text_put(&text, names[0]);
    }
    uint32_t name_count = limits->provider == NULL ? answer->host_count + answer->other_count : 0;
    for (uint32_t i = 0; i < name_count; i++) {
        span_text_put(&text, span_of("", 1)); /* no name has one: no two lists make one text */
        names[count++] = name_put(&text, transfer, &answer->hosts[i]);
    }
    if (last->size == text.size && memcmp(last->names, octets, text.size) == 0)
        return last->base;
    uint64_t base = site_key((struct span){0}, names, count);
    if (text.size > 0 && text.size <= sizeof(last->names)) {
        memcpy(last->names, octets, text.size);
        last->size = text.size;
        last->base = base;
    }
    return base;
}

uint64_t transfer_site_key(uint64_t base, const struct settings_source *source)
{
    return source->is_implied ? base : key_within(base, source->name);
}

/* Domains of one site may have routes of their own: the one that came last decides. */
void transfer_site_limit(struct transfer *transfer, struct transfer_site *site,
                         const struct settings_source *source, const struct settings_route *route,
                         const struct settings_site_limits *limits)
{
    uint32_t connection_max = route->connection_max;
    uint32_t warmup = settings_warmup_limit(source, transfer->now.wall);
    struct rate_set rates = limits->rates;

    if (connection_max == 0)
        connection_max = limits->connection_max;
    if (connection_max == 0)
        connection_max = transfer->options.sites.connection_max;
    site->messages_per_connection_max = limits->messages_per_connection_max;
    site->recipient_max = limits->recipient_max;
    site->bdat_ahead = limits->bdat_ahead;
    if (settings_route_has_source(route) && warmup != SETTINGS_WARM && warmup > 0) {
        enum err err = rate_set_add(&rates, (struct rate){warmup, (tick_us)SETTINGS_DAY});
        CHECK(err == ERR_OK); /* the configuration leaves room for it */
    }
    site_rates_set(transfer->sites, site->site, &rates, transfer->now.tick);
    if (site->connection_max == connection_max)
        return;
    site->connection_max = connection_max;
    site_limit_set(transfer->sites, site->site, connection_max, transfer->now.tick);
}

void transfer_site_wake(struct transfer *transfer, struct transfer_site *site)
{
    struct transfer_member *member;

    TAILQ_FOREACH(member, &site->members, link)
    transfer_place_wake(transfer, member->place);
}

/* A shard asks for slots with one rank: two that took turns could make it give back what it has
 * just been given, for ever. */
int64_t transfer_site_rank(const struct transfer_site *site)
{
    const struct transfer_member *member;
    int64_t rank = INT64_MAX;

    TAILQ_FOREACH(member, &site->members, link)
    rank = member->place->rank < rank ? member->place->rank : rank;
    return rank;
}

void transfer_site_review(struct transfer *transfer, struct transfer_site *site)
{
    if (site->connections > 0 || !TAILQ_EMPTY(&site->members))
        return;
    struct transfer_site **link = &transfer->sites_by_key[site_bucket(site->key)];
    while (*link != site)
        link = &(*link)->hash_next;
    *link = site->hash_next;
    site_release(transfer->sites, site->site);
    free(site);
}

void transfer_sites_free(struct transfer *transfer)
{
    for (uint32_t bucket = 0; bucket < TRANSFER_SITE_BUCKETS; bucket++) {
        struct transfer_site *site = transfer->sites_by_key[bucket];
        while (site != NULL) {
            struct transfer_site *next = site->hash_next;
            site_release(transfer->sites, site->site);
            free(site);
            site = next;
        }
    }
}

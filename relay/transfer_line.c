/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hub of a shard, outbound half: the way of a line (the due mail of one domain) to its site.
 *
 *   qmgr_line_next() -> RESOLVING <-> WOKEN        route found, MX asked; the DNS wakes us
 *                          |   \--> SETTLING, then returned: discard, refuse, no such domain, DNS
 *                          |        trouble; all that is due, as its envelopes come
 *                          v
 *                       AT_SITE                    waits its turn among the lines of its site
 *                          \--> qmgr_line_return() nothing due any more, or route and MX must be
 * looked at anew
 *
 * A site is served while it has a READY job or a line with due mail, and a connection can be had: a
 * kept one, or a slot. Whose delivery goes next is the order of a qmgr_round: by class, then sender
 * domains in turn, wherever at the site their mail goes.
 *
 * Invariants
 *   1. A line handed out by the queue is in exactly one list here until qmgr_line_return().
 *   2. A transfer_site exists while it has lines, jobs or connections, and holds its struct site
 * for as long.
 *   3. A route pointer is followed only while the snapshot it came from is the present one
 * (settings_serial).
 *
 * Limits: TRANSFER_READ_AHEAD_MAX bodies a site are read back ahead of a connection; memory for
 * them in transfer_job.c.
 */
#include "relay/transfer_internal.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- sites ---- */

static uint32_t transfer_site_bucket(uint64_t key)
{
    return (uint32_t)(key >> 32 ^ key) % TRANSFER_SITE_BUCKETS;
}

struct transfer_site *transfer_site_find(struct transfer *transfer, uint64_t key)
{
    struct transfer_site *site = transfer->buckets[transfer_site_bucket(key)];
    while (site != NULL && site->key != key)
        site = site->hash_next;
    return site;
}

struct transfer_site *transfer_site_get(struct transfer *transfer, uint64_t key, struct span label)
{
    struct transfer_site *site = transfer_site_find(transfer, key);
    if (site != NULL)
        return site;
    struct site *limiter = site_get(transfer->sites, key, label, transfer->now.tick);
    if (limiter == NULL)
        return NULL;
    site_hold(limiter);
    site = calloc(1, sizeof(*site));
    CHECK(site != NULL);
    site->key = key;
    site->site = limiter;
    site->connection_max = site_get_view(limiter).connection_max;
    TAILQ_INIT(&site->lines);
    TAILQ_INIT(&site->ready);
    site->round = qmgr_round_new();
    uint32_t bucket = transfer_site_bucket(key);
    site->hash_next = transfer->buckets[bucket];
    transfer->buckets[bucket] = site;
    return site;
}

void transfer_site_wake(struct transfer *transfer, struct transfer_site *site)
{
    if (site->is_woken)
        return;
    site->is_woken = true;
    TAILQ_INSERT_TAIL(&transfer->woken_sites, site, woken_link);
}

void transfer_site_forget(struct transfer *transfer, struct transfer_site *site)
{
    if (site->is_woken || site->jobs > 0 || site->connections > 0 || !TAILQ_EMPTY(&site->lines))
        return;
    struct transfer_site **link = &transfer->buckets[transfer_site_bucket(site->key)];
    while (*link != site)
        link = &(*link)->hash_next;
    *link = site->hash_next;
    site_release(transfer->sites, site->site);
    qmgr_round_free(site->round);
    free(site);
}

/* ---- lines ---- */

static void transfer_line_finish(struct transfer *transfer, struct transfer_line *line)
{
    if (line->state == TRANSFER_LINE_AT_SITE) {
        TAILQ_REMOVE(&line->site->lines, line, link);
        qmgr_round_leave(transfer->qmgr, line->line);
    }
    qmgr_line_set_user(line->line, NULL);
    qmgr_line_return(transfer->qmgr, line->line, transfer->now);
    CHECK(transfer->lines_active > 0);
    transfer->lines_active--;
    free(line);
}

/* Go on as far as no envelope must be waited for. The line is gone when all are settled. */
static void transfer_line_settle_more(struct transfer *transfer, struct transfer_line *line)
{
    while (line->settle_count > 0 && line->settle_waiting < TRANSFER_SETTLE_AHEAD_MAX) {
        struct qmgr_delivery *delivery = qmgr_take(transfer->qmgr, line->line, transfer->now);
        line->settle_count = delivery == NULL ? 0 : line->settle_count - 1;
        if (delivery == NULL)
            break;
        if (qmgr_delivery_is_loaded(delivery)) {
            transfer_delivery_settle(transfer, delivery, &line->verdict);
        } else {
            qmgr_delivery_set_user(delivery, line);
            line->settle_waiting++;
        }
    }
    if (line->settle_waiting > 0)
        return;
    TAILQ_REMOVE(&transfer->settling, line, link);
    transfer_line_finish(transfer, line);
}

/* Every due delivery of the line gets the same fate. The line is in no list. */
static void transfer_line_settle(struct transfer *transfer, struct transfer_line *line,
                                 const struct transfer_verdict *verdict)
{
    line->state = TRANSFER_LINE_SETTLING;
    line->verdict = *verdict;
    line->settle_count = qmgr_line_due(line->line);
    TAILQ_INSERT_TAIL(&transfer->settling, line, link);
    transfer_line_settle_more(transfer, line);
}

void transfer_line_on_loaded(struct transfer *transfer, struct transfer_line *line,
                             struct qmgr_delivery *delivery, bool is_loaded)
{
    CHECK(line->state == TRANSFER_LINE_SETTLING && line->settle_waiting > 0);
    line->settle_waiting--;
    if (is_loaded)
        transfer_delivery_settle(transfer, delivery, &line->verdict);
    else
        qmgr_finish(transfer->qmgr, delivery, &(struct qmgr_finish){0}, transfer->now);
    transfer_line_settle_more(transfer, line);
}

bool transfer_lines_use_settings(const struct transfer *transfer, uint64_t serial)
{
    const struct transfer_line *line;

    TAILQ_FOREACH(line, &transfer->settling, link)
    {
        if (line->settings_serial == serial)
            return true;
    }
    return false;
}

static struct transfer_verdict transfer_mx_verdict(const struct mx_answer *answer)
{
    switch (answer->verdict) {
    case MX_NULL:
        return (struct transfer_verdict){RECIPIENT_FAILED, 556,  {5, 1, 10},
                                         answer->reason,   true, 0};
    case MX_NOT_FOUND:
        return (struct transfer_verdict){RECIPIENT_FAILED, 550, {5, 1, 2}, answer->reason, true, 0};
    case MX_ALL_DENIED:
        if (answer->is_loop)
            return (struct transfer_verdict){RECIPIENT_FAILED, 554,  {5, 4, 6},
                                             answer->reason,   true, 0};
        return (struct transfer_verdict){RECIPIENT_FAILED, 550, {5, 1, 2}, answer->reason, true, 0};
    default:
        return (struct transfer_verdict){RECIPIENT_DUE, 451, {4, 4, 3}, answer->reason, true, 0};
    }
}

/* A uniformly random order in which heavier hosts tend to stand first. */
static void transfer_hosts_shuffle(struct transfer *transfer, struct mx_answer *answer)
{
    for (uint32_t first = 0; first + 1 < answer->host_count; first++) {
        uint32_t weight = 0;
        for (uint32_t i = first; i < answer->host_count; i++)
            weight += answer->hosts[i].weight;
        uint32_t chosen = first;
        uint32_t point = rng_below(transfer->options.rng, weight > 0 ? weight : 1);
        for (uint32_t i = first; i < answer->host_count; i++) {
            if (point < answer->hosts[i].weight) {
                chosen = i;
                break;
            }
            point -= answer->hosts[i].weight;
        }
        struct mx_host host = answer->hosts[first];
        answer->hosts[first] = answer->hosts[chosen];
        answer->hosts[chosen] = host;
    }
}

/* The hosts a route lists, looked up one by one; each answer comes from the cache when we are woken
 * and start over. */
static enum err transfer_route_resolve(struct transfer *transfer, struct transfer_line *line,
                                       struct mx_answer *ret_answer)
{
    const struct settings_route *route = line->route;
    const struct settings_host *unresolved[MX_HOST_MAX];
    uint32_t unresolved_count = 0;
    struct mx_answer one;

    *ret_answer = (struct mx_answer){.verdict = MX_TEMPORARY,
                                     .valid_until = transfer->now.tick + TICK_S(60),
                                     .reason = "no host of the route can be resolved now"};
    for (uint32_t i = 0; i < route->host_count && i < MX_HOST_MAX; i++) {
        const struct settings_host *host = &route->hosts[i];
        struct mx_host *found = &ret_answer->hosts[ret_answer->host_count];
        if (host->address.family != FLOW_FAMILY_NONE) {
            *found = (struct mx_host){.address_count = 1, .addresses = {host->address}};
            found->addresses[0].port = host->port;
            (void)snprintf(found->name, sizeof(found->name), "%s", host->name);
        } else {
            enum err err = mx_lookup_host(transfer->options.dns, &transfer->settings->mx,
                                          span_from_text(host->name), host->port,
                                          (uint64_t)(uintptr_t)line, transfer->now, &one);
            if (err == ERR_AGAIN)
                return err;
            if (err != ERR_OK || one.verdict != MX_OK || one.host_count == 0) {
                unresolved[unresolved_count++] = host;
                continue;
            }
            *found = one.hosts[0];
        }
        found->port = host->port;
        found->weight = host->weight;
        ret_answer->host_count++;
        ret_answer->verdict = MX_OK;
    }
    for (uint32_t i = 0; i < unresolved_count; i++) {
        struct mx_host *other = &ret_answer->hosts[ret_answer->host_count + i];
        *other = (struct mx_host){.port = unresolved[i]->port};
        (void)snprintf(other->name, sizeof(other->name), "%s", unresolved[i]->name);
    }
    ret_answer->other_count = unresolved_count;
    transfer_hosts_shuffle(transfer, ret_answer);
    return ERR_OK;
}

/* Hosts all of whose addresses failed lately are tried last, in their old order. */
static void transfer_hosts_demote_dead(struct transfer *transfer, struct mx_answer *answer)
{
    struct mx_host dead[MX_HOST_MAX];
    uint32_t dead_count = 0, alive_count = 0;

    for (uint32_t i = 0; i < answer->host_count; i++) {
        const struct mx_host *host = &answer->hosts[i];
        bool is_dead = host->address_count > 0;
        for (uint32_t a = 0; a < host->address_count && is_dead; a++)
            is_dead = site_host_is_dead(transfer->sites, &host->addresses[a],
                                        sizeof(host->addresses[a]), transfer->now.tick);
        if (is_dead)
            dead[dead_count++] = *host;
        else if (alive_count++ != i)
            answer->hosts[alive_count - 1] = *host;
    }
    for (uint32_t i = 0; i < dead_count; i++)
        answer->hosts[alive_count + i] = dead[i];
}

/* Domains of one site may have routes of their own: the one that came last decides. */
void transfer_site_limit(struct transfer *transfer, struct transfer_site *site,
                         const struct settings_route *route,
                         const struct settings_site_limits *limits)
{
    uint32_t connection_max = route->connection_max;

    if (connection_max == 0)
        connection_max = limits->connection_max;
    if (connection_max == 0)
        connection_max = transfer->options.sites.connection_max;
    site->messages_per_connection_max = limits->messages_per_connection_max;
    site->recipient_max = limits->recipient_max;
    site_rates_set(transfer->sites, site->site, &limits->rates, transfer->now.tick);
    if (site->connection_max == connection_max)
        return;
    site->connection_max = connection_max;
    site_limit_set(transfer->sites, site->site, connection_max, transfer->now.tick);
}

/* A host's name, and its port where a route gave it another than a mail exchanger's: servers on two
 * ports of one host fail, and are limited, each by itself. A provider is one site by its name
 * alone. */
static uint64_t transfer_site_key(const struct transfer *transfer, const struct mx_answer *answer,
                                  const struct settings_site_limits *limits)
{
    char texts[MX_HOST_MAX][MX_NAME_MAX + 6];
    struct span names[MX_HOST_MAX + 1];
    uint32_t count = 0;

    if (limits->name[0] != '\0')
        names[count++] = span_from_text(limits->name);
    uint32_t name_count = limits->provider == NULL ? answer->host_count + answer->other_count : 0;
    for (uint32_t i = 0; i < name_count; i++) {
        const struct mx_host *host = &answer->hosts[i];
        names[count] = span_from_text(host->name);
        if (host->port != transfer->settings->mx.port) {
            (void)snprintf(texts[i], sizeof(texts[i]), "%s:%u", host->name, host->port);
            names[count] = span_from_text(texts[i]);
        }
        count++;
    }
    return site_key((struct span){0}, names, count);
}

static void transfer_line_to_site(struct transfer *transfer, struct transfer_line *line)
{
    struct span domain = qmgr_line_domain(line->line);
    struct settings_site_limits limits =
        settings_site_find(transfer->settings, domain, &line->answer);
    uint64_t key = transfer_site_key(transfer, &line->answer, &limits);
    struct span label = limits.provider == NULL ? domain : span_from_text(limits.provider);
    struct transfer_site *site = transfer_site_get(transfer, key, label);
    if (site == NULL) {
        transfer_line_settle(
            transfer, line,
            &(struct transfer_verdict){RECIPIENT_DUE,
                                       451,
                                       {4, 3, 2},
                                       "too many busy sites",
                                       false,
                                       transfer->now.wall + (wall_us)TRANSFER_RESOLVE_RETRY_TIME});
        return;
    }
    transfer_site_limit(transfer, site, line->route, &limits);
    qmgr_line_set_site(line->line, site_get_view(site->site).label);
    transfer_hosts_demote_dead(transfer, &line->answer);
    line->state = TRANSFER_LINE_AT_SITE;
    line->site = site;
    TAILQ_INSERT_TAIL(&site->lines, line, link);
    qmgr_round_join(transfer->qmgr, site->round, line->line, transfer->now);
    transfer_site_wake(transfer, site);
}

/* The line is in no list. */
static void transfer_line_resolve(struct transfer *transfer, struct transfer_line *line)
{
    const struct settings *settings = transfer->settings;
    struct span domain = qmgr_line_domain(line->line);
    enum err err = ERR_OK;

    line->settings_serial = settings->serial;
    line->route = settings_route_find(settings, domain);
    switch (line->route->kind) {
    case SETTINGS_ROUTE_DISCARD:
        transfer_line_settle(
            transfer, line,
            &(struct transfer_verdict){
                RECIPIENT_DELIVERED, 250, {2, 0, 0}, "discarded by route", true, 0});
        return;
    case SETTINGS_ROUTE_REFUSE:
        transfer_line_settle(
            transfer, line,
            &(struct transfer_verdict){
                RECIPIENT_FAILED, 550, {5, 7, 1}, line->route->refuse_text, true, 0});
        return;
    case SETTINGS_ROUTE_HOSTS:
        err = transfer_route_resolve(transfer, line, &line->answer);
        break;
    case SETTINGS_ROUTE_MX:
        err = mx_lookup(transfer->options.dns, &settings->mx, domain, (uint64_t)(uintptr_t)line,
                        transfer->now, &line->answer);
        break;
    }
    if (err == ERR_AGAIN) {
        line->state = TRANSFER_LINE_RESOLVING;
        TAILQ_INSERT_TAIL(&transfer->resolving, line, link);
        return;
    }
    if (err != ERR_OK) {
        transfer_line_settle(
            transfer, line,
            &(struct transfer_verdict){RECIPIENT_DUE,
                                       451,
                                       {4, 4, 3},
                                       "too many DNS queries outstanding",
                                       false,
                                       transfer->now.wall + (wall_us)TRANSFER_RESOLVE_RETRY_TIME});
        return;
    }
    if (line->answer.verdict == MX_OK) {
        transfer_line_to_site(transfer, line);
        return;
    }
    struct transfer_verdict verdict = transfer_mx_verdict(&line->answer);
    transfer_line_settle(transfer, line, &verdict);
}

void transfer_on_dns(struct transfer *transfer, uint64_t user, struct tick_now now)
{
    struct transfer_line *line = (struct transfer_line *)(uintptr_t)user;
    transfer->now = now;
    if (line->state != TRANSFER_LINE_RESOLVING)
        return; /* woken already for an answer that came first */
    TAILQ_REMOVE(&transfer->resolving, line, link);
    line->state = TRANSFER_LINE_WOKEN;
    TAILQ_INSERT_TAIL(&transfer->woken, line, link);
}

/* ---- serving a site ---- */

static bool transfer_line_is_fresh(const struct transfer *transfer,
                                   const struct transfer_line *line)
{
    return line->settings_serial == transfer->settings->serial &&
           line->answer.valid_until > transfer->now.tick;
}

/* A line comes up only while something is due in it. One that was emptied by anything else but its
 * turn (expiry, an order) is found here: one line is looked at for each delivery that is taken. */
static void transfer_site_sweep(struct transfer *transfer, struct transfer_site *site)
{
    struct transfer_line *line = TAILQ_FIRST(&site->lines);

    if (line == NULL)
        return;
    if (qmgr_line_due(line->line) == 0) {
        transfer_line_finish(transfer, line);
        return;
    }
    TAILQ_REMOVE(&site->lines, line, link);
    TAILQ_INSERT_TAIL(&site->lines, line, link);
}

/* The next delivery of the site's lines becomes a job. False: none. */
static bool transfer_site_take(struct transfer *transfer, struct transfer_site *site)
{
    struct qmgr_line *next;
    int64_t rank;

    if (transfer->is_draining || site->reading >= TRANSFER_READ_AHEAD_MAX)
        return false;
    while ((next = qmgr_round_next(site->round)) != NULL) {
        struct transfer_line *line = qmgr_line_user(next);
        if (!transfer_line_is_fresh(transfer, line)) {
            transfer_line_finish(transfer, line);
            continue;
        }
        struct qmgr_delivery *delivery =
            qmgr_round_take(transfer->qmgr, site->round, transfer->now, &rank);
        (void)transfer_job_new(transfer, line, delivery, rank);
        if (qmgr_line_due(line->line) == 0)
            transfer_line_finish(transfer, line);
        transfer_site_sweep(transfer, site);
        return true;
    }
    while (!TAILQ_EMPTY(&site->lines)) /* nothing is due in any of them */
        transfer_line_finish(transfer, TAILQ_FIRST(&site->lines));
    return false;
}

/* Lines of a suspended site stay where they are, so that its end, whenever that is, finds them;
 * what was taken from them goes back. We are woken then. */
static void transfer_site_rest(struct transfer *transfer, struct transfer_site *site)
{
    struct transfer_job *job;

    client_close_idle(transfer->client, site->key, transfer->now.tick);
    while ((job = TAILQ_FIRST(&site->ready)) != NULL)
        transfer_job_put_back(transfer, job, 0);
    enum err err =
        site_slot_acquire(transfer->sites, site->site, transfer->now.wall, 1, transfer->now.tick);
    CHECK(err == ERR_TIMEOUT);
}

static void transfer_site_serve(struct transfer *transfer, struct transfer_site *site)
{
    for (;;) { /* every round starts a job or takes one; both run out */
        struct transfer_job *job = TAILQ_FIRST(&site->ready);
        if (site_is_suspended(site->site, transfer->now.tick)) {
            transfer_site_rest(transfer, site);
            return;
        }
        if (job != NULL) {
            if (!transfer_job_start(transfer, job))
                return;
        } else if (!transfer_site_take(transfer, site)) {
            return;
        }
    }
}

void transfer_lines_run(struct transfer *transfer)
{
    struct transfer_line *line;
    struct transfer_site *site;

    while ((line = TAILQ_FIRST(&transfer->woken)) != NULL) {
        TAILQ_REMOVE(&transfer->woken, line, link);
        transfer_line_resolve(transfer, line);
    }
    struct qmgr_line *due;
    while (!transfer->is_draining &&
           (due = qmgr_line_next(transfer->qmgr, transfer->now)) != NULL) {
        line = calloc(1, sizeof(*line));
        CHECK(line != NULL);
        line->token.kind = TRANSFER_TOKEN_LINE;
        line->line = due;
        qmgr_line_set_user(due, line);
        transfer->lines_active++;
        transfer_line_resolve(transfer, line);
    }
    while ((site = TAILQ_FIRST(&transfer->woken_sites)) != NULL) {
        TAILQ_REMOVE(&transfer->woken_sites, site, woken_link);
        site->is_woken = false;
        transfer_site_serve(transfer, site);
        transfer_site_forget(transfer, site);
    }
}

static void transfer_line_list_free(struct transfer *transfer, struct transfer_line_list *list)
{
    struct transfer_line *line;
    while ((line = TAILQ_FIRST(list)) != NULL) {
        TAILQ_REMOVE(list, line, link);
        if (line->state == TRANSFER_LINE_AT_SITE)
            qmgr_round_leave(transfer->qmgr, line->line);
        free(line);
    }
}

void transfer_lines_free(struct transfer *transfer)
{
    transfer_line_list_free(transfer, &transfer->resolving);
    transfer_line_list_free(transfer, &transfer->woken);
    transfer_line_list_free(transfer, &transfer->settling);
    for (uint32_t bucket = 0; bucket < TRANSFER_SITE_BUCKETS; bucket++) {
        struct transfer_site *site = transfer->buckets[bucket];
        while (site != NULL) {
            struct transfer_site *next = site->hash_next;
            transfer_line_list_free(transfer, &site->lines);
            qmgr_round_free(site->round);
            site_release(transfer->sites, site->site);
            free(site);
            site = next;
        }
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hub of a shard, outbound half: the way of a line (the due mail of one domain in one pool) to
 * the place where it waits for its site.
 *
 *   qmgr_line_next() -> RESOLVING <-> WOKEN    route found, MX asked; the DNS wakes us
 *                          |   \--> SETTLING, then returned: discard, refuse, no such domain, DNS
 *                          |        trouble; all that is due, as its envelopes come
 *                          v
 *                       AT_PLACE               waits its turn among the lines there
 *                          \--> WOKEN             its turn has come, and route and MX must be
 *                          |                      looked at anew
 *                          \--> qmgr_line_return() nothing due any more
 *
 * Invariants
 *   1. A line handed out by the queue is in exactly one list here until qmgr_line_return().
 *   2. A route pointer is followed only while the snapshot it came from is the present one
 *      (settings_serial).
 *
 * Not here: who is served next, and over which source (transfer_place.c).
 */
#include "relay/transfer_internal.h"

#include <stdlib.h>

/* ---- lines ---- */

void transfer_line_finish(struct transfer *transfer, struct transfer_line *line)
{
    if (line->state == TRANSFER_LINE_AT_PLACE) {
        TAILQ_REMOVE(&line->place->lines, line, link);
        qmgr_round_leave(transfer->qmgr, line->line);
    }
    qmgr_line_set_user(line->line, NULL);
    qmgr_line_return(transfer->qmgr, line->line, transfer->now);
    CHECK(transfer->lines_active > 0);
    transfer->lines_active--;
    free(line);
}

void transfer_line_renew(struct transfer *transfer, struct transfer_line *line)
{
    CHECK(line->state == TRANSFER_LINE_AT_PLACE);
    TAILQ_REMOVE(&line->place->lines, line, link);
    qmgr_round_leave(transfer->qmgr, line->line);
    line->place = NULL;
    line->state = TRANSFER_LINE_WOKEN;
    TAILQ_INSERT_TAIL(&transfer->woken, line, link);
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
        qmgr_finish(transfer->qmgr, delivery,
                    &(struct qmgr_finish){.retry_not_before = transfer->now.wall +
                                                              (wall_us)TRANSFER_RESOLVE_RETRY_TIME},
                    transfer->now);
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

/* As much of it as there is room for. */
static void host_name_set(struct mx_host *host, const char *name)
{
    size_t size = strnlen(name, sizeof(host->name) - 1);

    memcpy(host->name, name, size);
    host->name[size] = '\0';
}

/* The hosts a route lists, looked up one by one; each answer comes from the cache when we are woken
 * and start over. */
enum err transfer_route_resolve(struct transfer *transfer, const struct settings_route *route,
                                uint64_t user, struct mx_answer *ret_answer)
{
    const struct settings_host *unresolved[MX_HOST_MAX];
    uint32_t unresolved_count = 0;
    struct mx_answer one UNINITIALIZED; /* large, and seldom needed */

    /* All but the hosts: zeroing them would cost more than all else here. */
    ret_answer->verdict = MX_TEMPORARY;
    ret_answer->is_stale = ret_answer->is_loop = false;
    ret_answer->valid_until = transfer->now.tick + TICK_S(60);
    ret_answer->host_count = ret_answer->other_count = 0;
    ret_answer->reason = "no host of the route can be resolved now";
    for (uint32_t i = 0; i < route->host_count && i < MX_HOST_MAX; i++) {
        const struct settings_host *host = &route->hosts[i];
        struct mx_host *found = &ret_answer->hosts[ret_answer->host_count];
        if (host->address.family != FLOW_FAMILY_NONE) {
            *found = (struct mx_host){.address_count = 1, .addresses = {host->address}};
            found->addresses[0].port = host->port;
            host_name_set(found, host->name);
        } else {
            enum err err =
                mx_lookup_host(transfer->options.dns, &transfer->settings->mx,
                               span_from_text(host->name), host->port, user, transfer->now, &one);
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
        host_name_set(other, unresolved[i]->name);
    }
    ret_answer->other_count = unresolved_count;
    transfer_hosts_shuffle(transfer, ret_answer);
    return ERR_OK;
}

bool transfer_host_is_dead(const struct transfer *transfer, const struct mx_host *host)
{
    bool is_dead = host->address_count > 0;

    for (uint32_t a = 0; a < host->address_count && is_dead; a++)
        is_dead = site_host_is_dead(transfer->sites, &host->addresses[a],
                                    sizeof(host->addresses[a]), transfer->now.tick);
    return is_dead;
}

/* Hosts all of whose addresses failed lately are tried last, in their old order. */
static void transfer_hosts_demote_dead(struct transfer *transfer, struct mx_answer *answer)
{
    struct mx_host dead[MX_HOST_MAX] UNINITIALIZED;
    uint32_t dead_count = 0, alive_count = 0;

    for (uint32_t i = 0; i < answer->host_count; i++) {
        const struct mx_host *host = &answer->hosts[i];
        if (transfer_host_is_dead(transfer, host))
            dead[dead_count++] = *host;
        else if (alive_count++ != i)
            answer->hosts[alive_count - 1] = *host;
    }
    for (uint32_t i = 0; i < dead_count; i++)
        answer->hosts[alive_count + i] = dead[i];
}

static void transfer_line_to_place(struct transfer *transfer, struct transfer_line *line)
{
    struct settings_site_limits limits =
        settings_site_find(transfer->settings, qmgr_line_domain(line->line), &line->answer);
    struct transfer_place *place = transfer_place_get(transfer, line, &limits);

    if (place == NULL) {
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
    qmgr_line_set_site(line->line, span_from_text(place->label));
    qmgr_line_set_unresolved(line->line, NULL, transfer->now.tick);
    transfer_hosts_demote_dead(transfer, &line->answer);
    line->state = TRANSFER_LINE_AT_PLACE;
    line->place = place;
    TAILQ_INSERT_TAIL(&place->lines, line, link);
    qmgr_round_join(transfer->qmgr, place->round, line->line, transfer->now);
    transfer_place_wake(transfer, place);
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
    case SETTINGS_ROUTE_LMTP:
        err =
            transfer_route_resolve(transfer, line->route, (uint64_t)(uintptr_t)line, &line->answer);
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
        transfer_line_to_place(transfer, line);
        return;
    }
    struct transfer_verdict verdict = transfer_mx_verdict(&line->answer);
    qmgr_line_set_unresolved(line->line, line->answer.reason, transfer->now.tick);
    transfer_line_settle(transfer, line, &verdict);
}

void transfer_on_dns(struct transfer *transfer, uint64_t user, struct tick_now now)
{
    struct transfer_line *line = (struct transfer_line *)(uintptr_t)user;
    transfer->now = now;
    if (transfer_probe_of(user) != NULL) {
        transfer_probe_on_dns(transfer_probe_of(user));
        return;
    }
    if (line->state != TRANSFER_LINE_RESOLVING)
        return; /* woken already for an answer that came first */
    TAILQ_REMOVE(&transfer->resolving, line, link);
    line->state = TRANSFER_LINE_WOKEN;
    TAILQ_INSERT_TAIL(&transfer->woken, line, link);
}

bool transfer_line_is_fresh(const struct transfer *transfer, const struct transfer_line *line)
{
    return line->settings_serial == transfer->settings->serial &&
           line->answer.valid_until > transfer->now.tick;
}

void transfer_lines_run(struct transfer *transfer)
{
    struct transfer_line *line;

    while ((line = TAILQ_FIRST(&transfer->woken)) != NULL) {
        TAILQ_REMOVE(&transfer->woken, line, link);
        transfer_line_resolve(transfer, line);
    }
    struct qmgr_line *due;
    while (!transfer->is_draining && !transfer->is_waiting &&
           (due = qmgr_line_next(transfer->qmgr, transfer->now)) != NULL) {
        line = malloc(sizeof(*line));
        CHECK(line != NULL);
        memset(line, 0, offsetof(struct transfer_line, answer));
        line->answer.host_count = line->answer.other_count = 0;
        line->token.kind = TRANSFER_TOKEN_LINE;
        line->line = due;
        qmgr_line_set_user(due, line);
        transfer->lines_active++;
        transfer_line_resolve(transfer, line);
    }
}

void transfer_line_list_free(struct transfer *transfer, struct transfer_line_list *list)
{
    struct transfer_line *line;
    while ((line = TAILQ_FIRST(list)) != NULL) {
        TAILQ_REMOVE(list, line, link);
        if (line->state == TRANSFER_LINE_AT_PLACE)
            qmgr_round_leave(transfer->qmgr, line->line);
        free(line);
    }
}

void transfer_lines_free(struct transfer *transfer)
{
    transfer_line_list_free(transfer, &transfer->resolving);
    transfer_line_list_free(transfer, &transfer->woken);
    transfer_line_list_free(transfer, &transfer->settling);
}

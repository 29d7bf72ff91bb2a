/* SPDX-License-Identifier: Apache-2.0 */
/* What an operator sees of the queue, asked of every shard as the control socket asks. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/scenario/scenario.h"

#define STEPS_MAX 10000u
#define NOT_YET   UINT64_MAX

struct listing {
    struct qmgr_filter filter;
    char reply[256]; /* pattern */
    unsigned long long wanted, found;
};

static uint64_t list_shard(struct node *node, uint32_t shard, const struct listing *listing)
{
    struct shard_queue_row *rows = calloc(SHARD_QUERY_ROWS_MAX, sizeof(*rows));
    struct shard_query query = {.kind = SHARD_QUERY_QUEUE_LIST,
                                .filter = &listing->filter,
                                .rows = rows,
                                .row_max = SHARD_QUERY_ROWS_MAX};
    uint64_t found = 0;

    CHECK(rows != NULL);
    for (uint32_t i = 0; i < STEPS_MAX && query.cursor != UINT64_MAX; i++) {
        query.row_count = 0;
        node_query(node, shard, &query);
        for (uint32_t row = 0; row < query.row_count; row++)
            found += scenario_matches(listing->reply, rows[row].last_reply);
        if (query.is_waiting) { /* what it waits for is here when it is asked again */
            found = NOT_YET;
            break;
        }
    }
    free(rows);
    return found;
}

static bool listing_is_met(const struct scenario *scenario, const void *argument)
{
    struct listing *listing = (struct listing *)(uintptr_t)argument;

    listing->found = 0;
    for (uint32_t i = 0; scenario->node != NULL && i < node_shard_count(scenario->node); i++) {
        uint64_t found = list_shard(scenario->node, i, listing);
        if (found == NOT_YET)
            return false;
        listing->found += found;
    }
    return listing->found == listing->wanted;
}

/* Cuts `REPLY=PATTERN` off the end of the terms. */
static void reply_take(char *terms, char ret_pattern[256])
{
    char *reply = strstr(terms, "REPLY=");

    snprintf(ret_pattern, 256, "%s", reply == NULL ? "*" : reply + 6);
    if (reply != NULL)
        *reply = '\0';
}

bool scenario_list(struct scenario *scenario, const char *argument)
{
    struct listing listing = {0};
    char terms[1024], why[QMGR_FILTER_WHY_SIZE];

    snprintf(terms, sizeof(terms), "%s", argument);
    char *count = strstr(terms, " == ");
    if (!scenario_begin(scenario))
        return false;
    if (count == NULL)
        return scenario_fail(scenario, "list TERM=VALUE ... == N");
    listing.wanted = strtoull(count + 4, NULL, 10);
    *count = '\0';
    reply_take(terms, listing.reply);
    if (qmgr_filter_parse(span_from_text(terms), &listing.filter, why) != ERR_OK)
        return scenario_fail(scenario, "%s", why);
    if (scenario_run(scenario, scenario->patience, listing_is_met, &listing))
        return true;
    if (scenario->has_failed)
        return false;
    return scenario_fail(scenario, "expected list %s, got %llu", argument, listing.found);
}

/* ---- orders about sites ---- */

static void site_shard_act(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    if (!site_act_step(transfer_sites(transfer), query->found, &query->cursor, now))
        query->cursor = UINT64_MAX;
}

static uint32_t site_shards_act(struct node *node, struct site_act *act)
{
    for (uint32_t i = 0; i < node_shard_count(node); i++) {
        struct shard_query query = {
            .kind = SHARD_QUERY_TRANSFER, .visit = site_shard_act, .found = act};
        for (uint32_t step = 0; step < STEPS_MAX && query.cursor != UINT64_MAX; step++)
            node_query(node, i, &query);
    }
    return act->matched;
}

static bool site_setting_take(const char *word, struct site_order *order)
{
    struct rate_set rates;

    if (strncmp(word, "connections=", 12) == 0)
        return rate_count_parse(span_from_text(word + 12), &order->connection_max) == ERR_OK;
    if (strncmp(word, "rate=", 5) != 0 ||
        rate_set_parse(span_from_text(word + 5), &rates) != ERR_OK)
        return false;
    order->rate = rates.rates[0];
    return true;
}

bool scenario_site(struct scenario *scenario, const char *argument)
{
    struct site_order order = {.by = "operator", .reason = "because"};
    struct site_act act = {.order = &order};
    char verb[16], name[64], setting[64], time[16];
    uint32_t wanted = 0;

    if (scenario->node == NULL)
        return scenario_fail(scenario, "site: the relay does not run");
    tick_us now = tick_now_read(net_sim_clock(scenario->net)).tick;
    if (sscanf(argument, "%u set %63s %63s %15s == %u", &order.id, name, setting, time, &wanted) ==
        5) {
        order.kind = SITE_ORDER_SLOW;
        if (!site_setting_take(setting, &order))
            return scenario_fail(scenario, "site: connections=N or rate=N/TIME");
    } else if (sscanf(argument, "%u suspend %63s %15s == %u", &order.id, name, time, &wanted) !=
               4) {
        act = (struct site_act){.kinds = ~0u};
        time[0] = '\0';
        if (sscanf(argument, "%u %15s == %u", &act.id, verb, &wanted) != 3 ||
            strcmp(verb, "resume") != 0)
            return scenario_fail(scenario, "site N suspend NAME TIME | set NAME SETTING TIME | "
                                           "resume == M");
    }
    if (act.order != NULL) {
        memcpy(act.name, name, sizeof(act.name));
        if (!scenario_parse_time(time, &order.duration))
            return scenario_fail(scenario, "site: `%s` is no time", time);
        order.until = now + order.duration;
    }
    uint32_t matched = site_shards_act(scenario->node, &act);
    return matched == wanted ||
           scenario_fail(scenario, "expected %u sites, got %u", wanted, matched);
}

/* ---- sources ---- */

struct source_asked {
    const char *name;
    tick_us duration; /* 0: it is resumed */
    uint32_t found;
};

static void source_visit(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    struct source_asked *asked = query->found;
    struct source_set *sources = transfer_sources(transfer);
    struct span name = span_from_text(asked->name);

    asked->found += asked->duration > 0
                        ? source_suspend(sources, name, now + asked->duration, "because")
                        : source_resume(sources, name, now);
    query->cursor = UINT64_MAX;
}

static bool source_ask(struct scenario *scenario, struct source_asked *asked)
{
    uint32_t count = scenario->node == NULL ? 0 : node_shard_count(scenario->node);

    for (uint32_t i = 0; i < count; i++) {
        struct shard_query query = {
            .kind = SHARD_QUERY_TRANSFER, .visit = source_visit, .found = asked};
        node_query(scenario->node, i, &query);
    }
    return (count > 0 && asked->found == count) ||
           scenario_fail(scenario, "source: there is none named %s", asked->name);
}

/* IP gone|back: what the network says; NAME suspend TIME|resume: an operator. */
bool scenario_source(struct scenario *scenario, const char *argument)
{
    char name[64] = "", verb[16] = "", time[16] = "";
    struct source_asked asked = {.name = name};
    struct flow_address address = {0};

    (void)sscanf(argument, "%63s %15s %15s", name, verb, time);
    if (flow_address_parse_ip(span_from_text(name), &address) == ERR_OK &&
        (strcmp(verb, "gone") == 0 || strcmp(verb, "back") == 0)) {
        net_sim_set_gone(scenario->net, &address, strcmp(verb, "gone") == 0);
        return true;
    }
    if (strcmp(verb, "suspend") == 0 && scenario_parse_time(time, &asked.duration))
        return source_ask(scenario, &asked);
    if (strcmp(verb, "resume") == 0)
        return source_ask(scenario, &asked);
    return scenario_fail(scenario, "source IP gone|back, source NAME suspend TIME|resume");
}

/* ---- orders ---- */

static bool verb_find(const char *name, enum qmgr_verb *ret_verb)
{
    for (uint32_t i = 0; i < QMGR_VERB_COUNT; i++) {
        *ret_verb = (enum qmgr_verb)i;
        if (strcmp(name, qmgr_verb_name(*ret_verb)) == 0)
            return true;
    }
    return false;
}

struct ordering {
    struct shard_query query;
    uint32_t shard; /* that carries it out now */
};

/* One after the other; false while a disk must answer first. */
static bool ordering_is_done(const struct scenario *scenario, const void *argument)
{
    struct ordering *ordering = (struct ordering *)(uintptr_t)argument;

    for (uint32_t i = 0; i < STEPS_MAX && ordering->shard < node_shard_count(scenario->node); i++) {
        node_query(scenario->node, ordering->shard, &ordering->query);
        if (ordering->query.is_waiting)
            return false;
        if (ordering->query.cursor != UINT64_MAX)
            continue;
        ordering->query.cursor = 0;
        ordering->shard++;
    }
    return true;
}

/* ---- orders that stand ---- */

static void stand_visit(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    const struct qmgr_standing *standing = query->found;

    query->err = qmgr_standing_add(transfer_queue(transfer), standing,
                                   (struct tick_now){now, standing->given});
    query->cursor = UINT64_MAX;
}

static void unstand_visit(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    const struct qmgr_standing *standing = query->found;

    query->err = qmgr_standing_end(transfer_queue(transfer), standing->order.id,
                                   (struct tick_now){now, standing->given})
                     ? ERR_OK
                     : ERR_STALE;
    query->cursor = UINT64_MAX;
}

static bool stand_ask(struct scenario *scenario, struct qmgr_standing *standing,
                      void (*visit)(struct shard_query *, struct transfer *, tick_us))
{
    for (uint32_t i = 0; i < node_shard_count(scenario->node); i++) {
        struct shard_query query = {
            .kind = SHARD_QUERY_TRANSFER, .visit = visit, .found = standing};
        node_query(scenario->node, i, &query);
        if (query.err != ERR_OK)
            return scenario_fail(scenario, "stand: %s", err_text(query.err));
    }
    return true;
}

bool scenario_stand_again(struct scenario *scenario)
{
    wall_us now = tick_now_read(net_sim_clock(scenario->net)).wall;

    for (uint32_t i = 0; i < scenario->standing_count; i++) {
        scenario->standing[i].given = now;
        if (!stand_ask(scenario, &scenario->standing[i], stand_visit))
            return false;
    }
    return true;
}

/* N end, or N VERB [DOMAIN] DURATION TERM=VALUE ... */
bool scenario_stand(struct scenario *scenario, const char *argument)
{
    struct qmgr_standing standing = {.order.reason = "because"};
    char verb[16] = "", rest[1024] = "", time[16] = "";
    int used = 0;
    tick_us duration;

    if (!scenario_begin(scenario))
        return false;
    standing.given = tick_now_read(net_sim_clock(scenario->net)).wall;
    (void)sscanf(argument, "%u %15s %1023[^\n]", &standing.order.id, verb, rest);
    if (strcmp(verb, "end") == 0) {
        scenario->standing_count = 0;
        return stand_ask(scenario, &standing, unstand_visit);
    }
    if (!verb_find(verb, &standing.order.verb) || scenario->standing_count == SCENARIO_STANDING_MAX)
        return scenario_fail(scenario, "stand N VERB [DOMAIN] DURATION TERM=VALUE ... | N end");
    char *terms = rest;
    if (standing.order.verb == QMGR_VERB_REROUTE &&
        sscanf(terms, "%255s%n", standing.order.route, &used) == 1)
        terms += used;
    if (sscanf(terms, "%15s%n", time, &used) != 1 || !scenario_parse_time(time, &duration))
        return scenario_fail(scenario, "stand: `%s` is no time", time);
    standing.until = standing.given + (wall_us)duration;
    (void)snprintf(standing.terms, sizeof(standing.terms), "%s", terms + used);
    scenario->standing[scenario->standing_count++] = standing;
    return stand_ask(scenario, &standing, stand_visit);
}

bool scenario_order(struct scenario *scenario, const char *argument)
{
    struct qmgr_order order = {.until = QMGR_HOLD_FOR_EVER, .reason = "because"};
    struct qmgr_filter filter;
    struct ordering ordering = {
        .query = {.kind = SHARD_QUERY_QUEUE_ACT, .filter = &filter, .order = &order}};
    char verb[16], terms[1024], why[QMGR_FILTER_WHY_SIZE], duration[16] = "";
    unsigned long long wanted = 0;
    tick_us time;

    if (sscanf(argument, "%u %15s %1023[^\n]", &order.id, verb, terms) != 3 ||
        !verb_find(verb, &order.verb))
        return scenario_fail(scenario, "order N VERB [DURATION] TERM=VALUE ... == M");
    char *count = strstr(terms, "== "), *first = terms;
    if (order.verb == QMGR_VERB_REROUTE && sscanf(terms, "%255s", order.route) == 1)
        first = terms + strlen(order.route);
    if (count == NULL || scenario->node == NULL)
        return scenario_fail(scenario, "order N VERB [DURATION] TERM=VALUE ... == M");
    wanted = strtoull(count + 3, NULL, 10);
    *count = '\0';
    if (sscanf(terms, "%15s", duration) == 1 && scenario_parse_time(duration, &time)) {
        order.until = tick_now_read(net_sim_clock(scenario->net)).wall + (wall_us)time;
        first = terms + strlen(duration);
    }
    if (qmgr_filter_parse(span_from_text(first), &filter, why) != ERR_OK)
        return scenario_fail(scenario, "%s", why);
    if (!scenario_run(scenario, scenario->patience, ordering_is_done, &ordering))
        return scenario_fail(scenario, "the order is not carried out");
    if (ordering.query.acted.matched == wanted)
        return true;
    return scenario_fail(scenario, "expected %llu to match, got %llu", wanted,
                         (unsigned long long)ordering.query.acted.matched);
}

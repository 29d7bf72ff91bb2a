/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Orders about mail. One that stands, and one that is cancelled, goes over the shards twice:
 *
 *   CHANGE  what stands is changed on every shard (queue/qmgr_standing.c); also when the client has
 *           left meanwhile, so that all shards have the same
 *   WALK    what waits is found by the filter and gets the order; of a cancelled hold, what it held
 *           is released
 *   PAUSED  what was to be tried at once may be for sites that pause: which (admin_paused.c)
 *
 * In between mail may come: it is judged by what stands, and the walk passes it over.
 *
 * Orders about mail and about sites have their numbers from one row, and one verb ends either:
 * a number is looked for among both.
 *
 * Limits: QMGR_STANDING_MAX orders stand. All shards have the same and are asked one after the
 * other, so that the first one refuses when there are too many, before anything is changed.
 */
#include "control/admin_order.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "control/admin_paused.h"
#include "dns/dns.h"

#define STANDING_TIME_MAX TICK_S(366ull * 86400)
#define EVERY_SITE_KIND   ((1u << SITE_ORDER_KIND_COUNT) - 1)

enum round { ROUND_CHANGE, ROUND_WALK, ROUND_PAUSED };

struct asked {
    struct qmgr_standing standing; /* with the order itself; until 0: it does not stand */
    tick_us duration;              /* 0: none was given */
    uint8_t round;
    bool is_cancel, is_keep, is_dry_run;
    uint32_t cancelled;    /* its number */
    bool was_standing;     /* it was one of these */
    enum qmgr_verb ended;  /* what it ordered */
    struct site_act sites; /* orders about sites of that number */
    struct admin_paused paused;
    enum err err; /* of the first shard that refused it */
};

static struct tick_now now_of(tick_us tick)
{
    const struct tick_source *clock = tick_source_system();

    return (struct tick_now){tick, clock->wall(clock->context)};
}

/* ---- on the shards ---- */

static void visit_add(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    struct asked *asked = query->found;
    enum err err = qmgr_standing_add(transfer_queue(transfer), &asked->standing, now_of(now));

    if (asked->err == ERR_OK)
        asked->err = err;
    query->cursor = UINT64_MAX;
}

static void standing_cancel(struct asked *asked, struct qmgr *queue, struct tick_now now)
{
    const struct qmgr_standing *standing;

    for (uint32_t i = 0; (standing = qmgr_standing_next(queue, &i, now)) != NULL;) {
        if (standing->order.id != asked->cancelled)
            continue;
        asked->was_standing = true;
        asked->ended = standing->order.verb;
        if (!asked->is_dry_run)
            (void)qmgr_standing_end(queue, asked->cancelled, now);
        return;
    }
}

static void visit_cancel(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    struct asked *asked = query->found;

    if (query->cursor == 0)
        standing_cancel(asked, transfer_queue(transfer), now_of(now));
    if (!site_act_step(transfer_sites(transfer), &asked->sites, &query->cursor, now))
        query->cursor = UINT64_MAX;
}

static void visit_paused(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    struct asked *asked = query->found;

    admin_paused_look(&asked->paused, transfer_sites(transfer), &query->cursor, now);
}

/* ---- what is asked ---- */

static enum admin_queue_kind refuse(char ret_why[ADMIN_QUEUE_WHY_SIZE], const char *why)
{
    (void)snprintf(ret_why, ADMIN_QUEUE_WHY_SIZE, "%s", why);
    return ADMIN_QUEUE_REFUSED;
}

/* It goes into records, notifications and the log: printable, and not long. */
static bool reason_take(const json_t *request, struct qmgr_order *order)
{
    const char *reason = json_string_value(json_object_get(request, "reason"));

    if (reason == NULL)
        return json_object_get(request, "reason") == NULL;
    if (*reason == '\0' || strlen(reason) >= sizeof(order->reason))
        return false;
    for (const char *at = reason; *at != '\0'; at++) {
        if (*at < ' ' || *at > '~')
            return false;
    }
    (void)snprintf(order->reason, sizeof(order->reason), "%s", reason);
    return true;
}

/* 0: none was given. */
static bool duration_take(const json_t *request, tick_us *ret_duration)
{
    const json_t *given = json_object_get(request, "duration");
    const char *text = json_string_value(given);

    *ret_duration = 0;
    if (given == NULL)
        return true;
    return text != NULL && qmgr_filter_time_parse(span_from_text(text), ret_duration) &&
           *ret_duration > 0 && *ret_duration <= STANDING_TIME_MAX;
}

/* A domain, as the queue has them. */
static bool route_take(const json_t *request, struct qmgr_order *order)
{
    const char *text = json_string_value(json_object_get(request, "to"));
    uint32_t size;

    if (order->verb != QMGR_VERB_REROUTE)
        return text == NULL;
    if (text == NULL || dns_name_normalize(span_from_text(text), order->route, &size) != ERR_OK)
        return false;
    order->route[size] = '\0';
    return true;
}

/* With a duration it stands, if its terms can be judged of mail to come. To hold one message for a
 * time is about that message alone. */
static enum admin_queue_kind duration_apply(struct asked *asked, struct shard_query *query,
                                            const char *terms, tick_us duration,
                                            char ret_why[ADMIN_QUEUE_WHY_SIZE])
{
    struct qmgr_order *order = query->order;
    char why[QMGR_FILTER_WHY_SIZE];
    struct qmgr_filter filter;
    struct tick_now now = now_of(0);

    asked->duration = duration;
    order->until = duration > 0 ? now.wall + (wall_us)duration : QMGR_HOLD_FOR_EVER;
    if (duration == 0 || query->is_dry_run)
        return ADMIN_QUEUE_READY;
    if (!qmgr_verb_may_stand(order->verb))
        return refuse(ret_why, "only hold, bounce, delete and reroute have a duration");
    if (order->verb == QMGR_VERB_HOLD && qmgr_filter_has(query->filter, QMGR_FILTER_ID))
        return ADMIN_QUEUE_READY;
    if (qmgr_standing_filter_parse(span_from_text(terms), &filter, why) != ERR_OK)
        return refuse(ret_why, why);
    asked->standing.given = now.wall;
    asked->standing.until = order->until;
    (void)snprintf(asked->standing.terms, sizeof(asked->standing.terms), "%s", terms);
    asked->round = ROUND_CHANGE;
    query->kind = SHARD_QUERY_TRANSFER;
    query->visit = visit_add;
    return ADMIN_QUEUE_READY;
}

static enum admin_queue_kind order_take(const json_t *request, struct shard_query *query,
                                        char ret_why[ADMIN_QUEUE_WHY_SIZE])
{
    struct asked *asked = query->found;
    struct qmgr_order *order = query->order;
    const char *terms = json_string_value(json_object_get(request, "filter"));
    bool is_end = order->verb == QMGR_VERB_BOUNCE || order->verb == QMGR_VERB_DELETE ||
                  order->verb == QMGR_VERB_REROUTE;
    bool is_all = json_is_true(json_object_get(request, "all"));
    tick_us duration;

    if (!admin_queue_filter(request, query, ret_why))
        return ADMIN_QUEUE_REFUSED;
    if (is_all == (query->filter->terms != 0))
        return refuse(ret_why, "say which mail: terms, or all");
    if (!reason_take(request, order))
        return refuse(ret_why, "a reason is printable ASCII of at most 199 octets");
    if (is_end && *order->reason == '\0' && !query->is_dry_run)
        return refuse(ret_why, "this cannot be taken back: it wants a reason");
    if (!route_take(request, order))
        return refuse(ret_why, order->verb == QMGR_VERB_REROUTE
                                   ? "say by which domain it goes: --to DOMAIN"
                                   : "only what is rerouted goes to another domain");
    if (!duration_take(request, &duration))
        return refuse(ret_why, "a duration is a time such as 90s, 5m, 2h, 1d12h; 366 days at most");
    return duration_apply(asked, query, terms == NULL ? "" : terms, duration, ret_why);
}

/* A number, and what of it is to be released. */
static enum admin_queue_kind cancel_take(const json_t *request, struct shard_query *query,
                                         char ret_why[ADMIN_QUEUE_WHY_SIZE])
{
    struct asked *asked = query->found;
    struct qmgr_filter *filter = calloc(1, sizeof(*filter));
    const char *id = json_string_value(json_object_get(request, "id"));
    uint64_t number;

    query->filter = filter;
    if (filter == NULL)
        return refuse(ret_why, "no memory");
    if (id == NULL || span_parse_u64(span_from_text(id), &number) != ERR_OK || number == 0 ||
        number > QMGR_ORDER_ID_MAX)
        return refuse(ret_why, "say which order: its number (angarium queue orders)");
    if (number > QMGR_ORDER_GIVEN_MAX) /* it would let go of the mail of all users at once */
        return refuse(ret_why, "that number is the relay's own: release what it holds "
                               "(angarium release order=NUMBER user=NAME)");
    asked->is_cancel = true;
    asked->is_keep = json_is_true(json_object_get(request, "keep"));
    asked->cancelled = filter->order = (uint32_t)number;
    asked->sites = (struct site_act){
        .id = (uint32_t)number, .kinds = EVERY_SITE_KIND, .is_dry_run = query->is_dry_run};
    filter->terms = QMGR_FILTER_ORDER;
    asked->round = ROUND_CHANGE;
    (void)snprintf(asked->standing.order.reason, sizeof(asked->standing.order.reason),
                   "order %u is cancelled", asked->cancelled);
    query->is_cancel = true;
    query->kind = SHARD_QUERY_TRANSFER;
    query->visit = visit_cancel;
    return ADMIN_QUEUE_READY;
}

static const char cancel_verb[] = "queue cancel";

static bool verb_find(const char *verb, enum qmgr_verb *ret_verb)
{
    *ret_verb = QMGR_VERB_RELEASE;
    if (strcmp(verb, cancel_verb) == 0)
        return true;
    for (uint32_t i = 0; i < QMGR_VERB_COUNT; i++) {
        *ret_verb = (enum qmgr_verb)i;
        if (strcmp(verb, qmgr_verb_name(*ret_verb)) == 0)
            return true;
    }
    return false;
}

enum admin_queue_kind admin_order_prepare(const char *verb, const json_t *request,
                                          struct shard_query *query,
                                          char ret_why[ADMIN_QUEUE_WHY_SIZE])
{
    enum qmgr_verb chosen;

    if (!verb_find(verb, &chosen))
        return ADMIN_QUEUE_NONE;
    struct asked *asked = calloc(1, sizeof(*asked));
    query->kind = SHARD_QUERY_QUEUE_ACT;
    query->found = asked;
    if (asked == NULL)
        return refuse(ret_why, "no memory");
    query->order = &asked->standing.order;
    query->order->verb = chosen;
    query->order->until = QMGR_HOLD_FOR_EVER;
    query->is_dry_run = asked->is_dry_run = json_is_true(json_object_get(request, "dry_run"));
    query->acted.retried = &asked->paused.retried;
    asked->round = ROUND_WALK;
    return strcmp(verb, cancel_verb) == 0 ? cancel_take(request, query, ret_why)
                                          : order_take(request, query, ret_why);
}

bool admin_order_is_walk(const char *verb)
{
    enum qmgr_verb chosen;

    return verb_find(verb, &chosen);
}

/* What stands is judged of mail that is found later, too; what is wrong is refused at once. */
bool admin_order_awaits_mail(const char *verb, const json_t *request)
{
    const char *terms = json_string_value(json_object_get(request, "filter"));
    bool has_duration = json_object_get(request, "duration") != NULL;
    struct span text = span_from_text(terms == NULL ? "" : terms);
    char why[QMGR_FILTER_WHY_SIZE];
    struct qmgr_filter filter;
    enum qmgr_verb chosen;

    if (!verb_find(verb, &chosen) || qmgr_filter_parse(text, &filter, why) != ERR_OK)
        return false;
    return !has_duration || qmgr_standing_filter_parse(text, &filter, why) != ERR_OK;
}

bool admin_order_owns(const struct shard_query *query)
{
    return query->kind == SHARD_QUERY_QUEUE_ACT ||
           (query->kind == SHARD_QUERY_TRANSFER &&
            (query->visit == visit_add || query->visit == visit_cancel ||
             query->visit == visit_paused));
}

void admin_order_end(struct shard_query *query)
{
    free(query->found);
    query->found = NULL;
    query->order = NULL;
}

void admin_order_number(struct shard_query *query, uint32_t id, uint32_t uid)
{
    struct asked *asked = query->found;

    asked->standing.order.id = id;
    asked->standing.uid = uid;
}

bool admin_order_is_changing(const struct shard_query *query)
{
    const struct asked *asked = query->found;

    return admin_order_owns(query) && asked->round == ROUND_CHANGE && !asked->is_dry_run;
}

/* What a hold that stands no more, or never stood, holds is found by its number alone. */
static bool walk_is_wanted(const struct asked *asked)
{
    if (asked->err != ERR_OK)
        return false;
    if (!asked->is_cancel)
        return true;
    return !asked->is_keep && asked->sites.matched == 0 && !asked->sites.is_known &&
           (!asked->was_standing || asked->ended == QMGR_VERB_HOLD);
}

bool admin_order_next_round(struct shard_query *query)
{
    struct asked *asked = query->found;

    if (!admin_order_owns(query))
        return false;
    if (asked->round == ROUND_WALK && asked->paused.retried.count > 0 && query->err == ERR_OK) {
        asked->round = ROUND_PAUSED;
        query->kind = SHARD_QUERY_TRANSFER;
        query->visit = visit_paused;
        query->cursor = 0;
        return true;
    }
    if (asked->round != ROUND_CHANGE || !walk_is_wanted(asked))
        return false;
    asked->round = ROUND_WALK;
    query->kind = SHARD_QUERY_QUEUE_ACT;
    query->cursor = 0;
    return true;
}

/* ---- answers ---- */

static void number_set(json_t *answer, const char *name, uint64_t value)
{
    json_object_set_new(answer, name, json_integer((json_int_t)value));
}

static const char *cancel_finish(json_t *answer, const struct asked *asked,
                                 const struct shard_query *query)
{
    bool is_of_site = asked->sites.matched > 0 || asked->sites.is_known;

    if (!asked->was_standing && !is_of_site && query->acted.matched == 0)
        return "no such order stands, and nothing is held by it (angarium queue orders)";
    number_set(answer, "cancelled", asked->cancelled);
    json_object_set_new(answer, "was",
                        json_string(is_of_site            ? "site"
                                    : asked->was_standing ? qmgr_verb_name(asked->ended)
                                                          : "hold"));
    number_set(answer, "sites", asked->sites.matched);
    return NULL;
}

const char *admin_order_finish(json_t *answer, const struct shard_query *query)
{
    const struct qmgr_acted *acted = &query->acted;
    const struct asked *asked = query->found;

    if (asked->err == ERR_LIMIT)
        return "as many orders stand as may (64): cancel one (angarium queue orders)";
    if (asked->err != ERR_OK)
        return "this order cannot stand";
    if (asked->is_cancel) {
        const char *why = cancel_finish(answer, asked, query);
        if (why != NULL)
            return why;
    }
    if (!query->is_dry_run)
        number_set(answer, "order", query->order->id);
    json_object_set_new(answer, "dry_run", json_boolean(query->is_dry_run));
    json_object_set_new(answer, "verb", json_string(qmgr_verb_name(query->order->verb)));
    number_set(answer, "matched", acted->matched);
    number_set(answer, "done", acted->done);
    number_set(answer, "in_flight", acted->in_flight);
    number_set(answer, "unreadable", acted->unreadable);
    json_object_set_new(answer, "is_unwritten",
                        json_boolean(query->is_stuck && acted->done + acted->in_flight > 0));
    admin_paused_finish(answer, &asked->paused);
    if (asked->duration > 0)
        number_set(answer, "duration_us", asked->duration);
    if (asked->standing.until > 0)
        number_set(answer, "stands_until_us", (uint64_t)asked->standing.until);
    return NULL;
}

void admin_order_log(const struct shard_query *query, const char *filter)
{
    const struct asked *asked = query->found;
    const struct qmgr_acted *acted = &query->acted;
    char escaped[4096], cancelled[32];

    if (query->is_dry_run || asked->err != ERR_OK)
        return;
    (void)snprintf(cancelled, sizeof(cancelled), "order=%u", asked->cancelled);
    if (asked->is_cancel)
        filter = cancelled;
    log_line(LOG_INFO,
             "event=order verb=%s order=%u uid=%u filter=\"%s\" until_s=%lld reason=\"%s\" "
             "matched=%llu done=%llu in_flight=%llu%s",
             asked->is_cancel ? "cancel" : qmgr_verb_name(query->order->verb), query->order->id,
             asked->standing.uid, log_escape(span_from_text(filter), escaped, sizeof(escaped)),
             (long long)(asked->standing.until / 1000000), query->order->reason,
             (unsigned long long)acted->matched, (unsigned long long)acted->done,
             (unsigned long long)acted->in_flight,
             query->is_stuck ? " unwritten=1 (the spool is full)" : "");
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Orders of operators about sites. The request is read here, and carried out on each shard for the
 * sites whose home it is, a slice at a time (queue/site_act.c); counts add up from shard to shard.
 *
 * `resume NAME` says more than the end of an order: what the site's answers taught against it ends
 * as well, with what patterns ordered (queue/site_resume.c).
 *
 * Limits: an order has an end, within SITE_ORDER_TIME_MAX.
 */
#include "control/admin_site_order.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define EVERY_KIND ((1u << SITE_ORDER_KIND_COUNT) - 1)
#define LEARNED_KINDS                                                                              \
    (1u << SITE_ORDER_SUSPEND | 1u << SITE_ORDER_SLOW | 1u << SITE_ORDER_SKIP_HOST)

struct asked {
    struct site_act act;
    struct site_order order; /* act.order, but for `resume` */
    bool is_resume;
};

static void visit_sites(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    struct asked *asked = query->found;
    const struct tick_source *clock = tick_source_system();

    asked->order.until = now + asked->order.duration;
    asked->order.given = clock->wall(clock->context);
    if (!site_act_step(transfer_sites(transfer), &asked->act, &query->cursor, now))
        query->cursor = UINT64_MAX;
}

static enum admin_site_kind refuse(char ret_why[ADMIN_SITE_WHY_SIZE], const char *why)
{
    (void)snprintf(ret_why, ADMIN_SITE_WHY_SIZE, "%s", why);
    return ADMIN_SITE_REFUSED;
}

static bool reason_take(const json_t *request, struct site_order *order)
{
    const char *reason = json_string_value(json_object_get(request, "reason"));

    if (reason == NULL || *reason == '\0' || strlen(reason) >= sizeof(order->reason))
        return false;
    for (const char *at = reason; *at != '\0'; at++) {
        if (*at < ' ' || *at > '~')
            return false;
    }
    memcpy(order->reason, reason, strlen(reason));
    return true;
}

static bool duration_take(const json_t *request, struct site_order *order)
{
    const char *text = json_string_value(json_object_get(request, "duration"));

    return text != NULL && qmgr_filter_time_parse(span_from_text(text), &order->duration) &&
           order->duration > 0 && order->duration <= SITE_ORDER_TIME_MAX;
}

/* connections=N, rate=N/TIME */
static bool setting_take(const char *text, struct site_order *order)
{
    struct rate_set rates;

    if (strncmp(text, "connections=", 12) == 0)
        return rate_count_parse(span_from_text(text + 12), &order->connection_max) == ERR_OK;
    if (strncmp(text, "rate=", 5) != 0 ||
        rate_set_parse(span_from_text(text + 5), &rates) != ERR_OK || rates.count != 1)
        return false;
    order->rate = rates.rates[0];
    return true;
}

static bool settings_take(const json_t *request, struct site_order *order)
{
    const char *settings = json_string_value(json_object_get(request, "settings"));
    char text[256], *rest = NULL;

    if (settings == NULL || strlen(settings) >= sizeof(text))
        return false;
    memcpy(text, settings, strlen(settings) + 1);
    for (char *word = strtok_r(text, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        if (!setting_take(word, order))
            return false;
    }
    return order->connection_max > 0 || order->rate.count > 0;
}

static enum admin_site_kind prepare_new(const char *verb, const json_t *request,
                                        struct asked *asked, char ret_why[ADMIN_SITE_WHY_SIZE])
{
    struct site_order *order = &asked->order;

    *order = (struct site_order){.kind = SITE_ORDER_SUSPEND, .by = "operator"};
    asked->act.order = order;
    if (!reason_take(request, order))
        return refuse(ret_why, "say why: --reason, printable ASCII of at most 175 octets");
    if (!duration_take(request, order))
        return refuse(ret_why, "say for how long: --duration, such as 90s, 5m, 1d12h; 31d at most");
    if (strcmp(verb, "site suspend") == 0)
        return ADMIN_SITE_READY;
    order->kind = SITE_ORDER_SLOW;
    if (!settings_take(request, order))
        return refuse(ret_why, "say what: connections=N, rate=N/TIME with one window, or both");
    return ADMIN_SITE_READY;
}

/* A number is an order's, of any kind; a name means what suspends that site, and all that it was
 * not an operator who imposed. */
static enum admin_site_kind prepare_resume(const json_t *request, struct asked *asked,
                                           char ret_why[ADMIN_SITE_WHY_SIZE])
{
    struct site_act *act = &asked->act;
    bool is_number = strlen(act->name) <= 8 && act->name[strspn(act->name, "0123456789")] == '\0';

    asked->is_resume = true;
    if (json_object_get(request, "reason") != NULL && !reason_take(request, &asked->order))
        return refuse(ret_why, "a reason is printable ASCII of at most 175 octets");
    act->is_resume = !is_number;
    act->kinds = is_number ? EVERY_KIND : 1u << SITE_ORDER_SUSPEND;
    act->pattern_kinds = LEARNED_KINDS;
    act->id = is_number ? (uint32_t)strtoul(act->name, NULL, 10) : 0;
    if (is_number)
        act->name[0] = '\0';
    return ADMIN_SITE_READY;
}

enum admin_site_kind admin_site_order_prepare(const char *verb, const json_t *request,
                                              struct shard_query *query,
                                              char ret_why[ADMIN_SITE_WHY_SIZE])
{
    const char *name = json_string_value(json_object_get(request, "id"));
    bool is_resume = strcmp(verb, "site resume") == 0;

    if (!is_resume && strcmp(verb, "site suspend") != 0 && strcmp(verb, "site set") != 0)
        return ADMIN_SITE_NONE;
    struct asked *asked = calloc(1, sizeof(*asked));
    query->kind = SHARD_QUERY_TRANSFER;
    query->visit = visit_sites;
    query->found = asked;
    if (asked == NULL)
        return refuse(ret_why, "no memory");
    if (name == NULL || *name == '\0' || strlen(name) >= sizeof(asked->act.name))
        return refuse(ret_why, "say which site");
    memcpy(asked->act.name, name, strlen(name));
    asked->act.is_dry_run = json_is_true(json_object_get(request, "dry_run"));
    if (!is_resume)
        return prepare_new(verb, request, asked, ret_why);
    return prepare_resume(request, asked, ret_why);
}

bool admin_site_order_owns(const struct shard_query *query)
{
    return query->kind == SHARD_QUERY_TRANSFER && query->visit == visit_sites;
}

void admin_site_order_number(struct shard_query *query, uint32_t id)
{
    struct asked *asked = query->found;

    asked->order.id = id;
}

static void order_log(const struct asked *asked)
{
    char escaped[4 * sizeof(asked->act.name) + 1];

    log_line(LOG_INFO,
             "event=site_order verb=%s order=%u site=\"%s\" duration_s=%llu reason=\"%s\" "
             "matched=%u done=%u",
             asked->is_resume                          ? "resume"
             : asked->order.kind == SITE_ORDER_SUSPEND ? "suspend"
                                                       : "set",
             asked->is_resume ? asked->act.id : asked->order.id,
             log_escape(span_from_text(asked->act.name), escaped, sizeof(escaped)),
             (unsigned long long)(asked->order.duration / 1000000), asked->order.reason,
             asked->act.matched, asked->act.done);
}

static json_t *ended_row(const struct site_ended *ended)
{
    return json_pack("{sI,sI,sI,sI,sI}", "orders", (json_int_t)ended->orders, "pauses",
                     (json_int_t)ended->pauses, "back_offs", (json_int_t)ended->back_offs,
                     "reduced", (json_int_t)ended->reduced, "addresses", (json_int_t)ended->hosts);
}

bool admin_site_order_finish(json_t *answer, const struct shard_query *query)
{
    const struct asked *asked = query->found;
    const struct site_act *act = &asked->act;

    if (act->matched == 0 && !act->is_known)
        return false;
    if (!act->is_dry_run)
        order_log(asked);
    json_object_set_new(answer, "order", json_integer(asked->is_resume ? 0 : asked->order.id));
    json_object_set_new(answer, "matched", json_integer(act->matched));
    json_object_set_new(answer, "done", json_integer(act->done));
    json_object_set_new(answer, "dry_run", json_boolean(act->is_dry_run));
    if (act->is_resume)
        json_object_set_new(answer, "ended", ended_row(&act->ended));
    return true;
}

void admin_site_order_end(struct shard_query *query)
{
    free(query->found);
    query->found = NULL;
}

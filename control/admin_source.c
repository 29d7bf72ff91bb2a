/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sources, for operators. A visit runs on each shard's thread, carries out what is asked, and then
 * adds that shard's rows; they belong to the shard until its reply.
 *
 * Limits: a suspension has an end, within SUSPEND_TIME_MAX.
 */
#include "control/admin_source.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define SUSPEND_TIME_MAX SOURCE_KEPT_TIME_MAX

enum source_verb { SOURCE_SHOW, SOURCE_SUSPEND, SOURCE_RESUME, SOURCE_VERB_COUNT };
static const char *const verbs[SOURCE_VERB_COUNT] = {
    [SOURCE_SHOW] = "source show",
    [SOURCE_SUSPEND] = "source suspend",
    [SOURCE_RESUME] = "source resume",
};

struct found_source {
    uint32_t core;
    char name[SETTINGS_SOURCE_NAME_MAX + 1], hello[MX_NAME_MAX];
    struct flow_address ip4, ip6;
    bool is_suspended, is_broken;
    uint64_t left;
    uint32_t failures, day_count, day, limit;
    char reason[SOURCE_REASON_SIZE];
    struct source_rest rests[SOURCE_PART_COUNT]; /* those that are none have no cause */
    tick_us now;
};

struct asked {
    enum source_verb verb;
    char name[SETTINGS_SOURCE_NAME_MAX + 1]; /* "": all */
    bool is_dry_run;
    uint64_t duration;
    char reason[SOURCE_REASON_SIZE];
    uint32_t cores; /* that have answered */
    uint32_t count;
    struct found_source *rows;
};

/* ---- on the shards ---- */

static void carry_out(const struct asked *asked, struct source_set *sources, tick_us now)
{
    struct span name = span_from_text(asked->name);
    bool is_found = true; /* the rows tell whether it was */

    if (asked->is_dry_run)
        return;
    if (asked->verb == SOURCE_SUSPEND)
        is_found = source_suspend(sources, name, now + asked->duration, asked->reason);
    else if (asked->verb == SOURCE_RESUME)
        is_found = source_resume(sources, name, now);
    (void)is_found;
}

static void row_fill(struct found_source *row, const struct source_view *view, tick_us now)
{
    const struct tick_source *clock = tick_source_system();
    const struct settings_source *source = view->source;
    wall_us wall = clock->wall(clock->context);

    (void)snprintf(row->name, sizeof(row->name), "%s", source->name);
    (void)snprintf(row->hello, sizeof(row->hello), "%s", source->hello_name);
    row->ip4 = source->ip4;
    row->ip6 = source->ip6;
    row->is_suspended = view->is_suspended;
    row->is_broken = view->is_broken;
    row->left = view->until > now ? view->until - now : 0;
    row->failures = view->failures;
    row->limit = settings_warmup_limit(source, wall);
    row->day_count = row->limit == SETTINGS_WARM ? 0 : source->warmup.day_count;
    if (row->limit > 0 && row->day_count > 0)
        row->day = (uint32_t)((wall - source->warmup.start) / SETTINGS_DAY) + 1;
    (void)snprintf(row->reason, sizeof(row->reason), "%s", view->reason);
    memcpy(row->rests, view->rests, sizeof(row->rests));
    row->now = now;
}

static void visit_sources(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    struct asked *asked = query->found;
    struct source_set *sources = transfer_sources(transfer);
    uint32_t count = source_count(sources);
    struct found_source *rows =
        reallocarray(asked->rows, asked->count + count, sizeof(*asked->rows));

    CHECK(rows != NULL);
    asked->rows = rows;
    carry_out(asked, sources, now);
    for (uint32_t i = 0; i < count; i++) {
        struct source_view view = source_get_view(sources, i, now);
        if (asked->name[0] != '\0' &&
            !span_is_equal_nocase(span_from_text(view.source->name), span_from_text(asked->name)))
            continue;
        struct found_source *row = &rows[asked->count++];
        *row = (struct found_source){.core = asked->cores};
        row_fill(row, &view, now);
    }
    asked->cores++;
    query->cursor = UINT64_MAX;
}

/* ---- requests ---- */

static enum admin_source_kind refuse(char ret_why[ADMIN_SOURCE_WHY_SIZE], const char *why)
{
    (void)snprintf(ret_why, ADMIN_SOURCE_WHY_SIZE, "%s", why);
    return ADMIN_SOURCE_REFUSED;
}

static bool text_take(const json_t *request, const char *key, char *into, size_t size)
{
    const char *text = json_string_value(json_object_get(request, key));

    if (text == NULL || *text == '\0' || strlen(text) >= size)
        return false;
    for (const char *at = text; *at != '\0'; at++) {
        if (*at < ' ' || *at > '~')
            return false;
    }
    memcpy(into, text, strlen(text));
    return true;
}

static bool duration_take(const json_t *request, uint64_t *ret_duration)
{
    const char *text = json_string_value(json_object_get(request, "duration"));

    return text != NULL && qmgr_filter_time_parse(span_from_text(text), ret_duration) &&
           *ret_duration > 0 && *ret_duration <= SUSPEND_TIME_MAX;
}

enum admin_source_kind admin_source_prepare(const char *verb, const json_t *request,
                                            struct shard_query *query,
                                            char ret_why[ADMIN_SOURCE_WHY_SIZE])
{
    uint32_t which = 0;

    while (which < SOURCE_VERB_COUNT && strcmp(verb, verbs[which]) != 0)
        which++;
    if (which == SOURCE_VERB_COUNT)
        return ADMIN_SOURCE_NONE;
    struct asked *asked = calloc(1, sizeof(*asked));
    query->kind = SHARD_QUERY_TRANSFER;
    query->visit = visit_sources;
    query->found = asked;
    if (asked == NULL)
        return refuse(ret_why, "no memory");
    asked->verb = which;
    asked->is_dry_run = json_is_true(json_object_get(request, "dry_run"));
    bool has_name = text_take(request, "id", asked->name, sizeof(asked->name));
    if (!has_name && (which != SOURCE_SHOW || json_object_get(request, "id") != NULL))
        return refuse(ret_why, "say which source");
    if (which != SOURCE_SUSPEND)
        return ADMIN_SOURCE_READY;
    if (!text_take(request, "reason", asked->reason, sizeof(asked->reason)))
        return refuse(ret_why, "say why: --reason, at most 199 printable octets");
    if (!duration_take(request, &asked->duration))
        return refuse(ret_why, "say for how long: --duration, such as 90s, 5m, 1d12h; 31d at most");
    return ADMIN_SOURCE_READY;
}

bool admin_source_owns(const struct shard_query *query)
{
    return query->kind == SHARD_QUERY_TRANSFER && query->visit == visit_sources;
}

/* ---- answers ---- */

static void address_add(json_t *addresses, const struct flow_address *address)
{
    char text[FLOW_ADDRESS_TEXT_MAX];

    if (address->family != FLOW_FAMILY_NONE)
        json_array_append_new(addresses, json_string(flow_address_format_ip(address, text)));
}

static json_int_t time_between(tick_us from, tick_us to)
{
    return to > from ? (json_int_t)(to - from) : 0;
}

static json_t *evidence_rows(const struct source_rest *rest, tick_us now)
{
    json_t *rows = json_array();

    for (uint32_t i = 0; i < rest->evidence_count; i++) {
        const struct source_evidence *evidence = &rest->evidence[i];
        json_array_append_new(rows,
                              json_pack("{ss,ss,sI}", "site", evidence->site, "said",
                                        evidence->said, "ago_us", time_between(evidence->at, now)));
    }
    return rows;
}

/* Those in force, and those that are over and wait for an attempt that shows so. */
static json_t *rest_rows(const struct found_source *found)
{
    static const char *const parts[SOURCE_PART_COUNT] = {"all", "IPv4", "IPv6"};
    static const char *const causes[SOURCE_CAUSE_COUNT] = {"", "broken", "refused", "unreached"};
    json_t *rows = json_array();

    for (uint32_t i = 0; i < SOURCE_PART_COUNT; i++) {
        const struct source_rest *rest = &found->rests[i];
        if (rest->cause == SOURCE_WELL)
            continue;
        json_array_append_new(rows, json_pack("{ss,ss,sI,sI,si,si,so}", "part", parts[i], "cause",
                                              causes[rest->cause], "since_us",
                                              time_between(rest->since, found->now), "left_us",
                                              time_between(found->now, rest->until), "times",
                                              (int)rest->times, "sites", (int)rest->sites,
                                              "evidence", evidence_rows(rest, found->now)));
    }
    return rows;
}

static json_t *source_row(const struct found_source *found)
{
    json_t *addresses = json_array();
    json_t *row = json_pack("{sI,ss,ss,so}", "core", (json_int_t)found->core, "source", found->name,
                            "hello", found->hello, "addresses", addresses);

    address_add(addresses, &found->ip4);
    address_add(addresses, &found->ip6);
    json_object_set_new(row, "suspended", json_boolean(found->is_suspended));
    json_object_set_new(row, "broken", json_boolean(found->is_broken));
    json_object_set_new(row, "left_us", json_integer((json_int_t)found->left));
    json_object_set_new(row, "failures", json_integer(found->failures));
    json_object_set_new(row, "reason", json_string(found->reason));
    json_object_set_new(row, "rests", rest_rows(found));
    if (found->day_count > 0) {
        json_object_set_new(row, "warmup_day", json_integer(found->day));
        json_object_set_new(row, "warmup_days", json_integer(found->day_count));
        json_object_set_new(row, "warmup_limit", json_integer(found->limit));
    }
    return row;
}

static void change_log(const struct asked *asked)
{
    if (asked->verb == SOURCE_SHOW || asked->is_dry_run)
        return;
    log_line(LOG_INFO, "event=source_order verb=\"%s\" source=%s duration_s=%llu reason=\"%s\"",
             verbs[asked->verb], asked->rows[0].name,
             (unsigned long long)(asked->duration / 1000000), asked->reason);
}

bool admin_source_finish(json_t *answer, const struct shard_query *query)
{
    const struct asked *asked = query->found;
    json_t *rows = json_array();

    if (asked->count == 0) {
        json_decref(rows);
        return false;
    }
    for (uint32_t i = 0; i < asked->count; i++)
        json_array_append_new(rows, source_row(&asked->rows[i]));
    json_object_set_new(answer, "rows", rows);
    if (asked->is_dry_run)
        json_object_set_new(answer, "dry_run", json_true());
    change_log(asked);
    return true;
}

void admin_source_end(struct shard_query *query)
{
    struct asked *asked = query->found;

    if (asked != NULL)
        free(asked->rows);
    free(asked);
    query->found = NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue on the control socket: list, show, summary. (Orders: admin_order.c.)
 *
 * A summary adds up what the shards count by line or sender; the groups stay here, at most
 * GROUP_MAX of them, what comes beyond is one group of its own.
 */
#include "control/admin_queue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "control/admin_cat.h"

#define GROUP_MAX    100000u
#define GROUP_OTHERS "(others)"

static const char *const by_names[QMGR_BY_COUNT] = {
    [QMGR_BY_SITE] = "site",   [QMGR_BY_DOMAIN] = "domain",        [QMGR_BY_SOURCE] = "source",
    [QMGR_BY_CLASS] = "class", [QMGR_BY_SENDER] = "sender_domain",
};

/* ---- requests ---- */

static enum admin_queue_kind refuse(char ret_why[ADMIN_QUEUE_WHY_SIZE], const char *why)
{
    (void)snprintf(ret_why, ADMIN_QUEUE_WHY_SIZE, "%s", why);
    return ADMIN_QUEUE_REFUSED;
}

static enum admin_queue_kind prepare_rows(struct shard_query *query,
                                          char ret_why[ADMIN_QUEUE_WHY_SIZE])
{
    query->row_max = SHARD_QUERY_ROWS_MAX;
    query->rows = calloc(query->row_max, sizeof(*query->rows));
    return query->rows != NULL ? ADMIN_QUEUE_READY : refuse(ret_why, "no memory");
}

bool admin_queue_filter(const json_t *request, struct shard_query *query,
                        char ret_why[ADMIN_QUEUE_WHY_SIZE])
{
    const json_t *text = json_object_get(request, "filter");
    struct qmgr_filter *filter = calloc(1, sizeof(*filter));
    char why[QMGR_FILTER_WHY_SIZE] = "the filter is no text";
    struct span terms = span_of(json_is_string(text) ? json_string_value(text) : "",
                                (uint32_t)json_string_length(text));
    bool is_text = text == NULL || json_is_string(text);

    query->filter = filter;
    if (filter != NULL && is_text && qmgr_filter_parse(terms, filter, why) == ERR_OK)
        return true;
    (void)refuse(ret_why, filter == NULL ? "no memory" : why);
    return false;
}

static enum admin_queue_kind prepare_list(const json_t *request, struct shard_query *query,
                                          char ret_why[ADMIN_QUEUE_WHY_SIZE])
{
    query->kind = SHARD_QUERY_QUEUE_LIST;
    return admin_queue_filter(request, query, ret_why) ? prepare_rows(query, ret_why)
                                                       : ADMIN_QUEUE_REFUSED;
}

static enum admin_queue_kind prepare_show(const json_t *request, struct shard_query *query,
                                          char ret_why[ADMIN_QUEUE_WHY_SIZE])
{
    const char *id = json_string_value(json_object_get(request, "id"));

    query->kind = SHARD_QUERY_QUEUE_SHOW;
    if (id == NULL || message_id_parse(span_from_text(id), &query->id) != ERR_OK)
        return refuse(ret_why, "this is no message id");
    return prepare_rows(query, ret_why);
}

static enum admin_queue_kind prepare_cat(const json_t *request, struct shard_query *query,
                                         char ret_why[ADMIN_QUEUE_WHY_SIZE])
{
    return admin_cat_prepare(request, query, ret_why) ? ADMIN_QUEUE_READY : ADMIN_QUEUE_REFUSED;
}

static enum admin_queue_kind prepare_summary(const json_t *request, struct shard_query *query,
                                             char ret_why[ADMIN_QUEUE_WHY_SIZE])
{
    const char *by = json_string_value(json_object_get(request, "by"));
    uint32_t chosen = by == NULL ? QMGR_BY_SITE : QMGR_BY_COUNT;

    for (uint32_t i = 0; i < QMGR_BY_COUNT && by != NULL; i++) {
        if (strcmp(by, by_names[i]) == 0)
            chosen = i;
    }
    query->kind = SHARD_QUERY_QUEUE_SUMMARY;
    if (chosen == QMGR_BY_COUNT)
        return refuse(ret_why, "by what? site, domain, source, class or sender_domain");
    query->by = (enum qmgr_group_by)chosen;
    query->row_max = SHARD_QUERY_ROWS_MAX;
    query->groups = calloc(query->row_max, sizeof(*query->groups));
    return query->groups != NULL ? ADMIN_QUEUE_READY : refuse(ret_why, "no memory");
}

static const struct {
    const char *verb;
    enum admin_queue_kind (*prepare)(const json_t *request, struct shard_query *query,
                                     char ret_why[ADMIN_QUEUE_WHY_SIZE]);
    bool is_walk;
} verbs[] = {
    {"queue list", prepare_list, true},
    {"queue show", prepare_show, false},
    {"queue cat", prepare_cat, true},
    {"queue summary", prepare_summary, true},
};

enum admin_queue_kind admin_queue_prepare(const char *verb, const json_t *request,
                                          struct shard_query *query,
                                          char ret_why[ADMIN_QUEUE_WHY_SIZE])
{
    for (uint32_t i = 0; i < COUNT_OF(verbs); i++) {
        if (strcmp(verb, verbs[i].verb) == 0)
            return verbs[i].prepare(request, query, ret_why);
    }
    return ADMIN_QUEUE_NONE;
}

bool admin_queue_is_walk(const char *verb)
{
    for (uint32_t i = 0; i < COUNT_OF(verbs); i++) {
        if (strcmp(verb, verbs[i].verb) == 0)
            return verbs[i].is_walk;
    }
    return false;
}

void admin_queue_end(struct shard_query *query)
{
    free((void *)(uintptr_t)query->filter);
    free(query->rows);
    free(query->groups);
    free(query->cat);
    query->filter = NULL;
    query->rows = NULL;
    query->groups = NULL;
    query->cat = NULL;
}

/* ---- rows ---- */

json_t *admin_queue_text(const char *text, uint32_t size)
{
    char escaped[4 * ENVELOPE_CLIENT_SIZE_MAX + 1];
    uint32_t used = (uint32_t)strnlen(text, size);
    json_t *json = json_stringn(text, used);

    if (json == NULL)
        json = json_string(log_escape(span_of(text, used), escaped, sizeof(escaped)));
    return json;
}

const char *admin_queue_state(uint8_t state, bool is_held, bool is_active, bool is_ready)
{
    static const char *const names[RECIPIENT_STATE_COUNT] = {
        [RECIPIENT_DUE] = "waiting",     [RECIPIENT_DELIVERED] = "delivered",
        [RECIPIENT_FAILED] = "failed",   [RECIPIENT_SETTLED] = "bounced",
        [RECIPIENT_RELAYED] = "relayed",
    };

    CHECK(state < RECIPIENT_STATE_COUNT);
    if (state != RECIPIENT_DUE)
        return names[state];
    if (is_held)
        return "held";
    return is_active ? "active" : is_ready ? "ready" : "waiting";
}

json_t *admin_queue_row(const struct shard_queue_row *row)
{
    char id[MESSAGE_ID_TEXT_SIZE];
    json_t *json = json_object();

    json_object_set_new(json, "id", json_string(message_id_format(row->id, id)));
    json_object_set_new(
        json, "state",
        json_string(admin_queue_state(row->state, row->is_held, row->is_active, row->is_ready)));
    json_object_set_new(json, "sender", admin_queue_text(row->sender, sizeof(row->sender)));
    if (row->user[0] != '\0')
        json_object_set_new(json, "user", admin_queue_text(row->user, sizeof(row->user)));
    json_object_set_new(json, "recipient",
                        admin_queue_text(row->recipient, sizeof(row->recipient)));
    json_object_set_new(json, "domain", admin_queue_text(row->domain, sizeof(row->domain)));
    json_object_set_new(json, "site", admin_queue_text(row->site, sizeof(row->site)));
    json_object_set_new(json, "source", admin_queue_text(row->source, sizeof(row->source)));
    json_object_set_new(json, "class", json_integer(row->class));
    json_object_set_new(json, "class_name", json_string(row->class_name));
    json_object_set_new(json, "size", json_integer((json_int_t)row->size));
    json_object_set_new(json, "arrived_us", json_integer(row->arrived));
    json_object_set_new(json, "expires_us", json_integer(row->expires));
    json_object_set_new(json, "next_try_us", json_integer(row->next_try));
    if (row->is_held)
        json_object_set_new(json, "order", json_integer(row->order));
    if (row->is_held && row->order == QMGR_ORDER_QUOTA)
        json_object_set_new(json, "held_for", json_string("quota"));
    json_object_set_new(json, "attempts", json_integer(row->attempts));
    json_object_set_new(json, "way_reason", json_string(way_name((enum way)row->way)));
    json_object_set_new(json, "shard", json_integer(row->shard));
    json_object_set_new(json, "last_reply",
                        admin_queue_text(row->last_reply, sizeof(row->last_reply)));
    return json;
}

/* ---- summary ---- */

static void ages_add(json_t *ages, const uint32_t counts[QMGR_AGE_BUCKET_COUNT])
{
    for (uint32_t i = 0; i < QMGR_AGE_BUCKET_COUNT; i++) {
        json_int_t sum = json_integer_value(json_array_get(ages, i)) + counts[i];
        json_array_set_new(ages, i, json_integer(sum));
    }
}

static json_t *group_get(json_t *groups, const char *name)
{
    json_t *ages = json_object_get(groups, name);

    if (ages != NULL)
        return ages;
    if (json_object_size(groups) >= GROUP_MAX && strcmp(name, GROUP_OTHERS) != 0)
        return group_get(groups, GROUP_OTHERS);
    ages = json_array();
    for (uint32_t i = 0; i < QMGR_AGE_BUCKET_COUNT; i++)
        json_array_append_new(ages, json_integer(0));
    json_object_set_new(groups, name, ages);
    return ages;
}

void admin_summary_add(json_t *groups, const struct shard_query *query)
{
    char escaped[4 * ENVELOPE_ADDRESS_SIZE_MAX + 1];

    for (uint32_t i = 0; i < query->row_count; i++) {
        const struct qmgr_group *group = &query->groups[i];
        const char *name = log_escape(span_from_text(group->name), escaped, sizeof(escaped));
        ages_add(group_get(groups, name), group->ages);
    }
}

struct group_total {
    const char *name;
    json_t *ages;
    json_int_t total;
};

static int total_compare(const void *a, const void *b)
{
    const struct group_total *left = a, *right = b;

    if (left->total != right->total)
        return (left->total < right->total) - (left->total > right->total);
    return strcmp(left->name, right->name);
}

static json_int_t ages_total(const json_t *ages)
{
    json_int_t total = 0;

    for (uint32_t i = 0; i < QMGR_AGE_BUCKET_COUNT; i++)
        total += json_integer_value(json_array_get(ages, i));
    return total;
}

static json_t *group_row(const struct group_total *group)
{
    json_t *row = json_object();

    json_object_set_new(row, "name", json_string(group->name));
    json_object_set_new(row, "total", json_integer(group->total));
    json_object_set(row, "ages", group->ages);
    return row;
}

void admin_summary_finish(json_t *answer, json_t *groups, enum qmgr_group_by by, uint64_t limit)
{
    size_t count = json_object_size(groups), used = 0;
    struct group_total *totals = calloc(count + 1, sizeof(*totals));
    json_t *rows = json_array(), *ages = json_array(), *value;
    const char *name;
    json_int_t total = 0;

    CHECK(totals != NULL);
    for (uint32_t i = 0; i < QMGR_AGE_BUCKET_COUNT; i++)
        json_array_append_new(ages, json_integer(0));
    json_object_foreach(groups, name, value)
    {
        uint32_t counts[QMGR_AGE_BUCKET_COUNT];
        for (uint32_t i = 0; i < QMGR_AGE_BUCKET_COUNT; i++)
            counts[i] = (uint32_t)json_integer_value(json_array_get(value, i));
        ages_add(ages, counts);
        totals[used] = (struct group_total){name, value, ages_total(value)};
        total += totals[used].total;
        used += totals[used].total > 0; /* what has no mail any more may be known for a while */
    }
    qsort(totals, used, sizeof(*totals), total_compare);
    for (size_t i = 0; i < used && i < limit; i++)
        json_array_append_new(rows, group_row(&totals[i]));
    free(totals);
    json_object_set_new(answer, "by", json_string(by_names[by]));
    json_object_set_new(answer, "rows", rows);
    json_object_set_new(answer, "groups", json_integer((json_int_t)used));
    json_object_set_new(answer, "total", json_integer(total));
    json_object_set_new(answer, "ages", ages);
}

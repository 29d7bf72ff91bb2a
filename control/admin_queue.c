/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue on the control socket: what list, show and summary ask, and the rows of the first two.
 * (Orders: admin_order.c; the answer to summary: admin_summary.c.)
 */
#include "control/admin_queue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "control/admin_cat.h"

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

/* No more of them than are wanted. */
static enum admin_queue_kind prepare_rows(const json_t *request, struct shard_query *query,
                                          char ret_why[ADMIN_QUEUE_WHY_SIZE])
{
    json_int_t limit = json_integer_value(json_object_get(request, "limit"));
    bool is_few = limit > 0 && limit < (json_int_t)SHARD_QUERY_ROWS_MAX;

    query->row_max = is_few ? (uint32_t)limit : SHARD_QUERY_ROWS_MAX;
    query->rows = reallocarray(NULL, query->row_max, sizeof(*query->rows));
    return query->rows != NULL ? ADMIN_QUEUE_READY : refuse(ret_why, "no memory");
}

bool admin_queue_filter(const json_t *request, struct shard_query *query,
                        char ret_why[ADMIN_QUEUE_WHY_SIZE])
{
    const json_t *text = json_object_get(request, "filter");
    struct qmgr_filter *filter = malloc(sizeof(*filter)); /* large, and all of it is written */
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
    return admin_queue_filter(request, query, ret_why) ? prepare_rows(request, query, ret_why)
                                                       : ADMIN_QUEUE_REFUSED;
}

static enum admin_queue_kind prepare_show(const json_t *request, struct shard_query *query,
                                          char ret_why[ADMIN_QUEUE_WHY_SIZE])
{
    const char *id = json_string_value(json_object_get(request, "id"));

    query->kind = SHARD_QUERY_QUEUE_SHOW;
    if (id == NULL || message_id_parse(span_from_text(id), &query->id) != ERR_OK)
        return refuse(ret_why, "this is no message id");
    return prepare_rows(NULL, query, ret_why);
}

static enum admin_queue_kind prepare_cat(const json_t *request, struct shard_query *query,
                                         char ret_why[ADMIN_QUEUE_WHY_SIZE])
{
    return admin_cat_prepare(request, query, ret_why) ? ADMIN_QUEUE_READY : ADMIN_QUEUE_REFUSED;
}

static bool summary_ready(struct shard_query *query, enum qmgr_group_by by)
{
    query->kind = SHARD_QUERY_QUEUE_SUMMARY;
    query->by = by;
    query->row_max = SHARD_QUERY_ROWS_MAX;
    query->groups = reallocarray(NULL, query->row_max, sizeof(*query->groups));
    return query->groups != NULL;
}

bool admin_queue_prepare_sites(struct shard_query *query)
{
    return summary_ready(query, QMGR_BY_SITE);
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
    if (chosen == QMGR_BY_COUNT)
        return refuse(ret_why, "by what? site, domain, source, class or sender_domain");
    return summary_ready(query, (enum qmgr_group_by)chosen) ? ADMIN_QUEUE_READY
                                                            : refuse(ret_why, "no memory");
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

static void text_set(struct json_text *out, struct span key, const char *text, size_t size)
{
    json_text_key(out, key);
    json_text_string(out, text, strnlen(text, size));
}

void admin_queue_row(struct json_text *out, const struct shard_queue_row *row)
{
    char id[MESSAGE_ID_TEXT_SIZE];

    json_text_open(out, '{');
    json_text_set_string(out, JSON_KEY("id"), message_id_format(row->id, id));
    json_text_set_string(
        out, JSON_KEY("state"),
        admin_queue_state(row->state, row->is_held, row->is_active, row->is_ready));
    text_set(out, JSON_KEY("sender"), row->sender, sizeof(row->sender));
    if (row->user[0] != '\0')
        text_set(out, JSON_KEY("user"), row->user, sizeof(row->user));
    text_set(out, JSON_KEY("recipient"), row->recipient, sizeof(row->recipient));
    text_set(out, JSON_KEY("domain"), row->domain, sizeof(row->domain));
    text_set(out, JSON_KEY("site"), row->site, sizeof(row->site));
    text_set(out, JSON_KEY("source"), row->source, sizeof(row->source));
    json_text_set_number(out, JSON_KEY("class"), row->class);
    json_text_set_string(out, JSON_KEY("class_name"), row->class_name);
    json_text_set_number(out, JSON_KEY("size"), row->size);
    json_text_set_number(out, JSON_KEY("arrived_us"), (uint64_t)row->arrived);
    json_text_set_number(out, JSON_KEY("expires_us"), (uint64_t)row->expires);
    json_text_set_number(out, JSON_KEY("next_try_us"), (uint64_t)row->next_try);
    if (row->is_held)
        json_text_set_number(out, JSON_KEY("order"), row->order);
    if (row->is_held && row->order == QMGR_ORDER_QUOTA)
        json_text_set_string(out, JSON_KEY("held_for"), "quota");
    json_text_set_number(out, JSON_KEY("attempts"), row->attempts);
    json_text_set_string(out, JSON_KEY("way_reason"), way_name((enum way)row->way));
    json_text_set_number(out, JSON_KEY("shard"), row->shard);
    text_set(out, JSON_KEY("last_reply"), row->last_reply, sizeof(row->last_reply));
    json_text_close(out, '}');
}

const char *admin_queue_by_name(enum qmgr_group_by by)
{
    CHECK(by < QMGR_BY_COUNT);
    return by_names[by];
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One message as it is stored, as lines of JSON: what each look of the shard has found goes out
 * before the next one, so that a look is all that is in memory, however large the message is.
 */
#include "control/admin_cat.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/base64.h"
#include "control/admin_internal.h"
#include "control/admin_queue.h"

struct name {
    uint32_t bit;
    const char *text;
};

static const struct name flag_names[] = {
    {ENVELOPE_EIGHT_BIT, "8-bit"},
    {ENVELOPE_SMTPUTF8, "SMTPUTF8"},
    {ENVELOPE_UTF8_NEEDED, "needs SMTPUTF8"},
    {ENVELOPE_DOT_LINES, "lines that begin with dots"},
    {ENVELOPE_NO_FINAL_CRLF, "no final CRLF"},
    {ENVELOPE_IS_DSN, "notification"},
    {ENVELOPE_IN_DOUBT, "in doubt"},
    {ENVELOPE_RET_FULL, "RET=FULL"},
    {ENVELOPE_RET_HEADERS, "RET=HDRS"},
    {ENVELOPE_DELAY_TOLD, "delay told"},
};

static const struct name notify_names[] = {
    {ENVELOPE_NOTIFY_NEVER, "NEVER"},
    {ENVELOPE_NOTIFY_SUCCESS, "SUCCESS"},
    {ENVELOPE_NOTIFY_FAILURE, "FAILURE"},
    {ENVELOPE_NOTIFY_DELAY, "DELAY"},
};

static const struct {
    const char *name;
    bool has_envelope, has_header, has_body;
} parts[] = {
    {"all", true, true, true},
    {"envelope", true, false, false},
    {"header", false, true, false},
    {"message", false, true, true},
};

bool admin_cat_prepare(const json_t *request, struct shard_query *query,
                       char ret_why[ADMIN_CAT_WHY_SIZE])
{
    const char *id = json_string_value(json_object_get(request, "id"));
    const char *part = json_string_value(json_object_get(request, "part"));
    struct shard_cat *cat = calloc(1, sizeof(*cat));
    uint32_t chosen = 0;

    query->kind = SHARD_QUERY_QUEUE_CAT;
    query->cat = cat;
    while (part != NULL && chosen < COUNT_OF(parts) && strcmp(part, parts[chosen].name) != 0)
        chosen++;
    bool is_id = id != NULL && message_id_parse(span_from_text(id), &query->id) == ERR_OK;
    if (cat == NULL || !is_id || chosen == COUNT_OF(parts)) {
        (void)snprintf(ret_why, ADMIN_CAT_WHY_SIZE, "%s",
                       cat == NULL ? "no memory"
                       : !is_id    ? "this is no message id"
                                   : "which part? all, envelope, header or message");
        return false;
    }
    cat->has_envelope = parts[chosen].has_envelope;
    cat->has_header = parts[chosen].has_header;
    cat->has_body = parts[chosen].has_body;
    return true;
}

static json_t *names_new(const struct name *names, uint32_t count, uint32_t bits)
{
    json_t *json = json_array();

    for (uint32_t i = 0; i < count; i++) {
        if (bits & names[i].bit)
            json_array_append_new(json, json_string(names[i].text));
    }
    return json;
}

static json_t *message_new(const struct shard_cat *cat, struct message_id id)
{
    char text[MESSAGE_ID_TEXT_SIZE];
    json_t *json = json_object();

    json_object_set_new(json, "id", json_string(message_id_format(id, text)));
    json_object_set_new(json, "arrived_us", json_integer(cat->arrived));
    json_object_set_new(json, "expires_us", json_integer(cat->expires));
    json_object_set_new(json, "sender", admin_queue_text(cat->sender, sizeof(cat->sender)));
    json_object_set_new(json, "client", admin_queue_text(cat->client, sizeof(cat->client)));
    json_object_set_new(json, "class", json_integer(cat->class));
    json_object_set_new(json, "class_name", json_string(cat->class_name));
    json_object_set_new(json, "source", admin_queue_text(cat->source, sizeof(cat->source)));
    json_object_set_new(json, "size", json_integer((json_int_t)cat->size));
    json_object_set_new(json, "header_size", json_integer(cat->header_size));
    json_object_set_new(json, "prefix_size", json_integer(cat->prefix_size));
    json_object_set_new(json, "flags", names_new(flag_names, COUNT_OF(flag_names), cat->flags));
    json_object_set_new(json, "envid", admin_queue_text(cat->envid, sizeof(cat->envid)));
    json_object_set_new(json, "recipients", json_integer(cat->recipient_count));
    return json;
}

static json_t *row_new(const struct shard_cat_row *row)
{
    json_t *json = json_object();

    json_object_set_new(json, "recipient", admin_queue_text(row->address, sizeof(row->address)));
    json_object_set_new(
        json, "state",
        json_string(admin_queue_state(row->state, row->is_held, row->is_active, row->is_ready)));
    json_object_set_new(json, "attempts", json_integer(row->attempts));
    json_object_set_new(json, "domain", admin_queue_text(row->domain, sizeof(row->domain)));
    json_object_set_new(json, "site", admin_queue_text(row->site, sizeof(row->site)));
    json_object_set_new(json, "notify",
                        names_new(notify_names, COUNT_OF(notify_names), row->notify));
    json_object_set_new(json, "orcpt", admin_queue_text(row->orcpt, sizeof(row->orcpt)));
    return json;
}

static json_t *octets_new(const struct shard_cat *cat)
{
    char *text = malloc(BASE64_SIZE(cat->octet_count));
    json_t *json = NULL;

    if (text == NULL)
        return NULL;
    base64_encode(span_of(cat->octets, cat->octet_count), text);
    json = json_stringn(text, BASE64_SIZE(cat->octet_count));
    free(text);
    return json;
}

bool admin_cat_add(struct admin_client *client, struct shard_query *query)
{
    struct shard_cat *cat = query->cat;
    bool is_ok = true;

    if (cat->is_found && cat->has_envelope && !cat->is_told)
        is_ok =
            admin_client_append(client, json_pack("{so}", "message", message_new(cat, query->id)));
    cat->is_told = cat->is_found;
    for (uint32_t i = 0; i < cat->row_count; i++)
        is_ok =
            admin_client_append(client, json_pack("{so}", "row", row_new(&cat->rows[i]))) && is_ok;
    if (cat->octet_count > 0)
        is_ok = admin_client_append(client, json_pack("{so}", "octets", octets_new(cat))) && is_ok;
    return is_ok;
}

bool admin_cat_is_over(const struct shard_query *query)
{
    const struct shard_cat *cat = query->cat;

    return cat != NULL && cat->is_at_octets && cat->offset == cat->end;
}

void admin_cat_finish(json_t *answer, const struct shard_query *query)
{
    json_object_set_new(answer, "octets", json_integer((json_int_t)query->cat->offset));
}

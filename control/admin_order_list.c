/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All that operators ordered and that is in force. Of an order about mail all shards have the same,
 * but for what they did by it, which adds up. Orders about sites are found as for the keeper: each
 * shard's, a slice at a time, and those for sites to come; one that is about several sites, as they
 * are seen from several sources, is one row. What patterns ordered is not here: there may be
 * thousands (`site show`).
 *
 * Limits: SITE_ROWS_MAX orders about sites.
 */
#include "control/admin_order_list.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SITE_ROWS_MAX 1000u
#define SITE_SLICE    256u
_Static_assert(SITE_SLICE >= SITE_ORDER_MAX + SITE_STANDING_MAX, "a slice has room");

struct found {
    uint32_t count;
    struct qmgr_standing mail[QMGR_STANDING_MAX];
    uint32_t site_count;
    struct site_order_kept sites[SITE_ROWS_MAX];
    struct site_order_kept slice[SITE_SLICE];
};

/* ---- on the shards ---- */

static void mail_add(struct found *found, const struct qmgr_standing *standing)
{
    for (uint32_t i = 0; i < found->count; i++) {
        struct qmgr_standing *known = &found->mail[i];
        if (known->order.id != standing->order.id)
            continue;
        known->done_now += standing->done_now;
        known->done_since += standing->done_since;
        return;
    }
    if (found->count < QMGR_STANDING_MAX)
        found->mail[found->count++] = *standing;
}

static void site_add(struct found *found, const struct site_order_kept *kept)
{
    bool is_known = kept->order.is_pattern || found->site_count == SITE_ROWS_MAX;

    for (uint32_t i = 0; i < found->site_count && !is_known; i++)
        is_known = found->sites[i].order.id == kept->order.id;
    if (!is_known)
        found->sites[found->site_count++] = *kept;
}

static void visit_orders(struct shard_query *query, struct transfer *transfer, tick_us tick)
{
    const struct tick_source *clock = tick_source_system();
    struct tick_now now = {tick, clock->wall(clock->context)};
    struct found *found = query->found;
    const struct qmgr_standing *standing;
    uint32_t index = 0;

    while (query->cursor == 0 &&
           (standing = qmgr_standing_next(transfer_queue(transfer), &index, now)) != NULL)
        mail_add(found, standing);
    uint32_t count = site_keep_next_orders(transfer_sites(transfer), &query->cursor, now,
                                           found->slice, SITE_SLICE);
    for (uint32_t i = 0; i < count; i++)
        site_add(found, &found->slice[i]);
}

/* ---- asked and answered ---- */

bool admin_order_list_prepare(const char *verb, struct shard_query *query)
{
    if (strcmp(verb, "queue orders") != 0)
        return false;
    query->kind = SHARD_QUERY_TRANSFER;
    query->visit = visit_orders;
    query->found = calloc(1, sizeof(struct found));
    return true;
}

bool admin_order_list_owns(const struct shard_query *query)
{
    return query->kind == SHARD_QUERY_TRANSFER && query->visit == visit_orders;
}

void admin_order_list_end(struct shard_query *query)
{
    free(query->found);
    query->found = NULL;
}

static json_t *row_new(uint32_t id, const char *verb, const char *filter, const char *reason)
{
    json_t *row = json_object();

    json_object_set_new(row, "order", json_integer(id));
    json_object_set_new(row, "verb", json_string(verb));
    json_object_set_new(row, "filter", json_string(filter));
    json_object_set_new(row, "reason", json_string(reason));
    return row;
}

static json_t *mail_row(const struct qmgr_standing *standing)
{
    const struct qmgr_order *order = &standing->order;
    json_t *row = row_new(order->id, qmgr_verb_name(order->verb),
                          standing->terms[0] != '\0' ? standing->terms : "all", order->reason);

    if (order->verb == QMGR_VERB_REROUTE)
        json_object_set_new(row, "to", json_string(order->route));
    json_object_set_new(row, "uid", json_integer(standing->uid));
    json_object_set_new(row, "given_us", json_integer(standing->given));
    json_object_set_new(row, "until_us", json_integer(standing->until));
    json_object_set_new(row, "now", json_integer((json_int_t)standing->done_now));
    json_object_set_new(row, "since", json_integer((json_int_t)standing->done_since));
    return row;
}

static json_t *site_row(const struct site_order_kept *kept)
{
    char filter[SITE_LABEL_MAX + 8];

    (void)snprintf(filter, sizeof(filter), "site=%s", kept->label);
    json_t *row =
        row_new(kept->order.id, kept->order.kind == SITE_ORDER_SUSPEND ? "suspend" : "set", filter,
                kept->order.reason);
    json_object_set_new(row, "given_us", json_integer(kept->order.given));
    json_object_set_new(row, "until_us", json_integer(kept->until));
    return row;
}

void admin_order_list_finish(json_t *answer, const struct shard_query *query)
{
    const struct found *found = query->found;
    json_t *rows = json_array();

    for (uint32_t i = 0; i < found->count; i++)
        json_array_append_new(rows, mail_row(&found->mail[i]));
    for (uint32_t i = 0; i < found->site_count; i++)
        json_array_append_new(rows, site_row(&found->sites[i]));
    json_object_set_new(answer, "rows", rows);
}

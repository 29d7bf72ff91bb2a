/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking at the network planes. A look is a function that runs on the shard's thread, in one turn,
 * and fills at most FLOW_SLICE or DATAPLANE_COUNTERS_MAX rows of `struct found`, which belongs to
 * the shard until its reply.
 */
#include "control/admin_plane.h"

#include <stdlib.h>
#include <string.h>

#include "dataplane/dataplane.h"

#define FLOW_SLICE 1000u

struct found {
    uint32_t count;
    struct dataplane_flow *flows; /* one of these two */
    struct dataplane_counter *counters;
};

static void look_at_flows(struct shard_query *query, struct flow_plane *plane)
{
    struct found *found = query->found;

    found->count = dataplane_flows(plane, &query->cursor, found->flows, FLOW_SLICE);
}

static void look_at_counters(struct shard_query *query, struct flow_plane *plane)
{
    struct found *found = query->found;

    found->count = dataplane_counters(plane, found->counters, DATAPLANE_COUNTERS_MAX);
    query->cursor = UINT64_MAX;
}

bool admin_plane_prepare(const char *verb, struct shard_query *query)
{
    bool is_flows = strcmp(verb, "flows") == 0;

    if (!is_flows && strcmp(verb, "counters") != 0)
        return false;
    struct found *found = calloc(1, sizeof(*found));
    query->kind = SHARD_QUERY_PLANE;
    query->found = found;
    query->look = is_flows ? look_at_flows : look_at_counters;
    if (found == NULL)
        return true;
    if (is_flows)
        found->flows = calloc(FLOW_SLICE, sizeof(*found->flows));
    else
        found->counters = calloc(DATAPLANE_COUNTERS_MAX, sizeof(*found->counters));
    if (found->flows == NULL && found->counters == NULL) {
        free(found);
        query->found = NULL;
    }
    return true;
}

void admin_plane_end(struct shard_query *query)
{
    struct found *found = query->found;

    if (found == NULL)
        return;
    free(found->flows);
    free(found->counters);
    free(found);
    query->found = NULL;
}

static void number_set(json_t *row, const char *name, uint64_t value)
{
    json_object_set_new(row, name, json_integer((json_int_t)value));
}

static json_t *flow_row(const struct dataplane_flow *flow)
{
    char address[FLOW_ADDRESS_TEXT_MAX];
    json_t *row = json_object();

    json_object_set_new(row, "state", json_string(flow->state));
    json_object_set_new(row, "local", json_string(flow_address_format(&flow->local, address)));
    json_object_set_new(row, "remote", json_string(flow_address_format(&flow->remote, address)));
    number_set(row, "receive_queued", flow->receive_queued);
    number_set(row, "send_queued", flow->send_queued);
    number_set(row, "in_flight", flow->in_flight);
    number_set(row, "window_congestion", flow->window_congestion);
    number_set(row, "window_peer", flow->window_peer);
    number_set(row, "mss", flow->mss);
    number_set(row, "rtt_us", flow->rtt_us);
    number_set(row, "rto_us", flow->rto_us);
    number_set(row, "retransmitted", flow->retransmitted);
    number_set(row, "octets_received", flow->octets_received);
    number_set(row, "octets_sent", flow->octets_sent);
    number_set(row, "age_us", flow->age);
    return row;
}

static json_t *counter_row(const struct dataplane_counter *counter)
{
    json_t *row = json_object();

    json_object_set_new(row, "port", json_string(counter->port));
    json_object_set_new(row, "name", json_string(counter->name));
    json_object_set_new(row, "severity", json_string(counter->severity));
    json_object_set_new(row, "text", json_string(counter->text));
    number_set(row, "value", counter->value);
    return row;
}

void admin_plane_add(json_t *rows, const struct shard_query *query, uint32_t shard, uint32_t limit)
{
    const struct found *found = query->found;

    for (uint32_t i = 0; i < found->count && json_array_size(rows) < limit; i++) {
        json_t *row =
            found->flows != NULL ? flow_row(&found->flows[i]) : counter_row(&found->counters[i]);
        number_set(row, "core", shard);
        json_array_append_new(rows, row);
    }
}

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

static void flow_row(struct json_text *out, const struct dataplane_flow *flow)
{
    char address[FLOW_ADDRESS_TEXT_MAX];

    json_text_set_string(out, JSON_KEY("state"), flow->state);
    json_text_set_string(out, JSON_KEY("local"), flow_address_format(&flow->local, address));
    json_text_set_string(out, JSON_KEY("remote"), flow_address_format(&flow->remote, address));
    json_text_set_number(out, JSON_KEY("receive_queued"), flow->receive_queued);
    json_text_set_number(out, JSON_KEY("send_queued"), flow->send_queued);
    json_text_set_number(out, JSON_KEY("in_flight"), flow->in_flight);
    json_text_set_number(out, JSON_KEY("window_congestion"), flow->window_congestion);
    json_text_set_number(out, JSON_KEY("window_peer"), flow->window_peer);
    json_text_set_number(out, JSON_KEY("mss"), flow->mss);
    json_text_set_number(out, JSON_KEY("rtt_us"), flow->rtt_us);
    json_text_set_number(out, JSON_KEY("rto_us"), flow->rto_us);
    json_text_set_number(out, JSON_KEY("retransmitted"), flow->retransmitted);
    json_text_set_number(out, JSON_KEY("octets_received"), flow->octets_received);
    json_text_set_number(out, JSON_KEY("octets_sent"), flow->octets_sent);
    json_text_set_number(out, JSON_KEY("age_us"), flow->age);
}

static void counter_row(struct json_text *out, const struct dataplane_counter *counter)
{
    json_text_set_string(out, JSON_KEY("port"), counter->port);
    json_text_set_string(out, JSON_KEY("name"), counter->name);
    json_text_set_string(out, JSON_KEY("severity"), counter->severity);
    json_text_set_string(out, JSON_KEY("text"), counter->text);
    json_text_set_number(out, JSON_KEY("value"), counter->value);
}

uint32_t admin_plane_add(struct json_text *out, const struct shard_query *query, uint32_t shard,
                         uint64_t limit)
{
    const struct found *found = query->found;
    uint32_t count = found->count < limit ? found->count : (uint32_t)limit;

    for (uint32_t i = 0; i < count; i++) {
        json_text_open(out, '{');
        if (found->flows != NULL)
            flow_row(out, &found->flows[i]);
        else
            counter_row(out, &found->counters[i]);
        json_text_set_number(out, JSON_KEY("core"), shard);
        json_text_close(out, '}');
    }
    return count;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers of the control socket: what shards said, as JSON. Numbers of a status are rows of one
 * table, summed over the shards.
 */
#include "control/admin_answer.h"

#include <string.h>
#include <unistd.h>

#define FIELD(group, name)                                                                         \
    {                                                                                              \
#group, #name, offsetof(struct shard_status, group.name),                                  \
            sizeof(((struct shard_status *)NULL)->group.name)                                      \
    }

static const struct {
    const char *group, *name;
    size_t offset, size;
} fields[] = {
    FIELD(server, sessions),
    FIELD(server, open),
    FIELD(server, refused),
    FIELD(server, messages_accepted),
    FIELD(server, messages_rejected),
    FIELD(server, pools_unknown),
    FIELD(server, recipients_accepted),
    FIELD(server, recipients_rejected),
    FIELD(server, octets),
    FIELD(server, tls_sessions),
    FIELD(server, timeouts),
    FIELD(server, desynchronised),
    FIELD(server, sign_waits),
    FIELD(server, dkim.messages),
    FIELD(server, dkim.signatures),
    FIELD(server, dkim.unmatched),
    FIELD(server, dkim.malformed),
    FIELD(server, dkim.oversized),
    FIELD(server, dkim.failed),
    FIELD(server, brakes.connections),
    FIELD(server, brakes.connection_rate),
    FIELD(server, brakes.messages),
    FIELD(server, brakes.recipients),
    FIELD(server, brakes.refused),
    FIELD(server, brakes.errors),
    FIELD(server, brakes.networks),
    FIELD(server, brakes.forgotten),
    FIELD(server, brakes.untracked),
    FIELD(client, connections),
    FIELD(client, open),
    FIELD(client, idle),
    FIELD(client, reused),
    FIELD(client, transactions),
    FIELD(client, accepted),
    FIELD(client, deferred),
    FIELD(client, refused),
    FIELD(client, uncertain),
    FIELD(client, desynchronised),
    FIELD(client, races),
    FIELD(client, races_won),
    FIELD(client, tls_handshakes),
    FIELD(client, tls_failures),
    FIELD(queue, messages),
    FIELD(queue, deliveries_waiting),
    FIELD(queue, deliveries_ready),
    FIELD(queue, deliveries_active),
    FIELD(queue, deliveries_held),
    FIELD(queue, lines),
    FIELD(queue, inserted),
    FIELD(queue, delivered_recipients),
    FIELD(queue, failed_recipients),
    FIELD(queue, expired_recipients),
    FIELD(queue, deleted_recipients),
    FIELD(queue, deferrals),
    FIELD(queue, done),
    FIELD(queue, dsns),
    FIELD(queue, dsns_capped),
    FIELD(queue, dsn_senders_forgotten),
    FIELD(queue, delays_told),
    FIELD(queue, double_bounces),
    FIELD(queue, body_memory),
    FIELD(queue, envelope_memory),
    FIELD(queue, envelope_failures),
    FIELD(queue, unreadable),
    FIELD(queue, checked),
    FIELD(queue, check_rounds),
    FIELD(queue, stuck),
    FIELD(spool, commits),
    FIELD(spool, batches),
    FIELD(spool, octets_written),
    FIELD(spool, syncs),
    FIELD(spool, sync_failures),
    FIELD(spool, sync_time_us_total),
    FIELD(spool, voids),
    FIELD(spool, recycled_segments),
    FIELD(spool, messages_live),
    FIELD(spool, messages_recovered),
    FIELD(spool, scrub_rounds),
    FIELD(spool, scrubbed_octets),
    FIELD(spool, damaged_ranges),
    FIELD(spool, damaged_messages),
    FIELD(spool, repaired_messages),
    FIELD(spool, octets_used),
    FIELD(spool, octets_max),
    FIELD(spool, is_full),
    FIELD(spool, is_failed),
    FIELD(dns, hits),
    FIELD(dns, misses),
    FIELD(dns, coalesced),
    FIELD(dns, queries_udp),
    FIELD(dns, queries_tcp),
    FIELD(dns, answers),
    FIELD(dns, timeouts),
    FIELD(dns, servfail),
    FIELD(dns, wrong_packets),
    FIELD(dns, stale_served),
    FIELD(dns, cut_short),
    FIELD(dns, entries),
    FIELD(dns, outstanding),
    FIELD(flow, accepted),
    FIELD(flow, refused),
    FIELD(flow, connected),
    FIELD(flow, connect_failed),
    FIELD(flow, resets),
    FIELD(flow, octets_received),
    FIELD(flow, octets_sent),
    FIELD(flow, copied_octets),
    FIELD(flow, syscalls),
    FIELD(flow, flows),
    FIELD(flow, orphans),
    FIELD(ring, sent),
    FIELD(ring, received),
    FIELD(ring, full),
    FIELD(ring, wakeups),
};

static const struct {
    const char *name;
    size_t offset, size;
} shard_fields[] = {
    {"turns", offsetof(struct shard_status, turns), 8},
    {"busy_us", offsetof(struct shard_status, busy_us), 8},
    {"invariant_violations", offsetof(struct shard_status, invariant_violations), 4},
    {"handovers", offsetof(struct shard_status, handovers), 8},
};

static void number_add(json_t *object, const char *name, const void *field, size_t size)
{
    uint64_t value = 0;

    CHECK(size <= sizeof(value));
    memcpy(&value, field, size); /* little endian, as all our platforms */
    json_int_t sum = json_integer_value(json_object_get(object, name)) + (json_int_t)value;
    json_object_set_new(object, name, json_integer(sum));
}

static json_t *group_get(json_t *answer, const char *name)
{
    json_t *group = json_object_get(answer, name);

    if (group == NULL) {
        group = json_object();
        json_object_set_new(answer, name, group);
    }
    return group;
}

void admin_status_add(json_t *answer, const struct shard_status *status)
{
    for (uint32_t i = 0; i < COUNT_OF(fields); i++)
        number_add(group_get(answer, fields[i].group), fields[i].name,
                   (const uint8_t *)status + fields[i].offset, fields[i].size);
    for (uint32_t i = 0; i < COUNT_OF(shard_fields); i++)
        number_add(group_get(answer, "shards"), shard_fields[i].name,
                   (const uint8_t *)status + shard_fields[i].offset, shard_fields[i].size);
}

void admin_status_finish(json_t *answer, uint32_t shard_count, tick_us uptime,
                         const struct record_writer_stats *records)
{
    json_object_set_new(answer, "version", json_string(ANGARIUM_VERSION));
    json_object_set_new(answer, "pid", json_integer(getpid()));
    json_object_set_new(answer, "cores", json_integer(shard_count));
    json_object_set_new(answer, "uptime_s", json_integer((json_int_t)(uptime / TICK_S(1))));
    if (records == NULL)
        return;
    json_t *group = group_get(answer, "records");
    json_object_set_new(group, "written", json_integer((json_int_t)records->written));
    json_object_set_new(group, "dropped", json_integer((json_int_t)records->dropped));
    json_object_set_new(group, "write_failures", json_integer((json_int_t)records->write_failures));
}

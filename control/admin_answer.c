/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers of the control socket: what shards said, as JSON. Numbers of a status are rows of one
 * table, summed over the shards; `per_core` has a few of them for each.
 */
#include "control/admin_answer.h"

#include "control/confine.h"

#include <string.h>
#include <unistd.h>

#define FIELD(group, name, is_shared)                                                              \
    {                                                                                              \
#group, #name, offsetof(struct shard_status, group.name),                                  \
            sizeof(((struct shard_status *)NULL)->group.name), is_shared                           \
    }

static const struct {
    const char *group, *name;
    size_t offset, size;
    bool is_shared;
} fields[] = {
#define STATUS(group, name, type, help) FIELD(group, name, false),
#define SHARED(group, name, help)       FIELD(group, name, true),
#define LATENCY(name, help)
#include "control/status.def"
#undef STATUS
#undef SHARED
#undef LATENCY
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

static const struct {
    const char *name;
    size_t offset;
} latencies[] = {
#define STATUS(group, name, type, help)
#define SHARED(group, name, help)
#define LATENCY(name, help) {#name, offsetof(struct shard_status, latencies.name)},
#include "control/status.def"
#undef STATUS
#undef SHARED
#undef LATENCY
};

/* Of each shard by itself: how evenly they are loaded, and with what. */
static const struct {
    const char *name;
    size_t offset, size;
} core_fields[] = {
#define CORE(name, field)                                                                          \
    {                                                                                              \
#name, offsetof(struct shard_status, field), sizeof(((struct shard_status *)NULL)->field)  \
    }
    CORE(turns, turns),
    CORE(busy_us, busy_us),
    CORE(sessions, server.open),
    CORE(connections, client.open),
    CORE(messages, server.messages_accepted),
    CORE(deliveries, client.accepted),
    CORE(queued, queue.messages),
#undef CORE
};

static json_int_t number_get(const void *field, size_t size)
{
    uint64_t value = 0;

    CHECK(size <= sizeof(value));
    memcpy(&value, field, size); /* little endian, as all our platforms */
    return (json_int_t)value;
}

static void number_add(json_t *object, const char *name, const void *field, size_t size)
{
    json_int_t sum = json_integer_value(json_object_get(object, name)) + number_get(field, size);

    json_object_set_new(object, name, json_integer(sum));
}

/* What every shard knows as a whole; one may know it a moment before another. */
static void number_raise(json_t *object, const char *name, const void *field, size_t size)
{
    json_int_t before = json_integer_value(json_object_get(object, name));
    json_int_t value = number_get(field, size);

    json_object_set_new(object, name, json_integer(value > before ? value : before));
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

/* Of each bucket how many, and its top. */
static void latency_add_to(json_t *group, const char *name, const struct latency *latency)
{
    json_t *object = group_get(group, name), *counts = json_object_get(object, "counts");

    number_add(object, "sum_us", &latency->sum_us, sizeof(latency->sum_us));
    if (counts == NULL) {
        json_t *tops = json_array();
        counts = json_array();
        for (uint32_t i = 0; i < LATENCY_BUCKET_COUNT; i++) {
            json_array_append_new(tops, json_integer((json_int_t)latency_bucket_top(i)));
            json_array_append_new(counts, json_integer(0));
        }
        json_object_set_new(object, "bounds_us", tops);
        json_object_set_new(object, "counts", counts);
    }
    for (uint32_t i = 0; i < LATENCY_BUCKET_COUNT; i++) {
        json_int_t count = json_integer_value(json_array_get(counts, i));
        json_array_set_new(counts, i, json_integer(count + (json_int_t)latency->counts[i]));
    }
}

static json_t *core_row(const struct shard_status *status)
{
    json_t *row = json_object();

    for (uint32_t i = 0; i < COUNT_OF(core_fields); i++)
        number_add(row, core_fields[i].name, (const uint8_t *)status + core_fields[i].offset,
                   core_fields[i].size);
    return row;
}

void admin_status_add(json_t *answer, const struct shard_status *status)
{
    for (uint32_t i = 0; i < COUNT_OF(fields); i++) {
        json_t *group = group_get(answer, fields[i].group);
        const uint8_t *field = (const uint8_t *)status + fields[i].offset;
        (fields[i].is_shared ? number_raise : number_add)(group, fields[i].name, field,
                                                          fields[i].size);
    }
    for (uint32_t i = 0; i < COUNT_OF(shard_fields); i++)
        number_add(group_get(answer, "shards"), shard_fields[i].name,
                   (const uint8_t *)status + shard_fields[i].offset, shard_fields[i].size);
    for (uint32_t i = 0; i < COUNT_OF(latencies); i++)
        latency_add_to(
            group_get(answer, "latency"), latencies[i].name,
            (const struct latency *)(const void *)((const uint8_t *)status + latencies[i].offset));
    if (json_object_get(answer, "per_core") == NULL)
        json_object_set_new(answer, "per_core", json_array());
    json_array_append_new(json_object_get(answer, "per_core"), core_row(status));
}

void admin_status_finish(json_t *answer, uint32_t shard_count, tick_us uptime,
                         const struct record_writer_stats *records)
{
    json_object_set_new(answer, "version", json_string(ANGARIUM_VERSION));
    json_object_set_new(answer, "pid", json_integer(getpid()));
    json_object_set_new(answer, "cores", json_integer(shard_count));
    json_object_set_new(answer, "confinement", confine_posture());
    json_object_set_new(answer, "uptime_s", json_integer((json_int_t)(uptime / TICK_S(1))));
    json_object_set_new(answer, "uptime_us", json_integer((json_int_t)uptime));
    if (records == NULL)
        return;
    json_t *group = group_get(answer, "records");
    json_object_set_new(group, "written", json_integer((json_int_t)records->written));
    json_object_set_new(group, "dropped", json_integer((json_int_t)records->dropped));
    json_object_set_new(group, "write_failures", json_integer((json_int_t)records->write_failures));
    json_object_set_new(group, "replayed", json_integer((json_int_t)records->replayed));
    json_object_set_new(group, "holding", json_integer(records->is_holding));
}

void admin_status_webhooks(json_t *answer, const struct webhook_set *webhooks)
{
    struct webhook_stats all = {0};
    json_int_t failing = 0, gone = 0;
    json_t *rows = json_array();

    if (webhook_set_count(webhooks) == 0) {
        json_decref(rows);
        return;
    }
    for (uint32_t i = 0; i < webhook_set_count(webhooks); i++) {
        struct webhook_stats stats = webhook_get_stats(webhooks, i);
        all.batches += stats.batches;
        all.events += stats.events;
        all.failures += stats.failures;
        all.waiting += stats.waiting;
        all.gaps += stats.gaps;
        failing += stats.is_failing;
        gone += stats.is_gone;
        json_array_append_new(
            rows,
            json_pack("{ss,sI,sI,sI,sI,sI,sI,ss}", "name", stats.name, "batches",
                      (json_int_t)stats.batches, "events", (json_int_t)stats.events, "failures",
                      (json_int_t)stats.failures, "waiting", (json_int_t)stats.waiting, "gaps",
                      (json_int_t)stats.gaps, "answer", (json_int_t)stats.answer, "state",
                      stats.is_gone      ? "gone"
                      : stats.is_failing ? "failing"
                                         : "ok"));
    }
    json_object_set_new(answer, "webhook", rows);
    json_object_set_new(answer, "webhooks",
                        json_pack("{sI,sI,sI,sI,sI,sI,sI}", "batches", (json_int_t)all.batches,
                                  "events", (json_int_t)all.events, "failures",
                                  (json_int_t)all.failures, "waiting", (json_int_t)all.waiting,
                                  "gaps", (json_int_t)all.gaps, "failing", failing, "gone", gone));
}

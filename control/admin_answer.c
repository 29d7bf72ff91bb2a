/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answer to `status`. Numbers are rows of one table, summed over the shards; `per_core` has a
 * few of them for each. They are asked for once a second for as long as anybody looks, so they go
 * to text without a tree in between; what belongs to the process is a small tree.
 */
#include "control/admin_answer.h"

#include "control/confine.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEY(name)      "\"" name "\":", sizeof("\"" name "\":") - 1
#define PLACE(field)   offsetof(struct shard_status, field), FIELD_SIZE(field)
#define FIELD_SIZE(of) sizeof(((struct shard_status *)NULL)->of)

/* A number of struct shard_status, and the name of its member as it is written. */
struct field {
    const char *group, *key;
    size_t key_size, offset, size;
    bool is_shared;
};

static const struct field fields[] = {
#define STATUS(group, name, type, help) {#group, KEY(#name), PLACE(group.name), false},
#define SHARED(group, name, help)       {#group, KEY(#name), PLACE(group.name), true},
#define LATENCY(name, help)
#define FINE(name, help)
#include "control/status.def"
#undef STATUS
#undef SHARED
#undef LATENCY
#undef FINE
    {"shards", KEY("turns"), PLACE(turns), false},
    {"shards", KEY("busy_us"), PLACE(busy_us), false},
    {"shards", KEY("stalled_us"), PLACE(stalled_us), false},
    {"shards", KEY("invariant_violations"), PLACE(invariant_violations), false},
    {"shards", KEY("handovers"), PLACE(handovers), false},
};

static const struct {
    const char *key;
    size_t key_size, offset;
} latencies[] = {
#define STATUS(group, name, type, help)
#define SHARED(group, name, help)
#define LATENCY(name, help) {KEY(#name), offsetof(struct shard_status, latencies.name)},
#define FINE(name, help)
#include "control/status.def"
#undef STATUS
#undef SHARED
#undef LATENCY
#undef FINE
};

static const struct {
    const char *key;
    size_t key_size, offset;
} fines[] = {
#define STATUS(group, name, type, help)
#define SHARED(group, name, help)
#define LATENCY(name, help)
#define FINE(name, help) {KEY(#name), offsetof(struct shard_status, stamps.name)},
#include "control/status.def"
#undef STATUS
#undef SHARED
#undef LATENCY
#undef FINE
};

/* Of each shard by itself: how evenly they are loaded, and with what. */
static const struct field core_fields[] = {
    {"", KEY("turns"), PLACE(turns), false},
    {"", KEY("busy_us"), PLACE(busy_us), false},
    {"", KEY("sessions"), PLACE(server.open), false},
    {"", KEY("connections"), PLACE(client.open), false},
    {"", KEY("messages"), PLACE(server.messages_accepted), false},
    {"", KEY("deliveries"), PLACE(client.accepted), false},
    {"", KEY("queued"), PLACE(queue.messages), false},
};

struct admin_status {
    uint64_t sums[COUNT_OF(fields)];
    struct latency latencies[COUNT_OF(latencies)];
    struct latency_fine fines[COUNT_OF(fines)];
    struct json_text cores; /* rows, without their brackets */
};

/* ---- sums ---- */

struct admin_status *admin_status_new(void)
{
    struct admin_status *status = calloc(1, sizeof(*status));

    CHECK(status != NULL);
    return status;
}

void admin_status_free(struct admin_status *status)
{
    if (status == NULL)
        return;
    json_text_free(&status->cores);
    free(status);
}

static uint64_t number_get(const struct shard_status *status, const struct field *field)
{
    uint64_t value = 0;

    CHECK(field->size == 1 || field->size == 4 || field->size == 8);
    const uint8_t *place = (const uint8_t *)status + field->offset;
    if (field->size == 1) /* little endian, as all our platforms */
        memcpy(&value, place, 1);
    else if (field->size == 4)
        memcpy(&value, place, 4);
    else
        memcpy(&value, place, 8);
    return value;
}

static void core_add(struct json_text *cores, const struct shard_status *status)
{
    json_text_open(cores, '{');
    for (uint32_t i = 0; i < COUNT_OF(core_fields); i++)
        json_text_set_number(cores, span_of(core_fields[i].key, (uint32_t)core_fields[i].key_size),
                             number_get(status, &core_fields[i]));
    json_text_close(cores, '}');
}

void admin_status_add(struct admin_status *sums, const struct shard_status *status)
{
    for (uint32_t i = 0; i < COUNT_OF(fields); i++) {
        uint64_t value = number_get(status, &fields[i]);
        if (!fields[i].is_shared)
            sums->sums[i] += value;
        else if (value > sums->sums[i]) /* one may know it a moment before another */
            sums->sums[i] = value;
    }
    for (uint32_t i = 0; i < COUNT_OF(latencies); i++) {
        struct latency latency;
        memcpy(&latency, (const uint8_t *)status + latencies[i].offset, sizeof(latency));
        sums->latencies[i].sum_us += latency.sum_us;
        for (uint32_t k = 0; k < LATENCY_BUCKET_COUNT; k++)
            sums->latencies[i].counts[k] += latency.counts[k];
    }
    for (uint32_t i = 0; i < COUNT_OF(fines); i++) {
        struct latency_fine fine;
        memcpy(&fine, (const uint8_t *)status + fines[i].offset, sizeof(fine));
        sums->fines[i].sum_ns += fine.sum_ns;
        for (uint32_t k = 0; k < LATENCY_FINE_BUCKET_COUNT; k++)
            sums->fines[i].counts[k] += fine.counts[k];
    }
    core_add(&sums->cores, status);
}

/* ---- the answer ---- */

/* Rows of a group stand together: a group is opened once. */
static void groups_write(const struct admin_status *sums, struct json_text *text)
{
    const char *group = "";

    for (uint32_t i = 0; i < COUNT_OF(fields); i++) {
        if (strcmp(group, fields[i].group) != 0) {
            if (i > 0)
                json_text_close(text, '}');
            group = fields[i].group;
            json_text_name(text, group);
            json_text_open(text, '{');
        }
        json_text_set_number(text, span_of(fields[i].key, (uint32_t)fields[i].key_size),
                             sums->sums[i]);
    }
    json_text_close(text, '}');
}

/* Of each bucket its top, the same for all; and how many. */
static void latency_write(const struct latency *latency, struct span bounds, struct json_text *text)
{
    json_text_open(text, '{');
    json_text_set_number(text, JSON_KEY("sum_us"), latency->sum_us);
    json_text_key(text, JSON_KEY("bounds_us"));
    json_text_octets(text, bounds.data, bounds.size);
    json_text_key(text, JSON_KEY("counts"));
    json_text_numbers(text, latency->counts, LATENCY_BUCKET_COUNT);
    json_text_close(text, '}');
}

static void latencies_write(const struct admin_status *sums, struct json_text *text)
{
    uint64_t tops[LATENCY_BUCKET_COUNT];
    struct json_text bounds = {0};

    for (uint32_t i = 0; i < LATENCY_BUCKET_COUNT; i++)
        tops[i] = latency_bucket_top(i);
    json_text_numbers(&bounds, tops, LATENCY_BUCKET_COUNT);
    json_text_key(text, JSON_KEY("latency"));
    json_text_open(text, '{');
    for (uint32_t i = 0; i < COUNT_OF(latencies); i++) {
        json_text_key(text, span_of(latencies[i].key, (uint32_t)latencies[i].key_size));
        latency_write(&sums->latencies[i], span_of(bounds.data, (uint32_t)bounds.size), text);
    }
    json_text_close(text, '}');
    json_text_free(&bounds);
}

/* Without the empty buckets behind the last that counts something: there may be none at all. */
static void fine_write(const struct latency_fine *latency, struct json_text *text)
{
    uint64_t tops[LATENCY_FINE_BUCKET_COUNT];
    uint32_t used = LATENCY_FINE_BUCKET_COUNT;

    while (used > 0 && latency->counts[used - 1] == 0)
        used--;
    for (uint32_t i = 0; i < used; i++)
        tops[i] = latency_fine_bucket_top(i);
    json_text_open(text, '{');
    json_text_set_number(text, JSON_KEY("sum_ns"), latency->sum_ns);
    json_text_key(text, JSON_KEY("bounds_ns"));
    json_text_numbers(text, tops, used);
    json_text_key(text, JSON_KEY("counts"));
    json_text_numbers(text, latency->counts, used);
    json_text_close(text, '}');
}

static void fines_write(const struct admin_status *sums, struct json_text *text)
{
    json_text_key(text, JSON_KEY("latency_ns"));
    json_text_open(text, '{');
    for (uint32_t i = 0; i < COUNT_OF(fines); i++) {
        json_text_key(text, span_of(fines[i].key, (uint32_t)fines[i].key_size));
        fine_write(&sums->fines[i], text);
    }
    json_text_close(text, '}');
}

void admin_status_write(const struct admin_status *sums, struct json_text *text)
{
    groups_write(sums, text);
    latencies_write(sums, text);
    fines_write(sums, text);
    json_text_key(text, JSON_KEY("per_core"));
    json_text_open(text, '[');
    json_text_octets(text, sums->cores.data, sums->cores.size);
    json_text_close(text, ']');
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
    json_t *group = json_object();
    json_object_set_new(answer, "records", group);
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

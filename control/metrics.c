/* SPDX-License-Identifier: Apache-2.0 */
#include "control/metrics.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/check.h"
#include "dataplane/flow.h"

#define NAME_SIZE        96u
#define BOUND_FIRST      64
#define FINE_BOUND_FIRST 1024
#define FINE_BOUND_LAST  134217728 /* the longest bucket's */

enum type { COUNTER, GAUGE, HISTOGRAM };

struct row {
    const char *group, *name;
    enum type type;
    const char *help;
};

static const struct row rows[] = {
#define STATUS(group, name, type, help) {#group, #name, type, help},
#define SHARED(group, name, help)       {#group, #name, GAUGE, help},
#define LATENCY(name, help)
#define FINE(name, help)
#include "control/status.def"
#undef STATUS
#undef SHARED
#undef LATENCY
#undef FINE
    {"shards", "turns", COUNTER, "Turns of the shards' loops that did something."},
    {"shards", "busy_us", COUNTER, "Time spent in them."},
    {"shards", "stalled_us", COUNTER,
     "Turns of cores that spin, without an event or a message, of 100 microseconds or more: "
     "somebody else had the core; or timers, the disk's answers or handshakes took so long."},
    {"shards", "invariant_violations", GAUGE, "As queue_stuck, as the shards know it; must be 0."},
    {"shards", "handovers", COUNTER, "Deliveries that another shard's connection took."},
    {"records", "written", COUNTER, "Records written."},
    {"records", "dropped", COUNTER,
     "Records lost: the file was too slow, or could not be written."},
    {"records", "write_failures", COUNTER, "Writes of records that failed."},
    {"records", "replayed", COUNTER, "Of those written: once more, after a crash."},
    {"webhooks", "batches", COUNTER, "Batches that receivers of webhooks took."},
    {"webhooks", "events", COUNTER, "Records in them."},
    {"webhooks", "failures", COUNTER, "Posts that were not taken, and tried again."},
    {"webhooks", "waiting", GAUGE, "Octets of records that webhooks have still to post."},
    {"webhooks", "gaps", COUNTER, "Files of records that were gone before a webhook read them."},
    {"webhooks", "failing", GAUGE, "Webhooks whose last post was not taken."},
    {"webhooks", "gone", GAUGE, "Webhooks whose receiver wants no more (410)."},
    {"records", "holding", GAUGE, "Mail waits for the file: `records.on_slow: hold`."},
};

static const struct row alone[] = {
    {"", "cores", GAUGE, "Shards."},
    {"", "uptime_s", GAUGE, "Time since the start."},
};

/* Does the number count in this unit? Then *size is cut to what is before it. */
static bool unit_take(const char *name, size_t *size, const char *unit)
{
    size_t length = strlen(unit);

    if (*size < length || memcmp(name + *size - length, unit, length) != 0)
        return false;
    *size -= length;
    return true;
}

/* What one unit of the number is in the metric's: times are told in seconds. */
static double name_make(const struct row *row, char ret_name[NAME_SIZE])
{
    size_t size = strlen(row->name);
    double scale = 1;

    (void)unit_take(row->name, &size, "_total");
    if (unit_take(row->name, &size, "_us"))
        scale = 1e-6;
    bool is_time = scale < 1 || unit_take(row->name, &size, "_s");
    snprintf(ret_name, NAME_SIZE, "angarium_%s%s%.*s%s%s", row->group,
             row->group[0] == '\0' ? "" : "_", (int)size, row->name, is_time ? "_seconds" : "",
             row->type == COUNTER ? "_total" : "");
    for (char *c = ret_name; *c != '\0'; c++)
        *c = *c == '.' ? '_' : *c;
    return scale;
}

static const char *type_text(enum type type)
{
    static const char *const texts[] = {"counter", "gauge", "histogram"};

    return texts[type];
}

static void head_write(const char *name, enum type type, const char *help, FILE *out)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type_text(type));
}

static void row_write(const struct row *row, const json_t *group, FILE *out)
{
    const json_t *value = json_object_get(group, row->name);
    char name[NAME_SIZE];
    double scale = name_make(row, name);

    if (value == NULL)
        return;
    head_write(name, row->type, row->help, out);
    if (scale < 1)
        fprintf(out, "%s %.6f\n", name, (double)json_integer_value(value) * scale);
    else
        fprintf(out, "%s %" JSON_INTEGER_FORMAT "\n", name, json_integer_value(value));
}

static const struct {
    const char *name, *metric, *help;
} latencies[] = {
#define STATUS(group, name, type, help)
#define SHARED(group, name, help)
#define LATENCY(name, help) {#name, "angarium_" #name "_seconds", help},
#define FINE(name, help)
#include "control/status.def"
#undef STATUS
#undef SHARED
#undef LATENCY
#undef FINE
};

static const struct {
    const char *name, *metric, *help;
} fines[] = {
#define STATUS(group, name, type, help)
#define SHARED(group, name, help)
#define LATENCY(name, help)
#define FINE(name, help) {#name, "angarium_" #name "_seconds", help},
#include "control/status.def"
#undef STATUS
#undef SHARED
#undef LATENCY
#undef FINE
};

/* A bound for each power of two, from that of BOUND_FIRST microseconds on. */
static void latency_write(const char *name, const char *help, const json_t *latency, FILE *out)
{
    const json_t *tops = json_object_get(latency, "bounds_us");
    json_int_t total = 0, bound = BOUND_FIRST;
    const json_t *count;
    size_t index;

    head_write(name, HISTOGRAM, help, out);
    json_array_foreach(json_object_get(latency, "counts"), index, count)
    {
        total += json_integer_value(count);
        if (json_integer_value(json_array_get(tops, index)) != bound - 1)
            continue;
        fprintf(out, "%s_bucket{le=\"%.6f\"} %" JSON_INTEGER_FORMAT "\n", name,
                (double)bound * 1e-6, total);
        bound *= 2;
    }
    fprintf(out, "%s_bucket{le=\"+Inf\"} %" JSON_INTEGER_FORMAT "\n", name, total);
    fprintf(out, "%s_sum %.6f\n%s_count %" JSON_INTEGER_FORMAT "\n", name,
            (double)json_integer_value(json_object_get(latency, "sum_us")) * 1e-6, name, total);
}

/* A bound for each power of two likewise, in nanoseconds; also of those that nothing has reached.
 */
static void fine_write(const char *name, const char *help, const json_t *latency, FILE *out)
{
    const json_t *tops = json_object_get(latency, "bounds_ns");
    const json_t *counts = json_object_get(latency, "counts");
    json_int_t total = 0;
    size_t index = 0;

    head_write(name, HISTOGRAM, help, out);
    for (json_int_t bound = FINE_BOUND_FIRST; bound <= FINE_BOUND_LAST; bound *= 2) {
        for (; json_integer_value(json_array_get(tops, index)) < bound &&
               index < json_array_size(counts);
             index++)
            total += json_integer_value(json_array_get(counts, index));
        fprintf(out, "%s_bucket{le=\"%.9f\"} %" JSON_INTEGER_FORMAT "\n", name,
                (double)bound * 1e-9, total);
    }
    fprintf(out, "%s_bucket{le=\"+Inf\"} %" JSON_INTEGER_FORMAT "\n", name, total);
    fprintf(out, "%s_sum %.9f\n%s_count %" JSON_INTEGER_FORMAT "\n", name,
            (double)json_integer_value(json_object_get(latency, "sum_ns")) * 1e-9, name, total);
}

/* A label's value: a quote, a backslash and the end of a line are written with a backslash. */
static void label_write(const char *text, FILE *out)
{
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', out);
        if (*text == '\n')
            fputs("\\n", out);
        else
            fputc(*text, out);
    }
}

static const char sites_name[] = "angarium_queue_site_deliveries";
static const char sites_help[] =
    "Recipients that wait, for the sites with the most of them; \"\" has all others.";

static void sites_write(const json_t *summary, FILE *out)
{
    json_int_t rest = json_integer_value(json_object_get(summary, "total"));
    const json_t *site;
    size_t index;

    head_write(sites_name, GAUGE, sites_help, out);
    json_array_foreach(json_object_get(summary, "rows"), index, site)
    {
        json_int_t count = json_integer_value(json_object_get(site, "total"));
        const char *name = json_string_value(json_object_get(site, "name"));
        if (name == NULL || name[0] == '\0')
            continue;
        fprintf(out, "%s{site=\"", sites_name);
        label_write(name, out);
        fprintf(out, "\"} %" JSON_INTEGER_FORMAT "\n", count);
        rest -= count;
    }
    fprintf(out, "%s{site=\"\"} %" JSON_INTEGER_FORMAT "\n", sites_name, rest);
}

static const char build_name[] = "angarium_build_info";
static const char build_help[] = "Always 1; the version is its label.";

void metrics_write(const json_t *status, const json_t *sites, FILE *out)
{
    const char *version = json_string_value(json_object_get(status, "version"));

    head_write(build_name, GAUGE, build_help, out);
    fprintf(out, "%s{version=\"%s\"} 1\n", build_name, version == NULL ? "" : version);
    for (uint32_t i = 0; i < COUNT_OF(alone); i++)
        row_write(&alone[i], status, out);
    for (uint32_t i = 0; i < COUNT_OF(rows); i++)
        row_write(&rows[i], json_object_get(status, rows[i].group), out);
    for (uint32_t i = 0; i < COUNT_OF(latencies); i++)
        latency_write(latencies[i].metric, latencies[i].help,
                      json_object_get(json_object_get(status, "latency"), latencies[i].name), out);
    for (uint32_t i = 0; i < COUNT_OF(fines); i++)
        fine_write(fines[i].metric, fines[i].help,
                   json_object_get(json_object_get(status, "latency_ns"), fines[i].name), out);
    sites_write(sites, out);
}

static void reference_row(const char *name, enum type type, const char *help, FILE *out)
{
    fprintf(out, "| `%s` | %s | %s |\n", name, type_text(type), help);
}

static void reference_rows(const struct row *list, uint32_t count, FILE *out)
{
    char name[NAME_SIZE];

    for (uint32_t i = 0; i < count; i++) {
        (void)name_make(&list[i], name);
        reference_row(name, list[i].type, list[i].help, out);
    }
}

void metrics_write_reference(FILE *out)
{
    fprintf(out,
            "# Metrics\n\n<!-- Written by `angarium metrics --reference`. -->\n\n"
            "What `/metrics` tells Prometheus (docs/http.md). Numbers are sums over the cores; "
            "counters begin with the start of the relay.\nThe same numbers are in `angarium status "
            "--json`, under group and name, times there in microseconds.\n\n"
            "| metric | type | meaning |\n|---|---|---|\n");
    reference_row(build_name, GAUGE, build_help, out);
    reference_rows(alone, COUNT_OF(alone), out);
    reference_rows(rows, COUNT_OF(rows), out);
    for (uint32_t i = 0; i < COUNT_OF(latencies); i++)
        reference_row(latencies[i].metric, HISTOGRAM, latencies[i].help, out);
    for (uint32_t i = 0; i < COUNT_OF(fines); i++)
        reference_row(fines[i].metric, HISTOGRAM, fines[i].help, out);
    reference_row("angarium_queue_site_deliveries{site}", GAUGE, sites_help, out);
}

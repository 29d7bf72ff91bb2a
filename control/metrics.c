/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page of metrics. It is always the same but for its numbers, so what stands between these is
 * made once; a scrape puts it together again. Both go through the same rows in the same order:
 *
 *   piece number piece number ... : each number has the piece in front of it
 *
 * Rows of what there is none of, records or webhooks, are left out with their pieces.
 */
#include "control/metrics.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "control/digits.h"
#include "dataplane/flow.h"

#define NAME_SIZE          96u
#define LINE_SIZE          1024u
#define BOUND_FIRST        64
#define BOUND_COUNT        31u /* powers of two from there on: so far the buckets go */
#define FINE_FIRST         1024
#define FINE_COUNT         18u
#define PER_HISTOGRAM      3u /* all, the sum, the count */
#define US_DECIMALS        6u
#define NS_DECIMALS        9u
#define PIECE_NUMBER_USUAL 8u

_Static_assert((uint64_t)BOUND_FIRST << (BOUND_COUNT - 1) == UINT64_C(1) << LATENCY_VALUE_BITS,
               "the last bound is that of the longest bucket");
_Static_assert((uint64_t)FINE_FIRST << (FINE_COUNT - 1) == UINT64_C(1) << LATENCY_FINE_VALUE_BITS,
               "here, too");

enum type { COUNTER, GAUGE, HISTOGRAM };

struct row {
    const char *group, *name;
    enum type type;
    const char *help;
};

static const struct row rows[] = {
#define STATUS(group, name, type, help) {#group, #name, type, help},
#define SHARED(group, name, help)       {#group, #name, GAUGE, help},
#define OWN(name, type, help)           {"shards", #name, type, help},
#include "control/status.def"
};

static const struct row records_rows[] = {
    {"records", "written", COUNTER, "Records written."},
    {"records", "dropped", COUNTER,
     "Records lost: the file was too slow, or could not be written."},
    {"records", "write_failures", COUNTER, "Writes of records that failed."},
    {"records", "replayed", COUNTER, "Of those written: once more, after a crash."},
};

static const struct row webhooks_rows[] = {
    {"webhooks", "batches", COUNTER, "Batches that receivers of webhooks took."},
    {"webhooks", "events", COUNTER, "Records in them."},
    {"webhooks", "failures", COUNTER, "Posts that were not taken, and tried again."},
    {"webhooks", "waiting", GAUGE, "Octets of records that webhooks have still to post."},
    {"webhooks", "gaps", COUNTER, "Files of records that were gone before a webhook read them."},
    {"webhooks", "failing", GAUGE, "Webhooks whose last post was not taken."},
    {"webhooks", "gone", GAUGE, "Webhooks whose receiver wants no more (410)."},
};

static const struct row holding_row = {"records", "holding", GAUGE,
                                       "Mail waits for the file: `records.on_slow: hold`."};

static const struct row alone[] = {
    {"", "cores", GAUGE, "Shards."},
    {"", "uptime_s", GAUGE, "Time since the start."},
};

static const struct histogram {
    const char *metric, *help;
} latencies[] = {
#define LATENCY(name, help) {"angarium_" #name "_seconds", help},
#include "control/status.def"
};

static const struct histogram fines[] = {
#define FINE(name, help) {"angarium_" #name "_seconds", help},
#include "control/status.def"
};

static const char sites_name[] = "angarium_queue_site_deliveries";
static const char sites_help[] =
    "Recipients that wait, for the sites with the most of them; \"\" has all others.";
static const char build_name[] = "angarium_build_info";
static const char build_help[] = "Always 1; the version is its label.";

/* ---- names ---- */

/* Does the number count in this unit? Then *size is cut to what is before it. */
static bool unit_take(const char *name, size_t *size, const char *unit)
{
    size_t length = strlen(unit);

    if (*size < length || memcmp(name + *size - length, unit, length) != 0)
        return false;
    *size -= length;
    return true;
}

/* Digits of the number that are behind the point in the metric's unit: times are told in seconds.
 */
static uint32_t name_make(const struct row *row, char ret_name[NAME_SIZE])
{
    size_t size = strlen(row->name);
    uint32_t decimals = 0;

    (void)unit_take(row->name, &size, "_total");
    if (unit_take(row->name, &size, "_us"))
        decimals = US_DECIMALS;
    bool is_time = decimals > 0 || unit_take(row->name, &size, "_s");
    snprintf(ret_name, NAME_SIZE, "angarium_%s%s%.*s%s%s", row->group,
             row->group[0] == '\0' ? "" : "_", (int)size, row->name, is_time ? "_seconds" : "",
             row->type == COUNTER ? "_total" : "");
    for (char *c = ret_name; *c != '\0'; c++)
        *c = *c == '.' ? '_' : *c;
    return decimals;
}

static const char *type_text(enum type type)
{
    static const char *const texts[] = {"counter", "gauge", "histogram"};

    return texts[type];
}

/* ---- pieces ---- */

struct piece {
    uint32_t begin, size;
    uint32_t decimals; /* of the number behind it */
};

#define HISTOGRAM_PIECES                                                                           \
    (COUNT_OF(latencies) * (BOUND_COUNT + PER_HISTOGRAM) +                                         \
     COUNT_OF(fines) * (FINE_COUNT + PER_HISTOGRAM))
#define PIECE_COUNT                                                                                \
    (1 + COUNT_OF(alone) + COUNT_OF(rows) + COUNT_OF(records_rows) + COUNT_OF(webhooks_rows) + 1 + \
     HISTOGRAM_PIECES + 1)

struct metrics {
    struct json_text text;
    uint32_t count;
    struct piece pieces[PIECE_COUNT];
};

/* Appends to the piece that is being made. */
__attribute__((format(printf, 2, 3))) static void piece_add(struct metrics *metrics,
                                                            const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    char *room = json_text_room(&metrics->text, LINE_SIZE);
    int size = vsnprintf(room, LINE_SIZE, format, arguments);
    va_end(arguments);
    CHECK(size >= 0 && (uint32_t)size < LINE_SIZE);
    json_text_written(&metrics->text, room + size);
}

/* The piece is made, but for the end of the line that its number has. */
static void piece_end(struct metrics *metrics, uint32_t decimals)
{
    uint32_t begin = 0;

    CHECK(metrics->count < PIECE_COUNT);
    if (metrics->count > 0) {
        const struct piece *before = &metrics->pieces[metrics->count - 1];
        begin = before->begin + before->size;
    }
    metrics->pieces[metrics->count++] =
        (struct piece){begin, (uint32_t)metrics->text.size - begin, decimals};
}

static void head_make(struct metrics *metrics, const char *name, enum type type, const char *help)
{
    piece_add(metrics, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type_text(type));
}

static void rows_make(struct metrics *metrics, const struct row *list, uint32_t count)
{
    char name[NAME_SIZE];

    for (uint32_t i = 0; i < count; i++) {
        uint32_t decimals = name_make(&list[i], name);
        head_make(metrics, name, list[i].type, list[i].help);
        piece_add(metrics, "%s ", name);
        piece_end(metrics, decimals);
    }
}

/* A bound for each power of two. */
static void histogram_make(struct metrics *metrics, const struct histogram *of, uint64_t first,
                           uint32_t bound_count, uint32_t decimals)
{
    char bound[DIGITS_MAX + 2];

    head_make(metrics, of->metric, HISTOGRAM, of->help);
    for (uint32_t i = 0; i < bound_count; i++) {
        *digits_put_point(bound, first << i, decimals) = '\0';
        piece_add(metrics, "%s_bucket{le=\"%s\"} ", of->metric, bound);
        piece_end(metrics, 0);
    }
    piece_add(metrics, "%s_bucket{le=\"+Inf\"} ", of->metric);
    piece_end(metrics, 0);
    piece_add(metrics, "%s_sum ", of->metric);
    piece_end(metrics, decimals);
    piece_add(metrics, "%s_count ", of->metric);
    piece_end(metrics, 0);
}

struct metrics *metrics_new(const char *version)
{
    struct metrics *metrics = calloc(1, sizeof(*metrics));

    CHECK(metrics != NULL);
    head_make(metrics, build_name, GAUGE, build_help);
    piece_add(metrics, "%s{version=\"%s\"} ", build_name, version);
    piece_end(metrics, 0);
    rows_make(metrics, alone, COUNT_OF(alone));
    rows_make(metrics, rows, COUNT_OF(rows));
    rows_make(metrics, records_rows, COUNT_OF(records_rows));
    rows_make(metrics, webhooks_rows, COUNT_OF(webhooks_rows));
    rows_make(metrics, &holding_row, 1);
    for (uint32_t i = 0; i < COUNT_OF(latencies); i++)
        histogram_make(metrics, &latencies[i], BOUND_FIRST, BOUND_COUNT, US_DECIMALS);
    for (uint32_t i = 0; i < COUNT_OF(fines); i++)
        histogram_make(metrics, &fines[i], FINE_FIRST, FINE_COUNT, NS_DECIMALS);
    head_make(metrics, sites_name, GAUGE, sites_help);
    piece_end(metrics, 0);
    CHECK(metrics->count == PIECE_COUNT);
    return metrics;
}

void metrics_free(struct metrics *metrics)
{
    if (metrics == NULL)
        return;
    json_text_free(&metrics->text);
    free(metrics);
}

/* ---- a page ---- */

struct page {
    const struct metrics *metrics;
    struct json_text *out;
    uint32_t at; /* the piece that is next */
};

static void numbers_write(struct page *page, const uint64_t *numbers, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        CHECK(page->at < PIECE_COUNT);
        const struct piece *piece = &page->metrics->pieces[page->at++];
        char *room = json_text_room(page->out, piece->size + DIGITS_MAX + 2);
        memcpy(room, page->metrics->text.data + piece->begin, piece->size);
        room += piece->size;
        room = piece->decimals == 0 ? digits_put(room, numbers[i])
                                    : digits_put_point(room, numbers[i], piece->decimals);
        *room++ = '\n';
        json_text_written(page->out, room);
    }
}

static void number_write(struct page *page, uint64_t number)
{
    numbers_write(page, &number, 1);
}

static void records_write(struct page *page, const struct record_writer_stats *records)
{
    if (records == NULL) {
        page->at += COUNT_OF(records_rows);
        return;
    }
    number_write(page, records->written);
    number_write(page, records->dropped);
    number_write(page, records->write_failures);
    number_write(page, records->replayed);
}

static void webhooks_write(struct page *page, const struct admin_webhooks *webhooks)
{
    if (webhooks->count == 0) {
        page->at += COUNT_OF(webhooks_rows);
        return;
    }
    number_write(page, webhooks->batches);
    number_write(page, webhooks->events);
    number_write(page, webhooks->failures);
    number_write(page, webhooks->waiting);
    number_write(page, webhooks->gaps);
    number_write(page, webhooks->failing);
    number_write(page, webhooks->gone);
}

/* What is counted below each bound: a bucket's top is the last below one. */
static void latency_write(struct page *page, const struct latency *latency)
{
    uint64_t total = 0;

    for (uint32_t i = 0, bound = 0; i < LATENCY_BUCKET_COUNT; i++) {
        total += latency->counts[i];
        if (latency_bucket_top(i) + 1 == (uint64_t)BOUND_FIRST << bound) {
            number_write(page, total);
            bound++;
        }
    }
    number_write(page, total);
    number_write(page, latency->sum_us);
    number_write(page, total);
}

static void fine_write(struct page *page, const struct latency_fine *latency)
{
    uint64_t total = 0;
    uint32_t bucket = 0;

    for (uint32_t i = 0; i < FINE_COUNT; i++) {
        for (; bucket < LATENCY_FINE_BUCKET_COUNT &&
               latency_fine_bucket_top(bucket) < (uint64_t)FINE_FIRST << i;
             bucket++)
            total += latency->counts[bucket];
        number_write(page, total);
    }
    number_write(page, total);
    number_write(page, latency->sum_ns);
    number_write(page, total);
}

/* A label's value: a quote, a backslash and the end of a line are written with a backslash. */
static char *label_put(char *room, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            *room++ = '\\';
        if (*text == '\n')
            *room++ = '\\';
        *room++ = *text == '\n' ? 'n' : *text;
    }
    return room;
}

static void site_write(const char *name, uint64_t total, struct json_text *out)
{
    char *room = json_text_room(out, sizeof(sites_name) + 2 * strlen(name) + DIGITS_MAX + 16);

    memcpy(room, sites_name, sizeof(sites_name) - 1);
    room += sizeof(sites_name) - 1;
    memcpy(room, "{site=\"", 7);
    room = label_put(room + 7, name);
    memcpy(room, "\"} ", 3);
    room = digits_put(room + 3, total);
    *room++ = '\n';
    json_text_written(out, room);
}

/* Their piece has no number: those of sites have pieces of their own. */
static void sites_write(struct page *page, const struct metrics_sites *sites)
{
    const struct piece *piece = &page->metrics->pieces[page->at++];
    uint64_t rest = sites->total;

    json_text_octets(page->out, page->metrics->text.data + piece->begin, piece->size);
    for (uint32_t i = 0; i < sites->count; i++) {
        if (sites->sites[i].name[0] == '\0')
            continue;
        site_write(sites->sites[i].name, sites->sites[i].total, page->out);
        rest -= sites->sites[i].total;
    }
    site_write("", rest, page->out);
}

void metrics_write(const struct metrics *metrics, const struct metrics_values *values,
                   struct json_text *out)
{
    const struct status_sums *sums = values->sums;
    struct page page = {metrics, out, 0};

    (void)json_text_room(out, metrics->text.size + PIECE_COUNT * PIECE_NUMBER_USUAL);
    number_write(&page, 1);
    number_write(&page, values->core_count);
    number_write(&page, values->uptime / TICK_S(1));
    numbers_write(&page, sums->numbers, STATUS_NUMBER_COUNT);
    records_write(&page, values->records);
    webhooks_write(&page, &values->webhooks);
    if (values->records == NULL)
        page.at++;
    else
        number_write(&page, values->records->is_holding);
    for (uint32_t i = 0; i < COUNT_OF(latencies); i++)
        latency_write(&page, &sums->latencies[i]);
    for (uint32_t i = 0; i < COUNT_OF(fines); i++)
        fine_write(&page, &sums->fines[i]);
    sites_write(&page, &values->sites);
    CHECK(page.at == PIECE_COUNT);
}

/* ---- the reference ---- */

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
    reference_rows(records_rows, COUNT_OF(records_rows), out);
    reference_rows(webhooks_rows, COUNT_OF(webhooks_rows), out);
    reference_rows(&holding_row, 1, out);
    for (uint32_t i = 0; i < COUNT_OF(latencies); i++)
        reference_row(latencies[i].metric, HISTOGRAM, latencies[i].help, out);
    for (uint32_t i = 0; i < COUNT_OF(fines); i++)
        reference_row(fines[i].metric, HISTOGRAM, fines[i].help, out);
    reference_row("angarium_queue_site_deliveries{site}", GAUGE, sites_help, out);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page of metrics: it says what `angarium status --json` says of the same numbers, under names
 * and in units that are Prometheus' customs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "control/admin_summary.h"
#include "control/metrics.h"

#define SHARDS 3u

static struct metrics *metrics;
static struct admin_status *status;

static const struct record_writer_stats records = {
    .written = 7, .dropped = 6, .write_failures = 5, .replayed = 4, .is_holding = true};

/* Numbers of all sizes, and sums of them that JSON can say. */
static void shards_tell(uint64_t seed)
{
    struct rng rng;
    uint32_t *words = (uint32_t *)admin_status_room(status);

    rng_init_seed(&rng, seed);
    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        for (size_t i = 0; i < sizeof(struct shard_status) / sizeof(*words); i++)
            words[i] = (uint32_t)rng_u32(&rng) >> (i % 2 == 0 ? 12 : 28);
        admin_status_add(status);
    }
}

static const char *page_of(const struct metrics_values *values)
{
    static struct json_text text;

    text.size = 0;
    metrics_write(metrics, values, &text);
    json_text_octets(&text, "", 1);
    return text.data;
}

static struct metrics_values values_usual(void)
{
    return (struct metrics_values){.sums = admin_status_sums(status),
                                   .core_count = SHARDS,
                                   .uptime = 7900000,
                                   .records = &records};
}

static json_t *status_as_json(void)
{
    struct admin_status_texts *texts = admin_status_texts_new();
    struct json_text text = {0};

    json_text_octets(&text, "{\"ok\":true", 10);
    admin_status_write(status, texts, &text);
    admin_status_finish(texts, SHARDS, 7900000, &records, &text);
    json_text_close(&text, '}');
    json_t *json = json_loadb(text.data, text.size, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    admin_status_texts_free(texts);
    json_text_free(&text);
    return json;
}

/* The one line of a metric without labels: its number. */
static const char *number_of(const char *page, const char *name)
{
    static char number[64];
    char begin[160];

    snprintf(begin, sizeof(begin), "\n%s ", name);
    const char *line = strstr(page, begin);
    if (line == NULL)
        return "";
    assert_null(strstr(line + 1, begin));
    line += strlen(begin);
    snprintf(number, sizeof(number), "%.*s", (int)strcspn(line, "\n"), line);
    return number;
}

static bool cut(char *name, const char *end)
{
    size_t size = strlen(name), end_size = strlen(end);

    if (size < end_size || strcmp(name + size - end_size, end) != 0)
        return false;
    name[size - end_size] = '\0';
    return true;
}

/* Is the number of the status on the page, as a counter or as a gauge? */
static void expect_on_page(const char *page, const char *group, const char *field, json_int_t value)
{
    char name[64], as_gauge[160], as_counter[192], wanted[64];

    snprintf(name, sizeof(name), "%s", field);
    for (char *c = name; *c != '\0'; c++)
        *c = *c == '.' ? '_' : *c;
    (void)cut(name, "_total");
    bool is_us = cut(name, "_us"), is_time = is_us || cut(name, "_s");
    snprintf(as_gauge, sizeof(as_gauge), "angarium_%s%s%s%s", group, *group == '\0' ? "" : "_",
             name, is_time ? "_seconds" : "");
    snprintf(as_counter, sizeof(as_counter), "%s_total", as_gauge);
    if (is_us)
        snprintf(wanted, sizeof(wanted), "%" PRId64 ".%06" PRId64, (int64_t)value / 1000000,
                 (int64_t)value % 1000000);
    else
        snprintf(wanted, sizeof(wanted), "%" PRId64, (int64_t)value);
    bool is_gauge = strcmp(wanted, number_of(page, as_gauge)) == 0;
    bool is_counter = strcmp(wanted, number_of(page, as_counter)) == 0;
    if (is_gauge == is_counter)
        print_message("# %s.%s\n", group, field);
    assert_true(is_gauge != is_counter);
}

/* Goal: every number of every group of the status is on the page once, with the same value. */
static void test_as_status(void **state)
{
    shards_tell(1);
    struct metrics_values values = values_usual();
    const char *page = page_of(&values), *group, *field;
    json_t *json = status_as_json(), *members, *value;
    uint32_t count = 0;

    (void)state;
    json_object_foreach(json, group, members)
    {
        if (!json_is_object(members) || strncmp(group, "latency", 7) == 0 ||
            strcmp(group, "confinement") == 0)
            continue;
        json_object_foreach(members, field, value)
        {
            expect_on_page(page, group, field, json_integer_value(value));
            count++;
        }
    }
    assert_int_equal(STATUS_NUMBER_COUNT + 5, count); /* those of records, too */
    expect_on_page(page, "", "cores", SHARDS);
    expect_on_page(page, "", "uptime_s", 7);
    json_decref(json);
}

/* Goal: the page begins and ends as who passes it on expects: no line is empty. */
static void test_lines(void **state)
{
    shards_tell(2);
    struct metrics_values values = values_usual();
    const char *page = page_of(&values);

    (void)state;
    assert_int_equal('#', page[0]);
    assert_int_equal('\n', page[strlen(page) - 1]);
    assert_null(strstr(page, "\n\n"));
    assert_non_null(strstr(page, "\nangarium_build_info{version=\"1.2\"} 1\n"));
    assert_non_null(strstr(page, "# TYPE angarium_server_sessions_total counter\n"));
    assert_non_null(strstr(page, "# TYPE angarium_server_open gauge\n"));
}

/* Goal: of what there is none, there are no rows; the others stay what they are. */
static void test_left_out(void **state)
{
    shards_tell(3);
    struct metrics_values values = values_usual();
    static const char *const wanted[] = {
        "\nangarium_webhooks_batches_total 1\n", "\nangarium_webhooks_waiting 4\n",
        "\nangarium_webhooks_gone 7\n",          "\nangarium_records_written_total 7\n",
        "\nangarium_records_holding 1\n",
    };

    (void)state;
    assert_null(strstr(page_of(&values), "angarium_webhooks_"));
    values.records = NULL;
    assert_null(strstr(page_of(&values), "angarium_records_"));
    assert_non_null(strstr(page_of(&values), "# TYPE angarium_accept_seconds histogram\n"));
    values.records = &records;
    values.webhooks = (struct admin_webhooks){.count = 2,
                                              .batches = 1,
                                              .events = 2,
                                              .failures = 3,
                                              .waiting = 4,
                                              .gaps = 5,
                                              .failing = 6,
                                              .gone = 7};
    for (uint32_t i = 0; i < COUNT_OF(wanted); i++)
        assert_non_null(strstr(page_of(&values), wanted[i]));
}

/* Goal: buckets add up, the last is all of them, bounds are powers of two. */
static void test_latency(void **state)
{
    struct shard_status *told = admin_status_room(status);
    struct latency *accept = &told->latencies.accept;

    (void)state;
    memset(told, 0, sizeof(*told));
    for (uint32_t i = 0; i < 5; i++)
        latency_add(accept, 63);
    latency_add(accept, 64);
    latency_add(accept, 127);
    latency_add(accept, 255);
    latency_add(accept, 255);
    accept->counts[LATENCY_BUCKET_COUNT - 1] = 3;
    accept->sum_us = 1500000;
    admin_status_add(status);
    struct metrics_values values = values_usual();
    const char *page = page_of(&values);
    assert_non_null(strstr(page, "# TYPE angarium_accept_seconds histogram\n"
                                 "angarium_accept_seconds_bucket{le=\"0.000064\"} 5\n"
                                 "angarium_accept_seconds_bucket{le=\"0.000128\"} 7\n"
                                 "angarium_accept_seconds_bucket{le=\"0.000256\"} 9\n"
                                 "angarium_accept_seconds_bucket{le=\"0.000512\"} 9\n"));
    assert_non_null(strstr(page, "angarium_accept_seconds_bucket{le=\"34359.738368\"} 9\n"
                                 "angarium_accept_seconds_bucket{le=\"68719.476736\"} 12\n"
                                 "angarium_accept_seconds_bucket{le=\"+Inf\"} 12\n"
                                 "angarium_accept_seconds_sum 1.500000\n"
                                 "angarium_accept_seconds_count 12\n"));
}

/* Goal: the same of those in nanoseconds, also where no count is: Prometheus wants the same bounds
 * each time. */
static void test_fine(void **state)
{
    struct shard_status *told = admin_status_room(status);
    struct latency_fine *fine = &told->stamps.body_out;

    (void)state;
    memset(told, 0, sizeof(*told));
    fine->counts[latency_fine_bucket(511)] = 1;
    fine->counts[latency_fine_bucket(1023)] = 2;
    fine->counts[latency_fine_bucket(1151)] = 4;
    fine->sum_ns = 2500;
    admin_status_add(status);
    struct metrics_values values = values_usual();
    const char *page = page_of(&values);
    assert_non_null(strstr(page, "# TYPE angarium_body_out_seconds histogram\n"
                                 "angarium_body_out_seconds_bucket{le=\"0.000001024\"} 3\n"
                                 "angarium_body_out_seconds_bucket{le=\"0.000002048\"} 7\n"
                                 "angarium_body_out_seconds_bucket{le=\"0.000004096\"} 7\n"));
    assert_non_null(strstr(page, "angarium_body_out_seconds_bucket{le=\"0.134217728\"} 7\n"
                                 "angarium_body_out_seconds_bucket{le=\"+Inf\"} 7\n"
                                 "angarium_body_out_seconds_sum 0.000002500\n"
                                 "angarium_body_out_seconds_count 7\n"));
    assert_non_null(strstr(page, "angarium_reply_out_seconds_bucket{le=\"0.134217728\"} 0\n"));
}

/* Goal: a label cannot break its line; sites beyond those named, and mail without one, are counted
 * together. */
static void test_sites(void **state)
{
    shards_tell(4);
    struct metrics_values values = values_usual();

    (void)state;
    values.sites = (struct metrics_sites){
        .total = 10, .count = 3, .sites = {{"a\"\\\nb", 4}, {"", 2}, {"c.example", 1}}};
    assert_non_null(strstr(page_of(&values),
                           "# TYPE angarium_queue_site_deliveries gauge\n"
                           "angarium_queue_site_deliveries{site=\"a\\\"\\\\\\nb\"} 4\n"
                           "angarium_queue_site_deliveries{site=\"c.example\"} 1\n"
                           "angarium_queue_site_deliveries{site=\"\"} 5\n"));
}

static int set_up(void **state)
{
    (void)state;
    status = admin_status_new();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    admin_status_free(status);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_as_status), TEST(test_lines), TEST(test_left_out),
        TEST(test_latency),   TEST(test_fine),  TEST(test_sites),
    };

    metrics = metrics_new("1.2");
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    metrics_free(metrics);
    return failed;
}

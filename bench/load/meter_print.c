/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a meter says, to people and to programs. JSON has one object a line; the last of each part
 * is named "source-total" or "sink-total" and has the latencies. Times in JSON are microseconds.
 */
#include <stdlib.h>

#include "bench/load/meter.h"

static const struct {
    const char *name, *title;
} latency_names[METER_LATENCY_COUNT] = {
    [METER_CONNECT] = {"connect", "connect"},
    [METER_BANNER] = {"banner", "banner"},
    [METER_HELLO] = {"hello", "EHLO"},
    [METER_TLS] = {"tls", "TLS handshake"},
    [METER_MAIL] = {"mail", "MAIL"},
    [METER_RCPT] = {"rcpt", "RCPT"},
    [METER_DATA] = {"data", "DATA"},
    [METER_FINAL] = {"final", "final reply"},
    [METER_MESSAGE] = {"message", "message"},
    [METER_WAIT] = {"wait", "late by"},
    [METER_END_TO_END] = {"end_to_end", "end to end"},
    [METER_TURN] = {"turn", "own turn"},
};

static const char *const count_names[METER_COUNT_COUNT] = {
    [METER_MESSAGES] = "messages",
    [METER_RECIPIENTS] = "recipients",
    [METER_OCTETS] = "octets",
    [METER_TEMPFAILS] = "tempfails",
    [METER_PERMFAILS] = "permfails",
    [METER_LOST] = "lost_connections",
    [METER_DAMAGED] = "damaged",
    [METER_CONNECTIONS] = "connections",
    [METER_REFUSED] = "refused_connections",
    [METER_UNSENT] = "unsent",
    [METER_NOT_TAKEN] = "recipients_refused",
    [METER_SKEWED] = "skewed",
    [METER_RESUMED] = "resumed",
    [METER_IDLE] = "idle",
    [METER_IDLE_LOST] = "idle_lost",
};

const char *meter_latency_name(enum meter_latency what)
{
    return latency_names[what].title;
}

const char *meter_time(uint64_t time_us, char ret_text[METER_TIME_SIZE])
{
    if (time_us < 1000)
        (void)snprintf(ret_text, METER_TIME_SIZE, "%u us", (unsigned int)time_us);
    else if (time_us < 1000000)
        (void)snprintf(ret_text, METER_TIME_SIZE, "%.*f ms", time_us < 100000 ? 2 : 1,
                       (double)time_us / 1e3);
    else
        (void)snprintf(ret_text, METER_TIME_SIZE, "%.*f s", time_us < 100000000 ? 2 : 1,
                       (double)time_us / 1e6);
    return ret_text;
}

static void write_counts(FILE *file, const char *what, const char *suffix, double seconds,
                         const uint64_t counts[METER_COUNT_COUNT])
{
    double rate = seconds > 0 ? (double)counts[METER_MESSAGES] / seconds : 0.0;

    (void)fprintf(file, "{\"what\":\"%s%s\",\"seconds\":%.3f,\"messages_per_second\":%.1f", what,
                  suffix, seconds, rate);
    for (uint32_t i = 0; i < METER_COUNT_COUNT; i++)
        (void)fprintf(file, ",\"%s\":%llu", count_names[i], (unsigned long long)counts[i]);
}

void meter_write_sample(FILE *file, const struct meter *meter, const struct meter_sample *sample)
{
    write_counts(file, meter->what, "", sample->seconds, sample->counts);
    (void)fprintf(file,
                  ",\"at\":%.3f,\"open\":%u,\"latency_us\":{\"%s\":{\"count\":%llu,\"p50\":%llu,"
                  "\"p99\":%llu,\"p999\":%llu,\"max\":%llu}}}",
                  sample->at, sample->open, latency_names[meter->charted].name,
                  (unsigned long long)sample->latency_count, (unsigned long long)sample->p50,
                  (unsigned long long)sample->p99, (unsigned long long)sample->p999,
                  (unsigned long long)sample->max);
}

static void write_histogram(FILE *file, const char *name, const struct histogram *histogram)
{
    (void)fprintf(file, "\"%s\":{\"count\":%llu,\"min\":%llu,\"mean\":%.1f", name,
                  (unsigned long long)histogram->count, (unsigned long long)histogram->min,
                  histogram_mean(histogram));
    static const struct {
        const char *name;
        uint32_t parts;
    } quantiles[] = {{"p50", 500000}, {"p90", 900000}, {"p99", 990000}, {"p999", 999000}};
    for (size_t i = 0; i < COUNT_OF(quantiles); i++)
        (void)fprintf(file, ",\"%s\":%llu", quantiles[i].name,
                      (unsigned long long)histogram_quantile(histogram, quantiles[i].parts));
    (void)fprintf(file, ",\"max\":%llu}", (unsigned long long)histogram->max);
}

void meter_write_total(FILE *file, const struct meter *meter, double seconds)
{
    bool is_first = true;

    write_counts(file, meter->what, "-total", seconds, meter->counts);
    (void)fputs(",\"latency_us\":{", file);
    for (uint32_t i = 0; i < METER_LATENCY_COUNT; i++) {
        if (meter->latencies[i].count == 0)
            continue;
        if (!is_first)
            (void)fputc(',', file);
        write_histogram(file, latency_names[i].name, &meter->latencies[i]);
        is_first = false;
    }
    (void)fputs("}}", file);
}

void meter_print_sample(const struct meter *meter, const struct meter_sample *sample, bool is_json)
{
    char p50[METER_TIME_SIZE], p99[METER_TIME_SIZE], max[METER_TIME_SIZE];
    const uint64_t *counts = sample->counts;

    if (is_json) {
        meter_write_sample(stdout, meter, sample);
        (void)putchar('\n');
    } else {
        (void)printf("%6.0f s %-6s %8.0f msg/s %8.1f MB/s %5u open  %s p50 %-9s p99 %-9s max %-9s "
                     "%llu 4xx %llu 5xx %llu lost\n",
                     sample->at, meter->what, (double)counts[METER_MESSAGES] / sample->seconds,
                     (double)counts[METER_OCTETS] / 1e6 / sample->seconds, sample->open,
                     latency_names[meter->charted].title, meter_time(sample->p50, p50),
                     meter_time(sample->p99, p99), meter_time(sample->max, max),
                     (unsigned long long)counts[METER_TEMPFAILS],
                     (unsigned long long)counts[METER_PERMFAILS],
                     (unsigned long long)counts[METER_LOST]);
    }
    (void)fflush(stdout);
}

static void print_latencies(const struct meter *meter)
{
    static const uint32_t quantiles[] = {500000, 900000, 990000, 999000};
    char text[METER_TIME_SIZE];

    (void)printf("  %-14s %10s %10s %10s %10s %10s %10s %10s\n", "latency", "count", "min", "p50",
                 "p90", "p99", "p99.9", "max");
    for (uint32_t i = 0; i < METER_LATENCY_COUNT; i++) {
        const struct histogram *histogram = &meter->latencies[i];
        if (histogram->count == 0)
            continue;
        (void)printf("  %-14s %10llu %10s", latency_names[i].title,
                     (unsigned long long)histogram->count, meter_time(histogram->min, text));
        for (size_t q = 0; q < COUNT_OF(quantiles); q++)
            (void)printf(" %10s", meter_time(histogram_quantile(histogram, quantiles[q]), text));
        (void)printf(" %10s\n", meter_time(histogram->max, text));
    }
}

void meter_print_total(const struct meter *meter, tick_us began, tick_us now, const char *note,
                       bool is_json)
{
    double seconds = (double)(now - began) / 1e6;
    const uint64_t *counts = meter->counts;

    if (is_json) {
        meter_write_total(stdout, meter, seconds);
        (void)putchar('\n');
        (void)fflush(stdout);
        return;
    }
    double divisor = seconds > 0 ? seconds : 1;
    (void)printf(
        "%s: %llu messages in %.3f s, %.1f/s, %.1f MB/s; %llu recipients, %llu connections%s%s\n",
        meter->what, (unsigned long long)counts[METER_MESSAGES], seconds,
        (double)counts[METER_MESSAGES] / divisor, (double)counts[METER_OCTETS] / 1e6 / divisor,
        (unsigned long long)counts[METER_RECIPIENTS], (unsigned long long)counts[METER_CONNECTIONS],
        note[0] == '\0' ? "" : "; ", note);
    (void)printf("  refused: %llu 4xx, %llu 5xx; connections lost: %llu, refused: %llu",
                 (unsigned long long)counts[METER_TEMPFAILS],
                 (unsigned long long)counts[METER_PERMFAILS],
                 (unsigned long long)counts[METER_LOST], (unsigned long long)counts[METER_REFUSED]);
    static const struct {
        enum meter_count what;
        const char *text;
    } seldom[] = {{METER_NOT_TAKEN, "recipients refused"},
                  {METER_UNSENT, "due and not sent"},
                  {METER_DAMAGED, "damaged"},
                  {METER_SKEWED, "stamped in the future"},
                  {METER_RESUMED, "handshakes resumed"},
                  {METER_IDLE, "idle connections"},
                  {METER_IDLE_LOST, "idle connections lost"}};
    for (size_t i = 0; i < COUNT_OF(seldom); i++) {
        if (counts[seldom[i].what] > 0)
            (void)printf("; %s: %llu", seldom[i].text, (unsigned long long)counts[seldom[i].what]);
    }
    (void)putchar('\n');
    print_latencies(meter);
    (void)fflush(stdout);
}

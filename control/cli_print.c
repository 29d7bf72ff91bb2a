/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text for people, from the JSON that programs get: nothing is known here that is not in the
 * answer, so that both always say the same.
 */
#include "control/cli_print.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "control/terminal_text.h"

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit time_units[] = {
    {"d", 86400000000},
    {"h", 3600000000},
    {"m", 60000000},
    {"s", 1000000},
};

const char *cli_age_format(int64_t us, char ret_text[24])
{
    uint64_t age = us < 0 ? 0 : (uint64_t)us;
    uint32_t i = 0;

    while (i + 1 < COUNT_OF(time_units) && age < time_units[i].factor)
        i++;
    snprintf(ret_text, 24, "%" PRIu64 "%s", age / time_units[i].factor, time_units[i].name);
    return ret_text;
}

const char *cli_left_format(int64_t us, char ret_text[24])
{
    uint64_t left = us < 0 ? 0 : (uint64_t)us;
    uint32_t i = 0;

    /* Half of the next smaller unit makes a whole one: 59m 59s is 1h. */
    while (i + 1 < COUNT_OF(time_units) &&
           left + time_units[i + 1].factor / 2 < time_units[i].factor)
        i++;
    snprintf(ret_text, 24, "%" PRIu64 "%s",
             (left + time_units[i].factor / 2) / time_units[i].factor, time_units[i].name);
    return ret_text;
}

const char *cli_size_format(uint64_t octets, char ret_text[24])
{
    static const struct unit units[] = {
        {"T", 1000000000000},
        {"G", 1000000000},
        {"M", 1000000},
        {"k", 1000},
    };

    for (uint32_t i = 0; i < COUNT_OF(units); i++) {
        uint64_t whole = octets / units[i].factor;
        if (whole == 0)
            continue;
        if (whole >= 10)
            snprintf(ret_text, 24, "%" PRIu64 "%s", whole, units[i].name);
        else
            snprintf(ret_text, 24, "%" PRIu64 ".%" PRIu64 "%s", whole,
                     octets % units[i].factor * 10 / units[i].factor, units[i].name);
        return ret_text;
    }
    snprintf(ret_text, 24, "%" PRIu64, octets);
    return ret_text;
}

int64_t cli_number(const json_t *object, const char *group, const char *name)
{
    const json_t *in = group == NULL ? object : json_object_get(object, group);

    return json_integer_value(json_object_get(in, name));
}

const char *cli_shown(const json_t *object, const char *name, char text[CLI_SHOWN_SIZE])
{
    static int has_utf8 = -1; /* not known yet; the environment stays */
    const json_t *value = json_object_get(object, name);
    uint32_t size = json_is_string(value) ? (uint32_t)json_string_length(value) : 0;

    if (has_utf8 < 0)
        has_utf8 = terminal_has_utf8();
    if (size > CLI_SHOWN_MAX)
        size = CLI_SHOWN_MAX;
    return terminal_text(span_of(size == 0 ? "" : json_string_value(value), size), has_utf8 > 0,
                         text, CLI_SHOWN_SIZE);
}

/* ---- status ---- */

/* One line of a status: what is counted under which group. */
static const struct {
    const char *title, *group, *name, *text;
    bool is_size;
} status_rows[] = {
    {"received", "server", "messages_accepted", "messages", false},
    {"", "server", "messages_rejected", "rejected", false},
    {"", "server", "octets", "octets", true},
    {"", "server", "open", "sessions now", false},
    {"", "server", "gate_waits", "large ones waited for room", false},
    {"dkim", "server", "dkim.messages", "messages signed", false},
    {"", "server", "dkim.signatures", "signatures", false},
    {"", "server", "dkim.unmatched", "without a rule", false},
    {"", "server", "dkim.malformed", "malformed", false},
    {"", "server", "dkim.oversized", "with too large a header", false},
    {"", "server", "dkim.failed", "failed", false},
    {"", "server", "sign_waits", "waited a turn", false},
    {"logins", "server", "auth.accepted", "logins", false},
    {"", "server", "auth.rejected", "with a wrong password", false},
    {"", "server", "auth.unavailable", "not checked", false},
    {"", "server", "auth.locked", "locked out", false},
    {"", "server", "auth.messages_refused", "messages beyond a user's share", false},
    {"", "server", "auth.recipients_refused", "recipients", false},
    {"", "queue", "quota_messages", "messages held for that", false},
    {"brakes", "server", "brakes.networks", "networks known", false},
    {"", "server", "brakes.connections", "connections refused", false},
    {"", "server", "brakes.connection_rate", "more by rate", false},
    {"", "server", "brakes.messages", "messages", false},
    {"", "server", "brakes.recipients", "recipients", false},
    {"", "server", "brakes.refused", "for refused recipients", false},
    {"", "server", "brakes.errors", "for errors", false},
    {"queue", "queue", "messages", "messages", false},
    {"", "queue", "deliveries_active", "deliveries active", false},
    {"", "queue", "deliveries_ready", "ready", false},
    {"", "queue", "deliveries_waiting", "waiting", false},
    {"", "queue", "deliveries_held", "held", false},
    {"", "queue", "quota_held", "of these for quotas", false},
    {"", "queue", "unreadable", "cannot be read", false},
    {"watch", "queue", "check_rounds", "rounds over the queue", false},
    {"", "queue", "checked", "messages looked at", false},
    {"", "queue", "stuck", "without a next event", false},
    {"sources", "sources", "suspended", "suspended", false},
    {"", "sources", "resting", "rest", false},
    {"", "sources", "resting_partly", "rest with one family", false},
    {"sent", "client", "accepted", "accepted", false},
    {"", "client", "deferred", "deferred", false},
    {"", "client", "refused", "refused", false},
    {"", "client", "uncertain", "uncertain", false},
    {"", "client", "open", "connections now", false},
    {"ended", "queue", "delivered_recipients", "recipients delivered", false},
    {"", "queue", "failed_recipients", "failed", false},
    {"", "queue", "expired_recipients", "expired", false},
    {"notices", "queue", "dsns", "sent", false},
    {"", "queue", "delays_told", "of delays", false},
    {"", "queue", "dsns_capped", "waited for their turn", false},
    {"", "queue", "double_bounces", "undeliverable", false},
    {"spool", "spool", "octets_used", "used", true},
    {"", "spool", "octets_max", "of at most", true},
    {"", "spool", "syncs", "flushes", false},
    {"", "spool", "sync_failures", "failed", false},
    {"scrubber", "spool", "scrubbed_octets", "read", true},
    {"", "spool", "scrub_rounds", "rounds", false},
    {"", "spool", "damaged_messages", "damaged messages", false},
    {"", "spool", "repaired_messages", "mended", false},
    {"dns", "dns", "hits", "cache hits", false},
    {"", "dns", "misses", "misses", false},
    {"", "dns", "timeouts", "time-outs", false},
    {"records", "records", "written", "written", false},
    {"", "records", "dropped", "dropped", false},
    {"", "records", "replayed", "written again", false},
    {"webhooks", "webhooks", "events", "records taken", false},
    {"", "webhooks", "failures", "failures", false},
    {"", "webhooks", "waiting", "waiting", true},
};

static void webhooks_warn(const json_t *answer, FILE *out)
{
    json_t *row;
    size_t i;

    json_array_foreach(json_object_get(answer, "webhook"), i, row)
    {
        char name[CLI_SHOWN_SIZE], state[CLI_SHOWN_SIZE];
        if (strcmp(cli_shown(row, "state", state), "gone") == 0)
            fprintf(out, "warning    webhook %s: its receiver said 410: nothing more is posted\n",
                    cli_shown(row, "name", name));
        else if (strcmp(state, "failing") == 0)
            fprintf(out, "warning    webhook %s: its receiver takes nothing (answer %" PRId64 ")\n",
                    cli_shown(row, "name", name), (int64_t)cli_number(row, NULL, "answer"));
        if (cli_number(row, NULL, "gaps") > 0)
            fprintf(out,
                    "warning    webhook %s: records were gone before they were posted: raise "
                    "records.keep\n",
                    cli_shown(row, "name", name));
    }
}

static void warnings_print(const json_t *answer, FILE *out)
{
    const json_t *intake = json_object_get(answer, "intake");
    char reason[CLI_SHOWN_SIZE];

    if (json_is_true(json_object_get(intake, "is_closed")))
        fprintf(out, "warning    no mail is taken: angarium drain. %s\n",
                cli_shown(intake, "reason", reason));
    if (cli_number(answer, "spool", "is_failed") > 0)
        fprintf(out, "warning    the spool's disk has failed: new mail is answered 451\n");
    if (cli_number(answer, "spool", "damaged_ranges") > 0)
        fprintf(out,
                "warning    octets in the spool have changed: see the log, suspect the disk\n");
    if (cli_number(answer, "spool", "is_stuck") > 0)
        fprintf(out,
                "warning    nothing can be written to the spool: what is delivered, ordered or "
                "returned now is forgotten if the relay stops\n");
    if (cli_number(answer, "spool", "is_full") > 0)
        fprintf(out, "warning    the spool is full: new mail is answered 452\n");
    webhooks_warn(answer, out);
    if (cli_number(answer, "records", "holding") > 0)
        fprintf(out, "warning    records wait for their file: new mail is answered 451\n");
    if (cli_number(answer, "records", "dropped") > 0)
        fprintf(out, "warning    records were dropped: the file is too slow or its disk is full\n");
    if (cli_number(answer, "shards", "invariant_violations") > 0)
        fprintf(out, "warning    messages without a next event: please report this\n");
}

static json_int_t bucket_get(const json_t *now, const json_t *before, size_t index)
{
    return json_integer_value(json_array_get(json_object_get(now, "counts"), index)) -
           json_integer_value(json_array_get(json_object_get(before, "counts"), index));
}

/* Of the bounds under this name. */
static bool quantile_find(const json_t *now, const json_t *before, const char *bounds,
                          int64_t parts, json_int_t *ret_value)
{
    size_t buckets = json_array_size(json_object_get(now, "counts"));
    json_int_t total = 0, seen = 0, value = 0;

    for (size_t i = 0; i < buckets; i++)
        total += bucket_get(now, before, i);
    if (total == 0)
        return false;
    for (size_t i = 0; i < buckets && seen * 1000 < total * parts; i++) {
        seen += bucket_get(now, before, i);
        value = json_integer_value(json_array_get(json_object_get(now, bounds), i));
    }
    *ret_value = value;
    return true;
}

bool cli_latency_quantile(const json_t *now, const json_t *before, int64_t parts, int64_t *ret_us)
{
    json_int_t us;

    if (!quantile_find(now, before, "bounds_us", parts, &us))
        return false;
    *ret_us = us;
    return true;
}

static const char *quantile_format(const json_t *latency, int64_t parts, char ret_text[24])
{
    int64_t us;

    if (!cli_latency_quantile(latency, NULL, parts, &us))
        return "-";
    if (us < 10000)
        snprintf(ret_text, 24, "%.2f ms", (double)us / 1e3);
    else if (us < 10000000)
        snprintf(ret_text, 24, "%.0f ms", (double)us / 1e3);
    else
        cli_age_format(us, ret_text);
    return ret_text;
}

/* What takes microseconds; nothing when nothing was counted. */
static void fine_print(const json_t *answer, const char *name, const char *title, FILE *out)
{
    static const struct {
        const char *name;
        int64_t parts;
    } quantiles[] = {{"p50", 500}, {"p99", 990}, {"p99.9", 999}};
    const json_t *latency = json_object_get(json_object_get(answer, "latency_ns"), name);
    json_int_t ns;

    for (uint32_t i = 0; i < COUNT_OF(quantiles); i++) {
        if (!quantile_find(latency, NULL, "bounds_ns", quantiles[i].parts, &ns))
            return;
        if (i == 0)
            fprintf(out, "%-10s", title);
        fprintf(out, "%s %s %.1f us", i == 0 ? "" : ",", quantiles[i].name, (double)ns / 1e3);
    }
    fprintf(out, "\n");
}

static void latencies_print(const json_t *answer, FILE *out)
{
    char half[24], most[24], all[24];
    const char *name;
    json_t *latency;

    json_object_foreach(json_object_get(answer, "latency"), name, latency)
    {
        fprintf(out, "%-10s p50 %s, p99 %s, p99.9 %s\n", name, quantile_format(latency, 500, half),
                quantile_format(latency, 990, most), quantile_format(latency, 999, all));
    }
    fine_print(answer, "body_out", "body out", out);
    fine_print(answer, "ready_out", "ready out", out);
    fine_print(answer, "reply_out", "reply out", out);
}

void cli_status_print(const json_t *answer, FILE *out)
{
    char text[CLI_SHOWN_SIZE], age[24], size[24];

    fprintf(out, "angarium   %s, up %s, pid %" PRId64 ", cores %" PRId64,
            cli_shown(answer, "version", text),
            cli_age_format(cli_number(answer, NULL, "uptime_s") * 1000000, age),
            cli_number(answer, NULL, "pid"), cli_number(answer, NULL, "cores"));
    for (uint32_t i = 0; i < COUNT_OF(status_rows); i++) {
        int64_t value = cli_number(answer, status_rows[i].group, status_rows[i].name);
        if (json_object_get(answer, status_rows[i].group) == NULL)
            continue;
        if (*status_rows[i].title != '\0')
            fprintf(out, "\n%-10s ", status_rows[i].title);
        else
            fprintf(out, ", ");
        if (status_rows[i].is_size)
            fprintf(out, "%s %s", cli_size_format((uint64_t)value, size), status_rows[i].text);
        else
            fprintf(out, "%" PRId64 " %s", value, status_rows[i].text);
    }
    fprintf(out, "\n");
    latencies_print(answer, out);
    warnings_print(answer, out);
}

/* ---- the network ---- */

void cli_flows_print(const json_t *answer, wall_us now, FILE *out)
{
    const json_t *rows = json_object_get(answer, "rows");
    char state[CLI_SHOWN_SIZE], local[CLI_SHOWN_SIZE], remote[CLI_SHOWN_SIZE], age[24];

    (void)now;
    if (json_array_size(rows) == 0) {
        fprintf(out, "no flows: the engine is idle, or the driver is host (see ss)\n");
        return;
    }
    fprintf(out, "%-4s %-12s %-28s %-28s %8s %8s %8s %8s %9s %6s %5s\n", "CORE", "STATE", "LOCAL",
            "REMOTE", "RECV-Q", "SEND-Q", "FLIGHT", "CWND", "RTT", "RETR", "AGE");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        fprintf(out,
                "%-4" PRId64 " %-12s %-28s %-28s %8" PRId64 " %8" PRId64 " %8" PRId64 " %8" PRId64
                " %7" PRId64 "us %6" PRId64 " %5s\n",
                cli_number(row, NULL, "core"), cli_shown(row, "state", state),
                cli_shown(row, "local", local), cli_shown(row, "remote", remote),
                cli_number(row, NULL, "receive_queued"), cli_number(row, NULL, "send_queued"),
                cli_number(row, NULL, "in_flight"), cli_number(row, NULL, "window_congestion"),
                cli_number(row, NULL, "rtt_us"), cli_number(row, NULL, "retransmitted"),
                cli_age_format(cli_number(row, NULL, "age_us"), age));
    }
    if (json_is_true(json_object_get(answer, "has_more")))
        fprintf(out, "... and more: --limit N\n");
}

void cli_counters_print(const json_t *answer, wall_us now, FILE *out)
{
    const json_t *rows = json_object_get(answer, "rows");
    char port[CLI_SHOWN_SIZE], text[CLI_SHOWN_SIZE];
    uint32_t shown_count = 0;

    (void)now;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        if (cli_number(row, NULL, "value") == 0)
            continue;
        shown_count++;
        fprintf(out, "core %-3" PRId64 " %-16s %15" PRId64 "  %s\n", cli_number(row, NULL, "core"),
                cli_shown(row, "port", port), cli_number(row, NULL, "value"),
                cli_shown(row, "text", text));
    }
    if (shown_count == 0)
        fprintf(out, "nothing was counted: the driver is host, or nothing has happened\n");
    if (json_is_true(json_object_get(answer, "has_more")))
        fprintf(out, "... and more: --limit N\n");
}

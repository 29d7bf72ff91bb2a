/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text for people, from the JSON that programs get: nothing is known here that is not in the
 * answer, so that both always say the same.
 */
#include "control/cli_print.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define SHOWN_MAX 200u /* octets of a peer's text */

struct unit {
    const char *name;
    uint64_t factor;
};

const char *cli_age_format(int64_t us, char ret_text[24])
{
    static const struct unit units[] = {
        {"d", 86400000000},
        {"h", 3600000000},
        {"m", 60000000},
    };
    uint64_t age = us < 0 ? 0 : (uint64_t)us;

    for (uint32_t i = 0; i < COUNT_OF(units); i++) {
        if (age >= units[i].factor) {
            snprintf(ret_text, 24, "%" PRIu64 "%s", age / units[i].factor, units[i].name);
            return ret_text;
        }
    }
    snprintf(ret_text, 24, "%" PRIu64 "s", age / 1000000);
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

static int64_t number(const json_t *object, const char *group, const char *name)
{
    const json_t *in = group == NULL ? object : json_object_get(object, group);

    return json_integer_value(json_object_get(in, name));
}

/* A text of the answer, fit for a terminal. */
static const char *shown(const json_t *object, const char *name, char text[SHOWN_MAX * 4 + 1])
{
    const json_t *value = json_object_get(object, name);
    uint32_t size = json_is_string(value) ? (uint32_t)json_string_length(value) : 0;

    if (size > SHOWN_MAX)
        size = SHOWN_MAX;
    return log_escape(span_of(size == 0 ? "" : json_string_value(value), size), text,
                      SHOWN_MAX * 4 + 1);
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
    {"queue", "queue", "messages", "messages", false},
    {"", "queue", "deliveries_active", "deliveries active", false},
    {"", "queue", "deliveries_ready", "ready", false},
    {"", "queue", "deliveries_waiting", "waiting", false},
    {"sent", "client", "accepted", "accepted", false},
    {"", "client", "deferred", "deferred", false},
    {"", "client", "refused", "refused", false},
    {"", "client", "uncertain", "uncertain", false},
    {"", "client", "open", "connections now", false},
    {"ended", "queue", "delivered_recipients", "recipients delivered", false},
    {"", "queue", "failed_recipients", "failed", false},
    {"", "queue", "expired_recipients", "expired", false},
    {"spool", "spool", "octets_used", "used", true},
    {"", "spool", "octets_max", "of at most", true},
    {"", "spool", "syncs", "flushes", false},
    {"", "spool", "sync_failures", "failed", false},
    {"dns", "dns", "hits", "cache hits", false},
    {"", "dns", "misses", "misses", false},
    {"", "dns", "timeouts", "time-outs", false},
    {"records", "records", "written", "written", false},
    {"", "records", "dropped", "dropped", false},
};

static void warnings_print(const json_t *answer, FILE *out)
{
    if (number(answer, "spool", "is_failed") > 0)
        fprintf(out, "warning    the spool's disk has failed: new mail is answered 451\n");
    if (number(answer, "spool", "is_full") > 0)
        fprintf(out, "warning    the spool is full: new mail is answered 452\n");
    if (number(answer, "records", "dropped") > 0)
        fprintf(out, "warning    records were dropped: the file is too slow or its disk is full\n");
    if (number(answer, "shards", "invariant_violations") > 0)
        fprintf(out, "warning    messages without a next event: please report this\n");
}

void cli_status_print(const json_t *answer, FILE *out)
{
    char text[SHOWN_MAX * 4 + 1], age[24], size[24];

    fprintf(out, "angarium   %s, up %s, pid %" PRId64 ", cores %" PRId64,
            shown(answer, "version", text),
            cli_age_format(number(answer, NULL, "uptime_s") * 1000000, age),
            number(answer, NULL, "pid"), number(answer, NULL, "cores"));
    for (uint32_t i = 0; i < COUNT_OF(status_rows); i++) {
        int64_t value = number(answer, status_rows[i].group, status_rows[i].name);
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
    warnings_print(answer, out);
}

/* ---- queue ---- */

static int row_compare(const void *a, const void *b)
{
    int64_t left = number(*(json_t *const *)a, NULL, "arrived_us");
    int64_t right = number(*(json_t *const *)b, NULL, "arrived_us");

    return (left > right) - (left < right);
}

/* "now", "in 5m" */
static const char *next_try_format(const json_t *row, wall_us now, char text[32])
{
    int64_t next = number(row, NULL, "next_try_us");
    char age[24];

    if (strcmp(json_string_value(json_object_get(row, "state")), "active") == 0)
        return "active";
    if (next <= now)
        return "now";
    snprintf(text, 32, "in %s", cli_age_format(next - now, age));
    return text;
}

static void row_print(const json_t *row, wall_us now, FILE *out)
{
    char id[SHOWN_MAX * 4 + 1], sender[SHOWN_MAX * 4 + 1], recipient[SHOWN_MAX * 4 + 1];
    char reply[SHOWN_MAX * 4 + 1], age[24], size[24], next[32];

    fprintf(out, "%-26s %5s %5s %5" PRId64 " %7s  <%s> -> <%s>\n", shown(row, "id", id),
            cli_age_format(now - number(row, NULL, "arrived_us"), age),
            cli_size_format((uint64_t)number(row, NULL, "size"), size),
            number(row, NULL, "attempts"), next_try_format(row, now, next),
            shown(row, "sender", sender), shown(row, "recipient", recipient));
    if (*shown(row, "last_reply", reply) != '\0')
        fprintf(out, "%-26s %s\n", "", reply);
}

void cli_queue_list_print(const json_t *answer, wall_us now, FILE *out)
{
    const json_t *rows = json_object_get(answer, "rows");
    size_t count = json_array_size(rows);
    json_t **sorted = calloc(count + 1, sizeof(json_t *));

    if (count == 0 || sorted == NULL) {
        fprintf(out, "the queue is empty\n");
        free(sorted);
        return;
    }
    for (size_t i = 0; i < count; i++)
        sorted[i] = json_array_get(rows, i);
    qsort(sorted, count, sizeof(json_t *), row_compare);
    fprintf(out, "%-26s %5s %5s %5s %7s  %s\n", "ID", "AGE", "SIZE", "TRIES", "NEXT",
            "SENDER -> RECIPIENT, LAST REPLY");
    for (size_t i = 0; i < count; i++)
        row_print(sorted[i], now, out);
    if (json_is_true(json_object_get(answer, "has_more")))
        fprintf(out, "... and more: --limit N\n");
    free(sorted);
}

void cli_queue_show_print(const json_t *answer, wall_us now, FILE *out)
{
    const json_t *rows = json_object_get(answer, "rows");
    const json_t *first = json_array_get(rows, 0);
    char text[SHOWN_MAX * 4 + 1], age[24], size[24], next[32];

    fprintf(out, "id         %s\n", shown(first, "id", text));
    fprintf(out, "sender     <%s>\n", shown(first, "sender", text));
    fprintf(out, "size       %s\n", cli_size_format((uint64_t)number(first, NULL, "size"), size));
    fprintf(out, "arrived    %s ago\n",
            cli_age_format(now - number(first, NULL, "arrived_us"), age));
    fprintf(out, "expires    in %s\n",
            cli_age_format(number(first, NULL, "expires_us") - now, age));
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        fprintf(out, "recipient  <%s>", shown(row, "recipient", text));
        fprintf(out, ", %s", shown(row, "state", text));
        fprintf(out, ", attempts %" PRId64, number(row, NULL, "attempts"));
        if (strcmp(text, "waiting") == 0)
            fprintf(out, ", next %s", next_try_format(row, now, next));
        if (*shown(row, "last_reply", text) != '\0')
            fprintf(out, "\n           %s", text);
        fprintf(out, "\n");
    }
}

/* ---- the network ---- */

void cli_flows_print(const json_t *answer, wall_us now, FILE *out)
{
    const json_t *rows = json_object_get(answer, "rows");
    char state[SHOWN_MAX * 4 + 1], local[SHOWN_MAX * 4 + 1], remote[SHOWN_MAX * 4 + 1], age[24];

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
                number(row, NULL, "core"), shown(row, "state", state), shown(row, "local", local),
                shown(row, "remote", remote), number(row, NULL, "receive_queued"),
                number(row, NULL, "send_queued"), number(row, NULL, "in_flight"),
                number(row, NULL, "window_congestion"), number(row, NULL, "rtt_us"),
                number(row, NULL, "retransmitted"),
                cli_age_format(number(row, NULL, "age_us"), age));
    }
    if (json_is_true(json_object_get(answer, "has_more")))
        fprintf(out, "... and more: --limit N\n");
}

void cli_counters_print(const json_t *answer, wall_us now, FILE *out)
{
    const json_t *rows = json_object_get(answer, "rows");
    char port[SHOWN_MAX * 4 + 1], text[SHOWN_MAX * 4 + 1];
    uint32_t shown_count = 0;

    (void)now;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        if (number(row, NULL, "value") == 0)
            continue;
        shown_count++;
        fprintf(out, "core %-3" PRId64 " %-16s %15" PRId64 "  %s\n", number(row, NULL, "core"),
                shown(row, "port", port), number(row, NULL, "value"), shown(row, "text", text));
    }
    if (shown_count == 0)
        fprintf(out, "nothing was counted: the driver is host, or nothing has happened\n");
    if (json_is_true(json_object_get(answer, "has_more")))
        fprintf(out, "... and more: --limit N\n");
}

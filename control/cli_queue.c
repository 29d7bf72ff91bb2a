/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue as text for people: lists, one message, the summary of ages.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "control/cli_print.h"
#include "queue/qmgr_ages.h"

/* ---- lists ---- */

static int row_compare(const void *a, const void *b)
{
    int64_t left = cli_number(*(json_t *const *)a, NULL, "arrived_us");
    int64_t right = cli_number(*(json_t *const *)b, NULL, "arrived_us");

    return (left > right) - (left < right);
}

/* "now", "in 5m" */
static const char *next_try_format(const json_t *row, wall_us now, char text[32])
{
    int64_t next = cli_number(row, NULL, "next_try_us");
    char age[24];

    const char *state = json_string_value(json_object_get(row, "state"));

    if (strcmp(state, "active") == 0 || (strcmp(state, "held") == 0 && next == INT64_MAX))
        return state;
    if (next <= now)
        return "now";
    snprintf(text, 32, "in %s", cli_left_format(next - now, age));
    return text;
}

void cli_queue_row_print(const json_t *row, wall_us now, FILE *out)
{
    char id[CLI_SHOWN_SIZE], sender[CLI_SHOWN_SIZE], recipient[CLI_SHOWN_SIZE];
    char reply[CLI_SHOWN_SIZE], age[24], size[24], next[32];

    fprintf(out, "%-26s %5s %5s %5" PRId64 " %7s  <%s> -> <%s>\n", cli_shown(row, "id", id),
            cli_age_format(now - cli_number(row, NULL, "arrived_us"), age),
            cli_size_format((uint64_t)cli_number(row, NULL, "size"), size),
            cli_number(row, NULL, "attempts"), next_try_format(row, now, next),
            cli_shown(row, "sender", sender), cli_shown(row, "recipient", recipient));
    if (*cli_shown(row, "last_reply", reply) != '\0')
        fprintf(out, "%-26s %s\n", "", reply);
}

void cli_queue_header_print(FILE *out)
{
    fprintf(out, "%-26s %5s %5s %5s %7s  %s\n", "ID", "AGE", "SIZE", "TRIES", "NEXT",
            "SENDER -> RECIPIENT, LAST REPLY");
}

void cli_queue_list_print(const json_t *answer, wall_us now, FILE *out)
{
    const json_t *rows = json_object_get(answer, "rows");
    size_t count = json_array_size(rows);
    json_t **sorted = calloc(count + 1, sizeof(json_t *));

    if (count == 0 || sorted == NULL) {
        fprintf(out, "nothing of the kind is in the queue\n");
        free(sorted);
        return;
    }
    for (size_t i = 0; i < count; i++)
        sorted[i] = json_array_get(rows, i);
    qsort(sorted, count, sizeof(json_t *), row_compare);
    cli_queue_header_print(out);
    for (size_t i = 0; i < count; i++)
        cli_queue_row_print(sorted[i], now, out);
    if (json_is_true(json_object_get(answer, "has_more")))
        fprintf(out, "... and more: --limit N, 0 for all\n");
    free(sorted);
}

void cli_queue_show_print(const json_t *answer, wall_us now, FILE *out)
{
    const json_t *rows = json_object_get(answer, "rows");
    const json_t *first = json_array_get(rows, 0);
    char text[CLI_SHOWN_SIZE], age[24], size[24], next[32];

    fprintf(out, "id         %s\n", cli_shown(first, "id", text));
    fprintf(out, "sender     <%s>\n", cli_shown(first, "sender", text));
    if (*cli_shown(first, "user", text) != '\0')
        fprintf(out, "user       %s\n", text);
    fprintf(out, "class      %s\n", cli_shown(first, "class_name", text));
    if (*cli_shown(first, "source", text) != '\0')
        fprintf(out, "source     %s\n", text);
    fprintf(out, "size       %s\n",
            cli_size_format((uint64_t)cli_number(first, NULL, "size"), size));
    fprintf(out, "arrived    %s ago\n",
            cli_age_format(now - cli_number(first, NULL, "arrived_us"), age));
    fprintf(out, "expires    in %s\n",
            cli_left_format(cli_number(first, NULL, "expires_us") - now, age));
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        fprintf(out, "recipient  <%s>", cli_shown(row, "recipient", text));
        fprintf(out, ", %s", cli_shown(row, "state", text));
        fprintf(out, ", attempts %" PRId64, cli_number(row, NULL, "attempts"));
        if (strcmp(text, "waiting") == 0 || strcmp(text, "held") == 0)
            fprintf(out, ", next %s", next_try_format(row, now, next));
        if (*cli_shown(row, "held_for", text) != '\0')
            fprintf(out, " for %s", text);
        else if (cli_number(row, NULL, "order") > 0)
            fprintf(out, " (order %" PRId64 ")", cli_number(row, NULL, "order"));
        if (*cli_shown(row, "site", text) != '\0')
            fprintf(out, ", site %s", text);
        if (*cli_shown(row, "last_reply", text) != '\0')
            fprintf(out, "\n           %s", text);
        fprintf(out, "\n");
    }
}

/* ---- summary: the table that qshape made known ---- */

static void ages_print(const json_t *ages, FILE *out)
{
    for (uint32_t i = 0; i < QMGR_AGE_BUCKET_COUNT; i++)
        fprintf(out, " %6" PRId64, (int64_t)json_integer_value(json_array_get(ages, i)));
    fprintf(out, "\n");
}

static void ages_header_print(FILE *out)
{
    for (uint32_t i = 0; i + 1 < QMGR_AGE_BUCKET_COUNT; i++)
        fprintf(out, " %6u", 5u << i);
    fprintf(out, "  1280+\n");
}

void cli_queue_summary_print(const json_t *answer, wall_us now, FILE *out)
{
    const json_t *rows = json_object_get(answer, "rows");
    char name[CLI_SHOWN_SIZE];

    (void)now;
    fprintf(out, "%-36s %8s", cli_shown(answer, "by", name), "TOTAL");
    ages_header_print(out);
    fprintf(out, "%-36s %8" PRId64, "TOTAL", cli_number(answer, NULL, "total"));
    ages_print(json_object_get(answer, "ages"), out);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        fprintf(out, "%-36s %8" PRId64, cli_shown(row, "name", name),
                cli_number(row, NULL, "total"));
        ages_print(json_object_get(row, "ages"), out);
    }
    if ((int64_t)json_array_size(rows) < cli_number(answer, NULL, "groups"))
        fprintf(out, "... and %" PRId64 " more: --limit N\n",
                cli_number(answer, NULL, "groups") - (int64_t)json_array_size(rows));
}

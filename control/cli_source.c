/* SPDX-License-Identifier: Apache-2.0 */
/* Sources as text for people: a line for each core, and below it what makes it rest. */
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "control/cli_print.h"

static void addresses_print(const json_t *row, FILE *out)
{
    const json_t *addresses = json_object_get(row, "addresses");
    char text[128] = "any";
    size_t size = 0;

    for (size_t i = 0; i < json_array_size(addresses) && size < sizeof(text); i++)
        size += (size_t)snprintf(text + size, sizeof(text) - size, "%s%s", i > 0 ? ", " : "",
                                 json_string_value(json_array_get(addresses, i)));
    fprintf(out, " %-34s", text);
}

static void state_print(const json_t *row, FILE *out)
{
    char text[CLI_SHOWN_SIZE], time[24];
    bool is_suspended = json_is_true(json_object_get(row, "suspended"));

    if (is_suspended)
        fprintf(out, " suspended for %s more: %s",
                cli_left_format(cli_number(row, NULL, "left_us"), time),
                cli_shown(row, "reason", text));
    else if (json_is_true(json_object_get(row, "broken")))
        fprintf(out, " rests for %s more", cli_left_format(cli_number(row, NULL, "left_us"), time));
    else
        fprintf(out, " in use");
    if (json_object_get(row, "warmup_days") == NULL)
        return;
    if (cli_number(row, NULL, "warmup_day") == 0)
        fprintf(out, "; its warm-up has not begun");
    else
        fprintf(out, "; warms up, day %" PRId64 " of %" PRId64 ": at each site %" PRId64 "/1d",
                cli_number(row, NULL, "warmup_day"), cli_number(row, NULL, "warmup_days"),
                cli_number(row, NULL, "warmup_limit"));
}

static const char *time_format(wall_us time, char ret_text[32])
{
    time_t seconds = (time_t)(time / 1000000);
    struct tm parts;

    if (gmtime_r(&seconds, &parts) == NULL ||
        strftime(ret_text, 32, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0)
        return "?";
    return ret_text;
}

static void evidence_print(const json_t *rest, FILE *out)
{
    const json_t *rows = json_object_get(rest, "evidence");
    char text[CLI_SHOWN_SIZE], time[24];

    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        fprintf(out, "         %s, ", cli_shown(row, "site", text));
        fprintf(out, "%s ago: ", cli_age_format(cli_number(row, NULL, "ago_us"), time));
        fprintf(out, "%s\n", cli_shown(row, "said", text));
    }
    int64_t more = cli_number(rest, NULL, "sites") - (int64_t)json_array_size(rows);
    if (more > 0)
        fprintf(out, "         and %" PRId64 " more\n", more);
}

/* "refused by 3 sites: rests since 14:03:11 until 14:08:11 UTC, the 2nd time in a row" */
static void rest_print(const json_t *rest, wall_us now, FILE *out)
{
    static const struct {
        const char *cause, *text;
    } causes[] = {{"broken", "nothing leaves from its address"},
                  {"refused", "sites refuse it"},
                  {"unreached", "it reaches none of several sites that others reach"}};
    char text[CLI_SHOWN_SIZE], since[32], until[32];
    const char *part = cli_shown(rest, "part", text);
    wall_us left = cli_number(rest, NULL, "left_us");

    fprintf(out, "       %s", strcmp(part, "all") == 0 ? "" : part);
    const char *cause = json_string_value(json_object_get(rest, "cause"));
    for (size_t i = 0; cause != NULL && i < sizeof(causes) / sizeof(causes[0]); i++) {
        if (strcmp(cause, causes[i].cause) == 0)
            fprintf(out, "%s%s", strcmp(part, "all") == 0 ? "" : ": ", causes[i].text);
    }
    fprintf(out, "; rests since %s", time_format(now - cli_number(rest, NULL, "since_us"), since));
    if (left > 0)
        fprintf(out, " until %s", time_format(now + left, until));
    else
        fprintf(out, ", to be tried now");
    fprintf(out, ", %" PRId64 " in a row\n", cli_number(rest, NULL, "times"));
    evidence_print(rest, out);
}

void cli_source_print(const json_t *answer, wall_us now, FILE *out)
{
    const json_t *rows = json_object_get(answer, "rows");
    char text[CLI_SHOWN_SIZE];

    fprintf(out, "%-4s %-20s %-34s %-24s %s\n", "CORE", "SOURCE", "ADDRESSES", "HELLO", "STATE");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        fprintf(out, "%-4" PRId64 " %-20s", cli_number(row, NULL, "core"),
                cli_shown(row, "source", text));
        addresses_print(row, out);
        fprintf(out, " %-24s", cli_shown(row, "hello", text));
        state_print(row, out);
        fprintf(out, "\n");
        const json_t *rests = json_object_get(row, "rests");
        for (size_t j = 0; j < json_array_size(rests); j++)
            rest_print(json_array_get(rests, j), now, out);
    }
    if (json_is_true(json_object_get(answer, "dry_run")))
        fprintf(out, "nothing was done\n");
}

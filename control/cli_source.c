/* SPDX-License-Identifier: Apache-2.0 */
/* Sources as text for people: a line for each core. */
#include <inttypes.h>
#include <stdbool.h>

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

    if (is_suspended || json_is_true(json_object_get(row, "broken")))
        fprintf(out, " %s for %s more: %s", is_suspended ? "suspended" : "rests",
                cli_age_format(cli_number(row, NULL, "left_us"), time),
                cli_shown(row, "reason", text));
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

void cli_source_print(const json_t *answer, wall_us now, FILE *out)
{
    const json_t *rows = json_object_get(answer, "rows");
    char text[CLI_SHOWN_SIZE];

    (void)now;
    fprintf(out, "%-4s %-20s %-34s %-24s %s\n", "CORE", "SOURCE", "ADDRESSES", "HELLO", "STATE");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        fprintf(out, "%-4" PRId64 " %-20s", cli_number(row, NULL, "core"),
                cli_shown(row, "source", text));
        addresses_print(row, out);
        fprintf(out, " %-24s", cli_shown(row, "hello", text));
        state_print(row, out);
        fprintf(out, "\n");
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sites as text for people: a line for each core that knows one, with what binds on its home's.
 */
#include <inttypes.h>
#include <string.h>

#include "base/check.h"
#include "control/cli_print.h"

void cli_site_order_row_print(const json_t *row, FILE *out)
{
    char text[CLI_SHOWN_SIZE], time[24];

    fprintf(out, "       order %" PRId64 ":", cli_number(row, NULL, "order"));
    if (strcmp(cli_shown(row, "does", text), "set") != 0)
        fprintf(out, " %s", text);
    if (*cli_shown(row, "host", text) != '\0')
        fprintf(out, " %s", text);
    if (cli_number(row, NULL, "connections") > 0)
        fprintf(out, " connections=%" PRId64, cli_number(row, NULL, "connections"));
    if (*cli_shown(row, "rate", text) != '\0')
        fprintf(out, " rate=%s", text);
    fprintf(out, " for %s more", cli_left_format(cli_number(row, NULL, "left_us"), time));
    fprintf(out, ", %s%s", json_is_true(json_object_get(row, "pattern")) ? "pattern " : "by ",
            cli_shown(row, "by", text));
    fprintf(out, ": %s\n", cli_shown(row, "reason", text));
}

void cli_site_ahead_print(const json_t *ahead, FILE *out)
{
    const char *wish = json_string_value(json_object_get(ahead, "bdat_ahead"));
    bool has_bdat = json_is_true(json_object_get(ahead, "bdat"));
    int64_t cores = cli_number(ahead, NULL, "cores_bdat"), of = cli_number(ahead, NULL, "cores");
    char time[24];

    if (cli_number(ahead, NULL, "shy_us") > 0) {
        fprintf(out, "nothing is sent ahead for %s more: that did no good there",
                cli_left_format(cli_number(ahead, NULL, "shy_us"), time));
        return;
    }
    fprintf(out, "next message with this one's end: %s",
            json_is_true(json_object_get(ahead, "next")) ? "yes" : "no");
    if (wish == NULL || strcmp(wish, "never") == 0)
        return;
    fprintf(out, "; bodies ahead of replies: ");
    if (!has_bdat)
        fprintf(out, "not yet, has taken %" PRId64 " of %" PRId64,
                cli_number(ahead, NULL, "learned"), cli_number(ahead, NULL, "learned_of"));
    else
        fprintf(out, "%s, up to %" PRId64 " messages", wish, cli_number(ahead, NULL, "depth"));
    if (has_bdat && cores < of)
        fprintf(out, ", on %" PRId64 " of %" PRId64 " cores", cores, of);
}

static void site_row_print(const json_t *row, FILE *out)
{
    char text[CLI_SHOWN_SIZE], time[24];

    fprintf(out, "%-4" PRId64 " %-30s %5" PRId64 " of %-6" PRId64, cli_number(row, NULL, "core"),
            cli_shown(row, "site", text), cli_number(row, NULL, "connections"),
            cli_number(row, NULL, "connections_max"));
    if (*cli_shown(row, "source", text) != '\0')
        fprintf(out, " from %s:", text);
    fprintf(out, " %s", *cli_shown(row, "rates", text) == '\0' ? "no rate" : text);
    if (cli_number(row, NULL, "connections_allowed") < cli_number(row, NULL, "connections_max") &&
        *cli_shown(row, "allowed_reason", text) != '\0')
        fprintf(out, "; %" PRId64 " now: %s, %s ago", cli_number(row, NULL, "connections_allowed"),
                text, cli_age_format(cli_number(row, NULL, "allowed_for_us"), time));
    if (*cli_shown(row, "binding", text) != '\0') {
        fprintf(out, "; %s has %" PRId64 ", %" PRId64 " more on their way", text,
                cli_number(row, NULL, "binding_used"), cli_number(row, NULL, "mails_out"));
        if (cli_number(row, NULL, "next_us") > 0)
            fprintf(out, ", the next in %s",
                    cli_age_format(cli_number(row, NULL, "next_us"), time));
    }
    if (json_is_true(json_object_get(row, "suspended")))
        fprintf(out, "; suspended for %s",
                cli_left_format(cli_number(row, NULL, "paused_us"), time));
    else if (cli_number(row, NULL, "paused_us") > 0)
        fprintf(out, "; pauses for %s after %" PRId64 " failures (site resume ends it)",
                cli_left_format(cli_number(row, NULL, "paused_us"), time),
                cli_number(row, NULL, "failures"));
    const json_t *ahead = json_object_get(row, "ahead");
    if (json_is_true(json_object_get(ahead, "bdat")) || cli_number(ahead, NULL, "shy_us") > 0 ||
        cli_number(ahead, NULL, "learned") > 0) {
        fprintf(out, "; ");
        cli_site_ahead_print(ahead, out);
    }
    fprintf(out, "\n");
    const json_t *orders = json_object_get(row, "orders");
    for (size_t i = 0; i < json_array_size(orders); i++)
        cli_site_order_row_print(json_array_get(orders, i), out);
}

/* What held sites back; with `is_dry_run` it still does. */
static void ended_print(const json_t *ended, bool is_dry_run, FILE *out)
{
    static const struct {
        const char *name, *text;
    } rows[] = {
        {"orders", "orders"},
        {"pauses", "pauses after failures"},
        {"back_offs", "sites whose back-off had grown"},
        {"reduced", "sites that took fewer connections"},
        {"addresses", "addresses that were tried last"},
    };
    bool is_any = false;

    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        int64_t count = cli_number(ended, NULL, rows[i].name);
        if (count > 0)
            fprintf(out, "%s %" PRId64 " %s",
                    is_any       ? ","
                    : is_dry_run ? "would end:"
                                 : "ended:",
                    count, rows[i].text);
        is_any = is_any || count > 0;
    }
    fprintf(out, "%s\n", is_any ? "" : "nothing held mail back there");
    if (is_any && !is_dry_run)
        fprintf(out, "mail that was deferred goes at its next try, or now: angarium retry "
                     "site=NAME\n");
}

void cli_site_order_print(const json_t *answer, wall_us now, FILE *out)
{
    int64_t matched = cli_number(answer, NULL, "matched"), done = cli_number(answer, NULL, "done");
    const json_t *ended = json_object_get(answer, "ended");

    (void)now;
    if (json_is_true(json_object_get(answer, "dry_run"))) {
        fprintf(out, "%" PRId64 " sites match; nothing was done\n", matched);
        if (ended != NULL)
            ended_print(ended, true, out);
        return;
    }
    if (ended != NULL) {
        fprintf(out, "%" PRId64 " sites match, %" PRId64 " done\n", matched, done);
        ended_print(ended, false, out);
        return;
    }
    if (cli_number(answer, NULL, "order") > 0)
        fprintf(out, "order %" PRId64 ": ", cli_number(answer, NULL, "order"));
    fprintf(out, "%" PRId64 " sites match, %" PRId64 " done%s\n", matched, done,
            done < matched ? "; the others have too many orders or rates"
            : matched == 0 && cli_number(answer, NULL, "order") > 0
                ? "; it holds for those that come"
                : "");
}

void cli_site_show_print(const json_t *answer, wall_us now, FILE *out)
{
    const json_t *rows = json_object_get(answer, "rows");

    (void)now;
    if (json_array_size(rows) == 0) {
        fprintf(out, "no such site is known: nothing was sent there lately\n");
        return;
    }
    fprintf(out, "%-4s %-30s %15s %s\n", "CORE", "SITE", "CONNECTIONS", "RATES");
    for (size_t i = 0; i < json_array_size(rows); i++)
        site_row_print(json_array_get(rows, i), out);
    if (json_is_true(json_object_get(answer, "has_more")))
        fprintf(out, "... and more: --limit N\n");
}

void cli_site_patterns_print(const json_t *answer, wall_us now, FILE *out)
{
    const json_t *rows = json_object_get(answer, "rows");
    char text[CLI_SHOWN_SIZE];

    (void)now;
    fprintf(out, "%-48s %10s %10s\n", "PATTERN", "MATCHES", "GIVEN UP");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        fprintf(out, "%-48s %10" PRId64 " %10" PRId64 "\n", cli_shown(row, "name", text),
                cli_number(row, NULL, "matches"), cli_number(row, NULL, "given_up"));
    }
    if (cli_number(answer, NULL, "refused") > 0)
        fprintf(out, "%" PRId64 " orders about sites found no room\n",
                cli_number(answer, NULL, "refused"));
}

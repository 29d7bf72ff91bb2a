/* SPDX-License-Identifier: Apache-2.0 */
/* Orders as text for people: what one did, and those that stand. */
#include <inttypes.h>
#include <pwd.h>
#include <stdbool.h>
#include <string.h>

#include "base/check.h"
#include "control/cli_print.h"

/* ---- one ---- */

/* In full, as it may be given: "1d12h". */
static const char *duration_format(int64_t us, char ret_text[64])
{
    static const struct {
        const char *name;
        int64_t seconds;
    } units[] = {{"d", 86400}, {"h", 3600}, {"m", 60}, {"s", 1}};
    int64_t left = us / 1000000;
    size_t size = 0;

    ret_text[0] = '\0';
    for (uint32_t i = 0; i < COUNT_OF(units) && left > 0; i++) {
        if (left >= units[i].seconds)
            size += (size_t)snprintf(ret_text + size, 64 - size, "%" PRId64 "%s",
                                     left / units[i].seconds, units[i].name);
        left %= units[i].seconds;
    }
    return ret_text;
}

/* Of recipients that match, and with which nothing had to be done. */
static const char *why_nothing(const json_t *answer)
{
    static const struct {
        const char *verb, *why;
    } rows[] = {
        {"hold", "are held already"},
        {"release", "are not held"},
        {"retry", "are due already, or held (explain says what they wait for)"},
        {"reroute", "go that way already"},
    };
    const char *verb = json_string_value(json_object_get(answer, "verb"));

    for (uint32_t i = 0; verb != NULL && i < COUNT_OF(rows); i++) {
        if (strcmp(rows[i].verb, verb) == 0)
            return rows[i].why;
    }
    return "have ended already";
}

static void counts_print(const json_t *answer, FILE *out)
{
    int64_t matched = cli_number(answer, NULL, "matched"), done = cli_number(answer, NULL, "done");
    int64_t in_flight = cli_number(answer, NULL, "in_flight");
    int64_t unreadable = cli_number(answer, NULL, "unreadable");

    fprintf(out, "%" PRId64 " recipients match, %" PRId64 " done", matched, done);
    if (in_flight > 0)
        fprintf(out, ", %" PRId64 " under way are asked to end", in_flight);
    if (matched > done + in_flight + unreadable)
        fprintf(out, ", %" PRId64 " %s", matched - done - in_flight - unreadable,
                why_nothing(answer));
    fprintf(out, "\n");
    if (unreadable > 0)
        fprintf(out,
                "%" PRId64 " are of mail whose addresses cannot be read: it can be held, and "
                "deleted as a whole (delete id=ID), as nobody can say who is to be told\n",
                unreadable);
}

static void unwritten_print(const json_t *answer, FILE *out)
{
    if (json_is_true(json_object_get(answer, "is_unwritten")))
        fprintf(out, "warning: nothing can be written to the spool now, so that this is forgotten "
                     "if the relay stops before there is room (angarium status)\n");
}

/* What waits for a site goes when the site may be tried. */
static void paused_print(const json_t *answer, FILE *out)
{
    const json_t *rows = json_object_get(answer, "paused");
    char site[CLI_SHOWN_SIZE], source[CLI_SHOWN_SIZE], left[24];

    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        fprintf(out,
                "site %s%s%s %s for %s more: its mail goes then, or when you say so: "
                "angarium site resume %s\n",
                cli_shown(row, "site", site),
                *cli_shown(row, "source", source) == '\0' ? "" : " from ", source,
                json_is_true(json_object_get(row, "suspended")) ? "is suspended" : "pauses",
                cli_left_format(cli_number(row, NULL, "left_us"), left), site);
    }
    if (json_is_true(json_object_get(answer, "paused_has_more")))
        fprintf(out, "... and more sites pause: angarium site show\n");
}

static void cancel_print(const json_t *answer, FILE *out)
{
    bool is_dry_run = json_is_true(json_object_get(answer, "dry_run"));
    const char *was = json_string_value(json_object_get(answer, "was"));
    int64_t matched = cli_number(answer, NULL, "matched");

    fprintf(out, "order %" PRId64 " %s", cli_number(answer, NULL, "cancelled"),
            is_dry_run ? "would end" : "has ended");
    if (was != NULL && strcmp(was, "site") == 0)
        fprintf(out, ", at %" PRId64 " sites", cli_number(answer, NULL, "sites"));
    if (was != NULL && strcmp(was, "hold") == 0)
        fprintf(out, "; %" PRId64 " recipients %s", matched,
                is_dry_run ? "would be released" : "are released");
    fprintf(out, "\n");
}

void cli_order_print(const json_t *answer, wall_us now, FILE *out)
{
    char duration[64];

    (void)now;
    if (json_object_get(answer, "cancelled") != NULL) {
        cancel_print(answer, out);
        unwritten_print(answer, out);
        return;
    }
    if (json_is_true(json_object_get(answer, "dry_run"))) {
        fprintf(out, "%" PRId64 " recipients match; nothing was done\n",
                cli_number(answer, NULL, "matched"));
        return;
    }
    fprintf(out, "order %" PRId64 ": ", cli_number(answer, NULL, "order"));
    counts_print(answer, out);
    unwritten_print(answer, out);
    paused_print(answer, out);
    if (cli_number(answer, NULL, "stands_until_us") > 0)
        fprintf(out, "it stands for mail that comes in the next %s (queue cancel %" PRId64 ")\n",
                duration_format(cli_number(answer, NULL, "duration_us"), duration),
                cli_number(answer, NULL, "order"));
}

/* ---- all that stand ---- */

/* By name where this machine has one for the number. */
static const char *user_format(const json_t *row, char text[64])
{
    const json_t *uid = json_object_get(row, "uid");
    const struct passwd *user =
        json_is_integer(uid) ? getpwuid((uid_t)json_integer_value(uid)) : NULL;

    if (!json_is_integer(uid))
        (void)snprintf(text, 64, "-");
    else if (user != NULL)
        (void)snprintf(text, 64, "%s", user->pw_name);
    else
        (void)snprintf(text, 64, "%" PRId64, (int64_t)json_integer_value(uid));
    return text;
}

static void order_row_print(const json_t *row, wall_us now, FILE *out)
{
    char verb[CLI_SHOWN_SIZE], filter[CLI_SHOWN_SIZE], reason[CLI_SHOWN_SIZE], to[CLI_SHOWN_SIZE];
    char given[24], left[24], user[64];

    fprintf(out, "%-8" PRId64 " %-8s %6s %6s %8" PRId64 " %8" PRId64 "  %-10s %s",
            cli_number(row, NULL, "order"), cli_shown(row, "verb", verb),
            cli_age_format(now - cli_number(row, NULL, "given_us"), given),
            cli_left_format(cli_number(row, NULL, "until_us") - now, left),
            cli_number(row, NULL, "now"), cli_number(row, NULL, "since"), user_format(row, user),
            cli_shown(row, "filter", filter));
    if (*cli_shown(row, "to", to) != '\0')
        fprintf(out, " to %s", to);
    if (*cli_shown(row, "reason", reason) != '\0')
        fprintf(out, " (%s)", reason);
    fprintf(out, "\n");
}

void cli_orders_print(const json_t *answer, wall_us now, FILE *out)
{
    const json_t *rows = json_object_get(answer, "rows");

    if (json_array_size(rows) == 0) {
        fprintf(out, "no order stands\n");
        return;
    }
    fprintf(out, "%-8s %-8s %6s %6s %8s %8s  %-10s %s\n", "ORDER", "VERB", "AGE", "LEFT", "NOW",
            "SINCE", "BY", "WHICH MAIL (REASON)");
    for (size_t i = 0; i < json_array_size(rows); i++)
        order_row_print(json_array_get(rows, i), now, out);
}

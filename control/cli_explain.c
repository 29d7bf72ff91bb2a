/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `explain`: what the relay knows of one message, site or domain, gathered from several answers,
 * and as text for people.
 *
 * A name that the relay knows as a domain leads on to the sites that its mail goes to; a message
 * leads to the site of each recipient that is not at its end.
 *
 * Limits: EXPLAINED_MAX names; of a message with more the rest is left out, and said so.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "control/cli_print.h"
#include "queue/envelope.h"
#include "queue/way.h"

#define EXPLAINED_MAX 16u

/* ---- gathering ---- */

static const char *text_of(const json_t *row, const char *name)
{
    const char *text = json_string_value(json_object_get(row, name));

    return text == NULL ? "" : text;
}

static bool is_ok(const json_t *answer)
{
    return json_is_true(json_object_get(answer, "ok"));
}

static void name_add(json_t *names, const char *name)
{
    for (size_t i = 0; i < json_array_size(names); i++) {
        if (strcasecmp(json_string_value(json_array_get(names, i)), name) == 0)
            return;
    }
    if (*name != '\0')
        json_array_append_new(names, json_string(name));
}

static bool is_under_way(const json_t *recipient)
{
    static const char *const states[] = {"waiting", "held", "ready", "active"};

    for (uint32_t i = 0; i < COUNT_OF(states); i++) {
        if (strcmp(text_of(recipient, "state"), states[i]) == 0)
            return true;
    }
    return false;
}

/* Where it goes; its domain while no site is known. */
static const char *where_of(const json_t *recipient)
{
    const char *site = text_of(recipient, "site");

    return *site != '\0' ? site : text_of(recipient, "domain");
}

/* Ask about each of the names, and about those that come up. The first refusal of a name that was
 * asked for is the answer; of a message's sites some may be forgotten again. */
static json_t *names_ask(json_t *(*ask)(const void *context, const char *verb, const char *id),
                         const void *context, json_t *names, json_t *answer)
{
    json_t *explained = json_object_get(answer, "explained");

    for (size_t i = 0; i < json_array_size(names) && i < EXPLAINED_MAX; i++) {
        json_t *one = ask(context, "explain", json_string_value(json_array_get(names, i)));
        if (one == NULL || (!is_ok(one) && json_object_get(answer, "recipients") == NULL)) {
            json_decref(answer);
            return one;
        }
        const json_t *goes_to = json_object_get(one, "goes_to");
        for (size_t j = 0; j < json_array_size(goes_to); j++)
            name_add(names, json_string_value(json_array_get(goes_to, j)));
        if (is_ok(one))
            json_array_append(explained, one);
        json_decref(one);
    }
    json_object_set_new(answer, "has_more", json_boolean(json_array_size(names) > EXPLAINED_MAX));
    return answer;
}

/* What the user has sent, of a message that is held for it. */
static void quota_ask(json_t *(*ask)(const void *context, const char *verb, const char *id),
                      const void *context, const json_t *rows, json_t *answer)
{
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        if (strcmp(text_of(row, "held_for"), "quota") != 0)
            continue;
        json_t *quota = ask(context, "user quota", text_of(row, "user"));
        if (quota != NULL && is_ok(quota))
            json_object_set(answer, "quota", json_object_get(quota, "rows"));
        json_decref(quota);
        return; /* one message, one user */
    }
}

json_t *cli_explain_gather(json_t *(*ask)(const void *context, const char *verb, const char *id),
                           const void *context, const char *operand)
{
    struct message_id id;

    if (*operand == '\0')
        return ask(context, "explain", operand); /* it says what is wrong */
    bool is_message = message_id_parse(span_from_text(operand), &id) == ERR_OK;
    json_t *shown = is_message ? ask(context, "queue show", operand) : NULL;
    json_t *names = json_array(), *rows = json_object_get(shown, "rows");
    json_t *answer = json_pack("{sb,s[]}", "ok", 1, "explained");

    if (is_message && (shown == NULL || !is_ok(shown))) {
        json_decref(names);
        json_decref(answer);
        return shown;
    }
    if (is_message)
        json_object_set(answer, "recipients", rows);
    if (is_message)
        quota_ask(ask, context, rows, answer);
    else
        name_add(names, operand);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        if (is_under_way(json_array_get(rows, i)))
            name_add(names, where_of(json_array_get(rows, i)));
    }
    answer = names_ask(ask, context, names, answer);
    json_decref(names);
    json_decref(shown);
    return answer;
}

/* ---- sites ---- */

static const char *left_format(const json_t *row, const char *name, char text[24])
{
    return cli_left_format(cli_number(row, NULL, name), text);
}

/* "rate 5/1m: 5 of 5, the next in 34s" */
static void limit_print(const json_t *site, const json_t *limit, FILE *out)
{
    const char *name = text_of(limit, "limit");
    char text[CLI_SHOWN_SIZE], time[24], used[24], max[24];
    bool bars = json_is_true(json_object_get(limit, "bars"));
    int64_t left = cli_number(limit, NULL, "next_us");

    fprintf(out, "%s", name);
    if (*cli_shown(limit, "rate", text) != '\0')
        fprintf(out, " %s", text);
    if (json_object_get(limit, "max") == NULL) {
        fprintf(out, " for %s more", left_format(limit, "next_us", time));
        if (strcmp(name, "site pauses") == 0 && cli_number(site, NULL, "failures") > 0)
            fprintf(out, " after %" PRId64 " failures", cli_number(site, NULL, "failures"));
        if (strncmp(name, "site ", 5) == 0)
            fprintf(out, " (angarium site resume %s ends it)", cli_shown(site, "site", text));
        if (strncmp(name, "source", 6) == 0 && *cli_shown(site, "source_reason", text) != '\0')
            fprintf(out, ": %s", text);
        return;
    }
    int64_t used_count = cli_number(limit, NULL, "used"), of = cli_number(limit, NULL, "max");
    if (strcmp(name, "memory for bodies") == 0)
        fprintf(out, ": %s of %s", cli_size_format((uint64_t)used_count, used),
                cli_size_format((uint64_t)of, max));
    else
        fprintf(out, ": %" PRId64 " of %" PRId64, used_count, of);
    if (strcmp(name, "connections allowed now") == 0)
        fprintf(out, " (%s, %s ago)", cli_shown(site, "allowed_reason", text),
                cli_age_format(cli_number(site, NULL, "allowed_for_us"), time));
    if (bars && left > 0)
        fprintf(out, ", the next in %s", left_format(limit, "next_us", time));
    else if (bars)
        fprintf(out, ", the next as mail ends");
}

static void limits_print(const json_t *site, FILE *out)
{
    const json_t *limits = json_object_get(site, "limits");
    bool is_free = true;

    for (size_t i = 0; i < json_array_size(limits); i++) {
        const json_t *limit = json_array_get(limits, i);
        if (!json_is_true(json_object_get(limit, "binds")))
            continue;
        fprintf(out, "  binds    ");
        limit_print(site, limit, out);
        fprintf(out, "\n");
        is_free = false;
    }
    if (is_free)
        fprintf(out, "  binds    nothing: mail goes as it comes\n");
    for (size_t i = 0; i < json_array_size(limits); i++) {
        const json_t *limit = json_array_get(limits, i);
        if (json_is_true(json_object_get(limit, "binds")))
            continue;
        fprintf(out, "  %-8s ", json_is_true(json_object_get(limit, "bars")) ? "also" : "limit");
        limit_print(site, limit, out);
        fprintf(out, "\n");
    }
}

static void hosts_print(const json_t *site, FILE *out)
{
    const json_t *dead = json_object_get(site, "dead");
    char text[CLI_SHOWN_SIZE], time[24];

    if (cli_number(site, NULL, "addresses_dead") == 0)
        return;
    fprintf(out, "  hosts    %" PRId64 " of %" PRId64 " addresses are tried last:",
            cli_number(site, NULL, "addresses_dead"), cli_number(site, NULL, "addresses"));
    for (size_t i = 0; i < json_array_size(dead); i++) {
        const json_t *host = json_array_get(dead, i);
        fprintf(out, "%s %s for %s more", i > 0 ? "," : "", cli_shown(host, "address", text),
                left_format(host, "left_us", time));
    }
    fprintf(out, "\n");
}

/* One family of the source rests, the other is used. */
static void family_print(const json_t *site, FILE *out)
{
    char text[CLI_SHOWN_SIZE], time[24];

    if (*cli_shown(site, "family_rests", text) == '\0')
        return;
    fprintf(out, "           %s of the source rests for %s more, the other family is used", text,
            left_format(site, "family_left_us", time));
    if (*cli_shown(site, "family_reason", text) != '\0')
        fprintf(out, ": %s", text);
    fprintf(out, "\n");
}

static void site_print(const json_t *site, FILE *out)
{
    const json_t *orders = json_object_get(site, "orders");
    char text[CLI_SHOWN_SIZE];

    fprintf(out, "site       %s", cli_shown(site, "site", text));
    if (*cli_shown(site, "source", text) != '\0')
        fprintf(out, " from %s", text);
    if (cli_number(site, NULL, "warmup_day") > 0)
        fprintf(out, ", warm-up day %" PRId64 " of %" PRId64 ": %" PRId64 " in 24 hours",
                cli_number(site, NULL, "warmup_day"), cli_number(site, NULL, "warmup_days"),
                cli_number(site, NULL, "warmup_limit"));
    fprintf(out, "\n");
    family_print(site, out);
    limits_print(site, out);
    for (size_t i = 0; i < json_array_size(orders); i++)
        cli_site_order_row_print(json_array_get(orders, i), out);
    hosts_print(site, out);
    fprintf(out, "  ahead    ");
    cli_site_ahead_print(json_object_get(site, "ahead"), out);
    fprintf(out, "\n");
}

/* ---- mail and cores ---- */

static void mail_print(const json_t *mail, FILE *out)
{
    char text[CLI_SHOWN_SIZE], time[24];

    if (json_array_size(mail) == 0)
        fprintf(out, "mail       none waits there\n");
    for (size_t i = 0; i < json_array_size(mail); i++) {
        const json_t *row = json_array_get(mail, i);
        fprintf(out,
                "mail       class %s: %" PRId64 " ready, %" PRId64 " active, %" PRId64
                " held, %" PRId64 " waiting",
                cli_shown(row, "class_name", text), cli_number(row, NULL, "ready"),
                cli_number(row, NULL, "active"), cli_number(row, NULL, "held"),
                cli_number(row, NULL, "waiting"));
        if (json_object_get(row, "next_us") != NULL)
            fprintf(out, ", the first in %s", left_format(row, "next_us", time));
        if (cli_number(row, NULL, "unseen") > 0)
            fprintf(out, ", %" PRId64 " more held or waiting", cli_number(row, NULL, "unseen"));
        if (cli_number(row, NULL, "least") > 0)
            fprintf(out, "; at least %" PRId64 " of 100 turns", cli_number(row, NULL, "least"));
        fprintf(out, "\n");
    }
}

static void cores_print(const json_t *cores, FILE *out)
{
    char memory[24], memory_max[24];

    for (size_t i = 0; i < json_array_size(cores); i++) {
        const json_t *row = json_array_get(cores, i);
        fprintf(out,
                "core %-5" PRId64 " outbound %" PRId64 " of %" PRId64 ", at sites that have not "
                "answered %" PRId64 " of %" PRId64 "; bodies %s of %s; flows %" PRId64 "\n",
                cli_number(row, NULL, "core"), cli_number(row, NULL, "connections"),
                cli_number(row, NULL, "connections_max"), cli_number(row, NULL, "strangers"),
                cli_number(row, NULL, "strangers_max"),
                cli_size_format((uint64_t)cli_number(row, NULL, "read_memory"), memory),
                cli_size_format((uint64_t)cli_number(row, NULL, "read_memory_max"), memory_max),
                cli_number(row, NULL, "flows"));
    }
}

/* What could not be found, since when, and when it is looked for again. That is not kept over a
 * restart, but asked for again. */
static void dns_print(const json_t *one, FILE *out)
{
    const json_t *dns = json_object_get(one, "dns");
    char text[CLI_SHOWN_SIZE], name[CLI_SHOWN_SIZE], time[24];

    if (json_is_false(json_object_get(one, "is_looked_up")))
        fprintf(out, "  dns      not asked yet for the mail that waits: what was known before a "
                     "restart is forgotten\n");
    if (dns == NULL)
        return;
    fprintf(out, "  dns      has failed for %s: %s; ",
            cli_age_format(cli_number(dns, NULL, "since_us"), time), cli_shown(dns, "text", text));
    if (json_object_get(dns, "next_us") == NULL)
        fprintf(out, "it is asked again when held mail is released");
    else if (cli_number(dns, NULL, "next_us") == 0)
        fprintf(out, "it is asked again now");
    else
        fprintf(out, "it is asked again in %s", left_format(dns, "next_us", time));
    fprintf(out, " (angarium dns lookup %s asks at once)\n", cli_shown(one, "name", name));
}

static void explained_print(const json_t *one, FILE *out)
{
    const json_t *sites = json_object_get(one, "sites"), *to = json_object_get(one, "goes_to");
    char text[CLI_SHOWN_SIZE];

    for (size_t i = 0; i < json_array_size(sites); i++)
        site_print(json_array_get(sites, i), out);
    bool is_odd = json_array_size(to) == 0 && json_object_get(one, "dns") == NULL &&
                  !json_is_false(json_object_get(one, "is_looked_up"));
    if (json_array_size(sites) == 0)
        fprintf(out, "domain     %s%s\n", cli_shown(one, "name", text),
                is_odd ? ": its site is forgotten" : "");
    dns_print(one, out);
    mail_print(json_object_get(one, "mail"), out);
}

/* ---- a message ---- */

static const json_t *explained_find(const json_t *explained, const char *name)
{
    for (size_t i = 0; i < json_array_size(explained); i++) {
        if (strcasecmp(text_of(json_array_get(explained, i), "name"), name) == 0)
            return json_array_get(explained, i);
    }
    return NULL;
}

/* Of what is due at its site. */
static void place_print(const json_t *row, const json_t *one, FILE *out)
{
    const json_t *mail = json_object_get(one, "mail");
    int64_t class = cli_number(row, NULL, "class"), before = 0, beside = 0;

    for (size_t i = 0; i < json_array_size(mail); i++) {
        const json_t *group = json_array_get(mail, i);
        if (cli_number(group, NULL, "class") < class)
            before += cli_number(group, NULL, "ready");
        else if (cli_number(group, NULL, "class") == class)
            beside += cli_number(group, NULL, "ready");
    }
    fprintf(out,
            "           due: %" PRId64 " of earlier classes go first; of its own, %" PRId64
            " are due, and sender domains take turns\n",
            before, beside);
}

static void reason_print(const json_t *row, const json_t *one, wall_us now, FILE *out)
{
    const char *state = text_of(row, "state");
    int64_t next = cli_number(row, NULL, "next_try_us");
    int64_t attempts = cli_number(row, NULL, "attempts");
    char age[24], least[24], most[24], user[CLI_SHOWN_SIZE];

    if (strcmp(text_of(row, "held_for"), "quota") == 0)
        fprintf(out,
                "           held by order %" PRId64 " (quota: the user %s had sent enough) "
                "until it is released\n",
                cli_number(row, NULL, "order"), cli_shown(row, "user", user));
    else if (strcmp(state, "held") == 0 && next == INT64_MAX)
        fprintf(out, "           held by order %" PRId64 " until it is released\n",
                cli_number(row, NULL, "order"));
    else if (strcmp(state, "held") == 0)
        fprintf(out, "           held by order %" PRId64 " for %s more\n",
                cli_number(row, NULL, "order"), cli_age_format(next - now, age));
    else if (strcmp(state, "active") == 0)
        fprintf(out, "           its turn has come: it is taken for an attempt\n");
    else if (strcmp(state, "ready") == 0)
        place_print(row, one, out);
    else if (attempts > 0)
        fprintf(out,
                "           next try in %s: deferred %" PRId64
                " times, pauses grow from %s to %s\n",
                cli_age_format(next - now, age), attempts,
                cli_age_format(cli_number(one, NULL, "retry_min_us"), least),
                cli_age_format(cli_number(one, NULL, "retry_max_us"), most));
    else
        fprintf(out, "           next try in %s: nothing was tried yet\n",
                cli_age_format(next - now, age));
}

/* A domain that is not ASCII is another text in the queue. */
static bool is_rerouted(const char *address, const char *domain)
{
    const char *at = strrchr(address, '@');

    for (const char *octet = at; octet != NULL && *octet != '\0'; octet++) {
        if ((uint8_t)*octet >= 0x80)
            return false;
    }
    return at != NULL && strcasecmp(at + 1, domain) != 0;
}

static void recipient_print(const json_t *row, const json_t *explained, wall_us now, FILE *out)
{
    char text[CLI_SHOWN_SIZE];
    const char *address = text_of(row, "recipient");

    fprintf(out, "recipient  <%s>", cli_shown(row, "recipient", text));
    fprintf(out, ", %s, attempts %" PRId64 "\n", text_of(row, "state"),
            cli_number(row, NULL, "attempts"));
    if (is_under_way(row))
        reason_print(row, explained_find(explained, where_of(row)), now, out);
    if (is_rerouted(address, text_of(row, "domain")))
        fprintf(out, "           goes by the route of %s\n", cli_shown(row, "domain", text));
    if (strcmp(address, "(unreadable)") == 0)
        fprintf(out, "           its addresses cannot be read: see the log\n");
    if (*cli_shown(row, "last_reply", text) != '\0')
        fprintf(out, "           last reply: %s\n", text);
}

/* Its way into the queue; mail of earlier runs has none that is known. */
static void way_print(const char *reason, FILE *out)
{
    if (strcmp(reason, way_name(WAY_READY)) == 0)
        fprintf(out, "           not stored: its client waits for the next hop's reply\n");
    else if (strcmp(reason, way_name(WAY_STREAM)) == 0)
        fprintf(out, "           not stored: it goes on while it comes\n");
    else if (*reason != '\0')
        fprintf(out, "           stored: %s (docs/cut-through.md)\n", reason);
}

/* What binds the user: a held message moves when it is released, the next ones by these. */
static void quota_print(const json_t *quota, FILE *out)
{
    char rate[CLI_SHOWN_SIZE], left[24];
    bool has_room = true;

    for (size_t i = 0; i < json_array_size(quota); i++) {
        const json_t *row = json_array_get(quota, i);
        bool bars = json_is_true(json_object_get(row, "bars"));
        fprintf(out, "quota      %s %s: %" PRId64 " of %" PRId64, text_of(row, "limit"),
                cli_shown(row, "rate", rate), cli_number(row, NULL, "used"),
                cli_number(row, NULL, "max"));
        if (bars)
            fprintf(out, ", the next in %s",
                    cli_age_format(cli_number(row, NULL, "next_us"), left));
        fprintf(out, "%s\n", bars ? ": binds" : "");
        has_room = has_room && (!bars || strcmp(text_of(row, "limit"), "held") == 0);
    }
    if (has_room)
        fprintf(out, "quota      the user may send again: what comes now is not held\n");
}

static void message_print(const json_t *rows, const json_t *explained, wall_us now, FILE *out)
{
    const json_t *first = json_array_get(rows, 0);
    int64_t expires = cli_number(first, NULL, "expires_us");
    char text[CLI_SHOWN_SIZE], age[24];

    fprintf(out, "message    %s", cli_shown(first, "id", text));
    fprintf(out, " from <%s>", cli_shown(first, "sender", text));
    fprintf(out, ", class %s, ", cli_shown(first, "class_name", text));
    fprintf(out, "arrived %s ago",
            cli_age_format(now - cli_number(first, NULL, "arrived_us"), age));
    if (expires > 0)
        fprintf(out, ", expires in %s", cli_left_format(expires - now, age));
    fprintf(out, "\n");
    way_print(text_of(first, "way_reason"), out);
    for (size_t i = 0; i < json_array_size(rows); i++)
        recipient_print(json_array_get(rows, i), explained, now, out);
}

void cli_explain_print(const json_t *answer, wall_us now, FILE *out)
{
    const json_t *rows = json_object_get(answer, "recipients");
    const json_t *explained = json_object_get(answer, "explained");

    if (json_array_size(rows) > 0)
        message_print(rows, explained, now, out);
    if (json_object_get(answer, "quota") != NULL)
        quota_print(json_object_get(answer, "quota"), out);
    for (size_t i = 0; i < json_array_size(explained); i++)
        explained_print(json_array_get(explained, i), out);
    if (json_array_size(explained) > 0)
        cores_print(json_object_get(json_array_get(explained, 0), "cores"), out);
    if (json_is_true(json_object_get(answer, "has_more")))
        fprintf(out, "... and more sites: ask for them by name\n");
}

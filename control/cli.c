/* SPDX-License-Identifier: Apache-2.0 */
/*
 * angarium: the command line. It asks the relay over its control socket, or checks a configuration
 * by itself, and prints text for people, or with --json what the relay said.
 *
 * Verbs are rows of one table. Exit status: 0 done, 1 refused or failed, 2 wrong usage.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/ask.h"
#include "control/cli_cat.h"
#include "control/cli_print.h"
#include "control/cli_spool.h"
#include "control/cli_top.h"
#include "control/cli_user.h"
#include "control/config.h"
#include "control/config_show.h"
#include "control/metrics.h"

#define WORD_MAX 32u
#define LIST_WHOLE_MAX                                                                             \
    10000 /* rows of a list that is sorted; longer ones come as they are found                     \
           */
#define SOCKET_VARIABLE "ANGARIUM_SOCKET"
#define SOCKET_DEFAULT  "/run/angarium/control.sock"

enum status { STATUS_OK = 0, STATUS_FAILED = 1, STATUS_USAGE = 2 };

struct cli {
    const char *socket_path;
    bool is_json, is_reference, is_dry_run, is_keep, is_host;
    const char *limit; /* NULL: not given, as the next three */
    const char *file, *count, *seconds, *by, *reason, *duration, *to;
    const char *part;               /* of a message; NULL: all of it */
    const char *operands[WORD_MAX]; /* behind the verb */
    uint32_t operand_count;
};

struct verb {
    const char *name; /* one or two words */
    uint32_t operand_min, operand_max;
    const char *operands, *help;
    enum status (*run)(const struct cli *cli, const struct verb *verb);
    void (*print)(const json_t *answer, wall_us now, FILE *out); /* of an answer of the relay */
};

/* ---- asking the relay ---- */

/* NULL: told why. */
static json_t *relay_ask(const struct cli *cli, const json_t *request)
{
    int fd = ask_connect(cli->socket_path);

    if (fd < 0) {
        fprintf(stderr, "angarium: no relay at %s: %s\n", cli->socket_path, strerror(errno));
        return NULL;
    }
    json_t *answer = ask_send(fd, request) ? ask_receive(fd) : NULL;
    if (answer == NULL)
        fprintf(stderr, "angarium: no answer from %s: %s\n", cli->socket_path, strerror(errno));
    close(fd);
    return answer;
}

/* The relay stands elsewhere: it gets the whole path. */
static json_t *path_absolute(const char *path)
{
    char folder[4096];

    if (path[0] == '/' || getcwd(folder, sizeof(folder)) == NULL)
        return json_string(path);
    return json_sprintf("%s/%s", folder, path);
}

static json_t *request_new(const struct cli *cli, const struct verb *verb)
{
    json_t *request = json_object();

    json_object_set_new(request, "verb", json_string(verb->name));
    if (cli->limit != NULL)
        json_object_set_new(request, "limit", json_integer(atoll(cli->limit)));
    if (cli->file != NULL)
        json_object_set_new(request, "file", path_absolute(cli->file));
    if (cli->count != NULL)
        json_object_set_new(request, "count", json_integer(atoll(cli->count)));
    if (cli->seconds != NULL)
        json_object_set_new(request, "seconds", json_integer(atoll(cli->seconds)));
    if (cli->by != NULL)
        json_object_set_new(request, "by", json_string(cli->by));
    if (cli->is_host)
        json_object_set_new(request, "host", json_true());
    return request;
}

/* Print an answer that is one object. Consumes it. */
static enum status answer_print(const struct cli *cli, const struct verb *verb, json_t *answer)
{
    const struct tick_source *clock = tick_source_system();
    bool is_ok = json_is_true(json_object_get(answer, "ok"));

    if (cli->is_json) {
        json_dumpf(answer, stdout, JSON_INDENT(2));
        printf("\n");
    } else if (is_ok) {
        verb->print(answer, clock->wall(clock->context), stdout);
    } else {
        const char *error = json_string_value(json_object_get(answer, "error"));
        fprintf(stderr, "angarium: %s\n", error == NULL ? "failed" : error);
    }
    json_decref(answer);
    return is_ok ? STATUS_OK : STATUS_FAILED;
}

static enum status request_run(const struct cli *cli, const struct verb *verb, json_t *request)
{
    json_t *answer = relay_ask(cli, request);

    json_decref(request);
    return answer == NULL ? STATUS_FAILED : answer_print(cli, verb, answer);
}

static enum status relay_verb(const struct cli *cli, const struct verb *verb)
{
    json_t *request = request_new(cli, verb);

    if (cli->operand_count > 0)
        json_object_set_new(request, "id", json_string(cli->operands[0]));
    return request_run(cli, verb, request);
}

/* ---- lists ---- */

/* The operands are the terms of a filter: `domain=example.org older=2h`. */
static json_t *filter_join(const struct cli *cli)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    for (uint32_t i = 0; out != NULL && i < cli->operand_count; i++)
        fprintf(out, "%s%s", i > 0 ? " " : "", cli->operands[i]);
    if (out != NULL)
        fclose(out);
    json_t *json = json_string(text == NULL ? "" : text);
    free(text);
    return json;
}

/* Rows as they are found, a line each; the last line is the answer. */
static enum status stream_print(const struct cli *cli, FILE *in)
{
    const struct tick_source *clock = tick_source_system();
    enum status status = STATUS_FAILED;
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;

    if (!cli->is_json)
        cli_queue_header_print(stdout);
    while ((size = getline(&line, &capacity, in)) > 0) {
        json_t *answer = json_loadb(line, (size_t)size, 0, NULL);
        const json_t *row = json_object_get(answer, "row");
        if (row != NULL && cli->is_json)
            json_dumpf(row, stdout, JSON_COMPACT);
        else if (row != NULL)
            cli_queue_row_print(row, clock->wall(clock->context), stdout);
        if (row != NULL && cli->is_json)
            printf("\n");
        if (json_is_true(json_object_get(answer, "ok")))
            status = STATUS_OK;
        if (json_is_false(json_object_get(answer, "ok")))
            fprintf(stderr, "angarium: %s\n", json_string_value(json_object_get(answer, "error")));
        json_decref(answer);
    }
    free(line);
    return status;
}

/* An answer of many lines, which `print` reads. Consumes the request. */
static enum status stream_run(const struct cli *cli, json_t *request,
                              enum status (*print)(const struct cli *cli, FILE *in))
{
    int fd = ask_connect(cli->socket_path);
    FILE *in = fd < 0 ? NULL : fdopen(fd, "r");
    enum status status = STATUS_FAILED;

    if (in == NULL || !ask_send(fd, request)) {
        fprintf(stderr, "angarium: no relay at %s: %s\n", cli->socket_path, strerror(errno));
    } else {
        status = print(cli, in);
    }
    json_decref(request);
    if (in != NULL)
        fclose(in);
    else if (fd >= 0)
        close(fd);
    return status;
}

static enum status list_verb(const struct cli *cli, const struct verb *verb)
{
    json_t *request = request_new(cli, verb);
    long long limit = cli->limit == NULL ? 1 : atoll(cli->limit);

    json_object_set_new(request, "filter", filter_join(cli));
    if (limit > 0 && limit <= LIST_WHOLE_MAX)
        return request_run(cli, verb, request);
    json_object_set_new(request, "stream", json_true());
    return stream_run(cli, request, stream_print);
}

static enum status cat_print(const struct cli *cli, FILE *in)
{
    const struct tick_source *clock = tick_source_system();

    return cli_cat_print(in, cli->is_json, clock->wall(clock->context), stdout) ? STATUS_OK
                                                                                : STATUS_FAILED;
}

static enum status cat_verb(const struct cli *cli, const struct verb *verb)
{
    json_t *request = request_new(cli, verb);

    json_object_set_new(request, "id", json_string(cli->operands[0]));
    if (cli->part != NULL)
        json_object_set_new(request, "part", json_string(cli->part));
    return stream_run(cli, request, cat_print);
}

/* An order: the operands say which mail, or `all`. It runs until it is done, or we leave. */
static enum status order_verb(const struct cli *cli, const struct verb *verb)
{
    json_t *request = request_new(cli, verb);
    bool is_all = cli->operand_count == 1 && strcmp(cli->operands[0], "all") == 0;

    if (is_all)
        json_object_set_new(request, "all", json_true());
    else
        json_object_set_new(request, "filter", filter_join(cli));
    if (cli->reason != NULL)
        json_object_set_new(request, "reason", json_string(cli->reason));
    if (cli->duration != NULL)
        json_object_set_new(request, "duration", json_string(cli->duration));
    if (cli->to != NULL)
        json_object_set_new(request, "to", json_string(cli->to));
    json_object_set_new(request, "dry_run", json_boolean(cli->is_dry_run));
    return request_run(cli, verb, request);
}

/* What ends an order of any kind, by its number. */
static enum status cancel_verb(const struct cli *cli, const struct verb *verb)
{
    json_t *request = request_new(cli, verb);

    json_object_set_new(request, "id", json_string(cli->operands[0]));
    json_object_set_new(request, "keep", json_boolean(cli->is_keep));
    json_object_set_new(request, "dry_run", json_boolean(cli->is_dry_run));
    return request_run(cli, verb, request);
}

/* The first operand is a site, or an order's number; what is behind it are settings. */
static enum status site_verb(const struct cli *cli, const struct verb *verb)
{
    json_t *request = request_new(cli, verb);
    char settings[256];
    size_t size = 0;

    for (uint32_t i = 1; i < cli->operand_count && size < sizeof(settings); i++)
        size += (size_t)snprintf(settings + size, sizeof(settings) - size, "%s%s", i > 1 ? " " : "",
                                 cli->operands[i]);
    json_object_set_new(request, "id", json_string(cli->operands[0]));
    if (cli->operand_count > 1)
        json_object_set_new(request, "settings",
                            json_string(size < sizeof(settings) ? settings : "too long"));
    if (cli->reason != NULL)
        json_object_set_new(request, "reason", json_string(cli->reason));
    if (cli->duration != NULL)
        json_object_set_new(request, "duration", json_string(cli->duration));
    json_object_set_new(request, "dry_run", json_boolean(cli->is_dry_run));
    return request_run(cli, verb, request);
}

static json_t *explain_ask(const void *context, const char *verb, const char *id)
{
    json_t *request = json_pack("{ss,ss}", "verb", verb, "id", id);
    json_t *answer = relay_ask(context, request);

    json_decref(request);
    return answer;
}

static enum status explain_verb(const struct cli *cli, const struct verb *verb)
{
    json_t *answer = cli_explain_gather(explain_ask, cli, cli->operands[0]);

    return answer == NULL ? STATUS_FAILED : answer_print(cli, verb, answer);
}

static void status_print(const json_t *answer, wall_us now, FILE *out)
{
    (void)now;
    cli_status_print(answer, out);
}

static void text_print(const json_t *answer, wall_us now, FILE *out)
{
    const char *text = json_string_value(json_object_get(answer, "text"));

    (void)now;
    fprintf(out, "%s\n", text == NULL ? "" : text);
}

static enum status top_verb(const struct cli *cli, const struct verb *verb)
{
    (void)verb;
    return cli_top_run(cli->socket_path) ? STATUS_OK : STATUS_FAILED;
}

/* ---- what needs no relay ---- */

static enum status check_verb(const struct cli *cli, const struct verb *verb)
{
    const char *path = cli->operand_count > 0 ? cli->operands[0] : CONFIG_DEFAULT_PATH;
    struct config_report report;
    struct config *config = NULL;

    (void)verb;
    if (cli->is_reference) {
        option_write_reference(stdout);
        return STATUS_OK;
    }
    config_report_init(&report, path);
    if (config_load(path, &config, &report) != ERR_OK) {
        fputs(report.text, stderr);
        if (report.count > CONFIG_COMPLAINT_MAX)
            fprintf(stderr, "... and %u more\n", report.count - CONFIG_COMPLAINT_MAX);
        return STATUS_FAILED;
    }
    config_free(config);
    printf("%s: ok\n", path);
    return STATUS_OK;
}

static enum status user_hash_verb(const struct cli *cli, const struct verb *verb)
{
    (void)cli, (void)verb;
    return cli_user_hash(stdin, stdout) ? STATUS_OK : STATUS_FAILED;
}

static enum status config_verb(const struct cli *cli, const struct verb *verb)
{
    const char *path = cli->operand_count > 0 ? cli->operands[0] : CONFIG_DEFAULT_PATH;

    (void)verb;
    return config_show(path, cli->is_json, stdout, stderr) ? STATUS_OK : STATUS_FAILED;
}

/* docs/counters.md is this text; a test compares. */
static void counters_reference_write(FILE *out)
{
    struct dataplane_counter *rows = calloc(DATAPLANE_COUNTERS_MAX, sizeof(*rows));
    uint32_t count = rows == NULL ? 0 : dataplane_counters_known(rows, DATAPLANE_COUNTERS_MAX);

    fprintf(out, "# Counters of the network\n\n"
                 "<!-- Written by `angarium counters --reference`. -->\n\n"
                 "With `dataplane: {driver: dpdk}`, `angarium counters` shows these for each core: "
                 "first the engine's, then those\nof each port's queue and of the port. INFO is "
                 "traffic, NOTE is normal on the Internet, WARN is worth a look.\n\n"
                 "| name | severity | counts | means |\n|---|---|---|---|\n");
    for (uint32_t i = 0; i < count; i++)
        fprintf(out, "| `%s` | %s | %s | %s |\n", rows[i].name, rows[i].severity, rows[i].text,
                rows[i].meaning);
    free(rows);
}

static enum status counters_verb(const struct cli *cli, const struct verb *verb)
{
    if (!cli->is_reference)
        return relay_verb(cli, verb);
    counters_reference_write(stdout);
    return STATUS_OK;
}

static enum status metrics_verb(const struct cli *cli, const struct verb *verb)
{
    (void)verb;
    if (!cli->is_reference)
        return STATUS_USAGE;
    metrics_write_reference(stdout);
    return STATUS_OK;
}

static enum status spool_verb(const struct cli *cli, const struct verb *verb)
{
    return cli_spool_run(verb->name, cli->operands, cli->operand_count, cli->is_json)
               ? STATUS_OK
               : STATUS_FAILED;
}

static enum status version_verb(const struct cli *cli, const struct verb *verb)
{
    (void)cli;
    (void)verb;
    printf("angarium %s\n", ANGARIUM_VERSION);
    return STATUS_OK;
}

static enum status help_verb(const struct cli *cli, const struct verb *verb);

static const struct verb verbs[] = {
    {"status", 0, 0, "", "what the relay does and has done", relay_verb, status_print},
    {"top", 0, 0, "", "the same, live, down to messages and why they wait", top_verb, NULL},
    {"queue summary", 0, 0, "[--by WHAT]",
     "how much waits how long, by site, domain, source, class, sender_domain", relay_verb,
     cli_queue_summary_print},
    {"queue list", 0, WORD_MAX, "[TERM=VALUE...] [--limit N]",
     "mail that waits: id domain site source class state older younger sender sender_domain "
     "recipient user",
     list_verb, cli_queue_list_print},
    {"queue orders", 0, 0, "",
     "orders that stand: for mail that comes until they end, and for sites", relay_verb,
     cli_orders_print},
    {"queue cancel", 1, 1, "ORDER [--keep] [--dry-run]",
     "that order, of mail or of a site, ends now; what it held is released, but with --keep",
     cancel_verb, cli_order_print},
    {"hold", 1, WORD_MAX, "TERM=VALUE...|all [--reason TEXT] [--duration TIME] [--dry-run]",
     "no attempts until released; with a duration until it is over, and for mail that comes till "
     "then: hold domain=example.org --duration 2h",
     order_verb, cli_order_print},
    {"release", 1, WORD_MAX, "TERM=VALUE...|all [--dry-run]",
     "what is held may go; order=N: what that order holds", order_verb, cli_order_print},
    {"retry", 1, WORD_MAX, "TERM=VALUE...|all [--dry-run]", "what waits is tried now", order_verb,
     cli_order_print},
    {"bounce", 1, WORD_MAX, "TERM=VALUE...|all --reason TEXT [--duration TIME] [--dry-run]",
     "back to the sender, with the reason; with a duration also what comes till then", order_verb,
     cli_order_print},
    {"delete", 1, WORD_MAX, "TERM=VALUE...|all --reason TEXT [--duration TIME] [--dry-run]",
     "gone, and nobody is told; with a duration also what comes till then: delete "
     "sender_domain=spam.example --duration 1d --reason spam",
     order_verb, cli_order_print},
    {"reroute", 1, WORD_MAX,
     "TERM=VALUE...|all --to DOMAIN --reason TEXT [--duration TIME] [--dry-run]",
     "goes by the route and mail exchangers of another domain; with a duration also what comes "
     "till then",
     order_verb, cli_order_print},
    {"queue show", 1, 1, "ID", "one message and its recipients", relay_verb, cli_queue_show_print},
    {"queue cat", 1, 1, "ID [--envelope | --header | --message]",
     "one message as it is stored: its envelope, an empty line, its octets; or one of these",
     cat_verb, NULL},
    {"explain", 1, 1, "ID|SITE|DOMAIN",
     "why mail goes, or does not: every limit in force, and which one binds now", explain_verb,
     cli_explain_print},
    {"route", 1, 1, "ADDRESS|DOMAIN", "where mail for it would go now, and why", relay_verb,
     cli_probe_print},
    {"dns lookup", 1, 1, "NAME [--host]",
     "the mail exchangers of a domain as the relay resolves them, or the addresses of a host",
     relay_verb, cli_probe_print},
    {"site show", 0, 1, "[NAME] [--limit N]",
     "sites: limits, what is used of them, which rate binds", relay_verb, cli_site_show_print},
    {"site suspend", 1, 1, "NAME --duration TIME --reason TEXT [--dry-run]",
     "nothing goes there for that time; prints the number of the order", site_verb,
     cli_site_order_print},
    {"site set", 2, 3, "NAME connections=N rate=N/TIME --duration TIME --reason TEXT [--dry-run]",
     "tighter limits for that time", site_verb, cli_site_order_print},
    {"site resume", 1, 1, "NAME|ORDER [--dry-run]",
     "what suspends the site, or that order, ends now", site_verb, cli_site_order_print},
    {"source show", 0, 1, "[NAME]", "addresses that mail leaves from, and whether they may be used",
     relay_verb, cli_source_print},
    {"source suspend", 1, 1, "NAME --duration TIME --reason TEXT [--dry-run]",
     "nothing leaves from there for that time", site_verb, cli_source_print},
    {"source resume", 1, 1, "NAME [--dry-run]", "what suspends it, or makes it rest, ends now",
     site_verb, cli_source_print},
    {"site patterns", 0, 0, "", "how often each reply pattern has matched since the last reload",
     relay_verb, cli_site_patterns_print},
    {"flows", 0, 0, "[--limit N]", "connections of the TCP engine", relay_verb, cli_flows_print},
    {"counters", 0, 0, "[--limit N] | --reference", "what engine and ports counted; all there are",
     counters_verb, cli_counters_print},
    {"metrics", 0, 0, "--reference", "what /metrics tells, as a page", metrics_verb, NULL},
    {"capture stop", 0, 0, "", "end the capture", relay_verb, text_print},
    {"capture", 0, 1, "[FILTER] --file PATH [--count N] [--seconds N]",
     "frames of the engine as pcap, in the language of tcpdump", relay_verb, text_print},
    {"reload", 0, 0, "", "read the configuration again", relay_verb, text_print},
    {"check", 0, 1, "[FILE] | --reference", "check a configuration; print all options", check_verb,
     NULL},
    {"config show", 0, 1, "[FILE]", "every option, its value, and where that comes from",
     config_verb, NULL},
    {"spool check", 1, 1, "DIR", "read every record of a spool that is not in use", spool_verb,
     NULL},
    {"spool stats", 1, 1, "DIR", "segments, records and space of it", spool_verb, NULL},
    {"spool dump", 1, 2, "DIR [ID]", "its records, or those of one message", spool_verb, NULL},
    {"spool adopt", 2, 2, "FROM TO", "move a dead host's segments into a relay's spool", spool_verb,
     NULL},
    {"user hash", 0, 0, "", "the hash of a password, read from standard input, for a users file",
     user_hash_verb, NULL},
    {"version", 0, 0, "", "print the version", version_verb, NULL},
    {"help", 0, 0, "[--reference]", "this list; tab-separated for programs", help_verb, NULL},
};

/* ---- arguments ---- */

static void usage_write(FILE *out)
{
    fprintf(out, "usage: angarium [-s SOCKET] VERB [--json]\n\n");
    for (uint32_t i = 0; i < COUNT_OF(verbs); i++)
        fprintf(out, "  %-10s %-20s %s\n", verbs[i].name, verbs[i].operands, verbs[i].help);
    fprintf(out, "\nThe socket is -s, or $" SOCKET_VARIABLE ", or " SOCKET_DEFAULT ".\n");
}

static enum status usage(void)
{
    usage_write(stderr);
    return STATUS_USAGE;
}

/* The manual page and the shell's completion are made from the reference. */
static enum status help_verb(const struct cli *cli, const struct verb *verb)
{
    (void)verb;
    if (!cli->is_reference) {
        usage_write(stdout);
        return STATUS_OK;
    }
    for (uint32_t i = 0; i < COUNT_OF(verbs); i++)
        printf("%s\t%s\t%s\n", verbs[i].name, verbs[i].operands, verbs[i].help);
    return STATUS_OK;
}

/* An option with its value, if there is one at `*index`, which then stands on the value. */
static bool option_take(char **arguments, int count, int *index, const char *name,
                        const char **ret_value)
{
    if (strcmp(arguments[*index], name) != 0 || *index + 1 >= count)
        return false;
    *ret_value = arguments[++*index];
    return true;
}

/* `--header` and its like: which part of a message is meant. At most one of them. */
static bool part_take(struct cli *cli, const char *argument)
{
    static const char *const parts[] = {"--envelope", "--header", "--message"};

    for (uint32_t i = 0; i < COUNT_OF(parts) && cli->part == NULL; i++) {
        if (strcmp(argument, parts[i]) == 0)
            cli->part = parts[i] + 2;
    }
    return cli->part != NULL && strcmp(argument + 2, cli->part) == 0;
}

/* Not given, or digits that are a number. */
static bool is_number(const char *text)
{
    const size_t digits_max = 18;

    return text == NULL || (*text != '\0' && strlen(text) <= digits_max &&
                            text[strspn(text, "0123456789")] == '\0');
}

/* False: wrong usage. Words that are no options are the verb and its operands. */
static bool arguments_read(struct cli *cli, int count, char **arguments,
                           const char *words[WORD_MAX], uint32_t *word_count)
{
    for (int i = 1; i < count; i++) {
        if (strcmp(arguments[i], "--json") == 0)
            cli->is_json = true;
        else if (strcmp(arguments[i], "--reference") == 0)
            cli->is_reference = true;
        else if (strcmp(arguments[i], "--dry-run") == 0)
            cli->is_dry_run = true;
        else if (strcmp(arguments[i], "--host") == 0)
            cli->is_host = true;
        else if (strcmp(arguments[i], "--keep") == 0)
            cli->is_keep = true;
        else if (option_take(arguments, count, &i, "-s", &cli->socket_path) ||
                 option_take(arguments, count, &i, "--limit", &cli->limit) ||
                 option_take(arguments, count, &i, "--file", &cli->file) ||
                 option_take(arguments, count, &i, "--count", &cli->count) ||
                 option_take(arguments, count, &i, "--seconds", &cli->seconds) ||
                 option_take(arguments, count, &i, "--by", &cli->by) ||
                 option_take(arguments, count, &i, "--reason", &cli->reason) ||
                 option_take(arguments, count, &i, "--duration", &cli->duration) ||
                 option_take(arguments, count, &i, "--to", &cli->to))
            continue;
        else if (arguments[i][0] == '-' && arguments[i][1] == '-' && part_take(cli, arguments[i]))
            continue;
        else if (arguments[i][0] != '-' && *word_count < WORD_MAX)
            words[(*word_count)++] = arguments[i];
        else
            return false;
    }
    return is_number(cli->limit) && is_number(cli->count) && is_number(cli->seconds);
}

/* How many of the words name this verb; 0: it is another one. */
static uint32_t verb_match(const struct verb *verb, const char *const words[WORD_MAX],
                           uint32_t count)
{
    char two[64] = "";

    if (count >= 1 && strcmp(verb->name, words[0]) == 0)
        return 1;
    if (count >= 2 && verb->run == order_verb && strcmp(words[0], "queue") == 0 &&
        strcmp(verb->name, words[1]) == 0)
        return 2; /* `queue hold` is `hold` */
    if (count >= 2)
        snprintf(two, sizeof(two), "%s %s", words[0], words[1]);
    return count >= 2 && strcmp(verb->name, two) == 0 ? 2 : 0;
}

int main(int count, char **arguments)
{
    const char *from_environment = getenv(SOCKET_VARIABLE);
    struct cli cli = {.socket_path = from_environment == NULL ? SOCKET_DEFAULT : from_environment};
    const char *words[WORD_MAX] = {NULL};
    uint32_t word_count = 0;

    if (!arguments_read(&cli, count, arguments, words, &word_count))
        return usage();
    for (uint32_t i = 0; i < COUNT_OF(verbs); i++) {
        uint32_t used = verb_match(&verbs[i], words, word_count);
        uint32_t operands = word_count - used;
        if (used == 0)
            continue;
        if (operands < verbs[i].operand_min || operands > verbs[i].operand_max)
            return usage();
        for (uint32_t j = 0; j < operands; j++)
            cli.operands[cli.operand_count++] = words[used + j];
        return verbs[i].run(&cli, &verbs[i]);
    }
    return usage();
}

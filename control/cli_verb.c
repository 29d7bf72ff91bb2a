/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the verbs of the command line do: a request is made of the arguments, the relay is asked
 * over its control socket, and the answer printed for people, or with --json as it came. Long lists
 * and messages come as a stream. Some verbs need no relay.
 */
#include "control/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "control/ask.h"
#include "control/cli_cat.h"
#include "control/cli_print.h"
#include "control/cli_spool.h"
#include "control/cli_top.h"
#include "control/cli_trace.h"
#include "control/cli_user.h"
#include "control/config.h"
#include "control/config_show.h"
#include "control/metrics.h"
#include "control/postfix_import.h"
#include "control/spool_room.h"

/* Rows of a list that is sorted; longer ones come as they are found. */
#define LIST_WHOLE_MAX 10000
#define AGAIN_MAX      40u
#define AGAIN_PAUSE_NS 50000000

/* ---- asking the relay ---- */

static json_t *ask_once(const struct cli *cli, const json_t *request)
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

json_t *cli_ask(const struct cli *cli, const json_t *request)
{
    const struct timespec pause = {.tv_nsec = AGAIN_PAUSE_NS};
    json_t *answer = ask_once(cli, request);

    /* A relay that has just been upgraded did nothing, and its successor listens by now. */
    for (uint32_t i = 0; i < AGAIN_MAX && json_is_true(json_object_get(answer, "again")); i++) {
        json_decref(answer);
        nanosleep(&pause, NULL);
        answer = ask_once(cli, request);
    }
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

static json_t *request_new(const struct cli *cli, const struct cli_verb *verb)
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
static enum cli_status answer_print(const struct cli *cli, const struct cli_verb *verb,
                                    json_t *answer)
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
    return is_ok ? CLI_OK : CLI_FAILED;
}

static enum cli_status request_run(const struct cli *cli, const struct cli_verb *verb,
                                   json_t *request)
{
    json_t *answer = cli_ask(cli, request);

    json_decref(request);
    return answer == NULL ? CLI_FAILED : answer_print(cli, verb, answer);
}

enum cli_status cli_relay_verb(const struct cli *cli, const struct cli_verb *verb)
{
    json_t *request = request_new(cli, verb);

    if (cli->is_dry_run)
        json_object_set_new(request, "dry_run", json_true());

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
static enum cli_status stream_print(const struct cli *cli, FILE *in)
{
    const struct tick_source *clock = tick_source_system();
    enum cli_status status = CLI_FAILED;
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
            status = CLI_OK;
        if (json_is_false(json_object_get(answer, "ok")))
            fprintf(stderr, "angarium: %s\n", json_string_value(json_object_get(answer, "error")));
        json_decref(answer);
    }
    free(line);
    return status;
}

/* An answer of many lines, which `print` reads. Consumes the request. */
static enum cli_status stream_run(const struct cli *cli, json_t *request,
                                  enum cli_status (*print)(const struct cli *cli, FILE *in))
{
    int fd = ask_connect(cli->socket_path);
    FILE *in = fd < 0 ? NULL : ask_open(fd);
    enum cli_status status = CLI_FAILED;

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

enum cli_status cli_list_verb(const struct cli *cli, const struct cli_verb *verb)
{
    json_t *request = request_new(cli, verb);
    long long limit = cli->limit == NULL ? 1 : atoll(cli->limit);

    json_object_set_new(request, "filter", filter_join(cli));
    if (limit > 0 && limit <= LIST_WHOLE_MAX)
        return request_run(cli, verb, request);
    json_object_set_new(request, "stream", json_true());
    return stream_run(cli, request, stream_print);
}

static enum cli_status cat_print(const struct cli *cli, FILE *in)
{
    const struct tick_source *clock = tick_source_system();

    return cli_cat_print(in, cli->is_json, clock->wall(clock->context), stdout) ? CLI_OK
                                                                                : CLI_FAILED;
}

enum cli_status cli_cat_verb(const struct cli *cli, const struct cli_verb *verb)
{
    json_t *request = request_new(cli, verb);

    json_object_set_new(request, "id", json_string(cli->operands[0]));
    if (cli->part != NULL)
        json_object_set_new(request, "part", json_string(cli->part));
    return stream_run(cli, request, cat_print);
}

static enum cli_status trace_print(const struct cli *cli, FILE *in)
{
    return cli_trace_print(in, cli->is_json, stdout) ? CLI_OK : CLI_FAILED;
}

enum cli_status cli_trace_verb(const struct cli *cli, const struct cli_verb *verb)
{
    json_t *request = request_new(cli, verb);

    json_object_set_new(request, "id", json_string(cli->operands[0]));
    json_object_set_new(request, "only_new", json_boolean(cli->is_only_new));
    json_object_set_new(request, "terse", json_boolean(cli->is_terse));
    return stream_run(cli, request, trace_print);
}

/* An order: the operands say which mail, or `all`. It runs until it is done, or we leave. */
enum cli_status cli_order_verb(const struct cli *cli, const struct cli_verb *verb)
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

enum cli_status cli_drain_verb(const struct cli *cli, const struct cli_verb *verb)
{
    json_t *request = request_new(cli, verb);

    if (cli->reason != NULL)
        json_object_set_new(request, "reason", json_string(cli->reason));
    json_object_set_new(request, "stop", json_boolean(cli->is_stop));
    json_object_set_new(request, "dry_run", json_boolean(cli->is_dry_run));
    return request_run(cli, verb, request);
}

/* What ends an order of any kind, by its number. */
enum cli_status cli_cancel_verb(const struct cli *cli, const struct cli_verb *verb)
{
    json_t *request = request_new(cli, verb);

    json_object_set_new(request, "id", json_string(cli->operands[0]));
    json_object_set_new(request, "keep", json_boolean(cli->is_keep));
    json_object_set_new(request, "dry_run", json_boolean(cli->is_dry_run));
    return request_run(cli, verb, request);
}

/* The first operand is a site, or an order's number; what is behind it are settings. */
enum cli_status cli_site_verb(const struct cli *cli, const struct cli_verb *verb)
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
    json_t *answer = cli_ask(context, request);

    json_decref(request);
    return answer;
}

enum cli_status cli_explain_verb(const struct cli *cli, const struct cli_verb *verb)
{
    json_t *answer = cli_explain_gather(explain_ask, cli, cli->operands[0]);

    return answer == NULL ? CLI_FAILED : answer_print(cli, verb, answer);
}

void cli_verb_status_print(const json_t *answer, wall_us now, FILE *out)
{
    (void)now;
    cli_status_print(answer, out);
}

void cli_verb_text_print(const json_t *answer, wall_us now, FILE *out)
{
    const char *text = json_string_value(json_object_get(answer, "text"));

    (void)now;
    fprintf(out, "%s\n", text == NULL ? "" : text);
}

enum cli_status cli_top_verb(const struct cli *cli, const struct cli_verb *verb)
{
    (void)verb;
    return cli_top_run(cli->socket_path) ? CLI_OK : CLI_FAILED;
}

/* ---- what needs no relay ---- */

enum cli_status cli_check_verb(const struct cli *cli, const struct cli_verb *verb)
{
    const char *path = cli->operand_count > 0 ? cli->operands[0] : CONFIG_DEFAULT_PATH;
    struct config_report report;
    struct config *config = NULL;
    char why[SPOOL_ROOM_WHY_SIZE];

    (void)verb;
    if (cli->is_reference) {
        option_write_reference(stdout);
        return CLI_OK;
    }
    config_report_init(&report, path);
    report.is_look = true;
    if (config_load(path, &config, &report) != ERR_OK) {
        fputs(report.text, stderr);
        if (report.count > CONFIG_COMPLAINT_MAX)
            fprintf(stderr, "... and %u more\n", report.count - CONFIG_COMPLAINT_MAX);
        return CLI_FAILED;
    }
    if (!spool_room_suffices(&config->spool, why))
        fprintf(stderr, "warning: %s\n", why);
    config_free(config);
    printf("%s: ok\n", path);
    return CLI_OK;
}

enum cli_status cli_user_hash_verb(const struct cli *cli, const struct cli_verb *verb)
{
    (void)verb;
    return cli_user_hash(cli->is_scram, stdin, stdout) ? CLI_OK : CLI_FAILED;
}

enum cli_status cli_config_verb(const struct cli *cli, const struct cli_verb *verb)
{
    const char *path = cli->operand_count > 0 ? cli->operands[0] : CONFIG_DEFAULT_PATH;

    (void)verb;
    if (!cli->is_json)
        return config_show(path, stdout, stderr) ? CLI_OK : CLI_FAILED;
    json_t *answer = config_show_json(path);
    bool is_ok = json_is_true(json_object_get(answer, "ok"));
    if (is_ok) {
        json_dumpf(answer, stdout, JSON_INDENT(2));
        printf("\n");
    } else {
        const char *error = json_string_value(json_object_get(answer, "error"));
        fputs(error == NULL ? "angarium: this cannot be shown as JSON\n" : error, stderr);
    }
    json_decref(answer);
    return is_ok ? CLI_OK : CLI_FAILED;
}

enum cli_status cli_import_verb(const struct cli *cli, const struct cli_verb *verb)
{
    (void)verb;
    return postfix_import_files(cli->operands[0], stdout) ? CLI_OK : CLI_FAILED;
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

enum cli_status cli_counters_verb(const struct cli *cli, const struct cli_verb *verb)
{
    if (!cli->is_reference)
        return cli_relay_verb(cli, verb);
    counters_reference_write(stdout);
    return CLI_OK;
}

/* The answer is a page, and nothing of it is shown unless it is whole. */
static enum cli_status metrics_print(const struct cli *cli, const struct cli_verb *verb)
{
    json_t *request = request_new(cli, verb);
    int fd = ask_connect(cli->socket_path);
    size_t size = 0;
    char *page = fd >= 0 && ask_send(fd, request) ? ask_receive_text(fd, &size) : NULL;
    bool is_page = page != NULL && ask_is_page(page, size);

    if (is_page)
        is_page = fwrite(page, 1, size, stdout) == size && fflush(stdout) == 0;
    else if (page == NULL)
        fprintf(stderr, "angarium: no page from %s: %s\n", cli->socket_path, strerror(errno));
    else
        fprintf(stderr, "angarium: no page: %.*s\n", (int)size, page);
    free(page);
    json_decref(request);
    if (fd >= 0)
        close(fd);
    return is_page ? CLI_OK : CLI_FAILED;
}

enum cli_status cli_metrics_verb(const struct cli *cli, const struct cli_verb *verb)
{
    if (cli->is_reference) {
        metrics_write_reference(stdout);
        return CLI_OK;
    }
    if (!cli->is_json)
        return metrics_print(cli, verb);
    fprintf(stderr, "angarium: a page of metrics is no JSON: `angarium status --json` is\n");
    return CLI_USAGE;
}

enum cli_status cli_spool_verb(const struct cli *cli, const struct cli_verb *verb)
{
    return cli_spool_run(verb->name, cli->operands, cli->operand_count, cli->is_json) ? CLI_OK
                                                                                      : CLI_FAILED;
}

enum cli_status cli_version_verb(const struct cli *cli, const struct cli_verb *verb)
{
    (void)cli;
    (void)verb;
    printf("angarium %s\n", ANGARIUM_VERSION);
    return CLI_OK;
}

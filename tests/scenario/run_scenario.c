/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plays scenario files against the shipped relay: run_scenario FILE...
 *
 * Prints TAP, one line per file. Each file is played in a process of its own, so that a failed
 * CHECK in the relay is one failed scenario. The language is described in README.md beside this
 * file; a statement is a row of `statements` here, or begins with the name of a party.
 */
#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/scenario/scenario.h"

#define LINE_MAX_SIZE 65536u
#define DNS_ROWS_MAX  2000u
#define EXIT_TOLD     2 /* it failed, and its line is written; sanitizers end with 1 */

/* ---- statements ---- */

static bool on_goal(struct scenario *scenario, const char *argument)
{
    snprintf(scenario->goal, sizeof(scenario->goal), "%s", argument);
    return true;
}

static bool on_config(struct scenario *scenario, const char *argument)
{
    if (scenario->has_begun)
        return scenario_fail(scenario, "config comes before everything that happens");
    scenario_text_add(&scenario->config_lines, "%s\n", argument);
    return true;
}

static bool on_shards(struct scenario *scenario, const char *argument)
{
    scenario->shard_count = (uint32_t)strtoul(argument, NULL, 10);
    if (scenario->has_begun || scenario->shard_count == 0 || scenario->shard_count > NODE_SHARD_MAX)
        return scenario_fail(scenario, "shards: 1 to %u, before everything that happens",
                             NODE_SHARD_MAX);
    return true;
}

static bool dns_add(struct scenario *scenario, const char *row)
{
    char name[256], type[16];
    int used = 0;

    if (sscanf(row, "%255s %15s %n", name, type, &used) != 2 || used == 0 ||
        !zone_add(scenario->zone, name, type, row + used, scenario->ttl))
        return scenario_fail(scenario, "dns NAME TYPE DATA");
    return true;
}

/* "N ROW": N rows, in which `%n` is 1 to N. */
static bool dns_add_many(struct scenario *scenario, const char *argument)
{
    char *row = NULL;
    unsigned long count = strtoul(argument, &row, 10);
    bool is_good = true;

    if (count == 0 || count > DNS_ROWS_MAX || *row != ' ')
        return scenario_fail(scenario, "dns *N NAME TYPE DATA");
    for (uint32_t i = 1; i <= count && is_good; i++) {
        struct scenario_text text = {0};
        scenario_text_number(&text, row + 1, i);
        is_good = dns_add(scenario, text.data);
        free(text.data);
    }
    return is_good;
}

static bool on_dns(struct scenario *scenario, const char *argument)
{
    char name[256];

    if (*argument == '*')
        return dns_add_many(scenario, argument + 1);
    if (sscanf(argument, "clear %255s", name) == 1) {
        zone_clear(scenario->zone, name);
        return true;
    }
    if (sscanf(argument, "ttl %u", &scenario->ttl) == 1)
        return true;
    return dns_add(scenario, argument);
}

static bool on_wait(struct scenario *scenario, const char *argument)
{
    tick_us time;

    if (!scenario_parse_time(argument, &time))
        return scenario_fail(scenario, "wait N(ms|s|m|h|d)");
    if (!scenario_begin(scenario))
        return false;
    scenario_note(scenario, "-- wait %s", argument);
    (void)scenario_run(scenario, time, NULL, NULL);
    return !scenario->has_failed;
}

static bool on_clock(struct scenario *scenario, const char *argument)
{
    tick_us time;

    if (strncmp(argument, "back ", 5) != 0 || !scenario_parse_time(argument + 5, &time))
        return scenario_fail(scenario, "clock back N(ms|s|m|h|d)");
    if (!scenario_begin(scenario))
        return false;
    net_sim_set_back(scenario->net, time);
    return true;
}

static bool on_patience(struct scenario *scenario, const char *argument)
{
    if (!scenario_parse_time(argument, &scenario->patience))
        return scenario_fail(scenario, "patience N(s|m|h|d)");
    return true;
}

static bool disk_fail(struct scenario *scenario, const char *what, bool is_always)
{
    static const struct {
        const char *name;
        enum disk_sim_call call;
    } calls[] = {{"write", DISK_SIM_WRITE}, {"sync", DISK_SIM_SYNC}, {"read", DISK_SIM_READ}};

    for (uint32_t i = 0; i < COUNT_OF(calls); i++) {
        if (strcmp(what, calls[i].name) != 0)
            continue;
        if (is_always)
            disk_sim_fail_often(scenario->disk, calls[i].call, 1000000, ERR_DISK_IO);
        else
            disk_sim_fail_at(scenario->disk, calls[i].call, 1, ERR_DISK_IO);
        return true;
    }
    return scenario_fail(scenario, "disk fail write|sync|read");
}

static void disk_set_full(struct scenario *scenario, uint32_t per_million)
{
    static const enum disk_sim_call calls[] = {DISK_SIM_WRITE, DISK_SIM_ALLOCATE, DISK_SIM_CREATE};

    for (uint32_t i = 0; i < COUNT_OF(calls); i++)
        disk_sim_fail_often(scenario->disk, calls[i], per_million, ERR_DISK_FULL);
}

static bool on_disk(struct scenario *scenario, const char *argument)
{
    char what[16] = "", how[16] = "";

    if (!scenario_begin(scenario))
        return false;
    scenario_note(scenario, "-- disk %s", argument);
    if (sscanf(argument, "fail %15s %15s", what, how) >= 1)
        return disk_fail(scenario, what, strcmp(how, "always") == 0);
    if (strcmp(argument, "full") == 0) {
        disk_set_full(scenario, 1000000);
    } else if (strcmp(argument, "free") == 0 || strcmp(argument, "ok") == 0) {
        for (uint32_t call = 0; call < DISK_SIM_CALL_COUNT; call++)
            disk_sim_fail_often(scenario->disk, (enum disk_sim_call)call, 0, ERR_OK);
    } else if (strcmp(argument, "hold") == 0 || strcmp(argument, "release") == 0) {
        disk_sim_hold(scenario->disk, argument[0] == 'h');
    } else {
        return scenario_fail(scenario, "disk %s?", argument);
    }
    return true;
}

static bool on_crash(struct scenario *scenario, const char *argument)
{
    (void)argument;
    scenario_note(scenario, "-- crash");
    return scenario_begin(scenario) && scenario_crash(scenario, NODE_POWER_LOSS);
}

static bool on_kill(struct scenario *scenario, const char *argument)
{
    (void)argument;
    scenario_note(scenario, "-- kill");
    return scenario_begin(scenario) && scenario_crash(scenario, NODE_KILL);
}

static bool on_stop(struct scenario *scenario, const char *argument)
{
    (void)argument;
    scenario_note(scenario, "-- stop");
    if (!scenario_begin(scenario))
        return false;
    if (scenario->node == NULL)
        return scenario_fail(scenario, "the relay does not run");
    node_drain(scenario->node);
    return true;
}

static bool on_restart(struct scenario *scenario, const char *argument)
{
    (void)argument;
    scenario_note(scenario, "-- restart");
    return scenario_begin(scenario) && scenario_restart(scenario);
}

static const struct {
    const char *word;
    bool (*on_statement)(struct scenario *scenario, const char *argument);
} statements[] = {
    {"goal", on_goal},
    {"config", on_config},
    {"shards", on_shards},
    {"dns", on_dns},
    {"wait", on_wait},
    {"clock", on_clock},
    {"patience", on_patience},
    {"disk", on_disk},
    {"crash", on_crash},
    {"kill", on_kill},
    {"stop", on_stop},
    {"restart", on_restart},
    {"connect", scenario_connect},
    {"hop", scenario_hop},
    {"source", scenario_source},
    {"expect", scenario_expect},
    {"record", scenario_record},
    {"records", scenario_sink},
    {"list", scenario_list},
    {"order", scenario_order},
    {"stand", scenario_stand},
    {"site", scenario_site},
};

static bool statement_run(struct scenario *scenario, const char *line)
{
    size_t size = 0;

    while (isalnum((unsigned char)line[size]) || line[size] == '_')
        size++;
    for (uint32_t i = 0; i < COUNT_OF(statements); i++) {
        if (strlen(statements[i].word) != size || memcmp(statements[i].word, line, size) != 0 ||
            (line[size] != ' ' && line[size] != '\0'))
            continue;
        return statements[i].on_statement(scenario, line[size] == ' ' ? line + size + 1 : "");
    }
    if (size == 0)
        return scenario_fail(scenario, "`%s` is no statement", line);
    return scenario_party_statement(scenario, line, size);
}

/* ---- files ---- */

static bool scenario_play(struct scenario *scenario, FILE *file)
{
    static char line[LINE_MAX_SIZE];
    uint64_t violations = 0;

    while (fgets(line, sizeof(line), file) != NULL) {
        scenario->line++;
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] == '#' || line[0] == '\0')
            continue;
        if (scenario->goal[0] == '\0' && strncmp(line, "goal ", 5) != 0)
            return scenario_fail(scenario, "the first statement is: goal TEXT");
        if (!statement_run(scenario, line) || scenario->has_failed)
            return false;
    }
    (void)scenario_counter(scenario, "relay.violations", &violations);
    if (violations > 0)
        return scenario_fail(scenario, "%llu messages have no next event",
                             (unsigned long long)violations);
    return true;
}

static void scenario_explain(const struct scenario *scenario)
{
    char *dialogue = scenario->dialogue.data, *rest = NULL;

    printf("# %s:%u: %s\n", scenario->file, scenario->line, scenario->why.data);
    for (char *line = strtok_r(dialogue, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest))
        printf("#   %s\n", line);
}

/* In a process of its own: its exit code says how it went. */
static int scenario_child(const char *path, uint32_t number)
{
    static struct scenario scenario;
    FILE *file = fopen(path, "re");

    scenario_init(&scenario, path);
    bool is_good =
        file != NULL ? scenario_play(&scenario, file) : scenario_fail(&scenario, "cannot be read");
    printf("%s %u - %s: %s\n", is_good ? "ok" : "not ok", number, path, scenario.goal);
    if (!is_good)
        scenario_explain(&scenario);
    if (file != NULL)
        fclose(file);
    fflush(stdout);
    scenario_fini(&scenario);
    return is_good ? 0 : EXIT_TOLD;
}

static bool scenario_run_file(const char *path, uint32_t number)
{
    int status = 0;

    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        exit(scenario_child(path, number));
    if (child < 0 || waitpid(child, &status, 0) != child)
        return false;
    if (WIFSIGNALED(status))
        printf("not ok %u - %s: ended by signal %d\n", number, path, WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != EXIT_TOLD)
        printf("not ok %u - %s: ended with code %d\n", number, path, WEXITSTATUS(status));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int main(int argc, char **argv)
{
    bool is_good = true;

    log_set_threshold(LOG_ERROR);
    printf("1..%d\n", argc - 1);
    for (int i = 1; i < argc; i++)
        is_good = scenario_run_file(argv[i], (uint32_t)i) && is_good;
    return is_good ? 0 : 1;
}

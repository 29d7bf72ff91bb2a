/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `angarium upgrade`: start the program that is on the disk, which takes the place of the relay
 * that runs (daemon_enter.c), and wait until it has.
 *
 *   nobody watches the relay     PROGRAM [-c FILE] -u, as a child of ours
 *   systemd does                 the relay is told that an upgrade is wanted, and `systemctl
 * reload` of its unit runs `angarium reload --or-upgrade` there, so that the new process is one of
 * the unit: its user, its confinement
 *
 * What is run is named by whoever runs us, and never by the relay, which has fewer rights than we
 * may have. Of the unit only the name is asked for, of the kernel.
 */
#include <errno.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/cli.h"

#define PROGRAM_NAME "angariumd"
#define PATH_SIZE    4096u

extern char **environ;

/* ---- programs ---- */

/* Beside our own, or where administrators' programs are. False: nowhere. */
static bool program_find(char ret_path[PATH_SIZE])
{
    static const char *const places[] = {"", "../sbin/"};
    char own[PATH_SIZE / 2];
    ssize_t size = readlink("/proc/self/exe", own, sizeof(own) - 1);

    if (size <= 0)
        return false;
    own[size] = '\0';
    *(strrchr(own, '/') + 1) = '\0';
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        (void)snprintf(ret_path, PATH_SIZE, "%s%s" PROGRAM_NAME, own, places[i]);
        if (access(ret_path, X_OK) == 0)
            return true;
    }
    return false;
}

/* Its exit status is ours. */
static enum cli_status program_run(const char *program, const char *const arguments[])
{
    int status = 0;
    pid_t child;
    int error =
        posix_spawnp(&child, program, NULL, NULL, (char *const *)(uintptr_t)arguments, environ);

    if (error != 0) {
        fprintf(stderr, "angarium: cannot run %s: %s\n", program, strerror(error));
        return CLI_FAILED;
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? CLI_OK : CLI_FAILED;
}

/* ---- what the relay is ---- */

struct running {
    pid_t pid;
    bool is_managed, is_wanted;
};

/* False: told why. */
static bool running_ask(const struct cli *cli, const char *what, struct running *ret_running)
{
    json_t *request = json_pack("{ss,sb}", "verb", "upgrade", what, 1);
    json_t *answer = cli_ask(cli, request);
    bool is_ok = json_is_true(json_object_get(answer, "ok"));
    const char *error = json_string_value(json_object_get(answer, "error"));

    if (answer != NULL && !is_ok)
        fprintf(stderr, "angarium: %s\n", error == NULL ? "failed" : error);
    *ret_running = (struct running){
        .pid = (pid_t)json_integer_value(json_object_get(answer, "pid")),
        .is_managed = json_is_true(json_object_get(answer, "is_managed")),
        .is_wanted = json_is_true(json_object_get(answer, "is_wanted")),
    };
    json_decref(request);
    json_decref(answer);
    return is_ok;
}

/* The last part of its control group: angarium.service. */
static bool unit_find(pid_t pid, char ret_unit[256])
{
    char path[64], line[PATH_SIZE];
    bool is_found = false;

    (void)snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
    FILE *file = fopen(path, "re");
    while (file != NULL && !is_found && fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        const char *last = strrchr(line, '/');
        size_t size = last == NULL ? 0 : strlen(++last);
        is_found = size > strlen(".service") && size < 256 && last[0] != '-' &&
                   strcmp(last + size - strlen(".service"), ".service") == 0;
        if (is_found)
            memcpy(ret_unit, last, size + 1);
    }
    if (file != NULL)
        fclose(file);
    return is_found;
}

/* ---- verbs ---- */

static enum cli_status upgrade_run(const struct cli *cli)
{
    const char *file = cli->operand_count > 0 ? cli->operands[0] : NULL;
    char found[PATH_SIZE];
    const char *program = cli->program;

    if (program == NULL && !program_find(found)) {
        fprintf(stderr, "angarium: no " PROGRAM_NAME " beside angarium: name it by --program\n");
        return CLI_FAILED;
    }
    if (program == NULL)
        program = found;
    const char *arguments[] = {program, "-u", file == NULL ? NULL : "-c", file, NULL};
    return program_run(program, arguments);
}

static enum cli_status unit_run(const struct cli *cli, pid_t pid)
{
    struct running ignored;
    char unit[256];

    if (!unit_find(pid, unit)) {
        fprintf(stderr, "angarium: a service manager runs process %d: reload its unit\n", (int)pid);
        return CLI_FAILED;
    }
    if (!running_ask(cli, "want", &ignored))
        return CLI_FAILED;
    return program_run("systemctl", (const char *const[]){"systemctl", "reload", unit, NULL});
}

static enum cli_status upgrade_tell(const struct cli *cli, pid_t before)
{
    struct running running;

    if (!running_ask(cli, "look", &running))
        return CLI_FAILED;
    if (running.pid == before) {
        fprintf(stderr, "angarium: process %d goes on: see the log\n", (int)before);
        return CLI_FAILED;
    }
    if (cli->is_json)
        printf("{\"ok\": true, \"pid\": %d, \"pid_before\": %d}\n", (int)running.pid, (int)before);
    else
        printf("process %d takes mail; process %d ends what it has begun\n", (int)running.pid,
               (int)before);
    return CLI_OK;
}

enum cli_status cli_upgrade_verb(const struct cli *cli, const struct cli_verb *verb)
{
    struct running running;

    (void)verb;
    if (!running_ask(cli, "look", &running))
        return CLI_FAILED;
    enum cli_status status = running.is_managed ? unit_run(cli, running.pid) : upgrade_run(cli);
    return status == CLI_OK ? upgrade_tell(cli, running.pid) : status;
}

enum cli_status cli_reload_verb(const struct cli *cli, const struct cli_verb *verb)
{
    struct running running;

    if (cli->is_or_upgrade && cli->is_dry_run) {
        fprintf(stderr, "angarium: an upgrade cannot be tried: --dry-run goes without "
                        "--or-upgrade\n");
        return CLI_USAGE;
    }
    if (!cli->is_or_upgrade && cli->operand_count > 0) {
        fprintf(stderr, "angarium: the relay reads the file that it was started with; FILE goes "
                        "with --or-upgrade\n");
        return CLI_USAGE;
    }
    if (!cli->is_or_upgrade)
        return cli_relay_verb(cli, verb);
    if (!running_ask(cli, "look", &running))
        return CLI_FAILED;
    if (!running.is_wanted)
        return cli_relay_verb(cli, verb);
    enum cli_status status = upgrade_run(cli);
    return status == CLI_OK ? upgrade_tell(cli, running.pid) : status;
}

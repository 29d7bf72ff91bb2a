/* SPDX-License-Identifier: Apache-2.0 */
/*
 * angarium: the command line. It asks the relay over its control socket, or checks a configuration
 * by itself, and prints text for people, or with --json what the relay said.
 *
 * Verbs are rows of one table (verb.def); cli_verb.c has what they do. Exit status: 0 done, 1
 * refused or failed, 2 wrong usage.
 */
#include "control/cli.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "control/cli_help.h"
#include "control/cli_print.h"

#define SOCKET_VARIABLE "ANGARIUM_SOCKET"
#define SOCKET_DEFAULT  "/run/angarium/control.sock"

static enum cli_status cli_help_run(const struct cli *cli, const struct cli_verb *verb);

static const struct cli_verb verbs[] = {
#define VERB(name, min, max, operands, help, run, print, role, members)                            \
    {name, min, max, operands, help, run, print},
#define HTTP_VERB(name, help, role, members)
#include "control/verb.def"
#undef VERB
#undef HTTP_VERB
};

/* ---- arguments ---- */

static void usage_write(FILE *out)
{
    fprintf(out, "usage: angarium [-s SOCKET] VERB [--json]\n\n");
    cli_help_list(verbs, COUNT_OF(verbs), out);
    fprintf(out, "\n`angarium VERB --help`, or `angarium help VERB`, says more of one.\n"
                 "The socket is -s, or $" SOCKET_VARIABLE ", or " SOCKET_DEFAULT ".\n");
}

static enum cli_status usage(void)
{
    usage_write(stderr);
    return CLI_USAGE;
}

/* This verb was meant, and not used as it can be. `wrong`: what it does not take; NULL: operands.
 */
static enum cli_status usage_of(const struct cli_verb *verb, const char *wrong)
{
    if (wrong != NULL)
        fprintf(stderr, "angarium: `%s` does not take this: %s\n", verb->name, wrong);
    fprintf(stderr, "usage: angarium [-s SOCKET]\n");
    cli_help_verb(verb, stderr);
    return CLI_USAGE;
}

/* Words that are no verb, or the beginning of some: `angarium queue`. */
static enum cli_status no_verb(struct cli *cli, const char *const words[CLI_WORD_MAX],
                               uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        cli->operands[cli->operand_count++] = words[i];
    if (count > 0 && cli_help_matching(verbs, COUNT_OF(verbs), cli, stderr) > 0)
        return CLI_USAGE;
    if (count > 0 || !cli->is_help) {
        if (count > 0)
            fprintf(stderr, "angarium: no such verb: %s%s%s\n\n", words[0], count > 1 ? " " : "",
                    count > 1 ? words[1] : "");
        return usage();
    }
    usage_write(stdout);
    return CLI_OK;
}

/* The manual page and the shell's completion are made from the reference. */
static enum cli_status cli_help_run(const struct cli *cli, const struct cli_verb *verb)
{
    (void)verb;
    if (cli->is_reference) {
        for (uint32_t i = 0; i < COUNT_OF(verbs); i++)
            printf("%s\t%s\t%s\n", verbs[i].name, verbs[i].operands, verbs[i].help);
        return CLI_OK;
    }
    if (cli->operand_count == 0) {
        usage_write(stdout);
        return CLI_OK;
    }
    if (cli_help_matching(verbs, COUNT_OF(verbs), cli, stdout) > 0)
        return CLI_OK;
    fprintf(stderr, "angarium: no such verb: %s\n", cli->operands[0]);
    return CLI_USAGE;
}

/* Which options a verb takes is in its operands: what it would not look at is refused, so that
 * nobody believes in a --dry-run that is none. These may stand with any verb. */
static const char *const options_of_all[] = {"--json", "--help", "--reference"};

static const struct {
    const char *name;
    size_t offset; /* of a bool in struct cli */
} flags[] = {
    {"--json", offsetof(struct cli, is_json)},
    {"--help", offsetof(struct cli, is_help)},
    {"--reference", offsetof(struct cli, is_reference)},
    {"--dry-run", offsetof(struct cli, is_dry_run)},
    {"--host", offsetof(struct cli, is_host)},
    {"--keep", offsetof(struct cli, is_keep)},
    {"--only-new", offsetof(struct cli, is_only_new)},
    {"--terse", offsetof(struct cli, is_terse)},
    {"--stop", offsetof(struct cli, is_stop)},
    {"--scram", offsetof(struct cli, is_scram)},
    {"--csv", offsetof(struct cli, is_csv)},
    {"--or-upgrade", offsetof(struct cli, is_or_upgrade)},
};

static const struct {
    const char *name;
    size_t offset; /* of a text in struct cli */
} values[] = {
    {"--limit", offsetof(struct cli, limit)},
    {"--file", offsetof(struct cli, file)},
    {"--count", offsetof(struct cli, count)},
    {"--seconds", offsetof(struct cli, seconds)},
    {"--by", offsetof(struct cli, by)},
    {"--reason", offsetof(struct cli, reason)},
    {"--duration", offsetof(struct cli, duration)},
    {"--to", offsetof(struct cli, to)},
    {"--program", offsetof(struct cli, program)},
};

static bool flag_take(struct cli *cli, const char *argument)
{
    for (uint32_t i = 0; i < COUNT_OF(flags); i++) {
        if (strcmp(argument, flags[i].name) != 0)
            continue;
        *(bool *)(void *)((char *)cli + flags[i].offset) = true;
        return true;
    }
    return false;
}

/* An option with its value, if there is one at `*index`, which then stands on the value. */
static bool value_take(struct cli *cli, char **arguments, int count, int *index)
{
    for (uint32_t i = 0; i < COUNT_OF(values); i++) {
        if (strcmp(arguments[*index], values[i].name) != 0 || *index + 1 >= count)
            continue;
        *(const char **)(void *)((char *)cli + values[i].offset) = arguments[++*index];
        return true;
    }
    return false;
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

/* Words that are no options are the verb and its operands. What is no option is left in
 * cli->wrong. */
static void arguments_read(struct cli *cli, int count, char **arguments,
                           const char *words[CLI_WORD_MAX], uint32_t *word_count)
{
    for (int i = 1; i < count && cli->wrong == NULL; i++) {
        char *argument = arguments[i];
        bool is_option = argument[0] == '-';
        if (!is_option && *word_count < CLI_WORD_MAX)
            words[(*word_count)++] = argument;
        else if (strcmp(argument, "-s") == 0 && i + 1 < count)
            cli->socket_path = arguments[++i];
        else if (strcmp(argument, "-h") == 0)
            cli->is_help = true;
        else if (is_option && cli->option_count < CLI_WORD_MAX &&
                 (flag_take(cli, argument) || value_take(cli, arguments, count, &i) ||
                  (argument[1] == '-' && part_take(cli, argument))))
            cli->options[cli->option_count++] = argument;
        else
            cli->wrong = argument;
    }
    const char *const numbers[] = {cli->limit, cli->count, cli->seconds};
    for (uint32_t i = 0; i < COUNT_OF(numbers); i++) {
        if (!is_number(numbers[i]))
            cli->wrong = numbers[i];
    }
}

/* An option of these operands: "[--limit N]". */
static bool option_is_of(const char *option, const char *operands)
{
    size_t size = strlen(option);
    const char *found = operands;

    for (uint32_t i = 0; i < COUNT_OF(options_of_all); i++) {
        if (strcmp(option, options_of_all[i]) == 0)
            return true;
    }
    while ((found = strstr(found, option)) != NULL) {
        if (found[size] == '\0' || strchr(" ]|", found[size]) != NULL)
            return true;
        found += size;
    }
    return false;
}

/* The first option that is not this verb's, or none at all; NULL: all are. */
static const char *option_wrong(const struct cli *cli, const struct cli_verb *verb)
{
    for (uint32_t i = 0; i < cli->option_count && cli->wrong == NULL; i++) {
        if (!option_is_of(cli->options[i], verb->operands))
            return cli->options[i];
    }
    return cli->wrong;
}

/* How many of the words name this verb; 0: it is another one. */
static uint32_t verb_match(const struct cli_verb *verb, const char *const words[CLI_WORD_MAX],
                           uint32_t count)
{
    char two[64] = "";

    if (count >= 1 && strcmp(verb->name, words[0]) == 0)
        return 1;
    if (count >= 2 && verb->run == cli_order_verb && strcmp(words[0], "queue") == 0 &&
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
    const char *words[CLI_WORD_MAX] = {NULL};
    uint32_t word_count = 0;

    arguments_read(&cli, count, arguments, words, &word_count);
    for (uint32_t i = 0; i < COUNT_OF(verbs); i++) {
        uint32_t used = verb_match(&verbs[i], words, word_count);
        uint32_t operands = word_count - used;
        if (used == 0)
            continue;
        if (cli.is_help) {
            cli_help_verb(&verbs[i], stdout);
            return CLI_OK;
        }
        const char *wrong = option_wrong(&cli, &verbs[i]);
        if (wrong != NULL || operands < verbs[i].operand_min || operands > verbs[i].operand_max)
            return usage_of(&verbs[i], wrong);
        for (uint32_t j = 0; j < operands; j++)
            cli.operands[cli.operand_count++] = words[used + j];
        return verbs[i].run(&cli, &verbs[i]);
    }
    return no_verb(&cli, words, word_count);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * angarium: the command line. It asks the relay over its control socket, or checks a configuration
 * by itself, and prints text for people, or with --json what the relay said.
 *
 * Verbs are rows of one table; cli_verb.c has what they do. Exit status: 0 done, 1 refused or
 * failed, 2 wrong usage.
 */
#include "control/cli.h"

#include <locale.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "control/cli_help.h"
#include "control/cli_print.h"

#define SOCKET_VARIABLE "ANGARIUM_SOCKET"
#define SOCKET_DEFAULT  "/run/angarium/control.sock"

static enum cli_status help_verb(const struct cli *cli, const struct cli_verb *verb);

static const struct cli_verb verbs[] = {
    {"status", 0, 0, "", "what the relay does and has done", cli_relay_verb, cli_verb_status_print},
    {"top", 0, 0, "", "the same, live, down to messages and why they wait", cli_top_verb, NULL},
    {"queue summary", 0, 0, "[--by WHAT] [--limit N]",
     "how much waits how long, by site, domain, source, class, sender_domain", cli_relay_verb,
     cli_queue_summary_print},
    {"queue list", 0, CLI_WORD_MAX, "[TERM=VALUE...] [--limit N]",
     "mail that waits: id domain site source class state older younger sender sender_domain "
     "recipient user",
     cli_list_verb, cli_queue_list_print},
    {"queue orders", 0, 0, "",
     "orders that stand: for mail that comes until they end, and for sites", cli_relay_verb,
     cli_orders_print},
    {"queue cancel", 1, 1, "ORDER [--keep] [--dry-run]",
     "an order, of mail or of a site, ends now; what it held is released, but with --keep",
     cli_cancel_verb, cli_order_print},
    {"hold", 1, CLI_WORD_MAX, "TERM=VALUE...|all [--reason TEXT] [--duration TIME] [--dry-run]",
     "no attempts until released; with a duration until it is over, and for mail that comes till "
     "then: hold domain=example.org --duration 2h",
     cli_order_verb, cli_order_print},
    {"release", 1, CLI_WORD_MAX, "TERM=VALUE...|all [--reason TEXT] [--dry-run]",
     "what is held may go; order=N: what that order holds", cli_order_verb, cli_order_print},
    {"retry", 1, CLI_WORD_MAX, "TERM=VALUE...|all [--reason TEXT] [--dry-run]",
     "what waits is tried now", cli_order_verb, cli_order_print},
    {"bounce", 1, CLI_WORD_MAX, "TERM=VALUE...|all --reason TEXT [--duration TIME] [--dry-run]",
     "back to the sender, with the reason; with a duration also what comes till then",
     cli_order_verb, cli_order_print},
    {"delete", 1, CLI_WORD_MAX, "TERM=VALUE...|all --reason TEXT [--duration TIME] [--dry-run]",
     "gone, and nobody is told; with a duration also what comes till then: delete "
     "sender_domain=spam.example --duration 1d --reason spam",
     cli_order_verb, cli_order_print},
    {"reroute", 1, CLI_WORD_MAX,
     "TERM=VALUE...|all --to DOMAIN --reason TEXT [--duration TIME] [--dry-run]",
     "goes by the route and mail exchangers of another domain; with a duration also what comes "
     "till then",
     cli_order_verb, cli_order_print},
    {"queue show", 1, 1, "ID", "one message and its recipients", cli_relay_verb,
     cli_queue_show_print},
    {"queue cat", 1, 1, "ID [--envelope | --header | --message]",
     "one message as it is stored: its envelope, an empty line, its octets; or one of these",
     cli_cat_verb, NULL},
    {"explain", 1, 1, "ID|SITE|DOMAIN",
     "why mail goes, or does not: every limit in force, and which one binds now", cli_explain_verb,
     cli_explain_print},
    {"route", 1, 1, "ADDRESS|DOMAIN", "where mail for it would go now, and why", cli_relay_verb,
     cli_probe_print},
    {"dns lookup", 1, 1, "NAME [--host]",
     "the mail exchangers of a domain as the relay resolves them, or the addresses of a host",
     cli_relay_verb, cli_probe_print},
    {"site show", 0, 1, "[NAME] [--limit N]",
     "sites: limits, what is used of them, which rate binds", cli_relay_verb, cli_site_show_print},
    {"site suspend", 1, 1, "NAME --duration TIME --reason TEXT [--dry-run]",
     "nothing goes there for that time; prints the number of the order", cli_site_verb,
     cli_site_order_print},
    {"site set", 2, 3, "NAME connections=N rate=N/TIME --duration TIME --reason TEXT [--dry-run]",
     "tighter limits for that time", cli_site_verb, cli_site_order_print},
    {"site resume", 1, 1, "NAME|ORDER [--reason TEXT] [--dry-run]",
     "its mail may go: what suspends it, and what the relay learned against it (pause, back-off, "
     "fewer connections, dead addresses), or that order, ends now",
     cli_site_verb, cli_site_order_print},
    {"source show", 0, 1, "[NAME]", "addresses that mail leaves from, and whether they may be used",
     cli_relay_verb, cli_source_print},
    {"source suspend", 1, 1, "NAME --duration TIME --reason TEXT [--dry-run]",
     "nothing leaves from there for that time", cli_site_verb, cli_source_print},
    {"source resume", 1, 1, "NAME [--dry-run]", "what suspends it, or makes it rest, ends now",
     cli_site_verb, cli_source_print},
    {"site patterns", 0, 0, "", "how often each reply pattern has matched since the last reload",
     cli_relay_verb, cli_site_patterns_print},
    {"trace", 1, 1,
     "ADDRESS|PREFIX|SITE|DOMAIN|ID [--only-new] [--terse] [--seconds N] [--count N]",
     "SMTP conversations as they happen, of both sides: of a client or host, towards a site or "
     "domain, of a message; neither bodies nor passwords",
     cli_trace_verb, NULL},
    {"flows", 0, 0, "[--limit N]", "connections of the TCP engine", cli_relay_verb,
     cli_flows_print},
    {"counters", 0, 0, "[--limit N] | --reference", "what engine and ports counted; all there are",
     cli_counters_verb, cli_counters_print},
    {"metrics", 0, 0, "[--reference]", "the page that is /metrics; or what its metrics mean",
     cli_metrics_verb, NULL},
    {"capture stop", 0, 0, "", "end the capture", cli_relay_verb, cli_verb_text_print},
    {"capture", 0, 1, "[FILTER] --file PATH [--count N] [--seconds N]",
     "frames of the engine as pcap, in the language of tcpdump", cli_relay_verb,
     cli_verb_text_print},
    {"drain end", 0, 0, "", "take mail again", cli_relay_verb, cli_verb_text_print},
    {"drain", 0, 0, "[--seconds N] [--reason TEXT] [--stop]",
     "take no mail from now on: listeners close, transactions under way have 60 s, or so many, to "
     "end; what waits is delivered on, or with --stop the relay ends",
     cli_drain_verb, cli_verb_text_print},
    {"reload", 0, 1, "[--or-upgrade [FILE]]",
     "read the configuration again; or, if the program's file is another one than that which runs, "
     "upgrade",
     cli_reload_verb, cli_verb_text_print},
    {"upgrade", 0, 1, "[FILE] [--program PROGRAM]",
     "a new process takes the relay's place, of the program on the disk, with this configuration, "
     "and no transaction fails; where systemd runs the relay, by systemctl reload",
     cli_upgrade_verb, NULL},
    {"check", 0, 1, "[FILE] | --reference", "check a configuration; print all options",
     cli_check_verb, NULL},
    {"config show", 0, 1, "[FILE]", "every option, its value, and where that comes from",
     cli_config_verb, NULL},
    {"import postfix", 1, 1, "DIR",
     "a first configuration from Postfix's main.cf and master.cf, with notes of what has no "
     "counterpart",
     cli_import_verb, NULL},
    {"records find", 2, 31, "ID FILE...",
     "what became of a message: its records in these files and in those that they were turned over "
     "into",
     cli_records_verb, NULL},
    {"records print", 1, 31, "FILE... [--csv]",
     "records that were kept in binary, as the lines of JSON that `records.file` has, or as "
     "accounting",
     cli_records_print_verb, NULL},
    {"spool check", 1, 1, "DIR", "read every record of a spool that is not in use", cli_spool_verb,
     NULL},
    {"spool stats", 1, 1, "DIR", "segments, records and space of it", cli_spool_verb, NULL},
    {"spool dump", 1, 2, "DIR [ID]", "its records, or those of one message", cli_spool_verb, NULL},
    {"spool adopt", 2, 2, "FROM TO", "move a dead host's segments into a relay's spool",
     cli_spool_verb, NULL},
    {"user hash", 0, 0, "[--scram]",
     "the hash of a password, read from standard input, for a users file; or its keys for SCRAM",
     cli_user_hash_verb, NULL},
    {"version", 0, 0, "", "print the version", cli_version_verb, NULL},
    {"help", 0, CLI_WORD_MAX, "[VERB] | --reference",
     "this list, or more of one verb or of all that begin so; tab-separated for programs",
     help_verb, NULL},
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
static enum cli_status help_verb(const struct cli *cli, const struct cli_verb *verb)
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

    (void)setlocale(LC_CTYPE, ""); /* what the terminal shows */
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

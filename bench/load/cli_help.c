/* SPDX-License-Identifier: Apache-2.0 */
/* The pages of --help, one screen each, from the table of options. */
#include "bench/load/cli.h"

#include <string.h>

static const char overview[] =
    "angarium-load: send and receive mail, to measure those between\n"
    "\n"
    "  angarium-load source [options] IP:PORT     send\n"
    "  angarium-load sink [options] IP:PORT       receive, until SIGTERM\n"
    "  angarium-load both [options] TO LISTEN     both in one process\n"
    "  angarium-load audit [-r N] [-j] FILE...    compare ledgers: was anything lost or changed?\n"
    "\n"
    "angarium-load COMMAND --help has the options; docs/load.md explains them.\n";

static void print_option(const struct cli_option *option)
{
    char name[64];
    int size =
        snprintf(name, sizeof(name), "--%s%s%s", option->name, option->argument == NULL ? "" : " ",
                 option->argument == NULL ? "" : option->argument);

    CHECK(size > 0 && (size_t)size < sizeof(name));
    if (option->letter < 256)
        (void)printf("  -%c, %-23s %s\n", option->letter, name, option->help);
    else
        (void)printf("      %-23s %s\n", name, option->help);
}

void cli_help(const struct cli *cli)
{
    unsigned int commands = (unsigned int)cli->command;

    if (commands == 0) {
        (void)fputs(overview, stdout);
        return;
    }
    (void)printf("angarium-load %s [options] %s\n\n", cli->name,
                 cli->command == CLI_AUDIT  ? "FILE..."
                 : cli->command == CLI_BOTH ? "TO LISTEN      (each IP:PORT)"
                                            : "IP:PORT");
    if (cli->command == CLI_BOTH)
        (void)fputs("The options of source and of sink (-s, -m: of the source), and:\n\n", stdout);
    for (uint32_t i = 0; i < cli_option_count; i++) {
        const struct cli_option *option = &cli_options[i];
        bool is_own = cli->command == CLI_BOTH
                          ? (option->commands & CLI_BOTH) == 0 && option->commands != CLI_AUDIT
                          : (option->commands & commands) != 0;
        bool is_audit = cli->command != CLI_AUDIT && option->commands == CLI_AUDIT;
        if (is_own && !is_audit)
            print_option(option);
    }
    if (cli->command == CLI_AUDIT)
        (void)fputs(
            "\nStatus 0 when nothing was lost, damaged or invented; 1 when something was.\n",
            stdout);
}

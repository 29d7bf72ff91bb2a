/* SPDX-License-Identifier: Apache-2.0 */
/* angarium-load source|sink|both|audit: what is to be done, and the signals that end it. */
#include <signal.h>
#include <unistd.h>

#include "bench/load/cli.h"

volatile int load_is_stopping;

static void on_signal(int number)
{
    (void)number;
    load_is_stopping++;
}

static int audit_run(const struct cli *cli, int count, char **paths)
{
    struct audit_sum sum;

    if (count == 0)
        cli_refuse(cli, "which ledgers?");
    if (!audit_files(count, paths, cli->options.recipients, &sum))
        return 2;
    audit_print(&sum, cli->options.is_json);
    return audit_is_clean(&sum) ? 0 : 1;
}

static int mail_run(struct cli *cli, int count, char **words)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct load_options *options = &cli->options;
    bool has_source = cli->command & CLI_SOURCE, has_sink = cli->command & CLI_SINK;

    if (count != has_source + has_sink)
        cli_refuse(cli, cli->command == CLI_BOTH ? "two addresses are wanted: TO and LISTEN"
                                                 : "one address is wanted: IP:PORT");
    if (has_source)
        options->target = cli_endpoint(cli, words[0]);
    if (has_sink)
        options->listen = cli_endpoint(cli, words[has_source]);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
    options->run = (uint64_t)tick_source_system()->wall(NULL) / 1000 * 100000u + (uint64_t)getpid();
    return load_run(options, has_source, has_sink);
}

int main(int argc, char **argv)
{
    struct cli cli;
    int word = cli_parse(&cli, argc, argv), count = argc - word;
    int status = cli.command == CLI_AUDIT ? audit_run(&cli, count, argv + word)
                                          : mail_run(&cli, count, argv + word);

    cli_fini(&cli);
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_LOAD_CLI_H
#define BENCH_LOAD_CLI_H

#include "bench/load/load.h"

enum cli_command { CLI_SOURCE = 1, CLI_SINK = 2, CLI_BOTH = 3, CLI_AUDIT = 4 };

struct cli {
    enum cli_command command;
    const char *name; /* of the command */
    struct load_options options;
    bool has_sessions, has_messages, has_size, has_tls, has_starttls, has_reject;
};

/** Everything of the command line, checked. Ends the process with a reason on standard error
 * (status 2), or after --help (status 0). Returns the index of the first word that is no option. */
int cli_parse(struct cli *cli, int argc, char **argv);
void cli_fini(struct cli *cli);
/** "192.0.2.1:25", or the end as cli_parse(). */
struct flow_address cli_endpoint(const struct cli *cli, const char *text);
/** Say why, and the end. */
__attribute__((noreturn, format(printf, 2, 3))) void cli_refuse(const struct cli *cli,
                                                                const char *format, ...);
/** The page of --help. */
void cli_help(const struct cli *cli);

/* ---- the table of options, shared by both files ---- */
enum cli_kind {
    CLI_FLAG,    /* a bool */
    CLI_NUMBER,  /* a uint32_t within min and max */
    CLI_TEXT,    /* a const char * */
    CLI_SPECIAL, /* a function's business */
};
struct cli_option {
    int letter; /* above 255: none */
    const char *name;
    unsigned int commands; /* bits of enum cli_command */
    enum cli_kind kind;
    size_t offset; /* in struct load_options */
    uint32_t min, max;
    void (*apply)(struct cli *cli, const struct cli_option *option, const char *value);
    const char *argument, *help;
};
/** The value of an option as a number within its bounds, or the end as cli_parse(). */
uint64_t cli_number(const struct cli *cli, const struct cli_option *option, const char *text);

/* cli_port.c */
#define CLI_MTU_MIN 576u /* as the relay's dataplane.ports[].mtu */
#define CLI_MTU_MAX 9198u
void cli_apply_device(struct cli *cli, const struct cli_option *option, const char *value);
void cli_apply_address(struct cli *cli, const struct cli_option *option, const char *value);
void cli_apply_mtu(struct cli *cli, const struct cli_option *option, const char *value);

extern const struct cli_option cli_options[];
extern const uint32_t cli_option_count;

#endif

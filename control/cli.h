/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_CLI_H
#define CONTROL_CLI_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/tick.h"

/* The command line's verbs: cli.c reads the arguments and has the table, cli_verb.c does them. */
#define CLI_WORD_MAX 32u

enum cli_status { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

struct cli {
    const char *socket_path;
    bool is_or_upgrade;
    bool is_json, is_reference, is_dry_run, is_keep, is_host, is_only_new, is_terse, is_stop,
        is_scram, is_csv, is_help;
    const char *limit; /* NULL: not given, as the next three */
    const char *file, *count, *seconds, *by, *reason, *duration, *to, *program;
    const char *part;                   /* of a message; NULL: all of it */
    const char *operands[CLI_WORD_MAX]; /* behind the verb */
    const char *options[CLI_WORD_MAX];  /* that were given */
    uint32_t operand_count, option_count;
    const char *wrong; /* what is no option, or not as it must be; NULL: nothing */
};

struct cli_verb {
    const char *name; /* one or two words */
    uint32_t operand_min, operand_max;
    const char *operands, *help;
    enum cli_status (*run)(const struct cli *cli, const struct cli_verb *verb);
    void (*print)(const json_t *answer, wall_us now, FILE *out); /* of an answer of the relay */
};

/** What the relay answers; NULL, and told why. */
json_t *cli_ask(const struct cli *cli, const json_t *request);

/* What verbs do. */
enum cli_status cli_reload_verb(const struct cli *cli, const struct cli_verb *verb);
enum cli_status cli_upgrade_verb(const struct cli *cli, const struct cli_verb *verb);
enum cli_status cli_relay_verb(const struct cli *cli, const struct cli_verb *verb);
enum cli_status cli_list_verb(const struct cli *cli, const struct cli_verb *verb);
enum cli_status cli_cat_verb(const struct cli *cli, const struct cli_verb *verb);
enum cli_status cli_trace_verb(const struct cli *cli, const struct cli_verb *verb);
enum cli_status cli_drain_verb(const struct cli *cli, const struct cli_verb *verb);
enum cli_status cli_import_verb(const struct cli *cli, const struct cli_verb *verb);
enum cli_status cli_order_verb(const struct cli *cli, const struct cli_verb *verb);
enum cli_status cli_cancel_verb(const struct cli *cli, const struct cli_verb *verb);
enum cli_status cli_site_verb(const struct cli *cli, const struct cli_verb *verb);
enum cli_status cli_explain_verb(const struct cli *cli, const struct cli_verb *verb);
enum cli_status cli_top_verb(const struct cli *cli, const struct cli_verb *verb);
enum cli_status cli_check_verb(const struct cli *cli, const struct cli_verb *verb);
enum cli_status cli_user_hash_verb(const struct cli *cli, const struct cli_verb *verb);
enum cli_status cli_config_verb(const struct cli *cli, const struct cli_verb *verb);
enum cli_status cli_counters_verb(const struct cli *cli, const struct cli_verb *verb);
enum cli_status cli_metrics_verb(const struct cli *cli, const struct cli_verb *verb);
enum cli_status cli_records_verb(const struct cli *cli, const struct cli_verb *verb);
enum cli_status cli_records_print_verb(const struct cli *cli, const struct cli_verb *verb);
enum cli_status cli_spool_verb(const struct cli *cli, const struct cli_verb *verb);
enum cli_status cli_version_verb(const struct cli *cli, const struct cli_verb *verb);
/* Answers that are a status, or a text. */
void cli_verb_status_print(const json_t *answer, wall_us now, FILE *out);
void cli_verb_text_print(const json_t *answer, wall_us now, FILE *out);

#endif

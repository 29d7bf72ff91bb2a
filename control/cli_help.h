/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_CLI_HELP_H
#define CONTROL_CLI_HELP_H

#include "control/cli.h"

/* What the table of verbs says, for people: at most HELP_WIDTH columns. */
#define HELP_WIDTH 80u

/** A line for each verb. */
void cli_help_list(const struct cli_verb *verbs, uint32_t count, FILE *out);
/** A verb with its operands, and all that is to be said of it. */
void cli_help_verb(const struct cli_verb *verb, FILE *out);
/** Those whose name begins with these words; returns how many. */
uint32_t cli_help_matching(const struct cli_verb *verbs, uint32_t count, const struct cli *cli,
                           FILE *out);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_CLI_CAT_H
#define CONTROL_CLI_CAT_H

#include <stdio.h>

#include "base/err.h"
#include "base/tick.h"

/**
 * Print the answer to `queue cat` as it comes: the envelope as text, an empty line, the octets of
 * the message as they are; where `out` is a terminal, control characters and what is not ASCII
 * escaped. With is_json the lines of the answer, but for the last one.
 *
 * Errors: false, told on standard error: refused, ended early, or not written.
 */
bool cli_cat_print(FILE *in, bool is_json, wall_us now, FILE *out) MUST_CHECK;

#endif

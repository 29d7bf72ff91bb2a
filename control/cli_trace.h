/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_CLI_TRACE_H
#define CONTROL_CLI_TRACE_H

#include <stdio.h>

#include "base/err.h"

/**
 * Print conversations as they come, a line each and at once; with is_json the rows as they are.
 * Errors: false, told on standard error: refused, ended early, or not written.
 */
bool cli_trace_print(FILE *in, bool is_json, FILE *out) MUST_CHECK;

#endif

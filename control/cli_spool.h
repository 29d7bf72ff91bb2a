/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_CLI_SPOOL_H
#define CONTROL_CLI_SPOOL_H

#include "base/err.h"

/**
 * `angarium spool check|stats|dump|adopt`: work on a spool directory that no relay uses, or a copy.
 *
 * Bounds:     `verb` is one of the four, two words; operands as the table of verbs counts them.
 * Errors:     false, told on standard error: the directory cannot be used, or check found damage.
 */
bool cli_spool_run(const char *verb, const char *const operands[2], uint32_t operand_count,
                   bool is_json) MUST_CHECK;

#endif

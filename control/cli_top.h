/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_CLI_TOP_H
#define CONTROL_CLI_TOP_H

#include <stdbool.h>

/*
 * `angarium top`: the relay at a glance, on a terminal of 80 columns and 24 lines or more, until
 * the user leaves. See cli_top.c.
 */

/** False, with text on standard error: no terminal, or no relay. */
bool cli_top_run(const char *socket_path);

#endif

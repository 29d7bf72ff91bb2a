/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_CONFIG_SHOW_H
#define CONTROL_CONFIG_SHOW_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

/*
 * Every option of a configuration with the value it has and where that comes from: a line of the
 * file, or the default. As text, an option a line, so that two of them can be compared; or as JSON.
 */

/** False: the file has mistakes, which are told on `complaints`. */
bool config_show(const char *path, FILE *out, FILE *complaints);
/** The same as {"ok", "file", "rows"}, or "error"; the caller's. What is in files that options name
 * is not in it. NULL: no memory, or a path that is no UTF-8. */
json_t *config_show_json(const char *path);

#endif

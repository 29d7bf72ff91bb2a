/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_CONFIG_SHOW_H
#define CONTROL_CONFIG_SHOW_H

#include <stdbool.h>
#include <stdio.h>

/*
 * Every option of a configuration with the value it has and where that comes from: a line of the
 * file, or the default. As text, an option a line, so that two of them can be compared; or as JSON.
 */

/** False: the file has mistakes, which are told on `complaints`. */
bool config_show(const char *path, bool is_json, FILE *out, FILE *complaints);

#endif

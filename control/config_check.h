/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_CONFIG_CHECK_H
#define CONTROL_CONFIG_CHECK_H

#include <jansson.h>

#include "base/span.h"

/*
 * A configuration, checked for programs:
 *
 *   {"ok": false, "error": "...", "file": "...",
 *    "errors": [{"file", "line", "column", "option", "text"}],
 *    "warnings": [{"option", "line", "text"}]}
 *
 * What is not known of an error is left out. At most CONFIG_COMPLAINT_MAX errors are told.
 */
#define CONFIG_CHECK_TEXT   "text" /* the `file` of a text */
#define CONFIG_WARNINGS_MAX 100u

/** Of a file, as `angarium check`. The caller's. Blocks on files. */
json_t *config_check_file(const char *path);
/**
 * Of a text, without what this machine would have to say to it. Nothing outside the text is read:
 * whatever it names as a file, nobody learns by it what is there. `include` is an error, other
 * files are warnings. The caller's.
 *
 * Cost: about a second for what config_parse() takes at most.
 */
json_t *config_check_text(struct span text);

#endif

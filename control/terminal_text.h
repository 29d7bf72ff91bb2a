/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_TERMINAL_TEXT_H
#define CONTROL_TERMINAL_TEXT_H

#include <stdbool.h>
#include <stdio.h>

#include "base/span.h"

/** Does the terminal take UTF-8, by the locale of the environment? To one that does not, a
 * character may have octets in it that are its control characters. */
bool terminal_has_utf8(void);

/**
 * What a peer sent, fit for a terminal: as log_escape() writes it, but with `has_utf8` what of it a
 * reader can see stays as it is. Escaped are octets that are no UTF-8 (also half a character at the
 * end), control characters, what changes the direction of text or shows nothing, and what has no
 * meaning.
 *
 * Bounds: at most `size` octets with the NUL; never half an escape or half a character. Returns
 *         ret_text.
 */
const char *terminal_text(struct span octets, bool has_utf8, char *ret_text, uint32_t size);
/** A line of a file, whole and with its end, likewise; but quotes and backslashes, which mean
 * something in it, stay. */
void terminal_line(struct span line, bool has_utf8, FILE *out);

#endif

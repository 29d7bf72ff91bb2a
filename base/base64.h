/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_BASE64_H
#define BASE_BASE64_H

#include "base/err.h"
#include "base/span.h"

/* Octets as text (RFC 4648 section 4), without line breaks. */
#define BASE64_SIZE(octets) (((octets) + 2) / 3 * 4)

/** Writes BASE64_SIZE(octets.size) characters, no NUL. */
void base64_encode(struct span octets, char *ret_text);
/**
 * Strict: whole groups of four, padding at the end only, unused bits zero.
 *
 * Bounds:  writes at most text.size / 4 * 3 octets, also when it fails.
 * Errors:  ERR_PEER_SYNTAX.
 */
enum err base64_decode(struct span text, uint8_t *ret_octets, uint32_t *ret_size) MUST_CHECK;

#endif

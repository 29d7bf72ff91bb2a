/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_SMTP_DSN_H
#define RELAY_SMTP_DSN_H

#include "base/err.h"
#include "base/span.h"

/*
 * The values of the DSN extension's parameters, RFC 3461 section 4. What is valid is kept as it was
 * said and passed on octet for octet; only notices show it decoded.
 */

/**
 * NOTIFY: "NEVER", or a list of SUCCESS, FAILURE and DELAY, each at most once, in any case.
 *
 * Errors: ERR_PEER_SYNTAX; *ret_notify (enum envelope_notify) untouched.
 */
enum err smtp_notify_parse(struct span value, uint8_t *ret_notify) MUST_CHECK;
/** As it is said in a command; empty when nothing was said. Static text. */
struct span smtp_notify_text(uint8_t notify);

/** Printable ASCII, not empty, with "+XX" for octets: RFC 3461 section 4. */
bool smtp_xtext_is_valid(struct span text);
/** ENVID: xtext of printable ASCII, 1 to ENVELOPE_ENVID_SIZE_MAX octets as encoded. */
bool smtp_envid_is_valid(struct span value);
/** ORCPT: an address type, ';', xtext of printable ASCII; at most ENVELOPE_ORCPT_SIZE_MAX octets.
 */
bool smtp_orcpt_is_valid(struct span value);

/** Decode valid xtext into at most value.size octets; returns how many. */
uint32_t smtp_xtext_decode(struct span value, uint8_t *ret_octets);

#endif

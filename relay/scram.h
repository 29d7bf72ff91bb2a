/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_SCRAM_H
#define RELAY_SCRAM_H

#include "relay/auth.h"

/**
 * The name in the first message of a SCRAM client, "n,,n=alice,r=...": all that we have to know of
 * an exchange that Dovecot makes with the client.
 *
 * Spec:   RFC 5802 sections 5.1 and 7; no channel binding, and nobody acts for somebody else.
 * Errors: ERR_PEER_SYNTAX: no such message, or a name that can be none here; outputs untouched.
 */
enum err scram_name(struct span message, char ret_name[AUTH_NAME_MAX + 1],
                    uint32_t *ret_size) MUST_CHECK;

#endif

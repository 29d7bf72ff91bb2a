/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_CLI_USER_H
#define CONTROL_CLI_USER_H

#include <stdbool.h>
#include <stdio.h>

#include "relay/auth.h"

/** Octets of the longest password: crypt(3) takes fewer than SCRAM. */
uint32_t user_password_max(bool is_scram);
/** The hash of a password for a users file, or its keys for SCRAM. Blocks for the time that one
 * takes. False: no randomness or no memory. */
bool user_hash_make(const char *password, bool is_scram, char ret_hash[AUTH_HASH_MAX + 1]);
/**
 * `angarium user hash`: read a password, the first line of `in`, and print what becomes of it. At a
 * terminal the password is asked for and not shown. False: told why.
 */
bool cli_user_hash(bool is_scram, FILE *in, FILE *out);

#endif

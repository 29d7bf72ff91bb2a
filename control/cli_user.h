/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_CLI_USER_H
#define CONTROL_CLI_USER_H

#include <stdbool.h>
#include <stdio.h>

/**
 * `angarium user hash`: read a password, the first line of `in`, and print its hash for a users
 * file, or its keys for SCRAM. At a terminal the password is asked for and not shown. False: told
 * why.
 */
bool cli_user_hash(bool is_scram, FILE *in, FILE *out);

#endif

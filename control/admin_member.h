/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_MEMBER_H
#define CONTROL_ADMIN_MEMBER_H

#include <jansson.h>
#include <stdbool.h>

#define ADMIN_MEMBER_WHY_SIZE 128u

/** Is every member of this request, which may change something, one that there is, and of its type?
 * Else why not, for people: who mistypes `dry_run` must not have it done. */
bool admin_members_are_known(const json_t *request, char ret_why[ADMIN_MEMBER_WHY_SIZE]);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_MEMBER_H
#define CONTROL_ADMIN_MEMBER_H

#include <jansson.h>
#include <stdbool.h>

#define ADMIN_MEMBER_WHY_SIZE 128u

enum admin_member_kind {
    ADMIN_MEMBER_TEXT,
    ADMIN_MEMBER_NUMBER,
    ADMIN_MEMBER_BOOLEAN,
    ADMIN_MEMBER_KIND_COUNT /* there is no such member */
};

/** What the member of this name must be. */
enum admin_member_kind admin_member_kind(const char *name);
/** "a string", "a whole number", "true or false". */
const char *admin_member_expectation(enum admin_member_kind kind);
bool admin_member_is_of_kind(const json_t *value, enum admin_member_kind kind);

/** Is every member of this request, which may change something, one that there is, and of its type?
 * Else why not, for people: who mistypes `dry_run` must not have it done. */
bool admin_members_are_known(const json_t *request, char ret_why[ADMIN_MEMBER_WHY_SIZE]);

#endif

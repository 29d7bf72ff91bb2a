/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_VERB_H
#define CONTROL_VERB_H

#include <stdbool.h>
#include <stdint.h>

#include "control/http_access.h"

/* The rows of verb.def, for who serves them over HTTP and who tells what there is. */
struct verb {
    const char *name;
    const char *operands, *help; /* of the command line; "": it is not a verb there */
    enum http_role role;
    const char *members; /* of a request, with blanks between */
};

extern const struct verb verb_table[];
extern const uint32_t verb_count;

/** NULL: there is none of that name. */
const struct verb *verb_find(const char *name);
/** The next of its members, from `*at` on, which is its `members` at first. Its size, 0: that was
 * all; it begins at `*at` less that size. */
uint32_t verb_member_next(const char **at);
bool verb_has_member(const struct verb *verb, const char *name);

#endif

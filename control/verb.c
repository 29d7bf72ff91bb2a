/* SPDX-License-Identifier: Apache-2.0 */
#include "control/verb.h"

#include <string.h>

#include "base/check.h"

const struct verb verb_table[] = {
#define VERB(name, min, max, operands, help, run, print, role, members)                            \
    {name, operands, help, HTTP_ROLE_##role, members},
#define HTTP_VERB(name, help, role, members) {name, "", help, HTTP_ROLE_##role, members},
#include "control/verb.def"
#undef VERB
#undef HTTP_VERB
};
const uint32_t verb_count = COUNT_OF(verb_table);

const struct verb *verb_find(const char *name)
{
    for (uint32_t i = 0; i < verb_count; i++) {
        if (strcmp(verb_table[i].name, name) == 0)
            return &verb_table[i];
    }
    return NULL;
}

uint32_t verb_member_next(const char **at)
{
    const char *begin = *at + strspn(*at, " ");
    uint32_t size = (uint32_t)strcspn(begin, " ");

    *at = begin + size;
    return size;
}

bool verb_has_member(const struct verb *verb, const char *name)
{
    const char *at = verb->members;

    for (uint32_t size; (size = verb_member_next(&at)) > 0;) {
        if (strlen(name) == size && strncmp(at - size, name, size) == 0)
            return true;
    }
    return false;
}

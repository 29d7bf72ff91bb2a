/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The members that a request can have. What a verb does not look at is left to the verb; what no
 * verb looks at is a mistake.
 */
#include "control/admin_member.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"

enum kind { TEXT, NUMBER, BOOLEAN, KIND_COUNT };

static const struct member {
    const char *name;
    enum kind kind;
} members[] = {
    {"all", BOOLEAN},       {"by", TEXT},          {"count", NUMBER}, {"dry_run", BOOLEAN},
    {"duration", TEXT},     {"file", TEXT},        {"filter", TEXT},  {"host", BOOLEAN},
    {"id", TEXT},           {"keep", BOOLEAN},     {"limit", NUMBER}, {"look", BOOLEAN},
    {"max_age_ms", NUMBER}, {"only_new", BOOLEAN}, {"part", TEXT},    {"reason", TEXT},
    {"seconds", NUMBER},    {"settings", TEXT},    {"stop", BOOLEAN}, {"stream", BOOLEAN},
    {"terse", BOOLEAN},     {"to", TEXT},          {"verb", TEXT},    {"want", BOOLEAN},
};

static bool is_of_kind(const json_t *value, enum kind kind)
{
    return kind == TEXT     ? json_is_string(value)
           : kind == NUMBER ? json_is_integer(value)
                            : json_is_boolean(value);
}

static const struct member *member_find(const char *name)
{
    for (uint32_t i = 0; i < COUNT_OF(members); i++) {
        if (strcmp(members[i].name, name) == 0)
            return &members[i];
    }
    return NULL;
}

bool admin_members_are_known(const json_t *request, char ret_why[ADMIN_MEMBER_WHY_SIZE])
{
    static const char *const kinds[KIND_COUNT] = {
        [TEXT] = "a string", [NUMBER] = "a whole number", [BOOLEAN] = "true or false"};
    char escaped[64];
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)request, name, value)
    {
        const struct member *member = member_find(name);
        if (member != NULL && (is_of_kind(value, member->kind) || strcmp(name, "verb") == 0))
            continue; /* a verb of another type is none */
        if (member == NULL)
            (void)snprintf(ret_why, ADMIN_MEMBER_WHY_SIZE,
                           "there is no member %s; nothing was done",
                           log_escape(span_from_text(name), escaped, sizeof(escaped)));
        else
            (void)snprintf(ret_why, ADMIN_MEMBER_WHY_SIZE, "%s must be %s; nothing was done", name,
                           kinds[member->kind]);
        return false;
    }
    return true;
}

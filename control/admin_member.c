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

static const struct {
    const char *name;
    enum admin_member_kind kind;
} members[] = {
    {"all", ADMIN_MEMBER_BOOLEAN},      {"by", ADMIN_MEMBER_TEXT},
    {"count", ADMIN_MEMBER_NUMBER},     {"csv", ADMIN_MEMBER_BOOLEAN},
    {"dry_run", ADMIN_MEMBER_BOOLEAN},  {"duration", ADMIN_MEMBER_TEXT},
    {"file", ADMIN_MEMBER_TEXT},        {"filter", ADMIN_MEMBER_TEXT},
    {"host", ADMIN_MEMBER_BOOLEAN},     {"id", ADMIN_MEMBER_TEXT},
    {"keep", ADMIN_MEMBER_BOOLEAN},     {"limit", ADMIN_MEMBER_NUMBER},
    {"look", ADMIN_MEMBER_BOOLEAN},     {"main_cf", ADMIN_MEMBER_TEXT},
    {"master_cf", ADMIN_MEMBER_TEXT},   {"max_age_ms", ADMIN_MEMBER_NUMBER},
    {"only_new", ADMIN_MEMBER_BOOLEAN}, {"part", ADMIN_MEMBER_TEXT},
    {"password", ADMIN_MEMBER_TEXT},    {"reason", ADMIN_MEMBER_TEXT},
    {"scram", ADMIN_MEMBER_BOOLEAN},    {"seconds", ADMIN_MEMBER_NUMBER},
    {"settings", ADMIN_MEMBER_TEXT},    {"stop", ADMIN_MEMBER_BOOLEAN},
    {"stream", ADMIN_MEMBER_BOOLEAN},   {"terse", ADMIN_MEMBER_BOOLEAN},
    {"text", ADMIN_MEMBER_TEXT},        {"to", ADMIN_MEMBER_TEXT},
    {"verb", ADMIN_MEMBER_TEXT},        {"want", ADMIN_MEMBER_BOOLEAN},
};

bool admin_member_is_of_kind(const json_t *value, enum admin_member_kind kind)
{
    return kind == ADMIN_MEMBER_TEXT     ? json_is_string(value)
           : kind == ADMIN_MEMBER_NUMBER ? json_is_integer(value)
                                         : json_is_boolean(value);
}

enum admin_member_kind admin_member_kind(const char *name)
{
    for (uint32_t i = 0; i < COUNT_OF(members); i++) {
        if (strcmp(members[i].name, name) == 0)
            return members[i].kind;
    }
    return ADMIN_MEMBER_KIND_COUNT;
}

const char *admin_member_expectation(enum admin_member_kind kind)
{
    static const char *const kinds[ADMIN_MEMBER_KIND_COUNT] = {
        [ADMIN_MEMBER_TEXT] = "a string",
        [ADMIN_MEMBER_NUMBER] = "a whole number",
        [ADMIN_MEMBER_BOOLEAN] = "true or false"};

    CHECK(kind < ADMIN_MEMBER_KIND_COUNT);
    return kinds[kind];
}

bool admin_members_are_known(const json_t *request, char ret_why[ADMIN_MEMBER_WHY_SIZE])
{
    char escaped[64];
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)request, name, value)
    {
        enum admin_member_kind kind = admin_member_kind(name);
        if (kind == ADMIN_MEMBER_KIND_COUNT)
            (void)snprintf(ret_why, ADMIN_MEMBER_WHY_SIZE,
                           "there is no member %s; nothing was done",
                           log_escape(span_from_text(name), escaped, sizeof(escaped)));
        else if (admin_member_is_of_kind(value, kind) || strcmp(name, "verb") == 0)
            continue; /* a verb of another type is none */
        else
            (void)snprintf(ret_why, ADMIN_MEMBER_WHY_SIZE, "%s must be %s; nothing was done", name,
                           admin_member_expectation(kind));
        return false;
    }
    return true;
}

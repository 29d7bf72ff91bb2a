/* SPDX-License-Identifier: Apache-2.0 */
/* What there is, for programs: every verb with its path, who may, how, and with what. */
#include <string.h>

#include "control/admin_member.h"
#include "control/http_request.h"
#include "control/http_serve.h"
#include "control/verb.h"

static json_t *members_new(const struct verb *verb)
{
    static const char *const types[ADMIN_MEMBER_KIND_COUNT] = {[ADMIN_MEMBER_TEXT] = "string",
                                                               [ADMIN_MEMBER_NUMBER] = "integer",
                                                               [ADMIN_MEMBER_BOOLEAN] = "boolean"};
    json_t *members = json_object();
    const char *at = verb->members;

    for (uint32_t size; (size = verb_member_next(&at)) > 0;) {
        char name[32];
        CHECK(size < sizeof(name));
        memcpy(name, at - size, size);
        name[size] = '\0';
        enum admin_member_kind kind = admin_member_kind(name);
        CHECK(kind < ADMIN_MEMBER_KIND_COUNT); /* a row of verb.def */
        json_object_set_new(members, name, json_string(types[kind]));
    }
    return members;
}

static json_t *path_new(const struct verb *verb)
{
    char path[HTTP_VERB_MAX];

    CHECK(strlen(verb->name) < sizeof(path));
    (void)snprintf(path, sizeof(path), "%s", verb->name);
    for (char *blank; (blank = strchr(path, ' ')) != NULL;)
        *blank = '/';
    return json_sprintf(HTTP_API_PREFIX "%s", path);
}

static json_t *verb_new(const struct verb *verb)
{
    bool is_admin = verb->role == HTTP_ROLE_ADMIN;

    return json_pack(
        "{ss,so,ss,so,so,ss,ss}", "verb", verb->name, "path", path_new(verb), "role",
        is_admin ? "admin" : "viewer", "methods",
        is_admin ? json_pack("[s]", "POST") : json_pack("[sss]", "GET", "HEAD", "POST"), "members",
        members_new(verb), "command_line", verb->operands, "help", verb->help);
}

enum MHD_Result http_serve_help(const struct http_client *client, const json_t *request)
{
    json_t *rows = json_array();

    (void)request;
    for (uint32_t i = 0; i < verb_count; i++)
        json_array_append_new(rows, verb_new(&verb_table[i]));
    return http_answer_json(client, MHD_HTTP_OK, json_pack("{sb,so}", "ok", 1, "rows", rows));
}

enum MHD_Result http_serve_version(const struct http_client *client, const json_t *request)
{
    (void)request;
    return http_answer_json(client, MHD_HTTP_OK,
                            json_pack("{sb,ss}", "ok", 1, "version", ANGARIUM_VERSION));
}

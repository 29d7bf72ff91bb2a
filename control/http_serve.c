/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which verb is answered by whom. What has no row here is the relay's to answer, over the control
 * socket (http_ask.c); verb.def has them all.
 *
 * A member that a verb which is answered here does not have is refused: `file` of a capture is not
 * passed over in silence.
 */
#include "control/http_serve.h"

#include <string.h>

#include "base/log.h"
#include "control/admin_member.h"
#include "control/http_request.h"
#include "control/verb.h"

static const struct service {
    const char *verb;
    enum MHD_Result (*serve)(const struct http_client *client, const json_t *request);
    bool is_work; /* it takes its time */
} services[] = {
    {"check", http_serve_check, true},
    {"config show", http_serve_config, true},
    {"import postfix", http_serve_import, true},
    {"records find", http_serve_records_find, true},
    {"user hash", http_serve_user_hash, true},
    {"records print", http_serve_records_print, false},
    {"spool check", http_serve_spool, false},
    {"spool stats", http_serve_spool, false},
    {"spool dump", http_serve_spool_in_use, false},
    {"spool adopt", http_serve_spool_in_use, false},
    {"capture", http_serve_capture, false},
    {"upgrade", http_serve_upgrade, false},
    {"top", http_serve_top, false},
    {"help", http_serve_help, false},
    {"version", http_serve_version, false},
};

static bool members_are_known(const struct verb *verb, const json_t *request,
                              char ret_why[ADMIN_MEMBER_WHY_SIZE])
{
    char escaped[64];
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)request, name, value)
    {
        if (strcmp(name, "verb") == 0)
            continue;
        if (!verb_has_member(verb, name))
            (void)snprintf(ret_why, ADMIN_MEMBER_WHY_SIZE, "`%s` has no member %s", verb->name,
                           log_escape(span_from_text(name), escaped, sizeof(escaped)));
        else if (!admin_member_is_of_kind(value, admin_member_kind(name)))
            (void)snprintf(ret_why, ADMIN_MEMBER_WHY_SIZE, "%s must be %s", name,
                           admin_member_expectation(admin_member_kind(name)));
        else
            continue;
        return false;
    }
    return true;
}

static enum MHD_Result serve_here(const struct http_client *client, const struct service *service,
                                  const json_t *request)
{
    char why[ADMIN_MEMBER_WHY_SIZE];

    if (!members_are_known(verb_find(service->verb), request, why))
        return http_answer_error(client, MHD_HTTP_BAD_REQUEST, why);
    if (!service->is_work)
        return service->serve(client, request);
    if (!http_work_begin(client->http->places))
        return http_answer_busy(client);
    enum MHD_Result result = service->serve(client, request);
    http_work_end(client->http->places);
    return result;
}

enum MHD_Result http_serve(const struct http_client *client, const json_t *request)
{
    const char *verb = json_string_value(json_object_get(request, "verb"));

    if (verb_find(verb) == NULL)
        return http_answer_error(client, MHD_HTTP_BAD_REQUEST, "unknown verb");
    for (uint32_t i = 0; i < COUNT_OF(services); i++) {
        if (strcmp(services[i].verb, verb) == 0)
            return serve_here(client, &services[i], request);
    }
    return http_answer_relay(client, request);
}

static bool path_is(const char *path, const char *verb)
{
    return path != NULL && strncmp(path, HTTP_API_PREFIX, strlen(HTTP_API_PREFIX)) == 0 &&
           strcmp(path + strlen(HTTP_API_PREFIX), verb) == 0;
}

bool http_path_takes_text(const char *path)
{
    return path_is(path, "check") || path_is(path, "import/postfix");
}

bool http_path_is_secret(const char *path)
{
    return path_is(path, "user/hash");
}

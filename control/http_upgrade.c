/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An upgrade over HTTP. The process that answers is the one that is replaced, so the answer is that
 * it has begun (202); how it ended is told to who looks: by this process, if it failed, or by the
 * next one, whose pid is another.
 *
 *   {}               a successor is started
 *   {"look":true}    "pid", "is_managed", "is_wanted" (admin_upgrade.c), and of this process' last
 *                    try "state" and "text"
 *   {"want":true}    the next reload of a service manager upgrades
 */
#include <string.h>
#include <unistd.h>

#include "control/http_serve.h"
#include "control/starter.h"

static enum MHD_Result upgrade_begin(const struct http_client *client)
{
    char text[STARTER_TEXT_SIZE];

    if (starter_begin(client->http->starter))
        return http_answer_json(client, MHD_HTTP_ACCEPTED,
                                json_pack("{sb,si,ss}", "ok", 1, "pid", (int)getpid(), "text",
                                          "a successor is being started: look how it ends"));
    bool is_gone = starter_look(client->http->starter, text) == STARTER_GONE;
    return http_answer_error(client, is_gone ? MHD_HTTP_INTERNAL_SERVER_ERROR : MHD_HTTP_CONFLICT,
                             is_gone ? "there is nobody to start one: angarium upgrade"
                                     : "another upgrade is under way");
}

static enum MHD_Result upgrade_look(const struct http_client *client, const json_t *request)
{
    static const char *const states[] = {[STARTER_IDLE] = "idle",
                                         [STARTER_RUNNING] = "running",
                                         [STARTER_FAILED] = "failed",
                                         [STARTER_DONE] = "done",
                                         [STARTER_GONE] = "gone"};
    enum MHD_Result result = MHD_NO;
    char text[STARTER_TEXT_SIZE];
    json_t *answer = http_ask_json(client, request, &result);

    if (answer == NULL)
        return result;
    enum starter_state state = starter_look(client->http->starter, text);
    if (json_is_true(json_object_get(answer, "ok"))) {
        json_object_set_new(answer, "state", json_string(states[state]));
        json_object_set_new(answer, "text", json_string(text));
    }
    return http_answer_result(client, answer);
}

enum MHD_Result http_serve_upgrade(const struct http_client *client, const json_t *request)
{
    if (json_is_true(json_object_get(request, "look")))
        return upgrade_look(client, request);
    if (json_is_true(json_object_get(request, "want")))
        return http_answer_relay(client, request);
    return upgrade_begin(client);
}

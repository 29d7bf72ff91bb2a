/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spool of the relay that runs, over HTTP. It is in use, so that nobody can read through it:
 * what there is of it is what the relay has counted, and what its search for damage, which reads
 * all of it again and again, has found. What needs a spool that is not in use is refused, as beside
 * a running relay.
 */
#include <string.h>

#include "control/http_serve.h"

/* What `spool check` tells, of the numbers of a status. */
static const char *const check_names[] = {"scrub_rounds",     "scrubbed_octets",   "damaged_ranges",
                                          "damaged_messages", "repaired_messages", "sync_failures",
                                          "is_stuck",         "is_failed"};
/* A spool is good without any of these. */
static const char *const faults[] = {"damaged_ranges", "damaged_messages", "sync_failures",
                                     "is_stuck", "is_failed"};

static json_t *check_new(const json_t *spool)
{
    json_t *answer = json_object();
    bool is_good = true;

    for (uint32_t i = 0; i < COUNT_OF(faults); i++)
        is_good = is_good && json_integer_value(json_object_get(spool, faults[i])) == 0;
    json_object_set_new(answer, "ok", json_true());
    json_object_set_new(answer, "is_good", json_boolean(is_good));
    for (uint32_t i = 0; i < COUNT_OF(check_names); i++)
        json_object_set(answer, check_names[i], json_object_get(spool, check_names[i]));
    return answer;
}

static json_t *stats_new(json_t *spool)
{
    json_t *answer = json_pack("{sb}", "ok", 1);

    json_object_update(answer, spool);
    return answer;
}

enum MHD_Result http_serve_spool(const struct http_client *client, const json_t *request)
{
    const char *verb = json_string_value(json_object_get(request, "verb"));
    bool is_check = strcmp(verb, "spool check") == 0;
    json_t *question = json_copy((json_t *)(uintptr_t)request);
    enum MHD_Result result = MHD_NO;

    json_object_set_new(question, "verb", json_string("status"));
    json_t *status = http_ask_json(client, question, &result);
    json_decref(question);
    if (status == NULL)
        return result;
    json_t *spool = json_object_get(status, "spool");
    if (spool != NULL)
        result = http_answer_result(client, is_check ? check_new(spool) : stats_new(spool));
    else /* a relay that leaves refuses */
        result = http_answer_json(client, MHD_HTTP_SERVICE_UNAVAILABLE, json_incref(status));
    json_decref(status);
    return result;
}

enum MHD_Result http_serve_spool_in_use(const struct http_client *client, const json_t *request)
{
    (void)request;
    return http_answer_error(client, MHD_HTTP_CONFLICT,
                             "a relay uses this spool: this is for `angarium` on its machine, when "
                             "the relay is stopped");
}

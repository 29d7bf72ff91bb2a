/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: requests. A request is answered at once, or is no request of ours, or becomes
 * the query of a job.
 *
 * Bounds: ADMIN_ROW_MAX rows of an answer that is one object.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "control/admin_explain.h"
#include "control/admin_internal.h"
#include "control/admin_order.h"
#include "control/admin_order_list.h"
#include "control/admin_pattern.h"
#include "control/admin_plane.h"
#include "control/admin_probe.h"
#include "control/admin_queue.h"
#include "control/admin_quota.h"
#include "control/admin_reload.h"
#include "control/admin_site.h"
#include "control/admin_site_order.h"
#include "control/admin_source.h"

#define ADMIN_ROW_MAX     10000u
#define ADMIN_ROW_DEFAULT 100u

const char *admin_job_verb(const struct admin_client *client)
{
    const char *verb = json_string_value(json_object_get(client->parsed, "verb"));

    return verb == NULL ? "" : verb;
}

/* As SIGTERM, which the relay hears of in the same way. */
static void job_stop(struct admin *admin, struct admin_client *client)
{
    admin->options.stop(admin->options.context);
    admin_client_answer(admin, client,
                        json_pack("{sb,ss}", "ok", 1, "text",
                                  "the relay stops: what is under way ends, what waits is kept"));
}

static bool job_prepare_capture(struct admin *admin, struct admin_client *client)
{
    char why[DATAPLANE_CAPTURE_ERROR_SIZE] = "no capture runs";
    bool is_stop = strcmp(admin_job_verb(client), "capture stop") == 0;
    int reader = -1;
    bool is_ok = is_stop ? admin_capture_end(&admin->capture)
                         : admin_capture_begin(&admin->capture, client->parsed,
                                               admin->options.shard_count, &reader, why);

    admin->job.is_capture = is_ok;
    if (!is_ok)
        admin_client_refuse(admin, client, why);
    /* If nobody has got it, nobody reads, and the capture ends. */
    if (reader >= 0 && !admin_client_pass(client, reader))
        log_line(LOG_WARNING, "event=capture: its reader is gone");
    if (reader >= 0)
        close(reader);
    return is_ok;
}

/* What fails or is only tried is answered at once; else all shards are asked, so that they have the
 * new settings when the client hears of it. */
static bool job_prepare_reload(struct admin *admin, struct admin_client *client)
{
    char text[ADMIN_ERROR_SIZE] = "";
    bool is_dry_run = json_is_true(json_object_get(client->parsed, "dry_run"));
    bool is_ok = admin->options.reload(admin->options.context, is_dry_run, text);

    for (size_t size = strlen(text); size > 0 && text[size - 1] == '\n'; size--)
        text[size - 1] = '\0'; /* of the last of several lines */
    if (is_ok && !is_dry_run && admin_reload_prepare(&admin->job.query, text))
        return true;
    json_t *answer = json_object();
    json_object_set_new(answer, "ok", json_boolean(is_ok));
    json_object_set_new(answer, is_ok ? "text" : "error", json_string(text));
    if (is_dry_run)
        json_object_set_new(answer, "dry_run", json_true());
    admin_client_answer(admin, client, answer);
    return false;
}

/* How many rows are asked for; 0 are all that an answer can have. A stream goes on to the end
 * unless it was told otherwise. */
static uint64_t job_limit(const struct admin_job *job, const struct admin_client *client)
{
    json_int_t limit = json_integer_value(json_object_get(client->parsed, "limit"));

    if (job->query.kind == SHARD_QUERY_QUEUE_SHOW)
        return ADMIN_ROW_MAX;
    if (job->is_stream)
        return limit > 0 ? (uint64_t)limit : UINT64_MAX;
    if (!json_is_integer(json_object_get(client->parsed, "limit")) &&
        strcmp(admin_job_verb(client), "counters") != 0) /* of which there are only so many */
        return ADMIN_ROW_DEFAULT;
    return limit > 0 && limit < ADMIN_ROW_MAX ? (uint64_t)limit : ADMIN_ROW_MAX;
}

static bool job_refuse(struct admin *admin, struct admin_client *client, const char *why)
{
    admin_client_refuse(admin, client, why);
    return false;
}

/* What is done at once, and cannot be tried: whoever asks for that must not have it done. */
static bool verb_has_no_dry_run(const char *verb)
{
    static const char *const verbs[] = {"upgrade", "drain end", "capture", "capture stop"};

    for (uint32_t i = 0; i < COUNT_OF(verbs); i++) {
        if (strcmp(verb, verbs[i]) == 0)
            return true;
    }
    return false;
}

bool admin_job_is_elsewhere(struct admin *admin, struct admin_client *client, tick_us now)
{
    const char *verb = admin_job_verb(client);
    bool is_stop = strcmp(verb, "drain") == 0 &&
                   json_is_true(json_object_get(client->parsed, "stop")) &&
                   !json_is_true(json_object_get(client->parsed, "dry_run"));

    if (json_object_get(client->parsed, "dry_run") != NULL && verb_has_no_dry_run(verb))
        admin_client_refuse(admin, client, "there is no dry run of this");
    else if (is_stop)
        job_stop(admin, client);
    else if (strcmp(verb, "upgrade") == 0)
        admin_upgrade(admin, client, now);
    else if (strcmp(verb, "trace") == 0)
        admin_trace_begin(admin, client, now);
    else
        return false;
    return true;
}

/* ---- requests ---- */

static bool job_prepare_probe(struct admin *admin, struct admin_client *client, bool *ret_is_ready)
{
    char why[ADMIN_PROBE_WHY_SIZE];
    enum admin_probe_kind kind =
        admin_probe_prepare(admin_job_verb(client), client->parsed, &admin->job.query, why);

    *ret_is_ready = kind == ADMIN_PROBE_READY;
    if (kind == ADMIN_PROBE_REFUSED) {
        admin_probe_end(&admin->job.query);
        admin_client_refuse(admin, client, why);
    }
    return kind != ADMIN_PROBE_NONE;
}

/* `explain` of nothing would be of all that has no name yet. */
static bool explains_nothing(const struct admin_client *client)
{
    const char *id = json_string_value(json_object_get(client->parsed, "id"));

    return strcmp(admin_job_verb(client), "explain") == 0 && (id == NULL || *id == '\0');
}

static bool job_prepare_site(struct admin *admin, struct admin_client *client, bool *ret_is_ready)
{
    char why[ADMIN_SITE_WHY_SIZE] = "no memory";
    struct shard_query *query = &admin->job.query;

    *ret_is_ready = false;
    if (explains_nothing(client)) {
        admin_client_refuse(admin, client, "say which site, or domain");
        return true;
    }
    enum admin_site_kind kind =
        admin_site_order_prepare(admin_job_verb(client), client->parsed, query, why);

    if (kind == ADMIN_SITE_NONE && !admin_pattern_prepare(admin_job_verb(client), query) &&
        !admin_order_list_prepare(admin_job_verb(client), query) &&
        !admin_quota_prepare(admin_job_verb(client), client->parsed, query, why) &&
        !admin_explain_prepare(admin_job_verb(client), client->parsed, query) &&
        !admin_site_prepare(admin_job_verb(client), client->parsed, query))
        return false;
    *ret_is_ready = kind != ADMIN_SITE_REFUSED && query->found != NULL;
    if (kind == ADMIN_SITE_REFUSED)
        admin_site_order_end(query);
    if (!*ret_is_ready)
        admin_client_refuse(admin, client, why);
    return true;
}

static bool job_prepare_source(struct admin *admin, struct admin_client *client, bool *ret_is_ready)
{
    char why[ADMIN_SOURCE_WHY_SIZE];
    enum admin_source_kind kind =
        admin_source_prepare(admin_job_verb(client), client->parsed, &admin->job.query, why);

    *ret_is_ready = kind == ADMIN_SOURCE_READY;
    if (kind == ADMIN_SOURCE_REFUSED) {
        admin_source_end(&admin->job.query);
        admin_client_refuse(admin, client, why);
    }
    return kind != ADMIN_SOURCE_NONE;
}

/* As a status first, then as a summary by site (admin_job_answer_next()). */
static bool job_prepare_metrics(struct admin *admin, struct admin_client *client)
{
    struct admin_job *job = &admin->job;

    if (!admin_queue_prepare_sites(&job->query))
        return job_refuse(admin, client, "no memory");
    job->query.kind = SHARD_QUERY_STATUS;
    job->is_metrics = true;
    return true;
}

bool admin_job_prepare(struct admin *admin, struct admin_client *client)
{
    struct admin_job *job = &admin->job;
    const char *verb = admin_job_verb(client);
    enum admin_queue_kind kind;
    bool is_ready = true;
    char why[ADMIN_QUEUE_WHY_SIZE] = "unknown verb";

    CHECK(job->query.kind == SHARD_QUERY_STATUS && job->query.found == NULL); /* as of no job */
    if (strcmp(verb, "status") == 0)
        return true;
    if (strcmp(verb, "metrics") == 0)
        return job_prepare_metrics(admin, client);
    if (strcmp(verb, "capture") == 0 || strcmp(verb, "capture stop") == 0)
        return job_prepare_capture(admin, client);
    if (strcmp(verb, "reload") == 0)
        return job_prepare_reload(admin, client);
    if (strcmp(verb, "drain") == 0 && admin->options.may_close != NULL &&
        !admin->options.may_close(admin->options.context))
        return job_refuse(admin, client,
                          "an upgrade is under way, and the new process may take mail at any "
                          "moment: ask again when it is over");
    if (admin_plane_prepare(verb, &job->query) ||
        admin_intake_prepare(verb, client->parsed, &admin->intake, &job->query)) {
        if (job->query.found == NULL)
            return job_refuse(admin, client, "no memory");
    } else if (job_prepare_site(admin, client, &is_ready)) {
        if (!is_ready)
            return false;
    } else if (job_prepare_source(admin, client, &is_ready) ||
               job_prepare_probe(admin, client, &is_ready)) {
        if (!is_ready)
            return false;
    } else if ((kind = admin_order_prepare(verb, client->parsed, &job->query, why)) !=
               ADMIN_QUEUE_NONE) {
        if (kind == ADMIN_QUEUE_REFUSED) {
            admin_queue_end(&job->query);
            admin_order_end(&job->query);
            return job_refuse(admin, client, why);
        }
    } else if (admin_queue_prepare(verb, client->parsed, &job->query, why) != ADMIN_QUEUE_READY) {
        admin_queue_end(&job->query);
        return job_refuse(admin, client, why);
    }
    job->is_stream = job->query.kind == SHARD_QUERY_QUEUE_CAT ||
                     (job->query.kind == SHARD_QUERY_QUEUE_LIST &&
                      json_is_true(json_object_get(client->parsed, "stream")));
    job->limit = job_limit(job, client);
    if (job->query.kind == SHARD_QUERY_QUEUE_LIST && job->limit < job->query.row_max)
        job->query.row_max = (uint32_t)job->limit;
    return true;
}

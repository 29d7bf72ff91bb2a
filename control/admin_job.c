/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: jobs. A request becomes a query that goes from shard to shard, as often as
 * each has more to tell, until the answer is whole.
 *
 * Invariants
 *   1. At most one query is with a shard. Its memory belongs to the shard until the reply, so a job
 *      outlives its client when that leaves early.
 *   2. A walk over the queues (list, summary) is parked between two slices while others ask
 *      something short; other walks wait for its end.
 *   3. A walk whose client has left is ended on the shard that it is on.
 *   4. Rows that stream are asked for as fast as the client takes them, and no faster: one slice is
 *      in memory.
 *
 * Bounds: ADMIN_ROW_MAX rows of an answer that is one object; a client that leaves ends its job,
 * but for a change of what stands (admin_order.c), which all shards get.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "control/admin_answer.h"
#include "control/admin_cat.h"
#include "control/admin_explain.h"
#include "control/admin_internal.h"
#include "control/admin_order.h"
#include "control/admin_order_list.h"
#include "control/admin_pattern.h"
#include "control/admin_plane.h"
#include "control/admin_probe.h"
#include "control/admin_queue.h"
#include "control/admin_quota.h"
#include "control/admin_site.h"
#include "control/admin_site_order.h"
#include "control/admin_source.h"

#define ADMIN_ROW_MAX     10000u
#define ADMIN_ROW_DEFAULT 100u

/* ---- jobs ---- */

static const char *job_verb(const struct admin_client *client)
{
    const char *verb = json_string_value(json_object_get(client->parsed, "verb"));

    return verb == NULL ? "" : verb;
}

static void job_reload(struct admin *admin, struct admin_client *client)
{
    char text[ADMIN_ERROR_SIZE] = "";
    bool is_ok = admin->options.reload(admin->options.context, text);
    json_t *answer = json_object();

    json_object_set_new(answer, "ok", json_boolean(is_ok));
    json_object_set_new(answer, is_ok ? "text" : "error", json_string(text));
    admin_client_answer(admin, client, answer);
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
    const struct tick_source *clock = tick_source_system();
    bool is_stop = strcmp(job_verb(client), "capture stop") == 0;
    bool is_ok =
        is_stop ? admin_capture_end(&admin->capture)
                : admin_capture_begin(&admin->capture, client->parsed, admin->options.shard_count,
                                      clock->monotonic(clock->context), why);

    admin->job.is_capture = is_ok;
    if (!is_ok)
        admin_client_refuse(admin, client, why);
    return is_ok;
}

/* How many rows are asked for. A stream goes on to the end unless it was told otherwise. */
static uint64_t job_limit(const struct admin_job *job, const struct admin_client *client)
{
    json_int_t limit = json_integer_value(json_object_get(client->parsed, "limit"));

    if (job->query.kind == SHARD_QUERY_QUEUE_SHOW)
        return ADMIN_ROW_MAX;
    if (job->is_stream)
        return limit > 0 ? (uint64_t)limit : UINT64_MAX;
    if (limit <= 0 && strcmp(job_verb(client), "counters") == 0)
        return ADMIN_ROW_MAX; /* there are only so many */
    if (limit <= 0)
        return ADMIN_ROW_DEFAULT;
    return limit < ADMIN_ROW_MAX ? (uint64_t)limit : ADMIN_ROW_MAX;
}

static bool job_refuse(struct admin *admin, struct admin_client *client, const char *why)
{
    admin_client_refuse(admin, client, why);
    return false;
}

/* ---- answers that add up in their query ---- */

static const char *site_order_finish(json_t *answer, const struct shard_query *query)
{
    return admin_site_order_finish(answer, query)
               ? NULL
               : "no such site is known (angarium site show), or no such order";
}

static const char *source_finish(json_t *answer, const struct shard_query *query)
{
    return admin_source_finish(answer, query) ? NULL : "no such source (angarium source show)";
}

static const char *explain_finish(json_t *answer, const struct shard_query *query)
{
    return admin_explain_finish(answer, query)
               ? NULL
               : "no such site or domain: nothing waits for it or was sent there lately";
}

static const char *probe_finish(json_t *answer, const struct shard_query *query)
{
    return admin_probe_finish(answer, query) ? NULL : "too many questions to the resolvers";
}

static const char *order_list_finish(json_t *answer, const struct shard_query *query)
{
    admin_order_list_finish(answer, query);
    return NULL;
}

static const char *quota_finish(json_t *answer, const struct shard_query *query)
{
    admin_quota_finish(answer, query);
    return NULL;
}

static const char *pattern_finish(json_t *answer, const struct shard_query *query)
{
    admin_pattern_finish(answer, query);
    return NULL;
}

static const struct gathering {
    bool (*owns)(const struct shard_query *query);
    const char *(*finish)(json_t *answer, const struct shard_query *query); /* why not, or NULL */
    void (*end)(struct shard_query *query);
} gatherings[] = {
    {admin_order_owns, admin_order_finish, admin_order_end},
    {admin_order_list_owns, order_list_finish, admin_order_list_end},
    {admin_site_order_owns, site_order_finish, admin_site_order_end},
    {admin_source_owns, source_finish, admin_source_end},
    {admin_pattern_owns, pattern_finish, admin_pattern_end},
    {admin_intake_owns, admin_intake_finish, admin_intake_end},
    {admin_quota_owns, quota_finish, admin_quota_end},
    {admin_explain_owns, explain_finish, admin_explain_end},
    {admin_probe_owns, probe_finish, admin_probe_end},
};

/* NULL: its rows are added one by one. */
static const struct gathering *gathering_of(const struct shard_query *query)
{
    for (uint32_t i = 0; i < COUNT_OF(gatherings); i++) {
        if (gatherings[i].owns(query))
            return &gatherings[i];
    }
    return NULL;
}

/* ---- requests ---- */

static bool job_prepare_probe(struct admin *admin, struct admin_client *client, bool *ret_is_ready)
{
    char why[ADMIN_PROBE_WHY_SIZE];
    enum admin_probe_kind kind =
        admin_probe_prepare(job_verb(client), client->parsed, &admin->job.query, why);

    *ret_is_ready = kind == ADMIN_PROBE_READY;
    if (kind == ADMIN_PROBE_REFUSED) {
        admin_probe_end(&admin->job.query);
        admin_client_refuse(admin, client, why);
    }
    return kind != ADMIN_PROBE_NONE;
}

static bool job_prepare_site(struct admin *admin, struct admin_client *client, bool *ret_is_ready)
{
    char why[ADMIN_SITE_WHY_SIZE] = "no memory";
    struct shard_query *query = &admin->job.query;
    enum admin_site_kind kind =
        admin_site_order_prepare(job_verb(client), client->parsed, query, why);

    if (kind == ADMIN_SITE_NONE && !admin_pattern_prepare(job_verb(client), query) &&
        !admin_order_list_prepare(job_verb(client), query) &&
        !admin_quota_prepare(job_verb(client), client->parsed, query, why) &&
        !admin_explain_prepare(job_verb(client), client->parsed, query) &&
        !admin_site_prepare(job_verb(client), client->parsed, query))
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
        admin_source_prepare(job_verb(client), client->parsed, &admin->job.query, why);

    *ret_is_ready = kind == ADMIN_SOURCE_READY;
    if (kind == ADMIN_SOURCE_REFUSED) {
        admin_source_end(&admin->job.query);
        admin_client_refuse(admin, client, why);
    }
    return kind != ADMIN_SOURCE_NONE;
}

/* The query of a request. False: the client has been refused. */
static bool job_prepare(struct admin *admin, struct admin_client *client)
{
    struct admin_job *job = &admin->job;
    const char *verb = job_verb(client);
    enum admin_queue_kind kind;
    bool is_ready = true;
    char why[ADMIN_QUEUE_WHY_SIZE] = "unknown verb";

    job->query = (struct shard_query){.kind = SHARD_QUERY_STATUS};
    if (strcmp(verb, "status") == 0)
        return true;
    if (strcmp(verb, "capture") == 0 || strcmp(verb, "capture stop") == 0)
        return job_prepare_capture(admin, client);
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

static void job_ask(struct admin *admin)
{
    struct admin_job *job = &admin->job;

    job->query.row_count = 0;
    job->is_with_shard = true;
    if (job->is_capture)
        admin_capture_query(&admin->capture, job->shard, &job->query);
    admin->options.query(admin->options.context, job->shard, &job->query);
}

static void job_end(struct admin *admin)
{
    struct admin_job *job = &admin->job;

    if (admin_order_owns(&job->query) && job->filter != NULL)
        admin_order_log(&job->query, job->filter);
    free(job->filter);
    admin_queue_end(&job->query);
    const struct gathering *gathering = gathering_of(&job->query);
    if (gathering != NULL)
        gathering->end(&job->query);
    else if (job->query.kind == SHARD_QUERY_TRANSFER)
        admin_site_end(&job->query);
    else if (!job->is_capture)
        admin_plane_end(&job->query);
    json_decref(job->answer);
    json_decref(job->rows);
    json_decref(job->groups);
    *job = (struct admin_job){0};
}

/* Nobody wants more of it: so that the walk does not stay in a place that others want, its shard is
 * told. */
static void job_abandon(struct admin *admin)
{
    const struct shard_query *query = &admin->job.query;
    bool is_walk = query->kind == SHARD_QUERY_QUEUE_LIST || query->kind == SHARD_QUERY_QUEUE_SHOW ||
                   query->kind == SHARD_QUERY_QUEUE_ACT;

    if (is_walk && query->cursor != 0 && query->cursor != UINT64_MAX &&
        admin->ending_count < COUNT_OF(admin->endings))
        admin->endings[admin->ending_count++] =
            (struct admin_ending){admin->job.shard, query->cursor};
    job_end(admin);
}

static bool job_is_idle(const struct admin *admin)
{
    return admin->job.client == NULL && !admin->job.is_with_shard && !admin->job.is_capture &&
           !admin->job.is_ending;
}

static uint32_t order_id_next(struct admin *admin)
{
    const struct tick_source *clock = tick_source_system();

    return order_numbers_next(&admin->order_numbers, clock->wall(clock->context));
}

/* Who is at the other end. */
static uint32_t client_uid(const struct admin_client *client)
{
    struct ucred peer = {.uid = UINT32_MAX};
    socklen_t size = sizeof(peer);

    (void)getsockopt(client->fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
    return peer.uid;
}

/* What is done at once, and cannot be tried: whoever asks for that must not have it done. */
static bool verb_has_no_dry_run(const char *verb)
{
    static const char *const verbs[] = {"reload",    "upgrade", "drain",
                                        "drain end", "capture", "capture stop"};

    for (uint32_t i = 0; i < COUNT_OF(verbs); i++) {
        if (strcmp(verb, verbs[i]) == 0)
            return true;
    }
    return false;
}

static void job_begin(struct admin *admin, struct admin_client *client)
{
    const struct tick_source *clock = tick_source_system();
    struct admin_job *job = &admin->job;

    if (json_object_get(client->parsed, "dry_run") != NULL &&
        verb_has_no_dry_run(job_verb(client))) {
        admin_client_refuse(admin, client, "there is no dry run of this");
        return;
    }
    if (strcmp(job_verb(client), "reload") == 0) {
        job_reload(admin, client);
        return;
    }
    if (strcmp(job_verb(client), "drain") == 0 &&
        json_is_true(json_object_get(client->parsed, "stop"))) {
        job_stop(admin, client);
        return;
    }
    if (strcmp(job_verb(client), "upgrade") == 0) {
        admin_upgrade(admin, client, clock->monotonic(clock->context));
        return;
    }
    if (strcmp(job_verb(client), "trace") == 0) {
        admin_trace_begin(admin, client, clock->monotonic(clock->context));
        return;
    }
    if (!job_prepare(admin, client))
        return;
    if (admin_order_owns(&job->query)) {
        const char *filter = json_string_value(json_object_get(client->parsed, "filter"));
        job->filter = strdup(filter == NULL ? "all" : filter);
        admin_order_number(&job->query, order_id_next(admin), client_uid(client));
    }
    if (admin_site_order_owns(&job->query))
        admin_site_order_number(&job->query, order_id_next(admin));
    job->client = client;
    job->answer = json_object();
    json_object_set_new(job->answer, "ok", json_true());
    if (job->query.kind == SHARD_QUERY_QUEUE_SUMMARY)
        job->groups = json_object();
    else if (job->query.kind != SHARD_QUERY_STATUS && !job->is_capture &&
             gathering_of(&job->query) == NULL)
        job->rows = json_array();
    client->state = ADMIN_CLIENT_WORKING;
    job_ask(admin);
}

static bool verb_is_walk(const char *verb)
{
    return admin_queue_is_walk(verb) || admin_order_is_walk(verb);
}

/* Who has waited longest; while a walk is parked, of those who want something short. */
static struct admin_client *client_next(struct admin *admin)
{
    struct admin_client *next = NULL;

    for (uint32_t i = 0; i < ADMIN_CLIENT_MAX; i++) {
        struct admin_client *client = &admin->clients[i];
        if (client->state != ADMIN_CLIENT_WAITING || (next != NULL && client->order > next->order))
            continue;
        if (admin->is_finding && admin_order_awaits_mail(job_verb(client), client->parsed))
            continue;
        if (admin->parked.client == NULL || !verb_is_walk(job_verb(client)))
            next = client;
    }
    return next;
}

static void job_resume(struct admin *admin)
{
    admin->job = admin->parked;
    admin->parked = (struct admin_job){0};
    job_ask(admin);
}

/* The client does not take what was found: others need not wait for that. */
static void job_put_aside(struct admin *admin)
{
    struct admin_job *aside = malloc(sizeof(*aside));

    CHECK(aside != NULL && admin->job.is_blocked && admin->job.client->aside == NULL);
    *aside = admin->job;
    admin->job.client->aside = aside;
    admin->job = (struct admin_job){0};
}

static void job_take_up(struct admin *admin, struct admin_client *client)
{
    CHECK(job_is_idle(admin));
    admin->job = *client->aside;
    free(client->aside);
    client->aside = NULL;
}

/* Whose walk was put aside, and may go on; NULL: nobody's. */
static struct admin_client *client_ready_again(struct admin *admin)
{
    for (uint32_t i = 0; i < ADMIN_CLIENT_MAX && admin->parked.client == NULL; i++) {
        struct admin_client *client = &admin->clients[i];
        if (client->aside != NULL && !client->aside->is_blocked)
            return client;
    }
    return NULL;
}

static void ending_run(struct admin *admin)
{
    const struct admin_ending *ending = &admin->endings[--admin->ending_count];

    admin->job = (struct admin_job){.is_ending = true, .shard = ending->shard};
    admin->job.query = (struct shard_query){
        .kind = SHARD_QUERY_QUEUE_LIST, .is_end = true, .cursor = ending->cursor};
    job_ask(admin);
}

void admin_jobs_run(struct admin *admin)
{
    struct admin_client *next;

    if (admin->job.is_blocked) /* nothing of it is with a shard */
        job_put_aside(admin);
    for (uint32_t round = 0; round <= ADMIN_CLIENT_MAX && job_is_idle(admin); round++) {
        if (admin->ending_count > 0) {
            ending_run(admin);
        } else if ((next = client_ready_again(admin)) != NULL) {
            job_take_up(admin, next);
            job_ask(admin);
        } else if ((next = client_next(admin)) != NULL) {
            job_begin(admin, next);
        } else {
            if (admin->parked.client != NULL)
                job_resume(admin);
            return;
        }
    }
}

/* The next slice, after those who want something short. */
static void job_continue(struct admin *admin)
{
    if (admin->job.is_blocked) {
        admin_jobs_run(admin);
    } else if (admin_order_is_changing(&admin->job.query)) {
        job_ask(admin); /* at once, and whether its client is here or not */
    } else if (admin->parked.client == NULL && verb_is_walk(job_verb(admin->job.client))) {
        admin->parked = admin->job;
        admin->job = (struct admin_job){0};
        admin_jobs_run(admin);
    } else {
        job_ask(admin);
    }
}

void admin_job_unblock(struct admin *admin, struct admin_client *client)
{
    if (client->aside == NULL || !client->aside->is_blocked)
        return;
    client->aside->is_blocked = false;
    admin_jobs_run(admin);
}

void admin_job_forget_client(struct admin *admin, const struct admin_client *client)
{
    if (admin->job.client == client) {
        admin->job.client = NULL;
        if (admin->job.is_blocked)
            job_abandon(admin);
    }
    if (client->aside != NULL) {
        struct admin_job job = admin->job;
        admin->job = *client->aside;
        free(client->aside);
        ((struct admin_client *)(uintptr_t)client)->aside = NULL;
        job_abandon(admin);
        admin->job = job;
    }
    if (admin->parked.client == client) {
        struct admin_job job = admin->job;
        admin->job = admin->parked;
        admin->parked = (struct admin_job){0};
        job_abandon(admin);
        admin->job = job;
    }
}

static void job_finish(struct admin *admin, tick_us now)
{
    struct admin_job *job = &admin->job;
    struct admin_client *client = job->client;
    struct record_writer_stats records = {0};

    if (job->query.kind == SHARD_QUERY_STATUS) {
        if (admin->options.records != NULL)
            records = record_writer_get_stats(admin->options.records);
        json_object_set_new(job->answer, "intake", admin_intake_status(&admin->intake));
        admin_status_finish(job->answer, admin->options.shard_count, now - admin->started,
                            admin->options.records == NULL ? NULL : &records);
        admin_status_webhooks(job->answer, admin->options.webhooks);
    }
    if (job->query.kind == SHARD_QUERY_QUEUE_SUMMARY)
        admin_summary_finish(job->answer, job->groups, job->query.by, job->limit);
    else if (job->query.kind == SHARD_QUERY_QUEUE_CAT)
        admin_cat_finish(job->answer, &job->query);
    else if (job->is_stream)
        json_object_set_new(job->answer, "count", json_integer((json_int_t)job->row_count));
    else if (job->rows != NULL)
        json_object_set(job->answer, "rows", job->rows);
    bool is_nowhere =
        job->query.kind == SHARD_QUERY_QUEUE_CAT
            ? !admin_cat_is_over(&job->query)
            : job->query.kind == SHARD_QUERY_QUEUE_SHOW && json_array_size(job->rows) == 0;
    const struct gathering *gathering = gathering_of(&job->query);
    const char *why = gathering == NULL ? NULL : gathering->finish(job->answer, &job->query);
    if (why != NULL)
        admin_client_refuse(admin, client, why);
    else if (is_nowhere)
        admin_client_refuse(admin, client, "no such message in the queue");
    else
        admin_client_answer(admin, client, json_incref(job->answer));
    job_abandon(admin); /* a list that has all its rows may stand in mid-walk */
}

/* One more shard's tap is as it should be; the job goes on whether its client waits or not. */
static void capture_on_reply(struct admin *admin)
{
    struct admin_job *job = &admin->job;

    job->shard += 1;
    if (job->shard < admin->options.shard_count) {
        job_ask(admin);
        return;
    }
    admin_capture_done(&admin->capture);
    if (job->client != NULL)
        admin_client_answer(admin, job->client, admin_capture_answer(&admin->capture));
    job_end(admin);
    admin_jobs_run(admin);
}

void admin_jobs_capture(struct admin *admin, tick_us now)
{
    admin_capture_run(&admin->capture, now);
    if (!admin->capture.is_over || !job_is_idle(admin) || !admin_capture_end(&admin->capture))
        return;
    admin->job.is_capture = true;
    job_ask(admin);
}

/* What a shard told of the queue. False: the client is gone, and its job with it. */
static bool job_rows_add(struct admin *admin)
{
    struct admin_job *job = &admin->job;
    struct admin_client *client = job->client;
    const struct shard_query *query = &job->query;
    bool is_ok = true;

    for (uint32_t i = 0; i < query->row_count && job->row_count < job->limit; i++) {
        json_t *row = admin_queue_row(&query->rows[i]);
        job->row_count++;
        if (!job->is_stream)
            json_array_append_new(job->rows, row);
        else
            is_ok = admin_client_append(client, json_pack("{so}", "row", row)) && is_ok;
    }
    if (!is_ok)
        admin_client_close(admin, client);
    else if (job->is_stream)
        job->is_blocked = !admin_client_push(admin, client);
    return client->state == ADMIN_CLIENT_WORKING;
}

/* What a shard told of one message. False: as job_rows_add(). */
static bool job_cat_add(struct admin *admin)
{
    struct admin_job *job = &admin->job;
    struct admin_client *client = job->client;

    if (!admin_cat_add(client, &job->query))
        admin_client_close(admin, client);
    else
        job->is_blocked = !admin_client_push(admin, client);
    return client->state == ADMIN_CLIENT_WORKING;
}

static bool job_add(struct admin *admin)
{
    struct admin_job *job = &admin->job;

    switch (job->query.kind) {
    case SHARD_QUERY_STATUS:
        admin_status_add(job->answer, &job->query.status);
        return true;
    case SHARD_QUERY_PLANE:
        admin_plane_add(job->rows, &job->query, job->shard, (uint32_t)job->limit);
        job->row_count = json_array_size(job->rows);
        return true;
    case SHARD_QUERY_QUOTA: /* it adds up in the query */
        return true;
    case SHARD_QUERY_TRANSFER:
        if (gathering_of(&job->query) != NULL)
            return true; /* it adds up in the query */
        admin_site_add(job->rows, &job->query, job->shard, (uint32_t)job->limit);
        job->row_count = json_array_size(job->rows);
        return true;
    case SHARD_QUERY_QUEUE_SUMMARY:
        admin_summary_add(job->groups, &job->query);
        return true;
    case SHARD_QUERY_QUEUE_ACT:
        return true; /* it adds up in the query */
    case SHARD_QUERY_QUEUE_LIST:
    case SHARD_QUERY_QUEUE_SHOW:
        return job_rows_add(admin);
    case SHARD_QUERY_QUEUE_CAT:
        return job_cat_add(admin);
    case SHARD_QUERY_INTAKE:
        return true; /* it adds up in the query */
    case SHARD_QUERY_TRACE:
    case SHARD_QUERY_SERVER:
        break; /* never a job's */
    }
    CHECK(false && "a kind of query");
}

/* All shards have answered. Some are asked once more; others have changed what is kept. */
static void job_round_end(struct admin *admin)
{
    struct admin_job *job = &admin->job;
    bool is_change = admin_order_is_changing(&job->query) ||
                     (admin_site_order_owns(&job->query) &&
                      !json_is_true(json_object_get(job->client->parsed, "dry_run")));

    if (is_change && admin->options.changed != NULL)
        admin->options.changed(admin->options.context);
    if (admin_order_next_round(&job->query))
        job->shard = 0;
}

void admin_on_reply(struct admin *admin, struct shard_query *query, tick_us now)
{
    struct admin_job *job = &admin->job;

    if (admin_trace_on_reply(admin, query))
        return;
    CHECK(query == &job->query && job->is_with_shard);
    job->is_with_shard = false;
    if (job->is_capture) {
        capture_on_reply(admin);
        return;
    }
    if (job->is_ending) {
        job_end(admin);
        admin_jobs_run(admin);
        return;
    }
    bool is_changing = admin_order_is_changing(query);
    if (!is_changing && (job->client == NULL || !job_add(admin))) { /* it has left */
        job_abandon(admin);
        admin_jobs_run(admin);
        return;
    }
    if (job->client != NULL)
        job->client->deadline = now + ADMIN_CLIENT_TIME;
    if (query->kind == SHARD_QUERY_STATUS || query->cursor == UINT64_MAX || query->err != ERR_OK) {
        job->shard += 1;
        query->cursor = 0;
    }
    bool is_round_over = job->shard == admin->options.shard_count;
    if (is_round_over)
        job_round_end(admin);
    if (job->client == NULL && is_round_over) {
        job_end(admin);
        admin_jobs_run(admin);
        return;
    }
    bool is_full = job->rows != NULL && job->row_count >= job->limit;
    bool is_over = admin_cat_is_over(query) || job->shard == admin->options.shard_count;
    if (query->err != ERR_OK) {
        admin_client_refuse(admin, job->client,
                            query->cat != NULL ? query->cat->why
                                               : "too many walks over the queue at once");
    } else if (is_full || is_over) {
        json_object_set_new(job->answer, "has_more", json_boolean(is_full));
        job_finish(admin, now);
    } else {
        job_continue(admin);
        return;
    }
    job_end(admin); /* unless job_finish() did */
    admin_jobs_run(admin);
}

void admin_jobs_end(struct admin *admin)
{
    job_end(admin);
    CHECK(admin->parked.client == NULL);
}

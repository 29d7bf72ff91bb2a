/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: answers of jobs. What the shards tell is written as it comes: rows and counts
 * of many as text (json_text.h), the rest as a small tree; both are joined at the end.
 *
 *   {"ok":true, members that are text, members of the tree}
 *
 * An answer is one line. A client that sees its end knows that it has all of it. Metrics are a page
 * of lines, and an empty one behind them says the same: within a page there is none.
 */
#include <stdlib.h>

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
#include "control/admin_reload.h"
#include "control/admin_site.h"
#include "control/admin_site_order.h"
#include "control/admin_source.h"
#include "control/admin_summary.h"

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
    {admin_reload_owns, admin_reload_finish, admin_reload_end},
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

void admin_job_answer_free(struct admin_job *job)
{
    const struct gathering *gathering = gathering_of(&job->query);

    admin_queue_end(&job->query);
    if (gathering != NULL)
        gathering->end(&job->query);
    else if (job->query.kind == SHARD_QUERY_TRANSFER)
        admin_site_end(&job->query);
    else if (!job->is_capture)
        admin_plane_end(&job->query);
    json_decref(job->answer);
    json_text_free(&job->text);
    admin_status_free(job->status);
    admin_summary_free(job->groups);
    free(job->question);
}

void admin_job_answer_begin(struct admin *admin)
{
    struct admin_job *job = &admin->job;

    if (job->is_capture) /* it tells of itself */
        return;
    job->answer = json_object();
    if (job->query.kind == SHARD_QUERY_STATUS) {
        job->status = admin_status_new();
        job->query.status = admin_status_room(job->status);
    }
    if (job->query.kind == SHARD_QUERY_QUEUE_SUMMARY || job->is_metrics)
        job->groups = admin_summary_new(&admin->names);
    job->has_rows = job->status == NULL && job->groups == NULL && !job->is_stream &&
                    gathering_of(&job->query) == NULL;
    if (!job->is_metrics) {
        json_text_open(&job->text, '{');
        json_text_set_boolean(&job->text, JSON_KEY("ok"), true);
    }
    if (job->has_rows) {
        json_text_key(&job->text, JSON_KEY("rows"));
        json_text_open(&job->text, '[');
    }
}

/* ---- what shards tell ---- */

/* A line of its own. */
static void stream_row(struct json_text *out, const struct shard_queue_row *row)
{
    json_text_open(out, '{');
    json_text_key(out, JSON_KEY("row"));
    admin_queue_row(out, row);
    json_text_octets(out, "}\n", 2);
}

bool admin_job_answer_next(struct admin_job *job)
{
    if (!job->is_metrics || job->query.kind != SHARD_QUERY_STATUS)
        return false;
    job->query.kind = SHARD_QUERY_QUEUE_SUMMARY;
    return true;
}

/* What a shard told of the queue. False: the client is gone, and its job with it. */
static bool job_rows_add(struct admin *admin)
{
    struct admin_job *job = &admin->job;
    struct admin_client *client = job->client;
    const struct shard_query *query = &job->query;

    for (uint32_t i = 0; i < query->row_count && job->row_count < job->limit; i++) {
        job->row_count++;
        if (job->is_stream)
            stream_row(&client->answer, &query->rows[i]);
        else
            admin_queue_row(&job->text, &query->rows[i]);
    }
    if (job->is_stream)
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

bool admin_job_add(struct admin *admin)
{
    struct admin_job *job = &admin->job;

    switch (job->query.kind) {
    case SHARD_QUERY_STATUS:
        admin_status_add(job->status);
        return true;
    case SHARD_QUERY_PLANE:
        job->row_count +=
            admin_plane_add(&job->text, &job->query, job->shard, job->limit - job->row_count);
        return true;
    case SHARD_QUERY_QUOTA: /* it adds up in the query */
        return true;
    case SHARD_QUERY_TRANSFER:
        if (gathering_of(&job->query) != NULL)
            return true; /* it adds up in the query */
        job->row_count +=
            admin_site_add(&job->text, &job->query, job->shard, job->limit - job->row_count);
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

/* ---- the end ---- */

/* What belongs to the process, and not to its shards. */
static void job_status_finish(struct admin *admin, tick_us now)
{
    struct record_writer_stats records = {0};
    struct json_text *text = &admin->job.text;

    admin_status_write(admin->job.status, admin->status_texts, text);
    if (admin->options.records != NULL)
        records = record_writer_get_stats(admin->options.records);
    admin_intake_status(&admin->intake, text);
    admin_status_finish(admin->status_texts, admin->options.shard_count, now - admin->started,
                        admin->options.records == NULL ? NULL : &records, text);
    admin_status_webhooks_write(admin->options.webhooks, text);
}

static void sites_fill(struct admin_summary *groups, struct metrics_sites *ret_sites)
{
    struct admin_summary_row largest[METRICS_SITES_MAX];

    ret_sites->total = admin_summary_sum(groups).total;
    ret_sites->count = admin_summary_largest(groups, METRICS_SITES_MAX, largest);
    for (uint32_t i = 0; i < ret_sites->count; i++)
        ret_sites->sites[i] = (struct metrics_site){largest[i].name, largest[i].total};
}

static void job_metrics_finish(struct admin *admin, tick_us now)
{
    struct admin_job *job = &admin->job;
    struct record_writer_stats records;
    struct metrics_values values = {.sums = admin_status_sums(job->status),
                                    .core_count = admin->options.shard_count,
                                    .uptime = now - admin->started,
                                    .webhooks = admin_status_webhooks(admin->options.webhooks)};

    if (admin->options.records != NULL) {
        records = record_writer_get_stats(admin->options.records);
        values.records = &records;
    }
    sites_fill(job->groups, &values.sites);
    metrics_write(admin->metrics, &values, &job->text);
}

const char *admin_job_answer_end(struct admin *admin, tick_us now)
{
    struct admin_job *job = &admin->job;
    const struct gathering *gathering = gathering_of(&job->query);

    if (job->is_metrics)
        job_metrics_finish(admin, now);
    else if (job->status != NULL)
        job_status_finish(admin, now);
    else if (job->groups != NULL)
        job->has_more = admin_summary_write(job->groups, admin_queue_by_name(job->query.by),
                                            job->limit, &job->text);
    else if (job->query.kind == SHARD_QUERY_QUEUE_CAT)
        admin_cat_finish(job->answer, &job->query);
    else if (job->is_stream)
        json_object_set_new(job->answer, "count", json_integer((json_int_t)job->row_count));
    if (job->has_rows)
        json_text_close(&job->text, ']');
    bool is_nowhere = job->query.kind == SHARD_QUERY_QUEUE_CAT
                          ? !admin_cat_is_over(&job->query)
                          : job->query.kind == SHARD_QUERY_QUEUE_SHOW && job->row_count == 0;
    if (is_nowhere)
        return "no such message in the queue";
    return gathering == NULL ? NULL : gathering->finish(job->answer, &job->query);
}

/* The answer ends, and has its client's place. */
static void answer_close(struct admin_job *job)
{
    struct json_text *out = &job->client->answer;

    if (!job->is_metrics) {
        json_text_set_boolean(&job->text, JSON_KEY("has_more"), job->has_more);
        json_text_members(&job->text, json_incref(job->answer));
        json_text_close(&job->text, '}');
    }
    if (out->size > 0) { /* lines of a stream */
        json_text_append(out, &job->text);
        return;
    }
    struct json_text room = *out;
    *out = job->text;
    job->text = room;
}

void admin_job_answer_send(struct admin *admin)
{
    struct admin_job *job = &admin->job;
    struct json_text answer;

    answer_close(job);
    if (job->question == NULL) {
        admin_client_send(admin, job->client);
        return;
    }
    admin_client_send_kept(admin, job->client, &answer);
    admin_share_keep(&admin->share, job->question, answer, job->begun, job->changes);
    job->question = NULL;
}

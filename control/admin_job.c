/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: jobs. A request becomes a query (admin_request.c) that goes from shard to
 * shard, as often as each has more to tell, until the answer is whole (admin_job_answer.c).
 *
 * Invariants
 *   1. At most one query is with a shard. Its memory belongs to the shard until the reply, so a job
 *      outlives its client when that leaves early.
 *   2. A walk over the queues (list, summary) is parked between two slices while others ask
 *      something short; other walks wait for its end.
 *   3. A walk whose client has left is ended on the shard that it is on.
 *   4. What may change something makes all answers from before its end old (admin_share.h).
 *   5. Rows that stream are asked for as fast as the client takes them, and no faster: one slice is
 *      in memory.
 *
 * Bounds: a client that leaves ends its job, but for a change of what stands (admin_order.c), which
 * all shards get.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "control/admin_cat.h"
#include "control/admin_internal.h"
#include "control/admin_order.h"
#include "control/admin_queue.h"
#include "control/admin_site_order.h"

/* ---- jobs ---- */

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
    admin_job_answer_free(job);
    if (job->is_change)
        admin_share_forget(&admin->share);
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

/* Somebody else asked the same, and a moment ago. */
static bool job_is_answered(struct admin *admin, struct admin_client *client)
{
    struct admin_job *job = &admin->job;
    tick_us age_max = 0;

    job->is_change = !admin_share_is_look(admin_job_verb(client));
    job->question = admin_share_question(client->parsed, &age_max);
    if (job->question == NULL)
        return false;
    const struct json_text *answer =
        admin_share_find(&admin->share, job->question, age_max, admin->now);
    if (answer == NULL)
        return false;
    admin_client_send_again(admin, client, answer);
    return true;
}

static void job_begin(struct admin *admin, struct admin_client *client)
{
    const struct tick_source *clock = tick_source_system();
    struct admin_job *job = &admin->job;

    if (!admin_share_is_look(admin_job_verb(client)))
        admin_share_forget(&admin->share);
    job->begun = admin->now;
    job->changes = admin->share.changes;
    if (admin_job_is_elsewhere(admin, client, clock->monotonic(clock->context)) ||
        job_is_answered(admin, client) || !admin_job_prepare(admin, client)) {
        free(job->question);
        *job = (struct admin_job){0};
        return;
    }
    if (admin_order_owns(&job->query)) {
        const char *filter = json_string_value(json_object_get(client->parsed, "filter"));
        job->filter = strdup(filter == NULL ? "all" : filter);
        admin_order_number(&job->query, order_id_next(admin), client_uid(client));
    }
    if (admin_site_order_owns(&job->query))
        admin_site_order_number(&job->query, order_id_next(admin));
    job->client = client;
    admin_job_answer_begin(admin);
    client->state = ADMIN_CLIENT_WORKING;
    job_ask(admin);
}

static bool verb_is_walk(const char *verb)
{
    return admin_queue_is_walk(verb) || admin_order_is_walk(verb) || strcmp(verb, "metrics") == 0;
}

/* Who has waited longest; while a walk is parked, of those who want something short. */
static struct admin_client *client_next(struct admin *admin)
{
    struct admin_client *next = NULL;

    for (uint32_t i = 0; i < ADMIN_CLIENT_MAX; i++) {
        struct admin_client *client = &admin->clients[i];
        if (client->state != ADMIN_CLIENT_WAITING || (next != NULL && client->order > next->order))
            continue;
        if (admin->is_finding && admin_order_awaits_mail(admin_job_verb(client), client->parsed))
            continue;
        if (admin->parked.client == NULL || !verb_is_walk(admin_job_verb(client)))
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
    } else if (admin->parked.client == NULL && verb_is_walk(admin_job_verb(admin->job.client))) {
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
    const char *why = admin_job_answer_end(admin, now);

    if (why != NULL)
        admin_client_refuse(admin, admin->job.client, why);
    else
        admin_job_answer_send(admin);
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

/* All shards have answered. Some are asked once more; others have changed what is kept. */
static void job_round_end(struct admin *admin)
{
    struct admin_job *job = &admin->job;
    bool is_change = admin_order_is_changing(&job->query) ||
                     (admin_site_order_owns(&job->query) &&
                      !json_is_true(json_object_get(job->client->parsed, "dry_run")));

    if (is_change && admin->options.changed != NULL)
        admin->options.changed(admin->options.context);
    if (admin_order_next_round(&job->query) || admin_job_answer_next(job))
        job->shard = 0;
}

void admin_on_reply(struct admin *admin, struct shard_query *query, tick_us now)
{
    struct admin_job *job = &admin->job;

    admin->now = now;
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
    if (!is_changing && (job->client == NULL || !admin_job_add(admin))) { /* it has left */
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
    bool is_full = (job->has_rows || job->is_stream) && job->row_count >= job->limit;
    bool is_over = admin_cat_is_over(query) || job->shard == admin->options.shard_count;
    if (query->err != ERR_OK) {
        admin_client_refuse(admin, job->client,
                            query->cat != NULL ? query->cat->why
                                               : "too many walks over the queue at once");
        job_end(admin);
    } else if (is_full || is_over) {
        job->has_more = is_full;
        job_finish(admin, now);
    } else {
        job_continue(admin);
        return;
    }
    admin_jobs_run(admin);
}

void admin_jobs_end(struct admin *admin)
{
    job_end(admin);
    CHECK(admin->parked.client == NULL);
}

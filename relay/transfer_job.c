/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One delivery's attempt, from the queue's hand to the queue's hand.
 *
 *   transfer_job_new() -> LOADING             the envelope is not in memory: the queue reads it
 *            |<--------------+
 *            |-----> UNREAD -> READING          the body is no longer in memory: read it from the
 *            v                    |             spool, once there is memory for it
 *          READY <----------------+
 *            v
 *         SENDING                     transfer_job_try(): a kept connection, or a slot, was had, or
 *            |                        a place behind another message on its connection
 *            v
 *        qmgr_finish(): results of the client
 *
 * From LOADING, UNREAD, READING and READY a job can also end not attempted: it could not be read,
 * site pauses, cancelled, no memory.
 *
 * Invariants
 *   1. Every delivery taken from the queue ends in exactly one qmgr_finish(), with at most one
 * client_start() or client_follow() before it.
 *   2. A job is SENDING from then to on_result(); only then does the client borrow its
 * envelope, recipients and body.
 *   3. `site->connections` counts slots in use: up at client_start() on a new connection, down at
 * the client's on_closed().
 *   4. A recipient is DELIVERED only by the client's word; what we decide ourselves is DUE or
 * FAILED (or discarded by route).
 *
 * Limits: bodies read back hold a share of the buffer pool, and those of one site part of what is
 * left of it, so that sites that take them slowly do not keep the others waiting:
 * transfer_may_read().
 *
 * A message with more recipients in one domain than a transaction takes goes out in batches: the
 * rest stays DUE and is tried again at once, unless somebody in this batch was deferred.
 */
#include "relay/transfer_internal.h"

#include <stdlib.h>

/* ---- records ---- */

static uint32_t transfer_delay_ms(wall_us from, wall_us to)
{
    if (to <= from)
        return 0;
    return to - from > (wall_us)UINT32_MAX * 1000 ? UINT32_MAX : (uint32_t)((to - from) / 1000);
}

static uint16_t transfer_record_kind(enum recipient_state state)
{
    switch (state) {
    case RECIPIENT_DELIVERED:
    case RECIPIENT_RELAYED:
        return RECORD_DELIVERY;
    case RECIPIENT_FAILED:
        return RECORD_BOUNCE;
    default:
        return RECORD_DEFERRAL;
    }
}

/* What all records of one attempt have in common. */
static void transfer_record_begin(const struct transfer *transfer, const struct qmgr_view *view,
                                  struct record *ret_record)
{
    const struct envelope *envelope = view->envelope;

    *ret_record = (struct record){
        .shard = transfer->options.shard,
        .time = transfer->now.wall,
        .id = envelope->id,
        .size = envelope->body_size,
        .attempts = view->attempts >= UINT8_MAX ? UINT8_MAX : (uint8_t)(view->attempts + 1),
        .flags = envelope->flags & ENVELOPE_IS_DSN ? RECORD_IS_DSN : 0,
        .way = (uint8_t)view->way,
    };
    ret_record->delays_ms[0] = transfer_delay_ms((wall_us)envelope->id.high, view->active_since);
    record_text(ret_record->sender, sizeof(ret_record->sender), envelope->sender);
    record_text(ret_record->user, sizeof(ret_record->user), envelope->user);
}

static void transfer_record_emit(struct transfer *transfer, struct record *record,
                                 const struct envelope_recipient *recipient,
                                 const struct qmgr_result *result)
{
    record->kind = transfer_record_kind(result->state);
    if (record->kind == RECORD_DELIVERY)
        latency_add(&transfer->latencies.delivery, transfer->now.wall - (wall_us)record->id.high);
    record->code = result->code;
    record->recipient_index = result->recipient_index;
    memcpy(record->enhanced, result->enhanced, sizeof(record->enhanced));
    record_text(record->recipient, sizeof(record->recipient), recipient->address);
    record_text(record->site, sizeof(record->site), recipient->domain);
    record_text(record->text, sizeof(record->text), result->reply);
    transfer->options.records.emit(transfer->options.records.context, record);
}

/* ---- ends that we decide ---- */

void transfer_delivery_settle(struct transfer *transfer, struct qmgr_delivery *delivery,
                              const struct transfer_verdict *verdict)
{
    struct qmgr_view view = qmgr_delivery_view(transfer->qmgr, delivery);
    struct qmgr_result *results = calloc(view.recipient_count, sizeof(*results));
    CHECK(results != NULL);

    struct record record UNINITIALIZED;
    transfer_record_begin(transfer, &view, &record);
    record.delays_ms[1] = transfer_delay_ms(view.active_since, transfer->now.wall);
    for (uint32_t i = 0; i < view.recipient_count; i++) {
        results[i] = (struct qmgr_result){
            .recipient_index = view.recipients[i],
            .state = verdict->state,
            .reply = span_from_text(verdict->text),
            .code = verdict->code,
        };
        memcpy(results[i].enhanced, verdict->enhanced, sizeof(results[i].enhanced));
        if (verdict->was_attempted)
            transfer_record_emit(transfer, &record, &view.envelope->recipients[view.recipients[i]],
                                 &results[i]);
    }
    struct qmgr_finish finish = {
        .results = results,
        .result_count = view.recipient_count,
        .was_attempted = verdict->was_attempted,
        .retry_not_before = verdict->retry_not_before,
    };
    qmgr_finish(transfer->qmgr, delivery, &finish, transfer->now);
    free(results);
}

struct qmgr_view transfer_job_view(struct transfer *transfer, struct transfer_job *job)
{
    if (job->guest == NULL)
        return qmgr_delivery_view(transfer->qmgr, job->delivery);
    return (struct qmgr_view){
        .envelope = &job->guest->envelope,
        .recipients = job->guest->handover->recipients,
        .recipient_count = job->guest->handover->recipient_count,
        .body = &job->read_body,
    };
}

static void transfer_job_read(struct transfer *transfer, struct transfer_job *job)
{
    struct qmgr_view view = qmgr_delivery_view(transfer->qmgr, job->delivery);

    CHECK(job->state == TRANSFER_JOB_UNREAD);
    TAILQ_REMOVE(&transfer->unread, job, link);
    job->state = TRANSFER_JOB_READING;
    job->read_size = envelope_stored_size(view.envelope);
    transfer->read_memory += job->read_size;
    transfer->reading_size += job->read_size;
    job->place->read_memory += job->read_size;
    spool_read_body(transfer->options.spool, view.entry, 0, (uint32_t)job->read_size,
                    (uint64_t)(uintptr_t)job);
}

/* Octets of the pool that nobody uses, without the part that is for receiving alone. */
static uint64_t transfer_pool_spare(const struct transfer *transfer)
{
    const struct buf_pool *pool = transfer->options.plane->pool;
    uint64_t available = buf_pool_available(pool);
    uint64_t reserve = buf_pool_count_max(pool) / TRANSFER_RECEIVE_SHARE;

    /* What is being read is in use as soon as it comes. */
    uint64_t spare = available > reserve ? (available - reserve) * buf_pool_data_size(pool) : 0;
    return spare > transfer->reading_size ? spare - transfer->reading_size : 0;
}

/*
 * May a site that holds so much have a body of this size read? Within the share of all bodies read
 * back, as long as it holds less than is left of it. Beyond that by what is left of the pool, so
 * that sites which take nothing cannot keep the others waiting: they need ever smaller parts of it.
 */
static bool transfer_may_read(const struct transfer *transfer, uint64_t held, uint64_t size)
{
    if (transfer->read_memory < transfer->read_memory_max &&
        held < transfer->read_memory_max - transfer->read_memory)
        return true;
    uint64_t spare = transfer_pool_spare(transfer);
    return held == 0 ? size <= spare / TRANSFER_READ_FIRST_SHARE
                     : held + size <= spare / TRANSFER_READ_MORE_SHARE;
}

/* Read what there is memory for, oldest first; jobs of a site that has its share are passed over.
 */
static void transfer_jobs_read(struct transfer *transfer)
{
    struct transfer_job *job, *next;

    for (job = TAILQ_FIRST(&transfer->unread); job != NULL; job = next) {
        next = TAILQ_NEXT(job, link);
        if (transfer->read_memory >= transfer->read_memory_max &&
            transfer_pool_spare(transfer) < transfer->read_memory_max / TRANSFER_READ_SPARE_SHARE)
            return; /* a long list is not worth looking through */
        uint64_t size =
            envelope_stored_size(qmgr_delivery_view(transfer->qmgr, job->delivery).envelope);
        if (transfer_may_read(transfer, job->place->read_memory, size))
            transfer_job_read(transfer, job);
    }
}

/* A job is large, and so malloc() is slow with it. */
static void transfer_job_release(struct transfer *transfer, struct transfer_job *job)
{
    if (transfer->spare_job_count == TRANSFER_JOBS_SPARE) {
        free(job);
        return;
    }
    job->spare_next = transfer->spare_jobs;
    transfer->spare_jobs = job;
    transfer->spare_job_count++;
}

static void transfer_job_end(struct transfer *transfer, struct transfer_job *job)
{
    struct transfer_place *place = job->place;

    if (job->state == TRANSFER_JOB_READY)
        TAILQ_REMOVE(&place->ready, job, link);
    if (job->state == TRANSFER_JOB_UNREAD) {
        TAILQ_REMOVE(&transfer->unread, job, link);
        place->reading--;
    }
    TAILQ_REMOVE(&transfer->jobs, job, all);
    transfer->read_memory -= job->read_size;
    place->read_memory -= job->read_size;
    buf_queue_fini(&job->read_body);
    CHECK(place->jobs > 0 && transfer->jobs_active > 0);
    place->jobs--;
    transfer->jobs_active--;
    transfer_place_wake(transfer, place);
    transfer_job_release(transfer, job);
    transfer_jobs_read(transfer);
}

void transfer_job_put_back(struct transfer *transfer, struct transfer_job *job, wall_us not_before)
{
    transfer_cut_put_back(transfer, job);
    if (job->guest != NULL)
        transfer_guest_end(transfer, job->guest, NULL);
    else
        qmgr_finish(transfer->qmgr, job->delivery,
                    &(struct qmgr_finish){.retry_now = true, .retry_not_before = not_before},
                    transfer->now);
    transfer_job_end(transfer, job);
}

void transfer_job_settle_all(struct transfer *transfer, struct transfer_job *job,
                             const struct transfer_verdict *verdict)
{
    transfer_delivery_settle(transfer, job->delivery, verdict);
    transfer_job_end(transfer, job);
}

/* ---- UNREAD, READING, READY ---- */

/* Behind those of its class, and before those of later ones: what was read ahead does not keep more
 * urgent mail waiting. */
static void transfer_job_make_ready(struct transfer_job *job)
{
    struct transfer_job *before = TAILQ_LAST(&job->place->ready, transfer_job_list);

    job->state = TRANSFER_JOB_READY;
    while (before != NULL && qmgr_rank_is_earlier(job->rank, before->rank))
        before = TAILQ_PREV(before, transfer_job_list, link);
    if (before == NULL)
        TAILQ_INSERT_HEAD(&job->place->ready, job, link);
    else
        TAILQ_INSERT_AFTER(&job->place->ready, before, job, link);
}

static void transfer_mx_answer_copy(struct mx_answer *to, const struct mx_answer *from)
{
    memcpy(to, from, offsetof(struct mx_answer, hosts));
    memcpy(to->hosts, from->hosts, (from->host_count + from->other_count) * sizeof(from->hosts[0]));
    to->reason = from->reason;
}

static struct transfer_job *transfer_job_alloc(struct transfer *transfer,
                                               struct transfer_place *place,
                                               const struct settings_route *route,
                                               const struct mx_answer *answer)
{
    struct transfer_job *job = transfer->spare_jobs;
    if (job != NULL) {
        transfer->spare_jobs = job->spare_next;
        transfer->spare_job_count--;
    } else {
        job = malloc(sizeof(*job));
    }
    CHECK(job != NULL);
    memset(job, 0, offsetof(struct transfer_job, answer));
    job->token.kind = TRANSFER_TOKEN_JOB;
    job->place = place;
    job->settings = transfer->settings;
    job->route = route;
    job->started = transfer->now.wall;
    transfer_mx_answer_copy(&job->answer, answer);
    buf_queue_init(&job->read_body);
    TAILQ_INSERT_TAIL(&transfer->jobs, job, all);
    place->jobs++;
    transfer->jobs_active++;
    return job;
}

void transfer_job_new_guest(struct transfer *transfer, struct transfer_place *place,
                            struct transfer_guest *guest, const struct settings_route *route,
                            struct buf_queue *body)
{
    struct transfer_job *job = transfer_job_alloc(transfer, place, route, &guest->handover->hosts);
    job->guest = guest;
    job->rank = qmgr_rank(guest->envelope.class, transfer->now.wall);
    buf_queue_move(&job->read_body, body);
    transfer_job_make_ready(job);
}

/* Its envelope is here. */
static void transfer_job_loaded(struct transfer *transfer, struct transfer_job *job)
{
    struct qmgr_view view = qmgr_delivery_view(transfer->qmgr, job->delivery);

    /* What is not stored cannot be read: see transfer_cut_hold_back(). */
    if ((view.body != NULL && !buf_queue_is_empty(view.body)) || view.entry == NULL ||
        envelope_stored_size(view.envelope) == 0) {
        transfer_job_make_ready(job);
        return;
    }
    job->state = TRANSFER_JOB_UNREAD;
    job->place->reading++;
    TAILQ_INSERT_TAIL(&transfer->unread, job, link);
    transfer_jobs_read(transfer);
}

struct transfer_job *transfer_job_new(struct transfer *transfer, struct transfer_line *line,
                                      struct qmgr_delivery *delivery, int64_t rank)
{
    struct transfer_job *job =
        transfer_job_alloc(transfer, line->place, line->route, &line->answer);
    job->delivery = delivery;
    job->rank = rank;
    qmgr_delivery_set_user(delivery, job);
    if (qmgr_delivery_is_loaded(delivery)) {
        transfer_job_loaded(transfer, job);
        return job;
    }
    job->state = TRANSFER_JOB_LOADING;
    job->place->reading++;
    return job;
}

void transfer_job_on_loaded(struct transfer *transfer, struct transfer_job *job, bool is_loaded)
{
    CHECK(job->state == TRANSFER_JOB_LOADING);
    job->place->reading--;
    if (is_loaded) {
        transfer_job_loaded(transfer, job);
        transfer_place_wake(transfer, job->place);
        return;
    }
    job->state = TRANSFER_JOB_READING; /* as one whose body could not be read */
    transfer_job_put_back(transfer, job, transfer->now.wall + (wall_us)TRANSFER_RESOLVE_RETRY_TIME);
}

void transfer_job_on_read(struct transfer *transfer, struct transfer_job *job,
                          struct spool_event *event)
{
    CHECK(job->state == TRANSFER_JOB_READING);
    job->place->reading--;
    transfer->reading_size -= job->read_size;
    if (event->err == ERR_OK) {
        buf_queue_move(&job->read_body, &event->octets);
        transfer_job_make_ready(job);
        transfer_place_wake(transfer, job->place);
        return;
    }
    buf_queue_fini(&event->octets);
    if (event->err == ERR_DISK_CORRUPT) {
        transfer_job_settle_all(transfer, job,
                                &(struct transfer_verdict){RECIPIENT_FAILED,
                                                           554,
                                                           {5, 3, 0},
                                                           "the stored message failed its checksum",
                                                           true,
                                                           0});
        return;
    }
    transfer_job_put_back(transfer, job, transfer->now.wall + (wall_us)TRANSFER_RESOLVE_RETRY_TIME);
}

/* ---- SENDING ---- */

static struct client_request transfer_job_request(struct transfer *transfer,
                                                  struct transfer_job *job,
                                                  const struct transfer_member *member,
                                                  const struct qmgr_view *view)
{
    const struct settings_client *client = &job->settings->client;
    const struct transfer_site *site = member->site;
    uint32_t count_max =
        site->recipient_max > 0 ? site->recipient_max : client->recipients_per_transaction_max;

    return (struct client_request){
        .user = (uint64_t)(uintptr_t)job,
        .route = job->route,
        .source = member->source,
        .families_avoided =
            (uint8_t)source_families_resting(transfer->sources, member->number, transfer->now.tick),
        .site = site->key,
        .hosts = &job->answer,
        .envelope = view->envelope,
        .recipients = view->recipients,
        .recipient_count = view->recipient_count < count_max ? view->recipient_count : count_max,
        .messages_per_connection_max = site->messages_per_connection_max,
        .bdat_ahead =
            site->bdat_ahead == SETTINGS_BDAT_AHEAD_UNSAID ? client->bdat_ahead : site->bdat_ahead,
        .body = job->read_size > 0 ? &job->read_body : view->body,
        .feed = transfer_stream_feed(job),
        .heard = transfer_cut_heard(job),
        .deadline = transfer->now.tick + client->attempt_timeout,
        .is_alone = (view->envelope->flags & ENVELOPE_IN_DOUBT) != 0,
    };
}

/* The right to say MAIL. */
static enum err transfer_job_may_mail(struct transfer *transfer, struct transfer_job *job,
                                      struct transfer_site *site, int64_t rank)
{
    enum err err = site_mail_acquire(transfer->sites, site->site, rank,
                                     transfer_place_waiting(job->place), transfer->now.tick);

    site->is_mail_short = err != ERR_OK;
    return err;
}

/*
 * A slot, unless a kept connection will do, and the right to say MAIL. Where that was missing last
 * time it is asked for first: a slot that cannot be used goes back, to be offered to the next who
 * cannot use it, and with two sources each offer would make the other be asked for again.
 */
static enum err transfer_job_acquire(struct transfer *transfer, struct transfer_job *job,
                                     struct transfer_site *site, bool needs_slot)
{
    int64_t rank = transfer_site_rank(site);
    bool is_mail_first = site->is_mail_short || !needs_slot;
    enum err err = ERR_OK;

    if (is_mail_first)
        TRY(transfer_job_may_mail(transfer, job, site, rank));
    if (needs_slot)
        err = site_slot_acquire(transfer->sites, site->site, rank, job->place->jobs,
                                transfer->now.tick);
    if (err != ERR_OK && is_mail_first)
        site_mail_done(transfer->sites, site->site, false, transfer->now.tick);
    if (err != ERR_OK || is_mail_first)
        return err;
    err = transfer_job_may_mail(transfer, job, site, rank);
    if (err != ERR_OK)
        site_slot_return(transfer->sites, site->site, transfer->now.tick);
    return err;
}

/* What a job goes over. */
enum transfer_over {
    TRANSFER_OVER_NEW,    /* a connection of its own */
    TRANSFER_OVER_KEPT,   /* one that was kept */
    TRANSFER_OVER_ANOTHER /* that of another message, behind it */
};

static void transfer_job_send(struct transfer *transfer, struct transfer_job *job,
                              struct transfer_member *member, const struct client_request *request,
                              enum transfer_over over)
{
    struct transfer_site *site = member->site;
    bool is_new = over == TRANSFER_OVER_NEW;

    TAILQ_REMOVE(&job->place->ready, job, link);
    job->state = TRANSFER_JOB_SENDING;
    job->member = member;
    job->started = transfer->now.wall;
    job->started_tick = transfer->now.tick;
    transfer_cut_sending(transfer, job);
    site->connections += is_new;
    transfer_source_begin(transfer, job, is_new);
    enum err err = over == TRANSFER_OVER_ANOTHER
                       ? client_follow(transfer->client, request, transfer->now.tick)
                       : client_start(transfer->client, request, transfer->now.tick);
    if (err == ERR_OK)
        return;
    site_mail_done(transfer->sites, site->site, false, transfer->now.tick);
    if (is_new) {
        site->connections--;
        site_slot_return(transfer->sites, site->site, transfer->now.tick);
    }
    transfer_job_put_back(transfer, job, transfer->now.wall + (wall_us)TRANSFER_RESOLVE_RETRY_TIME);
}

/* A connection of its own was not to be had: behind another message, if one takes it and the right
 * to say MAIL is not what was missing. A connection that is to be closed does not take any. */
static bool transfer_job_try_behind(struct transfer *transfer, struct transfer_job *job,
                                    struct transfer_member *member,
                                    const struct client_request *request)
{
    struct transfer_site *site = member->site;

    if (site->is_mail_short || site_has_excess(site->site) ||
        !client_may_follow(transfer->client, request) ||
        transfer_job_may_mail(transfer, job, site, transfer_site_rank(site)) != ERR_OK)
        return false;
    transfer_job_send(transfer, job, member, request, TRANSFER_OVER_ANOTHER);
    return true;
}

enum transfer_try transfer_job_try(struct transfer *transfer, struct transfer_job *job,
                                   struct transfer_member *member)
{
    struct qmgr_view view = transfer_job_view(transfer, job);
    struct client_request request = transfer_job_request(transfer, job, member, &view);
    bool is_new = !client_has_idle(transfer->client, &request);

    CHECK(job->state == TRANSFER_JOB_READY);
    if (is_new && !client_has_room(transfer->client, request.site, transfer->now.tick)) {
        if (transfer_job_try_behind(transfer, job, member, &request))
            return TRANSFER_TRY_STARTED;
        if (transfer->crowded_until == 0)
            transfer->crowded_until = transfer->now.tick + TRANSFER_RESOLVE_RETRY_TIME;
        return TRANSFER_TRY_BUSY;
    }
    enum err err = transfer_job_acquire(transfer, job, member->site, is_new);
    if (err == ERR_TIMEOUT)
        return TRANSFER_TRY_PAUSED;
    if (err != ERR_OK)
        return is_new && transfer_job_try_behind(transfer, job, member, &request)
                   ? TRANSFER_TRY_STARTED
                   : TRANSFER_TRY_BUSY;
    transfer_job_send(transfer, job, member, &request,
                      is_new ? TRANSFER_OVER_NEW : TRANSFER_OVER_KEPT);
    return TRANSFER_TRY_STARTED;
}

bool transfer_job_try_away(struct transfer *transfer, struct transfer_job *job,
                           struct transfer_member *member)
{
    struct qmgr_view view = transfer_job_view(transfer, job);
    struct client_request request = transfer_job_request(transfer, job, member, &view);

    if (request.feed != NULL)
        return false;
    return transfer_job_send_away(transfer, job, member, &request);
}

static struct qmgr_result transfer_result_of(const struct qmgr_view *view, uint32_t index,
                                             const struct client_recipient_result *from)
{
    struct qmgr_result result = {
        .recipient_index = view->recipients[index],
        .state = from->state,
        .reply = from->reply,
        .code = from->code,
    };
    memcpy(result.enhanced, from->enhanced, sizeof(result.enhanced));
    /* RFC 3461 section 5.2.2: nobody behind this hop will tell the sender of a success. */
    if (from->state == RECIPIENT_DELIVERED && !from->is_dsn_passed_on)
        result.state = RECIPIENT_RELAYED;
    return result;
}

static void transfer_record_fill(const struct transfer *transfer, const struct transfer_job *job,
                                 const struct qmgr_view *view, const struct client_result *result,
                                 struct record *ret_record)
{
    transfer_record_begin(transfer, view, ret_record);
    ret_record->delays_ms[1] = transfer_delay_ms(view->active_since, job->started);
    ret_record->delays_ms[2] = (uint32_t)(result->connect_time / 1000);
    ret_record->delays_ms[3] = (uint32_t)(result->transmit_time / 1000);
    ret_record->session = result->connection;
    ret_record->connection_use = result->connection_use;
    ret_record->peer = result->peer;
    ret_record->source = result->source;
    record_text(ret_record->source_name, sizeof(ret_record->source_name),
                span_from_text(job->member->source->name));
    if (result->is_in_doubt)
        ret_record->flags |= RECORD_UNCERTAIN;
    ret_record->flags |= result->has_followed ? RECORD_NEXT_AHEAD : 0;
    ret_record->flags |= result->is_bdat_ahead ? RECORD_BDAT_AHEAD : 0;
    record_text(ret_record->host, sizeof(ret_record->host), span_from_text(result->host));
    if (result->tls_version != NULL)
        record_text(ret_record->tls, sizeof(ret_record->tls), span_from_text(result->tls_version));
}

/* That we ended it is all that came of the attempt; or there is no message any more. */
static bool transfer_job_was_withdrawn(const struct transfer_job *job,
                                       const struct client_result *result)
{
    if (job->is_abandoned || !job->is_withdrawn)
        return job->is_abandoned;
    for (uint32_t i = 0; i < result->recipient_count; i++) {
        if (result->recipients[i].state != RECIPIENT_DUE)
            return false;
    }
    return !result->is_in_doubt;
}

void transfer_job_settle(struct transfer *transfer, struct transfer_job *job,
                         const struct client_result *result)
{
    struct qmgr_view view = qmgr_delivery_view(transfer->qmgr, job->delivery);
    uint32_t deferred = 0, left_over = view.recipient_count - result->recipient_count;
    bool was_attempted = result->was_attempted && !transfer_job_was_withdrawn(job, result);

    CHECK(result->recipient_count <= view.recipient_count);
    struct qmgr_result few[TRANSFER_RESULTS_FEW] UNINITIALIZED, *results = few;
    if (result->recipient_count > TRANSFER_RESULTS_FEW)
        results = malloc(result->recipient_count * sizeof(*results));
    CHECK(results != NULL);
    struct record record UNINITIALIZED;
    transfer_record_fill(transfer, job, &view, result, &record);
    for (uint32_t i = 0; i < result->recipient_count; i++)
        results[i] = transfer_result_of(&view, i, &result->recipients[i]);
    if (transfer_cut_passes_on(transfer, job->delivery, results, result->recipient_count))
        record.flags |= RECORD_PASSED_ON;
    if (!was_attempted)
        transfer_cut_put_back(transfer, job);
    for (uint32_t i = 0; i < result->recipient_count; i++) {
        if (result->recipients[i].retry_now) {
            left_over++;
            continue;
        }
        deferred += results[i].state == RECIPIENT_DUE;
        if (was_attempted)
            transfer_record_emit(transfer, &record, &view.envelope->recipients[view.recipients[i]],
                                 &results[i]);
    }
    struct qmgr_finish finish = {
        .results = results,
        .result_count = result->recipient_count,
        .is_in_doubt = result->is_in_doubt,
        .was_attempted = was_attempted,
        .retry_now = (left_over > 0 && deferred == 0) || !was_attempted,
    };
    if (job->state == TRANSFER_JOB_AWAY && !was_attempted) /* not back there at once */
        finish.retry_not_before = transfer->now.wall + (wall_us)TRANSFER_RESOLVE_RETRY_TIME;
    qmgr_finish(transfer->qmgr, job->delivery, &finish, transfer->now);
    if (results != few)
        free(results);
    transfer_job_end(transfer, job);
}

/* A refusal that another message would meet too. What we refused ourselves is none. */
static bool recipient_is_refused(const struct client_recipient_result *recipient)
{
    bool is_our_own = recipient->code == 0 && recipient->stage == SMTP_STAGE_MAIL &&
                      recipient->enhanced[1] == 4 && recipient->enhanced[2] == 5;

    return recipient->state == RECIPIENT_DUE && !recipient->retry_now && !is_our_own &&
           (recipient->scope == SMTP_SCOPE_HOST || recipient->scope == SMTP_SCOPE_SOURCE);
}

/* What an attempt tells of its site. */
enum site_outcome transfer_outcome_of(const struct client_result *result)
{
    bool is_neutral = true;

    if (!result->has_connected) {
        for (uint32_t i = 0; i < result->recipient_count; i++) {
            if (result->recipients[i].stage == SMTP_STAGE_GREETING &&
                result->recipients[i].code != 0)
                return SITE_OUTCOME_TURNED_AWAY;
        }
        return SITE_OUTCOME_UNREACHABLE;
    }
    for (uint32_t i = 0; i < result->recipient_count; i++) {
        if (recipient_is_refused(&result->recipients[i]))
            return SITE_OUTCOME_REFUSED;
        is_neutral = is_neutral && result->recipients[i].code == 0;
    }
    return is_neutral ? SITE_OUTCOME_NEUTRAL : SITE_OUTCOME_OK;
}

void transfer_job_on_result(void *context, const struct client_result *result)
{
    struct transfer *transfer = context;
    struct transfer_job *job = (struct transfer_job *)(uintptr_t)result->user;

    CHECK(job->state == TRANSFER_JOB_SENDING);
    if (result->was_attempted) {
        latency_add(&transfer->latencies.attempt,
                    (int64_t)(transfer->now.tick - job->started_tick));
        site_outcome(transfer->sites, job->member->site->site, transfer_outcome_of(result),
                     job->started_tick, transfer->now.tick);
    }
    transfer_source_judge(transfer, job, result);
    if (job->guest == NULL) {
        /* Replies are told in the turn that received them. */
        transfer->reply_heard =
            result->recipients[0].code != 0 ? stamps_turn(transfer->options.stamps) : 0;
        transfer_job_settle(transfer, job, result);
        transfer->reply_heard = 0;
        return;
    }
    transfer_guest_end(transfer, job->guest, result);
    transfer_job_end(transfer, job);
}

/* ---- all jobs ---- */

static bool transfer_job_is_cancelled(const struct transfer_job *job)
{
    return job->guest != NULL ? job->guest->is_cancelled
                              : qmgr_delivery_is_cancelled(job->delivery);
}

void transfer_jobs_scan(struct transfer *transfer)
{
    struct transfer_job *job, *next;

    for (job = TAILQ_FIRST(&transfer->jobs); job != NULL; job = next) {
        next = TAILQ_NEXT(job, all);
        bool is_cancelled = transfer_job_is_cancelled(job);
        bool is_stale = job->settings->serial != transfer->settings->serial;
        if (job->state == TRANSFER_JOB_READY || job->state == TRANSFER_JOB_UNREAD) {
            if (is_cancelled || is_stale || transfer->is_draining)
                transfer_job_put_back(transfer, job, 0);
        } else if (is_cancelled && !job->is_cancel_sent) {
            job->is_cancel_sent = true;
            if (job->state == TRANSFER_JOB_SENDING)
                client_cancel(transfer->client, (uint64_t)(uintptr_t)job, transfer->now.tick);
            else if (job->state == TRANSFER_JOB_AWAY)
                transfer_job_recall(transfer, job);
            else
                job->is_cancel_sent = false; /* READING: look again when it is READY */
        }
    }
}

void transfer_jobs_free(struct transfer *transfer)
{
    struct transfer_job *job;
    while ((job = TAILQ_FIRST(&transfer->jobs)) != NULL) {
        TAILQ_REMOVE(&transfer->jobs, job, all);
        buf_queue_fini(&job->read_body);
        /* What another shard holds for us is ours; what we hold for another is not. */
        if (job->away != NULL)
            handover_free(job->away);
        if (job->guest != NULL)
            transfer_guest_free(job->guest);
        free(job);
    }
    while ((job = transfer->spare_jobs) != NULL) {
        transfer->spare_jobs = job->spare_next;
        free(job);
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hub of a shard, inbound half: a session's octets become a spool transaction, its end a
 * commit, and the commit's completion releases the reply and hands the message to the queue. Also
 * here: the shard's turn through everything the transfer joins.
 *
 * Invariants
 *   1. on_commit() says 250 only after the spool reported COMMITTED with ERR_OK, and the queue has
 * the message before the reply leaves.
 *   2. Every intake ends in exactly one of transfer_end() (then exactly one on_commit()) and
 * transfer_abort().
 *   3. Callbacks of client, sites and DNS only note what happened (woken lists); work starts from
 * transfer_run(), so nothing re-enters.
 *   4. Whatever waits for the spool begins with a struct transfer_token, whose address is the
 * spool's token.
 *
 * Life of an intake
 *   transfer_begin() -> (transfer_body())* -> transfer_end() -> COMMITTED -> on_commit(250), queued
 *                                  |                                  \---> on_commit(451 or 452)
 *                                  \-> transfer_abort()
 *
 * Limits: the queue's message_count_max is kept at the door, where begun intakes count. What is
 * durable is queued whatever the count: recovered messages and notifications pass no door. Not
 * here: lines and sites (transfer_line.c), attempts (transfer_job.c), notifications
 * (transfer_dsn.c).
 */
#include "relay/transfer_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

#define TRANSFER_EVENT_BURST     64u
#define TRANSFER_DRAIN_AWAY_TIME TICK_S(2)

/* ---- inbound ---- */

static struct message_id transfer_id_next(struct transfer *transfer)
{
    return (struct message_id){(uint64_t)transfer->now.wall, rng_u64(transfer->options.rng)};
}

enum err transfer_begin(struct transfer *transfer, uint64_t size_hint, struct tick_now now,
                        struct transfer_intake **ret_intake, struct message_id *ret_id)
{
    transfer->now = now;
    if (qmgr_get_stats(transfer->qmgr).messages + transfer->intakes >=
        transfer->options.queue.message_count_max)
        return ERR_LIMIT;
    struct message_id id = transfer_id_next(transfer);
    struct spool_transaction *transaction =
        spool_begin(transfer->options.spool, id, size_hint, false);
    if (transaction == NULL)
        return spool_refusal(transfer->options.spool);

    struct transfer_intake *intake = calloc(1, sizeof(*intake));
    CHECK(intake != NULL);
    intake->token.kind = TRANSFER_TOKEN_INTAKE;
    intake->transaction = transaction;
    intake->id = id;
    intake->is_kept = true;
    buf_queue_init(&intake->body);
    LIST_INSERT_HEAD(&transfer->receiving, intake, link);
    transfer->intakes++;
    *ret_intake = intake;
    *ret_id = id;
    return ERR_OK;
}

static void transfer_body_forget(struct transfer_intake *intake)
{
    buf_queue_fini(&intake->body);
    intake->is_kept = false;
}

enum err transfer_body(struct transfer *transfer, struct transfer_intake *intake,
                       struct buf_queue *octets)
{
    if (intake->is_kept && intake->body.size + octets->size > TRANSFER_BODY_KEEP_MAX)
        transfer_body_forget(intake);
    if (intake->is_kept)
        buf_queue_append_queue(&intake->body, octets);
    return spool_write_body(transfer->options.spool, intake->transaction, octets);
}

void transfer_relieve(struct transfer *transfer)
{
    struct transfer_intake *intake;

    LIST_FOREACH(intake, &transfer->receiving, link)
    transfer_body_forget(intake);
    spool_relieve(transfer->options.spool);
}

uint64_t transfer_pending(const struct transfer_intake *intake)
{
    return spool_unwritten(intake->transaction);
}

static void transfer_intake_free(struct transfer *transfer, struct transfer_intake *intake)
{
    CHECK(transfer->intakes > 0);
    buf_queue_fini(&intake->body);
    free(intake->encoded);
    free(intake);
    transfer->intakes--;
}

void transfer_end(struct transfer *transfer, struct transfer_intake *intake,
                  struct envelope *envelope, uint64_t user)
{
    envelope->id = intake->id;
    intake->user = user;
    intake->ended = transfer->now.tick;
    intake->encoded_size = envelope_encoded_size(envelope);
    intake->encoded = malloc(intake->encoded_size);
    CHECK(intake->encoded != NULL);
    envelope_encode(envelope, intake->encoded);
    LIST_REMOVE(intake, link);
    LIST_INSERT_HEAD(&transfer->committing, intake, link);
    spool_commit(transfer->options.spool, intake->transaction,
                 span_of(intake->encoded, intake->encoded_size), (uint64_t)(uintptr_t)intake);
}

void transfer_abort(struct transfer *transfer, struct transfer_intake *intake)
{
    spool_abort(transfer->options.spool, intake->transaction);
    LIST_REMOVE(intake, link);
    transfer_intake_free(transfer, intake);
}

/*
 * Bodies kept for their first attempt and buffers for receiving come from one pool. Kept bodies may
 * have the first half of it; beyond that a body is read back from the spool when its turn comes, so
 * that receiving (and acknowledgements with it) never starves.
 */
static bool transfer_may_keep_body(const struct transfer *transfer)
{
    const struct buf_pool *pool = transfer->options.plane->pool;
    return buf_pool_available(pool) > buf_pool_in_use(pool);
}

static void transfer_on_committed(struct transfer *transfer, struct transfer_intake *intake,
                                  const struct spool_event *event)
{
    uint16_t code = 250;

    if (event->err == ERR_OK) {
        struct qmgr_insert insert = {
            .encoded = span_of(intake->encoded, intake->encoded_size),
            .is_new = true,
            .entry = event->entry,
            .body = intake->is_kept && transfer_may_keep_body(transfer) ? &intake->body : NULL,
        };
        enum err err = qmgr_insert(transfer->qmgr, &insert, transfer->now);
        CHECK(err == ERR_OK); /* the queue takes what is durable, and we encoded it ourselves */
        latency_add(&transfer->latencies.accept, (int64_t)(transfer->now.tick - intake->ended));
    } else {
        code = event->err == ERR_DISK_FULL ? 452 : 451;
    }
    transfer->options.on_commit(transfer->options.server, intake->user, code, intake->id);
    LIST_REMOVE(intake, link);
    transfer_intake_free(transfer, intake);
}

void transfer_adopting(struct transfer *transfer, bool is_adopting)
{
    transfer->is_adopting = is_adopting;
}

void transfer_recovered(struct transfer *transfer, const struct spool_recovered *message,
                        struct tick_now now)
{
    transfer->now = now;
    struct qmgr_insert insert = {
        .encoded = message->envelope,
        .entry = message->entry,
        .progress = message->progress,
        .progress_count = message->progress_count,
    };
    struct envelope_index index UNINITIALIZED;
    enum err err = ERR_OK;
    if (message->envelope.size == 0) { /* it was not read, and need not be yet */
        err = envelope_index_decode(message->index, spool_entry_id(message->entry), &index);
        insert.index = &index;
    }
    if (err == ERR_OK)
        err = qmgr_insert(transfer->qmgr, &insert, now);
    if (err != ERR_OK)
        log_line(LOG_ERROR,
                 "event=recovered_message_not_queued reason=\"%s\" (it stays in the spool)",
                 err_text(err));
}

/* ---- callbacks: note and return ---- */

static void transfer_on_done(void *context, struct spool_entry *entry)
{
    struct transfer *transfer = context;
    spool_done(transfer->options.spool, entry);
}

static void transfer_on_line_gone(void *context, void *user)
{
    (void)context;
    CHECK(user == NULL); /* lines carry our pointer only while parked */
}

/* The end, or a turn, of a recipient that no next hop decided. */
static struct record transfer_own_record(const struct transfer *transfer,
                                         const struct envelope *envelope, uint32_t recipient_index)
{
    struct record record = {
        .shard = transfer->options.shard,
        .time = transfer->now.wall,
        .id = envelope->id,
        .size = envelope->body_size,
        .flags = envelope->flags & ENVELOPE_IS_DSN ? RECORD_IS_DSN : 0,
    };
    record_text(record.sender, sizeof(record.sender), envelope->sender);
    record_text(record.user, sizeof(record.user), envelope->user);
    record_text(record.recipient, sizeof(record.recipient),
                envelope->recipients[recipient_index].address);
    record_text(record.site, sizeof(record.site), envelope->recipients[recipient_index].domain);
    return record;
}

static void transfer_on_expired(void *context, const struct envelope *envelope,
                                uint32_t recipient_index)
{
    struct transfer *transfer = context;
    struct record record = transfer_own_record(transfer, envelope, recipient_index);

    record.kind = RECORD_EXPIRY;
    memcpy(record.enhanced, (uint8_t[3]){4, 4, 7}, sizeof(record.enhanced));
    record_text(record.text, sizeof(record.text), SPAN_LITERAL("message lifetime ended"));
    transfer->options.records.emit(transfer->options.records.context, &record);
}

static void transfer_on_order(void *context, const struct envelope *envelope,
                              uint32_t recipient_index, const struct qmgr_order *order)
{
    struct transfer *transfer = context;
    char text[sizeof(order->route) + sizeof(order->reason) + 64];
    struct record record = transfer_own_record(transfer, envelope, recipient_index);

    record.kind = RECORD_ORDER;
    (void)snprintf(text, sizeof(text), "%s%s%s, order %u: %s", qmgr_verb_name(order->verb),
                   order->route[0] != '\0' ? " to " : "", order->route, order->id, order->reason);
    record_text(record.text, sizeof(record.text), span_from_text(text));
    transfer->options.records.emit(transfer->options.records.context, &record);
}

static void transfer_on_site_wake(void *context, struct site *site)
{
    struct transfer *transfer = context;
    struct transfer_site *found = transfer_site_find(transfer, site_get_view(site).key);
    if (found == NULL)
        return;
    transfer_site_wake(transfer, found);
    if (site_is_suspended(site, transfer->now.tick))
        client_close_idle(transfer->client, found->key, transfer->now.tick);
}

static void transfer_on_site_send(void *context, uint32_t to_shard,
                                  const struct site_message *message)
{
    struct transfer *transfer = context;
    transfer->options.sites.send(transfer->options.sites.context, to_shard, message);
}

static bool transfer_may_race(void *context, uint64_t key)
{
    struct transfer *transfer = context;
    struct transfer_site *site = transfer_site_find(transfer, key);

    CHECK(site != NULL && site->connections > 0);
    if (!site_slot_try(transfer->sites, site->site, transfer->now.tick))
        return false;
    site->connections++;
    return true;
}

static void transfer_on_connection_closed(void *context, uint64_t key)
{
    struct transfer *transfer = context;
    struct transfer_site *site = transfer_site_find(transfer, key);
    CHECK(site != NULL && site->connections > 0);
    site->connections--;
    site_slot_return(transfer->sites, site->site, transfer->now.tick);
    transfer_site_wake(transfer, site);
    transfer_site_review(transfer, site);
}

static void transfer_on_connection_idle(void *context, uint64_t key)
{
    struct transfer *transfer = context;
    struct transfer_site *site = transfer_site_find(transfer, key);
    CHECK(site != NULL);
    transfer_site_wake(transfer, site);
    if (site_has_excess(site->site) || site_is_suspended(site->site, transfer->now.tick))
        client_close_idle(transfer->client, key, transfer->now.tick); /* may forget the site */
}

static bool transfer_on_may_mail(void *context, uint64_t key, bool has_right)
{
    struct transfer *transfer = context;
    struct transfer_site *site = transfer_site_find(transfer, key);
    CHECK(site != NULL);
    if (has_right || site_is_suspended(site->site, transfer->now.tick))
        return !site_is_suspended(site->site, transfer->now.tick);
    return site_mail_acquire(transfer->sites, site->site, transfer->now.wall, 1,
                             transfer->now.tick) == ERR_OK;
}

static void transfer_on_mail(void *context, uint64_t key, bool was_used)
{
    struct transfer *transfer = context;
    struct transfer_site *site = transfer_site_find(transfer, key);
    CHECK(site != NULL);
    site_mail_done(transfer->sites, site->site, was_used, transfer->now.tick);
}

static void transfer_on_host(void *context, const struct flow_address *address, bool is_ok)
{
    struct transfer *transfer = context;
    site_host_report(transfer->sites, address, sizeof(*address), is_ok, transfer->now.tick);
}

/* ---- the turn ---- */

static void transfer_on_spool_event(struct transfer *transfer, struct spool_event *event)
{
    struct transfer_token *token = (struct transfer_token *)(uintptr_t)event->token;

    if (event->kind == SPOOL_EVENT_DAMAGED) {
        (void)qmgr_damaged(transfer->qmgr, event->id, event->damage, transfer->now);
        return;
    }
    if (qmgr_owns_token(event->token)) {
        qmgr_on_read(transfer->qmgr, event, transfer->now);
        return;
    }
    switch (token->kind) {
    case TRANSFER_TOKEN_INTAKE:
        CHECK(event->kind == SPOOL_EVENT_COMMITTED);
        transfer_on_committed(transfer, (struct transfer_intake *)token, event);
        break;
    case TRANSFER_TOKEN_JOB:
        CHECK(event->kind == SPOOL_EVENT_READ);
        transfer_job_on_read(transfer, (struct transfer_job *)token, event);
        break;
    case TRANSFER_TOKEN_DSN:
        transfer_dsn_on_event(transfer, (struct transfer_dsn *)token, event);
        break;
    case TRANSFER_TOKEN_LINE:
        CHECK(false && "lines wait for envelopes only");
    }
}

/* Deliveries that waited for their envelopes. */
static void transfer_loaded_run(struct transfer *transfer)
{
    struct qmgr_delivery *delivery;
    bool is_loaded;

    while ((delivery = qmgr_loaded_next(transfer->qmgr, &is_loaded)) != NULL) {
        struct transfer_token *token = qmgr_delivery_user(delivery);
        if (token->kind == TRANSFER_TOKEN_LINE)
            transfer_line_on_loaded(transfer, (struct transfer_line *)token, delivery, is_loaded);
        else
            transfer_job_on_loaded(transfer, (struct transfer_job *)token, is_loaded);
    }
}

static void transfer_poll_spool(struct transfer *transfer)
{
    struct spool_event events[TRANSFER_EVENT_BURST];
    uint32_t count;

    do {
        count = spool_poll(transfer->options.spool, transfer->now, events, COUNT_OF(events));
        for (uint32_t i = 0; i < count; i++)
            transfer_on_spool_event(transfer, &events[i]);
    } while (count == COUNT_OF(events));
}

void transfer_run(struct transfer *transfer, struct tick_now now)
{
    transfer->now = now;
    transfer_poll_spool(transfer);
    transfer_loaded_run(transfer);
    client_advance(transfer->client, now.tick);
    site_advance(transfer->sites, now.tick);
    qmgr_advance(transfer->qmgr, now);
    if (now.tick >= transfer->cancel_scan) {
        transfer_jobs_scan(transfer);
        transfer->cancel_scan = now.tick + TRANSFER_CANCEL_SCAN_TIME;
    }
    if (source_advance(transfer->sources, now.tick))
        transfer_places_wake(transfer);
    transfer_places_warm_up(transfer);
    if (transfer->crowded_until != 0 && now.tick >= transfer->crowded_until) {
        transfer->crowded_until = 0;
        transfer_places_wake(transfer);
    }
    transfer_lines_run(transfer);
    transfer_places_run(transfer);
    transfer_bounces_run(transfer);
    transfer_dsns_run(transfer);
}

static tick_us tick_earlier(tick_us a, tick_us b)
{
    return a < b ? a : b;
}

static tick_us transfer_tick_of(const struct transfer *transfer, wall_us wall)
{
    return wall <= transfer->now.wall ? transfer->now.tick
                                      : transfer->now.tick + (tick_us)(wall - transfer->now.wall);
}

tick_us transfer_deadline(const struct transfer *transfer)
{
    tick_us deadline = client_deadline(transfer->client);
    deadline = tick_earlier(deadline, site_set_deadline(transfer->sites));
    deadline = tick_earlier(deadline, qmgr_deadline(transfer->qmgr));
    deadline = tick_earlier(deadline, spool_deadline(transfer->options.spool));
    deadline = tick_earlier(deadline, source_deadline(transfer->sources));
    if (transfer->warmup_next != INT64_MAX)
        deadline = tick_earlier(deadline, transfer_tick_of(transfer, transfer->warmup_next));
    if (transfer->jobs_active > 0)
        deadline = tick_earlier(deadline, transfer->cancel_scan);
    if (transfer->crowded_until != 0)
        deadline = tick_earlier(deadline, transfer->crowded_until);
    if (!TAILQ_EMPTY(&transfer->woken) || !TAILQ_EMPTY(&transfer->woken_places) ||
        transfer_bounces_are_due(transfer))
        deadline = 0;
    return deadline;
}

void transfer_on_flow(struct transfer *transfer, const struct flow_event *event,
                      struct tick_now now)
{
    transfer->now = now;
    client_on_flow(transfer->client, event, now.tick);
}

void transfer_on_site_message(struct transfer *transfer, const struct site_message *message,
                              struct tick_now now)
{
    transfer->now = now;
    site_receive(transfer->sites, message, now.tick);
}

/* Jobs to wait for. What is away is waited for only briefly: its holder may have stopped before it
 * got our message. */
static uint32_t transfer_drain_jobs(const struct transfer *transfer)
{
    const struct transfer_job *job;
    uint32_t count = 0;

    bool is_patient = transfer->now.tick < transfer->drain_since + TRANSFER_DRAIN_AWAY_TIME;
    TAILQ_FOREACH(job, &transfer->jobs, all)
    count += job->state != TRANSFER_JOB_AWAY || is_patient;
    return count;
}

bool transfer_drain(struct transfer *transfer, struct tick_now now)
{
    transfer->now = now;
    if (!transfer->is_draining)
        transfer->drain_since = now.tick;
    transfer->is_draining = true;
    client_close_idle(transfer->client, 0, now.tick);
    if (transfer_drain_jobs(transfer) > 0 || transfer->intakes > 0 || transfer->dsns_active > 0)
        return false;
    spool_flush(transfer->options.spool);
    return spool_is_idle(transfer->options.spool);
}

/* ---- start and end ---- */

struct transfer *transfer_new(const struct transfer_options *options,
                              const struct settings *settings, struct tick_now now)
{
    struct transfer *transfer = calloc(1, sizeof(*transfer));
    CHECK(transfer != NULL);
    transfer->options = *options;
    transfer->settings = settings;
    transfer->now = now;
    transfer->cancel_scan = now.tick + TRANSFER_CANCEL_SCAN_TIME;
    const struct buf_pool *pool = options->plane->pool;
    transfer->read_memory_max =
        (uint64_t)buf_pool_available(pool) * buf_pool_data_size(pool) / TRANSFER_READ_MEMORY_SHARE;
    TAILQ_INIT(&transfer->resolving);
    TAILQ_INIT(&transfer->woken);
    TAILQ_INIT(&transfer->settling);
    TAILQ_INIT(&transfer->woken_places);
    TAILQ_INIT(&transfer->jobs);
    TAILQ_INIT(&transfer->unread);
    STAILQ_INIT(&transfer->bounces);
    transfer->matcher = reaction_matcher_new();
    reaction_matcher_use(transfer->matcher, settings->reactions);
    LIST_INIT(&transfer->receiving);

    struct qmgr_options queue = options->queue;
    queue.context = transfer;
    queue.on_done = transfer_on_done;
    queue.on_line_gone = transfer_on_line_gone;
    queue.on_expired = transfer_on_expired;
    queue.on_order = transfer_on_order;
    transfer->qmgr = qmgr_new(&queue, options->spool, options->rng, now);
    qmgr_set_classes(transfer->qmgr, &settings->classes.order);

    struct site_options sites = options->sites;
    sites.context = transfer;
    sites.send = transfer_on_site_send;
    sites.wake = transfer_on_site_wake;
    sites.on_order = transfer_on_site_order;
    transfer->sites = site_set_new(&sites, options->rng);

    struct client_options client = {
        .plane = options->plane,
        .rng = options->rng,
        .connection_count_max = options->connection_count_max,
        .context = transfer,
        .on_result = transfer_job_on_result,
        .on_closed = transfer_on_connection_closed,
        .may_race = transfer_may_race,
        .on_idle = transfer_on_connection_idle,
        .may_mail = transfer_on_may_mail,
        .on_mail = transfer_on_mail,
        .on_host = transfer_on_host,
        .on_refusal = transfer_on_refusal,
    };
    transfer->client = client_new(&client, settings);
    transfer->sources = source_set_new(settings);
    transfer->news_drafts = calloc(options->sites.shard_count, sizeof(*transfer->news_drafts));
    CHECK(transfer->news_drafts != NULL);
    source_set_tell(transfer->sources, transfer, transfer_on_source_news);
    transfer->warmup_next = settings_warmup_next(settings, now.wall);
    return transfer;
}

void transfer_set_settings(struct transfer *transfer, const struct settings *settings)
{
    transfer->settings = settings;
    reaction_matcher_use(transfer->matcher, settings->reactions);
    qmgr_set_classes(transfer->qmgr, &settings->classes.order);
    client_set_settings(transfer->client, settings);
    source_set_settings(transfer->sources, settings);
    transfer->warmup_next = settings_warmup_next(settings, transfer->now.wall);
    transfer_places_wake(transfer);
}

bool transfer_uses_settings(const struct transfer *transfer, uint64_t serial)
{
    const struct transfer_job *job;
    TAILQ_FOREACH(job, &transfer->jobs, all)
    {
        if (job->settings->serial == serial)
            return true;
    }
    return transfer_lines_use_settings(transfer, serial) ||
           client_uses_settings(transfer->client, serial);
}

void transfer_free(struct transfer *transfer)
{
    /* A process that dies has commits under way; their fate is the next life's to find out. */
    while (!LIST_EMPTY(&transfer->committing)) {
        struct transfer_intake *intake = LIST_FIRST(&transfer->committing);
        LIST_REMOVE(intake, link);
        transfer_intake_free(transfer, intake);
    }
    transfer_dsns_free(transfer);
    client_free(transfer->client);
    transfer_jobs_free(transfer);
    transfer_lines_free(transfer);
    transfer_places_free(transfer);
    transfer_sites_free(transfer);
    source_set_free(transfer->sources);
    free(transfer->news_drafts);
    qmgr_free(transfer->qmgr);
    site_set_free(transfer->sites);
    transfer_bounces_free(transfer);
    reaction_matcher_free(transfer->matcher);
    free(transfer);
}

const struct transfer_latencies *transfer_get_latencies(const struct transfer *transfer)
{
    return &transfer->latencies;
}

uint64_t transfer_handovers(const struct transfer *transfer)
{
    return transfer->handovers;
}

struct qmgr *transfer_queue(struct transfer *transfer)
{
    return transfer->qmgr;
}

struct site_set *transfer_sites(struct transfer *transfer)
{
    return transfer->sites;
}

struct source_set *transfer_sources(struct transfer *transfer)
{
    return transfer->sources;
}

struct client *transfer_client(struct transfer *transfer)
{
    return transfer->client;
}

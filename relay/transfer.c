/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hub of a shard: its turn through everything the transfer joins, and what these call back.
 *
 * Invariants
 *   1. Callbacks of client, sites and DNS only note what happened (woken lists); work starts from
 * transfer_run(), so nothing re-enters. A result tells the queue, and may tell the server.
 *   2. Whatever waits for the spool begins with a struct transfer_token, whose address is the
 * spool's token.
 *
 * Not here: messages coming in (transfer_intake.c), lines and sites (transfer_line.c), attempts
 * (transfer_job.c), notifications (transfer_dsn.c), ends in the spool
 * (transfer_ends.c), records written again (transfer_replay.c).
 */
#include "relay/transfer_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

#define TRANSFER_EVENT_BURST     64u
#define TRANSFER_DRAIN_AWAY_TIME TICK_S(2)
#define TRANSFER_DRAIN_ENDS_TIME TICK_S(3) /* for records to be kept */

/* ---- mail of earlier runs ---- */

void transfer_adopting(struct transfer *transfer, bool is_adopting)
{
    const struct record_sink *records = &transfer->options.records;

    transfer->is_adopting = is_adopting;
    if (is_adopting && records->holder != NULL)
        transfer->replay_since = records->holder->since(records->context);
    transfer->has_adopted = !is_adopting;
}

void transfer_set_waiting(struct transfer *transfer, bool is_waiting)
{
    transfer->is_waiting = is_waiting;
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
        transfer_replay(transfer, message, insert.index);
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
    transfer_entry_end(context, entry);
}

static bool transfer_may_expire(void *context)
{
    const struct transfer *transfer = context;

    return !record_sink_holds(&transfer->options.records);
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
        .recipient_index = recipient_index,
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

static void transfer_on_connection_room(void *context, uint64_t key)
{
    struct transfer *transfer = context;
    struct transfer_site *site = transfer_site_find(transfer, key);

    if (site != NULL)
        transfer_site_wake(transfer, site);
}

static struct span transfer_on_site_label(void *context, uint64_t key)
{
    const struct transfer_site *site = transfer_site_find(context, key);

    return site == NULL ? (struct span){0} : site_get_view(site->site).label;
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

static void transfer_on_host(void *context, uint64_t site, const struct flow_address *address,
                             bool is_ok)
{
    struct transfer *transfer = context;
    site_host_report(transfer->sites, site, span_of(address, sizeof(*address)), is_ok,
                     transfer->now.tick);
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
    case TRANSFER_TOKEN_REPLAY:
        CHECK(event->kind == SPOOL_EVENT_READ);
        transfer_replay_on_read(transfer, (struct transfer_replay *)token, event);
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
    struct spool_event events[TRANSFER_EVENT_BURST] UNINITIALIZED;
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
    transfer_intakes_run(transfer);
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
    transfer_ends_run(transfer);
    transfer->is_held_back = record_sink_holds(&transfer->options.records);
    if (!transfer->is_held_back) {
        transfer_lines_run(transfer);
        transfer_places_run(transfer);
    }
    transfer_cut_run(transfer);
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
    deadline = tick_earlier(deadline, transfer_cut_deadline(transfer));
    if (transfer->warmup_next != INT64_MAX)
        deadline = tick_earlier(deadline, transfer_tick_of(transfer, transfer->warmup_next));
    if (transfer->jobs_active > 0)
        deadline = tick_earlier(deadline, transfer->cancel_scan);
    if (transfer->crowded_until != 0)
        deadline = tick_earlier(deadline, transfer->crowded_until);
    deadline = tick_earlier(deadline, transfer_ends_deadline(transfer));
    if (transfer->is_held_back)
        return tick_earlier(deadline, transfer->now.tick + TRANSFER_HELD_BACK_TIME);
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
    transfer_cut_drain(transfer);
    client_close_idle(transfer->client, 0, now.tick);
    if (transfer_drain_jobs(transfer) > 0 || transfer->intakes > 0 || transfer->dsns_active > 0)
        return false;
    if (transfer->ends.count > 0 && now.tick < transfer->drain_since + TRANSFER_DRAIN_ENDS_TIME)
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
    transfer->replay_since = INT64_MAX;
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
    for (uint32_t i = 0; i < TRANSFER_INTAKE_STATE_COUNT; i++)
        LIST_INIT(&transfer->intakes_by_state[i]);
    wheel_init(&transfer->wheel, now.tick);

    struct qmgr_options queue = options->queue;
    queue.context = transfer;
    queue.on_unstored_end = transfer_on_unstored_end;
    queue.on_store_due = transfer_on_store_due;
    queue.on_done = transfer_on_done;
    queue.on_line_gone = transfer_on_line_gone;
    queue.keeps_ends = options->records.is_holding;
    queue.on_expired = transfer_on_expired;
    queue.may_expire = transfer_may_expire;
    queue.on_order = transfer_on_order;
    transfer->qmgr = qmgr_new(&queue, options->spool, options->rng, now);
    qmgr_set_classes(transfer->qmgr, &settings->classes.order);

    struct site_options sites = options->sites;
    sites.context = transfer;
    sites.send = transfer_on_site_send;
    sites.wake = transfer_on_site_wake;
    sites.on_order = transfer_on_site_order;
    sites.on_name = transfer_on_site_name;
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
        .on_room = transfer_on_connection_room,
        .may_mail = transfer_on_may_mail,
        .on_mail = transfer_on_mail,
        .on_host = transfer_on_host,
        .on_refusal = transfer_on_refusal,
        .trace = options->trace,
        .stamps = options->stamps,
        .site_label = transfer_on_site_label,
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
    transfer_intakes_free(transfer);
    transfer_dsns_free(transfer);
    transfer_replays_free(transfer);
    transfer_ends_free(transfer);
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

const struct transfer_ways *transfer_get_ways(const struct transfer *transfer)
{
    return &transfer->ways;
}

struct relay_copied transfer_get_copied(const struct transfer *transfer)
{
    struct relay_copied copied = client_get_stats(transfer->client).copied;

    copied.handed_over = transfer->handed_over;
    return copied;
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

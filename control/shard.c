/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One shard: assembles network, spool, DNS, transfer and server around one clock reading per turn.
 *
 * The turn, in this order, because each step feeds the next:
 *   flow_poll    what came from the network; sessions and connections run on it
 *   mailbox      messages of other shards and of control
 *   dns, transfer, server: disk completions, due work, timers
 *   flow_flush   everything said in this turn leaves in one burst
 *
 * Invariants
 *   1. Only the owner thread touches anything reachable from struct shard; others reach it by ring
 * messages.
 *   2. A snapshot of settings is let go of (the reply to the one after it sent) only when no
 * session, attempt or kept connection borrows from it.
 *   3. After the reply to DRAIN nothing is in flight: no commit, no attempt, no lazily written
 * record.
 *
 * A flow event finds its owner by the tag in the flow's user value (SERVER_, CLIENT_,
 * DNS_FLOW_USER_TAG). Limits: SHARD_EVENT_BURST flow events and SHARD_MESSAGE_BURST messages a
 * turn, the rest in the next.
 */
#include "control/shard.h"

#include <stdlib.h>

#include "control/shard_cat.h"
#include "control/shard_query.h"

#define SHARD_ADOPTION_SLICE    512u /* messages of earlier runs in a turn, */
#define SHARD_ADOPTION_STEP     8u   /* and between looks whether their records find room */
#define SHARD_EVENT_BURST       128u
#define SHARD_MESSAGE_BURST     64u
#define SHARD_WAITING_MAX       16u
#define SHARD_HOUSEKEEPING_TIME TICK_MS(50) /* while draining, letting go of settings, adopting */
#define SHARD_SITE_LEASE_TIME   TICK_S(30)
#define SHARD_HOST_DEAD_TIME    TICK_S(300)
#define SHARD_SITE_BACKOFF_MIN  TICK_S(10)
#define SHARD_SITE_BACKOFF_MAX  TICK_S(600)
#define SHARD_SITE_COUNT_MAX    65536u
#define SHARD_STALL_MIN         100u /* microseconds; a turn that finds nothing takes less than one */

struct shard {
    struct shard_options options;
    struct rng rng;
    struct spool *spool;
    struct dns *dns;
    struct transfer *transfer;
    struct server *server;
    struct tick_now now;
    tick_us started, wall_read;

    const struct settings *settings;
    struct ring_message settings_replies[SETTINGS_SNAPSHOT_MAX];
    uint32_t settings_reply_count;
    tick_us settings_review;                        /* shard_settings_let_go() not before */
    struct ring_message waiting[SHARD_WAITING_MAX]; /* queries that a disk must answer first */
    uint32_t waiting_count;
    struct trace trace;
    struct stamps stamps;

    struct spool_adoption *adoption; /* of mail of earlier runs, a slice each turn */
    struct ring_message adoption_reply;

    bool is_draining, is_stopped;
    bool is_intake_closing; /* by an operator, and sessions are open; till then: */
    tick_us intake_deadline, drain_deadline, cut_deadline;
    struct ring_message drain_reply;
    uint64_t turns, busy_us, stalled_us;
    tick_us busy_since; /* a turn that found something began then, and is not counted yet */
};

/* ---- hooks of the parts ---- */

static void shard_send(struct shard *shard, uint32_t to, enum shard_message_kind kind,
                       const void *payload, uint32_t size, bool is_reply)
{
    struct ring_message message = {
        .kind = (uint16_t)kind, .is_reply = is_reply, .payload_size = size};
    CHECK(size <= sizeof(message.payload) && shard->options.mailbox != NULL);
    memcpy(message.payload, payload, size);
    ring_send(shard->options.mailbox, to, &message);
}

static void shard_on_dns_send(void *context, uint32_t to_shard, const void *message, uint32_t size,
                              bool is_reply)
{
    shard_send(context, to_shard, SHARD_MESSAGE_DNS, message, size, is_reply);
}

static void shard_on_dns_wake(void *context, uint64_t user)
{
    struct shard *shard = context;
    transfer_on_dns(shard->transfer, user, shard->now);
}

static void shard_on_site_send(void *context, uint32_t to_shard, const struct site_message *message)
{
    shard_send(context, to_shard, SHARD_MESSAGE_SITE, message, sizeof(*message), false);
}

static void shard_on_handover_send(void *context, uint32_t to_shard,
                                   const struct handover_message *message)
{
    shard_send(context, to_shard, SHARD_MESSAGE_HANDOVER, message, sizeof(*message), false);
}

static void shard_on_quota_send(void *context, uint32_t to_shard,
                                const struct quota_message *message)
{
    shard_send(context, to_shard, SHARD_MESSAGE_QUOTA, message, sizeof(*message), false);
}

static void shard_on_trace(void *context, struct trace_batch *batch)
{
    struct shard *shard = context;
    struct shard_control control = {.batch = batch};

    shard_send(shard, shard->options.count, SHARD_MESSAGE_TRACE, &control, sizeof(control), false);
}

static void shard_on_commit(void *context, uint64_t user, const struct message_fate *fate)
{
    struct shard *shard = context;
    server_on_commit(shard->server, user, fate, shard->now);
}

static bool shard_is_heard(void *context, uint64_t user)
{
    struct shard *shard = context;
    return server_is_heard(shard->server, user);
}

/* ---- queries ---- */

/* In place: it is a copy of some thousand octets as it is. */
void shard_get_status(const struct shard *shard, struct shard_status *ret_status)
{
    struct shard_status *status = ret_status;

    status->server = server_get_stats(shard->server);
    status->client = client_get_stats(transfer_client(shard->transfer));
    status->queue = qmgr_get_stats(transfer_queue(shard->transfer));
    status->spool = spool_get_stats(shard->spool);
    status->dns = dns_get_stats(shard->dns);
    status->flow = flow_plane_stats(shard->options.plane);
    status->ring = shard->options.mailbox == NULL ? (struct ring_stats){0}
                                                  : ring_member_stats(shard->options.mailbox);
    status->sources = source_get_counts(transfer_sources(shard->transfer), shard->now.tick);
    status->turns = shard->turns;
    status->busy_us = shard->busy_us;
    status->stalled_us = shard->stalled_us;
    status->uptime = shard->now.tick - shard->started;
    status->invariant_violations = status->queue.stuck;
    status->handovers = transfer_handovers(shard->transfer);
    status->ways = *transfer_get_ways(shard->transfer);
    status->latencies = *transfer_get_latencies(shard->transfer);
    status->stamps = shard->stamps.view;
    status->copied = transfer_get_copied(shard->transfer);
    status->copied.own = status->server.copied.own;
    status->copied.pieces = status->server.copied.pieces;
}

uint32_t shard_verify(const struct shard *shard)
{
    return qmgr_verify(transfer_queue(shard->transfer));
}

/* Who would be waited for if the intake were closed, or the relay stopped. */
static void shard_intake_count(const struct shard *shard, struct shard_intake *intake)
{
    struct qmgr_stats queue = qmgr_get_stats(transfer_queue(shard->transfer));

    intake->open += server_get_stats(shard->server).open;
    intake->messages += queue.messages;
    intake->deliveries += queue.deliveries_active;
}

/* An operator's: mail is taken no more, but what waits is delivered on. */
static void shard_intake(struct shard *shard, struct shard_query *query)
{
    struct shard_intake *intake = query->found;

    query->cursor = UINT64_MAX;
    if (intake->is_dry_run)
        shard_intake_count(shard, intake);
    if (shard->is_draining || intake->is_dry_run)
        return;
    shard->is_intake_closing = intake->is_closed;
    shard->intake_deadline = shard->now.tick + intake->time;
    if (intake->is_closed)
        (void)server_drain(shard->server, shard->now);
    else
        intake->failed += !server_resume(shard->server);
    intake->open += server_get_stats(shard->server).open;
}

void shard_query_run(struct shard *shard, struct shard_query *query)
{
    switch (query->kind) {
    case SHARD_QUERY_STATUS:
        shard_get_status(shard, query->status);
        break;
    case SHARD_QUERY_QUEUE_LIST:
    case SHARD_QUERY_QUEUE_SHOW:
    case SHARD_QUERY_QUEUE_SUMMARY:
    case SHARD_QUERY_QUEUE_ACT:
        if (shard_query_yields(query, &shard->options.records, shard->now.tick))
            break;
        shard_query_queue(transfer_queue(shard->transfer), shard->options.index, query, shard->now);
        query->is_stuck |= spool_get_stats(shard->spool).is_stuck;
        break;
    case SHARD_QUERY_QUEUE_CAT:
        shard_query_cat(transfer_queue(shard->transfer), query, shard->now);
        break;
    case SHARD_QUERY_PLANE:
        query->look(query, shard->options.plane);
        break;
    case SHARD_QUERY_TRANSFER:
        query->visit(query, shard->transfer, shard->now.tick);
        break;
    case SHARD_QUERY_QUOTA:
        query->visit_quota(query, server_quota(shard->server), shard->now.tick);
        break;
    case SHARD_QUERY_SERVER:
        query->visit_server(query, shard->server, shard->now.tick);
        break;
    case SHARD_QUERY_INTAKE:
        shard_intake(shard, query);
        break;
    case SHARD_QUERY_TRACE:
        trace_set(&shard->trace, query->trace->filters,
                  &query->trace->batches[2 * shard->options.index]);
        break;
    }
}

/* ---- control's messages ---- */

static void shard_reply(struct shard *shard, const struct ring_message *request)
{
    struct ring_message reply = *request;
    reply.is_reply = true;
    ring_send(shard->options.mailbox, request->from, &reply);
}

static void shard_on_settings(struct shard *shard, const struct shard_control *control,
                              const struct ring_message *message)
{
    CHECK(shard->settings_reply_count < SETTINGS_SNAPSHOT_MAX);
    CHECK(control->settings->serial > shard->settings->serial);
    shard->settings = control->settings;
    transfer_set_settings(shard->transfer, shard->settings);
    server_set_settings(shard->server, shard->settings, shard->now);
    shard->settings_replies[shard->settings_reply_count++] = *message;
    shard->settings_review = shard->now.tick;
}

/* To look through all attempts takes a while, so it is done now and then. */
static void shard_settings_let_go(struct shard *shard)
{
    uint32_t kept = 0;

    if (shard->now.tick < shard->settings_review)
        return;
    shard->settings_review = shard->now.tick + SHARD_HOUSEKEEPING_TIME;
    for (uint32_t i = 0; i < shard->settings_reply_count; i++) {
        struct shard_control control;
        memcpy(&control, shard->settings_replies[i].payload, sizeof(control));
        if (server_uses_settings(shard->server, control.serial - 1) ||
            transfer_uses_settings(shard->transfer, control.serial - 1))
            shard->settings_replies[kept++] = shard->settings_replies[i];
        else
            shard_reply(shard, &shard->settings_replies[i]);
    }
    shard->settings_reply_count = kept;
}

static void shard_on_recovered_message(void *context, const struct spool_recovered *message)
{
    struct shard *shard = context;
    transfer_recovered(shard->transfer, message, shard->now);
}

static tick_us tick_earlier(tick_us a, tick_us b)
{
    return a < b ? a : b;
}

/* Told again, it has less time. */
static void shard_on_drain(struct shard *shard, const struct shard_control *control,
                           const struct ring_message *message)
{
    tick_us now = shard->now.tick;

    if (!shard->is_draining)
        shard->drain_deadline = shard->cut_deadline = TICK_NEVER;
    if (control->time > 0)
        shard->drain_deadline = tick_earlier(shard->drain_deadline, now + control->time);
    if (control->time_max > 0)
        shard->cut_deadline = tick_earlier(shard->cut_deadline, now + control->time_max);
    shard->is_draining = true;
    shard->drain_reply = *message;
}

static void shard_on_message(struct shard *shard, const struct ring_message *message)
{
    struct shard_control control;
    struct site_message site;
    struct handover_message handover;
    struct quota_message quota;

    memcpy(&control, message->payload, sizeof(control));
    switch ((enum shard_message_kind)message->kind) {
    case SHARD_MESSAGE_DNS:
        dns_receive(shard->dns, message->from, message->payload, message->payload_size, shard->now);
        break;
    case SHARD_MESSAGE_SITE:
        memcpy(&site, message->payload, sizeof(site));
        transfer_on_site_message(shard->transfer, &site, shard->now);
        break;
    case SHARD_MESSAGE_HANDOVER:
        memcpy(&handover, message->payload, sizeof(handover));
        transfer_on_handover(shard->transfer, &handover, shard->now);
        break;
    case SHARD_MESSAGE_QUOTA:
        memcpy(&quota, message->payload, sizeof(quota));
        server_on_quota(shard->server, &quota, shard->now);
        break;
    case SHARD_MESSAGE_SETTINGS:
        shard_on_settings(shard, &control, message);
        break;
    case SHARD_MESSAGE_RECOVERED:
        CHECK(shard->adoption == NULL);
        shard->adoption = spool_adoption_new(control.recovery, shard->spool, shard->options.index,
                                             shard->options.count);
        qmgr_expect(transfer_queue(shard->transfer),
                    spool_recovery_messages(control.recovery) / shard->options.count);
        shard->adoption_reply = *message;
        transfer_adopting(shard->transfer, true);
        break;
    case SHARD_MESSAGE_QUERY:
        shard_query_run(shard, control.query);
        if (control.query->is_waiting && shard->waiting_count < SHARD_WAITING_MAX)
            shard->waiting[shard->waiting_count++] = *message;
        else
            shard_reply(shard, message);
        break;
    case SHARD_MESSAGE_TRACE:
        trace_return(&shard->trace, control.batch);
        break;
    case SHARD_MESSAGE_DRAIN:
        shard_on_drain(shard, &control, message);
        break;
    }
}

/* Look again: reads may have ended in this turn. */
static void shard_waiting_run(struct shard *shard)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < shard->waiting_count; i++) {
        struct shard_control control;
        memcpy(&control, shard->waiting[i].payload, sizeof(control));
        shard_query_run(shard, control.query);
        if (control.query->is_waiting)
            shard->waiting[kept++] = shard->waiting[i];
        else
            shard_reply(shard, &shard->waiting[i]);
    }
    shard->waiting_count = kept;
}

/* Mail of earlier runs, as much as leaves the turn short. A shard that is to stop leaves the rest
 * on the disk. */
static void shard_adopt_run(struct shard *shard)
{
    bool is_over = shard->is_draining;

    for (uint32_t i = 0; i < SHARD_ADOPTION_SLICE && !is_over; i += SHARD_ADOPTION_STEP) {
        if (transfer_is_replaying(shard->transfer))
            return; /* envelopes, or a writer of records, first */
        is_over = !spool_adoption_step(shard->adoption, SHARD_ADOPTION_STEP,
                                       shard_on_recovered_message, shard);
    }
    if (!is_over)
        return;
    spool_adoption_free(shard->adoption);
    shard->adoption = NULL;
    transfer_adopting(shard->transfer, false);
    shard_reply(shard, &shard->adoption_reply);
}

static void shard_intake_run(struct shard *shard)
{
    shard->is_intake_closing = !server_drain(shard->server, shard->now);
    if (shard->is_intake_closing && shard->now.tick >= shard->intake_deadline)
        server_dismiss(shard->server);
}

static void shard_drain_run(struct shard *shard)
{
    bool is_server_done = server_drain(shard->server, shard->now);
    if (!is_server_done && shard->now.tick >= shard->drain_deadline)
        server_dismiss(shard->server);
    bool is_transfer_done = transfer_drain(shard->transfer, shard->now);
    bool is_done = is_server_done && is_transfer_done;

    if (is_done || shard->now.tick >= shard->cut_deadline) {
        struct shard_control control = {.is_cut = !is_done};
        shard->is_draining = false;
        shard->is_stopped = true;
        memcpy(shard->drain_reply.payload, &control, sizeof(control));
        shard_reply(shard, &shard->drain_reply);
    }
}

/* ---- the turn ---- */

static void shard_on_flow(struct shard *shard, const struct flow_event *event)
{
    switch (event->user & SERVER_FLOW_USER_MASK) {
    case SERVER_FLOW_USER_TAG:
        server_on_flow(shard->server, event, shard->now);
        break;
    case CLIENT_FLOW_USER_TAG:
        transfer_on_flow(shard->transfer, event, shard->now);
        break;
    case DNS_FLOW_USER_TAG:
        dns_on_flow(shard->dns, event, shard->now);
        break;
    default:
        CHECK(false && "a flow without an owner");
    }
}
_Static_assert(SERVER_FLOW_USER_MASK == CLIENT_FLOW_USER_MASK &&
                   CLIENT_FLOW_USER_MASK == DNS_FLOW_USER_MASK,
               "one mask finds every owner");

static tick_us shard_deadline(const struct shard *shard)
{
    tick_us deadline = transfer_deadline(shard->transfer);
    deadline = tick_earlier(deadline, server_deadline(shard->server));
    deadline = tick_earlier(deadline, dns_deadline(shard->dns));
    deadline = tick_earlier(deadline, flow_deadline(shard->options.plane));
    if (shard->is_draining || shard->is_intake_closing || shard->settings_reply_count > 0 ||
        shard->adoption != NULL)
        deadline = tick_earlier(deadline, shard->now.tick + SHARD_HOUSEKEEPING_TIME);
    return deadline;
}

static uint32_t shard_mailbox_run(struct shard *shard)
{
    struct ring_message message UNINITIALIZED;
    uint32_t count = 0;

    if (shard->options.mailbox == NULL)
        return 0;
    while (count < SHARD_MESSAGE_BURST &&
           ring_receive(shard->options.mailbox, &message) == ERR_OK) {
        shard_on_message(shard, &message);
        count++;
    }
    return count;
}

enum turn_end {
    TURN_IDLE,  /* nothing came */
    TURN_DONE,  /* all that came is done */
    TURN_BEHIND /* there is more to do at once */
};

/* A busy turn lasts until the clock is read next, which costs more than it may be wrong by. */
static void busy_end(struct shard *shard, tick_us now)
{
    if (shard->busy_since != TICK_NEVER)
        shard->busy_us += now - shard->busy_since;
    shard->busy_since = TICK_NEVER;
}

static enum turn_end turn(struct shard *shard)
{
    struct flow_event events[SHARD_EVENT_BURST] UNINITIALIZED;

    tick_now_renew(&shard->now, &shard->wall_read, shard->options.clock);
    busy_end(shard, shard->now.tick);
    stamps_turn_begin(&shard->stamps);
    uint32_t event_count =
        flow_poll(shard->options.plane, shard->now.tick, events, SHARD_EVENT_BURST);
    for (uint32_t i = 0; i < event_count; i++)
        shard_on_flow(shard, &events[i]);
    uint32_t message_count = shard_mailbox_run(shard);

    dns_advance(shard->dns, shard->now);
    transfer_run(shard->transfer, shard->now);
    server_advance(shard->server, shard->now);
    if (shard->adoption != NULL)
        shard_adopt_run(shard);
    if (shard->settings_reply_count > 0)
        shard_settings_let_go(shard);
    if (shard->waiting_count > 0)
        shard_waiting_run(shard);
    if (shard->is_intake_closing)
        shard_intake_run(shard);
    if (shard->is_draining)
        shard_drain_run(shard);
    if (trace_is_on(&shard->trace))
        trace_flush(&shard->trace);
    flow_flush(shard->options.plane, shard->now.tick);
    stamps_turn_end(&shard->stamps);

    shard->turns++;
    if (event_count + message_count > 0)
        shard->busy_since = shard->now.tick;
    bool is_adopting = shard->adoption != NULL && !transfer_is_replaying(shard->transfer);
    if (event_count == SHARD_EVENT_BURST || message_count == SHARD_MESSAGE_BURST || is_adopting)
        return TURN_BEHIND;
    return event_count + message_count > 0 ? TURN_DONE : TURN_IDLE;
}

/* A function of its own also where all is optimised together: by its name measurements find it. */
__attribute__((noinline)) tick_us shard_turn(struct shard *shard)
{
    enum turn_end end = turn(shard);

    shard->busy_since = TICK_NEVER; /* how long it is to the next turn is the caller's business */
    return end == TURN_BEHIND ? 0 : shard_deadline(shard);
}

/* Until the next turn has something to do. */
static void shard_rest(struct shard *shard)
{
    const struct tick_source *clock = shard->options.clock;
    tick_us deadline = shard_deadline(shard), now = clock->monotonic(clock->context);

    busy_end(shard, now);
    if (deadline <= now)
        return;
    if (shard->options.mailbox != NULL && !ring_sleep_begin(shard->options.mailbox))
        return;
    flow_wait(shard->options.plane, now, deadline);
    if (shard->options.mailbox != NULL)
        ring_sleep_end(shard->options.mailbox);
}

/* A network that is polled without sleep needs no deadline, and a turn that found nothing leaves
 * the core to its sibling for a moment. When the next one begins long after it, the core was taken
 * from us meanwhile; or it was such a turn in which timers, the disk's answers or handshakes that
 * were put off made work, which is not told apart. */
void shard_run(struct shard *shard)
{
    tick_us idle =
        TICK_NEVER; /* when the turn before began, if it found nothing and did not sleep */

    while (!shard->is_stopped) {
        enum turn_end end = turn(shard);

        if (idle != TICK_NEVER && shard->now.tick - idle >= SHARD_STALL_MIN)
            shard->stalled_us += shard->now.tick - idle;
        idle = TICK_NEVER;
        if (end == TURN_BEHIND || shard->is_stopped)
            continue;
        if (!flow_spins(shard->options.plane, shard->now.tick)) {
            shard_rest(shard);
        } else if (end == TURN_IDLE) {
            idle = shard->now.tick;
            flow_wait(shard->options.plane, idle, idle);
        }
    }
}

bool shard_is_stopped(const struct shard *shard)
{
    return shard->is_stopped;
}

/* ---- start and end ---- */

static struct transfer *shard_transfer_new(struct shard *shard)
{
    const struct settings *settings = shard->settings;
    struct transfer_options options = {
        .shard = shard->options.index,
        .plane = shard->options.plane,
        .spool = shard->spool,
        .dns = shard->dns,
        .rng = &shard->rng,
        .records = shard->options.records,
        .connection_count_max = shard->options.outbound_max,
        .queue =
            {
                .message_count_max = shard->options.message_count_max,
                .body_memory_max = shard->options.body_memory_max,
                .retry_min = settings->retry_min,
                .delay_after = settings->dsn_delay_after,
                .is_delay_unasked = settings->is_dsn_delay_unasked,
                .dsn_per_sender_max = settings->dsn_per_sender_max,
                .retry_max = settings->retry_max,
            },
        .sites =
            {
                .shard = shard->options.index,
                .shard_count = shard->options.count,
                .site_count_max = SHARD_SITE_COUNT_MAX,
                .connection_max = shard->options.connection_max,
                .connection_start = shard->options.connection_start,
                .lease_time = SHARD_SITE_LEASE_TIME,
                .host_dead_time = SHARD_HOST_DEAD_TIME,
                .backoff_min = SHARD_SITE_BACKOFF_MIN,
                .backoff_max = SHARD_SITE_BACKOFF_MAX,
                .context = shard,
                .send = shard_on_site_send,
            },
        .server = shard,
        .on_commit = shard_on_commit,
        .is_heard = shard_is_heard,
        .send_handover = shard_on_handover_send,
        .trace = &shard->trace,
        .stamps = &shard->stamps,
    };
    return transfer_new(&options, settings, shard->now);
}

static enum err shard_watch(struct shard *shard)
{
    int disk = disk_eventfd(shard->options.disk);
    if (disk >= 0)
        TRY(flow_watch(shard->options.plane, disk));
    if (shard->options.mailbox != NULL && ring_member_eventfd(shard->options.mailbox) >= 0)
        TRY(flow_watch(shard->options.plane, ring_member_eventfd(shard->options.mailbox)));
    return ERR_OK;
}

void shard_free(struct shard *shard)
{
    server_free(shard->server);
    transfer_free(shard->transfer);
    dns_free(shard->dns);
    if (shard->adoption != NULL)
        spool_adoption_free(shard->adoption);
    spool_free(shard->spool);
    free(shard);
}

enum err shard_new(const struct shard_options *options, struct shard **ret_shard)
{
    struct shard *shard = calloc(1, sizeof(*shard));
    CHECK(shard != NULL);
    CHECK(options->count == 1 || options->mailbox != NULL);
    shard->options = *options;
    shard->rng = options->rng;
    shard->settings = options->settings;
    shard->now = tick_now_read(options->clock);
    shard->started = shard->wall_read = shard->now.tick;
    shard->busy_since = TICK_NEVER;
    stamps_init(&shard->stamps, options->plane);
    shard->trace = (struct trace){.now = &shard->now, .context = shard, .send = shard_on_trace};

    struct spool_options spool = options->spool;
    spool.pool = options->plane->pool;
    spool.shard = options->index;
    spool.epoch = options->epoch;
    enum err err = spool_new(&spool, options->disk, &shard->rng, shard->now, &shard->spool);
    if (err == ERR_OK)
        err = shard_watch(shard);
    if (err != ERR_OK) {
        if (shard->spool != NULL)
            spool_free(shard->spool);
        free(shard);
        return err;
    }

    struct dns_options dns = options->dns;
    dns.shard = options->index;
    dns.shard_count = options->count;
    dns.context = shard;
    dns.send = shard_on_dns_send;
    dns.wake = shard_on_dns_wake;
    shard->dns = dns_new(&dns, options->plane, &shard->rng, shard->now);
    shard->transfer = shard_transfer_new(shard);
    struct server_options server = {
        .shard = options->index,
        .plane = options->plane,
        .rng = &shard->rng,
        .transfer = shard->transfer,
        .records = options->records,
        .flow_max = options->inbound_flow_max,
        .body_octets = options->body_octets,
        .is_auth_inline = options->is_auth_inline,
        .shard_count = options->count,
        .context = shard,
        .send_quota = shard_on_quota_send,
        .trace = &shard->trace,
        .stamps = &shard->stamps,
    };
    shard->server = server_new(&server, shard->settings, shard->now);
    if (server_auth_eventfd(shard->server) >= 0 &&
        flow_watch(options->plane, server_auth_eventfd(shard->server)) != ERR_OK) {
        shard_free(shard);
        return ERR_SYSTEM;
    }
    if (options->is_waiting) {
        transfer_set_waiting(shard->transfer, true);
        (void)server_drain(shard->server, shard->now);
    }
    *ret_shard = shard;
    return ERR_OK;
}

enum err shard_listen(struct shard *shard, uint32_t *ret_index)
{
    return server_listen(shard->server, ret_index);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cut-through: a message that is complete goes to the queue without the spool, and its client waits
 * for what becomes of it (docs/cut-through.md has the law and says when).
 *
 *   transfer_end() -> UNSTORED -> all delivered, or all refused: the client hears it, no disk
 *                         \---> STORING -> the client hears 250, the queue has the rest
 *
 * The queue does all that it does for other mail. This file decides whether a message may begin
 * like that, and ends it by storing it when
 *   - the queue says so: mixed, deferred, lost, an order (transfer_on_store_due());
 *   - nothing has begun to send it within CUT_WAIT_TIME, or, with delivery: cut-through, within
 *     `patience`: BUSY;
 *   - the site wants everything stored first, or its hosts are dead (transfer_cut_hold_back());
 *   - `patience` is over: PATIENCE; in doubt if the end of data is with the next hop;
 *   - the relay stops: SHUTDOWN.
 *
 * Invariants
 *   1. An intake that is UNSTORED or STORE_DUE is the owner of one message of the queue; it is
 *      found there by its id.
 *   2. What nobody has begun to send when it is stored, is sent after it is durable only.
 *   3. A refusal is passed on only to a client that will hear it.
 *
 * Not here: the states of the message (queue/qmgr_unstored.c), those of the intake
 * (transfer_intake.c).
 */
#include "relay/transfer_internal.h"

#define CUT_WAIT_TIME TICK_MS(250) /* for the DNS, a connection, a permit */
#define STORE_TIME    TICK_S(1)    /* a commit takes no longer, as a rule */

/* ---- at the end of data ---- */

static bool recipients_fit(const struct transfer *transfer, const struct envelope *envelope)
{
    if (envelope->recipient_count > transfer->settings->client.recipients_per_transaction_max)
        return false;
    for (uint32_t i = 1; i < envelope->recipient_count; i++) {
        if (!span_is_equal(envelope->recipients[i].domain, envelope->recipients[0].domain))
            return false;
    }
    return true;
}

static bool wants_success(const struct envelope *envelope)
{
    for (uint32_t i = 0; i < envelope->recipient_count; i++) {
        if ((envelope->recipients[i].notify & ENVELOPE_NOTIFY_SUCCESS) != 0)
            return true;
    }
    return false;
}

enum way transfer_cut_choose(const struct transfer *transfer, const struct transfer_intake *intake,
                             const struct envelope *envelope)
{
    CHECK(intake->is_gathered);
    if (transfer->is_draining)
        return WAY_SHUTDOWN;
    if (!transfer->has_adopted)
        return WAY_RECOVERY;
    if (!recipients_fit(transfer, envelope))
        return WAY_RECIPIENTS;
    if (wants_success(envelope))
        return WAY_NOTICE;
    if (!transfer_may_keep_body(transfer) || !qmgr_has_body_room(transfer->qmgr, intake->body.size))
        return WAY_MEMORY;
    if (envelope->flags & ENVELOPE_OVER_QUOTA ||
        qmgr_standing_may_match(transfer->qmgr, envelope, transfer->now))
        return WAY_ORDER;
    return qmgr_is_waited_for(transfer->qmgr, envelope) ? WAY_WAITING : WAY_READY;
}

void transfer_cut_begin(struct transfer *transfer, struct transfer_intake *intake)
{
    struct qmgr_insert insert = {
        .encoded = span_of(intake->encoded, intake->encoded_size),
        .is_given = true,
        .is_new = true,
        .body = &intake->body,
        .owner = intake,
        .way = WAY_READY,
    };

    transfer_intake_enter(transfer, intake, TRANSFER_INTAKE_UNSTORED);
    transfer->ways.unstored++;
    transfer->has_unstored_news = true;
    wheel_arm(&transfer->wheel, &intake->timer, intake->ended + CUT_WAIT_TIME);
    intake->encoded = NULL;
    enum err err = qmgr_insert(transfer->qmgr, &insert, transfer->now);
    CHECK(err == ERR_OK); /* there is room, and we encoded it ourselves */
}

/* ---- into the spool ---- */

struct qmgr_message *transfer_cut_message(struct transfer *transfer,
                                          const struct transfer_intake *intake)
{
    struct qmgr_message *message = qmgr_find(transfer->qmgr, intake->id);

    CHECK(message != NULL);
    return message;
}

/* The attempt that has its message, or NULL. */
static struct transfer_job *job_of(const struct qmgr_message *message)
{
    const struct qmgr_delivery *delivery = qmgr_unstored_active(message);

    return delivery == NULL ? NULL : qmgr_delivery_user(delivery);
}

struct transfer_job *transfer_cut_job(struct transfer *transfer,
                                      const struct transfer_intake *intake)
{
    return job_of(transfer_cut_message(transfer, intake));
}

static bool job_is_sending(const struct transfer_job *job)
{
    return job != NULL && (job->state == TRANSFER_JOB_SENDING || job->state == TRANSFER_JOB_AWAY);
}

static void store_failed(struct transfer *transfer, struct transfer_intake *intake, enum err err)
{
    struct message_fate fate = {
        .id = intake->id, .code = transfer_refusal_code(err), .way = intake->way};

    if (qmgr_store_failed(transfer->qmgr, transfer_cut_message(transfer, intake)))
        fate.code = 250;
    else
        transfer->cancel_scan = transfer->now.tick; /* what is under way is to end */
    transfer_intake_finish(transfer, intake, &fate);
}

/* There may be room by now. */
static struct spool_transaction *transaction_of(struct transfer *transfer,
                                                struct transfer_intake *intake)
{
    if (intake->transaction == NULL)
        intake->transaction =
            spool_begin(transfer->options.spool, intake->id, intake->body_size, false);
    return intake->transaction;
}

static void intake_store(struct transfer *transfer, struct transfer_intake *intake, enum way reason,
                         bool is_in_doubt)
{
    struct spool_transaction *transaction = transaction_of(transfer, intake);
    struct qmgr_message *message = transfer_cut_message(transfer, intake);
    struct transfer_job *job = job_of(message);
    struct message_id id = intake->id;
    struct buf_queue copy;

    if (job != NULL && job->state == TRANSFER_JOB_READY)
        transfer_job_put_back(transfer, job, 0);
    if (qmgr_find(transfer->qmgr, id) == NULL)
        return; /* an order, or its expiry, had waited for that, and the intake has ended */
    wheel_cancel(&transfer->wheel, &intake->timer);
    transfer_intake_enter(transfer, intake, TRANSFER_INTAKE_STORING);
    transfer->ways.unstored--;
    transfer->ways.in_doubt += is_in_doubt;
    intake->way = reason;
    intake->transaction = NULL;
    struct qmgr_storing storing =
        qmgr_store(transfer->qmgr, message, reason, is_in_doubt, transfer->now);
    buf_queue_init(&copy);
    buf_queue_append_queue(&copy, intake->stream == NULL ? storing.body : &intake->stream->kept);
    enum err err = transaction == NULL ? ERR_DISK_FULL : intake->err;
    if (err == ERR_OK)
        err = spool_write_body(transfer->options.spool, transaction, &copy);
    buf_queue_fini(&copy);
    if (err != ERR_OK) {
        if (transaction != NULL)
            spool_abort(transfer->options.spool, transaction);
        store_failed(transfer, intake, err);
        return;
    }
    spool_commit_progress(transfer->options.spool, transaction, storing.encoded, storing.progress,
                          (uint64_t)(uintptr_t)intake);
}

void transfer_cut_on_committed(struct transfer *transfer, struct transfer_intake *intake,
                               const struct spool_event *event)
{
    struct message_fate fate = {.id = intake->id, .code = 250, .way = intake->way};

    if (event->err != ERR_OK) {
        store_failed(transfer, intake, event->err);
        return;
    }
    latency_add(&transfer->latencies.accept, (int64_t)(transfer->now.tick - intake->ended));
    qmgr_stored(transfer->qmgr, transfer_cut_message(transfer, intake), event->entry,
                transfer->now);
    transfer_intake_finish(transfer, intake, &fate);
}

/* ---- time ---- */

/* Patience is over, or nothing has begun in time. */
static void intake_on_timer(struct transfer *transfer, struct transfer_intake *intake)
{
    if (intake->state == TRANSFER_INTAKE_STREAMING) {
        transfer_stream_on_timer(transfer, intake);
        return;
    }
    struct transfer_job *job = job_of(transfer_cut_message(transfer, intake));
    tick_us patience_end = intake->ended + transfer->settings->cut_through.patience;
    bool is_sending = job_is_sending(job), is_in_doubt = false;
    bool may_wait = is_sending || intake->delivery == SETTINGS_DELIVERY_CUT_THROUGH;

    if (may_wait && transfer->now.tick < patience_end) {
        wheel_arm(&transfer->wheel, &intake->timer, patience_end);
        return;
    }
    if (is_sending)
        is_in_doubt = job->state == TRANSFER_JOB_AWAY ||
                      client_is_in_doubt(transfer->client, (uint64_t)(uintptr_t)job);
    intake_store(transfer, intake, is_sending ? WAY_PATIENCE : transfer_stream_idle_reason(intake),
                 is_in_doubt);
}

void transfer_cut_run(struct transfer *transfer)
{
    struct transfer_intake *intake;
    struct wheel_timer *timer;

    transfer->has_unstored_news = false;
    while ((intake = LIST_FIRST(&transfer->intakes_by_state[TRANSFER_INTAKE_STORE_DUE])) != NULL)
        intake_store(transfer, intake, intake->way, false);
    while ((timer = wheel_expire_next(&transfer->wheel, transfer->now.tick)) != NULL)
        intake_on_timer(transfer, WHEEL_OWNER(timer, struct transfer_intake, timer));
}

tick_us transfer_cut_deadline(const struct transfer *transfer)
{
    if (transfer->has_unstored_news ||
        !LIST_EMPTY(&transfer->intakes_by_state[TRANSFER_INTAKE_STORE_DUE]) ||
        !LIST_EMPTY(&transfer->intakes_by_state[TRANSFER_INTAKE_REFUSED]) ||
        !LIST_EMPTY(&transfer->intakes_by_state[TRANSFER_INTAKE_SETTLED]))
        return 0;
    return wheel_deadline(&transfer->wheel);
}

void transfer_cut_drain(struct transfer *transfer)
{
    struct transfer_intake *intake;

    transfer_stream_drain(transfer);
    while ((intake = LIST_FIRST(&transfer->intakes_by_state[TRANSFER_INTAKE_UNSTORED])) != NULL) {
        struct transfer_job *job = job_of(transfer_cut_message(transfer, intake));
        bool is_in_doubt =
            job_is_sending(job) && (job->state == TRANSFER_JOB_AWAY ||
                                    client_is_in_doubt(transfer->client, (uint64_t)(uintptr_t)job));
        intake_store(transfer, intake, WAY_SHUTDOWN, is_in_doubt);
    }
}

/* ---- the job ---- */

static struct transfer_intake *intake_of(const struct transfer_job *job)
{
    return job->guest != NULL ? NULL : qmgr_delivery_owner(job->delivery);
}

/* Hosts that are dead stand last. */
static bool hosts_are_dead(const struct transfer *transfer, const struct mx_answer *answer)
{
    const struct mx_host *host = &answer->hosts[0];

    for (uint32_t i = 0; i < host->address_count; i++) {
        if (!site_host_is_dead(transfer->sites, &host->addresses[i], sizeof(host->addresses[i]),
                               transfer->now.tick))
            return false;
    }
    return answer->host_count > 0 && host->address_count > 0;
}

/* From where would its body come? */
static bool has_body(struct transfer *transfer, const struct transfer_job *job,
                     struct transfer_intake *intake)
{
    if (job->guest != NULL || job->read_size > 0)
        return true;
    struct qmgr_view view = qmgr_delivery_view(transfer->qmgr, job->delivery);
    if (intake != NULL && intake->stream != NULL)
        return transfer_stream_may_go(transfer, intake);
    return envelope_stored_size(view.envelope) == 0 ||
           (view.body != NULL && !buf_queue_is_empty(view.body));
}

bool transfer_cut_hold_back(struct transfer *transfer, struct transfer_place *place,
                            struct transfer_job *job)
{
    struct transfer_intake *intake = intake_of(job);
    enum settings_delivery delivery = place->limits.delivery;

    if (!has_body(transfer, job, intake)) { /* it is on its way to the spool */
        transfer_job_put_back(transfer, job, transfer->now.wall + (wall_us)STORE_TIME);
        return true;
    }
    if (intake == NULL)
        return false;
    if (delivery != SETTINGS_DELIVERY_UNSAID)
        intake->delivery = delivery;
    enum way reason = delivery == SETTINGS_DELIVERY_SPOOL      ? WAY_POLICY
                      : hosts_are_dead(transfer, &job->answer) ? WAY_HOST
                                                               : WAY_UNKNOWN;
    if (reason == WAY_UNKNOWN)
        return false;
    if (intake->state == TRANSFER_INTAKE_STREAMING)
        transfer_stream_stop(transfer, intake, reason);
    else
        intake_store(transfer, intake, reason, false);
    return true;
}

uint64_t transfer_cut_heard(const struct transfer_job *job)
{
    const struct transfer_intake *intake = intake_of(job);

    return intake == NULL || intake->state != TRANSFER_INTAKE_UNSTORED ? 0 : intake->heard;
}

void transfer_cut_sending(struct transfer *transfer, const struct transfer_job *job)
{
    struct transfer_intake *intake = intake_of(job);

    if (intake == NULL)
        return;
    intake->is_sending = true;
    if (intake->state == TRANSFER_INTAKE_STREAMING) {
        transfer_stream_sending(transfer, intake);
        return;
    }
    /* A timer that rings before that sees that it is being sent. */
    tick_us patience_end = intake->ended + transfer->settings->cut_through.patience;
    if (!wheel_is_armed(&intake->timer) || intake->timer.deadline > patience_end)
        wheel_arm(&transfer->wheel, &intake->timer, patience_end);
}

void transfer_cut_put_back(struct transfer *transfer, const struct transfer_job *job)
{
    struct transfer_intake *intake = intake_of(job);

    if (intake == NULL || !intake->is_sending)
        return;
    intake->is_sending = false;
    if (intake->state == TRANSFER_INTAKE_UNSTORED || intake->state == TRANSFER_INTAKE_STREAMING)
        wheel_arm(&transfer->wheel, &intake->timer, transfer->now.tick);
}

/* ---- the queue's word ---- */

static bool is_heard(const struct transfer *transfer, const struct transfer_intake *intake)
{
    /* While it comes its client is there, and it is not the server's to be asked about yet. */
    return transfer->options.is_heard == NULL || intake->state == TRANSFER_INTAKE_STREAMING ||
           intake->state == TRANSFER_INTAKE_SPOOLING ||
           transfer->options.is_heard(transfer->options.server, intake->user);
}

bool transfer_cut_passes_on(const struct transfer *transfer, const struct qmgr_delivery *delivery,
                            const struct qmgr_result *results, uint32_t result_count)
{
    const struct transfer_intake *intake = qmgr_delivery_owner(delivery);

    return intake != NULL && qmgr_is_refusal(delivery, results, result_count) &&
           is_heard(transfer, intake);
}

bool transfer_on_unstored_end(void *context, void *owner, const struct qmgr_result *refusal)
{
    struct transfer *transfer = context;
    struct transfer_intake *intake = owner;
    struct message_fate fate = {
        .id = intake->id,
        .code = 250,
        .way = intake->stream == NULL ? WAY_READY : WAY_STREAM,
        .heard = transfer->reply_heard,
    };

    if (intake->state == TRANSFER_INTAKE_STREAMING || intake->state == TRANSFER_INTAKE_SPOOLING) {
        transfer_stream_fate(transfer, intake, refusal);
        return true;
    }
    CHECK(intake->state == TRANSFER_INTAKE_UNSTORED || intake->state == TRANSFER_INTAKE_STORE_DUE);
    if (refusal != NULL && !is_heard(transfer, intake))
        return false;
    if (refusal != NULL) {
        fate.code = refusal->code;
        fate.reply = refusal->reply;
        memcpy(fate.enhanced, refusal->enhanced, sizeof(fate.enhanced));
    }
    transfer->ways.unstored--;
    transfer_intake_give_up_room(transfer, intake);
    transfer_intake_finish(transfer, intake, &fate);
    return true;
}

void transfer_on_store_due(void *context, void *owner, enum way reason)
{
    struct transfer *transfer = context;
    struct transfer_intake *intake = owner;

    if (intake->state == TRANSFER_INTAKE_STREAMING)
        transfer_stream_fall_back(transfer, intake, reason);
    if (intake->state != TRANSFER_INTAKE_UNSTORED)
        return; /* it will be stored, as soon as it is complete */
    intake->way = reason;
    wheel_cancel(&transfer->wheel, &intake->timer);
    transfer_intake_enter(transfer, intake, TRANSFER_INTAKE_STORE_DUE);
}

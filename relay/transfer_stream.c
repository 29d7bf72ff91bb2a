/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stream: a large message goes to its next hop while it comes (docs/cut-through.md).
 *
 * It is put in the queue before its body has come, UNSTORED, and the queue does all that it does
 * for other mail. What came of the body so far is in a feed (client_feed.h) that the attempt
 * empties, and kept besides, in memory up to `keep`, beyond that as BODY records in the spool,
 * which nobody syncs: to store the message then costs its last octets, one record and one sync.
 *
 *   RECEIVING -> STREAMING    enough has come, and it may         transfer_stream_begin()
 *   STREAMING -> UNSTORED     it is complete                      transfer_stream_end()
 *   STREAMING -> SPOOLING     it cannot go on like this           transfer_stream_fall_back()
 *   SPOOLING -> STORE_DUE     it is complete                      transfer_stream_end()
 *   STREAMING, SPOOLING -> FATED      refused, or an order        transfer_stream_fate()
 *   FATED -> SETTLED          it is complete: its client hears it transfer_stream_end()
 *   any of these -> (gone)    refused by us, or its sender is lost transfer_stream_abort()
 *
 * From UNSTORED and STORE_DUE on it is as any other (transfer_cut.c), its body being here.
 *
 * Falling back ends the attempt before the end of the message, and the rest is received into the
 * spool. What the recipients heard is in the queue, and committed with the message.
 *
 * Invariants
 *   1. The end of a message leaves only when its sender has said it and we found nothing wrong: the
 *      feed ends in transfer_stream_end() alone, and is broken before anything else becomes of it.
 *   2. All octets of a message that is not FATED are kept, or with the spool.
 *   3. STREAMING and SPOOLING intakes own one message of the queue. FATED ones own none.
 *   4. At most STREAM_AHEAD_MAX octets wait for the next hop; then the client's window closes.
 *
 * Limits: streams may hold a share of the buffer pool (STREAM_MEMORY_SHARE) together; with none
 * left new ones are stored first, and the kept part of those that run goes to the spool.
 */
#include <stdlib.h>

#include "relay/transfer_internal.h"

#define STREAM_SIZE_MIN     16384u                 /* has come before an announced one begins */
#define STREAM_AHEAD_MAX    (256u * 1024)          /* octets waiting for the next hop */
#define STREAM_COST         (2 * STREAM_AHEAD_MAX) /* waiting, and with the connection */
#define STREAM_MEMORY_SHARE 4u                     /* of the pool */
#define STREAM_START_TIME   TICK_MS(250)           /* for the DNS, a connection, a permit */
#define STREAM_LOOK_TIME    TICK_S(5)              /* rates are judged over so long */
#define STREAM_RETRY_TIME   TICK_S(1)

/* ---- what is kept ---- */

static bool has_memory(const struct transfer *transfer, uint64_t size)
{
    const struct buf_pool *pool = transfer->options.plane->pool;
    uint64_t total =
        ((uint64_t)buf_pool_available(pool) + buf_pool_in_use(pool)) * buf_pool_data_size(pool);

    return transfer->stream_memory + size <= total / STREAM_MEMORY_SHARE &&
           transfer_may_keep_body(transfer);
}

static void charge(struct transfer *transfer, struct transfer_stream *stream, uint64_t size)
{
    stream->charged += size;
    transfer->stream_memory += size;
}

static void discharge(struct transfer *transfer, struct transfer_stream *stream, uint64_t size)
{
    CHECK(stream->charged >= size && transfer->stream_memory >= size);
    stream->charged -= size;
    transfer->stream_memory -= size;
}

static void kept_forget(struct transfer *transfer, struct transfer_stream *stream)
{
    discharge(transfer, stream, stream->kept.size);
    buf_queue_fini(&stream->kept);
    stream->is_kept = false;
}

static enum err kept_spill(struct transfer *transfer, struct transfer_intake *intake)
{
    struct transfer_stream *stream = intake->stream;

    if (!stream->is_kept)
        return ERR_OK;
    discharge(transfer, stream, stream->kept.size);
    stream->is_kept = false;
#ifdef PLANT_KEPT_MISPLACED /* a bug for the simulator to find */
    struct buf_slice first = *buf_queue_get(&stream->kept, 0);
    buf_queue_append(&stream->kept, first.buf, first.offset, first.size);
    buf_queue_drop(&stream->kept, first.size);
#endif
    enum err err = spool_write_body(transfer->options.spool, intake->transaction, &stream->kept);
    buf_queue_fini(&stream->kept);
    return err;
}

void transfer_stream_relieve(struct transfer *transfer, struct transfer_intake *intake)
{
    if (intake->err == ERR_OK)
        intake->err = kept_spill(transfer, intake);
}

/* Invariant 2. */
static enum err octets_keep(struct transfer *transfer, struct transfer_intake *intake,
                            const struct buf_queue *octets)
{
    struct transfer_stream *stream = intake->stream;
    struct buf_queue copy;

    if (stream->is_kept &&
        (stream->kept.size + octets->size > transfer->settings->cut_through.keep ||
         !has_memory(transfer, octets->size)))
        TRY(kept_spill(transfer, intake));
    if (stream->is_kept) {
        charge(transfer, stream, octets->size);
        buf_queue_append_queue(&stream->kept, octets);
        return ERR_OK;
    }
    buf_queue_init(&copy);
    buf_queue_append_queue(&copy, octets);
    enum err err = spool_write_body(transfer->options.spool, intake->transaction, &copy);
    buf_queue_fini(&copy);
    return err;
}

/* ---- beginning ---- */

bool transfer_wants_stream(const struct transfer *transfer, const struct transfer_intake *intake)
{
    uint64_t size_max = transfer->settings->cut_through.size_max;

    return intake->state == TRANSFER_INTAKE_RECEIVING && intake->is_gathered &&
           (intake->body.size > size_max ||
            (intake->size_said > size_max && intake->body.size >= STREAM_SIZE_MIN));
}

static bool is_too_slow(const struct transfer *transfer, uint64_t octets, tick_us time)
{
    uint64_t rate_min = transfer->settings->cut_through.rate_min;

    return time >= TICK_S(1) && octets * TICK_S(1) < rate_min * time;
}

static enum way way_choose(const struct transfer *transfer, const struct transfer_intake *intake,
                           const struct envelope *envelope)
{
    enum way way = transfer_cut_choose(transfer, intake, envelope);

    if (way != WAY_READY)
        return way;
    if (intake->transaction == NULL)
        return WAY_SIZE; /* what is not kept would have no place */
    if (!has_memory(transfer, intake->body.size + STREAM_COST))
        return WAY_MEMORY;
    return is_too_slow(transfer, intake->body.size, transfer->now.tick - intake->begun)
               ? WAY_SLOW
               : WAY_STREAM;
}

static struct transfer_stream *stream_new(struct transfer *transfer, struct transfer_intake *intake,
                                          uint64_t size_said)
{
    struct transfer_stream *stream = calloc(1, sizeof(*stream));

    CHECK(stream != NULL);
    stream->feed = client_feed_new();
    stream->feed->size_said = size_said;
    stream->since = stream->looked = stream->moved = transfer->now.tick;
    stream->is_kept = true;
    buf_queue_init(&stream->kept);
    buf_queue_append_queue(&stream->feed->octets, &intake->body);
    buf_queue_move(&stream->kept, &intake->body);
    charge(transfer, stream, STREAM_COST + stream->kept.size);
    return stream;
}

static void stream_begin(struct transfer *transfer, struct transfer_intake *intake,
                         struct envelope *envelope)
{
    struct qmgr_insert insert = {.is_new = true, .owner = intake, .way = WAY_STREAM};

    envelope->id = intake->id;
    transfer_intake_encode(intake, envelope);
    insert.encoded = span_of(intake->encoded, intake->encoded_size);
    /* With our own field; a client that says nothing leaves nothing to say. */
    intake->stream = stream_new(transfer, intake, intake->size_said > 0 ? envelope->body_size : 0);
    intake->is_gathered = false;
    intake->is_kept = false;
    intake->way = WAY_STREAM;
    transfer_intake_enter(transfer, intake, TRANSFER_INTAKE_STREAMING);
    transfer->ways.unstored++;
    transfer->has_unstored_news = true;
    wheel_arm(&transfer->wheel, &intake->timer, transfer->now.tick + STREAM_START_TIME);
    enum err err = qmgr_insert(transfer->qmgr, &insert, transfer->now);
    CHECK(err == ERR_OK); /* there is room, and we encoded it ourselves */
}

enum err transfer_stream_begin(struct transfer *transfer, struct transfer_intake *intake,
                               struct envelope *envelope, enum way reason, struct tick_now now)
{
    CHECK(transfer_wants_stream(transfer, intake));
    transfer->now = now;
    if (envelope == NULL && reason == WAY_UNKNOWN &&
        intake->body.size <= transfer->settings->cut_through.size_max)
        return ERR_OK; /* it can be decided later */
    enum way way = envelope != NULL        ? way_choose(transfer, intake, envelope)
                   : reason != WAY_UNKNOWN ? reason
                                           : WAY_SIZE;
    if (way == WAY_STREAM) {
        stream_begin(transfer, intake, envelope);
        return ERR_OK;
    }
    intake->way = way;
    return transfer_intake_spool(transfer, intake);
}

enum err transfer_stream_body(struct transfer *transfer, struct transfer_intake *intake,
                              struct buf_queue *octets)
{
    struct transfer_stream *stream = intake->stream;

    switch (intake->state) {
    case TRANSFER_INTAKE_STREAMING:
        stream->received += octets->size;
        TRY(octets_keep(transfer, intake, octets));
        buf_queue_move(&stream->feed->octets, octets);
        stream->is_stalled = stream->is_stalled || stream->feed->octets.size > STREAM_AHEAD_MAX / 2;
        client_feed_wake(transfer->client, stream->feed);
        return ERR_OK;
    case TRANSFER_INTAKE_SPOOLING:
        return spool_write_body(transfer->options.spool, intake->transaction, octets);
    default:
        CHECK(intake->state == TRANSFER_INTAKE_FATED);
        buf_queue_fini(octets);
        return ERR_OK;
    }
}

uint64_t transfer_stream_pending(const struct transfer_intake *intake)
{
    return intake->state == TRANSFER_INTAKE_STREAMING
               ? intake->stream->feed->octets.size * (TRANSFER_PENDING_MAX / STREAM_AHEAD_MAX)
               : 0;
}

/* ---- ends ---- */

/* Nothing more goes out. The attempt, if there is one, is to end. */
static void feed_break(struct transfer *transfer, struct transfer_intake *intake)
{
    struct client_feed *feed = intake->stream->feed;

    feed->is_broken = true;
    buf_queue_fini(&feed->octets);
    intake->stream->is_stalled = false;
    wheel_cancel(&transfer->wheel, &intake->timer);
    transfer->has_unstored_news = true; /* its client may be waiting to be read */
}

void transfer_stream_fall_back(struct transfer *transfer, struct transfer_intake *intake,
                               enum way reason)
{
    CHECK(intake->state == TRANSFER_INTAKE_STREAMING);
    feed_break(transfer, intake);
    intake->way = reason;
    transfer_intake_enter(transfer, intake, TRANSFER_INTAKE_SPOOLING);
    intake->err = kept_spill(transfer, intake);
}

/* The attempt ends at our wish; `is_withdrawn`: that is not the next hop's fault. */
static void job_end(struct transfer *transfer, struct transfer_job *job, bool is_withdrawn)
{
    if (job == NULL)
        return;
    job->is_withdrawn = is_withdrawn;
    if (job->state == TRANSFER_JOB_READY)
        transfer_job_put_back(transfer, job, transfer->now.wall + (wall_us)STREAM_RETRY_TIME);
    else if (job->state == TRANSFER_JOB_SENDING)
        client_cancel(transfer->client, (uint64_t)(uintptr_t)job, transfer->now.tick);
}

void transfer_stream_stop(struct transfer *transfer, struct transfer_intake *intake,
                          enum way reason)
{
    struct transfer_job *job = transfer_cut_job(transfer, intake);

    transfer_stream_fall_back(transfer, intake, reason);
    job_end(transfer, job, reason != WAY_PATIENCE);
}

void transfer_stream_fate(struct transfer *transfer, struct transfer_intake *intake,
                          const struct qmgr_result *refusal)
{
    struct transfer_stream *stream = intake->stream;

    feed_break(transfer, intake);
    kept_forget(transfer, stream);
    stream->code = 250;
    if (refusal != NULL) {
        stream->code = refusal->code;
        memcpy(stream->enhanced, refusal->enhanced, sizeof(stream->enhanced));
        stream->reply_size = refusal->reply.size < sizeof(stream->reply)
                                 ? refusal->reply.size
                                 : (uint32_t)sizeof(stream->reply);
        memcpy(stream->reply, refusal->reply.data, stream->reply_size);
    }
    intake->way = WAY_STREAM;
    transfer_intake_give_up_room(transfer, intake);
    transfer_intake_enter(transfer, intake, TRANSFER_INTAKE_FATED);
    transfer->ways.unstored--;
}

struct message_fate transfer_stream_get_fate(const struct transfer_intake *intake)
{
    const struct transfer_stream *stream = intake->stream;
    struct message_fate fate = {
        .id = intake->id,
        .code = stream->code,
        .way = intake->way,
        .reply = span_of(stream->reply, stream->reply_size),
    };

    memcpy(fate.enhanced, stream->enhanced, sizeof(fate.enhanced));
    return fate;
}

void transfer_stream_end(struct transfer *transfer, struct transfer_intake *intake,
                         const struct envelope *envelope)
{
    struct qmgr_completion completion = {.body_size = envelope->body_size,
                                         .header_size = envelope->header_size,
                                         .flags = envelope->flags};
    struct client_feed *feed = intake->stream->feed;

    if (intake->state == TRANSFER_INTAKE_FATED) {
        transfer_intake_enter(transfer, intake, TRANSFER_INTAKE_SETTLED);
        return;
    }
    qmgr_unstored_complete(transfer->qmgr, transfer_cut_message(transfer, intake), &completion);
    if (intake->state == TRANSFER_INTAKE_SPOOLING || intake->err != ERR_OK) {
        if (intake->state == TRANSFER_INTAKE_STREAMING)
            feed_break(transfer, intake);
        transfer_intake_enter(transfer, intake, TRANSFER_INTAKE_STORE_DUE);
        return;
    }
    feed->is_ended = true;
    feed->heard = intake->heard;
    feed->has_open_line = (envelope->flags & ENVELOPE_NO_FINAL_CRLF) != 0;
    client_feed_wake(transfer->client, feed);
    transfer_intake_enter(transfer, intake, TRANSFER_INTAKE_UNSTORED);
    wheel_arm(&transfer->wheel, &intake->timer,
              transfer->now.tick + (intake->is_sending ? transfer->settings->cut_through.patience
                                                       : STREAM_START_TIME));
}

/* Its sender is lost, or we refuse it. */
void transfer_stream_abort(struct transfer *transfer, struct transfer_intake *intake)
{
    if (intake->state == TRANSFER_INTAKE_FATED)
        return;
    struct qmgr_message *message = transfer_cut_message(transfer, intake);
    struct transfer_job *job = transfer_cut_job(transfer, intake);

#ifdef PLANT_LOST_SENDER_ENDS /* a bug for the simulator to find */
    intake->stream->feed->is_ended = true;
    client_feed_wake(transfer->client, intake->stream->feed);
    job = NULL;
#else
    feed_break(transfer, intake);
#endif
    transfer->ways.unstored--;
    qmgr_unstored_forget(transfer->qmgr, message, transfer->now);
    if (job != NULL)
        job->is_abandoned = true;
    job_end(transfer, job, true);
}

void transfer_stream_free(struct transfer *transfer, struct transfer_intake *intake)
{
    struct transfer_stream *stream = intake->stream;

    if (stream == NULL)
        return;
    stream->feed->is_broken = stream->feed->is_broken || !stream->feed->is_ended;
    client_feed_release(stream->feed);
    discharge(transfer, stream, stream->charged);
    buf_queue_fini(&stream->kept);
    free(stream);
    intake->stream = NULL;
}

/* ---- time ---- */

/* The next hop takes octets, or there are none to take. */
static bool is_moving(struct transfer_stream *stream)
{
    bool is_moving =
        buf_queue_is_empty(&stream->feed->octets) || stream->feed->taken != stream->looked_taken;

    stream->looked_taken = stream->feed->taken;
    return is_moving;
}

/* Where much waited at some time since the last look the sender may have been held up by us. */
static bool sender_is_slow(const struct transfer *transfer, struct transfer_stream *stream)
{
    uint64_t octets = stream->received - stream->looked_received;
    bool was_held_up = stream->is_stalled;

    stream->looked_received = stream->received;
    stream->is_stalled = stream->feed->octets.size > STREAM_AHEAD_MAX / 2;
    return !was_held_up && !stream->is_stalled &&
           is_too_slow(transfer, octets, transfer->now.tick - stream->looked);
}

enum way transfer_stream_idle_reason(const struct transfer_intake *intake)
{
    return intake->stream != NULL && intake->stream->feed->is_unfit ? WAY_SIZE : WAY_BUSY;
}

void transfer_stream_on_timer(struct transfer *transfer, struct transfer_intake *intake)
{
    struct transfer_stream *stream = intake->stream;
    tick_us patience = transfer->settings->cut_through.patience, now = transfer->now.tick;

    if (!intake->is_sending) {
        if (intake->delivery == SETTINGS_DELIVERY_CUT_THROUGH && !stream->feed->is_unfit &&
            now < stream->since + patience)
            wheel_arm(&transfer->wheel, &intake->timer, stream->since + patience);
        else
            transfer_stream_stop(transfer, intake, transfer_stream_idle_reason(intake));
        return;
    }
    if (is_moving(stream))
        stream->moved = now;
    bool is_slow = now >= stream->looked + STREAM_LOOK_TIME && sender_is_slow(transfer, stream);
    if (now >= stream->looked + STREAM_LOOK_TIME)
        stream->looked = now;
    if (now >= stream->moved + patience) {
        transfer_stream_stop(transfer, intake, WAY_PATIENCE);
        return;
    }
    if (is_slow) {
        transfer_stream_stop(transfer, intake, WAY_SLOW);
        return;
    }
    tick_us next = stream->looked + STREAM_LOOK_TIME;
    if (stream->moved + patience < next)
        next = stream->moved + patience;
    wheel_arm(&transfer->wheel, &intake->timer, next > now ? next : now + TICK_MS(1));
}

/* ---- the job ---- */

void transfer_stream_sending(struct transfer *transfer, struct transfer_intake *intake)
{
    struct transfer_stream *stream = intake->stream;

    stream->moved = stream->looked = transfer->now.tick;
    stream->looked_received = stream->received;
    wheel_arm(&transfer->wheel, &intake->timer, transfer->now.tick + STREAM_LOOK_TIME);
}

struct client_feed *transfer_stream_feed(const struct transfer_job *job)
{
    const struct transfer_intake *intake =
        job->guest != NULL ? NULL : qmgr_delivery_owner(job->delivery);

    return intake == NULL || intake->stream == NULL ? NULL : intake->stream->feed;
}

bool transfer_stream_may_go(struct transfer *transfer, struct transfer_intake *intake)
{
    const struct client_feed *feed = intake->stream->feed;

    if (intake->state == TRANSFER_INTAKE_STREAMING && feed->is_unfit)
        transfer_stream_fall_back(transfer, intake, WAY_SIZE);
    return !feed->is_broken && !feed->is_begun && !feed->is_unfit;
}

void transfer_stream_drain(struct transfer *transfer)
{
    struct transfer_intake *intake;

    while ((intake = LIST_FIRST(&transfer->intakes_by_state[TRANSFER_INTAKE_STREAMING])) != NULL)
        transfer_stream_stop(transfer, intake, WAY_SHUTDOWN);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue manager: what waits for whom, until when.
 *
 * A message is an index of its envelope and three kinds of next event: the retry timers of its
 * deliveries, its expiry timer, and the DSN it owes. Millions wait at the price of one message and
 * one delivery each; everything else (envelope, body, failures) is in a `work` that exists while
 * somebody works on the message.
 *
 * Delivery                                         Edge done by
 *   (none) -> READY      inserted, due             qmgr_insert() -> qmgr_line_push()
 *   (none) -> WAITING    recovered, next_try       qmgr_insert() -> qmgr_delivery_wait()
 *   WAITING -> READY     its timer                 qmgr_advance() -> qmgr_line_push()
 *   READY -> ACTIVE      the transfer asks         qmgr_take()
 *   ACTIVE -> WAITING    deferred                  qmgr_finish()
 *   ACTIVE -> READY      rest of a batch, no slot  qmgr_finish()
 *   any -> HELD          an operator holds it      qmgr_act(), qmgr_finish()
 *   HELD -> READY        released, or its end came qmgr_act(), qmgr_advance()
 *   any -> (none)        no recipient DUE is left  qmgr_delivery_free()
 *
 * Invariants (qmgr_verify() proves them)
 *   1. due counts a message's recipients that are DUE, failed those FAILED or RELAYED; the message
 *      is gone as soon as both are 0, and no DSN about it is under way.
 *   2. Every DUE recipient belongs to exactly one delivery, the one whose line has its domain.
 *   3. The expiry timer is armed until the message is expired, for the notice of delay before
 *      that. After it only ACTIVE deliveries and the owed DSN are left; both end by themselves.
 *   4. A work exists while there is an envelope or a body, or one of them is being read, an ACTIVE
 *      delivery, a failure, or a DSN being made.
 *   5. Expiry is a monotonic deadline, computed once at insert from what is left of the lifetime:
 *      a jump of the wall clock afterwards moves nothing.
 *
 * Limits: message_count_max messages (ERR_LIMIT beyond), body_memory_max octets of bodies, at most
 * QMGR_TIMERS_PER_ADVANCE timers a turn, ENVELOPE_RECIPIENT_MAX deliveries a message.
 * Not here: why an attempt failed (relay/), who may connect (site.c), durability (spool.c).
 */
#include <stdlib.h>

#include "queue/qmgr_state.h"

#define QMGR_LINE_BUCKETS_MIN    16u
#define QMGR_LINE_BUCKETS_MAX    (1u << 20)
#define QMGR_SCRATCH_ARENA_BLOCK 16384u

static uint32_t line_bucket_count(uint32_t wanted)
{
    uint32_t count = QMGR_LINE_BUCKETS_MIN;

    while (count < wanted && count < QMGR_LINE_BUCKETS_MAX)
        count *= 2;
    return count;
}

struct qmgr *qmgr_new(const struct qmgr_options *options, struct spool *spool, struct rng *rng,
                      struct tick_now now)
{
    CHECK(options->message_count_max > 0);
    CHECK(options->retry_min > 0 && options->retry_min <= options->retry_max);
    CHECK(options->dsn_per_sender_max != 1);
    uint32_t line_buckets = line_bucket_count(options->message_count_max);
    struct qmgr *qmgr = calloc(1, sizeof(*qmgr));
    CHECK(qmgr != NULL);

    qmgr->options = *options;
    qmgr->spool = spool;
    qmgr->rng = rng;
    qmgr->hash = (struct keyed_hash){{rng_u64(rng), rng_u64(rng)}};
    qmgr->hashed = calloc(1, sizeof(*qmgr->hashed));
    CHECK(qmgr->hashed != NULL);
    slab_init(&qmgr->messages, sizeof(struct qmgr_message), UINT32_MAX, qmgr);
    slab_init(&qmgr->deliveries, sizeof(struct qmgr_delivery), UINT32_MAX, qmgr);
    slab_init(&qmgr->lines, sizeof(struct qmgr_line), UINT32_MAX, qmgr);
    slab_init(&qmgr->senders, sizeof(struct qmgr_sender), UINT32_MAX, qmgr);
    slab_init(&qmgr->parts, sizeof(struct qmgr_part), UINT32_MAX, qmgr);
    slab_init(&qmgr->shares, sizeof(struct qmgr_share), UINT32_MAX, qmgr);
    qmgr_table_init(&qmgr->table, options->message_count_max);
    qmgr->line_buckets = calloc(line_buckets, sizeof(struct qmgr_line *));
    qmgr->sender_buckets = calloc(line_buckets, sizeof(struct qmgr_sender *));
    qmgr->part_buckets = calloc(line_buckets, sizeof(struct qmgr_part *));
    qmgr->share_buckets = calloc(line_buckets, sizeof(struct qmgr_share *));
    CHECK(qmgr->line_buckets != NULL && qmgr->sender_buckets != NULL);
    CHECK(qmgr->part_buckets != NULL && qmgr->share_buckets != NULL);
    qmgr->line_mask = line_buckets - 1;
    buf_queue_init(&qmgr->no_body);
    arena_init(&qmgr->scratch, QMGR_SCRATCH_ARENA_BLOCK, QMGR_ARENA_SIZE_MAX);
    arena_init(&qmgr->view_arena, QMGR_SCRATCH_ARENA_BLOCK, QMGR_ARENA_SIZE_MAX);
    wheel_init(&qmgr->wheel, now.tick);
    TAILQ_INIT(&qmgr->kept);
    return qmgr;
}

/* ---- work ---- */

static struct qmgr_work *work_new(struct qmgr *qmgr)
{
    struct qmgr_work *work = qmgr->work_spare;

    if (work != NULL) {
        qmgr->work_spare = work->next;
        qmgr->work_spare_count--;
        work->next = NULL;
        return work;
    }
    work = calloc(1, sizeof(*work));
    CHECK(work != NULL);
    arena_init(&work->arena, QMGR_WORK_ARENA_BLOCK, QMGR_ARENA_SIZE_MAX);
    buf_queue_init(&work->body);
    work->dsn_timer.kind = QMGR_TIMER_DSN;
    return work;
}

static void work_release_body(struct qmgr *qmgr, struct qmgr_work *work)
{
    CHECK(qmgr->stats.body_memory >= work->body.size);
    qmgr->stats.body_memory -= work->body.size;
    buf_queue_fini(&work->body);
}

static void work_free(struct qmgr *qmgr, struct qmgr_work *work)
{
    qmgr_dsn_forget(qmgr, work);
    qmgr_keep_leave(qmgr, work);
    work_release_body(qmgr, work);
    qmgr_envelope_forget(qmgr, work);
    work->pins = 0;
    work->owner = NULL;
    work->way_due = WAY_UNKNOWN;
    work->is_news_due = work->is_store_due = work->is_parked = false;
    work->spared_at = 0;
    work->message->work = NULL;
    work->message = NULL;
    if (qmgr->work_spare_count == QMGR_WORK_SPARE_MAX) {
        arena_fini(&work->arena);
        free(work);
        return;
    }
    work->next = qmgr->work_spare;
    qmgr->work_spare = work;
    qmgr->work_spare_count++;
}

struct qmgr_work *qmgr_work_get(struct qmgr *qmgr, struct qmgr_message *message)
{
    if (message->work == NULL) {
        message->work = work_new(qmgr);
        message->work->message = message;
    }
    return message->work;
}

/* ---- the end of messages ---- */

void qmgr_message_remove(struct qmgr *qmgr, struct qmgr_message *message)
{
    while (message->deliveries != NULL)
        qmgr_delivery_free(qmgr, message->deliveries);
    wheel_cancel(&qmgr->wheel, &message->expiry);
    qmgr_scans_skip_message(qmgr, message);
    qmgr_sender_leave(qmgr, message);
    qmgr_table_unlink(qmgr, message);
    qmgr->stats.unreadable -= message->is_unreadable;
    if (message->work != NULL)
        work_free(qmgr, message->work);
    if (message->recipient_count > QMGR_STATES_FEW)
        free(message->states);
    slab_release(&qmgr->messages, message);
    if (qmgr->messages.in_use == 0)
        qmgr_check_end(qmgr);
}

/* A body is kept for first attempts, and for a DSN that is about to be made. While somebody works
 * with it, it stays. */
static bool work_body_is_wanted(const struct qmgr_work *work)
{
    const struct qmgr_message *message = work->message;

    return message->active > 0 || message->fresh > 0 || work->dsn_state == QMGR_DSN_LISTED ||
           work->dsn_state == QMGR_DSN_REPORTED || message->storage != QMGR_STORED;
}

static void work_review(struct qmgr *qmgr, struct qmgr_work *work)
{
    const struct qmgr_message *message = work->message;

    if (!buf_queue_is_empty(&work->body) && !work_body_is_wanted(work))
        work_release_body(qmgr, work);
    if (!qmgr_envelope_is_wanted(qmgr, work))
        qmgr_envelope_release(qmgr, work);
    if (message->active > 0 || work->dsn_state == QMGR_DSN_REPORTED)
        return;
    bool is_idle = buf_queue_is_empty(&work->body) && work->encoded == NULL && work->load == NULL;
    if (is_idle && work->pins == 0 && work->dsn_state == QMGR_DSN_NONE && work->failures == NULL) {
        work_free(qmgr, work);
        return;
    }
    if (work->encoded == NULL || message->fresh == 0)
        qmgr_envelope_close(work);
    /* Of those who wait for their sender's turn there may be as many as there is mail. */
    if (is_idle && work->dsn_state == QMGR_DSN_DELAYED && !work->is_decoded)
        arena_fini(&work->arena);
}

void qmgr_message_review(struct qmgr *qmgr, struct qmgr_message *message)
{
    bool is_reported = message->work != NULL && message->work->dsn_state == QMGR_DSN_REPORTED;

    if (message->due == 0)
        message->is_delay_owed = false;
    if (message->storage != QMGR_STORED) {
        qmgr_unstored_review(qmgr, message);
        return;
    }
    if (message->due == 0 && message->failed == 0 && !is_reported) {
        struct spool_entry *entry = message->entry;
        qmgr_message_remove(qmgr, message);
        qmgr->stats.done++;
        qmgr->options.on_done(qmgr->options.context, entry);
        return;
    }
    qmgr_dsn_review(qmgr, message);
    if (message->work != NULL)
        work_review(qmgr, message->work);
}

void qmgr_free(struct qmgr *qmgr)
{
    struct qmgr_message *message;
    struct qmgr_line *line;
    uint64_t cursor = 0;

    qmgr->options.on_line_gone = NULL; /* who frees the queue has let go of its lines */
    while ((message = slab_next(&qmgr->messages, &cursor)) != NULL)
        qmgr_message_remove(qmgr, message);
    cursor = 0;
    while ((line = slab_next(&qmgr->lines, &cursor)) != NULL)
        qmgr_line_free(qmgr, line);
    while (qmgr->work_spare != NULL) {
        struct qmgr_work *work = qmgr->work_spare;
        qmgr->work_spare = work->next;
        arena_fini(&work->arena);
        free(work);
    }
    qmgr_loads_free(qmgr);
    qmgr_pieces_free(qmgr);
    qmgr_standing_free(qmgr);
    slab_fini(&qmgr->messages);
    slab_fini(&qmgr->deliveries);
    slab_fini(&qmgr->lines);
    slab_fini(&qmgr->senders);
    slab_fini(&qmgr->parts);
    slab_fini(&qmgr->shares);
    arena_fini(&qmgr->scratch);
    arena_fini(&qmgr->view_arena);
    qmgr_table_fini(&qmgr->table);
    free(qmgr->hashed);
    free(qmgr->line_buckets);
    free(qmgr->sender_buckets);
    free(qmgr->part_buckets);
    free(qmgr->share_buckets);
    free(qmgr);
}

/* ---- insert ---- */

tick_us qmgr_tick_of(wall_us wall, tick_us ahead_max, struct tick_now now)
{
    if (wall <= now.wall)
        return now.tick;
    tick_us ahead = (tick_us)(wall - now.wall);
    return now.tick + (ahead < ahead_max ? ahead : ahead_max);
}

static enum err work_fill(struct qmgr *qmgr, struct qmgr_work *work,
                          const struct qmgr_insert *insert)
{
    struct span encoded = insert->encoded;

    if (insert->index != NULL) {
        qmgr_recover_index(work, insert->index);
        return ERR_OK;
    }
    if (encoded.size == 0)
        return ERR_DISK_CORRUPT;
    if (insert->owner != NULL || (insert->is_new && qmgr_envelope_has_room(qmgr)) ||
        qmgr->standing_count > 0) {
        qmgr_envelope_keep(qmgr, work, encoded, insert->is_given);
        encoded = span_of(work->encoded, work->encoded_size);
    }
    TRY(qmgr_envelope_decode(work, encoded, insert->is_new));
    if (work->encoded != NULL || !insert->is_new || !qmgr_quota_holds(work->envelope.flags))
        return ERR_OK;
    qmgr_envelope_close(work);
    qmgr_envelope_keep(qmgr, work, encoded, false); /* to tell who is held */
    return qmgr_envelope_decode(work, span_of(work->encoded, work->encoded_size), true);
}

static void message_describe(struct qmgr_message *message, const struct envelope *envelope)
{
    tick_us lifetime = (tick_us)(envelope->expires - envelope->arrived);
    tick_us units = lifetime / QMGR_LIFETIME_UNIT + (lifetime % QMGR_LIFETIME_UNIT != 0);

    if (units > QMGR_LIFETIME_MAX)
        units = QMGR_LIFETIME_MAX;
    message->expiry.kind = QMGR_TIMER_EXPIRY | (uint32_t)units << QMGR_LIFETIME_SHIFT;
    message->arrived = envelope->arrived;
    message->recipient_count = (uint16_t)envelope->recipient_count;
    message->flags = (uint16_t)envelope->flags;
    message->is_null_sender = envelope->sender.size == 0;
}

/* A message with its envelope decoded, in no table yet. */
static enum err message_new(struct qmgr *qmgr, const struct qmgr_insert *insert,
                            struct qmgr_message **ret_message)
{
    struct qmgr_message *message = slab_acquire(&qmgr->messages);
    if (message == NULL)
        return ERR_LIMIT;
    message->entry = insert->entry;
    message->storage = insert->owner != NULL ? QMGR_UNSTORED : QMGR_STORED;
    message->way = insert->way & 63;

    struct qmgr_work *work = qmgr_work_get(qmgr, message);
    work->owner = insert->owner;
    enum err err = work_fill(qmgr, work, insert);
    /* Ids are unique: a second one is not a message of ours. What a start found was merged by id.
     */
    if (err == ERR_OK)
        message->hash = qmgr_table_hash(qmgr, work->envelope.id);
    if (err == ERR_OK && insert->index == NULL &&
        qmgr_table_find(qmgr, work->envelope.id, message->hash) != NULL)
        err = ERR_DISK_CORRUPT;
    if (err != ERR_OK) {
        work_free(qmgr, work);
        slab_release(&qmgr->messages, message);
        return err;
    }
    message_describe(message, &work->envelope);
    *ret_message = message;
    return ERR_OK;
}

/* Group the DUE recipients by domain: one delivery each. */
static void message_make_deliveries(struct qmgr *qmgr, struct qmgr_message *message,
                                    const struct envelope *envelope)
{
    for (uint32_t i = 0; i < envelope->recipient_count; i++) {
        const struct envelope_recipient *recipient = &envelope->recipients[i];
        if (recipient->state != RECIPIENT_DUE)
            continue;
        struct qmgr_line *line = qmgr_line_get(qmgr, envelope, recipient->domain);
        struct qmgr_delivery *delivery = line->newest;
        if (delivery != NULL && delivery->message == message &&
            !qmgr_delivery_has(delivery, envelope, recipient))
            delivery = (struct qmgr_delivery *)(uintptr_t)qmgr_message_delivery(message, envelope,
                                                                                recipient);
        if (delivery == NULL || delivery->message != message)
            delivery = qmgr_delivery_new(qmgr, message, line, i);
        if (recipient->origin.size > 0)
            qmgr_delivery_set_rerouted(qmgr, delivery);
        delivery->due_count++;
    }
}

bool qmgr_has_body_room(const struct qmgr *qmgr, uint64_t size)
{
    return size <= qmgr->options.body_memory_max - qmgr->stats.body_memory;
}

static bool is_full(const struct qmgr *qmgr, const struct buf_queue *body)
{
    return !qmgr_envelope_has_room(qmgr) || (body != NULL && !qmgr_has_body_room(qmgr, body->size));
}

static void message_keep_body(struct qmgr *qmgr, struct qmgr_message *message,
                              struct buf_queue *body)
{
    if (body == NULL || buf_queue_is_empty(body))
        return;
    if (!qmgr_has_body_room(qmgr, body->size)) {
        buf_queue_fini(body);
        return;
    }
    qmgr->stats.body_memory += body->size;
    buf_queue_move(&message->work->body, body);
}

/* Recovery left the next try of each delivery in its timer's deadline; 0: now. What is HELD already
 * has its order in the timer's kind. */
static void message_schedule(struct qmgr *qmgr, struct qmgr_message *message, struct tick_now now)
{
    for (struct qmgr_delivery *d = message->deliveries; d != NULL; d = qmgr_delivery_next(d)) {
        if (d->state == QMGR_HELD)
            qmgr_delivery_hold(qmgr, d, qmgr_delivery_order(d),
                               d->timer.deadline == TICK_NEVER
                                   ? QMGR_HOLD_FOR_EVER
                                   : now.wall + (wall_us)(d->timer.deadline - now.tick),
                               now);
        else if (d->timer.deadline > now.tick)
            qmgr_delivery_wait(qmgr, d, d->timer.deadline);
        else
            qmgr_line_push(qmgr, d, now.wall);
    }
}

enum err qmgr_insert(struct qmgr *qmgr, const struct qmgr_insert *insert, struct tick_now now)
{
    struct qmgr_message *message;

    CHECK(insert->owner == NULL || insert->entry == NULL);
    CHECK(insert->owner == NULL || insert->body == NULL ||
          qmgr_has_body_room(qmgr, insert->body->size));
    if (insert->is_new && is_full(qmgr, insert->body))
        qmgr_make_room(qmgr, now);
    TRY(message_new(qmgr, insert, &message));
    struct envelope *envelope = &message->work->envelope;
    qmgr_table_link(qmgr, message);
    qmgr_sender_join(qmgr, message,
                     insert->index != NULL ? insert->index->sender_domain
                                           : qmgr_sender_domain_of(envelope->sender));
    qmgr_check_begin(qmgr, now);

    struct qmgr_recalled recalled;
    qmgr_recover_states(qmgr, message, insert, &recalled);
    qmgr_message_arm(qmgr, message, envelope, now);
    message_make_deliveries(qmgr, message, envelope);
    qmgr_recover_deliveries(qmgr, message, insert, &recalled, now);
    message_schedule(qmgr, message, now);
    message_keep_body(qmgr, message, insert->body);
    qmgr->stats.inserted++;
    if (qmgr_quota_holds(message->flags))
        qmgr_quota_hold(qmgr, message, insert->is_new, now);
    if (qmgr->standing_count > 0 && insert->index != NULL)
        message->is_unjudged = true;
    else if (qmgr->standing_count > 0 && message->deliveries != NULL &&
             !qmgr_standing_judge(qmgr, message, !insert->is_new, now))
        return ERR_OK; /* it has ended */
    if (insert->is_new)
        qmgr_keep_join(qmgr, message, now);
    qmgr_message_review(qmgr, message);
    return ERR_OK;
}

/* ---- timers ---- */

static void qmgr_on_timer(struct qmgr *qmgr, struct wheel_timer *timer, struct tick_now now)
{
    switch ((enum qmgr_timer_kind)(timer->kind & QMGR_TIMER_KIND_MASK)) {
    case QMGR_TIMER_RETRY:
        qmgr->stats.deliveries_waiting--;
        qmgr_line_push(qmgr, WHEEL_OWNER(timer, struct qmgr_delivery, timer), now.wall);
        return;
    case QMGR_TIMER_EXPIRY: {
        struct qmgr_message *message = WHEEL_OWNER(timer, struct qmgr_message, expiry);
        if (message->is_delay_pending)
            qmgr_message_delay(qmgr, message);
        else
            qmgr_message_expire(qmgr, message, now);
        return;
    }
    case QMGR_TIMER_DSN:
        qmgr_dsn_timer(qmgr, WHEEL_OWNER(timer, struct qmgr_work, dsn_timer));
        return;
    case QMGR_TIMER_HOLD:
        qmgr->stats.deliveries_held--;
        qmgr_line_push(qmgr, WHEEL_OWNER(timer, struct qmgr_delivery, timer), now.wall);
        return;
    case QMGR_TIMER_CHECK:
        qmgr_check_timer(qmgr, now);
        return;
    }
    CHECK(false && "a timer kind");
}

void qmgr_advance(struct qmgr *qmgr, struct tick_now now)
{
    for (uint32_t i = 0; i < QMGR_TIMERS_PER_ADVANCE; i++) {
        struct wheel_timer *timer = wheel_expire_next(&qmgr->wheel, now.tick);
        if (timer == NULL)
            return;
        qmgr_on_timer(qmgr, timer, now);
    }
}

tick_us qmgr_deadline(const struct qmgr *qmgr)
{
    return wheel_deadline(&qmgr->wheel);
}

/* ---- operators ---- */

struct qmgr_stats qmgr_get_stats(const struct qmgr *qmgr)
{
    struct qmgr_stats stats = qmgr->stats;

    stats.messages = qmgr->messages.in_use;
    stats.lines = qmgr->lines.in_use;
    stats.stuck = qmgr_check_stuck(qmgr);
    return stats;
}

uint32_t qmgr_message_count(const struct qmgr *qmgr)
{
    return qmgr->messages.in_use;
}

struct qmgr_message *qmgr_next(struct qmgr *qmgr, uint64_t *cursor)
{
    return slab_next(&qmgr->messages, cursor);
}

const struct qmgr_delivery *qmgr_message_delivery(const struct qmgr_message *message,
                                                  const struct envelope *envelope,
                                                  const struct envelope_recipient *recipient)
{
    const struct qmgr_delivery *delivery = message->deliveries;

    while (delivery != NULL && !qmgr_delivery_has(delivery, envelope, recipient))
        delivery = qmgr_delivery_next(delivery);
    return delivery;
}

struct qmgr_status qmgr_recipient_status(const struct envelope_recipient *recipient,
                                         const struct qmgr_delivery *delivery, struct tick_now now)
{
    struct qmgr_status status = {.state = recipient->state, .domain = recipient->domain};

    if (recipient->state != RECIPIENT_DUE)
        return status;
    CHECK(delivery != NULL);
    status.domain = qmgr_line_domain(delivery->line);
    status.site = qmgr_line_site(delivery->line);
    status.is_active = delivery->state == QMGR_ACTIVE;
    status.is_ready = delivery->state == QMGR_READY;
    status.is_held = delivery->state == QMGR_HELD;
    status.attempts = delivery->attempts;
    status.next_try = now.wall;
    if (delivery->state == QMGR_WAITING && delivery->timer.deadline > now.tick)
        status.next_try += (wall_us)(delivery->timer.deadline - now.tick);
    if (status.is_held) {
        status.order = qmgr_delivery_order(delivery);
        status.next_try = qmgr_delivery_held_until(delivery, now);
    }
    if (delivery->last_reply != NULL)
        status.last_reply = span_of(delivery->last_reply->octets, delivery->last_reply->size);
    return status;
}

struct qmgr_status qmgr_message_status(const struct qmgr_message *message, uint32_t recipient_index,
                                       struct tick_now now)
{
    const struct envelope *envelope = qmgr_message_envelope(message);

    CHECK(envelope != NULL && recipient_index < envelope->recipient_count);
    const struct envelope_recipient *recipient = &envelope->recipients[recipient_index];
    return qmgr_recipient_status(recipient, qmgr_message_delivery(message, envelope, recipient),
                                 now);
}

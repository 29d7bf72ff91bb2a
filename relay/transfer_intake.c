/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages coming in: octets of a session become a spool transaction, its end a commit, and the
 * commit's completion releases the reply and hands the message to the queue; or the message goes to
 * the queue without the spool, and what becomes of it releases the reply (transfer_cut.c).
 *
 * An intake                                                     Edge done by
 *   RECEIVING -> (gone)       refused, or the client is gone     transfer_abort()
 *   RECEIVING -> COMMITTING   by the spool                       transfer_end()
 *   RECEIVING -> REFUSED      the spool cannot take it           transfer_end()
 *   RECEIVING -> UNSTORED     by cut-through                     transfer_end()
 *   RECEIVING -> STREAMING    while it comes: transfer_stream.c  transfer_stream_begin()
 *   REFUSED -> (gone)         451, 452                           transfer_intakes_run()
 *   COMMITTING -> (gone)      250 and queued; 451, 452           transfer_on_committed()
 *   UNSTORED -> (gone)        250; the next hop's 5xx            transfer_on_unstored_end()
 *   UNSTORED -> STORE_DUE     it cannot go on like this          transfer_on_store_due()
 *   UNSTORED, STORE_DUE -> STORING                               transfer_cut_run()
 *   STORING -> (gone)         250; 451, 452                      transfer_cut_on_committed()
 *
 * Invariants
 *   1. on_commit() says 250 only after the spool reported COMMITTED with ERR_OK, the queue having
 *      the message before the reply leaves, or after each recipient was accepted by a next hop.
 *   2. Every intake ends in exactly one of transfer_end() (then exactly one on_commit(), not inside
 *      that call) and transfer_abort().
 *   3. A spool transaction is begun with the intake, so that there is room for it. The body goes to
 *      it as it comes unless the message may go by cut-through; then once that is decided. With the
 *      spool full, mail for one recipient is begun without: it goes by cut-through, or is refused.
 *
 * Limits: the queue's message_count_max is kept at the door, where begun intakes count. What is
 * durable is queued whatever the count: recovered messages and notifications pass no door.
 */
#include <stdlib.h>

#include "relay/transfer_internal.h"

static const uint32_t intake_edges[TRANSFER_INTAKE_STATE_COUNT] = {
    [TRANSFER_INTAKE_RECEIVING] = 1u << TRANSFER_INTAKE_COMMITTING | 1u << TRANSFER_INTAKE_REFUSED |
                                  1u << TRANSFER_INTAKE_UNSTORED | 1u << TRANSFER_INTAKE_STREAMING,
    [TRANSFER_INTAKE_STREAMING] = 1u << TRANSFER_INTAKE_SPOOLING | 1u << TRANSFER_INTAKE_FATED |
                                  1u << TRANSFER_INTAKE_UNSTORED | 1u << TRANSFER_INTAKE_STORE_DUE,
    [TRANSFER_INTAKE_SPOOLING] = 1u << TRANSFER_INTAKE_FATED | 1u << TRANSFER_INTAKE_STORE_DUE,
    [TRANSFER_INTAKE_FATED] = 1u << TRANSFER_INTAKE_SETTLED,
    [TRANSFER_INTAKE_UNSTORED] = 1u << TRANSFER_INTAKE_STORE_DUE | 1u << TRANSFER_INTAKE_STORING,
    [TRANSFER_INTAKE_STORE_DUE] = 1u << TRANSFER_INTAKE_STORING,
};

static void intake_unlink(struct transfer *transfer, struct transfer_intake *intake)
{
    if (transfer->relief_next == intake)
        transfer->relief_next = LIST_NEXT(intake, link);
    LIST_REMOVE(intake, link);
}

void transfer_intake_enter(struct transfer *transfer, struct transfer_intake *intake,
                           enum transfer_intake_state next)
{
    CHECK(next < TRANSFER_INTAKE_STATE_COUNT);
    CHECK((intake_edges[intake->state] & 1u << next) != 0);
    intake_unlink(transfer, intake);
    intake->state = next;
    LIST_INSERT_HEAD(&transfer->intakes_by_state[next], intake, link);
}

/* ---- begin and body ---- */

static struct message_id transfer_id_next(struct transfer *transfer)
{
    return (struct message_id){(uint64_t)transfer->now.wall, rng_u64(transfer->options.rng)};
}

/* The spool has no room. Mail for one recipient is all or nothing at the next hop: if that takes it
 * the room is not needed, and if not the client hears 452 after all. */
static bool may_begin_without_room(const struct transfer *transfer,
                                   const struct transfer_offer *offer)
{
    return spool_refusal(transfer->options.spool) == ERR_DISK_FULL && offer->recipient_count == 1 &&
           offer->delivery != SETTINGS_DELIVERY_SPOOL && transfer->has_adopted &&
           !transfer->is_draining && offer->size <= transfer->settings->cut_through.size_max;
}

bool transfer_can_store(const struct transfer *transfer)
{
    return spool_refusal(transfer->options.spool) != ERR_DISK_IO;
}

enum err transfer_begin(struct transfer *transfer, const struct transfer_offer *offer,
                        struct tick_now now, struct transfer_intake **ret_intake,
                        struct message_id *ret_id)
{
    transfer->now = now;
    if (qmgr_message_count(transfer->qmgr) + transfer->intakes >=
        transfer->options.queue.message_count_max)
        return ERR_LIMIT;
    struct message_id id = transfer_id_next(transfer);
    struct spool_transaction *transaction =
        spool_begin(transfer->options.spool, id, offer->size, false);
    if (transaction == NULL && !may_begin_without_room(transfer, offer))
        return spool_refusal(transfer->options.spool);

    /* The allocator is quick with malloc() alone. */
    struct transfer_intake *intake = malloc(sizeof(*intake));
    CHECK(intake != NULL);
    *intake = (struct transfer_intake){0};
    intake->token.kind = TRANSFER_TOKEN_INTAKE;
    intake->state = TRANSFER_INTAKE_RECEIVING;
    intake->transaction = transaction;
    intake->id = id;
    intake->delivery = offer->delivery;
    intake->is_kept = true;
    intake->begun = now.tick;
    intake->size_said = offer->size;
    if (offer->delivery == SETTINGS_DELIVERY_SPOOL)
        intake->way = offer->reason == WAY_UNKNOWN ? WAY_POLICY : offer->reason;
    else if (offer->size > transfer->settings->cut_through.size_max &&
             !transfer->settings->cut_through.may_stream)
        intake->way = WAY_SIZE;
    else
        intake->is_gathered = true;
    buf_queue_init(&intake->body);
    LIST_INSERT_HEAD(&transfer->intakes_by_state[TRANSFER_INTAKE_RECEIVING], intake, link);
    transfer->intakes++;
    *ret_intake = intake;
    *ret_id = id;
    return ERR_OK;
}

static void body_forget(struct transfer_intake *intake)
{
    buf_queue_fini(&intake->body);
    intake->is_kept = false;
}

enum err transfer_intake_spool(struct transfer *transfer, struct transfer_intake *intake)
{
    struct buf_queue copy;

    if (!intake->is_gathered)
        return ERR_OK;
    if (intake->transaction == NULL)
        return ERR_DISK_FULL;
    intake->is_gathered = false;
    buf_queue_init(&copy);
    buf_queue_append_queue(&copy, &intake->body);
    enum err err = spool_write_body(transfer->options.spool, intake->transaction, &copy);
    buf_queue_fini(&copy);
    return err;
}

enum err transfer_body(struct transfer *transfer, struct transfer_intake *intake,
                       struct buf_queue *octets)
{
    TRY(intake->err);
    if (intake->stream != NULL)
        return transfer_stream_body(transfer, intake, octets);
    if (intake->is_gathered && !transfer->settings->cut_through.may_stream &&
        intake->body.size + octets->size > transfer->settings->cut_through.size_max) {
        intake->way = WAY_SIZE;
        TRY(transfer_intake_spool(transfer, intake));
    }
    if (intake->is_gathered) { /* until it is too large for that, which is looked at behind this */
        buf_queue_move(&intake->body, octets);
        return ERR_OK;
    }
    if (intake->is_kept && intake->body.size + octets->size > TRANSFER_BODY_KEEP_MAX)
        body_forget(intake);
    if (intake->is_kept)
        buf_queue_append_queue(&intake->body, octets);
    return spool_write_body(transfer->options.spool, intake->transaction, octets);
}

static void intake_relieve(struct transfer *transfer, struct transfer_intake *intake)
{
    if (intake->state == TRANSFER_INTAKE_STREAMING) {
        transfer_stream_relieve(transfer, intake);
        return;
    }
    if (intake->is_gathered) {
        intake->way = WAY_MEMORY;
        intake->err = transfer_intake_spool(transfer, intake);
    }
    body_forget(intake);
}

/* Those that begin meanwhile are at the front of their list, and wait for the next round. */
bool transfer_relieve(struct transfer *transfer)
{
    static const enum transfer_intake_state states[] = {TRANSFER_INTAKE_RECEIVING,
                                                        TRANSFER_INTAKE_STREAMING};

    for (uint32_t i = 0; i < TRANSFER_RELIEF_SLICE;) {
        struct transfer_intake *intake = transfer->relief_next;
        if (intake != NULL) {
            transfer->relief_next = LIST_NEXT(intake, link);
            intake_relieve(transfer, intake);
            i++;
        } else if (transfer->relief_stage < COUNT_OF(states)) {
            transfer->relief_next =
                LIST_FIRST(&transfer->intakes_by_state[states[transfer->relief_stage++]]);
        } else {
            transfer->relief_stage = 0;
            spool_relieve(transfer->options.spool);
            return true;
        }
    }
    return false;
}

uint64_t transfer_pending(const struct transfer_intake *intake)
{
    uint64_t unwritten = intake->transaction == NULL ? 0 : spool_unwritten(intake->transaction);

    if (intake->stream == NULL)
        return unwritten;
    uint64_t waiting = transfer_stream_pending(intake);
    return waiting > unwritten ? waiting : unwritten;
}

/* ---- the end ---- */

static void intake_free(struct transfer *transfer, struct transfer_intake *intake)
{
    CHECK(transfer->intakes > 0);
    wheel_cancel(&transfer->wheel, &intake->timer);
    intake_unlink(transfer, intake);
    buf_queue_fini(&intake->body);
    transfer_stream_free(transfer, intake);
    free(intake->encoded);
    free(intake);
    transfer->intakes--;
}

void transfer_intake_finish(struct transfer *transfer, struct transfer_intake *intake,
                            const struct message_fate *fate)
{
    CHECK(fate->way > WAY_UNKNOWN && fate->way < WAY_COUNT);
    (&transfer->ways.ready)[fate->way - WAY_READY] += 1;
    transfer->options.on_commit(transfer->options.server, intake->user, fate);
    intake_free(transfer, intake);
}

void transfer_intake_give_up_room(struct transfer *transfer, struct transfer_intake *intake)
{
    if (intake->transaction != NULL)
        spool_abort(transfer->options.spool, intake->transaction);
    intake->transaction = NULL;
}

static void intake_refuse(struct transfer *transfer, struct transfer_intake *intake, enum err err)
{
    intake->err = err;
    transfer_intake_give_up_room(transfer, intake);
    transfer_intake_enter(transfer, intake, TRANSFER_INTAKE_REFUSED);
}

static void intake_commit(struct transfer *transfer, struct transfer_intake *intake)
{
    if (intake->err == ERR_OK)
        intake->err = transfer_intake_spool(transfer, intake);
    if (intake->err != ERR_OK) {
        intake_refuse(transfer, intake, intake->err);
        return;
    }
    transfer_intake_enter(transfer, intake, TRANSFER_INTAKE_COMMITTING);
    spool_commit(transfer->options.spool, intake->transaction,
                 span_of(intake->encoded, intake->encoded_size), (uint64_t)(uintptr_t)intake);
    intake->transaction = NULL;
}

void transfer_intake_encode(struct transfer_intake *intake, const struct envelope *envelope)
{
    intake->encoded = envelope_encode_new(envelope, &intake->encoded_size);
}

void transfer_set_heard(struct transfer_intake *intake, uint64_t heard)
{
    intake->heard = heard;
}

void transfer_end(struct transfer *transfer, struct transfer_intake *intake,
                  struct envelope *envelope, uint64_t user, struct tick_now now)
{
    transfer->now = now;
    envelope->id = intake->id;
    intake->user = user;
    intake->ended = transfer->now.tick;
    intake->body_size = envelope->body_size;
    if (intake->stream != NULL) {
        transfer_stream_end(transfer, intake, envelope);
        return;
    }
    transfer_intake_encode(intake, envelope);
    if (intake->way == WAY_UNKNOWN)
        intake->way = transfer_cut_choose(transfer, intake, envelope);
    if (intake->way == WAY_READY)
        transfer_cut_begin(transfer, intake);
    else
        intake_commit(transfer, intake);
}

void transfer_abort(struct transfer *transfer, struct transfer_intake *intake)
{
    CHECK(intake->state <= TRANSFER_INTAKE_FATED);
    if (intake->stream != NULL)
        transfer_stream_abort(transfer, intake);
    transfer_intake_give_up_room(transfer, intake);
    intake_free(transfer, intake);
}

/* ---- its fate ---- */

uint16_t transfer_refusal_code(enum err err)
{
    return err == ERR_DISK_FULL ? 452 : 451;
}

void transfer_intakes_run(struct transfer *transfer)
{
    struct transfer_intake *intake;

    while ((intake = LIST_FIRST(&transfer->intakes_by_state[TRANSFER_INTAKE_REFUSED])) != NULL)
        transfer_intake_finish(transfer, intake,
                               &(struct message_fate){.id = intake->id,
                                                      .code = transfer_refusal_code(intake->err),
                                                      .way = intake->way});
    while ((intake = LIST_FIRST(&transfer->intakes_by_state[TRANSFER_INTAKE_SETTLED])) != NULL) {
        struct message_fate fate = transfer_stream_get_fate(intake);
        transfer_intake_finish(transfer, intake, &fate);
    }
}

/*
 * Bodies kept for their first attempt and buffers for receiving come from one pool. Kept bodies may
 * have the first half of it; beyond that those of mail that stands still give way, and then a body
 * is read back from the spool when its turn comes, so that receiving (and acknowledgements with it)
 * never starves.
 */
static bool pool_has_room(const struct transfer *transfer)
{
    const struct buf_pool *pool = transfer->options.plane->pool;
    return buf_pool_available(pool) > buf_pool_count_max(pool) / 2;
}

bool transfer_may_keep_body(const struct transfer *transfer)
{
    if (!pool_has_room(transfer))
        qmgr_make_room(transfer->qmgr, transfer->now);
    return pool_has_room(transfer);
}

void transfer_on_committed(struct transfer *transfer, struct transfer_intake *intake,
                           const struct spool_event *event)
{
    struct message_fate fate = {.id = intake->id, .code = 250, .way = intake->way};

    if (intake->state == TRANSFER_INTAKE_STORING) {
        transfer_cut_on_committed(transfer, intake, event);
        return;
    }
    CHECK(intake->state == TRANSFER_INTAKE_COMMITTING);
    if (event->err == ERR_OK) {
        struct qmgr_insert insert = {
            .encoded = span_of(intake->encoded, intake->encoded_size),
            .is_new = true,
            .entry = event->entry,
            .body = intake->is_kept && transfer_may_keep_body(transfer) ? &intake->body : NULL,
            .way = intake->way,
        };
        enum err err = qmgr_insert(transfer->qmgr, &insert, transfer->now);
        CHECK(err == ERR_OK); /* the queue takes what is durable, and we encoded it ourselves */
        latency_add(&transfer->latencies.accept, (int64_t)(transfer->now.tick - intake->ended));
    } else {
        fate.code = transfer_refusal_code(event->err);
    }
    transfer_intake_finish(transfer, intake, &fate);
}

void transfer_intakes_free(struct transfer *transfer)
{
    for (uint32_t i = TRANSFER_INTAKE_SETTLED; i < TRANSFER_INTAKE_STATE_COUNT; i++) {
        while (!LIST_EMPTY(&transfer->intakes_by_state[i]))
            intake_free(transfer, LIST_FIRST(&transfer->intakes_by_state[i]));
    }
}

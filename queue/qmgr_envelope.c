/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Envelopes: in memory only while somebody works on their message.
 *
 * Of a message that waits the queue keeps an index: its entry in the spool, when it came, how many
 * recipients it has, one delivery for each of their domains. Addresses are in the spool, beside the
 * body, and are read when they are needed.
 *
 * Envelope of a message                              Edge done by
 *   (none) -> HERE      accepted just now, room      qmgr_insert()
 *   (none) -> LOADING   an attempt begins            qmgr_take()
 *                       its time is over             qmgr_message_expire()
 *                       its notification is next     qmgr_dsn_next()
 *                       an operator looks at it      qmgr_scan_step()
 *   LOADING -> HERE     it was read                  qmgr_on_read()
 *   LOADING -> (none)   it could not be read         qmgr_on_read()
 *   HERE -> (none)      nobody wants it any more     qmgr_message_review()
 *   any -> (none)       the message ends             qmgr_message_remove()
 *
 * It stays HERE for an attempt, for a notification that is listed or being made, for a scan that
 * has it pinned; and, while there is room, for the first attempt of each of its deliveries. Room is
 * a QMGR_ENVELOPE_SHARE of the memory for bodies; a work and its arena are counted with it.
 *
 * Invariants
 *   1. What is committed never changes: the states of recipients and the flags that PROGRESS sets
 *      are in the index, and are applied to every envelope that is decoded. An array of states
 *      exists from the first recipient on that is not DUE.
 *   2. Whoever waits for a read is told how it ended: an ACTIVE delivery by qmgr_loaded_next(), an
 *      expiry by being done, or by its timer being armed again, a notification by staying listed,
 *      or by its timer, a scan because it looks again.
 *   3. A read that fails loses nothing: the message is tried again retry_min later, for as long as
 *      it takes, and is counted as unreadable until its envelope was read. When there was no memory
 *      for it, it is tried again a second later.
 *   4. A message may end while its envelope is read; the answer is then nobody's.
 *   5. What came back while orders stood is judged by them before anybody else hears of its
 *      envelope.
 *
 * Limits: QMGR_LOADS_MAX reads for expiries at a time, the others have their timers armed anew;
 * those for attempts are bounded by who takes deliveries.
 * Not here: the read itself (spool_read.c), bodies (relay/transfer_job.c).
 */
#include <stdlib.h>

#include "base/log.h"
#include "queue/qmgr_state.h"

#define MEMORY_PAUSE        TICK_S(1)
#define UNREADABLE_LOGS_MAX 100u /* while there are so many, each further one is only counted */

/* ---- states ---- */

enum recipient_state qmgr_recipient_state(const struct qmgr_message *message, uint32_t index)
{
    CHECK(index < message->recipient_count);
    if (message->recipient_count <= QMGR_STATES_FEW)
        return (enum recipient_state)message->states_few[index];
    return message->states == NULL ? RECIPIENT_DUE : (enum recipient_state)message->states[index];
}

/* To be written to. */
static uint8_t *states_get(struct qmgr_message *message)
{
    if (message->recipient_count <= QMGR_STATES_FEW)
        return message->states_few;
    if (message->states == NULL)
        message->states = calloc(message->recipient_count, sizeof(*message->states));
    CHECK(message->states != NULL);
    return message->states;
}

void qmgr_recipient_set(struct qmgr_message *message, struct envelope_recipient *recipient,
                        enum recipient_state state)
{
    CHECK(message->work != NULL && message->work->is_decoded);
    uint64_t index = (uint64_t)(recipient - message->work->envelope.recipients);

    CHECK(index < message->recipient_count);
    states_get(message)[index] = (uint8_t)state;
    recipient->state = state;
}

void qmgr_states_settle(struct qmgr_message *message)
{
    uint8_t *states = states_get(message);

    for (uint32_t i = 0; i < message->recipient_count; i++) {
        if (states[i] == RECIPIENT_DUE)
            states[i] = RECIPIENT_SETTLED;
    }
}

/* Invariant 1. */
static void states_apply(const struct qmgr_message *message, struct envelope *envelope)
{
    envelope->flags |= message->flags & ENVELOPE_PROGRESS_FLAGS;
    for (uint32_t i = 0; i < envelope->recipient_count; i++)
        envelope->recipients[i].state = qmgr_recipient_state(message, i);
}

/* ---- memory ---- */

static uint64_t memory_charge(uint32_t encoded_size)
{
    return sizeof(struct qmgr_work) + QMGR_WORK_ARENA_BLOCK + encoded_size;
}

bool qmgr_envelope_has_room(const struct qmgr *qmgr)
{
    return qmgr->stats.envelope_memory < qmgr->options.body_memory_max / QMGR_ENVELOPE_SHARE;
}

void qmgr_envelope_keep(struct qmgr *qmgr, struct qmgr_work *work, struct span encoded,
                        bool is_given)
{
    CHECK(work->encoded == NULL && !work->is_decoded && encoded.size > 0);
    work->encoded = is_given ? (uint8_t *)(uintptr_t)encoded.data : malloc(encoded.size);
    CHECK(work->encoded != NULL);
    if (!is_given)
        memcpy(work->encoded, encoded.data, encoded.size);
    work->encoded_size = encoded.size;
    qmgr->stats.envelope_memory += memory_charge(encoded.size);
}

void qmgr_envelope_close(struct qmgr_work *work)
{
    arena_reset(&work->arena);
    work->route = (struct span){0};
    work->is_decoded = false;
    work->dsn_failures = NULL;
    work->dsn_failure_count = 0;
}

void qmgr_envelope_release(struct qmgr *qmgr, struct qmgr_work *work)
{
    qmgr_envelope_close(work);
    if (work->encoded == NULL)
        return;
    CHECK(qmgr->stats.envelope_memory >= memory_charge(work->encoded_size));
    qmgr->stats.envelope_memory -= memory_charge(work->encoded_size);
    free(work->encoded);
    work->encoded = NULL;
    work->encoded_size = 0;
}

bool qmgr_envelope_is_wanted(const struct qmgr *qmgr, const struct qmgr_work *work)
{
    const struct qmgr_message *message = work->message;

    return message->active > 0 || work->pins > 0 || work->dsn_state == QMGR_DSN_LISTED ||
           work->dsn_state == QMGR_DSN_REPORTED || message->storage != QMGR_STORED ||
           (message->fresh > 0 && qmgr_envelope_has_room(qmgr));
}

/* ---- looking into it ---- */

enum err qmgr_envelope_decode(struct qmgr_work *work, struct span encoded, bool is_known)
{
    TRY(is_known ? envelope_decode_known(encoded, &work->arena, &work->envelope)
                 : envelope_decode(encoded, &work->arena, &work->envelope));
    work->is_decoded = true;
    return ERR_OK;
}

struct envelope *qmgr_message_open(struct qmgr *qmgr, struct qmgr_message *message)
{
    struct qmgr_work *work = message->work;

    (void)qmgr;
    CHECK(work != NULL);
    if (work->is_decoded)
        return &work->envelope;
    CHECK(work->encoded != NULL);
    enum err err = qmgr_envelope_decode(work, span_of(work->encoded, work->encoded_size), true);
    CHECK(err == ERR_OK); /* it did when it came */
    if (!QMGR_HAS_BUG(STATES_FORGOTTEN))
        states_apply(message, &work->envelope);
    qmgr_routes_apply(message, &work->envelope, &work->arena);
    return &work->envelope;
}

struct message_id qmgr_message_id(const struct qmgr_message *message)
{
    /* The entry of a message whose last notification was just committed is gone already. */
    if (message->work != NULL && message->work->dsn_state == QMGR_DSN_REPORTED)
        return message->work->envelope.id;
    if (message->storage != QMGR_STORED)
        return envelope_basic_get(message->work->encoded).id;
    return spool_entry_id(message->entry);
}

const struct envelope *qmgr_message_envelope(const struct qmgr_message *message)
{
    struct qmgr *qmgr = slab_owner(message);

    if (!qmgr_envelope_is_here(message))
        return NULL;
    struct span encoded = span_of(message->work->encoded, message->work->encoded_size);
    arena_reset(&qmgr->view_arena);
    CHECK(envelope_decode(encoded, &qmgr->view_arena, &qmgr->view_envelope) == ERR_OK);
    states_apply(message, &qmgr->view_envelope);
    qmgr_routes_apply(message, &qmgr->view_envelope, &qmgr->view_arena);
    return &qmgr->view_envelope;
}

/* ---- reading ---- */

void qmgr_envelope_want(struct qmgr *qmgr, struct qmgr_message *message)
{
    struct qmgr_work *work = qmgr_work_get(qmgr, message);

    if (work->encoded != NULL || work->load != NULL)
        return;
    struct qmgr_load *load = calloc(1, sizeof(*load));
    CHECK(load != NULL);
    load->message = message;
    load->next = qmgr->loads;
    if (load->next != NULL)
        load->next->prev = load;
    qmgr->loads = load;
    qmgr->load_count++;
    work->load = load;
    spool_read_envelope(qmgr->spool, message->entry, (uint64_t)(uintptr_t)load | QMGR_TOKEN_BIT);
}

void qmgr_envelope_forget(struct qmgr *qmgr, struct qmgr_work *work)
{
    if (work->load != NULL)
        work->load->message = NULL;
    work->load = NULL;
    qmgr_envelope_release(qmgr, work);
}

static void load_free(struct qmgr *qmgr, struct qmgr_load *load)
{
    if (load->prev != NULL)
        load->prev->next = load->next;
    else
        qmgr->loads = load->next;
    if (load->next != NULL)
        load->next->prev = load->prev;
    qmgr->load_count--;
    free(load);
}

void qmgr_loads_free(struct qmgr *qmgr)
{
    while (qmgr->loads != NULL)
        load_free(qmgr, qmgr->loads);
}

/* ---- attempts that wait for it ---- */

static void loaded_append(struct qmgr *qmgr, struct qmgr_delivery *delivery,
                          enum qmgr_load_state state)
{
    delivery->load = state & 3;
    delivery->active.of->loaded_next = NULL;
    if (qmgr->loaded.last != NULL)
        qmgr->loaded.last->active.of->loaded_next = delivery;
    else
        qmgr->loaded.first = delivery;
    qmgr->loaded.last = delivery;
}

void qmgr_loaded_refuse(struct qmgr *qmgr, struct qmgr_delivery *delivery)
{
    loaded_append(qmgr, delivery, QMGR_LOAD_LISTED);
}

void qmgr_loaded_remove(struct qmgr *qmgr, struct qmgr_delivery *delivery)
{
    struct qmgr_delivery **link = &qmgr->loaded.first, *before = NULL;

    while (*link != delivery) {
        CHECK(*link != NULL);
        before = *link;
        link = &before->active.of->loaded_next;
    }
    *link = delivery->active.of->loaded_next;
    if (qmgr->loaded.last == delivery)
        qmgr->loaded.last = before;
    delivery->load = QMGR_LOAD_DONE;
}

void qmgr_delivery_loaded(struct qmgr *qmgr, struct qmgr_delivery *delivery)
{
    struct qmgr_active *active = delivery->active.of;

    delivery->load = QMGR_LOAD_DONE;
    active->recipients = &active->only;
    active->count = delivery->due_count;
    if (delivery->due_count > 1) {
        active->recipients = malloc(delivery->due_count * sizeof(uint32_t));
        CHECK(active->recipients != NULL);
    }
    qmgr_delivery_recipients(delivery, qmgr_message_open(qmgr, delivery->message),
                             active->recipients);
}

struct qmgr_delivery *qmgr_loaded_next(struct qmgr *qmgr, bool *ret_is_loaded)
{
    struct qmgr_delivery *delivery = qmgr->loaded.first;

    if (delivery == NULL)
        return NULL;
    *ret_is_loaded = delivery->load == QMGR_LOAD_LISTED && delivery->active.of->wishes == NULL;
    qmgr_loaded_remove(qmgr, delivery);
    if (*ret_is_loaded)
        qmgr_delivery_loaded(qmgr, delivery);
    return delivery;
}

bool qmgr_delivery_is_loaded(const struct qmgr_delivery *delivery)
{
    CHECK(delivery->state == QMGR_ACTIVE);
    return delivery->load == QMGR_LOAD_DONE;
}

/* ---- the end of a read ---- */

/* What was read becomes the envelope, if it is that of this message. */
static enum err message_take(struct qmgr *qmgr, struct qmgr_message *message,
                             const struct buf_queue *octets)
{
    struct qmgr_work *work = message->work;

    if (octets->size == 0 || octets->size > ENVELOPE_SIZE_MAX)
        return ERR_DISK_CORRUPT;
    uint8_t *encoded = malloc(octets->size);
    CHECK(encoded != NULL);
    buf_queue_copy_out(octets, 0, encoded, (uint32_t)octets->size);
    qmgr_envelope_keep(qmgr, work, span_of(encoded, (uint32_t)octets->size), false);
    free(encoded);
    enum err err = qmgr_envelope_decode(work, span_of(work->encoded, work->encoded_size), false);
    if (err == ERR_OK && (!message_id_is_equal(work->envelope.id, spool_entry_id(message->entry)) ||
                          work->envelope.recipient_count != message->recipient_count))
        err = ERR_DISK_CORRUPT;
    /* What waits for it decodes it again, with the states of that time. */
    qmgr_envelope_close(work);
    if (err != ERR_OK)
        qmgr_envelope_release(qmgr, work);
    return err;
}

static void deliveries_tell(struct qmgr *qmgr, struct qmgr_message *message,
                            enum qmgr_load_state state)
{
    for (struct qmgr_delivery *d = message->deliveries; d != NULL; d = qmgr_delivery_next(d)) {
        if (d->state == QMGR_ACTIVE && d->load == QMGR_LOAD_WAITED)
            loaded_append(qmgr, d, state);
    }
}

static void message_loaded(struct qmgr *qmgr, struct qmgr_message *message, struct tick_now now)
{
    qmgr->stats.unreadable -= message->is_unreadable;
    message->is_unreadable = false;
    if (message->is_unjudged && !qmgr_standing_judge(qmgr, message, true, now))
        return; /* it has ended */
    deliveries_tell(qmgr, message, QMGR_LOAD_LISTED);
    if (message->is_expiry_owed)
        qmgr_message_expire(qmgr, message, now);
    else if (message->is_body_lost)
        qmgr_damage_settle(qmgr, message, now);
    else
        qmgr_message_review(qmgr, message);
}

static void unreadable_set(struct qmgr *qmgr, struct qmgr_message *message, enum err err)
{
    char id[MESSAGE_ID_TEXT_SIZE];

    qmgr->stats.envelope_failures++;
    if (message->is_unreadable)
        return;
    message->is_unreadable = true;
    if (qmgr->stats.unreadable++ < UNREADABLE_LOGS_MAX)
        log_line(LOG_ERROR, "event=envelope_not_read id=%s reason=\"%s\" (it is tried again)",
                 message_id_format(qmgr_message_id(message), id), err_text(err));
}

/* Invariant 3. That there was no memory for it says nothing of the disk. */
static void message_load_failed(struct qmgr *qmgr, struct qmgr_message *message, enum err err,
                                struct tick_now now)
{
    tick_us again = now.tick + MEMORY_PAUSE;

    if (err != ERR_MEMORY) {
        unreadable_set(qmgr, message, err);
        again = now.tick + qmgr->options.retry_min;
    }
    deliveries_tell(qmgr, message, QMGR_LOAD_FAILED);
    if (message->is_expiry_owed)
        wheel_arm(&qmgr->wheel, &message->expiry, again);
    message->is_expiry_owed = false;
    qmgr_dsn_postpone(qmgr, message, again);
    qmgr_message_review(qmgr, message);
}

bool qmgr_owns_token(uint64_t token)
{
    return (token & QMGR_TOKEN_BIT) != 0;
}

void qmgr_on_read(struct qmgr *qmgr, struct spool_event *event, struct tick_now now)
{
    if (qmgr_piece_on_read(event))
        return;
    struct qmgr_load *load = (struct qmgr_load *)(uintptr_t)(event->token & ~QMGR_TOKEN_BIT);
    struct qmgr_message *message = load->message;
    enum err err = event->err;

    CHECK(event->kind == SPOOL_EVENT_READ);
    load_free(qmgr, load);
    if (message != NULL) {
        message->work->load = NULL;
        if (err == ERR_OK)
            err = message_take(qmgr, message, &event->octets);
        if (err == ERR_OK)
            message_loaded(qmgr, message, now);
        else
            message_load_failed(qmgr, message, err, now);
    }
    buf_queue_fini(&event->octets);
}

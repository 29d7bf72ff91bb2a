/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is owed to senders: a message with FAILED or RELAYED recipients, or a late one, gets one
 * delivery status notification, settled in the same commit.
 *
 *   qmgr_dsn_next() -> READING      the quoted header is no longer in memory
 *          |              |
 *          v              v
 *        COMMITTING   DSN's MESSAGE and the PROGRESS (or DONE) of the message it is about, one
 * batch |        \-> failed: qmgr_dsn_failed(), again later
 *          v
 *        qmgr_dsn_written(), the DSN is queued like any other mail
 *
 * Invariants
 *   1. A DSN's id derives from (message, run): after a crash between commit and queue it is the
 * same message, not a second one.
 *   2. Failures are settled only by the commit that makes their DSN durable.
 *   3. If the DSN is in the queue already (recovered), only the settling is written.
 *
 * Limits: TRANSFER_DSN_ACTIVE_MAX at a time, dsn_header_size_max octets quoted, or a message of
 * dsn_message_size_max. DSNs use the spool's reserve.
 */
#include "relay/transfer_internal.h"

#include <stdlib.h>

#include "base/log.h"
#include "relay/dsn.h"

#define TRANSFER_DSN_ARENA_BLOCK 16384u
#define TRANSFER_DSN_ARENA_MAX   (4u << 20)

static void transfer_dsn_free(struct transfer *transfer, struct transfer_dsn *dsn)
{
    CHECK(transfer->dsns_active > 0);
    transfer->dsns_active--;
    LIST_REMOVE(dsn, link);
    buf_queue_fini(&dsn->body);
    free(dsn->encoded);
    free(dsn);
}

static void transfer_dsn_fail(struct transfer *transfer, struct transfer_dsn *dsn)
{
    qmgr_dsn_failed(transfer->qmgr, dsn->message, transfer->now);
    transfer_dsn_free(transfer, dsn);
}

/* Invariant 3. */
static void transfer_dsn_settle_only(struct transfer *transfer, struct transfer_dsn *dsn,
                                     const struct qmgr_dsn *view)
{
    if (view->is_done)
        transfer_entry_end(transfer, view->entry);
    else
        spool_progress(transfer->options.spool, view->entry, view->progress);
    qmgr_dsn_written(transfer->qmgr, dsn->message, transfer->now);
    transfer_dsn_free(transfer, dsn);
}

static struct dsn_options transfer_dsn_options(const struct transfer *transfer)
{
    const struct settings *settings = transfer->settings;

    return (struct dsn_options){
        .hostname = settings->hostname,
        .postmaster = settings->postmaster,
        .header_size_max = settings->dsn_header_size_max,
        .message_size_max = settings->dsn_message_size_max,
        .now = transfer->now.wall,
        .lifetime = (wall_us)settings->message_lifetime,
    };
}

static enum err transfer_dsn_encode(struct transfer *transfer, struct transfer_dsn *dsn,
                                    const struct qmgr_dsn *view, struct span original,
                                    struct message_id id)
{
    struct dsn_options options = transfer_dsn_options(transfer);
    struct arena arena;
    struct envelope envelope;

    arena_init(&arena, TRANSFER_DSN_ARENA_BLOCK, TRANSFER_DSN_ARENA_MAX);
    enum err err = dsn_build(view, &options, original, transfer->options.plane->pool, &arena,
                             &dsn->body, &envelope);
    if (err == ERR_OK) {
        envelope.id = id;
        dsn->encoded = envelope_encode_new(&envelope, &dsn->encoded_size);
    }
    arena_fini(&arena);
    return err;
}

static void transfer_dsn_commit(struct transfer *transfer, struct transfer_dsn *dsn,
                                struct span original)
{
    struct qmgr_dsn view = qmgr_dsn_view(transfer->qmgr, dsn->message);
    struct message_id id = dsn_id(view.envelope->id, view.run);

    if (qmgr_find(transfer->qmgr, id) != NULL) {
        transfer_dsn_settle_only(transfer, dsn, &view);
        return;
    }
    if (transfer_dsn_encode(transfer, dsn, &view, original, id) != ERR_OK) {
        transfer_dsn_fail(transfer, dsn);
        return;
    }
    struct spool_transaction *transaction =
        spool_begin(transfer->options.spool, id, dsn->body.size, true);
    if (transaction == NULL) {
        transfer_dsn_fail(transfer, dsn);
        return;
    }
    struct buf_queue written;
    buf_queue_init(&written);
    buf_queue_append_queue(&written, &dsn->body);
    if (spool_write_body(transfer->options.spool, transaction, &written) != ERR_OK) {
        buf_queue_fini(&written);
        spool_abort(transfer->options.spool, transaction);
        transfer_dsn_fail(transfer, dsn);
        return;
    }
    dsn->state = TRANSFER_DSN_COMMITTING;
    dsn->ending = view.is_done && transfer_end_waits(transfer) ? view.entry : NULL;
    spool_commit_dsn(transfer->options.spool, transaction, span_of(dsn->encoded, dsn->encoded_size),
                     view.entry, view.progress, view.is_done && dsn->ending == NULL,
                     (uint64_t)(uintptr_t)dsn);
}

/* Quote `prefix`, and `size` octets of the stored body behind it. */
static void transfer_dsn_commit_quoting(struct transfer *transfer, struct transfer_dsn *dsn,
                                        struct span prefix, const struct buf_queue *octets,
                                        uint32_t size)
{
    uint8_t *original = malloc((uint64_t)prefix.size + size + 1);
    CHECK(original != NULL);
    if (prefix.size > 0)
        memcpy(original, prefix.data, prefix.size);
    if (size > 0)
        buf_queue_copy_out(octets, 0, original + prefix.size, size);
    transfer_dsn_commit(transfer, dsn, span_of(original, prefix.size + size));
    free(original);
}

/* The part of the envelope's prefix that is among the first `quoted` octets of the message. */
static struct span transfer_dsn_prefix(const struct qmgr_dsn *view, uint32_t quoted)
{
    struct span prefix = view->envelope->prefix;

    return quoted < prefix.size ? span_head(prefix, quoted) : prefix;
}

static void transfer_dsn_start(struct transfer *transfer, struct qmgr_message *message)
{
    struct qmgr_dsn view = qmgr_dsn_view(transfer->qmgr, message);
    struct transfer_dsn *dsn = calloc(1, sizeof(*dsn));
    CHECK(dsn != NULL);
    dsn->token.kind = TRANSFER_TOKEN_DSN;
    dsn->message = message;
    buf_queue_init(&dsn->body);
    transfer->dsns_active++;
    LIST_INSERT_HEAD(&transfer->dsns, dsn, link);

    struct dsn_options options = transfer_dsn_options(transfer);
    uint32_t quoted = dsn_original_size(&view, &options);
    struct span prefix = transfer_dsn_prefix(&view, quoted);
    uint32_t stored = quoted - prefix.size;
    if (stored == 0 || (view.body != NULL && !buf_queue_is_empty(view.body))) {
        transfer_dsn_commit_quoting(transfer, dsn, prefix, view.body, stored);
        return;
    }
    dsn->state = TRANSFER_DSN_READING;
    spool_read_body(transfer->options.spool, view.entry, 0, stored, (uint64_t)(uintptr_t)dsn);
}

static void transfer_dsn_on_read(struct transfer *transfer, struct transfer_dsn *dsn,
                                 struct spool_event *event)
{
    if (event->err == ERR_OK || event->err == ERR_DISK_CORRUPT) {
        /* An original that cannot be read is not quoted; the sender hears of the failure all the
         * same.
         */
        struct qmgr_dsn view = qmgr_dsn_view(transfer->qmgr, dsn->message);
        bool is_read = event->err == ERR_OK;
        struct span prefix = is_read ? view.envelope->prefix : (struct span){0};
        transfer_dsn_commit_quoting(transfer, dsn, prefix, &event->octets,
                                    is_read ? (uint32_t)event->octets.size : 0);
    } else {
        transfer_dsn_fail(transfer, dsn);
    }
    buf_queue_fini(&event->octets);
}

static void transfer_dsn_on_committed(struct transfer *transfer, struct transfer_dsn *dsn,
                                      const struct spool_event *event)
{
    if (event->err != ERR_OK) {
        transfer_dsn_fail(transfer, dsn);
        return;
    }
    qmgr_dsn_written(transfer->qmgr, dsn->message, transfer->now);
    if (dsn->ending != NULL)
        transfer_entry_end(transfer, dsn->ending);
    struct qmgr_insert insert = {
        .encoded = span_of(dsn->encoded, dsn->encoded_size),
        .is_new = true,
        .entry = event->entry,
        .body = &dsn->body,
    };
    enum err err = qmgr_insert(transfer->qmgr, &insert, transfer->now);
    if (err != ERR_OK)
        log_line(LOG_ERROR, "event=dsn_not_queued reason=\"%s\" (it stays in the spool)",
                 err_text(err));
    transfer_dsn_free(transfer, dsn);
}

void transfer_dsn_on_event(struct transfer *transfer, struct transfer_dsn *dsn,
                           struct spool_event *event)
{
    if (event->kind == SPOOL_EVENT_READ) {
        CHECK(dsn->state == TRANSFER_DSN_READING);
        transfer_dsn_on_read(transfer, dsn, event);
    } else {
        CHECK(dsn->state == TRANSFER_DSN_COMMITTING);
        transfer_dsn_on_committed(transfer, dsn, event);
    }
}

void transfer_dsns_run(struct transfer *transfer)
{
    while (!transfer->is_draining && !transfer->is_adopting && !transfer->is_waiting &&
           transfer->dsns_active < TRANSFER_DSN_ACTIVE_MAX) {
        struct qmgr_message *message = qmgr_dsn_next(transfer->qmgr, transfer->now);
        if (message == NULL)
            return;
        transfer_dsn_start(transfer, message);
    }
}

void transfer_dsns_free(struct transfer *transfer)
{
    while (!LIST_EMPTY(&transfer->dsns))
        transfer_dsn_free(transfer, LIST_FIRST(&transfer->dsns));
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deliveries on their way over another shard's connection.
 *
 * Owner:   READY --scarce site, slot elsewhere--> AWAY --RESULT--> qmgr_finish()
 * Holder:  BEGIN --> a guest job, READY like its own --> SENDING --> RESULT
 *
 * Invariants
 *   1. A job that is AWAY is touched by its owner again only at RESULT; exactly one RESULT answers
 * each BEGIN.
 *   2. A guest has no delivery in the holder's queue: its end is the RESULT, never qmgr_finish().
 *   3. The holder judges the site (site_outcome), the owner settles recipients and writes records.
 *
 * Limits: TRANSFER_AWAY_MAX deliveries of one site are away at a time, so that the owner's later
 * mail does not pile up elsewhere.
 */
#include "relay/transfer_internal.h"

#include <stdlib.h>

#define TRANSFER_GUEST_ARENA_BLOCK 16384u
#define TRANSFER_GUEST_ARENA_MAX   (4u << 20)

static void transfer_handover_send(struct transfer *transfer, uint32_t to, enum handover_kind kind,
                                   struct handover *handover)
{
    struct handover_message message = {.kind = kind, .handover = handover};
    transfer->options.send_handover(transfer->options.server, to, &message);
}

/* ---- owner ---- */

bool transfer_job_send_away(struct transfer *transfer, struct transfer_job *job,
                            struct transfer_member *member, const struct client_request *request)
{
    struct transfer_site *site = member->site;
    uint32_t holder = site_holder(site->site);

    if (job->guest != NULL || !site_is_scarce(site->site) || holder == transfer->options.shard ||
        site->away >= TRANSFER_AWAY_MAX)
        return false;
    if (handover_new(transfer->options.shard, job, request, site_get_view(site->site).label,
                     &job->away) != ERR_OK)
        return false;
    TAILQ_REMOVE(&job->place->ready, job, link);
    job->state = TRANSFER_JOB_AWAY;
    job->member = member;
    job->holder = holder;
    site->away++;
    transfer->handovers++;
    transfer->handed_over += request->body->size;
    transfer_handover_send(transfer, holder, HANDOVER_BEGIN, job->away);
    return true;
}

void transfer_job_recall(struct transfer *transfer, struct transfer_job *job)
{
    CHECK(job->state == TRANSFER_JOB_AWAY);
    transfer_handover_send(transfer, job->holder, HANDOVER_CANCEL, job->away);
}

static void transfer_on_handover_result(struct transfer *transfer, struct handover *handover)
{
    struct transfer_job *job = handover->owner_job;

    CHECK(job->state == TRANSFER_JOB_AWAY && job->away == handover);
    job->member->site->away--;
    job->away = NULL;
    transfer_job_settle(transfer, job, &handover->result);
    handover_free(handover);
}

/* ---- holder ---- */

static void transfer_guest_refuse(struct transfer *transfer, struct handover *handover)
{
    handover_set_result(handover, NULL);
    transfer_handover_send(transfer, handover->owner, HANDOVER_RESULT, handover);
}

void transfer_guest_free(struct transfer_guest *guest)
{
    arena_fini(&guest->arena);
    free(guest);
}

static struct transfer_guest *transfer_guest_new(struct handover *handover)
{
    struct transfer_guest *guest = calloc(1, sizeof(*guest));
    CHECK(guest != NULL);
    guest->handover = handover;
    arena_init(&guest->arena, TRANSFER_GUEST_ARENA_BLOCK, TRANSFER_GUEST_ARENA_MAX);
    if (envelope_decode(span_of(handover->encoded, handover->encoded_size), &guest->arena,
                        &guest->envelope) == ERR_OK)
        return guest;
    transfer_guest_free(guest);
    return NULL;
}

/* Where it will be sent from; NULL: nowhere. */
static struct transfer_place *transfer_guest_place(struct transfer *transfer,
                                                   const struct transfer_guest *guest)
{
    const struct handover *handover = guest->handover;
    struct span domain = guest->envelope.recipients[handover->recipients[0]].domain;
    struct settings_site_limits limits =
        settings_site_find(transfer->settings, domain, &handover->hosts);

    if (transfer->is_draining)
        return NULL;
    return transfer_place_get_guest(transfer, handover,
                                    settings_route_find(transfer->settings, domain), &limits);
}

static void transfer_on_handover_begin(struct transfer *transfer, struct handover *handover)
{
    struct transfer_guest *guest = transfer_guest_new(handover);
    struct transfer_place *place = guest == NULL ? NULL : transfer_guest_place(transfer, guest);
    struct buf_queue body;

    buf_queue_init(&body);
    if (place == NULL ||
        buf_queue_append_copy(&body, transfer->options.plane->pool,
                              span_of(handover->body, (uint32_t)handover->body_size)) != ERR_OK) {
        if (guest != NULL)
            transfer_guest_free(guest);
        if (place != NULL)
            transfer_place_review(transfer, place);
        transfer_guest_refuse(transfer, handover);
        return;
    }
    transfer->handed_over += handover->body_size;
    transfer_job_new_guest(transfer, place, guest, place->route, &body);
    transfer_place_wake(transfer, place);
}

void transfer_guest_end(struct transfer *transfer, struct transfer_guest *guest,
                        const struct client_result *result)
{
    handover_set_result(guest->handover, result);
    transfer_handover_send(transfer, guest->handover->owner, HANDOVER_RESULT, guest->handover);
    transfer_guest_free(guest);
}

static void transfer_on_handover_cancel(struct transfer *transfer, const struct handover *handover)
{
    struct transfer_job *job;
    TAILQ_FOREACH(job, &transfer->jobs, all)
    {
        if (job->guest != NULL && job->guest->handover == handover)
            job->guest->is_cancelled = true; /* the next scan acts on it; RESULT wins */
    }
}

void transfer_on_handover(struct transfer *transfer, const struct handover_message *message,
                          struct tick_now now)
{
    transfer->now = now;
    switch (message->kind) {
    case HANDOVER_BEGIN:
        transfer_on_handover_begin(transfer, message->handover);
        break;
    case HANDOVER_CANCEL:
        transfer_on_handover_cancel(transfer, message->handover);
        break;
    case HANDOVER_RESULT:
        transfer_on_handover_result(transfer, message->handover);
        break;
    case HANDOVER_SOURCE:
        transfer_source_on_piece(transfer, message);
        break;
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Routes that an operator chose: a delivery goes by another domain than that of its recipients.
 *
 * What is committed never changes, so the envelope in the spool names the recipients' own domain
 * for ever. The line that a delivery is in says by which domain it goes. Which recipients a
 * delivery has is told by their group (envelope_recipient_group()): those whose committed domain is
 * that of the delivery's first recipient. Every envelope that is decoded gets the domains of the
 * lines, and keeps the committed ones as `origin`.
 *
 * Two deliveries of a message may come to stand in one line; they stay two.
 *
 * Invariant: a delivery whose line is not that of its recipients' domain is_rerouted; every
 * PROGRESS that speaks of it names the domain, so that the last one tells enough.
 */
#include "queue/qmgr_state.h"

bool qmgr_delivery_has(const struct qmgr_delivery *delivery, const struct envelope *envelope,
                       const struct envelope_recipient *recipient)
{
    CHECK(delivery->first < envelope->recipient_count);
    return span_is_equal(envelope_recipient_group(&envelope->recipients[delivery->first]),
                         envelope_recipient_group(recipient));
}

static void recipient_route(struct envelope_recipient *recipient, struct span domain)
{
    if (recipient->origin.size == 0)
        recipient->origin = recipient->domain;
    recipient->domain = domain;
}

/* One copy of a domain serves all that go by it one after the other: deliveries may be rerouted
 * again and again while the envelope stays decoded. */
static struct span route_copy(struct arena *arena, struct span domain, struct span *last)
{
    if (!span_is_equal(*last, domain))
        *last = arena_copy(arena, domain);
    CHECK(last->size > 0); /* far below the arena's bound */
    return *last;
}

static void delivery_route_apply(const struct qmgr_delivery *delivery, struct envelope *envelope,
                                 struct span domain)
{
    uint32_t left = delivery->due_count;

    for (uint32_t i = delivery->first; left > 0; i++) {
        CHECK(i < envelope->recipient_count);
        struct envelope_recipient *recipient = &envelope->recipients[i];
        if (recipient->state != RECIPIENT_DUE || !qmgr_delivery_has(delivery, envelope, recipient))
            continue;
        recipient_route(recipient, domain);
        left--;
    }
}

void qmgr_routes_apply(const struct qmgr_message *message, struct envelope *envelope,
                       struct arena *arena)
{
    struct span last = {0};

    for (struct qmgr_delivery *d = message->deliveries; d != NULL; d = qmgr_delivery_next(d)) {
        if (d->is_rerouted)
            delivery_route_apply(d, envelope, route_copy(arena, qmgr_line_domain(d->line), &last));
    }
}

void qmgr_delivery_set_rerouted(struct qmgr *qmgr, struct qmgr_delivery *delivery)
{
    qmgr->rerouted += !delivery->is_rerouted;
    delivery->is_rerouted = true;
}

void qmgr_route_recover(struct qmgr_work *work, uint32_t first, struct span domain)
{
    struct envelope *envelope = &work->envelope;
    struct span group = envelope_recipient_group(&envelope->recipients[first]);
    struct span copy = route_copy(&work->arena, domain, &work->route);

    for (uint32_t i = 0; i < envelope->recipient_count; i++) {
        if (span_is_equal(envelope_recipient_group(&envelope->recipients[i]), group))
            recipient_route(&envelope->recipients[i], copy);
    }
}

void qmgr_delivery_reroute(struct qmgr *qmgr, struct qmgr_delivery *delivery, struct span domain)
{
    struct qmgr_line *before = delivery->line;
    struct qmgr_message *message = delivery->message;

    CHECK(delivery->state != QMGR_READY && delivery->state != QMGR_ACTIVE);
    struct qmgr_line *line = qmgr_line_get_beside(qmgr, before, domain);
    qmgr_scans_skip_delivery(qmgr, delivery);
    if (before->newest == delivery)
        before->newest = NULL;
    qmgr_line_leave(delivery);
    delivery->line = line;
    qmgr_delivery_set_rerouted(qmgr, delivery);
    qmgr_line_join(delivery);
    qmgr_line_review(qmgr, before);
    struct qmgr_work *work = message->work;
    if (work != NULL && work->is_decoded)
        delivery_route_apply(delivery, &work->envelope,
                             route_copy(&work->arena, qmgr_line_domain(line), &work->route));
}

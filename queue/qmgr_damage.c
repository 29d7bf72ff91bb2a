/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A message of which the disk has lost something.
 *
 *   progress         nothing to do: it costs another attempt, if there is a restart before the end
 *   what memory has  is written anew (spool_repair())
 *   the body         the message ends as if an operator had bounced it: its sender hears of it, and
 *                    what is under way may still succeed. Its envelope is read first when it is not
 *                    here.
 *   the envelope     when it is not in memory, the message is unreadable: it is tried again, as
 *                    qmgr_envelope.c has it, until its envelope is read or it is deleted
 *
 * Not here: how damage is found (spool_scrub.c). An attempt that finds it first fails the delivery
 * by itself.
 */
#include <stdlib.h>

#include "base/log.h"
#include "queue/qmgr_state.h"

/* Written is the domain that was committed, not the one that an operator chose: by it deliveries
 * know their recipients. */
static struct envelope_recipient *recipients_committed(const struct envelope *envelope)
{
    uint64_t size = envelope->recipient_count * sizeof(*envelope->recipients);
    struct envelope_recipient *recipients = malloc(size);

    CHECK(recipients != NULL);
    memcpy(recipients, envelope->recipients, size);
    for (uint32_t i = 0; i < envelope->recipient_count; i++)
        recipients[i].domain = envelope_recipient_group(&recipients[i]);
    return recipients;
}

static void message_mend(struct qmgr *qmgr, struct qmgr_message *message,
                         const struct envelope *envelope)
{
    struct envelope committed = *envelope;

    committed.recipients = recipients_committed(envelope);
    uint32_t size = envelope_encoded_size(&committed);
    uint8_t *encoded = malloc(size);
    CHECK(encoded != NULL);
    envelope_encode(&committed, encoded);
    spool_repair(qmgr->spool, message->entry, span_of(encoded, size), &message->work->body);
    free(encoded);
    free(committed.recipients);
}

static void message_give_up(struct qmgr *qmgr, struct qmgr_message *message,
                            const struct envelope *envelope, struct tick_now now)
{
    static const struct qmgr_order order = {
        .verb = QMGR_VERB_BOUNCE,
        .id = QMGR_ORDER_DAMAGE,
        .reason = "the stored message failed its checksum",
    };
    struct qmgr_match *matches = calloc(envelope->recipient_count, sizeof(*matches));
    struct qmgr_acted acted = {0};
    uint32_t count = 0;

    CHECK(matches != NULL);
    for (uint32_t i = 0; i < envelope->recipient_count; i++) {
        const struct envelope_recipient *recipient = &envelope->recipients[i];
        if (recipient->state != RECIPIENT_DUE)
            continue;
        const struct qmgr_delivery *delivery = qmgr_message_delivery(message, envelope, recipient);
        matches[count++] = (struct qmgr_match){
            .message = message,
            .delivery = (struct qmgr_delivery *)(uintptr_t)delivery,
            .recipient_index = i,
        };
    }
    qmgr_act(qmgr, matches, count, &order, &acted, now);
    free(matches);
}

void qmgr_damage_settle(struct qmgr *qmgr, struct qmgr_message *message, struct tick_now now)
{
    struct message_id id = qmgr_message_id(message);
    char text[MESSAGE_ID_TEXT_SIZE];

    message->is_body_lost = false;
    if (!buf_queue_is_empty(&message->work->body)) {
        message_mend(qmgr, message, qmgr_message_open(qmgr, message));
        qmgr_message_review(qmgr, message);
        return;
    }
    log_line(LOG_ERROR, "event=damaged_message_ended message=%s", message_id_format(id, text));
    message->work->pins++; /* until all its deliveries have ended */
    message_give_up(qmgr, message, qmgr_message_open(qmgr, message), now);
    if (qmgr_find(qmgr, id) == NULL)
        return;
    message->work->pins--;
    qmgr_message_review(qmgr, message);
}

bool qmgr_damaged(struct qmgr *qmgr, struct message_id id, uint8_t damage, struct tick_now now)
{
    struct qmgr_message *message = qmgr_find(qmgr, id);

    if (message == NULL || damage == SPOOL_DAMAGE_PROGRESS)
        return true;
    if (!qmgr_envelope_is_here(message)) {
        message->is_body_lost = (damage & SPOOL_DAMAGE_BODY) != 0;
        qmgr_envelope_want(qmgr, message);
        return true;
    }
    if (damage & SPOOL_DAMAGE_BODY && buf_queue_is_empty(&message->work->body)) {
        qmgr_damage_settle(qmgr, message, now);
        return false;
    }
    message_mend(qmgr, message, qmgr_message_open(qmgr, message));
    qmgr_message_review(qmgr, message);
    return true;
}

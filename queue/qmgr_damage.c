/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A message of which the disk has lost something.
 *
 *   progress         nothing to do: it costs another attempt, if there is a restart before the end
 *   what memory has  is written anew (spool_repair())
 *   anything else    the message ends as if an operator had bounced it: its sender hears of it, and
 *                    what is under way may still succeed
 *
 * Not here: how damage is found (spool_scrub.c). An attempt that finds it first fails the delivery
 * by itself.
 */
#include <stdlib.h>

#include "queue/qmgr_state.h"

static void message_mend(struct qmgr *qmgr, struct qmgr_message *message,
                         const struct envelope *envelope)
{
    uint32_t size = envelope_encoded_size(envelope);
    uint8_t *encoded = malloc(size);
    CHECK(encoded != NULL);
    envelope_encode(envelope, encoded);
    spool_repair(qmgr->spool, message->entry, span_of(encoded, size), &message->work->body);
    free(encoded);
}

static void message_give_up(struct qmgr *qmgr, struct qmgr_message *message,
                            const struct envelope *envelope, struct tick_now now)
{
    static const struct qmgr_order order = {
        .verb = QMGR_VERB_BOUNCE,
        .id = QMGR_ORDER_ID_MAX,
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
        const struct qmgr_delivery *delivery = qmgr_message_delivery(message, recipient->domain);
        matches[count++] = (struct qmgr_match){
            .message = message,
            .delivery = (struct qmgr_delivery *)(uintptr_t)delivery,
            .recipient_index = i,
        };
    }
    qmgr_act(qmgr, matches, count, &order, &acted, now);
    free(matches);
}

bool qmgr_damaged(struct qmgr *qmgr, struct message_id id, uint8_t damage, struct tick_now now)
{
    struct qmgr_message *message = qmgr_find(qmgr, id);

    if (message == NULL || damage == SPOOL_DAMAGE_PROGRESS)
        return true;
    const struct envelope *envelope = qmgr_message_open(qmgr, message);
    bool is_whole = !(damage & SPOOL_DAMAGE_BODY) || !buf_queue_is_empty(&message->work->body);
    if (is_whole) {
        message_mend(qmgr, message, envelope);
        qmgr_message_review(qmgr, message);
    } else {
        message_give_up(qmgr, message, envelope, now);
    }
    return is_whole;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flat copies of a delivery and of its result, for the way to another shard and back (who does what
 * with them: transfer_guest.c).
 *
 * Invariants
 *   1. Whatever is reachable from a struct handover was allocated here and is freed here, by
 * whichever shard has it then.
 *   2. results has result.recipient_count rows once a result is set; their replies are in `text`.
 *
 * Limits: HANDOVER_BODY_MAX octets of body, an envelope of ENVELOPE_SIZE_MAX: where an operator
 * chose another domain for thousands of recipients, they are told with it, and it may be more than
 * what was committed. What is above a limit waits for a slot of its own shard.
 */
#include "relay/handover.h"

#include <stdio.h>
#include <stdlib.h>

#define HANDOVER_BODY_MAX (8u << 20)

static void *handover_copy(const void *source, uint64_t size)
{
    void *copy = malloc(size > 0 ? size : 1);
    CHECK(copy != NULL);
    if (size > 0)
        memcpy(copy, source, size);
    return copy;
}

enum err handover_new(uint32_t owner, void *owner_job, const struct client_request *request,
                      struct span label, struct handover **ret_handover)
{
    if (request->body->size > HANDOVER_BODY_MAX || !envelope_is_valid(request->envelope))
        return ERR_LIMIT;
    struct handover *handover = calloc(1, sizeof(*handover));
    CHECK(handover != NULL);
    handover->owner = owner;
    handover->owner_job = owner_job;
    handover->site = request->site;
    handover->hosts = *request->hosts;
    handover->recipient_count = request->recipient_count;
    handover->recipients = handover_copy(request->recipients,
                                         request->recipient_count * sizeof(request->recipients[0]));
    (void)snprintf(handover->source, sizeof(handover->source), "%s", request->source->name);
    memcpy(handover->label, label.data,
           label.size < MX_NAME_MAX - 1 ? label.size : MX_NAME_MAX - 1);

    handover->encoded = envelope_encode_new(request->envelope, &handover->encoded_size);

    handover->body_size = request->body->size;
    handover->body = malloc(handover->body_size > 0 ? handover->body_size : 1);
    CHECK(handover->body != NULL);
    if (handover->body_size > 0)
        buf_queue_copy_out(request->body, 0, handover->body, (uint32_t)handover->body_size);
    *ret_handover = handover;
    return ERR_OK;
}

static void handover_copy_replies(struct handover *handover)
{
    uint32_t count = handover->result.recipient_count;
    uint64_t size = 0;
    for (uint32_t i = 0; i < count; i++)
        size += handover->results[i].reply.size;
    handover->text = malloc(size > 0 ? size : 1);
    CHECK(handover->text != NULL);
    char *end = handover->text;
    for (uint32_t i = 0; i < count; i++) {
        struct span reply = handover->results[i].reply;
        if (reply.size > 0)
            memcpy(end, reply.data, reply.size);
        handover->results[i].reply = span_of(end, reply.size);
        end += reply.size;
    }
}

void handover_set_result(struct handover *handover, const struct client_result *result)
{
    CHECK(handover->results == NULL);
    if (result == NULL) {
        handover->results = calloc(handover->recipient_count, sizeof(handover->results[0]));
        CHECK(handover->results != NULL);
        handover->result.recipient_count = handover->recipient_count;
    } else {
        /* Fewer when the holder's configuration allows less to a transaction than the owner's. */
        CHECK(result->recipient_count <= handover->recipient_count);
        handover->result = *result;
        handover->results = handover_copy(result->recipients,
                                          result->recipient_count * sizeof(result->recipients[0]));
    }
    handover_copy_replies(handover);
    handover->result.recipients = handover->results;
}

void handover_free(struct handover *handover)
{
    free(handover->recipients);
    free(handover->encoded);
    free(handover->body);
    free(handover->results);
    free(handover->text);
    free(handover);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who the mail is from: the messages of one sender domain, counted by age and linked, so that the
 * operators' view of a sender costs what it prints.
 *
 * A group exists while it has messages. Its name is the sender's domain in lower case; the null
 * sender has the empty name.
 */
#include <stdlib.h>

#include "queue/qmgr_state.h"

static struct span name_of(struct span domain, uint8_t name[ENVELOPE_ADDRESS_SIZE_MAX])
{
    CHECK(domain.size <= ENVELOPE_ADDRESS_SIZE_MAX);
    span_to_lower(domain, name);
    return span_of(name, domain.size);
}

static uint32_t sender_hash(const struct qmgr *qmgr, struct span name)
{
    uint64_t hash = keyed_hash_octets(&qmgr->hash, name);
    return (uint32_t)(hash >> 32 ^ hash);
}

struct span qmgr_sender_name(const struct qmgr_sender *sender)
{
    return span_of(sender->name, sender->name_size);
}

struct qmgr_sender *qmgr_sender_find(const struct qmgr *qmgr, struct span name)
{
    struct qmgr_sender *sender = qmgr->sender_buckets[sender_hash(qmgr, name) & qmgr->line_mask];

    while (sender != NULL && !span_is_equal(qmgr_sender_name(sender), name))
        sender = sender->hash_next;
    return sender;
}

static struct qmgr_sender *sender_new(struct qmgr *qmgr, struct span name)
{
    struct qmgr_sender *sender = slab_acquire(&qmgr->senders);
    struct qmgr_sender **bucket = &qmgr->sender_buckets[sender_hash(qmgr, name) & qmgr->line_mask];

    CHECK(sender != NULL);
    sender->name = malloc(name.size + 1);
    CHECK(sender->name != NULL);
    memcpy(sender->name, name.data, name.size);
    sender->name_size = (uint16_t)name.size;
    sender->hash_next = *bucket;
    *bucket = sender;
    return sender;
}

static void sender_free(struct qmgr *qmgr, struct qmgr_sender *sender)
{
    uint32_t hash = sender_hash(qmgr, qmgr_sender_name(sender));

    if (qmgr->sender_latest == sender)
        qmgr->sender_latest = NULL;
    struct qmgr_sender **link = &qmgr->sender_buckets[hash & qmgr->line_mask];

    while (*link != sender)
        link = &(*link)->hash_next;
    *link = sender->hash_next;
    free(sender->name);
    qmgr_ages_fini(&sender->ages);
    slab_release(&qmgr->senders, sender);
}

void qmgr_sender_join(struct qmgr *qmgr, struct qmgr_message *message, struct span domain)
{
    uint8_t octets[ENVELOPE_ADDRESS_SIZE_MAX] UNINITIALIZED;
    struct qmgr_sender *sender = qmgr->sender_latest;

    if (sender == NULL || !span_is_equal(qmgr_sender_name(sender), domain)) {
        struct span name = name_of(domain, octets);
        sender = qmgr_sender_find(qmgr, name);
        if (sender == NULL)
            sender = sender_new(qmgr, name);
        qmgr->sender_latest = sender;
    }
    message->sender = sender;
    message->sender_prev = slab_ref(sender->last);
    if (sender->last != NULL)
        sender->last->sender_next = slab_ref(message);
    else
        sender->first = message;
    sender->last = message;
    sender->message_count++;
    qmgr_ages_add(&sender->ages, message->arrived);
}

void qmgr_sender_leave(struct qmgr *qmgr, struct qmgr_message *message)
{
    struct qmgr_sender *sender = message->sender;

    struct qmgr_message *next = qmgr_sender_next(message);
    struct qmgr_message *prev = slab_peer(message, message->sender_prev);
    if (prev != NULL)
        prev->sender_next = message->sender_next;
    else
        sender->first = next;
    if (next != NULL)
        next->sender_prev = message->sender_prev;
    else
        sender->last = prev;
    qmgr_ages_remove(&sender->ages, message->arrived);
    if (--sender->message_count == 0)
        sender_free(qmgr, sender);
}

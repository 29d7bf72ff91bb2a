/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_HANDOVER_H
#define RELAY_HANDOVER_H

#include "relay/client.h"
#include "relay/source.h"

/*
 * A delivery that goes over another shard's connection, because its site has fewer slots than there
 * are shards with mail for it.
 *
 * The same road takes what shards tell each other of their sources (SOURCE), in pieces that come
 * in a row: nothing of it is lost, or owed, when the process ends.
 *
 * Two messages each way: BEGIN and CANCEL from the owner, exactly one RESULT from the holder. What
 * they carry is a pointer; the memory changes hands with it: the holder's from BEGIN to RESULT, the
 * owner's before and after. Nothing in it refers to buffers, arenas or snapshots of the other
 * shard: envelope and body are flat copies (such deliveries are rare by definition, and a copy is
 * what keeps pools unshared).
 */
#define HANDOVER_PIECE 48u
_Static_assert(sizeof(struct source_news) % HANDOVER_PIECE == 0, "travels in whole pieces");

enum handover_kind { HANDOVER_BEGIN, HANDOVER_CANCEL, HANDOVER_RESULT, HANDOVER_SOURCE };

struct handover_message {
    enum handover_kind kind;
    uint32_t from, offset; /* SOURCE: the shard, and where in its struct source_news this is */
    union {
        struct handover *handover;
        uint8_t piece[HANDOVER_PIECE];
    };
};
_Static_assert(sizeof(struct handover_message) <= 64, "fits the payload of a ring message");

struct handover {
    /* written by the owner before BEGIN */
    uint32_t owner;
    void *owner_job; /* the owner's, untouched by the holder */
    uint64_t site;
    char label[MX_NAME_MAX]; /* of the site, for people */
    char source[SETTINGS_SOURCE_NAME_MAX + 1];
    struct mx_answer hosts;
    uint8_t *encoded; /* envelope */
    uint32_t encoded_size;
    uint32_t *recipients; /* indexes */
    uint32_t recipient_count;
    uint8_t *body;
    uint64_t body_size;
    /* written by the holder before RESULT */
    struct client_result result;
    struct client_recipient_result *results; /* replies point into `text` */
    char *text;
};

/** Flat copies of a request. Heap. Errors: ERR_LIMIT when the body exceeds what a copy may cost:
 * keep it. */
enum err handover_new(uint32_t owner, void *owner_job, const struct client_request *request,
                      struct span label, struct handover **ret_handover) MUST_CHECK;
/** Copy a result in, replies included; NULL: not attempted, every recipient stays due. */
void handover_set_result(struct handover *handover, const struct client_result *result);
void handover_free(struct handover *handover);

#endif

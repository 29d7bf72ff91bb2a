/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_SHARD_CAT_H
#define CONTROL_SHARD_CAT_H

#include "control/shard.h"

/*
 * One message as it is stored, over as many looks as it takes: first its envelope, some recipients
 * at a time, then its octets. The asker sees what each look has found, and asks again until the
 * query's cursor is at its end.
 */
#define SHARD_CAT_ROWS_MAX   32u
#define SHARD_CAT_OCTETS_MAX 196608u /* records of the spool are of a similar size */

struct shard_cat_row { /* a recipient */
    char address[ENVELOPE_ADDRESS_SIZE_MAX + 1], orcpt[ENVELOPE_ORCPT_SIZE_MAX + 1];
    char domain[ENVELOPE_DOMAIN_SIZE_MAX + 1], site[64]; /* where it goes; site: "" when unknown */
    uint32_t attempts;
    uint8_t state;  /* enum recipient_state */
    uint8_t notify; /* enum envelope_notify */
    bool is_active, is_ready, is_held;
};

struct shard_cat {
    /* what is asked for */
    bool has_envelope; /* else no rows */
    bool has_header, has_body;
    /* of the message: once `is_found` */
    bool is_found;
    wall_us arrived, expires;
    uint64_t size; /* octets in all */
    uint32_t header_size, flags, recipient_count;
    uint8_t class;
    char class_name[QMGR_CLASS_NAME_SIZE];
    char sender[ENVELOPE_ADDRESS_SIZE_MAX + 1], client[ENVELOPE_CLIENT_SIZE_MAX + 1];
    char source[ENVELOPE_POOL_SIZE_MAX + 1], envid[ENVELOPE_ENVID_SIZE_MAX + 1];
    /* of this look */
    struct shard_cat_row rows[SHARD_CAT_ROWS_MAX];
    uint32_t row_count;
    uint8_t octets[SHARD_CAT_OCTETS_MAX];
    uint32_t octet_count;
    const char *why; /* the query's err: for people, static */
    bool is_told;    /* the asker's: the message was passed on */
    /* the shard's */
    bool is_at_octets, is_reading;
    uint32_t rows_told;
    uint64_t offset, end; /* of the raw message */
    uint32_t piece, piece_size;
    uint32_t prefix_size;
    uint8_t prefix[ENVELOPE_PREFIX_SIZE_MAX];
};
_Static_assert(SHARD_CAT_OCTETS_MAX <= QMGR_PIECE_SIZE_MAX &&
                   ENVELOPE_PREFIX_SIZE_MAX <= SHARD_CAT_OCTETS_MAX,
               "a piece fits");

/** One look, on the shard's thread. The query's `err` ends it: `why` says what is wrong. */
void shard_query_cat(struct qmgr *queue, struct shard_query *query, struct tick_now now);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_DSN_H
#define RELAY_DSN_H

#include "queue/qmgr.h"

/* The id of DSN number `run` for a message: derived (SHA-256 is not needed, only uniqueness and
 * repeatability), so that a crash cannot double it. */
struct message_id dsn_id(struct message_id about, uint32_t run);

struct dsn_options {
    const char *hostname, *postmaster; /* the latter may be NULL */
    uint32_t header_size_max, message_size_max;
    wall_us now, lifetime;
};

/** How much of the original dsn_build() wants, from its beginning: its header, cut, or all of it.
 */
uint32_t dsn_original_size(const struct qmgr_dsn *dsn, const struct dsn_options *options);

/**
 * Build a delivery status notification: null sender, Auto-Submitted, multipart/report with text for
 * people, message/delivery-status per recipient, and the original: its header, cut at
 * header_size_max, or whole (RET=FULL).
 *
 * Spec:       RFC 3461, RFC 3464, RFC 6522, RFC 3834, RFC 6533 (UTF-8 addresses in
 *             message/global-delivery-status).
 * Ownership:  `original` (dsn_original_size() octets, or none when it cannot be read) is borrowed;
 *             octets are appended to `body`; `ret_envelope`'s spans come from `arena`.
 * Errors:     ERR_MEMORY: nothing usable was made.
 */
enum err dsn_build(const struct qmgr_dsn *dsn, const struct dsn_options *options,
                   struct span original, struct buf_pool *pool, struct arena *arena,
                   struct buf_queue *body, struct envelope *ret_envelope) MUST_CHECK;

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_DSN_H
#define RELAY_DSN_H

#include "queue/qmgr.h"

/* The id of DSN number `run` for a message: derived (SHA-256 is not needed, only uniqueness and
 * repeatability), so that a crash cannot double it. */
struct message_id dsn_id(struct message_id about, uint32_t run);

/**
 * Build a delivery status notification: null sender, Auto-Submitted, multipart/report with text for
 * people, message/delivery-status per failed recipient, and the original header only (cut at
 * header_size_max).
 *
 * Spec:       RFC 3464, RFC 6522, RFC 3834, RFC 6533 (UTF-8 addresses in
 * message/global-delivery-status). Ownership:  `header` (the original's, up to and with the empty
 * line) is borrowed; octets are appended to `body`; `ret_envelope`'s spans come from `arena`.
 * Errors:     ERR_MEMORY: nothing usable was made.
 */
enum err dsn_build(const struct qmgr_dsn *dsn, const char *hostname, const char *postmaster,
                   struct span header, uint32_t header_size_max, struct tick_now now,
                   wall_us lifetime, struct buf_pool *pool, struct arena *arena,
                   struct buf_queue *body, struct envelope *ret_envelope) MUST_CHECK;

#endif

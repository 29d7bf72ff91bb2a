/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_QUEUE_H
#define CONTROL_ADMIN_QUEUE_H

#include "control/json_text.h"
#include "control/shard.h"

/*
 * Verbs of the control socket about the queue: what a request asks of the shards, and what their
 * rows look like as JSON.
 */
#define ADMIN_QUEUE_WHY_SIZE 256u

enum admin_queue_kind { ADMIN_QUEUE_NONE, ADMIN_QUEUE_READY, ADMIN_QUEUE_REFUSED };

/** Is `verb` one of them? READY: the query may be sent, admin_queue_end() frees its memory.
 * REFUSED: why, for people. */
enum admin_queue_kind admin_queue_prepare(const char *verb, const json_t *request,
                                          struct shard_query *query,
                                          char ret_why[ADMIN_QUEUE_WHY_SIZE]);
/** A summary by site. False: no memory. */
bool admin_queue_prepare_sites(struct shard_query *query);
void admin_queue_end(struct shard_query *query);
/** Does it walk over the queue, so that short questions go first? */
bool admin_queue_is_walk(const char *verb);
/** One recipient of a message. */
void admin_queue_row(struct json_text *out, const struct shard_queue_row *row);
/** Text of a peer: as it is where it is UTF-8, escaped where it is not. New reference. */
json_t *admin_queue_text(const char *text, uint32_t size);
/** What a recipient's state is called; of one that is DUE the last three. */
const char *admin_queue_state(uint8_t state, bool is_held, bool is_active, bool is_ready);
/** What groups of a summary are called. */
const char *admin_queue_by_name(enum qmgr_group_by by);

/** Its filter, made. False: refused, and why. */
bool admin_queue_filter(const json_t *request, struct shard_query *query,
                        char ret_why[ADMIN_QUEUE_WHY_SIZE]);

#endif

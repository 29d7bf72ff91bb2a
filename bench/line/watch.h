/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_LINE_WATCH_H
#define BENCH_LINE_WATCH_H

#include "control/shard.h"

/*
 * Somebody looks on: `angarium top`, a page of the dashboard with a site opened, and Prometheus,
 * all at once and at the pace that they have. They ask the control socket, which control's own code
 * answers, on the bench's thread, in turn with the shards.
 */
struct watch;

/** Heap. Control is member `shard_count` of the group. `sites`: how many domains w0.test, w1.test,
 * ... have mail that waits. */
struct watch *watch_new(struct ring_group *group, uint32_t shard_count, uint32_t sites,
                        tick_us now);
/** Ask what is due, take what was answered. */
void watch_turn(struct watch *watch, tick_us now);
/** A shard has answered. */
void watch_on_message(struct watch *watch, const struct ring_message *message, tick_us now);
/** By when watch_turn() is needed: soon while an answer is awaited. */
tick_us watch_deadline(const struct watch *watch, tick_us now);
/** Questions answered so far. */
uint64_t watch_answers(const struct watch *watch);
void watch_free(struct watch *watch);

/** What the thread of a connection over HTTP does with an answer (control/http.c), a page of
 * metrics or JSON, but for the socket. */
void watch_http(const char *answer, size_t size, bool is_page);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_CREW_H
#define QUEUE_CREW_H

#include "base/err.h"

/*
 * Independent pieces of work done by a few threads that exist only meanwhile. For helpers: a shard
 * never waits for one.
 */
#define CREW_SIZE_MAX 16u

/**
 * Call work(context, worker, i) once for every i below `count`, each from one of `size` threads,
 * the calling one among them; `worker` is below `size` and nobody else's at the time. Everything
 * written is seen by the caller afterwards.
 *
 * Bounds:     `size` 1 to CREW_SIZE_MAX; with 1 nothing is started, and i comes in order.
 */
void crew_run(uint32_t size, uint32_t count,
              void (*work)(void *context, uint32_t worker, uint32_t index), void *context);

#endif

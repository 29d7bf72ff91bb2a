/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_WEBHOOK_POST_H
#define CONTROL_WEBHOOK_POST_H

#include <stdatomic.h>

#include "control/config.h"

/* One POST after the other to one receiver, on a connection that is kept. Its thread alone. */
struct webhook_post;

struct webhook_answer {
    uint32_t status; /* HTTP; 0: there was none */
    tick_us asked;   /* Retry-After; 0: none */
    char why[128];   /* for the log */
};

/** Of the process: before the first, behind the last. */
bool webhook_posts_begin(void);
void webhook_posts_end(void);
/** `must_stop` ends a post that is under way. Ownership: both are borrowed. */
struct webhook_post *webhook_post_new(const struct config_webhook *webhook,
                                      const atomic_bool *must_stop);
void webhook_post_free(struct webhook_post *post);
/** Blocks, for webhook->timeout at most. */
struct webhook_answer webhook_post_run(struct webhook_post *post, struct span body, uint32_t count,
                                       uint32_t attempt);

#endif

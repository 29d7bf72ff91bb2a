/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_PAUSED_H
#define CONTROL_ADMIN_PAUSED_H

#include <jansson.h>

#include "control/shard.h"

/*
 * Which sites pause, of those whose mail was just made due: who says `retry` hears why it does not
 * go at once, and what ends that.
 */
#define ADMIN_PAUSED_MAX 16u
struct admin_paused {
    struct qmgr_retried retried; /* which are asked for */
    uint32_t count;
    bool has_more; /* than are in rows */
    struct admin_paused_row {
        uint64_t key;
        tick_us left;
        uint32_t failures;
        bool is_suspended;
        char site[SITE_LABEL_MAX + 1], source[SITE_SOURCE_MAX + 1];
    } rows[ADMIN_PAUSED_MAX];
};

/** A look at a shard's sites, some thousand at a time; `*cursor` is 0 at first and UINT64_MAX at
 * the end. */
void admin_paused_look(struct admin_paused *paused, struct site_set *sites, uint64_t *cursor,
                       tick_us now);
/** Into the answer, as `paused`, if there are any. */
void admin_paused_finish(json_t *answer, const struct admin_paused *paused);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_NOTIFY_H
#define CONTROL_NOTIFY_H

#include "control/shard.h"

/*
 * What the service manager is told, by sd_notify(3): ready, reloading, stopping, a line of status,
 * and that every shard still turns (the watchdog). Without $NOTIFY_SOCKET nothing is told and no
 * shard is asked. Control thread only.
 */
#define NOTIFY_INTERVAL_MAX TICK_S(5) /* between two looks at the shards */

struct notify;

struct notify_options {
    uint32_t shard_count;
    void *context;
    /* Send to a shard; notify_on_reply() follows. */
    void (*query)(void *context, uint32_t shard, struct shard_query *query);
};

/** Errors: ERR_MEMORY. */
enum err notify_new(const struct notify_options *options, struct notify **ret_notify) MUST_CHECK;
/** The threads of all shards have ended: they may hold a query of ours until then. */
void notify_free(struct notify *notify);

/** Every listener listens. */
void notify_ready(struct notify *notify, tick_us now);
void notify_reloading(struct notify *notify, tick_us now);
/** The new settings are on their way to all shards, or could not be: the status says so for as long
 * as the last reload failed. That it is over is told when all shards have them. */
void notify_reloaded(struct notify *notify, bool is_ok);
/** From now on shards are not asked any more, and the end comes within `bound`. */
void notify_stopping(struct notify *notify, tick_us bound, tick_us now);

/** Process `pid` is the relay from now on: nothing more is told, and it is not us that the manager
 * watches. */
void notify_moved(struct notify *notify, uint64_t pid);
/** The manager's way to reach us, for that process: its socket, "" when there is none, and in us
 * the watchdog's time. */
const char *notify_way(const struct notify *notify, tick_us *ret_watchdog);

/** Shards are taking over mail of earlier runs, or have done so: the status says it. */
void notify_adopting(struct notify *notify, bool is_adopting);

/** Ask, feed or complain when it is time. */
void notify_run(struct notify *notify, tick_us now);
tick_us notify_deadline(const struct notify *notify);
/** Is this reply ours? */
bool notify_owns(const struct notify *notify, const struct shard_query *query);
void notify_on_reply(struct notify *notify, struct shard_query *query);

#endif

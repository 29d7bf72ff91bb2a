/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The service manager's view of the relay.
 *
 * A round asks every shard for its status, all at once. A shard answers in its turn, so a complete
 * round proves that every turn moves, and that this thread does: then, and only then, the watchdog
 * is fed. A shard that is stuck never answers; the round stays open, nothing is fed, and the
 * manager kills and restarts the relay. What was acknowledged is on disk.
 *
 *   SILENT   -> IDLE      notify_ready()       no $NOTIFY_SOCKET: stays SILENT
 *   IDLE     -> ASKING    round_begin()        every interval
 *   ASKING   -> IDLE      notify_on_reply()    of the last shard; feeds
 *   any      -> SILENT    notify_moved()       another process is the relay now
 *   any      -> STOPPING  notify_stopping()    fed by time alone: the drain has a bound of its own
 *
 * A reload is over when every shard has the new settings: all are asked behind these.
 *
 * Invariants
 *   1. Outside STOPPING the watchdog is fed by a complete round only.
 *   2. The query of a shard that has not replied is not touched.
 *
 * The interval is a quarter of the watchdog's time, so that three late rounds do no harm.
 */
#include "control/notify.h"

#include <inttypes.h>
#include <stdlib.h>
#include <systemd/sd-daemon.h>

#include "base/log.h"

#define ROUNDS_PER_WATCHDOG 4u
#define STOP_SPARE_TIME     TICK_S(5) /* behind the drain: records, files, threads */

enum notify_state { NOTIFY_SILENT, NOTIFY_IDLE, NOTIFY_ASKING, NOTIFY_STOPPING };

struct notify_shard {
    struct shard_query query;
    struct shard_status status;
    bool is_asked;
    struct shard_query behind; /* a reload */
    bool is_behind;            /* with the shard */
};

struct notify {
    struct notify_options options;
    enum notify_state state;
    tick_us watchdog; /* 0: the manager wants no keep-alive */
    tick_us interval, next, asked;
    bool is_told; /* that this round is late */
    bool has_reload_failed, is_adopting;
    uint32_t missing;   /* shards that have not replied */
    uint32_t reloading; /* that have not said that they have the new settings */
    bool is_again;      /* newer ones came meanwhile */
    struct notify_shard shards[];
};

static void feed(const struct notify *notify)
{
    if (notify->watchdog > 0)
        (void)sd_notify(0, "WATCHDOG=1");
}

/* ---- reloads ---- */

static void behind_visit(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    (void)transfer;
    (void)now;
    query->cursor = UINT64_MAX;
}

/* Messages to a shard stay in order: who answers has the settings that were sent before. */
static void behind_ask(struct notify *notify)
{
    notify->is_again = false;
    notify->reloading = notify->options.shard_count;
    for (uint32_t i = 0; i < notify->options.shard_count; i++) {
        struct notify_shard *shard = &notify->shards[i];
        shard->behind = (struct shard_query){.kind = SHARD_QUERY_TRANSFER, .visit = behind_visit};
        shard->is_behind = true;
        notify->options.query(notify->options.context, i, &shard->behind);
    }
}

static void behind_reply(struct notify *notify, struct notify_shard *shard)
{
    CHECK(shard->is_behind && notify->reloading > 0);
    shard->is_behind = false;
    notify->reloading--;
    if (notify->reloading > 0 || notify->state == NOTIFY_SILENT || notify->state == NOTIFY_STOPPING)
        return;
    if (notify->is_again)
        behind_ask(notify);
    else
        (void)sd_notify(0, "READY=1");
}

/* ---- rounds ---- */

static void round_begin(struct notify *notify, tick_us now)
{
    notify->state = NOTIFY_ASKING;
    notify->asked = now;
    notify->is_told = false;
    notify->missing = notify->options.shard_count;
    for (uint32_t i = 0; i < notify->options.shard_count; i++) {
        struct notify_shard *shard = &notify->shards[i];
        shard->query = (struct shard_query){.kind = SHARD_QUERY_STATUS, .status = &shard->status};
        shard->is_asked = true;
        notify->options.query(notify->options.context, i, &shard->query);
    }
}

static void round_end(struct notify *notify)
{
    uint64_t open = 0, messages = 0, closed = 0;

    for (uint32_t i = 0; i < notify->options.shard_count; i++) {
        open += notify->shards[i].status.server.open;
        closed += notify->shards[i].status.server.closed;
        messages += notify->shards[i].status.queue.messages;
    }
    notify->state = NOTIFY_IDLE;
    feed(notify);
    (void)sd_notifyf(0, "STATUS=%" PRIu64 " sessions open, %" PRIu64 " messages in the queue%s%s%s",
                     open, messages, closed > 0 ? "; no mail is taken: angarium drain" : "",
                     notify->is_adopting ? "; taking over mail of earlier runs" : "",
                     notify->has_reload_failed ? "; the last reload failed, see the log" : "");
}

/* The round is not complete, an interval or more after it began. */
static void round_late(struct notify *notify, tick_us now)
{
    if (notify->is_told || notify->watchdog == 0 || now - notify->asked < notify->watchdog / 2)
        return;
    notify->is_told = true;
    for (uint32_t i = 0; i < notify->options.shard_count; i++) {
        if (notify->shards[i].is_asked)
            log_line(LOG_ERROR,
                     "event=stuck shard=%u: no turn for %" PRIu64
                     " s; the watchdog is not fed until it moves",
                     i, (now - notify->asked) / TICK_S(1));
    }
}

void notify_run(struct notify *notify, tick_us now)
{
    if (now < notify_deadline(notify))
        return;
    notify->next = now + notify->interval;
    if (notify->state == NOTIFY_IDLE)
        round_begin(notify, now);
    else if (notify->state == NOTIFY_ASKING)
        round_late(notify, now);
    else
        feed(notify);
}

tick_us notify_deadline(const struct notify *notify)
{
    return notify->state == NOTIFY_SILENT ? TICK_NEVER : notify->next;
}

bool notify_owns(const struct notify *notify, const struct shard_query *query)
{
    for (uint32_t i = 0; i < notify->options.shard_count; i++) {
        if (query == &notify->shards[i].query || query == &notify->shards[i].behind)
            return true;
    }
    return false;
}

void notify_on_reply(struct notify *notify, struct shard_query *query)
{
    struct notify_shard *shard = NULL;

    for (uint32_t i = 0; i < notify->options.shard_count; i++) {
        if (query == &notify->shards[i].behind) {
            behind_reply(notify, &notify->shards[i]);
            return;
        }
        if (query == &notify->shards[i].query)
            shard = &notify->shards[i];
    }
    CHECK(shard != NULL && shard->is_asked && notify->missing > 0);
    shard->is_asked = false;
    notify->missing--;
    if (notify->missing == 0 && notify->state == NOTIFY_ASKING)
        round_end(notify);
}

void notify_adopting(struct notify *notify, bool is_adopting)
{
    notify->is_adopting = is_adopting;
}

/* ---- changes ---- */

void notify_ready(struct notify *notify, tick_us now)
{
    uint64_t watchdog = 0;

    CHECK(notify->state == NOTIFY_SILENT);
    if (getenv("NOTIFY_SOCKET") == NULL)
        return;
    if (sd_watchdog_enabled(0, &watchdog) > 0)
        notify->watchdog = watchdog;
    notify->interval = NOTIFY_INTERVAL_MAX;
    if (notify->watchdog > 0 && notify->watchdog / ROUNDS_PER_WATCHDOG < notify->interval)
        notify->interval = notify->watchdog / ROUNDS_PER_WATCHDOG;
    notify->state = NOTIFY_IDLE;
    notify->next = now;
    (void)sd_notify(0, "READY=1\nSTATUS=serving");
}

void notify_reloading(struct notify *notify, tick_us now)
{
    if (notify->state != NOTIFY_SILENT)
        (void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, now);
}

void notify_reloaded(struct notify *notify, bool is_ok)
{
    notify->has_reload_failed = !is_ok;
    if (notify->state == NOTIFY_SILENT)
        return;
    if (notify->reloading > 0)
        notify->is_again = true;
    else if (is_ok)
        behind_ask(notify);
    else
        (void)sd_notify(0, "READY=1");
}

void notify_stopping(struct notify *notify, tick_us bound, tick_us now)
{
    if (notify->state == NOTIFY_SILENT)
        return;
    notify->state = NOTIFY_STOPPING;
    notify->next = now + notify->interval;
    (void)sd_notifyf(
        0, "STOPPING=1\nSTATUS=draining: no new mail is taken\nEXTEND_TIMEOUT_USEC=%" PRIu64,
        bound + STOP_SPARE_TIME);
    feed(notify);
}

void notify_moved(struct notify *notify, uint64_t pid)
{
    if (notify->state != NOTIFY_SILENT)
        (void)sd_notifyf(0, "MAINPID=%" PRIu64, pid);
    notify->state = NOTIFY_SILENT;
}

const char *notify_way(const struct notify *notify, tick_us *ret_watchdog)
{
    const char *socket = getenv("NOTIFY_SOCKET");

    *ret_watchdog = notify->watchdog;
    return socket == NULL || notify->state == NOTIFY_SILENT ? "" : socket;
}

/* ---- start and end ---- */

enum err notify_new(const struct notify_options *options, struct notify **ret_notify)
{
    struct notify *notify =
        calloc(1, sizeof(*notify) + options->shard_count * sizeof(notify->shards[0]));

    if (notify == NULL)
        return ERR_MEMORY;
    notify->options = *options;
    *ret_notify = notify;
    return ERR_OK;
}

void notify_free(struct notify *notify)
{
    free(notify);
}

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_DAEMON_INTERNAL_H
#define CONTROL_DAEMON_INTERNAL_H

#include "control/admin.h"
#include "control/assembly.h"
#include "control/http.h"
#include "control/keeper.h"
#include "control/notify.h"
#include "control/reload.h"
#include "control/starter.h"
#include "control/upgrade_link.h"

/*
 * Shared by the files of the daemon: daemon.c (start, loop, end), daemon_leave.c (another process
 * takes our place), daemon_enter.c (we take that of another), daemon_inherit.c (what came from it).
 * Control thread.
 */
enum daemon_source {
    DAEMON_SIGNAL,
    DAEMON_MAILBOX,
    DAEMON_ADMIN,
    DAEMON_RECOVERY,
    DAEMON_LEAVE,
    DAEMON_ENTER
};

enum leave_state {
    LEAVE_NOT,     /* nobody has asked */
    LEAVE_ASKED,   /* a link is there, and nothing was said on it */
    LEAVE_OFFERED, /* our sockets are at the other end */
    LEAVE_PARTED,  /* what users and client networks did, too */
    LEAVE_LEAVING  /* the place is the other process' */
};

struct daemon_leave {
    enum leave_state state;
    int link;         /* -1 with LEAVE_NOT */
    tick_us deadline; /* of what comes before LEAVE_LEAVING */
};

enum enter_state {
    ENTER_NOT,     /* there is nobody before us, or not any more */
    ENTER_ASKED,   /* for its sockets, or they are here */
    ENTER_WAITING, /* mail is taken; the other process delivers what it has begun */
    ENTER_LOCKING  /* it is gone, and the spool almost free */
};

#define ENTER_SOCKETS_MAX 8192u
struct daemon_enter {
    enum enter_state state;
    bool is_ready; /* and the service manager was told */
    int link;      /* -1: none */
    int told;      /* a pipe to who started us: a letter says that all is well; -1: none */
    int quiet;     /* standard error of who started us, when ours is the other process'; -1 */
    struct upgrade_socket sockets[ENTER_SOCKETS_MAX];
    uint32_t socket_count;
    char manager[UPGRADE_TEXT_SIZE]; /* the service manager's socket; "": none */
    tick_us watchdog, retry;
    tick_us bound; /* of the process before us; TICK_NEVER: told that it is over */
};

#define DAEMON_CUT_TIME TICK_S(2) /* behind the moment when shards end in any case: for files */

struct daemon {
    const struct config *config; /* the first snapshot */
    struct reload reload;
    struct record_writer *records;
    struct webhook_set *webhooks;
    struct assembly *assembly;
    struct admin *admin;
    struct http *http;
    struct starter *starter; /* NULL: none */
    struct keeper *keeper;
    struct notify *notify;
    int epoll, signals;
    struct spool_recovery *recovery; /* being adopted */
    uint32_t adopted;                /* shards that have their share of it */
    bool is_finding;                 /* mail of earlier runs */
    bool is_draining;
    tick_us drain_deadline, watch_deadline;
    uint32_t drained; /* shards */
    bool is_cut;      /* one of them with something under way */
    const struct shard_query *awaited;
    struct daemon_leave leave;
    struct daemon_enter enter;
};

/* daemon.c */
tick_us daemon_now(void);
bool daemon_watch(struct daemon *daemon, int fd, enum daemon_source source);
void daemon_drain(struct daemon *daemon);
/** Messages of shards, if there are some. */
void daemon_on_mailbox(struct daemon *daemon);
void daemon_query(void *context, uint32_t shard, struct shard_query *query);
/** As it, and the answer is there at the return; what else comes meanwhile is done. Not from inside
 * admin, keeper or notify. */
void daemon_query_wait(void *context, uint32_t shard, struct shard_query *query);
/** A shard whose thread does not run answers at once. */
void daemon_query_now(void *context, uint32_t shard, struct shard_query *query);
/** False: the log says why. */
bool daemon_webhooks_open(struct daemon *daemon) MUST_CHECK;
/** Find the mail of earlier runs. */
bool daemon_recovery_start(struct daemon *daemon) MUST_CHECK;

/* daemon_leave.c */
/** This process ends a few seconds behind so much time, whatever hangs. */
void daemon_alarm_set(tick_us time);
/** admin's upgrade() and is_other_program(). */
int daemon_leave_ask(void *context, char ret_text[ADMIN_ERROR_SIZE]);
bool daemon_program_is_other(void *context);
/** The program's file; NULL: it is not known. */
const char *daemon_program_path(void);
/** At the start: what our program's file is. */
void daemon_program_remember(void);
/** Somebody is about to take our place: what only we hear of would be forgotten. */
bool daemon_leave_is_under_way(const struct daemon *daemon);
tick_us daemon_leave_deadline(const struct daemon *daemon);
/** The relay is about to be stopped: if the place is not given away yet, it is not any more. */
void daemon_leave_stop(struct daemon *daemon);
/** admin's may_close(). */
bool daemon_leave_may_close(void *context);
/** What the other process has said, or wants to be told. */
void daemon_leave_run(struct daemon *daemon);

/* daemon_enter.c */
/** Go on in a process of its own, whose start this one waits for: it returns only there. */
void daemon_enter_fork(struct daemon *daemon);
/** Ask the relay that runs for what it has. False: it said why not. */
bool daemon_enter_ask(struct daemon *daemon) MUST_CHECK;
/** From here on what we log goes where the other process logs. Before calls are filtered. */
bool daemon_enter_outputs(struct daemon *daemon) MUST_CHECK;
/** Everything is made: take the place. */
bool daemon_enter_take(struct daemon *daemon) MUST_CHECK;
/** The other process may have ended. */
void daemon_enter_run(struct daemon *daemon);
/** TICK_NEVER: nothing to be done by itself. */
tick_us daemon_enter_deadline(const struct daemon *daemon);
/** All shards have ended: what limits remember is in our hands, and may be written. */
bool daemon_enter_may_keep(struct daemon *daemon) MUST_CHECK;

/* daemon_inherit.c */
/** Of its sockets one that is the caller's from now on; -1: it has none of that role, at that path
 * or address (NULL: wherever). */
int daemon_enter_claim(struct daemon *daemon, enum upgrade_role role, const char *path,
                       const struct flow_address *address);
/** Its listeners for mail; they stay ours. */
uint32_t daemon_enter_listeners(const struct daemon *daemon, int ret_fds[ENTER_SOCKETS_MAX]);
/** Is its spool ours? Mail that waits in another one would be nobody's, and its lock would not be
 * waited for. */
bool daemon_enter_spool_is_ours(struct daemon *daemon) MUST_CHECK;

#endif

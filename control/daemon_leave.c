/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Upgrade, the relay that runs: a new program takes its place without a failed transaction.
 *
 *   NOT     -> ASKED     a process asks on the control socket          daemon_leave_ask()
 *   ASKED   -> OFFERED   it is sent duplicates of our sockets          leave_offer()
 *   OFFERED -> PARTED    READY: everything is made there. What users
 *                        and client networks did is written, and GO
 *                        sent                                          leave_part()
 *                        or, on a full disk, given up
 *   PARTED  -> LEAVING   TAKEN: the place is its own; the service
 *                        manager hears it, and then, by LEFT, it       leave_begin()
 *   LEAVING -> (exit 0)  drained, or upgrade_timeout is over
 *   any before LEAVING -> NOT   the link is at its end, or LEAVE_PATIENCE over   leave_forget()
 *
 * Until TAKEN has come nothing is given up, so that whatever happens to the other process changes
 * nothing here. From then on this one is a relay that stops: it accepts nobody, lets transactions
 * end, and the attempts that are under way; its mail is in its segments, its lock on the spool's
 * directory and on them goes with the process, and that is what the other one waits for
 * (daemon_enter.c). No message says so, so that a process that is killed says it as well.
 *
 * Invariants
 *   1. One link at a time. Not while mail of earlier runs is being found, while an operator has
 *      closed the intake, or while we wait for a process before us ourselves.
 *   2. The sockets that are sent are the ones that we listen on, never new ones: what waits in
 * their backlogs is accepted by whoever accepts next.
 *   3. What is shared with the other process is closed, and never shut down; names of Unix sockets
 *      stay where they are.
 *   4. A user's message, and what a client network does, counts in one process: before PARTED in
 *      what is written then, later in what keeper_finish() writes.
 *   5. From GO on, no file of records is turned over by either before the other is gone.
 *   6. Of two processes one has the place, whatever is said when: who gives up first closes its
 * ears, and then listens to what was said before (leave_give_up()).
 *   7. The other process waits for our end, so that comes: by an alarm, if all else hangs.
 *
 * Ports of the engine cannot change hands: there the address is withdrawn and the relay restarted.
 * Limits: as many listeners as LISTENERS_MAX, and as fit into the link.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/log.h"
#include "control/daemon_internal.h"

#define LISTENERS_MAX  ENTER_SOCKETS_MAX
#define OFFER_TIME_S   5
#define LEAVE_PATIENCE TICK_S(150) /* who starts a process waits for less (daemon_enter.c) */
#define ALARM_TIME_S   10          /* behind the moment when it has all ended */
#define LEAVE_TIME     TICK_S(2)   /* behind the last transaction: for what it has begun */
#define PROGRAM_SELF   "/proc/self/exe"

/* ---- our program ---- */

static struct {
    char path[4096];
    struct stat status;
    bool is_known;
} program;

void daemon_program_remember(void)
{
    ssize_t size = readlink(PROGRAM_SELF, program.path, sizeof(program.path) - 1);

    program.is_known = size > 0 && stat(PROGRAM_SELF, &program.status) == 0;
}

const char *daemon_program_path(void)
{
    return program.is_known ? program.path : NULL;
}

bool daemon_program_is_other(void *context)
{
    struct stat now;

    (void)context;
    return program.is_known && stat(program.path, &now) == 0 &&
           (now.st_dev != program.status.st_dev || now.st_ino != program.status.st_ino ||
            now.st_mtime != program.status.st_mtime || now.st_size != program.status.st_size);
}

/* ---- asked ---- */

static const char *why_not(const struct daemon *daemon)
{
    if (daemon->is_draining)
        return "the relay is being stopped";
    if (daemon->leave.state != LEAVE_NOT)
        return "another upgrade is under way";
    if (daemon->enter.state != ENTER_NOT)
        return "the upgrade before is not over: the old process still ends what it has begun";
    if (daemon->is_finding)
        return "mail of earlier runs is still being found: ask again in a moment";
    if (admin_is_drained(daemon->admin))
        return "no mail is taken (angarium drain): end that first, or stop and start the relay";
    if (daemon->config->dataplane.driver != DATAPLANE_HOST)
        return "ports of the engine cannot change hands: withdraw the address, drain and restart";
    return NULL;
}

int daemon_leave_ask(void *context, char ret_text[ADMIN_ERROR_SIZE])
{
    struct daemon *daemon = context;
    const struct timeval patience = {.tv_sec = OFFER_TIME_S};
    const char *why = why_not(daemon);
    int ends[2];

    if (why == NULL && upgrade_link_new(ends) != ERR_OK)
        why = "no link can be made: see the log";
    if (why != NULL) {
        snprintf(ret_text, ADMIN_ERROR_SIZE, "%s", why);
        log_line(LOG_WARNING, "event=upgrade refused: %s", why);
        return -1;
    }
    (void)setsockopt(ends[0], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    daemon->leave = (struct daemon_leave){LEAVE_ASKED, ends[0], daemon_now() + LEAVE_PATIENCE};
    return ends[1];
}

static void leave_forget(struct daemon *daemon, const char *why)
{
    if (daemon->leave.state == LEAVE_PARTED)
        keeper_part_end(daemon->keeper, daemon_query_wait);
    if (daemon->records != NULL)
        record_writer_turn(daemon->records);
    log_line(LOG_WARNING, "event=upgrade given up: %s; this process goes on", why);
    if (daemon->leave.state > LEAVE_ASKED)
        (void)epoll_ctl(daemon->epoll, EPOLL_CTL_DEL, daemon->leave.link, NULL);
    close(daemon->leave.link);
    daemon->leave = (struct daemon_leave){LEAVE_NOT, -1, TICK_NEVER};
}

/* ---- the offer ---- */

struct listeners {
    uint32_t count;
    int fds[LISTENERS_MAX];
};

/* On the shard's thread: nobody closes one meanwhile. */
static void listeners_duplicate(struct shard_query *query, struct flow_plane *plane)
{
    struct listeners *listeners = query->found;

    listeners->count += flow_host_listeners(plane, listeners->fds + listeners->count,
                                            LISTENERS_MAX - listeners->count);
    query->cursor = UINT64_MAX;
}

static bool offer_send(const struct daemon *daemon, struct upgrade_message *message)
{
    bool is_sent = upgrade_link_send(daemon->leave.link, message) == ERR_OK;

    message->socket_count = 0;
    return is_sent;
}

static bool listeners_offer(const struct daemon *daemon, const struct listeners *listeners)
{
    struct upgrade_message message = {.kind = UPGRADE_OFFER};
    bool is_sent = true;

    for (uint32_t i = 0; i < listeners->count && is_sent; i++) {
        message.sockets[message.socket_count++] =
            (struct upgrade_socket){listeners->fds[i], UPGRADE_ROLE_MAIL};
        if (message.socket_count == UPGRADE_SOCKETS_MAX || i + 1 == listeners->count)
            is_sent = offer_send(daemon, &message);
    }
    return is_sent;
}

static void socket_add(struct upgrade_message *message, int fd, enum upgrade_role role)
{
    if (fd >= 0 && fcntl(fd, F_GETFD) >= 0)
        message->sockets[message->socket_count++] = (struct upgrade_socket){fd, role};
}

/* The rest of what we have, and how the service manager is reached. */
static bool rest_offer(const struct daemon *daemon)
{
    struct upgrade_message message = {.kind = UPGRADE_OFFERED};
    struct http_place http = http_listeners(daemon->http);
    tick_us watchdog;
    int spool = open(daemon->config->spool.directory, O_PATH | O_DIRECTORY | O_CLOEXEC);

    socket_add(&message, admin_listener(daemon->admin), UPGRADE_ROLE_CONTROL);
    socket_add(&message, http.listener, UPGRADE_ROLE_HTTP);
    socket_add(&message, http.local, UPGRADE_ROLE_HTTP_LOCAL);
    socket_add(&message, STDOUT_FILENO, UPGRADE_ROLE_OUTPUT);
    socket_add(&message, STDERR_FILENO, UPGRADE_ROLE_ERRORS);
    socket_add(&message, spool, UPGRADE_ROLE_SPOOL);
    snprintf(message.text, sizeof(message.text), "%s", notify_way(daemon->notify, &watchdog));
    message.number = watchdog;
    bool is_sent = offer_send(daemon, &message);
    if (spool >= 0)
        close(spool);
    return is_sent;
}

static void leave_offer(struct daemon *daemon)
{
    static struct listeners listeners;

    listeners.count = 0;
    for (uint32_t i = 0; i < assembly_count(daemon->assembly); i++) {
        struct shard_query query = {
            .kind = SHARD_QUERY_PLANE, .look = listeners_duplicate, .found = &listeners};
        daemon_query_wait(daemon, i, &query);
    }
    bool is_sent = listeners_offer(daemon, &listeners) && rest_offer(daemon);
    for (uint32_t i = 0; i < listeners.count; i++)
        close(listeners.fds[i]);
    if (!is_sent || fcntl(daemon->leave.link, F_SETFL, O_NONBLOCK) != 0 ||
        !daemon_watch(daemon, daemon->leave.link, DAEMON_LEAVE)) {
        leave_forget(daemon, "its sockets cannot be sent");
        return;
    }
    daemon->leave.state = LEAVE_OFFERED;
    log_line(LOG_INFO, "event=upgrade offered: a new process has the sockets, and starts");
}

/* ---- the place changes hands ---- */

static void leave_part(struct daemon *daemon)
{
    tick_us bound = reload_current(&daemon->reload)->upgrade_timeout + LEAVE_TIME;
    struct upgrade_message go = {.kind = UPGRADE_GO, .number = bound};

    if (admin_is_drained(daemon->admin)) {
        leave_forget(daemon, "no mail is taken (angarium drain)");
        return;
    }
    if (daemon->records != NULL && !record_writer_turn_not(daemon->records)) {
        leave_forget(daemon, "a file of records is being turned over");
        return;
    }
    while (keeper_is_under_way(daemon->keeper))
        daemon_on_mailbox(daemon);
    bool is_kept = keeper_part(daemon->keeper, daemon_query_wait);
    daemon->leave.state = LEAVE_PARTED;
    if (!is_kept)
        leave_forget(daemon, "what users and client networks did cannot be written");
    else if (upgrade_link_send(daemon->leave.link, &go) != ERR_OK)
        leave_forget(daemon, "the new process has ended");
}

/* SIGALRM ends the process, also one that waits for a disk or a pipe that takes nothing. */
void daemon_alarm_set(tick_us time)
{
    struct itimerval alarm = {.it_value.tv_sec = (time_t)(time / TICK_S(1)) + ALARM_TIME_S};

    if (setitimer(ITIMER_REAL, &alarm, NULL) != 0)
        log_line(LOG_WARNING, "event=upgrade no alarm: %s", strerror(errno));
}

static void leave_begin(struct daemon *daemon, uint64_t pid)
{
    tick_us bound = reload_current(&daemon->reload)->upgrade_timeout;
    struct shard_control control = {.time = bound, .time_max = bound + LEAVE_TIME};
    struct upgrade_message left = {.kind = UPGRADE_LEFT};

    log_line(LOG_INFO,
             "event=upgrade leave pid=%" PRIu64
             ": it takes mail from now on; what is under way here may take %" PRIu64 " s",
             pid, bound / TICK_S(1));
    (void)epoll_ctl(daemon->epoll, EPOLL_CTL_DEL, daemon->leave.link, NULL); /* it may end now */
    daemon_alarm_set(bound + LEAVE_TIME);
    notify_moved(daemon->notify, pid);
    if (upgrade_link_send(daemon->leave.link, &left) != ERR_OK)
        log_line(LOG_WARNING, "event=upgrade: the new process has ended already");
    admin_leave(daemon->admin);
    http_leave(daemon->http);
    daemon->leave.state = LEAVE_LEAVING;
    daemon->is_draining = true;
    daemon->drain_deadline = daemon_now() + bound + LEAVE_TIME + DAEMON_CUT_TIME;
    assembly_send_all(daemon->assembly, SHARD_MESSAGE_DRAIN, &control);
}

static void leave_on_message(struct daemon *daemon, const struct upgrade_message *message)
{
    if (message->kind == UPGRADE_READY && daemon->leave.state == LEAVE_OFFERED)
        leave_part(daemon);
    else if (message->kind == UPGRADE_TAKEN && daemon->leave.state == LEAVE_PARTED)
        leave_begin(daemon, message->number);
    else
        leave_forget(daemon, "the new process said what nobody asked for");
}

bool daemon_leave_is_under_way(const struct daemon *daemon)
{
    return daemon->leave.state != LEAVE_NOT && daemon->leave.state != LEAVE_LEAVING;
}

tick_us daemon_leave_deadline(const struct daemon *daemon)
{
    if (!daemon_leave_is_under_way(daemon))
        return TICK_NEVER;
    return daemon->leave.state == LEAVE_ASKED ? 0 : daemon->leave.deadline;
}

/* The place may have been taken already, and the word of that be on its way. */
static void leave_give_up(struct daemon *daemon, const char *why)
{
    struct upgrade_message message;

    if (daemon->leave.state == LEAVE_PARTED && shutdown(daemon->leave.link, SHUT_RDWR) == 0 &&
        upgrade_link_receive(daemon->leave.link, &message) == ERR_OK) {
        upgrade_message_close(&message);
        leave_on_message(daemon, &message);
    }
    if (daemon_leave_is_under_way(daemon))
        leave_forget(daemon, why);
}

void daemon_leave_run(struct daemon *daemon)
{
    struct upgrade_message message;

    if (daemon->leave.state == LEAVE_ASKED) {
        leave_offer(daemon);
        return;
    }
    if (!daemon_leave_is_under_way(daemon))
        return;
    if (daemon_now() >= daemon->leave.deadline) {
        leave_give_up(daemon, "the new process does not get on");
        return;
    }
    enum err err = upgrade_link_receive(daemon->leave.link, &message);
    if (err == ERR_AGAIN)
        return;
    if (err != ERR_OK) {
        leave_forget(daemon, err == ERR_PEER_CLOSED ? "the new process has ended"
                                                    : "the new process speaks another language");
        return;
    }
    upgrade_message_close(&message);
    leave_on_message(daemon, &message);
}

/* What is closed behind GO would be open in the other process, which cannot be told any more. */
bool daemon_leave_may_close(void *context)
{
    const struct daemon *daemon = context;

    return daemon->leave.state != LEAVE_PARTED;
}

void daemon_leave_stop(struct daemon *daemon)
{
    leave_give_up(daemon, "the relay is being stopped");
}

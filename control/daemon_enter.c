/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Upgrade, the relay that comes: angariumd -u takes the place of the one that runs.
 *
 *   NOT     -> ASKED     its sockets are here, and nothing of it is touched   daemon_enter_ask()
 *   ASKED   -> WAITING   READY, GO, TAKEN: mail is taken, into segments of
 *                        our own epoch; nothing goes out                      daemon_enter_take()
 *   WAITING -> LOCKING   the link is at its end: the other process is gone    enter_on_link()
 *   LOCKING -> NOT       the spool is locked: limits are read, mail goes
 *                        out, and the segments of the other process are
 *                        adopted as after any start                           enter_over()
 *   ASKED   -> (exit 1)  whatever goes wrong; the other process goes on
 *
 * Invariants
 *   1. Before TAKEN nobody is accepted, and nothing of the other process is changed.
 *   2. Before the lock is ours no connection is opened for mail, and no segment is read but our
 * own: what the other process still delivers is delivered by it alone, within limits that it alone
 *      counts.
 *   3. Files of limits are read when the other process wrote them last, and written after that
 * only.
 *
 * The other process may be of another version, and need not be trusted: its descriptors are looked
 * at where they are used, and of its words only the service manager's socket is, and how long it
 * may take.
 *
 * Who started us waits in another process, and is told when the place is ours: a service manager,
 * or an operator, then knows that it worked; until then our errors are on their terminal.
 *
 * Limits: ENTER_SOCKETS_MAX descriptors; START_TIME_S seconds until the place is ours.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "control/ask.h"
#include "control/daemon_internal.h"

#define START_TIME_S 120
#define LINK_TIME_S  60
#define LOCK_PAUSE   TICK_MS(10)
#define BOUND_MAX    TICK_S(3700)
#define BOUND_GRACE  TICK_S(15) /* the other process' alarm rings before */
#define LOCK_TRIES   200        /* at the end, when nobody waits for us */

/* To the log; and, as long as that is the other process', to who started us. */
__attribute__((format(printf, 2, 3))) static void complain(const struct daemon *daemon,
                                                           const char *format, ...)
{
    char text[1024];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    log_line(LOG_FATAL, "event=upgrade failed: %s", text);
    if (daemon->enter.quiet >= 0)
        (void)dprintf(daemon->enter.quiet, "angariumd: upgrade failed: %s\n", text);
}

/* ---- who started us ---- */

static volatile sig_atomic_t is_interrupted;

static void on_interrupt(int number)
{
    (void)number;
    is_interrupted = 1;
}

/* Its exit status is what is waited for. */
_Noreturn static void starter_wait(int told)
{
    struct sigaction action = {.sa_handler = on_interrupt};
    struct pollfd poll_one = {.fd = told, .events = POLLIN};
    pid_t successor = 0;
    char letter;

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (read(told, &successor, sizeof(successor)) != (ssize_t)sizeof(successor))
        _exit(EXIT_FAILURE);
    int count = poll(&poll_one, 1, START_TIME_S * 1000);
    if (count > 0 && read(told, &letter, 1) == 1)
        _exit(EXIT_SUCCESS);
    if (count <= 0) {
        fprintf(stderr, "angariumd: upgrade failed: %s; the relay that runs goes on\n",
                is_interrupted ? "interrupted" : "the new process was not ready in time");
        kill(successor, SIGKILL);
    }
    _exit(EXIT_FAILURE);
}

static pid_t fork_or_exit(void)
{
    pid_t child = fork();

    if (child < 0) {
        fprintf(stderr, "angariumd: cannot start: %s\n", strerror(errno));
        exit(EXIT_FAILURE);
    }
    return child;
}

/* Twice: a child of the first process from the beginning is one whose end a service manager sees.
 */
void daemon_enter_fork(struct daemon *daemon)
{
    int ends[2] = {-1, -1};
    bool is_open = pipe2(ends, O_CLOEXEC) == 0;
    pid_t child = fork_or_exit();

    if (child > 0) {
        close(ends[1]);
        (void)waitpid(child, NULL, 0);
        starter_wait(ends[0]);
    }
    setsid();
    child = fork_or_exit();
    if (child > 0)
        _exit(!is_open || write(ends[1], &child, sizeof(child)) != (ssize_t)sizeof(child));
    close(ends[0]);
    daemon->enter.told = ends[1];
    daemon->enter.state = ENTER_ASKED;
}

/* ---- asking ---- */

static bool link_open(struct daemon *daemon)
{
    const struct timeval patience = {.tv_sec = LINK_TIME_S};
    const char *path = daemon->config->control_socket;
    json_t *request = json_pack("{ss}", "verb", "upgrade");
    int fd = ask_connect(path);

    if (fd < 0 || !ask_send(fd, request)) {
        complain(daemon, "no relay answers at %s: %s", path, strerror(errno));
        json_decref(request);
        if (fd >= 0)
            close(fd);
        return false;
    }
    json_decref(request);
    json_t *answer = ask_receive_with(fd, &daemon->enter.link);
    const char *error = json_string_value(json_object_get(answer, "error"));
    close(fd);
    if (daemon->enter.link < 0)
        complain(daemon, "%s", error != NULL ? error : "the relay that runs gives no link");
    else
        (void)setsockopt(daemon->enter.link, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    json_decref(answer);
    return daemon->enter.link >= 0;
}

/* False: there are too many. */
static bool sockets_add(struct daemon_enter *enter, struct upgrade_message *message)
{
    if (enter->socket_count + message->socket_count > ENTER_SOCKETS_MAX) {
        upgrade_message_close(message);
        return false;
    }
    memcpy(enter->sockets + enter->socket_count, message->sockets,
           message->socket_count * sizeof(message->sockets[0]));
    enter->socket_count += message->socket_count;
    return true;
}

static bool is_same_spool(struct daemon *daemon)
{
    if (daemon_enter_spool_is_ours(daemon))
        return true;
    complain(daemon, "spool: {directory} is another than that of the relay that runs: stop and "
                     "start the relay for that");
    return false;
}

bool daemon_enter_ask(struct daemon *daemon)
{
    struct daemon_enter *enter = &daemon->enter;
    struct upgrade_message message = {.kind = UPGRADE_OFFER};

    if (daemon->config->dataplane.driver != DATAPLANE_HOST) {
        complain(daemon, "ports of the engine cannot change hands: withdraw the address, drain and "
                         "restart");
        return false;
    }
    if (!link_open(daemon))
        return false;
    while (message.kind == UPGRADE_OFFER) {
        enum err err = upgrade_link_receive(enter->link, &message);
        if (err != ERR_OK || !sockets_add(enter, &message)) {
            complain(daemon, "the relay that runs offers nothing of use: %s", err_text(err));
            return false;
        }
    }
    memcpy(enter->manager, message.text, sizeof(enter->manager));
    enter->watchdog = message.number;
    return message.kind == UPGRADE_OFFERED && is_same_spool(daemon);
}

/* ---- its log ---- */

bool daemon_enter_outputs(struct daemon *daemon)
{
    int output = daemon_enter_claim(daemon, UPGRADE_ROLE_OUTPUT, NULL, NULL);
    int errors = daemon_enter_claim(daemon, UPGRADE_ROLE_ERRORS, NULL, NULL);

    daemon->enter.quiet = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    bool is_done = (output < 0 || dup2(output, STDOUT_FILENO) >= 0) &&
                   (errors < 0 || dup2(errors, STDERR_FILENO) >= 0);
    if (output >= 0)
        close(output);
    if (errors >= 0)
        close(errors);
    if (!is_done)
        complain(daemon, "cannot take over the log: %s", strerror(errno));
    return is_done;
}

/* ---- the place changes hands ---- */

static bool is_told_to_go(struct daemon *daemon)
{
    struct upgrade_message message = {.kind = UPGRADE_READY, .number = (uint64_t)getpid()};
    enum err err = upgrade_link_send(daemon->enter.link, &message);

    if (err == ERR_OK)
        err = upgrade_link_receive(daemon->enter.link, &message);
    if (err == ERR_OK)
        upgrade_message_close(&message);
    if (err == ERR_OK && message.kind == UPGRADE_GO) {
        tick_us bound = message.number < BOUND_MAX ? message.number : BOUND_MAX;
        daemon->enter.bound = daemon_now() + bound + BOUND_GRACE;
        return true;
    }
    complain(daemon, "the relay that runs does not give its place: %s", err_text(err));
    return false;
}

static void intake_open(struct daemon *daemon)
{
    struct shard_intake intake = {.is_closed = false};

    for (uint32_t i = 0; i < assembly_count(daemon->assembly); i++) {
        struct shard_query query = {.kind = SHARD_QUERY_INTAKE, .found = &intake};
        daemon_query_wait(daemon, i, &query);
    }
}

/* What is watched is the relay, whoever started it. */
static void manager_find(const struct daemon_enter *enter)
{
    char time[24];

    (void)unsetenv("NOTIFY_SOCKET");
    (void)unsetenv("WATCHDOG_USEC");
    (void)unsetenv("WATCHDOG_PID");
    if (enter->manager[0] != '\0')
        (void)setenv("NOTIFY_SOCKET", enter->manager, 1);
    (void)snprintf(time, sizeof(time), "%llu", (unsigned long long)enter->watchdog);
    if (enter->watchdog > 0)
        (void)setenv("WATCHDOG_USEC", time, 1);
}

static void sockets_close(struct daemon_enter *enter)
{
    while (enter->socket_count > 0)
        close(enter->sockets[--enter->socket_count].fd);
}

static void starter_tell(struct daemon_enter *enter)
{
    ssize_t size = write(enter->told, "y", 1);

    if (size != 1)
        log_line(LOG_INFO, "event=upgrade: who started it has left");
    close(enter->told);
    if (enter->quiet >= 0)
        close(enter->quiet);
    enter->told = enter->quiet = -1;
}

bool daemon_enter_take(struct daemon *daemon)
{
    struct upgrade_message taken = {.kind = UPGRADE_TAKEN, .number = (uint64_t)getpid()};
    struct daemon_enter *enter = &daemon->enter;

    if (!is_told_to_go(daemon))
        return false;
    keeper_load_parted(daemon->keeper, daemon_query_wait);
    if (daemon->records != NULL) /* they may have been turned over since we opened them */
        record_writer_reopen(daemon->records);
    if (fcntl(enter->link, F_SETFL, O_NONBLOCK) != 0 ||
        !daemon_watch(daemon, enter->link, DAEMON_ENTER) ||
        upgrade_link_send(enter->link, &taken) != ERR_OK) {
        complain(daemon, "the relay that runs has ended");
        return false;
    }
    enter->state = ENTER_WAITING;
    intake_open(daemon);
    manager_find(enter);
    admin_take_over(daemon->admin);
    http_take_over(daemon->http);
    sockets_close(enter);
    notify_adopting(daemon->notify, true);
    log_line(LOG_INFO,
             "event=upgrade enter: mail is taken; it is delivered when the process before "
             "has ended");
    starter_tell(enter);
    return true;
}

/* ---- the other process is gone ---- */

static void waiting_end(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    (void)now;
    transfer_set_waiting(transfer, false);
    query->cursor = UINT64_MAX;
}

static void enter_over(struct daemon *daemon)
{
    daemon->enter.state = ENTER_NOT;
    notify_adopting(daemon->notify, false);
    if (daemon->records != NULL)
        record_writer_turn(daemon->records);
    keeper_load_rest(daemon->keeper, daemon_query_wait);
    for (uint32_t i = 0; i < assembly_count(daemon->assembly); i++) {
        struct shard_query query = {.kind = SHARD_QUERY_TRANSFER, .visit = waiting_end};
        daemon_query_wait(daemon, i, &query);
    }
    if (daemon_webhooks_open(daemon)) /* until here it was the other process that posted */
        admin_set_webhooks(daemon->admin, daemon->webhooks);
    log_line(LOG_INFO, "event=upgrade over: the process before has ended; mail goes out");
    if (!daemon_recovery_start(daemon))
        log_line(LOG_ERROR, "spool=%s: mail of earlier runs stays on disk until the next start: %s",
                 daemon->config->spool.directory, strerror(errno));
}

/* The service manager listens to us: the other process has told it, or is gone. */
static void enter_ready(struct daemon *daemon)
{
    if (daemon->enter.is_ready)
        return;
    daemon->enter.is_ready = true;
    notify_ready(daemon->notify, daemon_now());
}

static void enter_on_link(struct daemon *daemon)
{
    struct upgrade_message message;
    enum err err = upgrade_link_receive(daemon->enter.link, &message);

    if (err == ERR_OK)
        upgrade_message_close(&message);
    if (err == ERR_OK || err == ERR_PEER_CLOSED)
        enter_ready(daemon);
    if (err != ERR_PEER_CLOSED)
        return;
    (void)epoll_ctl(daemon->epoll, EPOLL_CTL_DEL, daemon->enter.link, NULL);
    close(daemon->enter.link);
    daemon->enter.link = -1;
    daemon->enter.state = ENTER_LOCKING;
    daemon->enter.retry = daemon_now();
}

/* It has ended by now, unless it cannot: stopped, or its disk does not answer. */
static void bound_review(struct daemon_enter *enter)
{
    struct ucred peer = {0};
    socklen_t size = sizeof(peer);

    if (daemon_now() < enter->bound)
        return;
    enter->bound = TICK_NEVER;
    (void)getsockopt(enter->link, SOL_SOCKET, SO_PEERCRED, &peer, &size);
    log_line(LOG_ERROR,
             "event=upgrade late: the process before, %d, has not ended in its time; until it does "
             "(kill -9 %d) no mail is delivered",
             (int)peer.pid, (int)peer.pid);
}

void daemon_enter_run(struct daemon *daemon)
{
    struct daemon_enter *enter = &daemon->enter;

    if (enter->state == ENTER_WAITING)
        bound_review(enter);

    if (enter->state == ENTER_WAITING)
        enter_on_link(daemon);
    if (enter->state != ENTER_LOCKING || daemon->is_draining || daemon_now() < enter->retry)
        return;
    if (assembly_lock(daemon->assembly) == ERR_OK)
        enter_over(daemon);
    else
        enter->retry = daemon_now() + LOCK_PAUSE;
}

tick_us daemon_enter_deadline(const struct daemon *daemon)
{
    if (daemon->enter.state == ENTER_WAITING)
        return daemon->enter.bound;
    return daemon->enter.state == ENTER_LOCKING && !daemon->is_draining ? daemon->enter.retry
                                                                        : TICK_NEVER;
}

/* A relay that is stopped before the one before it was gone has not read what that one kept. */
bool daemon_enter_may_keep(struct daemon *daemon)
{
    const struct timespec pause = {.tv_nsec = (long)LOCK_PAUSE * 1000};

    if (daemon->enter.state == ENTER_NOT)
        return true;
    for (uint32_t i = 0; i < LOCK_TRIES; i++) {
        if (assembly_lock(daemon->assembly) == ERR_OK) {
            keeper_load_rest(daemon->keeper, daemon_query_now);
            return true;
        }
        nanosleep(&pause, NULL);
    }
    return false;
}

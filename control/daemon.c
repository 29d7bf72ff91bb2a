/* SPDX-License-Identifier: Apache-2.0 */
/*
 * angariumd [-c FILE] [-u]: the relay. With -u it takes the place of the one that runs:
 * daemon_enter.c and, for that one, daemon_leave.c.
 *
 * The first thread is the control thread: it reads the configuration, makes the shards, then waits
 * for signals, for the control socket and for messages of shards. It carries no mail.
 *
 *   RUNNING   ->  DRAINING   SIGTERM, SIGINT             daemon_drain()
 *   DRAINING  ->  (exit 0)   every shard has replied, which it does when
 *                            shutdown_timeout is over, whatever is under way
 *
 * Mail left by an earlier run is found by a helper thread while new mail is taken already; then
 * each shard adopts its share, a slice each turn.
 *
 * The service manager is told of every change, and kept content while every shard turns (notify.c).
 *
 * SIGHUP: records open their file anew, and the configuration is read again; a file with a mistake
 * changes nothing.
 *
 * Invariants
 *   1. Signals are blocked before the first thread is made, and read from a signalfd by this one.
 *   2. Every thread that could write to standard output or the spool has ended before exit 0,
 * unless one does not turn any more, or the drain took too long: then the process ends without
 * unwinding, and what is unfinished is on disk as after a crash.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"
#include "control/confine.h"
#include "control/daemon_internal.h"
#include "control/record_csv.h"
#include "control/record_raw.h"
#include "control/spool_room.h"
#include "control/webhook.h"

#define DESCRIPTORS_BESIDE 256u /* files, eventfds, the control socket */
#define FLOWS_MIN          64u
#define LOW_PORTS          1024u /* below: only with CAP_NET_BIND_SERVICE */
#define MESSAGE_BURST      64u

#define RECORDS_HOLD_MS      2000u /* that a shard waits for room, once */
#define RECORDS_STOP_SECONDS 2u

tick_us daemon_now(void)
{
    const struct tick_source *clock = tick_source_system();

    return clock->monotonic(clock->context);
}

/* One log line for each line of a text. */
static void log_text(enum log_severity severity, const char *what, const char *text)
{
    while (*text != '\0') {
        int size = (int)strcspn(text, "\n");
        log_line(severity, "%s: %.*s", what, size, text);
        text += size + (text[size] == '\n');
    }
}

/* ---- events ---- */

void daemon_drain(struct daemon *daemon)
{
    tick_us time = reload_current(&daemon->reload)->shutdown_timeout;
    tick_us bound = daemon_now() + time + DAEMON_CUT_TIME;
    struct shard_control control = {.time_max = time};

    if (!daemon->is_draining)
        daemon_leave_stop(daemon);
    if (daemon->is_draining && bound >= daemon->drain_deadline)
        return;
    daemon->drain_deadline = bound;
    assembly_send_all(daemon->assembly, SHARD_MESSAGE_DRAIN, &control);
    if (daemon->is_draining)
        return;
    log_line(LOG_INFO,
             "event=drain: no new mail is taken; what is in flight may take %" PRIu64 " s",
             time / TICK_S(1));
    daemon->is_draining = true;
    notify_stopping(daemon->notify, time, daemon_now());
}

static bool daemon_reload(void *context, bool is_dry_run, char ret_text[ADMIN_ERROR_SIZE])
{
    struct daemon *daemon = context;

    if (daemon->is_draining) {
        snprintf(ret_text, ADMIN_ERROR_SIZE, "the relay is being stopped");
        return false;
    }
    if (daemon_leave_is_under_way(daemon)) {
        snprintf(ret_text, ADMIN_ERROR_SIZE,
                 "an upgrade is under way, and the new process has read the configuration already: "
                 "ask again when it is over");
        return false;
    }
    if (is_dry_run)
        return reload_run(&daemon->reload, true, ret_text);
    notify_reloading(daemon->notify, daemon_now());
    bool is_ok = reload_run(&daemon->reload, false, ret_text);
    notify_reloaded(daemon->notify, is_ok);
    log_text(is_ok ? LOG_INFO : LOG_ERROR, is_ok ? "event=reload" : "event=reload failed",
             ret_text);
    return is_ok;
}
_Static_assert(RELOAD_TEXT_SIZE == ADMIN_ERROR_SIZE, "one buffer carries the reload's text");

static void daemon_on_signal(struct daemon *daemon)
{
    struct signalfd_siginfo info;
    char text[RELOAD_TEXT_SIZE];

    while (read(daemon->signals, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo != SIGHUP) {
            daemon_drain(daemon);
            continue;
        }
        if (daemon->records != NULL)
            record_writer_reopen(daemon->records);
        (void)daemon_reload(daemon, false, text); /* it has logged why not */
        if (daemon->admin != NULL)
            admin_forget_answers(daemon->admin);
    }
}

void daemon_query(void *context, uint32_t shard, struct shard_query *query)
{
    struct daemon *daemon = context;
    struct shard_control control = {.query = query};

    assembly_send(daemon->assembly, shard, SHARD_MESSAGE_QUERY, &control);
}

static void recovery_hand_on(struct daemon *daemon)
{
    struct shard_control control = {.recovery = daemon->recovery};

    notify_adopting(daemon->notify, true);
    for (uint32_t i = 0; i < assembly_count(daemon->assembly); i++)
        assembly_send(daemon->assembly, i, SHARD_MESSAGE_RECOVERED, &control);
}

static void recovery_end(struct daemon *daemon)
{
    notify_adopting(daemon->notify, false);
    assembly_recovery_free(daemon->assembly);
    daemon->recovery = NULL;
    daemon->is_finding = false;
    admin_set_finding(daemon->admin, false);
    log_line(LOG_INFO, "event=recovered: mail of earlier runs is in the queue");
}

static void daemon_on_recovery(struct daemon *daemon)
{
    epoll_ctl(daemon->epoll, EPOLL_CTL_DEL, assembly_recovery_eventfd(daemon->assembly), NULL);
    enum err err = assembly_recovery_finish(daemon->assembly, &daemon->recovery);
    if (err != ERR_OK) {
        log_line(LOG_ERROR,
                 "spool=%s error=\"%s\": mail of earlier runs stays on disk until the next start",
                 daemon->config->spool.directory, err_text(err));
        daemon->is_finding = false;
        admin_set_finding(daemon->admin, false);
        return;
    }
    if (!daemon->is_draining)
        recovery_hand_on(daemon);
}

/* A shard that was told to drain may be gone before it reads another question. */
static void daemon_on_keeper_reply(struct daemon *daemon)
{
    if (!daemon->is_draining)
        keeper_on_reply(daemon->keeper, daemon_now());
}

static void daemon_on_trace(struct daemon *daemon, const struct ring_message *message,
                            const struct trace_batch *batch)
{
    struct ring_message reply = *message;

    admin_on_trace(daemon->admin, batch, daemon_now());
    reply.is_reply = true;
    ring_send(assembly_mailbox(daemon->assembly), message->from, &reply);
}

static void daemon_on_message(struct daemon *daemon, const struct ring_message *message)
{
    struct shard_control control;

    memcpy(&control, message->payload, sizeof(control));
    switch ((enum shard_message_kind)message->kind) {
    case SHARD_MESSAGE_SETTINGS:
        reload_on_reply(&daemon->reload, &control);
        break;
    case SHARD_MESSAGE_RECOVERED:
        daemon->adopted += 1;
        if (daemon->adopted == assembly_count(daemon->assembly))
            recovery_end(daemon);
        break;
    case SHARD_MESSAGE_QUERY:
        if (control.query == daemon->awaited) {
            daemon->awaited = NULL;
            break;
        }
        if (keeper_owns(daemon->keeper, control.query)) {
            daemon_on_keeper_reply(daemon);
            break;
        }
        if (notify_owns(daemon->notify, control.query)) {
            notify_on_reply(daemon->notify, control.query);
            break;
        }
        admin_on_reply(daemon->admin, control.query, daemon_now());
        break;
    case SHARD_MESSAGE_TRACE:
        daemon_on_trace(daemon, message, control.batch);
        break;
    case SHARD_MESSAGE_DRAIN:
        daemon->drained += 1;
        daemon->is_cut = daemon->is_cut || control.is_cut;
        break;
    default:
        CHECK(false && "a message that control never asked for");
    }
}

void daemon_on_mailbox(struct daemon *daemon)
{
    struct ring_message message;

    for (uint32_t i = 0; i < MESSAGE_BURST; i++) {
        if (ring_receive(assembly_mailbox(daemon->assembly), &message) != ERR_OK)
            return;
        daemon_on_message(daemon, &message);
    }
}

void daemon_query_wait(void *context, uint32_t shard, struct shard_query *query)
{
    struct daemon *daemon = context;
    struct ring_member *mailbox = assembly_mailbox(daemon->assembly);

    CHECK(daemon->awaited == NULL);
    daemon->awaited = query;
    daemon_query(daemon, shard, query);
    while (daemon->awaited != NULL) {
        struct pollfd one = {.fd = ring_member_eventfd(mailbox), .events = POLLIN};
        if (ring_sleep_begin(mailbox)) {
            (void)poll(&one, 1, -1);
            ring_sleep_end(mailbox);
        }
        daemon_on_mailbox(daemon);
    }
}

/* ---- the loop ---- */

/* What limits remember is ours to write. */
static bool daemon_may_keep(const struct daemon *daemon)
{
    return !daemon->is_draining && daemon->enter.state == ENTER_NOT;
}

static int wait_ms(const struct daemon *daemon)
{
    tick_us now = daemon_now(), deadline = admin_deadline(daemon->admin);

    if (notify_deadline(daemon->notify) < deadline)
        deadline = notify_deadline(daemon->notify);
    if (daemon->watch_deadline < deadline)
        deadline = daemon->watch_deadline;
    if (daemon_leave_deadline(daemon) < deadline)
        deadline = daemon_leave_deadline(daemon);
    if (daemon_enter_deadline(daemon) < deadline)
        deadline = daemon_enter_deadline(daemon);
    if (daemon_may_keep(daemon) && keeper_deadline(daemon->keeper) < deadline)
        deadline = keeper_deadline(daemon->keeper);
    if (daemon->is_draining && daemon->drain_deadline < deadline)
        deadline = daemon->drain_deadline;
    if (deadline == TICK_NEVER)
        return -1;
    if (deadline <= now)
        return 0;
    return deadline - now > TICK_S(3600) ? 3600000 : (int)((deadline - now) / 1000 + 1);
}

static void daemon_turn(struct daemon *daemon)
{
    struct epoll_event events[4];
    bool may_sleep = ring_sleep_begin(assembly_mailbox(daemon->assembly));
    int count =
        epoll_wait(daemon->epoll, events, COUNT_OF(events), may_sleep ? wait_ms(daemon) : 0);

    if (may_sleep)
        ring_sleep_end(assembly_mailbox(daemon->assembly));
    for (int i = 0; i < count; i++) {
        if (events[i].data.u32 == DAEMON_SIGNAL)
            daemon_on_signal(daemon);
        else if (events[i].data.u32 == DAEMON_RECOVERY)
            daemon_on_recovery(daemon);
    }
    daemon_on_mailbox(daemon);
    admin_run(daemon->admin, daemon_now());
    notify_run(daemon->notify, daemon_now());
    daemon->watch_deadline = assembly_watch(daemon->assembly, daemon_now());
    daemon_leave_run(daemon);
    daemon_enter_run(daemon);
    if (daemon_may_keep(daemon))
        keeper_run(daemon->keeper, daemon_now());
}

/* What is under way has ended; also in the process whose place we took, for a relay that is stopped
 * is stopped as a whole. */
static bool is_drained(const struct daemon *daemon)
{
    return daemon->is_draining && daemon->drained == assembly_count(daemon->assembly) &&
           daemon->enter.state != ENTER_WAITING;
}

static bool daemon_run(struct daemon *daemon)
{
    while (!is_drained(daemon)) {
        daemon_turn(daemon);
        if (daemon->is_draining && daemon_now() >= daemon->drain_deadline)
            return false;
    }
    return true;
}

/* ---- start ---- */

bool daemon_watch(struct daemon *daemon, int fd, enum daemon_source source)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)source};

    return epoll_ctl(daemon->epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

static bool signals_open(struct daemon *daemon)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    signal(SIGPIPE, SIG_IGN);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
        return false;
    daemon->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return daemon->signals >= 0;
}

/* As many descriptors as the flows need; where those are not allowed, fewer flows, so that the
 * bounds that follow from their number hold. */
static void descriptors_raise(struct config *config)
{
    rlim_t needed = (rlim_t)config->flow_count_max * config->cores + DESCRIPTORS_BESIDE;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= needed)
        return;
    struct rlimit higher = {needed, limit.rlim_max > needed ? limit.rlim_max : needed};
    if (setrlimit(RLIMIT_NOFILE, &higher) == 0)
        return;
    higher = (struct rlimit){limit.rlim_max, limit.rlim_max};
    (void)setrlimit(RLIMIT_NOFILE, &higher);
    rlim_t spare = limit.rlim_max > DESCRIPTORS_BESIDE ? limit.rlim_max - DESCRIPTORS_BESIDE : 0;
    rlim_t allowed = spare / config->cores;
    config->flow_count_allowed = allowed < FLOWS_MIN ? FLOWS_MIN : (uint32_t)allowed;
    log_line(LOG_WARNING,
             "flows=%u: %u are used, since only %" PRIu64 " descriptors are allowed "
             "(RLIMIT_NOFILE)",
             config->flow_count_max, config->flow_count_allowed, (uint64_t)limit.rlim_max);
}

static struct confine_options confine_options_of(const struct config *config)
{
    struct confine_options options = {
        .user = config->confine.user,
        .has_ports = config->dataplane_ports.count > 0,
        .has_calls_filter = config->confine.has_calls_filter,
    };

    for (uint32_t i = 0; i < config->settings.listener_count; i++)
        options.has_low_ports =
            options.has_low_ports || config->settings.listeners[i].address.port < LOW_PORTS;
    return options;
}

static bool confine(const struct config *config,
                    enum err (*step)(const struct confine_options *options, char *ret_why))
{
    struct confine_options options = confine_options_of(config);
    char why[CONFINE_WHY_SIZE];

    if (step(&options, why) == ERR_OK)
        return true;
    log_line(LOG_FATAL, "%s", why);
    return false;
}

static bool records_open(struct daemon *daemon)
{
    const struct config_records *config = &daemon->config->records;
    struct record_file_options json = {
        .path = config->file,
        .head = "",
        .rotate_size = config->rotate_size,
        .rotate_time = config->rotate_time,
        .keep = config->keep,
        .sync_time = config->sync_time,
    };
    struct record_file_options csv = json, raw = json;
    char position[PATH_MAX];
    struct record_writer_options options = {
        .json = config->file == NULL ? NULL : &json,
        .csv = config->accounting == NULL ? NULL : &csv,
        .raw = config->raw == NULL ? NULL : &raw,
        .shard_count = daemon->config->cores,
        .buffer_count = config->buffer_count,
        .must_hold = config->on_slow == RECORDS_HOLD,
        .hold_ms = RECORDS_HOLD_MS,
        .position_path = position,
        .is_turning_forbidden = daemon->enter.state != ENTER_NOT,
    };
    const char *path = "";

    csv.path = config->accounting;
    csv.head = record_csv_head;
    raw.path = config->raw;
    raw.head = record_raw_head;
    raw.whole = record_raw_whole;
    if (options.json == NULL && options.csv == NULL && options.raw == NULL)
        return true;
    if (!assembly_directory_make(daemon->config->spool.directory)) {
        log_line(LOG_FATAL, "cannot make the spool directory %s: %s",
                 daemon->config->spool.directory, strerror(errno));
        return false;
    }
    (void)snprintf(position, sizeof(position), "%s/records", daemon->config->spool.directory);
    if (record_writer_new(&options, &daemon->records, &path) == ERR_OK)
        return true;
    log_line(LOG_FATAL, "cannot write records to %s: %s", path, strerror(errno));
    return false;
}

bool daemon_webhooks_open(struct daemon *daemon)
{
    if (webhook_set_new(daemon->config, &daemon->webhooks) == ERR_OK)
        return true;
    log_line(LOG_FATAL, "cannot start webhooks: %s", strerror(errno));
    return false;
}

/* An order that was answered is not forgotten. */
static void daemon_changed(void *context)
{
    struct daemon *daemon = context;

    keeper_hasten(daemon->keeper);
}

/* `angarium drain --stop`. */
static void daemon_stop(void *context)
{
    daemon_drain(context);
}

static bool admin_open(struct daemon *daemon)
{
    int listener =
        daemon_enter_claim(daemon, UPGRADE_ROLE_CONTROL, daemon->config->control_socket, NULL);
    struct admin_options options = {
        .has_listener = listener >= 0,
        .listener = listener,
        .upgrade = daemon_leave_ask,
        .is_other_program = daemon_program_is_other,
        .may_close = daemon_leave_may_close,
        .path = daemon->config->control_socket,
        .directory = daemon->config->spool.directory,
        .shard_count = daemon->config->cores,
        .records = daemon->records,
        .webhooks = daemon->webhooks,
        .context = daemon,
        .query = daemon_query,
        .reload = daemon_reload,
        .stop = daemon_stop,
        .changed = daemon_changed,
    };
    enum err err = admin_new(&options, &daemon->admin);

    if (err == ERR_OK) {
        admin_set_finding(daemon->admin, true);
        return true;
    }
    log_line(LOG_FATAL, "cannot open the control socket %s: %s", options.path,
             err == ERR_SYSTEM ? strerror(errno) : "another relay answers there");
    return false;
}

static bool http_open(struct daemon *daemon)
{
    const struct config_http *config = &daemon->config->http;
    char why[HTTP_WHY_SIZE];
    struct http_place place = {
        .listener = daemon_enter_claim(daemon, UPGRADE_ROLE_HTTP, NULL, &config->listen),
        .local = daemon_enter_claim(daemon, UPGRADE_ROLE_HTTP_LOCAL, config->socket, NULL),
    };

    if (http_new(daemon->config, daemon->reload.path, daemon->starter, &place, &daemon->http,
                 why) == ERR_OK)
        return true;
    log_line(LOG_FATAL, "%s", why);
    return false;
}

static bool assembly_open(struct daemon *daemon)
{
    static int listeners[ENTER_SOCKETS_MAX];
    struct assembly_place place = {listeners, daemon_enter_listeners(daemon, listeners)};
    char why[ASSEMBLY_WHY_SIZE];

    if (assembly_new(daemon->config, daemon->records,
                     daemon->enter.state == ENTER_NOT ? NULL : &place, &daemon->assembly,
                     why) == ERR_OK)
        return true;
    log_line(LOG_FATAL, "%s", why);
    return false;
}

/* A shard whose thread does not run answers at once. */
void daemon_query_now(void *context, uint32_t shard, struct shard_query *query)
{
    struct daemon *daemon = context;

    assembly_query(daemon->assembly, shard, query);
}

static bool keeper_open(struct daemon *daemon)
{
    struct keeper_options options = {
        .directory = daemon->config->spool.directory,
        .shard_count = daemon->config->cores,
        .context = daemon,
        .query = daemon_query,
    };

    if (keeper_new(&options, &daemon->keeper) != ERR_OK)
        return false;
    if (daemon->enter.state == ENTER_NOT)
        keeper_load(daemon->keeper, daemon_query_now);
    return true;
}

static bool notify_open(struct daemon *daemon)
{
    struct notify_options options = {
        .shard_count = daemon->config->cores,
        .context = daemon,
        .query = daemon_query,
    };

    return notify_new(&options, &daemon->notify) == ERR_OK;
}

bool daemon_recovery_start(struct daemon *daemon)
{
    daemon->is_finding = true;
    return assembly_recovery_start(daemon->assembly, daemon->config) == ERR_OK &&
           daemon_watch(daemon, assembly_recovery_eventfd(daemon->assembly), DAEMON_RECOVERY);
}

static bool threads_start(struct daemon *daemon)
{
    char why[ASSEMBLY_WHY_SIZE];

    daemon->reload.assembly = daemon->assembly;
    daemon->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (daemon->epoll < 0 || !daemon_watch(daemon, daemon->signals, DAEMON_SIGNAL) ||
        !daemon_watch(daemon, ring_member_eventfd(assembly_mailbox(daemon->assembly)),
                      DAEMON_MAILBOX) ||
        !daemon_watch(daemon, admin_fd(daemon->admin), DAEMON_ADMIN) ||
        (daemon->enter.state == ENTER_NOT && !daemon_recovery_start(daemon))) {
        log_line(LOG_FATAL, "cannot start: %s", strerror(errno));
        return false;
    }
    if (assembly_start(daemon->assembly, why) == ERR_OK)
        return true;
    log_line(LOG_FATAL, "%s", why);
    return false;
}

static void tell_what_runs(const struct config *config)
{
    const struct settings *settings = &config->settings;
    char address[FLOW_ADDRESS_TEXT_MAX], why[SPOOL_ROOM_WHY_SIZE];

    log_line(LOG_INFO, "event=start version=%s hostname=%s cores=%u pid=%d", ANGARIUM_VERSION,
             settings->hostname, config->cores, (int)getpid());
    for (uint32_t i = 0; i < settings->listener_count; i++)
        log_line(LOG_INFO, "listen=%s tls=%s",
                 flow_address_format(&settings->listeners[i].address, address),
                 settings->listeners[i].offer_starttls    ? "starttls"
                 : settings->listeners[i].is_tls_implicit ? "implicit"
                                                          : "none");
    log_line(LOG_INFO, "spool=%s", config->spool.directory);
    if (!spool_room_suffices(&config->spool, why))
        log_line(LOG_WARNING, "event=spool_room: %s", why);
    log_line(LOG_INFO, "records=%s", config->records.file == NULL ? "none" : config->records.file);
    if (config->records.accounting != NULL)
        log_line(LOG_INFO, "accounting=%s", config->records.accounting);
    if (config->records.raw != NULL)
        log_line(LOG_INFO, "raw=%s", config->records.raw);
    log_line(LOG_INFO, "control=%s", config->control_socket);
    if (config->http.listen.port != 0)
        log_line(LOG_INFO, "http=%s", flow_address_format(&config->http.listen, address));
    if (config->http.socket != NULL)
        log_line(LOG_INFO, "http=%s", config->http.socket);
}

/* Without unwinding: threads still run. What they had not finished is on disk as after a crash. */
_Noreturn static void daemon_leave(const struct daemon *daemon)
{
    if (daemon->leave.state != LEAVE_LEAVING)
        unlink(daemon->config->control_socket);
    _exit(EXIT_SUCCESS);
}

_Noreturn static void daemon_break_off(const struct daemon *daemon)
{
    if (daemon->records != NULL && !record_writer_finish(daemon->records, RECORDS_STOP_SECONDS))
        log_line(LOG_WARNING, "event=stop: some records could not be written");
    log_line(LOG_WARNING, "event=stop: %s is over; the rest is on disk",
             daemon->leave.state == LEAVE_LEAVING ? "upgrade_timeout" : "shutdown_timeout");
    daemon_leave(daemon);
}

/* Run until stopped, then unwind. What was counted is kept whatever is under way, unless a shard
 * does not turn any more. */
static void daemon_serve(struct daemon *daemon)
{
    if (!daemon_run(daemon))
        daemon_break_off(daemon);
    if (daemon->is_cut)
        daemon_alarm_set(0); /* the disk may be why */
    assembly_join(daemon->assembly);
    if (daemon_enter_may_keep(daemon))
        keeper_finish(daemon->keeper, daemon_query_now);
    if (daemon->is_cut)
        daemon_break_off(daemon);
    keeper_free(daemon->keeper);
    notify_free(daemon->notify);
    bool is_recovering = assembly_is_recovering(daemon->assembly);
    if (!is_recovering)
        assembly_free(daemon->assembly);
    if (daemon->records != NULL)
        record_writer_free(daemon->records);
    webhook_set_free(daemon->webhooks);
    log_line(LOG_INFO, "event=stop");
    if (is_recovering)
        daemon_leave(daemon);
    admin_free(daemon->admin);
    http_free(daemon->http);
    starter_free(daemon->starter);
}

static int daemon_main(struct daemon *daemon)
{
    /* Listeners are opened last: who can connect to one finds the control socket as well. */
    bool is_upgrade = daemon->enter.state != ENTER_NOT;
    bool is_open =
        (!is_upgrade || daemon_enter_ask(daemon)) && records_open(daemon) &&
        (is_upgrade || daemon_webhooks_open(daemon)) && admin_open(daemon) &&
        assembly_open(daemon) && keeper_open(daemon) && notify_open(daemon) && http_open(daemon) &&
        threads_start(daemon) && (!is_upgrade || daemon_enter_outputs(daemon)) &&
        confine(daemon->config, confine_calls) && (!is_upgrade || daemon_enter_take(daemon));

    /* A thread that runs already is ended by exit(); nothing has been accepted before this. */
    if (!is_open) {
        if (daemon->admin != NULL)
            admin_free(daemon->admin);
        http_free(daemon->http);
        return EXIT_FAILURE;
    }
    tell_what_runs(daemon->config);
    if (!is_upgrade)
        notify_ready(daemon->notify, daemon_now());
    daemon_serve(daemon);
    return EXIT_SUCCESS;
}

/* Who may ask for an upgrade over HTTP can have one: before threads, and before calls are filtered.
 */
static void starter_open(struct daemon *daemon)
{
    const struct config_http *http = &daemon->config->http;
    const char *program = daemon_program_path();

    if (program == NULL || (http->socket == NULL && http->admin_token_file == NULL))
        return;
    daemon->starter = starter_new(program, daemon->reload.path);
    if (daemon->starter == NULL)
        log_line(LOG_WARNING, "event=start: no upgrade over HTTP: %s", strerror(errno));
}

static const char *arguments_read(int count, char **arguments, bool *ret_is_upgrade)
{
    const char *path = CONFIG_DEFAULT_PATH;
    int option;

    *ret_is_upgrade = false;
    while ((option = getopt(count, arguments, "c:u")) == 'c' || option == 'u') {
        if (option == 'c')
            path = optarg;
        else
            *ret_is_upgrade = true;
    }
    if (option == -1 && optind == count)
        return path;
    fprintf(stderr, "usage: angariumd [-c FILE] [-u]\n");
    exit(EXIT_FAILURE);
}

int main(int count, char **arguments)
{
    static struct daemon daemon = {.leave.link = -1,
                                   .enter = {.link = -1, .told = -1, .quiet = -1}};
    bool is_upgrade;

    starter_enter(count, arguments);
    const char *path = arguments_read(count, arguments, &is_upgrade);
    struct config_report report;
    struct config *config = NULL;

    config_report_init(&report, path);
    if (config_load(path, &config, &report) != ERR_OK) {
        fputs(report.text, stderr);
        return EXIT_FAILURE;
    }
    if (is_upgrade)
        daemon_enter_fork(&daemon);
    daemon_program_remember();
    log_set_threshold(config->log_level);
    daemon.config = config;
    reload_init(&daemon.reload, path, config);
    descriptors_raise(config);
    if (!confine(config, confine_user))
        return EXIT_FAILURE;
    starter_open(&daemon);
    if (!signals_open(&daemon)) {
        log_line(LOG_FATAL, "cannot read signals: %s", strerror(errno));
        return EXIT_FAILURE;
    }
    int status = daemon_main(&daemon);
    if (status == EXIT_SUCCESS)
        reload_fini(&daemon.reload);
    return status;
}

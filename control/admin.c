/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: its start and end, and its turn. Clients and their octets are in
 * admin_client.c, what they ask for in admin_job.c.
 *
 * A socket that is left over from a relay that was killed is replaced; one that somebody answers is
 * another relay's, and this one does not start. From the first moment on only its owner may
 * connect.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/rng.h"
#include "control/admin_internal.h"

void admin_run(struct admin *admin, tick_us now)
{
    struct epoll_event events[ADMIN_CLIENT_MAX + 1];
    int count = epoll_wait(admin->epoll, events, COUNT_OF(events), 0);

    admin->now = now;
    for (int i = 0; i < count; i++) {
        if (events[i].data.u32 == ADMIN_LISTENER)
            admin_client_accept(admin, now);
        else
            admin_client_event(admin, &admin->clients[events[i].data.u32], events[i].events);
    }
    for (uint32_t i = 0; i < ADMIN_CLIENT_MAX; i++) {
        struct admin_client *client = &admin->clients[i];
        if (client->state == ADMIN_CLIENT_FREE || client->deadline > now)
            continue;
        if (admin->is_finding && client->state == ADMIN_CLIENT_WAITING)
            client->deadline = now + ADMIN_CLIENT_TIME; /* it waits for us */
        else
            admin_client_close(admin, client);
    }
    if (admin->ending_count > 0)
        admin_jobs_run(admin);
    admin_jobs_capture(admin, now);
    admin_trace_run(admin, now);
}

tick_us admin_deadline(const struct admin *admin)
{
    tick_us deadline = admin_capture_deadline(&admin->capture);
    tick_us trace = admin_trace_deadline(&admin->trace);

    for (uint32_t i = 0; i < ADMIN_CLIENT_MAX; i++) {
        if (admin->clients[i].state != ADMIN_CLIENT_FREE && admin->clients[i].deadline < deadline)
            deadline = admin->clients[i].deadline;
    }
    return trace < deadline ? trace : deadline;
}

void admin_on_trace(struct admin *admin, const struct trace_batch *batch, tick_us now)
{
    admin_trace_show(admin, batch, now);
}

int admin_fd(const struct admin *admin)
{
    return admin->epoll;
}

/* ---- start and end ---- */

static bool somebody_answers(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool is_answered =
        fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0;

    if (fd >= 0)
        close(fd);
    return is_answered;
}

/* The folder of the socket, when only that is missing: /run/angarium. */
static void folder_make(const char *path)
{
    char folder[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
    const char *slash = strrchr(path, '/');

    if (slash == NULL || slash == path)
        return;
    memcpy(folder, path, (size_t)(slash - path));
    folder[slash - path] = '\0';
    mkdir(folder, 0755); /* when this fails, bind() says so */
}

static bool listener_watch(struct admin *admin)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = ADMIN_LISTENER};

    return epoll_ctl(admin->epoll, EPOLL_CTL_ADD, admin->listener, &event) == 0;
}

static enum err listener_open(struct admin *admin)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    CHECK(strlen(admin->options.path) < sizeof(address.sun_path));
    memcpy(address.sun_path, admin->options.path, strlen(admin->options.path));
    if (somebody_answers(&address))
        return ERR_DISK_LOCKED;
    folder_make(admin->options.path);
    unlink(admin->options.path);
    admin->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    mode_t mask = umask(0177); /* from the first moment on nobody else may connect */
    int bound = bind(admin->listener, (const struct sockaddr *)&address, sizeof(address));
    umask(mask);
    if (admin->listener < 0 || bound != 0 || listen(admin->listener, 16) != 0 ||
        !listener_watch(admin))
        return ERR_SYSTEM;
    return ERR_OK;
}

int admin_listener(const struct admin *admin)
{
    return admin->listener;
}

void admin_take_over(struct admin *admin)
{
    /* The other process may have given some numbers since we started. */
    order_numbers_load(&admin->order_numbers, admin->options.directory);
    if (!admin->is_waiting)
        return;
    admin->is_waiting = false;
    if (!listener_watch(admin))
        log_line(LOG_ERROR, "control=%s: nobody can be let in: %s", admin->options.path,
                 strerror(errno));
}

/* Closing alone would not end its events: the other process has it open, too. */
void admin_leave(struct admin *admin)
{
    (void)epoll_ctl(admin->epoll, EPOLL_CTL_DEL, admin->listener, NULL);
    close(admin->listener);
    admin->listener = -1;
    admin->is_leaving = true;
}

void admin_forget_answers(struct admin *admin)
{
    admin_share_forget(&admin->share);
}

void admin_set_webhooks(struct admin *admin, const struct webhook_set *webhooks)
{
    admin->options.webhooks = webhooks;
}

bool admin_is_drained(const struct admin *admin)
{
    return admin->intake.is_closed;
}

static void answers_prepare(struct admin *admin)
{
    struct rng rng;

    enum err err = rng_init_system(&rng);
    CHECK(err == ERR_OK);
    rng_fill(&rng, &admin->names, sizeof(admin->names));
    admin->status_texts = admin_status_texts_new();
    admin->metrics = metrics_new(ANGARIUM_VERSION);
}

static void answers_end(struct admin *admin)
{
    admin_share_fini(&admin->share);
    admin_status_texts_free(admin->status_texts);
    metrics_free(admin->metrics);
}

enum err admin_new(const struct admin_options *options, struct admin **ret_admin)
{
    struct admin *admin = calloc(1, sizeof(*admin));
    const struct tick_source *clock = tick_source_system();

    CHECK(admin != NULL);
    admin->options = *options;
    admin->listener = options->has_listener ? options->listener : -1;
    admin->is_waiting = options->has_listener;
    order_numbers_load(&admin->order_numbers, options->directory);
    answers_prepare(admin);
    admin->started = clock->monotonic(clock->context);
    admin->epoll = epoll_create1(EPOLL_CLOEXEC);
    enum err err = admin->epoll < 0 ? ERR_SYSTEM : ERR_OK;
    if (err == ERR_OK && !admin->is_waiting)
        err = listener_open(admin);
    if (err != ERR_OK) {
        int error = errno;
        if (admin->listener >= 0)
            close(admin->listener);
        if (admin->epoll >= 0)
            close(admin->epoll);
        answers_end(admin);
        free(admin);
        errno = error;
        return err;
    }
    *ret_admin = admin;
    return ERR_OK;
}

void admin_set_finding(struct admin *admin, bool is_finding)
{
    admin->is_finding = is_finding;
    if (!is_finding)
        admin_jobs_run(admin);
}

void admin_free(struct admin *admin)
{
    admin_trace_stop(&admin->trace);
    for (uint32_t i = 0; i < ADMIN_CLIENT_MAX; i++) {
        if (admin->clients[i].state != ADMIN_CLIENT_FREE)
            admin_client_close(admin, &admin->clients[i]);
    }
    admin_jobs_end(admin);
    admin_capture_fini(&admin->capture);
    admin_trace_fini(&admin->trace);
    answers_end(admin);
    if (admin->listener >= 0)
        close(admin->listener);
    close(admin->epoll);
    if (!admin->is_waiting && !admin->is_leaving)
        unlink(admin->options.path);
    free(admin);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket.
 *
 * A client: READING -> WAITING -> WORKING -> WRITING -> (closed)
 *   READING   a request line is not complete           client_read()
 *   WAITING   for the job of somebody else to end      job_begin_next()
 *   WORKING   its job is with the shards               job_step(), admin_on_reply()
 *   WRITING   the answer is not all out                client_write()
 * An error goes from any state to WRITING with "ok": false; a time-out or a hangup closes at once.
 *
 * Invariants
 *   1. At most one query is with a shard. Its memory belongs to the shard until the reply, so a job
 *      outlives its client when that leaves early.
 *   2. Bounds: ADMIN_CLIENT_MAX clients, ADMIN_REQUEST_MAX octets, CLIENT_TIME in all,
 *      ADMIN_ROW_MAX rows of an answer.
 */
#include "control/admin.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/admin_answer.h"
#include "control/admin_capture.h"
#include "control/admin_plane.h"

#define ADMIN_CLIENT_MAX  16u
#define ADMIN_REQUEST_MAX 4096u
#define ADMIN_ROW_MAX     10000u
#define ADMIN_ROW_DEFAULT 100u
#define ADMIN_SLICE_ROWS  1000u /* of one shard in one query: bounds the turn it takes */
#define CLIENT_TIME       TICK_S(30)
#define DROP_READS_MAX    16u
#define LISTENER          UINT32_MAX

enum client_state {
    CLIENT_FREE = 0,
    CLIENT_READING,
    CLIENT_WAITING,
    CLIENT_WORKING,
    CLIENT_WRITING
};

struct admin_client {
    enum client_state state;
    int fd;
    tick_us deadline;
    uint64_t order; /* of arrival of its request */
    char request[ADMIN_REQUEST_MAX];
    uint32_t request_size;
    json_t *parsed; /* WAITING, WORKING */
    char *answer;
    size_t answer_size, answer_sent;
};

struct admin_job {
    struct admin_client *client; /* NULL: no job, or its client has left */
    bool is_with_shard;
    bool is_capture; /* taps go on or off; its client may have left, or there never was one */
    uint32_t shard;
    struct shard_query query;
    json_t *answer, *rows;
    uint32_t limit;
};

struct admin {
    struct admin_options options;
    int epoll, listener;
    uint64_t order_next;
    tick_us started;
    struct admin_client clients[ADMIN_CLIENT_MAX];
    struct admin_job job;
    struct admin_capture capture;
};

/* ---- clients ---- */

static void client_close(struct admin *admin, struct admin_client *client)
{
    if (admin->job.client == client)
        admin->job.client = NULL;
    close(client->fd);
    free(client->answer);
    json_decref(client->parsed);
    *client = (struct admin_client){.state = CLIENT_FREE};
}

static void client_watch(struct admin *admin, struct admin_client *client, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.u32 = (uint32_t)(client - admin->clients)};

    CHECK(epoll_ctl(admin->epoll, EPOLL_CTL_MOD, client->fd, &event) == 0);
}

/* Closing a Unix socket with unread octets resets it, and the client would not see its answer. */
static void client_drop_input(const struct admin_client *client)
{
    char octets[ADMIN_REQUEST_MAX];

    for (uint32_t i = 0; i < DROP_READS_MAX; i++) {
        if (recv(client->fd, octets, sizeof(octets), 0) <= 0)
            return;
    }
}

static void client_write(struct admin *admin, struct admin_client *client)
{
    while (client->answer_sent < client->answer_size) {
        ssize_t got = send(client->fd, client->answer + client->answer_sent,
                           client->answer_size - client->answer_sent, MSG_NOSIGNAL);
        if (got < 0 && errno == EAGAIN)
            return;
        if (got < 0)
            break;
        client->answer_sent += (size_t)got;
    }
    client_drop_input(client);
    client_close(admin, client);
}

/* Consumes `answer`. */
static void client_answer(struct admin *admin, struct admin_client *client, json_t *answer)
{
    client->answer = json_dumps(answer, JSON_COMPACT);
    json_decref(answer);
    if (client->answer == NULL) {
        client_close(admin, client);
        return;
    }
    client->answer_size = strlen(client->answer);
    client->state = CLIENT_WRITING;
    client_watch(admin, client, EPOLLOUT);
    client_write(admin, client);
}

static void client_refuse(struct admin *admin, struct admin_client *client, const char *text)
{
    json_t *answer = json_object();

    json_object_set_new(answer, "ok", json_false());
    json_object_set_new(answer, "error", json_string(text));
    client_answer(admin, client, answer);
}

/* ---- jobs ---- */

static const char *job_verb(const struct admin_client *client)
{
    const char *verb = json_string_value(json_object_get(client->parsed, "verb"));

    return verb == NULL ? "" : verb;
}

static void job_reload(struct admin *admin, struct admin_client *client)
{
    char text[ADMIN_ERROR_SIZE] = "";
    bool is_ok = admin->options.reload(admin->options.context, text);
    json_t *answer = json_object();

    json_object_set_new(answer, "ok", json_boolean(is_ok));
    json_object_set_new(answer, is_ok ? "text" : "error", json_string(text));
    client_answer(admin, client, answer);
}

static bool job_prepare_capture(struct admin *admin, struct admin_client *client)
{
    char why[DATAPLANE_CAPTURE_ERROR_SIZE] = "no capture runs";
    const struct tick_source *clock = tick_source_system();
    bool is_stop = strcmp(job_verb(client), "capture stop") == 0;
    bool is_ok =
        is_stop ? admin_capture_end(&admin->capture)
                : admin_capture_begin(&admin->capture, client->parsed, admin->options.shard_count,
                                      clock->monotonic(clock->context), why);

    admin->job.is_capture = is_ok;
    if (!is_ok)
        client_refuse(admin, client, why);
    return is_ok;
}

/* The query of a request. False: the client has been refused. */
static bool job_prepare(struct admin *admin, struct admin_client *client)
{
    struct admin_job *job = &admin->job;
    const char *verb = job_verb(client);
    const char *id = json_string_value(json_object_get(client->parsed, "id"));
    json_int_t limit = json_integer_value(json_object_get(client->parsed, "limit"));

    job->query = (struct shard_query){.kind = SHARD_QUERY_STATUS};
    job->limit = limit > 0 && limit < ADMIN_ROW_MAX ? (uint32_t)limit
                 : limit > 0                        ? ADMIN_ROW_MAX
                                                    : ADMIN_ROW_DEFAULT;
    if (strcmp(verb, "status") == 0)
        return true;
    if (strcmp(verb, "capture") == 0 || strcmp(verb, "capture stop") == 0)
        return job_prepare_capture(admin, client);
    if (admin_plane_prepare(verb, &job->query)) {
        if (limit <= 0 && strcmp(verb, "counters") == 0)
            job->limit = ADMIN_ROW_MAX; /* there are only so many */
        if (job->query.found == NULL)
            client_refuse(admin, client, "no memory");
        return job->query.found != NULL;
    }
    if (strcmp(verb, "queue list") == 0) {
        job->query.kind = SHARD_QUERY_QUEUE_LIST;
        job->query.row_max = job->limit < ADMIN_SLICE_ROWS ? job->limit : ADMIN_SLICE_ROWS;
    } else if (strcmp(verb, "queue show") == 0) {
        if (id == NULL || message_id_parse(span_from_text(id), &job->query.id) != ERR_OK) {
            client_refuse(admin, client, "this is no message id");
            return false;
        }
        job->query.kind = SHARD_QUERY_QUEUE_SHOW;
        job->query.row_max = job->limit = ADMIN_ROW_MAX;
    } else {
        client_refuse(admin, client, "unknown verb");
        return false;
    }
    job->query.rows = calloc(job->query.row_max, sizeof(*job->query.rows));
    if (job->query.rows == NULL)
        client_refuse(admin, client, "no memory");
    return job->query.rows != NULL;
}

static void job_ask(struct admin *admin)
{
    struct admin_job *job = &admin->job;

    job->query.row_count = 0;
    job->is_with_shard = true;
    if (job->is_capture)
        admin_capture_query(&admin->capture, job->shard, &job->query);
    admin->options.query(admin->options.context, job->shard, &job->query);
}

static void job_end(struct admin *admin)
{
    struct admin_job *job = &admin->job;

    free(job->query.rows);
    if (!job->is_capture)
        admin_plane_end(&job->query);
    json_decref(job->answer);
    *job = (struct admin_job){0};
}

static bool job_is_idle(const struct admin *admin)
{
    return admin->job.client == NULL && !admin->job.is_with_shard && !admin->job.is_capture;
}

static void job_begin(struct admin *admin, struct admin_client *client)
{
    struct admin_job *job = &admin->job;

    if (strcmp(job_verb(client), "reload") == 0) {
        job_reload(admin, client);
        return;
    }
    if (!job_prepare(admin, client))
        return;
    job->client = client;
    job->answer = json_object();
    json_object_set_new(job->answer, "ok", json_true());
    if (job->query.kind != SHARD_QUERY_STATUS && !job->is_capture) {
        job->rows = json_array();
        json_object_set_new(job->answer, "rows", job->rows);
    }
    client->state = CLIENT_WORKING;
    job_ask(admin);
}

static void job_begin_next(struct admin *admin)
{
    for (uint32_t round = 0; round < ADMIN_CLIENT_MAX && job_is_idle(admin); round++) {
        struct admin_client *next = NULL;
        for (uint32_t i = 0; i < ADMIN_CLIENT_MAX; i++) {
            struct admin_client *client = &admin->clients[i];
            if (client->state == CLIENT_WAITING && (next == NULL || client->order < next->order))
                next = client;
        }
        if (next == NULL)
            return;
        job_begin(admin, next);
    }
}

static void job_finish(struct admin *admin, tick_us now)
{
    struct admin_job *job = &admin->job;
    struct admin_client *client = job->client;
    struct record_writer_stats records = {0};

    if (job->query.kind == SHARD_QUERY_STATUS) {
        if (admin->options.records != NULL)
            records = record_writer_get_stats(admin->options.records);
        admin_status_finish(job->answer, admin->options.shard_count, now - admin->started,
                            admin->options.records == NULL ? NULL : &records);
    }
    if (job->query.kind == SHARD_QUERY_QUEUE_SHOW && json_array_size(job->rows) == 0)
        client_refuse(admin, client, "no such message in the queue");
    else
        client_answer(admin, client, json_incref(job->answer));
    job_end(admin);
}

/* One more shard's tap is as it should be; the job goes on whether its client waits or not. */
static void capture_on_reply(struct admin *admin)
{
    struct admin_job *job = &admin->job;

    job->shard += 1;
    if (job->shard < admin->options.shard_count) {
        job_ask(admin);
        return;
    }
    admin_capture_done(&admin->capture);
    if (job->client != NULL)
        client_answer(admin, job->client, admin_capture_answer(&admin->capture));
    job_end(admin);
    job_begin_next(admin);
}

/* A capture that reached a bound ends by itself. */
static void capture_run(struct admin *admin, tick_us now)
{
    admin_capture_run(&admin->capture, now);
    if (!admin->capture.is_over || !job_is_idle(admin) || !admin_capture_end(&admin->capture))
        return;
    admin->job.is_capture = true;
    job_ask(admin);
}

void admin_on_reply(struct admin *admin, struct shard_query *query, tick_us now)
{
    struct admin_job *job = &admin->job;

    CHECK(query == &job->query && job->is_with_shard);
    job->is_with_shard = false;
    if (job->is_capture) {
        capture_on_reply(admin);
        return;
    }
    if (job->client == NULL) { /* it has left */
        job_end(admin);
        job_begin_next(admin);
        return;
    }
    if (query->kind == SHARD_QUERY_STATUS)
        admin_status_add(job->answer, &query->status);
    else if (query->kind == SHARD_QUERY_PLANE)
        admin_plane_add(job->rows, query, job->shard, job->limit);
    else
        admin_rows_add(job->rows, query, job->limit, query->kind == SHARD_QUERY_QUEUE_LIST);

    bool is_full = job->rows != NULL && json_array_size(job->rows) >= job->limit;
    bool is_sliced = query->kind == SHARD_QUERY_QUEUE_LIST || query->kind == SHARD_QUERY_PLANE;
    bool has_more = is_sliced && query->cursor != UINT64_MAX;
    if (!has_more) {
        job->shard += 1;
        query->cursor = 0;
    }
    if (is_full || job->shard == admin->options.shard_count) {
        json_object_set_new(job->answer, "has_more", json_boolean(is_full));
        job_finish(admin, now);
        job_begin_next(admin);
    } else {
        job_ask(admin);
    }
}

/* ---- reading requests ---- */

static void client_request(struct admin *admin, struct admin_client *client)
{
    client->parsed =
        json_loadb(client->request, client->request_size, JSON_REJECT_DUPLICATES, NULL);
    client_watch(admin, client, 0); /* hangups are reported all the same */
    if (!json_is_object(client->parsed)) {
        client_refuse(admin, client, "expected one JSON object on a line");
        return;
    }
    client->state = CLIENT_WAITING;
    client->order = admin->order_next++;
    job_begin_next(admin);
}

static void client_read(struct admin *admin, struct admin_client *client)
{
    ssize_t got = recv(client->fd, client->request + client->request_size,
                       sizeof(client->request) - client->request_size, 0);

    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        client_close(admin, client);
        return;
    }
    client->request_size += (uint32_t)got;
    if (memchr(client->request, '\n', client->request_size) != NULL)
        client_request(admin, client);
    else if (client->request_size == sizeof(client->request))
        client_refuse(admin, client, "the request is too long");
}

static void listener_accept(struct admin *admin, tick_us now)
{
    int fd = accept4(admin->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    for (uint32_t i = 0; fd >= 0 && i < ADMIN_CLIENT_MAX; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        if (admin->clients[i].state != CLIENT_FREE)
            continue;
        if (epoll_ctl(admin->epoll, EPOLL_CTL_ADD, fd, &event) != 0)
            break;
        admin->clients[i] =
            (struct admin_client){.state = CLIENT_READING, .fd = fd, .deadline = now + CLIENT_TIME};
        return;
    }
    if (fd >= 0) /* all places are taken: they end within CLIENT_TIME */
        close(fd);
}

static void client_event(struct admin *admin, struct admin_client *client, uint32_t events)
{
    if (client->state == CLIENT_READING && (events & EPOLLIN))
        client_read(admin, client);
    else if (client->state == CLIENT_WRITING && (events & EPOLLOUT))
        client_write(admin, client);
    else if (client->state != CLIENT_FREE && (events & (EPOLLHUP | EPOLLERR)))
        client_close(admin, client);
}

void admin_run(struct admin *admin, tick_us now)
{
    struct epoll_event events[ADMIN_CLIENT_MAX + 1];
    int count = epoll_wait(admin->epoll, events, COUNT_OF(events), 0);

    for (int i = 0; i < count; i++) {
        if (events[i].data.u32 == LISTENER)
            listener_accept(admin, now);
        else
            client_event(admin, &admin->clients[events[i].data.u32], events[i].events);
    }
    for (uint32_t i = 0; i < ADMIN_CLIENT_MAX; i++) {
        if (admin->clients[i].state != CLIENT_FREE && admin->clients[i].deadline <= now)
            client_close(admin, &admin->clients[i]);
    }
    capture_run(admin, now);
}

tick_us admin_deadline(const struct admin *admin)
{
    tick_us deadline = admin_capture_deadline(&admin->capture);

    for (uint32_t i = 0; i < ADMIN_CLIENT_MAX; i++) {
        if (admin->clients[i].state != CLIENT_FREE && admin->clients[i].deadline < deadline)
            deadline = admin->clients[i].deadline;
    }
    return deadline;
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

static enum err listener_open(struct admin *admin)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = LISTENER};

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
        epoll_ctl(admin->epoll, EPOLL_CTL_ADD, admin->listener, &event) != 0)
        return ERR_SYSTEM;
    return ERR_OK;
}

enum err admin_new(const struct admin_options *options, struct admin **ret_admin)
{
    struct admin *admin = calloc(1, sizeof(*admin));
    const struct tick_source *clock = tick_source_system();

    CHECK(admin != NULL);
    admin->options = *options;
    admin->listener = -1;
    admin->started = clock->monotonic(clock->context);
    admin->epoll = epoll_create1(EPOLL_CLOEXEC);
    enum err err = admin->epoll < 0 ? ERR_SYSTEM : listener_open(admin);
    if (err != ERR_OK) {
        int error = errno;
        if (admin->listener >= 0)
            close(admin->listener);
        if (admin->epoll >= 0)
            close(admin->epoll);
        free(admin);
        errno = error;
        return err;
    }
    *ret_admin = admin;
    return ERR_OK;
}

void admin_free(struct admin *admin)
{
    for (uint32_t i = 0; i < ADMIN_CLIENT_MAX; i++) {
        if (admin->clients[i].state != CLIENT_FREE)
            client_close(admin, &admin->clients[i]);
    }
    job_end(admin);
    admin_capture_fini(&admin->capture);
    close(admin->listener);
    close(admin->epoll);
    unlink(admin->options.path);
    free(admin);
}

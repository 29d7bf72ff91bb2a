/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The management interface. libmicrohttpd has one thread for each connection, which reads a
 * request, asks the relay over the control socket as the command line would, and answers.
 *
 *   GET  /metrics                    numbers for Prometheus
 *   GET  /api/v1/queue/list?limit=5  the verb "queue list"; what is behind the ? are its members
 *   POST /api/v1/queue/hold          a verb with its members as a JSON object
 *   GET  /api/v1/role                what the asker may do
 *   GET  /                           the dashboard: one page, made by control/dashboard/join.py
 *
 * Invariants
 *   1. Nothing but the page without data, and that it has no role, is told to who has none
 *      (http_access.h).
 *   2. Orders come by POST, as application/json, and with a token that no browser sends by itself:
 *      another site's page can give none.
 *   3. At most HTTP_ASK_MAX questions are with the relay; who would be one more waits, then hears
 *      503.
 *
 * Bounds: HTTP_CLIENT_MAX connections, HTTP_BODY_MAX octets of a request, HTTP_IDLE_S seconds of
 * silence.
 */
#include "control/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "control/ask.h"
#include "control/dashboard_page.h"
#include "control/http_request.h"
#include "control/metrics.h"

#define ASK_WAIT_S       10
#define STREAM_BLOCK     16384u
#define CONNECTION_SPACE 32768u /* octets for the head of a request, and what goes out */

struct http {
    const struct config_http *config;
    const char *control_socket;
    struct MHD_Daemon *listener,
        *local; /* over TCP, and over the Unix socket; NULL: not that way */
    sem_t askers;
};

struct stream {
    struct http *http;
    int fd;
};

/* ---- answers ---- */

static const char answer_policy[] = "default-src 'none'; frame-ancestors 'none'";

/* `policy`: what a browser may do with it (Content-Security-Policy). */
static enum MHD_Result response_queue_with(struct MHD_Connection *connection, unsigned status,
                                           struct MHD_Response *response, const char *type,
                                           const char *policy)
{
    static const char *const fields[][2] = {
        {"Cache-Control", "no-store"},
        {"X-Content-Type-Options", "nosniff"},
        {"Referrer-Policy", "no-referrer"},
    };

    if (response == NULL)
        return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(response, "Content-Security-Policy", policy);
    for (uint32_t i = 0; i < COUNT_OF(fields); i++)
        MHD_add_response_header(response, fields[i][0], fields[i][1]);
    if (status == MHD_HTTP_UNAUTHORIZED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    if (status == MHD_HTTP_SERVICE_UNAVAILABLE)
        MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, "2");
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result response_queue(struct MHD_Connection *connection, unsigned status,
                                      struct MHD_Response *response, const char *type)
{
    return response_queue_with(connection, status, response, type, answer_policy);
}

/* Consumes `json`. */
static enum MHD_Result answer_json(struct MHD_Connection *connection, unsigned status, json_t *json)
{
    char *text = json_dumps(json, JSON_COMPACT);

    json_decref(json);
    return text == NULL ? MHD_NO
                        : response_queue(connection, status,
                                         MHD_create_response_from_buffer(strlen(text), text,
                                                                         MHD_RESPMEM_MUST_FREE),
                                         "application/json");
}

static enum MHD_Result answer_error(struct MHD_Connection *connection, unsigned status,
                                    const char *text)
{
    return answer_json(connection, status, json_pack("{sb,ss}", "ok", 0, "error", text));
}

/* ---- questions ---- */

static bool ask_begin(struct http *http)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += ASK_WAIT_S;
    while (sem_timedwait(&http->askers, &until) != 0) {
        if (errno != EINTR)
            return false;
    }
    return true;
}

/* Connected, and the question is sent; -1 with errno. */
static int question_send(struct http *http, const json_t *request)
{
    int fd = ask_connect(http->control_socket);

    if (fd < 0 || ask_send(fd, request))
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static ssize_t stream_read(void *context, uint64_t position, char *room, size_t size)
{
    const struct stream *stream = context;
    ssize_t got = read(stream->fd, room, size);

    (void)position;
    if (got > 0)
        return got;
    return got == 0 ? MHD_CONTENT_READER_END_OF_STREAM : MHD_CONTENT_READER_END_WITH_ERROR;
}

static void stream_free(void *context)
{
    struct stream *stream = context;

    close(stream->fd);
    sem_post(&stream->http->askers);
    free(stream);
}

/* An answer of many lines goes through as it comes; its last line says how it ended. */
static enum MHD_Result answer_stream(struct http *http, struct MHD_Connection *connection, int fd)
{
    struct stream *stream = malloc(sizeof(*stream));

    CHECK(stream != NULL);
    *stream = (struct stream){http, fd};
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, STREAM_BLOCK, stream_read, stream, stream_free);
    if (response == NULL)
        stream_free(stream);
    return response_queue(connection, MHD_HTTP_OK, response, "application/x-ndjson");
}

static enum MHD_Result answer_verb(struct http *http, struct MHD_Connection *connection,
                                   const json_t *request)
{
    if (!ask_begin(http))
        return answer_error(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "too many questions at once");
    int fd = question_send(http, request);
    if (fd >= 0 && http_request_is_stream(request))
        return answer_stream(http, connection, fd);
    json_t *answer = fd < 0 ? NULL : ask_receive(fd);
    if (fd >= 0)
        close(fd);
    sem_post(&http->askers);
    if (answer == NULL)
        return answer_error(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "the relay gives no answer");
    return answer_json(
        connection,
        json_is_true(json_object_get(answer, "ok")) ? MHD_HTTP_OK : MHD_HTTP_BAD_REQUEST, answer);
}

static json_t *question_ask(struct http *http, const char *verb, const char *by)
{
    json_t *request = json_pack("{ss,ss,si}", "verb", verb, "by", by, "limit", HTTP_SITES_MAX);
    int fd = question_send(http, request);
    json_t *answer = fd < 0 ? NULL : ask_receive(fd);

    json_decref(request);
    if (fd >= 0)
        close(fd);
    return answer;
}

static enum MHD_Result answer_metrics(struct http *http, struct MHD_Connection *connection)
{
    char *text = NULL;
    size_t size = 0;

    if (!ask_begin(http))
        return answer_error(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "too many questions at once");
    json_t *status = question_ask(http, "status", "");
    json_t *sites = question_ask(http, "queue summary", "site");
    sem_post(&http->askers);
    FILE *out = status == NULL || sites == NULL ? NULL : open_memstream(&text, &size);
    if (out != NULL) {
        metrics_write(status, sites, out);
        fclose(out);
    }
    json_decref(status);
    json_decref(sites);
    if (text == NULL)
        return answer_error(connection, MHD_HTTP_SERVICE_UNAVAILABLE, "the relay gives no answer");
    return response_queue(connection, MHD_HTTP_OK,
                          MHD_create_response_from_buffer(size, text, MHD_RESPMEM_MUST_FREE),
                          "text/plain; version=0.0.4; charset=utf-8");
}

/* It holds no data, so everybody may have it: it asks for a token, and then as everybody does. */
static enum MHD_Result answer_page(struct MHD_Connection *connection)
{
    return response_queue_with(connection, MHD_HTTP_OK,
                               MHD_create_response_from_buffer(sizeof(dashboard_page),
                                                               (void *)(uintptr_t)dashboard_page,
                                                               MHD_RESPMEM_PERSISTENT),
                               "text/html; charset=utf-8", dashboard_policy);
}

/* Told to everybody: who asks knows it anyway, and a page can ask before it has a token. */
static enum MHD_Result answer_role(struct MHD_Connection *connection, enum http_role role)
{
    static const char *const names[] = {
        [HTTP_ROLE_NONE] = "none", [HTTP_ROLE_VIEWER] = "viewer", [HTTP_ROLE_ADMIN] = "admin"};

    return answer_json(connection, MHD_HTTP_OK, json_pack("{sb,ss}", "ok", 1, "role", names[role]));
}

/* ---- requests ---- */

static enum http_role role_of(const struct http *http, struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    enum http_role role =
        info == NULL ? HTTP_ROLE_NONE : http_access_of_peer((int)info->connect_fd);

    if (role != HTTP_ROLE_NONE && http_access_host_is_local(MHD_lookup_connection_value(
                                      connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST)))
        return role;
    return http_access_of_field(
        &http->config->access,
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION));
}

static enum MHD_Result serve_api(struct http *http, struct MHD_Connection *connection,
                                 const char *path, bool is_post, const struct http_body *body,
                                 enum http_role role)
{
    char why[HTTP_REQUEST_WHY_SIZE];
    json_t *request = is_post ? http_request_from_body(path, connection, body, why)
                              : http_request_from_query(path, connection, why);

    if (request == NULL)
        return answer_error(connection, MHD_HTTP_BAD_REQUEST, why);
    const char *verb = json_string_value(json_object_get(request, "verb"));
    enum http_role needed = http_access_needed(verb);
    enum MHD_Result result;
    if (needed == HTTP_ROLE_NONE)
        result = answer_error(connection, MHD_HTTP_FORBIDDEN, "only over the control socket");
    else if (role < needed)
        result = answer_error(connection, MHD_HTTP_FORBIDDEN, "this needs the admin's token");
    else if (needed == HTTP_ROLE_ADMIN && !is_post)
        result = answer_error(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "this needs POST");
    else
        result = answer_verb(http, connection, request);
    json_decref(request);
    return result;
}

static enum MHD_Result serve(struct http *http, struct MHD_Connection *connection, const char *path,
                             bool is_post, const struct http_body *body)
{
    enum http_role role = role_of(http, connection);
    bool is_metrics = strcmp(path, "/metrics") == 0;

    if (strcmp(path, "/") == 0 && !is_post)
        return answer_page(connection);
    if (strcmp(path, HTTP_API_PREFIX "role") == 0 && !is_post)
        return answer_role(connection, role);
    if (role == HTTP_ROLE_NONE && !(is_metrics && http->config->metrics_open))
        return answer_error(connection, MHD_HTTP_UNAUTHORIZED, "a token is needed");
    if (is_metrics)
        return answer_metrics(http, connection);
    if (strncmp(path, HTTP_API_PREFIX, strlen(HTTP_API_PREFIX)) == 0)
        return serve_api(http, connection, path + strlen(HTTP_API_PREFIX), is_post, body, role);
    return answer_error(connection, MHD_HTTP_NOT_FOUND, "there is nothing here");
}

/* Called for the head, for each part of the body, and at the end. */
static enum MHD_Result on_request(void *context, struct MHD_Connection *connection,
                                  const char *path, const char *method, const char *version,
                                  const char *octets, size_t *size, void **state)
{
    bool is_post = strcmp(method, MHD_HTTP_METHOD_POST) == 0;
    struct http_body *body = *state;

    (void)version;
    if (body == NULL) {
        body = calloc(1, sizeof(*body));
        CHECK(body != NULL);
        *state = body;
        return MHD_YES;
    }
    if (*size > 0) {
        http_body_add(body, octets, *size);
        *size = 0;
        return MHD_YES;
    }
    if (!is_post && strcmp(method, MHD_HTTP_METHOD_GET) != 0)
        return answer_error(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "GET or POST");
    if (body->is_too_large)
        return answer_error(connection, MHD_HTTP_CONTENT_TOO_LARGE, "the request is too large");
    return serve(context, connection, path, is_post, body);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode code)
{
    (void)context;
    (void)connection;
    (void)code;
    free(*state);
    *state = NULL;
}

/* ---- start and end ---- */

__attribute__((format(printf, 2, 0))) static void on_log(void *context, const char *format,
                                                         va_list arguments)
{
    char text[256];

    (void)context;
    vsnprintf(text, sizeof(text), format, arguments);
    text[strcspn(text, "\r\n")] = '\0';
    log_line(LOG_DEBUG, "http: %s", text);
}

static int listener_open(const struct config_http *config, char ret_why[HTTP_WHY_SIZE])
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                             .ai_socktype = SOCK_STREAM};
    struct addrinfo *name = NULL;
    char text[FLOW_ADDRESS_TEXT_MAX], port[8];
    int one = 1;

    snprintf(port, sizeof(port), "%u", config->listen.port);
    int error = getaddrinfo(flow_address_format_ip(&config->listen, text), port, &hints, &name);
    CHECK(error == 0); /* digits need no resolver */
    int fd = socket(name->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    bool is_open = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
                   (name->ai_family != AF_INET6 ||
                    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one)) == 0) &&
                   bind(fd, name->ai_addr, name->ai_addrlen) == 0 &&
                   listen(fd, (int)HTTP_CLIENT_MAX) == 0;
    error = errno;
    freeaddrinfo(name);
    if (is_open)
        return fd;
    snprintf(ret_why, HTTP_WHY_SIZE, "http: cannot listen on %s: %s",
             flow_address_format(&config->listen, text), strerror(error));
    if (fd >= 0)
        close(fd);
    return -1;
}

static int local_open(const char *path, char ret_why[HTTP_WHY_SIZE])
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};

    CHECK(strlen(path) < sizeof(name.sun_path));
    memcpy(name.sun_path, path, strlen(path));
    unlink(path); /* the control socket is ours: no other relay of this configuration runs */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    mode_t mask = umask(0117);
    bool is_open = fd >= 0 && bind(fd, (const struct sockaddr *)&name, sizeof(name)) == 0 &&
                   listen(fd, (int)HTTP_CLIENT_MAX) == 0;
    umask(mask);
    if (is_open)
        return fd;
    snprintf(ret_why, HTTP_WHY_SIZE, "http: cannot listen on %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

static struct MHD_Daemon *server_start(struct http *http, int fd, bool is_tls,
                                       char ret_why[HTTP_WHY_SIZE])
{
    const struct config_http *config = http->config;
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)config->certificate},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)config->key},
        {MHD_OPTION_END, 0, NULL},
    };
    unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL;
    /* The logger comes first: it is to hear what is wrong with the others. */
    struct MHD_Daemon *server = MHD_start_daemon(
        flags | MHD_USE_ERROR_LOG | (is_tls ? MHD_USE_TLS : 0), 0, NULL, NULL, on_request, http,
        MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, HTTP_CLIENT_MAX, MHD_OPTION_CONNECTION_TIMEOUT, HTTP_IDLE_S,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_SPACE, MHD_OPTION_NOTIFY_COMPLETED,
        on_completed, NULL, MHD_OPTION_ARRAY, is_tls ? tls : &tls[COUNT_OF(tls) - 1],
        MHD_OPTION_END);

    if (server == NULL) {
        snprintf(ret_why, HTTP_WHY_SIZE, "http: cannot start%s",
                 is_tls ? ": certificate and key do not fit" : "");
        close(fd);
    }
    return server;
}

static enum err servers_start(struct http *http, char ret_why[HTTP_WHY_SIZE])
{
    const struct config_http *config = http->config;
    int fd;

    if (config->listen.port != 0) {
        if ((fd = listener_open(config, ret_why)) < 0)
            return ERR_SYSTEM;
        if ((http->listener = server_start(http, fd, config->certificate != NULL, ret_why)) == NULL)
            return ERR_SYSTEM;
    }
    if (config->socket != NULL) {
        if ((fd = local_open(config->socket, ret_why)) < 0)
            return ERR_SYSTEM;
        if ((http->local = server_start(http, fd, false, ret_why)) == NULL)
            return ERR_SYSTEM;
    }
    return ERR_OK;
}

enum err http_new(const struct config_http *config, const char *control_socket,
                  struct http **ret_http, char ret_why[HTTP_WHY_SIZE])
{
    *ret_http = NULL;
    if (config->listen.port == 0 && config->socket == NULL)
        return ERR_OK;
    struct http *http = calloc(1, sizeof(*http));
    if (http == NULL) {
        snprintf(ret_why, HTTP_WHY_SIZE, "http: no memory");
        return ERR_MEMORY;
    }
    http->config = config;
    http->control_socket = control_socket;
    sem_init(&http->askers, 0, HTTP_ASK_MAX);
    enum err err = servers_start(http, ret_why);
    if (err != ERR_OK) {
        http_free(http);
        return err;
    }
    *ret_http = http;
    return ERR_OK;
}

void http_free(struct http *http)
{
    if (http == NULL)
        return;
    if (http->listener != NULL)
        MHD_stop_daemon(http->listener);
    if (http->local != NULL) {
        MHD_stop_daemon(http->local);
        unlink(http->config->socket);
    }
    sem_destroy(&http->askers);
    free(http);
}

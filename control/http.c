/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The management interface. libmicrohttpd has one thread for each connection, which reads a
 * request, asks the relay over the control socket as the command line would, and answers.
 *
 *   GET  /metrics                    numbers for Prometheus, as GET /api/v1/metrics
 *   GET  /api/v1/queue/list?limit=5  the verb "queue list"; what is behind the ? are its members
 *   POST /api/v1/queue/hold          a verb with its members as a JSON object
 *   GET  /api/v1/role                what the asker may do
 *   GET  /                           the dashboard: one page, made by control/dashboard/join.py
 *
 * Invariants
 *   1. Nothing but the page without data, and that it has no role, is told to who has none
 *      (http_access.h).
 *   2. Orders come by POST, as application/json, with a token that no browser sends by itself, and
 *      not from another site's page: such a page can give none.
 *   3. Who is slow, and who asks for much at once, keeps nobody else waiting (http_places.h).
 *
 * Which verbs are answered here, and which are the relay's to answer: http_serve.c.
 *
 * Bounds: HTTP_BODY_MAX octets of a request, HTTP_TEXT_MAX of an admin's that brings a text,
 * CONNECTION_SPACE of its head; http_places.h.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "control/dashboard_page.h"
#include "control/http_internal.h"
#include "control/http_request.h"
#include "control/http_serve.h"

#define CONNECTION_SPACE 32768u /* octets for the head of a request, and what goes out */
#define LISTENER_NET     0u     /* http_places.h */
#define LISTENER_LOCAL   1u

/* Told to everybody: who asks knows it anyway, and a page can ask before it has a token. */
static enum MHD_Result answer_role(const struct http_client *client)
{
    static const char *const names[] = {
        [HTTP_ROLE_NONE] = "none", [HTTP_ROLE_VIEWER] = "viewer", [HTTP_ROLE_ADMIN] = "admin"};

    return http_answer_json(client, MHD_HTTP_OK,
                            json_pack("{sb,ss}", "ok", 1, "role", names[client->role]));
}

/* ---- requests ---- */

/* What is kept of a request while it comes. */
struct coming {
    const char *path; /* of the target, libmicrohttpd's */
    char host[HTTP_HOST_SIZE];
    bool is_secret; /* it may bring a password */
    struct http_body body;
};

static const char *field_of(const struct http_client *client, const char *name)
{
    return MHD_lookup_connection_value(client->connection, MHD_HEADER_KIND, name);
}

static enum http_role role_of(const struct http_client *client, const char *host)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(client->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    enum http_role role =
        info == NULL ? HTTP_ROLE_NONE : http_access_of_peer((int)info->connect_fd);

    if (role != HTTP_ROLE_NONE && http_access_host_is_local(host))
        return role;
    return http_access_of_field(&client->http->config->access,
                                field_of(client, MHD_HTTP_HEADER_AUTHORIZATION));
}

static enum MHD_Result serve_api(const struct http_client *client, const char *path, bool is_post,
                                 const struct coming *coming)
{
    char why[HTTP_REQUEST_WHY_SIZE];
    json_t *request = is_post ? http_request_from_body(path, client->connection, &coming->body, why)
                              : http_request_from_query(path, client->connection, why);

    if (request == NULL)
        return http_answer_error(client, MHD_HTTP_BAD_REQUEST, why);
    enum http_role needed = http_access_needed(json_string_value(json_object_get(request, "verb")));
    enum MHD_Result result;
    if (client->role < needed)
        result = http_answer_error(client, MHD_HTTP_FORBIDDEN, "this needs the admin's token");
    else if (needed == HTTP_ROLE_ADMIN && !is_post)
        result = http_answer_allow(client, "POST");
    else if (is_post && !http_access_origin_is_own(field_of(client, "Origin"), coming->host))
        result = http_answer_error(client, MHD_HTTP_FORBIDDEN, "another site's page asks");
    else
        result = http_serve(client, request);
    json_decref(request);
    return result;
}

static enum MHD_Result serve(const struct http_client *client, bool is_post,
                             const struct coming *coming)
{
    const char *path = coming->path;
    bool is_metrics = strcmp(path, "/metrics") == 0;

    /* It holds no data, so everybody may have it: it asks for a token, and then as everybody. */
    if (strcmp(path, "/") == 0 && !is_post)
        return http_answer_page(client, dashboard_page, sizeof(dashboard_page), dashboard_policy);
    if (strcmp(path, HTTP_API_PREFIX "role") == 0 && !is_post)
        return answer_role(client);
    if (client->role == HTTP_ROLE_NONE && !(is_metrics && client->http->config->metrics_open))
        return http_answer_error(client, MHD_HTTP_UNAUTHORIZED, "a token is needed");
    if (is_metrics)
        return is_post ? http_answer_allow(client, "GET, HEAD") : http_answer_metrics(client);
    if (strncmp(path, HTTP_API_PREFIX, strlen(HTTP_API_PREFIX)) == 0)
        return serve_api(client, path + strlen(HTTP_API_PREFIX), is_post, coming);
    return http_answer_error(client, MHD_HTTP_NOT_FOUND, "there is nothing here");
}

/* What is no path may be one for orders. */
static bool takes_post(const char *path)
{
    return path == NULL || strncmp(path, HTTP_API_PREFIX, strlen(HTTP_API_PREFIX)) == 0;
}

static enum MHD_Result on_whole(struct http_client *client, const char *method,
                                const struct coming *coming)
{
    bool is_post = strcmp(method, MHD_HTTP_METHOD_POST) == 0;

    client->role = role_of(client, coming->host);
    http_seat_asked(client->http->places, client->seat, client->role);
    if (!is_post && strcmp(method, MHD_HTTP_METHOD_GET) != 0 &&
        strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return http_answer_allow(client,
                                 takes_post(coming->path) ? "GET, HEAD, POST" : "GET, HEAD");
    if (coming->path == NULL)
        return http_answer_error(client, MHD_HTTP_BAD_REQUEST, "one Host, and a path");
    if (coming->body.is_too_large)
        return http_answer_error(client, MHD_HTTP_CONTENT_TOO_LARGE, "the request is too large");
    return serve(client, is_post, coming);
}

static struct coming *coming_new(struct http_client *client, const char *target,
                                 const char *version)
{
    struct coming *coming = calloc(1, sizeof(*coming));

    CHECK(coming != NULL);
    coming->path = http_request_target(target, version, client->connection, coming->host);
    bool has_text =
        http_path_takes_text(coming->path) && role_of(client, coming->host) == HTTP_ROLE_ADMIN;
    coming->body.max = has_text ? HTTP_TEXT_MAX : HTTP_BODY_MAX;
    coming->is_secret = http_path_is_secret(coming->path);
    return coming;
}

/* A password is kept nowhere: neither where it came in, nor where it was taken apart. */
static enum MHD_Result on_secret(struct http_client *client, const char *method,
                                 struct coming *coming)
{
    http_secret_begin();
    enum MHD_Result result = on_whole(client, method, coming);
    http_secret_end();
    http_body_free(&coming->body);
    return result;
}

/* Called for the head, for each part of the body, and at the end. */
static enum MHD_Result on_request(void *context, struct MHD_Connection *connection,
                                  const char *target, const char *method, const char *version,
                                  const char *octets, size_t *size, void **state)
{
    struct coming *coming = *state;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct http_client client = {.http = context, .connection = connection};

    client.seat = info == NULL ? NULL : info->socket_context;
    if (client.seat == NULL)
        return MHD_NO;
    if (coming == NULL) {
        *state = coming_new(&client, target, version);
        /*= rfc9112#section-6.3
         * If a message is received without Transfer-Encoding and with an invalid Content-Length
         * header field, then the message framing is invalid and the recipient MUST treat it as an
         * unrecoverable error [...] If the unrecoverable error is in a request message, the server
         * MUST respond with a 400 (Bad Request) status code and then close the connection.
         *= rfc9112#section-6.1
         * A server MAY reject a request that contains both Content-Length and Transfer-Encoding */
        if (!http_request_is_plain(connection,
                                   version)) /* before its body: libmicrohttpd closes then */
            return http_answer_error(&client, MHD_HTTP_BAD_REQUEST, "one size of the body");
        return MHD_YES;
    }
    if (*size > 0) {
        http_body_add(&coming->body, octets, *size);
        if (coming->is_secret) /* libmicrohttpd has done with them */
            explicit_bzero((char *)(uintptr_t)octets, *size);
        *size = 0;
        return MHD_YES;
    }
    if (coming->is_secret)
        return on_secret(&client, method, coming);
    return on_whole(&client, method, coming);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode code)
{
    const struct http *http = context;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

    (void)code;
    if (info != NULL && info->socket_context != NULL)
        http_seat_answered(http->places, info->socket_context);
    if (*state != NULL)
        http_body_free(&((struct coming *)*state)->body);
    free(*state);
    *state = NULL;
}

/* A connection has come, or is about to be closed. */
static void on_connection(void *context, struct MHD_Connection *connection, void **seat,
                          enum MHD_ConnectionNotificationCode code)
{
    const struct http *http = context;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    const union MHD_ConnectionInfo *server =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_DAEMON);

    if (code == MHD_CONNECTION_NOTIFY_CLOSED)
        http_seat_leave(http->places, *seat);
    else if (info != NULL && server != NULL)
        *seat = http_seat_take(http->places, (int)info->connect_fd,
                               server->daemon == http->local ? LISTENER_LOCAL : LISTENER_NET);
}

/* A path or a value with an octet 0 is not what stands in front of that: it is none that there is.
 */
static size_t on_escaped(void *context, struct MHD_Connection *connection, char *text)
{
    size_t size = MHD_http_unescape(text);

    (void)context;
    (void)connection;
    for (size_t i = 0; i < size; i++)
        text[i] = text[i] == '\0' ? '\1' : text[i];
    return size;
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

static struct MHD_Daemon *server_start(struct http *http, int fd, bool is_tls,
                                       char ret_why[HTTP_WHY_SIZE])
{
    const struct config_http *config = http->config;
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)config->certificate},
        {MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)config->key},
        {MHD_OPTION_END, 0, NULL},
    };
    unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
                     MHD_USE_POLL | MHD_USE_ITC; /* so that it can cease to listen */
    /* The logger comes first: it is to hear what is wrong with the others. */
    struct MHD_Daemon *server = MHD_start_daemon(
        flags | MHD_USE_ERROR_LOG | (is_tls ? MHD_USE_TLS : 0), 0, NULL, NULL, on_request, http,
        MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, HTTP_CLIENT_MAX, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_SPACE, MHD_OPTION_NOTIFY_COMPLETED, on_completed, http,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, http, MHD_OPTION_UNESCAPE_CALLBACK, on_escaped,
        NULL, MHD_OPTION_ARRAY, is_tls ? tls : &tls[COUNT_OF(tls) - 1], MHD_OPTION_END);

    if (server == NULL) {
        snprintf(ret_why, HTTP_WHY_SIZE, "http: cannot start%s",
                 is_tls ? ": certificate and key do not fit" : "");
    }
    return server;
}

/* On a socket of the place before, or else a new one. */
static enum err listener_start(struct http *http, int inherited, char ret_why[HTTP_WHY_SIZE])
{
    int fd = inherited >= 0 ? inherited : http_listen_on(&http->config->listen, ret_why);

    if (fd < 0)
        return ERR_SYSTEM;
    http->listener = server_start(http, fd, http->config->certificate != NULL, ret_why);
    if (http->listener == NULL && inherited < 0)
        close(fd);
    return http->listener == NULL ? ERR_SYSTEM : ERR_OK;
}

static enum err local_start(struct http *http, int inherited, char ret_why[HTTP_WHY_SIZE])
{
    int fd = inherited >= 0 ? inherited : http_listen_at(http->config->socket, ret_why);

    if (fd < 0)
        return ERR_SYSTEM;
    http->is_path_others = inherited >= 0;
    http->local = server_start(http, fd, false, ret_why);
    if (http->local == NULL && inherited < 0)
        close(fd);
    return http->local == NULL ? ERR_SYSTEM : ERR_OK;
}

static enum err servers_start(struct http *http, const struct http_place *place,
                              char ret_why[HTTP_WHY_SIZE])
{
    if (http->config->listen.port != 0)
        TRY(listener_start(http, place == NULL ? -1 : place->listener, ret_why));
    if (http->config->socket != NULL)
        TRY(local_start(http, place == NULL ? -1 : place->local, ret_why));
    return ERR_OK;
}

/* ---- an upgrade ---- */

static int server_listener(struct MHD_Daemon *server)
{
    const union MHD_DaemonInfo *info =
        server == NULL ? NULL : MHD_get_daemon_info(server, MHD_DAEMON_INFO_LISTEN_FD);

    return info == NULL ? -1 : info->listen_fd;
}

struct http_place http_listeners(const struct http *http)
{
    return (struct http_place){http == NULL ? -1 : server_listener(http->listener),
                               http == NULL ? -1 : server_listener(http->local)};
}

void http_take_over(struct http *http)
{
    if (http != NULL)
        http->is_path_others = false;
}

/* Their threads may still look at the descriptors: these are closed when the servers have ended. */
void http_leave(struct http *http)
{
    if (http == NULL)
        return;
    http->is_path_others = true;
    http->quiet[0] = http->listener == NULL ? -1 : MHD_quiesce_daemon(http->listener);
    http->quiet[1] = http->local == NULL ? -1 : MHD_quiesce_daemon(http->local);
}

enum err http_new(const struct config *relay, const char *config_path, struct starter *starter,
                  const struct http_place *place, struct http **ret_http,
                  char ret_why[HTTP_WHY_SIZE])
{
    const struct config_http *config = &relay->http;

    *ret_http = NULL;
    if (config->listen.port == 0 && config->socket == NULL)
        return ERR_OK;
    struct http *http = calloc(1, sizeof(*http));
    if (http == NULL) {
        snprintf(ret_why, HTTP_WHY_SIZE, "http: no memory");
        return ERR_MEMORY;
    }
    http->config = config;
    http->relay = relay;
    http->config_path = config_path;
    http->starter = starter;
    http->control_socket = relay->control_socket;
    http_secret_init();
    http->quiet[0] = http->quiet[1] = -1;
    http->places = http_places_new(&http_patience_usual);
    snprintf(ret_why, HTTP_WHY_SIZE, "http: no thread can be had");
    enum err err = http->places == NULL ? ERR_SYSTEM : servers_start(http, place, ret_why);
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
        if (!http->is_path_others)
            unlink(http->config->socket);
    }
    for (uint32_t i = 0; i < COUNT_OF(http->quiet); i++) {
        if (http->quiet[i] >= 0)
            close(http->quiet[i]);
    }
    http_places_free(http->places);
    free(http);
}

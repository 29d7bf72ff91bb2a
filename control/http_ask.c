/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions to the relay over its control socket, as the command line asks them, and its answers
 * over HTTP as they come.
 *
 * What the relay refuses is an answer with a status of its own. Of a stream the first octets are
 * waited for, for REFUSAL_TIME_MS, since a refusal comes at once and can then be told as one.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/ask.h"
#include "control/http_internal.h"
#include "control/http_request.h"

#define REFUSAL_TIME_MS 500

static const char page_type[] = "text/plain; version=0.0.4; charset=utf-8"; /* of metrics */

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

static enum MHD_Result answer_nothing(const struct http_client *client)
{
    return http_answer_error(client, MHD_HTTP_SERVICE_UNAVAILABLE, "the relay gives no answer");
}

/* An answer that is JSON, and made by this program. Consumes it; NULL: there is none. */
static enum MHD_Result answer_text(const struct http_client *client, char *answer, size_t size)
{
    if (answer == NULL)
        return answer_nothing(client);
    unsigned status = ask_is_ok(answer, size)      ? MHD_HTTP_OK
                      : ask_is_again(answer, size) ? MHD_HTTP_SERVICE_UNAVAILABLE
                                                   : MHD_HTTP_BAD_REQUEST;
    return http_answer_text(client, status, answer, size, HTTP_TYPE_JSON);
}

/* Does the stream begin with its end? What is looked at stays to be read. */
static bool is_refused(int fd)
{
    static const char refusal[] = "{\"ok\":false";
    char octets[sizeof(refusal) - 1];
    struct pollfd look = {.fd = fd, .events = POLLIN};

    return poll(&look, 1, REFUSAL_TIME_MS) > 0 &&
           recv(fd, octets, sizeof(octets), MSG_PEEK) == (ssize_t)sizeof(octets) &&
           memcmp(octets, refusal, sizeof(octets)) == 0;
}

static enum MHD_Result answer_lines(const struct http_client *client, const json_t *request)
{
    struct http *http = client->http;

    if (!http_stream_begin(http->places, client->role))
        return http_answer_busy(client);
    int fd = question_send(http, request);
    if (fd >= 0 && !is_refused(fd))
        return http_answer_stream(client, fd, HTTP_TYPE_LINES);
    http_stream_end(http->places, NULL, client->role);
    size_t size = 0;
    char *answer = fd < 0 ? NULL : ask_receive_text(fd, &size);
    if (fd >= 0)
        close(fd);
    return answer_text(client, answer, size);
}

char *http_question(const struct http_client *client, const json_t *request, size_t *ret_size,
                    bool *ret_is_busy)
{
    struct http *http = client->http;

    *ret_is_busy = !http_question_begin(http->places, client->role);
    if (*ret_is_busy)
        return NULL;
    int fd = question_send(http, request);
    char *answer = fd < 0 ? NULL : ask_receive_text(fd, ret_size);
    if (fd >= 0)
        close(fd);
    http_question_end(http->places, client->role);
    return answer;
}

char *http_ask(const struct http_client *client, const json_t *request, size_t *ret_size,
               enum MHD_Result *ret_result)
{
    bool is_busy;
    char *answer = http_question(client, request, ret_size, &is_busy);

    if (answer == NULL)
        *ret_result = is_busy ? http_answer_busy(client) : answer_nothing(client);
    return answer;
}

enum MHD_Result http_answer_relay(const struct http_client *client, const json_t *request)
{
    enum MHD_Result result = MHD_NO;
    size_t size = 0;

    if (http_request_is_stream(request))
        return answer_lines(client, request);
    char *answer = http_ask(client, request, &size, &result);
    if (answer == NULL)
        return result;
    if (ask_is_page(answer, size))
        return http_answer_text(client, MHD_HTTP_OK, answer, size, page_type);
    return answer_text(client, answer, size);
}

enum MHD_Result http_answer_metrics(const struct http_client *client)
{
    json_t *request = json_pack("{ss}", "verb", "metrics");
    enum MHD_Result result = MHD_NO;
    size_t size = 0;
    char *answer = http_ask(client, request, &size, &result);

    json_decref(request);
    if (answer == NULL)
        return result;
    if (!ask_is_page(answer, size)) { /* a relay that leaves refuses, or it was cut off */
        free(answer);
        return answer_nothing(client);
    }
    return http_answer_text(client, MHD_HTTP_OK, answer, size, page_type);
}

json_t *http_ask_json(const struct http_client *client, const json_t *request,
                      enum MHD_Result *ret_result)
{
    size_t size = 0;
    char *text = http_ask(client, request, &size, ret_result);
    json_t *answer = text == NULL ? NULL : json_loadb(text, size, 0, NULL);

    if (text != NULL && answer == NULL)
        *ret_result = answer_nothing(client);
    free(text);
    return answer;
}

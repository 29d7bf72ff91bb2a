/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A capture over HTTP: the octets of a pcap file, as they come. The relay gives a descriptor to
 * read them from along with its answer (admin_capture.c), and no file is written. A client that
 * takes too little loses frames, as a disk that is too slow does, and holds up nobody; the capture
 * ends when it leaves.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/ask.h"
#include "control/http_serve.h"

#define TYPE_PCAP "application/vnd.tcpdump.pcap"

/* What the relay says, and the descriptor that came with it; -1: none. */
static json_t *capture_ask(const struct http_client *client, const json_t *request, int *ret_fd)
{
    json_t *question = json_copy((json_t *)(uintptr_t)request), *answer = NULL;

    *ret_fd = -1;
    json_object_set_new(question, "stream", json_true());
    int fd = ask_connect(client->http->control_socket);
    if (fd >= 0 && ask_send(fd, question))
        answer = ask_receive_with(fd, ret_fd);
    if (fd >= 0)
        close(fd);
    json_decref(question);
    return answer;
}

enum MHD_Result http_serve_capture(const struct http_client *client, const json_t *request)
{
    struct http_places *places = client->http->places;
    int fd = -1;

    if (!http_stream_begin(places, client->role))
        return http_answer_busy(client);
    json_t *answer = capture_ask(client, request, &fd);
    if (fd >= 0 && json_is_true(json_object_get(answer, "ok"))) {
        json_decref(answer);
        return http_answer_stream(client, fd, TYPE_PCAP);
    }
    if (fd >= 0)
        close(fd);
    http_stream_end(places, NULL, client->role);
    if (answer == NULL)
        return http_answer_error(client, MHD_HTTP_SERVICE_UNAVAILABLE, "the relay gives no answer");
    return http_answer_result(client, answer);
}

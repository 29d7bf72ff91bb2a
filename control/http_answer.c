/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers over HTTP. What can be long goes out block by block, so that it is known when a client
 * takes nothing (http_places.h): libmicrohttpd asks for the next block when the one before is with
 * the kernel.
 *
 * A stream has a place from its beginning until libmicrohttpd forgets the answer, which it also
 * does when the client has left.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/http_internal.h"

static const char answer_policy[] = "default-src 'none'; frame-ancestors 'none'";

static enum MHD_Result response_queue(const struct http_client *client, unsigned status,
                                      struct MHD_Response *response, const char *type,
                                      const char *policy)
{
    static const char *const fields[][2] = {
        {"Cache-Control", "no-store"},
        {"X-Content-Type-Options", "nosniff"},
        {"Referrer-Policy", "no-referrer"},
        {"Cross-Origin-Resource-Policy", "same-origin"},
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
    enum MHD_Result result = MHD_queue_response(client->connection, status, response);
    MHD_destroy_response(response);
    return result;
}

/* ---- texts ---- */

struct text {
    struct http_places *places;
    struct http_seat *seat;
    const void *octets;
    size_t size;
    char *owned; /* to be freed; NULL: the octets stay */
};

static ssize_t text_read(void *context, uint64_t position, char *room, size_t room_size)
{
    const struct text *text = context;
    size_t left = text->size - (size_t)position;
    size_t size = left < room_size ? left : room_size;

    CHECK(position < text->size);
    memcpy(room, (const char *)text->octets + position, size);
    http_seat_given(text->places, text->seat, true);
    return (ssize_t)size;
}

static void text_free(void *context)
{
    struct text *text = context;

    free(text->owned);
    free(text);
}

static struct MHD_Response *text_response(const struct http_client *client, const void *octets,
                                          size_t size, char *owned)
{
    struct text *text = malloc(sizeof(*text));

    CHECK(text != NULL && size > 0);
    *text = (struct text){client->http->places, client->seat, octets, size, owned};
    struct MHD_Response *response =
        MHD_create_response_from_callback(size, HTTP_BLOCK, text_read, text, text_free);
    if (response == NULL)
        text_free(text);
    return response;
}

enum MHD_Result http_answer_text(const struct http_client *client, unsigned status, char *text,
                                 size_t size, const char *type)
{
    return response_queue(client, status, text_response(client, text, size, text), type,
                          answer_policy);
}

enum MHD_Result http_answer_page(const struct http_client *client, const uint8_t *text, size_t size,
                                 const char *policy)
{
    return response_queue(client, MHD_HTTP_OK, text_response(client, text, size, NULL),
                          "text/html; charset=utf-8", policy);
}

enum MHD_Result http_answer_json(const struct http_client *client, unsigned status, json_t *json)
{
    char *text = json_dumps(json, JSON_COMPACT);

    json_decref(json);
    return text == NULL ? MHD_NO
                        : http_answer_text(client, status, text, strlen(text), "application/json");
}

enum MHD_Result http_answer_error(const struct http_client *client, unsigned status,
                                  const char *text)
{
    return http_answer_json(client, status, json_pack("{sb,ss}", "ok", 0, "error", text));
}

/*= rfc9110#section-15.5.6
 * The origin server MUST generate an Allow header field in a 405 response containing a list of the
 * target resource's currently supported methods. */
enum MHD_Result http_answer_allow(const struct http_client *client, const char *methods)
{
    json_t *json = json_pack("{sb,so}", "ok", 0, "error", json_sprintf("this needs %s", methods));
    char *text = json_dumps(json, JSON_COMPACT);

    json_decref(json);
    if (text == NULL)
        return MHD_NO;
    struct MHD_Response *response = text_response(client, text, strlen(text), text);
    if (response != NULL)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, methods);
    return response_queue(client, MHD_HTTP_METHOD_NOT_ALLOWED, response, "application/json",
                          answer_policy);
}

/* ---- streams: an answer of many lines, of which the last says how it ended ---- */

struct stream {
    struct http_places *places;
    struct http_seat *seat;
    enum http_role role;
    int control;
};

static ssize_t stream_read(void *context, uint64_t position, char *room, size_t size)
{
    const struct stream *stream = context;

    (void)position;
    http_seat_given(stream->places, stream->seat, false);
    ssize_t got = read(stream->control, room, size);
    http_seat_given(stream->places, stream->seat, true);
    if (got > 0)
        return got;
    return got == 0 ? MHD_CONTENT_READER_END_OF_STREAM : MHD_CONTENT_READER_END_WITH_ERROR;
}

static void stream_free(void *context)
{
    struct stream *stream = context;

    http_stream_end(stream->places, stream->seat, stream->role);
    close(stream->control);
    free(stream);
}

enum MHD_Result http_answer_stream(const struct http_client *client, int control)
{
    struct http_places *places = client->http->places;
    struct stream *stream = malloc(sizeof(*stream));

    CHECK(stream != NULL);
    *stream = (struct stream){places, client->seat, client->role, control};
    http_stream_follow(places, client->seat, control);
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, HTTP_BLOCK, stream_read, stream, stream_free);
    if (response == NULL)
        stream_free(stream);
    return response_queue(client, MHD_HTTP_OK, response, "application/x-ndjson", answer_policy);
}

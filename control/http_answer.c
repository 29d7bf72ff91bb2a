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
                        : http_answer_text(client, status, text, strlen(text), HTTP_TYPE_JSON);
}

enum MHD_Result http_answer_result(const struct http_client *client, json_t *json)
{
    bool is_ok = json_is_true(json_object_get(json, "ok"));

    return http_answer_json(client, is_ok ? MHD_HTTP_OK : MHD_HTTP_BAD_REQUEST, json);
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
    return response_queue(client, MHD_HTTP_METHOD_NOT_ALLOWED, response, HTTP_TYPE_JSON,
                          answer_policy);
}

enum MHD_Result http_answer_busy(const struct http_client *client)
{
    return http_answer_error(client, MHD_HTTP_SERVICE_UNAVAILABLE, "too many questions at once");
}

/* ---- streams: an answer of many lines, of which the last says how it ended ---- */

struct stream {
    struct http_places *places;
    struct http_seat *seat;
    enum http_role role;
    int control; /* -1: it is made here */
    struct http_source source;
};

static ssize_t stream_read(void *context, uint64_t position, char *room, size_t size)
{
    const struct stream *stream = context;

    (void)position;
    /* One that is followed is ended by others. */
    if (stream->control < 0 && http_seat_is_left(stream->places, stream->seat))
        return MHD_CONTENT_READER_END_WITH_ERROR;
    http_seat_given(stream->places, stream->seat, false);
    ssize_t got = stream->source.read(stream->source.context, room, size);
    http_seat_given(stream->places, stream->seat, true);
    return got;
}

static void stream_free(void *context)
{
    struct stream *stream = context;

    http_stream_end(stream->places, stream->control < 0 ? NULL : stream->seat, stream->role);
    stream->source.free(stream->source.context);
    free(stream);
}

static enum MHD_Result stream_answer(const struct http_client *client, int control,
                                     const struct http_source *source)
{
    struct http_places *places = client->http->places;
    struct stream *stream = malloc(sizeof(*stream));

    CHECK(stream != NULL);
    *stream = (struct stream){places, client->seat, client->role, control, *source};
    if (control >= 0)
        http_stream_follow(places, client->seat, control);
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, HTTP_BLOCK, stream_read, stream, stream_free);
    if (response == NULL)
        stream_free(stream);
    return response_queue(client, MHD_HTTP_OK, response, source->type, answer_policy);
}

static ssize_t control_read(void *context, char *room, size_t size)
{
    ssize_t got = read((int)(intptr_t)context, room, size);

    if (got > 0)
        return got;
    return got == 0 ? MHD_CONTENT_READER_END_OF_STREAM : MHD_CONTENT_READER_END_WITH_ERROR;
}

static void control_free(void *context)
{
    close((int)(intptr_t)context);
}

enum MHD_Result http_answer_stream(const struct http_client *client, int control, const char *type)
{
    const struct http_source source = {(void *)(intptr_t)control, control_read, control_free, type};

    return stream_answer(client, control, &source);
}

enum MHD_Result http_answer_source(const struct http_client *client,
                                   const struct http_source *source)
{
    return stream_answer(client, -1, source);
}

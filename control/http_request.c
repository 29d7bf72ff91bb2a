/* SPDX-License-Identifier: Apache-2.0 */
#include "control/http_request.h"

#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "control/admin_member.h"

#define NUMBER_DIGITS_MAX 18u
#define BODY_ROOM_FIRST   4096u

/* Room for so many octets, without leaving a copy of what there was. */
static void body_grow(struct http_body *body, size_t size)
{
    size_t room = body->room == 0 ? BODY_ROOM_FIRST : body->room;

    while (room < size)
        room *= 2;
    if (room <= body->room)
        return;
    char *octets = malloc(room);
    CHECK(octets != NULL);
    if (body->size > 0)
        memcpy(octets, body->octets, body->size);
    uint32_t held = body->size;
    http_body_free(body);
    body->octets = octets;
    body->size = held;
    body->room = (uint32_t)room;
}

void http_body_add(struct http_body *body, const char *octets, size_t size)
{
    if (size > body->max - body->size) {
        body->is_too_large = true;
        return;
    }
    body_grow(body, body->size + size);
    memcpy(body->octets + body->size, octets, size);
    body->size += (uint32_t)size;
}

void http_body_free(struct http_body *body)
{
    if (body->octets != NULL)
        explicit_bzero(body->octets, body->size);
    free(body->octets);
    body->octets = NULL;
    body->size = body->room = 0;
}

const char *http_request_path(const char *target, char ret_host[HTTP_HOST_SIZE])
{
    static const char *const schemes[] = {"http://", "https://"};

    for (uint32_t i = 0; i < COUNT_OF(schemes); i++) {
        if (strncasecmp(target, schemes[i], strlen(schemes[i])) != 0)
            continue;
        const char *authority = target + strlen(schemes[i]);
        size_t size = strcspn(authority, "/");
        if (authority[size] == '\0' || size == 0 || size >= HTTP_HOST_SIZE)
            return NULL;
        memcpy(ret_host, authority, size);
        ret_host[size] = '\0';
        return authority + size;
    }
    return target[0] == '/' ? target : NULL;
}

struct hosts {
    uint32_t count;
    const char *last;
};

static enum MHD_Result on_field(void *context, enum MHD_ValueKind kind, const char *name,
                                const char *value)
{
    struct hosts *hosts = context;

    (void)kind;
    if (strcasecmp(name, MHD_HTTP_HEADER_HOST) == 0) {
        hosts->count += 1;
        hosts->last = value;
    }
    return MHD_YES;
}

const char *http_request_target(const char *target, const char *version,
                                struct MHD_Connection *connection, char ret_host[HTTP_HOST_SIZE])
{
    struct hosts hosts = {0};

    MHD_get_connection_values(connection, MHD_HEADER_KIND, on_field, &hosts);
    /*= rfc9112#section-3.2
     * A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message
     * that lacks a Host header field and to any request message that contains more than one Host
     * header field line */
    bool needs_host = strcmp(version, MHD_HTTP_VERSION_1_0) != 0;
    if (hosts.count > 1 || (needs_host && hosts.count == 0) ||
        (hosts.last != NULL && strlen(hosts.last) >= HTTP_HOST_SIZE))
        return NULL;
    snprintf(ret_host, HTTP_HOST_SIZE, "%s", hosts.last == NULL ? "" : hosts.last);
    return http_request_path(target, ret_host);
}

static bool is_digits(const char *text)
{
    return text[0] != '\0' && text[strspn(text, "0123456789")] == '\0';
}

/* RFC 9110 section 5.6.2. libmicrohttpd takes "Content-Length : 9" for a field of that name, with
 * the blank, which it does not know. */
static bool is_token(const char *text)
{
    static const char signs[] = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "abcdefghijklmnopqrstuvwxyz";

    return text[0] != '\0' && text[strspn(text, signs)] == '\0';
}

static bool has_control(const char *text)
{
    for (; *text != '\0'; text++) {
        if (((unsigned char)*text < ' ' && *text != '\t') || *text == 0x7f)
            return true;
    }
    return false;
}

/* Is it the field, or what libmicrohttpd makes of one that goes on in a second line: it joins that
 * to the name, "Content-Length9". */
static bool is_field(const char *name, const char *wanted, bool *ret_is_whole)
{
    *ret_is_whole = strcasecmp(name, wanted) == 0;
    return strncasecmp(name, wanted, strlen(wanted)) == 0;
}

void http_framing_add(struct http_framing *framing, const char *name, const char *value)
{
    const char *text = value == NULL ? "" : value;
    bool is_whole = true;

    framing->is_odd |= !is_token(name) || has_control(text);
    if (is_field(name, MHD_HTTP_HEADER_CONTENT_LENGTH, &is_whole)) {
        framing->sizes++;
        framing->is_odd |= !is_whole || !is_digits(text);
    } else if (is_field(name, MHD_HTTP_HEADER_TRANSFER_ENCODING, &is_whole)) {
        framing->codings++;
        framing->is_odd |= !is_whole || strcasecmp(text, "chunked") != 0;
    }
}

bool http_framing_is_plain(const struct http_framing *framing, const char *version)
{
    /* A body in chunks is none in HTTP/1.0: a server between may take it for the next request. */
    bool has_chunks = strcmp(version, MHD_HTTP_VERSION_1_0) != 0;

    return !framing->is_odd && framing->sizes + framing->codings <= 1 &&
           (framing->codings == 0 || has_chunks);
}

static enum MHD_Result on_framing(void *context, enum MHD_ValueKind kind, const char *name,
                                  const char *value)
{
    (void)kind;
    http_framing_add(context, name, value);
    return MHD_YES;
}

bool http_request_is_plain(struct MHD_Connection *connection, const char *version)
{
    struct http_framing framing = {0};

    MHD_get_connection_values(connection, MHD_HEADER_KIND, on_framing, &framing);
    return http_framing_is_plain(&framing, version);
}

bool http_request_verb(const char *path, char ret_verb[HTTP_VERB_MAX])
{
    size_t size = strlen(path);

    if (size == 0 || size >= HTTP_VERB_MAX || path[0] == '/' || path[size - 1] == '/')
        return false;
    for (size_t i = 0; i <= size; i++) {
        bool is_letter = (path[i] >= 'a' && path[i] <= 'z') || path[i] == '_' || path[i] == '-';
        if (!is_letter && path[i] != '/' && path[i] != '\0')
            return false;
        ret_verb[i] = path[i] == '/' ? ' ' : path[i];
    }
    return true;
}

bool http_request_member(json_t *request, const char *name, const char *value)
{
    json_t *member = NULL;

    if (strcmp(name, "verb") == 0 || value == NULL)
        return false;
    switch (admin_member_kind(name)) {
    case ADMIN_MEMBER_BOOLEAN:
        if (strcmp(value, "true") == 0 || strcmp(value, "false") == 0)
            member = json_boolean(value[0] == 't');
        break;
    case ADMIN_MEMBER_NUMBER:
        if (*value != '\0' && strlen(value) <= NUMBER_DIGITS_MAX &&
            value[strspn(value, "0123456789")] == '\0')
            member = json_integer(atoll(value));
        break;
    default:
        member = json_string(value); /* NULL when it is not UTF-8 */
    }
    return member != NULL && json_object_set_new(request, name, member) == 0;
}

static json_t *request_begin(const char *path, char ret_why[HTTP_REQUEST_WHY_SIZE])
{
    char verb[HTTP_VERB_MAX];

    if (http_request_verb(path, verb))
        return json_pack("{ss}", "verb", verb);
    snprintf(ret_why, HTTP_REQUEST_WHY_SIZE, "the path names no verb: /api/v1/queue/list does");
    return NULL;
}

struct query_context {
    json_t *request;
    char *why;
    bool is_ok;
};

static enum MHD_Result on_member(void *context, enum MHD_ValueKind kind, const char *name,
                                 const char *value)
{
    struct query_context *query = context;

    (void)kind;
    if (http_request_member(query->request, name, value))
        return MHD_YES;
    query->is_ok = false;
    snprintf(query->why, HTTP_REQUEST_WHY_SIZE, "%.40s cannot have this value", name);
    return MHD_NO;
}

json_t *http_request_from_query(const char *path, struct MHD_Connection *connection,
                                char ret_why[HTTP_REQUEST_WHY_SIZE])
{
    struct query_context query = {request_begin(path, ret_why), ret_why, true};

    if (query.request == NULL)
        return NULL;
    MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, on_member, &query);
    if (query.is_ok)
        return query.request;
    json_decref(query.request);
    return NULL;
}

json_t *http_request_parse(const char *path, const char *octets, size_t size,
                           char ret_why[HTTP_REQUEST_WHY_SIZE])
{
    json_t *request = request_begin(path, ret_why);
    json_error_t error;

    if (request == NULL)
        return NULL;
    json_t *members =
        size == 0 ? json_object() : json_loadb(octets, size, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(members)) {
        snprintf(ret_why, HTTP_REQUEST_WHY_SIZE, "the body is not one JSON object: %.80s",
                 members == NULL ? error.text : "it is something else");
    } else if (json_object_get(members, "verb") != NULL) {
        snprintf(ret_why, HTTP_REQUEST_WHY_SIZE, "the path names the verb, not the body");
    } else {
        json_object_update(request, members);
        json_decref(members);
        return request;
    }
    json_decref(members);
    json_decref(request);
    return NULL;
}

json_t *http_request_from_body(const char *path, struct MHD_Connection *connection,
                               const struct http_body *body, char ret_why[HTTP_REQUEST_WHY_SIZE])
{
    static const char json[] = "application/json";
    const char *type =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_TYPE);

    if (type == NULL || strncasecmp(type, json, strlen(json)) != 0 ||
        (type[strlen(json)] != '\0' && type[strlen(json)] != ';' && type[strlen(json)] != ' ')) {
        snprintf(ret_why, HTTP_REQUEST_WHY_SIZE, "the Content-Type must be application/json");
        return NULL;
    }
    return http_request_parse(path, body->octets, body->size, ret_why);
}

bool http_request_is_stream(const json_t *request)
{
    const char *verb = json_string_value(json_object_get(request, "verb"));

    return json_is_true(json_object_get(request, "stream")) || strcmp(verb, "queue cat") == 0 ||
           strcmp(verb, "trace") == 0;
}

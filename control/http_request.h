/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_HTTP_REQUEST_H
#define CONTROL_HTTP_REQUEST_H

#include <jansson.h>
#include <stdbool.h>

#include "control/http.h"

/*
 * A request over HTTP as the question that the control socket understands. The path names the verb:
 * /api/v1/queue/list is "queue list". Everything here is judged by the relay once more; here it is
 * made sure that it is one line of JSON of the right types.
 */
struct MHD_Connection;

#define HTTP_API_PREFIX       "/api/v1/"
#define HTTP_REQUEST_WHY_SIZE 128u
#define HTTP_VERB_MAX         64u
#define HTTP_HOST_SIZE        300u /* a name, a port, and an end */

struct http_body {
    uint32_t size, room, max;
    bool is_too_large;
    char *octets;
};

void http_body_add(struct http_body *body, const char *octets, size_t size);
/** Nothing of it stays in memory. */
void http_body_free(struct http_body *body);

/* What the fields of a request say of where its body ends. */
struct http_framing {
    uint32_t sizes, codings; /* fields that say it */
    bool is_odd;             /* one says it in another way than all read alike */
};

/** A field of the request, as it came. */
void http_framing_add(struct http_framing *framing, const char *name, const char *value);
/** Everybody who reads the request agrees where it ends. */
bool http_framing_is_plain(const struct http_framing *framing, const char *version);
/** If not, nobody knows where its body ends, and another request begins. */
bool http_request_is_plain(struct MHD_Connection *connection, const char *version);
/**
 * The path of a target, and whose it is: the Host field, or what a target in absolute form names
 * instead (RFC 9112 section 3.2.2). `ret_host` is "" without any. NULL: it has no path, a host that
 * is too long, several Host fields, or none in HTTP/1.1.
 */
const char *http_request_target(const char *target, const char *version,
                                struct MHD_Connection *connection, char ret_host[HTTP_HOST_SIZE]);
/** The path of a target in absolute form, whose authority is taken to `ret_host`; of another
 * target, the target, and `ret_host` is left alone. NULL: as above. */
const char *http_request_path(const char *target, char ret_host[HTTP_HOST_SIZE]);
/** The verb that a path behind the prefix names. False: it cannot name one. */
bool http_request_verb(const char *path, char ret_verb[HTTP_VERB_MAX]);
/** One member of a question from text, of the type that it has (admin_member.h); one that there is
 * not is text. False: it cannot be that. */
bool http_request_member(json_t *request, const char *name, const char *value);

/** The question, the caller's; NULL with text in ret_why. */
json_t *http_request_from_query(const char *path, struct MHD_Connection *connection,
                                char ret_why[HTTP_REQUEST_WHY_SIZE]);
json_t *http_request_from_body(const char *path, struct MHD_Connection *connection,
                               const struct http_body *body, char ret_why[HTTP_REQUEST_WHY_SIZE]);
/** As http_request_from_body(), for a body known to be JSON. */
json_t *http_request_parse(const char *path, const char *octets, size_t size,
                           char ret_why[HTTP_REQUEST_WHY_SIZE]);
/** Does its answer have many lines? */
bool http_request_is_stream(const json_t *request);

#endif

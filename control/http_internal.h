/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_HTTP_INTERNAL_H
#define CONTROL_HTTP_INTERNAL_H

#include <jansson.h>
#include <microhttpd.h>

#include "control/http.h"
#include "control/http_places.h"

/*
 * Shared by the files of the management interface: http.c (requests), http_serve.c (verbs),
 * http_ask.c (questions to the relay), http_answer.c (what goes out), http_listen.c (sockets), and
 * http_places.c.
 */
struct http {
    const struct config *relay; /* as it was started: what is in it that a restart changes */
    const char *config_path;
    const struct config_http *config; /* of `relay` */
    const char *control_socket;
    struct starter *starter; /* NULL: there is none */
    struct MHD_Daemon *listener,
        *local;          /* over TCP, and over the Unix socket; NULL: not that way */
    bool is_path_others; /* the Unix socket's name is not ours to remove */
    int quiet[2];        /* descriptors that are listened on no more; -1: none */
    struct http_places *places;
};

/* Whom an answer is for. */
struct http_client {
    struct http *http;
    struct MHD_Connection *connection;
    struct http_seat *seat;
    enum http_role role;
};

#define HTTP_TYPE_JSON  "application/json"
#define HTTP_TYPE_LINES "application/x-ndjson"

/* What makes a stream. */
struct http_source {
    void *context;
    /* At most `size` octets, or as libmicrohttpd's readers. */
    ssize_t (*read)(void *context, char *room, size_t size);
    void (*free)(void *context);
    const char *type; /* of what it makes */
};

/* ---- http_ask.c ---- */
/** What the relay says to it, as it says it. */
enum MHD_Result http_answer_relay(const struct http_client *client, const json_t *request);
enum MHD_Result http_answer_metrics(const struct http_client *client);
/** A text as it came, the caller's. NULL: there is none, perhaps for want of a place. */
char *http_question(const struct http_client *client, const json_t *request, size_t *ret_size,
                    bool *ret_is_busy);
/** The same; NULL: there is none, and `*ret_result` is of what was answered instead. */
char *http_ask(const struct http_client *client, const json_t *request, size_t *ret_size,
               enum MHD_Result *ret_result);
/** The same as a tree; a refusal, too. */
json_t *http_ask_json(const struct http_client *client, const json_t *request,
                      enum MHD_Result *ret_result);

/* ---- http_answer.c ---- */
enum MHD_Result http_answer_busy(const struct http_client *client);
enum MHD_Result http_answer_error(const struct http_client *client, unsigned status,
                                  const char *text);
/** 405: the method is none of these, which are those of what was asked for. */
enum MHD_Result http_answer_allow(const struct http_client *client, const char *methods);
/** Consumes `json`, whose "ok" decides: 200, or 400. */
enum MHD_Result http_answer_result(const struct http_client *client, json_t *json);
/** Consumes `json`. */
enum MHD_Result http_answer_json(const struct http_client *client, unsigned status, json_t *json);
/** Consumes `text`, from malloc(). */
enum MHD_Result http_answer_text(const struct http_client *client, unsigned status, char *text,
                                 size_t size, const char *type);
/** Constant octets; `policy`: what a browser may do with them (Content-Security-Policy). */
enum MHD_Result http_answer_page(const struct http_client *client, const uint8_t *text, size_t size,
                                 const char *policy);
/** What comes over `control`, as it comes; it is closed at the end, and the place that
 * http_stream_begin() took is free again. */
enum MHD_Result http_answer_stream(const struct http_client *client, int control, const char *type);
/** The same of what is made here; `source->free` is called. */
enum MHD_Result http_answer_source(const struct http_client *client,
                                   const struct http_source *source);

/* ---- http_listen.c: a descriptor, or -1 with text ---- */
int http_listen_on(const struct flow_address *address, char ret_why[HTTP_WHY_SIZE]);
int http_listen_at(const char *path, char ret_why[HTTP_WHY_SIZE]);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_HTTP_INTERNAL_H
#define CONTROL_HTTP_INTERNAL_H

#include <jansson.h>
#include <microhttpd.h>

#include "control/http.h"
#include "control/http_places.h"

/*
 * Shared by the files of the management interface: http.c (requests and questions), http_answer.c
 * (what goes out), http_listen.c (sockets), and http_places.c.
 */
struct http {
    const struct config_http *config;
    const char *control_socket;
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

/* ---- http_answer.c ---- */
enum MHD_Result http_answer_error(const struct http_client *client, unsigned status,
                                  const char *text);
/** 405: the method is none of these, which are those of what was asked for. */
enum MHD_Result http_answer_allow(const struct http_client *client, const char *methods);
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
enum MHD_Result http_answer_stream(const struct http_client *client, int control);

/* ---- http_listen.c: a descriptor, or -1 with text ---- */
int http_listen_on(const struct flow_address *address, char ret_why[HTTP_WHY_SIZE]);
int http_listen_at(const char *path, char ret_why[HTTP_WHY_SIZE]);

#endif

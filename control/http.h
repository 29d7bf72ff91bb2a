/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_HTTP_H
#define CONTROL_HTTP_H

#include "control/config.h"

/*
 * The management interface over HTTP: the verbs of the control socket under /api/v1/, and /metrics
 * for Prometheus. See http.c. Its threads are libmicrohttpd's; they carry no mail and never touch a
 * shard: every question goes through the control socket, as the command line's do, and what the
 * command line does by itself is done in them.
 */
#define HTTP_WHY_SIZE 512u
#define HTTP_BODY_MAX 4000u      /* octets of a request: the control socket takes no longer ones */
#define HTTP_TEXT_MAX (2u << 20) /* of one with a configuration in it: 1 MiB, escaped */

struct http;
struct starter;

/* Listening sockets of the relay whose place this one takes; -1: none. */
struct http_place {
    int listener, local;
};

/** Nothing when neither `listen` nor `socket` is given: *ret_http is NULL then.
 *
 * `config_path`: the file that `relay` is of; `starter`: NULL: none.
 *
 * With a `place` (else NULL) its sockets are used where there are some; they are not closed with an
 * error, and else are this one's.
 *
 * Ownership: configuration, path and starter stay the caller's and outlive this.
 * Errors:    ERR_SYSTEM, ERR_CONFIG_VALUE, with text in ret_why.
 */
enum err http_new(const struct config *relay, const char *config_path, struct starter *starter,
                  const struct http_place *place, struct http **ret_http,
                  char ret_why[HTTP_WHY_SIZE]) MUST_CHECK;
/** What it listens on. NULL is legal. */
struct http_place http_listeners(const struct http *http);
/** This place is ours now: its Unix socket goes with us. NULL is legal, as below. */
void http_take_over(struct http *http);
/** Another process goes on with what we listen on. */
void http_leave(struct http *http);
/** Takes no more requests, ends those under way. The control socket must still be served, or be
 * closed: threads may be asking it. NULL is legal. */
void http_free(struct http *http);

#endif

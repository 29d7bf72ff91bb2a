/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_HTTP_ACCESS_H
#define CONTROL_HTTP_ACCESS_H

#include <stdbool.h>

#include "base/err.h"

/*
 * Who may do what over HTTP. Two roles: a viewer reads numbers and who waits for whom; an admin
 * also reads mail and gives orders. A client shows a token, or comes over the Unix socket as root
 * or as the relay's own user, which makes it an admin.
 */
enum http_role { HTTP_ROLE_NONE, HTTP_ROLE_VIEWER, HTTP_ROLE_ADMIN };

#define HTTP_TOKEN_SIZE 513u /* the longest, and its end */

struct http_access {
    char viewer[HTTP_TOKEN_SIZE], admin[HTTP_TOKEN_SIZE]; /* "": nobody has it */
};

/**
 * Read a token: the first line of a file, printable ASCII without spaces, 16 to 512 octets.
 * Errors: ERR_SYSTEM with errno; ERR_CONFIG_VALUE for what cannot be a token.
 */
enum err http_token_read(const char *path, char ret_token[HTTP_TOKEN_SIZE]) MUST_CHECK;
/** The role that an Authorization field brings ("Bearer TOKEN", RFC 6750 section 2.1); NULL: none.
 * Takes the same time for every token of a length. */
enum http_role http_access_of_field(const struct http_access *access, const char *field);
/** The role of the process at the other end of a connected Unix socket. */
enum http_role http_access_of_peer(int fd);
/**
 * Is this Host field one that only a client of this machine sends? No field, a name without a dot,
 * an address of loopback. A browser that is led here by another site's page over a forwarded Unix
 * socket sends that site's name: nobody's place says that it may give orders.
 */
bool http_access_host_is_local(const char *host);
/**
 * May a page of this Origin give orders at `host`? Without the field it is no browser that asks, or
 * one that asks the page's own server by GET (RFC 6454 section 7).
 */
bool http_access_origin_is_own(const char *origin, const char *host);
/** What a verb needs; the admin, what is none. */
enum http_role http_access_needed(const char *verb);

#endif

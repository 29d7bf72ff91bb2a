/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_HTTP_SERVE_H
#define CONTROL_HTTP_SERVE_H

#include "control/http_internal.h"

/*
 * The verbs over HTTP: what the command line asks the relay is asked here, too; what it does by
 * itself, on files or screens of its own, is done here in a form that makes sense over HTTP. No
 * path comes from a request, and no file is opened for what a text says.
 */

/** Answer a request that its asker may make. */
enum MHD_Result http_serve(const struct http_client *client, const json_t *request);
/** May a request to this path bring a text of HTTP_TEXT_MAX octets? NULL: it may not. */
bool http_path_takes_text(const char *path);
/** May it bring a password? NULL: it may not. */
bool http_path_is_secret(const char *path);

/* ---- http_secret.c ---- */
/** Once, before there is a tree of JSON. */
void http_secret_init(void);
/** What trees of JSON had in memory on this thread is wiped when it is freed, until the end. */
void http_secret_begin(void);
void http_secret_end(void);

/* ---- who serves what: each answers one verb ---- */

/* http_help.c */
enum MHD_Result http_serve_help(const struct http_client *client, const json_t *request);
enum MHD_Result http_serve_version(const struct http_client *client, const json_t *request);
/* http_config.c */
enum MHD_Result http_serve_check(const struct http_client *client, const json_t *request);
enum MHD_Result http_serve_config(const struct http_client *client, const json_t *request);
enum MHD_Result http_serve_import(const struct http_client *client, const json_t *request);
/* http_records.c */
enum MHD_Result http_serve_records_find(const struct http_client *client, const json_t *request);
enum MHD_Result http_serve_records_print(const struct http_client *client, const json_t *request);
/* http_spool.c */
enum MHD_Result http_serve_spool(const struct http_client *client, const json_t *request);
enum MHD_Result http_serve_spool_in_use(const struct http_client *client, const json_t *request);
/* http_user.c */
enum MHD_Result http_serve_user_hash(const struct http_client *client, const json_t *request);
/* http_top.c */
enum MHD_Result http_serve_top(const struct http_client *client, const json_t *request);
/* http_capture.c */
enum MHD_Result http_serve_capture(const struct http_client *client, const json_t *request);
/* http_upgrade.c */
enum MHD_Result http_serve_upgrade(const struct http_client *client, const json_t *request);

#endif

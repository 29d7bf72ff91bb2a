/* SPDX-License-Identifier: Apache-2.0 */
/* The hash of a password over HTTP. It is in no log, and nowhere in memory afterwards (http.c). */
#include <string.h>

#include "control/cli_user.h"
#include "control/http_serve.h"

enum MHD_Result http_serve_user_hash(const struct http_client *client, const json_t *request)
{
    const json_t *password = json_object_get(request, "password");
    bool is_scram = json_is_true(json_object_get(request, "scram"));
    size_t size = json_string_length(password);
    char hash[AUTH_HASH_MAX + 1];

    /* As it is read on the command line: a line. */
    if (size == 0 || size > user_password_max(is_scram) ||
        strcspn(json_string_value(password), "\r\n") != size)
        return http_answer_error(
            client, MHD_HTTP_BAD_REQUEST,
            "expected a password of 1 to 511 octets, or with `scram` 1,024, in one "
            "line");
    if (!user_hash_make(json_string_value(password), is_scram, hash))
        return http_answer_error(client, MHD_HTTP_INTERNAL_SERVER_ERROR,
                                 "no randomness or no memory");
    return http_answer_json(client, MHD_HTTP_OK, json_pack("{sb,ss}", "ok", 1, "hash", hash));
}

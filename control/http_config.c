/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configurations over HTTP: the relay's own file as it lies on the disk, which is what the command
 * line reads, too; or texts that come with the request. What differs from what runs is what a dry
 * run of `reload` tells.
 *
 * The relay's user can read keys and passwords. So a text that somebody sends makes it open
 * nothing: neither what it includes, nor certificates, tables of transports or whatever else it
 * names (config_check.h).
 *
 * Bounds: HTTP_TEXT_MAX of a request; CONFIG_FILE_SIZE_MAX of a configuration; POSTFIX_TEXT_MAX of
 * each of Postfix's files, as names within names are looked up one by one.
 */
#include <stdlib.h>
#include <string.h>

#include "control/config_check.h"
#include "control/config_show.h"
#include "control/http_serve.h"
#include "control/postfix_import.h"

#define POSTFIX_TEXT_MAX 262144u
#define NOTE             "#   "

static struct span text_of(const json_t *request, const char *member)
{
    const json_t *text = json_object_get(request, member);

    return json_is_string(text)
               ? span_of(json_string_value(text), (uint32_t)json_string_length(text))
               : (struct span){0};
}

enum MHD_Result http_serve_check(const struct http_client *client, const json_t *request)
{
    if (json_object_get(request, "text") == NULL)
        return http_answer_result(client, config_check_file(client->http->config_path));
    return http_answer_result(client, config_check_text(text_of(request, "text")));
}

enum MHD_Result http_serve_config(const struct http_client *client, const json_t *request)
{
    (void)request;
    return http_answer_result(client, config_show_json(client->http->config_path));
}

/* ---- from Postfix ---- */

/* The two texts under their names; of whatever else they name there is nothing. */
static uint8_t *on_read(void *context, const char *path, uint32_t *ret_size)
{
    const json_t *request = context;
    struct span text = strcmp(path, "/main.cf") == 0     ? text_of(request, "main_cf")
                       : strcmp(path, "/master.cf") == 0 ? text_of(request, "master_cf")
                                                         : (struct span){0};
    uint8_t *copy = text.data == NULL ? NULL : malloc(text.size + 1);

    if (copy == NULL)
        return NULL;
    memcpy(copy, text.data, text.size);
    *ret_size = text.size;
    return copy;
}

/* What has no counterpart: comments behind the configuration. */
static json_t *notes_new(const char *text)
{
    json_t *notes = json_array();

    while (*text != '\0') {
        size_t size = strcspn(text, "\n");
        if (strncmp(text, NOTE, strlen(NOTE)) == 0)
            json_array_append_new(notes, json_stringn(text + strlen(NOTE), size - strlen(NOTE)));
        text += size + (text[size] == '\n');
    }
    return notes;
}

static json_t *import_new(const json_t *request)
{
    struct postfix_import_source source = {.context = (void *)(uintptr_t)request, .read = on_read};
    char why[POSTFIX_IMPORT_WHY_SIZE], *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    CHECK(out != NULL);
    enum err err = postfix_import(&source, "", out, why);
    CHECK(fclose(out) == 0);
    json_t *answer = err == ERR_OK ? json_pack("{sb,ss,so}", "ok", 1, "configuration", text,
                                               "notes", notes_new(text))
                                   : json_pack("{sb,ss}", "ok", 0, "error", why);
    free(text);
    return answer;
}

enum MHD_Result http_serve_import(const struct http_client *client, const json_t *request)
{
    static const char *const members[] = {"main_cf", "master_cf"};

    for (uint32_t i = 0; i < COUNT_OF(members); i++) {
        struct span text = text_of(request, members[i]);
        if (text.data == NULL)
            return http_answer_error(client, MHD_HTTP_BAD_REQUEST,
                                     "main_cf and master_cf: the texts of Postfix's files");
        if (text.size > POSTFIX_TEXT_MAX)
            return http_answer_error(client, MHD_HTTP_CONTENT_TOO_LARGE,
                                     "a file of Postfix with more than 262,144 octets");
    }
    return http_answer_result(client, import_new(request));
}

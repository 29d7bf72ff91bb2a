/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One message for people, or for a pipe: lines of JSON come in, one is in memory at a time.
 *
 * What peers wrote is escaped in the lines of the envelope always, in the message itself only where
 * it would reach a terminal: into a file or a pipe its octets go as they are.
 */
#include "control/cli_cat.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/base64.h"
#include "base/log.h"
#include "control/cli_print.h"
#include "queue/envelope.h"

#define TEXT_SIZE (4 * ENVELOPE_CLIENT_SIZE_MAX + 1)

struct cat {
    FILE *out;
    wall_us now;
    bool is_json, is_terminal;
    bool is_gap_due; /* an empty line, before octets */
    bool is_over, is_refused, is_damaged;
};

static const char *text_of(const json_t *object, const char *name, char text[TEXT_SIZE])
{
    const json_t *value = json_object_get(object, name);

    return log_escape(span_of(json_is_string(value) ? json_string_value(value) : "",
                              (uint32_t)json_string_length(value)),
                      text, TEXT_SIZE);
}

/* Without a value, no line. */
static void line_print(const struct cat *cat, const char *title, const json_t *object,
                       const char *name)
{
    char text[TEXT_SIZE];

    if (*text_of(object, name, text) != '\0')
        fprintf(cat->out, "%-10s %s\n", title, text);
}

static const char *time_format(int64_t us, char ret_text[32])
{
    time_t seconds = (time_t)(us / 1000000);
    struct tm parts;

    if (gmtime_r(&seconds, &parts) == NULL ||
        strftime(ret_text, 32, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0)
        (void)snprintf(ret_text, 32, "%" PRId64, us);
    return ret_text;
}

/* "a, b" */
static void names_print(const struct cat *cat, const char *before, const json_t *names)
{
    char text[TEXT_SIZE];

    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        fprintf(cat->out, "%s%s", i == 0 ? before : ", ",
                log_escape(span_from_text(name == NULL ? "" : name), text, sizeof(text)));
    }
}

static void message_print(const struct cat *cat, const json_t *message)
{
    int64_t arrived = cli_number(message, NULL, "arrived_us");
    int64_t expires = cli_number(message, NULL, "expires_us");
    const json_t *flags = json_object_get(message, "flags");
    char text[TEXT_SIZE], when[32], age[24];

    line_print(cat, "id", message, "id");
    fprintf(cat->out, "arrived    %s, %s ago\n", time_format(arrived, when),
            cli_age_format(cat->now - arrived, age));
    fprintf(cat->out, "expires    %s, in %s\n", time_format(expires, when),
            cli_left_format(expires - cat->now, age));
    fprintf(cat->out, "sender     <%s>\n", text_of(message, "sender", text));
    line_print(cat, "client", message, "client");
    line_print(cat, "class", message, "class_name");
    line_print(cat, "source", message, "source");
    fprintf(cat->out, "size       %" PRId64 ", header %" PRId64 "\n",
            cli_number(message, NULL, "size"), cli_number(message, NULL, "header_size"));
    names_print(cat, "flags      ", flags);
    if (json_array_size(flags) > 0)
        fprintf(cat->out, "\n");
    line_print(cat, "envid", message, "envid");
}

static void row_print(const struct cat *cat, const json_t *row)
{
    char text[TEXT_SIZE];

    fprintf(cat->out, "recipient  <%s>", text_of(row, "recipient", text));
    fprintf(cat->out, ", %s", text_of(row, "state", text));
    fprintf(cat->out, ", attempts %" PRId64, cli_number(row, NULL, "attempts"));
    fprintf(cat->out, ", to %s", text_of(row, "domain", text));
    if (*text_of(row, "site", text) != '\0')
        fprintf(cat->out, ", site %s", text);
    fprintf(cat->out, "\n");
    names_print(cat, "           NOTIFY ", json_object_get(row, "notify"));
    if (json_array_size(json_object_get(row, "notify")) > 0)
        fprintf(cat->out, "\n");
    if (*text_of(row, "orcpt", text) != '\0')
        fprintf(cat->out, "           ORCPT %s\n", text);
}

/* For a terminal: lines stay lines, what could command it does not reach it. */
static void escaped_write(FILE *out, const uint8_t *octets, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++) {
        uint8_t octet = octets[i];
        bool is_line_end = octet == '\r' && i + 1 < size && octets[i + 1] == '\n';
        if (is_line_end)
            continue;
        if (octet == '\n' || octet == '\t' || (octet >= ' ' && octet <= '~'))
            fputc(octet, out);
        else
            fprintf(out, "\\x%02x", octet);
    }
}

static void octets_print(struct cat *cat, const json_t *value)
{
    uint32_t text_size = (uint32_t)json_string_length(value), size = 0;
    uint8_t *octets = malloc(text_size / 4 * 3 + 1);

    if (octets == NULL ||
        base64_decode(span_of(json_string_value(value), text_size), octets, &size) != ERR_OK)
        cat->is_damaged = true;
    if (size > 0 && cat->is_gap_due)
        fputc('\n', cat->out);
    cat->is_gap_due = false;
    if (cat->is_terminal)
        escaped_write(cat->out, octets, size);
    else if (size > 0)
        (void)fwrite(octets, 1, size, cat->out); /* ferror() remembers */
    free(octets);
}

static void answer_take(struct cat *cat, const json_t *answer)
{
    const json_t *ok = json_object_get(answer, "ok");
    const char *error = json_string_value(json_object_get(answer, "error"));

    cat->is_over = json_is_true(ok);
    cat->is_refused = json_is_false(ok);
    if (cat->is_refused)
        fprintf(stderr, "angarium: %s\n", error == NULL ? "failed" : error);
}

static void line_take(struct cat *cat, const json_t *line)
{
    const json_t *message = json_object_get(line, "message"), *row = json_object_get(line, "row");
    const json_t *octets = json_object_get(line, "octets");

    if (json_object_get(line, "ok") != NULL) {
        answer_take(cat, line);
    } else if (cat->is_json && line != NULL) {
        json_dumpf(line, cat->out, JSON_COMPACT);
        fputc('\n', cat->out);
    } else if (message != NULL) {
        message_print(cat, message);
        cat->is_gap_due = true;
    } else if (row != NULL) {
        row_print(cat, row);
    } else if (json_is_string(octets)) {
        octets_print(cat, octets);
    } else {
        cat->is_damaged = true;
    }
}

bool cli_cat_print(FILE *in, bool is_json, wall_us now, FILE *out)
{
    struct cat cat = {.out = out, .now = now, .is_json = is_json};
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;

    cat.is_terminal = isatty(fileno(out));
    while (!cat.is_damaged && !ferror(out) && (size = getline(&line, &capacity, in)) > 0) {
        json_t *json = json_loadb(line, (size_t)size, 0, NULL);
        line_take(&cat, json);
        json_decref(json);
    }
    free(line);
    bool is_written = fflush(out) == 0 && !ferror(out);
    if (!is_written)
        fprintf(stderr, "angarium: the message could not be written\n");
    else if (!cat.is_over && !cat.is_refused)
        fprintf(stderr, "angarium: the answer ended early\n");
    return cat.is_over && is_written && !cat.is_damaged;
}

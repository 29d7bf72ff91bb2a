/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversations for people: `C:` is what the client says and `S:` the server, whichever of them is
 * the relay; `--` is what happened besides. Times are UTC's.
 */
#include "control/cli_trace.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "control/ask.h"

static const char *member(const json_t *row, const char *name)
{
    const char *text = json_string_value(json_object_get(row, name));

    return text == NULL ? "" : text;
}

static const char *sign_of(const char *speaker)
{
    if (strcmp(speaker, "client") == 0)
        return "C:";
    return strcmp(speaker, "server") == 0 ? "S:" : "--";
}

static void row_print(const json_t *row, FILE *out)
{
    json_int_t time_us = json_integer_value(json_object_get(row, "time_us"));
    time_t seconds = (time_t)(time_us / 1000000);
    const char *id = member(row, "id");
    struct tm parts;
    char clock[16];

    if (gmtime_r(&seconds, &parts) == NULL ||
        strftime(clock, sizeof(clock), "%H:%M:%S", &parts) == 0)
        clock[0] = '\0';
    fprintf(out, "%s.%06d %s %s %s%s%s %s %s%s\n", clock, (int)(time_us % 1000000),
            strcmp(member(row, "side"), "inbound") == 0 ? "in " : "out", member(row, "session"),
            member(row, "peer"), id[0] == '\0' ? "" : " ", id, sign_of(member(row, "speaker")),
            member(row, "text"),
            json_is_true(json_object_get(row, "cut")) ? " [the rest is not shown]" : "");
}

static void lost_print(json_int_t lost, FILE *out)
{
    fprintf(out, "-- %lld lines were lost here: more was said than is read\n", (long long)lost);
}

/* One line of the answer. True: it was the last one, and fine. */
static bool line_print(const json_t *line, bool is_json, FILE *out)
{
    const json_t *row = json_object_get(line, "row"), *lost = json_object_get(line, "lost");
    bool is_end = json_object_get(line, "ok") != NULL;

    if (json_is_false(json_object_get(line, "ok"))) {
        fprintf(stderr, "angarium: %s\n", member(line, "error"));
    } else if (is_json && (row != NULL || lost != NULL)) {
        json_dumpf(row != NULL ? row : line, out, JSON_COMPACT);
        fputc('\n', out);
    } else if (is_end) {
        fprintf(out, "-- %lld lines, %lld lost\n",
                (long long)json_integer_value(json_object_get(line, "lines")),
                (long long)json_integer_value(lost));
    } else if (row != NULL) {
        row_print(row, out);
    } else if (lost != NULL) {
        lost_print(json_integer_value(lost), out);
    }
    return is_end;
}

bool cli_trace_print(FILE *in, bool is_json, FILE *out)
{
    bool is_over = false, is_ok = false;
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;

    while (!ferror(out) && (size = getline(&line, &capacity, in)) > 0) {
        json_t *json = json_loadb(line, (size_t)size, 0, NULL);
        is_over = line_print(json, is_json, out);
        is_ok = json_is_true(json_object_get(json, "ok"));
        json_decref(json);
        (void)fflush(out);
    }
    int error = errno;
    free(line);
    if (ferror(out))
        fprintf(stderr, "angarium: what was said could not be written\n");
    else if (!is_over && ferror(in) && error == EAGAIN)
        fprintf(stderr, "angarium: the relay has given no sign of itself for %d s\n", ASK_TIME_S);
    else if (!is_over)
        fprintf(stderr, "angarium: the relay has ended\n");
    return is_ok && !ferror(out);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `angarium top` shows, as samples: of two looks at the status, a second apart, how fast each
 * counter rose, the later of the two, and the largest groups of mail that waits.
 *
 *   {"ok":true, "interval_us":1000213, "rates":{"server":{"messages_accepted":12.5, ...}, ...},
 *    "status":{...}, "groups":[...]}
 *
 * One, or with `stream` a line each second until the client leaves, or the relay gives no answer.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "control/ask.h"
#include "control/cli_print.h"
#include "control/http_serve.h"

#define GROUPS 20

enum type { GAUGE, COUNTER };

static const struct {
    const char *group, *name;
    enum type type;
} numbers[] = {
#define STATUS(group, name, type, help) {#group, #name, type},
#include "control/status.def"
};

struct top {
    struct http_client client;
    json_t *before; /* the status a second ago; NULL: not yet */
    json_t *groups; /* the question */
    char *line;     /* of which `at` octets are given; NULL: none */
    size_t at, size;
    bool is_over; /* what was asked for is refused */
};

static json_t *look(const struct top *top, const json_t *question)
{
    size_t size = 0;
    bool is_busy;
    char *text = http_question(&top->client, question, &size, &is_busy);
    json_t *answer = text == NULL ? NULL : json_loadb(text, size, 0, NULL);

    free(text);
    return answer;
}

static json_t *status_look(const struct top *top)
{
    json_t *question = json_pack("{ss,si}", "verb", "status", "max_age_ms", ASK_AGE_MS);
    json_t *answer = look(top, question);

    json_decref(question);
    if (json_is_true(json_object_get(answer, "ok")))
        return answer;
    json_decref(answer);
    return NULL;
}

static json_t *rates_new(const json_t *before, const json_t *status, int64_t interval_us)
{
    json_t *rates = json_object();

    for (uint32_t i = 0; i < COUNT_OF(numbers); i++) {
        json_t *group = json_object_get(rates, numbers[i].group);
        int64_t risen = cli_number(status, numbers[i].group, numbers[i].name) -
                        cli_number(before, numbers[i].group, numbers[i].name);
        if (numbers[i].type != COUNTER)
            continue;
        if (group == NULL) {
            group = json_object();
            json_object_set_new(rates, numbers[i].group, group);
        }
        double rate =
            risen <= 0 || interval_us <= 0 ? 0 : (double)risen * 1e6 / (double)interval_us;
        json_object_set_new(group, numbers[i].name, json_real(rate));
    }
    return rates;
}

/* NULL: the relay gives no answer. */
static json_t *sample_new(struct top *top)
{
    const struct timespec interval = {.tv_sec = 1};

    if (top->before == NULL)
        top->before = status_look(top);
    (void)nanosleep(&interval, NULL);
    json_t *status = top->before == NULL ? NULL : status_look(top);
    json_t *groups = status == NULL ? NULL : look(top, top->groups);
    bool is_ok = json_is_true(json_object_get(groups, "ok"));
    json_t *answer = groups == NULL || is_ok ? NULL : json_incref(groups); /* `by` of what? */

    if (is_ok) {
        int64_t interval_us =
            cli_number(status, NULL, "uptime_us") - cli_number(top->before, NULL, "uptime_us");
        answer = json_pack("{sb,sI,so,sO,sO}", "ok", 1, "interval_us", (json_int_t)interval_us,
                           "rates", rates_new(top->before, status, interval_us), "status", status,
                           "groups", json_object_get(groups, "rows"));
    }
    json_decref(groups);
    json_decref(top->before);
    top->before = status;
    return answer;
}

/* ---- a stream of them ---- */

static bool line_next(struct top *top)
{
    json_t *sample = sample_new(top);

    free(top->line);
    top->line = sample == NULL ? NULL : json_dumps(sample, JSON_COMPACT | JSON_REAL_PRECISION(6));
    top->at = 0;
    top->size = top->line == NULL ? 0 : strlen(top->line);
    if (top->line != NULL)
        top->line[top->size++] = '\n'; /* instead of its NUL */
    top->is_over = !json_is_true(json_object_get(sample, "ok"));
    json_decref(sample);
    return top->line != NULL;
}

static ssize_t top_read(void *context, char *room, size_t room_size)
{
    struct top *top = context;

    if (top->at == top->size && (top->is_over || !line_next(top)))
        return MHD_CONTENT_READER_END_OF_STREAM;
    size_t left = top->size - top->at, size = left < room_size ? left : room_size;
    memcpy(room, top->line + top->at, size);
    top->at += size;
    return (ssize_t)size;
}

static void top_free(void *context)
{
    struct top *top = context;

    json_decref(top->before);
    json_decref(top->groups);
    free(top->line);
    free(top);
}

static struct top *top_new(const struct http_client *client, const json_t *request)
{
    const char *by = json_string_value(json_object_get(request, "by"));
    json_t *limit = json_object_get(request, "limit");
    struct top *top = calloc(1, sizeof(*top));

    CHECK(top != NULL);
    top->client = *client;
    top->groups = json_pack("{ss,ss,si}", "verb", "queue summary", "by", by == NULL ? "site" : by,
                            "max_age_ms", ASK_AGE_MS);
    json_object_set_new(top->groups, "limit",
                        limit == NULL ? json_integer(GROUPS) : json_incref(limit));
    return top;
}

/* What is refused is no stream. Consumes `top`. */
static enum MHD_Result stream_answer(const struct http_client *client, struct top *top)
{
    const struct http_source source = {top, top_read, top_free, HTTP_TYPE_LINES};
    json_t *groups = look(top, top->groups);
    bool is_ok = json_is_true(json_object_get(groups, "ok"));

    if (groups != NULL && !is_ok) {
        top_free(top);
        return http_answer_result(client, groups);
    }
    json_decref(groups);
    if (is_ok && http_stream_begin(client->http->places, client->role))
        return http_answer_source(client, &source);
    top_free(top);
    return http_answer_busy(client);
}

enum MHD_Result http_serve_top(const struct http_client *client, const json_t *request)
{
    struct top *top = top_new(client, request);

    if (json_is_true(json_object_get(request, "stream")))
        return stream_answer(client, top);
    json_t *sample = sample_new(top);
    top_free(top);
    if (sample == NULL)
        return http_answer_error(client, MHD_HTTP_SERVICE_UNAVAILABLE, "the relay gives no answer");
    return http_answer_result(client, sample);
}

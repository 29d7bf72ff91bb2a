/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the dashboard of the terminal asks the relay: the status and the page on top, once an
 * interval. Rows are put in the order shown, and text is wrapped.
 *
 * Limits: GROUPS_MAX groups, MESSAGES_MAX messages; what is beyond is not shown, and the totals say
 * how much there is. A relay that gives no answer is asked again; the last numbers stay, and it is
 * said that they are old.
 */
#include "control/cli_top_state.h"

#include <errno.h>
#include <ncurses.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/ask.h"

#define GROUPS_MAX   1000
#define MESSAGES_MAX 200
#define WRAP_INDENT  11u

static json_t *top_ask(struct top *top, json_t *request)
{
    if (top->is_in_turn)
        json_object_set_new(request, "max_age_ms", json_integer(ASK_AGE_MS));
    int fd = ask_connect(top->socket_path);
    json_t *answer = fd >= 0 && ask_send(fd, request) ? ask_receive(fd) : NULL;
    int error = errno;

    json_decref(request);
    if (fd >= 0)
        close(fd);
    if (answer == NULL)
        (void)snprintf(top->message, sizeof(top->message), "no answer from %.60s: %.40s",
                       top->socket_path, strerror(error));
    return answer;
}

/* As top_ask(), but what the relay refuses is no answer either. */
static json_t *top_get(struct top *top, json_t *request)
{
    json_t *answer = top_ask(top, request);

    if (answer == NULL || json_is_true(json_object_get(answer, "ok")))
        return answer;
    const char *error = json_string_value(json_object_get(answer, "error"));
    (void)snprintf(top->message, sizeof(top->message), "%.120s", error == NULL ? "?" : error);
    json_decref(answer);
    return NULL;
}

static void status_refresh(struct top *top)
{
    const struct tick_source *clock = tick_source_system();
    json_t *status = top_get(top, json_pack("{ss}", "verb", "status"));

    top->now = clock->wall(clock->context);
    if (status == NULL)
        return;
    if (top->status != NULL &&
        cli_number(top->status, NULL, "uptime_us") == cli_number(status, NULL, "uptime_us")) {
        json_decref(status); /* another's, which we had before */
        return;
    }
    json_decref(top->before);
    top->before = top->status;
    top->status = status;
    if (top->before != NULL &&
        cli_number(top->before, NULL, "pid") != cli_number(status, NULL, "pid")) {
        json_decref(top->before); /* another process counts from the beginning */
        top->before = NULL;
    }
}

static int age_compare(const json_t *a, const json_t *b)
{
    const json_t *left = json_object_get(a, "ages"), *right = json_object_get(b, "ages");

    for (size_t i = json_array_size(left); i-- > 0;) {
        json_int_t l = json_integer_value(json_array_get(left, i));
        json_int_t r = json_integer_value(json_array_get(right, i));
        if (l != r)
            return l > r ? -1 : 1;
    }
    return 0;
}

static int group_compare(const void *a, const void *b, void *context)
{
    const json_t *left = *(json_t *const *)a, *right = *(json_t *const *)b;
    const enum top_sort *sort = context;
    int order = 0;

    if (*sort == TOP_BY_AGE)
        order = age_compare(left, right);
    if (order == 0 && *sort != TOP_BY_NAME) {
        int64_t l = cli_number(left, NULL, "total"), r = cli_number(right, NULL, "total");
        order = l == r ? 0 : l > r ? -1 : 1;
    }
    if (order != 0)
        return order;
    return strcmp(json_string_value(json_object_get(left, "name")),
                  json_string_value(json_object_get(right, "name")));
}

static void rows_sort(json_t *rows, enum top_sort sort)
{
    size_t count = json_array_size(rows);
    json_t **sorted = calloc(count + 1, sizeof(json_t *));

    if (sorted == NULL)
        return;
    for (size_t i = 0; i < count; i++)
        sorted[i] = json_incref(json_array_get(rows, i));
    qsort_r(sorted, count, sizeof(json_t *), group_compare, &sort);
    for (size_t i = 0; i < count; i++)
        json_array_set_new(rows, i, sorted[i]);
    free(sorted);
}

/* The selection stays with what is selected, wherever that has gone. */
static void rows_replace(struct top_page *page, json_t *rows, const char *key)
{
    const char *name =
        json_string_value(json_object_get(json_array_get(page->rows, page->selected), key));
    size_t count = json_array_size(rows), selected = page->selected;

    for (size_t i = 0; i < count && name != NULL; i++) {
        if (strcmp(name, json_string_value(json_object_get(json_array_get(rows, i), key))) == 0)
            selected = i;
    }
    json_incref(rows);
    json_decref(page->rows);
    page->rows = rows;
    page->line_count = count;
    page->selected = selected < count ? selected : count > 0 ? count - 1 : 0;
}

static void groups_refresh(struct top *top, struct top_page *page)
{
    json_t *answer = top_get(top, json_pack("{ss,ss,si}", "verb", "queue summary", "by",
                                            cli_top_by[top->by], "limit", GROUPS_MAX));

    if (answer == NULL)
        return;
    json_t *rows = json_object_get(answer, "rows");
    rows_sort(rows, top->sort);
    rows_replace(page, rows, "name");
    json_decref(answer);
}

static void messages_refresh(struct top *top, struct top_page *page)
{
    json_t *answer = top_get(top, json_pack("{ss,ss,si}", "verb", "queue list", "filter",
                                            page->filter, "limit", MESSAGES_MAX));

    if (answer == NULL)
        return;
    rows_replace(page, json_object_get(answer, "rows"), "id");
    json_decref(answer);
}

static json_t *explain_ask(const void *context, const char *verb, const char *id)
{
    const struct top *top = context;

    return top_ask((struct top *)(uintptr_t)top, json_pack("{ss,ss}", "verb", verb, "id", id));
}

/* Lines that are too long for the terminal go on below, under what they say: the answers' texts
 * begin with a title of WRAP_INDENT columns. */
static char *text_wrap(const char *text, size_t *ret_lines)
{
    size_t width = COLS > (int)WRAP_INDENT * 2 ? (size_t)COLS : WRAP_INDENT * 2, size = 0;
    char *wrapped = NULL;
    FILE *out = open_memstream(&wrapped, &size);
    size_t column = 0;

    *ret_lines = 0;
    for (; out != NULL && *text != '\0'; text++) {
        if (column == width && *text != '\n') {
            fprintf(out, "\n%*s", (int)WRAP_INDENT, "");
            column = WRAP_INDENT;
            *ret_lines += 1;
        }
        fputc(*text, out);
        column = *text == '\n' ? 0 : column + 1;
        *ret_lines += *text == '\n';
    }
    if (out != NULL)
        fclose(out);
    return wrapped;
}

static void text_refresh(struct top *top, struct top_page *page)
{
    json_t *answer = cli_explain_gather(explain_ask, top, page->filter);
    char *text = NULL;
    size_t size = 0;

    if (answer == NULL)
        return;
    FILE *out = open_memstream(&text, &size);
    if (out != NULL && json_is_true(json_object_get(answer, "ok"))) {
        cli_explain_print(answer, top->now, out);
    } else if (out != NULL) {
        const char *error = json_string_value(json_object_get(answer, "error"));
        fprintf(out, "%s\n", error == NULL ? "?" : error);
    }
    json_decref(answer);
    if (out == NULL)
        return;
    fclose(out);
    free(page->text);
    page->text = text_wrap(text, &page->line_count);
    free(text);
}

void cli_top_page_refresh(struct top *top)
{
    struct top_page *page = cli_top_page(top);

    if (page->kind == TOP_GROUPS)
        groups_refresh(top, page);
    else if (page->kind == TOP_MESSAGES)
        messages_refresh(top, page);
    else
        text_refresh(top, page);
}

void cli_top_refresh(struct top *top, bool is_in_turn)
{
    top->message[0] = '\0';
    top->is_in_turn = is_in_turn;
    status_refresh(top);
    cli_top_page_refresh(top);
    top->is_in_turn = false;
}

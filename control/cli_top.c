/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The relay at a glance. Once an interval the relay is asked over the control socket what
 * `angarium status` and `angarium queue summary` ask; rates are differences of two answers. From a
 * group one goes down to its messages, and to why they wait; these pages are asked for when they
 * are opened, and when they are refreshed.
 *
 *   GROUPS -- Enter --> MESSAGES -- Enter --> TEXT (a message, explained)
 *      \------- e ------> TEXT (a group, explained)
 *
 * Limits: GROUPS_MAX groups, MESSAGES_MAX messages; what is beyond is not shown, and the totals say
 * how much there is. A relay that gives no answer is asked again; the last numbers stay, and it is
 * said that they are old.
 */
#include "control/cli_top.h"

#include <errno.h>
#include <locale.h>
#include <ncurses.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/ask.h"
#include "control/cli_top_state.h"

#define GROUPS_MAX     1000
#define MESSAGES_MAX   200
#define INTERVAL_S_MAX 60u
#define KEY_ESCAPE     27
#define WRAP_INDENT    11u

const char *const cli_top_by[] = {"site", "domain", "source", "class", "sender_domain"};
const char *const cli_top_sorts[TOP_SORT_COUNT] = {"total", "age", "name"};

static struct top_page *page_of(struct top *top)
{
    return &top->pages[top->depth];
}

/* ---- asking ---- */

static json_t *top_ask(struct top *top, json_t *request)
{
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
    json_decref(top->before);
    top->before = top->status;
    top->asked_before = top->asked;
    top->status = status;
    top->asked = clock->monotonic(clock->context);
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

static void page_refresh(struct top *top)
{
    struct top_page *page = page_of(top);

    if (page->kind == TOP_GROUPS)
        groups_refresh(top, page);
    else if (page->kind == TOP_MESSAGES)
        messages_refresh(top, page);
    else
        text_refresh(top, page);
}

static void refresh_all(struct top *top)
{
    top->message[0] = '\0';
    status_refresh(top);
    page_refresh(top);
}

/* ---- pages ---- */

static void page_close(struct top_page *page)
{
    json_decref(page->rows);
    free(page->text);
    *page = (struct top_page){0};
}

static void page_open(struct top *top, enum top_page_kind kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void page_open(struct top *top, enum top_page_kind kind, const char *format, ...)
{
    va_list arguments;
    struct top_page page = {.kind = kind};

    if (top->depth + 1 == TOP_PAGE_MAX)
        return;
    va_start(arguments, format);
    (void)vsnprintf(page.filter, sizeof(page.filter), format, arguments);
    va_end(arguments);
    top->pages[++top->depth] = page;
    top->message[0] = '\0';
    page_refresh(top);
}

static const char *selected_text(const struct top_page *page, const char *key)
{
    const json_t *row = json_array_get(page->rows, page->selected);
    const char *text = json_string_value(json_object_get(row, key));

    return text == NULL ? "" : text;
}

static void page_enter(struct top *top)
{
    struct top_page *page = page_of(top);

    if (page->kind == TOP_TEXT || json_array_size(page->rows) == 0)
        return;
    if (page->kind == TOP_GROUPS)
        page_open(top, TOP_MESSAGES, "%s=%s", cli_top_by[top->by], selected_text(page, "name"));
    else
        page_open(top, TOP_TEXT, "%s", selected_text(page, "id"));
}

static void page_explain(struct top *top)
{
    struct top_page *page = page_of(top);
    const char *by = cli_top_by[top->by];

    if (page->kind == TOP_MESSAGES)
        page_enter(top);
    if (page->kind != TOP_GROUPS || json_array_size(page->rows) == 0)
        return;
    if (strcmp(by, "site") == 0 || strcmp(by, "domain") == 0)
        page_open(top, TOP_TEXT, "%s", selected_text(page, "name"));
    else
        (void)snprintf(top->message, sizeof(top->message), "explain is about sites and domains: b");
}

/* False: there is none to go back to. */
static bool page_back(struct top *top)
{
    if (top->depth == 0)
        return false;
    page_close(page_of(top));
    top->depth--;
    return true;
}

static void page_move(struct top *top, long lines)
{
    struct top_page *page = page_of(top);
    size_t room = cli_top_room();
    size_t last = page->line_count == 0 ? 0 : page->line_count - 1;

    if (page->kind == TOP_TEXT) /* its last line stays at the bottom */
        last = page->line_count > room ? page->line_count - room : 0;
    if (lines < 0)
        page->selected -= (size_t)-lines < page->selected ? (size_t)-lines : page->selected;
    else
        page->selected =
            page->selected + (size_t)lines < last ? page->selected + (size_t)lines : last;
    if (page->kind == TOP_TEXT)
        page->first = page->selected;
}

/* What is selected is shown. */
static void page_scroll(struct top *top)
{
    struct top_page *page = page_of(top);
    size_t room = cli_top_room();

    if (page->kind == TOP_TEXT)
        return;
    if (page->selected < page->first)
        page->first = page->selected;
    if (page->selected >= page->first + room)
        page->first = page->selected - room + 1;
}

/* ---- keys ---- */

static void interval_change(struct top *top, bool is_longer)
{
    if (is_longer && top->interval_s < INTERVAL_S_MAX)
        top->interval_s++;
    if (!is_longer && top->interval_s > 1)
        top->interval_s--;
}

static void groups_change(struct top *top, bool is_sort)
{
    struct top_page *page = &top->pages[0];

    while (top->depth > 0)
        (void)page_back(top);
    if (is_sort) {
        top->sort = (top->sort + 1) % TOP_SORT_COUNT;
    } else {
        top->by = (top->by + 1) % 5;
        page->selected = page->first = 0;
    }
    refresh_all(top);
}

static void key_moves(struct top *top, int key)
{
    long room = (long)cli_top_room();

    switch (key) {
    case KEY_UP:
    case 'k':
        page_move(top, -1);
        break;
    case KEY_DOWN:
    case 'j':
        page_move(top, 1);
        break;
    case KEY_PPAGE:
        page_move(top, -room);
        break;
    case KEY_NPAGE:
    case ' ':
        page_move(top, room);
        break;
    case KEY_HOME:
        page_move(top, -(1 << 30));
        break;
    case KEY_END:
        page_move(top, 1 << 30);
        break;
    default:
        break;
    }
}

/* False: the user leaves. */
static bool key_take(struct top *top, int key)
{
    if (top->has_help) {
        top->has_help = false;
        return key != 'q';
    }
    switch (key) {
    case 'q':
        return false;
    case KEY_ESCAPE:
    case KEY_BACKSPACE:
    case KEY_LEFT:
    case 127:
        return page_back(top) || key != KEY_ESCAPE;
    case '\n':
    case KEY_ENTER:
    case KEY_RIGHT:
        page_enter(top);
        break;
    case 'e':
        page_explain(top);
        break;
    case 'b':
    case 's':
        groups_change(top, key == 's');
        break;
    case 'p':
        top->is_paused = !top->is_paused;
        break;
    case 'r':
        refresh_all(top);
        break;
    case '+':
    case '-':
        interval_change(top, key == '+');
        break;
    case 'h':
    case '?':
        top->has_help = true;
        break;
    default:
        key_moves(top, key);
    }
    page_scroll(top);
    return true;
}

/* ---- the loop ---- */

static tick_us tick_read(void)
{
    const struct tick_source *clock = tick_source_system();

    return clock->monotonic(clock->context);
}

static void top_loop(struct top *top)
{
    tick_us next = tick_read() + TICK_S(1) * top->interval_s;
    bool is_on = true;

    while (is_on) {
        tick_us now = tick_read();
        if (now >= next) {
            if (!top->is_paused)
                refresh_all(top);
            now = tick_read();
            next = now + TICK_S(1) * top->interval_s;
        }
        page_scroll(top);
        cli_top_draw(top);
        timeout((int)((next - now) / 1000) + 1);
        int key = getch();
        if (key != ERR && key != KEY_RESIZE)
            is_on = key_take(top, key);
    }
}

bool cli_top_run(const char *socket_path)
{
    struct top top = {.socket_path = socket_path, .interval_s = 1};

    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
        fprintf(stderr,
                "angarium: top needs a terminal; `angarium status --json` is for programs\n");
        return false;
    }
    refresh_all(&top);
    if (top.status == NULL) {
        fprintf(stderr, "angarium: %s\n", top.message);
        return false;
    }
    setlocale(LC_CTYPE, "");
    if (newterm(NULL, stdout, stdin) == NULL) {
        fprintf(stderr, "angarium: this terminal is not known: %s\n",
                getenv("TERM") == NULL ? "TERM is not set" : getenv("TERM"));
        return false;
    }
    cbreak();
    noecho();
    keypad(stdscr, true);
    set_escdelay(50);
    curs_set(0);
    top_loop(&top);
    endwin();
    while (page_back(&top))
        ;
    page_close(&top.pages[0]);
    json_decref(top.status);
    json_decref(top.before);
    return true;
}

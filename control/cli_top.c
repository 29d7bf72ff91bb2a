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
 * Here: pages, keys, the loop. cli_top_ask.c asks the relay, cli_top_draw.c draws.
 */
#include "control/cli_top.h"

#include <ncurses.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/cli_top_state.h"

#define INTERVAL_S_MAX 60u
#define KEY_ESCAPE     27

const char *const cli_top_by[] = {"site", "domain", "source", "class", "sender_domain"};
const char *const cli_top_sorts[TOP_SORT_COUNT] = {"total", "age", "name"};

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
    cli_top_page_refresh(top);
}

static const char *selected_text(const struct top_page *page, const char *key)
{
    const json_t *row = json_array_get(page->rows, page->selected);
    const char *text = json_string_value(json_object_get(row, key));

    return text == NULL ? "" : text;
}

static void page_enter(struct top *top)
{
    struct top_page *page = cli_top_page(top);

    if (page->kind == TOP_TEXT || json_array_size(page->rows) == 0)
        return;
    if (page->kind == TOP_GROUPS)
        page_open(top, TOP_MESSAGES, "%s=%s", cli_top_by[top->by], selected_text(page, "name"));
    else
        page_open(top, TOP_TEXT, "%s", selected_text(page, "id"));
}

static void page_explain(struct top *top)
{
    struct top_page *page = cli_top_page(top);
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
    page_close(cli_top_page(top));
    top->depth--;
    return true;
}

static void page_move(struct top *top, long lines)
{
    struct top_page *page = cli_top_page(top);
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
    struct top_page *page = cli_top_page(top);
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
    cli_top_refresh(top, false);
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
        cli_top_refresh(top, false);
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
                cli_top_refresh(top, true);
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
    cli_top_refresh(&top, false);
    if (top.status == NULL) {
        fprintf(stderr, "angarium: %s\n", top.message);
        return false;
    }
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

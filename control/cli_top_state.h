/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_CLI_TOP_STATE_H
#define CONTROL_CLI_TOP_STATE_H

#include <jansson.h>

#include "base/check.h"
#include "base/tick.h"
#include "control/cli_print.h"

/*
 * Shared by the files of `angarium top`: cli_top.c (pages, and what keys do), cli_top_ask.c (what
 * is asked) and cli_top_draw.c (what it looks like).
 */
#define TOP_FILTER_SIZE 320u
#define TOP_HEAD_LINES  8 /* above the page, with its heading */

enum top_page_kind { TOP_GROUPS, TOP_MESSAGES, TOP_TEXT };
enum top_sort { TOP_BY_TOTAL, TOP_BY_AGE, TOP_BY_NAME, TOP_SORT_COUNT };

/* A page lies on those that led to it. */
struct top_page {
    enum top_page_kind kind;
    char filter[TOP_FILTER_SIZE]; /* MESSAGES: what is listed; TEXT: what it is about */
    json_t *rows;                 /* GROUPS, MESSAGES: in the order shown */
    char *text;                   /* TEXT */
    size_t line_count;            /* of rows or of text */
    size_t selected, first;       /* rows, or the first line shown */
};

#define TOP_PAGE_MAX 4u

struct top {
    const char *socket_path;
    json_t *status, *before; /* the last answers; NULL: there is none */
    bool is_in_turn;         /* it is asked because an interval is over */
    wall_us now;
    struct top_page pages[TOP_PAGE_MAX];
    uint32_t depth; /* the page on top */
    uint32_t by;    /* which groups */
    enum top_sort sort;
    uint32_t interval_s;
    bool is_paused, has_help;
    char message[128]; /* what went wrong; "": nothing */
};

extern const char *const cli_top_by[];
extern const char *const cli_top_sorts[TOP_SORT_COUNT];

/** The page on top. */
static inline struct top_page *cli_top_page(struct top *top)
{
    return &top->pages[top->depth];
}

/** Ask for the page on top; for the status and that, `is_in_turn`: since an interval is over, and
 * not because the user wants it now. */
void cli_top_page_refresh(struct top *top);
void cli_top_refresh(struct top *top, bool is_in_turn);
/** The `index`-th line of a page of text, not terminated; its size in *ret_size. */
const char *cli_top_line(const struct top_page *page, size_t index, size_t *ret_size);
/** Lines of the page that fit the terminal. */
size_t cli_top_room(void);
void cli_top_draw(const struct top *top);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `angarium top` looks like. Lines are made as text first and cut to the width of the
 * terminal; attributes are all that curses adds, so that it reads the same on a terminal without
 * colours.
 */
#include <inttypes.h>
#include <ncurses.h>
#include <stdarg.h>
#include <string.h>

#include "control/cli_top_state.h"

#define LINE_SIZE 512u

const char *cli_top_line(const struct top_page *page, size_t index, size_t *ret_size)
{
    const char *line = page->text == NULL ? "" : page->text;

    while (index-- > 0 && *line != '\0') {
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
    *ret_size = strcspn(line, "\n");
    return line;
}

size_t cli_top_room(void)
{
    return LINES > TOP_HEAD_LINES + 1 ? (size_t)(LINES - TOP_HEAD_LINES - 1) : 1;
}

/* A whole line: what is behind the text is cleared. */
static void line_draw(int y, attr_t attributes, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void line_draw(int y, attr_t attributes, const char *format, ...)
{
    char text[LINE_SIZE];
    va_list arguments;

    if (y >= LINES)
        return;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    attrset(attributes);
    mvaddnstr(y, 0, text, COLS);
    if ((attributes & A_REVERSE) != 0) {
        for (int x = (int)strlen(text); x < COLS; x++)
            addch(' ');
    } else {
        clrtoeol();
    }
    attrset(A_NORMAL);
}

/* ---- numbers ---- */

static double rate(const struct top *top, const char *group, const char *name)
{
    if (top->before == NULL)
        return 0;
    /* By the relay's clock: an answer may have waited on its way. */
    double between = (double)(cli_number(top->status, NULL, "uptime_us") -
                              cli_number(top->before, NULL, "uptime_us"));
    double risen =
        (double)(cli_number(top->status, group, name) - cli_number(top->before, group, name));
    return risen < 0 || between <= 0 ? 0 : risen * 1e6 / between;
}

static const char *rate_format(const struct top *top, const char *group, const char *name,
                               char text[24])
{
    return cli_size_format((uint64_t)(rate(top, group, name) + 0.5), text);
}

static const char *count_format(const struct top *top, const char *group, const char *name,
                                char text[24])
{
    int64_t value = cli_number(top->status, group, name);

    if (value < 100000) {
        (void)snprintf(text, 24, "%" PRId64, value);
        return text;
    }
    return cli_size_format((uint64_t)value, text);
}

/* Of the times that were counted between two answers: what `parts` of a thousand did not exceed. */
static const char *latency_format(const struct top *top, const char *name, json_int_t parts,
                                  char text[24])
{
    const json_t *now = json_object_get(json_object_get(top->status, "latency"), name);
    const json_t *before = json_object_get(json_object_get(top->before, "latency"), name);
    int64_t us;

    if (before == NULL || !cli_latency_quantile(now, before, parts, &us))
        return "-";
    if (us < 10000)
        (void)snprintf(text, 24, "%.1fms", (double)us / 1e3);
    else if (us < 10000000)
        (void)snprintf(text, 24, "%.0fms", (double)us / 1e3);
    else
        cli_age_format(us, text);
    return text;
}

/* ---- the head ---- */

struct cell {
    const char *group, *name, *label;
    bool is_rate;
};

/* Five cells fill the 80 columns. */
#define ROW_CELLS 5u
static const struct row {
    const char *title;
    struct cell cells[ROW_CELLS];
} head_rows[] = {
    {"in",
     {{"server", "messages_accepted", "msg/s", true},
      {"server", "octets", "B/s", true},
      {"server", "open", "sessions", false},
      {"server", "messages_rejected", "reject/s", true},
      {"server", "refused", "refuse/s", true}}},
    {"out",
     {{"queue", "delivered_recipients", "rcpt/s", true},
      {"client", "open", "conns", false},
      {"queue", "deferrals", "defer/s", true},
      {"queue", "failed_recipients", "bounce/s", true},
      {"queue", "expired_recipients", "expire/s", true}}},
    {"queue",
     {{"queue", "messages", "msgs", false},
      {"queue", "deliveries_waiting", "waiting", false},
      {"queue", "deliveries_ready", "ready", false},
      {"queue", "deliveries_active", "active", false},
      {"queue", "deliveries_held", "held", false}}},
    {"spool",
     {{"spool", "octets_used", "B used", false},
      {"spool", "octets_max", "B max", false},
      {"spool", "octets_written", "B/s", true},
      {"spool", "commits", "msg/s", true},
      {"spool", "syncs", "sync/s", true}}},
};

static void rows_of_head_draw(const struct top *top)
{
    for (uint32_t i = 0; i < COUNT_OF(head_rows); i++) {
        const struct row *row = &head_rows[i];
        char text[LINE_SIZE], number[24];
        int size = snprintf(text, sizeof(text), "%-5s", row->title);
        for (uint32_t c = 0; c < ROW_CELLS; c++) {
            const struct cell *cell = &row->cells[c];
            const char *value = cell->is_rate ? rate_format(top, cell->group, cell->name, number)
                                              : count_format(top, cell->group, cell->name, number);
            size +=
                snprintf(text + size, sizeof(text) - (size_t)size, "%6s %-8s", value, cell->label);
        }
        line_draw(1 + (int)i, A_NORMAL, "%s", text);
    }
}

static void times_draw(const struct top *top)
{
    char a[24], b[24], c[24], d[24];

    line_draw(5, A_NORMAL, "took   accept p50 %s p99 %s   delivery p50 %s p99 %s",
              latency_format(top, "accept", 500, a), latency_format(top, "accept", 990, b),
              latency_format(top, "delivery", 500, c), latency_format(top, "delivery", 990, d));
}

static const char *alarm_of(const struct top *top)
{
    static const struct {
        const char *group, *name, *text;
    } alarms[] = {
        {"queue", "stuck", "mail without a next event: see the log"},
        {"spool", "is_failed", "a disk has failed: see the log"},
        {"server", "closed", "no mail is taken: angarium drain"},
        {"spool", "is_stuck", "nothing can be written to the spool: make room"},
        {"spool", "is_full", "the spool is full: new mail is answered 452"},
        {"queue", "unreadable", "mail that cannot be read: see the log"},
        {"records", "holding", "records wait for their file: new mail is answered 451"},
        {"records", "dropped", "records were lost"},
    };

    if (top->message[0] != '\0')
        return top->message;
    for (uint32_t i = 0; i < COUNT_OF(alarms); i++) {
        if (cli_number(top->status, alarms[i].group, alarms[i].name) > 0)
            return alarms[i].text;
    }
    return "";
}

static void head_draw(const struct top *top)
{
    char version[CLI_SHOWN_SIZE], age[24];
    double busy = rate(top, "shards", "busy_us") / 1e4;
    int64_t cores = cli_number(top->status, NULL, "cores");

    line_draw(0, A_BOLD, "angarium %.20s  up %s  cores %" PRId64 ", %.0f%% busy%s",
              cli_shown(top->status, "version", version),
              cli_age_format(cli_number(top->status, NULL, "uptime_s") * 1000000, age), cores,
              cores > 0 ? busy / (double)cores : 0, top->is_paused ? "  PAUSED" : "");
    rows_of_head_draw(top);
    times_draw(top);
    line_draw(6, A_BOLD, "%s", alarm_of(top));
}

/* ---- pages ---- */

static const char *cell_format(int64_t value, char text[24])
{
    if (value == 0)
        return ".";
    if (value < 10000) {
        (void)snprintf(text, 24, "%" PRId64, value);
        return text;
    }
    return cli_size_format((uint64_t)value, text);
}

/* Ages in four columns, which 80 columns have room for: the summary has them all. */
static void group_draw(int y, attr_t attributes, const json_t *row)
{
    static const uint32_t ends[] = {3, 5, 7, 10}; /* of the buckets: 20 m, 80 m, 5 h 20, the rest */
    const json_t *ages = json_object_get(row, "ages");
    char name[CLI_SHOWN_SIZE], total[24], cells[COUNT_OF(ends)][24];
    const char *shown[COUNT_OF(ends)];
    size_t bucket = 0;

    for (uint32_t i = 0; i < COUNT_OF(ends); i++) {
        int64_t sum = 0;
        size_t end = i + 1 < COUNT_OF(ends) ? ends[i] : json_array_size(ages);
        for (; bucket < end; bucket++)
            sum += json_integer_value(json_array_get(ages, bucket));
        shown[i] = cell_format(sum, cells[i]);
    }
    line_draw(y, attributes, "%-39.39s %8s %7s %7s %7s %7s", cli_shown(row, "name", name),
              cell_format(cli_number(row, NULL, "total"), total), shown[0], shown[1], shown[2],
              shown[3]);
}

static void message_draw(int y, attr_t attributes, const json_t *row, wall_us now)
{
    char id[CLI_SHOWN_SIZE], state[CLI_SHOWN_SIZE], to[CLI_SHOWN_SIZE], reply[CLI_SHOWN_SIZE],
        age[24];

    line_draw(y, attributes, "%-26.26s %4s %-7.7s %3" PRId64 "  %-35.35s  %s",
              cli_shown(row, "id", id),
              cli_age_format(now - cli_number(row, NULL, "arrived_us"), age),
              cli_shown(row, "state", state), cli_number(row, NULL, "attempts"),
              cli_shown(row, "recipient", to), cli_shown(row, "last_reply", reply));
}

static void rows_draw(const struct top *top, const struct top_page *page)
{
    size_t room = cli_top_room();

    for (size_t i = 0; i < room; i++) {
        int y = TOP_HEAD_LINES + (int)i;
        const json_t *row = json_array_get(page->rows, page->first + i);
        attr_t attributes = page->first + i == page->selected ? A_REVERSE : A_NORMAL;
        if (row == NULL)
            line_draw(y, A_NORMAL, "%s", page->line_count == 0 && i == 0 ? "nothing waits" : "");
        else if (page->kind == TOP_GROUPS)
            group_draw(y, attributes, row);
        else
            message_draw(y, attributes, row, top->now);
    }
}

static void text_draw(const struct top_page *page)
{
    for (size_t i = 0; i < cli_top_room(); i++) {
        size_t size;
        const char *line = cli_top_line(page, page->first + i, &size);
        line_draw(TOP_HEAD_LINES + (int)i, A_NORMAL, "%.*s", (int)size, line);
    }
}

static void heading_draw(const struct top *top, const struct top_page *page)
{
    char what[64];

    if (page->kind == TOP_GROUPS) {
        (void)snprintf(what, sizeof(what), "BY %s, sorted by %s", cli_top_by[top->by],
                       cli_top_sorts[top->sort]);
        line_draw(7, A_UNDERLINE, "%-39s %8s %7s %7s %7s %7s", what, "TOTAL", "<20m", "<80m", "<5h",
                  "older");
    } else if (page->kind == TOP_MESSAGES) {
        line_draw(7, A_UNDERLINE, "%-26.26s %4s %-7s %3s  %-35s  %s", page->filter, "AGE", "STATE",
                  "TRY", "RECIPIENT", "LAST REPLY");
    } else {
        line_draw(7, A_UNDERLINE, "%s", page->filter);
    }
}

static void help_draw(void)
{
    static const char *const lines[] = {
        "Up Down PgUp PgDn Home End   select, or scroll (also k, j, space)",
        "Enter Right                  the messages of a group; a message, explained",
        "e                            why the mail of a site or domain goes, or does not",
        "Esc Left Backspace           back",
        "b                            group by site, domain, source, class, sender_domain",
        "s                            sort by total, age, name",
        "p  r  + -                    pause; refresh now; a longer or shorter interval",
        "q                            leave",
        "",
        "Rates and times are those of the last interval. Any key goes on.",
    };

    for (size_t i = 0; i < cli_top_room(); i++)
        line_draw(TOP_HEAD_LINES + (int)i, A_NORMAL, "%s", i < COUNT_OF(lines) ? lines[i] : "");
}

void cli_top_draw(const struct top *top)
{
    const struct top_page *page = &top->pages[top->depth];

    erase();
    head_draw(top);
    heading_draw(top, page);
    if (top->has_help)
        help_draw();
    else if (page->kind == TOP_TEXT)
        text_draw(page);
    else
        rows_draw(top, page);
    line_draw(LINES - 1, A_REVERSE,
              " ? help  Enter open  e explain  b group  s sort  p pause  %us  q quit",
              top->interval_s);
    refresh();
}

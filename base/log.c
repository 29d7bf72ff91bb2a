/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One event, one line, one write(2): lines of several threads never mix.
 *
 *   time=2026-01-31T12:00:00.123456Z severity=warning listener=0.0.0.0:25 why=...
 *
 * Rate limit: a reason is the format string of the call. Each reason may write LOG_RATE_LINES lines
 * in LOG_RATE_WINDOW_S seconds; the first line after that says how many were left out. Reasons live
 * in a table of LOG_REASONS slots found by the address of the format; two reasons that meet in one
 * slot share its limit. Fatal lines are never left out. A slot is one atomic word (window number
 * above, lines below), so that any thread may log without a lock.
 *
 * Control characters that slip into a line in spite of log_escape() are written as '?'.
 */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define LOG_LINE_SIZE_MAX 2048u
#define LOG_TAIL_SIZE     40u /* room kept for " suppressed=N\n" */
#define LOG_RATE_LINES    50u
#define LOG_RATE_WINDOW_S 10
#define LOG_REASONS       256u

static _Atomic int log_threshold = LOG_INFO;
static _Atomic uint64_t log_reasons[LOG_REASONS];

static const char *const log_words[] = {
    [LOG_DEBUG] = "debug", [LOG_INFO] = "info",   [LOG_WARNING] = "warning",
    [LOG_ERROR] = "error", [LOG_FATAL] = "fatal",
};

void log_set_threshold(enum log_severity least)
{
    CHECK(least >= LOG_DEBUG && least <= LOG_FATAL);
    atomic_store_explicit(&log_threshold, (int)least, memory_order_relaxed);
}

/* Count one line of a reason. False: leave it out. */
static bool log_rate_admits(const char *format, time_t second, uint32_t *ret_suppressed)
{
    uint64_t hash = (uint64_t)(uintptr_t)format * UINT64_C(0x9e3779b97f4a7c15);
    _Atomic uint64_t *reason = &log_reasons[hash >> 56 & (LOG_REASONS - 1)];
    uint64_t window = (uint64_t)(second / LOG_RATE_WINDOW_S) & UINT32_MAX;
    uint64_t old = atomic_load_explicit(reason, memory_order_relaxed), new;
    uint32_t lines;

    do {
        lines = old >> 32 == window ? (uint32_t)old : 0;
        if (lines == UINT32_MAX)
            return false;
        new = window << 32 | (lines + 1);
    } while (!atomic_compare_exchange_weak_explicit(reason, &old, new, memory_order_relaxed,
                                                    memory_order_relaxed));
    bool is_new_window = old >> 32 != window;
    *ret_suppressed =
        is_new_window && (uint32_t)old > LOG_RATE_LINES ? (uint32_t)old - LOG_RATE_LINES : 0;
    return lines < LOG_RATE_LINES;
}

static uint32_t log_put_head(char *line, enum log_severity severity, const struct timespec *time)
{
    struct tm utc;
    size_t size;

    gmtime_r(&time->tv_sec, &utc);
    size = strftime(line, LOG_LINE_SIZE_MAX, "time=%Y-%m-%dT%H:%M:%S", &utc);
    int added = snprintf(line + size, LOG_LINE_SIZE_MAX - size, ".%06ldZ severity=%s ",
                         time->tv_nsec / 1000, log_words[severity]);
    CHECK(added > 0);
    return (uint32_t)size + (uint32_t)added;
}

void log_line(enum log_severity severity, const char *format, ...)
{
    char line[LOG_LINE_SIZE_MAX];
    struct timespec time;
    uint32_t suppressed = 0;
    va_list arguments;

    CHECK(severity >= LOG_DEBUG && severity <= LOG_FATAL);
    if ((int)severity < atomic_load_explicit(&log_threshold, memory_order_relaxed))
        return;
    clock_gettime(CLOCK_REALTIME, &time);
    if (!log_rate_admits(format, time.tv_sec, &suppressed) && severity != LOG_FATAL)
        return;

    uint32_t size = log_put_head(line, severity, &time);
    uint32_t room = LOG_LINE_SIZE_MAX - LOG_TAIL_SIZE - size;
    va_start(arguments, format);
    int wanted = vsnprintf(line + size, room, format, arguments);
    va_end(arguments);
    if (wanted > 0)
        size += (uint32_t)wanted < room ? (uint32_t)wanted : room - 1;
    for (uint32_t i = 0; i < size; i++) {
        if ((uint8_t)line[i] < ' ' || line[i] == 0x7f)
            line[i] = '?';
    }
    if (suppressed > 0)
        size += (uint32_t)snprintf(line + size, LOG_TAIL_SIZE, " suppressed=%u", suppressed);
    line[size++] = '\n';
    /* There is nowhere to report a failure to: standard error is the place. */
    ssize_t ignored = write(STDERR_FILENO, line, size);
    (void)ignored;
}

const char *log_escape(struct span octets, char *ret_text, uint32_t size)
{
    static const char hex[] = "0123456789abcdef";
    uint32_t used = 0;

    CHECK(ret_text != NULL && size > 0);
    for (uint32_t i = 0; i < octets.size; i++) {
        uint8_t octet = octets.data[i];
        bool is_plain = octet >= ' ' && octet < 0x7f;
        bool is_quoted = octet == '\\' || octet == '"';
        uint32_t needed = is_quoted ? 2 : is_plain ? 1 : 4;

        if (needed > size - 1 - used) /* never half an escape */
            break;
        if (!is_plain) {
            ret_text[used++] = '\\';
            ret_text[used++] = 'x';
            ret_text[used++] = hex[octet >> 4];
            ret_text[used++] = hex[octet & 15];
            continue;
        }
        if (is_quoted)
            ret_text[used++] = '\\';
        ret_text[used++] = (char)octet;
    }
    ret_text[used] = '\0';
    return ret_text;
}

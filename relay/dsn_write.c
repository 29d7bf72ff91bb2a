/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a notification: pieces of text gathered in a chunk, appended to the body when it is full.
 *
 * Invariants
 *   1. Octets of others never end a line: control octets become '?', long texts are folded, long
 *      lines of a header are cut.
 *   2. The flags of the envelope that depend on octets (8-bit, lines that begin with a dot) are
 *      found while writing, so they are right whatever was quoted.
 *   3. After a failed append nothing more is appended; the error is told by the last dsn_flush().
 */
#include "relay/dsn_write.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "queue/envelope.h"

#define FOLD_MAX  900u /* leaves room for a field's name */
#define FOLD_SIZE 76u

void dsn_flush(struct dsn_writer *writer)
{
    if (writer->err == ERR_OK)
        writer->err =
            buf_queue_append_copy(writer->body, writer->pool, span_of(writer->chunk, writer->used));
    writer->used = 0;
}

void dsn_put_octet(struct dsn_writer *writer, uint8_t octet)
{
    if (writer->used == sizeof(writer->chunk))
        dsn_flush(writer);
    if (octet > 127)
        writer->flags |= ENVELOPE_EIGHT_BIT;
    if (writer->is_line_start && octet == '.')
        writer->flags |= ENVELOPE_DOT_LINES;
    writer->is_line_start = octet == '\n';
    writer->chunk[writer->used++] = octet;
    writer->size++;
}

void dsn_put_text(struct dsn_writer *writer, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\n')
            dsn_put_octet(writer, '\r');
        dsn_put_octet(writer, (uint8_t)*text);
    }
}

void dsn_printf(struct dsn_writer *writer, const char *format, ...)
{
    char text[1024];
    va_list arguments;

    va_start(arguments, format);
    int size = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    CHECK(size >= 0 && (uint32_t)size < sizeof(text)); /* bounded texts only */
    dsn_put_text(writer, text);
}

/* An octet of something a peer said, as it may stand in a line. */
static uint8_t octet_clean(uint8_t octet)
{
    return octet < ' ' || octet == 0x7f ? '?' : octet;
}

/* Where to break `text`: behind the last space within FOLD_SIZE octets, else at FOLD_MAX. */
static uint32_t fold_find(struct span text)
{
    if (text.size <= FOLD_SIZE)
        return text.size;
    for (uint32_t i = FOLD_SIZE; i > 0; i--) {
        if (text.data[i] == ' ')
            return i;
    }
    for (uint32_t i = FOLD_SIZE; i < text.size && i < FOLD_MAX; i++) {
        if (text.data[i] == ' ')
            return i;
    }
    return text.size < FOLD_MAX ? text.size : FOLD_MAX;
}

void dsn_put_folded(struct dsn_writer *writer, struct span text, const char *indent)
{
    while (text.size > 0) { /* at least one octet a round */
        uint32_t size = fold_find(text);
        for (uint32_t i = 0; i < size; i++)
            dsn_put_octet(writer, octet_clean(text.data[i]));
        text = span_skip(text, size);
        while (text.size > 0 && text.data[0] == ' ')
            text = span_skip(text, 1);
        if (text.size > 0)
            dsn_printf(writer, "\n%s", indent);
    }
    dsn_put_text(writer, "\n");
}

void dsn_put_clean(struct dsn_writer *writer, struct span text)
{
    for (uint32_t i = 0; i < text.size; i++)
        dsn_put_octet(writer, octet_clean(text.data[i]));
}

void dsn_date_format(wall_us when, char ret_text[DSN_DATE_SIZE])
{
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t seconds = (time_t)(when / 1000000);
    struct tm tm;

    CHECK(gmtime_r(&seconds, &tm) != NULL);
    snprintf(ret_text, DSN_DATE_SIZE, "%s, %d %s %d %02d:%02d:%02d +0000", days[tm.tm_wday],
             tm.tm_mday, months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

void dsn_put_header_line(struct dsn_writer *writer, struct span line)
{
    uint32_t in_line = 0;

    for (uint32_t i = 0; i < line.size; i++) {
        uint8_t octet = line.data[i];
        if (octet == '\r' || octet == 0)
            octet = '?';
        if (in_line == DSN_LINE_MAX) {
            dsn_put_text(writer, "\n ");
            in_line = 1;
        }
        dsn_put_octet(writer, octet);
        in_line++;
    }
    dsn_put_text(writer, "\n");
}

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_DSN_WRITE_H
#define RELAY_DSN_WRITE_H

#include "base/buf.h"
#include "base/tick.h"

/* Octets of a notification: CRLF at every line's end, no line too long, nothing of what peers said
 * that could end a line or begin a part. */
#define DSN_LINE_MAX  990u /* RFC 5322 section 2.1.1 allows 998 */
#define DSN_DATE_SIZE 40u

struct dsn_writer {
    struct buf_queue *body;
    struct buf_pool *pool;
    enum err err;   /* of the first append that failed */
    uint64_t size;  /* octets written */
    uint32_t flags; /* of the envelope, found while writing */
    bool is_line_start;
    uint32_t used;
    uint8_t chunk[2048];
};

/** What was written is in the body, or writer->err says why not. */
void dsn_flush(struct dsn_writer *writer);
void dsn_put_octet(struct dsn_writer *writer, uint8_t octet);
/** Text of ours, LF written as CRLF. */
void dsn_put_text(struct dsn_writer *writer, const char *text);
/** Likewise; at most 1,023 octets. */
void dsn_printf(struct dsn_writer *writer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/** What a peer said, control octets made '?', on this line. */
void dsn_put_clean(struct dsn_writer *writer, struct span text);
/** Likewise over as many lines as it needs, each but the first begun by `indent`, ended by CRLF. */
void dsn_put_folded(struct dsn_writer *writer, struct span text, const char *indent);
/** One line of somebody's header without its end, in pieces if it is too long. */
void dsn_put_header_line(struct dsn_writer *writer, struct span line);
/** RFC 5322 section 3.3, in UTC; no locale. */
void dsn_date_format(wall_us when, char ret_text[DSN_DATE_SIZE]);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_SMTP_REPLY_H
#define RELAY_SMTP_REPLY_H

#include "base/span.h"

/*
 * Replies of a server, read octet by octet from whatever pieces the network gives. The parser keeps
 * an unfinished line itself, so the caller's input is always consumed up to the end of a reply and
 * never further: whatever is left behind a last line belongs to the next command, or to nobody.
 */
#define SMTP_REPLY_LINE_KEPT 512u  /* octets of a line that are looked at; RFC 5321 4.5.3.1.5 */
#define SMTP_REPLY_LINE_MAX  2048u /* octets of a line with its end that are tolerated */
#define SMTP_REPLY_LINES_MAX 100u
#define SMTP_REPLY_SIZE_MAX  65536u
#define SMTP_REPLY_TEXT_MAX  1000u

struct smtp_reply {
    uint16_t code;       /* 200..599; 0 before the first line is complete */
    uint8_t enhanced[3]; /* 5.1.1; 0.0.0: none, or its class contradicts the code; parts above 255
                            are kept as 255 */
    uint16_t text_size;
    char text[SMTP_REPLY_TEXT_MAX]; /* code, enhanced code and the text of all lines joined by
                                       spaces; printable ASCII only, no NUL at the end */
};

struct smtp_reply_parser {
    struct smtp_reply reply;
    uint32_t line_count; /* complete lines of this reply */
    uint32_t size;       /* octets of this reply */
    uint32_t line_size;  /* octets of the unfinished line; the complete one's kept part after ERR_OK
                          */
    bool is_line_done;   /* the next octet begins a new line */
    bool is_last;        /* the line just read ends the reply */
    uint8_t line[SMTP_REPLY_LINE_KEPT];
};

void smtp_reply_parser_init(struct smtp_reply_parser *parser);

/**
 * Consume input up to the end of one line. With ERR_OK a line is complete: `smtp_reply_line_text()`
 * is its text, and `is_last` says whether `reply` is complete too. The feed after a last line
 * begins a new reply.
 *
 * Spec:   RFC 5321 section 4.2. A lone LF ends a line like CRLF does; a code without text is legal.
 * Cost:   no allocation, O(input).
 * Errors: ERR_AGAIN: all input was consumed, the line is unfinished. ERR_PEER_SYNTAX: not a reply,
 *         or the code changed inside one. ERR_LIMIT: one of the bounds above. Nothing more can be
 *         read from this server after the last two; *ret_consumed is then untouched.
 */
enum err smtp_reply_feed(struct smtp_reply_parser *parser, struct span input,
                         uint32_t *ret_consumed) MUST_CHECK;

/** The text behind "250-" of the line just completed, raw octets, valid until the next feed. */
struct span smtp_reply_line_text(const struct smtp_reply_parser *parser);

static inline struct span smtp_reply_text(const struct smtp_reply *reply)
{
    return span_of(reply->text, reply->text_size);
}

/**
 * Parse an enhanced status code (RFC 3463: class 2, 4 or 5, then two numbers of at most three
 * digits) at the start of `text`, ended by a space or the end. Returns its size, 0 when there is
 * none; `ret_parts` is untouched then.
 */
uint32_t smtp_enhanced_parse(struct span text, uint16_t ret_parts[3]);

#endif
